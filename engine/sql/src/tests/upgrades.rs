//! What an edit of a job's text does to its state: which operators of the text before are those of the text after.

use super::harness::{Emitted, Memory, context};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_dataflow::graph::JobGraph;
use streamjob_dataflow::{Batch, Instance, Operator, OperatorRestore};
use streamjob_protocol::assign::KEY_HASH;
use streamjob_protocol::compatibility::{Verdict, compare};
use streamjob_protocol::manifest::{
    CheckpointManifest, FileRef, KeyGroupRange, KeyedStateHandle, ListStateHandle, MANIFEST_VERSION, ManifestKind,
    OperatorManifest, OperatorState, Redistribution, SubtaskManifest,
};
use streamjob_protocol::plan::{JobPlan, StateTable};
use streamjob_state::snapshot::schema_text;
use streamjob_state::{Cut, KeyedRows, StateCut};

const TABLES: &str = "
CREATE TABLE t (k STRING, j STRING, v BIGINT, w BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
    WITH ('connector' = 'memory', 'keeps-state' = 'true');
CREATE TABLE u (k STRING, v BIGINT) WITH ('connector' = 'memory', 'keeps-state' = 'true');
CREATE TABLE out (k STRING, n BIGINT) WITH ('connector' = 'memory', 'keeps-state' = 'true');
CREATE TABLE other (k STRING, n BIGINT) WITH ('connector' = 'memory', 'keeps-state' = 'true');
";

const COUNT: &str = "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k;";

fn plan(sql: &str, parallelism: u32) -> JobGraph {
    let connectors = Memory::default().connectors();
    crate::plan(sql, parallelism, &connectors).unwrap_or_else(|error| panic!("{error}\n{sql}"))
}

/// A checkpoint in which every stateful operator of the text has stored what it declares.
fn checkpoint(sql: &str, parallelism: u32) -> CheckpointManifest {
    let operators = plan(sql, parallelism).nodes.into_iter().filter(|node| node.stateful).map(|node| {
        let (lists, keyed): (Vec<StateTable>, Vec<StateTable>) =
            node.state.into_iter().partition(|state| state.schema.starts_with("LIST"));
        let keyed = keyed.into_iter().map(|table| KeyedStateHandle {
            name: table.name,
            schema: table.schema,
            key_groups: KeyGroupRange { first: 0, last: 127 },
            files: vec![FileRef { path: "f".into(), bytes: 1, checksum: 1 }],
        });
        let lists = lists.into_iter().map(|list| ListStateHandle {
            name: list.name,
            redistribution: Redistribution::Union,
            entries: vec![1.into()],
        });
        let state = OperatorState { keyed: keyed.collect(), lists: lists.collect() };
        let subtasks = [(0, SubtaskManifest { finished: false, state })].into();
        OperatorManifest { uid: node.uid, name: node.name, parallelism: 1, subtasks }
    });
    CheckpointManifest {
        version: MANIFEST_VERSION,
        kind: ManifestKind::Checkpoint,
        checkpoint: 1,
        job_id: "job".into(),
        job_name: "job".into(),
        triggered_at: 0,
        completed_at: 0,
        key_hash: KEY_HASH.into(),
        max_parallelism: 128,
        operators: operators.collect(),
        stats: vec![],
    }
}

/// Verdict and uid of every operator with state.
fn edit(before: &str, after: &str) -> Vec<String> {
    let stored = checkpoint(before, 1);
    let job = plan(after, 2).into_execution(128).unwrap();
    let found = compare(&stored, &job.plan);
    assert_eq!(found.problems, Vec::<String>::new());
    let mut verdicts: Vec<String> =
        found.operators.iter().map(|check| format!("{} {}", check.verdict.label(), check.uid)).collect();
    verdicts.sort();
    verdicts
}

/// Without digests, which nobody can read.
fn readable(verdict: &str) -> String {
    let mut text = String::new();
    for part in verdict.split_inclusive(['_', '-', '/']) {
        let (word, end) = match part.char_indices().next_back() {
            Some((at, last)) if ['_', '-', '/'].contains(&last) => part.split_at(at),
            _ => (part, ""),
        };
        let digest = word.len() == 8 && word.chars().all(|character| character.is_ascii_hexdigit());
        text.push_str(if digest { "*" } else { word });
        text.push_str(end);
    }
    text
}

/// The verdicts on all but sources and sinks that are restored.
fn edited(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (format!("{TABLES}{before}"), format!("{TABLES}{after}"));
    let ends = |verdict: &String| verdict.starts_with("restored source:") || verdict.starts_with("restored sink:");
    edit(&before, &after).iter().filter(|verdict| !ends(verdict)).map(|verdict| readable(verdict)).collect()
}

#[test]
fn r52_edits_keep_the_state_of_all_that_they_do_not_touch() {
    let kept = ["restored out/t/group-by-k"].as_slice();
    let table: &[(&str, &str, &str, &[&str])] = &[
        ("nothing", COUNT, COUNT, kept),
        (
            "comments, layout and case",
            COUNT,
            "-- counts\ninsert  into out\n select k, count( * ) -- all\n from t group by k;",
            kept,
        ),
        ("an alias", COUNT, "INSERT INTO out SELECT x.k AS who, COUNT(*) AS n FROM t AS x GROUP BY x.k;", kept),
        ("a condition that comes", COUNT, "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v > 3 GROUP BY k;", kept),
        (
            "a condition that changes",
            "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v > 3 GROUP BY k;",
            "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v > 4 AND w < 9 GROUP BY k;",
            kept,
        ),
        (
            "HAVING, and what is made of the results",
            COUNT,
            "INSERT INTO out SELECT UPPER(k), COUNT(*) * 2 FROM t GROUP BY k HAVING COUNT(*) > 2;",
            kept,
        ),
        (
            "a subquery, a common table expression or a view around the same rows",
            "INSERT INTO out WITH x AS (SELECT k AS a, v AS b FROM t) SELECT a, COUNT(*) FROM x GROUP BY a;",
            "CREATE VIEW y AS SELECT w, k AS b FROM t; INSERT INTO out SELECT b, COUNT(*) FROM (SELECT b FROM y) AS z GROUP BY b;",
            kept,
        ),
        (
            "another statement, before this one",
            COUNT,
            "INSERT INTO other SELECT k, SUM(v) FROM u GROUP BY k; INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k;",
            &["new other/u/group-by-k", "new sink:other", "new source:u", "restored out/t/group-by-k"],
        ),
        (
            "the order of statements",
            "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k; INSERT INTO other SELECT k, COUNT(*) FROM t GROUP BY k;",
            "INSERT INTO other SELECT k, COUNT(*) FROM t GROUP BY k; INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k;",
            &["restored other/t/group-by-k", "restored out/t/group-by-k"],
        ),
        (
            "a statement that goes",
            "INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k; INSERT INTO other SELECT k, SUM(v) FROM u GROUP BY k;",
            COUNT,
            &["dropped other/u/group-by-k", "dropped sink:other", "dropped source:u", "restored out/t/group-by-k"],
        ),
        (
            "a second statement into the same table",
            COUNT,
            "INSERT INTO out SELECT k, SUM(v) FROM u GROUP BY k; INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k;",
            &["new out/u/group-by-k", "new source:u", "restored out/t/group-by-k"],
        ),
        (
            "two statements into one table, in another order, and one has another condition",
            "INSERT INTO out SELECT 'sums', SUM(v) FROM t; INSERT INTO out SELECT 'counts', COUNT(*) FROM t;",
            "INSERT INTO out SELECT 'counts', COUNT(*) FROM t WHERE v > 0; INSERT INTO out SELECT 'sums', SUM(v) FROM t;",
            &["restored out:counts/t/group-all", "restored out:sums/t/group-all"],
        ),
        (
            "rows of one more table",
            COUNT,
            "INSERT INTO out SELECT k, COUNT(*) FROM (SELECT k FROM t UNION ALL SELECT k FROM u) AS b GROUP BY k;",
            &["new source:u", "restored out/t/group-by-k"],
        ),
        (
            "the order of keys and aggregates",
            "INSERT INTO out SELECT k || j, COUNT(*) + SUM(v) FROM t GROUP BY k, j;",
            "INSERT INTO out SELECT k || j, SUM(v) + COUNT(*) FROM t GROUP BY j, k;",
            &["restored out/t/group-by-j,k"],
        ),
        (
            "the same aggregate once more",
            COUNT,
            "INSERT INTO out SELECT k, COUNT(*) - COUNT(*) / 2 FROM t GROUP BY k HAVING COUNT(*) > 1;",
            kept,
        ),
        (
            "another key",
            COUNT,
            "INSERT INTO out SELECT j, COUNT(*) FROM t GROUP BY j;",
            &["dropped out/t/group-by-k", "new out/t/group-by-j"],
        ),
        (
            "a key that is computed in another way behind the same name",
            "INSERT INTO out SELECT x, COUNT(*) FROM (SELECT k AS x FROM t) AS y GROUP BY x;",
            "INSERT INTO out SELECT x, COUNT(*) FROM (SELECT UPPER(k) AS x FROM t) AS y GROUP BY x;",
            &["dropped out/t/group-by-k", "new out/t/group-by-upper_k_*"],
        ),
        (
            "one more aggregate",
            COUNT,
            "INSERT INTO out SELECT k, COUNT(*) + SUM(v) FROM t GROUP BY k;",
            &["incompatible out/t/group-by-k"],
        ),
        (
            "one aggregate less",
            "INSERT INTO out SELECT k, COUNT(*) + SUM(v) FROM t GROUP BY k;",
            COUNT,
            &["dropped out/t/group-by-k"],
        ),
        (
            "an aggregate of another column of the same type",
            "INSERT INTO out SELECT k, SUM(v) FROM t GROUP BY k;",
            "INSERT INTO out SELECT k, SUM(w) FROM t GROUP BY k;",
            &["incompatible out/t/group-by-k"],
        ),
        (
            "another table to write into",
            COUNT,
            "INSERT INTO other SELECT k, COUNT(*) FROM t GROUP BY k;",
            &["dropped out/t/group-by-k", "dropped sink:out", "new other/t/group-by-k", "new sink:other"],
        ),
        (
            "another table to read from",
            COUNT,
            "INSERT INTO out SELECT k, COUNT(*) FROM u GROUP BY k;",
            &["dropped out/t/group-by-k", "dropped source:t", "new out/u/group-by-k", "new source:u"],
        ),
        (
            "what an updated result is counted by",
            "INSERT INTO out SELECT 'x', COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k HAVING COUNT(*) < 3) AS c;",
            "INSERT INTO out SELECT 'x', COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k HAVING COUNT(*) < 5) AS c;",
            &[
                "dropped out:x/t/group-by-k/having-*/group-all",
                "new out:x/t/group-by-k/having-*/group-all",
                "restored out:x/t/group-by-k",
            ],
        ),
        (
            "a condition in front of an updated result that is aggregated again",
            "INSERT INTO out SELECT 'x', COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS c GROUP BY n;",
            "INSERT INTO out SELECT 'x', COUNT(*) FROM (SELECT k, COUNT(*) AS m FROM t WHERE v > 0 GROUP BY k) AS c GROUP BY m;",
            &["restored out:x/t/group-by-k", "restored out:x/t/group-by-k/group-by-count"],
        ),
        (
            "a sink with other options, a declaration with one more column, tables that nobody reads",
            COUNT,
            "CREATE TABLE unread (a INT) WITH ('connector' = 'memory'); CREATE VIEW unused AS SELECT a FROM unread;
             INSERT INTO out SELECT k, COUNT(*) FROM t GROUP BY k;",
            kept,
        ),
    ];
    for (what, before, after, expected) in table {
        assert_eq!(edited(before, after), *expected, "{what}");
    }
}

#[test]
fn windows_are_told_apart_by_size_offset_and_keys() {
    let window = |interval: &str, keys: &str, condition: &str| {
        format!(
            "INSERT INTO out SELECT 'x', COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), {interval})) {condition}
             GROUP BY window_start, {keys} window_end;"
        )
    };
    let ten = window("INTERVAL '10' SECOND", "k,", "");
    let kept = ["restored out:x/t/tumble-10000ms-by-k"];
    assert_eq!(edited(&ten, &window("INTERVAL '10' SECONDS", "k,", "WHERE v > 1")), kept);
    let changed = |after: &str, uid: &str| {
        assert_eq!(edited(&ten, after), ["dropped out:x/t/tumble-10000ms-by-k".to_owned(), format!("new {uid}")]);
    };
    changed(&window("INTERVAL '1' MINUTE", "k,", ""), "out:x/t/tumble-60000ms-by-k");
    changed(&window("INTERVAL '10' SECOND", "j,", ""), "out:x/t/tumble-10000ms-by-j");
    changed(&window("INTERVAL '10' SECOND", "", ""), "out:x/t/tumble-10000ms-all");
    let offset = "INTERVAL '10' SECOND, INTERVAL '1' SECOND";
    changed(&window(offset, "k,", ""), "out:x/t/tumble-10000ms-offset-1000ms-by-k");
}

#[test]
fn declarations_that_change_keep_what_does_not_depend_on_them() {
    let before = format!("{TABLES}{COUNT}");
    let more = before.replace("(k STRING, j STRING,", "(added INT, k STRING, later ROW<a INT>, j STRING,");
    assert_ne!(more, before);
    let kept = ["restored out/t/group-by-k", "restored sink:out", "restored source:t"];
    assert_eq!(edit(&before, &more), kept, "columns that are not read");
    let options = before.replace("'keeps-state' = 'true')", "'keeps-state' = 'true', 'accepts-updates' = 'true')");
    assert_eq!(edit(&before, &options), kept, "options");
    let other_type = before.replace("(k STRING, j STRING,", "(k BIGINT, j STRING,").replace("SELECT k,", "SELECT j,");
    let other_type = other_type.replace("SELECT j, COUNT(*)", "SELECT CAST(k AS STRING), COUNT(*)");
    let expected = ["incompatible out/t/group-by-k", "restored sink:out", "restored source:t"];
    assert_eq!(edit(&before, &other_type), expected, "a key of another type");
    let stateless = before.replace(
        "n BIGINT) WITH ('connector' = 'memory', 'keeps-state' = 'true')",
        "n BIGINT) WITH ('connector' = 'memory')",
    );
    assert_eq!(edit(&before, &stateless), ["dropped sink:out", "restored out/t/group-by-k", "restored source:t"]);
}

/// Statements that differ only in what uids leave out have different ones all the same, and none is given the state of
/// another when they change places.
#[test]
fn statements_that_look_alike_never_exchange_their_state() {
    let high = "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v > 10 GROUP BY k;";
    let low = "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v <= 10 GROUP BY k;";
    let uids = |sql: &str| -> BTreeMap<String, String> {
        let nodes = plan(&format!("{TABLES}{sql}"), 1).nodes.into_iter();
        let nodes = nodes.filter(|node| node.name == "GroupAggregate");
        nodes.map(|node| (node.uid, node.description)).collect()
    };
    assert_eq!(uids(&format!("{high}{low}")).len(), 2);
    let swapped = edited(&format!("{high}{low}"), &format!("{low}{high}"));
    assert!(swapped.len() == 2 && swapped.iter().all(|verdict| verdict.starts_with("restored")), "{swapped:?}");
    let third = "INSERT INTO out SELECT k, COUNT(*) FROM t WHERE v = 10 GROUP BY k;";
    let verdicts = edited(&format!("{high}{low}"), &format!("{third}{low}{high}"));
    let count = |label: &str| verdicts.iter().filter(|verdict| verdict.starts_with(label)).count();
    assert_eq!((count("restored"), count("new"), count("dropped")), (2, 1, 0), "{verdicts:?}");
    // The one that was alone had the plain uid: which of the two is it now? Nobody can know, so neither gets its state.
    let verdicts = edited(high, &format!("{low}{high}"));
    assert_eq!(verdicts.iter().filter(|verdict| verdict.starts_with("new")).count(), 2, "{verdicts:?}");
    assert_eq!(verdicts.iter().filter(|verdict| verdict.starts_with("dropped out/")).count(), 1, "{verdicts:?}");
    // Statements that compute the same are interchangeable.
    assert_eq!(uids(&format!("{high}{high}")).len(), 2);
}

/// Statements of one family: what they read, group by, aggregate, and which rows they take.
struct Statement {
    table: &'static str,
    keys: &'static [&'static str],
    aggregates: &'static [&'static str],
    condition: &'static str,
}

