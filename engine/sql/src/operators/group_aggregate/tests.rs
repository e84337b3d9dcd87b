use super::*;
use crate::operators::AggregateFunction;
use crate::operators::local_aggregate::{LocalAggregate, LocalAggregateSpec};
use crate::operators::testing::*;
use arrow::array::{BooleanArray, Int64Array, StringArray};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use streamjob_protocol::manifest::KeyGroupRange;

/// Key, value, filter.
type Row = (Option<i64>, Option<i64>, Option<bool>);

fn rows(rows: &[Row]) -> RecordBatch {
    batch(vec![
        ("k", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)))),
        ("v", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1)))),
        ("f", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.2)))),
        ("t", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.map(|value| format!("t{value}")))))),
    ])
}

fn call(function: AggregateFunction, argument: Option<usize>, filter: Option<usize>) -> AggregateCall {
    let types = [DataType::Int64, DataType::Int64, DataType::Boolean, DataType::Utf8];
    let argument = argument.map(|position| (position, types[position].clone()));
    let name = format!("{function:?}{}", if filter.is_some() { "-filtered" } else { "" });
    AggregateCall { function, argument, filter, name }
}

fn spec(keys: &[usize], calls: Vec<AggregateCall>, retractable: bool) -> GroupAggregateSpec {
    GroupAggregateSpec {
        input: AggregateInput::Rows { schema: rows(&[]).schema(), keys: keys.to_vec() },
        calls,
        retractable,
        emit_update_before: true,
    }
}

fn open(spec: &GroupAggregateSpec, restore: OperatorRestore) -> GroupAggregate {
    let mut operator = GroupAggregate::new(spec.clone()).unwrap();
    operator.open(&context(ALL), restore).unwrap();
    operator
}

fn feed(operator: &mut GroupAggregate, batch: Batch) -> Collected {
    let mut out = Collected::default();
    operator.process(0, batch, &mut out).unwrap();
    out
}

fn simple(values: &[(i64, i64)]) -> Batch {
    Batch::inserts(rows(&values.iter().map(|&(key, value)| (Some(key), Some(value), None)).collect::<Vec<_>>()))
}

#[test]
fn each_touched_key_emits_one_change_a_batch() {
    let calls = vec![call(AggregateFunction::CountStar, None, None), call(AggregateFunction::Sum, Some(1), None)];
    let mut operator = open(&spec(&[0], calls, false), OperatorRestore::default());
    assert_eq!(feed(&mut operator, simple(&[(1, 10), (2, 20), (1, 1)])).lines(), ["+I 1 2 11", "+I 2 1 20"]);
    assert_eq!(feed(&mut operator, simple(&[(2, 5), (3, 7)])).lines(), ["-U 2 1 20", "+U 2 2 25", "+I 3 1 7"]);
    assert!(feed(&mut operator, simple(&[])).0.is_empty());
}

#[test]
fn unchanged_results_are_not_emitted_and_consumers_may_do_without_old_rows() {
    let mut max = spec(&[0], vec![call(AggregateFunction::Max, Some(1), None)], false);
    max.emit_update_before = false;
    let mut operator = open(&max, OperatorRestore::default());
    assert_eq!(feed(&mut operator, simple(&[(1, 10)])).lines(), ["+I 1 10"]);
    assert!(feed(&mut operator, simple(&[(1, 9), (1, 10)])).lines().is_empty());
    assert_eq!(feed(&mut operator, simple(&[(1, 11)])).lines(), ["+U 1 11"]);
    let mut count = spec(&[0], vec![call(AggregateFunction::CountStar, None, None)], false);
    count.emit_update_before = false;
    let mut operator = open(&count, OperatorRestore::default());
    assert_eq!(feed(&mut operator, simple(&[(1, 10)])).lines(), ["+I 1 1"]);
    assert_eq!(feed(&mut operator, simple(&[(1, 10), (2, 1)])).lines(), ["+U 1 2", "+I 2 1"]);
}

#[test]
fn without_calls_distinct_keys_are_emitted_once() {
    let mut operator = open(&spec(&[0, 3], vec![], false), OperatorRestore::default());
    assert_eq!(feed(&mut operator, simple(&[(1, 10), (1, 10), (1, 11)])).lines(), ["+I 1 t10", "+I 1 t11"]);
    assert!(feed(&mut operator, simple(&[(1, 10)])).lines().is_empty());
}

