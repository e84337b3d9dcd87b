//! One watch a kind and namespace: keeps the caches in step with the API server, tells the engine's followers of
//! coordinator pods, and wakes what is concerned. Reads; never writes.

use super::cache::{Cache, JobKey, Mains};
use super::trim::{self, Trim};
use super::world::World;
use crate::api::{Savepoint, StreamJob};
use crate::error::causes;
use crate::resources::JOB;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event as KubeEvent, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Objects in one answer to a list.
const PAGE: u32 = 50;
/// What the operator made.
const MANAGED: &str = "app.kubernetes.io/managed-by=streamjob-operator";

/// Where what is seen of one kind goes.
trait Sink<W>: Send + 'static {
    /// Whose it is; nothing if it concerns nobody.
    fn job(&self, object: &W) -> Option<JobKey>;
    fn saw(&self, job: JobKey, object: W);
    fn gone(&self, job: &JobKey, name: &str);
    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)>;
}

/// Begins to watch everything, in these namespaces or, without any, everywhere.
pub fn start(client: &Client, namespaces: &[String], world: &Arc<World>) {
    let scopes: Vec<Option<String>> = match namespaces {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    for scope in scopes {
        let watches = Watches { client: client.clone(), scope, world: world.clone() };
        watches.all();
    }
}

/// All kinds are listed at once, and what is listed is in memory whole before it is trimmed.
fn paged() -> Config {
    Config::default().page_size(PAGE)
}

struct Watches {
    client: Client,
    scope: Option<String>,
    world: Arc<World>,
}

impl Watches {
    fn all(&self) {
        self.objects::<DeserializeGuard<StreamJob>>(paged(), Jobs(self.world.clone()));
        self.objects::<DeserializeGuard<Savepoint>>(paged(), Savepoints(self.world.clone()));
        self.children::<ControllerRevision>(|world| &world.revisions);
        self.children::<Service>(|world| &world.services);
        self.children::<Deployment>(|world| &world.deployments);
        self.children::<StatefulSet>(|world| &world.stateful_sets);
        self.children::<PodDisruptionBudget>(|world| &world.disruption_budgets);
        self.metadata::<ConfigMap>(|world| &world.config_maps);
        self.metadata::<ServiceAccount>(|world| &world.service_accounts);
        self.children::<PersistentVolumeClaim>(|world| &world.claims);
        self.objects::<Pod>(paged().labels(MANAGED), Pods(self.world.clone()));
        self.events();
    }

    /// Whose a warning is can be told only once the jobs are known; nobody waits for warnings.
    fn events(&self) {
        let (world, scope) = (self.world.clone(), self.scope.clone());
        let task = world.pulse.task("the watch of events".into());
        let stream = watcher(self.api::<KubeEvent>(), paged().fields("type=Warning")).backoff(Patience::default());
        tokio::spawn(async move {
            let _task = task;
            world.wait_until_synced().await;
            feed(stream, scope, "events".into(), world.clone(), Events(world), None::<fn()>).await;
        });
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        match &self.scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn objects<W>(&self, config: Config, sink: impl Sink<W>)
    where
        W: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Trim
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let stream = watcher(self.api::<W>(), config);
        self.feed(stream, sink);
    }

    fn children<K>(&self, cache: fn(&World) -> &Cache<K>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Trim
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.objects::<K>(paged().labels(MANAGED), Children { world: self.world.clone(), cache });
    }

    /// Of kinds whose content is never read.
    fn metadata<K>(&self, cache: fn(&World) -> &Cache<PartialObjectMeta<K>>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let config = paged().labels(MANAGED);
        self.objects::<PartialObjectMeta<K>>(config, Children { world: self.world.clone(), cache });
    }

    fn feed<W>(&self, stream: impl Stream<Item = watcher::Result<Event<W>>> + Send + 'static, sink: impl Sink<W>)
    where
        W: Resource<DynamicType = ()> + Trim + Send + 'static,
    {
        let stream = stream.backoff(Patience::default());
        let kind = W::plural(&()).into_owned();
        self.world.expect_sync();
        let world = self.world.clone();
        let first = Some(move || world.synced());
        let task = self.world.pulse.task(format!("the watch of {kind}"));
        let fed = feed(stream, self.scope.clone(), kind, self.world.clone(), sink, first);
        tokio::spawn(async move {
            let _task = task;
            fed.await;
        });
    }
}

/// Pauses of a watch that fails: short, so that everything goes on soon after an API server is back, and not all at once.
#[derive(Default)]
struct Patience {
    failures: u32,
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(5);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8)).min(LAST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let spread = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros() % 500);
        Some(pause.mul_f64(0.75 + f64::from(spread) / 1000.0))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

async fn feed<W: Resource<DynamicType = ()> + Trim>(
    stream: impl Stream<Item = watcher::Result<Event<W>>> + Send,
    scope: Option<String>,
    kind: String,
    world: Arc<World>,
    sink: impl Sink<W>,
    // What happens once everything was listed.
    mut first: Option<impl FnOnce() + Send>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(job) = see(&sink, &world, object.name_any(), object) {
                    listed.insert(job);
                }
            }
            Ok(Event::InitDone) => {
                for (job, name) in sink.names(scope.as_deref()) {
                    if !listed.contains(&(job.clone(), name.clone())) {
                        sink.gone(&job, &name);
                        world.wake(&job);
                    }
                }
                listed = HashSet::new();
                if let Some(first) = first.take() {
                    first();
                }
            }
            Ok(Event::Apply(object)) => drop(see(&sink, &world, object.name_any(), object)),
            Ok(Event::Delete(object)) => {
                if let Some(job) = sink.job(&object) {
                    sink.gone(&job, &object.name_any());
                    world.wake(&job);
                }
            }
            Err(error) => {
                world.metrics.watch_error(&kind);
                tracing::warn!(kind, scope, error = causes(&error), "a watch was interrupted; it is taken up again");
            }
        }
    }
}

