//! From creation to the end of a job that nothing disturbs.

use crate::harness::{Storage, Story, is_true, text};
use serde_json::json;

on_each_storage!(runs_and_finishes);

/// Running, Ready after the first checkpoint, Finished; and a finished job can be edited.
async fn runs_and_finishes(storage: Storage) {
    let story = Story::begin("runs", storage).await;
    let manifest = story.counting("counting").end(8_000);
    let job = story.apply(&manifest).await;
    let ready = job.ready().await;
    assert!(is_true(&ready, "SpecAccepted"), "{ready}");
    assert!(ready["status"]["lastCheckpoint"]["id"].as_i64().is_some_and(|id| id >= 1), "{ready}");
    assert_eq!(ready["status"]["currentRevision"], 1, "{ready}");
    assert_eq!(ready["status"]["parallelism"], 2, "{ready}");
    assert_eq!(text(&ready, "/status/guarantee"), "exactly-once", "{ready}");
    let finished = job.ended("Finished").await;
    assert!(!is_true(&finished, "Ready"), "{finished}");
    job.check_finished(8_000).await;

    // What changes no pod changes nothing.
    let before = job.identities().await;
    job.edit(json!({"deletion": {"deadline": "1m"}})).await;
    job.until("the edit is seen", |job| {
        (job["status"]["observedGeneration"] == job["metadata"]["generation"]).then_some(())
    })
    .await;
    assert_eq!(job.identities().await, before);
    assert_eq!(job.get().await.unwrap()["status"]["ended"]["state"], "Finished");

    // Another program runs, from its beginning: what had finished is not continued.
    let again = manifest.end(3_000).env("OUT", "/out/again").edited(1);
    story.apply(&again).await;
    job.until("another run", |job| (job["status"]["jobId"] != finished["status"]["jobId"]).then_some(())).await;
    job.ended("Finished").await;
    job.check_output("again", Some(3_000), true).await;
    story.end().await;
}

/// `kubectl wait`, as users and pipelines do it.
#[tokio::test]
async fn kubectl_waits_for_conditions() {
    let story = Story::begin("wait", Storage::Claim).await;
    let job = story.apply(&story.counting("counting")).await;
    crate::harness::command(
        "kubectl",
        &["wait", "-n", &story.namespace, "streamjob/counting", "--for=condition=Ready", "--timeout=120s"],
    )
    .await
    .expect("kubectl wait");
    let listed =
        crate::harness::command("kubectl", &["get", "sj", "-n", &story.namespace]).await.expect("kubectl get sj");
    assert!(listed.contains("counting") && listed.contains("Running"), "{listed}");
    job.delete().await;
    story.end().await;
}
