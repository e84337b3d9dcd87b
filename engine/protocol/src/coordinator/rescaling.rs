//! Another parallelism without new processes: plan, cut, let the tasks end behind the cut, deploy the new plan from it.
//!
//! The new parallelism is journaled before the first task of the new plan starts, so that a successor runs the same plan.

use super::checkpointing::Cause;
use super::machine::{Coordinator, Life};
use super::scheduling::RegionPhase;
use super::view::{Outcome, RescaleView};
use super::{Action, JobState, Report, SnapshotKind};
use crate::failover::Regions;
use crate::ids::{CheckpointId, Millis, TaskId};
use crate::journal::JournalEntry;
use crate::plan::JobPlan;

const RESCALE_HISTORY: usize = 20;

#[derive(Debug, Clone)]
enum Step {
    /// Until it is known what the job looks like.
    Planning,
    /// Until the cut is complete; `None` while it cannot begin.
    Cutting { plan: Box<JobPlan>, checkpoint: Option<CheckpointId> },
    /// Until the journal says the new parallelism and no task of the old plan runs.
    Switching {
        plan: Box<JobPlan>,
        journaled: bool,
        /// Tasks that have not ended by then are cancelled: what the cut holds is safe.
        deadline: Millis,
    },
    /// Until all tasks of the new plan run.
    Starting,
}

#[derive(Debug, Clone)]
pub(super) struct Rescaling {
    trigger: String,
    parallelism: u32,
    step: Step,
}

impl Rescaling {
    /// Until which tasks of the old plan may end by themselves.
    pub fn deadline(&self) -> Option<Millis> {
        match self.step {
            Step::Switching { deadline, .. } => Some(deadline),
            _ => None,
        }
    }
}

impl Coordinator {
    pub(super) fn request_rescale(&mut self, trigger: String, parallelism: u32) {
        if self.view.rescales.iter().any(|known| known.trigger == trigger) {
            return;
        }
        let outcome = Outcome::InProgress;
        self.view.rescales.push_back(RescaleView { trigger: trigger.clone(), parallelism, at: self.unix_now, outcome });
        if self.view.rescales.len() > RESCALE_HISTORY {
            self.view.rescales.pop_front();
        }
        let slots = self.cluster.capacity();
        let max_parallelism = self.config.plan.max_parallelism;
        let refusal = if let Some(reason) = self.refusal() {
            Some(reason)
        } else if self.is_stop_under_way() {
            Some("the job is stopping with a savepoint".into())
        } else if let Some(other) = &self.rescaling {
            Some(format!("the job is being rescaled to {} already", other.parallelism))
        } else if self.config.checkpoint.interval_ms.is_none() {
            Some("the job runs without checkpoints: set spec.checkpoint.interval, or start it anew".into())
        } else if parallelism == 0 || parallelism > max_parallelism {
            Some(format!("parallelism {parallelism} is not between 1 and the job's max parallelism {max_parallelism}"))
        } else if parallelism > slots {
            Some(format!("parallelism {parallelism} needs {parallelism} slots, the workers have {slots}: start more"))
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.rescaled(&trigger, Outcome::Failed(reason));
            return;
        }
        if parallelism == self.parallelism {
            self.rescaled(&trigger, Outcome::Completed(parallelism));
            return;
        }
        self.rescaling = Some(Rescaling { trigger, parallelism, step: Step::Planning });
        self.push(Action::Plan { parallelism });
    }

    fn rescaled(&mut self, trigger: &str, outcome: Outcome<u32>) {
        let Some(view) = self.view.rescales.iter_mut().find(|view| view.trigger == trigger) else { return };
        let parallelism = view.parallelism;
        view.outcome = outcome.clone();
        match outcome {
            Outcome::Completed(_) => self.report(Report::Rescaled { parallelism }),
            Outcome::Failed(reason) => self.report(Report::RescaleFailed { parallelism, reason }),
            Outcome::InProgress => {}
        }
    }

    pub(super) fn is_rescaling(&self) -> bool {
        self.rescaling.as_ref().is_some_and(|rescaling| !matches!(rescaling.step, Step::Starting))
    }

    /// The cut is complete: the old plan is not restarted any more.
    pub(super) fn is_switching(&self) -> bool {
        self.rescaling.as_ref().is_some_and(|rescaling| matches!(rescaling.step, Step::Switching { .. }))
    }

    pub(super) fn give_up_rescaling(&mut self, reason: &str) {
        if let Some(rescaling) = self.rescaling.take() {
            self.rescaled(&rescaling.trigger, Outcome::Failed(reason.to_owned()));
        }
    }

    /// The job is suspended instead. A cut under way is a last checkpoint as well: returns it.
    pub(super) fn give_up_cut(&mut self) -> Option<CheckpointId> {
        let cut = match self.rescaling.as_ref().map(|rescaling| &rescaling.step) {
            Some(Step::Cutting { checkpoint, .. }) => *checkpoint,
            _ => None,
        };
        self.give_up_rescaling("the job is being suspended");
        cut
    }

