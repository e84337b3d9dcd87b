//! What a job file may say and a cluster cannot do. Found before anything is created, so that what runs is not touched.

use super::overlay;
use super::pods;
use super::spec::{has_storage, storage_location};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};
use streamjob_api::spec::{ClaimMode, DeletionPolicy, StateBackend, StreamJobSpec};

/// So that it stays within the job file's limit with `/<namespace>.<job>`.
const LONGEST_PREFIX: usize = 400;

/// A field and what is wrong with it.
pub type Unsupported = (String, String);

/// The first thing in a spec that cannot work on Kubernetes, whatever runs now.
pub fn unsupported_on_kubernetes(spec: &StreamJobSpec) -> Option<Unsupported> {
    program(spec).or_else(|| storage(spec)).or_else(|| restore(spec)).or_else(|| pods(spec)).or_else(|| cron(spec))
}

/// What cannot become of a job that has state: the number of key groups, and the place of the state.
pub fn unsupported_change(
    running: &StreamJobSpec,
    max_parallelism: i32,
    wanted: &StreamJobSpec,
) -> Option<Unsupported> {
    if let Some(most) = wanted.max_parallelism
        && most != max_parallelism
    {
        let message =
            format!("it is {max_parallelism} for the life of the job's state; set it to that or leave it out");
        return refused("spec.maxParallelism", message);
    }
    if wanted.parallelism > max_parallelism {
        let message = format!("found {}, more than maxParallelism {max_parallelism}", wanted.parallelism);
        return refused("spec.parallelism", message);
    }
    let (from, to) = (storage_location(running), storage_location(wanted));
    if from.is_some() && from != to {
        let text = |place: Option<String>| place.unwrap_or_else(|| "nowhere".into());
        let message = format!(
            "the job's state lies in {} and not in {}; take a savepoint and start another job with restoreFrom",
            text(from),
            text(to)
        );
        return refused("spec.storage", message);
    }
    None
}

/// Reads cron's five fields. The one reading of a schedule: what is accepted here is what is planned with.
///
/// # Errors
/// What is wrong with the text.
pub fn schedule(text: &str) -> Result<croner::Cron, String> {
    text.parse::<croner::Cron>().map_err(|error| error.to_string())
}

fn refused(field: impl Into<String>, message: impl Into<String>) -> Option<Unsupported> {
    Some((field.into(), message.into()))
}

fn program(spec: &StreamJobSpec) -> Option<Unsupported> {
    if spec.program.command.is_some() {
        return refused("spec.program.command", "programs in Rust are not available yet; use sql");
    }
    if spec.state_backend == StateBackend::RocksDB {
        return refused("spec.stateBackend", "RocksDB is not available yet; use HashMap");
    }
    let secret = |variable: &&streamjob_api::spec::EnvVar| {
        variable.value_from.is_some() && pods::is_reserved_variable(&variable.name, spec)
    };
    let reserved = spec.env.iter().find(secret)?;
    refused("spec.env", format!("{} is needed for something else in the pods; choose another name", reserved.name))
}

fn storage(spec: &StreamJobSpec) -> Option<Unsupported> {
    let storage = spec.storage.as_ref();
    if storage.is_some_and(|storage| storage.directory.is_some()) {
        return refused(
            "spec.storage.directory",
            "pods share no directory; use persistentVolumeClaim or s3 (directory is for local mode)",
        );
    }
    let s3 = storage.and_then(|storage| storage.s3.as_ref());
    if s3.is_some_and(|s3| s3.prefix.len() > LONGEST_PREFIX) {
        let message = format!("at most {LONGEST_PREFIX} characters: the job's namespace and name are appended to it");
        return refused("spec.storage.s3.prefix", message);
    }
    if has_storage(spec) {
        return None;
    }
    let without = |what: &str| format!("{what} nowhere to go; set persistentVolumeClaim or s3");
    if spec.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.interval.is_some()) {
        return refused("spec.storage", without("checkpoints have"));
    }
    if spec.savepoints.is_some() || storage.is_some() {
        return refused("spec.storage", without("savepoints have"));
    }
    if spec.deletion.as_ref().is_some_and(|deletion| deletion.policy == DeletionPolicy::Savepoint) {
        return refused("spec.deletion.policy", without("a last savepoint has"));
    }
    None
}

fn restore(spec: &StreamJobSpec) -> Option<Unsupported> {
    let from = spec.restore_from.as_ref()?;
    if !has_storage(spec) {
        return refused("spec.storage", "restoreFrom needs it: the job's own state has to have a place");
    }
    if from.savepoint_ref.is_some() && from.claim_mode == ClaimMode::Claim {
        return refused(
            "spec.restoreFrom.claimMode",
            "the files belong to the Savepoint resource, which deletes them; use NoClaim",
        );
    }
    None
}

fn pods(spec: &StreamJobSpec) -> Option<Unsupported> {
    let coordinator = spec.coordinator.as_ref().and_then(|coordinator| coordinator.pod_template.as_ref());
    let workers = spec.workers.as_ref().and_then(|workers| workers.pod_template.as_ref());
    pod_template("spec.coordinator.podTemplate", coordinator)
        .or_else(|| pod_template("spec.workers.podTemplate", workers))
}

fn pod_template(field: &str, template: Option<&Map<String, Value>>) -> Option<Unsupported> {
    let problem = overlay::merged(&PodTemplateSpec::default(), template?).err()?;
    refused(field, format!("{problem}; it is merged over the pod, and has metadata and spec as in a Deployment"))
}

