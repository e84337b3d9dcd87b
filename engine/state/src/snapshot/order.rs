//! Rows in order of key group: a stable counting sort that moves values straight to their places.
//!
//! Values of fixed width are read once, front to back, and written to one place a key group; only text and the like are
//! gathered row by row. Knows nothing of files.

use crate::encoding::{fixed_column, fixed_values};
use crate::error::StateError;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, UInt16Array, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use arrow::datatypes::{ArrowNativeType, DataType};
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::thread::available_parallelism;
use streamjob_protocol::manifest::KeyGroupRange;

/// From here on it pays to start threads.
const ROWS_WORTH_A_THREAD: usize = 1 << 18;
const MOST_THREADS: usize = 4;

/// Whether values of the type are moved to their places, not gathered from them.
fn is_moved(data_type: &DataType) -> bool {
    data_type == &DataType::Boolean || data_type.primitive_width().is_some_and(|width| width <= 16)
}

/// Where rows stand that are sorted by key group.
pub(crate) struct GroupOrder {
    /// By row: its place.
    places: Vec<u32>,
    /// Groups that have rows, ascending, and the first place of each.
    index: Vec<(u16, u64)>,
}

/// A column on its way into the order.
pub(crate) enum Sorted {
    /// Already in it.
    Values(ArrayRef),
    /// To be gathered, by the rows in order.
    Gather(ArrayRef, Arc<UInt32Array>),
}

impl GroupOrder {
    /// The order of rows with these groups, or the first group that is not in the range.
    pub fn new(groups: &[u16], range: KeyGroupRange) -> Result<GroupOrder, u16> {
        let width = (range.last as usize + 1).saturating_sub(range.first as usize);
        let mut next = vec![0u32; width];
        for &group in groups {
            match next.get_mut(group.wrapping_sub(range.first) as usize) {
                Some(count) => *count += 1,
                None => return Err(group),
            }
        }
        let mut index = Vec::new();
        let mut start = 0;
        for (group, next) in (range.first..=range.last).zip(&mut next) {
            let count = std::mem::replace(next, start);
            if count > 0 {
                index.push((group, start as u64));
            }
            start += count;
        }
        let place = |&group: &u16| {
            let place = &mut next[(group - range.first) as usize];
            *place += 1;
            *place - 1
        };
        Ok(GroupOrder { places: groups.iter().map(place).collect(), index })
    }

    pub fn index(&self) -> &[(u16, u64)] {
        &self.index
    }

    /// The rows in order.
    pub fn rows(&self) -> Vec<u32> {
        let mut rows = vec![0u32; self.places.len()];
        for (row, &place) in self.places.iter().enumerate() {
            rows[place as usize] = row as u32;
        }
        rows
    }

    /// The key groups of the rows in order.
    pub fn groups(&self) -> UInt16Array {
        let mut groups = Vec::with_capacity(self.places.len());
        for (number, (group, _)) in self.index.iter().enumerate() {
            let end = self.index.get(number + 1).map_or(self.places.len(), |(_, start)| *start as usize);
            groups.resize(end, *group);
        }
        UInt16Array::from(groups)
    }

    /// Marks in order; none set if there are none.
    pub fn marks(&self, marks: Option<&BooleanArray>) -> BooleanBuffer {
        match marks {
            None => BooleanBuffer::new_unset(self.places.len()),
            Some(marks) => match marks.nulls() {
                None => self.bits(marks.values()),
                Some(known) => self.bits(&(marks.values() & known.inner())),
            },
        }
    }

    /// All columns, which have a value for every row. Large tables are shared out among threads.
    pub fn columns(&self, columns: &[ArrayRef]) -> Result<Vec<Sorted>, StateError> {
        let gathers = columns.iter().any(|column| !is_moved(column.data_type()));
        let rows = Arc::new(UInt32Array::from(if gathers { self.rows() } else { Vec::new() }));
        let threads = match self.places.len() < ROWS_WORTH_A_THREAD {
            true => 1,
            false => available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS),
        };
        let sort = |part: &[ArrayRef]| part.iter().map(|column| self.column(column, &rows)).collect();
        if threads == 1 {
            return sort(columns);
        }
        std::thread::scope(|scope| {
            let parts: Vec<_> =
                columns.chunks(columns.len().div_ceil(threads).max(1)).map(|part| scope.spawn(|| sort(part))).collect();
            let mut sorted = Vec::with_capacity(columns.len());
            for part in parts {
                let part: Result<Vec<Sorted>, StateError> =
                    part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                sorted.extend(part?);
            }
            Ok(sorted)
        })
    }

    fn column(&self, column: &ArrayRef, rows: &Arc<UInt32Array>) -> Result<Sorted, StateError> {
        Ok(Sorted::Values(match column.data_type().primitive_width() {
            Some(1) => self.fixed::<u8>(column)?,
            Some(2) => self.fixed::<u16>(column)?,
            Some(4) => self.fixed::<u32>(column)?,
            Some(8) => self.fixed::<u64>(column)?,
            Some(16) => self.fixed::<i128>(column)?,
            _ if column.data_type() == &DataType::Boolean => {
                let values = self.bits(column.as_boolean().values());
                Arc::new(BooleanArray::new(values, self.nulls(column)))
            }
            _ => return Ok(Sorted::Gather(column.clone(), rows.clone())),
        }))
    }

    fn fixed<T: ArrowNativeType>(&self, column: &ArrayRef) -> Result<ArrayRef, StateError> {
        let mut sorted = vec![T::default(); self.places.len()];
        for (&value, &place) in fixed_values::<T>(column).iter().zip(&self.places) {
            sorted[place as usize] = value;
        }
        fixed_column(column.data_type(), (sorted.into(), self.nulls(column)), size_of::<T>())
    }

    fn bits(&self, bits: &BooleanBuffer) -> BooleanBuffer {
        let mut sorted = BooleanBufferBuilder::new(self.places.len());
        sorted.append_n(self.places.len(), false);
        for row in bits.set_indices() {
            sorted.set_bit(self.places[row] as usize, true);
        }
        sorted.finish()
    }

    fn nulls(&self, column: &ArrayRef) -> Option<NullBuffer> {
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0)?;
        Some(NullBuffer::new(self.bits(nulls.inner())))
    }
}

