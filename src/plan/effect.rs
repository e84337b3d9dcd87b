//! What a plan consists of. Each effect is idempotent, and done only when the observed status already says that it will be.

use crate::api::{Savepoint, SavepointStatus, StreamJobStatus};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use std::time::Duration;

/// What is done now, in this order, until one fails; and when to look again if nothing wakes us.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub effects: Vec<Effect>,
    #[serde(skip)]
    pub requeue_after: Duration,
    /// For people: why this plan.
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Effect {
    /// With the resource version that was observed: a stale or second controller is refused.
    WriteStatus(Box<StreamJobStatus>),
    AddFinalizer,
    RemoveFinalizer,
    /// Existing objects stay as they are.
    Create(Child),
    /// Server-side apply: our fields are as here.
    Apply(Child),
    Delete(Deletion),
    /// The number of pods alone: nothing that would restart them.
    Scale(Scaling),
    Engine {
        revision: i64,
        call: EngineCall,
    },
    CreateSavepoint(Box<Savepoint>),
    DeleteSavepoint {
        name: String,
    },
    Event(Event),
}

/// A child object of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Child {
    ControllerRevision(Box<ControllerRevision>),
    ConfigMap(Box<ConfigMap>),
    Secret(Box<Secret>),
    ServiceAccount(Box<ServiceAccount>),
    Service(Box<Service>),
    Deployment(Box<Deployment>),
    StatefulSet(Box<StatefulSet>),
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    Pod(Box<Pod>),
}

impl Child {
    pub fn kind(&self) -> ChildKind {
        match self {
            Child::ControllerRevision(_) => ChildKind::ControllerRevision,
            Child::ConfigMap(_) => ChildKind::ConfigMap,
            Child::Secret(_) => ChildKind::Secret,
            Child::ServiceAccount(_) => ChildKind::ServiceAccount,
            Child::Service(_) => ChildKind::Service,
            Child::Deployment(_) => ChildKind::Deployment,
            Child::StatefulSet(_) => ChildKind::StatefulSet,
            Child::PodDisruptionBudget(_) => ChildKind::PodDisruptionBudget,
            Child::PersistentVolumeClaim(_) => ChildKind::PersistentVolumeClaim,
            Child::Pod(_) => ChildKind::Pod,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ChildKind {
    ControllerRevision,
    ConfigMap,
    Secret,
    ServiceAccount,
    Service,
    Deployment,
    StatefulSet,
    PodDisruptionBudget,
    PersistentVolumeClaim,
    Pod,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deletion {
    pub kind: ChildKind,
    pub name: String,
    /// Only this object, not a later one of the same name.
    pub uid: Option<String>,
    /// Without waiting for the node: it may be gone.
    pub force: bool,
}

/// A workload that somebody gave another number of pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scaling {
    pub kind: ChildKind,
    pub name: String,
    /// Only this object, not a later one of the same name.
    pub uid: Option<String>,
    pub replicas: i32,
}

/// A request to a coordinator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum EngineCall {
    Activate,
    /// Stop with a savepoint.
    Stop {
        trigger: String,
        directory: Option<String>,
    },
    Savepoint {
        trigger: String,
        directory: Option<String>,
    },
    Cancel,
    /// A part of the spec that changes while the job runs.
    Configure(serde_json::Value),
}

/// An event of Kubernetes about the job. Published on changes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub warning: bool,
    pub reason: String,
    pub note: String,
}

/// Effects on a savepoint's own resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum SavepointEffect {
    WriteStatus(Box<SavepointStatus>),
    AddFinalizer,
    RemoveFinalizer,
    Create(Child),
    Delete(Deletion),
    Engine { revision: i64, call: EngineCall },
    Event(Event),
}
