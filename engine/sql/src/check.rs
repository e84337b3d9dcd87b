//! Goes over the syntax tree before planning: what the engine does not have is refused where it stands, and literals
//! get Flink's types.
//!
//! DataFusion would plan more than the engine can run, and would give some things another meaning than Flink; so every
//! kind of expression, clause and function is allowed by name here.

use crate::dialect::TABLE_ARGUMENT;
use crate::functions;
use crate::position::Position;
use crate::types;
use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, Distinct, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, SetOperator,
    SetQuantifier, Spanned, TableFactor, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use streamjob_dataflow::PlanError;

/// Checks a query and types its literals.
pub fn query(query: &mut Query, position: Position, user_functions: &[String]) -> Result<(), PlanError> {
    visit(query, position, user_functions)
}

/// Checks the expression of a computed column or watermark and types its literals.
pub fn expression(expr: &mut Expr, position: Position, user_functions: &[String]) -> Result<(), PlanError> {
    visit(expr, position, user_functions)
}

fn visit<T: Visit + VisitMut>(node: &mut T, position: Position, user_functions: &[String]) -> Result<(), PlanError> {
    let mut check = Check { position, user_functions, in_table_function: 0 };
    if let ControlFlow::Break(error) = Visit::visit(node, &mut check) {
        return Err(error);
    }
    // Nothing breaks the second pass.
    let _ = VisitMut::visit(node, &mut TypeLiterals);
    Ok(())
}

struct Check<'a> {
    position: Position,
    user_functions: &'a [String],
    /// How many table functions enclose the node.
    in_table_function: usize,
}

impl Check<'_> {
    fn refuse(&self, node: &impl Spanned, message: impl Into<String>) -> ControlFlow<PlanError> {
        ControlFlow::Break(self.position.of(node).error(message))
    }
}

impl Visitor for Check<'_> {
    type Break = PlanError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<PlanError> {
        if let Some(with) = &query.with
            && with.recursive
        {
            return self.refuse(with, "WITH RECURSIVE is not supported: a stream has no end to iterate to");
        }
        if let Some(order_by) = &query.order_by {
            return self.refuse(
                order_by,
                "ORDER BY is not supported: a stream has no end to sort at; order the results where they are read",
            );
        }
        if let Some(limit) = &query.limit_clause {
            return self.refuse(limit, "LIMIT and OFFSET are not supported; filter with WHERE");
        }
        if let Some(fetch) = &query.fetch {
            let message = format!("{fetch} is not supported; filter with WHERE");
            return self.refuse(query, message);
        }
        if !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return self.refuse(query, "the clause behind the query is not part of Flink's SQL");
        }
        self.body(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<PlanError> {
        self.select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<PlanError> {
        self.in_table_function += usize::from(is_table_function(factor));
        match factor {
            TableFactor::Table { args: None, version, sample, with_hints, index_hints, .. } => {
                if version.is_some() {
                    return self
                        .refuse(factor, "FOR SYSTEM_TIME AS OF is not supported: temporal joins are not there yet");
                }
                if sample.is_some() || !with_hints.is_empty() || !index_hints.is_empty() {
                    return self.refuse(factor, "hints and samples of tables are not supported");
                }
                ControlFlow::Continue(())
            }
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                self.table_function(factor, &name.to_string())
            }
            TableFactor::TableFunction { expr: Expr::Function(function), .. } => {
                self.table_function(factor, &function.name.to_string())
            }
            TableFactor::Derived { lateral: false, sample: None, .. } => ControlFlow::Continue(()),
            TableFactor::Derived { .. } => self.refuse(factor, "LATERAL subqueries and samples are not supported"),
            TableFactor::MatchRecognize { .. } => self.refuse(factor, "MATCH_RECOGNIZE is not supported"),
            TableFactor::UNNEST { .. } => self.refuse(factor, "UNNEST is not supported"),
            TableFactor::NestedJoin { .. } => self.refuse(factor, JOINS),
            other => self.refuse(factor, format!("'{other}' is not supported in FROM")),
        }
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<PlanError> {
        self.in_table_function -= usize::from(is_table_function(factor));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<PlanError> {
        self.expr(expr)
    }
}

fn is_table_function(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. } | TableFactor::TableFunction { .. }
    )
}

const JOINS: &str =
    "joins are not supported yet; write the tables into one with UNION ALL, or join where the results are read";

