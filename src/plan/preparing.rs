//! Step one of a new revision: its pods come up beside the job that runs, and its coordinator says whether it could take
//! over. Nothing that runs is touched.

use super::context::Context;
use super::draft::{Draft, NOW_AND_THEN, Problem, SHORTLY};
use super::engine::{Engine, Phase};
use super::operation::{begins_anew, ended_first, hand_over, is_superseded, reject, supersede};
use crate::api::conditions::Reason;
use crate::api::status::{EndState, Operation, OperationKind, OperationStep};
use crate::resources::has_storage;
use std::time::Duration;
use streamjob_api::spec::UpgradeMode;

/// From here on waiting is for people.
const LONG: Duration = Duration::from_secs(120);

pub fn plan(context: &Context, operation: &Operation, draft: &mut Draft) {
    draft.pending = true;
    if is_superseded(context, operation) {
        return supersede(context, draft);
    }
    let Some(target) = context.target(operation) else { return supersede(context, draft) };
    let running = context.current_engine();
    let finished = running.phase() == Some(Phase::Ended(EndState::Finished)) && running.stopped_with().is_none();
    if finished && context.status.ended.is_none() && operation.kind != OperationKind::Rollback {
        return ended_first(context, draft, running);
    }
    draft.effects.extend(context.missing_of(&target, true));
    // What runs may have to run for long yet: it is looked after as if nothing were prepared.
    if let Some((_, Some(current))) = context.current()
        && !context.status.suspended
    {
        draft.effects.extend(context.missing_of(current, context.status.ended.is_none()));
    }
    let long = context.elapsed(operation.step_started_at.0) > LONG;
    draft.requeue(if long { NOW_AND_THEN } else { SHORTLY });
    if let Some(refused) = context.refused(target.number) {
        let message = format!("{}: {}", refused.object, refused.message);
        if refused.terminal {
            return reject(context, draft, Reason::ObjectRefused.name(), message);
        }
        draft.problem(Problem::new(Reason::ObjectRefused, message.clone()));
        return draft.waits(message);
    }
    let engine = context.engine(target.number, Some(&target.job_id));
    if let Some(diagnosis) = context.diagnosis(target.number) {
        if diagnosis.terminal {
            return reject(context, draft, diagnosis.reason, diagnosis.message);
        }
        draft.problem(Problem { reason: diagnosis.reason.into(), message: diagnosis.message.clone(), stalled: false });
        draft.waits(diagnosis.message);
    } else {
        draft.waits(format!("revision {} comes up", target.number));
    }
    let Engine::Answers(status) = engine else { return };
    match (&status.standby, engine.phase()) {
        (Some(standby), Some(Phase::Standby)) => {
            let fits = standby.ready || standby.checked;
            let complete = standby.ready || (standby.checked && standby.slots >= standby.needed);
            // Nothing waits for the old revision to stop: the job begins as soon as it can.
            let enough = match operation.kind {
                OperationKind::Start | OperationKind::Resume => fits,
                _ => complete,
            };
            if enough {
                next(context, operation, draft);
            }
        }
        // It has the newest claim already.
        (_, Some(phase)) if phase != Phase::Standby => hand_over(context, draft, operation, None),
        _ => {}
    }
}

/// The new revision could take over now.
fn next(context: &Context, operation: &Operation, draft: &mut Draft) {
    let nothing_runs = operation.from_revision.is_none() || context.status.suspended || context.status.ended.is_some();
    let ended = matches!(context.current_engine().phase(), Some(Phase::Ended(_)));
    if nothing_runs || operation.kind == OperationKind::Resume {
        return hand_over(context, draft, operation, None);
    }
    let durable = context.current().and_then(|(_, stored)| stored).is_some_and(|stored| has_storage(&stored.spec));
    let saves = context.upgrade().mode == UpgradeMode::Savepoint && durable && !ended;
    if saves && operation.kind != OperationKind::Rollback && !begins_anew(context, operation) {
        draft.because("the running job stops with a savepoint");
        draft.step(context, OperationStep::Saving, None);
        if let Some(operation) = &mut draft.status.operation {
            operation.attempt = 1;
        }
    } else {
        draft.because("the running job stops");
        draft.step(context, OperationStep::Stopping, None);
    }
}
