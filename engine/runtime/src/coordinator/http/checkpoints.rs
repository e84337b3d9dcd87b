//! Checkpoint statistics, and checkpoints on request.

use super::Context;
use super::answer::{Answer, Body, Refusal, trigger_id, trigger_of_path, unknown_trigger};
use super::names;
use crate::coordinator::status::Snapshot;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use streamjob_api::config::{CheckpointMode, JobConfig, Retention};
use streamjob_api::rest::SerializedThrowable;
use streamjob_api::rest::checkpoints::{
    AlignmentSummary, CheckpointConfigInfo, CheckpointStatistics, CheckpointStatus, CheckpointType,
    CheckpointingStatistics, Counts, DurationSummary, Externalization, Latest, Outcome, Quantile, Restored,
    StatsSummary, SubtaskAlignment, SubtaskDuration, SubtaskStatistics, Summary, TaskStatistics,
    TaskStatisticsWithSubtasks, TaskSummary,
};
use streamjob_api::rest::operations::{
    CheckpointKind, CheckpointRequest, CheckpointResult, Operation, TriggerResponse,
};
use streamjob_protocol::coordinator::{self as protocol, CheckpointView, Request, TaskCheckpointView};
use streamjob_protocol::plan::JobPlan;

const FAILED: &str = "org.apache.flink.runtime.checkpoint.CheckpointException";

/// What of a job it takes to describe its checkpoints.
struct Describer<'a> {
    plan: &'a JobPlan,
    /// The directory of the job's checkpoints.
    location: String,
}

impl<'a> Describer<'a> {
    fn new(context: &Context, snapshot: &'a Snapshot) -> Self {
        let location = names::storage_location(&context.0.config, &context.0.job_id);
        Describer { plan: &snapshot.plan, location }
    }

    fn checkpoint(&self, checkpoint: &CheckpointView) -> CheckpointStatistics {
        let tasks = (0..self.plan.vertices.len() as u32)
            .map(|vertex| (names::vertex_id(self.plan, vertex), self.task(checkpoint, vertex)))
            .collect::<BTreeMap<_, _>>();
        CheckpointStatistics {
            id: checkpoint.id,
            status: status(checkpoint.status),
            is_savepoint: checkpoint.savepoint.is_some(),
            savepoint_format: checkpoint.savepoint.as_ref().map(|_| "CANONICAL".to_owned()),
            trigger_timestamp: checkpoint.triggered_at,
            latest_ack_timestamp: checkpoint.latest_ack_at.map_or(-1, |at| at as i64),
            checkpointed_size: checkpoint.checkpointed_size,
            state_size: checkpoint.state_size,
            end_to_end_duration: checkpoint.end_to_end_duration,
            alignment_buffered: 0,
            processed_data: 0,
            persisted_data: 0,
            num_subtasks: checkpoint.subtasks,
            num_acknowledged_subtasks: checkpoint.acknowledged,
            checkpoint_type: match (&checkpoint.savepoint, checkpoint.last) {
                (Some(_), true) => CheckpointType::SyncSavepoint,
                (Some(_), false) => CheckpointType::Savepoint,
                (None, _) => CheckpointType::Checkpoint,
            },
            tasks,
            outcome: self.outcome(checkpoint),
        }
    }

    fn outcome(&self, checkpoint: &CheckpointView) -> Outcome {
        match checkpoint.status {
            protocol::CheckpointStatus::InProgress => Outcome::InProgress {},
            protocol::CheckpointStatus::Completed => Outcome::Completed {
                external_path: Some(match &checkpoint.savepoint {
                    Some(directory) => directory.clone(),
                    None => self.path(checkpoint.id),
                }),
                discarded: checkpoint.discarded,
            },
            protocol::CheckpointStatus::Failed => Outcome::Failed {
                failure_timestamp: checkpoint.ended_at.unwrap_or(checkpoint.triggered_at),
                failure_message: checkpoint.failure.clone(),
            },
        }
    }

    fn path(&self, checkpoint: u64) -> String {
        format!("{}/chk-{checkpoint}", self.location)
    }

    fn task(&self, checkpoint: &CheckpointView, vertex: u32) -> TaskStatistics {
        let acknowledged: Vec<&TaskCheckpointView> = of_vertex(checkpoint, vertex).collect();
        let sum = |figure: fn(&TaskCheckpointView) -> u64| acknowledged.iter().map(|task| figure(task)).sum();
        let latest = acknowledged.iter().map(|task| task.acknowledged_at).max();
        let complete = checkpoint.status == protocol::CheckpointStatus::Completed;
        // The vertex may have had another parallelism then.
        let subtasks = match complete {
            true => acknowledged.len() as u32,
            false => self.plan.vertices[vertex as usize].parallelism.max(acknowledged.len() as u32),
        };
        TaskStatistics {
            id: checkpoint.id,
            status: match acknowledged.len() as u32 == subtasks {
                true => CheckpointStatus::Completed,
                false => status(checkpoint.status),
            },
            latest_ack_timestamp: latest.map_or(-1, |at| at as i64),
            checkpointed_size: sum(|task| task.stats.bytes_new),
            state_size: sum(|task| task.stats.bytes_total),
            end_to_end_duration: latest.map_or(0, |at| at.saturating_sub(checkpoint.triggered_at)),
            alignment_buffered: 0,
            processed_data: 0,
            persisted_data: 0,
            num_subtasks: subtasks,
            num_acknowledged_subtasks: acknowledged.len() as u32,
        }
    }
}

