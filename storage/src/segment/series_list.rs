//! Series of a directory, one behind the other: three lists, however many there are, and used again for the next.

use super::SegmentSeries;
use super::directory::ChunkRow;
use model::{Arrival, LabelSetRef, MetricKind, Slot};

/// See the head of this file. In the order of the directory: slots rising, within a slot label sets.
#[derive(Debug, Default)]
pub struct SeriesList {
    series: Vec<Listed>,
    /// Canonical bytes of all label sets.
    labels: Vec<u8>,
    chunks: Vec<ChunkRow>,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    slot: Slot,
    kind: MetricKind,
    arrival: Arrival,
    labels_end: usize,
    chunks_end: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct ListedSeries<'a> {
    /// Its slot.
    pub slot: Slot,
    /// What the client called it.
    pub kind: MetricKind,
    /// When it first arrived, as far as the writer knew.
    pub arrival: Arrival,
    /// The label set.
    pub labels: LabelSetRef<'a>,
    /// The chunks that reach into the time asked for, in order of time.
    pub chunks: &'a [ChunkRow],
}

impl SeriesList {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The slot of a series; none behind the last.
    pub fn slot(&self, index: usize) -> Option<Slot> {
        self.series.get(index).map(|series| series.slot)
    }

    /// A series; none behind the last.
    pub fn get(&self, index: usize) -> Option<ListedSeries<'_>> {
        let Listed { slot, kind, arrival, labels_end, chunks_end } = *self.series.get(index)?;
        let (labels_begin, chunks_begin) = self.ends_before(index);
        Some(ListedSeries {
            slot,
            kind,
            arrival,
            labels: LabelSetRef::from_canonical(&self.labels[labels_begin..labels_end]),
            chunks: &self.chunks[chunks_begin..chunks_end],
        })
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = ListedSeries<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn ends_before(&self, index: usize) -> (usize, usize) {
        let before = index.checked_sub(1).map(|before| self.series[before]);
        before.map_or((0, 0), |before| (before.labels_end, before.chunks_end))
    }

    /// Takes out the first so many.
    pub fn drop_first(&mut self, count: usize) {
        let (labels, chunks) = self.ends_before(count);
        self.labels.drain(..labels);
        self.chunks.drain(..chunks);
        self.series.drain(..count);
        for series in &mut self.series {
            series.labels_end -= labels;
            series.chunks_end -= chunks;
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.series.capacity() * size_of::<Listed>()
            + self.labels.capacity()
            + self.chunks.capacity() * size_of::<ChunkRow>()
    }

    /// Room behind the last series, where the next one is put before it is known whether it is meant.
    pub(super) fn room(&mut self) -> (&mut Vec<u8>, &mut Vec<ChunkRow>) {
        (&mut self.labels, &mut self.chunks)
    }

    /// What was put behind the last series: label bytes and chunks.
    pub(super) fn put(&self) -> (&[u8], &[ChunkRow]) {
        let (labels, chunks) = self.ends_before(self.len());
        (&self.labels[labels..], &self.chunks[chunks..])
    }

    /// What was put there becomes a series, of those of its chunks that `is_meant`; if there is one.
    pub(super) fn end_series(
        &mut self,
        (slot, kind, arrival): (Slot, MetricKind, Arrival),
        mut is_meant: impl FnMut(&ChunkRow) -> bool,
    ) {
        let (_, begin) = self.ends_before(self.len());
        let mut end = begin;
        for at in begin..self.chunks.len() {
            if is_meant(&self.chunks[at]) {
                self.chunks[end] = self.chunks[at];
                end += 1;
            }
        }
        if end == begin {
            return self.forget();
        }
        self.chunks.truncate(end);
        let labels_end = self.labels.len();
        self.series.push(Listed { slot, kind, arrival, labels_end, chunks_end: end });
    }

    /// What was put behind the last series is not meant.
    pub(super) fn forget(&mut self) {
        let (labels, chunks) = self.ends_before(self.len());
        self.labels.truncate(labels);
        self.chunks.truncate(chunks);
    }
}

impl ListedSeries<'_> {
    /// A copy of its own.
    pub fn to_owned(&self) -> SegmentSeries {
        let ListedSeries { slot, kind, arrival, labels, chunks } = *self;
        SegmentSeries { slot, labels: labels.to_owned(), kind, arrival, chunks: chunks.to_vec() }
    }
}
