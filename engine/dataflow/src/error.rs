//! Errors of planning (a person's input is wrong) and of running tasks (the job fails over or fails for good).

use thiserror::Error;

/// Found before anything starts; the message says where, what was found and what to do.
#[derive(Debug, Error)]
pub enum PlanError {
    #[error("line {line}, column {column}: {message}")]
    Sql { line: u64, column: u64, message: String },
    #[error("table '{table}', option '{option}': {message}")]
    Option { table: String, option: String, message: String },
    #[error("table '{table}': {message}")]
    Table { table: String, message: String },
    #[error("{0}")]
    Job(String),
}

/// Why a task stopped.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Worth a restart: the outside world or another process failed.
    #[error("{0}")]
    Recoverable(String),
    /// A restart meets the same input and fails again only if the input or the job is wrong; Flink restarts these too,
    /// so the restart strategy decides when to give up.
    #[error("{0}")]
    Data(String),
    /// Restarting cannot help (the job and its state do not fit): the job fails at once.
    #[error("{0}")]
    Fatal(String),
    /// State of the checkpoint to restore is missing or not what was written: an older checkpoint may do.
    #[error("{0}")]
    StateDamaged(String),
    /// Not a failure: the task was told to stop while it waited.
    #[error("cancelled")]
    Cancelled,
}

impl From<arrow::error::ArrowError> for TaskError {
    fn from(error: arrow::error::ArrowError) -> Self {
        TaskError::Data(format!("evaluating a batch: {error}"))
    }
}
