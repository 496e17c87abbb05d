//! The samples of one series: chunks that rise, and beside them what came late.
//!
//! ```text
//!   closed  [chunk][chunk][chunk] open [chunk→      strictly rising over all of them
//!   late       ·       · ··             ·           no later than the open chunk's last sample
//! ```
//!
//! Where both hold a sample of one time, the late one came after and counts.

use super::Appended;
use super::late::{CameAgain, Late, TailPool};
use crate::chunk::{Chunk, NotAppended, OpenChunk};
use model::{Sample, Timestamp};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct SeriesSamples {
    pub(super) open: Option<OpenChunk>,
    pub(super) closed: Vec<Chunk>,
    pub(super) late: Late,
}

/// What the late samples of all series have in common.
#[derive(Debug, Default)]
pub(super) struct AllLate {
    /// Where those lie that came last.
    pub(super) pool: TailPool,
    /// Those of which it has turned out that they came again, and that nobody has been told of.
    pub(super) again: CameAgain,
    /// Since the last freeze, late samples of which it was told when they came that they replaced one of a chunk. Both are
    /// there.
    pub(super) told: u64,
}

/// What one source knows of one series, free of the memtable it was taken from.
#[derive(Clone, Debug, Default)]
pub struct SeriesSlice {
    /// Chunks in order of time, not overlapping. The first and last may reach beyond the asked range.
    pub chunks: Vec<Chunk>,
    /// Samples in order of time that count more than a chunk's sample of the same time.
    pub late: Vec<Sample>,
}

/// What taking a [`SeriesSlice`] would hold, in bytes. `own` is 0 exactly if it would be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceExtent {
    /// [`SeriesSlice::bytes`] at most.
    pub own: usize,
    /// In chunks that the slice shares with where it was taken from, and keeps when those are gone there.
    pub shared: usize,
}

impl SeriesSlice {
    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.late.is_empty()
    }

    /// Chunks and late samples: what taking it cost.
    pub fn len(&self) -> usize {
        self.chunks.len() + self.late.len()
    }

    /// Bytes of memory that are its own: its lists and the copy of the open chunk, which would be the last. What is
    /// in the other chunks is shared with the memtable, or the frozen part, and on their account.
    pub fn bytes(&self) -> usize {
        let open = self.chunks.last().map_or(0, |chunk| chunk.bytes().len());
        self.chunks.capacity() * size_of::<Chunk>() + open + self.late.capacity() * size_of::<Sample>()
    }
}

impl SeriesSamples {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// Chunks, the open one among them.
    pub(super) fn chunk_count(&self) -> usize {
        self.closed.len() + usize::from(self.open.is_some())
    }

    /// The times of the first and the last sample.
    pub(super) fn range(&self, pool: &TailPool) -> Option<(Timestamp, Timestamp)> {
        let open = self.open.as_ref()?;
        let first = self.closed.first().map_or(open.first(), Chunk::first);
        // What came late is no later than the open chunk's last.
        let late = self.late.range(pool).map_or(first, |(first, _)| first);
        Some((first.min(late), open.last().timestamp))
    }

    /// Allocations, about.
    pub(super) fn pieces(&self) -> usize {
        2 + self.closed.len() + if self.late.own_bytes() == 0 { 0 } else { 3 }
    }

