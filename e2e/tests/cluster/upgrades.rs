//! Changes of a running job: program, image, parallelism, options; suspended and resumed.

use crate::harness::{Job, Manifest, Storage, Story, engine_image, is_true, text};
use serde_json::{Value, json};

on_each_storage!(
    by_savepoint,
    by_last_checkpoint,
    stateless,
    parallelism,
    suspended_and_resumed,
    rolled_back,
    savepoint_fails_and_the_job_runs_on,
    savepoint_fails_and_the_last_checkpoint_does,
);

async fn running<'a>(story: &'a Story, manifest: &Manifest) -> Job<'a> {
    let job = story.apply(manifest).await;
    job.ready().await;
    job
}

fn newest(job: &Value) -> &Value {
    &job["status"]["history"][0]
}

fn number(job: &Value, field: &str) -> i64 {
    job["status"][field].as_i64().unwrap_or_else(|| panic!("no {field} in {job}"))
}

/// The newest operation is this one, done, on the next revision, and the job has kept its identity.
fn assert_done(job: &Value, kind: &str, revision: i64) {
    assert_eq!(text(newest(job), "/kind"), kind, "{job}");
    assert_eq!(text(newest(job), "/result"), "Succeeded", "{job}");
    assert_eq!(number(job, "currentRevision"), revision, "{job}");
}

/// Another program, another image, and a start for its own sake, each through a savepoint.
async fn by_savepoint(storage: Storage) {
    let story = Story::begin("savepoint", storage).await;
    let manifest = story.counting("counting");
    let job = running(&story, &manifest).await;
    let started = job.get().await.unwrap();

    story.apply(&manifest.clone().edited(1)).await;
    let upgraded = job.ready().await;
    assert_done(&upgraded, "Upgrade", 2);
    assert_eq!(newest(&upgraded)["restorePoint"]["savepoint"], true, "{upgraded}");
    assert_eq!(upgraded["status"]["jobId"], started["status"]["jobId"]);
    assert!(upgraded["status"]["lastCheckpoint"]["id"].as_i64() > started["status"]["lastCheckpoint"]["id"].as_i64());
    job.single_revision().await;

    story.apply(&manifest.clone().edited(1).set("/image", json!(engine_image("next")))).await;
    let upgraded = job.ready().await;
    assert_done(&upgraded, "Upgrade", 3);
    job.single_revision().await;
    for pod in job.pods().await {
        let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
        assert_eq!(image, Some(engine_image("next")));
    }

    job.edit(json!({"restartNonce": 1})).await;
    let restarted = job.ready().await;
    assert_done(&restarted, "Restart", 4);
    job.check_so_far().await;
    job.check_suspended().await;
    story.end().await;
}

async fn by_last_checkpoint(storage: Storage) {
    let story = Story::begin("last-checkpoint", storage).await;
    let manifest = story.counting("counting").set("/upgrade", json!({"mode": "LastCheckpoint"}));
    let job = running(&story, &manifest).await;
    story.apply(&manifest.edited(1)).await;
    let upgraded = job.ready().await;
    assert_done(&upgraded, "Upgrade", 2);
    assert!(upgraded["status"]["lastSavepoint"].is_null(), "{upgraded}");
    job.single_revision().await;
    job.check_suspended().await;
    story.end().await;
}

/// Nothing is taken over: another job, which begins with the first number.
async fn stateless(storage: Storage) {
    let story = Story::begin("stateless", storage).await;
    let manifest = story.counting("counting").set("/upgrade", json!({"mode": "Stateless"}));
    let job = running(&story, &manifest).await;
    let before = job.get().await.unwrap();
    story.apply(&manifest.edited(1).env("OUT", "/out/second")).await;
    let upgraded = job.ready().await;
    assert_done(&upgraded, "Upgrade", 2);
    assert_ne!(upgraded["status"]["jobId"], before["status"]["jobId"]);
    job.single_revision().await;
    job.suspend().await;
    job.check_output("counting", None, false).await;
    job.check_output("second", None, true).await;
    story.end().await;
}

/// By an edit, and by `kubectl scale` up and down.
async fn parallelism(storage: Storage) {
    let story = Story::begin("parallelism", storage).await;
    let manifest = story.counting("counting");
    let job = running(&story, &manifest).await;
    job.edit(json!({"parallelism": 3})).await;
    let rescaled = job.ready().await;
    assert_done(&rescaled, "Rescale", 2);
    assert_eq!(number(&rescaled, "parallelism"), 3);
    job.single_revision().await;
    assert_eq!(job.pods_of("worker").await.len(), 3);
    job.another_checkpoint().await;
    job.scale(1).await;
    let rescaled = job.ready().await;
    assert_eq!(number(&rescaled, "parallelism"), 1);
    assert_done(&rescaled, "Rescale", 3);
    job.single_revision().await;
    assert_eq!(job.pods_of("worker").await.len(), 1);
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}

/// Suspended, no pods are left and nothing moves; resumed, also with another program, it goes on where it was.
async fn suspended_and_resumed(storage: Storage) {
    let story = Story::begin("suspended", storage).await;
    let manifest = story.counting("counting");
    let job = running(&story, &manifest).await;
    let suspended = job.suspend().await;
    assert!(!is_true(&suspended, "Ready"), "{suspended}");
    assert_eq!(suspended["status"]["lastSavepoint"]["savepoint"], true, "{suspended}");
    job.no_pods().await;
    job.check_at_rest().await;
    let numbers = job.numbers().await;
    job.edit(json!({"state": "Running"})).await;
    let resumed = job.ready().await;
    assert_eq!(text(newest(&resumed), "/kind"), "Resume", "{resumed}");
    job.another_checkpoint().await;
    assert!(job.numbers().await > numbers);
    job.suspend().await;
    story.apply(&manifest.edited(1).set("/state", json!("Running"))).await;
    job.ready().await;
    job.another_checkpoint().await;
    job.check_suspended().await;
    story.end().await;
}

