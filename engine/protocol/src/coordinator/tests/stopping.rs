//! Stopping with a savepoint, drained or not, what happens in between, and who takes over what was begun.

use super::savepoints::*;
use super::world::*;
use crate::coordinator::*;
use crate::ids::{CheckpointId, WorkerId};
use crate::journal::{AfterSavepoint, EndState, JournalEntry, SavepointOutcome};

#[test]
fn of_two_stops_the_second_is_refused_and_plain_ones_are_not() {
    let mut world = World::running(patient());
    for first in [STOP, DRAIN] {
        world.held.insert(Hold::Drains);
        ask(&mut world, &format!("{first:?}"), first);
        ask(&mut world, &format!("second after {first:?}"), STOP);
        ask(&mut world, &format!("third after {first:?}"), DRAIN);
        let reason = failure(&world, &format!("second after {first:?}"));
        assert!(reason.contains("stopping already") && reason.contains(&format!("{first:?}")), "{reason}");
        failure(&world, &format!("third after {first:?}"));
        assert_eq!(outcome(&world, &format!("{first:?}")), Outcome::InProgress);
        if first == STOP {
            ask(&mut world, "plain", AfterSavepoint::GoOn);
            let (plain, _) = under_way(&world);
            world.ack_all(plain);
            completed(&world, "plain");
            world.decline(task(0, 0), plain - 1, DeclineReason::TaskClosing);
            failure(&world, "Stop { drain: false }");
        }
    }
}

#[test]
fn r48_stop_commits_once_its_entry_stands_and_ends_the_job() {
    let mut world = World::running(config(pipeline()));
    let older = world.complete_one();
    ask(&mut world, "stop", STOP);
    let (id, directory) = under_way(&world);
    assert!(world.barriers().last().unwrap().last, "nothing follows the barrier");
    let before = world.triggers().len();
    world.advance(5_000);
    assert_eq!(world.triggers().len(), before, "no checkpoint begins beside a stop");
    world.held.insert(Hold::AppendJournal);
    world.ack_all(id);
    assert!(!notified(&world, id));
    world.release(Hold::AppendJournal);
    assert_eq!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, reason: None }));
    assert_eq!(completed(&world, "stop"), directory);
    assert_eq!(world.checkpoints(), [id], "what the next revision goes on from");
    assert!(!world.state().owns(id));
    let deletions: Vec<_> = world
        .log
        .iter()
        .filter_map(|action| match action {
            Action::DeleteCheckpoint { checkpoint, location, .. } => Some((*checkpoint, location.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(deletions, [(older, None)]);
    assert!(deleted(&world).is_empty());
    // The same revision has nothing to run, the next one goes on behind the savepoint.
    world.replace(successor(1));
    world.start();
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, .. })));
    assert!(world.deployments().is_empty());
    assert_eq!(
        (world.job_state(), completed(&world, "stop")),
        (JobState::Finished, directory.clone()),
        "it is told again"
    );
    assert_eq!(world.machine.newest_restore_point(), Some((id, Some(directory.clone()))));
    world.replace(successor(2));
    world.start();
    let (.., restore) = &world.deployed[&task(1, 1)];
    assert_eq!((restore.checkpoint, restore.stopped), (Some(id), false));
    let load = world.position(|action| {
        matches!(action, Action::LoadManifest { checkpoint, location: Some(from), .. } if *checkpoint == id && *from == directory)
    });
    assert!(load.is_some());
    // Once there are enough own checkpoints, the journal forgets it; its files stay.
    let next = world.complete_one();
    assert_eq!(world.checkpoints(), [next]);
    assert!(position_of(&world, |entry| *entry == JournalEntry::Discarded { checkpoint: id }).is_some());
    assert!(world.position(|action| matches!(action, Action::DeleteCheckpoint { .. })).is_none());
}

