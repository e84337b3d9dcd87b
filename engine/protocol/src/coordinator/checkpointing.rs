//! Triggering checkpoints, collecting acknowledgements, completing and aborting.
//!
//! A checkpoint goes through [`Stage`]s: tasks acknowledge, the manifest is written, the journal's entry is written. It
//! exists with that entry, and nothing that follows from it (commits, clean-up) happens before. Once the entry was handed
//! to the journal the checkpoint cannot be aborted any more.

use super::machine::{Coordinator, Life};
use super::view::{TaskCheckpointView, TaskState};
use super::{Action, Barrier, DeclineReason, Report, StoreError};
use crate::assign::KEY_HASH;
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::journal::JournalEntry;
use crate::manifest::{
    CheckpointManifest, MANIFEST_VERSION, OperatorManifest, OperatorState, SubtaskManifest, SubtaskStats, TaskRestore,
    TaskSnapshot, TaskStats,
};
use crate::retention::{files_of_manifest, files_of_state};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Ids are reserved in the journal by the block, so that not every checkpoint costs a second entry.
const ID_BLOCK: u64 = 10;
/// The next block is reserved when only so many ids are left.
const ID_MARGIN: u64 = 3;
/// How long tasks that acknowledged their end get to report it before another checkpoint bothers them.
const CLOSING_MS: u64 = 5_000;
/// At least this long after a failed last checkpoint comes the next one.
const DRAIN_RETRY_MS: u64 = 500;
/// Requests of people that wait for their turn.
const MAX_QUEUED_REQUESTS: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Collecting,
    WritingManifest,
    Journaling,
}

#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub stage: Stage,
    triggered_at: Millis,
    expires_at: Millis,
    /// Tasks that have to acknowledge, with the deployment they belonged to at the trigger.
    expected: BTreeMap<TaskId, DeploymentId>,
    acks: BTreeMap<TaskId, (TaskSnapshot, SubtaskStats)>,
    manifest: Option<Arc<CheckpointManifest>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Checkpoints {
    pub pending: BTreeMap<CheckpointId, Pending>,
    /// Their files are looked after until a later checkpoint has completed.
    pub aborted: BTreeSet<CheckpointId>,
    next_id: CheckpointId,
    /// Ids up to here are ours to use.
    reserved_up_to: CheckpointId,
    reserving: bool,
    /// Next periodic trigger; only while all tasks run.
    periodic: Option<Millis>,
    started_before: bool,
    periodic_waits: bool,
    requests: u32,
    /// The first checkpoint triggered after every task was drained.
    last_of_drained: Option<CheckpointId>,
    drain_not_before: Millis,
    /// Tasks covered to their end by a completed checkpoint, until they report it or this time passes.
    closing: BTreeMap<TaskId, Millis>,
    last_completion: Option<Millis>,
    /// Counted failures since the last success.
    failures: u32,
    last_success: CheckpointId,
    /// State of tasks at their end, which every later checkpoint carries on.
    ended_states: BTreeMap<TaskId, BTreeMap<String, OperatorState>>,
}

impl Checkpoints {
    pub fn start_ids_above(&mut self, highest: CheckpointId) {
        self.next_id = highest + 1;
    }

    pub fn on_deployed(&mut self, task: TaskId, restore: &TaskRestore) {
        self.closing.remove(&task);
        if restore.finished {
            self.ended_states.insert(task, restore.operators.clone());
        } else {
            self.ended_states.remove(&task);
        }
    }
}

impl Coordinator {
    pub(super) fn checkpoint_timer(&self) -> Option<Millis> {
        let checkpoints = &self.checkpoints;
        let expiry = checkpoints.pending.values().filter(|pending| pending.stage != Stage::Journaling);
        let drain = (checkpoints.drain_not_before > self.now).then_some(checkpoints.drain_not_before);
        let others = checkpoints.periodic.into_iter().chain(drain).chain(checkpoints.closing.values().copied());
        expiry.map(|pending| pending.expires_at).chain(others).filter(|at| *at > self.now).min()
    }

    pub(super) fn request_checkpoint(&mut self) {
        self.checkpoints.requests = (self.checkpoints.requests + 1).min(MAX_QUEUED_REQUESTS);
    }

    /// Every task can take part: all regions are deployed, every task runs or has finished, and one still runs.
    fn all_tasks_ready(&self) -> bool {
        let mut alive = false;
        for run in self.tasks.values() {
            match run.state {
                TaskState::Running | TaskState::Drained => alive = true,
                TaskState::Finished => {}
                _ => return false,
            }
        }
        alive && self.all_regions_active()
    }

