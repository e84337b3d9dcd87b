//! A coordinator and two workers in one test process, connected by real sockets, running a small hand-made job:
//! numbers -> sum by key -> output that becomes visible with completed checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod job;
mod matrix;

use cluster::{Cluster, FINISHED, config};
use job::{KEYS, Order, Visible, expected, graph, slow_snapshot_graph};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use streamjob_dataflow::graph::JobGraph;
use streamjob_protocol::coordinator::ExitReason;

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
fn run_graph(directory: &Path, graph: JobGraph, parallelism: u32, checkpoint_ms: Option<u64>) -> ExitReason {
    Cluster::start(config(directory, parallelism, checkpoint_ms), graph).end()
}

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
