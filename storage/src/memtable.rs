//! The memtable: every series of a shard with what arrived since the last flush, ready to be queried.
//!
//! Owner: one executor; nothing here crosses cores. Its readers hold shared, immutable pieces.
//! Always: a series is one label set, compared by bytes; a sample that is later than all before it costs
//! one comparison and an append; of two samples with one time the newer counts; every byte is accounted.
//! Not here: label to series (`index`), which shard owns a series, numbers that loops give (`store`), files (`segment`), clocks.
//! Read next: `memtable/series.rs` for the samples of one series, `memtable/late.rs` for those that came late,
//! `memtable/labels.rs` for its labels, `memtable/append.rs` for the way in, `memtable/read.rs` for what a query sees,
//! `memtable/seal.rs` for what a flush takes away, `memtable/stopped.rs` for series that no longer get samples,
//! `memtable/image.rs` for what a checkpoint puts down.

mod append;
mod image;
mod labels;
mod late;
mod names;
mod read;
mod seal;
mod series;
mod stopped;
mod walk;

#[cfg(test)]
mod tests;

pub use append::{Appended, UnknownSeries};
pub(crate) use image::{Cut, ImageCursor};
pub use labels::RowLabels;
pub use late::CameAgain;
pub use read::{SeriesRef, View};
pub use seal::{Frozen, FrozenSeries};
pub use series::{SeriesSlice, SliceExtent};
use stopped::Heard;
pub use stopped::Silence;

