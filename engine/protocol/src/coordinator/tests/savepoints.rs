//! Savepoints: order of journal and files, what disturbs them, cancelling, leftovers, damage.

use super::world::*;
use crate::coordinator::*;
use crate::ids::CheckpointId;
use crate::journal::{AfterSavepoint, EndState, JournalEntry};
use streamjob_api::config::Retention;

pub(super) const STOP: AfterSavepoint = AfterSavepoint::Stop { drain: false };
pub(super) const DRAIN: AfterSavepoint = AfterSavepoint::Stop { drain: true };

pub(super) fn ask(world: &mut World, trigger: &str, then: AfterSavepoint) {
    world.send(Event::Request(Request::Savepoint { trigger: trigger.into(), directory: "/s/".into(), then }));
}

pub(super) fn outcome(world: &World, trigger: &str) -> Outcome<String> {
    let views: Vec<_> = world.machine.view().savepoints.iter().filter(|view| view.trigger == trigger).collect();
    assert_eq!(views.len(), 1, "shown once: {views:?}");
    views[0].outcome.clone()
}

pub(super) fn failure(world: &World, trigger: &str) -> String {
    match outcome(world, trigger) {
        Outcome::Failed(reason) => reason,
        other => panic!("{trigger} has not failed: {other:?}"),
    }
}

pub(super) fn completed(world: &World, trigger: &str) -> String {
    match outcome(world, trigger) {
        Outcome::Completed(location) => location,
        other => panic!("{trigger} is not complete: {other:?}"),
    }
}

/// The savepoint's id and directory.
pub(super) fn under_way(world: &World) -> (CheckpointId, String) {
    let newest = world.barriers().into_iter().rev().find_map(|barrier| match barrier.kind {
        SnapshotKind::Savepoint { directory } => Some((barrier.checkpoint, directory)),
        SnapshotKind::Checkpoint { .. } => None,
    });
    newest.expect("no savepoint was triggered")
}

pub(super) fn deleted(world: &World) -> Vec<String> {
    let location = |action: &Action| match action {
        Action::DeleteSavepoint { location } => Some(location.clone()),
        _ => None,
    };
    world.log.iter().filter_map(location).collect()
}

pub(super) fn position_of(world: &World, what: impl Fn(&JournalEntry) -> bool) -> Option<usize> {
    world.position(|action| matches!(action, Action::AppendJournal { entry, .. } if what(entry)))
}

pub(super) fn notified(world: &World, id: CheckpointId) -> bool {
    world.position(|action| matches!(action, Action::NotifyComplete { checkpoint, .. } if *checkpoint == id)).is_some()
}

pub(super) fn successor(revision: u64) -> CoordinatorConfig {
    CoordinatorConfig { claimant: format!("successor of revision {revision}"), revision, ..config(pipeline()) }
}

pub(super) fn patient() -> CoordinatorConfig {
    let mut config = config(pipeline());
    config.checkpoint.interval_ms = Some(3_600_000);
    config
}

/// Steps of a savepoint at which something else happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    Journaling,
    Waiting,
    Collecting,
    WritingManifest,
    EntryOnItsWay,
    Stopping,
}

pub(super) const STEPS: [At; 6] =
    [At::Journaling, At::Waiting, At::Collecting, At::WritingManifest, At::EntryOnItsWay, At::Stopping];

/// A job with one checkpoint, and a savepoint in this step.
pub(super) fn world_at(at: At, then: AfterSavepoint) -> World {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    match at {
        At::Journaling => {
            world.held.insert(Hold::AppendJournal);
        }
        At::Waiting => {
            world.held.insert(Hold::Tasks);
            world.fail(task(0, 0));
        }
        At::WritingManifest => {
            world.held.insert(Hold::WriteManifest);
        }
        At::Stopping => {
            world.held.insert(Hold::Ends);
        }
        At::Collecting | At::EntryOnItsWay => {}
    }
    ask(&mut world, "a", then);
    if matches!(at, At::WritingManifest | At::EntryOnItsWay | At::Stopping) {
        let (id, _) = under_way(&world);
        if at == At::EntryOnItsWay {
            world.held.insert(Hold::AppendJournal);
        }
        world.ack_all(id);
    }
    world
}

