//! Scalar functions with Flink's names, types and results.
//!
//! Only what is listed here can be called: functions of DataFusion with the same name often differ from Flink's in
//! types, in nulls or at the edges. Types are strict: an argument of another family is refused, not converted.

mod aggregate;
mod convert;
mod java_regex;
mod numeric;
mod row;
mod select;
mod strings;
mod temporal;
mod window;

pub use aggregate::{Aggregate, aggregate_by_name, aggregate_of};
pub use convert::{CastRule, cast_rule, text_of};
pub use numeric::{adjusted as adjusted_decimal, is_exact};
pub use row::{RowField, row_field, take_field};
pub use select::{is_selectable, select};
pub use temporal::{DatePattern, TemporalField, temporal_field};
pub use window::{WindowBoundary, WindowEdge, WindowSpec, window_boundary};

use crate::types::{Family, describe, family, is_integer};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{DataFusionError, Result, plan_err};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// Every function of this module that a query can name, and the conversions the planner inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Builtin {
    Lower,
    Upper,
    Trim(strings::Side),
    Substring,
    CharLength,
    Concat,
    ConcatWs,
    Replace,
    /// `POSITION(needle IN text)`; arguments text, needle.
    Position,
    /// `LOCATE(needle, text)`.
    Locate,
    RegexpExtract,
    SplitIndex,
    /// The user function of the Nexmark benchmark.
    CountChar,
    DateFormat,
    Extract(TemporalField),
    ToTimestamp,
    ToTimestampLtz,
    Abs,
    Mod,
    Floor,
    Ceil,
    Round,
    Power,
    Sqrt,
    Exp,
    Ln,
    Log10,
    DecimalDivide,
    /// `CAST` to text of the types whose text form differs from Arrow's.
    ToText,
}

/// Functions by the name a query uses, in lower case.
const NAMES: [(&str, Builtin); 44] = [
    ("lower", Builtin::Lower),
    ("upper", Builtin::Upper),
    ("trim", Builtin::Trim(strings::Side::Both)),
    ("btrim", Builtin::Trim(strings::Side::Both)),
    ("ltrim", Builtin::Trim(strings::Side::Left)),
    ("rtrim", Builtin::Trim(strings::Side::Right)),
    ("substring", Builtin::Substring),
    ("substr", Builtin::Substring),
    ("char_length", Builtin::CharLength),
    ("character_length", Builtin::CharLength),
    ("concat", Builtin::Concat),
    ("concat_ws", Builtin::ConcatWs),
    ("replace", Builtin::Replace),
    ("locate", Builtin::Locate),
    ("regexp_extract", Builtin::RegexpExtract),
    ("split_index", Builtin::SplitIndex),
    ("date_format", Builtin::DateFormat),
    ("year", Builtin::Extract(TemporalField::Year)),
    ("quarter", Builtin::Extract(TemporalField::Quarter)),
    ("month", Builtin::Extract(TemporalField::Month)),
    ("week", Builtin::Extract(TemporalField::Week)),
    ("dayofyear", Builtin::Extract(TemporalField::DayOfYear)),
    ("dayofmonth", Builtin::Extract(TemporalField::Day)),
    ("dayofweek", Builtin::Extract(TemporalField::DayOfWeek)),
    ("hour", Builtin::Extract(TemporalField::Hour)),
    ("minute", Builtin::Extract(TemporalField::Minute)),
    ("second", Builtin::Extract(TemporalField::Second)),
    ("to_timestamp", Builtin::ToTimestamp),
    ("to_timestamp_ltz", Builtin::ToTimestampLtz),
    ("abs", Builtin::Abs),
    ("mod", Builtin::Mod),
    ("floor", Builtin::Floor),
    ("ceil", Builtin::Ceil),
    ("ceiling", Builtin::Ceil),
    ("round", Builtin::Round),
    ("power", Builtin::Power),
    ("sqrt", Builtin::Sqrt),
    ("exp", Builtin::Exp),
    ("ln", Builtin::Ln),
    ("log10", Builtin::Log10),
    ("day", Builtin::Extract(TemporalField::Day)),
    ("strpos", Builtin::Position),
    ("count_char", Builtin::CountChar),
    ("to_text", Builtin::ToText),
];

