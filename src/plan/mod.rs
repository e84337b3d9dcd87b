//! Decides: from what was observed to what is done next. Pure and total; no clock, no client.
//!
//! Two rules hold for every plan. What is done follows from the status that was *observed*; a plan that takes the next step
//! of an operation, or begins or ends one, only writes that down. And a status is written with the resource version that was
//! observed, before anything else. So whoever is killed at any point, or comes second, has either written nothing or done
//! what stands written, and every deed can be repeated.

mod activating;
mod begin;
mod changes;
mod context;
mod deleting;
mod draft;
pub mod effect;
mod engine;
mod garbage;
mod ids;
pub mod observed;
mod operation;
mod preparing;
mod progress;
mod savepoints;
mod saving;
mod schedule;
mod stability;
mod steady;
mod stopping;
mod verdicts;

#[cfg(test)]
mod tests;

pub use effect::{Effect, EngineCall, Plan};
pub use ids::{savepoint_trigger, stop_trigger};
pub use observed::{Observed, ObservedSavepoint};
pub use progress::awaits_checkpoint;
pub use savepoints::{SavepointPlan, plan_savepoint};

use crate::api::FINALIZER;
use crate::api::status::OperationStep;
use crate::settings::Settings;
use context::Context;
use draft::Draft;
use jiff::Timestamp;

/// What is done now for a job, and when it is looked at again if nothing wakes us.
#[must_use]
pub fn plan(observed: &Observed, settings: &Settings, now: Timestamp) -> Plan {
    let context = Context::new(observed, settings, now);
    let mut draft = Draft::new(&context);
    let ours = observed.job.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if observed.job.metadata.deletion_timestamp.is_some() {
        if !ours {
            return Plan::nothing("the job is being deleted, and nothing is left to do for it");
        }
        deleting::plan(&context, &mut draft);
        return draft.finish(&context);
    }
    if !ours {
        return Plan {
            effects: vec![Effect::AddFinalizer],
            requeue_after: draft::SOON,
            why: "a finalizer keeps the job until its state was dealt with".into(),
        };
    }
    if context.is_behind() {
        return Plan {
            effects: Vec::new(),
            requeue_after: draft::SOON,
            why: "the job's objects are newer than its status: this process has read an old one".into(),
        };
    }
    match context.operation() {
        None => steady::plan(&context, &mut draft),
        Some(operation) => match operation.step {
            OperationStep::Preparing => preparing::plan(&context, operation, &mut draft),
            OperationStep::Saving => saving::plan(&context, operation, &mut draft),
            OperationStep::Stopping => stopping::plan(&context, operation, &mut draft),
            OperationStep::Activating => activating::plan(&context, operation, &mut draft),
            // Belongs to a deletion, which cannot be taken back.
            OperationStep::Disposing => draft.drop_operation(),
        },
    }
    progress::observe(&context, &mut draft);
    stability::observe(&context, &mut draft);
    schedule::plan(&context, &mut draft);
    garbage::plan(&context, &mut draft);
    draft.finish(&context)
}
