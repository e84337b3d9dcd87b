//! A model of the API server, of the controllers that make pods, and of the pods themselves. One tick is one second.

use super::engine::{Coordinator, Phase, Storage};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PartialObjectMeta;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use streamjob_operator::api::StreamJob as Job;
use streamjob_operator::api::status::{OperationKind, OperationStep};
use streamjob_operator::api::{FINALIZER, Savepoint, SavepointPhase, StreamJob, StreamJobStatus};
use streamjob_operator::plan::effect::{Child, ChildKind, Deletion, Effect, EngineCall};
use streamjob_operator::plan::observed::{Children, EngineAnswer, Observed};
use streamjob_operator::plan::stop_trigger;
use streamjob_operator::resources::{REVISION, read_revision};
use streamjob_operator::settings::{Settings, TokenKey};

/// What the API server holds.
#[derive(Clone, Default)]
pub struct Objects {
    pub job: Option<Arc<Job>>,
    pub children: BTreeMap<(ChildKind, String), Arc<Child>>,
    pub savepoints: BTreeMap<String, Arc<Savepoint>>,
    pub pods: BTreeMap<String, Arc<Pod>>,
}

/// Why an effect is not done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Conflict,
    Unreachable,
}

pub struct World {
    pub seconds: i64,
    version: u64,
    pub objects: Objects,
    /// As it was, newest last: what caches that lag show.
    pub past: VecDeque<Objects>,
    pub coordinators: BTreeMap<i64, Coordinator>,
    pub storage: Storage,
    /// Every status that ever stood, as (operation id, step).
    steps: Vec<(String, OperationStep, OperationKind)>,
    pub settings: Settings,
    /// Images that cannot be pulled.
    pub missing_image: String,
    /// Pods of lost nodes: they never go by themselves.
    pub lost_node: bool,
    /// Anybody may write a status, however old what was read is: for a broken rule.
    pub no_versions: bool,
    pub namespace_terminating: bool,
    pub dispose_fails: bool,
    pub disposed: bool,
    incarnations: u64,
    pub finalizer_removed_with_pods: bool,
}

pub fn settings() -> Settings {
    Settings { engine_image: "engine".into(), image_pull_policy: None, token_key: TokenKey::new("key") }
}