/// In `NAMES` only for the planner's own use.
const INTERNAL: [&str; 4] = ["day", "strpos", "count_char", "to_text"];

/// Functions that are planned as expressions.
const EXPRESSIONS: [&str; 2] = ["coalesce", "nullif"];

pub const AGGREGATES: [&str; 5] = ["count", "sum", "min", "max", "avg"];

/// Classes that `CREATE FUNCTION` can name.
const CLASSES: [(&str, Builtin); 1] = [("com.github.nexmark.flink.udf.CountChar", Builtin::CountChar)];

/// Whether a regular expression of Java can be used.
pub fn check_regex(pattern: &str) -> std::result::Result<(), String> {
    java_regex::compile(pattern).map(|_| ())
}

/// The function, wrapped for DataFusion.
pub fn udf(builtin: Builtin) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(FlinkFunction {
        builtin,
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

/// The function a query calls by `name`, if there is one.
pub fn by_name(name: &str) -> Option<Arc<ScalarUDF>> {
    let name = name.to_lowercase();
    match name.as_str() {
        "coalesce" => Some(datafusion_functions::core::coalesce()),
        "nullif" => Some(datafusion_functions::core::nullif()),
        _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, builtin)| udf(*builtin)),
    }
}

/// The function that a class of `CREATE FUNCTION` stands for.
pub fn by_class(class: &str) -> std::result::Result<Builtin, String> {
    CLASSES.iter().find(|(known, _)| *known == class).map(|(_, builtin)| *builtin).ok_or_else(|| {
        let known: Vec<&str> = CLASSES.iter().map(|(known, _)| *known).collect();
        format!("classes cannot be loaded, found '{class}'; these stand for built-in functions: {}", known.join(", "))
    })
}

/// Whether a query may call a function of this name, and what to use instead.
pub fn check_name(name: &str, user_functions: &[String]) -> std::result::Result<(), String> {
    if user_functions.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let name = name.trim_matches('`').to_lowercase();
    let listed = NAMES.iter().any(|(known, _)| *known == name) && !INTERNAL.contains(&name.as_str());
    if listed || EXPRESSIONS.contains(&name.as_str()) || AGGREGATES.contains(&name.as_str()) {
        return Ok(());
    }
    Err(match name.as_str() {
        "now"
        | "current_timestamp"
        | "localtimestamp"
        | "current_date"
        | "current_time"
        | "localtime"
        | "current_row_timestamp"
        | "rand"
        | "rand_integer"
        | "uuid"
        | "unix_timestamp" => format!(
            "{}() gives another result when rows are read again after a failure; take the value from a column of the source",
            name.to_uppercase()
        ),
        "proctime" => {
            "processing time is not supported yet; use event time: WATERMARK FOR ts AS ts - INTERVAL '4' SECOND".into()
        }
        "tumble" | "hop" | "session" | "cumulate" | "tumble_start" | "tumble_end" | "tumble_rowtime" => {
            "group windows are replaced by table functions: FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' \
             SECOND)) GROUP BY window_start, window_end"
                .into()
        }
        _ => match nearest(&name) {
            Some(close) => {
                format!("there is no function {}; did you mean {}?", name.to_uppercase(), close.to_uppercase())
            }
            None => format!(
                "the function {} is not supported; supported: {}",
                name.to_uppercase(),
                callable().map(str::to_uppercase).collect::<Vec<_>>().join(", ")
            ),
        },
    })
}

