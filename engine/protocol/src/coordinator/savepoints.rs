//! Savepoints: accepted by name, journaled before anything is written, taken as soon as all tasks run, and what follows
//! from a complete one: the job goes on, stops with it, or is cancelled.
//!
//! A job that stops with a savepoint has it as its newest restore point from the moment its entry is written. Tasks that
//! fail before they have committed get it back, commit, and end; so a savepoint with which a job stopped is never one
//! whose output is missing, and the job never goes on from before it.

use super::checkpointing::{Cause, Stage};
use super::machine::{Coordinator, Life};
use super::view::{Outcome, SavepointView, TaskState};
use super::{Action, JobState, Report, SnapshotKind};
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId};
use crate::journal::{AfterSavepoint, JournalEntry, SavepointOutcome};
use std::collections::BTreeMap;

/// Savepoints that wait or are under way.
const MAX_UNDER_WAY: usize = 1_000;
/// Requests that were refused outright, as they are shown.
const REFUSED_HISTORY: usize = 50;
/// Failed savepoints whose tasks may still acknowledge.
const FAILED_HISTORY: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Until the journal knows of it.
    Journaling,
    /// Until all tasks run, or none of them has anything left to read.
    Waiting {
        deadline: Millis,
    },
    Taking(CheckpointId),
    /// Its outcome is on its way to the journal.
    Ended,
}

#[derive(Debug, Clone)]
struct Run {
    trigger: String,
    location: String,
    then: AfterSavepoint,
    step: Step,
}

/// A request that came before the journal was read.
#[derive(Debug, Clone)]
struct Early {
    trigger: String,
    directory: String,
    then: AfterSavepoint,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Savepoints {
    /// In the order in which they were asked for.
    runs: Vec<Run>,
    /// Requests that were refused before the journal heard of them.
    refused: Vec<SavepointView>,
    /// Only the journal tells whether they are known already.
    early: Vec<Early>,
    /// Sources that were told to end.
    drained: BTreeMap<TaskId, DeploymentId>,
    /// Directories of savepoints that failed: tasks may write on for a moment.
    failed: BTreeMap<CheckpointId, String>,
}

impl Savepoints {
    pub fn next_timer(&self) -> Option<Millis> {
        let deadlines = self.runs.iter().filter_map(|run| match run.step {
            Step::Waiting { deadline } => Some(deadline),
            _ => None,
        });
        deadlines.min()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn is_wanted(&self) -> bool {
        self.runs.iter().any(|run| matches!(run.step, Step::Waiting { .. }))
    }

    /// Sources were told to end, and what follows from that is not decided.
    pub fn is_draining(&self) -> bool {
        !self.drained.is_empty()
    }

    fn stop(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.then.stops() && run.step != Step::Ended)
    }
}

impl Coordinator {
    pub(super) fn request_savepoint(&mut self, trigger: String, directory: &str, then: AfterSavepoint) {
        let journaled = self.journal.state.savepoints.iter().any(|known| known.trigger == trigger);
        let known = |runs: &[Run]| runs.iter().any(|run| run.trigger == trigger);
        if journaled
            || known(&self.savepoints.runs)
            || self.savepoints.refused.iter().any(|view| view.trigger == trigger)
            || self.savepoints.early.iter().any(|early| early.trigger == trigger)
        {
            return;
        }
        if matches!(self.life, Life::New | Life::Claiming | Life::Planning)
            && self.savepoints.early.len() < MAX_UNDER_WAY
        {
            self.savepoints.early.push(Early { trigger, directory: directory.to_owned(), then });
            self.show_savepoints();
            return;
        }
        let refusal = self.refusal();
        let refusal =
            refusal.or_else(|| self.is_stopped().then(|| "the job has stopped with a savepoint already".to_owned()));
        let refusal = refusal.or_else(|| {
            let stop = self.savepoints.stop().filter(|_| then.stops())?;
            Some(format!("the job is stopping already, with the savepoint of trigger {}", stop.trigger))
        });
        let refusal = refusal.or_else(|| {
            let without = self.config.checkpoint.interval_ms.is_none();
            without
                .then(|| "the job runs without checkpoints: set spec.checkpoint.interval and start it anew".to_owned())
        });
        let refusal = refusal.or_else(|| {
            (self.savepoints.runs.len() >= MAX_UNDER_WAY)
                .then(|| format!("{MAX_UNDER_WAY} savepoints are under way; wait for one of them"))
        });
        if let Some(reason) = refusal {
            self.report(Report::SavepointFailed { trigger: trigger.clone(), reason: reason.clone() });
            let outcome = Outcome::Failed(reason);
            let refused = SavepointView { trigger, checkpoint: None, then, at: self.unix_now, outcome };
            self.savepoints.refused.push(refused);
            let surplus = self.savepoints.refused.len().saturating_sub(REFUSED_HISTORY);
            self.savepoints.refused.drain(..surplus);
            self.show_savepoints();
            return;
        }
        self.begin_savepoint(trigger, directory, then);
    }

