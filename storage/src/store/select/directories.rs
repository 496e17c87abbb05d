//! What segments hold of a selection's series, slot by slot.
//!
//! A directory is sorted by slot, so the directories of all segments are read side by side, each a block at a
//! time, and the series of one slot are there once no directory has an unread block that reaches into it.
//! In memory are, per segment, the matching rows of a block, and of the next where a slot ends in that.

use super::Wanted;
use crate::disk::Disk;
use crate::segment::{SegmentError, SegmentReader, SegmentSeries};
use model::Slot;
use std::collections::VecDeque;
use std::rc::Rc;

/// See the head of this file.
pub(super) struct Directories<D: Disk> {
    /// Ids rising.
    segments: Vec<Rc<SegmentReader<D>>>,
    /// Of these segments it is known whether they may hold the name.
    asked: usize,
    /// Those that may.
    directories: Vec<Directory>,
    /// Of which directory [`Self::take`] takes.
    taking: usize,
    bytes: usize,
}

/// How far one segment's directory is read.
struct Directory {
    /// Index of the segment.
    segment: usize,
    /// The next block that may hold a series of the name, and its first slot.
    next: Option<(usize, Slot)>,
    /// Read and not yet taken, slots rising.
    found: VecDeque<SegmentSeries>,
}

/// Blocks whose names are looked at in one step, some 20 ns each; a segment is looked at whole.
const BLOCKS_PER_STEP: usize = 4096;

impl<D: Disk> Directories<D> {
    pub(super) fn new(segments: Vec<Rc<SegmentReader<D>>>) -> Directories<D> {
        Directories { segments, asked: 0, directories: Vec::new(), taking: 0, bytes: 0 }
    }

    /// Finds out of some segments whether they may hold the name; `false` when of all it is known.
    pub(super) fn ask_some(&mut self, wanted: &Wanted) -> bool {
        let mut blocks = 0;
        while blocks < BLOCKS_PER_STEP {
            let Some(segment) = self.segments.get(self.asked) else { return false };
            let may_hold = segment.may_hold(&wanted.pairs);
            let owned = |slot| wanted.owns(slot);
            let next = may_hold.then(|| segment.block_that_may_hold(0, &wanted.name, owned)).flatten();
            if next.is_some() {
                self.directories.push(Directory { segment: self.asked, next, found: VecDeque::new() });
            }
            self.asked += 1;
            blocks += 1 + segment.block_count();
        }
        true
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
        let (name, range) = (&wanted.name, (wanted.start, wanted.end));
        let owned = |slot: Slot| wanted.owns(slot);
        let found = segment.find_in_block(block, name, &wanted.matchers, range, owned, warnings).await;
        directory.next = segment.block_that_may_hold(block + 1, name, owned);
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
            + self.bytes
    }

    /// Lets go of what one directory has found; `false` when nothing is left.
    pub(super) fn let_go(&mut self) -> bool {
        self.bytes = 0;
        self.directories.pop().is_some()
    }
}
