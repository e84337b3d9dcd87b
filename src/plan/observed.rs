//! What a plan is made from: one moment of a job, its children and its engine. Read by the controller, never decided here.

use crate::api::{Savepoint, StreamJob};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use streamjob_api::spec::StreamJobSpec;

/// One moment of a job.
#[derive(Debug, Clone)]
pub struct Observed {
    pub job: StreamJob,
    /// Nothing can be created in the namespace any more.
    pub namespace_terminating: bool,
    pub children: Children,
    /// What the coordinator of each revision says; absent when there is no pod to ask.
    pub engines: BTreeMap<i64, EngineAnswer>,
    /// Answers about stops under way, by trigger id.
    pub stops: BTreeMap<String, SavepointAnswer>,
    /// Savepoints that refer to the job.
    pub savepoints: Vec<Savepoint>,
    /// Warning events about the job's pods and workloads, newest last.
    pub events: Vec<Event>,
    /// What the API server refused the last time that a plan was carried out for this generation; absent once a plan was
    /// carried out whole.
    pub refused: Option<Refusal>,
}

/// The API server will not have an object as it is: an invalid pod template, an admission rule, a missing right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind and name of the object.
    pub object: String,
    pub message: String,
    /// Another try with the same spec cannot succeed (400, 422); otherwise it may, once somebody changes a right or a quota (403).
    pub terminal: bool,
}

/// Objects with the job's label, by kind.
#[derive(Debug, Clone, Default)]
pub struct Children {
    pub revisions: Vec<ControllerRevision>,
    pub config_maps: Vec<ConfigMap>,
    /// Metadata alone: their content is never read.
    pub secrets: Vec<PartialObjectMeta<Secret>>,
    pub service_accounts: Vec<ServiceAccount>,
    pub services: Vec<Service>,
    pub deployments: Vec<Deployment>,
    pub stateful_sets: Vec<StatefulSet>,
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub pods: Vec<Pod>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EngineAnswer {
    /// A pod has an address, but nothing answers there now.
    Unreachable(String),
    Status(Box<EngineStatus>),
}

/// The part of `GET /v1/status` that decisions and metrics need. Unknown fields are ignored, missing ones have defaults, so
/// that neighbouring versions of engine and operator understand each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    pub job_id: String,
    /// STANDBY, CREATED, RUNNING, RESTARTING, FAILING, FAILED, CANCELLING, CANCELED, FINISHED, SUSPENDED …
    pub state: String,
    pub reason: Option<String>,
    pub version: u64,
    pub incarnation: u64,
    pub revision: i64,
    pub standby: Option<Standby>,
    pub parallelism: i32,
    pub max_parallelism: i32,
    pub guarantee: Option<String>,
    /// Unix milliseconds since when all tasks run.
    pub running_since: Option<i64>,
    pub restarts: i64,
    /// What the job would go back to now; on standby, what it would go on from.
    pub restore_point: Option<EngineRestorePoint>,
    pub restored_from_path: Option<String>,
    pub restore_duration_ms: Option<i64>,
    pub checkpoints: EngineCheckpoints,
    pub latest_savepoint: Option<EngineSavepoint>,
    /// Options that apply now.
    pub checkpoint_config: Option<CheckpointConfig>,
    pub restart_strategy: Option<RestartStrategy>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standby {
    /// The job could run now: the program fits what it goes on from, and there are slots for all tasks.
    pub ready: bool,
    /// The program is planned and fits what it goes on from.
    pub checked: bool,
    /// Slots of the workers that are registered, and how many the job needs.
    pub slots: i64,
    pub needed: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineRestorePoint {
    pub checkpoint: i64,
    pub path: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineCheckpoints {
    /// Since this coordinator started.
    pub completed: i64,
    pub failed: i64,
    pub in_progress: i64,
    pub last_id: Option<i64>,
    pub last_path: Option<String>,
    pub last_duration_ms: Option<i64>,
    pub last_bytes_new: Option<i64>,
    pub last_bytes_total: Option<i64>,
    /// Unix milliseconds.
    pub last_completed_at: Option<i64>,
    pub last_failure: Option<String>,
    pub restored_from: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineSavepoint {
    #[serde(alias = "checkpoint")]
    pub id: i64,
    /// Name of the request.
    pub trigger: String,
    pub path: String,
    /// The job ended with it.
    pub stopped: bool,
    /// Unix milliseconds.
    pub completed_at: Option<i64>,
    pub duration_ms: Option<i64>,
    pub bytes: Option<i64>,
}

/// How a savepoint or stop on request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SavepointAnswer {
    /// The coordinator does not know the request.
    Unknown,
    InProgress,
    Completed(Box<EngineSavepoint>),
    Failed {
        reason: String,
    },
    /// The coordinator would not begin with it.
    Refused {
        reason: String,
        /// Asking again cannot help: the directory cannot be written, for example.
        terminal: bool,
    },
}

/// One moment of a savepoint's resource, and of what it needs.
#[derive(Debug, Clone)]
pub struct ObservedSavepoint {
    pub savepoint: Savepoint,
    /// Nothing can be created in the namespace any more.
    pub namespace_terminating: bool,
    /// The job that `jobRef` names, if there is one.
    pub job: Option<StreamJob>,
    /// The spec that the job's current revision runs with.
    pub spec: Option<StreamJobSpec>,
    /// What the coordinator of the job's current revision says.
    pub engine: Option<EngineAnswer>,
    /// About the request named by `status.triggerId` (see `plan::savepoint_trigger`).
    pub answer: Option<SavepointAnswer>,
    /// The pod that deletes the files.
    pub dispose_pod: Option<Pod>,
}
