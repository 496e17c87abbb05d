//! Clocks that series of one segment share: found by a hash, told apart by all their times.

use super::directory::{ClockRow, Extent};
use crate::column::{Scratch, decode_clock};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::Timestamp;
use std::collections::VecDeque;

/// Bytes of clocks that are remembered, about: a day of 300 scrapers with trembling hands, or any number of steady ones.
/// Older ones are forgotten and written again when they come again.
const REMEMBERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What remembering one costs beside its bytes.
const ENTRY_BYTES: usize = 128;

/// The clocks that were written last.
#[derive(Default)]
pub(super) struct SharedClocks {
    by_hash: HashMap<u64, Known, RandomState>,
    /// Hashes, the oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

struct Known {
    column: Box<[u8]>,
    row: ClockRow,
}

/// Of times, each stirred in; what hashes alike is compared.
fn hash_of(times: &[Timestamp]) -> u64 {
    times.iter().fold(times.len() as u64, |hash, time| {
        (hash ^ time.ticks() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

impl SharedClocks {
    /// Where the clock of exactly these times lies, if one was written and is remembered.
    pub(super) fn find(&self, times: &[Timestamp], scratch: &mut Scratch) -> Option<ClockRow> {
        let known = self.by_hash.get(&hash_of(times))?;
        let ticks = decode_clock(&known.column, known.row.count as usize, scratch).ok()?;
        let is_same = ticks.len() == times.len() && ticks.iter().zip(times).all(|(a, b)| *a == b.ticks());
        is_same.then_some(known.row)
    }

    /// Remembers a clock that was written.
    pub(super) fn remember(&mut self, times: &[Timestamp], column: &[u8], at: Extent) -> ClockRow {
        let (first, last) = (times[0], times[times.len() - 1]);
        let row = ClockRow { first, last, count: times.len() as u32, at };
        let hash = hash_of(times);
        match self.by_hash.insert(hash, Known { column: column.into(), row }) {
            Some(before) => self.bytes -= before.column.len(),
            None => {
                self.order.push_back(hash);
                self.bytes += ENTRY_BYTES;
            }
        }
        self.bytes += column.len();
        while self.bytes > REMEMBERED_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            let forgotten = self.by_hash.remove(&oldest);
            self.bytes -= forgotten.map_or(0, |known| ENTRY_BYTES + known.column.len());
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::encode_clock;

    #[test]
    fn a_clock_is_found_by_all_its_times_and_the_oldest_are_forgotten() {
        let mut clocks = SharedClocks::default();
        let mut scratch = Scratch::default();
        let times = |n: i64| -> Vec<Timestamp> {
            (0..100).map(|i| Timestamp::from_millis(n + i * 1_000 + i * i % 7).unwrap()).collect()
        };
        let many = 40_000;
        for n in 0..many {
            let mut column = Vec::new();
            encode_clock(&times(n), &mut scratch, &mut column);
            let at = Extent { offset: n as u64, len: column.len() as u32, crc: 0 };
            clocks.remember(&times(n), &column, at);
            assert_eq!(clocks.find(&times(n), &mut scratch).map(|row| row.at.offset), Some(n as u64));
        }
        assert!(clocks.bytes <= REMEMBERED_BYTES_MAX);
        assert!(clocks.find(&times(0), &mut scratch).is_none());
        assert!(clocks.find(&times(many - 1000), &mut scratch).is_some());
        let mut other = times(many - 1);
        other[99] = Timestamp::from_ticks(other[99].ticks() + 1);
        assert!(clocks.find(&other, &mut scratch).is_none());
        assert!(clocks.find(&other[..99], &mut scratch).is_none());
        // Others of the same hash, as hardly ever happens.
        let column = clocks.by_hash[&hash_of(&times(many - 1))].column.clone();
        let row = clocks.find(&times(many - 1), &mut scratch).unwrap();
        clocks.bytes += column.len() - clocks.by_hash[&hash_of(&times(many - 2))].column.len();
        clocks.by_hash.insert(hash_of(&times(many - 2)), Known { column, row });
        assert!(clocks.find(&times(many - 2), &mut scratch).is_none());
        let left: usize = clocks.by_hash.values().map(|known| ENTRY_BYTES + known.column.len()).sum();
        assert_eq!((left, clocks.order.len()), (clocks.bytes, clocks.by_hash.len()));
    }
}
