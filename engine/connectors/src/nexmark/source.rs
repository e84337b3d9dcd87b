//! The source: which events are next, and when they are due.

use super::columns::Generator;
use super::numbers::Parameters;
use super::schema::Layout;
use crate::pace::{LONGEST_WAIT, Pace};
use crate::stripes::Stripes;
use std::sync::Arc;
use streamjob_dataflow::{Batch, OperatorContext, OperatorRestore, Source, SourceEvent, TaskError};
use streamjob_state::StateCut;

const BATCH_ROWS: usize = 8192;
/// Consecutive events that one subtask makes; small, so that subtasks stay close in event time.
const BLOCK: u64 = 100;

pub(crate) struct NexmarkSource {
    parameters: Arc<Parameters>,
    generator: Generator,
    stripes: Option<Stripes>,
    keep_alive: bool,
    pace: Option<Pace>,
    ranges: Vec<std::ops::Range<u64>>,
}

impl NexmarkSource {
    pub fn new(parameters: Arc<Parameters>, layout: Arc<Layout>, paced: bool, keep_alive: bool) -> Self {
        NexmarkSource {
            generator: Generator::new(parameters.clone(), layout),
            parameters,
            stripes: None,
            keep_alive,
            pace: paced.then(Pace::default),
            ranges: Vec::new(),
        }
    }
}

fn not_open() -> TaskError {
    TaskError::Fatal("the nexmark source was used before it was opened".into())
}

impl Source for NexmarkSource {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.stripes = Some(Stripes::open(BLOCK, self.parameters.events, context, &restore)?);
        Ok(())
    }

    fn poll(&mut self, now_unix_ms: i64) -> Result<SourceEvent, TaskError> {
        let stripes = self.stripes.as_mut().ok_or_else(not_open)?;
        let Some(next) = stripes.peek() else {
            return Ok(if self.keep_alive { SourceEvent::Wait(LONGEST_WAIT) } else { SourceEvent::End });
        };
        let rate = self.parameters.rate;
        let due = self.pace.as_mut().map_or(u64::MAX, |pace| pace.due(now_unix_ms, next, rate));
        if stripes.take(BATCH_ROWS, due, &mut self.ranges) == 0 {
            return Ok(SourceEvent::Wait(Pace::wait(next - due, rate)));
        }
        Ok(SourceEvent::Batch(Batch::inserts(self.generator.batch(&self.ranges)?)))
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<StateCut, TaskError> {
        Ok(self.stripes.as_ref().ok_or_else(not_open)?.snapshot()?)
    }
}
