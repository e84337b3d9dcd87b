//! The checker: sees everything the processes do and says which rule the first wrong step broke.
//!
//! Works on what is really in the store and in the tasks, never on what a coordinator believes.

use crate::job::{DRAINED, Job, Key, KeyState, Role, Row, key_group, pipeline_of, show_row, uid};
use crate::savepoint_rules::Savepoints;
use crate::store::{Store, checksum, files_of};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use streamjob_protocol::coordinator::{Barrier, SnapshotKind};
use streamjob_protocol::ids::{CheckpointId, TaskId};
use streamjob_protocol::journal::{EndState, JournalEntry, JournalState};
use streamjob_protocol::key_groups::key_group_range;
use streamjob_protocol::manifest::{CheckpointManifest, TaskRestore, TaskSnapshot};

/// What a checkpoint says: how far every split was read, and every key's sum.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub positions: Vec<u8>,
    pub sums: BTreeMap<Key, KeyState>,
    pub transactions: Vec<u64>,
}

/// How often what happened, over all jobs of a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub plain: u32,
    pub stops: u32,
    pub drains: u32,
    pub cancels: u32,
    pub failed: u32,
    pub rescales: u32,
    pub reconfigured: u32,
    /// Next revisions behind a stop.
    pub revisions: u32,
    pub adopted: u32,
    pub not_claimed: u32,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.plain += other.plain;
        self.stops += other.stops;
        self.drains += other.drains;
        self.cancels += other.cancels;
        self.failed += other.failed;
        self.rescales += other.rescales;
        self.reconfigured += other.reconfigured;
        self.revisions += other.revisions;
        self.adopted += other.adopted;
        self.not_claimed += other.not_claimed;
    }
}

pub struct Oracle {
    pub counts: Counts,
    /// The first rule that was broken.
    pub violation: Option<String>,
    pub exactly_once: bool,
    /// An older checkpoint was restored because the newest was damaged: output repeats, which the report said.
    pub fell_back: bool,
    /// By checkpoint, the coordinator that triggered it.
    triggered: BTreeMap<CheckpointId, usize>,
    /// By coordinator, the highest checkpoint that had been triggered when it claimed.
    floors: BTreeMap<usize, CheckpointId>,
    /// What tasks really wrote, by coordinator and checkpoint.
    written: BTreeMap<(usize, CheckpointId), BTreeMap<TaskId, TaskSnapshot>>,
    pub completed: BTreeMap<CheckpointId, Content>,
    /// Transactions that belong to a journaled checkpoint.
    covered: BTreeSet<u64>,
    /// Checkpoints that a coordinator reported as unusable.
    skipped: BTreeSet<(usize, CheckpointId)>,
    /// The same, when the newest checkpoint completed and it was decided what to discard.
    skipped_before: BTreeSet<(usize, CheckpointId)>,
    pub savepoints: Savepoints,
    /// The job ended behind this savepoint, drained: nothing is left to read.
    drained: Option<CheckpointId>,
}

impl Oracle {
    pub fn new(exactly_once: bool) -> Self {
        Oracle {
            counts: Counts::default(),
            violation: None,
            exactly_once,
            fell_back: false,
            triggered: BTreeMap::new(),
            floors: BTreeMap::new(),
            written: BTreeMap::new(),
            completed: BTreeMap::new(),
            covered: BTreeSet::new(),
            skipped: BTreeSet::new(),
            skipped_before: BTreeSet::new(),
            savepoints: Savepoints::default(),
            drained: None,
        }
    }

