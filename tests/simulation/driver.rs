//! Runs a story: controllers that observe, plan and act in a world, with a crash after any effect, caches that lag, two
//! controllers at once, and rules broken on purpose.

use super::mutants::{Mutant, Mutation};
use super::stories::Story;
use super::world::{Refusal, World};
use streamjob_operator::api::status::OperationStep;
use streamjob_operator::plan::{Effect, plan};

/// Ticks within which every step of a story has to come to rest.
const PATIENCE: usize = 240;
/// Passes without anything to do after which the world is at rest.
const REST: usize = 5;
/// Ticks without a controller after a crash.
const DOWN: u32 = 3;

/// What goes wrong in a run.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The controller is killed after so many effects, each counted from the one before.
    pub kills: Vec<usize>,
    /// The effect takes place, and the controller hears that it failed, instead of being killed.
    pub unheard: bool,
    /// Two controllers at once, the second with caches that lag by so much.
    pub second: Option<usize>,
    /// Caches of the first one.
    pub lag: usize,
    /// Coordinators die at these ticks.
    pub coordinator_deaths: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub effects: usize,
    pub failures: Vec<String>,
}

pub fn run(story: &Story, faults: &Faults, mutant: Option<Mutant>) -> Outcome {
    let mut world = (story.begin)();
    world.no_versions = mutant == Some(Mutant::StatusWithoutVersion);
    world.storage.no_fencing = mutant == Some(Mutant::NoFencing);
    let mut run = Run {
        faults,
        mutation: Mutation::new(mutant),
        done: 0,
        since_kill: 0,
        kills: 0,
        down: 0,
        ticks: 0,
        failures: Vec::new(),
    };
    for (index, step) in story.steps.iter().enumerate() {
        (step.act)(&mut world);
        if !run.run_to_rest(&mut world, step.wait) {
            let status = serde_json::to_string(&world.status()).unwrap();
            run.failures.push(format!("step {index} does not come to rest: {status}"));
            break;
        }
        if let Err(problem) = (step.check)(&world) {
            run.failures.push(format!("step {index}: {problem}: {}", serde_json::to_string(&world.status()).unwrap()));
            break;
        }
    }
    run.failures.append(&mut world.storage.violations);
    Outcome { effects: run.done, failures: run.failures }
}

struct Run<'a> {
    faults: &'a Faults,
    mutation: Mutation,
    done: usize,
    since_kill: usize,
    kills: usize,
    down: u32,
    ticks: usize,
    failures: Vec<String>,
}

impl Run<'_> {
    fn run_to_rest(&mut self, world: &mut World, wait: usize) -> bool {
        let mut quiet = 0;
        for tick in 0..PATIENCE + wait {
            self.ticks += 1;
            if self.faults.coordinator_deaths.contains(&self.ticks) {
                world.kill_coordinators();
            }
            // An effect is followed by another pass at once, as a watch would.
            let mut acted = false;
            for _ in 0..4 {
                let first = self.pass(world, self.faults.lag, self.faults.lag);
                let second = match self.faults.second {
                    Some(lag) => self.pass(world, lag, lag / 2),
                    None => false,
                };
                acted |= first | second;
                if !(first | second) {
                    break;
                }
            }
            world.tick();
            if world.objects.job.is_none() {
                return true;
            }
            quiet = if acted || self.down > 0 { 0 } else { quiet + 1 };
            let waits =
                world.status().operation.is_some() && !world.status().conditions.iter().any(|it| it.type_ == "Stalled");
            if quiet >= REST && tick >= wait && !waits {
                return true;
            }
        }
        // Waiting for a person is a rest as well.
        let preparing = world.status().operation.is_some_and(|operation| operation.step == OperationStep::Preparing);
        preparing && quiet >= REST
    }

    /// Whether anything was done.
    fn pass(&mut self, world: &mut World, job_lag: usize, lag: usize) -> bool {
        if self.down > 0 {
            self.down -= 1;
            return true;
        }
        let Some(observed) = world.observe(job_lag, lag) else { return false };
        let plan = self.mutation.apply(plan(&observed, &world.settings, world.now()), &observed, world);
        let mut acted = false;
        for effect in &plan {
            let before = matches!(effect, Effect::WriteStatus(status) if only_figures(&observed.job.status, status));
            match world.act(&observed.job, effect) {
                Ok(()) => {}
                Err(Refusal::Conflict) => return true,
                Err(Refusal::Unreachable) => break,
            }
            acted |= !before && !matches!(effect, Effect::Event(_));
            self.done += 1;
            self.since_kill += 1;
            if self.faults.kills.get(self.kills) == Some(&self.since_kill) {
                self.kills += 1;
                self.since_kill = 0;
                if !self.faults.unheard {
                    self.down = DOWN;
                    self.mutation.forget();
                }
                return true;
            }
        }
        acted
    }
}

/// The newest checkpoint is written down now and then: that is rest.
fn only_figures(
    before: &Option<streamjob_operator::api::StreamJobStatus>,
    after: &streamjob_operator::api::StreamJobStatus,
) -> bool {
    before.as_ref().is_some_and(|before| {
        let mut before = before.clone();
        before.last_checkpoint.clone_from(&after.last_checkpoint);
        before == *after
    })
}
