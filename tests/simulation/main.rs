//! The plan against a model of the API server, of Kubernetes' own controllers and of the engine. Every story is told without
//! faults, with the controller killed after every single effect, with two controllers at once, and with many random pairs of
//! faults; what must always hold is asserted in the world, and every story has to come to its end all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driver;
mod engine;
mod mutants;
mod stories;
mod world;

use driver::{Faults, run};
use mutants::Mutant;
use stories::{Story, all};

/// A small generator of its own, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn random_faults(seed: u64) -> Faults {
    let mut random = Random(seed);
    for _ in 0..4 {
        random.below(2);
    }
    let number = |random: &mut Random, limit| usize::try_from(random.below(limit)).unwrap();
    Faults {
        kills: (0..2).map(|_| 1 + number(&mut random, 45)).collect(),
        unheard: random.below(2) == 0,
        second: (random.below(2) == 0).then(|| number(&mut random, 6)),
        lag: number(&mut random, 3),
        coordinator_deaths: (0..number(&mut random, 3)).map(|_| 1 + number(&mut random, 90)).collect(),
    }
}

/// Every story under each of these; all that goes wrong is shown together.
fn tell(faults: impl Fn(&Story) -> Vec<Faults>) {
    let mut wrong = Vec::new();
    let mut runs = 0;
    for story in all() {
        for faults in faults(&story) {
            let outcome = run(&story, &faults, None);
            runs += 1;
            if let Some(failure) = outcome.failures.first() {
                wrong.push(format!("{} {faults:?}: {failure}", story.name));
            }
        }
    }
    println!("{runs} runs");
    assert!(wrong.is_empty(), "{} of {runs} runs: {:#?}", wrong.len(), &wrong[..wrong.len().min(8)]);
}

#[test]
fn every_story_comes_to_its_end() {
    tell(|_| vec![Faults::default()]);
}

#[test]
#[ignore = "takes minutes; cargo test --test simulation -- --ignored"]
fn killed_after_every_single_effect() {
    tell(|story| {
        let effects = run(story, &Faults::default(), None).effects;
        let kill = |unheard| move |kill| Faults { kills: vec![kill], unheard, ..Faults::default() };
        (1..=effects).map(kill(false)).chain((1..=effects).map(kill(true))).collect()
    });
}

#[test]
fn two_controllers_at_once() {
    tell(|_| (0..6).map(|lag| Faults { second: Some(lag), ..Faults::default() }).collect());
}

#[test]
#[ignore = "takes minutes; cargo test --test simulation -- --ignored"]
fn pairs_of_faults() {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    tell(|_| (0..seeds).map(random_faults).collect());
}

/// A rule that can be broken without any story noticing is no rule.
#[test]
#[ignore = "takes minutes; cargo test --test simulation -- --ignored"]
fn every_broken_rule_is_caught() {
    let mut unnoticed = Vec::new();
    for mutant in Mutant::ALL {
        let mut tries = vec![Faults::default(), Faults { second: Some(3), ..Faults::default() }];
        tries.extend((0..20).map(random_faults));
        // What goes wrong with the rules as they are tells nothing about a broken one.
        let fails = |story: &Story, faults: &Faults, mutant| !run(story, faults, mutant).failures.is_empty();
        let caught = tries
            .iter()
            .any(|faults| all().iter().any(|story| fails(story, faults, Some(mutant)) && !fails(story, faults, None)));
        if !caught {
            unnoticed.push(mutant);
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
