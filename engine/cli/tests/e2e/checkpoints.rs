//! Checkpoints as a user sees them: when they come, what is kept, what a later run starts from.

use crate::expected;
use crate::harness::{
    Job, Place, checkpoints, complete_checkpoints, files_below, inspection, latest_checkpoint, visible_files,
};
use crate::nexmark::await_checkpoint;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const EVENTS: u64 = 120_000;
const RATE: u64 = 20_000;

fn job(checkpoint: &str) -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint(checkpoint)
        .restarting()
}

/// Never ends by itself.
fn endless(checkpoint: &str) -> Job {
    job(checkpoint).env("EVENTS", 0)
}

fn results_are_right(place: &Place) {
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

#[test]
fn r02_checkpoints_come_at_the_interval_and_none_without_one() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&endless("interval: 500ms, retained: 20")).start();
    let first = await_checkpoint(&mut engine, &state, 0);
    await_checkpoint(&mut engine, &state, first + 9);
    engine.kill_all();
    let inspection = inspection(place.root());
    let kept = inspection["checkpoints"].as_array().expect("checkpoints");
    let number = |checkpoint: &Value, field: &str| checkpoint[field].as_i64().expect("a number");
    let triggered = |checkpoint: &Value| number(checkpoint, "completed_at") - number(checkpoint, "duration_ms");
    let (start, end) = (kept.first().expect("the first"), kept.last().expect("the last"));
    let intervals = number(end, "id") - number(start, "id");
    assert!(intervals >= 9, "{inspection}");
    let late = triggered(end) - triggered(start) - intervals * 500;
    assert!(late.abs() <= 1000, "{intervals} intervals of half a second, and {late} ms");

    let place = Place::new();
    let engine = place.job(&endless("").without_checkpoints()).start();
    engine.eventually("something processed", || engine.log().contains("RUNNING").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(checkpoints(&place.path("state")), BTreeSet::new());
}

#[test]
fn r07_ids_begin_with_one_and_go_up_across_coordinators() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&endless("interval: 100ms, retained: 1000")).start();
    let mut newest = await_checkpoint(&mut engine, &state, 0);
    for _ in 0..3 {
        let before = complete_checkpoints(&inspection(place.root()));
        engine.kill(engine.coordinator());
        newest = await_checkpoint(&mut engine, &state, newest);
        let after = complete_checkpoints(&inspection(place.root()));
        assert!(after.starts_with(&before), "an id was used again or a checkpoint is gone: {before:?}, {after:?}");
        assert!(after.is_sorted(), "{after:?}");
    }
    engine.kill_all();
    let mut engine = place.job(&endless("interval: 100ms, retained: 1000")).start();
    await_checkpoint(&mut engine, &state, newest);
    assert_eq!(complete_checkpoints(&inspection(place.root())).first(), Some(&1));
    engine.kill_all();
}

#[test]
fn r27_r33_the_job_s_own_storage_is_used_in_flink_s_layout() {
    let place = Place::new();
    let state = place.path("chosen");
    let job = endless("interval: 200ms").spec("storage", "{ directory: chosen }");
    let mut engine = place.job(&job).start();
    await_checkpoint(&mut engine, &state, 2);
    engine.kill_all();
    let jobs: Vec<_> = std::fs::read_dir(&state).unwrap().flatten().collect();
    assert_eq!(jobs.len(), 1, "one directory a job: {jobs:?}");
    assert_eq!(checkpoints(&place.path("state")), BTreeSet::new(), "the data directory is the default only");
    let names: BTreeSet<String> = std::fs::read_dir(jobs[0].path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.contains("journal"), "{names:?}");
    assert!(names.contains("shared"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("chk-")), "{names:?}");
}

