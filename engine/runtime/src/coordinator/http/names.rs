//! What things are called in Flink's API: states, vertices, places.

use super::answer::Refusal;
use std::collections::BTreeMap;
use streamjob_api::config::{JobConfig, RestartStrategy, StorageConfig};
use streamjob_protocol::coordinator::{JobState, TaskState, TaskView};
use streamjob_protocol::plan::JobPlan;
use xxhash_rust::xxh3::xxh3_128;

pub(super) const JOB_STATES: [&str; 11] = [
    "INITIALIZING",
    "CREATED",
    "RUNNING",
    "RESTARTING",
    "FAILING",
    "FAILED",
    "CANCELLING",
    "CANCELED",
    "FINISHED",
    "SUSPENDED",
    "RECONCILING",
];

pub(super) const TASK_STATES: [&str; 10] = [
    "CREATED",
    "SCHEDULED",
    "DEPLOYING",
    "INITIALIZING",
    "RUNNING",
    "FINISHED",
    "CANCELING",
    "CANCELED",
    "FAILED",
    "RECONCILING",
];

pub(in crate::coordinator) fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Initializing => "INITIALIZING",
        JobState::Created => "CREATED",
        JobState::Running => "RUNNING",
        JobState::Restarting => "RESTARTING",
        JobState::Failing => "FAILING",
        JobState::Failed => "FAILED",
        JobState::Cancelling => "CANCELLING",
        JobState::Canceled => "CANCELED",
        JobState::Finished => "FINISHED",
        JobState::Suspended => "SUSPENDED",
    }
}

/// Nothing follows.
pub(super) fn has_ended(state: JobState) -> bool {
    matches!(state, JobState::Failed | JobState::Canceled | JobState::Finished | JobState::Suspended)
}

pub(super) fn task_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Created => "CREATED",
        // From the first message on a task restores its state.
        TaskState::Deploying => "INITIALIZING",
        TaskState::Running | TaskState::Drained => "RUNNING",
        TaskState::Finished => "FINISHED",
        TaskState::Canceling => "CANCELING",
        TaskState::Canceled => "CANCELED",
        TaskState::Failed => "FAILED",
    }
}

/// How many tasks are in each state, every state named.
pub(super) fn count_tasks<'a>(tasks: impl Iterator<Item = &'a TaskView>) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = TASK_STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    for task in tasks {
        *counts.entry(task_state(task.state).to_owned()).or_default() += 1;
    }
    counts
}

/// The state that says most about a vertex with tasks in these: trouble first, then progress, the end only if all have it.
pub(super) fn vertex_state(counts: &BTreeMap<String, u32>) -> &'static str {
    let total: u32 = counts.values().sum();
    if total > 0 && counts.get("FINISHED") == Some(&total) {
        return "FINISHED";
    }
    ["FAILED", "CANCELING", "CANCELED", "INITIALIZING", "RUNNING"]
        .into_iter()
        .find(|state| counts.get(*state).is_some_and(|count| *count > 0))
        .unwrap_or("CREATED")
}

/// 32 hexadecimal digits that stay the same for as long as the vertex's first operator keeps its uid.
pub(super) fn vertex_id(plan: &JobPlan, vertex: u32) -> String {
    let head = plan.vertices.get(vertex as usize).and_then(|vertex| vertex.operators.first());
    format!("{:032x}", xxh3_128(head.map_or("", |operator| operator.uid.as_str()).as_bytes()))
}

/// Index of the vertex with this id.
pub(super) fn find_vertex(plan: &JobPlan, id: &str) -> Result<u32, Refusal> {
    if !streamjob_api::rest::is_id(id) {
        return Err(Refusal::bad_parameter("vertexid", id, "32 hexadecimal digits"));
    }
    (0..plan.vertices.len() as u32)
        .find(|vertex| vertex_id(plan, *vertex).eq_ignore_ascii_case(id))
        .ok_or_else(|| Refusal::not_found(format!("job vertex {id} not found")))
}

/// The directory of the job's checkpoints.
pub(in crate::coordinator) fn storage_location(config: &JobConfig, job_id: &str) -> String {
    match &config.storage {
        StorageConfig::Directory { path } => {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
            absolute.join(job_id).to_string_lossy().into_owned()
        }
        StorageConfig::S3 { bucket, prefix, .. } if prefix.is_empty() => format!("s3://{bucket}/{job_id}"),
        StorageConfig::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}/{job_id}"),
    }
}

/// In words, as Flink's web UI shows it.
pub(super) fn restart_strategy(strategy: &RestartStrategy) -> String {
    match strategy {
        RestartStrategy::None => "Restart deactivated.".into(),
        RestartStrategy::FixedDelay { attempts, delay_ms } => {
            format!("Restart with fixed delay ({delay_ms} ms). #{attempts} restart attempts.")
        }
        RestartStrategy::FailureRate { max_failures_per_interval, interval_ms, delay_ms } => format!(
            "Failure rate restart with maximum of {max_failures_per_interval} failures within interval {interval_ms} ms and \
             fixed delay {delay_ms} ms."
        ),
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms,
            max_backoff_ms,
            backoff_multiplier,
            reset_backoff_threshold_ms,
            jitter_factor,
            attempts_before_reset,
        } => format!(
            "Restart with exponential delay: starting at {initial_backoff_ms} ms, increasing by {backoff_multiplier}, with \
             maximum {max_backoff_ms} ms. Delay resets after {reset_backoff_threshold_ms} ms with jitter {jitter_factor}. \
             #{attempts_before_reset} restart attempts before it resets."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamjob_api::Platform;

    #[test]
    fn a_vertex_shows_trouble_first() {
        let counts = |states: &[(&str, u32)]| -> BTreeMap<String, u32> {
            states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
        };
        let table = [
            (counts(&[]), "CREATED"),
            (counts(&[("RUNNING", 2)]), "RUNNING"),
            (counts(&[("RUNNING", 2), ("FINISHED", 1)]), "RUNNING"),
            (counts(&[("FINISHED", 3), ("RUNNING", 0)]), "FINISHED"),
            (counts(&[("RUNNING", 2), ("INITIALIZING", 1)]), "INITIALIZING"),
            (counts(&[("RUNNING", 2), ("FAILED", 1)]), "FAILED"),
        ];
        for (counts, expected) in table {
            assert_eq!(vertex_state(&counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn places_of_checkpoints() {
        let storage = |prefix: &str| StorageConfig::S3 {
            bucket: "b".into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
        };
        let place = |storage| {
            let job =
                "apiVersion: streamjob.dev/v1alpha1\nkind: StreamJob\nmetadata: {name: a}\nspec: {program: {sql: x}}";
            let mut config =
                streamjob_api::resolve(&streamjob_api::parse(job).unwrap(), Platform::Local, "d", &|_| None).unwrap();
            config.storage = storage;
            storage_location(&config, "id")
        };
        assert_eq!(place(storage("")), "s3://b/id");
        assert_eq!(place(storage("x/y")), "s3://b/x/y/id");
        assert_eq!(place(StorageConfig::Directory { path: "/data".into() }), "/data/id");
    }
}
