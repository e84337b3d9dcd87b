//! The coordinator: takes events in, keeps what it knows, and after each event does whatever has become possible.
//!
//! This module holds the state and the order of steps; the steps themselves are in the sibling modules.

use super::checkpointing::Checkpoints;
use super::cleanup::Cleanup;
use super::ending::Ending;
use super::journaling::JournalWriter;
use super::rescaling::Rescaling;
use super::restore_points::RestorePoints;
use super::savepoints::Savepoints;
use super::scheduling::Cluster;
use super::view::{CoordinatorView, TaskState};
use super::{Action, Event, ExitReason, JobState, Report, Request};
use crate::failover::Regions;
use crate::ids::{CheckpointId, DeploymentId, Millis, TaskId, WorkerId};
use crate::manifest::CheckpointManifest;
use crate::plan::JobPlan;
use crate::random::Random;
use crate::restart::{RestartDecider, exponential_backoff};
use crate::retention::FileLedger;
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_api::config::{CheckpointConfig, FailoverStrategy, RestartStrategy};

/// What one coordinator is started with.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    pub job_id: String,
    pub job_name: String,
    pub plan: JobPlan,
    pub checkpoint: CheckpointConfig,
    pub restart: RestartStrategy,
    pub failover: FailoverStrategy,
    /// Of the job's specification. A coordinator of a lower revision than the journal's newest claim refuses to start.
    pub revision: u64,
    /// Unique to this process.
    pub claimant: String,
    /// At which `plan` was made.
    pub parallelism: u32,
    /// Used while the job has no checkpoint of its own.
    pub external_restore: Option<ExternalRestore>,
    /// State of operators that the job no longer has is dropped instead of being an error.
    pub allow_non_restored_state: bool,
    /// Journal entries after which it is compacted; 64 is a good value.
    pub compact_after: usize,
}

