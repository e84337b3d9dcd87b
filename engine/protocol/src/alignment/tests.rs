use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

fn barrier(checkpoint: CheckpointId) -> Barrier {
    Barrier::new(checkpoint, 100)
}

fn taken(out: &[Alignment]) -> Vec<CheckpointId> {
    out.iter()
        .filter_map(|alignment| match alignment {
            Alignment::Checkpoint { barrier, .. } => Some(barrier.checkpoint),
            _ => None,
        })
        .collect()
}

#[test]
fn a_single_channel_needs_no_alignment() {
    let mut aligner = Aligner::new(1, CheckpointMode::ExactlyOnce);
    assert_eq!(
        aligner.on_barrier(0, barrier(1), 130),
        vec![Alignment::Checkpoint { barrier: barrier(1), start_delay_ms: 30, alignment_ms: 0 }]
    );
    assert!(!aligner.is_blocked(0));
}

#[test]
fn a_source_checkpoints_when_triggered_and_only_once() {
    let mut aligner = Aligner::new(0, CheckpointMode::ExactlyOnce);
    assert_eq!(taken(&aligner.on_trigger(barrier(4), 100)), vec![4]);
    assert!(aligner.on_trigger(barrier(4), 100).is_empty());
    assert!(aligner.on_trigger(barrier(3), 100).is_empty());
}

#[test]
fn r09_exactly_once_blocks_aligned_channels_until_the_last_barrier() {
    let mut aligner = Aligner::new(3, CheckpointMode::ExactlyOnce);
    assert_eq!(aligner.on_barrier(1, barrier(1), 110), vec![Alignment::Block(1)]);
    assert_eq!(aligner.on_barrier(0, barrier(1), 115), vec![Alignment::Block(0)]);
    assert!(aligner.is_blocked(0) && aligner.is_blocked(1) && !aligner.is_blocked(2));
    assert_eq!(
        aligner.on_barrier(2, barrier(1), 150),
        vec![
            Alignment::Checkpoint { barrier: barrier(1), start_delay_ms: 10, alignment_ms: 40 },
            Alignment::Unblock(vec![0, 1]),
        ]
    );
}

/// Two number sources, blue 1..3 and yellow 1..4, with barrier 2 behind them, and the two sums they feed.
#[test]
fn r09_even_and_odd_sums_are_eight_in_checkpoint_two() {
    for yellow_first in [true, false] {
        for parity in [0, 1] {
            let mut inputs: Vec<VecDeque<u64>> = vec![VecDeque::from([1, 2, 3]), VecDeque::from([1, 2, 3, 4])];
            let after_barrier: Vec<Vec<u64>> = vec![vec![4, 5, 6], vec![5, 6, 7]];
            let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
            let mut sum = 0;
            let order = if yellow_first { [1, 0] } else { [0, 1] };
            let mut snapshot = None;
            for channel in order {
                while let Some(number) = inputs[channel].pop_front() {
                    sum += if number % 2 == parity { number } else { 0 };
                }
                for alignment in aligner.on_barrier(channel, barrier(2), 100) {
                    if let Alignment::Checkpoint { .. } = alignment {
                        snapshot = Some(sum);
                    }
                }
                // Record 7 of the faster source must wait.
                if !aligner.is_blocked(channel) {
                    sum += after_barrier[channel].iter().filter(|number| *number % 2 == parity).sum::<u64>();
                }
            }
            // Odd: 1 + 3 of blue and 1 + 3 of yellow; even: 2 of blue and 2 + 4 of yellow.
            assert_eq!(snapshot, Some(8));
        }
    }
}

#[test]
fn r10_the_barrier_goes_on_and_so_does_the_task() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    for checkpoint in 1..=3 {
        aligner.on_barrier(0, barrier(checkpoint), 100);
        let out = aligner.on_barrier(1, barrier(checkpoint), 100);
        // Forwarded and cut before anything behind the barrier is read.
        assert!(matches!(out[..], [Alignment::Checkpoint { .. }, Alignment::Unblock(_)]), "{out:?}");
        assert!(!aligner.is_blocked(0) && !aligner.is_blocked(1));
    }
}

#[test]
fn a_newer_barrier_subsumes_the_older_alignment_and_reads_its_channels_again() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_barrier(0, barrier(1), 100);
    assert_eq!(
        aligner.on_barrier(1, barrier(2), 100),
        vec![
            Alignment::Abort { checkpoint: 1, reason: DeclineReason::Subsumed },
            Alignment::ForwardCancel(1),
            Alignment::Unblock(vec![0]),
            Alignment::Block(1),
        ]
    );
    assert_eq!(taken(&aligner.on_barrier(0, barrier(2), 100)), vec![2]);
}

#[test]
fn an_older_barrier_is_dropped_and_its_channel_read_on() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_barrier(0, barrier(2), 100);
    assert!(aligner.on_barrier(1, barrier(1), 100).is_empty());
    assert!(!aligner.is_blocked(1));
    assert_eq!(taken(&aligner.on_barrier(1, barrier(2), 100)), vec![2]);
}

