//! Which series an executor has in its table, for loops to look up when new ones are refused.
//!
//! A table has [`KNOWN_SERIES_BYTES_MAX`] a series at most, and room for as many as the stores can hold at 256 bytes
//! each: all tables together take no more than their part of the budget (`memory_parts.rs`), and that only where new
//! series are refused or a limit may refuse them.
//! Writer: the executor that owns the series. Readers: all loops. A loop knows the series of its own dictionary;
//! this tells it of those that came over another loop, or before its dictionary began.
//! Always: 32 bits of a series' hash in one of two buckets of 16. A stranger is taken for known once in some hundred
//! million times; a known one that found both buckets full is taken for new, which at half load hardly happens.

use model::SeriesHash;
use std::sync::atomic::{AtomicU32, Ordering};

/// Fingerprints of a bucket: a cache line of them.
const BUCKET: usize = 16;
/// Bytes of a table for each series that it has room for, at most; a bucket or two come on top.
pub const KNOWN_SERIES_BYTES_MAX: usize = 16;
/// An empty place.
const NONE: u32 = 0;

/// See the head of this file.
#[derive(Debug)]
pub struct KnownSeries {
    buckets: Vec<[AtomicU32; BUCKET]>,
}

impl KnownSeries {
    /// Room for so many series, at eight to [`KNOWN_SERIES_BYTES_MAX`] bytes each.
    pub fn with_capacity(series: usize) -> KnownSeries {
        let count = (series * 2 / BUCKET + 1).next_power_of_two();
        let buckets = (0..count).map(|_| std::array::from_fn(|_| AtomicU32::new(NONE))).collect();
        KnownSeries { buckets }
    }

    /// Enters a series; only its owner does.
    pub fn note(&self, hash: SeriesHash) {
        if self.holds(hash) {
            return;
        }
        let (fingerprint, buckets) = self.places(hash);
        let used =
            |at: usize| self.buckets[at].iter().filter(|place| place.load(Ordering::Relaxed) != NONE).count();
        let at = buckets.into_iter().min_by_key(|at| used(*at)).unwrap_or(buckets[0]);
        self.replace(at, NONE, fingerprint);
    }

    /// Takes a series out; only its owner does.
    pub fn forget(&self, hash: SeriesHash) {
        let (fingerprint, buckets) = self.places(hash);
        let _ = self.replace(buckets[0], fingerprint, NONE) || self.replace(buckets[1], fingerprint, NONE);
    }

    /// Whether the series is in its owner's table, as far as it is seen here.
    pub fn holds(&self, hash: SeriesHash) -> bool {
        let (fingerprint, buckets) = self.places(hash);
        buckets
            .iter()
            .any(|at| self.buckets[*at].iter().any(|place| place.load(Ordering::Relaxed) == fingerprint))
    }

    fn replace(&self, bucket: usize, old: u32, new: u32) -> bool {
        let place = self.buckets[bucket].iter().find(|place| place.load(Ordering::Relaxed) == old);
        place.is_some_and(|place| {
            // One writer: nobody else changes it meanwhile.
            place.store(new, Ordering::Relaxed);
            true
        })
    }

    fn places(&self, hash: SeriesHash) -> (u32, [usize; 2]) {
        let mask = self.buckets.len() - 1;
        let part = |shift: u32| (hash.0 >> shift) as u32;
        let fingerprint = part(96).max(NONE + 1);
        (fingerprint, [part(64) as usize & mask, part(32) as usize & mask])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelSet;

    fn hash(n: usize) -> SeriesHash {
        LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap().as_ref().hash()
    }

    #[test]
    fn what_was_noted_and_not_forgotten_is_known_and_nothing_else() {
        let known = KnownSeries::with_capacity(20_000);
        (0..20_000).for_each(|n| known.note(hash(n)));
        (0..20_000).for_each(|n| known.note(hash(n)));
        assert!((0..20_000).all(|n| known.holds(hash(n))));
        assert!(!(20_000..60_000).any(|n| known.holds(hash(n))));
        (0..20_000).step_by(2).for_each(|n| known.forget(hash(n)));
        assert!((0..20_000).all(|n| known.holds(hash(n)) == (n % 2 == 1)));
    }

    /// More than there is room for: some are not known, none is made up, and forgetting empties it.
    #[test]
    fn an_overfull_table_forgets_and_makes_nothing_up() {
        let known = KnownSeries::with_capacity(10);
        (0..1_000).for_each(|n| known.note(hash(n)));
        let held = (0..1_000).filter(|n| known.holds(hash(*n))).count();
        assert!((10..1_000).contains(&held), "{held}");
        (0..1_000).for_each(|n| known.forget(hash(n)));
        assert!(!(0..1_000).any(|n| known.holds(hash(n))));
    }

    #[test]
    fn a_table_takes_no_more_than_its_bytes_for_each_series() {
        for series in [0, 1, 7, 8, 100, 1_000, 65_535, 65_536, 1_000_000] {
            let bytes = size_of_val(KnownSeries::with_capacity(series).buckets.as_slice());
            assert!(bytes <= KNOWN_SERIES_BYTES_MAX * series + 128, "{bytes} for {series}");
        }
    }
}
