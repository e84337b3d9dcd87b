//! A YAML document as a tree that knows its lines.

use crate::error::ApiError;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::fmt;

#[derive(Debug)]
pub struct Node {
    /// Counted from 1; 0 where the parser does not know.
    pub line: u64,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; the key's line comes with it.
    Object(Vec<(String, u64, Node)>),
}

impl Node {
    pub fn parse(yaml: &str) -> Result<Node, ApiError> {
        serde_saphyr::from_str::<Node>(yaml).map_err(|error| {
            let error = error.without_snippet();
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            let message = match error {
                serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                    format!("the field {key} is there twice; keep one of them")
                }
                serde_saphyr::Error::MultipleDocuments { .. } => {
                    "a second document begins; write every job into a file of its own".into()
                }
                error => without_position(&error.to_string(), line, column),
            };
            ApiError::Syntax { line, column, message }
        })
    }

    /// The value without lines; null entries of an object are left out.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::from(*value),
            Content::Integer(value) => Value::from(*value),
            Content::Float(value) => Value::from(*value),
            Content::Text(value) => Value::from(value.as_str()),
            Content::List(items) => items.iter().map(Node::to_value).collect(),
            Content::Object(entries) => entries
                .iter()
                .filter(|(_, _, node)| !matches!(node.content, Content::Null))
                .map(|(key, _, node)| (key.clone(), node.to_value()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// What stands there, for messages: short, and a string recognisable as one.
    pub fn found(&self) -> String {
        match &self.content {
            Content::Null => "nothing".into(),
            Content::Bool(value) => format!("{value}"),
            Content::Integer(value) => format!("{value}"),
            Content::Float(value) => format!("{value}"),
            Content::Text(value) => quoted(value),
            Content::List(_) => "a list".into(),
            Content::Object(_) => "a group of fields".into(),
        }
    }

    /// Line of the key at `path` (`spec.env[1].name`), or of its nearest ancestor that exists.
    pub fn line_of(&self, path: &str) -> Option<u64> {
        let mut node = self;
        let mut line = self.line;
        for step in path.split(['.', '[']) {
            match &node.content {
                Content::Object(entries) => {
                    let Some((_, key_line, child)) = entries.iter().find(|(key, _, _)| key == step) else { break };
                    line = *key_line;
                    node = child;
                }
                Content::List(items) => {
                    let index = step.trim_end_matches(']').parse::<usize>().ok();
                    let Some(child) = index.and_then(|index| items.get(index)) else { break };
                    line = child.line;
                    node = child;
                }
                _ => break,
            }
        }
        (line > 0).then_some(line)
    }
}

pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The parser's messages repeat the position and may go over several lines.
fn without_position(message: &str, line: u64, column: u64) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    message.replace(&format!(" at line {line}, column {column}"), "")
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Node { line: spanned.referenced.line(), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        // No field takes numbers beyond i64; as a float it is out of every range.
        Ok(i64::try_from(value).map_or(Content::Float(value as f64), Content::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push((key.value, line, access.next_value()?));
        }
        Ok(Content::Object(entries))
    }
}
