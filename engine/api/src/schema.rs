//! The job file's JSON schema: what the check walks and what the reference page is generated from.

use crate::spec::StreamJob;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema of a whole job file.
pub fn stream_job() -> Value {
    of::<StreamJob>()
}

/// The schema of a type, self-contained (no `$ref`) and without `null`: a field that is null counts as absent, as in
/// Kubernetes.
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    // Another crate of the build may make maps keep their insertion order.
    schema.sort_all_objects();
    schema
}

fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    object.insert("type".into(), single);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(single)] = choices.as_slice() {
                    let single = single.clone();
                    object.remove("anyOf");
                    for (key, value) in single {
                        // A field's own description says more than its type's.
                        object.entry(key).or_insert(value);
                    }
                }
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::GRAMMARS;

    fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(&format!("{path}.{name}"), child, visit);
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{path}[]"), items, visit);
        }
    }

    #[test]
    fn every_field_is_described_and_typed() {
        walk("", &stream_job(), &mut |path, schema| {
            if !path.is_empty() && !path.ends_with("[]") {
                assert!(schema.get("description").is_some(), "{path} has no description");
            }
            let typed = schema.get("type").is_some_and(Value::is_string)
                || schema.get("enum").is_some()
                || schema.get("const").is_some()
                || schema.get("x-kubernetes-int-or-string").is_some();
            assert!(typed, "{path} has no single type: {schema}");
        });
    }

    #[test]
    fn every_pattern_has_a_grammar() {
        walk("", &stream_job(), &mut |path, schema| {
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
                assert!(GRAMMARS.iter().any(|grammar| grammar.pattern == pattern), "{path}: {pattern}");
            }
        });
    }

    #[test]
    fn nothing_that_kubernetes_refuses() {
        let text = stream_job().to_string();
        for word in ["\"null\"", "$ref", "uint", "\"number\"", "oneOf", "anyOf"] {
            assert!(!text.contains(word), "{word} in the schema");
        }
        assert!(text.len() < 100_000, "the schema has {} bytes", text.len());
    }
}
