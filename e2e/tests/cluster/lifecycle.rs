//! From creation to the end of a job that nothing disturbs.

use crate::harness::{Storage, Story, is_true, text};

#[tokio::test]
async fn a_job_runs_and_is_ready_after_its_first_checkpoint_on_a_claim() {
    runs(Storage::Claim).await;
}

#[tokio::test]
async fn a_job_runs_and_is_ready_after_its_first_checkpoint_on_s3() {
    runs(Storage::S3).await;
}

async fn runs(storage: Storage) {
    let story = Story::begin("runs", storage).await;
    let job = story.apply(&story.counting("counting").end(10_000)).await;
    let ready = job.ready().await;
    assert!(is_true(&ready, "SpecAccepted"), "{ready}");
    assert!(ready["status"]["lastCheckpoint"]["id"].as_i64().is_some_and(|id| id >= 1), "{ready}");
    assert_eq!(ready["status"]["currentRevision"], 1);
    assert_eq!(ready["status"]["parallelism"], 2);
    assert_eq!(text(&ready, "/status/guarantee"), "exactly-once");
    job.ended("Finished").await;
    job.check_finished(10_000).await;
    story.end().await;
}
