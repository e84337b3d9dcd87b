//! A batch of rows of a changelog.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// How a row changes the result, as in Flink's changelogs.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    Insert = 0,
    UpdateBefore = 1,
    UpdateAfter = 2,
    Delete = 3,
}

impl RowKind {
    /// `+I`, `-U`, `+U`, `-D`.
    pub fn symbol(self) -> &'static str {
        match self {
            RowKind::Insert => "+I",
            RowKind::UpdateBefore => "-U",
            RowKind::UpdateAfter => "+U",
            RowKind::Delete => "-D",
        }
    }

    pub fn from_byte(byte: u8) -> RowKind {
        match byte {
            1 => RowKind::UpdateBefore,
            2 => RowKind::UpdateAfter,
            3 => RowKind::Delete,
            _ => RowKind::Insert,
        }
    }

    /// Whether the row takes something away.
    pub fn is_retraction(self) -> bool {
        matches!(self, RowKind::UpdateBefore | RowKind::Delete)
    }
}

/// Rows, columnar; `kinds` is absent when every row is an insert.
#[derive(Debug, Clone)]
pub struct Batch {
    pub rows: RecordBatch,
    /// One [`RowKind`] byte a row.
    pub kinds: Option<Arc<[u8]>>,
}

impl Batch {
    pub fn inserts(rows: RecordBatch) -> Self {
        Batch { rows, kinds: None }
    }

    pub fn changes(rows: RecordBatch, kinds: Vec<u8>) -> Self {
        debug_assert_eq!(rows.num_rows(), kinds.len());
        Batch { rows, kinds: Some(kinds.into()) }
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn kind(&self, row: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |kinds| RowKind::from_byte(kinds[row]))
    }
}
