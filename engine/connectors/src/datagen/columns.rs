//! Builds batches of generated rows, column by column.

use super::fields::{FieldSpec, Values};
use crate::error::ConnectorError;
use crate::projection::Placeholders;
use crate::random::{Stream, low, unit};
use crate::text::push_integer;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const DAY_MS: i64 = 86_400_000;

/// When rows happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// Row n at `base` + n / `rate` seconds; milliseconds since the epoch.
    Counted { base: i64, rate: u64 },
    /// All rows now.
    Wall(i64),
}

impl Clock {
    fn time(self, row: u64) -> i64 {
        match self {
            Clock::Counted { base, rate } => {
                base.saturating_add(i64::try_from(u128::from(row) * 1000 / u128::from(rate)).unwrap_or(i64::MAX))
            }
            Clock::Wall(now) => now,
        }
    }
}

pub(super) struct Generator<'a> {
    pub seed: u64,
    pub clock: Clock,
    /// The rows' numbers.
    pub ranges: &'a [Range<u64>],
    pub rows: usize,
    pub placeholders: &'a mut Placeholders,
}

/// Uniform in `min..=max`.
#[inline]
fn between(word: u64, min: i64, max: i64) -> i64 {
    let range = max.wrapping_sub(min) as u64;
    if range == u64::MAX {
        return word as i64;
    }
    min.wrapping_add(((u128::from(word) * u128::from(range + 1)) >> 64) as i64)
}

/// Uniform in `min..=max` with the random words of one row.
fn between_wide(stream: Stream, min: i128, max: i128) -> i128 {
    let range = (max - min) as u128 + 1;
    let word = (u128::from(stream.word(0)) << 64) | u128::from(stream.word(1));
    min + (word % range) as i128
}

