//! The two custom resource definitions, made from the types: their schemas in the form that Kubernetes takes, names, columns
//! and subresources. Rules that hold for a job file everywhere stand at its types; rules of Kubernetes alone are in
//! [`super::rules`].

use super::rules;
use super::{GROUP, Savepoint, SavepointSpec, SavepointStatus, StreamJob, StreamJobStatus, VERSION};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};
use streamjob_api::schema;
use streamjob_api::spec::StreamJobSpec;
use streamjob_api::text::GRAMMARS;

/// Both definitions.
///
/// # Errors
/// A type has a schema that Kubernetes has no form for; a test keeps that from happening.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    Ok(vec![serde_json::from_value(stream_job())?, serde_json::from_value(savepoint())?])
}

/// A definition as it stands in `crds/`.
///
/// # Errors
/// See [`crds`].
pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, serde_json::Error> {
    let mut text = String::from("# Generated from src/api by `make crds`.\n");
    super::yaml::write(&serde_json::to_value(crd)?, 0, &mut text);
    Ok(text)
}

/// Both definitions as one stream of YAML documents.
///
/// # Errors
/// See [`crds`].
pub fn yaml_of_all() -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for crd in crds()? {
        text.push_str("---\n");
        text.push_str(&yaml(&crd)?);
    }
    Ok(text)
}

fn stream_job() -> Value {
    let mut spec = of::<StreamJobSpec>();
    rules::of_job_spec(&mut spec);
    let columns = json!([
        column("State", "string", ".status.state", "Summary of the conditions"),
        column(
            "Ready",
            "string",
            r#".status.conditions[?(@.type=="Ready")].status"#,
            "Runs, and has a first checkpoint"
        ),
        column("Parallelism", "integer", ".status.parallelism", "Subtasks of each operator, of what runs"),
        column("Checkpoint", "date", ".status.lastCheckpoint.completedAt", "Age of the newest completed checkpoint"),
        column("Restarts", "integer", ".status.restarts", "Restarts by the restart strategy"),
        column("Age", "date", ".metadata.creationTimestamp", "Age of the resource"),
        wide("Reason", "string", r#".status.conditions[?(@.type=="Ready")].reason"#, "Why it is or is not ready"),
    ]);
    definition(Definition {
        kind: StreamJob::KIND,
        plural: StreamJob::PLURAL,
        singular: "streamjob",
        short_name: "sj",
        description: "A stream-processing job that keeps its state through failures, upgrades and rescaling.",
        rules: rules::of_job(),
        spec,
        status: of::<StreamJobStatus>(),
        columns,
        subresources: json!({
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.parallelism",
                "statusReplicasPath": ".status.parallelism",
                "labelSelectorPath": ".status.selector",
            },
        }),
        selectable: json!([]),
    })
}

fn savepoint() -> Value {
    let mut spec = of::<SavepointSpec>();
    rules::of_savepoint_spec(&mut spec);
    let columns = json!([
        column("Job", "string", ".spec.jobRef.name", "The StreamJob"),
        column("Phase", "string", ".status.phase", "Where it stands"),
        column("Checkpoint", "integer", ".status.checkpointId", "Its number among the job's checkpoints"),
        column("Bytes", "integer", ".status.sizeBytes", "Its size"),
        column("Completed", "date", ".status.completedAt", "Time since it was complete"),
        column("Age", "date", ".metadata.creationTimestamp", "Age of the resource"),
        wide("Path", "string", ".status.path", "Where it lies"),
        wide("Error", "string", ".status.error", "Why it failed"),
    ]);
    definition(Definition {
        kind: Savepoint::KIND,
        plural: Savepoint::PLURAL,
        singular: "savepoint",
        short_name: "sjsp",
        description: "A savepoint of a StreamJob: taken when this resource is created, or adopted. Deleting it deletes the \
                      files, unless spec.retain is set.",
        rules: rules::of_savepoint(),
        spec,
        status: of::<SavepointStatus>(),
        columns,
        subresources: json!({ "status": {} }),
        selectable: json!([{ "jsonPath": ".spec.jobRef.name" }]),
    })
}

struct Definition {
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_name: &'static str,
    description: &'static str,
    /// On the whole resource: its name, and what depends on the old one's status.
    rules: Value,
    spec: Value,
    status: Value,
    columns: Value,
    subresources: Value,
    selectable: Value,
}

fn definition(of: Definition) -> Value {
    let schema = json!({
        "type": "object",
        "description": of.description,
        "required": ["spec"],
        "x-kubernetes-validations": of.rules,
        "properties": {
            "apiVersion": { "type": "string", "description": format!("Version of this format: {GROUP}/{VERSION}.") },
            "kind": { "type": "string", "description": format!("Always {}.", of.kind) },
            // Kubernetes describes it itself, and lets nobody else.
            "metadata": { "type": "object" },
            "spec": of.spec,
            "status": of.status,
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{GROUP}", of.plural) },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": of.kind,
                "listKind": format!("{}List", of.kind),
                "plural": of.plural,
                "singular": of.singular,
                "shortNames": [of.short_name],
                "categories": ["streaming"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": schema },
                "subresources": of.subresources,
                "additionalPrinterColumns": of.columns,
                "selectableFields": of.selectable,
            }],
        },
    })
}

