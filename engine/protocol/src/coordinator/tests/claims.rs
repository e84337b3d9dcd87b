//! Claiming the job, uncertain appends, fencing, and starting from what the journal says.

use super::world::*;
use crate::coordinator::*;
use crate::journal::{EndState, JournalEntry};
use std::collections::BTreeMap;

fn claims(world: &World) -> Vec<String> {
    world
        .journal
        .values()
        .filter_map(|entry| match entry {
            JournalEntry::Claimed { claimant, .. } => Some(claimant.clone()),
            _ => None,
        })
        .collect()
}

fn successor() -> CoordinatorConfig {
    CoordinatorConfig { claimant: "two".into(), ..config(pipeline()) }
}

#[test]
fn nothing_is_deployed_before_the_claim_stands() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::AppendJournal);
    world.start();
    assert!(world.deployments().is_empty());
    world.release(Hold::AppendJournal);
    assert_eq!(world.deployments().len(), 1);
    assert_eq!(claims(&world), ["one"]);
    assert_eq!(world.job_state(), JobState::Running);
}

#[test]
fn an_append_that_meets_another_claim_ends_the_old_coordinator() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    let seq = world.journal.keys().next_back().unwrap() + 1;
    world.journal.insert(seq, JournalEntry::Claimed { revision: 1, claimant: "two".into(), at: 0 });
    world.ack_all(checkpoint);
    assert!(matches!(&world.exit, Some(ExitReason::Fenced { by }) if by.starts_with("two")), "{:?}", world.exit);
    assert!(world.position(|action| matches!(action, Action::NotifyComplete { .. })).is_none());
    assert!(world.position(|action| matches!(action, Action::CancelTasks { .. })).is_some());
    assert!(world.checkpoints().is_empty());
}

#[test]
fn a_trimmed_journal_still_fences_an_old_coordinator() {
    let mut old = World::running(config(pipeline()));
    let mut new = World::new(CoordinatorConfig { compact_after: 1, ..successor() });
    new.journal = old.journal.clone();
    new.start();
    new.advance(100);
    assert!(new.journal.keys().next().unwrap() > old.journal.keys().next_back().unwrap(), "{:?}", new.journal);
    old.journal = new.journal.clone();
    let checkpoint = old.next_trigger();
    old.ack_all(checkpoint);
    assert!(matches!(old.exit, Some(ExitReason::Fenced { .. })));
}

#[test]
fn a_coordinator_without_anything_to_append_notices_that_it_was_replaced() {
    let mut off = config(pipeline());
    off.checkpoint.interval_ms = None;
    let mut world = World::running(off);
    world.advance(30_000);
    assert!(world.exit.is_none());
    let seq = world.journal.keys().next_back().unwrap() + 1;
    world.journal.insert(seq, JournalEntry::Claimed { revision: 1, claimant: "two".into(), at: 0 });
    world.advance(10_000);
    assert!(matches!(world.exit, Some(ExitReason::Fenced { .. })));
}

#[test]
fn a_lower_revision_does_not_claim() {
    let mut world = World::new(config(pipeline()));
    world.journal.insert(1, JournalEntry::Claimed { revision: 2, claimant: "newer".into(), at: 0 });
    world.start();
    assert!(matches!(&world.exit, Some(ExitReason::Fenced { by }) if by.contains("newer")));
    assert_eq!(world.journal.len(), 1);
}

#[test]
fn an_equal_revision_takes_over_and_a_higher_one_too() {
    for revision in [1, 2] {
        let mut world = World::new(CoordinatorConfig { revision, ..successor() });
        world.journal.insert(1, JournalEntry::Claimed { revision: 1, claimant: "one".into(), at: 0 });
        world.start();
        assert_eq!(claims(&world), ["one", "two"]);
        assert_eq!(world.job_state(), JobState::Running);
    }
}

