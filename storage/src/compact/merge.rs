//! A merge: some segments read side by side, slot by slot, and written anew.
//!
//! ```text
//! for each owner (one, but where the segments are of another number of shards), for each slot, for each series:
//!   its samples from all segments, in order of time, the newest of each time          `store/merge.rs`
//!   → to the segment of the window they lie in, which is begun with its first sample
//! all segments are completed, synced, and read back
//! ```
//!
//! In memory are, per segment that is read, the rows of one directory block and one read of chunks; per segment that is
//! written, a step of bytes and a directory block.
//! What cannot be read ends the merge, and the segments stay as they are: merging on would make damage final.

use super::choose::Windows;
use crate::column::Heat;
use crate::deletes::{Delete, Hidden};
use crate::disk::Disk;
use crate::segment::{
    ChunkRow, PART_BYTES_MAX, SegmentEntry, SegmentError, SegmentReader, SegmentSeries, SegmentWriter,
    Workspace,
};
use crate::store::SeriesMerge;
use model::{Arrival, LabelSet, MetricKind, Sample, Slot, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

/// A segment that is open to be read.
pub type OpenSegment<D> = Rc<SegmentReader<D>>;

/// Gives ids that no segment has or had.
type NextId = Box<dyn FnMut() -> u64>;

/// Why a merge ended without a result; what was written is removed.
#[derive(Debug)]
pub enum MergeError {
    /// A segment that was to be merged cannot be read: it is better left out of merges.
    Unreadable {
        /// Its id.
        id: u64,
        /// What is wrong with it.
        error: SegmentError,
    },
    /// A new segment could not be written.
    Unwritable(SegmentError),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergeError::Unreadable { error, .. } => write!(f, "segments cannot be merged: {error}"),
            MergeError::Unwritable(error) => write!(f, "a merged segment cannot be written: {error}"),
        }
    }
}

impl std::error::Error for MergeError {}

/// What a merge has made: written, on the device, and open.
pub struct Merged<D: Disk> {
    /// Ids of what was merged.
    pub removed: Vec<u64>,
    /// What holds its samples now, for whichever owner.
    pub added: Vec<OpenSegment<D>>,
}

/// See the head of this file.
pub struct Merge<D: Disk> {
    disk: D,
    sources: Vec<Source<D>>,
    /// Those of the moment it began.
    deletes: Rc<[Delete]>,
    windows: Windows,
    now_ms: i64,
    /// Samples before it have expired.
    oldest: Timestamp,
    next_id: NextId,
    shards: usize,
    /// Those whose turn is still to come, and the one that is served.
    owners: VecDeque<usize>,
    /// What the sources hold of the slot at hand.
    of_slot: BTreeMap<LabelSet, OfSeries>,
    reading: Option<Reading<D>>,
    /// By their window's first millisecond.
    outputs: BTreeMap<i64, Output<D>>,
    /// What they hold together of the label index, about.
    part_bytes_max: usize,
    added: Vec<OpenSegment<D>>,
    piece: Vec<Sample>,
    workspace: Workspace,
}

/// One segment that is read.
struct Source<D: Disk> {
    segment: OpenSegment<D>,
    next_block: usize,
    /// Read and not yet taken, slots rising.
    found: VecDeque<SegmentSeries>,
}

/// One series of the slot at hand.
struct OfSeries {
    /// As the newest source says.
    kind: MetricKind,
    arrival: Arrival,
    /// By source, oldest first.
    chunks: Vec<(usize, Vec<ChunkRow>)>,
}

/// The series at hand.
struct Reading<D: Disk> {
    labels: Rc<LabelSet>,
    kind: MetricKind,
    arrival: Arrival,
    merge: SeriesMerge<D>,
}

struct Output<D: Disk> {
    writer: SegmentWriter<D>,
    id: u64,
    /// Whether the series at hand was begun here.
    has_begun: bool,
}

impl<D: Disk> Merge<D> {
    /// A merge of these, which [`super::choose`] has chosen of shard `shard` of `shards` for that millisecond; `next_id` numbers what is
    /// written. Samples before `oldest` are left out.
    pub(crate) fn new(
        disk: D,
        mut segments: Vec<OpenSegment<D>>,
        (shard, shards): (usize, usize),
        deletes: Rc<[Delete]>,
        (windows, now_ms): (Windows, i64),
        oldest: Timestamp,
        next_id: impl FnMut() -> u64 + 'static,
    ) -> Merge<D> {
        segments.sort_by_key(|segment| (segment.entry().newest, segment.entry().id));
        let is_foreign = segments.iter().any(|segment| usize::from(segment.entry().shards) != shards);
        let source = |segment| Source { segment, next_block: 0, found: VecDeque::new() };
        Merge {
            disk,
            deletes,
            sources: segments.into_iter().map(source).collect(),
            windows,
            now_ms,
            oldest,
            next_id: Box::new(next_id),
            shards,
            owners: if is_foreign { (0..shards).collect() } else { VecDeque::from([shard]) },
            of_slot: BTreeMap::new(),
            reading: None,
            outputs: BTreeMap::new(),
            part_bytes_max: PART_BYTES_MAX,
            added: Vec::new(),
            piece: Vec::new(),
            workspace: Workspace::default(),
        }
    }

