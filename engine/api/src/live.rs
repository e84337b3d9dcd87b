//! What of a job's configuration changes while the job runs: reading and checking such a change. Making it happen is
//! the coordinator's business.
//!
//! A change is written as in the job file, with only the fields that change:
//! `{"checkpoint": {"interval": "2s"}, "restartStrategy": {"fixedDelay": {"attempts": 5}}}`. A field of `checkpoint` that
//! is null goes back to its default; a restart strategy replaces the one before as a whole.

use crate::check::check;
use crate::config::{self, CheckpointConfig};
use crate::document::{Content, Node};
use crate::error::ApiError;
use crate::schema;
use crate::spec::{Checkpoint, CheckpointMode, Compression, RestartStrategy, Retention, StreamJobSpec};
use crate::text::Duration;
use crate::validate::{Violation, check_checkpoint, check_restart_strategy, resolve_checkpoint, resolve_restart};
use serde_json::{Map, Value, json};

/// Fields of `checkpoint` that a running job can take another value of.
const LIVE: [&str; 6] = ["interval", "minPause", "retained", "retention", "timeout", "tolerableFailures"];

/// What applies after `change` (JSON or YAML) to a job that runs with `checkpoint` and `restart`.
///
/// # Errors
/// The first problem: no valid text, a field that does not exist or cannot change while the job runs, or a value that the
/// job file would not allow either.
pub fn apply(
    checkpoint: &CheckpointConfig,
    restart: &config::RestartStrategy,
    change: &str,
) -> Result<(CheckpointConfig, config::RestartStrategy), ApiError> {
    let document = Node::parse(change)?;
    check(&document, &schema_of_changes(), "")?;
    // Rules and messages of the job file speak of fields below `spec`.
    let below_spec = |violation: Violation| match violation.at(&document) {
        ApiError::Field { path, problem, allowed, .. } => {
            let path = path.trim_start_matches("spec.").to_owned();
            ApiError::Field { line: document.line_of(&path), path, problem, allowed }
        }
        other => other,
    };
    let new_checkpoint = match entry(&document, "checkpoint") {
        Some(fields) => changed_checkpoint(checkpoint, fields).map_err(below_spec)?,
        None => checkpoint.clone(),
    };
    let new_restart = match document.to_value().get("restartStrategy") {
        Some(strategy) => {
            let strategy: RestartStrategy = read("restartStrategy", strategy.clone()).map_err(below_spec)?;
            check_restart_strategy(&strategy).map_err(below_spec)?;
            resolve_restart(Some(&strategy), new_checkpoint.interval_ms.is_some())
        }
        None => restart.clone(),
    };
    Ok((new_checkpoint, new_restart))
}

/// The change that lets a job that runs with `checkpoint` and `restart` do as `spec` says, or nothing if it does. What
/// cannot change while the job runs is left out.
#[must_use]
pub fn change_towards(
    spec: &StreamJobSpec,
    checkpoint: &CheckpointConfig,
    restart: &config::RestartStrategy,
) -> Option<Value> {
    let written = spec.checkpoint.clone().unwrap_or_default();
    let wanted = resolve_checkpoint(&written);
    let mut change = Map::new();
    let reached = CheckpointConfig {
        interval_ms: wanted.interval_ms,
        timeout_ms: wanted.timeout_ms,
        min_pause_ms: wanted.min_pause_ms,
        tolerable_failures: wanted.tolerable_failures,
        retention: wanted.retention,
        retained: wanted.retained,
        ..checkpoint.clone()
    };
    // Periodic checkpoints go neither on nor off live: then nothing of them is said.
    if wanted.interval_ms.is_some() == checkpoint.interval_ms.is_some()
        && reached != *checkpoint
        && let Ok(Value::Object(mut fields)) = serde_json::to_value(&written)
    {
        fields.retain(|name, value| LIVE.contains(&name.as_str()) && !value.is_null());
        change.insert("checkpoint".into(), fields.into());
    }
    let checkpointing = checkpoint.interval_ms.is_some();
    if resolve_restart(spec.restart_strategy.as_ref(), checkpointing) != *restart {
        let strategy = match &spec.restart_strategy {
            Some(strategy) => serde_json::to_value(strategy).unwrap_or_default(),
            None if checkpointing => json!({ "exponentialDelay": {} }),
            None => json!({ "none": {} }),
        };
        change.insert("restartStrategy".into(), strategy);
    }
    (!change.is_empty()).then_some(Value::Object(change))
}

