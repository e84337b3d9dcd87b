//! Pods that delete files: with the job's storage mounted, and with no job running.

use super::job_file::render_for_disposal;
use super::meta::{self, DISPOSE, SAVEPOINT, job_name};
use super::names::{self, label_value};
use super::pods::{self, CONTAINER, JOB_FILE_DIRECTORY, JOB_FILE_KEY, Volumes};
use super::spec::{checkpoint_directory, has_storage};
use crate::api::savepoint::SavepointFiles;
use crate::api::{Savepoint, StreamJob};
use crate::settings::Settings;
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, ObjectFieldSelector, Pod, PodSpec, PodTemplateSpec,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};
use streamjob_api::spec::StreamJobSpec;

/// The pod's own annotation is its job file, so that there is no other object to create and to clean up.
const JOB_FILE_ANNOTATION: &str = "streamjob.dev/job-file";
const VOLUME: &str = "job";
/// Deletion is repeated by a new pod when it takes longer.
const DEADLINE_SECONDS: i64 = 600;
const REQUESTS: [(&str, &str); 2] = [("cpu", "10m"), ("memory", "64Mi")];

/// What of a job's files goes.
#[derive(Debug, Clone, Copy)]
pub enum Disposal<'a> {
    /// Checkpoints under this job id; savepoints stay.
    Job(&'a str),
    /// Everything, savepoints in the job's own directory included.
    All,
}

/// `spec` says where the files lie: that of the revision that ran, which may differ from the job's.
pub fn job_dispose_pod(job: &StreamJob, spec: &StreamJobSpec, disposal: Disposal, settings: &Settings) -> Pod {
    let what = match disposal {
        Disposal::All => vec!["--all".to_owned()],
        Disposal::Job(id) => vec!["--job-id".to_owned(), id.to_owned()],
    };
    let place = Place { namespace: job.metadata.namespace.as_deref().unwrap_or_default(), job: job_name(job), spec };
    let account = Some(names::service_account(job_name(job)));
    let name = names::job_dispose_pod(job_name(job));
    pod(name, &place, what, account, meta::job_reference(job), None, settings)
}

/// What of a spec is written down with a savepoint, so that its files can be deleted without the job; nothing if there is
/// no storage that outlives the job's pods.
pub fn files_of(spec: &StreamJobSpec) -> Option<SavepointFiles> {
    let storage = spec.storage.clone().filter(|_| has_storage(spec))?;
    let template = spec.coordinator.as_ref().and_then(|coordinator| coordinator.pod_template.as_ref());
    Some(SavepointFiles {
        storage,
        image: spec.image.clone(),
        image_pull_secrets: spec.image_pull_secrets.clone(),
        pod_template: template.map(without_values).filter(|template| !template.is_empty()),
    })
}

/// The spec of a job that has only these files.
pub fn spec_of(files: &SavepointFiles) -> Option<StreamJobSpec> {
    let coordinator = files.pod_template.as_ref().map(|template| json!({ "podTemplate": template }));
    let spec = json!({
        "program": { "sql": "-- nothing runs" },
        "storage": files.storage,
        "image": files.image,
        "imagePullSecrets": files.image_pull_secrets,
        "coordinator": coordinator,
    });
    serde_json::from_value(spec).ok()
}

/// What says on which nodes, as whom and with which volumes a pod runs. No variables: people write secrets there.
fn without_values(template: &Map<String, Value>) -> Map<String, Value> {
    const KEPT: [&str; 8] = [
        "nodeSelector",
        "affinity",
        "tolerations",
        "securityContext",
        "runtimeClassName",
        "priorityClassName",
        "imagePullSecrets",
        "volumes",
    ];
    let Some(Value::Object(spec)) = template.get("spec") else { return Map::new() };
    let mut kept: Map<String, Value> = spec.clone();
    kept.retain(|field, _| KEPT.contains(&field.as_str()));
    let containers = spec.get("containers").and_then(Value::as_array).into_iter().flatten();
    let ours = containers.filter(|container| container.get("name").and_then(Value::as_str) == Some(CONTAINER));
    let ours: Vec<Value> = ours
        .filter_map(|container| {
            let mut container = container.as_object()?.clone();
            container.retain(|field, _| matches!(field.as_str(), "name" | "volumeMounts" | "securityContext"));
            Some(Value::Object(container))
        })
        .filter(|container| container.as_object().is_some_and(|fields| fields.len() > 1))
        .collect();
    if !ours.is_empty() {
        kept.insert("containers".into(), ours.into());
    }
    if kept.is_empty() { Map::new() } else { [("spec".to_owned(), Value::Object(kept))].into_iter().collect() }
}

/// Works without the job: its service account is used only while there is one.
pub fn savepoint_dispose_pod(
    savepoint: &Savepoint,
    job: Option<&StreamJob>,
    spec: &StreamJobSpec,
    path: &str,
    settings: &Settings,
) -> Pod {
    let name = savepoint.metadata.name.as_deref().unwrap_or_default();
    let place = Place {
        namespace: savepoint.metadata.namespace.as_deref().unwrap_or_default(),
        job: &savepoint.spec.job_ref.name,
        spec,
    };
    let account = job.map(|job| names::service_account(job_name(job)));
    let what = vec!["--savepoint".to_owned(), path.to_owned()];
    let owner = meta::savepoint_reference(savepoint);
    pod(names::savepoint_dispose_pod(name), &place, what, account, owner, Some(label_value(name)), settings)
}

/// Whose files, and where they are.
struct Place<'a> {
    namespace: &'a str,
    job: &'a str,
    spec: &'a StreamJobSpec,
}