    pub fn violate(&mut self, rule: &str, what: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{rule}: {what}"));
        }
    }

    pub fn on_trigger(&mut self, coordinator: usize, barrier: &Barrier) {
        let checkpoint = barrier.checkpoint;
        if let SnapshotKind::Savepoint { directory } = &barrier.kind {
            self.savepoints.directories.insert((coordinator, checkpoint), directory.clone());
        }
        let own = self.triggered.iter().filter(|(_, by)| **by == coordinator).map(|(id, _)| *id).max();
        let floor = self.floors.get(&coordinator).copied().max(own).unwrap_or(0);
        if checkpoint <= floor {
            self.violate("I3", format!("checkpoint {checkpoint} is triggered, but {floor} was before"));
        }
        if let Some(other) = self.triggered.insert(checkpoint, coordinator) {
            self.violate("I3", format!("checkpoint {checkpoint} was used by coordinator {other} already"));
        }
    }

    pub fn on_written(&mut self, coordinator: usize, checkpoint: CheckpointId, task: TaskId, snapshot: &TaskSnapshot) {
        self.written.entry((coordinator, checkpoint)).or_default().insert(task, snapshot.clone());
    }

    pub fn on_skipped(&mut self, coordinator: usize, checkpoint: CheckpointId) {
        self.skipped.insert((coordinator, checkpoint));
    }

    pub fn on_manifest(&mut self, store: &Store, manifest: &CheckpointManifest) {
        if let Some(stored) = store.manifests.get(&manifest.checkpoint)
            && *stored.manifest != *manifest
        {
            self.violate("I3", format!("the manifest of checkpoint {} is overwritten", manifest.checkpoint));
        }
    }

    /// The journal says something else than before.
    pub fn on_journal(
        &mut self,
        (before, after): (&JournalState, &JournalState),
        entry: &JournalEntry,
        (coordinator, claimant): (usize, &str),
        jobs: &[Rc<Job>],
        store: &Store,
    ) {
        if let JournalEntry::Claimed { revision, .. } = entry {
            if *revision < before.revision {
                self.violate("I5", format!("revision {revision} claims what revision {} holds", before.revision));
            }
            let highest = self.triggered.keys().next_back().copied().unwrap_or(0);
            self.floors.insert(coordinator, highest);
            return;
        }
        if before.claimant.as_deref() != Some(claimant) {
            self.violate(
                "I5",
                format!("coordinator {coordinator} writes {entry:?}, but {:?} claimed", before.claimant),
            );
        }
        match entry {
            JournalEntry::Completed { checkpoint, manifest_checksum, .. } => {
                if let Some(stopped) = before.stopped.filter(|stopped| stopped < checkpoint) {
                    let what = format!("checkpoint {checkpoint} completes, but the job has stopped with {stopped}");
                    self.violate("stop", what);
                }
                self.on_completed(coordinator, *checkpoint, *manifest_checksum, jobs, store);
            }
            JournalEntry::SavepointCompleted { trigger, checkpoint, manifest_checksum, .. } => {
                let snapshot = (*checkpoint, *manifest_checksum);
                self.on_savepoint_completed((before, after), (coordinator, trigger), snapshot, jobs, store);
            }
            JournalEntry::Adopted { location, .. } => self.on_adopted(location),
            JournalEntry::SavepointFailed { .. } => self.counts.failed += 1,
            JournalEntry::Rescaled { .. } => self.counts.rescales += 1,
            JournalEntry::Configured { .. } => self.counts.reconfigured += 1,
            JournalEntry::Discarded { checkpoint } => {
                // Damage that nobody has seen yet is bad luck; going down to what was known to be damaged is a mistake.
                let known_damaged = |id: CheckpointId| self.skipped_before.contains(&(coordinator, id));
                let usable = |state: &JournalState| {
                    let mut kept = state.checkpoints.iter();
                    kept.any(|(id, _)| store.snapshot(state, *id).is_some() && !known_damaged(*id))
                };
                if before.ended.is_none() && usable(before) && !usable(after) {
                    self.violate("I6", format!("checkpoint {checkpoint}, the last usable one, is discarded"));
                }
            }
            JournalEntry::Compacted { .. } => {
                self.violate("I5", format!("compaction changes the journal from {before:?} to {after:?}"));
            }
            _ => {}
        }
    }

    fn on_completed(
        &mut self,
        coordinator: usize,
        checkpoint: CheckpointId,
        manifest_checksum: u64,
        jobs: &[Rc<Job>],
        store: &Store,
    ) {
        let stop = store.state().stopped;
        if let Some((newest, _)) = self.completed.last_key_value()
            && *newest >= checkpoint
            && stop != Some(*newest)
        {
            self.violate("I3", format!("checkpoint {checkpoint} completes after {newest}"));
        }
        let Some(stored) = store.manifests.get(&checkpoint) else {
            self.violate("I2", format!("checkpoint {checkpoint} is journaled without a manifest"));
            return;
        };
        let manifest = &stored.manifest;
        if stored.checksum != manifest_checksum || checksum(manifest) != manifest_checksum {
            self.violate("I2", format!("checkpoint {checkpoint} is journaled with another manifest's checksum"));
        }
        for file in files_of(manifest) {
            if !store.files.contains_key(&file.path) {
                self.violate(
                    "I2",
                    format!("checkpoint {checkpoint} is journaled, but its file {} is not there", file.path),
                );
                return;
            }
        }
        let job = &jobs[stored.parallelism as usize - 1];
        let content = self.check_snapshot((coordinator, checkpoint), (manifest, manifest), job, store);
        self.complete(checkpoint, content, false);
        self.skipped_before.clone_from(&self.skipped);
    }

    /// What belongs to it may become visible.
    pub fn complete(&mut self, checkpoint: CheckpointId, content: Content, stops: bool) {
        if content.is_drained() && self.drained.is_none() {
            self.drained = Some(checkpoint);
            if !stops {
                self.violate("stop", format!("checkpoint {checkpoint} holds drained sources of a job that goes on"));
            }
        }
        self.covered.extend(&content.transactions);
        self.completed.insert(checkpoint, content);
    }

    /// The job stopped drained once: nothing is left to read.
    pub fn has_drained(&self) -> bool {
        self.drained.is_some()
    }

    /// Another job begins with this.
    pub fn begin_with(&mut self, checkpoint: CheckpointId, content: Content) {
        self.triggered.insert(checkpoint, usize::MAX);
        self.complete(checkpoint, content, true);
    }

    /// Transactions of completed checkpoints with lower ids.
    pub fn covered_before(&self, checkpoint: CheckpointId) -> BTreeSet<u64> {
        self.completed.range(..checkpoint).flat_map(|(_, content)| content.transactions.iter().copied()).collect()
    }

    /// Holds what its tasks wrote, and what that says is right. `named`: the same with names of files in the store.
    pub fn check_snapshot(
        &mut self,
        (coordinator, checkpoint): (usize, CheckpointId),
        (manifest, named): (&CheckpointManifest, &CheckpointManifest),
        job: &Job,
        store: &Store,
    ) -> Content {
        let written = self.written.remove(&(coordinator, checkpoint)).unwrap_or_default();
        for task in job.plan.tasks() {
            for operator in &job.plan.vertices[task.vertex as usize].operators {
                let stored = manifest
                    .operators
                    .iter()
                    .find(|stored| stored.uid == operator.uid)
                    .and_then(|stored| stored.subtasks.get(&task.subtask));
                let really = written.get(&task).and_then(|snapshot| snapshot.operators.get(&operator.uid));
                match (stored, really) {
                    (None, _) => {
                        self.violate("I2", format!("checkpoint {checkpoint} lacks {} of task {task}", operator.uid))
                    }
                    (Some(stored), Some(really)) if stored.state == *really => {}
                    (Some(stored), None) if stored.finished => {}
                    _ => self.violate(
                        "I2",
                        format!(
                            "checkpoint {checkpoint} holds a state of {} that task {task} did not write",
                            operator.uid
                        ),
                    ),
                }
            }
        }
        let content = self.content(checkpoint, named, job, store);
        if !self.fell_back && self.exactly_once {
            self.check_rows(checkpoint, &content, job, store);
        }
        content
    }

    /// Reads a checkpoint and compares sums with source positions (I1).
    fn content(
        &mut self,
        checkpoint: CheckpointId,
        manifest: &CheckpointManifest,
        job: &Job,
        store: &Store,
    ) -> Content {
        let mut positions: Vec<Option<u8>> = vec![None; job.splits.len()];
        let mut content = Content::default();
        for (vertex, kind) in (0u32..).zip(&job.vertices) {
            for role in &kind.roles {
                let operator = manifest.operators.iter().find(|operator| operator.uid == uid(vertex, *role));
                for state in
                    operator.into_iter().flat_map(|operator| operator.subtasks.values()).map(|subtask| &subtask.state)
                {
                    let entries = || state.lists.iter().flat_map(|list| &list.entries);
                    match role {
                        Role::Source => {
                            for entry in entries() {
                                let (split, position): (usize, u8) = read_json(entry);
                                if positions[split].replace(position).is_some() {
                                    self.violate("I1", format!("checkpoint {checkpoint} holds split {split} twice"));
                                }
                            }
                        }
                        Role::Sum => {
                            for handle in &state.keyed {
                                let mut own = BTreeMap::new();
                                for file in &handle.files {
                                    for (key, sum) in store.files[&file.path].rows.iter() {
                                        if handle.key_groups.contains(key_group(*key)) {
                                            own.insert(*key, *sum);
                                        }
                                    }
                                }
                                for (key, sum) in own {
                                    if content.sums.insert(key, sum).is_some() {
                                        self.violate("I1", format!("checkpoint {checkpoint} holds key {key} twice"));
                                    }
                                }
                            }
                        }
                        Role::Sink => {
                            content.transactions.extend(entries().map(|entry| {
                                let (_, name): (CheckpointId, u64) = commit_of(entry);
                                name
                            }));
                        }
                    }
                }
            }
        }
        for (split, position) in positions.into_iter().enumerate() {
            if position.is_none() {
                self.violate("I1", format!("checkpoint {checkpoint} does not hold the position of split {split}"));
            }
            content.positions.push(position.unwrap_or(0));
        }
        let expected = job.sums(job.read(&content.positions));
        for key in expected.keys().chain(content.sums.keys()) {
            let (expected, found) =
                (expected.get(key).copied().unwrap_or_default(), content.sums.get(key).copied().unwrap_or_default());
            let lost = expected.seen & !found.seen != 0;
            let equal = (expected.count, expected.sum, expected.seen) == (found.count, found.sum, found.seen);
            if lost || self.exactly_once && !equal {
                self.violate(
                    "I1",
                    format!(
                        "checkpoint {checkpoint}: sources are at {:?}, so key {key} should have records {:#b}, but it \
                         has {:#b} (count {}, sum {})",
                        content.positions, expected.seen, found.seen, found.count, found.sum
                    ),
                );
                break;
            }
        }
        content
    }

    /// What is visible, or becomes so with this checkpoint, is what the sources were read up to (I1, I4).
    fn check_rows(&mut self, checkpoint: CheckpointId, content: &Content, job: &Job, store: &Store) {
        let mut covered = self.covered_before(checkpoint);
        covered.extend(&content.transactions);
        let mut covered: Vec<Row> =
            covered.iter().filter_map(|name| store.transactions.get(name)).flat_map(|tx| tx.rows.clone()).collect();
        let mut expected = content.rows(job);
        for (key, state) in &content.sums {
            if state.closed {
                let ends: Vec<bool> = job
                    .splits
                    .iter()
                    .zip(&content.positions)
                    .filter(|(split, _)| split.pipeline == pipeline_of(*key))
                    .map(|(split, position)| *position == split.len || position & DRAINED != 0)
                    .collect();
                if ends.contains(&false) {
                    self.violate("I1", format!("checkpoint {checkpoint}: key {key} is closed before its input ended"));
                }
            }
        }
        if let Some(difference) = difference(&mut covered, &mut expected) {
            self.violate(
                "I1/I4",
                format!(
                    "checkpoint {checkpoint}, sources at {:?}: the output up to it {difference}",
                    content.positions
                ),
            );
        }
    }

    /// A coordinator starts tasks from this checkpoint.
    pub fn on_deploy(
        &mut self,
        (coordinator, claimant): (usize, &str),
        task: &TaskRestore,
        (parallelism, specified): (u32, u32),
        external: Option<CheckpointId>,
        store: &Store,
    ) {
        let (state, restore) = (store.state(), task.checkpoint);
        if let Some(checkpoint) = restore
            && !self.completed.contains_key(&checkpoint)
        {
            self.violate("I2", format!("checkpoint {checkpoint} is restored, but never completed"));
        }
        if state.claimant.as_deref() != Some(claimant) {
            return;
        }
        if parallelism != state.parallelism.unwrap_or(specified) {
            self.violate("rescale", format!("parallelism {parallelism} is deployed, the journal says {state:?}"));
        }
        if task.stopped != (state.stopped.is_some() && restore == state.stopped) {
            let what = format!("checkpoint {restore:?} is restored, stopped: {}, by {:?}", task.stopped, state.stopped);
            self.violate("stop", what);
        }
        if state.checkpoints.is_empty() && restore != external {
            self.violate("I8", format!("the job starts from {restore:?}, although it was given {external:?}"));
        }
        for (newer, _) in state.checkpoints.iter().filter(|(id, _)| restore.is_none_or(|restore| *id > restore)) {
            if store.is_whole(&state, *newer) {
                self.violate("I2", format!("checkpoint {restore:?} is restored, although {newer} is there and whole"));
            } else if restore.is_none() {
                self.violate("I2", "the job starts from nothing, although it had checkpoints".into());
            } else if !self.skipped.contains(&(coordinator, *newer)) {
                self.violate("I6", format!("checkpoint {newer} is passed over silently"));
            }
            self.fell_back = true;
        }
    }

    /// A task read its state back.
    pub fn on_restored(
        &mut self,
        task: TaskId,
        job: &Job,
        checkpoint: CheckpointId,
        positions: &[(usize, u8)],
        sums: &BTreeMap<Key, KeyState>,
    ) {
        let Some(content) = self.completed.get(&checkpoint) else { return };
        let moved = positions.iter().find(|(split, position)| content.positions[*split] != *position).copied();
        let vertex = &job.vertices[task.vertex as usize];
        let mut wrong_key = None;
        if vertex.roles.contains(&Role::Sum) {
            let range = key_group_range(crate::job::MAX_PARALLELISM, job.parallelism(task.vertex), task.subtask);
            let owned = |key: Key| pipeline_of(key) == vertex.pipeline && range.contains(key_group(key));
            let expected: BTreeMap<Key, KeyState> =
                content.sums.iter().filter(|(key, _)| owned(**key)).map(|(key, sum)| (*key, *sum)).collect();
            wrong_key = expected.keys().chain(sums.keys()).find(|key| expected.get(key) != sums.get(key)).copied();
        }
        if let Some((split, position)) = moved {
            self.violate(
                "I1",
                format!("task {task} restores checkpoint {checkpoint} with split {split} at {position}"),
            );
        }
        if let Some(key) = wrong_key {
            self.violate(
                "I2",
                format!("task {task} restores checkpoint {checkpoint} with another state of key {key} than stored"),
            );
        }
    }

    /// A sink makes a transaction visible.
    pub fn on_commit(&mut self, store: &mut Store, name: u64) {
        if !self.covered.contains(&name) {
            self.violate("I4", format!("transaction {name} becomes visible without a journaled checkpoint"));
        }
        match store.transactions.get_mut(&name) {
            Some(transaction) => transaction.visible = true,
            None => self.violate("I4", format!("transaction {name} is gone")),
        }
    }

    /// Somebody deletes a checkpoint's manifest and these files.
    pub fn on_delete(&mut self, store: &Store, checkpoint: Option<CheckpointId>, files: &[String]) {
        let state = store.state();
        self.on_files_deleted(files);
        for (retained, _) in &state.checkpoints {
            if Some(*retained) == checkpoint && !state.locations.contains_key(retained) {
                self.violate("I6", format!("checkpoint {retained} is deleted, but not discarded in the journal"));
            }
            // What is damaged anyway cannot be made worse.
            let Some(stored) = store.snapshot(&state, *retained).filter(|_| store.is_whole(&state, *retained)) else {
                continue;
            };
            if let Some(file) = files_of(&stored.manifest).find(|file| files.contains(&file.path)) {
                self.violate("I6", format!("{} is deleted, but checkpoint {retained} refers to it", file.path));
            }
        }
    }

    /// The job is over and nothing runs any more.
    pub fn at_end(&mut self, job: &Job, store: &Store, end: EndState) {
        let mut visible: Vec<Row> =
            store.transactions.values().filter(|tx| tx.visible).flat_map(|tx| tx.rows.clone()).collect();
        let state = store.state();
        let behind = state.stopped.filter(|_| end == EndState::Finished).or(self.drained);
        let mut expected = match behind.and_then(|behind| self.completed.get(&behind)) {
            Some(content) => content.rows(job),
            None => {
                let mut all = job.rows(u64::MAX);
                all.extend(job.final_rows());
                all
            }
        };
        if end == EndState::Finished
            && self
                .completed
                .last_key_value()
                .is_some_and(|(last, _)| state.stopped.is_some() && state.stopped != Some(*last))
        {
            self.violate("stop", format!("the job stopped with {:?}, but went on", state.stopped));
        }
        self.check_savepoints(store);
        if end != EndState::Finished {
            // Cut short: what is visible is part of the whole, and no row is visible twice.
            visible.sort_unstable();
            if self.exactly_once && !self.fell_back {
                let twice = visible.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
                let alien = visible.iter().copied().find(|row| !expected.contains(row));
                if let Some(row) = twice.or(alien) {
                    self.violate("end", format!("{} is visible twice or is not part of the result", show_row(row)));
                }
            }
            return;
        }
        if self.fell_back || !self.exactly_once {
            visible.sort_unstable();
            visible.dedup();
            if behind.is_some() {
                // The job stopped before it came as far again as it had been.
                visible.retain(|row| expected.contains(row));
            }
            if !self.exactly_once {
                // Sums may have counted a record twice: only their rows' presence is certain.
                expected.retain(|row| row >> 31 == 0);
                visible.retain(|row| expected.contains(row));
            }
        }
        if let Some(difference) = difference(&mut visible, &mut expected) {
            self.violate("end", format!("the output {difference}"));
        }
    }
}

