//! The server in small, on one thread: loops with their journals, executors with their stores, the keeper.
//!
//! It makes the calls that the server's `front`, `service` and `launch` make, in their order; a step is what
//! there happens without a wait. What it answers and refuses stands in the [`Record`].

use super::record::{Batch, Contents, Crash, Fate, Level, Record, Row};
use super::script::{Random, rest};
use super::start::{NotStarted, start};
use model::{LabelSet, MetricKind, Sample, SeriesHash, SeriesNumber, Share, Stamp, StampClock, Timestamp};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use storage::checkpoint::{
    CHECKPOINTS_FOLDER, CheckpointEntry, CheckpointError, CheckpointJob, Pace, checkpoint_path,
};
use storage::compact::{Merge, Windows, expired};
use storage::disk::{Disk as _, DiskFile as _, SimDisk, SimFile, ready};
use storage::journal::{
    self, JournalLimits, JournalPosition, NextFile, Reserve, Sync, Writer, batch_bytes_max,
};
use storage::manifest::{Manifest, may_be_stored};
use storage::segment::{SEGMENTS_FOLDER, segment_path};
use storage::store::{FlushJob, Flushed, Piece, Store};

/// Samples older than this are hidden, and segments of such samples dropped.
const RETENTION_MS: i64 = 6_000;
/// How long after its end a window may still be written into.
const GRACE_MS: i64 = 100;
/// Steps of a merge between two steps of the script: few, so that flushes, queries and retention come between.
const MERGE_STEPS: usize = 40;
/// Steps of a checkpoint between two of the script, and little in each, so that samples come while series are written.
const CHECKPOINT_STEPS: usize = 8;
const PACE: Pace = Pace { rows_per_step: 1, block_bytes: 100 };
const BEGIN_MS: i64 = 1_700_000_000_000;
const NAMES: [&str; 2] = ["cpu", "mem"];
const LIMITS: JournalLimits = JournalLimits {
    file_bytes_min: 6 * 1024,
    file_bytes_max: 12 * 1024,
    dictionary_entries_max: 16,
    dictionary_bytes_max: 1 << 20,
    buffer_bytes_max: 1 << 16,
    dictionary_seed: 7,
};

/// The shard that owns a series.
pub(crate) fn owner(hash: SeriesHash, shards: usize) -> usize {
    hash.slot().owner(shards)
}

/// The series with that number in the script.
pub(crate) fn labels_of(series: u32) -> LabelSet {
    LabelSet::new(NAMES[series as usize % 2], &[("n", &series.to_string())]).expect("a legal label set")
}

/// Which positions a flush names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Those that the loops told before the memtable was frozen; what came since is in the segment too.
    Told,
    /// Those up to which the frozen memtable goes, once the loops have told that they are synced.
    Frozen,
}

enum Message {
    Share(Share),
    Position { position: JournalPosition, stamp: Stamp },
    Dictionary { dictionary: u64, stamp: Stamp },
    Flush { stamp: Stamp },
}

impl Message {
    fn key(&self) -> (u64, u16) {
        let (Message::Share(Share { stamp, .. })
        | Message::Position { stamp, .. }
        | Message::Dictionary { stamp, .. }
        | Message::Flush { stamp }) = self;
        (stamp.nanos, stamp.loop_index)
    }
}

struct Loop {
    writer: Writer,
    files: BTreeMap<u64, SimFile>,
    wanted_file: Option<NextFile>,
    stamps: StampClock,
    last_stamp: Stamp,
    open: Vec<Option<Share>>,
    in_open: Vec<usize>,
    sealed: Vec<(usize, Share)>,
    /// The turn's batches that are sealed, with where their frame ends.
    turn: Vec<(JournalPosition, usize)>,
    withheld: VecDeque<(JournalPosition, usize)>,
    asks: Vec<(usize, Option<JournalPosition>)>,
    told_dictionary: u64,
    /// A sync under way; its outcome where the device was quicker than the loop.
    syncing: Option<(Sync, Option<std::io::Result<()>>)>,
}

enum Flush {
    Resting,
    Asking(Vec<Option<JournalPosition>>),
    Writing { job: Option<FlushJob> },
    AskingSynced { flushed: Option<Flushed<SimDisk>>, told: Vec<Option<JournalPosition>> },
    Switching { flushed: Option<Flushed<SimDisk>> },
}