    fn begin_savepoint(&mut self, trigger: String, directory: &str, then: AfterSavepoint) {
        let job: String = self.config.job_id.chars().take(6).collect();
        let number = self.random.next_u64() & 0xffff_ffff_ffff;
        let location = format!("{}/savepoint-{job}-{number:012x}", directory.trim_end_matches('/'));
        self.journal.enqueue(JournalEntry::SavepointStarted {
            trigger: trigger.clone(),
            location: location.clone(),
            then,
            at: self.unix_now,
        });
        self.savepoints.runs.push(Run { trigger, location, then, step: Step::Journaling });
        self.show_savepoints();
    }

    /// Savepoints that a predecessor began: what it wrote goes, and they are taken anew; those of an older revision are
    /// over. What is left of failed ones goes too: the predecessor may not have come to it.
    pub(super) fn recover_savepoints(&mut self) {
        self.discard_left_savepoints();
        for record in self.journal.state.savepoints.clone() {
            match record.outcome {
                SavepointOutcome::Completed { .. } | SavepointOutcome::Failed { .. } => {}
                SavepointOutcome::Abandoned => {
                    self.discard_directory(&record.location);
                    let reason = "the job was taken over by a later revision".to_owned();
                    self.journal.enqueue(JournalEntry::SavepointFailed {
                        trigger: record.trigger,
                        reason,
                        at: self.unix_now,
                    });
                }
                SavepointOutcome::Started => {
                    self.discard_directory(&record.location);
                    let directory = record.location.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
                    self.begin_savepoint(record.trigger, &directory, record.then);
                }
            }
        }
        for early in std::mem::take(&mut self.savepoints.early) {
            self.request_savepoint(early.trigger, &early.directory, early.then);
        }
        self.show_savepoints();
    }

    /// Attempts that came to nothing and may not have been deleted.
    pub(super) fn discard_left_savepoints(&mut self) {
        for record in self.journal.state.savepoints.clone() {
            record.former.iter().for_each(|directory| self.discard_directory(directory));
            if matches!(record.outcome, SavepointOutcome::Failed { .. }) {
                self.discard_directory(&record.location);
            }
        }
    }

    pub(super) fn on_savepoint_started(&mut self, trigger: &str) {
        let deadline = self.now.saturating_add(self.config.checkpoint.timeout_ms);
        if let Some(run) = self.savepoints.runs.iter_mut().find(|run| run.trigger == trigger)
            && run.step == Step::Journaling
        {
            run.step = Step::Waiting { deadline };
        }
        self.show_savepoints();
    }

    /// A stop is under way: no checkpoint that is not part of it begins.
    pub(super) fn is_stop_under_way(&self) -> bool {
        self.savepoints.stop().is_some() || self.is_stopped()
    }

    /// The savepoint with which the job stops exists.
    pub(super) fn is_stopped(&self) -> bool {
        let stopped = self.journal.state.stopped;
        stopped.is_some_and(|checkpoint| !self.restore_points.damaged.contains(&checkpoint))
    }

    /// Those that could not begin in time are over.
    pub(super) fn expire_savepoints(&mut self) {
        let late: Vec<String> = self
            .savepoints
            .runs
            .iter()
            .filter(|run| matches!(run.step, Step::Waiting { deadline } if deadline <= self.now))
            .filter(|run| !self.is_draining(run))
            .map(|run| run.trigger.clone())
            .collect();
        for trigger in late {
            let timeout = self.config.checkpoint.timeout_ms;
            self.savepoint_failed(&trigger, format!("not all tasks were running within {timeout} ms"));
        }
    }

