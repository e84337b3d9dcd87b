//! Splits a job's SQL text into statements and parses each.
//!
//! DDL has its own grammar (see `ddl`); queries go to sqlparser with the Flink dialect. Statements that a job file says
//! better (checkpoint interval, parallelism) or that the engine does not have are refused by name.

use crate::ddl::{self, CreateTable};
use crate::dialect::FlinkDialect;
use crate::position::{Position, from_parser};
use sqlparser::ast::{Ident, ObjectName, Query};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use streamjob_dataflow::PlanError;

#[derive(Debug)]
pub struct Statement {
    pub position: Position,
    pub kind: StatementKind,
}

#[derive(Debug)]
pub enum StatementKind {
    CreateTable(Box<CreateTable>),
    CreateView { name: Ident, if_not_exists: bool, columns: Vec<Ident>, query: Box<Query> },
    CreateFunction { name: Ident, if_not_exists: bool, class: String },
    Insert { table: Ident, columns: Vec<Ident>, query: Box<Query> },
}

/// Whether the parser stands inside a statement set, which holds `INSERT`s only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Outside,
    StatementSet,
}

/// # Errors
/// The first statement that cannot be read or is not supported.
pub fn parse(sql: &str) -> Result<Vec<Statement>, PlanError> {
    let tokens = Tokenizer::new(&FlinkDialect, sql)
        .tokenize_with_location()
        .map_err(|error| from_parser(error.into(), Position::START))?;
    let mut script =
        Script { parser: Parser::new(&FlinkDialect).with_tokens_with_locations(tokens), statements: vec![] };
    script.run()?;
    Ok(script.statements)
}

struct Script<'a> {
    parser: Parser<'a>,
    statements: Vec<Statement>,
}

