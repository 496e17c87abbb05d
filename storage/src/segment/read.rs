//! Reading a segment: a little is kept in memory, the rest is read when a query asks and then checked.

use super::layout::{Block, ChunkRow, FOOTER_BYTES, Footer, HEAD_BYTES, Head, Refused, name_hash, rows};
use super::{SegmentEntry, SegmentError, segment_path};
use crate::chunk::Samples;
use crate::disk::{Disk, DiskFile};
use model::{Arrival, LabelSet, Matcher, MetricKind, Sample, Slot, Timestamp};
use std::io;

/// Bytes of chunks read at once, and held per source by whoever merges several.
const READ_BYTES_MAX: usize = 256 * 1024;

/// An open segment. In memory are its bounds and, per directory block, the hashes of its metric names:
/// about a twentieth of the directory at most.
pub struct SegmentReader<D: Disk> {
    path: String,
    file: D::File,
    entry: SegmentEntry,
    footer: Footer,
    blocks: Vec<Block>,
}

/// A series of a segment and where its chunks lie.
#[derive(Clone, Debug)]
pub struct SegmentSeries {
    /// Its slot; the directory is sorted by it.
    pub slot: Slot,
    /// The label set.
    pub labels: LabelSet,
    /// What the client called it.
    pub kind: MetricKind,
    /// When the series first arrived, as far as the writer knew.
    pub arrival: Arrival,
    /// The chunks that reach into the time asked for, in order of time.
    pub chunks: Vec<ChunkRow>,
}

/// Bytes of chunks that lie back to back.
#[derive(Debug, Default)]
pub struct ChunkRun {
    offset: u64,
    bytes: Vec<u8>,
    /// Bytes that were asked for.
    len: usize,
}

impl<D: Disk> SegmentReader<D> {
    /// Opens segment `id`; one that is incomplete or damaged in its head, footer or index is refused.
    pub async fn open(disk: &D, id: u64) -> Result<SegmentReader<D>, SegmentError> {
        let path = segment_path(id);
        let failed = |error| SegmentError::Io { path: path.clone(), error };
        let file = disk.open(&path).await.map_err(failed)?;
        let len = file.len().await.map_err(failed)?;
        let damaged = |offset, what| SegmentError::Damaged { path: path.clone(), offset, series: None, what };
        let refused = |offset, refused| match refused {
            Refused::Damaged(what) => damaged(offset, what),
            Refused::OtherVersion(version) => SegmentError::OtherVersion { path: path.clone(), version },
        };
        if len < (HEAD_BYTES + FOOTER_BYTES) as u64 {
            return Err(damaged(0, "the segment is incomplete"));
        }
        let head = file.read_at(0, HEAD_BYTES).await.map_err(failed)?;
        let head = Head::decode(&head).map_err(|error| refused(0, error))?;
        let footer_at = len - FOOTER_BYTES as u64;
        let footer = file.read_at(footer_at, FOOTER_BYTES).await.map_err(failed)?;
        let footer = Footer::decode(&footer).map_err(|error| refused(footer_at, error))?;
        if head.id != id || footer.id != id {
            return Err(damaged(0, "the file is another segment than its name says"));
        }
        let index_at = footer.index_offset;
        let index_fits = index_at >= HEAD_BYTES as u64
            && index_at.checked_add(u64::from(footer.index_len)) == Some(footer_at);
        if !index_fits {
            return Err(damaged(footer_at, "the index lies outside the file"));
        }
        let index = file.read_at(index_at, footer.index_len as usize).await.map_err(failed)?;
        if index.len() != footer.index_len as usize || crc32c::crc32c(&index) != footer.index_crc {
            return Err(damaged(index_at, "the checksum of the index"));
        }
        let blocks = Block::decode_all(&index, footer.blocks);
        let blocks = blocks.ok_or_else(|| damaged(index_at, "the form of the index"))?;
        let entry = SegmentEntry {
            id,
            shards: head.shards,
            shard: head.shard,
            min_ms: footer.first.millis(),
            max_ms: footer.last.millis(),
            bytes: len,
        };
        Ok(SegmentReader { path, file, entry, footer, blocks })
    }

