//! Defaults, the values that reach the engine, and what depends on the environment.

#![allow(clippy::unwrap_used, clippy::panic)]

use streamjob_api::config::{
    CheckpointConfig, CheckpointMode, Compression, FailoverStrategy, HeartbeatConfig, JobConfig, RestartStrategy,
    RestoreConfig, RestoreSource, Retention, StorageConfig,
};
use streamjob_api::{Platform, ignored_locally, parse, resolve};

fn job(rest: &str) -> streamjob_api::StreamJob {
    let indented: String = rest.lines().map(|line| format!("  {line}\n")).collect();
    let yaml = format!(
        "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata:\n  name: visits\nspec:\n  program: {{sql: SELECT 1}}\n{indented}"
    );
    parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn config(rest: &str) -> JobConfig {
    resolve(&job(rest), Platform::Local, "data/storage", &|_| None).unwrap()
}

const EXPONENTIAL: RestartStrategy = RestartStrategy::ExponentialDelay {
    initial_backoff_ms: 1_000,
    max_backoff_ms: 60_000,
    backoff_multiplier: 1.5,
    reset_backoff_threshold_ms: 3_600_000,
    jitter_factor: 0.1,
    attempts_before_reset: i32::MAX as u32,
};

#[test]
fn r19_r34_defaults_of_an_empty_job() {
    let expected = JobConfig {
        name: "visits".into(),
        sql: "SELECT 1".into(),
        parallelism: 1,
        explicit_max_parallelism: None,
        checkpoint: CheckpointConfig {
            interval_ms: None,
            mode: CheckpointMode::ExactlyOnce,
            timeout_ms: 600_000,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: 0,
            retention: Retention::None,
            retained: 1,
            incremental: false,
            compression: Compression::None,
        },
        storage: StorageConfig::Directory { path: "data/storage".into() },
        restart: RestartStrategy::None,
        failover: FailoverStrategy::Region,
        restore_from: None,
        allow_non_restored_state: false,
        savepoint_dir: None,
        slots_per_worker: 1,
        heartbeat: HeartbeatConfig { interval_ms: 1_000, timeout_ms: 10_000 },
    };
    assert_eq!(config(""), expected);
    // A field without a value counts as absent.
    assert_eq!(config("checkpoint:\nparallelism:\nstorage:"), expected);
}

#[test]
fn defaults_within_groups() {
    let table = [
        ("restartStrategy: {none: {}}", RestartStrategy::None),
        ("restartStrategy: {fixedDelay: {}}", RestartStrategy::FixedDelay { attempts: 1, delay_ms: 1_000 }),
        (
            "restartStrategy: {failureRate: {}}",
            RestartStrategy::FailureRate { max_failures_per_interval: 1, interval_ms: 60_000, delay_ms: 1_000 },
        ),
        ("restartStrategy: {exponentialDelay: {}}", EXPONENTIAL),
    ];
    for (yaml, expected) in table {
        assert_eq!(config(yaml).restart, expected, "{yaml}");
    }
}

#[test]
fn everything_set() {
    let found = config(
        "parallelism: 4
maxParallelism: 256
workers: {slots: 2}
checkpoint:
  interval: 10 s
  mode: AtLeastOnce
  timeout: 1m
  minPause: 500ms
  maxConcurrent: 2
  tolerableFailures: 3
  retention: RetainOnCancellation
  retained: 5
  incremental: true
storage:
  s3: {bucket: states, prefix: /jobs/a/, endpoint: 'http://localhost:9000', region: eu-central-1}
stateBackend: HashMap
restartStrategy:
  exponentialDelay:
    initialBackoff: 2s
    maxBackoff: 3 min
    backoffMultiplier: '2'
    resetBackoffThreshold: 10m
    jitterFactor: '0.25'
    attemptsBeforeResetBackoff: 7
failover: Full
heartbeat: {interval: 200ms, timeout: 2s}
restoreFrom: {path: old/chk-7}",
    );
    let expected = JobConfig {
        name: "visits".into(),
        sql: "SELECT 1".into(),
        parallelism: 4,
        explicit_max_parallelism: Some(256),
        checkpoint: CheckpointConfig {
            interval_ms: Some(10_000),
            mode: CheckpointMode::AtLeastOnce,
            timeout_ms: 60_000,
            min_pause_ms: 500,
            max_concurrent: 2,
            tolerable_failures: 3,
            retention: Retention::RetainOnCancellation,
            retained: 5,
            incremental: true,
            compression: Compression::None,
        },
        storage: StorageConfig::S3 {
            bucket: "states".into(),
            prefix: "jobs/a".into(),
            endpoint: Some("http://localhost:9000".into()),
            region: Some("eu-central-1".into()),
        },
        restart: RestartStrategy::ExponentialDelay {
            initial_backoff_ms: 2_000,
            max_backoff_ms: 180_000,
            backoff_multiplier: 2.0,
            reset_backoff_threshold_ms: 600_000,
            jitter_factor: 0.25,
            attempts_before_reset: 7,
        },
        failover: FailoverStrategy::Full,
        restore_from: Some(RestoreConfig { source: RestoreSource::Path("old/chk-7".into()), claim: false }),
        allow_non_restored_state: false,
        savepoint_dir: None,
        slots_per_worker: 2,
        heartbeat: HeartbeatConfig { interval_ms: 200, timeout_ms: 2_000 },
    };
    assert_eq!(found, expected);
}

#[test]
fn r51_the_default_directory_of_savepoints() {
    let table = [
        ("", None),
        ("storage: {directory: /srv/state}", None),
        ("storage: {savepointDir: /srv/savepoints}", Some("/srv/savepoints")),
        ("storage: {s3: {bucket: abc}, savepointDir: 's3://abc/savepoints'}", Some("s3://abc/savepoints")),
    ];
    for (yaml, expected) in table {
        assert_eq!(config(yaml).savepoint_dir.as_deref(), expected, "{yaml}");
    }
    let local = StorageConfig::Directory { path: "data/storage".into() };
    assert_eq!(config("storage: {savepointDir: s}").storage, local);
}

#[test]
fn r49_what_to_start_from_and_whose_it_is() {
    let table = [
        ("restoreFrom: {path: a/chk-7}", "a/chk-7", false),
        ("restoreFrom: {path: a/chk-7/_metadata, claimMode: NoClaim}", "a/chk-7/_metadata", false),
        ("restoreFrom: {path: 's3://b/savepoint-1-2', claimMode: Claim}", "s3://b/savepoint-1-2", true),
    ];
    for (yaml, path, claim) in table {
        assert_eq!(
            config(yaml).restore_from,
            Some(RestoreConfig { source: RestoreSource::Path(path.into()), claim }),
            "{yaml}"
        );
    }
    assert!(!config("upgrade: {}").allow_non_restored_state);
    assert!(config("upgrade: {allowNonRestoredState: true}").allow_non_restored_state);
    // It works without Kubernetes, unlike its neighbours.
    assert_eq!(ignored_locally(&job("upgrade: {allowNonRestoredState: true}")), [] as [&str; 0]);
    assert_eq!(ignored_locally(&job("upgrade: {allowNonRestoredState: true, attempts: 5}")), ["spec.upgrade"]);
}

#[test]
fn compression_of_state_files() {
    let table = [
        ("checkpoint: {interval: 1s}", Compression::None),
        ("checkpoint: {compression: Lz4}", Compression::Lz4),
        ("checkpoint: {compression: Zstd}", Compression::Zstd),
    ];
    for (yaml, expected) in table {
        assert_eq!(config(yaml).checkpoint.compression, expected, "{yaml}");
    }
}

#[test]
fn r18_interval_of_10_ms_is_accepted() {
    assert_eq!(config("checkpoint: {interval: 10ms}").checkpoint.interval_ms, Some(10));
}

#[test]
fn r21_interval_is_raised_to_the_minimal_pause() {
    for (yaml, expected) in [
        ("checkpoint: {interval: 1s, minPause: 500ms}", Some(1_000)),
        ("checkpoint: {interval: 1s, minPause: 5s}", Some(5_000)),
        ("checkpoint: {minPause: 5s}", None),
    ] {
        assert_eq!(config(yaml).checkpoint.interval_ms, expected, "{yaml}");
    }
}

#[test]
fn r38_r39_seed_values() {
    assert_eq!(
        config("restartStrategy: {fixedDelay: {attempts: 3, delay: 10 s}}").restart,
        RestartStrategy::FixedDelay { attempts: 3, delay_ms: 10_000 }
    );
    assert_eq!(
        config("restartStrategy: {failureRate: {maxFailuresPerInterval: 3, interval: 5 min, delay: 10s}}").restart,
        RestartStrategy::FailureRate { max_failures_per_interval: 3, interval_ms: 300_000, delay_ms: 10_000 }
    );
}

#[test]
fn r41_default_restart_strategy() {
    let fixed = RestartStrategy::FixedDelay { attempts: 3, delay_ms: 1_000 };
    let table = [
        ("", RestartStrategy::None),
        ("checkpoint: {interval: 1s}", EXPONENTIAL),
        ("checkpoint: {mode: ExactlyOnce}", RestartStrategy::None),
        ("restartStrategy: {fixedDelay: {attempts: 3}}", fixed.clone()),
        ("checkpoint: {interval: 1s}\nrestartStrategy: {fixedDelay: {attempts: 3}}", fixed),
        ("checkpoint: {interval: 1s}\nrestartStrategy: {none: {}}", RestartStrategy::None),
    ];
    for (yaml, expected) in table {
        assert_eq!(config(yaml).restart, expected, "{yaml}");
    }
}

#[test]
fn r27_storage() {
    let data = StorageConfig::Directory { path: "data/storage".into() };
    let table = [
        ("", data.clone()),
        ("storage: {directory: /srv/state}", StorageConfig::Directory { path: "/srv/state".into() }),
        ("storage: {persistentVolumeClaim: {claimName: a}}", data),
        (
            "storage: {s3: {bucket: abc}}",
            StorageConfig::S3 { bucket: "abc".into(), prefix: String::new(), endpoint: None, region: None },
        ),
    ];
    for (yaml, expected) in table {
        assert_eq!(config(yaml).storage, expected, "{yaml}");
    }
}

#[test]
fn values_and_secrets() {
    let yaml = |sql: &str| {
        format!(
            "apiVersion: streamjob.dev/v1alpha1
kind: StreamJob
metadata: {{name: a}}
spec:
  program: {{sql: \"{sql}\"}}
  env:
    - {{name: TOPIC, value: clicks}}
    - name: PASSWORD
      valueFrom: {{secretKeyRef: {{name: kafka, key: password}}}}
"
        )
    };
    let environment = |name: &str| (name == "PASSWORD").then(|| "it's".to_owned());
    let with = |sql: &str| resolve(&parse(&yaml(sql)).unwrap(), Platform::Local, "d", &environment);
    assert_eq!(with("'${TOPIC}' '${PASSWORD}' $${X}").unwrap().sql, "'clicks' 'it''s' ${X}");
    // The process environment is no source of names that the job file does not list.
    assert_eq!(
        with("${HOME}").unwrap_err().to_string(),
        "spec.program.sql, line 1 of the SQL text: there is no value for ${HOME}; add HOME to spec.env, which has: \
         PASSWORD, TOPIC"
    );
    let missing = resolve(&parse(&yaml("x")).unwrap(), Platform::Local, "d", &|_| None).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "spec.env[1]: PASSWORD is key \"password\" of secret \"kafka\", which local mode cannot read; set PASSWORD in the \
         environment of this command"
    );
}

#[test]
fn restore_points_that_only_kubernetes_knows_are_refused() {
    for (yaml, expected) in [
        (
            "restoreFrom: {savepointRef: {name: a}}",
            "spec.restoreFrom.savepointRef: a Savepoint resource exists on Kubernetes only; use path",
        ),
        (
            "restoreFrom: {latestRetained: {jobName: a}}",
            "spec.restoreFrom.latestRetained: a register of other jobs exists on Kubernetes only; use path",
        ),
    ] {
        let error = resolve(&job(yaml), Platform::Local, "d", &|_| None).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn fields_for_kubernetes_are_accepted_and_named() {
    let job = job("image: registry.example.org/a:1
imagePullPolicy: IfNotPresent
imagePullSecrets: [{name: a}]
coordinator: {resources: {requests: {cpu: 1, memory: 2Gi}}}
workers:
  slots: 2
  resources: {limits: {cpu: 500m}}
  podTemplate: {spec: {nodeSelector: {disk: ssd}}}
storage: {persistentVolumeClaim: {template: {size: 10Gi}}}
state: Running
upgrade: {mode: LastCheckpoint, rollback: {enabled: true}}
restartNonce: 3
savepoints: {schedule: '0 * * * *', retain: {count: 3, age: 7d}}
deletion: {policy: Savepoint}");
    let expected = [
        "spec.image",
        "spec.imagePullPolicy",
        "spec.imagePullSecrets",
        "spec.coordinator",
        "spec.workers.resources",
        "spec.workers.podTemplate",
        "spec.storage.persistentVolumeClaim",
        "spec.state",
        "spec.upgrade",
        "spec.restartNonce",
        "spec.savepoints",
        "spec.deletion",
    ];
    assert_eq!(ignored_locally(&job), expected);
    assert_eq!(resolve(&job, Platform::Local, "d", &|_| None).unwrap().slots_per_worker, 2);
}

#[test]
fn a_job_written_out_again_is_the_same_job() {
    let job = job("checkpoint: {interval: 90s}\nrestartStrategy: {exponentialDelay: {jitterFactor: '0.25'}}");
    let text = serde_json::to_string(&job).unwrap();
    assert!(text.contains("\"interval\":\"1m30s\""), "{text}");
    // JSON is YAML.
    assert_eq!(parse(&text).unwrap(), job);
}

#[test]
fn what_only_kubernetes_resolves() {
    let on_kubernetes = |yaml: &str| resolve(&job(yaml), Platform::Kubernetes, "/state/ns.visits", &|_| None);
    assert_eq!(on_kubernetes("").unwrap().savepoint_dir.as_deref(), Some("/state/ns.visits/savepoints"));
    let claim = "storage: {persistentVolumeClaim: {claimName: a}}";
    assert_eq!(on_kubernetes(claim).unwrap().storage, StorageConfig::Directory { path: "/state/ns.visits".into() });
    let table = [
        ("storage: {s3: {bucket: abc, prefix: /x/ns.visits/}}", "s3://abc/x/ns.visits/savepoints"),
        ("storage: {s3: {bucket: abc}}", "s3://abc/savepoints"),
        ("storage: {s3: {bucket: abc}, savepointDir: 's3://def/s'}", "s3://def/s"),
    ];
    for (yaml, expected) in table {
        assert_eq!(on_kubernetes(yaml).unwrap().savepoint_dir.as_deref(), Some(expected), "{yaml}");
    }
    let retained = on_kubernetes("restoreFrom: {latestRetained: {jobName: other}, claimMode: Claim}").unwrap();
    let source = RestoreSource::LatestRetained { job_name: "other".into() };
    assert_eq!(retained.restore_from, Some(RestoreConfig { source, claim: true }));
    let unresolved = on_kubernetes("restoreFrom: {savepointRef: {name: a}}").unwrap_err().to_string();
    assert!(unresolved.contains("spec.restoreFrom.savepointRef: only the operator can look"), "{unresolved}");
    let secret = "env: [{name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}]";
    let missing = on_kubernetes(secret).unwrap_err().to_string();
    assert!(missing.contains("which this pod does not have in its environment"), "{missing}");
}
