//! What people and the local supervisor see of a job: one JSON document, and log lines.

use super::CoordinatorOptions;
use super::http::{job_state, storage_location};
use super::process::{RestorePoint, Running, StandbyStatus};
use super::workers::Workers;
use crate::task::unix_ms;
use crate::wire::TaskReport;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use streamjob_protocol::coordinator::{
    Coordinator, CoordinatorView, ExitReason, JobState, Outcome, Report, RestoreView, SavepointView,
};
use streamjob_protocol::ids::{TaskId, WorkerId};
use streamjob_protocol::plan::JobPlan;

/// The state of a job that this coordinator has not taken over yet.
pub(super) const STANDBY: &str = "STANDBY";

/// Answer of `GET /v1/status`. Times are Unix milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobStatus {
    /// Grows with each change of anything but counters and watermarks, also from one process of the job to the next.
    pub version: u64,
    /// Random; another process has another one.
    pub incarnation: u64,
    pub job_id: String,
    pub name: String,
    pub revision: u64,
    /// As in Flink, and STANDBY.
    pub state: String,
    /// Why the job is not running, or why it last restarted.
    pub reason: Option<String>,
    /// Only on standby.
    pub standby: Option<StandbyStatus>,
    /// Of the plan that runs.
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// Of all that the job's parts promise, the least.
    pub guarantee: String,
    pub restarts: u32,
    /// Since when all tasks run; nothing while one does not.
    pub running_since: Option<u64>,
    /// What the job would go back to now; on standby, what it would go on from.
    pub restore_point: Option<RestorePoint>,
    /// What this process last restored the job from: a directory.
    pub restored_from_path: Option<String>,
    /// From the deployment of all tasks until all of them ran.
    pub restore_duration_ms: Option<u64>,
    /// Options as they are now.
    pub checkpoint_config: CheckpointConfig,
    pub restart_strategy: RestartStrategy,
    pub checkpoints: CheckpointStatus,
    /// The newest savepoint that is complete.
    pub latest_savepoint: Option<SavepointStatus>,
    /// In topological order, all subtasks together.
    pub operators: Vec<OperatorStatus>,
    pub workers: Vec<WorkerStatus>,
}

/// What is absent was told to an earlier process only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavepointStatus {
    pub trigger: String,
    pub checkpoint: u64,
    /// Its directory.
    pub path: String,
    /// The job ended with it.
    pub stopped: bool,
    pub triggered_at: u64,
    pub completed_at: Option<u64>,
    pub duration_ms: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CheckpointStatus {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub last_id: Option<u64>,
    /// Its directory.
    pub last_path: Option<String>,
    pub last_duration_ms: Option<u64>,
    pub last_bytes_new: Option<u64>,
    pub last_bytes_total: Option<u64>,
    /// Unix milliseconds.
    pub last_completed_at: Option<u64>,
    pub last_failure: Option<String>,
    pub last_failed_at: Option<u64>,
    /// The checkpoint this coordinator last restored from.
    pub restored_from: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorStatus {
    pub uid: String,
    pub name: String,
    pub parallelism: u32,
    pub records_in: u64,
    pub records_out: u64,
    pub records_skipped: u64,
    pub late_records_dropped: u64,
    /// Unix milliseconds; the slowest subtask.
    pub watermark: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub id: String,
    pub pid: u32,
    pub slots: u32,
    pub data_addr: SocketAddr,
    pub metrics_addr: Option<SocketAddr>,
}

/// All that REST answers are made of, at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub view: CoordinatorView,
    /// Of the vertices that `view` speaks of.
    pub plan: JobPlan,
    pub reports: Vec<TaskReport>,
    /// Of tasks that reported at least twice.
    pub loads: HashMap<TaskId, Load>,
    pub workers: Vec<WorkerInfo>,
    pub timeline: Timeline,
    /// Unix milliseconds.
    pub now: u64,
}

