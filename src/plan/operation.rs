//! What several steps have in common: being overtaken by another spec, being refused, handing the job over.

use super::context::{Context, max_parallelism};
use super::draft::{Draft, SOON};
use super::engine::{Engine, Phase};
use crate::api::conditions::{Reason, shorten};
use crate::api::status::{
    EndState, Ended, Operation, OperationKind, OperationResult, OperationStep, Rejected, RestorePoint, Trial,
};
use crate::resources;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const LONGEST_TEXT: usize = 1024;

pub fn is_superseded(context: &Context, operation: &Operation) -> bool {
    operation.spec_hash.as_deref() != Some(context.attempt().as_str())
}

/// What takes over stands by while the old revision comes to its end.
pub fn keep_ready(context: &Context, operation: &Operation, draft: &mut Draft) {
    draft.requeue(SOON);
    draft.pending = operation.to_revision.is_some();
    if let Some(target) = context.target(operation) {
        draft.effects.extend(context.missing_of(&target, true));
    }
}

/// The new revision takes its own state, or none.
pub fn begins_anew(context: &Context, operation: &Operation) -> bool {
    operation.job_id != context.status.job_id
}

/// Another spec is wanted by now. Nothing was touched yet.
pub fn supersede(context: &Context, draft: &mut Draft) {
    draft.status.target_revision = context.status.current_revision;
    draft.end(context, OperationResult::Superseded, Some("the spec changed again".into()));
    draft.because("the spec changed again: what was prepared goes, and it begins anew");
}

/// The new revision cannot work; what runs was not touched.
pub fn reject(context: &Context, draft: &mut Draft, reason: &str, message: String) {
    let message = shorten(message, LONGEST_TEXT);
    draft.warning("SpecRejected", format!("{reason}: {message}"));
    draft.because(format!("the new revision cannot work: {reason}"));
    remember(context, draft, reason, message.clone());
    draft.end(context, OperationResult::Rejected, Some(message));
}

/// Given up; what runs goes on.
pub fn abort(context: &Context, draft: &mut Draft, reason: Reason, message: String) {
    let message = shorten(message, LONGEST_TEXT);
    draft.warning(reason.name(), message.clone());
    draft.because(format!("given up: {message}"));
    remember(context, draft, reason.name(), message.clone());
    draft.end(context, OperationResult::Aborted, Some(message));
}

/// So that the same is not tried again.
fn remember(context: &Context, draft: &mut Draft, reason: &str, message: String) {
    draft.status.target_revision = context.status.current_revision;
    let asked = context.operation().and_then(|operation| operation.spec_hash.clone());
    let spec_hash = asked.unwrap_or_else(|| context.attempt());
    draft.status.rejected = Some(Rejected { spec_hash, reason: reason.to_owned(), message });
}

/// The job ended before it could be stopped: there is nothing left to take over.
pub fn ended_first(context: &Context, draft: &mut Draft, engine: Engine) {
    record_end(context, draft, engine);
    let message = "the job ended by itself before it could be stopped";
    draft.status.target_revision = context.status.current_revision;
    draft.end(context, OperationResult::Aborted, Some(message.into()));
    draft.because(message);
}

/// Writes down how the job ended.
pub fn record_end(context: &Context, draft: &mut Draft, engine: Engine) {
    let (Some(Phase::Ended(state)), Some(revision)) = (engine.phase(), context.status.current_revision) else { return };
    let reason = engine.status().and_then(|status| status.reason.clone());
    let reason = reason.map(|reason| shorten(reason, LONGEST_TEXT));
    let restore_point = match (state, engine.stopped_with()) {
        (_, Some(savepoint)) => Some(super::engine::of_savepoint(savepoint)),
        // Nothing follows the end of all sources.
        (EndState::Finished, None) => None,
        _ => engine.restore_point(),
    };
    let note = format!(
        "revision {revision} ended as {state:?}{}",
        reason.as_ref().map_or(String::new(), |r| format!(": {r}"))
    );
    match state {
        EndState::Finished => draft.event("Finished", note),
        EndState::Failed => draft.warning("Failed", note),
        EndState::Canceled => draft.event("Canceled", note),
    }
    draft.because("the job has ended");
    let spec_hash = Some(context.attempt());
    draft.status.ended = Some(Ended { state, revision, reason, spec_hash, restore_point, at: Time(context.now) });
}

/// From here on the new revision is the one that owns the job's state. Written before it is told.
pub fn hand_over(context: &Context, draft: &mut Draft, operation: &Operation, restore_point: Option<RestorePoint>) {
    let Some(target) = context.target(operation) else { return };
    let anew = begins_anew(context, operation);
    let restore_point = restore_point.or_else(|| operation.restore_point.clone());
    draft.step(context, OperationStep::Activating, None);
    draft.because(format!("revision {} takes the job over", target.number));
    let status = &mut draft.status;
    if let Some(operation) = &mut status.operation {
        operation.restore_point.clone_from(&restore_point);
    }
    // A fallback to the checkpoint, if any: the savepoint belongs to a state that is left behind as well.
    let rollback_possible = status.stable_revision.is_some_and(|stable| context.revisions.contains_key(&stable))
        && !matches!(operation.kind, OperationKind::Rollback | OperationKind::Start)
        && context.status.ended.as_ref().is_none_or(|ended| ended.state != EndState::Finished);
    status.trial = Some(Trial {
        revision: target.number,
        since: Time(context.now),
        restore_point,
        revocable: rollback_possible,
        anew,
        checkpoints_before: 0,
    });
    status.current_revision = Some(target.number);
    status.target_revision = Some(target.number);
    status.max_parallelism = Some(if anew {
        target.max_parallelism
    } else {
        context.status.max_parallelism.unwrap_or_else(|| max_parallelism(&target.spec))
    });
    status.job_id = Some(target.job_id);
    status.parallelism = Some(target.spec.parallelism);
    status.selector = Some(resources::worker_selector(context.name(), target.number));
    status.ended = None;
    status.suspended = false;
    if anew {
        status.last_checkpoint = None;
    }
    draft.requeue(SOON);
}
