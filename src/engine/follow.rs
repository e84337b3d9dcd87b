//! Follows every coordinator pod with one long poll, keeps its newest answer, and tells when it changed, and in how much.
//! Requests that change something are not made here.

use super::client::{CallError, EngineClient};
use super::tally::Tally;
use crate::controller::JobKey;
use crate::plan::observed::{EngineAnswer, EngineCheckpoints, EngineStatus, SavepointAnswer};
use crate::resources::{COMPONENT, COORDINATOR, JOB, REST_PORT, REVISION};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The longest that a coordinator lets a poll wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between questions to a coordinator that cannot be waited on.
const POLL: Duration = Duration::from_secs(2);
/// From one failed attempt to the next: at first a container is about to start, later something is wrong.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Refusals that are kept of a job: those of the attempts of one operation.
const REFUSED: usize = 16;

/// What is new in a coordinator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Another checkpoint, as every few seconds: of interest to whoever counts them.
    Checkpoint,
    Change,
}

type Tell = Box<dyn Fn(&JobKey, News) + Send + Sync>;

pub struct Engines {
    client: EngineClient,
    tell: Tell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether pods are followed at all: only the leader asks.
    active: bool,
    jobs: HashMap<JobKey, Job>,
}

#[derive(Default)]
struct Job {
    /// By name.
    pods: BTreeMap<String, Followed>,
    tally: Tally,
    /// Savepoints that a coordinator would not begin with, oldest first.
    refused: Vec<(String, SavepointAnswer)>,
}