#[test]
fn an_uncertain_claim_that_was_written_is_recognised() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::AppendJournal);
    world.start();
    let Some(Action::AppendJournal { seq, entry }) = world.open.pop_front() else { panic!("no claim") };
    world.journal.insert(seq, entry);
    world.held.clear();
    world.send(Event::JournalAppended { seq, outcome: AppendOutcome::Unknown("timeout".into()) });
    world.advance(1_000);
    assert_eq!(claims(&world), ["one"]);
    assert_eq!(world.job_state(), JobState::Running);
}

#[test]
fn an_uncertain_entry_is_repeated_at_the_same_number_until_it_stands() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    world.held.insert(Hold::AppendJournal);
    world.ack_all(checkpoint);
    let Some(Action::AppendJournal { seq, entry }) = world.open.pop_front() else { panic!("no append") };
    assert!(matches!(entry, JournalEntry::Completed { .. }));
    world.send(Event::JournalAppended { seq, outcome: AppendOutcome::Unknown("timeout".into()) });
    assert!(world.position(|action| matches!(action, Action::NotifyComplete { .. })).is_none());
    world.advance(1_000);
    let Some(Action::AppendJournal { seq: again, entry: same }) = world.open.pop_front() else {
        panic!("not repeated")
    };
    assert_eq!((again, &same), (seq, &entry));
    // The first request arrives late, before the second.
    world.journal.insert(seq, entry);
    world.held.clear();
    world.send(Event::JournalAppended { seq, outcome: AppendOutcome::Exists });
    world.advance(1_000);
    assert_eq!(world.checkpoints(), [checkpoint]);
    assert!(world.position(|action| matches!(action, Action::NotifyComplete { .. })).is_some());
}

#[test]
fn an_unavailable_journal_is_asked_again_and_a_damaged_one_ends_the_coordinator() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::ReadJournal);
    world.start();
    let unavailable = || Err(StoreError::Unavailable("no route".into()));
    for _ in 0..5 {
        world.open.clear();
        world.send(Event::JournalRead { result: unavailable(), highest_directory: 0 });
        assert!(world.open.is_empty(), "asked again without a pause");
        world.advance(10_000);
        assert_eq!(world.open.len(), 1);
    }
    for _ in 0..3 {
        assert!(world.exit.is_none(), "one bad answer may be a journal that is being trimmed");
        world.send(Event::JournalRead { result: Err(StoreError::Damaged("bad entry".into())), highest_directory: 0 });
        world.advance(10_000);
    }
    assert!(matches!(&world.exit, Some(ExitReason::Unrecoverable { reason }) if reason.contains("bad entry")));
}

#[test]
fn r07_ids_never_repeat_over_coordinators() {
    let mut world = World::running(config(pipeline()));
    let mut seen = vec![world.complete_one()];
    // Triggered but never completed: its id is used up all the same.
    seen.push(world.next_trigger());
    assert_eq!(seen, [1, 2]);
    for _ in 0..3 {
        world.replace(successor());
        world.start();
        seen.push(world.next_trigger());
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn ids_start_above_every_directory_found() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::ReadJournal);
    world.start();
    world.held.clear();
    world.open.clear();
    world.send(Event::JournalRead { result: Ok(vec![]), highest_directory: 70 });
    assert_eq!(world.next_trigger(), 71);
}

#[test]
fn r03_r71_a_successor_restores_the_newest_checkpoint() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let newest = world.complete_one();
    world.replace(successor());
    world.start();
    assert_eq!(world.checkpoints(), [newest]);
    for (task, (_, _, restore)) in &world.deployed {
        assert_eq!(restore.checkpoint, Some(newest));
        let files: Vec<_> = restore.operators[&format!("u{}", task.vertex)].keyed[0].files.clone();
        assert_eq!(files[0].path, format!("f{newest}-{task}"));
    }
    assert_eq!(world.machine.view().checkpoints.latest_restored.as_ref().unwrap().checkpoint, newest);
}

