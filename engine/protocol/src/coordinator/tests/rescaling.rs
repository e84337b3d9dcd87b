//! Another parallelism in place, and options that change while the job runs.

use super::world::*;
use crate::coordinator::*;
use crate::ids::WorkerId;
use crate::journal::{AfterSavepoint, EndState, JournalEntry};
use streamjob_api::config::{CheckpointConfig, RestartStrategy};

fn ask(world: &mut World, trigger: &str, parallelism: u32) {
    world.send(Event::Request(Request::Rescale { trigger: trigger.into(), parallelism }));
}

fn outcome(world: &World, trigger: &str) -> Outcome<u32> {
    let views = &world.machine.view().rescales;
    views.iter().find(|view| view.trigger == trigger).expect("not shown").outcome.clone()
}

fn failure(world: &World, trigger: &str) -> String {
    match outcome(world, trigger) {
        Outcome::Failed(reason) => reason,
        other => panic!("{trigger} has not failed: {other:?}"),
    }
}

fn successor(revision: u64) -> CoordinatorConfig {
    CoordinatorConfig { claimant: format!("successor of revision {revision}"), revision, ..config(pipeline()) }
}

fn deploys(world: &World) -> Vec<(u32, usize)> {
    let size = |action: &Action| match action {
        Action::Deploy { parallelism, tasks, .. } => Some((*parallelism, tasks.len())),
        _ => None,
    };
    world.log.iter().filter_map(size).collect()
}

/// Steps of a change of parallelism at which something else happens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Planning,
    Cutting,
    CutOnItsWay,
    /// The cut is complete, the new parallelism not yet journaled.
    Deciding,
    /// Tasks of the old plan still run.
    Switching,
    /// Tasks of the new plan are being started.
    Starting,
}

const STEPS: [At; 6] = [At::Planning, At::Cutting, At::CutOnItsWay, At::Deciding, At::Switching, At::Starting];

fn world_at(at: At, parallelism: u32) -> World {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    match at {
        At::Planning => {
            world.held.insert(Hold::Plan);
        }
        At::CutOnItsWay | At::Switching => {
            world.held.insert(Hold::Ends);
        }
        At::Deciding | At::Starting | At::Cutting => {}
    }
    ask(&mut world, "r", parallelism);
    let Some(cut) = world.barriers().into_iter().find(|barrier| barrier.last) else {
        assert_eq!(at, At::Planning);
        return world;
    };
    match at {
        At::Planning | At::Cutting => {}
        At::CutOnItsWay => {
            world.held.insert(Hold::AppendJournal);
            world.ack_all(cut.checkpoint);
        }
        At::Deciding => {
            // The cut's entry is written, the next one is held back.
            world.held.insert(Hold::AppendJournal);
            world.ack_all(cut.checkpoint);
            let Some(Action::AppendJournal { seq, entry }) = world.open.pop_front() else { panic!("no entry") };
            let outcome = world.append(seq, entry);
            world.send(Event::JournalAppended { seq, outcome });
        }
        At::Switching => world.ack_all(cut.checkpoint),
        At::Starting => {
            world.held.insert(Hold::Tasks);
            world.ack_all(cut.checkpoint);
        }
    }
    world
}

fn release_all(world: &mut World) {
    for hold in [Hold::Plan, Hold::AppendJournal, Hold::Tasks, Hold::Ends] {
        if world.held.contains(&hold) {
            world.release(hold);
        }
    }
}

