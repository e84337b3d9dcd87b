//! The traits that operators, sources and sinks implement. All calls come from one thread, a task's own; none may block
//! on the outside without a timeout, none sees another subtask.

use crate::batch::Batch;
use crate::error::TaskError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use streamjob_protocol::manifest::KeyGroupRange;
use streamjob_state::{Cut, KeyedRows, StateCut};

/// Who an operator instance is.
#[derive(Debug, Clone)]
pub struct OperatorContext {
    pub job_name: String,
    pub job_id: String,
    pub uid: String,
    pub name: String,
    pub subtask: u32,
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// The key groups this subtask owns.
    pub key_groups: KeyGroupRange,
    /// Unique to this deployment of this task over all processes: names of uncommitted things contain it.
    pub attempt: String,
    /// Checkpointing is on, so commits wait for checkpoints; otherwise sinks commit when they finish.
    pub checkpointing: bool,
    pub metrics: Arc<OperatorMetrics>,
}

/// Counters of one operator instance, read by the worker's `/metrics`.
#[derive(Debug)]
pub struct OperatorMetrics {
    pub records_in: AtomicU64,
    pub records_out: AtomicU64,
    /// Rows that could not be parsed and were skipped because the format says so.
    pub records_skipped: AtomicU64,
    /// Rows behind the watermark that a window dropped.
    pub late_records_dropped: AtomicU64,
    /// Keys held in memory by the operator's tables.
    pub state_rows: AtomicU64,
    /// Milliseconds since the epoch; `i64::MIN` before the first.
    pub watermark: AtomicI64,
}

impl Default for OperatorMetrics {
    fn default() -> Self {
        OperatorMetrics {
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            records_skipped: AtomicU64::new(0),
            late_records_dropped: AtomicU64::new(0),
            state_rows: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
        }
    }
}

impl OperatorMetrics {
    pub fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// State given back to an operator before `open` returns; empty for a new one.
#[derive(Debug, Clone, Default)]
pub struct OperatorRestore {
    /// The job continues from this checkpoint (the operator's part of it may still be empty). Whatever a later checkpoint
    /// made visible belongs to a history that did not happen.
    pub checkpoint: Option<u64>,
    /// By table name: rows of this subtask's key groups, in the order to apply.
    pub keyed: BTreeMap<String, Vec<KeyedRows>>,
    /// By state name.
    pub lists: BTreeMap<String, Vec<serde_json::Value>>,
}

/// Where an operator's output goes. `emit` may block for back-pressure and fails with `Cancelled` when the task is told to stop.
pub trait Collector {
    fn emit(&mut self, batch: Batch) -> Result<(), TaskError>;
    /// Only for operators that make watermarks; the runtime forwards watermarks of all others.
    fn emit_watermark(&mut self, watermark: i64) -> Result<(), TaskError>;
    /// Only for operators that make watermarks: this input has nothing to say for now (`true`) or again has (`false`).
    fn emit_idle(&mut self, idle: bool) -> Result<(), TaskError>;
}

/// A transformation or a sink.
pub trait Operator: Send {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError>;

    /// `input` numbers the operator's logical inputs (0 unless it joins).
    fn process(&mut self, input: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError>;

    /// Event time advanced: fire what is due. The runtime forwards the watermark afterwards, unless `makes_watermarks`.
    fn on_watermark(&mut self, _watermark: i64, _out: &mut dyn Collector) -> Result<(), TaskError> {
        Ok(())
    }

    /// The operator sends watermarks itself; those that arrive are not forwarded.
    fn makes_watermarks(&self) -> bool {
        false
    }

    /// Unix milliseconds at which `on_processing_time` wants to be called, if any.
    fn next_processing_time(&self) -> Option<i64> {
        None
    }

    fn on_processing_time(&mut self, _now: i64, _out: &mut dyn Collector) -> Result<(), TaskError> {
        Ok(())
    }

    /// Work before a barrier goes downstream: emit what is buffered, close what will be committed.
    fn before_barrier(&mut self, _checkpoint: u64, _out: &mut dyn Collector) -> Result<(), TaskError> {
        Ok(())
    }

    /// Cut the state of this moment. No I/O; O(changed) for changes. An operator may answer changes with whole tables.
    fn snapshot(&mut self, _checkpoint: u64, _cut: Cut) -> Result<StateCut, TaskError> {
        Ok(StateCut::default())
    }

    /// The checkpoint is in the journal: make visible what belongs to it and to all before it. Must be idempotent.
    fn checkpoint_complete(&mut self, _checkpoint: u64) -> Result<(), TaskError> {
        Ok(())
    }

    fn checkpoint_aborted(&mut self, _checkpoint: u64) -> Result<(), TaskError> {
        Ok(())
    }

    /// All inputs ended: emit what is left. Sinks commit here only if `checkpointing` is off.
    fn finish(&mut self, _out: &mut dyn Collector) -> Result<(), TaskError> {
        Ok(())
    }
}

/// What a source has to say when polled.
#[derive(Debug)]
pub enum SourceEvent {
    Batch(Batch),
    /// Nothing now; poll again after at most this long.
    Wait(Duration),
    /// Bounded input is exhausted.
    End,
}

/// Reads from outside. Its position is list state; `poll` returns within tens of milliseconds.
pub trait Source: Send {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError>;
    fn poll(&mut self, now_unix_ms: i64) -> Result<SourceEvent, TaskError>;
    fn snapshot(&mut self, checkpoint: u64) -> Result<StateCut, TaskError>;
    fn checkpoint_complete(&mut self, _checkpoint: u64) -> Result<(), TaskError> {
        Ok(())
    }
}

pub enum Instance {
    Source(Box<dyn Source>),
    Operator(Box<dyn Operator>),
}
