//! Writing a segment, front to back, in steps: columns as they fill, a directory block behind those it tells of.
//!
//! ```text
//!   push samples → 1,024 are there, or the series ends → its clock, unless one like it was written; its column
//!   next series  → its row goes to the directory block → 32 KiB are there → the block goes to the file
//!                → its labels go to the label index → a part is full → it goes to the file, sorted
//!   finish       → index, filter, footer, sync
//! ```
//!
//! In memory are one chunk of samples, one block of the directory, one part of the label index, the clocks written last,
//! the filter and the index: a merge of any number of series holds no more.

use super::clocks::SharedClocks;
use super::directory::{BLOCK_BYTES_TARGET, BlockBuilder, ChunkRow, ClockRow, Extent, ValuesAt};
use super::filter::{Filter, PairHash};
use super::label_index::{
    LabelHead, PART_BYTES_MAX, Part, VALUES_BYTES_TARGET, ValuesBlock, ValuesBuilder, encode_head,
};
use super::layout::{Block, Footer, HEAD_BYTES, Head, VERSION, name_hash};
use super::merge::Merged;
use super::order::BySlot;
use super::{SEGMENTS_FOLDER, SegmentEntry, SegmentError, segment_path};
use crate::column::{Aggregates, COLUMN_SAMPLES_MAX, Codec, Heat, Scratch, encode_clock, encode_values};
use crate::disk::{Disk, DiskFile};
use crate::index::Index;
use crate::memtable::{CameAgain, Frozen};
use model::{Arrival, LabelSet, LabelSetRef, MetricKind, Sample, Slot, Timestamp};
use std::io;

/// Bytes handed to the disk at once.
const STEP_BYTES: usize = 1024 * 1024;

/// Writes a frozen memtable as segment `id` of shard `shard` of `shards`, and returns once it and its name
/// are on the device; with it, which late samples had come again, as far as nobody was told. Of the label index it holds
/// `part_bytes_max` bytes at a time. It counts only when a manifest names it.
///
/// Where that fails, what was written is removed, so that a full disk has its space back.
pub async fn write_segment<D: Disk>(
    disk: &D,
    id: u64,
    (shard, shards): (u16, u16),
    part_bytes_max: usize,
    frozen: &Frozen,
) -> Result<(SegmentEntry, CameAgain), SegmentError> {
    let mut writer = SegmentWriter::create(disk, id, shard, shards, Heat::Fresh).await?;
    writer.hold_parts_of(part_bytes_max);
    match write_series(&mut writer, frozen).await {
        Ok(again) => Ok((writer.finish().await?, again)),
        Err(error) => {
            writer.abandon().await;
            Err(error)
        }
    }
}

async fn write_series<D: Disk>(
    writer: &mut SegmentWriter<D>,
    frozen: &Frozen,
) -> Result<CameAgain, SegmentError> {
    let (mut piece, mut beside_late, mut beside_chunks) =
        (Vec::new(), CameAgain::default(), CameAgain::default());
    let mut by_slot = BySlot::new(frozen);
    while by_slot.step() {
        writer.disk.give_way().await;
    }
    for mut slot in by_slot.slots() {
        while slot.sort_some() {
            writer.disk.give_way().await;
        }
        writer.disk.give_way().await;
        while let Some((labels, series)) = slot.next() {
            let mut merged = Merged::new(frozen.slice(series, &mut beside_late));
            writer.begin(labels, series.kind(), series.arrival()).await?;
            let failed = |error| SegmentError::Memory { series: format!("{:?}", series.labels()), error };
            while merged.next_piece(&mut piece).map_err(failed)? {
                writer.push(&piece).await?;
            }
            beside_chunks.add(merged.came_again());
        }
    }
    // Those that were told had replaced a value, and count more than it even where yet another came since.
    let replaced = beside_chunks.replaced.saturating_sub(frozen.told());
    let untold = beside_chunks.count().saturating_sub(frozen.told());
    beside_late.add(CameAgain { repeated: untold - replaced, replaced });
    Ok(beside_late)
}

/// A segment that is being written. Whoever ends early says so by [`Self::abandon`], or the file stays, which is no harm
/// but for its bytes: no manifest names it.
pub struct SegmentWriter<D: Disk> {
    disk: D,
    path: String,
    head: Head,
    heat: Heat,
    out: Steps<D::File>,
    series: Option<Open>,
    /// Of the series at hand and not yet in a chunk, at most a column of them.
    times: Vec<Timestamp>,
    values: Vec<f64>,
    /// Chunks of the series at hand.
    chunks: Vec<ChunkRow>,
    clocks: SharedClocks,
    block: BlockBuilder,
    /// Of the block at hand.
    names: Vec<u32>,
    /// Of the series before.
    before: Option<LabelSet>,
    first_slot: u16,
    last_slot: u16,
    blocks: Vec<Block>,
    /// Of the rows from `part_row` on, counted from there.
    labels: Index,
    labels_bytes: usize,
    part_row: u64,
    part_bytes_max: usize,
    parts: Vec<Part>,
    filter: Filter,
    scratch: Scratch,
    /// The column at hand.
    column: Vec<u8>,
    series_count: u64,
    sample_count: u64,
    first: Timestamp,
    last: Timestamp,
}

