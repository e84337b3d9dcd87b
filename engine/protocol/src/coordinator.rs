//! Events and actions of the coordinator's state machine.
//!
//! [`Event`]s are facts the runtime observed, [`Action`]s are effects it must carry out, in order. The machine never
//! learns anything but through events.
//!
//! The machine itself is [`Coordinator`]: claim and recovery, scheduling, checkpointing, savepoints, rescaling, failover,
//! ending and clean-up are modules of their own below.

mod checkpointing;
mod cleanup;
mod ending;
mod failover;
mod journaling;
mod live;
mod machine;
mod rescaling;
mod restore_points;
mod savepoints;
mod scheduling;
#[cfg(test)]
mod tests;
mod view;

pub use machine::{Coordinator, CoordinatorConfig, ExternalRestore};
pub use view::{
    CheckpointCounts, CheckpointStatus, CheckpointView, CheckpointsView, CoordinatorView, FailureView, Outcome,
    RescaleView, RestoreView, SavepointView, Summary, TaskCheckpointView, TaskState, TaskView, TriggeredView,
    WorkerView,
};

use machine::TaskRun;

use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::journal::{AfterSavepoint, EndState, JournalEntry};
use crate::manifest::{CheckpointManifest, SubtaskStats, TaskRestore, TaskSnapshot};
use crate::plan::JobPlan;
use serde::{Deserialize, Serialize};
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time passed; also sent whenever `next_timer` is due.
    Tick,
    /// Answer to [`Action::ReadJournal`]: every entry that exists, in order of sequence number, and the highest number
    /// of any checkpoint directory, completed or not: ids start above it, so that no coordinator writes into another's.
    JournalRead {
        result: Result<Vec<(u64, JournalEntry)>, StoreError>,
        highest_directory: CheckpointId,
    },
    /// Answer to [`Action::AppendJournal`].
    JournalAppended {
        seq: u64,
        outcome: AppendOutcome,
    },
    /// Answer to [`Action::LoadManifest`].
    ManifestLoaded {
        checkpoint: CheckpointId,
        result: Result<Box<CheckpointManifest>, StoreError>,
    },
    /// Answer to [`Action::WriteManifest`]: its checksum.
    ManifestWritten {
        checkpoint: CheckpointId,
        result: Result<u64, StoreError>,
    },
    /// Answer to [`Action::DeleteCheckpoint`].
    CheckpointDeleted {
        checkpoint: CheckpointId,
        result: Result<(), StoreError>,
    },
    /// Answer to [`Action::DeleteSavepoint`].
    SavepointDeleted {
        location: String,
        result: Result<(), StoreError>,
    },
    WorkerRegistered {
        worker: WorkerId,
        slots: u32,
    },
    /// Connection lost or heartbeat expired. The runtime reports it only once the worker's tasks cannot run any more
    /// or have had the heartbeat timeout to stop themselves.
    WorkerLost {
        worker: WorkerId,
        reason: String,
    },
    TaskStatus {
        task: TaskId,
        deployment: DeploymentId,
        status: TaskStatus,
    },
    CheckpointAck {
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        snapshot: TaskSnapshot,
        stats: SubtaskStats,
    },
    CheckpointDecline {
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        reason: DeclineReason,
        message: String,
    },
    /// Answer to [`Action::Plan`]; the reason if the job cannot run like that.
    Planned {
        parallelism: u32,
        result: Result<Box<JobPlan>, String>,
    },
    /// A person asks.
    Request(Request),
}

