use super::*;
use crate::assign::{KEY_HASH, RestoreError, assign_state};
use crate::key_groups::key_group_range;
use crate::manifest::{
    FileRef, KeyedStateHandle, ListStateHandle, MANIFEST_VERSION, OperatorState, Redistribution, SubtaskManifest,
};
use crate::plan::VertexPlan;
use serde_json::json;

const GROUPS: &str = "user Utf8 KEY, count Int64";

fn operator(uid: &str, state: Vec<StateTable>) -> OperatorPlan {
    OperatorPlan { uid: uid.into(), name: format!("name of {uid}"), stateful: !state.is_empty(), state }
}

fn plan(operators: Vec<OperatorPlan>) -> JobPlan {
    let vertex =
        |operator: OperatorPlan| VertexPlan { name: operator.uid.clone(), parallelism: 1, operators: vec![operator] };
    JobPlan {
        vertices: operators.into_iter().map(vertex).collect(),
        edges: vec![],
        max_parallelism: 128,
        fingerprint: String::new(),
    }
}

fn table(name: &str, schema: &str, files: usize) -> OperatorState {
    let file = |number: usize| FileRef { path: format!("f{number}"), bytes: 1, checksum: 2 };
    let handle = KeyedStateHandle {
        name: name.into(),
        schema: schema.into(),
        key_groups: key_group_range(128, 1, 0),
        files: (0..files).map(file).collect(),
    };
    OperatorState { keyed: vec![handle], lists: vec![] }
}

fn list(name: &str, redistribution: Redistribution, entries: usize) -> OperatorState {
    let entries = (0..entries).map(|entry| json!(entry)).collect();
    OperatorState { keyed: vec![], lists: vec![ListStateHandle { name: name.into(), redistribution, entries }] }
}

