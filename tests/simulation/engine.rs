//! The engine as far as the operator sees it: journals with claims, coordinators that stand by, take over, save and end.
//! What a coordinator makes visible is checked against what was visible before: nothing is made visible by two, or twice.

use serde_json::json;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash};
use std::sync::LazyLock;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};
use streamjob_api::live::{apply, change_towards};
use streamjob_api::spec::UpgradeMode;
use streamjob_operator::api::status::EndState;
use streamjob_operator::plan::observed::{
    EngineCheckpoints, EngineRestorePoint, EngineSavepoint, EngineStatus, SavepointAnswer, Standby,
};
use streamjob_operator::resources::StoredRevision;

/// How far a job is per tick.
const ROWS: i64 = 10;
/// Ticks that a savepoint takes.
const SAVING: u32 = 2;
/// Ticks from one checkpoint to the next.
const INTERVAL: u32 = 3;

/// Options of a job that says nothing of them.
static DEFAULTS: LazyLock<(CheckpointConfig, RestartStrategy)> = LazyLock::new(|| {
    let checkpoint = json!({
        "interval_ms": 1000, "mode": "ExactlyOnce", "timeout_ms": 600_000, "min_pause_ms": 0, "max_concurrent": 1,
        "tolerable_failures": 0, "retention": "None", "retained": 1, "incremental": false, "compression": "None",
    });
    (serde_json::from_value(checkpoint).unwrap(), RestartStrategy::None)
});

#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub claim: Option<i64>,
    /// Number, directory, rows.
    pub checkpoints: Vec<(i64, String, i64)>,
    pub highest: i64,
    pub ended: Option<EndState>,
    /// The newest savepoint.
    pub saved: Option<EngineSavepoint>,
    pub answers: BTreeMap<String, SavepointAnswer>,
    /// One that was begun.
    started: Option<Saving>,
}

#[derive(Debug, Clone, Default)]
pub struct Storage {
    pub journals: BTreeMap<String, Journal>,
    /// Directory to rows.
    pub savepoints: BTreeMap<String, i64>,
    /// The newest restore point of jobs that were deleted, by their names.
    pub retained: BTreeMap<String, String>,
    /// Rows that were made visible; going back behind them is a rewind.
    pub visible: i64,
    /// The spec asked for it: the next restore without state is right.
    pub may_rewind: bool,
    /// Savepoints that fail before one succeeds.
    pub failing: u32,
    /// Savepoints never end.
    pub hanging: bool,
    /// The running job fails, and its restart strategy is exhausted.
    pub doomed: bool,
    /// Of a job that ends nothing is kept.
    pub forgetful: bool,
    /// Claims are not looked at: for a broken rule.
    pub no_fencing: bool,
    pub violations: Vec<String>,
    /// By whoever was told to take over.
    pub takeovers: u32,
    pub taken: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Standby,
    Starting,
    Running,
    Recovering,
    Ended(End),
    /// The process has ended with this code.
    Exited(i32),
}

/// As [`EndState`], which is no key of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    Finished,
    Failed,
    Canceled,
}

fn end_of(state: EndState) -> End {
    match state {
        EndState::Finished => End::Finished,
        EndState::Failed => End::Failed,
        EndState::Canceled => End::Canceled,
    }
}

#[derive(Debug, Clone, Hash)]
struct Saving {
    trigger: String,
    left: u32,
    stops: bool,
}

#[derive(Debug, Clone)]
pub struct Coordinator {
    pub revision: i64,
    pub job_id: String,
    pub sql: String,
    pub parallelism: i64,
    pub slots: i64,
    pub phase: Phase,
    pub rows: i64,
    pub options: (CheckpointConfig, RestartStrategy),
    replaces: Option<String>,
    restore_path: Option<String>,
    /// The spec says that what it replaces need not be kept.
    stateless: bool,
    completed: i64,
    restarts: i64,
    incarnation: u64,
    saving: Option<Saving>,
    restored: Option<String>,
    since: i64,
    ticks: u32,
    changes: u32,
}