#[derive(Clone)]
pub(crate) struct WorkerInfo {
    pub id: WorkerId,
    pub data_addr: SocketAddr,
    pub metrics_addr: Option<SocketAddr>,
    pub slots: u32,
    /// Unix milliseconds of its last message.
    pub heard_at: u64,
}

/// How a task spent its time between its two latest reports: shares that add up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub busy: f64,
    pub idle: f64,
    pub backpressured: f64,
}

impl Load {
    /// Nothing if no time passed, or if the task started anew in between.
    pub fn between(earlier: &TaskReport, later: &TaskReport) -> Option<Load> {
        let busy = later.busy_us.checked_sub(earlier.busy_us)? as f64;
        let idle = later.idle_us.checked_sub(earlier.idle_us)? as f64;
        let backpressured = later.backpressured_us.checked_sub(earlier.backpressured_us)? as f64;
        let all = busy + idle + backpressured;
        (all > 0.0).then(|| Load { busy: busy / all, idle: idle / all, backpressured: backpressured / all })
    }
}

/// When the job was last in which state.
#[derive(Clone, Default)]
pub(crate) struct Timeline(Vec<(JobState, u64)>);

impl Timeline {
    pub fn on_report(&mut self, report: &Report, unix_ms: u64) {
        if let Report::JobState { state, .. } = report {
            self.0.retain(|(known, _)| known != state);
            self.0.push((*state, unix_ms));
        }
    }

    pub fn states(&self) -> impl Iterator<Item = (JobState, u64)> + '_ {
        self.0.iter().copied()
    }
}

impl Snapshot {
    /// When all tasks last ran, -1 before; single tasks are not timed.
    pub fn tasks_started_at(&self) -> i64 {
        self.timeline.states().find(|(state, _)| *state == JobState::Running).map_or(-1, |(_, at)| at as i64)
    }
}

pub(super) fn snapshot(machine: &Coordinator, workers: &Workers, timeline: &Timeline) -> Snapshot {
    Snapshot {
        view: machine.view().clone(),
        plan: machine.plan().clone(),
        reports: workers.reports(),
        loads: workers.loads(),
        workers: workers.infos(),
        timeline: timeline.clone(),
        now: unix_ms() as u64,
    }
}

/// The directory of a checkpoint in the job's own storage.
pub(super) fn checkpoint_path(options: &CoordinatorOptions, checkpoint: u64) -> String {
    format!("{}/chk-{checkpoint}", storage_location(&options.config, &options.job_id))
}

/// What [`job_status`] is made of.
pub(super) struct Shown<'a> {
    pub options: &'a CoordinatorOptions,
    pub machine: &'a Coordinator,
    pub workers: &'a Workers,
    pub version: u64,
    pub incarnation: u64,
    pub standby: Option<StandbyStatus>,
    /// Why nothing can be said about the state yet.
    pub unavailable: Option<&'a str>,
    pub running: Running,
    pub max_parallelism: u32,
    pub restore_point: Option<RestorePoint>,
}

