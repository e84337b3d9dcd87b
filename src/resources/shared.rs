//! What a job has once, whatever revision runs: identity, token, the service for people, disruption budget, claim.

use super::meta::{COMPONENT, COORDINATOR, JOB, STATE, WORKER, job_name, owned, selector_labels};
use super::names::{self, label_value};
use super::pods::{REST_PORT, TOKEN_KEY};
use super::workloads::port;
use crate::api::StreamJob;
use crate::plan::effect::Child;
use crate::settings::Settings;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret, Service, ServiceAccount, ServiceSpec,
    VolumeResourceRequirements,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use streamjob_api::spec::{ClaimTemplate, DeletionPolicy};

/// In creation order: pods need the first ones to start.
pub fn shared_children(job: &StreamJob, current_revision: Option<i64>, settings: &Settings) -> Vec<Child> {
    let storage = job.spec.storage.as_ref();
    let claim = storage.and_then(|storage| storage.persistent_volume_claim.as_ref());
    let template = claim.and_then(|claim| claim.template.as_ref());
    let mut children = vec![
        Child::ServiceAccount(Box::new(service_account(job))),
        Child::Secret(Box::new(token_secret(job, settings))),
        Child::Service(Box::new(service(job, current_revision))),
        Child::PodDisruptionBudget(Box::new(disruption_budget(job))),
    ];
    children.extend(template.map(|template| Child::PersistentVolumeClaim(Box::new(state_claim(job, template)))));
    children
}

/// Has no rights: a pod that says nothing else would run as the namespace's default account.
fn service_account(job: &StreamJob) -> ServiceAccount {
    ServiceAccount {
        metadata: owned(job, names::service_account(job_name(job)), None, None),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn token_secret(job: &StreamJob, settings: &Settings) -> Secret {
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let token = settings.token_key.token(uid);
    Secret {
        metadata: owned(job, names::token_secret(job_name(job), uid), None, None),
        immutable: Some(true),
        type_: Some("Opaque".into()),
        data: Some([(TOKEN_KEY.to_owned(), ByteString(token.into_bytes()))].into()),
        ..Secret::default()
    }
}

/// Leads to the coordinator that has the job, once there is one; before that to the first one that comes.
fn service(job: &StreamJob, current_revision: Option<i64>) -> Service {
    Service {
        metadata: owned(job, names::service(job_name(job)), Some(COORDINATOR), None),
        spec: Some(ServiceSpec {
            selector: Some(selector_labels(job_name(job), COORDINATOR, current_revision)),
            ports: Some(vec![port("rest", REST_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// One pod at a time: a drained node costs one recovery after the other, and never blocks for ever.
fn disruption_budget(job: &StreamJob) -> PodDisruptionBudget {
    let components = LabelSelectorRequirement {
        key: COMPONENT.into(),
        operator: "In".into(),
        values: Some(vec![COORDINATOR.into(), WORKER.into()]),
    };
    PodDisruptionBudget {
        metadata: owned(job, names::disruption_budget(job_name(job)), None, None),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some([(JOB.to_owned(), label_value(job_name(job)))].into()),
                match_expressions: Some(vec![components]),
            }),
            // Pods that do not work must not keep a node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// Every pod of the job mounts it, wherever it runs. It goes with the job only if the state shall.
fn state_claim(job: &StreamJob, template: &ClaimTemplate) -> PersistentVolumeClaim {
    let policy = job.spec.deletion.as_ref().map(|deletion| deletion.policy).unwrap_or_default();
    let mut metadata = owned(job, names::claim(job_name(job)), Some(STATE), None);
    if policy != DeletionPolicy::Discard {
        metadata.owner_references = None;
    }
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteMany".into()]),
            storage_class_name: template.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(template.size.clone()))].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