impl Check<'_> {
    fn body(&self, body: &SetExpr) -> ControlFlow<PlanError> {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
            SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right } => {
                if *set_quantifier != SetQuantifier::All {
                    return self.refuse(
                        right.as_ref(),
                        "UNION without ALL removes duplicates, which is not supported; use UNION ALL, and SELECT DISTINCT \
                         around it",
                    );
                }
                self.body(left)?;
                self.body(right)
            }
            SetExpr::SetOperation { op, right, .. } => {
                self.refuse(right.as_ref(), format!("{op} is not supported; the only set operation is UNION ALL"))
            }
            SetExpr::Values(_) => self.refuse(
                body,
                "VALUES is not supported; read from a table with 'connector' = 'datagen' or 'filesystem'",
            ),
            other => self.refuse(other, "expected SELECT"),
        }
    }

    fn select(&self, select: &Select) -> ControlFlow<PlanError> {
        if let Some(Distinct::On(_)) = &select.distinct {
            return self.refuse(select, "DISTINCT ON is not part of Flink's SQL");
        }
        if select.from.is_empty() {
            return self.refuse(select, "SELECT needs a FROM: a query reads from a table");
        }
        if let Some(second) = select.from.get(1) {
            return self.refuse(second, JOINS);
        }
        for table in &select.from {
            if let Some(join) = table.joins.first() {
                return self.refuse(join, JOINS);
            }
        }
        if let Some(qualify) = &select.qualify {
            return self.refuse(qualify, "QUALIFY is not supported; window functions are not there yet");
        }
        if let Some(window) = select.named_window.first() {
            return self.refuse(window, "WINDOW is not supported; OVER windows are not there yet");
        }
        match &select.group_by {
            GroupByExpr::Expressions(_, modifiers) if modifiers.is_empty() => {}
            _ => {
                return self
                    .refuse(select, "GROUP BY takes a list of expressions; ALL and WITH ROLLUP are not supported");
            }
        }
        let foreign = select.top.is_some()
            || select.into.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.value_table_mode.is_some()
            || select.exclude.is_some();
        if foreign {
            return self.refuse(select, "the query has a clause that is not part of Flink's SQL");
        }
        ControlFlow::Continue(())
    }

    fn table_function(&self, factor: &TableFactor, name: &str) -> ControlFlow<PlanError> {
        match name.to_uppercase().as_str() {
            "TUMBLE" => ControlFlow::Continue(()),
            "HOP" | "CUMULATE" | "SESSION" => self.refuse(
                factor,
                format!(
                    "{} windows are not supported yet; use TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL ...))",
                    name.to_uppercase()
                ),
            ),
            _ => self.refuse(factor, format!("there is no table function {name}; supported: TUMBLE")),
        }
    }

    fn expr(&self, expr: &Expr) -> ControlFlow<PlanError> {
        match expr {
            Expr::Identifier(ident) if ident.value.starts_with('@') => self.refuse(expr, "variables are not supported"),
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Nested(_)
            | Expr::Case { .. }
            | Expr::Interval(_) => ControlFlow::Continue(()),
            Expr::BinaryOp { op, .. } => self.binary(expr, op),
            Expr::UnaryOp { op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not, .. } => {
                ControlFlow::Continue(())
            }
            Expr::Like { any: false, pattern, escape_char: None, .. } => self.like(pattern),
            Expr::Like { .. } => self.refuse(expr, "LIKE with ESCAPE or ANY is not supported"),
            Expr::Cast { kind: CastKind::Cast | CastKind::TryCast, format: None, array: false, data_type, .. } => {
                match types::of_cast(data_type, self.position.of(expr)) {
                    Ok(_) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            }
            Expr::Cast { .. } => self.refuse(expr, "write CAST(x AS type) or TRY_CAST(x AS type)"),
            Expr::Extract { field, .. } => match functions::temporal_field(&field.to_string()) {
                Some(_) => ControlFlow::Continue(()),
                None => self.refuse(expr, format!("EXTRACT({field} ...) is not supported")),
            },
            Expr::Ceil { field, .. } | Expr::Floor { field, .. } => match field {
                CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => ControlFlow::Continue(()),
                _ => self.refuse(
                    expr,
                    "FLOOR and CEIL of a timestamp are not supported; use DATE_FORMAT or a TUMBLE window",
                ),
            },
            Expr::Trim { trim_characters: None, .. } => ControlFlow::Continue(()),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => self.number(expr, text),
                Value::SingleQuotedString(_) | Value::UnicodeStringLiteral(_) | Value::Boolean(_) | Value::Null => {
                    ControlFlow::Continue(())
                }
                Value::DoubleQuotedString(text) => self.refuse(
                    expr,
                    format!("\"{text}\": texts stand in single quotes ('{text}'), names in backticks (`{text}`)"),
                ),
                other => self.refuse(expr, format!("the literal {other} is not supported")),
            },
            Expr::TypedString(typed) => match typed.data_type {
                DataType::Date | DataType::Timestamp(..) => ControlFlow::Continue(()),
                _ => self
                    .refuse(expr, format!("the literal {typed} is not supported; DATE '...' and TIMESTAMP '...' are")),
            },
            Expr::Function(function) => self.function(expr, function),
            // Only read inside TUMBLE; anywhere else it fails to plan as an expression.
            Expr::Prefixed { prefix, .. } if prefix.value == TABLE_ARGUMENT => ControlFlow::Continue(()),
            Expr::InSubquery { .. } | Expr::Exists { .. } => {
                self.refuse(expr, "IN and EXISTS with a subquery are joins, which are not supported yet")
            }
            Expr::Subquery(_) | Expr::AnyOp { .. } | Expr::AllOp { .. } => {
                self.refuse(expr, "subqueries in expressions are joins, which are not supported yet")
            }
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => self
                .refuse(expr, "GROUPING SETS, CUBE and ROLLUP are not supported; write one INSERT for each grouping"),
            Expr::SimilarTo { .. } | Expr::ILike { .. } | Expr::RLike { .. } => {
                self.refuse(expr, "only LIKE is supported; use REGEXP_EXTRACT(...) IS NOT NULL for regular expressions")
            }
            Expr::AtTimeZone { .. } => self.refuse(expr, "AT TIME ZONE is not supported"),
            other => self.refuse(expr, format!("the expression {other} is not supported")),
        }
    }

    fn binary(&self, expr: &Expr, op: &BinaryOperator) -> ControlFlow<PlanError> {
        use BinaryOperator::*;
        match op {
            Plus | Minus | Multiply | Divide | Modulo | StringConcat | Gt | Lt | GtEq | LtEq | Eq | NotEq | And
            | Or => ControlFlow::Continue(()),
            other => self.refuse(expr, format!("the operator {other} is not supported")),
        }
    }

    /// Arrow reads a backslash in a pattern as an escape, Flink as itself.
    fn like(&self, pattern: &Expr) -> ControlFlow<PlanError> {
        match pattern {
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) if !text.contains('\\') => ControlFlow::Continue(()),
                _ => self.refuse(pattern, "a LIKE pattern with a backslash is not supported; use REGEXP_EXTRACT"),
            },
            _ => self.refuse(pattern, "the pattern of LIKE must be a text literal"),
        }
    }

    fn number(&self, expr: &Expr, text: &str) -> ControlFlow<PlanError> {
        let integer = text.bytes().all(|byte| byte.is_ascii_digit());
        if integer && text.parse::<i64>().is_err() {
            return self.refuse(expr, format!("the number {text} does not fit BIGINT"));
        }
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        if !integer && !text.contains(['e', 'E']) && digits > usize::from(types::MAX_DECIMAL_PRECISION) {
            return self
                .refuse(expr, format!("the number {text} has more than {} digits", types::MAX_DECIMAL_PRECISION));
        }
        ControlFlow::Continue(())
    }

    fn function(&self, expr: &Expr, function: &Function) -> ControlFlow<PlanError> {
        let name = function.name.to_string();
        if function.over.is_some() {
            return self
                .refuse(expr, format!("{name}(...) OVER (...) is not supported: OVER windows are not there yet"));
        }
        let foreign = !function.within_group.is_empty()
            || function.null_treatment.is_some()
            || function.uses_odbc_syntax
            || !matches!(function.parameters, FunctionArguments::None);
        if foreign {
            return self.refuse(expr, format!("this form of calling {name} is not supported"));
        }
        if let FunctionArguments::List(list) = &function.args {
            if !list.clauses.is_empty() {
                return self.refuse(expr, format!("ORDER BY and other clauses inside {name}(...) are not supported"));
            }
            for argument in &list.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Wildcard) = argument
                    && !name.eq_ignore_ascii_case("count")
                {
                    return self.refuse(expr, format!("{name}(*) is not supported; only COUNT(*) is"));
                }
            }
        } else if let FunctionArguments::Subquery(_) = &function.args {
            return self.refuse(expr, "a subquery as an argument is not supported");
        }
        let of_window = name.eq_ignore_ascii_case("tumble") || name.eq_ignore_ascii_case("descriptor");
        if self.in_table_function > 0 && of_window {
            return ControlFlow::Continue(());
        }
        if name.eq_ignore_ascii_case("regexp_extract") || name.eq_ignore_ascii_case("date_format") {
            self.pattern(expr, function, &name)?;
        }
        match functions::check_name(&name, self.user_functions) {
            Ok(()) => ControlFlow::Continue(()),
            Err(message) => self.refuse(expr, message),
        }
    }
}

