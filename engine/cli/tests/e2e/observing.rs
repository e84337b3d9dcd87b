//! What a running job shows: metrics and status of its processes.

use crate::harness::{Engine, Job, Place, Role, http_get, tree};
use crate::minio::Minio;
use crate::nexmark::await_checkpoint;

fn endless() -> Job {
    Job::file("e2e/jobs/accounts.yaml").env("EVENTS", 0).parallelism(2).checkpoint("interval: 200ms").restarting()
}

/// Names of the documented metrics that a process of this role exports.
fn documented(role: &str) -> Vec<String> {
    let page = std::fs::read_to_string(tree().join("docs/metrics.md")).expect("docs/metrics.md");
    let names: Vec<String> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            cells.get(4).is_some_and(|by| *by == role).then(|| name.to_owned())
        })
        .collect();
    assert!(names.len() >= 5, "documented metrics of the {role}: {names:?}");
    names
}

fn status(engine: &Engine) -> serde_json::Value {
    engine.eventually("the status", || serde_json::from_str(&http_get(&engine.rest(), "/v1/status")?).ok())
}

/// The value of a metric that has no labels but the job.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn every_documented_metric_is_exported() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&endless()).start();
    let first = await_checkpoint(&mut engine, &state, 1);
    // Figures of a restore are there after one.
    engine.kill(engine.workers(2)[0]);
    await_checkpoint(&mut engine, &state, first + 3);
    let missing = |metrics: &str, role: &str| -> Vec<String> {
        let exported = |name: &String| metrics.contains(&format!("# TYPE {name} "));
        documented(role).into_iter().filter(|name| !exported(name)).collect()
    };
    let metrics = http_get(&engine.rest(), "/metrics").expect("the coordinator's metrics");
    assert_eq!(missing(&metrics, "coordinator"), Vec::<String>::new(), "{metrics}");
    assert!(value(&metrics, "streamjob_job_restarts_total").is_some_and(|restarts| restarts >= 1.0), "{metrics}");
    assert!(value(&metrics, "streamjob_checkpoint_last_size_bytes").is_some_and(|bytes| bytes > 0.0), "{metrics}");
    let workers = status(&engine)["workers"].as_array().cloned().expect("workers");
    assert_eq!(workers.len(), 2, "{workers:?}");
    // A worker exports what the tasks on it have; an operator on one of the two is enough.
    let of_workers: String = workers
        .iter()
        .map(|worker| {
            let address = worker["metrics_addr"].as_str().expect("an address");
            http_get(address, "/metrics").expect("a worker's metrics")
        })
        .collect();
    assert_eq!(missing(&of_workers, "worker"), Vec::<String>::new(), "{of_workers}");
    engine.kill_all();
}

#[test]
fn status_tells_operators_workers_and_checkpoints() {
    let place = Place::new();
    let mut engine = place.job(&endless()).start();
    await_checkpoint(&mut engine, &place.path("state"), 1);
    let status = status(&engine);
    assert_eq!(status["name"], "accounts", "{status}");
    assert_eq!(status["state"], "RUNNING", "{status}");
    assert!(status["checkpoints"]["completed"].as_u64().is_some_and(|completed| completed > 0), "{status}");
    let mut pids: Vec<i64> =
        status["workers"].as_array().into_iter().flatten().filter_map(|worker| worker["pid"].as_i64()).collect();
    pids.sort_unstable();
    let expected: Vec<i64> = engine.of_role(Role::Worker).iter().map(|process| i64::from(process.pid)).collect();
    assert_eq!(pids, expected);
    engine.kill_all();
}

#[test]
fn r22_no_more_checkpoints_are_in_progress_than_allowed() {
    let minio = Minio::start();
    let place = Place::new();
    let job = minio.storage(endless()).checkpoint("interval: 200ms, maxConcurrent: 2, timeout: 1min");
    let mut engine = minio.credentials(place.job(&job)).start();
    engine.eventually("a checkpoint", || (minio.latest_checkpoint() > 0).then_some(()));
    minio.freeze();
    // Nothing can complete now: the second is triggered beside the first, and no third.
    let in_progress = |engine: &Engine| {
        let metrics = http_get(&engine.rest(), "/metrics")?;
        value(&metrics, "streamjob_checkpoints_in_progress")
    };
    engine.eventually("two checkpoints in progress", || in_progress(&engine).filter(|number| *number == 2.0));
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(in_progress(&engine).is_none_or(|number| number <= 2.0), "{:?}", in_progress(&engine));
    }
    minio.thaw();
    engine.kill_all();
}
