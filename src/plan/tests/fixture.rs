//! A job that runs, and ways to say how it differs and what was planned.

use crate::api::status::{EndState, Ended, Operation, OperationKind, OperationStep, RestorePoint};
use crate::api::{FINALIZER, StreamJob, StreamJobStatus};
use crate::plan::effect::{Child, Effect};
use crate::plan::observed::{Children, EngineAnswer, EngineRestorePoint, EngineStatus, Observed, Standby};
use crate::plan::{Plan, changes, plan};
use crate::resources::{self, Revision};
use crate::settings::{Settings, TokenKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PartialObjectMeta;
use serde_json::{Value, json};
use streamjob_api::spec::StreamJobSpec;

pub const JOB_ID: &str = "0a1b2c3d000040008000000000000001";

pub fn settings() -> Settings {
    Settings { engine_image: "engine".into(), image_pull_policy: None, token_key: TokenKey::new("key") }
}

pub fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

pub fn ago(seconds: i64) -> Time {
    Time(Timestamp::from_second(1_700_000_000 - seconds).unwrap())
}

/// With these fields over a small spec.
pub fn spec(change: &Value) -> StreamJobSpec {
    let mut spec = json!({
        "program": { "sql": "select 1" }, "image": "a:1", "checkpoint": { "interval": "1s" },
        "restartStrategy": { "none": {} }, "storage": { "persistentVolumeClaim": { "claimName": "disk" } },
    });
    merge(&mut spec, change);
    serde_json::from_value(spec).unwrap()
}

/// Objects field by field; null takes away.
fn merge(into: &mut Value, change: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *into, change) else {
        *into = change.clone();
        return;
    };
    for (name, value) in changes {
        match value {
            Value::Null => drop(fields.remove(name)),
            _ => merge(fields.entry(name).or_insert(Value::Null), value),
        }
    }
}

pub fn point(id: i64, path: &str) -> RestorePoint {
    let savepoint = path.contains("savepoint");
    RestorePoint { id, path: Some(path.into()), completed_at: None, duration_ms: None, size_bytes: None, savepoint }
}

/// Revision 1 runs as the spec says, and nothing is to be done.
pub fn running() -> Observed {
    let mut job = StreamJob::new("job", spec(&json!({})));
    job.metadata.namespace = Some("space".into());
    job.metadata.uid = Some("0a1b2c3d-0000-4000-8000-000000000001".into());
    job.metadata.generation = Some(1);
    job.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    job.status = Some(StreamJobStatus {
        observed_generation: Some(1),
        job_id: Some(JOB_ID.into()),
        current_revision: Some(1),
        target_revision: Some(1),
        last_revision: Some(1),
        stable_revision: Some(1),
        max_parallelism: Some(128),
        parallelism: Some(1),
        last_checkpoint: Some(point(7, "chk-7")),
        ..StreamJobStatus::default()
    });
    let mut observed = Observed {
        job,
        namespace_terminating: false,
        children: Children::default(),
        engines: [(1, engine("RUNNING"))].into(),
        stops: Default::default(),
        savepoints: Vec::new(),
        events: Vec::new(),
        refused: None,
    };
    for child in resources::shared_children(&observed.job, Some(1), &settings()) {
        add(&mut observed, child);
    }
    add_revision(&mut observed, 1, JOB_ID);
    // What a first pass writes down of what it sees.
    if let Some(Effect::WriteStatus(status)) = made(&observed).effects.into_iter().next() {
        observed.job.status = Some(*status);
    }
    observed
}

/// What the API server holds of a revision of the spec as it is now.
pub fn add_revision(observed: &mut Observed, number: i64, job_id: &str) {
    let (job, settings) = (observed.job.clone(), settings());
    let revision = Revision {
        job: &job,
        spec: &job.spec,
        number,
        job_id,
        max_parallelism: 128,
        replaces: None,
        restore_path: None,
        settings: &settings,
    };
    add(observed, Child::ControllerRevision(Box::new(resources::controller_revision(&revision))));
    for child in resources::revision_children(&revision) {
        add(observed, child);
    }
}

pub fn add(observed: &mut Observed, child: Child) {
    let children = &mut observed.children;
    match child {
        Child::ControllerRevision(it) => children.revisions.push(*it),
        Child::ConfigMap(it) => children.config_maps.push(*it),
        Child::Secret(it) => {
            children.secrets.push(PartialObjectMeta { metadata: it.metadata, ..PartialObjectMeta::default() });
        }
        Child::ServiceAccount(it) => children.service_accounts.push(*it),
        Child::Service(it) => children.services.push(*it),
        Child::Deployment(it) => children.deployments.push(*it),
        Child::StatefulSet(it) => children.stateful_sets.push(*it),
        Child::PodDisruptionBudget(it) => children.disruption_budgets.push(*it),
        Child::PersistentVolumeClaim(it) => children.claims.push(*it),
        Child::Pod(it) => children.pods.push(*it),
    }
}