fn family() -> Vec<Statement> {
    let mut family = Vec::new();
    for table in ["t", "t2"] {
        for keys in [&[] as &[&str], &["k"], &["j"], &["j", "k"]] {
            for aggregates in [&["COUNT(*)"] as &[&str], &["SUM(v)"], &["SUM(w)"], &["COUNT(*)", "SUM(v)"]] {
                for condition in ["", "WHERE v > 1"] {
                    family.push(Statement { table, keys, aggregates, condition });
                }
            }
        }
    }
    family
}

impl Statement {
    fn sql(&self) -> String {
        let (aggregates, keys) = (self.aggregates.join(" + "), self.keys.join(", "));
        let grouped = if keys.is_empty() { String::new() } else { format!("GROUP BY {keys}") };
        let label = self.keys.first().copied().unwrap_or("CAST(NULL AS STRING)");
        format!("INSERT INTO out SELECT {label}, {aggregates} FROM {} {} {grouped};\n", self.table, self.condition)
    }
}

fn family_tables() -> String {
    let second = TABLES.split("CREATE TABLE u").next().unwrap().replace("TABLE t ", "TABLE t2 ");
    format!("{TABLES}{second}")
}

/// Every edit of every statement of the family into every other one, against the rule in other words.
#[test]
fn every_edit_within_a_family_of_statements_follows_the_rule() {
    let (tables, family) = (family_tables(), family());
    let planned: Vec<(CheckpointManifest, JobPlan)> = family
        .iter()
        .map(|statement| {
            let sql = format!("{tables}{}", statement.sql());
            (checkpoint(&sql, 1), plan(&sql, 2).into_execution(128).unwrap().plan)
        })
        .collect();
    for (before, (stored, _)) in family.iter().zip(&planned) {
        for (after, (_, job)) in family.iter().zip(&planned) {
            let same_place = before.table == after.table && before.keys == after.keys;
            let kept = after.aggregates.iter().all(|aggregate| before.aggregates.contains(aggregate));
            let expected: &[Verdict] = match (same_place, kept) {
                (true, true) if before.aggregates == after.aggregates => &[Verdict::Restored],
                (true, true) => &[Verdict::Dropped],
                (true, false) => &[Verdict::Incompatible],
                (false, _) => &[Verdict::New, Verdict::Dropped],
            };
            let found = compare(stored, job);
            let aggregations = found.operators.iter().filter(|check| check.name == "GroupAggregate");
            let found: Vec<Verdict> = aggregations.map(|check| check.verdict).collect();
            assert_eq!(found, expected, "{}{}", before.sql(), after.sql());
        }
    }
}

