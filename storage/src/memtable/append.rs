//! The way in: one sample to its series.

use super::{Memtable, SeriesId};
use model::Sample;
use std::fmt;

/// What a sample did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Appended {
    /// It is a sample more. Also said of one whose time only a flushed chunk holds: looking there would
    /// cost a read, so the newer source wins when both are read.
    New,
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
    /// Later than all of its series: a comparison and a few bits. Earlier: looked up, about a microsecond
    /// at worst and a logarithm of the late samples, in whatever order they come.
    #[inline]
    pub fn append(&mut self, id: SeriesId, sample: Sample) -> Result<(Appended, u16), UnknownSeries> {
        let Some(Some(row)) = self.series.get_mut(id.0 as usize) else {
            return Err(UnknownSeries(id));
        };
        row.idle_cycles = 0;
        self.active_count += usize::from(row.samples.is_empty());
        let appended = row.samples.append(sample, &mut self.sample_bytes);
        self.sample_count += u64::from(appended == Appended::New);
        Ok((appended, row.watch))
    }
}
