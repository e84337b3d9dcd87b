//! Aggregate functions over columns: one cell a slot and call, updated a batch at a time.
//!
//! Result types are Flink's: sums and averages of integers have the argument's type (averages truncate towards zero), those
//! of decimals 38 digits. One difference: a sum outside its type is an error here, where Flink wraps integers around and
//! turns decimals into NULL. MIN and MAX order floating-point numbers as Java's `Double.compare` does, NaN last.

mod count;
mod distinct;
mod extremes;
mod sums;

use crate::operators::state_error;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{ArrowNativeType, DataType, Field, Schema, SchemaRef};
use distinct::DistinctCount;
use streamjob_dataflow::TaskError;
use streamjob_state::KeyIndex;

pub(crate) use distinct::DistinctValues;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// `COUNT(*)`.
    CountStar,
    /// `COUNT(x)`.
    Count,
    /// `COUNT(DISTINCT x)`.
    CountDistinct,
    Sum,
    Min,
    Max,
    Avg,
}

impl AggregateFunction {
    fn label(self) -> &'static str {
        match self {
            AggregateFunction::CountStar | AggregateFunction::Count => "count",
            AggregateFunction::CountDistinct => "count_distinct",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::Avg => "avg",
        }
    }
}

/// One aggregate of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregateCall {
    pub function: AggregateFunction,
    /// Position and type of the argument; none for `COUNT(*)`.
    pub argument: Option<(usize, DataType)>,
    /// Position of a boolean column: only rows where it is true count.
    pub filter: Option<usize>,
    /// Name of the result's column, and beginning of the names of its state's columns: unique in the operator.
    pub name: String,
}

impl AggregateCall {
    /// Flink's type of the result, or why there is none.
    pub fn result_type(&self) -> Result<DataType, String> {
        let refuse = |what: &str| Err(format!("{} {what}", self.function.label().to_uppercase()));
        let argument = self.argument.as_ref().map(|(_, data_type)| data_type);
        match (self.function, argument) {
            (AggregateFunction::CountStar, _) => Ok(DataType::Int64),
            (_, None) => refuse("needs an argument"),
            (AggregateFunction::Count, Some(_)) => Ok(DataType::Int64),
            (AggregateFunction::CountDistinct, Some(argument)) => match KeyIndex::owned(std::slice::from_ref(argument))
            {
                Ok(_) => Ok(DataType::Int64),
                Err(_) => refuse(&format!("of {argument} is not supported")),
            },
            (AggregateFunction::Sum, Some(DataType::Decimal128(_, scale))) => Ok(DataType::Decimal128(38, *scale)),
            (AggregateFunction::Avg, Some(DataType::Decimal128(_, scale))) => {
                Ok(DataType::Decimal128(38, (*scale).max(6)))
            }
            (AggregateFunction::Sum | AggregateFunction::Avg, Some(argument)) => match argument {
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Ok(argument.clone()),
                DataType::Float32 | DataType::Float64 => Ok(argument.clone()),
                other => refuse(&format!("needs a number, found {other}")),
            },
            (AggregateFunction::Min | AggregateFunction::Max, Some(argument)) => {
                if extremes::supports(argument) {
                    Ok(argument.clone())
                } else {
                    refuse(&format!("of {argument} is not supported"))
                }
            }
        }
    }

    /// Whether partial results of parts of the input can be combined: what a [`super::LocalAggregate`] needs.
    pub fn is_mergeable(&self) -> bool {
        self.function != AggregateFunction::CountDistinct
    }

    /// Whether rows can be taken back: what input with -U and -D rows needs.
    pub fn supports_retraction(&self) -> bool {
        !matches!(self.function, AggregateFunction::Min | AggregateFunction::Max)
    }

    /// Every input row changes the result.
    pub(crate) fn always_changes(&self) -> bool {
        self.function == AggregateFunction::CountStar && self.filter.is_none()
    }
}

