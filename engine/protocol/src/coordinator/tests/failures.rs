//! Tasks that fail, workers that go, state that cannot be read.

use super::world::*;
use crate::coordinator::*;
use crate::ids::WorkerId;
use crate::journal::{EndState, JournalEntry};
use std::collections::BTreeSet;
use streamjob_api::config::*;

fn lose(world: &mut World, worker: u64) {
    world.send(Event::WorkerLost { worker: WorkerId(worker), reason: "connection closed".into() });
}

#[test]
fn tasks_are_spread_evenly_and_slots_shared() {
    let mut world = World::running(config(pipeline()));
    let workers: Vec<_> = world.deployed.iter().map(|(task, (_, worker, _))| (*task, worker.0)).collect();
    assert_eq!(workers, [(task(0, 0), 1), (task(0, 1), 2), (task(1, 0), 1), (task(1, 1), 2)]);
    let used: Vec<_> = world.machine.view().workers.iter().map(|worker| worker.used).collect();
    assert_eq!(used, [1, 1]);
    let mut waiting = World::new(config(pipeline()));
    waiting.send(Event::WorkerRegistered { worker: WorkerId(1), slots: 1 });
    assert!(waiting.deployed.is_empty());
    assert_eq!((waiting.machine.view().missing_slots, waiting.job_state()), (1, JobState::Created));
    waiting.send(Event::WorkerRegistered { worker: WorkerId(2), slots: 1 });
    assert_eq!(waiting.deployed.len(), 4);
    world.advance(1);
}

#[test]
fn a_failed_task_restarts_its_region_from_the_latest_checkpoint_after_the_delay() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    let before = world.deployments().len();
    world.fail(task(1, 0));
    assert_eq!(world.job_state(), JobState::Restarting);
    assert_eq!(world.deployments().len(), before);
    world.advance(99);
    assert_eq!(world.deployments().len(), before);
    world.advance(1);
    assert_eq!(world.deployments()[before].len(), 4);
    assert_eq!(world.job_state(), JobState::Running);
    assert!(
        world
            .deployed
            .values()
            .all(|(deployment, _, restore)| *deployment == 2 && restore.checkpoint == Some(checkpoint))
    );
    assert_eq!(world.machine.view().restarts, 1);
    assert!(world.machine.view().failures[0].reason.contains("boom"));
    assert!(world.machine.view().tasks.iter().all(|task| task.attempt == 1));
}

#[test]
fn nothing_restarts_before_every_cancelled_task_has_stopped() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::Tasks);
    world.fail(task(1, 0));
    world.advance(1_000);
    let Some(Action::CancelTasks { deployment, tasks }) = world.open.pop_front() else { panic!("nothing cancelled") };
    assert_eq!(tasks.len(), 3);
    for (_, task) in &tasks[1..] {
        // A task that fails while it is being cancelled has stopped, and is not another failure.
        let status = TaskStatus::Failed { reason: "interrupted".into(), recoverable: true };
        world.send(Event::TaskStatus { task: *task, deployment, status });
    }
    assert!(world.open.is_empty());
    world.send(Event::TaskStatus { task: tasks[0].1, deployment, status: TaskStatus::Canceled });
    assert!(matches!(world.open.pop_front(), Some(Action::Deploy { .. })));
    assert_eq!(world.machine.view().restarts, 1);
}

#[test]
fn r43_r44_region_and_full_failover() {
    for (failover, expected) in [(FailoverStrategy::Region, 2), (FailoverStrategy::Full, 4)] {
        let mut world = World::running(CoordinatorConfig { failover, ..config(two_regions()) });
        let first = world.deployed.clone();
        world.fail(task(1, 0));
        world.advance(200);
        let redeployed: BTreeSet<_> =
            world.deployed.iter().filter(|(task, run)| first[task].0 != run.0).map(|(task, _)| *task).collect();
        assert_eq!(redeployed.len(), expected);
        assert!(redeployed.contains(&task(0, 0)) && redeployed.contains(&task(1, 0)));
    }
}