#[test]
fn r75_three_retained_checkpoints_are_exactly_three_and_all_of_them_are_whole() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&endless("interval: 100ms, retained: 3, incremental: true")).start();
    await_checkpoint(&mut engine, &state, 12);
    // The oldest goes after the newest has come: in between there are four.
    engine.eventually("exactly three checkpoints", || (checkpoints(&state).len() == 3).then_some(()));
    engine.interrupt();
    let status = engine.await_end();
    assert!(status.success(), "{status}\n{}", engine.log_end());
    assert_eq!(complete_checkpoints(&inspection(place.root())).len(), 3);
    let inspection = inspection(place.root());
    assert_eq!(inspection["damaged"].as_array().map(Vec::len), Some(0), "{inspection}");
    // Every state file that is left belongs to a manifest.
    let manifests: String = files_below(&state)
        .iter()
        .filter(|file| file.ends_with("_metadata"))
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for file in files_below(&state).iter().filter(|file| file.parent().is_some_and(|parent| parent.ends_with("shared")))
    {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        assert!(manifests.contains(&name), "{name} belongs to no retained checkpoint");
    }
}

#[test]
fn ctrl_c_ends_with_a_last_checkpoint_and_the_next_run_resumes_from_it() {
    let place = Place::new();
    let state = place.path("state");
    // No periodic checkpoint comes in time: what the second run starts from is the last one.
    let mut engine = place.job(&job("interval: 10min")).start();
    engine.eventually("something processed", || engine.log().contains("RUNNING").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    engine.interrupt();
    let status = engine.await_end();
    assert!(status.success(), "{status}\n{}", engine.log_end());
    assert_ne!(latest_checkpoint(&state), 0);
    place.job(&job("interval: 10min")).succeed();
    results_are_right(&place);
}

#[test]
fn fresh_starts_from_nothing() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&job("interval: 200ms")).start();
    await_checkpoint(&mut engine, &state, 3);
    engine.kill_all();
    // The output of the run that is given up is not the engine's to delete.
    std::fs::remove_dir_all(place.path(".streamjob/output")).unwrap();
    place.job(&job("interval: 200ms")).argument("--fresh").succeed();
    results_are_right(&place);
}

#[test]
fn a_finished_job_that_is_run_again_says_so_and_changes_nothing() {
    let place = Place::new();
    let job = job("interval: 200ms").env("PACED", false);
    place.job(&job).succeed();
    results_are_right(&place);
    place.job(&job).succeed();
    results_are_right(&place);
}

#[test]
fn r24_preferring_checkpoints_for_recovery_is_accepted_with_a_warning_and_changes_nothing() {
    let option = "execution.checkpointing.prefer-checkpoint-for-recovery";
    let sql = format!(
        "SET '{option}' = 'true';\n\
         CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10',\n\
         'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '10');\n\
         CREATE TABLE shown (n BIGINT) WITH ('connector' = 'print');\n\
         INSERT INTO shown SELECT n FROM numbers;"
    );
    let place = Place::new();
    let mut engine = place.job(&Job::sql("prefers", &sql).checkpoint("interval: 100ms")).start();
    let status = engine.await_end();
    assert!(status.success(), "{status}\n{}", engine.log_end());
    assert_eq!(engine.log().matches("+I[").count(), 10, "{}", engine.log());
    let logs = engine.process_logs();
    let warning = logs.lines().find(|line| line.contains(option)).unwrap_or_else(|| panic!("{logs}"));
    assert!(warning.contains("WARN") && warning.contains("has no effect"), "{warning}");
}

#[test]
fn r25_retention_decides_what_is_left_of_a_job_that_finished() {
    for (retention, kept) in [("None", false), ("DeleteOnCancellation", false), ("RetainOnCancellation", false)] {
        let place = Place::new();
        place.job(&job(&format!("interval: 100ms, retention: {retention}")).env("PACED", false)).succeed();
        assert_eq!(latest_checkpoint(&place.path("state")) != 0, kept, "{retention}");
    }
}

#[test]
fn r25_retention_decides_what_is_left_of_a_job_that_failed() {
    for (retention, kept) in [("None", false), ("DeleteOnCancellation", true), ("RetainOnCancellation", true)] {
        let place = Place::new();
        let state = place.path("state");
        let job = endless(&format!("interval: 100ms, retention: {retention}")).spec("restartStrategy", "{ none: {} }");
        let mut engine = place.job(&job).start();
        await_checkpoint(&mut engine, &state, 2);
        engine.kill(engine.workers(1)[0]);
        engine.fail(&[]);
        assert_eq!(latest_checkpoint(&state) != 0, kept, "{retention}");
    }
}

