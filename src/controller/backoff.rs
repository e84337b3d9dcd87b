//! When something that failed is tried again. kube's queue runs an object at once whenever a watch names it, also when its
//! own status write did; what keeps failing unchanged must not go on at that pace. Also remembers what was refused.

use crate::error::{Class, Error};
use crate::plan::observed::Refusal;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// What was read was out of date; the watch brings what is true now.
const CONFLICT: Duration = Duration::from_secs(1);
const NOT_LEADER: Duration = Duration::from_secs(2);
const FIRST: Duration = Duration::from_secs(1);
/// A coordinator is back within seconds, and is waited for in the middle of a pause of the job. An API server that is away
/// is no object's fault: all go on soon after it is back.
const LAST_AWAY: Duration = Duration::from_secs(5);
/// An API server that answers without success: it starts, or its store is away, or a webhook fails.
const LAST_FAILING: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(60);
const LAST_TERMINAL: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Backoff(Mutex<HashMap<Name, Failing>>);

/// Kind, namespace and name.
type Name = (&'static str, String, String);

struct Failing {
    uid: Option<String>,
    generation: Option<i64>,
    /// Failures in a row, of the same sort.
    failures: u32,
    /// Whether they were somebody else's: those do not make it wait longer for a failure of its own, as when an API server
    /// comes back that does not know the operator's rights yet.
    away: bool,
    not_before: Instant,
    refusal: Option<Refusal>,
}

impl Failing {
    /// Another object, or another spec, gets its chance at once.
    fn is_about(&self, object: &ObjectMeta) -> bool {
        self.uid == object.uid && self.generation == object.generation
    }
}

impl Backoff {
    /// How long this object is still left alone.
    pub fn wait(&self, kind: &'static str, object: &ObjectMeta, now: Instant) -> Option<Duration> {
        let all = self.0.lock();
        let failing = all.get(&name(kind, object)).filter(|failing| failing.is_about(object))?;
        failing.not_before.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// When to try again.
    pub fn failed(&self, kind: &'static str, object: &ObjectMeta, error: &Error, now: Instant) -> Duration {
        match error {
            // It is looked at again if this process is the leader by then; the object has done nothing wrong.
            Error::NotLeader => return NOT_LEADER,
            _ if error.class() == Class::Conflict => return CONFLICT,
            _ => {}
        }
        let mut all = self.0.lock();
        let before = all.get(&name(kind, object)).filter(|failing| failing.is_about(object));
        let (away, last) = match error {
            Error::EngineUnreachable { .. } | Error::EngineRefused { .. } | Error::ApiUnreachable { .. } => {
                (true, LAST_AWAY)
            }
            Error::TimedOut { .. } => (true, LAST_FAILING),
            Error::Api { status, .. } if status.code >= 500 => (true, LAST_FAILING),
            _ if error.class() == Class::Terminal => (false, LAST_TERMINAL),
            _ => (false, LAST),
        };
        let same = before.filter(|failing| failing.away == away);
        let failures = same.map_or(0, |failing| failing.failures).saturating_add(1);
        let pause = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(last);
        let pause = spread(pause, object, failures).max(error.retry_after().unwrap_or_default());
        // What the API server said stands until it says otherwise, whatever else goes wrong in between.
        let refusal = refusal_of(error).or_else(|| before.and_then(|failing| failing.refusal.clone()));
        let failing = Failing {
            uid: object.uid.clone(),
            generation: object.generation,
            failures,
            away,
            not_before: now + pause,
            refusal,
        };
        all.insert(name(kind, object), failing);
        pause
    }

    pub fn succeeded(&self, kind: &'static str, object: &ObjectMeta) {
        self.0.lock().remove(&name(kind, object));
    }

    pub fn forget(&self, kind: &'static str, namespace: &str, object: &str) {
        self.0.lock().remove(&(kind, namespace.to_owned(), object.to_owned()));
    }

    pub fn refusal(&self, kind: &'static str, object: &ObjectMeta) -> Option<Refusal> {
        let all = self.0.lock();
        all.get(&name(kind, object)).filter(|failing| failing.is_about(object))?.refusal.clone()
    }

    /// Objects that are left alone for a while.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}

fn name(kind: &'static str, object: &ObjectMeta) -> Name {
    (kind, object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default())
}

/// Up to a tenth more, so that what failed together is not tried together.
fn spread(pause: Duration, object: &ObjectMeta, failures: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (&object.uid, failures).hash(&mut hasher);
    pause + pause.mul_f64((hasher.finish() % 100) as f64 / 1000.0)
}

fn refusal_of(error: &Error) -> Option<Refusal> {
    match error {
        Error::Api { object, status, .. } if matches!(error.class(), Class::Terminal | Class::Dependency) => {
            let terminal = error.class() == Class::Terminal;
            Some(Refusal { object: object.clone(), message: status.message.clone(), terminal })
        }
        Error::Foreign { object } => {
            Some(Refusal { object: object.clone(), message: error.to_string(), terminal: false })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KIND: &str = "StreamJob";

    fn job(generation: i64) -> ObjectMeta {
        ObjectMeta {
            name: Some("a".into()),
            namespace: Some("n".into()),
            uid: Some("u".into()),
            generation: Some(generation),
            ..ObjectMeta::default()
        }
    }

    fn refused(code: u16) -> Error {
        let status = json!({ "code": code, "message": "no" });
        Error::api("create", "Deployment a", kube::Error::Api(serde_json::from_value(status).unwrap()))
    }

    fn seconds(backoff: &Backoff, error: &Error, times: usize) -> Vec<u64> {
        let now = Instant::now();
        (0..times).map(|_| backoff.failed(KIND, &job(1), error, now).as_secs()).collect()
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        // Up to a tenth more: seconds of short pauses are exact.
        assert_eq!(seconds(&Backoff::default(), &refused(500), 3), [1, 2, 4]);
        let last = |error: &Error| seconds(&Backoff::default(), error, 20)[19];
        assert!((60..=66).contains(&last(&refused(403))));
        assert!((10..=11).contains(&last(&refused(500))));
        assert!((300..=330).contains(&last(&refused(422))));
        let silent = Error::EngineUnreachable { revision: 1, call: "activate", reason: String::new() };
        assert_eq!(last(&silent), 5);
    }

    /// An API server that comes back refuses everything for a moment, until it knows who has which rights.
    #[test]
    fn an_outage_does_not_count_against_a_job() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let away = Error::ApiUnreachable { verb: "list", object: "pods".into(), reason: String::new() };
        for error in [&away, &refused(503), &Error::TimedOut { after: Duration::from_secs(30) }] {
            for _ in 0..20 {
                assert!(backoff.failed(KIND, &job(1), error, now) <= LAST_FAILING.mul_f64(1.1));
            }
        }
        assert_eq!(backoff.failed(KIND, &job(1), &refused(403), now).as_secs(), 1);
        assert_eq!(backoff.failed(KIND, &job(1), &refused(403), now).as_secs(), 2);
    }

    #[test]
    fn only_the_same_thing_waits() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.wait(KIND, &job(1), now), None);
        let pause = backoff.failed(KIND, &job(1), &refused(500), now);
        assert_eq!(backoff.wait(KIND, &job(1), now), Some(pause));
        assert_eq!(backoff.wait(KIND, &job(1), now + pause), None);
        assert_eq!(backoff.wait(KIND, &job(2), now), None);
        assert_eq!(backoff.wait("Savepoint", &job(1), now), None);
        backoff.succeeded(KIND, &job(1));
        assert_eq!((backoff.wait(KIND, &job(1), now), backoff.count()), (None, 0));
    }

    #[test]
    fn what_is_no_failure_of_the_object() {
        let backoff = Backoff::default();
        assert_eq!(backoff.failed(KIND, &job(1), &refused(409), Instant::now()), CONFLICT);
        assert_eq!(backoff.failed(KIND, &job(1), &Error::NotLeader, Instant::now()), NOT_LEADER);
        assert_eq!(backoff.count(), 0);
    }

    #[test]
    fn a_refusal_is_remembered_until_it_worked() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(KIND, &job(1), &refused(422), now);
        let refusal = Refusal { object: "Deployment a".into(), message: "no".into(), terminal: true };
        assert_eq!(backoff.refusal(KIND, &job(1)), Some(refusal.clone()));
        backoff.failed(KIND, &job(1), &refused(500), now);
        assert_eq!(backoff.refusal(KIND, &job(1)), Some(refusal));
        assert_eq!(backoff.refusal(KIND, &job(2)), None);
        backoff.succeeded(KIND, &job(1));
        assert_eq!(backoff.refusal(KIND, &job(1)), None);
    }
}