#[test]
fn a_region_restores_from_a_checkpoint_that_the_others_are_part_of() {
    let mut world = World::running(config(two_regions()));
    let checkpoint = world.complete_one();
    let in_flight = world.next_trigger();
    world.fail(task(1, 0));
    world.ack_all(in_flight);
    world.advance(200);
    assert_eq!(world.checkpoints(), [checkpoint], "the one in flight was aborted");
    assert_eq!(world.deployed[&task(1, 0)].2.checkpoint, Some(checkpoint));
    assert_eq!(world.deployed[&task(3, 0)].2.checkpoint, None);
    assert!(world.reports().iter().any(|report| matches!(report, Report::RegionsRestored { tasks: 2, .. })));
    let next = *world.triggers().last().unwrap();
    assert!(next > in_flight);
    world.ack_all(next);
    assert_eq!(world.checkpoints(), [next]);
}

#[test]
fn r38_attempts_then_failed_with_the_reason() {
    let mut world = World::running(config(pipeline()));
    for restart in 1..=3 {
        world.fail(task(0, 0));
        world.advance(200);
        assert_eq!(world.machine.view().restarts, restart);
    }
    world.fail(task(0, 0));
    let Some(ExitReason::Ended { state: EndState::Failed, reason: Some(reason) }) = &world.exit else {
        panic!("{:?}", world.exit)
    };
    assert!(reason.contains("boom") && reason.contains("fixed-delay"), "{reason}");
    assert_eq!(world.state().ended.unwrap().0, EndState::Failed);
    assert_eq!(world.job_state(), JobState::Failed);
}

#[test]
fn r40_without_a_strategy_the_first_failure_is_the_end() {
    let mut world = World::running(CoordinatorConfig { restart: RestartStrategy::None, ..config(pipeline()) });
    world.fail(task(0, 0));
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Failed, .. })));
    assert_eq!(world.machine.view().restarts, 0);
    assert!(world.machine.view().tasks.iter().all(|task| task.attempt == 0));
}

#[test]
fn an_unrecoverable_failure_is_the_end() {
    let mut world = World::running(config(pipeline()));
    world.status(task(0, 0), TaskStatus::Failed { reason: "wrong state".into(), recoverable: false });
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Failed, .. })));
}

#[test]
fn a_lost_worker_is_one_failure_and_its_slots_are_found_elsewhere() {
    let mut world = World::running(config(pipeline()));
    lose(&mut world, 2);
    assert_eq!(world.machine.view().restarts, 1);
    world.advance(200);
    assert!(world.deployed.values().all(|(_, worker, _)| *worker == WorkerId(1)));
    assert_eq!(world.job_state(), JobState::Running);
}

#[test]
fn without_enough_slots_the_job_waits_for_a_new_worker() {
    let mut world = World::new(config(pipeline()));
    for worker in [1, 2] {
        world.send(Event::WorkerRegistered { worker: WorkerId(worker), slots: 1 });
    }
    world.fail(task(0, 0));
    lose(&mut world, 2);
    world.advance(60_000);
    assert_eq!(world.machine.view().missing_slots, 1);
    assert_eq!(world.job_state(), JobState::Restarting);
    assert!(world.deployments().len() == 1, "nothing to wait for but a worker");
    world.send(Event::WorkerRegistered { worker: WorkerId(3), slots: 1 });
    assert_eq!(world.job_state(), JobState::Running);
    assert_eq!(world.machine.view().missing_slots, 0);
}

#[test]
fn a_worker_lost_while_its_tasks_are_cancelled_counts_as_stopped() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::Tasks);
    world.fail(task(0, 0));
    world.open.clear();
    lose(&mut world, 2);
    world.advance(200);
    assert!(world.open.is_empty(), "task 1.0 of worker 1 has not stopped");
    lose(&mut world, 1);
    world.send(Event::WorkerRegistered { worker: WorkerId(3), slots: 2 });
    assert!(matches!(world.open.pop_front(), Some(Action::Deploy { .. })));
    assert_eq!(world.machine.view().restarts, 1);
}

#[test]
fn a_task_that_does_not_stop_is_told_again_and_then_its_worker_is_dropped() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::Tasks);
    world.fail(task(0, 0));
    world.advance(179_000);
    let cancels = world.log.iter().filter(|action| matches!(action, Action::CancelTasks { .. })).count();
    assert_eq!(cancels, 6);
    let dropped = |world: &World| -> BTreeSet<u64> {
        let workers = world.log.iter().filter_map(|action| match action {
            Action::DropWorker { worker, .. } => Some(worker.0),
            _ => None,
        });
        workers.collect()
    };
    assert!(dropped(&world).is_empty());
    world.advance(2_000);
    assert_eq!(dropped(&world), [1, 2].into());
}