fn manifest(operators: Vec<(&str, OperatorState)>) -> CheckpointManifest {
    let operators = operators.into_iter().map(|(uid, state)| OperatorManifest {
        uid: uid.into(),
        name: format!("old name of {uid}"),
        parallelism: 1,
        subtasks: [(0, SubtaskManifest { finished: false, state })].into(),
    });
    CheckpointManifest {
        kind: Default::default(),
        version: MANIFEST_VERSION,
        checkpoint: 7,
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

fn verdict(stored: OperatorState, declared: Vec<StateTable>) -> (Verdict, String) {
    let found = compare(&manifest(vec![("a", stored)]), &plan(vec![operator("a", declared)]));
    assert_eq!(found.operators.len(), 1, "{found:?}");
    (found.operators[0].verdict, found.operators[0].reasons.join("; "))
}

#[test]
fn equal_state_is_restored_and_missing_state_is_new() {
    let declared = || vec![StateTable::keyed("groups", GROUPS)];
    assert_eq!(verdict(table("groups", GROUPS, 1), declared()), (Verdict::Restored, String::new()));
    assert_eq!(verdict(OperatorState::default(), declared()).0, Verdict::New);
    let found = compare(&manifest(vec![]), &plan(vec![operator("a", declared()), operator("calc", vec![])]));
    assert_eq!(found.operators.len(), 1, "operators without state are not listed");
    assert_eq!(found.operators[0].verdict, Verdict::New);
    assert!(found.is_compatible(false));
}

#[test]
fn r52_state_of_an_unknown_uid_is_dropped_only_where_that_is_allowed() {
    let stored = manifest(vec![("old", table("groups", GROUPS, 1)), ("calc", OperatorState::default())]);
    let job = plan(vec![operator("new", vec![StateTable::keyed("groups", GROUPS)])]);
    let found = compare(&stored, &job);
    let verdicts: Vec<_> = found.operators.iter().map(|check| (check.uid.as_str(), check.verdict)).collect();
    assert_eq!(verdicts, [("new", Verdict::New), ("old", Verdict::Dropped)]);
    assert!(!found.is_compatible(false) && found.is_compatible(true));
    let message = assign_state(Some(&stored), &job, false).unwrap_err().to_string();
    for part in ["Cannot map checkpoint/savepoint state for operator old", "of the job: new", "allowNonRestoredState"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(assign_state(Some(&stored), &job, true).is_ok());
}

#[test]
fn r54_another_schema_is_refused_with_both_schemas_even_where_state_may_be_dropped() {
    let changed = "user Utf8 KEY, count Int64, sum_amount Decimal128(38, 2)";
    let (found, why) = verdict(table("groups", GROUPS, 1), vec![StateTable::keyed("groups", changed)]);
    assert_eq!(found, Verdict::Incompatible);
    for part in ["'groups'", GROUPS, changed, "adds sum_amount Decimal128(38, 2), which", "Undo"] {
        assert!(why.contains(part), "{why}");
    }
    let stored = manifest(vec![("a", table("groups", GROUPS, 1))]);
    let job = plan(vec![operator("a", vec![StateTable::keyed("groups", changed)])]);
    assert!(!compare(&stored, &job).is_compatible(true));
    let error = assign_state(Some(&stored), &job, true).unwrap_err();
    assert!(matches!(&error, RestoreError::IncompatibleState { checkpoint: 7, reasons } if reasons.len() == 1));
    let message = error.to_string();
    assert!(message.contains("operator a") && message.contains("'groups'") && message.contains(changed), "{message}");
}

#[test]
fn differences_are_named() {
    let cases = [
        ("k Utf8 KEY", "k Int64 KEY", "k Utf8 KEY became k Int64 KEY"),
        ("k Utf8 KEY, a Int64", "k Utf8 KEY, a Int64, b Decimal128(38, 2)", "adds b Decimal128(38, 2), which"),
        ("k Utf8 KEY, l Int64 KEY, a Int64", "k Utf8 KEY, a Int64", "l Int64 KEY is a key no more"),
        ("k Utf8 KEY, a Int64, b Int64", "k Utf8 KEY, b Int64, a Int64", "order differs"),
    ];
    for (before, after, expected) in cases {
        let (found, why) = verdict(table("t", before, 1), vec![StateTable::keyed("t", after)]);
        assert_eq!(found, Verdict::Incompatible);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn state_without_content_fits_everything() {
    let declared = vec![StateTable::keyed("other", GROUPS)];
    assert_eq!(verdict(table("groups", GROUPS, 0), declared.clone()).0, Verdict::New);
    assert_eq!(verdict(table("other", "x Utf8 KEY", 0), declared).0, Verdict::Restored);
    let found = compare(&manifest(vec![("gone", list("l", Redistribution::Split, 0))]), &plan(vec![]));
    assert_eq!(found.operators, []);
}

#[test]
fn lists_have_a_name_and_a_redistribution() {
    use Redistribution::{Split, Union};
    let declared = vec![StateTable::list("files", Union)];
    assert_eq!(verdict(list("files", Union, 1), declared.clone()).0, Verdict::Restored);
    assert_eq!(verdict(list("files", Split, 1), declared.clone()).0, Verdict::Incompatible);
    let (found, why) = verdict(list("offsets", Union, 1), declared);
    assert_eq!(found, Verdict::Dropped);
    assert!(why.contains("offsets") && why.contains("files"), "{why}");
    let (found, why) = verdict(list("files", Union, 1), vec![]);
    assert_eq!(found, Verdict::Dropped);
    assert!(why.contains("keeps no state"), "{why}");
}

#[test]
fn columns_that_are_no_longer_kept_are_dropped_where_that_is_allowed() {
    let stored = "k Utf8 KEY, a Int64, b Decimal128(38, 2), c Int64";
    let (found, why) = verdict(table("t", stored, 1), vec![StateTable::keyed("t", "k Utf8 KEY, a Int64")]);
    assert_eq!(found, Verdict::Dropped);
    assert!(why.contains("the columns b Decimal128(38, 2), c Int64 of state 't'"), "{why}");
    let stored = manifest(vec![("a", table("t", stored, 1))]);
    let job = plan(vec![operator("a", vec![StateTable::keyed("t", "k Utf8 KEY, c Int64")])]);
    let message = assign_state(Some(&stored), &job, false).unwrap_err().to_string();
    assert!(message.contains("operator a: the columns a Int64, b Decimal128(38, 2) of state 't'"), "{message}");
    let restores = assign_state(Some(&stored), &job, true).unwrap();
    assert!(restores.values().all(|restore| restore.operators["a"].keyed.len() == 1), "the rest is given out");
}

#[test]
fn dropped_states_do_not_reach_the_operator() {
    let mut both = list("files", Redistribution::Union, 1);
    both.lists.extend(list("offsets", Redistribution::Union, 1).lists);
    let stored = manifest(vec![("a", both)]);
    let job = plan(vec![operator("a", vec![StateTable::list("files", Redistribution::Union)])]);
    assert!(matches!(assign_state(Some(&stored), &job, false), Err(RestoreError::UnknownState { .. })));
    let restores = assign_state(Some(&stored), &job, true).unwrap();
    let lists = restores.values().flat_map(|restore| &restore.operators["a"].lists);
    assert_eq!(lists.map(|list| list.name.as_str()).collect::<Vec<_>>(), ["files"]);
}

#[test]
fn an_operator_that_declares_nothing_takes_everything() {
    let mut job = plan(vec![operator("a", vec![])]);
    job.vertices[0].operators[0].stateful = true;
    let stored = manifest(vec![("a", table("anything", GROUPS, 1))]);
    assert_eq!(compare(&stored, &job).operators[0].verdict, Verdict::Restored);
    let restores = assign_state(Some(&stored), &job, false).unwrap();
    assert!(restores.values().all(|restore| restore.operators["a"].keyed.len() == 1));
}

#[test]
fn what_concerns_the_whole_job_is_a_problem_of_its_own() {
    let stored = manifest(vec![]);
    let problems = |change: &dyn Fn(&mut CheckpointManifest, &mut JobPlan)| {
        let (mut stored, mut job) = (stored.clone(), plan(vec![operator("a", vec![StateTable::keyed("t", GROUPS)])]));
        change(&mut stored, &mut job);
        let found = compare(&stored, &job);
        assert_eq!(found.is_compatible(true), found.problems.is_empty());
        found.problems
    };
    assert_eq!(problems(&|_, _| {}), Vec::<String>::new());
    let lower = problems(&|_, job| job.max_parallelism = 64);
    assert!(lower[0].contains("max parallelism 64") && lower[0].contains("128"), "{lower:?}");
    let higher = problems(&|_, job| job.vertices[0].parallelism = 129);
    assert!(higher[0].contains("parallelism 129") && higher[0].contains("128"), "{higher:?}");
    let hash = problems(&|stored, _| stored.key_hash = "murmur".into());
    assert!(hash[0].contains("murmur"), "{hash:?}");
}

#[test]
fn the_report_is_json_and_comes_back() {
    let found = compare(&manifest(vec![("a", table("groups", GROUPS, 1))]), &plan(vec![]));
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.contains(r#""verdict":"dropped""#), "{text}");
    assert_eq!(serde_json::from_str::<Compatibility>(&text).unwrap(), found);
}
