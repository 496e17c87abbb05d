//! Series that have stopped leave memory, and the others stay as they are.
//!
//! ```text
//!   tick, stopped            some rows at a time: who has been silent for long     (memtable/stopped.rs)
//!   begin_part_flush         what they have in memory goes to a segment of its own, as any flush
//!   names_of_stopped         what the loops call those that have none in memory by now
//!     (the loops take the names back, behind the last sample that came under them)
//!   take_names_back          then no dictionary names them any more,
//!   forget_idle              and they leave the table
//! ```
//!
//! A flush of all series, an eighth of which have stopped, would write the others eight times as often as their samples
//! are worth it, and hold all of them twice meanwhile. The journals' positions stay where they are, for the others need
//! them: a start may find in a segment what it replays as well, and the newer of two equal samples counts.

use super::{FlushJob, NO_SERIES, Store};
use crate::disk::Disk;
use crate::memtable::{SeriesId, Silence};
use model::{MetricKind, SeriesNumber, Share};

/// Rows looked at in one step.
const ROWS_PER_STEP: u32 = 4096;

/// The series of a store that have stopped, as far as it was looked.
#[derive(Debug, Default)]
pub struct Stopped {
    row: u32,
    /// Rising.
    ids: Vec<SeriesId>,
}

/// What one loop calls series that have stopped.
#[derive(Debug)]
pub struct StoppedNames {
    /// The loop.
    pub loop_index: usize,
    dictionary: u64,
    names: Vec<(SeriesNumber, SeriesId)>,
}

impl Stopped {
    /// How many were found.
    pub fn count(&self) -> usize {
        self.ids.len()
    }
}

impl<D: Disk> Store<D> {
    /// The clock by which series fall silent goes on by one tick.
    pub fn tick(&mut self) {
        self.memtable.borrow_mut().tick();
    }

    /// Looks for more series that have stopped, until `count_max` are found; `false` when there is nothing more to look at.
    pub fn find_stopped(&self, silence: Silence, count_max: usize, stopped: &mut Stopped) -> bool {
        let memtable = self.memtable.borrow();
        let room = u32::try_from(count_max.saturating_sub(stopped.ids.len())).unwrap_or(u32::MAX);
        let until = memtable.id_end().min(stopped.row.saturating_add(ROWS_PER_STEP.min(room)));
        memtable.stopped_in(stopped.row..until, silence, |id| stopped.ids.push(id));
        stopped.row = until;
        until < memtable.id_end() && stopped.ids.len() < count_max
    }

    /// Takes the samples of those series alone, to be written as segment `id`, which must be above every earlier one: no
    /// journal's position belongs to it. `None` while any part of memory is on its way, and where nothing is to be written.
    pub fn begin_part_flush(&mut self, id: u64, silence: Silence, stopped: &Stopped) -> Option<FlushJob> {
        if self.frozen.is_some() {
            return None;
        }
        let frozen = self.memtable.borrow_mut().freeze_stopped(&stopped.ids, silence)?;
        self.freezes += 1;
        self.parted_bytes += frozen.bytes();
        self.frozen = Some(frozen.clone());
        Some(self.flush_of(id, frozen, false))
    }

    /// Bytes of memory that went to segments by parts, and that a start replays all the same: no flush of all samples and no
    /// checkpoint has come since.
    pub fn parted_bytes(&self) -> usize {
        self.parted_bytes
    }

    /// A checkpoint counts: a start replays what came since.
    pub fn checkpointed(&mut self) {
        self.parted_bytes = 0;
    }

    /// What the loops call those of the series that have nothing in memory. It costs a look at every number.
    pub fn names_of_stopped(&self, silence: Silence, stopped: &Stopped) -> Vec<StoppedNames> {
        let memtable = self.memtable.borrow();
        let mut are_meant = vec![false; memtable.id_end() as usize];
        for id in stopped.ids.iter().filter(|id| memtable.is_silent_and_empty(**id, silence)) {
            are_meant[id.0 as usize] = true;
        }
        let mut all = Vec::new();
        for (loop_index, numbers) in self.loops.iter().enumerate() {
            let Some(dictionary) = numbers.dictionary else { continue };
            let names = (0u32..).map(SeriesNumber).zip(numbers.series.iter().copied());
            let is_meant = |(_, id): &(SeriesNumber, SeriesId)| are_meant.get(id.0 as usize) == Some(&true);
            let names: Vec<_> = names.filter(is_meant).collect();
            if !names.is_empty() {
                all.push(StoppedNames { loop_index, dictionary, names });
            }
        }
        all
    }

    /// Puts some of those names into a share, for the loop to take them back; `false` when none is left.
    pub fn take_some_names(&self, of: &mut StoppedNames, count: usize, share: &mut Share) -> bool {
        let memtable = self.memtable.borrow();
        share.dictionary = of.dictionary;
        for (number, id) in of.names.drain(of.names.len().saturating_sub(count)..) {
            // The kind says nothing here.
            if let Some(labels) = memtable.labels(id) {
                share.define(number, MetricKind::Gauge, labels.to_label_set().as_ref());
            }
        }
        !share.is_empty()
    }

    /// The loop uses the numbers that a share defines no more, and everything that came under them is applied.
    pub fn take_names_back(&mut self, loop_index: usize, share: &Share) {
        let Some(numbers) = self.loops.get_mut(loop_index) else { return };
        if numbers.dictionary != Some(share.dictionary) {
            return;
        }
        for (number, ..) in share.definitions() {
            if let Some(id) = numbers.series.get_mut(number.0 as usize) {
                *id = NO_SERIES;
            }
        }
    }
}