/// Rows of a batch as an accumulator sees them.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Slot of every row.
    pub slots: &'a [u32],
    /// +1 or -1 for every row; absent if all are inserts.
    pub signs: Option<&'a [i8]>,
    /// The rows that count; absent if all do.
    pub selected: Option<&'a [u32]>,
}

impl Rows<'_> {
    /// Calls `visit(row, slot, sign)` for the rows that count.
    #[inline(always)]
    pub fn each<E>(self, mut visit: impl FnMut(usize, usize, i8) -> Result<(), E>) -> Result<(), E> {
        match (self.selected, self.signs) {
            (None, None) => {
                for (row, &slot) in self.slots.iter().enumerate() {
                    visit(row, slot as usize, 1)?;
                }
            }
            (None, Some(signs)) => {
                for (row, (&slot, &sign)) in self.slots.iter().zip(signs).enumerate() {
                    visit(row, slot as usize, sign)?;
                }
            }
            (Some(selected), None) => {
                for &row in selected {
                    visit(row as usize, self.slots[row as usize] as usize, 1)?;
                }
            }
            (Some(selected), Some(signs)) => {
                for &row in selected {
                    visit(row as usize, self.slots[row as usize] as usize, signs[row as usize])?;
                }
            }
        }
        Ok(())
    }
}

/// Cells of one call, indexed by slot. State columns are at once what is written to checkpoints, what a local aggregation
/// sends on, and what `merge` and `restore` take.
pub(crate) trait Accumulator: Send {
    /// Makes room for slots below `slots`; new cells are empty.
    fn resize(&mut self, slots: usize);
    /// Forgets all cells.
    fn clear(&mut self);
    fn reset(&mut self, slot: u32);
    fn update(&mut self, rows: Rows<'_>, argument: Option<&ArrayRef>) -> Result<(), TaskError>;
    /// Combines partial results, given as state columns, into the cells.
    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError>;
    fn result(&self, slots: &[u32]) -> Result<ArrayRef, TaskError>;
    fn state_types(&self) -> Vec<(&'static str, DataType)>;
    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError>;
    /// Replaces cells by what `state` gave out.
    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError>;
}

enum Cells {
    Plain(Box<dyn Accumulator>),
    Distinct(Box<DistinctCount>),
}

impl Cells {
    fn accumulator(&self) -> &dyn Accumulator {
        match self {
            Cells::Plain(accumulator) => accumulator.as_ref(),
            Cells::Distinct(distinct) => distinct.counts(),
        }
    }

    fn accumulator_mut(&mut self) -> &mut dyn Accumulator {
        match self {
            Cells::Plain(accumulator) => accumulator.as_mut(),
            Cells::Distinct(distinct) => distinct.counts_mut(),
        }
    }
}

/// The accumulators of all calls of an operator.
pub(crate) struct AggregateSet {
    calls: Vec<AggregateCall>,
    cells: Vec<Cells>,
    slots: usize,
}

impl AggregateSet {
    /// `retractable`: the input has -U and -D rows. `tracked`: changes are kept for checkpoints.
    pub fn new(calls: &[AggregateCall], retractable: bool, tracked: bool) -> Result<AggregateSet, TaskError> {
        let mut cells = Vec::with_capacity(calls.len());
        for call in calls {
            cells.push(make_cells(call, retractable, tracked).map_err(TaskError::Fatal)?);
        }
        Ok(AggregateSet { calls: calls.to_vec(), cells, slots: 0 })
    }

    pub fn resize(&mut self, slots: usize) {
        if slots > self.slots {
            self.slots = slots;
            for cells in &mut self.cells {
                cells.accumulator_mut().resize(slots);
            }
        }
    }

    /// Forgets all slots. Not for sets with distinct calls, which local aggregation cannot have.
    pub fn clear(&mut self) {
        self.slots = 0;
        for cells in &mut self.cells {
            cells.accumulator_mut().clear();
        }
    }

    /// Forgets a slot whose key is still in the index.
    pub fn reset(&mut self, slot: u32, index: &KeyIndex) -> Result<(), TaskError> {
        for cells in &mut self.cells {
            if let Cells::Distinct(distinct) = cells {
                distinct.values_mut().forget_owner(slot, index)?;
            }
            cells.accumulator_mut().reset(slot);
        }
        Ok(())
    }

    /// Applies input rows; `index` is the index that gave the slots.
    pub fn update(
        &mut self,
        slots: &[u32],
        signs: Option<&[i8]>,
        batch: &RecordBatch,
        index: &KeyIndex,
    ) -> Result<(), TaskError> {
        for (call, cells) in self.calls.iter().zip(&mut self.cells) {
            let argument = match &call.argument {
                None => None,
                Some((position, expected)) => Some(column(batch, *position, expected)?),
            };
            let filter = match call.filter {
                None => None,
                Some(position) => Some(column(batch, position, &DataType::Boolean)?.as_boolean()),
            };
            let selected = select(slots.len(), filter, argument.map(|argument| argument.as_ref()));
            let rows = Rows { slots, signs, selected: selected.as_deref() };
            match cells {
                Cells::Plain(accumulator) => accumulator.update(rows, argument)?,
                Cells::Distinct(distinct) => {
                    let Some(argument) = argument else { continue };
                    distinct.update(rows, argument, index)?;
                }
            }
        }
        Ok(())
    }

    /// Columns of partial results: those of all calls, one after the other.
    pub fn state_fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        for (call, cells) in self.calls.iter().zip(&self.cells) {
            for (suffix, data_type) in cells.accumulator().state_types() {
                fields.push(Field::new(format!("{}{suffix}", call.name), data_type, true));
            }
        }
        fields
    }

    pub fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        let mut columns = Vec::new();
        for cells in &self.cells {
            columns.extend(cells.accumulator().state(slots)?);
        }
        Ok(columns)
    }