    pub(super) fn expire_checkpoints(&mut self) {
        let now = self.now;
        let expired: Vec<CheckpointId> = self
            .checkpoints
            .pending
            .iter()
            .filter(|(_, pending)| pending.stage != Stage::Journaling && pending.expires_at <= now)
            .map(|(checkpoint, _)| *checkpoint)
            .collect();
        for checkpoint in expired {
            let missing = self.checkpoints.pending.get(&checkpoint).map_or_else(String::new, Pending::missing);
            let reason = format!(
                "Checkpoint expired before completing: {missing} after {} ms",
                self.config.checkpoint.timeout_ms
            );
            self.fail_checkpoint(checkpoint, reason, true, None);
        }
    }

    pub(super) fn advance_checkpoints(&mut self) {
        if !matches!(self.life, Life::Working | Life::Suspending { .. }) {
            return;
        }
        self.reserve_ids();
        if !self.all_tasks_ready() {
            self.checkpoints.periodic = None;
            self.checkpoints.periodic_waits = false;
            self.checkpoints.last_of_drained = None;
            return;
        }
        if self.checkpoints.next_id > self.checkpoints.reserved_up_to {
            return;
        }
        if let Life::Suspending { checkpoint, deadline } = self.life {
            if checkpoint.is_none() {
                let last = self.trigger();
                self.life = Life::Suspending { checkpoint: Some(last), deadline };
            }
            return;
        }
        self.keep_time();
        let max_concurrent = self.config.checkpoint.max_concurrent.max(1) as usize;
        let closing = self.checkpoints.closing.values().any(|until| *until > self.now);
        if closing || self.cleanup.len() > max_concurrent || self.checkpoints.pending.len() >= max_concurrent {
            return;
        }
        let drained = self.tasks.values().all(|run| matches!(run.state, TaskState::Drained | TaskState::Finished));
        if drained && self.checkpoints.last_of_drained.is_none() && self.now >= self.checkpoints.drain_not_before {
            let last = self.trigger();
            self.checkpoints.last_of_drained = Some(last);
        } else if self.checkpoints.requests > 0 {
            self.checkpoints.requests -= 1;
            self.trigger();
        } else if self.checkpoints.periodic_waits {
            self.checkpoints.periodic_waits = false;
            let pause_ends = self.checkpoints.last_completion.map_or(0, |at| at + self.config.checkpoint.min_pause_ms);
            if pause_ends > self.now {
                self.checkpoints.periodic = Some(pause_ends);
            } else {
                self.trigger();
            }
        }
    }

    /// The periodic timer runs at a fixed rate. A trigger that finds no room waits; further ones meanwhile are dropped.
    fn keep_time(&mut self) {
        let Some(interval) = self.config.checkpoint.interval_ms else { return };
        let min_pause = self.config.checkpoint.min_pause_ms;
        let interval = interval.max(min_pause).max(1);
        let mut due = match self.checkpoints.periodic {
            Some(due) => due,
            None if self.checkpoints.started_before => self.now + min_pause,
            None => self.now + self.random.between(min_pause, interval),
        };
        self.checkpoints.started_before = true;
        if due <= self.now {
            self.checkpoints.periodic_waits = true;
            due += ((self.now - due) / interval + 1) * interval;
        }
        self.checkpoints.periodic = Some(due);
    }

    fn reserve_ids(&mut self) {
        let wanted = self.config.checkpoint.interval_ms.is_some()
            || self.checkpoints.requests > 0
            || matches!(self.life, Life::Suspending { .. })
            || self.tasks.values().any(|run| run.state == TaskState::Drained);
        if !wanted || self.checkpoints.reserving {
            return;
        }
        let used = self.checkpoints.next_id.saturating_sub(1);
        if self.checkpoints.reserved_up_to < used + ID_MARGIN {
            self.checkpoints.reserving = true;
            let up_to = self.checkpoints.reserved_up_to.max(used) + ID_BLOCK;
            self.journal.enqueue(JournalEntry::Reserved { up_to });
        }
    }

    pub(super) fn on_ids_reserved(&mut self, up_to: CheckpointId) {
        self.checkpoints.reserving = false;
        self.checkpoints.reserved_up_to = self.checkpoints.reserved_up_to.max(up_to);
    }

