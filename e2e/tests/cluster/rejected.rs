//! A spec that cannot work changes nothing that runs, and its cause is shown.

use crate::harness::{Manifest, Storage, Story, engine_image, is_true};
use serde_json::json;

/// Applies a change that cannot work to a running job; its pods are untouched, the cause shows; then takes it back.
async fn refused(name: &str, cause: &str, change: impl Fn(Manifest) -> Manifest) {
    let story = Story::begin(name, Storage::Claim).await;
    let manifest = story.counting("counting");
    let job = story.apply(&manifest).await;
    job.ready().await;
    let before = job.identities().await;

    story.apply(&change(manifest.clone())).await;
    job.cause(cause).await;
    job.another_checkpoint().await;
    let during = job.identities().await;
    for (pod, identity) in &before {
        assert_eq!(during.get(pod), Some(identity), "{pod} was touched");
    }
    let running = job.get().await.unwrap();
    assert_eq!(running["status"]["currentRevision"], 1, "{running}");
    // It may come to work by itself (an image is pushed), or it cannot.
    let said = is_true(&running, "Stalled") || is_true(&running, "Reconciling");
    assert!(said, "the newest spec does not run, and that is said: {running}");

    story.apply(&manifest).await;
    job.ready().await;
    assert_eq!(job.single_revision().await, before, "the pods that ran are those that run");
    job.check_suspended().await;
    story.end().await;
}

#[tokio::test]
async fn broken_sql() {
    refused("broken-sql", "nonsense", |manifest| {
        manifest.sql("SELECT n FROM numbers WHERE n > 0", "SELECT nonsense FROM numbers")
    })
    .await;
}

#[tokio::test]
async fn incompatible_state() {
    refused("incompatible", "totals", |manifest| manifest.sql("SUM(n) AS total", "MAX(n) AS total")).await;
}

#[tokio::test]
async fn image_that_cannot_be_pulled() {
    refused("no-image", "engine:missing", |manifest| manifest.set("/image", json!(engine_image("missing")))).await;
}

#[tokio::test]
async fn missing_secret() {
    refused("no-secret", "no-such-secret", |manifest| {
        let secret =
            json!({"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "password"}}});
        let mut manifest = manifest.edited(1);
        manifest.value["spec"]["env"].as_array_mut().unwrap().push(secret);
        manifest
    })
    .await;
}

#[tokio::test]
async fn more_memory_than_any_node_has() {
    refused("too-big", "nsufficient memory", |manifest| {
        manifest.set("/workers/resources", json!({"requests": {"memory": "4000Gi"}}))
    })
    .await;
}
