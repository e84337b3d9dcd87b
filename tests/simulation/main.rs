//! The plan against a model of the API server, of Kubernetes' own controllers and of the engine. Every story is told without
//! faults, with the controller killed, unheard and refused at every single effect, with two controllers at once, and with
//! many random pairs of faults; what must always hold is asserted in the world, and every story has to come to its end all
//! the same. `SIMULATION_SEEDS` is how many pairs a story gets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driver;
mod engine;
mod kubernetes;
mod mutants;
mod stories;
mod world;

use driver::{Blow, Faults, run};
use mutants::Mutant;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use stories::{Story, all};

/// What the simulation does is to make objects and to drop them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pairs of faults a story.
const PAIRS: u64 = 50;

/// A small generator of its own, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn number(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

const BLOWS: [Blow; 3] = [Blow::Killed, Blow::Unheard, Blow::Refused];

/// Two blows, and often another controller, stale caches and coordinators that die.
fn random_faults(seed: u64) -> Faults {
    let mut random = Random(seed);
    for _ in 0..4 {
        random.below(2);
    }
    let blows = (0..2).map(|_| (1 + random.number(45), BLOWS[random.number(3)])).collect();
    let second = (random.below(2) == 0).then(|| random.number(6));
    Faults {
        blows,
        second,
        lag: random.number(3),
        gap: (random.below(3) == 0).then(|| (1 + random.number(60), 2 + random.number(10))),
        coordinator_deaths: (0..random.number(3)).map(|_| 1 + random.number(90)).collect(),
        // Of a controller that is alone. A second one, which should not be there, and to which old answers seem new, heals
        // what the first takes down.
        engine_lag: if second.is_none() { random.number(4) } else { 0 },
    }
}

/// Each of these on every core there is, in any order.
fn on_all_cores<T: Sync>(work: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(item) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(item);
                }
            });
        }
    });
}

/// Every story under each of these; all that goes wrong is shown together, one example a story.
fn tell(faults: impl Fn(&Story) -> Vec<Faults>) {
    let stories = all();
    let runs: Vec<(&Story, Faults)> =
        stories.iter().flat_map(|story| faults(story).into_iter().map(move |faults| (story, faults))).collect();
    let wrong: Mutex<BTreeMap<&str, (usize, String)>> = Mutex::default();
    on_all_cores(&runs, |(story, faults)| {
        if let Some(failure) = run(story, faults, None).failures.first() {
            let mut wrong = wrong.lock().unwrap();
            let (count, _) = wrong.entry(story.name).or_insert_with(|| (0, format!("{faults:?}: {failure}")));
            *count += 1;
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{} stories, {} runs", stories.len(), runs.len());
    assert!(wrong.is_empty(), "of {} runs these went wrong: {wrong:#?}", runs.len());
}

#[test]
fn every_story_comes_to_its_end() {
    tell(|_| vec![Faults::default()]);
}

#[test]
fn a_blow_at_every_single_effect() {
    tell(|story| {
        let effects = run(story, &Faults::default(), None).effects;
        let at = |blow| (1..=effects).map(move |effect| Faults { blows: vec![(effect, blow)], ..Faults::default() });
        BLOWS.into_iter().flat_map(at).collect()
    });
}

#[test]
fn two_controllers_at_once() {
    tell(|_| (0..6).map(|lag| Faults { second: Some(lag), ..Faults::default() }).collect());
}

#[test]
fn watches_that_bring_nothing_new() {
    let gap = |from| Faults { gap: Some((from, 8)), ..Faults::default() };
    let late = |lag| Faults { lag, ..Faults::default() };
    tell(|_| (0..12).map(|at| gap(1 + 3 * at)).chain((1..4).map(late)).collect());
}

#[test]
fn answers_of_coordinators_that_are_old() {
    tell(|story| {
        let effects = run(story, &Faults::default(), None).effects;
        let old = |engine_lag| Faults { engine_lag, ..Faults::default() };
        let killed = |effect| Faults { blows: vec![(effect, Blow::Killed)], ..old(2) };
        (1..4).map(old).chain((1..=effects).map(killed)).collect()
    });
}

#[test]
fn pairs_of_faults() {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(PAIRS);
    tell(|_| (0..seeds).map(random_faults).collect());
}

/// A rule that can be broken without any story noticing is no rule.
#[test]
fn every_broken_rule_is_caught() {
    let mut tries = vec![Faults::default(), Faults { second: Some(3), ..Faults::default() }];
    tries.extend((0..20).map(random_faults));
    let stories = all();
    let unnoticed = Mutex::new(Vec::new());
    on_all_cores(&Mutant::ALL, |mutant| {
        // What goes wrong with the rules as they are tells nothing about a broken one.
        let fails = |story: &Story, faults: &Faults, mutant| !run(story, faults, mutant).failures.is_empty();
        let catches =
            |story: &Story, faults: &Faults| fails(story, faults, Some(*mutant)) && !fails(story, faults, None);
        if !tries.iter().any(|faults| stories.iter().any(|story| catches(story, faults))) {
            unnoticed.lock().unwrap().push(*mutant);
        }
    });
    println!("{} broken rules", Mutant::ALL.len());
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
