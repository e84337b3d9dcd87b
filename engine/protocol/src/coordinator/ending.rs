//! How a job ends: finished, cancelled, failed, or suspended to be resumed.

use super::machine::{Coordinator, Life, StopReason};
use super::view::TaskState;
use super::{ExitReason, JobState};
use crate::ids::CheckpointId;
use crate::journal::{EndState, JournalEntry};
use crate::retention::outlives;

/// The end is journaled first, then what does not outlive the job is discarded, then the coordinator exits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    end: EndState,
    reason: Option<String>,
    asked: bool,
    journaled: bool,
    discarding: bool,
}

impl Coordinator {
    pub(super) fn request_suspend(&mut self) {
        match self.life {
            // Nothing was started, so nothing has to be stopped.
            Life::New | Life::Claiming | Life::Planning => {
                let checkpoint = self.journal.state.latest_checkpoint();
                self.exit(ExitReason::Suspended { checkpoint });
            }
            Life::Working => {
                let anything_runs = self.tasks.values().any(|run| run.state.is_alive());
                let draining = self.savepoints.is_draining();
                if self.is_stopped() || self.is_switching() || draining || !self.give_up_stop() {
                    // All that counts is stored already; or sources were told to end, and a checkpoint would say that
                    // they have read everything.
                    let note = draining.then(|| "no last checkpoint: sources were being drained".to_owned());
                    self.begin_stopping(StopReason::Suspend { note });
                    return;
                }
                let all_run = self
                    .tasks
                    .values()
                    .all(|run| matches!(run.state, TaskState::Running | TaskState::Drained | TaskState::Finished));
                if anything_runs && all_run && self.all_regions_active() {
                    let deadline = self.now.saturating_add(self.config.checkpoint.timeout_ms);
                    let checkpoint = self.give_up_cut();
                    self.life = Life::Suspending { checkpoint, deadline };
                } else {
                    let note = anything_runs.then(|| "no last checkpoint: not all tasks were running".to_owned());
                    self.begin_stopping(StopReason::Suspend { note });
                }
            }
            // Asked twice: somebody is in a hurry.
            Life::Suspending { .. } => {
                self.begin_stopping(StopReason::Suspend {
                    note: Some("the last checkpoint was not waited for".into()),
                });
            }
            Life::Stopping(StopReason::Suspend { .. }) => self.suspended(),
            Life::Stopping(_) | Life::Ending(_) | Life::Exited => {}
        }
    }

