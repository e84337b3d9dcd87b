//! Writes JSON values as YAML, in the block form that people read; the same value is the same text.

use serde_json::Value;
use std::fmt::Write;

/// Longer strings are wrapped.
const WIDTH: usize = 120;

/// Appends an object or a list, indented by `indent` spaces.
pub fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                push_spaces(indent, out);
                out.push_str(&scalar_text(key));
                out.push(':');
                write_after_key(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                push_spaces(indent, out);
                let has_lines = item.as_object().is_some_and(|fields| !fields.is_empty())
                    || item.as_array().is_some_and(|items| !items.is_empty());
                if has_lines {
                    let mut block = String::new();
                    write(item, indent + 2, &mut block);
                    out.push_str("- ");
                    out.push_str(&block[indent + 2..]);
                } else {
                    out.push('-');
                    write_after_key(item, indent, out);
                }
            }
        }
        _ => {
            push_spaces(indent, out);
            out.push_str(&flow(value));
            out.push('\n');
        }
    }
}

fn write_after_key(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            write(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write(value, indent, out);
        }
        Value::String(text) if text.len() + indent > WIDTH && foldable(text) => {
            out.push_str(" >-");
            fold(text, indent + 2, out);
        }
        _ => {
            out.push(' ');
            out.push_str(&flow(value));
            out.push('\n');
        }
    }
}

/// Folding loses nothing: no spaces at the ends, none beside each other, no control characters.
fn foldable(text: &str) -> bool {
    text.trim() == text && !text.contains("  ") && !text.chars().any(char::is_control)
}

/// Breaks at single spaces alone, which YAML reads back as spaces.
fn fold(text: &str, indent: usize, out: &mut String) {
    let mut column = WIDTH;
    for word in text.split(' ') {
        if column + 1 + word.len() > WIDTH {
            out.push('\n');
            push_spaces(indent, out);
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

/// What has no lines of its own.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(text),
        other => other.to_string(),
    }
}

/// Plain where that cannot be misread; else quoted.
fn scalar_text(text: &str) -> String {
    let plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./$ ,;()+=".contains(&byte);
    let looks_like_other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"]
        .contains(&text.to_ascii_lowercase().as_str())
        || text.parse::<f64>().is_ok();
    let plain = text.as_bytes().first().is_some_and(|byte| byte.is_ascii_alphabetic() || b"/$".contains(byte))
        && text.bytes().all(plain_byte)
        && !text.ends_with(' ');
    if plain && !looks_like_other {
        return text.to_owned();
    }
    if text.chars().any(char::is_control) {
        // JSON's strings are YAML's.
        return Value::from(text).to_string();
    }
    let mut quoted = String::new();
    // Writing to a string cannot fail.
    let _ = write!(quoted, "'{}'", text.replace('\'', "''"));
    quoted
}

fn push_spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_back_the_same() {
        let long = "word: ".repeat(40) + "{end}";
        let value = json!({
            "empty": {}, "none": [], "list": ["a", 1, true, null, "true", "1.5", ["x"], {}], "text": "a: b # c",
            "quoted": "it's", "lines": "a\nb", "long": long, "spaces": "a  b ".repeat(40), "x-y": { "z": [{ "a": 1, "b": [2] }] },
            "pattern": r"^[a-z]+(\.[0-9]*)?$", "": "empty key", "y": "n", "unicode": "é → …",
        });
        let mut text = String::new();
        write(&value, 0, &mut text);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
    }
}