impl Sorted {
    /// The values at these places.
    pub fn chunk(&self, places: Range<usize>) -> Result<ArrayRef, StateError> {
        match self {
            Sorted::Values(column) => Ok(column.slice(places.start, places.len())),
            Sorted::Gather(column, rows) => Ok(take(column, &rows.slice(places.start, places.len()), None)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array, StringArray};
    use proptest::prelude::*;

    const RANGE: KeyGroupRange = KeyGroupRange { first: 3, last: 9 };

    fn columns(rows: usize, nulls: bool) -> Vec<ArrayRef> {
        let there = |row: usize| !nulls || !row.is_multiple_of(3);
        let number = |row: usize| there(row).then_some(row as i64 - 5);
        vec![
            Arc::new(Int8Array::from_iter((0..rows).map(|row| number(row).map(|value| value as i8)))),
            Arc::new(Int16Array::from_iter((0..rows).map(|row| number(row).map(|value| value as i16)))),
            Arc::new(Date32Array::from_iter((0..rows).map(|row| number(row).map(|value| value as i32)))),
            Arc::new(Float32Array::from_iter((0..rows).map(|row| number(row).map(|value| value as f32 / 3.0)))),
            Arc::new(Float64Array::from_iter((0..rows).map(|row| number(row).map(|value| value as f64 / 3.0)))),
            Arc::new(Decimal128Array::from_iter(
                (0..rows).map(|row| number(row).map(|value| value as i128 * 1_000_000)),
            )),
            Arc::new(BooleanArray::from_iter((0..rows).map(|row| number(row).map(|value| value % 2 == 0)))),
            Arc::new(StringArray::from_iter(
                (0..rows).map(|row| number(row).map(|value| "x".repeat(value as usize % 7))),
            )),
        ]
    }

    #[test]
    fn groups_outside_the_range_are_named() {
        for group in [0, 2, 10, u16::MAX] {
            assert_eq!(GroupOrder::new(&[5, group, 3], RANGE).err(), Some(group));
        }
        let all = KeyGroupRange { first: 0, last: u16::MAX };
        assert_eq!(GroupOrder::new(&[u16::MAX, 0], all).ok().unwrap().rows(), [1, 0]);
    }

    proptest! {
        #[test]
        fn columns_are_where_a_stable_sort_puts_them(groups in prop::collection::vec(3u16..=9, 0..200), nulls in any::<bool>(), from in 0usize..20) {
            let order = GroupOrder::new(&groups, RANGE).ok().unwrap();
            let mut expected: Vec<u32> = (0..groups.len() as u32).collect();
            expected.sort_by_key(|&row| groups[row as usize]);
            prop_assert_eq!(&order.rows(), &expected);
            let sorted: Vec<u16> = expected.iter().map(|&row| groups[row as usize]).collect();
            prop_assert_eq!(order.groups(), UInt16Array::from(sorted.clone()));
            for (group, first) in order.index() {
                prop_assert_eq!(sorted.iter().position(|other| other == group), Some(*first as usize));
            }
            // Slices of larger columns, too.
            let columns: Vec<ArrayRef> =
                columns(groups.len() + from, nulls).iter().map(|column| column.slice(from, groups.len())).collect();
            let rows = UInt32Array::from(expected);
            for (column, sorted) in columns.iter().zip(order.columns(&columns).unwrap()) {
                let expected = take(column, &rows, None).unwrap();
                let cut = groups.len() / 3;
                for range in [0..cut, cut..groups.len()] {
                    prop_assert_eq!(&sorted.chunk(range.clone()).unwrap(), &expected.slice(range.start, range.len()));
                }
            }
            let marks = BooleanArray::from_iter((0..groups.len()).map(|row| Some(row % 2 == 0)));
            let expected = take(&marks, &rows, None).unwrap();
            prop_assert_eq!(&order.marks(Some(&marks)), expected.as_boolean().values());
            prop_assert_eq!(order.marks(None).count_set_bits(), 0);
        }
    }
}
