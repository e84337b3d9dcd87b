//! `GROUP BY`, over windows and without end, and `SELECT DISTINCT`.
//!
//! A Calc before the aggregation computes keys, arguments and filters as columns. With several subtasks and where partial
//! results can be merged, rows of a batch are aggregated before they are exchanged by key.
//!
//! Keys and calls are put in the order of what they compute, each once: the order in the text makes no other state.

use super::identity::{self, Lineage};
use super::relation::{Nodes, Relation};
use super::{Naming, Planner, query};
use crate::bind::position_of;
use crate::functions::{self, Aggregate as Function, WindowBoundary, WindowEdge, WindowSpec};
use crate::operators::{
    AggregateCall, AggregateFunction, AggregateInput, GroupAggregate, GroupAggregateSpec, LocalAggregate,
    LocalAggregateSpec, WindowAggregate, WindowAggregateSpec, WindowTime,
};
use crate::position::from_datafusion;
use crate::program::input_column;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::logical_plan::Aggregate;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use streamjob_dataflow::graph::{Exchange, Factory};
use streamjob_dataflow::operator::Instance;
use streamjob_dataflow::{PlanError, TaskError};

/// An aggregation with everything it reads as expressions over one relation.
struct Grouping {
    keys: Vec<Named<Expr>>,
    window: Option<Window>,
    calls: Vec<Named<Call>>,
}

/// Something with the name of its column in state tables.
struct Named<T> {
    name: String,
    /// What it computes, as text.
    text: String,
    item: T,
}

struct Window {
    spec: WindowSpec,
    time: Expr,
}

struct Call {
    function: AggregateFunction,
    argument: Option<Expr>,
    filter: Option<Expr>,
}

/// What a column of the query's aggregation is in the operator's output.
enum Place {
    Key(usize),
    Call(usize),
    Edge(WindowEdge),
}

