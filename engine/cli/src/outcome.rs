//! How a job's coordinator ends, as an exit code and one line of JSON: what the supervisor reads and passes on.

use serde::{Deserialize, Serialize};
use streamjob_protocol::coordinator::ExitReason;
use streamjob_protocol::journal::EndState;
use streamjob_runtime::RuntimeError;

/// Exit codes of the coordinator process; any other end is a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    Failed,
    Fenced,
    Unrecoverable,
    Canceled,
    Suspended,
}

const CODES: [(Outcome, u8); 6] = [
    (Outcome::Finished, 0),
    (Outcome::Failed, 1),
    (Outcome::Fenced, 3),
    (Outcome::Unrecoverable, 4),
    (Outcome::Canceled, 5),
    (Outcome::Suspended, 10),
];
/// The process could not do its work; another attempt may.
pub const START_FAILED: u8 = 70;
/// The supervisor was stopped before the job was.
pub const INTERRUPTED: u8 = 130;

impl Outcome {
    pub fn of_code(code: i32) -> Option<Outcome> {
        CODES.iter().find(|(_, known)| i32::from(*known) == code).map(|(outcome, _)| *outcome)
    }

    /// Exit code of the coordinator process.
    pub fn code(self) -> u8 {
        CODES.iter().find(|(outcome, _)| *outcome == self).map_or(START_FAILED, |(_, code)| *code)
    }

    /// Exit code of `run`: a suspended job did what its user asked for.
    pub fn code_of_run(self) -> u8 {
        if self == Outcome::Suspended { 0 } else { self.code() }
    }
}

/// The last line that a coordinator writes to its standard output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Why, if there is something to say.
    pub reason: Option<String>,
    /// The checkpoint that the next run resumes from.
    pub checkpoint: Option<u64>,
}

/// Exit code and report of a coordinator.
pub fn of_coordinator(result: &Result<ExitReason, RuntimeError>) -> (u8, ExitReport) {
    let say = |reason: Option<String>| ExitReport { reason, checkpoint: None };
    match result {
        Ok(ExitReason::Ended { state: EndState::Finished, reason }) => (Outcome::Finished.code(), say(reason.clone())),
        Ok(ExitReason::Ended { state: EndState::Failed, reason }) => (Outcome::Failed.code(), say(reason.clone())),
        Ok(ExitReason::Ended { state: EndState::Canceled, reason }) => (Outcome::Canceled.code(), say(reason.clone())),
        Ok(ExitReason::Suspended { checkpoint }) => {
            (Outcome::Suspended.code(), ExitReport { reason: None, checkpoint: *checkpoint })
        }
        Ok(ExitReason::Fenced { by }) => (Outcome::Fenced.code(), say(Some(by.clone()))),
        Ok(ExitReason::Unrecoverable { reason } | ExitReason::Incompatible { reason }) => {
            (Outcome::Unrecoverable.code(), say(Some(reason.clone())))
        }
        // Another attempt reads the same state.
        Err(error @ RuntimeError::Restore { .. }) => (Outcome::Unrecoverable.code(), say(Some(error.to_string()))),
        Err(error) => (START_FAILED, say(Some(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let ended = |state| Ok(ExitReason::Ended { state, reason: Some("why".into()) });
        let restore = RuntimeError::Restore { what: "x".into(), reason: "y".into() };
        let table = [
            (ended(EndState::Finished), 0, Some(Outcome::Finished), 0),
            (ended(EndState::Failed), 1, Some(Outcome::Failed), 1),
            (ended(EndState::Canceled), 5, Some(Outcome::Canceled), 5),
            (Ok(ExitReason::Suspended { checkpoint: Some(7) }), 10, Some(Outcome::Suspended), 0),
            (Ok(ExitReason::Fenced { by: "b".into() }), 3, Some(Outcome::Fenced), 3),
            (Ok(ExitReason::Unrecoverable { reason: "r".into() }), 4, Some(Outcome::Unrecoverable), 4),
            (Ok(ExitReason::Incompatible { reason: "i".into() }), 4, Some(Outcome::Unrecoverable), 4),
            (Err(restore), 4, Some(Outcome::Unrecoverable), 4),
            (Err(RuntimeError::Start("s".into())), 70, None, 70),
        ];
        for (result, code, outcome, code_of_run) in table {
            let (found, report) = of_coordinator(&result);
            assert_eq!(found, code, "{result:?}");
            assert_eq!(Outcome::of_code(i32::from(found)), outcome, "{result:?}");
            assert_eq!(outcome.map_or(70, Outcome::code_of_run), code_of_run, "{result:?}");
            assert_eq!(report.reason.is_some(), code != 10, "{result:?}");
            assert_eq!(report.checkpoint, (code == 10).then_some(7));
        }
    }

    #[test]
    fn crashes_are_no_outcome() {
        for code in [2, 6, 70, 101, 134, -1] {
            assert_eq!(Outcome::of_code(code), None, "{code}");
        }
    }
}
