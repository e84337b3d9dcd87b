//! The simulation's loop: in each step one process, one message or one request, chosen by the dice, makes progress.

use crate::mutant::Mutant;
use crate::oracle::Counts;
use crate::processes::{Connection, CoordinatorProcess, Fifo, ToWorker, WorkerProcess};
use crate::requests::{PendingRequest, Request as StoreRequest};
use crate::schedule::Schedule;
use crate::shared::{Dice, Shared};
use crate::task::Task;
use std::collections::BTreeMap;
use std::rc::Rc;
use streamjob_api::config::CheckpointMode;
use streamjob_protocol::coordinator::{
    Action, Coordinator, CoordinatorConfig, Event, ExitReason, ExternalRestore, Report, Request,
};
use streamjob_protocol::ids::{DeploymentId, Millis, TaskId, WorkerId};
use streamjob_protocol::journal::{EndState, JournalEntry};

/// A schedule that takes longer does not end at all.
const MAX_STEPS: u32 = 12_000;
/// Steps for those who were cut off to do harm after the job's end.
const AFTERMATH: u32 = 60;

pub struct World {
    pub schedule: Schedule,
    pub shared: Shared,
    pub coordinators: Vec<CoordinatorProcess>,
    pub workers: Vec<WorkerProcess>,
    pub connections: Vec<Connection>,
    pub requests: Vec<PendingRequest>,
    pub step: u32,
    pub next_fault: usize,
    next_worker_id: u64,
    /// When the supervisor starts what is missing.
    pub coordinator_due: Option<Millis>,
    pub worker_due: Option<Millis>,
    pub revision: u64,
    /// Index into the schedule's jobs.
    pub variant: usize,
    pub ended: Option<End>,
    /// The coordinator that wrote the end down.
    pub ended_by: Option<usize>,
    /// The one that exited because of it.
    pub exited: Option<usize>,
    /// Requests with a name.
    pub asked: Vec<Request>,
    /// What the job was started from.
    pub external: Option<ExternalRestore>,
    /// In jobs before this one.
    pub completed_before: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Job(EndState),
    /// Every checkpoint is damaged, and the coordinator says so.
    Unrecoverable,
}

pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub steps: u32,
    pub completed: usize,
    pub counts: Counts,
    pub ended: Option<End>,
}

/// Runs one schedule to its end or to the first broken rule.
pub fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> Outcome {
    let mut dice = Dice::new(seed);
    let schedule = Schedule::of_seed(&mut dice);
    let exactly_once = schedule.checkpoint.mode == CheckpointMode::ExactlyOnce;
    let mut world = World {
        schedule,
        shared: Shared::new(dice, exactly_once, mutant, traced),
        coordinators: Vec::new(),
        workers: Vec::new(),
        connections: Vec::new(),
        requests: Vec::new(),
        step: 0,
        next_fault: 0,
        next_worker_id: 1,
        coordinator_due: Some(0),
        worker_due: Some(0),
        revision: 1,
        variant: 0,
        ended: None,
        ended_by: None,
        exited: None,
        asked: Vec::new(),
        external: None,
        completed_before: 0,
    };
    world.run();
    Outcome {
        violation: world.shared.oracle.violation.take(),
        trace: world.shared.take_trace(),
        steps: world.step,
        completed: world.completed_before + world.shared.oracle.completed.len(),
        ended: world.ended,
        counts: world.shared.oracle.counts,
    }
}

impl World {
    fn run(&mut self) {
        self.run_to_end();
        if self.shared.oracle.violation.is_none() && self.begin_sequel() {
            self.run_to_end();
        }
    }

    fn run_to_end(&mut self) {
        let limit = self.step + MAX_STEPS;
        let mut aftermath = 0;
        while aftermath < AFTERMATH {
            if self.shared.oracle.violation.is_some() {
                return;
            }
            // A later revision may take up again what had stopped.
            aftermath = if self.ended.is_some() { aftermath + 1 } else { 0 };
            if self.step >= limit {
                self.shared.oracle.violate("liveness", format!("the job has not ended after {MAX_STEPS} steps"));
                return;
            }
            self.advance();
        }
        if self.shared.oracle.violation.is_some() {
            return;
        }
        match self.ended {
            Some(End::Job(end)) => {
                let job = &self.schedule.jobs[0];
                self.shared.oracle.at_end(job, &self.shared.store, end);
                if self.ended_by.is_some() && self.ended_by == self.exited {
                    self.shared.oracle.check_leftovers(&self.shared.store);
                }
            }
            Some(End::Unrecoverable) => {
                let (store, state) = (&self.shared.store, self.shared.store.state());
                let retained = &state.checkpoints;
                if retained.is_empty() || retained.iter().any(|(checkpoint, _)| store.is_whole(&state, *checkpoint)) {
                    let what = format!("the job is given up, but of its checkpoints {retained:?} one can be restored");
                    self.shared.oracle.violate("I8", what);
                }
            }
            None => {}
        }
    }