/// What leads to an operator: descriptions of it and of all before it.
fn upstream(graph: &JobGraph, node: usize) -> Vec<String> {
    let mut texts = vec![graph.nodes[node].description.clone()];
    for edge in graph.edges.iter().filter(|edge| edge.to == node) {
        texts.extend(upstream(graph, edge.from));
    }
    texts
}

/// Any two different statements, in either order, have the same uids for the same computations.
#[test]
fn any_two_statements_may_change_places() {
    let (tables, family) = (family_tables(), family());
    let computed = |first: &Statement, second: &Statement| -> BTreeMap<String, Vec<String>> {
        let graph = plan(&format!("{tables}{}{}", first.sql(), second.sql()), 1);
        let aggregations = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].name == "GroupAggregate");
        aggregations.map(|node| (graph.nodes[node].uid.clone(), upstream(&graph, node))).collect()
    };
    let first_table = family.iter().filter(|statement| statement.table == "t").collect::<Vec<_>>();
    for (number, one) in first_table.iter().enumerate() {
        for other in &first_table[number + 1..] {
            let there = computed(one, other);
            assert_eq!(there.len(), 2, "{}{}", one.sql(), other.sql());
            assert_eq!(there, computed(other, one), "{}{}", one.sql(), other.sql());
        }
    }
}

