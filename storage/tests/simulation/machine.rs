//! The server in small, on one thread: loops with their journals, executors with their stores, the keeper.
//!
//! It makes the calls that the server's `front`, `service` and `launch` make, in their order; a step is what
//! there happens without a wait. What it answers and refuses stands in the [`Record`].
//!
//! Here: what there is, how it starts, what it shows. What it does, act by act: `machine/accept.rs` (the loops),
//! `machine/flush.rs`, `machine/delete.rs`, `machine/checkpoint.rs`, `machine/merge.rs` (the executors).

#[path = "machine/accept.rs"]
mod accept;
#[path = "machine/checkpoint.rs"]
mod checkpoint;
#[path = "machine/delete.rs"]
mod delete;
#[path = "machine/flush.rs"]
mod flush;
#[path = "machine/merge.rs"]
mod merge;

use self::delete::{Deletes, Wanted};
use super::record::{Contents, Crash, Record};
use super::start::{NotStarted, start};
use model::{LabelSet, SeriesHash, Share, Stamp, StampClock, Timestamp};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use storage::checkpoint::{CHECKPOINTS_FOLDER, CheckpointEntry, CheckpointJob, checkpoint_path};
use storage::compact::Merge;
use storage::disk::{SimDisk, SimFile, ready};
use storage::journal::{JournalLimits, JournalPosition, NextFile, Sync, Writer};
use storage::manifest::Manifest;
use storage::memtable::Silence;
use storage::segment::{SEGMENTS_FOLDER, segment_path};
use storage::store::{FlushJob, Flushed, Piece, Store};

/// Samples older than this are hidden, and segments of such samples dropped.
const RETENTION_MS: i64 = 6_000;
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
    NamesTaken { names: Share, stamp: Stamp },
}

impl Message {
    fn key(&self) -> (u64, u16) {
        let (Message::Share(Share { stamp, .. })
        | Message::Position { stamp, .. }
        | Message::Dictionary { stamp, .. }
        | Message::NamesTaken { stamp, .. }
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
    /// Numbers that executors want to forget, taken back and not told.
    taken_back: Vec<(usize, Share)>,
    /// A sync under way; its outcome where the device was quicker than the loop.
    syncing: Option<(Sync, Option<std::io::Result<()>>)>,
}

enum Flush {
    Resting,
    Asking(Vec<Option<JournalPosition>>),
    Writing { job: Option<FlushJob>, deletes: Deletes },
    AskingSynced { flushed: Option<Flushed<SimDisk>>, deletes: Deletes, told: Vec<Option<JournalPosition>> },
    Switching { flushed: Option<Flushed<SimDisk>>, deletes: Deletes },
}

/// Whatever the samples' times say: who was not heard of for so many ticks has stopped.
const SILENCE: Silence = Silence { ticks: 1, tick_ms: 1 << 40 };

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
    /// What is on its way are some series only, which no position belongs to.
    is_part: bool,
    wanted_deletes: Vec<Wanted>,
    /// Stamps of all shares that were applied in this run.
    applied_stamps: BTreeSet<Stamp>,
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
    /// Flushes, merges, checkpoints and executors' parts of deletes that were switched in, and segments that left the
    /// retention.
    pub(crate) flushes: usize,
    pub(crate) part_flushes: usize,
    pub(crate) merges: usize,
    pub(crate) expired: usize,
    pub(crate) checkpoints: usize,
    pub(crate) deletes: usize,
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
            part_flushes: 0,
            merges: 0,
            expired: 0,
            checkpoints: 0,
            deletes: 0,
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
                taken_back: Vec::new(),
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
                is_part: false,
                wanted_deletes: Vec::new(),
                applied_stamps: BTreeSet::new(),
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
