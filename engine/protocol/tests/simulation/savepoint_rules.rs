//! The checker's rules of savepoints: whole, of their own, decided once, never lost and never left behind.

use crate::job::Job;
use crate::oracle::{Content, Oracle};
use crate::store::{Store, is_in};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use streamjob_protocol::ids::CheckpointId;
use streamjob_protocol::journal::{AfterSavepoint, JournalState, SavepointOutcome};
use streamjob_protocol::manifest::TaskSnapshot;

pub struct Saved {
    pub checkpoint: CheckpointId,
    pub content: Content,
}

/// What is known of the savepoints of a job.
#[derive(Default)]
pub struct Savepoints {
    /// By directory.
    pub complete: BTreeMap<String, Saved>,
    /// By coordinator and id, the directory.
    pub directories: BTreeMap<(usize, CheckpointId), String>,
    triggers: BTreeSet<String>,
    /// Files that a coordinator whose claim stood was told of.
    known_files: BTreeSet<String>,
    left_behind: BTreeSet<String>,
    /// Snapshots elsewhere that belong to the job.
    owned: BTreeSet<String>,
}

impl Oracle {
    /// Something is written into a savepoint's directory.
    pub fn on_savepoint_file(&mut self, store: &Store, directory: &str) {
        let state = store.state();
        let known = |place: &String| place == directory;
        if !state.savepoints.iter().any(|record| known(&record.location) || record.former.iter().any(known)) {
            self.violate("savepoint", format!("{directory} is written, but the journal does not know of it"));
        }
    }

    pub fn on_ack(&mut self, coordinator: usize, checkpoint: CheckpointId, snapshot: &TaskSnapshot, stands: bool) {
        let Some(directory) = self.savepoints.directories.get(&(coordinator, checkpoint)).filter(|_| stands) else {
            return;
        };
        let handles = snapshot.operators.values().flat_map(|state| &state.keyed);
        let files = handles.flat_map(|handle| &handle.files).map(|file| format!("{directory}/{}", file.path));
        self.savepoints.known_files.extend(files);
    }

    pub fn on_savepoint_failed(&mut self, reason: &str) {
        if reason.contains("ubsumed") {
            self.violate("savepoint", format!("a checkpoint took the place of a savepoint: {reason}"));
        }
    }

    pub fn on_left_behind(&mut self, directory: String) {
        self.savepoints.left_behind.insert(directory);
    }

    pub fn on_adopted(&mut self, directory: &str) {
        self.savepoints.owned.insert(directory.to_owned());
    }

    /// The savepoint exists from here on.
    pub fn on_savepoint_completed(
        &mut self,
        (before, after): (&JournalState, &JournalState),
        (coordinator, trigger): (usize, &str),
        (checkpoint, checksum): (CheckpointId, u64),
        jobs: &[Rc<Job>],
        store: &Store,
    ) {
        let Some(record) = after.savepoints.iter().find(|record| record.trigger == trigger) else {
            self.violate("savepoint", format!("{trigger} completes, but the journal does not know of it"));
            return;
        };
        if !self.savepoints.triggers.insert(trigger.to_owned()) {
            self.violate("savepoint", format!("{trigger} completes twice"));
        }
        if before.stopped.is_some() && record.then.stops() {
            self.violate("savepoint", format!("{trigger} completes after the job has stopped"));
        }
        match record.then {
            AfterSavepoint::GoOn => self.counts.plain += 1,
            AfterSavepoint::Stop { drain: false } => self.counts.stops += 1,
            AfterSavepoint::Stop { drain: true } => self.counts.drains += 1,
            AfterSavepoint::Cancel => self.counts.cancels += 1,
        }
        let directory = record.location.clone();
        let Some(stored) = store.savepoints.get(&directory).cloned() else {
            self.violate("savepoint", format!("{trigger} is journaled without a manifest in {directory}"));
            return;
        };
        if stored.checksum != checksum {
            self.violate("savepoint", format!("{trigger} is journaled with another manifest's checksum"));
        }
        if !store.is_savepoint_whole(&directory) {
            self.violate("savepoint", format!("{directory} does not hold all files that it refers to"));
            return;
        }
        let Some(named) = store.savepoint(&directory) else { return };
        let job = &jobs[stored.parallelism as usize - 1];
        let content = self.check_snapshot((coordinator, checkpoint), (&stored.manifest, &named.manifest), job, store);
        if content.is_drained() && !record.then.stops() && !self.has_drained() {
            self.violate("savepoint", format!("{directory} holds drained sources, but the job goes on"));
        }
        if record.then.stops() {
            self.complete(checkpoint, content.clone(), true);
        }
        self.savepoints.complete.insert(directory, Saved { checkpoint, content });
    }

