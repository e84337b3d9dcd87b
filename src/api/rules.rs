//! Rules of the schemas that hold on Kubernetes alone, in CEL: names that child objects derive theirs from, storage that every
//! pod sees, and what may not change in a job that has state. Rules of the job file itself stand at its types.

use serde_json::{Value, json};
use streamjob_api::spec::location_in_cel;
use streamjob_api::text::millis_in_cel;

/// Names of objects: the longest name of a child has 63 characters.
const OBJECT_NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";
const OBJECT_NAME_MESSAGE: &str = "must be a name of lower-case letters, digits, '-' and '.'";

/// Rules on a whole StreamJob. A rule about the status looks at changes of the spec alone: status writes must pass always.
pub fn of_job() -> Value {
    json!([
        { "rule": "size(self.metadata.name) <= 45",
          "message": "metadata.name must have at most 45 characters, because names of pods and services derive from it" },
        { "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
          "message": "metadata.name must be of lower-case letters, digits and '-', begin with a letter and end with a letter or \
                      digit, because names of services derive from it" },
        { "rule": "!self.metadata.name.matches('-[cw][0-9]+$')",
          "message": "metadata.name must not end with -c or -w and a number, because services of other jobs have such names" },
        { "rule": "self.spec.parallelism == oldSelf.spec.parallelism || !has(oldSelf.status) || \
                   !has(oldSelf.status.maxParallelism) || self.spec.parallelism <= oldSelf.status.maxParallelism",
          "message": "parallelism must not exceed status.maxParallelism, which is fixed for the life of the job's state",
          "fieldPath": ".spec.parallelism" },
        { "rule": "!has(self.spec.maxParallelism) || has(oldSelf.spec.maxParallelism) || !has(oldSelf.status) || \
                   !has(oldSelf.status.maxParallelism) || self.spec.maxParallelism == oldSelf.status.maxParallelism",
          "message": "maxParallelism must be status.maxParallelism, which is fixed for the life of the job's state",
          "fieldPath": ".spec.maxParallelism" },
    ])
}

/// Rules on a whole Savepoint.
pub fn of_savepoint() -> Value {
    json!([
        { "rule": "size(self.metadata.name) <= 63", "message": "metadata.name must have at most 63 characters" },
    ])
}

pub fn of_job_spec(schema: &mut Value) {
    add_all(schema, job_spec());
}

pub fn of_savepoint_spec(schema: &mut Value) {
    add_all(schema, savepoint_spec());
}

