//! The job: every source subtask emits 0..rows; rows are summed by `n % KEYS`; each sum's final value becomes visible when
//! the sink's checkpoint completes.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use streamjob_dataflow::graph::{Exchange, JobGraph, Node};
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, Source, SourceEvent, TaskError,
};
use streamjob_protocol::manifest::{ListStateHandle, Redistribution};
use streamjob_state::{Cut, KeyedDelta, StateCut, keys};

pub const KEYS: i64 = 7;

/// What the outside sees: every number that was ever committed, by key. Twice or lost shows in the sum.
#[derive(Clone, Default)]
pub struct Visible(Arc<Mutex<BTreeMap<i64, i64>>>);

impl Visible {
    pub fn sums(&self) -> Vec<i64> {
        self.0.lock().unwrap().values().copied().collect()
    }

    fn add(&self, committed: &BTreeMap<i64, i64>) {
        let mut visible = self.0.lock().unwrap();
        for (key, delta) in committed {
            *visible.entry(*key).or_default() += delta;
        }
    }
}

pub fn expected(sources: i64, rows: i64) -> Vec<i64> {
    (0..KEYS).map(|key| sources * (0..rows).filter(|n| n % KEYS == key).sum::<i64>()).collect()
}

fn columns(columns: Vec<(&str, Vec<i64>)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, values)| (name, Arc::new(Int64Array::from(values)) as ArrayRef));
    RecordBatch::try_from_iter(columns).unwrap()
}

pub fn graph(parallelism: u32, rows: i64, visible: Visible, failing: Arc<AtomicBool>) -> JobGraph {
    let mut graph = JobGraph::default();
    let node = |uid: &str, factory: streamjob_dataflow::graph::Factory| Node {
        uid: uid.into(),
        name: uid.into(),
        parallelism,
        stateful: true,
        state: vec![],
        factory,
        description: String::new(),
    };
    let source =
        graph.add(node("numbers", Arc::new(move |_| Ok(Instance::Source(Box::new(Numbers { next: 0, rows }))))));
    let sum = graph.add(node(
        "sum",
        Arc::new(move |_| Ok(Instance::Operator(Box::new(Sum { failing: failing.clone(), ..Sum::default() })))),
    ));
    let sink = graph.add(node(
        "sink",
        Arc::new(move |context| {
            let sink = Sink { visible: visible.clone(), checkpointing: context.checkpointing, ..Sink::default() };
            Ok(Instance::Operator(Box::new(sink)))
        }),
    ));
    graph.connect(source, sum, 0, Exchange::Hash(vec![0]));
    graph.connect(sum, sink, 0, Exchange::Forward);
    graph
}

struct Numbers {
    next: i64,
    rows: i64,
}

impl Source for Numbers {
    fn open(&mut self, _: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        if let Some(position) = restore.lists.get("position").and_then(|list| list.first()) {
            self.next = position.as_i64().unwrap();
        }
        Ok(())
    }

    fn poll(&mut self, _: i64) -> Result<SourceEvent, TaskError> {
        if self.next == self.rows {
            return Ok(SourceEvent::End);
        }
        let end = (self.next + 500).min(self.rows);
        let numbers: Vec<i64> = (self.next..end).collect();
        self.next = end;
        let keys = numbers.iter().map(|n| n % KEYS).collect();
        std::thread::sleep(std::time::Duration::from_micros(300));
        Ok(SourceEvent::Batch(Batch::inserts(columns(vec![("k", keys), ("n", numbers)]))))
    }

    fn snapshot(&mut self, _: u64) -> Result<StateCut, TaskError> {
        let entries = vec![self.next.into()];
        let list = ListStateHandle { name: "position".into(), redistribution: Redistribution::Split, entries };
        Ok(StateCut { keyed: Vec::new(), lists: vec![list] })
    }
}

#[derive(Default)]
struct Sum {
    sums: BTreeMap<i64, i64>,
    dirty: BTreeSet<i64>,
    failing: Arc<AtomicBool>,
    seen: usize,
}

impl Operator for Sum {
    fn open(&mut self, _: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        for rows in restore.keyed.get("sums").into_iter().flatten() {
            let (keys, sums) =
                (rows.rows.column(0).as_primitive::<Int64Type>(), rows.rows.column(1).as_primitive::<Int64Type>());
            for (key, sum) in keys.values().iter().zip(sums.values()) {
                self.sums.insert(*key, *sum);
            }
        }
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        let keys = batch.rows.column(0).as_primitive::<Int64Type>();
        let numbers = batch.rows.column(1).as_primitive::<Int64Type>();
        let mut deltas: BTreeMap<i64, i64> = BTreeMap::new();
        for (key, number) in keys.values().iter().zip(numbers.values()) {
            *self.sums.entry(*key).or_default() += number;
            *deltas.entry(*key).or_default() += number;
            self.dirty.insert(*key);
        }
        self.seen += batch.len();
        if self.seen > 100_000 && self.failing.swap(false, Ordering::SeqCst) {
            return Err(TaskError::Recoverable("made to fail".into()));
        }
        let (keys, deltas) = deltas.into_iter().unzip();
        out.emit(Batch::inserts(columns(vec![("k", keys), ("delta", deltas)])))
    }

