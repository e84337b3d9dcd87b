//! Keys with their aggregates: what a group aggregation has one of, and a window aggregation one of for each window.

use crate::operators::aggregates::{AggregateCall, AggregateSet};
use crate::operators::state_error;
use crate::operators::state_tables::{Changes, Part, TableLayout};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::sync::Arc;
use streamjob_dataflow::TaskError;
use streamjob_state::{Cut, KeyIndex};

pub(crate) struct KeyTable {
    pub index: KeyIndex,
    pub aggregates: AggregateSet,
    /// By slot: input rows minus those taken back; only for input that retracts.
    records: Option<Vec<i64>>,
    changes: Changes,
    tombstones: Vec<Part>,
}

/// Rows for a checkpoint, of the main table or of one distinct call.
#[derive(Debug, Default)]
pub(crate) struct TableRows {
    pub removed: Vec<Part>,
    pub present: Vec<Part>,
}

impl KeyTable {
    pub fn new(
        key_types: &[DataType],
        calls: &[AggregateCall],
        retractable: bool,
        tracked: bool,
    ) -> Result<KeyTable, TaskError> {
        Ok(KeyTable {
            index: KeyIndex::new(key_types).map_err(state_error)?,
            aggregates: AggregateSet::new(calls, retractable, tracked)?,
            records: retractable.then(Vec::new),
            changes: Changes::new(tracked),
            tombstones: Vec::new(),
        })
    }

    /// The main table's layout, then those of distinct calls. `window` is one more key column behind the group's keys.
    pub fn layouts(&self, name: &str, keys: &[Field], window: Option<&Field>) -> Vec<TableLayout> {
        let keys: Vec<Field> = keys.iter().chain(window).map(|field| field.clone().with_nullable(true)).collect();
        let mut fields = keys.clone();
        if self.records.is_some() {
            fields.push(Field::new("records", DataType::Int64, true));
        }
        fields.extend(self.aggregates.state_fields());
        let mut layouts =
            vec![TableLayout { name: name.into(), schema: Arc::new(Schema::new(fields)), key_columns: keys.len() }];
        for (call, values) in self.aggregates.distinct_values() {
            let mut fields = keys.clone();
            fields.push(Field::new("value", values.value_type().clone(), true));
            fields.push(Field::new("occurrences", DataType::Int64, true));
            layouts.push(TableLayout {
                name: format!("{name}-{call}"),
                schema: Arc::new(Schema::new(fields)),
                key_columns: keys.len() + 1,
            });
        }
        layouts
    }

    /// Slots of a batch's keys; new keys are announced with their first row.
    pub fn intern(
        &mut self,
        keys: &[ArrayRef],
        rows: usize,
        slots: &mut Vec<u32>,
        new: impl FnMut(u32, usize),
    ) -> Result<(), TaskError> {
        self.index.intern_batch(keys, rows, slots, new).map_err(state_error)?;
        self.resize(self.index.slot_count());
        Ok(())
    }

    /// Makes room for that many more keys at once.
    pub fn reserve(&mut self, keys: usize) {
        self.index.reserve(keys);
        self.resize(self.index.slot_count() + keys);
    }

    fn resize(&mut self, slots: usize) {
        self.aggregates.resize(slots);
        self.changes.resize(slots);
        if let Some(records) = &mut self.records
            && records.len() < slots
        {
            records.resize(slots, 0);
        }
    }

    /// Forgets all keys, without a trace in checkpoints.
    pub fn clear(&mut self) {
        self.index.clear();
        self.aggregates.clear();
    }

    /// Applies rows to the aggregates.
    pub fn update(&mut self, slots: &[u32], signs: Option<&[i8]>, batch: &RecordBatch) -> Result<(), TaskError> {
        if let Some(records) = &mut self.records {
            match signs {
                None => slots.iter().for_each(|&slot| records[slot as usize] += 1),
                Some(signs) => {
                    for (&slot, &sign) in slots.iter().zip(signs) {
                        records[slot as usize] += sign as i64;
                    }
                }
            }
        }
        self.aggregates.update(slots, signs, batch, &self.index)
    }

    /// Marks slots, listed once or more, as changed since the last cut.
    pub fn touch(&mut self, slots: &[u32]) {
        if self.changes.is_tracked() {
            for &slot in slots {
                self.changes.touch(slot);
            }
        }
    }

    /// Like [`KeyTable::touch`], for slots that were not touched since the last cut of changes or a whole one. An owner
    /// who keeps track of that saves a look at each slot.
    pub fn touch_first(&mut self, slots: &[u32]) {
        self.changes.list(slots);
    }

    /// The owner lost track: [`KeyTable::touch_first`] may get slots again.
    pub fn expect_repetition(&mut self) {
        self.changes.expect_repetition();
    }

    /// Changes are kept for checkpoints; otherwise every cut is a full one.
    pub fn is_tracked(&self) -> bool {
        self.changes.is_tracked()
    }

