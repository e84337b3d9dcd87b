//! The engine's one binary: runs a job with all its processes, is one of them, or looks at what a job left.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod arguments;
mod check;
mod client;
mod data_dir;
mod display;
mod dispose;
mod error;
mod format;
mod inspect;
mod job;
mod logs;
mod outcome;
mod plan;
mod processes;
mod progress;
mod roles;
mod run;
mod state_rows;
mod status;
mod supervisor;
mod termination;
mod verbs;

use arguments::{Cli, Verb};
use clap::Parser;
use error::CliError;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Plan(arguments) => plan::print(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::List(arguments) => verbs::run(verbs::list(&arguments)),
        Verb::Savepoint(arguments) => verbs::run(verbs::savepoint(&arguments)),
        Verb::Stop(arguments) => verbs::run(verbs::stop(&arguments)),
        Verb::Cancel(arguments) => verbs::run(verbs::cancel(&arguments)),
        Verb::Checkpoints(arguments) => verbs::run(verbs::checkpoints(&arguments)),
        Verb::Rescale(arguments) => verbs::run(verbs::rescale(&arguments)),
        Verb::Coordinator(arguments) => roles::coordinator(&arguments),
        Verb::Worker(arguments) => roles::worker(&arguments),
        Verb::Dispose(arguments) => dispose::run(&arguments),
    };
    result.unwrap_or_else(|error: CliError| {
        eprintln!("error: {error}");
        ExitCode::from(error.exit_code())
    })
}