    /// What a manifest keeps of the segment.
    pub fn entry(&self) -> &SegmentEntry {
        &self.entry
    }

    /// Series in the segment.
    pub fn series_count(&self) -> u64 {
        self.footer.series
    }

    /// Samples in the segment.
    pub fn sample_count(&self) -> u64 {
        self.footer.samples
    }

    /// Whether a sample may lie from `start` to `end`, both included.
    pub fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.footer.first <= end && self.footer.last >= start
    }

    /// The first block of the directory from `block` on that may hold a series of that name in a slot that
    /// `owned` claims, and its first slot; the others need not be read.
    pub fn block_that_may_hold(
        &self,
        block: usize,
        name: &str,
        owned: impl Fn(Slot) -> bool,
    ) -> Option<(usize, Slot)> {
        let hash = name_hash(name);
        let ahead = self.blocks.iter().enumerate().skip(block);
        let mut holding = ahead.filter(|(_, block)| block.may_hold(hash) && block.slots().any(&owned));
        holding.find_map(|(at, block)| Some((at, Slot::new(block.first_slot)?)))
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self.blocks.iter().map(|block| block.names.len() * size_of::<u32>()).sum();
        size_of::<SegmentReader<D>>() + self.path.len() + self.blocks.len() * size_of::<Block>() + names
    }

    /// Blocks of the directory.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Finds in block `block` the series of that name that meet all matchers, lie in a slot that `owned`
    /// claims and have chunks from `start` to `end`, slots rising. What could not be read is told in `warnings`,
    /// and only that is missing.
    ///
    /// # Panics
    /// If there is no such block.
    pub async fn find_in_block(
        &self,
        block: usize,
        name: &str,
        matchers: &[Matcher],
        (start, end): (Timestamp, Timestamp),
        owned: impl Fn(Slot) -> bool,
        warnings: &mut Vec<SegmentError>,
    ) -> Vec<SegmentSeries> {
        let block = &self.blocks[block];
        let mut found = Vec::new();
        let bytes = match self.read_checked(block.offset, block.len as usize, block.crc).await {
            Ok(bytes) => bytes,
            Err(error) => {
                warnings.push(error.unwrap_or_else(|| {
                    self.damaged(block.offset, None, "the checksum of a directory block")
                }));
                return found;
            }
        };
        let mut last_slot = block.first_slot;
        for row in rows(&bytes) {
            let Some(row) = row else {
                warnings.push(self.damaged(block.offset, None, "the form of a directory row"));
                break;
            };
            // Readers go from slot to slot and would miss one that stands elsewhere.
            if !(last_slot..=block.last_slot).contains(&row.slot.number()) {
                warnings.push(self.damaged(block.offset, None, "the order of directory rows"));
                break;
            }
            last_slot = row.slot.number();
            let wanted = row.labels.name() == name
                && owned(row.slot)
                && matchers.iter().all(|matcher| matcher.matches(row.labels));
            if !wanted {
                continue;
            }
            let mut chunks: Vec<ChunkRow> = Vec::new();
            let mut last = None;
            for chunk in row.chunks() {
                // They rise over all chunks of a series: readers merge sources without sorting them.
                let Some(chunk) = chunk.filter(|chunk| last.is_none_or(|last| last < chunk.first)) else {
                    let series = Some(format!("{:?}", row.labels));
                    warnings.push(self.damaged(block.offset, series, "the bounds of a chunk"));
                    continue;
                };
                last = Some(chunk.last);
                if chunk.first <= end && chunk.last >= start {
                    chunks.push(chunk);
                }
            }
            if !chunks.is_empty() {
                let (slot, labels, kind, arrival) = (row.slot, row.labels.to_owned(), row.kind, row.arrival);
                found.push(SegmentSeries { slot, labels, kind, arrival, chunks });
            }
        }
        found
    }

    /// Reads chunks that lie back to back, as [`run_len`] says.
    pub async fn read_run(&self, chunks: &[ChunkRow]) -> Result<ChunkRun, SegmentError> {
        let offset = chunks.first().map_or(0, |chunk| chunk.offset);
        let len = chunks.iter().map(|chunk| chunk.len as usize).sum();
        let bytes = self.file.read_at(offset, len).await.map_err(|error| self.failed(error))?;
        Ok(ChunkRun { offset, bytes, len })
    }

    /// Appends the samples of one chunk of a run to `out`; nothing when it is not as its row says.
    pub fn decode_chunk(
        &self,
        labels: &LabelSet,
        chunk: &ChunkRow,
        run: &ChunkRun,
        out: &mut Vec<Sample>,
    ) -> Result<(), SegmentError> {
        let from = chunk.offset.saturating_sub(run.offset) as usize;
        let own = run.bytes.get(from..from + chunk.len as usize).unwrap_or(&[]);
        decode(chunk, own, out).map_err(|what| self.damaged(chunk.offset, Some(format!("{labels:?}")), what))
    }

    /// The bytes, if their checksum is right. `Err(None)`: it is not.
    async fn read_checked(&self, offset: u64, len: usize, crc: u32) -> Result<Vec<u8>, Option<SegmentError>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.entry.bytes) {
            return Err(None);
        }
        let bytes = self.file.read_at(offset, len).await.map_err(|error| Some(self.failed(error)))?;
        if bytes.len() == len && crc32c::crc32c(&bytes) == crc { Ok(bytes) } else { Err(None) }
    }

    fn failed(&self, error: io::Error) -> SegmentError {
        SegmentError::Io { path: self.path.clone(), error }
    }

    fn damaged(&self, offset: u64, series: Option<String>, what: &'static str) -> SegmentError {
        SegmentError::Damaged { path: self.path.clone(), offset, series, what }
    }
}

