//! The way in: one sample to its series.

use super::{CameAgain, Memtable, SeriesId};
use model::Sample;
use std::fmt;

/// What a sample did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Appended {
    /// It is a sample more. Also said of one whose time only a flushed chunk holds: looking there would
    /// cost a read, so the newer source wins when both are read.
    New,
    /// It came late, to a series that nobody watches. Whether its time was there is told later, as [`CameAgain`]: by a
    /// further append that has late samples sorted, or when what was frozen is written.
    Late,
    /// The same series, time and value were there: stored once.
    Same,
    /// Another value was there for this time and counts no more.
    Replaced {
        /// That value.
        old: f64,
    },
}

/// No series has this id: it was dropped, or never given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSeries(pub SeriesId);

impl fmt::Display for UnknownSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no series has the id {}", self.0.0)
    }
}

impl std::error::Error for UnknownSeries {}

impl Memtable {
    /// Adds a sample and says what it did, with the series' watch tag.
    ///
    /// Later than all of its series: a comparison and a few bits. Earlier: put beside the chunks, in whatever order they
    /// come; in a series that is watched it is looked up before, about a microsecond at worst and a logarithm of the
    /// late samples.
    #[inline]
    pub fn append(&mut self, id: SeriesId, sample: Sample) -> Result<(Appended, u16), UnknownSeries> {
        let Some(Some(row)) = self.series.get_mut(id.0 as usize) else {
            return Err(UnknownSeries(id));
        };
        row.heard = self.tick;
        self.active_count += usize::from(row.samples.is_empty());
        let is_watched = row.watch != 0;
        let appended = row.samples.append(sample, is_watched, &mut self.sample_bytes, &mut self.late);
        self.sample_count += u64::from(matches!(appended, Appended::New | Appended::Late));
        Ok((appended, row.watch))
    }

    /// Of which samples it has turned out, since this was last asked, that they had come again.
    pub fn take_came_again(&mut self) -> CameAgain {
        let again = std::mem::take(&mut self.late.again);
        self.sample_count = self.sample_count.saturating_sub(again.count());
        again
    }
}
