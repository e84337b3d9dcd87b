//! The job graph as the protocol sees it: vertices (chains of operators), edges, channels. No operators' code.

use crate::ids::TaskId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPlan {
    /// In topological order; a vertex is named by its index.
    pub vertices: Vec<VertexPlan>,
    pub edges: Vec<EdgePlan>,
    pub max_parallelism: u32,
    /// Hash of what every process planned: workers refuse a coordinator that planned something else.
    pub fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VertexPlan {
    pub name: String,
    pub parallelism: u32,
    /// The chained operators, in topological order.
    pub operators: Vec<OperatorPlan>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorPlan {
    pub uid: String,
    pub name: String,
    pub stateful: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExchangePattern {
    /// Subtask i to subtask i; both sides have the same parallelism.
    Pointwise,
    AllToAll,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgePlan {
    pub from: u32,
    pub to: u32,
    pub pattern: ExchangePattern,
    /// Streaming exchanges are; a blocking one cuts regions.
    pub pipelined: bool,
}

/// One directed connection between two subtasks. The index in [`JobPlan::channels`] is its number, the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Channel {
    pub edge: u32,
    pub from: TaskId,
    pub to: TaskId,
}

impl JobPlan {
    /// All channels: by edge, then producing subtask, then consuming subtask.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels = Vec::new();
        for (index, edge) in self.edges.iter().enumerate() {
            let from_parallelism = self.vertices[edge.from as usize].parallelism;
            let to_parallelism = self.vertices[edge.to as usize].parallelism;
            for from in 0..from_parallelism {
                let targets = match edge.pattern {
                    ExchangePattern::Pointwise => from..from + 1,
                    ExchangePattern::AllToAll => 0..to_parallelism,
                };
                for to in targets {
                    channels.push(Channel {
                        edge: index as u32,
                        from: TaskId { vertex: edge.from, subtask: from },
                        to: TaskId { vertex: edge.to, subtask: to },
                    });
                }
            }
        }
        channels
    }

    pub fn tasks(&self) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        for (vertex, plan) in self.vertices.iter().enumerate() {
            for subtask in 0..plan.parallelism {
                tasks.push(TaskId { vertex: vertex as u32, subtask });
            }
        }
        tasks
    }
}
