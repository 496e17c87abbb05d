//! Everything that a store holds of some series, in an order that is the same on the next day: slots rising, within a
//! slot label sets, then times.
//!
//! ```text
//! WalkPlan    which series in memory are meant, by slot        built once, some thousand looked at in a step
//! Store::walk_on, until it has come to the end:
//!   some directory may still hold rows of the next slot     → Walk::read_block
//!   all of the slot is found                                → what memory holds of it is taken in the same moment;
//!                                                             Walk::next_piece, until the slot is given
//! ```
//!
//! Nothing is kept from one slot to the next but segments that are open, and rows of their directories. So a walk may
//! take days, memory is flushed and segments are merged meanwhile, and a walk that begins at a [`Place`] goes on
//! exactly behind it.
//! Always: a sample that was there when the plan was made is given once, unless it was deleted or replaced meanwhile;
//! of what comes meanwhile some is given. Slots are a thousandth of the store each: that much of its chunks is kept in
//! memory while a slot is given, whatever is flushed.

use super::merge::SeriesMerge;
use super::select::{Piece, SelectedSeries};
use super::{OpenSegment, Store};
use crate::deletes::Hidden;
use crate::disk::Disk;
use crate::memtable::{SeriesId, SeriesSlice};
use crate::segment::{ChunkRow, PairHash, SegmentError, SegmentSeries, Workspace};
use model::{Arrival, LabelSet, LabelSetRef, Matcher, MetricKind, SLOTS, Slot, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Series of the table looked at in one step of a plan.
const SERIES_PER_STEP: u32 = 1024;

/// Which series and times a walk is to give.
#[derive(Clone, Debug)]
pub struct WalkRange {
    /// Conditions; a series is meant that meets all of one of these lists. Without a list all are meant.
    pub selectors: Vec<Vec<Matcher>>,
    /// The first time.
    pub start: Timestamp,
    /// The last time, included.
    pub end: Timestamp,
}

impl WalkRange {
    /// Whether labels are meant that meet a matcher exactly where it is said so.
    fn means(&self, meet: impl Fn(&Matcher) -> bool) -> bool {
        self.selectors.is_empty() || self.selectors.iter().any(|matchers| matchers.iter().all(&meet))
    }

    /// Whether a segment may hold a series that is meant.
    fn may_be_in<D: Disk>(&self, segment: &OpenSegment<D>) -> bool {
        let required = |matchers: &Vec<Matcher>| -> Vec<PairHash> {
            let pair = |matcher: &Matcher| Some(PairHash::new(&matcher.label, matcher.required_value()?));
            matchers.iter().filter_map(pair).collect()
        };
        segment.overlaps(self.start, self.end)
            && (self.selectors.is_empty()
                || self.selectors.iter().any(|matchers| segment.may_hold(&required(matchers))))
    }
}

/// The series in memory that a walk means. Plain data: it outlives the walk that it was made for.
#[derive(Clone, Debug, Default)]
pub struct WalkPlan {
    /// By slot, ids rising: they come so, and need no sorting, which would hold up everybody else. Empty before the
    /// first look.
    by_slot: Vec<Vec<SeriesId>>,
    bytes: usize,
    looked_at: u32,
}

impl WalkPlan {
    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, slot: Slot, id: SeriesId) {
        if self.by_slot.is_empty() {
            self.by_slot.resize_with(usize::from(SLOTS), Vec::new);
            self.bytes = self.by_slot.capacity() * size_of::<Vec<SeriesId>>();
        }
        let of_slot = &mut self.by_slot[usize::from(slot.number())];
        let before = of_slot.capacity();
        of_slot.push(id);
        self.bytes += (of_slot.capacity() - before) * size_of::<SeriesId>();
    }

    /// The lowest slot, not below this one, of which memory holds something.
    fn next_slot(&self, slot: u16) -> Option<u16> {
        let ahead = self.by_slot.get(usize::from(slot)..)?;
        let distance = ahead.iter().position(|of_slot| !of_slot.is_empty())?;
        // There are 1,024 of them.
        Some(slot + distance as u16)
    }

    fn of_slot(&self, slot: u16) -> &[SeriesId] {
        self.by_slot.get(usize::from(slot)).map_or(&[], Vec::as_slice)
    }
}

