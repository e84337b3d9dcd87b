//! `StreamJob.status`: what is observed, and the record of the operation under way. Below 16 KiB, no throughput or lag.

use super::conditions::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is observed of a job, and what is being done with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamJobStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary for people, derived from the conditions; programs read those.
    #[serde(default)]
    pub state: String,
    /// SpecAccepted, Ready, Progressing, Degraded and CheckpointsHealthy; reasons are listed in the documentation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The engine's name of the job, under which its state is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Number of key groups, fixed for the life of the job's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallelism: Option<i32>,
    /// Subtasks of each operator, of the revision that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,
    /// Selects the worker pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision that owns the job's state: it runs, or ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<i64>,
    /// The revision that shall run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<i64>,
    /// The highest revision that was ever begun; numbers are not used twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_revision: Option<i64>,
    /// The newest revision that proved itself: so many checkpoints without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<i64>,
    /// The disruptive act under way. Written before anything is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// The job was stopped because the spec says so; its state is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// A spec that was tried and cannot work; not tried again until the spec changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// How the job ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The current revision, until it has proved itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// The coordinator whose restarts are counted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// The latest savepoint that fell due by the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Scheduled>,
    /// The newest completed checkpoint, written once a minute while nothing else changes; the metrics have each one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<RestorePoint>,
    /// The newest completed savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_savepoint: Option<RestorePoint>,
    /// Restarts by the restart strategy, over all revisions.
    #[serde(default)]
    pub restarts: i64,
    /// Weakest guarantee of sources, engine and sinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<String>,
    /// The last operations, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,
}

/// What is being done, so that whoever continues it does the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Unique; requests to the engine derive their names from it.
    pub id: String,
    /// What is done.
    pub kind: OperationKind,
    /// How far it is. Preparing: pods of the new revision come up and wait, the old one runs. Saving: the running job stops
    /// with a savepoint. Stopping: the old revision's processes end. Activating: the new revision takes the job over.
    /// Disposing: files are deleted.
    pub step: OperationStep,
    /// The revision that it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<i64>,
    /// The revision that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<i64>,
    /// Generation of the spec that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// What was asked for, as a hash of the spec: another spec supersedes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// The engine's name of the job from the new revision on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// What the new revision goes on from, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<RestorePoint>,
    /// Savepoints tried, from 1.
    #[serde(default)]
    pub attempt: i32,
    /// Why it waits, or what went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When the step began.
    pub step_started_at: Time,
    /// When the step is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    Start,
    Upgrade,
    Rescale,
    Restart,
    Suspend,
    Resume,
    Rollback,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum OperationStep {
    /// Pods of the new revision come up and wait; the old one runs.
    Preparing,
    /// The running job stops with a savepoint.
    Saving,
    /// The old revision's processes end.
    Stopping,
    /// The new revision takes the job over.
    Activating,
    /// Files are deleted.
    Disposing,
}

/// A checkpoint or savepoint that exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePoint {
    /// Number among the job's checkpoints.
    pub id: i64,
    /// Where it lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Milliseconds from its trigger to its entry in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Bytes that it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Whether it is a savepoint.
    #[serde(default)]
    pub savepoint: bool,
}

/// A spec that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Of the spec without what needs no restart.
    pub spec_hash: String,
    /// Why, in one word that programs may rely on.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Finished: its sources ended. Failed: its restart strategy gave up. Canceled: somebody ended it through the engine.
    pub state: EndState,
    /// The revision that ended.
    pub revision: i64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was asked for at that moment, as a hash of the spec: it is not what a finished job runs anew for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// What the job can go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<RestorePoint>,
    /// When.
    pub at: Time,
}

/// A revision that has yet to prove itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Its number.
    pub revision: i64,
    /// When it took the job over.
    pub since: Time,
    /// What it went on from: where the stable revision goes on if this one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<RestorePoint>,
    /// There is a stable revision to go back to.
    #[serde(default)]
    pub revocable: bool,
    /// It began without the state of the revision before, as `upgrade.mode` Stateless says; so does the way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// Checkpoints of this coordinator that do not count: completed before the last restart.
    #[serde(default)]
    pub checkpoints_before: i64,
}

/// Restarts are counted by process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The process.
    pub incarnation: i64,
    /// Its restarts that are part of the sum.
    pub restarts: i64,
}

/// A savepoint by the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduled {
    /// When it fell due.
    pub due: Time,
    /// Not made yet.
    #[serde(default)]
    pub pending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndState {
    Finished,
    Failed,
    Canceled,
}

/// An operation that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The operation's id.
    pub id: String,
    /// What was done.
    pub kind: OperationKind,
    /// Succeeded; Rejected: the new revision cannot work and the old one was not touched; Aborted: given up, the old
    /// revision runs on; Superseded: the spec changed before it was done; Failed.
    pub result: OperationResult,
    /// The revision that it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<i64>,
    /// The revision that it led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<i64>,
    /// What the new revision went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_point: Option<RestorePoint>,
    /// What went wrong, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When it was over.
    pub completed_at: Time,
    /// From the end of the old revision's work to the start of the new one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationResult {
    Succeeded,
    /// The new revision cannot work; the old one was not touched.
    Rejected,
    /// Given up; the old revision runs on.
    Aborted,
    /// The spec changed before it was done.
    Superseded,
    Failed,
}
