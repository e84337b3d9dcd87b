//! From text to configuration: cross-field rules, defaults, environment. What a single field may hold is the schema's
//! business (see [`crate::spec`]).

use crate::check::check;
use crate::config::{
    self, CheckpointConfig, FailoverStrategy, HeartbeatConfig, JobConfig, RestartStrategy as RestartConfig,
    RestoreConfig, RestoreSource, StorageConfig,
};
use crate::document::Node;
use crate::error::ApiError;
use crate::schema;
use crate::spec::{
    Checkpoint, CheckpointMode, ClaimMode, Compression, EnvVar, ExponentialDelay, Failover, Program, RestartStrategy,
    Retention, StateBackend, Storage, StreamJob, StreamJobSpec, Upgrade,
};
use crate::substitute::substitute;
use crate::text::Duration;
use std::collections::{BTreeMap, BTreeSet};

const SHORTEST: Duration = Duration::from_millis(10);
/// Flink's limit, which keeps sums of times far from overflow.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a job file and checks everything about it that needs neither environment nor SQL.
///
/// # Errors
/// The first problem, with the field's path and line.
pub fn parse(yaml: &str) -> Result<StreamJob, ApiError> {
    let document = Node::parse(yaml)?;
    check(&document, &schema::stream_job(), "")?;
    let job: StreamJob = serde_json::from_value(document.to_value()).map_err(|error| ApiError::Field {
        path: "the job file".into(),
        line: None,
        problem: error.to_string(),
        allowed: "compare it with the reference of the job file".into(),
    })?;
    check_rules(&job.spec).and_then(|()| check_available(&job.spec)).map_err(|violation| violation.at(&document))?;
    Ok(job)
}

/// A broken rule, before its line is known.
#[derive(Debug)]
pub(crate) struct Violation {
    path: String,
    problem: String,
    allowed: String,
}

impl Violation {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Violation { path: path.into(), problem: problem.into(), allowed: allowed.into() }
    }

    pub(crate) fn at(self, document: &Node) -> ApiError {
        ApiError::Field {
            line: document.line_of(&self.path),
            path: self.path,
            problem: self.problem,
            allowed: self.allowed,
        }
    }
}

/// Rules between fields, the same on every platform.
fn check_rules(spec: &StreamJobSpec) -> Result<(), Violation> {
    let Program { sql, command, args } = &spec.program;
    exactly_one("spec.program", &[("sql", sql.is_some()), ("command", command.is_some())])?;
    if args.is_some() && command.is_none() {
        return Err(Violation::new("spec.program.args", "it needs command", "leave it out"));
    }
    if sql.as_ref().is_some_and(|sql| sql.trim().is_empty()) {
        return Err(Violation::new("spec.program.sql", "it is empty", "write CREATE TABLE and INSERT INTO statements"));
    }
    check_env(&spec.env)?;
    if let Some(most) = spec.max_parallelism
        && spec.parallelism > most
    {
        return Err(Violation::new(
            "spec.parallelism",
            format!("found {}, more than maxParallelism {most}", spec.parallelism),
            "lower it, or raise maxParallelism (which a job with state cannot change any more)",
        ));
    }
    if let Some(checkpoint) = &spec.checkpoint {
        check_checkpoint(checkpoint)?;
    }
    if let Some(storage) = &spec.storage {
        check_storage(storage)?;
    }
    if let Some(strategy) = &spec.restart_strategy {
        check_restart_strategy(strategy)?;
    }
    if let Some(heartbeat) = &spec.heartbeat {
        at_least("spec.heartbeat.interval", heartbeat.interval, SHORTEST)?;
        if heartbeat.timeout <= heartbeat.interval {
            return Err(Violation::new(
                "spec.heartbeat.timeout",
                format!("found {}, not longer than interval {}", heartbeat.timeout, heartbeat.interval),
                "make it several intervals long",
            ));
        }
    }
    if let Some(from) = &spec.restore_from {
        let present = [
            ("path", from.path.is_some()),
            ("savepointRef", from.savepoint_ref.is_some()),
            ("latestRetained", from.latest_retained.is_some()),
        ];
        exactly_one("spec.restoreFrom", &present)?;
        if let Some(path) = &from.path {
            check_location("spec.restoreFrom.path", path)?;
        }
    }
    Ok(())
}

