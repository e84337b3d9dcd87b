//! The running job stops with a savepoint, so that nothing is done twice and nothing is lost. A request keeps its name, so
//! repeating it is safe; each attempt has its own.

use super::context::Context;
use super::draft::{Draft, Problem};
use super::effect::{Effect, EngineCall};
use super::engine::{Engine, Phase, of_savepoint};
use super::ids;
use super::observed::SavepointAnswer;
use super::operation::{abort, ended_first, hand_over, keep_ready};
use crate::api::StreamJob;
use crate::api::conditions::Reason;
use crate::api::status::{EndState, Operation, OperationKind, OperationStep, RestorePoint};
use crate::resources::{savepoint_directory, storage_location};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use streamjob_api::spec::{OnSavepointFailure, StreamJobSpec};

/// A restart takes seconds, and as long as a lost node is waited for; what has not run for longer needs another spec.
const NOT_RUNNING: Duration = Duration::from_secs(30);

pub fn plan(context: &Context, operation: &Operation, draft: &mut Draft) {
    keep_ready(context, operation, draft);
    let Some(from) = operation.from_revision else { return hand_over(context, draft, operation, None) };
    if let Some((_, Some(stored))) = context.current() {
        draft.effects.extend(context.missing_of(stored, true));
    }
    let engine = context.engine(from, context.status.job_id.as_deref());
    let timeout = Duration::from_millis(context.upgrade().savepoint_timeout.millis());
    match stop(context, operation, from, engine, timeout, draft) {
        Stop::Waits => {}
        // When it runs again it goes back to its newest checkpoint: the new revision loses nothing by doing that itself, and
        // whoever corrects a spec that does not run must not have to wait until it does.
        Stop::NotRunning => {
            // Before the attempt itself is given up.
            if context.elapsed(operation.step_started_at.0) >= NOT_RUNNING.min(timeout / 2) {
                from_last_checkpoint(context, draft, "the job does not run, so that no savepoint can be taken".into());
            }
        }
        Stop::Saved(point) => saved(context, operation, draft, point),
        Stop::Failed(reason) => failed(context, operation, draft, &reason),
        Stop::Ended(EndState::Failed) if operation.to_revision.is_some() => {
            draft.warning(
                "SavepointFailed",
                "the job failed before it could be saved: the new revision goes on from its newest checkpoint",
            );
            failed_job(context, operation, draft, engine);
        }
        Stop::Ended(_) => ended_first(context, draft, engine),
    }
}

/// How a stop stands.
pub enum Stop {
    Waits,
    /// It waits for a job that does not run.
    NotRunning,
    Saved(RestorePoint),
    /// This attempt.
    Failed(String),
    /// The job ended by itself.
    Ended(EndState),
}