    pub fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        self.each_state(state, |accumulator, columns| accumulator.merge(slots, columns))
    }

    pub fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        self.each_state(state, |accumulator, columns| accumulator.restore(slots, columns))
    }

    fn each_state(
        &mut self,
        state: &[ArrayRef],
        mut apply: impl FnMut(&mut dyn Accumulator, &[ArrayRef]) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        let mut rest = state;
        for cells in &mut self.cells {
            let accumulator = cells.accumulator_mut();
            let types = accumulator.state_types();
            let Some((columns, others)) = rest.split_at_checked(types.len()) else {
                return Err(TaskError::Fatal(format!("aggregates need {} more columns of state", types.len())));
            };
            for (column, (_, expected)) in columns.iter().zip(&types) {
                if column.data_type() != expected {
                    let found = column.data_type();
                    return Err(TaskError::Fatal(format!(
                        "a column of aggregation state is {found}, expected {expected}"
                    )));
                }
            }
            apply(accumulator, columns)?;
            rest = others;
        }
        Ok(())
    }

    pub fn results(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        self.cells.iter().map(|cells| cells.accumulator().result(slots)).collect()
    }

    /// The value tables of distinct calls, with the calls' names.
    pub fn distinct_values(&self) -> impl Iterator<Item = (&str, &DistinctValues)> {
        self.calls.iter().zip(&self.cells).filter_map(|(call, cells)| match cells {
            Cells::Distinct(distinct) => Some((call.name.as_str(), distinct.values())),
            Cells::Plain(_) => None,
        })
    }

    pub fn distinct_values_mut(&mut self) -> impl Iterator<Item = (usize, &mut DistinctValues)> {
        self.cells.iter_mut().enumerate().filter_map(|(number, cells)| match cells {
            Cells::Distinct(distinct) => Some((number, distinct.values_mut())),
            Cells::Plain(_) => None,
        })
    }
}

