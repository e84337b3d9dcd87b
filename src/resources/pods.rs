//! Pods of the coordinator and of the workers, and what every pod of the engine has in common. They keep to the
//! restricted Pod Security Standard unless a pod template says otherwise.

use super::Revision;
use super::meta::{self, COORDINATOR, Labels, WORKER, job_name};
use super::spec::{STATE_MOUNT, checkpoint_directory, quantity_text, slots};
use super::{names, overlay};
use crate::settings::Settings;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector, SecretVolumeSource,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use streamjob_api::spec::{ImagePullPolicy, Resources, StreamJobSpec};

pub const CONTAINER: &str = "streamjob";
pub const CONTROL_PORT: i32 = 6123;
pub const REST_PORT: i32 = 8081;
pub const WORKER_REST_PORT: i32 = 8082;
pub(super) const JOB_FILE_KEY: &str = "job.yaml";
pub(super) const TOKEN_KEY: &str = "token";
pub(super) const JOB_FILE_DIRECTORY: &str = "/etc/streamjob";
const JOB_FILE: &str = "/etc/streamjob/job.yaml";
const TOKEN_DIRECTORY: &str = "/etc/streamjob-token";
const STATE_VOLUME: &str = "state";
const JOB_VOLUME: &str = "job";
const TOKEN_VOLUME: &str = "token";
const TMP_VOLUME: &str = "tmp";
/// Of the image: a user without a name and without rights.
const USER: i64 = 65532;
/// Kubernetes would wait for five minutes before it moves the pods of a lost node.
const LOST_NODE_SECONDS: i64 = 30;
const TOKEN_FILE_VARIABLE: &str = "STREAMJOB_TOKEN_FILE";
const POD_IP_VARIABLE: &str = "POD_IP";
const S3_VARIABLES: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];

/// Small: enough to start and to run a small job. Who has more writes it down.
const COORDINATOR_REQUESTS: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "128Mi")];
const WORKER_REQUESTS: [(&str, &str); 2] = [("cpu", "100m"), ("memory", "256Mi")];

pub(super) fn coordinator_template(revision: &Revision) -> PodTemplateSpec {
    let spec = revision.spec;
    let mut args = vec!["coordinator".to_owned()];
    args.extend(common_args(revision));
    args.extend(["--revision".into(), revision.number.to_string()]);
    if let Some(replaced) = revision.replaces {
        args.extend(["--replaces".into(), replaced.to_owned()]);
    }
    args.extend(["--control".into(), format!("0.0.0.0:{CONTROL_PORT}")]);
    args.extend(["--rest".into(), format!("0.0.0.0:{REST_PORT}")]);
    args.push("--on-cluster".into());
    let coordinator = spec.coordinator.as_ref();
    let container = Container {
        args: Some(args),
        ports: Some(vec![port("control", CONTROL_PORT), port("rest", REST_PORT)]),
        resources: Some(resources(
            coordinator.and_then(|coordinator| coordinator.resources.as_ref()),
            &COORDINATOR_REQUESTS,
        )),
        readiness_probe: Some(probe("/readyz", "rest", 3)),
        liveness_probe: Some(probe("/healthz", "rest", 10)),
        ..container(spec, revision.settings)
    };
    let overlay = coordinator.and_then(|coordinator| coordinator.pod_template.as_ref());
    template(revision, COORDINATOR, container, overlay)
}

pub(super) fn worker_template(revision: &Revision) -> PodTemplateSpec {
    let spec = revision.spec;
    let coordinator = names::coordinator(job_name(revision.job), revision.number);
    let mut args = vec!["worker".to_owned()];
    args.extend(common_args(revision));
    args.extend(["--coordinator".into(), format!("{coordinator}:{CONTROL_PORT}")]);
    args.extend(["--slots".into(), slots(spec).to_string()]);
    args.extend(["--rest".into(), format!("0.0.0.0:{WORKER_REST_PORT}")]);
    args.push("--on-cluster".into());
    let workers = spec.workers.as_ref();
    let container = Container {
        args: Some(args),
        ports: Some(vec![port("rest", WORKER_REST_PORT)]),
        resources: Some(resources(workers.and_then(|workers| workers.resources.as_ref()), &WORKER_REQUESTS)),
        readiness_probe: Some(probe("/readyz", "rest", 3)),
        liveness_probe: Some(probe("/healthz", "rest", 10)),
        ..container(spec, revision.settings)
    };
    let overlay = workers.and_then(|workers| workers.pod_template.as_ref());
    template(revision, WORKER, container, overlay)
}

