//! Metric names that have as many series as one may have.
//!
//! A name is looked at where a series of it comes or goes; nothing is counted beside the index.

use super::Memtable;
use crate::index::NAME_LABEL;
use std::collections::BTreeSet;

/// How many series a name may have, and which have them. Series beyond are taken all the same: who sends them is told
/// elsewhere.
pub(super) struct NameLimit {
    max: usize,
    full: BTreeSet<Box<str>>,
    /// Since it was last asked.
    has_changed: bool,
}

impl Memtable {
    /// From now on it is known which names have so many series or more.
    pub fn limit_names(&mut self, max: usize) {
        let full = self.index.values_with(NAME_LABEL, max);
        let has_changed = !full.is_empty();
        self.name_limit = Some(NameLimit { max, full, has_changed });
    }

    /// Which names these are, if they are others than when this was last asked.
    pub fn full_names(&mut self) -> Option<BTreeSet<Box<str>>> {
        let limit = self.name_limit.as_mut()?;
        std::mem::take(&mut limit.has_changed).then(|| limit.full.clone())
    }

    /// A series of that name has come.
    pub(super) fn count_name(&mut self, name: &str) {
        let Some(limit) = &mut self.name_limit else { return };
        if self.index.count(NAME_LABEL, name) >= limit.max && !limit.full.contains(name) {
            limit.has_changed = true;
            limit.full.insert(name.into());
        }
    }

    /// Series have gone.
    pub(super) fn recount_names(&mut self) {
        let Some(limit) = &mut self.name_limit else { return };
        let before = limit.full.len();
        limit.full.retain(|name| self.index.count(NAME_LABEL, name) >= limit.max);
        limit.has_changed |= limit.full.len() < before;
    }
}
