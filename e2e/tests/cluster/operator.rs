//! The operator itself is restarted, upgraded, killed, confined to a namespace: jobs do not notice.

use crate::harness::{Cluster, OPERATOR_NAMESPACE, Storage, Story, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use std::time::Instant;

/// Who holds the lease.
async fn leader(cluster: &Cluster) -> Result<String, String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), OPERATOR_NAMESPACE);
    let found = leases.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
    let holder = found.into_iter().find_map(|lease| lease.spec.and_then(|spec| spec.holder_identity));
    holder.filter(|holder| !holder.is_empty()).ok_or_else(|| "nobody leads".into())
}

#[tokio::test]
async fn restarted_and_upgraded() {
    let story = Story::alone("operator", Storage::Claim).await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let before = job.identities().await;
    for pod in story.cluster.operators().await {
        story.cluster.kill_operator(&pod).await;
    }
    story.cluster.operator_is_up().await;
    job.another_checkpoint().await;
    assert_eq!(job.identities().await, before, "after a restart");
    story.cluster.helm(&["image.tag=next"]).await;
    job.another_checkpoint().await;
    assert_eq!(job.identities().await, before, "after an upgrade");
    story.apply(&story.counting("counting").edited(1)).await;
    job.ready().await;
    story.cluster.helm(&[]).await;
    job.check_suspended().await;
    story.end().await;
}

/// Of two replicas the leader dies in the middle of an upgrade: the other one takes over, and the upgrade is done once.
#[tokio::test]
async fn leader_dies() {
    let story = Story::alone("leader", Storage::Claim).await;
    story.cluster.helm(&["replicas=2"]).await;
    let job = story.apply(&story.counting("counting")).await;
    job.ready().await;
    let first = eventually("somebody leads", crate::harness::PATIENCE, || leader(&story.cluster)).await;
    let found = story.cluster.operators().await;
    let pod = found.iter().find(|pod| first.contains(pod.as_str())).expect("the leader's pod").clone();
    story.apply(&story.counting("counting").edited(1)).await;
    story.cluster.kill_operator(&pod).await;
    let begun = Instant::now();
    eventually("another one leads", crate::harness::PATIENCE, || async {
        let now = leader(&story.cluster).await?;
        if now == first { Err(now) } else { Ok(()) }
    })
    .await;
    println!("leader killed: another one led after {:.1} s (target: below 20 s)", begun.elapsed().as_secs_f64());
    let upgraded = job.ready().await;
    assert_eq!(upgraded["status"]["currentRevision"], 2, "the upgrade was done once: {upgraded}");
    job.single_revision().await;
    story.cluster.helm(&[]).await;
    job.check_suspended().await;
    story.end().await;
}

/// An operator that may see one namespace alone works there, and leaves others as they are.
#[tokio::test]
async fn confined_to_a_namespace() {
    let story = Story::alone("confined", Storage::Claim).await;
    let other = Story::beside(&story, "elsewhere").await;
    story.cluster.helm(&[&format!("watchNamespaces={{{}}}", story.namespace)]).await;
    let job = story.apply(&story.counting("counting")).await;
    let ignored = other.apply(&other.counting("counting")).await;
    job.ready().await;
    assert!(ignored.pods().await.is_empty());
    assert!(ignored.get().await.unwrap()["status"].is_null());
    story.apply(&story.counting("counting").edited(1)).await;
    job.ready().await;
    job.check_suspended().await;
    // Seen again, the other one runs.
    story.cluster.helm(&[]).await;
    ignored.ready().await;
    other.end().await;
    story.end().await;
}
