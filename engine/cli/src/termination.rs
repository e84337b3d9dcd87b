//! How a process on a cluster ends: its exit code, and one line that Kubernetes shows as the container's last words.

use crate::error::CliError;
use crate::outcome;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use streamjob_protocol::coordinator::ExitReason;
use streamjob_runtime::RuntimeError;

/// Names another file than Kubernetes' default.
const FILE: &str = "STREAMJOB_TERMINATION_LOG";
const DEFAULT_FILE: &str = "/dev/termination-log";
/// Kubernetes cuts off what is longer.
const LONGEST: usize = 4096;
/// What was asked for can never work.
const HOPELESS: u8 = 2;

/// Part of the interface: others decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// The job file or its program.
    InvalidProgram,
    /// The state does not fit the program.
    IncompatibleState,
    /// The state cannot be read, or is gone.
    RestoreFailed,
    StorageUnavailable,
    /// Another coordinator has the job.
    Fenced,
    StartFailed,
}

impl Reason {
    fn exit_code(self) -> u8 {
        match self {
            Reason::InvalidProgram | Reason::IncompatibleState => HOPELESS,
            Reason::RestoreFailed => outcome::Outcome::Unrecoverable.code(),
            Reason::Fenced => outcome::Outcome::Fenced.code(),
            Reason::StorageUnavailable | Reason::StartFailed => outcome::START_FAILED,
        }
    }
}

#[derive(Serialize)]
struct LastWords<'a> {
    reason: Reason,
    message: &'a str,
}

/// Says why this process ends, and returns its exit code.
pub fn end(reason: Reason, message: &str) -> ExitCode {
    tracing::error!(?reason, message, "this process ends");
    let file = std::env::var(FILE).unwrap_or_else(|_| DEFAULT_FILE.to_owned());
    // Outside of a container there is no such file, and it is not made.
    if let Ok(mut file) = std::fs::File::options().write(true).truncate(true).open(file) {
        let _ = writeln!(file, "{}", line(reason, message));
    }
    ExitCode::from(reason.exit_code())
}

/// Short enough, whatever the message.
fn line(reason: Reason, message: &str) -> String {
    let mut length = message.len().min(LONGEST);
    loop {
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        let line = serde_json::to_string(&LastWords { reason, message: &message[..length] }).unwrap_or_default();
        if line.len() < LONGEST || length == 0 {
            return line;
        }
        // One byte of the message takes six at most.
        length = length.saturating_sub((line.len() - LONGEST) / 6 + 1);
    }
}

/// Of what kept a process from starting.
pub fn of_error(error: &CliError) -> Reason {
    match error {
        CliError::Job { .. } | CliError::Plan { .. } | CliError::MaxParallelism { .. } => Reason::InvalidProgram,
        CliError::Storage { .. } => Reason::StorageUnavailable,
        CliError::RestoreFrom { .. } => Reason::RestoreFailed,
        CliError::Runtime(error) => of_runtime_error(error),
        _ => Reason::StartFailed,
    }
}

pub fn of_runtime_error(error: &RuntimeError) -> Reason {
    match error {
        RuntimeError::Storage { .. } => Reason::StorageUnavailable,
        RuntimeError::Restore { .. } => Reason::RestoreFailed,
        _ => Reason::StartFailed,
    }
}

/// Of a coordinator that leaves its job; a job's end is no reason to exit on a cluster.
pub fn of_exit(exit: &ExitReason) -> (Reason, String) {
    match exit {
        ExitReason::Fenced { by } => (Reason::Fenced, format!("another coordinator took the job over: {by}")),
        ExitReason::Incompatible { reason } => (Reason::IncompatibleState, reason.clone()),
        ExitReason::Unrecoverable { reason } => (Reason::RestoreFailed, reason.clone()),
        ExitReason::Ended { .. } | ExitReason::Suspended { .. } => {
            (Reason::StartFailed, "the job has ended".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_line_of_json_that_kubernetes_does_not_cut_off() {
        assert_eq!(
            line(Reason::InvalidProgram, "no table \"a\"\n"),
            r#"{"reason":"InvalidProgram","message":"no table \"a\"\n"}"#
        );
        for text in ["x".repeat(10_000), "\"".repeat(10_000), "é\n".repeat(4_000), "x".repeat(LONGEST - 40)] {
            let line = line(Reason::RestoreFailed, &text);
            assert!(line.len() < LONGEST && line.len() > LONGEST / 3, "{}", line.len());
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(text.starts_with(value["message"].as_str().unwrap()));
        }
    }

    #[test]
    fn exit_codes_tell_what_can_never_work_from_what_may() {
        let codes = [
            Reason::InvalidProgram,
            Reason::IncompatibleState,
            Reason::RestoreFailed,
            Reason::StorageUnavailable,
            Reason::Fenced,
            Reason::StartFailed,
        ]
        .map(Reason::exit_code);
        assert_eq!(codes, [2, 2, 4, 70, 3, 70]);
    }
}