    /// Rows of a whole cut, of all layouts.
    pub fn rows(&self) -> usize {
        self.index.len() + self.aggregates.distinct_values().map(|(_, values)| values.rows()).sum::<usize>()
    }

    /// Rows of the next cut of changes, about.
    pub fn changed_rows(&self) -> usize {
        self.changes.count() + self.aggregates.distinct_values().map(|(_, values)| values.changed_rows()).sum::<usize>()
    }

    /// All rows of the key were taken back.
    pub fn is_vacant(&self, slot: u32) -> bool {
        self.records.as_ref().is_some_and(|records| records[slot as usize] <= 0)
    }

    /// Forgets keys, remembering those that a checkpoint holds.
    pub fn remove(&mut self, slots: &[u32]) -> Result<(), TaskError> {
        let mut persisted = Vec::new();
        for &slot in slots {
            self.aggregates.reset(slot, &self.index)?;
            if let Some(records) = &mut self.records {
                records[slot as usize] = 0;
            }
            if self.changes.forget(slot) {
                persisted.push(slot);
            }
        }
        if !persisted.is_empty() {
            let part = self.keys(&persisted)?;
            self.tombstones.push(part);
        }
        for &slot in slots {
            self.index.remove(slot);
        }
        Ok(())
    }

    fn keys(&self, slots: &[u32]) -> Result<Part, TaskError> {
        let columns = self.index.keys(slots).map_err(state_error)?;
        Ok(Part { columns, hashes: slots.iter().map(|&slot| self.index.hash(slot)).collect() })
    }

    /// What changed since the last cut, or everything; one entry a layout.
    pub fn cut(&mut self, cut: Cut) -> Result<Vec<TableRows>, TaskError> {
        let cut = if cut == Cut::Changes && !self.changes.is_tracked() { Cut::Whole } else { cut };
        let (removed, slots) = self.changes.cut(cut, &mut self.tombstones, &self.index);
        let mut part = self.keys(&slots)?;
        if let Some(records) = &self.records {
            let counts = slots.iter().map(|&slot| records[slot as usize]);
            part.columns.push(Arc::new(Int64Array::from_iter_values(counts)));
        }
        part.columns.extend(self.aggregates.state(&slots)?);
        let mut cuts = vec![TableRows { removed, present: vec![part] }];
        for (_, values) in self.aggregates.distinct_values_mut() {
            let (removed, present) = values.cut(cut, &self.index)?;
            cuts.push(TableRows { removed, present: vec![present] });
        }
        Ok(cuts)
    }

    /// The whole table goes: tombstones of what checkpoints hold of it, one entry a layout.
    pub fn bury(&mut self) -> Result<Vec<TableRows>, TaskError> {
        let mut removed = std::mem::take(&mut self.tombstones);
        if self.changes.is_tracked() {
            let mut slots = self.index.live_slots();
            slots.retain(|&slot| self.changes.is_persisted(slot));
            if !slots.is_empty() {
                removed.push(self.keys(&slots)?);
            }
        }
        let mut cuts = vec![TableRows { removed, present: Vec::new() }];
        for (_, values) in self.aggregates.distinct_values_mut() {
            cuts.push(TableRows { removed: values.bury(&self.index)?, present: Vec::new() });
        }
        Ok(cuts)
    }

    /// Rows of the main table: keys, then state. Replaces what is there.
    pub fn restore(&mut self, keys: &[ArrayRef], state: &[ArrayRef], rows: usize) -> Result<(), TaskError> {
        let mut slots = Vec::new();
        self.intern(keys, rows, &mut slots, |_, _| {})?;
        let mut state = state;
        if let Some(records) = &mut self.records {
            let Some((counts, rest)) = state.split_first() else {
                return Err(TaskError::Fatal("the state of an aggregation has no record counts".into()));
            };
            for (&slot, &count) in slots.iter().zip(counts.as_primitive::<Int64Type>().values().iter()) {
                records[slot as usize] = count;
            }
            state = rest;
        }
        self.aggregates.restore(&slots, state)?;
        self.changes.persisted(&slots);
        Ok(())
    }

    /// Rows of the value table of the distinct call that comes `position`th among distinct calls.
    pub fn restore_distinct(
        &mut self,
        position: usize,
        keys: &[ArrayRef],
        value: &ArrayRef,
        occurrences: &ArrayRef,
    ) -> Result<(), TaskError> {
        let (mut owners, mut strange) = (Vec::new(), false);
        self.index.intern_batch(keys, value.len(), &mut owners, |_, _| strange = true).map_err(state_error)?;
        if strange {
            return Err(TaskError::Fatal("the checkpoint has distinct values of keys that it does not have".into()));
        }
        match self.aggregates.distinct_values_mut().nth(position) {
            Some((_, values)) => values.restore(&owners, value, occurrences),
            None => {
                Err(TaskError::Fatal("the checkpoint has distinct values of an aggregate that is not there".into()))
            }
        }
    }
}
