//! Compiles a predicate and projections into the steps that the Calc operator runs on each batch.
//!
//! Only the leaves that are used are taken out of rows, before filtering. Expressions that occur several times are
//! computed once, unless that could evaluate something that may fail for rows that do not need it.

use crate::functions::{self, RowField};
use crate::types::{Family, family, is_integer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{BinaryExpr, Case};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, Operator, lit};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A column, or a field inside a row, of the operator's input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leaf {
    pub column: usize,
    pub fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Output {
    /// Passed on as it is.
    Register(usize),
    Computed(Arc<dyn PhysicalExpr>),
}

/// Steps over registers: leaves, shared expressions, predicate; then, for the rows that pass, shared expressions and
/// outputs.
#[derive(Debug, Clone)]
pub struct Program {
    pub leaves: Vec<Leaf>,
    pub before: Stage,
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Registers of the first stage that the second one begins with.
    pub kept: Vec<usize>,
    pub after: Stage,
    pub outputs: Vec<Output>,
    pub schema: SchemaRef,
}

/// Expressions that each add a register.
#[derive(Debug, Clone)]
pub struct Stage {
    pub steps: Vec<Arc<dyn PhysicalExpr>>,
    /// `schemas[n]` describes the registers before step `n`; the last one, all of them.
    pub schemas: Vec<SchemaRef>,
}

impl Stage {
    pub fn registers(&self) -> &SchemaRef {
        // A stage is made with the schema of its first registers.
        &self.schemas[self.schemas.len() - 1]
    }
}

/// The name of an input column in the expressions given to `compile`.
pub fn input_column(index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(format!("${index}")))
}

/// The input column an expression is, if it is nothing but one.
pub fn as_input_column(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(Column { relation: None, name, .. }) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// The schema that the expressions over an input refer to.
pub fn input_schema(schema: &Schema) -> Result<DFSchema> {
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| Arc::new(field.as_ref().clone().with_name(format!("${index}"))))
        .collect();
    DFSchema::try_from(Schema::new(fields))
}

/// `outputs` are expressions over `input_column`s with the field each one becomes.
///
/// # Errors
/// DataFusion's, when an expression does not fit its types; planning has checked them, so this names a mistake there.
pub fn compile(input: &DFSchema, predicate: Option<Expr>, outputs: Vec<(Expr, FieldRef)>) -> Result<Program> {
    let predicate = match predicate {
        None => None,
        Some(predicate) => match prepare(predicate, input)? {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => None,
            predicate => Some(predicate),
        },
    };
    let mut fields = Vec::with_capacity(outputs.len());
    let mut expressions = Vec::with_capacity(outputs.len());
    for (expr, field) in outputs {
        let expr = prepare(expr, input)?;
        let found = expr.get_type(input)?;
        expressions.push(if found == *field.data_type() { expr } else { expr.cast_to(field.data_type(), input)? });
        fields.push(field);
    }
    let mut compiler = Compiler { input, leaves: vec![], registers: vec![] };
    let predicate = predicate.map(|predicate| compiler.take_leaves(predicate)).transpose()?;
    let expressions = expressions.into_iter().map(|expr| compiler.take_leaves(expr)).collect::<Result<Vec<_>>>()?;
    compiler.finish(predicate, expressions, Arc::new(Schema::new(fields)))
}

/// Constants folded, intervals added as durations, failing operands kept away from rows that do not need them.
fn prepare(expr: Expr, input: &DFSchema) -> Result<Expr> {
    let expr = expr.transform_up(|expr| intervals_as_durations(expr, input))?.data;
    let context = SimplifyContext::builder().with_schema(Arc::new(input.clone())).build();
    let expr = ExprSimplifier::new(context).simplify(expr)?;
    let expr = expr.transform_up(|expr| Ok(without_alias(expr)))?.data;
    let expr = balance(expr, input)?;
    let expr = expr.transform_up(|expr| guard(expr, input))?.data;
    Ok(expr.transform_up(|expr| plain_choice(expr, input))?.data)
}

