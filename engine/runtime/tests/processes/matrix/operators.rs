//! Jobs that each keep one kind of state that matters: numbers go from a source with several splits through an operator to
//! a two-phase sink. Their results depend on neither parallelism nor order.

use super::outside::{Rows, Run};
use super::table::{Table, batch, rows_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use streamjob_dataflow::graph::{Exchange, Factory, JobGraph, Node};
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, Source, SourceEvent, TaskError,
};
use streamjob_protocol::manifest::{ListStateHandle, Redistribution};
use streamjob_protocol::plan::StateTable;
use streamjob_state::{Cut, StateCut};

pub const SPLITS: i64 = 6;
/// Of each split.
pub const ROWS: i64 = 1_500;
const BATCH: i64 = 10;
const KEYS: i64 = 97;
const RULES: i64 = 5;
/// Of event time, which advances by 10 with each row of a split.
const WINDOW: i64 = 2_000;

/// The state whose restore a job shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Keyed,
    ListSplit,
    ListUnion,
    Broadcast,
    Timers,
    Pending,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Keyed, Kind::ListSplit, Kind::ListUnion, Kind::Broadcast, Kind::Timers, Kind::Pending];

    /// Operator and name of the state.
    pub fn state(self) -> (&'static str, &'static str) {
        match self {
            Kind::Keyed => ("sums", "sums"),
            Kind::ListSplit => ("buffer", "rows"),
            Kind::ListUnion => ("numbers", "positions"),
            Kind::Broadcast => ("rated", "rules"),
            Kind::Timers => ("windows", "timers"),
            Kind::Pending => ("ledger", "pending"),
        }
    }

    /// What the job writes, computed without it.
    pub fn expected(self) -> Rows {
        let input = (0..SPLITS).flat_map(|split| (0..ROWS).map(move |n| (split, n)));
        let mut groups: BTreeMap<Vec<i64>, (i64, i64)> = BTreeMap::new();
        let rating: i64 = (1..=RULES).sum();
        for (split, n) in input {
            let key = match self {
                Kind::Keyed | Kind::Broadcast => vec![key(split, n)],
                Kind::Timers => vec![key(split, n), due(time(split, n))],
                Kind::ListSplit | Kind::ListUnion | Kind::Pending => vec![split, n],
            };
            let (count, sum) = groups.entry(key).or_default();
            *count += 1;
            *sum += n;
        }
        let row = |(key, (count, sum)): (Vec<i64>, (i64, i64))| match self {
            Kind::Keyed | Kind::Timers => [key, vec![count, sum]].concat(),
            Kind::Broadcast => [key, vec![count, sum * rating]].concat(),
            Kind::ListSplit | Kind::ListUnion | Kind::Pending => key,
        };
        groups.into_iter().map(|group| (row(group), 1)).collect()
    }
}

fn key(split: i64, n: i64) -> i64 {
    (n * 7 + split) % KEYS
}

fn time(split: i64, n: i64) -> i64 {
    n * 10 + split
}

fn due(time: i64) -> i64 {
    (time / WINDOW + 1) * WINDOW
}

/// Where a source that is held stops.
fn pause(split: i64) -> i64 {
    ROWS * 2 / 3 + split * 30
}

