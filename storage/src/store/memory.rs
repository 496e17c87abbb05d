//! What keeps the store within its memory: when to flush, when to let go of idle series, when to take in no more.
//!
//! ```text
//!   fixed    rows, labels, postings, numbers of the loops, indexes of segments     a flush leaves it
//!   samples  of the memtable, and of the part on its way to disk                   a flush frees them
//!            of parts that are on disk and that queries which began before keep    they are broken off, if need be
//!
//!   fixed ≥ 1/2 of the bound, and an eighth of it came since the last freeze: churn
//!     most series have a sample  → flush, so that they become idle
//!     a quarter of them is idle  → ask the loops for new dictionaries, then forget what these do not name
//!   fixed ≥ 3/4               → known series go on, new ones are refused, until idle ones have made room
//!   fixed + samples ≥ 15/16, and less without what queries keep → those that keep the oldest part are broken off
//!   fixed + samples ≥ bound   → everything is refused
//! ```
//!
//! A series that a loop's dictionary names cannot be forgotten, for its next sample comes under that number.
//! Idle ones are forgotten only under such pressure, or after two idle cycles: a series that comes again costs
//! a definition and a place among the new ones, nothing else.

use super::{ReadOn, Store};
use crate::disk::Disk;
use model::SeriesHash;

/// What a store holds in memory, in bytes, and what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Tables of series: rows, labels, postings, numbers of the loops.
    pub tables: usize,
    /// Indexes of segments.
    pub segment_indexes: usize,
    /// Samples, the part on its way to disk included, and what queries keep of the ones before.
    pub samples: usize,
    /// Of the samples, those that only queries keep.
    pub kept: usize,
    /// The bound of all together.
    pub max: usize,
}

impl Memory {
    /// All of it.
    pub fn bytes(&self) -> usize {
        self.fixed() + self.samples
    }

    fn fixed(&self) -> usize {
        self.tables + self.segment_indexes
    }

    /// Whether nothing more is to be taken in before a flush has ended.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.max
    }

    /// Whether it is nearly full, and would not be without what queries keep.
    fn is_filled_by_queries(&self) -> bool {
        let nearly_full = self.max - self.max / 16;
        self.bytes() >= nearly_full && self.bytes() - self.kept < nearly_full
    }

    /// Whether new series are to be refused, so that the known ones keep a quarter for their samples.
    pub fn is_full_of_series(&self) -> bool {
        self.fixed() >= self.max / 4 * 3
    }
}

/// One of so many series must be idle before forgetting them is worth new dictionaries.
const IDLE_SHARE: usize = 4;

/// Whether so many bytes of new series, of so many in all, are a reason to let go of idle ones.
fn is_crowd(fresh_bytes: usize, bytes_max: usize) -> bool {
    fresh_bytes >= bytes_max / 8
}

impl<D: Disk> Store<D> {
    /// What is held now. It costs a few additions per loop.
    pub fn memory(&self) -> Memory {
        let numbers: usize = self.loops.iter().map(|numbers| numbers.series.capacity()).sum();
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.bytes());
        let kept = self.kept_parts().map(|part| part.bytes).sum();
        let memtable = self.memtable.borrow();
        Memory {
            tables: memtable.table_bytes() + numbers * size_of_val(&super::NO_SERIES),
            segment_indexes: self.segment_index_bytes,
            samples: memtable.sample_bytes() + frozen + kept,
            kept,
            max: self.options.memory_bytes_max,
        }
    }

    /// Where queries are what fills the memory: breaks off those that keep the oldest of it. It is free once they are
    /// dropped, or let go of: then this is to be asked again.
    pub fn break_off_queries(&self) {
        if self.memory().is_filled_by_queries()
            && let Some(oldest) = self.kept_parts().next()
        {
            self.views.break_off(oldest.number);
        }
    }

    fn kept_parts(&self) -> impl Iterator<Item = &ReadOn> {
        self.read_on.iter().filter(|kept| kept.part.strong_count() > 0)
    }

    /// Whether so much is in memory that a flush should begin.
    ///
    /// Half of what the tables leave, for the other half fills while this one is written; when they leave next
    /// to nothing a flush of little would not help: then a sixteenth. And under churn, so that series become idle.
    pub fn wants_flush(&self) -> bool {
        let memory = self.memory();
        let max = memory.max;
        let share = (max.saturating_sub(memory.fixed()) / 2).max(max / 16);
        let memtable = self.memtable.borrow();
        let is_due = memtable.has_samples()
            && (memtable.sample_bytes() >= share || (self.is_churning() && !self.has_idle_share()));
        !self.flushing && (self.frozen.is_some() || is_due)
    }

    /// Whether the loops should begin new dictionaries, so that [`Self::forget_idle`] frees a good part.
    pub fn wants_new_dictionaries(&self) -> bool {
        self.is_churning() && self.has_idle_share()
    }

    /// Whether a good part of the series has no sample since the last freeze.
    pub fn has_idle_share(&self) -> bool {
        let memtable = self.memtable.borrow();
        let idle = memtable.idle_count();
        idle > 0 && idle * IDLE_SHARE >= memtable.series_count()
    }

    fn is_churning(&self) -> bool {
        let memory = self.memory();
        memory.fixed() >= memory.max / 2 && is_crowd(self.memtable.borrow().fresh_bytes(), memory.max)
    }

    /// Whether a crowd of new series came before the last freeze: where so many come that the freeze is late, what
    /// comes behind it may fill the tables before it is a crowd of its own.
    pub fn has_churned(&self) -> bool {
        is_crowd(self.memtable.borrow().fresh_bytes_before(), self.options.memory_bytes_max)
    }

    /// Whether a part of memory is on its way to disk, or waits there since a flush has failed.
    pub fn is_flushing(&self) -> bool {
        self.frozen.is_some()
    }

    /// Gives the hashes of the series in the table, one by one.
    pub fn each_series(&self, take: impl FnMut(SeriesHash)) {
        self.memtable.borrow().series_hashes().for_each(take);
    }

    /// Forgets the series that have no sample in memory and that no dictionary names; returns their hashes.
    /// While a flush is under way or owed it does nothing: what it would write is found by the table.
    pub fn forget_idle(&mut self) -> Vec<SeriesHash> {
        if self.frozen.is_some() {
            return Vec::new();
        }
        let named = self.named_series();
        self.memtable.borrow_mut().forget_idle(|id| named.get(id.0 as usize) == Some(&true))
    }

    /// Which ids the loops' dictionaries name.
    pub(super) fn named_series(&self) -> Vec<bool> {
        let mut named = Vec::new();
        for &id in self.loops.iter().flat_map(|numbers| &numbers.series) {
            if id == super::NO_SERIES {
                continue;
            }
            if named.len() <= id.0 as usize {
                named.resize(id.0 as usize + 1, false);
            }
            named[id.0 as usize] = true;
        }
        named
    }
}
