//! What a part of the plan computes, before it becomes nodes: expressions over the output of nodes that exist.

use super::identity::{self, Lineage};
use super::{Naming, Planner, expressions};
use crate::calc::Calc;
use crate::position::from_datafusion;
use crate::program::{Program, as_input_column, compile, input_column, input_schema};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::{Expr, Operator};
use std::collections::BTreeSet;
use std::sync::Arc;
use streamjob_dataflow::PlanError;
use streamjob_dataflow::graph::{Exchange, Factory};
use streamjob_dataflow::operator::Instance;

/// Rows of one or more nodes with a filter and projections still to be applied.
#[derive(Clone)]
pub struct Relation {
    /// More than one after UNION ALL; all have the schema `input`.
    pub producers: Vec<usize>,
    pub parallelism: u32,
    /// What the producers emit.
    pub produced: SchemaRef,
    /// The same as what `columns` and `condition` refer to.
    pub input: Arc<DFSchema>,
    /// Of each input column, what it is called wherever state depends on it.
    pub names: Vec<String>,
    pub lineage: Lineage,
    /// Input columns that are time attributes: watermarks speak of them.
    pub time_attributes: BTreeSet<usize>,
    /// The table whose source is the only producer.
    pub source: Option<String>,
    pub condition: Option<Expr>,
    pub columns: Vec<Expr>,
    /// Names and types of the columns.
    pub fields: Vec<FieldRef>,
    /// Rows may be retracted.
    pub updating: bool,
}

/// Nodes whose output is exactly the relation.
pub struct Nodes {
    pub producers: Vec<usize>,
    pub parallelism: u32,
    pub schema: SchemaRef,
}

impl Relation {
    /// All columns of nodes, as they come.
    pub fn of_nodes(
        nodes: Nodes,
        names: Vec<String>,
        lineage: Lineage,
        time_attributes: BTreeSet<usize>,
        updating: bool,
    ) -> datafusion_common::Result<Self> {
        let columns = (0..nodes.schema.fields().len()).map(input_column).collect();
        let fields = nodes.schema.fields().iter().map(Arc::clone).collect();
        Ok(Relation {
            producers: nodes.producers,
            parallelism: nodes.parallelism,
            input: Arc::new(input_schema(&nodes.schema)?),
            produced: nodes.schema,
            names,
            lineage,
            time_attributes,
            source: None,
            condition: None,
            columns,
            fields,
            updating,
        })
    }

    /// An expression over a plan's output as one over the relation's input.
    pub fn compose(&self, expr: &Expr, scope: &DFSchema) -> datafusion_common::Result<Expr> {
        let composed = expr.clone().transform_up(|expr| match &expr {
            Expr::Column(column) => Ok(Transformed::yes(self.columns[scope.index_of_column(column)?].clone())),
            Expr::Alias(alias) => Ok(Transformed::yes(alias.expr.as_ref().clone())),
            _ => Ok(Transformed::no(expr)),
        })?;
        expressions::with_flink_casts(composed.data, &self.input)
    }

    pub fn filter(&mut self, condition: Expr) {
        self.lineage.filter(&self.text(&condition), self.updating);
        self.condition = Some(match self.condition.take() {
            None => condition,
            Some(earlier) => datafusion_expr::binary_expr(earlier, Operator::And, condition),
        });
    }

    /// What an expression over the input is called wherever state depends on it.
    pub fn text(&self, expr: &Expr) -> String {
        identity::text(expr, &self.names)
    }

    /// Whether the column at `index` is a time attribute as it is.
    pub fn is_time_attribute(&self, expr: &Expr) -> bool {
        as_input_column(expr).is_some_and(|column| self.time_attributes.contains(&column))
    }
}

impl Planner<'_> {
    /// Makes the nodes that compute `outputs` of the relation's rows; `fields` give names and types.
    pub(super) fn calc(
        &mut self,
        relation: &Relation,
        outputs: Vec<(Expr, FieldRef)>,
        naming: &mut Naming,
    ) -> Result<Nodes, PlanError> {
        let identity =
            relation.condition.is_none()
                && outputs.len() == relation.produced.fields().len()
                && outputs.iter().zip(relation.produced.fields()).enumerate().all(
                    |(index, ((expr, field), produced))| as_input_column(expr) == Some(index) && field == produced,
                );
        let schema = Arc::new(Schema::new(outputs.iter().map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()));
        if identity {
            self.require_all(relation);
            return Ok(Nodes { producers: relation.producers.clone(), parallelism: relation.parallelism, schema });
        }
        let description = describe(relation, &outputs);
        let program = compile(&relation.input, relation.condition.clone(), outputs)
            .map_err(|error| from_datafusion(&error, naming.position))?;
        self.require(relation, &program);
        let program = Arc::new(program);
        let factory: Factory =
            Arc::new(move |_context| Ok(Instance::Operator(Box::new(Calc::new(Arc::clone(&program))))));
        let uid = naming.uid("calc");
        let node = self.add_node(uid, "Calc".into(), relation.parallelism, vec![], description, factory);
        for producer in &relation.producers {
            self.graph.connect(*producer, node, 0, Exchange::Forward);
        }
        Ok(Nodes { producers: vec![node], parallelism: relation.parallelism, schema })
    }

    fn require_all(&mut self, relation: &Relation) {
        if let Some(source) = relation.source.as_ref().and_then(|table| self.sources.get_mut(table)) {
            source.require_all();
        }
    }

    fn require(&mut self, relation: &Relation, program: &Program) {
        if let Some(source) = relation.source.as_ref().and_then(|table| self.sources.get_mut(table)) {
            program.leaves.iter().for_each(|leaf| source.require(leaf));
        }
    }
}

/// What a Calc does, for the job's fingerprint.
fn describe(relation: &Relation, outputs: &[(Expr, FieldRef)]) -> String {
    let outputs: Vec<String> = outputs.iter().map(|(expr, field)| format!("{expr} AS {}", field.name())).collect();
    match &relation.condition {
        Some(condition) => format!("SELECT {} WHERE {condition}", outputs.join(", ")),
        None => format!("SELECT {}", outputs.join(", ")),
    }
}
