use super::*;
use crate::testing::{concat, context, open_source, read, schema, table, union_restore};
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use std::collections::BTreeSet;
use streamjob_dataflow::{OperatorRestore, SourceEvent};

const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn row(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(Fields::from(
        fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
    ))
}

fn bid_fields() -> Vec<(&'static str, DataType)> {
    vec![
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("dateTime", TIME),
        ("extra", DataType::Utf8),
    ]
}

fn published() -> SchemaRef {
    schema(vec![
        ("event_type", DataType::Int32),
        (
            "person",
            row(&[
                ("id", DataType::Int64),
                ("name", DataType::Utf8),
                ("emailAddress", DataType::Utf8),
                ("creditCard", DataType::Utf8),
                ("city", DataType::Utf8),
                ("state", DataType::Utf8),
                ("dateTime", TIME),
                ("extra", DataType::Utf8),
            ]),
        ),
        (
            "auction",
            row(&[
                ("id", DataType::Int64),
                ("itemName", DataType::Utf8),
                ("description", DataType::Utf8),
                ("initialBid", DataType::Int64),
                ("reserve", DataType::Int64),
                ("dateTime", TIME),
                ("expires", TIME),
                ("seller", DataType::Int64),
                ("category", DataType::Int64),
                ("extra", DataType::Utf8),
            ]),
        ),
        ("bid", row(&bid_fields())),
    ])
}

fn request(schema: SchemaRef, options: &[(&str, &str)], required: Option<&[&[&str]]>) -> SourceRequest {
    let required = required.map(|paths| {
        paths.iter().map(|path| path.iter().map(|part| part.to_string()).collect()).collect::<BTreeSet<Vec<String>>>()
    });
    SourceRequest { table: table(schema, options), required, parallelism: 1 }
}

fn generate(request: &SourceRequest) -> RecordBatch {
    let mut source = open_source(&NexmarkConnector, request, &context(0, 1), OperatorRestore::default()).unwrap();
    concat(&read(source.as_mut(), usize::MAX).unwrap())
}

fn long<'a>(row: &'a StructArray, name: &str) -> &'a Int64Array {
    row.column_by_name(name).unwrap().as_primitive::<Int64Type>()
}

#[test]
fn events_have_the_published_mix_and_ids() {
    let rows = generate(&request(published(), &[("events.num", "100000"), ("next-event.rate", "1000")], None));
    assert_eq!(rows.num_rows(), 100_000);
    let types = rows.column(0).as_primitive::<arrow::datatypes::Int32Type>();
    let (person, auction, bid) = (rows.column(1).as_struct(), rows.column(2).as_struct(), rows.column(3).as_struct());
    for event in 0..rows.num_rows() {
        let expected = match event % 50 {
            0 => 0,
            1..=3 => 1,
            _ => 2,
        };
        assert_eq!(types.value(event), expected);
        for (kind, row) in [person, auction, bid].into_iter().enumerate() {
            assert_eq!(row.is_valid(event), kind as i32 == expected);
            assert_eq!(row.column(0).is_valid(event), kind as i32 == expected, "children are null where the row is");
        }
    }
    // Persons and auctions are numbered without gaps from 1000.
    for (row, count) in [(person, 2_000), (auction, 6_000)] {
        let ids: Vec<i64> = long(row, "id").iter().flatten().collect();
        assert_eq!(ids, (1000..1000 + count).collect::<Vec<_>>());
    }
    let time = bid.column_by_name("dateTime").unwrap().as_primitive::<TimestampMillisecondType>();
    assert_eq!(time.value(99_999), DEFAULT_BASE_TIME + 99_999);
}

