//! What a running job looks like to a person: numbers between two looks at it, as a block of lines or as one line.
//!
//! Only text is made here; where it goes is the display's business.

use crate::format::{bytes, count, duration_ms, number_of, time};
use crate::status::{Checkpoints, Operator, Status};
use std::collections::HashMap;

/// More operators than this are summed up in one line.
const OPERATORS_SHOWN: usize = 16;
const NAME_WIDTH: usize = 44;
const DAY_MS: u64 = 86_400_000;

/// The job at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    pub status: Status,
    /// On a clock that never goes back.
    pub at_ms: u64,
    pub unix_ms: u64,
}

/// Remembers the last look, for rates.
#[derive(Debug, Default)]
pub struct Progress {
    last: Option<Look>,
    /// By uid: rows in and out a second.
    rates: HashMap<String, (f64, f64)>,
}

impl Progress {
    pub fn update(&mut self, look: Look) {
        if let Some(last) = &self.last {
            let seconds = look.at_ms.saturating_sub(last.at_ms) as f64 / 1000.0;
            let before: HashMap<&str, &Operator> =
                last.status.operators.iter().map(|operator| (operator.uid.as_str(), operator)).collect();
            let rate = |operator: &Operator| {
                let earlier = before.get(operator.uid.as_str());
                let rows_in = increase(earlier.map_or(0, |earlier| earlier.records_in), operator.records_in);
                let rows_out = increase(earlier.map_or(0, |earlier| earlier.records_out), operator.records_out);
                (rows_in as f64 / seconds, rows_out as f64 / seconds)
            };
            if seconds > 0.0 {
                self.rates =
                    look.status.operators.iter().map(|operator| (operator.uid.clone(), rate(operator))).collect();
            }
        }
        self.last = Some(look);
    }

    pub fn last(&self) -> Option<&Look> {
        self.last.as_ref()
    }

    fn rate(&self, operator: &Operator) -> (f64, f64) {
        self.rates.get(&operator.uid).copied().unwrap_or_default()
    }

    /// For a terminal, redrawn in place.
    pub fn block(&self, name: &str, elapsed_ms: u64) -> Vec<String> {
        let Some(look) = &self.last else {
            return vec![format!("{name}  starting  {}", uptime(elapsed_ms))];
        };
        let status = &look.status;
        let mut lines = vec![format!(
            "{name}  {}  {}  {}  {}",
            status.state.to_uppercase(),
            uptime(elapsed_ms),
            number_of(status.workers.len() as u64, "worker"),
            number_of(status.restarts, "restart"),
        )];
        lines.push(format!(
            "  {:<NAME_WIDTH$} {:>4} {:>9} {:>9} {:>9} {:>9}  {}",
            "OPERATOR", "PAR", "IN", "IN/S", "OUT", "OUT/S", "WATERMARK"
        ));
        for operator in status.operators.iter().take(OPERATORS_SHOWN) {
            let (rate_in, rate_out) = self.rate(operator);
            lines.push(format!(
                "  {:<NAME_WIDTH$} {:>4} {:>9} {:>9} {:>9} {:>9}  {}",
                shortened(&operator.name),
                operator.parallelism,
                count(operator.records_in as f64),
                count(rate_in),
                count(operator.records_out as f64),
                count(rate_out),
                operator.watermark.map_or_else(|| "-".into(), |watermark| lag(watermark, look.unix_ms)),
            ));
        }
        if status.operators.len() > OPERATORS_SHOWN {
            lines.push(format!("  and {} more operators", status.operators.len() - OPERATORS_SHOWN));
        }
        lines.push(format!("  {}", checkpoints(&status.checkpoints, Some(look.unix_ms))));
        lines
    }

    /// For everything that is no terminal: equal while nothing changes.
    pub fn line(&self, name: &str) -> String {
        let Some(look) = &self.last else { return format!("{name}: starting") };
        let status = &look.status;
        let mut parts = vec![format!("{name}: {}", status.state.to_uppercase())];
        if let (Some(first), Some(last)) = (status.operators.first(), status.operators.last()) {
            parts.push(format!("read {} rows ({}/s)", count(first.records_out as f64), count(self.rate(first).1)));
            parts.push(format!("wrote {} rows ({}/s)", count(last.records_in as f64), count(self.rate(last).0)));
        }
        if let Some(watermark) = status.operators.iter().filter_map(|operator| operator.watermark).min() {
            parts.push(format!("watermark {}", lag(watermark, look.unix_ms)));
        }
        parts.push(checkpoints(&status.checkpoints, None));
        parts.push(number_of(status.restarts, "restart"));
        parts.join(", ")
    }
}

/// Whole seconds: finer ones would flicker.
fn uptime(elapsed_ms: u64) -> String {
    if elapsed_ms < 60_000 { format!("{} s", elapsed_ms / 1000) } else { duration_ms(elapsed_ms) }
}

