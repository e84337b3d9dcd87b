//! Strings of the generator. Random text is cut out of pools made once per seed, so a string costs one copy.

use super::numbers::{COLD_CHANNELS, HOT_CHANNELS};
use crate::random::{Stream, high, low};

pub(crate) const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
pub(crate) const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
pub(crate) const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
pub(crate) const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

const HOT_CHANNEL_NAMES: [&str; HOT_CHANNELS as usize] = ["Google", "Facebook", "Baidu", "Apple"];
const MIN_LENGTH: u32 = 3;
const POOL_STARTS: u32 = 1 << 16;
/// Longest string that is cut out of a pool: 1.2 times the largest mean size of an event.
const MAX_CUT: usize = 80 * 1024;

/// Many short strings in one buffer.
struct Table {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Table {
    #[inline]
    fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }
}

pub(crate) struct Strings {
    /// Lower-case letters.
    letters: Vec<u8>,
    /// Lower-case letters and, one in thirteen, spaces.
    words: Vec<u8>,
    channels: Table,
    urls: Table,
}

/// A string of letters, one in thirteen of them `special`, from 3 to `max - 1` long.
fn push_random(out: &mut Vec<u8>, stream: Stream, max: u32, special: u8) {
    let length = MIN_LENGTH + low(stream.word(0), max - MIN_LENGTH);
    for place in 1..=u64::from(length) {
        let word = stream.word(place);
        out.push(if low(word, 13) == 0 { special } else { b'a' + high(word, 26) as u8 });
    }
}

impl Strings {
    pub fn new(seed: u64) -> Self {
        let pool_length = POOL_STARTS as u64 + MAX_CUT as u64;
        let letters = Stream::new(seed, 101);
        let words = Stream::new(seed, 102);
        let mut strings = Strings {
            letters: (0..pool_length).map(|place| b'a' + high(letters.word(place), 26) as u8).collect(),
            words: (0..pool_length)
                .map(|place| words.word(place))
                .map(|word| if low(word, 13) == 0 { b' ' } else { b'a' + high(word, 26) as u8 })
                .collect(),
            channels: Table { bytes: vec![], ends: vec![] },
            urls: Table { bytes: vec![], ends: vec![] },
        };
        let urls = Stream::new(seed, 103);
        for index in 0..HOT_CHANNELS + COLD_CHANNELS {
            let stream = urls.substream(index.into());
            let Strings { channels, urls, .. } = &mut strings;
            urls.bytes.extend_from_slice(b"https://www.nexmark.com/");
            for part in 0..3 {
                push_random(&mut urls.bytes, stream.substream(part), 5, b'_');
                urls.bytes.push(b'/');
            }
            urls.bytes.extend_from_slice(b"item.htm?query=1");
            if index < HOT_CHANNELS {
                channels.bytes.extend_from_slice(HOT_CHANNEL_NAMES[index as usize].as_bytes());
            } else {
                let number = index - HOT_CHANNELS;
                channels.bytes.extend_from_slice(format!("channel-{number}").as_bytes());
                if low(stream.word(3), 10) > 0 {
                    let id = (number.reverse_bits() as i32).unsigned_abs();
                    urls.bytes.extend_from_slice(format!("&channel_id={id}").as_bytes());
                }
            }
            channels.ends.push(channels.bytes.len() as u32);
            urls.ends.push(urls.bytes.len() as u32);
        }
        strings
    }

    #[inline]
    pub fn channel(&self, index: usize) -> &[u8] {
        self.channels.get(index)
    }

    #[inline]
    pub fn url(&self, index: usize) -> &[u8] {
        self.urls.get(index)
    }

    /// Words from 3 to `max - 1` long before spaces at the ends are cut off.
    pub fn words(&self, word: u64, max: u32) -> &[u8] {
        let start = high(word, POOL_STARTS) as usize;
        let length = (MIN_LENGTH + low(word, max - MIN_LENGTH)) as usize;
        self.words[start..start + length].trim_ascii()
    }

    /// What brings an event of `current` bytes to `wanted` bytes on average, give or take a fifth of the difference.
    #[inline]
    pub fn extra(&self, word: u64, current: u32, wanted: u32) -> &[u8] {
        let missing = wanted.saturating_sub(current);
        let spread = (missing + 2) / 5;
        let length = missing - spread + low(word, 2 * spread);
        let start = high(word, POOL_STARTS) as usize;
        &self.letters[start..start + length as usize]
    }
}

pub(crate) fn push_email(out: &mut Vec<u8>, strings: &Strings, stream: Stream) {
    out.extend_from_slice(strings.words(stream.word(0), 7));
    out.push(b'@');
    out.extend_from_slice(strings.words(stream.word(1), 5));
    out.extend_from_slice(b".com");
}

pub(crate) const CARD_LENGTH: u32 = 19;

/// Four groups of four digits.
pub(crate) fn push_card(out: &mut Vec<u8>, word: u64) {
    for group in 0..4 {
        if group > 0 {
            out.push(b' ');
        }
        let mut number = (((word >> (16 * group)) & 0xFFFF) * 10_000) >> 16;
        let start = out.len();
        out.resize(start + 4, b'0');
        for place in (start..start + 4).rev() {
            out[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_and_urls_have_the_published_shape() {
        let strings = Strings::new(7);
        assert_eq!(strings.channel(2), b"Baidu");
        assert_eq!(strings.channel(4 + 123), b"channel-123");
        let mut with_id = 0;
        for index in 0..(HOT_CHANNELS + COLD_CHANNELS) as usize {
            let url = std::str::from_utf8(strings.url(index)).unwrap();
            let path = url.strip_prefix("https://www.nexmark.com/").unwrap();
            let parts: Vec<&str> = path.split('/').collect();
            assert_eq!(parts.len(), 4, "{url}");
            assert!(parts[..3].iter().all(|part| (3..=4).contains(&part.len())), "{url}");
            assert!(parts[3].starts_with("item.htm?query=1"), "{url}");
            with_id += usize::from(url.contains("&channel_id="));
        }
        assert!((8_800..9_200).contains(&with_id), "{with_id}");
        let expected = (123u32.reverse_bits() as i32).unsigned_abs();
        let url = String::from_utf8_lossy(strings.url(4 + 123)).into_owned();
        assert!(!url.contains("&channel_id=") || url.ends_with(&format!("&channel_id={expected}")), "{url}");
    }

    #[test]
    fn extras_bring_events_to_their_mean_size() {
        let strings = Strings::new(7);
        let stream = Stream::new(1, 1);
        let lengths: Vec<usize> = (0..10_000).map(|n| strings.extra(stream.word(n), 32, 100).len()).collect();
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert!((mean - 67.5).abs() < 0.5, "{mean}");
        assert_eq!(lengths.iter().min(), Some(&54));
        assert_eq!(lengths.iter().max(), Some(&81));
        assert_eq!(strings.extra(stream.word(0), 100, 32), b"");
    }

    #[test]
    fn cards_are_sixteen_digits() {
        let mut card = vec![];
        push_card(&mut card, u64::MAX);
        assert_eq!(card, b"9999 9999 9999 9999");
        assert_eq!(card.len(), CARD_LENGTH as usize);
    }
}
