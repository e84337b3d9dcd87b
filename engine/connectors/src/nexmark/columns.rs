//! Builds batches of events column by column. A column is made of runs of events of one kind, so its loop has no
//! branch on the kind; rows of other kinds are null in it. Columns that nobody reads are not generated.

use super::numbers::{Kind, Parameters, Prices, Run, Streams, category, channel};
use super::schema::{Layout, LayoutColumn, Leaf, LeafColumn, LeafType};
use super::strings::{CARD_LENGTH, CITIES, FIRST_NAMES, LAST_NAMES, STATES, Strings, push_card, push_email};
use crate::error::ConnectorError;
use crate::projection::Placeholders;
use crate::random::{Stream, high, low};
use arrow::array::BooleanBufferBuilder;
use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use std::ops::Range;
use std::sync::Arc;

/// Makes batches of the declared table.
pub(crate) struct Generator {
    parameters: Arc<Parameters>,
    layout: Arc<Layout>,
    streams: Streams,
    strings: Strings,
    prices: Prices,
    placeholders: Placeholders,
    runs: Vec<Run>,
}

/// Strings being built.
struct Texts {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Texts {
    #[inline]
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.end();
    }

    #[inline]
    fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }
}

/// The generator without its scratch space.
struct Values<'a> {
    parameters: &'a Parameters,
    streams: &'a Streams,
    strings: &'a Strings,
    prices: &'a Prices,
    runs: &'a [Run],
    rows: usize,
}

impl Generator {
    pub fn new(parameters: Arc<Parameters>, layout: Arc<Layout>) -> Self {
        Generator {
            streams: Streams::new(parameters.seed),
            strings: Strings::new(parameters.seed),
            prices: Prices::new(),
            placeholders: Placeholders::default(),
            runs: Vec::new(),
            parameters,
            layout,
        }
    }

    /// The events of these ranges, in their order.
    pub fn batch(&mut self, ranges: &[Range<u64>]) -> Result<RecordBatch, ConnectorError> {
        let Generator { parameters, layout, streams, strings, prices, placeholders, runs } = self;
        runs.clear();
        for range in ranges {
            parameters.runs(range.start, range.end, layout.bids_only, runs);
        }
        let rows = runs.iter().map(|run| run.count).sum();
        let values = Values { parameters, streams, strings, prices, runs, rows };
        let mut arrays = Vec::with_capacity(layout.columns.len());
        for column in &layout.columns {
            let array = match column {
                LayoutColumn::EventType { field, required: false } => placeholders.get(field, rows)?,
                LayoutColumn::EventType { required: true, .. } => values.event_types(),
                LayoutColumn::Leaf(column) => values.leaf(column, None, placeholders)?,
                LayoutColumn::Row { field, required: false, .. } => placeholders.get(field, rows)?,
                LayoutColumn::Row { kind, fields, columns, required: true, .. } => {
                    let nulls = values.nulls(*kind);
                    let children = columns
                        .iter()
                        .map(|column| values.leaf(column, Some(&nulls), placeholders))
                        .collect::<Result<Vec<_>, _>>()?;
                    Arc::new(StructArray::try_new_with_length(fields.clone(), children, Some(nulls), rows)?)
                }
            };
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(layout.schema.clone(), arrays, &options)?)
    }
}

