//! The canonical encoding of key rows (described in [`crate::keys`]): whole columns in, bytes of rows out, and back.

use crate::error::StateError;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, TimeUnit};

const NULL: u8 = 0;
const PRESENT: u8 = 1;

/// How the values of a type are stored and encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Boolean,
    /// Little-endian, this many bytes.
    Fixed(usize),
    Float32,
    Float64,
    /// Length-prefixed; UTF-8 or not.
    Bytes,
}

pub(crate) fn layout(data_type: &DataType) -> Result<Layout, StateError> {
    Ok(match data_type {
        DataType::Boolean => Layout::Boolean,
        DataType::Int8 | DataType::UInt8 => Layout::Fixed(1),
        DataType::Int16 | DataType::UInt16 => Layout::Fixed(2),
        DataType::Int32 | DataType::UInt32 | DataType::Date32 => Layout::Fixed(4),
        DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond) => Layout::Fixed(4),
        DataType::Int64 | DataType::UInt64 | DataType::Timestamp(_, _) => Layout::Fixed(8),
        DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Layout::Fixed(8),
        DataType::Decimal128(_, _) => Layout::Fixed(16),
        DataType::Float32 => Layout::Float32,
        DataType::Float64 => Layout::Float64,
        DataType::Utf8 | DataType::Binary => Layout::Bytes,
        other => return Err(StateError::KeyType(other.clone())),
    })
}

/// One bit pattern for all NaNs, and 0.0 for -0.0, so that equal keys have equal bytes.
#[inline(always)]
pub(crate) fn canonical_f64(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

#[inline(always)]
pub(crate) fn canonical_f32(value: f32) -> u32 {
    if value.is_nan() {
        f32::NAN.to_bits() & !(1 << 31)
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

/// The stored values of a fixed-width column, whatever its logical type.
pub(crate) fn fixed_values<T: ArrowNativeType>(array: &ArrayRef) -> ScalarBuffer<T> {
    let data = array.to_data();
    ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
}

/// Offsets and bytes of a string or binary column.
pub(crate) fn byte_values(array: &ArrayRef) -> (OffsetBuffer<i32>, Buffer) {
    if array.data_type() == &DataType::Utf8 {
        let strings = array.as_string::<i32>();
        (strings.offsets().clone(), strings.values().clone())
    } else {
        let binary = array.as_binary::<i32>();
        (binary.offsets().clone(), binary.values().clone())
    }
}

/// Key rows of a batch, encoded back to back. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct EncodedRows {
    bytes: Vec<u8>,
    /// Where each row starts; one more than rows.
    starts: Vec<usize>,
    cursors: Vec<usize>,
}

impl EncodedRows {
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[self.starts[row]..self.starts[row + 1]]
    }

    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<(), StateError> {
        let mut layouts = Vec::with_capacity(columns.len());
        for column in columns {
            layouts.push(layout(column.data_type())?);
            if column.len() != rows {
                return Err(StateError::KeyShape(format!("{} rows in a column of a batch of {rows}", column.len())));
            }
        }
        self.measure(columns, &layouts, rows);
        let total = self.starts[rows];
        self.bytes.clear();
        self.bytes.resize(total, 0);
        self.cursors.clear();
        self.cursors.extend_from_slice(&self.starts[..rows]);
        for (column, layout) in columns.iter().zip(&layouts) {
            self.write(column, *layout);
        }
        Ok(())
    }

    fn measure(&mut self, columns: &[ArrayRef], layouts: &[Layout], rows: usize) {
        let starts = &mut self.starts;
        starts.clear();
        starts.resize(rows + 1, 0);
        // Lengths first, shifted by one; then their running sum.
        let lengths = &mut starts[1..];
        for (column, layout) in columns.iter().zip(layouts) {
            let width = match layout {
                Layout::Boolean => 1,
                Layout::Fixed(width) => *width,
                Layout::Float32 => 4,
                Layout::Float64 => 8,
                Layout::Bytes => 4,
            };
            match column.nulls() {
                None => {
                    for length in lengths.iter_mut() {
                        *length += 1 + width;
                    }
                }
                Some(nulls) => {
                    for (length, valid) in lengths.iter_mut().zip(nulls.iter()) {
                        *length += if valid { 1 + width } else { 1 };
                    }
                }
            }
            if *layout == Layout::Bytes {
                let (offsets, _) = byte_values(column);
                for (row, length) in lengths.iter_mut().enumerate() {
                    if column.is_valid(row) {
                        *length += (offsets[row + 1] - offsets[row]) as usize;
                    }
                }
            }
        }
        let mut total = 0;
        for start in starts.iter_mut() {
            total += *start;
            *start = total;
        }
    }

    fn write(&mut self, column: &ArrayRef, layout: Layout) {
        let nulls = column.nulls();
        match layout {
            Layout::Boolean => {
                let values: &BooleanArray = column.as_boolean();
                self.write_fixed(nulls, |row| [values.value(row) as u8]);
            }
            Layout::Fixed(1) => {
                let values = fixed_values::<u8>(column);
                self.write_fixed(nulls, |row| [values[row]]);
            }
            Layout::Fixed(2) => {
                let values = fixed_values::<u16>(column);
                self.write_fixed(nulls, |row| values[row].to_le_bytes());
            }
            Layout::Fixed(4) => {
                let values = fixed_values::<u32>(column);
                self.write_fixed(nulls, |row| values[row].to_le_bytes());
            }
            Layout::Fixed(8) => {
                let values = fixed_values::<u64>(column);
                self.write_fixed(nulls, |row| values[row].to_le_bytes());
            }
            Layout::Fixed(_) => {
                let values = fixed_values::<i128>(column);
                self.write_fixed(nulls, |row| values[row].to_le_bytes());
            }
            Layout::Float32 => {
                let values = fixed_values::<f32>(column);
                self.write_fixed(nulls, |row| canonical_f32(values[row]).to_le_bytes());
            }
            Layout::Float64 => {
                let values = fixed_values::<f64>(column);
                self.write_fixed(nulls, |row| canonical_f64(values[row]).to_le_bytes());
            }
            Layout::Bytes => {
                let (offsets, data) = byte_values(column);
                for row in 0..column.len() {
                    let at = self.cursors[row];
                    if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                        self.bytes[at] = NULL;
                        self.cursors[row] = at + 1;
                        continue;
                    }
                    let value = &data[offsets[row] as usize..offsets[row + 1] as usize];
                    self.bytes[at] = PRESENT;
                    self.bytes[at + 1..at + 5].copy_from_slice(&(value.len() as u32).to_le_bytes());
                    self.bytes[at + 5..at + 5 + value.len()].copy_from_slice(value);
                    self.cursors[row] = at + 5 + value.len();
                }
            }
        }
    }

    #[inline(always)]
    fn write_fixed<const W: usize>(&mut self, nulls: Option<&NullBuffer>, value: impl Fn(usize) -> [u8; W]) {
        for (row, cursor) in self.cursors.iter_mut().enumerate() {
            let at = *cursor;
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                self.bytes[at] = NULL;
                *cursor = at + 1;
            } else {
                self.bytes[at] = PRESENT;
                self.bytes[at + 1..at + 1 + W].copy_from_slice(&value(row));
                *cursor = at + 1 + W;
            }
        }
    }
}

