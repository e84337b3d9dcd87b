//! Coordinator processes, worker processes and the connections between them.

use crate::shared::Shared;
use crate::task::Task;
use std::collections::VecDeque;
use streamjob_protocol::coordinator::{Barrier, Coordinator, Event};
use streamjob_protocol::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use streamjob_protocol::manifest::TaskRestore;

pub struct CoordinatorProcess {
    pub machine: Coordinator,
    pub claimant: String,
    /// Of the plan that it was started with.
    pub parallelism: u32,
    pub alive: bool,
    /// The supervisor takes it for dead.
    pub isolated: bool,
    pub frozen_until: Millis,
    /// Answers of the store and late messages, in no order.
    pub inbox: Vec<(Millis, Event)>,
    /// Files and checkpoint directories that were there when the journal was read, until orphans are looked for.
    pub listing: Option<(Vec<String>, Vec<CheckpointId>)>,
    /// The same, of an answer on its way.
    pub listing_of_answer: Option<(Vec<String>, Vec<CheckpointId>)>,
    pub swept: bool,
}

impl CoordinatorProcess {
    pub fn runs(&self, now: Millis) -> bool {
        self.alive && self.frozen_until <= now
    }
}

#[derive(Default)]
pub struct WorkerProcess {
    pub alive: bool,
    /// Only this coordinator can be reached.
    pub isolated_with: Option<usize>,
    pub frozen_until: Millis,
    pub connection: Option<usize>,
    pub connect_at: Millis,
    /// When it notices that its coordinator is gone, and stops its tasks.
    pub notices_at: Option<Millis>,
    pub tasks: Vec<Task>,
}

impl WorkerProcess {
    pub fn runs(&self, now: Millis) -> bool {
        self.alive && self.frozen_until <= now
    }

    /// Stops all tasks without telling anybody, and forgets the connection.
    pub fn stop_all(&mut self, shared: &mut Shared) {
        for mut task in std::mem::take(&mut self.tasks) {
            task.stop(shared, &mut Vec::new());
            task.release(shared);
        }
        self.connection = None;
        self.notices_at = None;
    }
}

#[derive(Debug, Clone)]
pub enum ToWorker {
    Deploy { deployment: DeploymentId, parallelism: u32, tasks: Vec<(TaskId, TaskRestore)> },
    Cancel { deployment: DeploymentId, tasks: Vec<TaskId> },
    Drain { tasks: Vec<(TaskId, DeploymentId)> },
    Trigger { barrier: Barrier, tasks: Vec<(TaskId, DeploymentId)> },
    Complete { checkpoint: CheckpointId, tasks: Vec<(TaskId, DeploymentId)> },
    Aborted { checkpoint: CheckpointId, tasks: Vec<(TaskId, DeploymentId)> },
}

/// Messages in order, each with the time of its arrival.
pub struct Fifo<T>(VecDeque<(Millis, T)>);

impl<T> Fifo<T> {
    pub fn new() -> Self {
        Fifo(VecDeque::new())
    }

    pub fn push(&mut self, at: Millis, message: T) {
        let at = self.0.back().map_or(at, |(last, _)| at.max(*last));
        self.0.push_back((at, message));
    }

    pub fn due(&self) -> Option<Millis> {
        self.0.front().map(|(at, _)| *at)
    }

    pub fn pop(&mut self) -> Option<T> {
        self.0.pop_front().map(|(_, message)| message)
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.0.drain(..).map(|(_, message)| message)
    }
}

pub struct Connection {
    pub coordinator: usize,
    pub worker: usize,
    pub id: WorkerId,
    pub to_worker: Fifo<ToWorker>,
    pub to_coordinator: Fifo<Event>,
    pub stalled_until: Millis,
    pub coordinator_open: bool,
    pub worker_open: bool,
    /// When the coordinator is told that the worker is lost.
    pub lost_at: Option<Millis>,
}
