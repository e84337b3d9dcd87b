//! Functions on numbers, with Flink's result types.

use super::Builtin;
use crate::types::{Family, MAX_DECIMAL_PRECISION, describe, family, integer_as_decimal, is_integer};
use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, Decimal128Array, Float64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::compute::kernels::numeric::rem;
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, i256,
};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

/// Decimals keep at least this many fraction digits when a result has too many digits.
const MIN_KEPT_SCALE: u8 = 6;

/// The result's precision and scale when the exact one may exceed the largest: whole digits go before fraction digits.
pub fn adjusted(precision: u16, scale: u16) -> (u8, i8) {
    let most = u16::from(MAX_DECIMAL_PRECISION);
    if precision <= most {
        return (precision as u8, scale as i8);
    }
    let whole = precision - scale;
    let kept = scale.min(u16::from(MIN_KEPT_SCALE));
    (MAX_DECIMAL_PRECISION, most.saturating_sub(whole).max(kept) as i8)
}

/// Arguments and result of dividing exact numbers of which at least one is a decimal.
pub fn divide_types(types: &[DataType]) -> std::result::Result<(Vec<DataType>, DataType), String> {
    let [left, right] = types else { return Err("takes 2 arguments".into()) };
    let (Some((p1, s1)), Some((p2, s2))) = (integer_as_decimal(left), integer_as_decimal(right)) else {
        return Err(format!("cannot divide {} by {}", describe(left), describe(right)));
    };
    let (whole, s1, s2) = (u16::from(p1) - s1 as u16, s1 as u16, s2 as u16);
    let scale = u16::from(MIN_KEPT_SCALE).max(s1 + u16::from(p2) + 1);
    let (precision, scale) = adjusted(whole + s2 + scale, scale);
    let arguments = vec![DataType::Decimal128(p1, s1 as i8), DataType::Decimal128(p2, s2 as i8)];
    Ok((arguments, DataType::Decimal128(precision, scale)))
}

/// The remainder of integers has the divisor's type.
pub fn modulo_types(types: &[DataType]) -> std::result::Result<(Vec<DataType>, DataType), String> {
    let [left, right] = types else { return Err("takes 2 arguments".into()) };
    if is_integer(left) && is_integer(right) {
        // Brought to one width when evaluated: the result's type is found again from the arguments' types.
        return Ok((types.to_vec(), right.clone()));
    }
    match (integer_as_decimal(left), integer_as_decimal(right)) {
        (Some((p1, s1)), Some((p2, s2))) => {
            let scale = s1.max(s2);
            let whole = (p1 - s1 as u8).min(p2 - s2 as u8);
            let arguments = vec![DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)];
            Ok((arguments, DataType::Decimal128(whole + scale as u8, scale)))
        }
        _ => Err(format!(
            "the remainder of {} and {} is not supported; both must be integers or DECIMAL",
            describe(left),
            describe(right)
        )),
    }
}

/// A decimal rounded to a literal number of digits has that many; other types keep theirs.
pub fn round_type(types: &[DataType], literals: &[Option<&ScalarValue>]) -> Result<DataType> {
    let digits = match literals.get(1) {
        None => 0,
        Some(Some(literal)) => match literal.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(digits)) => digits,
            other => return plan_err!("ROUND: the number of digits must be an integer literal, found {other}"),
        },
        Some(None) => return plan_err!("ROUND: the number of digits must be a literal"),
    };
    if digits < 0 {
        return plan_err!("ROUND: a negative number of digits is not supported");
    }
    Ok(match &types[0] {
        DataType::Decimal128(precision, scale) if digits < i64::from(*scale) => {
            DataType::Decimal128(precision - *scale as u8 + digits as u8 + 1, digits as i8)
        }
        other => other.clone(),
    })
}

