//! `kind: StreamJob` as people write it. One set of structs for the job file and for the Kubernetes resource.
//!
//! Doc comments become the schema's descriptions and the reference page. "Exactly one of" is a struct of options with a
//! rule, never a tagged enum, because a Kubernetes schema cannot evolve the latter. Cross-field rules that hold
//! everywhere are in [`crate::validate`]; each has its CEL twin here. Rules of Kubernetes alone are the operator's.

mod lifecycle;

use crate::text::{
    Decimal, Duration, ENDPOINT_PATTERN, NAME_PATTERN, QUANTITY_PATTERN, VARIABLE_PATTERN, millis_in_cel,
};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use lifecycle::{
    Deletion, DeletionPolicy, OnSavepointFailure, Rollback, SavepointRetention, Savepoints, Upgrade, UpgradeMode,
};

/// A stream-processing job that keeps its state through failures, upgrades and rescaling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamJob {
    /// Version of this format.
    pub api_version: ApiVersion,
    /// Always StreamJob.
    pub kind: Kind,
    /// Name and labels, as of any Kubernetes object.
    pub metadata: Metadata,
    /// What to run and how.
    pub spec: StreamJobSpec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    #[serde(rename = "streamjob.dev/v1alpha1")]
    V1alpha1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    StreamJob,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name of the job.
    #[schemars(length(min = 1, max = 45), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Kubernetes namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What to run and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "!has(self.maxParallelism) || !has(self.parallelism) || self.parallelism <= self.maxParallelism",
      "message": "parallelism must not exceed maxParallelism", "fieldPath": ".parallelism" },
]))]
pub struct StreamJobSpec {
    /// The job's program: exactly one of sql and command.
    pub program: Program,
    /// Values for `${NAME}` in the SQL text, and the environment of a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Subtasks of each operator.
    #[serde(default = "default::one")]
    #[schemars(range(min = 1, max = 32768))]
    pub parallelism: i32,
    /// Number of key groups, the most that parallelism can ever become; fixed for the life of the job's state. By
    /// default 1.5 times the parallelism, rounded up to a power of two, at least 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32768))]
    pub max_parallelism: Option<i32>,
    /// The processes that run the tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,
    /// Periodic snapshots of the job's state. Without `interval` there are none, and state does not survive
    /// a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// Where checkpoints go: at most one of directory, persistentVolumeClaim and s3. In local mode the data directory
    /// unless directory or s3 is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What holds keyed state while the job runs. RocksDB is not available yet.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self != 'RocksDB'", "message": "RocksDB is not available yet; use HashMap" },
    ]))]
    pub state_backend: StateBackend,
    /// What to do when the job fails: exactly one of none, fixedDelay, failureRate and exponentialDelay. By default
    /// exponentialDelay with checkpoints, none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_strategy: Option<RestartStrategy>,
    /// What restarts after a failure: the connected tasks (Region) or all (Full).
    #[serde(default)]
    pub failover: Failover,
    /// How processes notice each other's death when the connection does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// The state to begin with, when the job has none of its own: exactly one of path, savepointRef and latestRetained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_from: Option<RestoreFrom>,
    /// Container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets with the registry's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalReference>,
    /// The process that coordinates checkpoints and recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<Coordinator>,
    /// Whether the job shall run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DesiredState>,
    /// How a changed job takes over from the running one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// A higher number restarts the job from a savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub restart_nonce: Option<i64>,
    /// Savepoints by a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoints: Option<Savepoints>,
    /// What happens to state when the resource is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
}

