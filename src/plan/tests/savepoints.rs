//! Every phase of a savepoint's resource.

use super::fixture::*;
use crate::api::status::{EndState, RestorePoint};
use crate::api::{FINALIZER, Savepoint, SavepointPhase, SavepointSpec, SavepointStatus};
use crate::plan::effect::SavepointEffect;
use crate::plan::observed::{EngineAnswer, EngineRestorePoint, EngineSavepoint, ObservedSavepoint, SavepointAnswer};
use crate::plan::plan_savepoint;
use crate::resources::files_of;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use streamjob_api::spec::LocalReference;

const PATH: &str = "s/savepoint-8";

fn taken() -> EngineSavepoint {
    EngineSavepoint { id: 8, path: PATH.into(), bytes: Some(99), ..EngineSavepoint::default() }
}

fn observed(phase: SavepointPhase) -> ObservedSavepoint {
    let job_ref = LocalReference { name: "job".into() };
    let of = SavepointSpec { job_ref, path: None, format: Default::default(), retain: false };
    let mut savepoint = Savepoint::new("monday", of);
    savepoint.metadata.namespace = Some("space".into());
    savepoint.metadata.uid = Some("0a1b2c3d-0000-4000-8000-000000000009".into());
    savepoint.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let complete = matches!(phase, SavepointPhase::Completed | SavepointPhase::Deleting);
    savepoint.status = Some(SavepointStatus {
        phase,
        path: complete.then(|| PATH.to_owned()),
        checkpoint_id: complete.then_some(8),
        trigger_id: Some("f".repeat(32)),
        started_at: Some(ago(3)),
        ..SavepointStatus::default()
    });
    let job = running().job;
    ObservedSavepoint {
        savepoint,
        namespace_terminating: false,
        spec: Some(job.spec.clone()),
        job: Some(job),
        engine: Some(engine("RUNNING")),
        answer: None,
        dispose_pod: None,
    }
}

fn deleted(phase: SavepointPhase) -> ObservedSavepoint {
    let mut observed = observed(phase);
    observed.savepoint.metadata.deletion_timestamp = Some(Time(now()));
    observed
}

/// What is done, in short; of a status its phase, if that changes. Of events their reasons.
fn deeds(observed: &ObservedSavepoint) -> Vec<String> {
    let before = observed.savepoint.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let effects = plan_savepoint(observed, &settings(), now()).effects.into_iter();
    let deeds = effects.filter_map(|effect| match effect {
        SavepointEffect::WriteStatus(status) => (status.phase != before).then(|| format!("{:?}", status.phase)),
        SavepointEffect::AddFinalizer => Some("add finalizer".into()),
        SavepointEffect::RemoveFinalizer => Some("remove finalizer".into()),
        SavepointEffect::Create(child) => Some(format!("create {:?}", child.kind())),
        SavepointEffect::Delete(deletion) => Some(format!("delete {}", deletion.name)),
        SavepointEffect::Engine { revision, .. } => Some(format!("ask {revision}")),
        SavepointEffect::Event(event) => Some(format!("event {}", event.reason)),
    });
    deeds.collect()
}

fn status_of(observed: &ObservedSavepoint) -> SavepointStatus {
    let effects = plan_savepoint(observed, &settings(), now()).effects.into_iter();
    let mut written = effects.filter_map(|effect| match effect {
        SavepointEffect::WriteStatus(status) => Some(*status),
        _ => None,
    });
    written.next().or_else(|| observed.savepoint.status.clone()).unwrap_or_default()
}

#[test]
fn taken_when_the_job_runs() {
    for (state, wanted) in [("RUNNING", vec!["InProgress"]), ("RESTARTING", vec![]), ("STANDBY", vec![])] {
        let mut pending = observed(SavepointPhase::Pending);
        pending.engine = Some(engine(state));
        assert_eq!(deeds(&pending), wanted, "{state}");
    }
    let mut over = observed(SavepointPhase::Pending);
    let mut of_job = running();
    end(&mut of_job, EndState::Failed, None);
    over.job = Some(of_job.job);
    assert_eq!(deeds(&over), ["Failed", "event SavepointFailed"]);
}

#[test]
fn under_way() {
    let refused = |terminal| SavepointAnswer::Refused { reason: "/x cannot be written".into(), terminal };
    let table: [(Option<SavepointAnswer>, &[&str]); 7] = [
        (None, &["ask 1"]),
        (Some(SavepointAnswer::Unknown), &["ask 1"]),
        (Some(SavepointAnswer::InProgress), &[]),
        (Some(refused(false)), &["ask 1"]),
        (Some(refused(true)), &["Failed", "event SavepointFailed"]),
        (Some(SavepointAnswer::Failed { reason: "no".into() }), &["Failed", "event SavepointFailed"]),
        (Some(SavepointAnswer::Completed(Box::new(taken()))), &["Completed", "event SavepointCompleted"]),
    ];
    for (answer, wanted) in table {
        let mut taken = observed(SavepointPhase::InProgress);
        taken.answer = answer.clone();
        assert_eq!(deeds(&taken), wanted, "{answer:?}");
    }
    let mut refused_one = observed(SavepointPhase::InProgress);
    refused_one.answer = Some(refused(true));
    assert_eq!(status_of(&refused_one).error.as_deref(), Some("/x cannot be written"));
    let mut complete = observed(SavepointPhase::InProgress);
    // The job's own answer is older.
    complete.engine = Some(engine("RUNNING"));
    complete.answer = Some(SavepointAnswer::Completed(Box::new(taken())));
    let status = status_of(&complete);
    assert_eq!((status.checkpoint_id, status.size_bytes, status.path.as_deref()), (Some(8), Some(99), Some(PATH)));
    assert_eq!(status_of(&complete).files, files_of(&spec(&json!({}))), "where the files lie is written down");
}