use crate::index::Index;
use hashbrown::HashTable;
use labels::Shapes;
use late::TailPool;
use model::{Arrival, LabelSetRef, MetricKind, SeriesHash};
use names::NameLimit;
use seal::NextFreeze;
use series::{AllLate, SeriesSamples};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// A series within one memtable. It is valid until the series is dropped, which happens only to series
/// without a sample that the caller does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// Says which watchers (rules) look at a series, by its label set; 0 for none. Asked once per series.
pub type WatchOf = Box<dyn Fn(LabelSetRef<'_>) -> u16>;

/// See the head of this file.
pub struct Memtable {
    /// By id. A hole is an id that waits in `free` or was never given again.
    series: Vec<Option<Series>>,
    by_labels: HashTable<SeriesId>,
    shapes: Shapes,
    index: Index,
    /// Unless names may have any number of series.
    name_limit: Option<NameLimit>,
    watch_of: WatchOf,
    /// Dropped ids, the lowest first: the rows at the end become free and go.
    free: BinaryHeap<Reverse<SeriesId>>,
    /// Series ever met.
    arrivals: u64,
    /// How often series were dropped.
    clearings: u32,
    /// How often the samples were taken away, of all series or of some.
    freezes: u64,
    /// What a sample of now leaves in its row.
    tick: Heard,
    series_count: usize,
    /// Series with a sample.
    active_count: usize,
    /// Of labels, tables and index, without the rows.
    series_bytes: usize,
    /// What the series took that were met since the last freeze.
    fresh_bytes: usize,
    fresh_bytes_before: usize,
    sample_bytes: usize,
    sample_count: u64,
    late: AllLate,
    /// Where the next freeze leaves its samples for whoever holds a view by then.
    next_freeze: NextFreeze,
}

/// One row of the series table.
struct Series {
    samples: SeriesSamples,
    labels: RowLabels,
    hash: SeriesHash,
    arrival: Arrival,
    /// Clearings before it was met. Ids are given again, but only after a clearing.
    met_in: u32,
    watch: u16,
    kind: MetricKind,
    heard: Heard,
}

/// Freezes without a sample after which a series that nobody keeps is dropped.
const IDLE_CYCLES_MAX: u8 = 2;
/// What a series costs beside its row and its labels: its place in a hash table that is two thirds full.
const SERIES_BYTES: usize = 8;

impl Memtable {
    /// An empty memtable. `watch_of` tags each series when it is first met.
    pub fn new(watch_of: WatchOf) -> Memtable {
        Memtable {
            series: Vec::new(),
            by_labels: HashTable::new(),
            shapes: Shapes::default(),
            index: Index::default(),
            name_limit: None,
            watch_of,
            free: BinaryHeap::new(),
            arrivals: 0,
            clearings: 0,
            freezes: 0,
            tick: Heard::default(),
            series_count: 0,
            active_count: 0,
            series_bytes: 0,
            fresh_bytes: 0,
            fresh_bytes_before: 0,
            sample_bytes: 0,
            sample_count: 0,
            late: AllLate::default(),
            next_freeze: Rc::default(),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        let watch_of = std::mem::replace(&mut self.watch_of, Box::new(|_| 0));
        *self = Memtable::new(watch_of);
    }

    /// The series of that label set, made if it is new. The kind said last is kept, and the earliest arrival.
    ///
    /// `None` when all 2³² - 1 ids are in use.
    pub fn intern(
        &mut self,
        labels: LabelSetRef<'_>,
        kind: MetricKind,
        arrival: Arrival,
    ) -> Option<SeriesId> {
        let hash = labels.hash();
        if let Some(id) = self.find_labels(labels, hash) {
            if let Some(row) = &mut self.series[id.0 as usize] {
                row.kind = kind;
                row.arrival = row.arrival.min(arrival);
            }
            return Some(id);
        }
        let id = self.add_row(labels, hash, kind, arrival)?;
        let series = &self.series;
        self.by_labels.insert_unique(hash_key(hash), id, |id| key_of(series, *id));
        let bytes = self.index.insert(labels, id.0);
        self.series_bytes += bytes;
        self.fresh_bytes += bytes;
        self.count_name(labels.name());
        Some(id)
    }

    fn find_labels(&self, labels: LabelSetRef<'_>, hash: SeriesHash) -> Option<SeriesId> {
        let same = |id: &SeriesId| self.row(*id).is_some_and(|row| row.hash == hash && row.labels.is(labels));
        self.by_labels.find(hash_key(hash), same).copied()
    }

    /// A row for a label set that has none; neither the index nor the table of label sets knows of it yet.
    fn add_row(
        &mut self,
        labels: LabelSetRef<'_>,
        hash: SeriesHash,
        kind: MetricKind,
        arrival: Arrival,
    ) -> Option<SeriesId> {
        let id = self.take_id()?;
        let (row_labels, bytes) = self.shapes.keep(labels);
        let bytes = SERIES_BYTES + bytes;
        self.series[id.0 as usize] = Some(Series {
            samples: SeriesSamples::default(),
            labels: row_labels,
            hash,
            arrival,
            met_in: self.clearings,
            watch: (self.watch_of)(labels),
            kind,
            heard: self.tick,
        });
        self.arrivals += 1;
        self.series_count += 1;
        self.series_bytes += bytes;
        self.fresh_bytes += bytes + ROW_BYTES;
        Some(id)
    }

    fn take_id(&mut self) -> Option<SeriesId> {
        if let Some(Reverse(id)) = self.free.pop() {
            return Some(id);
        }
        let id = u32::try_from(self.series.len()).ok().filter(|&id| id != u32::MAX)?;
        self.series.push(None);
        Some(SeriesId(id))
    }

    /// The label set of a series.
    pub fn labels(&self, id: SeriesId) -> Option<&RowLabels> {
        self.row(id).map(|row| &row.labels)
    }

    fn row(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(id.0 as usize)?.as_ref()
    }

    /// Series in the table, idle ones included.
    pub fn series_count(&self) -> usize {
        self.series_count
    }

    /// The hashes of the series in the table.
    pub fn series_hashes(&self) -> impl Iterator<Item = SeriesHash> {
        self.series.iter().flatten().map(|row| row.hash)
    }

    /// Series without a sample since the last freeze.
    pub fn idle_count(&self) -> usize {
        self.series_count - self.active_count
    }

    /// Series met since the memtable was made, one that was dropped and came again counted again.
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Samples since the last freeze. Late ones that came again count until that has turned out; where series that have
    /// stopped left with samples of theirs that were told to replace others, by estimate.
    pub fn sample_count(&self) -> u64 {
        self.sample_count.saturating_sub(self.late.again.count())
    }

    /// Whether there is one since the last freeze.
    pub fn has_samples(&self) -> bool {
        self.active_count > 0
    }

    /// Bytes of memory that a freeze takes away; the first bytes of a series' samples lie in its row, which stays.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes
    }

    /// Bytes of memory that a freeze leaves: rows, labels, tables and index, the tables by estimate.
    pub fn table_bytes(&self) -> usize {
        self.series.len() * ROW_BYTES + self.series_bytes
    }

    /// Bytes of the table that series took which were met since the last freeze.
    pub fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// The same of the time between the last freeze and the one before.
    pub fn fresh_bytes_before(&self) -> usize {
        self.fresh_bytes_before
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.table_bytes() + self.sample_bytes
    }
}

const ROW_BYTES: usize = size_of::<Option<Series>>();

/// What a series is found by, in the table of label sets.
fn key_of(series: &[Option<Series>], id: SeriesId) -> u64 {
    series[id.0 as usize].as_ref().map_or(0, |row| hash_key(row.hash))
}

/// 64 of the 128 bits; they are spread well already.
fn hash_key(hash: SeriesHash) -> u64 {
    (hash.0 >> 64) as u64
}
