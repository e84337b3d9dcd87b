//! How generated rows are dealt to subtasks so that a restore at any parallelism goes on exactly.
//!
//! Row numbers 0, 1, 2 … are cut in blocks, and block b belongs to stripe b mod [`STRIPES`]. That never depends on
//! the parallelism; a subtask owns every stripe k with k mod parallelism = its index. The position is the next row of
//! each stripe, kept as union list state: after a restore each subtask picks its stripes out of all positions. A
//! subtask takes its rows in increasing order, so generated event time never goes back within it.

use crate::error::ConnectorError;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use streamjob_dataflow::{OperatorContext, OperatorRestore};
use streamjob_protocol::manifest::{ListStateHandle, Redistribution};
use streamjob_protocol::plan::StateTable;
use streamjob_state::StateCut;

/// No source that uses stripes can have more subtasks.
pub(crate) const STRIPES: u32 = 128;
const STATE: &str = "stripes";

/// What a source that uses stripes declares.
pub(crate) fn state() -> Vec<StateTable> {
    vec![StateTable::list(STATE, Redistribution::Union)]
}

/// Position of one subtask.
#[derive(Debug, Clone)]
pub(crate) struct Stripes {
    block: u64,
    /// Rows from here on do not exist.
    end: u64,
    /// Next row and stripe, smallest first.
    next: BinaryHeap<Reverse<(u64, u32)>>,
}

/// What one subtask writes.
#[derive(Serialize, Deserialize)]
struct StripesEntry {
    /// Rows keep the blocks they were dealt in when the table's options change.
    block: u64,
    /// Stripe and its next row.
    next: Vec<(u32, u64)>,
}

impl Stripes {
    /// The stripes of this subtask, at the restored position if there is one.
    pub fn open(
        block: u64,
        end: u64,
        context: &OperatorContext,
        restore: &OperatorRestore,
    ) -> Result<Stripes, ConnectorError> {
        let mut block = block;
        let mut restored: BTreeMap<u32, u64> = BTreeMap::new();
        for value in restore.lists.get(STATE).into_iter().flatten() {
            let entry =
                StripesEntry::deserialize(value).map_err(|source| ConnectorError::State { state: STATE, source })?;
            block = entry.block.max(1);
            for (stripe, row) in entry.next {
                let known = restored.entry(stripe).or_insert(row);
                *known = row.max(*known);
            }
        }
        let next = (0..STRIPES)
            .filter(|stripe| stripe % context.parallelism == context.subtask)
            .map(|stripe| Reverse((restored.get(&stripe).copied().unwrap_or(u64::from(stripe) * block), stripe)))
            .collect();
        Ok(Stripes { block, end, next })
    }

    /// The next row, `None` at the end.
    pub fn peek(&self) -> Option<u64> {
        self.next.peek().map(|Reverse((row, _))| *row).filter(|&row| row < self.end)
    }

    /// Takes up to `max` rows below `limit`, in increasing order, as ranges; returns how many.
    pub fn take(&mut self, max: usize, limit: u64, ranges: &mut Vec<Range<u64>>) -> usize {
        ranges.clear();
        let limit = limit.min(self.end);
        let mut taken = 0;
        while taken < max {
            let Some(mut top) = self.next.peek_mut() else { break };
            let Reverse((row, stripe)) = *top;
            if row >= limit {
                break;
            }
            let block_end = (row / self.block + 1) * self.block;
            let stop = block_end.min(limit).min(row + (max - taken) as u64);
            let following = if stop == block_end { stop + u64::from(STRIPES - 1) * self.block } else { stop };
            *top = Reverse((following, stripe));
            taken += (stop - row) as usize;
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end = stop,
                _ => ranges.push(row..stop),
            }
        }
        taken
    }

    pub fn snapshot(&self) -> Result<StateCut, ConnectorError> {
        let mut next: Vec<(u32, u64)> = self.next.iter().map(|Reverse((row, stripe))| (*stripe, *row)).collect();
        next.sort_unstable();
        let entry = serde_json::to_value(StripesEntry { block: self.block, next })
            .map_err(|source| ConnectorError::State { state: STATE, source })?;
        Ok(StateCut {
            keyed: vec![],
            lists: vec![ListStateHandle {
                name: STATE.into(),
                redistribution: Redistribution::Union,
                entries: vec![entry],
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, union_restore};

    fn rows(stripes: &mut Stripes, max: usize) -> Vec<u64> {
        let mut ranges = vec![];
        let taken = stripes.take(max, u64::MAX, &mut ranges);
        let rows: Vec<u64> = ranges.into_iter().flatten().collect();
        assert_eq!(rows.len(), taken);
        rows
    }

    #[test]
    fn one_subtask_gets_everything_in_one_range() {
        let mut stripes = Stripes::open(100, 20_000, &context(0, 1), &OperatorRestore::default()).unwrap();
        let mut ranges = vec![];
        assert_eq!(stripes.take(8192, u64::MAX, &mut ranges), 8192);
        assert_eq!(ranges, vec![0..8192]);
        assert_eq!(stripes.take(50_000, u64::MAX, &mut ranges), 20_000 - 8192);
        assert_eq!(stripes.peek(), None);
        assert_eq!(stripes.take(1, u64::MAX, &mut ranges), 0);
    }

    #[test]
    fn rows_are_increasing_within_a_subtask_and_dealt_once_over_all() {
        for (parallelism, block) in [(2, 1), (3, 100), (7, 3), (128, 10)] {
            let mut all = vec![];
            for subtask in 0..parallelism {
                let context = context(subtask, parallelism);
                let mut stripes = Stripes::open(block, 9_999, &context, &OperatorRestore::default()).unwrap();
                let mine = rows(&mut stripes, 1 << 20);
                assert!(mine.is_sorted());
                all.extend(mine);
            }
            all.sort_unstable();
            assert_eq!(all, (0..9_999).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_restore_at_another_parallelism_continues_exactly() {
        let mut seen = vec![];
        let mut cuts = vec![];
        for subtask in 0..3u32 {
            let mut stripes = Stripes::open(10, 12_345, &context(subtask, 3), &OperatorRestore::default()).unwrap();
            seen.extend(rows(&mut stripes, 137 * (subtask as usize * 5 + 1)));
            cuts.push(stripes.snapshot().unwrap());
        }
        // A second rescale while the stripes are still at different rows.
        let restore = union_restore(&cuts);
        let mut cuts = vec![];
        for subtask in 0..5u32 {
            let mut stripes = Stripes::open(77, 12_345, &context(subtask, 5), &restore).unwrap();
            seen.extend(rows(&mut stripes, 211));
            cuts.push(stripes.snapshot().unwrap());
        }
        let restore = union_restore(&cuts);
        for subtask in 0..2u32 {
            let mut stripes = Stripes::open(10, 12_345, &context(subtask, 2), &restore).unwrap();
            let rest = rows(&mut stripes, 1 << 20);
            assert!(rest.is_sorted());
            seen.extend(rest);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..12_345).collect::<Vec<_>>());
    }
}
