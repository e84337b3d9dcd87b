//! What a connector offers the planner.

use crate::error::PlanError;
use crate::graph::Factory;
use arrow::datatypes::SchemaRef;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use streamjob_protocol::plan::StateTable;

/// A table of the job's catalog, without its computed columns.
#[derive(Debug, Clone)]
pub struct TableDefinition {
    pub name: String,
    /// Physical columns only. Timestamps are `Timestamp(Millisecond, None)` unless declared finer.
    pub schema: SchemaRef,
    /// The `WITH` options as written, after `${NAME}` substitution; `connector` included.
    pub options: BTreeMap<String, String>,
    /// Column names; empty without `PRIMARY KEY … NOT ENFORCED`.
    pub primary_key: Vec<String>,
}

/// What the planner knows when it asks for a source.
#[derive(Debug, Clone)]
pub struct SourceRequest {
    pub table: TableDefinition,
    /// Column paths the job reads (`["bid", "price"]`); others may be returned as nulls. `None`: all.
    pub required: Option<BTreeSet<Vec<String>>>,
    pub parallelism: u32,
}

#[derive(Clone)]
pub struct SourceSpec {
    pub factory: Factory,
    /// After a restore the same records come again from the restored position.
    pub replayable: bool,
    pub bounded: bool,
    /// Fewer subtasks than the job's parallelism, if the source cannot be split further.
    pub max_parallelism: Option<u32>,
    /// What its snapshots consist of; its position at least.
    pub state: Vec<StateTable>,
}

/// What a sink guarantees under exactly-once checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkGuarantee {
    /// Two-phase commit.
    ExactlyOnce,
    /// Upserts by key: replay overwrites.
    Idempotent,
    /// Replay shows again.
    AtLeastOnce,
}

#[derive(Clone)]
pub struct SinkSpec {
    pub factory: Factory,
    pub guarantee: SinkGuarantee,
    /// Accepts -U, +U and -D rows.
    pub accepts_updates: bool,
    /// What its snapshots consist of; empty for a sink without state.
    pub state: Vec<StateTable>,
}

/// One option of a connector, for checking and for the generated docs table.
#[derive(Debug, Clone)]
pub struct OptionDoc {
    pub name: &'static str,
    pub required: bool,
    pub default: Option<&'static str>,
    pub description: &'static str,
}

pub trait Connector: Send + Sync {
    /// The value of the option `connector`.
    fn name(&self) -> &'static str;
    /// Every accepted option besides `connector`; an unknown one is an error that lists these.
    /// A trailing `*` component (`fields.*.kind`) stands for any name.
    fn options(&self) -> Vec<OptionDoc>;
    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError>;
    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError>;
    /// Whether the sink wants the old row (-U) of every update; one that does without halves what an aggregation emits.
    fn needs_update_before(&self, _table: &TableDefinition) -> bool {
        true
    }
}

/// All connectors of the binary.
#[derive(Clone, Default)]
pub struct Connectors {
    by_name: BTreeMap<&'static str, Arc<dyn Connector>>,
}

impl Connectors {
    pub fn new(connectors: Vec<Arc<dyn Connector>>) -> Self {
        Connectors { by_name: connectors.into_iter().map(|connector| (connector.name(), connector)).collect() }
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.by_name.keys().copied().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.by_name.values()
    }

    /// The connector that the table's options name, after checking that every option is known to it.
    pub fn for_table(&self, table: &TableDefinition) -> Result<&Arc<dyn Connector>, PlanError> {
        let Some(name) = table.options.get("connector") else {
            return Err(PlanError::Option {
                table: table.name.clone(),
                option: "connector".into(),
                message: format!("missing; one of: {}", self.names().join(", ")),
            });
        };
        let Some(connector) = self.by_name.get(name.as_str()) else {
            return Err(PlanError::Option {
                table: table.name.clone(),
                option: "connector".into(),
                message: format!("there is no connector '{name}'; one of: {}", self.names().join(", ")),
            });
        };
        let known = connector.options();
        for option in table.options.keys().filter(|option| *option != "connector") {
            if !known.iter().any(|doc| option_matches(doc.name, option)) {
                return Err(PlanError::Option {
                    table: table.name.clone(),
                    option: option.clone(),
                    message: format!(
                        "connector '{name}' has no such option; it has: {}",
                        known.iter().map(|doc| doc.name).collect::<Vec<_>>().join(", ")
                    ),
                });
            }
        }
        for doc in known.iter().filter(|doc| doc.required) {
            if !table.options.contains_key(doc.name) {
                return Err(PlanError::Option {
                    table: table.name.clone(),
                    option: doc.name.into(),
                    message: format!("connector '{name}' needs it: {}", doc.description),
                });
            }
        }
        Ok(connector)
    }
}

fn option_matches(pattern: &str, option: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == option,
        Some((prefix, suffix)) => {
            option.len() > prefix.len() + suffix.len() && option.starts_with(prefix) && option.ends_with(suffix)
        }
    }
}