/// A checkpoint under way, as `service/checkpoint.rs` takes it.
enum Checkpoint {
    Resting,
    /// With the positions of the cut.
    Writing(CheckpointJob<SimDisk>, Vec<JournalPosition>),
    Syncing {
        job: CheckpointJob<SimDisk>,
        positions: Vec<JournalPosition>,
        entry: CheckpointEntry,
        told: Vec<Option<JournalPosition>>,
    },
}

struct Executor {
    checkpoint: Checkpoint,
    store: Store<SimDisk>,
    rings: Vec<VecDeque<Message>>,
    flush: Flush,
    /// Per loop, up to where everything was applied.
    applied: Vec<JournalPosition>,
    frozen_positions: Vec<JournalPosition>,
    /// A journal has abandoned a file: flush at once.
    at_once: bool,
    /// Stamps of the shares in the memtable, and in the frozen part.
    in_memtable: BTreeSet<Stamp>,
    in_frozen: BTreeSet<Stamp>,
    merge: Option<Merge<SimDisk>>,
}

/// See the head of this file.
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    pub(crate) shards: usize,
    pub(crate) now_ms: i64,
    pub(crate) record: Record,
    pub(crate) positions: Positions,
    /// Flushes, merges and checkpoints that were switched in, and segments that left the retention.
    pub(crate) flushes: usize,
    pub(crate) merges: usize,
    pub(crate) expired: usize,
    pub(crate) checkpoints: usize,
    nanos: u64,
    run: u64,
    manifest: Manifest,
    next_segment: Rc<Cell<u64>>,
    next_value: u64,
    next_series: u32,
    loops: Vec<Loop>,
    executors: Vec<Executor>,
    faulty: bool,
}

impl Machine {
    /// A start on whatever is on the disk. `before`: what clients know, and when it was. `faulty`: calls may
    /// fail without the power going.
    pub(crate) fn start(
        disk: &SimDisk,
        shards: usize,
        positions: Positions,
        before: Option<&Machine>,
        faulty: bool,
    ) -> Result<Machine, NotStarted> {
        let started = start(disk, shards, faulty)?;
        let run = started.manifest.run;
        let mut machine = Machine {
            disk: disk.clone(),
            shards,
            now_ms: before.map_or(BEGIN_MS, |before| before.now_ms + 50),
            record: before.map(|before| before.record.clone()).unwrap_or_default(),
            positions,
            flushes: 0,
            merges: 0,
            expired: 0,
            checkpoints: 0,
            nanos: 0,
            run,
            next_segment: Rc::new(Cell::new(started.manifest.next_segment)),
            next_value: before.map_or(0, |before| before.next_value),
            next_series: before.map_or(9, |before| before.next_series),
            loops: Vec::new(),
            executors: Vec::new(),
            manifest: started.manifest,
            faulty,
        };
        for (index, store) in started.stores.into_iter().enumerate() {
            let resume = started.journals[index].resume.above(machine.manifest.highest_position(index));
            machine.loops.push(Loop {
                writer: Writer::new(index as u16, run, resume, LIMITS),
                files: BTreeMap::new(),
                wanted_file: None,
                stamps: StampClock::new(index, shards),
                last_stamp: Stamp { run, nanos: 0, loop_index: index as u16 },
                open: (0..shards).map(|_| None).collect(),
                in_open: Vec::new(),
                sealed: Vec::new(),
                turn: Vec::new(),
                withheld: VecDeque::new(),
                asks: Vec::new(),
                told_dictionary: 0,
                syncing: None,
            });
            let journals = started.journals.iter().map(|journal| journal.end());
            let named = machine.manifest.positions[index].iter();
            let named = named.copied().chain(std::iter::repeat(JournalPosition::default()));
            machine.executors.push(Executor {
                checkpoint: Checkpoint::Resting,
                store,
                rings: (0..shards).map(|_| VecDeque::new()).collect(),
                flush: Flush::Resting,
                applied: journals.zip(named).map(|(end, named)| end.max(named)).collect(),
                frozen_positions: Vec::new(),
                at_once: false,
                in_memtable: BTreeSet::new(),
                in_frozen: BTreeSet::new(),
                merge: None,
            });
        }
        for index in 0..shards {
            machine.loops[index].wanted_file = machine.loops[index].writer.needs_file();
            machine.prepare_file(index);
        }
        if disk.is_cut() { Err(NotStarted) } else { Ok(machine) }
    }

