//! What is kept of an object that was seen: with a thousand jobs, what nobody reads is most of the operator's memory. Whoever
//! begins to read another field keeps it here.

use crate::resources::{COMPONENT, JOB, REVISION};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, PodSpec, Service, ServiceSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Resource;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use serde_json::Value;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Drops what nobody reads.
pub trait Trim {
    fn trim(&mut self);
}

/// Half of an object as it comes from the API server says who wrote what.
pub fn metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// What tells a child object: its name, whose it is, and of which revision.
fn child(metadata: &mut ObjectMeta) {
    metadata.annotations = None;
    metadata.generate_name = None;
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|label, _| [COMPONENT, JOB, REVISION].contains(&label.as_str()));
    }
    for owner in metadata.owner_references.iter_mut().flatten() {
        let (uid, controller) = (std::mem::take(&mut owner.uid), owner.controller);
        *owner = OwnerReference { uid, controller, ..OwnerReference::default() };
    }
}

/// A stored spec as text, which takes a tenth of the memory that its tree of values does.
impl Trim for ControllerRevision {
    fn trim(&mut self) {
        child(&mut self.metadata);
        if let Some(RawExtension(data)) = &mut self.data
            && let Ok(text) = serde_json::to_string(data)
        {
            *data = Value::String(text.into_boxed_str().into_string());
        }
    }
}

/// A trimmed revision as it was stored.
pub fn restored(mut revision: ControllerRevision) -> ControllerRevision {
    if let Some(RawExtension(data)) = &mut revision.data
        && let Value::String(text) = &*data
        && let Ok(stored) = serde_json::from_str(text)
    {
        *data = stored;
    }
    revision
}

impl Trim for Deployment {
    fn trim(&mut self) {
        child(&mut self.metadata);
        let replicas = self.spec.take().and_then(|spec| spec.replicas);
        self.spec = Some(DeploymentSpec { replicas, ..DeploymentSpec::default() });
        self.status = None;
    }
}

impl Trim for StatefulSet {
    fn trim(&mut self) {
        child(&mut self.metadata);
        let replicas = self.spec.take().and_then(|spec| spec.replicas);
        self.spec = Some(StatefulSetSpec { replicas, ..StatefulSetSpec::default() });
        self.status = None;
    }
}

impl Trim for Service {
    fn trim(&mut self) {
        child(&mut self.metadata);
        let selector = self.spec.take().and_then(|spec| spec.selector);
        self.spec = Some(ServiceSpec { selector, ..ServiceSpec::default() });
        self.status = None;
    }
}

impl Trim for PodDisruptionBudget {
    fn trim(&mut self) {
        child(&mut self.metadata);
        self.spec = None;
        self.status = None;
    }
}

impl Trim for PersistentVolumeClaim {
    fn trim(&mut self) {
        child(&mut self.metadata);
        self.spec = None;
        self.status = None;
    }
}

impl Trim for Pod {
    fn trim(&mut self) {
        child(&mut self.metadata);
        let node_name = self.spec.take().and_then(|spec| spec.node_name);
        self.spec = node_name.map(|node_name| PodSpec { node_name: Some(node_name), ..PodSpec::default() });
        let Some(status) = &mut self.status else { return };
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        }
        (status.host_ip, status.host_ips, status.pod_ips) = (None, None, None);
        for container in
            [&mut status.init_container_statuses, &mut status.container_statuses].into_iter().flatten().flatten()
        {
            container.container_id = None;
            container.image_id = String::new();
            (container.allocated_resources, container.resources) = (None, None);
            (container.user, container.volume_mounts) = (None, None);
        }
    }
}

impl<K> Trim for PartialObjectMeta<K> {
    fn trim(&mut self) {
        child(&mut self.metadata);
    }
}

/// There are few at a time.
impl Trim for Event {
    fn trim(&mut self) {}
}

