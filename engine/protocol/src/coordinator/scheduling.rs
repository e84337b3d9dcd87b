//! Workers, slots and deployment: which task runs where, and when its region may start.

use super::checkpointing::Stage;
use super::machine::{Coordinator, Life};
use super::restore_points::RestorePoint;
use super::view::{RestoreView, TaskState, WorkerView};
use super::{Action, ExitReason, JobState, Report, TaskDeployment};
use crate::assign::assign_state;
use crate::failover::RegionId;
use crate::ids::{Millis, TaskId, WorkerId};
use crate::manifest::ManifestKind;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RegionPhase {
    /// Nothing of it runs; to be deployed as soon as slots are there, but not before this time.
    Waiting {
        not_before: Millis,
    },
    Active,
    /// Its tasks are being cancelled; it waits afterwards.
    Cancelling {
        restart_at: Millis,
    },
}

/// Workers and what they hold. Slot `i` takes subtask `i` of every vertex.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    workers: BTreeMap<WorkerId, u32>,
    /// Lost ones: a process that comes back is a new worker, so what still says their name is late.
    gone: BTreeSet<WorkerId>,
    slots: Vec<Option<WorkerId>>,
}

impl Cluster {
    pub fn new(slots: u32) -> Self {
        Cluster { workers: BTreeMap::new(), gone: BTreeSet::new(), slots: vec![None; slots as usize] }
    }

    /// Slots of all workers.
    pub fn capacity(&self) -> u32 {
        self.workers.values().fold(0, |sum, slots| sum.saturating_add(*slots))
    }

    /// Another number of slots to fill, all of them empty.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = vec![None; slots as usize];
    }

    pub fn knows(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker)
    }

    fn used(&self, worker: WorkerId) -> u32 {
        self.slots.iter().filter(|slot| **slot == Some(worker)).count() as u32
    }

    /// Gives every one of `wanted` a worker, the emptiest first, or changes nothing and says how many slots are missing.
    fn place(&mut self, wanted: &BTreeSet<u32>) -> Result<(), u32> {
        let mut slots = self.slots.clone();
        let mut missing = 0;
        let mut used: BTreeMap<WorkerId, u32> =
            self.workers.keys().map(|worker| (*worker, self.used(*worker))).collect();
        for slot in wanted {
            let Some(place) = slots.get_mut(*slot as usize).filter(|place| place.is_none()) else { continue };
            let emptiest = self
                .workers
                .iter()
                .map(|(worker, capacity)| (used.get(worker).copied().unwrap_or(0), *worker, *capacity))
                .filter(|(used, _, capacity)| used < capacity)
                .min();
            match emptiest {
                Some((taken, worker, _)) => {
                    *place = Some(worker);
                    used.insert(worker, taken + 1);
                }
                None => missing += 1,
            }
        }
        if missing > 0 {
            return Err(missing);
        }
        self.slots = slots;
        Ok(())
    }

    pub fn views(&self) -> Vec<WorkerView> {
        let view = |(worker, slots): (&WorkerId, &u32)| WorkerView {
            worker: *worker,
            slots: *slots,
            used: self.used(*worker),
        };
        self.workers.iter().map(view).collect()
    }
}

impl Coordinator {
    pub(super) fn on_worker_registered(&mut self, worker: WorkerId, slots: u32) {
        if self.cluster.gone.contains(&worker) {
            return;
        }
        self.cluster.workers.insert(worker, slots);
        self.view.workers = self.cluster.views();
    }

    /// Returns the tasks that were running there.
    pub(super) fn remove_worker(&mut self, worker: WorkerId) -> Vec<TaskId> {
        self.cluster.workers.remove(&worker);
        self.cluster.gone.insert(worker);
        for slot in &mut self.cluster.slots {
            if *slot == Some(worker) {
                *slot = None;
            }
        }
        self.view.workers = self.cluster.views();
        let on_worker = self.tasks.iter().filter(|(_, run)| run.worker == Some(worker));
        on_worker.map(|(task, _)| *task).collect()
    }

    pub(super) fn scheduling_timer(&self) -> Option<Millis> {
        if self.life != Life::Working {
            return None;
        }
        let due = self.region_phases.iter().filter_map(|phase| match phase {
            RegionPhase::Waiting { not_before } => Some(*not_before),
            RegionPhase::Active | RegionPhase::Cancelling { .. } => None,
        });
        due.filter(|at| *at > self.now).min()
    }

    pub(super) fn all_regions_active(&self) -> bool {
        self.region_phases.iter().all(|phase| *phase == RegionPhase::Active)
    }

    /// Regions whose tasks have stopped wait for their restart; regions that waited long enough are deployed.
    pub(super) fn advance_scheduling(&mut self) {
        for region in 0..self.region_phases.len() {
            if let RegionPhase::Cancelling { restart_at } = self.region_phases[region] {
                let stopping = |task: &TaskId| self.task_state(*task) == Some(TaskState::Canceling);
                if !self.regions.tasks(region).iter().any(stopping) {
                    self.region_phases[region] = RegionPhase::Waiting { not_before: restart_at };
                }
            }
        }
        if self.life != Life::Working || self.is_switching() {
            return;
        }
        let due: Vec<RegionId> = (0..self.region_phases.len())
            .filter(|region| matches!(self.region_phases[*region], RegionPhase::Waiting { not_before } if not_before <= self.now))
            .collect();
        if !due.is_empty() {
            self.deploy(&due);
        }
    }

