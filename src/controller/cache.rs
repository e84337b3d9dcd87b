//! Objects as they were last seen, found by the job that they belong to. Filled by the watches; whoever reads gets what is
//! there, without a request.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A job's name, whether or not there is such a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Objects of one kind, by job; few a job, by name.
pub struct Cache<K>(RwLock<HashMap<JobKey, Vec<Arc<K>>>>);

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Cache(RwLock::default())
    }
}

impl<K: Resource> Cache<K> {
    pub fn of(&self, job: &JobKey) -> Vec<Arc<K>> {
        self.0.read().get(job).cloned().unwrap_or_default()
    }

    pub fn get(&self, job: &JobKey, name: &str) -> Option<Arc<K>> {
        let jobs = self.0.read();
        let objects = jobs.get(job)?;
        objects.get(place(objects, name).ok()?).cloned()
    }

    pub fn all(&self) -> Vec<Arc<K>> {
        self.0.read().values().flatten().cloned().collect()
    }

    pub fn put(&self, job: JobKey, object: Arc<K>) {
        let mut jobs = self.0.write();
        let objects = jobs.entry(job).or_default();
        match place(objects, name_of(&*object)) {
            Ok(place) => objects[place] = object,
            Err(place) => {
                // Most jobs have as many for ever.
                objects.reserve_exact(1);
                objects.insert(place, object);
            }
        }
    }

    pub fn remove(&self, job: &JobKey, name: &str) {
        let mut jobs = self.0.write();
        if let Some(objects) = jobs.get_mut(job) {
            if let Ok(place) = place(objects, name) {
                objects.remove(place);
            }
            if objects.is_empty() {
                jobs.remove(job);
            }
        }
    }

    /// Everything in a namespace, or everywhere.
    pub fn names(&self, namespace: Option<&str>) -> Vec<(JobKey, String)> {
        let jobs = self.0.read();
        let inside = jobs.iter().filter(|(job, _)| namespace.is_none_or(|namespace| job.namespace == namespace));
        let name = |object: &Arc<K>| name_of(&**object).to_owned();
        inside.flat_map(|(job, objects)| objects.iter().map(move |object| (job.clone(), name(object)))).collect()
    }
}

fn name_of<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// Where the object of this name is, or would be.
fn place<K: Resource>(objects: &[Arc<K>], name: &str) -> Result<usize, usize> {
    objects.binary_search_by(|object| name_of(&**object).cmp(name))
}

/// Events of a job that are kept: a pod that cannot start has a few, and nobody reads more.
const EVENTS: usize = 24;

impl Cache<Event> {
    /// Drops the oldest events of a job that has too many.
    pub fn trim(&self, job: &JobKey) {
        let mut jobs = self.0.write();
        let Some(events) = jobs.get_mut(job) else { return };
        while events.len() > EVENTS {
            let oldest = events.iter().enumerate().min_by_key(|(_, event)| last_seen(event)).map(|(place, _)| place);
            let Some(oldest) = oldest else { return };
            events.remove(oldest);
        }
    }
}

/// When an event last happened.
pub fn last_seen(event: &Event) -> Option<jiff::Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.max(last).max(first).or(created)
}

