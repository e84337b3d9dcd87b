//! Carries out the effects of a plan, one after the other, until one fails. Every effect can be repeated; before each it is
//! asked whether this process is still the leader. Decides nothing.

use super::Context;
use super::cache::JobKey;
use crate::api::{FIELD_MANAGER, FINALIZER, Savepoint, SavepointStatus, StreamJob, StreamJobStatus};
use crate::engine::CallError;
use crate::error::{Error, causes};
use crate::plan::effect::{Child, ChildKind, Deletion, Effect, EngineCall, Event, SavepointEffect, Scaling};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use kube::core::GroupVersionKind;
use kube::runtime::events::{Event as Publication, EventType, Recorder, Reporter};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Together with the time that a leader acts after its last renewal this ends before another takes over.
const REQUEST: Duration = Duration::from_secs(4);
/// More than the API server takes of an event's text.
const LONGEST_NOTE: usize = 1000;

/// # Errors
/// The first effect that failed; those after it were not tried.
pub async fn act(context: &Context, job: &StreamJob, effects: Vec<Effect>) -> Result<(), Error> {
    let deed = Deed::new(context, job);
    let key = super::observe::key_of(job);
    for effect in effects {
        context.leader.check()?;
        match effect {
            Effect::WriteStatus(status) => deed.write_job_status(&key, *status).await?,
            Effect::AddFinalizer => deed.add_finalizer().await?,
            Effect::RemoveFinalizer => deed.remove_finalizer().await?,
            Effect::Create(child) => {
                deed.create(&child).await?;
                if child.kind() == ChildKind::Secret {
                    context.world.tokens.made(&key, job.metadata.uid.as_deref().unwrap_or_default(), Timestamp::now());
                }
            }
            Effect::Apply(child) => deed.apply(&child).await?,
            Effect::Delete(deletion) => deed.delete(&deletion).await?,
            Effect::Scale(scaling) => deed.scale(&scaling).await?,
            Effect::Engine { revision, call } => engine(context, job, &key, revision, &call).await?,
            Effect::CreateSavepoint(savepoint) => deed.create_savepoint(&savepoint).await?,
            Effect::DeleteSavepoint { name } => deed.delete_savepoint(&name).await?,
            Effect::Event(event) => deed.publish(&event).await,
        }
    }
    Ok(())
}

/// # Errors
/// The first effect that failed; those after it were not tried.
pub async fn act_on_savepoint(
    context: &Context,
    savepoint: &Savepoint,
    job: Option<&StreamJob>,
    effects: Vec<SavepointEffect>,
) -> Result<(), Error> {
    let deed = Deed::new(context, savepoint);
    let key =
        JobKey { namespace: savepoint.namespace().unwrap_or_default(), name: savepoint.spec.job_ref.name.clone() };
    for effect in effects {
        context.leader.check()?;
        match effect {
            SavepointEffect::WriteStatus(status) => deed.write_savepoint_status(&key, *status).await?,
            SavepointEffect::AddFinalizer => deed.add_finalizer().await?,
            SavepointEffect::RemoveFinalizer => deed.remove_finalizer().await?,
            SavepointEffect::Create(child) => deed.create(&child).await?,
            SavepointEffect::Delete(deletion) => deed.delete(&deletion).await?,
            SavepointEffect::Engine { revision, call } => {
                let Some(job) = job else { continue };
                engine(context, job, &key, revision, &call).await?;
            }
            SavepointEffect::Event(event) => deed.publish(&event).await,
        }
    }
    Ok(())
}

async fn engine(
    context: &Context,
    job: &StreamJob,
    key: &JobKey,
    revision: i64,
    call: &EngineCall,
) -> Result<(), Error> {
    let name = match call {
        EngineCall::Activate => "activate",
        EngineCall::Stop { .. } => "stop with a savepoint",
        EngineCall::Savepoint { .. } => "take a savepoint",
        EngineCall::Cancel => "cancel",
        EngineCall::Configure(_) => "change options",
    };
    let Some(target) = context.target(job, key, revision) else {
        return Err(Error::EngineUnreachable {
            revision,
            call: name,
            reason: "there is no pod with an address".into(),
        });
    };
    tracing::info!(job = %key, revision, call = name, "asking the coordinator");
    context.world.engines.client().call(&target, call).await.map_err(|error| match error {
        CallError::Unreachable(reason) => Error::EngineUnreachable { revision, call: name, reason },
        CallError::Refused { status, message } => {
            if let EngineCall::Stop { trigger, .. } | EngineCall::Savepoint { trigger, .. } = call {
                context.world.engines.refused(key, trigger, status, &message);
            }
            Error::EngineRefused { revision, call: name, status, message }
        }
    })
}

/// Something done to or for one resource.
struct Deed<'a, K> {
    context: &'a Context,
    main: &'a K,
    namespace: String,
    name: String,
}

