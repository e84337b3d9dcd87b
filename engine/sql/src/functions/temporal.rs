//! Functions on dates and timestamps. Timestamps have no zone; the session's zone is UTC.

use super::Builtin;
use crate::types::describe;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, StringArray, StringBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType,
};
use datafusion_common::cast::as_string_array;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TemporalField {
    Year,
    Quarter,
    Month,
    Week,
    DayOfYear,
    Day,
    /// Sunday is 1.
    DayOfWeek,
    Hour,
    Minute,
    Second,
}

impl TemporalField {
    pub fn is_time_of_day(self) -> bool {
        matches!(self, TemporalField::Hour | TemporalField::Minute | TemporalField::Second)
    }
}

/// The field that `EXTRACT(name FROM ...)` takes.
pub fn temporal_field(name: &str) -> Option<TemporalField> {
    Some(match name.to_uppercase().as_str() {
        "YEAR" => TemporalField::Year,
        "QUARTER" => TemporalField::Quarter,
        "MONTH" => TemporalField::Month,
        "WEEK" => TemporalField::Week,
        "DOY" => TemporalField::DayOfYear,
        "DAY" => TemporalField::Day,
        "DOW" => TemporalField::DayOfWeek,
        "HOUR" => TemporalField::Hour,
        "MINUTE" => TemporalField::Minute,
        "SECOND" => TemporalField::Second,
        _ => return None,
    })
}

pub fn evaluate(builtin: Builtin, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if constant { 1 } else { args.number_rows };
    let first = args.args[0].to_array(rows)?;
    let array: ArrayRef = match builtin {
        Builtin::Extract(field) => Arc::new(extract(field, &first)?),
        Builtin::DateFormat => match &args.args[1] {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(pattern))) => {
                let pattern = match DatePattern::parse(pattern) {
                    Ok(pattern) => pattern,
                    Err(message) => return exec_err!("{message}"),
                };
                Arc::new(pattern.format(&first)?)
            }
            ColumnarValue::Scalar(_) => Arc::new(StringArray::new_null(rows)),
            ColumnarValue::Array(_) => return exec_err!("the pattern of DATE_FORMAT must be a text literal"),
        },
        Builtin::ToTimestamp => {
            let parsed = as_string_array(&first)?.iter().map(|text| text.and_then(parse_timestamp));
            Arc::new(parsed.collect::<PrimitiveArray<TimestampMillisecondType>>())
        }
        Builtin::ToTimestampLtz => {
            let precision = args.args[1].to_array(rows)?;
            Arc::new(to_instant(first.as_primitive::<Int64Type>(), precision.as_primitive::<Int32Type>())?)
        }
        other => return exec_err!("{other:?} is not a function of timestamps"),
    };
    if constant {
        Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
    } else {
        Ok(ColumnarValue::Array(array))
    }
}

fn to_instant(
    numbers: &Int64Array,
    precisions: &PrimitiveArray<Int32Type>,
) -> Result<PrimitiveArray<TimestampMillisecondType>> {
    let mut instants = Vec::with_capacity(numbers.len());
    for row in 0..numbers.len() {
        instants.push(match (numbers.is_valid(row), precisions.is_valid(row).then(|| precisions.value(row))) {
            (true, Some(0)) => numbers.value(row).checked_mul(1000),
            (true, Some(3)) => Some(numbers.value(row)),
            (true, Some(other)) => return exec_err!("TO_TIMESTAMP_LTZ: the precision must be 0 or 3, found {other}"),
            _ => None,
        });
    }
    Ok(PrimitiveArray::<TimestampMillisecondType>::from_iter(instants).with_timezone("UTC"))
}

/// Days since the epoch to year, month and day of the proleptic Gregorian calendar.
pub fn civil(days: i64) -> (i64, u32, u32) {
    // Years begin in March, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The reverse of `civil`.
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Values of a date or timestamp column with the number of them in a day.
fn instants(array: &ArrayRef) -> Result<(Int64Array, i64)> {
    const DAY: i64 = 86_400;
    let raw = |array: Int64Array, per_day: i64| Ok((array, per_day));
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().unary::<_, Int64Type>(i64::from);
            raw(days, 1)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            raw(array.as_primitive::<TimestampMillisecondType>().reinterpret_cast(), DAY * 1000)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            raw(array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast(), DAY * 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            raw(array.as_primitive::<TimestampNanosecondType>().reinterpret_cast(), DAY * 1_000_000_000)
        }
        other => exec_err!("expected TIMESTAMP or DATE, found {}", describe(other)),
    }
}

