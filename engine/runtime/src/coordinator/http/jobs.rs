//! The job as a whole: lists, details, plan, configuration, failures, cancelling.

use super::Context;
use super::answer::{Answer, Refusal};
use super::names;
use super::vertices;
use crate::coordinator::status::Snapshot;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use streamjob_api::config::{CheckpointMode, JobConfig, Retention};
use streamjob_api::rest::jobs::{
    Accumulators, ConfigurationEntry, ExceptionHistory, ExecutionConfig, JobConfigInfo, JobDetails, JobDetailsInfo,
    JobExceptions, JobIdWithStatus, JobIdsWithStatus, JobPlanInfo, JobStatusInfo, MultipleJobsDetails, Plan, PlanInput,
    PlanNode, RootException, VertexOverview,
};
use streamjob_protocol::coordinator::{CoordinatorView, FailureView, JobState, Request};
use streamjob_protocol::plan::{ExchangePattern, JobPlan};

/// Entries that `exceptions` gives without `?maxExceptions=`.
const EXCEPTIONS: usize = 20;

pub(super) async fn list(State(context): State<Context>) -> Answer<JobIdsWithStatus> {
    let view = context.snapshot().await?.view;
    let job = JobIdWithStatus { id: view.job_id, status: names::job_state(view.state).into() };
    Ok(Json(JobIdsWithStatus { jobs: vec![job] }))
}

pub(super) async fn overview(State(context): State<Context>) -> Answer<MultipleJobsDetails> {
    let Snapshot { view, now, .. } = context.snapshot().await?;
    let mut tasks: BTreeMap<String, u32> =
        names::count_tasks(view.tasks.iter()).into_iter().map(|(state, count)| (state.to_lowercase(), count)).collect();
    tasks.insert("total".into(), view.tasks.len() as u32);
    let (end_time, duration) = end(&view, now);
    let job = JobDetails {
        jid: view.job_id,
        name: view.job_name,
        job_type: "STREAMING".into(),
        scheduler_type: "Adaptive".into(),
        start_time: view.started_at,
        end_time,
        duration,
        state: names::job_state(view.state).into(),
        last_modification: view.since,
        tasks,
        pending_operators: 0,
    };
    Ok(Json(MultipleJobsDetails { jobs: vec![job] }))
}

/// When the job ended, -1 before, and how long it has run.
fn end(view: &CoordinatorView, now: u64) -> (i64, u64) {
    if names::has_ended(view.state) {
        (view.since as i64, view.since.saturating_sub(view.started_at))
    } else {
        (-1, now.saturating_sub(view.started_at))
    }
}

pub(super) async fn status(State(context): State<Context>, Path(job): Path<String>) -> Answer<JobStatusInfo> {
    let view = context.job(&job).await?.view;
    Ok(Json(JobStatusInfo { status: names::job_state(view.state).into() }))
}

