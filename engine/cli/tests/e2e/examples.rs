//! The small examples, as they are and with kills.

use crate::expected;
use crate::harness::{Engine, Job, Launch, Place, inspection, visible_rows};
use crate::nexmark::await_checkpoint;
use std::fs;
use std::time::Duration;

const EVEN_ODD: &str = ".streamjob/output/even-odd";

#[test]
fn r17_even_odd_adds_up_to_eight_and_eight() {
    let place = Place::new();
    place.job(&Job::example("even-odd").env("RATE", 100)).succeed();
    expected::even_odd(&place.path(EVEN_ODD));
}

#[test]
fn r09_even_odd_adds_up_to_eight_and_eight_when_processes_die() {
    // One number a second from each source and subtask: some are not read yet when the first checkpoint is there.
    let job = Job::example("even-odd").env("RATE", 1).checkpoint("interval: 100ms").restarting();
    let kills: [fn(&mut Engine); 3] = [
        |engine| engine.kill(engine.workers(2)[0]),
        |engine| engine.kill(engine.coordinator()),
        |engine| engine.kill_all(),
    ];
    for kill in kills {
        let place = Place::new();
        let mut engine = place.job(&job).start();
        await_checkpoint(&mut engine, &place.path("state"), 0);
        kill(&mut engine);
        if !engine.await_end().success() {
            place.job(&job).succeed();
        }
        expected::even_odd(&place.path(EVEN_ODD));
    }
}

#[test]
fn r66_click_counter_counts_every_visit() {
    let place = Place::new();
    place.job(&Job::example("click-counter").env("CLICKS", 20_000).env("RATE", 1_000_000)).succeed();
    expected::clicks(&place.path(".streamjob/output/clicks"), &place.path(".streamjob/output/visits"));
}

#[test]
fn r35_click_counter_is_exact_after_ten_kills() {
    let place = Place::new();
    let state = place.path("state");
    let job = Job::example("click-counter")
        .env("CLICKS", 60_000)
        .env("RATE", 6_000)
        .parallelism(2)
        .checkpoint("interval: 100ms")
        .restarting();
    let mut engine = place.job(&job).start();
    let mut newest = 0;
    for kill in 0..10 {
        newest = await_checkpoint(&mut engine, &state, newest);
        match kill % 3 {
            0 => engine.kill(engine.coordinator()),
            _ => engine.kill(engine.workers(1)[0]),
        }
    }
    engine.succeed();
    expected::clicks(&place.path(".streamjob/output/clicks"), &place.path(".streamjob/output/visits"));
}

#[test]
fn r09_r13_the_checkpoint_holds_even_eight_and_odd_eight() {
    let place = Place::new();
    let state = place.path("state");
    // The sources count on, but the job adds up the same seven numbers: it is there to look at when they are all in.
    let job = Job::example("even-odd")
        .env("RATE", 20)
        .replace("'fields.n.end' = '3'", "'fields.n.end' = '1000000'")
        .replace("'fields.n.end' = '4'", "'fields.n.end' = '1000000'")
        .replace("SELECT n FROM blue", "SELECT n FROM blue WHERE n <= 3")
        .replace("SELECT n FROM yellow", "SELECT n FROM yellow WHERE n <= 4")
        .checkpoint("interval: 100ms, retained: 3")
        .restarting();
    let mut engine = place.job(&job).start();
    let first = await_checkpoint(&mut engine, &state, 0);
    engine.kill(engine.workers(1)[0]);
    await_checkpoint(&mut engine, &state, first + 15);
    engine.kill_all();
    let inspection = inspection(place.root());
    let newest = inspection["checkpoints"].as_array().and_then(|all| all.last()).expect("a checkpoint");
    assert_eq!(newest["whole"], true, "{newest}");
    assert!(newest["bytes_total"].as_u64().is_some_and(|bytes| bytes > 0), "{newest}");
    let with_table: Vec<&str> = newest["operators"]
        .as_array()
        .expect("operators")
        .iter()
        .filter(|operator| operator["tables"].as_array().is_some_and(|tables| !tables.is_empty()))
        .filter_map(|operator| operator["uid"].as_str())
        .collect();
    let mut sums = Vec::new();
    for uid in with_table {
        let rows = Launch::verb(place.root(), &["inspect", "state", "--state", uid]).succeed();
        sums.extend(rows.lines().filter(|line| line.contains("even") || line.contains("odd")).map(str::to_owned));
    }
    assert_eq!(sums.len(), 2, "{sums:?}");
    for parity in ["even", "odd"] {
        let row = sums.iter().find(|row| row.contains(parity)).expect("both parities");
        let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
        let holds_eight = row["row"].as_object().is_some_and(|row| row.values().any(|value| *value == 8));
        assert!(holds_eight, "{parity}: {row}");
    }
}

#[test]
fn r59_clicks_that_cannot_be_replayed_are_promised_at_most_once() {
    let promise = |job: Job| {
        let place = Place::new();
        place.job(&job.env("CLICKS", 1_000).env("RATE", 1_000_000)).succeed()
    };
    let job = Job::example("click-counter");
    assert!(promise(job.clone()).contains("exactly-once"));
    let log = promise(job.replace("'connector' = 'datagen',", "'connector' = 'datagen',\n        'replay' = 'false',"));
    assert!(log.contains("at-most-once") && !log.contains("exactly-once"), "{log}");
}

#[test]
fn r67_with_increasing_timestamps_a_window_closes_one_millisecond_after_its_last() {
    let place = Place::new();
    let job = Job::sql(
        "increasing",
        "CREATE TABLE clicks (`user` STRING, url STRING, ts TIMESTAMP(3),\n\
           WATERMARK FOR ts AS ts - INTERVAL '0.001' SECOND)\n\
         WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json', 'source.monitor-interval' = '100ms');\n\
         CREATE TABLE visits (window_end TIMESTAMP(3), visits BIGINT)\n\
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n\
         INSERT INTO visits SELECT window_end, COUNT(*) AS visits\n\
         FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end;",
    )
    .checkpoint("interval: 100ms");
    let click = |file: &str, second: &str| {
        let row = format!("{{\"user\": \"Mary\", \"url\": \"./home\", \"ts\": \"2024-01-01 00:00:{second}\"}}\n");
        let hidden = place.path(&format!("in/.{file}"));
        fs::write(&hidden, row).unwrap();
        fs::rename(hidden, place.path(&format!("in/{file}"))).unwrap();
    };
    fs::create_dir(place.path("in")).unwrap();
    click("1", "00.000");
    click("2", "00.999");
    let mut engine = place.job(&job).start();
    let both_read = |engine: &Engine| engine.log().contains("read 2 rows");
    engine.eventually("both clicks to be read", || both_read(&engine).then_some(()));
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(visible_rows(&place.path("out")), Vec::<String>::new(), "the window is not over yet");
    click("3", "01.000");
    let rows = engine
        .eventually("the window's row", || Some(visible_rows(&place.path("out"))).filter(|rows| !rows.is_empty()));
    assert_eq!(rows, ["{\"window_end\":\"2024-01-01 00:00:01\",\"visits\":2}"]);
    engine.kill_all();
}
