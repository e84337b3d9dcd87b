//! A pod template over a pod, as Kubernetes' strategic merge does it: objects field by field, lists whose items have a key
//! item by item, other lists as a whole; null deletes, and so does `$patch: delete` in an item of a list.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// Lists of a pod that are merged, with what tells their items apart. Lists of the same name have the same key.
const MERGE_KEYS: [(&str, &[&str]); 13] = [
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("volumes", &["name"]),
    ("env", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("ports", &["containerPort", "protocol"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    // Kubernetes would replace them, and nobody could add one to ours.
    ("tolerations", &["key", "operator", "effect"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("resourceClaims", &["name"]),
    ("claims", &["name"]),
];
/// Their items are one of several kinds: of another kind they replace what was there.
const EITHER_OR: [&str; 2] = ["volumes", "env"];
/// `$patch: delete` in an item: the one with its key goes.
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
                            base.insert(name.clone(), cleaned(value));
                        }
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(overlay)) => merge_lists(base, overlay, field),
        (base, overlay) => *base = cleaned(overlay),
    }
}

fn merge_lists(base: &mut Vec<Value>, overlay: &[Value], field: &str) {
    let Some((_, keys)) = MERGE_KEYS.iter().find(|(name, _)| *name == field) else {
        *base = overlay.to_vec();
        base.iter_mut().for_each(without_deletions);
        return;
    };
    let key = |item: &Value| keys.iter().map(|key| key_part(item, key)).collect::<Vec<Value>>();
    for item in overlay {
        let existing = base.iter().position(|other| key(other) == key(item));
        let deletes = is_deletion(item);
        match existing {
            Some(at) if deletes => drop(base.remove(at)),
            Some(at) if EITHER_OR.contains(&field) && has_other_fields(item, &base[at]) => base[at] = cleaned(item),
            Some(at) => merge(&mut base[at], item, ""),
            None if deletes => {}
            None => base.push(cleaned(item)),
        }
    }
}

fn has_other_fields(item: &Value, base: &Value) -> bool {
    let mut fields = item.as_object().into_iter().flatten();
    fields.any(|(name, value)| !value.is_null() && base.get(name).is_none())
}

fn cleaned(value: &Value) -> Value {
    let mut value = value.clone();
    without_deletions(&mut value);
    value
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

fn is_deletion(item: &Value) -> bool {
    item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete")
}

/// What only says that something goes has no meaning where there is nothing.
fn without_deletions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_deletions);
        }
        Value::Array(items) => {
            items.retain(|item| !is_deletion(item));
            items.iter_mut().for_each(without_deletions);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "metadata": { "labels": { "a": "1" } },
            "spec": {
                "containers": [{
                    "name": "streamjob",
                    "image": "engine:1",
                    "args": ["worker", "--slots", "1"],
                    "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                    "ports": [{ "containerPort": 8082, "name": "rest" }],
                    "resources": { "requests": { "cpu": "100m", "memory": "256Mi" } },
                    "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
                }],
                "nodeSelector": { "disk": "ssd" },
                "securityContext": { "runAsNonRoot": true, "runAsUser": 65532 },
                "tolerations": [
                    { "key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
                ],
                "volumes": [{ "name": "tmp", "emptyDir": {} }],
            },
        })
    }

    fn merge_over_base(overlay: Value) -> Result<Value, String> {
        let base: PodTemplateSpec = serde_json::from_value(base()).unwrap();
        merged(&base, overlay.as_object().unwrap()).map(|template| serde_json::to_value(template).unwrap())
    }

    /// Overlays, each with what it changes: a pointer, and what stands there afterwards.
    #[test]
    fn merges() {
        let container = |fields: Value| {
            let mut container = json!({ "name": "streamjob" });
            container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({ "spec": { "containers": [container] } })
        };
        let table = [
            (json!({}), "", base()),
            (json!({ "spec": null }), "", json!({ "metadata": { "labels": { "a": "1" } } })),
            (json!({ "metadata": { "labels": { "b": "2" } } }), "/metadata/labels", json!({ "a": "1", "b": "2" })),
            (json!({ "metadata": { "annotations": { "x": "y" } } }), "/metadata/annotations", json!({ "x": "y" })),
            (
                json!({ "spec": { "nodeSelector": { "disk": null, "zone": "a" } } }),
                "/spec/nodeSelector",
                json!({ "zone": "a" }),
            ),
            (
                json!({ "spec": { "securityContext": { "runAsUser": 7 } } }),
                "/spec/securityContext",
                json!({ "runAsNonRoot": true, "runAsUser": 7 }),
            ),
            (json!({ "spec": { "priorityClassName": "high" } }), "/spec/priorityClassName", json!("high")),
            (
                json!({ "spec": { "affinity": { "nodeAffinity": null, "podAffinity": {} } } }),
                "/spec/affinity",
                json!({ "podAffinity": {} }),
            ),
            (container(json!({ "image": "mine:2" })), "/spec/containers/0/image", json!("mine:2")),
            (container(json!({ "args": ["other"] })), "/spec/containers/0/args", json!(["other"])),
            (
                container(
                    json!({ "env": [{ "name": "B", "value": "3" }, { "name": "C", "value": "4" }, { "name": "A", "$patch": "delete" }] }),
                ),
                "/spec/containers/0/env",
                json!([{ "name": "B", "value": "3" }, { "name": "C", "value": "4" }]),
            ),
            (
                container(
                    json!({ "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }] }),
                ),
                "/spec/containers/0/env/0",
                json!({ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "status.hostIP" } } }),
            ),
            (
                container(json!({ "resources": { "requests": { "cpu": 2 }, "limits": { "memory": 1073741824 } } })),
                "/spec/containers/0/resources",
                json!({ "requests": { "cpu": "2", "memory": "256Mi" }, "limits": { "memory": "1073741824" } }),
            ),
            (
                container(
                    json!({ "ports": [{ "containerPort": 8082, "protocol": "TCP", "name": "web" }, { "containerPort": 8082, "protocol": "UDP" }] }),
                ),
                "/spec/containers/0/ports",
                json!([{ "containerPort": 8082, "name": "web", "protocol": "TCP" }, { "containerPort": 8082, "protocol": "UDP" }]),
            ),
            (
                container(json!({ "volumeMounts": [{ "name": "disk", "mountPath": "/tmp" }] })),
                "/spec/containers/0/volumeMounts",
                json!([{ "name": "disk", "mountPath": "/tmp" }]),
            ),
            (
                json!({ "spec": { "containers": [{ "name": "sidecar", "image": "proxy:1", "command": null }] } }),
                "/spec/containers/1",
                json!({ "name": "sidecar", "image": "proxy:1" }),
            ),
            (
                json!({ "spec": { "volumes": [{ "name": "tmp", "emptyDir": { "sizeLimit": "1Gi" } }] } }),
                "/spec/volumes",
                json!([{ "name": "tmp", "emptyDir": { "sizeLimit": "1Gi" } }]),
            ),
            (
                json!({ "spec": { "volumes": [{ "name": "tmp", "hostPath": { "path": "/x" } }, { "name": "more", "emptyDir": {} }] } }),
                "/spec/volumes",
                json!([{ "name": "tmp", "hostPath": { "path": "/x" } }, { "name": "more", "emptyDir": {} }]),
            ),
            (
                json!({ "spec": { "tolerations": [
                    { "key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
                    { "key": "gpu", "value": "yes", "effect": "NoSchedule" },
                ] } }),
                "/spec/tolerations",
                json!([
                    { "key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
                    { "key": "gpu", "value": "yes", "effect": "NoSchedule" },
                ]),
            ),
        ];
        for (overlay, pointer, expected) in table {
            let result = merge_over_base(overlay.clone()).unwrap();
            let mut rest = base();
            assert_eq!(result.pointer(pointer), Some(&expected), "{overlay}");
            // Nothing else has changed.
            if let (Some(place), false) = (rest.pointer_mut(pointer), pointer.is_empty()) {
                *place = expected;
                assert_eq!(result, rest, "{overlay}");
            }
        }
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let overlay = json!({
            "metadata": { "labels": { "b": "2" } },
            "spec": {
                "nodeSelector": { "disk": null },
                "containers": [
                    { "name": "streamjob", "env": [{ "name": "A", "$patch": "delete" }, { "name": "C", "value": "1" }] },
                    { "name": "sidecar", "image": "x" },
                ],
                "volumes": [{ "name": "tmp", "$patch": "delete" }, { "name": "v", "emptyDir": {} }],
                "tolerations": [{ "operator": "Exists" }],
            },
        });
        let once: PodTemplateSpec = serde_json::from_value(merge_over_base(overlay.clone()).unwrap()).unwrap();
        assert_eq!(merged(&once, overlay.as_object().unwrap()).unwrap(), once);
    }

    #[test]
    fn what_is_no_pod_template() {
        let table = [
            (json!({ "spec": { "nodeSelektor": {} } }), "there is no such field: spec.nodeSelektor"),
            (json!({ "nodeSelector": {} }), "there is no such field: nodeSelector"),
            (
                json!({ "spec": { "containers": [{ "name": "streamjob", "volumeMounts": [{ "mountPath": "/x", "nam": "y" }] }] } }),
                "there is no such field: spec.containers[0].volumeMounts[1].nam",
            ),
            (
                json!({ "spec": { "containers": [{ "name": "streamjob", "livenessProbe": { "periodSecond": 1 } }] } }),
                "there is no such field: spec.containers[0].livenessProbe.periodSecond",
            ),
            (json!({ "spec": { "containers": "none" } }), "invalid type: string"),
            (json!({ "spec": { "tolerations": {} } }), "invalid type: map"),
            (json!({ "spec": { "terminationGracePeriodSeconds": "10" } }), "invalid type: string"),
        ];
        for (overlay, expected) in table {
            let error = merge_over_base(overlay.clone()).unwrap_err();
            assert!(error.contains(expected), "{overlay}: {error}");
        }
    }
}
