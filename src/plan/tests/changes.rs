//! Every kind of edit, and what begins with it.

use super::fixture::*;
use crate::api::status::EndState;
use crate::plan::changes::{Change, change};
use serde_json::json;

#[test]
fn classes() {
    let table = [
        (json!({}), None),
        (json!({ "deletion": { "policy": "Discard", "deadline": "1m" } }), None),
        (json!({ "upgrade": { "attempts": 7 } }), None),
        (json!({ "savepoints": { "schedule": "0 3 * * *" } }), None),
        (json!({ "storage": { "savepointDir": "/other" } }), None),
        (json!({ "state": "Suspended" }), None),
        (json!({ "checkpoint": { "interval": "9s" } }), None),
        (json!({ "restartStrategy": { "none": null, "fixedDelay": { "attempts": 2 } } }), None),
        (json!({ "restartNonce": 1 }), Some(Change::Restart)),
        (json!({ "parallelism": 2 }), Some(Change::Rescale)),
        (json!({ "parallelism": 2, "restartNonce": 1 }), Some(Change::Rescale)),
        (json!({ "program": { "sql": "select 2" } }), Some(Change::Upgrade)),
        (json!({ "image": "a:2" }), Some(Change::Upgrade)),
        (json!({ "image": "a:2", "parallelism": 2 }), Some(Change::Upgrade)),
        (json!({ "checkpoint": { "interval": null } }), Some(Change::Upgrade)),
        (json!({ "env": [{ "name": "A", "value": "1" }] }), Some(Change::Upgrade)),
    ];
    for (edited, class) in table {
        assert_eq!(change(&spec(&json!({})), &spec(&edited)), class, "{edited}");
        assert_eq!(change(&spec(&edited), &spec(&edited)), None, "{edited}");
    }
}

#[test]
fn what_begins_with_an_edit_of_a_running_job() {
    let table: [(_, &[&str]); 9] = [
        (json!({}), &[]),
        (json!({ "upgrade": { "attempts": 7 } }), &[]),
        (json!({ "parallelism": 2 }), &["Rescale Preparing 0"]),
        (json!({ "restartNonce": 1 }), &["Restart Preparing 0"]),
        (json!({ "program": { "sql": "select 2" } }), &["Upgrade Preparing 0"]),
        (json!({ "program": { "sql": "select 2" }, "upgrade": { "mode": "Stateless" } }), &["Upgrade Preparing 0"]),
        (json!({ "state": "Suspended" }), &["Suspend Saving 1"]),
        (json!({ "state": "Suspended", "upgrade": { "mode": "LastCheckpoint" } }), &["Suspend Stopping 0"]),
        // Refused: the state lies elsewhere.
        (json!({ "storage": { "persistentVolumeClaim": { "claimName": "other" } } }), &[]),
    ];
    for (edited, deeds_wanted) in table {
        let mut observed = running();
        edit(&mut observed, &edited);
        assert_eq!(deeds(&observed), deeds_wanted, "{edited}");
    }
}

#[test]
fn what_begins_with_an_edit_of_a_job_that_has_ended() {
    let stateless = json!({ "restartNonce": 1, "upgrade": { "mode": "Stateless" } });
    let table: [(_, _, &[&str]); 7] = [
        (EndState::Finished, json!({ "upgrade": { "attempts": 7 } }), &[]),
        (EndState::Finished, json!({ "restartNonce": 1 }), &["Restart Preparing 0"]),
        (EndState::Failed, json!({}), &[]),
        (EndState::Failed, json!({ "restartNonce": 1 }), &["Restart Preparing 0"]),
        (EndState::Failed, stateless, &["Restart Preparing 0"]),
        (EndState::Canceled, json!({ "parallelism": 3 }), &["Rescale Preparing 0"]),
        (EndState::Canceled, json!({ "state": "Suspended", "parallelism": 3 }), &[]),
    ];
    for (state, edited, wanted) in table {
        let mut observed = running();
        end(&mut observed, state, None);
        let word = format!("{state:?}").to_uppercase();
        observed.engines = [(1, engine(&word))].into();
        // Its workers are not needed any more.
        observed.children.stateful_sets.clear();
        edit(&mut observed, &edited);
        assert_eq!(deeds(&observed), wanted, "{state:?} {edited}");
        let operation = next_status(&observed).operation;
        let anew = operation.is_some_and(|operation| operation.job_id.as_deref() != Some(JOB_ID));
        let wanted_anew =
            !wanted.is_empty() && (state == EndState::Finished || edited["upgrade"]["mode"] == "Stateless");
        assert_eq!(anew, wanted_anew, "{state:?} {edited}");
    }
}

#[test]
fn a_failed_job_without_checkpoints_is_not_begun_without() {
    let mut observed = running();
    end(&mut observed, EndState::Failed, None);
    status(&mut observed).ended.as_mut().unwrap().restore_point = None;
    observed.children.stateful_sets.clear();
    edit(&mut observed, &json!({ "restartNonce": 1 }));
    assert_eq!(deeds(&observed), Vec::<String>::new());
    assert!(next_status(&observed).conditions.iter().any(|it| it.type_ == "Stalled" && it.reason == "NoRestorePoint"));
}

#[test]
fn pods_scaled_by_hand_come_back() {
    let table = [
        ("job-w1", Some(5), "scale job-w1 1"),
        ("job-w1", Some(0), "scale job-w1 1"),
        ("job-c1", Some(0), "scale job-c1 1"),
    ];
    for (name, replicas, wanted) in table {
        let mut observed = running();
        for set in observed.children.stateful_sets.iter_mut().filter(|set| set.metadata.name.as_deref() == Some(name)) {
            set.spec.as_mut().unwrap().replicas = replicas;
        }
        for it in observed.children.deployments.iter_mut().filter(|it| it.metadata.name.as_deref() == Some(name)) {
            it.spec.as_mut().unwrap().replicas = replicas;
        }
        assert_eq!(deeds(&observed), [wanted]);
    }
}
