//! What memory holds of a selection's series, some hundred looked at a time.
//!
//! ```text
//! at the moment of the selection     series lie in the memtable, perhaps also in the part on its way to disk
//! later                              their samples are in the memtable, or where the next freeze has put them;
//!                                    labels and kind in the table or, if the series was forgotten, with the samples
//! once all have been looked at       in slices, on the query's account; both parts are let go of
//! ```
//!
//! A series that was forgotten and that neither part holds had no sample in memory, so nothing is missing.
//!
//! The parts are kept no longer than that, for they hold samples of every name, and memory that is full of them
//! closes the store. Kept until the selection ends they are only where the slices would be more than the selection
//! may hold ahead: then these are taken slot by slot, and share what the parts hold.
//! A series without a sample in the range needs neither part: segments tell its kind and its arrival, if it is in them.

use super::super::views::Hold;
use super::{WORK_PER_LOOK, Wanted};
use crate::index::Search;
use crate::memtable::{Frozen, Memtable, SeriesId, SeriesRef, SeriesSlice, SliceExtent, View};
use model::{Arrival, LabelSet, Matcher, MetricKind, SLOTS, Slot};
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::rc::Rc;

/// See the head of this file.
pub(super) struct InMemory {
    memtable: Rc<RefCell<Memtable>>,
    view: View,
    /// The part that was on its way to disk.
    frozen: Option<Rc<Frozen>>,
    /// While samples of the moment are found, and so kept.
    hold: Option<Rc<Hold>>,
    /// Whether some are needed until the selection ends.
    needs_parts: bool,
    /// Until it is known which series are meant.
    search: Option<Search>,
    /// Those, as far as they were not looked at, ids rising.
    meant: roaring::bitmap::IntoIter,
    meant_bytes: usize,
    /// What they are still to be held against.
    left_over: Vec<Matcher>,
    /// Series of one slot that are to be looked at.
    ids: Vec<SeriesId>,
    looked_at: usize,
    /// Those of one slot that were taken ahead.
    taken: Vec<MemorySeries>,
    /// What is meant, by slot; empty where it is not asked for by slot.
    by_slot: Vec<OfSlot>,
    by_slot_bytes: usize,
    /// What the sorted series would hold if they were taken.
    ahead_bytes: usize,
    /// Once all are sorted: the slot whose series are taken next, none beyond the last.
    taking: Option<usize>,
    /// What all that were taken ahead hold.
    taken_bytes: usize,
    next_slot: usize,
    /// Parts that nobody else holds, on their way out.
    garbage: Vec<Frozen>,
}

/// Series of one slot.
#[derive(Default)]
struct OfSlot {
    /// To be looked at when the slot's turn comes.
    ids: Vec<SeriesId>,
    /// Looked at.
    taken: Vec<MemorySeries>,
}

/// What memory holds of one series.
pub(super) struct MemorySeries {
    pub(super) labels: Rc<LabelSet>,
    pub(super) kind: MetricKind,
    pub(super) arrival: Arrival,
    pub(super) frozen: SeriesSlice,
    pub(super) memtable: SeriesSlice,
    /// Bytes that the slices share and that are on the selection's account, for nobody else may hold them any more.
    pub(super) shared_bytes: usize,
}

/// Series looked at in one step at most.
pub(super) const SERIES_PER_LOOK: usize = 256;
/// Looking at a series costs as much as so many chunks that are taken of it: several places in memory that are not
/// in the cache.
const WORK_PER_SERIES: usize = WORK_PER_LOOK / SERIES_PER_LOOK;

/// What a label set takes beside its text: two counts, two allocations.
const LABELS_BYTES: usize = size_of::<LabelSet>() + 2 * size_of::<usize>() + 2 * 16;

