//! Runs a story: controllers that observe, plan and act in a world. They look when something has changed or when their
//! plan said so, are killed after any effect, hear of no success, are refused, read what is old, and are two at once.

use super::mutants::{Mutant, Mutation};
use super::stories::Story;
use super::world::{Lag, Memory, Refusal, World, truth};
use std::collections::BTreeMap;
use std::time::Duration;
use streamjob_operator::api::SavepointPhase;
use streamjob_operator::api::status::OperationStep;
use streamjob_operator::plan::effect::SavepointEffect;
use streamjob_operator::plan::{Effect, plan, plan_savepoint};

/// Ticks within which every step of a story has to come to rest.
const PATIENCE: usize = 240;
/// Ticks without anything to do after which the world is at rest.
const REST: usize = 5;
/// Ticks without a controller after a crash.
const DOWN: i64 = 3;
/// Passes in one tick: an effect is followed by another pass at once, as a watch would.
const AT_ONCE: usize = 4;

/// What happens at an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// It takes place, and the process ends.
    Killed,
    /// It takes place, and the controller hears of a timeout.
    Unheard,
    /// It does not take place: a conflict, or a request too many.
    Refused,
}

/// What goes wrong in a run.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// After so many effects, each counted from the one before.
    pub blows: Vec<(usize, Blow)>,
    /// Two controllers at once, the second with caches that lag by so much.
    pub second: Option<usize>,
    /// Caches of the first one.
    pub lag: usize,
    /// What coordinators said, in ticks.
    pub engine_lag: usize,
    /// From a tick on, for so many ticks, watches bring nothing new.
    pub gap: Option<(usize, usize)>,
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
    world.faultless = faults.blows.is_empty();
    world.engine_lag = faults.engine_lag;
    world.no_versions = mutant == Some(Mutant::StatusWithoutVersion);
    world.storage.no_fencing = mutant == Some(Mutant::NoFencing);
    let second = faults.second.map(|lag| Controller::new(Lag { job: lag, others: lag / 2 }, mutant));
    let first = Controller::new(Lag { job: faults.lag, others: faults.lag }, mutant);
    let mut run = Run {
        faults,
        controllers: [Some(first), second].into_iter().flatten().collect(),
        effects: 0,
        since_blow: 0,
        blows: 0,
        ticks: 0,
    };
    let mut failures = Vec::new();
    for (index, step) in story.steps.iter().enumerate() {
        (step.act)(&mut world);
        let status = |world: &World| serde_json::to_string(&world.status()).unwrap();
        // Of each news the controllers hear later.
        if !run.run_to_rest(&mut world, step.wait + 5 * faults.engine_lag) {
            failures.push(format!("step {index} does not come to rest: {}", status(&world)));
            break;
        }
        if let Err(problem) = (step.check)(&world) {
            failures.push(format!("step {index}: {problem}: {}", status(&world)));
            break;
        }
    }
    failures.append(&mut world.storage.violations);
    Outcome { effects: run.effects, failures }
}

/// One process of the operator.
struct Controller {
    lag: Lag,
    mutation: Mutation,
    memory: Memory,
    /// Until when it is not there.
    down: i64,
    /// What it last saw of each object, and when it wants to look again. The job has no name.
    seen: BTreeMap<Option<String>, (u64, i64)>,
}

impl Controller {
    fn new(lag: Lag, mutant: Option<Mutant>) -> Controller {
        let (memory, seen) = (Memory::default(), BTreeMap::new());
        Controller { lag, mutation: Mutation::new(mutant), memory, down: 0, seen }
    }

    /// A new process knows nothing.
    fn die(&mut self, now: i64) {
        self.down = now + DOWN;
        self.memory = Memory::default();
        self.seen.clear();
        self.mutation.forget();
    }

    fn hears(&mut self, refusal: Refusal, generation: Option<i64>) {
        match refusal {
            Refusal::Again | Refusal::Unreachable => {}
            Refusal::Invalid(refusal) => self.memory.refused = Some((generation, refusal)),
            Refusal::Terminating => self.memory.terminating = true,
            Refusal::Savepoint(trigger, answer) => drop(self.memory.savepoints.insert(trigger, answer)),
        }
    }
}

struct Run<'a> {
    faults: &'a Faults,
    controllers: Vec<Controller>,
    effects: usize,
    since_blow: usize,
    blows: usize,
    ticks: usize,
}

/// How a pass went.
#[derive(Default)]
struct Pass {
    /// Anything but figures was written or done.
    acted: bool,
    failed: bool,
}

