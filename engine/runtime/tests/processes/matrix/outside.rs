//! What is outside of a job: the system that its sink writes to, what its operators were given at their start, and how far
//! its sources may read. Outlives the job's processes.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use streamjob_dataflow::{OperatorContext, OperatorRestore, TaskError};

/// Result rows and how often each is visible.
pub type Rows = BTreeMap<Vec<i64>, u32>;

/// An external system with transactions that are prepared, then committed, once or several times.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Transactions>>);

#[derive(Default)]
struct Transactions {
    prepared: BTreeMap<String, Vec<Vec<i64>>>,
    committed: BTreeSet<String>,
}

impl Ledger {
    pub fn prepare(&self, transaction: &str, rows: Vec<Vec<i64>>) {
        let replaced = self.0.lock().unwrap().prepared.insert(transaction.to_owned(), rows);
        assert!(replaced.is_none(), "{transaction} was prepared twice");
    }

    pub fn commit(&self, transaction: &str) -> Result<(), TaskError> {
        let mut ledger = self.0.lock().unwrap();
        if !ledger.prepared.contains_key(transaction) {
            return Err(TaskError::Fatal(format!("{transaction} was never prepared")));
        }
        ledger.committed.insert(transaction.to_owned());
        Ok(())
    }

    pub fn visible(&self) -> Rows {
        let ledger = self.0.lock().unwrap();
        let mut visible = Rows::new();
        for row in ledger.committed.iter().flat_map(|transaction| &ledger.prepared[transaction]) {
            *visible.entry(row.clone()).or_default() += 1;
        }
        visible
    }
}

/// What one operator instance was given when it was opened.
#[derive(Debug, Clone)]
pub struct Given {
    pub uid: String,
    pub subtask: u32,
    pub checkpoint: Option<u64>,
    pub lists: BTreeMap<String, Vec<Value>>,
    /// Rows by table.
    pub keyed: BTreeMap<String, usize>,
}

/// One run of a job.
#[derive(Clone)]
pub struct Run {
    pub ledger: Ledger,
    /// Sources stop in the middle, and go on when this becomes false.
    pub held: Arc<AtomicBool>,
    /// The sink does not get to commit anything, as if its process always died just before.
    pub commits: bool,
    read: Arc<AtomicU64>,
    given: Arc<Mutex<Vec<Given>>>,
}

impl Run {
    pub fn new(ledger: &Ledger, held: bool) -> Run {
        Run {
            ledger: ledger.clone(),
            held: Arc::new(AtomicBool::new(held)),
            commits: true,
            read: Arc::default(),
            given: Arc::default(),
        }
    }

    pub fn without_commits(self) -> Run {
        Run { commits: false, ..self }
    }

    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    pub fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    /// Rows that the sources of this run have read.
    pub fn rows_read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    pub fn note_read(&self, rows: usize) {
        self.read.fetch_add(rows as u64, Ordering::SeqCst);
    }

    pub fn note_given(&self, context: &OperatorContext, restore: &OperatorRestore) {
        let rows = |parts: &Vec<streamjob_state::KeyedRows>| parts.iter().map(|part| part.rows.num_rows()).sum();
        self.given.lock().unwrap().push(Given {
            uid: context.uid.clone(),
            subtask: context.subtask,
            checkpoint: restore.checkpoint,
            lists: restore.lists.clone(),
            keyed: restore.keyed.iter().map(|(name, parts)| (name.clone(), rows(parts))).collect(),
        });
    }

    pub fn given(&self) -> Vec<Given> {
        self.given.lock().unwrap().clone()
    }
}
