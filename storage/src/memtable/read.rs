//! Selecting series, and taking what a query needs of them.

use super::{Memtable, SeriesId, SeriesSlice};
use model::{Arrival, LabelSet, Matcher, MetricKind, Timestamp};
use std::rc::Rc;

impl Memtable {
    /// The series of that metric name that meet all matchers, in no order.
    ///
    /// The shortest list that an equality names is walked, so one series among many of its name costs
    /// as much as one alone.
    pub fn select(&self, name: &str, matchers: &[Matcher]) -> Vec<SeriesId> {
        let lists = matchers
            .iter()
            .filter_map(|matcher| Some(self.postings.list(&matcher.label, matcher.required_value()?)));
        let by_name = self.postings.list("__name__", name);
        let shortest = lists.fold(by_name, |a, b| if b.len() < a.len() { b } else { a });
        let mut matching: Vec<SeriesId> = Vec::new();
        for &id in shortest {
            let Some(row) = self.row(id) else { continue };
            let labels = (*row.labels).as_ref();
            if labels.name() == name && matchers.iter().all(|matcher| matcher.matches(labels)) {
                matching.push(id);
            }
        }
        matching
    }

    /// What a series has from `start` to `end`, both included, unmoved by whatever is appended later.
    pub fn slice(&self, id: SeriesId, start: Timestamp, end: Timestamp) -> SeriesSlice {
        self.row(id).map_or_else(SeriesSlice::default, |row| row.samples.slice(start, end))
    }

    /// The label set, kind and arrival of a series.
    pub fn describe(&self, id: SeriesId) -> Option<(Rc<LabelSet>, MetricKind, Arrival)> {
        self.row(id).map(|row| (row.labels.clone(), row.kind, row.arrival))
    }
}