#[test]
fn uids_do_not_depend_on_the_parallelism() {
    let sql = format!("{TABLES}{COUNT} INSERT INTO other SELECT k, COUNT(DISTINCT v) FROM t GROUP BY k;");
    let uids = |parallelism| -> Vec<(String, Vec<StateTable>)> {
        let nodes = plan(&sql, parallelism).nodes.into_iter().filter(|node| node.stateful);
        nodes.map(|node| (node.uid, node.state)).collect()
    };
    assert_eq!(uids(1), uids(4));
}

/// The rule is stored in checkpoints: a change of these texts, also by a library, is a change of everybody's uids.
#[test]
fn uids_and_columns_are_as_they_were() {
    let aggregates = "COUNT(*), COUNT(v), SUM(v * 2), AVG(w), MIN(v), MAX(ts), COUNT(DISTINCT w), \
                      SUM(v) FILTER (WHERE w BETWEEN 1 AND 3 OR k LIKE 'a%')";
    let keys =
        "k, CASE WHEN v > 10.5 THEN 'big' ELSE LOWER(j) END, CAST(w AS STRING), v IN (1, 2), ts + INTERVAL '1' HOUR";
    let sql = format!(
        "{TABLES} CREATE TABLE all_kinds (a BIGINT, b BIGINT, c BIGINT, d BIGINT, e BIGINT, f TIMESTAMP(3), g BIGINT, h BIGINT)
             WITH ('connector' = 'memory');
         INSERT INTO all_kinds SELECT {aggregates} FROM t WHERE j IS NOT NULL GROUP BY {keys};"
    );
    let node = plan(&sql, 1).nodes.into_iter().find(|node| node.stateful && node.name == "GroupAggregate").unwrap();
    assert_eq!(
        node.uid,
        "all_kinds/t/group-by-ts_interval_0_0_36000000_5bbdbeea,v_in_1_2_a6c1e8da,case_when_cast_v_as_DECI_5c942b8e,\
         cast_w_as__afa276d2"
    );
    let keys = "ts_interval_0_0_36000000_5bbdbeea Timestamp(ms) KEY, v_in_1_2_a6c1e8da Boolean KEY, \
                case_when_cast_v_as_DECI_5c942b8e Utf8 KEY, cast_w_as_STRING_b550086e Utf8 KEY, k Utf8 KEY";
    let aggregates = "avg_w Int64, avg_w_values Int64, count Int64, count_v Int64, count_distinct_w Int64, \
                      max_ts Timestamp(ms), min_v Int64, sum_v_2_af5ce926 Int64, sum_v_where_w_between_1_3900208b Int64";
    let expected = [
        StateTable::keyed("groups", format!("{keys}, {aggregates}")),
        StateTable::keyed("groups-count_distinct_w", format!("{keys}, value Int64 KEY, occurrences Int64")),
    ];
    assert_eq!(node.state, expected);
}