/// A CASE that only chooses among columns and constants.
fn plain_choice(expr: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::Case(case) = &expr else { return Ok(Transformed::no(expr)) };
    let data_type = expr.get_type(input)?;
    if case.expr.is_some() || !functions::is_selectable(&data_type) {
        return Ok(Transformed::no(expr));
    }
    let otherwise = match &case.else_expr {
        Some(otherwise) => otherwise.as_ref().clone(),
        None => Expr::Literal(ScalarValue::try_from(&data_type)?, None),
    };
    let plain = |result: &Expr| -> Result<bool> {
        let simple = leaf_of(result).is_some() || matches!(result, Expr::Literal(..));
        Ok(simple && result.get_type(input)? == data_type)
    };
    let mut choice = plain(&otherwise)?;
    for (when, then) in &case.when_then_expr {
        choice = choice && plain(then)? && !may_fail(when, input)?;
    }
    if !choice {
        return Ok(Transformed::no(expr));
    }
    let branches = case.when_then_expr.iter().map(|(when, then)| (when.as_ref().clone(), then.as_ref().clone()));
    Ok(Transformed::yes(functions::select(branches.collect(), otherwise)))
}

fn without_alias(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Alias(alias) => Transformed::yes(*alias.expr),
        other => Transformed::no(other),
    }
}

/// Arrow adds a day-time interval row by row through the calendar, a duration in one vectorised addition.
fn intervals_as_durations(expr: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let duration = |interval: &Expr, timestamp: &Expr| -> Result<Option<Expr>> {
        let (DataType::Timestamp(unit, _), Some(interval)) = (timestamp.get_type(input)?, day_time(interval)) else {
            return Ok(None);
        };
        let nanos = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
        let (per_unit, literal): (i128, fn(Option<i64>) -> ScalarValue) = match unit {
            TimeUnit::Second => (1_000_000_000, ScalarValue::DurationSecond),
            TimeUnit::Millisecond => (1_000_000, ScalarValue::DurationMillisecond),
            TimeUnit::Microsecond => (1_000, ScalarValue::DurationMicrosecond),
            TimeUnit::Nanosecond => (1, ScalarValue::DurationNanosecond),
        };
        match (nanos % per_unit, i64::try_from(nanos / per_unit)) {
            (0, Ok(count)) => Ok(Some(lit(literal(Some(count))))),
            _ => Ok(None),
        }
    };
    if let Some(duration) = duration(right, left)? {
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(left.clone(), *op, Box::new(duration)))));
    }
    if *op == Operator::Plus
        && let Some(duration) = duration(left, right)?
    {
        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(right.clone(), *op, Box::new(duration)))));
    }
    Ok(Transformed::no(expr))
}

fn day_time(expr: &Expr) -> Option<arrow::datatypes::IntervalMonthDayNano> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) if interval.months == 0 => Some(*interval),
        _ => None,
    }
}

/// Long chains of AND or OR become trees of little depth: operators evaluate them on stacks of usual size. The order of the
/// operands stays, and with it what is evaluated first.
fn balance(expr: Expr, input: &DFSchema) -> Result<Expr> {
    const SHORT: usize = 8;
    let balanced = expr.transform_down(|expr| {
        let Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let op = *op;
        let operands = chain(&expr, op);
        if operands.len() <= SHORT {
            return Ok(Transformed::no(expr));
        }
        for operand in &operands {
            // `guard` needs the chain as it is written.
            if may_fail(operand, input)? {
                return Ok(Transformed::no(expr));
            }
        }
        let operands =
            operands.into_iter().map(|operand| balance(operand.clone(), input)).collect::<Result<Vec<_>>>()?;
        Ok(Transformed::new(tree(&operands, op), true, TreeNodeRecursion::Jump))
    })?;
    Ok(balanced.data)
}