pub fn graph(kind: Kind, parallelism: u32, run: &Run) -> JobGraph {
    let mut graph = JobGraph::default();
    let node = |uid: &str, parallelism: u32, state: Vec<StateTable>, factory: Factory| Node {
        uid: uid.into(),
        name: uid.into(),
        parallelism,
        stateful: !state.is_empty(),
        state,
        factory,
        description: String::new(),
    };
    let positions = if kind == Kind::ListUnion { Redistribution::Union } else { Redistribution::Split };
    let source = {
        let run = run.clone();
        let state = vec![StateTable::list("positions", positions)];
        let make = move || Numbers { run: run.clone(), redistribution: positions, positions: BTreeMap::new(), turn: 0 };
        graph.add(node("numbers", parallelism, state, Arc::new(move |_| Ok(Instance::Source(Box::new(make()))))))
    };
    let rules = (kind == Kind::Broadcast).then(|| {
        let state = vec![StateTable::list("position", Redistribution::Split)];
        graph.add(node("rules", 1, state, Arc::new(|_| Ok(Instance::Source(Box::new(Rules { next: 1 }))))))
    });
    let mut operator = |uid: &str, state: Vec<StateTable>, make: fn(Run) -> Box<dyn Operator>| {
        let run = run.clone();
        graph.add(node(uid, parallelism, state, Arc::new(move |_| Ok(Instance::Operator(make(run.clone()))))))
    };
    let by_key = Exchange::Hash(vec![1]);
    let (before, exchange) = match kind {
        Kind::Keyed => {
            let sums = operator("sums", vec![sums().plan()], |run| Box::new(Sums { run, sums: sums() }));
            graph.connect(source, sums, 0, by_key);
            (sums, Exchange::Forward)
        }
        Kind::ListSplit => {
            let state = vec![StateTable::list("rows", Redistribution::Split)];
            let buffer = operator("buffer", state, |run| Box::new(Buffer { run, rows: Vec::new() }));
            graph.connect(source, buffer, 0, Exchange::Rebalance);
            (buffer, Exchange::Forward)
        }
        Kind::Broadcast => {
            let state = vec![sums().plan(), StateTable::list("rules", Redistribution::Broadcast)];
            let rated =
                operator("rated", state, |run| Box::new(Rated { run, subtask: 0, rules: Vec::new(), sums: sums() }));
            graph.connect(source, rated, 0, by_key);
            graph.connect(rules.unwrap(), rated, 1, Exchange::Broadcast);
            (rated, Exchange::Forward)
        }
        Kind::Timers => {
            let clock = operator("clock", vec![], |_| Box::new(Clock));
            let state = vec![window_table().plan(), timer_table().plan()];
            let windows = operator("windows", state, |run| {
                Box::new(Windows { run, windows: window_table(), timers: timer_table(), watermark: i64::MIN })
            });
            graph.connect(source, clock, 0, Exchange::Forward);
            graph.connect(clock, windows, 0, by_key);
            (windows, Exchange::Forward)
        }
        Kind::ListUnion => (source, by_key),
        Kind::Pending => (source, Exchange::Forward),
    };
    let columns: &[usize] = match kind {
        Kind::ListUnion | Kind::Pending => &[0, 2],
        Kind::ListSplit => &[0, 1],
        Kind::Keyed | Kind::Broadcast => &[0, 1, 2],
        Kind::Timers => &[0, 1, 2, 3],
    };
    let sink = {
        let run = run.clone();
        let make = move |context: &OperatorContext| LedgerSink {
            run: run.clone(),
            columns,
            name: format!("{}-{}", context.attempt, context.subtask),
            open: Vec::new(),
            pending: BTreeMap::new(),
        };
        let state = vec![StateTable::list("pending", Redistribution::Split)];
        graph.add(node(
            "ledger",
            parallelism,
            state,
            Arc::new(move |context| Ok(Instance::Operator(Box::new(make(context))))),
        ))
    };
    graph.connect(before, sink, 0, exchange);
    graph
}

fn sums() -> Table {
    Table::new("sums", 1, &["k", "count", "sum"])
}

fn window_table() -> Table {
    Table::new("windows", 2, &["k", "due", "count", "sum"])
}

fn timer_table() -> Table {
    Table::new("timers", 2, &["k", "due"])
}

fn list(name: &str, redistribution: Redistribution, entries: Vec<Value>) -> ListStateHandle {
    ListStateHandle { name: name.into(), redistribution, entries }
}

fn entries<T: serde::de::DeserializeOwned>(restore: &OperatorRestore, name: &str) -> Vec<T> {
    let entries = restore.lists.get(name).into_iter().flatten();
    entries.map(|entry| serde_json::from_value(entry.clone()).unwrap()).collect()
}

/// Columns `split, k, n, at, low`: no later row of this subtask has an earlier time than `low`.
struct Numbers {
    run: Run,
    redistribution: Redistribution,
    /// By split, the next row.
    positions: BTreeMap<i64, i64>,
    turn: usize,
}

