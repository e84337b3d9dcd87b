//! What goes wrong: processes die, stop and are cut off, links stall, the store fails and forgets.

use crate::schedule::Fault;
use crate::store::is_elsewhere;
use crate::world::World;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use streamjob_protocol::coordinator::{Event, Request};
use streamjob_protocol::journal::AfterSavepoint;

impl World {
    pub fn strike(&mut self, fault: Fault) {
        if self.ended.is_some() {
            return;
        }
        self.shared.trace(|| format!("*** {fault:?}"));
        let now = self.shared.now;
        match fault {
            Fault::CrashWorker => {
                if let Some(worker) = self.any_worker() {
                    self.crash_worker(worker);
                }
            }
            Fault::CrashCoordinator => self.crash_coordinator(),
            Fault::CrashAll => {
                self.crash_coordinator();
                for worker in 0..self.workers.len() {
                    self.crash_worker(worker);
                }
            }
            Fault::Isolate => self.isolate(0),
            Fault::Freeze => {
                let until = now + self.shared.random.between(20, 600);
                self.isolate(until);
            }
            Fault::FreezeWorker => {
                if let Some(worker) = self.any_worker() {
                    self.freeze_worker(worker);
                }
            }
            Fault::StallLink => self.stall_link(),
            Fault::FailTask => self.fail_task(),
            Fault::Outage => self.shared.outage_until = now + self.shared.random.between(5, 300),
            Fault::SlowStore => self.shared.slow_until = now + self.shared.random.between(50, 400),
            Fault::DamageManifest => {
                let stored: Vec<u64> = self.shared.store.manifests.keys().copied().collect();
                // The newest, if there is another to fall back to; sometimes any.
                let target = if self.shared.random.once_in(3) {
                    self.shared.random.choose(&stored)
                } else {
                    stored.last().copied()
                };
                if let Some(stored) = target.and_then(|target| self.shared.store.manifests.get_mut(&target)) {
                    stored.damaged = true;
                }
            }
            Fault::DamageFile => {
                let files = self.shared.store.files.keys().filter(|path| !is_elsewhere(path));
                let files: Vec<String> = files.cloned().collect();
                if !files.is_empty() {
                    let index = self.shared.random.between(0, files.len() as u64 - 1) as usize;
                    if let Some(file) = self.shared.store.files.get_mut(&files[index]) {
                        file.damaged = true;
                    }
                }
            }
            Fault::RequestCheckpoint => {
                let full = self.shared.random.once_in(3);
                self.ask_by_name(|trigger| Request::TriggerCheckpoint { trigger, full });
            }
            Fault::Savepoint => self.ask_savepoint(AfterSavepoint::GoOn),
            Fault::Stop => self.ask_savepoint(AfterSavepoint::Stop { drain: false }),
            Fault::Drain => self.ask_savepoint(AfterSavepoint::Stop { drain: true }),
            Fault::CancelWithSavepoint => self.ask_savepoint(AfterSavepoint::Cancel),
            Fault::Rescale => {
                // One more than there is: the planner refuses it.
                let leader = self.leader().map(|leader| self.coordinators[leader].machine.view().parallelism);
                let others = (1..=self.schedule.jobs.len() as u32 + 1).filter(|other| Some(*other) != leader);
                let parallelism = self.shared.random.choose(&others.collect::<Vec<_>>()).unwrap_or(1);
                self.ask_by_name(|trigger| Request::Rescale { trigger, parallelism });
            }
            Fault::Reconfigure => self.reconfigure(),
            Fault::RepeatRequest => {
                if !self.asked.is_empty() {
                    let index = self.shared.random.between(0, self.asked.len() as u64 - 1) as usize;
                    self.ask(self.asked[index].clone());
                }
            }
            Fault::Suspend => self.ask(Request::Suspend),
            Fault::Cancel => self.ask(Request::Cancel),
        }
    }

    /// Nothing fails any more, and what stood still goes on.
    pub fn heal(&mut self) {
        self.shared.trace(|| "*** from here on nothing fails".into());
        self.shared.faults_on = false;
        self.shared.outage_until = 0;
        self.shared.slow_until = 0;
    }

    fn ask_by_name(&mut self, request: impl FnOnce(String) -> Request) {
        let request = request(format!("request-{}", self.asked.len()));
        self.asked.push(request.clone());
        self.ask(request);
    }

    fn ask_savepoint(&mut self, then: AfterSavepoint) {
        self.ask_by_name(|trigger| Request::Savepoint { trigger, directory: "/savepoints".into(), then });
    }

    fn reconfigure(&mut self) {
        let random = &mut self.shared.random;
        let checkpoint = CheckpointConfig {
            interval_ms: Some(random.between(12, 80)),
            timeout_ms: random.between(100, 500),
            max_concurrent: random.between(1, 3) as u32,
            retained: random.between(1, 3) as u32,
            ..self.schedule.checkpoint.clone()
        };
        let restart = RestartStrategy::FixedDelay { attempts: u32::MAX, delay_ms: random.between(0, 30) };
        self.ask(Request::Reconfigure { checkpoint, restart });
    }

    fn ask(&mut self, request: Request) {
        if let Some(leader) = self.leader()
            && self.coordinators[leader].runs(self.shared.now)
        {
            self.handle(leader, Event::Request(request));
        }
    }