fn column(name: &str, kind: &str, path: &str, description: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path, "description": description })
}

/// Shown with `-o wide` alone.
fn wide(name: &str, kind: &str, path: &str, description: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path, "description": description, "priority": 1 })
}

fn of<T: JsonSchema>() -> Value {
    let mut schema = schema::of::<T>();
    structural(&mut schema);
    schema
}

/// Leaves out what a structural schema must not have, and says the rest in its words.
fn structural(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    object.remove("$schema");
    object.remove("title");
    if let Some(only) = object.remove("const") {
        object.insert("enum".into(), json!([only]));
    }
    // An enum with documented variants.
    if let Some(Value::Array(choices)) = object.remove("oneOf") {
        let values = choices.iter().flat_map(|choice| match (choice.get("const"), choice.get("enum")) {
            (Some(only), _) => vec![only.clone()],
            (_, Some(Value::Array(several))) => several.clone(),
            _ => Vec::new(),
        });
        object.insert("enum".into(), values.collect());
        object.insert("type".into(), "string".into());
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    // A person reads what the pattern means, not the pattern.
    let grammar = object.get("pattern").and_then(|pattern| GRAMMARS.iter().find(|grammar| *pattern == grammar.pattern));
    if let Some(grammar) = grammar
        && object.get("type").is_some_and(|kind| kind == "string")
    {
        let rule = json!({
            "rule": format!("self.matches(r'{}')", grammar.pattern),
            "message": format!("must be {}", grammar.description),
        });
        object.remove("pattern");
        match object.entry("x-kubernetes-validations").or_insert_with(|| json!([])) {
            Value::Array(rules) => rules.insert(0, rule),
            other => *other = json!([rule]),
        }
    }
    // Unknown fields are pruned, and refused by clients that validate.
    if object.get("additionalProperties").is_some_and(Value::is_boolean) {
        object.remove("additionalProperties");
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    if object.get("properties").and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove("properties");
    }
    for part in ["items", "additionalProperties"] {
        if let Some(part) = object.get_mut(part) {
            structural(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    fn check_file(path: &str, text: &str) {
        let file = Path::new(ROOT).join(path);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == text, "{path} is stale: run `make crds`");
    }

    /// The same, as a template of the chart: with its conditions, and what Helm would take for its own language escaped.
    fn template(yaml: &str) -> String {
        let escaped = yaml.replace("{{", "\u{0}").replace("}}", "{{ \"}}\" }}").replace('\u{0}', "{{ \"{{\" }}");
        let (head, rest) = escaped.split_once("metadata:\n").unwrap();
        format!(
            "{{{{- if .Values.crds.install }}}}\n{head}metadata:\n  labels:\n    {{{{- include \"streamjob-operator.labels\" . | \
             nindent 4 }}}}\n  {{{{- if .Values.crds.keep }}}}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{{{- end \
             }}}}\n{rest}{{{{- end }}}}\n"
        )
    }

    #[test]
    fn generated_crds_are_up_to_date() {
        for crd in crds().unwrap() {
            let name = crd.spec.names.singular.clone().unwrap();
            let text = yaml(&crd).unwrap();
            check_file(&format!("crds/{name}.yaml"), &text);
            check_file(&format!("charts/streamjob-operator/templates/crds/{name}.yaml"), &template(&text));
        }
    }

    #[test]
    fn crds_are_small() {
        for crd in crds().unwrap() {
            let size = serde_json::to_string(&crd).unwrap().len();
            assert!(size < 100_000, "{} has {size} bytes", crd.spec.names.kind);
            let text = yaml(&crd).unwrap();
            assert!(text.len() < 200_000, "{} has {} bytes as YAML", crd.spec.names.kind, text.len());
        }
    }

    fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(&format!("{path}.{name}"), child, visit);
        }
        for (part, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(child) = schema.get(part) {
                walk(&format!("{path}{mark}"), child, visit);
            }
        }
    }

    #[test]
    fn every_field_of_the_crds_is_explained() {
        for crd in crds().unwrap() {
            let crd = serde_json::to_value(&crd).unwrap();
            let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
            walk("", schema, &mut |path, schema| {
                let described = schema.get("description").and_then(Value::as_str).is_some_and(|text| {
                    // The words of Kubernetes about its own type say nothing about this field.
                    !text.is_empty() && !text.starts_with("Time is a wrapper")
                });
                if !path.ends_with("[]") && !path.ends_with("{}") && path != ".metadata" {
                    assert!(described, "{path} has no description");
                }
                let typed = schema.get("type").is_some() || schema.get("x-kubernetes-int-or-string").is_some();
                assert!(typed, "{path} has no type: {schema}");
                for word in ["oneOf", "anyOf", "allOf", "not", "const", "$ref"] {
                    assert!(schema.get(word).is_none(), "{path} has {word}");
                }
            });
        }
    }

    #[test]
    fn crds_as_yaml_read_back_the_same() {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml_of_all().unwrap()).unwrap();
        let expected: Vec<Value> = crds().unwrap().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        assert_eq!(documents, expected);
    }
}
