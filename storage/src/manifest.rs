//! The manifest: the one file that says what a data directory consists of.
//!
//! Owner: the server, which writes it whole at each start, flush, merge and checkpoint.
//! Always: it is the old one or the new one, never a mixture; a segment that it does not name does not
//! exist; what lies below a position that it names is in a segment or a checkpoint that it names.
//! Not here: the lock on the directory, and whether strange files in it matter; that is the server's.
//! Read next: `docs/format/manifest.md`.

use crate::disk::{Disk, DiskFile};
use crate::journal::JournalPosition;
use std::fmt;
use std::io;

/// The manifest's name in the data directory.
pub const MANIFEST_FILE: &str = "MANIFEST";
/// The name under which the next one is written, before it replaces the last.
pub const MANIFEST_FILE_NEXT: &str = "MANIFEST.next";
/// The version that this code writes and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 4;
/// The oldest that it reads: in version 1 every segment was one flush, before version 4 there was no checkpoint.
const MANIFEST_VERSION_MIN: u32 = 1;

const MAGIC: [u8; 8] = *b"rwmanife";
const HEAD_BYTES: usize = 24;
const SEGMENT_BYTES_1: usize = 8 + 2 + 2 + 8 + 8 + 8;
const SEGMENT_BYTES: usize = SEGMENT_BYTES_1 + 8 + 8;
/// With an empty selector.
const TOMBSTONE_BYTES_MIN: usize = 8 + 2 + 2 + 8 + 8 + 4;
/// Deletes that may wait for segments to be written anew; each is looked at for each segment of a query.
pub const DELETES_MAX: usize = 1_000;
const POSITION_BYTES: usize = 16;
/// In place of the believed time.
const NEVER_LOOKED: i64 = i64::MIN;
const CHECKPOINT_BYTES: usize = 8 + 2 + 2 + 8;
/// A million segments are far below; what claims more is not a manifest.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a data directory consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Starts of this directory; part of every stamp.
    pub run: u64,
    /// The shards with which it last ran; 0 in a new one.
    pub shards: u16,
    /// Raised whenever the count of shards, and with it the owner of a series, changes.
    pub routing_generation: u64,
    /// Per executor, per journal: below it, all that the executor owns from that journal is in the segments and in its
    /// checkpoint.
    pub positions: Vec<Vec<JournalPosition>>,
    /// The segments, in no order.
    pub segments: Vec<SegmentEntry>,
    /// The next segment's id; ids are never given twice.
    pub next_segment: u64,
    /// What is deleted and may still lie in segments.
    pub deletes: Vec<Tombstone>,
    /// The time by which samples have left at last, in Unix milliseconds; `None` where nobody has looked yet. See
    /// [`RetentionClock`](crate::compact::RetentionClock).
    pub believed_ms: Option<i64>,
    /// The memory of executors, one each at most, newer than every segment.
    pub checkpoints: Vec<CheckpointEntry>,
}

/// A checkpoint, as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// Its id, part of its file's name, of the same row as those of segments.
    pub id: u64,
    /// How many shards there were when it was written.
    pub shards: u16,
    /// Whose memory it holds.
    pub shard: u16,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A segment, as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its id, part of its file's name.
    pub id: u64,
    /// How many shards there were when it was written.
    pub shards: u16,
    /// Which of them wrote it; it holds that shard's slots.
    pub shard: u16,
    /// The first sample's millisecond.
    pub min_ms: i64,
    /// The last sample's millisecond.
    pub max_ms: i64,
    /// Bytes of its file.
    pub bytes: u64,
    /// The newest flush whose samples are in it, by its id; its own for a segment that was flushed. Where two segments
    /// hold a sample of one series and time, that of the newer flush counts.
    pub newest: u64,
    /// Deletes up to this id are carried out in it: what they hide is not there.
    pub deletes_through: u64,
}

/// Samples that are hidden, and gone once the segments that hold them have been written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its id, of the same row as those of segments: it hides what flushes below it hold, and nothing later.
    pub id: u64,
    /// How many shards there were when it was made.
    pub shards: u16,
    /// Whose series it hides.
    pub shard: u16,
    /// The first millisecond.
    pub start_ms: i64,
    /// The last millisecond, included.
    pub end_ms: i64,
    /// Which series, as `{__name__="cpu",host=~"a.*"}`.
    pub selector: String,
}

