//! Conditions: their types, and how a list of them changes. Reasons are API: each is in the documented table.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One observed aspect of a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64))]
    pub type_: String,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word that programs may rely on.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Generation of the spec that this was observed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Truth {
    True,
    False,
    Unknown,
}

/// Longest message: first causes are short, and the status stays small.
const LONGEST: usize = 1024;

/// The aspects of a job.
pub mod aspect {
    /// The newest spec can work: nothing in it was refused.
    pub const SPEC_ACCEPTED: &str = "SpecAccepted";
    /// The job runs, and its first checkpoint is complete.
    pub const READY: &str = "Ready";
    /// Something is being done.
    pub const PROGRESSING: &str = "Progressing";
    /// The job runs less well than it should, or not at all.
    pub const DEGRADED: &str = "Degraded";
    /// Checkpoints complete.
    pub const CHECKPOINTS_HEALTHY: &str = "CheckpointsHealthy";
    /// Only while true: an operation is under way. What tools that know no StreamJobs look at.
    pub const RECONCILING: &str = "Reconciling";
    /// Only while true: nothing goes on without a person. What tools that know no StreamJobs look at.
    pub const STALLED: &str = "Stalled";
}

macro_rules! reasons {
    ($($name:ident: $text:literal,)+) => {
        /// Reasons that decisions give. What pods and coordinators report has its own, from the diagnosis.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($name,)+ }

        impl Reason {
            pub const ALL: &[Reason] = &[$(Reason::$name,)+];

            /// As it stands in conditions.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)+ }
            }

            /// For the documentation: what has happened, and what to do.
            pub const fn text(self) -> &'static str {
                match self { $(Reason::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    Pending: "Nothing is known yet.",
    Accepted: "The spec works: its pods run, or nothing in it was refused.",
    Checking: "Pods of a new revision come up beside the running job and check program and state; the running job is untouched.",
    Starting: "The job starts for the first time.",
    Running: "The job runs.",
    WaitingForFirstCheckpoint: "All tasks run; the first checkpoint of this revision is not complete yet.",
    Upgrading: "A changed spec takes over.",
    Rescaling: "Another parallelism takes over.",
    Restarting: "The job restarts because `restartNonce` was raised.",
    Suspending: "The job stops because `state` is Suspended.",
    Resuming: "The job comes back.",
    RollingBack: "The new revision did not become stable; the last stable one takes over.",
    Deleting: "The resource is being deleted.",
    Suspended: "The job is stopped; `state: Running` resumes it where it was.",
    Settled: "Nothing is being done.",
    Recovering: "The job failed and restarts by its restart strategy.",
    CoordinatorUnreachable: "The coordinator does not answer. Kubernetes restarts it; the job goes on from its latest checkpoint.",
    Finished: "All sources ended and all results are out. A changed spec, or a higher `restartNonce`, runs the job anew from the beginning.",
    Failed: "The job failed and its restart strategy is exhausted. Fix the cause, then change the spec or raise `restartNonce`: it goes on from the newest restore point.",
    Canceled: "The job was cancelled at its REST API. Change the spec or raise `restartNonce` to go on from the newest restore point.",
    NoRestorePoint: "The job had state, and nothing is left to go on from. It is not started without: restore the files, or set `upgrade.mode: Stateless`, with `restoreFrom` to begin from a savepoint.",
    SavepointFailed: "No savepoint before the change succeeded, and `upgrade.onSavepointFailure` is Abort: the job runs on unchanged. Raise `restartNonce` to try again.",
    RolledBack: "The newest spec ran but did not become stable, so the last stable one runs again. Change the spec to try again.",
    RollbackFailed: "The newest spec did not become stable, and the last stable one cannot be brought back. Change the spec.",
    NotStable: "The current revision missed its deadline to become stable, and there is no stable one to go back to.",
    InvalidSpec: "The spec asks for what cannot be, on Kubernetes or with the state that the job has. The message names the field; nothing was touched.",
    ObjectRefused: "The API server refuses an object of the job. The message names it.",
    SavepointNotReady: "The savepoint in `restoreFrom.savepointRef` does not exist or is not complete.",
    Completing: "Checkpoints complete.",
    Failing: "Checkpoints fail; the job runs on, and would go back further if it failed.",
    Late: "No checkpoint has completed for several intervals.",
    NoCheckpoints: "The job takes no periodic checkpoints (`checkpoint.interval`).",
    NotRunning: "The job does not run.",
    Healthy: "Nothing is wrong.",
    Completed: "The savepoint is complete.",
    InProgress: "The savepoint is being taken.",
    WaitingForJob: "The job does not run; the savepoint is taken once it does.",
    InUse: "A job goes on from this savepoint and has no newer restore point: its files are deleted once it has.",
    FilesLeft: "The files could not be deleted. The message says where they are.",
}

/// What is said about one aspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub status: Truth,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn new(status: Truth, reason: Reason, message: impl Into<String>) -> Verdict {
        Verdict::because(status, reason.name(), message)
    }

    /// With a reason of the diagnosis.
    pub fn because(status: Truth, reason: &str, message: impl Into<String>) -> Verdict {
        Verdict { status, reason: reason.to_owned(), message: shorten(message.into(), LONGEST) }
    }
}

/// Writes a verdict down. The time changes with the status only.
pub fn set(conditions: &mut Vec<Condition>, type_: &str, verdict: Verdict, generation: Option<i64>, now: Timestamp) {
    let Verdict { status, reason, message } = verdict;
    match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(condition) => {
            if condition.status != status {
                condition.status = status;
                condition.last_transition_time = Time(now);
            }
            condition.reason = reason;
            condition.message = message;
            condition.observed_generation = generation;
        }
        None => conditions.push(Condition {
            type_: type_.to_owned(),
            status,
            reason,
            message,
            last_transition_time: Time(now),
            observed_generation: generation,
        }),
    }
}

