//! The hidden roles: one process of a running job, started by the supervisor.

use crate::arguments::{CoordinatorArguments, ProcessArguments, WorkerArguments};
use crate::check;
use crate::error::CliError;
use crate::job::JobFile;
use crate::outcome;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use streamjob_api::config::JobConfig;
use streamjob_dataflow::graph::ExecutionGraph;
use streamjob_runtime::Planner;
use streamjob_runtime::coordinator::{self, CoordinatorOptions, RestOptions, TlsFiles, Token};
use streamjob_runtime::worker::{self, WorkerOptions};
use tracing_subscriber::EnvFilter;

/// Exits with the job's outcome; the last line of standard output says more.
pub fn coordinator(arguments: &CoordinatorArguments) -> Result<ExitCode, CliError> {
    let (config, graph, planner) = prepare(&arguments.process)?;
    let rest = rest_options()?;
    let result = coordinator::run(CoordinatorOptions {
        config,
        graph,
        planner,
        job_id: arguments.process.job_id.clone(),
        revision: arguments.revision,
        control_addr: arguments.control,
        rest_addr: arguments.rest,
        rest,
    });
    let (code, report) = outcome::of_coordinator(&result);
    if let Err(error) = &result {
        tracing::error!(%error, "the coordinator stopped");
    }
    let line = serde_json::to_string(&report).unwrap_or_default();
    // Without a supervisor nobody reads it.
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(ExitCode::from(code))
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
    let (config, graph, planner) = prepare(&arguments.process)?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let result = worker::run(WorkerOptions {
        coordinator: arguments.coordinator,
        data_host: loopback,
        rest_addr: Some(SocketAddr::new(loopback, 0)),
        slots: arguments.slots,
        graph,
        planner,
        config,
        job_id: arguments.process.job_id.clone(),
        token: Token::from_environment(&environment)?,
        give_up_after: None,
    });
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(%error, "the worker stopped");
            Ok(ExitCode::from(outcome::START_FAILED))
        }
    }
}

/// Every process plans for itself, from the same file: graphs hold code and cannot be sent.
fn prepare(arguments: &ProcessArguments) -> Result<(JobConfig, ExecutionGraph, Planner), CliError> {
    let filter = EnvFilter::try_from_env("STREAMJOB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    if arguments.exit_with_stdin {
        exit_with_stdin()?;
    }
    let file = JobFile::read(&arguments.job)?;
    let config = file.configure(&arguments.checkpoints)?;
    let graph = file.plan(&config, arguments.max_parallelism)?;
    let planner = file.planner(&config, arguments.max_parallelism);
    Ok((config, graph, planner))
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
