//! What follows from a job's spec alone: numbers, places, and whether another spec needs other pods.

use super::meta::job_name;
use crate::api::StreamJob;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use streamjob_api::spec::{
    Coordinator, EnvVar, PersistentVolumeClaim, Program, Quantity, Resources, S3, Storage, StreamJobSpec, Workers,
};

/// Where the volume with the job's state is mounted.
pub const STATE_MOUNT: &str = "/streamjob/state";
const LOWEST_DEFAULT_MAX_PARALLELISM: i64 = 128;
const HIGHEST_MAX_PARALLELISM: i64 = 32_768;

pub fn slots(spec: &StreamJobSpec) -> i32 {
    spec.workers.as_ref().map_or(1, |workers| workers.slots).max(1)
}

/// Worker pods: one for every `slots` subtasks, rounded up.
pub fn workers_needed(spec: &StreamJobSpec) -> i32 {
    let (parallelism, slots) = (i64::from(spec.parallelism.max(1)), i64::from(slots(spec)));
    i32::try_from((parallelism + slots - 1) / slots).unwrap_or(i32::MAX)
}

/// Flink's rule: room to grow by half, as a power of two.
pub fn default_max_parallelism(parallelism: i32) -> i32 {
    let parallelism = i64::from(parallelism.max(1));
    let with_room = (parallelism + parallelism / 2).unsigned_abs().next_power_of_two();
    let bounded = with_room.clamp(LOWEST_DEFAULT_MAX_PARALLELISM as u64, HIGHEST_MAX_PARALLELISM as u64);
    i32::try_from(bounded).unwrap_or(i32::MAX)
}

/// Whether checkpoints and savepoints of the job have a place that outlives its pods.
pub fn has_storage(spec: &StreamJobSpec) -> bool {
    spec.storage.as_ref().is_some_and(|storage| storage.persistent_volume_claim.is_some() || storage.s3.is_some())
}

/// Jobs share a bucket or a volume, and each keeps to its own directory, which another one can be told to look into.
pub(super) fn own_directory(namespace: &str, job: &str) -> String {
    format!("{namespace}.{job}")
}

/// What `--checkpoints` says.
pub(super) fn checkpoint_directory(namespace: &str, job: &str) -> String {
    format!("{STATE_MOUNT}/{}", own_directory(namespace, job))
}

/// The prefix below which a job keeps its state in the bucket.
pub(super) fn s3_prefix(s3: &S3, namespace: &str, job: &str) -> String {
    match s3.prefix.trim_matches('/') {
        "" => own_directory(namespace, job),
        prefix => format!("{prefix}/{}", own_directory(namespace, job)),
    }
}

/// Where savepoints of the job go.
pub fn savepoint_directory(job: &StreamJob, spec: &StreamJobSpec) -> String {
    savepoint_directory_of(job.metadata.namespace.as_deref().unwrap_or_default(), job_name(job), spec)
}

pub(super) fn savepoint_directory_of(namespace: &str, job: &str, spec: &StreamJobSpec) -> String {
    let storage = spec.storage.as_ref();
    if let Some(directory) = storage.and_then(|storage| storage.savepoint_dir.as_deref()) {
        return directory.to_owned();
    }
    match storage.and_then(|storage| storage.s3.as_ref()) {
        Some(s3) => format!("s3://{}/{}/savepoints", s3.bucket, s3_prefix(s3, namespace, job)),
        None => format!("{}/savepoints", checkpoint_directory(namespace, job)),
    }
}

/// Where the job's state lies, as far as moving it is concerned; `None` without storage. A revision with another place
/// would find no state there.
pub fn storage_location(spec: &StreamJobSpec) -> Option<String> {
    let storage = spec.storage.as_ref()?;
    if let Some(s3) = &storage.s3 {
        return Some(format!("s3://{}/{}", s3.bucket, s3.prefix.trim_matches('/')));
    }
    let claim = storage.persistent_volume_claim.as_ref()?;
    Some(match &claim.claim_name {
        Some(name) => format!("claim {name}"),
        None => "a claim of its own".into(),
    })
}

/// Equal for two specs if and only if pods of the one do for the other: a difference is of the classes rescale and
/// upgrade, or a restart that was asked for. Defaults are filled in, so writing one down is no change; what the running
/// job takes over live, what only the operator acts on, and where it restores from do not count.
pub fn spec_hash(spec: &StreamJobSpec) -> String {
    hash(&for_pods(spec))
}

