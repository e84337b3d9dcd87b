//! Which of several replicas acts: a Lease that the leader renews. Every write carries the resource version that was read,
//! so that of two only one succeeds. Another's lease is judged by when its change was seen here, never by its own times:
//! clocks differ. What the leader does is not this module's business; it only says whether one is it, and until when.

use crate::error::{Class, Error, causes};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Silence after which a leader may be replaced.
const LEASE: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long acts no more. What it began before ends within the rest of the lease.
const RENEW_DEADLINE: Duration = Duration::from_millis(10_900);
/// From one renewal to the next; leaves time for a second and third try.
const RENEW: Duration = Duration::from_millis(6_500);
/// From one attempt to the next.
const RETRY: Duration = Duration::from_secs(2);
const REQUEST: Duration = Duration::from_secs(3);

/// Says whether this process may still act. Asked before every write.
#[derive(Clone)]
pub struct LeaderToken {
    began: Instant,
    /// Milliseconds after `began`.
    until: Arc<AtomicU64>,
}

impl LeaderToken {
    fn new() -> LeaderToken {
        LeaderToken { began: Instant::now(), until: Arc::default() }
    }

    /// Of a process that has no rivals.
    pub fn always() -> LeaderToken {
        LeaderToken { began: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    pub fn is_leader(&self) -> bool {
        u128::from(self.until.load(Ordering::Acquire)) > self.began.elapsed().as_millis()
    }

    /// # Errors
    /// Another process may be the leader by now.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_leader() { Ok(()) } else { Err(Error::NotLeader) }
    }

    /// Stops acting at once, whatever the lease says.
    pub fn give_up(&self) {
        self.until.store(0, Ordering::Release);
    }

    fn hold_until(&self, deadline: Instant) {
        let until = deadline.saturating_duration_since(self.began).as_millis();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Release);
    }
}

/// A lease as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    holder: Option<String>,
    resource_version: Option<String>,
    /// How long its holder wants to be waited for.
    duration: Duration,
    /// How often it went from one holder to another.
    transitions: i32,
}

/// What to do with a lease.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Write our name into it.
    Take,
    /// It is ours: say that we are still there.
    Renew,
    /// It is another's for at least so long.
    Wait(Duration),
}

/// `unchanged` is for how long the lease was seen as it is.
fn decide(me: &str, lease: Option<&Read>, unchanged: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Take };
    match lease.holder.as_deref() {
        None | Some("") => Decision::Take,
        Some(holder) if holder == me => Decision::Renew,
        Some(_) if unchanged >= lease.duration => Decision::Take,
        Some(_) => Decision::Wait(lease.duration - unchanged),
    }
}

pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    token: LeaderToken,
    /// The lease as it was last read or written, and since when it is like that.
    seen: Option<(Read, Instant)>,
    /// The lease is as this process wrote it, as far as is known here: no need to read it before it is renewed.
    mine: bool,
}

