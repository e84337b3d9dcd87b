//! Restart strategies and failover as a user sees them.

use crate::expected;
use crate::harness::{Job, Place, visible_rows};
use crate::nexmark::await_checkpoint;
use std::fs;

/// Copies rows of `in/`; the second one cannot be parsed, so that the task fails each time it gets there.
fn poisoned(place: &Place) -> Job {
    fs::create_dir_all(place.path("in")).unwrap();
    fs::write(place.path("in/numbers.json"), "{\"n\": 1}\n{\"n\": oops}\n").unwrap();
    Job::sql(
        "poisoned",
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');\n\
         CREATE TABLE sink (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n\
         INSERT INTO sink SELECT n FROM numbers;",
    )
}

fn restarts(log: &str) -> usize {
    log.lines().filter(|line| line.contains("(restart ")).count()
}

#[test]
fn r38_fixed_delay_restarts_as_often_as_it_says_and_then_fails_the_job() {
    let place = Place::new();
    let job = poisoned(&place)
        .checkpoint("interval: 100ms")
        .spec("restartStrategy", "{ fixedDelay: { attempts: 3, delay: 50ms } }");
    let log = place.job(&job).fail(&["numbers.json"]);
    assert_eq!(restarts(&log), 3, "{log}");
}

#[test]
fn r39_failure_rate_gives_up_when_failures_come_too_fast() {
    let place = Place::new();
    let strategy = "{ failureRate: { maxFailuresPerInterval: 2, interval: 1min, delay: 50ms } }";
    let job = poisoned(&place).checkpoint("interval: 100ms").spec("restartStrategy", strategy);
    let log = place.job(&job).fail(&["numbers.json"]);
    assert_eq!(restarts(&log), 2, "{log}");
}

#[test]
fn r40_r42_none_fails_the_job_at_the_first_failure_although_it_has_checkpoints() {
    let place = Place::new();
    let job = poisoned(&place).checkpoint("interval: 100ms").spec("restartStrategy", "{ none: {} }");
    let log = place.job(&job).fail(&["numbers.json"]);
    assert_eq!(restarts(&log), 0, "{log}");
}

#[test]
fn r41_without_checkpoints_the_first_failure_ends_the_job() {
    let place = Place::new();
    let log = place.job(&poisoned(&place)).fail(&["numbers.json"]);
    assert_eq!(restarts(&log), 0, "{log}");
}

#[test]
fn r41_with_checkpoints_a_job_restarts_with_growing_delays() {
    let place = Place::new();
    let engine = place.job(&poisoned(&place).checkpoint("interval: 100ms")).start();
    engine.eventually("two restarts", || (restarts(&engine.log()) >= 2).then_some(()));
}

#[test]
fn r40_none_makes_a_worker_s_death_the_end_of_the_job() {
    let place = Place::new();
    let job = Job::file("e2e/jobs/accounts.yaml").env("EVENTS", 0).spec("restartStrategy", "{ none: {} }");
    let mut engine = place.job(&job).start();
    await_checkpoint(&mut engine, &place.path("state"), 0);
    engine.kill(engine.workers(1)[0]);
    engine.fail(&["worker"]);
}

/// Two pipelines that share nothing: one fails again and again, the other writes numbers.
fn two_pipelines(place: &Place) -> Job {
    fs::create_dir_all(place.path("in")).unwrap();
    fs::write(place.path("in/numbers.json"), "{\"n\": 1}\n{\"n\": oops}\n").unwrap();
    Job::sql(
        "two-pipelines",
        "CREATE TABLE broken (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');\n\
         CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '100', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '300');\n\
         CREATE TABLE nothing (n BIGINT) WITH ('connector' = 'blackhole');\n\
         CREATE TABLE shown (n BIGINT) WITH ('connector' = 'print', 'print-identifier' = 'shown');\n\
         EXECUTE STATEMENT SET BEGIN\n\
         INSERT INTO nothing SELECT n FROM broken;\n\
         INSERT INTO shown SELECT n FROM numbers;\n\
         END;",
    )
    // No checkpoint in time: a pipeline that restarts begins anew and shows its numbers again.
    .checkpoint("interval: 10min")
    .spec("restartStrategy", "{ fixedDelay: { attempts: 5, delay: 100ms } }")
}

