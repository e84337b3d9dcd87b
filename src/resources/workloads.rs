//! What runs a revision: job file, coordinator and workers, and the services by which they find each other.

use super::meta::{COORDINATOR, WORKER, job_name, owned, selector, selector_labels};
use super::pods::{self, CONTROL_PORT, JOB_FILE_KEY, REST_PORT, WORKER_REST_PORT};
use super::spec::workers_needed;
use super::{Revision, job_file, names};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn config_map(revision: &Revision) -> ConfigMap {
    let name = names::config_map(job_name(revision.job), revision.number);
    ConfigMap {
        metadata: owned(revision.job, name, None, Some(revision.number)),
        data: Some([(JOB_FILE_KEY.to_owned(), job_file::render(revision))].into()),
        ..ConfigMap::default()
    }
}

pub(super) fn coordinator_service(revision: &Revision) -> Service {
    let name = names::coordinator(job_name(revision.job), revision.number);
    let ports = vec![port("control", CONTROL_PORT), port("rest", REST_PORT)];
    service(revision, name, COORDINATOR, None, ports)
}

/// Headless: gives every worker a name of its own.
pub(super) fn workers_service(revision: &Revision) -> Service {
    let name = names::workers(job_name(revision.job), revision.number);
    service(revision, name, WORKER, Some("None".into()), vec![port("rest", WORKER_REST_PORT)])
}

fn service(
    revision: &Revision,
    name: String,
    component: &str,
    cluster_ip: Option<String>,
    ports: Vec<ServicePort>,
) -> Service {
    Service {
        metadata: owned(revision.job, name, Some(component), Some(revision.number)),
        spec: Some(ServiceSpec {
            cluster_ip,
            selector: Some(selector_labels(job_name(revision.job), component, Some(revision.number))),
            ports: Some(ports),
            // They talk to each other before they are ready; that is how they become it.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub(super) fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    }
}

pub(super) fn coordinator(revision: &Revision) -> Deployment {
    let job = job_name(revision.job);
    Deployment {
        metadata: owned(
            revision.job,
            names::coordinator(job, revision.number),
            Some(COORDINATOR),
            Some(revision.number),
        ),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: selector(selector_labels(job, COORDINATOR, Some(revision.number))),
            // Two coordinators would fence each other.
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".into()), ..DeploymentStrategy::default() }),
            revision_history_limit: Some(0),
            template: pods::coordinator_template(revision),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

pub(super) fn workers(revision: &Revision) -> StatefulSet {
    let job = job_name(revision.job);
    let name = names::workers(job, revision.number);
    StatefulSet {
        metadata: owned(revision.job, name.clone(), Some(WORKER), Some(revision.number)),
        spec: Some(StatefulSetSpec {
            replicas: Some(workers_needed(revision.spec)),
            service_name: Some(name),
            selector: selector(selector_labels(job, WORKER, Some(revision.number))),
            pod_management_policy: Some("Parallel".into()),
            revision_history_limit: Some(0),
            template: pods::worker_template(revision),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}