/// The series at hand.
struct Open {
    labels: LabelSet,
    slot: Slot,
    kind: MetricKind,
    arrival: Arrival,
}

impl<D: Disk> SegmentWriter<D> {
    /// A part of the label index is written when it takes so many bytes here, which is asked when a series ends.
    pub fn hold_parts_of(&mut self, bytes_max: usize) {
        self.part_bytes_max = bytes_max;
    }

    /// Writes the part at hand if it takes as many bytes by now.
    pub async fn end_full_part(&mut self) -> Result<(), SegmentError> {
        if self.labels_bytes >= self.part_bytes_max { self.end_part().await } else { Ok(()) }
    }

    /// Bytes that the part at hand takes here.
    #[cfg(test)]
    pub(crate) fn part_bytes(&self) -> usize {
        self.labels_bytes
    }

    /// Begins segment `id` of shard `shard` of `shards`; `heat` says how its values are packed.
    pub async fn create(
        disk: &D,
        id: u64,
        shard: u16,
        shards: u16,
        heat: Heat,
    ) -> Result<SegmentWriter<D>, SegmentError> {
        let path = segment_path(id);
        let failed = |error| SegmentError::Io { path: path.clone(), error };
        disk.create_dir(SEGMENTS_FOLDER).await.map_err(failed)?;
        let file = disk.create(&path).await.map_err(failed)?;
        let head = Head { id, shard, shards };
        let mut out = Steps { file, written: 0, waiting: Vec::with_capacity(STEP_BYTES + HEAD_BYTES) };
        out.waiting.extend_from_slice(&head.encode());
        Ok(SegmentWriter {
            disk: disk.clone(),
            path,
            head,
            heat,
            out,
            series: None,
            times: Vec::with_capacity(COLUMN_SAMPLES_MAX),
            values: Vec::with_capacity(COLUMN_SAMPLES_MAX),
            chunks: Vec::new(),
            clocks: SharedClocks::default(),
            block: BlockBuilder::default(),
            names: Vec::new(),
            before: None,
            first_slot: 0,
            last_slot: 0,
            blocks: Vec::new(),
            labels: Index::default(),
            labels_bytes: 0,
            part_row: 0,
            part_bytes_max: PART_BYTES_MAX,
            parts: Vec::new(),
            filter: Filter::largest(),
            scratch: Scratch::default(),
            column: Vec::new(),
            series_count: 0,
            sample_count: 0,
            first: Timestamp::MAX,
            last: Timestamp::MIN,
        })
    }

    /// Begins a series, which must come behind the one before: slots rising, within a slot label sets. A series that
    /// gets no sample leaves no trace.
    pub async fn begin_series(
        &mut self,
        labels: LabelSetRef<'_>,
        kind: MetricKind,
        arrival: Arrival,
    ) -> Result<(), SegmentError> {
        self.begin(labels.to_owned(), kind, arrival).await
    }

    async fn begin(
        &mut self,
        labels: LabelSet,
        kind: MetricKind,
        arrival: Arrival,
    ) -> Result<(), SegmentError> {
        self.end_series().await?;
        let slot = labels.as_ref().hash().slot();
        debug_assert!(self.last_slot <= slot.number(), "the caller sorts");
        self.series = Some(Open { labels, slot, kind, arrival });
        Ok(())
    }

    /// Appends samples of the series at hand, times rising strictly over all that it gets.
    pub async fn push(&mut self, mut samples: &[Sample]) -> Result<(), SegmentError> {
        while !samples.is_empty() {
            let room = COLUMN_SAMPLES_MAX - self.times.len();
            let (now, later) = samples.split_at(room.min(samples.len()));
            samples = later;
            self.times.extend(now.iter().map(|sample| sample.timestamp));
            self.values.extend(now.iter().map(|sample| sample.value));
            if self.times.len() == COLUMN_SAMPLES_MAX {
                self.seal_chunk().await?;
            }
        }
        Ok(())
    }

    /// Samples so far.
    pub fn sample_count(&self) -> u64 {
        self.sample_count + self.times.len() as u64
    }

    /// Writes what is left; returns once the segment and its name are on the device. Where that fails, the file is
    /// removed.
    pub async fn finish(mut self) -> Result<SegmentEntry, SegmentError> {
        let finished = self.write_end().await;
        if finished.is_err() {
            self.abandon().await;
        }
        finished
    }

