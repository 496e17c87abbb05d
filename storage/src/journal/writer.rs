//! The writer: a state machine that turns accepted batches into frames and says what to write and to sync.
//!
//! Owner: one loop. It does no I/O and reads no clock; the loop carries out what it hands out.
//! Always: one write and one sync are under way at most, writes in order of position; a file is synced to
//! its end before anything of its successor is; after a failed write or sync nothing is handed out until a
//! new file is installed, whose head names the last good position.
//!
//! A turn of the loop, and what answers wait for:
//!
//! ```text
//!   reserve → client, begin_batch, (number, push)…     per batch, into the open frame
//!   seal(stamp)            → end                        `memory`: answer now
//!   next_write, wrote(ok)  → written() ≥ end            `written`: answer now
//!   next_sync, synced(ok)  → synced_through() ≥ end     `synced`: answer now
//!   Err(Abandoned)         → everything sealed beyond the last good position is refused
//! ```

use super::dictionary::{Dictionary, Numbered};
use super::frame::{self, ClientNumber, FrameHead, SampleEncoder};
use super::head::{FileHead, HEAD_BYTES, Previous};
use super::prepare::{NextFile, PreparedFile};
use super::recover::Resume;
use super::{JournalPosition, SEQUENCE_MAX};
use model::{LabelSetRef, MetricKind, Sample, SeriesHash, SeriesNumber, Share, Stamp};
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// Sizes of a writer.
#[derive(Clone, Copy, Debug)]
pub struct JournalLimits {
    /// Bytes of a journal file at least.
    pub file_bytes_min: u64,
    /// Bytes of a journal file at most, however large the dictionary; below 4 GiB.
    pub file_bytes_max: u64,
    /// With as many series, or clients, the next file is begun; one batch may exceed it.
    pub dictionary_entries_max: usize,
    /// Bytes of memory of the dictionary at which the next file is begun; one batch may exceed it.
    pub dictionary_bytes_max: usize,
    /// Bytes waiting to be written, the open frame included.
    pub buffer_bytes_max: usize,
    /// What keys the hash by which series are known: no client may know it.
    pub dictionary_seed: u64,
}

impl Default for JournalLimits {
    fn default() -> JournalLimits {
        JournalLimits {
            file_bytes_min: 64 * 1024 * 1024,
            file_bytes_max: 1024 * 1024 * 1024,
            dictionary_entries_max: 4_000_000,
            dictionary_bytes_max: 512 * 1024 * 1024,
            buffer_bytes_max: 64 * 1024 * 1024,
            dictionary_seed: 0,
        }
    }
}

/// A file is this many times larger than the dictionary of the one before, so that definitions, which every
/// file repeats, stay a small part of it.
const FILE_TO_DICTIONARY_BYTES: u64 = 8;

/// Whether a batch fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// There is room in the open frame.
    Ready,
    /// Seal the open frame and ask again.
    SealFirst,
    /// No room until a write completes or a prepared file is installed: refuse for now.
    Full,
    /// More than any file or the buffer can hold: refuse for good.
    TooLarge,
}

/// A frame that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Where it ends.
    pub end: JournalPosition,
    /// Its stamp: the one given, or one nanosecond after the last where that had not risen.
    pub stamp: Stamp,
}

/// A position in a file with the offset of the record that comes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the file's start.
    pub position: u64,
    /// The next record's offset.
    pub next_offset: u64,
}

/// Bytes to write; give it back with [`Writer::wrote`].
#[derive(Debug)]
#[must_use = "the writer waits until it is told what came of it"]
pub struct Write {
    /// Into which file.
    pub sequence: u64,
    /// At which position.
    pub position: u64,
    /// What. Whole frames, with the file's head before the first.
    pub bytes: Vec<u8>,
    through: Mark,
}

/// A file to sync; give it back with [`Writer::synced`].
#[derive(Debug)]
#[must_use = "the writer waits until it is told what came of it"]
pub struct Sync {
    /// Which file.
    pub sequence: u64,
    through: Mark,
}