pub(super) fn release_all(world: &mut World) {
    for hold in [Hold::AppendJournal, Hold::WriteManifest, Hold::Tasks, Hold::Ends, Hold::Drains] {
        if world.held.contains(&hold) {
            world.release(hold);
        }
    }
}

#[test]
fn r47_a_plain_savepoint_is_journaled_first_and_commits_nothing() {
    let mut world = World::running(patient());
    ask(&mut world, "a", AfterSavepoint::GoOn);
    let (id, directory) = under_way(&world);
    assert!(!world.barriers()[0].last);
    assert_eq!(outcome(&world, "a"), Outcome::InProgress);
    world.ack_all(id);
    let order = [
        position_of(&world, |entry| matches!(entry, JournalEntry::SavepointStarted { .. })),
        world.position(|action| matches!(action, Action::TriggerCheckpoint { .. })),
        world.position(|action| matches!(action, Action::WriteManifest { savepoint: Some(_), .. })),
        position_of(&world, |entry| matches!(entry, JournalEntry::SavepointCompleted { .. })),
    ];
    assert!(order.windows(2).all(|pair| pair[0].unwrap() < pair[1].unwrap()), "{order:?}");
    assert_eq!(completed(&world, "a"), directory);
    assert!(world.checkpoints().is_empty() && !notified(&world, id), "no recovery point, no commit");
    assert_eq!((world.job_state(), deleted(&world).len()), (JobState::Running, 0));
    assert_eq!(world.manifests[&id].kind, crate::manifest::ManifestKind::Savepoint);
}

#[test]
fn r56_directories_are_named_after_the_job_and_never_collide() {
    let mut world = World::running(CoordinatorConfig { job_id: "0123456789".into(), ..patient() });
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..50 {
        ask(&mut world, &format!("t{number}"), AfterSavepoint::GoOn);
        let (id, directory) = under_way(&world);
        let random = directory.strip_prefix("/s/savepoint-012345-").expect("the job's first six characters");
        assert!(random.len() == 12 && random.chars().all(|digit| digit.is_ascii_hexdigit()), "{directory}");
        assert!(seen.insert(directory));
        world.ack_all(id);
    }
}

#[test]
fn r47_savepoints_and_checkpoints_go_on_beside_each_other() {
    // The checkpoint first, with room for one and a pause after it.
    let mut settings = config(pipeline());
    settings.checkpoint.min_pause_ms = 500;
    let mut world = World::running(settings);
    world.complete_one();
    ask(&mut world, "pause", AfterSavepoint::GoOn);
    let (id, _) = under_way(&world);
    world.ack_all(id);
    completed(&world, "pause");
    let checkpoint = world.next_trigger();
    ask(&mut world, "beside", AfterSavepoint::GoOn);
    let (id, _) = under_way(&world);
    assert!(id > checkpoint);
    world.ack_all(checkpoint);
    world.ack_all(id);
    completed(&world, "beside");
    assert_eq!(world.checkpoints(), [checkpoint]);
    // The savepoint first: checkpoints are triggered and complete beside it, and do not subsume it.
    ask(&mut world, "slow", AfterSavepoint::GoOn);
    let (slow, _) = under_way(&world);
    let (one, two) = (world.complete_one(), world.complete_one());
    assert!(slow < one && one < two);
    assert_eq!(world.checkpoints(), [two]);
    world.ack_all(slow);
    completed(&world, "slow");
    assert_eq!(world.checkpoints(), [two]);
}

#[test]
fn a_completed_savepoint_does_not_hide_that_checkpoints_fail() {
    let mut settings = config(pipeline());
    settings.checkpoint.tolerable_failures = 1;
    let mut world = World::running(settings);
    for round in 0..2 {
        let checkpoint = world.next_trigger();
        ask(&mut world, &format!("s{round}"), AfterSavepoint::GoOn);
        let (id, _) = under_way(&world);
        world.decline(task(1, 0), checkpoint, DeclineReason::AsyncException);
        if round == 0 {
            world.ack_all(id);
        }
    }
    assert_eq!(world.machine.view().restarts, 1);
}

