//! Reading: blocks in the order of the file, each checked before anything in it is believed.
//!
//! ```text
//!   a head that is none          → the next place where one stands; what lies between is damaged
//!   a payload of another sum     → damaged, and its head says how many series and which time it held
//!   no last block, or one that   → blocks are missing, which is told if nothing else was
//!   counts others than were met
//! ```
//!
//! Never in memory: more than what one request to the disk gives.

use super::layout::{
    BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_HEAD_BYTES, BlockHead, BlockKind, HEAD_BYTES, Head, Refused, Totals,
};
use super::series::{Record, Records, SeriesRecord};
use super::{CheckpointEntry, CheckpointError, LoopNumbers, Lost, checkpoint_path};
use crate::chunk::{Chunk, OpenChunk};
use crate::disk::{Disk, DiskFile};
use model::{LabelSetRef, Sample};
use std::io;

/// Bytes asked of the disk at once.
const READ_BYTES: usize = 1024 * 1024;
const _: () = assert!(BLOCK_BYTES_MAX <= READ_BYTES);
/// The last block of a whole file.
const END_BYTES: usize = BLOCK_HEAD_BYTES + Totals::BYTES;
/// A record of a series takes no less: tag, id, kind, arrival, pieces, their bits.
const SERIES_BYTES_MIN: u64 = 6;

