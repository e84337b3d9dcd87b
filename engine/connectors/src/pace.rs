//! Emission of generated rows at a rate, by the wall clock.

use std::time::Duration;

/// A source is polled at least this often, so that it notices what else happens.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Row n is due n / rate seconds after row 0; the clock starts with the first row after a start or restore.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Wall clock and row at the first call.
    start: Option<(i64, u64)>,
}

impl Pace {
    /// Rows below the returned number are due; `next` is the next row, `rate` rows a second over all subtasks.
    pub fn due(&mut self, now_unix_ms: i64, next: u64, rate: u64) -> u64 {
        let (started, first) = *self.start.get_or_insert((now_unix_ms, next));
        let elapsed = now_unix_ms.saturating_sub(started).max(0) as u128;
        let rows = elapsed * u128::from(rate) / 1000 + 1;
        first.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX))
    }

    /// How long to wait for a row that is `ahead` rows behind the ones that are due.
    pub fn wait(ahead: u64, rate: u64) -> Duration {
        Duration::from_millis((ahead + 1).saturating_mul(1000).div_ceil(rate).max(1)).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_due_at_the_rate() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(1_000, 500, 100), 501);
        assert_eq!(pace.due(1_009, 501, 100), 501);
        assert_eq!(pace.due(1_010, 501, 100), 502);
        assert_eq!(pace.due(11_000, 502, 100), 1501);
        // A clock that goes back holds rows up, and nothing else.
        assert_eq!(pace.due(0, 502, 100), 501);
        assert_eq!(pace.due(i64::MAX, 502, u64::MAX), u64::MAX);
        assert_eq!(Pace::wait(0, 100), Duration::from_millis(10));
        assert_eq!(Pace::wait(0, 1), LONGEST_WAIT);
        assert_eq!(Pace::wait(0, u64::MAX), Duration::from_millis(1));
    }
}