/// Counters begin anew with a deployment.
fn increase(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// How far event time is behind, or where it is if it is elsewhere altogether: replayed or generated input.
fn lag(watermark: i64, unix_ms: u64) -> String {
    // The last watermark of input that has ended.
    if watermark == i64::MAX {
        return "end of input".into();
    }
    let behind = (i128::from(unix_ms) - i128::from(watermark)).max(0);
    match (u64::try_from(behind), u64::try_from(watermark)) {
        (Ok(behind), _) if behind < DAY_MS => format!("lag {}", duration_ms(behind)),
        (_, Ok(watermark)) => format!("at {}", time(watermark)),
        _ => "before 1970".into(),
    }
}

pub fn checkpoints(checkpoints: &Checkpoints, unix_ms: Option<u64>) -> String {
    let mut text = number_of(checkpoints.completed, "checkpoint");
    if checkpoints.failed > 0 {
        text.push_str(&format!(", {} failed", checkpoints.failed));
    }
    if let (Some(id), Some(duration)) = (checkpoints.last_id, checkpoints.last_duration_ms) {
        text.push_str(&format!(" (last: {id}, {}", duration_ms(duration)));
        if let (Some(new), Some(total)) = (checkpoints.last_bytes_new, checkpoints.last_bytes_total) {
            text.push_str(&format!(", {} new of {}", bytes(new), bytes(total)));
        }
        if let (Some(completed), Some(now)) = (checkpoints.last_completed_at, unix_ms) {
            text.push_str(&format!(", {} ago", duration_ms(now.saturating_sub(completed))));
        }
        text.push(')');
    }
    text
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_WIDTH {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(NAME_WIDTH - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(uid: &str, records_in: u64, records_out: u64, watermark: Option<i64>) -> Operator {
        Operator { uid: uid.into(), name: uid.into(), parallelism: 2, records_in, records_out, watermark }
    }

    fn look(at_ms: u64, operators: Vec<Operator>) -> Look {
        let status = Status {
            state: "Running".into(),
            restarts: 1,
            operators,
            checkpoints: Checkpoints {
                completed: 3,
                failed: 1,
                last_id: Some(4),
                last_duration_ms: Some(12),
                last_bytes_new: Some(2048),
                last_bytes_total: Some(4096),
                last_completed_at: Some(9_500),
                ..Checkpoints::default()
            },
            ..Status::default()
        };
        Look { status, at_ms, unix_ms: 10_000 }
    }

    #[test]
    fn before_the_first_look() {
        let progress = Progress::default();
        assert_eq!(progress.line("visits"), "visits: starting");
        assert_eq!(progress.block("visits", 2_300), ["visits  starting  2 s"]);
    }

    #[test]
    fn one_line() {
        let mut progress = Progress::default();
        progress.update(look(1_000, vec![operator("source", 0, 100, None), operator("sink", 50, 0, Some(8_000))]));
        progress.update(look(3_000, vec![operator("source", 0, 20_100, None), operator("sink", 250, 0, Some(8_000))]));
        assert_eq!(
            progress.line("visits"),
            "visits: RUNNING, read 20.1 k rows (10.0 k/s), wrote 250 rows (100/s), watermark lag 2.00 s, 3 checkpoints, 1 \
             failed (last: 4, 12 ms, 2.00 KiB new of 4.00 KiB), 1 restart"
        );
    }

    #[test]
    fn a_block() {
        let mut progress = Progress::default();
        progress.update(look(0, vec![operator("source", 0, 0, None)]));
        progress.update(look(500, vec![operator("source", 0, 1_000, Some(i64::MAX))]));
        assert_eq!(
            progress.block("visits", 61_500),
            [
                "visits  RUNNING  1 min 1 s  0 workers  1 restart",
                "  OPERATOR                                      PAR        IN      IN/S       OUT     OUT/S  WATERMARK",
                "  source                                          2         0         0      1000      2000  end of input",
                "  3 checkpoints, 1 failed (last: 4, 12 ms, 2.00 KiB new of 4.00 KiB, 500 ms ago)",
            ]
        );
    }

    #[test]
    fn counters_that_begin_anew_give_no_absurd_rate() {
        let mut progress = Progress::default();
        progress.update(look(0, vec![operator("source", 0, 1_000_000, None)]));
        progress.update(look(1_000, vec![operator("source", 0, 500, None)]));
        assert_eq!(progress.rate(&operator("source", 0, 0, None)), (0.0, 500.0));
    }

    #[test]
    fn long_names_and_long_jobs_stay_in_bounds() {
        let mut progress = Progress::default();
        let operators = (0..20).map(|n| operator(&"é".repeat(50 + n), 0, 0, None)).collect();
        progress.update(look(0, operators));
        let block = progress.block("visits", 0);
        assert_eq!(block.len(), 2 + OPERATORS_SHOWN + 2);
        assert_eq!(block[OPERATORS_SHOWN + 2], "  and 4 more operators");
        assert!(block[2].contains(&format!("{}…", "é".repeat(NAME_WIDTH - 1))));
    }

    #[test]
    fn event_time() {
        let table = [
            (8_000, "lag 2.00 s"),
            (10_000, "lag 0 ms"),
            (99_000, "lag 0 ms"),
            (i64::MAX, "end of input"),
            (-86_300_000, "lag 23 h 58 min"),
            (-86_390_000, "before 1970"),
            (i64::MIN, "before 1970"),
        ];
        for (watermark, expected) in table {
            assert_eq!(lag(watermark, 10_000), expected, "{watermark}");
        }
        assert_eq!(lag(1_714_564_800_000, 1_714_564_800_000 + DAY_MS), "at 2024-05-01 12:00:00 UTC");
    }
}