impl Coordinator {
    pub fn new(stored: &StoredRevision, incarnation: u64, storage: &mut Storage) -> Coordinator {
        let spec = &stored.spec;
        let from = spec.restore_from.as_ref();
        let retained = from.and_then(|from| storage.retained.get(&from.latest_retained.as_ref()?.job_name).cloned());
        let mode = spec.upgrade.as_ref().map(|upgrade| upgrade.mode).unwrap_or_default();
        let mut new = Coordinator {
            revision: stored.number,
            job_id: stored.job_id.clone(),
            replaces: stored.replaces.clone(),
            restore_path: stored.restore_path.clone().or(retained),
            sql: spec.program.sql.clone().unwrap_or_default(),
            parallelism: i64::from(spec.parallelism),
            options: DEFAULTS.clone(),
            stateless: mode == UpgradeMode::Stateless,
            slots: 0,
            phase: Phase::Standby,
            rows: 0,
            completed: 0,
            restarts: 0,
            incarnation,
            saving: None,
            restored: None,
            since: 0,
            ticks: 0,
            changes: 0,
        };
        if let Some(change) = change_towards(spec, &DEFAULTS.0, &DEFAULTS.1) {
            new.configure(&change);
        }
        let journal = storage.journals.entry(new.job_id.clone()).or_default().clone();
        match journal.claim {
            Some(claim) if claim > new.revision && !storage.no_fencing => new.phase = Phase::Exited(3),
            Some(claim) if claim == new.revision => match journal.ended {
                Some(state) => new.phase = Phase::Ended(end_of(state)),
                None => {
                    new.saving = journal.started.map(|saving| Saving { left: SAVING, ..saving });
                    new.take_over(storage);
                }
            },
            _ if new.sql.contains("broken") => new.phase = Phase::Exited(2),
            _ => {}
        }
        new
    }

    pub fn configure(&mut self, change: &serde_json::Value) {
        self.options = apply(&self.options.0, &self.options.1, &change.to_string()).unwrap();
        self.changes += 1;
    }

    /// The claim, and the restore.
    pub fn activate(&mut self, storage: &mut Storage) {
        if self.phase != Phase::Standby {
            return;
        }
        if let Some(old) = &self.replaces {
            let journal = storage.journals.entry(old.clone()).or_default();
            journal.claim = journal.claim.max(Some(self.revision));
        }
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        if journal.claim > Some(self.revision) && !storage.no_fencing {
            self.phase = Phase::Exited(3);
            return;
        }
        journal.claim = Some(self.revision);
        journal.ended = None;
        if let Some(Saving { trigger, .. }) = journal.started.take() {
            let reason = "the job was taken over by a later revision".into();
            journal.answers.insert(trigger, SavepointAnswer::Failed { reason });
        }
        if let Some(saved) = &mut journal.saved {
            saved.stopped = false;
        }
        storage.takeovers += 1;
        self.take_over(storage);
    }

    /// Where it goes on from, and how many rows were out by then.
    fn origin(&self, storage: &Storage) -> Option<(i64, String, i64)> {
        let own = storage.journals.get(&self.job_id).and_then(|journal| journal.checkpoints.last().cloned());
        let foreign = || {
            let path = self.restore_path.as_ref()?;
            Some((0, path.clone(), *storage.savepoints.get(path)?))
        };
        own.or_else(foreign)
    }

    fn take_over(&mut self, storage: &mut Storage) {
        let origin = self.origin(storage);
        if let Some((_, path, _)) = origin.as_ref().filter(|(_, path, _)| path.contains("savepoint"))
            && !storage.savepoints.contains_key(path)
        {
            storage.violations.push(format!("I8: the files in {path} were deleted, and the job goes on from them"));
        }
        let anew = origin.is_none() && (self.stateless || storage.may_rewind);
        let rows = origin.as_ref().map_or(0, |(_, _, rows)| *rows);
        if rows < storage.visible && !anew && !storage.may_rewind {
            let (revision, visible) = (self.revision, storage.visible);
            storage
                .violations
                .push(format!("I9: revision {revision} goes back to {rows} rows, {visible} were visible"));
        }
        storage.visible = rows;
        self.rows = rows;
        self.restored = origin.map(|(_, path, _)| path);
        self.phase = Phase::Starting;
    }

