//! Aggregation over tumbling windows: one result for each key and window, emitted once, when the window is over.
//!
//! A window with end `e` covers times up to `e - 1` and is over when the watermark reaches `e - 1`; rows that come for it
//! later are dropped and counted. Every window has a table of its own, so firing one costs what is in it. The watermark is
//! part of the state: after a restore, windows that had fired stay closed.

use crate::functions::WindowSpec;
use crate::operators::aggregates::AggregateCall;
use crate::operators::group_aggregate::{batch_keys, key_fields, signs};
use crate::operators::key_table::{KeyTable, TableRows};
use crate::operators::state_tables::{CutChoice, Part, TableLayout, check_names};
use crate::operators::window_rows::{WindowPart, event_windows, time_column_type, window_column, windows_by_end};
use crate::operators::{AggregateInput, ROWS_PER_BATCH, state_error};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorMetrics, OperatorRestore, TaskError};
use streamjob_protocol::manifest::{KeyGroupRange, ListStateHandle, Redistribution};
use streamjob_protocol::plan::StateTable;
use streamjob_state::{Cut, StateCut};

const TABLE: &str = "windows";
const WATERMARK: &str = "watermark";

/// What decides which window a row falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowTime {
    /// A time attribute, by position. Of no meaning for partial results, which name their window.
    Event { column: usize },
    /// The clock of the machine when the row is processed.
    Processing,
}

#[derive(Debug, Clone, PartialEq)]
pub struct WindowAggregateSpec {
    /// Inserted rows only. Partial results have the window's end between keys and partial columns.
    pub input: AggregateInput,
    pub time: WindowTime,
    pub window: WindowSpec,
    /// May be empty: then the distinct keys of each window are emitted.
    pub calls: Vec<AggregateCall>,
}

impl WindowAggregateSpec {
    /// Key columns, a column for every call, then `window_start`, `window_end` and `window_time`.
    pub fn output_schema(&self) -> Result<SchemaRef, TaskError> {
        let mut fields = key_fields(&self.input)?;
        for call in &self.calls {
            fields.push(Field::new(&call.name, call.result_type().map_err(TaskError::Fatal)?, true));
        }
        let local = DataType::Timestamp(TimeUnit::Millisecond, None);
        fields.push(Field::new("window_start", local.clone(), false));
        fields.push(Field::new("window_end", local, false));
        fields.push(Field::new("window_time", self.time_type()?, false));
        Ok(Arc::new(Schema::new(fields)))
    }

