//! `${NAME}` in SQL text.
//!
//! Values go in as text, except within quotes, where a quote in the value is doubled: a password can end neither a string
//! nor a quoted name. Comments stay as they are.

use crate::error::ApiError;
use crate::text::is_variable_name;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Code,
    /// Between two of these.
    Quoted(char),
    LineComment,
    BlockComment,
}

/// Replaces every `${NAME}` by its value and `$${` by `${`.
///
/// # Errors
/// A name without a value, or a `${` that begins no name; with the line of the SQL text.
pub fn substitute(sql: &str, values: &BTreeMap<String, String>) -> Result<String, ApiError> {
    let mut output = String::with_capacity(sql.len());
    let mut context = Context::Code;
    let mut rest = sql;
    while let Some(next) = rest.chars().next() {
        let line = 1 + sql[..sql.len() - rest.len()].matches('\n').count() as u64;
        let in_comment = matches!(context, Context::LineComment | Context::BlockComment);
        if !in_comment && rest.starts_with("$${") {
            output.push_str("${");
            rest = &rest[3..];
            continue;
        }
        if !in_comment && rest.starts_with("${") {
            let name = reference(rest).ok_or_else(|| ApiError::Substitution {
                line,
                problem: "found \"${\" without a name and \"}\" after it".into(),
                allowed: "write ${NAME}, or $${ for a plain ${".into(),
            })?;
            let value = values.get(name).ok_or_else(|| unknown(line, name, values))?;
            match context {
                Context::Quoted(quote) => output.push_str(&value.replace(quote, &format!("{quote}{quote}"))),
                _ => output.push_str(value),
            }
            rest = &rest[name.len() + 3..];
            continue;
        }
        let (taken, after) = step(context, rest, next);
        output.push_str(&rest[..taken]);
        rest = &rest[taken..];
        context = after;
    }
    Ok(output)
}

/// How many bytes belong together, and what holds after them.
fn step(context: Context, rest: &str, next: char) -> (usize, Context) {
    match context {
        Context::Code if rest.starts_with("--") => (2, Context::LineComment),
        Context::Code if rest.starts_with("/*") => (2, Context::BlockComment),
        Context::Code if matches!(next, '\'' | '"' | '`') => (1, Context::Quoted(next)),
        // A doubled quote closes and opens again, which comes to the same.
        Context::Quoted(quote) if next == quote => (1, Context::Code),
        Context::LineComment if next == '\n' => (1, Context::Code),
        Context::BlockComment if rest.starts_with("*/") => (2, Context::Code),
        _ => (next.len_utf8(), context),
    }
}

/// The name in a leading `${NAME}`.
fn reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.split_once('}')?.0;
    is_variable_name(name).then_some(name)
}

fn unknown(line: u64, name: &str, values: &BTreeMap<String, String>) -> ApiError {
    let known: Vec<&str> = values.keys().map(String::as_str).collect();
    ApiError::Substitution {
        line,
        problem: format!("there is no value for ${{{name}}}"),
        allowed: match known.as_slice() {
            [] => format!("add {name} to spec.env"),
            known => format!("add {name} to spec.env, which has: {}", known.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> BTreeMap<String, String> {
        [("A", "1"), ("PASSWORD", "it's"), ("TICK", "a`b"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn replaces() {
        let table = [
            ("SELECT 1", "SELECT 1"),
            ("SELECT ${A}", "SELECT 1"),
            ("SELECT ${A}${A}", "SELECT 11"),
            ("'x${EMPTY}y'", "'xy'"),
            ("'${PASSWORD}'", "'it''s'"),
            ("'a''${PASSWORD}'", "'a''it''s'"),
            ("${PASSWORD}", "it's"),
            ("`${TICK}`", "`a``b`"),
            ("'${TICK}'", "'a`b'"),
            ("$${A}", "${A}"),
            ("'$${A}' ${A}", "'${A}' 1"),
            ("-- ${NONE}\n${A}", "-- ${NONE}\n1"),
            ("/* ${NONE} ' */ '${PASSWORD}'", "/* ${NONE} ' */ '${PASSWORD}'"),
            ("'--' ${A}", "'--' 1"),
            ("a - b ${A}", "a - b 1"),
            ("$A {A} $", "$A {A} $"),
            ("'Grüße ${A}'", "'Grüße 1'"),
        ];
        for (sql, expected) in table {
            let expected = expected.replace("'${PASSWORD}'", "'it''s'");
            assert_eq!(substitute(sql, &values()).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn refuses_with_the_line() {
        let table = [
            (
                "SELECT\n  ${NONE}",
                "spec.program.sql, line 2 of the SQL text: there is no value for ${NONE}; add NONE to spec.env, which has: A, EMPTY, PASSWORD, TICK",
            ),
            (
                "${",
                "spec.program.sql, line 1 of the SQL text: found \"${\" without a name and \"}\" after it; write ${NAME}, or $${ for a plain ${",
            ),
            (
                "\n\n'${a b}'",
                "spec.program.sql, line 3 of the SQL text: found \"${\" without a name and \"}\" after it; write ${NAME}, or $${ for a plain ${",
            ),
        ];
        for (sql, expected) in table {
            assert_eq!(substitute(sql, &values()).unwrap_err().to_string(), expected, "{sql}");
        }
        let nothing = substitute("${X}", &BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(nothing, "spec.program.sql, line 1 of the SQL text: there is no value for ${X}; add X to spec.env");
    }
}
