//! One moment of a job or a savepoint, put together from the caches; only how a savepoint stands is asked for. Decides
//! nothing.

use super::Context;
use super::cache::{Cache, JobKey, last_seen};
use super::trim;
use super::world::World;
use crate::api::{Savepoint, StreamJob};
use crate::engine::Target;
use crate::plan::observed::{Children, EngineAnswer, Observed, ObservedSavepoint, SavepointAnswer};
use crate::plan::{savepoint_trigger, stop_trigger};
use crate::resources::{names, read_revision};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is not known is absent.
pub async fn observe(context: &Context, job: &StreamJob) -> Observed {
    let key = key_of(job);
    let world = &context.world;
    let owner = Owner::of(job);
    let mut events: Vec<_> = world
        .events
        .of(&key)
        .into_iter()
        .filter(|event| owner.is_later(event.metadata.creation_timestamp.as_ref().map(|time| time.0)))
        .map(Arc::unwrap_or_clone)
        .collect();
    events.sort_by_key(last_seen);
    let children = Children {
        revisions: owner.own(&world.revisions, &key).into_iter().map(trim::restored).collect(),
        config_maps: owner.own(&world.config_maps, &key).into_iter().map(config_map).collect(),
        secrets: token_secret(context, job, &key, &events).into_iter().collect(),
        service_accounts: owner.own(&world.service_accounts, &key).into_iter().map(service_account).collect(),
        services: owner.own(&world.services, &key),
        deployments: owner.own(&world.deployments, &key),
        stateful_sets: owner.own(&world.stateful_sets, &key),
        disruption_budgets: owner.own(&world.disruption_budgets, &key),
        claims: owner.own(&world.claims, &key),
        pods: owner.pods(&world.pods, &key),
    };
    Observed {
        namespace_terminating: world.is_terminating(&key.namespace),
        children,
        engines: world.engines.answers(&key, owner.created),
        stops: stops(context, job, &key).await,
        savepoints: savepoints(world, job, &key),
        events,
        refused: world.backoff.refusal(StreamJob::KIND, &job.metadata),
        job: job.clone(),
    }
}

/// Known by its name alone: nobody may look at it.
fn token_secret(
    context: &Context,
    job: &StreamJob,
    key: &JobKey,
    events: &[Event],
) -> Option<PartialObjectMeta<Secret>> {
    context.world.tokens.is_there(key, job, events).then(|| PartialObjectMeta {
        metadata: ObjectMeta {
            name: Some(names::token_secret(&key.name, job.metadata.uid.as_deref().unwrap_or_default())),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        ..PartialObjectMeta::default()
    })
}

/// Those of the job, and the one that it shall begin with, which may be another job's.
fn savepoints(world: &World, job: &StreamJob, key: &JobKey) -> Vec<Savepoint> {
    let mut found: Vec<Savepoint> = world.savepoints.by_job().of(key).into_iter().map(Arc::unwrap_or_clone).collect();
    let begin = job.spec.restore_from.as_ref().and_then(|from| from.savepoint_ref.as_ref());
    if let Some(begin) = begin
        && !found.iter().any(|savepoint| savepoint.name_any() == begin.name)
    {
        let begin = ObjectRef::<Savepoint>::new(&begin.name).within(&key.namespace);
        found.extend(world.savepoints.store().get(&begin).map(Arc::unwrap_or_clone));
    }
    found
}

/// What is not known is absent.
pub async fn observe_savepoint(context: &Context, savepoint: &Savepoint) -> ObservedSavepoint {
    let namespace = savepoint.namespace().unwrap_or_default();
    let key = JobKey { namespace, name: savepoint.spec.job_ref.name.clone() };
    let world = &context.world;
    let job = world.jobs.by_job().get(&key, &key.name);
    let current = job.as_ref().and_then(|job| job.status.as_ref()?.current_revision);
    let stored = match (&job, current) {
        (Some(job), Some(number)) => world
            .revisions
            .get(&key, &names::controller_revision(&key.name, number))
            .filter(|revision| Owner::of(job).owns(revision.meta())),
        _ => None,
    };
    let spec = stored.and_then(|revision| match read_revision(&trim::restored(Arc::unwrap_or_clone(revision))) {
        Ok(stored) => Some(stored.spec),
        Err(error) => {
            tracing::warn!(job = %key, error, "a stored revision cannot be read");
            None
        }
    });
    let created = job.as_ref().and_then(|job| Owner::of(job).created);
    let engine = current.and_then(|number| world.engines.answers(&key, created).remove(&number));
    let answer = match (&job, current, savepoint.status.as_ref().and_then(|status| status.trigger_id.as_ref())) {
        (Some(job), Some(revision), Some(_)) if matches!(engine, Some(EngineAnswer::Status(_))) => {
            ask(context, job, &key, revision, &savepoint_trigger(savepoint)).await
        }
        _ => None,
    };
    ObservedSavepoint {
        savepoint: savepoint.clone(),
        namespace_terminating: world.is_terminating(&key.namespace),
        job: job.map(Arc::unwrap_or_clone),
        spec,
        engine,
        answer,
        dispose_pod: world
            .pods
            .get(&key, &names::savepoint_dispose_pod(&savepoint.name_any()))
            .map(Arc::unwrap_or_clone),
    }
}

/// How the stop stands that the operation under way asked for.
async fn stops(context: &Context, job: &StreamJob, key: &JobKey) -> BTreeMap<String, SavepointAnswer> {
    let mut stops = BTreeMap::new();
    let Some(status) = &job.status else { return stops };
    let Some(operation) = &status.operation else { return stops };
    let (Some(trigger), Some(revision)) =
        (stop_trigger(operation), operation.from_revision.or(status.current_revision))
    else {
        return stops;
    };
    if let Some(answer) = ask(context, job, key, revision, &trigger).await {
        stops.insert(trigger, answer);
    }
    stops
}

/// Nothing if the coordinator does not answer: then nothing is known.
async fn ask(
    context: &Context,
    job: &StreamJob,
    key: &JobKey,
    revision: i64,
    trigger: &str,
) -> Option<SavepointAnswer> {
    let target = context.target(job, key, revision)?;
    match context.world.engines.client().savepoint(&target, trigger).await {
        Ok(SavepointAnswer::Unknown) => {
            Some(context.world.engines.refusal(key, trigger).unwrap_or(SavepointAnswer::Unknown))
        }
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::debug!(job = %key, revision, trigger, error = %error, "nobody knows how the savepoint stands");
            None
        }
    }
}