#[test]
fn r74_another_parallelism_from_a_cut_behind_which_nothing_follows() {
    for (parallelism, tasks) in [(1, 2), (3, 6), (4, 8)] {
        let mut world = World::running(config(pipeline()));
        ask(&mut world, "r", parallelism);
        let cut = world.barriers().pop().unwrap();
        assert!(cut.last);
        world.advance(2_500);
        assert_eq!(world.triggers(), [cut.checkpoint], "no checkpoint begins beside the cut");
        world.ack_all(cut.checkpoint);
        assert_eq!(outcome(&world, "r"), Outcome::Completed(parallelism));
        assert_eq!(deploys(&world), [(2, 4), (parallelism, tasks)]);
        let journaled = world
            .position(|action| matches!(action, Action::AppendJournal { entry: JournalEntry::Rescaled { .. }, .. }))
            .unwrap();
        let deployed = world.log.iter().rposition(|action| matches!(action, Action::Deploy { .. })).unwrap();
        assert!(journaled < deployed, "a successor has to know the plan before anything runs by it");
        assert_eq!(world.deployed[&task(0, parallelism - 1)].2.checkpoint, Some(cut.checkpoint));
        assert_eq!((world.machine.view().parallelism, world.machine.view().restarts), (parallelism, 0));
        let next = *world.triggers().last().unwrap();
        for number in 0..parallelism {
            world.ack(task(0, number), next, &[], false);
            world.ack(task(1, number), next, &[], false);
        }
        assert_eq!(world.checkpoints(), [next]);
        ask(&mut world, "r", 2);
        ask(&mut world, "same", parallelism);
        assert_eq!(outcome(&world, "same"), Outcome::Completed(parallelism));
        assert_eq!(deploys(&world).len(), 2, "a repeated request changes nothing");
    }
}

#[test]
fn what_cannot_be_is_refused_and_the_job_runs_on() {
    let mut world = World::running(config(pipeline()));
    for (parallelism, why) in [(0, "not between 1"), (129, "max parallelism 128"), (5, "the workers have 4")] {
        ask(&mut world, &format!("to {parallelism}"), parallelism);
        let reason = failure(&world, &format!("to {parallelism}"));
        assert!(reason.contains(why), "{reason}");
    }
    world.send(Event::WorkerRegistered { worker: WorkerId(3), slots: 100 });
    ask(&mut world, "unplannable", 99);
    assert!(failure(&world, "unplannable").contains("nobody can"));
    ask(&mut world, "first", 3);
    ask(&mut world, "second", 4);
    assert!(failure(&world, "second").contains("being rescaled to 3 already"));
    assert_eq!(outcome(&world, "first"), Outcome::InProgress);
    let mut off = config(pipeline());
    off.checkpoint.interval_ms = None;
    let mut world = World::running(off);
    ask(&mut world, "r", 1);
    assert!(failure(&world, "r").contains("spec.checkpoint.interval"));
    let mut world = World::running(config(pipeline()));
    let (trigger, directory) = ("s".to_owned(), "/s".to_owned());
    let then = AfterSavepoint::Stop { drain: false };
    world.send(Event::Request(Request::Savepoint { trigger, directory, then }));
    ask(&mut world, "r", 1);
    assert!(failure(&world, "r").contains("stopping with a savepoint"));
    assert_eq!(world.job_state(), JobState::Running);
}

#[test]
fn a_plan_that_needs_more_slots_than_there_are_is_refused() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::Plan);
    ask(&mut world, "r", 3);
    // A vertex may have a parallelism of its own.
    let plan = plan(&[3, 7], &[(0, 1, crate::plan::ExchangePattern::AllToAll)]);
    world.send(Event::Planned { parallelism: 3, result: Ok(Box::new(plan)) });
    assert!(failure(&world, "r").contains("needs 7 slots"));
    assert!(world.triggers().is_empty());
}

#[test]
fn a_cut_that_fails_leaves_everything_as_it_was() {
    let mut world = world_at(At::Cutting, 3);
    let cut = *world.triggers().last().unwrap();
    world.decline(task(1, 0), cut, DeclineReason::TaskClosing);
    assert!(failure(&world, "r").contains("the checkpoint before it failed"));
    assert!(
        world
            .position(|action| matches!(action, Action::NotifyAborted { checkpoint, .. } if *checkpoint == cut))
            .is_some()
    );
    assert_eq!((deploys(&world).len(), world.state().parallelism), (1, None));
    world.complete_one();
    ask(&mut world, "again", 3);
    let cut = *world.triggers().last().unwrap();
    world.ack_all(cut);
    assert_eq!(outcome(&world, "again"), Outcome::Completed(3));
}