#[test]
fn a_repeated_trigger_is_the_same_savepoint_in_every_step() {
    let mut world = World::running(patient());
    world.held.insert(Hold::AppendJournal);
    ask(&mut world, "a", STOP);
    ask(&mut world, "a", STOP);
    world.release(Hold::AppendJournal);
    ask(&mut world, "a", STOP);
    world.held.insert(Hold::WriteManifest);
    let (id, directory) = under_way(&world);
    world.ack_all(id);
    ask(&mut world, "a", STOP);
    world.held.insert(Hold::Ends);
    world.release(Hold::WriteManifest);
    ask(&mut world, "a", STOP);
    assert_eq!(world.barriers().len(), 1);
    assert_eq!(completed(&world, "a"), directory);
    // Failed and refused ones stay what they are.
    let mut world = World::running(patient());
    ask(&mut world, "a", STOP);
    let (id, _) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    ask(&mut world, "a", STOP);
    assert_eq!(world.barriers().len(), 1);
    assert!(failure(&world, "a").contains("declined"));
}

#[test]
fn r23_of_savepoints_only_what_a_task_could_not_write_counts() {
    for (reason, restarts) in [(DeclineReason::AsyncException, 1), (DeclineReason::Subsumed, 0)] {
        let mut world = World::running(patient());
        ask(&mut world, "a", AfterSavepoint::GoOn);
        let (id, _) = under_way(&world);
        world.decline(task(1, 0), id, reason);
        assert_eq!(world.machine.view().restarts, restarts, "{reason:?}");
    }
}

#[test]
fn a_savepoint_waits_for_all_tasks_to_run_but_not_for_ever() {
    for (runs, then) in [(true, AfterSavepoint::GoOn), (true, STOP), (false, STOP), (false, DRAIN)] {
        let mut world = World::running(patient());
        world.held.insert(Hold::Tasks);
        world.fail(task(0, 0));
        ask(&mut world, "a", then);
        world.advance(TIMEOUT_MS / 2);
        assert!(world.triggers().is_empty());
        if runs {
            world.release(Hold::Tasks);
            world.advance(200);
            let (id, _) = under_way(&world);
            world.ack_all(id);
            completed(&world, "a");
        } else {
            world.advance(TIMEOUT_MS);
            assert!(failure(&world, "a").contains("not all tasks were running"));
            world.release(Hold::Tasks);
            world.advance(200);
            let savepoints = world.barriers().into_iter().filter(|barrier| barrier.last).count();
            assert_eq!((savepoints, world.job_state()), (0, JobState::Running));
        }
    }
}

#[test]
fn a_task_about_to_end_is_let_go_before_a_savepoint_is_taken() {
    let mut world = World::running(config(pipeline()));
    world.status(task(0, 0), TaskStatus::Drained);
    let checkpoint = world.next_trigger();
    for acked in [task(0, 0), task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, checkpoint, &[], acked == task(0, 0));
    }
    ask(&mut world, "a", STOP);
    assert_eq!(world.triggers(), [checkpoint], "the task is told to end and would not see the barrier");
    world.status(task(0, 0), TaskStatus::Finished);
    let (id, _) = under_way(&world);
    for acked in [task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, id, &[], false);
    }
    completed(&world, "a");
}

#[test]
fn what_attempts_left_goes_whoever_has_to_delete_it() {
    // Three coordinators in a row die before they have deleted what the first one wrote.
    let mut world = world_at(At::Collecting, AfterSavepoint::GoOn);
    let mut directories = vec![under_way(&world).1];
    for claimant in ["two", "three"] {
        world.held = [Hold::DeleteSavepoint].into();
        world.replace(CoordinatorConfig { claimant: claimant.into(), ..config(pipeline()) });
        world.start();
        directories.push(under_way(&world).1);
    }
    world.held.clear();
    world.replace(CoordinatorConfig { claimant: "four".into(), ..config(pipeline()) });
    world.start();
    directories.sort();
    let mut gone = deleted(&world);
    gone.sort();
    assert_eq!(gone, directories);
    // And of a failed one, whose failure was written down, but not deleted.
    let mut world = world_at(At::Collecting, AfterSavepoint::GoOn);
    world.held.insert(Hold::DeleteSavepoint);
    let (id, directory) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    world.held.clear();
    world.replace(successor(1));
    world.start();
    assert_eq!(deleted(&world), [directory]);
    assert!(failure(&world, "a").contains("declined"));
}

