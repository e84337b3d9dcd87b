//! Gives Flink's meaning to what DataFusion leaves to planners: operators and their types, fields of rows, and the
//! table functions of windows.

use crate::dialect::TABLE_ARGUMENT;
use crate::functions::{
    self, Builtin, WindowEdge, WindowSpec, adjusted_decimal, is_exact, row_field, temporal_field, udf, window_boundary,
};
use crate::position::Position;
use crate::types::{Family, describe, family, integer_as_decimal, is_integer};
use arrow::datatypes::{DataType, Field};
use datafusion_common::{
    Column, DFSchema, DataFusionError, Diagnostic, Location, Result, ScalarValue, Span, TableReference, plan_err,
};
use datafusion_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion_expr::planner::{
    ExprPlanner, PlannedRelation, PlannerResult, RawAggregateExpr, RawBinaryExpr, RelationPlanner,
    RelationPlannerContext, RelationPlanning, TypePlanner,
};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlanBuilder, Operator, lit};
use sqlparser::ast::{
    BinaryOperator, DataType as SqlType, DateTimeField, Expr as SqlExpr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, Interval, ObjectName, TableAlias, TableFactor, Value,
};

/// An error at a position of the SQL text.
pub fn error_at(position: Option<Position>, message: String) -> DataFusionError {
    let span = position.map(|position| {
        let location = Location { line: position.line, column: position.column };
        Span::new(location, location)
    });
    DataFusionError::Plan(message.clone()).with_diagnostic(Diagnostic::new_error(message, span))
}

/// The first column in the expression knows where it stands.
pub fn position_of(expr: &Expr) -> Option<Position> {
    let mut columns: Vec<&Column> = expr.column_refs().into_iter().collect();
    columns.sort_by_key(|column| column.spans().first());
    let span = columns.iter().find_map(|column| column.spans().first())?;
    Some(Position { line: span.start.line, column: span.start.column })
}

fn call(builtin: Builtin, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(udf(builtin), args))
}

#[derive(Debug)]
pub struct FlinkExpressions;

impl ExprPlanner for FlinkExpressions {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let types = (left.get_type(schema)?, right.get_type(schema)?);
        let position = position_of(&left).or_else(|| position_of(&right));
        let planned = match operator(&op) {
            Some(op @ (Operator::And | Operator::Or)) => {
                for data_type in [&types.0, &types.1] {
                    if !matches!(family(data_type), Family::Boolean | Family::Null) {
                        let message = format!("{op} needs conditions on both sides, found {}", describe(data_type));
                        return Err(error_at(position, message));
                    }
                }
                binary(left, op, right)
            }
            Some(Operator::StringConcat) => {
                for data_type in [&types.0, &types.1] {
                    if !matches!(family(data_type), Family::Text | Family::Null) {
                        let message =
                            format!("|| joins texts, found {}; write CAST(... AS STRING)", describe(data_type));
                        return Err(error_at(position, message));
                    }
                }
                call(Builtin::Concat, vec![left, right])
            }
            Some(op) if is_comparison(op) => {
                comparable((&left, &types.0), (&right, &types.1)).map_err(|message| error_at(position, message))?;
                binary(left, op, right)
            }
            Some(op) => arithmetic(op, left, right, types, schema).map_err(|error| match error {
                DataFusionError::Plan(message) => error_at(position, message),
                other => other,
            })?,
            None => return Err(error_at(position, format!("the operator {op} is not supported"))),
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let row = Expr::Column(Column::from((qualifier, field)));
        Ok(PlannerResult::Planned(nested_names.iter().fold(row, |row, name| row_field(row, name))))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        if let [Expr::Literal(ScalarValue::Utf8(Some(name)), _), value] = args.as_slice()
            && let Some(field) = temporal_field(name)
        {
            return Ok(PlannerResult::Planned(call(Builtin::Extract(field), vec![value.clone()])));
        }
        Ok(PlannerResult::Original(args))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(Builtin::Substring, args)))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(Builtin::Position, args)))
    }

    /// `COUNT(*)` counts a constant.
    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        #[expect(deprecated)]
        let star = matches!(expr.args.as_slice(), [] | [Expr::Wildcard { .. }]);
        if star && functions::aggregate_of(&expr.func) == Some(functions::Aggregate::Count) && !expr.distinct {
            expr.args = vec![lit(1i32)];
        }
        Ok(PlannerResult::Original(expr))
    }
}

fn operator(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::And => Operator::And,
        BinaryOperator::Or => Operator::Or,
        BinaryOperator::StringConcat => Operator::StringConcat,
        _ => return None,
    })
}