/// A write or a sync failed. What was sealed beyond `last_good` is gone: refuse every batch that waits for
/// it. Batches at or before it may still reach their level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "batches that wait beyond the position must be refused"]
pub struct Abandoned {
    /// The end of what stays.
    pub last_good: JournalPosition,
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JournalPosition { sequence, offset } = self.last_good;
        write!(f, "journal file {sequence} was abandoned at byte {offset}")
    }
}

impl std::error::Error for Abandoned {}

/// A file that is begun. Marks rise: synced ≤ written ≤ sealed.
#[derive(Clone, Copy, Debug)]
struct Open {
    sequence: u64,
    bytes: u64,
    sealed: Mark,
    written: Mark,
    synced: Mark,
    /// A write or a sync behind its end has failed.
    abandoned: bool,
}

impl Open {
    fn at(&self, mark: Mark) -> JournalPosition {
        JournalPosition { sequence: self.sequence, offset: mark.position }
    }

    fn has_frames(&self) -> bool {
        self.sealed.position > HEAD_BYTES as u64
    }

    fn is_synced(&self) -> bool {
        self.synced.position == self.sealed.position
    }

    /// How the head of the next file names this one.
    fn as_previous(&self) -> Previous {
        let end = self.at(self.sealed);
        Previous { end, synced: self.synced.position, abandoned: self.abandoned }
    }
}

/// Bytes of one file that wait for their turn.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    position: u64,
    bytes: Vec<u8>,
    through: Mark,
}

/// See the module.
#[derive(Debug)]
pub struct Writer {
    limits: JournalLimits,
    loop_index: u16,
    run: u64,
    last_nanos: u64,
    next_sequence: u64,
    asked_for: Option<NextFile>,
    /// The last file that was asked for could not be made.
    was_refused: bool,
    prepared: Option<NextFile>,
    /// The last good end before the files below, for the next head.
    base: Previous,
    /// Before `current`, oldest first, while not yet synced to their ends: one, and for a moment a second
    /// that was abandoned.
    old: VecDeque<Open>,
    current: Option<Open>,
    next_offset: u64,
    dictionary: Dictionary,
    /// A new dictionary, and with it a new file, is to begin as soon as it can.
    renewing: bool,
    dictionary_bytes_last: u64,
    definitions: Vec<u8>,
    samples: SampleEncoder,
    /// Sealed frames of `current` that no write has taken.
    filling: Vec<u8>,
    /// Sealed frames of the file before `current` that no write has taken.
    queue: VecDeque<Waiting>,
    spare: Vec<Vec<u8>>,
    writing_bytes: usize,
    writing: bool,
    syncing: bool,
    /// Raised when a sync fails during a write: what comes of that write counts no more.
    stale_write: bool,
}

impl Writer {
    /// A writer that goes on where `resume` says. It hands out nothing until a file is installed.
    pub fn new(loop_index: u16, run: u64, resume: Resume, limits: JournalLimits) -> Writer {
        Writer {
            limits,
            loop_index,
            run,
            last_nanos: 0,
            next_sequence: resume.next_sequence.max(1),
            asked_for: None,
            was_refused: false,
            prepared: None,
            base: resume.previous,
            old: VecDeque::new(),
            current: None,
            next_offset: resume.next_offset,
            dictionary: Dictionary::new(limits.dictionary_seed),
            renewing: false,
            dictionary_bytes_last: 0,
            definitions: Vec::new(),
            samples: SampleEncoder::default(),
            filling: Vec::new(),
            queue: VecDeque::new(),
            spare: Vec::new(),
            writing_bytes: 0,
            writing: false,
            syncing: false,
            stale_write: false,
        }
    }

