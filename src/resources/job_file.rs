//! The job file that the engine's processes read: what the user wrote, with the places filled in. Credentials are no part
//! of it: the engine takes them from its environment.

use super::Revision;
use super::meta::job_name;
use super::spec::{s3_prefix, savepoint_directory_of};
use serde_json::{Value, json};
use streamjob_api::spec::{ClaimMode, RestoreFrom, Storage, StreamJobSpec, Upgrade};

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

/// In YAML, as people read it in the ConfigMap: a line a field, and the SQL text as it was written.
fn text(namespace: &str, name: &str, spec: &Value) -> String {
    let metadata = json!({ "name": name, "namespace": namespace });
    let mut text = format!("apiVersion: {}\nkind: StreamJob\nmetadata: {metadata}\nspec:\n", crate::api::API_VERSION);
    for (field, value) in spec.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        match value.get("sql").and_then(Value::as_str) {
            Some(sql) => text.push_str(&format!("  {field}:\n    sql: {}\n", scalar(sql, "      "))),
            // JSON is YAML.
            None => text.push_str(&format!("  {field}: {value}\n")),
        }
    }
    text
}

/// Of a text with several lines a block, where YAML would read it back as it is.
fn scalar(text: &str, indent: &str) -> String {
    let (body, header) = match text.strip_suffix('\n') {
        Some(body) => (body, "|"),
        None => (text, "|-"),
    };
    let plain = |c: char| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{2030}'..='\u{d7ff}' | '\u{1f300}'..='\u{1faff}');
    let begins = body.starts_with(|c: char| !c.is_whitespace());
    let ends = body.ends_with(|c: char| !c.is_whitespace());
    if !body.contains('\n') || !begins || !ends || !body.chars().all(plain) {
        return Value::from(text).to_string();
    }
    let lines = body.split('\n').map(|line| if line.is_empty() { String::new() } else { format!("{indent}{line}") });
    format!("{header}\n{}", lines.collect::<Vec<_>>().join("\n"))
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
