//! Pods die, and the job goes on by its restart strategy with equal totals, or fails with the reason.

use crate::harness::{Job, Storage, Story, condition, is_true, text};
use serde_json::{Value, json};

on_each_storage!(worker_pod_dies, coordinator_pod_dies, all_pods_die, strategy_is_exhausted);

async fn running(story: &Story) -> Job<'_> {
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    job.another_checkpoint().await;
    job
}

async fn worker_pod_dies(storage: Storage) {
    let story = Story::begin("worker-dies", storage).await;
    let job = running(&story).await;
    let workers = job.pods_of("worker").await;
    assert_eq!(workers.len(), 2, "{workers:?}");
    job.kill(&workers[0]).await;
    let restarted = job.until("a restart is counted", restarted).await;
    assert_eq!(restarted["status"]["currentRevision"], 1, "a restart is no new revision: {restarted}");
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}

async fn coordinator_pod_dies(storage: Storage) {
    let story = Story::begin("coordinator-dies", storage).await;
    let job = running(&story).await;
    let coordinators = job.pods_of("coordinator").await;
    assert_eq!(coordinators.len(), 1, "{coordinators:?}");
    let workers = job.pods_of("worker").await;
    let before = job.identities().await;
    job.kill(&coordinators[0]).await;
    job.another_checkpoint().await;
    let after = job.identities().await;
    for worker in &workers {
        assert_eq!(after.get(worker), before.get(worker), "workers are taken over");
    }
    job.check_suspended().await;
    story.end().await;
}

async fn all_pods_die(storage: Storage) {
    let story = Story::begin("all-die", storage).await;
    let job = running(&story).await;
    for pod in job.pods_of("coordinator").await.into_iter().chain(job.pods_of("worker").await) {
        job.kill(&pod).await;
    }
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}

/// No restart is allowed: the job fails with the reason, keeps what its retention says, and can be started again from it.
async fn strategy_is_exhausted(storage: Storage) {
    let story = Story::begin("exhausted", storage).await;
    let manifest = story
        .counting("counting")
        .set("/restartStrategy", json!({"none": {}}))
        .set("/checkpoint/retention", json!("RetainOnCancellation"));
    let job = story.apply(&manifest).await;
    job.ready().await;
    job.another_checkpoint().await;
    let workers = job.pods_of("worker").await;
    job.kill(&workers[0]).await;
    let failed = job.ended("Failed").await;
    assert!(!text(&failed, "/status/ended/reason").is_empty(), "{failed}");
    assert!(!is_true(&failed, "Ready"), "{failed}");
    let ready = condition(&failed, "Ready").expect("the condition");
    assert!(!text(ready, "/message").is_empty(), "{failed}");
    let checkpoint = failed["status"]["lastCheckpoint"]["id"].as_i64().expect("a checkpoint");
    let kept = story.stored("counting").await;
    assert!(kept.iter().any(|name| name.contains(&format!("chk-{checkpoint}/"))), "chk-{checkpoint} is kept: {kept:?}");

    // An edit starts it again, with its state.
    story
        .apply(
            &manifest
                .clone()
                .set("/restartStrategy", json!({"fixedDelay": {"attempts": 100, "delay": "100ms"}}))
                .edited(1),
        )
        .await;
    job.ready().await;
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}

fn restarted(job: &Value) -> Option<Value> {
    (job["status"]["restarts"].as_i64().unwrap_or(0) >= 1).then(|| job.clone())
}
