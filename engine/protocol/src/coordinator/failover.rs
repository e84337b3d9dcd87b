//! What happens when tasks fail, workers go away or state turns out to be damaged: which regions are cancelled, when they
//! restart, or that the job gives up.

use super::machine::{Coordinator, Life, StopReason};
use super::scheduling::RegionPhase;
use super::view::{FailureView, TaskState};
use super::{Action, JobState, Report, TaskStatus};
use crate::failover::RegionId;
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::restart::Decision;
use std::collections::{BTreeMap, BTreeSet};

/// Cancelled tasks are told again after this long.
const CANCEL_AGAIN_MS: u64 = 30_000;
/// A worker that has not stopped a task for so long is dropped.
const CANCEL_TIMEOUT_MS: u64 = 180_000;

impl Coordinator {
    pub(super) fn on_task_status(&mut self, task: TaskId, deployment: DeploymentId, status: TaskStatus) {
        let Some(run) = self.tasks.get(&task).filter(|run| run.deployment == deployment && run.deployments > 0) else {
            return;
        };
        let (state, restored, worker) = (run.state, run.restored, run.worker);
        if state == TaskState::Canceling {
            match status {
                TaskStatus::Running | TaskStatus::Drained => {}
                TaskStatus::Finished | TaskStatus::Canceled => self.set_task_state(task, TaskState::Canceled),
                TaskStatus::Failed { .. } | TaskStatus::StateDamaged { .. } => {
                    self.set_task_state(task, TaskState::Failed);
                }
            }
            return;
        }
        if !state.is_alive() {
            return;
        }
        match status {
            TaskStatus::Running if state == TaskState::Deploying => self.set_task_state(task, TaskState::Running),
            TaskStatus::Running => {}
            TaskStatus::Drained => self.set_task_state(task, TaskState::Drained),
            TaskStatus::Finished => {
                self.set_task_state(task, TaskState::Finished);
                self.on_task_finished_in_checkpoints(task);
            }
            TaskStatus::Canceled => {
                self.set_task_state(task, TaskState::Failed);
                self.on_task_failed(task, "stopped without being told to", true, worker);
            }
            TaskStatus::Failed { reason, recoverable } => {
                self.set_task_state(task, TaskState::Failed);
                self.on_task_failed(task, &reason, recoverable, worker);
            }
            TaskStatus::StateDamaged { reason } => {
                self.set_task_state(task, TaskState::Failed);
                self.on_state_damaged(task, restored, &reason, worker);
            }
        }
    }

    fn on_task_failed(&mut self, task: TaskId, reason: &str, recoverable: bool, worker: Option<WorkerId>) {
        let name = self.config.plan.vertices.get(task.vertex as usize).map_or("", |vertex| vertex.name.as_str());
        let failure = format!("task {task} ({name}) failed: {reason}");
        self.note_failure(&failure, Some(task), worker);
        if let Some(region) = self.regions.of(task) {
            self.fail_regions(&[region].into(), &failure, recoverable);
        }
    }

    /// State that cannot be read: every task goes back to an older checkpoint together, whatever the strategy, because
    /// regions restored from different checkpoints may both have told the outside.
    fn on_state_damaged(
        &mut self,
        task: TaskId,
        restored: Option<CheckpointId>,
        reason: &str,
        worker: Option<WorkerId>,
    ) {
        let Some(checkpoint) = restored else {
            self.on_task_failed(task, reason, true, worker);
            return;
        };
        let failure = format!("task {task} could not restore its state of checkpoint {checkpoint}: {reason}");
        self.note_failure(&failure, Some(task), worker);
        if self.journal.state.checksum(checkpoint).is_some() {
            self.mark_damaged(checkpoint, failure.clone());
        } else if self.external.as_ref().is_some_and(|manifest| manifest.checkpoint == checkpoint) {
            self.restore_points.external_damage = Some(failure.clone());
        }
        if self.life != Life::Working {
            self.fail_regions(&self.regions.all(), &failure, true);
            return;
        }
        // Not the restart strategy's business: there are only so many checkpoints to go back to, and without one left the
        // coordinator leaves with the state untouched.
        self.abort_checkpoints("the job goes back to an older checkpoint");
        self.restart(&self.regions.all(), &failure, 0);
    }

    pub(super) fn on_worker_lost(&mut self, worker: WorkerId, reason: &str) {
        let mut failed = BTreeSet::new();
        for task in self.remove_worker(worker) {
            match self.task_state(task) {
                Some(TaskState::Canceling) => self.set_task_state(task, TaskState::Canceled),
                Some(state) if state.is_alive() => {
                    self.set_task_state(task, TaskState::Failed);
                    failed.extend(self.regions.of(task));
                }
                _ => {}
            }
        }
        if !failed.is_empty() {
            let named = reason.starts_with(&worker.to_string());
            let failure = if named { reason.to_owned() } else { format!("{worker} lost: {reason}") };
            self.note_failure(&failure, None, Some(worker));
            self.fail_regions(&failed, &failure, true);
        }
    }

    pub(super) fn note_failure(&mut self, reason: &str, task: Option<TaskId>, worker: Option<WorkerId>) {
        self.view.add_failure(FailureView { at: self.unix_now, task, worker, reason: reason.to_owned() });
    }

