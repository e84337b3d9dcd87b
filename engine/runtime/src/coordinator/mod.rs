//! The coordinator process: feeds the protocol's state machine with facts and carries out what it says.
//!
//! One loop owns the machine; connections, storage requests and HTTP run beside it and talk to it through a bounded
//! channel. Nothing here decides anything about checkpoints, failover or commits.

mod actions;
mod changes;
mod http;
mod process;
mod retained;
mod standby;
mod status;
mod workers;

use crate::error::RuntimeError;
use crate::storage::Storage;
use crate::task::{Planner, unix_ms};
use crate::wire::FromWorker;
use actions::Effects;
use changes::Changes;
use process::Process;
use standby::Activated;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_protocol::coordinator::{
    Action, Coordinator, CoordinatorConfig, Event, ExitReason, ExternalRestore, Report, Request,
};
use streamjob_protocol::ids::WorkerId;
use streamjob_protocol::plan::JobPlan;
use tokio::sync::{mpsc, oneshot};
use workers::Registration;

pub use http::{CheckJob, RestOptions, TlsFiles, Token};
pub use process::{OnCluster, RestorePoint, StandbyStatus};
pub use status::{CheckpointStatus, JobStatus, OperatorStatus, SavepointStatus, WorkerStatus};

/// Facts waiting to be handled.
const INBOX: usize = 4096;
/// Journal entries before they are replaced by one.
const JOURNAL_ENTRIES: usize = 64;
/// How long an exit waits for deletions under way.
const DELETIONS: Duration = Duration::from_secs(10);

pub struct CoordinatorOptions {
    pub config: JobConfig,
    pub graph: ExecutionGraph,
    /// Plans the job at another parallelism or max parallelism.
    pub planner: Planner,
    pub job_id: String,
    /// Of the job's definition; a claim with an older one than the newest is refused.
    pub revision: u64,
    /// Where workers register.
    pub control_addr: SocketAddr,
    /// REST and `/metrics`.
    pub rest_addr: SocketAddr,
    pub rest: RestOptions,
    /// What the job promises from end to end, as it is shown.
    pub guarantee: &'static str,
    /// `None`: the job is taken over at once, and its end is the end of the process.
    pub on_cluster: Option<OnCluster>,
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
    /// Take the job over, if it is not done already; answered at once.
    Activate(oneshot::Sender<()>),
}

