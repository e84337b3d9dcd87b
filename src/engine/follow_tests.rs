use super::*;
use crate::plan::observed::EngineRestorePoint;
use serde_json::json;
use tokio::sync::mpsc;

fn job() -> JobKey {
    JobKey { namespace: "n".into(), name: "j".into() }
}

fn pod(name: &str, revision: i64, ip: &str, created: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "n", "uid": format!("{name}-{ip}"), "creationTimestamp": created,
            "labels": {
                "app.kubernetes.io/component": "coordinator", "streamjob.dev/job": "j",
                "streamjob.dev/revision": revision.to_string(),
            },
        },
        "status": { "phase": "Running", "podIP": ip },
    }))
    .unwrap()
}

/// Addresses that nobody listens on at the port of coordinators: what is followed there is unreachable.
fn nobody(number: u8) -> String {
    format!("127.9.9.{number}")
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

fn engines() -> (Arc<Engines>, mpsc::Receiver<JobKey>) {
    let (sender, wakes) = mpsc::channel(100);
    let engines = Engines::new(EngineClient::new().unwrap(), move |job, _| drop(sender.try_send(job.clone())));
    (engines, wakes)
}

#[tokio::test]
async fn pods_are_followed_by_the_leader_alone() {
    let (engines, mut wakes) = engines();
    let followed = pod("a", 1, &nobody(1), EARLY);
    engines.saw(&followed);
    assert_eq!(engines.followed(), 0);
    engines.activate();
    engines.saw(&followed);
    engines.saw(&followed);
    assert_eq!(engines.followed(), 1);
    // Not asked yet is not the same as silent.
    assert!(engines.answers(&job(), None).is_empty());
    assert_eq!(wakes.recv().await, Some(job()));
    assert!(matches!(engines.answers(&job(), None)[&1], EngineAnswer::Unreachable(_)));
    engines.gone(&followed);
    assert_eq!((engines.followed(), engines.answers(&job(), None).len()), (0, 0));
}

#[tokio::test]
async fn what_cannot_answer_is_not_asked() {
    let (engines, _wakes) = engines();
    engines.activate();
    let mut ended = pod("a", 1, &nobody(1), EARLY);
    engines.saw(&ended);
    ended.status.as_mut().unwrap().phase = Some("Failed".into());
    engines.saw(&ended);
    let mut worker = pod("b", 1, &nobody(2), EARLY);
    worker.metadata.labels.as_mut().unwrap().insert(COMPONENT.into(), "worker".into());
    engines.saw(&worker);
    let mut starting = pod("c", 1, &nobody(3), EARLY);
    starting.status.as_mut().unwrap().pod_ip = None;
    engines.saw(&starting);
    assert_eq!(engines.followed(), 0);
}

#[tokio::test]
async fn which_of_several_pods_counts() {
    let (engines, _wakes) = engines();
    engines.activate();
    let mut old = pod("a", 1, &nobody(1), EARLY);
    engines.saw(&old);
    engines.saw(&pod("b", 1, &nobody(2), LATE));
    engines.saw(&pod("c", 2, &nobody(3), LATE));
    let ip = |revision, since: Option<&str>| {
        let since = since.map(|since| since.parse().unwrap());
        engines.address(&job(), revision, since).map(|(address, _)| address.ip().to_string())
    };
    let silent = EngineAnswer::Unreachable("x".into());
    let speaking = EngineAnswer::Status(Box::default());
    assert_eq!(engines.learned(&job(), "a", "a-127.9.9.1", speaking.clone()), Some(News::Change));
    assert_eq!(engines.learned(&job(), "a", "a-127.9.9.1", speaking.clone()), None);
    engines.learned(&job(), "b", "b-127.9.9.2", silent);
    assert_eq!(ip(1, None).as_deref(), Some("127.9.9.1"));
    assert_eq!(ip(2, None).as_deref(), Some("127.9.9.3"));
    // One that ends counts less, whatever it says.
    old.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    engines.saw(&old);
    assert_eq!(ip(1, None).as_deref(), Some("127.9.9.2"));
    // Of an earlier job of the same name.
    assert_eq!(ip(1, Some("2026-01-03T00:00:00Z")), None);
    // Another pod of the same name says nothing for this one.
    assert_eq!(engines.learned(&job(), "b", "another", speaking), None);
}

#[tokio::test]
async fn a_job_that_is_gone_leaves_nothing() {
    let (engines, _wakes) = engines();
    engines.activate();
    let pod = pod("a", 1, &nobody(1), EARLY);
    engines.saw(&pod);
    assert!(engines.tally(&job()).is_some());
    engines.gone(&pod);
    engines.forget(&job());
    assert!(engines.tally(&job()).is_none());
}

#[test]
fn one_more_checkpoint_is_no_change() {
    let running = |version: u64, completed: i64| EngineStatus {
        version,
        state: "RUNNING".into(),
        running_since: Some(1),
        restore_point: (completed > 0).then(|| EngineRestorePoint { checkpoint: completed, path: "p".into() }),
        checkpoints: EngineCheckpoints {
            completed,
            last_id: Some(completed),
            last_completed_at: Some(completed * 1000),
            ..EngineCheckpoints::default()
        },
        ..EngineStatus::default()
    };
    let answer = |status: EngineStatus| EngineAnswer::Status(Box::new(status));
    let between = |known: EngineStatus, status: EngineStatus| news(Some(&answer(known)), &answer(status));
    assert_eq!(news(None, &answer(running(1, 1))), Some(News::Change));
    assert_eq!(between(running(1, 1), running(1, 1)), None);
    assert_eq!(between(running(1, 1), running(2, 2)), Some(News::Checkpoint));
    // The first one, one that failed, and another coordinator, which counts anew.
    assert_eq!(between(running(1, 0), running(2, 1)), Some(News::Change));
    let failed = EngineCheckpoints { failed: 1, ..running(2, 1).checkpoints };
    assert_eq!(between(running(1, 1), EngineStatus { checkpoints: failed, ..running(2, 1) }), Some(News::Change));
    assert_eq!(between(running(1, 5), running(2, 1)), Some(News::Change));
    assert_eq!(between(running(1, 1), EngineStatus { restarts: 1, ..running(2, 2) }), Some(News::Change));
    assert_eq!(news(Some(&answer(running(1, 1))), &EngineAnswer::Unreachable("x".into())), Some(News::Change));
}
