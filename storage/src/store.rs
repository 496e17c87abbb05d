//! The store of one shard: its memtable, the part on its way to disk, its segments, and queries over all.
//!
//! Owner: one executor. Shares come in by its rings; selections go out and look at the memtable between two shares.
//! Always: a sample is in exactly one of memtable, frozen part and segments, and seen there at every moment
//! of a flush; where several sources hold a sample of one series and time the newest counts:
//! late arrivals, memtable, frozen part, newer segment, older segment.
//! Not here: journals and their positions, the manifest, clocks: the caller says when to flush, which
//! segments count and what is too old; how segments become one (`compact.rs`).
//! Read next: `store/select.rs` for queries, `store/walk.rs` for exports, `store/merge.rs` for how sources become one,
//! `store/flush.rs` for the way to disk, `store/stopped.rs` for series that go alone, `store/checkpoint.rs` for what a restart finds, `store/memory.rs` and
//! `store/views.rs` for what keeps both within their bound.

mod checkpoint;
mod flush;
mod memory;
mod merge;
mod select;
mod stopped;
mod summary;
mod views;
mod walk;

#[cfg(test)]
mod tests;

pub use crate::index::Cardinality;
pub use checkpoint::Loaded;
pub use flush::{FlushJob, Flushed};
pub use memory::Memory;
pub(crate) use merge::SeriesMerge;
pub use select::{Piece, SelectedSeries, Selection};
pub use stopped::{NamesOfStopped, Stopped, StoppedNames};
pub use summary::{ChunkSummary, RowSums, Summarised, Told, ToldSeries};
pub use walk::{Place, Walk, WalkPlan, WalkRange, Walked};

use crate::compact::{Merge, OpenSegment, Owner, Windows, choose, choose_to_clean};
use crate::deletes::Delete;
use crate::disk::Disk;
use crate::index::Counting;
use crate::memtable::{Appended, Frozen, Memtable, SeriesId, WatchOf};
use crate::segment::{SegmentEntry, SegmentError, SegmentReader, part_bytes_max};
use model::{Arrival, Sample, SeriesNumber, Share, Timestamp};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use stopped::Forgetting;
use views::Views;

/// Numbers in one dictionary at most; a loop begins a new one long before. An [`Arrival`] has room for them.
pub const SERIES_NUMBERS_MAX: u32 = 1 << 24;

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bytes of memory for samples, the part on its way to disk included, for the tables of series and
    /// for the indexes of segments. A flush is wanted early enough that the next cycle fits beside it; the
    /// caller takes in no more once [`Memory`] says so.
    pub memory_bytes_max: usize,
}

/// See the head of this file.
pub struct Store<D: Disk> {
    disk: D,
    shard: usize,
    shards: usize,
    options: StoreOptions,
    /// Shared with the selections. No borrow lasts longer than a call, and none waits.
    memtable: Rc<RefCell<Memtable>>,
    frozen: Option<Rc<Frozen>>,
    /// Whether a flush of `frozen` is under way; when not, the last one failed.
    flushing: bool,
    /// Freezes so far.
    freezes: u64,
    /// What went to segments by parts since a flush of all or a checkpoint: a start replays it.
    parted_bytes: usize,
    /// Frozen parts that are on disk and that somebody may still read, the oldest first.
    read_on: Vec<ReadOn>,
    views: Views,
    /// By the newest flush in them, the newest last.
    segments: Vec<OpenSegment<D>>,
    /// What the indexes of `segments` take.
    segment_index_bytes: usize,
    deletes: Rc<[Delete]>,
    /// What the manifest names and could not be opened.
    unopened: Vec<SegmentEntry>,
    loops: Vec<Numbers>,
    /// While it goes on.
    forgetting: Option<Forgetting>,
}

/// A part that only selections keep in memory.
struct ReadOn {
    part: Weak<Frozen>,
    /// Freezes when it was frozen, that one included.
    number: u64,
    bytes: usize,
}

/// What the numbers of one loop mean here.
#[derive(Default)]
struct Numbers {
    dictionary: Option<u64>,
    series: Vec<SeriesId>,
}

/// Stands for a number that was never defined.
pub(crate) const NO_SERIES: SeriesId = SeriesId(u32::MAX);

