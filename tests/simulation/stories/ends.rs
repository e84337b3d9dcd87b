//! How jobs end, and what remains of them.

use super::*;

pub fn ends() -> Vec<Story> {
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
        story(
            "the restart strategy is exhausted",
            plain,
            vec![
                started(),
                step(
                    |world| world.storage.doomed = true,
                    |world| {
                        holds(world.status().state == "Failed", "not failed")?;
                        stalled(world, "Failed", "")
                    },
                ),
                step(|world| world.edit(|spec| spec["restartNonce"] = json!(1)), settled),
            ],
        ),
        story(
            "a failed job whose checkpoints are gone begins anew only if told to",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.doomed = true;
                        world.storage.forgetful = true;
                    },
                    |world| holds(world.status().state == "Failed", "not failed"),
                ),
                step(upgrade, |world| {
                    stalled(world, "NoRestorePoint", "Stateless")?;
                    holds(world.storage.takeovers == 1, "it runs without state")
                }),
                step(|world| world.edit(|spec| spec["upgrade"]["mode"] = json!("Stateless")), upgraded),
            ],
        ),
        story(
            "deleted with a savepoint, nobody answers",
            || policy("Savepoint"),
            vec![
                started(),
                step(
                    |world| {
                        world.mute = i64::MAX;
                        delete(world);
                    },
                    left_behind,
                ),
            ],
        ),
        story(
            "deleted with a savepoint, the storage is gone",
            || policy("Savepoint"),
            vec![
                started(),
                step(
                    |world| {
                        world.storage.failing = u32::MAX;
                        delete(world);
                    },
                    left_behind,
                ),
            ],
        ),
        story(
            "deleted with its namespace, a savepoint is wanted",
            || policy("Savepoint"),
            vec![
                started(),
                step(
                    |world| {
                        world.namespace_terminating = true;
                        delete(world);
                    },
                    gone,
                ),
            ],
        ),
        story(
            "deleted with its namespace in the middle of an upgrade",
            || policy("Discard"),
            vec![
                started(),
                step(
                    |world| {
                        upgrade(world);
                        world.later(2, |world| {
                            world.namespace_terminating = true;
                            world.delete_job();
                        });
                    },
                    gone,
                ),
            ],
        ),
        story(
            "deleted while suspended",
            || policy("Discard"),
            vec![
                started(),
                step(suspend, suspended),
                step(delete, |world| {
                    gone(world)?;
                    holds(world.disposed, "the files are still there")
                }),
            ],
        ),
        story(
            "deleted before it ever ran",
            || {
                let mut spec = spec();
                spec["image"] = json!("missing:1");
                spec["deletion"] = json!({ "policy": "Savepoint", "deadline": "30s" });
                World::new(spec)
            },
            vec![step(|world| world.later(6, World::delete_job), gone)],
        ),
    ]
}

/// The job is gone without a savepoint, and an event says so.
fn left_behind(world: &World) -> Result<(), String> {
    holds(world.objects.job.is_none(), "the finalizer is stuck")?;
    holds(world.objects.savepoints.is_empty(), "there is a savepoint")?;
    holds(!world.faultless || world.events.iter().any(|reason| reason == "SavepointFailed"), "nobody was told")
}
