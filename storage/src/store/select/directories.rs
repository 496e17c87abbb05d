//! What segments hold of a selection's series, slot by slot.
//!
//! A directory is sorted by slot, so the directories of all segments are read side by side, each a block at a
//! time, and the series of one slot are there once no directory has an unread block that reaches into it.
//! Which rows are meant is asked of each segment's label index first, so only blocks in which one lies are read.
//! In memory are, per segment, a set of those rows, and what was read of a block, and of the next where a slot ends in that.

use super::Wanted;
use crate::disk::Disk;
use crate::segment::{Rows, SegmentError, SegmentReader, SegmentSeries};
use model::Slot;
use std::collections::VecDeque;
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
    /// Of which directory [`Self::take`] takes.
    taking: usize,
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
    /// Read and not yet taken, slots rising.
    found: VecDeque<SegmentSeries>,
}

/// Segments whose filters are asked in one step, some 20 ns each, where they say no.
const FILTERS_PER_STEP: usize = 4096;

impl<D: Disk> Directories<D> {
    pub(super) fn new(segments: Vec<Rc<SegmentReader<D>>>) -> Directories<D> {
        Directories { segments, asked: 0, asking: None, directories: Vec::new(), taking: 0, bytes: 0 }
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
            self.directories.push(Directory { segment: self.asked, rows, next, found: VecDeque::new() });
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
            let found = directory.found.front().map(|series| series.slot);
            found.or(directory.next.map(|(_, slot)| slot))
        };
        self.directories.iter().filter_map(of).min()
    }

    /// Reads one block that may reach into the slot; `false` when there is none: then all of the slot is found.
    pub(super) async fn read_some(
        &mut self,
        slot: Slot,
        wanted: &Wanted,
        warnings: &mut Vec<SegmentError>,
    ) -> bool {
        let reaches = |directory: &&mut Directory| directory.next.is_some_and(|(_, first)| first <= slot);
        let Some(directory) = self.directories.iter_mut().find(reaches) else {
            self.taking = 0;
            return false;
        };
        let Some((block, _)) = directory.next else { return false };
        let segment = &self.segments[directory.segment];
        let (rows, range) = (&directory.rows, (wanted.start, wanted.end));
        let owned = |slot: Slot| wanted.owns(slot);
        let found = segment.find_in_block(block, rows, &wanted.matchers, range, owned, warnings).await;
        directory.next = segment.next_block(block + 1, rows, owned);
        self.bytes += found.iter().map(SegmentSeries::bytes).sum::<usize>();
        directory.found.extend(found);
        true
    }

    /// The next series of the slot, and the index of its segment: older segments first.
    pub(super) fn take(&mut self, slot: Slot) -> Option<(usize, SegmentSeries)> {
        while let Some(directory) = self.directories.get_mut(self.taking) {
            if let Some(series) = directory.found.pop_front_if(|series| series.slot <= slot) {
                self.bytes -= series.bytes();
                return Some((directory.segment, series));
            }
            self.taking += 1;
        }
        None
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
        self.directories.pop().is_some()
    }
}
