//! The operator that filters and projects.

use crate::program::{Output, Program, Stage};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::{FilterBuilder, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use datafusion_common::DataFusionError;
use std::sync::Arc;
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorRestore, TaskError};

pub struct Calc {
    program: Arc<Program>,
}

impl Calc {
    pub fn new(program: Arc<Program>) -> Self {
        Calc { program }
    }
}

impl Operator for Calc {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        match self.program.run(&batch)? {
            Some(batch) => out.emit(batch),
            None => Ok(()),
        }
    }
}

/// Evaluating failed for the data at hand, for example a division by zero.
pub fn evaluation_error(error: DataFusionError) -> TaskError {
    TaskError::Data(format!("evaluating an expression: {}", error.strip_backtrace()))
}

impl Program {
    /// The rows that pass, projected; `None` if there are none.
    pub fn run(&self, batch: &Batch) -> Result<Option<Batch>, TaskError> {
        let rows = batch.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut registers = Vec::with_capacity(self.before.registers().fields().len());
        for leaf in &self.leaves {
            let mut column = Arc::clone(batch.rows.column(leaf.column));
            for field in &leaf.fields {
                let Some(row) = column.as_any().downcast_ref::<StructArray>() else {
                    return Err(TaskError::Fatal(format!("column {} is not a ROW", leaf.column)));
                };
                column = crate::functions::take_field(row, field).map_err(evaluation_error)?;
            }
            registers.push(column);
        }
        run_steps(&self.before, &mut registers, rows)?;
        let (registers, kinds, rows) = match &self.predicate {
            None => (self.keep(&registers), batch.kinds.clone(), rows),
            Some(predicate) => {
                let input = record_batch(self.before.registers(), registers.clone(), rows)?;
                let mask =
                    predicate.evaluate(&input).and_then(|mask| mask.into_array(rows)).map_err(evaluation_error)?;
                let Some(mask) = mask.as_any().downcast_ref::<BooleanArray>() else {
                    return Err(TaskError::Fatal("the condition of a filter is not a BOOLEAN".into()));
                };
                let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
                match mask.true_count() {
                    0 => return Ok(None),
                    passed if passed == rows => (self.keep(&registers), batch.kinds.clone(), rows),
                    passed => (self.filter(&registers, &mask)?, filter_kinds(batch, &mask), passed),
                }
            }
        };
        self.project(registers, kinds, rows).map(Some)
    }

    fn keep(&self, registers: &[ArrayRef]) -> Vec<ArrayRef> {
        self.kept.iter().map(|index| Arc::clone(&registers[*index])).collect()
    }

    fn filter(&self, registers: &[ArrayRef], mask: &BooleanArray) -> Result<Vec<ArrayRef>, TaskError> {
        let filter = FilterBuilder::new(mask);
        // Finding the runs once pays off with the second column.
        let filter = if self.kept.len() > 1 { filter.optimize() } else { filter }.build();
        let columns = self.kept.iter().map(|index| filter.filter(&registers[*index]));
        Ok(columns.collect::<Result<Vec<_>, _>>()?)
    }

    fn project(&self, mut registers: Vec<ArrayRef>, kinds: Option<Arc<[u8]>>, rows: usize) -> Result<Batch, TaskError> {
        run_steps(&self.after, &mut registers, rows)?;
        let computes = self.outputs.iter().any(|output| matches!(output, Output::Computed(_)));
        let input = if computes { Some(record_batch(self.after.registers(), registers.clone(), rows)?) } else { None };
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (output, field) in self.outputs.iter().zip(self.schema.fields()) {
            let column = match (output, &input) {
                (Output::Register(index), _) => Arc::clone(&registers[*index]),
                (Output::Computed(expr), Some(input)) => {
                    expr.evaluate(input).and_then(|value| value.into_array(rows)).map_err(evaluation_error)?
                }
                (Output::Computed(_), None) => return Err(TaskError::Fatal("a projection lost its input".into())),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(TaskError::Data(format!(
                    "column '{}' is NOT NULL, but a row has no value for it; filter such rows out or allow NULL",
                    field.name()
                )));
            }
            columns.push(column);
        }
        Ok(Batch { rows: record_batch(&self.schema, columns, rows)?, kinds })
    }
}

fn run_steps(stage: &Stage, registers: &mut Vec<ArrayRef>, rows: usize) -> Result<(), TaskError> {
    for (step, schema) in stage.steps.iter().zip(&stage.schemas) {
        let input = record_batch(schema, registers.clone(), rows)?;
        registers.push(step.evaluate(&input).and_then(|value| value.into_array(rows)).map_err(evaluation_error)?);
    }
    Ok(())
}

fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, TaskError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn filter_kinds(batch: &Batch, mask: &BooleanArray) -> Option<Arc<[u8]>> {
    let kinds = batch.kinds.as_ref()?;
    Some(kinds.iter().zip(mask.values().iter()).filter(|(_, passes)| *passes).map(|(kind, _)| *kind).collect())
}