impl SegmentSeries {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        size_of::<SegmentSeries>()
            + self.labels.as_ref().bytes().len()
            + self.chunks.capacity() * size_of::<ChunkRow>()
    }
}

impl ChunkRun {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether the chunk was read with it; its bytes may be missing all the same where the file ends early.
    pub fn holds(&self, chunk: &ChunkRow) -> bool {
        let from = chunk.offset.checked_sub(self.offset);
        from.is_some_and(|from| from + u64::from(chunk.len) <= self.len as u64)
    }
}

/// How many of the first chunks lie back to back and may be read at once; 1 at least.
pub fn run_len(chunks: &[ChunkRow]) -> usize {
    let mut bytes = 0;
    let follows =
        |pair: &[ChunkRow]| pair[0].offset.checked_add(u64::from(pair[0].len)) == Some(pair[1].offset);
    let fits = |pair: &&[ChunkRow]| {
        bytes += pair[0].len as usize;
        follows(pair) && bytes + pair[1].len as usize <= READ_BYTES_MAX
    };
    1 + chunks.windows(2).take_while(fits).count()
}

/// Checks and decodes one chunk; what is not as its row says is not used.
fn decode(chunk: &ChunkRow, bytes: &[u8], out: &mut Vec<Sample>) -> Result<(), &'static str> {
    if bytes.len() != chunk.len as usize || crc32c::crc32c(bytes) != chunk.crc {
        return Err("the checksum of a chunk");
    }
    let before = out.len();
    if Samples::new(bytes, chunk.count).decode_into(out).is_err() {
        return Err("the form of a chunk");
    }
    let bounds = (out.get(before).map(|s| s.timestamp), out.last().map(|s| s.timestamp));
    if bounds != (Some(chunk.first), Some(chunk.last)) {
        out.truncate(before);
        return Err("the bounds of a chunk");
    }
    Ok(())
}
