//! Wrong and unsupported input: each is one error with its place, what was found and what to write instead.

use super::harness::Memory;
use streamjob_dataflow::PlanError;

const TABLES: &str = "\
CREATE TABLE t (a BIGINT, s STRING, r ROW<b INT>, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH ('connector' = 'memory');
CREATE VIEW late AS SELECT a, s, ts + INTERVAL '1' SECOND AS ts FROM t;
CREATE TABLE out (a BIGINT, s STRING) WITH ('connector' = 'memory', 'accepts-updates' = 'false');
";

/// Behind `TABLES`; lines are counted from the statement's.
#[rustfmt::skip]
const STATEMENTS: &[(&str, u64, u64, &str)] = &[
    ("SELECT a FROM t", 1, 1, "SELECT is not supported: a query alone has no sink; write INSERT INTO t SELECT ..., for example into a table with 'connector' = 'print'"),
    ("INSERT INTO out SELECT a, s FROM t ORDER BY a", 1, 45, "ORDER BY is not supported: a stream has no end to sort at; order the results where they are read"),
    ("INSERT INTO out SELECT a, s FROM t LIMIT 10", 1, 42, "LIMIT and OFFSET are not supported; filter with WHERE"),
    ("INSERT INTO out SELECT t.a, t.s FROM t JOIN t AS u ON t.a = u.a", 1, 45, "joins are not supported yet; write the tables into one with UNION ALL, or join where the results are read"),
    ("INSERT INTO out SELECT x.a, x.s FROM t AS x, t AS y", 1, 46, "joins are not supported yet; write the tables into one with UNION ALL, or join where the results are read"),
    ("INSERT INTO out SELECT nope, s FROM t", 1, 24, "there is no column 'nope'; columns: a, s, r, ts"),
    ("INSERT INTO out\nSELECT t.a,\n  t.nope FROM t", 3, 3, "there is no column 'nope' in 't'; columns: a, s, r, ts"),
    ("INSERT INTO out SELECT r.nope, s FROM t", 1, 24, "there is no field 'nope' in the ROW; fields: b"),
    ("INSERT INTO out SELECT a, s FROM nowhere", 1, 34, "there is no table or view 'nowhere' before this statement; defined: late, out, t"),
    ("INSERT INTO nowhere SELECT a, s FROM t", 1, 13, "there is no table 'nowhere' before this statement; defined: late, out, t"),
    ("INSERT INTO out SELECT a FROM t", 1, 13, "the query does not fit table 'out': it has 1 column(s), the table takes 2; query: [a: BIGINT]; table: [a: BIGINT, s: STRING]"),
    ("INSERT INTO out SELECT s, s FROM t", 1, 13, "the query does not fit table 'out': column 's' is STRING, column 'a' of the table is BIGINT; write CAST(s AS BIGINT); query: [s: STRING, s0: STRING]; table: [a: BIGINT, s: STRING]"),
    ("INSERT INTO out (a, nope) SELECT a, s FROM t", 1, 21, "there is no column 'nope' in table 'out'; columns: a, s"),
    ("INSERT INTO out SELECT a, SPLIT_INDX(s, '/', 1) FROM t", 1, 27, "there is no function SPLIT_INDX; did you mean SPLIT_INDEX?"),
    ("INSERT INTO out SELECT a, CAST(NOW() AS STRING) FROM t", 1, 32, "NOW() gives another result when rows are read again after a failure; take the value from a column of the source"),
    ("INSERT INTO out SELECT a, LOWER(a) FROM t", 1, 27, "LOWER: argument 1 must be STRING, found BIGINT; CAST it"),
    ("INSERT INTO out SELECT a + s, s FROM t", 1, 24, "BIGINT + STRING is not supported; CAST the operands to numbers"),
    ("INSERT INTO out SELECT a, s FROM t WHERE s = 5", 1, 42, "STRING and INT cannot be compared; CAST one of them"),
    ("INSERT INTO out SELECT a, s FROM t WHERE a", 1, 42, "WHERE and HAVING need a condition: a comparison, or a column of type BOOLEAN"),
    ("INSERT INTO out SELECT a, s FROM t WHERE a IN ('x', 'y')", 1, 42, "BIGINT and STRING cannot be compared; CAST one of them"),
    ("INSERT INTO out SELECT a, CASE WHEN a > 1 THEN 'x' ELSE 2 END FROM t", 1, 37, "the results of CASE must have one type, found STRING and INT; CAST one of them"),
    ("INSERT INTO out SELECT a, REGEXP_EXTRACT(s, '(?=x)', 1) FROM t", 1, 45, "the regular expression '(?=x)' uses look-around or an atomic group, which is not supported"),
    ("INSERT INTO out SELECT a, DATE_FORMAT(ts, 'EEEE') FROM t", 1, 43, "'EEEE' in the date pattern 'EEEE' is not supported; supported: yyyy yy MM M dd d HH H hh h mm m ss s S a and texts in quotes"),
    ("INSERT INTO out SELECT a, CAST(a AS VARCHAR(3)) FROM t", 1, 32, "CAST to VARCHAR(3) would cut or pad the value, which is not supported; cast to STRING and use SUBSTRING"),
    ("INSERT INTO out SELECT a, CAST(ts AS BIGINT) FROM t", 1, 32, "CAST from TIMESTAMP(3) to BIGINT is not supported"),
    (r#"INSERT INTO out SELECT a, "s" FROM t"#, 1, 27, r#""s": texts stand in single quotes ('s'), names in backticks (`s`)"#),
    ("INSERT INTO out SELECT a, s FROM t UNION SELECT a, s FROM t", 1, 42, "UNION without ALL removes duplicates, which is not supported; use UNION ALL, and SELECT DISTINCT around it"),
    ("INSERT INTO out SELECT a, s FROM t EXCEPT SELECT a, s FROM t", 1, 43, "EXCEPT is not supported; the only set operation is UNION ALL"),
    ("INSERT INTO out VALUES (1, 'x')", 1, 24, "VALUES is not supported; read from a table with 'connector' = 'datagen' or 'filesystem'"),
    ("INSERT INTO out SELECT a, (SELECT MAX(s) FROM t) FROM t", 1, 28, "subqueries in expressions are joins, which are not supported yet"),
    ("INSERT INTO out SELECT a, s FROM t WHERE a IN (SELECT a FROM t)", 1, 42, "IN and EXISTS with a subquery are joins, which are not supported yet"),
    ("INSERT INTO out SELECT a, ROW_NUMBER() OVER (PARTITION BY a ORDER BY ts) FROM t", 1, 27, "ROW_NUMBER(...) OVER (...) is not supported: OVER windows are not there yet"),
    ("INSERT INTO out SELECT a, MAX(s) FROM t GROUP BY GROUPING SETS ((a), (s))", 1, 66, "GROUPING SETS, CUBE and ROLLUP are not supported; write one INSERT for each grouping"),
    ("INSERT INTO out SELECT a, s FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND))", 1, 40, "HOP windows are not supported yet; use TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL ...))"),
    ("INSERT INTO out SELECT a, s FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(s), INTERVAL '10' SECOND))", 1, 67, "the column in DESCRIPTOR must be a time attribute: a TIMESTAMP(3) column with a WATERMARK; found STRING"),
    ("INSERT INTO out SELECT a, s FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MONTH))", 1, 81, "expected an interval of fixed length, as in INTERVAL '10' SECOND, INTERVAL '5' MINUTES or INTERVAL '1' DAY"),
    ("INSERT INTO out SELECT a, s FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts)))", 1, 40, "TUMBLE is written TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND [, INTERVAL offset])"),
    ("INSERT INTO out SELECT a, MAX(s) FROM t GROUP BY a, TUMBLE(ts, INTERVAL '10' SECOND)", 1, 53, "group windows are replaced by table functions: FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end"),
    ("INSERT INTO out SELECT a, s FROM t MATCH_RECOGNIZE (PATTERN (x) DEFINE x AS x.a > 1)", 1, 34, "MATCH_RECOGNIZE is not supported"),
    (r#"INSERT INTO out SELECT a, s FROM t WHERE s LIKE '%\\_%'"#, 1, 49, "a LIKE pattern with a backslash is not supported; use REGEXP_EXTRACT"),
    ("INSERT INTO out SELECT a, s FROM other_db.t", 1, 34, "there is no table or view 'other_db.t' before this statement; defined: late, out, t"),
    ("INSERT OVERWRITE out SELECT a, s FROM t", 1, 8, "INSERT OVERWRITE is for batch jobs; use INSERT INTO"),
    ("INSERT INTO out SELECT a, s FROM t WHERE", 1, 1, "expected: an expression, found: EOF"),
    ("INSERT INTO out SELECT a, s FROM t INSERT INTO out SELECT a, s FROM t", 1, 43, "expected ';' after the statement, found INTO"),
    ("INSERT INTO out SELECT a, 'open FROM t", 1, 27, "unterminated string literal"),
    ("EXECUTE STATEMENT SET BEGIN INSERT INTO out SELECT a, s FROM t;", 1, 29, "the statement set is not closed after this; add END;"),
    ("EXECUTE STATEMENT SET BEGIN CREATE VIEW v AS SELECT a FROM t; END;", 1, 29, "a statement set holds INSERT INTO statements only, found CREATE"),
    ("INSERT INTO out SELECT COUNT(*), k FROM (SELECT s AS k FROM t) AS x GROUP BY k", 1, 13, "table 'out' accepts only inserted rows, but the query updates rows it has already given out (GROUP BY or DISTINCT without a window); group by a TUMBLE window, or write into a connector that accepts updates"),
    ("INSERT INTO out SELECT MAX(n), s FROM (SELECT s, a, COUNT(*) AS n FROM t GROUP BY s, a) AS x GROUP BY s", 1, 1, "Max over rows that are updated is not supported yet; aggregate once, or by a TUMBLE window"),
    ("INSERT INTO out SELECT COUNT(*), s FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY s, window_end", 1, 74, "an aggregation by window names both window_start and window_end in GROUP BY; with one of them alone the groups would never be complete"),
    ("INSERT INTO out SELECT COUNT(*), s FROM TABLE(TUMBLE(TABLE late, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY s, window_start, window_end", 1, 77, "the column in DESCRIPTOR is no time attribute: declare WATERMARK FOR it in its table and pass it on unchanged"),
    ("INSERT INTO out SELECT SUM(s), s FROM t GROUP BY s", 1, 24, "SUM: needs a number, found STRING"),
    ("INSERT INTO out SELECT SUM(DISTINCT a), s FROM t GROUP BY s", 1, 37, "SUM and AVG of DISTINCT values are not supported; aggregate over SELECT DISTINCT"),
    ("INSERT INTO out SELECT a, s FROM t GROUP BY s", 1, 24, "column 't.a' stands neither in GROUP BY nor in an aggregate function"),
    ("DROP TABLE t", 1, 1, "DROP is not supported: tables live as long as the job; change the CREATE statement instead"),
    ("SET 'execution.checkpointing.interval' = '10s'", 1, 1, "SET 'execution.checkpointing.interval' is not supported; set spec.checkpoint.interval in the job file instead"),
    ("SET 'parallelism.default' = '4'", 1, 1, "SET 'parallelism.default' is not supported; set spec.parallelism in the job file instead"),
    ("SET 'execution.checkpointing.prefer-checkpoint-for-recovery' = 'maybe'", 1, 1, "SET 'execution.checkpointing.prefer-checkpoint-for-recovery' = 'maybe': expected 'true' or 'false'"),
    ("SET 'table.local-time-zone' = 'Europe/Berlin'", 1, 1, "SET 'table.local-time-zone' = 'Europe/Berlin': only 'UTC' is supported"),
    ("CREATE TABLE t (a INT)", 1, 14, "'t' is already defined; a table or view is defined once"),
    ("CREATE FUNCTION f AS 'com.example.F'", 1, 1, "classes cannot be loaded, found 'com.example.F'; these stand for built-in functions: com.github.nexmark.flink.udf.CountChar"),
];

/// On their own.
#[rustfmt::skip]
const DEFINITIONS: &[(&str, u64, u64, &str)] = &[
    ("CREATE TABLE x (a ARRAY<INT>)", 1, 19, "columns of type ARRAY are not supported; supported: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, VARCHAR(n), CHAR(n), BYTES, DATE, TIMESTAMP(p), TIMESTAMP_LTZ(p), ROW<...>"),
    ("CREATE TABLE x (a TIME)", 1, 19, "TIME is not supported; use STRING, or TIMESTAMP(3)"),
    ("CREATE TABLE x (a BIGINTT)", 1, 19, "unknown type BIGINTT"),
    ("CREATE TABLE x (a DECIMAL(40, 2))", 1, 19, "DECIMAL precision must be between 1 and 38, found 40"),
    ("CREATE TABLE x (a BIGINT METADATA FROM 'offset')", 1, 26, "METADATA columns are not supported; remove 'a' or let the source deliver it as a column"),
    ("CREATE TABLE x (a BIGINT, a INT)", 1, 27, "column 'a' is defined twice"),
    ("CREATE TABLE x (a BIGINT, PRIMARY KEY (a))", 1, 27, "a primary key cannot be enforced on a stream; write PRIMARY KEY (...) NOT ENFORCED"),
    ("CREATE TABLE x (a BIGINT, PRIMARY KEY (b) NOT ENFORCED)", 1, 40, "the primary key's column 'b' is not a column of the table"),
    ("CREATE TABLE x (a BIGINT, WATERMARK FOR a AS a)", 1, 41, "the watermark's column 'a' must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), found BIGINT"),
    ("CREATE TABLE x (ts TIMESTAMP(3), WATERMARK FOR b AS ts)", 1, 48, "the watermark's column 'b' is not a column of the table; columns: ts"),
    ("CREATE TABLE x (ts TIMESTAMP(3), WATERMARK FOR ts AS 5)", 1, 34, "the watermark must have the type of its column, TIMESTAMP(3), found INT"),
    ("CREATE TABLE x (a ROW<b INT, b INT>)", 1, 30, "field 'b' stands twice in the ROW"),
    ("CREATE TABLE x (a INT b INT)", 1, 23, "expected ',' or ')' after a column, found b"),
    ("CREATE TABLE x (a INT) WITH ('connector' 'print')", 1, 42, "expected '=' after the option's name, found 'print'"),
    ("CREATE TABLE x (p AS PROCTIME())", 1, 22, "processing time is not supported yet; use event time: WATERMARK FOR ts AS ts - INTERVAL '4' SECOND"),
    ("CREATE TABLE x (a INT) PARTITIONED BY (a)", 1, 24, "PARTITIONED BY is not supported yet; write one table a partition"),
    ("CREATE CATALOG c", 1, 8, "CREATE CATALOG is not supported; a job defines TABLE, VIEW (both may be TEMPORARY) and FUNCTION"),
    ("", 1, 1, "the job writes nothing; add INSERT INTO <table> SELECT ..."),
];

fn check(prelude: &str, cases: &[(&str, u64, u64, &str)]) {
    let offset = prelude.lines().count() as u64;
    let mut wrong = Vec::new();
    for (sql, line, column, message) in cases {
        let expected = format!("line {}, column {column}: {message}", line + offset);
        match Memory::default().plan(&format!("{prelude}{sql}")) {
            Ok(_) => wrong.push(format!("planned, but should not: {sql}")),
            Err(error) if error.to_string() != expected => wrong.push(format!("{sql}\n  {expected}\n  {error}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_statements_are_refused_where_they_are_wrong() {
    check(TABLES, STATEMENTS);
}

#[test]
fn wrong_definitions_are_refused_where_they_are_wrong() {
    check("", DEFINITIONS);
}

#[test]
fn an_unknown_function_is_answered_with_those_there_are() {
    let sql = format!("{TABLES}INSERT INTO out SELECT a, JSON_VALUE(s, '$.x') FROM t");
    let Err(PlanError::Sql { line: 4, column: 27, message }) = Memory::default().plan(&sql) else { panic!("planned") };
    assert!(message.starts_with("the function JSON_VALUE is not supported; supported: LOWER, UPPER, "), "{message}");
    assert!(!message.contains("STRPOS"), "names for the planner alone: {message}");
}

#[test]
fn options_of_tables_are_checked_by_their_connector() {
    let cases = [
        ("", "table 'x', option 'connector': missing; one of: blackhole, memory, nexmark"),
        (
            "'connector' = 'rabbit'",
            "table 'x', option 'connector': there is no connector 'rabbit'; one of: blackhole, memory, nexmark",
        ),
        (
            "'connector' = 'memory', 'scan.watermark.idle-timeout' = '10 s'",
            "table 'x', option 'scan.watermark.idle-timeout': the table has no WATERMARK to which it could apply",
        ),
    ];
    for (options, expected) in cases {
        let sql = format!("CREATE TABLE x (a BIGINT) WITH ({options}); INSERT INTO x SELECT a FROM x");
        assert_eq!(Memory::default().plan(&sql).err().map(|error| error.to_string()).as_deref(), Some(expected));
    }
}
