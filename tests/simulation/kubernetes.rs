//! What the controllers of Kubernetes and the kubelet do while time passes: pods of workloads, processes in them, pods that
//! delete files. One tick is one second.

use super::engine::{Coordinator, Phase};
use super::world::{World, revision_of};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_operator::plan::effect::{Child, ChildKind};
use streamjob_operator::resources::read_revision;

/// Caches lag by no more.
const PAST: usize = 14;
/// Images of this name cannot be pulled.
const MISSING: &str = "missing";

/// How a pod looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Runs,
    NoImage,
    Broken,
}

impl World {
    /// The coordinators' processes end and come back.
    pub fn kill_coordinators(&mut self) {
        self.coordinators.clear();
    }

    /// A second passes.
    pub fn tick(&mut self) {
        self.past.push_back(self.objects.clone());
        if self.past.len() > PAST {
            self.past.pop_front();
        }
        self.listen();
        self.seconds += 1;
        self.do_what_is_due();
        self.run_workloads();
        self.run_disposals();
        let now_ms = self.seconds * 1000;
        let mut active = Vec::new();
        for (revision, coordinator) in &mut self.coordinators {
            let workers = self.objects.pods.iter().filter(|(name, pod)| is_worker_of(name, pod, *revision));
            coordinator.slots = i64::try_from(workers.count()).unwrap();
            coordinator.tick(&mut self.storage, now_ms);
            if coordinator.is_active(&self.storage) {
                active.push(*revision);
            }
        }
        if active.len() > 1 {
            self.violation(format!("I10: revisions {active:?} run at once"));
        }
    }

    fn run_workloads(&mut self) {
        let mut wanted: BTreeMap<String, (ObjectMeta, Look)> = BTreeMap::new();
        let mut coordinators: Vec<i64> = Vec::new();
        for child in self.objects.children.values() {
            match &**child {
                Child::Deployment(deployment) => {
                    let Some(revision) = revision_of(&deployment.metadata) else { continue };
                    let spec = deployment.spec.as_ref().unwrap();
                    if spec.replicas == Some(0) {
                        continue;
                    }
                    let exited = self.coordinators.get(&revision).map(|coordinator| coordinator.phase);
                    let look = match exited {
                        _ if is_missing(&spec.template) => Look::NoImage,
                        Some(Phase::Exited(2)) => Look::Broken,
                        _ => Look::Runs,
                    };
                    if look != Look::NoImage {
                        coordinators.push(revision);
                    }
                    let name = format!("{}-0", deployment.metadata.name.clone().unwrap());
                    wanted.insert(name, (deployment.metadata.clone(), look));
                }
                Child::StatefulSet(set) => {
                    let spec = set.spec.as_ref().unwrap();
                    let look = if is_missing(&spec.template) { Look::NoImage } else { Look::Runs };
                    for index in 0..spec.replicas.unwrap_or(1) {
                        let name = format!("{}-{index}", set.metadata.name.clone().unwrap());
                        wanted.insert(name, (set.metadata.clone(), look));
                    }
                }
                _ => {}
            }
        }
        self.make_pods(wanted);
        // On a lost node a process goes on that nobody sees.
        let lost = self.lost_node;
        self.coordinators.retain(|revision, _| coordinators.contains(revision) || lost);
        for revision in coordinators {
            let exited = self.coordinators.get(&revision).is_some_and(|it| matches!(it.phase, Phase::Exited(3)));
            if self.coordinators.contains_key(&revision) && !exited {
                continue;
            }
            let key = (ChildKind::ControllerRevision, format!("job-{revision}"));
            let Some(Child::ControllerRevision(stored)) = self.objects.children.get(&key).map(|child| &**child) else {
                continue;
            };
            self.incarnations += 1;
            let stored = read_revision(stored).unwrap();
            self.coordinators.insert(revision, Coordinator::new(&stored, self.incarnations, &mut self.storage));
        }
    }

    fn make_pods(&mut self, wanted: BTreeMap<String, (ObjectMeta, Look)>) {
        let now = self.now();
        let mut changes = false;
        let lost = self.lost_node;
        self.objects.pods.retain(|name, pod| {
            if wanted.contains_key(name) {
                return true;
            }
            if lost && pod.metadata.deletion_timestamp.is_none() {
                Arc::make_mut(pod).metadata.deletion_timestamp = Some(Time(now));
                changes = true;
            }
            changes |= !lost;
            lost
        });
        for (name, (owner, look)) in wanted {
            let same = self.objects.pods.get(&name).is_some_and(|pod| {
                pod.metadata.labels == owner.labels && look_of(pod) == look && pod.metadata.deletion_timestamp.is_none()
            });
            if !same {
                self.objects.pods.insert(name.clone(), Arc::new(pod(&name, &owner, look)));
                changes = true;
            }
        }
        if changes {
            self.changed();
        }
    }

