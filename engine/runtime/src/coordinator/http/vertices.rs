//! One vertex and its subtasks.

use super::Context;
use super::answer::{Answer, Refusal};
use super::names;
use crate::coordinator::status::Snapshot;
use axum::Json;
use axum::extract::{Path, State};
use std::collections::BTreeMap;
use streamjob_api::rest::vertices::{
    Aggregated, BackPressure, IoMetrics, JobVertexDetails, SubtaskBackPressure, SubtaskDetails,
};
use streamjob_protocol::coordinator::TaskView;
use streamjob_protocol::ids::TaskId;

pub(super) async fn details(
    State(context): State<Context>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer<JobVertexDetails> {
    let snapshot = context.job(&job).await?;
    let index = names::find_vertex(&snapshot.plan, &vertex)?;
    let plan = &snapshot.plan.vertices[index as usize];
    let subtasks = snapshot.view.tasks.iter().filter(|task| task.task.vertex == index);
    Ok(Json(JobVertexDetails {
        id: names::vertex_id(&snapshot.plan, index),
        name: plan.name.clone(),
        parallelism: plan.parallelism,
        max_parallelism: snapshot.plan.max_parallelism,
        now: snapshot.now,
        subtasks: subtasks.map(|task| subtask_details(&snapshot, task)).collect(),
        aggregated: Aggregated::default(),
    }))
}

pub(super) async fn subtask(
    State(context): State<Context>,
    Path((job, vertex, subtask)): Path<(String, String, String)>,
) -> Answer<SubtaskDetails> {
    let snapshot = context.job(&job).await?;
    let vertex = names::find_vertex(&snapshot.plan, &vertex)?;
    let index: u32 = subtask.parse().map_err(|_| Refusal::bad_parameter("subtaskindex", &subtask, "a whole number"))?;
    let task = snapshot.view.tasks.iter().find(|task| task.task == TaskId { vertex, subtask: index });
    let task = task.ok_or_else(|| Refusal::not_found(format!("subtask {index} not found")))?;
    Ok(Json(subtask_details(&snapshot, task)))
}

fn subtask_details(snapshot: &Snapshot, task: &TaskView) -> SubtaskDetails {
    let worker = task.worker.and_then(|id| snapshot.workers.iter().find(|worker| worker.id == id));
    let start = snapshot.tasks_started_at();
    let state = names::task_state(task.state);
    let end = if matches!(state, "FINISHED" | "CANCELED" | "FAILED") { snapshot.view.since as i64 } else { -1 };
    let duration = duration(start, end, snapshot.now);
    let mut status_duration: BTreeMap<String, i64> =
        ["CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING", "RUNNING"].map(|state| (state.to_owned(), -1)).into();
    if let Some(of_state) = status_duration.get_mut(state) {
        *of_state = duration;
    }
    SubtaskDetails {
        subtask: task.task.subtask,
        status: state.into(),
        attempt: task.attempt,
        endpoint: worker.map_or_else(|| "(unassigned)".into(), |worker| worker.data_addr.to_string()),
        start_time: start,
        start_time_again: start,
        end_time: end,
        duration,
        metrics: metrics(snapshot, |id| id == task.task),
        worker: task.worker.map_or_else(|| "(unassigned)".into(), |worker| worker.to_string()),
        status_duration,
    }
}

/// Flink's levels of the share of time that a task waits for those behind it.
fn level(ratio: f64) -> &'static str {
    match ratio {
        ..=0.1 => "ok",
        ..=0.5 => "low",
        _ => "high",
    }
}

pub(super) async fn backpressure(
    State(context): State<Context>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer<BackPressure> {
    let snapshot = context.job(&job).await?;
    let vertex = names::find_vertex(&snapshot.plan, &vertex)?;
    let tasks = snapshot.view.tasks.iter().filter(|task| task.task.vertex == vertex);
    let subtasks: Vec<SubtaskBackPressure> = tasks
        .filter_map(|task| {
            let load = snapshot.loads.get(&task.task)?;
            Some(SubtaskBackPressure {
                subtask: task.task.subtask,
                attempt_number: task.attempt,
                level: level(load.backpressured).into(),
                level_again: level(load.backpressured).into(),
                ratio: load.backpressured,
                idle_ratio: load.idle,
                busy_ratio: load.busy,
            })
        })
        .collect();
    let worst = subtasks.iter().map(|subtask| subtask.ratio).fold(0.0, f64::max);
    Ok(Json(BackPressure {
        // Flink's word for not known yet.
        status: if subtasks.is_empty() { "deprecated".into() } else { "ok".into() },
        level: level(worst).into(),
        level_again: level(worst).into(),
        end_timestamp: snapshot.now,
        subtasks,
    }))
}

/// -1 of what has not begun.
pub(super) fn duration(start: i64, end: i64, now: u64) -> i64 {
    match (start, end) {
        (..0, _) => -1,
        (start, ..0) => now as i64 - start,
        (start, end) => end - start,
    }
}

/// Of these tasks together: what their first operators read and their last ones wrote.
pub(super) fn metrics(snapshot: &Snapshot, wanted: impl Fn(TaskId) -> bool) -> IoMetrics {
    let mut sum = IoMetrics::default();
    let (mut reported, mut busy_us) = (0, 0);
    for report in snapshot.reports.iter().filter(|report| wanted(report.task)) {
        reported += 1;
        sum.read_records += report.operators.first().map_or(0, |operator| operator.records_in);
        sum.write_records += report.operators.last().map_or(0, |operator| operator.records_out);
        sum.accumulated_backpressured_time += report.backpressured_us / 1_000;
        sum.accumulated_idle_time += report.idle_us / 1_000;
        busy_us += report.busy_us;
    }
    sum.accumulated_busy_time = busy_us as f64 / 1_000.0;
    let complete = reported > 0 && reported == snapshot.view.tasks.iter().filter(|task| wanted(task.task)).count();
    sum.read_records_complete = complete;
    sum.write_records_complete = complete;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let levels = [0.0, 0.1, 0.11, 0.5, 0.51, 1.0].map(level);
        assert_eq!(levels, ["ok", "ok", "low", "low", "high", "high"]);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(-1, -1, 50), -1);
        assert_eq!(duration(20, -1, 50), 30);
        assert_eq!(duration(20, 25, 50), 5);
    }
}
