//! Java's regular expressions in the syntax of the `regex` crate.
//!
//! The predefined classes are ASCII in Java and Unicode here, and `.` stops at more line ends in Java; both are written
//! out. What the crate reads differently or not at all (look-around, back references, possessive quantifiers) is refused.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Compiled expressions, by their text in Java's syntax.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<regex::Regex>>>> = LazyLock::new(|| Mutex::new(HashMap::new()));

/// A job has few expressions, all literals; the bound only keeps a long-lived process small.
const MOST_COMPILED: usize = 1024;

pub fn compile(java: &str) -> Result<Arc<regex::Regex>, String> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = compiled.get(java) {
        return Ok(Arc::clone(regex));
    }
    let regex = regex::Regex::new(&translate(java)?)
        .map(Arc::new)
        .map_err(|error| format!("the regular expression '{java}' is not supported: {error}"))?;
    if compiled.len() >= MOST_COMPILED {
        compiled.clear();
    }
    compiled.insert(java.to_string(), Arc::clone(&regex));
    Ok(regex)
}

/// # Errors
/// What the crate would read differently.
pub fn translate(java: &str) -> Result<String, String> {
    let refuse = |what: &str| Err(format!("the regular expression '{java}' uses {what}, which is not supported"));
    let mut out = String::with_capacity(java.len() + 16);
    let mut chars = java.chars().peekable();
    let mut class_depth = 0usize;
    let mut after_quantifier = false;
    while let Some(c) = chars.next() {
        let quantifier_before = std::mem::take(&mut after_quantifier);
        match c {
            '\\' => match chars.next() {
                None => return refuse("a backslash at its end"),
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[a-zA-Z0-9_]"),
                Some('W') => out.push_str("[^a-zA-Z0-9_]"),
                Some('s') => out.push_str("[ \\t\\n\\x0B\\f\\r]"),
                Some('S') => out.push_str("[^ \\t\\n\\x0B\\f\\r]"),
                Some(digit @ '1'..='9') => return refuse(&format!("the back reference \\{digit}")),
                Some(
                    other @ ('Q' | 'E' | 'k' | 'G' | 'Z' | 'R' | 'X' | 'h' | 'H' | 'v' | 'V' | 'c' | 'e' | 'b' | 'B'),
                ) => {
                    return refuse(&format!("\\{other}"));
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
            },
            '[' => {
                if class_depth > 0 && chars.peek() == Some(&':') {
                    return refuse("[: inside a class");
                }
                class_depth += 1;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
                if chars.peek() == Some(&']') {
                    return refuse("] at the start of a class; write \\]");
                }
            }
            ']' if class_depth > 0 => {
                class_depth -= 1;
                out.push(']');
            }
            '-' | '~' if class_depth > 0 && chars.peek() == Some(&c) => {
                return refuse(&format!("{c}{c} inside a class"));
            }
            '.' if class_depth == 0 => out.push_str("[^\\n\\r\\u{85}\\u{2028}\\u{2029}]"),
            '+' if class_depth == 0 && quantifier_before => return refuse("a possessive quantifier"),
            '*' | '+' | '?' | '}' if class_depth == 0 => {
                after_quantifier = !quantifier_before;
                out.push(c);
            }
            '(' if class_depth == 0 && chars.peek() == Some(&'?') => {
                let rest: String = chars.clone().skip(1).take(2).collect();
                let unsupported = rest.starts_with(['=', '!', '>']) || rest == "<=" || rest == "<!";
                if unsupported {
                    return refuse("look-around or an atomic group");
                }
                out.push('(');
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}
