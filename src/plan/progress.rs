//! What the engine reports, as the status keeps it. Rarely: every write of a status wakes its readers.

use super::context::Context;
use super::draft::Draft;
use super::engine::{Phase, checkpoint, of_savepoint};
use crate::api::conditions::shorten;
use crate::api::status::Counted;
use std::time::Duration;

/// Between two writes of the newest checkpoint, if nothing else changes.
const PACE: Duration = Duration::from_secs(30);

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