/// Equal for two specs if and only if a start that failed with the one need not be tried with the other.
pub fn attempt_hash(spec: &StreamJobSpec) -> String {
    let upgrade = spec.upgrade.clone().unwrap_or_default();
    hash(&json!({
        "pods": for_pods(spec),
        "restoreFrom": spec.restore_from,
        "mode": upgrade.mode,
        "allowNonRestoredState": upgrade.allow_non_restored_state,
        "maxParallelism": spec.max_parallelism,
        "savepointDir": spec.storage.as_ref().and_then(|storage| storage.savepoint_dir.as_deref()),
    }))
}

fn for_pods(spec: &StreamJobSpec) -> Value {
    // Whole, so that a field that is added has to be thought of here: null at its default, or the hash of every spec
    // changes.
    let StreamJobSpec {
        program,
        env,
        parallelism,
        // Fixed with the first start: another value is refused.
        max_parallelism: _,
        workers,
        checkpoint,
        storage,
        state_backend,
        // Changes live.
        restart_strategy: _,
        failover,
        heartbeat,
        restore_from: _,
        image,
        image_pull_policy,
        image_pull_secrets,
        coordinator,
        state: _,
        upgrade: _,
        restart_nonce,
        savepoints: _,
        deletion: _,
    } = spec;
    let Program { sql, command, args } = program;
    let checkpoint = checkpoint.clone().unwrap_or_default();
    let Workers { slots, resources: worker_resources, pod_template: worker_template } =
        workers.clone().unwrap_or_default();
    let Coordinator { resources, pod_template } =
        coordinator.clone().unwrap_or(Coordinator { resources: None, pod_template: None });
    let mut env: Vec<&EnvVar> = env.iter().collect();
    env.sort_by(|one, other| one.name.cmp(&other.name));
    json!({
        "sql": sql.as_deref().map(str::trim),
        "command": command,
        "args": args,
        "env": env,
        "parallelism": parallelism,
        "slots": slots,
        "worker": for_pod(worker_resources.as_ref(), worker_template),
        "coordinator": for_pod(resources.as_ref(), pod_template),
        // The interval changes live, but neither on nor off.
        "checkpointing": checkpoint.interval.is_some(),
        "mode": checkpoint.mode,
        "maxConcurrent": checkpoint.max_concurrent,
        "incremental": checkpoint.incremental,
        "compression": checkpoint.compression,
        "storage": storage.as_ref().map(for_storage),
        "stateBackend": state_backend,
        "failover": failover,
        "heartbeat": heartbeat.clone().unwrap_or_default(),
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "imagePullSecrets": image_pull_secrets,
        "restartNonce": restart_nonce.unwrap_or(0),
    })
}

fn for_pod(resources: Option<&Resources>, template: Option<Map<String, Value>>) -> Value {
    let texts = |quantities: &std::collections::BTreeMap<String, Quantity>| {
        quantities.iter().map(|(name, quantity)| (name.clone(), quantity_text(quantity))).collect::<Vec<_>>()
    };
    json!({
        "requests": resources.map(|resources| texts(&resources.requests)).unwrap_or_default(),
        "limits": resources.map(|resources| texts(&resources.limits)).unwrap_or_default(),
        "podTemplate": template.filter(|template| !template.is_empty()),
    })
}

/// The size of a claim made from a template is the claim's business.
fn for_storage(storage: &Storage) -> Value {
    let claim = storage.persistent_volume_claim.as_ref().map(|PersistentVolumeClaim { claim_name, template }| {
        json!({ "claimName": claim_name, "template": template.is_some() })
    });
    let s3 = storage.s3.as_ref().map(|S3 { bucket, prefix, endpoint, region, credentials_secret }| {
        json!({
            "bucket": bucket,
            "prefix": prefix.trim_matches('/'),
            "endpoint": endpoint,
            "region": region,
            "credentialsSecret": credentials_secret,
        })
    });
    json!({ "directory": storage.directory, "claim": claim, "s3": s3 })
}

