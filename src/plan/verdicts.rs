//! Conditions and the printed state: what the status to come means to people and to tools.

use super::context::Context;
use super::draft::{Draft, Problem};
use super::engine::{Engine, Phase};
use crate::api::conditions::{self, Reason, Truth, Verdict, aspect};
use crate::api::status::{EndState, OperationKind};
use std::time::Duration;

/// Missed intervals, beyond the time that a checkpoint may take, after which checkpoints count as late.
const MISSED: u64 = 5;

pub fn write(context: &Context, draft: &mut Draft) {
    let moved = draft.status.current_revision != context.status.current_revision;
    // What was observed is of the revision before.
    let engine = if moved { Engine::Absent } else { context.current_engine() };
    if !moved && draft.problem.is_none() {
        draft.problem = trouble(context, draft, engine);
    }
    let checkpoints = checkpoints(context, draft, engine);
    let ready = ready(context, draft, engine);
    let progressing = progressing(draft);
    let degraded = degraded(draft, &checkpoints);
    let accepted = accepted(context, draft);
    let state = state(context, draft, engine);
    let stalled = stalled(draft, &accepted);
    let generation = context.generation();
    let busy = draft.status.operation.is_some() || draft.pending;
    // Until what the spec asks for runs, or was refused, the job is as an earlier spec wanted it.
    let settled =
        if busy && draft.status.current_revision.is_some() { context.status.observed_generation } else { generation };
    let reconciling = busy.then(|| Verdict { status: Truth::True, ..progressing.clone() });
    let status = &mut draft.status;
    status.state = state.into();
    status.observed_generation = settled.or(generation);
    let of_what_runs = status.observed_generation;
    let list = &mut status.conditions;
    for (aspect, verdict, generation) in [
        (aspect::SPEC_ACCEPTED, accepted, generation),
        (aspect::READY, ready, of_what_runs),
        (aspect::PROGRESSING, progressing, generation),
        (aspect::DEGRADED, degraded, generation),
        (aspect::CHECKPOINTS_HEALTHY, checkpoints, generation),
    ] {
        conditions::set(list, aspect, verdict, generation, context.now);
    }
    for (aspect, verdict) in [(aspect::RECONCILING, reconciling), (aspect::STALLED, stalled)] {
        match verdict {
            Some(verdict) => conditions::set(list, aspect, verdict, generation, context.now),
            None => conditions::remove(list, aspect),
        }
    }
}

/// What is wrong with the job that runs.
fn trouble(context: &Context, draft: &Draft, engine: Engine) -> Option<Problem> {
    let current = draft.status.current_revision?;
    if let Some(ended) = &draft.status.ended {
        let text = || ended.reason.clone().unwrap_or_else(|| "no reason was given".into());
        return match ended.state {
            EndState::Failed => Some(Problem::new(Reason::Failed, text()).stalled()),
            EndState::Canceled => Some(Problem::new(Reason::Canceled, text())),
            EndState::Finished => None,
        };
    }
    if draft.status.suspended {
        return None;
    }
    match engine.phase() {
        Some(Phase::Running | Phase::Standby | Phase::Ended(_)) => None,
        Some(phase) => {
            let diagnosis = context.diagnosis(current);
            let reason = engine.status().and_then(|status| status.reason.clone());
            match (diagnosis, phase, reason) {
                (Some(found), ..) => {
                    Some(Problem { reason: found.reason.into(), message: found.message, stalled: false })
                }
                (None, Phase::Recovering, reason) => Some(Problem::new(Reason::Recovering, reason.unwrap_or_default())),
                _ => None,
            }
        }
        None => Some(match context.diagnosis(current) {
            Some(found) => Problem { reason: found.reason.into(), message: found.message, stalled: found.terminal },
            None => Problem::new(
                Reason::CoordinatorUnreachable,
                format!("the coordinator of revision {current} does not answer"),
            ),
        }),
    }
}

