//! Barrier alignment of one task: when its inputs have reached the same point, and which of them must wait till then.
//!
//! Decides only. It neither reads channels nor takes snapshots: the task carries out the [`Alignment`]s it gets, in
//! order, before it reads the next element. A channel that is blocked is not read, so nothing arrives from it.

use crate::coordinator::{Barrier, DeclineReason};
use crate::ids::{CheckpointId, Millis};
use std::collections::{BTreeMap, BTreeSet};
use streamjob_api::config::CheckpointMode;

/// At-least-once mode counts barriers of this many checkpoints at once; older ones are given up, as in Flink.
const MAX_COUNTED_CHECKPOINTS: usize = 50;
/// Aborted checkpoints whose barriers may still arrive. A forgotten one costs an alignment that the next barrier ends.
const MAX_REMEMBERED_ABORTS: usize = 128;

/// What the task has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alignment {
    /// Stop reading this channel.
    Block(usize),
    /// Read these channels again.
    Unblock(Vec<usize>),
    /// All inputs are at the barrier: forward it and cut the state.
    Checkpoint {
        barrier: Barrier,
        /// Trigger to first barrier.
        start_delay_ms: u64,
        /// First to last barrier.
        alignment_ms: u64,
    },
    /// The checkpoint cannot be taken here: decline it to the coordinator.
    Abort { checkpoint: CheckpointId, reason: DeclineReason },
    /// Tell the tasks downstream not to wait for this checkpoint's barrier.
    ForwardCancel(CheckpointId),
}

#[derive(Debug, Clone)]
struct Pending {
    barrier: Barrier,
    first_at: Millis,
    arrived: Vec<bool>,
}

/// Tracks the barriers of one task's input channels, numbered from 0. A source has none. `now` is Unix time, like the
/// barrier's own time stamp.
#[derive(Debug, Clone)]
pub struct Aligner {
    mode: CheckpointMode,
    ended: Vec<bool>,
    blocked: Vec<bool>,
    /// Checkpoints with a barrier on some input; at most one in exactly-once mode.
    pending: BTreeMap<CheckpointId, Pending>,
    /// The newest checkpoint taken: barriers of it and of older ones are dropped.
    taken: CheckpointId,
    aborted: BTreeSet<CheckpointId>,
}

impl Aligner {
    pub fn new(channels: usize, mode: CheckpointMode) -> Self {
        Aligner {
            mode,
            ended: vec![false; channels],
            blocked: vec![false; channels],
            pending: BTreeMap::new(),
            taken: 0,
            aborted: BTreeSet::new(),
        }
    }

    /// The channel waits for the others and must not be read.
    pub fn is_blocked(&self, channel: usize) -> bool {
        self.blocked.get(channel).copied().unwrap_or(false)
    }

