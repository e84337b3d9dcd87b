//! Nothing is under way: does the job do what the spec says, and if not, what begins?

use super::begin::{self, Beginning, begin, kind_of, replace};
use super::changes::change;
use super::context::Context;
use super::draft::{Draft, Problem, SOON};
use super::effect::{Effect, EngineCall};
use super::engine::{Engine, Phase};
use super::ids;
use super::operation::record_end;
use super::{schedule, stability};
use crate::api::conditions::Reason;
use crate::api::status::{EndState, Ended, HistoryEntry, OperationKind, OperationResult, OperationStep};
use crate::resources::{StoredRevision, has_storage, unsupported_change, unsupported_on_kubernetes};
use streamjob_api::live::change_towards;
use streamjob_api::spec::UpgradeMode;

pub fn plan(context: &Context, draft: &mut Draft) {
    let Some((current, stored)) = context.current() else { return first(context, draft) };
    let engine = context.current_engine();
    if context.status.ended.is_none() && matches!(engine.phase(), Some(Phase::Ended(_))) && !context.status.suspended {
        return ended_now(context, draft, engine);
    }
    if stability::roll_back_if_due(context, draft) {
        return;
    }
    let stored = match stored {
        Some(stored) => stored.clone(),
        // Somebody deleted it. If the spec is still the one that runs, it is written down again.
        None if context.status.observed_generation == context.generation() => StoredRevision {
            number: current,
            spec: context.spec.clone(),
            job_id: context.status.job_id.clone().unwrap_or_default(),
            max_parallelism: context
                .status
                .max_parallelism
                .unwrap_or_else(|| super::context::max_parallelism(context.spec)),
            replaces: None,
            restore_path: None,
        },
        None => return replace(context, draft, OperationKind::Upgrade, false),
    };
    if let Some(ended) = &context.status.ended {
        return ended_before(context, draft, ended, &stored);
    }
    if context.status.suspended {
        draft.because("the job is suspended");
        if !context.suspend() && is_allowed(context, draft, &stored, false) {
            replace(context, draft, OperationKind::Resume, false);
        }
        return;
    }
    draft.effects.extend(context.missing_of(&stored, true));
    if context.suspend() {
        if !is_rejected(context, draft) {
            suspend(context, draft, &stored);
        }
        return;
    }
    match engine {
        Engine::Answers(status) if engine.phase() == Some(Phase::Standby) => {
            // The way out for whoever has lost the state: to begin anew.
            let anew = change(&stored.spec, context.spec).filter(|_| context.upgrade().mode == UpgradeMode::Stateless);
            match anew {
                Some(kind) if is_allowed(context, draft, &stored, true) => replace(context, draft, kind_of(kind), true),
                _ if status.standby.is_some() => take_over(context, draft, current),
                _ => {}
            }
            return;
        }
        Engine::Answers(_) => {}
        Engine::Unreachable | Engine::Absent => draft.because("the coordinator does not answer"),
    }
    let change = change(&stored.spec, context.spec);
    if is_allowed(context, draft, &stored, change.is_some()) {
        match change {
            Some(change) => replace(context, draft, kind_of(change), false),
            None => live(context, draft, engine, current),
        }
    }
}

/// The job has never run.
fn first(context: &Context, draft: &mut Draft) {
    if context.suspend() {
        return draft.because("the job is created suspended");
    }
    if let Some((field, message)) = unsupported_on_kubernetes(context.spec) {
        draft.refusal = Some(Problem::new(Reason::InvalidSpec, format!("{field}: {message}")).stalled());
        return draft.because("the spec cannot work on Kubernetes");
    }
    if !is_rejected(context, draft) {
        draft.pending = true;
        begin::start(context, draft);
    }
}

/// The spec was tried, and nothing in it has changed.
fn is_rejected(context: &Context, draft: &mut Draft) -> bool {
    let Some(rejected) = &context.status.rejected else { return false };
    if rejected.spec_hash != context.attempt() {
        draft.status.rejected = None;
        return false;
    }
    draft.because(format!("the spec was tried before: {}", rejected.reason));
    true
}

