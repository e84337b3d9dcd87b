//! What follows a job: its next revision, or another job that is started from one of its savepoints; and what surrounds
//! requests for savepoints and other parallelisms.

use crate::mutant::Mutant;
use crate::processes::ToWorker;
use crate::requests::Request;
use crate::schedule::Fault;
use crate::store::{Transaction, is_in};
use crate::world::{End, World};
use std::collections::BTreeSet;
use streamjob_protocol::coordinator::{AppendOutcome, Event, ExternalRestore, StoreError, TaskStatus};
use streamjob_protocol::ids::CheckpointId;
use streamjob_protocol::journal::{EndState, JournalEntry};

impl World {
    /// Starts what comes after the job; false if nothing does.
    pub fn begin_sequel(&mut self) -> bool {
        let Some(End::Job(end)) = self.ended else { return false };
        let stopped = self.shared.store.state().stopped.filter(|_| end == EndState::Finished);
        if stopped.is_some() && self.shared.random.once_in(2) {
            self.shared.trace(|| "=== the next revision".into());
            self.revision += 1;
            self.shared.oracle.counts.revisions += 1;
            self.variant = self.shared.random.between(0, self.schedule.jobs.len() as u64 - 1) as usize;
            self.play_on();
            return true;
        }
        let directories: Vec<String> = self.shared.oracle.restorable().cloned().collect();
        let index = self.shared.random.between(0, directories.len().max(1) as u64 - 1) as usize;
        let Some(directory) = directories.get(index).cloned() else { return false };
        self.begin_another_job(directory);
        true
    }

    /// Nothing of the former job is left but the savepoint, and what was visible when it was taken.
    fn begin_another_job(&mut self, directory: String) {
        for coordinator in 0..self.coordinators.len() {
            if self.coordinators[coordinator].alive {
                self.end_coordinator(coordinator);
            }
        }
        for worker in 0..self.workers.len() {
            self.crash_worker(worker);
        }
        self.requests.clear();
        let claim = self.shared.random.once_in(2);
        let counts = &mut self.shared.oracle.counts;
        *if claim { &mut counts.adopted } else { &mut counts.not_claimed } += 1;
        self.shared.trace(|| format!("=== another job is started from {directory}, claim: {claim}"));
        let mut store = std::mem::take(&mut self.shared.store);
        let Some(stored) = store.savepoint(&directory) else { return };
        let (before, pending) = self.shared.oracle.transactions_of(&directory);
        store.files.retain(|path, _| is_in(path, &directory));
        store.savepoints.retain(|other, _| *other == directory);
        store.transactions.retain(|name, _| before.contains(name) || pending.contains(name));
        for (name, transaction) in &mut store.transactions {
            *transaction = Transaction { visible: before.contains(name), rows: std::mem::take(&mut transaction.rows) };
        }
        store.journal.clear();
        store.manifests.clear();
        self.shared.store = store;
        self.completed_before += self.shared.oracle.completed.len();
        let all: BTreeSet<u64> = before.union(&pending).copied().collect();
        self.shared.oracle.begin_another_job(&directory, all);
        self.external = Some(ExternalRestore {
            manifest: (*stored.manifest).clone(),
            manifest_checksum: stored.checksum,
            location: directory,
            claim,
        });
        self.revision = 1;
        self.variant = self.shared.random.between(0, self.schedule.jobs.len() as u64 - 1) as usize;
        self.play_on();
    }

    fn play_on(&mut self) {
        self.ended = None;
        self.ended_by = None;
        self.exited = None;
        self.asked.clear();
        self.coordinator_due = None;
        self.worker_due = None;
        let mut faults: Vec<(u32, Fault)> = Vec::new();
        for _ in 0..self.shared.random.between(0, 2) {
            let step = self.step + self.shared.random.between(1, 200) as u32;
            let faulty = [Fault::CrashCoordinator, Fault::CrashWorker, Fault::CrashAll, Fault::Isolate, Fault::Outage];
            faults.push((step, self.shared.random.choose(&faulty).unwrap_or(Fault::CrashAll)));
        }
        faults.sort_by_key(|(step, _)| *step);
        self.schedule.healed_at = faults.last().map_or(self.step, |(step, _)| *step + 1);
        self.schedule.faults = faults;
        self.next_fault = 0;
        self.shared.faults_on = true;
    }

