//! The resource is being deleted: the job ends, its files go or stay as the policy says, and the finalizer goes in any case.

use super::begin::{Beginning, begin};
use super::context::{Context, revision_of};
use super::draft::{Draft, SHORTLY, SOON};
use super::effect::{Child, ChildKind, Deletion, Effect};
use super::garbage;
use super::saving::{Stop, stop};
use super::schedule;
use super::stopping::PATIENCE;
use crate::api::status::{Operation, OperationKind, OperationStep};
use crate::resources::{self, Disposal, has_storage, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use streamjob_api::spec::{Deletion as Wanted, DeletionPolicy};

/// A namespace that is being deleted takes everything along anyway.
const PATIENCE_WITH_NAMESPACE: Duration = Duration::from_secs(20);

pub fn plan(context: &Context, draft: &mut Draft) {
    draft.requeue(SOON);
    let wanted = wanted(context);
    match context.operation().filter(|operation| operation.kind == OperationKind::Delete) {
        None => start(context, draft, &wanted),
        Some(operation) => match operation.step {
            OperationStep::Saving => saving(context, operation, draft, &wanted),
            OperationStep::Disposing => disposing(context, operation, draft, &wanted),
            _ => stopping(context, operation, draft, &wanted),
        },
    }
}

fn wanted(context: &Context) -> Wanted {
    let written = context.spec.deletion.clone();
    written.unwrap_or(Wanted {
        policy: DeletionPolicy::default(),
        deadline: streamjob_api::text::Duration::from_secs(600),
    })
}

fn start(context: &Context, draft: &mut Draft, wanted: &Wanted) {
    let children = &context.observed.children;
    let untouched =
        context.status.last_revision.is_none() && children.deployments.is_empty() && children.stateful_sets.is_empty();
    if untouched {
        draft.because("the job never ran: nothing is left to do");
        return draft.effect(Effect::RemoveFinalizer);
    }
    let durable = context.current().and_then(|(_, stored)| stored).is_some_and(|stored| has_storage(&stored.spec));
    let runs = context.status.current_revision.is_some_and(|current| !context.is_gone(current));
    let saves = wanted.policy == DeletionPolicy::Savepoint && durable && runs && context.status.ended.is_none();
    let step = if saves { OperationStep::Saving } else { OperationStep::Stopping };
    let (job_id, restore_point) = (context.status.job_id.clone(), context.status.last_checkpoint.clone());
    begin(context, draft, Beginning { kind: OperationKind::Delete, step, to: None, job_id, restore_point });
}

fn saving(context: &Context, operation: &Operation, draft: &mut Draft, wanted: &Wanted) {
    let deadline = match context.observed.namespace_terminating {
        true => PATIENCE_WITH_NAMESPACE,
        false => Duration::from_millis(wanted.deadline.millis()),
    };
    let Some(from) = operation.from_revision else { return draft.step(context, OperationStep::Stopping, None) };
    let engine = context.engine(from, context.status.job_id.as_deref());
    let nobody = context.is_gone(from);
    match stop(context, operation, from, engine, deadline, draft) {
        Stop::Waits | Stop::NotRunning if nobody => {
            without_savepoint(context, draft, "there is no pod left to take it");
        }
        Stop::Waits | Stop::NotRunning => {}
        Stop::Saved(point) => {
            draft.event("SavepointTaken", format!("last savepoint: {}", point.path.as_deref().unwrap_or_default()));
            draft.status.last_savepoint = Some(point.clone());
            draft.step(context, OperationStep::Stopping, None);
            if let Some(operation) = &mut draft.status.operation {
                operation.restore_point = Some(point);
            }
        }
        Stop::Failed(reason) => {
            let over = context.elapsed(operation.started_at.0) >= deadline;
            if over || operation.attempt >= 100 {
                return without_savepoint(context, draft, &reason);
            }
            draft.waits(format!("savepoint failed, trying again: {reason}"));
            if let Some(operation) = &mut draft.status.operation {
                // The deadline is that of all attempts together.
                operation.attempt += 1;
            }
            draft.requeue(SHORTLY);
        }
        Stop::Ended(_) => without_savepoint(context, draft, "the job had ended by itself"),
    }
}

fn without_savepoint(context: &Context, draft: &mut Draft, reason: &str) {
    draft.warning("SavepointFailed", format!("no last savepoint: {reason}; its checkpoints are kept"));
    draft.step(context, OperationStep::Stopping, Some(reason.into()));
}

fn stopping(context: &Context, operation: &Operation, draft: &mut Draft, wanted: &Wanted) {
    draft.waits("the job's pods end");
    let children = &context.observed.children;
    let workloads = children.deployments.iter().map(|object| (ChildKind::Deployment, &object.metadata));
    let workloads = workloads.chain(children.stateful_sets.iter().map(|it| (ChildKind::StatefulSet, &it.metadata)));
    let deletions = super::context::deletions(workloads, |_| true);
    let left = !children.deployments.is_empty()
        || !children.stateful_sets.is_empty()
        || children.pods.iter().any(|pod| revision_of(&pod.metadata).is_some());
    draft.effects.extend(deletions);
    draft.effects.extend(garbage::stuck_pods(context));
    let saved = operation.restore_point.as_ref().is_some_and(|point| point.savepoint);
    let unrecorded = saved && !context.observed.namespace_terminating && schedule::record(context, operation, draft);
    let late = context.elapsed(operation.step_started_at.0) >= PATIENCE;
    if (left || unrecorded) && !late {
        return;
    }
    if wanted.policy == DeletionPolicy::Discard && has_files(context) && !context.observed.namespace_terminating {
        return draft.step(context, OperationStep::Disposing, None);
    }
    draft.because("the job is stopped; its files stay as the policy says");
    draft.effect(Effect::RemoveFinalizer);
}

fn has_files(context: &Context) -> bool {
    context.revisions.values().any(|stored| has_storage(&stored.spec)) || has_storage(context.spec)
}

fn disposing(context: &Context, operation: &Operation, draft: &mut Draft, wanted: &Wanted) {
    draft.requeue(SHORTLY);
    draft.waits("the job's files are being deleted");
    let deadline = Duration::from_millis(wanted.deadline.millis());
    let name = names::job_dispose_pod(context.name());
    let pod = context.observed.children.pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name));
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    let late = context.elapsed(operation.step_started_at.0) >= deadline || context.observed.namespace_terminating;
    if phase == Some("Succeeded") {
        draft.because("the job's files are deleted");
        draft.effect(Effect::RemoveFinalizer);
    } else if late {
        draft.warning("FilesLeft", "the job's files could not be deleted in time; delete them by hand");
        draft.because("the job's files could not be deleted in time");
        draft.effect(Effect::RemoveFinalizer);
    } else if let Some(failed) = pod.filter(|_| phase == Some("Failed")) {
        draft.effect(Effect::Delete(Deletion {
            kind: ChildKind::Pod,
            name,
            uid: failed.metadata.uid.clone(),
            force: false,
        }));
    } else if pod.is_none() {
        let spec = context.current().and_then(|(_, stored)| stored).map_or(context.spec, |stored| &stored.spec);
        let pod = resources::job_dispose_pod(&context.observed.job, spec, Disposal::All, context.settings);
        draft.effect(Effect::Create(Child::Pod(Box::new(pod))));
    }
    if let Some(operation) = &mut draft.status.operation
        && operation.deadline.is_none()
        && let Ok(at) = operation.step_started_at.0.checked_add(deadline)
    {
        operation.deadline = Some(Time(at));
    }
}
