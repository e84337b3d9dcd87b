//! Positions in the job's SQL text, and errors that carry them.
//!
//! Every refusal says what was found where and what to write instead; errors of the parser and of DataFusion are
//! turned into the same form here.

use datafusion_common::{DataFusionError, SchemaError};
use sqlparser::ast::{Query, Spanned};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span};
use streamjob_dataflow::PlanError;

/// Where something stands in the SQL text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };

    pub fn error(self, message: impl Into<String>) -> PlanError {
        PlanError::Sql { line: self.line, column: self.column, message: message.into() }
    }

    /// The start of a syntax node, or `self` for nodes that carry no position.
    pub fn of(self, node: &impl Spanned) -> Position {
        self.at(node.span())
    }

    /// The start of a span, or `self` for an empty one.
    pub fn at(self, span: Span) -> Position {
        if span.start.line == 0 { self } else { Position::from(span.start) }
    }
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        if location.line == 0 { Position::START } else { Position { line: location.line, column: location.column } }
    }
}

/// The parser appends the position to its messages; without one the error stands at `fallback`.
pub fn from_parser(error: ParserError, fallback: Position) -> PlanError {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return fallback.error("the expression is nested too deeply; split it with a view");
        }
    };
    let (message, position) = split_position(&text).unwrap_or((text.as_str(), fallback));
    position.error(lowercase_first(message))
}

fn split_position(text: &str) -> Option<(&str, Position)> {
    let (message, position) = text.rsplit_once(" at Line: ")?;
    let (line, column) = position.split_once(", Column: ")?;
    Some((message, Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }))
}

/// DataFusion's own position if it gives one, the statement's otherwise.
pub fn from_datafusion(error: &DataFusionError, fallback: Position) -> PlanError {
    own_position(error).unwrap_or(fallback).error(describe(error))
}

/// The same for an error in a query: without a position in the error, what it speaks of is looked for in the query.
pub fn from_query(error: &DataFusionError, query: &Query, fallback: Position) -> PlanError {
    let message = describe(error);
    let position = own_position(error).or_else(|| crate::check::locate(query, &message)).unwrap_or(fallback);
    position.error(message)
}

fn own_position(error: &DataFusionError) -> Option<Position> {
    let span = error.diagnostic()?.span?;
    (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
}

fn describe(error: &DataFusionError) -> String {
    match innermost(error) {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                known.dedup();
                match &field.relation {
                    Some(relation) => {
                        format!("there is no column '{}' in '{relation}'; columns: {}", field.name, known.join(", "))
                    }
                    None => format!("there is no column '{}'; columns: {}", field.name, known.join(", ")),
                }
            }
            SchemaError::AmbiguousReference { field } => {
                format!("column '{}' is ambiguous; write it with its table, as in t.{}", field.name, field.name)
            }
            other => lowercase_first(&other.to_string()),
        },
        DataFusionError::Plan(message)
        | DataFusionError::NotImplemented(message)
        | DataFusionError::Internal(message)
        | DataFusionError::Execution(message) => from_message(message),
        other => lowercase_first(&other.strip_backtrace()),
    }
}

/// DataFusion wraps what a function says about its arguments in sentences of its own.
fn from_message(message: &str) -> String {
    const WRAPPED: &str = "Error during planning: ";
    let message = message.split("\n\nbacktrace:").next().unwrap_or(message);
    let message = match message.rsplit_once(WRAPPED) {
        Some((_, inner)) => inner,
        None => message,
    };
    if message.starts_with("Cannot create filter with non-boolean predicate ") {
        return "WHERE and HAVING need a condition: a comparison, or a column of type BOOLEAN".into();
    }
    let ungrouped = message.strip_prefix("Column in ").and_then(|rest| rest.split_once("column \""));
    if let Some((_, rest)) = ungrouped
        && message.contains("must be in GROUP BY")
    {
        let column = rest.split('"').next().unwrap_or(rest);
        return format!("column '{column}' stands neither in GROUP BY nor in an aggregate function");
    }
    lowercase_first(message.split(". No function matches the given name").next().unwrap_or(message))
}

fn innermost(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => innermost(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, innermost),
        DataFusionError::Shared(inner) => innermost(inner),
        other => other,
    }
}

fn lowercase_first(text: &str) -> String {
    let mut chars = text.trim().chars();
    match (chars.next(), chars.clone().next()) {
        // An acronym or a name keeps its case.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.trim().to_string(),
    }
}
