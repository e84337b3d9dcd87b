//! What a coordinator process knows, whichever part of its life it is in: on standby, running the job, or staying after
//! the job's end. Answers questions about it; decides nothing.

use super::changes::Changes;
use super::status::{self, Shown, Timeline};
use super::workers::Workers;
use super::{CoordinatorOptions, Input};
use crate::metrics::CoordinatorMetrics;
use crate::task::unix_ms;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use streamjob_protocol::coordinator::{Coordinator, Event, Report, TaskState};
use streamjob_protocol::ids::CheckpointId;

/// How a coordinator lives on a cluster. It waits to be told to take the job over, and stays after the job's end.
#[derive(Debug, Clone, Default)]
pub struct OnCluster {
    /// Another job that this one replaces: it is claimed first, so that it can complete nothing more.
    pub replaces: Option<String>,
}

/// Of a coordinator that has not taken its job over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// The job could run now: what it goes on from fits it, and there are slots for all of its tasks.
    pub ready: bool,
    /// What the job goes on from, if there is anything, has been compared with it and fits.
    pub checked: bool,
    /// Of the workers that have registered.
    pub slots: u32,
    /// For all tasks to run.
    pub needed: u32,
}

/// What the job would go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    pub checkpoint: u64,
    /// Its directory.
    pub path: String,
}

/// Since when all tasks run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Running {
    /// Unix milliseconds at which the job was last deployed as a whole.
    deployed_at: Option<u64>,
    pub since: Option<u64>,
    /// Deployment to the last task's being there.
    pub restore_duration_ms: Option<u64>,
}

pub(super) struct Process {
    pub options: Arc<CoordinatorOptions>,
    pub machine: Coordinator,
    pub workers: Workers,
    pub timeline: Timeline,
    pub metrics: CoordinatorMetrics,
    pub changes: Changes,
    pub incarnation: u64,
    /// Of interest only while `on_standby`.
    pub standby: StandbyStatus,
    pub on_standby: bool,
    max_parallelism: u32,
    /// What was found on standby.
    found: Option<RestorePoint>,
    unavailable: Option<String>,
    running: Running,
}

impl Process {
    pub fn new(options: Arc<CoordinatorOptions>, machine: Coordinator, changes: Changes, incarnation: u64) -> Process {
        let plan = options.graph.plan.clone();
        let needed = plan.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or(0);
        Process {
            machine,
            workers: Workers::new(options.job_id.clone(), plan),
            timeline: Timeline::default(),
            metrics: CoordinatorMetrics::new(&options.config.name),
            changes,
            incarnation,
            standby: StandbyStatus { needed, ..StandbyStatus::default() },
            on_standby: options.on_cluster.is_some(),
            max_parallelism: options.graph.plan.max_parallelism,
            found: None,
            unavailable: None,
            running: Running::default(),
            options,
        }
    }

    /// The state was compared with the job, as it is at this max parallelism, and fits, or there is none.
    pub fn on_compared(&mut self, found: Option<(CheckpointId, String)>, max_parallelism: u32) {
        self.max_parallelism = max_parallelism;
        let found = found.map(|(checkpoint, path)| RestorePoint { checkpoint, path });
        if !self.standby.checked || self.found != found || self.unavailable.is_some() {
            self.standby.checked = true;
            self.found = found;
            self.unavailable = None;
            self.count_slots();
            self.changes.note();
        }
    }

    pub fn on_unavailable(&mut self, reason: String) {
        if self.unavailable.as_ref() != Some(&reason) {
            self.unavailable = Some(reason);
            self.changes.note();
        }
    }

    /// From here on the machine decides.
    pub fn begin(&mut self, machine: Coordinator) -> Vec<Event> {
        self.max_parallelism = machine.plan().max_parallelism;
        self.workers.set_max_parallelism(self.max_parallelism);
        self.machine = machine;
        self.on_standby = false;
        self.unavailable = None;
        self.changes.note();
        let registered = self.workers.list().map(|(worker, _, _, _, slots)| Event::WorkerRegistered { worker, slots });
        registered.chain([Event::Tick]).collect()
    }

