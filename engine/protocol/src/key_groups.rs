//! Which subtask owns which key group. The formulas are Flink's; the hash that places a key in a group is not here.

use crate::manifest::KeyGroupRange;

/// Key groups a job can have at most.
pub const UPPER_BOUND_MAX_PARALLELISM: u32 = 1 << 15;
/// A job without an explicit maximum gets at least this many key groups.
pub const LOWER_BOUND_DEFAULT_MAX_PARALLELISM: u32 = 128;

impl KeyGroupRange {
    pub fn contains(&self, key_group: u16) -> bool {
        self.first <= key_group && key_group <= self.last
    }

    /// The key groups in both ranges, if there are any.
    pub fn intersect(&self, other: &KeyGroupRange) -> Option<KeyGroupRange> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (first <= last).then_some(KeyGroupRange { first, last })
    }

    /// Number of key groups.
    pub fn count(&self) -> u32 {
        (u32::from(self.last) + 1).saturating_sub(u32::from(self.first))
    }
}

/// The key groups of one subtask. `parallelism` is at least 1 and at most `max_parallelism`, which the planner checked;
/// values outside are brought into these bounds.
pub fn key_group_range(max_parallelism: u32, parallelism: u32, subtask: u32) -> KeyGroupRange {
    let max = u64::from(max_parallelism.clamp(1, UPPER_BOUND_MAX_PARALLELISM));
    let parallelism = u64::from(parallelism).clamp(1, max);
    let subtask = u64::from(subtask).min(parallelism - 1);
    let first = (subtask * max).div_ceil(parallelism);
    let last = ((subtask + 1) * max - 1) / parallelism;
    KeyGroupRange { first: first as u16, last: last as u16 }
}

/// The subtask that owns a key group; the inverse of [`key_group_range`].
pub fn subtask_of(key_group: u16, max_parallelism: u32, parallelism: u32) -> u32 {
    (u64::from(key_group) * u64::from(parallelism) / u64::from(max_parallelism.max(1))) as u32
}

/// Max parallelism of a job that does not set it: room to grow by half, as a power of two in
/// 128 ..= [`UPPER_BOUND_MAX_PARALLELISM`].
pub fn default_max_parallelism(parallelism: u32) -> u32 {
    let with_room = u64::from(parallelism) + u64::from(parallelism / 2);
    with_room
        .next_power_of_two()
        .clamp(u64::from(LOWER_BOUND_DEFAULT_MAX_PARALLELISM), u64::from(UPPER_BOUND_MAX_PARALLELISM)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(max: u32, parallelism: u32) -> Vec<(u16, u16)> {
        (0..parallelism)
            .map(|subtask| {
                let range = key_group_range(max, parallelism, subtask);
                (range.first, range.last)
            })
            .collect()
    }

    #[test]
    fn golden_ranges() {
        assert_eq!(ranges(128, 3), [(0, 42), (43, 85), (86, 127)]);
        assert_eq!(ranges(128, 5), [(0, 25), (26, 51), (52, 76), (77, 102), (103, 127)]);
        assert_eq!(ranges(128, 1), [(0, 127)]);
        assert_eq!(ranges(32768, 1), [(0, 32767)]);
        assert_eq!(ranges(4, 4), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn golden_default_max_parallelism() {
        let cases = [(1, 128), (64, 128), (86, 256), (171, 256), (200, 512), (21_846, 32_768), (32_768, 32_768)];
        for (parallelism, expected) in cases {
            assert_eq!(default_max_parallelism(parallelism), expected, "parallelism {parallelism}");
        }
        assert_eq!(default_max_parallelism(u32::MAX), 32_768);
    }

    #[test]
    fn intersections() {
        let range = |first, last| KeyGroupRange { first, last };
        assert_eq!(range(0, 42).intersect(&range(43, 85)), None);
        assert_eq!(range(0, 63).intersect(&range(43, 85)), Some(range(43, 63)));
        assert_eq!(range(3, 9).count(), 7);
        assert!(range(3, 9).contains(9) && !range(3, 9).contains(10));
    }

    proptest! {
        #[test]
        fn ranges_partition_the_key_groups_and_agree_with_subtask_of(max in 1u32..=32_768, share in 0.0f64..1.0) {
            let parallelism = 1 + (share * f64::from(max.min(300) - 1)) as u32;
            let mut next = 0u32;
            for subtask in 0..parallelism {
                let range = key_group_range(max, parallelism, subtask);
                prop_assert_eq!(u32::from(range.first), next);
                prop_assert!(range.first <= range.last);
                prop_assert_eq!(subtask_of(range.first, max, parallelism), subtask);
                prop_assert_eq!(subtask_of(range.last, max, parallelism), subtask);
                next = u32::from(range.last) + 1;
            }
            prop_assert_eq!(next, max);
        }
    }
}
