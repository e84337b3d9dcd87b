//! Rows as JSON objects, one a line, written as Flink's JSON format writes them.

use super::{CHANGELOG_FIELD, JsonOptions};
use crate::error::ConnectorError;
use crate::rows::{Cell, Column, Columns};
use crate::text::{
    Fraction, push_date, push_decimal, push_double, push_float, push_integer, push_plain_decimal, push_time,
    push_timestamp, push_unsigned, strip_trailing_zeros,
};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use streamjob_dataflow::Batch;

pub(crate) struct JsonEncoder {
    options: JsonOptions,
    changelog: bool,
    fields: Vec<FieldName>,
}

/// A field's name as it is written.
struct FieldName {
    /// `"name":`
    prefix: Vec<u8>,
    /// Of a nested row, or of the rows in a list.
    inner: Vec<FieldName>,
}

impl FieldName {
    fn of(field: &FieldRef) -> FieldName {
        FieldName { prefix: name_prefix(field.name()), inner: FieldName::inner(field.data_type()) }
    }

    fn inner(kind: &DataType) -> Vec<FieldName> {
        match kind {
            DataType::Struct(fields) => fields.iter().map(FieldName::of).collect(),
            DataType::List(element) => FieldName::inner(element.data_type()),
            _ => Vec::new(),
        }
    }
}

fn name_prefix(name: &str) -> Vec<u8> {
    let mut prefix = Vec::new();
    push_string(&mut prefix, name);
    prefix.push(b':');
    prefix
}

impl JsonEncoder {
    pub fn new(options: JsonOptions, schema: &SchemaRef, changelog: bool) -> Self {
        JsonEncoder { options, changelog, fields: schema.fields().iter().map(FieldName::of).collect() }
    }

    pub fn encode(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), ConnectorError> {
        let columns = Columns::of(&batch.rows)?;
        let changelog_prefix = name_prefix(CHANGELOG_FIELD);
        for row in 0..batch.len() {
            out.push(b'{');
            let mut first = true;
            if self.changelog {
                out.extend_from_slice(&changelog_prefix);
                push_string(out, batch.kind(row).symbol());
                first = false;
            }
            for (field, column) in self.fields.iter().zip(&columns.columns) {
                self.push_field(out, field, column, row, &mut first);
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }

    fn push_field(&self, out: &mut Vec<u8>, field: &FieldName, column: &Column<'_>, row: usize, first: &mut bool) {
        let cell = column.cell(row);
        if self.options.ignore_null_fields && matches!(cell, Cell::Null) {
            return;
        }
        if !*first {
            out.push(b',');
        }
        *first = false;
        out.extend_from_slice(&field.prefix);
        self.push_cell(out, &field.inner, cell);
    }

    fn push_cell(&self, out: &mut Vec<u8>, inner: &[FieldName], cell: Cell<'_>) {
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Cell::Integer(value) => push_integer(out, value),
            Cell::Unsigned(value) => push_unsigned(out, value),
            Cell::Float(value) => push_number(out, value.is_finite(), |out| push_float(out, value)),
            Cell::Double(value) => push_number(out, value.is_finite(), |out| push_double(out, value)),
            Cell::Decimal(value, scale) => {
                let (value, scale) = strip_trailing_zeros(value, scale.into());
                match self.options.plain_decimals {
                    true => push_plain_decimal(out, value, scale),
                    false => push_decimal(out, value, scale),
                }
            }
            Cell::Text(value) => push_string(out, value),
            Cell::Bytes(value) => {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(value).as_bytes());
                out.push(b'"');
            }
            Cell::Date(days) => quoted(out, |out| push_date(out, days.into())),
            Cell::Time(nanos) => quoted(out, |out| push_time(out, nanos, Fraction::Shortest)),
            Cell::Timestamp { seconds, nanos, instant } => quoted(out, |out| {
                push_timestamp(out, seconds, nanos, self.options.timestamps.separator(), Fraction::Shortest);
                if instant {
                    out.push(b'Z');
                }
            }),
            Cell::Row(columns, row) => {
                out.push(b'{');
                let mut first = true;
                for (field, column) in inner.iter().zip(&columns.columns) {
                    self.push_field(out, field, column, row, &mut first);
                }
                out.push(b'}');
            }
            Cell::List(column, start, end) => {
                out.push(b'[');
                for element in start..end {
                    if element > start {
                        out.push(b',');
                    }
                    self.push_cell(out, inner, column.cell(element));
                }
                out.push(b']');
            }
        }
    }
}

fn quoted(out: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    push(out);
    out.push(b'"');
}

/// JSON has no infinities: they are strings.
fn push_number(out: &mut Vec<u8>, finite: bool, push: impl FnOnce(&mut Vec<u8>)) {
    if finite { push(out) } else { quoted(out, push) }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let bytes = text.as_bytes();
    out.push(b'"');
    // Without an early end the loop is a vector instruction for many bytes, and most texts have nothing to escape.
    if !bytes.iter().fold(false, |found, &byte| found | special(byte)) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !special(byte) {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x8 => out.extend_from_slice(b"\\b"),
            0xC => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