/// A snapshot that is not in the job's own storage.
#[derive(Debug, Clone)]
pub struct ExternalRestore {
    /// With files named absolutely.
    pub manifest: CheckpointManifest,
    pub manifest_checksum: u64,
    /// Directory of the manifest.
    pub location: String,
    /// It becomes the job's own and is deleted like any other checkpoint; otherwise nothing of it is ever deleted.
    pub claim: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Life {
    New,
    /// Reading the journal and writing the claim.
    Claiming,
    /// The job runs at another parallelism than its specification says: until it is known what it looks like.
    Planning,
    Working,
    /// Still running, but only until the last checkpoint has ended.
    Suspending {
        checkpoint: Option<CheckpointId>,
        deadline: Millis,
    },
    /// Tasks are being cancelled.
    Stopping(StopReason),
    /// The end is written down, checkpoints that do not outlive it go.
    Ending(Ending),
    Exited,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum StopReason {
    /// With what went wrong with the last checkpoint, if anything.
    Suspend {
        note: Option<String>,
    },
    Cancel,
    Fail {
        reason: String,
    },
}

/// What the coordinator knows of a task.
#[derive(Debug, Clone)]
pub(super) struct TaskRun {
    pub state: TaskState,
    pub worker: Option<WorkerId>,
    pub deployment: DeploymentId,
    pub deployments: u32,
    /// Of `state`.
    pub since: Millis,
    /// What the current deployment restored; `None` if it started empty.
    pub restored: Option<CheckpointId>,
}

/// Waiting times between repeated requests to a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const INITIAL_MS: u64 = 100;
    const MAX_MS: u64 = 10_000;

    pub fn next(&mut self) -> u64 {
        let delay = exponential_backoff(Self::INITIAL_MS, Self::MAX_MS, 2.0, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The state machine of one job's coordinator. Deterministic: equal configuration, seed and events give equal actions.
#[derive(Debug, Clone)]
pub struct Coordinator {
    pub(super) config: CoordinatorConfig,
    /// Of the plan that runs.
    pub(super) parallelism: u32,
    pub(super) external: Option<Arc<CheckpointManifest>>,
    pub(super) now: Millis,
    pub(super) unix_now: Millis,
    pub(super) random: Random,
    pub(super) life: Life,
    pub(super) actions: Vec<Action>,
    pub(super) journal: JournalWriter,
    pub(super) restore_points: RestorePoints,
    pub(super) ledger: FileLedger,
    pub(super) cleanup: Cleanup,
    pub(super) cluster: Cluster,
    pub(super) regions: Regions,
    pub(super) region_phases: Vec<super::scheduling::RegionPhase>,
    pub(super) tasks: BTreeMap<TaskId, TaskRun>,
    /// By task, the tasks it reads from.
    pub(super) inputs: BTreeMap<TaskId, Vec<TaskId>>,
    pub(super) next_deployment: DeploymentId,
    /// When to remind workers of cancelled tasks that have not stopped.
    pub(super) cancel_nudge: Option<Millis>,
    pub(super) checkpoints: Checkpoints,
    pub(super) savepoints: Savepoints,
    pub(super) rescaling: Option<Rescaling>,
    pub(super) decider: RestartDecider,
    pub(super) cancel_requested: bool,
    pub(super) view: CoordinatorView,
    pub(super) tasks_changed: bool,
}

impl Coordinator {
    /// `seed` feeds the jitter of restarts and of the first checkpoint.
    pub fn new(config: CoordinatorConfig, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let regions = Regions::of_plan(&config.plan);
        let tasks = tasks_of(&config.plan);
        let mut ledger = FileLedger::default();
        if let Some(external) = config.external_restore.as_ref().filter(|external| !external.claim) {
            ledger.protect(crate::retention::files_of_manifest(&external.manifest));
        }
        let mut view = CoordinatorView::new(&config);
        view.set_tasks(&tasks);
        Coordinator {
            parallelism: config.parallelism,
            external: config.external_restore.as_ref().map(|external| Arc::new(external.manifest.clone())),
            now: 0,
            unix_now: 0,
            decider: RestartDecider::new(&config.restart, Random::new(random.next_u64())),
            random,
            life: Life::New,
            actions: Vec::new(),
            journal: JournalWriter::default(),
            restore_points: RestorePoints::default(),
            ledger,
            cleanup: Cleanup::default(),
            cluster: Cluster::new(slots_of(&config.plan)),
            region_phases: vec![super::scheduling::RegionPhase::Waiting { not_before: 0 }; regions.len()],
            regions,
            tasks,
            inputs: inputs_of(&config.plan),
            next_deployment: 1,
            cancel_nudge: None,
            checkpoints: Checkpoints::default(),
            savepoints: Savepoints::default(),
            rescaling: None,
            cancel_requested: false,
            view,
            tasks_changed: true,
            config,
        }
    }

    /// Takes one event in. `now` is monotonic, `unix_now` the wall clock, both in milliseconds. The first event, whatever
    /// it is, starts the machine.
    pub fn handle(&mut self, now: Millis, unix_now: Millis, event: Event) -> Vec<Action> {
        if self.life == Life::Exited {
            return Vec::new();
        }
        self.now = self.now.max(now);
        self.unix_now = unix_now;
        if self.life == Life::New {
            self.life = Life::Claiming;
            self.view.started_at = unix_now;
            self.set_job_state(JobState::Initializing, None);
            self.read_journal();
        }
        self.take_in(event);
        self.advance();
        if self.tasks_changed {
            self.tasks_changed = false;
            self.view.set_tasks(&self.tasks);
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due at the latest, on the clock of `now`.
    pub fn next_timer(&self) -> Option<Millis> {
        match self.life {
            Life::New => return Some(self.now),
            Life::Exited => return None,
            _ => {}
        }
        let timers = [
            self.journal.next_timer(),
            self.restore_points.next_timer(),
            self.cleanup.next_timer(),
            self.scheduling_timer(),
            self.checkpoint_timer(),
            self.savepoints.next_timer(),
            self.cancel_nudge,
            match self.life {
                Life::Suspending { deadline, .. } => Some(deadline),
                _ => None,
            },
        ];
        // What is due and yet waits, waits for an event, not for time.
        timers.into_iter().flatten().filter(|at| *at > self.now).min()
    }

    pub fn view(&self) -> &CoordinatorView {
        &self.view
    }

    /// The plan that runs, or is about to.
    pub fn plan(&self) -> &JobPlan {
        &self.config.plan
    }

    /// What the job would go back to, and where it lies if that is not in the job's own storage.
    pub fn newest_restore_point(&self) -> Option<(CheckpointId, Option<String>)> {
        let mut usable = self.journal.state.checkpoints.iter().rev().map(|(checkpoint, _)| *checkpoint);
        let newest = usable.find(|checkpoint| !self.restore_points.damaged.contains(checkpoint))?;
        Some((newest, self.location_of(newest)))
    }

    /// Completed checkpoints in the job's own storage that the journal still has, oldest first.
    pub fn retained_checkpoints(&self) -> Vec<CheckpointId> {
        let state = &self.journal.state;
        let own = state.checkpoints.iter().filter(|(checkpoint, _)| !state.locations.contains_key(checkpoint));
        own.map(|(checkpoint, _)| *checkpoint).collect()
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::JournalRead { result, highest_directory } => self.on_journal_read(result, highest_directory),
            Event::JournalAppended { seq, outcome } => self.on_journal_appended(seq, outcome),
            Event::ManifestLoaded { checkpoint, result } => self.on_manifest_loaded(checkpoint, result),
            Event::ManifestWritten { checkpoint, result } => self.on_manifest_written(checkpoint, result),
            Event::CheckpointDeleted { checkpoint, result } => self.on_checkpoint_deleted(checkpoint, result),
            Event::SavepointDeleted { location, result } => self.on_savepoint_deleted(&location, result),
            Event::WorkerRegistered { worker, slots } => self.on_worker_registered(worker, slots),
            Event::WorkerLost { worker, reason } => self.on_worker_lost(worker, &reason),
            Event::TaskStatus { task, deployment, status } => self.on_task_status(task, deployment, status),
            Event::CheckpointAck { task, deployment, checkpoint, snapshot, stats } => {
                self.on_ack(task, deployment, checkpoint, snapshot, stats);
            }
            Event::CheckpointDecline { task, deployment, checkpoint, reason, message } => {
                self.on_decline(task, deployment, checkpoint, reason, &message);
            }
            Event::Planned { parallelism, result } => self.on_planned(parallelism, result),
            Event::Request(Request::TriggerCheckpoint { trigger, full }) => self.request_checkpoint(trigger, full),
            Event::Request(Request::Savepoint { trigger, directory, then }) => {
                self.request_savepoint(trigger, &directory, then);
            }
            Event::Request(Request::Suspend) => self.request_suspend(),
            Event::Request(Request::Cancel) => self.request_cancel(),
            Event::Request(Request::Rescale { trigger, parallelism }) => self.request_rescale(trigger, parallelism),
            Event::Request(Request::Reconfigure { checkpoint, restart }) => {
                self.request_reconfigure(&checkpoint, restart);
            }
        }
    }

    /// Does what is possible now. Every step looks at the state alone, so it does not matter which event made it possible.
    fn advance(&mut self) {
        match self.life {
            Life::New | Life::Exited => return,
            Life::Claiming | Life::Planning => {}
            Life::Working | Life::Suspending { .. } => {
                self.expire_checkpoints();
                self.expire_suspending();
                self.expire_savepoints();
                self.advance_switch();
                self.advance_scheduling();
                self.advance_checkpoints();
                self.end_if_finished();
            }
            Life::Stopping(_) | Life::Ending(_) => {}
        }
        self.nudge_cancelled_tasks();
        if matches!(self.life, Life::Stopping(_)) {
            self.advance_stopping();
        }
        self.advance_cleanup();
        self.advance_restore_points();
        if matches!(self.life, Life::Ending(_)) {
            self.advance_ending();
        }
        self.advance_journal();
    }

    /// Nothing may follow an exit.
    pub(super) fn push(&mut self, action: Action) {
        if self.life != Life::Exited {
            self.actions.push(action);
        }
    }

    pub(super) fn exit(&mut self, reason: ExitReason) {
        self.push(Action::Exit(reason));
        self.life = Life::Exited;
    }

    /// Leaves without an end of the job: tasks that still run are told to stop, everything stored stays as it is.
    pub(super) fn abandon(&mut self, reason: ExitReason) {
        let alive: Vec<TaskId> = self.tasks.keys().copied().collect();
        self.cancel_tasks(&alive);
        self.exit(reason);
    }

    pub(super) fn set_job_state(&mut self, state: JobState, reason: Option<String>) {
        if self.view.state != state || self.view.reason != reason || self.view.since == 0 {
            if self.view.state != state || self.view.since == 0 {
                self.view.since = self.unix_now;
            }
            self.view.state = state;
            self.view.reason.clone_from(&reason);
            self.push(Action::Report(Report::JobState { state, reason }));
        }
    }

    pub(super) fn set_task_state(&mut self, task: TaskId, state: TaskState) {
        let now = self.now;
        if let Some(run) = self.tasks.get_mut(&task) {
            if run.state != state {
                run.state = state;
                run.since = now;
            }
            self.tasks_changed = true;
        }
    }

    pub(super) fn task_state(&self, task: TaskId) -> Option<TaskState> {
        self.tasks.get(&task).map(|run| run.state)
    }
}

pub(super) fn tasks_of(plan: &JobPlan) -> BTreeMap<TaskId, TaskRun> {
    plan.tasks().into_iter().map(|task| (task, TaskRun::new())).collect()
}

/// By task, the tasks it reads from.
pub(super) fn inputs_of(plan: &JobPlan) -> BTreeMap<TaskId, Vec<TaskId>> {
    let mut inputs: BTreeMap<TaskId, Vec<TaskId>> = BTreeMap::new();
    for channel in plan.channels() {
        inputs.entry(channel.to).or_default().push(channel.from);
    }
    inputs
}

/// Slots that a job takes: subtask `i` of every vertex shares one.
pub(super) fn slots_of(plan: &JobPlan) -> u32 {
    plan.vertices.iter().map(|vertex| vertex.parallelism).max().unwrap_or(0)
}

impl TaskRun {
    fn new() -> Self {
        TaskRun { state: TaskState::Created, worker: None, deployment: 0, deployments: 0, since: 0, restored: None }
    }
}
