//! The producing side of an exchange: which rows go to which consumer.

use super::codec::Encoder;
use super::gate::Gate;
use super::network::RemoteChannel;
use super::{Element, batch_bytes};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use std::sync::Arc;
use std::time::Duration;
use streamjob_dataflow::graph::Exchange;
use streamjob_dataflow::{Batch, TaskError};
use streamjob_protocol::key_groups::subtask_of;
use streamjob_state::keys;

/// One channel as its producer sees it.
pub enum Sender {
    Local { gate: Arc<Gate>, channel: usize },
    Remote { channel: Arc<RemoteChannel>, encoder: Box<Encoder> },
}

impl Sender {
    /// Returns how long it waited for the consumer.
    fn send(&mut self, element: Element, producer: &Gate) -> Result<Duration, TaskError> {
        match self {
            Sender::Local { gate, channel } => {
                let bytes = match &element {
                    Element::Batch(batch) => batch_bytes(batch).max(1),
                    _ => 0,
                };
                gate.push_local(*channel, element, bytes, producer)
            }
            Sender::Remote { channel, encoder } => {
                let is_data = matches!(element, Element::Batch(_));
                let payload = encoder.encode(&element)?;
                channel.send(&payload, is_data, producer)
            }
        }
    }
}

/// All channels of one edge from one subtask.
pub struct Output {
    exchange: Exchange,
    senders: Vec<Sender>,
    max_parallelism: u32,
    /// Consumer of each key group, for hash exchanges.
    owners: Vec<u32>,
    next: usize,
    /// Scratch, kept between batches.
    key_groups: Vec<u16>,
    order: Vec<u32>,
    /// Time spent waiting for consumers.
    pub waited: Duration,
    producer: Arc<Gate>,
}

impl Output {
    pub fn new(exchange: Exchange, senders: Vec<Sender>, max_parallelism: u32, producer: Arc<Gate>) -> Output {
        let owner = |group: u32| subtask_of(group as u16, max_parallelism, senders.len() as u32);
        let owners = match exchange {
            Exchange::Hash(_) => (0..max_parallelism).map(owner).collect(),
            _ => Vec::new(),
        };
        Output {
            exchange,
            senders,
            max_parallelism,
            owners,
            next: 0,
            key_groups: Vec::new(),
            order: Vec::new(),
            waited: Duration::ZERO,
            producer,
        }
    }

    fn send_to(&mut self, target: usize, element: Element) -> Result<(), TaskError> {
        self.waited += self.senders[target].send(element, &self.producer)?;
        Ok(())
    }

    /// Watermarks, barriers and ends go to every consumer.
    pub fn broadcast(&mut self, element: &Element) -> Result<(), TaskError> {
        for target in 0..self.senders.len() {
            self.send_to(target, element.clone())?;
        }
        Ok(())
    }

    pub fn send(&mut self, batch: Batch) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.senders.len() == 1 {
            return self.send_to(0, Element::Batch(batch));
        }
        match self.exchange.clone() {
            Exchange::Broadcast => self.broadcast(&Element::Batch(batch)),
            Exchange::Forward => Err(TaskError::Fatal("a forward exchange has more than one consumer".into())),
            Exchange::Rebalance => {
                let target = self.next;
                self.next = (target + 1) % self.senders.len();
                self.send_to(target, Element::Batch(batch))
            }
            Exchange::Hash(columns) => self.send_by_key(batch, &columns),
        }
    }

    /// Counting sort of the rows by consumer, one gather, then zero-copy slices: cheaper than a filter a consumer.
    fn send_by_key(&mut self, batch: Batch, columns: &[usize]) -> Result<(), TaskError> {
        let keys: Vec<ArrayRef> = columns.iter().map(|&column| batch.rows.column(column).clone()).collect();
        keys::key_groups(&keys, self.max_parallelism, &mut self.key_groups)
            .map_err(|error| TaskError::Fatal(error.to_string()))?;
        let consumers = self.senders.len();
        let owner = &self.owners;
        let mut counts = vec![0u32; consumers + 1];
        for &group in &self.key_groups {
            counts[owner[group as usize] as usize + 1] += 1;
        }
        for target in 0..consumers {
            counts[target + 1] += counts[target];
        }
        let starts = counts.clone();
        if let Some(only) = (0..consumers).find(|&target| starts[target + 1] - starts[target] == batch.len() as u32) {
            return self.send_to(only, Element::Batch(batch));
        }
        self.order.clear();
        self.order.resize(batch.len(), 0);
        for (row, &group) in self.key_groups.iter().enumerate() {
            let cursor = &mut counts[owner[group as usize] as usize];
            self.order[*cursor as usize] = row as u32;
            *cursor += 1;
        }
        let order = UInt32Array::from(std::mem::take(&mut self.order));
        let sorted =
            batch.rows.columns().iter().map(|column| take(column, &order, None)).collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatch::try_new(batch.rows.schema(), sorted)?;
        for target in 0..consumers {
            let (start, end) = (starts[target] as usize, starts[target + 1] as usize);
            if start == end {
                continue;
            }
            let kinds = batch
                .kinds
                .as_ref()
                .map(|kinds| order.values()[start..end].iter().map(|&row| kinds[row as usize]).collect::<Arc<[u8]>>());
            self.send_to(target, Element::Batch(Batch { rows: rows.slice(start, end - start), kinds }))?;
        }
        self.order = order.into_parts().1.into_inner().into_vec().unwrap_or_default();
        Ok(())
    }
}
