//! Numbers and times as text, exactly as Java writes them, because that is what Flink's formats and `print` show.

use std::io::Write;

/// Year, month and day of a day since the epoch (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn push_digits(out: &mut Vec<u8>, value: u32, digits: usize) {
    let start = out.len();
    out.resize(start + digits, b'0');
    let mut rest = value;
    for position in (start..start + digits).rev() {
        out[position] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

pub(crate) fn push_integer(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_unsigned(out, value.unsigned_abs());
}

pub(crate) fn push_unsigned(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// `2020-01-31`.
pub(crate) fn push_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    if (0..=9999).contains(&year) {
        push_digits(out, year as u32, 4);
    } else {
        push_integer(out, year);
    }
    out.push(b'-');
    push_digits(out, month, 2);
    out.push(b'-');
    push_digits(out, day, 2);
}

/// How the fraction of a second is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// As many digits as needed, none for a whole second: the formats.
    Shortest,
    /// 0, 3, 6 or 9 digits, and no seconds at all when they are zero too: `LocalTime.toString`.
    Groups,
}

fn push_time_of_day(out: &mut Vec<u8>, seconds: u32, nanos: u32, fraction: Fraction) {
    push_digits(out, seconds / 3600, 2);
    out.push(b':');
    push_digits(out, seconds / 60 % 60, 2);
    if fraction == Fraction::Groups && seconds.is_multiple_of(60) && nanos == 0 {
        return;
    }
    out.push(b':');
    push_digits(out, seconds % 60, 2);
    if nanos == 0 {
        return;
    }
    let (mut value, mut digits) = (nanos, 9);
    let group = if fraction == Fraction::Groups { 3 } else { 1 };
    let divisor = 10u32.pow(group as u32);
    while value.is_multiple_of(divisor) {
        value /= divisor;
        digits -= group;
    }
    out.push(b'.');
    push_digits(out, value, digits);
}

/// Nanoseconds since midnight.
pub(crate) fn push_time(out: &mut Vec<u8>, nanos: i64, fraction: Fraction) {
    let nanos = nanos.rem_euclid(86_400_000_000_000);
    push_time_of_day(out, (nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32, fraction);
}

/// Date, `separator`, time.
pub(crate) fn push_timestamp(out: &mut Vec<u8>, seconds: i64, nanos: u32, separator: u8, fraction: Fraction) {
    push_date(out, seconds.div_euclid(86_400));
    out.push(separator);
    push_time_of_day(out, seconds.rem_euclid(86_400) as u32, nanos, fraction);
}

/// The digits of a number without leading zeros; 40 bytes hold every one.
fn decimal_digits(mut value: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut first = buffer.len();
    loop {
        first -= 1;
        // Most numbers fit a machine word, whose division is far cheaper.
        let digit = match u64::try_from(value) {
            Ok(small) => {
                value = (small / 10).into();
                small % 10
            }
            Err(_) => {
                let digit = value % 10;
                value /= 10;
                digit as u64
            }
        };
        buffer[first] = b'0' + digit as u8;
        if value == 0 {
            return &buffer[first..];
        }
    }
}

/// `BigDecimal.toString`: plain unless the scale is negative or the number is very small.
pub(crate) fn push_decimal(out: &mut Vec<u8>, unscaled: i128, scale: i32) {
    let mut buffer = [0u8; 40];
    let digits = decimal_digits(unscaled.unsigned_abs(), &mut buffer);
    let exponent = digits.len() as i32 - 1 - scale;
    if scale >= 0 && exponent >= -6 {
        return push_plain_decimal(out, unscaled, scale);
    }
    if unscaled < 0 {
        out.push(b'-');
    }
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    if exponent != 0 {
        out.extend_from_slice(if exponent > 0 { b"E+" } else { b"E-" });
        push_unsigned(out, exponent.unsigned_abs().into());
    }
}

/// `BigDecimal.toPlainString`.
pub(crate) fn push_plain_decimal(out: &mut Vec<u8>, unscaled: i128, scale: i32) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let mut buffer = [0u8; 40];
    let digits = decimal_digits(unscaled.unsigned_abs(), &mut buffer);
    if scale <= 0 {
        out.extend_from_slice(digits);
        if unscaled != 0 {
            out.resize(out.len() + scale.unsigned_abs() as usize, b'0');
        }
        return;
    }
    let scale = scale as usize;
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + scale - digits.len(), b'0');
        out.extend_from_slice(digits);
    } else {
        out.extend_from_slice(&digits[..whole]);
        out.push(b'.');
        out.extend_from_slice(&digits[whole..]);
    }
}

/// `BigDecimal.stripTrailingZeros`.
pub(crate) fn strip_trailing_zeros(mut unscaled: i128, mut scale: i32) -> (i128, i32) {
    if unscaled == 0 {
        return (0, 0);
    }
    loop {
        let shorter = match i64::try_from(unscaled) {
            Ok(small) if small % 10 == 0 => (small / 10).into(),
            Err(_) if unscaled % 10 == 0 => unscaled / 10,
            _ => return (unscaled, scale),
        };
        (unscaled, scale) = (shorter, scale - 1);
    }
}

