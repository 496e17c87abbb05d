//! Series that have stopped leave memory, and the others stay as they are.
//!
//! ```text
//!   tick, stopped            some rows at a time: who has been silent for long     (memtable/stopped.rs)
//!   begin_part_flush         what they have in memory goes to a segment of its own, as any flush
//!   names_of_stopped         what the loops call them, some numbers at a time
//!     (the loops take the names back, behind the last sample that came under them)
//!   take_names_back          then no dictionary names them any more,
//!   forget_some              and those without a sample leave the table, some at a time
//! ```
//!
//! Each is done in steps of some hundred or thousand series, however many there are; what a step has seen may be other by
//! the next one, which looks again where that matters. The samples are taken away in one step, and the tables of series
//! and labels are made smaller in one, now and then.
//!
//! A flush of all series, an eighth of which have stopped, would write the others eight times as often as their samples
//! are worth it, and hold all of them twice meanwhile. The journals' positions stay where they are, for the others need
//! them: a start may find in a segment what it replays as well, and the newer of two equal samples counts.

use super::{FlushJob, NO_SERIES, Store};
use crate::disk::Disk;
use crate::memtable::{SeriesId, Silence};
use model::{MetricKind, SeriesHash, SeriesNumber, Share};

/// Rows looked at in one step.
const ROWS_PER_STEP: u32 = 4096;
/// Numbers of dictionaries looked at in one step.
const NUMBERS_PER_STEP: usize = 1 << 16;
/// Rows forgotten in one step.
const FORGOTTEN_PER_STEP: usize = 256;

/// The series of a store that have stopped, as far as it was looked.
#[derive(Debug, Default)]
pub struct Stopped {
    row: u32,
    /// Rising.
    ids: Vec<SeriesId>,
}

/// What the loops call series that have stopped, as far as it was looked.
#[derive(Debug)]
pub struct NamesOfStopped {
    are_meant: Vec<bool>,
    /// The loop and the number to be looked at next.
    loop_index: usize,
    number: usize,
    /// Those of one loop behind the other's.
    found: Vec<StoppedNames>,
}

impl NamesOfStopped {
    /// Loop by loop.
    pub fn end(self) -> Vec<StoppedNames> {
        self.found
    }
}

/// Series that are to leave the table.
#[derive(Debug)]
pub(super) struct Forgetting {
    /// Those that were not looked at yet.
    ids: Vec<SeriesId>,
    /// Which ids a dictionary names, as far as it was looked, and by what was defined meanwhile.
    are_named: Vec<bool>,
    /// The loop and the number to be looked at next.
    loop_index: usize,
    number: usize,
    /// Whether one has left, so that tables may be smaller.
    have_left: bool,
}

impl Forgetting {
    /// A loop names the series from now on.
    pub(super) fn keep(&mut self, id: SeriesId) {
        if let Some(is_named) = self.are_named.get_mut(id.0 as usize) {
            *is_named = true;
        }
    }
}

/// What one loop calls series that have stopped.
#[derive(Debug)]
pub struct StoppedNames {
    /// The loop.
    pub loop_index: usize,
    dictionary: u64,
    names: Vec<(SeriesNumber, SeriesId)>,
}

impl StoppedNames {
    fn is_of(&self, loop_index: usize, dictionary: u64) -> bool {
        (self.loop_index, self.dictionary) == (loop_index, dictionary)
    }
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
        let mut memtable = self.memtable.borrow_mut();
        let room = u32::try_from(count_max.saturating_sub(stopped.ids.len())).unwrap_or(u32::MAX);
        let until = memtable.id_end().min(stopped.row.saturating_add(ROWS_PER_STEP.min(room)));
        stopped.row = memtable.stopped_in(stopped.row..until, silence, |id| stopped.ids.push(id));
        stopped.row < memtable.id_end() && stopped.ids.len() < count_max
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

    /// Begins to look for what the loops call those of the series that have stopped.
    pub fn names_of_stopped(&self, stopped: &Stopped) -> NamesOfStopped {
        let mut are_meant = vec![false; self.memtable.borrow().id_end() as usize];
        for id in &stopped.ids {
            if let Some(is_meant) = are_meant.get_mut(id.0 as usize) {
                *is_meant = true;
            }
        }
        NamesOfStopped { are_meant, loop_index: 0, number: 0, found: Vec::new() }
    }

