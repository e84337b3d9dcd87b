//! Deletes what no checkpoint needs any more: discarded checkpoints, and leftovers of aborted ones.
//!
//! A discarded checkpoint is journaled as such before its files go. Files go only when the manifests of all retained
//! checkpoints are known and no checkpoint that was in progress at the time can still refer to them. A deletion that fails
//! leaves orphans, never a checkpoint without its files.

use super::machine::{Backoff, Coordinator};
use super::{Action, Report, StoreError};
use crate::ids::{CheckpointId, Millis};
use crate::journal::{JournalEntry, Location};
use crate::retention::{discards, is_elsewhere};
use std::collections::{BTreeMap, BTreeSet};

const DELETE_ATTEMPTS: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    /// Until the journal says that the checkpoint is discarded.
    Journaling,
    /// Until nothing can refer to its files any more.
    Waiting {
        in_progress: BTreeSet<CheckpointId>,
    },
    Deleting,
    RetryAt(Millis),
}

#[derive(Debug, Clone)]
struct Deletion {
    step: Step,
    /// Of the manifest, if there is one that may have to be read.
    checksum: Option<u64>,
    /// If it is not in the job's own storage.
    location: Option<Location>,
    files: Vec<String>,
    backoff: Backoff,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cleanup {
    deletions: BTreeMap<CheckpointId, Deletion>,
    /// Of savepoints that came to nothing.
    directories: BTreeMap<String, Deletion>,
}

impl Cleanup {
    /// Checkpoints that are being deleted.
    pub fn checkpoints(&self) -> usize {
        self.deletions.len()
    }

    pub fn len(&self) -> usize {
        self.deletions.len() + self.directories.len()
    }

    pub fn next_timer(&self) -> Option<Millis> {
        let retries =
            self.deletions.values().chain(self.directories.values()).filter_map(|deletion| match deletion.step {
                Step::RetryAt(at) => Some(at),
                _ => None,
            });
        retries.min()
    }
}

impl Deletion {
    fn new(step: Step) -> Deletion {
        Deletion { step, checksum: None, location: None, files: Vec::new(), backoff: Backoff::default() }
    }
}

impl Coordinator {
    /// A checkpoint completed: older ones beyond the retained number go, and what aborted ones left behind.
    pub(super) fn clean_up_after(&mut self, completed: CheckpointId) {
        let existing: Vec<CheckpointId> =
            self.journal.state.checkpoints.iter().map(|(checkpoint, _)| *checkpoint).collect();
        for checkpoint in discards(&existing, &self.restore_points.damaged, self.config.checkpoint.retained) {
            self.discard(checkpoint);
        }
        self.clean_up_aborted_below(completed);
    }

    pub(super) fn clean_up_aborted_below(&mut self, limit: CheckpointId) {
        let in_progress: BTreeSet<CheckpointId> = self.checkpoints.pending.keys().copied().collect();
        let aborted: Vec<CheckpointId> = self.checkpoints.aborted.range(..limit).copied().collect();
        for checkpoint in aborted {
            self.checkpoints.aborted.remove(&checkpoint);
            let step = Step::Waiting { in_progress: in_progress.clone() };
            self.cleanup.deletions.insert(checkpoint, Deletion::new(step));
        }
    }

    pub(super) fn discard(&mut self, checkpoint: CheckpointId) {
        if self.cleanup.deletions.contains_key(&checkpoint) {
            return;
        }
        let checksum = self.journal.state.checksum(checkpoint);
        let location = self.journal.state.locations.get(&checkpoint).cloned();
        let deletion = Deletion { checksum, location, ..Deletion::new(Step::Journaling) };
        self.cleanup.deletions.insert(checkpoint, deletion);
        self.journal.enqueue(JournalEntry::Discarded { checkpoint });
    }

    pub(super) fn on_discard_journaled(&mut self, checkpoint: CheckpointId) {
        let in_progress = self.checkpoints.pending.keys().copied().collect();
        if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
            if deletion.location.as_ref().is_some_and(|location| !location.owned) {
                // Somebody else's: it is no longer a restore point of this job, and that is all.
                self.cleanup.deletions.remove(&checkpoint);
                self.ledger.release(checkpoint);
                self.restore_points.forget(checkpoint);
                return;
            }
            deletion.step = Step::Waiting { in_progress };
        }
        self.view.checkpoints.discarded(checkpoint);
    }

