//! SUM and AVG: a sum and how many values are in it.

use super::{Accumulator, Rows, cast_exactly, native_column, natives};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{ArrowNativeType, DataType};
use streamjob_dataflow::TaskError;

/// One more than the largest unscaled decimal of 38 digits.
const DECIMAL_LIMIT: i128 = 100_000_000_000_000_000_000_000_000_000_000_000_000;

/// A number that is summed; `None` when the sum leaves its type.
pub(super) trait Summand: ArrowNativeType + Send {
    fn plus(self, other: Self) -> Option<Self>;
    fn minus(self, other: Self) -> Option<Self>;
}

impl Summand for i64 {
    #[inline(always)]
    fn plus(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Option<Self> {
        self.checked_sub(other)
    }
}

impl Summand for i128 {
    #[inline(always)]
    fn plus(self, other: Self) -> Option<Self> {
        self.checked_add(other).filter(|sum| sum.unsigned_abs() < DECIMAL_LIMIT as u128)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Option<Self> {
        self.checked_sub(other).filter(|sum| sum.unsigned_abs() < DECIMAL_LIMIT as u128)
    }
}

impl Summand for f64 {
    #[inline(always)]
    fn plus(self, other: Self) -> Option<Self> {
        Some(self + other)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Option<Self> {
        Some(self - other)
    }
}

impl Summand for f32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Option<Self> {
        Some(self + other)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Option<Self> {
        Some(self - other)
    }
}

/// Sum and count side by side: one cache line a row.
#[derive(Debug, Clone, Copy, Default)]
struct Cell<T> {
    sum: T,
    /// Values in the sum; without retractions only whether there are any matters.
    count: i64,
}

#[derive(Debug, Clone, PartialEq)]
enum Finish {
    Sum,
    IntegerAverage,
    FloatAverage,
    /// By how many digits the average is finer than the sum.
    DecimalAverage(u32),
}

struct Sums<T> {
    cells: Vec<Cell<T>>,
    /// Type of the sum while it is kept; arguments are widened to it.
    sum_type: DataType,
    result: DataType,
    finish: Finish,
    /// The count is part of the state; otherwise a NULL sum says that there were no values.
    counted: bool,
}

impl<T: Summand> Sums<T> {
    fn boxed(sum_type: DataType, result: DataType, finish: Finish, counted: bool) -> Box<dyn Accumulator>
    where
        Sums<T>: Finishing,
    {
        Box::new(Sums::<T> { cells: Vec::new(), sum_type, result, finish, counted })
    }

    fn overflow(&self) -> TaskError {
        TaskError::Data(format!("a sum does not fit {}; cast the argument to a larger type", self.sum_type))
    }

    fn values(&self, argument: &ArrayRef) -> Result<arrow::buffer::ScalarBuffer<T>, TaskError> {
        match argument.data_type() {
            // Only the precision differs: the stored numbers are the same.
            DataType::Decimal128(_, _) => Ok(natives::<T>(argument)),
            _ => Ok(natives::<T>(&cast_exactly(argument, &self.sum_type)?)),
        }
    }
}

/// How cells become results: integers, decimals and floating point differ.
trait Finishing {
    fn finished(&self, slots: &[u32]) -> Result<ArrayRef, TaskError>;
}

pub(super) fn sum(argument: &DataType, result: DataType, retractable: bool) -> Result<Box<dyn Accumulator>, String> {
    Ok(match argument {
        DataType::Float64 => Sums::<f64>::boxed(DataType::Float64, result, Finish::Sum, retractable),
        DataType::Float32 => Sums::<f32>::boxed(DataType::Float32, result, Finish::Sum, retractable),
        DataType::Decimal128(_, scale) => {
            Sums::<i128>::boxed(DataType::Decimal128(38, *scale), result, Finish::Sum, retractable)
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            Sums::<i64>::boxed(DataType::Int64, result, Finish::Sum, retractable)
        }
        other => return Err(format!("SUM needs a number, found {other}")),
    })
}

pub(super) fn average(argument: &DataType, result: DataType) -> Result<Box<dyn Accumulator>, String> {
    Ok(match argument {
        DataType::Float64 | DataType::Float32 => {
            Sums::<f64>::boxed(DataType::Float64, result, Finish::FloatAverage, true)
        }
        DataType::Decimal128(_, scale) => {
            let finer = match result {
                DataType::Decimal128(_, of_result) => (of_result as i32 - *scale as i32).max(0) as u32,
                _ => 0,
            };
            Sums::<i128>::boxed(DataType::Decimal128(38, *scale), result, Finish::DecimalAverage(finer), true)
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            Sums::<i64>::boxed(DataType::Int64, result, Finish::IntegerAverage, true)
        }
        other => return Err(format!("AVG needs a number, found {other}")),
    })
}

impl<T: Summand> Accumulator for Sums<T>
where
    Sums<T>: Finishing,
{
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
        let Some(argument) = argument else { return Ok(()) };
        let values = self.values(argument)?;
        let cells = self.cells.as_mut_slice();
        let fits = rows.each(|row, slot, sign| {
            let cell = &mut cells[slot];
            let sum = if sign > 0 { cell.sum.plus(values[row]) } else { cell.sum.minus(values[row]) };
            match sum {
                Some(sum) => {
                    cell.sum = sum;
                    cell.count += sign as i64;
                    Ok(())
                }
                None => Err(()),
            }
        });
        fits.map_err(|()| self.overflow())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        let sums = natives::<T>(&state[0]);
        let counts = self.counted.then(|| natives::<i64>(&state[1]));
        for (row, &slot) in slots.iter().enumerate() {
            if state[0].is_null(row) {
                continue;
            }
            let cell = &mut self.cells[slot as usize];
            match cell.sum.plus(sums[row]) {
                Some(sum) => cell.sum = sum,
                None => return Err(self.overflow()),
            }
            cell.count += counts.as_ref().map_or(1, |counts| counts[row]);
        }
        Ok(())
    }

