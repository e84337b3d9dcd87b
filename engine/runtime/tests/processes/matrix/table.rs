//! A table of keyed state for the matrix's operators: integers only, the first column decides where a row belongs.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use streamjob_dataflow::{OperatorContext, OperatorRestore, TaskError};
use streamjob_protocol::plan::StateTable;
use streamjob_state::{Cut, KeyedDelta, keys};

pub struct Table {
    name: &'static str,
    key_columns: usize,
    columns: &'static [&'static str],
    max_parallelism: u32,
    pub rows: BTreeMap<Vec<i64>, Vec<i64>>,
    changed: BTreeSet<Vec<i64>>,
}

impl Table {
    pub fn new(name: &'static str, key_columns: usize, columns: &'static [&'static str]) -> Table {
        Table { name, key_columns, columns, max_parallelism: 0, rows: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// What a plan says of it.
    pub fn plan(&self) -> StateTable {
        let column = |(index, name): (usize, &&str)| {
            format!("{name} Int64{}", if index < self.key_columns { " KEY" } else { "" })
        };
        StateTable::keyed(self.name, self.columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", "))
    }

    /// Takes what was stored; a row of somebody else's key group is an error.
    pub fn open(&mut self, context: &OperatorContext, restore: &OperatorRestore) -> Result<(), TaskError> {
        self.max_parallelism = context.max_parallelism;
        for part in restore.keyed.get(self.name).into_iter().flatten() {
            for group in self.key_groups(&part.rows) {
                if !(context.key_groups.first..=context.key_groups.last).contains(&group) {
                    return Err(TaskError::Fatal(format!("{}: key group {group} is not mine", self.name)));
                }
            }
            for (index, row) in rows_of(&part.rows).into_iter().enumerate() {
                let (key, values) = row.split_at(self.key_columns);
                if part.deleted.as_ref().is_some_and(|deleted| deleted.value(index)) {
                    self.rows.remove(key);
                } else {
                    self.rows.insert(key.to_vec(), values.to_vec());
                }
            }
        }
        Ok(())
    }

    pub fn put(&mut self, key: &[i64], values: &[i64]) {
        self.rows.insert(key.to_vec(), values.to_vec());
        self.changed.insert(key.to_vec());
    }

    /// Counts a value under the key, in columns `count` and `sum`.
    pub fn add(&mut self, key: &[i64], value: i64) {
        let (count, sum) = self.rows.get(key).map_or((0, 0), |values| (values[0], values[1]));
        self.put(key, &[count + 1, sum + value]);
    }

    pub fn remove(&mut self, key: &[i64]) -> Option<Vec<i64>> {
        self.changed.insert(key.to_vec());
        self.rows.remove(key)
    }

    pub fn cut(&mut self, cut: Cut) -> KeyedDelta {
        let changed = if cut == Cut::Copy { BTreeSet::new() } else { std::mem::take(&mut self.changed) };
        let full = cut != Cut::Changes;
        let keys: Vec<Vec<i64>> =
            if full { self.rows.keys().cloned().collect() } else { changed.into_iter().collect() };
        let deleted: Vec<bool> = keys.iter().map(|key| !self.rows.contains_key(key)).collect();
        let nothing = vec![0; self.columns.len() - self.key_columns];
        let rows = keys.iter().map(|key| [key.as_slice(), self.rows.get(key).unwrap_or(&nothing)].concat());
        let rows = batch(self.columns, &rows.collect::<Vec<_>>());
        let deleted = deleted.contains(&true).then(|| BooleanArray::from(deleted));
        let key_groups = self.key_groups(&rows);
        KeyedDelta { name: self.name.into(), full, key_columns: self.key_columns, rows, key_groups, deleted }
    }

    fn key_groups(&self, rows: &RecordBatch) -> Vec<u16> {
        let mut key_groups = Vec::new();
        keys::key_groups(&rows.columns()[..1], self.max_parallelism, &mut key_groups).unwrap();
        key_groups
    }
}

pub fn batch(columns: &[&str], rows: &[Vec<i64>]) -> RecordBatch {
    let column = |(index, name): (usize, &&str)| {
        let values = Int64Array::from_iter_values(rows.iter().map(|row| row[index]));
        (name.to_string(), Arc::new(values) as ArrayRef)
    };
    RecordBatch::try_from_iter(columns.iter().enumerate().map(column)).unwrap()
}

pub fn rows_of(batch: &RecordBatch) -> Vec<Vec<i64>> {
    let columns: Vec<_> = batch.columns().iter().map(|column| column.as_primitive::<Int64Type>()).collect();
    (0..batch.num_rows())
        .map(|row| {
            assert!(columns.iter().all(|column| column.is_valid(row)));
            columns.iter().map(|column| column.value(row)).collect()
        })
        .collect()
}