/// A query, the uid of its aggregation, rows for it, and how many states it has.
type Written<'a> = (&'a str, &'a str, Vec<(&'a str, ArrayRef)>, usize);

/// What a running operator's snapshot of rows consists of.
fn written(graph: &JobGraph, uid: &str, rows: &[(&str, ArrayRef)]) -> Vec<StateTable> {
    let mut operator = reopened(graph, uid, None);
    let rows = rows.iter().map(|(name, column)| (*name, Arc::clone(column), true));
    let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
    operator.process(0, Batch::inserts(rows), &mut Emitted::default()).unwrap();
    let cut = operator.snapshot(1, Cut::Whole).unwrap();
    assert!(cut.keyed.iter().any(|delta| delta.rows.num_rows() > 0), "{uid} kept nothing");
    let keyed = cut.keyed.iter().map(|delta| StateTable::keyed(&delta.name, schema_text(delta)));
    let lists = cut.lists.iter().map(|list| StateTable::list(&list.name, list.redistribution));
    let mut state: Vec<StateTable> = keyed.chain(lists).collect();
    state.sort_by(|a, b| a.name.cmp(&b.name));
    state
}

/// An operator of a plan, opened with what another one's snapshot holds.
fn reopened(graph: &JobGraph, uid: &str, stored: Option<StateCut>) -> Box<dyn Operator> {
    let node = graph.nodes.iter().find(|node| node.uid == uid).unwrap_or_else(|| panic!("no operator {uid}"));
    let context = context(&node.uid, &node.name);
    let mut restore = OperatorRestore::default();
    for delta in stored.into_iter().flat_map(|cut| cut.keyed) {
        // As the coordinator does it: state that nothing declares is not handed on.
        if node.state.iter().any(|table| table.name == delta.name) {
            let rows = KeyedRows { rows: delta.rows, deleted: delta.deleted, whole: delta.full };
            restore.keyed.insert(delta.name, vec![rows]);
        }
    }
    let Instance::Operator(mut operator) = (node.factory)(&context).unwrap() else { panic!("not an operator") };
    operator.open(&context, restore).unwrap();
    operator
}