#[test]
fn without_keys_there_is_one_group_from_the_first_row_on() {
    let calls = vec![call(AggregateFunction::CountStar, None, None)];
    let mut operator = open(&spec(&[], calls.clone(), false), OperatorRestore::default());
    assert_eq!(feed(&mut operator, simple(&[(1, 1), (2, 2)])).lines(), ["+I 2"]);
    assert_eq!(feed(&mut operator, simple(&[(3, 3)])).lines(), ["-U 2", "+U 3"]);
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    let mut operator = open(&spec(&[], calls, false), files.restore(ALL));
    assert_eq!(feed(&mut operator, simple(&[(3, 3)])).lines(), ["-U 3", "+U 4"]);
}

#[test]
fn a_key_whose_rows_are_all_taken_back_goes() {
    let calls =
        vec![call(AggregateFunction::Sum, Some(1), None), call(AggregateFunction::CountDistinct, Some(3), None)];
    let spec = spec(&[0], calls, true);
    let mut operator = open(&spec, OperatorRestore::default());
    let change = |rows_: &[Row], kinds: Vec<u8>| Batch::changes(rows(rows_), kinds);
    let row = |key: i64, value: i64| (Some(key), Some(value), None);
    let (insert, before, after, delete) = (0u8, 1u8, 2u8, 3u8);
    feed(&mut operator, change(&[row(1, 5), row(1, 6)], vec![insert, insert]));
    assert_eq!(
        feed(&mut operator, change(&[row(1, 5), row(1, 7)], vec![before, after])).lines(),
        ["-U 1 11 2", "+U 1 13 2"]
    );
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    assert_eq!(files.rows("groups-CountDistinct"), [["1", "t6", "1"], ["1", "t7", "1"]]);
    assert_eq!(feed(&mut operator, change(&[row(1, 6), row(1, 7)], vec![delete, delete])).lines(), ["-D 1 13 2"]);
    // Came and went within a batch; taken back without having come.
    assert!(feed(&mut operator, change(&[row(2, 6), row(2, 6)], vec![insert, delete])).lines().is_empty());
    assert!(feed(&mut operator, change(&[row(9, 6)], vec![delete])).lines().is_empty());
    files.add(operator.snapshot(2, Cut::Changes).unwrap());
    assert!(files.rows("groups").is_empty());
    assert!(files.rows("groups-CountDistinct").is_empty());
    assert_eq!(feed(&mut operator, change(&[row(1, 6)], vec![insert])).lines(), ["+I 1 6 1"]);
}

