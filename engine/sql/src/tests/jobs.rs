//! Whole jobs over small tables: what Calc, sources and sinks do together.

use super::harness::{Emitted, Memory, context, run};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use std::sync::Arc;
use streamjob_dataflow::graph::{Exchange, Guarantee};
use streamjob_dataflow::{Batch, Instance, Operator, OperatorRestore, RowKind};

const TABLES: &str = "
CREATE TABLE t (a BIGINT, b INT, s STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
    WITH ('connector' = 'memory');
";

/// Columns a, b, s and ts.
type Row<'a> = (Option<i64>, Option<i32>, Option<&'a str>, i64);

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("a", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))), true),
        ("b", Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.1))), true),
        ("s", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.2))), true),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.3))), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn memory() -> Memory {
    let memory = Memory::default();
    memory.give("t", batch(&[(Some(1), Some(10), Some("x"), 1000), (Some(2), Some(0), None, 2000)]));
    memory.give("t", batch(&[(None, Some(-7), Some("Öl"), 3000), (Some(4), None, Some(""), 1500)]));
    memory
}

/// The rows of `SELECT select FROM t`, written to a sink with `columns`.
fn query(columns: &str, select: &str) -> Vec<String> {
    memory().run(
        &format!("{TABLES} CREATE TABLE out ({columns}) WITH ('connector' = 'memory'); INSERT INTO out {select};"),
        "out",
    )
}

