//! What clients sent and were told, and what therefore may stand on the disk.
//!
//! Always: every value but a deliberate repetition is unique, so a stored sample names the batch it came with.

use model::{LabelSet, Stamp, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How far a batch must be before its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Handed to the kernel.
    Written,
    /// On the device.
    Synced,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The kernel goes on: what it was handed stays.
    Kill,
    /// What was not synced may be lost, sector by sector; the outcome's seed.
    PowerCut(u64),
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Accepted; nobody was told anything.
    OnItsWay,
    /// Answered with success.
    Answered(Level),
    /// Answered with success at `written`; then a sync failed and its place in the journal was abandoned.
    Abandoned,
    /// Answered with an error after it had a place in the journal; the highest level answered on the same
    /// loop since.
    Refused { followed: Option<Level> },
    /// A restart has shown it: it stays for ever.
    Durable,
    /// A restart has not shown it: it never comes again.
    Gone,
}

/// One sample of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Which series, by its number in the script.
    pub(crate) series: u32,
    /// Its time, as the loop gave it.
    pub(crate) ticks: i64,
    /// Its value's bits.
    pub(crate) bits: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) loop_index: usize,
    pub(crate) run: u64,
    pub(crate) level: Level,
    /// Absent until its frame is sealed.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) rows: Vec<Row>,
    pub(crate) fate: Fate,
    /// In the rings, to be seen.
    pub(crate) published: bool,
    /// Published when a flush began, which may have taken it.
    pub(crate) frozen: bool,
    /// Executors whose part of it is in a segment that the manifest names.
    pub(crate) kept_by: BTreeSet<usize>,
}

/// What a reopened directory holds: by series and ticks the value's bits.
pub(crate) type Contents = BTreeMap<(LabelSet, i64), u64>;

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) batches: Vec<Batch>,
    /// Parts of deletes that a manifest names, or may name.
    pub(crate) deletions: Vec<Deletion>,
}

/// One executor's part of a delete.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    /// Batches that were there when it was made; those that came later it does not touch.
    hides: BTreeSet<usize>,
    millis: (i64, i64),
    /// Which series of the script; new ones come later.
    series: BTreeSet<u32>,
    /// A manifest names it; otherwise one may.
    is_done: bool,
}

impl Deletion {
    pub(crate) fn new(hides: BTreeSet<usize>, millis: (i64, i64), series: BTreeSet<u32>) -> Deletion {
        Deletion { hides, millis, series, is_done: false }
    }

    /// Whether the batch was there.
    pub(crate) fn hides(&self, batch: usize) -> bool {
        self.hides.contains(&batch)
    }

    pub(crate) fn done(self) -> Deletion {
        Deletion { is_done: true, ..self }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    fn means(&self, row: &Row) -> bool {
        let (start, end) = self.millis;
        self.series.contains(&row.series)
            && (start..=end).contains(&Timestamp::from_ticks(row.ticks).millis())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Must,
    May,
    Never,
}

impl Batch {
    fn duty(&self, crash: Crash) -> Duty {
        let survives = |level: Level| level == Level::Synced || crash == Crash::Kill;
        if self.stamp.is_none() {
            return Duty::Never;
        }
        match self.fate {
            Fate::Durable => Duty::Must,
            Fate::Gone => Duty::Never,
            Fate::Answered(level) if survives(level) => Duty::Must,
            Fate::Refused { followed: Some(level) } if survives(level) && !self.frozen => Duty::Never,
            Fate::Answered(_) | Fate::OnItsWay | Fate::Abandoned | Fate::Refused { .. } => Duty::May,
        }
    }

    /// Whether all of it is in segments.
    pub(crate) fn is_kept(&self, shards: usize, labels_of: impl Fn(u32) -> LabelSet) -> bool {
        let owners = self.rows.iter().map(|row| labels_of(row.series).as_ref().hash().slot().owner(shards));
        owners.into_iter().all(|owner| self.kept_by.contains(&owner))
    }

    /// Whether a part of it alone may be there: it was seen before its place in the journal was abandoned.
    fn may_be_split(&self) -> bool {
        matches!(self.fate, Fate::Abandoned | Fate::Refused { .. })
    }
}

/// One write to one place, in the order in which they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Write {
    stamp: Option<Stamp>,
    batch: usize,
    row: usize,
    bits: u64,
}

impl Record {
    /// Batches of a run that were answered with success.
    pub(crate) fn answered_of(&self, run: u64) -> Vec<usize> {
        let is_answered = |batch: &Batch| batch.run == run && matches!(batch.fate, Fate::Answered(_));
        (0..self.batches.len()).filter(|at| is_answered(&self.batches[*at])).collect()
    }

