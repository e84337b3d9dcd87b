//! The new revision takes the job over: it is told to, until it has.

use super::context::Context;
use super::draft::{Draft, Problem, SOON};
use super::effect::{Effect, EngineCall};
use super::engine::{Engine, Phase};
use super::operation::is_superseded;
use super::{schedule, stability};
use crate::api::conditions::Reason;
use crate::api::status::{Operation, OperationKind, OperationResult};
use std::time::Duration;

/// A revision that has taken over but does not come to run is the job's business from then on.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn plan(context: &Context, operation: &Operation, draft: &mut Draft) {
    draft.requeue(SOON);
    if stability::roll_back_if_due(context, draft) {
        return;
    }
    let Some(target) = operation.to_revision.and_then(|to| context.revisions.get(&to)) else {
        // Deleted by somebody, and not known any more: what runs is looked at as it is.
        draft.end(context, OperationResult::Failed, Some("the stored spec of the new revision is gone".into()));
        return;
    };
    draft.effects.extend(context.missing_of(target, true));
    let engine = context.engine(target.number, Some(&target.job_id));
    let late = context.elapsed(operation.step_started_at.0) >= PATIENCE;
    let overtaken = is_superseded(context, operation);
    match engine.phase() {
        Some(Phase::Standby) => {
            activate(context, operation, target.number, engine, draft);
            schedule::record(context, operation, draft);
        }
        Some(Phase::Running | Phase::Ended(_)) => {
            // Its savepoint is written down first.
            if !schedule::record(context, operation, draft) || late {
                done(context, operation, target.number, engine, draft);
            }
        }
        Some(_) if overtaken || late => {
            let message = format!("revision {} has taken over, but does not run", target.number);
            draft.end(context, OperationResult::Failed, Some(message));
        }
        Some(_) => draft.waits(format!("revision {} restores the job", target.number)),
        None => {
            let diagnosis = context.diagnosis(target.number);
            let terminal = diagnosis.as_ref().is_some_and(|diagnosis| diagnosis.terminal);
            if let Some(diagnosis) = diagnosis {
                draft.waits(diagnosis.message.clone());
                let problem =
                    Problem { reason: diagnosis.reason.into(), message: diagnosis.message, stalled: terminal };
                draft.problem(problem);
            } else {
                draft.waits(format!("the coordinator of revision {} does not answer", target.number));
            }
            if overtaken && (late || terminal) {
                draft.end(context, OperationResult::Superseded, Some("the spec changed again".into()));
            }
        }
    }
}

fn activate(context: &Context, operation: &Operation, revision: i64, engine: Engine, draft: &mut Draft) {
    let Some((status, standby)) = engine.status().and_then(|status| Some((status, status.standby.as_ref()?))) else {
        return;
    };
    if !(standby.checked || standby.ready) {
        return draft.waits("the restore point is being compared with the program");
    }
    // A job with state never comes back without it.
    let expected = operation.restore_point.as_ref().or(context.status.last_checkpoint.as_ref());
    if let Some(expected) = expected
        && status.restore_point.is_none()
    {
        let path = expected.path.as_deref().unwrap_or("its last checkpoint");
        let message = format!(
            "the job had state ({path}), and its storage holds nothing to go on from; restore the files, or set spec.upgrade.mode \
             to Stateless and raise spec.restartNonce to begin anew"
        );
        draft.waits(message.clone());
        if is_superseded(context, operation) {
            draft.end(context, OperationResult::Failed, Some("there was no restore point".into()));
        }
        return draft.problem(Problem::new(Reason::NoRestorePoint, message).stalled());
    }
    draft.waits(format!("revision {revision} is told to take the job over"));
    draft.effect(Effect::Engine { revision, call: EngineCall::Activate });
}

fn done(context: &Context, operation: &Operation, revision: i64, engine: Engine, draft: &mut Draft) {
    let since = engine.status().and_then(|status| status.running_since);
    let from = operation.from_revision.filter(|from| *from != revision);
    let stopped = from.and_then(|from| context.engine(from, None).status()?.latest_savepoint.clone());
    let stopped = stopped.filter(|savepoint| savepoint.stopped).and_then(|savepoint| savepoint.completed_at);
    let from_path = engine.status().and_then(|status| status.restored_from_path.clone());
    let origin = from_path.map_or_else(|| "without state".to_owned(), |path| format!("from {path}"));
    draft.event(verb(operation.kind), format!("revision {revision} runs, {origin}"));
    draft.because("the new revision runs");
    draft.end(context, OperationResult::Succeeded, None);
    if let Some(entry) = draft.status.history.first_mut() {
        entry.downtime_ms = match (since, stopped, from) {
            (_, _, None) => None,
            (Some(since), Some(stopped), _) => Some((since - stopped).max(0)),
            _ => entry.downtime_ms,
        };
    }
}

fn verb(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Start => "Started",
        OperationKind::Upgrade => "Upgraded",
        OperationKind::Rescale => "Rescaled",
        OperationKind::Restart => "Restarted",
        OperationKind::Resume => "Resumed",
        OperationKind::Rollback => "RolledBack",
        OperationKind::Suspend => "Suspended",
        OperationKind::Delete => "Deleted",
    }
}
