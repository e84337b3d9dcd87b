//! What the coordinator shows of itself: job and task states, checkpoint statistics with a short history. Carries no
//! decision.

use super::machine::CoordinatorConfig;
use super::{JobState, TaskRun};
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::journal::AfterSavepoint;
use crate::manifest::SubtaskStats;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use streamjob_api::config::{CheckpointConfig, RestartStrategy};

/// Ended checkpoints that are shown; those in progress are shown always.
const CHECKPOINT_HISTORY: usize = 10;
const FAILURE_HISTORY: usize = 16;
/// Completed checkpoints that quantiles are taken over.
const SUMMARY_SAMPLES: usize = 1_000;

/// Times are Unix milliseconds, durations milliseconds, sizes bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoordinatorView {
    pub job_id: String,
    pub job_name: String,
    pub revision: u64,
    /// Of the plan that runs.
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// As they are now.
    pub checkpoint_config: CheckpointConfig,
    pub restart_strategy: RestartStrategy,
    pub state: JobState,
    /// Why the job is in this state, if there is something to say.
    pub reason: Option<String>,
    /// Since when it is in this state.
    pub since: Millis,
    pub started_at: Millis,
    /// Restarts that the restart strategy counted.
    pub restarts: u32,
    /// Slots that workers still have to bring before all tasks can run.
    pub missing_slots: u32,
    pub workers: Vec<WorkerView>,
    pub tasks: Vec<TaskView>,
    pub checkpoints: CheckpointsView,
    /// Oldest first: those under way and the newest ended ones, whichever coordinator took them.
    pub savepoints: Vec<SavepointView>,
    /// Checkpoints that were asked for, oldest first.
    pub triggered: VecDeque<TriggeredView>,
    /// Oldest first.
    pub rescales: VecDeque<RescaleView>,
    /// Newest first.
    pub failures: VecDeque<FailureView>,
}