/// What came of a share's samples that are not new ones. Of late ones of series that nobody watches it is told with a
/// later share, or by the flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Were in memory already: same series, time and value.
    pub repeated: u64,
    /// Took the place of another value at their time.
    pub replaced: u64,
    /// Came under a number that no definition named and are not stored: of a loop that keeps its side 0.
    pub unknown: u64,
}

impl<D: Disk> Store<D> {
    /// An empty store of shard `shard` of `shards`. `watch_of` tags each series when it is first met.
    ///
    /// # Panics
    /// If `shard` is not below `shards`, or `shards` is no `u16`.
    pub fn new(disk: D, shard: usize, shards: usize, options: StoreOptions, watch_of: WatchOf) -> Store<D> {
        assert!(shard < shards && shards <= usize::from(u16::MAX));
        Store {
            disk,
            shard,
            shards,
            options,
            memtable: Rc::new(RefCell::new(Memtable::new(watch_of))),
            frozen: None,
            parted_bytes: 0,
            flushing: false,
            freezes: 0,
            read_on: Vec::new(),
            views: Views::default(),
            segments: Vec::new(),
            segment_index_bytes: 0,
            deletes: Rc::default(),
            unopened: Vec::new(),
            loops: Vec::new(),
            forgetting: None,
        }
    }

    /// Opens those of the segments that may hold series of this shard, whatever number of shards wrote
    /// them. A segment that cannot be opened is told and left out; so is every query that would have read it.
    pub async fn open_segments(&mut self, entries: &[SegmentEntry]) -> Vec<SegmentError> {
        let mut refused = Vec::new();
        for entry in entries {
            if !self.may_own_part_of(entry) || self.segments.iter().any(|open| open.entry().id == entry.id) {
                continue;
            }
            match SegmentReader::open_named(&self.disk, entry).await {
                Ok(reader) => self.segments.push(Rc::new(reader)),
                Err(error) => {
                    self.unopened.push(*entry);
                    refused.push(error);
                }
            }
        }
        self.sort_segments();
        refused
    }

    /// Some slot is the other's under its count and ours under ours.
    pub fn may_own_part_of(&self, entry: &SegmentEntry) -> bool {
        let slots = (0..model::SLOTS).filter_map(model::Slot::new);
        let (theirs, count) = (usize::from(entry.shard), usize::from(entry.shards).max(1));
        slots.filter(|slot| slot.owner(count) == theirs).any(|slot| slot.owner(self.shards) == self.shard)
    }

    /// Stores what loop `loop_index` sent; tells `observe` of every sample of a watched series.
    ///
    pub fn apply(
        &mut self,
        loop_index: usize,
        share: &Share,
        observe: &mut impl FnMut(u16, Sample, Appended),
    ) -> Applied {
        self.begin_dictionary(loop_index, share.dictionary);
        let numbers = &mut self.loops[loop_index];
        let memtable = &mut *self.memtable.borrow_mut();
        for (number, kind, labels) in share.definitions() {
            let arrival = Arrival::new(share.stamp, number);
            if let Some(id) = memtable.intern(labels, kind, arrival) {
                numbers.define(number, id);
                if let Some(forgetting) = &mut self.forgetting {
                    forgetting.keep(id);
                }
            }
        }
        let mut applied = Applied::default();
        for (number, sample) in share.samples() {
            let id = numbers.series.get(number.0 as usize).copied().unwrap_or(NO_SERIES);
            match memtable.append(id, sample) {
                Ok((appended, watch)) => {
                    match appended {
                        Appended::New | Appended::Late => {}
                        Appended::Same => applied.repeated += 1,
                        Appended::Replaced { .. } => applied.replaced += 1,
                    }
                    if watch != 0 {
                        observe(watch, sample, appended);
                    }
                }
                Err(_) => applied.unknown += 1,
            }
        }
        let again = memtable.take_came_again();
        applied.repeated += again.repeated;
        applied.replaced += again.replaced;
        applied
    }

    /// Notes which dictionary a loop numbers its series by; the numbers of the one before mean nothing any more.
    /// A share says it too; a loop that stays quiet has to say it by itself, or its old series would stay named.
    pub fn begin_dictionary(&mut self, loop_index: usize, dictionary: u64) {
        if self.loops.len() <= loop_index {
            self.loops.resize_with(loop_index + 1, Numbers::default);
        }
        let numbers = &mut self.loops[loop_index];
        if numbers.dictionary != Some(dictionary) {
            *numbers = Numbers { dictionary: Some(dictionary), series: Vec::new() };
        }
    }

