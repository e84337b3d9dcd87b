//! The stateful streaming operators of SQL. They work on columns by position: a preceding projection has evaluated every
//! argument. What a query means is decided by the planner.

pub mod aggregates;
pub mod group_aggregate;
mod key_table;
pub mod local_aggregate;
mod state_tables;
pub mod window_aggregate;
mod window_rows;

use arrow::datatypes::SchemaRef;
use streamjob_dataflow::TaskError;
use streamjob_state::StateError;

pub use crate::functions::WindowSpec;
pub use aggregates::{AggregateCall, AggregateFunction};
pub use group_aggregate::{GroupAggregate, GroupAggregateSpec};
pub use local_aggregate::{LocalAggregate, LocalAggregateSpec};
pub use window_aggregate::{WindowAggregate, WindowAggregateSpec, WindowTime};

/// Rows of an emitted batch at most, where an operator makes rows by itself.
pub(crate) const ROWS_PER_BATCH: usize = 8192;

/// What grouping operators read from their input.
#[derive(Debug, Clone, PartialEq)]
pub enum AggregateInput {
    /// Rows as they are: key columns, arguments and filters stand at any position.
    Rows { schema: SchemaRef, keys: Vec<usize> },
    /// Batches of a [`LocalAggregate`] with the same calls: first the keys, then partial results.
    Partials { schema: SchemaRef, keys: usize },
}

impl AggregateInput {
    pub fn schema(&self) -> &SchemaRef {
        match self {
            AggregateInput::Rows { schema, .. } | AggregateInput::Partials { schema, .. } => schema,
        }
    }

    /// Positions of the key columns.
    pub(crate) fn keys(&self) -> Vec<usize> {
        match self {
            AggregateInput::Rows { keys, .. } => keys.clone(),
            AggregateInput::Partials { keys, .. } => (0..*keys).collect(),
        }
    }
}

pub(crate) fn state_error(error: StateError) -> TaskError {
    match error {
        StateError::TooManyKeys(_) => TaskError::Fatal(error.to_string()),
        other => TaskError::Data(other.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod testing;
