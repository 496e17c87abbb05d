//! The samples of one series: chunks that rise, and beside them what came late.
//!
//! ```text
//!   closed  [chunk][chunk][chunk] open [chunk→      strictly rising over all of them
//!   late       ·       · ··             ·           sorted; no later than the open chunk's last sample
//! ```
//!
//! Where both hold a sample of one time, the late one came after and counts.

use super::Appended;
use crate::chunk::{Chunk, NotAppended, OpenChunk};
use model::{Sample, Timestamp};
use std::collections::BTreeMap;

/// Bytes of memory that a late sample takes: key and value in tree nodes that are two thirds full.
pub(super) const LATE_SAMPLE_BYTES: usize = 24;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct SeriesSamples {
    pub(super) open: Option<OpenChunk>,
    pub(super) closed: Vec<Chunk>,
    /// A tree, so that a series that arrives backwards costs a logarithm a sample and no more. Empty, as in
    /// most series, it has no heap.
    pub(super) late: BTreeMap<Timestamp, f64>,
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
    pub(super) fn range(&self) -> Option<(Timestamp, Timestamp)> {
        let open = self.open.as_ref()?;
        let first = self.closed.first().map_or(open.first(), Chunk::first);
        // What came late is no later than the open chunk's last.
        let late = self.late.first_key_value().map_or(first, |(time, _)| *time);
        Some((first.min(late), open.last().timestamp))
    }

    /// Allocations, about.
    pub(super) fn pieces(&self) -> usize {
        2 + self.closed.len() + self.late.len() / 8
    }

    /// Bytes of memory behind the row, counted anew: the twin of the running account.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, OpenChunk::heap_bytes)
            + self.closed.iter().map(chunk_bytes).sum::<usize>()
            + self.late.len() * LATE_SAMPLE_BYTES
    }

    /// Adds a sample wherever it belongs, and to `bytes` what that took.
    #[inline]
    pub(super) fn append(&mut self, sample: Sample, bytes: &mut usize) -> Appended {
        let Some(open) = &mut self.open else {
            let open = self.open.insert(OpenChunk::new(sample));
            *bytes += open.heap_bytes();
            return Appended::New;
        };
        let heap_before = open.heap_bytes();
        match open.append(sample) {
            Ok(()) => *bytes += open.heap_bytes() - heap_before,
            Err(NotAppended::NotLater) => return self.append_late(sample, bytes),
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

    #[cold]
    fn append_late(&mut self, sample: Sample, bytes: &mut usize) -> Appended {
        let old = self.late.get(&sample.timestamp).copied().or_else(|| self.in_chunks(sample.timestamp));
        match old {
            Some(old) if old.to_bits() == sample.value.to_bits() => Appended::Same,
            old => {
                if self.late.insert(sample.timestamp, sample.value).is_none() {
                    *bytes += LATE_SAMPLE_BYTES;
                }
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
    pub(super) fn extent(&self, start: Timestamp, end: Timestamp) -> SliceExtent {
        if start > end {
            return SliceExtent::default();
        }
        let (closed, open) = self.overlapping(start, end);
        let late = if self.late.range(start..=end).next().is_some() { self.late.len() } else { 0 };
        let chunks = closed.len() + usize::from(open.is_some());
        SliceExtent {
            own: chunks * size_of::<Chunk>()
                + open.map_or(0, |open| open.heap_bytes() + size_of::<u64>())
                + late * size_of::<Sample>(),
            shared: closed.iter().map(|chunk| chunk.bytes().len()).sum(),
        }
    }

    /// What lies from `start` to `end`, both included: closed chunks are shared, the rest is copied.
    pub(super) fn slice(&self, start: Timestamp, end: Timestamp) -> SeriesSlice {
        if start > end {
            return SeriesSlice::default();
        }
        let (closed, open) = self.overlapping(start, end);
        let mut chunks = Vec::with_capacity(closed.len() + usize::from(open.is_some()));
        chunks.extend_from_slice(closed);
        chunks.extend(open.map(OpenChunk::seal));
        let late = self.late.range(start..=end);
        SeriesSlice { chunks, late: late.map(|(&timestamp, &value)| Sample { timestamp, value }).collect() }
    }
}

pub(super) fn chunk_bytes(chunk: &Chunk) -> usize {
    // The shared bytes carry two counts.
    size_of::<Chunk>() + chunk.bytes().len() + 2 * size_of::<usize>()
}