impl InMemory {
    /// This moment. What it copies is a set of the ids that may be meant.
    pub(super) fn new(
        memtable: &Rc<RefCell<Memtable>>,
        frozen: Option<Rc<Frozen>>,
        hold: Rc<Hold>,
        wanted: &Wanted,
    ) -> InMemory {
        let table = memtable.borrow();
        // Without a sample no series is looked for: after a flush that may be a million.
        let holds_samples = frozen.is_some() || table.has_samples();
        let search = holds_samples.then(|| table.search(&wanted.matchers));
        InMemory {
            memtable: memtable.clone(),
            view: table.view(),
            frozen,
            hold: Some(hold),
            needs_parts: false,
            meant_bytes: search.as_ref().map_or(0, Search::bytes),
            search,
            meant: RoaringBitmap::new().into_iter(),
            left_over: Vec::new(),
            ids: Vec::new(),
            looked_at: 0,
            taken: Vec::new(),
            by_slot: Vec::new(),
            by_slot_bytes: 0,
            ahead_bytes: 0,
            taking: None,
            taken_bytes: 0,
            next_slot: 0,
            garbage: Vec::new(),
        }
    }

    /// Puts some of the series that are meant to their slots, then takes what they hold if all of it is no more than
    /// `ahead_bytes_max`; `false` when that is done.
    pub(super) fn sort_some(&mut self, wanted: &Wanted, ahead_bytes_max: usize) -> bool {
        if self.taking.is_some() {
            return self.take_some(wanted, ahead_bytes_max);
        }
        if self.by_slot.is_empty() {
            self.by_slot.resize_with(usize::from(SLOTS), OfSlot::default);
            self.by_slot_bytes = self.by_slot.capacity() * size_of::<OfSlot>();
        }
        let memtable = self.memtable.clone();
        let memtable = memtable.borrow();
        if self.search_some(&memtable) {
            return true;
        }
        for _ in 0..SERIES_PER_LOOK {
            let Some(id) = self.meant.next().map(SeriesId) else { break };
            let Some(found) = self.find(&memtable, id) else { continue };
            if !found.described.meets(&self.left_over) {
                continue;
            }
            let bytes = found.ahead_bytes(wanted);
            if bytes == 0 {
                continue;
            }
            let slot = usize::from(found.described.hash.slot().number());
            self.ahead_bytes += bytes;
            self.by_slot_bytes += push(&mut self.by_slot[slot].ids, id);
        }
        if self.meant.len() > 0 {
            return true;
        }
        self.end_search();
        // Parts that are needed for some series are kept, and then nothing is won by taking the others.
        self.needs_parts = self.ahead_bytes > ahead_bytes_max;
        let takes = self.ahead_bytes > 0 && !self.needs_parts;
        self.taking = Some(if takes { 0 } else { self.by_slot.len() });
        true
    }

    /// Finds out of some more series whether they are meant; `false` when of all it is known.
    fn search_some(&mut self, memtable: &Memtable) -> bool {
        let Some(search) = &mut self.search else { return false };
        let more = memtable.search_some(search, &self.view);
        self.meant_bytes = search.bytes();
        if !more && let Some(search) = self.search.take() {
            let (meant, left_over) = search.end();
            self.meant_bytes = meant.serialized_size();
            (self.meant, self.left_over) = (meant.into_iter(), left_over);
        }
        true
    }

    /// All that are meant were looked at, or nothing is found any more.
    fn end_search(&mut self) {
        (self.search, self.meant, self.meant_bytes) = (None, RoaringBitmap::new().into_iter(), 0);
    }

    /// Takes what some of the sorted series hold; `false` when all are taken or left.
    fn take_some(&mut self, wanted: &Wanted, ahead_bytes_max: usize) -> bool {
        let memtable = self.memtable.clone();
        let memtable = memtable.borrow();
        let mut work = 0;
        while work < WORK_PER_LOOK {
            let Some(slot) = self.taking.filter(|slot| *slot < self.by_slot.len()) else {
                self.end_look();
                return false;
            };
            work += 1;
            let Some(id) = self.by_slot[slot].ids.pop() else {
                let left = std::mem::take(&mut self.ids);
                self.by_slot_bytes += left.capacity() * size_of::<SeriesId>();
                self.by_slot_bytes -= self.by_slot[slot].ids.capacity() * size_of::<SeriesId>();
                self.by_slot[slot].ids = left;
                self.taking = Some(slot + 1);
                continue;
            };
            work += WORK_PER_SERIES;
            let Some(found) = self.find(&memtable, id) else { continue };
            let bytes = found.ahead_bytes(wanted);
            // What came since they were sorted may be too much.
            if bytes == 0 || self.taken_bytes + bytes > ahead_bytes_max {
                self.needs_parts |= bytes > 0;
                self.ids.push(id);
                continue;
            }
            let shared = found.extent(wanted).shared;
            let series = found.take(wanted, shared);
            work += series.frozen.len() + series.memtable.len();
            self.taken_bytes += series.bytes();
            let taken = &mut self.by_slot[slot].taken;
            if taken.capacity() == 0 {
                // Most slots have one or none, and a list that grows by itself begins with four.
                taken.reserve_exact(1);
                self.by_slot_bytes += taken.capacity() * size_of::<MemorySeries>();
            }
            self.by_slot_bytes += push(taken, series);
        }
        true
    }