#[test]
fn the_restart_waits_for_an_entry_that_is_on_its_way() {
    let mut world = World::running(config(pipeline()));
    let first = world.complete_one();
    world.held.insert(Hold::AppendJournal);
    let second = world.complete_one();
    world.fail(task(1, 0));
    let before = world.deployments().len();
    world.advance(5_000);
    assert_eq!(world.deployments().len(), before, "whether {second} exists is not known yet");
    world.release(Hold::AppendJournal);
    assert_eq!(world.deployments().len(), before + 1);
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(second)));
    assert_ne!(first, second);
}

#[test]
fn damaged_state_takes_the_whole_job_back_to_the_older_checkpoint() {
    let mut keeps_two = config(two_regions());
    keeps_two.checkpoint.retained = 2;
    keeps_two.restart = RestartStrategy::None;
    let mut world = World::running(keeps_two.clone());
    let older = world.complete_one();
    let newer = world.complete_one();
    world.replace(CoordinatorConfig { claimant: "two".into(), ..keeps_two });
    world.start();
    assert_eq!(world.deployed[&task(0, 0)].2.checkpoint, Some(newer));
    world.status(task(0, 0), TaskStatus::StateDamaged { reason: "checksum".into() });
    assert_eq!(world.deployed.values().filter(|(_, _, restore)| restore.checkpoint == Some(older)).count(), 4);
    let skipped =
        |report: &&Report| matches!(report, Report::CheckpointSkipped { checkpoint, .. } if *checkpoint == newer);
    assert!(world.reports().iter().any(skipped));
    world.status(task(0, 0), TaskStatus::StateDamaged { reason: "checksum".into() });
    assert!(matches!(&world.exit, Some(ExitReason::Unrecoverable { reason }) if reason.contains("checksum")));
    assert_eq!(world.checkpoints(), [older, newer], "left for a person to look at");
}

#[test]
fn state_that_a_successor_deleted_is_not_lost() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let seq = world.journal.keys().next_back().unwrap() + 1;
    world.journal.insert(seq, JournalEntry::Claimed { revision: 1, claimant: "two".into(), at: 0 });
    world.fail(task(0, 0));
    world.advance(200);
    world.status(task(0, 0), TaskStatus::StateDamaged { reason: "not there".into() });
    assert!(matches!(world.exit, Some(ExitReason::Fenced { .. })), "{:?}", world.exit);
}

#[test]
fn a_damaged_foreign_checkpoint_is_not_started_without() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    let external_restore = Some(external(world.manifests[&checkpoint].clone()));
    let mut world = World::running(CoordinatorConfig { external_restore, ..config(pipeline()) });
    world.status(task(0, 0), TaskStatus::StateDamaged { reason: "checksum".into() });
    assert!(matches!(&world.exit, Some(ExitReason::Unrecoverable { reason }) if reason.contains("checksum")));
    assert_eq!(world.deployments().len(), 1);
}

#[test]
fn after_a_restart_the_first_checkpoint_comes_after_the_minimum_pause() {
    let mut slow = config(pipeline());
    slow.checkpoint.interval_ms = Some(60_000);
    slow.checkpoint.min_pause_ms = 300;
    let mut world = World::running(slow);
    world.fail(task(0, 0));
    world.advance(100);
    assert_eq!(world.job_state(), JobState::Running);
    world.advance(299);
    assert!(world.triggers().is_empty());
    world.advance(1);
    assert_eq!(world.triggers().len(), 1);
}

#[test]
fn a_finished_region_stays_finished_when_another_fails() {
    let mut world = World::running(config(two_regions()));
    for drained in [task(0, 0), task(1, 0)] {
        world.status(drained, TaskStatus::Drained);
    }
    let checkpoint = world.next_trigger();
    for acked in world.deployed.keys().copied().collect::<Vec<_>>() {
        world.ack(acked, checkpoint, &[], acked.vertex < 2);
    }
    for finished in [task(0, 0), task(1, 0)] {
        world.status(finished, TaskStatus::Finished);
    }
    lose(&mut world, 1);
    lose(&mut world, 2);
    world.send(Event::WorkerRegistered { worker: WorkerId(3), slots: 4 });
    world.advance(1_000);
    assert_eq!(world.deployed[&task(0, 0)].0, 1, "not deployed again");
    let restored = &world.deployed[&task(2, 0)];
    assert!(restored.0 > 2 && restored.2.checkpoint == Some(checkpoint));
}