/// Where a walk goes on: behind the samples up to `after` of that series of that slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The slot; those below are given.
    pub slot: u16,
    /// Of the slot, all label sets below this are given, and of this one all up to that time.
    pub after: Option<(LabelSet, Timestamp)>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// [`Walk::read_block`], then [`Store::walk_on`] again.
    Block,
    /// [`Walk::next_piece`] until it gives no more, then [`Store::walk_on`] again.
    Slot,
    /// Nothing: all is given.
    Done,
}

/// See the head of this file.
pub struct Walk<D: Disk> {
    range: WalkRange,
    /// Of how many shards which one's slots are given.
    owner: (usize, usize),
    place: Place,
    sources: Vec<Source<D>>,
    /// Of which source a block is to be read.
    unread: usize,
    /// Of the slot at hand, what is still to be given.
    of_slot: BTreeMap<LabelSet, OfSeries<D>>,
    reading: Option<Reading<D>>,
    workspace: Workspace,
    warnings: Vec<SegmentError>,
}

/// A segment, as far as its directory is read.
struct Source<D: Disk> {
    segment: OpenSegment<D>,
    next_block: usize,
    /// Read and not yet taken, slots rising.
    found: VecDeque<SegmentSeries>,
}

/// Where the samples of one series lie, oldest first.
struct OfSeries<D: Disk> {
    kind: MetricKind,
    arrival: Arrival,
    in_segments: Vec<(OpenSegment<D>, Vec<ChunkRow>, Hidden)>,
    in_memory: Vec<SeriesSlice>,
}

struct Reading<D: Disk> {
    /// Until it begins.
    series: Option<SelectedSeries>,
    merge: SeriesMerge<D>,
}

impl<D: Disk> Store<D> {
    /// Looks at some more of the series in memory for a plan; `false` when it is made.
    pub fn plan_walk(&self, range: &WalkRange, plan: &mut WalkPlan) -> bool {
        let memtable = self.memtable.borrow();
        let until = memtable.id_end().min(plan.looked_at.saturating_add(SERIES_PER_STEP));
        for (id, series) in memtable.series_in(plan.looked_at..until) {
            if range.means(|matcher| series.labels.meet(matcher)) {
                plan.push(series.hash.slot(), id);
            }
        }
        plan.looked_at = until;
        until < memtable.id_end()
    }

    /// A walk from that place on.
    pub fn walk(&self, range: WalkRange, place: Place) -> Walk<D> {
        Walk {
            warnings: self.unopened(range.start, range.end),
            range,
            owner: (self.shard, self.shards),
            place,
            sources: Vec::new(),
            unread: 0,
            of_slot: BTreeMap::new(),
            reading: None,
            workspace: Workspace::default(),
        }
    }

    /// Finds out how a walk goes on; what memory holds of the next slot is taken where all else of it is known.
    pub fn walk_on(&self, walk: &mut Walk<D>, plan: &WalkPlan) -> Walked {
        walk.look_at_segments(&self.segments);
        let slot = walk.place.slot;
        let found = walk.sources.iter().filter_map(|source| Some(source.found.front()?.slot.number()));
        let unread = walk.sources.iter().enumerate();
        let unread =
            unread.filter_map(|(at, of)| Some((of.segment.first_slot_of(of.next_block)?.number(), at)));
        let unread = unread.min();
        let in_memory = plan.next_slot(slot);
        let known = found.chain(in_memory).min();
        if let Some((first, at)) = unread
            && known.is_none_or(|known| first <= known)
        {
            walk.unread = at;
            if first > slot {
                // Nothing is known or unread below: a walk that ends here goes on there.
                walk.place = Place { slot: first, after: None };
            }
            return Walked::Block;
        }
        let Some(slot) = known else { return Walked::Done };
        walk.take_found(slot, |segment, labels| Hidden::of(&self.deletes, segment.entry(), labels));
        self.take_memory(walk, plan, slot);
        walk.forget_given(slot);
        walk.place = Place { slot: slot + 1, after: None };
        Walked::Slot
    }

