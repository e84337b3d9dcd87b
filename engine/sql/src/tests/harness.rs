//! A connector in memory and a driver for graphs.

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Fields, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use streamjob_dataflow::connector::{
    Connector, Connectors, OptionDoc, SinkGuarantee, SinkSpec, SourceRequest, SourceSpec, TableDefinition,
};
use streamjob_dataflow::graph::JobGraph;
use streamjob_dataflow::operator::OperatorMetrics;
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, PlanError, Source, SourceEvent, TaskError,
};
use streamjob_protocol::manifest::{KeyGroupRange, Redistribution};
use streamjob_protocol::plan::StateTable;
use streamjob_state::StateCut;

type Rows = Arc<Mutex<BTreeMap<String, Vec<Batch>>>>;
type Required = Arc<Mutex<BTreeMap<String, Option<BTreeSet<Vec<String>>>>>>;

/// Reads batches given by table name; collects what is written.
#[derive(Clone, Default)]
pub struct Memory {
    pub input: Rows,
    pub output: Rows,
    /// The column paths that each source was last asked for.
    pub required: Required,
}

struct MemoryConnector {
    name: &'static str,
    memory: Memory,
}

impl Memory {
    pub fn give(&self, table: &str, rows: RecordBatch) {
        self.input.lock().unwrap().entry(table.into()).or_default().push(Batch::inserts(rows));
    }

    pub fn connectors(&self) -> Connectors {
        let names = ["nexmark", "blackhole", "memory"];
        let connector = |name| Arc::new(MemoryConnector { name, memory: self.clone() }) as Arc<dyn Connector>;
        Connectors::new(names.into_iter().map(connector).collect())
    }

    pub fn plan(&self, sql: &str) -> Result<JobGraph, PlanError> {
        crate::plan(sql, 1, &self.connectors())
    }

    /// Plans, runs to the end of the input, and gives the rows of a sink with their kinds, in order.
    pub fn run(&self, sql: &str, sink: &str) -> Vec<String> {
        let graph = self.plan(sql).unwrap_or_else(|error| panic!("{error}"));
        run(&graph).unwrap();
        let output = self.output.lock().unwrap();
        output.get(sink).map(|batches| batches.iter().flat_map(rows).collect()).unwrap_or_default()
    }

    pub fn required_of(&self, table: &str) -> Vec<String> {
        match self.required.lock().unwrap().get(table) {
            Some(Some(paths)) => paths.iter().map(|path| path.join(".")).collect(),
            Some(None) => vec!["*".into()],
            None => vec!["never asked".into()],
        }
    }
}

/// `+I a|b`, null as empty.
pub fn rows(batch: &Batch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let columns: Vec<_> =
        batch.rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    (0..batch.len())
        .map(|row| {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            format!("{} {}", batch.kind(row).symbol(), values.join("|"))
        })
        .collect()
}

impl Connector for MemoryConnector {
    fn name(&self) -> &'static str {
        self.name
    }

    fn options(&self) -> Vec<OptionDoc> {
        let option = |name| OptionDoc { name, required: false, default: None, description: "of the test" };
        [
            "first-event.rate",
            "next-event.rate",
            "events.num",
            "*.proportion",
            "accepts-updates",
            "needs-update-before",
            "replayable",
            "splits",
            "keeps-state",
        ]
        .into_iter()
        .map(option)
        .collect()
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        let name = request.table.name.clone();
        self.memory.required.lock().unwrap().insert(name.clone(), request.required.clone());
        let input = self.memory.input.lock().unwrap().get(&name).cloned().unwrap_or_default();
        let schema = Arc::clone(&request.table.schema);
        Ok(SourceSpec {
            factory: Arc::new(move |_| {
                let batches = input.iter().rev().map(|batch| with_schema(batch, &schema)).collect();
                Ok(Instance::Source(Box::new(MemorySource { batches })))
            }),
            replayable: request.table.options.get("replayable").map(String::as_str) != Some("false"),
            bounded: true,
            state: state(&request.table),
            max_parallelism: request.table.options.get("splits").and_then(|splits| splits.parse().ok()),
        })
    }

    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        let (name, output) = (table.name.clone(), Arc::clone(&self.memory.output));
        let schema = Arc::clone(&table.schema);
        Ok(SinkSpec {
            factory: Arc::new(move |_| {
                let sink = MemorySink { name: name.clone(), schema: Arc::clone(&schema), output: Arc::clone(&output) };
                Ok(Instance::Operator(Box::new(sink)))
            }),
            guarantee: SinkGuarantee::ExactlyOnce,
            state: state(table),
            accepts_updates: table.options.get("accepts-updates").map(String::as_str) != Some("false"),
        })
    }

    fn needs_update_before(&self, table: &TableDefinition) -> bool {
        table.options.get("needs-update-before").map(String::as_str) != Some("false")
    }
}