#[test]
fn aggregates_that_go_leave_the_others_as_they_were() {
    let three = "SELECT k, COUNT(*) + SUM(v) + COUNT(DISTINCT v) FROM t GROUP BY k";
    let before = plan(&format!("{TABLES} INSERT INTO out {three};"), 1);
    let after = plan(&format!("{TABLES} INSERT INTO out SELECT k, SUM(v) FROM t GROUP BY k;"), 1);
    let uid = "out/t/group-by-k";
    let rows = |values: &[i64]| {
        let keys = Arc::new(StringArray::from(vec!["a"; values.len()])) as ArrayRef;
        let values = Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        Batch::inserts(RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap())
    };
    let mut operator = reopened(&before, uid, None);
    operator.process(0, rows(&[1, 2, 2]), &mut Emitted::default()).unwrap();
    let stored = operator.snapshot(1, Cut::Whole).unwrap();
    let mut operator = reopened(&after, uid, Some(stored));
    let mut emitted = Emitted::default();
    operator.process(0, rows(&[10]), &mut emitted).unwrap();
    let changes: Vec<String> = emitted.batches.iter().flat_map(super::harness::rows).collect();
    assert_eq!(changes, ["-U a|5", "+U a|15"]);
    // Changes would be relative to rows with other columns.
    let next = operator.snapshot(2, Cut::Changes).unwrap();
    assert_eq!(next.keyed.len(), 1);
    assert!(next.keyed[0].full);
    assert_eq!(schema_text(&next.keyed[0]), "k Utf8 KEY, sum_v Int64");
}

