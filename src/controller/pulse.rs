//! Whether the controllers go on: a pass that never ends, none at all for long, or a watch that has ended by itself can only be
//! cured by starting anew. An API server or a coordinator that is away is no such thing: passes fail then, and go on.

use super::run::RECONCILE;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pass has a limit of time; one that keeps to it no more does not even look at the clock.
const LONGEST_PASS: Duration = Duration::from_secs(2 * RECONCILE.as_secs());
/// Each job is looked at every minute; one that was refused for good, every five minutes or so.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Pulse(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the last pass ended, or when acting began; absent while nothing is done.
    last: Option<Instant>,
    under_way: HashMap<u64, Instant>,
    next: u64,
    ended: Option<String>,
}

impl Pulse {
    /// From now on there are passes.
    pub fn activate(&self, now: Instant) {
        self.0.lock().last = Some(now);
    }

    /// A pass; until it is dropped.
    pub fn pass(self: &Arc<Self>, now: Instant) -> Pass {
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number, now);
        Pass { pulse: self.clone(), number }
    }

    /// A task that is to run for as long as the process, whatever happens to it; it has ended when this is dropped.
    pub fn task(self: &Arc<Self>, name: String) -> Task {
        Task { pulse: self.clone(), name }
    }

    /// Why nothing goes on, if that is so.
    pub fn stopped(&self, jobs: usize, now: Instant) -> Option<String> {
        let state = self.0.lock();
        if let Some(name) = &state.ended {
            return Some(format!("{name} has ended"));
        }
        let oldest = state.under_way.values().map(|began| now.saturating_duration_since(*began)).max();
        if let Some(oldest) = oldest.filter(|oldest| *oldest > LONGEST_PASS) {
            return Some(format!("a pass has been under way for {} s", oldest.as_secs()));
        }
        let silence = state.last.map(|last| now.saturating_duration_since(last)).filter(|_| jobs > 0)?;
        (silence > LONGEST_SILENCE).then(|| format!("no job was looked at for {} s", silence.as_secs()))
    }
}

pub struct Pass {
    pulse: Arc<Pulse>,
    number: u64,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.pulse.0.lock();
        state.under_way.remove(&self.number);
        if state.last.is_some() {
            state.last = Some(Instant::now());
        }
    }
}

pub struct Task {
    pulse: Arc<Pulse>,
    name: String,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.pulse.0.lock().ended.get_or_insert(std::mem::take(&mut self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_that_end_are_a_pulse() {
        let (pulse, began) = (Arc::new(Pulse::default()), Instant::now());
        let after = |more: Duration| began + more + Duration::from_secs(1);
        // A replica that stands by does nothing, for as long as it takes.
        assert_eq!(pulse.stopped(1, after(LONGEST_SILENCE)), None);
        pulse.activate(began);
        assert_eq!(pulse.stopped(1, began), None);
        assert_eq!(pulse.stopped(0, after(LONGEST_SILENCE)), None);
        assert!(pulse.stopped(1, after(LONGEST_SILENCE)).unwrap().starts_with("no job was looked at"));
        let pass = pulse.pass(began);
        assert_eq!(pulse.stopped(1, began + LONGEST_PASS), None);
        assert!(pulse.stopped(1, after(LONGEST_PASS)).unwrap().starts_with("a pass has been under way"));
        drop(pass);
        assert_eq!(pulse.stopped(1, after(LONGEST_PASS)), None);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed() {
        let pulse = Arc::new(Pulse::default());
        let task = pulse.task("the watch of pods".into());
        assert_eq!(pulse.stopped(1, Instant::now()), None);
        let panics = tokio::spawn(async move {
            let _task = task;
            panic!("on purpose");
        });
        assert!(panics.await.is_err());
        assert_eq!(pulse.stopped(0, Instant::now()).as_deref(), Some("the watch of pods has ended"));
    }
}