fn status(status: protocol::CheckpointStatus) -> CheckpointStatus {
    match status {
        protocol::CheckpointStatus::InProgress => CheckpointStatus::InProgress,
        protocol::CheckpointStatus::Completed => CheckpointStatus::Completed,
        protocol::CheckpointStatus::Failed => CheckpointStatus::Failed,
    }
}

fn of_vertex(checkpoint: &CheckpointView, vertex: u32) -> impl Iterator<Item = &TaskCheckpointView> {
    checkpoint.tasks.values().filter(move |task| task.task.vertex == vertex)
}

fn summary(summary: &protocol::Summary) -> StatsSummary {
    let quantile = |share| Quantile((summary.count > 0).then(|| summary.quantile(share) as f64));
    StatsSummary {
        min: summary.min,
        max: summary.max,
        avg: summary.average(),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p95: quantile(0.95),
        p99: quantile(0.99),
        p999: quantile(0.999),
    }
}

pub(super) async fn statistics(
    State(context): State<Context>,
    Path(job): Path<String>,
) -> Answer<CheckpointingStatistics> {
    let snapshot = context.job(&job).await?;
    let describer = Describer::new(&context, &snapshot);
    let checkpoints = &snapshot.view.checkpoints;
    let completed = checkpoints.end_to_end_duration.count;
    let describe = |checkpoint: &Option<CheckpointView>| checkpoint.as_ref().map(|view| describer.checkpoint(view));
    let restored = checkpoints.latest_restored.as_ref().map(|restored| Restored {
        id: restored.checkpoint,
        restore_timestamp: restored.at,
        is_savepoint: restored.savepoint,
        external_path: Some(restored.location.clone().unwrap_or_else(|| describer.path(restored.checkpoint))),
    });
    Ok(Json(CheckpointingStatistics {
        counts: Counts {
            restored: checkpoints.counts.restored,
            total: checkpoints.counts.total,
            in_progress: checkpoints.counts.in_progress,
            completed: checkpoints.counts.completed,
            failed: checkpoints.counts.failed,
        },
        summary: Summary {
            checkpointed_size: summary(&checkpoints.checkpointed_size),
            state_size: summary(&checkpoints.state_size),
            end_to_end_duration: summary(&checkpoints.end_to_end_duration),
            alignment_buffered: StatsSummary::zeros(completed),
            processed_data: StatsSummary::zeros(completed),
            persisted_data: StatsSummary::zeros(completed),
        },
        latest: Latest {
            completed: describe(&checkpoints.latest_completed),
            savepoint: describe(&checkpoints.latest_savepoint),
            failed: describe(&checkpoints.latest_failed),
            restored,
        },
        history: checkpoints.history.iter().map(|checkpoint| describer.checkpoint(checkpoint)).collect(),
    }))
}

fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a CheckpointView, Refusal> {
    let number: u64 = id.parse().map_err(|_| Refusal::bad_parameter("checkpointid", id, "a whole number"))?;
    let checkpoints = &snapshot.view.checkpoints;
    let latest = [&checkpoints.latest_completed, &checkpoints.latest_savepoint, &checkpoints.latest_failed];
    checkpoints
        .history
        .iter()
        .chain(latest.into_iter().flatten())
        .find(|checkpoint| checkpoint.id == number)
        .ok_or_else(|| Refusal::not_found(format!("Could not find checkpointing statistics for checkpoint {number}.")))
}

pub(super) async fn details(
    State(context): State<Context>,
    Path((job, checkpoint)): Path<(String, String)>,
) -> Answer<CheckpointStatistics> {
    let snapshot = context.job(&job).await?;
    let view = find(&snapshot, &checkpoint)?;
    Ok(Json(Describer::new(&context, &snapshot).checkpoint(view)))
}