#[test]
fn a_cancel_marker_declines_and_goes_on_downstream_once() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_barrier(0, barrier(1), 100);
    assert_eq!(
        aligner.on_cancel_marker(1, 1),
        vec![
            Alignment::Abort { checkpoint: 1, reason: DeclineReason::OnCancellationBarrier },
            Alignment::ForwardCancel(1),
            Alignment::Unblock(vec![0]),
        ]
    );
    assert!(aligner.on_cancel_marker(0, 1).is_empty());
    assert!(aligner.on_barrier(1, barrier(1), 100).is_empty());
}

#[test]
fn an_abort_of_a_later_checkpoint_leaves_the_pending_one_alone() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_barrier(0, barrier(1), 100);
    assert_eq!(aligner.abort(2), vec![Alignment::ForwardCancel(2)]);
    assert!(aligner.is_blocked(0));
    assert_eq!(taken(&aligner.on_barrier(1, barrier(1), 100)), vec![1]);
    assert!(aligner.on_barrier(0, barrier(2), 100).is_empty());
    assert!(aligner.abort(1).is_empty());
}

#[test]
fn an_ended_channel_counts_as_aligned_before_and_after_the_first_barrier() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_barrier(0, barrier(1), 100);
    assert_eq!(taken(&aligner.on_channel_end(1, 105)), vec![1]);
    assert_eq!(taken(&aligner.on_barrier(0, barrier(2), 106)), vec![2]);
}

#[test]
fn a_direct_trigger_waits_for_the_ends_that_are_still_on_their_way() {
    let mut aligner = Aligner::new(2, CheckpointMode::ExactlyOnce);
    aligner.on_channel_end(0, 100);
    assert!(aligner.on_trigger(barrier(3), 110).is_empty());
    assert_eq!(
        aligner.on_channel_end(1, 140),
        vec![Alignment::Checkpoint { barrier: barrier(3), start_delay_ms: 10, alignment_ms: 30 }]
    );
}

#[test]
fn r15_at_least_once_never_blocks_and_reports_the_alignment_time() {
    let mut aligner = Aligner::new(2, CheckpointMode::AtLeastOnce);
    assert!(aligner.on_barrier(0, barrier(1), 110).is_empty());
    assert!(aligner.on_barrier(0, barrier(2), 120).is_empty());
    assert!(!aligner.is_blocked(0));
    assert_eq!(
        aligner.on_barrier(1, barrier(1), 130),
        vec![Alignment::Checkpoint { barrier: barrier(1), start_delay_ms: 10, alignment_ms: 20 }]
    );
    assert_eq!(taken(&aligner.on_barrier(1, barrier(2), 130)), vec![2]);
}

#[test]
fn r15_completing_a_checkpoint_discards_the_counts_of_older_ones() {
    let mut aligner = Aligner::new(2, CheckpointMode::AtLeastOnce);
    aligner.on_barrier(0, barrier(1), 100);
    aligner.on_barrier(0, barrier(2), 100);
    let out = aligner.on_barrier(1, barrier(2), 100);
    assert_eq!(taken(&out), vec![2]);
    assert!(out.contains(&Alignment::Abort { checkpoint: 1, reason: DeclineReason::Subsumed }));
    assert!(aligner.on_barrier(1, barrier(1), 100).is_empty());
}

#[test]
fn r15_at_least_once_counts_fifty_checkpoints_at_most() {
    let mut aligner = Aligner::new(2, CheckpointMode::AtLeastOnce);
    for checkpoint in 1..=50 {
        assert!(aligner.on_barrier(0, barrier(checkpoint), 100).is_empty());
    }
    assert_eq!(
        aligner.on_barrier(0, barrier(51), 100),
        vec![Alignment::Abort { checkpoint: 1, reason: DeclineReason::Subsumed }, Alignment::ForwardCancel(1)]
    );
    assert_eq!(taken(&aligner.on_barrier(1, barrier(2), 100)), vec![2]);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    Record,
    Barrier(CheckpointId),
    Cancel(CheckpointId),
    End,
}

/// What one input carries: in every epoch some records, then the barrier, or a cancel marker in its place; then the end.
fn input(epochs: usize) -> impl Strategy<Value = Vec<Item>> {
    (prop::collection::vec((0..4usize, prop::bool::weighted(0.9)), 0..=epochs), 0..4usize).prop_map(|(epochs, rest)| {
        let mut items = Vec::new();
        for (index, (records, delivers)) in epochs.into_iter().enumerate() {
            items.extend(std::iter::repeat_n(Item::Record, records));
            let checkpoint = index as CheckpointId + 1;
            items.push(if delivers { Item::Barrier(checkpoint) } else { Item::Cancel(checkpoint) });
        }
        items.extend(std::iter::repeat_n(Item::Record, rest));
        items.push(Item::End);
        items
    })
}

