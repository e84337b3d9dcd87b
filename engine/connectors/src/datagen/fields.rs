//! What is generated for each column, from the table's options.

use crate::options::Options;
use crate::projection::{Need, need};
use arrow::datatypes::{DataType, FieldRef};
use std::collections::BTreeSet;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::TableDefinition;

const DEFAULT_LENGTH: u32 = 100;
const MAX_LENGTH: u32 = 1 << 20;
const PROPERTIES: [&str; 9] = ["kind", "min", "max", "max-past", "length", "var-len", "null-rate", "start", "end"];

/// One column, or one field of a nested row.
#[derive(Debug, Clone)]
pub(super) struct FieldSpec {
    pub field: FieldRef,
    /// Names from the table down, with dots: the random stream depends on it, so other columns do not matter.
    pub path: String,
    pub read: bool,
    /// Nulls among 2^32 rows.
    pub nulls: u64,
    pub values: Values,
}

#[derive(Debug, Clone)]
pub(super) enum Values {
    Boolean,
    Integer { min: i64, max: i64 },
    Float { min: f64, max: f64 },
    Decimal { min: i128, max: i128, precision: u8, scale: i8 },
    Text { length: u32, variable: bool },
    Bytes { length: u32, variable: bool },
    Date,
    Time,
    Timestamp { max_past_ms: u64 },
    Sequence { start: i64, end: i64 },
    Row(Vec<FieldSpec>),
}

impl FieldSpec {
    /// How many rows there are at most.
    pub fn sequence_length(&self) -> Option<u64> {
        match &self.values {
            Values::Sequence { start, end } => Some((i128::from(*end) - i128::from(*start) + 1).max(0) as u64),
            Values::Row(fields) => fields.iter().filter_map(FieldSpec::sequence_length).min(),
            _ => None,
        }
    }
}

/// The columns of the table. Every `fields.…` option must belong to one.
pub(super) fn specs(
    table: &TableDefinition,
    required: Option<&BTreeSet<Vec<String>>>,
) -> Result<Vec<FieldSpec>, PlanError> {
    let options = Options::of(table);
    if table.schema.fields().is_empty() {
        return Err(options.table_error("a datagen table needs at least one column"));
    }
    let mut planner = Planner { options, required, used: BTreeSet::new() };
    let fields =
        table.schema.fields().iter().map(|field| planner.field(field, &mut vec![])).collect::<Result<Vec<_>, _>>()?;
    for option in table.options.keys().filter(|option| option.starts_with("fields.")) {
        if !planner.used.contains(option) {
            let fitting: Vec<&str> = planner.used.iter().map(String::as_str).collect();
            return Err(
                options.error(option, format!("fits no column of the table; those that do: {}", fitting.join(", ")))
            );
        }
    }
    Ok(fields)
}

