//! Metrics by name, as Flink's REST gives them, and all of them for Prometheus.

use super::Context;
use super::answer::{Answer, Refusal};
use super::names;
use crate::coordinator::Input;
use crate::coordinator::status::Snapshot;
use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use streamjob_api::rest::jobs::Metric;
use streamjob_protocol::coordinator::JobState;

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// Names, with commas between.
    get: Option<String>,
}

pub(super) async fn prometheus(State(context): State<Context>) -> Result<String, Refusal> {
    context.ask(Input::Metrics).await
}

pub(super) async fn of_job(
    State(context): State<Context>,
    Path(job): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer<Vec<Metric>> {
    let snapshot = context.job(&job).await?;
    let location = names::storage_location(&context.0.config, &context.0.job_id);
    Ok(Json(chosen(job_metrics(&snapshot, &location), wanted.get)))
}

pub(super) async fn of_vertex(
    State(context): State<Context>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer<Vec<Metric>> {
    let snapshot = context.job(&job).await?;
    let vertex = names::find_vertex(&snapshot.plan, &vertex)?;
    Ok(Json(chosen(vertex_metrics(&snapshot, vertex), wanted.get)))
}

pub(super) async fn watermarks(
    State(context): State<Context>,
    Path((job, vertex)): Path<(String, String)>,
) -> Answer<Vec<Metric>> {
    let snapshot = context.job(&job).await?;
    let vertex = names::find_vertex(&snapshot.plan, &vertex)?;
    let only =
        vertex_metrics(&snapshot, vertex).into_iter().filter(|(name, _)| name.ends_with(".currentInputWatermark"));
    Ok(Json(only.map(|(id, value)| Metric { id, value: Some(value) }).collect()))
}

/// Names alone, or the asked-for ones with their values; unknown names are left out.
fn chosen(all: Vec<(String, String)>, wanted: Option<String>) -> Vec<Metric> {
    match wanted {
        None => all.into_iter().map(|(id, _)| Metric { id, value: None }).collect(),
        Some(names) => names
            .split(',')
            .filter_map(|name| all.iter().find(|(id, _)| id == name))
            .map(|(id, value)| Metric { id: id.clone(), value: Some(value.clone()) })
            .collect(),
    }
}

fn job_metrics(snapshot: &Snapshot, location: &str) -> Vec<(String, String)> {
    let Snapshot { view, now, .. } = snapshot;
    let checkpoints = &view.checkpoints;
    let counts = &checkpoints.counts;
    let last = checkpoints.latest_completed.as_ref();
    // Flink's value where there is none yet.
    let of_last = |figure: Option<u64>| figure.map_or_else(|| "-1".to_owned(), |figure| figure.to_string());
    let running = view.state == JobState::Running;
    let for_ms = now.saturating_sub(view.since);
    let mut all: Vec<(String, String)> = [
        ("totalNumberOfCheckpoints", counts.total.to_string()),
        ("numberOfInProgressCheckpoints", counts.in_progress.to_string()),
        ("numberOfCompletedCheckpoints", counts.completed.to_string()),
        ("numberOfFailedCheckpoints", counts.failed.to_string()),
        ("lastCheckpointDuration", of_last(last.map(|last| last.end_to_end_duration))),
        ("lastCheckpointSize", of_last(last.map(|last| last.checkpointed_size))),
        ("lastCheckpointFullSize", of_last(last.map(|last| last.state_size))),
        ("lastCheckpointProcessedData", "0".to_owned()),
        ("lastCheckpointPersistedData", "0".to_owned()),
        (
            "lastCheckpointExternalPath",
            last.map_or_else(|| "n/a".to_owned(), |last| format!("{location}/chk-{}", last.id)),
        ),
        ("lastCompletedCheckpointId", of_last(last.map(|last| last.id))),
        ("lastCheckpointCompletedTimestamp", of_last(last.and_then(|last| last.ended_at))),
        ("lastCheckpointRestoreTimestamp", of_last(checkpoints.latest_restored.as_ref().map(|restored| restored.at))),
        ("uptime", if running { for_ms.to_string() } else { "0".to_owned() }),
        ("downtime", if running { "0".to_owned() } else { for_ms.to_string() }),
        ("numRestarts", view.restarts.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for (name, state) in [
        ("initializing", JobState::Initializing),
        ("created", JobState::Created),
        ("running", JobState::Running),
        ("failing", JobState::Failing),
        ("cancelling", JobState::Cancelling),
        ("restarting", JobState::Restarting),
    ] {
        let time = if view.state == state { for_ms } else { 0 };
        all.push((format!("{name}Time"), time.to_string()));
    }
    all
}

fn vertex_metrics(snapshot: &Snapshot, vertex: u32) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for report in snapshot.reports.iter().filter(|report| report.task.vertex == vertex) {
        let subtask = report.task.subtask;
        let mut add = |name: &str, value: String| all.push((format!("{subtask}.{name}"), value));
        add("numRecordsIn", report.operators.first().map_or(0, |head| head.records_in).to_string());
        add("numRecordsOut", report.operators.last().map_or(0, |tail| tail.records_out).to_string());
        add("accumulateBusyTimeMs", (report.busy_us / 1_000).to_string());
        add("accumulateIdleTimeMs", (report.idle_us / 1_000).to_string());
        add("accumulateBackPressuredTimeMs", (report.backpressured_us / 1_000).to_string());
        if let Some(load) = snapshot.loads.get(&report.task) {
            let per_second = |share: f64| (share * 1_000.0).round().to_string();
            add("busyTimeMsPerSecond", per_second(load.busy));
            add("idleTimeMsPerSecond", per_second(load.idle));
            add("backPressuredTimeMsPerSecond", per_second(load.backpressured));
        }
        if let Some(watermark) = report.operators.first().and_then(|head| head.watermark) {
            add("currentInputWatermark", watermark.to_string());
        }
        for operator in &report.operators {
            add(&format!("{}.numRecordsIn", operator.name), operator.records_in.to_string());
            add(&format!("{}.numRecordsOut", operator.name), operator.records_out.to_string());
            add(&format!("{}.numLateRecordsDropped", operator.name), operator.late_records_dropped.to_string());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone_or_values_that_were_asked_for() {
        let all = || vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        let names = chosen(all(), None);
        assert!(names.iter().all(|metric| metric.value.is_none()) && names.len() == 2);
        let get = chosen(all(), Some("b,c".into()));
        assert_eq!(get, [Metric { id: "b".into(), value: Some("2".into()) }]);
    }
}