fn is_comparison(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Whether Flink compares the two without a cast by the user. A text literal stands for a time.
pub fn comparable(left: (&Expr, &DataType), right: (&Expr, &DataType)) -> std::result::Result<(), String> {
    let (left_family, right_family) = (family(left.1), family(right.1));
    let literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let temporal = |family: Family| matches!(family, Family::Date | Family::Timestamp | Family::Instant);
    let fits = match (left_family, right_family) {
        (Family::Null, _) | (_, Family::Null) => true,
        (Family::Row | Family::Other, _) => false,
        (a, b) if a == b => true,
        (a, Family::Text) if temporal(a) => literal(right.0),
        (Family::Text, b) if temporal(b) => literal(left.0),
        (Family::Date, Family::Timestamp) | (Family::Timestamp, Family::Date) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(format!("{} and {} cannot be compared; CAST one of them", describe(left.1), describe(right.1)))
}

/// Plans `+ - * / %` with Flink's result types.
fn arithmetic(op: Operator, left: Expr, right: Expr, types: (DataType, DataType), schema: &DFSchema) -> Result<Expr> {
    match (family(&types.0), family(&types.1)) {
        (Family::Number, Family::Number) => {}
        (Family::Timestamp | Family::Instant | Family::Date, Family::Interval)
            if matches!(op, Operator::Plus | Operator::Minus) =>
        {
            return Ok(binary(left, op, right));
        }
        (Family::Interval, Family::Timestamp | Family::Instant | Family::Date) if op == Operator::Plus => {
            return Ok(binary(right, op, left));
        }
        (Family::Null, _) | (_, Family::Null) => {
            return plan_err!("{op} with a bare NULL has no type; write CAST(NULL AS type)");
        }
        _ => {
            return plan_err!(
                "{} {op} {} is not supported; CAST the operands to numbers",
                describe(&types.0),
                describe(&types.1)
            );
        }
    }
    if op == Operator::Modulo {
        return Ok(call(Builtin::Mod, vec![left, right]));
    }
    let has_decimal = [&types.0, &types.1].iter().any(|data_type| matches!(data_type, DataType::Decimal128(..)));
    if !has_decimal {
        return Ok(binary(left, op, right));
    }
    if !is_exact(&types.0) || !is_exact(&types.1) {
        let left = left.cast_to(&DataType::Float64, schema)?;
        return Ok(binary(left, op, right.cast_to(&DataType::Float64, schema)?));
    }
    let (Some(a), Some(b)) = (integer_as_decimal(&types.0), integer_as_decimal(&types.1)) else {
        return plan_err!("{} {op} {} is not supported", describe(&types.0), describe(&types.1));
    };
    if op == Operator::Divide {
        return Ok(call(Builtin::DecimalDivide, vec![left, right]));
    }
    let ((p1, s1), (p2, s2)) = ((u16::from(a.0), a.1 as u16), (u16::from(b.0), b.1 as u16));
    let (precision, scale) = match op {
        Operator::Multiply => (p1 + p2 + 1, s1 + s2),
        _ => (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
    };
    if adjusted_decimal(precision, scale).1 != scale as i8 {
        return plan_err!(
            "{} {op} {} has more digits than DECIMAL holds and would be rounded; CAST the operands to fewer digits",
            describe(&types.0),
            describe(&types.1)
        );
    }
    let as_decimal = |expr: Expr, data_type: &DataType, (precision, scale): (u8, i8)| {
        if is_integer(data_type) { expr.cast_to(&DataType::Decimal128(precision, scale), schema) } else { Ok(expr) }
    };
    let left = as_decimal(left, &types.0, a)?;
    Ok(binary(left, op, as_decimal(right, &types.1, b)?))
}

#[derive(Debug)]
pub struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<arrow::datatypes::FieldRef>> {
        match crate::types::of_cast(sql_type, Position::START) {
            Ok(data_type) => Ok(Some(crate::types::nullable("", data_type))),
            // A typed literal carries its type's default precision.
            Err(error) => plan_err!("{error}"),
        }
    }
}

/// `TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND [, INTERVAL offset])`, with or without `TABLE(...)` around it.
///
/// The result is a projection that adds the window's columns; the aggregation over it recognises them.
#[derive(Debug)]
pub struct WindowTables;

impl RelationPlanner for WindowTables {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::TableFunction {
                expr: SqlExpr::Function(Function { name, args: FunctionArguments::List(list), .. }),
                alias,
            } => tumble(&name, &list.args, alias, context),
            TableFactor::Table { name, args: Some(args), alias, .. } => tumble(&name, &args.args, alias, context),
            TableFactor::Function { name, args, alias, .. } => tumble(&name, &args, alias, context),
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn tumble(
    name: &ObjectName,
    args: &[FunctionArg],
    alias: Option<TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> Result<RelationPlanning> {
    const USAGE: &str = "TUMBLE is written TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND [, INTERVAL offset])";
    let position = Position::START.of(name);
    let usage = || error_at(Some(position), USAGE.to_string());
    let mut slots: [Option<&SqlExpr>; 4] = [None; 4];
    for (index, arg) in args.iter().enumerate() {
        let (slot, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(index), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                let names = ["DATA", "TIMECOL", "SIZE", "OFFSET"];
                (names.iter().position(|known| name.value.eq_ignore_ascii_case(known)), value)
            }
            _ => return Err(usage()),
        };
        match slot.and_then(|slot| slots.get_mut(slot)) {
            Some(free) if free.is_none() => *free = Some(value),
            _ => return Err(usage()),
        }
    }
    let (Some(data), Some(time), Some(size)) = (slots[0], slots[1], slots[2]) else { return Err(usage()) };
    let table = table_argument(data).ok_or_else(usage)?;
    let time = descriptor(time).ok_or_else(usage)?;
    let size_position = position.of(size);
    let size = milliseconds(size).map_err(|message| error_at(Some(size_position), message))?;
    let offset = match slots[3] {
        None => 0,
        Some(offset) => {
            let at = position.of(offset);
            milliseconds(offset).map_err(|message| error_at(Some(at), message))?
        }
    };
    if size <= 0 {
        return Err(error_at(Some(size_position), "the size of a window must be positive".into()));
    }
    if offset.abs() >= size {
        return Err(error_at(Some(position), "the offset of a window must be smaller than its size".into()));
    }
    let input = context.plan(table)?;
    let time_position = Position::START.at(time.span);
    let time = context.sql_to_expr(SqlExpr::Identifier(time), input.schema())?;
    let time_type = time.get_type(input.schema())?;
    if !matches!(family(&time_type), Family::Timestamp | Family::Instant) {
        let message = format!(
            "the column in DESCRIPTOR must be a time attribute: a TIMESTAMP(3) column with a WATERMARK; found {}",
            describe(&time_type)
        );
        return Err(error_at(Some(time_position), message));
    }
    let spec = WindowSpec { size, offset };
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for (edge, name) in
        [(WindowEdge::Start, "window_start"), (WindowEdge::End, "window_end"), (WindowEdge::Time, "window_time")]
    {
        columns.push(window_boundary(edge, spec, time_position, time.clone()).alias(name));
    }
    let plan = LogicalPlanBuilder::from(input).project(columns)?.build()?;
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

fn table_argument(data: &SqlExpr) -> Option<TableFactor> {
    let idents = match data {
        SqlExpr::Prefixed { prefix, value } if prefix.value == TABLE_ARGUMENT => match value.as_ref() {
            SqlExpr::CompoundIdentifier(idents) => idents.clone(),
            _ => return None,
        },
        _ => return None,
    };
    Some(TableFactor::Table {
        name: ObjectName::from(idents),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}

fn descriptor(time: &SqlExpr) -> Option<Ident> {
    let SqlExpr::Function(function) = time else { return None };
    if !function.name.to_string().eq_ignore_ascii_case("descriptor") {
        return None;
    }
    match &function.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Identifier(ident)))] => Some(ident.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// A literal interval of fixed length in milliseconds.
fn milliseconds(expr: &SqlExpr) -> std::result::Result<i64, String> {
    const USAGE: &str =
        "expected an interval of fixed length, as in INTERVAL '10' SECOND, INTERVAL '5' MINUTES or INTERVAL '1' DAY";
    let (negative, interval) = match expr {
        SqlExpr::Interval(interval) => (false, interval),
        SqlExpr::UnaryOp { op: sqlparser::ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
            SqlExpr::Interval(interval) => (true, interval),
            _ => return Err(USAGE.into()),
        },
        _ => return Err(USAGE.into()),
    };
    let Interval { value, leading_field: Some(unit), leading_precision: None, last_field: None, .. } = interval else {
        return Err(USAGE.into());
    };
    let text = match value.as_ref() {
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.trim().to_string(),
            _ => return Err(USAGE.into()),
        },
        _ => return Err(USAGE.into()),
    };
    let unit: i64 = match unit {
        DateTimeField::Second | DateTimeField::Seconds => 1_000,
        DateTimeField::Minute | DateTimeField::Minutes => 60_000,
        DateTimeField::Hour | DateTimeField::Hours => 3_600_000,
        DateTimeField::Day | DateTimeField::Days => 86_400_000,
        _ => return Err(USAGE.into()),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text.as_str(), ""));
    if !fraction.is_empty() && unit != 1_000 {
        return Err(USAGE.into());
    }
    let millis: i64 = match fraction.len() {
        0 => 0,
        1..=3 => format!("{fraction:0<3}").parse().map_err(|_| USAGE.to_string())?,
        _ => return Err("windows have a size of whole milliseconds".into()),
    };
    let whole: i64 = whole.parse().map_err(|_| USAGE.to_string())?;
    let magnitude = whole.checked_mul(unit).and_then(|whole| whole.checked_add(millis)).ok_or(USAGE)?;
    Ok(if negative { -magnitude } else { magnitude })
}
