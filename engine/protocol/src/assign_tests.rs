use super::*;
use crate::manifest::{FileRef, KeyGroupRange, MANIFEST_VERSION, SubtaskManifest};
use crate::plan::{EdgePlan, ExchangePattern, OperatorPlan, VertexPlan};
use serde_json::json;

/// One vertex an operator; consecutive vertices exchange all to all.
fn plan(operators: &[(&str, u32)]) -> JobPlan {
    JobPlan {
        vertices: operators
            .iter()
            .map(|(uid, parallelism)| VertexPlan {
                name: format!("vertex {uid}"),
                parallelism: *parallelism,
                operators: vec![OperatorPlan {
                    uid: (*uid).into(),
                    name: (*uid).into(),
                    stateful: true,
                    state: vec![],
                }],
            })
            .collect(),
        edges: (1..operators.len() as u32)
            .map(|to| EdgePlan { from: to - 1, to, pattern: ExchangePattern::AllToAll, pipelined: true })
            .collect(),
        max_parallelism: 128,
        fingerprint: String::new(),
    }
}

fn operator(uid: &str, states: Vec<(bool, OperatorState)>) -> OperatorManifest {
    OperatorManifest {
        uid: uid.into(),
        name: uid.into(),
        parallelism: states.len() as u32,
        subtasks: (0..).zip(states.into_iter().map(|(finished, state)| SubtaskManifest { finished, state })).collect(),
    }
}

fn manifest(operators: Vec<OperatorManifest>) -> CheckpointManifest {
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
        operators,
        stats: vec![],
    }
}

fn list(name: &str, redistribution: Redistribution, entries: &[i64]) -> OperatorState {
    let entries = entries.iter().map(|entry| json!(entry)).collect();
    OperatorState { keyed: vec![], lists: vec![ListStateHandle { name: name.into(), redistribution, entries }] }
}

fn keyed(file: &str, subtask: u32, parallelism: u32) -> OperatorState {
    OperatorState {
        keyed: vec![KeyedStateHandle {
            name: "table".into(),
            schema: String::new(),
            key_groups: key_group_range(128, parallelism, subtask),
            files: vec![FileRef { path: file.into(), bytes: 1, checksum: 2 }],
        }],
        lists: vec![],
    }
}

fn running(states: Vec<OperatorState>) -> Vec<(bool, OperatorState)> {
    states.into_iter().map(|state| (false, state)).collect()
}

fn entries(restores: &BTreeMap<TaskId, TaskRestore>, uid: &str, name: &str) -> Vec<Vec<i64>> {
    restores
        .values()
        .filter_map(|restore| restore.operators.get(uid))
        .map(|state| {
            let lists = state.lists.iter().filter(|list| list.name == name);
            lists.flat_map(|list| &list.entries).filter_map(serde_json::Value::as_i64).collect()
        })
        .collect()
}

fn restored_lists(redistribution: Redistribution, old: &[&[i64]], parallelism: u32) -> Vec<Vec<i64>> {
    let states = old.iter().map(|entries| list("l", redistribution, entries)).collect();
    let manifest = manifest(vec![operator("a", running(states))]);
    entries(&assign_state(Some(&manifest), &plan(&[("a", parallelism)]), false).unwrap(), "a", "l")
}

#[test]
fn without_a_checkpoint_every_task_starts_empty() {
    let restores = assign_state(None, &plan(&[("a", 2)]), false).unwrap();
    assert_eq!(restores.len(), 2);
    assert!(restores.values().all(|restore| *restore == TaskRestore::default()));
}

#[test]
fn split_lists() {
    use Redistribution::Split;
    let old: &[&[i64]] = &[&[1, 2, 3], &[4], &[5, 6, 7]];
    assert_eq!(restored_lists(Split, old, 3), old, "same parallelism: untouched");
    assert_eq!(restored_lists(Split, old, 2), [vec![1, 2, 3, 4], vec![5, 6, 7]]);
    assert_eq!(restored_lists(Split, old, 4), [vec![1, 2], vec![3, 4], vec![5, 6], vec![7]]);
    assert_eq!(restored_lists(Split, &[&[1, 2]], 4), [vec![1], vec![2], vec![], vec![]]);
}

