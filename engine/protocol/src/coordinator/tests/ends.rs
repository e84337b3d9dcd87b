//! Finishing, cancelling, suspending.

use super::world::*;
use crate::coordinator::*;
use crate::ids::WorkerId;
use crate::journal::{EndState, JournalEntry};
use streamjob_api::config::Retention;

fn finish(world: &mut World) {
    world.all(TaskStatus::Drained);
    let last = *world.triggers().last().unwrap();
    for acked in world.deployed.keys().copied().collect::<Vec<_>>() {
        world.ack(acked, last, &[], true);
    }
    world.all(TaskStatus::Finished);
}

#[test]
fn a_bounded_job_ends_with_a_last_checkpoint_triggered_at_once() {
    let mut slow = config(pipeline());
    slow.checkpoint.interval_ms = Some(3_600_000);
    let mut world = World::running(slow);
    assert!(world.triggers().is_empty());
    world.all(TaskStatus::Drained);
    assert_eq!(world.triggers(), [1]);
    for acked in world.deployed.keys().copied().collect::<Vec<_>>() {
        world.ack(acked, 1, &[], true);
    }
    world.all(TaskStatus::Finished);
    assert_eq!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, reason: None }));
    let ended = world
        .position(|action| matches!(action, Action::AppendJournal { entry: JournalEntry::Ended { .. }, .. }))
        .unwrap();
    let deleted = world.position(|action| matches!(action, Action::DeleteCheckpoint { .. })).unwrap();
    assert!(ended < deleted);
}

#[test]
fn the_last_checkpoint_waits_for_room_and_is_repeated_if_it_fails() {
    let mut world = World::running(config(pipeline()));
    let running = world.next_trigger();
    world.all(TaskStatus::Drained);
    assert_eq!(world.triggers(), [running]);
    world.decline(task(0, 0), running, DeclineReason::TaskClosing);
    assert_eq!(world.triggers().len(), 2);
    let last = world.triggers()[1];
    world.decline(task(0, 0), last, DeclineReason::TaskClosing);
    world.advance(1_000);
    assert_eq!(world.triggers().len(), 3);
}

#[test]
fn without_checkpoints_tasks_finish_and_the_job_ends() {
    let mut off = config(pipeline());
    off.checkpoint.interval_ms = None;
    let mut world = World::running(off);
    world.all(TaskStatus::Finished);
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Finished, .. })));
    assert!(world.triggers().is_empty());
}

#[test]
fn r25_retention_at_each_end() {
    use Retention::*;
    let cases = [
        (RetainOnCancellation, [false, true, true]),
        (DeleteOnCancellation, [false, false, true]),
        (None, [false, false, false]),
    ];
    for (retention, kept) in cases {
        for (end, expected) in [EndState::Finished, EndState::Canceled, EndState::Failed].into_iter().zip(kept) {
            let mut settings = config(pipeline());
            settings.checkpoint.retention = retention;
            settings.restart = streamjob_api::config::RestartStrategy::None;
            let mut world = World::running(settings);
            world.complete_one();
            match end {
                EndState::Finished => finish(&mut world),
                EndState::Canceled => world.send(Event::Request(Request::Cancel)),
                EndState::Failed => world.fail(task(0, 0)),
            }
            assert!(matches!(world.exit, Some(ExitReason::Ended { state, .. }) if state == end), "{:?}", world.exit);
            assert_eq!(!world.manifests.is_empty(), expected, "{retention:?} {end:?}");
            assert_eq!(!world.checkpoints().is_empty(), expected, "{retention:?} {end:?}");
        }
    }
}

#[test]
fn clean_up_of_an_ended_job_is_taken_up_by_the_successor() {
    let mut settings = config(pipeline());
    settings.checkpoint.retention = Retention::None;
    let mut world = World::running(settings.clone());
    world.complete_one();
    world.held.insert(Hold::DeleteCheckpoint);
    let seq_of_end = world.journal.len() as u64;
    world.send(Event::Request(Request::Cancel));
    assert!(world.exit.is_none());
    // The crash comes between the end and the discard.
    let end = world.journal.iter().find(|(_, entry)| matches!(entry, JournalEntry::Ended { .. })).unwrap();
    let end = *end.0;
    assert!(end >= seq_of_end);
    world.journal.retain(|seq, _| *seq <= end);
    world.held.clear();
    world.replace(CoordinatorConfig { claimant: "two".into(), ..settings });
    world.send(Event::Tick);
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })));
    assert!(world.manifests.is_empty() && world.checkpoints().is_empty());
    assert!(world.deployed.is_empty());
}

