//! A sink that counts rows and drops them.

use std::sync::Arc;
use streamjob_dataflow::connector::{
    Connector, OptionDoc, SinkGuarantee, SinkSpec, SourceRequest, SourceSpec, TableDefinition,
};
use streamjob_dataflow::{
    Batch, Collector, Instance, Operator, OperatorContext, OperatorRestore, PlanError, TaskError,
};

pub(crate) struct BlackholeConnector;

impl Connector for BlackholeConnector {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn options(&self) -> Vec<OptionDoc> {
        vec![]
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        Err(PlanError::Table {
            table: request.table.name.clone(),
            message: "connector 'blackhole' is a sink only; nothing can be read from it".into(),
        })
    }

    fn sink(&self, _table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        Ok(SinkSpec {
            factory: Arc::new(|_| Ok(Instance::Operator(Box::<BlackholeSink>::default()))),
            // Nothing is shown, so nothing is shown twice.
            guarantee: SinkGuarantee::ExactlyOnce,
            accepts_updates: true,
            state: vec![],
        })
    }
}

#[derive(Default)]
struct BlackholeSink {
    name: String,
    rows: u64,
}

impl Operator for BlackholeSink {
    fn open(&mut self, context: &OperatorContext, _restore: OperatorRestore) -> Result<(), TaskError> {
        self.name = format!("{} {}/{}", context.name, context.subtask + 1, context.parallelism);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _out: &mut dyn Collector) -> Result<(), TaskError> {
        self.rows += batch.len() as u64;
        Ok(())
    }

    fn finish(&mut self, _out: &mut dyn Collector) -> Result<(), TaskError> {
        tracing::info!(sink = self.name, rows = self.rows, "blackhole took all its rows");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NoOutput, context, schema};
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::DataType;

    #[test]
    fn counts_every_row() {
        let mut sink = BlackholeSink::default();
        sink.open(&context(0, 1), OperatorRestore::default()).unwrap();
        let rows =
            RecordBatch::try_new(schema(vec![("a", DataType::Int64)]), vec![Arc::new(Int64Array::from(vec![1, 2]))]);
        sink.process(0, Batch::changes(rows.unwrap(), vec![1, 2]), &mut NoOutput).unwrap();
        sink.finish(&mut NoOutput).unwrap();
        assert_eq!(sink.rows, 2);
    }
}
