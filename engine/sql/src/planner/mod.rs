//! From the job's SQL text to its graph.
//!
//! Statements are taken in order: definitions fill the catalog, each `INSERT` is planned by DataFusion to a logical plan,
//! and the plan is translated to nodes, one module an operator kind. Filters and projections are not nodes at once: they
//! are composed into expressions over the input of the next node (`relation`), which then becomes one Calc or part of
//! what follows.
//!
//! Uids, which name state in checkpoints, come from the text alone: `source:<table>` for a source, `watermark:<table>`
//! for its watermarks, and for what an `INSERT` adds `<sink>/<kind>-<ordinal>` and `<sink>/sink`, where a second `INSERT`
//! into the same table counts as `<sink>#2`. The ordinal counts operators of one kind from the sources to the sink.

mod aggregate;
mod definitions;
mod expressions;
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
    if planner.inserts.is_empty() {
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
    /// By sink table, how many `INSERT`s write into it.
    inserts: BTreeMap<String, usize>,
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
            inserts: BTreeMap::new(),
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
        stateful: bool,
        description: String,
        factory: Factory,
    ) -> usize {
        self.graph.add(Node { uid, name, parallelism, stateful, state: Vec::new(), factory, description })
    }
}

/// What is known of the one `INSERT` that is planned, and the names of the operators it adds.
struct Naming {
    prefix: String,
    ordinals: BTreeMap<&'static str, usize>,
    position: Position,
    /// What follows needs the old row of an update, not only the new one.
    update_before: bool,
}

impl Naming {
    fn new(prefix: String, position: Position, update_before: bool) -> Self {
        Naming { prefix, ordinals: BTreeMap::new(), position, update_before }
    }

    fn uid(&mut self, kind: &'static str) -> String {
        let ordinal = self.ordinals.entry(kind).or_insert(0);
        *ordinal += 1;
        format!("{}/{kind}-{ordinal}", self.prefix)
    }
}
