//! What a stateful operator is called in checkpoints, so that an edit of the text keeps the state of all it does not touch.
//!
//! An aggregation is known by where its rows go (the table that is inserted into, with the texts that the statement writes
//! there as constants), where they come from (the first table that is read, with the aggregations on the way), and what
//! forms its groups (window and keys, resolved to columns of that table). Everything else of a statement, such as
//! conditions, selected columns, aliases, and its place among other statements, is left out. Aggregations that are equal by
//! this rule are told apart by all that they compute, so that a change never gives one the state of another.
//!
//! Names of columns in state tables follow the same idea: a column is called after what is in it. So an aggregate that
//! changes cannot be taken for the one before it, and order does not matter.
//!
//! The texts made here are stored in checkpoints. They are rendered by rules of our own: those of libraries may change.

use crate::functions::{RowField, WindowBoundary, WindowSpec};
use crate::program::as_input_column;
use crate::types::describe;
use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// Longest name that stays as it is.
const LONGEST: usize = 48;
/// Characters that are kept of a text which is no name.
const HINT: usize = 24;
/// Columns of state tables that are not called after the query.
const RESERVED: [&str; 4] = ["records", "value", "occurrences", "row"];
/// Beginnings of such columns.
const RESERVED_PREFIXES: [&str; 3] = ["__", "window_", "argument_"];

/// What a relation's rows are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The first table that is read, and the aggregations behind it.
    path: String,
    /// All that distinguishes these rows from others with the same path.
    detail: String,
}

impl Lineage {
    pub fn of_table(table: &str) -> Lineage {
        Lineage { path: name(table), detail: table.to_owned() }
    }

    /// Rows that pass a condition. Rows that are taken back later must find behind the condition what they take back: over
    /// updated rows another condition makes other state.
    pub fn filter(&mut self, condition: &str, updating: bool) {
        self.detail.push_str(&format!("|where {condition}"));
        if updating {
            self.path.push_str(&format!("/having-{}", digest(condition)));
        }
    }

    /// The rows of all branches. The first one gives the name; where rows are taken back, the others matter as well.
    pub fn union(branches: Vec<Lineage>, updating: bool) -> Lineage {
        let mut branches = branches.into_iter();
        let mut union = branches.next().unwrap_or_default();
        let mut others: Vec<Lineage> = branches.collect();
        others.sort_by(|a, b| (&a.path, &a.detail).cmp(&(&b.path, &b.detail)));
        if updating && !others.is_empty() {
            let paths: Vec<&str> = others.iter().map(|branch| branch.path.as_str()).collect();
            union.path.push_str(&format!("+{}", digest(&paths.join("+"))));
        }
        for other in others {
            union.detail.push_str(&format!("+({}{})", other.path, other.detail));
        }
        union
    }

    /// What an aggregation makes of these rows.
    pub fn grouped(&self, role: &str, aggregates: &[String]) -> Lineage {
        Lineage {
            path: format!("{}/{role}", self.path),
            detail: format!("{}|{role} {}", self.detail, aggregates.join(", ")),
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// What an aggregation is among those over the same rows: its window and keys.
pub fn role(window: Option<WindowSpec>, keys: &[String]) -> String {
    let keys = match keys {
        [] => "all".to_owned(),
        keys => format!("by-{}", shortened(&keys.join(","))),
    };
    match window {
        None => format!("group-{keys}"),
        Some(WindowSpec { size, offset: 0 }) => format!("tumble-{size}ms-{keys}"),
        Some(WindowSpec { size, offset }) => format!("tumble-{size}ms-offset-{offset}ms-{keys}"),
    }
}

/// Gives different uids to operators that have the same one; `details` say by node what each of them computes. Operators
/// that compute the same are interchangeable and numbered.
pub fn tell_apart(uids: BTreeMap<usize, String>, details: &BTreeMap<usize, String>) -> BTreeMap<usize, String> {
    let mut by_uid: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (node, uid) in uids {
        by_uid.entry(uid).or_default().push(node);
    }
    let mut distinct = BTreeMap::new();
    for (uid, nodes) in by_uid {
        if let [only] = nodes.as_slice() {
            distinct.insert(*only, uid);
            continue;
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for node in nodes {
            let told = format!("{uid}~{}", digest(details.get(&node).map_or("", String::as_str)));
            let count = seen.entry(told.clone()).or_insert(0);
            *count += 1;
            distinct.insert(node, if *count == 1 { told } else { format!("{told}#{count}") });
        }
    }
    distinct
}

/// The constant texts among the columns that a query writes.
pub fn labels<'a>(columns: impl Iterator<Item = &'a Expr>) -> Vec<String> {
    columns.filter_map(label).collect()
}

fn label(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Alias(alias) => label(&alias.expr),
        Expr::Cast(cast) => label(&cast.expr),
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) if !text.is_empty() => Some(name(text)),
        _ => None,
    }
}

/// A short name for a text; a name of usual form stays as it is.
pub fn name(text: &str) -> String {
    let flat = text.replace('.', "_");
    if !flat.is_empty() && flat.chars().count() <= LONGEST && flat.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return flat;
    }
    format!("{}_{}", hint(&flat), digest(text)).trim_start_matches('_').to_owned()
}

