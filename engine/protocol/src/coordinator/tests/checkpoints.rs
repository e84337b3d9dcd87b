//! Triggering, completing, failing and cleaning up checkpoints.

use super::world::*;
use crate::coordinator::*;
use crate::journal::JournalEntry;
use crate::plan::ExchangePattern;

fn with(change: impl Fn(&mut CoordinatorConfig)) -> CoordinatorConfig {
    let mut config = config(pipeline());
    change(&mut config);
    config
}

fn completed_count(world: &World) -> usize {
    world.log.iter().filter(|action| matches!(action, Action::NotifyComplete { .. })).count()
}

fn failed(world: &World) -> Vec<(u64, bool)> {
    world
        .reports()
        .iter()
        .filter_map(|report| match report {
            Report::CheckpointFailed { checkpoint, counted, .. } => Some((*checkpoint, *counted)),
            _ => None,
        })
        .collect()
}

#[test]
fn r02_periodic_checkpoints_run_at_a_fixed_rate() {
    let mut world = World::running(config(pipeline()));
    for _ in 0..300 {
        world.advance(100);
        if let Some(last) = world.triggers().last().copied() {
            world.ack_all(last);
        }
    }
    let count = completed_count(&world);
    assert!((29..=31).contains(&count), "{count} in 30 s");
    let mut off = World::running(with(|config| config.checkpoint.interval_ms = None));
    off.advance(30_000);
    assert!(off.triggers().is_empty());
}

#[test]
fn a_checkpoint_on_request_needs_no_interval() {
    let mut world = World::running(with(|config| config.checkpoint.interval_ms = None));
    world.send(Event::Request(Request::TriggerCheckpoint { trigger: "t".into(), full: false }));
    assert_eq!(world.triggers(), [1]);
    world.ack_all(1);
    assert_eq!(world.checkpoints(), [1]);
}

#[test]
fn r07_barriers_enter_at_the_sources() {
    let mut world = World::running(config(pipeline()));
    world.next_trigger();
    let Some(Action::TriggerCheckpoint { tasks, .. }) =
        world.log.iter().find(|action| matches!(action, Action::TriggerCheckpoint { .. }))
    else {
        panic!("no trigger")
    };
    assert_eq!(tasks.iter().map(|(_, task, _)| *task).collect::<Vec<_>>(), [task(0, 0), task(0, 1)]);
}

#[test]
fn r11_a_checkpoint_exists_only_when_every_task_acknowledged() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    for acked in [task(0, 0), task(0, 1), task(1, 0)] {
        world.ack(acked, checkpoint, &[], false);
        world.ack(acked, checkpoint, &[], false);
    }
    assert!(world.manifests.is_empty() && world.checkpoints().is_empty());
    world.ack(task(1, 1), checkpoint, &[], false);
    assert_eq!(world.checkpoints(), [checkpoint]);
}

#[test]
fn i2_i4_manifest_then_journal_then_notice() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    world.held.insert(Hold::WriteManifest);
    world.ack_all(checkpoint);
    let completed =
        |action: &Action| matches!(action, Action::AppendJournal { entry: JournalEntry::Completed { .. }, .. });
    assert!(world.position(completed).is_none());
    world.held.insert(Hold::AppendJournal);
    world.release(Hold::WriteManifest);
    assert!(world.position(completed).is_some());
    assert_eq!(completed_count(&world), 0);
    world.release(Hold::AppendJournal);
    assert_eq!(completed_count(&world), 1);
}

#[test]
fn r13_the_manifest_holds_every_subtask_and_the_figures() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.complete_one();
    let manifest = &world.manifests[&checkpoint];
    assert_eq!(manifest.operators.iter().map(|operator| operator.uid.as_str()).collect::<Vec<_>>(), ["u0", "u1"]);
    assert!(manifest.operators.iter().all(|operator| operator.subtasks.len() == 2 && operator.parallelism == 2));
    assert_eq!(manifest.stats.len(), 4);
    let view = &world.machine.view().checkpoints;
    let latest = view.latest_completed.as_ref().unwrap();
    assert_eq!((latest.checkpointed_size, latest.state_size, latest.acknowledged), (40, 80, 4));
    assert_eq!((view.counts.completed, view.counts.in_progress), (1, 0));
}

