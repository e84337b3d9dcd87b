//! The fault-tolerance protocol as pure state machines: events and the time go in, actions come out.
//!
//! No I/O, no clock, no threads, no randomness but what the caller passes in, so that a simulator can drive every
//! interleaving. The runtime executes the actions; nothing else may decide when a checkpoint exists.

pub mod coordinator;
pub mod ids;
pub mod journal;
pub mod manifest;
pub mod plan;