#[test]
fn what_a_task_wrote_after_the_failure_is_deleted_when_it_says_so() {
    let mut world = world_at(At::Collecting, AfterSavepoint::GoOn);
    let (id, directory) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    world.ack(task(1, 1), id, &["late"], false);
    assert_eq!(deleted(&world), [directory.clone(), directory]);
}

#[test]
fn a_directory_that_cannot_be_deleted_is_tried_again_and_then_reported() {
    let mut world = world_at(At::Collecting, AfterSavepoint::GoOn);
    world.held.insert(Hold::DeleteSavepoint);
    let (id, directory) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    let mut attempts = 0;
    while let Some(Action::DeleteSavepoint { location }) = world.open.pop_front() {
        attempts += 1;
        world.send(Event::SavepointDeleted { location, result: Err(StoreError::Unavailable("503".into())) });
        world.advance(2_000);
    }
    assert_eq!(attempts, 5);
    let left =
        |report: &&Report| matches!(report, Report::SavepointLeftBehind { location, .. } if *location == directory);
    assert!(world.reports().iter().any(left));
}

#[test]
fn a_request_that_comes_before_the_journal_is_read_waits_for_it() {
    let mut world = world_at(At::Collecting, AfterSavepoint::GoOn);
    let first = under_way(&world).1;
    world.replace(successor(1));
    world.held.insert(Hold::ReadJournal);
    world.send(Event::Tick);
    ask(&mut world, "a", AfterSavepoint::GoOn);
    ask(&mut world, "new", AfterSavepoint::GoOn);
    assert_eq!(outcome(&world, "a"), Outcome::InProgress);
    world.start();
    world.release(Hold::ReadJournal);
    for barrier in world.barriers() {
        world.ack_all(barrier.checkpoint);
    }
    assert_ne!(completed(&world, "a"), first);
    completed(&world, "new");
    assert_eq!(world.barriers().len(), 2);
}

#[test]
fn cancel_after_a_savepoint_also_by_a_successor() {
    let mut world = world_at(At::Collecting, AfterSavepoint::Cancel);
    let (id, directory) = under_way(&world);
    world.held.insert(Hold::Tasks);
    world.ack_all(id);
    assert_eq!((completed(&world, "a"), world.job_state()), (directory, JobState::Cancelling));
    assert!(!notified(&world, id), "what a plain savepoint holds is not committed");
    world.held.clear();
    world.replace(successor(1));
    world.start();
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })), "{:?}", world.exit);
    assert!(world.deployments().is_empty());
    world.replace(successor(2));
    world.start();
    assert_eq!(world.job_state(), JobState::Running, "a new revision was not cancelled");
    // A savepoint that fails cancels nothing.
    let mut world = world_at(At::Collecting, AfterSavepoint::Cancel);
    let (id, _) = under_way(&world);
    world.decline(task(0, 0), id, DeclineReason::TaskClosing);
    assert!(failure(&world, "a").contains("declined") && world.job_state() == JobState::Running);
}

#[test]
fn requests_that_cannot_be_carried_out_say_why() {
    let mut off = config(pipeline());
    off.checkpoint.interval_ms = None;
    let mut world = World::running(off);
    ask(&mut world, "a", AfterSavepoint::GoOn);
    assert!(failure(&world, "a").contains("spec.checkpoint.interval"));
    let mut world = world_at(At::Stopping, STOP);
    ask(&mut world, "b", AfterSavepoint::GoOn);
    assert!(failure(&world, "b").contains("stopped with a savepoint already"));
    let mut world = world_at(At::Collecting, STOP);
    world.held.insert(Hold::Tasks);
    world.send(Event::Request(Request::Cancel));
    ask(&mut world, "b", AfterSavepoint::GoOn);
    assert!(failure(&world, "b").contains("Cancelling"));
}

