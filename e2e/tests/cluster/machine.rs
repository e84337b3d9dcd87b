//! Failures that only the machine under a cluster of e2e/cluster can make: processes, nodes, the API server.

use crate::harness::{Storage, Story, eventually, is_true, machine};
use serde_json::json;
use std::time::Duration;

/// The worker's process dies, its pod stays.
#[tokio::test]
async fn worker_process_dies() {
    let story = Story::begin("process", Storage::Claim).await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let workers = job.pods_of("worker").await;
    let before = job.identities().await;
    machine::kill_process(&job, &workers[0]).await;
    job.until("a restart is counted", |job| job["status"]["restarts"].as_i64().filter(|&count| count >= 1)).await;
    job.another_checkpoint().await;
    let after = job.identities().await;
    assert_eq!(after[&workers[0]], (before[&workers[0]].0.clone(), 1), "the same pod, restarted once");
    job.check_suspended().await;
    story.end().await;
}

/// The node with all workers dies; the job goes on on the other one.
#[tokio::test]
async fn node_dies() {
    let story = Story::alone("node", Storage::Claim).await;
    let prefer = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {
        "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}]}}]}});
    let job = story.apply(&story.counting("counting").set("/workers/podTemplate/spec/affinity", prefer)).await;
    job.ready().await;
    let before = job.another_checkpoint().await;
    let on = job.nodes().await;
    assert!(on.values().any(|node| node == "node-2"), "{on:?}");
    story.cluster.machine("node.sh", &["kill", "2"]).await;
    eventually("checkpoints go on on the other node", Duration::from_secs(240), || async {
        let job_now = job.get().await?;
        let newest = job.newest_checkpoint().await?;
        if is_true(&job_now, "Ready") && newest > before + 5 { Ok(()) } else { Err(job_now["status"].to_string()) }
    })
    .await;
    let on = job.nodes().await;
    assert!(on.values().filter(|node| *node == "node-1").count() >= 3, "{on:?}");
    story.cluster.machine("node.sh", &["start", "2"]).await;
    story.cluster.nodes_are_ready().await;
    job.check_suspended().await;
    story.end().await;
}

/// No API server for a minute, and a worker's process dies meanwhile: the job goes on by itself; afterwards it is reconciled.
#[tokio::test]
async fn api_server_is_away_for_a_minute() {
    let story = Story::alone("outage", Storage::Claim).await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let before = job.identities().await;
    let checkpoint = job.another_checkpoint().await;
    let workers = job.pods_of("worker").await;
    let process = machine::processes(&job, &workers[0]).await;
    story.cluster.machine("part.sh", &["stop", "kube-apiserver"]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    machine::kill(&process);
    tokio::time::sleep(Duration::from_secs(40)).await;
    story.cluster.machine("part.sh", &["start", "kube-apiserver"]).await;
    eventually("the API server is back", crate::harness::PATIENCE, || async { job.get().await.map(|_| ()) }).await;
    job.ready().await;
    let after = job.another_checkpoint().await;
    assert!(after > checkpoint + 20, "checkpoints went on meanwhile: {checkpoint} before, {after} after");
    let now = job.identities().await;
    for (pod, (uid, _)) in &before {
        assert_eq!(now.get(pod).map(|(uid, _)| uid), Some(uid), "{pod} is the same");
    }
    story.apply(&story.counting("counting").edited(1)).await;
    job.ready().await;
    job.check_suspended().await;
    story.end().await;
}