    /// The first tick that retention leaves.
    pub(crate) fn oldest(&self) -> i64 {
        Timestamp::first_of_milli(self.now_ms - RETENTION_MS).ticks()
    }

    /// Everything that queries show.
    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        let oldest = Timestamp::from_ticks(self.oldest());
        for (index, executor) in self.executors.iter().enumerate() {
            for name in NAMES {
                let mut selection = executor.store.select(name, &[], Timestamp::MIN, Timestamp::MAX, oldest);
                let (mut piece, mut labels) = (Piece::default(), None);
                while ready(selection.next_piece(&mut piece)) {
                    if let Some(series) = &piece.begins {
                        let hash = (*series.labels).as_ref().hash();
                        assert_eq!(owner(hash, self.shards), index, "{:?} at a stranger's", series.labels);
                        labels = Some((*series.labels).clone());
                    }
                    for sample in &piece.samples {
                        let labels = labels.clone().expect("a series begins before its samples");
                        let twice =
                            contents.insert((labels, sample.timestamp.ticks()), sample.value.to_bits());
                        assert_eq!(twice, None, "twice in {name}");
                    }
                }
                let warnings = selection.take_warnings();
                assert!(warnings.is_empty() || self.faulty, "{warnings:?}");
            }
        }
        contents
    }

    /// What the reopened directory shows is what was answered.
    pub(crate) fn check(&mut self, crash: Crash) -> Result<(), String> {
        let (contents, oldest) = (self.contents(), self.oldest());
        self.record.check(crash, &contents, oldest, labels_of)
    }

    /// Batches that were answered, that a journal has lost, and that are in no segment yet.
    pub(crate) fn abandoned(&self) -> usize {
        self.record.abandoned(self.run)
    }

    /// A running server shows everything that was published.
    pub(crate) fn query(&mut self) {
        if self.faulty || self.disk.is_cut() {
            return;
        }
        (0..self.shards).for_each(|at| self.drain(at, usize::MAX));
        let visible = self.record.visible(self.run, self.oldest(), labels_of);
        let contents = self.contents();
        for place in visible.keys().chain(contents.keys()) {
            let found = contents.get(place).copied();
            assert!(
                visible.get(place).is_some_and(|possible| possible.contains(&found)),
                "{place:?} shows {:?}: {}",
                found.map(f64::from_bits),
                self.record.story(place, labels_of)
            );
        }
    }

    /// A client's batch arrives at a loop: random rows of old, new and repeated samples.
    pub(crate) fn accept(&mut self, at: usize, random: &mut Random) {
        let rows = 1 + random.below(4);
        let mut batch: Vec<(u32, Option<i64>, u64)> = Vec::new();
        for _ in 0..rows {
            let series = if random.one_in(8) {
                self.next_series += 1;
                self.next_series
            } else {
                random.below(9) as u32
            };
            // Few milliseconds and many writes: some come late, some replace another value.
            let ms = (!random.one_in(3)).then(|| self.now_ms / 16 * 16 - 4 * random.below(12) as i64);
            self.next_value += 1;
            let old = random.below(self.record.batches.len().max(1) as u64) as usize;
            match self.record.batches.get(old).and_then(|old| old.rows.first()) {
                Some(row) if random.one_in(10) && Timestamp::from_ticks(row.ticks).fine() == 0 => {
                    batch.push((row.series, Some(Timestamp::from_ticks(row.ticks).millis()), row.bits));
                }
                _ => batch.push((series, ms, (self.next_value as f64).to_bits())),
            }
        }
        let level = if random.one_in(3) { Level::Written } else { Level::Synced };
        let sealed = self.loops[at].turn.len();
        self.accept_batch(at, &batch, level);
        if self.loops[at].turn.len() > sealed {
            // A full file ended the frame in the middle of a turn. Turns of two loops do not overlap here:
            // which of two overlapping writes to one place counts is open, and may differ after a replay.
            self.commit(at, random);
        }
    }

    /// A client's batch arrives at a loop; false where it is refused before it touches the journal.
    pub(crate) fn accept_batch(&mut self, at: usize, rows: &[(u32, Option<i64>, u64)], level: Level) -> bool {
        self.nanos += 10;
        let now_ms = self.now_ms;
        let label_bytes = rows.iter().map(|row| labels_of(row.0).as_ref().bytes().len()).sum();
        let needed = batch_bytes_max(rows.len(), label_bytes, 8);
        loop {
            match self.loops[at].writer.reserve(needed) {
                Reserve::Ready => break,
                Reserve::SealFirst => self.seal(at),
                Reserve::Full => return false,
                Reserve::TooLarge => panic!("the script's batches are small"),
            }
        }
        let shards = self.shards;
        let state = &mut self.loops[at];
        let client = state.writer.client(format!("client-{}", rows.len()).as_bytes());
        let mut numbered: Vec<(SeriesNumber, usize)> = Vec::new();
        for (series, _, _) in rows {
            let labels = labels_of(*series);
            let kind = MetricKind::Gauge;
            let found = state.writer.number(labels.as_ref(), kind, |hash| owner(hash, shards) as u16);
            let to = usize::from(found.owner);
            let share = state.open[to].get_or_insert_with(Share::default);
            if found.first {
                share.define(found.number, kind, labels.as_ref());
            }
            numbered.push((found.number, to));
        }
        state.writer.begin_batch(client);
        let mut kept = Vec::new();
        for ((series, ms, bits), (number, to)) in rows.iter().zip(numbered) {
            let given = ms.map(|ms| Timestamp::from_millis(ms).expect("the script's times are near"));
            let timestamp = given.unwrap_or_else(|| state.stamps.stamp(Timestamp::first_of_milli(now_ms)));
            let sample = Sample { timestamp, value: f64::from_bits(*bits) };
            state.writer.push(number, sample);
            state.open[to].as_mut().expect("opened when the series was numbered").push(number, sample);
            kept.push(Row { series: *series, ticks: timestamp.ticks(), bits: *bits });
        }
        state.in_open.push(self.record.batches.len());
        self.record.batches.push(Batch {
            loop_index: at,
            run: self.run,
            level,
            stamp: None,
            rows: kept,
            fate: Fate::OnItsWay,
            published: false,
            frozen: false,
            kept_by: BTreeSet::new(),
        });
        true
    }

    fn seal(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let Some(sealed) = state.writer.seal(self.nanos) else { return };
        state.last_stamp = sealed.stamp;
        for (owner, open) in state.open.iter_mut().enumerate() {
            if let Some(mut share) = open.take() {
                share.stamp = sealed.stamp;
                share.dictionary = sealed.end.sequence;
                share.journal_end = sealed.end.offset;
                state.sealed.push((owner, share));
            }
        }
        for batch in state.in_open.drain(..) {
            self.record.batches[batch].stamp = Some(sealed.stamp);
            state.turn.push((sealed.end, batch));
        }
    }

    /// The end of a loop's turn: journal, publish, answer, tell positions.
    pub(crate) fn commit(&mut self, at: usize, random: &mut Random) {
        self.nanos += 10;
        self.seal(at);
        while let Some(write) = self.loops[at].writer.next_write() {
            let result = ready(self.loops[at].files[&write.sequence].write_at(write.position, &write.bytes));
            if self.disk.is_cut() {
                return;
            }
            if let Err(abandoned) = self.loops[at].writer.wrote(write, result) {
                self.journal_failed(at, abandoned.last_good);
                break;
            }
        }
        self.publish(at);
        let state = &mut self.loops[at];
        let synced = state.writer.synced_through();
        for (end, batch) in std::mem::take(&mut state.turn) {
            if self.record.batches[batch].level == Level::Synced && synced < end {
                state.withheld.push_back((end, batch));
            } else {
                let level = self.record.batches[batch].level;
                self.record.answered(batch, level);
            }
        }
        if state.wanted_file.is_none() {
            state.wanted_file = state.writer.needs_file();
        }
        self.tell_positions(at);
        let state = &mut self.loops[at];
        if (state.withheld.is_empty() && state.asks.is_empty()) || state.syncing.is_some() {
            return;
        }
        let Some(sync) = state.writer.next_sync() else { return };
        let now = random.one_in(2).then(|| ready(state.files[&sync.sequence].sync()));
        state.syncing = Some((sync, now));
    }

    fn publish(&mut self, at: usize) {
        let state = &mut self.loops[at];
        for (owner, share) in state.sealed.drain(..) {
            self.executors[owner].rings[at].push_back(Message::Share(share));
        }
        state.turn.iter().for_each(|(_, batch)| self.record.batches[*batch].published = true);
        state.writer.renew();
        let (dictionary, stamp) = (state.writer.dictionary(), state.last_stamp);
        if dictionary != 0 && dictionary != state.told_dictionary {
            state.told_dictionary = dictionary;
            for executor in &mut self.executors {
                executor.rings[at].push_back(Message::Dictionary { dictionary, stamp });
            }
        }
    }

    /// The executors would forget idle series: a loop begins a new dictionary as soon as it can.
    pub(crate) fn renew(&mut self, at: usize) {
        let writer = &mut self.loops[at].writer;
        writer.ask_new_dictionary(writer.dictionary());
    }

    /// An executor forgets the series that no dictionary names.
    pub(crate) fn forget_idle(&mut self, at: usize) {
        self.executors[at].store.forget_idle();
    }

    fn tell_positions(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let (end, synced, stamp) = (state.writer.end(), state.writer.synced_through(), state.last_stamp);
        let executors = &mut self.executors;
        state.asks.retain_mut(|(executor, wanted)| {
            let position = *wanted.get_or_insert(end);
            if synced < position {
                return true;
            }
            executors[*executor].rings[at].push_back(Message::Position { position, stamp });
            false
        });
    }

    /// The outcome of a sync reaches its loop.
    pub(crate) fn sync_comes_back(&mut self, at: usize) {
        let state = &mut self.loops[at];
        let Some((sync, outcome)) = state.syncing.take() else { return };
        let result = outcome.unwrap_or_else(|| ready(state.files[&sync.sequence].sync()));
        if self.disk.is_cut() {
            return;
        }
        let abandoned = state.writer.synced(sync, result).err();
        let synced = state.writer.synced_through();
        state.files.retain(|sequence, _| *sequence >= synced.sequence);
        if let Some(abandoned) = abandoned {
            for batch in &mut self.record.batches {
                let here = batch.loop_index == at && batch.run == self.run;
                if here
                    && batch.fate == Fate::Answered(Level::Written)
                    && !batch.is_kept(self.shards, labels_of)
                {
                    // Where it ended nobody noted; what lies below the last good position is there anyway.
                    batch.fate = Fate::Abandoned;
                }
            }
            self.journal_failed(at, abandoned.last_good);
            return;
        }
        while let Some((_, batch)) = self.loops[at].withheld.pop_front_if(|(end, _)| *end <= synced) {
            self.record.answered(batch, Level::Synced);
        }
    }

    /// What is beyond the last good position is refused, and nobody who has not seen it shall.
    fn journal_failed(&mut self, at: usize, last_good: JournalPosition) {
        let state = &mut self.loops[at];
        let end_of =
            |share: &Share| JournalPosition { sequence: share.dictionary, offset: share.journal_end };
        state.sealed.retain(|(_, share)| end_of(share) <= last_good);
        state.open.iter_mut().for_each(|open| *open = None);
        let mut refused = std::mem::take(&mut state.in_open);
        refused.extend(state.turn.extract_if(.., |(end, _)| *end > last_good).map(|(_, batch)| batch));
        let withheld = std::mem::take(&mut state.withheld);
        for (end, batch) in withheld {
            if end > last_good {
                refused.push(batch);
            } else {
                state.withheld.push_back((end, batch));
            }
        }
        // Ends that were asked for and taken back are asked for anew.
        state.asks.iter_mut().for_each(|(_, wanted)| *wanted = None);
        refused.into_iter().for_each(|batch| self.record.refused(batch));
        let stamp = self.loops[at].last_stamp;
        for executor in &mut self.executors {
            executor.rings[at].push_back(Message::Flush { stamp });
        }
    }

    /// Flushes what was asked for at once, to its end.
    pub(crate) fn flush_at_once(&mut self, random: &mut Random) {
        for _ in 0..16 {
            rest(self, random);
            for at in 0..self.shards {
                let executor = &self.executors[at];
                if executor.at_once || !matches!(executor.flush, Flush::Resting) {
                    self.flush_step(at);
                }
            }
        }
    }

    /// An executor makes the file that its loop asked for.
    pub(crate) fn prepare_file(&mut self, at: usize) {
        let Some(wanted) = self.loops[at].wanted_file.take() else { return };
        let prepared = ready(journal::prepare(&self.disk, at as u16, wanted));
        let opened = ready(self.disk.open(&journal::file_path(at as u16, wanted.sequence)));
        let state = &mut self.loops[at];
        match (prepared, opened) {
            (Ok(prepared), Ok(file)) => {
                state.files.insert(wanted.sequence, file);
                state.writer.install(prepared);
            }
            _ => state.writer.not_prepared(),
        }
    }

    /// An executor takes up to so many messages, the earliest first over all loops.
    pub(crate) fn drain(&mut self, at: usize, messages_max: usize) {
        let Executor { store, rings, flush, checkpoint, applied, at_once, in_memtable, .. } =
            &mut self.executors[at];
        for _ in 0..messages_max {
            let fronts =
                rings.iter().enumerate().filter_map(|(from, ring)| Some((ring.front()?.key(), from)));
            let Some((_, from)) = fronts.min() else { return };
            match rings[from].pop_front() {
                Some(Message::Share(share)) => {
                    let of_share = store.apply(from, &share, &mut |_, _, _| {});
                    assert_eq!(of_share.unknown, 0, "a loop defines a series before its first sample");
                    let end = JournalPosition { sequence: share.dictionary, offset: share.journal_end };
                    applied[from] = applied[from].max(end);
                    in_memtable.insert(share.stamp);
                }
                Some(Message::Dictionary { dictionary, .. }) => store.begin_dictionary(from, dictionary),
                Some(Message::Flush { .. }) => *at_once = true,
                Some(Message::Position { position, .. }) => {
                    applied[from] = applied[from].max(position);
                    if let Flush::Asking(told) | Flush::AskingSynced { told, .. } = flush {
                        told[from] = Some(position);
                    }
                    if let Checkpoint::Syncing { told, .. } = checkpoint {
                        told[from] = Some(position);
                    }
                }
                None => return,
            }
        }
    }

    fn ask_all(&mut self, executor: usize) -> Vec<Option<JournalPosition>> {
        for state in &mut self.loops {
            state.asks.push((executor, None));
        }
        vec![None; self.shards]
    }

    /// Whether an executor's flush is under way.
    pub(crate) fn is_flushing(&self, at: usize) -> bool {
        !matches!(self.executors[at].flush, Flush::Resting)
    }

    /// An executor's flush goes one step further, if nothing is missing for it.
    pub(crate) fn flush_step(&mut self, at: usize) {
        let flush = std::mem::replace(&mut self.executors[at].flush, Flush::Resting);
        let next = match flush {
            Flush::Resting if self.executors[at].store.memtable_samples() == 0 => Flush::Resting,
            // Answers of the loops do not say to which question.
            Flush::Resting if matches!(self.executors[at].checkpoint, Checkpoint::Syncing { .. }) => {
                Flush::Resting
            }
            Flush::Resting => Flush::Asking(self.ask_all(at)),
            Flush::Asking(told) => match told.iter().copied().collect::<Option<Vec<_>>>() {
                Some(positions) => self.freeze(at, positions),
                None => Flush::Asking(told),
            },
            Flush::Writing { job } => self.write_segment(at, job),
            Flush::AskingSynced { flushed, told } => {
                if told.iter().all(Option::is_some) {
                    Flush::Switching { flushed }
                } else {
                    Flush::AskingSynced { flushed, told }
                }
            }
            Flush::Switching { flushed } => {
                self.switch(at, flushed);
                Flush::Resting
            }
        };
        self.executors[at].flush = next;
    }

    fn freeze(&mut self, at: usize, told: Vec<JournalPosition>) -> Flush {
        let id = self.next_segment.replace(self.next_segment.get() + 1);
        let executor = &mut self.executors[at];
        let job = executor.store.begin_flush(id);
        if !job.as_ref().is_some_and(FlushJob::is_retry) {
            executor.at_once = false;
            executor.in_frozen = std::mem::take(&mut executor.in_memtable);
            executor.frozen_positions = match self.positions {
                Positions::Told => told,
                Positions::Frozen => executor.applied.clone(),
            };
        }
        self.record.froze();
        Flush::Writing { job }
    }

    fn write_segment(&mut self, at: usize, job: Option<FlushJob>) -> Flush {
        let flushed = match job.map(|job| ready(job.run(&self.disk))) {
            Some(Ok(flushed)) => Some(flushed),
            Some(Err(error)) => {
                assert!(self.faulty || self.disk.is_cut(), "{error}");
                self.executors[at].store.abort_flush();
                return Flush::Resting;
            }
            None => None,
        };
        match self.positions {
            Positions::Told => Flush::Switching { flushed },
            Positions::Frozen => Flush::AskingSynced { flushed, told: self.ask_all(at) },
        }
    }

    fn switch(&mut self, at: usize, flushed: Option<Flushed<SimDisk>>) {
        let mut manifest = self.manifest.clone();
        if let Some(flushed) = &flushed {
            manifest.next_segment = manifest.next_segment.max(flushed.entry().id + 1);
            manifest.segments.push(*flushed.entry());
        }
        let needless = manifest.switch_flush(at, &self.executors[at].frozen_positions);
        let expired = self.expire(&mut manifest);
        if ready(manifest.store(&self.disk)).is_err() {
            self.executors[at].store.abort_flush();
            return;
        }
        self.manifest = manifest;
        self.flushes += 1;
        self.record.kept(at, self.shards, &self.executors[at].in_frozen, labels_of);
        if let Some(flushed) = flushed {
            self.executors[at].store.finish_flush(flushed);
        }
        self.drop_expired(&expired);
        self.cut_journals(needless);
    }

    /// What the manifest has let go of: a checkpoint, and journals below every position.
    fn cut_journals(&mut self, needless: Option<CheckpointEntry>) {
        if let Some(entry) = needless {
            let _ = ready(self.disk.remove(&checkpoint_path(entry.id)));
        }
        for journal in 0..self.manifest.positions.first().map_or(0, Vec::len) {
            let lowest = self.manifest.lowest_position(journal);
            let Ok(names) = ready(self.disk.list(&journal::folder(journal as u16))) else { continue };
            let sequences: Vec<u64> = names.iter().filter_map(|name| journal::sequence_of(name)).collect();
            let _ = ready(journal::truncate(&self.disk, journal as u16, &sequences, lowest));
        }
    }

    /// Whether samples lie in segments, in checkpoints, and above the positions in the journals.
    pub(crate) fn has_data_everywhere(&self) -> bool {
        let Manifest { segments, checkpoints, .. } = &self.manifest;
        let ends = self.loops.iter().map(|state| state.writer.end());
        let is_above = ends.enumerate().any(|(of, end)| end > self.manifest.highest_position(of));
        !segments.is_empty() && !checkpoints.is_empty() && is_above
    }

    /// Whether an executor's checkpoint has begun and not ended.
    pub(crate) fn is_checkpointing(&self, at: usize) -> bool {
        !matches!(self.executors[at].checkpoint, Checkpoint::Resting)
    }

    /// An executor's checkpoint goes one step further, or one is begun.
    pub(crate) fn checkpoint_step(&mut self, at: usize) {
        let executor = &mut self.executors[at];
        match std::mem::replace(&mut executor.checkpoint, Checkpoint::Resting) {
            Checkpoint::Resting => {
                if !matches!(executor.flush, Flush::Resting) || executor.at_once {
                    return;
                }
                let id = self.next_segment.replace(self.next_segment.get() + 1);
                if let Some(job) = executor.store.begin_checkpoint(id, PACE) {
                    executor.checkpoint = Checkpoint::Writing(job, executor.applied.clone());
                }
            }
            Checkpoint::Writing(mut job, positions) => {
                for _ in 0..CHECKPOINT_STEPS {
                    let entry = match ready(job.step()) {
                        Ok(None) => continue,
                        Ok(Some(entry)) => entry,
                        Err(error) => {
                            let is_expected = matches!(error, CheckpointError::Superseded);
                            assert!(is_expected || self.faulty || self.disk.is_cut(), "{error}");
                            return ready(job.abandon());
                        }
                    };
                    if executor.at_once || !matches!(executor.flush, Flush::Resting) {
                        return ready(job.abandon());
                    }
                    let told = self.ask_all(at);
                    self.executors[at].checkpoint = Checkpoint::Syncing { job, positions, entry, told };
                    return;
                }
                executor.checkpoint = Checkpoint::Writing(job, positions);
            }
            Checkpoint::Syncing { job, positions, entry, told } => {
                if executor.at_once || !job.is_current() {
                    ready(job.abandon());
                } else if told.iter().all(Option::is_some) {
                    self.switch_checkpoint(entry, &positions, job);
                } else {
                    executor.checkpoint = Checkpoint::Syncing { job, positions, entry, told };
                }
            }
        }
    }

    fn switch_checkpoint(
        &mut self,
        entry: CheckpointEntry,
        positions: &[JournalPosition],
        job: CheckpointJob<SimDisk>,
    ) {
        let mut manifest = self.manifest.clone();
        let switched = manifest.switch_checkpoint(entry, positions);
        let Ok(replaced) = switched else { panic!("no flush was switched in since the cut: {switched:?}") };
        if let Err(error) = ready(manifest.store(&self.disk)) {
            if !may_be_stored(&error) {
                ready(job.abandon());
            }
            return;
        }
        self.manifest = manifest;
        self.checkpoints += 1;
        self.cut_journals(replaced);
    }

    /// Takes out of the manifest what has left the retention.
    fn expire(&self, manifest: &mut Manifest) -> Vec<u64> {
        let expired = expired(&manifest.segments, self.now_ms - RETENTION_MS, None);
        manifest.segments.retain(|entry| !expired.contains(&entry.id));
        expired
    }

    /// The manifest does not name them any more.
    fn drop_expired(&mut self, expired: &[u64]) {
        self.expired += expired.len();
        for executor in &mut self.executors {
            executor.store.replace_segments(expired, &[]);
        }
        for id in expired {
            // As in the server: what stays costs room alone.
            let _ = ready(self.disk.remove(&segment_path(*id)));
        }
    }

    /// An executor's merge goes some steps further, or one is begun if it is worth it.
    pub(crate) fn merge_step(&mut self, at: usize) {
        let (now_ms, oldest) = (self.now_ms, Timestamp::from_ticks(self.oldest()));
        let executor = &mut self.executors[at];
        let Some(mut merge) = executor.merge.take() else {
            let windows = Windows::new(Some(RETENTION_MS), GRACE_MS);
            let next = self.next_segment.clone();
            let next_id = move || next.replace(next.get() + 1);
            executor.merge = executor.store.begin_merge(now_ms, oldest, &windows, &BTreeSet::new(), next_id);
            return;
        };
        for _ in 0..MERGE_STEPS {
            match ready(merge.step()) {
                Ok(true) => {}
                Ok(false) => return self.switch_merged(merge),
                Err(error) => {
                    assert!(self.faulty || self.disk.is_cut(), "{error}");
                    ready(merge.abandon());
                    return;
                }
            }
        }
        executor.merge = Some(merge);
    }

    /// Whether an executor's merge has begun and not ended.
    pub(crate) fn is_merging(&self, at: usize) -> bool {
        self.executors[at].merge.is_some()
    }

    fn switch_merged(&mut self, merge: Merge<SimDisk>) {
        let merged = merge.end();
        let mut manifest = self.manifest.clone();
        let named = manifest.segments.extract_if(.., |entry| merged.removed.contains(&entry.id)).count();
        let entries = merged.entries();
        let ids = entries.iter().map(|entry| entry.id + 1);
        manifest.next_segment = ids.max().unwrap_or(0).max(manifest.next_segment);
        manifest.segments.extend(entries);
        let expired = self.expire(&mut manifest);
        // What has left the manifest meanwhile does not come back.
        let is_stale = named != merged.removed.len();
        if is_stale {
            ready(merged.abandon(&self.disk));
            return;
        }
        if let Err(error) = ready(manifest.store(&self.disk)) {
            if !may_be_stored(&error) {
                ready(merged.abandon(&self.disk));
            }
            return;
        }
        self.manifest = manifest;
        self.merges += 1;
        for executor in &mut self.executors {
            executor.store.replace_segments(&merged.removed, &merged.added);
        }
        for id in merged.removed {
            let _ = ready(self.disk.remove(&segment_path(id)));
        }
        self.drop_expired(&expired);
    }

    /// Journal files there are, and segments and checkpoints that no manifest names.
    pub(crate) fn files_left(&self) -> (usize, usize) {
        let files = self.disk.files();
        let journals = files.iter().filter(|path| path.ends_with(".journal")).count();
        let mut named: Vec<String> = self.manifest.segments.iter().map(|s| segment_path(s.id)).collect();
        named.extend(self.manifest.checkpoints.iter().map(|entry| checkpoint_path(entry.id)));
        let is_in_folder =
            |path: &&String| path.starts_with(SEGMENTS_FOLDER) || path.starts_with(CHECKPOINTS_FOLDER);
        let in_folder = files.iter().filter(is_in_folder);
        (journals, in_folder.filter(|path| !named.contains(path)).count())
    }
}
