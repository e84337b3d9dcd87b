//! Every step of an operation: what is observed, what is done, and which step is next.

use super::fixture::*;
use crate::api::status::{OperationKind, OperationResult, OperationStep};
use crate::plan::ids::trigger_of;
use crate::plan::observed::{EngineAnswer, EngineSavepoint, Observed, SavepointAnswer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

/// An upgrade at this step; revision 2 has its objects.
fn upgrade(step: OperationStep, seconds: i64) -> Observed {
    let mut observed = running();
    edit(
        &mut observed,
        &json!({ "program": { "sql": "select 2" }, "upgrade": { "savepointTimeout": "60s", "attempts": 2 } }),
    );
    operation(&mut observed, OperationKind::Upgrade, step, seconds);
    add_revision(&mut observed, 2, JOB_ID);
    observed
}

fn standby(checked: bool, slots: i64) -> EngineAnswer {
    let EngineAnswer::Status(mut status) = engine("STANDBY") else { unreachable!() };
    let standby = status.standby.as_mut().unwrap();
    (standby.ready, standby.checked, standby.slots) = (checked && slots > 0, checked, slots);
    EngineAnswer::Status(status)
}

fn stopped(trigger: &str) -> EngineAnswer {
    let EngineAnswer::Status(mut status) = engine("FINISHED") else { unreachable!() };
    status.latest_savepoint = Some(EngineSavepoint {
        id: 8,
        trigger: trigger.into(),
        path: "savepoint-8".into(),
        stopped: true,
        ..EngineSavepoint::default()
    });
    EngineAnswer::Status(status)
}

#[test]
fn preparing() {
    let table: [(Option<EngineAnswer>, &[&str]); 6] = [
        (None, &[]),
        (Some(EngineAnswer::Unreachable("no".into())), &[]),
        (Some(standby(false, 1)), &[]),
        (Some(standby(true, 0)), &[]),
        (Some(standby(true, 1)), &["Upgrade Saving 1"]),
        // It has the newest claim already.
        (Some(engine("RUNNING")), &["Upgrade Activating 0"]),
    ];
    for (answer, wanted) in table {
        let mut observed = upgrade(OperationStep::Preparing, 3);
        observed.engines.extend(answer.clone().map(|answer| (2, answer)));
        assert_eq!(deeds(&observed), wanted, "{answer:?}");
    }
}

#[test]
fn preparing_makes_what_is_missing() {
    let mut observed = upgrade(OperationStep::Preparing, 3);
    observed.children.stateful_sets.retain(|set| set.metadata.name.as_deref() != Some("job-w2"));
    observed.children.config_maps.clear();
    observed.children.deployments[0].spec.as_mut().unwrap().replicas = Some(0);
    let wanted = ["create ConfigMap", "create StatefulSet", "scale job-c1 1", "create ConfigMap"];
    assert_eq!(deeds(&observed), wanted, "what runs is looked after as well");
}

#[test]
fn preparing_what_cannot_work_touches_nothing() {
    let mut observed = upgrade(OperationStep::Preparing, 3);
    observed.refused = Some(crate::plan::observed::Refusal {
        object: "Deployment job-c2".into(),
        message: "no".into(),
        terminal: true,
    });
    assert_eq!(deeds(&observed), ["none"]);
    let status = next_status(&observed);
    assert_eq!(status.rejected.map(|rejected| rejected.reason).as_deref(), Some("ObjectRefused"));
    assert_eq!(status.history[0].result, OperationResult::Rejected);
    assert_eq!(status.current_revision, Some(1));
}

#[test]
fn an_edit_supersedes_what_is_prepared() {
    let mut observed = upgrade(OperationStep::Preparing, 3);
    edit(&mut observed, &json!({ "program": { "sql": "select 3" } }));
    observed.engines.insert(2, standby(true, 1));
    assert_eq!(deeds(&observed), ["none"]);
    assert_eq!(next_status(&observed).history[0].result, OperationResult::Superseded);
}

#[test]
fn saving() {
    let failed = || SavepointAnswer::Failed { reason: "disk full".into() };
    let refused = |terminal| SavepointAnswer::Refused { reason: "cannot be written".into(), terminal };
    let path = || {
        let path = "savepoint-8".into();
        SavepointAnswer::Completed(Box::new(EngineSavepoint { id: 8, path, ..EngineSavepoint::default() }))
    };
    let table: [(i64, EngineAnswer, Option<SavepointAnswer>, &[&str]); 13] = [
        (3, engine("RUNNING"), None, &["1 Stop"]),
        (3, engine("RUNNING"), Some(SavepointAnswer::Unknown), &["1 Stop"]),
        (3, engine("RUNNING"), Some(SavepointAnswer::InProgress), &[]),
        (3, engine("RESTARTING"), Some(SavepointAnswer::Unknown), &[]),
        (29, engine("RESTARTING"), None, &[]),
        // Nobody waits for a job that does not run.
        (31, engine("RESTARTING"), None, &["Upgrade Stopping 1"]),
        (31, EngineAnswer::Unreachable("no answer".into()), None, &[]),
        (3, engine("RUNNING"), Some(refused(false)), &["1 Stop"]),
        // A failed attempt: the next one has another name.
        (3, engine("RUNNING"), Some(refused(true)), &["Upgrade Saving 2"]),
        (3, engine("RUNNING"), Some(failed()), &["Upgrade Saving 2"]),
        (61, engine("RUNNING"), Some(SavepointAnswer::InProgress), &["Upgrade Saving 2"]),
        (3, engine("RUNNING"), Some(path()), &[]),
        (3, stopped("any"), Some(path()), &["Upgrade Activating 1"]),
    ];
    for (seconds, answer, stop, wanted) in table {
        let mut observed = upgrade(OperationStep::Saving, seconds);
        observed.engines = [(1, answer.clone()), (2, engine("STANDBY"))].into();
        observed.stops.extend(stop.clone().map(|stop| (trigger_of("an-operation", 1), stop)));
        assert_eq!(deeds(&observed), wanted, "{seconds} {answer:?} {stop:?}");
    }
}

#[test]
fn the_last_attempt_fails() {
    for (policy, wanted, result) in
        [("Abort", "none", Some(OperationResult::Aborted)), ("LastCheckpoint", "Upgrade Stopping 2", None)]
    {
        let mut observed = upgrade(OperationStep::Saving, 3);
        edit(&mut observed, &json!({ "upgrade": { "onSavepointFailure": policy } }));
        status(&mut observed).operation.as_mut().unwrap().attempt = 2;
        let refused = SavepointAnswer::Refused { reason: "/x cannot be written".into(), terminal: true };
        observed.stops.insert(trigger_of("an-operation", 2), refused);
        assert_eq!(deeds(&observed), [wanted]);
        let after = next_status(&observed);
        assert_eq!(after.history.first().map(|entry| entry.result), result);
        let text = serde_json::to_string(&after).unwrap();
        assert!(text.contains("/x cannot be written"), "the cause is shown: {text}");
    }
}

#[test]
fn where_savepoints_go() {
    let directory = |observed: &Observed| {
        let plan = made(observed);
        let text = format!("{:?}", plan.effects);
        let rest = text.split("directory: Some(\"").nth(1).unwrap_or_default().to_owned();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let mut observed = upgrade(OperationStep::Saving, 3);
    assert_eq!(directory(&observed), "/streamjob/state/space.job/savepoints");
    // Revision 1 was stored without it.
    edit(&mut observed, &json!({ "storage": { "savepointDir": "/streamjob/state/mine" } }));
    assert_eq!(directory(&observed), "/streamjob/state/mine");
    // What runs cannot reach a place that was refused.
    edit(&mut observed, &json!({ "storage": { "persistentVolumeClaim": { "claimName": "other" } } }));
    assert_eq!(directory(&observed), "/streamjob/state/space.job/savepoints");
}

#[test]
fn stopping() {
    let gone = |observed: &mut Observed| {
        observed.children.deployments.retain(|it| it.metadata.name.as_deref() != Some("job-c1"));
        observed.children.stateful_sets.retain(|it| it.metadata.name.as_deref() != Some("job-w1"));
    };
    let observed = upgrade(OperationStep::Stopping, 3);
    assert_eq!(deeds(&observed), ["delete Deployment job-c1", "delete StatefulSet job-w1"]);
    let late = upgrade(OperationStep::Stopping, 31);
    assert_eq!(deeds(&late), ["Upgrade Activating 0"], "the journal fences what is on a lost node");
    let mut observed = upgrade(OperationStep::Stopping, 3);
    gone(&mut observed);
    assert_eq!(deeds(&observed), ["Upgrade Activating 0"]);
    assert_eq!(next_status(&observed).operation.and_then(|it| it.restore_point).map(|point| point.id), Some(7));

    let mut suspended = running();
    edit(&mut suspended, &json!({ "state": "Suspended" }));
    operation(&mut suspended, OperationKind::Suspend, OperationStep::Stopping, 3);
    gone(&mut suspended);
    status(&mut suspended).operation.as_mut().unwrap().restore_point = Some(point(8, "savepoint-8"));
    assert_eq!(deeds(&suspended), ["create Savepoint"], "its savepoint is a resource first");
    status(&mut suspended).operation.as_mut().unwrap().restore_point = Some(point(7, "chk-7"));
    assert_eq!(deeds(&suspended), ["none"]);
    assert!(next_status(&suspended).suspended);
}

#[test]
fn activating() {
    let table: [(EngineAnswer, bool, &[&str]); 5] = [
        (engine("STANDBY"), true, &["2 Activate"]),
        // I8: what had state is not begun without.
        (engine("STANDBY"), false, &[]),
        (standby(false, 1), true, &[]),
        (engine("CREATED"), true, &[]),
        (engine("RUNNING"), true, &["none"]),
    ];
    for (answer, has_state, wanted) in table {
        let mut observed = upgrade(OperationStep::Activating, 3);
        let after = status(&mut observed);
        (after.current_revision, after.target_revision) = (Some(2), Some(2));
        let EngineAnswer::Status(mut reported) = answer.clone() else { unreachable!() };
        if !has_state {
            reported.restore_point = None;
        }
        observed.engines.insert(2, EngineAnswer::Status(reported));
        let deeds = deeds(&observed);
        let deeds: Vec<_> = deeds.iter().filter(|deed| !deed.starts_with("apply Service")).collect();
        assert_eq!(deeds, wanted.iter().collect::<Vec<_>>(), "{answer:?} {has_state}");
    }
}

#[test]
fn deleting() {
    let table: [(&str, &[&str]); 3] =
        [("Savepoint", &["Delete Saving 1"]), ("Retain", &["Delete Stopping 0"]), ("Discard", &["Delete Stopping 0"])];
    for (policy, wanted) in table {
        let mut observed = running();
        edit(&mut observed, &json!({ "deletion": { "policy": policy, "deadline": "60s" } }));
        observed.job.metadata.deletion_timestamp = Some(Time(now()));
        assert_eq!(deeds(&observed), wanted, "{policy}");
    }
    for (policy, wanted) in [("Retain", "remove finalizer"), ("Discard", "Delete Disposing 0")] {
        let mut observed = running();
        edit(&mut observed, &json!({ "deletion": { "policy": policy, "deadline": "60s" } }));
        observed.job.metadata.deletion_timestamp = Some(Time(now()));
        operation(&mut observed, OperationKind::Delete, OperationStep::Stopping, 3);
        assert_eq!(deeds(&observed), ["delete Deployment job-c1", "delete StatefulSet job-w1"]);
        observed.children.deployments.clear();
        observed.children.stateful_sets.clear();
        assert_eq!(deeds(&observed), [wanted], "{policy}");
    }
}

#[test]
fn a_status_that_is_old_does_nothing() {
    let mut observed = running();
    add_revision(&mut observed, 2, JOB_ID);
    assert_eq!(deeds(&observed), Vec::<String>::new(), "revision 2 is not this status'");
}
