//! Making finished files visible: names, renaming, and removing what dead attempts and undone checkpoints left.
//!
//! While a file is written it is called `.part-<owner>-<subtask>-<attempt>-<n>.inprogress`, where `owner` stands for the
//! job and the operator; readers ignore such names. The commit renames it to
//! `part-<history>-<checkpoint>-<subtask>-<attempt>-<n>`, where `history` stands for the owner and the start from nothing
//! that all its states descend from.

use crate::error::ConnectorError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use streamjob_dataflow::OperatorContext;
use xxhash_rust::xxh3::xxh3_64;

const IN_PROGRESS: &str = ".inprogress";

/// A file that is complete and on disk, and not visible yet. Names are relative to the sink's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingFile {
    pub temporary: String,
    pub target: String,
    /// Which subtask wrote it.
    pub subtask: u32,
}

/// Whose files a sink may touch.
#[derive(Debug, Clone)]
pub(super) struct FileNames {
    owner: String,
    /// Starts from nothing that the restored state descends from; new files are named after the first.
    runs: BTreeSet<String>,
    subtask: u32,
    parallelism: u32,
    attempt: String,
    next: u64,
}

fn digest(parts: &[&str]) -> String {
    format!("{:016x}", xxh3_64(parts.join("/").as_bytes()))
}

impl FileNames {
    /// `runs` is empty for a start from nothing.
    pub fn new(context: &OperatorContext, runs: BTreeSet<String>) -> Self {
        let attempt = digest(&[&context.attempt]);
        let runs = if runs.is_empty() { BTreeSet::from([attempt.clone()]) } else { runs };
        FileNames {
            owner: digest(&[&context.job_id, &context.uid]),
            runs,
            subtask: context.subtask,
            parallelism: context.parallelism,
            attempt,
            next: 0,
        }
    }

    /// What this subtask writes into its state, for `runs` of its successors.
    pub fn run(&self) -> &str {
        self.runs.first().map(String::as_str).unwrap_or_default()
    }

    /// The name of a new file while it is written.
    pub fn next_file(&mut self) -> String {
        let FileNames { owner, subtask, attempt, next, .. } = self;
        let name = format!(".part-{owner}-{subtask}-{attempt}-{next}{IN_PROGRESS}");
        *next += 1;
        name
    }

    /// A closed file on its way into a checkpoint.
    pub fn pending(&self, temporary: String, checkpoint: u64) -> PendingFile {
        let prefix = format!(".part-{}-", self.owner);
        let place = temporary.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(IN_PROGRESS)).unwrap_or_default();
        let history = digest(&[&self.owner, self.run()]);
        PendingFile { target: format!("part-{history}-{checkpoint}-{place}"), temporary, subtask: self.subtask }
    }

    /// This subtask answers for its own files, and for those of former subtasks that do not exist any more.
    pub fn answers_for(&self, subtask: u32) -> bool {
        subtask % self.parallelism == self.subtask
    }

    /// An unfinished file of this job and operator, of a former attempt of a subtask this one answers for.
    fn is_left_over(&self, name: &str) -> bool {
        let Some(name) = name.strip_suffix(IN_PROGRESS) else { return false };
        match name.split('-').collect::<Vec<_>>()[..] {
            [".part", owner, subtask, attempt, _] if owner == self.owner && attempt != self.attempt => {
                subtask.parse().is_ok_and(|subtask| self.answers_for(subtask))
            }
            _ => false,
        }
    }

    /// A visible file of this job's and operator's own history, after the checkpoint that this history goes on from.
    fn is_undone(&self, name: &str, restored: u64) -> bool {
        match name.split('-').collect::<Vec<_>>()[..] {
            ["part", history, checkpoint, subtask, _, _] => {
                self.runs.iter().any(|run| digest(&[&self.owner, run]) == history)
                    && checkpoint.parse::<u64>().is_ok_and(|checkpoint| checkpoint > restored)
                    && subtask.parse().is_ok_and(|subtask| self.answers_for(subtask))
            }
            _ => false,
        }
    }
}