#[test]
fn r20_a_stalled_checkpoint_expires_and_the_next_is_triggered() {
    let mut world = World::running(with(|config| config.checkpoint.tolerable_failures = 1));
    let checkpoint = world.next_trigger();
    world.ack(task(0, 0), checkpoint, &[], false);
    let triggered = world.now;
    while failed(&world).is_empty() {
        world.advance(10);
    }
    assert!(world.now - triggered <= TIMEOUT_MS + 60 && world.now - triggered >= TIMEOUT_MS - 60);
    let reason = world.machine.view().checkpoints.latest_failed.clone().unwrap().failure.unwrap();
    assert!(reason.contains("expired before completing") && reason.contains("1.1"), "{reason}");
    assert!(world.position(|action| matches!(action, Action::NotifyAborted { .. })).is_some());
    assert_eq!(world.triggers().len(), 2, "room for the one that waited");
    let next = *world.triggers().last().unwrap();
    world.ack_all(checkpoint);
    assert!(world.checkpoints().is_empty(), "acknowledged too late");
    world.ack_all(next);
    assert_eq!(world.checkpoints(), [next]);
}

#[test]
fn r21_min_pause_counts_from_the_last_completion() {
    let mut world = World::running(with(|config| config.checkpoint.min_pause_ms = 500));
    let first = world.next_trigger();
    let started = world.now;
    world.advance(1_200);
    world.ack_all(first);
    let completed = world.now;
    let mut triggered = None;
    while triggered.is_none() {
        world.advance(10);
        triggered = (world.triggers().len() == 2).then_some(world.now);
    }
    let triggered = triggered.unwrap();
    assert!(triggered - completed >= 500 && triggered - completed <= 510, "{} ms", triggered - completed);
    assert!(triggered - started >= 1_650);
}

#[test]
fn r22_at_most_max_concurrent_are_in_progress_and_the_newer_subsumes_the_older() {
    let mut world = World::running(with(|config| config.checkpoint.max_concurrent = 2));
    world.advance(5_000);
    assert_eq!(world.triggers(), [1, 2]);
    world.ack_all(2);
    assert_eq!(world.checkpoints(), [2]);
    assert_eq!(failed(&world), [(1, false)]);
    world.ack_all(1);
    assert_eq!(world.checkpoints(), [2]);
    world.advance(50);
    assert_eq!(world.triggers()[2], 3, "the one that waited finds room");
    let mut single = World::running(config(pipeline()));
    single.advance(5_000);
    assert_eq!(single.triggers(), [1]);
}

#[test]
fn r23_only_counted_failures_use_up_the_tolerance() {
    use DeclineReason::*;
    let cases = [
        (AsyncException, true),
        (TaskNotReady, false),
        (TaskClosing, false),
        (Subsumed, false),
        (OnCancellationBarrier, false),
        (InputEndOfStream, false),
    ];
    for (reason, counts) in cases {
        let mut world = World::running(with(|config| config.checkpoint.tolerable_failures = 1));
        for _ in 0..3 {
            let checkpoint = world.next_trigger();
            world.decline(task(1, 0), checkpoint, reason);
            world.decline(task(1, 1), checkpoint, reason);
        }
        assert_eq!(world.machine.view().restarts, u32::from(counts), "{reason:?}");
        assert!(failed(&world).iter().all(|(_, counted)| *counted == counts));
    }
}

