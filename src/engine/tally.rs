//! What metrics show of a job beyond its status: counted over all its coordinators, and kept when they are gone. Pure.

use crate::plan::observed::EngineStatus;
use jiff::Timestamp;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// The last that the newest revision's coordinator said, once it had the job.
    pub status: Option<EngineStatus>,
    /// Failed checkpoints that were seen, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// By how much of its work the last restore set the job back.
    pub rewind_seconds: Option<f64>,
    /// Unix milliseconds since when the job does not run any more.
    down_since: Option<i64>,
}

impl Tally {
    /// A coordinator's answer.
    pub fn learned(&mut self, status: &EngineStatus, now: Timestamp) {
        if status.standby.is_some() || self.status.as_ref().is_some_and(|known| known.revision > status.revision) {
            return;
        }
        self.count_failures(status);
        if status.running_since.is_none() {
            self.down(now);
        } else {
            self.runs(status);
        }
        self.status = Some(status.clone());
    }

    /// The coordinator of a revision does not answer any more.
    pub fn silent(&mut self, revision: i64, now: Timestamp) {
        if self.status.as_ref().is_some_and(|known| known.revision <= revision) {
            self.down(now);
        }
    }

    fn down(&mut self, now: Timestamp) {
        let ran = self.status.as_ref().is_some_and(|known| known.running_since.is_some());
        if ran && self.down_since.is_none() {
            self.down_since = Some(now.as_millisecond());
        }
    }

    fn count_failures(&mut self, status: &EngineStatus) {
        let seen = match &self.status {
            Some(known) if known.incarnation == status.incarnation => known.checkpoints.failed,
            _ => 0,
        };
        let more = u64::try_from(status.checkpoints.failed - seen).unwrap_or(0);
        if more > 0 {
            *self.failed.entry(reason_of(status.checkpoints.last_failure.as_deref())).or_default() += more;
        }
    }

    /// All tasks run, perhaps anew.
    fn runs(&mut self, status: &EngineStatus) {
        let down_since = self.down_since.take();
        let Some(known) = &self.status else { return };
        if known.running_since == status.running_since && known.incarnation == status.incarnation {
            return;
        }
        let Some(restored) = status.checkpoints.restored_from else { return };
        // Where it went on is what was last heard of, or what came after: a coordinator may complete a checkpoint and die.
        let at = if known.latest_savepoint.as_ref().is_some_and(|savepoint| savepoint.id == restored)
            || status.latest_savepoint.as_ref().is_some_and(|savepoint| savepoint.id == restored)
        {
            down_since
        } else if known.checkpoints.last_id == Some(restored) {
            known.checkpoints.last_completed_at
        } else if status.checkpoints.last_id == Some(restored) {
            status.checkpoints.last_completed_at
        } else {
            None
        };
        if let (Some(at), Some(down)) = (at, down_since.or(status.running_since)) {
            self.rewind_seconds = Some((down - at).max(0) as f64 / 1000.0);
        }
    }
}

/// Of a coordinator's words: few, and never renamed.
fn reason_of(failure: Option<&str>) -> &'static str {
    let text = failure.unwrap_or_default().to_lowercase();
    for (reason, words) in [
        ("Expired", ["expired", "timeout", "timed out"].as_slice()),
        ("TaskFailed", &["task", "worker"]),
        ("Declined", &["decline"]),
        ("Storage", &["storage", "write", "s3", "journal", "disk", "permission"]),
    ] {
        if words.iter().any(|word| text.contains(word)) {
            return reason;
        }
    }
    "Other"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::observed::{EngineCheckpoints, EngineSavepoint};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn running(incarnation: u64, since: i64, checkpoints: EngineCheckpoints) -> EngineStatus {
        EngineStatus { incarnation, revision: 1, running_since: Some(since), checkpoints, ..EngineStatus::default() }
    }

    #[test]
    fn failures_are_counted_over_coordinators() {
        let mut tally = Tally::default();
        let failed = |failed, text: &str| EngineCheckpoints {
            failed,
            last_failure: Some(text.into()),
            ..EngineCheckpoints::default()
        };
        tally.learned(&running(1, 1, failed(2, "checkpoint expired before completing")), at(5));
        tally.learned(&running(1, 1, failed(3, "cannot write s3://b/x")), at(6));
        tally.learned(&running(1, 1, failed(3, "cannot write s3://b/x")), at(7));
        // Another coordinator counts anew.
        tally.learned(&running(2, 8, failed(1, "who knows")), at(9));
        assert_eq!(tally.failed, BTreeMap::from([("Expired", 2), ("Storage", 1), ("Other", 1)]));
    }

    #[test]
    fn a_restore_from_a_checkpoint_sets_back_to_it() {
        let mut tally = Tally::default();
        let last =
            EngineCheckpoints { last_id: Some(7), last_completed_at: Some(10_000), ..EngineCheckpoints::default() };
        tally.learned(&running(1, 1_000, last), at(10_000));
        assert_eq!(tally.rewind_seconds, None);
        tally.silent(1, at(10_400));
        tally.silent(1, at(11_000));
        let restored = EngineCheckpoints { restored_from: Some(7), ..EngineCheckpoints::default() };
        tally.learned(&running(2, 12_000, restored), at(12_000));
        assert_eq!(tally.rewind_seconds, Some(0.4));
    }

    #[test]
    fn a_stop_with_a_savepoint_sets_nothing_back() {
        let mut tally = Tally::default();
        tally.learned(&running(1, 1_000, EngineCheckpoints::default()), at(2_000));
        let savepoint = Some(EngineSavepoint { id: 9, ..EngineSavepoint::default() });
        let stopped =
            EngineStatus { incarnation: 1, revision: 1, latest_savepoint: savepoint, ..EngineStatus::default() };
        tally.learned(&stopped, at(5_000));
        let restored = EngineCheckpoints { restored_from: Some(9), ..EngineCheckpoints::default() };
        let next = EngineStatus { revision: 2, ..running(2, 6_000, restored) };
        tally.learned(&next, at(6_000));
        assert_eq!(tally.rewind_seconds, Some(0.0));
        // The old one has nothing more to say.
        tally.learned(&stopped, at(7_000));
        assert_eq!(tally.status.as_ref().map(|status| status.revision), Some(2));
    }
}
