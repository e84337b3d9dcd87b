use super::listing::Listing;
use super::source::{FileSource, SourceSettings};
use super::*;
use crate::testing::{concat, context, open_source, read, schema, table, union_restore};
use arrow::array::*;
use arrow::datatypes::{DataType, Int64Type};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use streamjob_dataflow::{OperatorRestore, Source, SourceEvent};
use streamjob_state::StateCut;

fn lines(range: std::ops::Range<i64>) -> String {
    range.map(|number| format!("{{\"n\":{number}}}\n")).collect()
}

fn request(path: &Path, extra: &[(&str, &str)]) -> SourceRequest {
    let options = [&[("path", path.to_str().unwrap()), ("format", "json")], extra].concat();
    SourceRequest { table: table(schema(vec![("n", DataType::Int64)]), &options), required: None, parallelism: 1 }
}

/// A source with small parts, as the connector makes it with large ones.
fn small(path: &Path, part_bytes: u64, monitor: Option<Duration>) -> FileSource {
    let settings = SourceSettings { part_bytes, monitor, ignore_errors_option: "json.ignore-parse-errors" };
    let table = request(path, &[]).table;
    let decoder = Decoder::new(Format::of(Options::of(&table)).unwrap(), table.schema.clone(), None).unwrap();
    FileSource::new(settings, Listing { root: path.to_path_buf(), pattern: None }, decoder)
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    if batches.is_empty() {
        return vec![];
    }
    concat(batches).column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort_unstable();
    numbers
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// One poll at `now`.
fn poll(source: &mut dyn Source, now: i64) -> Vec<i64> {
    match source.poll(now).unwrap() {
        SourceEvent::Batch(batch) => numbers(&[batch.rows]),
        SourceEvent::Wait(_) => vec![],
        SourceEvent::End => panic!("the source ended"),
    }
}

#[test]
fn a_bounded_source_reads_what_is_there_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("deep")).unwrap();
    fs::write(root.join("a.json"), lines(0..3)).unwrap();
    // Its last line has no newline, and is a row all the same.
    fs::write(root.join("deep/b.json"), lines(3..6).trim_end()).unwrap();
    fs::write(root.join("empty.json"), "").unwrap();
    for hidden in [".part-1.inprogress", "_SUCCESS", "other.txt"] {
        fs::write(root.join(hidden), "not json").unwrap();
    }
    let request = request(root, &[("source.path.regex-pattern", ".*\\.json")]);
    let spec = FilesystemConnector.source(&request).ok().unwrap();
    assert!(spec.bounded && spec.replayable);
    let mut source = open_source(&FilesystemConnector, &request, &context(0, 1), OperatorRestore::default()).unwrap();
    assert_eq!(numbers(&read(source.as_mut(), usize::MAX).unwrap()), (0..6).collect::<Vec<_>>());
    assert!(matches!(source.poll(0).unwrap(), SourceEvent::End));
}

#[test]
fn r58_parts_are_read_once_at_any_parallelism_and_after_any_restore() {
    let directory = tempfile::tempdir().unwrap();
    let total = 2_000;
    for (index, range) in [0..700, 700..701, 701..total].into_iter().enumerate() {
        fs::write(directory.path().join(format!("f{index}.json")), lines(range)).unwrap();
    }
    for part_bytes in [7, 64, 1000, u64::MAX] {
        for (before, after) in [(1, 1), (1, 3), (3, 2), (4, 1)] {
            let mut seen = vec![];
            let mut cuts: Vec<StateCut> = vec![];
            for subtask in 0..before {
                let mut source = small(directory.path(), part_bytes, None);
                source.open(&context(subtask, before), OperatorRestore::default()).unwrap();
                for _ in 0..subtask {
                    if let SourceEvent::Batch(batch) = source.poll(0).unwrap() {
                        seen.extend(numbers(&[batch.rows]));
                    }
                }
                cuts.push(source.snapshot(1).unwrap());
                // Read and lost in the failure.
                source.poll(0).unwrap();
            }
            // A file that comes after the first start is not part of a bounded source.
            fs::write(directory.path().join("late.json"), lines(9000..9010)).unwrap();
            let restore = union_restore(&cuts);
            for subtask in 0..after {
                let mut source = small(directory.path(), 12_345, None);
                source.open(&context(subtask, after), restore.clone()).unwrap();
                seen.extend(numbers(&read(&mut source, usize::MAX).unwrap()));
                assert!(matches!(source.poll(0).unwrap(), SourceEvent::End));
            }
            fs::remove_file(directory.path().join("late.json")).unwrap();
            assert_eq!(sorted(seen), (0..total).collect::<Vec<_>>(), "{part_bytes} {before} {after}");
        }
    }
}

#[test]
fn a_snapshot_between_batches_has_the_exact_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.json");
    fs::write(&path, lines(0..50_000)).unwrap();
    let request = request(&path, &[]);
    let mut source = open_source(&FilesystemConnector, &request, &context(0, 1), OperatorRestore::default()).unwrap();
    let mut seen = vec![];
    loop {
        let SourceEvent::Batch(batch) = source.poll(0).unwrap() else { break };
        assert!(batch.len() <= 8192);
        seen.extend(numbers(&[batch.rows]));
        let restore = union_restore(&[source.snapshot(1).unwrap()]);
        source = open_source(&FilesystemConnector, &request, &context(0, 1), restore).unwrap();
    }
    assert_eq!(seen, (0..50_000).collect::<Vec<_>>());
}

