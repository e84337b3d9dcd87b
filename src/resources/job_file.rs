//! The job file that the engine's processes read: what the user wrote, with the places filled in. Credentials are no part
//! of it: the engine takes them from its environment.

use super::Revision;
use super::meta::job_name;
use super::spec::{s3_prefix, savepoint_directory_of};
use serde_json::{Value, json};
use streamjob_api::spec::{ClaimMode, Program, RestoreFrom, Storage, StreamJobSpec, Upgrade};

/// The job file of a revision.
pub(super) fn render(revision: &Revision) -> String {
    let job = revision.job;
    let (namespace, name) = (job.metadata.namespace.as_deref().unwrap_or_default(), job_name(job));
    let spec = engine_spec(revision.spec, namespace, name, revision.restore_path);
    text(namespace, name, &spec)
}

/// A job file that says only where the job keeps its files, for deleting some.
pub(super) fn render_for_disposal(namespace: &str, name: &str, spec: &StreamJobSpec) -> String {
    let program = json!({ "sql": "-- nothing runs: files are deleted" });
    let storage = spec.storage.as_ref().map(|storage| placed(storage, spec, namespace, name));
    text(namespace, name, &json!({ "program": program, "storage": storage }))
}

fn text(namespace: &str, name: &str, spec: &Value) -> String {
    let document = json!({
        "apiVersion": crate::api::API_VERSION,
        "kind": "StreamJob",
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    });
    // JSON is YAML.
    format!("{document:#}\n")
}

/// Without what only the operator acts on: the file of a revision stays the same when that changes.
fn engine_spec(spec: &StreamJobSpec, namespace: &str, name: &str, restore_path: Option<&str>) -> Value {
    let workers = spec.workers.clone().map(|mut workers| {
        workers.resources = None;
        workers.pod_template = None;
        workers
    });
    let allow_non_restored_state = spec.upgrade.as_ref().is_some_and(|upgrade| upgrade.allow_non_restored_state);
    let spec = StreamJobSpec {
        program: Program { ..spec.program.clone() },
        workers,
        storage: spec.storage.as_ref().map(|storage| placed(storage, spec, namespace, name)),
        restore_from: restore_from(spec.restore_from.as_ref(), restore_path),
        image: None,
        image_pull_policy: None,
        image_pull_secrets: Vec::new(),
        coordinator: None,
        state: None,
        upgrade: allow_non_restored_state.then(|| Upgrade { allow_non_restored_state: true, ..Upgrade::default() }),
        restart_nonce: None,
        savepoints: None,
        deletion: None,
        ..spec.clone()
    };
    serde_json::to_value(&spec).unwrap_or_default()
}

fn placed(storage: &Storage, spec: &StreamJobSpec, namespace: &str, name: &str) -> Storage {
    let mut placed = storage.clone();
    placed.savepoint_dir = Some(savepoint_directory_of(namespace, name, spec));
    if let Some(s3) = &mut placed.s3 {
        s3.prefix = s3_prefix(s3, namespace, name);
        s3.credentials_secret = None;
    }
    placed
}

/// A path that the operator found stands for what the user wrote. Whose the files are from then on is the user's word
/// for their own path only: savepoints that have a resource belong to that, and restore points of this job to the job.
fn restore_from(written: Option<&RestoreFrom>, path: Option<&str>) -> Option<RestoreFrom> {
    let Some(path) = path else { return written.cloned() };
    let users_own = written.filter(|from| from.path.as_deref() == Some(path));
    Some(RestoreFrom {
        path: Some(path.to_owned()),
        claim_mode: users_own.map_or(ClaimMode::NoClaim, |from| from.claim_mode),
        ..RestoreFrom::default()
    })
}
