//! A coordinator and two workers in one test process, connected by real sockets, running a small hand-made job:
//! numbers -> sum by key -> output that becomes visible with completed checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod job;

use job::{KEYS, Order, Visible, expected, graph, slow_snapshot_graph};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use streamjob_api::config::*;
use streamjob_dataflow::graph::JobGraph;
use streamjob_protocol::coordinator::ExitReason;
use streamjob_protocol::journal::EndState;
use streamjob_runtime::Planner;
use streamjob_runtime::coordinator::{self, CoordinatorOptions, RestOptions};
use streamjob_runtime::worker::{self, WorkerOptions};

fn config(directory: &std::path::Path, parallelism: u32, checkpoint_ms: Option<u64>) -> JobConfig {
    JobConfig {
        name: "numbers".into(),
        sql: String::new(),
        parallelism,
        explicit_max_parallelism: Some(128),
        checkpoint: CheckpointConfig {
            interval_ms: checkpoint_ms,
            mode: CheckpointMode::ExactlyOnce,
            timeout_ms: 60_000,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: 0,
            retention: Retention::RetainOnCancellation,
            retained: 2,
            incremental: true,
            compression: Compression::None,
        },
        storage: StorageConfig::Directory { path: directory.to_string_lossy().into_owned() },
        restart: RestartStrategy::FixedDelay { attempts: 100, delay_ms: 20 },
        failover: FailoverStrategy::Region,
        restore_from: None,
        allow_non_restored_state: false,
        savepoint_dir: None,
        slots_per_worker: 1,
        heartbeat: HeartbeatConfig { interval_ms: 500, timeout_ms: 10_000 },
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Run {
    exit: ExitReason,
    visible: Vec<i64>,
}

/// Runs the job to its end. `fail_once` makes one task fail after some rows.
fn run(parallelism: u32, checkpoint_ms: Option<u64>, rows: i64, fail_once: bool) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let visible = Visible::default();
    let failing = Arc::new(AtomicBool::new(fail_once));
    let graph = graph(parallelism, rows, visible.clone(), failing.clone());
    let exit = run_graph(directory.path(), graph, parallelism, checkpoint_ms);
    assert!(!failing.load(Ordering::SeqCst), "the failure did not happen");
    Run { exit, visible: visible.sums() }
}

/// Runs a graph to its end with a worker for each subtask.
fn run_graph(directory: &std::path::Path, graph: JobGraph, parallelism: u32, checkpoint_ms: Option<u64>) -> ExitReason {
    let graph = graph.into_execution(128).unwrap();
    let planner: Planner = Arc::new(|_| Err("this job has one parallelism".into()));
    let config = config(directory, parallelism, checkpoint_ms);
    let (control_addr, rest_addr) = (free_address(), free_address());
    let workers: Vec<_> = (0..parallelism)
        .map(|_| {
            let options = WorkerOptions {
                coordinator: control_addr,
                data_host: "127.0.0.1".parse().unwrap(),
                rest_addr: Some("127.0.0.1:0".parse().unwrap()),
                slots: 1,
                graph: graph.clone(),
                planner: planner.clone(),
                config: config.clone(),
                job_id: "j".into(),
                token: None,
                give_up_after: Some(Duration::from_secs(20)),
            };
            std::thread::spawn(move || worker::run(options))
        })
        .collect();
    let rest = RestOptions::default();
    let job_id = "j".to_owned();
    let options = CoordinatorOptions { config, graph, planner, job_id, revision: 1, control_addr, rest_addr, rest };
    let exit = coordinator::run(options).unwrap();
    workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());
    exit
}

const FINISHED: ExitReason = ExitReason::Ended { state: EndState::Finished, reason: None };

#[test]
fn a_bounded_job_finishes_without_checkpoints() {
    let run = run(1, None, 50_000, false);
    assert_eq!(run.exit, FINISHED);
    assert_eq!(run.visible, expected(1, 50_000));
}

#[test]
fn two_workers_exchange_by_key() {
    let run = run(2, None, 50_000, false);
    assert_eq!(run.exit, FINISHED);
    assert_eq!(run.visible, expected(2, 50_000));
}

#[test]
fn r01_checkpoints_do_not_change_results() {
    let run = run(2, Some(20), 300_000, false);
    assert_eq!(run.exit, FINISHED);
    assert_eq!(run.visible, expected(2, 300_000));
}

#[test]
fn r03_a_failed_task_is_restored_from_the_latest_checkpoint() {
    let run = run(2, Some(20), 300_000, true);
    assert_eq!(run.exit, FINISHED);
    assert_eq!(run.visible.len(), KEYS as usize);
    assert_eq!(run.visible, expected(2, 300_000));
}

#[test]
fn r08_the_barrier_goes_downstream_before_the_snapshot_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let order = Order::default();
    let exit = run_graph(directory.path(), slow_snapshot_graph(order.clone()), 2, Some(50));
    assert_eq!(exit, FINISHED);
    // A consumer waits for the barriers of both sources; the one of the slow source comes before its snapshot is done.
    assert_eq!(order.of(1), ["barrier arrived behind it", "source has its snapshot"]);
}
