//! The processes: the coordinator as Flink's job manager, workers as its task managers.

use super::Context;
use super::answer::{Answer, Refusal};
use crate::coordinator::status::{Snapshot, WorkerInfo};
use axum::Json;
use axum::extract::{Path, State};
use streamjob_api::rest::cluster::{
    ClusterOverview, DashboardConfiguration, Features, Hardware, MemoryConfiguration, ProcessMetrics, ResourceProfile,
    Slot, TaskManager, TaskManagerDetails, TaskManagers,
};
use streamjob_protocol::coordinator::JobState;

/// The version of Flink whose API this is.
const FLINK: &str = "2.3.0";
const ENGINE: &str = concat!("streamjob-", env!("CARGO_PKG_VERSION"));

pub(super) async fn overview(State(context): State<Context>) -> Answer<ClusterOverview> {
    let snapshot = context.snapshot().await?;
    let is = |states: &[JobState]| u32::from(states.contains(&snapshot.view.state));
    let total: u32 = snapshot.workers.iter().map(|worker| worker.slots).sum();
    let used: u32 = snapshot.view.workers.iter().map(|worker| worker.used).sum();
    let ended = [JobState::Finished, JobState::Suspended, JobState::Canceled, JobState::Failed];
    Ok(Json(ClusterOverview {
        taskmanagers: snapshot.workers.len() as u32,
        slots_total: total,
        slots_available: total.saturating_sub(used),
        jobs_running: 1 - is(&ended),
        jobs_finished: is(&ended[..2]),
        jobs_cancelled: is(&ended[2..3]),
        jobs_failed: is(&ended[3..]),
        flink_version: FLINK.into(),
        flink_commit: ENGINE.into(),
    }))
}

pub(super) async fn dashboard() -> Json<DashboardConfiguration> {
    Json(DashboardConfiguration {
        refresh_interval: 3_000,
        timezone_name: "UTC".into(),
        timezone_offset: 0,
        flink_version: FLINK.into(),
        flink_revision: ENGINE.into(),
        features: Features { web_submit: false, web_cancel: true, web_rescale: true, web_history: false },
    })
}

pub(super) async fn workers(State(context): State<Context>) -> Answer<TaskManagers> {
    let snapshot = context.snapshot().await?;
    let taskmanagers = snapshot.workers.iter().map(|worker| describe(&snapshot, worker)).collect();
    Ok(Json(TaskManagers { taskmanagers }))
}

pub(super) async fn worker(State(context): State<Context>, Path(id): Path<String>) -> Answer<TaskManagerDetails> {
    let snapshot = context.snapshot().await?;
    let worker = snapshot.workers.iter().find(|worker| worker.id.to_string() == id);
    let worker = worker.ok_or_else(|| Refusal::not_found(format!("Could not find TaskExecutor {id}.")))?;
    let described = describe(&snapshot, worker);
    let used = worker.slots.saturating_sub(described.free_slots);
    let slot = Slot {
        job_id: context.0.job_id.clone(),
        resource: ResourceProfile::default(),
        assigned_tasks: described.assigned_tasks,
    };
    Ok(Json(TaskManagerDetails {
        allocated_slots: if used == 0 { Vec::new() } else { vec![slot] },
        worker: described,
        metrics: ProcessMetrics::default(),
    }))
}

fn describe(snapshot: &Snapshot, worker: &WorkerInfo) -> TaskManager {
    let used = snapshot.view.workers.iter().find(|view| view.worker == worker.id).map_or(0, |view| view.used);
    let tasks = snapshot.view.tasks.iter().filter(|task| task.worker == Some(worker.id) && task.state.is_alive());
    TaskManager {
        id: worker.id.to_string(),
        path: worker.metrics_addr.map_or_else(String::new, |address| format!("http://{address}")),
        data_port: worker.data_addr.port(),
        jmx_port: -1,
        time_since_last_heartbeat: worker.heard_at,
        slots_number: worker.slots,
        free_slots: worker.slots.saturating_sub(used),
        assigned_tasks: tasks.count() as u32,
        total_resource: ResourceProfile::default(),
        free_resource: ResourceProfile::default(),
        hardware: Hardware::default(),
        memory_configuration: MemoryConfiguration::default(),
    }
}