impl Tombstone {
    /// Whether the segment may hold samples that it hides.
    pub fn concerns(&self, segment: &SegmentEntry) -> bool {
        // Each shard has one of its own for the same request.
        let is_of_owner = self.shards != segment.shards || self.shard == segment.shard;
        is_of_owner
            && self.id > segment.newest
            && self.id > segment.deletes_through
            && self.start_ms <= segment.max_ms
            && self.end_ms >= segment.min_ms
    }
}

/// The new manifest has its name, and a crash may show either.
#[derive(Debug)]
struct MaybeStored(io::Error);

impl fmt::Display for MaybeStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; the next start may find it stored", self.0)
    }
}

impl std::error::Error for MaybeStored {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Whether a start may find the manifest whose [`Manifest::store`] ended so: nothing that it names may be removed
/// until another one is stored.
pub fn may_be_stored(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<MaybeStored>())
}

/// Why a manifest cannot be loaded.
#[derive(Debug)]
pub enum ManifestError {
    /// The disk failed.
    Disk(io::Error),
    /// The file is something else.
    Foreign,
    /// Written by a newer ringwatch.
    Version {
        /// Its version.
        found: u32,
    },
    /// It is ours and it is damaged.
    Damaged {
        /// What should have been there.
        expected: &'static str,
        /// Where, in bytes.
        at: u64,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Disk(error) => write!(f, "{MANIFEST_FILE}: {error}"),
            ManifestError::Foreign => {
                write!(f, "{MANIFEST_FILE} is not a ringwatch manifest: is this the right data directory?")
            }
            ManifestError::Version { found } => write!(
                f,
                "{MANIFEST_FILE} has format version {found}, this program reads up to {MANIFEST_VERSION}: \
                 start the newer ringwatch that wrote it"
            ),
            ManifestError::Damaged { expected, at } => {
                write!(f, "{MANIFEST_FILE} is damaged at byte {at}: expected {expected}")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// The manifest of a new directory.
    pub fn new(shards: u16) -> Manifest {
        Manifest::default().with_shards(shards)
    }

    /// The checkpoint of an executor.
    pub fn checkpoint(&self, executor: usize) -> Option<&CheckpointEntry> {
        self.checkpoints.iter().find(|entry| usize::from(entry.shard) == executor)
    }

    /// Names an executor's new checkpoint with its positions; returns the one that it replaces. Refused where a flush
    /// has come further: what that brought to a segment must not come back as something newer.
    pub fn switch_checkpoint(
        &mut self,
        entry: CheckpointEntry,
        positions: &[JournalPosition],
    ) -> Result<Option<CheckpointEntry>, &'static str> {
        let executor = usize::from(entry.shard);
        let is_behind = |(of, position): (usize, &JournalPosition)| *position < self.position(executor, of);
        if positions.iter().enumerate().any(is_behind) {
            return Err("a flush has come further");
        }
        self.next_segment = self.next_segment.max(entry.id + 1);
        self.raise_positions(executor, positions);
        let replaced = self.drop_checkpoint(executor);
        self.checkpoints.push(entry);
        Ok(replaced)
    }

    /// An executor's whole memory is in segments up to these positions: no checkpoint is needed; returns the one that was.
    pub fn switch_flush(
        &mut self,
        executor: usize,
        positions: &[JournalPosition],
    ) -> Option<CheckpointEntry> {
        self.raise_positions(executor, positions);
        self.drop_checkpoint(executor)
    }

    fn drop_checkpoint(&mut self, executor: usize) -> Option<CheckpointEntry> {
        let at = self.checkpoints.iter().position(|entry| usize::from(entry.shard) == executor)?;
        Some(self.checkpoints.swap_remove(at))
    }

    fn raise_positions(&mut self, executor: usize, positions: &[JournalPosition]) {
        for (kept, position) in self.positions[executor].iter_mut().zip(positions) {
            *kept = (*kept).max(*position);
        }
    }

    /// The same data for another number of shards: of every journal's position nothing is known yet, and what was in
    /// memory is in segments. Columns
    /// of journals that no loop writes any more stay, so that a loop that takes one up again goes on above.
    pub fn with_shards(&self, shards: u16) -> Manifest {
        let journals = self.positions.first().map_or(0, Vec::len).max(usize::from(shards));
        let highest: Vec<JournalPosition> =
            (0..journals).map(|journal| self.highest_position(journal)).collect();
        Manifest {
            shards,
            routing_generation: self.routing_generation + 1,
            positions: vec![highest; usize::from(shards)],
            checkpoints: Vec::new(),
            ..self.clone()
        }
    }

    /// Forgets the deletes that concern no segment any more.
    pub fn forget_deletes(&mut self) {
        let segments = &self.segments;
        self.deletes.retain(|delete| segments.iter().any(|segment| delete.concerns(segment)));
    }

    /// The position of an executor in a journal: the journal's start where none is named.
    pub fn position(&self, executor: usize, journal: usize) -> JournalPosition {
        let positions = self.positions.get(executor);
        positions.and_then(|positions| positions.get(journal)).copied().unwrap_or_default()
    }

    /// The lowest position of all executors in a journal: below it the journal may be cut.
    pub fn lowest_position(&self, journal: usize) -> JournalPosition {
        let all = (0..self.positions.len()).map(|executor| self.position(executor, journal));
        all.min().unwrap_or_default()
    }

    /// The highest position of all executors in a journal: a new run goes on above it.
    pub fn highest_position(&self, journal: usize) -> JournalPosition {
        let all = (0..self.positions.len()).map(|executor| self.position(executor, journal));
        all.max().unwrap_or_default()
    }

    /// The manifest of a data directory; `None` in a new one.
    pub async fn load<D: Disk>(disk: &D) -> Result<Option<Manifest>, ManifestError> {
        let file = match disk.open(MANIFEST_FILE).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ManifestError::Disk(error)),
        };
        let len = file.len().await.map_err(ManifestError::Disk)?;
        // Whatever is longer is still read as far as its head, which says what it is.
        let len = len.min(BYTES_MAX) as usize;
        let bytes = file.read_at(0, len).await.map_err(ManifestError::Disk)?;
        Manifest::decode(&bytes).map(Some)
    }

    /// Replaces the directory's manifest; when this returns the new one is there after any crash. After an
    /// error it is the old one, or, where [`may_be_stored`] says so of the error, either.
    pub async fn store<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let file = disk.create(MANIFEST_FILE_NEXT).await?;
        file.write_at(0, &self.encode()).await?;
        file.sync().await?;
        disk.rename(MANIFEST_FILE_NEXT, MANIFEST_FILE).await?;
        disk.sync_dir("").await.map_err(|error| io::Error::new(error.kind(), MaybeStored(error)))
    }

    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.run.to_le_bytes());
        body.extend_from_slice(&self.routing_generation.to_le_bytes());
        body.extend_from_slice(&self.next_segment.to_le_bytes());
        body.extend_from_slice(&self.shards.to_le_bytes());
        body.extend_from_slice(&count(self.positions.len()).to_le_bytes());
        for positions in &self.positions {
            body.extend_from_slice(&count(positions.len()).to_le_bytes());
            for position in positions {
                body.extend_from_slice(&position.sequence.to_le_bytes());
                body.extend_from_slice(&position.offset.to_le_bytes());
            }
        }
        body.extend_from_slice(&count(self.segments.len()).to_le_bytes());
        for segment in &self.segments {
            body.extend_from_slice(&segment.id.to_le_bytes());
            body.extend_from_slice(&segment.shards.to_le_bytes());
            body.extend_from_slice(&segment.shard.to_le_bytes());
            body.extend_from_slice(&segment.min_ms.to_le_bytes());
            body.extend_from_slice(&segment.max_ms.to_le_bytes());
            body.extend_from_slice(&segment.bytes.to_le_bytes());
            body.extend_from_slice(&segment.newest.to_le_bytes());
            body.extend_from_slice(&segment.deletes_through.to_le_bytes());
        }
        body.extend_from_slice(&count(self.deletes.len()).to_le_bytes());
        for delete in &self.deletes {
            body.extend_from_slice(&delete.id.to_le_bytes());
            body.extend_from_slice(&delete.shards.to_le_bytes());
            body.extend_from_slice(&delete.shard.to_le_bytes());
            body.extend_from_slice(&delete.start_ms.to_le_bytes());
            body.extend_from_slice(&delete.end_ms.to_le_bytes());
            body.extend_from_slice(&count(delete.selector.len()).to_le_bytes());
            body.extend_from_slice(delete.selector.as_bytes());
        }
        body.extend_from_slice(&self.believed_ms.unwrap_or(NEVER_LOOKED).to_le_bytes());
        body.extend_from_slice(&count(self.checkpoints.len()).to_le_bytes());
        for checkpoint in &self.checkpoints {
            body.extend_from_slice(&checkpoint.id.to_le_bytes());
            body.extend_from_slice(&checkpoint.shards.to_le_bytes());
            body.extend_from_slice(&checkpoint.shard.to_le_bytes());
            body.extend_from_slice(&checkpoint.bytes.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
        bytes.extend_from_slice(&count(body.len()).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a manifest's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let damaged = |at: usize, expected| ManifestError::Damaged { at: at as u64, expected };
        if !bytes.starts_with(&MAGIC) {
            return Err(ManifestError::Foreign);
        }
        let mut head = Reader { bytes: &bytes[..bytes.len().min(HEAD_BYTES)], at: MAGIC.len() };
        let version = head.u32()?;
        let body_bytes = head.u32()? as usize;
        let body_crc = head.u32()?;
        if head.u32()? != crc32c::crc32c(&bytes[..HEAD_BYTES - 4]) {
            return Err(damaged(0, "a head that matches its checksum"));
        }
        if !(MANIFEST_VERSION_MIN..=MANIFEST_VERSION).contains(&version) {
            return Err(ManifestError::Version { found: version });
        }
        if bytes.len() - HEAD_BYTES != body_bytes || crc32c::crc32c(&bytes[HEAD_BYTES..]) != body_crc {
            return Err(damaged(HEAD_BYTES, "a body of the head's length and checksum"));
        }
        let mut body = Reader { bytes, at: HEAD_BYTES };
        let mut manifest = Manifest {
            run: body.u64()?,
            routing_generation: body.u64()?,
            next_segment: body.u64()?,
            shards: body.u16()?,
            ..Manifest::default()
        };
        for _ in 0..body.u32()? {
            let mut positions = Vec::new();
            for _ in 0..body.count(POSITION_BYTES)? {
                positions.push(JournalPosition { sequence: body.u64()?, offset: body.u64()? });
            }
            manifest.positions.push(positions);
        }
        let segment_bytes = if version == 1 { SEGMENT_BYTES_1 } else { SEGMENT_BYTES };
        for _ in 0..body.count(segment_bytes)? {
            let id = body.u64()?;
            manifest.segments.push(SegmentEntry {
                id,
                shards: body.u16()?,
                shard: body.u16()?,
                min_ms: body.u64()? as i64,
                max_ms: body.u64()? as i64,
                bytes: body.u64()?,
                newest: if version == 1 { id } else { body.u64()? },
                deletes_through: if version == 1 { 0 } else { body.u64()? },
            });
        }
        let deletes = if version == 1 { 0 } else { body.count(TOMBSTONE_BYTES_MIN)? };
        for _ in 0..deletes {
            manifest.deletes.push(Tombstone {
                id: body.u64()?,
                shards: body.u16()?,
                shard: body.u16()?,
                start_ms: body.u64()? as i64,
                end_ms: body.u64()? as i64,
                selector: body.text()?,
            });
        }
        if version >= 3 {
            let believed_ms = body.u64()? as i64;
            manifest.believed_ms = (believed_ms != NEVER_LOOKED).then_some(believed_ms);
        }
        let checkpoints = if version < 4 { 0 } else { body.count(CHECKPOINT_BYTES)? };
        for _ in 0..checkpoints {
            manifest.checkpoints.push(CheckpointEntry {
                id: body.u64()?,
                shards: body.u16()?,
                shard: body.u16()?,
                bytes: body.u64()?,
            });
        }
        if body.at == bytes.len() { Ok(manifest) } else { Err(damaged(body.at, "the end")) }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a manifest is far below 4 GiB")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let found = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        let found = *found.ok_or(ManifestError::Damaged { at: self.at as u64, expected: "more bytes" })?;
        self.at += N;
        Ok(found)
    }

    fn u16(&mut self) -> Result<u16, ManifestError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ManifestError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ManifestError> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, ManifestError> {
        let at = self.at as u64;
        let len = self.count(1)? as usize;
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| ManifestError::Damaged { at, expected: "text in UTF-8" })
    }

    /// A count of things that each take `bytes`, checked against what is left before anything is made.
    fn count(&mut self, bytes: usize) -> Result<u32, ManifestError> {
        let at = self.at as u64;
        let count = self.u32()?;
        if count as usize > (self.bytes.len() - self.at) / bytes {
            return Err(ManifestError::Damaged { at, expected: "a count that fits the file" });
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, SimDisk, Times, ready};
    use proptest::prelude::*;

    /// Who wrote segments for a manifest may remove them only if no start can find that manifest.
    /// Method: each call of a store fails once; where a start finds the new one, the error said that it may.
    #[test]
    fn a_failed_store_says_whether_a_start_may_find_it() {
        let mut found = Vec::new();
        for (call, nth) in
            [(Call::Create, 0), (Call::Write, 0), (Call::Sync, 0), (Call::Rename, 0), (Call::Sync, 1)]
        {
            let disk = SimDisk::new(1);
            ready(manifest(1).store(&disk)).unwrap();
            disk.fail(call, disk.calls(call) + nth, Times::Once, io::ErrorKind::Other);
            let error = ready(manifest(2).store(&disk)).unwrap_err();
            disk.mend();
            let is_new = ready(Manifest::load(&disk)).unwrap().unwrap().run == 2;
            assert!(may_be_stored(&error) || !is_new, "{call:?} {nth}");
            found.push(may_be_stored(&error));
        }
        assert_eq!(found, [false, false, false, false, true]);
    }

    fn manifest(run: u64) -> Manifest {
        let position = |sequence| JournalPosition { sequence, offset: 4_096 + sequence };
        Manifest {
            run,
            shards: 2,
            routing_generation: 5,
            positions: vec![vec![position(1), position(9)], vec![position(3), position(7)]],
            segments: vec![
                SegmentEntry {
                    id: 1,
                    shards: 2,
                    shard: 0,
                    min_ms: -5,
                    max_ms: 70,
                    bytes: 1 << 33,
                    newest: 1,
                    deletes_through: 0,
                },
                SegmentEntry {
                    id: 8,
                    shards: 4,
                    shard: 3,
                    min_ms: 0,
                    max_ms: 0,
                    bytes: 0,
                    newest: 6,
                    deletes_through: 9,
                },
            ],
            next_segment: 9,
            deletes: vec![Tombstone {
                id: 7,
                shards: 2,
                shard: 1,
                start_ms: -1,
                end_ms: i64::MAX,
                selector: "{host=\"ä\"}".to_owned(),
            }],
            believed_ms: Some(1_796_000_000_000),
            checkpoints: vec![CheckpointEntry { id: 5, shards: 2, shard: 1, bytes: 77 }],
        }
    }

    /// A checkpoint comes in with its positions and goes with the next flush; one that comes too late is refused.
    #[test]
    fn a_flush_takes_the_place_of_a_checkpoint() {
        let position = |sequence| JournalPosition { sequence, offset: 9 };
        let mut of = manifest(1);
        let entry = CheckpointEntry { id: 20, shards: 2, shard: 1, bytes: 5 };
        let replaced = of.switch_checkpoint(entry, &[position(4), position(8)]);
        assert_eq!(replaced.map(|replaced| replaced.map(|entry| entry.id)), Ok(Some(5)));
        assert_eq!((of.checkpoint(1), of.checkpoint(0), of.next_segment), (Some(&entry), None, 21));
        assert_eq!(of.position(1, 1), position(8));
        assert_eq!(of.switch_flush(1, &[position(6), position(8)]), Some(entry));
        assert_eq!((of.checkpoint(1), of.position(1, 0)), (None, position(6)));
        assert!(of.switch_checkpoint(entry, &[position(5), position(9)]).is_err(), "behind the flush");
        assert_eq!((of.checkpoint(1), of.position(1, 1)), (None, position(8)));
    }

    /// Directories of versions before checkpoints.
    /// Method: the bytes of this one without their last fields.
    #[test]
    fn versions_before_checkpoints_are_read() {
        let of = Manifest { checkpoints: Vec::new(), ..manifest(1) };
        let bytes = of.encode();
        for (version, without) in [(3u32, 4), (2, 4 + 8)] {
            let body = &bytes[HEAD_BYTES..bytes.len() - without];
            let mut older = MAGIC.to_vec();
            older.extend_from_slice(&version.to_le_bytes());
            older.extend_from_slice(&(body.len() as u32).to_le_bytes());
            older.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
            older.extend_from_slice(&crc32c::crc32c(&older).to_le_bytes());
            older.extend_from_slice(body);
            let believed_ms = of.believed_ms.filter(|_| version == 3);
            assert_eq!(Manifest::decode(&older).unwrap(), Manifest { believed_ms, ..of.clone() });
        }
    }

    /// A directory of a version before merges: each segment is one flush, and nothing is deleted.
    /// Method: the body of version 1, written out by hand.
    #[test]
    fn version_1_is_read() {
        let mut body = Vec::new();
        [4u64, 1, 12].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        body.extend_from_slice(&1u16.to_le_bytes());
        [1u32, 0, 1].iter().for_each(|count| body.extend_from_slice(&count.to_le_bytes()));
        body.extend_from_slice(&11u64.to_le_bytes());
        [1u16, 0].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        [5u64, 6, 700].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend_from_slice(&body);
        let read = Manifest::decode(&bytes).unwrap();
        assert_eq!((read.run, read.next_segment, read.deletes.len()), (4, 12, 0));
        assert_eq!(read.believed_ms, None);
        let [segment] = read.segments[..] else { panic!("{read:?}") };
        assert_eq!((segment.id, segment.newest, segment.deletes_through, segment.bytes), (11, 11, 0, 700));
    }

    #[test]
    fn a_manifest_comes_back_and_names_the_positions_to_cut_and_to_go_on_from() {
        let disk = SimDisk::new(1);
        assert_eq!(ready(Manifest::load(&disk)).unwrap(), None);
        ready(manifest(3).store(&disk)).unwrap();
        let loaded = ready(Manifest::load(&disk)).unwrap().unwrap();
        assert_eq!(loaded, manifest(3));
        assert_eq!((loaded.lowest_position(1).sequence, loaded.highest_position(1).sequence), (7, 9));
        assert_eq!(loaded.lowest_position(2), JournalPosition::default());
        assert_eq!(Manifest::default().lowest_position(0), JournalPosition::default());
    }

    /// A power cut while the manifest is replaced leaves the old one or the new one.
    /// Method: cut at every operation of a second store, and look at several torn outcomes of each.
    #[test]
    fn a_cut_leaves_the_old_manifest_or_the_new_one() {
        let store_twice = |disk: &SimDisk| -> io::Result<()> {
            ready(manifest(1).store(disk))?;
            ready(manifest(2).store(disk))
        };
        let whole = SimDisk::new(1);
        store_twice(&whole).unwrap();
        let half = whole.operations() / 2;
        for cut in half..=whole.operations() {
            let disk = SimDisk::cutting_at(cut, cut);
            let done = store_twice(&disk).is_ok();
            for seed in 0..20 {
                let left = ready(Manifest::load(&disk.after_power_cut(seed))).unwrap().unwrap();
                assert!(left == manifest(2) || (!done && left == manifest(1)), "cut {cut} seed {seed}");
            }
        }
    }

    #[test]
    fn a_newer_version_a_foreign_file_and_damage_are_told_apart() {
        let mut newer = manifest(1).encode();
        newer[8] = MANIFEST_VERSION as u8 + 1;
        let crc = crc32c::crc32c(&newer[..HEAD_BYTES - 4]);
        newer[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert!(
            matches!(Manifest::decode(&newer), Err(ManifestError::Version { found }) if found == MANIFEST_VERSION + 1)
        );
        assert!(matches!(Manifest::decode(b"[package]"), Err(ManifestError::Foreign)));
        let good = manifest(1).encode();
        for len in MAGIC.len()..good.len() {
            assert!(matches!(Manifest::decode(&good[..len]), Err(ManifestError::Damaged { .. })), "{len}");
        }
        for bit in 0..good.len() * 8 {
            let mut turned = good.clone();
            turned[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&turned).is_err(), "bit {bit}");
        }
    }

    proptest! {
        /// Any body behind a right head is refused or read; nothing panics, nothing is made of a count alone.
        #[test]
        fn any_bytes_are_refused_or_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&body);
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
            bytes.extend_from_slice(&body);
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
