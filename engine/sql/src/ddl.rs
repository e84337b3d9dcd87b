//! The grammar of `CREATE TABLE`: columns and Flink's types, computed columns, watermark, primary key, options.
//!
//! Reads tokens; expressions inside (computed columns, watermark) are parsed by sqlparser. Nothing is resolved here.

use crate::position::{Position, from_parser};
use crate::types;
use arrow::datatypes::{DataType, Field, Fields};
use sqlparser::ast::{Expr, Ident};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};
use std::collections::BTreeMap;
use std::sync::Arc;
use streamjob_dataflow::PlanError;

#[derive(Debug)]
pub struct CreateTable {
    pub name: Ident,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDefinition>,
    pub watermark: Option<WatermarkDefinition>,
    pub primary_key: Vec<Ident>,
    pub options: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct ColumnDefinition {
    pub name: Ident,
    pub kind: ColumnKind,
}

#[derive(Debug)]
pub enum ColumnKind {
    Physical { data_type: DataType, nullable: bool },
    Computed(Box<Expr>),
}

#[derive(Debug)]
pub struct WatermarkDefinition {
    pub position: Position,
    pub column: Ident,
    pub expression: Expr,
}

/// The parser stands behind `CREATE TABLE`.
pub fn create_table(parser: &mut Parser, position: Position) -> Result<CreateTable, PlanError> {
    TableParser { parser, position, half_shift: false }.table()
}

/// Consumes the unquoted words if all of them follow.
pub fn consume_words(parser: &mut Parser, words: &[&str]) -> bool {
    let follows = words.iter().enumerate().all(|(index, expected)| match parser.peek_nth_token(index).token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
        _ => false,
    });
    if follows {
        for _ in words {
            parser.next_token();
        }
    }
    follows
}

struct TableParser<'p, 'a> {
    parser: &'p mut Parser<'a>,
    position: Position,
    /// Of a `>>` token that closes two ROW types the first half is consumed.
    half_shift: bool,
}