/// Who takes what a checkpoint holds. What does not fit what came before is refused by `false`.
pub(crate) trait Sink {
    /// What follows is of this series, which may be one that was begun before.
    fn series(&mut self, series: &SeriesRecord<'_>) -> bool;
    /// Late samples.
    fn late(&mut self, samples: &[Sample]) -> bool;
    /// A closed chunk, behind those before.
    fn chunk(&mut self, chunk: Chunk) -> bool;
    /// The open chunk.
    fn open(&mut self, chunk: OpenChunk) -> bool;
}

/// A block that was read and not taken in yet.
pub(crate) struct Block {
    at: u64,
    head: BlockHead,
}

/// A checkpoint that is being read.
pub(crate) struct Loader<F> {
    path: String,
    entry: CheckpointEntry,
    file: F,
    /// Where the next block begins, and where the file ends.
    position: u64,
    end: u64,
    held: Vec<u8>,
    held_at: u64,
    totals: Totals,
    /// What the last block says.
    said: Option<Totals>,
    numbers: Vec<LoopNumbers>,
    last_id: Option<u32>,
    /// Of the series named last; empty before the first.
    last_labels: Vec<u8>,
    damaged: Vec<CheckpointError>,
}

impl<F: DiskFile> Loader<F> {
    /// Opens the checkpoint that a manifest names. One that is not there, or is another, is damage of the whole.
    pub(crate) async fn open<D: Disk<File = F>>(
        disk: &D,
        entry: &CheckpointEntry,
    ) -> Result<Loader<F>, CheckpointError> {
        let path = checkpoint_path(entry.id);
        let failed = |error| CheckpointError::Io { path: path.clone(), error };
        let damaged = |what| {
            let lost = Lost::default();
            CheckpointError::Damaged { path: path.clone(), offset: 0, what, lost }
        };
        let file = match disk.open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing"));
            }
            Err(error) => return Err(failed(error)),
        };
        let len = file.len().await.map_err(failed)?;
        let head = file.read_at(0, HEAD_BYTES).await.map_err(failed)?;
        let is_named =
            |head: &Head| (head.id, head.shards, head.shard) == (entry.id, entry.shards, entry.shard);
        // Where only the head is damaged, the blocks say by their sums whether they are of this file.
        let head = match Head::decode(&head) {
            Err(Refused::OtherVersion(version)) => {
                return Err(CheckpointError::OtherVersion { path, version });
            }
            Err(Refused::Damaged) => Some(damaged("the checksum of the head")),
            Ok(head) if !is_named(&head) => {
                return Err(damaged("the file is another checkpoint than the manifest names"));
            }
            Ok(_) => None,
        };
        Ok(Loader {
            entry: *entry,
            file,
            position: HEAD_BYTES as u64,
            end: len.min(entry.bytes),
            held: Vec::new(),
            held_at: 0,
            totals: Totals::default(),
            said: None,
            numbers: Vec::new(),
            last_id: None,
            last_labels: Vec::new(),
            damaged: Vec::from_iter(head.map(|head| head.holding_nothing())),
            path,
        })
    }

    /// How many series the last block says there are, for who makes room for them: no more than the file can hold, and
    /// 0 where nothing can be read there, which whoever reads that far is told of.
    pub(crate) async fn series_promised(&self) -> usize {
        let at = self.entry.bytes.saturating_sub(END_BYTES as u64);
        if self.end < self.entry.bytes || at < HEAD_BYTES as u64 {
            return 0;
        }
        let Ok(bytes) = self.file.read_at(at, END_BYTES).await else { return 0 };
        let totals = (|| {
            let head = BlockHead::decode(&bytes, self.entry.id, at)?;
            let payload = bytes.get(BLOCK_HEAD_BYTES..)?;
            let is_end = head.kind == BlockKind::End && crc32c::crc32c(payload) == head.payload_crc;
            Totals::decode(payload).filter(|_| is_end)
        })();
        let series = totals.map_or(0, |totals| totals.series);
        series.min(self.end / SERIES_BYTES_MIN) as usize
    }

    /// Reads as far as the next block, which [`Self::take`] is to be given; what lies before it is damaged.
    pub(crate) async fn read(&mut self) -> Result<Option<Block>, CheckpointError> {
        let begin = self.position;
        let found = self.next_head().await?;
        let at = found.map_or(self.end, |(at, _)| at);
        if at > begin {
            self.note(begin, "no block where one should begin", None);
        }
        let Some((at, head)) = found else {
            self.position = self.end;
            self.finish();
            return Ok(None);
        };
        self.position = at + head.block_bytes() as u64;
        self.totals.blocks += 1;
        self.hold(at, BLOCK_HEAD_BYTES + head.payload_bytes as usize).await?;
        Ok(Some(Block { at, head }))
    }

    /// The disk has refused to give what comes next: it is left out, and what was taken in stays.
    pub(crate) fn break_off(&mut self, error: CheckpointError) {
        self.note(self.position, "what the disk does not give", None);
        self.damaged.push(error);
    }

    /// Takes in the block just read; false where there was none.
    pub(crate) fn take(&mut self, block: Option<Block>, sink: &mut impl Sink) -> bool {
        let Some(Block { at, head }) = block else { return false };
        let from = (at - self.held_at) as usize + BLOCK_HEAD_BYTES;
        let held = std::mem::take(&mut self.held);
        let payload = held.get(from..from + head.payload_bytes as usize);
        match payload.filter(|payload| crc32c::crc32c(payload) == head.payload_crc) {
            Some(payload) => {
                if let Err(what) = self.take_payload(&head, payload, sink) {
                    self.note(at, what, Some(&head));
                }
            }
            None => self.note(at, "the checksum of a block", Some(&head)),
        }
        self.held = held;
        true
    }

    fn take_payload(
        &mut self,
        head: &BlockHead,
        payload: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), &'static str> {
        match head.kind {
            BlockKind::Numbers => {
                let count = LoopNumbers::decode_into(payload, &mut self.numbers);
                self.totals.numbers += count.ok_or("numbers that are not the next ones")?;
            }
            BlockKind::Series => self.take_series(payload, sink)?,
            BlockKind::End => {
                self.totals.blocks -= 1;
                self.said = Totals::decode(payload);
            }
        }
        Ok(())
    }

    fn take_series(&mut self, payload: &[u8], sink: &mut impl Sink) -> Result<(), &'static str> {
        let mut records = Records::new(payload);
        let mut read = Ok(());
        loop {
            let fits = match records.next() {
                Ok(Some(Record::Series(series))) => {
                    let is_new = self.last_id.is_none_or(|last| series.id > last);
                    let goes_on = self.last_id == Some(series.id);
                    self.totals.series += u64::from(is_new);
                    self.last_id = Some(series.id);
                    (is_new || goes_on) && sink.series(&series)
                }
                Ok(Some(Record::Late(samples))) => sink.late(samples),
                Ok(Some(Record::Chunk(chunk))) => sink.chunk(chunk),
                Ok(Some(Record::Open(chunk))) => sink.open(chunk),
                Ok(None) => break,
                Err(what) => {
                    read = Err(what);
                    break;
                }
            };
            if !fits {
                read = Err("a record that does not follow on those before");
                break;
            }
        }
        if let Some(labels) = records.labels() {
            self.last_labels.clear();
            self.last_labels.extend_from_slice(labels.bytes());
        }
        read
    }

    /// The next head from here on, and where it stands.
    async fn next_head(&mut self) -> Result<Option<(u64, BlockHead)>, CheckpointError> {
        let mut at = self.position;
        while at + BLOCK_HEAD_BYTES as u64 <= self.end {
            self.hold(at, BLOCK_HEAD_BYTES).await?;
            let from = (at - self.held_at) as usize;
            let bytes = self.held.get(from..).unwrap_or_default();
            let head = BlockHead::decode(bytes, self.entry.id, at);
            if let Some(head) = head.filter(|head| at + head.block_bytes() as u64 <= self.end) {
                return Ok(Some((at, head)));
            }
            at += BLOCK_ALIGN as u64;
        }
        Ok(None)
    }

    /// Sees to it that so many bytes of that place are held, fewer only where the file ends.
    async fn hold(&mut self, at: u64, len: usize) -> Result<(), CheckpointError> {
        let held_end = self.held_at + self.held.len() as u64;
        if at < self.held_at || at + len as u64 > held_end {
            let wanted = (len.max(READ_BYTES) as u64).min(self.end - at) as usize;
            let read = self.file.read_at(at, wanted).await;
            self.held = read.map_err(|error| CheckpointError::Io { path: self.path.clone(), error })?;
            self.held_at = at;
        }
        Ok(())
    }

    /// A part is not what was written.
    fn note(&mut self, offset: u64, what: &'static str, head: Option<&BlockHead>) {
        let lost = Lost {
            series: head.map(|head| head.series),
            behind: self.behind(),
            millis: head.and_then(BlockHead::millis),
        };
        self.damaged.push(CheckpointError::Damaged { path: self.path.clone(), offset, what, lost });
    }

    fn behind(&self) -> Option<String> {
        let labels = LabelSetRef::from_bytes(&self.last_labels).ok()?;
        Some(format!("{labels:?}"))
    }

    fn finish(&mut self) {
        if self.damaged.is_empty() && self.said != Some(self.totals) {
            self.note(self.position, "the file holds less than was written", None);
        }
    }

    /// Nothing of it can be used, though all that was read had its checksum.
    pub(crate) fn refuse_all(&mut self, what: &'static str) {
        let (path, lost) = (self.path.clone(), Lost::default());
        self.damaged.push(CheckpointError::Damaged { path, offset: 0, what, lost });
    }

    /// What the loops called the series, if all of it is known, and what is damaged.
    pub(crate) fn end(self) -> (Vec<LoopNumbers>, Vec<CheckpointError>) {
        let numbers = if self.damaged.is_empty() { self.numbers } else { Vec::new() };
        (numbers, self.damaged)
    }
}

impl CheckpointError {
    /// The same, where it is known that no sample was in the damaged part.
    fn holding_nothing(self) -> CheckpointError {
        match self {
            CheckpointError::Damaged { path, offset, what, lost } => {
                CheckpointError::Damaged { path, offset, what, lost: Lost { series: Some(0), ..lost } }
            }
            other => other,
        }
    }
}