#[test]
fn expressions_have_flinks_types_and_values() {
    // A sink's type that the query does not fit without a cast would be an error.
    let cases = [
        ("v BIGINT", "SELECT a + b FROM t", ["11", "2", "-", "-"]),
        ("v INT", "SELECT b + 1 FROM t", ["11", "1", "-6", "-"]),
        ("v INT", "SELECT MOD(a, 3) FROM t", ["1", "2", "-", "1"]),
        ("v INT", "SELECT b / 3 FROM t", ["3", "0", "-2", "-"]),
        ("v INT", "SELECT CASE WHEN b > 0 THEN 1 ELSE 0 END FROM t", ["1", "0", "0", "0"]),
        ("v DECIMAL(13, 1)", "SELECT b * 1.5 FROM t", ["15.0", "0.0", "-10.5", "-"]),
        ("v DECIMAL(18, 6)", "SELECT b / 4.0 FROM t", ["2.500000", "0.000000", "-1.750000", "-"]),
        ("v DOUBLE", "SELECT b * 1e1 FROM t", ["100.0", "0.0", "-70.0", "-"]),
        ("v DOUBLE", "SELECT POWER(b, 2) FROM t", ["100.0", "0.0", "49.0", "-"]),
        ("v DECIMAL(4, 1)", "SELECT ROUND(12.345, 1) FROM t", ["12.3", "12.3", "12.3", "12.3"]),
        ("v STRING", "SELECT CAST(b AS STRING) || s FROM t", ["10x", "-", "-7Öl", "-"]),
        ("v STRING", "SELECT CAST(a > 1 AS STRING) FROM t", ["FALSE", "TRUE", "-", "TRUE"]),
        ("v STRING", "SELECT UPPER(COALESCE(s, 'none')) FROM t", ["X", "NONE", "ÖL", ""]),
        ("v INT", "SELECT CHAR_LENGTH(s) FROM t", ["1", "-", "2", "0"]),
        ("v STRING", "SELECT SUBSTRING(s FROM 2) FROM t", ["", "-", "l", ""]),
        ("v STRING", "SELECT TRIM(BOTH 'x' FROM s) FROM t", ["", "-", "Öl", ""]),
        ("v INT", "SELECT POSITION('l' IN s) FROM t", ["0", "-", "2", "0"]),
        ("v BIGINT", "SELECT EXTRACT(SECOND FROM ts) FROM t", ["1", "2", "3", "1"]),
        (
            "v STRING",
            "SELECT DATE_FORMAT(ts, 'mm:ss.SSS') FROM t",
            ["00:01.000", "00:02.000", "00:03.000", "00:01.500"],
        ),
        (
            "v STRING",
            "SELECT CAST(ts AS STRING) FROM t",
            [
                "1970-01-01 00:00:01.000",
                "1970-01-01 00:00:02.000",
                "1970-01-01 00:00:03.000",
                "1970-01-01 00:00:01.500",
            ],
        ),
        (
            "v TIMESTAMP(3)",
            "SELECT ts + INTERVAL '1' MINUTE FROM t",
            ["1970-01-01T00:01:01", "1970-01-01T00:01:02", "1970-01-01T00:01:03", "1970-01-01T00:01:01.500"],
        ),
        ("v BOOLEAN", "SELECT ts > '1970-01-01 00:00:01.600' FROM t", ["false", "true", "true", "false"]),
        ("v BOOLEAN", "SELECT a BETWEEN 1 AND 2 FROM t", ["true", "true", "-", "false"]),
        ("v BOOLEAN", "SELECT s LIKE '_' FROM t", ["true", "-", "false", "false"]),
        ("v BOOLEAN", "SELECT a IS NULL OR s IN ('x', 'y') FROM t", ["true", "-", "true", "false"]),
        ("v INT", "SELECT NULLIF(b, 0) FROM t", ["10", "-", "-7", "-"]),
        ("v INT", "SELECT TRY_CAST(s AS INT) FROM t", ["-", "-", "-", "-"]),
        ("v INT", "SELECT -b FROM t", ["-10", "0", "7", "-"]),
        ("v INT", "SELECT ABS(b) FROM t", ["10", "0", "7", "-"]),
        ("v STRING", "SELECT CASE b WHEN 10 THEN 'ten' WHEN 0 THEN 'zero' END FROM t", ["ten", "zero", "-", "-"]),
        ("v BOOLEAN", "SELECT a NOT IN (1, 2) FROM t", ["false", "false", "-", "true"]),
        ("v BOOLEAN", "SELECT s IS DISTINCT FROM 'x' FROM t", ["false", "true", "true", "true"]),
        ("v BOOLEAN", "SELECT (b > 0) IS NOT TRUE FROM t", ["false", "true", "true", "true"]),
        ("v DATE", "SELECT CAST(ts AS DATE) FROM t", ["1970-01-01", "1970-01-01", "1970-01-01", "1970-01-01"]),
        ("v BOOLEAN", "SELECT ts < DATE '1970-01-02' FROM t", ["true", "true", "true", "true"]),
        ("v TIMESTAMP(3)", "SELECT TO_TIMESTAMP('2020-02-30 00:00:00') FROM t", ["-", "-", "-", "-"]),
        ("v BIGINT", "WITH x AS (SELECT a + 1 AS y FROM t) SELECT y FROM x", ["2", "3", "-", "5"]),
        ("v BIGINT", "SELECT u.`a b` FROM (SELECT a AS `a b` FROM t) AS u", ["1", "2", "-", "4"]),
        ("v DOUBLE", "SELECT FLOOR(CAST(b AS DOUBLE) / 4) FROM t", ["2.0", "0.0", "-2.0", "-"]),
        ("v STRING", "SELECT CONCAT_WS('-', s, CAST(b AS STRING)) FROM t", ["x-10", "0", "Öl--7", ""]),
        ("v INT", "SELECT 2147483647 + b FROM t", ["-2147483639", "2147483647", "2147483640", "-"]),
    ];
    for (column, select, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|value| format!("+I {value}")).collect();
        assert_eq!(query(column, select), expected, "{select}");
    }
}

#[test]
fn operands_that_could_fail_run_only_for_rows_that_need_them() {
    assert_eq!(query("v BIGINT", "SELECT a FROM t WHERE b <> 0 AND 100 / b > 5"), ["+I 1"]);
    assert_eq!(query("v BIGINT", "SELECT a FROM t WHERE b = 0 OR 100 / b > 5"), ["+I 1", "+I 2"]);
    let select = "SELECT CASE WHEN b = 0 THEN -1 ELSE 100 / b END FROM t WHERE b IS NOT NULL";
    assert_eq!(query("v INT", select), ["+I 10", "+I -1", "+I -14"]);
    let select = "SELECT a FROM (SELECT a, b FROM t WHERE b <> 0) AS x WHERE 100 / b > 5";
    assert_eq!(query("v BIGINT", select), ["+I 1"]);
}

