//! What grouping operators share about their state tables: which slots changed, rows on their way into a checkpoint, and
//! rows that come back from one.

use crate::operators::state_error;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{concat, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use streamjob_dataflow::TaskError;
use streamjob_protocol::plan::StateTable;
use streamjob_state::keys::key_group;
use streamjob_state::snapshot::schema_text;
use streamjob_state::{Cut, KeyIndex, KeyedDelta, KeyedRows};

const LISTED: u8 = 1;
const PERSISTED: u8 = 2;

/// Slots that changed since the last cut, and those whose key some checkpoint holds. Does nothing unless `tracked`.
///
/// Changes come by [`Changes::touch`], or by [`Changes::list`] from an owner who knows what is listed; never both ways.
#[derive(Debug)]
pub(crate) struct Changes {
    tracked: bool,
    flags: Vec<u8>,
    listed: Vec<u32>,
    /// A slot may be in the list more than once.
    repeated: bool,
}

impl Changes {
    pub fn new(tracked: bool) -> Changes {
        Changes { tracked, flags: Vec::new(), listed: Vec::new(), repeated: false }
    }

    pub fn is_tracked(&self) -> bool {
        self.tracked
    }

    pub fn resize(&mut self, slots: usize) {
        if self.tracked && self.flags.len() < slots {
            self.flags.resize(slots, 0);
        }
    }

    #[inline(always)]
    pub fn touch(&mut self, slot: u32) {
        if !self.tracked {
            return;
        }
        let flags = &mut self.flags[slot as usize];
        if *flags & LISTED == 0 {
            *flags |= LISTED;
            self.listed.push(slot);
        }
    }

    /// Like [`Changes::touch`], for slots that are not in the list yet.
    pub fn list(&mut self, slots: &[u32]) {
        if self.tracked {
            self.listed.extend_from_slice(slots);
        }
    }

    /// The owner lists slots again that may be in the list.
    pub fn expect_repetition(&mut self) {
        self.repeated = true;
    }

    /// The key of the slot goes; says whether a checkpoint holds it. The slot stays listed: another key may take it.
    pub fn forget(&mut self, slot: u32) -> bool {
        let Some(flags) = self.flags.get_mut(slot as usize) else { return false };
        let persisted = *flags & PERSISTED != 0;
        *flags &= !PERSISTED;
        self.repeated |= *flags & LISTED == 0;
        persisted
    }

    pub fn is_persisted(&self, slot: u32) -> bool {
        self.flags.get(slot as usize).is_some_and(|flags| flags & PERSISTED != 0)
    }

    pub fn persisted(&mut self, slots: &[u32]) {
        if self.tracked {
            for &slot in slots {
                self.flags[slot as usize] |= PERSISTED;
            }
        }
    }

    /// Rows of the next cut of changes, about.
    pub fn count(&self) -> usize {
        self.listed.len()
    }

    /// What a cut of the table with this index consists of: rows of removed keys, and slots of keys that are there.
    pub fn cut(&mut self, cut: Cut, tombstones: &mut Vec<Part>, index: &KeyIndex) -> (Vec<Part>, Vec<u32>) {
        match cut {
            Cut::Copy => (Vec::new(), index.live_slots()),
            Cut::Whole => {
                self.forget_list();
                tombstones.clear();
                let slots = index.live_slots();
                self.persisted(&slots);
                (Vec::new(), slots)
            }
            Cut::Changes => {
                let mut slots = self.listed.clone();
                if self.repeated {
                    slots.sort_unstable();
                    slots.dedup();
                }
                slots.retain(|&slot| index.is_live(slot));
                self.forget_list();
                self.persisted(&slots);
                (std::mem::take(tombstones), slots)
            }
        }
    }

    /// Begins a new list, which is likely to become as long.
    fn forget_list(&mut self) {
        if self.listed.len() * 8 > self.flags.len() {
            // In the order of memory.
            self.flags.iter_mut().for_each(|flags| *flags &= !LISTED);
        } else {
            self.listed.iter().for_each(|&slot| self.flags[slot as usize] &= !LISTED);
        }
        self.listed.clear();
        self.repeated = false;
    }
}

/// Decides what an operator hands out where a checkpoint asks for changes.
#[derive(Debug, Default)]
pub(crate) struct CutChoice {
    /// Rows in cuts of changes since the last whole cut.
    since_whole: usize,
}

impl CutChoice {
    /// The cut to make of tables with `rows` rows, of which `changed` changed or went, about. A whole one instead of one of
    /// changes when it is hardly bigger, or when the changes since the last whole one outweigh it: it ends the chain of
    /// files that a restore reads, and nobody has to merge that chain from storage.
    pub fn choose(&mut self, asked: Cut, rows: usize, changed: usize) -> Cut {
        let cut = match asked {
            Cut::Changes if changed * 2 > rows || self.since_whole + changed > rows * 2 => Cut::Whole,
            other => other,
        };
        match cut {
            Cut::Changes => self.since_whole += changed,
            Cut::Whole => self.since_whole = 0,
            Cut::Copy => {}
        }
        cut
    }

    /// The next cut of changes is a whole one: what is stored has another form, which changes cannot be relative to.
    pub fn begin_anew(&mut self) {
        self.since_whole = usize::MAX / 2;
    }
}

/// Rows of a state table, and the hash of each row's group. Of removed rows only the key columns.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub columns: Vec<ArrayRef>,
    pub hashes: Vec<u64>,
}

impl Part {
    pub fn rows(&self) -> usize {
        self.hashes.len()
    }
}

/// Name and columns of a state table.
#[derive(Debug, Clone)]
pub(crate) struct TableLayout {
    pub name: String,
    pub schema: SchemaRef,
    pub key_columns: usize,
}