/// How a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<T> {
    InProgress,
    Completed(T),
    /// Why.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointView {
    pub trigger: String,
    /// Its id, once it was triggered.
    pub checkpoint: Option<CheckpointId>,
    pub then: AfterSavepoint,
    pub at: Millis,
    /// Its directory.
    pub outcome: Outcome<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggeredView {
    pub trigger: String,
    pub at: Millis,
    /// The checkpoint's id.
    pub outcome: Outcome<CheckpointId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescaleView {
    pub trigger: String,
    pub parallelism: u32,
    pub at: Millis,
    /// The parallelism that the job runs at.
    pub outcome: Outcome<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    pub worker: WorkerId,
    pub slots: u32,
    pub used: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    Created,
    /// Told to start; restoring its state.
    Deploying,
    Running,
    /// Everything processed, waiting for a last checkpoint.
    Drained,
    Finished,
    Canceling,
    Canceled,
    Failed,
}

impl TaskState {
    /// The task runs in a worker, or is about to, and nobody told it to stop.
    pub fn is_alive(self) -> bool {
        matches!(self, TaskState::Deploying | TaskState::Running | TaskState::Drained)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    pub task: TaskId,
    pub state: TaskState,
    pub worker: Option<WorkerId>,
    pub deployment: DeploymentId,
    /// Deployments of this task before the current one.
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    pub at: Millis,
    pub task: Option<TaskId>,
    pub worker: Option<WorkerId>,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsView {
    pub counts: CheckpointCounts,
    /// No savepoint.
    pub latest_completed: Option<CheckpointView>,
    pub latest_savepoint: Option<CheckpointView>,
    pub latest_failed: Option<CheckpointView>,
    pub latest_restored: Option<RestoreView>,
    /// In progress and ended ones, newest first.
    pub history: VecDeque<CheckpointView>,
    pub end_to_end_duration: Summary,
    /// Bytes written.
    pub checkpointed_size: Summary,
    /// Bytes referred to.
    pub state_size: Summary,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCounts {
    pub restored: u64,
    pub total: u64,
    pub in_progress: u64,
    pub completed: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointStatus {
    InProgress,
    Completed,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    pub id: CheckpointId,
    /// Directory of a savepoint.
    pub savepoint: Option<String>,
    /// The job stops or pauses behind it.
    pub last: bool,
    pub status: CheckpointStatus,
    pub triggered_at: Millis,
    pub latest_ack_at: Option<Millis>,
    /// Completed or failed.
    pub ended_at: Option<Millis>,
    /// Trigger to the journal's entry; so far, while in progress.
    pub end_to_end_duration: u64,
    pub checkpointed_size: u64,
    pub state_size: u64,
    pub subtasks: u32,
    pub acknowledged: u32,
    /// The files are gone.
    pub discarded: bool,
    pub failure: Option<String>,
    pub tasks: BTreeMap<String, TaskCheckpointView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCheckpointView {
    pub task: TaskId,
    pub acknowledged_at: Millis,
    pub finished: bool,
    pub stats: SubtaskStats,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreView {
    pub checkpoint: CheckpointId,
    pub at: Millis,
    pub savepoint: bool,
    /// Directory of a snapshot that is not in the job's own storage.
    pub location: Option<String>,
}

/// Of a figure over all completed checkpoints; quantiles over the newest of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub min: u64,
    pub max: u64,
    pub sum: u64,
    #[serde(skip)]
    samples: VecDeque<u64>,
}

impl Summary {
    fn add(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
        if self.samples.len() == SUMMARY_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(value);
    }

    pub fn average(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// Nearest rank; `share` between 0 and 1.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut sorted: Vec<u64> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

impl CoordinatorView {
    pub(super) fn new(config: &CoordinatorConfig) -> Self {
        CoordinatorView {
            job_id: config.job_id.clone(),
            job_name: config.job_name.clone(),
            revision: config.revision,
            parallelism: config.parallelism,
            max_parallelism: config.plan.max_parallelism,
            checkpoint_config: config.checkpoint.clone(),
            restart_strategy: config.restart.clone(),
            state: JobState::Initializing,
            reason: None,
            since: 0,
            started_at: 0,
            restarts: 0,
            missing_slots: 0,
            workers: Vec::new(),
            tasks: Vec::new(),
            checkpoints: CheckpointsView::default(),
            savepoints: Vec::new(),
            triggered: VecDeque::new(),
            rescales: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    pub(super) fn set_tasks(&mut self, runs: &BTreeMap<TaskId, TaskRun>) {
        self.tasks = runs
            .iter()
            .map(|(task, run)| TaskView {
                task: *task,
                state: run.state,
                worker: run.worker,
                deployment: run.deployment,
                attempt: run.deployments.saturating_sub(1),
            })
            .collect();
    }

    pub(super) fn add_failure(&mut self, failure: FailureView) {
        self.failures.push_front(failure);
        self.failures.truncate(FAILURE_HISTORY);
    }
}

impl CheckpointsView {
    pub(super) fn triggered(
        &mut self,
        id: CheckpointId,
        at: Millis,
        subtasks: u32,
        savepoint: Option<String>,
        last: bool,
    ) {
        self.counts.total += 1;
        self.counts.in_progress += 1;
        self.history.push_front(CheckpointView {
            id,
            savepoint,
            last,
            status: CheckpointStatus::InProgress,
            triggered_at: at,
            latest_ack_at: None,
            ended_at: None,
            end_to_end_duration: 0,
            checkpointed_size: 0,
            state_size: 0,
            subtasks,
            acknowledged: 0,
            discarded: false,
            failure: None,
            tasks: BTreeMap::new(),
        });
    }

    pub(super) fn acknowledged(&mut self, id: CheckpointId, ack: TaskCheckpointView) {
        let Some(checkpoint) = self.find(id) else { return };
        checkpoint.acknowledged += 1;
        checkpoint.latest_ack_at = Some(ack.acknowledged_at);
        checkpoint.end_to_end_duration = ack.acknowledged_at.saturating_sub(checkpoint.triggered_at);
        checkpoint.checkpointed_size += ack.stats.bytes_new;
        checkpoint.state_size += ack.stats.bytes_total;
        checkpoint.tasks.insert(ack.task.to_string(), ack);
    }

    /// Returns duration, bytes written and bytes referred to.
    pub(super) fn completed(&mut self, id: CheckpointId, at: Millis) -> (u64, u64, u64) {
        let Some(checkpoint) = self.find(id) else { return (0, 0, 0) };
        checkpoint.status = CheckpointStatus::Completed;
        checkpoint.ended_at = Some(at);
        checkpoint.end_to_end_duration = at.saturating_sub(checkpoint.triggered_at);
        let ended = checkpoint.clone();
        self.end_to_end_duration.add(ended.end_to_end_duration);
        self.checkpointed_size.add(ended.checkpointed_size);
        self.state_size.add(ended.state_size);
        self.counts.completed += 1;
        let figures = (ended.end_to_end_duration, ended.checkpointed_size, ended.state_size);
        if ended.savepoint.is_some() {
            self.latest_savepoint = Some(ended);
        } else {
            self.latest_completed = Some(ended);
        }
        self.ended();
        figures
    }

    pub(super) fn failed(&mut self, id: CheckpointId, at: Millis, reason: &str) {
        let Some(checkpoint) = self.find(id) else { return };
        checkpoint.status = CheckpointStatus::Failed;
        checkpoint.ended_at = Some(at);
        checkpoint.end_to_end_duration = at.saturating_sub(checkpoint.triggered_at);
        checkpoint.failure = Some(reason.to_owned());
        self.latest_failed = Some(checkpoint.clone());
        self.counts.failed += 1;
        self.ended();
    }

    pub(super) fn discarded(&mut self, id: CheckpointId) {
        if let Some(checkpoint) = self.find(id) {
            checkpoint.discarded = true;
        }
        if let Some(latest) = self.latest_completed.as_mut().filter(|latest| latest.id == id) {
            latest.discarded = true;
        }
    }

    pub(super) fn restored(&mut self, restore: RestoreView) {
        self.counts.restored += 1;
        self.latest_restored = Some(restore);
    }

    fn ended(&mut self) {
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        let mut ended = 0;
        self.history.retain(|checkpoint| {
            if checkpoint.status == CheckpointStatus::InProgress {
                return true;
            }
            ended += 1;
            ended <= CHECKPOINT_HISTORY
        });
    }

    fn find(&mut self, id: CheckpointId) -> Option<&mut CheckpointView> {
        self.history.iter_mut().find(|checkpoint| checkpoint.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_ten_ended_and_all_in_progress() {
        let mut view = CheckpointsView::default();
        view.triggered(1, 0, 1, None, false);
        for id in 2..=20 {
            view.triggered(id, id * 10, 1, None, false);
            if id % 2 == 0 {
                view.completed(id, id * 10 + 4);
            } else {
                view.failed(id, id * 10 + 4, "declined");
            }
        }
        assert_eq!(view.history.len(), 11);
        assert_eq!(view.history.iter().map(|checkpoint| checkpoint.id).collect::<Vec<_>>()[..3], [20, 19, 18]);
        assert_eq!(view.history.back().unwrap().id, 1);
        assert_eq!(view.counts, CheckpointCounts { restored: 0, total: 20, in_progress: 1, completed: 10, failed: 9 });
        assert_eq!(view.latest_completed.as_ref().unwrap().id, 20);
        assert_eq!(view.latest_failed.as_ref().unwrap().id, 19);
    }

    #[test]
    fn summaries() {
        let mut summary = Summary::default();
        assert_eq!((summary.average(), summary.quantile(0.5)), (0, 0));
        for value in 1..=100 {
            summary.add(value);
        }
        assert_eq!((summary.min, summary.max, summary.average()), (1, 100, 50));
        assert_eq!((summary.quantile(0.5), summary.quantile(0.99), summary.quantile(1.0)), (50, 99, 100));
    }
}