/// The name of a key column in state tables, which have columns of their own.
pub fn key_column(text: &str) -> String {
    let name = name(text);
    if RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return format!("key_{}", name.trim_start_matches('_'));
    }
    name
}

/// `wanted`, or with a number behind it if it is taken.
pub fn unique(wanted: String, taken: &[String]) -> String {
    let mut candidate = wanted.clone();
    let mut number = 2;
    while taken.contains(&candidate) {
        candidate = format!("{wanted}_{number}");
        number += 1;
    }
    candidate
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 2 * LONGEST {
        return text.to_owned();
    }
    format!("{}_{}", text.chars().take(2 * LONGEST).collect::<String>(), digest(text))
}

/// The beginning of a text as a name.
fn hint(text: &str) -> String {
    let mut hint = String::new();
    for character in text.chars() {
        if character.is_alphanumeric() {
            hint.push(character);
        } else if !hint.is_empty() && !hint.ends_with('_') {
            hint.push('_');
        }
        if hint.chars().count() >= HINT {
            break;
        }
    }
    hint.trim_end_matches('_').to_owned()
}

fn digest(text: &str) -> String {
    format!("{:08x}", xxh3_64(text.as_bytes()) as u32)
}

/// An expression over input columns with these names, as text.
pub fn text(expr: &Expr, names: &[String]) -> String {
    let of = |expr: &Expr| text(expr, names);
    let list = |exprs: &[Expr]| exprs.iter().map(of).collect::<Vec<_>>().join(",");
    let not = |negated: bool| if negated { "not " } else { "" };
    match expr {
        Expr::Alias(alias) => of(&alias.expr),
        Expr::Column(column) => {
            let known = as_input_column(expr).and_then(|index| names.get(index));
            known.map_or_else(|| column.name.clone(), String::clone)
        }
        Expr::Literal(ScalarValue::Utf8(Some(value)), _) => format!("'{value}'"),
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => {
            format!("interval {} {} {}", interval.months, interval.days, interval.nanoseconds)
        }
        Expr::Literal(value, _) => value.to_string(),
        Expr::BinaryExpr(binary) => format!("({} {} {})", of(&binary.left), binary.op, of(&binary.right)),
        Expr::Not(inner) => format!("not({})", of(inner)),
        Expr::Negative(inner) => format!("-({})", of(inner)),
        Expr::IsNull(inner) => format!("({} is null)", of(inner)),
        Expr::IsNotNull(inner) => format!("({} is not null)", of(inner)),
        Expr::IsTrue(inner) => format!("({} is true)", of(inner)),
        Expr::IsFalse(inner) => format!("({} is false)", of(inner)),
        Expr::IsUnknown(inner) => format!("({} is unknown)", of(inner)),
        Expr::IsNotTrue(inner) => format!("({} is not true)", of(inner)),
        Expr::IsNotFalse(inner) => format!("({} is not false)", of(inner)),
        Expr::IsNotUnknown(inner) => format!("({} is not unknown)", of(inner)),
        Expr::Between(between) => {
            let (low, high) = (of(&between.low), of(&between.high));
            format!("({} {}between {low} and {high})", of(&between.expr), not(between.negated))
        }
        Expr::Like(like) => {
            let escape = like.escape_char.map_or_else(String::new, |escape| format!(" escape {escape}"));
            format!("({} {}like {}{escape})", of(&like.expr), not(like.negated), of(&like.pattern))
        }
        Expr::InList(items) => format!("({} {}in {})", of(&items.expr), not(items.negated), list(&items.list)),
        Expr::Case(case) => {
            let mut parts = vec![case.expr.as_ref().map_or_else(String::new, |operand| of(operand))];
            for (when, then) in &case.when_then_expr {
                parts.push(format!("when {} then {}", of(when), of(then)));
            }
            parts.extend(case.else_expr.as_ref().map(|otherwise| format!("else {}", of(otherwise))));
            format!("case({})", parts.join(" "))
        }
        // The type of a constant follows from what stands beside it.
        Expr::Cast(cast) if is_constant(&cast.expr) => of(&cast.expr),
        Expr::Cast(cast) => format!("cast({} as {})", of(&cast.expr), describe(cast.field.data_type())),
        Expr::TryCast(cast) => format!("try_cast({} as {})", of(&cast.expr), describe(cast.field.data_type())),
        Expr::ScalarFunction(function) => {
            if let Some((field, row)) = RowField::of(expr) {
                return format!("{}.{}", of(row), field.field);
            }
            if let Some((boundary, time)) = WindowBoundary::of(expr) {
                let WindowSpec { size, offset } = boundary.spec;
                return format!("{}({},{size},{offset})", function.func.name(), of(time));
            }
            format!("{}({})", function.func.name(), list(&function.args))
        }
        other => other.to_string(),
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => is_constant(&cast.expr),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_stay_and_others_become_names() {
        assert_eq!(name("channel"), "channel");
        assert_eq!(name("bid.price"), "bid_price");
        assert_eq!(name("用户"), "用户");
        assert_eq!(key_column("channel"), "channel");
        assert_eq!(key_column("value"), "key_value");
        assert_eq!(key_column("__deleted"), "key_deleted");
        assert_eq!(name("upper(channel)"), format!("upper_channel_{}", digest("upper(channel)")));
        assert_ne!(name("upper(channel)"), name("upper(channel )"));
        assert_eq!(name("("), digest("("));
        let long = "x".repeat(100);
        assert!(name(&long).chars().count() < LONGEST);
        assert_ne!(name(&long), name(&"x".repeat(101)));
    }

    #[test]
    fn roles() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(role(None, &[]), "group-all");
        assert_eq!(role(None, &keys(&["a", "b"])), "group-by-a,b");
        let window = |offset| Some(WindowSpec { size: 10_000, offset });
        assert_eq!(role(window(0), &[]), "tumble-10000ms-all");
        assert_eq!(role(window(-1000), &keys(&["a"])), "tumble-10000ms-offset--1000ms-by-a");
        let many: Vec<String> = (0..60).map(|key| format!("key{key}")).collect();
        assert!(role(None, &many).len() < 130);
        assert_ne!(role(None, &many), role(None, &many[..59]));
    }

    #[test]
    fn equal_uids_are_told_apart_by_detail_and_then_counted() {
        let uids = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).enumerate().collect::<BTreeMap<_, _>>();
        let told = tell_apart(uids(&["a", "b", "a", "a"]), &uids(&["x", "y", "z", "x"]));
        let told: Vec<&str> = told.values().map(String::as_str).collect();
        let (x, z) = (format!("a~{}", digest("x")), format!("a~{}", digest("z")));
        assert_eq!(told, [x.as_str(), "b", z.as_str(), format!("{x}#2").as_str()]);
    }
}
