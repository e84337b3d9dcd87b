//! Checkpoint statistics and configuration.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// `GET /jobs/:id/checkpoints`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointingStatistics {
    pub counts: Counts,
    pub summary: Summary,
    pub latest: Latest,
    /// In progress and ended ones, newest first.
    pub history: Vec<CheckpointStatistics>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub restored: u64,
    pub total: u64,
    pub in_progress: u64,
    pub completed: u64,
    pub failed: u64,
}

/// Over completed checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Written.
    pub checkpointed_size: StatsSummary,
    /// Referred to.
    pub state_size: StatsSummary,
    pub end_to_end_duration: StatsSummary,
    /// Always zero.
    pub alignment_buffered: StatsSummary,
    /// Always zero: barriers never overtake data.
    pub processed_data: StatsSummary,
    pub persisted_data: StatsSummary,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsSummary {
    pub min: u64,
    pub max: u64,
    pub avg: u64,
    pub p50: Quantile,
    pub p90: Quantile,
    pub p95: Quantile,
    pub p99: Quantile,
    pub p999: Quantile,
}

impl StatsSummary {
    /// Of these figures; quantiles by nearest rank.
    pub fn of(figures: impl IntoIterator<Item = u64>) -> Self {
        let mut sorted: Vec<u64> = figures.into_iter().collect();
        sorted.sort_unstable();
        let quantile = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            Quantile(sorted.get(rank.saturating_sub(1)).map(|figure| *figure as f64))
        };
        StatsSummary {
            min: sorted.first().copied().unwrap_or(0),
            max: sorted.last().copied().unwrap_or(0),
            avg: sorted.iter().sum::<u64>().checked_div(sorted.len() as u64).unwrap_or(0),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p999: quantile(0.999),
        }
    }

    /// Of that many figures that are all zero.
    pub fn zeros(count: u64) -> Self {
        if count == 0 { StatsSummary::default() } else { StatsSummary::of([0]) }
    }
}

/// A number, or the string `NaN` where there are no figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantile(pub Option<f64>);

impl Serialize for Quantile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_f64(number),
            None => serializer.serialize_str("NaN"),
        }
    }
}

impl<'de> Deserialize<'de> for Quantile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if text == "NaN" => Ok(Quantile(None)),
            value => value
                .as_f64()
                .map(|number| Quantile(Some(number)))
                .ok_or_else(|| D::Error::custom(format!("found {value}, expected a number or \"NaN\""))),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    pub completed: Option<CheckpointStatistics>,
    pub savepoint: Option<CheckpointStatistics>,
    pub failed: Option<CheckpointStatistics>,
    pub restored: Option<Restored>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub id: u64,
    pub restore_timestamp: u64,
    pub is_savepoint: bool,
    pub external_path: Option<String>,
}

/// `GET /jobs/:id/checkpoints/details/:checkpoint`, and an entry of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStatistics {
    pub id: u64,
    pub status: CheckpointStatus,
    pub is_savepoint: bool,
    /// `CANONICAL` of a savepoint, null of a checkpoint.
    #[serde(rename = "savepointFormat")]
    pub savepoint_format: Option<String>,
    pub trigger_timestamp: u64,
    /// -1 before the first.
    pub latest_ack_timestamp: i64,
    /// Written for this checkpoint.
    pub checkpointed_size: u64,
    /// All that it refers to.
    pub state_size: u64,
    /// Trigger to the end; so far, while in progress.
    pub end_to_end_duration: u64,
    pub alignment_buffered: u64,
    pub processed_data: u64,
    pub persisted_data: u64,
    pub num_subtasks: u32,
    pub num_acknowledged_subtasks: u32,
    pub checkpoint_type: CheckpointType,
    /// By vertex id.
    pub tasks: BTreeMap<String, TaskStatistics>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What only checkpoints of one status have; `className` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "className", rename_all = "snake_case")]