#[test]
fn hot_keys_have_their_share_and_bidders_are_a_thousand_persons_ahead() {
    let rows = generate(&request(published(), &[("events.num", "200000")], None));
    let bid = rows.column(3).as_struct();
    let (auctions, bidders) = (long(bid, "auction"), long(bid, "bidder"));
    let (mut hot_auctions, mut hot_bidders, mut bids) = (0, 0, 0);
    for event in (0..rows.num_rows()).filter(|event| event % 50 >= 4) {
        let group = event as i64 / 50;
        let (auction, bidder) = (auctions.value(event) - 1000, bidders.value(event) - 2000);
        let last_auction = group * 3 + 2;
        bids += 1;
        hot_auctions += i64::from(auction == last_auction / 100 * 100);
        hot_bidders += i64::from(bidder == group / 100 * 100 + 1);
        if auction != last_auction / 100 * 100 {
            assert!(((last_auction - 100).max(0)..=last_auction + 10).contains(&auction));
        }
        if bidder != group / 100 * 100 + 1 {
            assert!(((group + 1 - 1000).max(0)..group + 1 + 10).contains(&bidder));
        }
    }
    let share = |count: i64| count as f64 / bids as f64;
    assert!((0.49..0.53).contains(&share(hot_auctions)), "{}", share(hot_auctions));
    assert!((0.74..0.77).contains(&share(hot_bidders)), "{}", share(hot_bidders));
}

#[test]
fn mean_sizes_are_as_asked() {
    let rows = generate(&request(published(), &[("events.num", "100000")], None));
    let mean = |row: usize, names: &[&str], numbers: usize| {
        let row = rows.column(row).as_struct();
        let bytes: usize = names
            .iter()
            .map(|name| {
                row.column_by_name(name).unwrap().as_string::<i32>().iter().flatten().map(str::len).sum::<usize>()
            })
            .sum();
        bytes as f64 / (row.len() - row.null_count()) as f64 + 8.0 * numbers as f64
    };
    let person = mean(1, &["name", "emailAddress", "creditCard", "city", "state", "extra"], 1);
    let auction = mean(2, &["itemName", "description", "extra"], 6);
    let bid = mean(3, &["extra"], 4);
    assert!((195.0..205.0).contains(&person), "{person}");
    assert!((490.0..510.0).contains(&auction), "{auction}");
    assert!((98.0..102.0).contains(&bid), "{bid}");
}

#[test]
fn a_table_of_bids_has_the_bids_of_the_full_table() {
    let full = generate(&request(published(), &[("events.num", "10000")], None));
    let bids = generate(&request(schema(bid_fields()), &[("events.num", "10000")], None));
    assert_eq!(bids.num_rows(), 10_000);
    let full_bid = full.column(3).as_struct();
    for event in (0..10_000).filter(|event| event % 50 >= 4) {
        for column in 0..bids.num_columns() {
            assert_eq!(&full_bid.column(column).slice(event, 1), &bids.column(column).slice(event, 1));
        }
    }
}

#[test]
fn values_do_not_depend_on_what_else_is_required() {
    let options = [("events.num", "20000"), ("seed", "9")];
    let full = generate(&request(published(), &options, None));
    let paths: Vec<Vec<&str>> = vec![
        vec!["event_type"],
        vec!["bid", "price"],
        vec!["bid", "url"],
        vec!["auction", "extra"],
        vec!["auction", "expires"],
        vec!["person", "extra"],
        vec!["person", "emailAddress"],
    ];
    for path in &paths {
        let some = generate(&request(published(), &options, Some(&[path])));
        assert_eq!(some.num_rows(), full.num_rows());
        let index = full.schema().index_of(path[0]).unwrap();
        if let [row, leaf] = path[..] {
            let (full, some) = (full.column(index).as_struct(), some.column(index).as_struct());
            assert_eq!(full.nulls(), some.nulls(), "{row}");
            assert_eq!(full.column_by_name(leaf), some.column_by_name(leaf));
            let unread = some.columns().iter().filter(|column| column.null_count() == column.len()).count();
            assert_eq!(unread, full.num_columns() - 1);
        } else {
            assert_eq!(full.column(index), some.column(index));
        }
    }
    let nothing = generate(&request(published(), &options, Some(&[])));
    assert_eq!(nothing.num_rows(), full.num_rows());
}

#[test]
fn the_seed_decides() {
    let make = |seed| generate(&request(published(), &[("events.num", "1000"), ("seed", seed)], None));
    assert_eq!(make("1"), make("1"));
    assert_ne!(make("1"), make("2"));
}

