//! Restart strategies: how long to wait after a failure, and when to give up. Knows nothing of tasks or regions.

use crate::ids::Millis;
use crate::random::Random;
use std::collections::VecDeque;
use streamjob_api::config::RestartStrategy;

#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Restart {
        /// From now to the restart.
        delay_ms: u64,
        /// The failure belongs to a restart that was already planned, so it is not a further one.
        merged: bool,
    },
    GiveUp {
        reason: String,
    },
}

/// Decides for one job over the life of its coordinator.
#[derive(Debug, Clone)]
pub struct RestartDecider {
    strategy: RestartStrategy,
    jitter: Random,
    /// Failures counted since the start (fixed delay) or since the last reset (exponential delay).
    failures: u32,
    /// Failure rate: times of the newest failures, one more than an interval may hold.
    recent: VecDeque<Millis>,
    /// Exponential delay: when the newest planned restart happens or happened.
    planned: Option<Millis>,
}

impl RestartDecider {
    pub fn new(strategy: &RestartStrategy, jitter: Random) -> Self {
        RestartDecider { strategy: strategy.clone(), jitter, failures: 0, recent: VecDeque::new(), planned: None }
    }

    /// Takes note of a failure at `now` (monotonic). `recoverable` is false if no restart can help.
    pub fn on_failure(&mut self, now: Millis, recoverable: bool) -> Decision {
        if !recoverable {
            return Decision::GiveUp { reason: "a restart cannot help".into() };
        }
        match self.strategy.clone() {
            RestartStrategy::None => Decision::GiveUp { reason: "the restart strategy is none".into() },
            RestartStrategy::FixedDelay { attempts, delay_ms } => {
                self.failures = self.failures.saturating_add(1);
                if self.failures > attempts {
                    return Decision::GiveUp {
                        reason: format!(
                            "the restart strategy fixed-delay allows {attempts} restarts, this is failure {}",
                            self.failures
                        ),
                    };
                }
                Decision::Restart { delay_ms, merged: false }
            }
            RestartStrategy::FailureRate { max_failures_per_interval, interval_ms, delay_ms } => {
                let kept = (max_failures_per_interval as usize).saturating_add(1);
                while self.recent.len() >= kept {
                    self.recent.pop_front();
                }
                self.recent.push_back(now);
                let earliest = self.recent.front().copied().unwrap_or(now);
                if self.recent.len() >= kept && now.saturating_sub(earliest) <= interval_ms {
                    return Decision::GiveUp {
                        reason: format!(
                            "the restart strategy failure-rate allows {max_failures_per_interval} failures in \
                             {interval_ms} ms, this is number {kept} in {} ms",
                            now.saturating_sub(earliest)
                        ),
                    };
                }
                Decision::Restart { delay_ms, merged: false }
            }
            RestartStrategy::ExponentialDelay {
                initial_backoff_ms,
                max_backoff_ms,
                backoff_multiplier,
                reset_backoff_threshold_ms,
                jitter_factor,
                attempts_before_reset,
            } => {
                if let Some(planned) = self.planned {
                    if now < planned {
                        return Decision::Restart { delay_ms: planned - now, merged: true };
                    }
                    if now - planned >= reset_backoff_threshold_ms {
                        self.failures = 0;
                    }
                }
                if self.failures >= attempts_before_reset {
                    return Decision::GiveUp {
                        reason: format!(
                            "the restart strategy exponential-delay allows {attempts_before_reset} restarts without \
                             {reset_backoff_threshold_ms} ms of quiet between them"
                        ),
                    };
                }
                let base = exponential_backoff(initial_backoff_ms, max_backoff_ms, backoff_multiplier, self.failures);
                let delay_ms =
                    self.with_jitter(base, jitter_factor).clamp(initial_backoff_ms.min(max_backoff_ms), max_backoff_ms);
                self.failures = self.failures.saturating_add(1);
                self.planned = Some(now.saturating_add(delay_ms));
                Decision::Restart { delay_ms, merged: false }
            }
        }
    }

    fn with_jitter(&mut self, base: u64, factor: f64) -> u64 {
        let span = (base as f64 * factor.clamp(0.0, 1.0)) as u64;
        self.jitter.between(base - span, base.saturating_add(span))
    }
}

