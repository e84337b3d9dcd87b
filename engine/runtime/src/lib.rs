//! Runs a job: coordinator and worker processes, tasks, exchanges, checkpoint storage, metrics.
//!
//! Decisions of the fault-tolerance protocol are `streamjob_protocol`'s; this crate observes, carries out and moves bytes.
//! Data flows through plain threads (one a task); control (RPC, heartbeats, HTTP, uploads) has a tokio runtime of its own,
//! so that busy operators never starve it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod coordinator;
pub mod error;
pub mod exchange;
pub mod faults;
pub mod metrics;
pub mod storage;
pub mod task;
pub mod wire;
pub mod worker;

pub use error::RuntimeError;
pub use task::Planner;