fn extract(field: TemporalField, array: &ArrayRef) -> Result<Int64Array> {
    let (values, per_day) = instants(array)?;
    let day = move |value: i64| value.div_euclid(per_day);
    let time_of_day = move |value: i64, parts: i64| value.rem_euclid(per_day) / (per_day / parts).max(1);
    Ok(match field {
        TemporalField::Hour => values.unary(|value| time_of_day(value, 24)),
        TemporalField::Minute => values.unary(|value| time_of_day(value, 1440) % 60),
        TemporalField::Second => values.unary(|value| time_of_day(value, 86_400) % 60),
        TemporalField::Year => values.unary(|value| civil(day(value)).0),
        TemporalField::Quarter => values.unary(|value| i64::from((civil(day(value)).1 - 1) / 3 + 1)),
        TemporalField::Month => values.unary(|value| i64::from(civil(day(value)).1)),
        TemporalField::Day => values.unary(|value| i64::from(civil(day(value)).2)),
        TemporalField::DayOfWeek => values.unary(|value| (day(value) + 4).rem_euclid(7) + 1),
        TemporalField::DayOfYear => values.unary(|value| day_of_year(day(value))),
        TemporalField::Week => values.unary(|value| iso_week(day(value))),
    })
}

fn day_of_year(day: i64) -> i64 {
    day - days_from_civil(civil(day).0, 1, 1) + 1
}

/// The week whose Thursday falls into the year.
fn iso_week(day: i64) -> i64 {
    let weekday_from_monday = (day + 3).rem_euclid(7);
    let thursday = day - weekday_from_monday + 3;
    (day_of_year(thursday) - 1) / 7 + 1
}

/// A pattern of Java's `DateTimeFormatter`, as `DATE_FORMAT` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatePattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    ShortYear,
    Month(usize),
    Day(usize),
    Hour(usize),
    Hour12(usize),
    Minute(usize),
    Second(usize),
    Fraction(usize),
    HalfOfDay,
}

impl DatePattern {
    /// # Errors
    /// The first letter that is not supported.
    pub fn parse(pattern: &str) -> std::result::Result<DatePattern, String> {
        let mut parts = Vec::new();
        let mut chars = pattern.chars().peekable();
        let mut text = String::new();
        while let Some(c) = chars.next() {
            if c == '\'' {
                if chars.peek() == Some(&'\'') {
                    chars.next();
                    text.push('\'');
                    continue;
                }
                loop {
                    match chars.next() {
                        Some('\'') if chars.peek() == Some(&'\'') => {
                            chars.next();
                            text.push('\'');
                        }
                        Some('\'') => break,
                        Some(other) => text.push(other),
                        None => return Err(format!("the date pattern '{pattern}' has an open quote")),
                    }
                }
                continue;
            }
            if !c.is_ascii_alphabetic() {
                if matches!(c, '[' | ']' | '{' | '}' | '#') {
                    return Err(format!("'{c}' in the date pattern '{pattern}' is not supported"));
                }
                text.push(c);
                continue;
            }
            let mut width = 1;
            while chars.peek() == Some(&c) {
                chars.next();
                width += 1;
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(match (c, width) {
                ('y' | 'u', 4) => Part::Year,
                ('y' | 'u', 2) => Part::ShortYear,
                ('M', 1 | 2) => Part::Month(width),
                ('d', 1 | 2) => Part::Day(width),
                ('H', 1 | 2) => Part::Hour(width),
                ('h', 1 | 2) => Part::Hour12(width),
                ('m', 1 | 2) => Part::Minute(width),
                ('s', 1 | 2) => Part::Second(width),
                ('S', 1..=9) => Part::Fraction(width),
                ('a', 1) => Part::HalfOfDay,
                _ => {
                    return Err(format!(
                        "'{}' in the date pattern '{pattern}' is not supported; supported: yyyy yy MM M dd d HH H hh h mm m \
                         ss s S a and texts in quotes",
                        c.to_string().repeat(width)
                    ));
                }
            });
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(DatePattern { parts })
    }

    fn is_date_only(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part, Part::Text(_) | Part::Year | Part::ShortYear | Part::Month(_) | Part::Day(_)))
    }

    pub fn format(&self, array: &ArrayRef) -> Result<StringArray> {
        let (values, per_day) = instants(array)?;
        let per_day_of_pattern = if self.is_date_only() { per_day } else { 1 };
        let mut out = StringBuilder::with_capacity(values.len(), values.len() * 20);
        // Neighbours mostly share the day, or the whole second.
        let mut last: Option<i64> = None;
        let mut formatted = String::with_capacity(32);
        for value in values.iter() {
            let Some(value) = value else {
                out.append_null();
                continue;
            };
            let unit = value.div_euclid(per_day_of_pattern);
            if last != Some(unit) {
                formatted.clear();
                self.write(value, per_day, &mut formatted);
                last = Some(unit);
            }
            out.append_value(&formatted);
        }
        Ok(out.finish())
    }

    fn write(&self, value: i64, per_day: i64, out: &mut String) {
        let (year, month, day) = civil(value.div_euclid(per_day));
        let nanos = i128::from(value.rem_euclid(per_day)) * 86_400_000_000_000 / i128::from(per_day);
        let seconds = (nanos / 1_000_000_000) as u64;
        let fraction = (nanos % 1_000_000_000) as u64;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Year => {
                    // Year of era, as `y` is in Java.
                    let of_era = if year <= 0 { 1 - year } else { year };
                    push_number(out, of_era as u64, 4);
                }
                Part::ShortYear => push_number(out, year.rem_euclid(100) as u64, 2),
                Part::Month(width) => push_number(out, u64::from(month), *width),
                Part::Day(width) => push_number(out, u64::from(day), *width),
                Part::Hour(width) => push_number(out, seconds / 3600, *width),
                Part::Hour12(width) => push_number(out, (seconds / 3600 + 11) % 12 + 1, *width),
                Part::Minute(width) => push_number(out, seconds / 60 % 60, *width),
                Part::Second(width) => push_number(out, seconds % 60, *width),
                Part::Fraction(width) => push_number(out, fraction / 10u64.pow(9 - *width as u32), *width),
                Part::HalfOfDay => out.push_str(if seconds < 43_200 { "AM" } else { "PM" }),
            }
        }
    }
}

