//! Two runs of one job: the second is refused, or takes over and fences the first.

use crate::expected;
use crate::harness::{Job, Place};
use crate::nexmark::await_checkpoint;
use std::time::Duration;

const EVENTS: u64 = 160_000;
const RATE: u64 = 20_000;

fn job() -> Job {
    Job::file("e2e/jobs/accounts.yaml")
        .env("EVENTS", EVENTS)
        .env("RATE", RATE)
        .parallelism(2)
        .checkpoint("interval: 150ms")
        .restarting()
}

fn results_are_right(place: &Place) {
    expected::nexmark("accounts", EVENTS, RATE, &place.path(".streamjob/output/accounts"), &[]);
    expected::nexmark("quickstart", EVENTS, RATE, &place.path(".streamjob/output/channels"), &[]);
}

#[test]
fn a_second_run_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let mut first = place.job(&job()).start();
    await_checkpoint(&mut first, &place.path("state"), 1);
    place.job(&job()).fail(&["state", "--take-over"]);
    first.succeed();
    results_are_right(&place);
}

#[test]
fn a_run_that_takes_over_fences_the_first() {
    let place = Place::new();
    let mut first = place.job(&job()).start();
    await_checkpoint(&mut first, &place.path("state"), 1);
    let second = place.job(&job()).argument("--take-over").start();
    first.fail(&["fenced"]);
    second.succeed();
    results_are_right(&place);
}

#[test]
fn r12_stopped_processes_that_continue_after_a_take_over_complete_and_commit_nothing() {
    let place = Place::new();
    let state = place.path("state");
    let mut old = place.job(&job()).start();
    let before = await_checkpoint(&mut old, &state, 2);
    old.freeze();
    let mut new = place.job(&job()).argument("--take-over").start();
    await_checkpoint(&mut new, &state, before + 1);
    // The old coordinator wakes up in the middle of the new one's work.
    old.thaw();
    old.fail(&["fenced"]);
    new.succeed();
    results_are_right(&place);
}

#[test]
fn stopped_processes_that_continue_after_the_job_is_finished_change_nothing() {
    let place = Place::new();
    let mut old = place.job(&job()).start();
    await_checkpoint(&mut old, &place.path("state"), 2);
    old.freeze();
    place.job(&job()).argument("--take-over").succeed();
    results_are_right(&place);
    old.thaw();
    let status = old.await_end();
    assert!(!status.success(), "a run that was taken over did not succeed\n{}", old.log_end());
    std::thread::sleep(Duration::from_millis(300));
    results_are_right(&place);
}