pub fn engine(state: &str) -> EngineAnswer {
    let standby = (state == "STANDBY").then_some(Standby { ready: true, checked: true, slots: 1, needed: 1 });
    let config = json!({
        "interval_ms": 1000, "mode": "ExactlyOnce", "timeout_ms": 600_000, "min_pause_ms": 0, "max_concurrent": 1,
        "tolerable_failures": 0, "retention": "None", "retained": 1, "incremental": false, "compression": "None",
    });
    let mut status = EngineStatus {
        job_id: JOB_ID.into(),
        state: state.into(),
        standby,
        parallelism: 1,
        restore_point: Some(EngineRestorePoint { checkpoint: 7, path: "chk-7".into() }),
        checkpoint_config: Some(serde_json::from_value(config).unwrap()),
        ..EngineStatus::default()
    };
    status.checkpoints.completed = 5;
    status.checkpoints.last_id = Some(7);
    status.checkpoints.last_path = Some("chk-7".into());
    status.checkpoints.last_completed_at = Some(now().as_millisecond());
    EngineAnswer::Status(Box::new(status))
}

/// The user changes the spec.
pub fn edit(observed: &mut Observed, change: &Value) {
    let mut fields = serde_json::to_value(&observed.job.spec).unwrap();
    merge(&mut fields, change);
    observed.job.spec = serde_json::from_value(fields).unwrap();
    observed.job.metadata.generation = Some(2);
}

pub fn status(observed: &mut Observed) -> &mut StreamJobStatus {
    observed.job.status.as_mut().unwrap()
}

pub fn end(observed: &mut Observed, state: EndState, reason: Option<&str>) {
    let (reason, spec_hash) = (reason.map(str::to_owned), Some(changes::attempt(&observed.job.spec)));
    let restore_point = (state != EndState::Finished).then(|| point(7, "chk-7"));
    status(observed).ended = Some(Ended { state, revision: 1, reason, spec_hash, restore_point, at: ago(9) });
}

/// An operation from revision 1 is at this step for so many seconds.
pub fn operation(observed: &mut Observed, kind: OperationKind, step: OperationStep, seconds: i64) {
    let to = !matches!(kind, OperationKind::Suspend | OperationKind::Delete);
    let spec_hash = Some(changes::attempt(&observed.job.spec));
    let operation = Operation {
        id: "an-operation".into(),
        kind,
        step,
        from_revision: Some(1),
        to_revision: to.then_some(2),
        generation: Some(2),
        spec_hash,
        job_id: Some(JOB_ID.into()),
        restore_point: Some(point(7, "chk-7")),
        attempt: i32::from(step == OperationStep::Saving),
        message: None,
        started_at: ago(seconds),
        step_started_at: ago(seconds),
        deadline: None,
    };
    let status = status(observed);
    status.operation = Some(operation);
    status.last_revision = Some(if to { 2 } else { 1 });
}

pub fn made(observed: &Observed) -> Plan {
    plan(observed, &settings(), now())
}

pub fn next_status(observed: &Observed) -> StreamJobStatus {
    let written = made(observed).effects.into_iter().find_map(|effect| match effect {
        Effect::WriteStatus(status) => Some(*status),
        _ => None,
    });
    written.or_else(|| observed.job.status.clone()).unwrap_or_default()
}

/// What is done, in short; of a status only its operation, and only if that changes. No events.
pub fn deeds(observed: &Observed) -> Vec<String> {
    let step = |status: Option<&StreamJobStatus>| {
        let operation = status.and_then(|status| status.operation.as_ref());
        operation.map_or("none".to_owned(), |it| format!("{:?} {:?} {}", it.kind, it.step, it.attempt))
    };
    let before = step(observed.job.status.as_ref());
    let deeds = made(observed).effects.into_iter().filter_map(|effect| match effect {
        Effect::WriteStatus(status) => Some(step(Some(&status))).filter(|after| *after != before),
        Effect::Create(child) => Some(format!("create {:?}", child.kind())),
        Effect::Apply(child) => Some(format!("apply {:?}", child.kind())),
        Effect::Delete(deletion) => Some(format!("delete {:?} {}", deletion.kind, deletion.name)),
        Effect::Scale(scaling) => Some(format!("scale {} {}", scaling.name, scaling.replicas)),
        Effect::Engine { revision, call } => {
            let call = format!("{call:?}");
            Some(format!("{revision} {}", call.split([' ', '(']).next().unwrap_or_default()))
        }
        Effect::CreateSavepoint(_) => Some("create Savepoint".into()),
        Effect::DeleteSavepoint { name } => Some(format!("delete Savepoint {name}")),
        Effect::AddFinalizer => Some("add finalizer".into()),
        Effect::RemoveFinalizer => Some("remove finalizer".into()),
        Effect::Event(_) => None,
    });
    deeds.collect()
}