impl Planner<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, naming: &mut Naming) -> Result<Relation, PlanError> {
        let relation = self.translate_retracting(&aggregate.input, naming)?;
        let scope = aggregate.input.schema();
        let mut keys = Vec::with_capacity(aggregate.group_expr.len());
        for expr in &aggregate.group_expr {
            keys.push(query::compose(&relation, expr, scope, naming)?);
        }
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for expr in &aggregate.aggr_expr {
            calls.push(call(&relation, expr, scope, naming)?);
        }
        let fields = aggregate.schema.fields().iter().map(Arc::clone).collect();
        self.grouped(relation, keys, calls, fields, naming)
    }

    pub(super) fn distinct(&mut self, input: &Arc<LogicalPlan>, naming: &mut Naming) -> Result<Relation, PlanError> {
        let relation = self.translate_retracting(input, naming)?;
        let fields = relation.fields.clone();
        let keys = relation.columns.clone();
        self.grouped(relation, keys, vec![], fields, naming)
    }

    /// An aggregation takes back what it is told to take back, so it needs the old rows as well.
    fn translate_retracting(&mut self, plan: &LogicalPlan, naming: &mut Naming) -> Result<Relation, PlanError> {
        let update_before = std::mem::replace(&mut naming.update_before, true);
        let relation = self.translate(plan, naming);
        naming.update_before = update_before;
        relation
    }

    fn grouped(
        &mut self,
        relation: Relation,
        keys: Vec<Expr>,
        calls: Vec<Call>,
        fields: Vec<FieldRef>,
        naming: &mut Naming,
    ) -> Result<Relation, PlanError> {
        let (grouping, places) = grouping(&relation, keys, calls)?;
        let updating = relation.updating;
        if updating && grouping.window.is_some() {
            return Err(naming.position.error(
                "a window over rows that are updated is not supported; aggregate by window first and by key behind it",
            ));
        }
        let columns = self.pre_projection(&relation, &grouping, naming)?;
        for call in &columns.calls {
            call.result_type().map_err(|message| naming.position.error(message))?;
            if updating && !call.supports_retraction() {
                return Err(naming.position.error(format!(
                    "{:?} over rows that are updated is not supported yet; aggregate once, or by a TUMBLE window",
                    call.function
                )));
            }
        }
        let key_count = grouping.keys.len();
        let call_count = grouping.calls.len();
        let lineage = grouping.lineage(&relation.lineage);
        let (nodes, time_attributes) = match &grouping.window {
            None => (self.group_aggregate(columns, updating, &lineage, naming)?, BTreeSet::new()),
            Some(window) => {
                let nodes = self.window_aggregate(columns, window.spec, &lineage, naming)?;
                (nodes, BTreeSet::from([key_count + call_count + 2]))
            }
        };
        let names = nodes.schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut result = Relation::of_nodes(nodes, names, lineage, time_attributes, grouping.window.is_none())
            .map_err(|error| from_datafusion(&error, naming.position))?;
        let columns = places.iter().map(|place| match place {
            Place::Key(index) => *index,
            Place::Call(index) => key_count + index,
            Place::Edge(WindowEdge::Start) => key_count + call_count,
            Place::Edge(WindowEdge::End) => key_count + call_count + 1,
            Place::Edge(WindowEdge::Time) => key_count + call_count + 2,
        });
        result.columns = columns.map(input_column).collect();
        result.fields = fields;
        Ok(result)
    }

    /// The nodes that compute what the aggregation reads: keys, then arguments and filters, then the time attribute.
    fn pre_projection(
        &mut self,
        relation: &Relation,
        grouping: &Grouping,
        naming: &mut Naming,
    ) -> Result<Columns, PlanError> {
        let mut outputs: Vec<(Expr, FieldRef)> = Vec::new();
        let field = |expr: &Expr, name: String| -> Result<FieldRef, PlanError> {
            let (_, field) =
                expr.to_field(relation.input.as_ref()).map_err(|error| from_datafusion(&error, naming.position))?;
            Ok(Arc::new(Field::new(name, field.data_type().clone(), field.is_nullable())))
        };
        for key in &grouping.keys {
            outputs.push((key.item.clone(), field(&key.item, key.name.clone())?));
        }
        let mut places: HashMap<Expr, usize> = HashMap::new();
        let mut column = |expr: &Expr, outputs: &mut Vec<(Expr, FieldRef)>| -> Result<usize, PlanError> {
            if let Some(place) = places.get(expr) {
                return Ok(*place);
            }
            let place = outputs.len();
            outputs.push((expr.clone(), field(expr, format!("argument_{place}"))?));
            places.insert(expr.clone(), place);
            Ok(place)
        };
        let mut calls = Vec::with_capacity(grouping.calls.len());
        for Named { name, item: call, .. } in &grouping.calls {
            let argument = match &call.argument {
                None => None,
                Some(expr) => {
                    let place = column(expr, &mut outputs)?;
                    Some((place, outputs[place].1.data_type().clone()))
                }
            };
            let filter = call.filter.as_ref().map(|filter| column(filter, &mut outputs)).transpose()?;
            calls.push(AggregateCall { function: call.function, argument, filter, name: name.clone() });
        }
        let time = match &grouping.window {
            None => None,
            Some(window) => Some(column(&window.time, &mut outputs)?),
        };
        if outputs.is_empty() {
            // Counting rows reads no column, but batches without columns are not for every reader.
            outputs.push((lit(true), Arc::new(Field::new("row", DataType::Boolean, false))));
        }
        let nodes = self.calc(relation, outputs, naming)?;
        Ok(Columns { nodes, keys: (0..grouping.keys.len()).collect(), calls, time })
    }

    fn group_aggregate(
        &mut self,
        columns: Columns,
        updating: bool,
        lineage: &Lineage,
        naming: &mut Naming,
    ) -> Result<Nodes, PlanError> {
        let parallelism = self.grouping_parallelism(&columns);
        let merges = !updating && columns.calls.iter().all(AggregateCall::is_mergeable);
        let (producers, input) = self.exchanged(&columns, parallelism, merges, None, naming)?;
        let spec = GroupAggregateSpec {
            input,
            calls: columns.calls,
            retractable: updating,
            emit_update_before: naming.update_before,
        };
        let schema = spec.output_schema().map_err(|error| naming.position.error(error.to_string()))?;
        let keys = columns.keys;
        let description = describe(&keys, &spec.calls, &format!("retractable: {updating}"));
        let state = GroupAggregate::new(spec.clone()).and_then(|operator| operator.state());
        let state = state.map_err(|error| naming.position.error(error.to_string()))?;
        let factory: Factory = Arc::new(move |_| operator(GroupAggregate::new(spec.clone())));
        let uid = naming.stateful_uid(lineage);
        let node = self.add_node(uid, "GroupAggregate".into(), parallelism, state, description, factory);
        self.details.insert(node, lineage.detail().to_owned());
        self.connect(&producers, node, Some(keys));
        Ok(Nodes { producers: vec![node], parallelism, schema })
    }

    fn window_aggregate(
        &mut self,
        columns: Columns,
        window: WindowSpec,
        lineage: &Lineage,
        naming: &mut Naming,
    ) -> Result<Nodes, PlanError> {
        let Some(time) = columns.time else {
            return Err(naming.position.error("the window has no time attribute"));
        };
        let parallelism = self.grouping_parallelism(&columns);
        let merges = columns.calls.iter().all(AggregateCall::is_mergeable);
        let (producers, input) = self.exchanged(&columns, parallelism, merges, Some((time, window)), naming)?;
        let spec =
            WindowAggregateSpec { input, time: WindowTime::Event { column: time }, window, calls: columns.calls };
        let schema = spec.output_schema().map_err(|error| naming.position.error(error.to_string()))?;
        let keys = columns.keys;
        let description = describe(&keys, &spec.calls, &format!("{window:?}"));
        let state = WindowAggregate::new(spec.clone()).and_then(|operator| operator.state());
        let state = state.map_err(|error| naming.position.error(error.to_string()))?;
        let factory: Factory = Arc::new(move |_| operator(WindowAggregate::new(spec.clone())));
        let uid = naming.stateful_uid(lineage);
        let node = self.add_node(uid, "WindowAggregate".into(), parallelism, state, description, factory);
        self.details.insert(node, lineage.detail().to_owned());
        self.connect(&producers, node, Some(keys));
        Ok(Nodes { producers: vec![node], parallelism, schema })
    }

    /// All rows of an aggregation without keys belong to one group.
    fn grouping_parallelism(&self, columns: &Columns) -> u32 {
        if columns.keys.is_empty() { 1 } else { self.parallelism }
    }

    /// What is sent by key: rows, or partial results of batches of rows.
    fn exchanged(
        &mut self,
        columns: &Columns,
        parallelism: u32,
        merges: bool,
        window: Option<(usize, WindowSpec)>,
        naming: &mut Naming,
    ) -> Result<(Vec<usize>, AggregateInput), PlanError> {
        let schema = Arc::clone(&columns.nodes.schema);
        let several = parallelism > 1 || columns.nodes.parallelism > 1;
        if !several || !merges {
            return Ok((columns.nodes.producers.clone(), AggregateInput::Rows { schema, keys: columns.keys.clone() }));
        }
        let spec = LocalAggregateSpec { schema, keys: columns.keys.clone(), calls: columns.calls.clone(), window };
        let partials = spec.partials().map_err(|error| naming.position.error(error.to_string()))?;
        let description = describe(&spec.keys, &spec.calls, &format!("{window:?}"));
        let factory: Factory = Arc::new(move |_| operator(LocalAggregate::new(spec.clone())));
        let uid = naming.uid("local-aggregate");
        let local = columns.nodes.parallelism;
        let node = self.add_node(uid, "LocalAggregate".into(), local, vec![], description, factory);
        for producer in &columns.nodes.producers {
            self.graph.connect(*producer, node, 0, Exchange::Forward);
        }
        Ok((vec![node], partials))
    }
}

