//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
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
    /// Compare a job with the state of a checkpoint or savepoint, without running it; exits with 1 if it does not fit.
    Check(CheckArguments),
    /// List checkpoints and state of a job, and verify their checksums.
    Inspect(InspectArguments),
    /// Show a running job.
    List(ListArguments),
    /// Take a savepoint of a running job, which goes on.
    Savepoint(SavepointArguments),
    /// Stop a running job with a savepoint.
    Stop(StopArguments),
    /// Cancel a running job.
    Cancel(CancelArguments),
    /// Show the checkpoints of a running job, or one of them in detail.
    Checkpoints(CheckpointsArguments),
    /// Change the parallelism of a running job in place.
    Rescale(RescaleArguments),
    /// One process of a running job; started by `run`.
    #[command(hide = true)]
    Coordinator(CoordinatorArguments),
    /// One process of a running job; started by `run`.
    #[command(hide = true)]
    Worker(WorkerArguments),
    /// Delete a savepoint, or state that a job left; in a pod of its own.
    #[command(hide = true)]
    Dispose(DisposeArguments),
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
    /// Where REST and metrics are served [default: a free port on 127.0.0.1]. Beyond this machine only with
    /// STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE in the environment.
    #[arg(long, value_name = "IP:PORT")]
    pub rest: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The job file.
    pub job: PathBuf,
}

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The job file.
    pub job: PathBuf,
    /// Directory of the checkpoint or savepoint, or its _metadata file.
    #[arg(long, value_name = "PATH")]
    pub from: String,
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: OutputFormat,
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

/// Which running job, and how to show what it says. Requests carry the token in STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Data directory of the job [default: the only one below .streamjob with a running job].
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    pub data_dir: Option<PathBuf>,
    /// Address of the job's coordinator instead of its data directory.
    #[arg(long, value_name = "URL")]
    pub address: Option<String>,
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Text,
    /// One document.
    Json,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    pub target: TargetArguments,
}

#[derive(Debug, Args)]
pub struct SavepointArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Where the savepoint's own directory is made: a directory or s3://bucket/prefix [default:
    /// spec.storage.savepointDir].
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// Name of the request, 32 hexadecimal digits: repeated under the same name it is the same savepoint.
    #[arg(long, value_name = "ID")]
    pub trigger_id: Option<String>,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct StopArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Where the savepoint's own directory is made: a directory or s3://bucket/prefix [default:
    /// spec.storage.savepointDir].
    #[arg(long, value_name = "DIR")]
    pub savepoint_dir: Option<String>,
    /// Let all windows and timers fire first, as at the end of the input.
    #[arg(long)]
    pub drain: bool,
    /// Name of the request, 32 hexadecimal digits: repeated under the same name it is the same request.
    #[arg(long, value_name = "ID")]
    pub trigger_id: Option<String>,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct CancelArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct CheckpointsArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Only this checkpoint, by operator and subtask.
    #[arg(long, value_name = "ID")]
    pub details: Option<u64>,
}

#[derive(Debug, Args)]
pub struct RescaleArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    /// Subtasks of each operator from now on.
    #[arg(long, value_name = "NUMBER")]
    pub parallelism: u32,
    /// Name of the request, 32 hexadecimal digits: repeated under the same name it is the same request.
    #[arg(long, value_name = "ID")]
    pub trigger_id: Option<String>,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
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
    #[arg(long, conflicts_with = "on_cluster")]
    pub exit_with_stdin: bool,
    /// In a pod: the coordinator takes the job over when it is told to, and processes stay when the job has ended.
    #[arg(long)]
    pub on_cluster: bool,
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
    /// A job that this one replaces; it is claimed first, so that it can complete nothing more.
    #[arg(long, value_name = "JOB_ID", requires = "on_cluster")]
    pub replaces: Option<String>,
}

#[derive(Debug, Args)]
pub struct WorkerArguments {
    #[command(flatten)]
    pub process: ProcessArguments,
    /// Where the coordinator takes registrations; a name is looked up at every attempt to reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub coordinator: String,
    /// Metrics and health [default: a free port on 127.0.0.1].
    #[arg(long)]
    pub rest: Option<SocketAddr>,
    /// Subtasks of one vertex that this process takes.
    #[arg(long)]
    pub slots: u32,
}

#[derive(Debug, Args)]
pub struct DisposeArguments {
    #[arg(long)]
    pub job: PathBuf,
    /// Where checkpoints are if the job file does not say.
    #[arg(long)]
    pub checkpoints: PathBuf,
    #[command(flatten)]
    pub what: Disposed,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Disposed {
    /// A savepoint's directory.
    #[arg(long, value_name = "PATH")]
    pub savepoint: Option<String>,
    /// Everything that is stored under this id.
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// Everything that the job has at its place, under all of its ids, with the savepoints there.
    #[arg(long)]
    pub all: bool,
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
