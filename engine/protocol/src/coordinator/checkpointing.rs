//! Triggering checkpoints, collecting acknowledgements, completing and aborting.
//!
//! A checkpoint goes through [`Stage`]s: tasks acknowledge, the manifest is written, the journal's entry is written. It
//! exists with that entry, and nothing that follows from it (commits, clean-up) happens before. Once the entry was handed
//! to the journal the checkpoint cannot be aborted any more.

use super::machine::{Coordinator, Life};
use super::rescaling::Rescaling;
use super::view::{Outcome, TaskCheckpointView, TaskState, TriggeredView};
use super::{Action, Barrier, DeclineReason, Report, SnapshotKind, StoreError};
use crate::assign::KEY_HASH;
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::journal::JournalEntry;
use crate::manifest::{
    CheckpointManifest, MANIFEST_VERSION, ManifestKind, OperatorManifest, OperatorState, SubtaskManifest, SubtaskStats,
    TaskRestore, TaskSnapshot, TaskStats,
};
use crate::retention::{files_of_manifest, files_of_state};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
const MAX_QUEUED_REQUESTS: usize = 1_000;
/// Checkpoints that were asked for, as they are shown.
const TRIGGERED_HISTORY: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Collecting,
    WritingManifest,
    Journaling,
}

/// Who wants a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The interval, or the machine itself.
    Timer,
    /// A request for a checkpoint, by trigger.
    Request(String),
    /// A request for a savepoint, by trigger.
    Savepoint(String),
}

