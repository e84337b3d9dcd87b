//! `CREATE TABLE` and `CREATE VIEW`.

use super::{Planner, expressions};
use crate::catalog::{ColumnSource, Relation, Table, Watermark};
use crate::check;
use crate::ddl::{ColumnKind, CreateTable, WatermarkDefinition};
use crate::position::{Position, from_datafusion};
use crate::program::input_column;
use crate::types::{describe, nullable};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, TableReference};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlanBuilder};
use sqlparser::ast::{Expr as SqlExpr, Ident, Query};
use std::sync::Arc;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::connector::TableDefinition;

/// Flink's option of any table for how long a silent source holds up event time.
const IDLE_TIMEOUT: &str = "scan.watermark.idle-timeout";

impl Planner<'_> {
    pub(super) fn create_table(&mut self, position: Position, definition: CreateTable) -> Result<(), PlanError> {
        if self.is_defined(&definition.name, definition.if_not_exists)? {
            return Ok(());
        }
        let name = definition.name.value.clone();
        let primary_key: Vec<String> = definition.primary_key.iter().map(|column| column.value.clone()).collect();
        let mut options = definition.options;
        let idle_timeout = take_idle_timeout(&name, &mut options)?;

        let mut physical: Vec<FieldRef> = Vec::new();
        for column in &definition.columns {
            if let ColumnKind::Physical { data_type, nullable } = &column.kind {
                let nullable = *nullable && !primary_key.contains(&column.name.value);
                physical.push(Arc::new(Field::new(column.name.value.as_str(), data_type.clone(), nullable)));
            }
        }
        let physical = Schema::new(physical);
        let reference = TableReference::bare(name.as_str());
        let fail = |error: datafusion_common::DataFusionError| from_datafusion(&error, position);
        let scope = DFSchema::try_from_qualified_schema(reference.clone(), &physical).map_err(fail)?;
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut columns = Vec::new();
        for column in definition.columns {
            let at = Position::from(column.name.span.start);
            match column.kind {
                ColumnKind::Physical { .. } => {
                    let index = columns.iter().filter(|source| matches!(source, ColumnSource::Physical(_))).count();
                    fields.push(Arc::clone(&physical.fields()[index]));
                    columns.push(ColumnSource::Physical(index));
                }
                ColumnKind::Computed(expr) => {
                    let (expr, field) = self.table_expression(*expr, at, &scope)?;
                    fields.push(Arc::new(field.as_ref().clone().with_name(column.name.value)));
                    columns.push(ColumnSource::Computed(on_physical(expr, &scope, None, at)?));
                }
            }
        }
        let schema = Arc::new(Schema::new(fields));
        let watermark = match definition.watermark {
            None => {
                if idle_timeout.is_some() {
                    return Err(PlanError::Option {
                        table: name,
                        option: IDLE_TIMEOUT.into(),
                        message: "the table has no WATERMARK to which it could apply".into(),
                    });
                }
                None
            }
            Some(watermark) => Some(self.watermark(watermark, &reference, &schema, &columns, idle_timeout)?),
        };
        let table = Table {
            definition: TableDefinition { name: name.clone(), schema: Arc::new(physical), options, primary_key },
            schema,
            columns,
            watermark,
        };
        self.catalog.add(&name, Relation::Table(Arc::new(table)));
        Ok(())
    }

    fn watermark(
        &self,
        definition: WatermarkDefinition,
        table: &TableReference,
        schema: &Schema,
        columns: &[ColumnSource],
        idle_timeout: Option<u64>,
    ) -> Result<Watermark, PlanError> {
        let at = Position::from(definition.column.span.start);
        let name = &definition.column.value;
        let Ok(column) = schema.index_of(name) else {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(at.error(format!(
                "the watermark's column '{name}' is not a column of the table; columns: {}",
                known.join(", ")
            )));
        };
        let time = schema.field(column).data_type();
        if !matches!(time, DataType::Timestamp(TimeUnit::Millisecond, _)) {
            return Err(at.error(format!(
                "the watermark's column '{name}' must be TIMESTAMP(3) or TIMESTAMP_LTZ(3), found {}",
                describe(time)
            )));
        }
        let fail = |error: datafusion_common::DataFusionError| from_datafusion(&error, definition.position);
        let scope = DFSchema::try_from_qualified_schema(table.clone(), schema).map_err(fail)?;
        let (expression, field) = self.table_expression(definition.expression, definition.position, &scope)?;
        if field.data_type() != time {
            return Err(definition.position.error(format!(
                "the watermark must have the type of its column, {}, found {}",
                describe(time),
                describe(field.data_type())
            )));
        }
        let expression = on_physical(expression, &scope, Some(columns), definition.position)?;
        Ok(Watermark { column, expression, idle_timeout })
    }

    /// Plans an expression over a table's columns, with all casts made explicit.
    fn table_expression(
        &self,
        mut expr: SqlExpr,
        position: Position,
        scope: &DFSchema,
    ) -> Result<(Expr, FieldRef), PlanError> {
        check::expression(&mut expr, position, &self.catalog.function_names())?;
        let planned =
            expressions::plan(&self.catalog, expr, scope).map_err(|error| from_datafusion(&error, position))?;
        let field = planned.to_field(scope).map_err(|error| from_datafusion(&error, position))?.1;
        Ok((planned, nullable_if(&field)))
    }

    pub(super) fn create_view(
        &mut self,
        position: Position,
        name: &Ident,
        if_not_exists: bool,
        columns: Vec<Ident>,
        query: Query,
    ) -> Result<(), PlanError> {
        if self.is_defined(name, if_not_exists)? {
            return Ok(());
        }
        let mut plan = self.logical_plan(query, position)?;
        if !columns.is_empty() {
            let found = plan.schema().columns();
            if found.len() != columns.len() {
                return Err(position.error(format!(
                    "the view names {} column(s), its query has {}",
                    columns.len(),
                    found.len()
                )));
            }
            let renamed = found.into_iter().zip(columns).map(|(column, name)| Expr::Column(column).alias(name.value));
            plan = LogicalPlanBuilder::from(plan)
                .project(renamed.collect::<Vec<_>>())
                .and_then(LogicalPlanBuilder::build)
                .map_err(|error| from_datafusion(&error, position))?;
        }
        let mut names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(position.error(format!("the view has two columns named '{}'; name them with AS", pair[0])));
        }
        self.catalog.add(&name.value, Relation::View(Arc::new(plan)));
        Ok(())
    }

    fn is_defined(&self, name: &Ident, if_not_exists: bool) -> Result<bool, PlanError> {
        if self.catalog.relation(&name.value).is_none() {
            return Ok(false);
        }
        if if_not_exists {
            return Ok(true);
        }
        Err(Position::from(name.span.start)
            .error(format!("'{}' is already defined; a table or view is defined once", name.value)))
    }
}

