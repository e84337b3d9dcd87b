//! What people do with a job, step by step, and what has to be so once all is at rest.

use super::engine::Phase;
use super::world::World;
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
        "upgrade": { "savepointTimeout": "8s", "attempts": 2 },
    })
}

fn with(change: fn(&mut Value)) -> Value {
    let mut spec = spec();
    change(&mut spec);
    spec
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
    let ready = status.conditions.iter().find(|it| it.type_ == "Ready").map(|it| it.reason.clone());
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
    holds(world.storage.restores <= 1, "the running job was restarted")
}

/// As `untouched`, while the new revision waits.
fn waits(world: &World) -> Result<(), String> {
    let status = world.status();
    let reason = status.conditions.iter().find(|it| it.type_ == "Progressing").map(|it| it.reason.clone());
    holds(reason.as_deref() == Some("ImagePullFailed"), &format!("the cause is not shown: {reason:?}"))?;
    holds(status.current_revision == Some(1) && world.storage.restores <= 1, "the running job was touched")?;
    holds(world.coordinators.get(&1).is_some_and(|it| it.phase == Phase::Running), "it does not run")
}

fn suspended(world: &World) -> Result<(), String> {
    holds(world.status().suspended && world.coordinators.is_empty(), "not suspended")
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
    let mut all = changes();
    all.extend(troubles());
    all.extend(ends());
    all
}

