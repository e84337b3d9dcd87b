//! The benchmark's queries with their published text.

use super::harness::{Bid, Memory, bids};
use crate::script::{StatementKind, parse};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;
use streamjob_dataflow::graph::Exchange;

pub const TABLES: &str = "
CREATE TABLE datagen (
    event_type int,
    person ROW<
        id  BIGINT,
        name  VARCHAR,
        emailAddress  VARCHAR,
        creditCard  VARCHAR,
        city  VARCHAR,
        state  VARCHAR,
        `dateTime` TIMESTAMP(3),
        extra  VARCHAR>,
    auction ROW<
        id  BIGINT,
        itemName  VARCHAR,
        description  VARCHAR,
        initialBid  BIGINT,
        reserve  BIGINT,
        `dateTime`  TIMESTAMP(3),
        expires  TIMESTAMP(3),
        seller  BIGINT,
        category  BIGINT,
        extra  VARCHAR>,
    bid ROW<
        auction  BIGINT,
        bidder  BIGINT,
        price  BIGINT,
        channel  VARCHAR,
        url  VARCHAR,
        `dateTime`  TIMESTAMP(3),
        extra  VARCHAR>,
    `dateTime` AS
        CASE
            WHEN event_type = 0 THEN person.`dateTime`
            WHEN event_type = 1 THEN auction.`dateTime`
            ELSE bid.`dateTime`
        END,
    WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH (
    'connector' = 'nexmark',
    'first-event.rate' = '10000',
    'next-event.rate' = '10000',
    'events.num' = '100',
    'person.proportion' = '1',
    'auction.proportion' = '3',
    'bid.proportion' = '46'
);
CREATE VIEW person AS
SELECT person.id, person.name, person.emailAddress, person.creditCard, person.city, person.state, `dateTime`, person.extra
FROM datagen WHERE event_type = 0;
CREATE VIEW auction AS
SELECT auction.id, auction.itemName, auction.description, auction.initialBid, auction.reserve, `dateTime`, auction.expires,
    auction.seller, auction.category, auction.extra
FROM datagen WHERE event_type = 1;
CREATE VIEW bid AS
SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, `dateTime`, bid.extra
FROM datagen WHERE event_type = 2;
";

pub const Q0: &str = "
CREATE TABLE nexmark_q0 (
  auction  BIGINT,
  bidder  BIGINT,
  price  BIGINT,
  `dateTime`  TIMESTAMP(3),
  extra  VARCHAR
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO nexmark_q0
SELECT auction, bidder, price, `dateTime`, extra FROM bid;";

pub const Q1: &str = "
CREATE TABLE nexmark_q1 (
  auction  BIGINT,
  bidder  BIGINT,
  price  DECIMAL(23, 3),
  `dateTime`  TIMESTAMP(3),
  extra  VARCHAR
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO nexmark_q1
SELECT
    auction,
    bidder,
    0.908 * price as price, -- convert dollar to euro
    `dateTime`,
    extra
FROM bid;";

pub const Q2: &str = "
CREATE TABLE nexmark_q2 (
  auction  BIGINT,
  price  BIGINT
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO nexmark_q2
SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0;";

pub const Q14: &str = "
CREATE FUNCTION count_char AS 'com.github.nexmark.flink.udf.CountChar';

CREATE TABLE nexmark_q14 (
    auction BIGINT,
    bidder BIGINT,
    price  DECIMAL(23, 3),
    bidTimeType VARCHAR,
    `dateTime` TIMESTAMP(3),
    extra VARCHAR,
    c_counts BIGINT
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO nexmark_q14
SELECT
    auction,
    bidder,
    0.908 * price as price,
    CASE
        WHEN HOUR(`dateTime`) >= 8 AND HOUR(`dateTime`) <= 18 THEN 'dayTime'
        WHEN HOUR(`dateTime`) <= 6 OR HOUR(`dateTime`) >= 20 THEN 'nightTime'
        ELSE 'otherTime'
    END AS bidTimeType,
    `dateTime`,
    extra,
    count_char(extra, 'c') AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;";

pub const Q21: &str = "
CREATE TABLE nexmark_q21 (
    auction  BIGINT,
    bidder  BIGINT,
    price  BIGINT,
    channel  VARCHAR,
    channel_id  VARCHAR
) WITH (
    'connector' = 'blackhole'
);

INSERT INTO nexmark_q21
SELECT
    auction, bidder, price, channel,
    CASE
        WHEN lower(channel) = 'apple' THEN '0'
        WHEN lower(channel) = 'google' THEN '1'
        WHEN lower(channel) = 'facebook' THEN '2'
        WHEN lower(channel) = 'baidu' THEN '3'
        ELSE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)
        END
    AS channel_id FROM bid
    where REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) is not null or
          lower(channel) in ('apple', 'google', 'facebook', 'baidu');";

pub const Q22: &str = "
CREATE TABLE nexmark_q22 (
    auction  BIGINT,
    bidder  BIGINT,
    price  BIGINT,
    channel  VARCHAR,
    dir1  VARCHAR,
    dir2  VARCHAR,
    dir3  VARCHAR
) WITH (
    'connector' = 'blackhole'
);

INSERT INTO nexmark_q22
SELECT
    auction, bidder, price, channel,
    SPLIT_INDEX(url, '/', 3) as dir1,
    SPLIT_INDEX(url, '/', 4) as dir2,
    SPLIT_INDEX(url, '/', 5) as dir3 FROM bid;";

pub const Q17: &str = "
CREATE TABLE nexmark_q17 (
  auction BIGINT,
  `day` VARCHAR,
  total_bids BIGINT,
  rank1_bids BIGINT,
  rank2_bids BIGINT,
  rank3_bids BIGINT,
  min_price BIGINT,
  max_price BIGINT,
  avg_price BIGINT,
  sum_price BIGINT
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO nexmark_q17
SELECT
     auction,
     DATE_FORMAT(`dateTime`, 'yyyy-MM-dd') as `day`,
     count(*) AS total_bids,
     count(*) filter (where price < 10000) AS rank1_bids,
     count(*) filter (where price >= 10000 and price < 1000000) AS rank2_bids,
     count(*) filter (where price >= 1000000) AS rank3_bids,
     min(price) AS min_price,
     max(price) AS max_price,
     avg(price) AS avg_price,
     sum(price) AS sum_price
FROM bid
GROUP BY auction, DATE_FORMAT(`dateTime`, 'yyyy-MM-dd');";

/// The window maximum inside query 7.
pub const Q7_WINDOWS: &str = "
CREATE TABLE highest (
  maxprice  BIGINT,
  `dateTime`  TIMESTAMP(3)
) WITH (
  'connector' = 'blackhole'
);

INSERT INTO highest
  SELECT MAX(price) AS maxprice, window_end as `dateTime`
  FROM TABLE(
          TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end;";

const HOUR: i64 = 3_600_000;

pub const BIDS: [Bid; 5] = [
    Bid {
        auction: 1000,
        bidder: 1,
        price: 100,
        channel: "apple",
        url: "https://x/a/b/c/i.htm?query=1",
        time: 9 * HOUR,
        extra: "cc",
    },
    Bid {
        auction: 123,
        bidder: 2,
        price: 2_000_000,
        channel: "Google",
        url: "https://x/d/e/i.htm",
        time: 7 * HOUR,
        extra: "abc",
    },
    Bid {
        auction: 246,
        bidder: 3,
        price: 3_000_000,
        channel: "ch-7",
        url: "https://x/f?q=1&channel_id=42",
        time: 23 * HOUR,
        extra: "",
    },
    Bid {
        auction: 7,
        bidder: 4,
        price: 90_000_000,
        channel: "ch-8",
        url: "https://x/g/h",
        time: 10 * HOUR,
        extra: "c",
    },
    Bid {
        auction: 1000,
        bidder: 5,
        price: 1_101_322,
        channel: "ch-9",
        url: "channel_id=5",
        time: 9 * HOUR + 1,
        extra: "xyz",
    },
];

/// Physical columns of the first table of a script.
pub fn physical_schema(sql: &str) -> SchemaRef {
    let statements = parse(sql).unwrap();
    let Some(StatementKind::CreateTable(table)) = statements.into_iter().next().map(|statement| statement.kind) else {
        panic!("no table")
    };
    let fields = table.columns.iter().filter_map(|column| match &column.kind {
        crate::ddl::ColumnKind::Physical { data_type, nullable } => {
            Some(Field::new(column.name.value.as_str(), data_type.clone(), *nullable))
        }
        crate::ddl::ColumnKind::Computed(_) => None,
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Runs a query over two batches of bids.
pub fn run(query: &str, sink: &str) -> (Memory, Vec<String>) {
    let memory = Memory::default();
    let schema = physical_schema(TABLES);
    memory.give("datagen", bids(&BIDS[..3], &schema));
    memory.give("datagen", bids(&BIDS[3..], &schema));
    let rows = memory.run(&format!("{TABLES}{query}"), sink);
    (memory, rows)
}

#[test]
fn q0_passes_bids_on_and_reads_only_their_columns() {
    let (memory, rows) = run(Q0, "nexmark_q0");
    assert_eq!(
        rows,
        [
            "+I 1000|1|100|1970-01-01T09:00:00|cc",
            "+I 123|2|2000000|1970-01-01T07:00:00|abc",
            "+I 246|3|3000000|1970-01-01T23:00:00|",
            "+I 7|4|90000000|1970-01-01T10:00:00|c",
            "+I 1000|5|1101322|1970-01-01T09:00:00.001|xyz",
        ]
    );
    assert_eq!(
        memory.required_of("datagen"),
        [
            "auction.dateTime",
            "bid.auction",
            "bid.bidder",
            "bid.dateTime",
            "bid.extra",
            "bid.price",
            "event_type",
            "person.dateTime"
        ]
    );
}

#[test]
fn q1_multiplies_to_the_published_decimal_type() {
    let (_, rows) = run(Q1, "nexmark_q1");
    assert_eq!(rows[0], "+I 1000|1|90.800|1970-01-01T09:00:00|cc");
    assert_eq!(rows[4], "+I 1000|5|1000000.376|1970-01-01T09:00:00.001|xyz");
}

#[test]
fn q2_filters_by_remainder() {
    let (memory, rows) = run(Q2, "nexmark_q2");
    assert_eq!(rows, ["+I 123|2000000", "+I 246|3000000"]);
    assert!(!memory.required_of("datagen").contains(&"bid.extra".to_string()));
}

#[test]
fn q14_classifies_times_and_counts_characters() {
    let (_, rows) = run(Q14, "nexmark_q14");
    assert_eq!(
        rows,
        [
            "+I 123|2|1816000.000|otherTime|1970-01-01T07:00:00|abc|1",
            "+I 246|3|2724000.000|nightTime|1970-01-01T23:00:00||0",
            "+I 1000|5|1000000.376|dayTime|1970-01-01T09:00:00.001|xyz|0",
        ]
    );
}

#[test]
fn q21_takes_the_channel_id_by_name_or_from_the_url() {
    let (_, rows) = run(Q21, "nexmark_q21");
    assert_eq!(
        rows,
        ["+I 1000|1|100|apple|0", "+I 123|2|2000000|Google|1", "+I 246|3|3000000|ch-7|42", "+I 1000|5|1101322|ch-9|5",]
    );
}

#[test]
fn q22_splits_urls() {
    let (_, rows) = run(Q22, "nexmark_q22");
    assert_eq!(
        rows,
        [
            "+I 1000|1|100|apple|a|b|c",
            "+I 123|2|2000000|Google|d|e|i.htm",
            "+I 246|3|3000000|ch-7|f?q=1&channel_id=42|-|-",
            "+I 7|4|90000000|ch-8|g|h|-",
            "+I 1000|5|1101322|ch-9|-|-|-",
        ]
    );
}

#[test]
fn the_graph_is_one_chain_with_stable_uids() {
    let memory = Memory::default();
    let graph = crate::plan(&format!("{TABLES}{Q0}"), 2, &memory.connectors()).unwrap();
    let uids: Vec<&str> = graph.nodes.iter().map(|node| node.uid.as_str()).collect();
    assert_eq!(uids, ["source:datagen", "watermark:datagen", "nexmark_q0/calc-1", "sink:nexmark_q0"]);
    let execution = graph.into_execution(128).unwrap();
    assert_eq!(execution.vertices.len(), 1);
    assert_eq!(execution.plan.vertices[0].parallelism, 2);
}

#[test]
fn q17_keeps_statistics_of_every_auction_and_day() {
    let (memory, rows) = run(Q17, "nexmark_q17");
    assert_eq!(
        rows,
        [
            "+I 1000|1970-01-01|1|1|0|0|100|100|100|100",
            "+I 123|1970-01-01|1|0|0|1|2000000|2000000|2000000|2000000",
            "+I 246|1970-01-01|1|0|0|1|3000000|3000000|3000000|3000000",
            "+I 7|1970-01-01|1|0|0|1|90000000|90000000|90000000|90000000",
            "-U 1000|1970-01-01|1|1|0|0|100|100|100|100",
            "+U 1000|1970-01-01|2|1|0|1|100|1101322|550711|1101422",
        ]
    );
    let graph = crate::plan(&format!("{TABLES}{Q17}"), 2, &memory.connectors()).unwrap();
    let uids: Vec<&str> = graph.nodes.iter().map(|node| node.uid.as_str()).collect();
    assert_eq!(
        uids,
        [
            "source:datagen",
            "watermark:datagen",
            "nexmark_q17/calc-1",
            "nexmark_q17/local-aggregate-1",
            "nexmark_q17/datagen/group-by-bid_auction,date_format_dateTime_yyy_f24b5045",
            // Gives the columns the sink's names.
            "nexmark_q17/calc-2",
            "sink:nexmark_q17"
        ]
    );
    let exchanges: Vec<Exchange> = graph.edges.iter().map(|edge| edge.exchange.clone()).collect();
    let forward = Exchange::Forward;
    assert_eq!(
        exchanges,
        [forward.clone(), forward.clone(), forward.clone(), Exchange::Hash(vec![0, 1]), forward.clone(), forward]
    );
}

#[test]
fn q7_finds_the_highest_price_of_every_window() {
    let (memory, rows) = run(Q7_WINDOWS, "highest");
    assert_eq!(
        rows,
        [
            // The first batch brings the watermark to 23 o'clock: the bids of the second one come too late.
            "+I 2000000|1970-01-01T07:00:10",
            "+I 100|1970-01-01T09:00:10",
            "+I 3000000|1970-01-01T23:00:10",
        ]
    );
    let graph = crate::plan(&format!("{TABLES}{Q7_WINDOWS}"), 2, &memory.connectors()).unwrap();
    let aggregate = graph.nodes.iter().find(|node| node.uid == "highest/datagen/tumble-10000ms-all").unwrap();
    assert_eq!(aggregate.parallelism, 1, "there is one group of all rows");
    assert!(graph.nodes.iter().any(|node| node.uid == "highest/local-aggregate-1" && node.parallelism == 2));
}
