//! `GROUP BY`, `DISTINCT` and windows, from text to rows.

use super::harness::{Emitted, Memory, context};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use std::sync::Arc;
use streamjob_dataflow::{Batch, Instance, OperatorRestore};

const TABLES: &str = "
CREATE TABLE t (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('connector' = 'memory');
";

fn batch(rows: &[(Option<&str>, Option<i64>, i64)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(vec![
        ("k", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0))) as ArrayRef, true),
        ("v", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))) as ArrayRef, true),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.2))) as ArrayRef, true),
    ])
    .unwrap()
}

fn memory() -> Memory {
    let memory = Memory::default();
    memory.give("t", batch(&[(Some("a"), Some(1), 1000), (Some("b"), Some(5), 2000), (Some("a"), Some(3), 9000)]));
    memory.give("t", batch(&[(Some("a"), None, 12_000), (None, Some(7), 13_000), (Some("b"), Some(5), 3000)]));
    memory
}

fn sql(columns: &str, select: &str) -> String {
    format!("{TABLES} CREATE TABLE out ({columns}) WITH ('connector' = 'memory'); INSERT INTO out {select};")
}

fn rows(columns: &str, select: &str) -> Vec<String> {
    memory().run(&sql(columns, select), "out")
}

/// What is left when the changes are applied.
fn last(columns: &str, select: &str) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    for change in rows(columns, select) {
        let (kind, row) = change.split_once(' ').unwrap();
        match kind {
            "+I" | "+U" => left.push(row.to_string()),
            _ => {
                let index =
                    left.iter().position(|known| known == row).unwrap_or_else(|| panic!("{change} was not there"));
                left.remove(index);
            }
        }
    }
    left.sort();
    left
}

#[test]
fn aggregates_have_flinks_types_and_leave_nulls_out() {
    let columns = "k STRING, n BIGINT, nv BIGINT, s BIGINT, lo BIGINT, hi BIGINT, mean BIGINT, d BIGINT";
    let select = "SELECT k, COUNT(*), COUNT(v), SUM(v), MIN(v), MAX(v), AVG(v), COUNT(DISTINCT v) FROM t GROUP BY k";
    assert_eq!(last(columns, select), ["-|1|1|7|7|7|7|1", "a|3|2|4|1|3|2|2", "b|2|2|10|5|5|5|1"]);
}

#[test]
fn expressions_stand_around_and_inside_aggregates() {
    let select = "SELECT UPPER(k) || '!', SUM(v * 2) + 1 FROM t WHERE v > 1 GROUP BY k HAVING COUNT(*) > 1";
    assert_eq!(last("k STRING, s BIGINT", select), ["B!|21"]);
    let select = "SELECT SUM(CASE WHEN v > 3 THEN 1 ELSE 0 END), COUNT(*) FILTER (WHERE k = 'a') FROM t";
    assert_eq!(last("n INT, m BIGINT", select), ["3|3"]);
    let select = "SELECT AVG(v * 1.5), SUM(CAST(v AS DOUBLE)) FROM t";
    assert_eq!(last("a DECIMAL(38, 6), b DOUBLE", select), ["6.300000|21.0"]);
}

#[test]
fn distinct_gives_each_row_once() {
    assert_eq!(rows("k STRING", "SELECT DISTINCT k FROM t"), ["+I a", "+I b", "+I -"]);
    assert_eq!(last("n BIGINT", "SELECT COUNT(*) FROM (SELECT DISTINCT k FROM t) AS x"), ["3"]);
}

#[test]
fn an_aggregate_over_an_aggregate_takes_back_what_changed() {
    let select = "SELECT n, COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS x GROUP BY n";
    assert_eq!(last("n BIGINT, m BIGINT", select), ["1|1", "2|1", "3|1"]);
}

