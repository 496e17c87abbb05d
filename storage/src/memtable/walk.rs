//! The table in the order of its ids, for who wants all of it in pieces.

use super::{Memtable, SeriesId, SeriesRef};
use std::ops::Range;

impl Memtable {
    /// The series with ids in that range that are there now.
    pub fn series_in(&self, ids: Range<u32>) -> impl Iterator<Item = (SeriesId, SeriesRef<'_>)> {
        ids.map(SeriesId).filter_map(|id| Some((id, self.find(id)?)))
    }

    /// Above all ids that are there now.
    pub fn id_end(&self) -> u32 {
        // Ids are 32 bits wide.
        self.series.len() as u32
    }
}
