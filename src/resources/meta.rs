//! Labels and owners.

use super::names::label_value;
use crate::api::{Savepoint, StreamJob};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;
use std::collections::BTreeMap;

pub const JOB: &str = "streamjob.dev/job";
pub const REVISION: &str = "streamjob.dev/revision";
pub const SAVEPOINT: &str = "streamjob.dev/savepoint";
pub const NAME: &str = "app.kubernetes.io/name";
pub const INSTANCE: &str = "app.kubernetes.io/instance";
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const COMPONENT: &str = "app.kubernetes.io/component";
pub const OPERATOR: &str = "streamjob-operator";

pub const COORDINATOR: &str = "coordinator";
pub const WORKER: &str = "worker";
pub const STATE: &str = "state";
pub const DISPOSE: &str = "dispose";

pub type Labels = BTreeMap<String, String>;

pub fn job_name(job: &StreamJob) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

/// Labels of an object of a job.
pub(super) fn labels(job: &str, component: Option<&str>, revision: Option<i64>) -> Labels {
    let mut labels: Labels = [(NAME, "streamjob"), (MANAGED_BY, OPERATOR)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    labels.insert(INSTANCE.into(), label_value(job));
    labels.insert(JOB.into(), label_value(job));
    if let Some(component) = component {
        labels.insert(COMPONENT.into(), component.into());
    }
    if let Some(revision) = revision {
        labels.insert(REVISION.into(), revision.to_string());
    }
    labels
}

/// What selects the pods of a component: fixed for the life of a workload.
pub(super) fn selector_labels(job: &str, component: &str, revision: Option<i64>) -> Labels {
    let mut labels: Labels = [(JOB.to_owned(), label_value(job)), (COMPONENT.to_owned(), component.to_owned())].into();
    if let Some(revision) = revision {
        labels.insert(REVISION.into(), revision.to_string());
    }
    labels
}

pub(super) fn selector(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Selects the worker pods of a revision, in the text form that the scale subresource publishes.
pub fn worker_selector(job: &str, revision: i64) -> String {
    let pairs = selector_labels(job, WORKER, Some(revision));
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Metadata of an object that goes when the job goes.
pub(super) fn owned(job: &StreamJob, name: String, component: Option<&str>, revision: Option<i64>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: job.metadata.namespace.clone(),
        labels: Some(labels(job_name(job), component, revision)),
        owner_references: Some(vec![job_reference(job)]),
        ..ObjectMeta::default()
    }
}

pub(super) fn job_reference(job: &StreamJob) -> OwnerReference {
    reference::<StreamJob>(&job.metadata)
}

pub(super) fn savepoint_reference(savepoint: &Savepoint) -> OwnerReference {
    reference::<Savepoint>(&savepoint.metadata)
}

/// Without `blockOwnerDeletion`: a foreground deletion then leaves the pods alone until our finalizer is gone.
fn reference<K: Resource<DynamicType = ()>>(owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
