//! `GROUP BY` over an unbounded input: a result for every key, updated as rows arrive.
//!
//! Every batch is one step: each key that it touches emits at most one change, so a busy key costs one change a batch
//! instead of one a row. Changes that leave the result as it was are not emitted.

use crate::operators::aggregates::{AggregateCall, column};
use crate::operators::key_table::{KeyTable, TableRows};
use crate::operators::state_tables::{CutChoice, TableLayout, check_names, expected_keys};
use crate::operators::{AggregateInput, state_error};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{and, interleave, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use streamjob_dataflow::{
    Batch, Collector, Operator, OperatorContext, OperatorMetrics, OperatorRestore, RowKind, TaskError,
};
use streamjob_protocol::plan::StateTable;
use streamjob_state::{Cut, StateCut};

const TABLE: &str = "groups";

#[derive(Debug, Clone, PartialEq)]
pub struct GroupAggregateSpec {
    pub input: AggregateInput,
    /// May be empty: then the operator emits the distinct keys. Without keys there is one group, of all rows.
    pub calls: Vec<AggregateCall>,
    /// The input has -U and -D rows.
    pub retractable: bool,
    /// Emit -U rows before +U rows; consumers that know the key do without.
    pub emit_update_before: bool,
}

impl GroupAggregateSpec {
    /// Key columns with their names in the input, then a column for every call. Fails on calls that make no sense.
    pub fn output_schema(&self) -> Result<SchemaRef, TaskError> {
        let mut fields = key_fields(&self.input)?;
        for call in &self.calls {
            fields.push(Field::new(&call.name, call.result_type().map_err(TaskError::Fatal)?, true));
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}

/// Fields of the key columns of an input.
pub(crate) fn key_fields(input: &AggregateInput) -> Result<Vec<Field>, TaskError> {
    let schema = input.schema();
    let field = |position: usize| match schema.fields().get(position) {
        Some(field) => Ok(field.as_ref().clone()),
        None => Err(TaskError::Fatal(format!("key column {position} is not in the input"))),
    };
    input.keys().into_iter().map(field).collect()
}

pub struct GroupAggregate {
    spec: GroupAggregateSpec,
    keys: Vec<usize>,
    key_fields: Vec<Field>,
    output: SchemaRef,
    table: KeyTable,
    layouts: Vec<TableLayout>,
    choice: CutChoice,
    max_parallelism: u32,
    metrics: Arc<OperatorMetrics>,
    /// By slot: `stamp` once the batch at hand was seen to touch it, `stamp - 1` if it is new and was not seen yet.
    stamps: Vec<u32>,
    stamp: u32,
    /// The stamp at the last cut that ended the list of changes: slots with later ones are in the list of the next.
    cut_stamp: u32,
    slots: Vec<u32>,
    touched: Touched,
    /// Old results are never looked at: every row changes its group's result and nobody wants -U rows.
    blind: bool,
}

/// The distinct slots of a batch.
#[derive(Default)]
struct Touched {
    slots: Vec<u32>,
    first_rows: Vec<u32>,
    new: Vec<bool>,
    /// Those not touched before since the last cut.
    since_cut: Vec<u32>,
}

impl GroupAggregate {
    pub fn new(spec: GroupAggregateSpec) -> Result<GroupAggregate, TaskError> {
        if let AggregateInput::Partials { .. } = spec.input
            && (spec.retractable || spec.calls.iter().any(|call| !call.is_mergeable()))
        {
            return Err(TaskError::Fatal(
                "partial results cannot be merged for distinct calls or with retractions".into(),
            ));
        }
        let key_fields = key_fields(&spec.input)?;
        let output = spec.output_schema()?;
        let table = new_table(&spec, &key_fields, false)?;
        let always_changes = !spec.retractable && spec.calls.iter().any(AggregateCall::always_changes);
        Ok(GroupAggregate {
            keys: spec.input.keys(),
            layouts: table.layouts(TABLE, &key_fields, None),
            key_fields,
            output,
            table,
            choice: CutChoice::default(),
            max_parallelism: 1,
            metrics: Arc::default(),
            stamps: Vec::new(),
            stamp: 0,
            cut_stamp: 0,
            slots: Vec::new(),
            touched: Touched::default(),
            blind: always_changes && !spec.emit_update_before,
            spec,
        })
    }

    /// Every state that snapshots hold.
    pub fn state(&self) -> Result<Vec<StateTable>, TaskError> {
        self.layouts.iter().map(TableLayout::declared).collect()
    }

    /// Finds the slots of a batch, each once, in order of their first rows.
    fn find_slots(&mut self, keys: &[ArrayRef], rows: usize) -> Result<(), TaskError> {
        let (stamps, touched) = (&mut self.stamps, &mut self.touched);
        if self.stamp >= u32::MAX - 2 {
            stamps.fill(0);
            (self.stamp, self.cut_stamp) = (0, 0);
            self.table.expect_repetition();
        }
        let (new, seen) = (self.stamp + 1, self.stamp + 2);
        self.stamp = seen;
        self.table.intern(keys, rows, &mut self.slots, |slot, _| {
            if stamps.len() <= slot as usize {
                stamps.resize(slot as usize + 1, 0);
            }
            stamps[slot as usize] = new;
        })?;
        // Restored keys have no stamps yet.
        stamps.resize(self.table.index.slot_count(), 0);
        touched.slots.clear();
        touched.first_rows.clear();
        touched.new.clear();
        touched.since_cut.clear();
        let cut_stamp = self.cut_stamp;
        for (row, &slot) in self.slots.iter().enumerate() {
            let stamp = &mut stamps[slot as usize];
            if *stamp != seen {
                touched.slots.push(slot);
                touched.first_rows.push(row as u32);
                let is_new = *stamp == new;
                touched.new.push(is_new);
                if is_new || *stamp <= cut_stamp {
                    touched.since_cut.push(slot);
                }
                *stamp = seen;
            }
        }
        Ok(())
    }

    /// The changes of the batch that `touched` describes.
    fn changes(&self, keys: &[ArrayRef], old: Option<Vec<ArrayRef>>) -> Result<Option<Batch>, TaskError> {
        let touched = &self.touched;
        let new = self.table.aggregates.results(&touched.slots)?;
        let unchanged = match &old {
            Some(old) => equal_rows(old, &new, touched.slots.len())?,
            None => None,
        };
        let mut key_rows: Vec<u32> = Vec::with_capacity(touched.slots.len() * 2);
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(touched.slots.len() * 2);
        let mut kinds: Vec<u8> = Vec::with_capacity(touched.slots.len() * 2);
        let (was, is) = (0, if old.is_some() { 1 } else { 0 });
        for (at, &slot) in touched.slots.iter().enumerate() {
            let mut push = |side: usize, kind: RowKind| {
                key_rows.push(at as u32);
                places.push((side, at));
                kinds.push(kind as u8);
            };
            match (touched.new[at], self.table.is_vacant(slot)) {
                (true, true) => {}
                (true, false) => push(is, RowKind::Insert),
                (false, true) => push(was, RowKind::Delete),
                (false, false) => {
                    // Without calls there is nothing that could change.
                    if old.is_some() && unchanged.as_ref().is_none_or(|unchanged| unchanged.value(at)) {
                        continue;
                    }
                    if self.spec.emit_update_before {
                        push(was, RowKind::UpdateBefore);
                    }
                    push(is, RowKind::UpdateAfter);
                }
            }
        }
        if kinds.is_empty() {
            return Ok(None);
        }
        let mut columns = self.output_keys(keys, &key_rows)?;
        for (position, new) in new.iter().enumerate() {
            let sides: Vec<&dyn Array> = match &old {
                Some(old) => vec![old[position].as_ref(), new.as_ref()],
                None => vec![new.as_ref()],
            };
            columns.push(interleave(&sides, &places)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kinds.len()));
        let rows = RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?;
        Ok(Some(if kinds.iter().all(|kind| *kind == RowKind::Insert as u8) {
            Batch::inserts(rows)
        } else {
            Batch::changes(rows, kinds)
        }))
    }

    /// Key columns of output rows, given as positions in `touched`.
    fn output_keys(&self, keys: &[ArrayRef], positions: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        let inexact = |key: &ArrayRef| matches!(key.data_type(), DataType::Float32 | DataType::Float64);
        if keys.iter().any(inexact) {
            // Equal keys may look different (-0.0): the stored one is shown always.
            let slots: Vec<u32> = positions.iter().map(|&at| self.touched.slots[at as usize]).collect();
            return self.table.index.keys(&slots).map_err(state_error);
        }
        let rows: UInt32Array =
            UInt32Array::from_iter_values(positions.iter().map(|&at| self.touched.first_rows[at as usize]));
        keys.iter().map(|key| Ok(take(key, &rows, None)?)).collect()
    }
}

fn new_table(spec: &GroupAggregateSpec, keys: &[Field], tracked: bool) -> Result<KeyTable, TaskError> {
    let types: Vec<DataType> = keys.iter().map(|field| field.data_type().clone()).collect();
    KeyTable::new(&types, &spec.calls, spec.retractable, tracked)
}

/// Which rows are equal in all columns; `None` without columns.
fn equal_rows(old: &[ArrayRef], new: &[ArrayRef], rows: usize) -> Result<Option<BooleanArray>, TaskError> {
    let mut equal: Option<BooleanArray> = None;
    for (old, new) in old.iter().zip(new) {
        let column = not_distinct(old, new)?;
        equal = Some(match equal {
            None => column,
            Some(equal) => and(&equal, &column)?,
        });
    }
    debug_assert!(equal.as_ref().is_none_or(|equal| equal.len() == rows));
    Ok(equal)
}

/// The key columns of a batch, after checking their types.
pub(crate) fn batch_keys(
    batch: &RecordBatch,
    positions: &[usize],
    fields: &[Field],
) -> Result<Vec<ArrayRef>, TaskError> {
    let checked = |(position, field): (&usize, &Field)| column(batch, *position, field.data_type()).cloned();
    positions.iter().zip(fields).map(checked).collect()
}

impl Operator for GroupAggregate {
    fn open(&mut self, context: &OperatorContext, mut restore: OperatorRestore) -> Result<(), TaskError> {
        self.max_parallelism = context.max_parallelism;
        self.metrics = context.metrics.clone();
        self.table = new_table(&self.spec, &self.key_fields, context.checkpointing)?;
        check_names(restore.keyed.keys(), &self.layouts)?;
        let keys = self.key_fields.len();
        for (number, layout) in self.layouts.iter().enumerate() {
            let chain = restore.keyed.remove(&layout.name).unwrap_or_default();
            if !layout.fits(&chain) {
                self.choice.begin_anew();
            }
            if number == 0 {
                self.table.reserve(expected_keys(&chain));
            }
            for rows in layout.restored(chain)? {
                let (key_columns, state) = rows.columns().split_at(keys);
                match (number, state) {
                    (0, state) => self.table.restore(key_columns, state, rows.num_rows())?,
                    (_, [value, occurrences]) => {
                        self.table.restore_distinct(number - 1, key_columns, value, occurrences)?;
                    }
                    _ => return Err(TaskError::Fatal(format!("state table '{}' is not as expected", layout.name))),
                }
            }
        }
        self.metrics.state_rows.store(self.table.index.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        let rows = batch.len();
        if rows == 0 {
            return Ok(());
        }
        let keys = batch_keys(&batch.rows, &self.keys, &self.key_fields)?;
        let signs = signs(&batch, self.spec.retractable)?;
        self.find_slots(&keys, rows)?;
        let old = match self.blind {
            true => None,
            false => Some(self.table.aggregates.results(&self.touched.slots)?),
        };
        match &self.spec.input {
            AggregateInput::Rows { .. } => self.table.update(&self.slots, signs.as_deref(), &batch.rows)?,
            AggregateInput::Partials { keys, .. } => {
                self.table.aggregates.merge(&self.slots, &batch.rows.columns()[*keys..])?;
            }
        }
        self.table.touch_first(&self.touched.since_cut);
        let changes = self.changes(&keys, old)?;
        if self.spec.retractable {
            let vacant: Vec<u32> =
                self.touched.slots.iter().copied().filter(|&slot| self.table.is_vacant(slot)).collect();
            self.table.remove(&vacant)?;
        }
        self.metrics.state_rows.store(self.table.index.len() as u64, Ordering::Relaxed);
        match changes {
            Some(changes) => out.emit(changes),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self, _checkpoint: u64, cut: Cut) -> Result<StateCut, TaskError> {
        let cut = if cut == Cut::Changes && !self.table.is_tracked() { Cut::Whole } else { cut };
        let cut = self.choice.choose(cut, self.table.rows(), self.table.changed_rows());
        if cut != Cut::Copy {
            self.cut_stamp = self.stamp;
        }
        let mut keyed = Vec::with_capacity(self.layouts.len());
        for (layout, rows) in self.layouts.iter().zip(self.table.cut(cut)?) {
            let TableRows { removed, present } = rows;
            keyed.push(layout.delta(cut != Cut::Changes, &removed, &present, self.max_parallelism)?);
        }
        Ok(StateCut { keyed, lists: Vec::new() })
    }
}

/// +1 or -1 for every row; absent if all rows are inserts. Fails on retractions that were not planned.
pub(crate) fn signs(batch: &Batch, retractable: bool) -> Result<Option<Vec<i8>>, TaskError> {
    let Some(kinds) = &batch.kinds else { return Ok(None) };
    let signs: Vec<i8> =
        kinds.iter().map(|kind| if RowKind::from_byte(*kind).is_retraction() { -1 } else { 1 }).collect();
    if !retractable && kinds.iter().any(|kind| *kind != RowKind::Insert as u8) {
        return Err(TaskError::Fatal("an aggregation planned for inserted rows only got an update or a delete".into()));
    }
    Ok(retractable.then_some(signs))
}

#[cfg(test)]
mod tests;