    /// Somebody deletes everything in there.
    pub fn on_directory_deleted(&mut self, directory: &str) {
        if self.savepoints.owned.contains(directory) {
            self.savepoints.complete.remove(directory);
        } else if self.savepoints.complete.contains_key(directory) {
            self.violate("savepoint", format!("{directory} is deleted, but is a complete savepoint of somebody else"));
        }
    }

    pub fn on_files_deleted(&mut self, files: &[String]) {
        let complete = |file: &&String| {
            self.savepoints
                .complete
                .keys()
                .any(|directory| is_in(file, directory) && !self.savepoints.owned.contains(directory))
        };
        if let Some(file) = files.iter().find(complete) {
            self.violate("savepoint", format!("{file} is deleted, which belongs to a complete savepoint"));
        }
    }

    /// Complete ones are whole, and the others are decided.
    pub fn check_savepoints(&mut self, store: &Store) {
        let state = store.state();
        let broken = self.savepoints.complete.keys().find(|directory| !store.is_savepoint_whole(directory)).cloned();
        if let Some(directory) = broken {
            self.violate("savepoint", format!("{directory} was complete and is not any more"));
        }
        let undecided =
            |outcome: &SavepointOutcome| matches!(outcome, SavepointOutcome::Started | SavepointOutcome::Abandoned);
        if let Some(record) = state.savepoints.iter().find(|record| undecided(&record.outcome)) {
            self.violate("savepoint", format!("the job has ended, but what became of {record:?} is not known"));
        }
    }

    /// The last coordinator has done its work.
    pub fn check_leftovers(&mut self, store: &Store) {
        let excused = |file: &String| {
            let directories = self.savepoints.complete.keys().chain(&self.savepoints.left_behind);
            directories.chain(&self.savepoints.owned).any(|directory| is_in(file, directory))
        };
        let left = self.savepoints.known_files.iter().find(|file| store.files.contains_key(*file) && !excused(file));
        if let Some(file) = left.cloned() {
            self.violate("savepoint", format!("{file} of a savepoint that came to nothing is left behind"));
        }
    }

    /// Directories of savepoints from which another job gives the same result.
    pub fn restorable(&self) -> impl Iterator<Item = &String> {
        let exact = self.exactly_once && !self.fell_back;
        self.savepoints.complete.keys().filter(move |_| exact)
    }

    /// Transactions that were covered by checkpoints before the savepoint, and those that belong to it.
    pub fn transactions_of(&self, directory: &str) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let Some(saved) = self.savepoints.complete.get(directory) else { return Default::default() };
        let pending: BTreeSet<u64> = saved.content.transactions.iter().copied().collect();
        (self.covered_before(saved.checkpoint).difference(&pending).copied().collect(), pending)
    }

    pub fn begin_another_job(&mut self, directory: &str, transactions: BTreeSet<u64>) {
        let Some(saved) = self.savepoints.complete.remove(directory) else { return };
        let (checkpoint, mut content) = (saved.checkpoint, saved.content.clone());
        content.transactions = transactions.into_iter().collect();
        let counts = self.counts;
        *self = Oracle::new(self.exactly_once);
        self.counts = counts;
        self.begin_with(checkpoint, content);
        self.savepoints.complete.insert(directory.to_owned(), saved);
    }
}
