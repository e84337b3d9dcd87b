//! Combines the watermarks of a task's input channels: the minimum over those that are neither idle nor finished.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Active,
    Idle,
    /// All data arrived; its own status, so that a finished channel beside an idle one does not end event time.
    Finished,
}

#[derive(Debug)]
pub struct WatermarkValve {
    channels: Vec<(i64, Status)>,
    output: i64,
    idle: bool,
}

/// What the task's operators are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Watermark(i64),
    Idle(bool),
}

impl WatermarkValve {
    pub fn new(channels: usize) -> WatermarkValve {
        WatermarkValve { channels: vec![(i64::MIN, Status::Active); channels], output: i64::MIN, idle: false }
    }

    pub fn on_watermark(&mut self, channel: usize, watermark: i64) -> Vec<Told> {
        let state = &mut self.channels[channel];
        state.0 = state.0.max(watermark);
        if state.1 == Status::Idle {
            state.1 = Status::Active;
        }
        self.advance()
    }

    pub fn on_idle(&mut self, channel: usize, idle: bool) -> Vec<Told> {
        if self.channels[channel].1 != Status::Finished {
            self.channels[channel].1 = if idle { Status::Idle } else { Status::Active };
        }
        self.advance()
    }

    pub fn on_finished(&mut self, channel: usize) -> Vec<Told> {
        self.channels[channel] = (i64::MAX, Status::Finished);
        self.advance()
    }

    fn advance(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        let active = self.channels.iter().filter(|(_, status)| *status == Status::Active).map(|(wm, _)| *wm);
        let minimum = active.min();
        let all_finished = self.channels.iter().all(|(_, status)| *status == Status::Finished);
        let idle = minimum.is_none() && !all_finished;
        let candidate = match minimum {
            Some(minimum) => minimum,
            None if all_finished => i64::MAX,
            // Only idle and finished channels are left: the idle ones' own progress counts.
            None => self
                .channels
                .iter()
                .filter(|(_, status)| *status == Status::Idle)
                .map(|(wm, _)| *wm)
                .max()
                .unwrap_or(i64::MIN),
        };
        if self.idle && !idle {
            told.push(Told::Idle(false));
        }
        if candidate > self.output {
            self.output = candidate;
            told.push(Told::Watermark(candidate));
        }
        if idle && !self.idle {
            told.push(Told::Idle(true));
        }
        self.idle = idle;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_active_channel_decides() {
        let mut valve = WatermarkValve::new(2);
        assert!(valve.on_watermark(0, 10).is_empty());
        assert_eq!(valve.on_watermark(1, 5), [Told::Watermark(5)]);
        assert!(valve.on_watermark(1, 3).is_empty(), "watermarks never go back");
        assert_eq!(valve.on_idle(1, true), [Told::Watermark(10)]);
        assert_eq!(valve.on_idle(0, true), [Told::Idle(true)]);
        assert_eq!(valve.on_watermark(1, 20), [Told::Idle(false), Told::Watermark(20)]);
    }

    #[test]
    fn a_finished_channel_beside_an_idle_one_does_not_end_time() {
        let mut valve = WatermarkValve::new(2);
        valve.on_watermark(0, 10);
        valve.on_watermark(1, 10);
        assert_eq!(valve.on_idle(0, true), []);
        assert_eq!(valve.on_finished(1), [Told::Idle(true)]);
        assert_eq!(valve.on_finished(0), [Told::Idle(false), Told::Watermark(i64::MAX)]);
    }
}
