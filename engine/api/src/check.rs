//! Compares a document with the schema: unknown and missing fields, types, ranges, grammars. Stops at the first
//! problem, so that a person reads one message, with the place, what was found and what is allowed.

use crate::document::{Content, Node, quoted};
use crate::error::ApiError;
use crate::text::GRAMMARS;
use serde_json::Value;

/// `path` names `node` in messages and is empty for the whole document.
pub fn check(node: &Node, schema: &Value, path: &str) -> Result<(), ApiError> {
    if let Some(allowed) = allowed_values(schema) {
        return match &node.content {
            Content::Text(text) if allowed.contains(&text.as_str()) => Ok(()),
            content => {
                let hint = match content {
                    Content::Text(text) => did_you_mean(text, &allowed),
                    _ => String::new(),
                };
                Err(error(
                    node,
                    path,
                    format!("found {}", node.found()),
                    format!("expected {}{hint}", one_of(&allowed)),
                ))
            }
        };
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return match &node.content {
            Content::Text(text) => check_text(node, text, schema, path),
            Content::Integer(_) => Ok(()),
            _ => Err(mismatch(node, schema, path)),
        };
    }
    let accepts_anything = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
    match (schema.get("type").and_then(Value::as_str), &node.content) {
        (Some("object"), Content::Object(_)) if accepts_anything => Ok(()),
        (Some("object"), Content::Object(entries)) => check_object(node, entries, schema, path),
        (Some("array"), Content::List(items)) => check_list(node, items, schema, path),
        (Some("string"), Content::Text(text)) => check_text(node, text, schema, path),
        (Some("integer"), Content::Integer(number)) => {
            let at_least = schema.get("minimum").and_then(Value::as_i64);
            let at_most = schema.get("maximum").and_then(Value::as_i64).or_else(|| format_maximum(schema));
            if at_least.is_some_and(|least| *number < least) || at_most.is_some_and(|most| *number > most) {
                return Err(mismatch(node, schema, path));
            }
            Ok(())
        }
        (Some("boolean"), Content::Bool(_)) | (None, _) => Ok(()),
        _ => Err(mismatch(node, schema, path)),
    }
}

fn check_object(node: &Node, entries: &[(String, u64, Node)], schema: &Value, path: &str) -> Result<(), ApiError> {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, line, child) in entries {
        let child_path = join(path, key);
        match (properties.and_then(|properties| properties.get(key)), schema.get("additionalProperties")) {
            (Some(_), _) if matches!(child.content, Content::Null) => {}
            (Some(child_schema), _) => check(child, child_schema, &child_path)?,
            (None, Some(values @ Value::Object(_))) => check(child, values, &child_path)?,
            (None, _) => {
                let known: Vec<&str> =
                    properties.map(|properties| properties.keys().map(String::as_str).collect()).unwrap_or_default();
                let allowed = if known.is_empty() {
                    format!("{} has no fields", name(path))
                } else {
                    format!("{} has: {}{}", name(path), known.join(", "), did_you_mean(key, &known))
                };
                return Err(ApiError::Field {
                    path: child_path,
                    line: known_line(*line),
                    problem: "there is no such field".into(),
                    allowed,
                });
            }
        }
    }
    for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let present = entries.iter().any(|(key, _, child)| key == required && !matches!(child.content, Content::Null));
        if !present {
            let field = properties.and_then(|properties| properties.get(required));
            let expected = field.map_or_else(String::new, expectation);
            return Err(error(node, &join(path, required), "it is missing".into(), format!("expected {expected}")));
        }
    }
    Ok(())
}

fn check_list(node: &Node, items: &[Node], schema: &Value, path: &str) -> Result<(), ApiError> {
    if let Some(problem) = length_problem(items.len(), schema, "minItems", "maxItems", "entries") {
        return Err(error(node, path, format!("found {} entries", items.len()), problem));
    }
    if let Some(item_schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            check(item, item_schema, &format!("{path}[{index}]"))?;
        }
    }
    Ok(())
}

fn check_text(node: &Node, text: &str, schema: &Value, path: &str) -> Result<(), ApiError> {
    if let Some(problem) = length_problem(text.chars().count(), schema, "minLength", "maxLength", "characters") {
        let found = if text.is_empty() { "found an empty string".into() } else { format!("found {}", quoted(text)) };
        return Err(error(node, path, found, problem));
    }
    let grammar = schema
        .get("pattern")
        .and_then(Value::as_str)
        .and_then(|pattern| GRAMMARS.iter().find(|grammar| grammar.pattern == pattern));
    match grammar {
        Some(grammar) if !(grammar.accepts)(text) => Err(mismatch(node, schema, path)),
        _ => Ok(()),
    }
}

