//! The bookkeeping of a sink's two phases: what was closed at which barrier and waits for that checkpoint's journal
//! entry to become visible. Performs no commit itself; what is still open is the sink's own and is never stored.

use crate::ids::CheckpointId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stored commit that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read pending commit {index} of the sink's state: {reason}; it was written by another version of the sink, \
     and going on without it would lose the output that belongs to it"
)]
pub struct UnreadableCommit {
    pub index: usize,
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct StoredCommit<T> {
    checkpoint: CheckpointId,
    commit: T,
}

/// Pre-committed output (`T` names it: a file, a transaction) by the checkpoint it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCommits<T> {
    pending: BTreeMap<CheckpointId, Vec<T>>,
}

impl<T> Default for PendingCommits<T> {
    fn default() -> Self {
        PendingCommits { pending: BTreeMap::new() }
    }
}

impl<T> PendingCommits<T> {
    /// The output was flushed and closed in front of the checkpoint's barrier. Nothing of it may be visible yet.
    pub fn pre_commit(&mut self, checkpoint: CheckpointId, commit: T) {
        self.pending.entry(checkpoint).or_default().push(commit);
    }

    /// Commits what belongs to the completed checkpoint and to all before it, oldest first, and returns how many.
    ///
    /// An aborted checkpoint needs no call: its output stays and goes out with the next success. `commit` must be
    /// idempotent, since it is repeated after a failure.
    ///
    /// # Errors
    /// The first error of `commit`, after all were tried; what failed stays pending.
    pub fn commit_through<E>(
        &mut self,
        completed: CheckpointId,
        mut commit: impl FnMut(CheckpointId, &T) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut committed = 0;
        let mut first_error = None;
        for (checkpoint, commits) in self.pending.range_mut(..=completed) {
            commits.retain(|item| match commit(*checkpoint, item) {
                Ok(()) => {
                    committed += 1;
                    false
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                    true
                }
            });
        }
        self.pending.retain(|_, commits| !commits.is_empty());
        match first_error {
            Some(error) => Err(error),
            None => Ok(committed),
        }
    }