fn changes() -> Vec<Story> {
    vec![
        story("create", plain, vec![started()]),
        story("upgrade with a savepoint", plain, vec![started(), step(upgrade, saved)]),
        story(
            "upgrade from the last checkpoint",
            || World::new(with(|spec| spec["upgrade"]["mode"] = json!("LastCheckpoint"))),
            vec![started(), step(upgrade, upgraded)],
        ),
        story(
            "upgrade without state",
            || World::new(with(|spec| spec["upgrade"]["mode"] = json!("Stateless"))),
            vec![
                started(),
                step(
                    |world| {
                        world.storage.may_rewind = true;
                        upgrade(world);
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "rescale",
            plain,
            vec![
                started(),
                step(
                    |world| world.edit(|spec| spec["parallelism"] = json!(3)),
                    |world| {
                        settled(world)?;
                        holds(world.status().parallelism == Some(3), "the parallelism did not change")?;
                        holds(result(world) == Some((OperationKind::Rescale, OperationResult::Succeeded)), "no rescale")
                    },
                ),
            ],
        ),
        story(
            "restart by nonce",
            plain,
            vec![
                started(),
                step(
                    |world| world.edit(|spec| spec["restartNonce"] = json!(1)),
                    |world| {
                        settled(world)?;
                        holds(result(world) == Some((OperationKind::Restart, OperationResult::Succeeded)), "no restart")
                    },
                ),
            ],
        ),
        story(
            "suspend and resume with another program",
            plain,
            vec![
                started(),
                step(|world| world.edit(|spec| spec["state"] = json!("Suspended")), suspended),
                step(
                    |world| {
                        world.edit(|spec| {
                            spec["state"] = json!("Running");
                            spec["program"]["sql"] = json!("select 2");
                        });
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "suspend from the last checkpoint",
            || World::new(with(|spec| spec["upgrade"]["mode"] = json!("LastCheckpoint"))),
            vec![
                started(),
                step(|world| world.edit(|spec| spec["state"] = json!("Suspended")), suspended),
                step(|world| world.edit(|spec| spec["state"] = json!("Running")), settled),
            ],
        ),
        story(
            "created suspended",
            || World::new(with(|spec| spec["state"] = json!("Suspended"))),
            vec![
                step(nothing, |world| {
                    holds(world.status().state == "Suspended" && world.coordinators.is_empty(), "not suspended")
                }),
                step(|world| world.edit(|spec| spec["state"] = json!("Running")), settled),
            ],
        ),
        story(
            "two edits, one after the other",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.edit(|spec| spec["image"] = json!("missing:1"));
                    },
                    waits,
                ),
                step(
                    |world| {
                        world.edit(|spec| {
                            spec["image"] = json!("good:2");
                            spec["program"]["sql"] = json!("select 2");
                        });
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "begin from a path",
            || {
                let mut world = World::new(with(|spec| spec["restoreFrom"] = json!({ "path": "elsewhere/savepoint" })));
                world.storage.savepoints.insert("elsewhere/savepoint".into(), 500);
                world.storage.visible = 500;
                world
            },
            vec![started(), step(upgrade, upgraded)],
        ),
    ]
}

fn troubles() -> Vec<Story> {
    vec![
        story(
            "a program that cannot work",
            plain,
            vec![
                started(),
                step(
                    |world| world.edit(|spec| spec["program"]["sql"] = json!("broken")),
                    |world| {
                        untouched(world)?;
                        let status = world.status();
                        let rejected = status.rejected.as_ref().map(|rejected| rejected.reason.clone());
                        holds(rejected.as_deref() == Some("InvalidProgram"), "not rejected")?;
                        holds(status.history.len() == 2, "tried more than once")
                    },
                ),
                step(upgrade, upgraded),
            ],
        ),
        story(
            "a first program that cannot work",
            || World::new(with(|spec| spec["program"]["sql"] = json!("broken"))),
            vec![
                step(nothing, |world| {
                    holds(world.status().rejected.is_some() && world.coordinators.is_empty(), "not rejected")
                }),
                step(upgrade, upgraded),
            ],
        ),
        story(
            "savepoints fail, given up",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.failing = 2;
                        upgrade(world);
                    },
                    |world| {
                        untouched(world)?;
                        holds(result(world) == Some((OperationKind::Upgrade, OperationResult::Aborted)), "not aborted")
                    },
                ),
                step(|world| world.edit(|spec| spec["restartNonce"] = json!(1)), upgraded),
            ],
        ),
        story(
            "one savepoint fails",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.failing = 1;
                        upgrade(world);
                    },
                    saved,
                ),
            ],
        ),
        story(
            "savepoints hang, the last checkpoint does",
            || World::new(with(|spec| spec["upgrade"]["onSavepointFailure"] = json!("LastCheckpoint"))),
            vec![
                started(),
                step(
                    |world| {
                        world.storage.hanging = true;
                        upgrade(world);
                    },
                    |world| {
                        upgraded(world)?;
                        holds(world.objects.savepoints.is_empty(), "there is a savepoint")
                    },
                ),
            ],
        ),
        story(
            "a stop that was given up completes",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.hanging = true;
                        upgrade(world);
                    },
                    |world| holds(world.status().rejected.is_some(), "not given up"),
                ),
                Step { act: |world| world.storage.hanging = false, wait: 40, check: upgraded },
            ],
        ),
        story("rolled back", rolling, vec![stable(), step(destabilise, rolled_back)]),
        story(
            "rolled back to a checkpoint",
            || {
                let mut spec = rolling_spec();
                spec["upgrade"]["mode"] = json!("LastCheckpoint");
                World::new(spec)
            },
            vec![stable(), step(destabilise, rolled_back)],
        ),
        story(
            "upgrade from a lost node",
            || World::new(with(|spec| spec["upgrade"]["mode"] = json!("LastCheckpoint"))),
            vec![
                started(),
                Step {
                    act: |world| {
                        world.lost_node = true;
                        upgrade(world);
                    },
                    wait: 60,
                    check: |world| {
                        holds(current_sql(world) == "select 2", "the old program runs")?;
                        holds(
                            world.objects.pods.values().all(|pod| pod.metadata.deletion_timestamp.is_none()),
                            "stuck pods",
                        )
                    },
                },
            ],
        ),
    ]
}

fn rolling_spec() -> Value {
    with(|spec| {
        spec["upgrade"]["rollback"] = json!({ "enabled": true, "stableAfterCheckpoints": 3, "deadline": "30s" })
    })
}

