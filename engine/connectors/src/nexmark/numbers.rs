//! What event n is: its kind, its time, and every number in it, each from its own random stream.

use crate::random::{Stream, high, low};

/// Ids start here, so that queries find matches in small data.
const FIRST_AUCTION_ID: i64 = 1000;
const FIRST_PERSON_ID: i64 = 1000;
const FIRST_CATEGORY_ID: i64 = 10;
const CATEGORIES: u32 = 5;
/// Ids of persons and auctions that do not exist yet may be referred to, up to so many ahead.
const ID_LEAD: i64 = 10;
/// One id of so many consecutive ones is hot.
const HOT_GROUP: i64 = 100;
const IN_FLIGHT_AUCTIONS: i64 = 100;
const ACTIVE_PERSONS: i64 = 1000;
pub(crate) const HOT_CHANNELS: u32 = 4;
pub(crate) const COLD_CHANNELS: u32 = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters {
    pub seed: u64,
    /// Milliseconds since the epoch.
    pub base_time: i64,
    /// Events a second of event time.
    pub rate: u64,
    /// `u64::MAX` without an end.
    pub events: u64,
    pub persons: u64,
    pub auctions: u64,
    pub bids: u64,
    pub person_size: u32,
    pub auction_size: u32,
    pub bid_size: u32,
    pub hot_auction_ratio: u32,
    pub hot_bidder_ratio: u32,
    pub hot_seller_ratio: u32,
}

/// The value of `event_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Person = 0,
    Auction = 1,
    Bid = 2,
}

/// Consecutive events of one kind and one group, which therefore refer to the same persons and auctions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub kind: Kind,
    /// Number of the first event.
    pub first: u64,
    pub count: usize,
    /// Number of the group; groups have `persons + auctions + bids` events.
    pub group: i64,
    /// Place of the first event among those of its kind in the group.
    pub place: i64,
}

impl Parameters {
    pub fn group_size(&self) -> u64 {
        self.persons + self.auctions + self.bids
    }

    /// Splits the events `first..end` into runs; all of them bids when `bids_only`.
    pub fn runs(&self, first: u64, end: u64, bids_only: bool, runs: &mut Vec<Run>) {
        let size = self.group_size();
        let mut at = first;
        while at < end {
            let (group, offset) = (at / size, at % size);
            let (kind, start, stop) = if bids_only {
                (Kind::Bid, 0, size)
            } else if offset < self.persons {
                (Kind::Person, 0, self.persons)
            } else if offset < self.persons + self.auctions {
                (Kind::Auction, self.persons, self.persons + self.auctions)
            } else {
                (Kind::Bid, self.persons + self.auctions, size)
            };
            let count = (stop - offset).min(end - at);
            runs.push(Run {
                kind,
                first: at,
                count: count as usize,
                group: group as i64,
                place: (offset - start) as i64,
            });
            at += count;
        }
    }

    /// Milliseconds since the epoch.
    pub fn time(&self, event: u64) -> i64 {
        self.base_time + (event.saturating_mul(1000) / self.rate) as i64
    }

    /// Longest that an auction is open, in milliseconds: twice the time in which as many auctions begin as are in flight.
    fn auction_horizon(&self, event: u64) -> u32 {
        let ahead = IN_FLIGHT_AUCTIONS as u64 * self.group_size() / self.auctions;
        let horizon = self.time(event.saturating_add(ahead)) - self.time(event);
        u32::try_from((horizon * 2).max(1)).unwrap_or(u32::MAX)
    }
}

/// The random streams, one a column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub bid_auction: Stream,
    pub bid_bidder: Stream,
    pub bid_price: Stream,
    pub bid_channel: Stream,
    pub bid_extra: Stream,
    pub auction_seller: Stream,
    pub auction_category: Stream,
    pub auction_initial_bid: Stream,
    pub auction_reserve: Stream,
    pub auction_expires: Stream,
    pub auction_name: Stream,
    pub auction_description: Stream,
    pub auction_extra: Stream,
    pub person_name: Stream,
    pub person_email: Stream,
    pub person_card: Stream,
    pub person_city: Stream,
    pub person_state: Stream,
    pub person_extra: Stream,
}

impl Streams {
    pub fn new(seed: u64) -> Self {
        let stream = |tag| Stream::new(seed, tag);
        Streams {
            bid_auction: stream(1),
            bid_bidder: stream(2),
            bid_price: stream(3),
            bid_channel: stream(4),
            bid_extra: stream(5),
            auction_seller: stream(6),
            auction_category: stream(7),
            auction_initial_bid: stream(8),
            auction_reserve: stream(9),
            auction_expires: stream(10),
            auction_name: stream(11),
            auction_description: stream(12),
            auction_extra: stream(13),
            person_name: stream(14),
            person_email: stream(15),
            person_card: stream(16),
            person_city: stream(17),
            person_state: stream(18),
            person_extra: stream(19),
        }
    }
}