impl Values<'_> {
    fn event_types(&self) -> ArrayRef {
        let mut types: Vec<i32> = Vec::with_capacity(self.rows);
        for run in self.runs {
            types.resize(types.len() + run.count, run.kind as i32);
        }
        Arc::new(Int32Array::from(types))
    }

    /// Null where the event is of another kind.
    fn nulls(&self, kind: Kind) -> NullBuffer {
        let mut valid = BooleanBufferBuilder::new(self.rows);
        for run in self.runs {
            valid.append_n(run.count, run.kind == kind);
        }
        let valid: BooleanBuffer = valid.finish();
        NullBuffer::new(valid)
    }

    fn leaf(
        &self,
        column: &LeafColumn,
        nulls: Option<&NullBuffer>,
        placeholders: &mut Placeholders,
    ) -> Result<ArrayRef, ConnectorError> {
        if !column.required {
            return Ok(placeholders.get(&column.field, self.rows)?);
        }
        let nulls = nulls.cloned();
        let array: ArrayRef = match column.leaf.leaf_type() {
            LeafType::Number => Arc::new(Int64Array::try_new(self.numbers(column.leaf).into(), nulls)?),
            LeafType::Time => Arc::new(TimestampMillisecondArray::try_new(self.numbers(column.leaf).into(), nulls)?),
            LeafType::Text => {
                let texts = self.texts(column.leaf);
                let ends = OffsetBuffer::new(texts.ends.into());
                Arc::new(StringArray::try_new(ends, texts.bytes.into(), nulls)?)
            }
        };
        if array.data_type() == column.field.data_type() {
            return Ok(array);
        }
        Ok(cast(&array, column.field.data_type())?)
    }

    /// Calls `fill` for every run of the kind; other rows are zero.
    fn fill(&self, kind: Kind, mut fill: impl FnMut(&Run, &mut Vec<i64>)) -> Vec<i64> {
        let mut values = Vec::with_capacity(self.rows);
        for run in self.runs {
            if run.kind == kind {
                fill(run, &mut values);
            } else {
                values.resize(values.len() + run.count, 0);
            }
        }
        values
    }

    /// One value from one word for every event of the kind.
    fn each(&self, kind: Kind, stream: Stream, value: impl Fn(u64, u64) -> i64) -> Vec<i64> {
        self.fill(kind, |run, out| out.extend(run.events().map(|event| value(event, stream.word(event)))))
    }

    fn numbers(&self, leaf: Leaf) -> Vec<i64> {
        let (parameters, streams, prices) = (self.parameters, self.streams, self.prices);
        match leaf {
            Leaf::BidAuction => self.fill(Kind::Bid, |run, out| {
                let choice = parameters.bid_auctions(run.group);
                out.extend(run.events().map(|event| choice.pick(streams.bid_auction.word(event))));
            }),
            Leaf::BidBidder => self.fill(Kind::Bid, |run, out| {
                let choice = parameters.bid_bidders(run.group);
                out.extend(run.events().map(|event| choice.pick(streams.bid_bidder.word(event))));
            }),
            Leaf::BidPrice => self.each(Kind::Bid, streams.bid_price, |_, word| prices.price(word)),
            Leaf::AuctionSeller => self.fill(Kind::Auction, |run, out| {
                let choice = parameters.auction_sellers(run.group);
                out.extend(run.events().map(|event| choice.pick(streams.auction_seller.word(event))));
            }),
            Leaf::AuctionCategory => self.each(Kind::Auction, streams.auction_category, |_, word| category(word)),
            Leaf::AuctionInitialBid => {
                self.each(Kind::Auction, streams.auction_initial_bid, |_, word| prices.price(word))
            }
            Leaf::AuctionReserve => self.each(Kind::Auction, streams.auction_reserve, |event, word| {
                prices.price(streams.auction_initial_bid.word(event)) + prices.price(word)
            }),
            Leaf::AuctionExpires => {
                self.each(Kind::Auction, streams.auction_expires, |event, word| parameters.expires(event, word))
            }
            Leaf::AuctionId => self.fill(Kind::Auction, |run, out| {
                let first = parameters.auction_id(run);
                out.extend(first..first + run.count as i64);
            }),
            Leaf::PersonId => self.fill(Kind::Person, |run, out| {
                let first = parameters.person_id(run);
                out.extend(first..first + run.count as i64);
            }),
            Leaf::Time(kind) => self.fill(kind, |run, out| self.times(run, out)),
            // Texts are made by `texts`.
            _ => Vec::new(),
        }
    }

    /// One division a run instead of one an event.
    fn times(&self, run: &Run, out: &mut Vec<i64>) {
        let rate = self.parameters.rate;
        let start = run.first.saturating_mul(1000);
        let mut millis = self.parameters.base_time + (start / rate) as i64;
        let mut rest = start % rate;
        let (step, step_rest) = ((1000 / rate) as i64, 1000 % rate);
        for _ in 0..run.count {
            out.push(millis);
            millis += step;
            rest += step_rest;
            if rest >= rate {
                rest -= rate;
                millis += 1;
            }
        }
    }

    /// Calls `push`, which must end one text, for every event of the kind; other rows are empty.
    fn fill_texts(&self, kind: Kind, expected: usize, mut push: impl FnMut(u64, &mut Texts)) -> Texts {
        let mut texts = Texts { ends: Vec::with_capacity(self.rows + 1), bytes: Vec::new() };
        texts.bytes.reserve(expected * self.rows);
        texts.ends.push(0);
        for run in self.runs {
            if run.kind == kind {
                for event in run.events() {
                    push(event, &mut texts);
                }
            } else {
                let end = texts.bytes.len() as i32;
                texts.ends.resize(texts.ends.len() + run.count, end);
            }
        }
        texts
    }

    fn texts(&self, leaf: Leaf) -> Texts {
        let (parameters, streams, strings) = (self.parameters, self.streams, self.strings);
        let channel_of = |event| channel(streams.bid_channel.word(event));
        match leaf {
            Leaf::BidChannel => {
                self.fill_texts(Kind::Bid, 12, |event, out| out.push(strings.channel(channel_of(event))))
            }
            Leaf::BidUrl => self.fill_texts(Kind::Bid, 80, |event, out| out.push(strings.url(channel_of(event)))),
            Leaf::BidExtra => {
                let size = parameters.bid_size;
                self.fill_texts(Kind::Bid, (size + size / 5) as usize, |event, out| {
                    out.push(strings.extra(streams.bid_extra.word(event), 32, size));
                })
            }
            Leaf::AuctionName => self.fill_texts(Kind::Auction, 2, |event, out| out.push(self.auction_name(event))),
            Leaf::AuctionDescription => {
                self.fill_texts(Kind::Auction, 6, |event, out| out.push(self.auction_description(event)))
            }
            Leaf::AuctionExtra => self.fill_texts(Kind::Auction, 32, |event, out| {
                let current = 48 + self.auction_name(event).len() + self.auction_description(event).len();
                let word = streams.auction_extra.word(event);
                out.push(strings.extra(word, current as u32, parameters.auction_size));
            }),
            Leaf::PersonName => self.fill_texts(Kind::Person, 1, |event, out| {
                let (first, last) = self.person_name(event);
                out.bytes.extend_from_slice(first.as_bytes());
                out.bytes.push(b' ');
                out.push(last.as_bytes());
            }),
            Leaf::PersonEmail => self.fill_texts(Kind::Person, 1, |event, out| {
                push_email(&mut out.bytes, strings, streams.person_email.substream(event));
                out.end();
            }),
            Leaf::PersonCard => self.fill_texts(Kind::Person, 1, |event, out| {
                push_card(&mut out.bytes, streams.person_card.word(event));
                out.end();
            }),
            Leaf::PersonCity => self.fill_texts(Kind::Person, 1, |event, out| out.push(self.city(event).as_bytes())),
            Leaf::PersonState => self.fill_texts(Kind::Person, 1, |event, out| {
                let state = STATES[low(streams.person_state.word(event), STATES.len() as u32) as usize];
                out.push(state.as_bytes());
            }),
            Leaf::PersonExtra => {
                let mut email = Vec::new();
                self.fill_texts(Kind::Person, 4, |event, out| {
                    let (first, last) = self.person_name(event);
                    email.clear();
                    push_email(&mut email, strings, streams.person_email.substream(event));
                    let lengths = first.len() + 1 + last.len() + email.len() + self.city(event).len();
                    let current = 8 + lengths as u32 + CARD_LENGTH + 2;
                    out.push(strings.extra(streams.person_extra.word(event), current, parameters.person_size));
                })
            }
            // Numbers are made by `numbers`.
            _ => Texts { ends: vec![0], bytes: Vec::new() },
        }
    }

    fn auction_name(&self, event: u64) -> &[u8] {
        self.strings.words(self.streams.auction_name.word(event), 20)
    }

    fn auction_description(&self, event: u64) -> &[u8] {
        self.strings.words(self.streams.auction_description.word(event), 100)
    }

    fn person_name(&self, event: u64) -> (&'static str, &'static str) {
        let word = self.streams.person_name.word(event);
        let first = FIRST_NAMES[low(word, FIRST_NAMES.len() as u32) as usize];
        (first, LAST_NAMES[high(word, LAST_NAMES.len() as u32) as usize])
    }

    fn city(&self, event: u64) -> &'static str {
        CITIES[low(self.streams.person_city.word(event), CITIES.len() as u32) as usize]
    }
}

impl Run {
    fn events(&self) -> Range<u64> {
        self.first..self.first + self.count as u64
    }
}