#[test]
fn a_stalled_entry_counts_as_often_as_its_timeout_passes_and_may_still_turn_up() {
    let mut settings = config(pipeline());
    settings.checkpoint.tolerable_failures = 1;
    let mut world = World::running(settings);
    let checkpoint = world.next_trigger();
    world.held.insert(Hold::AppendJournal);
    world.ack_all(checkpoint);
    let stalls = |world: &World| {
        world.reports().iter().filter(|report| matches!(report, Report::CheckpointStalled { .. })).count()
    };
    world.advance(TIMEOUT_MS + 10);
    assert_eq!((stalls(&world), world.machine.view().restarts), (1, 0));
    world.advance(TIMEOUT_MS + 10);
    assert_eq!((stalls(&world), world.machine.view().restarts), (2, 1));
    assert_eq!(world.deployments().len(), 1, "nothing starts before it is known what exists");
    world.release(Hold::AppendJournal);
    world.advance(200);
    assert_eq!(world.checkpoints(), [checkpoint]);
    assert_eq!(world.deployed[&task(0, 0)].2.checkpoint, Some(checkpoint));
    // Of a savepoint it is said, but does not count.
    let mut world = world_at(At::EntryOnItsWay, STOP);
    world.advance(5 * TIMEOUT_MS);
    assert!(stalls(&world) >= 4 && world.machine.view().restarts == 0);
    world.release(Hold::AppendJournal);
    completed(&world, "a");
}

#[test]
fn an_adopted_snapshot_goes_like_an_own_checkpoint_and_one_that_is_not_claimed_stays() {
    for claim in [true, false] {
        let mut source = world_at(At::Stopping, STOP);
        let (id, _) = under_way(&source);
        let manifest = source.manifests.remove(&id).unwrap();
        let settings = CoordinatorConfig {
            external_restore: Some(ExternalRestore { claim, ..external(manifest.clone()) }),
            ..config(pipeline())
        };
        let mut world = World::new(settings.clone());
        world.manifests.insert(id, manifest);
        world.start();
        assert_eq!(world.deployed[&task(0, 0)].2.checkpoint, Some(id));
        assert!(!world.deployed[&task(0, 0)].2.stopped);
        assert_eq!(world.checkpoints(), if claim { vec![id] } else { vec![] });
        let first = world.complete_one();
        assert!(first > id, "ids go on");
        world.advance(10);
        assert_eq!(world.checkpoints(), [first]);
        let deletion = world.log.iter().find_map(|action| match action {
            Action::DeleteCheckpoint { checkpoint, files, location } => {
                Some((*checkpoint, files.len(), location.clone()))
            }
            _ => None,
        });
        let expected = claim.then(|| (id, 4, Some("/elsewhere/chk".to_owned())));
        assert_eq!(deletion, expected, "claim: {claim}");
        // It is adopted once.
        world.replace(CoordinatorConfig { claimant: "two".into(), ..settings });
        world.start();
        assert_eq!(world.checkpoints(), [first]);
        assert_eq!(world.deployed[&task(0, 0)].2.checkpoint, Some(first));
    }
}

#[test]
fn a_file_elsewhere_that_a_checkpoint_carries_on_is_not_deleted_with_it() {
    // A task had finished when the job was stopped: later checkpoints go on naming its files in the savepoint.
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    world.ack(task(0, 0), checkpoint, &["/s/savepoint/theirs", "s3://bucket/theirs", "ours"], false);
    for acked in [task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, checkpoint, &[], false);
    }
    world.complete_one();
    let deletion = world.log.iter().find_map(|action| match action {
        Action::DeleteCheckpoint { files, .. } => Some(files.clone()),
        _ => None,
    });
    assert_eq!(deletion, Some(vec!["ours".to_owned()]));
}

#[test]
fn r25_a_savepoint_outlives_every_end() {
    for retention in [Retention::None, Retention::DeleteOnCancellation, Retention::RetainOnCancellation] {
        let mut settings = config(pipeline());
        settings.checkpoint.retention = retention;
        let mut world = World::running(settings);
        ask(&mut world, "plain", AfterSavepoint::GoOn);
        let (id, _) = under_way(&world);
        world.ack_all(id);
        world.send(Event::Request(Request::Cancel));
        assert!(world.exit.is_some() && deleted(&world).is_empty());
        assert!(world.manifests.contains_key(&id));
    }
}
