//! What segments hold of a selection's series, slot by slot.
//!
//! A directory is sorted by slot and label set, so the directories of all segments are read side by side, each a block at a
//! time, and the series of one slot are there once no directory has an unread block that reaches into it. They are then
//! given in the order of their label sets, what several segments hold of one together, or looked up; nothing is allocated
//! series by series. Which rows are meant is asked of each segment's label index first, so only blocks in which one lies are read.
//! In memory are, per segment, a set of those rows, and what was read of a block, and of the next where a slot ends in that.

use super::Wanted;
use crate::disk::Disk;
use crate::segment::{ListedSeries, Rows, SegmentError, SegmentReader, SeriesList};
use model::{LabelSetRef, Slot};
use std::cmp::Ordering;
use std::ops::Range;
use std::rc::Rc;

/// See the head of this file.
pub(super) struct Directories<D: Disk> {
    /// Ids rising.
    segments: Vec<Rc<SegmentReader<D>>>,
    /// Of these segments it is known which rows are meant.
    asked: usize,
    /// What is known of the next one.
    asking: Option<Asking>,
    /// Those that may.
    directories: Vec<Directory>,
    /// Those that hold something of the slot at hand that was not given, older segments first.
    of_slot: Vec<usize>,
    /// The series at hand: by directory, older segments first, which of those that it has found.
    at_hand: Vec<(usize, usize)>,
    bytes: usize,
}

/// How far one segment's label index is searched.
#[derive(Default)]
struct Asking {
    part: usize,
    rows: Rows,
}

/// How far one segment's directory is read.
struct Directory {
    /// Index of the segment.
    segment: usize,
    /// Those that are meant, as far as its label index tells.
    rows: Rows,
    /// The next block in which one lies, and its first slot.
    next: Option<(usize, Slot)>,
    /// What was read and not dropped yet.
    found: SeriesList,
    /// How many of them were given.
    given: usize,
    /// Those of the slot at hand.
    of_slot: Range<usize>,
    /// Of these, in order, which were looked up and are not to be given again; empty where none was.
    looked_up: Vec<bool>,
}

/// Segments whose filters are asked in one step, some 20 ns each, where they say no.
const FILTERS_PER_STEP: usize = 4096;

impl<D: Disk> Directories<D> {
    pub(super) fn new(segments: Vec<Rc<SegmentReader<D>>>) -> Directories<D> {
        Directories {
            segments,
            asked: 0,
            asking: None,
            directories: Vec::new(),
            of_slot: Vec::new(),
            at_hand: Vec::new(),
            bytes: 0,
        }
    }

    /// Finds out which rows of the next segment are meant, a part of its label index at a time, or asks the filters of
    /// some; `false` when of all it is known.
    pub(super) async fn ask_some(&mut self, wanted: &Wanted, warnings: &mut Vec<SegmentError>) -> bool {
        if self.asking.is_none() {
            let rest = self.segments[self.asked..].iter().take(FILTERS_PER_STEP);
            let Some(holding) = rest.clone().position(|segment| segment.may_hold(&wanted.pairs)) else {
                self.asked += rest.len();
                return self.asked < self.segments.len();
            };
            self.asked += holding;
        }
        let segment = &self.segments[self.asked];
        let mut asking = self.asking.take().unwrap_or_default();
        if asking.part < segment.part_count() {
            segment.search_part(asking.part, &wanted.matchers, &mut asking.rows, warnings).await;
            asking.part += 1;
            self.asking = Some(asking);
            return true;
        }
        let mut rows = asking.rows;
        segment.add_unindexed_rows(&wanted.name, &mut rows);
        let next = segment.next_block(0, &rows, |slot| wanted.owns(slot));
        if next.is_some() {
            self.bytes += rows.bytes();
            self.directories.push(Directory {
                segment: self.asked,
                rows,
                next,
                found: SeriesList::default(),
                given: 0,
                of_slot: 0..0,
                looked_up: Vec::new(),
            });
        }
        self.asked += 1;
        self.asked < self.segments.len()
    }

    /// Whether no segment holds the name.
    pub(super) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// The segment of that index.
    pub(super) fn segment(&self, index: usize) -> &Rc<SegmentReader<D>> {
        &self.segments[index]
    }

    /// The lowest slot that may still hold something.
    pub(super) fn next_slot(&self) -> Option<Slot> {
        let of = |directory: &Directory| {
            let found = directory.found.slot(directory.given);
            found.or(directory.next.map(|(_, slot)| slot))
        };
        self.directories.iter().filter_map(of).min()
    }

    /// The lowest slot of which something was found and not given, if all of it is found.
    pub(super) fn next_found_slot(&self) -> Option<Slot> {
        let (mut found, mut unread) = (None, None);
        let least = |slot: Option<Slot>, other: Option<Slot>| slot.into_iter().chain(other).min();
        for directory in &self.directories {
            found = least(found, directory.found.slot(directory.given));
            unread = least(unread, directory.next.map(|(_, first)| first));
        }
        found.filter(|found| unread.is_none_or(|unread| *found < unread))
    }

