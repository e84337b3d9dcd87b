//! The connectors of the engine: where tables are read from and written to.
//!
//! Each module offers one [`Connector`](streamjob_dataflow::connector::Connector); formats of files are in `format`.
//! Nothing here decides when a checkpoint is taken or complete, or how an instance is placed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod blackhole;
mod datagen;
mod error;
mod filesystem;
mod format;
mod nexmark;
mod options;
mod pace;
mod print;
mod projection;
mod random;
mod rows;
mod stripes;
mod text;

#[cfg(test)]
mod testing;

pub use error::ConnectorError;

use std::sync::Arc;
use streamjob_dataflow::connector::Connectors;

/// Every connector of the binary.
pub fn all() -> Connectors {
    Connectors::new(vec![
        Arc::new(blackhole::BlackholeConnector),
        Arc::new(datagen::DatagenConnector),
        Arc::new(filesystem::FilesystemConnector),
        Arc::new(nexmark::NexmarkConnector),
        Arc::new(print::PrintConnector),
    ])
}

#[cfg(test)]
mod tests {
    use crate::testing::{NoOutput, context, open_sink, open_source, read, schema, table};
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::DataType;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use streamjob_dataflow::connector::SourceRequest;
    use streamjob_dataflow::{Batch, OperatorRestore};
    use streamjob_protocol::plan::StateTable;
    use streamjob_state::{Cut, StateCut};

    #[test]
    fn every_option_is_documented_once() {
        for connector in super::all().iter() {
            let mut seen = BTreeSet::new();
            for option in connector.options() {
                assert!(!option.description.is_empty(), "{} {}", connector.name(), option.name);
                assert!(seen.insert(option.name), "{} {} twice", connector.name(), option.name);
            }
        }
    }

    fn written(cut: StateCut) -> Vec<StateTable> {
        assert!(cut.keyed.is_empty());
        cut.lists.iter().map(|list| StateTable::list(&list.name, list.redistribution)).collect()
    }

    /// A checkpoint holds what the plan says, so that it can be compared before anything runs.
    #[test]
    fn r54_every_connector_writes_the_state_that_it_declares() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("rows"), "{\"n\":1}\n").unwrap();
        let mut with_state = Vec::new();
        for connector in super::all().iter() {
            let options: &[(&str, &str)] = match connector.name() {
                "filesystem" => &[("path", path), ("format", "json")],
                "datagen" => &[("number-of-rows", "10")],
                _ => &[],
            };
            let table = table(schema(vec![("n", DataType::Int64)]), options);
            let nexmark = crate::testing::table(schema(vec![("event_type", DataType::Int32)]), options);
            let table = if connector.name() == "nexmark" { nexmark } else { table };
            let request = SourceRequest { table: table.clone(), required: None, parallelism: 1 };
            let (source, sink) = (connector.source(&request), connector.sink(&table));
            assert!(source.is_ok() || sink.is_ok(), "{}: no options to try it with", connector.name());
            if let Ok(spec) = source {
                let mut source =
                    open_source(connector.as_ref(), &request, &context(0, 1), OperatorRestore::default()).unwrap();
                read(source.as_mut(), 1).unwrap();
                assert_eq!(written(source.snapshot(1).unwrap()), spec.state, "source {}", connector.name());
                with_state.extend((!spec.state.is_empty()).then(|| format!("source {}", connector.name())));
            }
            if let Ok(spec) = sink {
                let mut sink =
                    open_sink(connector.as_ref(), &table, &context(0, 1), OperatorRestore::default()).unwrap();
                let rows = Int64Array::from(vec![1]);
                let rows = RecordBatch::try_new(Arc::clone(&table.schema), vec![Arc::new(rows)]).unwrap();
                sink.process(0, Batch::inserts(rows), &mut NoOutput).unwrap();
                sink.before_barrier(1, &mut NoOutput).unwrap();
                assert_eq!(written(sink.snapshot(1, Cut::Changes).unwrap()), spec.state, "sink {}", connector.name());
                with_state.extend((!spec.state.is_empty()).then(|| format!("sink {}", connector.name())));
            }
        }
        assert_eq!(with_state, ["source datagen", "source filesystem", "sink filesystem", "source nexmark"]);
    }
}