impl Script<'_> {
    fn run(&mut self) -> Result<(), PlanError> {
        let mut block = Block::Outside;
        let mut last = Position::START;
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            let token = self.parser.peek_token();
            let position = Position::from(token.span.start);
            if token.token == Token::EOF {
                return match block {
                    Block::Outside => Ok(()),
                    Block::StatementSet => Err(last.error("the statement set is not closed after this; add END;")),
                };
            }
            last = position;
            let before = block;
            block = self.statement(position, block)?;
            if before != block && block == Block::StatementSet {
                continue;
            }
            let after = self.parser.peek_token();
            let closes = block == Block::StatementSet && is_word(&after, &["END"]);
            if !matches!(after.token, Token::SemiColon | Token::EOF) && !closes {
                return Err(
                    Position::from(after.span.start).error(format!("expected ';' after the statement, found {after}"))
                );
            }
        }
    }

    fn statement(&mut self, position: Position, block: Block) -> Result<Block, PlanError> {
        let first = self.parser.next_token();
        let word = match &first.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
            _ => return Err(position.error(format!("expected a statement, found {first}"))),
        };
        match (word.as_str(), block) {
            ("END", Block::StatementSet) => Ok(Block::Outside),
            ("INSERT", _) => {
                self.insert(position)?;
                Ok(block)
            }
            (_, Block::StatementSet) => {
                Err(position.error(format!("a statement set holds INSERT INTO statements only, found {first}")))
            }
            ("CREATE", _) => {
                self.create(position)?;
                Ok(block)
            }
            ("EXECUTE", _) => {
                if self.word("INSERT") {
                    self.insert(position)?;
                    return Ok(block);
                }
                if !self.words(&["STATEMENT", "SET", "BEGIN"]) {
                    return Err(position.error(
                        "EXECUTE is supported as EXECUTE STATEMENT SET BEGIN ... END and as EXECUTE INSERT only",
                    ));
                }
                Ok(Block::StatementSet)
            }
            ("BEGIN", _) => {
                if !self.words(&["STATEMENT", "SET"]) {
                    return Err(position.error("BEGIN is supported as BEGIN STATEMENT SET; ... END; only"));
                }
                Ok(Block::StatementSet)
            }
            ("SET", _) => {
                self.set(position)?;
                Ok(block)
            }
            (other, _) => Err(position.error(refusal_of_statement(other))),
        }
    }

    fn create(&mut self, position: Position) -> Result<(), PlanError> {
        if self.word("OR") {
            return Err(position.error("CREATE OR REPLACE is not supported; a job's text defines each name once"));
        }
        let temporary = self.word("TEMPORARY");
        let system = temporary && self.word("SYSTEM");
        let what = self.parser.next_token();
        let kind = if is_word(&what, &["TABLE"]) && !system {
            StatementKind::CreateTable(Box::new(ddl::create_table(&mut self.parser, position)?))
        } else if is_word(&what, &["VIEW"]) && !system {
            self.view(position)?
        } else if is_word(&what, &["FUNCTION"]) {
            self.function(position)?
        } else {
            return Err(Position::from(what.span.start).error(format!(
                "CREATE {what} is not supported; a job defines TABLE, VIEW (both may be TEMPORARY) and FUNCTION"
            )));
        };
        self.statements.push(Statement { position, kind });
        Ok(())
    }

    fn view(&mut self, position: Position) -> Result<StatementKind, PlanError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.name(position)?;
        let columns = self.column_list(position)?;
        if self.word("COMMENT") {
            self.parser.parse_literal_string().map_err(|error| from_parser(error, position))?;
        }
        self.expect("AS")?;
        let query = self.query(position)?;
        Ok(StatementKind::CreateView { name, if_not_exists, columns, query })
    }

    fn function(&mut self, position: Position) -> Result<StatementKind, PlanError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
        let name = self.name(position)?;
        self.expect("AS")?;
        let class = self.parser.parse_literal_string().map_err(|error| from_parser(error, position))?;
        if self.word("LANGUAGE") {
            let language = self.parser.next_token();
            if !is_word(&language, &["JAVA"]) {
                return Err(Position::from(language.span.start)
                    .error(format!("functions in {language} are not supported; only named built-in classes are")));
            }
        }
        Ok(StatementKind::CreateFunction { name, if_not_exists, class })
    }

    fn insert(&mut self, position: Position) -> Result<(), PlanError> {
        let into = self.parser.next_token();
        if is_word(&into, &["OVERWRITE"]) {
            return Err(Position::from(into.span.start).error("INSERT OVERWRITE is for batch jobs; use INSERT INTO"));
        }
        if !is_word(&into, &["INTO"]) {
            return Err(Position::from(into.span.start).error(format!("expected INTO after INSERT, found {into}")));
        }
        let table = self.name(position)?;
        if self.word("PARTITION") {
            return Err(position.error("INSERT INTO ... PARTITION is not supported; select the partition's columns"));
        }
        let columns = if self.column_list_follows() { self.column_list(position)? } else { vec![] };
        let query = self.query(position)?;
        self.statements.push(Statement { position, kind: StatementKind::Insert { table, columns, query } });
        Ok(())
    }

    fn set(&mut self, position: Position) -> Result<(), PlanError> {
        let literal = |parser: &mut Parser| {
            parser
                .parse_literal_string()
                .map_err(|error| from_parser(error, position))
                .map(|text| text.trim().to_string())
        };
        let key = literal(&mut self.parser)?;
        if !self.parser.consume_token(&Token::Eq) {
            return Err(position.error("SET is written SET 'key' = 'value'"));
        }
        let value = literal(&mut self.parser)?;
        check_option(&key, &value).map_err(|message| position.error(message))
    }

    fn query(&mut self, position: Position) -> Result<Box<Query>, PlanError> {
        self.parser.parse_query().map_err(|error| from_parser(error, position))
    }

    /// `(a, b) SELECT` against `(SELECT ...)`.
    fn column_list_follows(&self) -> bool {
        let next = self.parser.peek_token();
        let inner = self.parser.peek_nth_token(1);
        next.token == Token::LParen && !is_word(&inner, &["SELECT", "WITH", "VALUES"]) && inner.token != Token::LParen
    }

    fn column_list(&mut self, position: Position) -> Result<Vec<Ident>, PlanError> {
        if self.parser.peek_token().token != Token::LParen {
            return Ok(vec![]);
        }
        self.parser
            .parse_parenthesized_column_list(sqlparser::parser::IsOptional::Mandatory, false)
            .map_err(|error| from_parser(error, position))
    }

    /// A table's, view's or function's name, with or without Flink's default catalog and database.
    fn name(&mut self, position: Position) -> Result<Ident, PlanError> {
        let name = self.parser.parse_object_name(false).map_err(|error| from_parser(error, position))?;
        local_name(&name, position)
    }

    fn expect(&mut self, word: &str) -> Result<(), PlanError> {
        let token = self.parser.next_token();
        if is_word(&token, &[word]) {
            return Ok(());
        }
        Err(Position::from(token.span.start).error(format!("expected {word}, found {token}")))
    }

    fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    fn words(&mut self, words: &[&str]) -> bool {
        ddl::consume_words(&mut self.parser, words)
    }
}

/// The last part of a name whose catalog and database are Flink's defaults.
pub fn local_name(name: &ObjectName, position: Position) -> Result<Ident, PlanError> {
    let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let qualifiers_known = match parts.as_slice() {
        [_] => true,
        [database, _] => database.value == "default_database",
        [catalog, database, _] => catalog.value == "default_catalog" && database.value == "default_database",
        _ => false,
    };
    match parts.last() {
        Some(last) if qualifiers_known && parts.len() == name.0.len() => Ok((*last).clone()),
        _ => Err(position.of(name).error(format!(
            "'{name}' is in another catalog or database; a job's tables are in default_catalog.default_database: write the \
             table's own name"
        ))),
    }
}

fn is_word(token: &TokenWithSpan, words: &[&str]) -> bool {
    match &token.token {
        Token::Word(word) => word.quote_style.is_none() && words.iter().any(|w| word.value.eq_ignore_ascii_case(w)),
        _ => false,
    }
}

