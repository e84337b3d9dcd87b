//! Functions on text. Positions and lengths count characters (code points), as in Flink.

use super::{Builtin, java_regex};
use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, StringArray, StringBuilder};
use datafusion_common::cast::{as_int32_array, as_string_array};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Both,
    Left,
    Right,
}

pub fn evaluate(builtin: Builtin, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    match builtin {
        Builtin::Lower => datafusion_functions::string::lower().invoke_with_args(args),
        Builtin::Upper => datafusion_functions::string::upper().invoke_with_args(args),
        Builtin::CharLength => datafusion_functions::unicode::character_length().invoke_with_args(args),
        Builtin::Replace => datafusion_functions::string::replace().invoke_with_args(args),
        _ => {
            let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
            let rows = if constant { 1 } else { args.number_rows };
            let array = columns(builtin, &args.args, rows)?;
            if constant {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            } else {
                Ok(ColumnarValue::Array(array))
            }
        }
    }
}

fn columns(builtin: Builtin, args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    match builtin {
        Builtin::Trim(side) => trim(side, args, rows),
        Builtin::Substring => substring(args, rows),
        Builtin::Concat => concat(args, rows),
        Builtin::ConcatWs => concat_ws(args, rows),
        Builtin::Position => position(&args[0], &args[1], rows),
        Builtin::Locate => position(&args[1], &args[0], rows),
        Builtin::RegexpExtract => regexp_extract(args, rows),
        Builtin::SplitIndex => split_index(args, rows),
        Builtin::CountChar => count_char(args, rows),
        other => exec_err!("{other:?} is not a function of texts"),
    }
}

/// A text argument: a column, or one value for all rows.
enum Text {
    Column(StringArray),
    Constant(Option<String>),
}

impl Text {
    fn new(value: &ColumnarValue) -> Result<Text> {
        match value {
            ColumnarValue::Array(array) => Ok(Text::Column(as_string_array(array)?.clone())),
            ColumnarValue::Scalar(ScalarValue::Utf8(text)) => Ok(Text::Constant(text.clone())),
            ColumnarValue::Scalar(ScalarValue::Null) => Ok(Text::Constant(None)),
            ColumnarValue::Scalar(other) => exec_err!("expected a text, found {other}"),
        }
    }

    #[inline]
    fn get(&self, row: usize) -> Option<&str> {
        match self {
            Text::Column(array) => array.is_valid(row).then(|| array.value(row)),
            Text::Constant(text) => text.as_deref(),
        }
    }

    /// Bytes of all values, to size the output.
    fn bytes(&self) -> usize {
        match self {
            Text::Column(array) => array.value_data().len(),
            Text::Constant(text) => text.as_ref().map_or(0, String::len),
        }
    }
}

/// An INT argument.
enum Number {
    Column(Int32Array),
    Constant(Option<i32>),
}

impl Number {
    fn new(value: &ColumnarValue) -> Result<Number> {
        match value {
            ColumnarValue::Array(array) => Ok(Number::Column(as_int32_array(array)?.clone())),
            ColumnarValue::Scalar(ScalarValue::Int32(number)) => Ok(Number::Constant(*number)),
            ColumnarValue::Scalar(ScalarValue::Null) => Ok(Number::Constant(None)),
            ColumnarValue::Scalar(other) => exec_err!("expected an INT, found {other}"),
        }
    }

    #[inline]
    fn get(&self, row: usize) -> Option<i32> {
        match self {
            Number::Column(array) => array.is_valid(row).then(|| array.value(row)),
            Number::Constant(number) => *number,
        }
    }
}

