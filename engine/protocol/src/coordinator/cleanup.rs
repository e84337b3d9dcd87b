//! Deletes what no checkpoint needs any more: discarded checkpoints, and leftovers of aborted ones.
//!
//! A discarded checkpoint is journaled as such before its files go. Files go only when the manifests of all retained
//! checkpoints are known and no checkpoint that was in progress at the time can still refer to them. A deletion that fails
//! leaves orphans, never a checkpoint without its files.

use super::machine::{Backoff, Coordinator};
use super::{Action, Report, StoreError};
use crate::ids::{CheckpointId, Millis};
use crate::journal::JournalEntry;
use crate::retention::discards;
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
    files: Vec<String>,
    backoff: Backoff,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cleanup {
    deletions: BTreeMap<CheckpointId, Deletion>,
}

impl Cleanup {
    pub fn len(&self) -> usize {
        self.deletions.len()
    }

    pub fn next_timer(&self) -> Option<Millis> {
        let retries = self.deletions.values().filter_map(|deletion| match deletion.step {
            Step::RetryAt(at) => Some(at),
            _ => None,
        });
        retries.min()
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
            let deletion = Deletion { step, checksum: None, files: Vec::new(), backoff: Backoff::default() };
            self.cleanup.deletions.insert(checkpoint, deletion);
        }
    }

    pub(super) fn discard(&mut self, checkpoint: CheckpointId) {
        if self.cleanup.deletions.contains_key(&checkpoint) {
            return;
        }
        let checksum = self.journal.state.checksum(checkpoint);
        let deletion = Deletion { step: Step::Journaling, checksum, files: Vec::new(), backoff: Backoff::default() };
        self.cleanup.deletions.insert(checkpoint, deletion);
        self.journal.enqueue(JournalEntry::Discarded { checkpoint });
    }

    pub(super) fn on_discard_journaled(&mut self, checkpoint: CheckpointId) {
        let in_progress = self.checkpoints.pending.keys().copied().collect();
        if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
            deletion.step = Step::Waiting { in_progress };
        }
        self.view.checkpoints.discarded(checkpoint);
    }

    pub(super) fn advance_cleanup(&mut self) {
        let candidates: Vec<CheckpointId> = self.cleanup.deletions.keys().copied().collect();
        for checkpoint in candidates {
            self.advance_deletion(checkpoint);
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
                let files = self.ledger.release(checkpoint);
                self.restore_points.forget(checkpoint);
                if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
                    deletion.files = files;
                }
            }
        }
        if let Some(deletion) = self.cleanup.deletions.get_mut(&checkpoint) {
            deletion.step = Step::Deleting;
            let files = deletion.files.clone();
            self.push(Action::DeleteCheckpoint { checkpoint, files });
        }
    }

    /// Whether it is known which files this checkpoint and all retained ones refer to; otherwise their manifests are read.
    fn files_are_known(&mut self, checkpoint: CheckpointId, checksum: Option<u64>) -> bool {
        let mut known = true;
        let retained = self.journal.state.checkpoints.iter().copied();
        for (checkpoint, checksum) in retained.chain(checksum.map(|checksum| (checkpoint, checksum))) {
            if !self.ledger.knows(checkpoint) {
                self.restore_points.load(checkpoint, checksum, self.now);
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