    /// Sources have been told to end: that takes as long as there is something left to process.
    fn is_draining(&self, run: &Run) -> bool {
        run.then == (AfterSavepoint::Stop { drain: true }) && self.savepoints.is_draining()
    }

    /// Begins those that wait. All tasks run.
    pub(super) fn advance_savepoints(&mut self) {
        if self.is_rescaling() {
            // None of them would survive the cut, behind which all tasks end.
            return;
        }
        for position in 0..self.savepoints.runs.len() {
            if self.checkpoints.ids_are_used_up() {
                break;
            }
            let run = &self.savepoints.runs[position];
            if !matches!(run.step, Step::Waiting { .. }) {
                continue;
            }
            let drains = run.then == (AfterSavepoint::Stop { drain: true });
            if self.savepoints.is_draining() && !drains {
                // Sources that have been told to end no longer say what there is left to read.
                continue;
            }
            if drains && !self.drained() {
                self.drain_sources();
                continue;
            }
            let (trigger, location, last) = (run.trigger.clone(), run.location.clone(), run.then.stops());
            let kind = SnapshotKind::Savepoint { directory: location };
            let checkpoint = self.trigger(kind, last, Cause::Savepoint(trigger));
            self.savepoints.runs[position].step = Step::Taking(checkpoint);
            self.show_savepoints();
        }
    }

    fn drained(&self) -> bool {
        self.tasks.values().all(|run| matches!(run.state, TaskState::Drained | TaskState::Finished))
    }

    fn drain_sources(&mut self) {
        let sources = self.tasks.iter().filter(|(task, run)| {
            run.state == TaskState::Running
                && self.inputs.get(task).is_none_or(Vec::is_empty)
                && self.savepoints.drained.get(task) != Some(&run.deployment)
        });
        let sources: Vec<(TaskId, DeploymentId)> = sources.map(|(task, run)| (*task, run.deployment)).collect();
        if sources.is_empty() {
            return;
        }
        self.savepoints.drained.extend(sources.iter().copied());
        let tasks = self.addresses(sources.into_iter());
        self.push(Action::DrainSources { tasks });
    }

    /// The entry stands in the journal.
    pub(super) fn on_savepoint_journaled(&mut self, trigger: &str, checkpoint: CheckpointId) {
        let Some(pending) = self.checkpoints.pending.remove(&checkpoint) else { return };
        let Some(position) = self.savepoints.runs.iter().position(|run| run.trigger == trigger) else { return };
        let run = self.savepoints.runs.remove(position);
        self.checkpoints.last_completion = Some(self.now);
        let (duration_ms, _, bytes) = self.view.checkpoints.completed(checkpoint, self.unix_now);
        self.report(Report::SavepointCompleted {
            trigger: run.trigger,
            checkpoint,
            location: run.location,
            then: run.then,
            duration_ms,
            bytes,
        });
        match run.then {
            AfterSavepoint::GoOn => {}
            AfterSavepoint::Cancel => self.request_cancel(),
            AfterSavepoint::Stop { .. } => {
                self.savepoints.drained.clear();
                if self.life == Life::Working {
                    self.set_job_state(JobState::Running, Some("stopping with a savepoint".into()));
                }
                self.abort_checkpoints("the job stops with a savepoint");
                let tasks = self.addresses(pending.expected.into_iter());
                self.push(Action::NotifyComplete { checkpoint, tasks });
            }
        }
        self.show_savepoints();
    }

    /// What was written of it goes, and whoever asked is told. A job that was to stop goes on.
    pub(super) fn savepoint_failed(&mut self, trigger: &str, reason: String) {
        let Some(run) = self.savepoints.runs.iter_mut().find(|run| run.trigger == trigger && run.step != Step::Ended)
        else {
            return;
        };
        let taken = match run.step {
            Step::Taking(checkpoint) => Some(checkpoint),
            _ => None,
        };
        run.step = Step::Ended;
        let (location, then) = (run.location.clone(), run.then);
        if let Some(checkpoint) = taken {
            self.savepoints.failed.insert(checkpoint, location.clone());
            if self.savepoints.failed.len() > FAILED_HISTORY {
                self.savepoints.failed.pop_first();
            }
        }
        self.discard_directory(&location);
        self.report(Report::SavepointFailed { trigger: trigger.to_owned(), reason: reason.clone() });
        let entry = JournalEntry::SavepointFailed { trigger: trigger.to_owned(), reason, at: self.unix_now };
        self.journal.enqueue(entry);
        if then == (AfterSavepoint::Stop { drain: true })
            && !std::mem::take(&mut self.savepoints.drained).is_empty()
            && self.life == Life::Working
        {
            // Sources that have ended do not begin again by themselves.
            self.restart_all("the savepoint with which the job was to be drained failed");
        }
        self.show_savepoints();
    }