pub(super) async fn subtasks(
    State(context): State<Context>,
    Path((job, checkpoint, vertex)): Path<(String, String, String)>,
) -> Answer<TaskStatisticsWithSubtasks> {
    let snapshot = context.job(&job).await?;
    let view = find(&snapshot, &checkpoint)?;
    let vertex = names::find_vertex(&snapshot.plan, &vertex)?;
    let task = Describer::new(&context, &snapshot).task(view, vertex);
    let mut acknowledged: Vec<&TaskCheckpointView> = of_vertex(view, vertex).collect();
    acknowledged.sort_by_key(|task| task.task.subtask);
    let of = |figure: fn(&TaskCheckpointView) -> u64| StatsSummary::of(acknowledged.iter().map(|task| figure(task)));
    let zeros = || StatsSummary::zeros(acknowledged.len() as u64);
    let duration = |task: &TaskCheckpointView| task.acknowledged_at.saturating_sub(view.triggered_at);
    let summary = TaskSummary {
        checkpointed_size: of(|task| task.stats.bytes_new),
        state_size: of(|task| task.stats.bytes_total),
        end_to_end_duration: StatsSummary::of(acknowledged.iter().map(|task| duration(task))),
        checkpoint_duration: DurationSummary {
            sync: of(|task| task.stats.sync_ms),
            asynchronous: of(|task| task.stats.async_ms),
        },
        alignment: AlignmentSummary {
            buffered: zeros(),
            processed: zeros(),
            persisted: zeros(),
            duration: of(|task| task.stats.alignment_ms),
        },
        start_delay: of(|task| task.stats.start_delay_ms),
    };
    let subtasks = (0..task.num_subtasks).map(|index| {
        let Some(found) = acknowledged.iter().find(|task| task.task.subtask == index) else {
            return SubtaskStatistics::Pending { index, status: "pending_or_failed".into() };
        };
        SubtaskStatistics::Completed {
            index,
            status: "completed".into(),
            ack_timestamp: found.acknowledged_at,
            end_to_end_duration: duration(found),
            checkpointed_size: found.stats.bytes_new,
            state_size: found.stats.bytes_total,
            checkpoint: SubtaskDuration { sync: found.stats.sync_ms, asynchronous: found.stats.async_ms },
            alignment: SubtaskAlignment { buffered: 0, processed: 0, persisted: 0, duration: found.stats.alignment_ms },
            start_delay: found.stats.start_delay_ms,
            unaligned_checkpoint: false,
            aborted: view.status == protocol::CheckpointStatus::Failed,
        }
    });
    Ok(Json(TaskStatisticsWithSubtasks { subtasks: subtasks.collect(), summary, task }))
}

pub(super) async fn config(State(context): State<Context>, Path(job): Path<String>) -> Answer<CheckpointConfigInfo> {
    let view = context.job(&job).await?.view;
    let checkpoint = &view.checkpoint_config;
    let config: &JobConfig = &context.0.config;
    Ok(Json(CheckpointConfigInfo {
        mode: match checkpoint.mode {
            CheckpointMode::ExactlyOnce => "exactly_once".into(),
            CheckpointMode::AtLeastOnce => "at_least_once".into(),
        },
        interval: checkpoint.interval_ms.map_or(i64::MAX, |interval| interval as i64),
        timeout: checkpoint.timeout_ms,
        min_pause: checkpoint.min_pause_ms,
        max_concurrent: checkpoint.max_concurrent,
        externalization: Externalization {
            enabled: checkpoint.retention != Retention::None,
            delete_on_cancellation: checkpoint.retention != Retention::RetainOnCancellation,
        },
        state_backend: "HashMap".into(),
        checkpoint_storage: names::storage_location(config, &context.0.job_id),
        unaligned_checkpoints: false,
        tolerable_failed_checkpoints: i32::try_from(checkpoint.tolerable_failures).unwrap_or(i32::MAX),
        aligned_checkpoint_timeout: 0,
        checkpoints_after_tasks_finish: true,
        state_changelog_enabled: false,
        changelog_periodic_materialization_interval: 0,
        changelog_storage: "none".into(),
    }))
}

pub(super) async fn trigger(
    State(context): State<Context>,
    Path(job): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    context.check_job(&job)?;
    let request: CheckpointRequest = body.json("CheckpointTriggerRequestBody")?;
    let full = request.checkpoint_type == Some(CheckpointKind::Full);
    let trigger = trigger_id(request.trigger_id)?;
    start(&context, trigger, full).await
}

pub(super) async fn start(
    context: &Context,
    trigger: String,
    full: bool,
) -> Result<(StatusCode, Json<TriggerResponse>), Refusal> {
    let view = context.snapshot().await?.view;
    if !view.triggered.iter().any(|known| known.trigger == trigger) {
        super::savepoints::check_running(&view)?;
        context.request(Request::TriggerCheckpoint { trigger: trigger.clone(), full }).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(TriggerResponse { request_id: trigger })))
}

pub(super) async fn poll(
    State(context): State<Context>,
    Path((job, trigger)): Path<(String, String)>,
) -> Answer<Operation<CheckpointResult>> {
    let trigger = trigger_of_path(&trigger)?;
    let view = context.job(&job).await?.view;
    let found = view.triggered.iter().find(|known| known.trigger == trigger);
    Ok(Json(match &found.ok_or_else(|| unknown_trigger(&trigger))?.outcome {
        protocol::Outcome::InProgress => Operation::in_progress(),
        protocol::Outcome::Completed(checkpoint) => {
            Operation::ended(CheckpointResult { checkpoint_id: Some(*checkpoint), failure_cause: None })
        }
        protocol::Outcome::Failed(reason) => Operation::ended(CheckpointResult {
            checkpoint_id: None,
            failure_cause: Some(SerializedThrowable::new(FAILED, reason)),
        }),
    }))
}
