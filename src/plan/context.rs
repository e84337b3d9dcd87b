//! What was observed, as questions that decisions ask.

use super::changes::attempt;
use super::effect::{Child, ChildKind, Deletion, Effect, Scaling};
use super::engine::Engine;
use super::observed::{EngineAnswer, Observed};
use crate::api::status::{Operation, OperationKind, StreamJobStatus};
use crate::diagnosis::{Diagnosis, diagnose};
use crate::resources::{self, REVISION, StoredRevision, names, read_revision};
use crate::settings::Settings;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;
use streamjob_api::spec::{DesiredState, StreamJobSpec, Upgrade};

pub struct Context<'a> {
    pub observed: &'a Observed,
    pub settings: &'a Settings,
    pub now: Timestamp,
    /// As observed; empty if there is none.
    pub status: StreamJobStatus,
    pub spec: &'a StreamJobSpec,
    /// Every spec that was begun, by number.
    pub revisions: BTreeMap<i64, StoredRevision>,
    attempt: OnceCell<String>,
}

impl<'a> Context<'a> {
    pub fn new(observed: &'a Observed, settings: &'a Settings, now: Timestamp) -> Context<'a> {
        let stored = observed.children.revisions.iter().filter_map(|revision| read_revision(revision).ok());
        Context {
            observed,
            settings,
            now,
            status: observed.job.status.clone().unwrap_or_default(),
            spec: &observed.job.spec,
            revisions: stored.map(|revision| (revision.number, revision)).collect(),
            attempt: OnceCell::new(),
        }
    }

    pub fn name(&self) -> &str {
        self.observed.job.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.observed.job.metadata.uid.as_deref().unwrap_or_default()
    }

    pub fn generation(&self) -> Option<i64> {
        self.observed.job.metadata.generation
    }

    pub fn operation(&self) -> Option<&Operation> {
        self.status.operation.as_ref()
    }

    /// What the newest spec asks for, as a hash.
    pub fn attempt(&self) -> String {
        self.attempt.get_or_init(|| attempt(self.spec)).clone()
    }

    pub fn upgrade(&self) -> Upgrade {
        self.spec.upgrade.clone().unwrap_or_default()
    }

    pub fn suspend(&self) -> bool {
        self.spec.state == Some(DesiredState::Suspended)
    }

    /// Revision and stored spec of what runs, or ran last.
    pub fn current(&self) -> Option<(i64, Option<&StoredRevision>)> {
        let current = self.status.current_revision?;
        Some((current, self.revisions.get(&current)))
    }

    pub fn next_revision(&self) -> i64 {
        self.status.last_revision.max(self.highest_object()).unwrap_or(0) + 1
    }

    /// Somebody has begun revisions that the status which was read does not know of.
    pub fn is_behind(&self) -> bool {
        self.status.last_revision.is_some() && self.highest_object() > self.status.last_revision
    }

    fn highest_object(&self) -> Option<i64> {
        let children = &self.observed.children;
        let workloads = children.deployments.iter().map(|object| &object.metadata);
        let workloads = workloads.chain(children.stateful_sets.iter().map(|object| &object.metadata));
        self.revisions.keys().copied().chain(workloads.filter_map(revision_of)).max()
    }

    pub fn elapsed(&self, since: Timestamp) -> Duration {
        Duration::try_from(self.now.duration_since(since)).unwrap_or_default()
    }

    /// What the coordinator of a revision says, if it speaks of the job that is meant.
    pub fn engine(&self, revision: i64, job_id: Option<&str>) -> Engine<'a> {
        match self.observed.engines.get(&revision) {
            None => Engine::Absent,
            Some(EngineAnswer::Unreachable(_)) => Engine::Unreachable,
            Some(EngineAnswer::Status(status)) => {
                let other = job_id.is_some_and(|job_id| !status.job_id.is_empty() && status.job_id != job_id);
                // Of an earlier job of the same name, whose pods have yet to go.
                if other { Engine::Absent } else { Engine::Answers(status) }
            }
        }
    }

    pub fn current_engine(&self) -> Engine<'a> {
        match self.status.current_revision {
            Some(current) => self.engine(current, self.status.job_id.as_deref()),
            None => Engine::Absent,
        }
    }

    pub fn pods_of(&self, revision: i64) -> Vec<Pod> {
        let pods = self.observed.children.pods.iter();
        pods.filter(|pod| revision_of(&pod.metadata) == Some(revision)).cloned().collect()
    }

    /// Why the pods of a revision do not run.
    pub fn diagnosis(&self, revision: i64) -> Option<Diagnosis> {
        let (coordinator, workers) = (names::coordinator(self.name(), revision), names::workers(self.name(), revision));
        let concerns = |name: &str| {
            [&coordinator, &workers].into_iter().any(|ours| {
                name.strip_prefix(ours.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
        };
        let events = self.observed.events.iter();
        let events: Vec<_> =
            events.filter(|event| event.involved_object.name.as_deref().is_some_and(concerns)).cloned().collect();
        diagnose(&self.pods_of(revision), &events, self.now)
    }

    /// What the API server said about an object of a revision.
    pub fn refused(&self, revision: i64) -> Option<&super::observed::Refusal> {
        let ours = [
            names::controller_revision(self.name(), revision),
            names::coordinator(self.name(), revision),
            names::workers(self.name(), revision),
        ];
        let refused = self.observed.refused.as_ref()?;
        let name = refused.object.rsplit(' ').next().unwrap_or_default();
        ours.iter().any(|ours| ours == name).then_some(refused)
    }

    /// Nothing of a revision's pods is left, as far as can be seen.
    pub fn is_gone(&self, revision: i64) -> bool {
        self.workloads_of(revision).is_empty() && self.pods_of(revision).is_empty()
    }

    /// Deletions of what keeps a revision's pods alive.
    pub fn workloads_of(&self, revision: i64) -> Vec<Effect> {
        let children = &self.observed.children;
        let deployments = children.deployments.iter().map(|object| (ChildKind::Deployment, &object.metadata));
        let stateful_sets = children.stateful_sets.iter().map(|object| (ChildKind::StatefulSet, &object.metadata));
        deletions(deployments.chain(stateful_sets), |metadata| revision_of(metadata) == Some(revision))
    }

    /// Creations of what is missing of a revision. Workers are needed as long as there is something for them to do.
    pub fn missing_of(&self, stored: &StoredRevision, with_workers: bool) -> Vec<Effect> {
        let revision = self.revision(stored);
        let mut effects = self.scaled_by_hand(stored, with_workers);
        if self.revisions.contains_key(&stored.number) && self.is_complete(stored.number, with_workers) {
            // Most passes end here: nothing has to be rendered.
            return effects;
        }
        if !self.revisions.contains_key(&stored.number) {
            effects
                .push(Effect::Create(Child::ControllerRevision(Box::new(resources::controller_revision(&revision)))));
        }
        let children = resources::revision_children(&revision).into_iter();
        let missing = children.filter(|child| !self.exists(child));
        effects
            .extend(missing.filter(|child| with_workers || child.kind() != ChildKind::StatefulSet).map(Effect::Create));
        effects
    }

    fn is_complete(&self, revision: i64, with_workers: bool) -> bool {
        let (job, children) = (self.name(), &self.observed.children);
        let (coordinator, workers) = (names::coordinator(job, revision), names::workers(job, revision));
        has(children.config_maps.iter().map(|it| &it.metadata), &names::config_map(job, revision))
            && has(children.services.iter().map(|it| &it.metadata), &coordinator)
            && has(children.services.iter().map(|it| &it.metadata), &workers)
            && has(children.deployments.iter().map(|it| &it.metadata), &coordinator)
            && (!with_workers || has(children.stateful_sets.iter().map(|it| &it.metadata), &workers))
    }

    /// Somebody, or another controller, gave a workload another number of pods than the revision needs.
    fn scaled_by_hand(&self, stored: &StoredRevision, with_workers: bool) -> Vec<Effect> {
        let children = &self.observed.children;
        let ours = |metadata: &ObjectMeta| {
            revision_of(metadata) == Some(stored.number) && metadata.deletion_timestamp.is_none()
        };
        let deployments = children
            .deployments
            .iter()
            .map(|it| (ChildKind::Deployment, &it.metadata, it.spec.as_ref().and_then(|spec| spec.replicas), 1));
        let workers = resources::workers_needed(&stored.spec);
        let sets =
            children.stateful_sets.iter().filter(|_| with_workers).map(|it| {
                (ChildKind::StatefulSet, &it.metadata, it.spec.as_ref().and_then(|spec| spec.replicas), workers)
            });
        deployments
            .chain(sets)
            // The API server fills in one where nothing is said.
            .filter(|(_, metadata, found, wanted)| ours(metadata) && found.unwrap_or(1) != *wanted)
            .map(|(kind, metadata, _, replicas)| {
                let name = metadata.name.clone().unwrap_or_default();
                Effect::Scale(Scaling { kind, name, uid: metadata.uid.clone(), replicas })
            })
            .collect()
    }

    pub fn revision<'b>(&'b self, stored: &'b StoredRevision) -> resources::Revision<'b> {
        stored.of(&self.observed.job, self.settings)
    }

    pub fn exists(&self, child: &Child) -> bool {
        let children = &self.observed.children;
        let among = |mut all: Box<dyn Iterator<Item = &ObjectMeta> + '_>, metadata: &ObjectMeta| {
            all.any(|object| object.name == metadata.name)
        };
        match child {
            Child::ControllerRevision(it) => {
                among(Box::new(children.revisions.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::ConfigMap(it) => {
                among(Box::new(children.config_maps.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::Secret(it) => among(Box::new(children.secrets.iter().map(|object| &object.metadata)), &it.metadata),
            Child::ServiceAccount(it) => {
                among(Box::new(children.service_accounts.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::Service(it) => {
                among(Box::new(children.services.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::Deployment(it) => {
                among(Box::new(children.deployments.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::StatefulSet(it) => {
                among(Box::new(children.stateful_sets.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::PodDisruptionBudget(it) => {
                among(Box::new(children.disruption_budgets.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::PersistentVolumeClaim(it) => {
                among(Box::new(children.claims.iter().map(|object| &object.metadata)), &it.metadata)
            }
            Child::Pod(it) => among(Box::new(children.pods.iter().map(|object| &object.metadata)), &it.metadata),
        }
    }

    /// What an operation brings up, as it was begun or as it is begun now.
    pub fn target(&self, operation: &Operation) -> Option<StoredRevision> {
        let number = operation.to_revision?;
        if let Some(stored) = self.revisions.get(&number) {
            return Some(stored.clone());
        }
        let job_id = operation.job_id.clone()?;
        let before = operation.from_revision.and_then(|from| self.revisions.get(&from));
        let goes_on = self.status.job_id.as_deref() == Some(job_id.as_str());
        let spec = match operation.kind {
            OperationKind::Rollback => self.revisions.get(&self.status.stable_revision?)?.spec.clone(),
            _ => self.spec.clone(),
        };
        let recorded = operation.restore_point.as_ref().and_then(|point| point.path.clone());
        Some(StoredRevision {
            number,
            max_parallelism: match self.status.max_parallelism {
                // A way back without state begins anew in this as well.
                Some(most) if goes_on || (operation.kind == OperationKind::Rollback && has_state(operation)) => most,
                _ => max_parallelism(&spec),
            },
            spec,
            replaces: self.status.job_id.clone().filter(|_| !goes_on),
            // A job that has no restore point of its own yet still begins where it was told to.
            restore_path: match goes_on {
                true => before.and_then(|before| before.restore_path.clone()),
                false => recorded,
            },
            job_id,
        })
    }
}

pub fn max_parallelism(spec: &StreamJobSpec) -> i32 {
    spec.max_parallelism.unwrap_or_else(|| resources::default_max_parallelism(spec.parallelism))
}

/// What a path says that somebody wrote has no number.
fn has_state(operation: &Operation) -> bool {
    operation.restore_point.as_ref().is_some_and(|point| point.id > 0)
}

fn has<'a>(mut objects: impl Iterator<Item = &'a ObjectMeta>, name: &str) -> bool {
    objects.any(|object| object.name.as_deref() == Some(name))
}

pub fn revision_of(metadata: &ObjectMeta) -> Option<i64> {
    metadata.labels.as_ref()?.get(REVISION)?.parse().ok()
}

/// Of these objects only, not of later ones of the same names.
pub fn deletions<'a>(
    objects: impl Iterator<Item = (ChildKind, &'a ObjectMeta)>,
    mut wanted: impl FnMut(&ObjectMeta) -> bool,
) -> Vec<Effect> {
    objects
        .filter(|(_, metadata)| metadata.deletion_timestamp.is_none() && wanted(metadata))
        .map(|(kind, metadata)| {
            let name = metadata.name.clone().unwrap_or_default();
            Effect::Delete(Deletion { kind, name, uid: metadata.uid.clone(), force: false })
        })
        .collect()
}
