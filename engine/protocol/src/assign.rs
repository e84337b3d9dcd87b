//! Gives the state of a checkpoint to the tasks of a plan, which may have another parallelism or other operators.
//!
//! Only says who gets which handles; nothing is read here.

use crate::compatibility::{self, Verdict};
use crate::ids::TaskId;
use crate::key_groups::key_group_range;
use crate::manifest::{
    CheckpointManifest, KeyedStateHandle, ListStateHandle, OperatorManifest, OperatorState, Redistribution, TaskRestore,
};
use crate::plan::{JobPlan, OperatorPlan, VertexPlan};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    #[error(
        "Cannot map checkpoint/savepoint state for operator {}: {} (checkpoint {checkpoint}); stateful operators of the job: \
         {}. Undo the change that renamed or removed it, or set allowNonRestoredState to start without that state",
        names(.unknown), .reasons.join("; "), names(.known)
    )]
    UnknownState { checkpoint: u64, unknown: Vec<String>, reasons: Vec<String>, known: Vec<String> },
    #[error("the state of checkpoint {checkpoint} does not fit the job: {}", .reasons.join("; "))]
    IncompatibleState { checkpoint: u64, reasons: Vec<String> },
    #[error(
        "the job has max parallelism {configured}, but the state of the checkpoint is spread over {stored} key groups, \
         which cannot be changed: set max parallelism {stored} or leave it out"
    )]
    MaxParallelism { stored: u32, configured: u32 },
    #[error("parallelism {parallelism} of '{vertex}' exceeds max parallelism {stored} of the checkpoint: lower it")]
    ParallelismTooHigh { vertex: String, parallelism: u32, stored: u32 },
    #[error(
        "'{vertex}' had read all of its input when the checkpoint was taken, but its input '{input}' is new or had not \
         ended: the graph changed in a way that a finished part cannot follow. Start from an earlier checkpoint or \
         without state"
    )]
    FinishedBehindUnfinished { vertex: String, input: String },
    #[error("the checkpoint places keys by '{found}', this engine by '{expected}': use the engine that wrote it")]
    KeyHash { found: String, expected: String },
}

fn names(uids: &[String]) -> String {
    if uids.is_empty() { "none".into() } else { uids.join(", ") }
}

/// The hash that places keys in key groups, as manifests name it.
pub const KEY_HASH: &str = "xxh3-1";

/// Max parallelism a job runs with: that of the checkpoint it continues from, if any. An explicit other value is an
/// error; a derived one gives way.
pub fn effective_max_parallelism(
    stored: Option<u32>,
    explicit: Option<u32>,
    derived: u32,
) -> Result<u32, RestoreError> {
    match (stored, explicit) {
        (Some(stored), Some(configured)) if stored != configured => {
            Err(RestoreError::MaxParallelism { stored, configured })
        }
        (Some(stored), _) => Ok(stored),
        (None, explicit) => Ok(explicit.unwrap_or(derived)),
    }
}

/// What every task of `plan` starts with. Without a manifest every task starts empty.
pub fn assign_state(
    manifest: Option<&CheckpointManifest>,
    plan: &JobPlan,
    allow_non_restored: bool,
) -> Result<BTreeMap<TaskId, TaskRestore>, RestoreError> {
    let Some(manifest) = manifest else {
        return Ok(plan.tasks().into_iter().map(|task| (task, TaskRestore::default())).collect());
    };
    check(manifest, plan, allow_non_restored)?;
    let stored = by_uid(manifest);
    let finished = finished_tasks(&stored, plan)?;
    let mut restores: BTreeMap<TaskId, TaskRestore> = plan
        .tasks()
        .into_iter()
        .map(|task| {
            let finished = finished.contains(&task);
            (
                task,
                TaskRestore {
                    checkpoint: Some(manifest.checkpoint),
                    operators: BTreeMap::new(),
                    finished,
                    stopped: false,
                },
            )
        })
        .collect();
    for (vertex, vertex_plan) in plan.vertices.iter().enumerate() {
        for operator in &vertex_plan.operators {
            let Some(stored) = stored.get(operator.uid.as_str()) else { continue };
            let stored = taken(stored, operator);
            let states = redistribute(&stored, vertex_plan.parallelism, plan.max_parallelism);
            for (subtask, state) in (0..).zip(states) {
                if let Some(restore) = restores.get_mut(&TaskId { vertex: vertex as u32, subtask }) {
                    restore.operators.insert(operator.uid.clone(), state);
                }
            }
        }
    }
    Ok(restores)
}

pub(crate) fn by_uid(manifest: &CheckpointManifest) -> BTreeMap<&str, &OperatorManifest> {
    manifest.operators.iter().map(|operator| (operator.uid.as_str(), operator)).collect()
}

