//! What a flush takes: the samples of all series, while the table of series stays; and what leaves the table.

use super::series::{AllLate, SeriesSamples};
use super::{
    CameAgain, IDLE_CYCLES_MAX, Memtable, RowLabels, SERIES_BYTES, SeriesId, SeriesRef, SeriesSlice,
};
use model::{Arrival, MetricKind, SeriesHash, Timestamp};
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::rc::Rc;

/// The samples of one cycle, or of some of its series, immutable, on their way into a segment and queried meanwhile.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Ids rising.
    pub(super) series: Vec<FrozenSeries>,
    pub(super) bytes: usize,
    pub(super) sample_count: u64,
    /// Of the labels, where the series leave the table as soon as this is written.
    pub(super) label_bytes: usize,
    /// Those of all series.
    late: AllLate,
    forgotten: Vec<SeriesHash>,
    /// Of some series only: where the freeze after it leaves what it takes.
    pub(super) next: Option<NextFreeze>,
}

/// Where a freeze leaves its samples for whoever holds a view by then.
pub(super) type NextFreeze = Rc<OnceCell<Rc<Frozen>>>;

/// One series of a [`Frozen`]; it has at least one sample.
#[derive(Debug)]
pub struct FrozenSeries {
    id: SeriesId,
    hash: SeriesHash,
    labels: RowLabels,
    kind: MetricKind,
    arrival: Arrival,
    met_in: u32,
    samples: SeriesSamples,
}

/// What a series takes until its samples are on disk: its place here, and its place in the order while the segment is
/// written, twice, in lists that may have grown to twice their length.
pub(super) const FROZEN_SERIES_BYTES: usize = size_of::<FrozenSeries>() + 3 * size_of::<&FrozenSeries>();

/// A row that was taken out of the table.
struct Dropped {
    id: SeriesId,
    hash: SeriesHash,
    labels: RowLabels,
}

/// Allocations freed in one step of [`Frozen::let_go`], some 0.1 ms.
const LET_GO_WORK: usize = 2048;

impl Memtable {
    /// Takes away every sample, of idle series too, so that no quiet series holds a journal back.
    ///
    /// Ids stay valid, but for series without a sample in this and the previous cycle that `keep` does not
    /// claim: those are dropped with their labels, or churn would fill the memory. A dropped series has no
    /// sample in the frozen part, so whoever selects by the table misses none of it as long as there is
    /// one frozen part at a time. Views that were taken before find their samples in the frozen part.
    pub fn freeze(&mut self, keep: impl Fn(SeriesId) -> bool) -> Rc<Frozen> {
        let again = self.late.again;
        let mut frozen = Frozen {
            series: Vec::with_capacity(self.active_count),
            bytes: std::mem::take(&mut self.sample_bytes) + self.active_count * FROZEN_SERIES_BYTES,
            sample_count: self.sample_count(),
            label_bytes: 0,
            late: AllLate { again: CameAgain::default(), ..std::mem::take(&mut self.late) },
            forgotten: Vec::new(),
            next: None,
        };
        for (index, place) in self.series.iter_mut().enumerate() {
            let Some(row) = place else { continue };
            if row.samples.is_empty() {
                row.heard.found_idle();
                continue;
            }
            frozen.series.push(row.freeze(SeriesId(index as u32)));
        }
        self.active_count = 0;
        // What nobody has been told of is told yet.
        self.late.again = again;
        self.sample_count = again.count();
        self.freezes += 1;
        self.fresh_bytes_before = std::mem::take(&mut self.fresh_bytes);
        frozen.forgotten = self.forget(IDLE_CYCLES_MAX, keep);
        let frozen = Rc::new(frozen);
        let views = std::mem::take(&mut self.next_freeze);
        // Nobody else sets it, and this one has left the table.
        let _ = views.set(frozen.clone());
        frozen
    }

    /// Drops the series without a sample since the last freeze that `keep` does not claim; returns their hashes.
    ///
    /// Only while no frozen part is on its way: a series that had been dropped would not be found there.
    pub fn forget_idle(&mut self, keep: impl Fn(SeriesId) -> bool) -> Vec<SeriesHash> {
        self.forget(0, keep)
    }

    /// The same of those of the series alone, and [`Self::give_back`] stays to be done: a step of it. Ids of other series, or
    /// of none, do no harm.
    pub fn forget_some(
        &mut self,
        ids: impl IntoIterator<Item = SeriesId>,
        keep: impl Fn(SeriesId) -> bool,
    ) -> Vec<SeriesHash> {
        let dropped = ids.into_iter().filter_map(|id| self.take_idle(id, 0, &keep)).collect();
        self.let_go_of(dropped)
    }

    /// Drops series without a sample now and in so many freezes before.
    fn forget(&mut self, idle_cycles: u8, keep: impl Fn(SeriesId) -> bool) -> Vec<SeriesHash> {
        let ids = (0..self.id_end()).map(SeriesId);
        let dropped: Vec<_> = ids.filter_map(|id| self.take_idle(id, idle_cycles, &keep)).collect();
        let is_any = !dropped.is_empty();
        let hashes = self.let_go_of(dropped);
        if is_any {
            self.give_back();
        }
        hashes
    }