/// initial · multiplier^attempt, at most `max`. Milliseconds; `attempt` starts at 0.
pub fn exponential_backoff(initial_ms: u64, max_ms: u64, multiplier: f64, attempt: u32) -> u64 {
    let exponent = i32::try_from(attempt).unwrap_or(i32::MAX);
    let backoff = initial_ms as f64 * multiplier.powi(exponent);
    if backoff >= max_ms as f64 { max_ms } else { backoff as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decider(strategy: RestartStrategy) -> RestartDecider {
        RestartDecider::new(&strategy, Random::new(1))
    }

    fn exponential(jitter_factor: f64, attempts_before_reset: u32) -> RestartStrategy {
        RestartStrategy::ExponentialDelay {
            initial_backoff_ms: 1_000,
            max_backoff_ms: 60_000,
            backoff_multiplier: 1.5,
            reset_backoff_threshold_ms: 3_600_000,
            jitter_factor,
            attempts_before_reset,
        }
    }

    fn delay(decision: Decision) -> u64 {
        match decision {
            Decision::Restart { delay_ms, .. } => delay_ms,
            Decision::GiveUp { reason } => panic!("gave up: {reason}"),
        }
    }

    fn gives_up(decision: Decision) -> bool {
        matches!(decision, Decision::GiveUp { .. })
    }

    #[test]
    fn r38_fixed_delay_allows_exactly_the_attempts() {
        for (attempts, delay_ms) in [(0, 5_000), (1, 1_000), (3, 5_000), (3, 10_000)] {
            let mut decider = decider(RestartStrategy::FixedDelay { attempts, delay_ms });
            for attempt in 0..u64::from(attempts) {
                assert_eq!(delay(decider.on_failure(attempt * 1_000_000_000, true)), delay_ms);
            }
            assert!(gives_up(decider.on_failure(u64::MAX / 2, true)), "{attempts} attempts");
        }
    }

    #[test]
    fn r39_failure_rate_boundary() {
        let strategy =
            RestartStrategy::FailureRate { max_failures_per_interval: 3, interval_ms: 300_000, delay_ms: 10_000 };
        let cases = [(30_000, true), (299_999, true), (300_000, true), (300_001, false)];
        for (fourth, expected) in cases {
            let mut decider = decider(strategy.clone());
            for at in [0, 10_000, 20_000] {
                assert_eq!(delay(decider.on_failure(at, true)), 10_000);
            }
            assert_eq!(gives_up(decider.on_failure(fourth, true)), expected, "fourth failure at {fourth} ms");
        }
        let mut decider = decider(strategy);
        for at in [0, 10_000, 20_000, 300_001] {
            delay(decider.on_failure(at, true));
        }
        assert!(gives_up(decider.on_failure(300_002, true)), "10 s, 20 s, 300.001 s and 300.002 s are four in 5 min");
    }

    #[test]
    fn r39_failure_rate_of_zero_never_restarts() {
        let mut decider =
            decider(RestartStrategy::FailureRate { max_failures_per_interval: 0, interval_ms: 1_000, delay_ms: 1 });
        assert!(gives_up(decider.on_failure(5, true)));
    }

    #[test]
    fn r40_none_gives_up_at_once() {
        assert!(gives_up(decider(RestartStrategy::None).on_failure(0, true)));
    }

    #[test]
    fn r41_exponential_default_series() {
        let mut decider = decider(exponential(0.0, u32::MAX));
        let series = [1_000, 1_500, 2_250, 3_375, 5_062, 7_593, 11_390, 17_085, 25_628, 38_443, 57_665, 60_000, 60_000];
        let mut now = 0;
        for expected in series {
            let delay_ms = delay(decider.on_failure(now, true));
            assert_eq!(delay_ms, expected);
            now += delay_ms + 1;
        }
    }

    #[test]
    fn exponential_merges_failures_before_the_planned_restart() {
        let mut decider = decider(exponential(0.0, u32::MAX));
        assert_eq!(decider.on_failure(100, true), Decision::Restart { delay_ms: 1_000, merged: false });
        assert_eq!(decider.on_failure(400, true), Decision::Restart { delay_ms: 700, merged: true });
        assert_eq!(decider.on_failure(1_099, true), Decision::Restart { delay_ms: 1, merged: true });
        assert_eq!(decider.on_failure(1_100, true), Decision::Restart { delay_ms: 1_500, merged: false });
    }

    #[test]
    fn exponential_resets_after_the_threshold() {
        for (quiet, expected) in [(3_599_999, 1_500), (3_600_000, 1_000)] {
            let mut decider = decider(exponential(0.0, u32::MAX));
            assert_eq!(delay(decider.on_failure(0, true)), 1_000);
            assert_eq!(delay(decider.on_failure(1_000 + quiet, true)), expected, "{quiet} ms of quiet");
        }
    }

    #[test]
    fn exponential_gives_up_after_the_attempts_and_a_reset_gives_them_back() {
        let mut stubborn = decider(exponential(0.0, 2));
        delay(stubborn.on_failure(0, true));
        delay(stubborn.on_failure(10_000, true));
        let mut patient = stubborn.clone();
        assert!(gives_up(stubborn.on_failure(20_000, true)));
        assert_eq!(delay(patient.on_failure(10_000 + 1_500 + 3_600_000, true)), 1_000);
    }

    #[test]
    fn exponential_jitter_stays_within_its_share_and_the_bounds() {
        let mut decider = decider(exponential(0.1, u32::MAX));
        let mut now = 0;
        let mut varied = false;
        for attempt in 0..40 {
            let base = exponential_backoff(1_000, 60_000, 1.5, attempt);
            let delay_ms = delay(decider.on_failure(now, true));
            assert!(delay_ms.abs_diff(base) <= base / 10, "{delay_ms} is not within a tenth of {base}");
            assert!((1_000..=60_000).contains(&delay_ms));
            varied |= delay_ms != base;
            now += delay_ms;
        }
        assert!(varied);
    }

    #[test]
    fn an_unrecoverable_failure_ends_every_strategy() {
        let fixed = RestartStrategy::FixedDelay { attempts: 9, delay_ms: 1 };
        for strategy in [fixed, exponential(0.1, u32::MAX)] {
            assert!(gives_up(decider(strategy).on_failure(0, false)));
        }
    }
}