/// The operands of a chain of one operator, in order.
fn chain(expr: &Expr, op: Operator) -> Vec<&Expr> {
    let mut operands = Vec::new();
    let mut open = vec![expr];
    while let Some(next) = open.pop() {
        match next {
            Expr::BinaryExpr(binary) if binary.op == op => open.extend([binary.right.as_ref(), binary.left.as_ref()]),
            operand => operands.push(operand),
        }
    }
    operands
}

fn tree(operands: &[Expr], op: Operator) -> Expr {
    match operands {
        [only] => only.clone(),
        several => {
            let (left, right) = several.split_at(several.len() / 2);
            datafusion_expr::binary_expr(tree(left, op), op, tree(right, op))
        }
    }
}

/// Flink evaluates the right side of AND and OR only for rows that the left side does not decide; DataFusion evaluates it
/// for all rows of a batch. Where that could fail, a CASE restores the order.
fn guard(expr: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    if !may_fail(right, input)? {
        return Ok(Transformed::no(expr));
    }
    let decided = match op {
        Operator::And => Expr::Not(left.clone()),
        _ => left.as_ref().clone(),
    };
    let decision = lit(*op == Operator::Or);
    let branch = (Box::new(decided), Box::new(decision));
    Ok(Transformed::yes(Expr::Case(Case::new(None, vec![branch], Some(Box::new(expr))))))
}

/// Whether evaluating the expression for some row can fail.
fn may_fail(expr: &Expr, input: &DFSchema) -> Result<bool> {
    let mut found = false;
    expr.apply(|expr| {
        found = match expr {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) => !is_nonzero(right),
            Expr::Cast(cast) => match cast.expr.get_type(input) {
                Ok(from) => !widens(&from, cast.field.data_type()),
                Err(_) => true,
            },
            Expr::ScalarFunction(function) => functions::may_fail(&function.func) && !constant_divisor(&function.args),
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn constant_divisor(args: &[Expr]) -> bool {
    args.len() == 2 && args.get(1).is_some_and(is_nonzero)
}

fn is_nonzero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => {
            !value.is_null() && ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero != *value)
        }
        _ => false,
    }
}

fn widens(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (from, to) if is_integer(from) && is_integer(to) => to.primitive_width() >= from.primitive_width(),
        (from, DataType::Float32 | DataType::Float64) if family(from) == Family::Number => true,
        (from, DataType::Decimal128(precision, scale)) => match crate::types::integer_as_decimal(from) {
            Some((p, s)) => scale >= &s && i16::from(*precision) - i16::from(*scale) >= i16::from(p) - i16::from(s),
            None => false,
        },
        (DataType::Timestamp(..), DataType::Timestamp(..) | DataType::Date32) => true,
        (from, DataType::Utf8) => family(from) != Family::Bytes,
        _ => false,
    }
}

struct Compiler<'a> {
    input: &'a DFSchema,
    leaves: Vec<Leaf>,
    registers: Vec<Field>,
}