fn refusal_of_statement(word: &str) -> String {
    let instead = match word {
        "SELECT" | "WITH" | "VALUES" => {
            "a query alone has no sink; write INSERT INTO t SELECT ..., for example into a table with 'connector' = 'print'"
        }
        "DROP" | "ALTER" | "TRUNCATE" => "tables live as long as the job; change the CREATE statement instead",
        "UPDATE" | "DELETE" | "MERGE" => "streaming jobs write with INSERT INTO",
        "USE" | "LOAD" | "UNLOAD" => "there is one catalog, default_catalog.default_database; no modules can be loaded",
        "SHOW" | "DESCRIBE" | "DESC" | "EXPLAIN" | "ANALYZE" | "HELP" | "QUIT" | "CLEAR" => {
            "it is a command of an interactive client"
        }
        "RESET" => "options are fields of the job file",
        "ADD" | "REMOVE" => "jars cannot be loaded",
        "CALL" | "COMPILE" | "STOP" => "savepoints and plans are made through the engine's commands",
        _ => "statements of a job: CREATE TABLE, CREATE VIEW, CREATE FUNCTION, INSERT INTO, EXECUTE STATEMENT SET, SET",
    };
    format!("{word} is not supported: {instead}")
}

/// Options of Flink that the job file has fields for.
const JOB_FILE_FIELDS: [(&str, &str); 21] = [
    ("execution.checkpointing.interval", "spec.checkpoint.interval"),
    ("execution.checkpointing.mode", "spec.checkpoint.mode"),
    ("execution.checkpointing.timeout", "spec.checkpoint.timeout"),
    ("execution.checkpointing.min-pause", "spec.checkpoint.minPause"),
    ("execution.checkpointing.max-concurrent-checkpoints", "spec.checkpoint.maxConcurrent"),
    ("execution.checkpointing.tolerable-failed-checkpoints", "spec.checkpoint.tolerableFailures"),
    ("execution.checkpointing.num-retained", "spec.checkpoint.retained"),
    ("execution.checkpointing.externalized-checkpoint-retention", "spec.checkpoint.retention"),
    ("execution.checkpointing.incremental", "spec.checkpoint.incremental"),
    ("execution.checkpointing.dir", "spec.storage"),
    ("state.checkpoints.dir", "spec.storage"),
    ("execution.state-recovery.path", "spec.restoreFrom"),
    ("execution.savepoint.path", "spec.restoreFrom"),
    ("state.backend.type", "spec.stateBackend"),
    ("state.backend", "spec.stateBackend"),
    ("parallelism.default", "spec.parallelism"),
    ("table.exec.resource.default-parallelism", "spec.parallelism"),
    ("pipeline.max-parallelism", "spec.maxParallelism"),
    ("pipeline.name", "metadata.name"),
    ("restart-strategy.type", "spec.restartStrategy"),
    ("jobmanager.execution.failover-strategy", "spec.failover"),
];

/// Options that change how fast Flink works but not what a job computes.
const TUNING_OPTIONS: [&str; 7] = [
    "table.exec.mini-batch.enabled",
    "table.exec.mini-batch.allow-latency",
    "table.exec.mini-batch.size",
    "table.optimizer.distinct-agg.split.enabled",
    "table.optimizer.agg-phase-strategy",
    "table.optimizer.reuse-sub-plan-enabled",
    "table.optimizer.reuse-source-enabled",
];

/// Options that Flink itself has removed: old texts have them, and they change nothing.
const REMOVED_OPTIONS: [(&str, &str); 1] =
    [("execution.checkpointing.prefer-checkpoint-for-recovery", "recovery always begins at the newest checkpoint")];

fn check_option(key: &str, value: &str) -> Result<(), String> {
    if let Some((_, field)) = JOB_FILE_FIELDS.iter().find(|(option, _)| *option == key) {
        return Err(format!("SET '{key}' is not supported; set {field} in the job file instead"));
    }
    if TUNING_OPTIONS.contains(&key) {
        tracing::info!(option = key, value, "the option tunes Flink's execution and has no effect here");
        return Ok(());
    }
    if let Some((_, instead)) = REMOVED_OPTIONS.iter().find(|(option, _)| *option == key) {
        if !["true", "false"].contains(&value.to_lowercase().as_str()) {
            return Err(format!("SET '{key}' = '{value}': expected 'true' or 'false'"));
        }
        tracing::warn!(option = key, value, instead, "the option was removed from Flink and has no effect");
        return Ok(());
    }
    match (key, value.to_lowercase().as_str()) {
        ("execution.runtime-mode", "streaming") | ("table.local-time-zone", "utc" | "z" | "etc/utc") => Ok(()),
        ("execution.runtime-mode", _) => Err(format!("SET '{key}' = '{value}': only 'streaming' is supported")),
        ("table.local-time-zone", _) => Err(format!("SET '{key}' = '{value}': only 'UTC' is supported")),
        _ => Err(format!("SET '{key}' is not supported; the settings of a job are fields of the job file")),
    }
}