    /// Pods that delete files. They need to reach them.
    fn run_disposals(&mut self) {
        let pods = self.objects.children.iter().filter(|((kind, _), _)| *kind == ChildKind::Pod);
        let pods: Vec<_> = pods.map(|(key, child)| (key.clone(), child.clone())).collect();
        for (key, child) in pods {
            let Child::Pod(found) = &*child else { continue };
            if found.status.is_some() {
                continue;
            }
            let spec = found.spec.clone().unwrap();
            let args = spec.containers[0].args.clone().unwrap_or_default();
            let volumes = spec.volumes.unwrap_or_default();
            let reaches = volumes.iter().any(|volume| volume.persistent_volume_claim.is_some());
            let succeeds = !self.dispose_fails && reaches;
            if succeeds {
                self.dispose(&args);
            }
            let mut pod = (**found).clone();
            let phase = if succeeds { "Succeeded" } else { "Failed" };
            pod.status = serde_json::from_value(json!({ "phase": phase })).unwrap();
            self.objects.children.insert(key, Arc::new(Child::Pod(Box::new(pod))));
            self.changed();
        }
    }

    fn dispose(&mut self, args: &[String]) {
        if args.iter().any(|arg| arg == "--all") {
            if self.coordinators.values().any(|it| it.is_active(&self.storage)) {
                self.violation("the files of a running job are deleted".into());
            }
            self.disposed = true;
            self.storage.journals.clear();
            self.storage.savepoints.retain(|path, _| path.starts_with("elsewhere"));
            return;
        }
        let Some(at) = args.iter().position(|arg| arg == "--savepoint") else { return };
        let path = args[at + 1].clone();
        let newest =
            |journal: &super::engine::Journal| journal.checkpoints.last().is_some_and(|(_, last, _)| *last == path);
        if self.objects.job.is_some() && self.storage.journals.values().any(newest) {
            // Unless nothing follows from it any more: the journal is that of a state which was left behind.
            let current = self.status().job_id.and_then(|id| self.storage.journals.get(&id).cloned());
            if current.is_some_and(|journal| newest(&journal)) {
                self.violation(format!("I8: {path} is deleted, and the job has nothing newer"));
            }
        }
        self.storage.savepoints.remove(&path);
    }
}

fn is_missing(template: &PodTemplateSpec) -> bool {
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| container.image.as_ref()).any(|image| image.contains(MISSING))
}

fn look_of(pod: &Pod) -> Look {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
    let waiting = statuses.first().and_then(|status| status.state.clone()?.waiting?.reason);
    match waiting.as_deref() {
        None => Look::Runs,
        Some("ImagePullBackOff") => Look::NoImage,
        Some(_) => Look::Broken,
    }
}

fn pod(name: &str, owner: &ObjectMeta, look: Look) -> Pod {
    let (phase, status) = match look {
        Look::Runs => ("Running", json!({ "ready": true, "restartCount": 0, "state": { "running": {} } })),
        Look::NoImage => (
            "Pending",
            json!({ "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } } }),
        ),
        Look::Broken => (
            "Running",
            json!({ "ready": false, "restartCount": 1, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 2, "reason": "Error",
                    "message": "{\"reason\":\"InvalidProgram\",\"message\":\"no such table\"}" } } }),
        ),
    };
    let mut status = status;
    for (field, value) in [("name", "streamjob"), ("image", ""), ("imageID", "")] {
        status[field] = json!(value);
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            labels: owner.labels.clone(),
            ..ObjectMeta::default()
        },
        status: serde_json::from_value(json!({ "phase": phase, "containerStatuses": [status] })).unwrap(),
        ..Pod::default()
    }
}

fn is_worker_of(name: &str, pod: &Pod, revision: i64) -> bool {
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let workers = name.strip_prefix("job-w").and_then(|rest| rest.split_once('-'));
    runs && workers.is_some_and(|(number, _)| number.parse() == Ok(revision))
}