/// What a connector with the option `keeps-state` declares; it writes nothing.
fn state(table: &TableDefinition) -> Vec<StateTable> {
    match table.options.get("keeps-state").map(String::as_str) {
        Some("true") => vec![StateTable::list("position", Redistribution::Union)],
        _ => vec![],
    }
}

fn with_schema(batch: &Batch, schema: &SchemaRef) -> Batch {
    Batch::inserts(RecordBatch::try_new(Arc::clone(schema), batch.rows.columns().to_vec()).unwrap())
}

struct MemorySource {
    batches: Vec<Batch>,
}

impl Source for MemorySource {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn poll(&mut self, _now: i64) -> Result<SourceEvent, TaskError> {
        Ok(self.batches.pop().map_or(SourceEvent::End, SourceEvent::Batch))
    }

    fn snapshot(&mut self, _checkpoint: u64) -> Result<StateCut, TaskError> {
        Ok(StateCut::default())
    }
}

struct MemorySink {
    name: String,
    schema: SchemaRef,
    output: Rows,
}

impl Operator for MemorySink {
    fn open(&mut self, _context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _out: &mut dyn Collector) -> Result<(), TaskError> {
        assert_eq!(batch.schema().as_ref(), self.schema.as_ref(), "what reaches sink {}", self.name);
        self.output.lock().unwrap().entry(self.name.clone()).or_default().push(batch);
        Ok(())
    }
}

pub fn context(uid: &str, name: &str) -> OperatorContext {
    OperatorContext {
        job_name: "test".into(),
        job_id: "0".into(),
        uid: uid.into(),
        name: name.into(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        key_groups: KeyGroupRange { first: 0, last: 127 },
        attempt: "0".into(),
        checkpointing: true,
        metrics: Arc::new(OperatorMetrics::default()),
    }
}

/// What an operator says while it is called.
#[derive(Default)]
pub struct Emitted {
    pub batches: Vec<Batch>,
    pub watermarks: Vec<i64>,
    pub idle: Vec<bool>,
}

impl Collector for Emitted {
    fn emit(&mut self, batch: Batch) -> Result<(), TaskError> {
        self.batches.push(batch);
        Ok(())
    }

    fn emit_watermark(&mut self, watermark: i64) -> Result<(), TaskError> {
        self.watermarks.push(watermark);
        Ok(())
    }

    fn emit_idle(&mut self, idle: bool) -> Result<(), TaskError> {
        self.idle.push(idle);
        Ok(())
    }
}

struct Driver<'a> {
    graph: &'a JobGraph,
    operators: BTreeMap<usize, Box<dyn Operator>>,
    /// By node and producer, the last watermark.
    watermarks: BTreeMap<(usize, usize), i64>,
    current: BTreeMap<usize, i64>,
}

/// Runs a graph of parallelism 1: sources one after the other, then the end of time, then the end of data.
pub fn run(graph: &JobGraph) -> Result<(), TaskError> {
    let mut sources = Vec::new();
    let mut driver =
        Driver { graph, operators: BTreeMap::new(), watermarks: BTreeMap::new(), current: BTreeMap::new() };
    for (index, node) in graph.nodes.iter().enumerate() {
        assert_eq!(node.parallelism, 1, "the driver has one subtask a node");
        let context = context(&node.uid, &node.name);
        match (node.factory)(&context)? {
            Instance::Source(mut source) => {
                source.open(&context, OperatorRestore::default())?;
                sources.push((index, source));
            }
            Instance::Operator(mut operator) => {
                operator.open(&context, OperatorRestore::default())?;
                driver.operators.insert(index, operator);
            }
        }
    }
    for (index, source) in &mut sources {
        while let SourceEvent::Batch(batch) = source.poll(0)? {
            driver.send(*index, batch)?;
        }
    }
    for (index, _) in &sources {
        driver.advance(*index, i64::MAX)?;
    }
    for index in 0..graph.nodes.len() {
        let mut emitted = Emitted::default();
        if let Some(operator) = driver.operators.get_mut(&index) {
            operator.finish(&mut emitted)?;
        }
        driver.deliver(index, emitted)?;
    }
    Ok(())
}