    /// The file to prepare, said once: whenever none stands ready, so the successor of a file is asked for as soon
    /// as that is begun, and whoever makes it has the time in which a whole file fills.
    pub fn needs_file(&mut self) -> Option<NextFile> {
        if self.asked_for.is_some() || self.prepared.is_some() || self.next_sequence > SEQUENCE_MAX {
            return None;
        }
        // The current dictionary has just begun: it counts with the size that it had in the file before.
        let dictionary = self.dictionary.bytes().max(self.dictionary_bytes_last);
        // A disk without room for a large file may still have room for a small one.
        let fitting = if self.was_refused { 0 } else { FILE_TO_DICTIONARY_BYTES * dictionary };
        let bytes = fitting.clamp(self.limits.file_bytes_min, self.limits.file_bytes_max);
        let file = NextFile { sequence: self.next_sequence, bytes };
        self.next_sequence += 1;
        self.asked_for = Some(file);
        self.asked_for
    }

    /// Takes the file that was asked for; it is begun when the current one has no more room.
    pub fn install(&mut self, file: PreparedFile) {
        debug_assert_eq!(self.asked_for, Some(file.file));
        self.asked_for = None;
        self.was_refused = false;
        self.prepared = Some(file.file);
    }

    /// Nobody could be asked for the file just now; [`Self::needs_file`] says it again.
    pub fn not_asked(&mut self) {
        self.asked_for = None;
    }

    /// The file that was asked for could not be made; [`Self::needs_file`] asks again.
    pub fn not_prepared(&mut self) {
        self.was_refused = true;
        self.asked_for = None;
    }

    /// Whether a batch of at most `bytes_at_most` (see [`frame::batch_bytes_max`]) fits, after beginning the
    /// next file where that is called for. Numbers from before a new [`Self::dictionary`] are void.
    pub fn reserve(&mut self, bytes_at_most: usize) -> Reserve {
        let frame_bytes = frame::frame_bytes(self.open_bytes() + bytes_at_most);
        let file_max = self.limits.file_bytes_min as usize - HEAD_BYTES;
        if frame::frame_bytes(bytes_at_most) > file_max.min(self.limits.buffer_bytes_max / 2) {
            return Reserve::TooLarge;
        }
        if self.unwritten_bytes() + frame_bytes > self.limits.buffer_bytes_max {
            return Reserve::Full;
        }
        if self.current_fits(frame_bytes) {
            return Reserve::Ready;
        }
        if self.open_bytes() > 0 {
            return Reserve::SealFirst;
        }
        if self.begin_next_file() { Reserve::Ready } else { Reserve::Full }
    }

    /// Whether a batch of at most so many bytes would find no room only because the next file is not there yet, or
    /// may not begin before an older one is synced: a matter of moments, unless the disk refuses.
    pub fn awaits_file(&self, bytes_at_most: usize) -> bool {
        !self.may_begin_next_file()
            && !self.current_fits(frame::frame_bytes(self.open_bytes() + bytes_at_most))
    }

    fn current_fits(&self, frame_bytes: usize) -> bool {
        self.current.is_some_and(|current| {
            current.sealed.position + frame_bytes as u64 <= current.bytes && !self.dictionary_is_full()
        })
    }

    /// Begins a new dictionary in the next file as soon as it can, unless it has done so since `dictionary`: the
    /// owners of its series have no room for those that are only named. [`Self::renew`] carries it out.
    pub fn ask_new_dictionary(&mut self, dictionary: u64) {
        self.renewing |= self.dictionary() == dictionary;
    }

    /// Begins the new dictionary that was asked for, if the next file is there. To be called between frames; also
    /// by a loop that accepts nothing, which is why it does not wait for the next [`Self::reserve`].
    pub fn renew(&mut self) {
        if self.renewing && self.open_bytes() == 0 {
            self.begin_next_file();
        }
    }

    fn dictionary_is_full(&self) -> bool {
        self.dictionary.entries() >= self.limits.dictionary_entries_max
            || self.dictionary.memory_bytes() >= self.limits.dictionary_bytes_max
    }

    /// Bytes of memory of the current file's dictionary, at most.
    pub fn dictionary_memory_bytes(&self) -> usize {
        self.dictionary.memory_bytes()
    }

