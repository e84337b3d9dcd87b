//! CSV records into columns. A quoted field may contain delimiters and newlines; a nested row is one field whose
//! values are separated by the array element delimiter.

use super::columns::{ColumnBuilder, Values};
use super::{Fault, Record, ignore_errors_doc, line};
use crate::options::{Options, optional};
use memchr::memchr;
use std::borrow::Cow;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::OptionDoc;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CsvOptions {
    pub delimiter: u8,
    pub quote: Option<u8>,
    pub escape: Option<u8>,
    pub null_literal: Option<String>,
    pub allow_comments: bool,
    pub ignore_parse_errors: bool,
    /// Between the values of a nested row or array.
    pub element_delimiter: String,
    pub scientific_decimals: bool,
}

pub(super) fn options() -> Vec<OptionDoc> {
    vec![
        optional("csv.field-delimiter", Some(","), "One ASCII character; '\\t' stands for a tab"),
        optional("csv.quote-character", Some("\""), "Encloses values that contain delimiters, quotes or newlines"),
        optional("csv.disable-quote-character", Some("false"), "No character encloses values"),
        optional("csv.escape-character", None, "Takes the special meaning from the character after it"),
        optional(
            "csv.null-literal",
            None,
            "The text that stands for null; without it nulls are written as nothing, and nothing is read as null \
             unless the column is a string",
        ),
        optional("csv.allow-comments", Some("false"), "Lines that begin with '#' are ignored"),
        optional("csv.array-element-delimiter", Some(";"), "Separates the values of a nested row or array"),
        optional(
            "csv.write-bigdecimal-in-scientific-notation",
            Some("true"),
            "Writes 1E+5 instead of 100000 for decimals",
        ),
        ignore_errors_doc("csv.ignore-parse-errors"),
    ]
}

fn one_byte(value: &str) -> Result<u8, String> {
    match value {
        "\\t" => Ok(b'\t'),
        _ => match value.as_bytes() {
            [byte] if byte.is_ascii() && *byte != b'\n' && *byte != b'\r' => Ok(*byte),
            _ => Err(format!("'{value}' is not one ASCII character")),
        },
    }
}

impl CsvOptions {
    pub fn of(options: Options<'_>) -> Result<CsvOptions, PlanError> {
        let quote = options.parsed("csv.quote-character", one_byte)?;
        let disabled = options.flag("csv.disable-quote-character", false)?;
        if disabled && quote.is_some() {
            return Err(
                options.error("csv.quote-character", "cannot be set when csv.disable-quote-character is 'true'")
            );
        }
        let csv = CsvOptions {
            delimiter: options.parsed("csv.field-delimiter", one_byte)?.unwrap_or(b','),
            quote: (!disabled).then_some(quote.unwrap_or(b'"')),
            escape: options.parsed("csv.escape-character", one_byte)?,
            null_literal: options.text("csv.null-literal").map(str::to_string),
            allow_comments: options.flag("csv.allow-comments", false)?,
            ignore_parse_errors: options.flag("csv.ignore-parse-errors", false)?,
            element_delimiter: options.text("csv.array-element-delimiter").unwrap_or(";").to_string(),
            scientific_decimals: options.flag("csv.write-bigdecimal-in-scientific-notation", true)?,
        };
        if csv.quote == Some(csv.delimiter) || csv.escape == Some(csv.delimiter) {
            return Err(options.error("csv.field-delimiter", "is also the quote or the escape character"));
        }
        if csv.element_delimiter.is_empty() {
            return Err(options.error("csv.array-element-delimiter", "must not be empty"));
        }
        Ok(csv)
    }

    fn is_comment(&self, content: &[u8]) -> bool {
        self.allow_comments && content.first() == Some(&b'#')
    }

    /// The record that starts at `start`; `None` if its end has not been read yet.
    pub(super) fn record(&self, input: &[u8], start: usize, at_end: bool) -> Option<Record> {
        let first = line(input, start, at_end)?;
        let Some(quote) = self.quote else { return Some(first) };
        if memchr(quote, &input[start..first.end]).is_none() || self.is_comment(&input[start..first.end]) {
            return Some(first);
        }
        let mut at = start;
        let mut field_start = true;
        while at < input.len() {
            let byte = input[at];
            if Some(byte) == self.escape {
                at += 2;
                field_start = false;
            } else if field_start && byte == quote {
                at = self.quoted_end(input, at + 1, quote)?.unwrap_or(input.len());
                field_start = false;
            } else if byte == b'\n' {
                let content = &input[start..at];
                let end = start + content.strip_suffix(b"\r").unwrap_or(content).len();
                return Some(Record { end, next: at + 1 });
            } else {
                field_start = byte == self.delimiter;
                at += 1;
            }
        }
        at_end.then_some(Record { end: input.len(), next: input.len() })
    }

    /// After the closing quote of a field; `Some(None)` if there is none. A quote as the last byte closes the field for
    /// now: with more input it may turn out to be doubled, but then the record is looked at again.
    fn quoted_end(&self, input: &[u8], mut at: usize, quote: u8) -> Option<Option<usize>> {
        while at < input.len() {
            if Some(input[at]) == self.escape && self.escape != Some(quote) {
                at += 2;
            } else if input[at] == quote {
                if input.get(at + 1) != Some(&quote) {
                    return Some(Some(at + 1));
                }
                at += 2;
            } else {
                at += 1;
            }
        }
        Some(None)
    }
}