/// The job's program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.sql) != has(self.command)", "message": "exactly one of sql and command" },
    { "rule": "!has(self.args) || has(self.command)", "message": "args needs command", "fieldPath": ".args" },
    { "rule": "!has(self.sql) || self.sql.trim() != ''", "message": "sql is blank", "fieldPath": ".sql" },
    { "rule": "!has(self.command)", "message": "programs in Rust are not available yet; use sql", "fieldPath": ".command" },
]))]
pub struct Program {
    /// Flink SQL: CREATE TABLE, CREATE TEMPORARY VIEW, INSERT INTO and EXECUTE STATEMENT SET. `${NAME}` is replaced by
    /// the value of that name in env, `$${` stands for a plain `${`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262144))]
    pub sql: Option<String>,
    /// Entry point of an image built with the Rust API. Not available yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub command: Option<Vec<String>>,
    /// Arguments of command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub args: Option<Vec<String>>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.value) != has(self.valueFrom)", "message": "exactly one of value and valueFrom" },
]))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = VARIABLE_PATTERN))]
    pub name: String,
    /// The value itself; no place for credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub value: Option<String>,
    /// Where the value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueSource {
    /// A key of a secret. In local mode the process environment's variable of the entry's name.
    pub secret_key_ref: SecretKeyRef,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalReference {
    /// Name of the object in the job's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workers {
    /// Subtasks of one operator that a worker process takes. There are parallelism / slots workers, rounded up.
    #[serde(default = "default::one")]
    #[schemars(range(min = 1, max = 1024))]
    pub slots: i32,
    /// CPU and memory of a worker pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Merged over the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coordinator {
    /// CPU and memory of the coordinator pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Merged over the coordinator pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// What is never exceeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity: a whole number or a string such as `500m` or `2Gi`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub serde_json::Value);

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "pattern": QUANTITY_PATTERN, "maxLength": 32 })
    }
}

/// Periodic snapshots of the job's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": format!("!has(self.interval) || {} >= 10.0", millis_in_cel("self.interval")),
      "message": "interval must be at least 10ms", "fieldPath": ".interval" },
    { "rule": format!("{} >= 10.0", millis_in_cel("self.timeout")),
      "message": "timeout must be at least 10ms", "fieldPath": ".timeout" },
    { "rule": format!("{} <= 31536000000.0", millis_in_cel("self.minPause")),
      "message": "minPause must be at most 365d", "fieldPath": ".minPause" },
]))]
pub struct Checkpoint {
    /// From the start of one checkpoint to the next, at least 10ms; raised to minPause if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// ExactlyOnce aligns barriers, so that every record counts once in the state; AtLeastOnce does not wait, so that
    /// records may count twice after a failure.
    #[serde(default)]
    pub mode: CheckpointMode,
    /// A checkpoint that takes longer is aborted; at least 10ms.
    #[serde(default = "default::checkpoint_timeout")]
    pub timeout: Duration,
    /// Rest between the end of one checkpoint and the start of the next.
    #[serde(default = "default::no_time")]
    pub min_pause: Duration,
    /// Checkpoints in progress at the same time.
    #[serde(default = "default::one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent: i32,
    /// Consecutive failed checkpoints that do not fail the job.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub tolerable_failures: i32,
    /// Which checkpoints stay when the job ends: RetainOnCancellation keeps them unless the job finished,
    /// DeleteOnCancellation only if it failed, None never.
    #[serde(default)]
    pub retention: Retention,
    /// Completed checkpoints that are kept.
    #[serde(default = "default::one")]
    #[schemars(range(min = 1, max = 1000))]
    pub retained: i32,
    /// Write only what changed since the checkpoint before.
    #[serde(default)]
    pub incremental: bool,
    /// Of state files, in checkpoints and savepoints; may change at any time, since every file says what it is.
    #[serde(default)]
    pub compression: Compression,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointMode {
    #[default]
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    RetainOnCancellation,
    DeleteOnCancellation,
    #[default]
    None,
}

/// Where checkpoints go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "[has(self.directory), has(self.persistentVolumeClaim), has(self.s3)].filter(x, x).size() == 1 || has(self.savepointDir) && !has(self.directory) && !has(self.persistentVolumeClaim) && !has(self.s3)",
      "message": "exactly one of directory, persistentVolumeClaim and s3" },
    { "rule": format!("!has(self.savepointDir) || {}", location_in_cel("self.savepointDir")),
      "message": "savepointDir must be a directory or s3://bucket/prefix", "fieldPath": ".savepointDir" },
]))]
pub struct Storage {
    /// A directory that every process of the job sees. For local mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub directory: Option<String>,
    /// A volume that every pod of the job mounts. In local mode the data directory takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// A bucket of S3 or of a store that speaks its protocol with conditional writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// Where savepoints go when a request for one does not say: a directory or `s3://bucket/prefix`. By default
    /// `savepoints` beside the checkpoints on Kubernetes; in local mode such a request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub savepoint_dir: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.claimName) != has(self.template)", "message": "exactly one of claimName and template" },
]))]
pub struct PersistentVolumeClaim {
    /// An existing claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// A claim made for this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ClaimTemplate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimTemplate {
    /// Size of the volume, for example 10Gi.
    #[schemars(length(min = 1, max = 32))]
    pub size: String,
    /// Storage class; the cluster's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3 {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// Path within the bucket.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub prefix: String,
    /// Address of a store other than AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = ENDPOINT_PATTERN))]
    pub endpoint: Option<String>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; workload identity if absent. In local mode they come
    /// from the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<LocalReference>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StateBackend {
    #[default]
    HashMap,
    RocksDB,
}