fn check_env(env: &[EnvVar]) -> Result<(), Violation> {
    let mut names = BTreeSet::new();
    for (index, variable) in env.iter().enumerate() {
        let path = format!("spec.env[{index}]");
        exactly_one(&path, &[("value", variable.value.is_some()), ("valueFrom", variable.value_from.is_some())])?;
        if !names.insert(variable.name.as_str()) {
            let problem = format!("there is another entry with the name {}", variable.name);
            return Err(Violation::new(format!("{path}.name"), problem, "keep one of them"));
        }
    }
    Ok(())
}

pub(crate) fn check_checkpoint(checkpoint: &Checkpoint) -> Result<(), Violation> {
    if let Some(interval) = checkpoint.interval {
        at_least("spec.checkpoint.interval", interval, SHORTEST)?;
    }
    at_least("spec.checkpoint.timeout", checkpoint.timeout, SHORTEST)?;
    if checkpoint.min_pause > LONGEST_PAUSE {
        let problem = format!("found {}", checkpoint.min_pause);
        return Err(Violation::new("spec.checkpoint.minPause", problem, format!("expected at most {LONGEST_PAUSE}")));
    }
    Ok(())
}

fn check_storage(storage: &Storage) -> Result<(), Violation> {
    let present = [
        ("directory", storage.directory.is_some()),
        ("persistentVolumeClaim", storage.persistent_volume_claim.is_some()),
        ("s3", storage.s3.is_some()),
    ];
    if present.iter().any(|(_, present)| *present) || storage.savepoint_dir.is_none() {
        exactly_one("spec.storage", &present)?;
    }
    if let Some(location) = &storage.savepoint_dir {
        check_location("spec.storage.savepointDir", location)?;
    }
    if let Some(claim) = &storage.persistent_volume_claim {
        let present = [("claimName", claim.claim_name.is_some()), ("template", claim.template.is_some())];
        exactly_one("spec.storage.persistentVolumeClaim", &present)?;
    }
    Ok(())
}

/// A path or an address that storage understands.
fn check_location(path: &str, location: &str) -> Result<(), Violation> {
    let allowed = "expected a directory or s3://bucket/prefix";
    let Some((scheme, rest)) = location.split_once("://") else {
        return match location.trim() {
            "" => Err(Violation::new(path, "it is empty", allowed)),
            _ => Ok(()),
        };
    };
    let named = rest.split('/').next().is_some_and(|bucket| !bucket.is_empty());
    match scheme {
        "file" if rest.starts_with('/') => Ok(()),
        "s3" if named => Ok(()),
        _ => Err(Violation::new(path, format!("found {location}"), allowed)),
    }
}

pub(crate) fn check_restart_strategy(strategy: &RestartStrategy) -> Result<(), Violation> {
    let present = [
        ("none", strategy.none.is_some()),
        ("fixedDelay", strategy.fixed_delay.is_some()),
        ("failureRate", strategy.failure_rate.is_some()),
        ("exponentialDelay", strategy.exponential_delay.is_some()),
    ];
    exactly_one("spec.restartStrategy", &present)?;
    if let Some(rate) = &strategy.failure_rate {
        at_least("spec.restartStrategy.failureRate.interval", rate.interval, Duration::from_millis(1))?;
    }
    let Some(delay) = &strategy.exponential_delay else { return Ok(()) };
    let path = |field: &str| format!("spec.restartStrategy.exponentialDelay.{field}");
    at_least(&path("initialBackoff"), delay.initial_backoff, Duration::from_millis(1))?;
    if delay.max_backoff <= delay.initial_backoff {
        return Err(Violation::new(
            path("maxBackoff"),
            format!("found {}, not longer than initialBackoff {}", delay.max_backoff, delay.initial_backoff),
            "make it longer, or use fixedDelay",
        ));
    }
    if delay.backoff_multiplier.value() <= 1.0 {
        return Err(Violation::new(
            path("backoffMultiplier"),
            format!("found {}", delay.backoff_multiplier),
            "expected a number greater than 1",
        ));
    }
    if delay.jitter_factor.value() > 1.0 {
        let problem = format!("found {}", delay.jitter_factor);
        return Err(Violation::new(path("jitterFactor"), problem, "expected a number from 0 to 1"));
    }
    at_least(&path("resetBackoffThreshold"), delay.reset_backoff_threshold, Duration::from_millis(1))
}