#[test]
fn a_division_by_zero_fails_the_task() {
    let memory = memory();
    let sql =
        format!("{TABLES} CREATE TABLE out (v INT) WITH ('connector' = 'memory'); INSERT INTO out SELECT 1 / b FROM t");
    let error = run(&memory.plan(&sql).unwrap()).unwrap_err().to_string();
    assert!(error.contains("Divide by zero") || error.contains("ivision by zero"), "{error}");
}

#[test]
fn null_in_a_not_null_column_of_the_sink_fails_the_task() {
    let memory = memory();
    let sql = format!(
        "{TABLES} CREATE TABLE out (v BIGINT NOT NULL) WITH ('connector' = 'memory'); INSERT INTO out SELECT a FROM t"
    );
    let error = run(&memory.plan(&sql).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("column 'v' is NOT NULL, but a row has no value for it"), "{error}");
}

#[test]
fn columns_left_out_of_an_insert_are_null() {
    let columns = "x STRING, y BIGINT, z STRING";
    let sql = format!(
        "{TABLES} CREATE TABLE out ({columns}) WITH ('connector' = 'memory'); INSERT INTO out (z, y) SELECT s, b FROM t"
    );
    assert_eq!(memory().run(&sql, "out"), ["+I -|10|x", "+I -|0|-", "+I -|-7|Öl", "+I -|-|"]);
}

#[test]
fn computed_columns_and_views_are_part_of_the_same_calc() {
    let sql = "
        CREATE TABLE t (twice AS a * 2, a BIGINT, b INT, s STRING, ts TIMESTAMP(3)) WITH ('connector' = 'memory');
        CREATE TEMPORARY VIEW v (x, y) AS SELECT twice, s FROM t WHERE a IS NOT NULL;
        CREATE TABLE out (x BIGINT, y STRING) WITH ('connector' = 'memory');
        INSERT INTO out SELECT * FROM v WHERE x > 2;";
    let memory = memory();
    assert_eq!(memory.run(sql, "out"), ["+I 4|-", "+I 8|"]);
    assert_eq!(memory.required_of("t"), ["a", "s"]);
    let uids: Vec<String> = memory.plan(sql).unwrap().nodes.into_iter().map(|node| node.uid).collect();
    assert_eq!(uids, ["source:t", "out/calc-1", "sink:out"]);
}

#[test]
fn a_statement_set_reads_a_table_once() {
    let sql = format!(
        "{TABLES}
        CREATE TABLE big (a BIGINT) WITH ('connector' = 'memory');
        CREATE TABLE small (s STRING) WITH ('connector' = 'memory');
        EXECUTE STATEMENT SET BEGIN
            INSERT INTO big SELECT a FROM t WHERE b > 0;
            INSERT INTO small SELECT s FROM t WHERE b <= 0;
            INSERT INTO small SELECT s FROM t WHERE b IS NULL;
        END;"
    );
    let memory = memory();
    assert_eq!(memory.run(&sql, "big"), ["+I 1"]);
    assert_eq!(memory.output.lock().unwrap()["small"].len(), 3);
    let uids: Vec<String> = memory.plan(&sql).unwrap().nodes.into_iter().map(|node| node.uid).collect();
    assert_eq!(
        uids,
        ["source:t", "watermark:t", "big/calc-1", "small/calc-1", "small#2/calc-1", "sink:big", "sink:small"]
    );
    assert_eq!(memory.required_of("t"), ["a", "b", "s", "ts"]);
}

#[test]
fn union_all_merges_branches_without_a_node_of_its_own() {
    let sql = format!(
        "{TABLES} CREATE TABLE out (v BIGINT) WITH ('connector' = 'memory');
        INSERT INTO out SELECT v + 1 FROM (SELECT a AS v FROM t WHERE a > 1 UNION ALL SELECT b FROM t WHERE b > 1) AS u;"
    );
    let memory = memory();
    let mut rows = memory.run(&sql, "out");
    rows.sort();
    assert_eq!(rows, ["+I 11", "+I 3", "+I 5"]);
    let graph = memory.plan(&sql).unwrap();
    let sink = graph.nodes.len() - 1;
    let into_last_calc: Vec<_> = graph.edges.iter().filter(|edge| edge.to == sink - 1).collect();
    assert_eq!(into_last_calc.len(), 2);
}

