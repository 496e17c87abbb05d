//! Which label pairs may be in a segment: a bloom filter, so that one without the pair is not touched.
//!
//! ```text
//!   of a pair's hash, 64 bits: position p = lower half, step s = upper half, made odd
//!   its bits: p, p + s, p + 2s, p + 3s      modulo the filter's bits, a power of two
//! ```
//!
//! How many pairs will come is not known when a segment is begun. So the filter is begun at its largest and folded at the
//! end: the upper half laid over the lower one is the filter that half the bits would have made.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bits that a pair sets.
const BITS_PER_PAIR: u32 = 4;
/// Bytes of a filter at most: with a million pairs one query in six reads a directory in vain.
pub(super) const FILTER_BYTES_MAX: usize = 512 * 1024;
const WORD_BITS: u64 = 64;

/// A label's name and value, hashed; the metric name is the value of `__name__`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairHash(u64);

impl PairHash {
    /// Part of the format.
    pub fn new(label: &str, value: &str) -> PairHash {
        PairHash(xxh3_64_with_seed(value.as_bytes(), xxh3_64(label.as_bytes())))
    }

    fn bits(self, filter_bits: u64) -> impl Iterator<Item = (usize, u64)> {
        let (position, step) = (self.0 & u64::from(u32::MAX), self.0 >> 32 | 1);
        (0..u64::from(BITS_PER_PAIR)).map(move |i| {
            let bit = (position + i * step) & (filter_bits - 1);
            ((bit / WORD_BITS) as usize, 1 << (bit % WORD_BITS))
        })
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Filter {
    /// A power of two of them, at least one.
    words: Vec<u64>,
}

impl Filter {
    pub(super) fn largest() -> Filter {
        Filter { words: vec![0; FILTER_BYTES_MAX / 8] }
    }

    pub(super) fn insert(&mut self, pair: PairHash) {
        let filter_bits = self.words.len() as u64 * WORD_BITS;
        pair.bits(filter_bits).for_each(|(word, bit)| self.words[word] |= bit);
    }

    /// Whether the pair may have been inserted; `false` is certain.
    pub(super) fn may_hold(&self, pair: PairHash) -> bool {
        let filter_bits = self.words.len() as u64 * WORD_BITS;
        pair.bits(filter_bits).all(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Folds as long as at most half of the bits are set: then one absent pair in sixteen is taken for present.
    pub(super) fn fold(&mut self) {
        while self.words.len() > 1 {
            let (lower, upper) = self.words.split_at(self.words.len() / 2);
            let folded = || lower.iter().zip(upper).map(|(lower, upper)| lower | upper);
            let set: u64 = folded().map(|word| u64::from(word.count_ones())).sum();
            if set * 2 > lower.len() as u64 * WORD_BITS {
                break;
            }
            self.words = folded().collect();
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `None` if the bytes are no power of two of words.
    pub(super) fn decode(bytes: &[u8]) -> Option<Filter> {
        let (words, rest) = bytes.as_chunks::<8>();
        let fits = rest.is_empty() && words.len().is_power_of_two() && bytes.len() <= FILTER_BYTES_MAX;
        fits.then(|| Filter { words: words.iter().map(|word| u64::from_le_bytes(*word)).collect() })
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: filters of few and of many pairs; every pair that was put in is found, and few others are.
    #[test]
    fn what_was_inserted_is_found_and_little_else() {
        for pairs in [0u32, 1, 10, 1_000, 100_000] {
            let mut filter = Filter::largest();
            let pair = |n: u32| PairHash::new("pod", &n.to_string());
            (0..pairs).for_each(|n| filter.insert(pair(n)));
            filter.fold();
            let filter = Filter::decode(&filter.encode()).unwrap();
            assert!(filter.bytes() <= 8.max(pairs as usize * 3), "{pairs}: {} bytes", filter.bytes());
            assert!((0..pairs).all(|n| filter.may_hold(pair(n))));
            let found = (pairs..pairs + 10_000).filter(|&n| filter.may_hold(pair(n))).count();
            assert!(found < 1_000, "{pairs}: {found} of 10,000");
            assert!(pairs == 0 || PairHash::new("a", "b") != PairHash::new("b", "a"));
        }
        assert!(Filter::decode(&[0; 24]).is_none() && Filter::decode(&[0; 9]).is_none());
        assert!(Filter::decode(&[]).is_none());
    }
}
