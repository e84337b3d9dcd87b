//! Reads Arrow columns a cell at a time for the connectors that write rows as text. One `match` a cell, no virtual
//! calls and no allocation.

use crate::error::ConnectorError;
use arrow::array::*;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{MICROSECONDS, MILLISECONDS, NANOSECONDS};

/// One cell.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    /// Unscaled value and scale.
    Decimal(i128, i8),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since the epoch.
    Date(i32),
    /// Nanoseconds since midnight.
    Time(i64),
    Timestamp {
        seconds: i64,
        nanos: u32,
        /// A point in time (`TIMESTAMP_LTZ`) rather than a wall-clock reading.
        instant: bool,
    },
    Row(&'a Columns<'a>, usize),
    /// Elements `start..end` of the column.
    List(&'a Column<'a>, usize, usize),
}

/// The columns of a batch or of a nested row.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    pub columns: Vec<Column<'a>>,
}

#[derive(Debug)]
pub(crate) enum Column<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a Int8Array),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt8(&'a UInt8Array),
    UInt16(&'a UInt16Array),
    UInt32(&'a UInt32Array),
    UInt64(&'a UInt64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    /// Values in units of `nanos` nanoseconds.
    Time32(&'a [i32], &'a dyn Array, i64),
    Time64(&'a [i64], &'a dyn Array, i64),
    /// `per_second` units a second.
    Timestamp {
        values: &'a [i64],
        array: &'a dyn Array,
        per_second: i64,
        instant: bool,
    },
    Row(&'a StructArray, Columns<'a>),
    List(&'a ListArray, Box<Column<'a>>),
}

fn units_per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => MILLISECONDS,
        TimeUnit::Microsecond => MICROSECONDS,
        TimeUnit::Nanosecond => NANOSECONDS,
    }
}

impl<'a> Columns<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Columns<'a>, ConnectorError> {
        let columns = batch.columns().iter().map(|array| Column::of(array.as_ref())).collect::<Result<_, _>>()?;
        Ok(Columns { columns })
    }
}

/// Whether every column of the schema can be read as cells; names the first that cannot.
pub(crate) fn check_schema(schema: &Schema) -> Result<(), String> {
    for field in schema.fields() {
        let array = new_empty_array(field.data_type());
        if Column::of(array.as_ref()).is_err() {
            return Err(format!(
                "column '{}' has the type {}, which cannot be written",
                field.name(),
                field.data_type()
            ));
        }
    }
    Ok(())
}

