//! Everything that can go wrong in a connector while a job runs.

use std::path::PathBuf;
use streamjob_dataflow::TaskError;
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
    #[error("building a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<ConnectorError> for TaskError {
    fn from(error: ConnectorError) -> Self {
        let message = error.to_string();
        match error {
            ConnectorError::Io { .. } | ConnectorError::Stream { .. } => TaskError::Recoverable(message),
            ConnectorError::State { .. } => TaskError::Fatal(message),
            ConnectorError::Arrow(_) => TaskError::Data(message),
        }
    }
}