    fn advance(&mut self) {
        self.step += 1;
        self.shared.now += self.shared.random.between(0, 1);
        while let Some((step, fault)) = self.schedule.faults.get(self.next_fault).copied() {
            if step > self.step {
                break;
            }
            self.next_fault += 1;
            self.strike(fault);
        }
        if self.shared.faults_on && self.step >= self.schedule.healed_at {
            self.heal();
        }
        self.housekeeping();
        let first = match self.shared.random.between(0, 19) {
            0..=9 => 0,
            10..=14 => 1,
            15..=17 => 2,
            _ => 3,
        };
        for turn in 0..4 {
            let progress = match (first + turn) % 4 {
                0 => self.step_task(),
                1 => self.deliver(),
                2 => self.step_request(),
                _ => self.step_coordinator(),
            };
            if progress {
                return;
            }
        }
        self.wait();
    }

    /// Nothing can happen now: time passes.
    fn wait(&mut self) {
        let now = self.shared.now;
        let coordinators = self.coordinators.iter().filter(|process| process.alive).flat_map(|process| {
            let inbox = process.inbox.iter().map(|(at, _)| *at);
            inbox.chain(process.machine.next_timer()).map(|at| at.max(process.frozen_until))
        });
        let workers = self.workers.iter().filter(|worker| worker.alive).flat_map(|worker| {
            let connect = worker.connection.is_none().then_some(worker.connect_at);
            let tasks = worker.tasks.iter().filter_map(|task| task.due(&self.shared));
            tasks.chain(connect).chain(worker.notices_at).map(|at| at.max(worker.frozen_until))
        });
        let connections = self.connections.iter().flat_map(|connection| {
            let messages = connection.to_worker.due().into_iter().chain(connection.to_coordinator.due());
            messages.map(|at| at.max(connection.stalled_until)).chain(connection.lost_at)
        });
        let requests = self.requests.iter().map(|request| request.due);
        let supervisor = self.coordinator_due.into_iter().chain(self.worker_due);
        let next = coordinators.chain(workers).chain(connections).chain(requests).chain(supervisor);
        // What is due and yet did not move waits for something else.
        let next = next.filter(|at| *at > now).min();
        self.shared.now = next.unwrap_or(now + 1);
    }

    // The supervisor, and what happens by itself.

    fn housekeeping(&mut self) {
        let now = self.shared.now;
        let leader = self.leader();
        if leader.is_none() && self.ended.is_none() {
            let due = *self.coordinator_due.get_or_insert_with(|| now + self.shared.random.between(1, 40));
            if due <= now {
                self.start_coordinator();
            }
        }
        let here = self.workers.iter().filter(|worker| worker.alive && worker.isolated_with.is_none()).count();
        if here < self.schedule.workers {
            let due = *self.worker_due.get_or_insert_with(|| now + self.shared.random.between(1, 40));
            if due <= now {
                self.worker_due = None;
                let connect_at = now + self.shared.random.between(0, 10);
                self.workers.push(WorkerProcess { alive: true, connect_at, ..WorkerProcess::default() });
            }
        }
        for index in 0..self.workers.len() {
            if self.workers[index].runs(now) {
                self.tend_worker(index);
            }
        }
        for index in 0..self.connections.len() {
            if self.connections[index].lost_at.is_some_and(|at| at <= now) {
                self.lose(index);
            }
        }
    }

    /// The coordinator that the supervisor knows.
    pub fn leader(&self) -> Option<usize> {
        self.coordinators.iter().rposition(|process| process.alive && !process.isolated)
    }