/// What concerns the job as a whole and not the state of one operator.
pub(crate) fn check_placement(manifest: &CheckpointManifest, plan: &JobPlan) -> Result<(), RestoreError> {
    if manifest.key_hash != KEY_HASH {
        return Err(RestoreError::KeyHash { found: manifest.key_hash.clone(), expected: KEY_HASH.into() });
    }
    let stored = manifest.max_parallelism;
    for vertex in &plan.vertices {
        if vertex.parallelism > stored {
            let (vertex, parallelism) = (vertex.name.clone(), vertex.parallelism);
            return Err(RestoreError::ParallelismTooHigh { vertex, parallelism, stored });
        }
    }
    if stored != plan.max_parallelism {
        return Err(RestoreError::MaxParallelism { stored, configured: plan.max_parallelism });
    }
    Ok(())
}

fn check(manifest: &CheckpointManifest, plan: &JobPlan, allow_non_restored: bool) -> Result<(), RestoreError> {
    check_placement(manifest, plan)?;
    let checks = compatibility::operators(manifest, plan);
    let checkpoint = manifest.checkpoint;
    let incompatible = checks.iter().filter(|check| check.verdict == Verdict::Incompatible);
    let reasons: Vec<String> = incompatible
        .flat_map(|check| check.reasons.iter().map(|why| format!("operator {}: {why}", check.uid)))
        .collect();
    if !reasons.is_empty() {
        return Err(RestoreError::IncompatibleState { checkpoint, reasons });
    }
    let dropped: Vec<_> = checks.into_iter().filter(|check| check.verdict == Verdict::Dropped).collect();
    if dropped.is_empty() || allow_non_restored {
        return Ok(());
    }
    let unknown = dropped.iter().map(|check| check.uid.clone()).collect();
    let mut reasons: Vec<String> = dropped.into_iter().flat_map(|check| check.reasons).collect();
    reasons.dedup();
    let stateful = plan.operators().filter(|operator| operator.stateful);
    let known = stateful.map(|operator| operator.uid.clone()).collect();
    Err(RestoreError::UnknownState { checkpoint, unknown, reasons, known })
}

/// The part of an operator's stored state that the operator has a place for.
fn taken(stored: &OperatorManifest, operator: &OperatorPlan) -> OperatorManifest {
    let mut taken = stored.clone();
    for subtask in taken.subtasks.values_mut() {
        subtask.state.keyed.retain(|handle| compatibility::takes(operator, &handle.name));
        subtask.state.lists.retain(|list| compatibility::takes(operator, &list.name));
    }
    taken
}

/// Whether the operators of a vertex had finished, `None` if that follows from its inputs alone: a new operator without
/// state has nothing to do where nothing comes any more.
fn own_finished(
    vertex: &VertexPlan,
    stored: &BTreeMap<&str, &OperatorManifest>,
    finished: impl Fn(&OperatorManifest) -> bool,
) -> Option<bool> {
    let mut own = None;
    for operator in &vertex.operators {
        match stored.get(operator.uid.as_str()) {
            Some(stored) => own = Some(own.unwrap_or(true) && finished(stored)),
            None if operator.stateful => return Some(false),
            None => {}
        }
    }
    own
}

/// Tasks that have nothing left to do: those of vertices that had finished as a whole, at any parallelism (a source that
/// was drained does not begin again), and others if all of their operators had finished in this very subtask, the
/// parallelism is the same, and everything they read from has finished too. The rest run again from their state, which
/// says how much there is left to read.
pub(crate) fn finished_tasks(
    stored: &BTreeMap<&str, &OperatorManifest>,
    plan: &JobPlan,
) -> Result<BTreeSet<TaskId>, RestoreError> {
    let wholly = |operator: &OperatorManifest| {
        !operator.subtasks.is_empty() && operator.subtasks.values().all(|subtask| subtask.finished)
    };
    let mut wholly_finished: Vec<bool> = Vec::with_capacity(plan.vertices.len());
    // Vertices are in topological order, so inputs are decided before what reads them.
    for (vertex, vertex_plan) in (0..).zip(&plan.vertices) {
        let finished = own_finished(vertex_plan, stored, wholly).unwrap_or_else(|| {
            let mut inputs = plan.edges.iter().filter(|edge| edge.to == vertex).peekable();
            inputs.peek().is_some()
                && inputs.all(|edge| wholly_finished.get(edge.from as usize).copied().unwrap_or(false))
        });
        wholly_finished.push(finished);
    }
    for edge in &plan.edges {
        let ended = |vertex: u32| wholly_finished.get(vertex as usize).copied().unwrap_or(false);
        if ended(edge.to) && !ended(edge.from) {
            let name =
                |vertex: u32| plan.vertices.get(vertex as usize).map_or_else(String::new, |vertex| vertex.name.clone());
            return Err(RestoreError::FinishedBehindUnfinished { vertex: name(edge.to), input: name(edge.from) });
        }
    }
    let mut inputs: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
    for channel in plan.channels() {
        inputs.entry(channel.to).or_default().push(channel.from);
    }
    let mut finished = BTreeSet::new();
    for task in plan.tasks() {
        let Some(vertex) = plan.vertices.get(task.vertex as usize) else { continue };
        let own = own_finished(vertex, stored, |operator| {
            operator.parallelism == vertex.parallelism
                && operator.subtasks.get(&task.subtask).is_some_and(|subtask| subtask.finished)
        });
        let inputs = inputs.get(&task).map(Vec::as_slice).unwrap_or_default();
        let whole = wholly_finished.get(task.vertex as usize).copied().unwrap_or(false);
        if (whole || own.unwrap_or(!inputs.is_empty())) && inputs.iter().all(|input| finished.contains(input)) {
            finished.insert(task);
        }
    }
    Ok(finished)
}

