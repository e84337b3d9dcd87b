use super::*;
use crate::operators::AggregateFunction;
use crate::operators::local_aggregate::{LocalAggregate, LocalAggregateSpec};
use crate::operators::testing::*;
use arrow::array::{Int64Array, TimestampMillisecondArray};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Key, value, time.
type Row = (i64, i64, i64);

const WINDOW: WindowSpec = WindowSpec { size: 10, offset: 0 };

fn rows(rows: &[Row]) -> RecordBatch {
    batch(vec![
        ("k", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("v", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("t", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.2)))),
    ])
}

fn call(function: AggregateFunction, argument: Option<usize>) -> AggregateCall {
    let argument = argument.map(|position| (position, DataType::Int64));
    AggregateCall { function, argument, filter: None, name: format!("{function:?}") }
}

fn spec(keys: &[usize], calls: Vec<AggregateCall>) -> WindowAggregateSpec {
    WindowAggregateSpec {
        input: AggregateInput::Rows { schema: rows(&[]).schema(), keys: keys.to_vec() },
        time: WindowTime::Event { column: 2 },
        window: WINDOW,
        calls,
    }
}

fn open(spec: &WindowAggregateSpec, restore: OperatorRestore) -> WindowAggregate {
    let mut operator = WindowAggregate::new(spec.clone()).unwrap();
    operator.open(&context(ALL), restore).unwrap();
    operator
}

fn feed(operator: &mut WindowAggregate, batch: RecordBatch) {
    let mut out = Collected::default();
    operator.process(0, Batch::inserts(batch), &mut out).unwrap();
    assert!(out.0.is_empty(), "windows emit when they are over");
}

fn advance(operator: &mut WindowAggregate, watermark: i64) -> Collected {
    let mut out = Collected::default();
    operator.on_watermark(watermark, &mut out).unwrap();
    out
}

fn sorted(out: &Collected) -> Vec<String> {
    let mut lines = out.lines();
    lines.sort();
    lines
}

fn at(milliseconds: i64) -> String {
    format!("1970-01-01T00:00:00.{milliseconds:03}").trim_end_matches(".000").to_string()
}

#[test]
fn a_window_fires_when_the_watermark_reaches_its_last_millisecond() {
    let calls = vec![call(AggregateFunction::CountStar, None), call(AggregateFunction::Max, Some(1))];
    let mut operator = open(&spec(&[0], calls), OperatorRestore::default());
    feed(&mut operator, rows(&[(1, 5, 0), (1, 7, 9), (2, 1, 3), (1, 4, 10)]));
    assert!(advance(&mut operator, 8).0.is_empty());
    assert_eq!(
        sorted(&advance(&mut operator, 9)),
        [format!("+I 1 2 7 {} {} {}", at(0), at(10), at(9)), format!("+I 2 1 1 {} {} {}", at(0), at(10), at(9)),]
    );
    assert!(advance(&mut operator, 9).0.is_empty());
    assert_eq!(advance(&mut operator, i64::MAX).lines(), [format!("+I 1 1 4 {} {} {}", at(10), at(20), at(19))]);
}

#[test]
fn rows_of_windows_that_are_over_are_dropped_and_counted() {
    let mut operator = open(&spec(&[0], vec![call(AggregateFunction::CountStar, None)]), OperatorRestore::default());
    advance(&mut operator, 19);
    feed(&mut operator, rows(&[(1, 0, 19), (1, 0, 20), (1, 0, 5), (1, 0, 29)]));
    let late = &operator.metrics.late_records_dropped;
    assert_eq!(late.load(Ordering::Relaxed), 2);
    assert_eq!(advance(&mut operator, 30).lines(), [format!("+I 1 2 {} {} {}", at(20), at(30), at(29))]);
}