    /// What memory holds of the slot at this moment: the segments of the walk are those of the same moment.
    fn take_memory(&self, walk: &mut Walk<D>, plan: &WalkPlan, slot: u16) {
        let memtable = self.memtable.borrow();
        let WalkRange { start, end, .. } = walk.range;
        for id in plan.of_slot(slot) {
            let of_frozen = self.frozen.as_ref().and_then(|frozen| frozen.find(*id));
            let of_table = memtable.find(*id);
            let Some(described) = of_table.or(of_frozen) else { continue };
            // An id may mean another series by now.
            if described.hash.slot().number() != slot
                || !walk.range.means(|matcher| described.labels.meet(matcher))
            {
                continue;
            }
            let of_frozen = of_frozen.filter(|frozen| frozen.labels == described.labels);
            let parts = [of_frozen, of_table].into_iter().flatten();
            let slices: Vec<SeriesSlice> =
                parts.map(|part| part.slice(start, end)).filter(|slice| !slice.is_empty()).collect();
            let labels = described.labels.to_label_set();
            if slices.is_empty() && !walk.of_slot.contains_key(&labels) {
                continue;
            }
            let known = walk.of_slot.entry(labels);
            let known = known.or_insert_with(|| OfSeries::new(described.kind, described.arrival));
            (known.kind, known.in_memory) = (described.kind, slices);
        }
    }
}

impl<D: Disk> OfSeries<D> {
    fn new(kind: MetricKind, arrival: Arrival) -> OfSeries<D> {
        OfSeries { kind, arrival, in_segments: Vec::new(), in_memory: Vec::new() }
    }
}

impl<D: Disk> Walk<D> {
    /// The segments are those of now: new ones are begun at the slot at hand.
    fn look_at_segments(&mut self, segments: &[OpenSegment<D>]) {
        let is_there = |source: &Source<D>| segments.iter().any(|open| Rc::ptr_eq(open, &source.segment));
        self.sources.retain(is_there);
        let known: Vec<u64> = self.sources.iter().map(|source| source.segment.entry().id).collect();
        for segment in segments.iter().filter(|open| !known.contains(&open.entry().id)) {
            if !self.range.may_be_in(segment) {
                continue;
            }
            // A block that ends before the slot is followed by one that begins no later than it.
            let mut next_block = 0;
            while segment.first_slot_of(next_block + 1).is_some_and(|first| first.number() < self.place.slot)
            {
                next_block += 1;
            }
            self.sources.push(Source { segment: segment.clone(), next_block, found: VecDeque::new() });
        }
        self.sources.sort_by_key(|source| (source.segment.entry().newest, source.segment.entry().id));
    }

    /// Reads the directory block that [`Store::walk_on`] asked for.
    pub async fn read_block(&mut self) {
        let Walk { range, owner: (shard, shards), place, sources, unread, warnings, .. } = self;
        let Some(Source { segment, next_block, found }) = sources.get_mut(*unread) else { return };
        let owned = |slot: Slot| slot.number() >= place.slot && slot.owner(*shards) == *shard;
        let mut series = segment.series_in_block(*next_block, owned, warnings).await;
        series.retain_mut(|series| {
            series.chunks.retain(|chunk| chunk.first() <= range.end && chunk.last() >= range.start);
            !series.chunks.is_empty() && range.means(|matcher| matcher.matches(series.labels.as_ref()))
        });
        found.extend(series);
        *next_block += 1;
    }

