//! Which rows of a batch fall into which window.

use crate::functions::WindowSpec;
use crate::operators::aggregates::column;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMillisecondType};
use hashbrown::HashMap;
use std::sync::Arc;
use streamjob_dataflow::TaskError;

/// Rows of one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowPart {
    /// Milliseconds, exclusive.
    pub end: i64,
    /// Absent when it is all rows of the batch.
    pub rows: Option<Vec<u32>>,
}

/// The type of a time attribute: a timestamp of milliseconds, with or without zone.
pub(crate) fn time_column_type(schema: &Schema, position: usize) -> Result<DataType, TaskError> {
    match schema.fields().get(position).map(|field| field.data_type()) {
        Some(found @ DataType::Timestamp(TimeUnit::Millisecond, _)) => Ok(found.clone()),
        Some(found) => Err(TaskError::Fatal(format!("a time attribute is TIMESTAMP(3), column {position} is {found}"))),
        None => Err(TaskError::Fatal(format!("the time attribute, column {position}, is not in the input"))),
    }
}

/// A column that holds one time in all rows.
pub(crate) fn window_column(time: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef, TaskError> {
    let times = TimestampMillisecondArray::from_value(time, rows);
    Ok(Arc::new(times.with_data_type(data_type.clone())))
}

/// Parts a batch by the windows of its time attribute.
pub(crate) fn event_windows(
    batch: &RecordBatch,
    position: usize,
    window: WindowSpec,
) -> Result<Vec<WindowPart>, TaskError> {
    let data_type = time_column_type(&batch.schema(), position)?;
    let times = column(batch, position, &data_type)?.as_primitive::<TimestampMillisecondType>();
    if times.null_count() > 0 {
        return Err(TaskError::Data(
            "the time attribute of a window is NULL in a row; filter such rows out before the window".into(),
        ));
    }
    let times = times.values();
    let mut parts = Parts::default();
    // Neighbours usually share a window: then there is nothing to divide.
    let (mut start, mut end) = (i64::MAX, i64::MIN);
    for (row, &time) in times.iter().enumerate() {
        if time < start || time >= end {
            start = window.start_of(time);
            end = start + window.size;
            parts.turn_to(end, row);
        }
    }
    Ok(parts.finish(times.len()))
}

/// Parts a batch by a column that holds the ends of windows.
pub(crate) fn windows_by_end(batch: &RecordBatch, position: usize) -> Result<Vec<WindowPart>, TaskError> {
    let data_type = time_column_type(&batch.schema(), position)?;
    let ends = column(batch, position, &data_type)?.as_primitive::<TimestampMillisecondType>();
    if ends.null_count() > 0 {
        return Err(TaskError::Fatal("the end of a window is NULL".into()));
    }
    let mut parts = Parts::default();
    let mut current = None;
    for (row, &end) in ends.values().iter().enumerate() {
        if current != Some(end) {
            current = Some(end);
            parts.turn_to(end, row);
        }
    }
    Ok(parts.finish(ends.len()))
}

/// Runs of rows with the same window, gathered by window.
#[derive(Default)]
struct Parts {
    /// Window end and first row of each run.
    runs: Vec<(i64, u32)>,
}

impl Parts {
    fn turn_to(&mut self, end: i64, row: usize) {
        self.runs.push((end, row as u32));
    }

    fn finish(self, rows: usize) -> Vec<WindowPart> {
        match self.runs.as_slice() {
            [] => return Vec::new(),
            [(end, _)] => return vec![WindowPart { end: *end, rows: None }],
            _ => {}
        }
        let mut parts: Vec<WindowPart> = Vec::new();
        let mut position: HashMap<i64, usize> = HashMap::new();
        for (at, &(end, first)) in self.runs.iter().enumerate() {
            let until = self.runs.get(at + 1).map_or(rows as u32, |(_, next)| *next);
            let part = *position.entry(end).or_insert_with(|| {
                parts.push(WindowPart { end, rows: Some(Vec::new()) });
                parts.len() - 1
            });
            if let Some(rows) = &mut parts[part].rows {
                rows.extend(first..until);
            }
        }
        parts
    }
}