    fn start_coordinator(&mut self) {
        self.coordinator_due = None;
        let index = self.coordinators.len();
        let job = Rc::clone(&self.schedule.jobs[self.variant]);
        let claimant = format!("coordinator-{index}");
        let config = CoordinatorConfig {
            job_id: "job".into(),
            job_name: "simulated".into(),
            plan: job.plan.clone(),
            checkpoint: self.schedule.checkpoint.clone(),
            restart: self.schedule.restart.clone(),
            failover: self.schedule.failover,
            revision: self.revision,
            claimant: claimant.clone(),
            parallelism: self.variant as u32 + 1,
            external_restore: self.external.clone(),
            allow_non_restored_state: false,
            compact_after: self.schedule.compact_after,
        };
        let machine = Coordinator::new(config, self.shared.random.between(0, u64::MAX));
        self.shared.trace(|| format!("{claimant} starts"));
        let process = CoordinatorProcess {
            machine,
            claimant,
            parallelism: self.variant as u32 + 1,
            alive: true,
            isolated: false,
            frozen_until: 0,
            inbox: Vec::new(),
            listing: None,
            listing_of_answer: None,
            swept: false,
        };
        self.coordinators.push(process);
        self.handle(index, Event::Tick);
    }

    fn tend_worker(&mut self, index: usize) {
        let now = self.shared.now;
        let mut events = Vec::new();
        let worker = &mut self.workers[index];
        if worker.notices_at.is_some_and(|at| at <= now) {
            self.shared.trace(|| format!("worker process {index} has lost its coordinator and stops its tasks"));
            if let Some(connection) = worker.connection {
                self.connections[connection].worker_open = false;
                self.connections[connection].to_worker.truncate(0);
            }
            worker.stop_all(&mut self.shared);
            worker.connect_at = now + self.shared.random.between(0, 20);
        }
        for task in &mut worker.tasks {
            if task.cancel_at.is_some_and(|at| at <= now) {
                task.cancel_at = None;
                task.stop(&mut self.shared, &mut events);
            }
        }
        worker.tasks.retain(|task| {
            let over = task.is_over();
            if over {
                task.release(&mut self.shared);
            }
            !over
        });
        self.report(index, events);
        let worker = &self.workers[index];
        if worker.connection.is_none() && worker.connect_at <= now {
            let target = match worker.isolated_with {
                Some(coordinator) if self.coordinators[coordinator].alive => Some(coordinator),
                Some(_) => None,
                None => self.leader(),
            };
            match target {
                Some(coordinator) => self.connect(index, coordinator),
                None => {
                    self.workers[index].isolated_with = None;
                    self.workers[index].connect_at = now + 5;
                }
            }
        }
    }

    fn connect(&mut self, worker: usize, coordinator: usize) {
        let id = WorkerId(self.next_worker_id);
        self.next_worker_id += 1;
        let mut to_coordinator = Fifo::new();
        let slots = self.schedule.slots_per_worker;
        to_coordinator.push(self.shared.now, Event::WorkerRegistered { worker: id, slots });
        self.workers[worker].connection = Some(self.connections.len());
        self.connections.push(Connection {
            coordinator,
            worker,
            id,
            to_worker: Fifo::new(),
            to_coordinator,
            stalled_until: 0,
            coordinator_open: true,
            worker_open: true,
            lost_at: None,
        });
    }

    /// The coordinator notices that a worker is gone.
    fn lose(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.lost_at = None;
        if !connection.coordinator_open {
            return;
        }
        connection.coordinator_open = false;
        let (coordinator, worker) = (connection.coordinator, connection.id);
        let late: Vec<Event> = connection.to_coordinator.drain().collect();
        if !self.coordinators[coordinator].alive {
            return;
        }
        let now = self.shared.now;
        // What was read already but not yet handled comes late; a registration never does.
        let leaks = self.shared.random.once_in(2);
        for event in late.into_iter().filter(|event| leaks && !matches!(event, Event::WorkerRegistered { .. })) {
            let at = now + self.shared.random.between(0, 60);
            self.coordinators[coordinator].inbox.push((at, event));
        }
        let reason = "simulated".into();
        self.coordinators[coordinator].inbox.push((now, Event::WorkerLost { worker, reason }));
    }

    // Workers.

    fn step_task(&mut self) -> bool {
        let now = self.shared.now;
        let mut able = Vec::new();
        for (worker, process) in self.workers.iter().enumerate().filter(|(_, process)| process.runs(now)) {
            for (task, state) in process.tasks.iter().enumerate() {
                if state.can_step(&self.shared) {
                    able.push((worker, task));
                }
            }
        }
        let Some((worker, task)) = self.shared.random.choose(&able) else { return false };
        let mut events = Vec::new();
        self.workers[worker].tasks[task].step(&mut self.shared, &mut events);
        self.after_task(worker, task, events);
        true
    }

