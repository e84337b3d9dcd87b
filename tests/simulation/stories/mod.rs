//! What people do with a job, step by step, and what has to be so once all is at rest.

mod changes;
mod ends;
mod savepoints;
mod troubles;

use super::engine::Phase;
use super::world::{World, truth};
use serde_json::{Value, json};
use streamjob_operator::api::status::{OperationKind, OperationResult};

pub type Check = fn(&World) -> Result<(), String>;

pub struct Step {
    pub act: fn(&mut World),
    /// Ticks that have to pass in any case.
    pub wait: usize,
    pub check: Check,
}

pub struct Story {
    pub name: &'static str,
    pub begin: fn() -> World,
    pub steps: Vec<Step>,
}

fn spec() -> Value {
    json!({
        "program": { "sql": "select 1" },
        "image": "good:1",
        "checkpoint": { "interval": "1s" },
        "restartStrategy": { "none": {} },
        "storage": { "persistentVolumeClaim": { "claimName": "disk" } },
        "upgrade": { "savepointTimeout": "30s", "attempts": 2 },
    })
}

fn with(change: fn(&mut Value)) -> Value {
    let mut spec = spec();
    change(&mut spec);
    spec
}

/// For those who wait for a savepoint in vain.
fn impatient() -> World {
    World::new(with(|spec| spec["upgrade"]["savepointTimeout"] = json!("8s")))
}

fn plain() -> World {
    World::new(spec())
}

fn step(act: fn(&mut World), check: Check) -> Step {
    Step { act, wait: 0, check }
}

fn nothing(_: &mut World) {}

fn holds(truth: bool, what: &str) -> Result<(), String> {
    truth.then_some(()).ok_or_else(|| what.to_owned())
}

/// The current revision runs, and nothing else does.
fn runs(world: &World) -> Result<(), String> {
    let status = world.status();
    let current = status.current_revision.ok_or("nothing was begun")?;
    let phase = world.coordinators.get(&current).map(|coordinator| coordinator.phase);
    holds(phase == Some(Phase::Running), &format!("revision {current} is {phase:?}"))?;
    holds(world.coordinators.len() == 1, "an old revision is still there")?;
    holds(status.operation.is_none(), "an operation is left")?;
    let ready = truth(&status, "Ready").map(|(reason, _)| reason);
    holds(ready.as_deref() == Some("Running"), &format!("not ready: {ready:?}"))
}

fn settled(world: &World) -> Result<(), String> {
    runs(world)?;
    let generation = world.objects.job.as_ref().and_then(|job| job.metadata.generation);
    holds(world.status().observed_generation == generation, "the generation is not the newest")
}

fn current_sql(world: &World) -> String {
    let current = world.status().current_revision.unwrap_or(0);
    world.coordinators.get(&current).map(|coordinator| coordinator.sql.clone()).unwrap_or_default()
}

fn result(world: &World) -> Option<(OperationKind, OperationResult)> {
    world.status().history.first().map(|entry| (entry.kind, entry.result))
}

/// The job of revision 1 has gone on all the time, as itself.
fn untouched(world: &World) -> Result<(), String> {
    runs(world)?;
    holds(world.status().current_revision == Some(1), "another revision runs")?;
    holds(world.storage.takeovers <= 1, "the running job was restarted")
}

/// As `untouched`, while the new revision waits.
fn waits(world: &World) -> Result<(), String> {
    let status = world.status();
    let reason = truth(&status, "Progressing").map(|(reason, _)| reason);
    holds(reason.as_deref() == Some("ImagePullFailed"), &format!("the cause is not shown: {reason:?}"))?;
    holds(status.current_revision == Some(1) && world.storage.takeovers <= 1, "the running job was touched")?;
    holds(world.coordinators.get(&1).is_some_and(|it| it.phase == Phase::Running), "it does not run")
}

fn suspended(world: &World) -> Result<(), String> {
    holds(world.status().suspended && world.coordinators.is_empty(), "not suspended")
}

/// The job says why nothing goes on.
fn stalled(world: &World, reason: &str, words: &str) -> Result<(), String> {
    let found = truth(&world.status(), "Stalled");
    let right = found.as_ref().is_some_and(|(found, message)| found == reason && message.contains(words));
    holds(right, &format!("not stalled for {reason} with \"{words}\": {found:?}"))
}

fn resume(world: &mut World) {
    world.edit(|spec| spec["state"] = json!("Running"));
}

fn suspend(world: &mut World) {
    world.edit(|spec| spec["state"] = json!("Suspended"));
}

fn gone(world: &World) -> Result<(), String> {
    holds(world.objects.job.is_none(), "the finalizer is stuck")?;
    holds(!world.finalizer_removed_with_pods, "the finalizer went while the job ran")
}

fn upgrade(world: &mut World) {
    world.edit(|spec| spec["program"]["sql"] = json!("select 2"));
}

fn upgraded(world: &World) -> Result<(), String> {
    settled(world)?;
    holds(current_sql(world) == "select 2", "the old program runs")
}

fn saved(world: &World) -> Result<(), String> {
    upgraded(world)?;
    holds(world.objects.savepoints.len() == 1, "the savepoint is not recorded")
}

fn started() -> Step {
    step(nothing, settled)
}

fn story(name: &'static str, begin: fn() -> World, steps: Vec<Step>) -> Story {
    Story { name, begin, steps }
}

pub fn all() -> Vec<Story> {
    let mut all = changes::changes();
    all.extend(troubles::troubles());
    all.extend(ends::ends());
    all.extend(savepoints::savepoints());
    all
}