#[test]
fn a_source_that_cannot_be_split_keeps_its_parallelism_down_to_the_sink() {
    let sql = "
        CREATE TABLE t (a BIGINT, b INT, s STRING, ts TIMESTAMP(3)) WITH ('connector' = 'memory', 'splits' = '1');
        CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory');
        INSERT INTO out SELECT a FROM t;";
    let graph = crate::plan(sql, 4, &memory().connectors()).unwrap();
    assert!(graph.nodes.iter().all(|node| node.parallelism == 1));
    assert!(graph.edges.iter().all(|edge| edge.exchange == Exchange::Forward));
}

#[test]
fn the_guarantee_is_the_weakest_of_sources_and_sinks() {
    let memory = memory();
    let sql = |replayable: &str| {
        format!(
            "CREATE TABLE t (a BIGINT) WITH ('connector' = 'memory', 'replayable' = '{replayable}');
            CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory');
            INSERT INTO out SELECT a FROM t;"
        )
    };
    assert_eq!(memory.plan(&sql("true")).unwrap().guarantee, Some(Guarantee::ExactlyOnce));
    assert_eq!(memory.plan(&sql("false")).unwrap().guarantee, Some(Guarantee::AtMostOnce));
}

#[test]
fn the_same_text_has_the_same_fingerprint_and_another_query_another() {
    let memory = memory();
    let fingerprint = |select: &str| {
        let sql = format!(
            "{TABLES} CREATE TABLE out (v BIGINT) WITH ('connector' = 'memory'); INSERT INTO out SELECT {select} FROM t"
        );
        memory.plan(&sql).unwrap().into_execution(128).unwrap().plan.fingerprint
    };
    assert_eq!(fingerprint("a + 1"), fingerprint("a + 1"));
    assert_ne!(fingerprint("a + 1"), fingerprint("a + 2"));
}

/// The operator of the node with this uid.
fn operator(memory: &Memory, sql: &str, uid: &str) -> Box<dyn Operator> {
    let graph = memory.plan(sql).unwrap();
    let node = graph.nodes.iter().find(|node| node.uid == uid).unwrap();
    match (node.factory)(&context(uid, "test")).unwrap() {
        Instance::Operator(mut operator) => {
            operator.open(&context(uid, "test"), OperatorRestore::default()).unwrap();
            operator
        }
        Instance::Source(_) => panic!("a source"),
    }
}

fn calc(select: &str, columns: &str) -> Box<dyn Operator> {
    let sql = format!("{TABLES} CREATE TABLE out ({columns}) WITH ('connector' = 'memory'); INSERT INTO out {select}");
    operator(&memory(), &sql, "out/calc-1")
}

#[test]
fn calc_keeps_the_kinds_of_the_rows_that_pass() {
    let mut calc = calc("SELECT a FROM t WHERE b > 0", "a BIGINT");
    let rows = batch(&[(Some(1), Some(1), None, 0), (Some(2), Some(0), None, 0), (Some(3), Some(3), None, 0)]);
    let kinds = [RowKind::UpdateBefore, RowKind::Delete, RowKind::UpdateAfter].map(|kind| kind as u8);
    let mut out = Emitted::default();
    calc.process(0, Batch::changes(rows, kinds.to_vec()), &mut out).unwrap();
    assert_eq!(super::harness::rows(&out.batches[0]), ["-U 1", "+U 3"]);
}

#[test]
fn calc_copies_nothing_that_it_only_passes_on() {
    let mut calc = calc("SELECT a, s FROM t WHERE b > 0", "a BIGINT, s STRING");
    let mut out = Emitted::default();
    let all = batch(&[(Some(1), Some(1), Some("x"), 0), (Some(2), Some(2), Some("y"), 0)]);
    let none = batch(&[(Some(1), Some(0), Some("x"), 0), (Some(2), None, Some("y"), 0)]);
    calc.process(0, Batch::inserts(all.clone()), &mut out).unwrap();
    calc.process(0, Batch::inserts(none), &mut out).unwrap();
    assert_eq!(out.batches.len(), 1, "nothing goes out where no row passes");
    let address = |batch: &RecordBatch, column: usize| batch.column(column).to_data().buffers()[0].as_ptr();
    assert_eq!(address(&out.batches[0].rows, 0), address(&all, 0));
    assert_eq!(address(&out.batches[0].rows, 1), address(&all, 2));
}

