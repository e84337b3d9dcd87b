//! `CAST` with Flink's results: which casts Arrow's kernels do the same, which are written here, which are refused.

use super::{Builtin, temporal::DatePattern, udf};
use crate::types::{Family, describe, family};
use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs};
use std::sync::Arc;

/// How a cast is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CastRule {
    /// By Arrow's kernel.
    Kernel,
    /// To text, by `to_text`.
    ToText,
    Refused,
}

pub fn cast_rule(from: &DataType, to: &DataType) -> CastRule {
    use CastRule::*;
    if from == to || *from == DataType::Null {
        return Kernel;
    }
    match (family(from), family(to)) {
        (Family::Number, Family::Text) if from.is_floating() => ToText,
        (Family::Number | Family::Date, Family::Text) => Kernel,
        (Family::Boolean | Family::Timestamp | Family::Instant, Family::Text) => ToText,
        (Family::Text, Family::Number | Family::Date | Family::Timestamp | Family::Text) => Kernel,
        (Family::Number, Family::Number) => Kernel,
        (Family::Boolean, Family::Number) if !matches!(to, DataType::Decimal128(..)) => Kernel,
        (Family::Number, Family::Boolean) if from.is_integer() => Kernel,
        (Family::Date | Family::Timestamp | Family::Instant, Family::Date | Family::Timestamp | Family::Instant) => {
            Kernel
        }
        // Rows only change their fields' nullability or names here; the fields are cast one by one.
        (Family::Row, Family::Row) | (Family::Interval, Family::Interval) => Kernel,
        _ => Refused,
    }
}

/// `expr` as text.
pub fn text_of(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(udf(Builtin::ToText), vec![expr]))
}

pub fn to_text(args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    match &args.args[0] {
        ColumnarValue::Array(array) => Ok(ColumnarValue::Array(Arc::new(texts(array)?))),
        ColumnarValue::Scalar(value) => {
            let array: ArrayRef = Arc::new(texts(&value.to_array()?)?);
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
        }
    }
}

fn texts(array: &ArrayRef) -> Result<StringArray> {
    match array.data_type() {
        DataType::Boolean => {
            let words = array.as_boolean().iter().map(|value| value.map(|value| if value { "TRUE" } else { "FALSE" }));
            Ok(words.collect())
        }
        DataType::Float32 => Ok(float_texts(
            array
                .as_primitive::<Float32Type>()
                .iter()
                .map(|value| value.map(|value| (f64::from(value), format!("{value:e}")))),
        )),
        DataType::Float64 => Ok(float_texts(
            array.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| (value, format!("{value:e}")))),
        )),
        DataType::Timestamp(unit, _) => {
            let pattern = match unit {
                TimeUnit::Second => "yyyy-MM-dd HH:mm:ss",
                TimeUnit::Millisecond => "yyyy-MM-dd HH:mm:ss.SSS",
                TimeUnit::Microsecond => "yyyy-MM-dd HH:mm:ss.SSSSSS",
                TimeUnit::Nanosecond => "yyyy-MM-dd HH:mm:ss.SSSSSSSSS",
            };
            match DatePattern::parse(pattern) {
                Ok(pattern) => pattern.format(array),
                Err(message) => exec_err!("{message}"),
            }
        }
        other => exec_err!("{} has no text form of its own", describe(other)),
    }
}

fn float_texts(values: impl ExactSizeIterator<Item = Option<(f64, String)>>) -> StringArray {
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * 8);
    for value in values {
        out.append_option(value.map(|(value, scientific)| java_float(value, &scientific)));
    }
    out.finish()
}

/// As Java writes it: plain from 0.001 to below ten million, with an exponent otherwise, always with a decimal point.
fn java_float(value: f64, scientific: &str) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let (sign, unsigned) = match scientific.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", scientific),
    };
    let Some((mantissa, Ok(exponent))) = unsigned.split_once('e').map(|(m, e)| (m, e.parse::<i32>())) else {
        return scientific.to_string();
    };
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if value == 0.0 {
        return format!("{sign}0.0");
    }
    if !(-3..7).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        return format!("{sign}{first}.{}E{exponent}", if rest.is_empty() { "0" } else { rest });
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Float32Array, Float64Array, TimestampMicrosecondArray, TimestampMillisecondArray,
    };

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (123.456, "123.456"),
            (0.001, "0.001"),
            (0.000999, "9.99E-4"),
            (9_999_999.0, "9999999.0"),
            (10_000_000.0, "1.0E7"),
            (-1.5e300, "-1.5E300"),
            (100.0, "100.0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, expected) in cases {
            let array: ArrayRef = Arc::new(Float64Array::from(vec![value]));
            assert_eq!(texts(&array).unwrap().value(0), expected);
        }
        let floats: ArrayRef = Arc::new(Float32Array::from(vec![0.1f32]));
        assert_eq!(texts(&floats).unwrap().value(0), "0.1");
    }

    #[test]
    fn booleans_and_timestamps_are_written_as_flink_writes_them() {
        let array: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        assert_eq!(texts(&array).unwrap(), StringArray::from(vec![Some("TRUE"), None, Some("FALSE")]));
        let array: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_605_958_503_070]));
        assert_eq!(texts(&array).unwrap().value(0), "2020-11-21 11:35:03.070");
        let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]));
        assert_eq!(texts(&array).unwrap().value(0), "1970-01-01 00:00:00.000001");
    }

    #[test]
    fn casts_without_a_counterpart_are_refused() {
        let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(cast_rule(&timestamp, &DataType::Int64), CastRule::Refused);
        assert_eq!(cast_rule(&DataType::Int64, &timestamp), CastRule::Refused);
        assert_eq!(cast_rule(&DataType::Utf8, &DataType::Boolean), CastRule::Refused);
        assert_eq!(cast_rule(&DataType::Boolean, &DataType::Utf8), CastRule::ToText);
        assert_eq!(cast_rule(&DataType::Int64, &DataType::Utf8), CastRule::Kernel);
    }
}
