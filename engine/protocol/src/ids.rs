//! Names of things that both sides of the protocol speak about.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds since the Unix epoch for stored times, any monotonic origin for the coordinator's `now`.
pub type Millis = u64;
pub type CheckpointId = u64;
/// Number of one deployment of a pipelined region, increasing over the life of a coordinator. Every message of a task
/// carries it, so that a late message of a cancelled deployment is recognised.
pub type DeploymentId = u64;

/// One parallel instance of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    pub vertex: u32,
    pub subtask: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vertex, self.subtask)
    }
}

/// A registered worker process. A process that reconnects is a new worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.0)
    }
}