#[test]
fn deltas_hold_changed_keys_only_and_full_cuts_everything() {
    let calls =
        vec![call(AggregateFunction::CountStar, None, None), call(AggregateFunction::CountDistinct, Some(1), None)];
    let mut operator = open(&spec(&[0], calls, false), OperatorRestore::default());
    let many: Vec<(i64, i64)> = (0..1000).map(|key| (key, key)).collect();
    feed(&mut operator, simple(&many));
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("groups"), 1000);
    feed(&mut operator, simple(&[(5, 5), (5, 6), (7, 7)]));
    files.add(operator.snapshot(2, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("groups"), 2);
    assert_eq!(files.newest_rows("groups-CountDistinct"), 1, "value 6 of key 5");
    files.add(operator.snapshot(3, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("groups"), 0);
    files.add(operator.snapshot(4, Cut::Whole).unwrap());
    assert_eq!(files.newest_rows("groups"), 1000);
    assert_eq!(files.newest_rows("groups-CountDistinct"), 1001);
}

#[test]
fn changes_that_add_up_to_more_than_the_table_end_in_a_whole_cut() {
    let mut operator =
        open(&spec(&[0], vec![call(AggregateFunction::CountStar, None, None)], false), OperatorRestore::default());
    let keys = |from: i64, to: i64| simple(&(from..to).map(|key| (key, 0)).collect::<Vec<_>>());
    feed(&mut operator, keys(0, 100));
    let mut whole = Vec::new();
    for _ in 0..12 {
        whole.push(operator.snapshot(1, Cut::Changes).unwrap().keyed[0].full);
        feed(&mut operator, keys(0, 40));
    }
    let changes = [false; 5];
    assert_eq!(whole, [&[true], &changes[..], &[true], &changes[..]].concat());
}

/// Batches are numbered in 32 bits; when the numbers begin anew no change is forgotten.
#[test]
fn changes_are_not_lost_when_batches_are_numbered_anew() {
    let mut operator =
        open(&spec(&[0], vec![call(AggregateFunction::CountStar, None, None)], false), OperatorRestore::default());
    operator.stamp = u32::MAX - 8;
    feed(&mut operator, simple(&(0..100).map(|key| (key, 0)).collect::<Vec<_>>()));
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    for key in 0..8 {
        feed(&mut operator, simple(&[(key, 0), (9, 0)]));
    }
    assert!(operator.stamp < 100, "the numbers began anew");
    files.add(operator.snapshot(2, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("groups"), 9);
    let mut counts = files.rows("groups");
    counts.retain(|row| row[1] != "1");
    assert_eq!(counts.len(), 9, "{counts:?}");
}

/// A savepoint between two checkpoints: the second one still has what changed since the first, removed keys too.
#[test]
fn a_copy_takes_nothing_away_from_the_next_changes() {
    let calls =
        vec![call(AggregateFunction::Sum, Some(1), None), call(AggregateFunction::CountDistinct, Some(1), None)];
    let spec = spec(&[0], calls, true);
    let mut operator = open(&spec, OperatorRestore::default());
    let many: Vec<(i64, i64)> = (0..100).map(|key| (key, key)).collect();
    feed(&mut operator, simple(&many));
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    feed(&mut operator, Batch::changes(rows(&[(Some(5), Some(5), None), (Some(7), Some(1), None)]), vec![3, 0]));
    for _ in 0..2 {
        let mut copy = Files::default();
        copy.add(operator.snapshot(2, Cut::Copy).unwrap());
        assert_eq!(copy.rows("groups").len(), 99);
        assert_eq!(copy.rows("groups-CountDistinct").len(), 100);
    }
    // Removed after the copy, which held it; the checkpoint before did too.
    feed(&mut operator, Batch::changes(rows(&[(Some(9), Some(9), None)]), vec![3]));
    files.add(operator.snapshot(3, Cut::Changes).unwrap());
    assert_eq!(files.newest_rows("groups"), 3, "7 changed, 5 and 9 went");
    assert_eq!(files.newest_rows("groups-CountDistinct"), 3);
    assert_eq!(files.rows("groups").len(), 98);
    let mut copy = Files::default();
    copy.add(operator.snapshot(4, Cut::Copy).unwrap());
    assert_eq!(copy.rows("groups"), files.rows("groups"));
    assert_eq!(copy.rows("groups-CountDistinct"), files.rows("groups-CountDistinct"));
}

#[test]
fn state_of_another_query_is_refused() {
    let count = spec(&[0], vec![call(AggregateFunction::CountStar, None, None)], false);
    let mut operator = open(&count, OperatorRestore::default());
    feed(&mut operator, simple(&[(1, 1)]));
    let mut files = Files::default();
    files.add(operator.snapshot(1, Cut::Changes).unwrap());
    let other = spec(&[3], vec![call(AggregateFunction::CountStar, None, None)], false);
    let error = GroupAggregate::new(other).unwrap().open(&context(ALL), files.restore(ALL)).unwrap_err();
    assert!(matches!(&error, TaskError::Fatal(text) if text.contains("has the columns")), "{error}");
    let mut restore = files.restore(ALL);
    restore.keyed.insert("windows".into(), vec![]);
    let error = GroupAggregate::new(count).unwrap().open(&context(ALL), restore).unwrap_err();
    assert!(matches!(&error, TaskError::Fatal(text) if text.contains("it has: groups")), "{error}");
}

#[test]
fn updates_into_an_aggregation_of_inserts_are_refused() {
    let mut operator =
        open(&spec(&[0], vec![call(AggregateFunction::CountStar, None, None)], false), OperatorRestore::default());
    let batch = Batch::changes(rows(&[(Some(1), None, None)]), vec![3]);
    assert!(operator.process(0, batch, &mut Collected::default()).is_err());
}

#[test]
fn equal_floating_point_keys_are_shown_alike() {
    let schema = batch(vec![("k", Arc::new(arrow::array::Float64Array::from(vec![0.0])))]);
    let spec = GroupAggregateSpec {
        input: AggregateInput::Rows { schema: schema.schema(), keys: vec![0] },
        calls: vec![call(AggregateFunction::CountStar, None, None)],
        retractable: false,
        emit_update_before: true,
    };
    let mut operator = open(&spec, OperatorRestore::default());
    let one = |value: f64| Batch::inserts(batch(vec![("k", Arc::new(arrow::array::Float64Array::from(vec![value])))]));
    assert_eq!(feed(&mut operator, one(-0.0)).lines(), ["+I 0.0 1"]);
    assert_eq!(feed(&mut operator, one(0.0)).lines(), ["-U 0.0 1", "+U 0.0 2"]);
}

/// What a consumer knows after applying all changes; fails on changes that do not fit.
#[derive(Clone, Default, PartialEq, Debug)]
struct View(BTreeMap<String, Vec<String>>);

impl View {
    fn apply(&mut self, out: &Collected) {
        for (kind, values) in out.changes() {
            let key = values[0].clone();
            match kind {
                "+I" => assert!(self.0.insert(key, values).is_none(), "inserted twice"),
                "-U" | "-D" => assert_eq!(self.0.remove(&key), Some(values), "{kind} of another row"),
                _ => assert!(self.0.insert(key, values).is_none(), "+U without -U"),
            }
        }
    }
}

fn text(value: Option<i64>) -> String {
    value.map_or("NULL".into(), |value| value.to_string())
}

/// The same query, computed from all rows.
fn expected(rows: &[Row], append_only: bool) -> View {
    let mut groups: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(row.0).or_default().push(*row);
    }
    let mut view = View::default();
    for (key, rows) in groups {
        let values: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
        let filtered: Vec<i64> = rows.iter().filter(|row| row.2 == Some(true)).filter_map(|row| row.1).collect();
        let sum = |values: &[i64]| (!values.is_empty()).then(|| values.iter().sum::<i64>());
        let distinct = |values: &[i64]| values.iter().collect::<BTreeSet<_>>().len() as i64;
        let mut row = vec![
            text(key),
            rows.len().to_string(),
            values.len().to_string(),
            text(sum(&values)),
            text(sum(&filtered)),
            text(sum(&values).map(|sum| sum / values.len() as i64)),
            distinct(&values).to_string(),
            distinct(&filtered).to_string(),
        ];
        if append_only {
            row.push(text(values.iter().min().copied()));
            row.push(filtered.iter().map(|value| format!("t{value}")).max().unwrap_or("NULL".into()));
        }
        view.0.insert(text(key), row);
    }
    view
}

fn all_calls(append_only: bool) -> Vec<AggregateCall> {
    use AggregateFunction::*;
    let mut calls = vec![
        call(CountStar, None, None),
        call(Count, Some(1), None),
        call(Sum, Some(1), None),
        call(Sum, Some(1), Some(2)),
        call(Avg, Some(1), None),
        call(CountDistinct, Some(1), None),
        call(CountDistinct, Some(3), Some(2)),
    ];
    if append_only {
        calls.push(call(Min, Some(1), None));
        calls.push(call(Max, Some(3), Some(2)));
    }
    calls
}

#[derive(Debug, Clone)]
enum Step {
    /// New rows, and which of the present ones are taken back.
    Rows(Vec<Row>, Vec<prop::sample::Index>),
    Snapshot {
        cut: Cut,
        compact: bool,
    },
    /// Kept apart: the snapshots after it do not build on it.
    Copy,
    /// The task dies; it goes on from the last snapshot.
    Crash,
}

fn a_row() -> impl Strategy<Value = Row> {
    (
        prop::option::weighted(0.9, 0i64..6),
        prop::option::weighted(0.8, -4i64..5),
        prop::option::weighted(0.8, any::<bool>()),
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = (prop::collection::vec(a_row(), 0..12), prop::collection::vec(any::<prop::sample::Index>(), 0..12));
    let step = prop_oneof![
        5 => rows.prop_map(|(rows, back)| Step::Rows(rows, back)),
        2 => (prop::bool::weighted(0.25), any::<bool>())
            .prop_map(|(whole, compact)| Step::Snapshot { cut: if whole { Cut::Whole } else { Cut::Changes }, compact }),
        1 => Just(Step::Copy),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

#[test]
fn r32_what_comes_after_the_cut_is_not_in_the_snapshot() {
    let spec = spec(&[0], vec![call(AggregateFunction::Sum, Some(1), None)], false);
    for cut in [Cut::Changes, Cut::Whole, Cut::Copy] {
        let mut operator = open(&spec, OperatorRestore::default());
        feed(&mut operator, simple(&[(1, 10), (2, 20)]));
        let cut = operator.snapshot(1, cut).unwrap();
        // The cut is written while processing goes on.
        feed(&mut operator, simple(&[(1, 100), (3, 300)]));
        let mut files = Files::default();
        files.add(cut);
        let mut restored = open(&spec, files.restore(ALL));
        let next = feed(&mut restored, simple(&[(1, 1), (2, 1), (3, 1)]));
        assert_eq!(next.lines(), ["-U 1 10", "+U 1 11", "-U 2 20", "+U 2 21", "+I 3 1"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn agrees_with_the_query_over_all_rows(steps in steps(), append_only in any::<bool>()) {
        let spec = spec(&[0], all_calls(append_only), !append_only);
        let mut operator = open(&spec, OperatorRestore::default());
        let (mut present, mut view) = (Vec::<Row>::new(), View::default());
        let mut saved = (Files::default(), present.clone(), view.clone());
        for step in steps {
            match step {
                Step::Rows(new, back) => {
                    let mut changed: Vec<(Row, u8)> = Vec::new();
                    for row in new {
                        present.push(row);
                        changed.push((row, 0));
                    }
                    if !append_only {
                        for index in back {
                            if !present.is_empty() {
                                let row = present.swap_remove(index.index(present.len()));
                                changed.push((row, 3));
                            }
                        }
                    }
                    let kinds = changed.iter().map(|change| change.1).collect();
                    let changed: Vec<Row> = changed.iter().map(|change| change.0).collect();
                    view.apply(&feed(&mut operator, Batch::changes(rows(&changed), kinds)));
                    prop_assert_eq!(&view, &expected(&present, append_only));
                }
                Step::Copy => {
                    let mut copy = Files::default();
                    copy.add(operator.snapshot(1, Cut::Copy).unwrap());
                    let mut restored = open(&spec, copy.restore(ALL));
                    let mut again = Files::default();
                    again.add(restored.snapshot(1, Cut::Copy).unwrap());
                    for layout in &operator.layouts {
                        prop_assert_eq!(copy.rows(&layout.name), again.rows(&layout.name));
                    }
                    prop_assert_eq!(copy.rows("groups").len(), view.0.len());
                }
                Step::Snapshot { cut, compact } => {
                    saved.0.add(operator.snapshot(1, cut).unwrap());
                    if compact {
                        saved.0.compact();
                    }
                    saved.1 = present.clone();
                    saved.2 = view.clone();
                    prop_assert_eq!(saved.0.rows("groups").len(), view.0.len());
                }
                Step::Crash => {
                    operator = open(&spec, saved.0.restore(ALL));
                    present = saved.1.clone();
                    view = saved.2.clone();
                }
            }
        }
    }

    /// Two subtasks behind local aggregations give what one gives that sees all rows; restored by key-group range.
    #[test]
    fn partials_and_ranges_add_up(batches in prop::collection::vec(prop::collection::vec(a_row(), 1..30), 1..8), cut in 0u16..15) {
        use AggregateFunction::*;
        let calls = vec![call(CountStar, None, None), call(Sum, Some(1), Some(2)), call(Avg, Some(1), None), call(Min, Some(3), None)];
        let local = LocalAggregateSpec { schema: rows(&[]).schema(), keys: vec![0], calls: calls.clone(), window: None };
        let merging = GroupAggregateSpec {
            input: local.partials().unwrap(),
            ..spec(&[0], calls.clone(), false)
        };
        let mut local = LocalAggregate::new(local).unwrap();
        let mut two_phase = open(&merging, OperatorRestore::default());
        let mut direct = open(&spec(&[0], calls, false), OperatorRestore::default());
        let (mut left, mut right) = (View::default(), View::default());
        for batch in &batches {
            let mut partials = Collected::default();
            local.process(0, Batch::inserts(rows(batch)), &mut partials).unwrap();
            for partial in partials.0 {
                left.apply(&feed(&mut two_phase, partial));
            }
            right.apply(&feed(&mut direct, Batch::inserts(rows(batch))));
        }
        prop_assert_eq!(&left, &right);
        let mut files = Files::default();
        files.add(two_phase.snapshot(1, Cut::Changes).unwrap());
        let mut rows_of_parts = Vec::new();
        for (first, last) in [(0, cut), (cut + 1, 15)] {
            let mut part = open(&merging, files.restore(KeyGroupRange { first, last }));
            let mut files = Files::default();
            files.add(part.snapshot(2, Cut::Whole).unwrap());
            rows_of_parts.extend(files.rows("groups"));
        }
        rows_of_parts.sort();
        prop_assert_eq!(rows_of_parts, files.rows("groups"));
    }
}
