//! The inverted index of the memtable: from a label and its value to the series that carry it.
//!
//! Lists are sorted by id. Ids mostly rise, so a new series is appended; an id that is given again is put
//! in its place.

use super::{ALLOCATION_BYTES, SeriesId};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use model::{LabelSet, LabelSetRef};
use std::hash::BuildHasher;
use std::rc::Rc;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Postings {
    lists: HashTable<List>,
    hasher: RandomState,
}

struct List {
    label: Box<str>,
    value: Box<str>,
    ids: Vec<SeriesId>,
}

/// What a list costs beside its texts and ids: a place in a table that is two thirds full, three allocations.
const LIST_BYTES: usize = size_of::<List>() * 3 / 2 + 3 * ALLOCATION_BYTES;
/// A place in a list that doubles when it is full, on average.
const ID_BYTES: usize = size_of::<SeriesId>() * 3 / 2;

impl Postings {
    fn hash(&self, label: &str, value: &str) -> u64 {
        self.hasher.hash_one((label, value))
    }

    /// Enters a series under its name and each of its labels; says how many bytes that took, by estimate.
    pub(super) fn insert(&mut self, labels: LabelSetRef<'_>, id: SeriesId) -> usize {
        pairs(labels).map(|(label, value)| self.insert_pair(label, value, id)).sum()
    }

    fn insert_pair(&mut self, label: &str, value: &str, id: SeriesId) -> usize {
        let hash = self.hash(label, value);
        if let Some(list) = self.lists.find_mut(hash, |list| *list.label == *label && *list.value == *value) {
            match list.ids.last() {
                Some(&last) if last > id => {
                    let at = list.ids.partition_point(|&other| other < id);
                    list.ids.insert(at, id);
                }
                _ => list.ids.push(id),
            }
            return ID_BYTES;
        }
        let list = List { label: label.into(), value: value.into(), ids: vec![id] };
        let hasher = &self.hasher;
        self.lists.insert_unique(hash, list, |list| hasher.hash_one((&*list.label, &*list.value)));
        LIST_BYTES + label.len() + value.len() + ID_BYTES
    }

    /// The series that carry this label with this value.
    pub(super) fn list(&self, label: &str, value: &str) -> &[SeriesId] {
        let found =
            self.lists.find(self.hash(label, value), |list| *list.label == *label && *list.value == *value);
        found.map_or(&[], |list| &list.ids)
    }

    /// Takes out dropped series; says how many bytes that freed.
    ///
    /// Each list is walked once however many of its series go: a name with a hundred thousand series can
    /// lose them all at once.
    pub(super) fn remove(&mut self, dropped: &[(SeriesId, Rc<LabelSet>)]) -> usize {
        let gone: HashMap<SeriesId, (), RandomState> = dropped.iter().map(|(id, _)| (*id, ())).collect();
        let mut seen: HashMap<(&str, &str), (), RandomState> = HashMap::default();
        let mut bytes = 0;
        for pair @ (label, value) in dropped.iter().flat_map(|(_, labels)| pairs(labels.as_ref().as_ref())) {
            if seen.insert(pair, ()).is_some() {
                continue;
            }
            let hash = self.hash(label, value);
            let same = |list: &List| *list.label == *label && *list.value == *value;
            let Ok(mut entry) = self.lists.find_entry(hash, same) else { continue };
            let ids = &mut entry.get_mut().ids;
            let before = ids.len();
            ids.retain(|id| !gone.contains_key(id));
            bytes += (before - ids.len()) * ID_BYTES;
            if ids.is_empty() {
                entry.remove();
                bytes += LIST_BYTES + label.len() + value.len();
            } else if ids.len() < ids.capacity() / 4 {
                ids.shrink_to_fit();
            }
        }
        bytes
    }

    /// Gives the places back that nobody uses.
    pub(super) fn shrink_to_fit(&mut self) {
        let hasher = &self.hasher;
        self.lists.shrink_to_fit(|list| hasher.hash_one((&*list.label, &*list.value)));
    }
}

fn pairs(labels: LabelSetRef<'_>) -> impl Iterator<Item = (&str, &str)> {
    std::iter::once(("__name__", labels.name())).chain(labels.labels())
}