/// The status knows of checkpoint 7; the savepoint is number 8.
#[test]
fn files_that_the_job_would_go_back_to_stay() {
    let says = |checkpoint, path: &str| {
        let EngineAnswer::Status(mut status) = engine("RUNNING") else { unreachable!() };
        status.restore_point = Some(EngineRestorePoint { checkpoint, path: path.into() });
        Some(EngineAnswer::Status(status))
    };
    let answers = |path: &str| says(9, path);
    let at = |id| Some(RestorePoint { id, path: Some("chk".into()), ..point(id, "chk") });
    let saved = Some(point(8, PATH));
    // The engine's word, what the status knows as newest checkpoint and as newest savepoint, and whether files go.
    let table = [
        (answers("chk-9"), at(7), saved.clone(), true),
        (answers("chk-9"), at(7), None, true),
        (answers(PATH), at(7), saved.clone(), false),
        // The status is older than the savepoint.
        (answers(PATH), at(7), None, false),
        (None, at(7), None, false),
        (None, at(7), saved.clone(), false),
        (None, at(9), saved.clone(), true),
        (Some(EngineAnswer::Unreachable("no".into())), at(7), None, false),
        // The next checkpoint may be an hour away: a running job goes back to the one before its savepoint.
        (says(7, "chk-7"), at(7), None, true),
        (says(7, "chk-7"), at(7), saved.clone(), true),
    ];
    for (engine, checkpoint, savepoint, goes) in table {
        let mut complete = deleted(SavepointPhase::Completed);
        let status = complete.job.as_mut().unwrap().status.as_mut().unwrap();
        (status.last_checkpoint, status.last_savepoint) = (checkpoint.clone(), savepoint.clone());
        complete.engine = engine.clone();
        let wanted: &[&str] = if goes { &["Deleting"] } else { &[] };
        assert_eq!(deeds(&complete), wanted, "{engine:?} {checkpoint:?} {savepoint:?}");
    }
    let mut suspended = deleted(SavepointPhase::Completed);
    suspended.engine = None;
    let status = suspended.job.as_mut().unwrap().status.as_mut().unwrap();
    (status.suspended, status.last_savepoint, status.last_checkpoint) = (true, Some(point(8, PATH)), at(9));
    assert_eq!(deeds(&suspended), Vec::<String>::new());
}

#[test]
fn deleted_with_and_without_the_job() {
    let without_job = |files: bool| {
        let mut observed = deleted(SavepointPhase::Completed);
        let spec = observed.spec.take().unwrap();
        (observed.job, observed.engine) = (None, None);
        observed.savepoint.status.as_mut().unwrap().files = files_of(&spec).filter(|_| files);
        observed
    };
    assert_eq!(deeds(&without_job(true)), ["Deleting"]);
    assert_eq!(deeds(&without_job(false)), ["event FilesLeft", "remove finalizer"]);

    let mut going = without_job(true);
    going.savepoint.status.as_mut().unwrap().phase = SavepointPhase::Deleting;
    assert_eq!(deeds(&going), ["create Pod"]);
    let pod = |phase: &str| {
        let pod = json!({ "metadata": { "name": "monday-dispose" }, "status": { "phase": phase } });
        serde_json::from_value(pod).unwrap()
    };
    for (phase, wanted) in [
        ("Running", vec![]),
        ("Failed", vec!["delete monday-dispose"]),
        ("Succeeded", vec!["delete monday-dispose", "remove finalizer"]),
    ] {
        going.dispose_pod = Some(pod(phase));
        assert_eq!(deeds(&going), wanted, "{phase}");
    }
    going.savepoint.status.as_mut().unwrap().started_at = Some(ago(601));
    going.dispose_pod = Some(pod("Running"));
    assert_eq!(deeds(&going), ["delete monday-dispose", "event FilesLeft", "remove finalizer"], "no stuck finalizer");

    let mut kept = deleted(SavepointPhase::Completed);
    kept.savepoint.spec.retain = true;
    assert_eq!(deeds(&kept), ["remove finalizer"]);
}

#[test]
fn adopted() {
    let mut adopted = observed(SavepointPhase::Pending);
    adopted.savepoint.spec.path = Some("elsewhere".into());
    assert_eq!(deeds(&adopted), ["Completed"]);
    assert_eq!(status_of(&adopted).files, files_of(&spec(&json!({}))));
}
