//! Options that change while the job runs. They are journaled, so that a successor of the same revision keeps them.

use super::Report;
use super::machine::Coordinator;
use crate::journal::JournalEntry;
use crate::random::Random;
use crate::restart::RestartDecider;
use streamjob_api::config::{CheckpointConfig, RestartStrategy};

/// What of `wanted` may change under running tasks; the rest stays as it is in `current`. Periodic checkpoints are not
/// switched on or off: tasks commit in another way without them.
pub(super) fn merge(current: &CheckpointConfig, wanted: &CheckpointConfig) -> CheckpointConfig {
    let interval_ms = match (current.interval_ms, wanted.interval_ms) {
        (Some(_), Some(interval)) => Some(interval),
        (current, _) => current,
    };
    CheckpointConfig {
        interval_ms,
        timeout_ms: wanted.timeout_ms,
        min_pause_ms: wanted.min_pause_ms,
        max_concurrent: wanted.max_concurrent,
        tolerable_failures: wanted.tolerable_failures,
        retention: wanted.retention,
        retained: wanted.retained,
        ..current.clone()
    }
}

impl Coordinator {
    pub(super) fn request_reconfigure(&mut self, checkpoint: &CheckpointConfig, restart: RestartStrategy) {
        let checkpoint = merge(&self.config.checkpoint, checkpoint);
        // Of several wishes the last one counts, also if it is what was before the others.
        let others = self.journal.is_pending(|entry| matches!(entry, JournalEntry::Configured { .. }));
        if others || checkpoint != self.config.checkpoint || restart != self.config.restart {
            self.journal.enqueue(JournalEntry::Configured { checkpoint, restart });
        }
    }

    /// The entry stands in the journal, or stood there when this coordinator took over.
    pub(super) fn reconfigure(&mut self, checkpoint: &CheckpointConfig, restart: RestartStrategy) {
        let checkpoint = merge(&self.config.checkpoint, checkpoint);
        if checkpoint.interval_ms != self.config.checkpoint.interval_ms {
            self.checkpoints.restart_interval(self.now, checkpoint.interval_ms);
        }
        if restart != self.config.restart {
            self.decider = RestartDecider::new(&restart, Random::new(self.random.next_u64()));
        }
        self.config.checkpoint = checkpoint;
        self.config.restart = restart;
        self.view.checkpoint_config = self.config.checkpoint.clone();
        self.view.restart_strategy = self.config.restart.clone();
        self.report(Report::Reconfigured);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamjob_api::config::{CheckpointMode, Compression, Retention};

    #[test]
    fn only_what_tasks_do_not_depend_on_changes() {
        let current = CheckpointConfig {
            interval_ms: Some(1_000),
            mode: CheckpointMode::ExactlyOnce,
            timeout_ms: 10,
            min_pause_ms: 0,
            max_concurrent: 1,
            tolerable_failures: 0,
            retention: Retention::None,
            retained: 1,
            incremental: true,
            compression: Compression::None,
        };
        let wanted = CheckpointConfig {
            interval_ms: Some(5_000),
            mode: CheckpointMode::AtLeastOnce,
            timeout_ms: 20,
            retention: Retention::RetainOnCancellation,
            retained: 3,
            incremental: false,
            compression: Compression::Lz4,
            ..current.clone()
        };
        let merged = merge(&current, &wanted);
        assert_eq!((merged.interval_ms, merged.timeout_ms, merged.retained), (Some(5_000), 20, 3));
        assert_eq!((merged.mode, merged.incremental), (CheckpointMode::ExactlyOnce, true));
        let off = CheckpointConfig { interval_ms: None, ..wanted };
        assert_eq!(merge(&current, &off).interval_ms, Some(1_000), "not switched off");
    }
}