impl<K: Resource> Trim for DeserializeGuard<K> {
    fn trim(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::diagnose;
    use jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn who_wrote_what_is_not_kept() {
        let mut pod = Pod::default();
        pod.metadata.managed_fields = Some(Vec::new());
        pod.metadata.annotations = Some([(LAST_APPLIED.to_owned(), "{}".to_owned()), ("a".into(), "b".into())].into());
        metadata(&mut pod.metadata);
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!(pod.metadata.annotations, Some([("a".to_owned(), "b".to_owned())].into()));
    }

    #[test]
    fn whose_a_child_is_and_of_which_revision_is_kept() {
        let mut service: Service = serde_json::from_value(json!({
            "metadata": {
                "name": "j-c1", "namespace": "n", "annotations": { "a": "b" },
                "labels": { JOB: "j", REVISION: "1", COMPONENT: "coordinator", "team": "a" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "K", "name": "j", "uid": "u", "controller": true, "blockOwnerDeletion": true },
                ],
            },
            "spec": { "selector": { "a": "b" }, "ports": [{ "port": 1 }] },
        }))
        .unwrap();
        service.trim();
        let owner = OwnerReference { uid: "u".into(), controller: Some(true), ..OwnerReference::default() };
        assert_eq!(service.metadata.owner_references, Some(vec![owner]));
        assert_eq!(service.metadata.annotations, None);
        assert_eq!(service.metadata.labels.unwrap().into_keys().collect::<Vec<_>>(), [COMPONENT, JOB, REVISION]);
        let spec = service.spec.unwrap();
        assert_eq!((spec.selector, spec.ports), (Some([("a".to_owned(), "b".to_owned())].into()), None));
    }

    #[test]
    fn a_stored_spec_comes_back() {
        let stored: ControllerRevision = serde_json::from_value(json!({
            "metadata": { "name": "j-1" }, "revision": 1, "data": { "spec": { "a": [1, "b"] } },
        }))
        .unwrap();
        let mut trimmed = stored.clone();
        trimmed.trim();
        assert_ne!(trimmed, stored);
        assert_eq!(restored(trimmed), stored);
        assert_eq!(restored(stored.clone()), stored);
    }

    #[test]
    fn the_numbers_of_pods_are_kept() {
        let workload = json!({ "spec": {
            "replicas": 3, "selector": {}, "serviceName": "s",
            "template": { "spec": { "containers": [{ "name": "a" }] } },
        }, "status": { "replicas": 3 } });
        let mut deployment: Deployment = serde_json::from_value(workload.clone()).unwrap();
        deployment.trim();
        let spec = deployment.spec.unwrap();
        assert_eq!((spec.replicas, spec.template.spec, deployment.status), (Some(3), None, None));
        let mut set: StatefulSet = serde_json::from_value(workload).unwrap();
        set.trim();
        let spec = set.spec.unwrap();
        assert_eq!((spec.replicas, spec.template.spec, set.status), (Some(3), None, None));
    }

    #[test]
    fn a_trimmed_pod_has_the_same_diagnosis() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let container = |state: serde_json::Value| {
            json!({
                "name": "streamjob", "image": "e:1", "imageID": "e@sha256:0", "containerID": "c://1", "ready": false,
                "restartCount": 3, "state": state,
                "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
            })
        };
        let unschedulable = json!([
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu." },
        ]);
        let waiting =
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image \"e:1\"" } });
        let crashing = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
        let lost = "2026-01-01T00:00:00Z";
        for (deleted, status) in [
            (None, json!({ "phase": "Pending", "conditions": unschedulable })),
            (None, json!({ "phase": "Pending", "containerStatuses": [container(waiting.clone())] })),
            (None, json!({ "phase": "Pending", "initContainerStatuses": [container(waiting)] })),
            (None, json!({ "phase": "Running", "containerStatuses": [container(crashing)] })),
            (None, json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" })),
            (Some(lost), json!({ "phase": "Running" })),
        ] {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "j-w1-0", "uid": "u", "deletionTimestamp": deleted },
                "spec": { "nodeName": "node-1", "containers": [{ "name": "streamjob", "image": "e:1" }] },
                "status": status,
            }))
            .unwrap();
            let mut trimmed = pod.clone();
            trimmed.trim();
            assert_ne!(trimmed, pod);
            let diagnosis = diagnose(&[pod], &[], now);
            assert!(diagnosis.is_some(), "{status}");
            assert_eq!(diagnose(&[trimmed], &[], now), diagnosis);
        }
    }
}
