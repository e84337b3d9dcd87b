//! A task's side of the protocol: what messages of the coordinator mean in each state of its life. Neither runs
//! operators nor aligns barriers (see `alignment`).

use streamjob_protocol::coordinator::{Barrier, DeclineReason, TaskStatus};
use streamjob_protocol::ids::CheckpointId;

/// Flink's task states as far as the task itself knows them; `Drained` is running with nothing left to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// State is being restored.
    Deploying,
    Running,
    /// Every input ended and the operators finished; waits for a checkpoint that covers the end to complete.
    Drained,
    Finished,
    Canceled,
    Failed,
}

impl TaskState {
    pub fn is_terminal(self) -> bool {
        matches!(self, TaskState::Finished | TaskState::Canceled | TaskState::Failed)
    }
}

/// What the task has to do now, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskAction {
    Report(TaskStatus),
    /// Give the trigger to the aligner.
    Align(Barrier),
    Decline {
        checkpoint: CheckpointId,
        reason: DeclineReason,
    },
    /// Tell the operators: what belongs to this checkpoint becomes visible.
    Commit(CheckpointId),
    /// Tell aligner and operators that the checkpoint will not complete.
    Abort(CheckpointId),
    /// Close the outputs: nothing follows, not even barriers.
    CloseOutputs,
}

/// The life of one deployment of one task.
#[derive(Debug, Clone)]
pub struct TaskLifecycle {
    state: TaskState,
    checkpointing: bool,
    /// The first checkpoint taken after the end: when it completes, the task may go.
    final_checkpoint: Option<CheckpointId>,
    /// Nothing follows this checkpoint's barrier: the task ends when it completes, and goes on when it is aborted.
    last: Option<CheckpointId>,
}

impl TaskLifecycle {
    /// `checkpointing`: checkpoints are on, so a task that drained waits for one.
    pub fn new(checkpointing: bool) -> Self {
        TaskLifecycle { state: TaskState::Deploying, checkpointing, final_checkpoint: None, last: None }
    }

    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Sources must not send anything.
    pub fn is_held(&self) -> bool {
        self.last.is_some()
    }

    /// State is restored and processing begins, unless the job has `stopped` with it.
    pub fn on_restored(&mut self, stopped: bool) -> Vec<TaskAction> {
        if self.state != TaskState::Deploying {
            return Vec::new();
        }
        self.state = TaskState::Running;
        let mut actions = vec![TaskAction::Report(TaskStatus::Running)];
        if stopped {
            actions.extend(self.finish());
        }
        actions
    }

    pub fn on_trigger(&mut self, barrier: Barrier) -> Vec<TaskAction> {
        let reason = match self.state {
            TaskState::Running | TaskState::Drained => return vec![TaskAction::Align(barrier)],
            TaskState::Deploying => DeclineReason::TaskNotReady,
            TaskState::Finished | TaskState::Canceled | TaskState::Failed => DeclineReason::TaskClosing,
        };
        vec![TaskAction::Decline { checkpoint: barrier.checkpoint, reason }]
    }

    /// The state of the checkpoint is being cut. Returns what `TaskSnapshot::finished` has to say.
    pub fn on_snapshot(&mut self, checkpoint: CheckpointId, last: bool) -> bool {
        if last {
            self.last = Some(checkpoint);
        }
        let finished = self.state == TaskState::Drained;
        if finished {
            self.final_checkpoint.get_or_insert(checkpoint);
        }
        finished
    }

    /// Every input ended and the operators' last output is sent.
    pub fn on_drained(&mut self) -> Vec<TaskAction> {
        if self.state != TaskState::Running {
            return Vec::new();
        }
        self.state = TaskState::Drained;
        if self.checkpointing { vec![TaskAction::Report(TaskStatus::Drained)] } else { self.finish() }
    }

    pub fn on_complete(&mut self, checkpoint: CheckpointId) -> Vec<TaskAction> {
        let mut actions = Vec::new();
        if matches!(self.state, TaskState::Running | TaskState::Drained) {
            actions.push(TaskAction::Commit(checkpoint));
        }
        let covers = |covering: Option<CheckpointId>| covering.is_some_and(|covering| covering <= checkpoint);
        let ends = self.state == TaskState::Drained && covers(self.final_checkpoint)
            || !self.state.is_terminal() && covers(self.last);
        if ends {
            actions.extend(self.finish());
        }
        actions
    }

    pub fn on_abort(&mut self, checkpoint: CheckpointId) -> Vec<TaskAction> {
        self.last = self.last.filter(|last| *last != checkpoint);
        if self.state.is_terminal() { Vec::new() } else { vec![TaskAction::Abort(checkpoint)] }
    }

