//! What the aggregating operators cost: `cargo run -p streamjob-sql --example operators`.
//! Prints million input rows a CPU-second, and how long cutting and restoring a million keys takes. Reads the CPU clock
//! of Linux.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::DataType;
use std::error::Error;
use std::sync::Arc;
use streamjob_dataflow::{Batch, Collector, Operator, OperatorContext, OperatorMetrics, OperatorRestore, TaskError};
use streamjob_protocol::manifest::KeyGroupRange;
use streamjob_sql::operators::{
    AggregateCall, AggregateFunction, AggregateInput, GroupAggregate, GroupAggregateSpec, LocalAggregate,
    LocalAggregateSpec, WindowAggregate, WindowAggregateSpec, WindowSpec, WindowTime,
};
use streamjob_state::Cut;
use streamjob_state::snapshot::{self, Compression};

const ROWS: usize = 4096;
const BATCHES: usize = 1000;
const ALL: KeyGroupRange = KeyGroupRange { first: 0, last: 127 };

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Counts rows and drops them.
#[derive(Default)]
struct Sink(usize);

impl Collector for Sink {
    fn emit(&mut self, batch: Batch) -> Result<(), TaskError> {
        self.0 += batch.len();
        Ok(())
    }

    fn emit_watermark(&mut self, _watermark: i64) -> Result<(), TaskError> {
        Ok(())
    }

    fn emit_idle(&mut self, _idle: bool) -> Result<(), TaskError> {
        Ok(())
    }
}

fn context() -> OperatorContext {
    OperatorContext {
        job_name: "benchmark".into(),
        job_id: "1".into(),
        uid: "operator".into(),
        name: "operator".into(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        key_groups: ALL,
        attempt: "1".into(),
        checkpointing: true,
        metrics: Arc::new(OperatorMetrics::default()),
    }
}

fn batches(distinct: u64) -> Outcome<Vec<RecordBatch>> {
    let mut state = 1u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % below) as i64
    };
    (0..BATCHES)
        .map(|batch| {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| next(distinct))));
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| next(1000))));
            let times = (0..ROWS).map(|row| ((batch * ROWS + row) / 100) as i64);
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(times));
            Ok(RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true), ("t", times, true)])?)
        })
        .collect()
}

fn call(function: AggregateFunction) -> AggregateCall {
    let argument = (function != AggregateFunction::CountStar).then_some((1, DataType::Int64));
    AggregateCall { function, argument, filter: None, name: format!("{function:?}") }
}

fn run(name: &str, operator: &mut dyn Operator, batches: &[RecordBatch]) -> Outcome<()> {
    let mut sink = Sink::default();
    for pass in ["first pass", "second pass"] {
        let start = cpu_seconds()?;
        for batch in batches {
            operator.process(0, Batch::inserts(batch.clone()), &mut sink)?;
        }
        let rows = (batches.len() * ROWS) as f64;
        println!("{name}, {pass}: {:.1} M rows/s", rows / (cpu_seconds()? - start) / 1e6);
    }
    let start = cpu_seconds()?;
    operator.on_watermark(i64::MAX, &mut sink)?;
    println!("{name}: fired in {:.0} ms, {} rows out", (cpu_seconds()? - start) * 1e3, sink.0);
    Ok(())
}

fn main() -> Outcome<()> {
    let calls = vec![call(AggregateFunction::CountStar), call(AggregateFunction::Sum)];
    for (name, distinct) in [("1 M uniform keys", 1 << 20), ("1000 hot keys", 1000)] {
        let batches = batches(distinct)?;
        let schema = batches[0].schema();
        let rows = AggregateInput::Rows { schema: schema.clone(), keys: vec![0] };
        for emit_update_before in [true, false] {
            let spec = GroupAggregateSpec {
                input: rows.clone(),
                calls: calls.clone(),
                retractable: false,
                emit_update_before,
            };
            let mut operator = GroupAggregate::new(spec.clone())?;
            operator.open(&context(), OperatorRestore::default())?;
            run(&format!("{name}, count and sum, -U {emit_update_before}"), &mut operator, &batches)?;
            if emit_update_before {
                checkpoint(name, &mut operator, GroupAggregate::new(spec)?, &batches)?;
            }
        }
        let local = LocalAggregateSpec { schema, keys: vec![0], calls: calls.clone(), window: None };
        run(&format!("{name}, local count and sum"), &mut LocalAggregate::new(local)?, &batches)?;
        let mut window = WindowAggregate::new(WindowAggregateSpec {
            input: rows,
            time: WindowTime::Event { column: 2 },
            window: WindowSpec { size: 10_000, offset: 0 },
            calls: vec![call(AggregateFunction::Max), call(AggregateFunction::CountStar)],
        })?;
        window.open(&context(), OperatorRestore::default())?;
        run(&format!("{name}, window maximum"), &mut window, &batches)?;
    }
    Ok(())
}

fn checkpoint(
    name: &str,
    operator: &mut GroupAggregate,
    mut successor: GroupAggregate,
    batches: &[RecordBatch],
) -> Outcome<()> {
    let mut start = cpu_seconds()?;
    let mut lap = |what: &str| -> Outcome<()> {
        println!("{name}: {what} in {:.1} ms", (cpu_seconds()? - start) * 1e3);
        start = cpu_seconds()?;
        Ok(())
    };
    let base = operator.snapshot(1, Cut::Changes)?.keyed.remove(0);
    lap(&format!("cut {} keys", base.rows.num_rows()))?;
    let base = snapshot::in_memory(|out| snapshot::encode(&base, ALL, Compression::None, out))?;
    lap(&format!("encoded {} bytes", base.len()))?;
    for batch in &batches[..100] {
        operator.process(0, Batch::inserts(batch.clone()), &mut Sink::default())?;
    }
    lap("100 more batches")?;
    let delta = operator.snapshot(2, Cut::Changes)?.keyed.remove(0);
    lap(&format!("cut {} changed keys", delta.rows.num_rows()))?;
    let delta = snapshot::in_memory(|out| snapshot::encode(&delta, ALL, Compression::None, out))?;
    lap("encoded them")?;
    snapshot::in_memory(|out| snapshot::compact(&[base.clone(), delta.clone()], Compression::None, out))?;
    lap("compacted both files")?;
    let mut restore = OperatorRestore::default();
    let mut rows = snapshot::decode(base.clone(), ALL)?;
    rows.extend(snapshot::decode(delta, ALL)?);
    restore.keyed.insert("groups".into(), rows);
    lap("decoded both files")?;
    successor.open(&context(), restore)?;
    lap("restored the operator")?;
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(path, &base)?;
    }
    Ok(())
}

/// Time that this thread was on a core, so that a busy machine does not count.
fn cpu_seconds() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e9)
}
