//! Drives the real coordinator, aligner, task lifecycle, two-phase commits and state assignment through seeded schedules
//! of crashes, delays, partitions and a failing store, and checks DESIGN's invariants I1 to I6 after every step.
//!
//! `SIM_SCHEDULES=<n>` says how many schedules run (20,000 unless told), `SIM_SEED=<n>` replays one with its trace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod job;
mod lifecycle;
mod mutant;
mod oracle;
mod processes;
mod requests;
mod savepoint_rules;
mod schedule;
mod sequel;
mod shared;
mod store;
mod task;
mod world;

use mutant::Mutant;
use oracle::Counts;
use schedule::{Fault, Schedule};
use std::panic::{AssertUnwindSafe, catch_unwind};
use streamjob_protocol::journal::EndState;
use world::{End, Outcome, run};

const DEFAULT_SCHEDULES: u64 = 20_000;
/// A broken rule has to show within this many schedules.
const MUTANT_SCHEDULES: u64 = 20_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Also a panic of the product is a finding.
fn run_safely(seed: u64, mutant: Option<Mutant>, traced: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, mutant, traced))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Outcome {
            violation: Some(format!("panic: {text}")),
            trace: Vec::new(),
            steps: 0,
            completed: 0,
            ended: None,
            counts: Counts::default(),
        }
    })
}

fn explain(seed: u64, mutant: Option<Mutant>) -> String {
    let outcome = run_safely(seed, mutant, true);
    let schedule = Schedule::of_seed(&mut shared::Dice::new(seed));
    format!(
        "{}\n\n{}\n\nseed {seed}, step {}: {}\nreplay with SIM_SEED={seed}",
        schedule.describe(),
        outcome.trace.join("\n"),
        outcome.steps,
        outcome.violation.unwrap_or_else(|| "no rule is broken".into())
    )
}

#[test]
fn r01_r03_r07_r11_r71_i1_to_i6_hold_in_every_schedule() {
    if let Some(seed) = from_environment("SIM_SEED") {
        let text = explain(seed, None);
        println!("{text}");
        assert!(run_safely(seed, None, false).violation.is_none(), "see the trace above");
        return;
    }
    let schedules = from_environment("SIM_SCHEDULES").unwrap_or(DEFAULT_SCHEDULES);
    let (mut steps, mut completed, mut finished, mut unrecoverable) = (0u64, 0, 0u64, 0u64);
    let mut counts = Counts::default();
    for seed in 0..schedules {
        let outcome = run_safely(seed, None, false);
        counts.add(&outcome.counts);
        assert!(outcome.violation.is_none(), "{}", explain(seed, None));
        steps += u64::from(outcome.steps);
        completed += outcome.completed;
        finished += u64::from(outcome.ended == Some(End::Job(EndState::Finished)));
        unrecoverable += u64::from(outcome.ended == Some(End::Unrecoverable));
    }
    println!(
        "{schedules} schedules, {steps} steps, {completed} checkpoints, {finished} jobs finished, \
         {unrecoverable} given up because of damage\n{counts:?}"
    );
    // The schedules have to show something: jobs finish, and not without checkpoints.
    assert!(finished * 10 >= schedules * 9 && completed as u64 >= 2 * schedules);
    let Counts { plain, stops, drains, cancels, failed, rescales, reconfigured, revisions, adopted, not_claimed } =
        counts;
    let all = [plain, stops, drains, cancels, failed, rescales, reconfigured, revisions, adopted, not_claimed];
    assert!(all.iter().all(|count| u64::from(*count) * 200 >= schedules), "{counts:?}");
}

#[test]
fn a_schedule_replays_exactly() {
    for seed in 0..20 {
        let (one, two) = (run(seed, None, true), run(seed, None, true));
        assert_eq!(one.trace, two.trace);
        assert_eq!((one.steps, one.completed, one.ended), (two.steps, two.completed, two.ended));
    }
}

#[test]
fn every_fault_strikes_in_the_first_thousand_schedules() {
    let all = [
        Fault::CrashWorker,
        Fault::CrashCoordinator,
        Fault::CrashAll,
        Fault::Isolate,
        Fault::Freeze,
        Fault::FreezeWorker,
        Fault::StallLink,
        Fault::FailTask,
        Fault::Outage,
        Fault::SlowStore,
        Fault::DamageManifest,
        Fault::DamageFile,
        Fault::RequestCheckpoint,
        Fault::Suspend,
        Fault::Cancel,
        Fault::Savepoint,
        Fault::Stop,
        Fault::Drain,
        Fault::CancelWithSavepoint,
        Fault::Rescale,
        Fault::Reconfigure,
        Fault::RepeatRequest,
    ];
    let schedules: Vec<Schedule> = (0..1_000).map(|seed| Schedule::of_seed(&mut shared::Dice::new(seed))).collect();
    for fault in all {
        assert!(schedules.iter().any(|schedule| schedule.has(fault)), "{fault:?}");
    }
}

#[test]
fn every_mutant_is_found() {
    let mut missed = Vec::new();
    for mutant in mutant::ALL {
        let found =
            (0..MUTANT_SCHEDULES).find_map(|seed| Some((seed, run_safely(seed, Some(mutant), false).violation?)));
        match found {
            Some((seed, violation)) => println!("{mutant:?}: seed {seed}: {violation}"),
            None => missed.push(mutant),
        }
    }
    assert!(missed.is_empty(), "not found within {MUTANT_SCHEDULES} schedules: {missed:?}");
}
