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

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;

    fn rendered(fields: Value, restore_path: Option<&str>) -> StreamJobSpec {
        let text = text("shop", "a", &engine_spec(&spec(fields), "shop", "a", restore_path));
        streamjob_api::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).spec
    }

    #[test]
    fn what_it_goes_on_from() {
        let claim = json!({ "persistentVolumeClaim": { "claimName": "c" } });
        let own = json!({ "path": "/x/savepoint-1", "claimMode": "Claim" });
        let reference = json!({ "savepointRef": { "name": "s" }, "claimMode": "NoClaim" });
        let retained = json!({ "latestRetained": { "jobName": "b" }, "claimMode": "Claim" });
        let table = [
            (json!(null), None, json!(null)),
            (own.clone(), None, own.clone()),
            (own.clone(), Some("/x/savepoint-1"), own.clone()),
            // A way back to a restore point of this job's own.
            (own, Some("/y/chk-7"), json!({ "path": "/y/chk-7", "claimMode": "NoClaim" })),
            (json!(null), Some("/y/chk-7"), json!({ "path": "/y/chk-7", "claimMode": "NoClaim" })),
            (reference.clone(), Some("/x/savepoint-2"), json!({ "path": "/x/savepoint-2", "claimMode": "NoClaim" })),
            (retained.clone(), None, retained),
            // Unresolved, the engine refuses it: better than a start without state.
            (reference.clone(), None, reference),
        ];
        for (written, path, expected) in table {
            let spec = rendered(json!({ "storage": claim, "restoreFrom": written }), path);
            assert_eq!(serde_json::to_value(spec.restore_from).unwrap(), expected, "{written} {path:?}");
        }
    }

    #[test]
    fn texts_come_back_as_they_are() {
        let parts = [
            "SELECT",
            "\n",
            "\n\n",
            " ",
            "  ",
            "'it''s'",
            "\"",
            "-- x",
            "#",
            ": ",
            "- ",
            "|",
            ">",
            "%",
            "\t",
            "\r",
            "ä",
            "→",
            "\u{1f600}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\\",
            "{",
            "}",
            "---",
            "...",
            "~",
            "null",
        ];
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let mut blocks = 0;
        for _ in 0..400 {
            let length = 1 + next() % 8;
            let sql: String = (0..length).map(|_| parts[next() % parts.len()]).chain(["x"]).collect();
            let sql = if next() % 2 == 0 { sql + "\n" } else { sql };
            blocks += usize::from(scalar(&sql, "").starts_with('|'));
            let spec = rendered(json!({ "program": { "sql": sql } }), None);
            assert_eq!(spec.program.sql.as_deref(), Some(sql.as_str()));
        }
        assert!(blocks > 20, "{blocks}");
    }

    #[test]
    fn what_the_engine_needs_is_there() {
        let spec = rendered(
            json!({
                "image": "mine",
                "upgrade": { "allowNonRestoredState": true, "attempts": 9 },
                "workers": { "slots": 3, "resources": { "requests": { "cpu": 1 } }, "podTemplate": { "spec": {} } },
                "deletion": { "policy": "Discard" },
                "failover": "Full",
            }),
            None,
        );
        assert!(spec.upgrade.as_ref().is_some_and(|upgrade| upgrade.allow_non_restored_state && upgrade.attempts == 3));
        assert_eq!(
            spec.workers.map(|workers| (workers.slots, workers.resources, workers.pod_template)),
            Some((3, None, None))
        );
        assert_eq!((spec.image, spec.deletion, spec.failover), (None, None, streamjob_api::spec::Failover::Full));
    }
}
