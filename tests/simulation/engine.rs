//! The engine as far as the operator sees it: journals with claims, coordinators that stand by, take over, save and end.
//! What a coordinator makes visible is checked against what was visible before: nothing is made visible by two, or twice.

use serde_json::json;
use std::collections::BTreeMap;
use streamjob_operator::api::status::EndState;
use streamjob_operator::plan::observed::{
    EngineCheckpoints, EngineRestorePoint, EngineSavepoint, EngineStatus, SavepointAnswer, Standby,
};

/// How far a job is per tick.
const ROWS: i64 = 10;
/// Ticks that a stop takes.
const SAVING: u32 = 2;

#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub claim: Option<i64>,
    /// Number, directory, rows.
    pub checkpoints: Vec<(i64, String, i64)>,
    pub highest: i64,
    pub ended: Option<EndState>,
    pub stopped: Option<EngineSavepoint>,
    pub answers: BTreeMap<String, SavepointAnswer>,
}

#[derive(Debug, Clone, Default)]
pub struct Storage {
    pub journals: BTreeMap<String, Journal>,
    /// Directory to rows.
    pub savepoints: BTreeMap<String, i64>,
    /// Rows that were made visible; going back behind them is a rewind.
    pub visible: i64,
    /// The spec asked for it: the next restore may go anywhere.
    pub may_rewind: bool,
    /// Savepoints that fail before one succeeds.
    pub failing: u32,
    /// Savepoints never end.
    pub hanging: bool,
    /// Claims are not looked at: for a broken rule.
    pub no_fencing: bool,
    pub violations: Vec<String>,
    pub restores: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Standby,
    Starting,
    Running,
    Recovering,
    Ended(EndState),
    /// The process has ended with this code.
    Exited(i32),
}

#[derive(Debug, Clone)]
pub struct Coordinator {
    pub revision: i64,
    pub job_id: String,
    pub replaces: Option<String>,
    pub restore_path: Option<String>,
    pub sql: String,
    pub parallelism: i64,
    pub slots: i64,
    pub phase: Phase,
    pub rows: i64,
    completed: i64,
    restarts: i64,
    incarnation: u64,
    stop: Option<(String, u32)>,
    restored: Option<String>,
    since: i64,
    pub activations: u32,
}

