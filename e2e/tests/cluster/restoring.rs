//! Jobs that begin with state that another one has left.

use crate::harness::{Manifest, Storage, Story, text};
use serde_json::json;

on_each_storage!(from_a_path_and_a_savepoint, from_what_a_deleted_job_left);

/// On a claim that outlives jobs, so that another job can read it.
async fn shared(story: &Story, name: &str) -> Manifest {
    let manifest = story.counting(name).env("OUT", "/out/counting");
    match story.storage {
        Storage::Claim => manifest.set("/storage/persistentVolumeClaim", json!({"claimName": "shared"})),
        Storage::S3 => manifest,
    }
}

async fn from_a_path_and_a_savepoint(storage: Storage) {
    let story = Story::begin("restore", storage).await;
    story.claim("shared").await;
    let first = story.apply(&shared(&story, "counting").await).await;
    first.ready().await;
    let suspended = first.suspend().await;
    let path = text(&suspended, "/status/lastSavepoint/path").to_owned();

    let second = story.apply(&shared(&story, "second").await.set("/restoreFrom", json!({"path": path}))).await;
    second.ready().await;
    second.another_checkpoint().await;
    let suspended = second.suspend().await;
    second.check_output("counting", None, true).await;

    let path = text(&suspended, "/status/lastSavepoint/path");
    story.savepoint("adopted", json!({"jobRef": {"name": "second"}, "path": path, "retain": true})).await;
    story.savepoint_in("adopted", "Completed").await;
    let from = json!({"savepointRef": {"name": "adopted"}});
    let third = story.apply(&shared(&story, "third").await.set("/restoreFrom", from)).await;
    third.ready().await;
    third.another_checkpoint().await;
    third.suspend().await;
    third.check_output("counting", None, true).await;
    story.end().await;
}

async fn from_what_a_deleted_job_left(storage: Storage) {
    let story = Story::begin("latest", storage).await;
    story.claim("shared").await;
    let manifest = shared(&story, "counting")
        .await
        .set("/deletion", json!({"policy": "Retain"}))
        .set("/checkpoint/retention", json!("RetainOnCancellation"));
    let job = story.apply(&manifest).await;
    job.ready().await;
    job.another_checkpoint().await;
    let before = job.get().await.unwrap();
    job.delete().await;
    let from = json!({"latestRetained": {"jobName": "counting"}});
    let job = story.apply(&manifest.set("/restoreFrom", from)).await;
    let ready = job.ready().await;
    assert_ne!(ready["status"]["jobId"], before["status"]["jobId"]);
    assert!(
        ready["status"]["lastCheckpoint"]["id"].as_i64() > before["status"]["lastCheckpoint"]["id"].as_i64(),
        "numbers of checkpoints go on: {ready}"
    );
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}