#[test]
fn a_damaged_checkpoint_is_skipped_and_said_so() {
    let mut keeps_two = config(pipeline());
    keeps_two.checkpoint.retained = 2;
    let mut world = World::running(keeps_two.clone());
    let older = world.complete_one();
    let newer = world.complete_one();
    world.manifests.remove(&newer);
    world.replace(CoordinatorConfig { claimant: "two".into(), ..keeps_two });
    world.start();
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(older)));
    let skipped =
        |report: &&&Report| matches!(report, Report::CheckpointSkipped { checkpoint, .. } if *checkpoint == newer);
    assert_eq!(world.reports().iter().filter(skipped).count(), 1);
    // The next one replaces the damaged one; the one restored from is still among the two retained.
    let next = world.complete_one();
    assert_eq!(world.checkpoints(), [older, next]);
}

#[test]
fn without_any_readable_checkpoint_nothing_is_started() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let journal = world.journal.clone();
    world.manifests.clear();
    world.replace(successor());
    world.start();
    assert!(matches!(&world.exit, Some(ExitReason::Unrecoverable { reason }) if reason.contains("not there")));
    assert!(world.deployed.is_empty());
    let kept: BTreeMap<_, _> = world.journal.iter().filter(|(seq, _)| journal.contains_key(seq)).collect();
    assert_eq!(kept.len(), journal.len());
}

#[test]
fn an_unavailable_manifest_is_asked_for_again() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    world.replace(successor());
    world.held.insert(Hold::LoadManifest);
    world.start();
    world.open.clear();
    world.send(Event::ManifestLoaded { checkpoint, result: Err(StoreError::Unavailable("503".into())) });
    assert!(world.deployed.is_empty() && world.exit.is_none());
    world.advance(5_000);
    world.release(Hold::LoadManifest);
    assert_eq!(world.deployed.len(), 4);
}

#[test]
fn an_ended_job_is_not_started_again_unless_by_a_higher_revision() {
    let mut world = World::running(config(pipeline()));
    world.send(Event::Request(Request::Cancel));
    assert!(matches!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, .. })));
    world.replace(successor());
    world.start();
    assert_eq!(world.exit, Some(ExitReason::Ended { state: EndState::Canceled, reason: None }));
    assert_eq!(claims(&world), ["one"]);
    world.replace(CoordinatorConfig { revision: 2, ..successor() });
    world.start();
    assert_eq!(world.job_state(), JobState::Running);
}

#[test]
fn r50_a_job_starts_from_a_foreign_checkpoint_and_counts_on_from_it() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    let mut foreign = world.manifests[&checkpoint].clone();
    foreign.checkpoint = 227;
    let from_foreign = CoordinatorConfig { external_restore: Some(external(foreign)), ..config(pipeline()) };
    let mut world = World::running(from_foreign.clone());
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(227)));
    assert_eq!(world.complete_one(), 228);
    world.complete_one();
    let deleted: Vec<_> = world
        .log
        .iter()
        .filter_map(|action| match action {
            Action::DeleteCheckpoint { checkpoint, .. } => Some(*checkpoint),
            _ => None,
        })
        .collect();
    assert_eq!(deleted, [228]);
    world.replace(CoordinatorConfig { claimant: "two".into(), ..from_foreign });
    world.start();
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(229)), "its own come first");
}

#[test]
fn state_that_does_not_fit_is_an_error_before_any_task_starts() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let mut other = successor();
    other.plan.vertices[0].operators[0].uid = "renamed".into();
    world.replace(other);
    world.send(Event::Tick);
    assert!(matches!(&world.exit, Some(ExitReason::Incompatible { reason })
        if reason.contains("u0") && reason.contains("renamed")));
    assert!(world.deployed.is_empty());
}

#[test]
fn the_journal_stays_short() {
    let mut world = World::running(CoordinatorConfig { compact_after: 8, ..config(pipeline()) });
    for _ in 0..40 {
        world.complete_one();
        assert!(world.journal.len() <= 12, "{}", world.journal.len());
    }
    assert_eq!(world.checkpoints().len(), 1);
    let newest = world.checkpoints()[0];
    world.replace(successor());
    world.start();
    assert!(world.deployed.values().all(|(_, _, restore)| restore.checkpoint == Some(newest)));
}
