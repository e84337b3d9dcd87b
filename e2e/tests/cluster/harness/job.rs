//! One job: what its status says, its pods, and what is done to it.

use super::{PATIENCE, Story, command};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Job<'a> {
    pub story: &'a Story,
    pub name: String,
}

/// A condition of a job's or savepoint's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Whether a condition is true for the newest spec.
pub fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| {
        condition["status"] == "True" && condition["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// A text below a value, empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl<'a> Job<'a> {
    pub fn of(story: &'a Story, name: &str) -> Job<'a> {
        Job { story, name: name.into() }
    }

    pub async fn get(&self) -> Result<Value, String> {
        let object: DynamicObject = self.story.jobs().get(&self.name).await.map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(&object).expect("JSON"))
    }

    /// Waits until the job is such that `probe` yields something.
    pub async fn until<T>(&self, what: &str, probe: impl FnMut(&Value) -> Option<T>) -> T {
        self.until_within(PATIENCE, what, probe).await
    }

    pub async fn until_within<T>(&self, patience: Duration, what: &str, probe: impl FnMut(&Value) -> Option<T>) -> T {
        let probe = std::cell::RefCell::new(probe);
        super::eventually(&format!("{}: {what}", self.name), patience, || async {
            let job = self.get().await?;
            (*probe.borrow_mut())(&job).ok_or_else(|| job["status"].to_string())
        })
        .await
    }

    /// Waits until the newest spec runs and has a checkpoint, and nothing is under way.
    pub async fn ready(&self) -> Value {
        self.until("the newest spec runs and is ready", |job| {
            let settled = job["status"]["operation"].is_null()
                && job["status"]["observedGeneration"] == job["metadata"]["generation"];
            (settled && is_true(job, "Ready") && !is_true(job, "Stalled")).then(|| job.clone())
        })
        .await
    }

    /// Waits until the job ended this way.
    pub async fn ended(&self, state: &str) -> Value {
        self.until(&format!("it ends as {state}"), |job| {
            (job["status"]["ended"]["state"] == state && job["status"]["operation"].is_null()).then(|| job.clone())
        })
        .await
    }

    /// Number of the newest complete checkpoint, or of the restore point if it is newer. The coordinator says it itself: the status
    /// of a job that runs along follows only now and then.
    pub async fn newest_checkpoint(&self) -> Result<i64, String> {
        let status = self.engine("/v1/status").await?;
        let restored = status["restore_point"]["checkpoint"].as_i64().unwrap_or(0);
        Ok(status["checkpoints"]["last_id"].as_i64().unwrap_or(0).max(restored))
    }

    /// Waits until a checkpoint with a higher number than the newest one of now is complete.
    pub async fn another_checkpoint(&self) -> i64 {
        let what = format!("{}: the newest checkpoint", self.name);
        let before = super::eventually(&what, PATIENCE, || self.newest_checkpoint()).await;
        super::eventually(&format!("{}: a checkpoint after {before}", self.name), PATIENCE, || async {
            let newest = self.newest_checkpoint().await?;
            if newest > before { Ok(newest) } else { Err(newest.to_string()) }
        })
        .await
    }

    /// Changes fields of the spec; null takes one away.
    pub async fn edit(&self, spec: Value) {
        let patch = json!({"spec": spec});
        self.story
            .jobs()
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap_or_else(|error| panic!("editing {}: {error}", self.name));
    }

    /// Stops the job with a savepoint and waits until it has.
    pub async fn suspend(&self) -> Value {
        self.edit(json!({"state": "Suspended"})).await;
        self.until("it is suspended", |job| {
            let settled = job["status"]["operation"].is_null()
                && job["status"]["observedGeneration"] == job["metadata"]["generation"];
            (settled && job["status"]["state"] == "Suspended").then(|| job.clone())
        })
        .await
    }

    /// Waits until the message of some condition has this in it, says how long that took, and returns the condition.
    pub async fn cause(&self, part: &str) -> Value {
        let begun = Instant::now();
        let found = self
            .until(&format!("a condition says '{part}'"), |job| {
                let conditions = job["status"]["conditions"].as_array()?;
                conditions.iter().find(|condition| text(condition, "/message").contains(part)).cloned()
            })
            .await;
        println!(
            "{}: '{part}' after {:.1} s: {} {}",
            self.story.namespace,
            begun.elapsed().as_secs_f64(),
            text(&found, "/type"),
            text(&found, "/reason")
        );
        found
    }

    /// Waits until no pod of the job is left.
    pub async fn no_pods(&self) {
        super::eventually(&format!("{}: no pods", self.name), PATIENCE, || async {
            let pods = self.pods().await;
            if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
        })
        .await
    }

    /// `kubectl scale`.
    pub async fn scale(&self, parallelism: u32) {
        let replicas = format!("--replicas={parallelism}");
        command("kubectl", &["scale", "-n", &self.story.namespace, "streamjob", &self.name, &replicas])
            .await
            .expect("kubectl scale");
    }

    /// Pods of the job: coordinators and workers of all revisions.
    pub async fn pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = self.story.api();
        let selector = ListParams::default().labels(&format!("streamjob.dev/job={}", self.name));
        pods.list(&selector).await.expect("listing pods").items
    }

    /// The node of each pod that is not on its way out.
    pub async fn nodes(&self) -> BTreeMap<String, String> {
        self.pods()
            .await
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| Some((pod.metadata.name?, pod.spec?.node_name?)))
            .collect()
    }

    /// Names of the pods that play this part, `coordinator` or `worker`, and are not on their way out.
    pub async fn pods_of(&self, component: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .pods()
            .await
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| {
                let labels = pod.metadata.labels.as_ref();
                labels.and_then(|labels| labels.get("app.kubernetes.io/component")).is_some_and(|it| it == component)
            })
            .filter_map(|pod| pod.metadata.name)
            .collect();
        names.sort();
        names
    }

    /// Unique ids of all pods by name, with the restarts of their containers: equal means that nothing was touched.
    pub async fn identities(&self) -> BTreeMap<String, (String, i32)> {
        self.pods()
            .await
            .into_iter()
            .map(|pod| {
                let restarts = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
                let restarts = restarts.map(|status| status.restart_count).sum();
                (pod.metadata.name.unwrap_or_default(), (pod.metadata.uid.unwrap_or_default(), restarts))
            })
            .collect()
    }

    /// Waits until only pods of one revision are there, and returns them.
    pub async fn single_revision(&self) -> BTreeMap<String, (String, i32)> {
        super::eventually(&format!("{}: pods of one revision alone", self.name), PATIENCE, || async {
            let revisions: std::collections::BTreeSet<String> = self
                .pods()
                .await
                .iter()
                .filter_map(|pod| pod.metadata.labels.as_ref()?.get("streamjob.dev/revision").cloned())
                .collect();
            if revisions.len() == 1 { Ok(()) } else { Err(format!("revisions {revisions:?}")) }
        })
        .await;
        self.identities().await
    }

    /// Deletes a pod without waiting for its node, as when it dies.
    pub async fn kill(&self, pod: &str) {
        let pods: Api<Pod> = self.story.api();
        pods.delete(pod, &DeleteParams::default().grace_period(0)).await.expect("deleting a pod");
    }

    /// What the coordinator says, through the API server.
    pub async fn engine(&self, path: &str) -> Result<Value, String> {
        let path = format!("/api/v1/namespaces/{}/services/{}:8081/proxy{path}", self.story.namespace, self.name);
        let answer = command("kubectl", &["get", "--raw", &path]).await?;
        serde_json::from_str(&answer).map_err(|error| format!("{answer}: {error}"))
    }

    /// The operations that are over, newest first, as `kind result`.
    pub async fn history(&self) -> Vec<String> {
        let job = self.get().await.expect("the job");
        let entries = job["status"]["history"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", text(entry, "/kind"), text(entry, "/result"))).collect()
    }

    /// Deletes the job and waits until it is gone.
    pub async fn delete(&self) {
        self.story.delete(&self.story.jobs(), &self.name).await;
    }
}
