use super::*;
use crate::testing::{concat, context, open_source, read, schema, table, union_restore};
use arrow::array::*;
use arrow::datatypes::*;
use std::collections::BTreeSet;
use streamjob_dataflow::{OperatorContext, OperatorRestore, Source, SourceEvent};

fn request(schema: SchemaRef, options: &[(&str, &str)]) -> SourceRequest {
    let fast = [&[("rows-per-second", "1000000000000")], options].concat();
    SourceRequest { table: table(schema, &fast), required: None, parallelism: 1 }
}

/// All rows, from a single subtask.
fn generate(request: &SourceRequest) -> RecordBatch {
    let mut source = open_source(&DatagenConnector, request, &context(0, 1), OperatorRestore::default()).unwrap();
    let mut batches = vec![];
    let mut now = 0;
    loop {
        match source.poll(now).unwrap() {
            SourceEvent::Batch(batch) => batches.push(batch.rows),
            SourceEvent::Wait(_) => {}
            SourceEvent::End => return concat(&batches),
        }
        now += 1000;
    }
}

fn wide() -> SchemaRef {
    let nested = Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)]);
    schema(vec![
        ("flag", DataType::Boolean),
        ("tiny", DataType::Int8),
        ("big", DataType::Int64),
        ("float", DataType::Float32),
        ("double", DataType::Float64),
        ("price", DataType::Decimal128(10, 2)),
        ("name", DataType::Utf8),
        ("bytes", DataType::Binary),
        ("day", DataType::Date32),
        ("time", DataType::Time32(TimeUnit::Millisecond)),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("instant", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("nested", DataType::Struct(nested)),
    ])
}

#[test]
fn random_values_keep_to_their_limits() {
    let rows = generate(&request(
        wide(),
        &[
            ("number-of-rows", "20000"),
            ("fields.tiny.min", "-3"),
            ("fields.tiny.max", "3"),
            ("fields.double.min", "-1.5"),
            ("fields.double.max", "2.5"),
            ("fields.price.min", "10"),
            ("fields.price.max", "20.5"),
            ("fields.name.length", "7"),
            ("fields.bytes.length", "9"),
            ("fields.bytes.var-len", "true"),
            ("fields.at.max-past", "1 min"),
            ("fields.nested.null-rate", "0.25"),
            ("fields.nested.x.min", "5"),
            ("fields.nested.x.max", "6"),
        ],
    ));
    assert_eq!(rows.num_rows(), 20_000);
    let tiny: BTreeSet<i8> = rows.column(1).as_primitive::<Int8Type>().values().iter().copied().collect();
    assert_eq!(tiny, (-3..=3).collect());
    let double = rows.column(4).as_primitive::<Float64Type>();
    assert!(double.values().iter().all(|value| (-1.5..=2.5).contains(value)));
    let mean = double.values().iter().sum::<f64>() / 20_000.0;
    assert!((mean - 0.5).abs() < 0.05, "{mean}");
    assert!(rows.column(3).as_primitive::<Float32Type>().values().iter().all(|value| value.is_finite()));
    assert!(rows.column(5).as_primitive::<Decimal128Type>().values().iter().all(|price| (1000..=2050).contains(price)));
    for name in rows.column(6).as_string::<i32>().iter().flatten() {
        assert!(name.len() == 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }
    let lengths: BTreeSet<usize> = rows.column(7).as_binary::<i32>().iter().flatten().map(<[u8]>::len).collect();
    assert_eq!(lengths, (1..=9).collect());
    let at = rows.column(10).as_primitive::<TimestampMillisecondType>();
    assert!(at.values().iter().all(|at| (DEFAULT_BASE_TIME - 60_000..=DEFAULT_BASE_TIME).contains(at)));
    let instant = rows.column(11).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(instant.value(0), DEFAULT_BASE_TIME * 1000);
    let nested = rows.column(12).as_struct();
    assert!((4_700..5_300).contains(&nested.null_count()), "{}", nested.null_count());
    assert!((0..20_000).all(|row| nested.is_null(row) == nested.column(0).is_null(row)));
    let x: BTreeSet<i32> = nested.column(0).as_primitive::<Int32Type>().iter().flatten().collect();
    assert_eq!(x, BTreeSet::from([5, 6]));
}

#[test]
fn sequences_end_the_table_together() {
    let table = schema(vec![("n", DataType::Int32), ("text", DataType::Utf8), ("price", DataType::Decimal128(10, 2))]);
    let request = request(
        table,
        &[
            ("fields.n.kind", "sequence"),
            ("fields.n.start", "-1"),
            ("fields.n.end", "3"),
            ("fields.text.kind", "sequence"),
            ("fields.text.start", "7"),
            ("fields.text.end", "700"),
            ("fields.price.kind", "sequence"),
            ("fields.price.start", "1"),
            ("fields.price.end", "100"),
        ],
    );
    assert!(DatagenConnector.source(&request).ok().unwrap().bounded);
    let rows = generate(&request);
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &[-1, 0, 1, 2, 3]);
    assert_eq!(rows.column(1).as_string::<i32>().value(4), "11");
    assert_eq!(rows.column(2).as_primitive::<Decimal128Type>().values(), &[100, 200, 300, 400, 500]);
}

