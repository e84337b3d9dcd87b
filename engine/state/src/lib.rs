//! State of operators: key encoding and key groups, key indexes, snapshot files.
//!
//! Does no I/O of its own: files are byte buffers here, the runtime moves them. How key groups and list state are given
//! out after a change of parallelism is decided in `streamjob_protocol`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod encoding;
mod error;
mod integer_table;
pub mod key_index;
pub mod keys;
pub mod snapshot;

pub use error::StateError;
pub use key_index::KeyIndex;

use arrow::array::{BooleanArray, RecordBatch};
use streamjob_protocol::manifest::ListStateHandle;

/// How much of its tables an operator hands over at a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Rows that changed since the last cut of this kind or a whole one.
    Changes,
    /// Whole tables, which later changes are relative to.
    Whole,
    /// Whole tables for a place of their own, such as a savepoint: the next changes are relative to the cut before it.
    Copy,
}

/// Changed rows of one keyed table, cut synchronously at a barrier. Cheap to make: O(changed rows).
#[derive(Debug, Clone)]
pub struct KeyedDelta {
    /// Name of the table within its operator.
    pub name: String,
    /// The rows are the whole table, not only what changed since the last cut.
    pub full: bool,
    /// The first columns of `rows` that form the key.
    pub key_columns: usize,
    /// Key columns, then value columns, with their real types: other tools can read the file.
    pub rows: RecordBatch,
    /// Key group of each row.
    pub key_groups: Vec<u16>,
    /// Rows whose key was removed; their value columns carry no meaning.
    pub deleted: Option<BooleanArray>,
}

/// Rows of a keyed table as read back, to be applied in order: later rows replace earlier ones of the same key.
#[derive(Debug, Clone)]
pub struct KeyedRows {
    pub rows: RecordBatch,
    pub deleted: Option<BooleanArray>,
    /// They are from a whole table, so no two such rows have one key.
    pub whole: bool,
}

/// What an operator hands over at a barrier.
#[derive(Debug, Clone, Default)]
pub struct StateCut {
    pub keyed: Vec<KeyedDelta>,
    pub lists: Vec<ListStateHandle>,
}
