//! The worker process: takes tasks from a coordinator, runs them, stops them when the coordinator is gone.
//!
//! One session is one connection to one coordinator process. When it ends, for whatever reason, every task is cancelled
//! before a new one begins: a coordinator that is not there any more can complete no checkpoint, so nothing is lost. How a
//! worker finds its coordinator is in [`search`].

mod deploy;
mod http;
mod search;

use crate::coordinator::Token;
use crate::error::RuntimeError;
use crate::exchange::gate::Mail;
use crate::exchange::network::Network;
use crate::metrics::task_reports;
use crate::storage::Storage;
use crate::task::{JobSettings, Planner};
use crate::wire::{self, FromWorker, ToWorker};
use deploy::{Planned, Scale, Tasks};
use search::Search;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_protocol::coordinator::TaskStatus;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Answers of tasks on their way to the coordinator.
const ANSWERS: usize = 4096;
const METRICS_PERIOD: Duration = Duration::from_millis(500);
/// Tasks that do not stop within this time take the process down with them.
const CANCELLATION_TIMEOUT: Duration = Duration::from_secs(60);

pub struct WorkerOptions {
    /// `host:port`; what the name stands for is looked up whenever the coordinator is.
    pub coordinator: String,
    /// Address that other workers reach this one at.
    pub data_host: IpAddr,
    /// `/metrics`, `/healthz` and `/readyz`.
    pub rest_addr: Option<SocketAddr>,
    pub slots: u32,
    pub graph: ExecutionGraph,
    /// Plans the job at another parallelism or max parallelism.
    pub planner: Planner,
    pub config: JobConfig,
    pub job_id: String,
    /// What the coordinator asks of its workers, if anything.
    pub token: Option<Token>,
    /// How long to look for a coordinator before giving up; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// The process is somebody else's to end, as a pod is Kubernetes': it stays when the job is over, and looks again for a
    /// coordinator that refused it.
    pub stays: bool,
}

/// Runs until the coordinator says that the job is over, if this worker does not stay then.
pub fn run(options: WorkerOptions) -> Result<(), RuntimeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| RuntimeError::Start(format!("the control runtime: {error}")))?;
    let result = runtime.block_on(serve(options));
    // Uploads of cancelled tasks have nobody to tell.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

enum SessionEnd {
    Shutdown(String),
    Lost(String),
    /// It was none.
    Refused(String),
}

async fn serve(options: WorkerOptions) -> Result<(), RuntimeError> {
    let storage = Storage::open(&options.config.storage, &options.job_id)?;
    let settings = Arc::new(JobSettings {
        job_name: options.config.name.clone(),
        job_id: options.job_id.clone(),
        mode: options.config.checkpoint.mode,
        checkpointing: options.config.checkpoint.interval_ms.is_some(),
        incremental: options.config.checkpoint.incremental,
        compression: options.config.checkpoint.compression,
    });
    let planned = Planned::new(options.config.parallelism, options.graph.clone());
    let control = tokio::runtime::Handle::current();
    let tasks = Tasks::new(planned, options.planner.clone(), settings, storage, control);
    let metrics_addr = match options.rest_addr {
        Some(address) => {
            let mut served = http::serve(address, tasks.clone(), options.config.name.clone()).await?;
            if served.ip().is_unspecified() {
                // Whoever is told of it is elsewhere.
                served.set_ip(options.data_host);
            }
            Some(served)
        }
        None => None,
    };
    let mut search = Search::new(&options.coordinator);
    loop {
        let reason = match search.connect().await {
            Ok(stream) => match session(stream, &options, metrics_addr, &tasks, &mut search).await? {
                SessionEnd::Shutdown(reason) if !options.stays => {
                    tracing::info!(reason, "shutting down");
                    return Ok(());
                }
                SessionEnd::Refused(reason) if !options.stays => return Err(RuntimeError::Refused(reason)),
                SessionEnd::Refused(reason) => {
                    search.refused(&reason).await;
                    continue;
                }
                SessionEnd::Shutdown(reason) | SessionEnd::Lost(reason) => {
                    search.lost(&reason);
                    reason
                }
            },
            Err(reason) => {
                search.failed(&reason);
                reason
            }
        };
        if options.give_up_after.is_some_and(|limit| search.alone_for() >= limit) {
            return Err(RuntimeError::CoordinatorLost { address: options.coordinator, reason });
        }
        search.pause().await;
    }
}

