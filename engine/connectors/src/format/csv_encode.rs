//! Rows as CSV records, one a line unless a value contains a newline.

use super::CsvOptions;
use crate::error::ConnectorError;
use crate::rows::{Cell, Columns};
use crate::text::{
    Fraction, push_date, push_decimal, push_double, push_float, push_integer, push_plain_decimal, push_time,
    push_timestamp, push_unsigned, strip_trailing_zeros,
};
use arrow::error::ArrowError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use streamjob_dataflow::Batch;

pub(crate) struct CsvEncoder {
    options: CsvOptions,
    changelog: bool,
}

impl CsvEncoder {
    pub fn new(options: CsvOptions, changelog: bool) -> Self {
        CsvEncoder { options, changelog }
    }

    /// # Errors
    /// Without a quote or escape character a value contains a delimiter or newline.
    pub fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        let columns = Columns::of(&batch.rows)?;
        let mut value = Vec::new();
        for row in 0..batch.len() {
            if self.changelog {
                out.extend_from_slice(batch.kind(row).symbol().as_bytes());
            }
            for (index, column) in columns.columns.iter().enumerate() {
                if index > 0 || self.changelog {
                    out.push(self.options.delimiter);
                }
                let cell = column.cell(row);
                // Numbers and times never need a quote, unless the delimiter is made of their characters.
                value.clear();
                self.push_cell(&mut value, cell);
                let empty_text = matches!(cell, Cell::Text("")) && columns.columns.len() == 1;
                self.push_value(out, &value, empty_text, matches!(cell, Cell::Null))?;
            }
            out.push(b'\n');
        }
        Ok(())
    }

    /// `force`: a lone empty text would be a blank line.
    fn push_value(&self, out: &mut Vec<u8>, value: &[u8], force: bool, null: bool) -> Result<(), ConnectorError> {
        let CsvOptions { delimiter, quote, escape, .. } = self.options;
        // What is not set is compared with the delimiter, which is special anyway.
        let (first, second) = (quote.unwrap_or(delimiter), escape.unwrap_or(delimiter));
        let special =
            |byte: u8| (byte == delimiter) | (byte == b'\n') | (byte == b'\r') | (byte == first) | (byte == second);
        let comment = self.options.allow_comments && value.first() == Some(&b'#');
        if null || (!force && !comment && !value.iter().fold(false, |found, &byte| found | special(byte))) {
            out.extend_from_slice(value);
            return Ok(());
        }
        match (quote, escape) {
            (Some(quote), _) => {
                out.push(quote);
                for &byte in value {
                    if byte == quote {
                        out.push(quote);
                    } else if Some(byte) == escape {
                        out.push(byte);
                    }
                    out.push(byte);
                }
                out.push(quote);
            }
            (None, Some(escape)) if !value.contains(&b'\n') && !value.contains(&b'\r') => {
                for &byte in value {
                    if byte == delimiter || byte == escape {
                        out.push(escape);
                    }
                    out.push(byte);
                }
            }
            _ if value.is_empty() => {}
            _ => {
                let text = String::from_utf8_lossy(value).into_owned();
                return Err(ArrowError::CsvError(format!(
                    "the value '{text}' contains a delimiter or newline, which cannot be written without \
                     csv.quote-character"
                ))
                .into());
            }
        }
        Ok(())
    }

    fn push_cell(&self, out: &mut Vec<u8>, cell: Cell<'_>) {
        match cell {
            Cell::Null => out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or_default().as_bytes()),
            Cell::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Cell::Integer(value) => push_integer(out, value),
            Cell::Unsigned(value) => push_unsigned(out, value),
            Cell::Float(value) => push_float(out, value),
            Cell::Double(value) => push_double(out, value),
            Cell::Decimal(value, scale) => {
                let (value, scale) = strip_trailing_zeros(value, scale.into());
                match self.options.scientific_decimals {
                    true => push_decimal(out, value, scale),
                    false => push_plain_decimal(out, value, scale),
                }
            }
            Cell::Text(value) => out.extend_from_slice(value.as_bytes()),
            Cell::Bytes(value) => out.extend_from_slice(STANDARD.encode(value).as_bytes()),
            Cell::Date(days) => push_date(out, days.into()),
            Cell::Time(nanos) => push_time(out, nanos, Fraction::Shortest),
            Cell::Timestamp { seconds, nanos, instant } => {
                push_timestamp(out, seconds, nanos, b' ', Fraction::Shortest);
                if instant {
                    out.push(b'Z');
                }
            }
            Cell::Row(columns, row) => {
                let cells = columns.columns.iter().map(|column| column.cell(row));
                self.push_elements(out, cells);
            }
            Cell::List(column, start, end) => {
                self.push_elements(out, (start..end).map(|element| column.cell(element)));
            }
        }
    }

    fn push_elements<'a>(&self, out: &mut Vec<u8>, cells: impl Iterator<Item = Cell<'a>>) {
        for (index, cell) in cells.enumerate() {
            if index > 0 {
                out.extend_from_slice(self.options.element_delimiter.as_bytes());
            }
            self.push_cell(out, cell);
        }
    }
}