    fn result(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        self.finished(slots)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        let mut types = vec![("", self.sum_type.clone())];
        if self.counted {
            types.push(("_values", DataType::Int64));
        }
        types
    }

    fn state(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TaskError> {
        let mut columns = vec![self.sums(slots, &self.sum_type)?];
        if self.counted {
            let counts: Vec<i64> = slots.iter().map(|&slot| self.cells[slot as usize].count).collect();
            columns.push(native_column(&DataType::Int64, counts, None)?);
        }
        Ok(columns)
    }

    fn restore(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), TaskError> {
        let sums = natives::<T>(&state[0]);
        let counts = self.counted.then(|| natives::<i64>(&state[1]));
        for (row, &slot) in slots.iter().enumerate() {
            self.cells[slot as usize] = if state[0].is_null(row) {
                Cell::default()
            } else {
                Cell { sum: sums[row], count: counts.as_ref().map_or(1, |counts| counts[row]) }
            };
        }
        Ok(())
    }
}

impl<T: Summand> Sums<T> {
    /// The sums themselves, NULL where there are no values.
    fn sums(&self, slots: &[u32], data_type: &DataType) -> Result<ArrayRef, TaskError> {
        let mut any_empty = false;
        let sum = |&slot: &u32| {
            let cell = self.cells[slot as usize];
            any_empty |= cell.count == 0;
            cell.sum
        };
        let mut values: Vec<T> = slots.iter().map(sum).collect();
        if !any_empty {
            return native_column(data_type, values, None);
        }
        let valid: Vec<bool> = slots.iter().map(|&slot| self.cells[slot as usize].count != 0).collect();
        for (value, valid) in values.iter_mut().zip(&valid) {
            if !valid {
                *value = T::default();
            }
        }
        native_column(data_type, values, Some(valid))
    }

    fn averages<R: ArrowNativeType>(
        &self,
        slots: &[u32],
        data_type: &DataType,
        divide: impl Fn(T, i64) -> Option<R>,
    ) -> Result<ArrayRef, TaskError> {
        let mut values = Vec::with_capacity(slots.len());
        let mut valid = Vec::with_capacity(slots.len());
        for &slot in slots {
            let cell = self.cells[slot as usize];
            valid.push(cell.count != 0);
            values.push(if cell.count == 0 {
                R::default()
            } else {
                divide(cell.sum, cell.count).ok_or_else(|| self.overflow())?
            });
        }
        native_column(data_type, values, Some(valid))
    }
}

impl Finishing for Sums<i64> {
    fn finished(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        let wide = match self.finish {
            // Towards zero, as integers divide in Java.
            Finish::IntegerAverage => self.averages(slots, &DataType::Int64, |sum, count| sum.checked_div(count))?,
            _ => self.sums(slots, &DataType::Int64)?,
        };
        cast_exactly(&wide, &self.result).map_err(|_| {
            TaskError::Data(format!("a sum does not fit {}; cast the argument to BIGINT or DECIMAL", self.result))
        })
    }
}

impl Finishing for Sums<i128> {
    fn finished(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        match self.finish {
            Finish::DecimalAverage(finer) => {
                let scale = 10i128.pow(finer);
                self.averages(slots, &self.result, |sum, count| divide_half_up(sum, count as i128, scale))
            }
            _ => self.sums(slots, &self.result),
        }
    }
}

impl Finishing for Sums<f64> {
    fn finished(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        let wide = match self.finish {
            Finish::FloatAverage => self.averages(slots, &DataType::Float64, |sum, count| Some(sum / count as f64))?,
            _ => self.sums(slots, &DataType::Float64)?,
        };
        Ok(cast_exactly(&wide, &self.result)?)
    }
}

impl Finishing for Sums<f32> {
    fn finished(&self, slots: &[u32]) -> Result<ArrayRef, TaskError> {
        self.sums(slots, &DataType::Float32)
    }
}

/// `sum * scale / count`, rounded half away from zero; `None` beyond 38 digits.
fn divide_half_up(sum: i128, count: i128, scale: i128) -> Option<i128> {
    let (whole, rest) = (sum.checked_div(count)?, sum.checked_rem(count)?);
    let rest = rest.checked_mul(scale)?;
    let (fraction, remainder) = (rest / count, rest % count);
    let mut value = whole.checked_mul(scale)?.checked_add(fraction)?;
    if remainder.unsigned_abs() * 2 >= count.unsigned_abs() {
        value = value.checked_add(if (sum < 0) == (count < 0) { 1 } else { -1 })?;
    }
    (value.unsigned_abs() < DECIMAL_LIMIT as u128).then_some(value)
}