    /// Rows of the slot, older segments first.
    fn take_found(&mut self, slot: u16, hidden: impl Fn(&OpenSegment<D>, LabelSetRef<'_>) -> Hidden) {
        for Source { segment, found, .. } in &mut self.sources {
            while let Some(series) = found.pop_front_if(|series| series.slot.number() <= slot) {
                let SegmentSeries { labels, kind, arrival, chunks, .. } = series;
                let hidden = hidden(segment, labels.as_ref());
                let known = self.of_slot.entry(labels).or_insert_with(|| OfSeries::new(kind, arrival));
                known.kind = kind;
                known.arrival = known.arrival.min(arrival);
                known.in_segments.push((segment.clone(), chunks, hidden));
            }
        }
    }

    /// What was given before the walk began.
    fn forget_given(&mut self, slot: u16) {
        if let Some((labels, _)) = self.place.after.as_ref().filter(|_| slot == self.place.slot) {
            self.of_slot = self.of_slot.split_off(labels);
            let after = self.place.after.take();
            self.begin_series(after.as_ref());
        }
    }

    /// Lines up the sources of the next series; `after` is up to where it is given, if it is that one.
    fn begin_series(&mut self, after: Option<&(LabelSet, Timestamp)>) -> bool {
        let Some((labels, series)) = self.of_slot.pop_first() else { return false };
        let WalkRange { mut start, end, .. } = self.range;
        if let Some((_, given)) = after.filter(|(given, _)| *given == labels) {
            start = start.max(Timestamp::from_ticks(given.ticks().saturating_add(1)));
        }
        let OfSeries { kind, arrival, in_segments, in_memory } = series;
        let labels = Rc::new(labels);
        let mut merge = SeriesMerge::new(labels.clone(), start, end);
        for (segment, mut rows, hidden) in in_segments {
            rows.retain(|row| row.last() >= start);
            merge.add_segment(segment, rows, hidden);
        }
        in_memory.into_iter().for_each(|slice| merge.add_slice(slice));
        let series = SelectedSeries { labels, kind, arrival };
        self.reading = Some(Reading { series: Some(series), merge });
        true
    }

    /// Gives some thousand samples of one series of the slot, or none; `false` when the slot is given.
    pub async fn next_piece(&mut self, piece: &mut Piece) -> bool {
        piece.begins = None;
        piece.samples.clear();
        if self.reading.is_none() && !self.begin_series(None) {
            return false;
        }
        let Some(Reading { series, merge }) = &mut self.reading else { return false };
        let goes_on = merge.next_piece(&mut piece.samples, &mut self.workspace, &mut self.warnings).await;
        if !piece.samples.is_empty() {
            piece.begins = series.take();
        }
        if !goes_on {
            self.reading = None;
        }
        true
    }

    /// Where it stands, between two slots.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What could not be read since it was last asked.
    pub fn take_warnings(&mut self) -> Vec<SegmentError> {
        std::mem::take(&mut self.warnings)
    }

    /// Bytes of memory held by rows of directories, about.
    pub fn bytes(&self) -> usize {
        let found = self.sources.iter().flat_map(|source| &source.found).map(SegmentSeries::bytes);
        let of_series = |(labels, of): (&LabelSet, &OfSeries<D>)| {
            let rows: usize =
                of.in_segments.iter().map(|(_, rows, _)| rows.len() * size_of::<ChunkRow>()).sum();
            labels.as_ref().bytes().len() + rows + of.in_memory.iter().map(SeriesSlice::bytes).sum::<usize>()
        };
        let waiting = self.of_slot.iter().map(of_series);
        let reading = self.reading.as_ref().map_or(0, |reading| reading.merge.bytes());
        found.sum::<usize>() + waiting.sum::<usize>() + reading + self.workspace.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, flush, open, put, set};
    use super::*;
    use crate::disk::{SimDisk, ready};
    use proptest::prelude::*;

    const EVER: (Timestamp, Timestamp) = (Timestamp::MIN, Timestamp::MAX);

    fn all((start, end): (Timestamp, Timestamp)) -> WalkRange {
        WalkRange { selectors: Vec::new(), start, end }
    }

    fn plan(store: &Store<SimDisk>, range: &WalkRange) -> WalkPlan {
        let mut plan = WalkPlan::default();
        while store.plan_walk(range, &mut plan) {}
        plan
    }

    type Given = Vec<(LabelSet, i64, u64)>;

    /// Gives so many samples from that place on, and the place behind them; none where that is the end.
    fn give(
        store: &Store<SimDisk>,
        range: &WalkRange,
        plan: &WalkPlan,
        place: Place,
        count: usize,
    ) -> (Given, Option<Place>) {
        let mut walk = store.walk(range.clone(), place);
        let (mut given, mut piece): (Given, Piece) = (Vec::new(), Piece::default());
        loop {
            match store.walk_on(&mut walk, plan) {
                Walked::Block => ready(walk.read_block()),
                Walked::Done => return (given, None),
                Walked::Slot => {
                    let mut labels = None;
                    while ready(walk.next_piece(&mut piece)) {
                        labels = piece.begins.as_ref().map(|series| (*series.labels).clone()).or(labels);
                        for sample in &piece.samples {
                            let labels = labels.clone().expect("a series begins before its samples");
                            let slot = labels.as_ref().hash().slot().number();
                            given.push((labels.clone(), sample.timestamp.ticks(), sample.value.to_bits()));
                            if given.len() == count {
                                let after = Some((labels, sample.timestamp));
                                return (given, Some(Place { slot, after }));
                            }
                        }
                    }
                }
            }
            assert!(walk.take_warnings().is_empty());
        }
    }

    fn in_order(given: &Given) -> bool {
        let key = |(labels, ticks, _): &(LabelSet, i64, u64)| {
            (labels.as_ref().hash().slot(), labels.clone(), *ticks)
        };
        given.iter().map(key).is_sorted_by(|a, b| a < b)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// However samples lie (in memory, on their way to disk, in segments, several at one time), a walk gives each
        /// once and in order, in pieces of any length, with flushes between two pieces.
        #[test]
        fn a_walk_in_pieces_gives_what_is_there(
            samples in proptest::collection::vec((0u32..30, 0i64..40, 0u8..4), 1..300),
            every in 20usize..200,
            count in 1usize..60,
            shards in 1usize..3,
        ) {
            let disk = SimDisk::new(1);
            let mut stores: Vec<_> = (0..shards).map(|shard| open(&disk, shard, shards, &[])).collect();
            let mut expected: BTreeMap<(Slot, LabelSet, i64), u64> = BTreeMap::new();
            let mut id = 0;
            for (step, (n, ticks, value)) in samples.iter().enumerate() {
                let owner = set(*n).as_ref().hash().slot().owner(shards);
                put(&mut stores[owner], *n, at(*ticks, f64::from(*value)));
                let slot = set(*n).as_ref().hash().slot();
                expected.insert((slot, set(*n), *ticks), f64::from(*value).to_bits());
                if step % every == every - 1 {
                    id += 1;
                    flush(&mut stores[owner], &disk, id);
                }
            }
            let mut given_in_all = 0;
            for (shard, store) in stores.iter_mut().enumerate() {
                let range = all(EVER);
                let plan = plan(store, &range);
                let (mut given, mut place, mut pieces) = (Given::new(), Some(Place::default()), 0);
                while let Some(from) = place {
                    let (some, next) = give(store, &range, &plan, from, count);
                    given.extend(some);
                    place = next;
                    pieces += 1;
                    id += 1;
                    if pieces % 3 == 0 {
                        flush(store, &disk, id);
                    }
                }
                prop_assert!(in_order(&given));
                given_in_all += given.len();
                for (labels, ticks, bits) in given {
                    let slot = labels.as_ref().hash().slot();
                    prop_assert_eq!(slot.owner(shards), shard);
                    prop_assert_eq!(expected.get(&(slot, labels, ticks)), Some(&bits));
                }
            }
            prop_assert_eq!(given_in_all, expected.len());
        }
    }

    /// A walk that finds nothing for long still comes further, so that it may end and go on.
    #[test]
    fn a_walk_that_only_reads_blocks_moves_its_place() {
        let disk = SimDisk::new(1);
        let mut store = open(&disk, 0, 1, &[]);
        // Several blocks of rows.
        (0..3_000).for_each(|n| put(&mut store, n, at(1 << 20, 1.0)));
        flush(&mut store, &disk, 1);
        let selectors = vec![model::parse_matchers(r#"{n=~"none.*"}"#).unwrap()];
        let range = WalkRange { selectors, ..all(EVER) };
        let (plan, mut place, mut blocks) = (plan(&store, &range), Place::default(), 0);
        loop {
            let mut walk = store.walk(range.clone(), place.clone());
            while store.walk_on(&mut walk, &plan) == Walked::Block && *walk.place() == place {
                ready(walk.read_block());
                blocks += 1;
            }
            if *walk.place() == place {
                break;
            }
            assert!(walk.place().slot > place.slot);
            place = walk.place().clone();
        }
        assert!(blocks > 3, "{blocks}");
    }

    #[test]
    fn a_walk_gives_the_series_and_the_times_that_are_meant() {
        let disk = SimDisk::new(1);
        let mut store = open(&disk, 0, 1, &[]);
        for n in 0..20 {
            (0..10).for_each(|ms| put(&mut store, n, at(ms << 20, 1.0)));
        }
        flush(&mut store, &disk, 1);
        (0..20).for_each(|n| put(&mut store, n, at(10 << 20, 2.0)));
        let selector = |text: &str| model::parse_matchers(text).unwrap();
        let range = WalkRange {
            selectors: vec![
                selector(r#"{n="3"}"#),
                selector(r#"{n=~"1[0-2]"}"#),
                selector(r#"{n="3",x=""}"#),
            ],
            start: Timestamp::from_millis(8).unwrap(),
            end: Timestamp::from_millis(10).unwrap(),
        };
        let (given, end) = give(&store, &range, &plan(&store, &range), Place::default(), usize::MAX);
        assert_eq!((given.len(), end), (4 * 3, None));
        assert!(given.iter().all(|(labels, ..)| ["3", "10", "11", "12"].contains(&labels.as_ref().get("n"))));
        let nothing = WalkRange { selectors: vec![selector(r#"{__name__="mem"}"#)], ..range };
        let (given, _) = give(&store, &nothing, &plan(&store, &nothing), Place::default(), usize::MAX);
        assert!(given.is_empty());
    }
}