fn common_args(revision: &Revision) -> Vec<String> {
    let job = revision.job;
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    [
        ("--job", JOB_FILE.to_owned()),
        ("--checkpoints", checkpoint_directory(namespace, job_name(job))),
        ("--job-id", revision.job_id.to_owned()),
        ("--max-parallelism", revision.max_parallelism.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

fn template(
    revision: &Revision,
    component: &str,
    mut container: Container,
    overlay: Option<&Map<String, Value>>,
) -> PodTemplateSpec {
    let (job, spec) = (revision.job, revision.spec);
    let name = job_name(job);
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let mut env = vec![plain(TOKEN_FILE_VARIABLE, format!("{TOKEN_DIRECTORY}/{TOKEN_KEY}")), pod_ip()];
    env.extend(storage_env(spec));
    env.extend(secret_env(spec));
    container.env = Some(env);
    let mut volumes = Volumes::new(spec, name);
    volumes.add(
        Volume {
            name: JOB_VOLUME.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::config_map(name, revision.number),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        JOB_FILE_DIRECTORY,
        true,
    );
    volumes.add(
        Volume {
            name: TOKEN_VOLUME.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(names::token_secret(name, uid)),
                // Readable for the pod's group alone.
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        TOKEN_DIRECTORY,
        true,
    );
    container.volume_mounts = Some(volumes.mounts);
    let labels = meta::labels(name, Some(component), Some(revision.number));
    let base = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            containers: vec![container],
            volumes: Some(volumes.volumes),
            tolerations: Some(["not-ready", "unreachable"].map(toleration).into()),
            termination_grace_period_seconds: Some(10),
            ..pod(spec, names::service_account(name))
        }),
    };
    let needed = meta::labels(name, Some(component), Some(revision.number));
    finished(base, overlay, &needed)
}

/// The pod with the user's template over it. One that is no pod template is left out: such a spec is refused before
/// (see [`super::unsupported_on_kubernetes`]).
pub(super) fn finished(
    base: PodTemplateSpec,
    overlay: Option<&Map<String, Value>>,
    labels: &Labels,
) -> PodTemplateSpec {
    let Some(overlay) = overlay else { return base };
    let mut merged = overlay::merged(&base, overlay).unwrap_or(base);
    let metadata = merged.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(labels.clone());
    merged
}

/// What every pod has, whatever it does.
pub(super) fn pod(spec: &StreamJobSpec, service_account: String) -> PodSpec {
    let secrets: Vec<LocalObjectReference> =
        spec.image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect();
    PodSpec {
        service_account_name: Some(service_account),
        automount_service_account_token: Some(false),
        // Hundreds of variables in a namespace of hundreds of services, which nobody reads.
        enable_service_links: Some(false),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A volume with much state would be walked through at every start.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// The container, without what its role adds.
pub(super) fn container(spec: &StreamJobSpec, settings: &Settings) -> Container {
    let default_policy = if spec.image.is_none() { settings.image_pull_policy } else { None };
    Container {
        name: CONTAINER.into(),
        image: Some(spec.image.clone().unwrap_or_else(|| settings.engine_image.clone())),
        image_pull_policy: spec.image_pull_policy.or(default_policy).map(|policy| pull_policy(policy).to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        // A process that dies without a word of its own is explained by its last lines.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

/// Volumes of a pod and where its container sees them: the job's state and a place for temporary files at first.
pub(super) struct Volumes {
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
}

impl Volumes {
    pub fn new(spec: &StreamJobSpec, job: &str) -> Volumes {
        let mut volumes = Volumes { volumes: Vec::new(), mounts: Vec::new() };
        if let Some(state) = state_volume(spec, job) {
            volumes.add(state, STATE_MOUNT, false);
        }
        volumes.add(empty(TMP_VOLUME), "/tmp", false);
        volumes
    }

    pub fn add(&mut self, volume: Volume, path: &str, read_only: bool) {
        self.mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path.into(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
        self.volumes.push(volume);
    }
}

/// With a bucket there is none; a job that keeps no state writes its journal into the pod.
fn state_volume(spec: &StreamJobSpec, job: &str) -> Option<Volume> {
    let storage = spec.storage.as_ref();
    if storage.is_some_and(|storage| storage.s3.is_some()) {
        return None;
    }
    let Some(claim) = storage.and_then(|storage| storage.persistent_volume_claim.as_ref()) else {
        return Some(empty(STATE_VOLUME));
    };
    Some(Volume {
        name: STATE_VOLUME.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.claim_name.clone().unwrap_or_else(|| names::claim(job)),
            read_only: None,
        }),
        ..Volume::default()
    })
}

fn empty(name: &str) -> Volume {
    Volume { name: name.into(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn plain(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value), value_from: None }
}

fn pod_ip() -> EnvVar {
    let source = ObjectFieldSelector { api_version: Some("v1".into()), field_path: "status.podIP".into() };
    EnvVar {
        name: POD_IP_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(source), ..EnvVarSource::default() }),
    }
}

fn from_secret(variable: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: secret.into(), key: key.into(), optional: None };
    EnvVar {
        name: variable.into(),
        value: None,
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
    }
}

/// Credentials of the bucket. Without a secret the pod's identity has to do.
pub(super) fn storage_env(spec: &StreamJobSpec) -> Vec<EnvVar> {
    let s3 = spec.storage.as_ref().and_then(|storage| storage.s3.as_ref());
    let secret = s3.and_then(|s3| s3.credentials_secret.as_ref());
    secret.map_or_else(Vec::new, |secret| {
        S3_VARIABLES.iter().map(|variable| from_secret(variable, &secret.name, variable)).collect()
    })
}

/// The job's secret values. Plain ones stand in the job file.
fn secret_env(spec: &StreamJobSpec) -> Vec<EnvVar> {
    let secrets = spec.env.iter().filter_map(|variable| {
        let source = &variable.value_from.as_ref()?.secret_key_ref;
        Some(from_secret(&variable.name, &source.name, &source.key))
    });
    secrets.collect()
}

/// Names that `env` cannot give to a secret's value, since the pod needs them for something else.
pub(super) fn is_reserved_variable(name: &str, spec: &StreamJobSpec) -> bool {
    name == TOKEN_FILE_VARIABLE
        || name == POD_IP_VARIABLE
        || storage_env(spec).iter().any(|variable| variable.name == name)
}

/// What the user wrote; and for CPU and memory of which nothing is said, a small request.
pub(super) fn resources(written: Option<&Resources>, default_requests: &[(&str, &str)]) -> ResourceRequirements {
    let quantities = |quantities: &BTreeMap<String, streamjob_api::spec::Quantity>| -> BTreeMap<String, Quantity> {
        quantities.iter().map(|(name, quantity)| (name.clone(), Quantity(quantity_text(quantity)))).collect()
    };
    let mut requests = written.map(|written| quantities(&written.requests)).unwrap_or_default();
    let limits = written.map(|written| quantities(&written.limits)).unwrap_or_default();
    for (name, quantity) in default_requests {
        // A limit alone is a request of the same size.
        if !limits.contains_key(*name) {
            requests.entry((*name).to_owned()).or_insert_with(|| Quantity((*quantity).to_owned()));
        }
    }
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        ..ResourceRequirements::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort { name: Some(name.into()), container_port: number, ..ContainerPort::default() }
}

fn probe(path: &str, port: &str, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(port.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn toleration(condition: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{condition}")),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
        ..Toleration::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_are_small_where_nothing_is_said() {
        let table = [
            (json!(null), json!({ "requests": { "cpu": "100m", "memory": "256Mi" } })),
            (json!({}), json!({ "requests": { "cpu": "100m", "memory": "256Mi" } })),
            (json!({ "requests": { "cpu": 2 } }), json!({ "requests": { "cpu": "2", "memory": "256Mi" } })),
            (
                json!({ "limits": { "memory": "64Mi" } }),
                json!({ "requests": { "cpu": "100m" }, "limits": { "memory": "64Mi" } }),
            ),
            (
                json!({ "limits": { "cpu": "1", "memory": "1Gi" } }),
                json!({ "limits": { "cpu": "1", "memory": "1Gi" } }),
            ),
            (
                json!({ "requests": { "example.com/gpu": "1" }, "limits": { "example.com/gpu": "1" } }),
                json!({
                    "requests": { "cpu": "100m", "memory": "256Mi", "example.com/gpu": "1" },
                    "limits": { "example.com/gpu": "1" },
                }),
            ),
        ];
        for (written, expected) in table {
            let written: Option<Resources> = serde_json::from_value(written).unwrap();
            let found = serde_json::to_value(resources(written.as_ref(), &WORKER_REQUESTS)).unwrap();
            assert_eq!(found, expected, "{written:?}");
        }
    }

    #[test]
    fn the_operators_pull_policy_is_for_its_own_image() {
        let mut settings = super::super::tests::settings();
        settings.image_pull_policy = Some(ImagePullPolicy::Never);
        let pulled = |fields: Value| {
            let container = container(&spec(fields), &settings);
            (container.image.unwrap_or_default(), container.image_pull_policy)
        };
        assert_eq!(pulled(json!({})), (settings.engine_image.clone(), Some("Never".into())));
        assert_eq!(pulled(json!({ "image": "mine" })), ("mine".into(), None));
        let own = (settings.engine_image.clone(), Some("Always".into()));
        assert_eq!(pulled(json!({ "imagePullPolicy": "Always" })), own);
    }

    #[test]
    fn templates_change_no_selector() {
        let overlay = json!({ "metadata": { "labels": { meta::JOB: "other", meta::COMPONENT: null, "team": "a" } } });
        let labels = meta::labels("a", Some(WORKER), Some(1));
        let base = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
            spec: None,
        };
        let found = finished(base.clone(), overlay.as_object(), &labels).metadata.unwrap().labels.unwrap();
        let mut expected = labels.clone();
        expected.insert("team".into(), "a".into());
        assert_eq!(found, expected);
        // One that is no template changes nothing at all.
        assert_eq!(finished(base.clone(), json!({ "spec": { "x": 1 } }).as_object(), &labels), base);
    }
}
