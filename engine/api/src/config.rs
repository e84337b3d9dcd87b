//! Resolved configuration: no option is missing, no rule is left to check. Durations are milliseconds.

use serde::{Deserialize, Serialize};

/// Everything the engine needs to run one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobConfig {
    /// `metadata.name`.
    pub name: String,
    /// SQL text after `${NAME}` substitution.
    pub sql: String,
    pub parallelism: u32,
    /// Only when the job file sets it; otherwise derived from `parallelism` (see `default_max_parallelism`).
    pub explicit_max_parallelism: Option<u32>,
    pub checkpoint: CheckpointConfig,
    pub storage: StorageConfig,
    pub restart: RestartStrategy,
    pub failover: FailoverStrategy,
    /// What to start from when the job has no checkpoint of its own.
    pub restore_from: Option<RestoreConfig>,
    /// State of operators that the job no longer has is dropped instead of being an error.
    pub allow_non_restored_state: bool,
    /// Where savepoints go when a request does not say: a directory or `s3://bucket/prefix`.
    pub savepoint_dir: Option<String>,
    /// Subtasks of one vertex that a worker process takes.
    pub slots_per_worker: u32,
    pub heartbeat: HeartbeatConfig,
}

/// A checkpoint or savepoint that the job starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreConfig {
    pub source: RestoreSource,
    /// The job owns it from now on and deletes it once its own checkpoints replace it; otherwise it is never touched.
    pub claim: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreSource {
    /// Directory or `_metadata` path, on a file system or as `s3://bucket/...`.
    Path(String),
    /// The newest checkpoint, or savepoint at which it stopped, that another job left beside this one's directory.
    LatestRetained { job_name: String },
}

/// Of the bodies of state files; readers see from the file what it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointMode {
    ExactlyOnce,
    AtLeastOnce,
}

/// What happens to retained checkpoints when the job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retention {
    RetainOnCancellation,
    DeleteOnCancellation,
    /// Nothing outlives the job.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// `None` turns periodic checkpoints off.
    pub interval_ms: Option<u64>,
    pub mode: CheckpointMode,
    pub timeout_ms: u64,
    pub min_pause_ms: u64,
    pub max_concurrent: u32,
    /// Consecutive counted failures that are tolerated; `u32::MAX` never fails the job.
    pub tolerable_failures: u32,
    pub retention: Retention,
    /// Completed checkpoints kept, at least 1.
    pub retained: u32,
    /// Write changed keys only.
    pub incremental: bool,
    pub compression: Compression,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageConfig {
    /// A directory that every process of the job sees.
    Directory {
        path: String,
    },
    S3 {
        bucket: String,
        prefix: String,
        endpoint: Option<String>,
        region: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RestartStrategy {
    None,
    FixedDelay {
        attempts: u32,
        delay_ms: u64,
    },
    FailureRate {
        max_failures_per_interval: u32,
        interval_ms: u64,
        delay_ms: u64,
    },
    ExponentialDelay {
        initial_backoff_ms: u64,
        max_backoff_ms: u64,
        backoff_multiplier: f64,
        reset_backoff_threshold_ms: u64,
        jitter_factor: f64,
        attempts_before_reset: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailoverStrategy {
    Region,
    Full,
}

/// How processes notice each other's death when the connection does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatConfig {
    pub interval_ms: u64,
    pub timeout_ms: u64,
}