pub fn evaluate(builtin: Builtin, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { args.number_rows };
    let result = args.return_field.data_type();
    let first = args.args[0].to_array(rows)?;
    let array = match builtin {
        Builtin::Abs => absolute(&first)?,
        Builtin::Floor => whole(&first, f64::floor, i128::div_euclid)?,
        Builtin::Ceil => whole(&first, f64::ceil, |value, unit| -(-value).div_euclid(unit))?,
        Builtin::Round => round(&first, digits(args.args.get(1))?, result)?,
        Builtin::Mod => modulo(&first, &args.args[1], rows, result)?,
        Builtin::DecimalDivide => divide(&first, &args.args[1].to_array(rows)?, result)?,
        Builtin::Power => {
            let exponent = args.args[1].to_array(rows)?;
            let (base, exponent) = (first.as_primitive::<Float64Type>(), exponent.as_primitive::<Float64Type>());
            Arc::new(arrow::compute::binary::<_, _, _, Float64Type>(base, exponent, f64::powf)?)
        }
        Builtin::Sqrt => doubles(&first, f64::sqrt),
        Builtin::Exp => doubles(&first, f64::exp),
        Builtin::Ln => doubles(&first, f64::ln),
        Builtin::Log10 => doubles(&first, f64::log10),
        other => return exec_err!("{other:?} is not a function of numbers"),
    };
    // Decimals computed here may still carry the argument's precision.
    let array = match (array.data_type(), result) {
        (DataType::Decimal128(..), DataType::Decimal128(precision, scale)) => {
            Arc::new(array.as_primitive::<Decimal128Type>().clone().with_precision_and_scale(*precision, *scale)?)
        }
        _ => array,
    };
    if constant {
        Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
    } else {
        Ok(ColumnarValue::Array(array))
    }
}

fn doubles(array: &ArrayRef, op: impl Fn(f64) -> f64) -> ArrayRef {
    Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(op))
}

fn absolute(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Int8 => Arc::new(array.as_primitive::<Int8Type>().unary::<_, Int8Type>(i8::wrapping_abs)),
        DataType::Int16 => Arc::new(array.as_primitive::<Int16Type>().unary::<_, Int16Type>(i16::wrapping_abs)),
        DataType::Int32 => Arc::new(array.as_primitive::<Int32Type>().unary::<_, Int32Type>(i32::wrapping_abs)),
        DataType::Int64 => Arc::new(array.as_primitive::<Int64Type>().unary::<_, Int64Type>(i64::wrapping_abs)),
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::abs)),
        DataType::Float64 => doubles(array, f64::abs),
        DataType::Decimal128(..) => {
            Arc::new(array.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(i128::wrapping_abs))
        }
        other => return exec_err!("ABS of {} is not supported", describe(other)),
    })
}

fn whole(array: &ArrayRef, float: fn(f64) -> f64, decimal: impl Fn(i128, i128) -> i128) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        data_type if is_integer(data_type) => Arc::clone(array),
        DataType::Float32 => Arc::new(
            array.as_primitive::<Float32Type>().unary::<_, Float32Type>(|value| float(f64::from(value)) as f32),
        ),
        DataType::Float64 => doubles(array, float),
        DataType::Decimal128(_, scale) => {
            let unit = 10i128.pow(*scale as u32);
            Arc::new(array.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(|value| decimal(value, unit)))
        }
        other => return exec_err!("FLOOR and CEIL of {} are not supported", describe(other)),
    })
}

fn digits(argument: Option<&ColumnarValue>) -> Result<u32> {
    let digits = match argument {
        None => return Ok(0),
        Some(ColumnarValue::Scalar(literal)) => literal.cast_to(&DataType::Int64)?,
        Some(ColumnarValue::Array(_)) => return exec_err!("ROUND: the number of digits must be a literal"),
    };
    match digits {
        ScalarValue::Int64(Some(digits)) if digits >= 0 => Ok(digits.min(400) as u32),
        other => exec_err!("ROUND: the number of digits must not be negative, found {other}"),
    }
}