    fn time_type(&self) -> Result<DataType, TaskError> {
        match (&self.input, self.time) {
            (AggregateInput::Partials { schema, keys }, _) => time_column_type(schema, *keys),
            (AggregateInput::Rows { schema, .. }, WindowTime::Event { column }) => time_column_type(schema, column),
            (_, WindowTime::Processing) => Ok(DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        }
    }
}

pub struct WindowAggregate {
    keys: Vec<usize>,
    key_fields: Vec<Field>,
    output: SchemaRef,
    /// By window end.
    windows: BTreeMap<i64, KeyTable>,
    /// Tombstones of windows that fired since the last cut, one entry a layout.
    buried: Vec<Vec<Part>>,
    layouts: Vec<TableLayout>,
    tracked: bool,
    choice: CutChoice,
    watermark: i64,
    key_groups: KeyGroupRange,
    max_parallelism: u32,
    metrics: Arc<OperatorMetrics>,
    slots: Vec<u32>,
    /// Unix time in milliseconds.
    clock: fn() -> i64,
    spec: WindowAggregateSpec,
}

fn system_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl WindowAggregate {
    pub fn new(spec: WindowAggregateSpec) -> Result<WindowAggregate, TaskError> {
        Self::with_clock(spec, system_clock)
    }

    fn with_clock(spec: WindowAggregateSpec, clock: fn() -> i64) -> Result<WindowAggregate, TaskError> {
        let merges = matches!(spec.input, AggregateInput::Partials { .. });
        if merges && (spec.time == WindowTime::Processing || spec.calls.iter().any(|call| !call.is_mergeable())) {
            return Err(TaskError::Fatal(
                "partial results cannot be merged for distinct calls or windows over processing time".into(),
            ));
        }
        if spec.window.size <= 0 {
            return Err(TaskError::Fatal(format!("a window of {} ms has no rows", spec.window.size)));
        }
        let key_fields = key_fields(&spec.input)?;
        let output = spec.output_schema()?;
        let end_field = Field::new("window_end", DataType::Timestamp(TimeUnit::Millisecond, None), true);
        let layouts = new_table(&spec, &key_fields, false)?.layouts(TABLE, &key_fields, Some(&end_field));
        Ok(WindowAggregate {
            keys: spec.input.keys(),
            key_fields,
            output,
            windows: BTreeMap::new(),
            buried: vec![Vec::new(); layouts.len()],
            layouts,
            tracked: false,
            choice: CutChoice::default(),
            watermark: i64::MIN,
            key_groups: KeyGroupRange { first: 0, last: 0 },
            max_parallelism: 1,
            metrics: Arc::default(),
            slots: Vec::new(),
            clock,
            spec,
        })
    }

    /// Every state that snapshots hold.
    pub fn state(&self) -> Result<Vec<StateTable>, TaskError> {
        let mut state = self.layouts.iter().map(TableLayout::declared).collect::<Result<Vec<_>, _>>()?;
        if self.spec.time != WindowTime::Processing {
            state.push(StateTable::list(WATERMARK, Redistribution::Union));
        }
        Ok(state)
    }

    /// The rows of a batch by window.
    fn parts(&self, batch: &RecordBatch) -> Result<Vec<WindowPart>, TaskError> {
        match (&self.spec.input, self.spec.time) {
            (AggregateInput::Partials { keys, .. }, _) => windows_by_end(batch, *keys),
            (_, WindowTime::Event { column }) => event_windows(batch, column, self.spec.window),
            (_, WindowTime::Processing) => {
                let end = self.spec.window.start_of((self.clock)()) + self.spec.window.size;
                Ok(vec![WindowPart { end, rows: None }])
            }
        }
    }

    fn is_over(&self, end: i64) -> bool {
        self.spec.time != WindowTime::Processing && end - 1 <= self.watermark
    }

    fn window(&mut self, end: i64) -> Result<&mut KeyTable, TaskError> {
        use std::collections::btree_map::Entry;
        match self.windows.entry(end) {
            Entry::Occupied(table) => Ok(table.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(new_table(&self.spec, &self.key_fields, self.tracked)?)),
        }
    }

    fn add(&mut self, end: i64, batch: &RecordBatch) -> Result<(), TaskError> {
        let keys = batch_keys(batch, &self.keys, &self.key_fields)?;
        let partials = match &self.spec.input {
            AggregateInput::Partials { keys, .. } => Some(*keys + 1),
            AggregateInput::Rows { .. } => None,
        };
        let mut slots = std::mem::take(&mut self.slots);
        let table = self.window(end)?;
        table.intern(&keys, batch.num_rows(), &mut slots, |_, _| {})?;
        match partials {
            None => table.update(&slots, None, batch)?,
            Some(first) => table.aggregates.merge(&slots, &batch.columns()[first..])?,
        }
        table.touch(&slots);
        self.slots = slots;
        Ok(())
    }

    /// Emits and forgets all windows that end at `last` or before.
    fn fire(&mut self, last: i64, out: &mut dyn Collector) -> Result<(), TaskError> {
        while let Some(entry) = self.windows.first_entry() {
            if *entry.key() > last {
                break;
            }
            let (end, mut table) = entry.remove_entry();
            let slots = table.index.live_slots();
            for chunk in slots.chunks(ROWS_PER_BATCH) {
                out.emit(Batch::inserts(self.results(end, &table, chunk)?))?;
            }
            for (buried, cut) in self.buried.iter_mut().zip(table.bury()?) {
                for part in cut.removed {
                    buried.push(in_window(part, self.key_fields.len(), end)?);
                }
            }
        }
        self.count_rows();
        Ok(())
    }

    fn results(&self, end: i64, table: &KeyTable, slots: &[u32]) -> Result<RecordBatch, TaskError> {
        let mut columns = table.index.keys(slots).map_err(state_error)?;
        columns.extend(table.aggregates.results(slots)?);
        for time in [end - self.spec.window.size, end, end - 1] {
            let data_type = self.output.field(columns.len()).data_type();
            columns.push(window_column(time, slots.len(), data_type)?);
        }
        Ok(RecordBatch::try_new(self.output.clone(), columns)?)
    }

    /// Rows of the next cut of changes, about: those that changed and those of windows that fired.
    fn changed_rows(&self) -> usize {
        let fired: usize = self.buried.iter().flatten().map(Part::rows).sum();
        fired + self.windows.values().map(KeyTable::changed_rows).sum::<usize>()
    }

    fn count_rows(&self) {
        let rows: usize = self.windows.values().map(|table| table.index.len()).sum();
        self.metrics.state_rows.store(rows as u64, Ordering::Relaxed);
    }

    /// Windows that had fired for any of this subtask's keys stay closed as far as all of them had got.
    fn restore_watermark(&mut self, entries: &[Value]) -> Result<(), TaskError> {
        let mut lowest = None;
        for entry in entries {
            let number = |name: &str| {
                entry.get(name).and_then(Value::as_i64).ok_or_else(|| {
                    TaskError::Fatal(format!("the checkpoint's list state '{WATERMARK}' has the entry {entry}"))
                })
            };
            let (first, last, watermark) = (number("first")?, number("last")?, number("watermark")?);
            if first <= self.key_groups.last as i64 && last >= self.key_groups.first as i64 {
                lowest = Some(lowest.map_or(watermark, |lowest: i64| lowest.min(watermark)));
            }
        }
        self.watermark = lowest.unwrap_or(i64::MIN);
        Ok(())
    }

    fn restore_table(&mut self, number: usize, rows: &RecordBatch) -> Result<(), TaskError> {
        let keys = self.key_fields.len();
        for part in windows_by_end(rows, keys)? {
            let chosen = match part.rows {
                None => rows.clone(),
                Some(chosen) => take_record_batch(rows, &UInt32Array::from(chosen))?,
            };
            let columns = chosen.columns();
            let table = self.window(part.end)?;
            match (number, &columns[keys + 1..]) {
                (0, state) => table.restore(&columns[..keys], state, chosen.num_rows())?,
                (_, [value, occurrences]) => {
                    table.restore_distinct(number - 1, &columns[..keys], value, occurrences)?;
                }
                _ => return Err(TaskError::Fatal("the state of distinct values has other columns".into())),
            }
        }
        Ok(())
    }
}

fn new_table(spec: &WindowAggregateSpec, keys: &[Field], tracked: bool) -> Result<KeyTable, TaskError> {
    let types: Vec<DataType> = keys.iter().map(|field| field.data_type().clone()).collect();
    KeyTable::new(&types, &spec.calls, false, tracked)
}

/// Rows of a window's table with the window's end behind the keys.
fn in_window(mut part: Part, keys: usize, end: i64) -> Result<Part, TaskError> {
    let column = window_column(end, part.rows(), &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    part.columns.insert(keys, column);
    Ok(part)
}

impl Operator for WindowAggregate {
    fn open(&mut self, context: &OperatorContext, mut restore: OperatorRestore) -> Result<(), TaskError> {
        self.max_parallelism = context.max_parallelism;
        self.key_groups = context.key_groups;
        self.metrics = context.metrics.clone();
        self.tracked = context.checkpointing;
        check_names(restore.keyed.keys(), &self.layouts)?;
        self.restore_watermark(restore.lists.get(WATERMARK).map_or(&[], Vec::as_slice))?;
        for (number, layout) in self.layouts.clone().iter().enumerate() {
            let chain = restore.keyed.remove(&layout.name).unwrap_or_default();
            if !layout.fits(&chain) {
                self.choice.begin_anew();
            }
            for rows in layout.restored(chain)? {
                self.restore_table(number, &rows)?;
            }
        }
        self.count_rows();
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _out: &mut dyn Collector) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        signs(&batch, false)?;
        for part in self.parts(&batch.rows)? {
            let rows = part.rows.as_ref().map_or(batch.len(), Vec::len);
            if self.is_over(part.end) {
                OperatorMetrics::add(&self.metrics.late_records_dropped, rows);
                continue;
            }
            match part.rows {
                None => self.add(part.end, &batch.rows)?,
                Some(rows) => {
                    self.add(part.end, &take_record_batch(&batch.rows, &UInt32Array::from(rows))?)?;
                }
            }
        }
        self.count_rows();
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, out: &mut dyn Collector) -> Result<(), TaskError> {
        if watermark <= self.watermark || self.spec.time == WindowTime::Processing {
            return Ok(());
        }
        self.watermark = watermark;
        self.fire(watermark.saturating_add(1), out)
    }

    fn next_processing_time(&self) -> Option<i64> {
        match self.spec.time {
            WindowTime::Processing => self.windows.keys().next().copied(),
            WindowTime::Event { .. } => None,
        }
    }

    fn on_processing_time(&mut self, now: i64, out: &mut dyn Collector) -> Result<(), TaskError> {
        match self.spec.time {
            WindowTime::Processing => self.fire(now, out),
            WindowTime::Event { .. } => Ok(()),
        }
    }

    fn snapshot(&mut self, _checkpoint: u64, cut: Cut) -> Result<StateCut, TaskError> {
        let cut = if cut == Cut::Changes && !self.tracked { Cut::Whole } else { cut };
        let rows = self.windows.values().map(KeyTable::rows).sum();
        let cut = self.choice.choose(cut, rows, self.changed_rows());
        let keys = self.key_fields.len();
        let none: Vec<Vec<Part>> = vec![Vec::new(); self.layouts.len()];
        let mut present = none.clone();
        let mut removed = match cut {
            Cut::Changes => std::mem::replace(&mut self.buried, none),
            Cut::Whole => {
                self.buried.iter_mut().for_each(Vec::clear);
                none
            }
            Cut::Copy => none,
        };
        for (&end, table) in &mut self.windows {
            for (number, rows) in table.cut(cut)?.into_iter().enumerate() {
                let TableRows { removed: gone, present: rows } = rows;
                for part in gone {
                    removed[number].push(in_window(part, keys, end)?);
                }
                for part in rows.into_iter().filter(|part| part.rows() > 0) {
                    present[number].push(in_window(part, keys, end)?);
                }
            }
        }
        let mut keyed = Vec::with_capacity(self.layouts.len());
        for (number, layout) in self.layouts.iter().enumerate() {
            keyed.push(layout.delta(cut != Cut::Changes, &removed[number], &present[number], self.max_parallelism)?);
        }
        let mut lists = Vec::new();
        if self.spec.time != WindowTime::Processing {
            let (first, last) = (self.key_groups.first, self.key_groups.last);
            lists.push(ListStateHandle {
                name: WATERMARK.into(),
                redistribution: Redistribution::Union,
                entries: vec![json!({ "first": first, "last": last, "watermark": self.watermark })],
            });
        }
        Ok(StateCut { keyed, lists })
    }
}

#[cfg(test)]
mod tests;
