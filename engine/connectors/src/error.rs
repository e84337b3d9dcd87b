//! Everything that can go wrong in a connector while a job runs.

use std::path::PathBuf;
use streamjob_dataflow::TaskError;
use streamjob_protocol::two_phase::UnreadableCommit;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ConnectorError {
    /// `source` carries the system's error number.
    #[error("{action} '{}': {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("writing to {stream}: {source}")]
    Stream { stream: &'static str, source: std::io::Error },
    #[error("list state '{state}' is not what this connector wrote: {source}; restore from another checkpoint")]
    State { state: &'static str, source: serde_json::Error },
    #[error(transparent)]
    PendingCommit(#[from] UnreadableCommit),
    #[error("building a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// `line` is known in the first part of a file only.
    #[error("'{}', {}byte {offset}: {reason}; correct the file or set {option}", path.display(), line_prefix(*line))]
    Record { path: PathBuf, line: Option<u64>, offset: u64, reason: String, option: &'static str },
    #[error(
        "'{}': the record at byte {offset} is longer than {limit} bytes; a quote may not be closed",
        path.display()
    )]
    RecordTooLong { path: PathBuf, offset: u64, limit: usize },
    #[error("'{}' does not exist: nothing can be read from it", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("'{}' is gone, but it was read only up to byte {offset} of {size}; put it back", path.display())]
    FileVanished { path: PathBuf, offset: u64, size: u64 },
    #[error(
        "'{}' has {size} bytes now and had {known} before: files must not shrink while a job reads them; new data needs \
         a new file name",
        path.display()
    )]
    FileShrank { path: PathBuf, size: u64, known: u64 },
    #[error(
        "'{}' is another file than the one that was read up to byte {offset}: its first bytes differ; new data needs a \
         new file name",
        path.display()
    )]
    FileReplaced { path: PathBuf, offset: u64 },
    #[error("'{}' is compressed, which is not supported; unpack it or exclude it with source.path.regex-pattern", path.display())]
    Compressed { path: PathBuf },
    #[error("the file name '{}' is not UTF-8; rename the file", path.display())]
    FileName { path: PathBuf },
    #[error(
        "cannot commit: neither '{}' nor '{}' exists, so rows that belong to a completed checkpoint are lost; somebody \
         removed the file",
        temporary.display(),
        target.display()
    )]
    CommitLost { temporary: PathBuf, target: PathBuf },
    #[error("cannot commit '{}': '{}' exists already and is another file", temporary.display(), target.display())]
    CommitConflict { temporary: PathBuf, target: PathBuf },
}

fn line_prefix(line: Option<u64>) -> String {
    line.map_or_else(String::new, |line| format!("line {line}, "))
}

impl From<ConnectorError> for TaskError {
    fn from(error: ConnectorError) -> Self {
        use ConnectorError::*;
        let message = error.to_string();
        match error {
            Io { .. } | Stream { .. } | FileVanished { .. } => TaskError::Recoverable(message),
            Arrow(_) | Record { .. } | RecordTooLong { .. } => TaskError::Data(message),
            State { .. }
            | PendingCommit(_)
            | NoSuchPath { .. }
            | FileShrank { .. }
            | FileReplaced { .. }
            | Compressed { .. }
            | FileName { .. }
            | CommitLost { .. }
            | CommitConflict { .. } => TaskError::Fatal(message),
        }
    }
}

impl ConnectorError {
    /// For `map_err` of system calls.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ConnectorError {
        let path = path.into();
        move |source| ConnectorError::Io { action, path, source }
    }
}
