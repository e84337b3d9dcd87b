//! Toy jobs: finite replayable sources, keyed sums, two-phase sinks, in several topologies; and what each must output.

use std::collections::BTreeMap;
use std::rc::Rc;
use streamjob_protocol::ids::TaskId;
use streamjob_protocol::key_groups::subtask_of;
use streamjob_protocol::plan::{Channel, EdgePlan, ExchangePattern, JobPlan, OperatorPlan, VertexPlan};
use streamjob_protocol::random::Random;

pub const MAX_PARALLELISM: u32 = 8;
/// Records of a job; a mask over them fits in a word.
const MAX_RECORDS: usize = 64;

pub type Key = u16;
/// Index into [`Job::records`].
pub type RecordId = u8;
/// What a sink shows: see [`count_row`], [`final_row`] and [`record_row`].
pub type Row = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Source,
    Sum,
    Sink,
}

pub struct Vertex {
    pub roles: Vec<Role>,
    pub pipeline: u8,
}

/// Part of a source's input.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    pub vertex: u32,
    pub pipeline: u8,
    pub first: RecordId,
    pub len: u8,
}

#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub key: Key,
    pub value: u32,
}

/// What a sum knows of a key. The mask is for the checker: which records it has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyState {
    pub count: u32,
    pub sum: u32,
    pub seen: u64,
    /// The last row for the key is out.
    pub closed: bool,
}

pub struct Job {
    pub plan: JobPlan,
    pub vertices: Vec<Vertex>,
    /// Channel numbers, in order of channel.
    pub inputs: BTreeMap<TaskId, Vec<u32>>,
    /// By outgoing edge, channel numbers in order of consuming subtask.
    pub outputs: BTreeMap<TaskId, Vec<Vec<u32>>>,
    pub splits: Vec<Split>,
    pub records: Vec<Record>,
    /// By pipeline, whether it sums by key; otherwise records go to the sink as they are.
    pub keyed: Vec<bool>,
    pub slots: u32,
}

/// In a split's position: the source was told to end here.
pub const DRAINED: u8 = 0x80;

pub fn key_group(key: Key) -> u16 {
    (key.wrapping_mul(7).wrapping_add(3)) % MAX_PARALLELISM as u16
}

pub fn pipeline_of(key: Key) -> u8 {
    (key >> 4) as u8
}

pub fn count_row(key: Key, count: u32) -> Row {
    u32::from(key) << 8 | count
}

pub fn final_row(key: Key, sum: u32) -> Row {
    1 << 31 | u32::from(key) << 16 | sum
}

pub fn record_row(record: RecordId) -> Row {
    1 << 30 | u32::from(record)
}

pub fn show_row(row: Row) -> String {
    if row >> 31 == 1 {
        format!("sum(key {}) = {}", row >> 16 & 0x7fff, row & 0xffff)
    } else if row >> 30 == 1 {
        format!("record {}", row & 0xff)
    } else {
        format!("count(key {}) = {}", row >> 8, row & 0xff)
    }
}

struct Draft {
    vertices: Vec<(Vec<Role>, u32, u8)>,
    edges: Vec<(u32, u32, ExchangePattern)>,
}

impl Draft {
    fn vertex(&mut self, roles: &[Role], parallelism: u32, pipeline: u8) -> u32 {
        self.vertices.push((roles.to_vec(), parallelism, pipeline));
        self.vertices.len() as u32 - 1
    }