    fn deploy(&mut self, due: &[RegionId]) {
        // A checkpoint whose entry is on its way may turn out to exist; going back behind it would take back what sinks
        // are about to make visible.
        if self.checkpoints.pending.values().any(|pending| pending.stage == Stage::Journaling) {
            return;
        }
        let manifest = match self.restore_point() {
            RestorePoint::Loading => return,
            RestorePoint::Lost { reason } => {
                if !self.claim_still_stands() {
                    return;
                }
                self.abandon(ExitReason::Unrecoverable { reason });
                return;
            }
            RestorePoint::Ready(manifest) => manifest,
        };
        let first = self.next_deployment == 1;
        // The state has to fit before the first worker is there; later it is known to.
        let placed = if first { Vec::new() } else { self.place(due, first) };
        if !first && placed.is_empty() {
            return;
        }
        let mut restores =
            match assign_state(manifest.as_deref(), &self.config.plan, self.config.allow_non_restored_state) {
                Ok(restores) => restores,
                Err(error) => {
                    self.abandon(ExitReason::Incompatible { reason: error.to_string() });
                    return;
                }
            };
        let placed = if first {
            self.set_job_state(JobState::Created, None);
            self.place(due, first)
        } else {
            placed
        };
        if placed.is_empty() {
            return;
        }
        let checkpoint = manifest.as_ref().map(|manifest| manifest.checkpoint);
        if let Some(manifest) = &manifest {
            let external = self.config.external_restore.as_ref();
            let external = external.filter(|external| external.manifest.checkpoint == manifest.checkpoint);
            self.view.checkpoints.restored(RestoreView {
                checkpoint: manifest.checkpoint,
                at: self.unix_now,
                savepoint: manifest.kind == ManifestKind::Savepoint,
                location: self
                    .location_of(manifest.checkpoint)
                    .or_else(|| external.map(|external| external.location.clone())),
            });
        }
        let tasks = placed.iter().map(|region| self.regions.tasks(*region).len()).sum();
        self.report(if placed.len() == self.regions.len() {
            Report::Restored { checkpoint }
        } else {
            Report::RegionsRestored { checkpoint, tasks }
        });
        // A job that stopped with a savepoint gets it back only to commit what belongs to it.
        let stopped = checkpoint.is_some() && checkpoint == self.journal.state.stopped;
        for region in placed {
            let deployment = self.next_deployment;
            self.next_deployment += 1;
            self.region_phases[region] = RegionPhase::Active;
            let mut deployments = Vec::new();
            for task in self.regions.tasks(region).to_vec() {
                let Some(worker) = self.cluster.slots.get(task.subtask as usize).copied().flatten() else { continue };
                let mut restore = restores.remove(&task).unwrap_or_default();
                restore.stopped = stopped;
                self.checkpoints.on_deployed(task, &restore);
                if let Some(run) = self.tasks.get_mut(&task) {
                    run.worker = Some(worker);
                    run.deployment = deployment;
                    run.deployments = run.deployments.saturating_add(1);
                    run.restored = checkpoint;
                }
                self.set_task_state(task, TaskState::Deploying);
                deployments.push(TaskDeployment { task, worker, restore });
            }
            self.push(Action::Deploy { deployment, parallelism: self.parallelism, tasks: deployments });
        }
        self.view.workers = self.cluster.views();
        if self.all_regions_active() {
            self.set_job_state(JobState::Running, None);
        }
    }

    /// The regions that have their slots now. The first deployment takes all or nothing, so that a job is spread over
    /// all of its workers; later each region goes by itself.
    fn place(&mut self, due: &[RegionId], first: bool) -> Vec<RegionId> {
        let slots_of = |regions: &[RegionId]| -> BTreeSet<u32> {
            regions.iter().flat_map(|region| self.regions.tasks(*region)).map(|task| task.subtask).collect()
        };
        let mut missing = 0;
        let mut placed = Vec::new();
        if first {
            match self.cluster.place(&slots_of(due)) {
                Ok(()) => placed = due.to_vec(),
                Err(count) => missing = count,
            }
        } else {
            if due.len() == self.regions.len() {
                // Nothing runs, so the job can be spread anew over the workers there are.
                self.cluster.slots.fill(None);
            }
            let wanted: Vec<_> = due.iter().map(|region| slots_of(&[*region])).collect();
            for (region, wanted) in due.iter().zip(wanted) {
                match self.cluster.place(&wanted) {
                    Ok(()) => placed.push(*region),
                    Err(count) => missing += count,
                }
            }
        }
        if missing != self.view.missing_slots {
            self.view.missing_slots = missing;
            if missing > 0 {
                self.report(Report::WaitingForSlots { missing });
            }
        }
        placed
    }
}
