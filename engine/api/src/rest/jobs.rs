//! The job: lists, details, plan, configuration, failures.

use super::vertices::IoMetrics;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobIdsWithStatus {
    pub jobs: Vec<JobIdWithStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobIdWithStatus {
    pub id: String,
    pub status: String,
}

/// `GET /jobs/overview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipleJobsDetails {
    pub jobs: Vec<JobDetails>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDetails {
    pub jid: String,
    pub name: String,
    #[serde(rename = "jobType")]
    pub job_type: String,
    #[serde(rename = "schedulerType")]
    pub scheduler_type: String,
    #[serde(rename = "start-time")]
    pub start_time: u64,
    /// -1 while it runs.
    #[serde(rename = "end-time")]
    pub end_time: i64,
    pub duration: u64,
    pub state: String,
    #[serde(rename = "last-modification")]
    pub last_modification: u64,
    /// Tasks by state in lower case, and `total`.
    pub tasks: BTreeMap<String, u32>,
    #[serde(rename = "pending-operators")]
    pub pending_operators: u32,
}

/// `GET /jobs/:id/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatusInfo {
    pub status: String,
}

/// `GET /jobs/:id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetailsInfo {
    pub jid: String,
    pub name: String,
    #[serde(rename = "isStoppable")]
    pub is_stoppable: bool,
    pub state: String,
    #[serde(rename = "job-type")]
    pub job_type: String,
    #[serde(rename = "schedulerType")]
    pub scheduler_type: String,
    #[serde(rename = "start-time")]
    pub start_time: u64,
    #[serde(rename = "end-time")]
    pub end_time: i64,
    pub duration: u64,
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: i64,
    #[serde(rename = "application-id")]
    pub application_id: String,
    pub now: u64,
    /// When the job was last in each state; 0 if never.
    pub timestamps: BTreeMap<String, u64>,
    pub vertices: Vec<VertexOverview>,
    #[serde(rename = "status-counts")]
    pub status_counts: BTreeMap<String, u32>,
    pub plan: Plan,
    #[serde(rename = "pending-operators")]
    pub pending_operators: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VertexOverview {
    pub id: String,
    #[serde(rename = "slotSharingGroupId")]
    pub slot_sharing_group_id: String,
    pub name: String,
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: u32,
    pub parallelism: u32,
    pub status: String,
    #[serde(rename = "start-time")]
    pub start_time: i64,
    #[serde(rename = "end-time")]
    pub end_time: i64,
    pub duration: i64,
    pub tasks: BTreeMap<String, u32>,
    pub metrics: IoMetrics,
}

/// `GET /jobs/:id/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobPlanInfo {
    pub plan: Plan,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub jid: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub nodes: Vec<PlanNode>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNode {
    pub id: String,
    pub parallelism: u32,
    pub operator: String,
    pub operator_strategy: String,
    pub description: String,
    pub optimizer_properties: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<PlanInput>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanInput {
    pub num: u32,
    pub id: String,
    pub ship_strategy: String,
    pub exchange: String,
}

/// `GET /jobs/:id/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobConfigInfo {
    pub jid: String,
    pub name: String,
    #[serde(rename = "execution-config")]
    pub execution_config: ExecutionConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionConfig {
    #[serde(rename = "restart-strategy")]
    pub restart_strategy: String,
    #[serde(rename = "job-parallelism")]
    pub job_parallelism: u32,
    #[serde(rename = "object-reuse-mode")]
    pub object_reuse_mode: bool,
    #[serde(rename = "user-config")]
    pub user_config: BTreeMap<String, String>,
}

/// `GET /jobmanager/config`, `GET /jobs/:id/jobmanager/config`: a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationEntry {
    pub key: String,
    pub value: String,
}

/// `GET /jobs/:id/exceptions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExceptions {
    #[serde(rename = "exceptionHistory")]
    pub history: ExceptionHistory,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionHistory {
    /// Newest first.
    pub entries: Vec<RootException>,
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootException {
    pub exception_name: String,
    pub stacktrace: String,
    pub timestamp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_manager_id: Option<String>,
    pub failure_labels: BTreeMap<String, String>,
    /// Always empty: what fails because of a failure is no failure of its own.
    pub concurrent_exceptions: Vec<serde_json::Value>,
}

/// `GET` and `PUT /jobs/:id/resource-requirements`: by vertex id.
pub type ResourceRequirements = BTreeMap<String, VertexRequirements>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexRequirements {
    pub parallelism: ParallelismBounds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParallelismBounds {
    pub lower_bound: u32,
    pub upper_bound: u32,
}

/// An entry of `GET .../metrics`; without `?get=` only names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// `GET /jobs/:id/accumulators`; there are none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Accumulators {
    pub job_accumulators: Vec<serde_json::Value>,
    pub user_task_accumulators: Vec<serde_json::Value>,
    pub serialized_user_task_accumulators: BTreeMap<String, String>,
}