/// Half away from zero.
fn round(array: &ArrayRef, digits: u32, result: &DataType) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        data_type if is_integer(data_type) => Arc::clone(array),
        DataType::Decimal128(_, scale) if digits < *scale as u32 => {
            let unit = 10i128.pow(*scale as u32 - digits);
            let rounded: Decimal128Array = array.as_primitive::<Decimal128Type>().unary(|value| {
                let (quotient, rest) = (value / unit, value % unit);
                if rest.abs() * 2 >= unit { quotient + value.signum() } else { quotient }
            });
            Arc::new(rounded)
        }
        DataType::Decimal128(..) => cast(array, result)?,
        DataType::Float64 => {
            let rounded: Float64Array =
                array.as_primitive::<Float64Type>().unary(|value| round_float(value, &format!("{value:e}"), digits));
            Arc::new(rounded)
        }
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|value| round_float(f64::from(value), &format!("{value:e}"), digits) as f32),
        ),
        other => return exec_err!("ROUND of {} is not supported", describe(other)),
    })
}

/// Rounds the shortest decimal text of a float, as `BigDecimal.valueOf(x).setScale(digits, HALF_UP)` does.
fn round_float(value: f64, scientific: &str, digits: u32) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let unsigned = scientific.trim_start_matches('-');
    let Some((mantissa, Ok(exponent))) = unsigned.split_once('e').map(|(m, e)| (m, e.parse::<i32>())) else {
        return value;
    };
    let all: Vec<u8> = mantissa.bytes().filter(|byte| *byte != b'.').map(|byte| byte - b'0').collect();
    // The digits kept before the cut.
    let kept = i64::from(exponent) + 1 + i64::from(digits);
    if kept >= all.len() as i64 {
        return value;
    }
    let up = kept >= 0 && all.get(kept as usize).is_some_and(|digit| *digit >= 5);
    let mut number = 0u128;
    for digit in all.iter().take(kept.max(0) as usize) {
        number = number * 10 + u128::from(*digit);
    }
    number += u128::from(up);
    let text = format!("{}{number}e-{digits}", if value < 0.0 { "-" } else { "" });
    text.parse().unwrap_or(value)
}

fn modulo(left: &ArrayRef, right: &ColumnarValue, rows: usize, result: &DataType) -> Result<ArrayRef> {
    let divisors = right.data_type();
    let wider =
        if divisors.primitive_width() > left.data_type().primitive_width() { &divisors } else { left.data_type() };
    let integers = is_integer(left.data_type()) && is_integer(&divisors);
    let left = &if integers { cast(left, wider)? } else { Arc::clone(left) };
    let right = &if integers { right.cast_to(wider, None)? } else { right.clone() };
    let remainder: ArrayRef = match (left.data_type(), right) {
        // The usual case has a constant divisor.
        (DataType::Int64, ColumnarValue::Scalar(ScalarValue::Int64(Some(divisor)))) if *divisor != 0 => {
            let divisor = *divisor;
            Arc::new(left.as_primitive::<Int64Type>().unary::<_, Int64Type>(|value| value.wrapping_rem(divisor)))
        }
        (DataType::Int32, ColumnarValue::Scalar(ScalarValue::Int32(Some(divisor)))) if *divisor != 0 => {
            let divisor = *divisor;
            Arc::new(left.as_primitive::<Int32Type>().unary::<_, Int32Type>(|value| value.mod_wrapping(divisor)))
        }
        _ => rem(left, &right.to_array(rows)?)?,
    };
    Ok(if is_integer(result) && remainder.data_type() != result { cast(&remainder, result)? } else { remainder })
}

