//! `storage.series_max`: how many more series the tables of all shards may take.
//!
//! Always: free = the limit − series in all tables − allowances that loops hold − new series on their way. A loop
//! takes an allowance when it meets new series, which is rare; the owner gives back what turned out not to be new
//! to it, and what leaves its table. So the limit is exact to within the allowances, a hundredth of it at most.

use std::sync::atomic::{AtomicI64, Ordering};

/// See the head of this file.
#[derive(Debug)]
pub struct SeriesLimit {
    /// As configured.
    pub max: u64,
    /// Below zero when a restart finds more series than the limit admits now.
    free: AtomicI64,
    /// What a loop may hold beyond its need.
    pub allowance_max: u64,
}

impl SeriesLimit {
    /// No series yet; allowances for so many loops.
    pub fn new(max: u64, loops: usize) -> SeriesLimit {
        let free = AtomicI64::new(i64::try_from(max).unwrap_or(i64::MAX));
        SeriesLimit { max, free, allowance_max: max / 100 / loops as u64 }
    }

    /// Takes up to so many for a loop; says how many it got.
    pub fn take(&self, wanted: u64) -> u64 {
        let mut got = 0;
        // Nothing else depends on the order in which others see it.
        let _ = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
            got = wanted.min(u64::try_from(free).unwrap_or(0));
            Some(free - got as i64)
        });
        got
    }

    /// Counts series that entered a table (below zero) or left it, and allowances that come back.
    pub fn give(&self, series: i64) {
        self.free.fetch_add(series, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_never_exceeds_the_limit() {
        let limit = SeriesLimit::new(1_000, 2);
        assert_eq!((limit.allowance_max, limit.take(900), limit.take(200), limit.take(1)), (5, 900, 100, 0));
        limit.give(7);
        assert_eq!(limit.take(9), 7);
        // A restart with a lower limit than there are series.
        limit.give(-50);
        assert_eq!(limit.take(1), 0);
        limit.give(51);
        assert_eq!(limit.take(2), 1);
    }
}
