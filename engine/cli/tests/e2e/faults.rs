//! Processes that die, or whose storage fails, at named steps of a checkpoint: the steps that random kills seldom hit.

use crate::expected;
use crate::harness::{Job, Launch, Place, checkpoints, files_below, http_get, inspection};
use crate::nexmark::await_checkpoint;
use std::collections::BTreeSet;
use std::path::PathBuf;

const EVENTS: u64 = 60_000;
const RATE: u64 = 20_000;

fn job() -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint("interval: 100ms, tolerableFailures: 1000000, timeout: 2s")
        .restarting()
}

/// The step fails or kills its process as `rule` says, in every process anew; the results are the same.
fn with_fault(rule: &str) {
    let place = Place::new();
    let mut engine = place.job(&job()).environment("STREAMJOB_FAULTS", rule).start();
    let status = engine.await_end();
    assert!(status.success(), "{status}\n{}", engine.log_end());
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
    let (point, action) = rule.split_once('=').expect("a rule");
    let happened = match action.split_once('@') {
        Some(("crash", _)) => engine.log().contains("starting it again"),
        // Leaves no trace of its own; that the twentieth passage comes is shown by the crash there.
        Some(("fail", "20")) if point == "journal.before" => true,
        _ => engine.process_logs().contains(&format!("fault point {point}")),
    };
    assert!(happened, "the fault {rule} did not happen\n{}", engine.log_end());
}

#[test]
fn r71_coordinator_dies_before_an_entry_of_the_journal() {
    with_fault("journal.before=crash@20");
}

#[test]
fn r71_coordinator_dies_after_an_entry_of_the_journal() {
    with_fault("journal.after=crash@20");
}

#[test]
fn r71_coordinator_dies_before_the_manifest() {
    with_fault("manifest.before=crash@10");
}