/// What the format knows and this version of the engine does not do.
fn check_available(spec: &StreamJobSpec) -> Result<(), Violation> {
    if spec.program.command.is_some() {
        return Err(Violation::new("spec.program.command", "programs in Rust are not available yet", "use sql"));
    }
    if spec.state_backend == StateBackend::RocksDB {
        return Err(Violation::new("spec.stateBackend", "RocksDB is not available yet", "use HashMap"));
    }
    Ok(())
}

fn at_least(path: &str, found: Duration, least: Duration) -> Result<(), Violation> {
    if found < least {
        return Err(Violation::new(path, format!("found {found}"), format!("expected at least {least}")));
    }
    Ok(())
}

fn exactly_one(path: &str, fields: &[(&str, bool)]) -> Result<(), Violation> {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let present: Vec<&str> = fields.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    let problem = match present.as_slice() {
        [_] => return Ok(()),
        [] => "found none of its alternatives".to_owned(),
        several => format!("found {}", several.join(" and ")),
    };
    Err(Violation::new(path, problem, format!("expected exactly one of {}", names.join(", "))))
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// On one machine.
    Local,
    /// In pods that the operator made.
    Kubernetes,
}

/// Makes the configuration of a job: defaults, `${NAME}` in the SQL text, and values of secrets from the environment.
/// Checkpoints go to `data_directory`, which on Kubernetes is on the job's volume, unless the job names a directory or a
/// bucket.
///
/// # Errors
/// A value or a name that `environment` and `spec.env` do not have, or a field that means nothing on this platform and
/// that must not be ignored.
pub fn resolve(
    job: &StreamJob,
    platform: Platform,
    data_directory: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<JobConfig, ApiError> {
    let spec = &job.spec;
    let storage = storage_of(job, data_directory);
    let named = spec.storage.as_ref().and_then(|storage| storage.savepoint_dir.clone());
    let savepoint_dir = match platform {
        Platform::Local => named,
        Platform::Kubernetes => named.or_else(|| Some(savepoints_beside(&storage))),
    };
    let checkpoint = resolve_checkpoint(&spec.checkpoint.clone().unwrap_or_default());
    let heartbeat = spec.heartbeat.clone().unwrap_or_default();
    let values = env_values(&spec.env, platform, environment)?;
    let sql =
        spec.program.sql.as_deref().ok_or_else(|| field("spec.program.sql", "it is missing", "only SQL runs yet"))?;
    Ok(JobConfig {
        name: job.metadata.name.clone(),
        sql: substitute(sql, &values)?,
        parallelism: count(spec.parallelism),
        explicit_max_parallelism: spec.max_parallelism.map(count),
        restart: resolve_restart(spec.restart_strategy.as_ref(), checkpoint.interval_ms.is_some()),
        checkpoint,
        storage,
        failover: match spec.failover {
            Failover::Region => FailoverStrategy::Region,
            Failover::Full => FailoverStrategy::Full,
        },
        restore_from: resolve_restore(spec, platform)?,
        allow_non_restored_state: spec.upgrade.as_ref().is_some_and(|upgrade| upgrade.allow_non_restored_state),
        savepoint_dir,
        slots_per_worker: count(spec.workers.as_ref().map_or(1, |workers| workers.slots)),
        heartbeat: HeartbeatConfig { interval_ms: heartbeat.interval.millis(), timeout_ms: heartbeat.timeout.millis() },
    })
}

/// Where savepoints go on Kubernetes if nobody says: below the directory of the job's checkpoints.
fn savepoints_beside(storage: &StorageConfig) -> String {
    match storage {
        StorageConfig::Directory { path } => format!("{}/savepoints", path.trim_end_matches('/')),
        StorageConfig::S3 { bucket, prefix, .. } if prefix.is_empty() => format!("s3://{bucket}/savepoints"),
        StorageConfig::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}/savepoints"),
    }
}

