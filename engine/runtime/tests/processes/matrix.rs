//! What can be restored into what: every kind of state, from a checkpoint and from a savepoint, at the same, a higher and a
//! lower parallelism. A job is interrupted in the middle and goes on as another job; what both have written together has
//! to be what an uninterrupted run writes. Also who owns a snapshot afterwards, and state that nobody takes.

mod operators;
mod outside;
mod table;

use crate::cluster::{Cluster, FINISHED, JOB, config};
use operators::{Kind, ROWS, SPLITS, graph};
use outside::{Given, Ledger, Rows, Run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use streamjob_api::config::{JobConfig, RestartStrategy, RestoreConfig, RestoreSource};
use streamjob_protocol::manifest::{
    CheckpointManifest, ListStateHandle, ManifestKind, OperatorManifest, Redistribution,
};
use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The latest one of a cancelled job.
    Checkpoint,
    /// The one that a job was stopped with.
    Savepoint,
}

/// Parallelism before and after.
type Change = (u32, u32);

const SAME: Change = (2, 2);
const UP: Change = (2, 3);
const DOWN: Change = (3, 2);
/// Rows that a held job reads before it is interrupted; it stops reading well before the end.
const ENOUGH: u64 = (SPLITS * ROWS / 3) as u64;

/// Whatever fails, fails the test.
fn strict(directory: &Path, parallelism: u32) -> JobConfig {
    JobConfig { restart: RestartStrategy::None, ..config(directory, parallelism, Some(20)) }
}

fn restoring(directory: &Path, parallelism: u32, snapshot: &Snapshot, claim: bool) -> JobConfig {
    let restore_from =
        Some(RestoreConfig { source: RestoreSource::Path(snapshot.directory.display().to_string()), claim });
    JobConfig { restore_from, ..strict(directory, parallelism) }
}

/// A checkpoint or savepoint of a job that is over.
struct Snapshot {
    directory: PathBuf,
    manifest: CheckpointManifest,
}

impl Snapshot {
    fn at(directory: PathBuf) -> Snapshot {
        let text = std::fs::read_to_string(directory.join("_metadata")).unwrap();
        let (_, json) = text.split_once('\n').unwrap();
        Snapshot { directory, manifest: serde_json::from_str(json).unwrap() }
    }

    fn latest_checkpoint(storage: &Path) -> Snapshot {
        let job = storage.join(JOB);
        let latest =
            (1..1_000).rev().map(|id| job.join(format!("chk-{id}"))).find(|chk| chk.join("_metadata").is_file());
        Snapshot::at(latest.expect("a retained checkpoint"))
    }

    /// Every file that the manifest names, and the manifest.
    fn files(&self) -> Vec<PathBuf> {
        let base = match self.manifest.kind {
            ManifestKind::Savepoint => self.directory.as_path(),
            ManifestKind::Checkpoint => self.directory.parent().unwrap(),
        };
        let states = self.manifest.operators.iter().flat_map(|operator| operator.subtasks.values());
        let files = states.flat_map(|subtask| &subtask.state.keyed).flat_map(|handle| &handle.files);
        files.map(|file| base.join(&file.path)).chain([self.directory.join("_metadata")]).collect()
    }

    fn operator(&self, uid: &str) -> &OperatorManifest {
        self.manifest.operators.iter().find(|operator| operator.uid == uid).expect("the operator")
    }
}

/// Runs a job up to its middle and ends it there.
fn interrupted(storage: &Path, kind: Kind, parallelism: u32, run: &Run, from: From) -> Snapshot {
    interrupt(Cluster::start(strict(storage, parallelism), graph(kind, parallelism, run)), storage, run, from)
}