#[test]
fn split_starts_the_next_state_where_the_surplus_ended() {
    let both = |first: &[i64], second: &[i64]| {
        let mut state = list("a-first", Redistribution::Split, first);
        state.lists.extend(list("b-second", Redistribution::Split, second).lists);
        manifest(vec![operator("a", running(vec![state]))])
    };
    let restores = assign_state(Some(&both(&[1, 2, 3, 4], &[5, 6])), &plan(&[("a", 3)]), false).unwrap();
    assert_eq!(entries(&restores, "a", "a-first"), [vec![1, 2], vec![3], vec![4]]);
    assert_eq!(entries(&restores, "a", "b-second"), [vec![], vec![5], vec![6]]);
}

#[test]
fn union_lists_go_to_everybody_also_when_nothing_changed() {
    use Redistribution::Union;
    assert_eq!(restored_lists(Union, &[&[1], &[2]], 2), [[1, 2], [1, 2]]);
    assert_eq!(restored_lists(Union, &[&[1], &[2]], 3), [[1, 2], [1, 2], [1, 2]]);
}

#[test]
fn broadcast_copies_go_round() {
    use Redistribution::Broadcast;
    assert_eq!(restored_lists(Broadcast, &[&[1], &[2]], 5), [[1], [2], [1], [2], [1]]);
    assert_eq!(restored_lists(Broadcast, &[&[1], &[2], &[3]], 2), [[1], [2]]);
}

#[test]
fn keyed_state_stays_where_it_is_at_the_same_parallelism() {
    let manifest = manifest(vec![operator("a", running(vec![keyed("f0", 0, 2), keyed("f1", 1, 2)]))]);
    let restores = assign_state(Some(&manifest), &plan(&[("a", 2)]), false).unwrap();
    for (subtask, file) in [(0, "f0"), (1, "f1")] {
        let state = &restores[&TaskId { vertex: 0, subtask }].operators["a"];
        assert_eq!(state.keyed, keyed(file, subtask, 2).keyed);
    }
}

#[test]
fn keyed_state_is_cut_by_key_groups_when_rescaled() {
    let manifest = manifest(vec![operator("a", running(vec![keyed("f0", 0, 2), keyed("f1", 1, 2)]))]);
    let restores = assign_state(Some(&manifest), &plan(&[("a", 3)]), false).unwrap();
    let ranges = |subtask| -> Vec<(String, u16, u16)> {
        let state = &restores[&TaskId { vertex: 0, subtask }].operators["a"];
        let range =
            |handle: &KeyedStateHandle| (handle.files[0].path.clone(), handle.key_groups.first, handle.key_groups.last);
        state.keyed.iter().map(range).collect()
    };
    assert_eq!(ranges(0), [("f0".to_owned(), 0, 42)]);
    assert_eq!(ranges(1), [("f0".to_owned(), 43, 63), ("f1".to_owned(), 64, 85)]);
    assert_eq!(ranges(2), [("f1".to_owned(), 86, 127)]);
    assert_eq!(key_group_range(128, 2, 1), KeyGroupRange { first: 64, last: 127 });
}

#[test]
fn unknown_state_names_the_uids_of_both_sides() {
    let manifest = manifest(vec![
        operator("old", running(vec![list("l", Redistribution::Split, &[1])])),
        operator("empty", running(vec![OperatorState::default()])),
    ]);
    let error = assign_state(Some(&manifest), &plan(&[("new", 1)]), false).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("old") && message.contains("new") && !message.contains("empty"), "{message}");
    let restores = assign_state(Some(&manifest), &plan(&[("new", 1)]), true).unwrap();
    assert!(restores[&TaskId { vertex: 0, subtask: 0 }].operators.is_empty());
}

#[test]
fn max_parallelism_rules() {
    let stored = manifest(vec![]);
    let mut other = plan(&[("a", 1)]);
    other.max_parallelism = 256;
    assert_eq!(
        assign_state(Some(&stored), &other, false),
        Err(RestoreError::MaxParallelism { stored: 128, configured: 256 })
    );
    assert!(matches!(
        assign_state(Some(&stored), &plan(&[("a", 129)]), false),
        Err(RestoreError::ParallelismTooHigh { parallelism: 129, stored: 128, .. })
    ));
    assert_eq!(effective_max_parallelism(Some(128), None, 256), Ok(128));
    assert_eq!(effective_max_parallelism(Some(128), Some(128), 256), Ok(128));
    assert!(effective_max_parallelism(Some(128), Some(64), 256).is_err());
    assert_eq!(effective_max_parallelism(None, Some(64), 256), Ok(64));
    assert_eq!(effective_max_parallelism(None, None, 256), Ok(256));
}

