//! What a query sees: the series that it may mean, and what they held at one moment.
//!
//! A query looks at series one after the other while the memtable goes on. A [`View`] fixes a moment in a few
//! words: samples that were there then are found as long as the view lives, in the table or, once they were
//! frozen, in the frozen part, which the view then holds: the last of a row of them, where those before were of some
//! series only. An id may stand for another series by then, one that was
//! met after a clearing that the view did not see.

use super::seal::NextFreeze;
use super::{
    CameAgain, Frozen, Memtable, RowLabels, SeriesId, SeriesSamples, SeriesSlice, SliceExtent, TailPool,
};
use crate::index::{Cardinality, Counting, Search};
use model::{Arrival, Matcher, MetricKind, SeriesHash, Timestamp};
use std::cell::OnceCell;
use std::rc::Rc;

/// A moment of a memtable; see the head of this file.
#[derive(Debug, Default)]
pub struct View {
    /// Clearings by then.
    clearings: u32,
    /// Set by the first freeze that follows.
    frozen: NextFreeze,
}

/// One series, in the table or in a frozen part.
#[derive(Clone, Copy)]
pub struct SeriesRef<'a> {
    /// The label set.
    pub labels: &'a RowLabels,
    /// Its hash.
    pub hash: SeriesHash,
    /// What the client called it, last.
    pub kind: MetricKind,
    /// When it first arrived.
    pub arrival: Arrival,
    pub(super) met_in: u32,
    pub(super) samples: &'a SeriesSamples,
    pub(super) pool: &'a TailPool,
}

impl Memtable {
    /// This moment. As long as somebody holds it, the samples of now stay in memory.
    pub fn view(&self) -> View {
        View { clearings: self.clearings, frozen: self.next_freeze.clone() }
    }

    /// Begins to find the series that meet all matchers now; [`Self::search_some`] goes on.
    pub(crate) fn search(&self, matchers: &[Matcher]) -> Search {
        self.index.search(matchers)
    }

    /// Does some of a search that began at the moment of `view`; `false` when it is over.
    pub(crate) fn search_some(&self, search: &mut Search, view: &View) -> bool {
        if self.clearings != view.clearings {
            search.stop();
        }
        search.step(&self.index)
    }

    /// Begins to count which names, labels and pairs have the most series; [`Self::count_some`] goes on.
    pub(crate) fn count(&self) -> Counting {
        self.index.begin_count()
    }

    /// Counts some more; `false` when all is counted.
    pub(crate) fn count_some(&self, counting: &mut Counting) -> bool {
        counting.step(&self.index)
    }

    /// Adds what the rows from `row` on hold, at most so many rows of them; `false` when there are none behind.
    pub(crate) fn count_samples(&self, row: usize, rows: usize, counted: &mut Cardinality) -> bool {
        for row in self.series.iter().skip(row).take(rows).flatten() {
            counted.chunks += row.samples.chunk_count() as u64;
            if let Some((first, last)) = row.samples.range(&self.late.pool) {
                counted.add_range(first.millis(), last.millis());
            }
        }
        row + rows < self.series.len()
    }

    /// The series that has this id now.
    pub fn find(&self, id: SeriesId) -> Option<SeriesRef<'_>> {
        self.row(id).map(|row| SeriesRef {
            labels: &row.labels,
            hash: row.hash,
            kind: row.kind,
            arrival: row.arrival,
            met_in: row.met_in,
            samples: &row.samples,
            pool: &self.late.pool,
        })
    }
}

impl View {
    /// Whether a series that has now the id of one that was there at that moment is that one.
    pub fn holds(&self, series: &SeriesRef<'_>) -> bool {
        series.met_in <= self.clearings
    }

    /// The samples of that moment: in a frozen part if they were taken away since, else `in_table`, which is what the
    /// table holds under this id.
    pub fn find<'a>(&'a self, id: SeriesId, in_table: Option<SeriesRef<'a>>) -> Option<SeriesRef<'a>> {
        let mut next = &self.frozen;
        while let Some(part) = next.get() {
            let found = part.find(id).filter(|series| self.holds(series));
            match &part.next {
                // What the table holds of it came after the moment.
                _ if found.is_some() => return found,
                None => return None,
                Some(behind) => next = behind,
            }
        }
        in_table
    }

    /// Keeps nothing in memory any more, and finds no frozen part; what [`Self::holds`] stays. If nobody else can ask
    /// for the samples that it kept, they are given, to be let go of.
    pub fn let_go(&mut self) -> Vec<Frozen> {
        let mut given = Vec::new();
        let mut next = Some(std::mem::take(&mut self.frozen));
        while let Some(mut part) =
            next.and_then(Rc::into_inner).and_then(OnceCell::into_inner).and_then(Rc::into_inner)
        {
            next = part.next.take();
            given.push(part);
        }
        given
    }
}

impl SeriesRef<'_> {
    /// Whether it meets all matchers.
    pub fn meets(&self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|matcher| self.labels.meet(matcher))
    }

    /// What [`Self::slice`] would hold. It costs an addition for each chunk.
    pub fn extent(&self, start: Timestamp, end: Timestamp) -> SliceExtent {
        self.samples.extent(start, end, self.pool)
    }

    /// What it has from `start` to `end`, both included, unmoved by whatever is appended later.
    pub fn slice(&self, start: Timestamp, end: Timestamp) -> SeriesSlice {
        self.samples.slice(start, end, self.pool, &mut CameAgain::default())
    }
}
