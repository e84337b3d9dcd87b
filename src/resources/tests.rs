//! The objects of a corpus of jobs (`golden/*.job.yaml`): as they were, by the rules of Kubernetes, and by the engine's.

use super::*;
use crate::api::{Savepoint, savepoint::SavepointSpec};
use crate::settings::TokenKey;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use kube::Resource;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use streamjob_api::spec::{LocalReference, StreamJobSpec};

pub fn settings() -> Settings {
    Settings {
        engine_image: "registry.example/streamjob/engine:1".into(),
        image_pull_policy: None,
        token_key: TokenKey::new("key"),
    }
}

/// A spec with these fields over a program.
pub fn spec(fields: Value) -> StreamJobSpec {
    let mut spec = json!({ "program": { "sql": "INSERT INTO a SELECT b FROM c;" } });
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

pub fn job(name: &str, spec: StreamJobSpec) -> StreamJob {
    let mut job = StreamJob::new(name, spec);
    job.metadata.namespace = Some("shop".into());
    job.metadata.uid = Some("0a1b2c3d-0000-4000-8000-000000000001".into());
    job
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/resources/golden")
}

/// The corpus, by name.
fn corpus() -> BTreeMap<String, StreamJob> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let jobs: BTreeMap<String, StreamJob> = files
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".job.yaml")?.to_owned();
            let parsed = streamjob_api::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            Some((name, job(&parsed.metadata.name, parsed.spec)))
        })
        .collect();
    assert!(jobs.len() >= 7);
    jobs
}

struct Rendered {
    job: StreamJob,
    stored: StoredRevision,
}

impl Rendered {
    fn new(case: &str, job: StreamJob) -> Rendered {
        let longest = case == "longest-names";
        let stored = StoredRevision {
            number: if longest { 99_999 } else { 7 },
            spec: job.spec.clone(),
            job_id: "0a1b2c3d000040008000000000000001".into(),
            max_parallelism: job.spec.max_parallelism.unwrap_or_else(|| default_max_parallelism(job.spec.parallelism)),
            replaces: longest.then(|| "f".repeat(32)),
            restore_path: longest.then(|| "/streamjob/state/shop.other/savepoints/savepoint-0".into()),
        };
        Rendered { job, stored }
    }

    fn revision<'a>(&'a self, settings: &'a Settings) -> Revision<'a> {
        Revision {
            job: &self.job,
            spec: &self.stored.spec,
            number: self.stored.number,
            job_id: &self.stored.job_id,
            max_parallelism: self.stored.max_parallelism,
            replaces: self.stored.replaces.as_deref(),
            restore_path: self.stored.restore_path.as_deref(),
            settings,
        }
    }

    /// Everything that there can be of the job.
    fn children(&self) -> Vec<Child> {
        let settings = settings();
        let revision = self.revision(&settings);
        let mut children = shared_children(&self.job, Some(self.stored.number), &settings);
        children.push(Child::ControllerRevision(Box::new(controller_revision(&revision))));
        children.extend(revision_children(&revision));
        children.extend(self.dispose_pods().map(|pod| Child::Pod(Box::new(pod))));
        children
    }

    fn dispose_pods(&self) -> [Pod; 3] {
        let (settings, spec) = (settings(), &self.stored.spec);
        let reference = LocalReference { name: self.job.metadata.name.clone().unwrap() };
        let spec_of_savepoint =
            SavepointSpec { job_ref: reference, path: None, format: Default::default(), retain: false };
        let mut savepoint = Savepoint::new(&"s".repeat(253), spec_of_savepoint);
        savepoint.metadata.namespace = Some("shop".into());
        savepoint.metadata.uid = Some("0a1b2c3d-0000-4000-8000-000000000002".into());
        let path = format!("{}/savepoint-1", savepoint_directory(&self.job, spec));
        [
            job_dispose_pod(&self.job, spec, Disposal::All, &settings),
            job_dispose_pod(&self.job, spec, Disposal::Job(&self.stored.job_id), &settings),
            savepoint_dispose_pod(&savepoint, None, spec, &path, &settings),
        ]
    }

    fn templates(&self) -> [PodTemplateSpec; 2] {
        let settings = settings();
        let revision = self.revision(&settings);
        [pods::coordinator_template(&revision), pods::worker_template(&revision)]
    }

    fn job_file(&self) -> String {
        job_file::render(&self.revision(&settings()))
    }
}

fn all() -> Vec<(String, Rendered)> {
    corpus().into_iter().map(|(case, job)| (case.clone(), Rendered::new(&case, job))).collect()
}