    /// Gives up: the file is removed.
    pub async fn abandon(self) {
        // The first error is the one to tell; a file that stays is no harm, no manifest names it.
        let _ = self.disk.remove(&self.path).await;
    }

    async fn write_end(&mut self) -> Result<SegmentEntry, SegmentError> {
        self.end_series().await?;
        self.end_block().await?;
        self.end_part().await?;
        let mut index = Vec::new();
        self.blocks.iter().for_each(|block| block.encode(&mut index));
        self.parts.iter().for_each(|part| part.encode(&mut index));
        self.filter.fold();
        let filter = self.filter.encode();
        let footer = Footer {
            index_offset: self.out.position(),
            index_len: self.fits_u32(index.len())?,
            index_crc: crc32c::crc32c(&index),
            filter_len: self.fits_u32(filter.len())?,
            filter_crc: crc32c::crc32c(&filter),
            blocks: self.fits_u32(self.blocks.len())?,
            parts: self.fits_u32(self.parts.len())?,
            series: self.series_count,
            samples: self.sample_count,
            first: self.first,
            last: self.last,
            id: self.head.id,
            version: VERSION,
        };
        self.append(&index).await?;
        self.append(&filter).await?;
        self.append(&footer.encode()).await?;
        let bytes = self.out.finish().await.map_err(|error| self.failed(error))?;
        self.disk.sync_dir(SEGMENTS_FOLDER).await.map_err(|error| self.failed(error))?;
        self.disk.sync_dir("").await.map_err(|error| self.failed(error))?;
        Ok(SegmentEntry {
            id: self.head.id,
            shards: self.head.shards,
            shard: self.head.shard,
            min_ms: footer.first.millis(),
            max_ms: footer.last.millis(),
            bytes,
            newest: self.head.id,
            deletes_through: 0,
        })
    }

    /// The samples at hand become a chunk.
    async fn seal_chunk(&mut self) -> Result<(), SegmentError> {
        let (Some(&first), Some(&last)) = (self.times.first(), self.times.last()) else { return Ok(()) };
        debug_assert!(self.times.is_sorted_by(|a, b| a < b), "the caller sorts");
        let clock = match self.clocks.find(&self.times, &mut self.scratch) {
            Some(known) => known,
            None => self.write_clock().await?,
        };
        self.column.clear();
        let name = encode_values(&self.values, self.heat, &mut self.scratch, &mut self.column);
        let values = match name.codec {
            Codec::Constant => ValuesAt::Here(self.values[0]),
            _ => ValuesAt::Column(name, self.write_column().await?),
        };
        self.chunks.push(ChunkRow { clock, values, aggregates: Aggregates::of(&self.values) });
        self.sample_count += self.times.len() as u64;
        (self.first, self.last) = (self.first.min(first), self.last.max(last));
        self.times.clear();
        self.values.clear();
        self.disk.give_way().await;
        Ok(())
    }

    async fn write_clock(&mut self) -> Result<ClockRow, SegmentError> {
        self.column.clear();
        encode_clock(&self.times, &mut self.scratch, &mut self.column);
        let at = self.write_column().await?;
        Ok(self.clocks.remember(&self.times, &self.column, at))
    }

    /// The column at hand to the file.
    async fn write_column(&mut self) -> Result<Extent, SegmentError> {
        // Columns and clocks have bounds far below.
        let (len, crc) = (self.column.len() as u32, crc32c::crc32c(&self.column));
        let at = Extent { offset: self.out.position(), len, crc };
        self.out.append(&self.column).await.map_err(|error| self.failed(error))?;
        Ok(at)
    }

    async fn end_series(&mut self) -> Result<(), SegmentError> {
        self.seal_chunk().await?;
        let Some(Open { labels: held, slot, kind, arrival }) = self.series.take() else { return Ok(()) };
        if self.chunks.is_empty() {
            return Ok(());
        }
        if self.block.row_count() == 0 {
            self.first_slot = slot.number();
        }
        self.last_slot = slot.number();
        let labels = held.as_ref();
        self.block.push(slot, kind, arrival, labels, &self.chunks);
        self.chunks.clear();
        self.note_pairs(labels);
        // A part has far fewer rows.
        self.labels_bytes += self.labels.insert(labels, (self.series_count - self.part_row) as u32);
        self.series_count += 1;
        self.before = Some(held);
        if self.block.len() >= BLOCK_BYTES_TARGET {
            self.end_block().await?;
        }
        self.end_full_part().await
    }

