//! What a flush takes: the samples of all series, while the table of series stays.

use super::series::SeriesSamples;
use super::{IDLE_CYCLES_MAX, Memtable, SeriesId, SeriesSlice, series_bytes};
use model::{LabelSet, MetricKind, SeriesHash, Timestamp};
use std::rc::Rc;

/// The samples of one cycle, immutable, on their way into a segment and queried meanwhile.
#[derive(Debug, Default)]
pub struct Frozen {
    /// Ids rising.
    series: Vec<FrozenSeries>,
    bytes: usize,
    sample_count: u64,
}

/// One series of a [`Frozen`]; it has at least one sample.
#[derive(Debug)]
pub struct FrozenSeries {
    id: SeriesId,
    hash: SeriesHash,
    labels: Rc<LabelSet>,
    kind: MetricKind,
    samples: SeriesSamples,
}

impl Memtable {
    /// Takes away every sample, of idle series too, so that no quiet series holds a journal back.
    ///
    /// Ids stay valid, but for series without a sample in this and the previous cycle that `keep` does not
    /// claim: those are dropped with their labels, or churn would fill the memory. A dropped series has no
    /// sample in the frozen part, so whoever selects by the table misses none of it as long as there is
    /// one frozen part at a time.
    pub fn freeze(&mut self, keep: impl Fn(SeriesId) -> bool) -> Frozen {
        let mut frozen = Frozen {
            series: Vec::with_capacity(self.series_count),
            bytes: std::mem::take(&mut self.sample_bytes),
            sample_count: std::mem::take(&mut self.sample_count),
        };
        self.cycle += 1;
        let mut dropped: Vec<(SeriesId, Rc<LabelSet>)> = Vec::new();
        for (index, place) in self.series.iter_mut().enumerate() {
            let id = SeriesId(index as u32);
            let Some(row) = place else { continue };
            if !row.samples.is_empty() {
                frozen.series.push(FrozenSeries {
                    id,
                    hash: row.hash,
                    labels: row.labels.clone(),
                    kind: row.kind,
                    samples: std::mem::take(&mut row.samples),
                });
                continue;
            }
            row.idle_cycles = row.idle_cycles.saturating_add(1);
            if row.idle_cycles >= IDLE_CYCLES_MAX && !keep(id) {
                if let Ok(entry) = self.by_labels.find_entry(super::hash_key(row.hash), |other| *other == id)
                {
                    entry.remove();
                }
                dropped.push((id, row.labels.clone()));
                self.free.push_back((self.cycle, id));
                *place = None;
            }
        }
        frozen.series.shrink_to_fit();
        self.forget(&dropped);
        frozen
    }

    fn forget(&mut self, dropped: &[(SeriesId, Rc<LabelSet>)]) {
        if dropped.is_empty() {
            return;
        }
        let rows: usize = dropped.iter().map(|(_, labels)| series_bytes((**labels).as_ref())).sum();
        let freed = rows + self.postings.remove(dropped);
        self.series_bytes = self.series_bytes.saturating_sub(freed);
        self.series_count -= dropped.len();
    }
}

impl Frozen {
    /// The series with samples, ids rising.
    pub fn series(&self) -> &[FrozenSeries] {
        &self.series
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Samples, one of several with the same time counted once.
    pub fn sample_count(&self) -> u64 {
        self.sample_count
    }

    /// What a series has from `start` to `end`, both included.
    pub fn slice(&self, id: SeriesId, start: Timestamp, end: Timestamp) -> SeriesSlice {
        match self.series.binary_search_by_key(&id, |series| series.id) {
            Ok(at) => self.series[at].samples.slice(start, end),
            Err(_) => SeriesSlice::default(),
        }
    }
}

impl FrozenSeries {
    /// The hash of the label set.
    pub fn hash(&self) -> SeriesHash {
        self.hash
    }

    /// The label set.
    pub fn labels(&self) -> &Rc<LabelSet> {
        &self.labels
    }

    /// What the client called it.
    pub fn kind(&self) -> MetricKind {
        self.kind
    }

    /// All samples.
    pub fn slice(&self) -> SeriesSlice {
        self.samples.slice(Timestamp::MIN, Timestamp::MAX)
    }
}
