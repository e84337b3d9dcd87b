//! Prometheus metrics of coordinator and workers, from one table that the documentation is generated from.
//!
//! Values are collected at scrape time from counters that the tasks keep anyway; nothing here is on the data path.

use crate::task::TaskMetrics;
use crate::wire::{OperatorReport, TaskReport};
use prometheus::core::Collector;
use prometheus::{CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, Opts, Registry, TextEncoder};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use streamjob_protocol::coordinator::{CoordinatorView, JobState, Report, TaskState};

/// Which process exports a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Coordinator,
    Worker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One exported metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricDoc {
    pub name: &'static str,
    pub role: Role,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// The name of the same figure in Flink.
    pub flink: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $role:ident, $kind:ident, [$($label:literal),*], $flink:literal, $help:literal;)*) => {
        $(const $constant: MetricDoc = MetricDoc {
            name: $name, role: Role::$role, kind: Kind::$kind, labels: &["job", $($label),*], help: $help, flink: $flink,
        };)*
        /// Every metric there is.
        pub const ALL: &[MetricDoc] = &[$($constant),*];
    };
}

metrics! {
    JOB_STATE = "streamjob_job_state", Coordinator, Gauge, ["state"], "<state>State", "1 for the state the job is in.";
    UPTIME = "streamjob_job_uptime_seconds", Coordinator, Gauge, [], "uptime", "Time since all tasks last began to run; 0 while they do not.";
    RESTARTS = "streamjob_job_restarts_total", Coordinator, Counter, [], "numRestarts", "Restarts by the restart strategy since this coordinator started.";
    WORKERS = "streamjob_job_workers", Coordinator, Gauge, [], "numRegisteredTaskManagers", "Registered workers.";
    SLOTS = "streamjob_job_slots", Coordinator, Gauge, [], "taskSlotsTotal", "Slots of the registered workers.";
    TASKS_RUNNING = "streamjob_job_tasks_running", Coordinator, Gauge, [], "", "Tasks in state RUNNING.";
    CHECKPOINTS = "streamjob_checkpoints_total", Coordinator, Counter, ["outcome"], "totalNumberOfCheckpoints, numberOfCompletedCheckpoints, numberOfFailedCheckpoints", "Checkpoints by outcome: triggered, completed, failed.";
    IN_PROGRESS = "streamjob_checkpoints_in_progress", Coordinator, Gauge, [], "numberOfInProgressCheckpoints", "Checkpoints that are triggered and not yet ended.";
    LAST_DURATION = "streamjob_checkpoint_last_duration_seconds", Coordinator, Gauge, [], "lastCheckpointDuration", "Trigger to journal entry of the newest completed checkpoint.";
    LAST_SIZE = "streamjob_checkpoint_last_size_bytes", Coordinator, Gauge, [], "lastCheckpointSize", "Bytes written for the newest completed checkpoint.";
    LAST_FULL_SIZE = "streamjob_checkpoint_last_full_size_bytes", Coordinator, Gauge, [], "lastCheckpointFullSize", "Bytes that the newest completed checkpoint refers to.";
    LAST_ID = "streamjob_checkpoint_last_completed_id", Coordinator, Gauge, [], "lastCompletedCheckpointId", "Number of the newest completed checkpoint.";
    LAST_COMPLETED = "streamjob_checkpoint_last_completed_timestamp_seconds", Coordinator, Gauge, [], "lastCheckpointCompletedTimestamp", "Unix time at which the newest checkpoint completed.";
    LAST_RESTORE = "streamjob_checkpoint_last_restore_timestamp_seconds", Coordinator, Gauge, [], "lastCheckpointRestoreTimestamp", "Unix time of the newest restore from a checkpoint.";
    DURATION = "streamjob_checkpoint_duration_seconds", Coordinator, Histogram, [], "", "Durations of completed checkpoints.";
    RECORDS_IN = "streamjob_operator_records_in_total", Worker, Counter, ["operator", "subtask"], "numRecordsIn", "Rows an operator took in.";
    RECORDS_OUT = "streamjob_operator_records_out_total", Worker, Counter, ["operator", "subtask"], "numRecordsOut", "Rows an operator gave out.";
    RECORDS_SKIPPED = "streamjob_operator_records_skipped_total", Worker, Counter, ["operator", "subtask"], "numRecordsInErrors", "Rows that could not be parsed and were skipped, as the format's options say.";
    LATE_DROPPED = "streamjob_operator_late_records_dropped_total", Worker, Counter, ["operator", "subtask"], "numLateRecordsDropped", "Rows behind the watermark that a window dropped.";
    STATE_ROWS = "streamjob_operator_state_rows", Worker, Gauge, ["operator", "subtask"], "", "Keys that the operator's tables hold.";
    WATERMARK = "streamjob_operator_output_watermark_seconds", Worker, Gauge, ["operator", "subtask"], "currentOutputWatermark", "Event time the operator has announced, as Unix time; absent before the first watermark and after the last.";
    BUSY = "streamjob_task_busy_seconds_total", Worker, Counter, ["task", "subtask"], "accumulateBusyTimeMs", "Time the task's thread worked.";
    IDLE = "streamjob_task_idle_seconds_total", Worker, Counter, ["task", "subtask"], "accumulateIdleTimeMs", "Time the task's thread waited for input.";
    BACKPRESSURED = "streamjob_task_backpressured_seconds_total", Worker, Counter, ["task", "subtask"], "accumulateBackPressuredTimeMs", "Time the task's thread waited for its consumers.";
    START_DELAY = "streamjob_task_checkpoint_start_delay_seconds", Worker, Gauge, ["task", "subtask"], "checkpointStartDelayNanos", "Trigger to first barrier, of the task's newest checkpoint.";
    ALIGNMENT = "streamjob_task_checkpoint_alignment_seconds", Worker, Gauge, ["task", "subtask"], "checkpointAlignmentTime", "First to last barrier, of the task's newest checkpoint.";
}

