//! JSON objects into columns: one pass over the text, straight into the columns, without a tree. Fields that nobody
//! reads are passed over.

use super::columns::{ColumnBuilder, Values, excerpt};
use super::{Fault, TimestampFormat, ignore_errors_doc};
use crate::options::{Options, optional};
use memchr::memchr2;
use std::borrow::Cow;
use std::collections::HashMap;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::OptionDoc;

/// As Jackson's own limit.
const MAX_DEPTH: u32 = 1000;
/// Rows with more fields are looked up in a map.
const FEW_FIELDS: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonOptions {
    pub fail_on_missing_field: bool,
    pub ignore_parse_errors: bool,
    pub timestamps: TimestampFormat,
    pub plain_decimals: bool,
    pub ignore_null_fields: bool,
}

pub(super) fn options() -> Vec<OptionDoc> {
    vec![
        optional("json.fail-on-missing-field", Some("false"), "A field that is missing is an error instead of null"),
        ignore_errors_doc("json.ignore-parse-errors"),
        optional(
            "json.timestamp-format.standard",
            Some("SQL"),
            "'SQL' (2020-12-30 12:13:14.123) or 'ISO-8601' (2020-12-30T12:13:14.123)",
        ),
        optional(
            "json.encode.decimal-as-plain-number",
            Some("false"),
            "Writes 0.000000027 instead of 2.7E-8 for decimals",
        ),
        optional("json.encode.ignore-null-fields", Some("false"), "Leaves out fields that are null"),
    ]
}

impl JsonOptions {
    pub fn of(options: Options<'_>) -> Result<JsonOptions, PlanError> {
        let fail_on_missing_field = options.flag("json.fail-on-missing-field", false)?;
        let ignore_parse_errors = options.flag("json.ignore-parse-errors", false)?;
        if fail_on_missing_field && ignore_parse_errors {
            return Err(options.error(
                "json.fail-on-missing-field",
                "cannot be 'true' together with json.ignore-parse-errors: choose one",
            ));
        }
        let timestamps = options.parsed("json.timestamp-format.standard", |value| match value {
            "SQL" => Ok(TimestampFormat::Sql),
            "ISO-8601" => Ok(TimestampFormat::Iso8601),
            _ => Err(format!("'{value}' is neither 'SQL' nor 'ISO-8601'")),
        })?;
        Ok(JsonOptions {
            fail_on_missing_field,
            ignore_parse_errors,
            timestamps: timestamps.unwrap_or(TimestampFormat::Sql),
            plain_decimals: options.flag("json.encode.decimal-as-plain-number", false)?,
            ignore_null_fields: options.flag("json.encode.ignore-null-fields", false)?,
        })
    }
}

/// Finds the column of a field, mostly at the first try: objects tend to have their fields in the order of the last one.
pub(super) struct Names {
    /// Empty for few fields.
    by_name: HashMap<String, usize>,
    /// Of the nested row in each column.
    nested: Vec<Option<Names>>,
}

impl Names {
    pub fn of(columns: &[ColumnBuilder]) -> Names {
        let by_name = match columns.len() > FEW_FIELDS {
            true => columns.iter().enumerate().map(|(index, column)| (column.field.name().clone(), index)).collect(),
            false => HashMap::new(),
        };
        let nested = columns
            .iter()
            .map(|column| match &column.values {
                Values::Row(columns) => Some(Names::of(columns)),
                _ => None,
            })
            .collect();
        Names { by_name, nested }
    }

    fn find(&self, columns: &[ColumnBuilder], guess: usize, name: &str) -> Option<usize> {
        if columns.get(guess).is_some_and(|column| column.field.name() == name) {
            return Some(guess);
        }
        if columns.len() > FEW_FIELDS {
            return self.by_name.get(name).copied();
        }
        columns.iter().position(|column| column.field.name() == name)
    }
}

/// Appends the object in `text` as one row; `false` if the text is blank or `null`.
pub(super) fn decode(
    options: &JsonOptions,
    names: &Names,
    columns: &mut [ColumnBuilder],
    row: usize,
    text: &str,
) -> Result<bool, Fault> {
    let mut reader = Reader { options, text, at: 0 };
    reader.skip_space();
    match reader.peek() {
        None => return Ok(false),
        Some(b'{') => {
            reader.at += 1;
            reader.object(names, columns, row)?;
        }
        Some(b'n') => {
            reader.literal("null")?;
            reader.expect_end()?;
            return Ok(false);
        }
        Some(_) => return Err(reader.broken("expected an object")),
    }
    reader.expect_end()?;
    Ok(true)
}

struct Reader<'a> {
    options: &'a JsonOptions,
    text: &'a str,
    at: usize,
}

