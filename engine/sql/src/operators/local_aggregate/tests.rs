use super::*;
use crate::operators::AggregateFunction;
use crate::operators::testing::*;
use arrow::array::{Int64Array, TimestampMillisecondArray};
use std::sync::Arc;

fn input(rows: &[(i64, i64, i64)]) -> Batch {
    Batch::inserts(batch(vec![
        ("k", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("v", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("t", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.2)))),
    ]))
}

fn spec(window: Option<(usize, WindowSpec)>) -> LocalAggregateSpec {
    let calls = vec![
        AggregateCall { function: AggregateFunction::CountStar, argument: None, filter: None, name: "n".into() },
        AggregateCall {
            function: AggregateFunction::Avg,
            argument: Some((1, DataType::Int64)),
            filter: None,
            name: "a".into(),
        },
    ];
    LocalAggregateSpec { schema: input(&[]).schema(), keys: vec![0], calls, window }
}

fn run(operator: &mut LocalAggregate, batch: Batch) -> Vec<String> {
    let mut out = Collected::default();
    operator.process(0, batch, &mut out).unwrap();
    assert!(out.0.len() <= 1);
    out.lines()
}

#[test]
fn a_batch_becomes_one_row_a_key_and_nothing_stays() {
    let mut operator = LocalAggregate::new(spec(None)).unwrap();
    assert_eq!(run(&mut operator, input(&[(1, 10, 0), (2, 20, 0), (1, 5, 0)])), ["+I 1 2 15 2", "+I 2 1 20 1"]);
    assert_eq!(run(&mut operator, input(&[(2, 1, 0)])), ["+I 2 1 1 1"]);
    assert!(run(&mut operator, input(&[])).is_empty());
}

#[test]
fn windows_part_a_batch() {
    let window = WindowSpec { size: 10, offset: 3 };
    let mut operator = LocalAggregate::new(spec(Some((2, window)))).unwrap();
    let rows = [(1, 10, 3), (1, 20, 13), (1, 30, 12), (2, 40, 2)];
    assert_eq!(
        run(&mut operator, input(&rows)),
        [
            "+I 1 1970-01-01T00:00:00.013 2 40 2",
            "+I 1 1970-01-01T00:00:00.023 1 20 1",
            "+I 2 1970-01-01T00:00:00.003 1 40 1",
        ]
    );
    let names: Vec<String> =
        spec(Some((2, window))).output_schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["k", "window_end", "n", "a", "a_values"]);
}

/// With hardly any equal keys rows pass as they are, as partials of one row; after a while it is tried again.
#[test]
fn batches_without_equal_keys_are_passed_on() {
    let mut operator = LocalAggregate::new(spec(None)).unwrap();
    let unique: Vec<(i64, i64, i64)> = (0..1000).map(|key| (key, 1, 0)).collect();
    let equal = [(7, 1, 0), (7, 2, 0)];
    assert_eq!(run(&mut operator, input(&unique)).len(), 1000);
    assert_eq!(run(&mut operator, input(&equal)), ["+I 7 1 1 1", "+I 7 1 2 1"]);
    for _ in 1..BATCHES_BETWEEN_TRIES {
        run(&mut operator, input(&equal));
    }
    assert_eq!(run(&mut operator, input(&equal)), ["+I 7 2 3 2"]);
}

#[test]
fn distinct_calls_and_updates_are_refused() {
    let mut distinct = spec(None);
    distinct.calls[1].function = AggregateFunction::CountDistinct;
    assert!(LocalAggregate::new(distinct).is_err());
    let mut operator = LocalAggregate::new(spec(None)).unwrap();
    let update = Batch::changes(input(&[(1, 1, 1)]).rows, vec![1]);
    assert!(operator.process(0, update, &mut Collected::default()).is_err());
}