#[test]
fn r71_nothing_is_left_of_a_file_whose_writer_died_before_it_had_its_name() {
    let place = Place::new();
    let state = place.path("state");
    let unfinished = || {
        let named = |file: &PathBuf| file.to_string_lossy().contains(".unfinished-");
        files_below(&state).into_iter().filter(named).collect::<Vec<PathBuf>>()
    };
    let waits = format!("name.before=wait:{}@20", place.path("never").display());
    let mut engine = place.job(&job()).environment("STREAMJOB_FAULTS", &waits).start();
    engine.eventually("a file without a name", || engine.process_logs().contains("waits for a file").then_some(()));
    engine.kill_all();
    assert_eq!(unfinished().len(), 1, "{:?}", unfinished());
    place.job(&job()).succeed();
    assert_eq!(unfinished(), Vec::<PathBuf>::new());
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

#[test]
fn an_entry_of_the_journal_whose_fate_is_unknown_is_read_again() {
    with_fault("journal.before=fail@20");
}

#[test]
fn a_manifest_that_cannot_be_written_costs_one_checkpoint() {
    with_fault("manifest.before=fail@4");
}

#[test]
fn a_worker_dies_between_the_barrier_and_the_cut() {
    with_fault("cut.before=crash@20");
}

#[test]
fn a_task_fails_between_the_barrier_and_the_cut() {
    with_fault("cut.before=fail@20");
}

#[test]
fn a_worker_dies_in_the_middle_of_an_upload() {
    with_fault("upload.before=crash@12");
}

#[test]
fn a_state_file_that_cannot_be_written_costs_one_checkpoint() {
    with_fault("upload.before=fail@12");
}

#[test]
fn a_worker_dies_before_its_acknowledgement() {
    with_fault("ack.before=crash@20");
}

#[test]
fn r11_a_checkpoint_with_one_acknowledgement_missing_is_never_complete() {
    let place = Place::new();
    let state = place.path("state");
    // Every worker drops its twelfth acknowledgement; the checkpoint it belongs to expires.
    let job = job()
        .checkpoint("interval: 100ms, retained: 1000, tolerableFailures: 1000000, timeout: 500ms")
        .env("EVENTS", 0);
    let mut engine = place.job(&job).environment("STREAMJOB_FAULTS", "ack.before=fail@12").start();
    engine.eventually("an expired checkpoint", || engine.log().contains("expired before completing").then_some(()));
    let newest = crate::harness::latest_checkpoint(&state);
    await_checkpoint(&mut engine, &state, newest + 1);
    let complete = crate::harness::checkpoints(&state);
    let highest = *complete.last().expect("a checkpoint");
    assert!((complete.len() as u64) < highest, "an id is missing among {complete:?}: the one that expired");
    engine.kill_all();
}

#[test]
fn r05_r32_state_is_written_slowly_while_processing_goes_on_and_holds_nothing_of_what_came_later() {
    let place = Place::new();
    // Every file takes a third of a second to write: three seconds of events would take many more if tasks waited.
    let start = std::time::Instant::now();
    let job = job().checkpoint("interval: 100ms, timeout: 1min, maxConcurrent: 3");
    let slow = |launch: Launch| launch.environment("STREAMJOB_FAULTS", "upload.before=delay:300");
    let mut engine = slow(place.job(&job)).start();
    await_checkpoint(&mut engine, &place.path("state"), 3);
    engine.kill_all();
    // A snapshot with later rows in it would count them twice from here on.
    slow(place.job(&job)).succeed();
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < 30.0, "{seconds} s for three seconds of events");
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

#[test]
fn r08_r10_barriers_are_sent_on_before_the_snapshot_is_cut() {
    let place = Place::new();
    // Three vertices in a row, each of which takes a second to cut its state. One after the other they would take three.
    let sql = "CREATE TABLE numbers (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000',\n\
               'fields.k.min' = '0', 'fields.k.max' = '99');\n\
               CREATE TABLE nothing (n BIGINT, ks BIGINT) WITH ('connector' = 'blackhole');\n\
               INSERT INTO nothing\n\
               SELECT n, COUNT(*) AS ks FROM (SELECT k, COUNT(*) AS n FROM numbers GROUP BY k) GROUP BY n;";
    let job = Job::sql("three-vertices", sql).parallelism(2).checkpoint("interval: 3s").restarting();
    let mut engine = place.job(&job).environment("STREAMJOB_FAULTS", "cut.before=delay:1000").start();
    await_checkpoint(&mut engine, &place.path("state"), 1);
    engine.eventually("the second checkpoint in the journal", || {
        engine.process_logs().contains("\"checkpoint completed\",\"checkpoint\":2").then_some(())
    });
    engine.kill_all();
    let inspection = inspection(place.root());
    let newest = inspection["checkpoints"].as_array().and_then(|all| all.last()).expect("a checkpoint");
    assert!(newest["operators"].as_array().is_some_and(|operators| operators.len() >= 3), "{newest}");
    let duration = newest["duration_ms"].as_u64().expect("a duration");
    assert!((1000..2000).contains(&duration), "{duration} ms");
    let manifest = format!("chk-{}/_metadata", newest["id"]);
    let file =
        files_below(&place.path("state")).into_iter().find(|file| file.ends_with(&manifest)).expect("a manifest");
    let text = std::fs::read_to_string(file).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(text.split_once('\n').expect("two lines").1).expect("JSON");
    for task in manifest["stats"].as_array().expect("statistics of tasks") {
        let (arrived, cut) = (task["stats"]["start_delay_ms"].as_u64(), task["stats"]["sync_ms"].as_u64());
        assert!(cut >= Some(1000), "{task}");
        assert!(arrived < cut, "no barrier waited for the cut of a task before: {task}");
    }
}

/// How many more rows than with a baseline that stands still is measured by `bench/run.py --cases pause`.
#[test]
fn r04_rows_are_processed_as_long_as_state_takes_to_write() {
    let place = Place::new();
    let state = place.path("state");
    let (go, sql) = (
        place.path("go"),
        "CREATE TABLE numbers (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000000000',\n\
         'fields.k.min' = '0', 'fields.k.max' = '999');\n\
         CREATE TABLE nothing (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');\n\
         INSERT INTO nothing SELECT k, COUNT(*) AS n FROM numbers GROUP BY k;",
    );
    let job = Job::sql("beside", sql).checkpoint("interval: 250ms, timeout: 1h").restarting();
    let fault = format!("upload.before=wait:{}", go.display());
    let mut engine = place.job(&job).environment("STREAMJOB_FAULTS", &fault).start();
    engine.eventually("a snapshot about to be written", || {
        engine.process_logs().contains("waits for a file").then_some(())
    });
    let rows = || {
        let status: serde_json::Value = serde_json::from_str(&http_get(&engine.rest(), "/v1/status")?).ok()?;
        status["operators"][0]["records_out"].as_u64()
    };
    let before = engine.eventually("rows", || rows().filter(|rows| *rows > 0));
    // More than could be on its way when the state was cut.
    engine.eventually("many more rows", || rows().filter(|rows| *rows > before + 2_000_000));
    assert_eq!(checkpoints(&state), BTreeSet::new(), "the state is not written");
    std::fs::write(&go, "").expect("a file");
    await_checkpoint(&mut engine, &state, 0);
    engine.kill_all();
}