#[test]
fn r23_a_success_resets_the_count_and_a_maximum_never_fails() {
    let mut world = World::running(with(|config| config.checkpoint.tolerable_failures = 1));
    for _ in 0..4 {
        let checkpoint = world.next_trigger();
        world.decline(task(1, 0), checkpoint, DeclineReason::AsyncException);
        world.complete_one();
    }
    assert_eq!(world.machine.view().restarts, 0);
    let mut patient = World::running(with(|config| config.checkpoint.tolerable_failures = u32::MAX));
    for _ in 0..20 {
        let checkpoint = patient.next_trigger();
        patient.decline(task(1, 0), checkpoint, DeclineReason::AsyncException);
    }
    assert_eq!(patient.machine.view().restarts, 0);
}

#[test]
fn r23_a_manifest_that_cannot_be_written_is_a_counted_failure() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    world.held.insert(Hold::WriteManifest);
    world.ack_all(checkpoint);
    world.send(Event::ManifestWritten { checkpoint, result: Err(StoreError::Unavailable("disk full".into())) });
    assert_eq!(failed(&world), [(checkpoint, true)]);
    assert_eq!(world.machine.view().restarts, 1);
    let failure = &world.machine.view().failures[0].reason;
    assert!(failure.contains("Exceeded checkpoint tolerable failure threshold.") && failure.contains("disk full"));
}

#[test]
fn r75_retained_checkpoints_and_their_files() {
    let mut world = World::running(with(|config| config.checkpoint.retained = 3));
    let mut deleted = Vec::new();
    for round in 1..=5u64 {
        let checkpoint = world.next_trigger();
        for acked in [task(0, 0), task(0, 1), task(1, 0)] {
            world.ack(acked, checkpoint, &[], false);
        }
        let base = if round < 3 { "base-a" } else { "base-b" };
        world.ack(task(1, 1), checkpoint, &[base, &format!("delta-{round}")], false);
        assert_eq!(world.checkpoints().len() as u64, round.min(3));
        assert_eq!(world.manifests.len() as u64, round.min(3));
    }
    for action in &world.log {
        if let Action::DeleteCheckpoint { checkpoint, files, .. } = action {
            deleted.push((*checkpoint, files.clone()));
        }
    }
    assert_eq!(deleted, [(1, vec!["delta-1".to_owned()]), (2, vec!["base-a".to_owned(), "delta-2".to_owned()])]);
}

#[test]
fn i6_the_discard_is_journaled_before_anything_is_deleted() {
    let mut world = World::running(config(pipeline()));
    world.complete_one();
    let next = world.next_trigger();
    world.ack_all(next);
    let discarded = world
        .position(|action| matches!(action, Action::AppendJournal { entry: JournalEntry::Discarded { .. }, .. }))
        .unwrap();
    let deleted = world.position(|action| matches!(action, Action::DeleteCheckpoint { .. })).unwrap();
    assert!(discarded < deleted);
}