/// A coordinator pod with an address.
struct Followed {
    uid: String,
    revision: i64,
    address: SocketAddr,
    terminating: bool,
    created: Option<Timestamp>,
    answer: Option<EngineAnswer>,
    /// The pod changed: it may answer now.
    news: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Engines {
    pub fn new(client: EngineClient, tell: impl Fn(&JobKey, News) + Send + Sync + 'static) -> Arc<Engines> {
        Arc::new(Engines { client, tell: Box::new(tell), state: Mutex::default() })
    }

    pub fn client(&self) -> &EngineClient {
        &self.client
    }

    /// From now on pods are followed. Those that are known already have to be shown again.
    pub fn activate(&self) {
        self.state.lock().active = true;
    }

    /// A pod as it is now.
    pub fn saw(self: &Arc<Self>, pod: &Pod) {
        let Some((job, revision)) = coordinator_of(pod) else { return };
        let name = pod.name_any();
        let Some(address) = address_of(pod) else { return self.gone(pod) };
        let uid = pod.uid().unwrap_or_default();
        let mut state = self.state.lock();
        if !state.active {
            return;
        }
        let pods = &mut state.jobs.entry(job.clone()).or_default().pods;
        if let Some(known) = pods.get_mut(&name).filter(|known| known.uid == uid && known.address == address) {
            known.terminating = pod.metadata.deletion_timestamp.is_some();
            known.news.notify_one();
            return;
        }
        let news = Arc::new(Notify::new());
        let follower = Follower {
            engines: Arc::downgrade(self),
            client: self.client.clone(),
            job,
            pod: name.clone(),
            uid: uid.clone(),
            address,
            news: news.clone(),
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        let followed = Followed {
            uid,
            revision,
            address,
            terminating: pod.metadata.deletion_timestamp.is_some(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            answer: None,
            news,
            task,
        };
        pods.insert(name, followed);
    }

    /// A pod that is no more, or that nobody answers in any more.
    pub fn gone(&self, pod: &Pod) {
        let Some((job, _)) = coordinator_of(pod) else { return };
        let mut state = self.state.lock();
        if let Some(job) = state.jobs.get_mut(&job)
            && let Some(followed) = job.pods.remove(&pod.name_any())
        {
            job.tally.silent(followed.revision, Timestamp::now());
        }
    }

    /// A job that is no more: what was known of it is forgotten.
    pub fn forget(&self, job: &JobKey) {
        let mut state = self.state.lock();
        if let Some(known) = state.jobs.get_mut(job) {
            known.tally = Tally::default();
            known.refused.clear();
            if known.pods.is_empty() {
                state.jobs.remove(job);
            }
        }
    }

    /// What the coordinator of each revision last said. Not there are revisions without a pod that could be asked, or that
    /// was not asked yet. Pods older than the job are those of an earlier job of the same name.
    pub fn answers(&self, job: &JobKey, created: Option<Timestamp>) -> BTreeMap<i64, EngineAnswer> {
        let state = self.state.lock();
        let Some(job) = state.jobs.get(job) else { return BTreeMap::new() };
        let revisions: BTreeSet<i64> = job.pods.values().map(|pod| pod.revision).collect();
        revisions
            .into_iter()
            .filter_map(|revision| Some((revision, job.best(revision, created)?.answer.clone()?)))
            .collect()
    }

    /// Whether the coordinator of a revision answers, if there is one that was asked.
    pub fn is_reachable(&self, job: &JobKey, revision: i64, created: Option<Timestamp>) -> Option<bool> {
        let state = self.state.lock();
        let answer = state.jobs.get(job)?.best(revision, created)?.answer.as_ref()?;
        Some(matches!(answer, EngineAnswer::Status(_)))
    }

    /// Where the coordinator of a revision is, and the engine's name of the job there if it told.
    pub fn address(
        &self,
        job: &JobKey,
        revision: i64,
        created: Option<Timestamp>,
    ) -> Option<(SocketAddr, Option<String>)> {
        let state = self.state.lock();
        let pod = state.jobs.get(job)?.best(revision, created)?;
        let job_id = match &pod.answer {
            Some(EngineAnswer::Status(status)) => Some(status.job_id.clone()),
            _ => None,
        };
        Some((pod.address, job_id))
    }

    /// A coordinator would not begin with a savepoint: it knows nothing of the request, so it is kept here what it said.
    pub fn refused(&self, job: &JobKey, trigger: &str, status: u16, message: &str) {
        let mut state = self.state.lock();
        let Some(job) = state.jobs.get_mut(job) else { return };
        job.refused.retain(|(known, _)| known != trigger);
        if job.refused.len() >= REFUSED {
            job.refused.remove(0);
        }
        let terminal = matches!(status, 400 | 413 | 422);
        job.refused.push((trigger.to_owned(), SavepointAnswer::Refused { reason: message.to_owned(), terminal }));
    }

    /// What a coordinator said to such a request, if it would not begin with it.
    pub fn refusal(&self, job: &JobKey, trigger: &str) -> Option<SavepointAnswer> {
        let state = self.state.lock();
        let refused = state.jobs.get(job)?.refused.iter();
        refused.filter(|(known, _)| known == trigger).map(|(_, answer)| answer.clone()).next_back()
    }

    /// What metrics show of a job; it outlives the job's coordinators.
    pub fn tally(&self, job: &JobKey) -> Option<Tally> {
        self.state.lock().jobs.get(job).map(|job| job.tally.clone())
    }

    /// Coordinators that are being followed.
    pub fn followed(&self) -> usize {
        self.state.lock().jobs.values().map(|job| job.pods.len()).sum()
    }

    /// What is new in the answer, if anything is.
    fn learned(&self, job: &JobKey, pod: &str, uid: &str, answer: EngineAnswer) -> Option<News> {
        let mut state = self.state.lock();
        let job = state.jobs.get_mut(job)?;
        let followed = job.pods.get_mut(pod).filter(|known| known.uid == uid)?;
        let news = news(followed.answer.as_ref(), &answer)?;
        match &answer {
            EngineAnswer::Status(status) => job.tally.learned(status, Timestamp::now()),
            EngineAnswer::Unreachable(_) => job.tally.silent(followed.revision, Timestamp::now()),
        }
        followed.answer = Some(answer);
        Some(news)
    }
}

impl Job {
    /// Several pods of one revision exist while a lost one is replaced: the one that stays, that answers, and that is newest.
    fn best(&self, revision: i64, job_created: Option<Timestamp>) -> Option<&Followed> {
        let ours = |pod: &&Followed| pod.revision == revision && (pod.created.is_none() || pod.created >= job_created);
        self.pods.values().filter(ours).max_by_key(|pod| {
            (!pod.terminating, matches!(pod.answer, Some(EngineAnswer::Status(_))), pod.answer.is_some(), pod.created)
        })
    }
}

struct Follower {
    engines: Weak<Engines>,
    client: EngineClient,
    job: JobKey,
    pod: String,
    uid: String,
    address: SocketAddr,
    news: Arc<Notify>,
}

impl Follower {
    async fn run(self) {
        let mut known = None;
        let mut retry = FIRST_RETRY;
        loop {
            let asked = Instant::now();
            let answer = self.client.status(self.address, known, PATIENCE).await;
            let pause = match &answer {
                Ok(status) => {
                    retry = FIRST_RETRY;
                    let repeated = known == Some(status.version) && asked.elapsed() < PATIENCE / 2;
                    known = (status.version > 0).then_some(status.version);
                    // An older engine, or one that does not wait although it was asked to.
                    if known.is_none() || repeated { POLL } else { Duration::ZERO }
                }
                Err(_) => {
                    // Whoever answers there next may count anew.
                    known = None;
                    let pause = retry;
                    retry = retry.mul_f64(1.2).min(LAST_RETRY);
                    pause
                }
            };
            self.tell(answer);
            if !pause.is_zero() {
                // Whatever the pod's news are, they end the pause, not more.
                drop(tokio::time::timeout(pause, self.news.notified()).await);
            }
        }
    }

    fn tell(&self, answer: Result<EngineStatus, CallError>) {
        let Some(engines) = self.engines.upgrade() else { return };
        let answer = match answer {
            Ok(status) => EngineAnswer::Status(Box::new(status)),
            Err(error) => EngineAnswer::Unreachable(error.to_string()),
        };
        if let Some(news) = engines.learned(&self.job, &self.pod, &self.uid, answer) {
            (engines.tell)(&self.job, news);
        }
    }
}

fn news(known: Option<&EngineAnswer>, answer: &EngineAnswer) -> Option<News> {
    if known == Some(answer) {
        return None;
    }
    let (Some(EngineAnswer::Status(known)), EngineAnswer::Status(status)) = (known, answer) else {
        return Some(News::Change);
    };
    // The first one makes a job ready.
    let more = known.checkpoints.completed > 0 && status.checkpoints.completed >= known.checkpoints.completed;
    let before = EngineStatus {
        version: status.version,
        restore_point: status.restore_point.clone(),
        checkpoints: EngineCheckpoints {
            failed: known.checkpoints.failed,
            last_failure: known.checkpoints.last_failure.clone(),
            restored_from: known.checkpoints.restored_from,
            ..status.checkpoints.clone()
        },
        ..EngineStatus::clone(known)
    };
    Some(if more && before == **status { News::Checkpoint } else { News::Change })
}

/// Whose coordinator it is, if it is one.
fn coordinator_of(pod: &Pod) -> Option<(JobKey, i64)> {
    let labels = pod.labels();
    if labels.get(COMPONENT).map(String::as_str) != Some(COORDINATOR) {
        return None;
    }
    let name = labels.get(JOB)?;
    let revision = labels.get(REVISION)?.parse().ok()?;
    Some((JobKey { namespace: pod.namespace()?, name: name.clone() }, revision))
}

/// Where the pod answers, unless it cannot any more.
fn address_of(pod: &Pod) -> Option<SocketAddr> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(REST_PORT).ok()?))
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
