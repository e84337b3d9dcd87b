//! The source: which rows are next, and when they are due.

use super::columns::{Clock, Generator};
use super::fields::FieldSpec;
use crate::error::ConnectorError;
use crate::pace::Pace;
use crate::projection::Placeholders;
use crate::stripes::Stripes;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use std::ops::Range;
use std::sync::Arc;
use streamjob_dataflow::{Batch, OperatorContext, OperatorRestore, Source, SourceEvent, TaskError};
use streamjob_state::StateCut;
use xxhash_rust::xxh3::xxh3_64;

const BATCH_ROWS: usize = 8192;
const MAX_BLOCK: u64 = 1000;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub schema: SchemaRef,
    pub fields: Arc<Vec<FieldSpec>>,
    /// Rows a second.
    pub rate: u64,
    /// `u64::MAX` without an end.
    pub rows: u64,
    pub seed: u64,
    /// Milliseconds since the epoch.
    pub base_time: i64,
    pub replay: bool,
}

pub(super) struct DatagenSource {
    settings: Settings,
    stripes: Option<Stripes>,
    pace: Pace,
    ranges: Vec<Range<u64>>,
    placeholders: Placeholders,
}

fn not_open() -> TaskError {
    TaskError::Fatal("the datagen source was used before it was opened".into())
}

impl DatagenSource {
    pub fn new(settings: Settings) -> Self {
        DatagenSource {
            settings,
            stripes: None,
            pace: Pace::default(),
            ranges: Vec::new(),
            placeholders: Placeholders::default(),
        }
    }

    fn batch(&mut self, rows: usize, now_unix_ms: i64) -> Result<RecordBatch, ConnectorError> {
        let Settings { schema, fields, rate, seed, base_time, replay, .. } = &self.settings;
        let clock = if *replay { Clock::Counted { base: *base_time, rate: *rate } } else { Clock::Wall(now_unix_ms) };
        let mut generator =
            Generator { seed: *seed, clock, ranges: &self.ranges, rows, placeholders: &mut self.placeholders };
        let arrays = fields.iter().map(|spec| generator.column(spec)).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }
}

impl Source for DatagenSource {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        let restore = if self.settings.replay {
            restore
        } else {
            // Nothing of the past comes back, and nothing repeats it.
            self.settings.seed ^= xxh3_64(context.attempt.as_bytes());
            OperatorRestore::default()
        };
        // A millisecond's worth of rows, so that every subtask has something to do at low rates.
        let block = (self.settings.rate / 1000).clamp(1, MAX_BLOCK);
        self.stripes = Some(Stripes::open(block, self.settings.rows, context, &restore)?);
        Ok(())
    }

    fn poll(&mut self, now_unix_ms: i64) -> Result<SourceEvent, TaskError> {
        let stripes = self.stripes.as_mut().ok_or_else(not_open)?;
        let Some(next) = stripes.peek() else { return Ok(SourceEvent::End) };
        let rate = self.settings.rate;
        let due = self.pace.due(now_unix_ms, next, rate);
        let rows = stripes.take(BATCH_ROWS, due, &mut self.ranges);
        if rows == 0 {
            return Ok(SourceEvent::Wait(Pace::wait(next - due, rate)));
        }
        Ok(SourceEvent::Batch(Batch::inserts(self.batch(rows, now_unix_ms)?)))
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<StateCut, TaskError> {
        if !self.settings.replay {
            return Ok(StateCut::default());
        }
        Ok(self.stripes.as_ref().ok_or_else(not_open)?.snapshot()?)
    }
}