fn ready(context: &Context, draft: &Draft, engine: Engine) -> Verdict {
    let status = &draft.status;
    let no = |reason, message: String| Verdict::new(Truth::False, reason, message);
    if context.observed.job.metadata.deletion_timestamp.is_some() {
        return no(Reason::Deleting, String::new());
    }
    let Some(current) = status.current_revision else {
        return match (&draft.problem, &status.operation) {
            _ if context.suspend() && status.operation.is_none() => {
                no(Reason::Suspended, "the job has not been started".into())
            }
            (Some(problem), _) => Verdict::because(Truth::False, &problem.reason, problem.message.clone()),
            (None, Some(_)) => no(Reason::Starting, String::new()),
            (None, None) => Verdict::new(Truth::Unknown, Reason::Pending, ""),
        };
    };
    if let Some(ended) = &status.ended {
        let reason = ended.reason.clone().unwrap_or_default();
        return match ended.state {
            EndState::Finished => no(Reason::Finished, reason),
            EndState::Failed => no(Reason::Failed, reason),
            EndState::Canceled => no(Reason::Canceled, reason),
        };
    }
    if status.suspended {
        return no(Reason::Suspended, "the job is stopped, its state is kept".into());
    }
    let what = || format!("revision {current} runs at parallelism {}", status.parallelism.unwrap_or(1));
    if let (Some(Phase::Running), Some(reported)) = (engine.phase(), engine.status()) {
        let periodic = reported.checkpoint_config.as_ref().is_some_and(|config| config.interval_ms.is_some());
        let was_ready = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == aspect::READY && condition.status == Truth::True);
        // A coordinator that comes back counts anew, and its job was ready before.
        let proved = !periodic || reported.checkpoints.completed > 0 || (was_ready && reported.restore_point.is_some());
        return if proved {
            Verdict::new(Truth::True, Reason::Running, what())
        } else {
            no(Reason::WaitingForFirstCheckpoint, what())
        };
    }
    match (&draft.problem, &status.operation) {
        (Some(problem), _) => Verdict::because(Truth::False, &problem.reason, problem.message.clone()),
        (None, Some(operation)) => no(under_way(operation.kind), String::new()),
        (None, None) => no(Reason::Recovering, "the job does not run".into()),
    }
}

fn under_way(kind: OperationKind) -> Reason {
    match kind {
        OperationKind::Start => Reason::Starting,
        OperationKind::Upgrade => Reason::Upgrading,
        OperationKind::Rescale => Reason::Rescaling,
        OperationKind::Restart => Reason::Restarting,
        OperationKind::Suspend => Reason::Suspending,
        OperationKind::Resume => Reason::Resuming,
        OperationKind::Rollback => Reason::RollingBack,
        OperationKind::Delete => Reason::Deleting,
    }
}

fn progressing(draft: &Draft) -> Verdict {
    match (&draft.status.operation, &draft.problem) {
        (Some(operation), Some(problem)) if operation.to_revision.is_some() => {
            Verdict::because(Truth::True, &problem.reason, problem.message.clone())
        }
        (Some(operation), _) => {
            let message = operation.message.clone().unwrap_or_default();
            Verdict::new(Truth::True, under_way(operation.kind), message)
        }
        (None, Some(problem)) if draft.pending => {
            Verdict::because(Truth::True, &problem.reason, problem.message.clone())
        }
        (None, _) => Verdict::new(Truth::False, Reason::Settled, ""),
    }
}

fn accepted(context: &Context, draft: &Draft) -> Verdict {
    if let Some(refusal) = &draft.refusal {
        return Verdict::because(Truth::False, &refusal.reason, refusal.message.clone());
    }
    if let Some(rejected) = &draft.status.rejected {
        return Verdict::because(Truth::False, &rejected.reason, rejected.message.clone());
    }
    let preparing = draft
        .status
        .operation
        .as_ref()
        .is_some_and(|operation| operation.step == crate::api::status::OperationStep::Preparing);
    if preparing || draft.pending {
        return Verdict::new(Truth::Unknown, Reason::Checking, "");
    }
    if context.status.current_revision.is_none() && draft.status.current_revision.is_none() {
        return Verdict::new(Truth::Unknown, Reason::Pending, "");
    }
    Verdict::new(Truth::True, Reason::Accepted, "")
}