    /// Reads one block that may reach into the slot; `false` when there is none: then all of the slot is found.
    pub(super) async fn read_some(
        &mut self,
        slot: Slot,
        wanted: &Wanted,
        warnings: &mut Vec<SegmentError>,
    ) -> bool {
        let reaches = |directory: &&mut Directory| directory.next.is_some_and(|(_, first)| first <= slot);
        let Some(directory) = self.directories.iter_mut().find(reaches) else { return false };
        let Some((block, _)) = directory.next else { return false };
        let segment = &self.segments[directory.segment];
        let rows = &directory.rows;
        let owned = |slot: Slot| wanted.owns(slot);
        let before = directory.found.bytes();
        // What was given of the block before goes, so the list stays as long as two blocks.
        directory.found.drop_first(std::mem::take(&mut directory.given));
        let into = (&mut directory.found, warnings);
        segment.find_in_block(block, rows, &wanted.matchers, owned, into).await;
        directory.next = segment.next_block(block + 1, rows, owned);
        self.bytes += directory.found.bytes() - before;
        true
    }

    /// The series of that slot are those to be given, and all of it is found.
    pub(super) fn begin_slot(&mut self, slot: Slot) {
        self.of_slot.clear();
        for (at, directory) in self.directories.iter_mut().enumerate() {
            let mut end = directory.given;
            while directory.found.slot(end).is_some_and(|found| found <= slot) {
                end += 1;
            }
            directory.looked_up.clear();
            directory.of_slot = directory.given..end;
            if end > directory.given {
                self.of_slot.push(at);
            }
        }
    }

    /// Gives what segments hold of a series of the slot, older segments first; it is not given again.
    pub(super) fn look_up(
        &mut self,
        labels: LabelSetRef<'_>,
        mut take: impl FnMut((usize, &SegmentReader<D>), ListedSeries<'_>),
    ) {
        for at in &self.of_slot {
            let Directory { segment, found, of_slot, looked_up, .. } = &mut self.directories[*at];
            let (mut from, mut until) = (of_slot.start, of_slot.end);
            while from < until {
                let middle = from + (until - from) / 2;
                match found.labels(middle).map_or(Ordering::Greater, |found| found.cmp(&labels)) {
                    Ordering::Less => from = middle + 1,
                    Ordering::Greater => until = middle,
                    Ordering::Equal => {
                        looked_up.resize(of_slot.len(), false);
                        looked_up[middle - of_slot.start] = true;
                        if let Some(series) = found.get(middle) {
                            take((*segment, &self.segments[*segment]), series);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Comes to the next series of the slot that was not looked up; `false` when there is none.
    pub(super) fn next_series(&mut self) -> bool {
        self.at_hand.clear();
        let mut first: Option<LabelSetRef<'_>> = None;
        let mut is_over = true;
        for at in &self.of_slot {
            let directory = &mut self.directories[*at];
            let Range { start, end } = directory.of_slot;
            while directory.given < end
                && directory.looked_up.get(directory.given - start).is_some_and(|is| *is)
            {
                directory.given += 1;
            }
        }
        for at in &self.of_slot {
            let Directory { found, given, of_slot, .. } = &self.directories[*at];
            let Some(labels) = found.labels(*given).filter(|_| *given < of_slot.end) else { continue };
            is_over = false;
            match first.map_or(Ordering::Less, |first| labels.cmp(&first)) {
                Ordering::Less => {
                    first = Some(labels);
                    self.at_hand.clear();
                    self.at_hand.push((*at, *given));
                }
                Ordering::Equal => self.at_hand.push((*at, *given)),
                Ordering::Greater => {}
            }
        }
        for (at, _) in &self.at_hand {
            self.directories[*at].given += 1;
        }
        !is_over
    }

    /// What segments hold of the series at hand, older segments first.
    pub(super) fn at_hand(&self) -> impl Iterator<Item = ((usize, &SegmentReader<D>), ListedSeries<'_>)> {
        self.at_hand.iter().filter_map(|(at, index)| {
            let Directory { segment, found, .. } = &self.directories[*at];
            Some(((*segment, &*self.segments[*segment]), found.get(*index)?))
        })
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Rc<SegmentReader<D>>>()
            + self.directories.capacity() * size_of::<Directory>()
            + self.asking.as_ref().map_or(0, |asking| asking.rows.bytes())
            + self.bytes
    }

    /// Lets go of what one directory has found; `false` when nothing is left.
    pub(super) fn let_go(&mut self) -> bool {
        (self.bytes, self.asking) = (0, None);
        (self.of_slot, self.at_hand) = (Vec::new(), Vec::new());
        self.directories.pop().is_some()
    }
}
