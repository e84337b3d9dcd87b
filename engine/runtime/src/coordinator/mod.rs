//! The coordinator process: feeds the protocol's state machine with facts and carries out what it says.
//!
//! One loop owns the machine; connections, storage requests and HTTP run beside it and talk to it through a bounded
//! channel. Nothing here decides anything about checkpoints, failover or commits.

mod actions;
mod http;
mod status;
mod workers;

use crate::error::RuntimeError;
use crate::metrics::CoordinatorMetrics;
use crate::storage::Storage;
use crate::task::{Planner, unix_ms};
use crate::wire::FromWorker;
use actions::Effects;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_protocol::coordinator::{Action, Coordinator, CoordinatorConfig, Event, ExitReason, Report, Request};
use streamjob_protocol::ids::WorkerId;
use tokio::sync::{mpsc, oneshot};
use workers::{Registration, Workers};

pub use http::{CheckJob, RestOptions, TlsFiles, Token};
pub use status::{CheckpointStatus, JobStatus, OperatorStatus, WorkerStatus};

/// Facts waiting to be handled.
const INBOX: usize = 4096;
/// Journal entries before they are replaced by one.
const JOURNAL_ENTRIES: usize = 64;
/// How long an exit waits for deletions under way.
const DELETIONS: Duration = Duration::from_secs(10);

pub struct CoordinatorOptions {
    pub config: JobConfig,
    pub graph: ExecutionGraph,
    /// Plans the job at another parallelism.
    pub planner: Planner,
    pub job_id: String,
    /// Of the job's definition; a claim with an older one than the newest is refused.
    pub revision: u64,
    /// Where workers register.
    pub control_addr: SocketAddr,
    /// REST and `/metrics`.
    pub rest_addr: SocketAddr,
    pub rest: RestOptions,
}

/// What reaches the loop.
pub(crate) enum Input {
    Event(Event),
    Register(Registration, oneshot::Sender<Result<WorkerId, String>>),
    FromWorker(WorkerId, FromWorker),
    WorkerGone(WorkerId, String),
    Status(oneshot::Sender<JobStatus>),
    View(oneshot::Sender<status::Snapshot>),
    Metrics(oneshot::Sender<String>),
    Request(Request),
}

/// Runs the job to its end, or until somebody else takes it over.
pub fn run(options: CoordinatorOptions) -> Result<ExitReason, RuntimeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| RuntimeError::Start(format!("the control runtime: {error}")))?;
    let result = runtime.block_on(serve(options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(options: CoordinatorOptions) -> Result<ExitReason, RuntimeError> {
    let storage = Storage::open(&options.config.storage, &options.job_id)?;
    let (inbox, mut inputs) = mpsc::channel::<Input>(INBOX);
    let claimant = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    let incarnation = u64::from_be_bytes(
        uuid::Uuid::new_v4().as_bytes()[..8].try_into().map_err(|_| RuntimeError::Start("no random number".into()))?,
    );
    let (external_restore, imported) = actions::external_restore(&options, &storage).await?;
    let machine_config = CoordinatorConfig {
        job_id: options.job_id.clone(),
        job_name: options.config.name.clone(),
        checkpoint: options.config.checkpoint.clone(),
        restart: options.config.restart.clone(),
        failover: options.config.failover,
        plan: options.graph.plan.clone(),
        revision: options.revision,
        claimant,
        parallelism: options.config.parallelism,
        external_restore,
        allow_non_restored_state: options.config.allow_non_restored_state,
        compact_after: JOURNAL_ENTRIES,
    };
    let mut machine = Coordinator::new(machine_config, incarnation);
    workers::listen(options.control_addr, inbox.clone(), &options, incarnation).await?;
    let unread = http::Unread::default();
    http::serve(&options, storage.clone(), &unread, inbox.clone()).await?;

    let metrics = CoordinatorMetrics::new(&options.config.name);
    let mut workers = Workers::new(options.graph.plan.clone());
    let effects = Effects {
        storage,
        planner: options.planner.clone(),
        inbox: inbox.clone(),
        imported,
        listing: Default::default(),
        deletions: Default::default(),
    };
    let mut timeline = status::Timeline::default();
    let origin = Instant::now();
    let mut pending: Vec<Event> = vec![Event::Tick];
    loop {
        for event in std::mem::take(&mut pending) {
            let now = origin.elapsed().as_millis() as u64;
            for action in machine.handle(now, unix_ms() as u64, event) {
                match action {
                    Action::Exit(reason) => {
                        tracing::info!(?reason, "coordinator exits");
                        workers.shutdown(&status::exit_text(&reason));
                        effects.finish_deletions(DELETIONS).await;
                        let status = status::job_status(&options, &machine, &workers);
                        let snapshot = status::snapshot(&machine, &workers, &timeline);
                        http::linger(&mut inputs, &mut workers, &unread, snapshot, status).await;
                        return Ok(reason);
                    }
                    Action::Report(report) => {
                        status::log(&report);
                        metrics.on_report(&report);
                        timeline.on_report(&report, unix_ms() as u64);
                        if matches!(report, Report::Restored { .. }) {
                            effects.on_restored(&machine);
                        }
                    }
                    action => {
                        if let Some(action) = workers.carry_out(action, &mut pending) {
                            effects.carry_out(action);
                        }
                    }
                }
            }
        }
        if !pending.is_empty() {
            continue;
        }
        let now = origin.elapsed().as_millis() as u64;
        let wait =
            machine.next_timer().map_or(Duration::from_secs(1), |at| Duration::from_millis(at.saturating_sub(now)));
        let input = match tokio::time::timeout(wait, inputs.recv()).await {
            Err(_) => Input::Event(Event::Tick),
            Ok(Some(input)) => input,
            Ok(None) => return Err(RuntimeError::Start("the coordinator's inbox closed".into())),
        };
        match input {
            Input::Event(event) => pending.push(event),
            Input::Request(request) => pending.push(Event::Request(request)),
            Input::Register(registration, answer) => pending.extend(workers.register(registration, answer)),
            Input::FromWorker(worker, message) => pending.extend(workers.on_message(worker, message)),
            Input::WorkerGone(worker, reason) => pending.extend(workers.gone(worker, reason)),
            Input::Status(answer) => {
                let _ = answer.send(status::job_status(&options, &machine, &workers));
            }
            Input::View(answer) => {
                let _ = answer.send(status::snapshot(&machine, &workers, &timeline));
            }
            Input::Metrics(answer) => {
                let (count, slots) = workers.list().fold((0, 0), |(count, sum), (.., slots)| (count + 1, sum + slots));
                let _ = answer.send(metrics.render(machine.view(), count, slots, unix_ms() as u64));
            }
        }
    }
}