struct Planner<'a> {
    options: Options<'a>,
    required: Option<&'a BTreeSet<Vec<String>>>,
    /// Options that mean something for this table.
    used: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    fn field(&mut self, field: &'a FieldRef, parents: &mut Vec<&'a str>) -> Result<FieldSpec, PlanError> {
        parents.push(field.name());
        let path = parents.join(".");
        let read = need(self.required, parents) != Need::Nothing;
        let kind = self.text(&path, "kind").unwrap_or("random").to_string();
        let values = match (field.data_type(), kind.as_str()) {
            (DataType::Struct(fields), "random") => {
                let fields = fields.iter().map(|field| self.field(field, parents)).collect::<Result<Vec<_>, _>>()?;
                Values::Row(fields)
            }
            (_, "random") => self.random(field, &path)?,
            (_, "sequence") => self.sequence(field, &path)?,
            (_, other) => {
                return Err(self.wrong(&path, "kind", format!("'{other}' is neither 'random' nor 'sequence'")));
            }
        };
        parents.pop();
        let rate = self.number(&path, "null-rate", 0.0f64, 0.0, 1.0)?;
        if rate > 0.0 && !field.is_nullable() {
            return Err(self.wrong(&path, "null-rate", "the column is NOT NULL".into()));
        }
        Ok(FieldSpec { field: field.clone(), path, read, nulls: (rate * (1u64 << 32) as f64) as u64, values })
    }

    fn option(&mut self, path: &str, property: &str) -> String {
        debug_assert!(PROPERTIES.contains(&property));
        let option = format!("fields.{path}.{property}");
        self.used.insert(option.clone());
        option
    }

    fn text(&mut self, path: &str, property: &str) -> Option<&'a str> {
        let option = self.option(path, property);
        self.options.text(&option)
    }

    fn wrong(&mut self, path: &str, property: &str, message: String) -> PlanError {
        let option = self.option(path, property);
        self.options.error(&option, message)
    }

    fn number<T>(&mut self, path: &str, property: &str, default: T, min: T, max: T) -> Result<T, PlanError>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let option = self.option(path, property);
        self.options.number(&option, default, min, max)
    }

    /// `min` and `max` within the limits of the type.
    fn range<T>(&mut self, path: &str, lowest: T, default_min: T, highest: T) -> Result<(T, T), PlanError>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let min = self.number(path, "min", default_min, lowest, highest)?;
        let max = self.number(path, "max", highest, lowest, highest)?;
        if min > max {
            return Err(self.wrong(path, "min", format!("{min} is more than the maximum {max}")));
        }
        Ok((min, max))
    }

    fn length(&mut self, path: &str) -> Result<(u32, bool), PlanError> {
        let length = self.number(path, "length", DEFAULT_LENGTH, 1, MAX_LENGTH)?;
        let option = self.option(path, "var-len");
        Ok((length, self.options.flag(&option, false)?))
    }

    fn random(&mut self, field: &FieldRef, path: &str) -> Result<Values, PlanError> {
        let integers = |(min, max)| Values::Integer { min, max };
        Ok(match field.data_type() {
            DataType::Boolean => Values::Boolean,
            DataType::Int8 => integers(self.range(path, i8::MIN.into(), i8::MIN.into(), i8::MAX.into())?),
            DataType::Int16 => integers(self.range(path, i16::MIN.into(), i16::MIN.into(), i16::MAX.into())?),
            DataType::Int32 => integers(self.range(path, i32::MIN.into(), i32::MIN.into(), i32::MAX.into())?),
            DataType::Int64 => integers(self.range(path, i64::MIN, i64::MIN, i64::MAX)?),
            DataType::Float32 => {
                let (min, max) = self.range(path, f32::MIN, f32::from_bits(1), f32::MAX)?;
                Values::Float { min: min.into(), max: max.into() }
            }
            DataType::Float64 => {
                let (min, max) = self.range(path, f64::MIN, f64::from_bits(1), f64::MAX)?;
                Values::Float { min, max }
            }
            DataType::Decimal128(precision, scale) => {
                let largest = 10i128.pow(u32::from((*precision).min(38))) - 1;
                let factor = 10f64.powi((*scale).into());
                let limit = largest as f64 / factor;
                let (min, max) = self.range(path, -limit, 0.0, limit)?;
                let unscaled = |value: f64| ((value * factor).round() as i128).clamp(-largest, largest);
                Values::Decimal { min: unscaled(min), max: unscaled(max), precision: *precision, scale: *scale }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let (length, variable) = self.length(path)?;
                Values::Text { length, variable }
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                let (length, variable) = self.length(path)?;
                Values::Bytes { length, variable }
            }
            DataType::Date32 => Values::Date,
            DataType::Time32(_) | DataType::Time64(_) => Values::Time,
            DataType::Timestamp(_, _) => {
                let option = self.option(path, "max-past");
                let past = self.options.duration(&option)?.unwrap_or_default();
                Values::Timestamp { max_past_ms: u64::try_from(past.as_millis()).unwrap_or(u64::MAX) }
            }
            other => {
                return Err(self
                    .options
                    .table_error(format!("column '{path}' has the type {other}, which datagen cannot make")));
            }
        })
    }

    fn sequence(&mut self, field: &FieldRef, path: &str) -> Result<Values, PlanError> {
        use DataType::*;
        let largest = match field.data_type() {
            Int8 => i8::MAX.into(),
            Int16 => i16::MAX.into(),
            Int32 => i32::MAX.into(),
            Int64 | Float32 | Float64 | Utf8 | LargeUtf8 | Utf8View => i64::MAX,
            Decimal128(precision, scale) => {
                let digits = i32::from(*precision) - i32::from(*scale);
                10i64.checked_pow(digits.clamp(0, 18) as u32).map_or(i64::MAX, |power| power - 1)
            }
            other => {
                return Err(self.wrong(path, "kind", format!("there are no sequences of {other}")));
            }
        };
        for property in ["start", "end"] {
            if self.text(path, property).is_none() {
                return Err(self.wrong(path, property, "missing: a sequence has a start and an end".into()));
            }
        }
        let start = self.number(path, "start", 0, -largest, largest)?;
        let end = self.number(path, "end", 0, -largest, largest)?;
        if start > end {
            return Err(self.wrong(path, "start", format!("{start} is more than the end {end}")));
        }
        Ok(Values::Sequence { start, end })
    }
}