/// What to do when the job fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "[has(self.none), has(self.fixedDelay), has(self.failureRate), has(self.exponentialDelay)].filter(x, x).size() == 1",
      "message": "exactly one of none, fixedDelay, failureRate and exponentialDelay" },
]))]
pub struct RestartStrategy {
    /// The first failure ends the job. Written `none: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoRestart>,
    /// A number of restarts, each after the same delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_delay: Option<FixedDelay>,
    /// Restarts until failures come too fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<FailureRate>,
    /// Delays that grow with every restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_delay: Option<ExponentialDelay>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoRestart {}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedDelay {
    /// Restarts before the job fails.
    #[serde(default = "default::one")]
    #[schemars(range(min = 0))]
    pub attempts: i32,
    /// From a failure to the restart.
    #[serde(default = "default::one_second")]
    pub delay: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": format!("{} >= 1.0", millis_in_cel("self.interval")),
      "message": "interval must be at least 1ms", "fieldPath": ".interval" },
]))]
pub struct FailureRate {
    /// Failures within the interval that are survived.
    #[serde(default = "default::one")]
    #[schemars(range(min = 1))]
    pub max_failures_per_interval: i32,
    /// How far back failures count.
    #[serde(default = "default::one_minute")]
    pub interval: Duration,
    /// From a failure to the restart.
    #[serde(default = "default::one_second")]
    pub delay: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": format!("{} >= 1.0", millis_in_cel("self.initialBackoff")),
      "message": "initialBackoff must be at least 1ms", "fieldPath": ".initialBackoff" },
    { "rule": format!("{} > {}", millis_in_cel("self.maxBackoff"), millis_in_cel("self.initialBackoff")),
      "message": "maxBackoff must be longer than initialBackoff; or use fixedDelay", "fieldPath": ".maxBackoff" },
    { "rule": "double(self.backoffMultiplier) > 1.0",
      "message": "backoffMultiplier must be greater than 1", "fieldPath": ".backoffMultiplier" },
    { "rule": "double(self.jitterFactor) <= 1.0",
      "message": "jitterFactor must be from 0 to 1", "fieldPath": ".jitterFactor" },
    { "rule": format!("{} >= 1.0", millis_in_cel("self.resetBackoffThreshold")),
      "message": "resetBackoffThreshold must be at least 1ms", "fieldPath": ".resetBackoffThreshold" },
]))]
pub struct ExponentialDelay {
    /// The first delay, at least 1ms.
    #[serde(default = "default::one_second")]
    pub initial_backoff: Duration,
    /// The longest delay, longer than initialBackoff.
    #[serde(default = "default::one_minute")]
    pub max_backoff: Duration,
    /// What each delay is multiplied by; greater than 1.
    #[serde(default = "default::multiplier")]
    pub backoff_multiplier: Decimal,
    /// After this long without a failure the delay is the first one again.
    #[serde(default = "default::one_hour")]
    pub reset_backoff_threshold: Duration,
    /// Share by which a delay is randomly longer or shorter, 0 to 1.
    #[serde(default = "default::jitter")]
    pub jitter_factor: Decimal,
    /// Restarts before the job fails; they count anew after resetBackoffThreshold.
    #[serde(default = "default::unlimited")]
    #[schemars(range(min = 1))]
    pub attempts_before_reset_backoff: i32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Failover {
    #[default]
    Region,
    Full,
}

/// How processes notice each other's death.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": format!("{} >= 10.0", millis_in_cel("self.interval")),
      "message": "interval must be at least 10ms", "fieldPath": ".interval" },
    { "rule": format!("{} > {}", millis_in_cel("self.timeout"), millis_in_cel("self.interval")),
      "message": "timeout must be longer than interval", "fieldPath": ".timeout" },
]))]
pub struct Heartbeat {
    /// Between two signs of life, at least 10ms.
    #[serde(default = "default::heartbeat_interval")]
    pub interval: Duration,
    /// Silence after which a process counts as dead; longer than interval.
    #[serde(default = "default::heartbeat_timeout")]
    pub timeout: Duration,
}

