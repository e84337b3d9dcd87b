//! What the engine reports, as the status keeps it. Rarely: every write of a status wakes its readers.

use super::context::Context;
use super::draft::Draft;
use super::engine::{Phase, checkpoint, of_savepoint};
use crate::api::conditions::shorten;
use crate::api::conditions::{Truth, aspect};
use crate::api::status::{Counted, StreamJobStatus};
use jiff::Timestamp;
use std::time::Duration;

/// Between two writes of the newest checkpoint, if nothing else changes.
const PACE: Duration = Duration::from_secs(60);

/// Whether one more checkpoint can change anything about a job but its newest one, or that one is to be written again.
#[must_use]
pub fn awaits_checkpoint(status: &StreamJobStatus, now: Timestamp) -> bool {
    let holds = |aspect: &str| {
        status.conditions.iter().any(|condition| condition.type_ == aspect && condition.status == Truth::True)
    };
    let at_rest = status.operation.is_none()
        && status.trial.is_none()
        && holds(aspect::READY)
        && holds(aspect::CHECKPOINTS_HEALTHY);
    let written = status.last_checkpoint.as_ref().and_then(|known| known.completed_at.as_ref());
    let fresh = written.is_some_and(|at| Duration::try_from(now.duration_since(at.0)).unwrap_or_default() < PACE);
    !(at_rest && fresh)
}

pub fn observe(context: &Context, draft: &mut Draft) {
    // What was observed is of the revision before if another takes over now.
    if draft.status.current_revision != context.status.current_revision || draft.status.suspended {
        return;
    }
    let engine = context.current_engine();
    let Some(status) = engine.status().filter(|_| engine.phase() != Some(Phase::Standby)) else { return };
    if let Some(guarantee) = &status.guarantee {
        draft.status.guarantee = Some(shorten(guarantee.clone(), 64));
    }
    if status.parallelism > 0 {
        draft.status.parallelism = Some(status.parallelism);
    }
    let incarnation = i64::try_from(status.incarnation).unwrap_or(i64::MAX);
    let counted = Counted { incarnation, restarts: status.restarts };
    if draft.status.counted != Some(counted) {
        let before = draft.status.counted.filter(|before| before.incarnation == incarnation);
        draft.status.restarts += (status.restarts - before.map_or(0, |before| before.restarts)).max(0);
        draft.status.counted = Some(counted);
    }
    if let Some(savepoint) = &status.latest_savepoint {
        let known = draft.status.last_savepoint.as_ref();
        if known.is_none_or(|known| known.id < savepoint.id) {
            draft.status.last_savepoint = Some(of_savepoint(savepoint));
        }
    }
    let Some(newest) = checkpoint(status) else { return };
    let due = match &draft.status.last_checkpoint {
        None => true,
        Some(known) if known.id >= newest.id => return,
        Some(known) => match (&known.completed_at, &newest.completed_at) {
            (Some(known), Some(newest)) => {
                Duration::try_from(newest.0.duration_since(known.0)).is_ok_and(|between| between >= PACE)
            }
            _ => true,
        },
    };
    if due || draft.status != context.status {
        draft.status.last_checkpoint = Some(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::OperationKind;
    use serde_json::json;

    #[test]
    fn only_a_job_at_rest_does_not_wait_for_checkpoints() {
        let conditions = [aspect::READY, aspect::CHECKPOINTS_HEALTHY].map(|aspect| {
            json!({
                "type": aspect, "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        });
        let status: StreamJobStatus = serde_json::from_value(json!({
            "state": "Running", "currentRevision": 1, "conditions": conditions,
            "lastCheckpoint": { "id": 7, "completedAt": "2026-01-01T00:00:00Z" },
        }))
        .unwrap();
        let soon: Timestamp = "2026-01-01T00:00:59Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert!(!awaits_checkpoint(&status, soon));
        assert!(awaits_checkpoint(&status, later));
        assert!(awaits_checkpoint(&StreamJobStatus { last_checkpoint: None, ..status.clone() }, soon));
        for aspect in [aspect::READY, aspect::CHECKPOINTS_HEALTHY] {
            let mut other = status.clone();
            other.conditions.retain(|condition| condition.type_ != aspect);
            assert!(awaits_checkpoint(&other, soon), "{aspect}");
        }
        let mut busy = serde_json::to_value(&status).unwrap();
        busy["operation"] = json!({
            "id": "a", "kind": OperationKind::Upgrade, "step": "Saving", "attempt": 1,
            "startedAt": "2026-01-01T00:00:00Z", "stepStartedAt": "2026-01-01T00:00:00Z",
        });
        assert!(awaits_checkpoint(&serde_json::from_value(busy).unwrap(), soon));
    }
}
