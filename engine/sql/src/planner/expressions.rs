//! Expressions between DataFusion's planner and the operators: checks of types, coercion, Flink's casts.

use crate::bind::{comparable, error_at, position_of};
use crate::catalog::Catalog;
use crate::functions::{CastRule, cast_rule, text_of};
use crate::types::{Family, describe, family};
use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast::Expr as SqlExpr;
use std::sync::Arc;

/// Flink's identifiers are case sensitive and its numbers with a point are decimals.
pub fn sql_to_rel(catalog: &Catalog) -> SqlToRel<'_, Catalog> {
    let options = ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        .with_collect_spans(true);
    SqlToRel::new_with_options(catalog, options)
}

/// Plans, checks and coerces one expression over `scope`.
pub fn plan(catalog: &Catalog, expr: SqlExpr, scope: &DFSchema) -> Result<Expr> {
    let expr = sql_to_rel(catalog).sql_to_expr(expr, scope, &mut PlannerContext::new())?;
    check(&expr, scope)?;
    let context = SimplifyContext::builder().with_schema(Arc::new(scope.clone())).build();
    ExprSimplifier::new(context).coerce(expr, scope)
}

/// Checks every expression of a plan that is not coerced yet.
pub fn check_plan(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Union(union) = node {
            check_union(union)?;
        }
        let inputs = node.inputs();
        let scope = match inputs.as_slice() {
            [only] => only.schema().as_ref().clone(),
            several => merge_schema(several),
        };
        node.apply_expressions(|expr| {
            check(expr, &scope)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(())
}

fn check_union(union: &datafusion_expr::logical_plan::Union) -> Result<()> {
    let Some(first) = union.inputs.first() else { return Ok(()) };
    for input in &union.inputs[1..] {
        for (index, (left, right)) in first.schema().fields().iter().zip(input.schema().fields()).enumerate() {
            let (a, b) = (family(left.data_type()), family(right.data_type()));
            if a != b && a != Family::Null && b != Family::Null {
                let message = format!(
                    "column {} of UNION ALL is {} on one side and {} on the other; CAST one of them",
                    index + 1,
                    describe(left.data_type()),
                    describe(right.data_type())
                );
                return Err(error_at(None, message));
            }
        }
    }
    Ok(())
}

/// Refuses what DataFusion would coerce in another way than Flink.
fn check(expr: &Expr, scope: &DFSchema) -> Result<()> {
    expr.apply(|node| {
        check_node(node, scope)
            .map_err(|message| error_at(position_of(node).or_else(|| position_of(expr)), message))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_node(expr: &Expr, scope: &DFSchema) -> std::result::Result<(), String> {
    let type_of = |expr: &Expr| expr.get_type(scope).map_err(|error| error.message().into_owned());
    let compare = |left: &Expr, right: &Expr| -> std::result::Result<(), String> {
        comparable((left, &type_of(left)?), (right, &type_of(right)?))
    };
    match expr {
        Expr::InList(list) => list.list.iter().try_for_each(|item| compare(&list.expr, item)),
        Expr::Between(between) => {
            compare(&between.expr, &between.low)?;
            compare(&between.expr, &between.high)
        }
        Expr::Like(like) => match family(&type_of(&like.expr)?) {
            Family::Text | Family::Null => Ok(()),
            _ => Err(format!("LIKE needs a text, found {}", describe(&type_of(&like.expr)?))),
        },
        Expr::Case(case) => {
            for (when, _) in &case.when_then_expr {
                match &case.expr {
                    Some(operand) => compare(operand, when)?,
                    None if matches!(family(&type_of(when)?), Family::Boolean | Family::Null) => {}
                    None => return Err(format!("WHEN needs a condition, found {}", describe(&type_of(when)?))),
                }
            }
            let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            same_family(results.map(|result| type_of(result)), "the results of CASE")
        }
        Expr::ScalarFunction(function) if matches!(function.name(), "coalesce" | "nullif") => same_family(
            function.args.iter().map(type_of),
            &format!("the arguments of {}", function.name().to_uppercase()),
        ),
        Expr::Cast(cast) => castable(&type_of(&cast.expr)?, cast.field.data_type()),
        Expr::TryCast(cast) => castable(&type_of(&cast.expr)?, cast.field.data_type()),
        Expr::Negative(inner) => match family(&type_of(inner)?) {
            Family::Number => Ok(()),
            _ => Err(format!("'-' needs a number, found {}", describe(&type_of(inner)?))),
        },
        Expr::IsTrue(inner) | Expr::IsFalse(inner) | Expr::IsNotTrue(inner) | Expr::IsNotFalse(inner) => {
            match family(&type_of(inner)?) {
                Family::Boolean | Family::Null => Ok(()),
                _ => Err(format!("IS TRUE and IS FALSE need a condition, found {}", describe(&type_of(inner)?))),
            }
        }
        _ => Ok(()),
    }
}

fn same_family(
    types: impl Iterator<Item = std::result::Result<DataType, String>>,
    what: &str,
) -> std::result::Result<(), String> {
    let mut first: Option<DataType> = None;
    for data_type in types {
        let data_type = data_type?;
        match &first {
            _ if family(&data_type) == Family::Null => {}
            None => first = Some(data_type),
            Some(known) if family(known) == family(&data_type) => {}
            Some(known) => {
                return Err(format!(
                    "{what} must have one type, found {} and {}; CAST one of them",
                    describe(known),
                    describe(&data_type)
                ));
            }
        }
    }
    Ok(())
}

fn castable(from: &DataType, to: &DataType) -> std::result::Result<(), String> {
    match cast_rule(from, to) {
        CastRule::Refused => Err(format!("CAST from {} to {} is not supported", describe(from), describe(to))),
        CastRule::Kernel | CastRule::ToText => Ok(()),
    }
}

/// Puts Flink's own text forms in the place of Arrow's.
pub fn with_flink_casts(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let replaced = expr.transform_up(|expr| {
        let (inner, to) = match &expr {
            Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
            Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
            _ => return Ok(Transformed::no(expr)),
        };
        match cast_rule(&inner.get_type(schema)?, to) {
            CastRule::ToText => Ok(Transformed::yes(text_of(inner.as_ref().clone()))),
            CastRule::Kernel | CastRule::Refused => Ok(Transformed::no(expr)),
        }
    })?;
    Ok(replaced.data)
}
