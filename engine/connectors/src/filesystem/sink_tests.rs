use super::*;
use crate::testing::{NoOutput, context, open_sink, schema, table, union_restore};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use streamjob_dataflow::{Batch, Operator, OperatorContext, OperatorRestore};
use streamjob_state::{Cut, StateCut};

fn rows(range: std::ops::Range<i64>) -> Batch {
    let schema = schema(vec![("n", DataType::Int64)]);
    Batch::inserts(RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(range))]).unwrap())
}

fn definition(directory: &Path, extra: &[(&str, &str)]) -> TableDefinition {
    let options = [&[("path", directory.to_str().unwrap()), ("format", "json")], extra].concat();
    table(schema(vec![("n", DataType::Int64)]), &options)
}

fn open(directory: &Path, context: &OperatorContext, restore: OperatorRestore) -> Box<dyn Operator> {
    open_sink(&FilesystemConnector, &definition(directory, &[]), context, restore).unwrap()
}

fn write(sink: &mut dyn Operator, range: std::ops::Range<i64>) {
    sink.process(0, rows(range), &mut NoOutput).unwrap();
}

fn checkpoint(sink: &mut dyn Operator, checkpoint: u64) -> StateCut {
    sink.before_barrier(checkpoint, &mut NoOutput).unwrap();
    sink.snapshot(checkpoint, Cut::Changes).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn visible_files(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| !name.starts_with('.')).collect()
}

fn hidden_files(directory: &Path) -> usize {
    names(directory).len() - visible_files(directory).len()
}

/// What a reader sees.
fn visible(directory: &Path) -> Vec<i64> {
    let mut numbers = vec![];
    for name in visible_files(directory) {
        let text = fs::read_to_string(directory.join(name)).unwrap();
        assert!(text.ends_with('\n'));
        numbers.extend(text.lines().map(|line| serde_json::from_str::<BTreeMap<String, i64>>(line).unwrap()["n"]));
    }
    numbers.sort_unstable();
    numbers
}

/// The process dies: nothing of it runs any more, not even destructors.
fn kill(sink: Box<dyn Operator>) {
    std::mem::forget(sink);
}

#[test]
fn r61_rows_are_visible_only_after_their_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut sink = open(path, &context(0, 1), OperatorRestore::default());
    write(sink.as_mut(), 0..3);
    assert_eq!(visible(path), Vec::<i64>::new());
    checkpoint(sink.as_mut(), 1);
    write(sink.as_mut(), 3..5);
    assert_eq!(visible(path), Vec::<i64>::new(), "pending is not visible");
    sink.checkpoint_complete(1).unwrap();
    assert_eq!(visible(path), vec![0, 1, 2]);
    sink.checkpoint_complete(1).unwrap();
    // Checkpoint 2 is aborted: its rows go out with the next one.
    checkpoint(sink.as_mut(), 2);
    sink.checkpoint_aborted(2).unwrap();
    write(sink.as_mut(), 5..6);
    let cut = checkpoint(sink.as_mut(), 3);
    assert_eq!(cut.lists[0].entries.len(), 2);
    sink.checkpoint_complete(3).unwrap();
    assert_eq!(visible(path), (0..6).collect::<Vec<_>>());
    let empty = checkpoint(sink.as_mut(), 4);
    assert!(empty.lists[0].entries.is_empty());
    assert_eq!(hidden_files(path), 0);
}

/// Where the process dies in its second checkpoint, in which rows 3..6 are written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crash {
    BeforePreCommit,
    AfterPreCommitBeforeAck,
    AfterAcksBeforeJournal,
    AfterJournalBeforeNotify,
    MidCommit,
    AfterCommitBeforeNextState,
}

#[test]
fn r63_a_kill_at_any_point_leaves_every_row_once() {
    use Crash::*;
    let points = [
        BeforePreCommit,
        AfterPreCommitBeforeAck,
        AfterAcksBeforeJournal,
        AfterJournalBeforeNotify,
        MidCommit,
        AfterCommitBeforeNextState,
    ];
    for point in points {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // Small files, so that a checkpoint has several and a commit can break off in the middle.
        let definition = definition(path, &[("sink.rolling-policy.file-size", "1b")]);
        let start = |restore| open_sink(&FilesystemConnector, &definition, &context(0, 1), restore).unwrap();
        let mut sink = start(OperatorRestore::default());
        write(sink.as_mut(), 0..3);
        let first = checkpoint(sink.as_mut(), 1);
        sink.checkpoint_complete(1).unwrap();
        write(sink.as_mut(), 3..4);
        write(sink.as_mut(), 4..6);
        let mut journaled = (1, first, 3);
        if point != BeforePreCommit {
            sink.before_barrier(2, &mut NoOutput).unwrap();
        }
        if !matches!(point, BeforePreCommit | AfterPreCommitBeforeAck) {
            let second = sink.snapshot(2, Cut::Changes).unwrap();
            if point != AfterAcksBeforeJournal {
                journaled = (2, second, 6);
            }
        }
        match point {
            MidCommit => {
                // One of the two files is renamed.
                let name = names(path).into_iter().find(|name| name.starts_with('.')).unwrap();
                let entry = &journaled.1.lists[0].entries;
                let target =
                    entry.iter().map(|entry| &entry["commit"]).find(|file| file["temporary"] == *name).unwrap();
                fs::rename(path.join(&name), path.join(target["target"].as_str().unwrap())).unwrap();
            }
            AfterCommitBeforeNextState => sink.checkpoint_complete(2).unwrap(),
            _ => {}
        }
        kill(sink);
        let (completed, cut, position) = journaled;
        let mut sink = start(OperatorRestore { checkpoint: Some(completed), ..union_restore(&[cut]) });
        assert_eq!(visible(path), (0..position).collect::<Vec<_>>(), "{point:?}: what was journaled is finished");
        assert_eq!(hidden_files(path), 0, "{point:?}: and the rest is dropped");
        write(sink.as_mut(), position..8);
        checkpoint(sink.as_mut(), 3);
        sink.checkpoint_complete(3).unwrap();
        assert_eq!(visible(path), (0..8).collect::<Vec<_>>(), "{point:?}");
    }
}

