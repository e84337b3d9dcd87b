//! Random rows and sequences, with Flink's options. Row n is a pure function of the seed and n, so a restored job gets
//! the same rows again, at any parallelism.
//!
//! Where Flink's values depend on the clock, ours are derived from the row: times count from `base-time` at the rate of
//! the table. With `replay` = 'false' the source behaves as one that cannot be asked again: it keeps no position, the
//! clock is the real one, and after a failure other rows follow.

mod columns;
mod fields;
mod source;

use crate::options::{Options, optional};
use crate::stripes::{self, STRIPES};
use fields::{FieldSpec, specs};
use source::{DatagenSource, Settings};
use std::sync::Arc;
use streamjob_dataflow::connector::{Connector, OptionDoc, SinkSpec, SourceRequest, SourceSpec, TableDefinition};
use streamjob_dataflow::{Instance, PlanError};

const DEFAULT_BASE_TIME: i64 = 1_700_000_000_000;
const DEFAULT_RATE: u64 = 10_000;

pub(crate) struct DatagenConnector;

impl Connector for DatagenConnector {
    fn name(&self) -> &'static str {
        "datagen"
    }

    fn options(&self) -> Vec<OptionDoc> {
        vec![
            optional("rows-per-second", Some("10000"), "Rows a second over all subtasks"),
            optional(
                "number-of-rows",
                None,
                "Ends the table after so many rows; without it and sequences it never ends",
            ),
            optional("fields.*.kind", Some("random"), "'random' or 'sequence'"),
            optional("fields.*.min", None, "Smallest random number; by default the smallest of the type"),
            optional("fields.*.max", None, "Largest random number; by default the largest of the type"),
            optional("fields.*.max-past", Some("0"), "A random time lies up to so long before the time of its row"),
            optional("fields.*.length", Some("100"), "Length of random strings and bytes"),
            optional("fields.*.var-len", Some("false"), "'true' makes lengths random, up to fields.*.length"),
            optional("fields.*.null-rate", Some("0"), "Share of nulls, from 0 to 1"),
            optional("fields.*.start", None, "First value of a sequence"),
            optional("fields.*.end", None, "Last value of a sequence; the first sequence that ends ends the table"),
            optional("seed", Some("0"), "The same seed gives the same rows"),
            optional("base-time", Some("1700000000000"), "Time of row 0, milliseconds since the epoch"),
            optional(
                "replay",
                Some("true"),
                "'false' makes a source that cannot be replayed: after a failure rows are lost (at most once)",
            ),
        ]
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        let options = Options::of(&request.table);
        let rate = options.number("rows-per-second", DEFAULT_RATE, 1, i64::MAX as u64)?;
        let fields = specs(&request.table, request.required.as_ref())?;
        let longest = fields.iter().filter_map(FieldSpec::sequence_length).min();
        let rows = match options.text("number-of-rows") {
            Some(_) => Some(options.number("number-of-rows", 0, 0, 1u64 << 62)?),
            None => None,
        };
        let rows = rows.into_iter().chain(longest).min();
        let replay = options.flag("replay", true)?;
        let settings = Settings {
            schema: request.table.schema.clone(),
            fields: Arc::new(fields),
            rate,
            rows: rows.unwrap_or(u64::MAX),
            seed: options.number("seed", 0, 0, u64::MAX)?,
            base_time: options.number("base-time", DEFAULT_BASE_TIME, 0, 1 << 52)?,
            replay,
        };
        Ok(SourceSpec {
            factory: Arc::new(move |_| Ok(Instance::Source(Box::new(DatagenSource::new(settings.clone()))))),
            replayable: replay,
            bounded: rows.is_some(),
            max_parallelism: Some(STRIPES),
            state: if replay { stripes::state() } else { vec![] },
        })
    }

    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        Err(PlanError::Table {
            table: table.name.clone(),
            message: "connector 'datagen' is a source only; nothing can be written to it".into(),
        })
    }
}

#[cfg(test)]
mod tests;