pub enum Outcome {
    Completed {
        external_path: Option<String>,
        /// The files are gone.
        discarded: bool,
    },
    Failed {
        failure_timestamp: u64,
        failure_message: Option<String>,
    },
    InProgress {},
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointStatus {
    InProgress,
    Completed,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointType {
    Checkpoint,
    UnalignedCheckpoint,
    Savepoint,
    /// Stops the job.
    SyncSavepoint,
}

/// All subtasks of one vertex.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatistics {
    /// Of the checkpoint.
    pub id: u64,
    pub status: CheckpointStatus,
    /// -1 before the first.
    pub latest_ack_timestamp: i64,
    pub checkpointed_size: u64,
    pub state_size: u64,
    pub end_to_end_duration: u64,
    pub alignment_buffered: u64,
    pub processed_data: u64,
    pub persisted_data: u64,
    pub num_subtasks: u32,
    pub num_acknowledged_subtasks: u32,
}

/// `GET /jobs/:id/checkpoints/details/:checkpoint/subtasks/:vertex`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatisticsWithSubtasks {
    #[serde(flatten)]
    pub task: TaskStatistics,
    pub summary: TaskSummary,
    pub subtasks: Vec<SubtaskStatistics>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    pub checkpointed_size: StatsSummary,
    pub state_size: StatsSummary,
    pub end_to_end_duration: StatsSummary,
    pub checkpoint_duration: DurationSummary,
    pub alignment: AlignmentSummary,
    /// Trigger to the first barrier.
    pub start_delay: StatsSummary,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DurationSummary {
    pub sync: StatsSummary,
    #[serde(rename = "async")]
    pub asynchronous: StatsSummary,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlignmentSummary {
    pub buffered: StatsSummary,
    pub processed: StatsSummary,
    pub persisted: StatsSummary,
    /// First to last barrier.
    pub duration: StatsSummary,
}

/// `className` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "className", rename_all = "snake_case")]
pub enum SubtaskStatistics {
    Completed {
        index: u32,
        /// `completed`.
        status: String,
        ack_timestamp: u64,
        end_to_end_duration: u64,
        checkpointed_size: u64,
        state_size: u64,
        checkpoint: SubtaskDuration,
        alignment: SubtaskAlignment,
        start_delay: u64,
        unaligned_checkpoint: bool,
        aborted: bool,
    },
    Pending {
        index: u32,
        /// `pending_or_failed`.
        status: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskDuration {
    pub sync: u64,
    #[serde(rename = "async")]
    pub asynchronous: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskAlignment {
    pub buffered: u64,
    pub processed: u64,
    pub persisted: u64,
    pub duration: u64,
}

/// `GET /jobs/:id/checkpoints/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfigInfo {
    /// `exactly_once` or `at_least_once`.
    pub mode: String,
    /// The largest number if there are no periodic checkpoints.
    pub interval: i64,
    pub timeout: u64,
    pub min_pause: u64,
    pub max_concurrent: u32,
    pub externalization: Externalization,
    pub state_backend: String,
    pub checkpoint_storage: String,
    pub unaligned_checkpoints: bool,
    pub tolerable_failed_checkpoints: i32,
    pub aligned_checkpoint_timeout: u64,
    pub checkpoints_after_tasks_finish: bool,
    pub state_changelog_enabled: bool,
    pub changelog_periodic_materialization_interval: u64,
    pub changelog_storage: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Externalization {
    /// Checkpoints can outlive the job.
    pub enabled: bool,
    pub delete_on_cancellation: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank_and_none_without_figures() {
        let summary = StatsSummary::of(1..=1000);
        assert_eq!((summary.min, summary.max, summary.avg), (1, 1000, 500));
        let quantiles = [summary.p50, summary.p90, summary.p95, summary.p99, summary.p999];
        assert_eq!(quantiles.map(|quantile| quantile.0), [500.0, 900.0, 950.0, 990.0, 999.0].map(Some));
        let none = serde_json::to_value(StatsSummary::of([])).unwrap();
        assert_eq!(none["p999"], "NaN");
        assert_eq!(serde_json::from_value::<StatsSummary>(none).unwrap(), StatsSummary::default());
    }

    #[test]
    fn the_class_of_a_checkpoint_stands_beside_its_fields() {
        let text = serde_json::json!({
            "className": "failed", "id": 3, "status": "FAILED", "is_savepoint": false, "savepointFormat": null,
            "trigger_timestamp": 1, "latest_ack_timestamp": -1, "checkpointed_size": 0, "state_size": 0,
            "end_to_end_duration": 5, "alignment_buffered": 0, "processed_data": 0, "persisted_data": 0,
            "num_subtasks": 2, "num_acknowledged_subtasks": 0, "checkpoint_type": "SYNC_SAVEPOINT", "tasks": {},
            "failure_timestamp": 6, "failure_message": "declined"
        });
        let read: CheckpointStatistics = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(read.outcome, Outcome::Failed { failure_timestamp: 6, failure_message: Some("declined".into()) });
        assert_eq!(serde_json::to_value(read).unwrap(), text);
    }
}