#[test]
fn a_stop_that_fails_leaves_the_job_running_and_its_directory_goes() {
    type Harm = fn(&mut World, CheckpointId);
    let harms: [(&str, Harm); 4] = [
        ("declined", |world, id| world.decline(task(1, 0), id, DeclineReason::TaskClosing)),
        ("expired", |world, _| world.advance(TIMEOUT_MS + 10)),
        ("finished before", |world, _| world.status(task(0, 0), TaskStatus::Finished)),
        ("manifest", |world, id| {
            world.held.insert(Hold::WriteManifest);
            world.ack_all(id);
            let result = Err(StoreError::Unavailable("disk full".into()));
            world.send(Event::ManifestWritten { checkpoint: id, result });
            world.open.clear();
            world.held.clear();
        }),
    ];
    for (named, harm) in harms {
        let mut world = World::running(config(pipeline()));
        ask(&mut world, "stop", STOP);
        let (id, directory) = under_way(&world);
        harm(&mut world, id);
        assert!(failure(&world, "stop").contains(named), "{named}: {}", failure(&world, "stop"));
        assert!(
            world
                .position(|action| matches!(action, Action::NotifyAborted { checkpoint, .. } if *checkpoint == id))
                .is_some()
        );
        assert_eq!(deleted(&world), [directory]);
        assert_eq!((world.machine.view().restarts, world.job_state()), (0, JobState::Running), "{named}");
        world.advance(1_000);
        assert!(*world.triggers().last().unwrap() > id, "{named}: checkpoints go on");
        ask(&mut world, "again", STOP);
        let (id, _) = under_way(&world);
        world.ack_all(id);
        completed(&world, "again");
    }
}

#[test]
fn r48_a_worker_lost_in_any_step_of_a_stop_leads_to_the_savepoint_or_to_a_running_job() {
    for at in STEPS {
        let mut world = world_at(at, STOP);
        world.send(Event::WorkerLost { worker: WorkerId(1), reason: "gone".into() });
        release_all(&mut world);
        world.advance(300);
        match at {
            At::Collecting | At::WritingManifest => {
                failure(&world, "a");
                assert!(world.exit.is_none() && world.job_state() == JobState::Running, "{at:?}");
                assert!(!world.deployed[&task(0, 0)].2.stopped);
            }
            At::Journaling | At::Waiting => {
                let (id, _) = under_way(&world);
                world.ack_all(id);
                completed(&world, "a");
                assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, .. })), "{at:?}");
            }
            At::EntryOnItsWay | At::Stopping => {
                let (id, _) = under_way(&world);
                completed(&world, "a");
                let (.., restore) = &world.deployed[&task(1, 0)];
                assert_eq!((restore.checkpoint, restore.stopped), (Some(id), true), "{at:?}: only to commit");
                assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, .. })), "{at:?}");
            }
        }
    }
}

#[test]
fn cancel_in_any_step_of_a_stop_cancels_the_job() {
    for at in STEPS {
        let mut world = world_at(at, STOP);
        world.send(Event::Request(Request::Cancel));
        release_all(&mut world);
        world.advance(300);
        assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })), "{at:?}");
        let done = matches!(at, At::EntryOnItsWay | At::Stopping);
        assert_eq!(matches!(outcome(&world, "a"), Outcome::Completed(_)), done, "{at:?}");
        let records = world.state().savepoints;
        assert!(records.iter().all(|record| record.outcome != SavepointOutcome::Started), "{at:?}: {records:?}");
    }
}

#[test]
fn suspend_in_any_step_of_a_stop_keeps_what_was_decided() {
    for at in STEPS {
        let mut world = world_at(at, STOP);
        world.send(Event::Request(Request::Suspend));
        release_all(&mut world);
        if let Some(last) = world
            .barriers()
            .into_iter()
            .find(|barrier| barrier.last && matches!(barrier.kind, SnapshotKind::Checkpoint { .. }))
        {
            world.ack_all(last.checkpoint);
        }
        world.advance(300);
        assert!(matches!(world.exit, Some(ExitReason::Suspended { .. })), "{at:?}: {:?}", world.exit);
        let done = matches!(at, At::EntryOnItsWay | At::Stopping);
        assert_eq!(world.state().stopped.is_some(), done, "{at:?}");
        assert_eq!(matches!(outcome(&world, "a"), Outcome::Completed(_)), done, "{at:?}");
        let newest = world.state().latest_checkpoint();
        assert!(!done || newest == world.state().stopped, "{at:?}: nothing is newer than the savepoint");
        world.replace(successor(1));
        world.start();
        assert_eq!(world.deployed[&task(0, 0)].2.stopped, done, "{at:?}");
        assert_eq!(world.exit.is_some(), done, "{at:?}: a resumed stop commits and ends");
    }
}

#[test]
fn a_successor_of_the_same_revision_takes_it_anew_in_another_directory() {
    for at in STEPS {
        for then in [AfterSavepoint::GoOn, STOP] {
            let mut world = world_at(at, then);
            let first = world.state().savepoints.first().map(|record| record.location.clone());
            let decided = at == At::Stopping;
            world.held.clear();
            world.replace(successor(1));
            world.start();
            match first {
                None => assert!(world.machine.view().savepoints.is_empty(), "nobody knows of it"),
                Some(first) if decided => {
                    assert_eq!(completed(&world, "a"), first);
                    assert!(deleted(&world).is_empty());
                    assert_eq!(world.exit.is_some(), then.stops());
                }
                Some(first) => {
                    assert_eq!(deleted(&world), std::slice::from_ref(&first), "{at:?}");
                    // A client that asks again gets the same.
                    ask(&mut world, "a", then);
                    let (id, second) = under_way(&world);
                    assert_ne!(first, second);
                    world.ack_all(id);
                    assert_eq!(completed(&world, "a"), second);
                }
            }
        }
    }
}

