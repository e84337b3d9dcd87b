//! The logical job graph that planners build, and its chaining into vertices.

use crate::error::{PlanError, TaskError};
use crate::operator::{Instance, OperatorContext};
use std::collections::BTreeSet;
use std::sync::Arc;
use streamjob_protocol::plan::{EdgePlan, ExchangePattern, JobPlan, OperatorPlan, StateTable, VertexPlan};
use xxhash_rust::xxh3::xxh3_128;

/// Makes the instance of one subtask; called in the worker process.
pub type Factory = Arc<dyn Fn(&OperatorContext) -> Result<Instance, TaskError> + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// Same subtask, chained where possible.
    Forward,
    /// By the key group of these columns.
    Hash(Vec<usize>),
    /// Batches go round robin.
    Rebalance,
    /// Every subtask gets every row.
    Broadcast,
}

/// What the whole job promises from end to end: the weakest of its sources, the engine's mode and its sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Clone)]
pub struct Node {
    /// Stable name of the operator's state; unique in the job.
    pub uid: String,
    /// For people.
    pub name: String,
    pub parallelism: u32,
    pub stateful: bool,
    /// What the operator's snapshots consist of, as far as the planner knows; see [`OperatorPlan::state`].
    pub state: Vec<StateTable>,
    pub factory: Factory,
    /// Goes into the fingerprint: anything that changes what the operator does.
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    /// Which logical input of `to`.
    pub input: usize,
    pub exchange: Exchange,
}

/// Nodes in topological order, as a planner adds them.
#[derive(Clone, Default)]
pub struct JobGraph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// What the sources and sinks allow at best.
    pub guarantee: Option<Guarantee>,
}

/// A chain of operators that one thread runs. `nodes[0]` is its head.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// Indices into [`JobGraph::nodes`], topological.
    pub nodes: Vec<usize>,
}

/// A graph ready to run.
#[derive(Clone)]
pub struct ExecutionGraph {
    pub graph: JobGraph,
    pub vertices: Vec<Vertex>,
    /// Index into `graph.edges` of each edge between vertices; parallel to `plan.edges`.
    pub network_edges: Vec<usize>,
    pub plan: JobPlan,
}

impl JobGraph {
    pub fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub fn connect(&mut self, from: usize, to: usize, input: usize, exchange: Exchange) {
        self.edges.push(Edge { from, to, input, exchange });
    }