/// Appends the record in `text` as one row; `false` if the text is blank or a comment.
pub(super) fn decode(
    options: &CsvOptions,
    columns: &mut [ColumnBuilder],
    row: usize,
    text: &str,
) -> Result<bool, Fault> {
    if options.is_comment(text.as_bytes()) || (text.is_empty() && columns.len() > 1) {
        return Ok(false);
    }
    let mut fields = Fields { options, rest: Some(text) };
    let mut count = 0;
    let expected = columns.len();
    for column in columns.iter_mut() {
        let Some(value) = fields.next_field()? else { break };
        count += 1;
        let pushed = push(options, column, &value).map_err(|fault| fault.within(column.field.name()));
        match pushed {
            Err(Fault::Value(_)) if options.ignore_parse_errors => {
                column.truncate(row);
                column.push_null().map_err(Fault::Record)?;
            }
            other => other?,
        }
    }
    while fields.next_field()?.is_some() {
        count += 1;
    }
    if count > expected || (count < expected && !options.ignore_parse_errors) {
        return Err(Fault::Record(format!("{count} fields where the table has {expected} columns")));
    }
    for column in &mut columns[count..] {
        column.push_null().map_err(|reason| Fault::Record(format!("field '{}': {reason}", column.field.name())))?;
    }
    Ok(true)
}

fn push(options: &CsvOptions, column: &mut ColumnBuilder, value: &str) -> Result<(), Fault> {
    if let Values::Unread = column.values {
        column.present();
        return Ok(());
    }
    let null = match &options.null_literal {
        Some(literal) => value == literal,
        None => false,
    };
    if null || (value.is_empty() && !matches!(column.values, Values::Text(_))) {
        return column.push_null().map_err(Fault::Value);
    }
    match &mut column.values {
        Values::Row(columns) => {
            let mut parts = value.split(options.element_delimiter.as_str());
            for inner in columns.iter_mut() {
                let Some(part) = parts.next() else {
                    return Err(Fault::Value("the nested row has too few values".into()));
                };
                push(options, inner, part).map_err(|fault| fault.within(inner.field.name()))?;
            }
            if parts.next().is_some() {
                return Err(Fault::Value("the nested row has too many values".into()));
            }
            column.present();
            Ok(())
        }
        Values::List { ends, element } => {
            for part in value.split(options.element_delimiter.as_str()) {
                push(options, element, part)?;
            }
            ends.push(element.len() as i32);
            column.present();
            Ok(())
        }
        _ => column.push_text(value, b' ').map_err(Fault::Value),
    }
}

/// The fields of one record.
struct Fields<'a> {
    options: &'a CsvOptions,
    /// `None` after the last field.
    rest: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(rest) = self.rest else { return Ok(None) };
        let bytes = rest.as_bytes();
        if let Some(quote) = self.options.quote
            && bytes.first() == Some(&quote)
        {
            return self.quoted(rest, quote).map(Some);
        }
        let (value, after) = match self.options.escape {
            None => match memchr(self.options.delimiter, bytes) {
                Some(at) => (Cow::Borrowed(&rest[..at]), Some(&rest[at + 1..])),
                None => (Cow::Borrowed(rest), None),
            },
            Some(escape) => self.unescaped(rest, escape),
        };
        self.rest = after;
        Ok(Some(value))
    }

    fn unescaped(&self, rest: &'a str, escape: u8) -> (Cow<'a, str>, Option<&'a str>) {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        while let Some((at, character)) = characters.next() {
            if character == escape as char {
                if let Some((_, literal)) = characters.next() {
                    value.push(literal);
                }
            } else if character == self.options.delimiter as char {
                return (Cow::Owned(value), Some(&rest[at + 1..]));
            } else {
                value.push(character);
            }
        }
        (Cow::Owned(value), None)
    }

    fn quoted(&mut self, rest: &'a str, quote: u8) -> Result<Cow<'a, str>, Fault> {
        let bytes = rest.as_bytes();
        let mut value = Cow::Borrowed("");
        let mut from = 1;
        let mut at = 1;
        let end = loop {
            match bytes.get(at) {
                None => return Err(Fault::Record("the closing quote is missing".into())),
                Some(&byte) if Some(byte) == self.options.escape && byte != quote => {
                    value.to_mut().push_str(&rest[from..at]);
                    // What is escaped may be longer than a byte; its bytes are taken with what follows.
                    from = at + 1;
                    at += 2;
                    while at < bytes.len() && !rest.is_char_boundary(at) {
                        at += 1;
                    }
                }
                Some(&byte) if byte == quote => {
                    if bytes.get(at + 1) != Some(&quote) {
                        break at;
                    }
                    value.to_mut().push_str(&rest[from..=at]);
                    at += 2;
                    from = at;
                }
                Some(_) => at += 1,
            }
        };
        let last = &rest[from.min(end)..end];
        let value = if value.is_empty() { Cow::Borrowed(last) } else { Cow::Owned(value.into_owned() + last) };
        self.rest = match bytes.get(end + 1) {
            None => None,
            Some(byte) if *byte == self.options.delimiter => Some(&rest[end + 2..]),
            Some(_) => return Err(Fault::Record("a delimiter is missing after the closing quote".into())),
        };
        Ok(value)
    }
}