/// Runs the job to its end, or until somebody else takes it over. On a cluster it does not return at the job's end: it goes
/// on telling of it.
pub fn run(options: CoordinatorOptions) -> Result<ExitReason, RuntimeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| RuntimeError::Start(format!("the control runtime: {error}")))?;
    let result = runtime.block_on(serve(Arc::new(options)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn machine_config(
    options: &CoordinatorOptions,
    plan: JobPlan,
    claimant: &str,
    external_restore: Option<ExternalRestore>,
) -> CoordinatorConfig {
    CoordinatorConfig {
        job_id: options.job_id.clone(),
        job_name: options.config.name.clone(),
        checkpoint: options.config.checkpoint.clone(),
        restart: options.config.restart.clone(),
        failover: options.config.failover,
        plan,
        revision: options.revision,
        claimant: claimant.to_owned(),
        parallelism: options.config.parallelism,
        external_restore,
        allow_non_restored_state: options.config.allow_non_restored_state,
        compact_after: JOURNAL_ENTRIES,
    }
}

async fn serve(options: Arc<CoordinatorOptions>) -> Result<ExitReason, RuntimeError> {
    let storage = Storage::open(&options.config.storage, &options.job_id)?;
    let (inbox, mut inputs) = mpsc::channel::<Input>(INBOX);
    let claimant = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    // 53 bits: what reads it as JSON may not know whole numbers beyond.
    let incarnation = uuid::Uuid::new_v4().as_u64_pair().0 >> 11;
    let changes = Changes::new();
    let plan = options.graph.plan.clone();
    let machine = Coordinator::new(machine_config(&options, plan, &claimant, None), incarnation);
    let mut process = Process::new(options.clone(), machine, changes.clone(), incarnation);
    workers::listen(options.control_addr, inbox.clone(), &options, incarnation).await?;
    let unread = http::Unread::default();
    http::serve(&options, storage.clone(), &unread, changes, inbox.clone()).await?;
    let activated = match &options.on_cluster {
        Some(cluster) => match standby::hold(&mut process, cluster, &storage, &claimant, &mut inputs).await? {
            Ok(activated) => activated,
            Err(reason) => return Ok(reason),
        },
        None => {
            let (external, imported) = actions::external_restore(&options.config, options.revision, &storage).await?;
            Activated { plan: Arc::new(options.graph.plan.clone()), external, imported }
        }
    };
    let (plan, max_parallelism) = (JobPlan::clone(&activated.plan), activated.plan.max_parallelism);
    let machine = Coordinator::new(machine_config(&options, plan, &claimant, activated.external), incarnation);
    let pending = process.begin(machine);
    let effects = Effects {
        storage,
        planner: options.planner.clone(),
        max_parallelism,
        inbox,
        imported: activated.imported,
        listing: Default::default(),
        deletions: Default::default(),
    };
    let reason = drive(&mut process, pending, &effects, &mut inputs).await?;
    tracing::info!(?reason, "coordinator exits");
    if options.on_cluster.is_some() {
        let over = matches!(reason, ExitReason::Ended { .. } | ExitReason::Suspended { .. });
        return if over { stay(process, effects, &mut inputs).await } else { Ok(reason) };
    }
    process.workers.shutdown(&status::exit_text(&reason));
    effects.finish_deletions(DELETIONS).await;
    http::linger(&mut inputs, &mut process, &unread).await;
    Ok(reason)
}

/// Until the machine exits.
async fn drive(
    process: &mut Process,
    mut pending: Vec<Event>,
    effects: &Effects,
    inputs: &mut mpsc::Receiver<Input>,
) -> Result<ExitReason, RuntimeError> {
    let origin = Instant::now();
    loop {
        for event in std::mem::take(&mut pending) {
            let now = origin.elapsed().as_millis() as u64;
            let of_task = matches!(event, Event::TaskStatus { .. } | Event::WorkerLost { .. });
            for action in process.machine.handle(now, unix_ms() as u64, event) {
                match action {
                    Action::Exit(reason) => return Ok(reason),
                    Action::Report(report) => {
                        process.on_report(&report);
                        if matches!(report, Report::Restored { .. }) {
                            effects.on_restored(&process.machine);
                        }
                    }
                    action => {
                        if let Some(action) = process.workers.carry_out(action, &mut pending) {
                            effects.carry_out(action);
                        }
                    }
                }
            }
            if of_task {
                process.on_task_status();
            }
        }
        if !pending.is_empty() {
            continue;
        }
        let now = origin.elapsed().as_millis() as u64;
        let wait = process
            .machine
            .next_timer()
            .map_or(Duration::from_secs(1), |at| Duration::from_millis(at.saturating_sub(now)));
        let input = match tokio::time::timeout(wait, inputs.recv()).await {
            Err(_) => Input::Event(Event::Tick),
            Ok(Some(input)) => input,
            Ok(None) => return Err(RuntimeError::Start("the coordinator's inbox closed".into())),
        };
        match process.answer(input) {
            None => {}
            Some(Input::Event(event)) => pending.push(event),
            Some(Input::Request(request)) => pending.push(Event::Request(request)),
            Some(Input::Register(registration, answer)) => {
                pending.extend(process.workers.register(registration, answer));
                process.on_workers_changed();
            }
            Some(Input::FromWorker(worker, message)) => pending.extend(process.workers.on_message(worker, message)),
            Some(Input::WorkerGone(worker, reason)) => {
                pending.extend(process.workers.gone(worker, reason));
                process.on_workers_changed();
            }
            Some(Input::Activate(answer)) => drop(answer.send(())),
            // All of them questions, which are answered by now.
            Some(Input::Status(_) | Input::View(_) | Input::Metrics(_)) => {}
        }
    }
}

/// On a cluster the processes of a job that has ended live on until they are deleted: somebody wants to know how it went.
async fn stay(
    mut process: Process,
    effects: Effects,
    inputs: &mut mpsc::Receiver<Input>,
) -> Result<ExitReason, RuntimeError> {
    process.changes.note();
    tokio::spawn(async move { effects.finish_deletions(DELETIONS).await });
    loop {
        match inputs.recv().await {
            Some(Input::Activate(answer)) => drop(answer.send(())),
            Some(input) => process.take_in(input),
            None => return Err(RuntimeError::Start("the coordinator's inbox closed".into())),
        }
    }
}