    /// Why nothing can be begun that needs a running job.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.life {
            Life::Working => None,
            Life::New | Life::Claiming | Life::Planning => {
                Some("the coordinator has not taken the job over yet: ask again".into())
            }
            Life::Suspending { .. } => Some("the job is being suspended".into()),
            Life::Stopping(_) => Some(format!("the job is {:?}", self.view.state)),
            Life::Ending(_) | Life::Exited => Some("the job has ended".into()),
        }
    }

    pub(super) fn request_cancel(&mut self) {
        self.cancel_requested = true;
        match self.life {
            Life::Working | Life::Suspending { .. } | Life::Stopping(StopReason::Suspend { .. }) => {
                self.begin_stopping(StopReason::Cancel);
            }
            _ => {}
        }
    }

    /// The checkpoint ended, well or (`failure`) not; if it was the last one of a job to be suspended, its tasks may go.
    pub(super) fn suspend_after(&mut self, checkpoint: CheckpointId, failure: Option<&str>) {
        if matches!(self.life, Life::Suspending { checkpoint: Some(last), .. } if last == checkpoint) {
            let note = failure.map(|failure| format!("the last checkpoint failed: {failure}"));
            self.begin_stopping(StopReason::Suspend { note });
        }
    }

    /// The last checkpoint may not even have started, for want of the storage.
    pub(super) fn expire_suspending(&mut self) {
        if matches!(self.life, Life::Suspending { deadline, .. } if deadline <= self.now) {
            let note = "the last checkpoint took longer than its timeout";
            self.begin_stopping(StopReason::Suspend { note: Some(note.into()) });
        }
    }

    pub(super) fn begin_stopping(&mut self, reason: StopReason) {
        let (state, text) = match &reason {
            StopReason::Suspend { note } => (JobState::Cancelling, Some(note.clone().unwrap_or("suspending".into()))),
            StopReason::Cancel => (JobState::Cancelling, None),
            StopReason::Fail { reason } => (JobState::Failing, Some(reason.clone())),
        };
        self.life = Life::Stopping(reason);
        self.set_job_state(state, text);
        self.give_up_rescaling("the job stops");
        self.abort_checkpoints("the job stops");
        self.give_up_savepoints("the job stops");
        let tasks: Vec<_> = self.tasks.keys().copied().collect();
        self.cancel_tasks(&tasks);
    }

    pub(super) fn advance_stopping(&mut self) {
        let Life::Stopping(reason) = &self.life else { return };
        if self.is_cancelling() || self.has_journaling_checkpoint() {
            return;
        }
        match reason.clone() {
            // The journal still has to hear what became of savepoints.
            StopReason::Suspend { .. } if !self.savepoints.is_empty() => {}
            StopReason::Suspend { .. } => self.suspended(),
            StopReason::Cancel => self.begin_ending(EndState::Canceled, None),
            StopReason::Fail { reason } => self.begin_ending(EndState::Failed, Some(reason)),
        }
    }

    fn suspended(&mut self) {
        let note = match &self.life {
            Life::Stopping(StopReason::Suspend { note }) => note.clone(),
            _ => None,
        };
        self.set_job_state(JobState::Suspended, note);
        let usable = |(checkpoint, _): &&(CheckpointId, u64)| !self.restore_points.damaged.contains(checkpoint);
        let checkpoint = self.journal.state.checkpoints.iter().rev().find(usable).map(|(checkpoint, _)| *checkpoint);
        self.end_requests("the job was suspended");
        self.exit(ExitReason::Suspended { checkpoint });
    }

    pub(super) fn end_if_finished(&mut self) {
        let finished = self.tasks.values().all(|run| run.state == TaskState::Finished)
            && self.all_regions_active()
            && !self.is_switching();
        if finished && matches!(self.life, Life::Working | Life::Suspending { .. }) && !self.has_journaling_checkpoint()
        {
            self.give_up_rescaling("the job has finished");
            self.abort_checkpoints("all tasks have finished");
            self.give_up_savepoints("the job has finished");
            self.begin_ending(EndState::Finished, None);
        }
    }

    fn begin_ending(&mut self, end: EndState, reason: Option<String>) {
        self.life = Life::Ending(Ending { end, reason, asked: false, journaled: false, discarding: false });
    }

    /// A predecessor wrote the end down but may not have cleaned up.
    pub(super) fn resume_ending(&mut self, end: EndState, reason: Option<String>) {
        self.discard_left_savepoints();
        self.show_savepoints();
        self.life = Life::Ending(Ending { end, reason, asked: true, journaled: true, discarding: false });
    }

    pub(super) fn on_end_journaled(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            ending.journaled = true;
        }
    }

    pub(super) fn advance_ending(&mut self) {
        let Life::Ending(mut ending) = self.life.clone() else { return };
        if !ending.asked {
            ending.asked = true;
            let (state, reason) = (ending.end, ending.reason.clone());
            self.journal.enqueue(JournalEntry::Ended { state, reason, at: self.unix_now });
        }
        if ending.journaled && !ending.discarding {
            ending.discarding = true;
            if !outlives(self.config.checkpoint.retention, ending.end) {
                let state = &self.journal.state;
                // A savepoint outlives the job, and is what it would be resumed from.
                let existing = state.checkpoints.iter().map(|(checkpoint, _)| *checkpoint);
                let existing: Vec<_> = existing.filter(|checkpoint| state.owns(*checkpoint)).collect();
                existing.into_iter().for_each(|checkpoint| self.discard(checkpoint));
            }
            self.clean_up_aborted_below(CheckpointId::MAX);
            self.advance_cleanup();
        }
        let done = ending.discarding && self.cleanup.len() == 0 && self.journal.is_idle();
        let (end, reason) = (ending.end, ending.reason.clone());
        self.life = Life::Ending(ending);
        if done {
            self.end_requests("the job has ended");
            self.ended(end, reason);
        }
    }

    pub(super) fn ended(&mut self, end: EndState, reason: Option<String>) {
        let state = match end {
            EndState::Finished => JobState::Finished,
            EndState::Canceled => JobState::Canceled,
            EndState::Failed => JobState::Failed,
        };
        self.set_job_state(state, reason.clone());
        self.exit(ExitReason::Ended { state: end, reason });
    }
}
