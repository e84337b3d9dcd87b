//! Numbers and times out of text.

/// Days since the epoch of a proleptic Gregorian date.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0u32, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))
}

/// `yyyy-MM-dd` as days since the epoch.
pub(super) fn date(text: &[u8]) -> Option<i64> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..])?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=longest).contains(&day).then(|| days_from_civil(year.into(), month, day))
}

/// `HH:mm[:ss[.fraction]]` as seconds since midnight and nanoseconds.
pub(super) fn time_of_day(text: &[u8]) -> Option<(u32, u32)> {
    if text.len() < 5 || text[2] != b':' {
        return None;
    }
    let (hour, minute) = (digits(&text[..2])?, digits(&text[3..5])?);
    let (second, nanos) = match &text[5..] {
        [] => (0, 0),
        [b':', tens, ones] => (digits(&[*tens, *ones])?, 0),
        [b':', tens, ones, b'.', fraction @ ..] if (1..=9).contains(&fraction.len()) => {
            (digits(&[*tens, *ones])?, digits(fraction)? * 10u32.pow(9 - fraction.len() as u32))
        }
        _ => return None,
    };
    (hour < 24 && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos))
}

/// Date, `separator`, time; a `Z` must follow if `instant`. Seconds since the epoch and nanoseconds.
pub(super) fn timestamp(text: &[u8], separator: u8, instant: bool) -> Option<(i64, u32)> {
    let text = if instant { text.strip_suffix(b"Z")? } else { text };
    if text.len() < 16 || text[10] != separator {
        return None;
    }
    let (seconds, nanos) = time_of_day(&text[11..])?;
    Some((date(&text[..10])? * 86_400 + i64::from(seconds), nanos))
}

/// Decimal digits with an optional sign.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        // Downwards, because there is one more negative number.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// What became of a decimal number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decimal {
    /// Unscaled, rounded half up.
    Value(i128),
    /// More digits than the precision allows.
    TooLarge,
    NotANumber,
}

/// A number with optional fraction and exponent, rounded to `scale`.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Decimal {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        None => (rest, 0),
        Some(at) => match integer(&rest[at + 1..]) {
            Some(exponent) if exponent.abs() < 1_000_000 => (&rest[..at], exponent),
            _ => return Decimal::NotANumber,
        },
    };
    let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let fraction = mantissa.get(point + 1..).unwrap_or_default();
    let mut significant = mantissa[..point].iter().chain(fraction).copied();
    let count = point + fraction.len();
    if count == 0 || !significant.clone().all(|byte| byte.is_ascii_digit()) {
        return Decimal::NotANumber;
    }
    // value = digits * 10^-places; digits to keep so that the last one has the wanted scale:
    let places = fraction.len() as i64 - exponent;
    let keep = count as i64 + i64::from(scale) - places;
    let mut unscaled: i128 = 0;
    for place in 0..keep.max(0) {
        let digit = significant.next().map_or(0, |byte| i128::from(byte - b'0'));
        unscaled = match unscaled.checked_mul(10).and_then(|value| value.checked_add(digit)) {
            Some(value) => value,
            None => return Decimal::TooLarge,
        };
        // Zeros could go on for a million places.
        if unscaled == 0 && place >= count as i64 {
            break;
        }
    }
    if keep >= 0 && significant.next().is_some_and(|byte| byte >= b'5') {
        unscaled += 1;
    }
    if unscaled >= 10i128.pow(u32::from(precision.min(38))) {
        return Decimal::TooLarge;
    }
    Decimal::Value(if negative { -unscaled } else { unscaled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, value) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("+7", Some(7)),
            ("-", None),
            ("", None),
            ("1.0", None),
            ("1 ", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn decimals() {
        for (text, expected) in [
            ("1.5", Decimal::Value(150)),
            ("1.555", Decimal::Value(156)),
            ("-1.555", Decimal::Value(-156)),
            ("1.554", Decimal::Value(155)),
            (".5", Decimal::Value(50)),
            ("5.", Decimal::Value(500)),
            ("1e2", Decimal::Value(10_000)),
            ("1.5E-1", Decimal::Value(15)),
            ("0.005", Decimal::Value(1)),
            ("0.0049", Decimal::Value(0)),
            ("1e-100000", Decimal::Value(0)),
            ("0e100000", Decimal::Value(0)),
            ("999.99", Decimal::Value(99_999)),
            ("999.995", Decimal::TooLarge),
            ("1000", Decimal::TooLarge),
            ("1e99", Decimal::TooLarge),
            ("", Decimal::NotANumber),
            ("-", Decimal::NotANumber),
            (".", Decimal::NotANumber),
            ("1e", Decimal::NotANumber),
            ("1.2.3", Decimal::NotANumber),
            ("abc", Decimal::NotANumber),
        ] {
            assert_eq!(decimal(text.as_bytes(), 5, 2), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(date(b"1970-01-02"), Some(1));
        assert_eq!(date(b"2000-02-29"), Some(11_016));
        assert_eq!(date(b"1969-12-31"), Some(-1));
        for wrong in ["2001-02-29", "2000-13-01", "2000-00-01", "2000-1-01", "20000-01-01", "abcd-01-01"] {
            assert_eq!(date(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(time_of_day(b"01:02:03.5"), Some((3_723, 500_000_000)));
        for wrong in ["24:00:00", "1:02:03", "01:60:00", "01:02:03.", "01:02:03.1234567890", "01:02:"] {
            assert_eq!(time_of_day(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(timestamp(b"1970-01-01 00:00:01.25", b' ', false), Some((1, 250_000_000)));
        assert_eq!(timestamp(b"1970-01-01T00:00:01Z", b'T', true), Some((1, 0)));
        assert_eq!(timestamp(b"1970-01-01T00:00:01", b' ', false), None);
        assert_eq!(timestamp(b"1970-01-01 00:00:01Z", b' ', false), None);
    }
}