impl TableParser<'_, '_> {
    fn table(&mut self) -> Result<CreateTable, PlanError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.parser.parse_object_name(false).map_err(|error| from_parser(error, self.position))?;
        let name = crate::script::local_name(&name, self.position)?;
        let mut table = CreateTable {
            name,
            if_not_exists,
            columns: vec![],
            watermark: None,
            primary_key: vec![],
            options: BTreeMap::new(),
        };
        self.expect_token(&Token::LParen, "'(' and the table's columns")?;
        loop {
            self.element(&mut table)?;
            if self.parser.consume_token(&Token::Comma) {
                continue;
            }
            self.expect_token(&Token::RParen, "',' or ')' after a column")?;
            break;
        }
        self.clauses(&mut table)?;
        self.check(&table)?;
        Ok(table)
    }

    fn element(&mut self, table: &mut CreateTable) -> Result<(), PlanError> {
        let start = self.parser.peek_token();
        let position = Position::from(start.span.start);
        if self.words(&["PRIMARY", "KEY"]) {
            return self.primary_key(table, position);
        }
        if self.words(&["CONSTRAINT"]) {
            self.identifier()?;
            if !self.words(&["PRIMARY", "KEY"]) {
                return Err(position.error("only PRIMARY KEY (...) NOT ENFORCED constraints are supported"));
            }
            return self.primary_key(table, position);
        }
        if self.words(&["UNIQUE"]) {
            return Err(position.error("UNIQUE constraints are not supported; use PRIMARY KEY (...) NOT ENFORCED"));
        }
        if self.words(&["WATERMARK", "FOR"]) {
            return self.watermark(table, position);
        }
        self.column(table)
    }

    fn primary_key(&mut self, table: &mut CreateTable, position: Position) -> Result<(), PlanError> {
        if !table.primary_key.is_empty() {
            return Err(position.error("a table has one primary key; this is a second one"));
        }
        self.expect_token(&Token::LParen, "'(' and the key's columns")?;
        loop {
            table.primary_key.push(self.identifier()?);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen, "',' or ')' in the primary key")?;
        self.not_enforced(position)
    }

    fn not_enforced(&mut self, position: Position) -> Result<(), PlanError> {
        if self.words(&["NOT", "ENFORCED"]) {
            return Ok(());
        }
        Err(position.error("a primary key cannot be enforced on a stream; write PRIMARY KEY (...) NOT ENFORCED"))
    }

    fn watermark(&mut self, table: &mut CreateTable, position: Position) -> Result<(), PlanError> {
        if table.watermark.is_some() {
            return Err(position.error("a table has one watermark; this is a second one"));
        }
        let column = self.identifier()?;
        if self.parser.peek_token().token == Token::Period {
            return Err(position.error(format!(
                "the watermark's column must be a column of the table, not a field of a ROW; add a computed column: ts AS \
                 {column}.… and write WATERMARK FOR ts AS …"
            )));
        }
        self.expect_word("AS")?;
        let expression = self.expression()?;
        table.watermark = Some(WatermarkDefinition { position, column, expression });
        Ok(())
    }

    fn column(&mut self, table: &mut CreateTable) -> Result<(), PlanError> {
        let name = self.identifier()?;
        let position = Position::from(name.span.start);
        if self.words(&["AS"]) {
            let expression = self.expression()?;
            self.comment()?;
            table.columns.push(ColumnDefinition { name, kind: ColumnKind::Computed(Box::new(expression)) });
            return Ok(());
        }
        let (data_type, mut nullable) = self.data_type()?;
        if self.half_shift {
            return Err(position.error(format!("the type of column '{}' closes one ROW too many: '>>'", name.value)));
        }
        loop {
            let next = self.parser.peek_token();
            if self.words(&["METADATA"]) {
                return Err(Position::from(next.span.start).error(format!(
                    "METADATA columns are not supported; remove '{}' or let the source deliver it as a column",
                    name.value
                )));
            } else if self.words(&["PRIMARY", "KEY"]) {
                self.not_enforced(position)?;
                if !table.primary_key.is_empty() {
                    return Err(position.error("a table has one primary key; this is a second one"));
                }
                table.primary_key.push(name.clone());
                nullable = false;
            } else if self.words(&["DEFAULT"]) {
                return Err(Position::from(next.span.start).error("DEFAULT values of columns are not supported"));
            } else if !self.comment()? {
                break;
            }
        }
        table.columns.push(ColumnDefinition { name, kind: ColumnKind::Physical { data_type, nullable } });
        Ok(())
    }

    fn clauses(&mut self, table: &mut CreateTable) -> Result<(), PlanError> {
        loop {
            let next = self.parser.peek_token();
            let position = Position::from(next.span.start);
            if self.comment()? {
                continue;
            }
            if self.words(&["PARTITIONED", "BY"]) {
                return Err(position.error("PARTITIONED BY is not supported yet; write one table a partition"));
            }
            if self.words(&["DISTRIBUTED"]) {
                return Err(position.error("DISTRIBUTED is not supported"));
            }
            if self.words(&["LIKE"]) {
                return Err(position.error("CREATE TABLE ... LIKE is not supported; write the columns and options out"));
            }
            if self.words(&["AS"]) {
                return Err(position.error("CREATE TABLE ... AS is not supported; write CREATE TABLE and INSERT INTO"));
            }
            if !self.words(&["WITH"]) {
                return Ok(());
            }
            self.options(table)?;
        }
    }

    fn options(&mut self, table: &mut CreateTable) -> Result<(), PlanError> {
        self.expect_token(&Token::LParen, "'(' and the table's options")?;
        if self.parser.consume_token(&Token::RParen) {
            return Ok(());
        }
        loop {
            let token = self.parser.peek_token();
            let key = self.literal()?;
            self.expect_token(&Token::Eq, "'=' after the option's name")?;
            let value = self.literal()?;
            if table.options.insert(key.clone(), value).is_some() {
                return Err(Position::from(token.span.start).error(format!("the option '{key}' is given twice")));
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen, "',' or ')' after an option")
    }

    fn check(&self, table: &CreateTable) -> Result<(), PlanError> {
        for (index, column) in table.columns.iter().enumerate() {
            if table.columns.iter().take(index).any(|earlier| earlier.name.value == column.name.value) {
                return Err(Position::from(column.name.span.start)
                    .error(format!("column '{}' is defined twice", column.name.value)));
            }
        }
        for key in &table.primary_key {
            match table.columns.iter().find(|column| column.name.value == key.value) {
                Some(ColumnDefinition { kind: ColumnKind::Physical { .. }, .. }) => {}
                Some(_) => {
                    return Err(Position::from(key.span.start)
                        .error(format!("the primary key's column '{}' must not be a computed one", key.value)));
                }
                None => {
                    return Err(Position::from(key.span.start)
                        .error(format!("the primary key's column '{}' is not a column of the table", key.value)));
                }
            }
        }
        Ok(())
    }

    /// A type and whether it is nullable.
    fn data_type(&mut self) -> Result<(DataType, bool), PlanError> {
        let token = self.parser.next_token();
        let position = Position::from(token.span.start);
        let name = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
            _ => return Err(position.error(format!("expected a type, found {token}"))),
        };
        let data_type = match name.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" => DataType::Int8,
            "SMALLINT" => DataType::Int16,
            "INT" | "INTEGER" => DataType::Int32,
            "BIGINT" => DataType::Int64,
            "FLOAT" => DataType::Float32,
            "DOUBLE" => {
                self.words(&["PRECISION"]);
                DataType::Float64
            }
            "STRING" => DataType::Utf8,
            "VARCHAR" | "CHAR" | "CHARACTER" => {
                if name == "CHARACTER" {
                    self.words(&["VARYING"]);
                }
                self.arguments(1)?;
                DataType::Utf8
            }
            "BYTES" => DataType::Binary,
            "BINARY" | "VARBINARY" => {
                self.arguments(1)?;
                DataType::Binary
            }
            "DECIMAL" | "DEC" | "NUMERIC" => {
                let arguments = self.arguments(2)?;
                let precision = arguments.first().copied().unwrap_or(10);
                let scale = arguments.get(1).copied().unwrap_or(0) as i64;
                types::decimal(precision, scale).map_err(|message| position.error(message))?
            }
            "DATE" => DataType::Date32,
            "TIMESTAMP" | "TIMESTAMP_LTZ" => self.timestamp(&name, position)?,
            "ROW" => self.row(position)?,
            "TIME" => return Err(position.error("TIME is not supported; use STRING, or TIMESTAMP(3)")),
            "ARRAY" | "MAP" | "MULTISET" | "RAW" | "INTERVAL" | "VARIANT" | "BITMAP" => {
                return Err(position.error(format!(
                    "columns of type {name} are not supported; supported: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, \
                     DOUBLE, DECIMAL(p, s), STRING, VARCHAR(n), CHAR(n), BYTES, DATE, TIMESTAMP(p), TIMESTAMP_LTZ(p), ROW<...>"
                )));
            }
            _ => return Err(position.error(format!("unknown type {name}"))),
        };
        if self.half_shift {
            // What follows belongs to the enclosing ROW.
            return Ok((data_type, true));
        }
        if let Token::Word(word) = self.parser.peek_token().token
            && matches!(word.keyword, Keyword::ARRAY | Keyword::MULTISET)
        {
            return Err(
                position.error(format!("columns of type {name} {} are not supported", word.value.to_uppercase()))
            );
        }
        let nullable = !self.words(&["NOT", "NULL"]);
        if nullable {
            self.words(&["NULL"]);
        }
        Ok((data_type, nullable))
    }

    fn timestamp(&mut self, name: &str, position: Position) -> Result<DataType, PlanError> {
        let precision = self.arguments(1)?.first().copied().unwrap_or(6);
        if precision > 9 {
            return Err(position.error(format!("the precision of {name} must be between 0 and 9, found {precision}")));
        }
        let mut local = name == "TIMESTAMP_LTZ";
        if self.words(&["WITH", "LOCAL", "TIME", "ZONE"]) {
            local = true;
        } else if self.words(&["WITH", "TIME", "ZONE"]) {
            return Err(position.error("TIMESTAMP WITH TIME ZONE is not supported; use TIMESTAMP_LTZ(p)"));
        } else {
            self.words(&["WITHOUT", "TIME", "ZONE"]);
        }
        Ok(types::timestamp(precision, local))
    }

    fn row(&mut self, position: Position) -> Result<DataType, PlanError> {
        let angle = if self.parser.consume_token(&Token::Lt) {
            true
        } else if self.parser.consume_token(&Token::LParen) {
            false
        } else {
            return Err(position.error("ROW needs its fields: ROW<name type, ...>"));
        };
        let mut fields: Vec<Arc<Field>> = Vec::new();
        loop {
            let name = self.identifier()?;
            let (data_type, nullable) = self.data_type()?;
            if matches!(self.parser.peek_token().token, Token::SingleQuotedString(_)) {
                self.parser.next_token();
            }
            if fields.iter().any(|field| *field.name() == name.value) {
                return Err(
                    Position::from(name.span.start).error(format!("field '{}' stands twice in the ROW", name.value))
                );
            }
            fields.push(Arc::new(Field::new(name.value, data_type, nullable)));
            if !self.half_shift && self.parser.consume_token(&Token::Comma) {
                continue;
            }
            self.close_row(angle)?;
            return Ok(DataType::Struct(Fields::from(fields)));
        }
    }

    /// `ROW<a ROW<b INT>>` ends in one `>>` token, which closes two types.
    fn close_row(&mut self, angle: bool) -> Result<(), PlanError> {
        if !angle {
            return self.expect_token(&Token::RParen, "',' or ')' after a field of the ROW");
        }
        if self.half_shift {
            self.half_shift = false;
            return Ok(());
        }
        if self.parser.consume_token(&Token::ShiftRight) {
            self.half_shift = true;
            return Ok(());
        }
        self.expect_token(&Token::Gt, "',' or '>' after a field of the ROW")
    }

    /// Up to `most` numbers in parentheses.
    fn arguments(&mut self, most: usize) -> Result<Vec<u64>, PlanError> {
        let mut numbers = Vec::new();
        if !self.parser.consume_token(&Token::LParen) {
            return Ok(numbers);
        }
        loop {
            let token = self.parser.next_token();
            let number = match &token.token {
                Token::Number(text, _) => text.parse().ok(),
                _ => None,
            };
            match number {
                Some(number) if numbers.len() < most => numbers.push(number),
                _ => {
                    return Err(Position::from(token.span.start)
                        .error(format!("expected at most {most} number(s) in the type's parentheses, found {token}")));
                }
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen, "')' after the type's numbers")?;
        Ok(numbers)
    }

    fn comment(&mut self) -> Result<bool, PlanError> {
        if !self.words(&["COMMENT"]) {
            return Ok(false);
        }
        self.literal()?;
        Ok(true)
    }

    fn literal(&mut self) -> Result<String, PlanError> {
        let token = self.parser.next_token();
        match token.token {
            Token::SingleQuotedString(text) => Ok(text),
            _ => {
                Err(Position::from(token.span.start).error(format!("expected a text in single quotes, found {token}")))
            }
        }
    }

    fn expression(&mut self) -> Result<Expr, PlanError> {
        self.parser.parse_expr().map_err(|error| from_parser(error, self.position))
    }

    fn identifier(&mut self) -> Result<Ident, PlanError> {
        self.parser.parse_identifier().map_err(|error| from_parser(error, self.position))
    }

    fn words(&mut self, words: &[&str]) -> bool {
        consume_words(self.parser, words)
    }

    fn expect_word(&mut self, word: &str) -> Result<(), PlanError> {
        if self.words(&[word]) {
            return Ok(());
        }
        let found = self.parser.peek_token();
        Err(unexpected(word, &found))
    }

    fn expect_token(&mut self, token: &Token, expected: &str) -> Result<(), PlanError> {
        if self.parser.consume_token(token) {
            return Ok(());
        }
        let found = self.parser.peek_token();
        Err(unexpected(expected, &found))
    }
}

fn unexpected(expected: &str, found: &TokenWithSpan) -> PlanError {
    Position::from(found.span.start).error(format!("expected {expected}, found {found}"))
}
