//! Why a command could not do what it was asked to; one message each.

use std::path::PathBuf;
use streamjob_api::ApiError;
use streamjob_dataflow::PlanError;
use streamjob_runtime::RuntimeError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum CliError {
    #[error("{}: cannot read the job file: {reason}", path.display())]
    ReadJob { path: PathBuf, reason: String },
    #[error("{}: {source}", path.display())]
    Job { path: PathBuf, source: ApiError },
    #[error("{}: spec.program.sql, {source}", path.display())]
    Plan { path: PathBuf, source: PlanError },
    #[error("{}: spec.maxParallelism: {reason}", path.display())]
    MaxParallelism { path: PathBuf, reason: String },
    #[error("data directory {}: {action}: {reason}; {advice}", path.display())]
    DataDir { path: PathBuf, action: &'static str, reason: String, advice: &'static str },
    #[error(
        "data directory {} is in use by another run{}; stop that one first, choose another --data-dir, or take the job \
         over with --take-over",
        path.display(),
        holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse { path: PathBuf, holder: Option<u32> },
    #[error("checkpoint storage, {location}: {reason}")]
    Storage { location: String, reason: String },
    #[error(
        "the last run ended as {ended} and kept no checkpoint (spec.checkpoint.retention), so there is no state to resume \
         from; start anew with --fresh"
    )]
    StateGone { ended: String },
    #[error("cannot restore from {path}: {reason}")]
    RestoreFrom { path: String, reason: String },
    #[error("starting the {process} process: {reason}")]
    Spawn { process: String, reason: String },
    #[error("the coordinator does not start: {reason}; see {}", log.display())]
    NoCoordinator { reason: String, log: PathBuf },
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
    #[error("{address}: {reason}")]
    Rest { address: String, reason: String },
    #[error("{reason}; name the job with --data-dir DIR or --address URL")]
    NoTarget { reason: String },
    #[error("{}: {reason}", path.display())]
    Inspect { path: PathBuf, reason: String },
    #[error("this process: {0}")]
    Process(String),
}

impl CliError {
    /// 2, as for wrong arguments: nothing was started, or not what was asked for.
    pub fn exit_code(&self) -> u8 {
        2
    }
}