impl World {
    pub fn new(spec: serde_json::Value) -> World {
        let mut job = StreamJob::new("job", serde_json::from_value(spec).unwrap());
        job.metadata.namespace = Some("space".into());
        job.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
        job.metadata.generation = Some(1);
        job.metadata.resource_version = Some("1".into());
        job.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_700_000_000).unwrap()));
        World {
            seconds: 1_700_000_000,
            version: 1,
            objects: Objects { job: Some(Arc::new(job)), ..Objects::default() },
            past: VecDeque::new(),
            coordinators: BTreeMap::new(),
            storage: Storage::default(),
            steps: Vec::new(),
            settings: settings(),
            missing_image: "missing".into(),
            lost_node: false,
            no_versions: false,
            namespace_terminating: false,
            dispose_fails: false,
            disposed: false,
            incarnations: 0,
            finalizer_removed_with_pods: false,
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds).unwrap()
    }

    pub fn status(&self) -> StreamJobStatus {
        self.objects.job.as_ref().and_then(|job| job.status.clone()).unwrap_or_default()
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        let mut spec = serde_json::to_value(&job.spec).unwrap();
        change(&mut spec);
        job.spec = serde_json::from_value(spec).unwrap();
        job.metadata.generation = job.metadata.generation.map(|generation| generation + 1);
        job.metadata.resource_version = Some(self.next_version());
        self.objects.job = Some(Arc::new(job));
    }

    pub fn delete_job(&mut self) {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        job.metadata.deletion_timestamp = Some(Time(self.now()));
        job.metadata.resource_version = Some(self.next_version());
        self.objects.job = Some(Arc::new(job));
    }

    /// What a controller sees whose caches lag by so many ticks: of its job, and of everything else.
    pub fn observe(&self, job_lag: usize, lag: usize) -> Option<Observed> {
        let at = |lag: usize| match lag {
            0 => &self.objects,
            _ => self.past.len().checked_sub(lag).and_then(|index| self.past.get(index)).unwrap_or(&self.objects),
        };
        let job = (**at(job_lag).job.as_ref()?).clone();
        let objects = at(lag);
        let mut children = Children::default();
        for child in objects.children.values() {
            match &**child {
                Child::ControllerRevision(it) => children.revisions.push((**it).clone()),
                Child::ConfigMap(it) => children.config_maps.push((**it).clone()),
                Child::Secret(it) => children
                    .secrets
                    .push(PartialObjectMeta { metadata: it.metadata.clone(), ..PartialObjectMeta::default() }),
                Child::ServiceAccount(it) => children.service_accounts.push((**it).clone()),
                Child::Service(it) => children.services.push((**it).clone()),
                Child::Deployment(it) => children.deployments.push((**it).clone()),
                Child::StatefulSet(it) => children.stateful_sets.push((**it).clone()),
                Child::PodDisruptionBudget(it) => children.disruption_budgets.push((**it).clone()),
                Child::PersistentVolumeClaim(it) => children.claims.push((**it).clone()),
                Child::Pod(it) => children.pods.push((**it).clone()),
            }
        }
        children.pods.extend(objects.pods.values().map(|pod| (**pod).clone()));
        let mut engines = BTreeMap::new();
        for (revision, coordinator) in &self.coordinators {
            let answer = match coordinator.phase {
                Phase::Exited(_) => EngineAnswer::Unreachable("refused".into()),
                _ => EngineAnswer::Status(Box::new(coordinator.status(&self.storage))),
            };
            engines.insert(*revision, answer);
        }
        let mut stops = BTreeMap::new();
        if let Some(operation) = job.status.as_ref().and_then(|status| status.operation.as_ref())
            && let Some(trigger) = stop_trigger(operation)
            && let Some(coordinator) = operation.from_revision.and_then(|from| self.coordinators.get(&from))
            && !matches!(coordinator.phase, Phase::Exited(_))
        {
            stops.insert(trigger.clone(), coordinator.answer(&trigger, &self.storage));
        }
        Some(Observed {
            job,
            namespace_terminating: self.namespace_terminating,
            children,
            engines,
            stops,
            savepoints: objects.savepoints.values().map(|savepoint| (**savepoint).clone()).collect(),
            events: Vec::new(),
            refused: None,
        })
    }

    /// One effect. `observed` is the job as the controller has read it.
    pub fn act(&mut self, observed: &Job, effect: &Effect) -> Result<(), Refusal> {
        if self.objects.job.is_none() {
            return Err(Refusal::Conflict);
        }
        match effect {
            Effect::WriteStatus(status) => return self.write_status(observed, status),
            Effect::AddFinalizer | Effect::RemoveFinalizer => self.finalizer(*effect == Effect::AddFinalizer),
            Effect::Create(child) => {
                self.check_creation(child);
                self.create(child.clone());
            }
            Effect::Apply(child) => {
                let name = metadata(child).name.clone().unwrap_or_default();
                self.objects.children.insert((child.kind(), name), Arc::new(child.clone()));
            }
            Effect::Delete(deletion) => self.delete(deletion),
            Effect::Engine { revision, call } => return self.call(*revision, call),
            Effect::CreateSavepoint(savepoint) => {
                let mut savepoint = (**savepoint).clone();
                savepoint.metadata.creation_timestamp = Some(Time(self.now()));
                let mut status = savepoint.status.clone().unwrap_or_default();
                status.phase = SavepointPhase::Completed;
                status.path.clone_from(&savepoint.spec.path);
                savepoint.status = Some(status);
                let name = savepoint.metadata.name.clone().unwrap();
                self.objects.savepoints.entry(name).or_insert_with(|| Arc::new(savepoint));
            }
            Effect::DeleteSavepoint { name } => drop(self.objects.savepoints.remove(name)),
            Effect::Event(_) => {}
        }
        Ok(())
    }

    fn write_status(&mut self, observed: &Job, status: &StreamJobStatus) -> Result<(), Refusal> {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        if job.metadata.resource_version != observed.metadata.resource_version && !self.no_versions {
            return Err(Refusal::Conflict);
        }
        // As it is read back.
        let json = serde_json::to_vec(status).unwrap();
        assert!(json.len() < 16 * 1024, "the status has {} bytes", json.len());
        job.status = Some(serde_json::from_slice(&json).unwrap());
        job.metadata.resource_version = Some(self.next_version());
        if let Some(operation) = &status.operation {
            self.steps.push((operation.id.clone(), operation.step, operation.kind));
        }
        self.objects.job = Some(Arc::new(job));
        Ok(())
    }

    fn finalizer(&mut self, add: bool) {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        job.metadata.finalizers = add.then(|| vec![FINALIZER.to_owned()]);
        job.metadata.resource_version = Some(self.next_version());
        let gone = !add && job.metadata.deletion_timestamp.is_some();
        if gone {
            self.finalizer_removed_with_pods =
                self.coordinators.values().any(|coordinator| coordinator.is_active(&self.storage)) && !self.lost_node;
        }
        self.objects.job = (!gone).then(|| Arc::new(job));
        if gone {
            // The garbage collector.
            self.objects.children.clear();
            self.objects.pods.clear();
            self.coordinators.clear();
        }
    }

    fn violation(&mut self, text: String) {
        self.storage.violations.push(text);
    }

    /// An operation stood written that says so.
    fn is_recorded(&self, allowed: &[OperationStep]) -> bool {
        self.steps.iter().any(|(_, step, _)| allowed.contains(step))
    }

    fn check_creation(&mut self, child: &Child) {
        let revision = revision_of(metadata(child));
        let status = self.status();
        if let (Child::Deployment(_), Some(revision)) = (child, revision)
            && status.last_revision.is_none_or(|last| last < revision)
        {
            self.violation(format!("I7: pods of revision {revision}, which no status has named"));
        }
    }

    fn create(&mut self, mut child: Child) {
        let key = (child.kind(), metadata(&child).name.clone().unwrap_or_default());
        if self.objects.children.contains_key(&key) {
            return;
        }
        self.version += 1;
        let uid = Some(format!("uid-{}", self.version));
        match &mut child {
            Child::ControllerRevision(it) => it.metadata.uid = uid,
            Child::Deployment(it) => it.metadata.uid = uid,
            Child::StatefulSet(it) => it.metadata.uid = uid,
            Child::ConfigMap(it) => it.metadata.uid = uid,
            Child::Service(it) => it.metadata.uid = uid,
            Child::Pod(it) => it.metadata.uid = uid,
            _ => {}
        }
        self.objects.children.insert(key, Arc::new(child));
    }

    fn delete(&mut self, deletion: &Deletion) {
        if deletion.kind == ChildKind::Pod {
            self.objects.pods.remove(&deletion.name);
            self.objects.children.remove(&(ChildKind::Pod, deletion.name.clone()));
            return;
        }
        let key = (deletion.kind, deletion.name.clone());
        let Some(found) = self.objects.children.get(&key) else { return };
        if deletion.uid.is_some() && metadata(found).uid != deletion.uid {
            return;
        }
        let revision = revision_of(metadata(found));
        let status = self.status();
        let current = status.current_revision.is_some() && revision == status.current_revision;
        let stops = [OperationStep::Stopping, OperationStep::Disposing];
        let stopping = status.operation.as_ref().is_some_and(|operation| stops.contains(&operation.step));
        // A stateful set goes with the end of its job as well.
        let over = status.suspended || status.ended.is_some() || stopping;
        let workload = matches!(deletion.kind, ChildKind::Deployment | ChildKind::StatefulSet);
        if workload && current && !over {
            self.violation(format!("I7: {} is deleted while it runs, and no operation says so", deletion.name));
        }
        self.objects.children.remove(&key);
    }

    fn call(&mut self, revision: i64, call: &EngineCall) -> Result<(), Refusal> {
        let status = self.status();
        let recorded = match call {
            EngineCall::Activate => self.is_recorded(&[OperationStep::Activating]),
            EngineCall::Stop { .. } => self.is_recorded(&[OperationStep::Saving]),
            EngineCall::Cancel => self.is_recorded(&[OperationStep::Stopping]),
            _ => true,
        };
        if !recorded {
            self.violation(format!("I7: {call:?} without a record"));
        }
        if *call == EngineCall::Activate && status.current_revision != Some(revision) {
            // Whoever reads an old status may repeat it; the coordinator of a revision that never was current may not be told.
            let known = status.history.iter().any(|entry| entry.to_revision == Some(revision));
            if !known {
                self.violation(format!("I7: revision {revision} is told to take over, and the status does not say so"));
            }
        }
        let Some(coordinator) = self.coordinators.get_mut(&revision) else { return Err(Refusal::Unreachable) };
        if matches!(coordinator.phase, Phase::Exited(_)) {
            return Err(Refusal::Unreachable);
        }
        match call {
            EngineCall::Activate => coordinator.activate(&mut self.storage),
            EngineCall::Stop { trigger, .. } => coordinator.stop(trigger, &mut self.storage),
            EngineCall::Cancel => coordinator.cancel(&mut self.storage),
            EngineCall::Savepoint { .. } | EngineCall::Configure(_) => {}
        }
        Ok(())
    }

    /// The coordinator's process ends and comes back.
    pub fn kill_coordinators(&mut self) {
        for revision in self.coordinators.keys().copied().collect::<Vec<_>>() {
            self.coordinators.remove(&revision);
        }
    }

    /// A second passes.
    pub fn tick(&mut self) {
        self.past.push_back(self.objects.clone());
        if self.past.len() > 6 {
            self.past.pop_front();
        }
        self.seconds += 1;
        self.run_workloads();
        let now_ms = self.seconds * 1000;
        for revision in self.coordinators.keys().copied().collect::<Vec<_>>() {
            let slots = self.objects.pods.values().filter(|pod| is_worker_of(pod, revision)).count();
            if let Some(coordinator) = self.coordinators.get_mut(&revision) {
                coordinator.slots = i64::try_from(slots).unwrap();
                coordinator.tick(&mut self.storage, now_ms);
            }
        }
        let active: Vec<i64> = self
            .coordinators
            .values()
            .filter(|coordinator| coordinator.is_active(&self.storage))
            .map(|coordinator| coordinator.revision)
            .collect();
        if active.len() > 1 {
            self.violation(format!("revisions {active:?} run at once"));
        }
    }

    /// What the controllers of Kubernetes and the kubelet do.
    fn run_workloads(&mut self) {
        let mut wanted: BTreeMap<String, Pod> = BTreeMap::new();
        let mut coordinators: Vec<i64> = Vec::new();
        for child in self.objects.children.values() {
            match &**child {
                Child::Deployment(deployment) => {
                    let Some(revision) = revision_of(&deployment.metadata) else { continue };
                    let name = format!("{}-0", deployment.metadata.name.clone().unwrap());
                    let pulled = !image_of(deployment).contains(&self.missing_image);
                    if pulled {
                        coordinators.push(revision);
                    }
                    let exited = self.coordinators.get(&revision).map(|coordinator| coordinator.phase);
                    wanted.insert(name.clone(), pod(&name, &deployment.metadata, pulled, exited));
                }
                Child::StatefulSet(set) => {
                    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                    let pulled = !image_of_set(set).contains(&self.missing_image);
                    for index in 0..replicas {
                        let name = format!("{}-{index}", set.metadata.name.clone().unwrap());
                        wanted.insert(name.clone(), pod(&name, &set.metadata, pulled, None));
                    }
                }
                _ => {}
            }
        }
        let now = self.now();
        let lost = self.lost_node;
        let mut kept = BTreeMap::new();
        for (name, pod) in &self.objects.pods {
            if !wanted.contains_key(name) && lost {
                let mut pod = (**pod).clone();
                pod.metadata.deletion_timestamp.get_or_insert(Time(now));
                kept.insert(name.clone(), Arc::new(pod));
            }
        }
        for (name, pod) in wanted {
            kept.insert(name, Arc::new(pod));
        }
        self.objects.pods = kept;
        // On a lost node a process goes on that nobody sees.
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
            let stored = read_revision(stored).unwrap();
            self.incarnations += 1;
            let sql = stored.spec.program.sql.clone().unwrap_or_default();
            let coordinator = Coordinator::new(
                revision,
                &stored.job_id,
                stored.replaces.clone(),
                stored.restore_path.clone(),
                &sql,
                i64::from(stored.spec.parallelism),
                self.incarnations,
                &mut self.storage,
            );
            self.coordinators.insert(revision, coordinator);
        }
        let key = (ChildKind::Pod, "job-dispose".to_owned());
        if let Some(Child::Pod(found)) = self.objects.children.get(&key).map(|child| &**child) {
            let mut found = found.clone();
            let phase = if self.dispose_fails { "Failed" } else { "Succeeded" };
            self.disposed |= !self.dispose_fails;
            found.status = serde_json::from_value(json!({ "phase": phase })).unwrap();
            self.objects.children.insert(key, Arc::new(Child::Pod(found)));
        }
    }
}

