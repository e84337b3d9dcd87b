//! MIN and MAX over input without retractions.

use super::{Accumulator, Rows, cast_exactly, native_column, natives};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{ArrowNativeType, DataType};
use std::cmp::Ordering;
use std::sync::Arc;
use streamjob_dataflow::TaskError;

/// Total order of stored values.
trait Ordered: ArrowNativeType + Send {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($method:ident: $($native:ty),*) => {
        $(impl Ordered for $native {
            #[inline(always)]
            fn order(&self, other: &Self) -> Ordering {
                self.$method(other)
            }
        })*
    };
}

ordered!(cmp: i8, i16, i32, i64, i128);
ordered!(total_cmp: f32, f64);

/// The value's width decides how it is stored; `None` for types that are not ordered here.
fn width(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Boolean | DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Date32 | DataType::Time32(_) => 4,
        DataType::Int64 | DataType::Timestamp(_, _) | DataType::Time64(_) => 8,
        DataType::Decimal128(_, _) => 16,
        _ => return None,
    })
}

pub(super) fn supports(data_type: &DataType) -> bool {
    width(data_type).is_some() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Utf8)
}

pub(super) fn extreme(argument: &DataType, minimum: bool) -> Result<Box<dyn Accumulator>, String> {
    let data_type = argument.clone();
    Ok(match argument {
        DataType::Utf8 => Box::new(StringExtremes { cells: Vec::new(), minimum }),
        DataType::Float32 => Extremes::<f32>::boxed(data_type, minimum),
        DataType::Float64 => Extremes::<f64>::boxed(data_type, minimum),
        other => match width(other) {
            Some(1) => Extremes::<i8>::boxed(data_type, minimum),
            Some(2) => Extremes::<i16>::boxed(data_type, minimum),
            Some(4) => Extremes::<i32>::boxed(data_type, minimum),
            Some(8) => Extremes::<i64>::boxed(data_type, minimum),
            Some(_) => Extremes::<i128>::boxed(data_type, minimum),
            None => return Err(format!("MIN and MAX of {other} are not supported")),
        },
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell<T> {
    value: T,
    set: bool,
}

struct Extremes<T> {
    cells: Vec<Cell<T>>,
    data_type: DataType,
    minimum: bool,
}

impl<T: Ordered> Extremes<T> {
    fn boxed(data_type: DataType, minimum: bool) -> Box<dyn Accumulator> {
        Box::new(Extremes::<T> { cells: Vec::new(), data_type, minimum })
    }

    /// How values are kept: booleans as bytes.
    fn stored_type(&self) -> DataType {
        match &self.data_type {
            DataType::Boolean => DataType::Int8,
            other => other.clone(),
        }
    }

    fn apply(&mut self, rows: Rows<'_>, column: &ArrayRef) -> Result<(), TaskError> {
        let values = natives::<T>(&cast_exactly(column, &self.stored_type())?);
        let wanted = if self.minimum { Ordering::Less } else { Ordering::Greater };
        let cells = self.cells.as_mut_slice();
        rows.each(|row, slot, _| {
            let (cell, value) = (&mut cells[slot], values[row]);
            if !cell.set || value.order(&cell.value) == wanted {
                *cell = Cell { value, set: true };
            }
            Ok(())
        })
    }
}

fn valid_rows(column: &ArrayRef) -> Option<Vec<u32>> {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0)?;
    Some(nulls.inner().set_indices_u32().collect())
}

impl<T: Ordered> Accumulator for Extremes<T> {
    fn resize(&mut self, slots: usize) {
        self.cells.resize(slots, Cell::default());
    }

    fn clear(&mut self) {
        self.cells.clear();
    }

    fn reset(&mut self, slot: u32) {
        self.cells[slot as usize] = Cell::default();
    }

    fn update(&mut self, rows: Rows<'_>, argument: Option<&ArrayRef>) -> Result<(), TaskError> {
        match argument {
            Some(argument) => self.apply(rows, argument),
            None => Ok(()),
        }
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        let selected = valid_rows(&state[0]);
        self.apply(Rows { slots, signs: None, selected: selected.as_deref() }, &state[0])
    }

    fn result(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        let mut values = Vec::with_capacity(slots.len());
        let mut valid = Vec::with_capacity(slots.len());
        for &slot in slots {
            let cell = self.cells[slot as usize];
            values.push(cell.value);
            valid.push(cell.set);
        }
        let stored = native_column(&self.stored_type(), values, Some(valid))?;
        Ok(cast_exactly(&stored, &self.data_type)?)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("", self.data_type.clone())]
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        Ok(vec![self.result(slots)?])
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        for &slot in slots {
            self.reset(slot);
        }
        self.merge(slots, state)
    }
}

/// Text is copied only when it becomes the new extreme, into memory that the cell has already.
struct StringExtremes {
    cells: Vec<Option<String>>,
    minimum: bool,
}

impl StringExtremes {
    fn apply(&mut self, rows: Rows<'_>, column: &ArrayRef) -> Result<(), TaskError> {
        let values: &StringArray = column.as_string();
        let wanted = if self.minimum { Ordering::Less } else { Ordering::Greater };
        let cells = self.cells.as_mut_slice();
        rows.each(|row, slot, _| {
            let value = values.value(row);
            match &mut cells[slot] {
                Some(cell) if value.cmp(cell.as_str()) == wanted => {
                    cell.clear();
                    cell.push_str(value);
                }
                Some(_) => {}
                empty => *empty = Some(value.to_string()),
            }
            Ok(())
        })
    }
}

impl Accumulator for StringExtremes {
    fn resize(&mut self, slots: usize) {
        self.cells.resize(slots, None);
    }

    fn clear(&mut self) {
        self.cells.clear();
    }

    fn reset(&mut self, slot: u32) {
        self.cells[slot as usize] = None;
    }

    fn update(&mut self, rows: Rows<'_>, argument: Option<&ArrayRef>) -> Result<(), TaskError> {
        match argument {
            Some(argument) => self.apply(rows, argument),
            None => Ok(()),
        }
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        let selected = valid_rows(&state[0]);
        self.apply(Rows { slots, signs: None, selected: selected.as_deref() }, &state[0])
    }

    fn result(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        Ok(Arc::new(StringArray::from_iter(slots.iter().map(|&slot| self.cells[slot as usize].as_deref()))))
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("", DataType::Utf8)]
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        Ok(vec![self.result(slots)?])
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        for &slot in slots {
            self.reset(slot);
        }
        self.merge(slots, state)
    }
}
