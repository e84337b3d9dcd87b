//! `COUNT(DISTINCT x)`: how often each value occurs with each key, and how many of them occur at all.

use super::count::Count;
use super::{Accumulator, Rows, gather, key_columns};
use crate::operators::state_error;
use crate::operators::state_tables::{Changes, Part};
use arrow::array::AsArray;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use std::sync::Arc;
use streamjob_dataflow::TaskError;
use streamjob_state::{Cut, KeyIndex, StateError};

pub(crate) struct DistinctCount {
    /// By slot of the key: values that occur.
    counts: Count,
    values: DistinctValues,
    slots: Vec<u32>,
}

/// Occurrences of values by (slot of the key, value): a state table of its own.
pub(crate) struct DistinctValues {
    index: KeyIndex,
    /// By slot of the pair. Below zero while more was taken back than given.
    occurrences: Vec<i64>,
    /// By slot of the key: its pairs.
    pairs: Vec<u32>,
    changes: Changes,
    tombstones: Vec<Part>,
    retractable: bool,
}

impl DistinctCount {
    pub fn new(argument: &DataType, retractable: bool, tracked: bool) -> Result<DistinctCount, StateError> {
        let values = DistinctValues {
            index: KeyIndex::owned(std::slice::from_ref(argument))?,
            occurrences: Vec::new(),
            pairs: Vec::new(),
            changes: Changes::new(tracked),
            tombstones: Vec::new(),
            retractable,
        };
        Ok(DistinctCount { counts: Count::default(), values, slots: Vec::new() })
    }

    pub fn counts(&self) -> &dyn Accumulator {
        &self.counts
    }

    pub fn counts_mut(&mut self) -> &mut dyn Accumulator {
        &mut self.counts
    }

    pub fn values(&self) -> &DistinctValues {
        &self.values
    }

    pub fn values_mut(&mut self) -> &mut DistinctValues {
        &mut self.values
    }

    pub fn update(&mut self, rows: Rows<'_>, argument: &ArrayRef, index: &KeyIndex) -> Result<(), TaskError> {
        let (gathered, owners, signs);
        let (argument, owners, signs): (&ArrayRef, &[u32], Option<&[i8]>) = match rows.selected {
            None => (argument, rows.slots, rows.signs),
            Some(selected) => {
                gathered = gather(argument, selected)?;
                owners = selected.iter().map(|&row| rows.slots[row as usize]).collect::<Vec<u32>>();
                signs = rows.signs.map(|signs| selected.iter().map(|&row| signs[row as usize]).collect::<Vec<i8>>());
                (&gathered, &owners, signs.as_deref())
            }
        };
        let mut added = self.values.intern(owners, argument, &mut self.slots)?;
        if !self.values.retractable {
            for pair in added.drain(..) {
                self.values.occurrences[pair as usize] = 1;
                self.values.changes.touch(pair);
                self.counts.add(self.values.index.owner(pair), 1);
            }
            return Ok(());
        }
        let mut gone = Vec::new();
        for (row, &pair) in self.slots.iter().enumerate() {
            let sign = signs.map_or(1, |signs| signs[row]) as i64;
            let occurrences = &mut self.values.occurrences[pair as usize];
            let before = *occurrences;
            *occurrences += sign;
            match (before > 0, *occurrences > 0) {
                (false, true) => self.counts.add(owners[row], 1),
                (true, false) => self.counts.add(owners[row], -1),
                _ => {}
            }
            if *occurrences == 0 {
                gone.push(pair);
            }
            self.values.changes.touch(pair);
        }
        gone.retain(|&pair| self.values.occurrences[pair as usize] == 0);
        gone.sort_unstable();
        gone.dedup();
        self.values.remove(&gone, index)
    }
}

impl DistinctValues {
    pub fn value_type(&self) -> &DataType {
        &self.index.types()[0]
    }

    pub fn rows(&self) -> usize {
        self.index.len()
    }