    /// Bytes of memory behind the row, but for the pool's blocks, counted anew: the twin of the running account.
    pub(super) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, OpenChunk::heap_bytes)
            + self.closed.iter().map(chunk_bytes).sum::<usize>()
            + self.late.own_bytes()
    }

    /// Adds a sample wherever it belongs, and to `bytes` what that took. If it `is_exact`, what a late one did is found out
    /// at once.
    #[inline]
    pub(super) fn append(
        &mut self,
        sample: Sample,
        is_exact: bool,
        bytes: &mut usize,
        all_late: &mut AllLate,
    ) -> Appended {
        let Some(open) = &mut self.open else {
            let open = self.open.insert(OpenChunk::new(sample));
            *bytes += open.heap_bytes();
            return Appended::New;
        };
        let heap_before = open.heap_bytes();
        match open.append(sample) {
            Ok(()) => *bytes += open.heap_bytes() - heap_before,
            Err(NotAppended::NotLater) => return self.append_late(sample, is_exact, bytes, all_late),
            Err(NotAppended::Full | NotAppended::FinePart) => {
                let chunk = open.seal();
                *open = OpenChunk::new(sample);
                *bytes += chunk_bytes(&chunk) + open.heap_bytes();
                *bytes -= heap_before;
                self.closed.push(chunk);
            }
        }
        Appended::New
    }

    #[inline(never)]
    fn append_late(
        &mut self,
        sample: Sample,
        is_exact: bool,
        bytes: &mut usize,
        all_late: &mut AllLate,
    ) -> Appended {
        // A time that comes again and again, as where clocks count seconds, is mostly the last.
        let is_last = self.open.as_ref().is_some_and(|open| open.last().timestamp == sample.timestamp);
        if !is_exact && !is_last {
            self.late.push(sample, &mut all_late.pool, bytes, &mut all_late.again);
            return Appended::Late;
        }
        if let Some(old) = self.late.replace(sample, &mut all_late.pool) {
            return if old.to_bits() == sample.value.to_bits() {
                Appended::Same
            } else {
                Appended::Replaced { old }
            };
        }
        match self.in_chunks(sample.timestamp) {
            Some(old) if old.to_bits() == sample.value.to_bits() => Appended::Same,
            old => {
                self.late.push(sample, &mut all_late.pool, bytes, &mut all_late.again);
                all_late.told += u64::from(old.is_some());
                old.map_or(Appended::New, |old| Appended::Replaced { old })
            }
        }
    }

    /// The value that a chunk holds for this time.
    fn in_chunks(&self, timestamp: Timestamp) -> Option<f64> {
        let open = self.open.as_ref()?;
        let chunk = if timestamp >= open.first() {
            if open.last().timestamp == timestamp {
                return Some(open.last().value);
            }
            if !open.may_hold(timestamp) {
                return None;
            }
            &open.seal()
        } else {
            let at = self.closed.partition_point(|chunk| chunk.last() < timestamp);
            self.closed.get(at).filter(|chunk| chunk.first() <= timestamp)?
        };
        let found = chunk.samples().map_while(Result::ok).find(|sample| sample.timestamp >= timestamp);
        found.filter(|sample| sample.timestamp == timestamp).map(|sample| sample.value)
    }

    /// The closed chunks, and the open one, that may hold a sample from `start` to `end`, both included.
    fn overlapping(&self, start: Timestamp, end: Timestamp) -> (&[Chunk], Option<&OpenChunk>) {
        let from = self.closed.partition_point(|chunk| chunk.last() < start);
        let until = from + self.closed[from..].partition_point(|chunk| chunk.first() <= end);
        let open = self.open.as_ref();
        (&self.closed[from..until], open.filter(|open| open.first() <= end && open.last().timestamp >= start))
    }

    /// What [`Self::slice`] would give and share, without taking it.
    pub(super) fn extent(&self, start: Timestamp, end: Timestamp, pool: &TailPool) -> SliceExtent {
        if start > end {
            return SliceExtent::default();
        }
        let (closed, open) = self.overlapping(start, end);
        let late = if self.late.has_any(start, end, pool) { self.late.len() } else { 0 };
        let chunks = closed.len() + usize::from(open.is_some());
        SliceExtent {
            own: chunks * size_of::<Chunk>() + open.map_or(0, OpenChunk::bytes) + late * size_of::<Sample>(),
            shared: closed.iter().map(|chunk| chunk.bytes().len()).sum(),
        }
    }

    /// What lies from `start` to `end`, both included: closed chunks are shared, the rest is copied. `again` hears of late
    /// samples of which it turns out that they came again.
    pub(super) fn slice(
        &self,
        start: Timestamp,
        end: Timestamp,
        pool: &TailPool,
        again: &mut CameAgain,
    ) -> SeriesSlice {
        if start > end {
            return SeriesSlice::default();
        }
        let (closed, open) = self.overlapping(start, end);
        let mut chunks = Vec::with_capacity(closed.len() + usize::from(open.is_some()));
        chunks.extend_from_slice(closed);
        chunks.extend(open.map(OpenChunk::seal));
        SeriesSlice { chunks, late: self.late.sorted(start, end, usize::MAX, pool, again) }
    }
}

pub(super) fn chunk_bytes(chunk: &Chunk) -> usize {
    // The shared bytes carry two counts.
    size_of::<Chunk>() + chunk.bytes().len() + 2 * size_of::<usize>()
}