fn interrupt(cluster: Cluster, storage: &Path, run: &Run, from: From) -> Snapshot {
    cluster.eventually("rows to be read", || (run.rows_read() >= ENOUGH).then_some(()));
    // Several, so that there are changes to earlier ones in what is restored.
    cluster.await_checkpoints(3);
    let snapshot = match from {
        From::Checkpoint => {
            cluster.cancel();
            Snapshot::latest_checkpoint(storage)
        }
        From::Savepoint => Snapshot::at(cluster.stop_with_savepoint(&storage.join("savepoints")).into()),
    };
    let kind = match from {
        From::Checkpoint => ManifestKind::Checkpoint,
        From::Savepoint => ManifestKind::Savepoint,
    };
    assert_eq!(snapshot.manifest.kind, kind);
    snapshot
}

/// What the job writes when nothing happens to it.
fn uninterrupted(kind: Kind) -> &'static Rows {
    static RESULTS: [OnceLock<Rows>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
    let index = Kind::ALL.iter().position(|other| *other == kind).unwrap();
    RESULTS[index].get_or_init(|| {
        let storage = TempDir::new().unwrap();
        let run = Run::new(&Ledger::default(), false);
        assert_eq!(Cluster::start(strict(storage.path(), 2), graph(kind, 2, &run)).end(), FINISHED);
        let visible = run.ledger.visible();
        assert_eq!(visible, kind.expected(), "{kind:?} without any interruption");
        visible
    })
}

fn cell(kind: Kind, from: From, (before, after): Change) {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let run = Run::new(&Ledger::default(), true);
    // Nothing is pending in a snapshot unless the sink dies before it commits.
    let run = if kind == Kind::Pending { run.without_commits() } else { run };
    let snapshot = interrupted(first.path(), kind, before, &run, from);
    keeps_something(kind, &snapshot);

    let resumed = Run::new(&run.ledger, false);
    let config = restoring(second.path(), after, &snapshot, false);
    assert_eq!(Cluster::start(config, graph(kind, after, &resumed)).end(), FINISHED);
    is_given_out(kind, &snapshot, &resumed, before, after);
    assert_eq!(&run.ledger.visible(), uninterrupted(kind), "{kind:?} {before} -> {after} from {from:?}");
}

/// The cell would show nothing if the state were empty, or all in one subtask.
fn keeps_something(kind: Kind, snapshot: &Snapshot) {
    let (uid, state) = kind.state();
    for (subtask, stored) in &snapshot.operator(uid).subtasks {
        let entries = stored.state.lists.iter().filter(|list| list.name == state).any(|list| !list.entries.is_empty());
        let files = stored.state.keyed.iter().filter(|table| table.name == state).any(|table| !table.files.is_empty());
        assert!(entries || files, "subtask {subtask} of {uid} has no {state}");
    }
}

/// Every operator was opened once in each subtask, on the snapshot, with its part of every list as the manifest has them.
fn is_given_out(kind: Kind, snapshot: &Snapshot, run: &Run, before: u32, after: u32) {
    let mut given: BTreeMap<String, BTreeMap<u32, Given>> = BTreeMap::new();
    for part in run.given() {
        assert_eq!(part.checkpoint, Some(snapshot.manifest.checkpoint), "{part:?}");
        let twice = given.entry(part.uid.clone()).or_default().insert(part.subtask, part);
        assert!(twice.is_none(), "opened twice: {twice:?}");
    }
    for (uid, parts) in &given {
        assert_eq!(parts.keys().copied().collect::<Vec<_>>(), (0..after).collect::<Vec<_>>(), "{uid}");
        let mut lists: BTreeMap<&str, (Redistribution, BTreeMap<u32, &ListStateHandle>)> = BTreeMap::new();
        for (subtask, stored) in &snapshot.operator(uid).subtasks {
            for list in &stored.state.lists {
                lists.entry(&list.name).or_insert((list.redistribution, BTreeMap::new())).1.insert(*subtask, list);
            }
        }
        for (name, (redistribution, old)) in lists {
            let old: Vec<Vec<Value>> = old.into_values().map(|list| list.entries.clone()).collect();
            let new: Vec<Vec<Value>> =
                parts.values().map(|part| part.lists.get(name).cloned().unwrap_or_default()).collect();
            assert_eq!(old.len(), before as usize);
            list_is_given_out(redistribution, &old, &new, &format!("{uid}: {name}"));
        }
    }
    let (uid, state) = kind.state();
    let rows: usize = given[uid].values().filter_map(|part| part.keyed.get(state)).sum();
    assert_eq!(rows > 0, matches!(kind, Kind::Keyed | Kind::Timers), "rows of {state}");
}