fn pod(
    name: String,
    place: &Place,
    what: Vec<String>,
    service_account: Option<String>,
    owner: OwnerReference,
    savepoint: Option<String>,
    settings: &Settings,
) -> Pod {
    let Place { namespace, job, spec } = *place;
    let mut args = vec!["dispose".to_owned(), "--job".into(), format!("{JOB_FILE_DIRECTORY}/{JOB_FILE_KEY}")];
    args.extend(["--checkpoints".into(), checkpoint_directory(namespace, job)]);
    args.extend(what);
    let mut volumes = Volumes::new(spec, job);
    volumes.add(annotation_volume(), JOB_FILE_DIRECTORY, true);
    let env = pods::storage_env(spec);
    let container = Container {
        args: Some(args),
        env: (!env.is_empty()).then_some(env),
        resources: Some(pods::resources(None, &REQUESTS)),
        volume_mounts: Some(volumes.mounts),
        ..pods::container(spec, settings)
    };
    let mut labels = meta::labels(job, Some(DISPOSE), None);
    labels.extend(savepoint.map(|savepoint| (SAVEPOINT.to_owned(), savepoint)));
    let mut pod_spec = PodSpec {
        containers: vec![container],
        volumes: Some(volumes.volumes),
        restart_policy: Some("OnFailure".into()),
        active_deadline_seconds: Some(DEADLINE_SECONDS),
        termination_grace_period_seconds: Some(10),
        ..pods::pod(spec, String::new())
    };
    pod_spec.service_account_name = service_account;
    let annotations = [(JOB_FILE_ANNOTATION.to_owned(), render_for_disposal(namespace, job, spec))];
    let base = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels.clone()),
            annotations: Some(annotations.clone().into()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec),
    };
    let overlay = spec.coordinator.as_ref().and_then(|coordinator| coordinator.pod_template.as_ref());
    let finished = pods::finished(base, overlay.map(for_disposal).as_ref(), &labels);
    let mut metadata = finished.metadata.unwrap_or_default();
    metadata.annotations.get_or_insert_default().extend(annotations);
    metadata.name = Some(name);
    metadata.namespace = Some(namespace.to_owned());
    metadata.owner_references = Some(vec![owner]);
    Pod { metadata, spec: finished.spec, status: None }
}

/// What of the coordinator's template counts for a pod that shall reach the same storage from the same nodes and end:
/// no other containers, and nothing about how the coordinator is run.
fn for_disposal(template: &Map<String, Value>) -> Map<String, Value> {
    let mut template = template.clone();
    let Some(Value::Object(spec)) = template.get_mut("spec") else { return template };
    for field in ["initContainers", "restartPolicy", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
        spec.remove(field);
    }
    if let Some(Value::Array(containers)) = spec.get_mut("containers") {
        containers.retain(|container| container.get("name").and_then(Value::as_str) == Some(CONTAINER));
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            container.retain(|field, _| {
                matches!(field.as_str(), "name" | "image" | "env" | "envFrom" | "volumeMounts" | "securityContext")
            });
        }
    }
    template
}

fn annotation_volume() -> Volume {
    let field = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: format!("metadata.annotations['{JOB_FILE_ANNOTATION}']"),
    };
    let file =
        DownwardAPIVolumeFile { path: JOB_FILE_KEY.into(), field_ref: Some(field), ..DownwardAPIVolumeFile::default() };
    Volume {
        name: VOLUME.into(),
        downward_api: Some(DownwardAPIVolumeSource { items: Some(vec![file]), ..DownwardAPIVolumeSource::default() }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{job, settings, spec};
    use super::*;
    use crate::api::SavepointSpec;
    use streamjob_api::spec::LocalReference;

    #[test]
    fn a_savepoint_without_its_job_is_deleted_by_the_same_pod() {
        let template = json!({ "spec": {
            "nodeSelector": { "disk": "fast" },
            "volumes": [{ "name": "more", "persistentVolumeClaim": { "claimName": "more" } }],
            "serviceAccountName": "somebody",
            "containers": [
                { "name": "streamjob", "volumeMounts": [{ "name": "more", "mountPath": "/more" }] },
                { "name": "beside", "image": "log-shipper", "env": [{ "name": "PASSWORD", "value": "secret-1" }] },
            ],
        } });
        for storage in [
            json!({ "persistentVolumeClaim": { "template": { "size": "1Gi" } }, "savepointDir": "/more/savepoints" }),
            json!({ "s3": { "bucket": "b", "prefix": "p", "credentialsSecret": { "name": "keys" } } }),
        ] {
            let fields = json!({
                "storage": storage, "image": "mine:1", "imagePullSecrets": [{ "name": "pull" }],
                "env": [{ "name": "PASSWORD", "value": "secret-2" }], "coordinator": { "podTemplate": template },
            });
            let job = job("a", spec(fields));
            let reference = LocalReference { name: "a".into() };
            let of = SavepointSpec { job_ref: reference, path: None, format: Default::default(), retain: false };
            let mut savepoint = Savepoint::new("monday", of);
            savepoint.metadata.namespace = Some("shop".into());
            let pod = |spec: &StreamJobSpec| savepoint_dispose_pod(&savepoint, None, spec, "/more/s-1", &settings());
            let files = files_of(&job.spec).unwrap();
            let text = serde_json::to_string(&files).unwrap();
            assert!(!text.contains("secret-"), "{text}");
            let (recorded, live) = (pod(&spec_of(&files).unwrap()), pod(&job.spec));
            let without_account = |pod: Pod| {
                let mut spec = pod.spec.unwrap();
                spec.service_account_name = None;
                spec.service_account = None;
                spec
            };
            assert_eq!(without_account(recorded), without_account(live));
        }
        assert_eq!(files_of(&spec(json!({ "storage": { "directory": "/d" } }))), None);
    }
}
