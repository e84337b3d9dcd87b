//! The command line.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Runs stateful stream-processing jobs whose results do not change when processes die.
#[derive(Debug, Parser)]
#[command(name = "streamjob-engine", version)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a job on this machine; running it again resumes it.
    Run(RunArguments),
    /// Show what a job consists of and what it guarantees, without running it.
    Plan(PlanArguments),
    /// List checkpoints and state of a job, and verify their checksums.
    Inspect(InspectArguments),
    /// One process of a running job; started by `run`.
    #[command(hide = true)]
    Coordinator(CoordinatorArguments),
    /// One process of a running job; started by `run`.
    #[command(hide = true)]
    Worker(WorkerArguments),
}

#[derive(Debug, Args)]
pub struct RunArguments {
    /// The job file.
    pub job: PathBuf,
    /// Where checkpoints, logs and the job's identity are kept [default: .streamjob/<name of the job>].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Start without the state of earlier runs, which stays on disk.
    #[arg(long)]
    pub fresh: bool,
    /// Take the job over from a run that still holds the data directory; that run ends.
    #[arg(long, conflicts_with = "fresh")]
    pub take_over: bool,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The job file.
    pub job: PathBuf,
}

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// A data directory, or a directory with checkpoints of one job.
    pub directory: PathBuf,
    /// One JSON document instead of text.
    #[arg(long)]
    pub json: bool,
    /// Only this checkpoint instead of all.
    #[arg(long, value_name = "ID")]
    pub checkpoint: Option<u64>,
    /// Print the rows of an operator's state tables (of the newest checkpoint, or of --checkpoint) as JSON lines.
    #[arg(long, value_name = "UID[/TABLE]", conflicts_with = "json")]
    pub state: Option<String>,
}

/// What every process of a job has to know.
#[derive(Debug, Args)]
pub struct ProcessArguments {
    #[arg(long)]
    pub job: PathBuf,
    /// Where checkpoints go if the job file does not say.
    #[arg(long)]
    pub checkpoints: PathBuf,
    #[arg(long)]
    pub job_id: String,
    #[arg(long)]
    pub max_parallelism: u32,
    /// Exit when standard input ends, which it does when the parent dies.
    #[arg(long)]
    pub exit_with_stdin: bool,
}

#[derive(Debug, Args)]
pub struct CoordinatorArguments {
    #[command(flatten)]
    pub process: ProcessArguments,
    #[arg(long)]
    pub revision: u64,
    /// Where workers register.
    #[arg(long)]
    pub control: SocketAddr,
    /// REST and metrics.
    #[arg(long)]
    pub rest: SocketAddr,
}

#[derive(Debug, Args)]
pub struct WorkerArguments {
    #[command(flatten)]
    pub process: ProcessArguments,
    /// Where the coordinator takes registrations.
    #[arg(long)]
    pub coordinator: SocketAddr,
    /// Subtasks of one vertex that this process takes.
    #[arg(long)]
    pub slots: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn fresh_and_take_over_exclude_each_other() {
        let parsed = Cli::try_parse_from(["streamjob-engine", "run", "job.yaml", "--fresh", "--take-over"]);
        assert!(parsed.unwrap_err().to_string().contains("cannot be used with"));
    }
}