    /// No number means anything any more: replay is over, and every loop begins a dictionary of its own.
    pub fn end_dictionaries(&mut self) {
        self.loops.clear();
    }

    /// By which dictionary a loop's series are named here; `None` when none is.
    pub fn dictionary(&self, loop_index: usize) -> Option<u64> {
        self.loops.get(loop_index).filter(|numbers| !numbers.series.is_empty())?.dictionary
    }

    /// The manifest does not name those of `removed` any more, and what they held that still counts is in `added`: in
    /// one step, so no query sees both or neither. Selections that read the old ones go on.
    ///
    /// What of `added` holds nothing of this shard is left out.
    pub fn replace_segments(&mut self, removed: &[u64], added: &[OpenSegment<D>]) {
        self.segments.retain(|reader| !removed.contains(&reader.entry().id));
        self.unopened.retain(|entry| !removed.contains(&entry.id));
        let ours = added.iter().filter(|reader| self.may_own_part_of(reader.entry()));
        let ours: Vec<_> = ours.cloned().collect();
        self.segments.extend(ours);
        self.sort_segments();
        self.add_deletes(Vec::new());
    }

    /// The manifest names these deletes: selections that begin from now on do not see what they hide. Those that concern
    /// no segment here are forgotten on the way.
    pub fn add_deletes(&mut self, deletes: Vec<Delete>) {
        let known = self.deletes.iter().cloned().chain(deletes);
        let segments = &self.segments;
        let concerns_some =
            |delete: &Delete| segments.iter().any(|segment| delete.tombstone.concerns(segment.entry()));
        self.deletes = known.filter(concerns_some).collect();
    }

    /// Segments that may hold samples which are deleted, as far as their filters tell.
    fn with_deleted(&self) -> BTreeSet<u64> {
        let holds_some = |segment: &&OpenSegment<D>| {
            let mut concerning = self.deletes.iter().filter(|d| d.tombstone.concerns(segment.entry()));
            concerning.any(|delete| segment.may_hold(&delete.required_pairs()))
        };
        self.segments.iter().filter(holds_some).map(|segment| segment.entry().id).collect()
    }

    /// A merge of those of the open segments that are worth it now, if any are: to be carried out step by step, then
    /// switched in. `unmergeable` are left as they are, samples before `oldest` left out.
    pub fn begin_merge(
        &self,
        now_ms: i64,
        oldest: Timestamp,
        windows: &Windows,
        unmergeable: &BTreeSet<u64>,
        next_id: impl FnMut() -> u64 + 'static,
    ) -> Option<Merge<D>> {
        // What cannot be read is left where it is, and its place in the order free.
        let entries: Vec<SegmentEntry> = self.segments().chain(&self.unopened).copied().collect();
        let unopened = self.unopened.iter().map(|entry| entry.id);
        let unmergeable = &unopened.chain(unmergeable.iter().copied()).collect();
        let owner = Owner { shard: self.shard, shards: self.shards };
        let chosen = choose(&entries, owner, now_ms, windows, unmergeable).or_else(|| {
            choose_to_clean(&entries, owner, &self.with_deleted(), unmergeable).map(|one| vec![one])
        })?;
        let is_chosen = |reader: &&OpenSegment<D>| chosen.iter().any(|entry| entry.id == reader.entry().id);
        let segments = self.segments.iter().filter(is_chosen).cloned().collect();
        let owner = (self.shard, self.shards);
        let deletes = self.deletes.clone();
        let windows = (windows.clone(), now_ms);
        let merge = Merge::new(self.disk.clone(), segments, owner, deletes, windows, oldest, next_id);
        Some(merge.holding_parts_of(part_bytes_max(self.options.memory_bytes_max)))
    }

    /// A merge of one segment that may hold what is deleted, however large: [`Self::begin_merge`] leaves large ones to
    /// their next merge. None when there is none.
    pub fn begin_clean(
        &self,
        now_ms: i64,
        oldest: Timestamp,
        windows: &Windows,
        unmergeable: &BTreeSet<u64>,
        next_id: impl FnMut() -> u64 + 'static,
    ) -> Option<Merge<D>> {
        let with_deleted = self.with_deleted();
        let is_ours = |reader: &&OpenSegment<D>| {
            let entry = reader.entry();
            usize::from(entry.shards) == self.shards
                && with_deleted.contains(&entry.id)
                && !unmergeable.contains(&entry.id)
        };
        let smallest = self.segments.iter().filter(is_ours).min_by_key(|reader| reader.entry().bytes)?;
        let (owner, windows) = ((self.shard, self.shards), (windows.clone(), now_ms));
        let segments = vec![smallest.clone()];
        let deletes = self.deletes.clone();
        let merge = Merge::new(self.disk.clone(), segments, owner, deletes, windows, oldest, next_id);
        Some(merge.holding_parts_of(part_bytes_max(self.options.memory_bytes_max)))
    }