    /// Enters what the filter and the block are to know of a label set; what the one before had too is there. In the order
    /// of labels neighbours share most of them.
    fn note_pairs(&mut self, labels: LabelSetRef<'_>) {
        let before = self.before.as_ref().map(LabelSet::as_ref);
        let is_named_so = before.is_some_and(|before| before.name() == labels.name());
        if !is_named_so {
            self.filter.insert(PairHash::new("__name__", labels.name()));
        }
        if !is_named_so || self.names.is_empty() {
            self.names.push(name_hash(labels.name()));
        }
        let mut of_before = before.into_iter().flat_map(|before| before.labels());
        for (label, value) in labels.labels() {
            if of_before.next() != Some((label, value)) {
                self.filter.insert(PairHash::new(label, value));
            }
        }
    }

    /// The labels of the rows at hand become a part of the label index.
    async fn end_part(&mut self) -> Result<(), SegmentError> {
        let (first_row, rows) = (self.part_row, self.series_count - self.part_row);
        if rows == 0 {
            return Ok(());
        }
        (self.part_row, self.labels_bytes) = (self.series_count, 0);
        let index = std::mem::take(&mut self.labels);
        let offset = self.out.position();
        let mut heads = Vec::new();
        let mut block = ValuesBuilder::default();
        for (name, values) in index.labels() {
            let mut head = LabelHead { name: name.into(), ..LabelHead::default() };
            let mut sorted = values.sorted();
            while sorted.sort_some() {
                self.disk.give_way().await;
            }
            let mut first = "";
            for (value, ids) in sorted {
                if block.len() == 0 {
                    first = value;
                }
                head.values += 1;
                head.rows += block.push(value, ids);
                if block.len() >= VALUES_BYTES_TARGET {
                    self.end_values(&mut block, first, &mut head, offset).await?;
                }
            }
            if block.len() > 0 {
                self.end_values(&mut block, first, &mut head, offset).await?;
            }
            heads.push(head);
        }
        let blocks_len = (self.out.position() - offset) as usize;
        let head = encode_head(&heads);
        self.parts.push(Part {
            offset,
            blocks_len: self.fits_u32(blocks_len)?,
            head_len: self.fits_u32(head.len())?,
            head_crc: crc32c::crc32c(&head),
            first_row: self.fits_u32(first_row as usize)?,
            rows: self.fits_u32(rows as usize)?,
        });
        self.append(&head).await
    }

    async fn end_values(
        &mut self,
        block: &mut ValuesBuilder,
        first: &str,
        head: &mut LabelHead,
        part_offset: u64,
    ) -> Result<(), SegmentError> {
        let bytes = block.take();
        head.blocks.push(ValuesBlock {
            offset: self.fits_u32((self.out.position() - part_offset) as usize)?,
            len: self.fits_u32(bytes.len())?,
            crc: crc32c::crc32c(&bytes),
            first: first.into(),
        });
        self.append(&bytes).await?;
        self.disk.give_way().await;
        Ok(())
    }

    async fn end_block(&mut self) -> Result<(), SegmentError> {
        let rows = self.block.row_count();
        if rows == 0 {
            return Ok(());
        }
        let bytes = self.block.take();
        self.names.sort_unstable();
        self.names.dedup();
        self.blocks.push(Block {
            offset: self.out.position(),
            len: self.fits_u32(bytes.len())?,
            crc: crc32c::crc32c(&bytes),
            first_row: self.fits_u32(self.series_count as usize - rows as usize)?,
            rows,
            first_slot: self.first_slot,
            last_slot: self.last_slot,
            names: self.names.as_slice().into(),
        });
        self.names.clear();
        self.append(&bytes).await
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.out.append(bytes).await.map_err(|error| self.failed(error))
    }

    fn fits_u32(&self, len: usize) -> Result<u32, SegmentError> {
        let too_large = io::Error::new(io::ErrorKind::FileTooLarge, "a part of a segment above 4 GiB");
        u32::try_from(len).map_err(|_| self.failed(too_large))
    }

    fn failed(&self, error: io::Error) -> SegmentError {
        SegmentError::Io { path: self.path.clone(), error }
    }
}

/// A file that grows by whole steps; only the last is shorter.
struct Steps<F> {
    file: F,
    written: u64,
    waiting: Vec<u8>,
}

impl<F: DiskFile> Steps<F> {
    /// Where the next byte will lie.
    fn position(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    async fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.waiting.len() + bytes.len() >= STEP_BYTES {
            let (now, later) = bytes.split_at(STEP_BYTES - self.waiting.len());
            self.waiting.extend_from_slice(now);
            self.step().await?;
            bytes = later;
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    async fn step(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.waiting).await?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Everything to the device; the length of the file.
    async fn finish(&mut self) -> io::Result<u64> {
        self.step().await?;
        self.file.sync().await?;
        Ok(self.written)
    }
}