/// Paths of fields that are set and have no effect outside Kubernetes.
pub fn ignored_locally(job: &StreamJob) -> Vec<&'static str> {
    let spec = &job.spec;
    let workers = spec.workers.as_ref();
    let storage = spec.storage.as_ref();
    let s3 = storage.and_then(|storage| storage.s3.as_ref());
    let fields = [
        ("spec.image", spec.image.is_some()),
        ("spec.imagePullPolicy", spec.image_pull_policy.is_some()),
        ("spec.imagePullSecrets", !spec.image_pull_secrets.is_empty()),
        ("spec.coordinator", spec.coordinator.is_some()),
        ("spec.workers.resources", workers.is_some_and(|workers| workers.resources.is_some())),
        ("spec.workers.podTemplate", workers.is_some_and(|workers| workers.pod_template.is_some())),
        (
            "spec.storage.persistentVolumeClaim",
            storage.is_some_and(|storage| storage.persistent_volume_claim.is_some()),
        ),
        ("spec.storage.s3.credentialsSecret", s3.is_some_and(|s3| s3.credentials_secret.is_some())),
        ("spec.state", spec.state.is_some()),
        ("spec.upgrade", spec.upgrade.as_ref().is_some_and(upgrade_is_for_kubernetes)),
        ("spec.restartNonce", spec.restart_nonce.is_some()),
        ("spec.savepoints", spec.savepoints.is_some()),
        ("spec.deletion", spec.deletion.is_some()),
    ];
    fields.into_iter().filter(|(_, set)| *set).map(|(path, _)| path).collect()
}

/// Everything but what a restore may drop is about one revision taking over from another.
fn upgrade_is_for_kubernetes(upgrade: &Upgrade) -> bool {
    let without = Upgrade { allow_non_restored_state: upgrade.allow_non_restored_state, ..Upgrade::default() };
    *upgrade != without
}

/// The schema keeps counts positive.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn field(path: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> ApiError {
    ApiError::Field { path: path.into(), line: None, problem: problem.into(), allowed: allowed.into() }
}