/// The state to begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "[has(self.path), has(self.savepointRef), has(self.latestRetained)].filter(x, x).size() == 1",
      "message": "exactly one of path, savepointRef and latestRetained" },
    { "rule": format!("!has(self.path) || {}", location_in_cel("self.path")),
      "message": "path must be a directory or s3://bucket/prefix", "fieldPath": ".path" },
]))]
pub struct RestoreFrom {
    /// Directory of a checkpoint or savepoint, or its `_metadata` file; also `s3://bucket/...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,
    /// A Savepoint resource. On Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint_ref: Option<LocalReference>,
    /// The newest checkpoint that another job left. On Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_retained: Option<LatestRetained>,
    /// Whose the files are from then on: with Claim the job's, which deletes them once its own checkpoints have taken
    /// their place; with NoClaim they are only read and can be restored from again.
    #[serde(default)]
    pub claim_mode: ClaimMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimMode {
    Claim,
    #[default]
    NoClaim,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatestRetained {
    /// Name of that job.
    #[schemars(length(min = 1, max = 253))]
    pub job_name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    Running,
    Suspended,
}

impl Default for Workers {
    fn default() -> Self {
        Workers { slots: default::one(), resources: None, pod_template: None }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            interval: None,
            mode: CheckpointMode::default(),
            timeout: default::checkpoint_timeout(),
            min_pause: default::no_time(),
            max_concurrent: default::one(),
            tolerable_failures: 0,
            retention: Retention::default(),
            retained: default::one(),
            incremental: false,
            compression: Compression::None,
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat { interval: default::heartbeat_interval(), timeout: default::heartbeat_timeout() }
    }
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        ExponentialDelay {
            initial_backoff: default::one_second(),
            max_backoff: default::one_minute(),
            backoff_multiplier: default::multiplier(),
            reset_backoff_threshold: default::one_hour(),
            jitter_factor: default::jitter(),
            attempts_before_reset_backoff: default::unlimited(),
        }
    }
}

/// A CEL expression that says whether a string is a path or an address that storage understands.
pub fn location_in_cel(text: &str) -> String {
    format!("{text}.trim() != '' && (!{text}.contains('://') || {text}.matches('^(file:///|s3://[^/])'))")
}

/// Flink's defaults, except for heartbeats: without a garbage collector nothing pauses for long, so death is noticed
/// sooner than after Flink's 50 s.
mod default {
    use super::{Decimal, Duration};

    pub const fn one() -> i32 {
        1
    }
    pub const fn three() -> i32 {
        3
    }
    pub const fn unlimited() -> i32 {
        i32::MAX
    }
    pub const fn no_time() -> Duration {
        Duration::from_secs(0)
    }
    pub const fn one_second() -> Duration {
        Duration::from_secs(1)
    }
    pub const fn one_minute() -> Duration {
        Duration::from_secs(60)
    }
    pub const fn ten_minutes() -> Duration {
        Duration::from_secs(600)
    }
    pub const fn one_hour() -> Duration {
        Duration::from_secs(3600)
    }
    pub const fn checkpoint_timeout() -> Duration {
        ten_minutes()
    }
    pub const fn heartbeat_interval() -> Duration {
        one_second()
    }
    pub const fn heartbeat_timeout() -> Duration {
        Duration::from_secs(10)
    }
    pub const fn multiplier() -> Decimal {
        Decimal::new(1.5)
    }
    pub const fn jitter() -> Decimal {
        Decimal::new(0.1)
    }
}