#[test]
fn a_monitoring_source_follows_new_files_and_new_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    append(&path, &lines(0..2));
    let mut source = small(directory.path(), 10, Some(Duration::from_secs(1)));
    source.open(&context(0, 1), OperatorRestore::default()).unwrap();
    assert_eq!(poll(&mut source, 0), vec![0, 1]);
    append(&path, "{\"n\":2}\n{\"n\":");
    append(&directory.path().join("b"), &lines(10..11));
    assert_eq!(poll(&mut source, 500), Vec::<i64>::new(), "not looked yet");
    assert_eq!(poll(&mut source, 1000), vec![2, 10]);
    assert_eq!(poll(&mut source, 2000), Vec::<i64>::new(), "the last line is not finished");
    let restore = union_restore(&[source.snapshot(1).unwrap()]);
    append(&path, "3}\n");
    let mut seen = vec![];
    for subtask in 0..2 {
        let mut source = small(directory.path(), 10, Some(Duration::from_secs(1)));
        source.open(&context(subtask, 2), restore.clone()).unwrap();
        seen.extend(poll(&mut source, 0));
        seen.extend(poll(&mut source, 1000));
    }
    assert_eq!(sorted(seen), vec![3]);
}

#[test]
fn a_file_that_is_gone_is_forgotten_only_when_it_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    append(&path, &lines(0..2));
    let mut source = small(directory.path(), u64::MAX, Some(Duration::from_secs(1)));
    source.open(&context(0, 1), OperatorRestore::default()).unwrap();
    assert_eq!(poll(&mut source, 0), vec![0, 1]);
    fs::remove_file(&path).unwrap();
    assert_eq!(poll(&mut source, 1000), Vec::<i64>::new());
    // The same name again is a new file.
    append(&path, &lines(5..6));
    append(&path, "{\"n\"");
    assert_eq!(poll(&mut source, 2000), vec![5]);
    fs::remove_file(&path).unwrap();
    let error = source.poll(3000).unwrap_err().to_string();
    assert!(error.contains("is gone") && error.contains("byte 8 of 12"), "{error}");
}

#[test]
fn files_that_change_under_the_position_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, lines(0..10_000)).unwrap();
    let request = request(&path, &[]);
    let mut source = open_source(&FilesystemConnector, &request, &context(0, 1), OperatorRestore::default()).unwrap();
    read(source.as_mut(), 1).unwrap();
    let restore = union_restore(&[source.snapshot(1).unwrap()]);
    let resumed = || {
        let mut source = open_source(&FilesystemConnector, &request, &context(0, 1), restore.clone()).unwrap();
        source.poll(0).unwrap_err().to_string()
    };
    fs::write(&path, lines(0..9_000)).unwrap();
    assert!(resumed().contains("shrink"), "{}", resumed());
    fs::write(&path, lines(1..20_000)).unwrap();
    assert!(resumed().contains("another file"), "{}", resumed());
    fs::remove_file(&path).unwrap();
    assert!(resumed().contains("is gone"), "{}", resumed());
}

#[test]
fn bad_records_fail_with_their_place_or_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    fs::write(&path, "{\"n\":1}\n{\"n\":2}\n{\"n\" 3}\n{\"n\":4}\n").unwrap();
    let mut source =
        open_source(&FilesystemConnector, &request(&path, &[]), &context(0, 1), OperatorRestore::default()).unwrap();
    let error = source.poll(0).unwrap_err();
    assert!(matches!(error, TaskError::Data(_)));
    let error = error.to_string();
    for part in ["a.json'", "line 3, byte 16", "expected ':'", "json.ignore-parse-errors"] {
        assert!(error.contains(part), "{error}");
    }
    let context = context(0, 1);
    let request = request(&path, &[("json.ignore-parse-errors", "true")]);
    let mut source = open_source(&FilesystemConnector, &request, &context, OperatorRestore::default()).unwrap();
    assert_eq!(numbers(&read(source.as_mut(), usize::MAX).unwrap()), vec![1, 2, 4]);
    assert_eq!(context.metrics.records_skipped.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn csv_records_with_newlines_are_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), "\"x\ny\",1\nz,2\n").unwrap();
    let table = table(
        schema(vec![("a", DataType::Utf8), ("n", DataType::Int64)]),
        &[("path", directory.path().to_str().unwrap()), ("format", "csv")],
    );
    let request = SourceRequest { table, required: None, parallelism: 2 };
    let mut rows = 0;
    for subtask in 0..2 {
        let mut source =
            open_source(&FilesystemConnector, &request, &context(subtask, 2), OperatorRestore::default()).unwrap();
        for batch in read(source.as_mut(), usize::MAX).unwrap() {
            assert_eq!(batch.column(0).as_string::<i32>().value(0), "x\ny");
            rows += batch.num_rows();
        }
    }
    assert_eq!(rows, 2);
}

#[test]
fn wrong_paths_and_options_are_clear_errors() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for extra in [&[][..], &[("source.monitor-interval", "1 s")]] {
        let error =
            open_source(&FilesystemConnector, &request(&missing, extra), &context(0, 1), OperatorRestore::default())
                .err()
                .unwrap();
        assert!(matches!(error, TaskError::Fatal(_)));
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
    fs::write(directory.path().join("a.json.gz"), "x").unwrap();
    let error =
        open_source(&FilesystemConnector, &request(directory.path(), &[]), &context(0, 1), OperatorRestore::default());
    assert!(error.err().unwrap().to_string().contains("compressed"));
    for (path, extra, expected) in [
        ("s3://bucket/x", &[][..], "'s3'"),
        ("", &[], "empty"),
        ("/x", &[("source.path.regex-pattern", "(")], "pattern"),
        ("/x", &[("source.monitor-interval", "soon")], "duration"),
        ("/x", &[("source.monitor-interval", "0 s")], "longer"),
        ("file://host/x", &[], "host"),
    ] {
        let error = FilesystemConnector.source(&request(Path::new(path), extra)).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(FilesystemConnector.source(&request(Path::new("file:///x"), &[])).is_ok());
}