#[test]
fn cancel_stops_the_tasks_before_the_end_is_written() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::Tasks);
    world.send(Event::Request(Request::Cancel));
    assert_eq!(world.job_state(), JobState::Cancelling);
    assert_eq!(world.state().ended, None);
    world.release(Hold::Tasks);
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })));
}

#[test]
fn cancel_before_the_claim_is_remembered() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::AppendJournal);
    world.send(Event::Tick);
    world.send(Event::Request(Request::Cancel));
    world.release(Hold::AppendJournal);
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })));
    assert!(world.deployed.is_empty());
}

#[test]
fn suspending_takes_a_last_checkpoint_and_keeps_it() {
    let mut settings = config(pipeline());
    settings.checkpoint.retention = Retention::None;
    let mut world = World::running(settings.clone());
    world.complete_one();
    world.send(Event::Request(Request::Suspend));
    let last = *world.triggers().last().unwrap();
    assert!(world.exit.is_none());
    world.ack_all(last);
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: Some(last) }));
    let notice = world.log.iter().rposition(|action| matches!(action, Action::NotifyComplete { .. })).unwrap();
    let cancel = world.position(|action| matches!(action, Action::CancelTasks { .. })).unwrap();
    assert!(notice < cancel, "sinks hear of the last checkpoint first");
    assert!(world.manifests.contains_key(&last));
    assert_eq!(world.state().ended, None);
    world.replace(CoordinatorConfig { claimant: "two".into(), ..settings });
    world.start();
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(last)));
}

#[test]
fn suspending_does_not_wait_for_room() {
    let mut world = World::running(config(pipeline()));
    let stuck = world.next_trigger();
    world.send(Event::Request(Request::Suspend));
    let last = *world.triggers().last().unwrap();
    assert!(last > stuck);
    world.ack_all(last);
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: Some(last) }));
}

#[test]
fn a_failed_last_checkpoint_is_said_and_the_job_suspends_with_the_one_before() {
    let mut world = World::running(config(pipeline()));
    let before = world.complete_one();
    world.send(Event::Request(Request::Suspend));
    let last = *world.triggers().last().unwrap();
    world.decline(task(0, 0), last, DeclineReason::AsyncException);
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: Some(before) }));
    assert!(world.machine.view().reason.as_ref().unwrap().contains("the last checkpoint failed"));
}

#[test]
fn suspending_while_a_task_fails_or_nothing_runs_yet() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Suspend));
    world.fail(task(0, 0));
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: None }));
    let mut idle = World::new(config(pipeline()));
    idle.send(Event::Tick);
    idle.send(Event::Request(Request::Suspend));
    assert_eq!(idle.exit, Some(ExitReason::Suspended { checkpoint: None }));
}

#[test]
fn a_second_request_to_suspend_does_not_wait() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Suspend));
    assert!(world.exit.is_none());
    world.send(Event::Request(Request::Suspend));
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: None }));
}

#[test]
fn suspending_ends_even_if_the_last_checkpoint_never_does() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Suspend));
    world.advance(TIMEOUT_MS + 100);
    assert_eq!(world.exit, Some(ExitReason::Suspended { checkpoint: None }));
}

#[test]
fn cancel_overrules_suspend() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Suspend));
    world.send(Event::Request(Request::Cancel));
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })));
}

#[test]
fn nothing_follows_an_exit() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Cancel));
    let actions = world.log.len();
    world.send(Event::WorkerRegistered { worker: WorkerId(9), slots: 9 });
    world.send(Event::Tick);
    assert_eq!(world.log.len(), actions);
    assert_eq!(world.machine.next_timer(), None);
}

#[test]
fn the_view_can_be_serialized() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let text = serde_json::to_string(world.machine.view()).unwrap();
    let view: CoordinatorView = serde_json::from_str(&text).unwrap();
    assert_eq!(view.checkpoints.counts.completed, 1);
    assert_eq!(view.tasks.len(), 4);
}
