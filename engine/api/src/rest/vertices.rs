//! A vertex and its subtasks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /jobs/:id/vertices/:vertex`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobVertexDetails {
    pub id: String,
    pub name: String,
    pub parallelism: u32,
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: u32,
    pub now: u64,
    pub subtasks: Vec<SubtaskDetails>,
    pub aggregated: Aggregated,
}

/// `GET /jobs/:id/vertices/:vertex/subtasks/:index`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskDetails {
    pub subtask: u32,
    pub status: String,
    pub attempt: u32,
    /// Where the worker takes data connections.
    pub endpoint: String,
    #[serde(rename = "start-time")]
    pub start_time: i64,
    /// The same under the name that older clients use.
    #[serde(rename = "start_time")]
    pub start_time_again: i64,
    #[serde(rename = "end-time")]
    pub end_time: i64,
    pub duration: i64,
    pub metrics: IoMetrics,
    #[serde(rename = "taskmanager-id")]
    pub worker: String,
    #[serde(rename = "status-duration")]
    pub status_duration: BTreeMap<String, i64>,
}

/// Of one subtask or several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IoMetrics {
    /// Not counted.
    pub read_bytes: u64,
    pub read_bytes_complete: bool,
    /// Not counted.
    pub write_bytes: u64,
    pub write_bytes_complete: bool,
    pub read_records: u64,
    pub read_records_complete: bool,
    pub write_records: u64,
    pub write_records_complete: bool,
    pub accumulated_backpressured_time: u64,
    pub accumulated_idle_time: u64,
    pub accumulated_busy_time: f64,
}

/// Minimum, maximum and the like over subtasks; not computed, since every subtask is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Aggregated {
    pub metrics: BTreeMap<String, BTreeMap<String, u64>>,
    pub status_duration: BTreeMap<String, BTreeMap<String, u64>>,
}

/// `GET /jobs/:id/vertices/:vertex/backpressure`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackPressure {
    /// `ok`, or `deprecated` while nothing is known.
    pub status: String,
    /// Of the worst subtask: `ok`, `low` or `high`.
    #[serde(rename = "backpressureLevel")]
    pub level: String,
    /// The same under the name that older clients use.
    #[serde(rename = "backpressure-level")]
    pub level_again: String,
    #[serde(rename = "end-timestamp")]
    pub end_timestamp: u64,
    pub subtasks: Vec<SubtaskBackPressure>,
}

/// Shares of time, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskBackPressure {
    pub subtask: u32,
    #[serde(rename = "attempt-number")]
    pub attempt_number: u32,
    #[serde(rename = "backpressureLevel")]
    pub level: String,
    #[serde(rename = "backpressure-level")]
    pub level_again: String,
    /// Waiting for those behind it.
    pub ratio: f64,
    #[serde(rename = "idleRatio")]
    pub idle_ratio: f64,
    #[serde(rename = "busyRatio")]
    pub busy_ratio: f64,
}
