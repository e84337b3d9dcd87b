//! A simulated task: a chain of source, sum and sink around the product's lifecycle, aligner and pending commits.

use crate::job::{
    DRAINED, Job, Key, KeyState, MAX_PARALLELISM, RecordId, Role, Row, count_row, final_row, key_group, record_row, uid,
};
use crate::lifecycle::{TaskAction, TaskLifecycle, TaskState};
use crate::mutant::Mutant;
use crate::shared::{ChannelKey, Element, Shared};
use crate::store::{Rows, is_elsewhere};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use streamjob_api::config::CheckpointMode;
use streamjob_protocol::alignment::{Aligner, Alignment};
use streamjob_protocol::coordinator::{Barrier, DeclineReason, Event, SnapshotKind};
use streamjob_protocol::ids::{CheckpointId, DeploymentId, Millis, TaskId};
use streamjob_protocol::key_groups::key_group_range;
use streamjob_protocol::manifest::{
    FileRef, KeyGroupRange, KeyedStateHandle, ListStateHandle, OperatorState, Redistribution, SubtaskStats,
    TaskRestore, TaskSnapshot,
};
use streamjob_protocol::two_phase::PendingCommits;

/// Elements that wait in a channel before its producer has to.
const CHANNEL_CAPACITY: usize = 6;
/// Files in a chain before it is merged into one.
const MAX_CHAIN: usize = 3;

type SumRows = Vec<(Key, KeyState)>;

/// A cut on its way to the store.
struct Upload {
    checkpoint: CheckpointId,
    snapshot: TaskSnapshot,
    /// Changed keys, or with `true` all keys.
    delta: Option<(bool, SumRows)>,
    /// Where a savepoint goes, with all keys.
    savepoint: Option<(String, Rows)>,
    ready_at: Millis,
    acknowledged: bool,
}

pub struct Task {
    pub id: TaskId,
    pub deployment: DeploymentId,
    pub coordinator: usize,
    job: Rc<Job>,
    roles: Vec<Role>,
    life: TaskLifecycle,
    aligner: Aligner,
    restore: TaskRestore,
    restored_at: Millis,
    inputs: Vec<ChannelKey>,
    /// By edge.
    outputs: Vec<Vec<ChannelKey>>,
    ended: Vec<bool>,
    /// Split and position.
    splits: Vec<(usize, u8)>,
    next_record_at: Millis,
    sums: BTreeMap<Key, KeyState>,
    dirty: BTreeSet<Key>,
    incremental: bool,
    needs_full: bool,
    unwritten: Vec<(bool, SumRows)>,
    chain: Vec<FileRef>,
    open: Vec<Row>,
    commits: PendingCommits<u64>,
    uploads: VecDeque<Upload>,
    /// Savepoints that were given up: nothing more is written for them.
    aborted: BTreeSet<CheckpointId>,
    /// Told to stop, and does so at this time.
    pub cancel_at: Option<Millis>,
    /// The worker was killed in the middle of a commit.
    pub killed: bool,
}

impl Task {
    pub fn new(
        job: &Rc<Job>,
        (id, deployment, coordinator): (TaskId, DeploymentId, usize),
        restore: TaskRestore,
        restored_at: Millis,
        incremental: bool,
        shared: &Shared,
    ) -> Task {
        let key = |channel: &u32| (coordinator, deployment, *channel);
        let inputs: Vec<ChannelKey> = job.inputs[&id].iter().map(key).collect();
        let mode = if shared.oracle.exactly_once { CheckpointMode::ExactlyOnce } else { CheckpointMode::AtLeastOnce };
        Task {
            roles: job.vertices[id.vertex as usize].roles.clone(),
            life: TaskLifecycle::new(!shared.is(Mutant::FinalCheckpointSkipped)),
            aligner: Aligner::new(inputs.len(), mode),
            ended: vec![false; inputs.len()],
            outputs: job.outputs[&id].iter().map(|channels| channels.iter().map(key).collect()).collect(),
            inputs,
            job: Rc::clone(job),
            id,
            deployment,
            coordinator,
            restore,
            restored_at,
            splits: Vec::new(),
            next_record_at: 0,
            sums: BTreeMap::new(),
            dirty: BTreeSet::new(),
            incremental,
            needs_full: true,
            unwritten: Vec::new(),
            chain: Vec::new(),
            open: Vec::new(),
            commits: PendingCommits::default(),
            uploads: VecDeque::new(),
            aborted: BTreeSet::new(),
            cancel_at: None,
            killed: false,
        }
    }

