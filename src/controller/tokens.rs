//! Which jobs' secrets with the token are there. They are never read, listed or watched, so that the operator needs no right to
//! see any Secret: a job's secret has a name of its own and always the same content, so making it again does no harm, and that
//! it is missing shows in what is said about the pods that need it.

use super::cache::{JobKey, last_seen};
use crate::api::StreamJob;
use crate::resources::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::HashMap;

#[derive(Default)]
pub struct Tokens(Mutex<HashMap<JobKey, Made>>);

struct Made {
    uid: String,
    at: Timestamp,
}

impl Tokens {
    /// The job's secret is there now.
    pub fn made(&self, job: &JobKey, uid: &str, at: Timestamp) {
        self.0.lock().insert(job.clone(), Made { uid: uid.to_owned(), at });
    }

    /// As far as is known. `events` are the warnings about the job's pods.
    pub fn is_there(&self, key: &JobKey, job: &StreamJob, events: &[Event]) -> bool {
        let uid = job.uid().unwrap_or_default();
        let made = self.0.lock().get(key).filter(|made| made.uid == uid).map(|made| made.at);
        // Whatever has run once had its secret.
        let has_run = job.status.as_ref().is_some_and(|status| status.current_revision.is_some());
        if made.is_none() && !has_run {
            return false;
        }
        let missing = format!("secret \"{}\" not found", names::token_secret(&key.name, &uid));
        !events.iter().any(|event| {
            event.message.as_ref().is_some_and(|message| message.contains(&missing))
                && made.is_none_or(|made| last_seen(event).is_some_and(|seen| seen > made))
        })
    }

    pub fn forget(&self, job: &JobKey) {
        self.0.lock().remove(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key() -> JobKey {
        JobKey { namespace: "n".into(), name: "j".into() }
    }

    fn job(current_revision: Option<i64>) -> StreamJob {
        let spec = serde_json::from_value(json!({ "program": { "sql": "x" } })).unwrap();
        let mut job = StreamJob::new("j", spec);
        job.metadata.uid = Some("0123-4567-89ab".into());
        job.status = Some(serde_json::from_value(json!({ "currentRevision": current_revision })).unwrap());
        job
    }

    fn warning(message: &str, second: i64) -> Event {
        Event { message: Some(message.into()), last_timestamp: Some(Time(at(second))), ..Event::default() }
    }

    #[test]
    fn a_new_job_has_none_until_it_was_made() {
        let tokens = Tokens::default();
        assert!(!tokens.is_there(&key(), &job(None), &[]));
        tokens.made(&key(), "0123-4567-89ab", at(10));
        assert!(tokens.is_there(&key(), &job(None), &[]));
        // Another job of the same name has another secret.
        tokens.made(&key(), "another", at(10));
        assert!(!tokens.is_there(&key(), &job(None), &[]));
        tokens.made(&key(), "0123-4567-89ab", at(10));
        tokens.forget(&key());
        assert!(!tokens.is_there(&key(), &job(None), &[]));
    }

    #[test]
    fn a_missing_one_is_made_again_once() {
        let tokens = Tokens::default();
        let missing = "MountVolume.SetUp failed for volume \"token\" : secret \"j-token-01234567\" not found";
        assert!(tokens.is_there(&key(), &job(Some(1)), &[]));
        assert!(tokens.is_there(&key(), &job(Some(1)), &[warning("secret \"other\" not found", 20)]));
        assert!(!tokens.is_there(&key(), &job(Some(1)), &[warning(missing, 20)]));
        tokens.made(&key(), "0123-4567-89ab", at(30));
        assert!(tokens.is_there(&key(), &job(Some(1)), &[warning(missing, 20)]));
        assert!(!tokens.is_there(&key(), &job(Some(1)), &[warning(missing, 31)]));
    }
}