pub(super) async fn details(State(context): State<Context>, Path(job): Path<String>) -> Answer<JobDetailsInfo> {
    let snapshot = context.job(&job).await?;
    let Snapshot { view, plan, timeline, now, .. } = &snapshot;
    let (end_time, duration) = end(view, *now);
    let mut timestamps: BTreeMap<String, u64> =
        names::JOB_STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    timestamps.extend(timeline.states().map(|(state, at)| (names::job_state(state).to_owned(), at)));
    let started = snapshot.tasks_started_at();
    let vertices = (0..plan.vertices.len() as u32)
        .map(|vertex| {
            let tasks = names::count_tasks(view.tasks.iter().filter(|task| task.task.vertex == vertex));
            VertexOverview {
                id: names::vertex_id(plan, vertex),
                // All vertices share slots.
                slot_sharing_group_id: view.job_id.clone(),
                name: plan.vertices[vertex as usize].name.clone(),
                max_parallelism: plan.max_parallelism,
                parallelism: plan.vertices[vertex as usize].parallelism,
                status: names::vertex_state(&tasks).into(),
                start_time: started,
                end_time,
                duration: vertices::duration(started, end_time, *now),
                tasks,
                metrics: vertices::metrics(&snapshot, |task| task.vertex == vertex),
            }
        })
        .collect::<Vec<_>>();
    let mut status_counts: BTreeMap<String, u32> =
        names::TASK_STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    for vertex in &vertices {
        *status_counts.entry(vertex.status.clone()).or_default() += 1;
    }
    Ok(Json(JobDetailsInfo {
        jid: view.job_id.clone(),
        name: view.job_name.clone(),
        is_stoppable: view.state == JobState::Running,
        state: names::job_state(view.state).into(),
        job_type: "STREAMING".into(),
        scheduler_type: "Adaptive".into(),
        start_time: view.started_at,
        end_time,
        duration,
        max_parallelism: i64::from(plan.max_parallelism),
        application_id: view.job_id.clone(),
        now: *now,
        timestamps,
        vertices,
        status_counts,
        plan: plan_of(view, plan),
        pending_operators: 0,
    }))
}

pub(super) async fn plan(State(context): State<Context>, Path(job): Path<String>) -> Answer<JobPlanInfo> {
    let snapshot = context.job(&job).await?;
    Ok(Json(JobPlanInfo { plan: plan_of(&snapshot.view, &snapshot.plan) }))
}

fn plan_of(view: &CoordinatorView, plan: &JobPlan) -> Plan {
    let nodes = plan.vertices.iter().enumerate().map(|(index, vertex)| {
        let inputs = plan.edges.iter().filter(|edge| edge.to as usize == index).enumerate();
        PlanNode {
            id: names::vertex_id(plan, index as u32),
            parallelism: vertex.parallelism,
            operator: String::new(),
            operator_strategy: String::new(),
            description: vertex
                .operators
                .iter()
                .map(|operator| operator.name.as_str())
                .collect::<Vec<_>>()
                .join("<br/>"),
            optimizer_properties: serde_json::Map::new(),
            inputs: inputs
                .map(|(num, edge)| PlanInput {
                    num: num as u32,
                    id: names::vertex_id(plan, edge.from),
                    ship_strategy: match edge.pattern {
                        ExchangePattern::Pointwise => "FORWARD".into(),
                        ExchangePattern::AllToAll => "HASH".into(),
                    },
                    exchange: if edge.pipelined { "pipelined_bounded".into() } else { "blocking".into() },
                })
                .collect(),
        }
    });
    Plan { jid: view.job_id.clone(), name: view.job_name.clone(), kind: "STREAMING".into(), nodes: nodes.collect() }
}

pub(super) async fn config(State(context): State<Context>, Path(job): Path<String>) -> Answer<JobConfigInfo> {
    let view = context.job(&job).await?.view;
    Ok(Json(JobConfigInfo {
        execution_config: ExecutionConfig {
            restart_strategy: names::restart_strategy(&view.restart_strategy),
            job_parallelism: view.parallelism,
            object_reuse_mode: true,
            user_config: BTreeMap::new(),
        },
        jid: view.job_id,
        name: view.job_name,
    }))
}

/// The options that have a name in Flink, with the values that apply now.
pub(super) async fn all_options(State(context): State<Context>) -> Answer<Vec<ConfigurationEntry>> {
    let view = context.snapshot().await?.view;
    Ok(Json(options(&context.0.config, &view, &context.0.job_id)))
}

pub(super) async fn options_of_job(
    State(context): State<Context>,
    Path(job): Path<String>,
) -> Answer<Vec<ConfigurationEntry>> {
    let view = context.job(&job).await?.view;
    Ok(Json(options(&context.0.config, &view, &context.0.job_id)))
}

