//! From memory to a segment: freeze, write, switch.
//!
//! ```text
//!   begin_flush   memtable ──► frozen            queries read memtable + frozen + segments
//!   run           frozen ──► file, synced        the executor does other work between steps
//!   (the caller names the segment in the manifest)
//!   finish_flush  frozen ──► segment             in one step, so no query sees both or neither
//!   abort_flush   frozen stays                   and the next begin_flush writes it again
//!   (begin_part_flush takes some series alone, and all else is the same: `stopped.rs`)
//! ```

use super::{ReadOn, Store};
use crate::disk::Disk;
use crate::memtable::{CameAgain, Frozen, SeriesId};
use crate::segment::{
    SegmentEntry, SegmentError, SegmentReader, part_bytes_max, segment_path, write_segment,
};
use model::SeriesHash;
use std::rc::Rc;

/// The work of one flush, free of the store so that the store goes on meanwhile.
pub struct FlushJob {
    id: u64,
    shard: u16,
    shards: u16,
    /// Of the label index, held while it is written.
    part_bytes_max: usize,
    frozen: Rc<Frozen>,
    is_retry: bool,
}

/// A segment that is written, on the device, and open.
pub struct Flushed<D: Disk> {
    reader: Rc<SegmentReader<D>>,
    came_again: CameAgain,
}

impl<D: Disk> Flushed<D> {
    /// What the manifest is to keep.
    pub fn entry(&self) -> &SegmentEntry {
        self.reader.entry()
    }

    /// Samples in the segment.
    pub fn sample_count(&self) -> u64 {
        self.reader.sample_count()
    }

    /// Of which late samples it has turned out by the writing that they had come again.
    pub fn came_again(&self) -> CameAgain {
        self.came_again
    }
}

impl FlushJob {
    /// Whether it writes some of the series only: then no journal's position belongs to it.
    pub fn is_part(&self) -> bool {
        self.frozen.is_part()
    }

    /// The hashes of the series that the freeze of this very job dropped from the table.
    pub fn forgotten(&self) -> &[SeriesHash] {
        if self.is_retry { &[] } else { self.frozen.forgotten() }
    }

    /// Whether this writes what a failed flush left. Journal positions taken for that one hold for this
    /// one; positions taken now do not.
    pub fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// Ends the job. If nobody else can ask for the samples any more, neither the store nor a query, they are given,
    /// to be let go of step by step.
    pub fn end(self) -> Option<Frozen> {
        Rc::into_inner(self.frozen)
    }

    /// Writes the segment, syncs it and opens it again, which checks what was written.
    pub async fn run<D: Disk>(&self, disk: &D) -> Result<Flushed<D>, SegmentError> {
        let (written, came_again) =
            write_segment(disk, self.id, (self.shard, self.shards), self.part_bytes_max, &self.frozen)
                .await?;
        let reader = SegmentReader::open(disk, self.id).await?;
        if *reader.entry() != written {
            let path = segment_path(self.id);
            let what = "the footer is not what was written";
            return Err(SegmentError::Damaged { path, offset: 0, series: None, what });
        }
        Ok(Flushed { reader: Rc::new(reader), came_again })
    }
}

impl<D: Disk> Store<D> {
    /// Freezes the whole memtable, to be written as segment `id`, which must be above every earlier one.
    ///
    /// `None` while another flush is under way, and when there is nothing to write. Series without a
    /// sample in this and the previous cycle are forgotten, but for those that a loop's dictionary names.
    pub fn begin_flush(&mut self, id: u64) -> Option<FlushJob> {
        if self.flushing {
            return None;
        }
        let is_retry = self.frozen.is_some();
        if !is_retry {
            self.parted_bytes = 0;
        }
        let frozen = match &self.frozen {
            Some(frozen) => frozen.clone(),
            None if !self.memtable.borrow().has_samples() => return None,
            None => {
                let named = self.named_series();
                let is_named = |id: SeriesId| named.get(id.0 as usize) == Some(&true);
                let frozen = self.memtable.borrow_mut().freeze(is_named);
                self.freezes += 1;
                self.frozen.insert(frozen).clone()
            }
        };
        Some(self.flush_of(id, frozen, is_retry))
    }

    pub(super) fn flush_of(&mut self, id: u64, frozen: Rc<Frozen>, is_retry: bool) -> FlushJob {
        self.flushing = true;
        let part_bytes_max = part_bytes_max(self.options.memory_bytes_max);
        // `Store::new` has checked that both fit.
        let (shard, shards) = (self.shard as u16, self.shards as u16);
        FlushJob { id, shard, shards, part_bytes_max, frozen, is_retry }
    }

    /// The manifest names the segment: queries that begin from now on read it, and the memory is free as soon as
    /// those let go of it that began before.
    pub fn finish_flush(&mut self, flushed: Flushed<D>) {
        self.read_on.retain(|kept| kept.part.strong_count() > 0);
        let number = self.freezes;
        let read_on = |frozen: Rc<Frozen>| {
            let bytes = frozen.bytes() + frozen.label_bytes();
            ReadOn { part: Rc::downgrade(&frozen), number, bytes }
        };
        self.read_on.extend(self.frozen.take().map(read_on));
        self.flushing = false;
        self.segments.push(flushed.reader);
        self.sort_segments();
    }

    /// The flush failed, in writing or in naming the segment: what it would have written stays in memory.
    pub fn abort_flush(&mut self) {
        self.flushing = false;
    }
}
