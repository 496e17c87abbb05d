//! What memory holds of a selection's series, some hundred looked at a time.
//!
//! ```text
//! at the moment of the selection     series lie in the memtable, perhaps also in the part on its way to disk
//! later                              their samples are in the memtable, or where the next freeze has put them;
//!                                    labels and kind in the table or, if the series was forgotten, with the samples
//! ```
//!
//! A series that was forgotten and that neither part holds had no sample in memory, so nothing is missing.

use super::{WORK_PER_LOOK, Wanted};
use crate::memtable::{Frozen, Memtable, SeriesId, SeriesRef, SeriesSlice, View};
use model::{Arrival, LabelSet, MetricKind, SLOTS, Slot};
use std::cell::RefCell;
use std::rc::Rc;

/// See the head of this file.
pub(super) struct InMemory {
    memtable: Rc<RefCell<Memtable>>,
    view: View,
    /// The part that was on its way to disk.
    frozen: Option<Rc<Frozen>>,
    /// Series to be looked at: all that may be meant, or those of one slot, which are known to be.
    ids: Vec<SeriesId>,
    looked_at: usize,
    /// What is meant, by slot; empty where it is not asked for by slot.
    by_slot: Vec<Vec<SeriesId>>,
    by_slot_bytes: usize,
    next_slot: usize,
    /// Parts that nobody else holds, on their way out.
    garbage: Vec<Frozen>,
}

/// What memory holds of one series.
pub(super) struct MemorySeries {
    pub(super) labels: Rc<LabelSet>,
    pub(super) kind: MetricKind,
    pub(super) arrival: Arrival,
    pub(super) frozen: SeriesSlice,
    pub(super) memtable: SeriesSlice,
}

/// Looking at a series costs as much as so many chunks that are taken of it: several places in memory that are not
/// in the cache.
const WORK_PER_SERIES: usize = 8;
/// Series looked at in one step at most.
pub(super) const SERIES_PER_LOOK: usize = WORK_PER_LOOK / WORK_PER_SERIES;

impl InMemory {
    /// This moment. What it copies is an id per series that may be meant.
    pub(super) fn new(
        memtable: &Rc<RefCell<Memtable>>,
        frozen: Option<Rc<Frozen>>,
        wanted: &Wanted,
    ) -> InMemory {
        let table = memtable.borrow();
        InMemory {
            memtable: memtable.clone(),
            view: table.view(),
            frozen,
            ids: table.candidates(&wanted.name, &wanted.matchers).to_vec(),
            looked_at: 0,
            by_slot: Vec::new(),
            by_slot_bytes: 0,
            next_slot: 0,
            garbage: Vec::new(),
        }
    }

    /// Puts some of the series that are meant to their slots; `false` when all are there.
    pub(super) fn sort_some(&mut self, wanted: &Wanted) -> bool {
        if self.by_slot.is_empty() {
            self.by_slot.resize(usize::from(SLOTS), Vec::new());
            self.by_slot_bytes = self.by_slot.capacity() * size_of::<Vec<SeriesId>>();
        }
        let memtable = self.memtable.clone();
        let memtable = memtable.borrow();
        let until = self.ids.len().min(self.looked_at + SERIES_PER_LOOK);
        for at in self.looked_at..until {
            let id = self.ids[at];
            let Some(Found { described, .. }) = self.find(&memtable, id) else { continue };
            if described.meets(&wanted.name, &wanted.matchers) {
                let slot = usize::from(described.hash.slot().number());
                let slot = &mut self.by_slot[slot];
                let before = slot.capacity();
                slot.push(id);
                self.by_slot_bytes += (slot.capacity() - before) * size_of::<SeriesId>();
            }
        }
        self.looked_at = until;
        if until == self.ids.len() {
            (self.ids, self.looked_at) = (Vec::new(), 0);
            return false;
        }
        true
    }

    /// The lowest slot that holds something and was not begun, once all are sorted.
    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        let ahead = self.by_slot.get(self.next_slot..)?;
        self.next_slot += ahead.iter().position(|ids| !ids.is_empty())?;
        Slot::new(self.next_slot as u16)
    }

    /// The series of that slot are those to be looked at.
    pub(super) fn begin_slot(&mut self, slot: Slot) {
        self.ids = std::mem::take(&mut self.by_slot[usize::from(slot.number())]);
        self.by_slot_bytes -= self.ids.capacity() * size_of::<SeriesId>();
        self.looked_at = 0;
    }

    /// Looks at some of the series and takes what they hold; `false` when none is left to be looked at.
    pub(super) fn look(&mut self, wanted: &Wanted, mut take: impl FnMut(MemorySeries)) -> bool {
        let memtable = self.memtable.borrow();
        let is_sorted = !self.by_slot.is_empty();
        let mut work = 0;
        while work < WORK_PER_LOOK {
            let Some(&id) = self.ids.get(self.looked_at) else {
                self.ids = Vec::new();
                return false;
            };
            self.looked_at += 1;
            work += WORK_PER_SERIES;
            let Some(Found { described, frozen, newer }) = self.find(&memtable, id) else { continue };
            if !is_sorted && !described.meets(&wanted.name, &wanted.matchers) {
                continue;
            }
            let slice = |part: Option<SeriesRef<'_>>| {
                part.map(|part| part.slice(wanted.start, wanted.end)).unwrap_or_default()
            };
            let SeriesRef { labels, kind, arrival, .. } = described;
            let (frozen, memtable) = (slice(frozen), slice(newer));
            work += frozen.len() + memtable.len();
            take(MemorySeries { labels: labels.clone(), kind, arrival, frozen, memtable });
        }
        true
    }

    /// A series of the moment, wherever it lies by now.
    fn find<'a>(&'a self, memtable: &'a Memtable, id: SeriesId) -> Option<Found<'a>> {
        let is_ours = |series: &SeriesRef<'_>| self.view.holds(series);
        let find_in = |part: &'a Rc<Frozen>| part.find(id).filter(is_ours);
        let frozen = self.frozen.as_ref().and_then(find_in);
        let in_table = memtable.find(id).filter(is_ours);
        // What the memtable holds after a freeze came after the moment.
        let newer = self.view.frozen().map_or(in_table, find_in);
        let described = in_table.or(newer).or(frozen)?;
        Some(Found { described, frozen, newer })
    }

    /// Bytes of memory held, without the parts that were frozen: those are the store's account.
    pub(super) fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<SeriesId>() + self.by_slot_bytes
    }

    /// Lets go of some of what is held; `false` when nothing is left. Nothing is found any more.
    pub(super) fn let_go(&mut self) -> bool {
        (self.ids, self.by_slot, self.by_slot_bytes) = (Vec::new(), Vec::new(), 0);
        self.garbage.extend(self.frozen.take().and_then(Rc::into_inner));
        self.garbage.extend(std::mem::take(&mut self.view).end());
        self.garbage.pop_if(|part| !part.let_go());
        !self.garbage.is_empty()
    }
}

/// Where a series lies.
struct Found<'a> {
    /// Where its labels and its kind are, the newest of its places.
    described: SeriesRef<'a>,
    /// In the part that was on its way to disk.
    frozen: Option<SeriesRef<'a>>,
    /// In the memtable of that moment, which may be frozen by now.
    newer: Option<SeriesRef<'a>>,
}
