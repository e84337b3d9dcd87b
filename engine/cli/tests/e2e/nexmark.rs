//! Nexmark queries, each run plainly, with kills at parallelism 2, and restored after everything was killed: one
//! expected result.

use crate::expected;
use crate::harness::{Engine, Job, PATIENCE, Place, latest_checkpoint};
use std::path::Path;
use std::time::{Duration, Instant};

/// Six seconds of paced events: long enough for three kills between checkpoints.
const PACED_EVENTS: u64 = 120_000;
const PACED_RATE: u64 = 20_000;
/// 200 seconds of event time in one go.
const EVENTS: u64 = 200_000;
const RATE: u64 = 1_000;

/// Waits for a checkpoint with a higher id than `beyond`, and returns the newest id.
pub fn await_checkpoint(engine: &mut Engine, state: &Path, beyond: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let latest = latest_checkpoint(state);
        if latest > beyond {
            return latest;
        }
        assert!(!engine.has_ended(), "ended before a checkpoint after {beyond}\n{}", engine.log_end());
        assert!(Instant::now() < deadline, "no checkpoint after {beyond}\n{}", engine.log_end());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A query paced at parallelism 2 with a checkpoint every 200 ms.
fn paced(query: &str) -> Job {
    let job = Job::example(&format!("nexmark/{query}"));
    // Six seconds of events would fill no window of ten.
    let job = if query == "q7" { job.replace("INTERVAL '10' SECOND", "INTERVAL '1' SECOND") } else { job };
    job.env("EVENTS", PACED_EVENTS)
        .env("RATE", PACED_RATE)
        .env("PACED", true)
        .parallelism(2)
        .checkpoint("interval: 200ms")
        .restarting()
}

fn output(place: &Place, query: &str) -> std::path::PathBuf {
    place.path(&format!(".streamjob/output/nexmark-{query}"))
}

fn plain(query: &str) {
    let place = Place::new();
    let job = Job::example(&format!("nexmark/{query}")).env("EVENTS", EVENTS).env("RATE", RATE).without_checkpoints();
    place.job(&job.parallelism(1)).succeed();
    expected::nexmark(query, EVENTS, RATE, &output(&place, query), &[]);
}

fn with_kills(query: &str) {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&paced(query)).start();
    let first = await_checkpoint(&mut engine, &state, 0);
    engine.kill(engine.workers(2)[0]);
    let second = await_checkpoint(&mut engine, &state, first);
    engine.kill(engine.coordinator());
    let third = await_checkpoint(&mut engine, &state, second);
    assert!(first < second && second < third, "ids go up: {first}, {second}, {third}");
    for worker in engine.workers(2) {
        engine.kill(worker);
    }
    engine.succeed();
    expected::nexmark(query, PACED_EVENTS, PACED_RATE, &output(&place, query), &["--window", "1"]);
}

fn restored(query: &str) {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&paced(query)).start();
    await_checkpoint(&mut engine, &state, 3);
    engine.kill_all();
    place.job(&paced(query)).succeed();
    expected::nexmark(query, PACED_EVENTS, PACED_RATE, &output(&place, query), &["--window", "1"]);
}

macro_rules! queries {
    ($($query:ident)*) => {$(
        mod $query {
            #[test]
            fn plain() {
                super::plain(stringify!($query));
            }

            #[test]
            fn with_kills_at_parallelism_2() {
                super::with_kills(stringify!($query));
            }

            #[test]
            fn restored_after_everything_was_killed() {
                super::restored(stringify!($query));
            }
        }
    )*};
}

queries!(q0 q1 q2 q7 q14 q17 q21 q22);

#[test]
fn r58_a_replayed_source_goes_on_from_the_position_in_the_checkpoint() {
    let place = Place::new();
    let state = place.path("state");
    let mut engine = place.job(&paced("q0")).start();
    await_checkpoint(&mut engine, &state, 4);
    engine.kill_all();
    let before = crate::harness::visible_rows(&output(&place, "q0"));
    assert!(!before.is_empty(), "four checkpoints and nothing committed");
    // Nothing that was committed is read and written again: the second run adds what is missing, and no more.
    place.job(&paced("q0")).succeed();
    let after = crate::harness::visible_rows(&output(&place, "q0"));
    let mut rest = after.iter();
    assert!(before.iter().all(|row| rest.any(|other| other == row)), "a committed row is gone");
    expected::nexmark("q0", PACED_EVENTS, PACED_RATE, &output(&place, "q0"), &[]);
}