impl Check<'_> {
    /// Patterns are compiled while planning, so that a wrong one is found here.
    fn pattern(&self, expr: &Expr, function: &Function, name: &str) -> ControlFlow<PlanError> {
        let FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
        let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))) = list.args.get(1) else {
            return ControlFlow::Continue(());
        };
        let Expr::Value(value) = pattern else {
            return self.refuse(pattern, format!("the pattern of {} must be a text literal", name.to_uppercase()));
        };
        let Value::SingleQuotedString(text) = &value.value else {
            return self.refuse(expr, format!("the pattern of {} must be a text literal", name.to_uppercase()));
        };
        let checked = if name.eq_ignore_ascii_case("date_format") {
            functions::DatePattern::parse(text).map(|_| ())
        } else {
            functions::check_regex(text)
        };
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(message) => self.refuse(pattern, message),
        }
    }
}

/// Integer literals are INT where they fit, and numbers with an exponent are DOUBLE; DataFusion would read BIGINT and
/// DECIMAL.
struct TypeLiterals;

impl VisitorMut for TypeLiterals {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        name_columns(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            literal_digits(function);
        }
        let Expr::Value(value) = &*expr else { return ControlFlow::Continue(()) };
        let Value::Number(text, _) = &value.value else { return ControlFlow::Continue(()) };
        let data_type = if text.contains(['e', 'E']) {
            DataType::Double(sqlparser::ast::ExactNumberInfo::None)
        } else if text.parse::<i32>().is_ok() {
            DataType::Int(None)
        } else {
            return ControlFlow::Continue(());
        };
        *expr =
            Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr.clone()), data_type, array: false, format: None };
        ControlFlow::Continue(())
    }
}

