//! What goes wrong without anybody wanting it.

use super::*;

pub fn troubles() -> Vec<Story> {
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
            || {
                World::new(with(|spec| {
                    spec["upgrade"]["onSavepointFailure"] = json!("LastCheckpoint");
                    spec["upgrade"]["savepointTimeout"] = json!("8s");
                }))
            },
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
            impatient,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.hanging = true;
                        upgrade(world);
                    },
                    // A coordinator that dies meanwhile is not waited for.
                    |world| {
                        let went_on = current_sql(world) == "select 2";
                        holds(went_on || world.status().rejected.is_some(), "not given up")
                    },
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
        story(
            "upgrade without state from a lost node",
            || World::new(with(|spec| spec["upgrade"]["mode"] = json!("Stateless"))),
            vec![
                started(),
                Step {
                    act: |world| {
                        world.lost_node = true;
                        world.mute = 1;
                        upgrade(world);
                    },
                    wait: 80,
                    check: |world| holds(current_sql(world) == "select 2", "the old program runs"),
                },
            ],
        ),
        story(
            "an object is refused",
            plain,
            vec![
                started(),
                step(
                    |world| world.edit(|spec| spec["image"] = json!("forbidden:1")),
                    |world| {
                        untouched(world)?;
                        stalled(world, "ObjectRefused", "Deployment job-c2")
                    },
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
            "an object of the first revision is refused",
            || World::new(with(|spec| spec["image"] = json!("forbidden:1"))),
            vec![
                step(nothing, |world| stalled(world, "ObjectRefused", "Deployment job-c1")),
                step(|world| world.edit(|spec| spec["image"] = json!("good:1")), settled),
            ],
        ),
        story(
            "a savepoint directory that cannot be written is repaired by an edit",
            || {
                World::new(with(|spec| {
                    spec["storage"]["savepointDir"] = json!("/nowhere/x");
                    // Long enough that nobody waits for it.
                    spec["upgrade"]["savepointTimeout"] = json!("10m");
                }))
            },
            vec![
                started(),
                step(upgrade, |world| {
                    untouched(world)?;
                    stalled(world, "SavepointFailed", "/nowhere/x cannot be written")
                }),
                step(|world| world.edit(|spec| spec["storage"]["savepointDir"] = json!("/streamjob/state/s")), saved),
            ],
        ),
        story(
            "a job that cannot be saved is not suspended until it can be",
            || World::new(with(|spec| spec["storage"]["savepointDir"] = json!("/nowhere/x"))),
            vec![
                started(),
                step(suspend, |world| {
                    untouched(world)?;
                    stalled(world, "SavepointFailed", "/nowhere/x cannot be written")
                }),
                step(
                    |world| world.edit(|spec| spec["storage"]["savepointDir"] = json!("/streamjob/state/s")),
                    suspended,
                ),
                step(resume, settled),
            ],
        ),
        story(
            "rolled back without state",
            || {
                let mut spec = rolling_spec();
                spec["upgrade"]["mode"] = json!("Stateless");
                World::new(spec)
            },
            vec![
                stable(),
                step(destabilise, |world| {
                    rolled_back(world)?;
                    let message = world.status().rejected.map(|rejected| rejected.message).unwrap_or_default();
                    holds(message.contains("without the state"), &message)
                }),
                step(upgrade, upgraded),
            ],
        ),
        story(
            "rolled back, and corrected",
            rolling,
            vec![stable(), step(destabilise, rolled_back), step(upgrade, upgraded)],
        ),
        story(
            "a bad program that fails is rolled back",
            rolling,
            vec![stable(), step(|world| world.edit(|spec| spec["program"]["sql"] = json!("failing")), rolled_back)],
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
    Step {
        act: nothing,
        wait: 40,
        check: |world| {
            settled(world)?;
            holds(world.status().stable_revision.is_some(), "not stable")
        },
    }
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