    /// Rows of the next cut of changes, about.
    pub fn changed_rows(&self) -> usize {
        self.changes.count()
    }

    /// Slots of pairs, and which of them are new.
    fn intern(&mut self, owners: &[u32], values: &ArrayRef, slots: &mut Vec<u32>) -> Result<Vec<u32>, TaskError> {
        let mut added = Vec::new();
        let columns = std::slice::from_ref(values);
        self.index.intern_owned(owners, columns, slots, |slot, _| added.push(slot)).map_err(state_error)?;
        let count = self.index.slot_count();
        self.occurrences.resize(count, 0);
        self.changes.resize(count);
        for &pair in &added {
            let owner = self.index.owner(pair) as usize;
            if self.pairs.len() <= owner {
                self.pairs.resize(owner + 1, 0);
            }
            self.pairs[owner] += 1;
            self.occurrences[pair as usize] = 0;
        }
        Ok(added)
    }

    /// Forgets pairs, remembering those that a checkpoint holds.
    fn remove(&mut self, pairs: &[u32], index: &KeyIndex) -> Result<(), TaskError> {
        let mut persisted = Vec::new();
        for &pair in pairs {
            if self.changes.forget(pair) {
                persisted.push(pair);
            }
        }
        if !persisted.is_empty() {
            let part = self.keys(&persisted, index)?;
            self.tombstones.push(part);
        }
        for &pair in pairs {
            self.pairs[self.index.owner(pair) as usize] -= 1;
            self.index.remove(pair);
        }
        Ok(())
    }

    /// The key disappears: whatever pairs it still has go with it. Normally all were taken back before.
    pub fn forget_owner(&mut self, owner: u32, index: &KeyIndex) -> Result<(), TaskError> {
        if self.pairs.get(owner as usize).is_none_or(|pairs| *pairs == 0) {
            return Ok(());
        }
        let mut pairs = self.index.live_slots();
        pairs.retain(|&pair| self.index.owner(pair) == owner);
        self.remove(&pairs, index)
    }

    /// Key columns, value column.
    fn keys(&self, pairs: &[u32], index: &KeyIndex) -> Result<Part, TaskError> {
        let owners: Vec<u32> = pairs.iter().map(|&pair| self.index.owner(pair)).collect();
        let mut columns = key_columns(index, &owners)?;
        columns.extend(key_columns(&self.index, pairs)?);
        Ok(Part { columns, hashes: owners.iter().map(|&owner| index.hash(owner)).collect() })
    }

    /// Rows for a checkpoint: removed pairs, then pairs with their occurrences.
    pub fn cut(&mut self, cut: Cut, index: &KeyIndex) -> Result<(Vec<Part>, Part), TaskError> {
        let (removed, pairs) = self.changes.cut(cut, &mut self.tombstones, &self.index);
        let mut part = self.keys(&pairs, index)?;
        let occurrences = pairs.iter().map(|&pair| self.occurrences[pair as usize]);
        part.columns.push(Arc::new(Int64Array::from_iter_values(occurrences)));
        Ok((removed, part))
    }

    /// Tombstones of everything that checkpoints hold, when the whole table goes.
    pub fn bury(&mut self, index: &KeyIndex) -> Result<Vec<Part>, TaskError> {
        let mut removed = std::mem::take(&mut self.tombstones);
        let mut pairs = self.index.live_slots();
        pairs.retain(|&pair| self.changes.is_persisted(pair));
        if !pairs.is_empty() {
            removed.push(self.keys(&pairs, index)?);
        }
        Ok(removed)
    }

    pub fn restore(&mut self, owners: &[u32], values: &ArrayRef, occurrences: &ArrayRef) -> Result<(), TaskError> {
        let mut slots = Vec::new();
        self.intern(owners, values, &mut slots)?;
        for (&pair, &count) in slots.iter().zip(occurrences.as_primitive::<Int64Type>().values().iter()) {
            self.occurrences[pair as usize] = count;
        }
        self.changes.persisted(&slots);
        Ok(())
    }
}
