//! A plan while it is made: the status to come, what is done, and why.

use super::context::Context;
use super::effect::{Effect, Event, Plan};
use super::verdicts;
use crate::api::StreamJobStatus;
use crate::api::conditions::{Reason, shorten};
use crate::api::status::{HistoryEntry, Operation, OperationResult, OperationStep};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// While something is waited for that takes no time.
pub const SOON: Duration = Duration::from_millis(500);
/// While pods come up.
pub const SHORTLY: Duration = Duration::from_secs(1);
/// While something is waited for that a person has to do.
pub const NOW_AND_THEN: Duration = Duration::from_secs(10);
/// When nothing is waited for.
pub const AT_REST: Duration = Duration::from_secs(60);

const HISTORY: usize = 10;
const LONGEST_MESSAGE: usize = 512;
/// Of the status as JSON; the limit is 16 KiB.
const LARGEST_STATUS: usize = 15 * 1024;

/// Something that keeps the job from being as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub reason: String,
    pub message: String,
    /// It takes a person.
    pub stalled: bool,
}

impl Problem {
    pub fn new(reason: Reason, message: impl Into<String>) -> Problem {
        Problem { reason: reason.name().to_owned(), message: message.into(), stalled: false }
    }

    pub fn stalled(self) -> Problem {
        Problem { stalled: true, ..self }
    }
}

pub struct Draft {
    /// The status to come.
    pub status: StreamJobStatus,
    /// What is done, as the observed status says; left out when the plan takes a step.
    pub effects: Vec<Effect>,
    events: Vec<Event>,
    requeue_after: Duration,
    why: String,
    /// The first one counts.
    pub problem: Option<Problem>,
    /// What is wrong with the newest spec, if anything is known of that.
    pub refusal: Option<Problem>,
    /// The newest spec is not what runs, and something is going to be done about it.
    pub pending: bool,
}

impl Draft {
    pub fn new(context: &Context) -> Draft {
        Draft {
            status: context.status.clone(),
            effects: Vec::new(),
            events: Vec::new(),
            requeue_after: AT_REST,
            why: String::new(),
            problem: None,
            refusal: None,
            pending: false,
        }
    }

    /// The last reason that is given stands.
    pub fn because(&mut self, why: impl Into<String>) {
        self.why = why.into();
    }

    pub fn requeue(&mut self, after: Duration) {
        self.requeue_after = self.requeue_after.min(after);
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn event(&mut self, reason: &str, note: impl Into<String>) {
        self.events.push(Event { warning: false, reason: reason.to_owned(), note: note.into() });
    }

    pub fn warning(&mut self, reason: &str, note: impl Into<String>) {
        self.events.push(Event { warning: true, reason: reason.to_owned(), note: note.into() });
    }

    pub fn problem(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    /// Goes on with the operation: written now, done in the next pass.
    pub fn step(&mut self, context: &Context, step: OperationStep, message: Option<String>) {
        if let Some(operation) = &mut self.status.operation {
            operation.step = step;
            operation.step_started_at = Time(context.now);
            operation.deadline = None;
            operation.message = message.map(|message| shorten(message, LONGEST_MESSAGE));
        }
        self.requeue(SOON);
    }

    /// Why the operation waits. No step.
    pub fn waits(&mut self, message: impl Into<String>) {
        let message = shorten(message.into(), LONGEST_MESSAGE);
        self.why.clone_from(&message);
        if let Some(operation) = &mut self.status.operation {
            operation.message = Some(message);
        }
    }

    pub fn end(&mut self, context: &Context, result: OperationResult, message: Option<String>) {
        let Some(operation) = self.status.operation.take() else { return };
        let message = message.map(|message| shorten(message, LONGEST_MESSAGE));
        self.status.history.insert(0, entry(operation, result, message, Time(context.now)));
        self.status.history.truncate(HISTORY);
        self.requeue(SOON);
    }

    /// Without a trace in the history.
    pub fn drop_operation(&mut self) {
        self.status.operation = None;
        self.requeue(SOON);
    }

    pub fn finish(mut self, context: &Context) -> Plan {
        verdicts::write(context, &mut self);
        let changed = context.observed.job.status.as_ref() != Some(&self.status);
        if changed {
            self.shrink();
        }
        if took_a_step(&context.status, &self.status) {
            self.effects.clear();
            self.requeue(SOON);
        }
        let mut effects = Vec::new();
        if changed {
            effects.push(Effect::WriteStatus(Box::new(self.status)));
        }
        effects.append(&mut self.effects);
        effects.extend(self.events.into_iter().map(Effect::Event));
        Plan { effects, requeue_after: self.requeue_after, why: self.why }
    }

    /// Old entries go before the status gets too large for its readers.
    fn shrink(&mut self) {
        while !self.status.history.is_empty()
            && serde_json::to_vec(&self.status).is_ok_and(|json| json.len() > LARGEST_STATUS)
        {
            self.status.history.pop();
        }
    }
}

impl Plan {
    pub(super) fn nothing(why: &str) -> Plan {
        Plan { effects: Vec::new(), requeue_after: AT_REST, why: why.into() }
    }
}

/// Whether the two differ in what deeds follow from.
fn took_a_step(before: &StreamJobStatus, after: &StreamJobStatus) -> bool {
    let step = |status: &StreamJobStatus| {
        let operation = status.operation.as_ref();
        operation.map(|operation| (operation.id.clone(), operation.step, operation.attempt, operation.to_revision))
    };
    step(before) != step(after)
        || before.current_revision != after.current_revision
        || before.job_id != after.job_id
        || before.ended != after.ended
        || before.schedule != after.schedule
}

fn entry(operation: Operation, result: OperationResult, message: Option<String>, completed_at: Time) -> HistoryEntry {
    // Only a change of what runs stops the job, and only once it is past its savepoint.
    let paused_at = (operation.step == OperationStep::Activating && result == OperationResult::Succeeded)
        .then_some(&operation.step_started_at);
    HistoryEntry {
        downtime_ms: paused_at.map(|from| completed_at.0.duration_since(from.0).as_millis() as i64),
        id: operation.id,
        kind: operation.kind,
        result,
        from_revision: operation.from_revision,
        to_revision: operation.to_revision,
        restore_point: operation.restore_point,
        message,
        started_at: operation.started_at,
        completed_at,
    }
}