    /// The lowest slot that holds something and was not begun, once all are sorted.
    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        let ahead = self.by_slot.get(self.next_slot..)?;
        let next = ahead.iter().position(|of| !(of.ids.is_empty() && of.taken.is_empty()));
        // Those that were gone through once hold nothing any more.
        self.next_slot += next.unwrap_or(ahead.len());
        next.and(Slot::new(self.next_slot as u16))
    }

    /// The series of that slot are those to be looked at.
    pub(super) fn begin_slot(&mut self, slot: Slot) {
        let Some(of) = self.by_slot.get_mut(usize::from(slot.number())) else { return };
        (self.ids, self.taken) = (std::mem::take(&mut of.ids), std::mem::take(&mut of.taken));
        self.by_slot_bytes -= self.ids.capacity() * size_of::<SeriesId>();
        self.by_slot_bytes -= self.taken.capacity() * size_of::<MemorySeries>();
        self.looked_at = 0;
    }

    /// Looks at some of the series and takes what they hold; `false` when none is left to be looked at. What they
    /// share and is more than `room` bytes is left on the parts' account, and these are kept. `take` gives the work
    /// that it did beside, in the measure of [`WORK_PER_LOOK`].
    pub(super) fn look(
        &mut self,
        wanted: &Wanted,
        mut room: usize,
        mut take: impl FnMut(MemorySeries) -> usize,
    ) -> bool {
        let memtable = self.memtable.clone();
        let memtable = memtable.borrow();
        let is_sorted = self.is_sorted();
        if !is_sorted && self.search_some(&memtable) {
            return true;
        }
        let mut work = 0;
        while work < WORK_PER_LOOK {
            if let Some(series) = self.taken.pop() {
                self.taken_bytes -= series.bytes();
                work += WORK_PER_SERIES + take(series);
                continue;
            }
            let next = if is_sorted {
                self.ids.get(self.looked_at).copied()
            } else {
                self.meant.next().map(SeriesId)
            };
            let Some(id) = next else {
                (self.ids, self.taken) = (Vec::new(), Vec::new());
                if !is_sorted {
                    self.end_search();
                    self.end_look();
                }
                return false;
            };
            self.looked_at += 1;
            work += WORK_PER_SERIES;
            let Some(found) = self.find(&memtable, id) else { continue };
            if !is_sorted && !found.described.meets(&self.left_over) {
                continue;
            }
            let SliceExtent { own, shared } = found.extent(wanted);
            // A slot's series are here because the parts are kept for them.
            let is_ahead = !is_sorted && own + shared <= room;
            let series = found.take(wanted, if is_ahead { shared } else { 0 });
            self.needs_parts |= !is_ahead && shared > 0;
            work += series.frozen.len() + series.memtable.len();
            room = room.saturating_sub(series.bytes());
            work += take(series);
        }
        true
    }

    /// Whether the parts will be let go of as soon as all series have been looked at.
    pub(super) fn may_look_ahead(&self) -> bool {
        !self.is_sorted() && !self.needs_parts
    }

    /// Whether series come slot by slot.
    fn is_sorted(&self) -> bool {
        !self.by_slot.is_empty()
    }

    /// A series of the moment, wherever it lies by now; once the parts are let go of, without samples.
    fn find<'a>(&'a self, memtable: &'a Memtable, id: SeriesId) -> Option<Found<'a>> {
        let is_ours = |series: &SeriesRef<'_>| self.view.holds(series);
        let find_in = |part: &'a Rc<Frozen>| part.find(id).filter(is_ours);
        let in_table = memtable.find(id).filter(is_ours);
        if self.hold.is_none() {
            // There may have been a freeze, and what came after it is not shown without what it took.
            return in_table.map(|described| Found { described, frozen: None, newer: None });
        }
        let frozen = self.frozen.as_ref().and_then(find_in);
        let newer = self.view.find(id, in_table);
        let described = in_table.or(newer).or(frozen)?;
        Some(Found { described, frozen, newer })
    }

    /// All have been looked at.
    fn end_look(&mut self) {
        if !self.needs_parts {
            self.let_parts_go();
        }
    }

    /// Nothing is found any more. What nobody else holds is on its way out, and on nobody's account.
    pub(super) fn let_parts_go(&mut self) {
        self.hold = None;
        self.garbage.extend(self.frozen.take().and_then(Rc::into_inner));
        self.garbage.extend(self.view.let_go());
    }

    /// Whether parts of memory that are on disk by now, or will be, are kept there.
    pub(super) fn keeps_parts(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether the store needs them back.
    pub(super) fn is_broken_off(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_broken_off())
    }

    /// Bytes of memory held, without the parts that are kept: those are the store's account.
    pub(super) fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<SeriesId>()
            + self.meant_bytes
            + self.taken.capacity() * size_of::<MemorySeries>()
            + self.by_slot_bytes
            + self.taken_bytes
    }

    /// Frees some of the parts that nobody else holds; `false` when none is left.
    pub(super) fn free_some(&mut self) -> bool {
        self.garbage.pop_if(|part| !part.let_go());
        !self.garbage.is_empty()
    }

    /// Lets go of some of what is held; `false` when nothing is left. Nothing is found any more.
    pub(super) fn let_go(&mut self) -> bool {
        self.ids = Vec::new();
        self.end_search();
        let mut work = 0;
        while work < WORK_PER_LOOK {
            if let Some(series) = self.taken.pop() {
                self.taken_bytes -= series.bytes();
                work += WORK_PER_SERIES + series.frozen.len() + series.memtable.len();
            } else if let Some(of) = self.by_slot.pop() {
                self.taken = of.taken;
                work += WORK_PER_SERIES;
            } else {
                (self.taken, self.by_slot, self.by_slot_bytes) = (Vec::new(), Vec::new(), 0);
                return self.free_some();
            }
        }
        true
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

impl Found<'_> {
    /// What taking it would hold; nothing of its own exactly if it has no sample in the range.
    fn extent(&self, wanted: &Wanted) -> SliceExtent {
        let mut sum = SliceExtent::default();
        for part in [self.frozen, self.newer].into_iter().flatten() {
            let SliceExtent { own, shared } = part.extent(wanted.start, wanted.end);
            sum = SliceExtent { own: sum.own + own, shared: sum.shared + shared };
        }
        sum
    }

    /// What a selection that takes it ahead holds; nothing if it has no sample in the range.
    fn ahead_bytes(&self, wanted: &Wanted) -> usize {
        let SliceExtent { own, shared } = self.extent(wanted);
        let labels = self.described.labels.canonical_len() + LABELS_BYTES;
        if own == 0 { 0 } else { size_of::<MemorySeries>() + labels + own + shared }
    }

    fn take(self, wanted: &Wanted, shared_bytes: usize) -> MemorySeries {
        let slice = |part: Option<SeriesRef<'_>>| {
            part.map(|part| part.slice(wanted.start, wanted.end)).unwrap_or_default()
        };
        let SeriesRef { labels, kind, arrival, .. } = self.described;
        let (frozen, memtable) = (slice(self.frozen), slice(self.newer));
        MemorySeries { labels: Rc::new(labels.to_label_set()), kind, arrival, frozen, memtable, shared_bytes }
    }
}

impl MemorySeries {
    /// Bytes of memory on the selection's account.
    pub(super) fn bytes(&self) -> usize {
        (*self.labels).as_ref().bytes().len()
            + LABELS_BYTES
            + self.frozen.bytes()
            + self.memtable.bytes()
            + self.shared_bytes
    }
}

/// Appends, and says by how many bytes the list has grown.
fn push<T>(list: &mut Vec<T>, item: T) -> usize {
    let before = list.capacity();
    list.push(item);
    (list.capacity() - before) * size_of::<T>()
}