#[test]
fn a_successor_of_a_later_revision_fails_it() {
    for at in [At::Waiting, At::Collecting, At::WritingManifest, At::EntryOnItsWay] {
        let mut world = world_at(at, STOP);
        let location = world.state().savepoints[0].location.clone();
        world.held.clear();
        world.replace(successor(2));
        world.start();
        assert!(failure(&world, "a").contains("later revision"), "{at:?}");
        assert_eq!(deleted(&world), [location]);
        assert!(world.triggers().is_empty() && world.job_state() == JobState::Running);
    }
}

fn drains(world: &World) -> Vec<Vec<crate::ids::TaskId>> {
    let tasks = |action: &Action| match action {
        Action::DrainSources { tasks } => Some(tasks.iter().map(|(_, task, _)| *task).collect()),
        _ => None,
    };
    world.log.iter().filter_map(tasks).collect()
}

#[test]
fn r48_drain_ends_the_sources_first_and_takes_the_savepoint_when_all_is_drained() {
    let mut world = World::running(config(pipeline()));
    ask(&mut world, "drain", DRAIN);
    assert_eq!(drains(&world), [vec![task(0, 0), task(0, 1)]]);
    world.status(task(1, 0), TaskStatus::Drained);
    world.advance(3 * TIMEOUT_MS);
    assert!(world.triggers().is_empty(), "draining takes as long as it takes, and no checkpoint covers part of it");
    world.status(task(1, 1), TaskStatus::Drained);
    let (id, _) = under_way(&world);
    assert!(world.barriers()[0].last);
    for acked in [task(0, 0), task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, id, &[], true);
    }
    completed(&world, "drain");
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, .. })));
    assert_eq!(drains(&world).len(), 1);
}

#[test]
fn a_drained_job_whose_savepoint_fails_starts_again_from_its_latest_checkpoint() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    ask(&mut world, "drain", DRAIN);
    // A failure of another savepoint meanwhile does not make it forget who was drained.
    ask(&mut world, "plain", AfterSavepoint::GoOn);
    assert_eq!(world.triggers(), [checkpoint], "a plain one would hold drained sources");
    world.advance(TIMEOUT_MS + 10);
    failure(&world, "plain");
    world.status(task(1, 0), TaskStatus::Drained);
    world.status(task(1, 1), TaskStatus::Drained);
    let (id, _) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    failure(&world, "drain");
    assert_eq!((world.job_state(), world.machine.view().restarts), (JobState::Running, 0));
    assert_eq!(world.deployments().len(), 2);
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(checkpoint) && !restore.stopped));
}

#[test]
fn sources_that_restart_while_the_job_drains_are_told_again() {
    let mut world = World::running(config(pipeline()));
    ask(&mut world, "drain", DRAIN);
    world.fail(task(1, 0));
    world.advance(200);
    assert_eq!(drains(&world).len(), 2);
    assert_eq!(outcome(&world, "drain"), Outcome::InProgress);
}

#[test]
fn a_job_suspended_while_it_drains_takes_no_checkpoint_of_drained_sources() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    ask(&mut world, "drain", DRAIN);
    world.send(Event::Request(Request::Suspend));
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: Some(checkpoint) }));
    assert_eq!(world.triggers(), [checkpoint]);
    assert!(world.machine.view().reason.clone().unwrap().contains("drained"));
}

#[test]
fn a_damaged_savepoint_does_not_keep_the_job_from_going_on() {
    let mut world = world_at(At::Stopping, STOP);
    let (id, _) = under_way(&world);
    world.held.clear();
    world.replace(successor(1));
    world.manifests.remove(&id);
    world.start();
    assert_eq!(world.job_state(), JobState::Running);
    assert!(
        world
            .reports()
            .iter()
            .any(|report| matches!(report, Report::CheckpointSkipped { checkpoint, .. } if *checkpoint == id))
    );
    for _ in 0..3 {
        world.complete_one();
    }
    ask(&mut world, "b", STOP);
    let (id, _) = under_way(&world);
    world.ack_all(id);
    completed(&world, "b");
}
