//! Savepoints as resources: on demand, adopted, by schedule; deleted with their files and no job running.

use crate::harness::{Storage, Story, eventually, text};
use serde_json::json;
use std::time::Duration;

on_each_storage!(on_demand_adopted_and_deleted);

async fn on_demand_adopted_and_deleted(storage: Storage) {
    let story = Story::begin("savepoints", storage).await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let before = job.identities().await;

    story.savepoint("first", json!({"jobRef": {"name": "counting"}})).await;
    let first = story.savepoint_in("first", "Completed").await;
    assert!(first["checkpointId"].as_i64().is_some_and(|id| id > 0), "{first}");
    assert!(first["sizeBytes"].as_i64().is_some_and(|size| size > 0), "{first}");
    story.savepoint("kept", json!({"jobRef": {"name": "counting"}, "retain": true})).await;
    let kept = story.savepoint_in("kept", "Completed").await;
    assert_eq!(job.identities().await, before, "a savepoint disturbs nothing");
    let shown = job.get().await.unwrap();
    assert_eq!(text(&shown, "/status/lastSavepoint/path"), text(&kept, "/path"), "{shown}");
    // One that was taken by hand, or by another job, becomes a resource.
    let suspended = job.suspend().await;
    let path = text(&suspended, "/status/lastSavepoint/path");
    story.savepoint("adopted", json!({"jobRef": {"name": "counting"}, "path": path})).await;
    let adopted = story.savepoint_in("adopted", "Completed").await;
    assert_eq!(text(&adopted, "/path"), path);

    job.no_pods().await;
    for (name, status, stays) in [("first", &first, false), ("kept", &kept, true)] {
        let directory = text(status, "/path").rsplit('/').next().expect("a directory").to_owned();
        assert!(story.stored("counting").await.iter().any(|file| file.contains(&directory)), "{directory} is there");
        story.delete(&story.savepoints(), name).await;
        let files = story.stored("counting").await;
        assert_eq!(files.iter().any(|file| file.contains(&directory)), stays, "{name}: {files:?}");
    }
    job.edit(json!({"state": "Running"})).await;
    job.ready().await;
    job.check_suspended().await;
    story.end().await;
}

/// A savepoint that names no job waits and says so; it can be deleted.
#[tokio::test]
async fn without_a_job() {
    let story = Story::begin("no-job", Storage::Claim).await;
    story.savepoint("early", json!({"jobRef": {"name": "counting"}})).await;
    let early = story.savepoint_in("early", "Pending").await;
    assert!(early.to_string().contains("counting"), "{early}");
    story.savepoint("orphan", json!({"jobRef": {"name": "nobody"}})).await;
    story.savepoint_in("orphan", "Pending").await;
    story.delete(&story.savepoints(), "orphan").await;
    // The job comes later.
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    story.savepoint_in("early", "Completed").await;
    story.end().await;
}

/// Each minute one; of three the oldest goes.
#[tokio::test]
async fn by_schedule() {
    let story = Story::begin("schedule", Storage::Claim).await;
    let manifest =
        story.counting("counting").set("/savepoints", json!({"schedule": "* * * * *", "retain": {"count": 1}}));
    let job = story.apply(&manifest).await;
    job.ready().await;
    let api = story.savepoints();
    let completed = || async {
        let listed = api.list(&Default::default()).await.map_err(|error| error.to_string())?.items;
        let mut names: Vec<String> = listed
            .into_iter()
            .filter(|savepoint| savepoint.data["status"]["phase"] == "Completed")
            .filter(|savepoint| savepoint.metadata.deletion_timestamp.is_none())
            .filter_map(|savepoint| savepoint.metadata.name)
            .collect();
        names.sort();
        Ok::<_, String>(names)
    };
    let first = eventually("a first savepoint by schedule", Duration::from_secs(150), || async {
        let names = completed().await?;
        names.first().cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    eventually("a second one, and the first is gone", Duration::from_secs(150), || async {
        let names = completed().await?;
        if names.len() == 1 && names[0] != first { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    job.check_suspended().await;
    story.end().await;
}