#[test]
fn watermarks_follow_the_largest_time_and_never_go_back() {
    let sql =
        format!("{TABLES} CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory'); INSERT INTO out SELECT a FROM t");
    let mut assigner = operator(&memory(), &sql, "watermark:t");
    let mut out = Emitted::default();
    for times in [&[5000, 3000][..], &[4000], &[6000], &[6000]] {
        let rows: Vec<_> = times.iter().map(|time| (Some(1), None, None, *time)).collect();
        assigner.process(0, Batch::inserts(batch(&rows)), &mut out).unwrap();
    }
    assert_eq!(out.watermarks, [4000, 5000]);
    assert_eq!(out.batches.len(), 4);
    assert!(assigner.makes_watermarks());
}

#[test]
fn a_null_time_attribute_fails_the_task() {
    let sql = "
        CREATE TABLE t (a BIGINT, ts AS TO_TIMESTAMP(s), s STRING, WATERMARK FOR ts AS ts) WITH ('connector' = 'memory');
        CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory');
        INSERT INTO out SELECT a FROM t;";
    let mut assigner = operator(&Memory::default(), sql, "watermark:t");
    let rows = |text: &str| {
        RecordBatch::try_from_iter_with_nullable(vec![
            ("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef, true),
            ("s", Arc::new(StringArray::from(vec![text])) as ArrayRef, true),
        ])
        .unwrap()
    };
    let mut out = Emitted::default();
    assigner.process(0, Batch::inserts(rows("1970-01-01 00:00:09")), &mut out).unwrap();
    assert_eq!(out.watermarks, [9000]);
    assert_eq!(out.batches[0].rows.num_columns(), 3, "the computed time attribute is behind the physical columns");
    let error = assigner.process(0, Batch::inserts(rows("soon")), &mut out).unwrap_err().to_string();
    assert!(error.starts_with("the time attribute 'ts' is null in a row"), "{error}");
}

#[test]
fn a_silent_source_becomes_idle_after_its_timeout_and_active_with_the_next_row() {
    let sql = format!(
        "{} CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory'); INSERT INTO out SELECT a FROM t",
        TABLES.replace("'memory'", "'memory', 'scan.watermark.idle-timeout' = '10 s'")
    );
    let mut assigner = operator(&memory(), &sql, "watermark:t");
    let mut out = Emitted::default();
    let rows = || Batch::inserts(batch(&[(Some(1), None, None, 5000)]));
    assigner.on_processing_time(100_000, &mut out).unwrap();
    assert_eq!(assigner.next_processing_time(), Some(110_000));
    assigner.process(0, rows(), &mut out).unwrap();
    assigner.on_processing_time(110_000, &mut out).unwrap();
    assert!(out.idle.is_empty(), "there was a row since");
    assigner.on_processing_time(120_000, &mut out).unwrap();
    assert_eq!((out.idle.as_slice(), assigner.next_processing_time()), (&[true][..], None));
    assigner.process(0, rows(), &mut out).unwrap();
    assert_eq!(out.idle, [true, false]);
}

#[test]
fn an_assigner_without_timeout_wants_no_timer() {
    let sql =
        format!("{TABLES} CREATE TABLE out (a BIGINT) WITH ('connector' = 'memory'); INSERT INTO out SELECT a FROM t");
    assert_eq!(operator(&memory(), &sql, "watermark:t").next_processing_time(), None);
}

#[test]
fn conditions_of_a_thousand_terms_are_planned_and_evaluated() {
    let terms: Vec<String> = (0..1000).map(|n| format!("(a = {n} AND b = {})", n * 10)).collect();
    assert_eq!(query("v BIGINT", &format!("SELECT a FROM t WHERE {}", terms.join(" OR "))), ["+I 1"]);
}
