//! What people and tools are told: the printed state and the conditions.

use super::fixture::*;
use crate::api::conditions::Truth;
use crate::api::status::{EndState, OperationKind, OperationStep};
use crate::plan::observed::{EngineAnswer, Observed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

/// `True/Running` and so on; nothing for a condition that is not there.
fn condition(observed: &Observed, aspect: &str) -> String {
    let conditions = next_status(observed).conditions;
    let found = conditions.into_iter().find(|condition| condition.type_ == aspect);
    found.map_or(String::new(), |found| {
        let truth = match found.status {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        };
        format!("{truth}/{}", found.reason)
    })
}

fn with_engine(change: impl Fn(&mut crate::plan::observed::EngineStatus)) -> Observed {
    let mut observed = running();
    if let Some(EngineAnswer::Status(status)) = observed.engines.get_mut(&1) {
        change(status);
    }
    observed
}

fn edited(change: &serde_json::Value) -> Observed {
    let mut observed = running();
    edit(&mut observed, change);
    observed
}

fn under_way(kind: OperationKind, step: OperationStep) -> Observed {
    let mut observed = edited(&json!({ "program": { "sql": "select 2" } }));
    operation(&mut observed, kind, step, 3);
    observed
}

fn ended(state: EndState) -> Observed {
    let mut observed = running();
    end(&mut observed, state, Some("it was over"));
    observed.engines = [(1, engine(&format!("{state:?}").to_uppercase()))].into();
    observed
}

fn deleted() -> Observed {
    let mut observed = running();
    observed.job.metadata.deletion_timestamp = Some(Time(now()));
    observed
}

fn first_pass(change: &serde_json::Value) -> Observed {
    let mut observed = running();
    edit(&mut observed, change);
    observed.job.status = None;
    observed.children = Default::default();
    observed.engines.clear();
    observed
}

fn suspended() -> Observed {
    let mut observed = edited(&json!({ "state": "Suspended" }));
    status(&mut observed).suspended = true;
    observed.engines.clear();
    observed
}

fn first_checkpoint() -> Observed {
    let mut observed = with_engine(|status| status.checkpoints.completed = 0);
    status(&mut observed).conditions.clear();
    observed
}

#[test]
fn states_and_conditions() {
    let unreachable = || {
        let mut observed = running();
        observed.engines = [(1, EngineAnswer::Unreachable("refused".into()))].into();
        observed
    };
    // What is observed: state, Ready, Progressing, Degraded, CheckpointsHealthy, Stalled.
    let (settled, healthy, idle) = ("False/Settled", "False/Healthy", "Unknown/NotRunning");
    let table: [(&str, Observed, [&str; 6]); 17] = [
        ("it runs", running(), ["Running", "True/Running", settled, healthy, "True/Completing", ""]),
        (
            "no checkpoint yet",
            first_checkpoint(),
            ["Running", "False/WaitingForFirstCheckpoint", settled, healthy, "Unknown/WaitingForFirstCheckpoint", ""],
        ),
        (
            "checkpoints are late",
            with_engine(|status| status.checkpoints.last_completed_at = Some(now().as_millisecond() - 900_000)),
            ["Running", "True/Running", settled, "True/Late", "False/Late", ""],
        ),
        (
            "checkpoints fail",
            with_engine(|status| {
                status.checkpoints.completed = 0;
                status.checkpoints.failed = 3;
                status.checkpoints.last_failure = Some("disk full".into());
            }),
            ["Running", "True/Running", settled, "True/Failing", "False/Failing", ""],
        ),
        (
            "without checkpoints",
            with_engine(|status| status.checkpoint_config.as_mut().unwrap().interval_ms = None),
            ["Running", "True/Running", settled, healthy, "Unknown/NoCheckpoints", ""],
        ),
        (
            "it recovers",
            with_engine(|status| status.state = "RESTARTING".into()),
            ["Restarting", "False/Recovering", settled, "True/Recovering", idle, ""],
        ),
        (
            "nobody answers",
            unreachable(),
            ["Restarting", "False/CoordinatorUnreachable", settled, "True/CoordinatorUnreachable", idle, ""],
        ),
        (
            "an upgrade begins",
            edited(&json!({ "image": "a:2" })),
            ["Upgrading", "True/Running", "True/Upgrading", healthy, "True/Completing", ""],
        ),
        (
            "it is prepared",
            under_way(OperationKind::Upgrade, OperationStep::Preparing),
            ["Upgrading", "True/Running", "True/Upgrading", healthy, "True/Completing", ""],
        ),
        (
            "a spec that cannot be",
            edited(&json!({ "maxParallelism": 64 })),
            ["Running", "True/Running", settled, healthy, "True/Completing", "True/InvalidSpec"],
        ),
        ("suspended", suspended(), ["Suspended", "False/Suspended", settled, healthy, idle, ""]),
        ("finished", ended(EndState::Finished), ["Finished", "False/Finished", settled, healthy, idle, ""]),
        ("failed", ended(EndState::Failed), ["Failed", "False/Failed", settled, "True/Failed", idle, "True/Failed"]),
        ("canceled", ended(EndState::Canceled), ["Canceled", "False/Canceled", settled, "True/Canceled", idle, ""]),
        ("new", first_pass(&json!({})), ["Starting", "False/Starting", "True/Starting", healthy, idle, ""]),
        (
            "new and suspended",
            first_pass(&json!({ "state": "Suspended" })),
            ["Suspended", "False/Suspended", settled, healthy, idle, ""],
        ),
        ("deleted", deleted(), ["Deleting", "False/Deleting", "True/Deleting", healthy, "True/Completing", ""]),
    ];
    for (what, observed, wanted) in table {
        let aspects = ["Ready", "Progressing", "Degraded", "CheckpointsHealthy", "Stalled"];
        let mut found = vec![next_status(&observed).state];
        found.extend(aspects.map(|aspect| condition(&observed, aspect)));
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn the_generation_is_observed_once_its_spec_runs_or_was_refused() {
    let table = [
        (edited(&json!({ "upgrade": { "attempts": 7 } })), Some(2)),
        (edited(&json!({ "image": "a:2" })), Some(1)),
        (under_way(OperationKind::Upgrade, OperationStep::Preparing), Some(1)),
        (edited(&json!({ "maxParallelism": 64 })), Some(2)),
    ];
    for (observed, generation) in table {
        assert_eq!(next_status(&observed).observed_generation, generation, "{:?}", observed.job.spec);
        // What Ready says is about what runs.
        let ready = next_status(&observed).conditions.into_iter().find(|it| it.type_ == "Ready").unwrap();
        assert_eq!(ready.observed_generation, generation);
    }
}

#[test]
fn a_pass_that_changes_nothing_writes_nothing() {
    let observed = running();
    assert_eq!(made(&observed).effects, []);
}