#[test]
fn golden() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    for (case, rendered) in all() {
        let path = folder().join(format!("{case}.objects.json"));
        let text = format!("{:#}\n", serde_json::to_value(rendered.children()).unwrap());
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((line, (was, is))) = before.lines().zip(text.lines()).enumerate().find(|(_, (was, is))| was != is) {
            changed.push(format!("{}, line {}:\n  was {}\n  is  {}", path.display(), line + 1, was.trim(), is.trim()));
        } else if before != text {
            changed.push(format!("{}: there is more or less of it", path.display()));
        }
    }
    assert!(
        changed.is_empty(),
        "Objects of jobs would come out differently:\n{}\n\
         Pods of running revisions stay as they are, since an operator never changes them; new revisions get what is\n\
         rendered now, and an object that was deleted comes back like that. Services, config maps and the other objects\n\
         without pods may change at the upgrade of the operator. If this is meant, run the test with UPDATE_GOLDEN=1 and\n\
         say in the commit what users will see.",
        changed.join("\n")
    );
}

#[test]
fn the_engine_reads_the_job_files() {
    for (case, rendered) in all() {
        let text = rendered.job_file();
        let parsed = streamjob_api::parse(&text).unwrap_or_else(|error| panic!("{case}: {error}\n{text}"));
        assert_eq!(parsed.spec.program, rendered.job.spec.program, "{case}");
        assert_eq!(parsed.spec.env, rendered.job.spec.env, "{case}");
        assert_eq!(parsed.spec.parallelism, rendered.job.spec.parallelism, "{case}");
        assert_eq!(parsed.spec.checkpoint, rendered.job.spec.checkpoint, "{case}");
        assert_eq!(parsed.spec.restart_strategy, rendered.job.spec.restart_strategy, "{case}");
        let ignored = ["spec.image", "spec.upgrade", "spec.savepoints", "spec.deletion", "spec.workers.podTemplate"];
        let named = streamjob_api::ignored_locally(&parsed);
        assert!(!named.iter().any(|field| ignored.contains(field)), "{case}: {named:?}");
        for pod in rendered.dispose_pods() {
            let text = &pod.metadata.annotations.unwrap()["streamjob.dev/job-file"];
            let parsed = streamjob_api::parse(text).unwrap_or_else(|error| panic!("{case}: {error}\n{text}"));
            let place = streamjob_api::storage_of(&parsed, "/data");
            assert_eq!(place, streamjob_api::storage_of(&streamjob_api::parse(&rendered.job_file()).unwrap(), "/data"));
        }
    }
}

/// The restricted profile of the Pod Security Standards, as far as a pod can break it.
fn breaks_restricted(pod: &PodSpec) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    for (on, what) in [(pod.host_network, "hostNetwork"), (pod.host_pid, "hostPID"), (pod.host_ipc, "hostIPC")] {
        rule(on != Some(true), what.into());
    }
    let of_pod = pod.security_context.clone().unwrap_or_default();
    rule(of_pod.sysctls.is_none(), "sysctls".into());
    for volume in pod.volumes.iter().flatten() {
        let known = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.empty_dir.is_some()
            || volume.downward_api.is_some()
            || volume.persistent_volume_claim.is_some()
            || volume.ephemeral.is_some();
        rule(known && volume.host_path.is_none(), format!("volume {}", volume.name));
    }
    let seccomp_of_pod = of_pod.seccomp_profile.map(|profile| profile.type_);
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        let of_container = container.security_context.clone().unwrap_or_default();
        let mut rule = |holds: bool, what: &str| rule(holds, format!("{} of {}", what, container.name));
        rule(of_container.privileged != Some(true), "privileged");
        rule(of_container.allow_privilege_escalation == Some(false), "allowPrivilegeEscalation");
        rule(of_container.run_as_non_root.or(of_pod.run_as_non_root) == Some(true), "runAsNonRoot");
        rule(of_container.run_as_user.or(of_pod.run_as_user) != Some(0), "runAsUser");
        let seccomp = of_container.seccomp_profile.map(|profile| profile.type_).or(seccomp_of_pod.clone());
        rule(matches!(seccomp.as_deref(), Some("RuntimeDefault" | "Localhost")), "seccompProfile");
        let capabilities = of_container.capabilities.unwrap_or_default();
        rule(capabilities.drop.unwrap_or_default().contains(&"ALL".into()), "capabilities");
        rule(capabilities.add.unwrap_or_default().iter().all(|added| added == "NET_BIND_SERVICE"), "capabilities");
        rule(container.ports.iter().flatten().all(|port| port.host_port.unwrap_or(0) == 0), "hostPort");
    }
    broken
}

