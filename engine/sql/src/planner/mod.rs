//! From the job's SQL text to its graph.
//!
//! Statements are taken in order: definitions fill the catalog, each `INSERT` is planned by DataFusion to a logical plan,
//! and the plan is translated to nodes, one module an operator kind. Filters and projections are not nodes at once: they
//! are composed into expressions over the input of the next node (`relation`), which then becomes one Calc or part of
//! what follows.
//!
//! Uids, which name state in checkpoints, come from the text alone: `source:<table>` and `sink:<table>`, one of each a
//! table; for aggregations see `identity`. Operators without state have names that are merely different: `watermark:<table>`
//! and `<sink>/<kind>-<ordinal>`, where a second `INSERT` into the same table counts as `<sink>#2`.

mod aggregate;
mod definitions;
mod expressions;
mod identity;
mod query;
mod relation;
mod scan;
mod sink;

use crate::catalog::Catalog;
use crate::functions;
use crate::position::Position;
use crate::script::{self, StatementKind};
use std::collections::BTreeMap;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::Connectors;
use streamjob_dataflow::graph::{Factory, Guarantee, JobGraph, Node};
use streamjob_protocol::plan::StateTable;

/// Plans a job's SQL text at a parallelism.
///
/// # Errors
/// The first thing in the text that is wrong or not supported, with its line and column; or what a connector says of a
/// table's options.
pub fn plan(sql: &str, parallelism: u32, connectors: &Connectors) -> Result<JobGraph, PlanError> {
    let failed = |why: String| PlanError::Job(format!("the SQL text could not be planned: {why}"));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql-planner".into()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, || plan_on_this_stack(sql, parallelism, connectors)) {
            Ok(planning) => planning.join().unwrap_or_else(|_| {
                Err(failed(
                    "the planner met something it does not expect; simplify the last query that was changed".into(),
                ))
            }),
            Err(error) => Err(failed(format!("there is no memory for its stack: {error}"))),
        }
    })
}

/// Planning descends into expressions, and people generate conditions of thousands of terms.
const STACK_BYTES: usize = 256 << 20;

fn plan_on_this_stack(sql: &str, parallelism: u32, connectors: &Connectors) -> Result<JobGraph, PlanError> {
    let statements = script::parse(sql)?;
    let mut planner = Planner::new(parallelism, connectors);
    let mut last = Position::START;
    for statement in statements {
        last = statement.position;
        planner.statement(statement.position, statement.kind)?;
    }
    if planner.sinks.is_empty() {
        return Err(last.error("the job writes nothing; add INSERT INTO <table> SELECT ..."));
    }
    planner.finish()
}

/// State of planning one job.
struct Planner<'a> {
    catalog: Catalog,
    connectors: &'a Connectors,
    parallelism: u32,
    graph: JobGraph,
    /// By table name; a table that is read several times is one source.
    sources: BTreeMap<String, scan::SourceUse>,
    /// Tables that are written into, in the order of their first `INSERT`.
    sinks: Vec<sink::SinkUse>,
    /// By node of an aggregation, what it computes.
    details: BTreeMap<usize, String>,
    guarantee: Guarantee,
}

impl<'a> Planner<'a> {
    fn new(parallelism: u32, connectors: &'a Connectors) -> Self {
        Planner {
            catalog: Catalog::default(),
            connectors,
            parallelism: parallelism.max(1),
            graph: JobGraph::default(),
            sources: BTreeMap::new(),
            sinks: Vec::new(),
            details: BTreeMap::new(),
            guarantee: Guarantee::ExactlyOnce,
        }
    }

    fn statement(&mut self, position: Position, kind: StatementKind) -> Result<(), PlanError> {
        match kind {
            StatementKind::CreateTable(table) => self.create_table(position, *table),
            StatementKind::CreateView { name, if_not_exists, columns, query } => {
                self.create_view(position, &name, if_not_exists, columns, *query)
            }
            StatementKind::CreateFunction { name, if_not_exists, class } => {
                if self.catalog.has_function(&name.value) {
                    if if_not_exists {
                        return Ok(());
                    }
                    return Err(Position::from(name.span.start)
                        .error(format!("the function '{}' is defined twice", name.value)));
                }
                let builtin = functions::by_class(&class).map_err(|message| position.error(message))?;
                self.catalog.add_function(&name.value, builtin);
                Ok(())
            }
            StatementKind::Insert { table, columns, query } => self.insert(position, &table, &columns, *query),
        }
    }

    /// Sources are made last: only now it is known which columns the job reads.
    fn finish(mut self) -> Result<JobGraph, PlanError> {
        self.finish_sources()?;
        self.finish_sinks();
        let uids = self.details.keys().map(|&node| (node, self.graph.nodes[node].uid.clone())).collect();
        for (node, uid) in identity::tell_apart(uids, &self.details) {
            self.graph.nodes[node].uid = uid;
        }
        self.graph.guarantee = Some(self.guarantee);
        Ok(self.graph)
    }

    fn weaken(&mut self, guarantee: Guarantee) {
        self.guarantee = self.guarantee.min(guarantee);
    }

    fn add_node(
        &mut self,
        uid: String,
        name: String,
        parallelism: u32,
        state: Vec<StateTable>,
        description: String,
        factory: Factory,
    ) -> usize {
        let stateful = !state.is_empty();
        self.graph.add(Node { uid, name, parallelism, stateful, state, factory, description })
    }
}

/// What is known of the one `INSERT` that is planned, and the names of the operators it adds.
struct Naming {
    /// The table that is inserted into.
    target: String,
    /// Of operators without state.
    prefix: String,
    /// Constant texts that the statement writes beside the rows of what is planned.
    labels: Vec<String>,
    ordinals: BTreeMap<&'static str, usize>,
    position: Position,
    /// What follows needs the old row of an update, not only the new one.
    update_before: bool,
}

impl Naming {
    /// `ordinal` counts the statements that insert into the table, from 1.
    fn new(target: &str, ordinal: usize, position: Position, update_before: bool) -> Self {
        let prefix = if ordinal == 1 { target.to_owned() } else { format!("{target}#{ordinal}") };
        let (target, labels, ordinals) = (target.to_owned(), Vec::new(), BTreeMap::new());
        Naming { target, prefix, labels, ordinals, position, update_before }
    }

    /// Of an aggregation, from what its rows are made of.
    fn stateful_uid(&self, lineage: &identity::Lineage) -> String {
        let labels: String = self.labels.iter().map(|label| format!(":{label}")).collect();
        format!("{}{labels}/{}", identity::name(&self.target), lineage.path())
    }

    /// Of an operator without state.
    fn uid(&mut self, kind: &'static str) -> String {
        let ordinal = self.ordinals.entry(kind).or_insert(0);
        *ordinal += 1;
        format!("{}/{kind}-{ordinal}", self.prefix)
    }
}