    /// A barrier arrived in the channel, after everything that was sent before it.
    pub fn on_barrier(&mut self, channel: usize, barrier: Barrier, now: Millis) -> Vec<Alignment> {
        let mut out = Vec::new();
        let checkpoint = barrier.checkpoint;
        if channel >= self.ended.len() || !self.admit(barrier, now, &mut out) {
            return out;
        }
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.arrived[channel] = true;
        }
        if self.mode == CheckpointMode::ExactlyOnce && !self.is_complete(checkpoint) {
            self.blocked[channel] = true;
            out.push(Alignment::Block(channel));
        }
        self.complete(checkpoint, now, &mut out);
        out
    }

    /// The coordinator triggers this task directly: it is a source, or all tasks before it have finished. Inputs whose
    /// end is still on its way are waited for, so that nothing they carry is missed.
    pub fn on_trigger(&mut self, barrier: Barrier, now: Millis) -> Vec<Alignment> {
        let mut out = Vec::new();
        let checkpoint = barrier.checkpoint;
        if self.admit(barrier, now, &mut out) {
            self.complete(checkpoint, now, &mut out);
        }
        out
    }

    /// A task upstream gave the checkpoint up.
    pub fn on_cancel_marker(&mut self, _channel: usize, checkpoint: CheckpointId) -> Vec<Alignment> {
        let mut out = Vec::new();
        if self.is_settled(checkpoint) {
            return out;
        }
        self.give_up(checkpoint, &mut out);
        out.insert(0, Alignment::Abort { checkpoint, reason: DeclineReason::OnCancellationBarrier });
        out
    }

    /// Nothing more comes from the channel: it has reached every barrier that it could.
    pub fn on_channel_end(&mut self, channel: usize, now: Millis) -> Vec<Alignment> {
        let mut out = Vec::new();
        if let Some(ended) = self.ended.get_mut(channel) {
            *ended = true;
        }
        for checkpoint in self.pending.keys().copied().collect::<Vec<_>>() {
            self.complete(checkpoint, now, &mut out);
        }
        out
    }

    /// The coordinator aborted the checkpoint.
    pub fn abort(&mut self, checkpoint: CheckpointId) -> Vec<Alignment> {
        let mut out = Vec::new();
        if !self.is_settled(checkpoint) {
            self.give_up(checkpoint, &mut out);
        }
        out
    }

    /// Taken, subsumed or aborted: its barriers mean nothing any more.
    fn is_settled(&self, checkpoint: CheckpointId) -> bool {
        checkpoint <= self.taken || self.aborted.contains(&checkpoint)
    }

    /// Makes room for the barrier's checkpoint; false if it is settled already.
    fn admit(&mut self, barrier: Barrier, now: Millis, out: &mut Vec<Alignment>) -> bool {
        let checkpoint = barrier.checkpoint;
        if checkpoint <= self.taken {
            return false;
        }
        if self.mode == CheckpointMode::ExactlyOnce {
            // The input with the newer barrier will never deliver the older one.
            self.subsume_older_than(checkpoint, out);
            if self.pending.keys().any(|newer| *newer > checkpoint) {
                return false;
            }
        }
        if self.is_settled(checkpoint) {
            return false;
        }
        let channels = self.ended.len();
        self.pending.entry(checkpoint).or_insert_with(|| Pending {
            barrier,
            first_at: now,
            arrived: vec![false; channels],
        });
        if self.pending.len() > MAX_COUNTED_CHECKPOINTS
            && let Some(oldest) = self.pending.keys().next().copied()
        {
            self.subsume(oldest, out);
        }
        self.pending.contains_key(&checkpoint)
    }

    fn is_complete(&self, checkpoint: CheckpointId) -> bool {
        self.pending
            .get(&checkpoint)
            .is_some_and(|pending| pending.arrived.iter().zip(&self.ended).all(|(arrived, ended)| *arrived || *ended))
    }

    fn complete(&mut self, checkpoint: CheckpointId, now: Millis, out: &mut Vec<Alignment>) {
        if !self.is_complete(checkpoint) {
            return;
        }
        let Some(pending) = self.pending.remove(&checkpoint) else {
            return;
        };
        self.subsume_older_than(checkpoint, out);
        self.taken = checkpoint;
        self.aborted = self.aborted.split_off(&(checkpoint + 1));
        out.push(Alignment::Checkpoint {
            start_delay_ms: pending.first_at.saturating_sub(pending.barrier.triggered_at),
            alignment_ms: now.saturating_sub(pending.first_at),
            barrier: pending.barrier,
        });
        self.unblock(out);
    }

    fn subsume_older_than(&mut self, checkpoint: CheckpointId, out: &mut Vec<Alignment>) {
        for older in self.pending.range(..checkpoint).map(|(older, _)| *older).collect::<Vec<_>>() {
            self.subsume(older, out);
        }
    }

    fn subsume(&mut self, checkpoint: CheckpointId, out: &mut Vec<Alignment>) {
        out.push(Alignment::Abort { checkpoint, reason: DeclineReason::Subsumed });
        self.give_up(checkpoint, out);
    }

    fn give_up(&mut self, checkpoint: CheckpointId, out: &mut Vec<Alignment>) {
        self.aborted.insert(checkpoint);
        if self.aborted.len() > MAX_REMEMBERED_ABORTS {
            self.aborted.pop_first();
        }
        out.push(Alignment::ForwardCancel(checkpoint));
        if self.pending.remove(&checkpoint).is_some() {
            self.unblock(out);
        }
    }

    fn unblock(&mut self, out: &mut Vec<Alignment>) {
        let waiting: Vec<usize> = (0..self.blocked.len()).filter(|channel| self.blocked[*channel]).collect();
        self.blocked.fill(false);
        if !waiting.is_empty() {
            out.push(Alignment::Unblock(waiting));
        }
    }
}

#[cfg(test)]
mod tests;