    /// Starts a checkpoint: barriers enter at the running tasks that read from no running task.
    fn trigger(&mut self) -> CheckpointId {
        let checkpoint = self.checkpoints.next_id;
        self.checkpoints.next_id += 1;
        let expected: BTreeMap<TaskId, DeploymentId> = self
            .tasks
            .iter()
            .filter(|(_, run)| run.state != TaskState::Finished)
            .map(|(task, run)| (*task, run.deployment))
            .collect();
        let roots = expected
            .keys()
            .filter(|task| !self.inputs.get(task).into_iter().flatten().any(|input| expected.contains_key(input)));
        let targets = self.addresses(roots.map(|task| (*task, expected[task])));
        let subtasks = expected.len() as u32;
        self.checkpoints.pending.insert(
            checkpoint,
            Pending {
                stage: Stage::Collecting,
                triggered_at: self.unix_now,
                expires_at: self.now.saturating_add(self.config.checkpoint.timeout_ms),
                expected,
                acks: BTreeMap::new(),
                manifest: None,
            },
        );
        self.ledger.hold(checkpoint, []);
        self.view.checkpoints.triggered(checkpoint, self.unix_now, subtasks);
        self.report(Report::CheckpointTriggered { checkpoint });
        let barrier = Barrier { checkpoint, triggered_at: self.unix_now };
        self.push(Action::TriggerCheckpoint { barrier, tasks: targets });
        checkpoint
    }

    /// Where the tasks run that are still in the given deployment and alive.
    fn addresses(&self, tasks: impl Iterator<Item = (TaskId, DeploymentId)>) -> Vec<(WorkerId, TaskId, DeploymentId)> {
        tasks
            .filter_map(|(task, deployment)| {
                let run = self.tasks.get(&task)?;
                let worker = run.worker.filter(|worker| self.cluster.knows(*worker))?;
                (run.deployment == deployment && run.state.is_alive()).then_some((worker, task, deployment))
            })
            .collect()
    }

