//! Flink SQL to a job graph, and the streaming operators that SQL needs.
//!
//! Planning only decides; nothing here runs a job, reads a file or knows a connector by name.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bind;
pub mod calc;
mod catalog;
mod check;
mod ddl;
mod dialect;
mod functions;
pub mod operators;
mod planner;
mod position;
pub mod program;
mod script;
mod types;
pub mod watermark;

pub use planner::plan;

#[cfg(test)]
mod tests;