#[test]
fn pods_are_restricted() {
    for (case, rendered) in all() {
        // Containers that users add are theirs to restrict.
        let foreign: &[&str] = if case == "pod-templates" { &["of proxy", "of wait"] } else { &[] };
        let templates = rendered.templates().map(|template| template.spec.unwrap());
        let pods = rendered.dispose_pods().map(|pod| pod.spec.unwrap());
        for pod in templates.into_iter().chain(pods) {
            let mut broken = breaks_restricted(&pod);
            broken.retain(|what| !foreign.iter().any(|container| what.ends_with(container)));
            assert_eq!(broken, Vec::<String>::new(), "{case}");
            assert_eq!(pod.automount_service_account_token, Some(false), "{case}");
            let ours = pod.containers.iter().find(|container| container.name == CONTAINER).unwrap();
            let context = ours.security_context.as_ref().unwrap();
            assert_eq!(context.read_only_root_filesystem, Some(true), "{case}");
            assert!(ours.resources.as_ref().unwrap().requests.is_some() || case == "claim-existing", "{case}");
        }
    }
    let privileged = json!({ "hostNetwork": true, "containers": [{ "name": "a" }], "volumes": [{ "name": "h", "hostPath": { "path": "/" } }] });
    let broken = breaks_restricted(&serde_json::from_value(privileged).unwrap());
    assert_eq!(broken.len(), 6, "{broken:?}");
}

#[test]
fn names_and_labels_fit() {
    let label = |text: &str| {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    for (case, rendered) in all() {
        let mut seen = Vec::new();
        for child in rendered.children() {
            let object = serde_json::to_value(&child).unwrap();
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap();
            assert!(label(name) && !name.contains('.'), "{case}: {name}");
            assert_eq!(metadata["namespace"], "shop", "{case}: {name}");
            let labels = metadata["labels"].as_object().unwrap();
            let of_pods = object.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
            for (key, value) in labels.iter().chain(of_pods.into_iter().flatten()) {
                assert!(label(value.as_str().unwrap()), "{case}: {name}: {key}={value}");
            }
            assert_eq!(labels[JOB], rendered.job.metadata.name.clone().unwrap(), "{case}: {name}");
            assert_eq!(labels[MANAGED_BY], OPERATOR, "{case}: {name}");
            match object["kind"].as_str().unwrap() {
                // Its pods carry the name with "-", and a hash of at most ten characters, as a label.
                "StatefulSet" => assert!(name.len() + 11 <= 63, "{case}: {name}"),
                "Deployment" => assert!(name.len() + 11 <= 63, "{case}: {name}"),
                _ => {}
            }
            // What selects finds the pods that are made.
            if let Some(wanted) = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object)
                && let Some(of_pods) = of_pods
            {
                assert!(wanted.iter().all(|(key, value)| of_pods.get(key) == Some(value)), "{case}: {name}");
            }
            seen.push(format!("{} {name}", object["kind"].as_str().unwrap()));
        }
        let job_pods = seen
            .iter()
            .filter(|name| **name == format!("Pod {}-dispose", rendered.job.metadata.name.as_deref().unwrap()))
            .count();
        assert_eq!(job_pods, 2, "{case}");
        let before = seen.len() - 1;
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), before, "{case}: {seen:?}");
    }
    assert_eq!(corpus()["longest-names"].metadata.name.as_ref().unwrap().len(), names::LONGEST_JOB_NAME);
}

#[test]
fn owners() {
    for (case, rendered) in all() {
        for child in rendered.children() {
            let object = serde_json::to_value(&child).unwrap();
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            if object["kind"] == "PersistentVolumeClaim" && case != "claim-template" {
                assert_eq!(owners, None, "{case}: the state outlives the job");
                continue;
            }
            let owners = owners.unwrap();
            assert_eq!((owners.len(), &owners[0]["controller"]), (1, &json!(true)), "{case}");
            let of_savepoint = owners[0]["kind"] == Savepoint::kind(&()).as_ref();
            assert_eq!(of_savepoint, object["metadata"]["labels"].get(SAVEPOINT).is_some(), "{case}");
        }
    }
}

#[test]
fn stored_revisions_give_the_same_objects() {
    for (case, rendered) in all() {
        let stored = controller_revision(&rendered.revision(&settings()));
        // As the API server gives it back.
        let stored = serde_json::from_value(serde_json::to_value(&stored).unwrap()).unwrap();
        let read = read_revision(&stored).unwrap();
        assert_eq!(read, rendered.stored, "{case}");
        let again = Rendered { job: rendered.job.clone(), stored: read };
        assert_eq!(again.children(), rendered.children(), "{case}");
    }
    let mut strange = controller_revision(&Rendered::new("", job("a", spec(json!({})))).revision(&settings()));
    strange.data = None;
    assert_eq!(read_revision(&strange).unwrap_err(), "ControllerRevision a-7 has no data; delete it");
}

#[test]
fn secrets_are_references() {
    for (case, rendered) in all() {
        for template in rendered.templates() {
            let ours = &template.spec.unwrap().containers[0];
            let env = ours.env.as_deref().unwrap_or_default();
            let names: Vec<&str> = env
                .iter()
                .filter(|variable| variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some()))
                .map(|variable| variable.name.as_str())
                .collect();
            let expected: &[&str] = match case.as_str() {
                "claim-template" => &["PASSWORD"],
                "s3-secret" => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
                _ => &[],
            };
            assert_eq!(names, expected, "{case}");
        }
        assert!(!rendered.job_file().contains("credentialsSecret"), "{case}");
    }
}