fn options(config: &JobConfig, view: &CoordinatorView, job_id: &str) -> Vec<ConfigurationEntry> {
    let checkpoint = &view.checkpoint_config;
    let ms = |number: u64| format!("{number} ms");
    let mode = match checkpoint.mode {
        CheckpointMode::ExactlyOnce => "EXACTLY_ONCE",
        CheckpointMode::AtLeastOnce => "AT_LEAST_ONCE",
    };
    let retention = match checkpoint.retention {
        Retention::RetainOnCancellation => "RETAIN_ON_CANCELLATION",
        Retention::DeleteOnCancellation => "DELETE_ON_CANCELLATION",
        Retention::None => "NO_EXTERNALIZED_CHECKPOINTS",
    };
    let mut entries = vec![
        ("execution.checkpointing.mode", mode.to_owned()),
        ("execution.checkpointing.timeout", ms(checkpoint.timeout_ms)),
        ("execution.checkpointing.min-pause", ms(checkpoint.min_pause_ms)),
        ("execution.checkpointing.max-concurrent-checkpoints", checkpoint.max_concurrent.to_string()),
        ("execution.checkpointing.tolerable-failed-checkpoints", checkpoint.tolerable_failures.to_string()),
        ("execution.checkpointing.externalized-checkpoint-retention", retention.to_owned()),
        ("execution.checkpointing.num-retained", checkpoint.retained.to_string()),
        ("execution.checkpointing.incremental", checkpoint.incremental.to_string()),
        ("execution.checkpointing.unaligned.enabled", "false".to_owned()),
        ("execution.checkpointing.dir", names::storage_location(config, job_id)),
        ("state.backend.type", "hashmap".to_owned()),
        ("parallelism.default", view.parallelism.to_string()),
        ("pipeline.max-parallelism", view.max_parallelism.to_string()),
        ("pipeline.name", config.name.clone()),
        ("taskmanager.numberOfTaskSlots", config.slots_per_worker.to_string()),
        ("heartbeat.interval", ms(config.heartbeat.interval_ms)),
        ("heartbeat.timeout", ms(config.heartbeat.timeout_ms)),
        (
            "jobmanager.execution.failover-strategy",
            match config.failover {
                streamjob_api::config::FailoverStrategy::Region => "region".to_owned(),
                streamjob_api::config::FailoverStrategy::Full => "full".to_owned(),
            },
        ),
    ];
    entries.extend(checkpoint.interval_ms.map(|interval| ("execution.checkpointing.interval", ms(interval))));
    entries.extend(config.savepoint_dir.clone().map(|place| ("execution.checkpointing.savepoint-dir", place)));
    entries.extend(restart_options(&view.restart_strategy));
    let mut entries: Vec<ConfigurationEntry> =
        entries.into_iter().map(|(key, value)| ConfigurationEntry { key: key.to_owned(), value }).collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn restart_options(strategy: &streamjob_api::config::RestartStrategy) -> Vec<(&'static str, String)> {
    use streamjob_api::config::RestartStrategy;
    let ms = |number: u64| format!("{number} ms");
    match strategy {
        RestartStrategy::None => vec![("restart-strategy.type", "none".into())],
        RestartStrategy::FixedDelay { attempts, delay_ms } => vec![
            ("restart-strategy.type", "fixed-delay".into()),
            ("restart-strategy.fixed-delay.attempts", attempts.to_string()),
            ("restart-strategy.fixed-delay.delay", ms(*delay_ms)),
        ],
        RestartStrategy::FailureRate { max_failures_per_interval, interval_ms, delay_ms } => vec![
            ("restart-strategy.type", "failure-rate".into()),
            ("restart-strategy.failure-rate.max-failures-per-interval", max_failures_per_interval.to_string()),
            ("restart-strategy.failure-rate.failure-rate-interval", ms(*interval_ms)),
            ("restart-strategy.failure-rate.delay", ms(*delay_ms)),
        ],
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms,
            max_backoff_ms,
            backoff_multiplier,
            reset_backoff_threshold_ms,
            jitter_factor,
            attempts_before_reset,
        } => vec![
            ("restart-strategy.type", "exponential-delay".into()),
            ("restart-strategy.exponential-delay.initial-backoff", ms(*initial_backoff_ms)),
            ("restart-strategy.exponential-delay.max-backoff", ms(*max_backoff_ms)),
            ("restart-strategy.exponential-delay.backoff-multiplier", backoff_multiplier.to_string()),
            ("restart-strategy.exponential-delay.reset-backoff-threshold", ms(*reset_backoff_threshold_ms)),
            ("restart-strategy.exponential-delay.jitter-factor", jitter_factor.to_string()),
            ("restart-strategy.exponential-delay.attempts-before-reset-backoff", attempts_before_reset.to_string()),
        ],
    }
}