    pub fn is_active(&self, storage: &Storage) -> bool {
        let journal = storage.journals.get(&self.job_id);
        let newest = journal.is_some_and(|journal| journal.claim == Some(self.revision)) || storage.no_fencing;
        newest && matches!(self.phase, Phase::Running | Phase::Starting | Phase::Recovering)
    }

    pub fn tick(&mut self, storage: &mut Storage, now_ms: i64) {
        if !matches!(self.phase, Phase::Running | Phase::Starting | Phase::Recovering) {
            return;
        }
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        if journal.claim != Some(self.revision) && !storage.no_fencing {
            self.phase = Phase::Exited(3);
            return;
        }
        if self.slots < self.parallelism {
            self.phase = Phase::Starting;
            return;
        }
        if self.sql.contains("unstable") {
            self.phase = Phase::Recovering;
            self.restarts += 1;
            return;
        }
        if self.phase != Phase::Running {
            self.phase = Phase::Running;
            self.since = now_ms;
        }
        self.rows += ROWS;
        self.ticks += 1;
        if let Some(saving) = self.saving.take() {
            return self.save(saving, storage, now_ms);
        }
        if self.sql.contains("bounded") && self.rows >= 100 {
            self.end(storage, EndState::Finished);
        } else if self.sql.contains("failing") || std::mem::take(&mut storage.doomed) {
            self.end(storage, EndState::Failed);
        } else if self.ticks.is_multiple_of(INTERVAL) {
            let journal = storage.journals.entry(self.job_id.clone()).or_default();
            journal.highest += 1;
            self.completed += 1;
            journal.checkpoints.push((journal.highest, format!("{}/chk-{}", self.job_id, journal.highest), self.rows));
            if journal.checkpoints.len() > 4 {
                journal.checkpoints.remove(0);
            }
            // One that nobody may complete any more makes nothing visible.
            storage.visible = storage.visible.max(self.rows);
        }
    }

    fn save(&mut self, saving: Saving, storage: &mut Storage, now_ms: i64) {
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        let Saving { trigger, left, stops } = saving;
        journal.started = None;
        match left {
            _ if storage.hanging => self.saves(Saving { trigger, left, stops }, storage),
            0 if storage.failing > 0 => {
                storage.failing -= 1;
                journal.answers.insert(trigger, SavepointAnswer::Failed { reason: "the disk is full".into() });
            }
            0 => {
                journal.highest += 1;
                let path = format!("{}/savepoint-{}", self.job_id, journal.highest);
                let saved = EngineSavepoint {
                    id: journal.highest,
                    trigger: trigger.clone(),
                    path: path.clone(),
                    stopped: stops,
                    completed_at: Some(now_ms),
                    ..EngineSavepoint::default()
                };
                journal.answers.insert(trigger, SavepointAnswer::Completed(Box::new(saved.clone())));
                journal.saved = Some(saved);
                storage.savepoints.insert(path.clone(), self.rows);
                storage.taken += 1;
                // One that the job goes on from; a plain one is no restore point, and commits nothing.
                if stops {
                    journal.checkpoints.push((journal.highest, path, self.rows));
                    storage.visible = self.rows;
                    journal.ended = Some(EndState::Finished);
                    self.phase = Phase::Ended(End::Finished);
                }
            }
            _ => self.saves(Saving { trigger, left: left - 1, stops }, storage),
        }
    }

    fn saves(&mut self, saving: Saving, storage: &mut Storage) {
        storage.journals.entry(self.job_id.clone()).or_default().started = Some(saving.clone());
        self.saving = Some(saving);
    }

    fn end(&mut self, storage: &mut Storage, state: EndState) {
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        journal.ended = Some(state);
        if state == EndState::Finished {
            storage.visible = self.rows;
        }
        if state == EndState::Finished || storage.forgetful {
            journal.checkpoints.clear();
        }
        self.phase = Phase::Ended(end_of(state));
    }