impl Generator<'_> {
    pub fn column(&mut self, spec: &FieldSpec) -> Result<ArrayRef, ConnectorError> {
        if !spec.read {
            return Ok(self.placeholders.get(&spec.field, self.rows)?);
        }
        let tag = xxh3_64(spec.path.as_bytes());
        let stream = Stream::new(self.seed, tag);
        let nulls = self.nulls(spec, Stream::new(self.seed, tag ^ 1));
        let array: ArrayRef = match &spec.values {
            Values::Boolean => {
                let values: Vec<bool> = self.map(|row| stream.word(row) & 1 == 1);
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Values::Integer { min, max } => {
                let values = self.map(|row| between(stream.word(row), *min, *max));
                Arc::new(Int64Array::try_new(values.into(), nulls)?)
            }
            Values::Float { min, max } => {
                // The halves keep the difference finite.
                let values = self.map(|row| min + (max / 2.0 - min / 2.0) * unit(stream.word(row)) * 2.0);
                Arc::new(Float64Array::try_new(values.into(), nulls)?)
            }
            Values::Decimal { min, max, precision, scale } => {
                let values = self.map(|row| between_wide(stream.substream(row), *min, *max));
                let array = Decimal128Array::try_new(values.into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Text { length, variable } => {
                let (ends, bytes) = self.texts(|row, out| push_hex(out, stream.substream(row), *length, *variable));
                Arc::new(StringArray::try_new(ends, bytes.into(), nulls)?)
            }
            Values::Bytes { length, variable } => {
                let (ends, bytes) = self.texts(|row, out| push_bytes(out, stream.substream(row), *length, *variable));
                Arc::new(BinaryArray::try_new(ends, bytes.into(), nulls)?)
            }
            Values::Date => {
                let clock = self.clock;
                let values = self.map(|row| i32::try_from(clock.time(row).div_euclid(DAY_MS)).unwrap_or(i32::MAX));
                Arc::new(Date32Array::try_new(values.into(), nulls)?)
            }
            Values::Time => {
                let clock = self.clock;
                let values = self.map(|row| clock.time(row).rem_euclid(DAY_MS) * 1_000_000);
                Arc::new(Time64NanosecondArray::try_new(values.into(), nulls)?)
            }
            Values::Timestamp { max_past_ms } => {
                let clock = self.clock;
                let past = i64::try_from(*max_past_ms).unwrap_or(i64::MAX);
                let values = self.map(|row| clock.time(row).saturating_sub(between(stream.word(row), 0, past)));
                return timestamps(spec, values, nulls);
            }
            Values::Sequence { start, .. } => return self.sequence(spec, *start, nulls),
            Values::Row(fields) => {
                let children = fields.iter().map(|field| self.column(field)).collect::<Result<Vec<_>, _>>()?;
                let DataType::Struct(types) = spec.field.data_type() else {
                    return Ok(self.placeholders.get(&spec.field, self.rows)?);
                };
                // Fields of a row that is null are null, whoever looks at them.
                let children = match &nulls {
                    Some(nulls) => hide(types, children, nulls)?,
                    None => children,
                };
                Arc::new(StructArray::try_new_with_length(types.clone(), children, nulls, self.rows)?)
            }
        };
        as_declared(array, &spec.field)
    }

    fn sequence(&self, spec: &FieldSpec, start: i64, nulls: Option<NullBuffer>) -> Result<ArrayRef, ConnectorError> {
        let value = |row: u64| start.wrapping_add_unsigned(row);
        let array: ArrayRef = match spec.field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let (ends, bytes) = self.texts(|row, out| push_integer(out, value(row)));
                Arc::new(StringArray::try_new(ends, bytes.into(), nulls)?)
            }
            DataType::Decimal128(precision, scale) => {
                let factor = 10i128.pow((*scale).max(0) as u32);
                let values = self.map(|row| i128::from(value(row)) * factor);
                let array = Decimal128Array::try_new(values.into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            _ => Arc::new(Int64Array::try_new(self.map(value).into(), nulls)?),
        };
        as_declared(array, &spec.field)
    }

    fn map<T>(&self, mut value: impl FnMut(u64) -> T) -> Vec<T> {
        let mut values = Vec::with_capacity(self.rows);
        for range in self.ranges {
            values.extend(range.clone().map(&mut value));
        }
        values
    }

    fn texts(&self, mut push: impl FnMut(u64, &mut Vec<u8>)) -> (OffsetBuffer<i32>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(self.rows + 1);
        ends.push(0);
        for row in self.ranges.iter().cloned().flatten() {
            push(row, &mut bytes);
            ends.push(bytes.len() as i32);
        }
        (OffsetBuffer::new(ends.into()), bytes)
    }

    fn nulls(&self, spec: &FieldSpec, stream: Stream) -> Option<NullBuffer> {
        if spec.nulls == 0 {
            return None;
        }
        Some(NullBuffer::from(self.map(|row| stream.word(row) >> 32 >= spec.nulls)))
    }
}

fn as_declared(array: ArrayRef, field: &FieldRef) -> Result<ArrayRef, ConnectorError> {
    if array.data_type() == field.data_type() {
        return Ok(array);
    }
    Ok(cast(&array, field.data_type())?)
}

fn hide(types: &Fields, children: Vec<ArrayRef>, nulls: &NullBuffer) -> Result<Vec<ArrayRef>, ConnectorError> {
    let hidden = |(field, child): (&FieldRef, ArrayRef)| {
        if !field.is_nullable() {
            return Ok(child);
        }
        let both = NullBuffer::union(child.nulls(), Some(nulls));
        Ok(make_array(child.to_data().into_builder().nulls(both).build()?))
    };
    types.iter().zip(children).map(hidden).collect()
}

/// Milliseconds into the declared unit; the values are in UTC whatever the zone.
fn timestamps(spec: &FieldSpec, mut millis: Vec<i64>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ConnectorError> {
    let DataType::Timestamp(unit, _) = spec.field.data_type() else {
        return as_declared(Arc::new(TimestampMillisecondArray::try_new(millis.into(), nulls)?), &spec.field);
    };
    match unit {
        TimeUnit::Second => millis.iter_mut().for_each(|value| *value = value.div_euclid(1_000)),
        TimeUnit::Millisecond => {}
        TimeUnit::Microsecond => millis.iter_mut().for_each(|value| *value = value.saturating_mul(1_000)),
        TimeUnit::Nanosecond => millis.iter_mut().for_each(|value| *value = value.saturating_mul(1_000_000)),
    }
    let array = Int64Array::try_new(millis.into(), nulls)?;
    let data = array.into_data().into_builder().data_type(spec.field.data_type().clone()).build()?;
    Ok(make_array(data))
}

fn chosen_length(stream: Stream, length: u32, variable: bool) -> u32 {
    if variable { 1 + low(stream.word(0), length) } else { length }
}

fn push_hex(out: &mut Vec<u8>, stream: Stream, length: u32, variable: bool) {
    let length = chosen_length(stream, length, variable);
    for place in 0..length {
        let word = stream.word(1 + u64::from(place / 16));
        out.push(b"0123456789abcdef"[(word >> (4 * (place % 16))) as usize & 15]);
    }
}

fn push_bytes(out: &mut Vec<u8>, stream: Stream, length: u32, variable: bool) {
    let length = chosen_length(stream, length, variable);
    for place in 0..length {
        let word = stream.word(1 + u64::from(place / 8));
        out.push((word >> (8 * (place % 8))) as u8);
    }
}