/// Columns without a name get Flink's: the last part of a path, `EXPR$n` for anything computed, and a number behind a name
/// that stands there already.
fn name_columns(items: &mut [SelectItem]) {
    let mut taken: BTreeSet<String> = items
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
            _ => None,
        })
        .collect();
    for (index, item) in items.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let (name, plain) = match expr {
            Expr::Identifier(ident) => (ident.value.clone(), true),
            Expr::CompoundIdentifier(idents) => match idents.last() {
                Some(ident) => (ident.value.clone(), false),
                None => continue,
            },
            _ => (format!("EXPR${index}"), false),
        };
        let free = std::iter::once(name.clone()).chain((0..).map(|n| format!("{name}{n}")));
        let Some(unique) = free.into_iter().find(|name| !taken.contains(name)) else { continue };
        taken.insert(unique.clone());
        if !plain || unique != name {
            let alias = Ident::with_span(expr.span(), unique);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// The result type of ROUND depends on its second argument, which must still be a literal for that.
fn literal_digits(function: &mut Function) {
    if !function.name.to_string().eq_ignore_ascii_case("round") {
        return;
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(digits))) = list.args.get_mut(1)
        && let Expr::Cast { expr, .. } = digits
        && matches!(expr.as_ref(), Expr::Value(_))
    {
        *digits = expr.as_ref().clone();
    }
}

/// Where a query has what an error without a position speaks of: `NAME: ...` of a function, `... field 'name' ...` of a
/// row, `WHERE ...`.
pub fn locate(query: &Query, message: &str) -> Option<Position> {
    let function = message.split_once(": ").map(|(name, _)| name).filter(|name| !name.contains(' '));
    let field =
        message.strip_prefix("there is no field '").and_then(|rest| rest.split_once('\'')).map(|(name, _)| name);
    let mut search = Search { function, field, condition: message.starts_with("WHERE"), found: None };
    let _ = Visit::visit(query, &mut search);
    search.found
}

struct Search<'a> {
    function: Option<&'a str>,
    field: Option<&'a str>,
    condition: bool,
    found: Option<Position>,
}

impl Visitor for Search<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        match select.selection.as_ref().or(select.having.as_ref()) {
            Some(condition) if self.condition => self.stop_at(condition),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let name = match expr {
            Expr::Function(function) => function.name.to_string().to_uppercase(),
            Expr::Substring { .. } => "SUBSTRING".into(),
            Expr::Trim { .. } => "TRIM".into(),
            Expr::Floor { .. } => "FLOOR".into(),
            Expr::Ceil { .. } => "CEIL".into(),
            Expr::CompoundIdentifier(idents) => {
                let names_field = idents.iter().skip(1).any(|ident| Some(ident.value.as_str()) == self.field);
                return if names_field { self.stop_at(expr) } else { ControlFlow::Continue(()) };
            }
            _ => return ControlFlow::Continue(()),
        };
        if self.function == Some(name.as_str()) { self.stop_at(expr) } else { ControlFlow::Continue(()) }
    }
}

impl Search<'_> {
    fn stop_at(&mut self, node: &impl Spanned) -> ControlFlow<()> {
        self.found = Some(Position::START.of(node));
        ControlFlow::Break(())
    }
}