fn callable() -> impl Iterator<Item = &'static str> {
    let scalar = NAMES.iter().map(|(name, _)| *name).filter(|name| !INTERNAL.contains(name));
    scalar.chain(EXPRESSIONS).chain(AGGREGATES)
}

/// A name at most two edits away.
fn nearest(name: &str) -> Option<&'static str> {
    callable()
        .map(|known| (datafusion_common::utils::datafusion_strsim::levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2 && *distance * 2 < known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FlinkFunction {
    builtin: Builtin,
    signature: Signature,
}

impl ScalarUDFImpl for FlinkFunction {
    fn name(&self) -> &str {
        match self.builtin {
            // Not nameable by a query.
            Builtin::DecimalDivide => "decimal_divide",
            builtin => NAMES.iter().find(|(_, known)| *known == builtin).map_or("function", |(name, _)| name),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.resolve(arg_types).map(|(_, result)| result)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let mut data_type = self.return_type(&types)?;
        if self.builtin == Builtin::Round {
            data_type = numeric::round_type(&types, args.scalar_arguments)?;
        }
        let nullable = match self.builtin {
            Builtin::CountChar => false,
            Builtin::RegexpExtract | Builtin::SplitIndex | Builtin::Substring => true,
            Builtin::ToTimestamp | Builtin::ToTimestampLtz | Builtin::DecimalDivide | Builtin::Round => true,
            _ => args.arg_fields.iter().any(|field| field.is_nullable()),
        };
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.resolve(arg_types).map(|(arguments, _)| arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        use Builtin::*;
        match self.builtin {
            Lower | Upper | Trim(_) | Substring | CharLength | Concat | ConcatWs | Replace | Position | Locate
            | RegexpExtract | SplitIndex | CountChar => strings::evaluate(self.builtin, args),
            DateFormat | Extract(_) | ToTimestamp | ToTimestampLtz => temporal::evaluate(self.builtin, args),
            Abs | Mod | Floor | Ceil | Round | Power | Sqrt | Exp | Ln | Log10 | DecimalDivide => {
                numeric::evaluate(self.builtin, args)
            }
            ToText => convert::to_text(args),
        }
    }
}

impl FlinkFunction {
    /// The types the arguments are brought to, and the result's type.
    fn resolve(&self, types: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        use Builtin::*;
        use DataType::{Float64, Int32, Int64, Utf8};
        match self.builtin {
            Lower | Upper => self.fixed(types, &[Utf8], 1, Utf8),
            Trim(_) => self.fixed(types, &[Utf8, Utf8], 1, Utf8),
            Substring => self.fixed(types, &[Utf8, Int32, Int32], 2, Utf8),
            CharLength => self.fixed(types, &[Utf8], 1, Int32),
            Concat | ConcatWs => {
                let least = if self.builtin == Concat { 1 } else { 2 };
                self.fixed(types, &vec![Utf8; types.len().max(least)], least, Utf8)
            }
            Replace => self.fixed(types, &[Utf8, Utf8, Utf8], 3, Utf8),
            Position | Locate => self.fixed(types, &[Utf8, Utf8], 2, Int32),
            RegexpExtract => self.fixed(types, &[Utf8, Utf8, Int32], 2, Utf8),
            SplitIndex => self.fixed(types, &[Utf8, Utf8, Int32], 3, Utf8),
            CountChar => self.fixed(types, &[Utf8, Utf8], 2, Int64),
            DateFormat => {
                self.count(types, 2, 2)?;
                self.family(types, 0, Family::Timestamp)?;
                self.family(types, 1, Family::Text)?;
                Ok((vec![types[0].clone(), Utf8], Utf8))
            }
            Extract(field) => {
                self.count(types, 1, 1)?;
                match family(&types[0]) {
                    Family::Timestamp => {}
                    Family::Date if !field.is_time_of_day() => {}
                    _ => self.family(types, 0, Family::Timestamp)?,
                }
                Ok((types.to_vec(), Int64))
            }
            ToTimestamp => self.fixed(types, &[Utf8], 1, DataType::Timestamp(TimeUnit::Millisecond, None)),
            ToTimestampLtz => {
                self.fixed(types, &[Int64, Int32], 2, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))
            }
            Abs | Floor | Ceil => {
                self.count(types, 1, 1)?;
                self.family(types, 0, Family::Number)?;
                let result = match (&types[0], self.builtin) {
                    (DataType::Decimal128(precision, _), Floor | Ceil) => DataType::Decimal128(*precision, 0),
                    (other, _) => other.clone(),
                };
                Ok((types.to_vec(), result))
            }
            Mod => {
                self.count(types, 2, 2)?;
                numeric::modulo_types(types).map_err(|message| self.error(&message))
            }
            Round => {
                self.count(types, 1, 2)?;
                self.family(types, 0, Family::Number)?;
                let mut arguments = vec![types[0].clone()];
                if types.len() == 2 {
                    if !is_integer(&types[1]) {
                        return Err(self.error("the number of digits must be an integer"));
                    }
                    // Not converted: the result's type needs the literal itself.
                    arguments.push(types[1].clone());
                }
                Ok((arguments, types[0].clone()))
            }
            Power => self.numbers(types, 2, Float64),
            Sqrt | Exp | Ln | Log10 => self.numbers(types, 1, Float64),
            DecimalDivide => numeric::divide_types(types).map_err(|message| self.error(&message)),
            ToText => Ok((types.to_vec(), Utf8)),
        }
    }

    /// Arguments of given types, the last ones optional.
    fn fixed(
        &self,
        types: &[DataType],
        expected: &[DataType],
        least: usize,
        result: DataType,
    ) -> Result<(Vec<DataType>, DataType)> {
        self.count(types, least, expected.len())?;
        for (index, (found, expected)) in types.iter().zip(expected).enumerate() {
            self.family(types, index, family(expected))?;
            if is_integer(expected) && !is_integer(found) && *found != DataType::Null {
                return Err(self.error(&format!(
                    "argument {} must be an integer, found {}",
                    index + 1,
                    describe(found)
                )));
            }
        }
        Ok((expected[..types.len()].to_vec(), result))
    }

    fn numbers(&self, types: &[DataType], count: usize, result: DataType) -> Result<(Vec<DataType>, DataType)> {
        self.count(types, count, count)?;
        for index in 0..count {
            self.family(types, index, Family::Number)?;
        }
        Ok((vec![DataType::Float64; count], result))
    }

    fn count(&self, types: &[DataType], least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&types.len()) {
            return Ok(());
        }
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(self.error(&format!("takes {expected} argument(s), found {}", types.len())))
    }

    fn family(&self, types: &[DataType], index: usize, expected: Family) -> Result<()> {
        let found = family(&types[index]);
        if found == expected || found == Family::Null {
            return Ok(());
        }
        let wanted = match expected {
            Family::Text => "STRING",
            Family::Number => "a number",
            Family::Timestamp => "TIMESTAMP",
            _ => "another type",
        };
        Err(self.error(&format!("argument {} must be {wanted}, found {}; CAST it", index + 1, describe(&types[index]))))
    }

    fn error(&self, message: &str) -> DataFusionError {
        match plan_err!("{}: {message}", self.name().to_uppercase()) as Result<()> {
            Err(error) => error,
            Ok(()) => DataFusionError::Plan(message.to_string()),
        }
    }
}

/// Whether evaluating the function can fail for some values, so that it must not run for rows that do not need it.
pub fn may_fail(function: &ScalarUDF) -> bool {
    if let Some(flink) = function.inner().downcast_ref::<FlinkFunction>() {
        return matches!(
            flink.builtin,
            Builtin::Mod | Builtin::DecimalDivide | Builtin::CountChar | Builtin::ToTimestampLtz
        );
    }
    function.inner().downcast_ref::<WindowBoundary>().is_some()
}