/// Turns encoded rows back into columns.
pub(crate) fn decode_rows(types: &[DataType], mut rows: Vec<&[u8]>) -> Result<Vec<ArrayRef>, StateError> {
    let mut columns = Vec::with_capacity(types.len());
    for data_type in types {
        columns.push(match layout(data_type)? {
            Layout::Boolean => {
                let (values, nulls) = read_fixed::<1>(&mut rows)?;
                let bits: BooleanBuffer = values.iter().map(|byte| *byte != 0).collect();
                std::sync::Arc::new(BooleanArray::new(bits, nulls)) as ArrayRef
            }
            Layout::Fixed(1) => fixed_column(data_type, read_fixed::<1>(&mut rows)?, 1)?,
            Layout::Fixed(2) => fixed_column(data_type, read_fixed::<2>(&mut rows)?, 2)?,
            Layout::Fixed(4) | Layout::Float32 => fixed_column(data_type, read_fixed::<4>(&mut rows)?, 4)?,
            Layout::Fixed(8) | Layout::Float64 => fixed_column(data_type, read_fixed::<8>(&mut rows)?, 8)?,
            Layout::Fixed(_) => fixed_column(data_type, read_fixed::<16>(&mut rows)?, 16)?,
            Layout::Bytes => read_bytes(data_type, &mut rows)?,
        });
    }
    Ok(columns)
}

/// A column of a fixed-width type from its raw little-endian values.
pub(crate) fn fixed_column(
    data_type: &DataType,
    (values, nulls): (MutableBuffer, Option<NullBuffer>),
    width: usize,
) -> Result<ArrayRef, StateError> {
    let data = arrow::array::ArrayData::builder(data_type.clone())
        .len(values.len() / width)
        .nulls(nulls)
        .add_buffer(values.into())
        .build()?;
    Ok(make_array(data))
}

fn short() -> StateError {
    StateError::KeyShape("an encoded key ends early".into())
}

/// Takes the tag of a row; true if a value follows.
#[inline(always)]
fn read_tag(row: &mut &[u8]) -> Result<bool, StateError> {
    let (tag, rest) = row.split_first().ok_or_else(short)?;
    *row = rest;
    Ok(*tag != NULL)
}

fn read_fixed<const W: usize>(rows: &mut [&[u8]]) -> Result<(MutableBuffer, Option<NullBuffer>), StateError> {
    let mut values = MutableBuffer::with_capacity(rows.len() * W);
    let mut valid = vec![true; rows.len()];
    let mut any_null = false;
    for (row, valid) in rows.iter_mut().zip(valid.iter_mut()) {
        if read_tag(row)? {
            let (value, rest) = row.split_first_chunk::<W>().ok_or_else(short)?;
            values.extend_from_slice(value);
            *row = rest;
        } else {
            values.extend_from_slice(&[0u8; W]);
            *valid = false;
            any_null = true;
        }
    }
    Ok((values, any_null.then(|| NullBuffer::from(valid))))
}

fn read_bytes(data_type: &DataType, rows: &mut [&[u8]]) -> Result<ArrayRef, StateError> {
    let mut offsets: Vec<i32> = Vec::with_capacity(rows.len() + 1);
    offsets.push(0);
    let mut data = Vec::new();
    let mut valid = vec![true; rows.len()];
    let mut any_null = false;
    for (row, valid) in rows.iter_mut().zip(valid.iter_mut()) {
        if read_tag(row)? {
            let (length, rest) = row.split_first_chunk::<4>().ok_or_else(short)?;
            let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
            data.extend_from_slice(value);
            *row = rest;
        } else {
            *valid = false;
            any_null = true;
        }
        let end = i32::try_from(data.len())
            .map_err(|_| StateError::KeyShape("more than 2 GiB of key text in one batch".into()))?;
        offsets.push(end);
    }
    let data = arrow::array::ArrayData::builder(data_type.clone())
        .len(rows.len())
        .nulls(any_null.then(|| NullBuffer::from(valid)))
        .add_buffer(Buffer::from_vec(offsets))
        .add_buffer(Buffer::from_vec(data))
        .build()?;
    Ok(make_array(data))
}