impl Compiler<'_> {
    /// Replaces input columns and fields of them by registers.
    fn take_leaves(&mut self, expr: Expr) -> Result<Expr> {
        let mut leaves = std::mem::take(&mut self.leaves);
        let mut registers = std::mem::take(&mut self.registers);
        let result = expr.transform_down(|expr| {
            let Some(leaf) = leaf_of(&expr) else { return Ok(Transformed::no(expr)) };
            let index = match leaves.iter().position(|known| *known == leaf) {
                Some(index) => index,
                None => {
                    let (_, field) = expr.to_field(self.input)?;
                    let field = field.as_ref().clone().with_name(register_name(leaves.len()));
                    registers.push(field);
                    leaves.push(leaf);
                    leaves.len() - 1
                }
            };
            Ok(Transformed::new(register(index), true, TreeNodeRecursion::Jump))
        });
        (self.leaves, self.registers) = (leaves, registers);
        Ok(result?.data)
    }

    fn finish(self, predicate: Option<Expr>, outputs: Vec<Expr>, schema: SchemaRef) -> Result<Program> {
        let leaf_schema = DFSchema::try_from(Schema::new(self.registers.clone()))?;
        let shared = Shared::find(predicate.as_ref(), &outputs, &leaf_schema)?;
        let mut names: HashMap<Expr, Expr> = HashMap::new();
        let mut next = self.leaves.len();

        let mut before = StageBuilder::new(self.registers);
        for expr in &shared.before {
            before.add(expr, &mut names, &mut next)?;
        }
        let predicate = predicate.map(|predicate| replace(predicate, &names)).transpose()?;
        let first = before.schema()?;
        let physical_predicate = predicate.as_ref().map(|predicate| physical(predicate, &first)).transpose()?;

        let mut used = BTreeSet::new();
        for expr in shared.after.iter().chain(&outputs) {
            collect_registers(&replace(expr.clone(), &names)?, &mut used)?;
        }
        let kept: Vec<usize> =
            (0..before.fields.len()).filter(|index| used.contains(before.fields[*index].name())).collect();
        let mut after = StageBuilder::new(kept.iter().map(|index| before.fields[*index].clone()).collect());
        for expr in &shared.after {
            after.add(expr, &mut names, &mut next)?;
        }
        let second = after.schema()?;
        let outputs = outputs
            .into_iter()
            .map(|expr| match replace(expr, &names)? {
                Expr::Column(column) => Ok(Output::Register(second.index_of_column(&column)?)),
                computed => Ok(Output::Computed(physical(&computed, &second)?)),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Program {
            leaves: self.leaves,
            before: before.finish(),
            predicate: physical_predicate,
            kept,
            after: after.finish(),
            outputs,
            schema,
        })
    }
}

fn leaf_of(expr: &Expr) -> Option<Leaf> {
    if let Some(column) = as_input_column(expr) {
        return Some(Leaf { column, fields: vec![] });
    }
    let (field, row) = RowField::of(expr)?;
    let mut leaf = leaf_of(row)?;
    leaf.fields.push(field.field.clone());
    Some(leaf)
}

fn register_name(index: usize) -> String {
    format!("r{index}")
}

fn register(index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(register_name(index)))
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
}