    fn any_worker(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.workers.len()).filter(|worker| self.workers[*worker].alive).collect();
        self.shared.random.choose(&alive)
    }

    /// The next coordinator may run the job in another version.
    pub fn next_version(&mut self) {
        if self.shared.random.once_in(2) {
            self.revision += 1;
            self.variant = self.shared.random.between(0, self.schedule.jobs.len() as u64 - 1) as usize;
        }
    }

    fn crash_coordinator(&mut self) {
        if let Some(leader) = self.leader() {
            self.shared.trace(|| format!("coordinator {leader} is killed"));
            self.next_version();
            self.end_coordinator(leader);
        }
    }

    /// The process is gone: what it sent arrives or not, its workers notice sooner or later.
    pub fn end_coordinator(&mut self, coordinator: usize) {
        let now = self.shared.now;
        self.coordinators[coordinator].alive = false;
        self.coordinators[coordinator].inbox.clear();
        let mut kept = Vec::new();
        for request in std::mem::take(&mut self.requests) {
            if request.coordinator != coordinator || self.shared.random.once_in(2) {
                kept.push(request);
            }
        }
        self.requests = kept;
        for connection in self.connections.iter_mut().filter(|connection| connection.coordinator == coordinator) {
            connection.coordinator_open = false;
            connection.lost_at = None;
            connection.to_coordinator.truncate(0);
            let arrives = self.shared.random.between(0, connection.to_worker.len() as u64) as usize;
            connection.to_worker.truncate(arrives);
            if connection.worker_open {
                let worker = &mut self.workers[connection.worker];
                let notices_at = now + self.shared.random.between(0, self.schedule.heartbeat_ms);
                worker.notices_at = Some(worker.notices_at.map_or(notices_at, |at| at.min(notices_at)));
                worker.isolated_with = None;
            }
        }
    }

    pub fn crash_worker(&mut self, worker: usize) {
        if !self.workers[worker].alive {
            return;
        }
        self.shared.trace(|| format!("worker process {worker} is killed"));
        let now = self.shared.now;
        let process = std::mem::take(&mut self.workers[worker]);
        for task in &process.tasks {
            task.release(&mut self.shared);
        }
        // Tasks elsewhere that exchanged data with it find their connections broken.
        for other in 0..self.workers.len() {
            let peers: Vec<usize> = (0..self.workers[other].tasks.len())
                .filter(|index| {
                    let peer = &self.workers[other].tasks[*index];
                    process
                        .tasks
                        .iter()
                        .any(|lost| (lost.coordinator, lost.deployment) == (peer.coordinator, peer.deployment))
                })
                .collect();
            for peer in peers {
                if self.workers[other].runs(now) && self.shared.random.once_in(2) {
                    self.break_task(other, peer, "a connection broke");
                }
            }
        }
        if let Some(index) = process.connection {
            let connection = &mut self.connections[index];
            connection.worker_open = false;
            connection.to_worker.truncate(0);
            let arrives = self.shared.random.between(0, connection.to_coordinator.len() as u64) as usize;
            connection.to_coordinator.truncate(arrives);
            connection.lost_at = Some(now + self.shared.random.between(0, 20));
        }
    }

    fn break_task(&mut self, worker: usize, task: usize, reason: &str) {
        let mut events = Vec::new();
        self.workers[worker].tasks[task].on_failure(reason, &mut self.shared, &mut events);
        self.after_task(worker, task, events);
    }

    fn fail_task(&mut self) {
        let now = self.shared.now;
        let mut running = Vec::new();
        for (worker, process) in self.workers.iter().enumerate().filter(|(_, process)| process.runs(now)) {
            let tasks = process.tasks.iter().enumerate().filter(|(_, task)| task.is_running());
            running.extend(tasks.map(|(task, _)| (worker, task)));
        }
        if let Some((worker, task)) = self.shared.random.choose(&running) {
            self.break_task(worker, task, "an operator failed");
        }
    }

    /// Cuts the coordinator and its workers off; with `frozen_until` they also stand still till then.
    fn isolate(&mut self, frozen_until: u64) {
        let Some(leader) = self.leader() else { return };
        self.next_version();
        self.coordinators[leader].isolated = true;
        self.coordinators[leader].frozen_until = frozen_until;
        for worker in self.workers.iter_mut().filter(|worker| worker.alive) {
            if worker.connection.is_some_and(|index| self.connections[index].coordinator == leader) {
                worker.isolated_with = Some(leader);
                if frozen_until > 0 {
                    // They wake up one after the other.
                    worker.frozen_until = frozen_until + self.shared.random.between(0, 60);
                }
            }
        }
    }

    /// The worker stands still. Its coordinator gives it up after a while; when it wakes up it goes on for a moment.
    fn freeze_worker(&mut self, worker: usize) {
        let (now, heartbeat) = (self.shared.now, self.schedule.heartbeat_ms);
        let until = now + self.shared.random.between(5, 4 * heartbeat);
        self.workers[worker].frozen_until = until;
        if let Some(index) = self.workers[worker].connection
            && until > now + 2 * heartbeat
        {
            self.connections[index].lost_at = Some(now + 2 * heartbeat);
            self.workers[worker].notices_at = Some(until + self.shared.random.between(0, 40));
        }
    }

    fn stall_link(&mut self) {
        let open: Vec<usize> = (0..self.connections.len())
            .filter(|index| self.connections[*index].coordinator_open && self.connections[*index].worker_open)
            .collect();
        let Some(index) = self.shared.random.choose(&open) else { return };
        let (now, heartbeat) = (self.shared.now, self.schedule.heartbeat_ms);
        let length = self.shared.random.between(5, 3 * heartbeat);
        let connection = &mut self.connections[index];
        connection.stalled_until = now + length;
        if length > heartbeat {
            // The worker stops by itself in time; the coordinator waits until it must have.
            let worker = &mut self.workers[connection.worker];
            worker.notices_at = Some(now + heartbeat);
            worker.isolated_with = None;
            connection.lost_at = Some(now + 2 * heartbeat + self.shared.random.between(0, 20));
        }
    }
}