impl Content {
    pub fn is_drained(&self) -> bool {
        self.positions.iter().any(|position| position & DRAINED != 0)
    }

    /// What is visible if everything up to here is, and nothing else.
    fn rows(&self, job: &Job) -> Vec<Row> {
        let mut rows = job.rows(job.read(&self.positions));
        let closed = self.sums.iter().filter(|(_, state)| state.closed);
        rows.extend(closed.map(|(key, state)| crate::job::final_row(*key, state.sum)));
        rows
    }
}

/// How two multisets differ.
fn difference(found: &mut [Row], expected: &mut [Row]) -> Option<String> {
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected {
        return None;
    }
    let count = |rows: &[Row], row: Row| rows.iter().filter(|other| **other == row).count();
    let mut all: Vec<Row> = found.iter().chain(expected.iter()).copied().collect();
    all.sort_unstable();
    all.dedup();
    let differences: Vec<String> = all
        .into_iter()
        .filter(|row| count(found, *row) != count(expected, *row))
        .map(|row| format!("{} {}x instead of {}x", show_row(row), count(found, row), count(expected, row)))
        .collect();
    Some(format!("has {}", differences.join(", ")))
}

fn read_json<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> T {
    serde_json::from_value(value.clone()).expect("a simulated task wrote it")
}

fn commit_of(value: &serde_json::Value) -> (CheckpointId, u64) {
    (read_json(&value["checkpoint"]), read_json(&value["commit"]))
}
