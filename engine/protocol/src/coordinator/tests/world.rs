//! A journal, a store and obedient tasks, all in memory. What a test does not hold back is answered at once.

use crate::coordinator::*;
use crate::ids::*;
use crate::journal::{JournalEntry, JournalState};
use crate::manifest::*;
use crate::plan::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use streamjob_api::config::*;

pub const TIMEOUT_MS: u64 = 10_000;

pub fn plan(parallelism: &[u32], edges: &[(u32, u32, ExchangePattern)]) -> JobPlan {
    JobPlan {
        vertices: parallelism
            .iter()
            .enumerate()
            .map(|(index, &parallelism)| VertexPlan {
                name: format!("v{index}"),
                parallelism,
                operators: vec![OperatorPlan {
                    uid: format!("u{index}"),
                    name: format!("op{index}"),
                    stateful: true,
                    state: vec![],
                }],
            })
            .collect(),
        edges: edges.iter().map(|&(from, to, pattern)| EdgePlan { from, to, pattern, pipelined: true }).collect(),
        max_parallelism: 128,
        fingerprint: "f".into(),
    }
}

/// A source and a sink of parallelism 2 with a shuffle between.
pub fn pipeline() -> JobPlan {
    plan(&[2, 2], &[(0, 1, ExchangePattern::AllToAll)])
}

/// The same at another parallelism.
pub fn pipeline_at(parallelism: u32) -> JobPlan {
    plan(&[parallelism, parallelism], &[(0, 1, ExchangePattern::AllToAll)])
}

/// Two pipelines that have nothing to do with each other.
pub fn two_regions() -> JobPlan {
    plan(&[1, 1, 1, 1], &[(0, 1, ExchangePattern::Pointwise), (2, 3, ExchangePattern::Pointwise)])
}

pub fn config(plan: JobPlan) -> CoordinatorConfig {
    CoordinatorConfig {
        job_id: "job".into(),
        job_name: "job".into(),
        plan,
        checkpoint: CheckpointConfig {
            interval_ms: Some(1_000),
            mode: CheckpointMode::ExactlyOnce,
            timeout_ms: TIMEOUT_MS,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: 0,
            retention: Retention::RetainOnCancellation,
            retained: 1,
            incremental: true,
            compression: Compression::None,
        },
        restart: RestartStrategy::FixedDelay { attempts: 3, delay_ms: 100 },
        failover: FailoverStrategy::Region,
        revision: 1,
        claimant: "one".into(),
        parallelism: 2,
        external_restore: None,
        allow_non_restored_state: false,
        compact_after: 64,
    }
}

pub fn task(vertex: u32, subtask: u32) -> TaskId {
    TaskId { vertex, subtask }
}

/// Which requests to the outside are left unanswered until the test answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    ReadJournal,
    AppendJournal,
    LoadManifest,
    WriteManifest,
    DeleteCheckpoint,
    /// Tasks neither start nor stop by themselves.
    Tasks,
    /// Tasks do not end behind a last barrier or a savepoint that the job stopped with.
    Ends,
    /// Sources do not end when they are told to.
    Drains,
    DeleteSavepoint,
    Plan,
}

/// Not claimed.
pub fn external(manifest: CheckpointManifest) -> ExternalRestore {
    ExternalRestore { manifest, manifest_checksum: 7, location: "/elsewhere/chk".into(), claim: false }
}

pub struct World {
    pub machine: Coordinator,
    pub now: Millis,
    pub journal: BTreeMap<u64, JournalEntry>,
    pub manifests: BTreeMap<CheckpointId, CheckpointManifest>,
    pub held: BTreeSet<Hold>,
    /// Requests that were held back, oldest first.
    pub open: VecDeque<Action>,
    pub log: Vec<Action>,
    pub exit: Option<ExitReason>,
    /// Current deployment of each task, with what it was given.
    pub deployed: BTreeMap<TaskId, (DeploymentId, WorkerId, TaskRestore)>,
    /// Checkpoints and savepoints behind whose barrier nothing follows.
    last: BTreeSet<CheckpointId>,
}

impl World {
    pub fn new(config: CoordinatorConfig) -> World {
        World {
            machine: Coordinator::new(config, 42),
            now: 1_000,
            journal: BTreeMap::new(),
            manifests: BTreeMap::new(),
            held: BTreeSet::new(),
            open: VecDeque::new(),
            log: Vec::new(),
            exit: None,
            deployed: BTreeMap::new(),
            last: BTreeSet::new(),
        }
    }

    /// Claimed, two workers of two slots each, everything running.
    pub fn running(config: CoordinatorConfig) -> World {
        let mut world = World::new(config);
        world.start();
        world
    }

    /// Workers register before the journal has answered.
    pub fn start(&mut self) {
        let held = !self.held.insert(Hold::ReadJournal);
        self.send(Event::Tick);
        for worker in [1, 2] {
            self.send(Event::WorkerRegistered { worker: WorkerId(worker), slots: 2 });
        }
        if !held {
            self.release(Hold::ReadJournal);
        }
    }

