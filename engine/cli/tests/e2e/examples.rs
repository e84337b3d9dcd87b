//! The small examples, as they are and with kills.

use crate::expected;
use crate::harness::{Job, Place};
use crate::nexmark::await_checkpoint;

const EVEN_ODD: &str = ".streamjob/output/even-odd";

#[test]
fn r17_even_odd_adds_up_to_eight_and_eight() {
    let place = Place::new();
    place.job(&Job::example("even-odd").env("RATE", 100)).succeed();
    expected::even_odd(&place.path(EVEN_ODD));
}

#[test]
fn r09_even_odd_adds_up_to_eight_and_eight_when_processes_die() {
    let place = Place::new();
    let state = place.path("state");
    // One number a second from each source: all seven are never read before the kills are over.
    let job = Job::example("even-odd").env("RATE", 1).checkpoint("interval: 100ms").restarting();
    let mut engine = place.job(&job).start();
    let first = await_checkpoint(&mut engine, &state, 1);
    engine.kill(engine.workers(1)[0]);
    let second = await_checkpoint(&mut engine, &state, first);
    engine.kill(engine.coordinator());
    await_checkpoint(&mut engine, &state, second);
    engine.kill_all();
    place.job(&job).succeed();
    expected::even_odd(&place.path(EVEN_ODD));
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