fn list_is_given_out(redistribution: Redistribution, old: &[Vec<Value>], new: &[Vec<Value>], what: &str) {
    match redistribution {
        Redistribution::Split if old.len() == new.len() => assert_eq!(new, old, "{what}"),
        Redistribution::Split => {
            assert_eq!(new.concat(), old.concat(), "{what}");
            let sizes: BTreeSet<usize> = new.iter().map(Vec::len).collect();
            let (smallest, largest) = (sizes.first().unwrap(), sizes.last().unwrap());
            assert!(largest - smallest <= 1, "{what}: uneven {sizes:?}");
        }
        Redistribution::Union => new.iter().for_each(|entries| assert_eq!(entries, &old.concat(), "{what}")),
        Redistribution::Broadcast => {
            for (subtask, entries) in new.iter().enumerate() {
                assert_eq!(entries, &old[subtask % old.len()], "{what}: subtask {subtask}");
            }
        }
    }
}

/// The cells of one kind of state.
macro_rules! cells {
    ($($module:ident: $kind:ident;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn r54_r55_from_a_checkpoint_at_the_same_parallelism() {
                cell(Kind::$kind, From::Checkpoint, SAME);
            }

            #[test]
            fn r54_r55_from_a_checkpoint_at_a_higher_parallelism() {
                cell(Kind::$kind, From::Checkpoint, UP);
            }

            #[test]
            fn r54_r55_from_a_checkpoint_at_a_lower_parallelism() {
                cell(Kind::$kind, From::Checkpoint, DOWN);
            }

            #[test]
            fn r54_r55_from_a_savepoint_at_the_same_parallelism() {
                cell(Kind::$kind, From::Savepoint, SAME);
            }

            #[test]
            fn r54_r55_from_a_savepoint_at_a_higher_parallelism() {
                cell(Kind::$kind, From::Savepoint, UP);
            }

            #[test]
            fn r54_r55_from_a_savepoint_at_a_lower_parallelism() {
                cell(Kind::$kind, From::Savepoint, DOWN);
            }
        }
    )*};
}

cells! {
    keyed_state: Keyed;
    list_state_split: ListSplit;
    list_state_union: ListUnion;
    broadcast_state: Broadcast;
    timers: Timers;
    pending_transactions: Pending;
}

/// Every file below a directory, with its content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// Not the job's: it is only read, and the job's first checkpoint stands by itself.
fn unclaimed(from: From) {
    let (kind, (before, after)) = (Kind::Timers, SAME);
    let [first, second, third] = [(); 3].map(|()| TempDir::new().unwrap());
    let run = Run::new(&Ledger::default(), true);
    let snapshot = interrupted(first.path(), kind, before, &run, from);
    let untouched = content(first.path());

    let resumed = Run::new(&run.ledger, true);
    let config = restoring(second.path(), after, &snapshot, false);
    let cluster = Cluster::start(config, graph(kind, after, &resumed));
    cluster.await_checkpoints(4);
    assert!(content(first.path()) == untouched, "something below {} changed", first.path().display());
    drop(first);
    cluster.cancel();

    let last = Run::new(&run.ledger, false);
    let config = restoring(third.path(), after, &Snapshot::latest_checkpoint(second.path()), false);
    assert_eq!(Cluster::start(config, graph(kind, after, &last)).end(), FINISHED);
    assert_eq!(&run.ledger.visible(), uninterrupted(kind));
}