#[test]
fn a_worker_lost_in_any_step_leads_to_the_old_or_to_the_new_parallelism() {
    for at in STEPS {
        let mut world = world_at(at, 1);
        world.send(Event::WorkerLost { worker: WorkerId(1), reason: "gone".into() });
        release_all(&mut world);
        world.advance(300);
        if at == At::Planning {
            let cut = *world.triggers().last().unwrap();
            world.ack_all(cut);
        }
        let expected = if at == At::Cutting { 2 } else { 1 };
        assert_eq!(world.machine.view().parallelism, expected, "{at:?}");
        assert_eq!(world.job_state(), JobState::Running, "{at:?}");
        assert_eq!(outcome(&world, "r") == Outcome::Completed(1), expected == 1, "{at:?}");
        let restored = world.deployed[&task(0, 0)].2.checkpoint;
        assert_eq!(restored, world.state().latest_checkpoint(), "{at:?}");
    }
}

#[test]
fn a_successor_goes_on_with_what_the_journal_says() {
    for at in STEPS {
        let mut world = world_at(at, 3);
        let journaled = matches!(at, At::Switching | At::Starting);
        assert_eq!(world.state().parallelism.is_some(), journaled, "{at:?}");
        world.held.clear();
        world.replace(successor(1));
        world.start();
        let planned = world.position(|action| *action == Action::Plan { parallelism: 3 });
        assert_eq!(planned.is_some(), journaled, "{at:?}");
        let expected = if journaled { (3, 6) } else { (2, 4) };
        assert_eq!(deploys(&world), [expected], "{at:?}");
        assert_eq!(world.deployed[&task(0, 0)].2.checkpoint, world.state().latest_checkpoint());
        // The next revision is what its specification says.
        world.replace(successor(2));
        world.start();
        assert_eq!(deploys(&world), [(2, 4)], "{at:?}");
    }
}

#[test]
fn a_successor_that_cannot_plan_it_any_more_leaves_everything_as_it_is() {
    let mut world = world_at(At::Starting, 3);
    world.held.clear();
    world.replace(successor(1));
    world.held.insert(Hold::Plan);
    world.start();
    assert!(world.deployments().is_empty());
    world.send(Event::Planned { parallelism: 3, result: Err("the table is gone".into()) });
    let Some(ExitReason::Unrecoverable { reason }) = &world.exit else { panic!("{:?}", world.exit) };
    assert!(reason.contains("parallelism 3") && reason.contains("the table is gone"), "{reason}");
}

#[test]
fn cancel_and_suspend_in_any_step() {
    for at in STEPS {
        for suspend in [false, true] {
            let mut world = world_at(at, 3);
            let request = if suspend { Request::Suspend } else { Request::Cancel };
            world.send(Event::Request(request));
            release_all(&mut world);
            if let Some(last) = world.barriers().into_iter().rev().find(|barrier| barrier.last)
                && world.exit.is_none()
            {
                world.ack_all(last.checkpoint);
            }
            world.advance(300);
            match &world.exit {
                Some(ExitReason::Suspended { checkpoint }) if suspend => {
                    assert_eq!(*checkpoint, world.state().latest_checkpoint(), "{at:?}");
                    let lasts = world.barriers().iter().filter(|barrier| barrier.last).count();
                    assert!(lasts <= 1, "{at:?}: the cut is a last checkpoint already");
                }
                Some(ExitReason::Ended { state: EndState::Canceled, .. }) if !suspend => {}
                other => panic!("{at:?} {suspend}: {other:?}"),
            }
        }
    }
}

#[test]
fn tasks_that_do_not_end_behind_the_cut_are_cancelled() {
    let mut world = world_at(At::Switching, 3);
    world.advance(TIMEOUT_MS - 100);
    assert_eq!(deploys(&world), [(2, 4)]);
    world.advance(200);
    assert!(world.position(|action| matches!(action, Action::CancelTasks { .. })).is_some());
    assert_eq!(deploys(&world), [(2, 4), (3, 6)]);
    assert_eq!((outcome(&world, "r"), world.machine.view().restarts), (Outcome::Completed(3), 0));
}