/// Triggers are names that the caller gives: a request that is repeated under the same name is the same request.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// One checkpoint now, beside the periodic ones; with `full`, one that shares no file with earlier ones.
    TriggerCheckpoint {
        trigger: String,
        full: bool,
    },
    Savepoint {
        trigger: String,
        /// Where the savepoint's own directory is made.
        directory: String,
        then: AfterSavepoint,
    },
    /// A last checkpoint, then all tasks are cancelled and the coordinator exits; the job can be resumed.
    Suspend,
    Cancel,
    /// A consistent cut, then the same job at another parallelism on the workers that are there.
    Rescale {
        trigger: String,
        parallelism: u32,
    },
    /// What may change while the job runs, as it is to be from now on.
    Reconfigure {
        checkpoint: CheckpointConfig,
        restart: RestartStrategy,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TaskStatus {
    /// State restored, processing; the task takes part in checkpoints.
    Running,
    /// Everything processed, end of data sent on; the task still takes part in checkpoints and waits for a completed one
    /// that it acknowledged with `finished`. Without periodic checkpoints a task skips this and is [`Self::Finished`].
    Drained,
    /// Everything processed and, with checkpointing on, covered by a completed checkpoint.
    Finished,
    Canceled,
    Failed {
        reason: String,
        recoverable: bool,
    },
    /// State files of the checkpoint that the task was to restore are missing or not what was written: the whole job
    /// goes back to the next older checkpoint.
    StateDamaged {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DeclineReason {
    TaskNotReady,
    TaskClosing,
    Subsumed,
    OnCancellationBarrier,
    InputEndOfStream,
    /// Writing the snapshot failed.
    AsyncException,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The object is not there or is not what was written: repeating will not help.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The store did not answer within the retry budget.
    #[error("the storage is unavailable: {0}")]
    Unavailable(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    Written,
    /// Somebody else created this entry.
    Exists,
    /// Nobody knows whether it was written: the entry has to be read.
    Unknown(String),
}

/// What state a barrier asks for, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// `whole`: a file that was written before must not be part of it.
    Checkpoint { whole: bool },
    /// All of the state in files of its own in this directory.
    Savepoint { directory: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    pub checkpoint: CheckpointId,
    /// Unix time of the trigger.
    pub triggered_at: Millis,
    pub kind: SnapshotKind,
    /// Nothing follows: sources send no more behind it, and a task ends once it is told that the checkpoint is complete.
    /// If the checkpoint is aborted, everything goes on.
    pub last: bool,
}

impl Barrier {
    /// Of an ordinary checkpoint.
    pub fn new(checkpoint: CheckpointId, triggered_at: Millis) -> Barrier {
        Barrier { checkpoint, triggered_at, kind: SnapshotKind::Checkpoint { whole: false }, last: false }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    ReadJournal,
    /// Create the entry only if it is absent, then list: if there is any entry with a higher number, the outcome is
    /// [`AppendOutcome::Exists`], because old numbers become free again once the journal is trimmed. One at a time.
    AppendJournal {
        seq: u64,
        entry: JournalEntry,
    },
    /// The journal was compacted: entries with lower numbers may be removed. No answer is expected.
    TrimJournal {
        before: u64,
    },
    /// `location`: the directory of a snapshot outside of the job's own storage. Its files are then named absolutely in
    /// the answer.
    LoadManifest {
        checkpoint: CheckpointId,
        expected_checksum: u64,
        location: Option<String>,
    },
    /// `savepoint`: its directory, to which files that lie elsewhere are copied first.
    WriteManifest {
        manifest: Box<CheckpointManifest>,
        savepoint: Option<String>,
    },
    /// Manifest first, then the listed files, which nothing else refers to. The checkpoint may never have had a manifest,
    /// and files may be gone already: neither is an error.
    DeleteCheckpoint {
        checkpoint: CheckpointId,
        files: Vec<String>,
        location: Option<String>,
    },
    /// Everything in the directory of a savepoint that came to nothing; what is not there is no error.
    DeleteSavepoint {
        location: String,
    },
    /// What the job looks like at this parallelism.
    Plan {
        parallelism: u32,
    },
    /// These sources end as if they had read everything.
    DrainSources {
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
    },
    /// Start these tasks. A pipelined region is always deployed whole: `tasks` holds every task that these exchange data
    /// with.
    Deploy {
        deployment: DeploymentId,
        /// Of the plan that the tasks belong to.
        parallelism: u32,
        tasks: Vec<TaskDeployment>,
    },
    /// May come again for tasks that have not stopped yet. Unknown tasks are answered with [`TaskStatus::Canceled`].
    CancelTasks {
        deployment: DeploymentId,
        tasks: Vec<(WorkerId, TaskId)>,
    },
    /// The worker does not get its tasks stopped: end it or cut it off. [`Event::WorkerLost`] answers.
    DropWorker {
        worker: WorkerId,
        reason: String,
    },
    TriggerCheckpoint {
        barrier: Barrier,
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
    },
    NotifyComplete {
        checkpoint: CheckpointId,
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
    },
    NotifyAborted {
        checkpoint: CheckpointId,
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
    },
    /// For logs, status and metrics; carries no obligation.
    Report(Report),
    /// Nothing follows.
    Exit(ExitReason),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDeployment {
    pub task: TaskId,
    pub worker: WorkerId,
    pub restore: TaskRestore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    Initializing,
    Created,
    Running,
    Restarting,
    Failing,
    Failed,
    Cancelling,
    Canceled,
    Finished,
    Suspended,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    JobState {
        state: JobState,
        reason: Option<String>,
    },
    CheckpointTriggered {
        checkpoint: CheckpointId,
    },
    CheckpointCompleted {
        checkpoint: CheckpointId,
        duration_ms: u64,
        bytes_new: u64,
        bytes_total: u64,
    },
    CheckpointFailed {
        checkpoint: CheckpointId,
        reason: String,
        counted: bool,
    },
    /// The store does not say whether it has taken the checkpoint's entry in the journal.
    CheckpointStalled {
        checkpoint: CheckpointId,
        reason: String,
    },
    SavepointCompleted {
        trigger: String,
        checkpoint: CheckpointId,
        location: String,
        then: AfterSavepoint,
        duration_ms: u64,
        bytes: u64,
    },
    SavepointFailed {
        trigger: String,
        reason: String,
    },
    /// The job runs at this parallelism from here on.
    Rescaled {
        parallelism: u32,
    },
    RescaleFailed {
        parallelism: u32,
        reason: String,
    },
    Reconfigured,
    /// The newest checkpoint could not be used and an older one is.
    CheckpointSkipped {
        checkpoint: CheckpointId,
        reason: String,
    },
    /// The whole job starts from here, and nothing of an earlier deployment runs any more.
    Restored {
        checkpoint: Option<CheckpointId>,
    },
    /// Part of the job restarts from here while other regions go on.
    RegionsRestored {
        checkpoint: Option<CheckpointId>,
        tasks: usize,
    },
    /// Tasks cannot be placed until workers with this many more slots register.
    WaitingForSlots {
        missing: u32,
    },
    /// Files of a savepoint that came to nothing could not be deleted and stay behind.
    SavepointLeftBehind {
        location: String,
        reason: String,
    },
    /// Files of a discarded checkpoint could not be deleted and stay behind.
    CleanupFailed {
        checkpoint: CheckpointId,
        reason: String,
    },
    Restarting {
        failure: String,
        delay_ms: u64,
        tasks: usize,
        restarts: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    Ended {
        state: EndState,
        reason: Option<String>,
    },
    Suspended {
        checkpoint: Option<CheckpointId>,
    },
    /// Another coordinator claimed the job.
    Fenced {
        by: String,
    },
    /// The journal or every checkpoint is unreadable: starting from nothing would lose state.
    Unrecoverable {
        reason: String,
    },
    /// The state does not fit the job, which would lose it by starting from nothing.
    Incompatible {
        reason: String,
    },
}