    fn snapshot(&mut self, _: u64, cut: Cut) -> Result<StateCut, TaskError> {
        let full = cut != Cut::Changes;
        let dirty = if cut == Cut::Copy { BTreeSet::new() } else { std::mem::take(&mut self.dirty) };
        let changed: Vec<i64> = if full { self.sums.keys().copied().collect() } else { dirty.into_iter().collect() };
        let sums = changed.iter().map(|key| self.sums[key]).collect();
        let rows = columns(vec![("k", changed), ("sum", sums)]);
        let mut key_groups = Vec::new();
        keys::key_groups(&rows.columns()[..1], 128, &mut key_groups).unwrap();
        let delta = KeyedDelta { name: "sums".into(), full, key_columns: 1, rows, key_groups, deleted: None };
        Ok(StateCut { keyed: vec![delta], lists: Vec::new() })
    }
}

/// When a slow source had finished its snapshot, and when the task behind it saw the barrier.
#[derive(Clone, Default)]
pub struct Order(Arc<Mutex<Vec<(u64, &'static str)>>>);

impl Order {
    fn note(&self, checkpoint: u64, what: &'static str) {
        self.0.lock().unwrap().push((checkpoint, what));
    }

    pub fn of(&self, checkpoint: u64) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().filter(|(id, _)| *id == checkpoint).map(|(_, what)| *what).collect()
    }
}

/// Two tasks, the first of which takes its time to snapshot.
pub fn slow_snapshot_graph(order: Order) -> JobGraph {
    let mut graph = JobGraph::default();
    let node = |uid: &str, factory: streamjob_dataflow::graph::Factory| Node {
        uid: uid.into(),
        name: uid.into(),
        parallelism: 2,
        stateful: true,
        state: vec![],
        factory,
        description: String::new(),
    };
    let (at_source, behind) = (order.clone(), order);
    let source = graph.add(node(
        "slow",
        Arc::new(move |context| {
            let order = (context.subtask == 0).then(|| at_source.clone());
            Ok(Instance::Source(Box::new(SlowSnapshot { numbers: Numbers { next: 0, rows: 300_000 }, order })))
        }),
    ));
    let watcher = graph.add(node(
        "watcher",
        Arc::new(move |context| {
            Ok(Instance::Operator(Box::new(Watcher { order: (context.subtask == 0).then(|| behind.clone()) })))
        }),
    ));
    graph.connect(source, watcher, 0, Exchange::Hash(vec![0]));
    graph
}

struct SlowSnapshot {
    numbers: Numbers,
    order: Option<Order>,
}

impl Source for SlowSnapshot {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.numbers.open(context, restore)
    }

    fn poll(&mut self, now: i64) -> Result<SourceEvent, TaskError> {
        self.numbers.poll(now)
    }

    fn snapshot(&mut self, checkpoint: u64) -> Result<StateCut, TaskError> {
        if let Some(order) = &self.order {
            std::thread::sleep(std::time::Duration::from_millis(500));
            order.note(checkpoint, "source has its snapshot");
        }
        self.numbers.snapshot(checkpoint)
    }
}

struct Watcher {
    order: Option<Order>,
}

impl Operator for Watcher {
    fn open(&mut self, _: &OperatorContext, _: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _: usize, _: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        Ok(())
    }

    fn before_barrier(&mut self, checkpoint: u64, _: &mut dyn Collector) -> Result<(), TaskError> {
        if let Some(order) = &self.order {
            order.note(checkpoint, "barrier arrived behind it");
        }
        Ok(())
    }
}

/// Collects deltas of an epoch; they become visible when the epoch's checkpoint completes.
#[derive(Default)]
struct Sink {
    visible: Visible,
    checkpointing: bool,
    open: BTreeMap<i64, i64>,
    pending: BTreeMap<u64, BTreeMap<i64, i64>>,
}

/// Commits must be idempotent: remembered for the whole test process, as an external system would.
fn commit_once(visible: &Visible, token: String, values: &BTreeMap<i64, i64>) {
    static DONE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if DONE.lock().unwrap().insert(format!("{:p}-{token}", Arc::as_ptr(&visible.0))) {
        visible.add(values);
    }
}

impl Operator for Sink {
    fn open(&mut self, _: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        for entry in restore.lists.get("pending").into_iter().flatten() {
            let (token, values): (String, BTreeMap<i64, i64>) = serde_json::from_value(entry.clone()).unwrap();
            commit_once(&self.visible, token, &values);
        }
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        let keys = batch.rows.column(0).as_primitive::<Int64Type>();
        let deltas = batch.rows.column(1).as_primitive::<Int64Type>();
        for (key, delta) in keys.values().iter().zip(deltas.values()) {
            *self.open.entry(*key).or_default() += delta;
        }
        Ok(())
    }

    fn snapshot(&mut self, checkpoint: u64, _: Cut) -> Result<StateCut, TaskError> {
        self.pending.insert(checkpoint, std::mem::take(&mut self.open));
        let entries = self
            .pending
            .iter()
            .map(|(id, values)| serde_json::to_value((token(*id, values), values)).unwrap())
            .collect();
        let list = ListStateHandle { name: "pending".into(), redistribution: Redistribution::Split, entries };
        Ok(StateCut { keyed: Vec::new(), lists: vec![list] })
    }

    fn checkpoint_complete(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        let later = self.pending.split_off(&(checkpoint + 1));
        for (id, values) in std::mem::replace(&mut self.pending, later) {
            commit_once(&self.visible, token(id, &values), &values);
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut dyn Collector) -> Result<(), TaskError> {
        if !self.checkpointing {
            self.visible.add(&std::mem::take(&mut self.open));
        }
        Ok(())
    }
}

fn token(checkpoint: u64, values: &BTreeMap<i64, i64>) -> String {
    format!("{checkpoint}-{:?}", values.keys().collect::<Vec<_>>())
}