    /// Whether a row of the batch is of what the delete means.
    pub(crate) fn has_row_of(&self, batch: usize, deletion: &Deletion) -> bool {
        self.batches[batch].rows.iter().any(|row| deletion.means(row))
    }

    /// The writes to each place, but for those that are deleted.
    fn writes(&self, labels_of: impl Fn(u32) -> LabelSet) -> BTreeMap<(LabelSet, i64), Vec<Write>> {
        let mut writes: BTreeMap<(LabelSet, i64), Vec<Write>> = BTreeMap::new();
        for (at, batch) in self.batches.iter().enumerate() {
            for (row_at, row) in batch.rows.iter().enumerate() {
                let hides =
                    |deletion: &Deletion| deletion.is_done && deletion.hides(at) && deletion.means(row);
                if self.deletions.iter().any(hides) {
                    continue;
                }
                let write = Write { stamp: batch.stamp, batch: at, row: row_at, bits: row.bits };
                writes.entry((labels_of(row.series), row.ticks)).or_default().push(write);
            }
        }
        writes.values_mut().for_each(|writes| writes.sort_unstable());
        writes
    }

    /// Every write to a place, for a message.
    pub(crate) fn story(&self, place: &(LabelSet, i64), labels_of: impl Fn(u32) -> LabelSet) -> String {
        let writes = self.writes(labels_of).remove(place).unwrap_or_default();
        let tell = |write: &Write| {
            let batch = &self.batches[write.batch];
            let Write { stamp, batch: at, row, bits } = write;
            format!(
                "\n  {} in row {row} of {at}: {:?}, {stamp:?}, {}",
                f64::from_bits(*bits),
                batch.fate,
                batch.published
            )
        };
        writes.iter().map(tell).collect()
    }

    /// What a server of that run may show at each place once everything published was drained: the last
    /// write, or one of an earlier run of which no restart could tell whether it stayed.
    pub(crate) fn visible(
        &self,
        run: u64,
        oldest: i64,
        labels_of: impl Fn(u32) -> LabelSet,
    ) -> BTreeMap<(LabelSet, i64), Vec<Option<u64>>> {
        let places = self.writes(labels_of).into_iter().filter(|((_, ticks), _)| *ticks >= oldest);
        let shown = |writes: Vec<Write>| {
            let mut possible = vec![None];
            for write in writes {
                let batch = &self.batches[write.batch];
                match batch.fate {
                    Fate::Durable => possible = vec![Some(write.bits)],
                    Fate::Gone => {}
                    _ if batch.run == run && batch.published => possible = vec![Some(write.bits)],
                    _ if batch.run == run => {}
                    _ => possible.push(Some(write.bits)),
                }
            }
            possible
        };
        places.map(|(place, writes)| (place, shown(writes))).collect()
    }

    /// Holds what a reopened directory shows against what was answered, and notes what that settles. Of each delete that
    /// was on its way all of an executor's part was carried out, or none: where both would show the same, either will do.
    pub(crate) fn check(
        &mut self,
        crash: Crash,
        contents: &Contents,
        oldest: i64,
        labels_of: impl Fn(u32) -> LabelSet,
    ) -> Result<(), String> {
        let (done, open): (Vec<Deletion>, Vec<Deletion>) =
            self.deletions.drain(..).partition(Deletion::is_done);
        assert!(open.len() < 12, "each possibility is tried");
        let mut outcome = Ok(());
        for which in 0..1u32 << open.len() {
            let taken = open.iter().enumerate().filter(|(at, _)| which >> at & 1 == 1);
            let taken = taken.map(|(_, deletion)| deletion.clone().done());
            let mut possible = Record {
                batches: self.batches.clone(),
                deletions: done.iter().cloned().chain(taken).collect(),
            };
            outcome = possible.check_settled(crash, contents, oldest, &labels_of);
            if outcome.is_ok() {
                *self = possible;
                break;
            }
        }
        outcome
    }

