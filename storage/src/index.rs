//! The inverted index: from a label and its value to the ids that carry it.
//!
//! ```text
//!   label name → its values, each text once → ids: up to three in place, a sorted list, or a roaring bitmap
//! ```
//!
//! Owner: a memtable, whose ids are handed out in the order of arrival, so that a value's ids lie close together.
//! Always: an id that was inserted and not removed stands under its metric name (as label `__name__`) and under each
//! of its labels, and nowhere else; a value or a label that nobody carries is gone; every byte is accounted.
//! Not here: the label sets themselves, segments (theirs is written and read in `segment`), what a matcher means.
//! Read next: `index/ids.rs`, `index/values.rs`, then `index/search.rs` for how matchers become ids, `index/runs.rs` for
//! how a start fills it, and `index/cardinality.rs` for what is counted.

mod cardinality;
mod ids;
mod runs;
mod search;
mod values;

#[cfg(test)]
mod tests;

pub use cardinality::Cardinality;
pub(crate) use cardinality::{Counting, most};
pub(crate) use ids::{Ids, IdsView};
pub(crate) use runs::Runs;
pub(crate) use search::{Pick, Search};
pub(crate) use values::Values;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::LabelSetRef;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;

/// The label under which metric names stand.
pub(crate) const NAME_LABEL: &str = "__name__";
/// What an allocation costs beside its bytes, on average.
const ALLOCATION_BYTES: usize = 16;
/// What a label costs beside its name and values: a place in a table that is two thirds full, four allocations.
const LABEL_BYTES: usize = size_of::<(Box<str>, Values)>() * 3 / 2 + 4 * ALLOCATION_BYTES;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Index {
    labels: HashMap<Box<str>, Values, RandomState>,
    /// Of the values' texts.
    hasher: RandomState,
    /// All ids.
    all: RoaringBitmap,
}

impl Index {
    /// Enters an id that is not there under its name and each of its labels; says how many bytes that took, by
    /// estimate.
    pub(crate) fn insert(&mut self, labels: LabelSetRef<'_>, id: u32) -> usize {
        self.all.insert(id);
        pairs(labels).map(|(label, value)| self.insert_pair(label, value, id)).sum()
    }

    fn insert_pair(&mut self, label: &str, value: &str, id: u32) -> usize {
        self.enter(label, |values, hasher| values.insert(hasher, value, id))
    }

    /// Enters something under a label, by a function that says how many bytes that took; with those of the label itself
    /// if it is new.
    fn enter(&mut self, label: &str, into: impl FnOnce(&mut Values, &RandomState) -> usize) -> usize {
        let Index { labels, hasher, .. } = self;
        if let Some(values) = labels.get_mut(label) {
            return into(values, hasher);
        }
        let values = labels.entry(label.into()).or_default();
        LABEL_BYTES + label.len() + into(values, hasher)
    }

    /// Takes ids out, each with its labels, the metric name among them; says how many bytes that freed.
    ///
    /// Each value's ids are gone through once however many of them go: a name with a hundred thousand series can lose
    /// them all at once.
    pub(crate) fn remove<'a, P: Iterator<Item = (&'a str, &'a str)>>(
        &mut self,
        dropped: impl Iterator<Item = (u32, P)> + Clone,
    ) -> usize {
        let gone: RoaringBitmap = dropped.clone().map(|(id, _)| id).collect();
        self.all -= &gone;
        let mut bytes = 0;
        for (id, label, value) in dropped.flat_map(|(id, pairs)| pairs.map(move |(l, v)| (id, l, v))) {
            if let Some(values) = self.labels.get_mut(label) {
                bytes += values.remove(&self.hasher, value, id, &gone);
            }
        }
        self.labels.retain(|label, values| {
            values.give_back();
            bytes += if values.is_empty() { LABEL_BYTES + label.len() } else { 0 };
            !values.is_empty()
        });
        if self.labels.len() < self.labels.capacity() / 4 {
            self.labels.shrink_to_fit();
        }
        bytes
    }

    /// Begins to find the ids that meet all matchers.
    pub(crate) fn search(&self, matchers: &[model::Matcher]) -> Search {
        Search::begin(self, matchers)
    }

    /// Begins to count names, labels and pairs.
    pub(crate) fn begin_count(&self) -> Counting {
        Counting::begin(self)
    }

    /// The labels, by name.
    pub(crate) fn labels(&self) -> Vec<(&str, &Values)> {
        let mut labels: Vec<_> = self.labels.iter().map(|(label, values)| (&**label, values)).collect();
        labels.sort_unstable_by_key(|(label, _)| *label);
        labels
    }

    /// The ids that carry a value, if any do.
    pub(crate) fn ids_of(&self, label: &str, value: &str) -> Option<RoaringBitmap> {
        let mut ids = RoaringBitmap::new();
        self.values(label)?.ids(&self.hasher, value)?.add_to(&mut ids);
        Some(ids)
    }

    /// How many ids carry a value.
    pub(crate) fn count(&self, label: &str, value: &str) -> usize {
        self.values(label).and_then(|values| values.ids(&self.hasher, value)).map_or(0, Ids::len)
    }

    /// The values of a label that so many ids carry, or more.
    pub(crate) fn values_with(&self, label: &str, ids: usize) -> BTreeSet<Box<str>> {
        let all = self.values(label).map(|values| values.some(0, usize::MAX).0);
        let carried = all.into_iter().flatten().filter(|(_, of)| of.len() >= ids);
        carried.map(|(value, _)| value.into()).collect()
    }

    fn values(&self, label: &str) -> Option<&Values> {
        self.labels.get(label)
    }
}

fn pairs(labels: LabelSetRef<'_>) -> impl Iterator<Item = (&str, &str)> {
    std::iter::once((NAME_LABEL, labels.name())).chain(labels.labels())
}