    /// Sends what a task says, unless its process was killed meanwhile.
    pub fn after_task(&mut self, worker: usize, task: usize, events: Vec<Event>) {
        let killed = self.workers[worker].tasks[task].killed;
        self.report(worker, events);
        if killed {
            self.crash_worker(worker);
        }
    }

    fn report(&mut self, worker: usize, events: Vec<Event>) {
        let Some(connection) = self.workers[worker].connection else { return };
        for event in events {
            let at = self.shared.now + self.shared.random.between(0, 5);
            self.connections[connection].to_coordinator.push(at, event);
        }
    }

    fn deliver(&mut self) -> bool {
        let now = self.shared.now;
        let mut able = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            if connection.stalled_until > now {
                continue;
            }
            let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
            if due(connection.to_worker.due()) && connection.worker_open && self.workers[connection.worker].runs(now) {
                able.push((index, true));
            }
            if due(connection.to_coordinator.due())
                && connection.coordinator_open
                && self.coordinators[connection.coordinator].runs(now)
            {
                able.push((index, false));
            }
        }
        let Some((index, down)) = self.shared.random.choose(&able) else { return false };
        if down {
            if let Some(message) = self.connections[index].to_worker.pop() {
                self.on_worker_message(self.connections[index].worker, self.connections[index].coordinator, message);
            }
        } else if let Some(event) = self.connections[index].to_coordinator.pop() {
            self.handle(self.connections[index].coordinator, event);
        }
        true
    }

    fn on_worker_message(&mut self, worker: usize, coordinator: usize, message: ToWorker) {
        let now = self.shared.now;
        let mut mail: Vec<(TaskId, DeploymentId)> = Vec::new();
        match &message {
            ToWorker::Deploy { deployment, parallelism, tasks } => {
                let incremental = self.schedule.checkpoint.incremental;
                let job = Rc::clone(&self.schedule.jobs[*parallelism as usize - 1]);
                for (task, restore) in tasks {
                    let restored_at = now + self.shared.random.between(0, 20);
                    let name = (*task, *deployment, coordinator);
                    let task = Task::new(&job, name, restore.clone(), restored_at, incremental, &self.shared);
                    self.workers[worker].tasks.push(task);
                }
            }
            ToWorker::Cancel { deployment, tasks } => {
                let mut events = Vec::new();
                for task in tasks {
                    let running = self.workers[worker]
                        .tasks
                        .iter_mut()
                        .find(|other| other.id == *task && other.deployment == *deployment && other.is_running());
                    match running {
                        Some(task) => {
                            let at = now + self.shared.random.between(0, 25);
                            task.cancel_at.get_or_insert(at);
                        }
                        None => {
                            let status = streamjob_protocol::coordinator::TaskStatus::Canceled;
                            events.push(Event::TaskStatus { task: *task, deployment: *deployment, status });
                        }
                    }
                }
                self.report(worker, events);
            }
            ToWorker::Trigger { tasks, .. }
            | ToWorker::Drain { tasks }
            | ToWorker::Complete { tasks, .. }
            | ToWorker::Aborted { tasks, .. } => {
                mail.clone_from(tasks);
            }
        }
        for (task, deployment) in mail {
            let tasks = &mut self.workers[worker].tasks;
            let Some(index) = tasks.iter().position(|other| other.id == task && other.deployment == deployment) else {
                continue;
            };
            let mut events = Vec::new();
            let target = &mut tasks[index];
            match &message {
                ToWorker::Trigger { barrier, .. } => target.on_trigger(barrier.clone(), &mut self.shared, &mut events),
                ToWorker::Drain { .. } => target.on_drain(&mut self.shared, &mut events),
                ToWorker::Complete { checkpoint, .. } => target.on_complete(*checkpoint, &mut self.shared, &mut events),
                ToWorker::Aborted { checkpoint, .. } => target.on_aborted(*checkpoint, &mut self.shared, &mut events),
                ToWorker::Deploy { .. } | ToWorker::Cancel { .. } => {}
            }
            self.after_task(worker, index, events);
            if !self.workers[worker].alive {
                return;
            }
        }
    }

    // Coordinators.

    fn step_request(&mut self) -> bool {
        let now = self.shared.now;
        let due: Vec<usize> = (0..self.requests.len()).filter(|index| self.requests[*index].due <= now).collect();
        let Some(index) = self.shared.random.choose(&due) else { return false };
        self.carry_out(index);
        true
    }

    fn step_coordinator(&mut self) -> bool {
        let now = self.shared.now;
        let mut able = Vec::new();
        for (index, process) in self.coordinators.iter().enumerate().filter(|(_, process)| process.runs(now)) {
            let messages = process.inbox.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            able.extend(messages.map(|(message, _)| (index, Some(message))));
            if process.machine.next_timer().is_some_and(|at| at <= now) {
                able.push((index, None));
            }
        }
        let Some((index, message)) = self.shared.random.choose(&able) else { return false };
        let event = match message {
            Some(message) => self.coordinators[index].inbox.swap_remove(message).1,
            None => Event::Tick,
        };
        self.handle(index, event);
        true
    }

    pub fn handle(&mut self, coordinator: usize, event: Event) {
        let event = self.stale_for_current(coordinator, event);
        self.shared.trace(|| {
            let mut text = format!("{event:?}");
            text.truncate(180);
            format!("coordinator {coordinator} <- {text}")
        });
        if matches!(event, Event::JournalRead { .. }) {
            self.note_listing(coordinator);
        }
        if let Event::CheckpointAck { checkpoint, snapshot, .. } = &event {
            let claimant = &self.coordinators[coordinator].claimant;
            let stands = self.shared.store.state().claimant.as_ref() == Some(claimant);
            self.shared.oracle.on_ack(coordinator, *checkpoint, snapshot, stands);
        }
        let now = self.shared.now;
        for action in self.coordinators[coordinator].machine.handle(now, now, event) {
            self.act(coordinator, action);
        }
    }

    fn stale_for_current(&self, coordinator: usize, mut event: Event) -> Event {
        if self.shared.is(Mutant::StaleDeploymentAccepted)
            && let Event::TaskStatus { task, deployment, .. }
            | Event::CheckpointAck { task, deployment, .. }
            | Event::CheckpointDecline { task, deployment, .. } = &mut event
        {
            let tasks = &self.coordinators[coordinator].machine.view().tasks;
            if let Some(view) = tasks.iter().find(|view| view.task == *task) {
                *deployment = view.deployment;
            }
        }
        event
    }

    fn act(&mut self, coordinator: usize, action: Action) {
        if !matches!(action, Action::Report(_)) {
            self.shared.trace(|| {
                let mut text = format!("{action:?}");
                text.truncate(180);
                format!("coordinator {coordinator} -> {text}")
            });
        }
        match action {
            Action::ReadJournal => self.request(coordinator, StoreRequest::ReadJournal),
            Action::AppendJournal { seq, entry } => {
                match &entry {
                    JournalEntry::Completed { checkpoint, .. } if self.shared.is(Mutant::CommitBeforeJournal) => {
                        self.complete_everywhere(coordinator, *checkpoint);
                    }
                    JournalEntry::Discarded { checkpoint } if self.shared.is(Mutant::DeletedBeforeJournal) => {
                        self.delete(*checkpoint, Vec::new());
                    }
                    _ => {}
                }
                if self.break_append(coordinator, seq, &entry) {
                    return;
                }
                self.request(coordinator, StoreRequest::Append { seq, entry });
            }
            Action::TrimJournal { before } => self.request(coordinator, StoreRequest::Trim { before }),
            Action::LoadManifest { checkpoint, expected_checksum: expected, location } => {
                self.request(coordinator, StoreRequest::LoadManifest { checkpoint, expected, location });
            }
            Action::WriteManifest { manifest, savepoint } => {
                let parallelism = self.coordinators[coordinator].machine.view().parallelism;
                self.request(coordinator, StoreRequest::WriteManifest { manifest, savepoint, parallelism });
            }
            Action::DeleteCheckpoint { checkpoint, files, location } => {
                self.request(coordinator, StoreRequest::Delete { checkpoint, files, location });
            }
            Action::DeleteSavepoint { location } => {
                self.request(coordinator, StoreRequest::DeleteSavepoint { location });
            }
            Action::Plan { parallelism } => self.plan(coordinator, parallelism),
            Action::DrainSources { tasks } => self.fan_out(coordinator, tasks, |tasks| ToWorker::Drain { tasks }),
            Action::Deploy { deployment, parallelism, tasks } => {
                let restore = tasks.first().map(|task| task.restore.clone()).unwrap_or_default();
                let process = &self.coordinators[coordinator];
                let who = (coordinator, process.claimant.clone());
                let from = self.external.as_ref().map(|external| external.manifest.checkpoint);
                let plan = (parallelism, process.parallelism);
                self.shared.oracle.on_deploy((who.0, &who.1), &restore, plan, from, &self.shared.store);
                self.check_old_plan_is_gone(coordinator, parallelism);
                let mut by_worker: BTreeMap<WorkerId, Vec<_>> = BTreeMap::new();
                for task in tasks {
                    by_worker.entry(task.worker).or_default().push((task.task, task.restore));
                }
                for (worker, tasks) in by_worker {
                    self.tell(coordinator, worker, ToWorker::Deploy { deployment, parallelism, tasks });
                }
            }
            Action::CancelTasks { deployment, tasks } => {
                let mut by_worker: BTreeMap<WorkerId, Vec<TaskId>> = BTreeMap::new();
                for (worker, task) in tasks {
                    by_worker.entry(worker).or_default().push(task);
                }
                for (worker, tasks) in by_worker {
                    self.tell(coordinator, worker, ToWorker::Cancel { deployment, tasks });
                }
            }
            Action::DropWorker { worker, .. } => {
                let same = |connection: &&Connection| {
                    connection.coordinator == coordinator && connection.id == worker && connection.coordinator_open
                };
                if let Some(process) = self.connections.iter().find(same).map(|connection| connection.worker) {
                    self.crash_worker(process);
                }
            }
            Action::TriggerCheckpoint { barrier, tasks } => {
                self.shared.oracle.on_trigger(coordinator, &barrier);
                self.fan_out(coordinator, tasks, |tasks| ToWorker::Trigger { barrier: barrier.clone(), tasks });
            }
            Action::NotifyComplete { checkpoint, tasks } => {
                self.fan_out(coordinator, tasks, |tasks| ToWorker::Complete { checkpoint, tasks });
            }
            Action::NotifyAborted { checkpoint, tasks } => {
                self.fan_out(coordinator, tasks, |tasks| ToWorker::Aborted { checkpoint, tasks });
            }
            Action::Report(report) => self.on_report(coordinator, report),
            Action::Exit(reason) => self.on_exit(coordinator, reason),
        }
    }

    fn on_report(&mut self, coordinator: usize, report: Report) {
        self.shared.trace(|| format!("coordinator {coordinator} says {report:?}"));
        match report {
            Report::CheckpointSkipped { checkpoint, .. } => self.shared.oracle.on_skipped(coordinator, checkpoint),
            Report::Restored { .. } => self.request_sweep(coordinator),
            Report::SavepointFailed { reason, .. } => self.shared.oracle.on_savepoint_failed(&reason),
            Report::SavepointLeftBehind { location, .. } => self.shared.oracle.on_left_behind(location),
            _ => {}
        }
    }

    fn on_exit(&mut self, coordinator: usize, reason: ExitReason) {
        match reason {
            // A later revision may have begun already.
            ExitReason::Ended { state, .. } if self.shared.store.state().ended.is_some() => {
                self.ended = Some(End::Job(state));
                self.exited = Some(coordinator);
            }
            // One that was replaced without knowing it may find its checkpoints deleted.
            ExitReason::Unrecoverable { .. } | ExitReason::Incompatible { .. }
                if self.coordinators[coordinator].isolated => {}
            ExitReason::Unrecoverable { .. } | ExitReason::Incompatible { .. } => self.ended = Some(End::Unrecoverable),
            ExitReason::Ended { .. } => {}
            ExitReason::Suspended { .. } => self.next_version(),
            ExitReason::Fenced { .. } => {}
        }
        self.end_coordinator(coordinator);
    }

    fn fan_out(
        &mut self,
        coordinator: usize,
        tasks: Vec<(WorkerId, TaskId, DeploymentId)>,
        message: impl Fn(Vec<(TaskId, DeploymentId)>) -> ToWorker,
    ) {
        let mut by_worker: BTreeMap<WorkerId, Vec<(TaskId, DeploymentId)>> = BTreeMap::new();
        for (worker, task, deployment) in tasks {
            by_worker.entry(worker).or_default().push((task, deployment));
        }
        for (worker, tasks) in by_worker {
            self.tell(coordinator, worker, message(tasks));
        }
    }

    fn tell(&mut self, coordinator: usize, worker: WorkerId, message: ToWorker) {
        let at = self.shared.now + self.shared.random.between(0, 5);
        let open = |connection: &&mut Connection| {
            connection.coordinator == coordinator && connection.id == worker && connection.coordinator_open
        };
        if let Some(connection) = self.connections.iter_mut().find(open) {
            connection.to_worker.push(at, message);
        }
    }
}
