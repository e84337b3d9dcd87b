//! What Flink's SQL needs from the tokenizer and the expression parser.

use sqlparser::ast::{Expr, Ident, ObjectNamePart};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The word before the table argument of a table function: `TUMBLE(TABLE t, ...)`.
pub const TABLE_ARGUMENT: &str = "TABLE";

/// Backtick identifiers, strings in single quotes without escapes, and `TABLE t` as an argument of table functions.
#[derive(Debug)]
pub struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('`')
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    /// Only so that the planner can say that grouping sets are not supported.
    fn supports_group_by_expr(&self) -> bool {
        true
    }

    /// Only so that the planner can say that `MATCH_RECOGNIZE` is not supported.
    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn require_interval_qualifier(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let token = parser.peek_token();
        match &token.token {
            Token::Word(word) if word.keyword == Keyword::TABLE && word.quote_style.is_none() => {}
            _ => return None,
        }
        parser.next_token();
        Some(parser.parse_object_name(false).and_then(|name| {
            let mut idents = Vec::new();
            for part in name.0 {
                match part {
                    ObjectNamePart::Identifier(ident) => idents.push(ident),
                    ObjectNamePart::Function(_) => return parser.expected("a table name", token.clone()),
                }
            }
            Ok(Expr::Prefixed {
                prefix: Ident::with_span(token.span, TABLE_ARGUMENT),
                value: Box::new(Expr::CompoundIdentifier(idents)),
            })
        }))
    }
}
