//! Strings with a grammar: durations, decimal numbers, names. One table ties each schema pattern to the code that
//! accepts it, so that the schema and the engine cannot disagree.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A few units of a length of time, as Kubernetes (`1m30s`) and Flink (`10 s`, `3 min`) write them. Ten digits of each keep
/// what fits into a schema's 64 characters far from overflow, so nothing that the schema lets pass is refused later.
pub const DURATION_PATTERN: &str = r"^(0|[0-9]{1,10}(\.[0-9]+)? *(ms|millis|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)( *[0-9]{1,10}(\.[0-9]+)? *(ms|millis|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?))*)$";
/// Floating-point numbers are no good in Kubernetes objects, so they are strings.
pub const DECIMAL_PATTERN: &str = r"^[0-9]{1,9}(\.[0-9]{1,9})?$";
/// Name of a Kubernetes object whose children's names derive from it.
pub const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Name of an environment variable.
pub const VARIABLE_PATTERN: &str = r"^[A-Za-z_][A-Za-z0-9_]*$";
/// An HTTP address.
pub const ENDPOINT_PATTERN: &str = r"^https?://[^\s/]+.*$";

/// What Kubernetes takes for an amount of CPU or memory.
pub const QUANTITY_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$";

/// A CEL expression for the milliseconds of a string that [`DURATION_PATTERN`] accepts, as a floating-point number. CEL's own
/// durations know neither days nor Flink's way of writing.
pub fn millis_in_cel(text: &str) -> String {
    format!(
        "{text}.findAll('[0-9.]+ *[a-z]+').map(part, double(part.find('[0-9.]+')) * (part.matches('m(s|illi)') ? 1.0 : \
         part.contains('h') ? 3600000.0 : part.contains('m') ? 60000.0 : part.matches('[0-9] *d') ? 86400000.0 : \
         1000.0)).sum()"
    )
}

/// What a pattern of the schema means.
pub struct Grammar {
    pub pattern: &'static str,
    /// Follows "expected".
    pub description: &'static str,
    pub accepts: fn(&str) -> bool,
}

pub const GRAMMARS: [Grammar; 6] = [
    Grammar {
        pattern: DURATION_PATTERN,
        description: "a duration with units ms, s, m, h or d, for example \"10s\", \"1m30s\" or \"500ms\"",
        accepts: |text| parse_duration(text).is_some(),
    },
    Grammar {
        pattern: DECIMAL_PATTERN,
        description: "a decimal number in quotes, for example \"1.5\"",
        accepts: |text| parse_decimal(text).is_some(),
    },
    Grammar {
        pattern: NAME_PATTERN,
        description: "lower-case letters, digits and '-', beginning and ending with a letter or digit",
        accepts: |text| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
        },
    },
    Grammar {
        pattern: VARIABLE_PATTERN,
        description: "letters, digits and '_', not beginning with a digit",
        accepts: is_variable_name,
    },
    Grammar {
        pattern: QUANTITY_PATTERN,
        description: "a quantity, for example 2, \"500m\" or \"4Gi\"",
        accepts: is_quantity,
    },
    Grammar {
        pattern: ENDPOINT_PATTERN,
        description: "an address that begins with http:// or https://",
        accepts: |text| {
            let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            rest.is_some_and(|rest| !rest.starts_with('/') && !rest.is_empty() && !text.contains(char::is_whitespace))
        },
    },
];

fn is_quantity(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let units = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number.split_once('.').map_or_else(|| digits(number), |(whole, fraction)| digits(whole) && digits(fraction))
        && (units.contains(&unit) || unit.strip_prefix(['e', 'E']).is_some_and(digits))
}

pub fn is_variable_name(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    text.as_bytes().first().is_some_and(letter) && text.bytes().all(|byte| letter(&byte) || byte.is_ascii_digit())
}

