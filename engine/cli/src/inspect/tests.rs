//! Reports of a storage that the test fills itself.

use super::*;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_protocol::journal::JournalEntry;
use streamjob_protocol::manifest::{
    FileRef, KeyedStateHandle, ListStateHandle, MANIFEST_VERSION, OperatorManifest, OperatorState, SubtaskManifest,
};
use streamjob_state::{KeyedDelta, snapshot};

const JOB: &str = "0123456789abcdef0123456789abcdef";
const GROUPS: KeyGroupRange = KeyGroupRange { first: 0, last: 127 };

fn delta(rows: &[(&str, i64)], deleted: Option<Vec<bool>>, full: bool) -> KeyedDelta {
    let users: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(user, _)| user)));
    let visits: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, visits)| *visits)));
    KeyedDelta {
        name: "visits".into(),
        full,
        key_columns: 1,
        rows: RecordBatch::try_from_iter([("user", users), ("visits", visits)]).unwrap(),
        key_groups: rows.iter().map(|(user, _)| user.len() as u16).collect(),
        deleted: deleted.map(BooleanArray::from),
    }
}

fn manifest(checkpoint: u64, files: Vec<FileRef>) -> CheckpointManifest {
    let keyed = vec![KeyedStateHandle {
        name: "visits".into(),
        schema: "user Utf8 KEY, visits Int64".into(),
        key_groups: GROUPS,
        files,
    }];
    let lists = vec![ListStateHandle {
        name: "position".into(),
        redistribution: Redistribution::Split,
        entries: vec![serde_json::json!({ "offset": 7 })],
    }];
    let state = OperatorState { keyed, lists };
    CheckpointManifest {
        version: MANIFEST_VERSION,
        kind: Default::default(),
        checkpoint,
        job_id: JOB.into(),
        job_name: "clicks".into(),
        triggered_at: 1_000,
        completed_at: 1_250,
        key_hash: "xxh3-1".into(),
        max_parallelism: 128,
        operators: vec![OperatorManifest {
            uid: "sink/group-1".into(),
            name: "GroupAggregate".into(),
            parallelism: 1,
            subtasks: BTreeMap::from([(0, SubtaskManifest { finished: false, state })]),
        }],
        stats: Vec::new(),
    }
}

struct Filled {
    place: tempfile::TempDir,
    files: Vec<FileRef>,
}

/// Two checkpoints of one table: a base of three rows, and a delta that changes one, removes one and adds one.
async fn fill() -> Filled {
    let place = tempfile::tempdir().unwrap();
    let storage = open(place.path());
    let base = delta(&[("Mary", 1), ("Bob", 2), ("Cary", 3)], None, true);
    let change = delta(&[("Mary", 5), ("Bob", 0), ("Alice", 4)], Some(vec![false, true, false]), false);
    let mut files = Vec::new();
    for (name, delta) in [("shared/base.arrow", base), ("shared/change.arrow", change)] {
        let bytes =
            snapshot::in_memory(|out| snapshot::encode(&delta, GROUPS, snapshot::Compression::None, out)).unwrap();
        files.push(storage.put(name, bytes).await.unwrap());
    }
    let claimed = JournalEntry::Claimed { revision: 3, claimant: "c".into(), at: 0 };
    storage.append_journal(1, &claimed).await;
    for checkpoint in [1u64, 2] {
        let manifest = manifest(checkpoint, files[..checkpoint as usize].to_vec());
        let manifest_checksum = storage.write_manifest(&manifest).await.unwrap();
        storage.append_journal(checkpoint + 1, &JournalEntry::Completed { checkpoint, manifest_checksum, at: 0 }).await;
    }
    storage.put("chk-3/leftover", bytes::Bytes::from_static(b"x")).await.unwrap();
    Filled { place, files }
}

fn open(path: &Path) -> Storage {
    Storage::open(&StorageConfig::Directory { path: path.to_string_lossy().into_owned() }, JOB).unwrap()
}