    /// Who owns a series, if it has a number in the current file.
    pub fn owner(&self, labels: LabelSetRef<'_>) -> Option<u16> {
        self.dictionary.owner(labels)
    }

    /// Which dictionary the numbers of the open frame belong to: the current file's sequence number.
    pub fn dictionary(&self) -> u64 {
        self.current.map_or(0, |current| current.sequence)
    }

    /// Whether a number that [`Self::number`] gave in the present dictionary is still of a series of that kind, so
    /// that it need not be asked for again.
    #[inline]
    pub fn is_of_kind(&self, number: SeriesNumber, kind: MetricKind) -> bool {
        self.dictionary.is_of_kind(number, kind)
    }

    /// The number of a series in the current file. When it is new there, or comes with another kind than
    /// before, it is defined in the open frame and its owner must be told (`first`).
    #[inline]
    pub fn number(
        &mut self,
        labels: LabelSetRef<'_>,
        kind: MetricKind,
        owner_of: impl FnOnce(SeriesHash) -> u16,
    ) -> Numbered {
        self.dictionary.number(labels, kind, owner_of, &mut self.definitions)
    }

    /// Takes back numbers that their owner would forget, where they are those of the present dictionary: the series get
    /// others when they come again. What was pushed under them stays.
    pub fn take_back(&mut self, share: &Share) {
        if share.dictionary == self.dictionary() {
            share.definitions().for_each(|(number, _, labels)| self.dictionary.take_back(number, labels));
        }
    }

    /// The number of a client in the current file.
    #[inline]
    pub fn client(&mut self, bytes: &[u8]) -> ClientNumber {
        self.dictionary.client(bytes, &mut self.definitions)
    }

    /// Begins a batch for which there was [`Reserve::Ready`].
    #[inline]
    pub fn begin_batch(&mut self, client: ClientNumber) {
        self.samples.begin_batch(client);
    }

    /// Adds a sample to the batch.
    #[inline]
    pub fn push(&mut self, number: SeriesNumber, sample: Sample) {
        self.samples.push(number, sample);
    }

    /// Adds samples of one series to the batch.
    #[inline]
    pub fn push_all(&mut self, number: SeriesNumber, samples: impl Iterator<Item = Sample>) {
        self.samples.push_all(number, samples);
    }

    /// Closes the open frame: the turn's batches, whole. `None` when nothing was put into it.
    pub fn seal(&mut self, stamp_nanos: u64) -> Option<Sealed> {
        if self.open_bytes() == 0 {
            return None;
        }
        let file_synced = self.synced_in_current();
        let current = self.current.as_mut()?;
        self.last_nanos = stamp_nanos.max(self.last_nanos + 1);
        let stamp = Stamp { run: self.run, nanos: self.last_nanos, loop_index: self.loop_index };
        let samples = self.samples.bytes();
        let head = FrameHead {
            payload_bytes: (self.definitions.len() + samples.len()) as u32,
            definition_bytes: self.definitions.len() as u32,
            records: self.samples.records(),
            first_offset: self.next_offset,
            stamp,
            synced_through: file_synced,
            payload_crc: crc32c::crc32c_append(crc32c::crc32c(&self.definitions), samples),
        };
        let frame_bytes = frame::frame_bytes(self.definitions.len() + samples.len());
        if self.filling.is_empty() && current.sealed.position == HEAD_BYTES as u64 {
            // Room for the file's head, which is known only when this is written.
            self.filling.resize(HEAD_BYTES, 0);
        }
        let end = self.filling.len() + frame_bytes;
        self.filling.extend_from_slice(&head.encode(current.sequence, current.sealed.position));
        self.filling.extend_from_slice(&self.definitions);
        self.filling.extend_from_slice(samples);
        self.filling.resize(end, 0);
        self.next_offset += u64::from(head.records);
        current.sealed =
            Mark { position: current.sealed.position + frame_bytes as u64, next_offset: self.next_offset };
        let end = current.at(current.sealed);
        self.definitions.clear();
        self.samples.clear();
        Some(Sealed { end, stamp })
    }