/// Milliseconds, rounded down; `None` when the text is no duration or too long for 64 bits.
fn parse_duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let after = after.trim_start_matches(' ');
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "ms" | "millis" | "millisecond" | "milliseconds" => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
            "m" | "min" | "mins" | "minute" | "minutes" => MINUTE,
            "h" | "hour" | "hours" => HOUR,
            "d" | "day" | "days" => DAY,
            _ => return None,
        };
        if number.split('.').next().is_none_or(|whole| whole.len() > 10) {
            return None;
        }
        let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, part)| (whole, Some(part)));
        total = total.checked_add(whole.parse::<u64>().ok()?.checked_mul(unit)?)?;
        if let Some(fraction) = fraction {
            if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // Nine digits are finer than a millisecond of a day.
            let digits = &fraction[..fraction.len().min(9)];
            total = total.checked_add(digits.parse::<u64>().ok()? * unit / 10u64.pow(digits.len() as u32))?;
        }
        parts += 1;
        rest = if after.is_empty() { after } else { after.trim_start_matches(' ') };
        if rest.is_empty() && !after.is_empty() {
            return None;
        }
    }
    (parts > 0).then_some(total)
}

fn parse_decimal(text: &str) -> Option<f64> {
    let digits = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let accepted = match text.split_once('.') {
        None => digits(text),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
    };
    if accepted { text.parse().ok() } else { None }
}

/// A length of time, written as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    millis: u64,
}

impl Duration {
    pub const fn from_millis(millis: u64) -> Self {
        Duration { millis }
    }

    pub const fn from_secs(seconds: u64) -> Self {
        Duration { millis: seconds * SECOND }
    }

    pub const fn millis(self) -> u64 {
        self.millis
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, name) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (1, "ms")] {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text)
            .map(Duration::from_millis)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is no duration")))
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "maxLength": 64 })
    }
}

/// A number with a fraction, written as a string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decimal {
    value: f64,
}

impl Decimal {
    pub const fn new(value: f64) -> Self {
        Decimal { value }
    }

    pub const fn value(self) -> f64 {
        self.value
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_decimal(&text)
            .map(Decimal::new)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is no decimal number")))
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DECIMAL_PATTERN, "maxLength": 20 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_kubernetes_and_flink() {
        let table = [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("10s", Some(10_000)),
            ("10 s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1 m 30 s", Some(90_000)),
            ("3 min", Some(180_000)),
            ("1h", Some(3_600_000)),
            ("1.5h", Some(5_400_000)),
            ("0.25s", Some(250)),
            ("2 days", Some(172_800_000)),
            ("1 hour 1 minute 1 second 1 millisecond", Some(3_661_001)),
            ("10", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.s", None),
            (".5s", None),
            ("1..5s", None),
            ("10s ", None),
            (" 10s", None),
            ("10 weeks", None),
            ("5us", None),
            ("99999999999s", None),
            ("9999999999d9999999999d9999999999d9999999999d9999999999d", Some(4_319_999_999_568_000_000)),
        ];
        let pattern = regex::Regex::new(DURATION_PATTERN).unwrap();
        for (text, expected) in table {
            assert_eq!(parse_duration(text), expected, "{text:?}");
            assert_eq!(pattern.is_match(text), expected.is_some(), "pattern on {text:?}");
        }
    }

    #[test]
    fn durations_print_what_they_parse_from() {
        for millis in [0, 1, 999, 1_000, 61_001, 90_000, 86_400_000, 90_061_001] {
            let text = Duration::from_millis(millis).to_string();
            assert_eq!(parse_duration(&text), Some(millis), "{text}");
        }
    }

    #[test]
    fn every_pattern_accepts_what_its_code_accepts() {
        let samples = [
            "",
            "a",
            "A",
            "-a",
            "a-",
            "a-b",
            "a_b",
            "1a",
            "_x",
            "KAFKA_PASSWORD",
            "1.5",
            "15",
            "1.",
            ".5",
            "1.5.2",
            "0.1",
            "http://localhost:9000",
            "https://s3.example.org/x",
            "ftp://x",
            "http://",
            "http:///x",
            "http://a b",
            "10s",
            "1234567890",
            "job-1",
            "Job",
            "500m",
            "1.5Gi",
            "1e3",
            "2Gib",
            "m",
        ];
        for grammar in GRAMMARS {
            let pattern = regex::Regex::new(grammar.pattern).unwrap();
            for sample in samples {
                if grammar.pattern == ENDPOINT_PATTERN && sample.contains(' ') {
                    continue;
                }
                assert_eq!(pattern.is_match(sample), (grammar.accepts)(sample), "{} on {sample:?}", grammar.pattern);
            }
        }
    }
}