fn trim(side: Side, args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let text = Text::new(&args[0])?;
    let characters = match args.get(1) {
        Some(value) => Text::new(value)?,
        None => Text::Constant(Some(" ".into())),
    };
    let mut out = StringBuilder::with_capacity(rows, text.bytes());
    for row in 0..rows {
        match (text.get(row), characters.get(row)) {
            (Some(text), Some(characters)) => {
                let cut = |c: char| characters.contains(c);
                out.append_value(match side {
                    Side::Both => text.trim_matches(cut),
                    Side::Left => text.trim_start_matches(cut),
                    Side::Right => text.trim_end_matches(cut),
                });
            }
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn substring(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let text = Text::new(&args[0])?;
    let start = Number::new(&args[1])?;
    let length = match args.get(2) {
        Some(value) => Number::new(value)?,
        None => Number::Constant(Some(i32::MAX)),
    };
    let mut out = StringBuilder::with_capacity(rows, text.bytes());
    for row in 0..rows {
        let part = match (text.get(row), start.get(row), length.get(row)) {
            (Some(text), Some(start), Some(length)) => characters(text, start, length),
            _ => None,
        };
        out.append_option(part);
    }
    Ok(Arc::new(out.finish()))
}

/// Counts from 1, from the end if negative; 0 is the start too. A negative length gives null.
fn characters(text: &str, start: i32, length: i32) -> Option<&str> {
    let length = usize::try_from(length).ok()?;
    let ascii = text.is_ascii();
    let count = if ascii { text.len() } else { text.chars().count() };
    let first = match start {
        0 => 0,
        1.. => start as usize - 1,
        _ => match count.checked_sub(start.unsigned_abs() as usize) {
            Some(first) => first,
            None => return Some(""),
        },
    };
    if first >= count {
        return Some("");
    }
    let end = first.saturating_add(length).min(count);
    if ascii {
        return Some(&text[first..end]);
    }
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    Some(&text[byte(first)..byte(end)])
}

fn concat(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let texts = args.iter().map(Text::new).collect::<Result<Vec<_>>>()?;
    let mut out = StringBuilder::with_capacity(rows, texts.iter().map(Text::bytes).sum());
    let mut joined = String::new();
    for row in 0..rows {
        joined.clear();
        let complete = texts.iter().all(|text| text.get(row).map(|text| joined.push_str(text)).is_some());
        out.append_option(complete.then_some(joined.as_str()));
    }
    Ok(Arc::new(out.finish()))
}

/// Null arguments are left out; a null separator gives null.
fn concat_ws(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let texts = args.iter().map(Text::new).collect::<Result<Vec<_>>>()?;
    let mut out = StringBuilder::with_capacity(rows, texts.iter().map(Text::bytes).sum());
    let mut joined = String::new();
    for row in 0..rows {
        joined.clear();
        let Some(separator) = texts[0].get(row) else {
            out.append_null();
            continue;
        };
        for (index, text) in texts[1..].iter().filter_map(|text| text.get(row)).enumerate() {
            if index > 0 {
                joined.push_str(separator);
            }
            joined.push_str(text);
        }
        out.append_value(&joined);
    }
    Ok(Arc::new(out.finish()))
}

/// Where `needle` begins in `text`, counted from 1; 0 if it does not occur.
fn position(text: &ColumnarValue, needle: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let (text, needle) = (Text::new(text)?, Text::new(needle)?);
    let found = (0..rows).map(|row| {
        let (text, needle) = (text.get(row)?, needle.get(row)?);
        Some(text.find(needle).map_or(0, |byte| text[..byte].chars().count() as i32 + 1))
    });
    Ok(Arc::new(found.collect::<Int32Array>()))
}

/// The group of the first match; null without a match, without such a group or if the group took no part.
fn regexp_extract(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let text = Text::new(&args[0])?;
    let group = match args.get(2) {
        Some(value) => Number::new(value)?,
        None => Number::Constant(Some(0)),
    };
    let Text::Constant(pattern) = Text::new(&args[1])? else {
        return exec_err!("the pattern of REGEXP_EXTRACT must be a text literal");
    };
    let mut out = StringBuilder::with_capacity(rows, text.bytes());
    let Some(pattern) = pattern else {
        (0..rows).for_each(|_| out.append_null());
        return Ok(Arc::new(out.finish()));
    };
    let regex = match java_regex::compile(&pattern) {
        Ok(regex) => regex,
        Err(message) => return exec_err!("{message}"),
    };
    let mut locations = regex.capture_locations();
    for row in 0..rows {
        let part = match (text.get(row), group.get(row)) {
            (Some(text), Some(group)) if group >= 0 => regex
                .captures_read(&mut locations, text)
                .and_then(|_| locations.get(group as usize))
                .map(|(from, to)| &text[from..to]),
            _ => None,
        };
        out.append_option(part);
    }
    Ok(Arc::new(out.finish()))
}

/// The part at an index counted from 0; null if there is none. An empty text has no parts.
fn split_index(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let (text, separator, index) = (Text::new(&args[0])?, Text::new(&args[1])?, Number::new(&args[2])?);
    let mut out = StringBuilder::with_capacity(rows, text.bytes() / 4);
    for row in 0..rows {
        let part = match (text.get(row), separator.get(row), index.get(row)) {
            (Some(text), Some(separator), Some(index)) if index >= 0 && !text.is_empty() => {
                part_at(text, separator, index as usize)
            }
            _ => None,
        };
        out.append_option(part);
    }
    Ok(Arc::new(out.finish()))
}

fn part_at<'a>(text: &'a str, separator: &str, index: usize) -> Option<&'a str> {
    match separator.as_bytes() {
        [] => text.split(char::is_whitespace).nth(index),
        [byte] => {
            let mut start = 0;
            for (seen, end) in memchr::memchr_iter(*byte, text.as_bytes()).chain([text.len()]).enumerate() {
                if seen == index {
                    return Some(&text[start..end]);
                }
                start = end + 1;
            }
            None
        }
        _ => text.split(separator).nth(index),
    }
}

/// How often the first byte of the second text occurs in the first; 0 for null.
fn count_char(args: &[ColumnarValue], rows: usize) -> Result<ArrayRef> {
    let (text, wanted) = (Text::new(&args[0])?, Text::new(&args[1])?);
    let mut counts = Vec::with_capacity(rows);
    for row in 0..rows {
        let count = match text.get(row) {
            None => 0,
            Some(text) => match wanted.get(row).and_then(|wanted| wanted.bytes().next()) {
                Some(byte) => memchr::memchr_iter(byte, text.as_bytes()).count() as i64,
                None => return exec_err!("count_char: the character to count is empty or null"),
            },
        };
        counts.push(count);
    }
    Ok(Arc::new(Int64Array::from(counts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(value.into())))
    }

    fn number(value: i32) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Int32(Some(value)))
    }

    fn column(values: &[Option<&str>]) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(StringArray::from(values.to_vec())))
    }

    fn strings(builtin: Builtin, args: &[ColumnarValue], rows: usize) -> Vec<Option<String>> {
        let array = columns(builtin, args, rows).unwrap();
        as_string_array(&array).unwrap().iter().map(|value| value.map(str::to_string)).collect()
    }

    #[test]
    fn substring_counts_characters_from_one_and_from_the_end() {
        let cases: [(&str, i32, i32, Option<&str>); 12] = [
            ("hello", 1, 2, Some("he")),
            ("hello", 0, 2, Some("he")),
            ("hello", 2, i32::MAX, Some("ello")),
            ("hello", -3, 2, Some("ll")),
            ("hello", -9, 2, Some("")),
            ("hello", 6, 1, Some("")),
            ("hello", 5, 9, Some("o")),
            ("hello", 2, 0, Some("")),
            ("hello", 2, -1, None),
            ("größe", 3, 2, Some("öß")),
            ("größe", -2, 9, Some("ße")),
            ("", 1, 1, Some("")),
        ];
        for (value, start, length, expected) in cases {
            assert_eq!(characters(value, start, length), expected, "SUBSTRING('{value}', {start}, {length})");
        }
    }

    #[test]
    fn split_index_counts_from_zero_and_keeps_empty_parts() {
        let url = Some("https://www.nexmark.com/a/b/item.htm");
        let cases = [
            (url, "/", 0, Some("https:")),
            (url, "/", 1, Some("")),
            (url, "/", 3, Some("a")),
            (url, "/", 5, Some("item.htm")),
            (url, "/", 6, None),
            (url, "/", -1, None),
            (Some("a::b::c"), "::", 2, Some("c")),
            (Some("a b"), "", 1, Some("b")),
            (Some(""), "/", 0, None),
            (None, "/", 0, None),
        ];
        for (value, separator, index, expected) in cases {
            let found = strings(Builtin::SplitIndex, &[column(&[value]), text(separator), number(index)], 1);
            assert_eq!(found, [expected.map(str::to_string)], "SPLIT_INDEX({value:?}, '{separator}', {index})");
        }
    }

    #[test]
    fn regexp_extract_gives_the_group_of_the_first_match_or_null() {
        let pattern = "(&|^)channel_id=([^&]*)";
        let cases = [
            (pattern, Some("https://x/y.htm?query=1&channel_id=42&z=1"), 2, Some("42")),
            (pattern, Some("channel_id=7"), 1, Some("")),
            (pattern, Some("https://x/y.htm?query=1"), 2, None),
            (pattern, None, 2, None),
            ("a(b)?c", Some("ac"), 1, None),
            ("a(b)?c", Some("xabc"), 0, Some("abc")),
            ("a(b)?c", Some("abc"), 2, None),
            ("a(b)?c", Some("abc"), -1, None),
            ("\\d+", Some("٣ 12"), 0, Some("12")),
        ];
        for (pattern, value, group, expected) in cases {
            let found = strings(Builtin::RegexpExtract, &[column(&[value]), text(pattern), number(group)], 1);
            assert_eq!(found, [expected.map(str::to_string)], "{pattern} on {value:?}, group {group}");
        }
    }

    #[test]
    fn what_java_reads_differently_is_refused() {
        for pattern in ["(?=a)", "(?<!a)", "(a)\\1", "a++", "[[:alpha:]]", "(?>a)", "\\bword", "[a--b]"] {
            assert!(java_regex::translate(pattern).is_err(), "{pattern}");
        }
        assert_eq!(java_regex::translate("[\\d.]+.").unwrap(), "[[0-9].]+[^\\n\\r\\u{85}\\u{2028}\\u{2029}]");
    }

    #[test]
    fn nulls_follow_flink() {
        let texts = column(&[Some("a"), None]);
        assert_eq!(strings(Builtin::Concat, &[texts.clone(), text("x")], 2), [Some("ax".to_string()), None]);
        assert_eq!(
            strings(Builtin::ConcatWs, &[text("-"), texts.clone(), text("x")], 2),
            [Some("a-x".to_string()), Some("x".to_string())]
        );
        let counts = columns(Builtin::CountChar, &[column(&[Some("abca"), None]), text("ab")], 2).unwrap();
        assert_eq!(counts.as_ref(), &Int64Array::from(vec![2, 0]) as &dyn Array);
        let places = columns(Builtin::Position, &[column(&[Some("größe"), None]), text("ß")], 2).unwrap();
        assert_eq!(places.as_ref(), &Int32Array::from(vec![Some(4), None]) as &dyn Array);
        assert_eq!(strings(Builtin::Trim(Side::Both), &[text("  a b "), text(" ")], 1), [Some("a b".to_string())]);
        assert_eq!(strings(Builtin::Trim(Side::Left), &[text("xyax"), text("yx")], 1), [Some("ax".to_string())]);
    }
}