fn checkpoints(context: &Context, draft: &mut Draft, engine: Engine) -> Verdict {
    let Some(status) = engine.status().filter(|_| engine.is_running()) else {
        return Verdict::new(Truth::Unknown, Reason::NotRunning, "");
    };
    let Some((config, interval)) =
        status.checkpoint_config.as_ref().and_then(|config| Some((config, config.interval_ms?)))
    else {
        return Verdict::new(Truth::Unknown, Reason::NoCheckpoints, "");
    };
    let since = status.checkpoints.last_completed_at.max(status.running_since).unwrap_or(0);
    let age = u64::try_from(context.now.as_millisecond() - since).unwrap_or(0);
    let most = interval.saturating_mul(MISSED).saturating_add(config.timeout_ms);
    if age > most {
        let why = status.checkpoints.last_failure.as_ref().map_or(String::new(), |why| format!(": {why}"));
        return Verdict::new(Truth::False, Reason::Late, format!("no checkpoint for several intervals{why}"));
    }
    draft.requeue(Duration::from_millis((most - age).max(1000)));
    let failing = status.checkpoints.failed > 0 && status.checkpoints.completed == 0;
    match (&status.checkpoints.last_failure, failing) {
        (Some(why), true) => Verdict::new(Truth::False, Reason::Failing, why.clone()),
        _ if status.checkpoints.completed > 0 => Verdict::new(Truth::True, Reason::Completing, ""),
        _ => Verdict::new(Truth::Unknown, Reason::WaitingForFirstCheckpoint, ""),
    }
}

fn degraded(draft: &Draft, checkpoints: &Verdict) -> Verdict {
    let upcoming = draft.status.operation.as_ref().is_some_and(|operation| {
        operation.step == crate::api::status::OperationStep::Preparing && operation.from_revision.is_some()
    });
    match &draft.problem {
        // Of pods beside the job that runs.
        Some(problem) if !upcoming => Verdict::because(Truth::True, &problem.reason, problem.message.clone()),
        _ if checkpoints.status == Truth::False => Verdict { status: Truth::True, ..checkpoints.clone() },
        _ => Verdict::new(Truth::False, Reason::Healthy, ""),
    }
}

fn stalled(draft: &Draft, accepted: &Verdict) -> Option<Verdict> {
    if accepted.status == Truth::False {
        return Some(Verdict { status: Truth::True, ..accepted.clone() });
    }
    let problem = draft.problem.as_ref().filter(|problem| problem.stalled)?;
    Some(Verdict::because(Truth::True, &problem.reason, problem.message.clone()))
}

fn state(context: &Context, draft: &Draft, engine: Engine) -> &'static str {
    let status = &draft.status;
    if context.observed.job.metadata.deletion_timestamp.is_some() {
        return "Deleting";
    }
    if let Some(operation) = &status.operation {
        return match operation.kind {
            OperationKind::Start | OperationKind::Resume => "Starting",
            OperationKind::Upgrade => "Upgrading",
            OperationKind::Rescale => "Rescaling",
            OperationKind::Restart => "Restarting",
            OperationKind::Suspend => "Suspending",
            OperationKind::Rollback => "RollingBack",
            OperationKind::Delete => "Deleting",
        };
    }
    if let Some(ended) = &status.ended {
        return match ended.state {
            EndState::Finished => "Finished",
            EndState::Failed => "Failed",
            EndState::Canceled => "Canceled",
        };
    }
    if status.suspended || (context.suspend() && status.current_revision.is_none()) {
        return "Suspended";
    }
    match (status.current_revision, engine.phase()) {
        (None, _) if status.rejected.is_some() || draft.refusal.is_some() => "Failed",
        (None, _) => "Created",
        (_, Some(Phase::Running)) => "Running",
        (_, Some(Phase::Starting | Phase::Standby)) => "Starting",
        _ => "Restarting",
    }
}