impl Driver<'_> {
    fn send(&mut self, from: usize, batch: Batch) -> Result<(), TaskError> {
        for edge in self.graph.edges.iter().filter(|edge| edge.from == from) {
            let mut emitted = Emitted::default();
            let operator = self.operators.get_mut(&edge.to).unwrap();
            operator.process(edge.input, batch.clone(), &mut emitted)?;
            self.deliver(edge.to, emitted)?;
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize, emitted: Emitted) -> Result<(), TaskError> {
        for batch in emitted.batches {
            self.send(from, batch)?;
        }
        for watermark in emitted.watermarks {
            self.advance(from, watermark)?;
        }
        Ok(())
    }

    fn advance(&mut self, from: usize, watermark: i64) -> Result<(), TaskError> {
        for edge in self.graph.edges.iter().filter(|edge| edge.from == from) {
            self.watermarks.insert((edge.to, from), watermark);
            let producers = self.graph.edges.iter().filter(|other| other.to == edge.to);
            let lowest = producers
                .map(|other| self.watermarks.get(&(edge.to, other.from)).copied().unwrap_or(i64::MIN))
                .min()
                .unwrap_or(i64::MIN);
            let current = self.current.entry(edge.to).or_insert(i64::MIN);
            if lowest <= *current {
                continue;
            }
            *current = lowest;
            let mut emitted = Emitted::default();
            let operator = self.operators.get_mut(&edge.to).unwrap();
            operator.on_watermark(lowest, &mut emitted)?;
            let forwards = !operator.makes_watermarks() || lowest == i64::MAX;
            self.deliver(edge.to, emitted)?;
            if forwards {
                self.advance(edge.to, lowest)?;
            }
        }
        Ok(())
    }
}

/// A bid of the Nexmark benchmark.
#[derive(Clone, Copy)]
pub struct Bid {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    pub channel: &'static str,
    pub url: &'static str,
    pub time: i64,
    pub extra: &'static str,
}

/// A batch of the table `datagen`: the bids, with a person event before each one.
pub fn bids(bids: &[Bid], schema: &SchemaRef) -> RecordBatch {
    let rows = bids.len() * 2;
    let types: ArrayRef = Arc::new(Int32Array::from_iter_values((0..rows).map(|row| if row % 2 == 0 { 0 } else { 2 })));
    let present = |row: usize, event: i32| ((event == 2) != row.is_multiple_of(2)).then(|| &bids[row / 2]);
    let text = |event: i32, of: &dyn Fn(&Bid) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter((0..rows).map(|row| present(row, event).map(of))))
    };
    let number = |event: i32, of: &dyn Fn(&Bid) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter((0..rows).map(|row| present(row, event).map(of))))
    };
    let time = |event: i32| -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from_iter((0..rows).map(|row| present(row, event).map(|bid| bid.time))))
    };
    let column = |event: i32, name: &str, data_type: &DataType| -> ArrayRef {
        match (name, data_type) {
            ("auction", _) => number(event, &|bid| bid.auction),
            ("bidder", _) => number(event, &|bid| bid.bidder),
            ("price", _) => number(event, &|bid| bid.price),
            ("channel", _) => text(event, &|bid| bid.channel),
            ("url", _) => text(event, &|bid| bid.url),
            ("extra", _) => text(event, &|bid| bid.extra),
            (_, DataType::Timestamp(..)) => time(event),
            (_, DataType::Int64) => number(event, &|bid| bid.bidder),
            _ => text(event, &|bid| bid.extra),
        }
    };
    let row = |event: i32, fields: &Fields| -> ArrayRef {
        let children = fields.iter().map(|field| column(event, field.name(), field.data_type())).collect();
        let valid: Vec<bool> = (0..rows).map(|row| present(row, event).is_some()).collect();
        // Below a null row the children may hold anything.
        Arc::new(StructArray::try_new(fields.clone(), children, Some(valid.into())).unwrap())
    };
    let columns = schema.fields().iter().map(|field| match (field.name().as_str(), field.data_type()) {
        ("event_type", _) => Arc::clone(&types),
        ("person", DataType::Struct(fields)) => row(0, fields),
        ("bid", DataType::Struct(fields)) => row(2, fields),
        (_, other) => arrow::array::new_null_array(other, rows),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).unwrap()
}
