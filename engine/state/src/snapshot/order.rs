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
use std::ops::Range;
use std::sync::Arc;
use streamjob_protocol::manifest::KeyGroupRange;

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

    /// All columns, which have a value for every row.
    pub fn columns(&self, columns: &[ArrayRef]) -> Result<Vec<Sorted>, StateError> {
        let mut rows: Option<Arc<UInt32Array>> = None;
        columns
            .iter()
            .map(|column| {
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
                    _ => {
                        let rows = rows.get_or_insert_with(|| Arc::new(UInt32Array::from(self.rows())));
                        return Ok(Sorted::Gather(column.clone(), rows.clone()));
                    }
                }))
            })
            .collect()
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
