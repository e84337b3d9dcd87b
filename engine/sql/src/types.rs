//! Flink's SQL types as Arrow types.
//!
//! `TIMESTAMP(p)` is a `Timestamp` without zone in the coarsest unit that holds `p` digits, `TIMESTAMP_LTZ(p)` the same
//! with the zone UTC, character strings are `Utf8`, `DECIMAL` is `Decimal128`, `ROW` is `Struct`.

use crate::position::Position;
use arrow::datatypes::{DataType, Field, TimeUnit};
use sqlparser::ast::{CharacterLength, DataType as SqlType, ExactNumberInfo, TimezoneInfo};
use std::sync::Arc;
use streamjob_dataflow::PlanError;

/// Flink's largest precision of `DECIMAL`.
pub const MAX_DECIMAL_PRECISION: u8 = 38;

pub fn timestamp(precision: u64, local_zone: bool) -> DataType {
    let unit = match precision {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    };
    DataType::Timestamp(unit, local_zone.then(|| "UTC".into()))
}

pub fn decimal(precision: u64, scale: i64) -> Result<DataType, String> {
    if precision == 0 || precision > u64::from(MAX_DECIMAL_PRECISION) {
        return Err(format!("DECIMAL precision must be between 1 and {MAX_DECIMAL_PRECISION}, found {precision}"));
    }
    match i8::try_from(scale) {
        Ok(small) if scale >= 0 && scale as u64 <= precision => Ok(DataType::Decimal128(precision as u8, small)),
        _ => Err(format!("DECIMAL scale must be between 0 and the precision {precision}, found {scale}")),
    }
}

/// The type as Flink writes it, for messages.
pub fn describe(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(unit, zone) => {
            let precision = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("TIMESTAMP{}({precision})", if zone.is_some() { "_LTZ" } else { "" })
        }
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("`{}` {}", field.name(), describe(field.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        other => other.to_string(),
    }
}

/// What values of a type can be compared and combined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Null,
    Boolean,
    Number,
    Text,
    Bytes,
    Date,
    Timestamp,
    /// `TIMESTAMP_LTZ`: an instant.
    Instant,
    Interval,
    Row,
    Other,
}

pub fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Null => Family::Null,
        DataType::Boolean => Family::Boolean,
        DataType::Utf8 => Family::Text,
        DataType::Binary => Family::Bytes,
        DataType::Date32 => Family::Date,
        DataType::Timestamp(_, None) => Family::Timestamp,
        DataType::Timestamp(_, Some(_)) => Family::Instant,
        DataType::Interval(_) | DataType::Duration(_) => Family::Interval,
        DataType::Struct(_) => Family::Row,
        other if other.is_numeric() => Family::Number,
        _ => Family::Other,
    }
}

pub fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

/// The decimal that holds every value of an integer type, as Flink chooses it.
pub fn integer_as_decimal(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Int8 => Some((3, 0)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// Whether Flink casts `from` to `to` by itself when a query's column goes into a sink's.
pub fn casts_implicitly(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    if from == to || *from == Null {
        return true;
    }
    match to {
        Int16 => *from == Int8,
        Int32 => matches!(from, Int8 | Int16),
        Int64 => matches!(from, Int8 | Int16 | Int32),
        Float32 => is_integer(from) || matches!(from, Decimal128(..)),
        Float64 => family(from) == Family::Number,
        Decimal128(..) => family(from) == Family::Number,
        Timestamp(..) => matches!(from, Timestamp(..)),
        Date32 => matches!(from, Timestamp(_, None)),
        Struct(to) => match from {
            Struct(from) => {
                from.len() == to.len()
                    && from.iter().zip(to).all(|(from, to)| casts_implicitly(from.data_type(), to.data_type()))
            }
            _ => false,
        },
        _ => false,
    }
}

/// The target type of a `CAST`, as the expression parser read it.
pub fn of_cast(sql_type: &SqlType, position: Position) -> Result<DataType, PlanError> {
    let refuse = |message: String| Err(position.error(message));
    let with_length = |length: &Option<CharacterLength>, data_type: DataType| match length {
        None => Ok(data_type),
        Some(CharacterLength::IntegerLength { length, .. }) if *length == i32::MAX as u64 => Ok(data_type),
        Some(_) => refuse(format!(
            "CAST to {sql_type} would cut or pad the value, which is not supported; cast to STRING and use SUBSTRING"
        )),
    };
    Ok(match sql_type {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(None) => DataType::Int8,
        SqlType::SmallInt(None) => DataType::Int16,
        SqlType::Int(None) | SqlType::Integer(None) => DataType::Int32,
        SqlType::BigInt(None) => DataType::Int64,
        SqlType::Float(ExactNumberInfo::None) | SqlType::Real => DataType::Float32,
        SqlType::Double(ExactNumberInfo::None) | SqlType::DoublePrecision => DataType::Float64,
        SqlType::Decimal(info) | SqlType::Dec(info) | SqlType::Numeric(info) => {
            let (precision, scale) = match info {
                ExactNumberInfo::None => (10, 0),
                ExactNumberInfo::Precision(precision) => (*precision, 0),
                ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
            };
            match decimal(precision, scale) {
                Ok(data_type) => data_type,
                Err(message) => return refuse(message),
            }
        }
        SqlType::String(None) => DataType::Utf8,
        SqlType::Varchar(length) | SqlType::CharacterVarying(length) | SqlType::CharVarying(length) => {
            with_length(length, DataType::Utf8)?
        }
        SqlType::Char(_) | SqlType::Character(_) => {
            return refuse(format!("CAST to {sql_type} would cut or pad the value; cast to STRING"));
        }
        SqlType::Bytes(None) => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            timestamp(cast_precision(precision.unwrap_or(6), position)?, false)
        }
        SqlType::Custom(name, arguments) if name.to_string().eq_ignore_ascii_case("TIMESTAMP_LTZ") => {
            match arguments.as_slice() {
                [] => timestamp(6, true),
                [precision] => match precision.parse() {
                    Ok(precision) => timestamp(cast_precision(precision, position)?, true),
                    Err(_) => return refuse(format!("the precision of TIMESTAMP_LTZ must be a number: {precision}")),
                },
                _ => return refuse("TIMESTAMP_LTZ takes one precision".into()),
            }
        }
        _ => {
            return refuse(format!(
                "CAST to {sql_type} is not supported; supported: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, \
                 DECIMAL(p, s), STRING, BYTES, DATE, TIMESTAMP(p), TIMESTAMP_LTZ(p)"
            ));
        }
    })
}

/// A cast to another precision would have to cut digits that the Arrow type keeps.
fn cast_precision(precision: u64, position: Position) -> Result<u64, PlanError> {
    if matches!(precision, 3 | 6 | 9) {
        return Ok(precision);
    }
    Err(position.error(format!("a cast to a timestamp of precision {precision} is not supported; use 3, 6 or 9")))
}

/// A nullable field.
pub fn nullable(name: &str, data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new(name, data_type, true))
}