    /// Looks at some of the loops' numbers; `false` when all were looked at.
    pub fn find_names(&self, of: &mut NamesOfStopped) -> bool {
        let Some(numbers) = self.loops.get(of.loop_index) else { return false };
        let some = numbers.series.iter().enumerate().skip(of.number).take(NUMBERS_PER_STEP);
        let is_meant = |(_, id): &(usize, &SeriesId)| of.are_meant.get(id.0 as usize) == Some(&true);
        // There are far fewer numbers than a `u32` holds.
        let names = some.filter(is_meant).map(|(number, id)| (SeriesNumber(number as u32), *id));
        let names: Vec<_> = names.collect();
        if let Some(dictionary) = numbers.dictionary.filter(|_| !names.is_empty()) {
            let is_same = |last: &&mut StoppedNames| last.is_of(of.loop_index, dictionary);
            match of.found.last_mut().filter(is_same) {
                Some(last) => last.names.extend(names),
                None => of.found.push(StoppedNames { loop_index: of.loop_index, dictionary, names }),
            }
        }
        of.number += NUMBERS_PER_STEP;
        if of.number >= numbers.series.len() {
            (of.loop_index, of.number) = (of.loop_index + 1, 0);
        }
        of.loop_index < self.loops.len()
    }

    /// Looks at so many of those names and puts them into a share, for the loop to take them back: of those series that are
    /// silent still and have nothing in memory, which may be none. `false` when no name was left.
    pub fn take_some_names(
        &self,
        of: &mut StoppedNames,
        silence: Silence,
        count: usize,
        share: &mut Share,
    ) -> bool {
        let memtable = self.memtable.borrow();
        share.dictionary = of.dictionary;
        if of.names.is_empty() {
            return false;
        }
        for (number, id) in of.names.drain(of.names.len().saturating_sub(count)..) {
            let labels = memtable.labels(id).filter(|_| memtable.is_silent_and_empty(id, silence));
            // The kind says nothing here.
            if let Some(labels) = labels {
                share.define(number, MetricKind::Gauge, labels.to_label_set().as_ref());
            }
        }
        true
    }

    /// Begins to forget those of the series that have no sample in memory by now and that no dictionary names. What was
    /// begun before and has not ended is given up.
    pub fn begin_forgetting(&mut self, stopped: Stopped) {
        let are_named = vec![false; self.memtable.borrow().id_end() as usize];
        let forgetting =
            Forgetting { ids: stopped.ids, are_named, loop_index: 0, number: 0, have_left: false };
        self.forgetting = Some(forgetting);
    }

    /// Goes on with it; the hashes of those that have left are added. `false` when it has ended, or a flush has begun, which
    /// finds by the table what it writes: then the others stay.
    pub fn forget_some(&mut self, hashes: &mut Vec<SeriesHash>) -> bool {
        let Some(forgetting) = self.forgetting.as_mut().filter(|_| self.frozen.is_none()) else {
            self.forgetting = None;
            return false;
        };
        if let Some(numbers) = self.loops.get(forgetting.loop_index) {
            let some = numbers.series.iter().skip(forgetting.number).take(NUMBERS_PER_STEP);
            some.for_each(|id| forgetting.keep(*id));
            forgetting.number += NUMBERS_PER_STEP;
            if forgetting.number >= numbers.series.len() {
                (forgetting.loop_index, forgetting.number) = (forgetting.loop_index + 1, 0);
            }
            return true;
        }
        let rest = forgetting.ids.len().saturating_sub(FORGOTTEN_PER_STEP);
        let (ids, are_named) = (forgetting.ids.drain(rest..), &forgetting.are_named);
        let is_named = |id: SeriesId| are_named.get(id.0 as usize) != Some(&false);
        let mut memtable = self.memtable.borrow_mut();
        let before = hashes.len();
        hashes.extend(memtable.forget_some(ids, is_named));
        forgetting.have_left |= hashes.len() > before;
        if rest > 0 {
            return true;
        }
        if forgetting.have_left {
            memtable.give_back();
        }
        drop(memtable);
        self.forgetting = None;
        false
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