    /// Everything that a savepoint which came to nothing left in its directory. Nothing else refers to it.
    pub(super) fn discard_directory(&mut self, directory: &str) {
        let deletion = Deletion::new(Step::RetryAt(self.now));
        self.cleanup.directories.insert(directory.to_owned(), deletion);
    }

    pub(super) fn advance_cleanup(&mut self) {
        let candidates: Vec<CheckpointId> = self.cleanup.deletions.keys().copied().collect();
        for checkpoint in candidates {
            self.advance_deletion(checkpoint);
        }
        let mut due = Vec::new();
        for (directory, deletion) in &mut self.cleanup.directories {
            if matches!(deletion.step, Step::RetryAt(at) if at <= self.now) {
                deletion.step = Step::Deleting;
                due.push(Action::DeleteSavepoint { location: directory.clone() });
            }
        }
        due.into_iter().for_each(|action| self.push(action));
    }

    pub(super) fn on_savepoint_deleted(&mut self, directory: &str, result: Result<(), StoreError>) {
        let Some(deletion) = self.cleanup.directories.get_mut(directory) else { return };
        let Err(error) = result else {
            self.cleanup.directories.remove(directory);
            return;
        };
        let delay = deletion.backoff.next();
        if deletion.backoff.failures() < DELETE_ATTEMPTS {
            deletion.step = Step::RetryAt(self.now + delay);
        } else {
            self.cleanup.directories.remove(directory);
            self.report(Report::SavepointLeftBehind { location: directory.to_owned(), reason: error.to_string() });
        }
    }

    fn advance_deletion(&mut self, checkpoint: CheckpointId) {
        let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) else { return };
        match &mut deletion.step {
            Step::Journaling | Step::Deleting => return,
            Step::RetryAt(at) if *at > self.now => return,
            Step::RetryAt(_) => {}
            Step::Waiting { in_progress } => {
                in_progress.retain(|other| self.checkpoints.pending.contains_key(other));
                if !in_progress.is_empty() {
                    return;
                }
                let checksum = deletion.checksum;
                if !self.files_are_known(checkpoint, checksum) {
                    return;
                }
                let mut files = self.ledger.release(checkpoint);
                self.restore_points.forget(checkpoint);
                if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
                    if deletion.location.is_none() {
                        // Carried on from a snapshot elsewhere, for tasks that had finished in it: not the job's.
                        files.retain(|file| !is_elsewhere(file));
                    }
                    deletion.files = files;
                }
            }
        }
        if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
            deletion.step = Step::Deleting;
            let files = deletion.files.clone();
            let location = deletion.location.as_ref().map(|location| location.path.clone());
            self.push(Action::DeleteCheckpoint { checkpoint, files, location });
        }
    }

    /// Whether it is known which files this checkpoint and all retained ones refer to; otherwise their manifests are read.
    fn files_are_known(&mut self, checkpoint: CheckpointId, checksum: Option<u64>) -> bool {
        let mut known = true;
        let own = self.cleanup.deletions.get(&checkpoint).and_then(|deletion| deletion.location.clone());
        let mut needed: Vec<_> =
            checksum.map(|checksum| (checkpoint, checksum, own.map(|own| own.path))).into_iter().collect();
        for (retained, checksum) in &self.journal.state.checkpoints {
            needed.push((*retained, *checksum, self.location_of(*retained)));
        }
        for (checkpoint, checksum, location) in needed {
            if !self.ledger.knows(checkpoint) {
                self.restore_points.load(checkpoint, checksum, location, self.now);
                known = false;
            }
        }
        known
    }

    pub(super) fn on_checkpoint_deleted(&mut self, checkpoint: CheckpointId, result: Result<(), StoreError>) {
        let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) else { return };
        if !matches!(deletion.step, Step::Deleting) {
            return;
        }
        match result {
            Ok(()) => {
                self.cleanup.deletions.remove(&checkpoint);
            }
            Err(error) => {
                let delay = deletion.backoff.next();
                if deletion.backoff.failures() < DELETE_ATTEMPTS {
                    deletion.step = Step::RetryAt(self.now + delay);
                } else {
                    self.cleanup.deletions.remove(&checkpoint);
                    self.report(Report::CleanupFailed { checkpoint, reason: error.to_string() });
                }
            }
        }
    }
}