fn length_problem(length: usize, schema: &Value, least: &str, most: &str, unit: &str) -> Option<String> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    match (bound(least), bound(most)) {
        (Some(least), Some(most)) if (length as u64) < least || length as u64 > most => {
            Some(format!("expected {least} to {most} {unit}"))
        }
        (Some(least), None) if (length as u64) < least => Some(format!("expected at least {least} {unit}")),
        (None, Some(most)) if length as u64 > most => Some(format!("expected at most {most} {unit}")),
        _ => None,
    }
}

fn mismatch(node: &Node, schema: &Value, path: &str) -> ApiError {
    let advice = match (schema.get("type").and_then(Value::as_str), &node.content) {
        (Some("string"), Content::Bool(_) | Content::Integer(_) | Content::Float(_)) => " (put it in quotes)",
        (Some("integer"), Content::Text(text)) if text.parse::<i64>().is_ok() => " (without quotes)",
        (Some("boolean"), Content::Text(text)) if text == "true" || text == "false" => " (without quotes)",
        _ => "",
    };
    // Quotes alone do not make a duration of a number.
    let advice = if schema.get("pattern").is_some() { "" } else { advice };
    error(node, path, format!("found {}", node.found()), format!("expected {}{advice}", expectation(schema)))
}

/// What a schema allows, to follow "expected".
pub fn expectation(schema: &Value) -> String {
    if let Some(allowed) = allowed_values(schema) {
        return one_of(&allowed);
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return "a quantity, for example 2, \"500m\" or \"4Gi\"".into();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => match schema.get("properties").and_then(Value::as_object) {
            Some(properties) if properties.is_empty() => "{}".into(),
            Some(properties) => {
                format!("the fields {}", properties.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            None => "names with values".into(),
        },
        Some("array") => "a list".into(),
        Some("boolean") => "true or false".into(),
        Some("integer") => {
            let least = schema.get("minimum").and_then(Value::as_i64);
            let most = schema.get("maximum").and_then(Value::as_i64).or_else(|| format_maximum(schema));
            match (least, most) {
                (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
                (Some(least), None) => format!("a whole number of at least {least}"),
                _ => "a whole number".into(),
            }
        }
        _ => {
            let pattern = schema.get("pattern").and_then(Value::as_str);
            let grammar = pattern.and_then(|pattern| GRAMMARS.iter().find(|grammar| grammar.pattern == pattern));
            grammar.map_or("a string", |grammar| grammar.description).into()
        }
    }
}

fn format_maximum(schema: &Value) -> Option<i64> {
    (schema.get("format").and_then(Value::as_str) == Some("int32")).then_some(i64::from(i32::MAX))
}

fn allowed_values(schema: &Value) -> Option<Vec<&str>> {
    if let Some(only) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![only]);
    }
    Some(schema.get("enum")?.as_array()?.iter().filter_map(Value::as_str).collect())
}

fn one_of(allowed: &[&str]) -> String {
    match allowed {
        [only] => (*only).to_owned(),
        [first, second] => format!("{first} or {second}"),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => "nothing".into(),
    }
}

fn did_you_mean(found: &str, known: &[&str]) -> String {
    let simplified =
        |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let wanted = simplified(found);
    let nearest = known.iter().map(|name| (distance(&wanted, &simplified(name)), *name)).min();
    match nearest {
        Some((distance, name)) if distance * 3 <= wanted.len().max(3) => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

/// Edit distance (insert, delete, replace).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn error(node: &Node, path: &str, problem: String, allowed: String) -> ApiError {
    ApiError::Field { path: name(path).to_owned(), line: known_line(node.line), problem, allowed }
}

fn known_line(line: u64) -> Option<u64> {
    (line > 0).then_some(line)
}

fn name(path: &str) -> &str {
    if path.is_empty() { "the job file" } else { path }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let known = ["checkpoint", "parallelism", "maxParallelism", "ExactlyOnce"];
        let table = [
            ("checkpont", "; did you mean checkpoint?"),
            ("Parallelism", "; did you mean parallelism?"),
            ("max_parallelism", "; did you mean maxParallelism?"),
            ("EXACTLY_ONCE", "; did you mean ExactlyOnce?"),
            ("replicas", ""),
            ("x", ""),
        ];
        for (found, expected) in table {
            assert_eq!(did_you_mean(found, &known), expected, "{found}");
        }
    }

    #[test]
    fn edit_distance() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (left, right, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(&chars(left), &chars(right)), expected, "{left} {right}");
        }
    }
}