fn collect_registers(expr: &Expr, used: &mut BTreeSet<String>) -> Result<()> {
    expr.apply(|expr| {
        if let Expr::Column(column) = expr {
            used.insert(column.name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Known expressions become the registers that hold them, the largest first.
fn replace(expr: Expr, names: &HashMap<Expr, Expr>) -> Result<Expr> {
    if names.is_empty() {
        return Ok(expr);
    }
    let replaced = expr.transform_down(|expr| match names.get(&expr) {
        Some(register) => Ok(Transformed::new(register.clone(), true, TreeNodeRecursion::Jump)),
        None => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}

struct StageBuilder {
    fields: Vec<Field>,
    steps: Vec<Arc<dyn PhysicalExpr>>,
    schemas: Vec<SchemaRef>,
}

impl StageBuilder {
    fn new(fields: Vec<Field>) -> Self {
        let schema = Arc::new(Schema::new(fields.clone()));
        StageBuilder { fields, steps: vec![], schemas: vec![schema] }
    }

    fn schema(&self) -> Result<DFSchema> {
        DFSchema::try_from(Schema::new(self.fields.clone()))
    }

    fn add(&mut self, expr: &Expr, names: &mut HashMap<Expr, Expr>, next: &mut usize) -> Result<()> {
        let definition = replace(expr.clone(), names)?;
        let schema = self.schema()?;
        let (_, field) = definition.to_field(&schema)?;
        self.steps.push(physical(&definition, &schema)?);
        self.fields.push(field.as_ref().clone().with_name(register_name(*next)));
        self.schemas.push(Arc::new(Schema::new(self.fields.clone())));
        names.insert(expr.clone(), register(*next));
        *next += 1;
        Ok(())
    }

    fn finish(self) -> Stage {
        Stage { steps: self.steps, schemas: self.schemas }
    }
}

/// Expressions worth a register, smaller ones first, because larger ones may contain them.
struct Shared {
    before: Vec<Expr>,
    after: Vec<Expr>,
}

#[derive(Default, Clone, Copy)]
struct Usage {
    in_predicate: usize,
    in_outputs: usize,
    /// Evaluated for every row of the input, or for every row that passes.
    always_in_predicate: bool,
    always_in_outputs: bool,
}

impl Shared {
    fn find(predicate: Option<&Expr>, outputs: &[Expr], schema: &DFSchema) -> Result<Shared> {
        let mut usages: HashMap<&Expr, Usage> = HashMap::new();
        let mut order: Vec<&Expr> = Vec::new();
        if let Some(predicate) = predicate {
            count(predicate, true, true, &mut usages, &mut order);
        }
        for output in outputs {
            count(output, true, false, &mut usages, &mut order);
        }
        let mut shared = Shared { before: vec![], after: vec![] };
        for expr in order {
            let usage = usages[expr];
            if usage.in_predicate + usage.in_outputs < 2 {
                continue;
            }
            let harmless = !may_fail(expr, schema)?;
            if usage.in_predicate > 0 && (usage.always_in_predicate || harmless) {
                shared.before.push(expr.clone());
            } else if usage.in_outputs > 1 && (usage.always_in_outputs || harmless) {
                shared.after.push(expr.clone());
            }
        }
        for exprs in [&mut shared.before, &mut shared.after] {
            let mut sized = Vec::with_capacity(exprs.len());
            for expr in exprs.drain(..) {
                sized.push((size(&expr)?, expr));
            }
            sized.sort_by_key(|(size, _)| *size);
            exprs.extend(sized.into_iter().map(|(_, expr)| expr));
        }
        Ok(shared)
    }
}

fn size(expr: &Expr) -> Result<usize> {
    let mut nodes = 0;
    expr.apply(|_| {
        nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(nodes)
}

fn count<'e>(
    expr: &'e Expr,
    always: bool,
    in_predicate: bool,
    usages: &mut HashMap<&'e Expr, Usage>,
    order: &mut Vec<&'e Expr>,
) {
    if matches!(expr, Expr::Column(_) | Expr::Literal(..)) {
        return;
    }
    let seen = usages.contains_key(expr);
    let usage = usages.entry(expr).or_insert_with(|| {
        order.push(expr);
        Usage::default()
    });
    if in_predicate {
        usage.in_predicate += 1;
        usage.always_in_predicate |= always;
    } else {
        usage.in_outputs += 1;
        usage.always_in_outputs |= always;
    }
    if seen {
        return;
    }
    let mut visit = |child: &'e Expr, always: bool| count(child, always, in_predicate, usages, order);
    match expr {
        Expr::Case(case) => {
            if let Some(operand) = &case.expr {
                visit(operand, always);
            }
            for (index, (when, then)) in case.when_then_expr.iter().enumerate() {
                visit(when, always && index == 0);
                visit(then, false);
            }
            if let Some(otherwise) = &case.else_expr {
                visit(otherwise, false);
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            visit(left, always);
            visit(right, false);
        }
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
            visit(left, always);
            visit(right, always);
        }
        Expr::ScalarFunction(function) => {
            let lazy = function.func.short_circuits();
            for (index, argument) in function.args.iter().enumerate() {
                visit(argument, always && (!lazy || index == 0));
            }
        }
        Expr::Cast(cast) => visit(&cast.expr, always),
        Expr::TryCast(cast) => visit(&cast.expr, always),
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::Negative(inner) => visit(inner, always),
        Expr::Like(like) => {
            visit(&like.expr, always);
            visit(&like.pattern, always);
        }
        Expr::InList(list) => visit(&list.expr, always),
        Expr::Between(between) => {
            visit(&between.expr, always);
            visit(&between.low, always);
            visit(&between.high, always);
        }
        // What is inside of any other kind is left alone.
        _ => {}
    }
}
