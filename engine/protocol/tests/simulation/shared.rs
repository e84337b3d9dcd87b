//! What all simulated processes stand on: the clock, the dice, the store, data channels, the checker, the trace.

use crate::job::{RecordId, Row};
use crate::mutant::Mutant;
use crate::oracle::Oracle;
use crate::store::{Store, Transaction};
use std::collections::{BTreeMap, VecDeque};
use streamjob_protocol::coordinator::Barrier;
use streamjob_protocol::ids::{CheckpointId, DeploymentId, Millis};
use streamjob_protocol::random::Random;

/// Lines of a trace that are kept.
const TRACE_LINES: usize = 200;

/// Coordinator, deployment, number of the channel in the plan.
pub type ChannelKey = (usize, DeploymentId, u32);

#[derive(Debug, Clone)]
pub enum Element {
    Record(RecordId),
    Row(Row),
    Barrier(Barrier),
    Cancel(CheckpointId),
    EndOfData,
    Closed,
}

/// The product's generator with what a scheduler needs.
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(Random::new(seed))
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.between(low, high)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.between(1, times) == 1
    }

    pub fn choose<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        Some(items[self.between(0, items.len() as u64 - 1) as usize])
    }

    pub fn raw(&mut self) -> &mut Random {
        &mut self.0
    }
}

pub struct Shared {
    pub now: Millis,
    pub random: Dice,
    pub store: Store,
    pub oracle: Oracle,
    pub mutant: Option<Mutant>,
    pub faults_on: bool,
    /// Requests to the store fail, in one way or another.
    pub outage_until: Millis,
    pub slow_until: Millis,
    channels: BTreeMap<ChannelKey, VecDeque<Element>>,
    /// Channels that a last barrier went through.
    ended_by: BTreeMap<ChannelKey, CheckpointId>,
    trace: Option<VecDeque<String>>,
}

impl Shared {
    pub fn new(random: Dice, exactly_once: bool, mutant: Option<Mutant>, traced: bool) -> Self {
        Shared {
            now: 1_000,
            random,
            store: Store::default(),
            oracle: Oracle::new(exactly_once),
            mutant,
            faults_on: true,
            outage_until: 0,
            slow_until: 0,
            channels: BTreeMap::new(),
            ended_by: BTreeMap::new(),
            trace: traced.then(VecDeque::new),
        }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:>6} {}", self.now, line()));
        }
    }

    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().into_iter().flatten().collect()
    }

    pub fn store_is_slow(&self) -> bool {
        self.now < self.slow_until
    }

    /// Whether this request fails.
    pub fn store_fails(&mut self) -> bool {
        self.now < self.outage_until && !self.random.once_in(3)
    }

    pub fn begin_transaction(&mut self, rows: Vec<Row>) -> u64 {
        let name = self.store.fresh_name();
        self.store.transactions.insert(name, Transaction { rows, visible: false });
        name
    }

    pub fn waiting(&self, channel: &ChannelKey) -> usize {
        self.channels.get(channel).map_or(0, VecDeque::len)
    }

    pub fn receive(&mut self, channel: &ChannelKey) -> Option<Element> {
        self.channels.get_mut(channel)?.pop_front()
    }

    /// The producer was told that nothing comes of this last checkpoint.
    pub fn goes_on(&mut self, channel: &ChannelKey, checkpoint: CheckpointId) {
        if self.ended_by.get(channel) == Some(&checkpoint) {
            self.ended_by.remove(channel);
        }
    }

    pub fn send(&mut self, channel: ChannelKey, element: Element) {
        match (&element, self.ended_by.get(&channel)) {
            (Element::Barrier(barrier), _) if barrier.last => {
                self.ended_by.insert(channel, barrier.checkpoint);
            }
            (Element::Record(_), Some(last)) => {
                let what = format!("data follows the last barrier, of checkpoint {last}, in channel {channel:?}");
                self.oracle.violate("last", what);
            }
            _ => {}
        }
        let queue = self.channels.entry(channel).or_default();
        let overtakes = self.mutant == Some(Mutant::BarrierOvertakesRecord)
            && matches!(element, Element::Barrier(_))
            && matches!(queue.back(), Some(Element::Record(_)));
        queue.push_back(element);
        if overtakes {
            let last = queue.len() - 1;
            queue.swap(last, last - 1);
        }
    }

    pub fn drop_channel(&mut self, channel: &ChannelKey) {
        self.channels.remove(channel);
        self.ended_by.remove(channel);
    }
}