    /// Everything sealed and not yet taken, as one write; `None` while one is under way.
    pub fn next_write(&mut self) -> Option<Write> {
        if self.writing {
            return None;
        }
        let waiting = match self.queue.pop_front() {
            Some(waiting) => waiting,
            None if self.filling.is_empty() => return None,
            None => self.take_filling()?,
        };
        let Waiting { sequence, position, bytes, through } = waiting;
        self.writing = true;
        self.writing_bytes = bytes.len();
        Some(Write { sequence, position, bytes, through })
    }

    /// What came of a write: everything of it, or it failed.
    pub fn wrote(&mut self, mut write: Write, result: io::Result<()>) -> Result<(), Abandoned> {
        self.writing = false;
        self.writing_bytes = 0;
        write.bytes.clear();
        self.spare.push(write.bytes);
        if std::mem::take(&mut self.stale_write) {
            return Ok(());
        }
        if result.is_err() {
            return Err(self.abandon_unwritten());
        }
        for open in self.old.iter_mut().chain(&mut self.current) {
            if open.sequence == write.sequence {
                open.written = write.through;
            }
        }
        Ok(())
    }

    /// What to sync next, up to what was written; `None` while a sync is under way or nothing is new.
    pub fn next_sync(&mut self) -> Option<Sync> {
        if self.syncing {
            return None;
        }
        // The older file first: a frame that is reported synced has everything before it on the device.
        let open = self.to_sync()?;
        let sync = Sync { sequence: open.sequence, through: open.written };
        self.syncing = true;
        Some(sync)
    }

    /// What came of a sync.
    pub fn synced(&mut self, sync: Sync, result: io::Result<()>) -> Result<(), Abandoned> {
        self.syncing = false;
        if result.is_err() {
            return Err(self.abandon_unsynced());
        }
        for open in self.old.iter_mut().chain(&mut self.current) {
            if open.sequence == sync.sequence {
                open.synced = sync.through;
            }
        }
        if let Some(old) = self.old.pop_front_if(|old| old.is_synced()) {
            self.base = old.as_previous();
        }
        Ok(())
    }

    /// The end of the last sealed frame.
    pub fn end(&self) -> JournalPosition {
        self.reached(|open| open.sealed)
    }

    /// The end of what the kernel was handed.
    pub fn written(&self) -> JournalPosition {
        self.reached(|open| open.written)
    }