    pub fn is_over(&self) -> bool {
        self.life.state().is_terminal() && self.uploads.is_empty()
    }

    pub fn job(&self) -> &Rc<Job> {
        &self.job
    }

    pub fn is_running(&self) -> bool {
        !self.life.state().is_terminal()
    }

    /// It is a source with something left to read, as far as it knows, and may send it.
    fn reads(&self, shared: &Shared) -> bool {
        let held = self.life.is_held() && !shared.is(Mutant::SentBehindLastBarrier);
        self.life.state() == TaskState::Running && self.has(Role::Source) && !held
    }

    fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    fn key_groups(&self) -> KeyGroupRange {
        key_group_range(MAX_PARALLELISM, self.job.parallelism(self.id.vertex), self.id.subtask)
    }

    // What the task could do next.

    /// When it can do something by itself, if only time is missing.
    pub fn due(&self, shared: &Shared) -> Option<Millis> {
        let reads = self.reads(shared);
        [
            (self.life.state() == TaskState::Deploying).then_some(self.restored_at),
            self.uploads.front().map(|upload| upload.ready_at),
            reads.then_some(self.next_record_at),
            self.cancel_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn has_room(&self, shared: &Shared) -> bool {
        self.outputs.iter().flatten().all(|channel| shared.waiting(channel) < CHANNEL_CAPACITY)
    }

    fn readable(&self, shared: &Shared) -> Vec<usize> {
        if !matches!(self.life.state(), TaskState::Running | TaskState::Drained) || !self.has_room(shared) {
            return Vec::new();
        }
        let open = |channel: &usize| !self.aligner.is_blocked(*channel) || shared.is(Mutant::AlignedChannelsNotBlocked);
        let waiting = |channel: &usize| shared.waiting(&self.inputs[*channel]) > 0;
        (0..self.inputs.len()).filter(|channel| open(channel) && waiting(channel)).collect()
    }

    pub fn can_step(&self, shared: &Shared) -> bool {
        let reads = self.reads(shared);
        self.life.state() == TaskState::Deploying && self.restored_at <= shared.now
            || self.uploads.front().is_some_and(|upload| upload.ready_at <= shared.now)
            || reads && self.next_record_at <= shared.now && self.has_room(shared)
            || !self.readable(shared).is_empty()
    }

    pub fn step(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        if self.life.state() == TaskState::Deploying && self.restored_at <= shared.now {
            self.open_operators(shared, out);
            return;
        }
        let upload_ready = self.uploads.front().is_some_and(|upload| upload.ready_at <= shared.now);
        let reads = self.reads(shared);
        let source_ready = reads && self.next_record_at <= shared.now && self.has_room(shared);
        let readable = self.readable(shared);
        if upload_ready && ((readable.is_empty() && !source_ready) || shared.random.between(0, 2) == 0) {
            self.write(shared, out);
        } else if source_ready {
            self.read_source(shared, out);
        } else if let Some(channel) = shared.random.choose(&readable) {
            self.read_channel(channel, shared, out);
        }
    }

    // Restore.

    fn open_operators(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        let restore = std::mem::take(&mut self.restore);
        let state_of = |role: Role| restore.operators.get(&uid(self.id.vertex, role)).cloned().unwrap_or_default();
        let (source, sum, sink) = (state_of(Role::Source), state_of(Role::Sum), state_of(Role::Sink));
        if self.has(Role::Source) {
            let parallelism = self.job.parallelism(self.id.vertex) as usize;
            let own = self.job.splits.iter().enumerate().filter(|(_, split)| split.vertex == self.id.vertex);
            self.splits = match restore.checkpoint {
                None => own
                    .filter(|(number, _)| number % parallelism == self.id.subtask as usize)
                    .map(|(number, _)| (number, 0))
                    .collect(),
                Some(_) => entries(&source)
                    .map(|entry| serde_json::from_value(entry.clone()).expect("a source's state"))
                    .collect(),
            };
        }
        if let Err(reason) = self.open_sums(&sum, shared) {
            let actions = self.life.on_state_damaged(reason);
            self.carry_out(actions, shared, out);
            return;
        }
        if self.has(Role::Sink) {
            let entries: Vec<_> = entries(&sink).cloned().collect();
            self.commits = PendingCommits::from_entries(&entries).expect("a sink's state");
            if shared.is(Mutant::RestoredCommitsDropped) {
                self.commits = PendingCommits::default();
            }
            self.commit(CheckpointId::MAX, shared);
            if self.killed {
                return;
            }
        }
        if let Some(checkpoint) = restore.checkpoint {
            shared.oracle.on_restored(self.id, &self.job, checkpoint, &self.splits, &self.sums);
        }
        let stopped = restore.stopped && !shared.is(Mutant::StoppedRestoreGoesOn);
        let actions = self.life.on_restored(stopped);
        self.carry_out(actions, shared, out);
        if restore.finished && !stopped {
            self.drained(shared, out);
        }
    }

    fn open_sums(&mut self, state: &OperatorState, shared: &Shared) -> Result<(), String> {
        let mut own = self.key_groups();
        if shared.is(Mutant::WrongKeyGroups) && own.first < own.last {
            own.last -= 1;
        }
        let keep_ranges_apart = !shared.is(Mutant::ChainKeptThroughRescaling);
        for handle in &state.keyed {
            for file in &handle.files {
                let rows = shared.store.read_file(&file.path).ok_or_else(|| format!("{} is damaged", file.path))?;
                let wanted = |key: Key| {
                    own.contains(key_group(key)) && (handle.key_groups.contains(key_group(key)) || !keep_ranges_apart)
                };
                self.sums.extend(rows.iter().copied().filter(|(key, _)| wanted(*key)));
            }
        }
        // Files of another range cannot be part of one chain: they would bring back what later files replaced.
        let same_range = matches!(&state.keyed[..], [handle] if handle.key_groups == self.key_groups());
        // A snapshot elsewhere is not the job's to build on.
        let own = state.keyed.iter().flat_map(|handle| &handle.files).all(|file| !is_elsewhere(&file.path));
        if own && (same_range || !keep_ranges_apart && !state.keyed.is_empty()) {
            self.chain = state.keyed.iter().flat_map(|handle| handle.files.iter().cloned()).collect();
            self.needs_full = false;
        }
        Ok(())
    }

    // Data.

    fn read_source(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        let unread: Vec<usize> = (0..self.splits.len())
            .filter(|index| self.splits[*index].1 < self.job.splits[self.splits[*index].0].len)
            .filter(|index| self.splits[*index].1 & DRAINED == 0)
            .collect();
        let Some(index) = shared.random.choose(&unread) else {
            self.finish(shared, out);
            return;
        };
        let (split, position) = self.splits[index];
        self.splits[index].1 += 1;
        let record = self.job.splits[split].first + position;
        self.next_record_at = shared.now + shared.random.between(0, 24);
        if self.has(Role::Sink) {
            self.open.push(record_row(record));
        }
        let key = self.job.records[record as usize].key;
        self.send(key, Element::Record(record), shared);
    }

    fn read_channel(&mut self, channel: usize, shared: &mut Shared, out: &mut Vec<Event>) {
        let Some(element) = shared.receive(&self.inputs[channel]) else { return };
        match element {
            Element::Record(record) => self.on_record(record, shared),
            Element::Row(row) => self.open.push(row),
            Element::Barrier(barrier) => {
                let steps = self.aligner.on_barrier(channel, barrier, shared.now);
                self.align(steps, shared, out);
            }
            Element::Cancel(checkpoint) => {
                let steps = self.aligner.on_cancel_marker(channel, checkpoint);
                self.align(steps, shared, out);
            }
            Element::EndOfData => {
                self.ended[channel] = true;
                if !self.ended.contains(&false) && self.life.state() == TaskState::Running {
                    self.finish(shared, out);
                }
            }
            Element::Closed => {
                let steps = self.aligner.on_channel_end(channel, shared.now);
                self.align(steps, shared, out);
            }
        }
    }

    fn on_record(&mut self, record: RecordId, shared: &mut Shared) {
        let content = self.job.records[record as usize];
        if !self.has(Role::Sum) {
            self.open.push(record_row(record));
            return;
        }
        let sum = self.sums.entry(content.key).or_default();
        sum.add(record, &content);
        let count = sum.count;
        self.dirty.insert(content.key);
        self.emit_row(content.key, count_row(content.key, count), shared);
    }

    fn emit_row(&mut self, key: Key, row: Row, shared: &mut Shared) {
        if self.has(Role::Sink) {
            self.open.push(row);
        } else {
            self.send(key, Element::Row(row), shared);
        }
    }

    fn send(&self, key: Key, element: Element, shared: &mut Shared) {
        for channels in &self.outputs {
            let numbers: Vec<u32> = channels.iter().map(|(.., number)| *number).collect();
            let number = Job::route(key, &numbers);
            shared.send((self.coordinator, self.deployment, number), element.clone());
        }
    }

    fn broadcast(&self, element: &Element, shared: &mut Shared) {
        for channel in self.outputs.iter().flatten() {
            shared.send(*channel, element.clone());
        }
    }

    /// All input ended: the last rows go out.
    fn finish(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        let open: Vec<(Key, u32)> =
            self.sums.iter().filter(|(_, sum)| !sum.closed).map(|(key, sum)| (*key, sum.sum)).collect();
        for (key, sum) in open {
            self.emit_row(key, final_row(key, sum), shared);
            self.sums.entry(key).and_modify(|sum| sum.closed = true);
            self.dirty.insert(key);
        }
        self.drained(shared, out);
    }

    fn drained(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        self.broadcast(&Element::EndOfData, shared);
        let actions = self.life.on_drained();
        self.carry_out(actions, shared, out);
    }

    // Checkpoints.

    fn align(&mut self, steps: Vec<Alignment>, shared: &mut Shared, out: &mut Vec<Event>) {
        for step in steps {
            match step {
                // Blocked channels are asked for when the next element is chosen.
                Alignment::Block(_) | Alignment::Unblock(_) => {}
                Alignment::Checkpoint { barrier, .. } => self.checkpoint(barrier, shared, out),
                Alignment::Abort { checkpoint, reason } => self.decline(checkpoint, reason, out),
                Alignment::ForwardCancel(checkpoint) => self.broadcast(&Element::Cancel(checkpoint), shared),
            }
        }
    }

    fn decline(&self, checkpoint: CheckpointId, reason: DeclineReason, out: &mut Vec<Event>) {
        let message = "simulated".to_owned();
        out.push(Event::CheckpointDecline { task: self.id, deployment: self.deployment, checkpoint, reason, message });
    }

    fn checkpoint(&mut self, barrier: Barrier, shared: &mut Shared, out: &mut Vec<Event>) {
        let (checkpoint, last, kind) = (barrier.checkpoint, barrier.last, barrier.kind.clone());
        if !self.open.is_empty() {
            let rows = std::mem::take(&mut self.open);
            self.commits.pre_commit(checkpoint, shared.begin_transaction(rows));
        }
        if shared.is(Mutant::CommitAtBarrier) {
            self.commit(checkpoint, shared);
        }
        self.broadcast(&Element::Barrier(barrier), shared);
        let mut operators = BTreeMap::new();
        if self.has(Role::Source) {
            operators.insert(uid(self.id.vertex, Role::Source), list_state("splits", self.split_entries()));
        }
        if self.has(Role::Sink) {
            let entries = self.commits.to_entries().expect("a transaction's name has a JSON form");
            operators.insert(uid(self.id.vertex, Role::Sink), list_state("commits", entries));
        }
        let (mut delta, mut savepoint) = (None, None);
        if self.has(Role::Sum) {
            operators.insert(uid(self.id.vertex, Role::Sum), OperatorState::default());
        }
        if let SnapshotKind::Savepoint { directory } = kind {
            let rows = self.sums.iter().map(|(key, sum)| (*key, *sum)).collect();
            savepoint = Some((directory, Rc::new(rows)));
        } else if self.has(Role::Sum) {
            let whole = kind == SnapshotKind::Checkpoint { whole: true };
            let full = self.needs_full || !self.incremental || whole;
            let dirty = std::mem::take(&mut self.dirty);
            let changed = |key: &Key| full || dirty.contains(key);
            delta =
                Some((full, self.sums.iter().filter(|(key, _)| changed(key)).map(|(key, sum)| (*key, *sum)).collect()));
            self.needs_full = false;
        }
        let finished = self.life.on_snapshot(checkpoint, last);
        let longest = if shared.store_is_slow() { 150 } else { 15 };
        let mut upload = Upload {
            checkpoint,
            snapshot: TaskSnapshot { operators, finished },
            delta,
            savepoint,
            ready_at: shared.now + shared.random.between(0, longest),
            acknowledged: false,
        };
        if shared.is(Mutant::AckBeforeWrite) && upload.savepoint.is_none() {
            upload.acknowledged = true;
            self.acknowledge(checkpoint, self.with_sums(upload.snapshot.clone()), out);
        }
        self.uploads.push_back(upload);
    }

    fn split_entries(&self) -> Vec<serde_json::Value> {
        self.splits.iter().map(|split| json!(split)).collect()
    }

    fn with_sums(&self, mut snapshot: TaskSnapshot) -> TaskSnapshot {
        if let Some(state) = snapshot.operators.get_mut(&uid(self.id.vertex, Role::Sum)) {
            state.keyed.push(KeyedStateHandle {
                name: "sums".into(),
                schema: "key, sum".into(),
                key_groups: self.key_groups(),
                files: self.chain.clone(),
            });
        }
        snapshot
    }

    fn acknowledge(&self, checkpoint: CheckpointId, snapshot: TaskSnapshot, out: &mut Vec<Event>) {
        let stats = SubtaskStats::default();
        out.push(Event::CheckpointAck { task: self.id, deployment: self.deployment, checkpoint, snapshot, stats });
    }

    /// The oldest cut is written, as far as the store takes it.
    fn write(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        let Some(mut upload) = self.uploads.pop_front() else { return };
        if let Some((directory, rows)) = upload.savepoint.take() {
            self.write_savepoint(upload, &directory, rows, shared, out);
            return;
        }
        if let Some((full, rows)) = upload.delta.take() {
            if full {
                self.unwritten.clear();
            }
            if full || !rows.is_empty() {
                self.unwritten.push((full, rows));
            }
        }
        while let Some((full, rows)) = self.unwritten.first().cloned() {
            if shared.store_fails() {
                if shared.is(Mutant::FailedDeltaForgotten) {
                    self.unwritten.clear();
                }
                self.decline(upload.checkpoint, DeclineReason::AsyncException, out);
                return;
            }
            self.unwritten.remove(0);
            if full {
                self.chain.clear();
            }
            let file = shared.store.write_file(rows);
            self.chain.push(file);
        }
        let mut snapshot = self.with_sums(upload.snapshot);
        if shared.is(Mutant::SourcePositionAfterBarrier)
            && let Some(state) = snapshot.operators.get_mut(&uid(self.id.vertex, Role::Source))
        {
            *state = list_state("splits", self.split_entries());
        }
        shared.oracle.on_written(self.coordinator, upload.checkpoint, self.id, &snapshot);
        if !upload.acknowledged {
            self.acknowledge(upload.checkpoint, snapshot, out);
        }
        if self.chain.len() > MAX_CHAIN {
            self.merge_chain(shared);
        }
    }

    /// Files of its own, which have nothing to do with the chain.
    fn write_savepoint(
        &mut self,
        upload: Upload,
        directory: &str,
        rows: Rows,
        shared: &mut Shared,
        out: &mut Vec<Event>,
    ) {
        let mut snapshot = upload.snapshot;
        if self.aborted.contains(&upload.checkpoint) || shared.store_fails() {
            self.decline(upload.checkpoint, DeclineReason::AsyncException, out);
            return;
        }
        if shared.is(Mutant::SavepointSharesFiles) && !self.chain.is_empty() {
            snapshot = self.with_sums(snapshot);
        } else if let Some(state) = snapshot.operators.get_mut(&uid(self.id.vertex, Role::Sum)) {
            let empty = rows.is_empty();
            let file = (!empty).then(|| shared.store.write_savepoint_file(directory, rows));
            if file.is_some() {
                shared.oracle.on_savepoint_file(&shared.store, directory);
            }
            state.keyed.push(KeyedStateHandle {
                name: "sums".into(),
                schema: "key, sum".into(),
                key_groups: self.key_groups(),
                files: file.into_iter().collect(),
            });
        }
        shared.oracle.on_written(self.coordinator, upload.checkpoint, self.id, &snapshot);
        self.acknowledge(upload.checkpoint, snapshot, out);
    }

    fn merge_chain(&mut self, shared: &mut Shared) {
        let mut merged: BTreeMap<Key, KeyState> = BTreeMap::new();
        for file in &self.chain {
            let Some(rows) = shared.store.read_file(&file.path) else { return };
            merged.extend(rows.iter().copied());
        }
        if !shared.store_fails() {
            self.chain = vec![shared.store.write_file(merged.into_iter().collect())];
        }
    }

    // Messages of the coordinator.

    pub fn on_trigger(&mut self, barrier: Barrier, shared: &mut Shared, out: &mut Vec<Event>) {
        let actions = self.life.on_trigger(barrier);
        self.carry_out(actions, shared, out);
    }

    /// The source is told to end where it is.
    pub fn on_drain(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        if self.reads(shared) {
            self.splits.iter_mut().for_each(|(_, position)| *position |= DRAINED);
            self.finish(shared, out);
        }
    }

    pub fn on_complete(&mut self, checkpoint: CheckpointId, shared: &mut Shared, out: &mut Vec<Event>) {
        let actions = self.life.on_complete(checkpoint);
        self.carry_out(actions, shared, out);
    }

    pub fn on_aborted(&mut self, checkpoint: CheckpointId, shared: &mut Shared, out: &mut Vec<Event>) {
        if shared.is(Mutant::HeldForEver) && self.life.is_held() {
            return;
        }
        self.aborted.insert(checkpoint);
        for channel in self.outputs.iter().flatten() {
            shared.goes_on(channel, checkpoint);
        }
        let actions = self.life.on_abort(checkpoint);
        self.carry_out(actions, shared, out);
    }

    pub fn on_failure(&mut self, reason: &str, shared: &mut Shared, out: &mut Vec<Event>) {
        let actions = self.life.on_error(reason.to_owned(), true);
        self.carry_out(actions, shared, out);
    }

    pub fn stop(&mut self, shared: &mut Shared, out: &mut Vec<Event>) {
        if shared.is(Mutant::OpenOutputCommitted) && self.is_running() && !self.open.is_empty() {
            let rows = std::mem::take(&mut self.open);
            let name = shared.begin_transaction(rows);
            shared.oracle.on_commit(&mut shared.store, name);
        }
        let actions = self.life.on_cancel();
        self.carry_out(actions, shared, out);
        self.uploads.clear();
    }

    fn carry_out(&mut self, actions: Vec<TaskAction>, shared: &mut Shared, out: &mut Vec<Event>) {
        for action in actions {
            match action {
                TaskAction::Report(status) => {
                    shared.trace(|| format!("task {} of deployment {}: {status:?}", self.id, self.deployment));
                    out.push(Event::TaskStatus { task: self.id, deployment: self.deployment, status });
                }
                TaskAction::Align(barrier) => {
                    let steps = self.aligner.on_trigger(barrier, shared.now);
                    self.align(steps, shared, out);
                }
                TaskAction::Decline { checkpoint, reason } => self.decline(checkpoint, reason, out),
                TaskAction::Commit(_) if shared.is(Mutant::StoppedWithoutCommit) && self.life.is_held() => {}
                TaskAction::Commit(checkpoint) => {
                    self.commit(checkpoint, shared);
                    if self.killed {
                        return;
                    }
                }
                TaskAction::Abort(checkpoint) => {
                    let steps = self.aligner.abort(checkpoint);
                    self.align(steps, shared, out);
                }
                TaskAction::CloseOutputs => self.broadcast(&Element::Closed, shared),
            }
        }
    }

    /// Makes transactions visible, oldest first; the worker may be killed between two of them.
    fn commit(&mut self, checkpoint: CheckpointId, shared: &mut Shared) {
        let task = self.id;
        let result = self.commits.commit_through(checkpoint, |of, name| {
            if shared.faults_on && shared.random.between(0, 60) == 0 {
                return Err(());
            }
            shared.trace(|| format!("task {task} commits transaction {name} of checkpoint {of}"));
            shared.oracle.on_commit(&mut shared.store, *name);
            Ok(())
        });
        self.killed = result.is_err();
    }

    /// Frees the channels that only this task reads.
    pub fn release(&self, shared: &mut Shared) {
        for channel in &self.inputs {
            shared.drop_channel(channel);
        }
    }
}

fn list_state(name: &str, entries: Vec<serde_json::Value>) -> OperatorState {
    let list = ListStateHandle { name: name.into(), redistribution: Redistribution::Split, entries };
    OperatorState { keyed: Vec::new(), lists: vec![list] }
}

fn entries(state: &OperatorState) -> impl Iterator<Item = &serde_json::Value> {
    state.lists.iter().flat_map(|list| &list.entries)
}