impl<'a, K> Deed<'a, K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    fn new(context: &'a Context, main: &'a K) -> Deed<'a, K> {
        let namespace = main.meta().namespace.clone().unwrap_or_default();
        Deed { context, main, namespace, name: main.meta().name.clone().unwrap_or_default() }
    }

    fn mains(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    fn object(&self) -> String {
        format!("{} {}", K::kind(&()), self.name)
    }

    /// With the resource version that was observed: refused if anybody wrote in between.
    async fn write_status(&self, with_status: &K) -> Result<K, Error> {
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let mains = self.mains();
        mains.replace_status(&self.name, &parameters, with_status).await_for("update", self.object()).await
    }

    /// The others' finalizers stay as they are.
    async fn add_finalizer(&self) -> Result<(), Error> {
        let known = self.main.meta().finalizers.as_deref().unwrap_or_default();
        if known.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let add = match known {
            [] => json!([
                { "op": "test", "path": "/metadata/finalizers", "value": null },
                { "op": "add", "path": "/metadata/finalizers", "value": [FINALIZER] },
            ]),
            _ => json!([
                { "op": "test", "path": "/metadata/finalizers", "value": known },
                { "op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER },
            ]),
        };
        self.patch_finalizers(add).await
    }

    async fn remove_finalizer(&self) -> Result<(), Error> {
        let known = self.main.meta().finalizers.as_deref().unwrap_or_default();
        let Some(index) = known.iter().position(|finalizer| finalizer == FINALIZER) else { return Ok(()) };
        let path = format!("/metadata/finalizers/{index}");
        let remove = json!([
            { "op": "test", "path": path, "value": FINALIZER },
            { "op": "remove", "path": path },
        ]);
        match self.patch_finalizers(remove).await {
            Err(Error::Api { status, .. }) if status.code == 404 => Ok(()),
            other => other,
        }
    }

    async fn patch_finalizers(&self, operations: Value) -> Result<(), Error> {
        let failed = |error: serde_json::Error| Error::Setup(format!("a patch that is none: {error}"));
        let guarded = [json!([{ "op": "test", "path": "/metadata/uid", "value": self.main.meta().uid }]), operations];
        let operations: Vec<Value> = guarded
            .into_iter()
            .flat_map(|part| match part {
                Value::Array(operations) => operations,
                _ => Vec::new(),
            })
            .collect();
        let patch = Patch::Json::<()>(serde_json::from_value(Value::Array(operations)).map_err(failed)?);
        let patched = self
            .mains()
            .patch(&self.name, &PatchParams::default(), &patch)
            .await_for("patch the finalizers of", self.object())
            .await;
        match patched {
            // How the API server says that a test of the patch failed.
            Err(Error::Api { verb, object, mut status }) if status.code == 422 => {
                status.code = 409;
                Err(Error::Api { verb, object, status })
            }
            other => other.map(drop),
        }
    }

    fn children(&self, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.context.client.clone(), &self.namespace, &resource_of(kind))
    }

    async fn create(&self, child: &Child) -> Result<(), Error> {
        let kind = child.kind();
        let wanted = dynamic(child)?;
        let name = wanted.name_any();
        let object = format!("{kind:?} {name}");
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        match self.children(kind).create(&parameters, &wanted).await_for("create", object.clone()).await {
            Err(Error::Api { status, .. }) if status.reason == "AlreadyExists" => {}
            other => {
                if other.is_ok() {
                    tracing::info!(resource = self.object(), namespace = self.namespace, object, "created");
                }
                return other.map(drop);
            }
        }
        if kind == ChildKind::Secret {
            // Its name says whose it is, and nobody here may look.
            return Ok(());
        }
        // Made by an earlier pass that the watch has not shown yet; or somebody else's.
        let Some(owner) = controller_of(wanted.metadata.owner_references.as_deref()) else { return Ok(()) };
        let found = self.children(kind).get_metadata_opt(&name).await_for("get", object.clone()).await?;
        match found.as_ref().map(|found| controller_of(found.metadata.owner_references.as_deref())) {
            Some(Some(found)) if found.uid == owner.uid => Ok(()),
            Some(_) => Err(Error::Foreign { object }),
            // Gone in between: another pass makes it.
            None => Err(Error::api("create", object, gone())),
        }
    }

    async fn apply(&self, child: &Child) -> Result<(), Error> {
        let wanted = dynamic(child)?;
        let name = wanted.name_any();
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.children(child.kind())
            .patch(&name, &parameters, &Patch::Apply(&wanted))
            .await_for("apply", format!("{:?} {name}", child.kind()))
            .await
            .map(drop)
    }

    async fn delete(&self, deletion: &Deletion) -> Result<(), Error> {
        let Deletion { kind, name, uid, force } = deletion;
        let parameters = DeleteParams {
            grace_period_seconds: force.then_some(0),
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        let object = format!("{kind:?} {name}");
        match self.children(*kind).delete(name, &parameters).await_for("delete", object.clone()).await {
            // It is gone, or another object of the same name, which is not meant.
            Err(Error::Api { status, .. }) if matches!(status.code, 404 | 409) => Ok(()),
            other => {
                tracing::info!(resource = self.object(), namespace = self.namespace, object, force, "deleted");
                other.map(drop)
            }
        }
    }

    /// Of this object only: the API server refuses another uid.
    async fn scale(&self, scaling: &Scaling) -> Result<(), Error> {
        let Scaling { kind, name, uid, replicas } = scaling;
        let patch = json!({ "metadata": { "uid": uid }, "spec": { "replicas": replicas } });
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.children(*kind)
            .patch(name, &parameters, &Patch::Merge(&patch))
            .await_for("scale", format!("{kind:?} {name}"))
            .await
            .map(drop)
    }

    async fn create_savepoint(&self, savepoint: &Savepoint) -> Result<(), Error> {
        let savepoints: Api<Savepoint> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let object = format!("Savepoint {}", savepoint.name_any());
        match savepoints.create(&PostParams::default(), savepoint).await_for("create", object).await {
            Err(Error::Api { status, .. }) if status.reason == "AlreadyExists" => Ok(()),
            other => other.map(drop),
        }
    }

    async fn delete_savepoint(&self, name: &str) -> Result<(), Error> {
        let savepoints: Api<Savepoint> = Api::namespaced(self.context.client.clone(), &self.namespace);
        let object = format!("Savepoint {name}");
        match savepoints.delete(name, &DeleteParams::default()).await_for("delete", object).await {
            Err(Error::Api { status, .. }) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Events are for people who happen to look: one that is lost is no failure.
    async fn publish(&self, event: &Event) {
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: Some(self.context.identity.clone()) };
        // One that has published before keeps the first note of a reason and drops those of later events.
        let recorder = Recorder::new(self.context.client.clone(), reporter);
        let publication = Publication {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.clone(),
            note: Some(shortened(&event.note, LONGEST_NOTE).to_owned()),
            action: event.reason.clone(),
            secondary: None,
        };
        let regarding: ObjectReference = self.main.object_ref(&());
        match tokio::time::timeout(REQUEST, recorder.publish(&publication, &regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(reason = event.reason, error = causes(&error), "an event was not published");
            }
            Err(_) => tracing::warn!(reason = event.reason, "an event was not published in time"),
        }
    }
}

impl Deed<'_, StreamJob> {
    async fn write_job_status(&self, key: &JobKey, status: StreamJobStatus) -> Result<(), Error> {
        if self.main.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut written = self.write_status(&StreamJob { status: Some(status), ..self.main.clone() }).await?;
        written.metadata.managed_fields = None;
        self.context.world.jobs.wrote(key.clone(), written);
        Ok(())
    }
}

impl Deed<'_, Savepoint> {
    async fn write_savepoint_status(&self, key: &JobKey, status: SavepointStatus) -> Result<(), Error> {
        if self.main.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut written = self.write_status(&Savepoint { status: Some(status), ..self.main.clone() }).await?;
        written.metadata.managed_fields = None;
        self.context.world.savepoints.wrote(key.clone(), written);
        Ok(())
    }
}

