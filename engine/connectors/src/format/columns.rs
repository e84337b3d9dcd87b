//! Columns under construction. A row that turns out to be broken is taken back with `truncate`, so a block is decoded
//! in one pass and nothing is parsed twice.

use super::parse;
use crate::projection::{Need, Placeholders, need};
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) struct ColumnBuilder {
    pub field: FieldRef,
    nulls: NullBufferBuilder,
    pub values: Values,
}

/// The values; null rows have a zero.
pub(super) enum Values {
    /// Nobody reads the column.
    Unread,
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Text(Texts),
    Bytes(Texts),
    Date(Vec<i32>),
    /// Nanoseconds since midnight.
    Time(Vec<i64>),
    Timestamp {
        values: Vec<i64>,
        /// Units a second.
        per_second: i64,
        instant: bool,
    },
    Row(Vec<ColumnBuilder>),
    List {
        ends: Vec<i32>,
        element: Box<ColumnBuilder>,
    },
}

pub(super) struct Texts {
    /// One more than there are rows.
    ends: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Texts {
    fn new() -> Self {
        Texts { ends: vec![0], bytes: Vec::new() }
    }

    /// Ends the text whose bytes were appended; a block of one `decode` is far below 2 GiB.
    pub fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.bytes.truncate(self.ends[rows] as usize);
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, arrow::buffer::Buffer) {
        let taken = std::mem::replace(self, Texts::new());
        self.ends.reserve(taken.ends.len());
        self.bytes.reserve(taken.bytes.len());
        (OffsetBuffer::new(taken.ends.into()), taken.bytes.into())
    }
}

fn per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