/// The nodes in front of an aggregation and what it finds where.
struct Columns {
    nodes: Nodes,
    keys: Vec<usize>,
    calls: Vec<AggregateCall>,
    time: Option<usize>,
}

fn operator<T: streamjob_dataflow::Operator + 'static>(made: Result<T, TaskError>) -> Result<Instance, TaskError> {
    Ok(Instance::Operator(Box::new(made?)))
}

fn describe(keys: &[usize], calls: &[AggregateCall], rest: &str) -> String {
    format!("keys {keys:?}, {calls:?}, {rest}")
}

fn label(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::CountStar | AggregateFunction::Count => "count",
        AggregateFunction::CountDistinct => "count_distinct",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::Avg => "avg",
    }
}

/// Separates the window's columns from the keys, and puts keys and calls in order.
fn grouping(relation: &Relation, keys: Vec<Expr>, calls: Vec<Call>) -> Result<(Grouping, Vec<Place>), PlanError> {
    let mut window: Option<Window> = None;
    let mut places = Vec::with_capacity(keys.len() + calls.len());
    let mut edges: Vec<(WindowEdge, crate::position::Position)> = Vec::new();
    let mut plain = Vec::new();
    for expr in keys {
        let Some((boundary, time)) = WindowBoundary::of(&expr) else {
            places.push(Place::Key(plain.len()));
            let text = relation.text(&expr);
            plain.push(Named { name: identity::key_column(&text), text, item: expr });
            continue;
        };
        match &window {
            None => window = Some(Window { spec: boundary.spec, time: time.clone() }),
            Some(window) if window.spec == boundary.spec && window.time == *time => {}
            Some(_) => return Err(boundary.position.error("GROUP BY holds the columns of two different windows")),
        }
        edges.push((boundary.edge, boundary.position));
        places.push(Place::Edge(boundary.edge));
    }
    let calls = calls.into_iter().map(|call| named(relation, call)).collect::<Vec<_>>();
    places.extend((0..calls.len()).map(Place::Call));
    let mut taken = Vec::new();
    let (keys, key_places) = in_order(plain, &mut taken);
    let (calls, call_places) = in_order(calls, &mut taken);
    for place in &mut places {
        match place {
            Place::Key(index) => *index = key_places[*index],
            Place::Call(index) => *index = call_places[*index],
            Place::Edge(_) => {}
        }
    }
    if let Some((_, position)) = edges.first() {
        let has = |edge: WindowEdge| edges.iter().any(|(found, _)| *found == edge);
        if !has(WindowEdge::Start) || !has(WindowEdge::End) {
            return Err(position.error(
                "an aggregation by window names both window_start and window_end in GROUP BY; with one of them alone the \
                 groups would never be complete",
            ));
        }
    }
    Ok((Grouping { keys, window, calls }, places))
}

