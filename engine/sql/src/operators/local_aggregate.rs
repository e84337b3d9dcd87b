//! Aggregation of one batch before rows are exchanged by key: fewer rows travel, and busy keys do not pile up at one
//! consumer. Keeps nothing from batch to batch, so it has no state.

use crate::functions::WindowSpec;
use crate::operators::aggregates::{AggregateCall, partial_schema};
use crate::operators::group_aggregate::{batch_keys, key_fields, signs};
use crate::operators::key_table::KeyTable;
use crate::operators::window_rows::{event_windows, time_column_type, window_column};
use crate::operators::{AggregateInput, state_error};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorRestore, TaskError};

/// Batches that are passed on as they are after one that had few equal keys, before the next try.
const BATCHES_BETWEEN_TRIES: u32 = 31;

#[derive(Debug, Clone, PartialEq)]
pub struct LocalAggregateSpec {
    /// Inserted rows only.
    pub schema: SchemaRef,
    pub keys: Vec<usize>,
    /// Mergeable calls only, see [`AggregateCall::is_mergeable`].
    pub calls: Vec<AggregateCall>,
    /// Position of the time attribute and the windows over it, for window aggregations.
    pub window: Option<(usize, WindowSpec)>,
}

impl LocalAggregateSpec {
    fn input(&self) -> AggregateInput {
        AggregateInput::Rows { schema: self.schema.clone(), keys: self.keys.clone() }
    }

    /// Key columns; the window's end, if there are windows; partial results of the calls.
    pub fn output_schema(&self) -> Result<SchemaRef, TaskError> {
        let mut fields = key_fields(&self.input())?;
        if let Some((time, _)) = self.window {
            fields.push(Field::new("window_end", time_column_type(&self.schema, time)?, true));
        }
        partial_schema(fields, &self.calls)
    }

    /// What the aggregation behind the exchange gets.
    pub fn partials(&self) -> Result<AggregateInput, TaskError> {
        Ok(AggregateInput::Partials { schema: self.output_schema()?, keys: self.keys.len() })
    }
}

pub struct LocalAggregate {
    key_fields: Vec<Field>,
    output: SchemaRef,
    table: KeyTable,
    slots: Vec<u32>,
    all: Vec<u32>,
    skip: u32,
    spec: LocalAggregateSpec,
}

impl LocalAggregate {
    pub fn new(spec: LocalAggregateSpec) -> Result<LocalAggregate, TaskError> {
        if spec.calls.iter().any(|call| !call.is_mergeable()) {
            return Err(TaskError::Fatal("distinct aggregates have no partial results".into()));
        }
        let key_fields = key_fields(&spec.input())?;
        let types: Vec<DataType> = key_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(LocalAggregate {
            output: spec.output_schema()?,
            table: KeyTable::new(&types, &spec.calls, false, false)?,
            key_fields,
            slots: Vec::new(),
            all: Vec::new(),
            skip: 0,
            spec,
        })
    }

    fn aggregate(&mut self, batch: &RecordBatch, window_end: Option<i64>) -> Result<RecordBatch, TaskError> {
        let rows = batch.num_rows();
        let keys = batch_keys(batch, &self.spec.keys, &self.key_fields)?;
        self.table.clear();
        let (mut columns, found): (Vec<ArrayRef>, usize) = if self.skip > 0 {
            self.skip -= 1;
            self.slots.clear();
            self.slots.extend(0..rows as u32);
            self.table.aggregates.resize(rows);
            (keys, rows)
        } else {
            self.table.intern(&keys, rows, &mut self.slots, |_, _| {})?;
            let found = self.table.index.len();
            self.all.clear();
            self.all.extend(0..found as u32);
            if found * 4 > rows * 3 && rows >= 256 {
                self.skip = BATCHES_BETWEEN_TRIES;
            }
            (self.table.index.keys(&self.all).map_err(state_error)?, found)
        };
        self.table.update(&self.slots, None, batch)?;
        if found == rows {
            self.all.clear();
            self.all.extend(0..rows as u32);
        }
        if let (Some(end), Some((time, _))) = (window_end, self.spec.window) {
            columns.push(window_column(end, found, &time_column_type(&self.spec.schema, time)?)?);
        }
        columns.extend(self.table.aggregates.state(&self.all)?);
        let options = RecordBatchOptions::new().with_row_count(Some(found));
        Ok(RecordBatch::try_new_with_options(self.output.clone(), columns, &options)?)
    }
}

impl Operator for LocalAggregate {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        signs(&batch, false)?;
        let Some((time, window)) = self.spec.window else {
            let partials = self.aggregate(&batch.rows, None)?;
            return out.emit(Batch::inserts(partials));
        };
        let mut partials = Vec::new();
        for part in event_windows(&batch.rows, time, window)? {
            let (end, rows) = (part.end, part.rows);
            partials.push(match rows {
                None => self.aggregate(&batch.rows, Some(end))?,
                Some(rows) => self.aggregate(&take_record_batch(&batch.rows, &UInt32Array::from(rows))?, Some(end))?,
            });
        }
        out.emit(Batch::inserts(match partials.as_slice() {
            [only] => only.clone(),
            several => concat_batches(&self.output, several)?,
        }))
    }
}

#[cfg(test)]
mod tests;