fn cron(spec: &StreamJobSpec) -> Option<Unsupported> {
    let text = &spec.savepoints.as_ref()?.schedule;
    let problem = schedule(text).err()?;
    refused(
        "spec.savepoints.schedule",
        format!("{text:?} is no schedule of cron ({problem}); for example \"0 3 * * *\""),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be() {
        let claim = json!({ "persistentVolumeClaim": { "claimName": "c" } });
        let secret =
            |name: &str| json!([{ "name": name, "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
        let template = |field: &str, template: Value| json!({ field: { "podTemplate": template } });
        let table = [
            (json!({ "program": { "command": ["/job"] } }), "spec.program.command", "not available yet"),
            (json!({ "stateBackend": "RocksDB" }), "spec.stateBackend", "use HashMap"),
            (json!({ "storage": { "directory": "/data" } }), "spec.storage.directory", "pods share no directory"),
            (json!({ "checkpoint": { "interval": "1s" } }), "spec.storage", "checkpoints have nowhere to go"),
            (
                json!({ "checkpoint": { "interval": "1s" }, "storage": { "savepointDir": "s3://b/s" } }),
                "spec.storage",
                "checkpoints have nowhere to go",
            ),
            (json!({ "savepoints": { "schedule": "0 3 * * *" } }), "spec.storage", "savepoints have nowhere to go"),
            (json!({ "storage": { "savepointDir": "s3://b/s" } }), "spec.storage", "savepoints have nowhere to go"),
            (json!({ "deletion": { "policy": "Savepoint" } }), "spec.deletion.policy", "a last savepoint has nowhere"),
            (json!({ "restoreFrom": { "path": "s3://b/s" } }), "spec.storage", "restoreFrom needs it"),
            (
                json!({ "storage": claim, "restoreFrom": { "savepointRef": { "name": "s" }, "claimMode": "Claim" } }),
                "spec.restoreFrom.claimMode",
                "use NoClaim",
            ),
            (
                json!({ "storage": { "s3": { "bucket": "b", "prefix": "p".repeat(401) } } }),
                "spec.storage.s3.prefix",
                "at most 400",
            ),
            (
                json!({ "storage": claim, "savepoints": { "schedule": "every day" } }),
                "spec.savepoints.schedule",
                "is no schedule",
            ),
            (
                json!({ "storage": claim, "savepoints": { "schedule": "61 * * * *" } }),
                "spec.savepoints.schedule",
                "is no schedule",
            ),
            (json!({ "env": secret("POD_IP") }), "spec.env", "POD_IP is needed for something else"),
            (
                json!({ "env": secret("AWS_ACCESS_KEY_ID"), "storage": { "s3": { "bucket": "b", "credentialsSecret": { "name": "s" } } } }),
                "spec.env",
                "AWS_ACCESS_KEY_ID is needed",
            ),
            (
                template("workers", json!({ "nodeSelector": {} })),
                "spec.workers.podTemplate",
                "there is no such field: nodeSelector; it is merged over the pod, and has metadata and spec",
            ),
            (
                template("coordinator", json!({ "spec": { "containers": [{ "name": "streamjob", "resource": {} }] } })),
                "spec.coordinator.podTemplate",
                "there is no such field: spec.containers[0].resource",
            ),
        ];
        for (fields, field, message) in table {
            let (found, text) = unsupported_on_kubernetes(&spec(fields.clone())).unwrap_or_else(|| panic!("{fields}"));
            assert_eq!(found, field, "{fields}");
            assert!(text.contains(message), "{fields}: {text}");
        }
        let table = [
            json!({}),
            json!({ "env": [{ "name": "POD_IP", "value": "a plain value is no variable of the pod" }] }),
            json!({ "env": secret("AWS_ACCESS_KEY_ID"), "storage": { "s3": { "bucket": "b" } } }),
            json!({ "deletion": { "policy": "Discard" } }),
            json!({ "storage": claim, "checkpoint": { "interval": "1s" }, "savepoints": { "schedule": "*/5 1-3 * * MON" } }),
            json!({ "storage": claim, "restoreFrom": { "savepointRef": { "name": "s" } } }),
            template(
                "workers",
                json!({ "spec": { "containers": [{ "name": "streamjob", "env": [{ "name": "A", "$patch": "delete" }] }] } }),
            ),
        ];
        for fields in table {
            assert_eq!(unsupported_on_kubernetes(&spec(fields.clone())), None, "{fields}");
        }
    }

    #[test]
    fn what_cannot_become_of_a_job() {
        let running = spec(json!({ "storage": { "s3": { "bucket": "b" } } }));
        let table = [
            (json!({ "maxParallelism": 256 }), Some("spec.maxParallelism")),
            (json!({ "parallelism": 129 }), Some("spec.parallelism")),
            (json!({ "storage": null }), Some("spec.storage")),
            (json!({ "storage": { "s3": { "bucket": "other" } } }), Some("spec.storage")),
            (json!({ "maxParallelism": 128, "parallelism": 128 }), None),
            (json!({ "storage": { "s3": { "bucket": "b", "region": "eu" } } }), None),
        ];
        for (fields, expected) in table {
            let mut all = json!({ "storage": { "s3": { "bucket": "b" } } });
            all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let found = unsupported_change(&running, 128, &spec(all));
            assert_eq!(found.as_ref().map(|(field, _)| field.as_str()), expected, "{fields}: {found:?}");
        }
        // A job that has kept nothing so far may begin to.
        let stateless = spec(json!({}));
        assert_eq!(unsupported_change(&stateless, 128, &running), None);
    }
}