fn job_spec() -> Vec<(&'static str, Value)> {
    let object_name = || json!([{ "rule": OBJECT_NAME, "message": OBJECT_NAME_MESSAGE }]);
    let at_least_a_second = |field: &str| {
        json!([{
            "rule": format!("{} >= 1000.0", millis_in_cel(&format!("self.{field}"))),
            "message": format!("{field} must be at least 1s"),
            "fieldPath": format!(".{field}"),
        }])
    };
    let checkpointing = "has(self.checkpoint) && has(self.checkpoint.interval)";
    let resources = json!([{
        "rule": "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || \
                 quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
        "message": "requests must not exceed limits", "fieldPath": ".requests",
    }]);
    vec![
        (
            "",
            json!([
                { "rule": format!("!({checkpointing}) || has(self.storage) && (has(self.storage.persistentVolumeClaim) || \
                                   has(self.storage.s3))"),
                  "message": "checkpoint.interval needs storage.persistentVolumeClaim or storage.s3" },
                { "rule": "!has(self.restoreFrom) || !has(self.restoreFrom.latestRetained) || has(self.storage) && \
                           (has(self.storage.persistentVolumeClaim) || has(self.storage.s3))",
                  "message": "restoreFrom.latestRetained needs storage.persistentVolumeClaim or storage.s3, the one of that \
                              job" },
                { "rule": format!("!has(self.savepoints) || {checkpointing}"),
                  "message": "savepoints needs checkpoint.interval: without checkpoints there are no savepoints" },
                { "rule": format!("!has(self.deletion) || self.deletion.policy != 'Savepoint' || {checkpointing}"),
                  "message": "deletion.policy Savepoint needs checkpoint.interval: without checkpoints there are no \
                              savepoints" },
                { "rule": format!("!has(self.upgrade) || !has(self.upgrade.rollback) || !self.upgrade.rollback.enabled || \
                                   {checkpointing}"),
                  "message": "upgrade.rollback needs checkpoint.interval: a revision proves itself by its checkpoints" },
                { "rule": "!has(oldSelf.maxParallelism) || has(self.maxParallelism) && self.maxParallelism == \
                           oldSelf.maxParallelism",
                  "message": "maxParallelism cannot change once it is set, because state is divided by it" },
                { "rule": "!has(oldSelf.restartNonce) || has(self.restartNonce) && self.restartNonce >= \
                           oldSelf.restartNonce",
                  "message": "restartNonce can only grow" },
                { "rule": "!has(oldSelf.storage) || !has(oldSelf.storage.persistentVolumeClaim) || has(self.storage) && \
                           has(self.storage.persistentVolumeClaim)",
                  "message": "storage.persistentVolumeClaim cannot be taken away, because the job's state is there" },
                { "rule": "!has(oldSelf.storage) || !has(oldSelf.storage.s3) || has(self.storage) && has(self.storage.s3)",
                  "message": "storage.s3 cannot be taken away, because the job's state is there" },
            ]),
        ),
        (
            "image",
            json!([{ "rule": "self.matches('^[^ \\t\\n]+$')", "message": "must be the name of an image, without spaces" }]),
        ),
        ("imagePullSecrets[].name", object_name()),
        (
            "env[].name",
            json!([{
                "rule": "self != 'POD_IP' && !self.startsWith('STREAMJOB_')",
                "message": "POD_IP and names that begin with STREAMJOB_ are the operator's",
            }]),
        ),
        ("env[].valueFrom.secretKeyRef.name", object_name()),
        (
            "env[].valueFrom.secretKeyRef.key",
            json!([{
                "rule": "self.matches('^[-._a-zA-Z0-9]+$')",
                "message": "must be the key of a secret: letters, digits, '-', '_' and '.'",
            }]),
        ),
        ("workers.resources", resources.clone()),
        ("coordinator.resources", resources),
        (
            "storage",
            json!([{
                "rule": "!has(self.directory)",
                "message": "storage.directory is for local mode; pods need persistentVolumeClaim or s3",
                "fieldPath": ".directory",
            }]),
        ),
        (
            "storage.persistentVolumeClaim",
            json!([
                { "rule": "has(self.claimName) == has(oldSelf.claimName) && (!has(self.claimName) || self.claimName == \
                           oldSelf.claimName)",
                  "message": "the claim cannot change, because the job's state is there" },
            ]),
        ),
        ("storage.persistentVolumeClaim.claimName", object_name()),
        (
            "storage.persistentVolumeClaim.template",
            json!([
                { "rule": "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || \
                           self.storageClassName == oldSelf.storageClassName)",
                  "message": "storageClassName cannot change" },
                { "rule": "!isQuantity(self.size) || !isQuantity(oldSelf.size) || \
                           quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
                  "message": "size can only grow", "fieldPath": ".size" },
            ]),
        ),
        ("storage.persistentVolumeClaim.template.storageClassName", object_name()),
        (
            "storage.persistentVolumeClaim.template.size",
            json!([{
                "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
                "message": "must be a quantity greater than 0, for example 10Gi",
            }]),
        ),
        (
            "storage.s3",
            json!([
                { "rule": "self.bucket == oldSelf.bucket && self.prefix == oldSelf.prefix",
                  "message": "bucket and prefix cannot change, because the job's state is there" },
            ]),
        ),
        ("storage.s3.credentialsSecret.name", object_name()),
        ("restoreFrom.savepointRef.name", object_name()),
        ("restoreFrom.latestRetained.jobName", object_name()),
        ("upgrade", at_least_a_second("savepointTimeout")),
        ("upgrade.rollback", at_least_a_second("deadline")),
        ("deletion", at_least_a_second("deadline")),
        (
            "savepoints.schedule",
            json!([{
                "rule": "self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[-0-9*/,A-Za-z?#]+( \
                         +[-0-9*/,A-Za-z?#]+){4})$')",
                "message": "must be five fields of cron (minute, hour, day of month, month, day of week), for example \
                            '0 3 * * *', or one of @hourly, @daily, @weekly, @monthly and @yearly",
            }]),
        ),
        (
            "savepoints.retain",
            json!([{ "rule": "has(self.count) || has(self.age)", "message": "at least one of count and age" }]),
        ),
    ]
}

fn savepoint_spec() -> Vec<(&'static str, Value)> {
    vec![
        (
            "",
            json!([
                { "rule": "self.jobRef == oldSelf.jobRef", "message": "jobRef cannot change; create another Savepoint" },
                { "rule": "self.format == oldSelf.format", "message": "format cannot change; create another Savepoint" },
                { "rule": "has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path)",
                  "message": "path cannot change; create another Savepoint" },
            ]),
        ),
        ("jobRef.name", json!([{ "rule": OBJECT_NAME, "message": OBJECT_NAME_MESSAGE }])),
        ("path", json!([{ "rule": location_in_cel("self"), "message": "must be a directory or s3://bucket/prefix" }])),
    ]
}

fn add_all(schema: &mut Value, rules: Vec<(&'static str, Value)>) {
    for (path, rules) in rules {
        let Some(Value::Object(field)) = at(schema, path) else { continue };
        let (Value::Array(old), Value::Array(new)) =
            (field.remove("x-kubernetes-validations").unwrap_or_else(|| json!([])), rules)
        else {
            continue;
        };
        field.insert("x-kubernetes-validations".into(), old.into_iter().chain(new).collect());
    }
}

/// The field at `path`, as in `env[].name`.
fn at<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').filter(|step| !step.is_empty()).try_fold(schema, |schema, step| {
        let field = schema.get_mut("properties")?.get_mut(step.trim_end_matches("[]"))?;
        if step.ends_with("[]") { field.get_mut("items") } else { Some(field) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SavepointSpec;
    use streamjob_api::schema;
    use streamjob_api::spec::StreamJobSpec;

    #[test]
    fn every_rule_has_its_field() {
        for (mut schema, rules) in
            [(schema::of::<StreamJobSpec>(), job_spec()), (schema::of::<SavepointSpec>(), savepoint_spec())]
        {
            for (path, _) in rules {
                assert!(at(&mut schema, path).is_some_and(|field| field.is_object()), "{path}");
            }
        }
    }
}