#[test]
fn i6_files_wait_for_checkpoints_in_progress_that_may_refer_to_them() {
    let mut world = World::running(with(|config| config.checkpoint.max_concurrent = 2));
    let first = world.next_trigger();
    for acked in [task(0, 0), task(0, 1), task(1, 0)] {
        world.ack(acked, first, &[], false);
    }
    world.ack(task(1, 1), first, &["shared"], false);
    let second = world.next_trigger();
    let third = world.next_trigger();
    world.ack_all(second);
    let deletes = |world: &World| world.position(|action| matches!(action, Action::DeleteCheckpoint { .. }));
    assert_eq!(world.checkpoints(), [second]);
    assert_eq!(deletes(&world), None, "{third} may still build on the first");
    for acked in [task(0, 0), task(0, 1), task(1, 0)] {
        world.ack(acked, third, &[], false);
    }
    world.ack(task(1, 1), third, &["shared"], false);
    let freed: Vec<_> = world
        .log
        .iter()
        .filter_map(|action| match action {
            Action::DeleteCheckpoint { files, .. } => Some(files.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(!freed.is_empty() && !freed.contains(&"shared".to_owned()), "{freed:?}");
}

#[test]
fn files_of_an_aborted_checkpoint_go_unless_a_later_one_refers_to_them() {
    let mut world = World::running(with(|config| config.checkpoint.tolerable_failures = 9));
    let aborted = world.next_trigger();
    world.ack(task(0, 0), aborted, &["kept", "left"], false);
    world.decline(task(1, 0), aborted, DeclineReason::AsyncException);
    world.ack(task(0, 1), aborted, &["late"], false);
    assert!(world.position(|action| matches!(action, Action::DeleteCheckpoint { .. })).is_none());
    let next = world.next_trigger();
    for acked in [task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, next, &[], false);
    }
    world.ack(task(0, 0), next, &["kept"], false);
    let delete = world.log.iter().find(|action| matches!(action, Action::DeleteCheckpoint { .. })).unwrap();
    let files = vec!["late".to_owned(), "left".to_owned()];
    assert_eq!(*delete, Action::DeleteCheckpoint { checkpoint: aborted, files, location: None });
}

#[test]
fn a_failed_deletion_is_repeated_and_then_given_up() {
    let mut world = World::running(config(pipeline()));
    world.held.insert(Hold::DeleteCheckpoint);
    let first = world.complete_one();
    world.complete_one();
    let mut attempts = 0;
    while let Some(Action::DeleteCheckpoint { checkpoint, .. }) = world.open.pop_front() {
        assert_eq!(checkpoint, first);
        attempts += 1;
        world.send(Event::CheckpointDeleted { checkpoint, result: Err(StoreError::Unavailable("503".into())) });
        world.advance(2_000);
    }
    assert_eq!(attempts, 5);
    assert!(world.reports().iter().any(|report| matches!(report, Report::CleanupFailed { .. })));
}

#[test]
fn a_successor_knows_all_retained_files_before_it_deletes() {
    let keeps_two = with(|config| config.checkpoint.retained = 2);
    let mut world = World::running(keeps_two.clone());
    for round in 1..=2u64 {
        let checkpoint = world.next_trigger();
        for acked in [task(0, 0), task(0, 1), task(1, 0)] {
            world.ack(acked, checkpoint, &[], false);
        }
        world.ack(task(1, 1), checkpoint, &["base", &format!("delta-{round}")], false);
    }
    world.replace(CoordinatorConfig { claimant: "two".into(), ..keeps_two });
    world.start();
    let checkpoint = world.next_trigger();
    world.ack_all(checkpoint);
    world.advance(10);
    let delete = world.log.iter().find(|action| matches!(action, Action::DeleteCheckpoint { .. })).unwrap();
    assert_eq!(*delete, Action::DeleteCheckpoint { checkpoint: 1, files: vec!["delta-1".into()], location: None });
}

#[test]
fn messages_of_old_deployments_and_strangers_change_nothing() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    let (deployment, ..) = world.deployed[&task(0, 0)].clone();
    let snapshot = crate::manifest::TaskSnapshot::default();
    let stats = crate::manifest::SubtaskStats::default();
    for (task, deployment, checkpoint) in
        [(task(0, 0), deployment + 1, checkpoint), (task(9, 9), deployment, checkpoint), (task(0, 0), deployment, 99)]
    {
        let snapshot = snapshot.clone();
        world.send(Event::CheckpointAck { task, deployment, checkpoint, snapshot, stats });
        let status = TaskStatus::Failed { reason: "old".into(), recoverable: true };
        if (task, deployment) != (self::task(0, 0), 1) {
            world.send(Event::TaskStatus { task, deployment, status });
        }
    }
    world.send(Event::WorkerLost { worker: crate::ids::WorkerId(77), reason: "who".into() });
    world.send(Event::JournalAppended { seq: 500, outcome: AppendOutcome::Exists });
    world.send(Event::ManifestWritten { checkpoint: 44, result: Ok(1) });
    world.send(Event::CheckpointDeleted { checkpoint: 44, result: Ok(()) });
    assert_eq!(world.machine.view().checkpoints.history[0].acknowledged, 0);
    assert_eq!(world.machine.view().restarts, 0);
    world.ack_all(checkpoint);
    assert_eq!(world.checkpoints(), [checkpoint]);
}

#[test]
fn finished_tasks_are_carried_on_and_barriers_enter_behind_them() {
    let mut world = World::running(config(pipeline()));
    world.status(task(0, 0), TaskStatus::Drained);
    let first = world.next_trigger();
    world.ack(task(0, 0), first, &["end"], true);
    for acked in [task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, first, &[], false);
    }
    world.status(task(0, 0), TaskStatus::Finished);
    let trigger_targets = |world: &World| {
        let trigger = world.log.iter().rev().find_map(|action| match action {
            Action::TriggerCheckpoint { tasks, .. } => Some(tasks.iter().map(|(_, task, _)| *task).collect::<Vec<_>>()),
            _ => None,
        });
        trigger.unwrap()
    };
    let second = world.next_trigger();
    assert_eq!(trigger_targets(&world), [task(0, 1)], "the sinks still read from a running task");
    for acked in [task(0, 1), task(1, 0), task(1, 1)] {
        world.ack(acked, second, &[], acked == task(0, 1));
    }
    let subtasks = &world.manifests[&second].operators[0].subtasks;
    assert!(subtasks[&0].finished && subtasks[&0].state.keyed[0].files[0].path == "end");
    world.status(task(0, 1), TaskStatus::Finished);
    world.next_trigger();
    assert_eq!(trigger_targets(&world), [task(1, 0), task(1, 1)]);
}

