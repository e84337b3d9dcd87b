//! `Savepoint`: a savepoint as a resource of its own, taken on demand, by schedule or before an upgrade, or adopted.

use crate::api::conditions::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use streamjob_api::spec::{LocalReference, Storage};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Savepoint {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: SavepointSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SavepointStatus>,
}

/// What to save, or what to adopt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavepointSpec {
    /// The StreamJob that is saved, or whose storage holds `path`.
    pub job_ref: LocalReference,
    /// Adopts an existing savepoint instead of taking one: its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,
    /// Format of the files. There is one.
    #[serde(default)]
    pub format: SavepointFormat,
    /// Keep the files when this resource is deleted.
    #[serde(default)]
    pub retain: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SavepointFormat {
    #[default]
    Canonical,
}

/// What has become of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SavepointStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands. Pending: not asked for yet, because the job does not run.
    #[serde(default)]
    pub phase: SavepointPhase,
    /// Where the savepoint lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Number of the snapshot among the job's checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<i64>,
    /// Name of the request at the engine: repeated under the same name it is the same savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_id: Option<String>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How a pod reaches the files, so that they can be deleted when there is no StreamJob any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<SavepointFiles>,
    /// Ready: whether it can be restored from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Of the job's spec, what a pod needs that deletes files. Names of secrets, never what is in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SavepointFiles {
    /// Where the job keeps its state.
    pub storage: Storage,
    /// Image with the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets with which it is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalReference>,
    /// Of the coordinator's pod template: nodes, volumes and identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SavepointPhase {
    /// Not asked for yet: the job does not run.
    #[default]
    Pending,
    InProgress,
    Completed,
    Failed,
    Deleting,
}

resource!(Savepoint, SavepointSpec, "savepoints");