    /// Segments that may hold what is deleted, those included that cannot be opened or are of another number of shards.
    pub fn with_deleted_count(&self) -> usize {
        let is_concerned =
            |entry: &&SegmentEntry| self.deletes.iter().any(|delete| delete.tombstone.concerns(entry));
        self.with_deleted().len() + self.unopened.iter().filter(is_concerned).count()
    }

    /// Segments, their bytes and samples, of those that this shard is the one to tell of.
    pub fn told_segments(&self) -> impl Iterator<Item = (&SegmentEntry, u64)> {
        let is_ours = |entry: &SegmentEntry| usize::from(entry.shard) % self.shards == self.shard;
        let all = self.segments.iter().map(|reader| (reader.entry(), reader.sample_count()));
        all.filter(move |(entry, _)| is_ours(entry))
    }

    /// The open segments, the newest last.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentEntry> {
        self.segments.iter().map(|reader| reader.entry())
    }

    /// Series in the memtable's table.
    pub fn series_count(&self) -> usize {
        self.memtable.borrow().series_count()
    }

    /// Series met so far, one that was forgotten and came again counted again.
    pub fn arrivals(&self) -> u64 {
        self.memtable.borrow().arrivals()
    }

    /// From now on it is known which metric names have so many series or more.
    pub fn limit_names(&self, max: usize) {
        self.memtable.borrow_mut().limit_names(max);
    }

    /// Which names these are, if they are others than when this was last asked.
    pub fn full_names(&self) -> Option<BTreeSet<Box<str>>> {
        self.memtable.borrow_mut().full_names()
    }

    /// Begins to count which names, labels and pairs have the most series in the table.
    pub fn count_cardinality(&self) -> CardinalityCount {
        let counting = Some(self.memtable.borrow().count());
        CardinalityCount { memtable: self.memtable.clone(), counting, done: Cardinality::default(), rows: 0 }
    }

    /// Samples in memory, the part on its way to disk included.
    pub fn memtable_samples(&self) -> u64 {
        self.memtable.borrow().sample_count() + self.frozen.as_ref().map_or(0, |frozen| frozen.sample_count())
    }

    /// Pieces of one merge are equally new, and lie apart in time or in slots.
    fn sort_segments(&mut self) {
        self.segments.sort_by_key(|reader| (reader.entry().newest, reader.entry().id));
        self.segment_index_bytes = self.segments.iter().map(|reader| reader.memory_bytes()).sum();
    }
}

/// A count of names, labels and pairs that is under way. Whoever counts may do other work between two steps.
pub struct CardinalityCount {
    memtable: Rc<RefCell<Memtable>>,
    /// Until all values are counted.
    counting: Option<Counting>,
    /// What was counted of the rows so far, and of how many.
    done: Cardinality,
    rows: usize,
}

/// Rows whose samples are looked at in one step.
const ROWS_PER_STEP: usize = 2048;

impl CardinalityCount {
    /// Counts some thousand values or series, a few tenths of a millisecond; `false` when all are counted.
    pub fn step(&mut self) -> bool {
        let memtable = self.memtable.borrow();
        if let Some(counting) = &mut self.counting {
            if !memtable.count_some(counting)
                && let Some(counting) = self.counting.take()
            {
                self.done = counting.end();
            }
            return true;
        }
        let more = memtable.count_samples(self.rows, ROWS_PER_STEP, &mut self.done);
        self.rows += ROWS_PER_STEP;
        more
    }

    /// What was counted, once [`Self::step`] says that all is.
    pub fn end(self) -> Cardinality {
        self.done
    }
}

impl Numbers {
    fn define(&mut self, number: SeriesNumber, id: SeriesId) {
        if number.0 >= SERIES_NUMBERS_MAX {
            return;
        }
        let at = number.0 as usize;
        if self.series.len() <= at {
            self.series.resize(at + 1, NO_SERIES);
        }
        self.series[at] = id;
    }
}