#[test]
fn another_key_hash_is_refused() {
    let mut stored = manifest(vec![]);
    stored.key_hash = "murmur".into();
    assert!(matches!(assign_state(Some(&stored), &plan(&[("a", 1)]), false), Err(RestoreError::KeyHash { .. })));
}

fn flags(old: &[(&str, &[bool])], new: &[(&str, u32)]) -> Result<Vec<bool>, RestoreError> {
    let operators = old
        .iter()
        .map(|(uid, flags)| operator(uid, flags.iter().map(|flag| (*flag, OperatorState::default())).collect()))
        .collect();
    Ok(assign_state(Some(&manifest(operators)), &plan(new), false)?.values().map(|restore| restore.finished).collect())
}

#[test]
fn finished_subtasks_stay_finished_if_nothing_moved_and_whole_vertices_always() {
    let partly: &[(&str, &[bool])] = &[("source", &[true, false]), ("sink", &[false])];
    assert_eq!(flags(partly, &[("source", 2), ("sink", 1)]).unwrap(), [true, false, false]);
    assert_eq!(flags(partly, &[("source", 3), ("sink", 1)]).unwrap(), [false; 4]);
    let wholly: &[(&str, &[bool])] = &[("source", &[true, true]), ("sink", &[true])];
    assert_eq!(flags(wholly, &[("source", 2), ("sink", 1)]).unwrap(), [true; 3]);
    assert_eq!(flags(wholly, &[("source", 3), ("sink", 1)]).unwrap(), [true; 4], "what has ended does not begin again");
}

#[test]
fn a_chain_is_finished_only_as_a_whole() {
    let mut chained = plan(&[("source", 1)]);
    chained.vertices[0].operators.push(OperatorPlan {
        uid: "map".into(),
        name: "map".into(),
        stateful: false,
        state: vec![],
    });
    let finished = |flag| vec![(flag, OperatorState::default())];
    for (source, map, expected) in [(true, true, true), (true, false, false)] {
        let manifest = manifest(vec![operator("source", finished(source)), operator("map", finished(map))]);
        let restores = assign_state(Some(&manifest), &chained, false).unwrap();
        assert_eq!(restores[&TaskId { vertex: 0, subtask: 0 }].finished, expected);
    }
    let without_map = manifest(vec![operator("source", finished(true))]);
    for (stateful, expected) in [(false, true), (true, false)] {
        chained.vertices[0].operators[1].stateful = stateful;
        let restores = assign_state(Some(&without_map), &chained, false).unwrap();
        assert_eq!(
            restores[&TaskId { vertex: 0, subtask: 0 }].finished,
            expected,
            "a new operator, stateful: {stateful}"
        );
    }
}

/// A condition that comes into a statement whose input had ended makes no part of it run again.
#[test]
fn a_new_operator_without_state_between_finished_ones_has_finished() {
    let ended: &[(&str, &[bool])] = &[("source", &[true, true]), ("sink", &[true, true])];
    let operators = ended
        .iter()
        .map(|(uid, flags)| operator(uid, flags.iter().map(|flag| (*flag, OperatorState::default())).collect()))
        .collect::<Vec<_>>();
    let mut edited = plan(&[("source", 2), ("filter", 2), ("sink", 2)]);
    edited.vertices[1].operators[0].stateful = false;
    let all_finished = |operators: Vec<OperatorManifest>| {
        let restores = assign_state(Some(&manifest(operators)), &edited, false).unwrap();
        restores.values().map(|restore| restore.finished).collect::<Vec<_>>()
    };
    assert_eq!(all_finished(operators.clone()), [true; 6]);
    let mut running = operators;
    for subtask in running.iter_mut().flat_map(|operator| operator.subtasks.get_mut(&1)) {
        subtask.finished = false;
    }
    assert_eq!(all_finished(running), [true, false, false, false, false, false], "rows still come from one subtask");
}

#[test]
fn a_finished_vertex_behind_an_unfinished_one_is_rejected() {
    let sink_ended: &[(&str, &[bool])] = &[("source", &[true]), ("sink", &[true])];
    let error = flags(sink_ended, &[("source", 1), ("inserted", 1), ("sink", 1)]).unwrap_err();
    assert!(matches!(&error, RestoreError::FinishedBehindUnfinished { vertex, input }
        if vertex == "vertex sink" && input == "vertex inserted"));
}
