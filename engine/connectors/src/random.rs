//! Random numbers as pure functions of a seed and a counter, so that row n never depends on which rows came before.

/// One stream of random words, for one column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

impl Stream {
    /// Streams with different tags are independent.
    pub fn new(seed: u64, tag: u64) -> Self {
        Stream(mix(mix(seed.wrapping_add(STEP)) ^ tag.wrapping_mul(STEP)))
    }

    /// 64 uniform bits for row `n`.
    #[inline]
    pub fn word(self, n: u64) -> u64 {
        mix(self.0.wrapping_add(n.wrapping_mul(STEP)))
    }

    /// A stream of its own for row `n`, where a row needs more than one word.
    #[inline]
    pub fn substream(self, n: u64) -> Stream {
        Stream(self.word(n))
    }
}

/// Uniform in `0..range`, from the low half of a word.
#[inline]
pub(crate) fn low(word: u64, range: u32) -> u32 {
    (((word & 0xFFFF_FFFF) * u64::from(range)) >> 32) as u32
}

/// Uniform in `0..range`, from the high half of a word.
#[inline]
pub(crate) fn high(word: u64, range: u32) -> u32 {
    (((word >> 32) * u64::from(range)) >> 32) as u32
}

/// Uniform in `[0, 1)`.
#[inline]
pub(crate) fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_covered_evenly_by_both_halves() {
        let stream = Stream::new(1, 2);
        let mut counts = [[0u32; 10]; 2];
        for n in 0..100_000 {
            counts[0][low(stream.word(n), 10) as usize] += 1;
            counts[1][high(stream.word(n), 10) as usize] += 1;
        }
        for count in counts.iter().flatten() {
            assert!((9_500..10_500).contains(count), "{counts:?}");
        }
    }

    #[test]
    fn streams_differ_by_seed_tag_and_row() {
        let words = [
            Stream::new(1, 1).word(0),
            Stream::new(2, 1).word(0),
            Stream::new(1, 2).word(0),
            Stream::new(1, 1).word(1),
            Stream::new(1, 1).substream(0).word(0),
        ];
        for (index, word) in words.iter().enumerate() {
            assert!(!words[index + 1..].contains(word));
        }
        assert!((0..1000).map(|n| unit(Stream::new(1, 1).word(n))).all(|unit| (0.0..1.0).contains(&unit)));
    }
}