/// A revision that does not become stable is replaced by the one before it, which has lost nothing.
async fn rolled_back(storage: Storage) {
    let story = Story::begin("rollback", storage).await;
    let rollback = json!({"rollback": {"enabled": true, "stableAfterCheckpoints": 2, "deadline": "15s"}});
    let manifest = story.counting("counting").set("/upgrade", rollback);
    let job = running(&story, &manifest).await;
    job.until("the first revision is stable", |job| (job["status"]["stableRevision"] == 1).then_some(())).await;
    // Nothing can be written there, which shows when the job runs and not before.
    story.apply(&manifest.clone().env("OUT", "/nowhere")).await;
    let back = job
        .until("it was rolled back", |job| {
            (text(newest(job), "/kind") == "Rollback" && text(newest(job), "/result") == "Succeeded")
                .then(|| job.clone())
        })
        .await;
    assert!(number(&back, "currentRevision") >= 3, "{back}");
    let stalled = crate::harness::condition(&back, "Stalled").expect("a condition that says so");
    assert_eq!((text(stalled, "/status"), text(stalled, "/reason")), ("True", "RolledBack"), "{back}");
    job.another_checkpoint().await;
    job.single_revision().await;
    // A spec that works ends it.
    story.apply(&manifest.edited(1)).await;
    let repaired = job.ready().await;
    assert!(is_true(&repaired, "SpecAccepted"), "{repaired}");
    job.check_suspended().await;
    story.end().await;
}

/// A directory that cannot be written to.
fn nowhere(storage: Storage) -> Value {
    match storage {
        Storage::Claim => json!("/proc/nowhere"),
        Storage::S3 => json!("s3://no-such-bucket/savepoints"),
    }
}

async fn savepoint_fails_and_the_job_runs_on(storage: Storage) {
    let story = Story::begin("abort", storage).await;
    let manifest = story.counting("counting").set("/upgrade", json!({"attempts": 2, "savepointTimeout": "20s"}));
    let broken = manifest.clone().set("/storage/savepointDir", nowhere(storage));
    let job = running(&story, &broken).await;
    let before = job.identities().await;
    story.apply(&broken.edited(1)).await;
    let aborted = job
        .until("the upgrade is given up", |job| (text(newest(job), "/result") == "Aborted").then(|| job.clone()))
        .await;
    assert_eq!(number(&aborted, "currentRevision"), 1, "{aborted}");
    assert!(!text(newest(&aborted), "/message").is_empty(), "{aborted}");
    job.another_checkpoint().await;
    assert_eq!(job.single_revision().await, before, "the pods that ran are those that run");

    // With a place for savepoints the same edit goes through.
    story.apply(&manifest.edited(2)).await;
    job.ready().await;
    job.check_suspended().await;
    story.end().await;
}

async fn savepoint_fails_and_the_last_checkpoint_does(storage: Storage) {
    let story = Story::begin("fallback", storage).await;
    let upgrade = json!({"attempts": 2, "savepointTimeout": "20s", "onSavepointFailure": "LastCheckpoint"});
    let manifest = story.counting("counting").set("/upgrade", upgrade).set("/storage/savepointDir", nowhere(storage));
    let job = running(&story, &manifest).await;
    story.apply(&manifest.clone().edited(1)).await;
    let upgraded = job.ready().await;
    assert_done(&upgraded, "Upgrade", 2);
    job.single_revision().await;
    // Suspending needs a savepoint as well.
    job.check_so_far().await;
    job.check_suspended().await;
    story.end().await;
}

/// Options that need no restart change no pod.
#[tokio::test]
async fn options_change_live() {
    let story = Story::begin("live", Storage::Claim).await;
    let job = running(&story, &story.counting("counting")).await;
    let before = job.identities().await;
    job.edit(json!({"checkpoint": {"interval": "300ms", "retained": 3},
        "restartStrategy": {"fixedDelay": {"attempts": 7, "delay": "50ms"}}}))
        .await;
    crate::harness::eventually("the engine has the new options", crate::harness::PATIENCE, || async {
        let status = job.engine("/v1/status").await?;
        let config = &status["checkpoint_config"];
        if config["interval_ms"] == 300
            && config["retained"] == 3
            && status["restart_strategy"]["FixedDelay"]["attempts"] == 7
        {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let after = job.ready().await;
    assert_eq!(job.identities().await, before);
    assert_eq!(number(&after, "currentRevision"), 1);
    // The coordinator's successor has them too.
    let coordinators = job.pods_of("coordinator").await;
    job.kill(&coordinators[0]).await;
    crate::harness::eventually("a new coordinator has the new options", crate::harness::PATIENCE, || async {
        let pods = job.pods_of("coordinator").await;
        if pods == coordinators {
            return Err(format!("{pods:?}"));
        }
        let status = job.engine("/v1/status").await?;
        if status["state"] == "RUNNING" && status["checkpoint_config"]["interval_ms"] == 300 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    job.check_suspended().await;
    story.end().await;
}
