//! Which columns a declared table has: the published one (an event type and three rows) or bids alone, each also
//! with fewer columns or in another order.

use super::numbers::Kind;
use crate::projection::{Need, need};
use arrow::datatypes::{DataType, FieldRef, Fields, SchemaRef};
use std::collections::BTreeSet;

/// A generated value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf {
    PersonId,
    PersonName,
    PersonEmail,
    PersonCard,
    PersonCity,
    PersonState,
    PersonExtra,
    AuctionId,
    AuctionName,
    AuctionDescription,
    AuctionInitialBid,
    AuctionReserve,
    AuctionExpires,
    AuctionSeller,
    AuctionCategory,
    AuctionExtra,
    BidAuction,
    BidBidder,
    BidPrice,
    BidChannel,
    BidUrl,
    BidExtra,
    Time(Kind),
}

const PERSON: &[(&str, Leaf)] = &[
    ("id", Leaf::PersonId),
    ("name", Leaf::PersonName),
    ("emailAddress", Leaf::PersonEmail),
    ("creditCard", Leaf::PersonCard),
    ("city", Leaf::PersonCity),
    ("state", Leaf::PersonState),
    ("dateTime", Leaf::Time(Kind::Person)),
    ("extra", Leaf::PersonExtra),
];
const AUCTION: &[(&str, Leaf)] = &[
    ("id", Leaf::AuctionId),
    ("itemName", Leaf::AuctionName),
    ("description", Leaf::AuctionDescription),
    ("initialBid", Leaf::AuctionInitialBid),
    ("reserve", Leaf::AuctionReserve),
    ("dateTime", Leaf::Time(Kind::Auction)),
    ("expires", Leaf::AuctionExpires),
    ("seller", Leaf::AuctionSeller),
    ("category", Leaf::AuctionCategory),
    ("extra", Leaf::AuctionExtra),
];
const BID: &[(&str, Leaf)] = &[
    ("auction", Leaf::BidAuction),
    ("bidder", Leaf::BidBidder),
    ("price", Leaf::BidPrice),
    ("channel", Leaf::BidChannel),
    ("url", Leaf::BidUrl),
    ("dateTime", Leaf::Time(Kind::Bid)),
    ("extra", Leaf::BidExtra),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafType {
    Number,
    Text,
    Time,
}

impl Leaf {
    pub fn leaf_type(self) -> LeafType {
        match self {
            Leaf::Time(_) | Leaf::AuctionExpires => LeafType::Time,
            Leaf::PersonId
            | Leaf::AuctionId
            | Leaf::AuctionInitialBid
            | Leaf::AuctionReserve
            | Leaf::AuctionSeller
            | Leaf::AuctionCategory
            | Leaf::BidAuction
            | Leaf::BidBidder
            | Leaf::BidPrice => LeafType::Number,
            _ => LeafType::Text,
        }
    }
}

/// One declared column that holds a generated value.
#[derive(Debug, Clone)]
pub(crate) struct LeafColumn {
    pub leaf: Leaf,
    pub field: FieldRef,
    pub required: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum LayoutColumn {
    EventType { field: FieldRef, required: bool },
    Row { kind: Kind, field: FieldRef, fields: Fields, columns: Vec<LeafColumn>, required: bool },
    Leaf(LeafColumn),
}

/// The declared table.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub schema: SchemaRef,
    /// Every event is a bid.
    pub bids_only: bool,
    pub columns: Vec<LayoutColumn>,
}

impl Layout {
    pub fn of(schema: &SchemaRef, required: Option<&BTreeSet<Vec<String>>>) -> Result<Layout, String> {
        if schema.fields().is_empty() {
            return Err("a nexmark table needs at least one column".into());
        }
        let nested = schema
            .fields()
            .iter()
            .any(|field| field.name() == "event_type" || matches!(field.data_type(), DataType::Struct(_)));
        let columns = schema
            .fields()
            .iter()
            .map(|field| match nested {
                true => nested_column(field, required),
                false => leaf_column(field, &[], BID, "of a table of bids", required).map(LayoutColumn::Leaf),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Layout { schema: schema.clone(), bids_only: !nested, columns })
    }
}

fn nested_column(field: &FieldRef, required: Option<&BTreeSet<Vec<String>>>) -> Result<LayoutColumn, String> {
    let need = need(required, &[field.name()]);
    let (kind, known) = match field.name().as_str() {
        "event_type" => {
            if field.data_type() != &DataType::Int32 {
                return Err(format!("column 'event_type' must be INT, not {}", field.data_type()));
            }
            return Ok(LayoutColumn::EventType { field: field.clone(), required: need != Need::Nothing });
        }
        "person" => (Kind::Person, PERSON),
        "auction" => (Kind::Auction, AUCTION),
        "bid" => (Kind::Bid, BID),
        other => {
            return Err(format!(
                "there is no column '{other}' in the nexmark table; it has event_type INT and the rows person, auction \
                 and bid, or, for bids alone, {}",
                names(BID)
            ));
        }
    };
    let DataType::Struct(fields) = field.data_type() else {
        return Err(format!("column '{}' must be a ROW of {}, not {}", field.name(), names(known), field.data_type()));
    };
    if !field.is_nullable() {
        return Err(format!("column '{}' must not be NOT NULL: an event has one of the three rows", field.name()));
    }
    let columns = fields
        .iter()
        .map(|inner| leaf_column(inner, &[field.name()], known, &format!("of the row '{}'", field.name()), required))
        .collect::<Result<Vec<_>, _>>()?;
    let required = need != Need::Nothing;
    Ok(LayoutColumn::Row { kind, field: field.clone(), fields: fields.clone(), columns, required })
}

fn leaf_column(
    field: &FieldRef,
    parents: &[&str],
    known: &[(&str, Leaf)],
    place: &str,
    required: Option<&BTreeSet<Vec<String>>>,
) -> Result<LeafColumn, String> {
    let Some((_, leaf)) = known.iter().find(|(name, _)| name == field.name()) else {
        return Err(format!("there is no column '{}' {place}; it has {}", field.name(), names(known)));
    };
    let (fits, expected) = match leaf.leaf_type() {
        LeafType::Number => (field.data_type() == &DataType::Int64, "BIGINT"),
        LeafType::Text => {
            (matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View), "VARCHAR")
        }
        LeafType::Time => (matches!(field.data_type(), DataType::Timestamp(_, None)), "TIMESTAMP(3)"),
    };
    if !fits {
        return Err(format!("column '{}' {place} must be {expected}, not {}", field.name(), field.data_type()));
    }
    let path: Vec<&str> = parents.iter().copied().chain([field.name().as_str()]).collect();
    Ok(LeafColumn { leaf: *leaf, field: field.clone(), required: need(required, &path) != Need::Nothing })
}

fn names(known: &[(&str, Leaf)]) -> String {
    known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