/// For aspects that are shown only while true.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// At most so many bytes, cut between characters.
pub fn shorten(text: String, longest: usize) -> String {
    if text.len() <= longest {
        return text;
    }
    let end = (0..=longest.saturating_sub('…'.len_utf8())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_changes_with_the_status_only() {
        let (first, second) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
        let mut conditions = Vec::new();
        set(&mut conditions, aspect::READY, Verdict::new(Truth::False, Reason::Starting, "a"), Some(1), first);
        set(&mut conditions, aspect::READY, Verdict::new(Truth::False, Reason::Recovering, "b"), Some(2), second);
        assert_eq!(conditions[0].last_transition_time, Time(first));
        assert_eq!((conditions[0].reason.as_str(), conditions[0].observed_generation), ("Recovering", Some(2)));
        set(&mut conditions, aspect::READY, Verdict::new(Truth::True, Reason::Running, "c"), Some(2), second);
        assert_eq!((conditions.len(), conditions[0].last_transition_time.clone()), (1, Time(second)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shorten("ää".into(), 4), "ää");
        assert_eq!(shorten("äää".into(), 5), "ä…");
        assert!(Verdict::new(Truth::True, Reason::Running, "x".repeat(5000)).message.len() <= LONGEST);
    }

    fn page() -> String {
        let mut text = String::from(
            "# Reasons in conditions\n\n\
             Generated by `make docs`. Reasons are part of the API: programs may rely on them, not on messages. What the conditions\n\
             mean is in [kubernetes.md](kubernetes.md).\n\n\
             | reason | meaning, and what to do |\n|---|---|\n",
        );
        for reason in Reason::ALL {
            text += &format!("| `{}` | {} |\n", reason.name(), reason.text());
        }
        text += "\n## Why pods do not run\n\n\
                 The first cause over all pods of a revision and the events about them. When several apply, the upper one is shown.\n\n\
                 | reason | meaning, and what to do |\n|---|---|\n";
        for (reason, meaning) in crate::diagnosis::REASONS {
            text += &format!("| `{reason}` | {meaning} |\n");
        }
        text
    }

    #[test]
    fn the_documentation_of_reasons_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page(), "run `make docs`");
    }

    #[test]
    fn reasons_are_words_and_are_explained() {
        for reason in Reason::ALL {
            assert!(reason.name().chars().all(char::is_alphanumeric) && reason.text().ends_with('.'), "{reason:?}");
        }
    }
}