/// Collects values for one scrape.
struct Scrape {
    registry: Registry,
}

impl Scrape {
    fn new() -> Scrape {
        Scrape { registry: Registry::new() }
    }

    /// Label values in the order of the metric's documentation.
    fn add(&self, metric: &MetricDoc, values: impl IntoIterator<Item = (Vec<String>, f64)>) {
        let opts = Opts::new(metric.name, metric.help);
        let collector: Option<Box<dyn Collector>> = match metric.kind {
            Kind::Counter => CounterVec::new(opts, metric.labels).ok().map(|vector| {
                for (labels, value) in values {
                    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                    if let Ok(counter) = vector.get_metric_with_label_values(&labels) {
                        counter.inc_by(value.max(0.0));
                    }
                }
                Box::new(vector) as Box<dyn Collector>
            }),
            Kind::Gauge => GaugeVec::new(opts, metric.labels).ok().map(|vector| {
                for (labels, value) in values {
                    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                    if let Ok(gauge) = vector.get_metric_with_label_values(&labels) {
                        gauge.set(value);
                    }
                }
                Box::new(vector) as Box<dyn Collector>
            }),
            Kind::Histogram => None,
        };
        if let Some(collector) = collector
            && let Err(error) = self.registry.register(collector)
        {
            tracing::warn!(metric = metric.name, %error, "metric not exported");
        }
    }

