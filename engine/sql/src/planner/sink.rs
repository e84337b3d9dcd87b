//! `INSERT INTO`: the query's columns go into the sink's, with the casts Flink makes by itself.
//!
//! A table has one sink, however many statements write into it: what the sink has not made visible yet does not depend on
//! which statement it came from.

use super::relation::Relation;
use super::{Naming, Planner};
use crate::catalog;
use crate::functions::CastRule;
use crate::position::{Position, from_datafusion};
use crate::types::{casts_implicitly, describe};
use arrow::datatypes::FieldRef;
use datafusion_common::ScalarValue;
use datafusion_expr::{Expr, ExprSchemable};
use sqlparser::ast::{Ident, Query};
use std::sync::Arc;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::{SinkGuarantee, SinkSpec, TableDefinition};
use streamjob_dataflow::graph::{Exchange, Guarantee};

/// A table that the job writes into.
pub(super) struct SinkUse {
    definition: TableDefinition,
    spec: SinkSpec,
    statements: usize,
    /// Nodes whose rows it takes.
    producers: Vec<usize>,
    /// Some of the rows are updates.
    updating: bool,
}

impl Planner<'_> {
    pub(super) fn insert(
        &mut self,
        position: Position,
        table: &Ident,
        columns: &[Ident],
        query: Query,
    ) -> Result<(), PlanError> {
        let at = Position::from(table.span.start);
        let definition = match self.catalog.relation(&table.value) {
            Some(catalog::Relation::Table(table)) => table.definition.clone(),
            Some(catalog::Relation::View(_)) => {
                return Err(at.error(format!("'{}' is a view; INSERT INTO writes into a table", table.value)));
            }
            None => {
                return Err(at.error(format!(
                    "there is no table '{}' before this statement; defined: {}",
                    table.value,
                    self.catalog.relation_names()
                )));
            }
        };
        let targets = target_columns(&definition, columns, at)?;
        let plan = self.logical_plan(query, position)?;
        let plan = self.optimize(plan, position)?;
        let connector = Arc::clone(self.connectors.for_table(&definition)?);
        let index = match self.sinks.iter().position(|sink| sink.definition.name == definition.name) {
            Some(index) => index,
            None => {
                let (spec, definition) = (connector.sink(&definition)?, definition.clone());
                self.sinks.push(SinkUse { definition, spec, statements: 0, producers: vec![], updating: false });
                self.sinks.len() - 1
            }
        };
        self.sinks[index].statements += 1;
        let update_before = connector.needs_update_before(&definition);
        let mut naming = Naming::new(&definition.name, self.sinks[index].statements, position, update_before);
        let relation = self.translate(&plan, &mut naming)?;
        let outputs = sink_columns(&relation, &definition, &targets, at)?;
        if relation.updating && !self.sinks[index].spec.accepts_updates {
            return Err(at.error(format!(
                "table '{}' accepts only inserted rows, but the query updates rows it has already given out (GROUP BY or \
                 DISTINCT without a window); group by a TUMBLE window, or write into a connector that accepts updates",
                definition.name
            )));
        }
        self.weaken(match self.sinks[index].spec.guarantee {
            SinkGuarantee::ExactlyOnce | SinkGuarantee::Idempotent => Guarantee::ExactlyOnce,
            SinkGuarantee::AtLeastOnce => Guarantee::AtLeastOnce,
        });
        let nodes = self.calc(&relation, outputs, &mut naming)?;
        let sink = &mut self.sinks[index];
        sink.producers.extend(nodes.producers);
        sink.updating |= relation.updating;
        Ok(())
    }

    /// Sinks are made when all that they take is known.
    pub(super) fn finish_sinks(&mut self) {
        for sink in std::mem::take(&mut self.sinks) {
            let subtasks: Vec<u32> =
                sink.producers.iter().map(|&producer| self.graph.nodes[producer].parallelism).collect();
            let (least, most) = subtasks.iter().fold((u32::MAX, 1), |(least, most), &n| (least.min(n), most.max(n)));
            // Rows that change hands on their way lose their order, and updates have one.
            let parallelism = if sink.updating && least != most { 1 } else { most };
            let name = &sink.definition.name;
            let node = self.add_node(
                format!("sink:{name}"),
                format!("Sink: {name}"),
                parallelism,
                sink.spec.state,
                format!("{:?} {:?}", sink.definition.schema, sink.definition.options),
                sink.spec.factory,
            );
            for producer in sink.producers {
                self.graph.connect(producer, node, 0, Exchange::Forward);
            }
        }
    }
}