fn rolling() -> World {
    World::new(rolling_spec())
}

fn stable() -> Step {
    step(nothing, |world| {
        settled(world)?;
        holds(world.status().stable_revision.is_some(), "not stable")
    })
}

fn destabilise(world: &mut World) {
    world.storage.may_rewind = false;
    world.edit(|spec| spec["program"]["sql"] = json!("unstable"));
}

fn rolled_back(world: &World) -> Result<(), String> {
    runs(world)?;
    holds(current_sql(world) == "select 1", "the bad program runs")?;
    let reason = world.status().rejected.map(|rejected| rejected.reason);
    holds(reason.as_deref() == Some("RolledBack"), &format!("{reason:?}"))
}

fn ends() -> Vec<Story> {
    fn delete(world: &mut World) {
        world.delete_job();
    }
    fn policy(policy: &str) -> World {
        let mut spec = spec();
        spec["deletion"] = json!({ "policy": policy, "deadline": "30s" });
        World::new(spec)
    }
    vec![
        story(
            "a finished job runs anew after an edit",
            || World::new(with(|spec| spec["program"]["sql"] = json!("bounded"))),
            vec![
                Step {
                    act: nothing,
                    wait: 15,
                    check: |world| holds(world.status().state == "Finished", "not finished"),
                },
                step(
                    |world| {
                        world.storage.may_rewind = true;
                        upgrade(world);
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "a failed job goes on after an edit",
            plain,
            vec![
                started(),
                step(
                    |world| world.edit(|spec| spec["program"]["sql"] = json!("failing")),
                    |world| holds(world.status().state == "Failed", "not failed"),
                ),
                step(upgrade, upgraded),
            ],
        ),
        story(
            "a job whose state is gone is not begun without",
            plain,
            vec![
                started(),
                step(|world| world.edit(|spec| spec["state"] = json!("Suspended")), suspended),
                Step {
                    act: |world| {
                        world.storage.journals.clear();
                        world.edit(|spec| spec["state"] = json!("Running"));
                    },
                    wait: 20,
                    check: |world| {
                        let stalled = world.status().conditions.iter().any(|it| it.reason == "NoRestorePoint");
                        holds(stalled, "it does not say so")?;
                        holds(world.coordinators.values().all(|it| it.phase == Phase::Standby), "it runs without state")
                    },
                },
            ],
        ),
        story("deleted, files kept", || policy("Retain"), vec![started(), step(delete, gone)]),
        story(
            "deleted with a savepoint",
            || policy("Savepoint"),
            vec![
                started(),
                step(delete, |world| {
                    gone(world)?;
                    holds(world.objects.savepoints.len() == 1, "no savepoint")
                }),
            ],
        ),
        story(
            "deleted with files",
            || policy("Discard"),
            vec![
                started(),
                step(delete, |world| {
                    gone(world)?;
                    holds(world.disposed, "the files are still there")
                }),
            ],
        ),
        story(
            "deleted, and its files cannot be",
            || {
                let mut world = policy("Discard");
                world.dispose_fails = true;
                world
            },
            vec![started(), step(delete, gone)],
        ),
        story(
            "deleted while savepoints hang",
            || {
                let mut world = policy("Savepoint");
                world.storage.hanging = true;
                world
            },
            vec![started(), step(delete, gone)],
        ),
        story(
            "deleted with its namespace",
            || policy("Discard"),
            vec![
                started(),
                step(
                    |world| {
                        world.namespace_terminating = true;
                        world.delete_job();
                    },
                    gone,
                ),
            ],
        ),
        story(
            "deleted in the middle of an upgrade",
            || policy("Savepoint"),
            vec![
                started(),
                step(
                    |world| {
                        world.edit(|spec| spec["image"] = json!("missing:1"));
                        world.delete_job();
                    },
                    gone,
                ),
            ],
        ),
    ]
}
