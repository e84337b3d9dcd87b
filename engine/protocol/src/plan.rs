//! The job graph as the protocol sees it: vertices (chains of operators), edges, channels. No operators' code.

use crate::ids::TaskId;
use crate::manifest::Redistribution;
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
    /// Every state that the operator writes into checkpoints. A stateful operator that says nothing here takes whatever is
    /// stored under its uid and checks it by itself.
    pub state: Vec<StateTable>,
}

/// What is known of one state of an operator before anything runs: enough to tell whether stored state fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateTable {
    /// Unique within the operator.
    pub name: String,
    /// As manifests have it: `user Utf8 KEY, visits Int64` for keyed state; for lists see [`StateTable::list`]. An operator
    /// finds its columns by name: stored rows may have more value columns than it asks for, which are left behind.
    pub schema: String,
}

impl StateTable {
    pub fn keyed(name: impl Into<String>, schema: impl Into<String>) -> StateTable {
        StateTable { name: name.into(), schema: schema.into() }
    }

    /// The entries of a list are their operator's own business; how they are given out again is not.
    pub fn list(name: impl Into<String>, redistribution: Redistribution) -> StateTable {
        let schema = match redistribution {
            Redistribution::Split => "LIST, split",
            Redistribution::Union => "LIST, union",
            Redistribution::Broadcast => "LIST, broadcast",
        };
        StateTable { name: name.into(), schema: schema.into() }
    }
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

    pub fn operators(&self) -> impl Iterator<Item = &OperatorPlan> {
        self.vertices.iter().flat_map(|vertex| &vertex.operators)
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
