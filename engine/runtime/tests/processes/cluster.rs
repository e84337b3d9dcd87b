//! A job's coordinator and workers as threads of the test process, connected by real sockets, and requests to its REST API.
//! Knows no job and judges no result.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use streamjob_api::config::*;
use streamjob_dataflow::graph::JobGraph;
use streamjob_protocol::coordinator::ExitReason;
use streamjob_protocol::journal::EndState;
use streamjob_runtime::coordinator::{self, CoordinatorOptions, RestOptions};
use streamjob_runtime::worker::{self, WorkerOptions};
use streamjob_runtime::{Planner, RuntimeError};
use tokio::net::TcpSocket;

pub const JOB: &str = "0123456789abcdef0123456789abcdef";
pub const MAX_PARALLELISM: u32 = 128;
pub const FINISHED: ExitReason = ExitReason::Ended { state: EndState::Finished, reason: None };
pub const CANCELED: ExitReason = ExitReason::Ended { state: EndState::Canceled, reason: None };
/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn config(directory: &Path, parallelism: u32, checkpoint_ms: Option<u64>) -> JobConfig {
    JobConfig {
        name: "numbers".into(),
        sql: String::new(),
        parallelism,
        explicit_max_parallelism: Some(MAX_PARALLELISM),
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

/// An address that nobody else is given as long as the socket is there: the coordinator will listen on it.
fn reserved_address() -> (SocketAddr, TcpSocket) {
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (held.local_addr().unwrap(), held)
}

/// A running job.
pub struct Cluster {
    rest: SocketAddr,
    _held: [TcpSocket; 2],
    coordinator: JoinHandle<Result<ExitReason, RuntimeError>>,
    workers: Vec<JoinHandle<Result<(), RuntimeError>>>,
}

impl Cluster {
    /// Starts the job with a worker for each subtask.
    pub fn start(config: JobConfig, graph: JobGraph) -> Cluster {
        let workers = config.parallelism;
        Cluster::with_workers(config, graph, workers)
    }

    /// The coordinator's reason not to run the job at all, found before there is any worker.
    pub fn refused(config: JobConfig, graph: JobGraph) -> String {
        match Cluster::with_workers(config, graph, 0).end() {
            ExitReason::Incompatible { reason } => reason,
            other => panic!("it was not refused: {other:?}"),
        }
    }

    fn with_workers(config: JobConfig, graph: JobGraph, workers: u32) -> Cluster {
        let graph = graph.into_execution(MAX_PARALLELISM).unwrap();
        let planner: Planner = Arc::new(|_, _| Err("this job has one parallelism".into()));
        let ((control_addr, held), (rest_addr, held_too)) = (reserved_address(), reserved_address());
        let job_id = JOB.to_owned();
        let workers = (0..workers)
            .map(|_| {
                let options = WorkerOptions {
                    coordinator: control_addr.to_string(),
                    data_host: "127.0.0.1".parse().unwrap(),
                    rest_addr: Some("127.0.0.1:0".parse().unwrap()),
                    slots: 1,
                    graph: graph.clone(),
                    planner: planner.clone(),
                    config: config.clone(),
                    job_id: job_id.clone(),
                    token: None,
                    give_up_after: Some(Duration::from_secs(20)),
                    stays: false,
                };
                std::thread::spawn(move || worker::run(options))
            })
            .collect();
        let rest = RestOptions::default();
        let options = CoordinatorOptions {
            config,
            graph,
            planner,
            job_id,
            revision: 1,
            control_addr,
            rest_addr,
            rest,
            guarantee: "exactly-once",
            on_cluster: None,
        };
        // Why it ends is otherwise only known to who waits for that.
        let run = move || coordinator::run(options).inspect_err(|error| eprintln!("coordinator: {error}"));
        let coordinator = std::thread::spawn(run);
        Cluster { rest: rest_addr, _held: [held, held_too], coordinator, workers }
    }

    /// Waits for the job's end.
    pub fn end(self) -> ExitReason {
        let exit = self.coordinator.join().unwrap().unwrap();
        self.workers.into_iter().for_each(|worker| worker.join().unwrap().unwrap());
        exit
    }

    /// Waits until `condition` yields something; panics when it does not come, or when the job ends before.
    pub fn eventually<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.coordinator.is_finished();
            if let Some(value) = condition() {
                return value;
            }
            assert!(!ended, "the job has ended, waited for: {what}");
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checkpoints that were completed in this run.
    pub fn completed(&self) -> u64 {
        let statistics = self.request("GET", &format!("/jobs/{JOB}/checkpoints"), "");
        statistics["counts"]["completed"].as_u64().unwrap_or_else(|| panic!("{statistics}"))
    }

    /// Waits for so many more checkpoints.
    pub fn await_checkpoints(&self, more: u64) {
        let before = self.completed();
        self.eventually("checkpoints", || (self.completed() >= before + more).then_some(()));
    }

    /// Stops the job with a savepoint; its directory.
    pub fn stop_with_savepoint(self, directory: &Path) -> String {
        let body = format!(r#"{{"targetDirectory": "{}"}}"#, directory.display());
        let accepted = self.request("POST", &format!("/jobs/{JOB}/stop"), &body);
        let trigger = accepted["request-id"].as_str().unwrap_or_else(|| panic!("{accepted}"));
        let path = format!("/jobs/{JOB}/savepoints/{trigger}");
        let ended = self.eventually("the savepoint", || {
            let answer = self.request("GET", &path, "");
            (answer["status"]["id"] == "COMPLETED").then_some(answer)
        });
        let location = ended["operation"]["location"].as_str().unwrap_or_else(|| panic!("{ended}")).to_owned();
        assert_eq!(self.end(), FINISHED);
        location
    }

    pub fn cancel(self) {
        self.request("PATCH", &format!("/jobs/{JOB}?mode=cancel"), "");
        assert_eq!(self.end(), CANCELED);
    }

    /// The body of an answer, once there is somebody to answer.
    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        self.eventually(path, || exchange(self.rest, method, path, body))
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Some(serde_json::from_str(body).unwrap_or(Value::Null))
}
