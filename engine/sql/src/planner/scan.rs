//! Sources: one node a table however often it is read, and the node that makes its watermarks.

use super::identity::Lineage;
use super::relation::Relation;
use super::{Naming, Planner};
use crate::catalog::{ColumnSource, Table};
use crate::position::from_datafusion;
use crate::program::{Leaf, Program, compile, input_column, input_schema};
use crate::watermark::WatermarkAssigner;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion_expr::Expr;
use std::collections::BTreeSet;
use std::sync::Arc;
use streamjob_dataflow::connector::SourceRequest;
use streamjob_dataflow::graph::{Exchange, Factory, Guarantee};
use streamjob_dataflow::operator::Instance;
use streamjob_dataflow::{PlanError, TaskError};

/// A table that the job reads.
pub(super) struct SourceUse {
    table: Arc<Table>,
    /// The source's node; its factory is set when all uses are known.
    node: usize,
    /// What is read from: the source, or the node behind it that makes watermarks.
    output: usize,
    parallelism: u32,
    /// Physical columns, and the time attribute if it is computed.
    schema: SchemaRef,
    /// Input column that is the time attribute.
    time_attribute: Option<usize>,
    /// Column paths read so far; `None` means all.
    required: Option<BTreeSet<Vec<String>>>,
}

impl SourceUse {
    pub(super) fn require_all(&mut self) {
        self.required = None;
    }

    pub(super) fn require(&mut self, leaf: &Leaf) {
        let physical = &self.table.definition.schema;
        // A computed time attribute is read by the node that computes it.
        let Some(field) = physical.fields().get(leaf.column) else { return };
        if let Some(required) = &mut self.required {
            let path = std::iter::once(field.name().clone()).chain(leaf.fields.iter().cloned()).collect();
            required.insert(path);
        }
    }
}

impl Planner<'_> {
    /// The table's columns as expressions over its source.
    pub(super) fn scan(&mut self, table: &Arc<Table>, naming: &Naming) -> Result<Relation, PlanError> {
        let name = table.definition.name.clone();
        if !self.sources.contains_key(&name) {
            let source = self.add_source(table, naming)?;
            self.sources.insert(name.clone(), source);
        }
        let Some(source) = self.sources.get(&name) else {
            return Err(PlanError::Job(format!("the source of table '{name}' was not planned")));
        };
        let computed_time = table.definition.schema.fields().len();
        let columns = table.columns.iter().enumerate().map(|(index, column)| match column {
            ColumnSource::Physical(physical) => input_column(*physical),
            ColumnSource::Computed(_)
                if table.watermark.as_ref().is_some_and(|watermark| watermark.column == index) =>
            {
                input_column(computed_time)
            }
            ColumnSource::Computed(expr) => expr.clone(),
        });
        let input = input_schema(&source.schema).map_err(|error| from_datafusion(&error, naming.position))?;
        Ok(Relation {
            producers: vec![source.output],
            parallelism: source.parallelism,
            produced: Arc::clone(&source.schema),
            names: source.schema.fields().iter().map(|field| field.name().clone()).collect(),
            lineage: Lineage::of_table(&name),
            input: Arc::new(input),
            time_attributes: source.time_attribute.into_iter().collect(),
            source: Some(name),
            condition: None,
            columns: columns.collect(),
            fields: table.schema.fields().iter().map(Arc::clone).collect(),
            updating: false,
        })
    }

    fn add_source(&mut self, table: &Arc<Table>, naming: &Naming) -> Result<SourceUse, PlanError> {
        let definition = &table.definition;
        let name = definition.name.clone();
        if definition.schema.fields().is_empty() {
            return Err(PlanError::Table { table: name, message: "it has no physical column to read".into() });
        }
        let connector = Arc::clone(self.connectors.for_table(definition)?);
        let request = SourceRequest { table: definition.clone(), required: None, parallelism: self.parallelism };
        let spec = connector.source(&request)?;
        if !spec.replayable {
            self.weaken(Guarantee::AtMostOnce);
        }
        let parallelism = spec.max_parallelism.map_or(self.parallelism, |most| self.parallelism.min(most.max(1)));
        let description = format!("{:?} {:?}", definition.schema, definition.options);
        let node = self.add_node(
            format!("source:{name}"),
            format!("Source: {name}"),
            parallelism,
            spec.state,
            description,
            spec.factory,
        );
        let mut source = SourceUse {
            table: Arc::clone(table),
            node,
            output: node,
            parallelism,
            schema: Arc::clone(&definition.schema),
            time_attribute: None,
            required: Some(BTreeSet::new()),
        };
        self.add_watermarks(&mut source, naming)?;
        Ok(source)
    }

    fn add_watermarks(&mut self, source: &mut SourceUse, naming: &Naming) -> Result<(), PlanError> {
        let table = Arc::clone(&source.table);
        let Some(watermark) = &table.watermark else { return Ok(()) };
        let physical = &table.definition.schema;
        let (time, computed): (Expr, bool) = match &table.columns[watermark.column] {
            ColumnSource::Physical(index) => (input_column(*index), false),
            ColumnSource::Computed(expr) => (expr.clone(), true),
        };
        let time_field = Arc::clone(&table.schema.fields()[watermark.column]);
        let watermark_field = Arc::new(time_field.as_ref().clone().with_name("watermark").with_nullable(true));
        let outputs = vec![
            (time, Arc::new(time_field.as_ref().clone().with_nullable(true))),
            (watermark.expression.clone(), watermark_field),
        ];
        let fail = |error| from_datafusion(&error, naming.position);
        let program: Program = input_schema(physical).and_then(|input| compile(&input, None, outputs)).map_err(fail)?;
        program.leaves.iter().for_each(|leaf| source.require(leaf));
        source.time_attribute = Some(match &table.columns[watermark.column] {
            ColumnSource::Physical(index) => *index,
            ColumnSource::Computed(_) => physical.fields().len(),
        });
        if computed {
            let mut fields = physical.fields().to_vec();
            fields.push(time_field);
            source.schema = Arc::new(Schema::new(fields));
        }
        let name = &table.definition.name;
        let description = format!("{} {:?}", watermark.expression, watermark.idle_timeout);
        let program = Arc::new(program);
        let (schema, idle_timeout) = (Arc::clone(&source.schema), watermark.idle_timeout);
        let factory: Factory = Arc::new(move |_context| {
            let assigner = WatermarkAssigner::new(Arc::clone(&program), Arc::clone(&schema), computed, idle_timeout);
            Ok(Instance::Operator(Box::new(assigner)))
        });
        let node = self.add_node(
            format!("watermark:{name}"),
            "WatermarkAssigner".into(),
            source.parallelism,
            vec![],
            description,
            factory,
        );
        self.graph.connect(source.node, node, 0, Exchange::Forward);
        source.output = node;
        Ok(())
    }

    pub(super) fn finish_sources(&mut self) -> Result<(), PlanError> {
        for source in self.sources.values() {
            let definition = &source.table.definition;
            let request = SourceRequest {
                table: definition.clone(),
                required: source.required.clone(),
                parallelism: source.parallelism,
            };
            let factory = self.connectors.for_table(definition)?.source(&request)?.factory;
            let schema = Arc::clone(&definition.schema);
            let name = definition.name.clone();
            self.graph.nodes[source.node].factory = Arc::new(move |context| match factory(context)? {
                Instance::Source(source) => Ok(Instance::Source(source)),
                Instance::Operator(_) => Err(TaskError::Fatal(format!(
                    "the connector of table '{name}' ({} columns) made an operator, not a source",
                    schema.fields().len()
                ))),
            });
        }
        Ok(())
    }
}