#[test]
fn offsets_and_times_before_the_epoch() {
    let mut with_offset = spec(&[], vec![call(AggregateFunction::Sum, Some(1))]);
    with_offset.window = WindowSpec { size: 10, offset: -3 };
    let mut operator = open(&with_offset, OperatorRestore::default());
    feed(&mut operator, rows(&[(1, 1, -4), (1, 2, -3), (1, 3, 6), (1, 4, 7)]));
    let ends: Vec<String> = advance(&mut operator, 100)
        .changes()
        .into_iter()
        .map(|(_, values)| format!("{} {}", values[0], values[2]))
        .collect();
    assert_eq!(ends, [format!("1 {}", "1969-12-31T23:59:59.997"), format!("5 {}", at(7)), format!("4 {}", at(17))]);
}

#[test]
fn a_missing_time_is_an_error() {
    let mut operator = open(&spec(&[0], vec![call(AggregateFunction::CountStar, None)]), OperatorRestore::default());
    let times = TimestampMillisecondArray::from(vec![Some(1), None]);
    let numbers: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let batch = batch(vec![("k", numbers.clone()), ("v", numbers), ("t", Arc::new(times))]);
    let error = operator.process(0, Batch::inserts(batch), &mut Collected::default()).unwrap_err();
    assert!(error.to_string().contains("NULL"), "{error}");
}

#[test]
fn large_windows_come_in_batches() {
    let mut operator = open(&spec(&[0], vec![]), OperatorRestore::default());
    feed(&mut operator, rows(&(0..20_000).map(|key| (key, 0, 1)).collect::<Vec<_>>()));
    let out = advance(&mut operator, 100);
    assert_eq!(out.0.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [8192, 8192, 3616]);
    let keys: BTreeSet<String> = out.changes().into_iter().map(|(_, values)| values[0].clone()).collect();
    assert_eq!(keys.len(), 20_000);
}

/// A window that fired stays closed after a restore, and its rows vanish from the next checkpoints.
#[test]
fn restores_know_which_windows_had_fired() {
    let calls = vec![call(AggregateFunction::CountStar, None), call(AggregateFunction::CountDistinct, Some(1))];
    let spec = spec(&[0], calls);
    let mut operator = open(&spec, OperatorRestore::default());
    let mut files = Files::default();
    feed(&mut operator, rows(&[(1, 5, 1), (1, 6, 2), (1, 6, 15)]));
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    assert_eq!(files.rows("windows").len(), 2);
    assert_eq!(files.rows("windows-CountDistinct").len(), 3);
    advance(&mut operator, 9);
    files.add(operator.snapshot(2, Cut::Changes).unwrap());
    assert_eq!(files.rows("windows").len(), 1);
    assert_eq!(files.rows("windows-CountDistinct").len(), 1);
    // A window that came and went between two checkpoints leaves no trace.
    feed(&mut operator, rows(&[(4, 4, 25)]));
    let mut operator = open(&spec, files.restore(ALL));
    feed(&mut operator, rows(&[(1, 5, 3)]));
    assert_eq!(operator.metrics.late_records_dropped.load(Ordering::Relaxed), 1);
    feed(&mut operator, rows(&[(1, 6, 16), (1, 9, 17)]));
    assert_eq!(advance(&mut operator, 100).lines(), [format!("+I 1 3 2 {} {} {}", at(10), at(20), at(19))]);
    files.add(operator.snapshot(3, Cut::Changes).unwrap());
    assert!(files.rows("windows").is_empty());
}