/// Asks for the stop as long as nobody knows of it.
pub fn stop(
    context: &Context,
    operation: &Operation,
    from: i64,
    engine: Engine,
    timeout: Duration,
    draft: &mut Draft,
) -> Stop {
    // Whichever attempt it was.
    if let Some(savepoint) = engine.stopped_with() {
        return Stop::Saved(of_savepoint(savepoint));
    }
    let late = context.elapsed(operation.step_started_at.0) >= timeout;
    let trigger = ids::trigger_of(&operation.id, operation.attempt);
    match (context.observed.stops.get(&trigger), engine.phase()) {
        (_, Some(Phase::Ended(state))) => return Stop::Ended(state),
        (Some(SavepointAnswer::Failed { reason } | SavepointAnswer::Refused { reason, terminal: true }), _) => {
            return Stop::Failed(reason.clone());
        }
        (Some(SavepointAnswer::Completed(_)), Some(_)) => draft.waits("the job ends with its savepoint"),
        // Its journal says so; the coordinator that comes back would say the same.
        (Some(SavepointAnswer::Completed(savepoint)), None) if late => return Stop::Saved(of_savepoint(savepoint)),
        (answer, _) if late => {
            let why = match answer {
                Some(SavepointAnswer::Refused { reason, .. }) => format!(": {reason}"),
                _ => String::new(),
            };
            return Stop::Failed(format!("no savepoint within {} s{why}", timeout.as_secs()));
        }
        (Some(SavepointAnswer::InProgress), _) => draft.waits("the savepoint is being taken"),
        (answer, Some(Phase::Running)) => {
            draft.waits(match answer {
                Some(SavepointAnswer::Refused { reason, .. }) => format!("the savepoint has to wait: {reason}"),
                _ => "the job is asked to stop with a savepoint".into(),
            });
            let running = context.revisions.get(&from).map(|stored| &stored.spec);
            let directory = Some(directory(&context.observed.job, running));
            draft.effect(Effect::Engine { revision: from, call: EngineCall::Stop { trigger, directory } });
        }
        _ => {
            let message = "a savepoint is taken once the job runs again";
            draft.problem(Problem::new(Reason::Recovering, message));
            draft.waits(message);
            // Pods without a fault whose coordinator does not answer here may well be running.
            if !matches!(engine, Engine::Unreachable) || context.diagnosis(from).is_some() {
                return Stop::NotRunning;
            }
        }
    }
    Stop::Waits
}

/// Where a savepoint of the running job goes. The newest spec decides, so that a directory that cannot be written is
/// repaired by an edit; but what runs reaches only its own storage.
pub fn directory(job: &StreamJob, running: Option<&StreamJobSpec>) -> String {
    let Some(running) = running.filter(|running| storage_location(running) != storage_location(&job.spec)) else {
        return savepoint_directory(job, &job.spec);
    };
    savepoint_directory(job, running)
}

fn saved(context: &Context, operation: &Operation, draft: &mut Draft, point: RestorePoint) {
    let path = point.path.clone().unwrap_or_default();
    draft.event("SavepointTaken", format!("the job stopped with savepoint {path}"));
    draft.status.last_savepoint = Some(point.clone());
    if operation.to_revision.is_some() {
        return hand_over(context, draft, operation, Some(point));
    }
    draft.step(context, OperationStep::Stopping, None);
    draft.because("the job is saved: its pods go");
    if let Some(operation) = &mut draft.status.operation {
        operation.restore_point = Some(point);
    }
}

fn failed(context: &Context, operation: &Operation, draft: &mut Draft, reason: &str) {
    let upgrade = context.upgrade();
    let message = format!("savepoint {} of {} failed: {reason}", operation.attempt, upgrade.attempts);
    if operation.attempt < upgrade.attempts {
        draft.warning("SavepointFailed", message.clone());
        draft.because(message.clone());
        draft.waits(message);
        if let Some(operation) = &mut draft.status.operation {
            operation.attempt += 1;
            operation.step_started_at = Time(context.now);
        }
        return;
    }
    match upgrade.on_savepoint_failure {
        OnSavepointFailure::Abort => abort(context, draft, Reason::SavepointFailed, message),
        OnSavepointFailure::LastCheckpoint => from_last_checkpoint(context, draft, message),
    }
}

fn from_last_checkpoint(context: &Context, draft: &mut Draft, message: String) {
    draft.warning("SavepointFailed", format!("{message}; going on from the last checkpoint"));
    draft.step(context, OperationStep::Stopping, Some(message));
    if let Some(operation) = &mut draft.status.operation {
        operation.restore_point.clone_from(&context.status.last_checkpoint);
    }
}

fn failed_job(context: &Context, operation: &Operation, draft: &mut Draft, engine: Engine) {
    let point = engine.restore_point();
    // Its retention may have left nothing: then it is not begun without.
    if point.is_none() && context.status.last_checkpoint.is_some() || operation.kind == OperationKind::Suspend {
        return ended_first(context, draft, engine);
    }
    hand_over(context, draft, operation, point);
}