impl Source for Numbers {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        let mine = |split: &i64| split % i64::from(context.parallelism) == i64::from(context.subtask);
        self.positions = match (restore.checkpoint, self.redistribution) {
            (None, _) => (0..SPLITS).filter(mine).map(|split| (split, 0)).collect(),
            // Everybody knows all of them and takes its own, however many take part.
            (Some(_), Redistribution::Union) => {
                entries::<(i64, i64)>(&restore, "positions").into_iter().filter(|(split, _)| mine(split)).collect()
            }
            (Some(_), _) => entries::<(i64, i64)>(&restore, "positions").into_iter().collect(),
        };
        Ok(())
    }

    fn poll(&mut self, _: i64) -> Result<SourceEvent, TaskError> {
        let held = self.run.is_held();
        let end = |split: i64| if held { pause(split) } else { ROWS };
        let ready: Vec<i64> =
            self.positions.iter().filter(|(split, next)| **next < end(**split)).map(|(split, _)| *split).collect();
        if ready.is_empty() {
            let ended = self.positions.values().all(|next| *next == ROWS);
            return Ok(if ended { SourceEvent::End } else { SourceEvent::Wait(Duration::from_millis(2)) });
        }
        self.turn += 1;
        let split = ready[self.turn % ready.len()];
        let first = self.positions[&split];
        let next = (first + BATCH).min(end(split));
        self.positions.insert(split, next);
        let unread = self.positions.iter().filter(|(_, next)| **next < ROWS);
        let low = unread.map(|(split, next)| time(*split, *next)).min().unwrap_or(i64::MAX);
        let rows: Vec<Vec<i64>> = (first..next).map(|n| vec![split, key(split, n), n, time(split, n), low]).collect();
        self.run.note_read(rows.len());
        std::thread::sleep(Duration::from_micros(300));
        Ok(SourceEvent::Batch(Batch::inserts(batch(&["split", "k", "n", "at", "low"], &rows))))
    }

    fn snapshot(&mut self, _: u64) -> Result<StateCut, TaskError> {
        let entries = self.positions.iter().map(|(split, next)| json!([split, next])).collect();
        Ok(StateCut { keyed: Vec::new(), lists: vec![list("positions", self.redistribution, entries)] })
    }
}

/// A few rows, then the end: it is over long before the numbers are.
struct Rules {
    next: i64,
}

impl Source for Rules {
    fn open(&mut self, _: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.next = entries(&restore, "position").first().copied().unwrap_or(1);
        Ok(())
    }

    fn poll(&mut self, _: i64) -> Result<SourceEvent, TaskError> {
        if self.next > RULES {
            return Ok(SourceEvent::End);
        }
        self.next += 1;
        Ok(SourceEvent::Batch(Batch::inserts(batch(&["rule"], &[vec![self.next - 1]]))))
    }

    fn snapshot(&mut self, _: u64) -> Result<StateCut, TaskError> {
        let position = list("position", Redistribution::Split, vec![json!(self.next)]);
        Ok(StateCut { keyed: Vec::new(), lists: vec![position] })
    }
}

/// Count and sum by key, shown when the input ends.
struct Sums {
    run: Run,
    sums: Table,
}

impl Operator for Sums {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        self.sums.open(context, &restore)
    }

    fn process(&mut self, _: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        rows_of(&batch.rows).iter().for_each(|row| self.sums.add(&row[1..2], row[2]));
        Ok(())
    }

    fn snapshot(&mut self, _: u64, cut: Cut) -> Result<StateCut, TaskError> {
        Ok(StateCut { keyed: vec![self.sums.cut(cut)], lists: Vec::new() })
    }

    fn finish(&mut self, out: &mut dyn Collector) -> Result<(), TaskError> {
        let rows: Vec<_> = self.sums.rows.iter().map(|(key, values)| [key.as_slice(), values].concat()).collect();
        out.emit(Batch::inserts(batch(&["k", "count", "sum"], &rows)))
    }
}

/// Keeps all rows to itself until the input ends.
struct Buffer {
    run: Run,
    /// An entry a batch.
    rows: Vec<Vec<Vec<i64>>>,
}

impl Operator for Buffer {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        self.rows = entries(&restore, "rows");
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        self.rows.push(rows_of(&batch.rows).into_iter().map(|row| vec![row[0], row[2]]).collect());
        Ok(())
    }

    fn snapshot(&mut self, _: u64, _: Cut) -> Result<StateCut, TaskError> {
        let entries = self.rows.iter().map(|rows| json!(rows)).collect();
        Ok(StateCut { keyed: Vec::new(), lists: vec![list("rows", Redistribution::Split, entries)] })
    }

    fn finish(&mut self, out: &mut dyn Collector) -> Result<(), TaskError> {
        out.emit(Batch::inserts(batch(&["split", "n"], &self.rows.concat())))
    }
}

/// Count, and sum times all rules, by key. Every subtask has to know all rules at the end.
struct Rated {
    run: Run,
    subtask: u32,
    rules: Vec<i64>,
    sums: Table,
}