#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub stage: Stage,
    pub cause: Cause,
    kind: SnapshotKind,
    triggered_at: Millis,
    expires_at: Millis,
    /// Tasks that have to acknowledge, with the deployment they belonged to at the trigger.
    pub expected: BTreeMap<TaskId, DeploymentId>,
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
    /// Trigger, and whether nothing may be shared with earlier checkpoints.
    requests: VecDeque<(String, bool)>,
    /// The first checkpoint triggered after every task was drained.
    last_of_drained: Option<CheckpointId>,
    drain_not_before: Millis,
    /// Tasks covered to their end by a completed checkpoint, until they report it or this time passes.
    closing: BTreeMap<TaskId, Millis>,
    pub last_completion: Option<Millis>,
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

    pub fn ids_are_used_up(&self) -> bool {
        self.next_id > self.reserved_up_to
    }

    /// The next periodic checkpoint comes after a whole new interval.
    pub fn restart_interval(&mut self, now: Millis, interval_ms: Option<u64>) {
        if self.periodic.is_some() {
            self.periodic = interval_ms.map(|interval| now.saturating_add(interval));
        }
    }

    /// Nothing runs, and the tasks have other names from here on.
    pub fn on_new_plan(&mut self) {
        self.ended_states.clear();
        self.closing.clear();
        self.periodic = None;
        self.periodic_waits = false;
        self.last_of_drained = None;
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
        let expiry = checkpoints.pending.values();
        let drain = (checkpoints.drain_not_before > self.now).then_some(checkpoints.drain_not_before);
        let switch = self.rescaling.as_ref().and_then(Rescaling::deadline);
        let others = checkpoints.periodic.into_iter().chain(drain).chain(switch);
        let others = others.chain(checkpoints.closing.values().copied());
        expiry.map(|pending| pending.expires_at).chain(others).filter(|at| *at > self.now).min()
    }

    pub(super) fn request_checkpoint(&mut self, trigger: String, full: bool) {
        if self.view.triggered.iter().any(|known| known.trigger == trigger) {
            return;
        }
        let outcome = if let Some(reason) = self.refusal() {
            Outcome::Failed(reason)
        } else if self.checkpoints.requests.len() >= MAX_QUEUED_REQUESTS {
            Outcome::Failed(format!("{MAX_QUEUED_REQUESTS} requests for checkpoints are waiting"))
        } else {
            self.checkpoints.requests.push_back((trigger.clone(), full));
            Outcome::InProgress
        };
        self.view.triggered.push_back(TriggeredView { trigger, at: self.unix_now, outcome });
        if self.view.triggered.len() > TRIGGERED_HISTORY {
            self.view.triggered.pop_front();
        }
    }

    fn end_request(&mut self, cause: &Cause, outcome: Outcome<CheckpointId>) {
        let Cause::Request(trigger) = cause else { return };
        if let Some(view) = self.view.triggered.iter_mut().find(|view| view.trigger == *trigger) {
            view.outcome = outcome;
        }
    }

    /// Nothing that was asked for comes any more.
    pub(super) fn end_requests(&mut self, reason: &str) {
        for view in self.view.triggered.iter_mut().filter(|view| view.outcome == Outcome::InProgress) {
            view.outcome = Outcome::Failed(reason.to_owned());
        }
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
            .filter(|(_, pending)| pending.expires_at <= now)
            .map(|(checkpoint, _)| *checkpoint)
            .collect();
        for checkpoint in expired {
            if self.checkpoints.pending.get(&checkpoint).is_some_and(|pending| pending.stage == Stage::Journaling) {
                self.on_stalled(checkpoint);
                continue;
            }
            let missing = self.checkpoints.pending.get(&checkpoint).map_or_else(String::new, Pending::missing);
            let reason = format!(
                "Checkpoint expired before completing: {missing} after {} ms",
                self.config.checkpoint.timeout_ms
            );
            self.fail_checkpoint(checkpoint, reason, true, None);
        }
    }

    /// Nobody knows whether the journal has the entry, so the checkpoint cannot be given up; but it is not there either,
    /// and that counts as often as its timeout passes.
    fn on_stalled(&mut self, checkpoint: CheckpointId) {
        let timeout = self.config.checkpoint.timeout_ms;
        let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) else { return };
        pending.expires_at = self.now.saturating_add(timeout.max(1));
        let is_savepoint = matches!(pending.cause, Cause::Savepoint(_));
        let reason =
            format!("the storage has not confirmed the journal's entry of checkpoint {checkpoint} for {timeout} ms");
        self.report(Report::CheckpointStalled { checkpoint, reason: reason.clone() });
        if !is_savepoint {
            self.count_failure(checkpoint, &reason, None);
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
        if self.checkpoints.ids_are_used_up() {
            return;
        }
        if let Life::Suspending { checkpoint, deadline } = self.life {
            if checkpoint.is_none() {
                let last = self.trigger(SnapshotKind::Checkpoint { whole: false }, true, Cause::Timer);
                self.life = Life::Suspending { checkpoint: Some(last), deadline };
            }
            return;
        }
        if self.is_stopped() || self.is_switching() {
            return;
        }
        // Tasks about to end would not see the barrier of a savepoint.
        let closing = self.checkpoints.closing.values().any(|until| *until > self.now);
        self.advance_cut();
        if !closing {
            self.advance_savepoints();
        }
        self.keep_time();
        if self.is_stop_under_way() || self.is_rescaling() || self.checkpoints.ids_are_used_up() {
            return;
        }
        let max_concurrent = self.config.checkpoint.max_concurrent.max(1) as usize;
        let in_progress = self.checkpoints.pending.values();
        let in_progress = in_progress.filter(|pending| !matches!(pending.cause, Cause::Savepoint(_))).count();
        if closing || self.cleanup.checkpoints() > max_concurrent || in_progress >= max_concurrent {
            return;
        }
        let drained = self.tasks.values().all(|run| matches!(run.state, TaskState::Drained | TaskState::Finished));
        if drained && self.checkpoints.last_of_drained.is_none() && self.now >= self.checkpoints.drain_not_before {
            let last = self.trigger(SnapshotKind::Checkpoint { whole: false }, false, Cause::Timer);
            self.checkpoints.last_of_drained = Some(last);
        } else if let Some((trigger, whole)) = self.checkpoints.requests.pop_front() {
            self.trigger(SnapshotKind::Checkpoint { whole }, false, Cause::Request(trigger));
        } else if self.checkpoints.periodic_waits {
            self.checkpoints.periodic_waits = false;
            let pause_ends = self.checkpoints.last_completion.map_or(0, |at| at + self.config.checkpoint.min_pause_ms);
            if pause_ends > self.now {
                self.checkpoints.periodic = Some(pause_ends);
            } else {
                self.trigger(SnapshotKind::Checkpoint { whole: false }, false, Cause::Timer);
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
            || !self.checkpoints.requests.is_empty()
            || self.savepoints.is_wanted()
            || self.is_rescaling()
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
    pub(super) fn trigger(&mut self, kind: SnapshotKind, last: bool, cause: Cause) -> CheckpointId {
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
                cause,
                kind: kind.clone(),
                triggered_at: self.unix_now,
                expires_at: self.now.saturating_add(self.config.checkpoint.timeout_ms),
                expected,
                acks: BTreeMap::new(),
                manifest: None,
            },
        );
        let savepoint = match &kind {
            SnapshotKind::Checkpoint { .. } => None,
            SnapshotKind::Savepoint { directory } => Some(directory.clone()),
        };
        if savepoint.is_none() {
            self.ledger.hold(checkpoint, []);
        }
        self.view.checkpoints.triggered(checkpoint, self.unix_now, subtasks, savepoint, last);
        self.report(Report::CheckpointTriggered { checkpoint });
        let barrier = Barrier { checkpoint, triggered_at: self.unix_now, kind, last };
        self.push(Action::TriggerCheckpoint { barrier, tasks: targets });
        checkpoint
    }

    /// Where the tasks run that are still in the given deployment and alive.
    pub(super) fn addresses(
        &self,
        tasks: impl Iterator<Item = (TaskId, DeploymentId)>,
    ) -> Vec<(WorkerId, TaskId, DeploymentId)> {
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
            self.on_late_savepoint_ack(checkpoint);
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
        if matches!(pending.kind, SnapshotKind::Checkpoint { .. }) {
            self.ledger.hold(checkpoint, files);
        }
        let ack = TaskCheckpointView { task, acknowledged_at: self.unix_now, finished, stats };
        self.view.checkpoints.acknowledged(checkpoint, ack);
        if complete {
            self.write_manifest(checkpoint);
        }
    }

    fn write_manifest(&mut self, checkpoint: CheckpointId) {
        let Some(pending) = self.checkpoints.pending.get(&checkpoint) else { return };
        let manifest = self.manifest_of(checkpoint, pending);
        let savepoint = match &pending.kind {
            SnapshotKind::Checkpoint { .. } => None,
            SnapshotKind::Savepoint { directory } => Some(directory.clone()),
        };
        if savepoint.is_none() {
            self.ledger.hold(checkpoint, files_of_manifest(&manifest));
        }
        if let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) {
            pending.stage = Stage::WritingManifest;
            pending.manifest = Some(Arc::new(manifest.clone()));
        }
        self.push(Action::WriteManifest { manifest: Box::new(manifest), savepoint });
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
            kind: match pending.kind {
                SnapshotKind::Checkpoint { .. } => ManifestKind::Checkpoint,
                SnapshotKind::Savepoint { .. } => ManifestKind::Savepoint,
            },
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
        let cause = pending.get(&checkpoint).map_or(Cause::Timer, |pending| pending.cause.clone());
        if let Cause::Savepoint(trigger) = cause {
            if let Some(pending) = self.checkpoints.pending.get_mut(&checkpoint) {
                pending.stage = Stage::Journaling;
            }
            let at = self.unix_now;
            self.journal.enqueue(JournalEntry::SavepointCompleted { trigger, checkpoint, manifest_checksum, at });
            return;
        }
        let overtaken = |(other, pending): (&CheckpointId, &Pending)| {
            *other > checkpoint && pending.stage == Stage::Journaling && !matches!(pending.cause, Cause::Savepoint(_))
        };
        if pending.iter().any(overtaken) {
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
        self.end_request(&pending.cause, Outcome::Completed(checkpoint));
        let (duration_ms, bytes_new, bytes_total) = self.view.checkpoints.completed(checkpoint, self.unix_now);
        self.report(Report::CheckpointCompleted { checkpoint, duration_ms, bytes_new, bytes_total });
        let tasks = self.addresses(pending.expected.into_iter());
        self.push(Action::NotifyComplete { checkpoint, tasks });
        let subsumed = self.checkpoints.pending.range(..checkpoint);
        let subsumed = subsumed.filter(|(_, pending)| !matches!(pending.cause, Cause::Savepoint(_)));
        let older: Vec<CheckpointId> = subsumed.map(|(id, _)| *id).collect();
        for id in older {
            self.fail_checkpoint(id, format!("subsumed by checkpoint {checkpoint}"), false, None);
        }
        self.clean_up_after(checkpoint);
        self.suspend_after(checkpoint, None);
        self.rescale_after(checkpoint, None);
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
    pub(super) fn fail_checkpoint(
        &mut self,
        checkpoint: CheckpointId,
        reason: String,
        counted: bool,
        culprit: Option<TaskId>,
    ) {
        let abortable = |pending: &Pending| pending.stage != Stage::Journaling;
        if !self.checkpoints.pending.get(&checkpoint).is_some_and(abortable) {
            return;
        }
        let Some(pending) = self.checkpoints.pending.remove(&checkpoint) else { return };
        let savepoint = match &pending.cause {
            Cause::Savepoint(trigger) => Some(trigger.clone()),
            Cause::Timer | Cause::Request(_) => None,
        };
        if savepoint.is_none() {
            self.checkpoints.aborted.insert(checkpoint);
        }
        if self.checkpoints.last_of_drained == Some(checkpoint) {
            self.checkpoints.last_of_drained = None;
            self.checkpoints.drain_not_before = self.now + DRAIN_RETRY_MS.max(self.config.checkpoint.min_pause_ms);
        }
        self.view.checkpoints.failed(checkpoint, self.unix_now, &reason);
        let tasks = self.addresses(pending.expected.into_iter());
        self.push(Action::NotifyAborted { checkpoint, tasks });
        self.end_request(&pending.cause, Outcome::Failed(reason.clone()));
        self.report(Report::CheckpointFailed { checkpoint, reason: reason.clone(), counted });
        self.suspend_after(checkpoint, Some(&reason));
        self.rescale_after(checkpoint, Some(&reason));
        // Of savepoints only what a task could not write counts, as in Flink.
        let counted = counted && (savepoint.is_none() || culprit.is_some());
        if let Some(trigger) = savepoint {
            self.savepoint_failed(&trigger, reason.clone());
        }
        if counted {
            self.count_failure(checkpoint, &reason, culprit);
        }
    }

    fn count_failure(&mut self, checkpoint: CheckpointId, reason: &str, culprit: Option<TaskId>) {
        let tolerable = self.config.checkpoint.tolerable_failures;
        if tolerable == u32::MAX || checkpoint <= self.checkpoints.last_success || self.life != Life::Working {
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