#[test]
fn a_restore_at_another_parallelism_commits_everything_once() {
    for (before, after) in [(3u32, 2u32), (2, 3), (1, 2), (4, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut cuts = vec![];
        for subtask in 0..before {
            let mut sink = open(path, &context(subtask, before), OperatorRestore::default());
            write(sink.as_mut(), i64::from(subtask) * 10..i64::from(subtask) * 10 + 5);
            cuts.push(checkpoint(sink.as_mut(), 1));
            write(sink.as_mut(), 1000..1003);
            sink.before_barrier(2, &mut NoOutput).unwrap();
            kill(sink);
        }
        let restore = union_restore(&cuts);
        let sinks: Vec<_> = (0..after).map(|subtask| open(path, &context(subtask, after), restore.clone())).collect();
        let expected: Vec<i64> = (0..i64::from(before)).flat_map(|subtask| subtask * 10..subtask * 10 + 5).collect();
        assert_eq!(visible(path), expected, "{before} {after}");
        assert_eq!(hidden_files(path), 0, "{before} {after}");
        drop(sinks);
    }
}

#[test]
fn a_restarted_subtask_leaves_the_files_of_its_siblings_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut sibling = open(path, &context(0, 2), OperatorRestore::default());
    let mut mine = open(path, &context(1, 2), OperatorRestore::default());
    write(sibling.as_mut(), 0..2);
    write(mine.as_mut(), 10..12);
    let cuts = [checkpoint(sibling.as_mut(), 1), checkpoint(mine.as_mut(), 1)];
    write(sibling.as_mut(), 2..4);
    kill(mine);
    let _mine = open(path, &context(1, 2), union_restore(&cuts));
    assert_eq!(visible(path), vec![10, 11]);
    sibling.checkpoint_complete(1).unwrap();
    checkpoint(sibling.as_mut(), 2);
    sibling.checkpoint_complete(2).unwrap();
    assert_eq!(visible(path), vec![0, 1, 2, 3, 10, 11]);
}

#[test]
fn lost_and_conflicting_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut sink = open(path, &context(0, 1), OperatorRestore::default());
    write(sink.as_mut(), 0..3);
    let cut = checkpoint(sink.as_mut(), 1);
    let name = names(path).remove(0);
    fs::remove_file(path.join(&name)).unwrap();
    let error = sink.checkpoint_complete(1).unwrap_err();
    assert!(matches!(error, TaskError::Fatal(_)));
    assert!(error.to_string().contains(&name), "{error}");
    let target = cut.lists[0].entries[0]["commit"]["target"].as_str().unwrap().to_string();
    fs::write(path.join(&name), "").unwrap();
    fs::write(path.join(&target), "").unwrap();
    let error = sink.checkpoint_complete(1).unwrap_err().to_string();
    assert!(error.contains(&target) && error.contains("another file"), "{error}");
}

#[test]
fn without_checkpoints_the_end_commits() {
    let directory = tempfile::tempdir().unwrap();
    let mut context = context(0, 1);
    context.checkpointing = false;
    let mut sink = open(directory.path(), &context, OperatorRestore::default());
    write(sink.as_mut(), 0..3);
    assert_eq!(visible(directory.path()), Vec::<i64>::new());
    sink.finish(&mut NoOutput).unwrap();
    assert_eq!(visible(directory.path()), vec![0, 1, 2]);
}

#[test]
fn with_checkpoints_the_end_waits_for_the_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = open(directory.path(), &context(0, 1), OperatorRestore::default());
    write(sink.as_mut(), 0..3);
    sink.finish(&mut NoOutput).unwrap();
    assert_eq!(visible(directory.path()), Vec::<i64>::new());
    checkpoint(sink.as_mut(), 7);
    sink.checkpoint_complete(7).unwrap();
    assert_eq!(visible(directory.path()), vec![0, 1, 2]);
}