    fn text(&self) -> String {
        let mut buffer = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            Ok(()) => String::from_utf8(buffer).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// What cannot be computed from the state machine's view at scrape time.
pub struct CoordinatorMetrics {
    job: String,
    durations: Option<Histogram>,
}

impl CoordinatorMetrics {
    pub fn new(job: &str) -> CoordinatorMetrics {
        let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
        let opts = HistogramOpts::new(DURATION.name, DURATION.help).const_label("job", job).buckets(buckets);
        CoordinatorMetrics { job: job.to_owned(), durations: Histogram::with_opts(opts).ok() }
    }

    pub fn on_report(&self, report: &Report) {
        if let (Report::CheckpointCompleted { duration_ms, .. }, Some(durations)) = (report, &self.durations) {
            durations.observe(*duration_ms as f64 / 1000.0);
        }
    }

    /// `workers` and `slots` are those registered now.
    pub fn render(&self, view: &CoordinatorView, workers: u32, slots: u32, now_unix_ms: u64) -> String {
        let scrape = Scrape::new();
        let job = || vec![self.job.clone()];
        let one = |value: f64| [(job(), value)];
        let with = |label: &str| vec![self.job.clone(), label.to_owned()];
        scrape.add(
            &JOB_STATE,
            ALL_STATES
                .iter()
                .map(|state| (with(&format!("{state:?}").to_uppercase()), f64::from(u8::from(view.state == *state)))),
        );
        let uptime = if view.state == JobState::Running { now_unix_ms.saturating_sub(view.since) } else { 0 };
        scrape.add(&UPTIME, one(uptime as f64 / 1000.0));
        scrape.add(&RESTARTS, one(f64::from(view.restarts)));
        scrape.add(&WORKERS, one(f64::from(workers)));
        scrape.add(&SLOTS, one(f64::from(slots)));
        scrape
            .add(&TASKS_RUNNING, one(view.tasks.iter().filter(|task| task.state == TaskState::Running).count() as f64));
        let counts = &view.checkpoints.counts;
        scrape.add(
            &CHECKPOINTS,
            [
                (with("triggered"), counts.total as f64),
                (with("completed"), counts.completed as f64),
                (with("failed"), counts.failed as f64),
            ],
        );
        scrape.add(&IN_PROGRESS, one(counts.in_progress as f64));
        if let Some(last) = &view.checkpoints.latest_completed {
            scrape.add(&LAST_ID, one(last.id as f64));
            scrape.add(&LAST_DURATION, one(last.end_to_end_duration as f64 / 1000.0));
            scrape.add(&LAST_SIZE, one(last.checkpointed_size as f64));
            scrape.add(&LAST_FULL_SIZE, one(last.state_size as f64));
            scrape.add(&LAST_COMPLETED, one(last.ended_at.unwrap_or(0) as f64 / 1000.0));
        }
        if let Some(restored) = &view.checkpoints.latest_restored {
            scrape.add(&LAST_RESTORE, one(restored.at as f64 / 1000.0));
        }
        if let Some(durations) = &self.durations
            && let Err(error) = scrape.registry.register(Box::new(durations.clone()))
        {
            tracing::warn!(metric = DURATION.name, %error, "metric not exported");
        }
        scrape.text()
    }
}

const ALL_STATES: &[JobState] = &[
    JobState::Initializing,
    JobState::Created,
    JobState::Running,
    JobState::Restarting,
    JobState::Failing,
    JobState::Failed,
    JobState::Cancelling,
    JobState::Canceled,
    JobState::Finished,
    JobState::Suspended,
];

/// Counters of a worker's tasks, as they go to the coordinator.
pub fn task_reports(tasks: &[Arc<TaskMetrics>]) -> Vec<TaskReport> {
    tasks
        .iter()
        .map(|task| TaskReport {
            task: task.task,
            operators: task
                .operators
                .iter()
                .map(|(uid, name, metrics)| OperatorReport {
                    uid: uid.clone(),
                    name: name.clone(),
                    records_in: metrics.records_in.load(Ordering::Relaxed),
                    records_out: metrics.records_out.load(Ordering::Relaxed),
                    records_skipped: metrics.records_skipped.load(Ordering::Relaxed),
                    late_records_dropped: metrics.late_records_dropped.load(Ordering::Relaxed),
                    watermark: known(metrics.watermark.load(Ordering::Relaxed)),
                })
                .collect(),
            busy_us: task.busy_us.load(Ordering::Relaxed),
            idle_us: task.idle_us.load(Ordering::Relaxed),
            backpressured_us: task.backpressured_us.load(Ordering::Relaxed),
        })
        .collect()
}

/// Neither before the first watermark nor after the last.
fn known(watermark: i64) -> Option<i64> {
    (watermark != i64::MIN && watermark != i64::MAX).then_some(watermark)
}

pub fn render_worker(job: &str, tasks: &[Arc<TaskMetrics>]) -> String {
    let scrape = Scrape::new();
    let operators: Vec<_> = tasks
        .iter()
        .flat_map(|task| task.operators.iter().map(move |(uid, _, metrics)| (uid, task.task.subtask, metrics)))
        .collect();
    let labels = |uid: &str, subtask: u32| vec![job.to_owned(), uid.to_owned(), subtask.to_string()];
    let per_operator = |metric: &MetricDoc, value: &dyn Fn(&streamjob_dataflow::OperatorMetrics) -> Option<f64>| {
        scrape.add(
            metric,
            operators
                .iter()
                .filter_map(|(uid, subtask, metrics)| Some((labels(uid, *subtask), value(metrics)?)))
                .collect::<Vec<_>>(),
        );
    };
    per_operator(&RECORDS_IN, &|m| Some(m.records_in.load(Ordering::Relaxed) as f64));
    per_operator(&RECORDS_OUT, &|m| Some(m.records_out.load(Ordering::Relaxed) as f64));
    per_operator(&RECORDS_SKIPPED, &|m| Some(m.records_skipped.load(Ordering::Relaxed) as f64));
    per_operator(&LATE_DROPPED, &|m| Some(m.late_records_dropped.load(Ordering::Relaxed) as f64));
    per_operator(&STATE_ROWS, &|m| Some(m.state_rows.load(Ordering::Relaxed) as f64));
    per_operator(&WATERMARK, &|m| known(m.watermark.load(Ordering::Relaxed)).map(|ms| ms as f64 / 1000.0));
    let per_task = |metric: &MetricDoc, value: &dyn Fn(&TaskMetrics) -> f64| {
        scrape.add(
            metric,
            tasks
                .iter()
                .map(|task| {
                    (vec![job.to_owned(), task.task.vertex.to_string(), task.task.subtask.to_string()], value(task))
                })
                .collect::<Vec<_>>(),
        );
    };
    let seconds = |micros: u64| micros as f64 / 1e6;
    per_task(&BUSY, &|task| seconds(task.busy_us.load(Ordering::Relaxed)));
    per_task(&IDLE, &|task| seconds(task.idle_us.load(Ordering::Relaxed)));
    per_task(&BACKPRESSURED, &|task| seconds(task.backpressured_us.load(Ordering::Relaxed)));
    per_task(&START_DELAY, &|task| task.start_delay_ms.load(Ordering::Relaxed) as f64 / 1000.0);
    per_task(&ALIGNMENT, &|task| task.alignment_ms.load(Ordering::Relaxed) as f64 / 1000.0);
    scrape.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/metrics.md`, whole.
    fn documentation() -> String {
        let mut text = String::from(
            "# Metrics\n\nGenerated by `make docs`. Coordinator and workers each serve `/metrics` in Prometheus' text format.\n\n\
             | name | type | labels | exported by | Flink's name | meaning |\n|---|---|---|---|---|---|\n",
        );
        for metric in ALL {
            text += &format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                metric.name,
                format!("{:?}", metric.kind).to_lowercase(),
                metric.labels.join(", "),
                format!("{:?}", metric.role).to_lowercase(),
                metric.flink,
                metric.help
            );
        }
        text
    }

    #[test]
    fn the_documentation_of_metrics_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let text = documentation();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "run `make docs`");
    }

    #[test]
    fn names_are_prometheus_names_in_base_units() {
        for metric in ALL {
            assert!(metric.name.starts_with("streamjob_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.name.contains("_ms") && !metric.name.contains("_millis"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
