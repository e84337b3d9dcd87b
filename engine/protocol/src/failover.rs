//! Pipelined regions and the set of regions that restarts with a failed one. Pure graph work: which tasks, never when.

use crate::ids::TaskId;
use crate::plan::JobPlan;
use std::collections::{BTreeMap, BTreeSet};
use streamjob_api::config::FailoverStrategy;

/// Index into [`Regions`].
pub type RegionId = usize;

/// Tasks that exchange data through pipelined edges fail and restart together: the connected components over those
/// edges, where components that depend on each other in a cycle of blocking edges count as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    tasks: Vec<Vec<TaskId>>,
    region_of: BTreeMap<TaskId, RegionId>,
    /// By region: blocking inputs as (region of the producer, producing task).
    inputs: Vec<BTreeSet<(RegionId, TaskId)>>,
    /// By region: regions that read a blocking result of it.
    consumers: Vec<BTreeSet<RegionId>>,
}

impl Regions {
    pub fn of_plan(plan: &JobPlan) -> Regions {
        let tasks = plan.tasks();
        let channels = plan.channels();
        let index_of: BTreeMap<TaskId, usize> = tasks.iter().enumerate().map(|(index, task)| (*task, index)).collect();
        let mut pipelined = Vec::new();
        let mut blocking = Vec::new();
        for channel in &channels {
            let (Some(&from), Some(&to)) = (index_of.get(&channel.from), index_of.get(&channel.to)) else { continue };
            if plan.edges.get(channel.edge as usize).is_some_and(|edge| edge.pipelined) {
                pipelined.push((from, to));
            } else {
                blocking.push((from, to));
            }
        }
        let mut union = UnionFind::new(tasks.len());
        for &(from, to) in &pipelined {
            union.join(from, to);
        }
        let between: BTreeSet<(usize, usize)> = blocking
            .iter()
            .map(|&(from, to)| (union.root(from), union.root(to)))
            .filter(|(from, to)| from != to)
            .collect();
        for component in strongly_connected(&between) {
            for pair in component.windows(2) {
                union.join(pair[0], pair[1]);
            }
        }

        let mut number_of_root: BTreeMap<usize, RegionId> = BTreeMap::new();
        let mut regions =
            Regions { tasks: Vec::new(), region_of: BTreeMap::new(), inputs: Vec::new(), consumers: Vec::new() };
        for (index, task) in tasks.iter().enumerate() {
            let region = *number_of_root.entry(union.root(index)).or_insert_with(|| {
                regions.tasks.push(Vec::new());
                regions.tasks.len() - 1
            });
            regions.tasks[region].push(*task);
            regions.region_of.insert(*task, region);
        }
        regions.inputs = vec![BTreeSet::new(); regions.tasks.len()];
        regions.consumers = vec![BTreeSet::new(); regions.tasks.len()];
        for &(from, to) in &blocking {
            let (Some(&producer), Some(&consumer)) =
                (regions.region_of.get(&tasks[from]), regions.region_of.get(&tasks[to]))
            else {
                continue;
            };
            if producer != consumer {
                regions.inputs[consumer].insert((producer, tasks[from]));
                regions.consumers[producer].insert(consumer);
            }
        }
        regions
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub fn all(&self) -> BTreeSet<RegionId> {
        (0..self.tasks.len()).collect()
    }

    /// The region of a task; `None` for a task that the plan does not have.
    pub fn of(&self, task: TaskId) -> Option<RegionId> {
        self.region_of.get(&task).copied()
    }

    /// In order of vertex, then subtask.
    pub fn tasks(&self, region: RegionId) -> &[TaskId] {
        self.tasks.get(region).map_or(&[], Vec::as_slice)
    }

    /// What has to restart when tasks of `failed` regions failed: with [`FailoverStrategy::Full`] everything; with
    /// `Region` the failed regions, the producers of results that are missing (`unavailable` names the tasks whose
    /// result is), and whatever consumes a result of a restarted region, transitively.
    pub fn restart_set(
        &self,
        strategy: FailoverStrategy,
        failed: &BTreeSet<RegionId>,
        unavailable: &BTreeSet<TaskId>,
    ) -> BTreeSet<RegionId> {
        if strategy == FailoverStrategy::Full {
            return self.all();
        }
        let mut restart = BTreeSet::new();
        let mut open: Vec<RegionId> = failed.iter().copied().filter(|region| *region < self.tasks.len()).collect();
        while let Some(region) = open.pop() {
            if !restart.insert(region) {
                continue;
            }
            open.extend(
                self.inputs[region].iter().filter(|(_, task)| unavailable.contains(task)).map(|(from, _)| *from),
            );
            open.extend(self.consumers[region].iter().copied());
        }
        restart
    }
}

struct UnionFind {
    parent: Vec<usize>,
}

impl UnionFind {
    fn new(len: usize) -> Self {
        UnionFind { parent: (0..len).collect() }
    }