fn env_values(
    env: &[EnvVar],
    platform: Platform,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ApiError> {
    let mut values = BTreeMap::new();
    for (index, variable) in env.iter().enumerate() {
        let name = &variable.name;
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => value.clone(),
            (None, Some(source)) => environment(name).ok_or_else(|| {
                let secret = &source.secret_key_ref;
                let secret = format!("{name} is key {:?} of secret {:?}", secret.key, secret.name);
                let (problem, allowed) = match platform {
                    Platform::Local => (
                        format!("{secret}, which local mode cannot read"),
                        format!("set {name} in the environment of this command"),
                    ),
                    Platform::Kubernetes => (
                        format!("{secret}, which this pod does not have in its environment"),
                        "the operator puts it there; leave the variable alone in podTemplate".to_owned(),
                    ),
                };
                field(format!("spec.env[{index}]"), problem, allowed)
            })?,
            (None, None) => String::new(),
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

pub(crate) fn resolve_checkpoint(checkpoint: &Checkpoint) -> CheckpointConfig {
    CheckpointConfig {
        interval_ms: checkpoint.interval.map(|interval| interval.max(checkpoint.min_pause).millis()),
        mode: match checkpoint.mode {
            CheckpointMode::ExactlyOnce => config::CheckpointMode::ExactlyOnce,
            CheckpointMode::AtLeastOnce => config::CheckpointMode::AtLeastOnce,
        },
        timeout_ms: checkpoint.timeout.millis(),
        min_pause_ms: checkpoint.min_pause.millis(),
        max_concurrent: count(checkpoint.max_concurrent),
        tolerable_failures: count(checkpoint.tolerable_failures),
        retention: match checkpoint.retention {
            Retention::RetainOnCancellation => config::Retention::RetainOnCancellation,
            Retention::DeleteOnCancellation => config::Retention::DeleteOnCancellation,
            Retention::None => config::Retention::None,
        },
        retained: count(checkpoint.retained),
        incremental: checkpoint.incremental,
        compression: match checkpoint.compression {
            Compression::None => config::Compression::None,
            Compression::Lz4 => config::Compression::Lz4,
            Compression::Zstd => config::Compression::Zstd,
        },
    }
}

/// Where a job that runs without Kubernetes keeps its checkpoints; needs no environment.
pub fn storage_of(job: &StreamJob, data_directory: &str) -> StorageConfig {
    let storage = job.spec.storage.as_ref();
    let s3 = storage.and_then(|storage| storage.s3.as_ref());
    if let Some(s3) = s3 {
        return StorageConfig::S3 {
            bucket: s3.bucket.clone(),
            prefix: s3.prefix.trim_matches('/').to_owned(),
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
        };
    }
    let directory = storage.and_then(|storage| storage.directory.as_deref());
    StorageConfig::Directory { path: directory.unwrap_or(data_directory).to_owned() }
}

pub(crate) fn resolve_restart(strategy: Option<&RestartStrategy>, checkpointing: bool) -> RestartConfig {
    let exponential = |delay: &ExponentialDelay| RestartConfig::ExponentialDelay {
        initial_backoff_ms: delay.initial_backoff.millis(),
        max_backoff_ms: delay.max_backoff.millis(),
        backoff_multiplier: delay.backoff_multiplier.value(),
        reset_backoff_threshold_ms: delay.reset_backoff_threshold.millis(),
        jitter_factor: delay.jitter_factor.value(),
        attempts_before_reset: count(delay.attempts_before_reset_backoff),
    };
    let Some(strategy) = strategy else {
        return if checkpointing { exponential(&ExponentialDelay::default()) } else { RestartConfig::None };
    };
    if let Some(fixed) = &strategy.fixed_delay {
        return RestartConfig::FixedDelay { attempts: count(fixed.attempts), delay_ms: fixed.delay.millis() };
    }
    if let Some(rate) = &strategy.failure_rate {
        return RestartConfig::FailureRate {
            max_failures_per_interval: count(rate.max_failures_per_interval),
            interval_ms: rate.interval.millis(),
            delay_ms: rate.delay.millis(),
        };
    }
    strategy.exponential_delay.as_ref().map_or(RestartConfig::None, exponential)
}

fn resolve_restore(spec: &StreamJobSpec, platform: Platform) -> Result<Option<RestoreConfig>, ApiError> {
    let Some(from) = &spec.restore_from else { return Ok(None) };
    let wrong = |name: &str, problem: &str, allowed: &str| field(format!("spec.restoreFrom.{name}"), problem, allowed);
    let source = match (platform, &from.path, &from.latest_retained) {
        (_, Some(path), _) => RestoreSource::Path(path.clone()),
        (Platform::Kubernetes, None, Some(from)) => RestoreSource::LatestRetained { job_name: from.job_name.clone() },
        (Platform::Local, None, Some(_)) => {
            return Err(wrong("latestRetained", "a register of other jobs exists on Kubernetes only", "use path"));
        }
        (Platform::Local, None, None) => {
            return Err(wrong("savepointRef", "a Savepoint resource exists on Kubernetes only", "use path"));
        }
        (Platform::Kubernetes, None, None) => {
            let problem = "only the operator can look a Savepoint resource up, and it has not";
            return Err(wrong("savepointRef", problem, "expected path in the file that the engine gets"));
        }
    };
    Ok(Some(RestoreConfig { source, claim: from.claim_mode == ClaimMode::Claim }))
}
