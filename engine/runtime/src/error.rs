//! What can go wrong around the protocol; each message says on what and what to do.

use thiserror::Error;

#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error("checkpoint storage {location}: {reason}; {advice}")]
    Storage { location: String, reason: String, advice: &'static str },
    #[error("cannot listen on {address}: {reason}; choose another address or stop the process that holds it")]
    Listen { address: String, reason: String },
    #[error("lost the coordinator at {address}: {reason}; all tasks of this worker were stopped")]
    CoordinatorLost { address: String, reason: String },
    #[error("the coordinator refused this worker: {0}; start both from the same job file and the same binary")]
    Refused(String),
    #[error("cannot restore {what}: {reason}")]
    Restore { what: String, reason: String },
    /// Token or TLS.
    #[error("REST access: {0}")]
    Access(String),
    #[error("starting: {0}")]
    Start(String),
}
