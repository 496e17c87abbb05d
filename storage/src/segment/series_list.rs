//! Series of a directory, one behind the other: a few lists, however many there are, and used again for the next.
//!
//! What their chunks come to stands there as it stood in the file, and is read when a series is at hand: of several
//! segments much is listed before the first is.

use super::directory::{BlockRows, ChunkRow, ChunkRows, ClockRow, Form, NoBlock, Row};
use model::{Arrival, LabelSetRef, MetricKind, Slot};

/// See the head of this file. In the order of the directory: slots rising, within a slot label sets.
#[derive(Debug, Default)]
pub struct SeriesList {
    series: Vec<Listed>,
    /// Canonical bytes of all label sets.
    labels: Vec<u8>,
    /// The chunks of all, as a block has them.
    chunks: Vec<u8>,
    /// Of the blocks in which they stand.
    clocks: Vec<ClockRow>,
    /// Of the segment.
    form: Form,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    slot: Slot,
    kind: MetricKind,
    arrival: Arrival,
    /// Where the block stands in the file.
    block: u64,
    labels_end: usize,
    chunks_end: usize,
    /// Which clocks are those of its block.
    clocks: (usize, usize),
    /// Where its first column lies.
    column: u64,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct ListedSeries<'a> {
    /// Its slot.
    pub slot: Slot,
    /// What the client called it.
    pub kind: MetricKind,
    /// When it first arrived, as far as the writer knew.
    pub arrival: Arrival,
    /// The label set.
    pub labels: LabelSetRef<'a>,
    pub(super) block: u64,
    rows: ChunkRows<'a>,
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

    /// The label set of a series; none behind the last.
    pub fn labels(&self, index: usize) -> Option<LabelSetRef<'_>> {
        let end = self.series.get(index)?.labels_end;
        Some(LabelSetRef::from_canonical(&self.labels[self.ends_before(index).0..end]))
    }

    /// A series; none behind the last.
    pub fn get(&self, index: usize) -> Option<ListedSeries<'_>> {
        let of = *self.series.get(index)?;
        let chunks = &self.chunks[self.ends_before(index).1..of.chunks_end];
        let rows = ChunkRows::new(chunks, &self.clocks[of.clocks.0..of.clocks.1], of.column, self.form);
        let Listed { slot, kind, arrival, block, .. } = of;
        Some(ListedSeries { slot, kind, arrival, labels: self.labels(index)?, block, rows })
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = ListedSeries<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn ends_before(&self, index: usize) -> (usize, usize) {
        let before = index.checked_sub(1).map(|before| &self.series[before]);
        before.map_or((0, 0), |before| (before.labels_end, before.chunks_end))
    }

    /// Takes out the first so many.
    pub fn drop_first(&mut self, count: usize) {
        let (labels, chunks) = self.ends_before(count);
        let clocks = self.series.get(count).map_or(self.clocks.len(), |series| series.clocks.0);
        self.labels.drain(..labels);
        self.chunks.drain(..chunks);
        self.clocks.drain(..clocks);
        self.series.drain(..count);
        for series in &mut self.series {
            series.labels_end -= labels;
            series.chunks_end -= chunks;
            series.clocks = (series.clocks.0 - clocks, series.clocks.1 - clocks);
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.series.capacity() * size_of::<Listed>()
            + self.labels.capacity()
            + self.chunks.capacity()
            + self.clocks.capacity() * size_of::<ClockRow>()
    }

    /// Room behind the last series, where labels are put before it is known whether they are meant.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.labels
    }

    /// The label bytes that were put there.
    pub(super) fn put(&self) -> &[u8] {
        &self.labels[self.ends_before(self.len()).0..]
    }

    /// What was put there is not meant.
    pub(super) fn forget(&mut self) {
        self.labels.truncate(self.ends_before(self.len()).0);
    }

    /// What was put there is the next series: a row of that block, which stands there in a file of that form.
    pub(super) fn end_series(&mut self, row: &Row, (rows, block): (&BlockRows<'_>, u64)) {
        let last = self.series.last().filter(|last| last.block == block).map(|last| last.clocks);
        let clocks = last.unwrap_or_else(|| {
            let begin = self.clocks.len();
            self.clocks.extend_from_slice(rows.clocks());
            (begin, self.clocks.len())
        });
        self.form = rows.form();
        self.chunks.extend_from_slice(rows.chunk_bytes(row));
        let (labels_end, chunks_end) = (self.labels.len(), self.chunks.len());
        let Row { slot, kind, arrival, column, .. } = *row;
        self.series.push(Listed { slot, kind, arrival, block, labels_end, chunks_end, clocks, column });
    }
}

impl ListedSeries<'_> {
    /// What its chunks come to and where they lie, in the order of the directory.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Result<ChunkRow, NoBlock>> {
        self.rows.clone()
    }
}