impl ColumnBuilder {
    /// # Errors
    /// Names the column whose type cannot be read from text.
    pub fn new<'a>(
        field: &'a FieldRef,
        path: &mut Vec<&'a str>,
        required: Option<&BTreeSet<Vec<String>>>,
    ) -> Result<ColumnBuilder, String> {
        path.push(field.name());
        let values = match field.data_type() {
            // Also to refuse types in columns that happen not to be read.
            DataType::Struct(fields) => {
                let columns = fields
                    .iter()
                    .map(|field| ColumnBuilder::new(field, path, required))
                    .collect::<Result<Vec<_>, _>>()?;
                Values::Row(columns)
            }
            DataType::List(element) => {
                let element = Box::new(ColumnBuilder::new(element, &mut vec![], None)?);
                Values::List { ends: vec![0], element }
            }
            DataType::Boolean => Values::Boolean(vec![]),
            DataType::Int8 => Values::Int8(vec![]),
            DataType::Int16 => Values::Int16(vec![]),
            DataType::Int32 => Values::Int32(vec![]),
            DataType::Int64 => Values::Int64(vec![]),
            DataType::Float32 => Values::Float32(vec![]),
            DataType::Float64 => Values::Float64(vec![]),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: vec![], precision: *precision, scale: *scale }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Text(Texts::new()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Values::Bytes(Texts::new()),
            DataType::Date32 => Values::Date(vec![]),
            DataType::Time32(_) | DataType::Time64(_) => Values::Time(vec![]),
            DataType::Timestamp(unit, zone) => {
                Values::Timestamp { values: vec![], per_second: per_second(unit), instant: zone.is_some() }
            }
            other => return Err(format!("column '{}' has the type {other}, which cannot be read", path.join("."))),
        };
        let unread = need(required, path) == Need::Nothing;
        path.pop();
        let values = if unread { Values::Unread } else { values };
        Ok(ColumnBuilder { field: field.clone(), nulls: NullBufferBuilder::new(0), values })
    }

    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    /// For people.
    pub fn type_name(&self) -> String {
        match self.field.data_type() {
            DataType::Int8 => "TINYINT".into(),
            DataType::Int16 => "SMALLINT".into(),
            DataType::Int32 => "INT".into(),
            DataType::Int64 => "BIGINT".into(),
            DataType::Float32 => "FLOAT".into(),
            DataType::Float64 => "DOUBLE".into(),
            DataType::Boolean => "BOOLEAN".into(),
            DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
            DataType::Date32 => "DATE".into(),
            DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
            DataType::Timestamp(_, None) => "TIMESTAMP".into(),
            DataType::Timestamp(_, Some(_)) => "TIMESTAMP_LTZ".into(),
            DataType::Struct(_) => "ROW".into(),
            DataType::List(_) => "ARRAY".into(),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
            _ => "STRING".into(),
        }
    }

    /// Marks the value just appended as present.
    pub fn present(&mut self) {
        self.nulls.append_non_null();
    }

    /// # Errors
    /// The column is `NOT NULL`.
    pub fn push_null(&mut self) -> Result<(), String> {
        if !self.field.is_nullable() && !matches!(self.values, Values::Unread) {
            return Err("the column is NOT NULL and there is no value".into());
        }
        self.push_absent();
        Ok(())
    }

    /// A null that nobody sees where the row around it is null.
    pub fn push_absent(&mut self) {
        match &mut self.values {
            Values::Unread => {}
            Values::Boolean(values) => values.push(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(texts) | Values::Bytes(texts) => texts.end(),
            Values::Row(columns) => columns.iter_mut().for_each(ColumnBuilder::push_absent),
            Values::List { ends, element } => ends.push(element.len() as i32),
        }
        self.nulls.append_null();
    }

    /// Takes back every row from `rows` on, whether or not it is complete.
    pub fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Unread => {}
            Values::Boolean(values) => values.truncate(rows),
            Values::Int8(values) => values.truncate(rows),
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp { values, .. } => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Text(texts) | Values::Bytes(texts) => texts.truncate(rows),
            Values::Row(columns) => columns.iter_mut().for_each(|column| column.truncate(rows)),
            Values::List { ends, element } => {
                ends.truncate(rows + 1);
                element.truncate(ends[rows] as usize);
            }
        }
        self.nulls.truncate(rows);
    }

    /// Appends a value written as text, which must be complete; `separator` stands between date and time.
    ///
    /// # Errors
    /// The reason, if the text is no value of the column's type; nothing is appended then. Rows and lists have no text.
    pub fn push_text(&mut self, text: &str, separator: u8) -> Result<(), String> {
        let trimmed = text.trim_ascii().as_bytes();
        let pushed = match &mut self.values {
            Values::Unread => true,
            Values::Text(texts) => {
                texts.bytes.extend_from_slice(text.as_bytes());
                texts.end();
                true
            }
            Values::Boolean(values) => {
                // Anything else is false, as in Java.
                values.push(trimmed.eq_ignore_ascii_case(b"true"));
                true
            }
            Values::Int8(values) => push_integer(values, trimmed),
            Values::Int16(values) => push_integer(values, trimmed),
            Values::Int32(values) => push_integer(values, trimmed),
            Values::Int64(values) => push_integer(values, trimmed),
            Values::Float32(values) => push(values, text.trim_ascii().parse().ok()),
            Values::Float64(values) => push(values, text.trim_ascii().parse().ok()),
            Values::Decimal { values, precision, scale } => match parse::decimal(trimmed, *precision, *scale) {
                parse::Decimal::Value(value) => push(values, Some(value)),
                parse::Decimal::TooLarge => return self.push_null(),
                parse::Decimal::NotANumber => false,
            },
            Values::Bytes(texts) => {
                let decoded = STANDARD.decode_vec(text, &mut texts.bytes).is_ok();
                if decoded {
                    texts.end();
                } else {
                    let rows = texts.ends.len() - 1;
                    texts.truncate(rows);
                }
                decoded
            }
            Values::Date(values) => push(values, parse::date(trimmed).and_then(|days| i32::try_from(days).ok())),
            Values::Time(values) => push(
                values,
                parse::time_of_day(trimmed)
                    .map(|(seconds, nanos)| i64::from(seconds) * 1_000_000_000 + i64::from(nanos)),
            ),
            Values::Timestamp { values, per_second, instant } => {
                let parsed = parse::timestamp(trimmed, separator, *instant);
                let in_units = |(seconds, nanos): (i64, u32)| {
                    let fraction = i64::from(nanos) / (1_000_000_000 / *per_second);
                    seconds.checked_mul(*per_second)?.checked_add(fraction)
                };
                push(values, parsed.and_then(in_units))
            }
            Values::Row(_) | Values::List { .. } => false,
        };
        if !pushed {
            return Err(format!("'{}' is not a {}", excerpt(text), self.type_name()));
        }
        self.present();
        Ok(())
    }

    /// The finished column, of the field's type; the builder is empty afterwards.
    pub fn finish(&mut self, rows: usize, placeholders: &mut Placeholders) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.values {
            Values::Unread => return placeholders.get(&self.field, rows),
            Values::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(take(values)), nulls)),
            Values::Int8(values) => primitive::<Int8Type>(values, nulls)?,
            Values::Int16(values) => primitive::<Int16Type>(values, nulls)?,
            Values::Int32(values) => primitive::<Int32Type>(values, nulls)?,
            Values::Int64(values) => primitive::<Int64Type>(values, nulls)?,
            Values::Float32(values) => primitive::<Float32Type>(values, nulls)?,
            Values::Float64(values) => primitive::<Float64Type>(values, nulls)?,
            Values::Decimal { values, precision, scale } => {
                let array = Decimal128Array::try_new(take(values).into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Text(texts) => {
                let (ends, bytes) = texts.take();
                Arc::new(StringArray::try_new(ends, bytes, nulls)?)
            }
            Values::Bytes(texts) => {
                let (ends, bytes) = texts.take();
                Arc::new(BinaryArray::try_new(ends, bytes, nulls)?)
            }
            Values::Date(values) => primitive::<Date32Type>(values, nulls)?,
            Values::Time(values) => primitive::<Time64NanosecondType>(values, nulls)?,
            Values::Timestamp { values, per_second, .. } => {
                let array = match per_second {
                    1 => primitive::<TimestampSecondType>(values, nulls)?,
                    1_000 => primitive::<TimestampMillisecondType>(values, nulls)?,
                    1_000_000 => primitive::<TimestampMicrosecondType>(values, nulls)?,
                    _ => primitive::<TimestampNanosecondType>(values, nulls)?,
                };
                // The values are in UTC already: only the type gets its zone.
                let zoned = array.to_data().into_builder().data_type(self.field.data_type().clone()).build()?;
                return Ok(make_array(zoned));
            }
            Values::Row(columns) => {
                let children = columns
                    .iter_mut()
                    .map(|column| column.finish(rows, placeholders))
                    .collect::<Result<Vec<_>, _>>()?;
                let DataType::Struct(fields) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError(format!("'{}' is not a row", self.field.name())));
                };
                return Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, rows)?));
            }
            Values::List { ends, element } => {
                let ends = std::mem::replace(ends, vec![0]);
                let values = element.finish(element.len(), placeholders)?;
                let DataType::List(field) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError(format!("'{}' is not a list", self.field.name())));
                };
                return Ok(Arc::new(ListArray::try_new(field.clone(), OffsetBuffer::new(ends.into()), values, nulls)?));
            }
        };
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        cast(&array, self.field.data_type())
    }
}

fn push<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let Some(value) = value else { return false };
    values.push(value);
    true
}

fn push_integer<T: TryFrom<i64>>(values: &mut Vec<T>, text: &[u8]) -> bool {
    push(values, parse::integer(text).and_then(|value| T::try_from(value).ok()))
}

/// Leaves a vector that is large enough for the next batch of the same size.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<arrow::buffer::NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(take(values).into(), nulls)?))
}

/// The beginning of a text, for messages.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
