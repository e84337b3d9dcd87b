//! The names a job defines: tables, views and functions, in the form DataFusion asks for them.

use crate::bind::{FlinkExpressions, FlinkTypes, WindowTables};
use crate::functions::{self, Builtin};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableProviderFilterPushDown, TableSource, WindowUDF,
};
use datafusion_sql::planner::ContextProvider;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_dataflow::connector::TableDefinition;

/// A column as queries see it.
#[derive(Debug, Clone)]
pub enum ColumnSource {
    /// Index in the physical schema.
    Physical(usize),
    /// Over the physical columns (`program::input_column`).
    Computed(Expr),
}

/// A table's time attribute.
#[derive(Debug, Clone)]
pub struct Watermark {
    /// Index among the table's columns.
    pub column: usize,
    /// The watermark that a row stands for, over the physical columns.
    pub expression: Expr,
    /// Milliseconds without rows after which the source no longer holds others up.
    pub idle_timeout: Option<u64>,
}

#[derive(Debug)]
pub struct Table {
    pub definition: TableDefinition,
    /// Physical and computed columns in the order of their definition.
    pub schema: SchemaRef,
    pub columns: Vec<ColumnSource>,
    pub watermark: Option<Watermark>,
}

/// What a name in FROM stands for.
#[derive(Clone)]
pub enum Relation {
    Table(Arc<Table>),
    View(Arc<LogicalPlan>),
}

impl TableSource for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Sources evaluate no filters; saying otherwise would make the optimizer drop them.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()])
    }
}

struct View(Arc<LogicalPlan>);

impl TableSource for View {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema().inner())
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(self.0.as_ref()))
    }
}

pub struct Catalog {
    relations: BTreeMap<String, Relation>,
    functions: BTreeMap<String, Builtin>,
    options: ConfigOptions,
    expressions: Vec<Arc<dyn ExprPlanner>>,
    windows: Vec<Arc<dyn RelationPlanner>>,
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog {
            relations: BTreeMap::new(),
            functions: BTreeMap::new(),
            options: ConfigOptions::default(),
            expressions: vec![Arc::new(FlinkExpressions)],
            windows: vec![Arc::new(WindowTables)],
        }
    }
}

impl Catalog {
    pub fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.get(name)
    }

    pub fn add(&mut self, name: &str, relation: Relation) {
        self.relations.insert(name.to_string(), relation);
    }

    pub fn add_function(&mut self, name: &str, function: Builtin) {
        self.functions.insert(name.to_lowercase(), function);
    }

    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(&name.to_lowercase())
    }

    pub fn function_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }

    pub fn relation_names(&self) -> String {
        if self.relations.is_empty() {
            return "none so far".into();
        }
        self.relations.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let local = match (name.catalog(), name.schema()) {
            (None | Some("default_catalog"), None | Some("default_database")) => Some(name.table()),
            _ => None,
        };
        match local.and_then(|name| self.relations.get(name)) {
            Some(Relation::Table(table)) => Ok(Arc::clone(table) as Arc<dyn TableSource>),
            Some(Relation::View(plan)) => Ok(Arc::new(View(Arc::clone(plan)))),
            None => plan_err!(
                "there is no table or view '{name}' before this statement; defined: {}",
                self.relation_names()
            ),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expressions
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.windows
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(FlinkTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match self.functions.get(&name.to_lowercase()) {
            Some(builtin) => Some(functions::udf(*builtin)),
            None => functions::by_name(name),
        }
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions::aggregate_by_name(name)
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.function_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }

    fn udaf_names(&self) -> Vec<String> {
        functions::AGGREGATES.iter().map(|name| name.to_string()).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        vec![]
    }
}
