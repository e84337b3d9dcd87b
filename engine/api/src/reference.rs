//! The reference page of the job file, generated from the schema.

use crate::check::expectation;
use crate::schema;
use crate::text::DURATION_PATTERN;
use serde_json::Value;
use std::fmt::Write;

/// Fields below these matter on Kubernetes only; local mode says that it ignores them.
const KUBERNETES_ONLY: &[&str] = &[
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "spec.image",
    "spec.imagePullPolicy",
    "spec.imagePullSecrets",
    "spec.coordinator",
    "spec.workers.resources",
    "spec.workers.podTemplate",
    "spec.storage.persistentVolumeClaim",
    "spec.storage.s3.credentialsSecret",
    "spec.state",
    "spec.upgrade.mode",
    "spec.upgrade.savepointTimeout",
    "spec.upgrade.attempts",
    "spec.upgrade.onSavepointFailure",
    "spec.upgrade.rollback",
    "spec.restartNonce",
    "spec.savepoints",
    "spec.deletion",
];

const HEAD: &str = r#"# The job file

<!-- Generated from the schema in engine/api; `UPDATE_DOCS=1 cargo test -p streamjob-api` writes it anew. -->

A `StreamJob` is one YAML file. The same file runs on a laptop and on Kubernetes.

```yaml
apiVersion: streamjob.dev/v1alpha1
kind: StreamJob
metadata:
  name: visits
spec:
  program:
    sql: |
      CREATE TABLE clicks (user_name STRING, url STRING) WITH ('connector' = 'filesystem', 'path' = '${INPUT}', 'format' = 'json');
      CREATE TABLE visits (user_name STRING, visits BIGINT) WITH ('connector' = 'print');
      INSERT INTO visits SELECT user_name, COUNT(*) FROM clicks GROUP BY user_name;
  env:
    - name: INPUT
      value: data/clicks
  parallelism: 2
  checkpoint:
    interval: 1s
```

- Durations are strings: `500ms`, `10s`, `1m30s`, `1h`, also with a space and in words, as in Flink (`10 s`, `3 min`).
- A field that is null counts as absent. An unknown field is an error.
- `${NAME}` in the SQL text is replaced by the value of that name in `spec.env`; within quotes, quotes of the value are doubled.
  Comments stay as they are. `$${` stands for a plain `${`.
- Values from secrets come from the process environment in local mode.
- Fields marked † matter on Kubernetes only.

"#;

/// The whole page, as Markdown.
pub fn markdown() -> String {
    let mut rows = Vec::new();
    collect(&schema::stream_job(), "", false, &mut rows);
    let mut page = HEAD.to_owned();
    page.push_str("| Field | Value | Default | Meaning |\n|---|---|---|---|\n");
    for row in rows {
        let mark = if row.kubernetes_only { " †" } else { "" };
        let default = match (&row.default, row.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "required".into(),
            (None, false) => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}`{mark} | {} | {default} | {} |",
            row.path,
            escaped(&row.value),
            escaped(&row.description)
        );
    }
    page
}

struct Row {
    path: String,
    value: String,
    default: Option<String>,
    required: bool,
    description: String,
    kubernetes_only: bool,
}

fn collect(schema: &Value, path: &str, kubernetes_only: bool, rows: &mut Vec<Row>) {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let kubernetes_only = kubernetes_only || KUBERNETES_ONLY.contains(&path.as_str());
        rows.push(Row {
            value: kind(field),
            default: field.get("default").and_then(shown_default),
            required: required.contains(&name.as_str()),
            description: field.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " "),
            kubernetes_only,
            path: path.clone(),
        });
        collect(field, &path, kubernetes_only, rows);
        if let Some(items) = field.get("items") {
            collect(items, &format!("{path}[]"), kubernetes_only, rows);
        }
    }
}

/// What a field holds; the fields of an object have rows of their own.
fn kind(field: &Value) -> String {
    match field.get("type").and_then(Value::as_str) {
        Some("object") if field.get("x-kubernetes-preserve-unknown-fields").is_some() => "any fields".into(),
        Some("object") if field.get("properties").is_some() => "object".into(),
        _ if field.get("pattern").is_some_and(|pattern| pattern == DURATION_PATTERN) => "duration".into(),
        _ => expectation(field),
    }
}

fn shown_default(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(fields) if fields.is_empty() => None,
        other => Some(other.to_string()),
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails when the page is stale; `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_page_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/job-file.md");
        let page = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
            std::fs::write(file, &page).unwrap();
        }
        let found = std::fs::read_to_string(file).unwrap_or_default();
        assert!(found == page, "docs/job-file.md is stale: run UPDATE_DOCS=1 cargo test -p streamjob-api");
    }

    #[test]
    fn every_kubernetes_only_field_exists() {
        let page = markdown();
        for path in KUBERNETES_ONLY {
            assert!(page.contains(&format!("| `{path}` † |")), "{path}");
        }
    }

    #[test]
    fn the_example_is_a_job() {
        let yaml = HEAD.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let job = crate::parse(yaml).unwrap();
        assert_eq!(crate::resolve(&job, crate::Platform::Local, "data", &|_| None).unwrap().parallelism, 2);
    }
}
