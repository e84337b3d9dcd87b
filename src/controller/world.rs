//! All that is known of the cluster, in one place: caches, followers of coordinators, and who is to be looked at again.

use super::backoff::Backoff;
use super::cache::{Cache, JobKey, Mains};
use super::pulse::Pulse;
use super::tokens::Tokens;
use super::wakes::Wakes;
use crate::api::{Savepoint, SavepointPhase, StreamJob};
use crate::engine::{EngineClient, Engines, News};
use crate::metrics::Metrics;
use crate::plan::awaits_checkpoint;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a namespace counts as being deleted: another of its name may come.
const TERMINATING: Duration = Duration::from_secs(60);

pub struct World {
    pub jobs: Mains<StreamJob>,
    pub savepoints: Mains<Savepoint>,
    pub revisions: Cache<ControllerRevision>,
    pub config_maps: Cache<PartialObjectMeta<ConfigMap>>,
    pub service_accounts: Cache<PartialObjectMeta<ServiceAccount>>,
    pub services: Cache<Service>,
    pub deployments: Cache<Deployment>,
    pub stateful_sets: Cache<StatefulSet>,
    pub disruption_budgets: Cache<PodDisruptionBudget>,
    pub claims: Cache<PersistentVolumeClaim>,
    pub pods: Cache<Pod>,
    pub events: Cache<Event>,
    pub engines: Arc<Engines>,
    pub metrics: Arc<Metrics>,
    pub backoff: Backoff,
    pub tokens: Tokens,
    pub pulse: Arc<Pulse>,
    pub job_wakes: Arc<Wakes<ObjectRef<StreamJob>>>,
    pub savepoint_wakes: Arc<Wakes<ObjectRef<Savepoint>>>,
    /// Namespaces in which nothing can be created any more, as the API server said last.
    terminating: Mutex<HashMap<String, Instant>>,
    /// Watches that have not listed everything yet.
    behind: watch::Sender<usize>,
}

impl World {
    pub fn new(engine: EngineClient, metrics: Arc<Metrics>) -> Arc<World> {
        Arc::new_cyclic(|world: &Weak<World>| {
            let world = world.clone();
            let tell = move |job: &JobKey, news: News| {
                if let Some(world) = world.upgrade()
                    && (news == News::Change || world.awaits_checkpoint(job))
                {
                    world.wake(job);
                }
            };
            World {
                jobs: Mains::default(),
                savepoints: Mains::default(),
                revisions: Cache::default(),
                config_maps: Cache::default(),
                service_accounts: Cache::default(),
                services: Cache::default(),
                deployments: Cache::default(),
                stateful_sets: Cache::default(),
                disruption_budgets: Cache::default(),
                claims: Cache::default(),
                pods: Cache::default(),
                events: Cache::default(),
                engines: Engines::new(engine, tell),
                metrics,
                backoff: Backoff::default(),
                tokens: Tokens::default(),
                pulse: Arc::default(),
                job_wakes: Arc::default(),
                savepoint_wakes: Arc::default(),
                terminating: Mutex::default(),
                behind: watch::Sender::new(0),
            }
        })
    }

    /// Something about the job changed: it is looked at again, and so are savepoints that wait for it.
    pub fn wake(&self, job: &JobKey) {
        if self.jobs.by_job().get(job, &job.name).is_some() {
            self.job_wakes.wake(ObjectRef::new(&job.name).within(&job.namespace));
        }
        for savepoint in self.savepoints.by_job().of(job) {
            if is_waiting(&savepoint) {
                self.wake_savepoint(&job.namespace, &savepoint.name_any());
            }
        }
    }

    /// Most jobs have nothing to do at most of their checkpoints.
    fn awaits_checkpoint(&self, job: &JobKey) -> bool {
        let Some(known) = self.jobs.by_job().get(job, &job.name) else { return false };
        known.status.as_ref().is_none_or(|status| awaits_checkpoint(status, Timestamp::now()))
            || self.savepoints.by_job().of(job).iter().any(|savepoint| is_waiting(savepoint))
    }

    pub fn wake_savepoint(&self, namespace: &str, name: &str) {
        self.savepoint_wakes.wake(ObjectRef::new(name).within(namespace));
    }

    /// A job that is no more.
    pub fn forget(&self, job: &JobKey) {
        self.engines.forget(job);
        self.tokens.forget(job);
        self.backoff.forget(StreamJob::KIND, &job.namespace, &job.name);
    }

    /// The API server said that the namespace is being deleted. False if that was known.
    pub fn terminates(&self, namespace: &str) -> bool {
        let mut all = self.terminating.lock();
        all.retain(|_, since| since.elapsed() < TERMINATING);
        all.insert(namespace.to_owned(), Instant::now()).is_none()
    }

    pub fn is_terminating(&self, namespace: &str) -> bool {
        self.terminating.lock().get(namespace).is_some_and(|since| since.elapsed() < TERMINATING)
    }

    /// Whether events about such a job are worth keeping.
    pub fn is_of_interest(&self, job: &JobKey) -> bool {
        self.jobs.by_job().get(job, &job.name).is_some()
    }

    /// Begins to act: everything is looked at, and coordinators are followed.
    pub fn activate(&self) {
        self.pulse.activate(Instant::now());
        self.engines.activate();
        for pod in self.pods.all() {
            self.engines.saw(&pod);
        }
        for job in self.jobs.by_job().all() {
            self.job_wakes.wake(ObjectRef::from_obj(&*job));
        }
        for savepoint in self.savepoints.by_job().all() {
            self.savepoint_wakes.wake(ObjectRef::from_obj(&*savepoint));
        }
    }

    pub(super) fn expect_sync(&self) {
        self.behind.send_modify(|behind| *behind += 1);
    }

    pub(super) fn synced(&self) {
        self.behind.send_modify(|behind| *behind -= 1);
    }

    pub fn is_synced(&self) -> bool {
        *self.behind.borrow() == 0
    }

    /// Until every watch has listed what there is: what is not seen before that may be there all the same.
    pub async fn wait_until_synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.behind.subscribe().wait_for(|behind| *behind == 0).await;
    }
}

fn is_waiting(savepoint: &Savepoint) -> bool {
    let phase = savepoint.status.as_ref().map(|status| status.phase).unwrap_or_default();
    savepoint.metadata.deletion_timestamp.is_some()
        || !matches!(phase, SavepointPhase::Completed | SavepointPhase::Failed)
}
