//! Pods of a new job that cannot start: the first cause stands in a condition.

use crate::harness::{Manifest, Storage, Story, engine_image, is_true};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use serde_json::{Value, json};

/// A job that does not come up, the cause it shows, and a change after which it runs.
async fn shown(name: &str, cause: &str, quota: Option<Value>, change: impl Fn(Manifest) -> Manifest) {
    let story = Story::begin(name, Storage::Claim).await;
    if let Some(hard) = &quota {
        let quotas: Api<ResourceQuota> = story.api();
        let quota = json!({"metadata": {"name": "limit"}, "spec": {"hard": hard}});
        quotas.create(&Default::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    }
    let manifest = story.counting("counting");
    let job = story.apply(&change(manifest.clone())).await;
    job.cause(cause).await;
    assert!(!is_true(&job.get().await.unwrap(), "Ready"));
    if quota.is_some() {
        let quotas: Api<ResourceQuota> = story.api();
        quotas.delete("limit", &Default::default()).await.unwrap();
    } else {
        story.apply(&manifest).await;
    }
    job.ready().await;
    job.check_suspended().await;
    story.end().await;
}

#[tokio::test]
async fn image() {
    shown("d-image", "engine:missing", None, |manifest| manifest.set("/image", json!(engine_image("missing")))).await;
}

#[tokio::test]
async fn scheduling() {
    shown("d-schedule", "nsufficient memory", None, |manifest| {
        manifest.set("/coordinator/resources", json!({"requests": {"memory": "4000Gi"}}))
    })
    .await;
}

#[tokio::test]
async fn quota() {
    shown("d-quota", "exceeded quota", Some(json!({"pods": "1"})), |manifest| manifest).await;
}

#[tokio::test]
async fn crash_loop() {
    shown("d-crash", "no-such-argument", None, |manifest| {
        manifest.set("/workers/podTemplate/spec/containers/0/args", json!(["worker", "--no-such-argument"]))
    })
    .await;
}

#[tokio::test]
async fn out_of_memory() {
    shown("d-memory", "OOMKilled", None, |manifest| {
        let resources = json!({"requests": {"memory": "6Mi"}, "limits": {"memory": "6Mi"}});
        manifest.set("/coordinator/resources", resources)
    })
    .await;
}

#[tokio::test]
async fn secret() {
    shown("d-secret", "no-such-secret", None, |mut manifest| {
        let secret =
            json!({"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "password"}}});
        manifest.value["spec"]["env"].as_array_mut().unwrap().push(secret);
        manifest
    })
    .await;
}

#[tokio::test]
async fn program() {
    shown("d-program", "nonsense", None, |manifest| {
        manifest.sql("SELECT n FROM numbers WHERE n > 0", "SELECT nonsense FROM numbers")
    })
    .await;
}
