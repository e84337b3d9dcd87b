//! A job is deleted: what becomes of its files, and that it always goes.

use crate::harness::{Job, Storage, Story, eventually, text};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use std::collections::BTreeSet;

on_each_storage!(discarded, retained, saved, with_its_namespace, savepoint_cannot_be_taken);

async fn running<'a>(story: &'a Story, deletion: serde_json::Value) -> Job<'a> {
    let manifest = story
        .counting("counting")
        .set("/deletion", deletion)
        .set("/checkpoint/retention", json!("RetainOnCancellation"));
    let job = story.apply(&manifest).await;
    job.ready().await;
    job.another_checkpoint().await;
    job
}

/// Whether the claim that was made for the job is there.
async fn claim(story: &Story) -> bool {
    let claims: Api<PersistentVolumeClaim> = story.api();
    claims.get_opt("counting-state").await.expect("looking for the claim").is_some()
}

/// Nothing stays: no object of the job, no file.
async fn discarded(storage: Storage) {
    let story = Story::begin("discarded", storage).await;
    let job = running(&story, json!({"policy": "Discard"})).await;
    job.delete().await;
    job.no_pods().await;
    if storage == Storage::S3 {
        assert_eq!(story.stored("counting").await, Vec::<String>::new());
    } else {
        eventually("the claim goes", crate::harness::PATIENCE, || async {
            if claim(&story).await { Err("it is there".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    job.check_output("counting", None, false).await;
    story.end().await;
}

/// Checkpoints stay where the retention says so.
async fn retained(storage: Storage) {
    let story = Story::begin("retained", storage).await;
    let job = running(&story, json!({"policy": "Retain"})).await;
    job.delete().await;
    job.no_pods().await;
    let files = story.stored("counting").await;
    assert!(files.iter().any(|file| file.contains("/chk-") && file.ends_with("_metadata")), "{files:?}");
    story.end().await;
}

/// A last savepoint is taken and stays, and everything that it has counted is visible.
async fn saved(storage: Storage) {
    let story = Story::begin("saved", storage).await;
    let job = running(&story, json!({"policy": "Savepoint", "deadline": "1m"})).await;
    job.delete().await;
    job.no_pods().await;
    let files = story.stored("counting").await;
    assert!(files.iter().any(|file| file.contains("/savepoint-") && file.ends_with("_metadata")), "{files:?}");
    job.check_at_rest().await;
    story.end().await;
}

/// Where no savepoint can be taken the job goes after its deadline all the same, and its checkpoints stay.
async fn savepoint_cannot_be_taken(storage: Storage) {
    let story = Story::begin("unsaved", storage).await;
    let nowhere = match storage {
        Storage::Claim => "/proc/nowhere",
        Storage::S3 => "s3://no-such-bucket/savepoints",
    };
    let manifest = story
        .counting("counting")
        .set("/deletion", json!({"policy": "Savepoint", "deadline": "10s"}))
        .set("/checkpoint/retention", json!("RetainOnCancellation"))
        .set("/storage/savepointDir", json!(nowhere));
    let job = story.apply(&manifest).await;
    job.ready().await;
    job.another_checkpoint().await;
    job.delete().await;
    let files = story.stored("counting").await;
    assert!(files.iter().any(|file| file.contains("/chk-") && file.ends_with("_metadata")), "{files:?}");
    story.end().await;
}

/// Nothing new can be created in a namespace that goes: the job goes with it.
async fn with_its_namespace(storage: Storage) {
    let story = Story::begin("namespace", storage).await;
    let job = running(&story, json!({"policy": "Savepoint", "deadline": "20s"})).await;
    assert!(!job.pods().await.is_empty());
    let namespaces: Api<Namespace> = Api::all(story.cluster.client.clone());
    namespaces.delete(&story.namespace, &DeleteParams::default()).await.expect("deleting the namespace");
    eventually("the namespace is gone", crate::harness::PATIENCE, || async {
        match namespaces.get_opt(&story.namespace).await {
            Ok(None) => Ok(()),
            Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// A job that never came up can be deleted, whatever its policy.
#[tokio::test]
async fn of_a_job_that_never_ran() {
    let story = Story::begin("never-ran", Storage::Claim).await;
    for policy in ["Discard", "Retain", "Savepoint"] {
        let manifest = story
            .counting("counting")
            .set("/deletion", json!({"policy": policy, "deadline": "10s"}))
            .set("/image", json!(crate::harness::engine_image("missing")));
        let job = story.apply(&manifest).await;
        job.cause("engine:missing").await;
        job.delete().await;
    }
    story.end().await;
}

/// The coordinator dies in the same moment.
#[tokio::test]
async fn with_its_coordinator_gone() {
    let story = Story::begin("no-coord", Storage::Claim).await;
    let job = running(&story, json!({"policy": "Savepoint", "deadline": "1m"})).await;
    let coordinators = job.pods_of("coordinator").await;
    story.jobs().delete("counting", &DeleteParams::background()).await.expect("deleting the job");
    job.kill(&coordinators[0]).await;
    story.gone(&story.jobs(), "counting").await;
    job.no_pods().await;
    let files = story.stored("counting").await;
    assert!(files.iter().any(|file| file.contains("/savepoint-") || file.contains("/chk-")), "{files:?}");
    job.check_output("counting", None, false).await;
    story.end().await;
}

/// The operator dies in the same moment: its successor goes on with the deletion.
#[tokio::test]
async fn with_the_operator_gone() {
    let story = Story::alone("no-operator", Storage::Claim).await;
    let job = running(&story, json!({"policy": "Savepoint", "deadline": "1m"})).await;
    story.jobs().delete("counting", &DeleteParams::background()).await.expect("deleting the job");
    for pod in story.cluster.operators().await {
        story.cluster.kill_operator(&pod).await;
    }
    story.gone(&story.jobs(), "counting").await;
    job.no_pods().await;
    let files = story.stored("counting").await;
    assert!(files.iter().any(|file| file.contains("/savepoint-") && file.ends_with("_metadata")), "{files:?}");
    job.check_at_rest().await;
    story.end().await;
}

/// Without its object store a job can take no savepoint, but it runs on; and deleted, it goes after its deadline.
#[tokio::test]
async fn with_its_storage_gone() {
    let story = Story::alone("no-storage", Storage::S3).await;
    let job = running(&story, json!({"policy": "Savepoint", "deadline": "15s"})).await;
    let pods = async || job.identities().await.into_values().map(|(uid, _)| uid).collect::<BTreeSet<_>>();
    let before = pods().await;
    story.cluster.object_store(false).await;
    story.savepoint("lost", json!({"jobRef": {"name": "counting"}})).await;
    let lost = story.savepoint_in("lost", "Failed").await;
    assert!(text(&lost, "/conditions/0/message").contains("cannot be written"), "{lost}");
    assert_eq!(pods().await, before, "the same pods");
    job.delete().await;
    job.no_pods().await;
    story.cluster.object_store(true).await;
    job.check_output("counting", None, false).await;
    story.end().await;
}