/// The job's own from now on: it goes when the job's own checkpoints have replaced it.
fn claimed(from: From) {
    let (kind, (before, after)) = (Kind::Timers, SAME);
    let [first, second] = [(); 2].map(|()| TempDir::new().unwrap());
    let run = Run::new(&Ledger::default(), true);
    let snapshot = interrupted(first.path(), kind, before, &run, from);
    assert!(snapshot.files().len() > 1 && snapshot.files().iter().all(|file| file.is_file()));

    let resumed = Run::new(&run.ledger, true);
    let config = restoring(second.path(), after, &snapshot, true);
    let cluster = Cluster::start(config, graph(kind, after, &resumed));
    cluster
        .eventually("the end of what was claimed", || snapshot.files().iter().all(|file| !file.exists()).then_some(()));
    resumed.release();
    assert_eq!(cluster.end(), FINISHED);
    assert_eq!(&run.ledger.visible(), uninterrupted(kind));
}

#[test]
fn r55_an_unclaimed_checkpoint_is_never_touched_and_soon_not_needed() {
    unclaimed(From::Checkpoint);
}

#[test]
fn r55_an_unclaimed_savepoint_is_never_touched_and_soon_not_needed() {
    unclaimed(From::Savepoint);
}

#[test]
fn r55_a_claimed_checkpoint_goes_when_the_job_has_its_own() {
    claimed(From::Checkpoint);
}

#[test]
fn r55_a_claimed_savepoint_goes_when_the_job_has_its_own() {
    claimed(From::Savepoint);
}

/// A job that has no operator for the sums: nothing starts, unless it may leave them behind.
fn left_behind(from: From) {
    let [first, refused, allowed, whole] = [(); 4].map(|()| TempDir::new().unwrap());
    let run = Run::new(&Ledger::default(), true);
    let snapshot = interrupted(first.path(), Kind::Keyed, 2, &run, from);
    assert_eq!(run.ledger.visible(), Rows::new(), "sums are shown at the end only");
    let without_sums = Kind::Pending;

    let nothing = Run::new(&run.ledger, false);
    let config = restoring(refused.path(), 2, &snapshot, false);
    let reason = Cluster::refused(config, graph(without_sums, 2, &nothing));
    assert!(reason.contains("for operator sums") && reason.contains("allowNonRestoredState"), "{reason}");
    assert!(nothing.given().is_empty(), "no task was to start");

    // It is left as it was: the job that has a place for the sums gets them. Its results are nobody's but its own.
    let again = Run::new(&Ledger::default(), false);
    let config = restoring(whole.path(), 2, &snapshot, false);
    assert_eq!(Cluster::start(config, graph(Kind::Keyed, 2, &again)).end(), FINISHED);
    assert_eq!(&again.ledger.visible(), uninterrupted(Kind::Keyed));

    let rest = Run::new(&run.ledger, false);
    let config = JobConfig { allow_non_restored_state: true, ..restoring(allowed.path(), 2, &snapshot, false) };
    assert_eq!(Cluster::start(config, graph(without_sums, 2, &rest)).end(), FINISHED);
    let positions = snapshot.operator("numbers").subtasks.values().flat_map(|subtask| &subtask.state.lists);
    let positions = positions.flat_map(|list| &list.entries);
    let unread: Rows = positions
        .map(|entry| serde_json::from_value::<(i64, i64)>(entry.clone()).unwrap())
        .flat_map(|(split, next)| (next..ROWS).map(move |n| (vec![split, n], 1)))
        .collect();
    assert_eq!(run.ledger.visible(), unread, "the sources go on where they were");
}

#[test]
fn r52_state_of_a_checkpoint_that_nobody_takes_is_an_error_unless_it_may_be_dropped() {
    left_behind(From::Checkpoint);
}

#[test]
fn r52_state_of_a_savepoint_that_nobody_takes_is_an_error_unless_it_may_be_dropped() {
    left_behind(From::Savepoint);
}