pub(super) fn job_status(shown: &Shown<'_>) -> JobStatus {
    let Shown { options, machine, workers, .. } = shown;
    let view = machine.view();
    let parallelism: BTreeMap<&str, u32> = machine
        .plan()
        .vertices
        .iter()
        .flat_map(|vertex| vertex.operators.iter().map(|operator| (operator.uid.as_str(), vertex.parallelism)))
        .collect();
    let mut sums: BTreeMap<String, OperatorStatus> = BTreeMap::new();
    for report in workers.reports() {
        for operator in report.operators {
            let sum = sums.entry(operator.uid.clone()).or_insert_with(|| OperatorStatus {
                uid: operator.uid.clone(),
                name: operator.name.clone(),
                parallelism: 0,
                records_in: 0,
                records_out: 0,
                records_skipped: 0,
                late_records_dropped: 0,
                watermark: None,
            });
            sum.records_in += operator.records_in;
            sum.records_out += operator.records_out;
            sum.records_skipped += operator.records_skipped;
            sum.late_records_dropped += operator.late_records_dropped;
            sum.watermark = match (sum.watermark, operator.watermark) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }
    let operators = options
        .graph
        .graph
        .nodes
        .iter()
        .map(|node| {
            let mut status = sums.remove(&node.uid).unwrap_or_else(|| OperatorStatus {
                uid: node.uid.clone(),
                name: node.name.clone(),
                parallelism: 0,
                records_in: 0,
                records_out: 0,
                records_skipped: 0,
                late_records_dropped: 0,
                watermark: None,
            });
            status.parallelism = parallelism.get(node.uid.as_str()).copied().unwrap_or(node.parallelism);
            status
        })
        .collect();
    let last = view.checkpoints.latest_completed.as_ref();
    let restored = view.checkpoints.latest_restored.as_ref();
    let restored_path = |restored: &RestoreView| {
        restored.location.clone().unwrap_or_else(|| checkpoint_path(options, restored.checkpoint))
    };
    let state = if shown.standby.is_some() { STANDBY } else { job_state(view.state) };
    JobStatus {
        version: shown.version,
        incarnation: shown.incarnation,
        job_id: options.job_id.clone(),
        name: options.config.name.clone(),
        revision: options.revision,
        state: state.to_owned(),
        reason: shown.unavailable.map(str::to_owned).or_else(|| view.reason.clone()),
        standby: shown.standby.clone(),
        parallelism: view.parallelism,
        max_parallelism: shown.max_parallelism,
        guarantee: options.guarantee.to_owned(),
        restarts: view.restarts,
        running_since: shown.running.since,
        restore_point: shown.restore_point.clone(),
        restored_from_path: restored.map(restored_path),
        restore_duration_ms: shown.running.restore_duration_ms,
        checkpoint_config: view.checkpoint_config.clone(),
        restart_strategy: view.restart_strategy.clone(),
        latest_savepoint: latest_savepoint(view),
        checkpoints: CheckpointStatus {
            completed: view.checkpoints.counts.completed,
            failed: view.checkpoints.counts.failed,
            in_progress: view.checkpoints.counts.in_progress,
            last_id: last.map(|checkpoint| checkpoint.id),
            last_path: last.map(|checkpoint| checkpoint_path(options, checkpoint.id)),
            last_duration_ms: last.map(|checkpoint| checkpoint.end_to_end_duration),
            last_bytes_new: last.map(|checkpoint| checkpoint.checkpointed_size),
            last_bytes_total: last.map(|checkpoint| checkpoint.state_size),
            last_completed_at: last.and_then(|checkpoint| checkpoint.ended_at),
            last_failure: view.checkpoints.latest_failed.as_ref().and_then(|failed| failed.failure.clone()),
            last_failed_at: view.checkpoints.latest_failed.as_ref().and_then(|failed| failed.ended_at),
            restored_from: restored.map(|restored| restored.checkpoint),
        },
        operators,
        workers: workers
            .list()
            .map(|(id, data_addr, metrics_addr, pid, slots)| WorkerStatus {
                id: id.to_string(),
                pid,
                slots,
                data_addr,
                metrics_addr,
            })
            .collect(),
    }
}

fn latest_savepoint(view: &CoordinatorView) -> Option<SavepointStatus> {
    view.savepoints.iter().rev().find_map(|savepoint| complete_savepoint(view, savepoint))
}

/// Nothing of one that is not complete.
pub(super) fn complete_savepoint(view: &CoordinatorView, savepoint: &SavepointView) -> Option<SavepointStatus> {
    let (Outcome::Completed(path), Some(checkpoint)) = (&savepoint.outcome, savepoint.checkpoint) else {
        return None;
    };
    let mut statistics = view.checkpoints.latest_savepoint.iter().chain(&view.checkpoints.history);
    let figures = statistics.find(|taken| taken.id == checkpoint);
    Some(SavepointStatus {
        trigger: savepoint.trigger.clone(),
        checkpoint,
        path: path.clone(),
        stopped: savepoint.then.stops(),
        triggered_at: savepoint.at,
        completed_at: figures.and_then(|figures| figures.ended_at),
        duration_ms: figures.map(|figures| figures.end_to_end_duration),
        bytes: figures.map(|figures| figures.state_size),
    })
}

pub(super) fn exit_text(reason: &ExitReason) -> String {
    match reason {
        ExitReason::Ended { state, reason } => match reason {
            Some(reason) => format!("the job ended as {state:?}: {reason}"),
            None => format!("the job ended as {state:?}"),
        },
        ExitReason::Suspended { checkpoint: Some(checkpoint) } => {
            format!("the job is suspended at checkpoint {checkpoint}")
        }
        ExitReason::Suspended { checkpoint: None } => "the job is suspended without a checkpoint".into(),
        ExitReason::Fenced { by } => format!("another coordinator took the job over: {by}"),
        ExitReason::Unrecoverable { reason } | ExitReason::Incompatible { reason } => reason.clone(),
    }
}

/// One line an event.
pub(super) fn log(report: &Report) {
    match report {
        Report::JobState { state, reason } => tracing::info!(?state, reason, "job state"),
        Report::CheckpointTriggered { checkpoint } => tracing::debug!(checkpoint, "checkpoint triggered"),
        Report::CheckpointCompleted { checkpoint, duration_ms, bytes_new, bytes_total } => {
            tracing::info!(checkpoint, duration_ms, bytes_new, bytes_total, "checkpoint completed");
        }
        Report::CheckpointStalled { checkpoint, reason } => tracing::warn!(checkpoint, reason, "checkpoint stalled"),
        Report::SavepointCompleted { trigger, checkpoint, location, then, duration_ms, bytes } => {
            tracing::info!(trigger, checkpoint, location, ?then, duration_ms, bytes, "savepoint completed");
        }
        Report::SavepointFailed { trigger, reason } => tracing::warn!(trigger, reason, "savepoint failed"),
        Report::SavepointLeftBehind { location, reason } => {
            tracing::warn!(location, reason, "files of a failed savepoint were not deleted");
        }
        Report::Rescaled { parallelism } => tracing::info!(parallelism, "rescaled"),
        Report::RescaleFailed { parallelism, reason } => tracing::warn!(parallelism, reason, "not rescaled"),
        Report::Reconfigured => tracing::info!("options of the running job changed"),
        Report::CheckpointFailed { checkpoint, reason, counted } => {
            tracing::warn!(checkpoint, reason, counted, "checkpoint failed");
        }
        Report::CheckpointSkipped { checkpoint, reason } => {
            tracing::error!(checkpoint, reason, "checkpoint unusable, an older one is used");
        }
        Report::Restored { checkpoint } => tracing::info!(checkpoint, "restored"),
        Report::RegionsRestored { checkpoint, tasks } => tracing::info!(checkpoint, tasks, "tasks restored"),
        Report::WaitingForSlots { missing } => tracing::info!(missing, "waiting for workers with free slots"),
        Report::CleanupFailed { checkpoint, reason } => {
            tracing::warn!(checkpoint, reason, "files of a discarded checkpoint stay until the next start sweeps them");
        }
        Report::Restarting { failure, delay_ms, tasks, restarts } => {
            tracing::warn!(failure, delay_ms, tasks, restarts, "restarting tasks");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_time_between_two_reports() {
        let report = |busy_us, idle_us, backpressured_us| TaskReport {
            task: TaskId { vertex: 0, subtask: 0 },
            operators: Vec::new(),
            busy_us,
            idle_us,
            backpressured_us,
        };
        let load = Load::between(&report(100, 50, 0), &report(150, 75, 25));
        assert_eq!(load, Some(Load { busy: 0.5, idle: 0.25, backpressured: 0.25 }));
        assert_eq!(Load::between(&report(1, 1, 1), &report(1, 1, 1)), None);
        assert_eq!(Load::between(&report(10, 0, 0), &report(5, 0, 0)), None);
    }
}