/// For each column of the query, the sink's column it goes into.
fn target_columns(table: &TableDefinition, columns: &[Ident], at: Position) -> Result<Vec<usize>, PlanError> {
    if columns.is_empty() {
        return Ok((0..table.schema.fields().len()).collect());
    }
    let mut targets = Vec::with_capacity(columns.len());
    for column in columns {
        let at = Position::from(column.span.start);
        let Ok(index) = table.schema.index_of(&column.value) else {
            let known: Vec<&str> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(at.error(format!(
                "there is no column '{}' in table '{}'; columns: {}",
                column.value,
                table.name,
                known.join(", ")
            )));
        };
        if targets.contains(&index) {
            return Err(at.error(format!("column '{}' is named twice", column.value)));
        }
        targets.push(index);
    }
    for (index, field) in table.schema.fields().iter().enumerate() {
        if !field.is_nullable() && !targets.contains(&index) {
            return Err(at.error(format!("column '{}' is NOT NULL and must be written", field.name())));
        }
    }
    Ok(targets)
}

/// The sink's columns in order, over the relation's input.
fn sink_columns(
    relation: &Relation,
    table: &TableDefinition,
    targets: &[usize],
    at: Position,
) -> Result<Vec<(Expr, FieldRef)>, PlanError> {
    let signature = |fields: &mut dyn Iterator<Item = &FieldRef>| {
        fields.map(|field| format!("{}: {}", field.name(), describe(field.data_type()))).collect::<Vec<_>>().join(", ")
    };
    let mismatch = |cause: String| {
        at.error(format!(
            "the query does not fit table '{}': {cause}; query: [{}]; table: [{}]",
            table.name,
            signature(&mut relation.fields.iter()),
            signature(&mut targets.iter().map(|index| &table.schema.fields()[*index]))
        ))
    };
    if relation.columns.len() != targets.len() {
        return Err(mismatch(format!(
            "it has {} column(s), the table takes {}",
            relation.columns.len(),
            targets.len()
        )));
    }
    let mut outputs = Vec::with_capacity(table.schema.fields().len());
    for (index, target) in table.schema.fields().iter().enumerate() {
        let Some(column) = targets.iter().position(|target| *target == index) else {
            let null = ScalarValue::try_from(target.data_type()).map_err(|error| from_datafusion(&error, at))?;
            outputs.push((Expr::Literal(null, None), Arc::clone(target)));
            continue;
        };
        let (expr, field) = (&relation.columns[column], &relation.fields[column]);
        let (from, to) = (field.data_type(), target.data_type());
        if !casts_implicitly(from, to) {
            let help = match crate::functions::cast_rule(from, to) {
                CastRule::Refused => String::new(),
                CastRule::Kernel | CastRule::ToText => format!("; write CAST({} AS {})", field.name(), describe(to)),
            };
            return Err(mismatch(format!(
                "column '{}' is {}, column '{}' of the table is {}{help}",
                field.name(),
                describe(from),
                target.name(),
                describe(to)
            )));
        }
        let expr = expr.clone().cast_to(to, relation.input.as_ref()).map_err(|error| from_datafusion(&error, at))?;
        outputs.push((expr, Arc::clone(target)));
    }
    Ok(outputs)
}