impl Operator for Rated {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        self.subtask = context.subtask;
        // The copies differ in who wrote them, so that it shows whose was given.
        self.rules = entries::<(i64, u32)>(&restore, "rules").into_iter().map(|(rule, _)| rule).collect();
        self.sums.open(context, &restore)
    }

    fn process(&mut self, input: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        for row in rows_of(&batch.rows) {
            match input {
                0 => self.sums.add(&row[1..2], row[2]),
                _ => self.rules.push(row[0]),
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, _: u64, cut: Cut) -> Result<StateCut, TaskError> {
        let rules = self.rules.iter().map(|rule| json!([rule, self.subtask])).collect();
        let lists = vec![list("rules", Redistribution::Broadcast, rules)];
        Ok(StateCut { keyed: vec![self.sums.cut(cut)], lists })
    }

    fn finish(&mut self, out: &mut dyn Collector) -> Result<(), TaskError> {
        let rating: i64 = self.rules.iter().sum();
        let row = |(key, values): (&Vec<i64>, &Vec<i64>)| vec![key[0], values[0], values[1] * rating];
        let rows: Vec<_> = self.sums.rows.iter().map(row).collect();
        out.emit(Batch::inserts(batch(&["k", "count", "sum"], &rows)))
    }
}

/// Turns what the source says about its rows into watermarks.
struct Clock;

impl Operator for Clock {
    fn open(&mut self, _: &OperatorContext, _: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, out: &mut dyn Collector) -> Result<(), TaskError> {
        let low = rows_of(&batch.rows).last().map(|row| row[4]);
        out.emit(batch)?;
        low.map_or(Ok(()), |low| out.emit_watermark(low - 1))
    }

    fn makes_watermarks(&self) -> bool {
        true
    }
}

/// Count and sum by key and window, shown by a timer at the window's end and forgotten then.
struct Windows {
    run: Run,
    windows: Table,
    timers: Table,
    watermark: i64,
}

impl Operator for Windows {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        self.windows.open(context, &restore)?;
        self.timers.open(context, &restore)
    }

    fn process(&mut self, _: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        for row in rows_of(&batch.rows) {
            if row[3] <= self.watermark {
                return Err(TaskError::Fatal(format!("{row:?} is late at {}", self.watermark)));
            }
            let window = [row[1], due(row[3])];
            self.windows.add(&window, row[2]);
            self.timers.put(&window, &[]);
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, out: &mut dyn Collector) -> Result<(), TaskError> {
        self.watermark = watermark;
        let fired: Vec<Vec<i64>> = self.timers.rows.keys().filter(|timer| timer[1] <= watermark).cloned().collect();
        let mut rows = Vec::with_capacity(fired.len());
        for timer in fired {
            self.timers.remove(&timer);
            let Some(values) = self.windows.remove(&timer) else {
                return Err(TaskError::Fatal(format!("the timer {timer:?} has no window")));
            };
            rows.push([timer, values].concat());
        }
        out.emit(Batch::inserts(batch(&["k", "due", "count", "sum"], &rows)))
    }

    fn snapshot(&mut self, _: u64, cut: Cut) -> Result<StateCut, TaskError> {
        Ok(StateCut { keyed: vec![self.windows.cut(cut), self.timers.cut(cut)], lists: Vec::new() })
    }
}

/// Prepares a transaction at every snapshot and commits it when the snapshot is complete.
struct LedgerSink {
    run: Run,
    columns: &'static [usize],
    /// Of this attempt's transactions.
    name: String,
    open: Vec<Vec<i64>>,
    pending: BTreeMap<u64, String>,
}

impl Operator for LedgerSink {
    fn open(&mut self, context: &OperatorContext, restore: OperatorRestore) -> Result<(), TaskError> {
        self.run.note_given(context, &restore);
        entries::<String>(&restore, "pending").iter().try_for_each(|transaction| self.run.ledger.commit(transaction))
    }

    fn process(&mut self, _: usize, batch: Batch, _: &mut dyn Collector) -> Result<(), TaskError> {
        let rows = rows_of(&batch.rows).into_iter();
        self.open.extend(rows.map(|row| self.columns.iter().map(|column| row[*column]).collect::<Vec<_>>()));
        Ok(())
    }

    fn snapshot(&mut self, checkpoint: u64, _: Cut) -> Result<StateCut, TaskError> {
        if !self.open.is_empty() {
            let transaction = format!("{}-{checkpoint}", self.name);
            self.run.ledger.prepare(&transaction, std::mem::take(&mut self.open));
            self.pending.insert(checkpoint, transaction);
        }
        let entries = self.pending.values().map(|transaction| json!(transaction)).collect();
        Ok(StateCut { keyed: Vec::new(), lists: vec![list("pending", Redistribution::Split, entries)] })
    }

    fn checkpoint_complete(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        if !self.run.commits {
            return Ok(());
        }
        let later = self.pending.split_off(&(checkpoint + 1));
        let done = std::mem::replace(&mut self.pending, later);
        done.values().try_for_each(|transaction| self.run.ledger.commit(transaction))
    }
}