    /// Chains what can be chained: a node joins its producer's vertex when that is its only input, the exchange is
    /// forward and both have the same parallelism (a hash exchange at parallelism 1 is a forward one).
    pub fn into_execution(mut self, max_parallelism: u32) -> Result<ExecutionGraph, PlanError> {
        let mut uids = BTreeSet::new();
        for node in &self.nodes {
            if node.uid.is_empty() {
                return Err(PlanError::Job(format!(
                    "operator '{}' has no uid, so its state could not be found again; give it one that stays",
                    node.name
                )));
            }
            if !uids.insert(node.uid.as_str()) {
                return Err(PlanError::Job(format!(
                    "two operators have the uid '{}'; state is found by it, so give each its own",
                    node.uid
                )));
            }
            let mut states = BTreeSet::new();
            if let Some(twice) = node.state.iter().find(|state| !states.insert(state.name.as_str())) {
                let (name, uid) = (&twice.name, &node.uid);
                return Err(PlanError::Job(format!(
                    "operator {uid} has two states named '{name}'; rename one of them"
                )));
            }
            if node.parallelism > max_parallelism {
                return Err(PlanError::Job(format!(
                    "operator '{}' has parallelism {} but maxParallelism is {max_parallelism}",
                    node.name, node.parallelism
                )));
            }
        }
        for index in 0..self.edges.len() {
            let (from, to) = (self.edges[index].from, self.edges[index].to);
            if from >= to {
                return Err(PlanError::Job("the graph is not in topological order".into()));
            }
            let single = self.nodes[from].parallelism == 1 && self.nodes[to].parallelism == 1;
            if single {
                self.edges[index].exchange = Exchange::Forward;
            }
            if self.edges[index].exchange == Exchange::Forward
                && self.nodes[from].parallelism != self.nodes[to].parallelism
            {
                self.edges[index].exchange = Exchange::Rebalance;
            }
        }
        let mut vertices: Vec<Vertex> = Vec::new();
        let mut vertex_of = vec![0usize; self.nodes.len()];
        for node in 0..self.nodes.len() {
            let inputs: Vec<&Edge> = self.edges.iter().filter(|edge| edge.to == node).collect();
            let chained = match inputs.as_slice() {
                [edge] if edge.exchange == Exchange::Forward => Some(vertex_of[edge.from]),
                _ => None,
            };
            vertex_of[node] = match chained {
                Some(vertex) => {
                    vertices[vertex].nodes.push(node);
                    vertex
                }
                None => {
                    vertices.push(Vertex { nodes: vec![node] });
                    vertices.len() - 1
                }
            };
        }
        let network_edges: Vec<usize> = (0..self.edges.len())
            .filter(|&edge| vertex_of[self.edges[edge].from] != vertex_of[self.edges[edge].to])
            .collect();
        let mut description = String::new();
        for node in &self.nodes {
            description.push_str(&format!("{}|{}|{}|{}\n", node.uid, node.name, node.parallelism, node.description));
        }
        description.push_str(&format!("{:?}|{max_parallelism}", self.edges));
        let plan = JobPlan {
            vertices: vertices
                .iter()
                .map(|vertex| VertexPlan {
                    name: vertex
                        .nodes
                        .iter()
                        .map(|&node| self.nodes[node].name.as_str())
                        .collect::<Vec<_>>()
                        .join(" -> "),
                    parallelism: self.nodes[vertex.nodes[0]].parallelism,
                    operators: vertex
                        .nodes
                        .iter()
                        .map(|&node| OperatorPlan {
                            uid: self.nodes[node].uid.clone(),
                            name: self.nodes[node].name.clone(),
                            stateful: self.nodes[node].stateful,
                            state: self.nodes[node].state.clone(),
                        })
                        .collect(),
                })
                .collect(),
            edges: network_edges
                .iter()
                .map(|&edge| EdgePlan {
                    from: vertex_of[self.edges[edge].from] as u32,
                    to: vertex_of[self.edges[edge].to] as u32,
                    pattern: match self.edges[edge].exchange {
                        Exchange::Forward => ExchangePattern::Pointwise,
                        _ => ExchangePattern::AllToAll,
                    },
                    pipelined: true,
                })
                .collect(),
            max_parallelism,
            fingerprint: format!("{:032x}", xxh3_128(description.as_bytes())),
        };
        Ok(ExecutionGraph { graph: self, vertices, network_edges, plan })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn node(uid: &str, state: Vec<StateTable>) -> Node {
        Node {
            uid: uid.into(),
            name: format!("name of {uid}"),
            parallelism: 1,
            stateful: !state.is_empty(),
            state,
            factory: Arc::new(|_| Err(TaskError::Fatal("only planned".into()))),
            description: String::new(),
        }
    }

    fn refused(nodes: Vec<Node>) -> String {
        let graph = JobGraph { nodes, ..JobGraph::default() };
        graph.into_execution(128).err().expect("a refusal").to_string()
    }

    #[test]
    fn r52_uids_are_there_and_differ() {
        let message = refused(vec![node("a", vec![]), node("", vec![])]);
        assert!(message.contains("has no uid"), "{message}");
        let message = refused(vec![node("a", vec![]), node("b", vec![]), node("a", vec![])]);
        assert!(message.contains("two operators have the uid 'a'"), "{message}");
        let message = refused(vec![node("a", vec![StateTable::keyed("t", "k"), StateTable::keyed("t", "v")])]);
        assert!(message.contains("two states named 't'"), "{message}");
    }

    #[test]
    fn the_plan_says_what_operators_keep() {
        let state = vec![StateTable::keyed("t", "k Int64 KEY")];
        let graph = JobGraph { nodes: vec![node("a", state.clone()), node("b", vec![])], ..JobGraph::default() };
        let plan = graph.into_execution(128).unwrap_or_else(|error| panic!("{error}")).plan;
        let operators: Vec<_> = plan.operators().map(|operator| (operator.stateful, operator.state.clone())).collect();
        assert_eq!(operators, [(true, state), (false, vec![])]);
    }
}
