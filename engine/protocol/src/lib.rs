//! The fault-tolerance protocol as pure state machines: events and the time go in, actions come out.
//!
//! No I/O, no clock, no threads, no randomness but what the caller passes in, so that a simulator can drive every
//! interleaving. The runtime executes the actions; nothing else may decide when a checkpoint exists.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod alignment;
pub mod assign;
pub mod compatibility;
pub mod coordinator;
pub mod failover;
pub mod ids;
pub mod journal;
pub mod key_groups;
pub mod manifest;
pub mod plan;
pub mod random;
pub mod restart;
pub mod retention;
pub mod two_phase;
