//! What a coordinator says, in the few words that decisions need.

use super::observed::{EngineSavepoint, EngineStatus};
use crate::api::status::{EndState, RestorePoint};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[derive(Debug, Clone, Copy)]
pub enum Engine<'a> {
    /// There is no pod to ask.
    Absent,
    /// A pod has an address, but nothing answers there now.
    Unreachable,
    Answers(&'a EngineStatus),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Has not taken the job over.
    Standby,
    /// Has taken the job over; not all tasks run yet.
    Starting,
    Running,
    /// A failure is being dealt with.
    Recovering,
    /// On its way to an end.
    Ending,
    Ended(EndState),
}

impl<'a> Engine<'a> {
    pub fn status(self) -> Option<&'a EngineStatus> {
        match self {
            Engine::Answers(status) => Some(status),
            _ => None,
        }
    }

    pub fn phase(self) -> Option<Phase> {
        self.status().map(phase)
    }

    pub fn is_running(self) -> bool {
        self.phase() == Some(Phase::Running)
    }

    /// The savepoint that the job was stopped with.
    pub fn stopped_with(self) -> Option<&'a EngineSavepoint> {
        let status = self.status()?;
        let finished = matches!(phase(status), Phase::Ended(EndState::Finished));
        status.latest_savepoint.as_ref().filter(|savepoint| finished && savepoint.stopped)
    }

    /// What the job would go back to now.
    pub fn restore_point(self) -> Option<RestorePoint> {
        let status = self.status()?;
        let point = status.restore_point.as_ref()?;
        if let Some(savepoint) = status.latest_savepoint.as_ref().filter(|savepoint| savepoint.path == point.path) {
            return Some(of_savepoint(savepoint));
        }
        let own = checkpoint(status).filter(|checkpoint| checkpoint.id == point.checkpoint);
        Some(own.unwrap_or_else(|| RestorePoint {
            id: point.checkpoint,
            path: Some(point.path.clone()),
            completed_at: None,
            duration_ms: None,
            size_bytes: None,
            savepoint: false,
        }))
    }
}

fn phase(status: &EngineStatus) -> Phase {
    match status.state.as_str() {
        "STANDBY" => Phase::Standby,
        "RUNNING" => Phase::Running,
        "RESTARTING" | "FAILING" => Phase::Recovering,
        "CANCELLING" => Phase::Ending,
        "FINISHED" => Phase::Ended(EndState::Finished),
        "FAILED" => Phase::Ended(EndState::Failed),
        // A job that somebody suspended at its REST API waits for a person as well.
        "CANCELED" | "SUSPENDED" => Phase::Ended(EndState::Canceled),
        _ => Phase::Starting,
    }
}

pub fn of_savepoint(savepoint: &EngineSavepoint) -> RestorePoint {
    RestorePoint {
        id: savepoint.id,
        path: Some(savepoint.path.clone()),
        completed_at: savepoint.completed_at.and_then(time),
        duration_ms: savepoint.duration_ms,
        size_bytes: savepoint.bytes,
        savepoint: true,
    }
}

/// The newest checkpoint.
pub fn checkpoint(status: &EngineStatus) -> Option<RestorePoint> {
    let checkpoints = &status.checkpoints;
    Some(RestorePoint {
        id: checkpoints.last_id?,
        path: checkpoints.last_path.clone(),
        completed_at: checkpoints.last_completed_at.and_then(time),
        duration_ms: checkpoints.last_duration_ms,
        size_bytes: checkpoints.last_bytes_total,
        savepoint: false,
    })
}

pub fn time(unix_ms: i64) -> Option<Time> {
    // Whole seconds: that is how Kubernetes writes times down, and what is read back has to equal what was written.
    Timestamp::from_second(unix_ms.div_euclid(1000)).ok().map(Time)
}