    /// Does a bounded piece of the work, some thousand samples or a directory block; `false` when all is written. After
    /// an error it is to be [abandoned](Self::abandon).
    pub async fn step(&mut self) -> Result<bool, MergeError> {
        if let Some(mut reading) = self.reading.take() {
            if self.write_some(&mut reading).await? {
                self.reading = Some(reading);
            }
            return Ok(true);
        }
        if let Some((labels, series)) = self.of_slot.pop_first() {
            self.begin_series(labels, series);
            return Ok(true);
        }
        let Some(owner) = self.owners.front().copied() else { return Ok(false) };
        if !self.gather(owner).await? {
            self.complete(owner).await?;
            self.owners.pop_front();
            self.sources.iter_mut().for_each(|source| source.next_block = 0);
        }
        Ok(true)
    }

    /// What was made, once [`Self::step`] says that all is.
    pub fn end(self) -> Merged<D> {
        let removed = self.sources.iter().map(|source| source.segment.entry().id).collect();
        Merged { removed, added: self.added }
    }

    /// Removes what was written.
    pub async fn abandon(self) {
        for output in self.outputs.into_values() {
            output.writer.abandon().await;
        }
        remove(&self.disk, &self.added).await;
    }

    /// Finds the next series, by reading a block or by taking all rows of the next slot; `false` when none is left.
    async fn gather(&mut self, owner: usize) -> Result<bool, MergeError> {
        let shards = self.shards;
        let owned = move |slot: Slot| slot.owner(shards) == owner;
        // A block that begins at or before the lowest slot that was found may hold more of it.
        let lowest =
            self.sources.iter().filter_map(|source| source.found.front()).map(|series| series.slot).min();
        let unread = |source: &Source<D>| source.segment.first_slot_of(source.next_block);
        let next =
            self.sources.iter().enumerate().filter_map(|(at, source)| Some((unread(source)?, at))).min();
        if let Some((first, at)) = next
            && lowest.is_none_or(|lowest| first <= lowest)
        {
            let Source { segment, next_block, found } = &mut self.sources[at];
            let mut warnings = Vec::new();
            let series = segment.series_in_block(*next_block, owned, &mut warnings).await;
            if let Some(error) = warnings.pop() {
                return Err(MergeError::Unreadable { id: segment.entry().id, error });
            }
            found.extend(series);
            *next_block += 1;
            return Ok(true);
        }
        let Some(slot) = lowest else { return Ok(false) };
        for (at, source) in self.sources.iter_mut().enumerate() {
            while let Some(series) = source.found.pop_front_if(|series| series.slot <= slot) {
                let SegmentSeries { labels, kind, arrival, chunks, .. } = series;
                let known = self.of_slot.entry(labels);
                let known = known.or_insert(OfSeries { kind, arrival, chunks: Vec::new() });
                known.kind = kind;
                known.arrival = known.arrival.min(arrival);
                known.chunks.push((at, chunks));
            }
        }
        Ok(true)
    }

    fn begin_series(&mut self, labels: LabelSet, series: OfSeries) {
        let labels = Rc::new(labels);
        let mut merge = SeriesMerge::new(labels.clone(), self.oldest, Timestamp::MAX);
        for (source, chunks) in series.chunks {
            let segment = self.sources[source].segment.clone();
            let hidden = Hidden::of(&self.deletes, segment.entry(), (*labels).as_ref());
            merge.add_segment(segment, chunks, hidden);
        }
        self.outputs.values_mut().for_each(|output| output.has_begun = false);
        self.reading = Some(Reading { labels, kind: series.kind, arrival: series.arrival, merge });
    }