fn nullable_if(field: &FieldRef) -> FieldRef {
    if field.is_nullable() {
        nullable(field.name(), field.data_type().clone())
    } else {
        Arc::new(Field::new(field.name().as_str(), field.data_type().clone(), false))
    }
}

/// Replaces the columns in scope by what they are over the physical ones; `None`: the scope is the physical ones.
fn on_physical(
    expr: Expr,
    scope: &DFSchema,
    columns: Option<&[ColumnSource]>,
    position: Position,
) -> Result<Expr, PlanError> {
    let replaced = expr.transform_up(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let index = scope.index_of_column(column)?;
        Ok(Transformed::yes(match columns.and_then(|columns| columns.get(index)) {
            Some(ColumnSource::Physical(physical)) => input_column(*physical),
            Some(ColumnSource::Computed(expr)) => expr.clone(),
            None => input_column(index),
        }))
    });
    Ok(replaced.map_err(|error| from_datafusion(&error, position))?.data)
}

fn take_idle_timeout(
    table: &str,
    options: &mut std::collections::BTreeMap<String, String>,
) -> Result<Option<u64>, PlanError> {
    let Some(text) = options.remove(IDLE_TIMEOUT) else { return Ok(None) };
    parse_duration(&text).map(Some).ok_or_else(|| PlanError::Option {
        table: table.to_string(),
        option: IDLE_TIMEOUT.into(),
        message: format!("expected a duration as in '30 s', '500 ms' or '1 min', found '{text}'"),
    })
}

/// A duration as Flink's options write it, in milliseconds.
fn parse_duration(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim().to_lowercase().as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_flinks_units() {
        let cases = [
            ("30 s", Some(30_000)),
            ("500ms", Some(500)),
            ("7", Some(7)),
            ("1 min", Some(60_000)),
            ("2 h", Some(7_200_000)),
            ("1 d", Some(86_400_000)),
            ("s", None),
            ("-1 s", None),
            ("1 fortnight", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