    /// The coordinator dies; another one starts on the same journal and store.
    pub fn replace(&mut self, config: CoordinatorConfig) {
        self.machine = Coordinator::new(config, 43 + self.journal.len() as u64);
        self.open.clear();
        self.deployed.clear();
        self.exit = None;
        self.log.clear();
    }

    pub fn send(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.handle(self.now, self.now + 1_000_000, event) {
                assert!(self.exit.is_none(), "an action after the exit: {action:?}");
                self.log.push(action.clone());
                if self.hold_of(&action).is_some_and(|hold| self.held.contains(&hold)) {
                    self.open.push_back(action);
                } else {
                    events.extend(self.carry_out(action));
                }
            }
        }
    }

    fn hold_of(&self, action: &Action) -> Option<Hold> {
        Some(match action {
            Action::ReadJournal => Hold::ReadJournal,
            Action::AppendJournal { .. } => Hold::AppendJournal,
            Action::LoadManifest { .. } => Hold::LoadManifest,
            Action::WriteManifest { .. } => Hold::WriteManifest,
            Action::DeleteCheckpoint { .. } => Hold::DeleteCheckpoint,
            Action::Deploy { .. } | Action::CancelTasks { .. } => Hold::Tasks,
            Action::NotifyComplete { .. } => Hold::Ends,
            Action::DrainSources { .. } => Hold::Drains,
            Action::DeleteSavepoint { .. } => Hold::DeleteSavepoint,
            Action::Plan { .. } => Hold::Plan,
            _ => return None,
        })
    }

    fn carry_out(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::ReadJournal => vec![self.journal_read()],
            Action::AppendJournal { seq, entry } => {
                let outcome = self.append(seq, entry);
                vec![Event::JournalAppended { seq, outcome }]
            }
            Action::TrimJournal { before } => {
                self.journal.retain(|seq, _| *seq >= before);
                vec![]
            }
            Action::LoadManifest { checkpoint, .. } => {
                let result = match self.manifests.get(&checkpoint) {
                    Some(manifest) => Ok(Box::new(manifest.clone())),
                    None => Err(StoreError::Damaged("not there".into())),
                };
                vec![Event::ManifestLoaded { checkpoint, result }]
            }
            Action::WriteManifest { manifest, .. } => {
                let checkpoint = manifest.checkpoint;
                self.manifests.insert(checkpoint, *manifest);
                vec![Event::ManifestWritten { checkpoint, result: Ok(checkpoint) }]
            }
            Action::DeleteCheckpoint { checkpoint, .. } => {
                self.manifests.remove(&checkpoint);
                vec![Event::CheckpointDeleted { checkpoint, result: Ok(()) }]
            }
            Action::Deploy { deployment, tasks, .. } => {
                let mut events = Vec::new();
                for deployed in tasks {
                    let ends = deployed.restore.stopped && !self.held.contains(&Hold::Ends);
                    self.deployed.insert(deployed.task, (deployment, deployed.worker, deployed.restore));
                    events.push(Event::TaskStatus { task: deployed.task, deployment, status: TaskStatus::Running });
                    if ends {
                        events.push(Event::TaskStatus {
                            task: deployed.task,
                            deployment,
                            status: TaskStatus::Finished,
                        });
                    }
                }
                events
            }
            Action::TriggerCheckpoint { barrier, .. } => {
                self.last.extend(barrier.last.then_some(barrier.checkpoint));
                vec![]
            }
            Action::NotifyComplete { checkpoint, tasks } if self.last.contains(&checkpoint) => {
                let finished = |(_, task, deployment)| (task, deployment, TaskStatus::Finished);
                tasks.into_iter().map(finished).map(status_event).collect()
            }
            Action::DrainSources { tasks } => {
                let drained = |(_, task, deployment)| (task, deployment, TaskStatus::Drained);
                tasks.into_iter().map(drained).map(status_event).collect()
            }
            Action::DeleteSavepoint { location } => vec![Event::SavepointDeleted { location, result: Ok(()) }],
            Action::Plan { parallelism } => {
                let result = match parallelism {
                    99 => Err("nobody can".to_owned()),
                    _ => Ok(Box::new(pipeline_at(parallelism))),
                };
                vec![Event::Planned { parallelism, result }]
            }
            Action::CancelTasks { deployment, tasks } => tasks
                .into_iter()
                .map(|(_, task)| Event::TaskStatus { task, deployment, status: TaskStatus::Canceled })
                .collect(),
            Action::Exit(reason) => {
                self.exit = Some(reason);
                vec![]
            }
            _ => vec![],
        }
    }

    pub fn append(&mut self, seq: u64, entry: JournalEntry) -> AppendOutcome {
        if self.journal.keys().next_back().is_some_and(|last| *last >= seq) {
            return AppendOutcome::Exists;
        }
        self.journal.insert(seq, entry);
        AppendOutcome::Written
    }

    pub fn journal_read(&self) -> Event {
        let entries = self.journal.iter().map(|(seq, entry)| (*seq, entry.clone())).collect();
        Event::JournalRead { result: Ok(entries), highest_directory: 0 }
    }

    pub fn release(&mut self, hold: Hold) {
        self.held.remove(&hold);
        let (matching, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|action| self.hold_of(action) == Some(hold));
        self.open = rest;
        for action in matching {
            for event in self.carry_out(action) {
                self.send(event);
            }
        }
    }

    /// Lets time pass, with a tick whenever the machine asks for one.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.machine.next_timer().filter(|at| *at <= end) {
            assert!(at > self.now || self.log.is_empty(), "a timer that is due stays due");
            self.now = at;
            self.send(Event::Tick);
        }
        self.now = end;
        self.send(Event::Tick);
    }

    pub fn status(&mut self, task: TaskId, status: TaskStatus) {
        let (deployment, ..) = self.deployed[&task].clone();
        self.send(Event::TaskStatus { task, deployment, status });
    }

    pub fn fail(&mut self, task: TaskId) {
        self.status(task, TaskStatus::Failed { reason: "boom".into(), recoverable: true });
    }

    pub fn all(&mut self, status: TaskStatus) {
        for task in self.deployed.keys().copied().collect::<Vec<_>>() {
            self.status(task, status.clone());
        }
    }

    pub fn ack(&mut self, task: TaskId, checkpoint: CheckpointId, files: &[&str], finished: bool) {
        let (deployment, ..) = self.deployed[&task].clone();
        let file = |path: &&str| FileRef { path: (*path).into(), bytes: 10, checksum: 1 };
        let keyed = vec![KeyedStateHandle {
            name: "t".into(),
            schema: String::new(),
            key_groups: crate::key_groups::key_group_range(128, self.machine.view().parallelism.max(2), task.subtask),
            files: files.iter().map(file).collect(),
        }];
        let state = OperatorState { keyed, lists: vec![] };
        let snapshot = TaskSnapshot { operators: [(format!("u{}", task.vertex), state)].into(), finished };
        let stats = SubtaskStats { bytes_new: 10, bytes_total: 20, ..SubtaskStats::default() };
        self.send(Event::CheckpointAck { task, deployment, checkpoint, snapshot, stats });
    }

    pub fn ack_all(&mut self, checkpoint: CheckpointId) {
        let file = format!("f{checkpoint}");
        for task in self.deployed.keys().copied().collect::<Vec<_>>() {
            self.ack(task, checkpoint, &[&format!("{file}-{task}")], false);
        }
    }

    pub fn decline(&mut self, task: TaskId, checkpoint: CheckpointId, reason: DeclineReason) {
        let (deployment, ..) = self.deployed[&task].clone();
        self.send(Event::CheckpointDecline { task, deployment, checkpoint, reason, message: "no".into() });
    }

    /// Waits for the next trigger and returns its id.
    pub fn next_trigger(&mut self) -> CheckpointId {
        let before = self.triggers().len();
        for _ in 0..100 {
            if self.triggers().len() > before {
                break;
            }
            self.advance(50);
        }
        self.triggers()[before]
    }

    pub fn complete_one(&mut self) -> CheckpointId {
        let checkpoint = self.next_trigger();
        self.ack_all(checkpoint);
        checkpoint
    }

    pub fn triggers(&self) -> Vec<CheckpointId> {
        self.log
            .iter()
            .filter_map(|action| match action {
                Action::TriggerCheckpoint { barrier, .. } => Some(barrier.checkpoint),
                _ => None,
            })
            .collect()
    }

    pub fn barriers(&self) -> Vec<Barrier> {
        let barrier = |action: &Action| match action {
            Action::TriggerCheckpoint { barrier, .. } => Some(barrier.clone()),
            _ => None,
        };
        self.log.iter().filter_map(barrier).collect()
    }

    pub fn state(&self) -> JournalState {
        JournalState::fold(self.journal.values())
    }

    pub fn checkpoints(&self) -> Vec<CheckpointId> {
        self.state().checkpoints.into_iter().map(|(checkpoint, _)| checkpoint).collect()
    }

    /// Position in the log of the first action that matches, from `start` on.
    pub fn position(&self, what: impl Fn(&Action) -> bool) -> Option<usize> {
        self.log.iter().position(what)
    }

    pub fn reports(&self) -> Vec<&Report> {
        self.log
            .iter()
            .filter_map(|action| match action {
                Action::Report(report) => Some(report),
                _ => None,
            })
            .collect()
    }

    pub fn job_state(&self) -> JobState {
        self.machine.view().state
    }

    pub fn deployments(&self) -> Vec<Vec<TaskId>> {
        self.log
            .iter()
            .filter_map(|action| match action {
                Action::Deploy { tasks, .. } => Some(tasks.iter().map(|task| task.task).collect()),
                _ => None,
            })
            .collect()
    }
}

fn status_event((task, deployment, status): (TaskId, DeploymentId, TaskStatus)) -> Event {
    Event::TaskStatus { task, deployment, status }
}