#[test]
fn r12_r71_the_newest_checkpoint_is_found_again_whoever_dies() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&job("interval: 100ms")).start();
    let mut newest = await_checkpoint(&mut engine, &state, 1);
    for _ in 0..4 {
        engine.kill(engine.coordinator());
        newest = await_checkpoint(&mut engine, &state, newest);
    }
    engine.kill_all();
    place.job(&job("interval: 100ms")).succeed();
    results_are_right(&place);
}

#[test]
fn r15_at_least_once_loses_nothing_when_processes_die() {
    let place = Place::new();
    let state = place.path("state");
    let job = Job::example("nexmark/q0")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .env("PACED", true)
        .parallelism(2)
        .checkpoint("interval: 200ms, mode: AtLeastOnce")
        .restarting();
    let mut engine = place.job(&job).start();
    let first = await_checkpoint(&mut engine, &state, 1);
    engine.kill(engine.workers(2)[0]);
    await_checkpoint(&mut engine, &state, first);
    engine.kill_all();
    place.job(&job).succeed();
    let output = place.path(".streamjob/output/nexmark-q0");
    expected::nexmark("q0", EVENTS, RATE, &output, &["--repeated"]);
}

#[test]
fn r14_without_checkpoints_a_failure_may_lose_rows_but_doubles_none() {
    let place = Place::new();
    let job = Job::example("nexmark/q0")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .env("PACED", true)
        .parallelism(2)
        .without_checkpoints()
        .restarting();
    let engine = place.job(&job).start();
    engine.eventually("tasks to run", || engine.log().contains("RUNNING").then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    engine.kill(engine.workers(2)[0]);
    engine.succeed();
    expected::nexmark("q0", EVENTS, RATE, &place.path(".streamjob/output/nexmark-q0"), &["--lost"]);
}

#[test]
fn r34_with_nothing_configured_no_checkpoint_is_written() {
    let place = Place::new();
    let job = Job::example("nexmark/q7").env("EVENTS", 20_000).without_checkpoints();
    place.job(&job).succeed();
    assert_eq!(checkpoints(&place.path("state")), BTreeSet::new());
    let state: Vec<_> = files_below(&place.path("state"))
        .into_iter()
        .filter(|file| file.parent().is_some_and(|parent| parent.ends_with("shared")))
        .collect();
    assert!(state.is_empty(), "{state:?}");
    expected::nexmark("q7", 20_000, 1_000, &place.path(".streamjob/output/nexmark-q7"), &[]);
}

#[test]
fn r36_keyed_and_list_state_are_dealt_out_anew_at_another_parallelism() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&job("interval: 150ms")).start();
    await_checkpoint(&mut engine, &state, 3);
    engine.kill_all();
    let mut engine = place.job(&job("interval: 150ms").parallelism(3)).start();
    let newest = latest_checkpoint(&state);
    await_checkpoint(&mut engine, &state, newest + 2);
    engine.kill_all();
    place.job(&job("interval: 150ms").parallelism(1)).succeed();
    results_are_right(&place);
}

#[test]
fn r28_the_interval_trades_how_soon_results_show_for_how_often_work_is_done() {
    let commits_in_four_seconds = |interval: &str| {
        let place = Place::new();
        let job = Job::example("nexmark/q0").env("EVENTS", 0).env("RATE", RATE).env("PACED", true);
        let mut engine = place.job(&job.parallelism(1).checkpoint(&format!("interval: {interval}"))).start();
        let output = place.path(".streamjob/output/nexmark-q0");
        engine.eventually("a committed row", || (!visible_files(&output).is_empty()).then_some(()));
        std::thread::sleep(Duration::from_secs(4));
        let commits = visible_files(&output).len();
        engine.kill_all();
        commits
    };
    let (often, seldom) = (commits_in_four_seconds("100ms"), commits_in_four_seconds("2s"));
    assert!(often >= 10 && seldom <= 4, "every 100 ms: {often} commits, every 2 s: {seldom}");
}