/// Makes a pending file visible. Repeating it is harmless.
///
/// # Errors
/// Neither the file nor its target exists, or both do.
pub(super) fn commit(directory: &Path, file: &PendingFile) -> Result<(), ConnectorError> {
    let temporary = directory.join(&file.temporary);
    let target = directory.join(&file.target);
    let exists = |path: &Path| path.try_exists().map_err(ConnectorError::io("looking at", path));
    match (exists(&temporary)?, exists(&target)?) {
        (true, false) => fs::rename(&temporary, &target).map_err(ConnectorError::io("renaming", &temporary)),
        (false, true) => Ok(()),
        (false, false) => Err(ConnectorError::CommitLost { temporary, target }),
        (true, true) => Err(ConnectorError::CommitConflict { temporary, target }),
    }
}

/// Renames and new names survive a power failure only after this.
pub(super) fn sync_directory(directory: &Path) -> Result<(), ConnectorError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(ConnectorError::io("syncing directory", directory))
}

/// How many files `sweep` removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub unfinished: usize,
    pub undone: usize,
}

/// Removes what belongs to no checkpoint that counts, of this very job, operator and subtask only:
/// - unfinished files of dead attempts, except those in `pending`, which must hold what all subtasks restored;
/// - visible files of checkpoints after the restored one. They exist when a newer checkpoint was damaged and an older one is
///   used: their rows come again.
pub(super) fn sweep(
    directory: &Path,
    names: &FileNames,
    pending: &BTreeSet<String>,
    restored: Option<u64>,
) -> Result<Swept, ConnectorError> {
    let mut swept = Swept::default();
    for entry in fs::read_dir(directory).map_err(ConnectorError::io("listing", directory))? {
        let entry = entry.map_err(ConnectorError::io("listing", directory))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let count = if names.is_left_over(&name) && !pending.contains(&name) {
            &mut swept.unfinished
        } else if restored.is_some_and(|restored| names.is_undone(&name, restored)) {
            &mut swept.undone
        } else {
            continue;
        };
        match fs::remove_file(entry.path()) {
            Ok(()) => *count += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(ConnectorError::io("removing", entry.path())(error)),
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    fn fresh(context: &OperatorContext) -> FileNames {
        FileNames::new(context, BTreeSet::new())
    }

    fn others() -> [OperatorContext; 2] {
        let (mut operator, mut job) = (context(1, 4), context(1, 4));
        operator.uid = "other".into();
        job.job_id = "other".into();
        [operator, job]
    }

    #[test]
    fn only_files_of_dead_attempts_of_the_same_subtask_are_left_over() {
        let mut old = fresh(&context(1, 4));
        let names = fresh(&context(1, 4));
        let temporary = old.next_file();
        assert!(names.is_left_over(&temporary));
        assert!(!old.is_left_over(&temporary), "its own");
        assert!(!fresh(&context(2, 4)).is_left_over(&temporary), "a sibling's");
        for other in others() {
            assert!(!fresh(&other).is_left_over(&temporary));
        }
        // After scaling down somebody answers for every former subtask.
        let former = fresh(&context(3, 4)).next_file();
        assert!(fresh(&context(1, 2)).is_left_over(&former));
        assert!(!fresh(&context(0, 2)).is_left_over(&former));
        assert!(!names.is_left_over("part-1") && !names.is_left_over(".inprogress"));
    }

    #[test]
    fn only_later_files_of_the_same_history_are_undone() {
        let mut old = fresh(&context(1, 4));
        let temporary = old.next_file();
        let file = old.pending(temporary, 7);
        let runs = BTreeSet::from([old.run().to_string(), "zzz".to_string()]);
        let names = FileNames::new(&context(1, 4), runs.clone());
        assert!(names.is_undone(&file.target, 6));
        assert!(!names.is_undone(&file.target, 7));
        assert!(!FileNames::new(&context(2, 4), runs.clone()).is_undone(&file.target, 6), "a sibling's");
        assert!(!fresh(&context(1, 4)).is_undone(&file.target, 6), "another start from nothing");
        for other in others() {
            assert!(!FileNames::new(&other, runs.clone()).is_undone(&file.target, 6), "a copy of the job");
        }
    }
}