    /// Sources, one after the other, into one sum, into a sink that may be chained to it.
    fn keyed(&mut self, random: &mut Random, pipeline: u8, sources: u64, max: u64) {
        let sources: Vec<u32> =
            (0..sources).map(|_| self.vertex(&[Role::Source], random.between(1, max) as u32, pipeline)).collect();
        let parallelism = random.between(1, max) as u32;
        let chained = random.between(0, 1) == 0;
        let roles: &[Role] = if chained { &[Role::Sum, Role::Sink] } else { &[Role::Sum] };
        let sum = self.vertex(roles, parallelism, pipeline);
        for source in sources {
            self.edges.push((source, sum, ExchangePattern::AllToAll));
        }
        if !chained {
            let (parallelism, pattern) = match random.between(0, 1) {
                0 => (parallelism, ExchangePattern::Pointwise),
                _ => (random.between(1, max) as u32, ExchangePattern::AllToAll),
            };
            let sink = self.vertex(&[Role::Sink], parallelism, pipeline);
            self.edges.push((sum, sink, pattern));
        }
    }

    fn forward(&mut self, random: &mut Random, pipeline: u8, max: u64) {
        let parallelism = random.between(1, max) as u32;
        if random.between(0, 2) == 0 {
            self.vertex(&[Role::Source, Role::Sink], parallelism, pipeline);
        } else {
            let source = self.vertex(&[Role::Source], parallelism, pipeline);
            let sink = self.vertex(&[Role::Sink], parallelism, pipeline);
            self.edges.push((source, sink, ExchangePattern::Pointwise));
        }
    }
}

impl Job {
    pub fn generate(random: &mut Random) -> Rc<Job> {
        let mut draft = Draft { vertices: Vec::new(), edges: Vec::new() };
        match random.between(0, 9) {
            0..=3 => draft.keyed(random, 0, 1, 3),
            4..=5 => draft.keyed(random, 0, 2, 2),
            6..=7 => {
                draft.keyed(random, 0, 1, 2);
                match random.between(0, 1) {
                    0 => draft.keyed(random, 1, 1, 2),
                    _ => draft.forward(random, 1, 2),
                }
            }
            _ => draft.forward(random, 0, 3),
        }
        let mut splits = Vec::new();
        let mut records = Vec::new();
        for (vertex, (roles, parallelism, pipeline)) in draft.vertices.iter().enumerate() {
            if roles[0] != Role::Source {
                continue;
            }
            let keys = random.between(1, 6);
            for _ in 0..random.between(1, u64::from(*parallelism) + 1) {
                let len = random.between(0, 8).min((MAX_RECORDS - records.len()) as u64);
                splits.push(Split {
                    vertex: vertex as u32,
                    pipeline: *pipeline,
                    first: records.len() as RecordId,
                    len: len as u8,
                });
                for _ in 0..len {
                    let key = u16::from(*pipeline) << 4 | random.between(0, keys - 1) as Key;
                    records.push(Record { key, value: random.between(1, 9) as u32 });
                }
            }
        }
        Rc::new(Job::build(&draft, splits, records))
    }

    /// The same job with other parallelisms.
    pub fn rescaled(&self, random: &mut Random) -> Rc<Job> {
        let mut draft = Draft { vertices: Vec::new(), edges: Vec::new() };
        for vertex in &self.vertices {
            draft.vertex(&vertex.roles, random.between(1, 3) as u32, vertex.pipeline);
        }
        for edge in &self.plan.edges {
            if edge.pattern == ExchangePattern::Pointwise {
                draft.vertices[edge.to as usize].1 = draft.vertices[edge.from as usize].1;
            }
            draft.edges.push((edge.from, edge.to, edge.pattern));
        }
        Rc::new(Job::build(&draft, self.splits.clone(), self.records.clone()))
    }

