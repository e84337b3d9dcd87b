//! A model of the API server: objects with versions, finalizers and refusals, and what each effect does to them. Pods and
//! the passing of time are in [`super::kubernetes`].

use super::engine::{Coordinator, Phase, Storage};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PartialObjectMeta;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use streamjob_api::spec::{LocalReference, StreamJobSpec};
use streamjob_operator::api::status::OperationStep;
use streamjob_operator::api::{FINALIZER, Savepoint, SavepointSpec, SavepointStatus, StreamJob, StreamJobStatus};
use streamjob_operator::plan::effect::{Child, ChildKind, Deletion, Effect, EngineCall, SavepointEffect};
use streamjob_operator::plan::observed::{self, Children, EngineAnswer, Observed, ObservedSavepoint, SavepointAnswer};
use streamjob_operator::plan::{savepoint_trigger, stop_trigger};
use streamjob_operator::resources::{REVISION, read_revision};
use streamjob_operator::settings::{Settings, TokenKey};

/// What the API server holds.
#[derive(Clone, Default)]
pub struct Objects {
    /// Grows with every change.
    pub version: u64,
    pub job: Option<Arc<StreamJob>>,
    pub children: BTreeMap<(ChildKind, String), Arc<Child>>,
    pub savepoints: BTreeMap<String, Arc<Savepoint>>,
    pub pods: BTreeMap<String, Arc<Pod>>,
}

/// Why an effect is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// What was read is out of date, or the API server is too busy.
    Again,
    Unreachable,
    /// The API server will never take it.
    Invalid(observed::Refusal),
    /// Nothing can be created any more.
    Terminating,
    /// The coordinator will not save: by the name of the request.
    Savepoint(String, SavepointAnswer),
}

/// What a controller remembers until its process ends.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub refused: Option<(Option<i64>, observed::Refusal)>,
    pub savepoints: BTreeMap<String, SavepointAnswer>,
    pub terminating: bool,
}

/// How old what a controller sees is, in ticks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lag {
    pub job: usize,
    pub others: usize,
}

/// What all coordinators said in one tick.
#[derive(Clone)]
struct Heard {
    fingerprint: u64,
    answers: BTreeMap<i64, EngineAnswer>,
}

/// What happens in a story by itself, and at which second.
type Later = (i64, fn(&mut World));

pub struct World {
    pub seconds: i64,
    pub objects: Objects,
    /// As it was, newest last: what caches that lag show.
    pub past: VecDeque<Objects>,
    /// How old what controllers know of running jobs is, in ticks. How a savepoint stands is asked for at once.
    pub engine_lag: usize,
    /// What coordinators said in as many ticks, newest last.
    heard: VecDeque<Heard>,
    pub coordinators: BTreeMap<i64, Coordinator>,
    pub storage: Storage,
    /// Every step that was ever written down.
    steps: Vec<OperationStep>,
    pub settings: Settings,
    /// What people do later, by the second.
    later: Vec<Later>,
    /// Pods of lost nodes: they never go by themselves.
    pub lost_node: bool,
    /// Coordinators up to this revision run, and nobody reaches them.
    pub mute: i64,
    /// Anybody may write a status, however old what was read is: for a broken rule.
    pub no_versions: bool,
    pub namespace_terminating: bool,
    pub dispose_fails: bool,
    pub disposed: bool,
    pub incarnations: u64,
    pub finalizer_removed_with_pods: bool,
    /// Nothing goes wrong that the story does not tell of.
    pub faultless: bool,
    /// Reasons of events. A controller that is killed may publish none.
    pub events: Vec<String>,
}

/// The same for all worlds: a key is made once.
fn settings() -> Settings {
    Settings { engine_image: "engine".into(), image_pull_policy: None, token_key: TokenKey::new("key") }
}

