//! Whether the state of a checkpoint or savepoint fits a job, operator by operator, before anything is started.
//!
//! Compares what the manifest says was written with what the plan says will be read: uids, names of states, their schemas,
//! key groups. Reads no state file and gives nothing out; that is `assign`'s work, which refuses what this finds wrong.

use crate::assign::{by_uid, check_placement, finished_tasks};
use crate::manifest::{CheckpointManifest, OperatorManifest};
use crate::plan::{JobPlan, OperatorPlan, StateTable};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// The checkpoint that was compared.
    pub checkpoint: u64,
    /// Stateful operators of the job in its order, then those that only the checkpoint has.
    pub operators: Vec<OperatorCheck>,
    /// What is wrong with the job as a whole: max parallelism, key hash, a graph that finished parts cannot follow.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCheck {
    pub uid: String,
    /// For people.
    pub name: String,
    pub verdict: Verdict,
    /// Why the verdict is not simply that everything is restored.
    pub reasons: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Goes on with what is stored.
    Restored,
    /// Nothing is stored for it: it starts empty.
    New,
    /// State is stored that nothing in the job takes, all of the operator's or the part that the reasons name. Acceptable
    /// only where state that is not restored is allowed.
    Dropped,
    /// State is stored for it in a form that it cannot read.
    Incompatible,
}

impl Verdict {
    pub fn label(self) -> &'static str {
        match self {
            Verdict::Restored => "restored",
            Verdict::New => "new",
            Verdict::Dropped => "dropped",
            Verdict::Incompatible => "incompatible",
        }
    }
}

impl Compatibility {
    /// Whether the job would start from this state.
    pub fn is_compatible(&self, allow_non_restored_state: bool) -> bool {
        self.problems.is_empty()
            && self.operators.iter().all(|operator| match operator.verdict {
                Verdict::Restored | Verdict::New => true,
                Verdict::Dropped => allow_non_restored_state,
                Verdict::Incompatible => false,
            })
    }
}

/// Compares a checkpoint or savepoint with a job.
pub fn compare(manifest: &CheckpointManifest, plan: &JobPlan) -> Compatibility {
    let placement = check_placement(manifest, plan).err();
    let finished = finished_tasks(&by_uid(manifest), plan).err();
    Compatibility {
        checkpoint: manifest.checkpoint,
        operators: operators(manifest, plan),
        problems: placement.into_iter().chain(finished).map(|problem| problem.to_string()).collect(),
    }
}

/// Whether the operator has a place for a state of this name.
pub(crate) fn takes(operator: &OperatorPlan, state: &str) -> bool {
    operator.stateful && (operator.state.is_empty() || operator.state.iter().any(|table| table.name == state))
}

pub(crate) fn operators(manifest: &CheckpointManifest, plan: &JobPlan) -> Vec<OperatorCheck> {
    let stored = by_uid(manifest);
    let mut checks: Vec<OperatorCheck> =
        plan.operators().filter_map(|operator| check(operator, stored.get(operator.uid.as_str()).copied())).collect();
    let known: BTreeSet<&str> = plan.operators().map(|operator| operator.uid.as_str()).collect();
    for operator in manifest.operators.iter().filter(|operator| !known.contains(operator.uid.as_str())) {
        let states = Stored::of(operator);
        if states.values().any(|state| state.holds_something) {
            let names: Vec<&str> = states.keys().map(|(name, _)| name.as_str()).collect();
            let why = format!("the job has no operator with this uid; stored: {}", names.join(", "));
            checks.push(OperatorCheck {
                uid: operator.uid.clone(),
                name: operator.name.clone(),
                verdict: Verdict::Dropped,
                reasons: vec![why],
            });
        }
    }
    checks
}