impl Election {
    /// `identity` has to be unique: two processes of the same name would both lead.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Election {
        Election {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            token: LeaderToken::new(),
            seen: None,
            mine: false,
        }
    }

    pub fn token(&self) -> LeaderToken {
        self.token.clone()
    }

    /// Until this process is the leader.
    pub async fn acquire(&mut self) {
        let mut told = None;
        loop {
            let pause = match self.attempt().await {
                Ok(Decision::Wait(left)) => {
                    let holder = self.seen.as_ref().and_then(|(lease, _)| lease.holder.clone());
                    if told != holder {
                        tracing::info!(holder, "another replica is the leader; standing by");
                        told = holder;
                    }
                    left.min(RETRY)
                }
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot become the leader yet");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    /// Renews the lease until another has it. While the API server is away the token lapses, so that nothing is done; if the
    /// lease is still ours when it is back, nobody else was the leader in between, and this process goes on.
    pub async fn keep(&mut self) {
        loop {
            sleep(RENEW).await;
            let mut lapsed = false;
            loop {
                match self.attempt().await {
                    Ok(Decision::Wait(_)) => return,
                    Ok(_) => break,
                    Err(error) => tracing::warn!(error = %error, "the leader's lease was not renewed"),
                }
                if !self.token.is_leader() && !lapsed {
                    tracing::error!("the leader's lease could not be renewed in time: nothing is done until it is");
                    lapsed = true;
                }
                sleep(RETRY).await;
            }
            if lapsed {
                tracing::info!("the leader's lease is renewed: this replica goes on");
            }
        }
    }

    /// Leaves the lease to whoever comes first.
    pub async fn release(&mut self) {
        self.token.give_up();
        let Some((lease, _)) = self.seen.clone().filter(|(lease, _)| lease.holder.as_ref() == Some(&self.identity))
        else {
            return;
        };
        let mut empty = self.lease(Some(&lease), 0);
        if let Some(spec) = &mut empty.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let replaced = timeout(REQUEST, self.leases.replace(&self.name, &PostParams::default(), &empty)).await;
        match replaced {
            Ok(Ok(_)) => tracing::info!("the leader's lease is released"),
            Ok(Err(error)) => tracing::warn!(error = causes(&error), "the leader's lease was not released; it expires"),
            Err(_) => tracing::warn!("the leader's lease was not released in time; it expires"),
        }
    }

    /// Writes the lease if that is ours to do; reads it before, unless this process was the last to write it.
    async fn attempt(&mut self) -> Result<Decision, Error> {
        // From before the request: whoever reads the lease later waits from then on.
        let began = Instant::now();
        // After any failure it is read again: the write may have taken place, or be another's.
        if std::mem::take(&mut self.mine)
            && let Some((lease, _)) = self.seen.clone()
        {
            match self.write(Some(&lease), lease.transitions, began).await {
                Err(error) if error.class() == Class::Conflict => {}
                written => return written.map(|()| Decision::Renew),
            }
        }
        let found = timeout(REQUEST, self.leases.get_opt(&self.name)).await.map_err(|_| self.silent("get"))?;
        let read = found.map_err(|error| Error::api("get", self.object(), error))?.as_ref().map(read);
        let unchanged = match (&read, &self.seen) {
            (Some(read), Some((known, since))) if read == known => since.elapsed(),
            _ => Duration::ZERO,
        };
        let decision = decide(&self.identity, read.as_ref(), unchanged);
        let transitions = read.as_ref().map_or(0, |read| read.transitions);
        let transitions = match decision {
            Decision::Wait(_) => {
                if unchanged.is_zero() {
                    self.seen = read.map(|read| (read, Instant::now()));
                }
                self.token.give_up();
                return Ok(decision);
            }
            Decision::Take => transitions + i32::from(read.is_some()),
            Decision::Renew => transitions,
        };
        self.write(read.as_ref(), transitions, began).await?;
        Ok(decision)
    }

    /// Puts our name into the lease as it was read. # Errors: also when it is not as it was read.
    async fn write(&mut self, read: Option<&Read>, transitions: i32, began: Instant) -> Result<(), Error> {
        let lease = self.lease(read, transitions);
        let parameters = PostParams::default();
        let written = match read {
            None => timeout(REQUEST, self.leases.create(&parameters, &lease)).await,
            Some(_) => timeout(REQUEST, self.leases.replace(&self.name, &parameters, &lease)).await,
        };
        let written = written.map_err(|_| self.silent("write"))?;
        let written = written.map_err(|error| Error::api("write", self.object(), error))?;
        self.seen = Some((self::read(&written), Instant::now()));
        self.mine = true;
        self.token.hold_until(began + RENEW_DEADLINE);
        Ok(())
    }

    fn object(&self) -> String {
        format!("Lease {}", self.name)
    }

    fn silent(&self, verb: &'static str) -> Error {
        Error::ApiUnreachable { verb, object: self.object(), reason: "no answer in time".into() }
    }

    fn lease(&self, read: Option<&Read>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: read.and_then(|read| read.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn read(lease: &Lease) -> Read {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Read {
        holder: spec.holder_identity,
        resource_version: lease.metadata.resource_version.clone(),
        duration: seconds.map_or(LEASE, Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