impl TableLayout {
    /// What the planner declares of the table before it exists.
    pub fn declared(&self) -> Result<StateTable, TaskError> {
        let empty = self.delta(true, &[], &[], 1)?;
        Ok(StateTable::keyed(&self.name, schema_text(&empty)))
    }

    /// Removed rows first: a key that came back has its row behind.
    pub fn delta(
        &self,
        full: bool,
        removed: &[Part],
        present: &[Part],
        max_parallelism: u32,
    ) -> Result<KeyedDelta, TaskError> {
        let removed_rows: usize = removed.iter().map(Part::rows).sum();
        let rows = removed_rows + present.iter().map(Part::rows).sum::<usize>();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (position, field) in self.schema.fields().iter().enumerate() {
            let mut pieces: Vec<ArrayRef> = Vec::new();
            for part in removed.iter().chain(present).filter(|part| part.rows() > 0) {
                match part.columns.get(position) {
                    Some(column) => pieces.push(column.clone()),
                    None => pieces.push(new_null_array(field.data_type(), part.rows())),
                }
            }
            columns.push(match pieces.as_slice() {
                [] => arrow::array::new_empty_array(field.data_type()),
                [only] => only.clone(),
                several => concat(&several.iter().map(|piece| piece.as_ref()).collect::<Vec<&dyn Array>>())?,
            });
        }
        let mut key_groups = Vec::with_capacity(rows);
        for part in removed.iter().chain(present) {
            for &hash in &part.hashes {
                key_groups.push(key_group(hash, max_parallelism));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(KeyedDelta {
            name: self.name.clone(),
            full,
            key_columns: self.key_columns,
            rows: RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?,
            key_groups,
            deleted: (removed_rows > 0).then(|| BooleanArray::from_iter((0..rows).map(|row| Some(row < removed_rows)))),
        })
    }

    /// Stored rows have the columns of this table and no others.
    pub fn fits(&self, chain: &[KeyedRows]) -> bool {
        chain.iter().all(|part| self.has_columns(&part.rows.schema()))
    }

    fn has_columns(&self, stored: &Schema) -> bool {
        let columns = |schema: &Schema| -> Vec<(String, DataType)> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        columns(stored) == columns(&self.schema)
    }

    /// The columns of this table out of stored ones: aggregates that the query no longer has are left behind.
    fn taken(&self, part: KeyedRows) -> Result<KeyedRows, TaskError> {
        let stored = part.rows.schema();
        if self.has_columns(&stored) {
            return Ok(part);
        }
        let mut places = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            match stored.column_with_name(field.name()) {
                Some((place, found)) if found.data_type() == field.data_type() => places.push(place),
                _ => {
                    return Err(TaskError::Fatal(format!(
                        "state table '{}' of the checkpoint has the columns {stored}, the job needs {}; undo the change of \
                         the query, or start it without this state",
                        self.name, self.schema
                    )));
                }
            }
        }
        Ok(KeyedRows { rows: part.rows.project(&places)?, ..part })
    }

    /// The rows that are left of a restored chain, in an order in which later ones replace earlier ones.
    /// Fails if the state lacks columns that the job needs.
    pub fn restored(&self, chain: Vec<KeyedRows>) -> Result<Vec<RecordBatch>, TaskError> {
        let chain = chain.into_iter().map(|part| self.taken(part)).collect::<Result<Vec<_>, _>>()?;
        if chain.iter().all(|part| part.deleted.is_none()) {
            return Ok(chain.into_iter().map(|part| part.rows).collect());
        }
        let types: Vec<DataType> =
            self.schema.fields().iter().take(self.key_columns).map(|field| field.data_type().clone()).collect();
        let mut index = KeyIndex::new(&types).map_err(state_error)?;
        let mut newest: Vec<(usize, usize)> = Vec::new();
        let mut slots = Vec::new();
        for (number, part) in chain.iter().enumerate() {
            let keys = &part.rows.columns()[..self.key_columns];
            index.intern_batch(keys, part.rows.num_rows(), &mut slots, |_, _| {}).map_err(state_error)?;
            newest.resize(index.slot_count(), (0, 0));
            for (row, &slot) in slots.iter().enumerate() {
                newest[slot as usize] = (number, row);
            }
        }
        let mut chosen: Vec<Vec<u32>> = vec![Vec::new(); chain.len()];
        for (number, row) in newest {
            let deleted = chain[number].deleted.as_ref().is_some_and(|deleted| deleted.value(row));
            if !deleted {
                chosen[number].push(row as u32);
            }
        }
        let mut batches = Vec::new();
        for (part, rows) in chain.iter().zip(chosen) {
            if !rows.is_empty() {
                batches.push(take_record_batch(&part.rows, &UInt32Array::from(rows))?);
            }
        }
        Ok(batches)
    }
}

/// Keys that a restored table will have, as far as that is known beforehand.
pub(crate) fn expected_keys(chain: &[KeyedRows]) -> usize {
    chain.iter().filter(|part| part.whole).map(|part| part.rows.num_rows()).sum()
}

/// Refuses restored tables that the operator does not have.
pub(crate) fn check_names<'a>(
    restored: impl Iterator<Item = &'a String>,
    known: &[TableLayout],
) -> Result<(), TaskError> {
    for name in restored {
        if !known.iter().any(|table| table.name == *name) {
            let known: Vec<&str> = known.iter().map(|table| table.name.as_str()).collect();
            return Err(TaskError::Fatal(format!(
                "the checkpoint has a state table '{name}' that the operator does not have; it has: {}",
                known.join(", ")
            )));
        }
    }
    Ok(())
}
