//! Requests that take a while: bodies that start them, and the answers of polling.

use super::SerializedThrowable;
use serde::{Deserialize, Serialize};

/// Answer to a request that was taken up: what to poll for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerResponse {
    #[serde(rename = "request-id")]
    pub request_id: String,
}

/// Answer of polling.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation<T> {
    pub status: QueueStatus,
    /// Once it has ended.
    pub operation: Option<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    pub id: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Progress {
    InProgress,
    Completed,
}

impl<T> Operation<T> {
    pub fn in_progress() -> Self {
        Operation { status: QueueStatus { id: Progress::InProgress }, operation: None }
    }

    pub fn ended(operation: T) -> Self {
        Operation { status: QueueStatus { id: Progress::Completed }, operation: Some(operation) }
    }
}

/// `POST /jobs/:id/checkpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckpointRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_type: Option<CheckpointKind>,
    /// A repeated request with the same id is the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointKind {
    /// As the job file says.
    Configured,
    Full,
    Incremental,
}

/// `POST /jobs/:id/savepoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavepointRequest {
    /// A directory or `s3://bucket/prefix`; by default `spec.storage.savepointDir`.
    #[serde(rename = "target-directory", default, skip_serializing_if = "Option::is_none")]
    pub target_directory: Option<String>,
    /// Cancel the job once the savepoint is complete.
    #[serde(rename = "cancel-job", default, skip_serializing_if = "Option::is_none")]
    pub cancel_job: Option<bool>,
    #[serde(rename = "formatType", default, skip_serializing_if = "Option::is_none")]
    pub format_type: Option<SavepointFormat>,
    #[serde(rename = "triggerId", default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
}

/// There is one format, which has what both promise: self-contained, relocatable, and as quick as a full checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SavepointFormat {
    Canonical,
    Native,
}

/// `POST /jobs/:id/stop`; polled as a savepoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_directory: Option<String>,
    /// Let all windows and timers fire first, as at the end of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_type: Option<SavepointFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
}

/// `POST /savepoint-disposal`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisposalRequest {
    #[serde(rename = "savepoint-path", default, skip_serializing_if = "Option::is_none")]
    pub savepoint_path: Option<String>,
}

/// How a checkpoint that was asked for ended: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<SerializedThrowable>,
}

/// How a savepoint ended: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(rename = "failure-cause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<SerializedThrowable>,
}

/// How a savepoint ended, with all that is known of it: one of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointOutcome<S> {
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<S>,
    #[serde(rename = "failure-cause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<SerializedThrowable>,
}

/// How something ended that has no result of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainResult {
    #[serde(rename = "failure-cause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<SerializedThrowable>,
}

/// Our own `POST /v1/rescale`, polled at `/v1/rescale/:triggerId`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RescaleRequest {
    /// Subtasks of each operator.
    pub parallelism: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
}

/// How a change of parallelism ended: one of both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescaleResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    #[serde(rename = "failure-cause", default, skip_serializing_if = "Option::is_none")]
    pub failure_cause: Option<SerializedThrowable>,
}

/// Our own `POST /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The text of the new job file.
    pub job: String,
    /// A checkpoint or savepoint; by default the running job's newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}