#[test]
fn r58_a_restore_at_another_parallelism_gives_every_event_once() {
    let request = request(
        published(),
        &[("events.num", "30011")],
        Some(&[&["event_type"], &["bid"], &["person", "id"], &["auction", "id"]]),
    );
    let expected = generate(&request);
    let mut batches = vec![];
    let mut cuts = vec![];
    for subtask in 0..2 {
        let mut source =
            open_source(&NexmarkConnector, &request, &context(subtask, 2), OperatorRestore::default()).unwrap();
        batches.extend(read(source.as_mut(), 8192 * subtask as usize).unwrap());
        cuts.push(source.snapshot(1).unwrap());
        // What is read after the snapshot is lost with the failure.
        read(source.as_mut(), 3000).unwrap();
    }
    let restore = union_restore(&cuts);
    for subtask in 0..3 {
        let mut source = open_source(&NexmarkConnector, &request, &context(subtask, 3), restore.clone()).unwrap();
        batches.extend(read(source.as_mut(), usize::MAX).unwrap());
        assert!(matches!(source.poll(0).unwrap(), SourceEvent::End));
    }
    let sorted = |rows: &RecordBatch| {
        let mut lines: Vec<String> = (0..rows.num_rows()).map(|row| format!("{:?}", rows.slice(row, 1))).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sorted(&concat(&batches)) == sorted(&expected));
}

#[test]
fn paced_events_come_when_they_are_due() {
    let options = [("events.num", "1000"), ("next-event.rate", "100"), ("max-emit-speed", "false")];
    let request = request(schema(bid_fields()), &options, None);
    let mut source = open_source(&NexmarkConnector, &request, &context(0, 1), OperatorRestore::default()).unwrap();
    let mut poll = |now| match source.poll(now).unwrap() {
        SourceEvent::Batch(batch) => batch.len(),
        SourceEvent::Wait(wait) => {
            assert!(wait.as_millis() > 0 && wait.as_millis() <= 50);
            0
        }
        SourceEvent::End => usize::MAX,
    };
    assert_eq!(poll(5_000), 1);
    assert_eq!(poll(5_005), 0);
    assert_eq!(poll(5_010), 1);
    assert_eq!(poll(6_000), 99 - 1 + 1);
    assert_eq!(poll(60_000), 1000 - 101);
    assert_eq!(poll(60_001), usize::MAX);
}

#[test]
fn wrong_tables_and_options_are_refused() {
    type Case = (SchemaRef, &'static [(&'static str, &'static str)], &'static str);
    let cases: Vec<Case> = vec![
        (schema(vec![("price", DataType::Int64), ("colour", DataType::Utf8)]), &[], "'colour'"),
        (schema(vec![("price", DataType::Int32)]), &[], "BIGINT"),
        (schema(vec![("event_type", DataType::Int32), ("price", DataType::Int64)]), &[], "'price'"),
        (schema(vec![("event_type", DataType::Int64)]), &[], "INT"),
        (schema(bid_fields()), &[("next-event.rate", "0")], "next-event.rate"),
        (schema(bid_fields()), &[("first-event.rate", "5"), ("next-event.rate", "6")], "not supported"),
        (schema(bid_fields()), &[("auction.proportion", "0")], "at least 1"),
        (schema(bid_fields()), &[("bid.avg-size", "1 mb")], "bid.avg-size"),
        (schema(bid_fields()), &[("rate.shape", "ROUND")], "ROUND"),
        (schema(bid_fields()), &[("events.num", "-1")], "events.num"),
    ];
    for (schema, options, expected) in cases {
        let error = NexmarkConnector.source(&request(schema, options, None)).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn boundedness_follows_the_options() {
    let bounded = |options: &[(&str, &str)]| {
        NexmarkConnector.source(&request(schema(bid_fields()), options, None)).ok().unwrap().bounded
    };
    assert!(!bounded(&[]));
    assert!(bounded(&[("events.num", "5")]));
    assert!(bounded(&[("stop-at", "5")]));
    assert!(!bounded(&[("events.num", "5"), ("keep-alive", "true")]));
}