    fn check_settled(
        &mut self,
        crash: Crash,
        contents: &Contents,
        oldest: i64,
        labels_of: impl Fn(u32) -> LabelSet,
    ) -> Result<(), String> {
        let writes = self.writes(&labels_of);
        for (place, bits) in contents {
            if !writes.contains_key(place) {
                return Err(format!("{place:?} = {} was never sent, or is deleted", f64::from_bits(*bits)));
            }
        }
        let duty: Vec<Duty> = self.batches.iter().map(|batch| batch.duty(crash)).collect();
        let mut seen = vec![false; self.batches.len()];
        let mut missing = vec![false; self.batches.len()];
        for (place, writes) in writes.iter().filter(|((_, ticks), _)| *ticks >= oldest) {
            let must = writes.iter().rposition(|write| duty[write.batch] == Duty::Must);
            let found = contents.get(place);
            let tell = |what: &str| {
                let writes: Vec<_> = writes
                    .iter()
                    .map(|w| (w.batch, f64::from_bits(w.bits), w.stamp, self.batches[w.batch].fate))
                    .collect();
                Err(format!(
                    "{what}: {place:?} holds {:?}, written {writes:?}",
                    found.map(|b| f64::from_bits(*b))
                ))
            };
            let Some(&bits) = found else {
                if must.is_some() {
                    return tell("an answered sample is missing");
                }
                writes.iter().for_each(|write| missing[write.batch] = true);
                continue;
            };
            let counts = &writes[must.unwrap_or(0)..];
            if !counts.iter().any(|write| write.bits == bits && duty[write.batch] != Duty::Never) {
                return tell("an answered sample was changed, or what was refused or gone came back");
            }
            let mut last = None;
            for (at, write) in writes.iter().enumerate() {
                if write.bits == bits && duty[write.batch] != Duty::Never {
                    last = Some(at);
                }
            }
            let last = last.unwrap_or(0);
            let alone = writes.iter().filter(|write| write.bits == bits).count() == 1;
            if alone {
                seen[writes[last].batch] = true;
            }
            writes[last + 1..].iter().for_each(|write| missing[write.batch] = true);
        }
        let mut gap: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        for (at, batch) in self.batches.iter_mut().enumerate() {
            if duty[at] == Duty::Must {
                // Answered at this level once, it is promised at every level from now on.
                batch.fate = Fate::Durable;
            } else if !seen[at] && !missing[at] && duty[at] == Duty::May {
                // Overwritten, repeated, or too old: whether it is there nobody can see. A power cut may have taken it, so
                // that a later kill, which takes nothing, need not find it.
                if let Fate::Answered(_) = batch.fate {
                    batch.fate = Fate::OnItsWay;
                }
                continue;
            }
            if duty[at] != Duty::May {
                continue;
            }
            if seen[at] && missing[at] && !batch.may_be_split() {
                return Err(format!("half of a batch is there: {at} {batch:?}"));
            }
            if !batch.may_be_split() {
                let place = (batch.loop_index, batch.run);
                if missing[at] {
                    gap.entry(place).or_insert(at);
                } else if let Some(lost) = gap.get(&place) {
                    return Err(format!("batch {at} is there, and {lost} before it on its loop is not"));
                }
            }
            if batch.fate == Fate::Abandoned || !(seen[at] && missing[at]) {
                batch.fate = if seen[at] { Fate::Durable } else { Fate::Gone };
            }
        }
        Ok(())
    }

    /// A loop has answered: what it refused before is told apart from it by a new file's head.
    pub(crate) fn answered(&mut self, at: usize, level: Level) {
        let (loop_index, run) = (self.batches[at].loop_index, self.batches[at].run);
        self.batches[at].fate = Fate::Answered(level);
        for batch in self.batches.iter_mut().filter(|b| b.loop_index == loop_index && b.run == run) {
            if let Fate::Refused { followed } = &mut batch.fate {
                *followed = (*followed).max(Some(level));
            }
        }
    }

    /// A loop has answered with an error.
    pub(crate) fn refused(&mut self, at: usize) {
        self.batches[at].fate = Fate::Refused { followed: None };
    }

    /// The manifest names a segment of an executor, with the shares of those stamps. What was answered and then
    /// lost by its journal is safe again.
    pub(crate) fn kept(
        &mut self,
        executor: usize,
        shards: usize,
        stamps: &BTreeSet<Stamp>,
        labels_of: impl Fn(u32) -> LabelSet,
    ) {
        for batch in &mut self.batches {
            if batch.stamp.is_some_and(|stamp| stamps.contains(&stamp)) {
                batch.kept_by.insert(executor);
                if batch.fate == Fate::Abandoned && batch.is_kept(shards, &labels_of) {
                    batch.fate = Fate::Answered(Level::Synced);
                }
            }
        }
    }

    /// Batches that were answered, that a journal has lost, and that are in no segment yet.
    pub(crate) fn abandoned(&self, run: u64) -> usize {
        self.batches.iter().filter(|batch| batch.run == run && batch.fate == Fate::Abandoned).count()
    }

    /// An executor froze its memtable.
    pub(crate) fn froze(&mut self) {
        for batch in &mut self.batches {
            batch.frozen |= batch.published;
        }
    }
}