    fn root(&mut self, mut node: usize) -> usize {
        while self.parent[node] != node {
            self.parent[node] = self.parent[self.parent[node]];
            node = self.parent[node];
        }
        node
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        let (low, high) = (one.min(other), one.max(other));
        self.parent[high] = low;
    }
}

/// Components of more than one node: two nodes are in one if each reaches the other. Region graphs are small, so
/// reachability by search from every node is enough.
fn strongly_connected(edges: &BTreeSet<(usize, usize)>) -> Vec<Vec<usize>> {
    let mut successors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &(from, to) in edges {
        successors.entry(from).or_default().push(to);
    }
    let reachable: BTreeMap<usize, BTreeSet<usize>> = successors
        .keys()
        .map(|&start| {
            let mut seen = BTreeSet::new();
            let mut open = vec![start];
            while let Some(node) = open.pop() {
                for &next in successors.get(&node).into_iter().flatten() {
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            (start, seen)
        })
        .collect();
    let mut done = BTreeSet::new();
    let mut components = Vec::new();
    for (&start, reached) in &reachable {
        if !reached.contains(&start) || done.contains(&start) {
            continue;
        }
        let component: Vec<usize> = reached
            .iter()
            .copied()
            .filter(|node| reachable.get(node).is_some_and(|back| back.contains(&start)))
            .collect();
        done.extend(component.iter().copied());
        components.push(component);
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{EdgePlan, ExchangePattern, VertexPlan};

    fn plan(parallelism: &[u32], edges: &[(u32, u32, ExchangePattern, bool)]) -> JobPlan {
        JobPlan {
            vertices: parallelism
                .iter()
                .enumerate()
                .map(|(index, &parallelism)| VertexPlan { name: format!("v{index}"), parallelism, operators: vec![] })
                .collect(),
            edges: edges
                .iter()
                .map(|&(from, to, pattern, pipelined)| EdgePlan { from, to, pattern, pipelined })
                .collect(),
            max_parallelism: 128,
            fingerprint: String::new(),
        }
    }

    use ExchangePattern::{AllToAll, Pointwise};

    fn task(vertex: u32, subtask: u32) -> TaskId {
        TaskId { vertex, subtask }
    }

    fn set<T: Ord + Copy>(items: &[T]) -> BTreeSet<T> {
        items.iter().copied().collect()
    }

    fn restart(regions: &Regions, failed: TaskId, unavailable: &[TaskId]) -> BTreeSet<TaskId> {
        let failed = set(&[regions.of(failed).unwrap()]);
        regions
            .restart_set(FailoverStrategy::Region, &failed, &set(unavailable))
            .into_iter()
            .flat_map(|region| regions.tasks(region).to_vec())
            .collect()
    }

    #[test]
    fn r43_full_restarts_every_region() {
        let regions = Regions::of_plan(&plan(&[1, 1, 1, 1], &[(0, 1, Pointwise, true), (2, 3, Pointwise, true)]));
        assert_eq!(regions.restart_set(FailoverStrategy::Full, &set(&[0]), &set(&[])), regions.all());
        assert_eq!(regions.len(), 2);
    }

    #[test]
    fn r44_of_two_disconnected_pipelines_only_the_failed_one_restarts() {
        let regions = Regions::of_plan(&plan(&[2, 2, 2, 2], &[(0, 1, AllToAll, true), (2, 3, AllToAll, true)]));
        assert_eq!(regions.len(), 2);
        assert_eq!(restart(&regions, task(1, 0), &[]), set(&[task(0, 0), task(0, 1), task(1, 0), task(1, 1)]));
    }

    #[test]
    fn r45_pointwise_pipelines_are_a_region_each_and_a_shuffle_joins_them() {
        let forward = Regions::of_plan(&plan(&[3, 3], &[(0, 1, Pointwise, true)]));
        assert_eq!(forward.len(), 3);
        assert_eq!(forward.tasks(1), [task(0, 1), task(1, 1)]);
        let shuffle = Regions::of_plan(&plan(&[3, 3, 3], &[(0, 1, Pointwise, true), (1, 2, AllToAll, true)]));
        assert_eq!(shuffle.len(), 1);
    }

    #[test]
    fn r45_a_blocking_edge_cuts_regions() {
        let regions = Regions::of_plan(&plan(&[2, 2], &[(0, 1, AllToAll, false)]));
        assert_eq!(regions.len(), 4);
    }

    #[test]
    fn r45_regions_that_wait_for_each_other_are_one() {
        // A reads what B's region produced and B what A's region produced, both through blocking edges.
        let edges =
            [(0, 1, Pointwise, true), (2, 3, Pointwise, true), (0, 3, AllToAll, false), (2, 1, AllToAll, false)];
        let regions = Regions::of_plan(&plan(&[1, 1, 1, 1], &edges));
        assert_eq!(regions.len(), 1);
        let without_cycle = Regions::of_plan(&plan(&[1, 1, 1, 1], &edges[..3]));
        assert_eq!(without_cycle.len(), 2);
    }

    #[test]
    fn r46_consumers_restart_and_producers_only_when_their_result_is_missing() {
        let regions = Regions::of_plan(&plan(&[1, 1, 1], &[(0, 1, AllToAll, false), (1, 2, AllToAll, false)]));
        assert_eq!(restart(&regions, task(1, 0), &[]), set(&[task(1, 0), task(2, 0)]));
        assert_eq!(restart(&regions, task(2, 0), &[]), set(&[task(2, 0)]));
        assert_eq!(restart(&regions, task(2, 0), &[task(1, 0)]), set(&[task(1, 0), task(2, 0)]));
        assert_eq!(
            restart(&regions, task(2, 0), &[task(1, 0), task(0, 0)]),
            set(&[task(0, 0), task(1, 0), task(2, 0)])
        );
        // A producer that restarts for one consumer restarts its other consumers too.
        let fan_out = Regions::of_plan(&plan(&[1, 1, 1], &[(0, 1, AllToAll, false), (0, 2, AllToAll, false)]));
        assert_eq!(restart(&fan_out, task(1, 0), &[task(0, 0)]), set(&[task(0, 0), task(1, 0), task(2, 0)]));
    }

    #[test]
    fn unknown_tasks_have_no_region() {
        let regions = Regions::of_plan(&plan(&[1], &[]));
        assert_eq!(regions.of(task(3, 0)), None);
        assert!(regions.restart_set(FailoverStrategy::Region, &set(&[9]), &set(&[])).is_empty());
    }
}