impl Context {
    /// Where the coordinator of a revision is, as far as is known.
    pub(super) fn target(&self, job: &StreamJob, key: &JobKey, revision: i64) -> Option<Target> {
        let (address, job_id) = self.world.engines.address(key, revision, Owner::of(job).created)?;
        let recorded = || job.status.as_ref()?.job_id.clone();
        Some(Target {
            address,
            job_id: job_id.or_else(recorded).unwrap_or_default(),
            token: self.settings.token_key.token(job.metadata.uid.as_deref().unwrap_or_default()),
        })
    }
}

pub fn key_of(job: &StreamJob) -> JobKey {
    JobKey { namespace: job.namespace().unwrap_or_default(), name: job.name_any() }
}

/// Tells a job's objects from those of an earlier job of the same name, which may take a while to go.
struct Owner<'a> {
    uid: &'a str,
    created: Option<Timestamp>,
}

impl<'a> Owner<'a> {
    fn of(job: &'a StreamJob) -> Owner<'a> {
        Owner {
            uid: job.metadata.uid.as_deref().unwrap_or_default(),
            created: job.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }

    /// Nobody's objects are ours by their label: a claim that outlives its job.
    fn owns(&self, object: &ObjectMeta) -> bool {
        let owners = object.owner_references.as_deref().unwrap_or_default();
        owners.is_empty() || owners.iter().any(|owner| owner.uid == self.uid)
    }

    fn own<K: Resource<DynamicType = ()> + Clone>(&self, cache: &Cache<K>, job: &JobKey) -> Vec<K> {
        let all = cache.of(job).into_iter();
        all.filter(|object| self.owns(object.meta())).map(Arc::unwrap_or_clone).collect()
    }

    /// Pods belong to a workload, or to a savepoint: whose they are shows in when they were made.
    fn pods(&self, cache: &Cache<Pod>, job: &JobKey) -> Vec<Pod> {
        let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let all = cache.of(job).into_iter();
        all.filter(|pod| self.is_later(created(pod))).map(Arc::unwrap_or_clone).collect()
    }

    fn is_later(&self, created: Option<Timestamp>) -> bool {
        match (created, self.created) {
            (Some(created), Some(job)) => created >= job,
            _ => true,
        }
    }
}

fn config_map(object: PartialObjectMeta<ConfigMap>) -> ConfigMap {
    ConfigMap { metadata: object.metadata, ..ConfigMap::default() }
}

fn service_account(object: PartialObjectMeta<ServiceAccount>) -> ServiceAccount {
    ServiceAccount { metadata: object.metadata, ..ServiceAccount::default() }
}
