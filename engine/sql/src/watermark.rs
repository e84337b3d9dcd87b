//! The operator behind a source that computes the time attribute and makes watermarks of it.
//!
//! A watermark follows every batch that advances it. Without rows for the idle timeout the input is declared idle.

use crate::program::Program;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
use std::sync::Arc;
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorRestore, TaskError};

pub struct WatermarkAssigner {
    /// Outputs the time attribute and the watermark of each row.
    program: Arc<Program>,
    /// The input's columns, with the time attribute behind them if it is computed.
    schema: SchemaRef,
    adds_column: bool,
    /// Milliseconds.
    idle_timeout: Option<u64>,
    current: i64,
    idle: bool,
    /// Rows came since the deadline was set.
    active: bool,
    /// Unix milliseconds of the next look for idleness; the clock is only seen there.
    deadline: Option<i64>,
}

impl WatermarkAssigner {
    pub fn new(program: Arc<Program>, schema: SchemaRef, adds_column: bool, idle_timeout: Option<u64>) -> Self {
        WatermarkAssigner {
            program,
            schema,
            adds_column,
            idle_timeout,
            current: i64::MIN,
            idle: false,
            active: false,
            // Due at once, which starts the clock.
            deadline: idle_timeout.map(|_| 0),
        }
    }
}

impl Operator for WatermarkAssigner {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        let Some(times) = self.program.run(&batch)? else { return Ok(()) };
        let time = Arc::clone(times.rows.column(0));
        if time.null_count() > 0 {
            return Err(TaskError::Data(format!(
                "the time attribute '{}' is null in a row; every row of a table with a WATERMARK needs a time",
                self.program.schema.field(0).name()
            )));
        }
        self.active = true;
        if self.idle {
            self.idle = false;
            out.emit_idle(false)?;
        }
        let watermark = arrow::compute::max(times.rows.column(1).as_primitive::<TimestampMillisecondType>());
        if self.adds_column {
            let mut columns = batch.rows.columns().to_vec();
            columns.push(time);
            let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            out.emit(Batch { rows, kinds: batch.kinds })?;
        } else {
            out.emit(batch)?;
        }
        match watermark {
            Some(watermark) if watermark > self.current => {
                self.current = watermark;
                out.emit_watermark(watermark)
            }
            _ => Ok(()),
        }
    }

    fn makes_watermarks(&self) -> bool {
        true
    }

    fn next_processing_time(&self) -> Option<i64> {
        if self.idle { None } else { self.deadline }
    }

    fn on_processing_time(&mut self, now: i64, out: &mut dyn Collector) -> Result<(), TaskError> {
        let Some(timeout) = self.idle_timeout else { return Ok(()) };
        let started = self.deadline != Some(0);
        if started && !self.active && !self.idle {
            self.idle = true;
            return out.emit_idle(true);
        }
        self.active = false;
        self.deadline = Some(now.saturating_add(i64::try_from(timeout).unwrap_or(i64::MAX)));
        Ok(())
    }
}