/// A call with the names of its columns, made of what it computes.
fn named(relation: &Relation, call: Call) -> Named<Call> {
    let function = label(call.function);
    let argument = call.argument.as_ref().map(|argument| relation.text(argument));
    let mut text = match &argument {
        Some(argument) => format!("{function}({argument})"),
        None => function.to_owned(),
    };
    let name = match (&argument, &call.filter) {
        (_, Some(filter)) => {
            text.push_str(&format!(" where {}", relation.text(filter)));
            identity::name(&text)
        }
        (Some(argument), None) => format!("{function}_{}", identity::name(argument)),
        (None, None) => function.to_owned(),
    };
    Named { name, text, item: call }
}

/// Sorted by what they compute, equal ones once, with different names; and where each one went.
fn in_order<T>(items: Vec<Named<T>>, taken: &mut Vec<String>) -> (Vec<Named<T>>, Vec<usize>) {
    let mut numbered: Vec<(usize, Named<T>)> = items.into_iter().enumerate().collect();
    numbered.sort_by(|(_, a), (_, b)| a.text.cmp(&b.text));
    let mut places = vec![0; numbered.len()];
    let mut ordered: Vec<Named<T>> = Vec::with_capacity(numbered.len());
    for (number, mut item) in numbered {
        if ordered.last().is_none_or(|last| last.text != item.text) {
            item.name = identity::unique(item.name, taken);
            taken.push(item.name.clone());
            ordered.push(item);
        }
        places[number] = ordered.len() - 1;
    }
    (ordered, places)
}

impl Grouping {
    fn lineage(&self, input: &Lineage) -> Lineage {
        let keys: Vec<String> = self.keys.iter().map(|key| key.name.clone()).collect();
        let calls: Vec<String> = self.calls.iter().map(|call| call.text.clone()).collect();
        input.grouped(&identity::role(self.window.as_ref().map(|window| window.spec), &keys), &calls)
    }
}

/// One aggregate function over the relation's input.
fn call(relation: &Relation, expr: &Expr, scope: &DFSchema, naming: &Naming) -> Result<Call, PlanError> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let at = position_of(expr).unwrap_or(naming.position);
    let Expr::AggregateFunction(aggregate) = expr else {
        return Err(at.error(format!("'{expr}' is not an aggregate function")));
    };
    let Some(function) = functions::aggregate_of(&aggregate.func) else {
        return Err(at.error(format!("the aggregate function {} is not supported", aggregate.func.name())));
    };
    let params = &aggregate.params;
    let argument = match params.args.as_slice() {
        [argument] => query::compose(relation, argument, scope, naming)?,
        other => {
            let name = aggregate.func.name().to_uppercase();
            return Err(at.error(format!("{name} takes 1 argument, found {}", other.len())));
        }
    };
    let constant = matches!(&argument, Expr::Literal(value, _) if !value.is_null());
    let function = match (function, params.distinct) {
        (Function::Count, false) if constant => AggregateFunction::CountStar,
        (Function::Count, false) => AggregateFunction::Count,
        (Function::Count, true) => AggregateFunction::CountDistinct,
        // Equal values change neither.
        (Function::Min, _) => AggregateFunction::Min,
        (Function::Max, _) => AggregateFunction::Max,
        (Function::Sum, false) => AggregateFunction::Sum,
        (Function::Avg, false) => AggregateFunction::Avg,
        (Function::Sum | Function::Avg, true) => {
            return Err(at.error("SUM and AVG of DISTINCT values are not supported; aggregate over SELECT DISTINCT"));
        }
    };
    let filter = match &params.filter {
        None => None,
        Some(filter) => match query::compose(relation, filter, scope, naming)? {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => None,
            filter => Some(filter),
        },
    };
    let argument = (function != AggregateFunction::CountStar).then_some(argument);
    Ok(Call { function, argument, filter })
}
