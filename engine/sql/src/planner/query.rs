//! A query's logical plan, and its translation to relations over nodes.

use super::identity::Lineage;
use super::relation::Relation;
use super::{Naming, Planner, expressions, identity};
use crate::catalog::{self, Table};
use crate::check;
use crate::functions::WindowBoundary;
use crate::position::{Position, from_datafusion, from_query};
use crate::program::input_column;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::logical_plan::{Distinct, Filter, Projection, TableScan, Union};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_optimizer::analyzer::AnalyzerRule;
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::{Optimizer, OptimizerContext};
use sqlparser::ast::{Query, Statement};
use std::sync::Arc;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::graph::Exchange;

impl Planner<'_> {
    /// Names and types resolved and checked, nothing coerced.
    pub(super) fn logical_plan(&self, mut query: Query, position: Position) -> Result<LogicalPlan, PlanError> {
        check::query(&mut query, position, &self.catalog.function_names())?;
        let plan = expressions::sql_to_rel(&self.catalog)
            .sql_statement_to_plan(Statement::Query(Box::new(query.clone())))
            .map_err(|error| from_query(&error, &query, position))?;
        expressions::check_plan(&plan).map_err(|error| from_query(&error, &query, position))?;
        Ok(plan)
    }

    /// Coerces types, then applies the few rules that hold for streams as well: filters move towards the sources (below
    /// an aggregation only those on its keys) and unused columns and aggregates go.
    pub(super) fn optimize(&self, plan: LogicalPlan, position: Position) -> Result<LogicalPlan, PlanError> {
        let fail = |error: DataFusionError| from_datafusion(&error, position);
        let options = Arc::new(ConfigOptions::default());
        let plan = TypeCoercion::new().analyze(plan, &options).map_err(fail)?;
        let rules = Optimizer::with_rules(vec![Arc::new(PushDownFilter::new()), Arc::new(OptimizeProjections::new())]);
        let context = OptimizerContext::new_with_config_options(options).with_skip_failing_rules(false);
        rules.optimize(plan, &context, |_, _| {}).map_err(fail)
    }

    pub(super) fn translate(&mut self, plan: &LogicalPlan, naming: &mut Naming) -> Result<Relation, PlanError> {
        match plan {
            LogicalPlan::TableScan(scan) => self.table_scan(scan, naming),
            LogicalPlan::SubqueryAlias(alias) => self.translate(&alias.input, naming),
            LogicalPlan::Projection(projection) => self.projection(projection, naming),
            LogicalPlan::Filter(filter) => self.filter(filter, naming),
            LogicalPlan::Union(union) => self.union(union, naming),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, naming),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input, naming),
            other => Err(naming.position.error(format!(
                "the query needs '{}', which is not supported; supported are projections, filters, GROUP BY, TUMBLE windows \
                 and UNION ALL",
                other.display()
            ))),
        }
    }

    fn table_scan(&mut self, scan: &TableScan, naming: &Naming) -> Result<Relation, PlanError> {
        let table = scan.source.downcast_ref::<Table>().map(|table| table.definition.name.clone());
        let table = match table.as_ref().and_then(|name| self.catalog.relation(name)) {
            Some(catalog::Relation::Table(table)) => Arc::clone(table),
            _ => return Err(naming.position.error(format!("'{}' is not a table", scan.table_name))),
        };
        let mut relation = self.scan(&table, naming)?;
        if let Some(projection) = &scan.projection {
            relation.columns = projection.iter().map(|index| relation.columns[*index].clone()).collect();
            relation.fields = projection.iter().map(|index| Arc::clone(&relation.fields[*index])).collect();
        }
        Ok(relation)
    }

    fn projection(&mut self, projection: &Projection, naming: &mut Naming) -> Result<Relation, PlanError> {
        let known = naming.labels.len();
        naming.labels.extend(identity::labels(projection.expr.iter()));
        let relation = self.translate(&projection.input, naming);
        naming.labels.truncate(known);
        let mut relation = relation?;
        let scope = projection.input.schema();
        let columns = projection.expr.iter().map(|expr| compose(&relation, expr, scope, naming));
        relation.columns = columns.collect::<Result<Vec<_>, _>>()?;
        relation.fields = projection.schema.fields().iter().map(Arc::clone).collect();
        Ok(relation)
    }

    fn filter(&mut self, filter: &Filter, naming: &mut Naming) -> Result<Relation, PlanError> {
        // A row that no longer passes is taken back by its -U; the new row alone would vanish.
        let update_before = std::mem::replace(&mut naming.update_before, true);
        let relation = self.translate(&filter.input, naming);
        naming.update_before = update_before;
        let mut relation = relation?;
        let condition = compose(&relation, &filter.predicate, filter.input.schema(), naming)?;
        relation.filter(condition);
        Ok(relation)
    }

    /// No node of its own: what follows reads from all branches.
    fn union(&mut self, union: &Union, naming: &mut Naming) -> Result<Relation, PlanError> {
        let fields: Vec<_> = union.schema.fields().iter().map(Arc::clone).collect();
        let mut merged: Option<Relation> = None;
        let mut lineages = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let mut branch = self.translate(input, naming)?;
            branch.fields = fields.clone();
            let times = branch.columns.iter().enumerate();
            let times: Vec<usize> =
                times.filter(|(_, column)| branch.is_time_attribute(column)).map(|(index, _)| index).collect();
            let updating = branch.updating;
            let names = branch.columns.iter().map(|column| branch.text(column)).collect();
            let lineage = branch.lineage.clone();
            lineages.push(lineage.clone());
            let outputs = branch.columns.iter().cloned().zip(fields.iter().cloned()).collect();
            let nodes = self.calc(&branch, outputs, naming)?;
            let fail = |error: DataFusionError| from_datafusion(&error, naming.position);
            let branch =
                Relation::of_nodes(nodes, names, lineage, times.into_iter().collect(), updating).map_err(fail)?;
            merged = Some(match merged {
                None => branch,
                Some(mut merged) => {
                    merged.producers.extend(branch.producers);
                    merged.parallelism = merged.parallelism.max(branch.parallelism);
                    // A time attribute of the union is one in every branch.
                    merged.time_attributes.retain(|column| branch.time_attributes.contains(column));
                    merged.updating |= branch.updating;
                    merged
                }
            });
        }
        let mut merged = merged.ok_or_else(|| naming.position.error("UNION ALL of nothing"))?;
        merged.lineage = Lineage::union(lineages, merged.updating);
        merged.columns = (0..fields.len()).map(input_column).collect();
        Ok(merged)
    }

    /// Connects producers to a node that takes rows by key, or all rows without one.
    pub(super) fn connect(&mut self, producers: &[usize], node: usize, keys: Option<Vec<usize>>) {
        let exchange = match keys {
            Some(keys) if !keys.is_empty() => Exchange::Hash(keys),
            _ => Exchange::Rebalance,
        };
        for producer in producers {
            self.graph.connect(*producer, node, 0, exchange.clone());
        }
    }
}

pub(super) fn compose(relation: &Relation, expr: &Expr, scope: &DFSchema, naming: &Naming) -> Result<Expr, PlanError> {
    let composed = relation.compose(expr, scope).map_err(|error| from_datafusion(&error, naming.position))?;
    let mut wrong = None;
    let checked = composed.apply(|node| {
        if let Some((boundary, time)) = WindowBoundary::of(node)
            && !relation.is_time_attribute(time)
        {
            wrong = Some(boundary.position);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    checked.map_err(|error| from_datafusion(&error, naming.position))?;
    match wrong {
        None => Ok(composed),
        Some(position) => Err(position.error(
            "the column in DESCRIPTOR is no time attribute: declare WATERMARK FOR it in its table and pass it on unchanged",
        )),
    }
}