#[test]
fn tasks_about_to_report_their_end_are_not_bothered() {
    let mut world = World::running(config(pipeline()));
    world.all(TaskStatus::Drained);
    let last = *world.triggers().last().unwrap();
    for acked in world.deployed.keys().copied().collect::<Vec<_>>() {
        world.ack(acked, last, &[], true);
    }
    world.advance(2_000);
    assert_eq!(world.triggers(), [last]);
    // One of them never got the notice: another checkpoint gives it another chance.
    world.advance(5_000);
    assert!(world.triggers().len() > 1);
}

#[test]
fn a_task_that_ends_before_the_barrier_aborts_the_checkpoint_without_counting() {
    let mut world = World::running(config(pipeline()));
    let checkpoint = world.next_trigger();
    world.status(task(0, 0), TaskStatus::Finished);
    assert_eq!(failed(&world), [(checkpoint, false)]);
}

#[test]
fn no_checkpoint_while_a_task_is_still_restoring() {
    let mut world = World::new(config(pipeline()));
    world.held.insert(Hold::Tasks);
    world.start();
    let Some(Action::Deploy { deployment, tasks, .. }) = world.open.pop_front() else { panic!("not deployed") };
    for deployed in &tasks[1..] {
        world.send(Event::TaskStatus { task: deployed.task, deployment, status: TaskStatus::Running });
    }
    world.advance(5_000);
    assert!(world.triggers().is_empty());
    world.send(Event::TaskStatus { task: tasks[0].task, deployment, status: TaskStatus::Running });
    world.advance(1_000);
    assert_eq!(world.triggers().len(), 1);
}

#[test]
fn pointwise_pipelines_are_triggered_by_their_own_predecessors() {
    let mut world = World::running(config(plan(&[2, 2], &[(0, 1, ExchangePattern::Pointwise)])));
    world.status(task(0, 0), TaskStatus::Drained);
    let first = world.next_trigger();
    for acked in world.deployed.keys().copied().collect::<Vec<_>>() {
        world.ack(acked, first, &[], acked == task(0, 0));
    }
    world.status(task(0, 0), TaskStatus::Finished);
    world.next_trigger();
    let Some(Action::TriggerCheckpoint { tasks, .. }) =
        world.log.iter().rev().find(|action| matches!(action, Action::TriggerCheckpoint { .. }))
    else {
        panic!("no trigger")
    };
    assert_eq!(tasks.iter().map(|(_, task, _)| *task).collect::<Vec<_>>(), [task(0, 1), task(1, 0)]);
}