#[derive(Deserialize)]
pub(super) struct ExceptionsQuery {
    #[serde(rename = "maxExceptions")]
    most: Option<usize>,
}

pub(super) async fn exceptions(
    State(context): State<Context>,
    Path(job): Path<String>,
    query: Result<Query<ExceptionsQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<JobExceptions> {
    let Query(query) =
        query.map_err(|rejection| Refusal::bad_parameter("maxExceptions", &rejection.body_text(), "a whole number"))?;
    let snapshot = context.job(&job).await?;
    let most = query.most.unwrap_or(EXCEPTIONS);
    let entries = snapshot.view.failures.iter().take(most).map(|failure| exception(&snapshot, failure)).collect();
    let history = ExceptionHistory { entries, truncated: snapshot.view.failures.len() > most };
    Ok(Json(JobExceptions { history }))
}

fn exception(snapshot: &Snapshot, failure: &FailureView) -> RootException {
    let task = failure.task.and_then(|task| {
        let vertex = snapshot.plan.vertices.get(task.vertex as usize)?;
        Some(format!("{} ({}/{})", vertex.name, task.subtask + 1, vertex.parallelism))
    });
    let worker = failure.worker.map(|worker| worker.to_string());
    let endpoint = failure.worker.and_then(|id| snapshot.workers.iter().find(|worker| worker.id == id));
    RootException {
        exception_name: if task.is_some() { "TaskFailed".into() } else { "JobFailed".into() },
        stacktrace: failure.reason.clone(),
        timestamp: failure.at,
        task_name: task,
        endpoint: endpoint.map(|worker| worker.data_addr.to_string()),
        task_manager_id: worker,
        failure_labels: BTreeMap::new(),
        concurrent_exceptions: Vec::new(),
    }
}

pub(super) async fn accumulators(State(context): State<Context>, Path(job): Path<String>) -> Answer<Accumulators> {
    context.check_job(&job)?;
    Ok(Json(Accumulators::default()))
}

#[derive(Deserialize)]
pub(super) struct TerminationQuery {
    mode: Option<String>,
}

/// `PATCH /jobs/:id?mode=cancel`.
pub(super) async fn cancel(
    State(context): State<Context>,
    Path(job): Path<String>,
    query: Result<Query<TerminationQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<(StatusCode, Json<serde_json::Value>), Refusal> {
    let mode = query.ok().and_then(|Query(query)| query.mode).unwrap_or_else(|| "cancel".into());
    context.check_job(&job)?;
    match mode.to_lowercase().as_str() {
        "cancel" => {}
        "stop" => {
            return Err(Refusal::bad_request(
                "The termination mode \"stop\" has been removed. Use \"cancel\", or stop the job with a savepoint.",
            ));
        }
        other => return Err(Refusal::bad_parameter("mode", other, "cancel")),
    }
    let view = context.snapshot().await?.view;
    if matches!(view.state, JobState::Finished | JobState::Failed | JobState::Suspended) {
        let state = names::job_state(view.state);
        return Err(Refusal::conflict(format!(
            "Job cancellation failed because the job has already reached another terminal state ({state})."
        )));
    }
    context.request(Request::Cancel).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))))
}