impl Run<'_> {
    fn run_to_rest(&mut self, world: &mut World, wait: usize) -> bool {
        let mut quiet = 0;
        for tick in 0..PATIENCE + wait {
            self.ticks += 1;
            if self.faults.coordinator_deaths.contains(&self.ticks) {
                world.kill_coordinators();
                quiet = 0;
            }
            let mut acted = false;
            for _ in 0..AT_ONCE {
                let again = (0..self.controllers.len()).fold(false, |acted, index| acted | self.turn(world, index));
                acted |= again;
                if !again {
                    break;
                }
            }
            world.tick();
            let down = self.controllers.iter().any(|controller| controller.down > world.seconds);
            // What nobody has seen yet may be news.
            let blind = self.faults.gap.is_some_and(|(from, length)| (from..from + length).contains(&self.ticks));
            quiet = if acted || down || blind || !world.is_quiet() { 0 } else { quiet + 1 };
            if quiet >= REST + self.faults.engine_lag && tick >= wait && !waits(world) {
                return true;
            }
        }
        false
    }

    /// Everything that a controller has to look at. Whether anything was done.
    fn turn(&mut self, world: &mut World, index: usize) -> bool {
        if self.controllers[index].down > world.seconds {
            return false;
        }
        let mut lag = self.controllers[index].lag;
        if let Some((from, length)) = self.faults.gap
            && (from..from + length).contains(&self.ticks)
        {
            let stale = self.ticks - from + 1;
            lag = Lag { job: lag.job.max(stale), others: lag.others.max(stale) };
        }
        let mut names: Vec<Option<String>> = vec![None];
        names.extend(world.objects.savepoints.keys().cloned().map(Some));
        let mut acted = false;
        for name in names {
            let print = world.fingerprint(lag);
            let seen = self.controllers[index].seen.get(&name);
            if seen.is_some_and(|(seen, due)| *seen == print && world.seconds < *due) {
                continue;
            }
            let (pass, again) = match &name {
                None => self.look_at_job(world, index, lag),
                Some(name) => self.look_at_savepoint(world, index, lag, name),
            };
            // What fails is tried again soon; a process that was killed has forgotten.
            let pause = if pass.failed { 1 } else { i64::try_from(again.as_millis().div_ceil(1000)).unwrap_or(60) };
            if self.controllers[index].down <= world.seconds {
                self.controllers[index].seen.insert(name, (print, world.seconds + pause.max(1)));
            }
            acted |= pass.acted;
        }
        acted
    }

    fn look_at_job(&mut self, world: &mut World, index: usize, lag: Lag) -> (Pass, Duration) {
        let controller = &mut self.controllers[index];
        let Some(observed) = world.observe(lag, &controller.memory) else { return (Pass::default(), Duration::MAX) };
        let made = plan(&observed, &world.settings, world.now());
        let again = made.requeue_after;
        let effects = controller.mutation.apply(made, &observed, world);
        let (job, generation) = (&observed.job, observed.job.metadata.generation);
        let pass = self.carry_out(world, index, generation, &effects, |world, effect| {
            let small = match effect {
                Effect::WriteStatus(status) => only_figures(&job.status, status),
                Effect::Event(_) => true,
                _ => false,
            };
            (world.act(job, effect), small)
        });
        if !pass.failed {
            self.controllers[index].memory.refused = None;
        }
        (pass, again)
    }

    fn look_at_savepoint(&mut self, world: &mut World, index: usize, lag: Lag, name: &str) -> (Pass, Duration) {
        let controller = &mut self.controllers[index];
        let Some(observed) = world.observe_savepoint(name, lag, &controller.memory) else {
            return (Pass::default(), Duration::MAX);
        };
        let made = plan_savepoint(&observed, &world.settings, world.now());
        let effects = controller.mutation.apply_to_savepoint(made.effects, &observed, world);
        let pass = self.carry_out(world, index, None, &effects, |world, effect| {
            let small = matches!(effect, SavepointEffect::Event(_));
            (world.act_on_savepoint(&observed.savepoint, effect), small)
        });
        (pass, made.requeue_after)
    }

    fn carry_out<E>(
        &mut self,
        world: &mut World,
        index: usize,
        generation: Option<i64>,
        effects: &[E],
        mut act: impl FnMut(&mut World, &E) -> (Result<(), Refusal>, bool),
    ) -> Pass {
        let mut pass = Pass::default();
        for effect in effects {
            self.effects += 1;
            self.since_blow += 1;
            let blow =
                self.faults.blows.get(self.blows).filter(|(at, _)| *at == self.since_blow).map(|(_, blow)| *blow);
            if blow.is_some() {
                self.blows += 1;
                self.since_blow = 0;
            }
            if blow == Some(Blow::Refused) {
                return Pass { failed: true, acted: true };
            }
            let (result, small) = act(world, effect);
            if let Err(refusal) = result {
                // Whoever is refused for good is not busy.
                let busy = refusal == Refusal::Again;
                self.controllers[index].hears(refusal, generation);
                return Pass { failed: true, acted: pass.acted || busy };
            }
            pass.acted |= !small;
            match blow {
                Some(Blow::Killed) => {
                    self.controllers[index].die(world.seconds);
                    return Pass { failed: true, acted: true };
                }
                Some(_) => return Pass { failed: true, acted: true },
                None => {}
            }
        }
        pass
    }
}

/// Something is under way that does not wait for a person.
fn waits(world: &World) -> bool {
    let under_way = |phase| matches!(phase, SavepointPhase::InProgress | SavepointPhase::Deleting);
    let savepoints = world.objects.savepoints.values().filter_map(|savepoint| savepoint.status.as_ref());
    if savepoints.map(|status| status.phase).any(under_way) {
        return true;
    }
    let status = world.status();
    let Some(operation) = world.objects.job.as_ref().and(status.operation.as_ref()) else { return false };
    let cause = truth(&status, "Progressing").map(|(reason, _)| reason);
    let pulls = operation.step == OperationStep::Preparing && cause.as_deref() == Some("ImagePullFailed");
    !pulls && truth(&status, "Stalled").is_none()
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