/// `Double.toString`.
pub(crate) fn push_double(out: &mut Vec<u8>, value: f64) {
    push_floating(out, value, value.is_nan(), value.abs(), format_args!("{value:e}"));
}

/// `Float.toString`.
pub(crate) fn push_float(out: &mut Vec<u8>, value: f32) {
    push_floating(out, value.into(), value.is_nan(), value.abs().into(), format_args!("{value:e}"));
}

/// `scientific` is Rust's shortest `1.25e-3` form; Java writes the same digits differently.
fn push_floating(out: &mut Vec<u8>, value: f64, nan: bool, magnitude: f64, scientific: std::fmt::Arguments<'_>) {
    if nan {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if magnitude.is_infinite() {
        return out.extend_from_slice(b"Infinity");
    }
    if magnitude == 0.0 {
        return out.extend_from_slice(b"0.0");
    }
    let mut buffer = [0u8; 40];
    let mut rest = &mut buffer[..];
    // 40 bytes hold every double: at most 17 digits, point, sign and exponent.
    let _ = rest.write_fmt(scientific);
    let left = rest.len();
    let written = &buffer[..buffer.len() - left];
    let written = written.strip_prefix(b"-").unwrap_or(written);
    let split = written.iter().position(|&byte| byte == b'e').unwrap_or(written.len());
    let exponent: i32 =
        written.get(split + 1..).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
    let mut digits = [0u8; 24];
    let mut count = 0;
    for &byte in written[..split].iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = byte;
        count += 1;
    }
    let digits = &digits[..count];
    if (-3..7).contains(&exponent) {
        if exponent < 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exponent - 1) as usize, b'0');
            out.extend_from_slice(digits);
        } else {
            let whole = exponent as usize + 1;
            out.extend_from_slice(&digits[..count.min(whole)]);
            out.resize(out.len() + whole.saturating_sub(count), b'0');
            out.push(b'.');
            out.extend_from_slice(if count > whole { &digits[whole..] } else { b"0" });
        }
    } else {
        out.push(digits[0]);
        out.push(b'.');
        out.extend_from_slice(if count > 1 { &digits[1..] } else { b"0" });
        out.push(b'E');
        push_integer(out, exponent.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = vec![];
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_as_java() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (100.0, "100.0"),
            (1_234_567.25, "1234567.25"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1.25e10, "1.25E10"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (0.012_5, "0.0125"),
            (1e-10, "1.0E-10"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text(|out| push_double(out, value)), expected);
        }
        assert_eq!(text(|out| push_float(out, 0.1)), "0.1");
        assert_eq!(text(|out| push_float(out, 16_777_216.0)), "1.6777216E7");
    }

    #[test]
    fn decimals_as_java() {
        for (unscaled, scale, expected, plain) in [
            (123_456i128, 3, "123.456", "123.456"),
            (-5, 2, "-0.05", "-0.05"),
            (27, 9, "2.7E-8", "0.000000027"),
            (1, 6, "0.000001", "0.000001"),
            (1, 7, "1E-7", "0.0000001"),
            (0, 2, "0.00", "0.00"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728", "-170141183460469231731687303715884105728"),
            (100, 0, "100", "100"),
            (1, -5, "1E+5", "100000"),
            (-12, -3, "-1.2E+4", "-12000"),
        ] {
            assert_eq!(text(|out| push_decimal(out, unscaled, scale)), expected);
            assert_eq!(text(|out| push_plain_decimal(out, unscaled, scale)), plain);
        }
        assert_eq!(strip_trailing_zeros(1500, 3), (15, 1));
        assert_eq!(strip_trailing_zeros(100_000, 0), (1, -5));
        assert_eq!(strip_trailing_zeros(0, 4), (0, 0));
    }

    #[test]
    fn timestamps() {
        let at = 1_577_836_800;
        for (seconds, nanos, shortest, groups) in [
            (at, 0, "2020-01-01 00:00:00", "2020-01-01 00:00"),
            (at + 1, 123_000_000, "2020-01-01 00:00:01.123", "2020-01-01 00:00:01.123"),
            (at, 120_000_000, "2020-01-01 00:00:00.12", "2020-01-01 00:00:00.120"),
            (at, 1_000, "2020-01-01 00:00:00.000001", "2020-01-01 00:00:00.000001"),
            (-1, 999_000_000, "1969-12-31 23:59:59.999", "1969-12-31 23:59:59.999"),
            (951_782_400, 0, "2000-02-29 00:00:00", "2000-02-29 00:00"),
        ] {
            assert_eq!(text(|out| push_timestamp(out, seconds, nanos, b' ', Fraction::Shortest)), shortest);
            assert_eq!(text(|out| push_timestamp(out, seconds, nanos, b' ', Fraction::Groups)), groups);
        }
        assert_eq!(text(|out| push_time(out, 45_296_500_000_000, Fraction::Shortest)), "12:34:56.5");
    }

    #[test]
    fn integers() {
        for value in [0, 7, -1, i64::MAX, i64::MIN, 1_000_000] {
            assert_eq!(text(|out| push_integer(out, value)), value.to_string());
        }
    }
}