#[tokio::test]
async fn lists_checkpoints_and_counts_rows_of_bases_and_deltas() {
    let filled = fill().await;
    let mut inspection = inspect(open(filled.place.path()), JOB).await.unwrap();
    assert_eq!(inspection.report.damaged, Vec::<String>::new());
    assert_eq!(inspection.report.unfinished, [3]);
    assert_eq!(inspection.report.revision, 3);
    assert_eq!(inspection.newest_whole(), Some(2));
    for (id, rows) in [(1u64, 3), (2, 3)] {
        inspection.describe_operators(id);
        let checkpoint = &inspection.report.checkpoints[id as usize - 1];
        let table = &checkpoint.operators.as_ref().unwrap()[0].tables[0];
        assert_eq!((table.rows, table.files, checkpoint.duration_ms), (Some(rows), id as usize, Some(250)));
    }
    let text = text(&inspection.report);
    for expected in
        ["clicks (0123", "revision 3", "table visits, subtask 0: 3 rows, key groups 0-127", "uid sink/group-1"]
    {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(text.contains("list position, subtask 0: {\"offset\":7}"), "{text}");
}

#[tokio::test]
async fn state_is_what_base_and_deltas_add_up_to() {
    let filled = fill().await;
    let inspection = inspect(open(filled.place.path()), JOB).await.unwrap();
    let lines = |id: u64, state: &str| {
        let lines = state_rows::lines(inspection.manifest(id).unwrap(), &inspection.files, state).unwrap();
        let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let row = |user: &str, visits: i64| {
        format!("{{\"table\":\"visits\",\"subtask\":0,\"row\":{{\"user\":\"{user}\",\"visits\":{visits}}}}}")
    };
    assert_eq!(lines(1, "sink/group-1/visits"), [row("Bob", 2), row("Cary", 3), row("Mary", 1)]);
    assert_eq!(lines(2, "sink/group-1/visits"), [row("Alice", 4), row("Cary", 3), row("Mary", 5)]);
    let all = lines(1, "sink/group-1");
    assert_eq!(all.len(), 4);
    assert_eq!(all[0], "{\"list\":\"position\",\"subtask\":0,\"entry\":{\"offset\":7}}");
    for (state, expected) in [
        ("nothing", "no operator has the uid nothing; there are: sink/group-1"),
        ("sink/group-1/x", "operator sink/group-1 has no table x; it has: visits"),
    ] {
        let error = state_rows::lines(inspection.manifest(1).unwrap(), &inspection.files, state).unwrap_err();
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn damage_is_named_and_the_older_checkpoint_is_whole() {
    let filled = fill().await;
    let file = filled.place.path().join(JOB).join(&filled.files[1].path);
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, content).unwrap();
    let mut inspection = inspect(open(filled.place.path()), JOB).await.unwrap();
    let damaged = inspection.report.damaged.clone();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(damaged[0].starts_with("checkpoint 2: ") && damaged[0].contains("shared/change.arrow"), "{damaged:?}");
    assert_eq!(inspection.newest_whole(), Some(1));
    inspection.describe_operators(2);
    assert_eq!(inspection.report.checkpoints[1].operators.as_ref().unwrap()[0].tables[0].rows, None);
    assert!(text(&inspection.report).contains("\nDAMAGED checkpoint 2: "));

    std::fs::remove_file(filled.place.path().join(JOB).join("chk-1/_metadata")).unwrap();
    let inspection = inspect(open(filled.place.path()), JOB).await.unwrap();
    assert!(
        inspection.report.damaged.iter().any(|damage| damage.contains("chk-1/_metadata")),
        "{:?}",
        inspection.report
    );
    assert_eq!(inspection.newest_whole(), None);
}

#[tokio::test]
async fn a_damaged_journal_is_named_and_manifests_are_shown_all_the_same() {
    let filled = fill().await;
    for entry in std::fs::read_dir(filled.place.path().join(JOB).join("journal")).unwrap() {
        std::fs::write(entry.unwrap().path(), "x").unwrap();
    }
    let inspection = inspect(open(filled.place.path()), JOB).await.unwrap();
    assert!(inspection.report.damaged[0].starts_with("the journal: "), "{:?}", inspection.report.damaged);
    assert_eq!(inspection.report.checkpoints.len(), 2);
}

#[test]
fn finds_the_job_in_every_kind_of_directory() {
    let place = tempfile::tempdir().unwrap();
    let storage = place.path().join("state/checkpoints");
    std::fs::create_dir_all(storage.join(JOB).join("journal")).unwrap();
    let data = place.path().join("state");
    std::fs::write(data.join("job-id"), format!("{JOB}\n")).unwrap();
    let yaml = "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata: {name: a}\nspec: {program: {sql: x}}\n";
    std::fs::write(data.join("job.yaml"), yaml).unwrap();
    for directory in [&data, &storage, &storage.join(JOB)] {
        let located = locate(directory).unwrap();
        assert_eq!(located.job_id, JOB);
        let StorageConfig::Directory { path } = located.storage else { panic!("not a directory") };
        assert_eq!(std::fs::canonicalize(path).unwrap(), std::fs::canonicalize(&storage).unwrap());
    }
    std::fs::create_dir_all(storage.join("another/journal")).unwrap();
    let error = locate(&storage).unwrap_err().to_string();
    assert!(error.ends_with(&format!("several jobs in it, name one: {JOB}, another")), "{error}");
    assert!(locate(place.path()).unwrap_err().to_string().contains("there is no job in it"));
    assert!(locate(&place.path().join("x")).unwrap_err().to_string().contains("no such directory"));
}