/// Nothing speaks against trying the spec.
fn is_allowed(context: &Context, draft: &mut Draft, running: &StoredRevision, changes: bool) -> bool {
    let anew = context.upgrade().mode == UpgradeMode::Stateless;
    let kept = (!anew).then(|| unsupported_change(&running.spec, running.max_parallelism, context.spec)).flatten();
    if let Some((field, message)) = unsupported_on_kubernetes(context.spec).or(kept) {
        draft.refusal = Some(Problem::new(Reason::InvalidSpec, format!("{field}: {message}")).stalled());
        draft.because("the spec cannot work; what runs goes on");
        return false;
    }
    if is_rejected(context, draft) {
        return false;
    }
    draft.pending = changes;
    true
}

/// Options that the running job takes over.
fn live(context: &Context, draft: &mut Draft, engine: Engine, current: i64) {
    let Some(status) = engine.status().filter(|_| engine.is_running()) else { return };
    let (Some(checkpoint), Some(restart)) = (&status.checkpoint_config, &status.restart_strategy) else { return };
    if let Some(change) = change_towards(context.spec, checkpoint, restart) {
        draft.because("options change while the job runs");
        draft.event("OptionsChanged", format!("the running job takes over {change}"));
        draft.effect(Effect::Engine { revision: current, call: EngineCall::Configure(change) });
    }
}

fn suspend(context: &Context, draft: &mut Draft, stored: &StoredRevision) {
    let saves = context.upgrade().mode == UpgradeMode::Savepoint && has_storage(&stored.spec);
    let step = if saves { OperationStep::Saving } else { OperationStep::Stopping };
    let job_id = context.status.job_id.clone();
    let kind = OperationKind::Suspend;
    begin(context, draft, Beginning { kind, step, to: None, job_id, restore_point: begin::last_known(context) });
}

/// The current revision has not taken the job over although it should have.
fn take_over(context: &Context, draft: &mut Draft, current: i64) {
    let (kind, step) = (OperationKind::Resume, OperationStep::Activating);
    let (job_id, restore_point) = (context.status.job_id.clone(), begin::last_known(context));
    begin(context, draft, Beginning { kind, step, to: Some(current), job_id, restore_point });
}

fn ended_now(context: &Context, draft: &mut Draft, engine: Engine) {
    // A stop that was given up came through all the same: nobody wanted the job to end.
    if let Some(savepoint) = engine.stopped_with() {
        let mut given_up = context.status.history.iter().filter(|entry| entry.result == OperationResult::Aborted);
        let is_its =
            |entry: &&HistoryEntry| (1..=100).any(|attempt| ids::trigger_of(&entry.id, attempt) == savepoint.trigger);
        if let Some(entry) = given_up.find(is_its) {
            if schedule::record_files(context, &entry.id, savepoint.path.clone(), draft) {
                draft.because("the job stopped with a savepoint that was given up: it is made a resource first");
                return draft.requeue(SOON);
            }
            let point = super::engine::of_savepoint(savepoint);
            draft.event(
                "Resuming",
                "a savepoint that was given up completed and stopped the job: it goes on from there",
            );
            draft.status.last_savepoint = Some(point.clone());
            let to = context.next_revision();
            let (kind, step) = (OperationKind::Resume, OperationStep::Preparing);
            let job_id = context.status.job_id.clone();
            return begin(context, draft, Beginning { kind, step, to: Some(to), job_id, restore_point: Some(point) });
        }
    }
    record_end(context, draft, engine);
}

/// The job has ended; its coordinator stays to say so. A changed spec makes it run again.
fn ended_before(context: &Context, draft: &mut Draft, ended: &Ended, stored: &StoredRevision) {
    draft.because("the job has ended");
    draft.effects.extend(context.missing_of(stored, false));
    let Some(change) = change(&stored.spec, context.spec) else { return };
    let finished = ended.state == EndState::Finished && ended.restore_point.is_none();
    if finished && ended.spec_hash.as_deref() == Some(context.attempt().as_str()) {
        return;
    }
    if context.suspend() || !is_allowed(context, draft, stored, true) {
        return;
    }
    let anew = finished || context.upgrade().mode == UpgradeMode::Stateless;
    let lost = !anew && ended.restore_point.is_none() && context.status.last_checkpoint.is_some();
    if lost {
        draft.pending = false;
        let message = "the job's checkpoints were deleted when it ended (spec.checkpoint.retention), so there is no state \
                       to go on from; set spec.upgrade.mode to Stateless to begin anew, with spec.restoreFrom to begin from a savepoint";
        return draft.problem(Problem::new(Reason::NoRestorePoint, message).stalled());
    }
    if finished {
        draft.event("RunsAgain", "the job had finished: it runs again from the beginning");
    }
    replace(context, draft, kind_of(change), anew);
}