    /// Savepoints that have not got their manifest before a newer checkpoint completes come to nothing.
    fn subsume(&mut self, coordinator: usize, newer: CheckpointId) {
        let now = self.shared.now;
        for request in std::mem::take(&mut self.requests) {
            match &request.request {
                Request::WriteManifest { manifest, savepoint: Some(_), .. }
                    if request.coordinator == coordinator && manifest.checkpoint < newer =>
                {
                    let result = Err(StoreError::Unavailable(format!("subsumed by checkpoint {newer}")));
                    let event = Event::ManifestWritten { checkpoint: manifest.checkpoint, result };
                    self.coordinators[coordinator].inbox.push((now, event));
                }
                _ => self.requests.push(request),
            }
        }
    }

    /// What a coordinator would do that does not wait for its journal.
    pub fn complete_everywhere(&mut self, coordinator: usize, checkpoint: u64) {
        let at = self.shared.now;
        for connection in self.connections.iter_mut().filter(|connection| connection.coordinator == coordinator) {
            let tasks = self.workers[connection.worker].tasks.iter().map(|task| (task.id, task.deployment)).collect();
            connection.to_worker.push(at, ToWorker::Complete { checkpoint, tasks });
        }
    }

    pub fn plan(&mut self, coordinator: usize, parallelism: u32) {
        let job = self.schedule.jobs.get(parallelism as usize - 1);
        let result = job.map(|job| Box::new(job.plan.clone())).ok_or_else(|| "there is no such job".to_owned());
        let at = self.shared.now + self.shared.random.between(0, 20);
        self.coordinators[coordinator].inbox.push((at, Event::Planned { parallelism, result }));
    }

    /// A coordinator deploys a plan: nothing of another one runs any more where it can know of it.
    pub fn check_old_plan_is_gone(&mut self, coordinator: usize, parallelism: u32) {
        let plan = &self.schedule.jobs[parallelism as usize - 1].plan;
        let connections = self.connections.iter();
        for connection in connections.filter(|open| open.coordinator == coordinator && open.coordinator_open) {
            let worker = &self.workers[connection.worker];
            if !worker.alive || !connection.worker_open {
                continue;
            }
            let mut running = worker.tasks.iter().filter(|task| task.coordinator == coordinator && task.is_running());
            if let Some(task) = running.find(|task| task.job().plan != *plan) {
                let what =
                    format!("another plan is deployed, but task {} of deployment {} runs", task.id, task.deployment);
                self.shared.oracle.violate("rescale", what);
                return;
            }
        }
    }

    /// Rules that are broken where a coordinator writes its journal. True if the entry is not to be written.
    pub fn break_append(&mut self, coordinator: usize, seq: u64, entry: &JournalEntry) -> bool {
        let now = self.shared.now;
        let Some(mutant) = self.shared.mutant else { return false };
        match (mutant, entry) {
            (Mutant::SavepointCommits, JournalEntry::SavepointCompleted { checkpoint, .. }) => {
                self.complete_everywhere(coordinator, *checkpoint);
            }
            (Mutant::SavepointSubsumed, JournalEntry::Completed { checkpoint, .. }) => {
                self.subsume(coordinator, *checkpoint)
            }
            (Mutant::ForeignFilesDeleted, JournalEntry::Discarded { checkpoint }) => {
                let location = self.shared.store.state().locations.get(checkpoint).cloned();
                if let Some(location) = location {
                    self.shared.oracle.on_directory_deleted(&location.path);
                    self.shared.store.delete_directory(&location.path);
                }
            }
            (Mutant::PlanSwappedTooEarly, JournalEntry::Rescaled { .. }) => {
                for view in &self.coordinators[coordinator].machine.view().tasks.clone() {
                    let (task, deployment, status) = (view.task, view.deployment, TaskStatus::Finished);
                    let event = Event::TaskStatus { task, deployment, status };
                    self.coordinators[coordinator].inbox.push((now, event));
                }
            }
            (Mutant::SavepointNotJournaled, JournalEntry::SavepointStarted { .. })
            | (Mutant::RescaleNotJournaled, JournalEntry::Rescaled { .. }) => {
                let outcome = AppendOutcome::Written;
                self.coordinators[coordinator].inbox.push((now, Event::JournalAppended { seq, outcome }));
                return true;
            }
            _ => {}
        }
        false
    }
}