/// A request with a limit of time, and an error that says what was tried.
trait AwaitFor<T> {
    async fn await_for(self, verb: &'static str, object: String) -> Result<T, Error>;
}

impl<T, F: Future<Output = kube::Result<T>>> AwaitFor<T> for F {
    async fn await_for(self, verb: &'static str, object: String) -> Result<T, Error> {
        match tokio::time::timeout(REQUEST, self).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::api(verb, object, error)),
            Err(_) => {
                Err(Error::ApiUnreachable { verb, object, reason: format!("no answer within {} s", REQUEST.as_secs()) })
            }
        }
    }
}

fn gone() -> kube::Error {
    let status =
        kube::core::Status { code: 409, message: "it was deleted in between".into(), ..kube::core::Status::default() };
    kube::Error::Api(Box::new(status))
}

fn controller_of(owners: Option<&[OwnerReference]>) -> Option<&OwnerReference> {
    owners?.iter().find(|owner| owner.controller == Some(true))
}

fn dynamic(child: &Child) -> Result<DynamicObject, Error> {
    let failed = |error: serde_json::Error| Error::Setup(format!("a child object cannot be written down: {error}"));
    serde_json::from_value(serde_json::to_value(child).map_err(failed)?).map_err(failed)
}

fn resource_of(kind: ChildKind) -> ApiResource {
    let (group, version, name, plural) = match kind {
        ChildKind::ControllerRevision => ("apps", "v1", "ControllerRevision", "controllerrevisions"),
        ChildKind::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
        ChildKind::Secret => ("", "v1", "Secret", "secrets"),
        ChildKind::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
        ChildKind::Service => ("", "v1", "Service", "services"),
        ChildKind::Deployment => ("apps", "v1", "Deployment", "deployments"),
        ChildKind::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
        ChildKind::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        ChildKind::PersistentVolumeClaim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        ChildKind::Pod => ("", "v1", "Pod", "pods"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural)
}

/// At most so many bytes, whole characters.
fn shortened(text: &str, longest: usize) -> &str {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "act_tests.rs"]
mod tests;