    /// Commits everything: after a restore all that the state holds belongs to a journaled checkpoint.
    ///
    /// # Errors
    /// As `commit_through`.
    pub fn commit_restored<E>(&mut self, commit: impl FnMut(CheckpointId, &T) -> Result<(), E>) -> Result<usize, E> {
        self.commit_through(CheckpointId::MAX, commit)
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (CheckpointId, &T)> {
        self.pending.iter().flat_map(|(checkpoint, commits)| commits.iter().map(move |commit| (*checkpoint, commit)))
    }
}

impl<T: Serialize> PendingCommits<T> {
    /// The entries of the sink's list state.
    ///
    /// # Errors
    /// `T` has no JSON form.
    pub fn to_entries(&self) -> Result<Vec<serde_json::Value>, serde_json::Error> {
        self.iter().map(|(checkpoint, commit)| serde_json::to_value(StoredCommit { checkpoint, commit })).collect()
    }
}

impl<T: DeserializeOwned> PendingCommits<T> {
    /// From entries of any number of former subtasks; to be followed by `commit_restored` before anything is written.
    ///
    /// # Errors
    /// An entry does not hold what `to_entries` writes.
    pub fn from_entries(entries: &[serde_json::Value]) -> Result<Self, UnreadableCommit> {
        let mut commits = PendingCommits::default();
        for (index, entry) in entries.iter().enumerate() {
            let stored = StoredCommit::<T>::deserialize(entry)
                .map_err(|error| UnreadableCommit { index, reason: error.to_string() })?;
            commits.pre_commit(stored.checkpoint, stored.commit);
        }
        Ok(commits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    /// A sink of numbered rows: everything between two barriers is one transaction.
    #[derive(Default)]
    struct Sink {
        open: Vec<u32>,
        commits: PendingCommits<Vec<u32>>,
    }

    /// What lives through a crash of the sink.
    #[derive(Default)]
    struct World {
        visible: BTreeSet<Vec<u32>>,
        /// Source position and sink state of the newest journaled checkpoint.
        journaled: (u32, Vec<serde_json::Value>),
    }

    impl World {
        fn commit(&mut self, rows: &[u32]) {
            // Idempotent: the transaction's name is its content here.
            self.visible.insert(rows.to_vec());
        }

        fn rows(&self) -> Vec<u32> {
            let mut rows: Vec<u32> = self.visible.iter().flatten().copied().collect();
            rows.sort_unstable();
            rows
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum CrashPoint {
        BeforePreCommit,
        AfterPreCommitBeforeAck,
        AfterAcksBeforeJournal,
        AfterJournalBeforeNotify,
        AfterNotifyBeforeCommit,
        MidCommit,
        AfterCommitBeforeNextState,
    }

    const ROWS: u32 = 12;

    /// Six rows an epoch; crashes once, in epoch `epoch`, at `point`; an earlier checkpoint may have been aborted.
    fn run(point: CrashPoint, epoch: u64, abort_first: bool) -> World {
        let mut world = World::default();
        let mut crash = Some((epoch, point));
        'restart: loop {
            let (mut position, entries) = world.journaled.clone();
            let mut sink = Sink { open: Vec::new(), commits: PendingCommits::from_entries(&entries).unwrap() };
            sink.commits
                .commit_restored(|_, rows| {
                    world.commit(rows);
                    Ok::<_, Infallible>(())
                })
                .unwrap();
            while position < ROWS {
                let checkpoint = u64::from(position) / 3 + 1;
                let mut crash_here = |at: CrashPoint| {
                    let now = crash == Some((checkpoint, at));
                    if now {
                        crash = None;
                    }
                    now
                };
                for _ in 0..3 {
                    sink.open.push(position);
                    position += 1;
                }
                if crash_here(CrashPoint::BeforePreCommit) {
                    continue 'restart;
                }
                // Two files a checkpoint, so that a commit can break off between them.
                let rows = std::mem::take(&mut sink.open);
                sink.commits.pre_commit(checkpoint, rows[..1].to_vec());
                sink.commits.pre_commit(checkpoint, rows[1..].to_vec());
                if crash_here(CrashPoint::AfterPreCommitBeforeAck) {
                    continue 'restart;
                }
                let acknowledged = (position, sink.commits.to_entries().unwrap());
                if crash_here(CrashPoint::AfterAcksBeforeJournal) {
                    continue 'restart;
                }
                if abort_first && checkpoint == 1 {
                    continue;
                }
                world.journaled = acknowledged;
                if crash_here(CrashPoint::AfterJournalBeforeNotify) {
                    continue 'restart;
                }
                if crash_here(CrashPoint::AfterNotifyBeforeCommit) {
                    continue 'restart;
                }
                let break_off = crash_here(CrashPoint::MidCommit);
                let mut commits = 0;
                let result = sink.commits.commit_through(checkpoint, |_, rows| {
                    commits += 1;
                    if break_off && commits > 1 {
                        return Err("killed");
                    }
                    world.commit(rows);
                    Ok(())
                });
                if result.is_err() || crash_here(CrashPoint::AfterCommitBeforeNextState) {
                    continue 'restart;
                }
            }
            return world;
        }
    }

    #[test]
    fn r63_a_crash_at_any_of_the_seven_points_leaves_every_row_exactly_once() {
        use CrashPoint::*;
        let points = [
            BeforePreCommit,
            AfterPreCommitBeforeAck,
            AfterAcksBeforeJournal,
            AfterJournalBeforeNotify,
            AfterNotifyBeforeCommit,
            MidCommit,
            AfterCommitBeforeNextState,
        ];
        for point in points {
            for epoch in 1..=4 {
                for abort_first in [false, true] {
                    let rows = run(point, epoch, abort_first).rows();
                    assert_eq!(rows, (0..ROWS).collect::<Vec<_>>(), "{point:?} in epoch {epoch}, abort {abort_first}");
                }
            }
        }
    }

    #[test]
    fn r61_nothing_is_due_before_its_checkpoint_and_the_oldest_goes_first() {
        let mut commits = PendingCommits::default();
        commits.pre_commit(3, "c");
        commits.pre_commit(1, "a");
        commits.pre_commit(2, "b");
        let mut order = Vec::new();
        let mut record = |checkpoint: CheckpointId, item: &&'static str| -> Result<(), Infallible> {
            order.push((checkpoint, *item));
            Ok(())
        };
        assert_eq!(commits.commit_through(0, &mut record), Ok(0));
        assert_eq!(commits.commit_through(2, &mut record), Ok(2));
        assert_eq!(commits.commit_through(2, &mut record), Ok(0));
        assert_eq!(commits.commit_through(3, &mut record), Ok(1));
        assert_eq!(order, vec![(1, "a"), (2, "b"), (3, "c")]);
        assert!(commits.is_empty());
    }

    #[test]
    fn a_failed_commit_stays_and_does_not_hold_up_the_others() {
        let mut commits = PendingCommits::default();
        for checkpoint in 1..=3 {
            commits.pre_commit(checkpoint, checkpoint);
        }
        let result = commits.commit_through(3, |_, item| if *item == 2 { Err("no space left") } else { Ok(()) });
        assert_eq!(result, Err("no space left"));
        assert_eq!(commits.iter().collect::<Vec<_>>(), vec![(2, &2)]);
    }

    #[test]
    fn entries_of_several_subtasks_merge_and_damage_is_named() {
        let mut left = PendingCommits::default();
        left.pre_commit(1, "left".to_string());
        let mut right = PendingCommits::default();
        right.pre_commit(1, "right".to_string());
        let mut entries = left.to_entries().unwrap();
        entries.extend(right.to_entries().unwrap());
        let merged = PendingCommits::<String>::from_entries(&entries).unwrap();
        assert_eq!(merged.iter().count(), 2);
        entries.push(serde_json::json!({"checkpoint": 1}));
        let error = PendingCommits::<String>::from_entries(&entries).unwrap_err();
        assert_eq!(error.index, 2);
    }
}