impl<'a> Column<'a> {
    pub fn of(array: &'a dyn Array) -> Result<Column<'a>, ConnectorError> {
        Ok(match array.data_type() {
            DataType::Null => Column::Null,
            DataType::Boolean => Column::Boolean(array.as_boolean()),
            DataType::Int8 => Column::Int8(array.as_primitive()),
            DataType::Int16 => Column::Int16(array.as_primitive()),
            DataType::Int32 => Column::Int32(array.as_primitive()),
            DataType::Int64 => Column::Int64(array.as_primitive()),
            DataType::UInt8 => Column::UInt8(array.as_primitive()),
            DataType::UInt16 => Column::UInt16(array.as_primitive()),
            DataType::UInt32 => Column::UInt32(array.as_primitive()),
            DataType::UInt64 => Column::UInt64(array.as_primitive()),
            DataType::Float32 => Column::Float32(array.as_primitive()),
            DataType::Float64 => Column::Float64(array.as_primitive()),
            DataType::Decimal128(_, scale) => Column::Decimal(array.as_primitive(), *scale),
            DataType::Utf8 => Column::Utf8(array.as_string()),
            DataType::LargeUtf8 => Column::LargeUtf8(array.as_string()),
            DataType::Utf8View => Column::Utf8View(array.as_string_view()),
            DataType::Binary => Column::Binary(array.as_binary()),
            DataType::Date32 => Column::Date(array.as_primitive()),
            DataType::Time32(unit) => {
                let nanos = NANOSECONDS / units_per_second(unit);
                let values: &[i32] = match unit {
                    TimeUnit::Second => array.as_primitive::<arrow::datatypes::Time32SecondType>().values(),
                    _ => array.as_primitive::<arrow::datatypes::Time32MillisecondType>().values(),
                };
                Column::Time32(values, array, nanos)
            }
            DataType::Time64(unit) => {
                let nanos = NANOSECONDS / units_per_second(unit);
                let values: &[i64] = match unit {
                    TimeUnit::Microsecond => array.as_primitive::<arrow::datatypes::Time64MicrosecondType>().values(),
                    _ => array.as_primitive::<arrow::datatypes::Time64NanosecondType>().values(),
                };
                Column::Time64(values, array, nanos)
            }
            DataType::Timestamp(unit, zone) => {
                use arrow::datatypes::*;
                let values: &[i64] = match unit {
                    TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                    TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
                    TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
                    TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
                };
                Column::Timestamp { values, array, per_second: units_per_second(unit), instant: zone.is_some() }
            }
            DataType::Struct(_) => {
                let row = array.as_struct();
                let columns = row.columns().iter().map(|child| Column::of(child.as_ref())).collect::<Result<_, _>>()?;
                Column::Row(row, Columns { columns })
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Column::List(list, Box::new(Column::of(list.values().as_ref())?))
            }
            other => {
                return Err(ArrowError::NotYetImplemented(format!("columns of type {other} cannot be written")).into());
            }
        })
    }

    #[inline]
    fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Null => true,
            Column::Boolean(array) => array.is_null(row),
            Column::Int8(array) => array.is_null(row),
            Column::Int16(array) => array.is_null(row),
            Column::Int32(array) => array.is_null(row),
            Column::Int64(array) => array.is_null(row),
            Column::UInt8(array) => array.is_null(row),
            Column::UInt16(array) => array.is_null(row),
            Column::UInt32(array) => array.is_null(row),
            Column::UInt64(array) => array.is_null(row),
            Column::Float32(array) => array.is_null(row),
            Column::Float64(array) => array.is_null(row),
            Column::Decimal(array, _) => array.is_null(row),
            Column::Utf8(array) => array.is_null(row),
            Column::LargeUtf8(array) => array.is_null(row),
            Column::Utf8View(array) => array.is_null(row),
            Column::Binary(array) => array.is_null(row),
            Column::Date(array) => array.is_null(row),
            Column::Time32(_, array, _) => array.is_null(row),
            Column::Time64(_, array, _) => array.is_null(row),
            Column::Timestamp { array, .. } => array.is_null(row),
            Column::Row(array, _) => array.is_null(row),
            Column::List(array, _) => array.is_null(row),
        }
    }

    #[inline]
    pub fn cell(&'a self, row: usize) -> Cell<'a> {
        if self.is_null(row) {
            return Cell::Null;
        }
        match self {
            Column::Null => Cell::Null,
            Column::Boolean(array) => Cell::Boolean(array.value(row)),
            Column::Int8(array) => Cell::Integer(array.value(row).into()),
            Column::Int16(array) => Cell::Integer(array.value(row).into()),
            Column::Int32(array) => Cell::Integer(array.value(row).into()),
            Column::Int64(array) => Cell::Integer(array.value(row)),
            Column::UInt8(array) => Cell::Unsigned(array.value(row).into()),
            Column::UInt16(array) => Cell::Unsigned(array.value(row).into()),
            Column::UInt32(array) => Cell::Unsigned(array.value(row).into()),
            Column::UInt64(array) => Cell::Unsigned(array.value(row)),
            Column::Float32(array) => Cell::Float(array.value(row)),
            Column::Float64(array) => Cell::Double(array.value(row)),
            Column::Decimal(array, scale) => Cell::Decimal(array.value(row), *scale),
            Column::Utf8(array) => Cell::Text(array.value(row)),
            Column::LargeUtf8(array) => Cell::Text(array.value(row)),
            Column::Utf8View(array) => Cell::Text(array.value(row)),
            Column::Binary(array) => Cell::Bytes(array.value(row)),
            Column::Date(array) => Cell::Date(array.value(row)),
            Column::Time32(values, _, nanos) => Cell::Time(i64::from(values[row]) * nanos),
            Column::Time64(values, _, nanos) => Cell::Time(values[row] * nanos),
            Column::Timestamp { values, per_second, instant, .. } => Cell::Timestamp {
                seconds: values[row].div_euclid(*per_second),
                nanos: (values[row].rem_euclid(*per_second) * (NANOSECONDS / per_second)) as u32,
                instant: *instant,
            },
            Column::Row(_, columns) => Cell::Row(columns, row),
            Column::List(array, child) => {
                let offsets = array.value_offsets();
                Cell::List(child, offsets[row] as usize, offsets[row + 1] as usize)
            }
        }
    }
}