/// Resources of ours: found by job as all others, and by name for kube's `Controller`.
pub struct Mains<K: Resource<DynamicType = ()> + Clone + 'static> {
    by_job: Cache<K>,
    writer: Mutex<Writer<K>>,
    store: Store<K>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Default for Mains<K> {
    fn default() -> Self {
        let mut writer = Writer::default();
        // The controller starts once all watches are in step; this store need not hold it up.
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        Mains { by_job: Cache::default(), store: writer.as_reader(), writer: Mutex::new(writer) }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Mains<K> {
    pub fn by_job(&self) -> &Cache<K> {
        &self.by_job
    }

    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// What a watch saw: never something older than what is known.
    pub fn saw(&self, job: JobKey, object: K) {
        let mut writer = self.writer.lock();
        let reference = ObjectRef::from_obj(&object);
        if self.store.get(&reference).is_some_and(|known| is_newer(known.meta(), object.meta())) {
            return;
        }
        self.put(&mut writer, job, object, &reference);
    }

    /// What our own write made of an object that is there. The next pass begins with it, however late the watch is.
    pub fn wrote(&self, job: JobKey, object: K) {
        let mut writer = self.writer.lock();
        let reference = ObjectRef::from_obj(&object);
        if self.store.get(&reference).is_some_and(|known| is_newer(object.meta(), known.meta())) {
            self.put(&mut writer, job, object, &reference);
        }
    }

    fn put(&self, writer: &mut Writer<K>, job: JobKey, object: K, reference: &ObjectRef<K>) {
        writer.apply_watcher_event(&watcher::Event::Apply(object));
        if let Some(shared) = self.store.get(reference) {
            self.by_job.put(job, shared);
        }
    }

    pub fn gone(&self, job: &JobKey, name: &str) {
        let mut writer = self.writer.lock();
        if let Some(object) = self.store.get(&ObjectRef::new(name).within(&job.namespace)) {
            writer.apply_watcher_event(&watcher::Event::Delete(K::clone(&object)));
        }
        self.by_job.remove(job, name);
    }
}

/// Whether `a` is a later state of the same object. Resource versions are numbers wherever Kubernetes stores objects; what
/// is no number is not compared.
fn is_newer(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let version = |meta: &ObjectMeta| meta.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    match (version(a), version(b)) {
        (Some(a_version), Some(b_version)) => a.uid == b.uid && a_version > b_version,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Savepoint, SavepointSpec};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn savepoint(version: &str, uid: &str) -> Savepoint {
        let spec: SavepointSpec = serde_json::from_value(json!({ "jobRef": { "name": "j" } })).unwrap();
        let mut savepoint = Savepoint::new("s", spec);
        savepoint.metadata.namespace = Some("n".into());
        savepoint.metadata.resource_version = Some(version.into());
        savepoint.metadata.uid = Some(uid.into());
        savepoint
    }

    fn job() -> JobKey {
        JobKey { namespace: "n".into(), name: "j".into() }
    }

    fn version(mains: &Mains<Savepoint>) -> Option<String> {
        let found = mains.by_job().get(&job(), "s").and_then(|savepoint| savepoint.metadata.resource_version.clone());
        let stored = mains.store().get(&ObjectRef::new("s").within("n"));
        assert_eq!(found, stored.and_then(|savepoint| savepoint.metadata.resource_version.clone()));
        found
    }

    #[test]
    fn what_is_known_never_grows_older() {
        let mains = Mains::default();
        // A write that comes back after the object went away does not bring it back.
        mains.wrote(job(), savepoint("9", "a"));
        assert_eq!(version(&mains), None);
        mains.saw(job(), savepoint("10", "a"));
        mains.wrote(job(), savepoint("12", "a"));
        assert_eq!(version(&mains).as_deref(), Some("12"));
        mains.saw(job(), savepoint("11", "a"));
        assert_eq!(version(&mains).as_deref(), Some("12"));
        // Another object of the same name is another object.
        mains.saw(job(), savepoint("3", "b"));
        assert_eq!(version(&mains).as_deref(), Some("3"));
        mains.gone(&job(), "s");
        assert_eq!(version(&mains), None);
        assert!(mains.by_job().names(None).is_empty());
    }

    #[test]
    fn the_oldest_events_go() {
        let cache = Cache::<Event>::default();
        for second in 0..i64::try_from(EVENTS).unwrap() + 3 {
            let mut event = Event::default();
            event.metadata.name = Some(format!("e{second}"));
            event.last_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            cache.put(job(), Arc::new(event));
            cache.trim(&job());
        }
        assert_eq!(cache.of(&job()).len(), EVENTS);
        assert!(cache.get(&job(), "e2").is_none() && cache.get(&job(), "e3").is_some());
    }
}
