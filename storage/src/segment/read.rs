//! Reading a segment: a little is kept in memory, the rest is read when a query asks and then checked.

use super::directory::{BlockRows, ChunkRow, Form};
use super::filter::{Filter, PairHash};
use super::label_index::{Cache, Part, Rows};
use super::layout::{Block, FOOTER_BYTES, Footer, HEAD_BYTES, Head, Refused, name_hash};
use super::series_list::{ListedSeries, SeriesList};
use super::workspace::Workspace;
use super::{SegmentEntry, SegmentError, run_len, segment_path};
use crate::disk::{Disk, DiskFile};
use model::{Arrival, LabelSet, LabelSetRef, Matcher, MetricKind, Slot, Timestamp};
use roaring::RoaringBitmap;
use std::io;

/// An open segment. In memory are its bounds, a filter of its label pairs and, per directory block, the hashes of its
/// metric names: about a twentieth of the directory.
pub struct SegmentReader<D: Disk> {
    path: String,
    file: D::File,
    entry: SegmentEntry,
    footer: Footer,
    blocks: Vec<Block>,
    /// Of the label index; none in a file of version 3.
    pub(super) parts: Vec<Part>,
    filter: Filter,
    pub(super) cache: Cache,
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

/// What was read and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Series.
    pub series: u64,
    /// Samples of them.
    pub samples: u64,
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
        let filter_at = index_at.checked_add(u64::from(footer.index_len));
        let ends_at = filter_at.and_then(|at| at.checked_add(u64::from(footer.filter_len)));
        let (Some(filter_at), true) =
            (filter_at, index_at >= HEAD_BYTES as u64 && ends_at == Some(footer_at))
        else {
            return Err(damaged(footer_at, "the index lies outside the file"));
        };
        let index = file.read_at(index_at, footer.index_len as usize).await.map_err(failed)?;
        if index.len() != footer.index_len as usize || crc32c::crc32c(&index) != footer.index_crc {
            return Err(damaged(index_at, "the checksum of the index"));
        }
        let malformed = || damaged(index_at, "the form of the index");
        let (blocks, behind) = Block::decode_all(&index, footer.blocks).ok_or_else(malformed)?;
        let parts = Part::decode_all(behind, footer.parts).ok_or_else(malformed)?;
        let rows_end = blocks.last().map_or(0, |block| block.first_row + block.rows);
        if parts.last().is_some_and(|part| part.first_row + part.rows > rows_end) {
            return Err(malformed());
        }
        let filter = file.read_at(filter_at, footer.filter_len as usize).await.map_err(failed)?;
        if filter.len() != footer.filter_len as usize || crc32c::crc32c(&filter) != footer.filter_crc {
            return Err(damaged(filter_at, "the checksum of the filter"));
        }
        let filter = Filter::decode(&filter).ok_or_else(|| damaged(filter_at, "the form of the filter"))?;
        let entry = SegmentEntry {
            id,
            shards: head.shards,
            shard: head.shard,
            min_ms: footer.first.millis(),
            max_ms: footer.last.millis(),
            bytes: len,
            newest: id,
            deletes_through: 0,
        };
        let cache = Cache::new(footer.series);
        Ok(SegmentReader { path, file, entry, footer, blocks, parts, filter, cache })
    }

    /// Opens the segment that a manifest names; one that is another is refused.
    pub async fn open_named(disk: &D, named: &SegmentEntry) -> Result<SegmentReader<D>, SegmentError> {
        let mut reader = SegmentReader::open(disk, named.id).await?;
        // What the manifest alone knows.
        reader.entry.newest = named.newest;
        reader.entry.deletes_through = named.deletes_through;
        if reader.entry == *named {
            return Ok(reader);
        }
        Err(reader.damaged(0, None, "the segment is not the one that the manifest describes"))
    }

    /// Its file, within the data directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a manifest keeps of the segment; as one that was flushed, unless it was opened [by
    /// name](Self::open_named).
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

    /// Bytes of the file that are directory blocks.
    pub fn directory_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.len)).sum()
    }

    /// Bytes of the file that are the label index.
    pub fn label_index_bytes(&self) -> u64 {
        self.parts.iter().map(Part::bytes).sum()
    }

    /// Bytes of index and filter.
    pub fn index_bytes(&self) -> u64 {
        u64::from(self.footer.index_len) + u64::from(self.footer.filter_len)
    }

    /// The version of its format.
    pub fn version(&self) -> u16 {
        self.footer.version
    }

    /// The parts of the file that are neither values nor clocks, by name, and their bytes.
    pub fn sections(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("directory", self.directory_bytes()),
            ("label index", self.label_index_bytes()),
            ("index", u64::from(self.footer.index_len)),
            ("filter", u64::from(self.footer.filter_len)),
            ("head and footer", (HEAD_BYTES + FOOTER_BYTES) as u64),
        ]
    }

    /// Whether a series may have all these label pairs; where it says no, none does, and nothing need be read.
    pub fn may_hold(&self, pairs: &[PairHash]) -> bool {
        pairs.iter().all(|pair| self.filter.may_hold(*pair))
    }

    /// Adds to `rows`, behind those of the parts of the label index, the rows that no part knows and that lie in blocks
    /// which may hold a series of that name: all such, in a file of version 3.
    pub fn add_unindexed_rows(&self, name: &str, rows: &mut Rows) {
        let indexed = self.parts.last().map_or(0, |part| part.first_row + part.rows);
        let hash = name_hash(name);
        let first = self.blocks.partition_point(|block| block.first_row + block.rows <= indexed);
        for block in self.blocks[first..].iter().filter(|block| block.may_hold(hash)) {
            let mut all = RoaringBitmap::new();
            all.insert_range(indexed.saturating_sub(block.first_row)..block.rows);
            rows.push(block.first_row, all);
        }
    }

    /// The first block of the directory from `block` on in which one of these rows lies, in a slot that `owned` may
    /// claim, and its first slot; the others need not be read.
    pub fn next_block(
        &self,
        block: usize,
        rows: &Rows,
        owned: impl Fn(Slot) -> bool,
    ) -> Option<(usize, Slot)> {
        let mut from = self.blocks.get(block)?.first_row;
        loop {
            let row = rows.between(from, u32::MAX).next()?;
            let at = self.blocks.partition_point(|block| block.first_row + block.rows <= row);
            let block = self.blocks.get(at)?;
            if block.slots().any(&owned) {
                return Some((at, Slot::new(block.first_slot)?));
            }
            from = block.first_row + block.rows;
        }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        let names: usize = self.blocks.iter().map(|block| block.names.len() * size_of::<u32>()).sum();
        size_of::<SegmentReader<D>>()
            + self.path.len()
            + self.blocks.len() * size_of::<Block>()
            + self.parts.len() * size_of::<Part>()
            + self.cache.bytes_max()
            + names
            + self.filter.bytes()
    }

    /// The slot with which a block of the directory begins; none behind the last.
    pub fn first_slot_of(&self, block: usize) -> Option<Slot> {
        self.blocks.get(block).and_then(|block| Slot::new(block.first_slot))
    }

    /// Blocks of the directory.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Finds in block `block`, among these rows, the series that meet all matchers and lie in a slot that `owned` claims,
    /// and appends them to `found`, slots rising, within a slot label sets. What could not be read is told in `warnings`,
    /// and only that is missing.
    ///
    /// # Panics
    /// If there is no such block.
    pub async fn find_in_block(
        &self,
        block: usize,
        rows: &Rows,
        matchers: &[Matcher],
        owned: impl Fn(Slot) -> bool,
        (found, warnings): (&mut SeriesList, &mut Vec<SegmentError>),
    ) {
        let Block { first_row, rows: count, .. } = self.blocks[block];
        let mut asked = rows.between(first_row, first_row + count).peekable();
        let asked = |number: u32, slot| asked.next_if_eq(&(first_row + number)).is_some() && owned(slot);
        let meets = |labels: LabelSetRef<'_>| matchers.iter().all(|matcher| matcher.matches(labels));
        self.rows_of_block(block, asked, meets, (found, warnings)).await;
    }

    /// All series of a block in a slot that `owned` claims, with all their chunks.
    ///
    /// # Panics
    /// If there is no such block.
    pub async fn series_in_block(
        &self,
        block: usize,
        owned: impl Fn(Slot) -> bool,
        warnings: &mut Vec<SegmentError>,
    ) -> Vec<SegmentSeries> {
        let mut found = SeriesList::default();
        self.rows_of_block(block, |_, slot| owned(slot), |_| true, (&mut found, warnings)).await;
        let ever = (Timestamp::MIN, Timestamp::MAX);
        let with_chunks = |series: ListedSeries<'_>| {
            let chunks = self.chunks_of(&series, ever, warnings);
            let ListedSeries { slot, kind, arrival, labels, .. } = series;
            (!chunks.is_empty()).then(|| SegmentSeries {
                slot,
                labels: labels.to_owned(),
                kind,
                arrival,
                chunks,
            })
        };
        found.iter().filter_map(with_chunks).collect()
    }

    /// The chunks of a listed series that reach into the time from `start` to `end`, in order of time. What is damaged is
    /// told in `warnings` and missing.
    pub fn chunks_of(
        &self,
        series: &ListedSeries<'_>,
        (start, end): (Timestamp, Timestamp),
        warnings: &mut Vec<SegmentError>,
    ) -> Vec<ChunkRow> {
        let damaged = |what| self.damaged(series.block, Some(format!("{:?}", series.labels)), what);
        let (mut chunks, mut last) = (Vec::new(), None);
        for chunk in series.chunks() {
            let Ok(chunk) = chunk else {
                warnings.push(damaged("the form of a directory row"));
                break;
            };
            // They rise over all chunks of a series: readers merge sources without sorting them.
            if last.is_some_and(|last| last >= chunk.first()) {
                warnings.push(damaged("the bounds of a chunk"));
                continue;
            }
            last = Some(chunk.last());
            if chunk.first() <= end && chunk.last() >= start {
                chunks.push(chunk);
            }
        }
        chunks
    }

    async fn rows_of_block(
        &self,
        block: usize,
        mut asked: impl FnMut(u32, Slot) -> bool,
        meets: impl Fn(LabelSetRef<'_>) -> bool,
        (found, warnings): (&mut SeriesList, &mut Vec<SegmentError>),
    ) {
        let block = &self.blocks[block];
        let damaged = |what| self.damaged(block.offset, None, what);
        let bytes = match self.read_checked(block.offset, block.len as usize, block.crc).await {
            Ok(bytes) => bytes,
            Err(error) => {
                warnings.push(error.unwrap_or_else(|| damaged("the checksum of a directory block")));
                return;
            }
        };
        let Ok(mut rows) = BlockRows::new(&bytes, Form::of_version(self.footer.version)) else {
            return warnings.push(damaged("the form of a directory block"));
        };
        let (mut last_slot, mut number) = (block.first_slot, 0);
        while let Some(row) = rows.next_wanted(found.room(), |slot| asked(number, slot)) {
            let Ok(row) = row else {
                found.forget();
                return warnings.push(damaged("the form of a directory row"));
            };
            // Readers go from slot to slot and would miss one that stands elsewhere.
            let slot = row.slot.number();
            if !(last_slot..=block.last_slot).contains(&slot) {
                found.forget();
                return warnings.push(damaged("the order of directory rows"));
            }
            last_slot = slot;
            number += 1;
            if !row.is_wanted {
                continue;
            }
            let labels = LabelSetRef::from_canonical(found.put());
            if !meets(labels) {
                found.forget();
                continue;
            }
            // Within a slot they look for label sets.
            let before = found.len().checked_sub(1);
            let follows = |before| {
                found.slot(before) < Some(row.slot)
                    || found.labels(before).is_some_and(|before| before < labels)
            };
            if !before.is_none_or(follows) {
                found.forget();
                return warnings.push(damaged("the order of directory rows"));
            }
            found.end_series(&row, (&rows, block.offset));
        }
    }

    /// Reads and checks all of a directory block and of the chunks it tells of, and what these come to. What is wrong
    /// is told; the rest is counted.
    ///
    /// # Panics
    /// If there is no such block.
    pub async fn verify_block(
        &self,
        block: usize,
        workspace: &mut Workspace,
        errors: &mut Vec<SegmentError>,
    ) -> Verified {
        let mut verified = Verified::default();
        for SegmentSeries { labels, chunks, .. } in self.series_in_block(block, |_| true, errors).await {
            verified.series += 1;
            let set = labels.as_ref();
            let pairs = set.labels().map(|(label, value)| PairHash::new(label, value));
            let pairs: Vec<PairHash> = pairs.chain([PairHash::new("__name__", set.name())]).collect();
            if !self.may_hold(&pairs) || !self.blocks[block].may_hold(name_hash(set.name())) {
                let series = Some(format!("{labels:?}"));
                errors.push(self.damaged(
                    self.blocks[block].offset,
                    series,
                    "the index does not know a series",
                ));
            }
            let mut rest = &chunks[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(run_len(rest));
                rest = later;
                let run = match self.read_run(now, workspace).await {
                    Ok(run) => run,
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                };
                for chunk in now {
                    if let Err(error) = self.verify_clock(&labels, &chunk.clock, workspace).await {
                        errors.push(error);
                        continue;
                    }
                    match self.verify_chunk(&labels, chunk, &run, workspace) {
                        Ok(samples) => verified.samples += samples as u64,
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        verified
    }

    /// The bytes, if their checksum is right. `Err(None)`: it is not.
    pub(super) async fn read_checked(
        &self,
        offset: u64,
        len: usize,
        crc: u32,
    ) -> Result<Vec<u8>, Option<SegmentError>> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.entry.bytes) {
            return Err(None);
        }
        let bytes = self.file.read_at(offset, len).await.map_err(|error| Some(self.failed(error)))?;
        if bytes.len() == len && crc32c::crc32c(&bytes) == crc { Ok(bytes) } else { Err(None) }
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn file(&self) -> &D::File {
        &self.file
    }

    pub(super) fn failed(&self, error: io::Error) -> SegmentError {
        SegmentError::Io { path: self.path.clone(), error }
    }

    pub(super) fn damaged(&self, offset: u64, series: Option<String>, what: &'static str) -> SegmentError {
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