#[test]
fn a_column_does_not_depend_on_the_others() {
    let options = [("number-of-rows", "1000"), ("seed", "5")];
    let full = generate(&request(wide(), &options));
    let mut some = request(wide(), &options);
    some.required = Some(BTreeSet::from([vec!["big".to_string()], vec!["nested".to_string(), "y".to_string()]]));
    let some = generate(&some);
    assert_eq!(some.column(2), full.column(2));
    assert_eq!(some.column(12).as_struct().column(1), full.column(12).as_struct().column(1));
    assert_eq!(some.column(6).null_count(), 1000);
    let alone = generate(&request(schema(vec![("big", DataType::Int64)]), &options));
    assert_eq!(alone.column(0), full.column(2));
    let other = generate(&request(wide(), &[("number-of-rows", "1000"), ("seed", "6")]));
    assert_ne!(other.column(2), full.column(2));
}

#[test]
fn r58_a_restore_at_another_parallelism_gives_every_row_once() {
    let request = request(schema(vec![("n", DataType::Int64)]), &[("number-of-rows", "50021")]);
    let mut expected = generate(&request).column(0).as_primitive::<Int64Type>().values().to_vec();
    let mut seen = vec![];
    let mut take = |source: &mut dyn Source, rows| {
        for batch in read(source, rows).unwrap() {
            seen.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
    };
    let mut cuts = vec![];
    for subtask in 0..2 {
        let mut source =
            open_source(&DatagenConnector, &request, &context(subtask, 2), OperatorRestore::default()).unwrap();
        take(source.as_mut(), 1);
        cuts.push(source.snapshot(1).unwrap());
    }
    let restore = union_restore(&cuts);
    for subtask in 0..3 {
        let mut source = open_source(&DatagenConnector, &request, &context(subtask, 3), restore.clone()).unwrap();
        // The first poll starts the clock; at a billion rows a second everything is due a second later.
        take(source.as_mut(), 1);
        while let SourceEvent::Batch(batch) = source.poll(1_000_000).unwrap() {
            take(&mut Once(Some(batch)), usize::MAX);
        }
        assert!(matches!(source.poll(1_000_000).unwrap(), SourceEvent::End));
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

/// A source of one batch.
struct Once(Option<streamjob_dataflow::Batch>);

impl Source for Once {
    fn open(&mut self, _: &OperatorContext, _: OperatorRestore) -> Result<(), streamjob_dataflow::TaskError> {
        Ok(())
    }
    fn poll(&mut self, _: i64) -> Result<SourceEvent, streamjob_dataflow::TaskError> {
        Ok(self.0.take().map_or(SourceEvent::End, SourceEvent::Batch))
    }
    fn snapshot(&mut self, _: u64) -> Result<streamjob_state::StateCut, streamjob_dataflow::TaskError> {
        Ok(Default::default())
    }
}

#[test]
fn r59_without_replay_nothing_comes_back() {
    let request = request(
        schema(vec![("n", DataType::Int64), ("at", DataType::Timestamp(TimeUnit::Millisecond, None))]),
        &[("replay", "false")],
    );
    assert!(!DatagenConnector.source(&request).ok().unwrap().replayable);
    let first = |restore| {
        let mut source = open_source(&DatagenConnector, &request, &context(0, 1), restore).unwrap();
        let SourceEvent::Batch(batch) = source.poll(123_456).unwrap() else { panic!() };
        assert_eq!(batch.rows.column(1).as_primitive::<TimestampMillisecondType>().value(0), 123_456);
        (batch.rows.column(0).as_primitive::<Int64Type>().value(0), source.snapshot(1).unwrap())
    };
    let (before, cut) = first(OperatorRestore::default());
    assert!(cut.lists.is_empty() && cut.keyed.is_empty());
    let (after, _) = first(union_restore(&[cut]));
    assert_ne!(before, after);
}

#[test]
fn rows_come_at_the_rate() {
    let request = SourceRequest {
        table: table(schema(vec![("n", DataType::Int64)]), &[("rows-per-second", "10")]),
        required: None,
        parallelism: 2,
    };
    let spec = DatagenConnector.source(&request).ok().unwrap();
    assert!(!spec.bounded && spec.replayable);
    let mut total = 0;
    for subtask in 0..2 {
        let mut source =
            open_source(&DatagenConnector, &request, &context(subtask, 2), OperatorRestore::default()).unwrap();
        for now in (0..=10_000).step_by(10) {
            if let SourceEvent::Batch(batch) = source.poll(now).unwrap() {
                total += batch.len();
            }
        }
    }
    assert!((100..=102).contains(&total), "{total}");
}

#[test]
fn wrong_options_are_refused() {
    let table = || schema(vec![("n", DataType::Int32), ("text", DataType::Utf8), ("flag", DataType::Boolean)]);
    for (options, expected) in [
        (&[("fields.m.kind", "random")][..], "fits no column"),
        (&[("fields.n.length", "5")], "fits no column"),
        (&[("fields.n.kind", "magic")], "'magic'"),
        (&[("fields.n.kind", "sequence")], "start"),
        (&[("fields.n.kind", "sequence"), ("fields.n.start", "5"), ("fields.n.end", "1")], "more than the end"),
        (&[("fields.n.min", "5"), ("fields.n.max", "1")], "more than the maximum"),
        (&[("fields.n.max", "2147483648")], "between"),
        (&[("fields.flag.kind", "sequence")], "no sequences"),
        (&[("fields.n.null-rate", "2")], "between 0 and 1"),
        (&[("fields.text.length", "0")], "between 1"),
        (&[("rows-per-second", "0")], "rows-per-second"),
    ] {
        let error = DatagenConnector.source(&request(table(), options)).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let list = DataType::List(std::sync::Arc::new(Field::new("item", DataType::Int64, true)));
    let error = DatagenConnector.source(&request(schema(vec![("l", list)]), &[])).err().unwrap().to_string();
    assert!(error.contains("'l'"), "{error}");
}
