//! What can go wrong while the operator acts: one enum, each error with a class, which says when it is tried again, and a
//! reason, which is stable and may be counted. It decides nothing about jobs.

use kube::core::Status;
use std::time::Duration;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    /// The API server answered, and said no.
    #[error("cannot {verb} {object}: {}", status.message)]
    Api { verb: &'static str, object: String, status: Box<Status> },
    /// The API server did not answer, or nothing that is understood.
    #[error("cannot {verb} {object}: {reason}; is the API server up?")]
    ApiUnreachable { verb: &'static str, object: String, reason: String },
    /// An object of the wanted name is there, and it is not ours to change.
    #[error("{object} exists already and belongs to somebody else; delete it, or give the job another name")]
    Foreign { object: String },
    /// The coordinator did not answer.
    #[error("the coordinator of revision {revision} does not answer to {call}: {reason}")]
    EngineUnreachable { revision: i64, call: &'static str, reason: String },
    /// The coordinator answered, and said no.
    #[error("the coordinator of revision {revision} refuses to {call}: {message} (HTTP {status})")]
    EngineRefused { revision: i64, call: &'static str, status: u16, message: String },
    /// Somebody else may be the leader by now: nothing more is written.
    #[error("not the leader any more; the new one goes on")]
    NotLeader,
    /// A pass took too long; the next one begins anew.
    #[error("gave up after {} s", after.as_secs())]
    TimedOut { after: Duration },
    /// The program cannot start like this.
    #[error("{0}")]
    Setup(String),
}

/// When something is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Soon, and then ever later.
    Transient,
    /// As transient, but what is waited for is somebody else's: a right, a quota, a coordinator.
    Dependency,
    /// At once: what was read is out of date. No failure.
    Conflict,
    /// Not before something changes; looked at again now and then all the same.
    Terminal,
}

impl Error {
    /// An error of the client, told with what was tried.
    pub fn api(verb: &'static str, object: impl Into<String>, error: kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => Error::Api { verb, object: object.into(), status },
            other => Error::ApiUnreachable { verb, object: object.into(), reason: causes(&other) },
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Error::Api { status, .. } => match status.code {
                409 | 404 | 410 => Class::Conflict,
                401 | 403 => Class::Dependency,
                400 | 405 | 415 | 422 => Class::Terminal,
                _ => Class::Transient,
            },
            Error::ApiUnreachable { .. } | Error::TimedOut { .. } | Error::NotLeader => Class::Transient,
            Error::Foreign { .. } | Error::EngineUnreachable { .. } | Error::EngineRefused { .. } => Class::Dependency,
            Error::Setup(_) => Class::Terminal,
        }
    }

    /// For metrics: few, and never renamed.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Api { status, .. } => match status.code {
                409 => "ApiConflict",
                404 | 410 => "ApiGone",
                401 | 403 => "ApiForbidden",
                429 => "ApiThrottled",
                400 | 405 | 415 | 422 => "ApiRefused",
                _ => "ApiFailed",
            },
            Error::ApiUnreachable { .. } => "ApiUnreachable",
            Error::Foreign { .. } => "ObjectExists",
            Error::EngineUnreachable { .. } => "EngineUnreachable",
            Error::EngineRefused { .. } => "EngineRefused",
            Error::NotLeader => "NotLeader",
            Error::TimedOut { .. } => "TimedOut",
            Error::Setup(_) => "Setup",
        }
    }

    /// How long the API server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Api { status, .. } => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
            }
            _ => None,
        }
    }

    /// The namespace is being deleted: nothing can be created in it any more.
    pub fn is_namespace_terminating(&self) -> bool {
        match self {
            Error::Api { status, .. } => status
                .details
                .as_ref()
                .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
            _ => false,
        }
    }
}

/// With all causes: the outermost says only that something went wrong.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(code: u16, details: serde_json::Value) -> Error {
        let status = json!({ "status": "Failure", "code": code, "message": "no", "details": details });
        Error::api("create", "Deployment a", kube::Error::Api(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn classes_and_reasons() {
        for (code, class, reason) in [
            (409, Class::Conflict, "ApiConflict"),
            (404, Class::Conflict, "ApiGone"),
            (403, Class::Dependency, "ApiForbidden"),
            (422, Class::Terminal, "ApiRefused"),
            (429, Class::Transient, "ApiThrottled"),
            (500, Class::Transient, "ApiFailed"),
            (503, Class::Transient, "ApiFailed"),
        ] {
            let error = refused(code, json!({}));
            assert_eq!((error.class(), error.reason()), (class, reason), "{code}");
        }
        assert_eq!(refused(422, json!({})).to_string(), "cannot create Deployment a: no");
    }

    #[test]
    fn what_the_api_server_adds() {
        assert_eq!(refused(429, json!({ "retryAfterSeconds": 7 })).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(refused(429, json!({})).retry_after(), None);
        let causes =
            json!({ "causes": [{ "reason": "NamespaceTerminating", "message": "", "field": "metadata.namespace" }] });
        assert!(refused(403, causes).is_namespace_terminating());
        assert!(!refused(403, json!({})).is_namespace_terminating());
    }
}
