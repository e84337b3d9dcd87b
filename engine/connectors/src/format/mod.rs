//! Formats of files: JSON lines and CSV, with Flink's options. Bytes in, batches out, and the other way round; where the
//! bytes come from and go to is the connector's business.
//!
//! A record that cannot be parsed fails with its place and the reason. With `ignore-parse-errors` a value that does not
//! fit its column becomes null and a record that is broken as a whole is skipped and counted, as in Flink.

mod columns;
mod csv;
mod csv_encode;
mod json;
mod json_encode;
mod parse;

use crate::error::ConnectorError;
use crate::options::{Options, optional, required};
use crate::projection::Placeholders;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use columns::ColumnBuilder;
pub(crate) use csv::CsvOptions;
pub(crate) use json::JsonOptions;
use memchr::memchr;
use std::collections::BTreeSet;
use streamjob_dataflow::connector::OptionDoc;
use streamjob_dataflow::{Batch, PlanError};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Format {
    Json(JsonOptions),
    Csv(CsvOptions),
}

/// How timestamps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampFormat {
    /// `2020-12-30 12:13:14.123`
    Sql,
    /// `2020-12-30T12:13:14.123`
    Iso8601,
}

impl TimestampFormat {
    pub fn separator(self) -> u8 {
        match self {
            TimestampFormat::Sql => b' ',
            TimestampFormat::Iso8601 => b'T',
        }
    }
}

/// The options of all formats, `format` itself included.
pub(crate) fn options() -> Vec<OptionDoc> {
    let mut docs = vec![required("format", "'json' (one object a line) or 'csv'")];
    docs.extend(json::options());
    docs.extend(csv::options());
    docs
}

impl Format {
    pub fn of(options: Options<'_>) -> Result<Format, PlanError> {
        let format = match options.text("format") {
            Some("json") => Format::Json(JsonOptions::of(options)?),
            Some("csv") => Format::Csv(CsvOptions::of(options)?),
            Some(other) => return Err(options.error("format", format!("'{other}' is not a format; one of: json, csv"))),
            None => return Err(options.error("format", "missing; one of: json, csv")),
        };
        let (name, other) = if matches!(format, Format::Json(_)) { ("json", "csv.") } else { ("csv", "json.") };
        for doc in self::options().iter().filter(|doc| doc.name.starts_with(other)) {
            if options.text(doc.name).is_some() {
                return Err(options.error(doc.name, format!("has no effect: the format is '{name}'")));
            }
        }
        Ok(format)
    }

    /// A record never contains a newline, so that reading can begin anywhere.
    pub fn one_line_records(&self) -> bool {
        match self {
            Format::Json(_) => true,
            Format::Csv(options) => options.quote.is_none(),
        }
    }
}

/// Where one record lies in the bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    /// End of its content.
    end: usize,
    /// Start of the record after it.
    next: usize,
}

/// The line that starts at `start`; `None` if its end has not been read yet.
fn line(input: &[u8], start: usize, at_end: bool) -> Option<Record> {
    let rest = input.get(start..).filter(|rest| !rest.is_empty())?;
    let (length, next) = match memchr(b'\n', rest) {
        Some(newline) => (newline, start + newline + 1),
        None if at_end => (rest.len(), input.len()),
        None => return None,
    };
    let content = &rest[..length];
    Some(Record { end: start + content.strip_suffix(b"\r").unwrap_or(content).len(), next })
}

/// Why a record or a value in it was not understood.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The record as a whole.
    Record(String),
    /// One value; everything after it can be read.
    Value(String),
}

impl Fault {
    fn within(self, name: &str) -> Fault {
        match self {
            Fault::Value(reason) => Fault::Value(format!("field '{name}': {reason}")),
            record => record,
        }
    }

    fn reason(self) -> String {
        match self {
            Fault::Record(reason) | Fault::Value(reason) => reason,
        }
    }
}

/// A record that was not understood, relative to the input of one `decode`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRecord {
    /// Bytes before it.
    pub offset: usize,
    /// Lines before it.
    pub lines: u64,
    pub reason: String,
}

/// What one `decode` got through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes of complete records.
    pub bytes: usize,
    pub lines: u64,
    /// Broken records that were skipped.
    pub skipped: usize,
}