/// A value without structure, or the start of one with.
enum Token<'a> {
    Null,
    True,
    False,
    Number(&'a str),
    Text(Cow<'a, str>),
    /// `{` or `[`, not consumed.
    Nested,
}

impl<'a> Reader<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    fn broken(&self, what: &str) -> Fault {
        match self.text.get(self.at..) {
            Some(rest) if !rest.is_empty() => {
                Fault::Record(format!("{what} at character {} before '{}'", self.at + 1, excerpt(rest)))
            }
            _ => Fault::Record(format!("{what} at the end of the record")),
        }
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Fault> {
        self.skip_space();
        if self.peek() != Some(byte) {
            return Err(self.broken(what));
        }
        self.at += 1;
        Ok(())
    }

    fn expect_end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.broken("something follows the value"));
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.broken("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The rest of an object whose `{` is consumed, as the row `row` of `columns`.
    fn object(&mut self, names: &Names, columns: &mut [ColumnBuilder], row: usize) -> Result<(), Fault> {
        let mut guess = 0;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.expect(b'"', "expected a field name")?;
                let name = self.string()?;
                self.expect(b':', "expected ':'")?;
                self.skip_space();
                match names.find(columns, guess, &name) {
                    None => self.skip_value(0)?,
                    Some(index) => {
                        guess = index + 1;
                        let column = &mut columns[index];
                        // The last of several fields of one name counts.
                        if column.len() > row {
                            column.truncate(row);
                        }
                        self.field(names.nested[index].as_ref(), column, row)
                            .map_err(|fault| fault.within(column.field.name()))?;
                    }
                }
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.broken("expected ',' or '}'")),
                }
            }
        }
        for column in columns {
            if column.len() == row {
                if self.options.fail_on_missing_field {
                    return Err(Fault::Record(format!("the field '{}' is missing", column.field.name())));
                }
                column.push_null().map_err(|reason| Fault::Record(reason).within_record(column.field.name()))?;
            }
        }
        Ok(())
    }

    /// One value into one column; a value that does not fit becomes null if errors are ignored.
    fn field(&mut self, names: Option<&Names>, column: &mut ColumnBuilder, row: usize) -> Result<(), Fault> {
        match self.value(names, column, row) {
            Err(Fault::Value(_)) if self.options.ignore_parse_errors => {
                column.truncate(row);
                column.push_null().map_err(Fault::Record)
            }
            other => other,
        }
    }

    /// One value into one column. After `Fault::Value` the value is consumed.
    fn value(&mut self, names: Option<&Names>, column: &mut ColumnBuilder, row: usize) -> Result<(), Fault> {
        if let Values::Unread = column.values {
            self.skip_value(0)?;
            column.present();
            return Ok(());
        }
        let token = self.token()?;
        match token {
            Token::Null => column.push_null().map_err(Fault::Value),
            Token::Nested => self.nested(names, column, row),
            Token::Text(text) => self.push(column, &text),
            Token::True => self.push(column, "true"),
            Token::False => self.push(column, "false"),
            Token::Number(number) => {
                let whole = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
                let integer =
                    matches!(column.values, Values::Int8(_) | Values::Int16(_) | Values::Int32(_) | Values::Int64(_));
                if whole || !integer {
                    return self.push(column, number);
                }
                // A fraction is cut off, as in Java.
                match number.parse::<f64>() {
                    Ok(value) if value.abs() < 9.2e18 => self.push(column, &(value.trunc() as i64).to_string()),
                    _ => self.push(column, number),
                }
            }
        }
    }

    fn push(&self, column: &mut ColumnBuilder, text: &str) -> Result<(), Fault> {
        column.push_text(text, self.options.timestamps.separator()).map_err(Fault::Value)
    }

    /// An object or array, into a row, a list or, as its own text, a string.
    fn nested(&mut self, names: Option<&Names>, column: &mut ColumnBuilder, row: usize) -> Result<(), Fault> {
        let object = self.peek() == Some(b'{');
        match (&mut column.values, names) {
            (Values::Row(columns), Some(names)) if object => {
                self.at += 1;
                self.object(names, columns, row)?;
                column.present();
                Ok(())
            }
            (Values::List { ends, element }, _) if !object => {
                self.at += 1;
                self.skip_space();
                if self.peek() == Some(b']') {
                    self.at += 1;
                } else {
                    // Rows in lists are rare enough to find their names anew.
                    let names = match &element.values {
                        Values::Row(columns) => Some(Names::of(columns)),
                        _ => None,
                    };
                    loop {
                        self.skip_space();
                        let index = element.len();
                        self.field(names.as_ref(), element, index)?;
                        self.skip_space();
                        match self.peek() {
                            Some(b',') => self.at += 1,
                            Some(b']') => {
                                self.at += 1;
                                break;
                            }
                            _ => return Err(self.broken("expected ',' or ']'")),
                        }
                    }
                }
                ends.push(element.len() as i32);
                column.present();
                Ok(())
            }
            (Values::Text(texts), _) => {
                let start = self.at;
                self.skip_value(0)?;
                push_compact(&mut texts.bytes, &self.text.as_bytes()[start..self.at]);
                texts.end();
                column.present();
                Ok(())
            }
            _ => {
                self.skip_value(0)?;
                let found = if object { "an object" } else { "an array" };
                Err(Fault::Value(format!("{found} is not a {}", column.type_name())))
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>, Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Token::Text)
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b'{' | b'[') => Ok(Token::Nested),
            Some(b'n') => self.literal("null").map(|()| Token::Null),
            Some(b't') => self.literal("true").map(|()| Token::True),
            Some(b'f') => self.literal("false").map(|()| Token::False),
            _ => Err(self.broken("expected a value")),
        }
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes[start] == b'-');
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return Err(self.broken("expected a number"));
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return Err(self.broken("expected a number"));
            }
            at += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let exponent = digits(at.min(bytes.len()));
            if exponent == 0 {
                return Err(self.broken("expected a number"));
            }
            at += exponent;
        }
        self.at = at;
        Ok(&self.text[start..at])
    }

    /// The rest of a string whose opening quote is consumed.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        match memchr2(b'"', b'\\', rest) {
            Some(length) if rest[length] == b'"' => {
                self.at = start + length + 1;
                Ok(Cow::Borrowed(&self.text[start..start + length]))
            }
            Some(length) => self.escaped_string(start, length),
            None => Err(self.broken("the string is not closed")),
        }
    }

    fn escaped_string(&mut self, start: usize, plain: usize) -> Result<Cow<'a, str>, Fault> {
        let mut unescaped = self.text[start..start + plain].to_string();
        self.at = start + plain;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let Some(length) = memchr2(b'"', b'\\', rest) else {
                return Err(self.broken("the string is not closed"));
            };
            unescaped.push_str(&self.text[self.at..self.at + length]);
            self.at += length + 1;
            if rest[length] == b'"' {
                return Ok(Cow::Owned(unescaped));
            }
            let escape = self.peek().ok_or_else(|| self.broken("the string is not closed"))?;
            unescaped.push(match escape {
                b'"' | b'\\' | b'/' => escape as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    self.at += 1;
                    unescaped.push(self.unicode_escape()?);
                    continue;
                }
                _ => return Err(self.broken("unknown escape")),
            });
            self.at += 1;
        }
    }

    fn four_hex_digits(&mut self) -> Result<u32, Fault> {
        let value = self.text.get(self.at..self.at + 4).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = value.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let value = value.ok_or_else(|| self.broken("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    /// What follows `\u`; a character outside the basic plane is two escapes.
    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let first = self.four_hex_digits()?;
        let code = match first {
            0xD800..=0xDBFF if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.four_hex_digits()?;
                0x10000 + ((first - 0xD800) << 10) + second.wrapping_sub(0xDC00)
            }
            code => code,
        };
        // A lone surrogate has no UTF-8 form.
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Passes over a value, which must be well-formed all the same.
    fn skip_value(&mut self, depth: u32) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(self.broken("nested too deeply"));
        }
        self.skip_space();
        if let Some(open @ (b'{' | b'[')) = self.peek() {
            let close = if open == b'{' { b'}' } else { b']' };
            self.at += 1;
            self.skip_space();
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(());
            }
            loop {
                if open == b'{' {
                    self.expect(b'"', "expected a field name")?;
                    self.skip_string()?;
                    self.expect(b':', "expected ':'")?;
                }
                self.skip_value(depth + 1)?;
                self.skip_space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(byte) if byte == close => {
                        self.at += 1;
                        return Ok(());
                    }
                    _ => return Err(self.broken("expected ',' or the closing bracket")),
                }
            }
        }
        if self.peek() == Some(b'"') {
            self.at += 1;
            return self.skip_string();
        }
        self.token().map(|_| ())
    }

    /// Passes over the rest of a string without building it.
    fn skip_string(&mut self) -> Result<(), Fault> {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            match memchr2(b'"', b'\\', rest) {
                Some(length) if rest[length] == b'"' => {
                    self.at += length + 1;
                    return Ok(());
                }
                Some(length) if length + 1 < rest.len() => {
                    self.at += length + 2;
                    while !self.text.is_char_boundary(self.at) {
                        self.at += 1;
                    }
                }
                _ => return Err(self.broken("the string is not closed")),
            }
        }
    }
}

impl Fault {
    /// Names the column in a fault of the whole record.
    fn within_record(self, name: &str) -> Fault {
        Fault::Record(format!("field '{name}': {}", self.reason()))
    }
}

/// JSON without the white space between its tokens.
fn push_compact(out: &mut Vec<u8>, json: &[u8]) {
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            out.push(byte);
        }
        if escaped {
            escaped = false;
        } else if in_string && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            in_string = !in_string;
        }
    }
}