/// `None` for an operator that has no state and is given none.
fn check(operator: &OperatorPlan, stored: Option<&OperatorManifest>) -> Option<OperatorCheck> {
    let states = stored.map(Stored::of).unwrap_or_default();
    let (mut wrong, mut left) = (Vec::new(), Vec::new());
    let mut restored = false;
    for ((name, schema), state) in &states {
        match operator.state.iter().find(|table| table.name == *name) {
            Some(table) if table.schema == *schema || !state.holds_something => restored = true,
            Some(table) => match surplus(table, schema) {
                Some(columns) => {
                    restored = true;
                    left.push(format!(
                        "the columns {columns} of state '{name}' are no longer kept; the others are restored"
                    ));
                }
                None => wrong.push(mismatch(table, schema)),
            },
            None if takes(operator, name) => restored = true,
            None if state.holds_something => left.push(format!("the operator no longer has the stored state '{name}'")),
            None => {}
        }
    }
    let (verdict, reasons) = if !wrong.is_empty() {
        (Verdict::Incompatible, wrong)
    } else if !left.is_empty() {
        let own: Vec<&str> = operator.state.iter().map(|table| table.name.as_str()).collect();
        if !operator.stateful {
            left.push("it keeps no state now".to_owned());
        } else if !restored {
            left.push(format!("it has: {}", own.join(", ")));
        }
        (Verdict::Dropped, left)
    } else if !operator.stateful {
        return None;
    } else if restored {
        (Verdict::Restored, vec![])
    } else {
        (Verdict::New, vec!["nothing is stored under this uid: it starts empty".to_owned()])
    };
    Some(OperatorCheck { uid: operator.uid.clone(), name: operator.name.clone(), verdict, reasons })
}

/// The value columns that are stored beyond those that the operator asks for, if that is the only difference.
fn surplus(table: &StateTable, stored: &str) -> Option<String> {
    let (stored, wanted) = (columns(stored), columns(&table.schema));
    let keys = |columns: &[&str]| columns.iter().filter(|column| column.ends_with(" KEY")).count();
    let same_keys = keys(&stored) == keys(&wanted) && stored[..keys(&stored)] == wanted[..keys(&wanted)];
    let beyond: Vec<&str> = stored.iter().filter(|column| !wanted.contains(column)).copied().collect();
    let complete = wanted.iter().all(|column| stored.contains(column));
    (same_keys && complete && !beyond.is_empty()).then(|| beyond.join(", "))
}

fn mismatch(table: &StateTable, stored: &str) -> String {
    let (before, after) = (columns(stored), columns(&table.schema));
    let only = |these: &[&str], those: &[&str]| -> Vec<String> {
        these.iter().filter(|column| !those.contains(column)).map(|column| (*column).to_owned()).collect()
    };
    let (gone, added) = (only(&before, &after), only(&after, &before));
    let difference = match (gone.is_empty(), added.is_empty()) {
        (false, false) => format!("{} became {}", gone.join(", "), added.join(", ")),
        (false, true) => format!("{} is a key no more", gone.join(", ")),
        (true, false) => format!("the job adds {}, which cannot be computed from what is stored", added.join(", ")),
        (true, true) => "their order differs".to_owned(),
    };
    format!(
        "state '{}' was written as [{stored}], the job needs [{}]: {difference}. Undo the change, or make it a new \
         operator that starts empty (in SQL: a statement that writes into another table)",
        table.name, table.schema
    )
}

/// The columns of a schema text; types may contain commas in parentheses.
fn columns(schema: &str) -> Vec<&str> {
    let (mut columns, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, character) in schema.char_indices() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                columns.push(schema[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    columns.push(schema[start..].trim());
    columns
}

/// What all subtasks stored under one name and schema.
#[derive(Default)]
struct Stored {
    holds_something: bool,
}

impl Stored {
    /// By name and schema.
    fn of(operator: &OperatorManifest) -> BTreeMap<(String, String), Stored> {
        let mut states: BTreeMap<(String, String), Stored> = BTreeMap::new();
        for subtask in operator.subtasks.values() {
            for handle in &subtask.state.keyed {
                let state = states.entry((handle.name.clone(), handle.schema.clone())).or_default();
                state.holds_something |= !handle.files.is_empty();
            }
            for list in &subtask.state.lists {
                let table = StateTable::list(&list.name, list.redistribution);
                states.entry((table.name, table.schema)).or_default().holds_something |= !list.entries.is_empty();
            }
        }
        states
    }
}

#[cfg(test)]
#[path = "compatibility_tests.rs"]
mod tests;
