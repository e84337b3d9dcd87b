//! Reads typed values out of a table's `WITH` options; a wrong value is an error that names table, option and value.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::{OptionDoc, TableDefinition};

pub(crate) const fn optional(
    name: &'static str,
    default: Option<&'static str>,
    description: &'static str,
) -> OptionDoc {
    OptionDoc { name, required: false, default, description }
}

pub(crate) const fn required(name: &'static str, description: &'static str) -> OptionDoc {
    OptionDoc { name, required: true, default: None, description }
}

/// The options of one table.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    table: &'a TableDefinition,
}

impl<'a> Options<'a> {
    pub fn of(table: &'a TableDefinition) -> Self {
        Options { table }
    }

    pub fn error(&self, option: &str, message: impl Into<String>) -> PlanError {
        PlanError::Option { table: self.table.name.clone(), option: option.into(), message: message.into() }
    }

    pub fn table_error(&self, message: impl Into<String>) -> PlanError {
        PlanError::Table { table: self.table.name.clone(), message: message.into() }
    }

    pub fn text(&self, option: &str) -> Option<&'a str> {
        self.table.options.get(option).map(String::as_str)
    }

    /// The option's value through `parse`, `None` when it is not set.
    pub fn parsed<T>(&self, option: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, PlanError> {
        match self.text(option) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).map_err(|message| self.error(option, message)),
        }
    }

    /// A number within `min..=max`.
    pub fn number<T>(&self, option: &str, default: T, min: T, max: T) -> Result<T, PlanError>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let parse = |value: &str| match value.trim().parse::<T>() {
            Ok(number) if number >= min && number <= max => Ok(number),
            _ => Err(format!("'{value}' is not a number between {min} and {max}")),
        };
        Ok(self.parsed(option, parse)?.unwrap_or(default))
    }

    pub fn flag(&self, option: &str, default: bool) -> Result<bool, PlanError> {
        let parse = |value: &str| match value.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("'{value}' is neither 'true' nor 'false'")),
        };
        Ok(self.parsed(option, parse)?.unwrap_or(default))
    }

    /// Bytes.
    pub fn memory(&self, option: &str, default: u64) -> Result<u64, PlanError> {
        Ok(self.parsed(option, parse_memory)?.unwrap_or(default))
    }

    pub fn duration(&self, option: &str) -> Result<Option<Duration>, PlanError> {
        self.parsed(option, parse_duration)
    }
}

fn number_and_unit(value: &str) -> Option<(u64, String)> {
    let value = value.trim();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let number = value[..digits].parse().ok()?;
    Some((number, value[digits..].trim().to_ascii_lowercase()))
}

/// Flink's memory sizes: a number and a binary unit; bytes without one.
pub(crate) fn parse_memory(value: &str) -> Result<u64, String> {
    let scaled = number_and_unit(value).and_then(|(number, unit)| {
        let shift = match unit.as_str() {
            "" | "b" | "bytes" => 0,
            "k" | "kb" | "kibibytes" => 10,
            "m" | "mb" | "mebibytes" => 20,
            "g" | "gb" | "gibibytes" => 30,
            "t" | "tb" | "tebibytes" => 40,
            _ => return None,
        };
        number.checked_mul(1u64 << shift)
    });
    scaled.ok_or_else(|| format!("'{value}' is not a size such as '512', '128 kb' or '128MB'"))
}

/// Flink's durations: a number and a unit; milliseconds without one.
pub(crate) fn parse_duration(value: &str) -> Result<Duration, String> {
    let scaled = number_and_unit(value).and_then(|(number, unit)| {
        let nanos: u64 = match unit.as_str() {
            "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
            "us" | "µs" | "micro" | "microsecond" | "microseconds" => 1_000,
            "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
            "h" | "hour" | "hours" => 3_600_000_000_000,
            "d" | "day" | "days" => 86_400_000_000_000,
            _ => return None,
        };
        number.checked_mul(nanos).map(Duration::from_nanos)
    });
    scaled.ok_or_else(|| format!("'{value}' is not a duration such as '500 ms', '10s' or '1 min'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        for (text, bytes) in [("200b", 200), ("500", 500), ("128 MB", 128 << 20), ("1kb", 1024), ("2g", 2 << 30)] {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "b", "1.5mb", "-1", "10 parsec", "99999999999999 tb"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("500 ms", 500), ("10s", 10_000), ("1 min", 60_000), ("2h", 7_200_000), ("7", 7)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1.5s", "-1 s", "1 fortnight"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