/// `1` and `"1"` are the same quantity.
pub(super) fn quantity_text(quantity: &Quantity) -> String {
    match &quantity.0 {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn hash(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    hex::encode(&Sha256::digest(text)[..16])
}

/// As JSON with sorted keys and without what is null: independent of how the library keeps its maps.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in fields {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{job, spec};
    use super::*;

    #[test]
    fn numbers_of_pods_and_key_groups() {
        for (parallelism, slots, workers) in [(1, 1, 1), (1, 8, 1), (5, 2, 3), (6, 2, 3), (32_768, 1, 32_768)] {
            let spec = spec(json!({ "parallelism": parallelism, "workers": { "slots": slots } }));
            assert_eq!(workers_needed(&spec), workers, "{parallelism} {slots}");
        }
        // The engine's golden values.
        let cases = [(1, 128), (64, 128), (86, 256), (171, 256), (200, 512), (21_846, 32_768), (32_768, 32_768)];
        for (parallelism, expected) in cases {
            assert_eq!(default_max_parallelism(parallelism), expected, "{parallelism}");
        }
        assert_eq!((default_max_parallelism(i32::MIN), default_max_parallelism(i32::MAX)), (128, 32_768));
    }

    #[test]
    fn places_of_savepoints() {
        let table = [
            (json!({ "persistentVolumeClaim": { "claimName": "c" } }), "/streamjob/state/shop.a/savepoints"),
            (json!({ "s3": { "bucket": "b" } }), "s3://b/shop.a/savepoints"),
            (json!({ "s3": { "bucket": "b", "prefix": "/x/y/" } }), "s3://b/x/y/shop.a/savepoints"),
            (json!({ "s3": { "bucket": "b" }, "savepointDir": "s3://c/d" }), "s3://c/d"),
        ];
        for (storage, expected) in table {
            let spec = spec(json!({ "storage": storage }));
            assert_eq!(savepoint_directory(&job("a", spec.clone()), &spec), expected);
        }
    }

    fn everything() -> Value {
        json!({
            "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            "parallelism": 2,
            "workers": { "slots": 2, "resources": { "requests": { "cpu": "1" } } },
            "checkpoint": { "interval": "10s" },
            "storage": { "s3": { "bucket": "b", "prefix": "p" } },
            "restartStrategy": { "fixedDelay": { "attempts": 3 } },
        })
    }

    fn changed(change: &Value) -> StreamJobSpec {
        fn merge(base: &mut Value, change: &Value) {
            match (base, change) {
                (Value::Object(base), Value::Object(change)) => {
                    for (name, value) in change {
                        merge(base.entry(name).or_insert(Value::Null), value);
                    }
                }
                (base, change) => *base = change.clone(),
            }
        }
        let mut fields = everything();
        merge(&mut fields, change);
        spec(fields)
    }

    #[test]
    fn what_needs_no_other_pods() {
        let table = [
            // Defaults, written down.
            json!({ "heartbeat": { "interval": "1s", "timeout": "10000ms" } }),
            json!({ "failover": "Region", "stateBackend": "HashMap", "restartNonce": 0 }),
            json!({ "coordinator": {} }),
            json!({ "coordinator": { "resources": {}, "podTemplate": {} } }),
            json!({ "workers": { "podTemplate": {}, "resources": { "requests": { "cpu": 1 } } } }),
            json!({ "checkpoint": { "mode": "ExactlyOnce", "maxConcurrent": 1, "incremental": false, "compression": "None" } }),
            json!({ "maxParallelism": 128 }),
            // The same, written differently.
            json!({ "storage": { "s3": { "prefix": "/p/" } } }),
            json!({ "program": { "sql": "\nINSERT INTO a SELECT b FROM c;\n" } }),
            json!({ "env": [{ "name": "B", "value": "2" }, { "name": "A", "value": "1" }] }),
            // Live.
            json!({ "checkpoint": { "interval": "1s", "timeout": "1m", "minPause": "1s", "tolerableFailures": 3 } }),
            json!({ "checkpoint": { "retention": "RetainOnCancellation", "retained": 3 } }),
            json!({ "restartStrategy": { "fixedDelay": { "attempts": 5 } } }),
            json!({ "restartStrategy": null }),
            // The operator's alone.
            json!({ "state": "Suspended" }),
            json!({ "upgrade": { "mode": "Stateless", "allowNonRestoredState": true } }),
            json!({ "savepoints": { "schedule": "0 3 * * *" } }),
            json!({ "deletion": { "policy": "Discard" } }),
            json!({ "storage": { "savepointDir": "s3://x/y" } }),
            json!({ "restoreFrom": { "path": "s3://x/savepoint-1" } }),
        ];
        let before = spec_hash(&changed(&json!({})));
        for change in table {
            assert_eq!(spec_hash(&changed(&change)), before, "{change}");
        }
        let claim =
            |size: &str| spec(json!({ "storage": { "persistentVolumeClaim": { "template": { "size": size } } } }));
        assert_eq!(spec_hash(&claim("1Gi")), spec_hash(&claim("2Gi")));
    }

    #[test]
    fn what_needs_other_pods() {
        let table = [
            json!({ "program": { "sql": "INSERT INTO a SELECT b, 1 FROM c;" } }),
            json!({ "program": { "sql": "INSERT INTO a  SELECT b FROM c;" } }),
            json!({ "env": [{ "name": "A", "value": "1" }] }),
            json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] }),
            json!({ "parallelism": 3 }),
            json!({ "workers": { "slots": 1 } }),
            json!({ "workers": { "resources": { "requests": { "cpu": "2" } } } }),
            json!({ "workers": { "resources": { "limits": { "cpu": "1" } } } }),
            json!({ "workers": { "podTemplate": { "spec": { "nodeSelector": { "a": "b" } } } } }),
            json!({ "coordinator": { "podTemplate": { "spec": { "nodeSelector": { "a": "b" } } } } }),
            json!({ "coordinator": { "resources": { "requests": { "cpu": "2" } } } }),
            json!({ "checkpoint": { "interval": null } }),
            json!({ "checkpoint": { "mode": "AtLeastOnce" } }),
            json!({ "checkpoint": { "maxConcurrent": 2 } }),
            json!({ "checkpoint": { "incremental": true } }),
            json!({ "checkpoint": { "compression": "Lz4" } }),
            json!({ "storage": { "s3": { "bucket": "c" } } }),
            json!({ "storage": { "s3": { "prefix": "q" } } }),
            json!({ "storage": { "s3": { "endpoint": "http://s3" } } }),
            json!({ "storage": { "s3": { "region": "eu" } } }),
            json!({ "storage": { "s3": { "credentialsSecret": { "name": "s" } } } }),
            json!({ "failover": "Full" }),
            json!({ "heartbeat": { "timeout": "20s" } }),
            json!({ "image": "other" }),
            json!({ "imagePullPolicy": "Always" }),
            json!({ "imagePullSecrets": [{ "name": "r" }] }),
            json!({ "restartNonce": 1 }),
        ];
        let mut seen = vec![spec_hash(&changed(&json!({})))];
        for change in table {
            let hash = spec_hash(&changed(&change));
            assert!(!seen.contains(&hash), "{change}");
            seen.push(hash);
        }
    }

    #[test]
    fn hashes_outlive_the_operator() {
        // They stand in the status: computed in another way, what was refused or has finished would run again.
        assert_eq!(spec_hash(&changed(&json!({}))), "ddf71e8cc7505d14a81a9c437a6f8c3e");
    }

    #[test]
    fn what_is_worth_another_try() {
        let before = attempt_hash(&changed(&json!({})));
        for change in [
            json!({ "upgrade": { "allowNonRestoredState": true } }),
            json!({ "upgrade": { "mode": "Stateless" } }),
            json!({ "restoreFrom": { "path": "s3://x/savepoint-1" } }),
            json!({ "restartNonce": 1 }),
            json!({ "program": { "sql": "SELECT 1" } }),
            json!({ "maxParallelism": 256 }),
        ] {
            assert_ne!(attempt_hash(&changed(&change)), before, "{change}");
        }
        for change in [
            json!({ "upgrade": { "attempts": 7 } }),
            json!({ "state": "Suspended" }),
            json!({ "checkpoint": { "interval": "1s" } }),
            json!({ "savepoints": { "schedule": "0 3 * * *" } }),
        ] {
            assert_eq!(attempt_hash(&changed(&change)), before, "{change}");
        }
    }

    #[test]
    fn the_state_stays_where_it_is() {
        let place = |storage: Value| storage_location(&spec(json!({ "storage": storage })));
        assert_eq!(
            place(json!({ "s3": { "bucket": "b", "prefix": "/p/" } })),
            place(json!({ "s3": { "bucket": "b", "prefix": "p", "endpoint": "http://e" } }))
        );
        assert_ne!(place(json!({ "s3": { "bucket": "b" } })), place(json!({ "s3": { "bucket": "b", "prefix": "p" } })));
        let claim = |claim: Value| place(json!({ "persistentVolumeClaim": claim }));
        assert_eq!(claim(json!({ "template": { "size": "1Gi" } })), claim(json!({ "template": { "size": "2Gi" } })));
        assert_ne!(claim(json!({ "template": { "size": "1Gi" } })), claim(json!({ "claimName": "c" })));
        assert_ne!(claim(json!({ "claimName": "c" })), claim(json!({ "claimName": "d" })));
        assert_eq!(place(json!({ "savepointDir": "s3://b" })), None);
    }
}
