//! Which checkpoints are discarded, and which files may go with them. Decides; deletes nothing.

use crate::ids::CheckpointId;
use crate::journal::EndState;
use crate::manifest::{CheckpointManifest, OperatorState};
use std::collections::{BTreeMap, BTreeSet};
use streamjob_api::config::Retention;

/// Checkpoints to discard once the newest of `checkpoints` (oldest first) has completed: the damaged ones, of which no
/// restore can make use, and the oldest beyond `retained` (at least 1). The newest usable one always stays.
pub fn discards(checkpoints: &[CheckpointId], damaged: &BTreeSet<CheckpointId>, retained: u32) -> Vec<CheckpointId> {
    let usable = checkpoints.iter().filter(|checkpoint| !damaged.contains(checkpoint)).count();
    if usable == 0 {
        return Vec::new();
    }
    let mut surplus = usable.saturating_sub(retained.max(1) as usize);
    let mut discarded = Vec::new();
    for checkpoint in checkpoints {
        if damaged.contains(checkpoint) {
            discarded.push(*checkpoint);
        } else if surplus > 0 {
            surplus -= 1;
            discarded.push(*checkpoint);
        }
    }
    discarded
}

/// Whether the checkpoints of a job outlive its end. A suspended job is not at its end: its checkpoints always stay.
pub fn outlives(retention: Retention, end: EndState) -> bool {
    match (retention, end) {
        (_, EndState::Finished) | (Retention::None, _) | (Retention::DeleteOnCancellation, EndState::Canceled) => false,
        (Retention::RetainOnCancellation, EndState::Canceled | EndState::Failed)
        | (Retention::DeleteOnCancellation, EndState::Failed) => true,
    }
}

/// Paths of all files that a checkpoint refers to.
pub fn files_of_manifest(manifest: &CheckpointManifest) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for operator in &manifest.operators {
        for subtask in operator.subtasks.values() {
            files.extend(files_of_state(&subtask.state));
        }
    }
    files
}

/// Named absolutely: not in the job's own storage.
pub fn is_elsewhere(path: &str) -> bool {
    path.starts_with('/') || path.starts_with("file:") || path.contains("://")
}

pub fn files_of_state(state: &OperatorState) -> impl Iterator<Item = String> + '_ {
    state.keyed.iter().flat_map(|handle| handle.files.iter().map(|file| file.path.clone()))
}

/// Who refers to which file. A file may be deleted when its last holder lets go of it.
///
/// Relies on what tasks do: a file that a task's checkpoint leaves out never comes back in a later one of that task.
#[derive(Debug, Clone, Default)]
pub struct FileLedger {
    held: BTreeMap<CheckpointId, BTreeSet<String>>,
    holders: BTreeMap<String, u32>,
    /// Files of somebody else (a checkpoint the job was started from): never deleted.
    protected: BTreeSet<String>,
}

impl FileLedger {
    pub fn protect(&mut self, files: impl IntoIterator<Item = String>) {
        self.protected.extend(files);
    }

    /// The checkpoint, completed or in progress, refers to these files (and to those it already held).
    pub fn hold(&mut self, checkpoint: CheckpointId, files: impl IntoIterator<Item = String>) {
        let held = self.held.entry(checkpoint).or_default();
        for file in files {
            if held.insert(file.clone()) {
                *self.holders.entry(file).or_default() += 1;
            }
        }
    }

    pub fn knows(&self, checkpoint: CheckpointId) -> bool {
        self.held.contains_key(&checkpoint)
    }

    /// The checkpoint no longer refers to anything. Returns the files that nobody refers to any more.
    pub fn release(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        let mut free = Vec::new();
        for file in self.held.remove(&checkpoint).unwrap_or_default() {
            let Some(count) = self.holders.get_mut(&file) else { continue };
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&file);
                if !self.protected.contains(&file) {
                    free.push(file);
                }
            }
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(checkpoints: &[u64]) -> BTreeSet<u64> {
        checkpoints.iter().copied().collect()
    }

    #[test]
    fn r75_exactly_the_retained_number_stays() {
        assert_eq!(discards(&[4], &set(&[]), 1), [0u64; 0]);
        assert_eq!(discards(&[3, 4], &set(&[]), 1), [3]);
        assert_eq!(discards(&[1, 2, 3, 4], &set(&[]), 3), [1]);
        assert_eq!(discards(&[1, 2, 3, 4], &set(&[]), 0), [1, 2, 3], "one is always kept");
    }

    #[test]
    fn damaged_checkpoints_do_not_count_as_retained() {
        assert_eq!(discards(&[4, 5, 6], &set(&[5]), 2), [5]);
        assert_eq!(discards(&[3, 4, 5, 6], &set(&[5]), 2), [3, 5]);
        assert_eq!(discards(&[4, 5], &set(&[4, 5]), 1), [0u64; 0], "nothing usable: all stays for a person to look at");
    }

    #[test]
    fn r25_retention_matrix() {
        use EndState::{Canceled, Failed, Finished};
        use Retention::{DeleteOnCancellation, None, RetainOnCancellation};
        let matrix = [
            (None, Finished, false),
            (None, Canceled, false),
            (None, Failed, false),
            (DeleteOnCancellation, Finished, false),
            (DeleteOnCancellation, Canceled, false),
            (DeleteOnCancellation, Failed, true),
            (RetainOnCancellation, Finished, false),
            (RetainOnCancellation, Canceled, true),
            (RetainOnCancellation, Failed, true),
        ];
        for (retention, end, expected) in matrix {
            assert_eq!(outlives(retention, end), expected, "{retention:?} {end:?}");
        }
    }

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn r75_shared_files_go_with_their_last_holder() {
        let mut ledger = FileLedger::default();
        ledger.hold(1, files(&["base", "d1"]));
        ledger.hold(2, files(&["base", "d1", "d2"]));
        ledger.hold(3, files(&["base2"]));
        assert_eq!(ledger.release(1), files(&[]));
        assert_eq!(ledger.release(2), files(&["base", "d1", "d2"]));
        assert_eq!(ledger.release(2), files(&[]), "letting go twice frees nothing twice");
        assert_eq!(ledger.release(3), files(&["base2"]));
    }

    #[test]
    fn a_file_named_twice_by_one_checkpoint_is_held_once() {
        let mut ledger = FileLedger::default();
        ledger.hold(1, files(&["a", "a"]));
        ledger.hold(1, files(&["a"]));
        assert_eq!(ledger.release(1), files(&["a"]));
    }

    #[test]
    fn files_of_the_checkpoint_started_from_are_never_deleted() {
        let mut ledger = FileLedger::default();
        ledger.protect(files(&["theirs"]));
        ledger.hold(1, files(&["theirs", "ours"]));
        assert_eq!(ledger.release(1), files(&["ours"]));
    }
}
