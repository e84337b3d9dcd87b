//! The old revision's processes end without a savepoint, or after it.

use super::context::Context;
use super::draft::Draft;
use super::effect::{Effect, EngineCall};
use super::engine::Phase;
use super::operation::{begins_anew, hand_over, keep_ready};
use super::schedule;
use crate::api::status::{Operation, OperationKind, OperationResult};
use std::time::Duration;

/// What has not gone by then sits on a lost node, and the journal fences it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn plan(context: &Context, operation: &Operation, draft: &mut Draft) {
    keep_ready(context, operation, draft);
    let Some(from) = operation.from_revision else { return hand_over(context, draft, operation, None) };
    let late = context.elapsed(operation.step_started_at.0) >= PATIENCE;
    let cancels = begins_anew(context, operation) && operation.kind != OperationKind::Rollback;
    let over = if cancels {
        let engine = context.engine(from, context.status.job_id.as_deref());
        match engine.phase() {
            Some(Phase::Ended(_)) => true,
            Some(Phase::Running | Phase::Starting | Phase::Recovering) => {
                draft.waits("the running job is cancelled: its state is not needed any more");
                draft.effect(Effect::Engine { revision: from, call: EngineCall::Cancel });
                false
            }
            _ => context.is_gone(from),
        }
    } else {
        draft.waits("the running job's pods end");
        draft.effects.extend(context.workloads_of(from));
        context.is_gone(from)
    };
    if !over && !late {
        return;
    }
    if operation.kind == OperationKind::Suspend {
        // The savepoint that it stopped with is a resource, as every other.
        if schedule::record(context, operation, draft) && !late {
            return;
        }
        draft.status.suspended = true;
        draft.event("Suspended", "the job is suspended; spec.state Running resumes it where it was");
        draft.because("the job is suspended");
        return draft.end(context, OperationResult::Succeeded, None);
    }
    let point = match (cancels, operation.kind) {
        (false, OperationKind::Upgrade | OperationKind::Rescale | OperationKind::Restart) => {
            context.status.last_checkpoint.clone()
        }
        _ => None,
    };
    hand_over(context, draft, operation, point);
}
