//! The engine's one binary: runs a job with all its processes, is one of them, or looks at what a job left.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod arguments;
mod data_dir;
mod display;
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
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Coordinator(arguments) => roles::coordinator(&arguments),
        Verb::Worker(arguments) => roles::worker(&arguments),
    };
    result.unwrap_or_else(|error: CliError| {
        eprintln!("error: {error}");
        ExitCode::from(error.exit_code())
    })
}
