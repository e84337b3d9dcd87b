//! Changes that people make to a job.

use super::*;

pub fn changes() -> Vec<Story> {
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
        story(
            "begin from the newest restore point of a deleted job",
            || {
                let from = json!({ "latestRetained": { "jobName": "before" } });
                let mut spec = spec();
                spec["restoreFrom"] = from;
                let mut world = World::new(spec);
                world.storage.savepoints.insert("elsewhere/chk".into(), 500);
                world.storage.retained.insert("before".into(), "elsewhere/chk".into());
                world.storage.visible = 500;
                world
            },
            vec![started(), step(upgrade, upgraded)],
        ),
        story(
            "begin from a savepoint that is made later",
            || {
                let mut world =
                    World::new(with(|spec| spec["restoreFrom"] = json!({ "savepointRef": { "name": "monday" } })));
                world.storage.savepoints.insert("elsewhere/savepoint".into(), 500);
                world.storage.visible = 500;
                world
            },
            vec![
                step(nothing, |world| {
                    let status = world.status();
                    let ready = status.conditions.iter().find(|it| it.type_ == "Ready").map(|it| it.reason.clone());
                    holds(ready.as_deref() == Some("SavepointNotReady"), &format!("{ready:?}"))?;
                    holds(world.coordinators.is_empty(), "it was begun")
                }),
                step(|world| world.ask_for_savepoint("monday", Some("elsewhere/savepoint"), true), settled),
            ],
        ),
        story(
            "options change while the job runs",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.edit(|spec| {
                            spec["checkpoint"]["interval"] = json!("7s");
                            spec["restartStrategy"] = json!({ "fixedDelay": { "attempts": 9 } });
                        });
                    },
                    live,
                ),
                // The process that comes back reads the job file as it was.
                Step { act: World::kill_coordinators, wait: 10, check: live },
            ],
        ),
        story(
            "three edits in a row",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.edit(|spec| spec["program"]["sql"] = json!("select 3"));
                        world.later(2, |world| world.edit(|spec| spec["parallelism"] = json!(2)));
                        world.later(5, upgrade);
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "suspended and resumed in the middle of an upgrade",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        upgrade(world);
                        world.later(3, suspend);
                        world.later(12, resume);
                    },
                    upgraded,
                ),
            ],
        ),
        story(
            "pods scaled by hand",
            plain,
            vec![
                started(),
                step(
                    |world| world.scale("job-w1", 4),
                    |world| {
                        untouched(world)?;
                        let workers = world.objects.pods.keys().filter(|name| name.starts_with("job-w1-")).count();
                        holds(workers == 1, &format!("{workers} workers"))
                    },
                ),
                step(|world| world.scale("job-c1", 0), untouched),
            ],
        ),
        story(
            "pods scaled by hand while an upgrade waits",
            plain,
            vec![
                started(),
                step(|world| world.edit(|spec| spec["image"] = json!("missing:1")), waits),
                step(|world| world.scale("job-w1", 0), waits),
            ],
        ),
    ]
}

/// The first revision runs with the new options.
fn live(world: &World) -> Result<(), String> {
    untouched(world)?;
    settled(world)?;
    let options =
        world.coordinators.get(&1).map(|coordinator| format!("{:?}", coordinator.options)).unwrap_or_default();
    holds(options.contains("7000") && options.contains("attempts: 9"), &options)
}