async fn session(
    stream: TcpStream,
    options: &WorkerOptions,
    metrics_addr: Option<SocketAddr>,
    tasks: &Arc<Tasks>,
    search: &mut Search,
) -> Result<SessionEnd, RuntimeError> {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let listener = TcpListener::bind((options.data_host, 0))
        .map_err(|error| RuntimeError::Listen { address: options.data_host.to_string(), reason: error.to_string() })?;
    let data_addr = listener
        .local_addr()
        .map_err(|error| RuntimeError::Listen { address: options.data_host.to_string(), reason: error.to_string() })?;
    let register = FromWorker::Register {
        job_id: options.job_id.clone(),
        fingerprint: options.graph.plan.fingerprint.clone(),
        slots: options.slots,
        data_addr,
        metrics_addr,
        pid: std::process::id(),
        token: options.token.clone(),
    };
    if let Err(error) = wire::send(&mut writer, &register).await {
        return Ok(SessionEnd::Lost(error.to_string()));
    }
    let patience = Duration::from_millis(options.config.heartbeat.timeout_ms);
    let answer = tokio::time::timeout(patience, wire::receive::<ToWorker>(&mut reader)).await;
    let (worker, incarnation) = match answer {
        Ok(Ok(Some(ToWorker::Registered { worker, incarnation }))) => (worker, incarnation),
        Ok(Ok(Some(ToWorker::Refused { reason }))) => return Ok(SessionEnd::Refused(reason)),
        Ok(Ok(Some(ToWorker::Shutdown { reason }))) => return Ok(SessionEnd::Shutdown(reason)),
        Ok(Ok(_)) => return Ok(SessionEnd::Lost("it closed the connection".into())),
        Ok(Err(error)) => return Ok(SessionEnd::Lost(error.to_string())),
        Err(_) => return Ok(SessionEnd::Lost("it did not answer the registration".into())),
    };
    tracing::info!(worker = %worker, %data_addr, "registered");
    search.found();
    let network = Network::start(listener, worker.0, incarnation)
        .map_err(|error| RuntimeError::Start(format!("the data plane: {error}")))?;
    let (answers, outbox) = mpsc::channel::<FromWorker>(ANSWERS);
    tasks.begin_session(worker, network.clone(), answers.clone());

    let heartbeat = Duration::from_millis(options.config.heartbeat.interval_ms);
    let end = tokio::select! {
        end = read_loop(&mut reader, tasks, patience) => end,
        end = write_loop(&mut writer, outbox, heartbeat, tasks) => end,
    };
    network.stop();
    tasks.end_session(CANCELLATION_TIMEOUT).await;
    Ok(end)
}

async fn read_loop(reader: &mut tokio::net::tcp::OwnedReadHalf, tasks: &Arc<Tasks>, patience: Duration) -> SessionEnd {
    loop {
        // Silence for the heartbeat timeout is death as far as this worker can tell: it stops its tasks itself.
        let message = match tokio::time::timeout(patience, wire::receive::<ToWorker>(reader)).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return SessionEnd::Lost("it closed the connection".into()),
            Ok(Err(error)) => return SessionEnd::Lost(error.to_string()),
            Err(_) => return SessionEnd::Lost(format!("no sign of life for {} ms", patience.as_millis())),
        };
        match message {
            ToWorker::Heartbeat | ToWorker::Registered { .. } => {}
            ToWorker::Refused { reason } => return SessionEnd::Lost(reason),
            ToWorker::Shutdown { reason } => return SessionEnd::Shutdown(reason),
            ToWorker::Deploy { deployment, parallelism, max_parallelism, tasks: deployed, placement, peers } => {
                let scale = Scale { parallelism, max_parallelism };
                // Planning takes a while, and no other message of the coordinator may overtake this one.
                tokio::task::block_in_place(|| tasks.deploy(deployment, scale, deployed, &placement, &peers));
            }
            ToWorker::Cancel { deployment, tasks: cancelled } => {
                for task in cancelled {
                    tasks.cancel(task, deployment, CANCELLATION_TIMEOUT);
                }
            }
            ToWorker::Trigger { barrier, tasks: targets } => {
                tasks.mail(&targets, &Mail::Trigger(barrier));
            }
            ToWorker::Drain { tasks: targets } => tasks.mail(&targets, &Mail::Drain),
            ToWorker::Complete { checkpoint, tasks: targets } => {
                tasks.mail(&targets, &Mail::Complete(checkpoint));
            }
            ToWorker::Aborted { checkpoint, tasks: targets } => {
                tasks.mail(&targets, &Mail::Aborted(checkpoint));
            }
        }
    }
}

async fn write_loop(
    writer: &mut tokio::net::tcp::OwnedWriteHalf,
    mut outbox: mpsc::Receiver<FromWorker>,
    heartbeat: Duration,
    tasks: &Arc<Tasks>,
) -> SessionEnd {
    let mut beat = tokio::time::interval(heartbeat);
    let mut measure = tokio::time::interval(METRICS_PERIOD);
    measure.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            message = outbox.recv() => match message {
                Some(message) => message,
                None => return SessionEnd::Lost("the worker stops".into()),
            },
            _ = beat.tick() => FromWorker::Heartbeat,
            _ = measure.tick() => FromWorker::Metrics { tasks: task_reports(&tasks.metrics()) },
        };
        let last_of_task = matches!(
            &message,
            FromWorker::TaskStatus {
                status: TaskStatus::Finished | TaskStatus::Canceled | TaskStatus::Failed { .. },
                ..
            }
        );
        if last_of_task {
            // Final counters first, so that a short job's totals are complete.
            let report = FromWorker::Metrics { tasks: task_reports(&tasks.metrics()) };
            if let Err(error) = wire::send(writer, &report).await {
                return SessionEnd::Lost(error.to_string());
            }
        }
        if let Err(error) = wire::send(writer, &message).await {
            return SessionEnd::Lost(error.to_string());
        }
    }
}
