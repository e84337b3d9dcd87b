//! The hidden roles: one process of a running job, started by the supervisor or in a pod.

use crate::arguments::{CoordinatorArguments, ProcessArguments, WorkerArguments};
use crate::check;
use crate::error::CliError;
use crate::job::{self, JobFile};
use crate::outcome;
use crate::termination::{self, Reason};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use streamjob_api::Platform;
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_runtime::Planner;
use streamjob_runtime::coordinator::{self, CoordinatorOptions, OnCluster, RestOptions, TlsFiles, Token};
use streamjob_runtime::worker::{self, WorkerOptions};
use tracing_subscriber::EnvFilter;

/// The pod's own address, from the downward API.
const POD_IP: &str = "POD_IP";
/// Of a process that was told to end: 128 and the signal's number, as shells have it.
const TERMINATED: i32 = 143;

/// Exits with the job's outcome; the last line of standard output says more. On a cluster it exits only without one.
pub fn coordinator(arguments: &CoordinatorArguments) -> Result<ExitCode, CliError> {
    begin(&arguments.process)?;
    if arguments.process.on_cluster {
        return Ok(match coordinator_options(arguments) {
            Ok(options) => match coordinator::run(options) {
                Ok(exit) => {
                    let (reason, message) = termination::of_exit(&exit);
                    termination::end(reason, &message)
                }
                Err(error) => termination::end(termination::of_runtime_error(&error), &error.to_string()),
            },
            Err(error) => termination::end(termination::of_error(&error), &error.to_string()),
        });
    }
    let result = coordinator::run(coordinator_options(arguments)?);
    let (code, report) = outcome::of_coordinator(&result);
    if let Err(error) = &result {
        tracing::error!(%error, "the coordinator stopped");
    }
    let line = serde_json::to_string(&report).unwrap_or_default();
    // Without a supervisor nobody reads it.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(ExitCode::from(code))
}

fn coordinator_options(arguments: &CoordinatorArguments) -> Result<CoordinatorOptions, CliError> {
    let (config, graph, planner) = prepare(&arguments.process)?;
    Ok(CoordinatorOptions {
        guarantee: job::guarantee_name(job::guarantee(&graph, &config)),
        config,
        graph,
        planner,
        job_id: arguments.process.job_id.clone(),
        revision: arguments.revision,
        control_addr: arguments.control,
        rest_addr: arguments.rest,
        rest: rest_options()?,
        on_cluster: arguments.process.on_cluster.then(|| OnCluster { replaces: arguments.replaces.clone() }),
    })
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Token and certificates come from the environment, where other users of the machine do not see them.
fn rest_options() -> Result<RestOptions, CliError> {
    Ok(RestOptions {
        token: Token::from_environment(&environment)?,
        tls: TlsFiles::from_environment(&environment)?,
        check: Some(Arc::new(check::answer)),
    })
}

pub fn worker(arguments: &WorkerArguments) -> Result<ExitCode, CliError> {
    begin(&arguments.process)?;
    let on_cluster = arguments.process.on_cluster;
    let options = match worker_options(arguments) {
        Err(error) if on_cluster => return Ok(termination::end(termination::of_error(&error), &error.to_string())),
        options => options?,
    };
    match worker::run(options) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if on_cluster => Ok(termination::end(termination::of_runtime_error(&error), &error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the worker stopped");
            Ok(ExitCode::from(outcome::START_FAILED))
        }
    }
}

fn worker_options(arguments: &WorkerArguments) -> Result<WorkerOptions, CliError> {
    let (config, graph, planner) = prepare(&arguments.process)?;
    let data_host = own_address()?;
    Ok(WorkerOptions {
        coordinator: arguments.coordinator.clone(),
        data_host,
        rest_addr: Some(arguments.rest.unwrap_or(SocketAddr::new(data_host, 0))),
        slots: arguments.slots,
        graph,
        planner,
        config,
        job_id: arguments.process.job_id.clone(),
        token: Token::from_environment(&environment)?,
        give_up_after: None,
        stays: arguments.process.on_cluster,
    })
}

/// Where other processes of the job reach this one.
fn own_address() -> Result<IpAddr, CliError> {
    let Some(address) = environment(POD_IP) else { return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
    address.parse().map_err(|_| CliError::Process(format!("{POD_IP} is \"{address}\", expected an IP address")))
}

pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("STREAMJOB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// What comes before anything can go wrong.
fn begin(arguments: &ProcessArguments) -> Result<(), CliError> {
    log_to_stderr();
    if arguments.exit_with_stdin {
        exit_with_stdin()?;
    }
    if arguments.on_cluster
        && let Err(error) = exit_when_told()
    {
        termination::end(Reason::StartFailed, &error.to_string());
        return Err(error);
    }
    Ok(())
}

/// Every process plans for itself, from the same file: graphs hold code and cannot be sent.
fn prepare(arguments: &ProcessArguments) -> Result<(JobConfig, ExecutionGraph, Planner), CliError> {
    let file = JobFile::read(&arguments.job)?;
    let platform = if arguments.on_cluster { Platform::Kubernetes } else { Platform::Local };
    let config = file.configure_on(platform, &arguments.checkpoints)?;
    if arguments.on_cluster && config.parallelism > arguments.max_parallelism {
        let reason = format!(
            "parallelism {} is more than {}, the number of key groups that the job's state was begun with and keeps; lower \
             spec.parallelism, or begin without state (spec.upgrade.mode: Stateless) and with spec.maxParallelism",
            config.parallelism, arguments.max_parallelism
        );
        return Err(CliError::MaxParallelism { path: file.path, reason });
    }
    let graph = file.plan(&config, arguments.max_parallelism)?;
    let planner = file.planner(&config);
    Ok((config, graph, planner))
}

/// In a container nothing ends the first process by itself. The job is left as it is: whoever ends a pod does not mean it.
pub fn exit_when_told() -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| CliError::Process(format!("cannot listen to signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let registered = {
        let _inside = runtime.enter();
        signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)))
    };
    let (mut terminate, mut interrupt) = registered.map_err(failed)?;
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        tracing::info!("told to end");
        std::process::exit(TERMINATED);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ()).map_err(failed)
}

/// A supervisor that was killed cannot stop its children; the end of the pipe from it does.
fn exit_with_stdin() -> Result<(), CliError> {
    let watch = || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0u8; 64];
        while input.read(&mut buffer).is_ok_and(|length| length > 0) {}
        tracing::warn!("the supervisor is gone, exiting");
        std::process::exit(i32::from(outcome::START_FAILED));
    };
    std::thread::Builder::new()
        .name("lifeline".into())
        .spawn(watch)
        .map(|_| ())
        .map_err(|error| CliError::Process(format!("cannot start a thread: {error}")))
}