    pub(super) fn on_planned(&mut self, parallelism: u32, result: Result<Box<JobPlan>, String>) {
        if self.life == Life::Planning {
            match result {
                Ok(plan) => {
                    self.adopt_plan(*plan, parallelism);
                    self.begin_work();
                }
                Err(reason) => {
                    let reason = format!("the job does not run at parallelism {parallelism} any more: {reason}");
                    self.abandon(super::ExitReason::Unrecoverable { reason });
                }
            }
            return;
        }
        let Some(rescaling) = &mut self.rescaling else { return };
        if rescaling.parallelism != parallelism || !matches!(rescaling.step, Step::Planning) {
            return;
        }
        match result {
            Ok(plan) if super::machine::slots_of(&plan) > self.cluster.capacity() => {
                let (needed, slots) = (super::machine::slots_of(&plan), self.cluster.capacity());
                let reason = format!(
                    "parallelism {parallelism} needs {needed} slots, the workers have {slots}: start more workers"
                );
                self.give_up_rescaling(&reason);
            }
            Ok(plan) => rescaling.step = Step::Cutting { plan, checkpoint: None },
            Err(reason) => self.give_up_rescaling(&reason),
        }
    }

    /// All tasks run: begins the cut, or notes that the new plan runs.
    pub(super) fn advance_cut(&mut self) {
        let savepoints = self.checkpoints.pending.values().any(|pending| matches!(pending.cause, Cause::Savepoint(_)));
        match self.rescaling.as_ref().map(|rescaling| &rescaling.step) {
            Some(Step::Cutting { checkpoint: None, .. }) if !savepoints => {}
            Some(Step::Starting) => {
                if let Some(rescaling) = self.rescaling.take() {
                    self.rescaled(&rescaling.trigger, Outcome::Completed(rescaling.parallelism));
                }
                return;
            }
            _ => return,
        }
        let cut = self.trigger(SnapshotKind::Checkpoint { whole: false }, true, Cause::Timer);
        if let Some(Rescaling { step: Step::Cutting { checkpoint, .. }, .. }) = &mut self.rescaling {
            *checkpoint = Some(cut);
        }
    }

    /// A checkpoint ended, well or (`failure`) not.
    pub(super) fn rescale_after(&mut self, ended: CheckpointId, failure: Option<&str>) {
        let Some(Rescaling { step: Step::Cutting { plan, checkpoint: Some(cut) }, parallelism, .. }) = &self.rescaling
        else {
            return;
        };
        if *cut != ended {
            return;
        }
        if let Some(failure) = failure {
            let reason = format!("the checkpoint before it failed: {failure}");
            self.give_up_rescaling(&reason);
            return;
        }
        let (plan, parallelism) = (plan.clone(), *parallelism);
        if let Some(rescaling) = &mut self.rescaling {
            let deadline = self.now.saturating_add(self.config.checkpoint.timeout_ms);
            rescaling.step = Step::Switching { plan, journaled: false, deadline };
        }
        self.journal.enqueue(JournalEntry::Rescaled { parallelism, at: self.unix_now });
        self.set_job_state(JobState::Restarting, Some(format!("rescaling to parallelism {parallelism}")));
        self.abort_checkpoints("the job is being rescaled");
    }

    pub(super) fn on_rescale_journaled(&mut self, parallelism: u32) {
        if let Some(Rescaling { step: Step::Switching { journaled, .. }, parallelism: wanted, .. }) =
            &mut self.rescaling
            && *wanted == parallelism
        {
            *journaled = true;
        }
    }

    /// Once nothing of the old plan runs, the new one takes its place.
    pub(super) fn advance_switch(&mut self) {
        if self.rescaling.as_ref().and_then(Rescaling::deadline).is_some_and(|deadline| deadline <= self.now) {
            let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
            self.cancel_tasks(&tasks);
        }
        let Some(Rescaling { step: Step::Switching { plan, journaled: true, .. }, parallelism, .. }) = &self.rescaling
        else {
            return;
        };
        if self.is_cancelling() || self.tasks.values().any(|run| run.state.is_alive()) {
            return;
        }
        let (plan, parallelism) = (plan.clone(), *parallelism);
        self.adopt_plan(*plan, parallelism);
        if let Some(rescaling) = &mut self.rescaling {
            rescaling.step = Step::Starting;
        }
    }

    fn adopt_plan(&mut self, plan: JobPlan, parallelism: u32) {
        self.parallelism = parallelism;
        self.view.parallelism = parallelism;
        self.config.plan = plan;
        self.regions = Regions::of_plan(&self.config.plan);
        self.region_phases = vec![RegionPhase::Waiting { not_before: self.now }; self.regions.len()];
        self.inputs = super::machine::inputs_of(&self.config.plan);
        self.tasks = super::machine::tasks_of(&self.config.plan);
        self.cluster.set_slots(super::machine::slots_of(&self.config.plan));
        self.checkpoints.on_new_plan();
        self.tasks_changed = true;
    }
}