struct Run {
    /// By checkpoint taken: records read from each channel before it.
    snapshots: BTreeMap<CheckpointId, Vec<usize>>,
    ever_blocked: bool,
}

/// Reads the inputs in the order the choices say; aborts some checkpoints between.
fn run(mode: CheckpointMode, inputs: &[Vec<Item>], choices: &[u8], aborts: &[(usize, CheckpointId)]) -> Run {
    let mut aligner = Aligner::new(inputs.len(), mode);
    let mut position = vec![0; inputs.len()];
    let mut records = vec![0; inputs.len()];
    let mut result = Run { snapshots: BTreeMap::new(), ever_blocked: false };
    let mut blocked = vec![false; inputs.len()];
    for step in 0.. {
        let readable: Vec<usize> = (0..inputs.len())
            .filter(|channel| !aligner.is_blocked(*channel) && position[*channel] < inputs[*channel].len())
            .collect();
        if readable.is_empty() {
            break;
        }
        let channel = readable[choices.get(step).copied().unwrap_or(0) as usize % readable.len()];
        let item = inputs[channel][position[channel]];
        position[channel] += 1;
        let mut out = match item {
            Item::Record => {
                records[channel] += 1;
                Vec::new()
            }
            Item::Barrier(checkpoint) => aligner.on_barrier(channel, barrier(checkpoint), step as Millis),
            Item::Cancel(checkpoint) => aligner.on_cancel_marker(channel, checkpoint),
            Item::End => aligner.on_channel_end(channel, step as Millis),
        };
        for (_, checkpoint) in aborts.iter().filter(|(at, _)| *at == step) {
            out.extend(aligner.abort(*checkpoint));
        }
        for alignment in out {
            match alignment {
                Alignment::Checkpoint { barrier, .. } => {
                    let before = result.snapshots.insert(barrier.checkpoint, records.clone());
                    assert_eq!(before, None, "checkpoint {} taken twice", barrier.checkpoint);
                }
                Alignment::Block(channel) => {
                    result.ever_blocked = true;
                    blocked[channel] = true;
                }
                Alignment::Unblock(channels) => channels.into_iter().for_each(|channel| blocked[channel] = false),
                Alignment::Abort { checkpoint, .. } => assert!(!result.snapshots.contains_key(&checkpoint)),
                Alignment::ForwardCancel(_) => {}
            }
        }
        for (channel, blocked) in blocked.iter().enumerate() {
            assert_eq!(*blocked, aligner.is_blocked(channel), "the outputs tell which channels are blocked");
        }
    }
    for (channel, items) in inputs.iter().enumerate() {
        assert_eq!(position[channel], items.len(), "channel {channel} was never read to its end");
    }
    result
}

/// Records that precede the barrier in its channel; all of them if the channel ends without it.
fn preceding(items: &[Item], checkpoint: CheckpointId) -> usize {
    items
        .iter()
        .take_while(|item| **item != Item::Barrier(checkpoint))
        .filter(|item| matches!(item, Item::Record))
        .count()
}

proptest! {
    #[test]
    fn r06_r16_a_record_is_in_the_snapshot_iff_it_precedes_the_barrier(
        inputs in prop::collection::vec(input(6), 1..5),
        choices in prop::collection::vec(any::<u8>(), 0..160),
        aborts in prop::collection::vec((0..80usize, 1..7u64), 0..3),
    ) {
        let result = run(CheckpointMode::ExactlyOnce, &inputs, &choices, &aborts);
        for (checkpoint, snapshot) in &result.snapshots {
            prop_assert!(inputs.iter().all(|items| !items.contains(&Item::Cancel(*checkpoint))));
            let expected: Vec<usize> = inputs.iter().map(|items| preceding(items, *checkpoint)).collect();
            prop_assert_eq!(snapshot, &expected, "checkpoint {}", checkpoint);
        }
        // Whatever every input delivered and nobody aborted is taken.
        for checkpoint in 1..7 {
            let delivered = inputs.iter().all(|items| items.contains(&Item::Barrier(checkpoint)));
            let aborted = aborts.iter().any(|(_, aborted)| *aborted == checkpoint);
            prop_assert!(!delivered || aborted || result.snapshots.contains_key(&checkpoint));
        }
    }

    #[test]
    fn r15_at_least_once_never_blocks_and_never_loses(
        inputs in prop::collection::vec(input(6), 1..5),
        choices in prop::collection::vec(any::<u8>(), 0..160),
    ) {
        let result = run(CheckpointMode::AtLeastOnce, &inputs, &choices, &[]);
        prop_assert!(!result.ever_blocked);
        for (checkpoint, snapshot) in &result.snapshots {
            for (records, items) in snapshot.iter().zip(&inputs) {
                prop_assert!(*records >= preceding(items, *checkpoint));
            }
        }
    }
}
