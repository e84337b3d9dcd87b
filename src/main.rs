//! The operator's program: reads the command line and runs what it asks for.

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;
use streamjob_operator::options::{Command, LogFormat, Options, Run};
use streamjob_operator::program;
use tracing_subscriber::EnvFilter;

/// Gives memory back that glibc's allocator would keep after the first lists.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Run(run) => operate(*run),
        Command::Crds => crds(),
    }
}

fn crds() -> ExitCode {
    match streamjob_operator::api::crd::yaml_of_all() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the custom resource definitions cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn operate(run: Run) -> ExitCode {
    if let Err(reason) = log(&run) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    // Two threads: reconciles wait most of the time, and the lease must be renewed beside a busy one.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(program::run(run));
    // What still runs may do nothing more, and is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = error.reason(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn log(run: &Run) -> Result<(), String> {
    // The client logs every failed request as an error; whoever asked says what it means.
    let filter = EnvFilter::try_new(format!("kube_client=off,{}", run.log))
        .map_err(|error| format!("--log {}: {error}", run.log))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match run.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
