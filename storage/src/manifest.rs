//! The manifest: the one file that says what a data directory consists of.
//!
//! Owner: the server, which writes it whole at each start, flush, merge and checkpoint.
//! Always: it is the old one or the new one, never a mixture; a segment that it does not name does not
//! exist; what lies below a position that it names is in a segment or a checkpoint that it names.
//! Not here: the lock on the directory, and whether strange files in it matter; that is the server's.
//! Read next: `manifest/bytes.rs` and `docs/format/manifest.md`.

mod bytes;
#[cfg(test)]
mod tests;

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
/// Deletes that may wait for segments to be written anew; each is looked at for each segment of a query.
pub const DELETES_MAX: usize = 1_000;
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
}