    /// Takes a row out, if it is idle for so long; neither the index nor the list of free ids knows of it yet.
    fn take_idle(
        &mut self,
        id: SeriesId,
        idle_cycles: u8,
        keep: &impl Fn(SeriesId) -> bool,
    ) -> Option<Dropped> {
        let is_idle = |row: &mut super::Series| {
            row.samples.is_empty() && row.heard.idle_cycles() >= idle_cycles && !keep(id)
        };
        let row = self.series.get_mut(id.0 as usize)?.take_if(is_idle)?;
        if let Ok(entry) = self.by_labels.find_entry(super::hash_key(row.hash), |other| *other == id) {
            entry.remove();
        }
        Some(Dropped { id, hash: row.hash, labels: row.labels })
    }

    fn let_go_of(&mut self, dropped: Vec<Dropped>) -> Vec<SeriesHash> {
        if dropped.is_empty() {
            return Vec::new();
        }
        self.clearings += 1;
        let labels: usize = dropped.iter().map(|row| SERIES_BYTES + row.labels.bytes()).sum();
        let freed = labels + self.index.remove(dropped.iter().map(|row| (row.id.0, row.labels.pairs())));
        self.series_bytes = self.series_bytes.saturating_sub(freed);
        self.series_count -= dropped.len();
        self.recount_names();
        self.free.extend(dropped.iter().map(|row| Reverse(row.id)));
        dropped.into_iter().map(|row| row.hash).collect()
    }

    /// What series that were dropped have left goes back to the allocator, names and tables.
    pub fn give_back(&mut self) {
        self.series_bytes = self.series_bytes.saturating_sub(self.shapes.give_back());
        self.give_back_tables();
    }

    /// What a storm of series has left of the tables goes back to the allocator.
    fn give_back_tables(&mut self) {
        let used = self.series.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.series.truncate(used);
        self.free.retain(|Reverse(id)| (id.0 as usize) < used);
        if used < self.series.capacity() / 4 {
            self.series.shrink_to_fit();
            self.free.shrink_to_fit();
        }
        if self.series_count < self.by_labels.capacity() / 4 {
            let series = &self.series;
            self.by_labels.shrink_to_fit(|id| super::key_of(series, *id));
        }
    }
}

impl super::Series {
    /// Takes its samples away.
    pub(super) fn freeze(&mut self, id: SeriesId) -> FrozenSeries {
        FrozenSeries {
            id,
            hash: self.hash,
            labels: self.labels.clone(),
            kind: self.kind,
            arrival: self.arrival,
            met_in: self.met_in,
            samples: std::mem::take(&mut self.samples),
        }
    }
}

impl Frozen {
    /// The series with samples, ids rising.
    pub fn series(&self) -> &[FrozenSeries] {
        &self.series
    }

    /// Whether it holds some of the series only, which the others were left out of.
    pub fn is_part(&self) -> bool {
        self.next.is_some()
    }

    /// Bytes of memory held, and what writing it to a segment takes beside.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the labels of series that leave the table once it is written: whoever reads it on keeps those, too.
    pub(crate) fn label_bytes(&self) -> usize {
        self.label_bytes
    }

    /// The hashes of the series that this freeze dropped from the table.
    pub fn forgotten(&self) -> &[SeriesHash] {
        &self.forgotten
    }

    /// Samples; one of which has not yet turned out that it came again counts too.
    pub fn sample_count(&self) -> u64 {
        self.sample_count
    }

    /// So many of its late samples were told to have replaced one of a chunk: both are in it, and count once.
    pub(super) fn tell(&mut self, told: u64) {
        self.late.told = told;
        self.sample_count = self.sample_count.saturating_sub(told);
    }

    /// Late samples of which it was told, when they came, that they replaced one of a chunk.
    pub(crate) fn told(&self) -> u64 {
        self.late.told
    }

    /// The series that had this id, if it had a sample.
    pub fn find(&self, id: SeriesId) -> Option<SeriesRef<'_>> {
        let at = self.series.binary_search_by_key(&id, |series| series.id).ok()?;
        let FrozenSeries { hash, labels, kind, arrival, met_in, samples, .. } = &self.series[at];
        let (hash, kind, arrival, met_in, pool) = (*hash, *kind, *arrival, *met_in, &self.late.pool);
        Some(SeriesRef { labels, hash, kind, arrival, met_in, samples, pool })
    }

    /// All samples of a series that is one of its own; `again` hears of late ones of which it turns out that they had come
    /// again, to one that was late too.
    pub(crate) fn slice(&self, series: &FrozenSeries, again: &mut CameAgain) -> SeriesSlice {
        series.samples.slice(Timestamp::MIN, Timestamp::MAX, &self.late.pool, again)
    }

    /// Lets go of some of the series, none of which will be asked for any more; `false` when none is left. At
    /// once it would take tens of milliseconds.
    pub fn let_go(&mut self) -> bool {
        let mut work = 0;
        while work < LET_GO_WORK {
            let Some(series) = self.series.pop() else { return false };
            work += series.samples.pieces();
        }
        true
    }
}

impl FrozenSeries {
    /// The hash of the label set.
    pub fn hash(&self) -> SeriesHash {
        self.hash
    }

    /// The label set.
    pub fn labels(&self) -> &RowLabels {
        &self.labels
    }

    /// What the client called it.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// When the series first arrived.
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }
}