    /// A task acknowledged a savepoint that had failed: what it wrote may have come after the rest was deleted.
    pub(super) fn on_late_savepoint_ack(&mut self, checkpoint: CheckpointId) {
        if let Some(directory) = self.savepoints.failed.get(&checkpoint).cloned() {
            self.discard_directory(&directory);
        }
    }

    /// The job is suspended instead of stopped. False if the savepoint's entry is on its way: then it decides.
    pub(super) fn give_up_stop(&mut self) -> bool {
        let Some(run) = self.savepoints.stop() else { return true };
        let (trigger, step) = (run.trigger.clone(), run.step);
        let Step::Taking(checkpoint) = step else {
            self.savepoint_failed(&trigger, "the job is being suspended".into());
            return true;
        };
        if self.checkpoints.pending.get(&checkpoint).is_some_and(|pending| pending.stage == Stage::Journaling) {
            return false;
        }
        self.fail_checkpoint(checkpoint, "the job is being suspended".into(), false, None);
        true
    }

    pub(super) fn on_savepoint_failure_journaled(&mut self, trigger: &str) {
        self.savepoints.runs.retain(|run| run.trigger != trigger || run.step != Step::Ended);
        self.show_savepoints();
    }

    /// The job ends or is left: none of them will be taken any more. Those whose entry is on its way may still exist.
    pub(super) fn give_up_savepoints(&mut self, reason: &str) {
        let journaling = |run: &Run| match run.step {
            Step::Taking(checkpoint) => {
                self.checkpoints.pending.get(&checkpoint).is_some_and(|pending| pending.stage == Stage::Journaling)
            }
            _ => false,
        };
        let over: Vec<String> = self
            .savepoints
            .runs
            .iter()
            .filter(|run| !journaling(run) && run.step != Step::Ended)
            .map(|run| run.trigger.clone())
            .collect();
        over.into_iter().for_each(|trigger| self.savepoint_failed(&trigger, reason.to_owned()));
    }

    pub(super) fn show_savepoints(&mut self) {
        let mut shown = self.savepoints.refused.clone();
        for record in &self.journal.state.savepoints {
            let (checkpoint, outcome) = match &record.outcome {
                SavepointOutcome::Started | SavepointOutcome::Abandoned => (None, Outcome::InProgress),
                SavepointOutcome::Completed { checkpoint } => {
                    (Some(*checkpoint), Outcome::Completed(record.location.clone()))
                }
                SavepointOutcome::Failed { reason } => (None, Outcome::Failed(reason.clone())),
            };
            let (trigger, then, at) = (record.trigger.clone(), record.then, record.at);
            shown.push(SavepointView { trigger, checkpoint, then, at, outcome });
        }
        for early in &self.savepoints.early {
            let (trigger, outcome) = (early.trigger.clone(), Outcome::InProgress);
            shown.push(SavepointView { trigger, checkpoint: None, then: early.then, at: self.unix_now, outcome });
        }
        for run in &self.savepoints.runs {
            let checkpoint = match run.step {
                Step::Taking(checkpoint) => Some(checkpoint),
                _ => None,
            };
            match shown.iter_mut().find(|view| view.trigger == run.trigger) {
                Some(view) => view.checkpoint = view.checkpoint.or(checkpoint),
                None => shown.push(SavepointView {
                    trigger: run.trigger.clone(),
                    checkpoint,
                    then: run.then,
                    at: self.unix_now,
                    outcome: Outcome::InProgress,
                }),
            }
        }
        shown.sort_by_key(|view| view.at);
        self.view.savepoints = shown;
    }
}