/// Turns bytes into batches of the declared schema.
pub(crate) struct Decoder {
    format: Format,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    names: json::Names,
    placeholders: Placeholders,
}

impl Decoder {
    /// # Errors
    /// Names a column whose type the format cannot read.
    pub fn new(format: Format, schema: SchemaRef, required: Option<&BTreeSet<Vec<String>>>) -> Result<Decoder, String> {
        let columns = schema
            .fields()
            .iter()
            .map(|field| ColumnBuilder::new(field, &mut vec![], required))
            .collect::<Result<Vec<_>, _>>()?;
        let names = json::Names::of(&columns);
        Ok(Decoder { format, schema, columns, rows: 0, names, placeholders: Placeholders::default() })
    }

    /// Rows decoded and not taken yet.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Decodes the complete records that start in the first `limit` bytes of `input`, until `max_rows` rows wait.
    /// `at_end`: what follows the last newline is a record too.
    pub fn decode(&mut self, input: &[u8], at_end: bool, limit: usize, max_rows: usize) -> Result<Progress, BadRecord> {
        let mut progress = Progress::default();
        while progress.bytes < limit && self.rows < max_rows {
            let record = match &self.format {
                Format::Json(_) => line(input, progress.bytes, at_end),
                Format::Csv(options) => options.record(input, progress.bytes, at_end),
            };
            let Some(Record { end, next }) = record else { break };
            match self.decode_record(&input[progress.bytes..end]) {
                Ok(true) => self.rows += 1,
                Ok(false) => {}
                Err(fault) => {
                    for column in &mut self.columns {
                        column.truncate(self.rows);
                    }
                    if !self.ignores_errors() {
                        return Err(BadRecord {
                            offset: progress.bytes,
                            lines: progress.lines,
                            reason: fault.reason(),
                        });
                    }
                    progress.skipped += 1;
                }
            }
            progress.lines += match self.format.one_line_records() {
                true => 1,
                false => memchr::memchr_iter(b'\n', &input[progress.bytes..next]).count() as u64,
            };
            progress.bytes = next;
        }
        Ok(progress)
    }

    fn ignores_errors(&self) -> bool {
        match &self.format {
            Format::Json(options) => options.ignore_parse_errors,
            Format::Csv(options) => options.ignore_parse_errors,
        }
    }

    /// Appends one row; `false` if there is none in the record.
    fn decode_record(&mut self, record: &[u8]) -> Result<bool, Fault> {
        let text = std::str::from_utf8(record)
            .map_err(|error| Fault::Record(format!("byte {} is not UTF-8", error.valid_up_to())))?;
        match &self.format {
            Format::Json(options) => json::decode(options, &self.names, &mut self.columns, self.rows, text),
            Format::Csv(options) => csv::decode(options, &mut self.columns, self.rows, text),
        }
    }

    /// The rows decoded so far.
    pub fn take(&mut self) -> Result<RecordBatch, ConnectorError> {
        let rows = std::mem::take(&mut self.rows);
        let arrays = self
            .columns
            .iter_mut()
            .map(|column| column.finish(rows, &mut self.placeholders))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

/// Writes rows as lines.
pub(crate) enum Encoder {
    Json(json_encode::JsonEncoder),
    Csv(csv_encode::CsvEncoder),
}

impl Encoder {
    /// `changelog` puts the kind of each change in a first field `op`.
    pub fn new(format: Format, schema: &SchemaRef, changelog: bool) -> Encoder {
        match format {
            Format::Json(options) => Encoder::Json(json_encode::JsonEncoder::new(options, schema, changelog)),
            Format::Csv(options) => Encoder::Csv(csv_encode::CsvEncoder::new(options, changelog)),
        }
    }

    /// Appends one line a row.
    pub fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        match self {
            Encoder::Json(encoder) => encoder.encode(batch, out),
            Encoder::Csv(encoder) => encoder.encode(batch, out),
        }
    }
}

/// The name of the field that `changelog` adds.
pub(crate) const CHANGELOG_FIELD: &str = "op";

fn ignore_errors_doc(name: &'static str) -> OptionDoc {
    optional(name, Some("false"), "Values that do not fit become null, broken records are skipped and counted")
}

#[cfg(test)]
mod tests;