    /// The end of what is on the device.
    pub fn synced_through(&self) -> JournalPosition {
        self.reached(|open| open.synced)
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> u64 {
        self.next_offset + u64::from(self.samples.records())
    }

    /// Whether a file that is no longer written waits for its sync. Ask for it at every level: with two such
    /// files there is no third.
    pub fn rotation_waits_for_sync(&self) -> bool {
        !self.old.is_empty()
    }

    fn to_sync(&self) -> Option<&Open> {
        let open = self.old.front().or(self.current.as_ref())?;
        (open.written.position > open.synced.position).then_some(open)
    }

    fn reached(&self, mark: impl Fn(&Open) -> Mark) -> JournalPosition {
        // A newer file counts only once something of it has come so far.
        for open in self.current.iter().chain(self.old.iter().rev()) {
            if mark(open).position > HEAD_BYTES as u64 {
                return open.at(mark(open));
            }
        }
        self.base.end
    }

    fn open_bytes(&self) -> usize {
        self.definitions.len() + self.samples.bytes().len()
    }

    /// Sealed and not yet written, or not yet known to be.
    pub fn unwritten_bytes(&self) -> usize {
        let queued: usize = self.queue.iter().map(|waiting| waiting.bytes.len()).sum();
        self.writing_bytes + queued + self.filling.len()
    }

    fn synced_in_current(&self) -> u32 {
        match self.current {
            Some(current) if self.old.is_empty() && current.synced.position > HEAD_BYTES as u64 => {
                u32::try_from(current.synced.position).expect("files are below 4 GiB")
            }
            _ => 0,
        }
    }

    fn may_begin_next_file(&self) -> bool {
        // Recovery counts on it that a file's second successor begins only once the file was synced.
        let current_unsynced =
            self.current.is_some_and(|current| current.has_frames() && !current.is_synced());
        self.prepared.is_some() && self.old.len() + usize::from(current_unsynced) <= 1
    }

    /// Only with an empty open frame.
    fn begin_next_file(&mut self) -> bool {
        if !self.may_begin_next_file() {
            return false;
        }
        let Some(next) = self.prepared.take() else { return false };
        if !self.filling.is_empty()
            && let Some(waiting) = self.take_filling()
        {
            self.queue.push_back(waiting);
        }
        // A current file without a frame left no trace on the disk, so it is not the next one's previous.
        if let Some(current) = self.current.take().filter(Open::has_frames) {
            if current.is_synced() {
                self.base = current.as_previous();
            } else {
                self.old.push_back(current);
            }
        }
        self.dictionary_bytes_last = self.dictionary.bytes();
        self.dictionary.clear();
        self.renewing = false;
        let begin = Mark { position: HEAD_BYTES as u64, next_offset: self.next_offset };
        self.current = Some(Open {
            sequence: next.sequence,
            bytes: next.bytes,
            sealed: begin,
            written: begin,
            synced: begin,
            abandoned: false,
        });
        true
    }

    fn take_filling(&mut self) -> Option<Waiting> {
        let current = self.current?;
        let mut bytes = std::mem::replace(&mut self.filling, self.spare.pop().unwrap_or_default());
        let position = current.sealed.position - bytes.len() as u64;
        if position == 0 {
            bytes[..HEAD_BYTES].copy_from_slice(&self.head_of(&current).encode());
        }
        Some(Waiting { sequence: current.sequence, position, bytes, through: current.sealed })
    }

    /// Made when the file's first bytes are taken to be written. The file before has no frame to come by then;
    /// should the write of one fail, these bytes are dropped with it.
    fn head_of(&self, current: &Open) -> FileHead {
        FileHead {
            run: self.run,
            loop_index: self.loop_index,
            sequence: current.sequence,
            first_offset: current.written.next_offset,
            file_bytes: current.bytes,
            previous: self.old.back().map_or(self.base, Open::as_previous),
        }
    }

    /// A write failed: what was written before it stays, and is synced yet.
    fn abandon_unwritten(&mut self) -> Abandoned {
        self.old.extend(self.current.take());
        // Only the last can have unwritten frames: a write to a file waits for those to the one before.
        let unwritten = |open: &Open| open.written.position < open.sealed.position;
        let cut = self.old.iter().position(unwritten).map_or(self.old.len(), |at| at + 1);
        self.old.truncate(cut);
        if let Some(last) = self.old.back_mut() {
            last.sealed = last.written;
            self.next_offset = last.written.next_offset;
        }
        self.abandon()
    }

    /// A sync failed: the device may have lost anything after the last one that did not fail.
    fn abandon_unsynced(&mut self) -> Abandoned {
        self.stale_write = self.writing;
        self.old.extend(self.current.take());
        self.old.truncate(1);
        if let Some(first) = self.old.front_mut() {
            first.written = first.synced;
            first.sealed = first.synced;
            self.next_offset = first.synced.next_offset;
        }
        self.abandon()
    }

    /// With what stays in `old`.
    fn abandon(&mut self) -> Abandoned {
        self.queue.clear();
        self.filling.clear();
        self.definitions.clear();
        self.samples.clear();
        self.dictionary_bytes_last = self.dictionary.bytes();
        self.dictionary.clear();
        self.old.retain(Open::has_frames);
        if let Some(last) = self.old.back_mut() {
            last.abandoned = true;
        } else {
            self.base.abandoned = true;
        }
        while let Some(old) = self.old.pop_front_if(|old| old.is_synced()) {
            self.base = old.as_previous();
        }
        Abandoned { last_good: self.written() }
    }
}