impl Coordinator {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        revision: i64,
        job_id: &str,
        replaces: Option<String>,
        restore_path: Option<String>,
        sql: &str,
        parallelism: i64,
        incarnation: u64,
        storage: &mut Storage,
    ) -> Coordinator {
        let mut new = Coordinator {
            revision,
            job_id: job_id.into(),
            replaces,
            restore_path,
            sql: sql.into(),
            parallelism,
            slots: 0,
            phase: Phase::Standby,
            rows: 0,
            completed: 0,
            restarts: 0,
            incarnation,
            stop: None,
            restored: None,
            since: 0,
            activations: 0,
        };
        let journal = storage.journals.entry(job_id.to_owned()).or_default().clone();
        match journal.claim {
            Some(claim) if claim > revision && !storage.no_fencing => new.phase = Phase::Exited(3),
            Some(claim) if claim == revision => match journal.ended {
                Some(state) => new.phase = Phase::Ended(state),
                None => new.take_over(storage),
            },
            _ if new.sql.contains("broken") => new.phase = Phase::Exited(2),
            _ => {}
        }
        new
    }

    /// The claim, and the restore.
    pub fn activate(&mut self, storage: &mut Storage) {
        if self.phase != Phase::Standby {
            return;
        }
        self.activations += 1;
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
        journal.stopped = None;
        self.take_over(storage);
    }

    fn take_over(&mut self, storage: &mut Storage) {
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        let own = journal.checkpoints.last().cloned();
        let foreign = self.restore_path.as_ref().and_then(|path| Some((path.clone(), *storage.savepoints.get(path)?)));
        let (path, rows) = match (own, foreign) {
            (Some((_, path, rows)), _) => (Some(path), rows),
            (None, Some((path, rows))) => (Some(path), rows),
            (None, None) => (None, 0),
        };
        storage.restores += 1;
        if rows < storage.visible && !storage.may_rewind {
            let (revision, visible) = (self.revision, storage.visible);
            storage.violations.push(format!("revision {revision} goes back to {rows} rows, {visible} were visible"));
        }
        storage.may_rewind = false;
        storage.visible = rows;
        self.rows = rows;
        self.restored = path;
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
        let path = format!("{}/chk", self.job_id);
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
        if let Some((trigger, left)) = self.stop.take() {
            match left {
                _ if storage.hanging => self.stop = Some((trigger, left)),
                0 if storage.failing > 0 => {
                    storage.failing -= 1;
                    journal.answers.insert(trigger, SavepointAnswer::Failed { reason: "the disk is full".into() });
                }
                0 => {
                    journal.highest += 1;
                    let path = format!("{}/savepoint-{}", self.job_id, journal.highest);
                    journal.checkpoints.push((journal.highest, path.clone(), self.rows));
                    journal.answers.insert(trigger.clone(), SavepointAnswer::Completed { path: path.clone() });
                    journal.ended = Some(EndState::Finished);
                    journal.stopped = Some(EngineSavepoint {
                        id: journal.highest,
                        trigger,
                        path: path.clone(),
                        stopped: true,
                        completed_at: Some(now_ms),
                        ..EngineSavepoint::default()
                    });
                    storage.savepoints.insert(path, self.rows);
                    storage.visible = self.rows;
                    self.phase = Phase::Ended(EndState::Finished);
                }
                _ => self.stop = Some((trigger, left - 1)),
            }
            return;
        }
        if self.sql.contains("bounded") && self.rows >= 100 {
            self.end(storage, EndState::Finished);
        } else if self.sql.contains("failing") {
            self.end(storage, EndState::Failed);
        } else {
            journal.highest += 1;
            self.completed += 1;
            journal.checkpoints.push((journal.highest, format!("{path}-{}", journal.highest), self.rows));
            // One that nobody may complete any more makes nothing visible.
            storage.visible = storage.visible.max(self.rows);
        }
    }

    fn end(&mut self, storage: &mut Storage, state: EndState) {
        let journal = storage.journals.entry(self.job_id.clone()).or_default();
        journal.ended = Some(state);
        if state == EndState::Finished {
            storage.visible = self.rows;
            journal.checkpoints.clear();
        }
        self.phase = Phase::Ended(state);
    }

    pub fn cancel(&mut self, storage: &mut Storage) {
        if self.is_active(storage) {
            self.end(storage, EndState::Canceled);
        }
    }

    pub fn stop(&mut self, trigger: &str, storage: &mut Storage) {
        let known = storage.journals.get(&self.job_id).is_some_and(|journal| journal.answers.contains_key(trigger));
        if self.phase == Phase::Running && self.stop.is_none() && !known {
            self.stop = Some((trigger.into(), SAVING));
        }
    }

    pub fn answer(&self, trigger: &str, storage: &Storage) -> SavepointAnswer {
        if self.stop.as_ref().is_some_and(|(known, _)| known == trigger) {
            return SavepointAnswer::InProgress;
        }
        let journal = storage.journals.get(&self.job_id);
        journal.and_then(|journal| journal.answers.get(trigger).cloned()).unwrap_or(SavepointAnswer::Unknown)
    }

    pub fn status(&self, storage: &Storage) -> EngineStatus {
        let journal = storage.journals.get(&self.job_id).cloned().unwrap_or_default();
        let state = match self.phase {
            Phase::Standby => "STANDBY",
            Phase::Starting => "CREATED",
            Phase::Running => "RUNNING",
            Phase::Recovering => "RESTARTING",
            Phase::Ended(EndState::Finished) => "FINISHED",
            Phase::Ended(EndState::Failed) => "FAILED",
            Phase::Ended(EndState::Canceled) => "CANCELED",
            Phase::Exited(_) => "",
        };
        let last = journal.checkpoints.last();
        let foreign = self.restore_path.as_ref().filter(|path| storage.savepoints.contains_key(*path));
        let restore_point = match (last, foreign) {
            (Some((id, path, _)), _) => Some(EngineRestorePoint { checkpoint: *id, path: path.clone() }),
            (None, Some(path)) => Some(EngineRestorePoint { checkpoint: 0, path: path.clone() }),
            (None, None) => None,
        };
        let standby = (self.phase == Phase::Standby).then_some(Standby {
            ready: self.slots >= self.parallelism,
            checked: true,
            slots: self.slots,
            needed: self.parallelism,
        });
        // As the engine reports options that were never changed.
        let config = json!({
            "interval_ms": 1000, "mode": "ExactlyOnce", "timeout_ms": 600_000, "min_pause_ms": 0, "max_concurrent": 1,
            "tolerable_failures": 0, "retention": "None", "retained": 1, "incremental": false, "compression": "None",
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
            restore_point,
            restored_from_path: self.restored.clone(),
            checkpoints: EngineCheckpoints {
                completed: self.completed,
                last_id: last.map(|(id, ..)| *id),
                last_path: last.map(|(_, path, _)| path.clone()),
                last_completed_at: Some(self.since),
                ..EngineCheckpoints::default()
            },
            latest_savepoint: journal.stopped,
            checkpoint_config: serde_json::from_value(config).unwrap(),
            ..EngineStatus::default()
        }
    }
}