    pub(super) fn on_ack(
        &mut self,
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        snapshot: TaskSnapshot,
        stats: SubtaskStats,
    ) {
        let files: Vec<String> = snapshot.operators.values().flat_map(files_of_state).collect();
        let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) else {
            if self.checkpoints.aborted.contains(&checkpoint) {
                // The task may build on what it wrote, so it goes only when a later checkpoint does without it.
                self.ledger.hold(checkpoint, files);
            }
            return;
        };
        if pending.stage != Stage::Collecting
            || pending.expected.get(&task) != Some(&deployment)
            || pending.acks.contains_key(&task)
        {
            return;
        }
        let finished = snapshot.finished;
        pending.acks.insert(task, (snapshot, stats));
        let complete = pending.acks.len() == pending.expected.len();
        self.ledger.hold(checkpoint, files);
        let ack = TaskCheckpointView { task, acknowledged_at: self.unix_now, finished, stats };
        self.view.checkpoints.acknowledged(checkpoint, ack);
        if complete {
            self.write_manifest(checkpoint);
        }
    }

    fn write_manifest(&mut self, checkpoint: CheckpointId) {
        let Some(pending) = self.checkpoints.pending.get(&checkpoint) else { return };
        let manifest = self.manifest_of(checkpoint, pending);
        self.ledger.hold(checkpoint, files_of_manifest(&manifest));
        if let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) {
            pending.stage = Stage::WritingManifest;
            pending.manifest = Some(Arc::new(manifest.clone()));
        }
        self.push(Action::WriteManifest { manifest: Box::new(manifest) });
    }

    /// Tasks with nothing left to do after a restore. In at-least-once mode a task may have read an input to its end
    /// whose producer had not ended at its own barrier: what that one sends again has to be read again.
    fn finished_tasks(&self, pending: &Pending) -> BTreeSet<TaskId> {
        let mut finished = BTreeSet::new();
        // In topological order.
        for task in self.tasks.keys() {
            let own = pending.acks.get(task).is_none_or(|(snapshot, _)| snapshot.finished);
            if own && self.inputs.get(task).into_iter().flatten().all(|input| finished.contains(input)) {
                finished.insert(*task);
            }
        }
        finished
    }

    fn manifest_of(&self, checkpoint: CheckpointId, pending: &Pending) -> CheckpointManifest {
        let finished_tasks = self.finished_tasks(pending);
        let mut operators = Vec::new();
        for (vertex, plan) in self.config.plan.vertices.iter().enumerate() {
            for operator in &plan.operators {
                let subtask = |subtask: u32| {
                    let task = TaskId { vertex: vertex as u32, subtask };
                    let state = match pending.acks.get(&task) {
                        Some((snapshot, _)) => snapshot.operators.get(&operator.uid),
                        None => self.checkpoints.ended_states.get(&task).and_then(|states| states.get(&operator.uid)),
                    };
                    let finished = finished_tasks.contains(&task);
                    (subtask, SubtaskManifest { finished, state: state.cloned().unwrap_or_default() })
                };
                operators.push(OperatorManifest {
                    uid: operator.uid.clone(),
                    name: operator.name.clone(),
                    parallelism: plan.parallelism,
                    subtasks: (0..plan.parallelism).map(subtask).collect(),
                });
            }
        }
        CheckpointManifest {
            version: MANIFEST_VERSION,
            checkpoint,
            job_id: self.config.job_id.clone(),
            job_name: self.config.job_name.clone(),
            triggered_at: pending.triggered_at,
            completed_at: self.unix_now,
            key_hash: KEY_HASH.into(),
            max_parallelism: self.config.plan.max_parallelism,
            operators,
            stats: pending.acks.iter().map(|(task, (_, stats))| TaskStats { task: *task, stats: *stats }).collect(),
        }
    }

    pub(super) fn on_manifest_written(&mut self, checkpoint: CheckpointId, result: Result<u64, StoreError>) {
        let pending = &self.checkpoints.pending;
        if pending.get(&checkpoint).is_none_or(|pending| pending.stage != Stage::WritingManifest) {
            return;
        }
        let manifest_checksum = match result {
            Ok(checksum) => checksum,
            Err(error) => {
                self.fail_checkpoint(checkpoint, format!("writing the manifest failed: {error}"), true, None);
                return;
            }
        };
        if pending.iter().any(|(other, pending)| *other > checkpoint && pending.stage == Stage::Journaling) {
            self.fail_checkpoint(checkpoint, "a later checkpoint completed first".into(), false, None);
            return;
        }
        if let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) {
            pending.stage = Stage::Journaling;
        }
        self.journal.enqueue(JournalEntry::Completed { checkpoint, manifest_checksum, at: self.unix_now });
    }

    /// The checkpoint exists.
    pub(super) fn on_checkpoint_journaled(&mut self, checkpoint: CheckpointId) {
        let Some(pending) = self.checkpoints.pending.remove(&checkpoint) else { return };
        if let Some(manifest) = &pending.manifest {
            self.restore_points.manifests.insert(checkpoint, Arc::clone(manifest));
        }
        self.checkpoints.last_completion = Some(self.now);
        self.checkpoints.last_success = self.checkpoints.last_success.max(checkpoint);
        self.checkpoints.failures = 0;
        for (task, (snapshot, _)) in pending.acks {
            let current = self.tasks.get(&task).map(|run| run.deployment) == pending.expected.get(&task).copied();
            if snapshot.finished && current && self.task_state(task).is_some_and(TaskState::is_alive) {
                self.checkpoints.ended_states.insert(task, snapshot.operators);
                self.checkpoints.closing.insert(task, self.now + CLOSING_MS);
            }
        }
        if let Some(manifest) = &pending.manifest {
            self.carry_on_ended_states(manifest);
        }
        if self.checkpoints.last_of_drained.is_some_and(|last| last <= checkpoint) {
            self.checkpoints.last_of_drained = None;
        }
        let (duration_ms, bytes_new, bytes_total) = self.view.checkpoints.completed(checkpoint, self.unix_now);
        self.report(Report::CheckpointCompleted { checkpoint, duration_ms, bytes_new, bytes_total });
        let tasks = self.addresses(pending.expected.into_iter());
        self.push(Action::NotifyComplete { checkpoint, tasks });
        let older: Vec<CheckpointId> = self.checkpoints.pending.range(..checkpoint).map(|(id, _)| *id).collect();
        for id in older {
            self.fail_checkpoint(id, format!("subsumed by checkpoint {checkpoint}"), false, None);
        }
        self.clean_up_after(checkpoint);
        self.suspend_after(checkpoint, None);
    }

    /// Later checkpoints carry on what the newest one holds of ended tasks: files that it leaves out may be deleted.
    fn carry_on_ended_states(&mut self, manifest: &CheckpointManifest) {
        for (task, states) in &mut self.checkpoints.ended_states {
            for (uid, state) in states {
                let stored = manifest.operators.iter().find(|operator| operator.uid == *uid);
                if let Some(stored) = stored.and_then(|operator| operator.subtasks.get(&task.subtask)) {
                    *state = stored.state.clone();
                }
            }
        }
    }

    pub(super) fn on_decline(
        &mut self,
        task: TaskId,
        deployment: DeploymentId,
        checkpoint: CheckpointId,
        reason: DeclineReason,
        message: &str,
    ) {
        let Some(pending) = self.checkpoints.pending.get(&checkpoint) else { return };
        if pending.stage != Stage::Collecting
            || pending.expected.get(&task) != Some(&deployment)
            || pending.acks.contains_key(&task)
        {
            return;
        }
        let counted = reason == DeclineReason::AsyncException;
        self.fail_checkpoint(checkpoint, format!("task {task} declined ({reason:?}): {message}"), counted, Some(task));
    }

    /// A task ended before it acknowledged: the barrier cannot pass it any more.
    pub(super) fn on_task_finished_in_checkpoints(&mut self, task: TaskId) {
        self.checkpoints.closing.remove(&task);
        let waiting: Vec<CheckpointId> = self
            .checkpoints
            .pending
            .iter()
            .filter(|(_, pending)| pending.expected.contains_key(&task) && !pending.acks.contains_key(&task))
            .map(|(checkpoint, _)| *checkpoint)
            .collect();
        for checkpoint in waiting {
            self.fail_checkpoint(checkpoint, format!("task {task} finished before the barrier"), false, None);
        }
    }

    /// Aborts everything that can still be aborted.
    pub(super) fn abort_checkpoints(&mut self, reason: &str) {
        let pending: Vec<CheckpointId> = self.checkpoints.pending.keys().copied().collect();
        for checkpoint in pending {
            self.fail_checkpoint(checkpoint, reason.to_owned(), false, None);
        }
    }

    pub(super) fn has_journaling_checkpoint(&self) -> bool {
        self.checkpoints.pending.values().any(|pending| pending.stage == Stage::Journaling)
    }

    /// `counted` failures in a row beyond the tolerance fail the job, or the region of `culprit` if a task is to blame.
    fn fail_checkpoint(&mut self, checkpoint: CheckpointId, reason: String, counted: bool, culprit: Option<TaskId>) {
        let abortable = |pending: &Pending| pending.stage != Stage::Journaling;
        if !self.checkpoints.pending.get(&checkpoint).is_some_and(abortable) {
            return;
        }
        let Some(pending) = self.checkpoints.pending.remove(&checkpoint) else { return };
        self.checkpoints.aborted.insert(checkpoint);
        if self.checkpoints.last_of_drained == Some(checkpoint) {
            self.checkpoints.last_of_drained = None;
            self.checkpoints.drain_not_before = self.now + DRAIN_RETRY_MS.max(self.config.checkpoint.min_pause_ms);
        }
        self.view.checkpoints.failed(checkpoint, self.unix_now, &reason);
        let tasks = self.addresses(pending.expected.into_iter());
        self.push(Action::NotifyAborted { checkpoint, tasks });
        self.report(Report::CheckpointFailed { checkpoint, reason: reason.clone(), counted });
        self.suspend_after(checkpoint, Some(&reason));
        let tolerable = self.config.checkpoint.tolerable_failures;
        if !counted
            || tolerable == u32::MAX
            || checkpoint <= self.checkpoints.last_success
            || self.life != Life::Working
        {
            return;
        }
        self.checkpoints.failures += 1;
        if self.checkpoints.failures > tolerable {
            self.checkpoints.failures = 0;
            let reason = format!("Exceeded checkpoint tolerable failure threshold. The last failure: {reason}");
            let regions = match culprit.and_then(|task| self.regions.of(task)) {
                Some(region) => [region].into(),
                None => self.regions.all(),
            };
            self.note_failure(&reason, culprit, None);
            self.fail_regions(&regions, &reason, true);
        }
    }
}

impl Pending {
    fn missing(&self) -> String {
        if self.stage == Stage::WritingManifest {
            return "the manifest was not written".into();
        }
        let missing: Vec<String> =
            self.expected.keys().filter(|task| !self.acks.contains_key(task)).map(ToString::to_string).collect();
        let shown = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = if missing.len() > 5 { format!(" and {} more", missing.len() - 5) } else { String::new() };
        format!("no acknowledgement of task {shown}{more}")
    }
}