impl World {
    pub fn new(spec: Value) -> World {
        let mut world = World {
            seconds: 1_700_000_000,
            objects: Objects::default(),
            past: VecDeque::new(),
            engine_lag: 0,
            heard: VecDeque::new(),
            coordinators: BTreeMap::new(),
            storage: Storage::default(),
            steps: Vec::new(),
            settings: settings(),
            later: Vec::new(),
            lost_node: false,
            mute: 0,
            no_versions: false,
            namespace_terminating: false,
            dispose_fails: false,
            disposed: false,
            incarnations: 0,
            finalizer_removed_with_pods: false,
            faultless: true,
            events: Vec::new(),
        };
        let mut job = StreamJob::new("job", serde_json::from_value(spec).unwrap());
        job.metadata.namespace = Some("space".into());
        job.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
        job.metadata.generation = Some(1);
        job.metadata.creation_timestamp = Some(Time(world.now()));
        world.put_job(job);
        world
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds).unwrap()
    }

    pub fn status(&self) -> StreamJobStatus {
        self.objects.job.as_ref().and_then(|job| job.status.clone()).unwrap_or_default()
    }

    pub fn changed(&mut self) -> u64 {
        self.objects.version += 1;
        self.objects.version
    }

    fn put_job(&mut self, mut job: StreamJob) {
        job.metadata.resource_version = Some(self.changed().to_string());
        self.objects.job = Some(Arc::new(job));
    }

    fn put_savepoint(&mut self, mut savepoint: Savepoint) {
        savepoint.metadata.resource_version = Some(self.changed().to_string());
        self.objects.savepoints.insert(savepoint.metadata.name.clone().unwrap(), Arc::new(savepoint));
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        // Whoever deleted the job edits no more.
        let Some(found) = self.objects.job.as_ref().filter(|job| job.metadata.deletion_timestamp.is_none()) else {
            return;
        };
        let mut job = (**found).clone();
        let mut spec = serde_json::to_value(&job.spec).unwrap();
        change(&mut spec);
        job.spec = serde_json::from_value(spec).unwrap();
        job.metadata.generation = job.metadata.generation.map(|generation| generation + 1);
        self.put_job(job);
    }

    pub fn later(&mut self, seconds: i64, act: fn(&mut World)) {
        self.later.push((self.seconds + seconds, act));
    }

    pub(super) fn do_what_is_due(&mut self) {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= self.seconds);
        self.later = later;
        let due: Vec<Later> = due;
        due.into_iter().for_each(|(_, act)| act(self));
    }

    /// Nobody is going to do anything.
    pub fn is_quiet(&self) -> bool {
        self.later.is_empty()
    }

    pub fn delete_job(&mut self) {
        let Some(job) = &self.objects.job else { return };
        let mut job = (**job).clone();
        job.metadata.deletion_timestamp = Some(Time(self.now()));
        if job.metadata.finalizers.is_none() {
            self.objects.job = None;
            self.changed();
            return;
        }
        self.put_job(job);
    }

    /// By a person, or by the operator.
    pub fn create_savepoint(&mut self, mut savepoint: Savepoint) {
        let name = savepoint.metadata.name.clone().unwrap();
        if self.objects.savepoints.contains_key(&name) {
            return;
        }
        savepoint.metadata.namespace = Some("space".into());
        savepoint.metadata.uid = Some(format!("00000000-0000-0000-0000-{:012}", self.objects.version));
        savepoint.metadata.generation = Some(1);
        savepoint.metadata.creation_timestamp = Some(Time(self.now()));
        savepoint.status = None;
        self.put_savepoint(savepoint);
    }

    pub fn ask_for_savepoint(&mut self, name: &str, path: Option<&str>, retain: bool) {
        let job_ref = LocalReference { name: "job".into() };
        let path = path.map(str::to_owned);
        let spec = SavepointSpec { job_ref, path, format: Default::default(), retain };
        self.create_savepoint(Savepoint::new(name, spec));
    }

    pub fn delete_savepoint(&mut self, name: &str) {
        let Some(found) = self.objects.savepoints.get(name) else { return };
        if found.metadata.finalizers.is_none() {
            self.objects.savepoints.remove(name);
            self.changed();
        } else if found.metadata.deletion_timestamp.is_none() {
            let mut savepoint = (**found).clone();
            savepoint.metadata.deletion_timestamp = Some(Time(self.now()));
            self.put_savepoint(savepoint);
        }
    }

    /// Replicas of the workloads with this name, by hand.
    pub fn scale(&mut self, name: &str, replicas: i32) {
        for kind in [ChildKind::Deployment, ChildKind::StatefulSet] {
            let Some(found) = self.objects.children.get_mut(&(kind, name.to_owned())) else { continue };
            match Arc::make_mut(found) {
                Child::Deployment(it) => it.spec.as_mut().unwrap().replicas = Some(replicas),
                Child::StatefulSet(it) => it.spec.as_mut().unwrap().replicas = Some(replicas),
                _ => {}
            }
        }
        self.changed();
    }

    fn at(&self, lag: usize) -> &Objects {
        let past = self.past.len().checked_sub(lag).filter(|_| lag > 0).and_then(|index| self.past.get(index));
        past.unwrap_or(&self.objects)
    }

    /// The same as long as an observation would be.
    pub fn fingerprint(&self, lag: Lag) -> u64 {
        let mut hasher = DefaultHasher::new();
        let engines = self.heard().map_or_else(|| self.print_of_coordinators(), |heard| heard.fingerprint);
        (self.at(lag.job).version, self.at(lag.others).version, self.mute, engines).hash(&mut hasher);
        hasher.finish()
    }

    fn print_of_coordinators(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.coordinators.values().for_each(|coordinator| coordinator.fingerprint(&self.storage, &mut hasher));
        hasher.finish()
    }

    /// A tick ends: what coordinators say is heard later.
    pub(super) fn listen(&mut self) {
        if self.engine_lag > 0 {
            let said = Heard { fingerprint: self.print_of_coordinators(), answers: self.said() };
            self.heard.push_back(said);
        }
        while self.heard.len() > self.engine_lag {
            self.heard.pop_front();
        }
    }

    /// What coordinators say now.
    fn said(&self) -> BTreeMap<i64, EngineAnswer> {
        let coordinators = self.coordinators.iter();
        coordinators.filter_map(|(revision, it)| Some((*revision, self.answer_of(it)?))).collect()
    }

    /// What is known of what they said some ticks ago; nothing if what they say now is known.
    fn heard(&self) -> Option<&Heard> {
        self.heard.front().filter(|_| self.heard.len() == self.engine_lag)
    }

    fn answers(&self) -> BTreeMap<i64, EngineAnswer> {
        self.heard().map_or_else(|| self.said(), |heard| heard.answers.clone())
    }

    fn answer_of(&self, coordinator: &Coordinator) -> Option<EngineAnswer> {
        Some(match coordinator.phase {
            _ if coordinator.revision <= self.mute => EngineAnswer::Unreachable("no route".into()),
            Phase::Exited(_) => EngineAnswer::Unreachable("refused".into()),
            _ => EngineAnswer::Status(Box::new(coordinator.status(&self.storage))),
        })
    }

    /// How a request stands, as the coordinator says, or said.
    fn answer_to(&self, revision: i64, trigger: &str, memory: &Memory) -> Option<SavepointAnswer> {
        let coordinator = self.coordinators.get(&revision).filter(|_| revision > self.mute)?;
        match coordinator.phase {
            Phase::Exited(_) => None,
            _ => match coordinator.answer(trigger, &self.storage) {
                SavepointAnswer::Unknown => memory.savepoints.get(trigger).cloned().or(Some(SavepointAnswer::Unknown)),
                known => Some(known),
            },
        }
    }

    /// What a controller sees of the job.
    pub fn observe(&self, lag: Lag, memory: &Memory) -> Option<Observed> {
        let job = (**self.at(lag.job).job.as_ref()?).clone();
        let objects = self.at(lag.others);
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
        let mut stops = BTreeMap::new();
        let operation = job.status.as_ref().and_then(|status| status.operation.as_ref());
        if let Some((trigger, from)) = operation.and_then(|it| Some((stop_trigger(it)?, it.from_revision?)))
            && let Some(answer) = self.answer_to(from, &trigger, memory)
        {
            stops.insert(trigger, answer);
        }
        let refused = memory.refused.as_ref().filter(|(generation, _)| *generation == job.metadata.generation);
        Some(Observed {
            refused: refused.map(|(_, refusal)| refusal.clone()),
            job,
            namespace_terminating: memory.terminating,
            children,
            engines: self.answers(),
            stops,
            savepoints: objects.savepoints.values().map(|savepoint| (**savepoint).clone()).collect(),
            events: Vec::new(),
        })
    }

    /// What a controller sees of a savepoint.
    pub fn observe_savepoint(&self, name: &str, lag: Lag, memory: &Memory) -> Option<ObservedSavepoint> {
        let objects = self.at(lag.others);
        let savepoint = (**objects.savepoints.get(name)?).clone();
        let job = self.at(lag.job).job.as_ref().map(|job| (**job).clone());
        let current = job.as_ref().and_then(|job| job.status.as_ref()?.current_revision);
        let revision = current
            .and_then(|current| objects.children.get(&(ChildKind::ControllerRevision, format!("job-{current}"))));
        let spec: Option<StreamJobSpec> = revision.and_then(|revision| match &**revision {
            Child::ControllerRevision(it) => Some(read_revision(it).unwrap().spec),
            _ => None,
        });
        let engine = current.and_then(|current| self.answers().remove(&current));
        let asked = savepoint.status.as_ref().and_then(|status| status.trigger_id.as_ref());
        let answer = asked.and(current).and_then(|it| self.answer_to(it, &savepoint_trigger(&savepoint), memory));
        let dispose_pod = objects.children.get(&(ChildKind::Pod, format!("{name}-dispose")));
        Some(ObservedSavepoint {
            namespace_terminating: memory.terminating,
            job,
            spec,
            engine,
            answer,
            dispose_pod: dispose_pod.and_then(|pod| match &**pod {
                Child::Pod(pod) => Some((**pod).clone()),
                _ => None,
            }),
            savepoint,
        })
    }

    /// One effect. `observed` is the job as the controller has read it.
    pub fn act(&mut self, observed: &StreamJob, effect: &Effect) -> Result<(), Refusal> {
        if self.objects.job.is_none() {
            return Err(Refusal::Again);
        }
        match effect {
            Effect::WriteStatus(status) => self.write_status(observed, status),
            Effect::AddFinalizer | Effect::RemoveFinalizer => {
                self.finalizer(*effect == Effect::AddFinalizer);
                Ok(())
            }
            Effect::Create(child) => {
                self.check_creation(child);
                self.create(child)
            }
            Effect::Apply(child) => {
                let name = metadata(child).name.clone().unwrap_or_default();
                self.objects.children.insert((child.kind(), name), Arc::new(child.clone()));
                self.changed();
                Ok(())
            }
            Effect::Delete(deletion) => {
                self.delete(deletion);
                Ok(())
            }
            Effect::Scale(scaling) => {
                self.scale(&scaling.name, scaling.replicas);
                Ok(())
            }
            Effect::Engine { revision, call } => self.call(*revision, call),
            Effect::CreateSavepoint(_) if self.namespace_terminating => Err(Refusal::Terminating),
            Effect::CreateSavepoint(savepoint) => {
                self.create_savepoint((**savepoint).clone());
                Ok(())
            }
            Effect::DeleteSavepoint { name } => {
                self.delete_savepoint(name);
                Ok(())
            }
            Effect::Event(event) => {
                self.events.push(event.reason.clone());
                Ok(())
            }
        }
    }

    /// One effect on a savepoint. `observed` is the savepoint as the controller has read it.
    pub fn act_on_savepoint(&mut self, observed: &Savepoint, effect: &SavepointEffect) -> Result<(), Refusal> {
        let name = observed.metadata.name.clone().unwrap();
        let Some(found) = self.objects.savepoints.get(&name).filter(|it| it.metadata.uid == observed.metadata.uid)
        else {
            return Err(Refusal::Again);
        };
        let mut savepoint = (**found).clone();
        match effect {
            SavepointEffect::WriteStatus(status) => {
                if savepoint.metadata.resource_version != observed.metadata.resource_version && !self.no_versions {
                    return Err(Refusal::Again);
                }
                // As it is read back.
                let status: SavepointStatus = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
                savepoint.status = Some(status);
                self.put_savepoint(savepoint);
            }
            SavepointEffect::AddFinalizer => {
                savepoint.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
                self.put_savepoint(savepoint);
            }
            SavepointEffect::RemoveFinalizer => {
                savepoint.metadata.finalizers = None;
                if savepoint.metadata.deletion_timestamp.is_some() {
                    self.objects.savepoints.remove(&name);
                    // The garbage collector.
                    self.objects.children.remove(&(ChildKind::Pod, format!("{name}-dispose")));
                    self.changed();
                } else {
                    self.put_savepoint(savepoint);
                }
            }
            SavepointEffect::Create(child) => return self.create(child),
            SavepointEffect::Delete(deletion) => self.delete(deletion),
            SavepointEffect::Engine { revision, call } => {
                // Whoever reads an old status may repeat it.
                if savepoint.status.unwrap_or_default().trigger_id.is_none() {
                    self.violation(format!("I7: savepoint {name} is asked for, and its status does not say so"));
                }
                return self.call(*revision, call);
            }
            SavepointEffect::Event(event) => self.events.push(event.reason.clone()),
        }
        Ok(())
    }

    fn write_status(&mut self, observed: &StreamJob, status: &StreamJobStatus) -> Result<(), Refusal> {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        if job.metadata.resource_version != observed.metadata.resource_version && !self.no_versions {
            return Err(Refusal::Again);
        }
        // As it is read back.
        let json = serde_json::to_vec(status).unwrap();
        assert!(json.len() < 16 * 1024, "the status has {} bytes", json.len());
        let before = job.status.replace(serde_json::from_slice(&json).unwrap()).unwrap_or_default();
        if status.last_revision < before.last_revision || status.current_revision < before.current_revision {
            self.violation(format!(
                "I10: revisions go back: {:?} after {:?}",
                status.last_revision, before.last_revision
            ));
        }
        if let Some(operation) = &status.operation {
            self.steps.push(operation.step);
        }
        self.put_job(job);
        Ok(())
    }

    fn finalizer(&mut self, add: bool) {
        let mut job = (**self.objects.job.as_ref().unwrap()).clone();
        job.metadata.finalizers = add.then(|| vec![FINALIZER.to_owned()]);
        if add || job.metadata.deletion_timestamp.is_none() {
            return self.put_job(job);
        }
        let runs = self.coordinators.values().any(|coordinator| coordinator.is_active(&self.storage));
        self.finalizer_removed_with_pods = runs && !self.lost_node;
        self.objects.job = None;
        // The garbage collector.
        self.objects.children.retain(|(kind, name), _| *kind == ChildKind::Pod && name != "job-dispose");
        self.objects.pods.clear();
        self.coordinators.clear();
        self.changed();
    }

    pub fn violation(&mut self, text: String) {
        self.storage.violations.push(text);
    }

    fn is_recorded(&self, allowed: OperationStep) -> bool {
        self.steps.contains(&allowed)
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

    fn create(&mut self, child: &Child) -> Result<(), Refusal> {
        if self.namespace_terminating {
            return Err(Refusal::Terminating);
        }
        let key = (child.kind(), metadata(child).name.clone().unwrap_or_default());
        if self.objects.children.contains_key(&key) {
            return Ok(());
        }
        if serde_json::to_string(child).unwrap().contains("forbidden:") && child.kind() == ChildKind::Deployment {
            let object = format!("{:?} {}", key.0, key.1);
            let message = "spec.template.spec.containers[0].image: Forbidden".into();
            return Err(Refusal::Invalid(observed::Refusal { object, message, terminal: true }));
        }
        let mut child = child.clone();
        let uid = Some(format!("uid-{}", self.changed()));
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
        Ok(())
    }

    fn delete(&mut self, deletion: &Deletion) {
        let key = (deletion.kind, deletion.name.clone());
        if deletion.kind == ChildKind::Pod && self.objects.pods.remove(&deletion.name).is_some() {
            self.changed();
        }
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
        self.changed();
    }

    fn call(&mut self, revision: i64, call: &EngineCall) -> Result<(), Refusal> {
        let status = self.status();
        let recorded = match call {
            EngineCall::Activate => self.is_recorded(OperationStep::Activating),
            EngineCall::Stop { .. } => self.is_recorded(OperationStep::Saving),
            EngineCall::Cancel => self.is_recorded(OperationStep::Stopping),
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
        let found = self.coordinators.get_mut(&revision).filter(|it| !matches!(it.phase, Phase::Exited(_)));
        let Some(coordinator) = found.filter(|_| revision > self.mute) else { return Err(Refusal::Unreachable) };
        let (trigger, directory) = match call {
            EngineCall::Activate => {
                coordinator.activate(&mut self.storage);
                return Ok(());
            }
            EngineCall::Cancel => {
                coordinator.cancel(&mut self.storage);
                return Ok(());
            }
            EngineCall::Configure(change) => {
                coordinator.configure(change);
                return Ok(());
            }
            EngineCall::Stop { trigger, directory } | EngineCall::Savepoint { trigger, directory } => {
                (trigger, directory)
            }
        };
        let stops = matches!(call, EngineCall::Stop { .. });
        let asked = coordinator.save_or_stop(trigger, directory.as_deref(), stops, &mut self.storage);
        asked.map_err(|(code, reason)| {
            let terminal = code == 400;
            Refusal::Savepoint(trigger.clone(), SavepointAnswer::Refused { reason, terminal })
        })
    }
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

pub fn revision_of(metadata: &ObjectMeta) -> Option<i64> {
    metadata.labels.as_ref()?.get(REVISION)?.parse().ok()
}

/// A condition that is true, as its reason and message.
pub fn truth(status: &StreamJobStatus, aspect: &str) -> Option<(String, String)> {
    let text = |value: Value| value.as_str().map(str::to_owned);
    let conditions = json!(status.conditions);
    let found = conditions.as_array()?.iter().find(|it| it["type"] == aspect && it["status"] == "True")?.clone();
    Some((text(found["reason"].clone())?, text(found["message"].clone())?))
}