fn see<W: Resource<DynamicType = ()> + Trim>(
    sink: &impl Sink<W>,
    world: &World,
    name: String,
    mut object: W,
) -> Option<(JobKey, String)> {
    let job = sink.job(&object)?;
    trim::metadata(object.meta_mut());
    object.trim();
    sink.saw(job.clone(), object);
    world.wake(&job);
    Some((job, name))
}

fn job_of_label<K: ResourceExt>(object: &K) -> Option<JobKey> {
    Some(JobKey { namespace: object.namespace()?, name: object.labels().get(JOB)?.clone() })
}

struct Children<K> {
    world: Arc<World>,
    cache: fn(&World) -> &Cache<K>,
}

impl<K: Resource<DynamicType = ()> + Send + Sync + 'static> Sink<K> for Children<K> {
    fn job(&self, object: &K) -> Option<JobKey> {
        job_of_label(object)
    }

    fn saw(&self, job: JobKey, object: K) {
        (self.cache)(&self.world).put(job, Arc::new(object));
    }

    fn gone(&self, job: &JobKey, name: &str) {
        (self.cache)(&self.world).remove(job, name);
    }

    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        (self.cache)(&self.world).names(namespace)
    }
}

/// Pods also say where coordinators are.
struct Pods(Arc<World>);

impl Sink<Pod> for Pods {
    fn job(&self, pod: &Pod) -> Option<JobKey> {
        job_of_label(pod)
    }

    fn saw(&self, job: JobKey, pod: Pod) {
        self.0.engines.saw(&pod);
        self.0.pods.put(job, Arc::new(pod));
    }

    fn gone(&self, job: &JobKey, name: &str) {
        if let Some(pod) = self.0.pods.get(job, name) {
            self.0.engines.gone(&pod);
        }
        self.0.pods.remove(job, name);
    }

    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        self.0.pods.names(namespace)
    }
}

/// A resource that cannot be read must not end the watch of all others. It is left alone, and so is what belongs to it.
fn readable<K>(mains: &Mains<K>, job: &JobKey, guarded: DeserializeGuard<K>) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone,
{
    match guarded.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let name = invalid.metadata.name.unwrap_or_default();
            tracing::error!(job = %job, kind = %K::kind(&()), name, error = invalid.error,
                "the resource cannot be read, so nothing is done with it; was it written for another version of the CRD?");
            mains.gone(job, &name);
            None
        }
    }
}