#[test]
fn a_copy_leaves_the_removal_of_fired_windows_to_the_next_changes() {
    let spec = spec(&[0], vec![call(AggregateFunction::CountStar, None)]);
    let mut operator = open(&spec, OperatorRestore::default());
    let mut files = Files::default();
    feed(&mut operator, rows(&[(1, 5, 1), (2, 6, 2)]));
    feed(&mut operator, rows(&(10..100).map(|key| (key, 6, 15)).collect::<Vec<_>>()));
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    advance(&mut operator, 9);
    feed(&mut operator, rows(&[(4, 6, 16)]));
    let mut copy = Files::default();
    copy.add(operator.snapshot(2, Cut::Copy).unwrap());
    assert_eq!(copy.rows("windows").len(), 91);
    files.add(operator.snapshot(3, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("windows"), 3, "two rows went with their window, one came");
    assert_eq!(files.rows("windows"), copy.rows("windows"));
}

/// Windows that come and go: a chain of changes would hold many times what is there.
#[test]
fn a_whole_cut_takes_the_place_of_changes_that_outweigh_it() {
    let spec = spec(&[0], vec![call(AggregateFunction::CountStar, None)]);
    let mut operator = open(&spec, OperatorRestore::default());
    let mut whole = Vec::new();
    for round in 0..20 {
        feed(&mut operator, rows(&(0..10).map(|key| (key, 1, round * 10 + 5)).collect::<Vec<_>>()));
        feed(&mut operator, rows(&(0..40).map(|key| (key + round % 2, 1, 1000)).collect::<Vec<_>>()));
        advance(&mut operator, round * 10 + 9);
        whole.push(operator.snapshot(1, Cut::Changes).unwrap().keyed[0].full);
    }
    assert!(whole.iter().filter(|whole| **whole).count() >= 5, "{whole:?}");
}

#[test]
fn the_watermark_of_foreign_key_groups_does_not_count() {
    let mut operator = open(&spec(&[0], vec![]), OperatorRestore::default());
    let entry = |first: u16, last: u16, watermark: i64| json!({ "first": first, "last": last, "watermark": watermark });
    let cases = [
        (vec![entry(0, 7, 50), entry(8, 15, 70)], KeyGroupRange { first: 0, last: 15 }, 50),
        (vec![entry(0, 7, 50), entry(8, 15, 70)], KeyGroupRange { first: 8, last: 15 }, 70),
        (vec![entry(0, 7, i64::MIN), entry(8, 15, 70)], KeyGroupRange { first: 4, last: 9 }, i64::MIN),
        (vec![], KeyGroupRange { first: 4, last: 9 }, i64::MIN),
    ];
    for (entries, range, expected) in cases {
        operator.key_groups = range;
        operator.restore_watermark(&entries).unwrap();
        assert_eq!(operator.watermark, expected);
    }
    assert!(operator.restore_watermark(&[json!({ "first": 1 })]).is_err());
}

thread_local! {
    static NOW: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

#[test]
fn processing_time_windows_follow_the_clock() {
    let mut by_clock = spec(&[0], vec![call(AggregateFunction::CountStar, None)]);
    by_clock.time = WindowTime::Processing;
    let mut operator = WindowAggregate::with_clock(by_clock, || NOW.get()).unwrap();
    operator.open(&context(ALL), OperatorRestore::default()).unwrap();
    assert_eq!(operator.next_processing_time(), None);
    NOW.set(12);
    feed(&mut operator, rows(&[(1, 0, 900), (1, 0, 0)]));
    assert_eq!(operator.next_processing_time(), Some(20));
    let mut out = Collected::default();
    operator.on_watermark(i64::MAX, &mut out).unwrap();
    operator.on_processing_time(19, &mut out).unwrap();
    assert!(out.0.is_empty());
    operator.on_processing_time(20, &mut out).unwrap();
    assert_eq!(out.lines(), [format!("+I 1 2 {} {} {}Z", at(10), at(20), at(19))]);
}

#[derive(Debug, Clone)]
enum Step {
    Rows(Vec<Row>),
    Watermark(i64),
    Snapshot { cut: Cut, compact: bool },
    Copy,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0i64..5, -3i64..4, 0i64..120);
    let step = prop_oneof![
        5 => prop::collection::vec(row, 0..15).prop_map(Step::Rows),
        3 => (0i64..25).prop_map(Step::Watermark),
        2 => (prop::bool::weighted(0.25), any::<bool>())
            .prop_map(|(whole, compact)| Step::Snapshot { cut: if whole { Cut::Whole } else { Cut::Changes }, compact }),
        1 => Just(Step::Copy),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the model remembers: rows of open windows by end, and the watermark.
#[derive(Debug, Clone, Default)]
struct Model {
    open: BTreeMap<i64, Vec<Row>>,
    watermark: i64,
}

impl Model {
    fn add(&mut self, row: Row) {
        let end = row.2.div_euclid(10) * 10 + 10;
        if end - 1 > self.watermark {
            self.open.entry(end).or_default().push(row);
        }
    }

    fn advance(&mut self, watermark: i64, distinct: bool) -> Vec<String> {
        self.watermark = watermark;
        let mut lines = Vec::new();
        while let Some((&end, _)) = self.open.first_key_value() {
            if end - 1 > watermark {
                break;
            }
            let rows = self.open.remove(&end).unwrap();
            let mut keys: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for (key, value, _) in rows {
                keys.entry(key).or_default().push(value);
            }
            for (key, values) in keys {
                let last = if distinct {
                    values.iter().collect::<BTreeSet<_>>().len() as i64
                } else {
                    *values.iter().max().unwrap()
                };
                let sum: i64 = values.iter().sum();
                let times = format!("{} {} {}", at(end - 10), at(end), at(end - 1));
                lines.push(format!("+I {key} {} {sum} {last} {times}", values.len()));
            }
        }
        lines.sort();
        lines
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn agrees_with_the_query_over_all_rows(steps in steps(), distinct in any::<bool>()) {
        let last = if distinct { AggregateFunction::CountDistinct } else { AggregateFunction::Max };
        let calls = vec![call(AggregateFunction::CountStar, None), call(AggregateFunction::Sum, Some(1)), call(last, Some(1))];
        // Without distinct calls rows come as partial results.
        let local = (!distinct).then(|| LocalAggregateSpec {
            schema: rows(&[]).schema(),
            keys: vec![0],
            calls: calls.clone(),
            window: Some((2, WINDOW)),
        });
        let mut spec = spec(&[0], calls);
        if let Some(local) = &local {
            spec.input = local.partials().unwrap();
        }
        let mut local = local.map(|local| LocalAggregate::new(local).unwrap());
        let mut operator = open(&spec, OperatorRestore::default());
        let mut model = Model { watermark: i64::MIN, ..Model::default() };
        let mut now = 0;
        let mut saved = (Files::default(), model.clone(), now);
        for step in steps {
            match step {
                Step::Rows(new) => {
                    new.iter().for_each(|&row| model.add(row));
                    match &mut local {
                        None => feed(&mut operator, rows(&new)),
                        Some(local) => {
                            let mut partials = Collected::default();
                            local.process(0, Batch::inserts(rows(&new)), &mut partials).unwrap();
                            for partial in partials.0 {
                                feed(&mut operator, partial.rows);
                            }
                        }
                    }
                }
                Step::Watermark(by) => {
                    now += by;
                    prop_assert_eq!(sorted(&advance(&mut operator, now)), model.advance(now, distinct));
                }
                Step::Copy => {
                    let mut copy = Files::default();
                    copy.add(operator.snapshot(1, Cut::Copy).unwrap());
                    let open: usize = model.open.values().map(|rows| rows.iter().map(|row| row.0).collect::<BTreeSet<_>>().len()).sum();
                    prop_assert_eq!(copy.rows("windows").len(), open);
                }
                Step::Snapshot { cut, compact } => {
                    saved.0.add(operator.snapshot(1, cut).unwrap());
                    if compact {
                        saved.0.compact();
                    }
                    saved.1 = model.clone();
                    saved.2 = now;
                    let open: usize = model.open.values().map(|rows| rows.iter().map(|row| row.0).collect::<BTreeSet<_>>().len()).sum();
                    prop_assert_eq!(saved.0.rows("windows").len(), open);
                }
                Step::Crash => {
                    operator = open(&spec, saved.0.restore(ALL));
                    model = saved.1.clone();
                    now = saved.2;
                }
            }
        }
        prop_assert_eq!(sorted(&advance(&mut operator, i64::MAX)), model.advance(i64::MAX, distinct));
    }
}