#[test]
fn r54_operators_write_the_state_that_their_plan_declares() {
    let text = |values: &[&str]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let number = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let time = |values: &[i64]| Arc::new(TimestampMillisecondArray::from(values.to_vec())) as ArrayRef;
    let group = "SELECT k, COUNT(*) + SUM(v) + AVG(v) + MIN(v) + COUNT(DISTINCT v) FROM t GROUP BY k";
    let twice =
        "SELECT 'x', COUNT(*) + SUM(n) + COUNT(DISTINCT n) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) AS c";
    let distinct = "SELECT DISTINCT k, v FROM t";
    let window = "SELECT k, MAX(v) + COUNT(DISTINCT v) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND)) \
                  GROUP BY k, window_start, window_end";
    let cases: &[Written] = &[
        (group, "out/t/group-by-k", vec![("k", text(&["a", "b"])), ("v", number(&[1, 2]))], 2),
        (twice, "out:x/t/group-by-k/group-all", vec![("n", number(&[1, 2]))], 2),
        (distinct, "out/t/group-by-k,v", vec![("k", text(&["a"])), ("v", number(&[1]))], 1),
        (
            window,
            "out/t/tumble-10000ms-by-k",
            vec![("k", text(&["a", "a"])), ("v", number(&[1, 2])), ("ts", time(&[1000, 2000]))],
            3,
        ),
    ];
    for (select, uid, rows, tables) in cases {
        let graph = plan(&format!("{TABLES} INSERT INTO out {select};"), 1);
        let mut declared =
            graph.nodes.iter().find(|node| node.uid == *uid).map(|node| node.state.clone()).unwrap_or_default();
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(written(&graph, uid, rows), declared, "{uid}");
        assert_eq!(declared.len(), *tables, "{uid}: {declared:?}");
    }
}

/// What waits to be committed belongs to the table, whoever wrote it, so a table has one sink.
#[test]
fn statements_share_the_sink_of_their_table() {
    let sql = format!("{TABLES} INSERT INTO out SELECT k, v FROM t; INSERT INTO out SELECT k, v FROM u;");
    let graph = plan(&sql, 2);
    let sinks: Vec<usize> = (0..graph.nodes.len()).filter(|&node| graph.nodes[node].uid == "sink:out").collect();
    assert_eq!(sinks.len(), 1);
    assert_eq!(graph.edges.iter().filter(|edge| edge.to == sinks[0]).count(), 2);
    assert_eq!(graph.nodes[sinks[0]].parallelism, 2);
    // Updates of one subtask and of two meet in one, or they would overtake each other.
    let sql = format!("{TABLES} INSERT INTO out SELECT 'all', COUNT(*) FROM t; {COUNT}");
    let sink = plan(&sql, 2).nodes.into_iter().find(|node| node.uid == "sink:out").unwrap();
    assert_eq!(sink.parallelism, 1);
}