fn make_cells(call: &AggregateCall, retractable: bool, tracked: bool) -> Result<Cells, String> {
    let result = call.result_type()?;
    if retractable && !call.supports_retraction() {
        return Err(format!("{} of input with updates is not supported", call.function.label().to_uppercase()));
    }
    let argument = call.argument.as_ref().map(|(_, data_type)| data_type);
    Ok(match (call.function, argument) {
        (AggregateFunction::CountDistinct, Some(argument)) => {
            let distinct = DistinctCount::new(argument, retractable, tracked).map_err(|error| error.to_string())?;
            Cells::Distinct(Box::new(distinct))
        }
        (AggregateFunction::Sum, Some(argument)) => Cells::Plain(sums::sum(argument, result, retractable)?),
        (AggregateFunction::Avg, Some(argument)) => Cells::Plain(sums::average(argument, result)?),
        (AggregateFunction::Min, Some(argument)) => Cells::Plain(extremes::extreme(argument, true)?),
        (AggregateFunction::Max, Some(argument)) => Cells::Plain(extremes::extreme(argument, false)?),
        _ => Cells::Plain(Box::new(count::Count::default())),
    })
}

/// Columns of a call's partial result, for planning an exchange of partials.
pub(crate) fn partial_schema(keys: Vec<Field>, calls: &[AggregateCall]) -> Result<SchemaRef, TaskError> {
    let mut fields = keys;
    fields.extend(AggregateSet::new(calls, false, false)?.state_fields());
    Ok(std::sync::Arc::new(Schema::new(fields)))
}

/// A column by position, checked: the planner and the operator before must agree.
pub(crate) fn column<'a>(
    batch: &'a RecordBatch,
    position: usize,
    expected: &DataType,
) -> Result<&'a ArrayRef, TaskError> {
    match batch.columns().get(position) {
        Some(column) if column.data_type() == expected => Ok(column),
        Some(column) => {
            Err(TaskError::Fatal(format!("input column {position} is {}, planned as {expected}", column.data_type())))
        }
        None => Err(TaskError::Fatal(format!("the input has {} columns, planned {position}", batch.num_columns()))),
    }
}

/// The rows whose filter is true and whose argument is not NULL; `None` if that is all.
fn select(rows: usize, filter: Option<&BooleanArray>, argument: Option<&dyn Array>) -> Option<Vec<u32>> {
    let nulls = argument.and_then(|argument| argument.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
    if filter.is_none() && nulls.is_none() {
        return None;
    }
    let mut bits = nulls.map(|nulls| nulls.into_inner());
    if let Some(filter) = filter {
        let mut passed = filter.values().clone();
        if let Some(known) = filter.nulls() {
            passed = &passed & known.inner();
        }
        bits = Some(match bits {
            None => passed,
            Some(bits) => &bits & &passed,
        });
    }
    let bits = bits?;
    if bits.count_set_bits() == rows {
        return None;
    }
    Some(bits.set_indices_u32().collect())
}

/// Stored values of a fixed-width column, whatever they mean.
fn natives<T: ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<T> {
    let data = array.to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

/// A column of any fixed-width type from its stored values.
fn native_column<T: ArrowNativeType>(
    data_type: &DataType,
    values: Vec<T>,
    valid: Option<Vec<bool>>,
) -> Result<ArrayRef, TaskError> {
    let nulls = valid.map(arrow::buffer::NullBuffer::from).filter(|nulls| nulls.null_count() > 0);
    let data = arrow::array::ArrayData::builder(data_type.clone())
        .len(values.len())
        .nulls(nulls)
        .add_buffer(arrow::buffer::Buffer::from_vec(values))
        .build()?;
    Ok(arrow::array::make_array(data))
}

/// Casts that fail rather than lose digits or wrap around.
fn cast_exactly(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn gather(array: &ArrayRef, rows: &[u32]) -> Result<ArrayRef, TaskError> {
    Ok(take(array, &UInt32Array::from(rows.to_vec()), None)?)
}

fn key_columns(index: &KeyIndex, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
    index.keys(slots).map_err(state_error)
}

#[cfg(test)]
mod tests;
