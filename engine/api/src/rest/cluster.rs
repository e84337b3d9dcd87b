//! Coordinator and workers, in Flink's words: job manager and task managers.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /overview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterOverview {
    pub taskmanagers: u32,
    pub slots_total: u32,
    pub slots_available: u32,
    pub jobs_running: u32,
    pub jobs_finished: u32,
    pub jobs_cancelled: u32,
    pub jobs_failed: u32,
    /// The version of Flink whose API this is.
    pub flink_version: String,
    /// What serves it.
    pub flink_commit: String,
}

/// `GET /config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DashboardConfiguration {
    pub refresh_interval: u64,
    pub timezone_name: String,
    /// Milliseconds.
    pub timezone_offset: i32,
    pub flink_version: String,
    pub flink_revision: String,
    pub features: Features,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Features {
    pub web_submit: bool,
    pub web_cancel: bool,
    pub web_rescale: bool,
    pub web_history: bool,
}

/// `GET /taskmanagers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskManagers {
    pub taskmanagers: Vec<TaskManager>,
}

/// A worker. Of memory and processors only totals that the worker knows of itself would be true, so they are zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskManager {
    pub id: String,
    pub path: String,
    pub data_port: u16,
    /// -1: there is none.
    pub jmx_port: i32,
    /// When the worker was last heard of.
    pub time_since_last_heartbeat: u64,
    pub slots_number: u32,
    pub free_slots: u32,
    pub assigned_tasks: u32,
    pub total_resource: ResourceProfile,
    pub free_resource: ResourceProfile,
    pub hardware: Hardware,
    pub memory_configuration: MemoryConfiguration,
}

/// `GET /taskmanagers/:id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskManagerDetails {
    #[serde(flatten)]
    pub worker: TaskManager,
    #[serde(rename = "allocatedSlots")]
    pub allocated_slots: Vec<Slot>,
    pub metrics: ProcessMetrics,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    pub job_id: String,
    pub resource: ResourceProfile,
    pub assigned_tasks: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceProfile {
    pub cpu_cores: f64,
    pub task_heap_memory: u64,
    pub task_off_heap_memory: u64,
    pub managed_memory: u64,
    pub network_memory: u64,
    pub extended_resources: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    pub cpu_cores: u32,
    pub physical_memory: u64,
    pub free_memory: u64,
    pub managed_memory: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryConfiguration {
    pub framework_heap: Option<u64>,
    pub task_heap: Option<u64>,
    pub framework_off_heap: Option<u64>,
    pub task_off_heap: Option<u64>,
    pub network_memory: Option<u64>,
    pub managed_memory: Option<u64>,
    pub jvm_metaspace: Option<u64>,
    pub jvm_overhead: Option<u64>,
    pub total_flink_memory: Option<u64>,
    pub total_process_memory: Option<u64>,
}

/// Of a Java process, so all zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessMetrics {
    pub heap_used: u64,
    pub heap_committed: u64,
    pub heap_max: u64,
    pub non_heap_used: u64,
    pub non_heap_committed: u64,
    pub non_heap_max: u64,
    pub direct_count: u64,
    pub direct_used: u64,
    pub direct_max: u64,
    pub mapped_count: u64,
    pub mapped_used: u64,
    pub mapped_max: u64,
    pub netty_shuffle_memory_segments_available: u64,
    pub netty_shuffle_memory_segments_used: u64,
    pub netty_shuffle_memory_segments_total: u64,
    pub netty_shuffle_memory_available: u64,
    pub netty_shuffle_memory_used: u64,
    pub netty_shuffle_memory_total: u64,
    pub garbage_collectors: Vec<serde_json::Value>,
}