fn changed_checkpoint(current: &CheckpointConfig, change: &Node) -> Result<CheckpointConfig, Violation> {
    let Content::Object(entries) = &change.content else { return Ok(current.clone()) };
    let fixed =
        || format!("while the job runs only these can: {}; for others edit the job file and restart", LIVE.join(", "));
    let mut fields = match serde_json::to_value(as_written(current)) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    for (name, _, value) in entries {
        let path = format!("spec.checkpoint.{name}");
        if !LIVE.contains(&name.as_str()) {
            return Err(Violation::new(path, "it cannot change while the job runs", fixed()));
        }
        let off = matches!(value.content, Content::Null);
        if name == "interval" && off != current.interval_ms.is_none() {
            let problem = match off {
                true => "periodic checkpoints cannot be turned off while the job runs",
                false => "periodic checkpoints cannot be turned on while the job runs",
            };
            return Err(Violation::new(path, problem, "edit the job file and restart"));
        }
        if off {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.to_value());
        }
    }
    let checkpoint: Checkpoint = read("checkpoint", Value::Object(fields))?;
    check_checkpoint(&checkpoint)?;
    Ok(resolve_checkpoint(&checkpoint))
}

/// The job file's form of a resolved configuration.
fn as_written(config: &CheckpointConfig) -> Checkpoint {
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    Checkpoint {
        interval: config.interval_ms.map(Duration::from_millis),
        mode: match config.mode {
            config::CheckpointMode::ExactlyOnce => CheckpointMode::ExactlyOnce,
            config::CheckpointMode::AtLeastOnce => CheckpointMode::AtLeastOnce,
        },
        timeout: Duration::from_millis(config.timeout_ms),
        min_pause: Duration::from_millis(config.min_pause_ms),
        max_concurrent: number(config.max_concurrent),
        tolerable_failures: number(config.tolerable_failures),
        retention: match config.retention {
            config::Retention::RetainOnCancellation => Retention::RetainOnCancellation,
            config::Retention::DeleteOnCancellation => Retention::DeleteOnCancellation,
            config::Retention::None => Retention::None,
        },
        retained: number(config.retained),
        incremental: config.incremental,
        compression: match config.compression {
            config::Compression::None => Compression::None,
            config::Compression::Lz4 => Compression::Lz4,
            config::Compression::Zstd => Compression::Zstd,
        },
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &str, value: Value) -> Result<T, Violation> {
    serde_json::from_value(value).map_err(|error| {
        Violation::new(format!("spec.{path}"), error.to_string(), "compare it with the reference of the job file")
    })
}

/// The parts of the job file's schema that a change may hold.
fn schema_of_changes() -> Value {
    let job = schema::stream_job();
    let part = |name: &str| job.pointer(&format!("/properties/spec/properties/{name}")).cloned().unwrap_or_default();
    json!({
        "type": "object",
        "properties": { "checkpoint": part("checkpoint"), "restartStrategy": part("restartStrategy") },
    })
}

fn entry<'a>(document: &'a Node, name: &str) -> Option<&'a Node> {
    let Content::Object(entries) = &document.content else { return None };
    entries.iter().find(|(key, ..)| key == name).map(|(_, _, node)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> (CheckpointConfig, config::RestartStrategy) {
        let written = Checkpoint {
            interval: Some(Duration::from_secs(10)),
            mode: CheckpointMode::AtLeastOnce,
            timeout: Duration::from_secs(60),
            retained: 3,
            compression: Compression::Lz4,
            ..Checkpoint::default()
        };
        (resolve_checkpoint(&written), config::RestartStrategy::None)
    }

    fn applied(change: &str) -> (CheckpointConfig, config::RestartStrategy) {
        let (checkpoint, restart) = running();
        apply(&checkpoint, &restart, change).unwrap_or_else(|error| panic!("{change}: {error}"))
    }

    #[test]
    fn only_what_is_named_changes() {
        assert_eq!(applied("{}"), running());
        assert_eq!(applied("{\"checkpoint\": null}"), running());
        let (checkpoint, restart) = applied(
            r#"{"checkpoint": {"interval": "2s", "tolerableFailures": 4, "retention": "RetainOnCancellation"}}"#,
        );
        let mut expected = running();
        expected.0.interval_ms = Some(2_000);
        expected.0.tolerable_failures = 4;
        expected.0.retention = config::Retention::RetainOnCancellation;
        assert_eq!((checkpoint, restart), expected);
    }

    #[test]
    fn null_is_the_default_and_a_pause_raises_the_interval() {
        assert_eq!(applied(r#"{"checkpoint": {"timeout": null}}"#).0.timeout_ms, 600_000);
        let paused = applied(r#"{"checkpoint": {"minPause": "20s"}}"#).0;
        assert_eq!((paused.min_pause_ms, paused.interval_ms), (20_000, Some(20_000)));
    }

    #[test]
    fn a_strategy_replaces_the_one_before() {
        let (_, restart) = applied(r#"{"restartStrategy": {"fixedDelay": {"attempts": 7}}}"#);
        assert_eq!(restart, config::RestartStrategy::FixedDelay { attempts: 7, delay_ms: 1_000 });
    }

    #[test]
    fn a_change_towards_a_spec_ends_where_the_spec_is() {
        let spec = |text: &str| -> StreamJobSpec {
            let yaml = format!("{{\"program\": {{\"sql\": \"x\"}}, {text}}}");
            serde_json::from_str(&yaml).unwrap()
        };
        let table = [
            (r#""checkpoint": {"interval": "2s"}"#, true),
            (r#""checkpoint": {"interval": "10s", "minPause": "20s", "retained": 5}"#, true),
            (r#""checkpoint": {"interval": "3s"}, "restartStrategy": {"fixedDelay": {"attempts": 9}}"#, true),
            (r#""restartStrategy": {"none": {}}"#, false),
            // Checkpoints are not turned off live, and what else differs is no live matter.
            (r#""checkpoint": {"retained": 9}, "restartStrategy": {"none": {}}"#, false),
            (
                r#""checkpoint": {"interval": "10s", "mode": "ExactlyOnce", "timeout": "60s", "retained": 3}, "restartStrategy": {"none": {}}"#,
                false,
            ),
        ];
        for (text, changes) in table {
            let spec = spec(text);
            let (checkpoint, restart) = running();
            let change = change_towards(&spec, &checkpoint, &restart);
            assert_eq!(change.is_some(), changes, "{text}: {change:?}");
            if let Some(change) = change {
                let (checkpoint, restart) = apply(&checkpoint, &restart, &change.to_string()).unwrap();
                assert_eq!(change_towards(&spec, &checkpoint, &restart), None, "{text}: {change}");
            }
        }
    }

    #[test]
    fn what_cannot_be() {
        let table = [
            ("{", "no valid YAML"),
            ("[1]", "found a list"),
            (r#"{"checkpoints": {}}"#, "checkpoints (line 1): there is no such field"),
            (
                r#"{"checkpoint": {"mode": "ExactlyOnce"}}"#,
                "checkpoint.mode (line 1): it cannot change while the job runs; while",
            ),
            (r#"{"checkpoint": {"compression": "Zstd"}}"#, "checkpoint.compression (line 1): it cannot change"),
            (
                r#"{"checkpoint": {"interval": null}}"#,
                "checkpoint.interval (line 1): periodic checkpoints cannot be turned off",
            ),
            (
                r#"{"checkpoint": {"interval": "1ms"}}"#,
                "checkpoint.interval (line 1): found 1ms; expected at least 10ms",
            ),
            (r#"{"checkpoint": {"interval": 5}}"#, "checkpoint.interval (line 1): found 5; expected"),
            (
                r#"{"checkpoint": {"retained": 0}}"#,
                "checkpoint.retained (line 1): found 0; expected a whole number from 1 to 1000",
            ),
            (
                r#"{"restartStrategy": {"none": {}, "fixedDelay": {}}}"#,
                "restartStrategy (line 1): found none and fixedDelay; expected exactly one",
            ),
            (
                r#"{"restartStrategy": {"failureRate": {"interval": "0s"}}}"#,
                "restartStrategy.failureRate.interval (line 1): found 0s",
            ),
            (r#"{"storage": {"directory": "x"}}"#, "storage (line 1): there is no such field"),
        ];
        let (checkpoint, restart) = running();
        for (change, expected) in table {
            let error = apply(&checkpoint, &restart, change).unwrap_err().to_string();
            assert!(error.contains(expected), "{change}: {error}");
        }
        let without = CheckpointConfig { interval_ms: None, ..checkpoint };
        let error = apply(&without, &restart, r#"{"checkpoint": {"interval": "5s"}}"#).unwrap_err().to_string();
        assert!(error.contains("cannot be turned on while the job runs; edit the job file and restart"), "{error}");
    }
}