    /// Without a machine at work: workers come and go, questions are answered, nothing else happens.
    pub fn take_in(&mut self, input: Input) {
        match self.answer(input) {
            None => {}
            Some(Input::Register(registration, answer)) => {
                self.workers.register(registration, answer);
                self.on_workers_changed();
            }
            Some(Input::WorkerGone(worker, reason)) => {
                self.workers.gone(worker, reason);
                self.on_workers_changed();
            }
            Some(Input::FromWorker(worker, message)) => {
                // No task of theirs can be anybody's.
                self.workers.on_message(worker, message);
            }
            // Whoever asks for something hears that nobody takes it.
            Some(_) => {}
        }
    }

    pub fn on_workers_changed(&mut self) {
        self.count_slots();
        self.changes.note();
    }

    fn count_slots(&mut self) {
        self.standby.slots = self.workers.list().fold(0, |sum, (.., slots)| sum.saturating_add(slots));
        self.standby.ready = self.standby.checked && self.standby.slots >= self.standby.needed;
    }

    /// Answers what only asks; gives back anything else.
    pub fn answer(&self, input: Input) -> Option<Input> {
        // Nobody waits any more for answers that cannot be sent.
        match input {
            Input::Status(answer) => drop(answer.send(self.status())),
            Input::View(answer) => {
                drop(answer.send(status::snapshot(&self.machine, &self.workers, &self.timeline)));
            }
            Input::Metrics(answer) => {
                let (count, slots) =
                    self.workers.list().fold((0, 0), |(count, sum), (.., slots)| (count + 1, sum + slots));
                drop(answer.send(self.metrics.render(self.machine.view(), count, slots, unix_ms() as u64)));
            }
            other => return Some(other),
        }
        None
    }

    pub fn status(&self) -> status::JobStatus {
        let restore_point = match (self.on_standby, self.machine.newest_restore_point()) {
            (true, _) => self.found.clone(),
            (false, None) => None,
            (false, Some((checkpoint, location))) => {
                let path = location.unwrap_or_else(|| status::checkpoint_path(&self.options, checkpoint));
                Some(RestorePoint { checkpoint, path })
            }
        };
        status::job_status(&Shown {
            options: &self.options,
            machine: &self.machine,
            workers: &self.workers,
            version: self.changes.version(),
            incarnation: self.incarnation,
            standby: self.on_standby.then(|| self.standby.clone()),
            unavailable: self.unavailable.as_deref().filter(|_| self.on_standby),
            running: self.running,
            max_parallelism: self.max_parallelism,
            restore_point,
        })
    }

    /// What the machine says has happened.
    pub fn on_report(&mut self, report: &Report) {
        let now = unix_ms() as u64;
        status::log(report);
        self.metrics.on_report(report);
        self.timeline.on_report(report, now);
        match report {
            Report::Restored { .. } => self.running = Running { deployed_at: Some(now), ..Running::default() },
            Report::Restarting { .. } => self.running.since = None,
            Report::CheckpointTriggered { .. } => return,
            _ => {}
        }
        self.changes.note();
    }

    /// A task has said how it is.
    pub fn on_task_status(&mut self) {
        let there = |state: TaskState| matches!(state, TaskState::Running | TaskState::Drained | TaskState::Finished);
        let all = self.machine.view().tasks.iter().all(|task| there(task.state));
        if all == self.running.since.is_some() {
            return;
        }
        let now = unix_ms() as u64;
        self.running.since = all.then_some(now);
        if all && let Some(deployed_at) = self.running.deployed_at.take() {
            let took = now.saturating_sub(deployed_at);
            self.running.restore_duration_ms = Some(took);
            tracing::info!(took_ms = took, "all tasks are running");
        }
        self.changes.note();
    }
}
