//! The Nexmark auction generator: persons, auctions and bids as pure functions of a seed and the event's number.
//!
//! Mix, id distributions, hot keys, sizes and the option names are those of the Nexmark project's Flink source. Unlike
//! it, the data is seeded and does not depend on the parallelism. `numbers` says what event n is, `columns` builds
//! batches of it, `source` keeps the position.

mod columns;
mod numbers;
mod schema;
mod source;
mod strings;

use crate::options::{Options, optional};
use crate::stripes::{self, STRIPES};
use numbers::Parameters;
use schema::Layout;
use source::NexmarkSource;
use std::sync::Arc;
use streamjob_dataflow::connector::{Connector, OptionDoc, SinkSpec, SourceRequest, SourceSpec, TableDefinition};
use streamjob_dataflow::{Instance, PlanError};

/// Event time of event 0 unless the table says otherwise, in milliseconds since the epoch.
const DEFAULT_BASE_TIME: i64 = 1_700_000_000_000;
const MAX_RATE: u64 = 1_000_000_000;

pub(crate) struct NexmarkConnector;

impl Connector for NexmarkConnector {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn options(&self) -> Vec<OptionDoc> {
        vec![
            optional("events.num", Some("0"), "Number of events of the whole table; 0 never ends"),
            optional(
                "first-event.rate",
                Some("10000"),
                "Events a second of event time: event n happens at base-time + n / rate",
            ),
            optional(
                "next-event.rate",
                Some("10000"),
                "The same as first-event.rate; if both are given they must be equal, since the rate does not change",
            ),
            optional("rate.shape", Some("SQUARE"), "SQUARE or SINE; has no effect, since the rate does not change"),
            optional("rate.period", Some("600 s"), "Has no effect, since the rate does not change"),
            optional("rate.limited", Some("false"), "'true' emits events at the rate of their timestamps"),
            optional(
                "max-emit-speed",
                Some("true"),
                "'true' emits as fast as the job takes events, 'false' at the rate of their timestamps",
            ),
            optional("person.proportion", Some("1"), "Persons in every group of events"),
            optional("auction.proportion", Some("3"), "Auctions in every group of events"),
            optional("bid.proportion", Some("46"), "Bids in every group of events"),
            optional("person.avg-size", Some("200b"), "Mean size of a person"),
            optional("auction.avg-size", Some("500b"), "Mean size of an auction"),
            optional("bid.avg-size", Some("100b"), "Mean size of a bid without channel and url"),
            optional("bid.hot-ratio.auctions", Some("2"), "One of so many bids goes to an auction that is not hot"),
            optional("bid.hot-ratio.bidders", Some("4"), "One of so many bids comes from a person that is not hot"),
            optional("auction.hot-ratio.sellers", Some("4"), "One of so many auctions has a seller that is not hot"),
            optional("keep-alive", Some("false"), "'true' keeps the source running after its last event"),
            optional("stop-at", Some("-1"), "Ends the table before this event; -1 does not"),
            optional("seed", Some("0"), "The same seed gives the same events"),
            optional("base-time", Some("1700000000000"), "Event time of event 0, milliseconds since the epoch"),
        ]
    }

    fn source(&self, request: &SourceRequest) -> Result<SourceSpec, PlanError> {
        let options = Options::of(&request.table);
        let parameters = parameters(options)?;
        let layout = Layout::of(&request.table.schema, request.required.as_ref())
            .map_err(|message| options.table_error(message))?;
        let keep_alive = options.flag("keep-alive", false)?;
        let bounded = parameters.events != u64::MAX && !keep_alive;
        let paced = options.flag("rate.limited", false)? || !options.flag("max-emit-speed", true)?;
        options.parsed("rate.shape", |shape| match shape.to_ascii_uppercase().as_str() {
            "SQUARE" | "SINE" => Ok(()),
            _ => Err(format!("'{shape}' is neither 'SQUARE' nor 'SINE'")),
        })?;
        options.duration("rate.period")?;
        let parameters = Arc::new(parameters);
        let layout = Arc::new(layout);
        Ok(SourceSpec {
            factory: Arc::new(move |_| {
                let source = NexmarkSource::new(parameters.clone(), layout.clone(), paced, keep_alive);
                Ok(Instance::Source(Box::new(source)))
            }),
            replayable: true,
            bounded,
            max_parallelism: Some(STRIPES),
            state: stripes::state(),
        })
    }

    fn sink(&self, table: &TableDefinition) -> Result<SinkSpec, PlanError> {
        Err(PlanError::Table {
            table: table.name.clone(),
            message: "connector 'nexmark' is a source only; nothing can be written to it".into(),
        })
    }
}

fn parameters(options: Options<'_>) -> Result<Parameters, PlanError> {
    let first_rate = options.number("first-event.rate", 10_000, 1, MAX_RATE)?;
    let next_rate = options.number("next-event.rate", first_rate, 1, MAX_RATE)?;
    if options.text("first-event.rate").is_some() && first_rate != next_rate {
        return Err(options.error(
            "next-event.rate",
            format!("{next_rate} differs from first-event.rate {first_rate}; a changing rate is not supported"),
        ));
    }
    let proportion = |option, default| options.number(option, default, 0u64, 1_000_000);
    let (persons, auctions, bids) =
        (proportion("person.proportion", 1)?, proportion("auction.proportion", 3)?, proportion("bid.proportion", 46)?);
    if persons == 0 || auctions == 0 {
        let option = if persons == 0 { "person.proportion" } else { "auction.proportion" };
        return Err(options.error(option, "must be at least 1: bids and auctions refer to it"));
    }
    let size = |option, default| match options.memory(option, default)? {
        bytes if bytes <= 65_536 => Ok(bytes as u32),
        bytes => Err(options.error(option, format!("{bytes} bytes is more than 64 kb"))),
    };
    let ratio = |option, default| options.number(option, default, 1u32, 1_000_000);
    let events = match options.number("events.num", 0u64, 0, 1 << 52)? {
        0 => u64::MAX,
        events => events,
    };
    let stop_at = match options.number("stop-at", -1i64, -1, 1 << 52)? {
        -1 => u64::MAX,
        stop_at => stop_at as u64,
    };
    Ok(Parameters {
        seed: options.number("seed", 0, 0, u64::MAX)?,
        base_time: options.number("base-time", DEFAULT_BASE_TIME, 0, 1 << 52)?,
        rate: next_rate,
        events: events.min(stop_at),
        persons,
        auctions,
        bids,
        person_size: size("person.avg-size", 200)?,
        auction_size: size("auction.avg-size", 500)?,
        bid_size: size("bid.avg-size", 100)?,
        hot_auction_ratio: ratio("bid.hot-ratio.auctions", 2)?,
        hot_bidder_ratio: ratio("bid.hot-ratio.bidders", 4)?,
        hot_seller_ratio: ratio("auction.hot-ratio.sellers", 4)?,
    })
}

#[cfg(test)]
mod tests;