fn times_shown(log: &str, number: u64) -> usize {
    log.lines().filter(|line| line.ends_with(&format!("shown> +I[{number}]"))).count()
}

#[test]
fn r44_with_region_failover_only_the_failed_pipeline_restarts() {
    let place = Place::new();
    let log = place.job(&two_pipelines(&place)).fail(&[]);
    assert_eq!(times_shown(&log, 1), 1, "the pipeline that did not fail was restarted\n{log}");
}

#[test]
fn r43_with_full_failover_every_pipeline_restarts() {
    let place = Place::new();
    let log = place.job(&two_pipelines(&place).spec("failover", "Full")).fail(&[]);
    assert!(times_shown(&log, 1) > 1, "the pipeline that did not fail was left alone\n{log}");
}

#[test]
fn r03_a_poisoned_row_that_is_mended_lets_the_job_finish() {
    let place = Place::new();
    let job = poisoned(&place)
        .checkpoint("interval: 100ms")
        .spec("restartStrategy", "{ fixedDelay: { attempts: 1000, delay: 100ms } }");
    let engine = place.job(&job).start();
    engine.eventually("a restart", || (restarts(&engine.log()) > 0).then_some(()));
    let mended = place.path("in/.mended");
    fs::write(&mended, "{\"n\": 1}\n{\"n\": 2222}\n").unwrap();
    fs::rename(mended, place.path("in/numbers.json")).unwrap();
    engine.succeed();
    assert_eq!(visible_rows(&place.path("out")), ["{\"n\":1}", "{\"n\":2222}"]);
}

#[test]
fn r57_the_weakest_part_decides_what_the_job_promises() {
    let numbers = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '5');\n";
    let file = "CREATE TABLE sink (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";
    let print = "CREATE TABLE sink (n BIGINT) WITH ('connector' = 'print');\n";
    for (sink, checkpoint, guarantee) in [
        (file, "interval: 100ms", "exactly-once"),
        (file, "interval: 100ms, mode: AtLeastOnce", "at-least-once"),
        (print, "interval: 100ms", "at-least-once"),
        (file, "", "at-most-once"),
    ] {
        let place = Place::new();
        let job = Job::sql("promise", &format!("{numbers}{sink}INSERT INTO sink SELECT n FROM numbers;"))
            .checkpoint(checkpoint);
        let log = place.job(&job).succeed();
        assert!(log.contains(guarantee), "'{guarantee}' for {checkpoint} and\n{sink}\nin\n{log}");
    }
}

#[test]
fn r65_print_shows_prefix_and_subtask() {
    let place = Place::new();
    let job = Job::sql(
        "print",
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '20');\n\
         CREATE TABLE shown (n BIGINT) WITH ('connector' = 'print', 'print-identifier' = '一致性状态统计');\n\
         INSERT INTO shown SELECT n FROM numbers;",
    );
    let log = place.job(&job).succeed();
    for number in 1..=20 {
        assert!(log.contains(&format!("一致性状态统计> +I[{number}]")), "{log}");
    }
}

#[test]
fn r01_a_job_without_failures_and_one_with_failures_write_the_same() {
    let run = |kills: u32| {
        let place = Place::new();
        let state = place.path("state");
        let job = Job::file("e2e/jobs/accounts.yaml")
            .env("EVENTS", 80_000)
            .env("RATE", 20_000)
            .parallelism(2)
            .checkpoint("interval: 150ms")
            .restarting();
        let mut engine = place.job(&job).start();
        let mut newest = 0;
        for _ in 0..kills {
            newest = await_checkpoint(&mut engine, &state, newest);
            engine.kill(engine.workers(1)[0]);
        }
        engine.succeed();
        expected::nexmark("accounts", 80_000, 20_000, &place.path(".streamjob/output/accounts"), &[]);
        visible_rows(&place.path(".streamjob/output/channels"))
    };
    assert_eq!(run(0), run(3));
}
