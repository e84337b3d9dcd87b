//! What the tests of operators share: a collector, contexts, state that goes through files.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_dataflow::{Batch, Collector, OperatorContext, OperatorMetrics, OperatorRestore, TaskError};
use streamjob_protocol::manifest::KeyGroupRange;
use streamjob_state::StateCut;
use streamjob_state::snapshot::{self, Compression};

pub(crate) const MAX_PARALLELISM: u32 = 16;
pub(crate) const ALL: KeyGroupRange = KeyGroupRange { first: 0, last: 15 };

#[derive(Default)]
pub(crate) struct Collected(pub Vec<Batch>);

impl Collector for Collected {
    fn emit(&mut self, batch: Batch) -> Result<(), TaskError> {
        assert!(!batch.is_empty(), "an empty batch was emitted");
        self.0.push(batch);
        Ok(())
    }

    fn emit_watermark(&mut self, _watermark: i64) -> Result<(), TaskError> {
        panic!("these operators make no watermarks")
    }

    fn emit_idle(&mut self, _idle: bool) -> Result<(), TaskError> {
        panic!("these operators make no idleness")
    }
}

impl Collected {
    /// Kind and values of every row, in order.
    pub fn changes(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut rows = Vec::new();
        for batch in &self.0 {
            for (row, values) in texts(&batch.rows).into_iter().enumerate() {
                rows.push((batch.kind(row).symbol(), values));
            }
        }
        rows
    }

    /// Rows as `+I a b c`.
    pub fn lines(&self) -> Vec<String> {
        self.changes().into_iter().map(|(kind, values)| format!("{kind} {}", values.join(" "))).collect()
    }
}

pub(crate) fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()).collect()
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

pub(crate) fn context(key_groups: KeyGroupRange) -> OperatorContext {
    OperatorContext {
        job_name: "job".into(),
        job_id: "id".into(),
        uid: "uid".into(),
        name: "operator".into(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: MAX_PARALLELISM,
        key_groups,
        attempt: "1".into(),
        checkpointing: true,
        metrics: Arc::new(OperatorMetrics::default()),
    }
}

/// State as checkpoints keep it: files of base and deltas by table.
#[derive(Clone, Default)]
pub(crate) struct Files {
    tables: BTreeMap<String, Vec<Bytes>>,
    lists: BTreeMap<String, Vec<serde_json::Value>>,
}

impl Files {
    pub fn add(&mut self, cut: StateCut) {
        for delta in cut.keyed {
            let bytes = snapshot::in_memory(|out| snapshot::encode(&delta, ALL, Compression::None, out)).unwrap();
            let files = self.tables.entry(delta.name).or_default();
            if delta.full {
                files.clear();
            }
            files.push(bytes);
        }
        self.lists = cut.lists.into_iter().map(|list| (list.name, list.entries)).collect();
    }

    pub fn compact(&mut self) {
        for files in self.tables.values_mut() {
            *files = vec![snapshot::in_memory(|out| snapshot::compact(files, Compression::None, out)).unwrap()];
        }
    }

    pub fn restore(&self, range: KeyGroupRange) -> OperatorRestore {
        let mut restore = OperatorRestore { lists: self.lists.clone(), ..OperatorRestore::default() };
        restore.checkpoint = Some(1);
        for (name, files) in &self.tables {
            let rows = files.iter().flat_map(|file| snapshot::decode(file.clone(), range).unwrap());
            restore.keyed.insert(name.clone(), rows.collect());
        }
        restore
    }

    /// Rows that files hold, applied.
    pub fn rows(&self, table: &str) -> Vec<Vec<String>> {
        let mut rows = texts(&snapshot::read_table(&self.tables[table]).unwrap());
        rows.sort();
        rows
    }

    /// Rows of the newest file of a table, removed ones included.
    pub fn newest_rows(&self, table: &str) -> usize {
        let newest = self.tables[table].last().unwrap().clone();
        snapshot::decode(newest, ALL).unwrap().iter().map(|part| part.rows.num_rows()).sum()
    }
}