/// One of `ratio` words chooses from a range of ids, the others the hot id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    ratio: u32,
    hot: i64,
    first: i64,
    range: u32,
}

impl Choice {
    #[inline]
    pub fn pick(&self, word: u64) -> i64 {
        let any = self.first + i64::from(high(word, self.range));
        if low(word, self.ratio) > 0 { self.hot } else { any }
    }
}

impl Parameters {
    /// The newest auction (counted from 0) when a bid of this group is made.
    fn last_auction(&self, group: i64) -> i64 {
        group * self.auctions as i64 + self.auctions as i64 - 1
    }

    /// The newest person (counted from 0) when an auction or bid of this group is made.
    fn last_person(&self, group: i64) -> i64 {
        group * self.persons as i64 + self.persons as i64 - 1
    }

    fn any_person(&self, group: i64) -> (i64, u32) {
        let persons = self.last_person(group) + 1;
        let active = persons.min(ACTIVE_PERSONS);
        (persons - active, (active + ID_LEAD) as u32)
    }

    pub fn bid_auctions(&self, group: i64) -> Choice {
        let last = self.last_auction(group);
        let first = (last - IN_FLIGHT_AUCTIONS).max(0);
        Choice {
            ratio: self.hot_auction_ratio,
            hot: last / HOT_GROUP * HOT_GROUP + FIRST_AUCTION_ID,
            first: first + FIRST_AUCTION_ID,
            range: (last - first + 1 + ID_LEAD) as u32,
        }
    }

    /// The first person id is added twice, as in the original: bids refer to persons that come a thousand later.
    pub fn bid_bidders(&self, group: i64) -> Choice {
        let (first, range) = self.any_person(group);
        Choice {
            ratio: self.hot_bidder_ratio,
            hot: self.last_person(group) / HOT_GROUP * HOT_GROUP + 1 + 2 * FIRST_PERSON_ID,
            first: first + 2 * FIRST_PERSON_ID,
            range,
        }
    }

    pub fn auction_sellers(&self, group: i64) -> Choice {
        let (first, range) = self.any_person(group);
        Choice {
            ratio: self.hot_seller_ratio,
            hot: self.last_person(group) / HOT_GROUP * HOT_GROUP + FIRST_PERSON_ID,
            first: first + FIRST_PERSON_ID,
            range,
        }
    }

    pub fn person_id(&self, run: &Run) -> i64 {
        run.group * self.persons as i64 + run.place + FIRST_PERSON_ID
    }

    pub fn auction_id(&self, run: &Run) -> i64 {
        run.group * self.auctions as i64 + run.place + FIRST_AUCTION_ID
    }

    pub fn expires(&self, event: u64, word: u64) -> i64 {
        self.time(event) + 1 + i64::from(high(word, self.auction_horizon(event)))
    }
}

pub(crate) fn category(word: u64) -> i64 {
    FIRST_CATEGORY_ID + i64::from(low(word, CATEGORIES))
}

/// Index of the channel: the hot ones first.
#[inline]
pub(crate) fn channel(word: u64) -> usize {
    let hot = low(word, 2 * HOT_CHANNELS);
    if hot < HOT_CHANNELS { hot as usize } else { (HOT_CHANNELS + high(word, COLD_CHANNELS)) as usize }
}

/// Prices are 100 × 10^(6u) with u uniform in [0, 1). Two tables of 4096 factors replace the exponential; u has 24 bits.
pub(crate) struct Prices {
    coarse: Vec<f64>,
    fine: Vec<f64>,
}

impl Prices {
    pub fn new() -> Self {
        // Only multiplications: the same on every machine.
        const FINE: f64 = 1.000_000_823_468_938_2; // 10^(6 / 2^24)
        let mut fine = vec![1.0];
        for index in 1..4096 {
            fine.push(fine[index - 1] * FINE);
        }
        let step = fine[4095] * FINE;
        let mut coarse = vec![100.0];
        for index in 1..4096 {
            coarse.push(coarse[index - 1] * step);
        }
        Prices { coarse, fine }
    }

    #[inline]
    pub fn price(&self, word: u64) -> i64 {
        (self.coarse[(word >> 52) as usize] * self.fine[(word >> 40) as usize & 4095] + 0.5) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_follow_the_exponential() {
        let prices = Prices::new();
        for step in 0..1000u64 {
            let word = step * (u64::MAX / 1000);
            let u = (word >> 40) as f64 / f64::from(1 << 24);
            let exact = 100.0 * 10f64.powf(6.0 * u);
            let price = prices.price(word) as f64;
            assert!((price - exact).abs() <= 0.5 + exact * 1e-6, "u {u}: {price}, expected {exact}");
        }
        assert_eq!(prices.price(0), 100);
    }
}