/// State of one operator by new subtask.
fn redistribute(stored: &OperatorManifest, parallelism: u32, max_parallelism: u32) -> Vec<OperatorState> {
    let mut states = vec![OperatorState::default(); parallelism as usize];
    let same = stored.parallelism == parallelism;
    for (&old, subtask) in &stored.subtasks {
        for handle in &subtask.state.keyed {
            if same {
                if let Some(state) = states.get_mut(old as usize) {
                    state.keyed.push(handle.clone());
                }
                continue;
            }
            for (subtask, state) in (0..).zip(&mut states) {
                let range = key_group_range(max_parallelism, parallelism, subtask);
                if let Some(key_groups) = handle.key_groups.intersect(&range) {
                    state.keyed.push(KeyedStateHandle { key_groups, ..handle.clone() });
                }
            }
        }
    }
    redistribute_lists(stored, same, &mut states);
    states
}

type Copies<'a> = BTreeMap<u32, &'a ListStateHandle>;

fn redistribute_lists(stored: &OperatorManifest, same_parallelism: bool, states: &mut [OperatorState]) {
    let mut by_name: BTreeMap<(&str, u8), (Redistribution, Copies<'_>)> = BTreeMap::new();
    for (&old, subtask) in &stored.subtasks {
        for list in &subtask.state.lists {
            let key = (list.name.as_str(), list.redistribution as u8);
            by_name.entry(key).or_insert_with(|| (list.redistribution, BTreeMap::new())).1.insert(old, list);
        }
    }
    let mut start = 0;
    for ((name, _), (redistribution, copies)) in by_name {
        let list = |entries| ListStateHandle { name: name.to_owned(), redistribution, entries };
        match redistribution {
            Redistribution::Split if same_parallelism => {
                for (old, copy) in copies {
                    if let Some(state) = states.get_mut(old as usize) {
                        state.lists.push(copy.clone());
                    }
                }
            }
            Redistribution::Split => {
                let entries = copies.into_values().flat_map(|copy| copy.entries.iter().cloned()).collect();
                let (chunks, next_start) = split(entries, states.len(), start);
                start = next_start;
                for (state, chunk) in states.iter_mut().zip(chunks) {
                    state.lists.push(list(chunk));
                }
            }
            Redistribution::Union => {
                let entries: Vec<_> = copies.into_values().flat_map(|copy| copy.entries.iter().cloned()).collect();
                for state in states.iter_mut() {
                    state.lists.push(list(entries.clone()));
                }
            }
            Redistribution::Broadcast => {
                let copies: Vec<_> = copies.into_values().collect();
                for (state, copy) in states.iter_mut().zip(copies.iter().cycle()) {
                    state.lists.push((*copy).clone());
                }
            }
        }
    }
}

/// Cuts entries into contiguous chunks, one a subtask. The first `n % p` chunks, counted from `start`, have one entry
/// more; the next state starts where this one's surplus ended, so that no subtask always gets the most.
fn split(entries: Vec<serde_json::Value>, parallelism: usize, start: usize) -> (Vec<Vec<serde_json::Value>>, usize) {
    let mut chunks = vec![Vec::new(); parallelism];
    if parallelism == 0 {
        return (chunks, start);
    }
    let (base, surplus) = (entries.len() / parallelism, entries.len() % parallelism);
    let mut entries = entries.into_iter();
    for turn in 0..parallelism {
        let size = base + usize::from(turn < surplus);
        chunks[(start + turn) % parallelism] = entries.by_ref().take(size).collect();
    }
    (chunks, (start + surplus) % parallelism)
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