    pub fn cancel(&mut self, storage: &mut Storage) {
        if self.is_active(storage) {
            self.end(storage, EndState::Canceled);
        }
    }

    /// # Errors
    /// As the coordinator refuses requests: with the status of HTTP, and why.
    pub fn save_or_stop(
        &mut self,
        trigger: &str,
        directory: Option<&str>,
        stops: bool,
        storage: &mut Storage,
    ) -> Result<(), (u16, String)> {
        let known = storage.journals.get(&self.job_id).is_some_and(|journal| journal.answers.contains_key(trigger));
        if known || self.saving.as_ref().is_some_and(|saving| saving.trigger == trigger) {
            return Ok(());
        }
        if let Some(directory) = directory.filter(|directory| directory.starts_with("/nowhere")) {
            return Err((400, format!("the savepoint directory {directory} cannot be written")));
        }
        if self.phase != Phase::Running || self.saving.is_some() {
            return Err((409, "another savepoint is under way".into()));
        }
        self.saves(Saving { trigger: trigger.into(), left: SAVING, stops }, storage);
        Ok(())
    }

    pub fn answer(&self, trigger: &str, storage: &Storage) -> SavepointAnswer {
        if self.saving.as_ref().is_some_and(|saving| saving.trigger == trigger) {
            return SavepointAnswer::InProgress;
        }
        let journal = storage.journals.get(&self.job_id);
        journal.and_then(|journal| journal.answers.get(trigger).cloned()).unwrap_or(SavepointAnswer::Unknown)
    }

    /// Changes with everything that the operator can see.
    pub fn fingerprint(&self, storage: &Storage, hasher: &mut DefaultHasher) {
        let journal = storage.journals.get(&self.job_id);
        let journal =
            journal.map(|it| (it.claim, it.highest, it.checkpoints.len(), it.answers.len(), it.saved.is_some()));
        (self.revision, self.incarnation, self.phase, self.slots, self.completed, self.restarts).hash(hasher);
        (&self.saving, self.changes, journal).hash(hasher);
    }

    pub fn status(&self, storage: &Storage) -> EngineStatus {
        let journal = storage.journals.get(&self.job_id);
        let state = match self.phase {
            Phase::Standby => "STANDBY",
            Phase::Starting => "CREATED",
            Phase::Running => "RUNNING",
            Phase::Recovering => "RESTARTING",
            Phase::Ended(End::Finished) => "FINISHED",
            Phase::Ended(End::Failed) => "FAILED",
            Phase::Ended(End::Canceled) => "CANCELED",
            Phase::Exited(_) => "",
        };
        let last = journal.and_then(|journal| journal.checkpoints.iter().rfind(|(_, path, _)| path.contains("/chk-")));
        let standby = (self.phase == Phase::Standby).then_some(Standby {
            ready: self.slots >= self.parallelism,
            checked: true,
            slots: self.slots,
            needed: self.parallelism,
        });
        EngineStatus {
            job_id: self.job_id.clone(),
            state: state.into(),
            incarnation: self.incarnation,
            revision: self.revision,
            standby,
            parallelism: i32::try_from(self.parallelism).unwrap(),
            running_since: Some(self.since),
            restarts: self.restarts,
            restore_point: self.origin(storage).map(|(checkpoint, path, _)| EngineRestorePoint { checkpoint, path }),
            restored_from_path: self.restored.clone(),
            checkpoints: EngineCheckpoints {
                completed: self.completed,
                last_id: last.map(|(id, ..)| *id),
                last_path: last.map(|(_, path, _)| path.clone()),
                last_completed_at: Some(self.since),
                ..EngineCheckpoints::default()
            },
            latest_savepoint: journal.and_then(|journal| journal.saved.clone()),
            checkpoint_config: Some(self.options.0.clone()),
            restart_strategy: Some(self.options.1.clone()),
            ..EngineStatus::default()
        }
    }
}
