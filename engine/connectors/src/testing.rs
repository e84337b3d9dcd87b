//! Drives sources and sinks by hand, as the runtime would, for the tests of this crate.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_dataflow::connector::{Connector, SourceRequest, TableDefinition};
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, Source, SourceEvent, TaskError,
};
use streamjob_protocol::manifest::KeyGroupRange;
use streamjob_state::StateCut;

pub(crate) fn context(subtask: u32, parallelism: u32) -> OperatorContext {
    OperatorContext {
        job_name: "test".into(),
        job_id: "job-1".into(),
        uid: "operator".into(),
        name: "operator".into(),
        subtask,
        parallelism,
        max_parallelism: 128,
        key_groups: KeyGroupRange { first: 0, last: 127 },
        attempt: uuid::Uuid::new_v4().simple().to_string(),
        checkpointing: true,
        metrics: Arc::default(),
    }
}

pub(crate) fn schema(fields: Vec<(&str, DataType)>) -> SchemaRef {
    Arc::new(Schema::new(fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>()))
}

pub(crate) fn table(schema: SchemaRef, options: &[(&str, &str)]) -> TableDefinition {
    TableDefinition {
        name: "t".into(),
        schema,
        options: options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        primary_key: vec![],
    }
}

/// What every subtask of a restored operator gets when all its lists are union lists.
pub(crate) fn union_restore(cuts: &[StateCut]) -> OperatorRestore {
    let mut lists: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for list in cuts.iter().flat_map(|cut| &cut.lists) {
        lists.entry(list.name.clone()).or_default().extend(list.entries.iter().cloned());
    }
    OperatorRestore { checkpoint: Some(1), keyed: BTreeMap::new(), lists }
}

pub(crate) fn open_source(
    connector: &dyn Connector,
    request: &SourceRequest,
    context: &OperatorContext,
    restore: OperatorRestore,
) -> Result<Box<dyn Source>, TaskError> {
    let spec = connector.source(request).map_err(|error| TaskError::Fatal(error.to_string()))?;
    let Instance::Source(mut source) = (spec.factory)(context)? else { panic!("not a source") };
    source.open(context, restore)?;
    Ok(source)
}

pub(crate) fn open_sink(
    connector: &dyn Connector,
    table: &TableDefinition,
    context: &OperatorContext,
    restore: OperatorRestore,
) -> Result<Box<dyn Operator>, TaskError> {
    let spec = connector.sink(table).map_err(|error| TaskError::Fatal(error.to_string()))?;
    let Instance::Operator(mut sink) = (spec.factory)(context)? else { panic!("not a sink") };
    sink.open(context, restore)?;
    Ok(sink)
}

/// Polls until `rows` rows came, the source ended or it had nothing to say.
pub(crate) fn read(source: &mut dyn Source, rows: usize) -> Result<Vec<RecordBatch>, TaskError> {
    let mut batches = vec![];
    let mut count = 0;
    while count < rows {
        match source.poll(0)? {
            SourceEvent::Batch(batch) => {
                count += batch.len();
                batches.push(batch.rows);
            }
            SourceEvent::Wait(_) | SourceEvent::End => break,
        }
    }
    Ok(batches)
}

pub(crate) fn concat(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&batches[0].schema(), batches).unwrap()
}

pub(crate) struct NoOutput;

impl Collector for NoOutput {
    fn emit(&mut self, _batch: Batch) -> Result<(), TaskError> {
        panic!("a sink emitted a batch")
    }
    fn emit_watermark(&mut self, _watermark: i64) -> Result<(), TaskError> {
        panic!("a sink emitted a watermark")
    }
    fn emit_idle(&mut self, _idle: bool) -> Result<(), TaskError> {
        panic!("a sink emitted idleness")
    }
}