    pub fn on_cancel(&mut self) -> Vec<TaskAction> {
        self.end(TaskState::Canceled, TaskStatus::Canceled)
    }

    /// An operator, the input or the output broke. A failed commit is such an error too.
    pub fn on_error(&mut self, reason: String, recoverable: bool) -> Vec<TaskAction> {
        self.end(TaskState::Failed, TaskStatus::Failed { reason, recoverable })
    }

    /// The state to restore is missing or not what was written.
    pub fn on_state_damaged(&mut self, reason: String) -> Vec<TaskAction> {
        self.end(TaskState::Failed, TaskStatus::StateDamaged { reason })
    }

    fn finish(&mut self) -> Vec<TaskAction> {
        let mut actions = vec![TaskAction::CloseOutputs];
        actions.extend(self.end(TaskState::Finished, TaskStatus::Finished));
        actions
    }

    fn end(&mut self, state: TaskState, status: TaskStatus) -> Vec<TaskAction> {
        if self.state.is_terminal() {
            return Vec::new();
        }
        self.state = state;
        vec![TaskAction::Report(status)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn barrier(checkpoint: CheckpointId) -> Barrier {
        Barrier::new(checkpoint, 0)
    }

    fn running(checkpointing: bool) -> TaskLifecycle {
        let mut task = TaskLifecycle::new(checkpointing);
        assert_eq!(task.on_restored(false), vec![TaskAction::Report(TaskStatus::Running)]);
        task
    }

    #[test]
    fn a_trigger_is_declined_before_and_after_the_task_runs() {
        let mut task = TaskLifecycle::new(true);
        let decline = |reason| vec![TaskAction::Decline { checkpoint: 1, reason }];
        assert_eq!(task.on_trigger(barrier(1)), decline(DeclineReason::TaskNotReady));
        task.on_restored(false);
        assert_eq!(task.on_trigger(barrier(1)), vec![TaskAction::Align(barrier(1))]);
        task.on_cancel();
        assert_eq!(task.on_trigger(barrier(1)), decline(DeclineReason::TaskClosing));
    }

    #[test]
    fn a_drained_task_finishes_with_the_first_completed_checkpoint_that_covers_its_end() {
        let mut task = running(true);
        assert!(!task.on_snapshot(4, false));
        assert_eq!(task.on_drained(), vec![TaskAction::Report(TaskStatus::Drained)]);
        // Checkpoint 4 was cut before the end: its completion commits, but does not end the task.
        assert_eq!(task.on_complete(4), vec![TaskAction::Commit(4)]);
        assert!(task.on_snapshot(5, false));
        assert_eq!(task.on_abort(5), vec![TaskAction::Abort(5)]);
        assert!(task.on_snapshot(6, false));
        assert_eq!(
            task.on_complete(6),
            vec![TaskAction::Commit(6), TaskAction::CloseOutputs, TaskAction::Report(TaskStatus::Finished)]
        );
        assert_eq!(task.state(), TaskState::Finished);
        assert!(task.on_complete(7).is_empty());
    }

    #[test]
    fn a_task_ends_with_a_last_checkpoint_and_goes_on_if_it_is_aborted() {
        let mut task = running(true);
        task.on_snapshot(4, true);
        assert!(task.is_held());
        assert_eq!(task.on_complete(3), vec![TaskAction::Commit(3)]);
        task.on_abort(4);
        assert!(!task.is_held());
        task.on_snapshot(6, true);
        let ended = [TaskAction::CloseOutputs, TaskAction::Report(TaskStatus::Finished)];
        assert_eq!(task.on_complete(6), [vec![TaskAction::Commit(6)], ended.to_vec()].concat());
        let mut stopped = TaskLifecycle::new(true);
        let expected = [vec![TaskAction::Report(TaskStatus::Running)], ended.to_vec()].concat();
        assert_eq!(stopped.on_restored(true), expected);
    }

    #[test]
    fn without_checkpoints_the_end_is_the_end() {
        let mut task = running(false);
        assert_eq!(task.on_drained(), vec![TaskAction::CloseOutputs, TaskAction::Report(TaskStatus::Finished)]);
    }

    #[test]
    fn only_the_first_end_is_reported() {
        let mut task = running(true);
        let failed = TaskStatus::Failed { reason: "disk full".into(), recoverable: true };
        assert_eq!(task.on_error("disk full".into(), true), vec![TaskAction::Report(failed)]);
        assert!(task.on_cancel().is_empty());
        assert_eq!(task.state(), TaskState::Failed);
    }
}
