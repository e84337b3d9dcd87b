//! How operations begin: who they are, which revision and which state they lead to.

use super::changes::Change;
use super::context::Context;
use super::draft::{Draft, Problem, SOON};
use super::ids;
use crate::api::SavepointPhase;
use crate::api::conditions::Reason;
use crate::api::status::{Operation, OperationKind, OperationStep, RestorePoint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use streamjob_api::spec::UpgradeMode;

/// An operation to begin.
pub struct Beginning {
    pub kind: OperationKind,
    pub step: OperationStep,
    pub to: Option<i64>,
    /// The engine's name of the job from then on.
    pub job_id: Option<String>,
    pub restore_point: Option<RestorePoint>,
}

pub fn begin(context: &Context, draft: &mut Draft, beginning: Beginning) {
    let Beginning { kind, step, to, job_id, restore_point } = beginning;
    let now = Time(context.now);
    let what = format!("{kind:?}/{}", to.or(context.status.current_revision).unwrap_or(0));
    let status = &mut draft.status;
    status.last_revision = status.last_revision.max(to);
    status.target_revision = to.or(status.current_revision);
    status.rejected = None;
    status.operation = Some(Operation {
        id: ids::operation_id(context.uid(), &what, &context.now.to_string()),
        kind,
        step,
        from_revision: context.status.current_revision,
        to_revision: to,
        generation: context.generation(),
        spec_hash: Some(context.attempt()),
        job_id,
        restore_point,
        attempt: i32::from(step == OperationStep::Saving),
        message: None,
        started_at: now.clone(),
        step_started_at: now,
        deadline: None,
    });
    draft.because(format!("{kind:?} begins"));
    draft.requeue(SOON);
}

/// The first revision of a job.
pub fn start(context: &Context, draft: &mut Draft) {
    match initial(context) {
        Err(problem) => draft.problem(problem),
        Ok(restore_point) => {
            let to = context.next_revision();
            let job_id = ids::job_id(context.uid(), None);
            let step = OperationStep::Preparing;
            begin(
                context,
                draft,
                Beginning { kind: OperationKind::Start, step, to: Some(to), job_id: Some(job_id), restore_point },
            );
        }
    }
}

/// A new revision beside or after the current one. `anew`: without the job's own state.
pub fn replace(context: &Context, draft: &mut Draft, kind: OperationKind, anew: bool) {
    let to = context.next_revision();
    let anew = anew || context.upgrade().mode == UpgradeMode::Stateless;
    let (job_id, restore_point) = if anew {
        match initial(context) {
            Ok(restore_point) => (Some(ids::job_id(context.uid(), Some(to))), restore_point),
            Err(problem) => return draft.problem(problem),
        }
    } else {
        (context.status.job_id.clone(), last_known(context))
    };
    begin(context, draft, Beginning { kind, step: OperationStep::Preparing, to: Some(to), job_id, restore_point });
}

pub fn kind_of(change: Change) -> OperationKind {
    match change {
        Change::Restart => OperationKind::Restart,
        Change::Rescale => OperationKind::Rescale,
        Change::Upgrade => OperationKind::Upgrade,
    }
}

/// The newest restore point of the job's own state that is known of.
pub fn last_known(context: &Context) -> Option<RestorePoint> {
    let status = &context.status;
    let stopped = status.last_savepoint.as_ref().filter(|_| status.suspended);
    let ended = status.ended.as_ref().and_then(|ended| ended.restore_point.as_ref());
    [stopped, ended, status.last_checkpoint.as_ref()].into_iter().flatten().max_by_key(|point| point.id).cloned()
}

/// What a job without state of its own begins with, as far as the operator has to know.
fn initial(context: &Context) -> Result<Option<RestorePoint>, Problem> {
    let Some(from) = &context.spec.restore_from else { return Ok(None) };
    let point = |path: &str, id: i64| RestorePoint {
        id,
        path: Some(path.to_owned()),
        completed_at: None,
        duration_ms: None,
        size_bytes: None,
        savepoint: true,
    };
    if let Some(path) = &from.path {
        return Ok(Some(point(path, 0)));
    }
    let Some(reference) = &from.savepoint_ref else { return Ok(None) };
    let named = |savepoint: &&crate::api::Savepoint| savepoint.metadata.name.as_ref() == Some(&reference.name);
    let not_ready = |what: &str| {
        let message = format!("spec.restoreFrom.savepointRef: Savepoint {} {what}", reference.name);
        Problem::new(Reason::SavepointNotReady, message)
    };
    let savepoint = context.observed.savepoints.iter().find(named).ok_or_else(|| not_ready("does not exist"))?;
    let status = savepoint.status.clone().unwrap_or_default();
    match (status.phase, status.path) {
        (SavepointPhase::Completed, Some(path)) => Ok(Some(point(&path, status.checkpoint_id.unwrap_or(0)))),
        (SavepointPhase::Failed, _) => Err(not_ready("has failed").stalled()),
        (SavepointPhase::Deleting, _) => Err(not_ready("is being deleted").stalled()),
        _ => Err(not_ready("is not complete yet")),
    }
}