    fn build(draft: &Draft, splits: Vec<Split>, records: Vec<Record>) -> Job {
        let plan = JobPlan {
            vertices: draft
                .vertices
                .iter()
                .enumerate()
                .map(|(number, (roles, parallelism, _))| VertexPlan {
                    name: format!("vertex {number} {roles:?}"),
                    parallelism: *parallelism,
                    operators: roles
                        .iter()
                        .map(|role| OperatorPlan {
                            uid: uid(number as u32, *role),
                            name: format!("{role:?}"),
                            stateful: true,
                            state: vec![],
                        })
                        .collect(),
                })
                .collect(),
            edges: draft
                .edges
                .iter()
                .map(|&(from, to, pattern)| EdgePlan { from, to, pattern, pipelined: true })
                .collect(),
            max_parallelism: MAX_PARALLELISM,
            fingerprint: "simulated".into(),
        };
        let channels = plan.channels();
        let mut inputs: BTreeMap<TaskId, Vec<u32>> = BTreeMap::new();
        let mut outputs: BTreeMap<TaskId, Vec<Vec<u32>>> = BTreeMap::new();
        for task in plan.tasks() {
            let numbered = || (0u32..).zip(&channels);
            inputs
                .insert(task, numbered().filter(|(_, channel)| channel.to == task).map(|(number, _)| number).collect());
            let by_edge = (0..plan.edges.len() as u32)
                .map(|edge| {
                    let own = |channel: &Channel| channel.from == task && channel.edge == edge;
                    numbered().filter(|(_, channel)| own(channel)).map(|(number, _)| number).collect::<Vec<_>>()
                })
                .filter(|channels| !channels.is_empty())
                .collect();
            outputs.insert(task, by_edge);
        }
        let pipelines = draft.vertices.iter().map(|(_, _, pipeline)| *pipeline + 1).max().unwrap_or(1);
        let sums =
            |pipeline| draft.vertices.iter().any(|(roles, _, own)| *own == pipeline && roles.contains(&Role::Sum));
        Job {
            slots: draft.vertices.iter().map(|(_, parallelism, _)| *parallelism).max().unwrap_or(1),
            vertices: draft
                .vertices
                .iter()
                .map(|(roles, _, pipeline)| Vertex { roles: roles.clone(), pipeline: *pipeline })
                .collect(),
            keyed: (0..pipelines).map(sums).collect(),
            plan,
            inputs,
            outputs,
            splits,
            records,
        }
    }

    pub fn parallelism(&self, vertex: u32) -> u32 {
        self.plan.vertices[vertex as usize].parallelism
    }

    /// Which of the channels of one edge a key goes to.
    pub fn route(key: Key, channels: &[u32]) -> u32 {
        if channels.len() == 1 {
            return channels[0];
        }
        channels[subtask_of(key_group(key), MAX_PARALLELISM, channels.len() as u32) as usize]
    }

    /// Records in front of the given positions, one position a split.
    pub fn read(&self, positions: &[u8]) -> u64 {
        let mut mask = 0;
        for (split, position) in self.splits.iter().zip(positions) {
            for offset in 0..*position & !DRAINED {
                mask |= 1 << (split.first + offset);
            }
        }
        mask
    }

    /// What every key of the records adds up to.
    pub fn sums(&self, mask: u64) -> BTreeMap<Key, KeyState> {
        let mut sums: BTreeMap<Key, KeyState> = BTreeMap::new();
        for (record, content) in self.records.iter().enumerate() {
            if mask >> record & 1 == 1 && self.keyed[pipeline_of(content.key) as usize] {
                sums.entry(content.key).or_default().add(record as RecordId, content);
            }
        }
        sums
    }

    /// Rows of the records, without last rows.
    pub fn rows(&self, mask: u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for (key, state) in self.sums(mask) {
            rows.extend((1..=state.count).map(|count| count_row(key, count)));
        }
        for (record, content) in self.records.iter().enumerate() {
            if mask >> record & 1 == 1 && !self.keyed[pipeline_of(content.key) as usize] {
                rows.push(record_row(record as RecordId));
            }
        }
        rows
    }

    pub fn final_rows(&self) -> Vec<Row> {
        self.sums(u64::MAX).into_iter().map(|(key, state)| final_row(key, state.sum)).collect()
    }
}

impl KeyState {
    pub fn add(&mut self, record: RecordId, content: &Record) {
        self.count += 1;
        self.sum += content.value;
        self.seen |= 1 << record;
    }
}

pub fn uid(vertex: u32, role: Role) -> String {
    format!("{role:?}-{vertex}")
}