#[test]
fn files_roll_by_size_and_a_stopped_sink_leaves_only_pending_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let definition = definition(path, &[("sink.rolling-policy.file-size", "20b")]);
    let mut sink = open_sink(&FilesystemConnector, &definition, &context(0, 1), OperatorRestore::default()).unwrap();
    for number in 0..6 {
        write(sink.as_mut(), number..number + 1);
    }
    checkpoint(sink.as_mut(), 1);
    sink.checkpoint_complete(1).unwrap();
    assert_eq!(visible_files(path).len(), 2);
    write(sink.as_mut(), 6..12);
    checkpoint(sink.as_mut(), 2);
    write(sink.as_mut(), 12..20);
    assert_eq!(hidden_files(path), 2);
    drop(sink);
    assert_eq!(hidden_files(path), 1, "checkpoint 2 may still be journaled");
}

#[test]
fn updates_are_written_only_when_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let accepts = |extra: &[(&str, &str)]| {
        FilesystemConnector.sink(&definition(directory.path(), extra)).ok().unwrap().accepts_updates
    };
    assert!(!accepts(&[]) && accepts(&[("sink.changelog", "true")]));
    let definition = definition(directory.path(), &[("sink.changelog", "true")]);
    let mut sink = open_sink(&FilesystemConnector, &definition, &context(0, 1), OperatorRestore::default()).unwrap();
    sink.process(0, Batch::changes(rows(1..3).rows, vec![1, 2]), &mut NoOutput).unwrap();
    checkpoint(sink.as_mut(), 1);
    sink.checkpoint_complete(1).unwrap();
    let name = visible_files(directory.path()).remove(0);
    let text = fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(text, "{\"op\":\"-U\",\"n\":1}\n{\"op\":\"+U\",\"n\":2}\n");
    let op =
        table(schema(vec![("op", DataType::Utf8)]), &[("path", "/x"), ("format", "csv"), ("sink.changelog", "true")]);
    assert!(FilesystemConnector.sink(&op).is_err());
}

#[test]
fn unusable_directories_are_fatal_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error =
            open_sink(&FilesystemConnector, &definition(&path, &[]), &context(0, 1), OperatorRestore::default())
                .err()
                .unwrap();
        assert!(matches!(error, TaskError::Fatal(_)), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()) && error.to_string().contains("os error"),
            "{error}"
        );
    }
}

#[test]
fn what_the_sink_writes_the_source_reads() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema(vec![("n", DataType::Int64), ("text", DataType::Utf8)]);
    for format in ["json", "csv"] {
        let path = directory.path().join(format);
        let table = table(schema.clone(), &[("path", path.to_str().unwrap()), ("format", format)]);
        let mut sink = open_sink(&FilesystemConnector, &table, &context(0, 1), OperatorRestore::default()).unwrap();
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
                Arc::new(StringArray::from(vec!["a,b", "c\n\"d\"", ""])),
            ],
        )
        .unwrap();
        sink.process(0, Batch::inserts(batch.clone()), &mut NoOutput).unwrap();
        checkpoint(sink.as_mut(), 1);
        sink.checkpoint_complete(1).unwrap();
        let request = SourceRequest { table, required: None, parallelism: 1 };
        let mut source =
            crate::testing::open_source(&FilesystemConnector, &request, &context(0, 1), OperatorRestore::default())
                .unwrap();
        let back = crate::testing::concat(&crate::testing::read(source.as_mut(), usize::MAX).unwrap());
        assert_eq!(back, batch);
    }
}

#[test]
fn falling_back_to_an_older_checkpoint_takes_later_files_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut sink = open(path, &context(0, 1), OperatorRestore::default());
    let mut cuts = vec![];
    for number in 1..4 {
        write(sink.as_mut(), number as i64..number as i64 + 1);
        cuts.push(checkpoint(sink.as_mut(), number));
        sink.checkpoint_complete(number).unwrap();
    }
    kill(sink);
    // Of another run in the same directory.
    let mut stranger = open(path, &context(0, 1), OperatorRestore::default());
    write(stranger.as_mut(), 77..78);
    checkpoint(stranger.as_mut(), 9);
    stranger.checkpoint_complete(9).unwrap();
    assert_eq!(visible(path), vec![1, 2, 3, 77]);
    // Checkpoints 3 and 2 are damaged.
    let fall_back = || OperatorRestore { checkpoint: Some(1), ..union_restore(&cuts[..1]) };
    let mut sink = open(path, &context(0, 1), fall_back());
    assert_eq!(visible(path), vec![1, 77]);
    write(sink.as_mut(), 2..3);
    checkpoint(sink.as_mut(), 4);
    sink.checkpoint_complete(4).unwrap();
    assert_eq!(visible(path), vec![1, 2, 77]);
    kill(sink);
    open(path, &context(0, 1), fall_back());
    assert_eq!(visible(path), vec![1, 77]);
}