    /// One failure, of one or several regions: they restart as the strategy says, or the job ends.
    pub(super) fn fail_regions(&mut self, failed: &BTreeSet<RegionId>, failure: &str, recoverable: bool) {
        match self.life {
            Life::Working if self.is_switching() => {
                // What the cut holds is safe, and the new plan starts from it.
                let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
                self.cancel_tasks(&tasks);
                return;
            }
            Life::Working => {}
            Life::Suspending { .. } => {
                self.begin_stopping(StopReason::Suspend { note: Some(format!("no last checkpoint: {failure}")) });
                return;
            }
            _ => return,
        }
        let restart = self.regions.restart_set(self.config.failover, failed, &BTreeSet::new());
        self.abort_checkpoints("the job restarts after a failure");
        match self.decider.on_failure(self.now, recoverable) {
            Decision::GiveUp { reason } => {
                let reason = format!("{failure}; no restart: {reason}{}", self.uncommitted_note());
                self.begin_stopping(StopReason::Fail { reason });
            }
            Decision::Restart { delay_ms, merged } => {
                if !merged {
                    self.view.restarts = self.view.restarts.saturating_add(1);
                }
                self.restart(&restart, failure, delay_ms);
            }
        }
    }

    /// Every task goes back to the latest checkpoint, without asking the restart strategy.
    pub(super) fn restart_all(&mut self, failure: &str) {
        self.abort_checkpoints("the job goes back to its latest checkpoint");
        self.restart(&self.regions.all(), failure, 0);
    }

    /// A savepoint may be complete although the job fails while it stops with it.
    fn uncommitted_note(&self) -> String {
        let location = self.journal.state.stopped.and_then(|checkpoint| self.location_of(checkpoint));
        location.map_or_else(String::new, |location| {
            format!(
                "; the savepoint {location} is complete, but not all of its output may be visible: start the job from it"
            )
        })
    }

    fn restart(&mut self, regions: &BTreeSet<RegionId>, failure: &str, delay_ms: u64) {
        self.set_job_state(JobState::Restarting, Some(failure.to_owned()));
        let tasks = regions.iter().map(|region| self.regions.tasks(*region).len()).sum();
        let restarts = self.view.restarts;
        self.report(Report::Restarting { failure: failure.to_owned(), delay_ms, tasks, restarts });
        self.cancel_regions(regions, self.now.saturating_add(delay_ms));
    }

    fn cancel_regions(&mut self, regions: &BTreeSet<RegionId>, restart_at: Millis) {
        let mut tasks = Vec::new();
        for region in regions {
            let Some(phase) = self.region_phases.get_mut(*region) else { continue };
            *phase = match *phase {
                RegionPhase::Waiting { not_before } => RegionPhase::Waiting { not_before: not_before.max(restart_at) },
                RegionPhase::Cancelling { restart_at: planned } => {
                    RegionPhase::Cancelling { restart_at: planned.max(restart_at) }
                }
                RegionPhase::Active => RegionPhase::Cancelling { restart_at },
            };
            tasks.extend_from_slice(self.regions.tasks(*region));
        }
        self.cancel_tasks(&tasks);
    }

    /// Tells the workers to stop those of the tasks that are alive.
    pub(super) fn cancel_tasks(&mut self, tasks: &[TaskId]) {
        let alive: Vec<TaskId> =
            tasks.iter().copied().filter(|task| self.task_state(*task).is_some_and(TaskState::is_alive)).collect();
        for task in &alive {
            self.set_task_state(*task, TaskState::Canceling);
        }
        self.send_cancels(&alive);
        if !alive.is_empty() && self.cancel_nudge.is_none() {
            self.cancel_nudge = Some(self.now + CANCEL_AGAIN_MS);
        }
    }

    fn send_cancels(&mut self, tasks: &[TaskId]) {
        let mut by_deployment: BTreeMap<DeploymentId, Vec<(WorkerId, TaskId)>> = BTreeMap::new();
        for task in tasks {
            if let Some(run) = self.tasks.get(task)
                && let Some(worker) = run.worker
            {
                by_deployment.entry(run.deployment).or_default().push((worker, *task));
            }
        }
        for (deployment, tasks) in by_deployment {
            self.push(Action::CancelTasks { deployment, tasks });
        }
    }

    pub(super) fn is_cancelling(&self) -> bool {
        self.tasks.values().any(|run| run.state == TaskState::Canceling)
    }

    /// Tasks that do not stop are told again; in the end their worker is dropped.
    pub(super) fn nudge_cancelled_tasks(&mut self) {
        let Some(due) = self.cancel_nudge else { return };
        let cancelling = self.tasks.iter().filter(|(_, run)| run.state == TaskState::Canceling);
        let cancelling: Vec<TaskId> = cancelling.map(|(task, _)| *task).collect();
        if cancelling.is_empty() {
            self.cancel_nudge = None;
            return;
        }
        if due > self.now {
            return;
        }
        self.cancel_nudge = Some(self.now + CANCEL_AGAIN_MS);
        let stuck: BTreeSet<WorkerId> = cancelling
            .iter()
            .filter_map(|task| self.tasks.get(task))
            .filter(|run| self.now.saturating_sub(run.since) >= CANCEL_TIMEOUT_MS)
            .filter_map(|run| run.worker)
            .collect();
        self.send_cancels(&cancelling);
        for worker in stuck {
            let reason = format!("it did not stop its cancelled tasks within {CANCEL_TIMEOUT_MS} ms");
            self.push(Action::DropWorker { worker, reason });
        }
    }
}
