//! Whether the current revision has proved itself, and the way back if it does not.

use super::begin::{Beginning, begin};
use super::context::Context;
use super::draft::{Draft, Problem};
use super::engine::Phase;
use super::ids;
use crate::api::conditions::Reason;
use crate::api::status::{EndState, OperationKind, OperationResult, OperationStep, Rejected, RestorePoint};
use std::time::Duration;
use streamjob_api::spec::Rollback;

/// Counts checkpoints without a restart. Follows [`super::progress::observe`], which counts restarts.
pub fn observe(context: &Context, draft: &mut Draft) {
    let status = &mut draft.status;
    let Some(trial) = &mut status.trial else { return };
    if context.status.current_revision != Some(trial.revision) {
        return;
    }
    let engine = context.current_engine();
    let Some(reported) = engine.status().filter(|_| engine.phase() != Some(Phase::Standby)) else { return };
    if status.counted != context.status.counted {
        let incarnation = |counted: Option<crate::api::status::Counted>| counted.map(|counted| counted.incarnation);
        let same = incarnation(status.counted) == incarnation(context.status.counted);
        trial.checkpoints_before = if same { reported.checkpoints.completed } else { 0 };
    }
    let wanted = i64::from(rollback(context).stable_after_checkpoints);
    let periodic = reported.checkpoint_config.as_ref().is_some_and(|config| config.interval_ms.is_some());
    let proved = reported.checkpoints.completed - trial.checkpoints_before >= wanted || !periodic;
    let finished = engine.phase() == Some(Phase::Ended(EndState::Finished));
    if finished || (engine.is_running() && proved) {
        status.stable_revision = Some(trial.revision);
        status.trial = None;
    }
}

/// Begins the way back, if there is one and it is time.
pub fn roll_back_if_due(context: &Context, draft: &mut Draft) -> bool {
    let Some(trial) = &context.status.trial else { return false };
    let options = rollback(context);
    if !options.enabled || context.status.current_revision != Some(trial.revision) || context.suspend() {
        return false;
    }
    let engine = context.current_engine();
    let failed = context.status.ended.as_ref().map(|ended| ended.state) == Some(EndState::Failed)
        || engine.phase() == Some(Phase::Ended(EndState::Failed));
    let terminal = context.diagnosis(trial.revision).filter(|diagnosis| diagnosis.terminal);
    let deadline = Duration::from_millis(options.deadline.millis());
    let late = context.elapsed(trial.since.0) >= deadline;
    if !failed && terminal.is_none() && !late {
        draft.requeue(deadline.saturating_sub(context.elapsed(trial.since.0)).max(super::draft::SOON));
        return false;
    }
    let why = match (&terminal, failed) {
        (Some(diagnosis), _) => format!("revision {} cannot run: {}", trial.revision, diagnosis.message),
        (None, true) => format!("revision {} failed", trial.revision),
        (None, false) => format!("revision {} was not stable within {}", trial.revision, options.deadline),
    };
    let stable = context.status.stable_revision.and_then(|stable| context.revisions.get(&stable));
    let Some(stable) = stable.filter(|_| trial.revocable) else {
        // Nowhere to go back to: said once, and not asked again.
        if late {
            draft.warning(Reason::NotStable.name(), why.clone());
            draft.status.trial = None;
        }
        draft.problem(Problem::new(Reason::NotStable, why));
        return false;
    };
    if draft.status.operation.is_some() {
        draft.end(context, OperationResult::Failed, Some(why.clone()));
    }
    let to = context.next_revision();
    // Another name, so that what the failed revision has done to the state is left behind.
    let another = Some(ids::job_id(context.uid(), Some(to)));
    let savepoint = trial.restore_point.clone().filter(|point| point.savepoint && point.path.is_some());
    let (job_id, restore_point, with) = match savepoint {
        // The state before was given up with the upgrade, and the new one is not the stable program's: it begins where it
        // once began.
        _ if trial.anew => {
            (another, stable.restore_path.as_deref().map(beginning), ", without the state that was given up")
        }
        Some(savepoint) => (another, Some(savepoint), ""),
        None => (context.status.job_id.clone(), context.status.last_checkpoint.clone(), ""),
    };
    let why = format!("{why}; going back to the spec of revision {}{with}", stable.number);
    draft.warning("RollingBack", why.clone());
    let (kind, step) = (OperationKind::Rollback, OperationStep::Preparing);
    begin(context, draft, Beginning { kind, step, to: Some(to), job_id, restore_point });
    draft.status.trial = None;
    draft.status.rejected =
        Some(Rejected { spec_hash: context.attempt(), reason: Reason::RolledBack.name().into(), message: why });
    true
}

fn beginning(path: &str) -> RestorePoint {
    RestorePoint {
        id: 0,
        path: Some(path.to_owned()),
        completed_at: None,
        duration_ms: None,
        size_bytes: None,
        savepoint: true,
    }
}

fn rollback(context: &Context) -> Rollback {
    let written = context.spec.upgrade.as_ref().and_then(|upgrade| upgrade.rollback.clone());
    // As the schema's defaults.
    written.unwrap_or(Rollback {
        enabled: false,
        stable_after_checkpoints: 3,
        deadline: streamjob_api::text::Duration::from_secs(600),
    })
}
