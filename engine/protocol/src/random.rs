//! A small deterministic generator, so that jitter replays from a seed. Not for secrets.

/// SplitMix64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Between `low` and `high`, both included; `low` if the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        match (high - low).checked_add(1) {
            Some(width) => low + self.next_u64() % width,
            None => self.next_u64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_range_and_replays() {
        let mut one = Random::new(7);
        let mut two = Random::new(7);
        let mut seen = [false; 3];
        for _ in 0..100 {
            let value = one.between(5, 7);
            assert_eq!(value, two.between(5, 7));
            seen[(value - 5) as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(one.between(9, 9), 9);
        assert_eq!(one.between(9, 3), 9);
        one.between(0, u64::MAX);
    }
}
