//! A pod template over a pod, as Kubernetes' strategic merge does it: objects field by field, lists whose items have a key
//! item by item, other lists as a whole, and null deletes.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// Lists of a pod that are merged, with what tells their items apart. Where names of lists are the same their keys are.
const MERGE_KEYS: [(&str, &[&str]); 15] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("ports", &["containerPort", "protocol"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("tolerations", &["key", "operator", "effect"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("resourceClaims", &["name"]),
    ("claims", &["name"]),
    ("ownerReferences", &["uid"]),
];
/// Lists of plain values that are merged as sets.
const MERGED_SETS: [&str; 1] = ["finalizers"];
/// Written instead of an item with this key's value: the item goes.
const DIRECTIVE: &str = "$patch";

/// The template with `overlay` over it.
///
/// # Errors
/// Why the result is no pod template: a field that Kubernetes does not know, or a value of the wrong kind.
pub(super) fn merged(base: &PodTemplateSpec, overlay: &Map<String, Value>) -> Result<PodTemplateSpec, String> {
    let mut merged = serde_json::to_value(base).map_err(|error| error.to_string())?;
    merge(&mut merged, &Value::Object(overlay.clone()), "");
    texts_for_quantities(&mut merged);
    let template: PodTemplateSpec = serde_json::from_value(merged.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&template).map_err(|error| error.to_string())?;
    match unknown_field(&merged, &known, "") {
        Some(field) => Err(format!("there is no such field: {field}")),
        None => Ok(template),
    }
}

fn merge(base: &mut Value, overlay: &Value, field: &str) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (name, value) in overlay {
                if value.is_null() {
                    base.remove(name);
                } else {
                    match base.get_mut(name) {
                        Some(existing) => merge(existing, value, name),
                        None => {
                            let mut fresh = value.clone();
                            without_nulls(&mut fresh);
                            base.insert(name.clone(), fresh);
                        }
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(overlay)) => merge_lists(base, overlay, field),
        (base, overlay) => {
            *base = overlay.clone();
            without_nulls(base);
        }
    }
}

fn merge_lists(base: &mut Vec<Value>, overlay: &[Value], field: &str) {
    if MERGED_SETS.contains(&field) {
        base.extend(overlay.iter().filter(|item| !base.contains(item)).cloned().collect::<Vec<_>>());
        return;
    }
    let Some((_, keys)) = MERGE_KEYS.iter().find(|(name, _)| *name == field) else {
        *base = overlay.to_vec();
        base.iter_mut().for_each(without_nulls);
        return;
    };
    let key = |item: &Value| keys.iter().map(|key| key_part(item, key)).collect::<Vec<Value>>();
    for item in overlay {
        let existing = base.iter().position(|other| key(other) == key(item));
        let deletes = item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
        match existing {
            Some(at) if deletes => drop(base.remove(at)),
            Some(at) => merge(&mut base[at], item, ""),
            None if deletes => {}
            None => {
                let mut fresh = item.clone();
                without_nulls(&mut fresh);
                base.push(fresh);
            }
        }
    }
}

/// With the default that the API server would fill in.
fn key_part(item: &Value, key: &str) -> Value {
    let default = match key {
        "protocol" => Value::from("TCP"),
        "operator" => Value::from("Equal"),
        _ => Value::Null,
    };
    item.get(key).cloned().unwrap_or(default)
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// `cpu: 1` is as good as `cpu: "1"` to Kubernetes.
fn texts_for_quantities(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("requests" | "limits" | "overhead", Value::Object(quantities)) => {
                        quantities.values_mut().for_each(text_for_number);
                    }
                    ("sizeLimit" | "divisor", value) => text_for_number(value),
                    (_, value) => texts_for_quantities(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(texts_for_quantities),
        _ => {}
    }
}

fn text_for_number(value: &mut Value) {
    if value.is_number() {
        *value = Value::from(value.to_string());
    }
}

/// The first field that was written and is not there after reading it as a pod template.
fn unknown_field(written: &Value, known: &Value, path: &str) -> Option<String> {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written.iter().find_map(|(name, value)| match known.get(name) {
                Some(known) => unknown_field(value, known, &join(name)),
                None => Some(join(name)),
            })
        }
        (Value::Array(written), Value::Array(known)) => written
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (written, known))| unknown_field(written, known, &format!("{path}[{index}]"))),
        _ => None,
    }
}
