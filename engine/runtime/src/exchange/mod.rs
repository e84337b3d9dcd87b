//! How elements get from task to task: input gates, senders with byte credit, partitioning, the network between workers.

pub mod codec;
pub mod gate;
pub mod network;
pub mod output;

use streamjob_dataflow::Batch;
use streamjob_protocol::coordinator::Barrier;

/// Bytes that may wait in one channel. A channel blocked for alignment holds its own budget only, so it never blocks
/// another. Big enough for a few full batches, small enough that alignment stays short.
pub const CHANNEL_CREDIT: usize = 1 << 20;

/// What flows through a channel, in order.
#[derive(Debug, Clone)]
pub enum Element {
    Batch(Batch),
    Watermark(i64),
    /// The channel has nothing to say about event time (`true`), or again has (`false`).
    Idle(bool),
    Barrier(Barrier),
    /// The checkpoint was aborted upstream; alignment for it is over.
    CancelCheckpoint(u64),
    /// All data was sent; barriers may follow.
    EndOfData,
    /// The producer is gone for good.
    Closed,
}

/// Bytes of a batch as far as back-pressure is concerned. A slice counts its own rows, not its parent's buffers.
pub fn batch_bytes(batch: &Batch) -> usize {
    let data: usize = batch
        .rows
        .columns()
        .iter()
        .map(|column| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()))
        .sum();
    data + batch.kinds.as_ref().map_or(0, |kinds| kinds.len())
}