/// Half away from zero; a result of too many digits is null.
fn divide(left: &ArrayRef, right: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    let (DataType::Decimal128(_, s1), DataType::Decimal128(_, s2), DataType::Decimal128(precision, scale)) =
        (left.data_type(), right.data_type(), result)
    else {
        return exec_err!("cannot divide {} by {}", describe(left.data_type()), describe(right.data_type()));
    };
    let shift = i32::from(*scale) - i32::from(*s1) + i32::from(*s2);
    let factor = i256::from_i128(10).wrapping_pow(shift.unsigned_abs());
    let limit = i256::from_i128(10i128.pow(u32::from(*precision)) - 1);
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let mut quotients = Vec::with_capacity(left.len());
    for row in 0..left.len() {
        if left.is_null(row) || right.is_null(row) {
            quotients.push(None);
            continue;
        }
        if right.value(row) == 0 {
            return exec_err!("division by zero");
        }
        let (mut dividend, mut divisor) = (i256::from_i128(left.value(row)), i256::from_i128(right.value(row)));
        if shift >= 0 {
            dividend = dividend.wrapping_mul(factor);
        } else {
            divisor = divisor.wrapping_mul(factor);
        }
        let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
        let away = rest.wrapping_abs().wrapping_mul(i256::from_i128(2)) >= divisor.wrapping_abs();
        let step = if dividend.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
        let rounded = if away { quotient.wrapping_add(step) } else { quotient };
        quotients.push((rounded.wrapping_abs() <= limit).then(|| rounded.to_i128()).flatten());
    }
    Ok(Arc::new(PrimitiveArray::<Decimal128Type>::from_iter(quotients)))
}

/// Whether a type is an exact number.
pub fn is_exact(data_type: &DataType) -> bool {
    family(data_type) == Family::Number && !data_type.is_floating()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_types_follow_flink() {
        let decimal = DataType::Decimal128;
        let cases = [
            (decimal(10, 2), decimal(5, 1), decimal(17, 8)),
            (decimal(10, 0), decimal(19, 0), decimal(30, 20)),
            (DataType::Int64, decimal(3, 3), decimal(28, 6)),
            (decimal(38, 10), decimal(38, 10), decimal(38, 6)),
        ];
        for (left, right, expected) in cases {
            let (_, found) = divide_types(&[left.clone(), right.clone()]).unwrap();
            assert_eq!(found, expected, "{left} / {right}");
        }
        assert_eq!(modulo_types(&[DataType::Int64, DataType::Int32]).unwrap().1, DataType::Int32);
        assert_eq!(modulo_types(&[decimal(10, 2), decimal(5, 3)]).unwrap().1, decimal(5, 3));
        assert!(modulo_types(&[DataType::Float64, DataType::Int32]).is_err());
    }

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        let decimal = |values: &[i128], precision, scale| -> ArrayRef {
            Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
        };
        let left = decimal(&[100, -100, 200, 50], 10, 2);
        let right = decimal(&[30, 30, 30, -100], 5, 1);
        let found = divide(&left, &right, &DataType::Decimal128(17, 8)).unwrap();
        let found: Vec<_> = found.as_primitive::<Decimal128Type>().iter().flatten().collect();
        assert_eq!(found, [33_333_333, -33_333_333, 66_666_667, -5_000_000]);
        assert!(divide(&left, &decimal(&[0; 4], 5, 1), &DataType::Decimal128(17, 8)).is_err());
    }

    #[test]
    fn doubles_are_rounded_by_their_decimal_text() {
        let cases = [
            (2.5, 0, 3.0),
            (-2.5, 0, -3.0),
            (1.005, 2, 1.01),
            (0.049, 1, 0.0),
            (0.05, 1, 0.1),
            (0.004, 1, 0.0),
            (1234.5678, 2, 1234.57),
            (1e300, 2, 1e300),
            (9.99, 1, 10.0),
        ];
        for (value, digits, expected) in cases {
            assert_eq!(round_float(value, &format!("{value:e}"), digits), expected, "ROUND({value}, {digits})");
        }
    }

    #[test]
    fn floor_and_ceil_of_decimals_are_whole() {
        let array: ArrayRef =
            Arc::new(Decimal128Array::from(vec![150, -150, 200]).with_precision_and_scale(5, 2).unwrap());
        let values = |array: ArrayRef| array.as_primitive::<Decimal128Type>().values().to_vec();
        assert_eq!(values(whole(&array, f64::floor, i128::div_euclid).unwrap()), [1, -2, 2]);
        let ceil = whole(&array, f64::ceil, |value, unit| -(-value).div_euclid(unit)).unwrap();
        assert_eq!(values(ceil), [2, -1, 2]);
    }
}
