//! What a job is made of: batches, operators, sources, connectors, the job graph and how it is chained.
//!
//! Operators and connectors are written against this crate; the runtime executes what it describes. Nothing here runs.

pub mod batch;
pub mod connector;
pub mod error;
pub mod graph;
pub mod operator;

pub use batch::{Batch, RowKind};
pub use error::{PlanError, TaskError};
pub use operator::{
    Collector, Instance, Operator, OperatorContext, OperatorMetrics, OperatorRestore, Source, SourceEvent,
};