fn push_number(out: &mut String, number: u64, width: usize) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    for _ in digits.len() - start..width {
        out.push('0');
    }
    digits[start..].iter().for_each(|digit| out.push(char::from(*digit)));
}

/// `yyyy-MM-dd`, alone or with ` HH:mm:ss` and a fraction, to Unix milliseconds; anything else is `None`.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = match text.trim().split_once(' ') {
        Some((date, time)) => (date, Some(time)),
        None => (text.trim(), None),
    };
    let mut numbers = date.splitn(3, '-').map(|part| digits(part, 4));
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let days = valid_date(year, month, day)?;
    let Some(time) = time else { return Some(days * 86_400_000) };
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, fraction),
        None => (time, "0"),
    };
    let mut numbers = clock.splitn(3, ':').map(|part| digits(part, 2));
    let (hour, minute, second) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if hour > 23 || minute > 59 || second > 59 || fraction.len() > 9 {
        return None;
    }
    let millis = digits(&format!("{fraction:0<9}"), 9)? / 1_000_000;
    Some(days * 86_400_000 + ((hour * 60 + minute) * 60 + second) * 1000 + millis)
}

fn valid_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let (month, day) = (u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil(days) == (year, month, day)).then_some(days)
}

fn digits(text: &str, most: usize) -> Option<i64> {
    if text.is_empty() || text.len() > most || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamps(values: &[i64]) -> ArrayRef {
        Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(values.to_vec()))
    }

    #[test]
    fn civil_agrees_with_chrono_over_four_centuries() {
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for days in (-150_000..150_000).step_by(37) {
            let expected = epoch + chrono::Duration::days(days);
            let (year, month, day) = civil(days);
            let found = chrono::NaiveDate::from_ymd_opt(year as i32, month, day).unwrap();
            assert_eq!(found, expected);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn date_format_writes_javas_patterns() {
        let array = timestamps(&[1_605_958_503_007, -1, 0]);
        let cases: [(&str, [&str; 3]); 6] = [
            ("yyyy-MM-dd", ["2020-11-21", "1969-12-31", "1970-01-01"]),
            ("yyyy-MM-dd HH:mm:ss", ["2020-11-21 11:35:03", "1969-12-31 23:59:59", "1970-01-01 00:00:00"]),
            ("yyyyMMdd'T'HHmmss.SSS", ["20201121T113503.007", "19691231T235959.999", "19700101T000000.000"]),
            ("d.M.yy h:mm a", ["21.11.20 11:35 AM", "31.12.69 11:59 PM", "1.1.70 12:00 AM"]),
            ("HH", ["11", "23", "00"]),
            ("'it''s' m", ["it's 35", "it's 59", "it's 0"]),
        ];
        for (pattern, expected) in cases {
            let found = DatePattern::parse(pattern).unwrap().format(&array).unwrap();
            assert_eq!(found.iter().flatten().collect::<Vec<_>>(), expected, "{pattern}");
        }
        assert!(DatePattern::parse("EEE").unwrap_err().contains("'EEE'"));
    }

    #[test]
    fn fields_of_a_timestamp_follow_the_calendar() {
        let array = timestamps(&[1_605_958_503_007, -1, 951_782_400_000]);
        let cases = [
            (TemporalField::Year, [2020, 1969, 2000]),
            (TemporalField::Quarter, [4, 4, 1]),
            (TemporalField::Month, [11, 12, 2]),
            (TemporalField::Week, [47, 1, 9]),
            (TemporalField::DayOfYear, [326, 365, 60]),
            (TemporalField::Day, [21, 31, 29]),
            (TemporalField::DayOfWeek, [7, 4, 3]),
            (TemporalField::Hour, [11, 23, 0]),
            (TemporalField::Minute, [35, 59, 0]),
            (TemporalField::Second, [3, 59, 0]),
        ];
        for (field, expected) in cases {
            assert_eq!(extract(field, &array).unwrap().values().to_vec(), expected, "{field:?}");
        }
    }

    #[test]
    fn timestamps_are_parsed_or_null() {
        let cases = [
            ("2020-11-21 11:35:03", Some(1_605_958_503_000)),
            ("2020-11-21 11:35:03.0079", Some(1_605_958_503_007)),
            ("2020-11-21", Some(1_605_916_800_000)),
            ("1969-12-31 23:59:59.999", Some(-1)),
            ("2020-02-30 00:00:00", None),
            ("2020-11-21T11:35:03", None),
            ("2020-11-21 24:00:00", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timestamp(text), expected, "{text}");
        }
    }
}
