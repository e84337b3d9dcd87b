//! Savepoints as resources: on demand, adopted, by schedule; and what becomes of their files.

use super::*;
use streamjob_operator::api::{SavepointPhase, SavepointStatus};

pub fn savepoints() -> Vec<Story> {
    vec![
        story(
            "a savepoint on demand, and its end",
            plain,
            vec![started(), step(ask, complete), step(|world| world.delete_savepoint("monday"), deleted)],
        ),
        story(
            "a savepoint is deleted when there is no job any more",
            || World::new(with(|spec| spec["deletion"] = json!({ "policy": "Retain", "deadline": "30s" }))),
            vec![
                started(),
                step(ask, complete),
                step(World::delete_job, |world| {
                    gone(world)?;
                    holds(taken(world), "its files went with the job")
                }),
                step(|world| world.delete_savepoint("monday"), without_files),
            ],
        ),
        story(
            "a savepoint is deleted with its job",
            || World::new(with(|spec| spec["deletion"] = json!({ "policy": "Retain", "deadline": "30s" }))),
            vec![
                started(),
                step(ask, complete),
                step(
                    |world| {
                        world.delete_savepoint("monday");
                        world.delete_job();
                    },
                    without_files,
                ),
            ],
        ),
        story(
            "an adopted savepoint",
            || {
                let mut world = plain();
                world.storage.savepoints.insert("elsewhere/savepoint-9".into(), 0);
                world
            },
            vec![
                started(),
                step(
                    |world| world.ask_for_savepoint("monday", Some("elsewhere/savepoint-9"), false),
                    |world| {
                        let status = status(world)?;
                        holds(
                            status.phase == SavepointPhase::Completed && status.files.is_some(),
                            &format!("{status:?}"),
                        )?;
                        holds(world.storage.taken == 0, "another one was taken")
                    },
                ),
                step(|world| world.delete_savepoint("monday"), without_files),
            ],
        ),
        story(
            "files that shall stay",
            plain,
            vec![
                started(),
                step(|world| world.ask_for_savepoint("monday", None, true), complete),
                step(
                    |world| world.delete_savepoint("monday"),
                    |world| holds(world.objects.savepoints.is_empty() && taken(world), "they went with the resource"),
                ),
            ],
        ),
        story(
            "a savepoint for a job that comes later",
            || World::new(with(|spec| spec["state"] = json!("Suspended"))),
            vec![
                step(ask, |world| holds(status(world)?.phase == SavepointPhase::Pending, "not pending")),
                step(resume, complete),
            ],
        ),
        story(
            "a savepoint during an upgrade",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        upgrade(world);
                        ask(world);
                    },
                    |world| {
                        upgraded(world)?;
                        let phase = status(world)?.phase;
                        holds(phase == SavepointPhase::Completed, &format!("{phase:?}"))
                    },
                ),
            ],
        ),
        story(
            "a savepoint that fails",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.failing = 1;
                        ask(world);
                    },
                    |world| failed(world, "the disk is full"),
                ),
            ],
        ),
        story(
            "a savepoint that is refused",
            || World::new(with(|spec| spec["storage"]["savepointDir"] = json!("/nowhere/x"))),
            vec![
                started(),
                step(ask, |world| failed(world, "/nowhere/x cannot be written")),
                step(
                    |world| {
                        world.edit(|spec| spec["storage"]["savepointDir"] = json!("/streamjob/state/s"));
                        world.delete_savepoint("monday");
                        // By then the name is free, also if nobody has heard of it for a while.
                        world.later(30, ask);
                    },
                    complete,
                ),
            ],
        ),
        story(
            "a savepoint that never ends",
            impatient,
            vec![
                started(),
                step(
                    |world| {
                        world.storage.hanging = true;
                        ask(world);
                    },
                    |world| failed(world, "within 8 s"),
                ),
            ],
        ),
        story(
            "a savepoint that is deleted while it is taken",
            plain,
            vec![
                started(),
                step(
                    |world| {
                        ask(world);
                        world.later(3, |world| world.delete_savepoint("monday"));
                    },
                    |world| {
                        untouched(world)?;
                        holds(world.objects.savepoints.is_empty(), "it is still there")
                    },
                ),
            ],
        ),
        story(
            "the savepoint that a suspended job comes back from",
            plain,
            vec![
                started(),
                step(suspend, suspended),
                step(
                    |world| {
                        let names: Vec<String> = world.objects.savepoints.keys().cloned().collect();
                        names.iter().for_each(|name| world.delete_savepoint(name));
                    },
                    |world| {
                        let used = world.objects.savepoints.values().filter_map(|savepoint| savepoint.status.clone());
                        let used = used.flat_map(|status| status.conditions).any(|it| it.reason == "InUse");
                        holds(used, "its files go although the job needs them")
                    },
                ),
                Step {
                    act: resume,
                    wait: 30,
                    check: |world| {
                        settled(world)?;
                        holds(world.objects.savepoints.is_empty(), "it is not deleted")
                    },
                },
            ],
        ),
        story(
            "savepoints by schedule",
            || {
                let retain = json!({ "count": 1 });
                let mut spec = spec();
                spec["savepoints"] = json!({ "schedule": "* * * * *", "retain": retain });
                World::new(spec)
            },
            vec![
                started(),
                Step {
                    act: nothing,
                    wait: 190,
                    check: |world| {
                        untouched(world)?;
                        let (resources, files) = (world.objects.savepoints.len(), world.storage.savepoints.len());
                        holds(world.storage.taken >= 3, &format!("{} were taken", world.storage.taken))?;
                        holds(resources <= 2 && files == resources, &format!("{resources} resources, {files} files"))
                    },
                },
            ],
        ),
    ]
}

fn ask(world: &mut World) {
    world.ask_for_savepoint("monday", None, false);
}

fn status(world: &World) -> Result<SavepointStatus, String> {
    let savepoint = world.objects.savepoints.get("monday").ok_or("there is no savepoint")?;
    Ok(savepoint.status.clone().unwrap_or_default())
}

fn taken(world: &World) -> bool {
    !world.storage.savepoints.is_empty()
}

fn complete(world: &World) -> Result<(), String> {
    untouched(world)?;
    let status = status(world)?;
    holds(status.phase == SavepointPhase::Completed, &format!("{:?}: {:?}", status.phase, status.error))?;
    let path = status.path.unwrap_or_default();
    holds(world.storage.savepoints.contains_key(&path), "there are no files")?;
    let its = |id| path.ends_with(&format!("-{id}"));
    holds(status.checkpoint_id.is_some_and(its), &format!("{path} is checkpoint {:?}", status.checkpoint_id))?;
    holds(world.storage.taken == 1, &format!("{} savepoints were taken", world.storage.taken))
}

fn failed(world: &World, words: &str) -> Result<(), String> {
    holds(world.coordinators.values().all(|it| it.phase == Phase::Running), "the job does not run")?;
    let status = status(world)?;
    let error = status.error.unwrap_or_default();
    holds(status.phase == SavepointPhase::Failed && error.contains(words), &format!("{:?}: {error}", status.phase))
}

fn deleted(world: &World) -> Result<(), String> {
    untouched(world)?;
    without_files(world)
}

fn without_files(world: &World) -> Result<(), String> {
    holds(world.objects.savepoints.is_empty(), "the finalizer is stuck")?;
    holds(!taken(world), "the files are left")?;
    holds(!world.events.iter().any(|reason| reason == "FilesLeft"), "an event says that files are left")
}