fn image_of(deployment: &Deployment) -> String {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    pod.containers.first().and_then(|container| container.image.clone()).unwrap_or_default()
}

fn image_of_set(set: &StatefulSet) -> String {
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    pod.containers.first().and_then(|container| container.image.clone()).unwrap_or_default()
}

fn pod(name: &str, owner: &ObjectMeta, pulled: bool, phase: Option<Phase>) -> Pod {
    let waiting = json!([{ "name": "streamjob", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } } }]);
    let broken = json!([{ "name": "streamjob", "image": "", "imageID": "", "ready": false, "restartCount": 1,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "exitCode": 2, "reason": "Error",
            "message": "{\"reason\":\"InvalidProgram\",\"message\":\"no such table\"}" } } }]);
    let running = json!([{ "name": "streamjob", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": { "running": {} } }]);
    let (statuses, state) = match (pulled, phase) {
        (false, _) => (waiting, "Pending"),
        (true, Some(Phase::Exited(2))) => (broken, "Running"),
        _ => (running, "Running"),
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            labels: owner.labels.clone(),
            ..ObjectMeta::default()
        },
        status: serde_json::from_value(json!({ "phase": state, "containerStatuses": statuses })).unwrap(),
        ..Pod::default()
    }
}

fn is_worker_of(pod: &Pod, revision: i64) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    runs && name.starts_with(&format!("job-w{revision}-"))
}

pub fn metadata(child: &Child) -> &ObjectMeta {
    match child {
        Child::ControllerRevision(it) => &it.metadata,
        Child::ConfigMap(it) => &it.metadata,
        Child::Secret(it) => &it.metadata,
        Child::ServiceAccount(it) => &it.metadata,
        Child::Service(it) => &it.metadata,
        Child::Deployment(it) => &it.metadata,
        Child::StatefulSet(it) => &it.metadata,
        Child::PodDisruptionBudget(it) => &it.metadata,
        Child::PersistentVolumeClaim(it) => &it.metadata,
        Child::Pod(it) => &it.metadata,
    }
}

fn revision_of(metadata: &ObjectMeta) -> Option<i64> {
    metadata.labels.as_ref()?.get(REVISION)?.parse().ok()
}