struct Jobs(Arc<World>);

impl Sink<DeserializeGuard<StreamJob>> for Jobs {
    fn job(&self, job: &DeserializeGuard<StreamJob>) -> Option<JobKey> {
        Some(JobKey { namespace: job.namespace()?, name: job.name_any() })
    }

    fn saw(&self, key: JobKey, job: DeserializeGuard<StreamJob>) {
        if let Some(job) = readable(&self.0.jobs, &key, job) {
            self.0.jobs.saw(key, job);
        }
    }

    fn gone(&self, key: &JobKey, name: &str) {
        self.0.jobs.gone(key, name);
        self.0.forget(key);
    }

    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        self.0.jobs.by_job().names(namespace)
    }
}

struct Savepoints(Arc<World>);

impl Sink<DeserializeGuard<Savepoint>> for Savepoints {
    fn job(&self, savepoint: &DeserializeGuard<Savepoint>) -> Option<JobKey> {
        let name = match &savepoint.0 {
            Ok(savepoint) => savepoint.spec.job_ref.name.clone(),
            // Whose it was when it could be read, so that it is forgotten there.
            Err(_) => {
                let known = ObjectRef::<Savepoint>::new(&savepoint.name_any()).within(&savepoint.namespace()?);
                self.0.savepoints.store().get(&known)?.spec.job_ref.name.clone()
            }
        };
        Some(JobKey { namespace: savepoint.namespace()?, name })
    }

    fn saw(&self, job: JobKey, savepoint: DeserializeGuard<Savepoint>) {
        let name = savepoint.name_any();
        if let Some(savepoint) = readable(&self.0.savepoints, &job, savepoint) {
            let namespace = job.namespace.clone();
            self.0.savepoints.saw(job, savepoint);
            self.0.wake_savepoint(&namespace, &name);
        }
    }

    fn gone(&self, job: &JobKey, name: &str) {
        self.0.savepoints.gone(job, name);
    }

    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        self.0.savepoints.by_job().names(namespace)
    }
}

/// Warnings about what belongs to a job. They carry no label: whose they are is in the name of what they are about.
struct Events(Arc<World>);

impl Sink<KubeEvent> for Events {
    fn job(&self, event: &KubeEvent) -> Option<JobKey> {
        let about = &event.involved_object;
        if !matches!(
            about.kind.as_deref(),
            Some("Pod" | "ReplicaSet" | "Deployment" | "StatefulSet" | "PersistentVolumeClaim")
        ) {
            return None;
        }
        let (namespace, name) = (about.namespace.clone()?, about.name.as_deref()?);
        candidates(name)
            .map(|name| JobKey { namespace: namespace.clone(), name: name.to_owned() })
            .find(|job| self.0.is_of_interest(job))
    }

    fn saw(&self, job: JobKey, event: KubeEvent) {
        self.0.events.put(job.clone(), Arc::new(event));
        self.0.events.trim(&job);
    }

    fn gone(&self, job: &JobKey, name: &str) {
        self.0.events.remove(job, name);
    }

    fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        self.0.events.names(namespace)
    }
}

/// Jobs that an object of this name may belong to: everything up to a hyphen, the longest first.
fn candidates(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('-').map(|(hyphen, _)| &name[..hyphen])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut patience = Patience::default();
        let first = patience.next().unwrap();
        assert!(first >= FIRST_PAUSE.mul_f64(0.75) && first <= FIRST_PAUSE.mul_f64(1.25));
        let last = patience.nth(20).unwrap();
        assert!(last >= LAST_PAUSE.mul_f64(0.75) && last <= LAST_PAUSE.mul_f64(1.25));
        patience.reset();
        assert!(patience.next().unwrap() <= FIRST_PAUSE.mul_f64(1.25));
    }

    #[test]
    fn whose_a_name_may_be() {
        assert_eq!(candidates("a-b-c1-7f-x").collect::<Vec<_>>(), ["a-b-c1-7f", "a-b-c1", "a-b", "a"]);
        assert_eq!(candidates("a").count(), 0);
    }
}