#[test]
fn windows_fire_once_when_the_watermark_passes_their_end() {
    let select = "SELECT k, window_start, window_end, SUM(v) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) \
                  GROUP BY k, window_start, window_end";
    let columns = "k STRING, ws TIMESTAMP(3), we TIMESTAMP(3), s BIGINT";
    let day = "1970-01-01T00:00:";
    let mut found = rows(columns, select);
    found.sort();
    // The row of second 3 comes when the watermark stands at 7: its window is over, and it is dropped.
    let mut expected = [
        format!("+I a|{day}00|{day}05|1"),
        format!("+I b|{day}00|{day}05|5"),
        format!("+I a|{day}05|{day}10|3"),
        format!("+I a|{day}10|{day}15|-"),
        format!("+I -|{day}10|{day}15|7"),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn r67_increasing_timestamps_give_watermarks_one_millisecond_behind_the_highest() {
    let memory = Memory::default();
    let graph = memory
        .plan(
            "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.001' SECOND)
                 WITH ('connector' = 'memory');
             CREATE TABLE out (ts TIMESTAMP(3)) WITH ('connector' = 'memory'); INSERT INTO out SELECT ts FROM t;",
        )
        .unwrap();
    let node = graph.nodes.iter().find(|node| node.uid == "watermark:t").unwrap();
    let context = context(&node.uid, &node.name);
    let Instance::Operator(mut assigner) = (node.factory)(&context).unwrap() else { panic!("not an operator") };
    assigner.open(&context, OperatorRestore::default()).unwrap();
    let mut emitted = Emitted::default();
    for times in [vec![1000, 1500, 2000], vec![2500], vec![2400], vec![9000, 9001]] {
        let times = Arc::new(TimestampMillisecondArray::from(times)) as ArrayRef;
        let rows = RecordBatch::try_from_iter_with_nullable([("ts", times, true)]).unwrap();
        assigner.process(0, Batch::inserts(rows), &mut emitted).unwrap();
    }
    assert_eq!(emitted.watermarks, [1999, 2499, 9000], "never back, one a batch at most");
}

#[test]
fn windows_have_offsets_and_named_arguments_and_a_short_form() {
    let window = |function: &str| {
        let select = format!("SELECT window_start, COUNT(*) FROM {function} GROUP BY window_start, window_end");
        let mut rows = rows("ws TIMESTAMP(3), n BIGINT", &select);
        rows.sort();
        rows
    };
    let expected = ["+I 1969-12-31T23:59:59|3", "+I 1970-01-01T00:00:09|3"];
    let size = "INTERVAL '10' SECOND, INTERVAL '-1' SECOND";
    assert_eq!(window(&format!("TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), {size}))")), expected);
    assert_eq!(window(&format!("TUMBLE(TABLE t, DESCRIPTOR(ts), {size})")), expected);
    let named =
        "DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECONDS, OFFSET => INTERVAL '-1' SECOND";
    assert_eq!(window(&format!("TABLE(TUMBLE({named})) AS w")), expected);
}

#[test]
fn the_columns_of_a_window_can_be_read_without_an_aggregation() {
    let select = "SELECT k, window_end FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) WHERE k = 'b'";
    let expected = ["+I b|1970-01-01T00:01:00", "+I b|1970-01-01T00:01:00"];
    assert_eq!(rows("k STRING, we TIMESTAMP(3)", select), expected);
}

#[test]
fn windows_stand_behind_windows() {
    let select = "SELECT window_end, SUM(n) FROM TABLE(TUMBLE(TABLE v, DESCRIPTOR(rowtime), INTERVAL '10' SECOND)) \
                  GROUP BY window_start, window_end";
    let sql = format!(
        "{TABLES}
        CREATE VIEW v AS SELECT window_time AS rowtime, COUNT(*) AS n
            FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY window_start, window_end, window_time;
        CREATE TABLE out (we TIMESTAMP(3), n BIGINT) WITH ('connector' = 'memory');
        INSERT INTO out {select};"
    );
    assert_eq!(memory().run(&sql, "out"), ["+I 1970-01-01T00:00:10|3", "+I 1970-01-01T00:00:20|2"]);
}

#[test]
fn a_filter_on_keys_moves_below_the_aggregation() {
    let select = "SELECT * FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS x WHERE k = 'a'";
    let graph = memory().plan(&sql("k STRING, n BIGINT", select)).unwrap();
    let calc = graph.nodes.iter().find(|node| node.uid == "out/calc-1").unwrap();
    assert!(calc.description.contains("WHERE"), "{}", calc.description);
    let above = graph.nodes.iter().find(|node| node.uid == "out/calc-2").unwrap();
    assert!(!above.description.contains("WHERE"), "{}", above.description);
}

#[test]
fn distinct_calls_are_not_aggregated_before_the_exchange() {
    let uids = |select: &str| -> Vec<String> {
        let graph = crate::plan(&sql("n BIGINT", select), 2, &memory().connectors()).unwrap();
        graph.nodes.into_iter().map(|node| node.uid).collect()
    };
    assert!(uids("SELECT COUNT(v) FROM t GROUP BY k").contains(&"out/local-aggregate-1".to_string()));
    assert!(!uids("SELECT COUNT(DISTINCT v) FROM t GROUP BY k").contains(&"out/local-aggregate-1".to_string()));
}

#[test]
fn old_rows_are_left_out_only_where_nobody_needs_them() {
    let kinds = |select: &str| -> String {
        let sql = format!(
            "{TABLES} CREATE TABLE out (n BIGINT) WITH ('connector' = 'memory', 'needs-update-before' = 'false');
            INSERT INTO out {select};"
        );
        memory().run(&sql, "out").iter().map(|row| &row[..2]).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds("SELECT COUNT(*) FROM t GROUP BY k"), "+I +I +U +I +U");
    // A filter behind the aggregation, or another aggregation, sees what is taken back.
    let filtered = kinds("SELECT COUNT(*) FROM t GROUP BY k HAVING COUNT(*) < 3");
    assert!(filtered.contains("-U"), "{filtered}");
    let nested = "SELECT COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS x GROUP BY n";
    let counts: i64 = last("n BIGINT", nested).iter().map(|n| n.parse::<i64>().unwrap()).sum();
    assert_eq!(counts, 3, "each key is in one group of the outer aggregation");
}
