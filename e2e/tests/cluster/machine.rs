//! Failures that only the machine under a cluster of e2e/cluster can make: processes, nodes, the API server.

use crate::harness::{PATIENCE, Storage, Story, command, eventually, is_true, machine};
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
    // The job is often back before the node has written down that it restarted the container.
    let expected = (before[&workers[0]].0.clone(), 1);
    eventually("the same pod, restarted once", PATIENCE, || async {
        let now = job.identities().await.remove(&workers[0]);
        if now.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    job.check_suspended().await;
    story.end().await;
}

/// The node with the whole job and the operator dies; both go on on the other one.
#[tokio::test]
async fn node_dies() {
    let story = Story::alone("node", Storage::Claim).await;
    // Closed for new pods, so that all are on the node that will die.
    command("kubectl", &["cordon", "node-1"]).await.expect("kubectl cordon");
    story.cluster.operator_leaves("node-1").await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let on = job.nodes().await;
    assert!(on.len() == 3 && on.values().all(|node| node == "node-2"), "{on:?}");
    command("kubectl", &["uncordon", "node-1"]).await.expect("kubectl uncordon");
    let before = job.another_checkpoint().await;
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
    eventually("the API server is back", PATIENCE, || async { job.get().await.map(|_| ()) }).await;
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