#[test]
fn savepoints_that_are_asked_for_meanwhile_are_taken_afterwards() {
    for at in [At::Planning, At::Cutting, At::CutOnItsWay, At::Switching] {
        let mut world = world_at(at, 3);
        let request = Request::Savepoint { trigger: "s".into(), directory: "/s".into(), then: AfterSavepoint::GoOn };
        world.send(Event::Request(request));
        release_all(&mut world);
        for _ in 0..3 {
            for barrier in world.barriers() {
                world.ack_all(barrier.checkpoint);
            }
            world.advance(10);
        }
        assert_eq!(outcome(&world, "r"), Outcome::Completed(3), "{at:?}");
        let view = world.machine.view().savepoints[0].clone();
        assert!(matches!(view.outcome, Outcome::Completed(_)), "{at:?}: {view:?}");
        assert_eq!(world.manifests[&view.checkpoint.unwrap()].operators[0].parallelism, 3, "{at:?}");
    }
}

#[test]
fn the_cut_waits_for_savepoints_under_way() {
    let mut world = World::running(config(pipeline()));
    let request = Request::Savepoint { trigger: "s".into(), directory: "/s".into(), then: AfterSavepoint::GoOn };
    world.send(Event::Request(request));
    let savepoint = world.triggers()[0];
    ask(&mut world, "r", 3);
    assert_eq!(world.triggers(), [savepoint]);
    world.ack_all(savepoint);
    let cut = world.barriers().pop().unwrap();
    assert!(cut.last && cut.checkpoint > savepoint);
}

fn changed(interval_ms: u64, retained: u32) -> CheckpointConfig {
    CheckpointConfig { interval_ms: Some(interval_ms), retained, ..config(pipeline()).checkpoint }
}

fn reconfigure(world: &mut World, checkpoint: CheckpointConfig, restart: RestartStrategy) {
    world.send(Event::Request(Request::Reconfigure { checkpoint, restart }));
}

#[test]
fn options_change_while_the_job_runs_and_survive_a_replacement() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::AppendJournal);
    reconfigure(&mut world, changed(100, 3), RestartStrategy::None);
    assert_eq!(world.machine.view().checkpoint_config.interval_ms, Some(1_000), "not before it is journaled");
    world.release(Hold::AppendJournal);
    assert_eq!(world.deployments().len(), 1, "nothing restarts");
    let began = world.now;
    for _ in 0..4 {
        world.complete_one();
    }
    assert!(world.now - began <= 600, "{} ms", world.now - began);
    assert_eq!(world.checkpoints().len(), 3);
    world.replace(successor(1));
    world.start();
    let view = world.machine.view();
    assert_eq!((view.checkpoint_config.interval_ms, view.checkpoint_config.retained), (Some(100), 3));
    assert_eq!(view.restart_strategy, RestartStrategy::None);
    world.fail(task(0, 0));
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Failed, .. })), "no restart any more");
    world.replace(successor(2));
    world.start();
    assert_eq!(world.machine.view().checkpoint_config.interval_ms, Some(1_000), "a revision is what it says");
}

#[test]
fn of_several_wishes_the_last_one_counts() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::AppendJournal);
    let before = config(pipeline());
    reconfigure(&mut world, changed(100, 3), RestartStrategy::None);
    reconfigure(&mut world, before.checkpoint.clone(), before.restart.clone());
    world.release(Hold::AppendJournal);
    assert_eq!(world.machine.view().checkpoint_config, before.checkpoint);
    assert_eq!(world.machine.view().restart_strategy, before.restart);
    let entries = world.journal.len();
    reconfigure(&mut world, before.checkpoint, before.restart);
    assert_eq!(world.journal.len(), entries, "what is so already is not written down");
}