    /// Moves some samples of the series at hand; `false` when it has no more.
    async fn write_some(&mut self, reading: &mut Reading<D>) -> Result<bool, MergeError> {
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        let mut warnings = Vec::new();
        let goes_on = reading.merge.next_piece(&mut piece, &mut self.workspace, &mut warnings).await;
        if let Some(error) = warnings.pop() {
            let of = |source: &&Source<D>| error.path() == Some(source.segment.path());
            let id = self.sources.iter().find(of).map_or(0, |source| source.segment.entry().id);
            return Err(MergeError::Unreadable { id, error });
        }
        let mut rest = piece.as_slice();
        while let Some(first) = rest.first() {
            let window = self.windows.around(first.timestamp.millis(), self.now_ms);
            let here = rest.partition_point(|sample| sample.timestamp.millis() <= window.last_ms);
            let (now, later) = rest.split_at(here);
            self.write(window.first_ms, reading, now).await.map_err(MergeError::Unwritable)?;
            rest = later;
        }
        self.piece = piece;
        Ok(goes_on)
    }

    /// Of the label index the segments that are written hold so many bytes together, and a series each at most.
    pub(crate) fn holding_parts_of(self, bytes_max: usize) -> Merge<D> {
        Merge { part_bytes_max: bytes_max, ..self }
    }

    async fn write(
        &mut self,
        window: i64,
        reading: &Reading<D>,
        samples: &[Sample],
    ) -> Result<(), SegmentError> {
        let is_new = !self.outputs.contains_key(&window);
        let part_bytes_max = self.part_bytes_max / (self.outputs.len() + usize::from(is_new));
        if is_new {
            // Those that are there hold as much less: what is more goes to their files.
            for output in self.outputs.values_mut() {
                output.writer.hold_parts_of(part_bytes_max);
                output.writer.end_full_part().await?;
            }
        }
        let output = match self.outputs.entry(window) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let id = (self.next_id)();
                let owner = self.owners.front().copied().unwrap_or(0);
                // A store is of a `u16` of shards.
                let mut writer =
                    SegmentWriter::create(&self.disk, id, owner as u16, self.shards as u16, Heat::Cold)
                        .await?;
                writer.hold_parts_of(part_bytes_max);
                entry.insert(Output { writer, id, has_begun: false })
            }
        };
        if !std::mem::replace(&mut output.has_begun, true) {
            let labels = (*reading.labels).as_ref();
            output.writer.begin_series(labels, reading.kind, reading.arrival).await?;
        }
        output.writer.push(samples).await
    }

    /// Bytes that the segments that are written hold of their label indexes.
    #[cfg(test)]
    pub(super) fn part_bytes(&self) -> usize {
        self.outputs.values().map(|output| output.writer.part_bytes()).sum()
    }

    /// Completes the segments of one owner and opens them again, which checks what was written.
    async fn complete(&mut self, owner: usize) -> Result<(), MergeError> {
        while let Some((_, output)) = self.outputs.pop_first() {
            let opened = self.complete_one(output).await.map_err(MergeError::Unwritable)?;
            debug_assert_eq!(usize::from(opened.entry().shard), owner);
            self.added.push(Rc::new(opened));
        }
        Ok(())
    }

    async fn complete_one(&self, output: Output<D>) -> Result<SegmentReader<D>, SegmentError> {
        let written = output.writer.finish().await?;
        let entries = || self.sources.iter().map(|source| source.segment.entry());
        let newest = entries().map(|entry| entry.newest).max().unwrap_or(0);
        // A delete that is still to be switched in is above all that are known, and not carried out here. Of another
        // count's segments other shards may have deletes that this one does not know yet: they are looked at again.
        let is_foreign = entries().any(|entry| usize::from(entry.shards) != self.shards);
        let carried_out = self.deletes.iter().map(|delete| delete.tombstone.id).filter(|_| !is_foreign);
        let before = entries().map(|entry| entry.deletes_through);
        let before = if is_foreign { before.min() } else { before.max() };
        let deletes_through = carried_out.chain(before).max().unwrap_or(0);
        let named = SegmentEntry { newest, deletes_through, ..written };
        let opened = SegmentReader::open_named(&self.disk, &named).await;
        if opened.is_err() {
            // The error is the one to tell; a file that stays is no harm, no manifest names it.
            let _ = self.disk.remove(&crate::segment::segment_path(output.id)).await;
        }
        opened
    }
}

impl<D: Disk> Merged<D> {
    /// What the manifest is to keep of what was made.
    pub fn entries(&self) -> Vec<SegmentEntry> {
        self.added.iter().map(|segment| *segment.entry()).collect()
    }

    /// The manifest did not take it: removes what was made.
    pub async fn abandon(self, disk: &D) {
        remove(disk, &self.added).await;
    }
}

async fn remove<D: Disk>(disk: &D, segments: &[OpenSegment<D>]) {
    for segment in segments {
        // A file that stays is no harm, no manifest names it.
        let _ = disk.remove(segment.path()).await;
    }
}
