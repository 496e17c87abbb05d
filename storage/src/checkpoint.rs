//! A checkpoint: the memory of one shard as it is, so that a start reads it and only the journals' tails.
//!
//! ```text
//!   cut      positions := up to where each journal is applied; the loops' numbers are copied
//!   write    series by series, in the order of their ids, some dozens at a time, while samples go on arriving
//!   sync     every loop syncs its journal up to what is applied by now
//!   switch   one manifest write names the file together with the positions of the cut
//!   load     what the file holds; then the journals from those positions on are replayed over it
//! ```
//!
//! **The file may hold more than the cut, and that is right.** A series is written as it is when its turn comes, with
//! samples M that were applied since the cut. What is in memory is, per series, a map from times to their last values.
//! Replay applies M again, all of it and in the order in which it was applied, and then what came later. A time that M
//! names ends with M's last value for it whatever was there before; a time that M does not name has the value that it
//! had at the cut. So the state is that of a replay over exactly the cut. That needs
//! - one cut for all journals: were one position lower than the others, an older value could be replayed over a newer
//!   one that came by another journal and is not replayed (`tests/simulation.rs` has the case for flushes);
//! - times that are in the journal: a sample without one gets it from its loop before it is journaled;
//! - M on the device before the switch, or a power cut would leave of a batch what happened to be written here. So the
//!   loops sync once more, and a checkpoint is dropped if a journal has abandoned a file since the cut.
//!
//! A freeze, and series that leave the table, drop a checkpoint that is being written: its ids would mean others. The
//! flush makes it needless anyway.
//!
//! Within a series late samples go before the chunks, the open chunk last: what moves meanwhile moves from the open
//! chunk to the closed ones, so nothing is passed over, and no late sample is later than the open chunk.
//!
//! Owner: one executor; at most one file per shard counts, the one that the manifest names.
//! Always: what is read was checked; a damaged block costs what it holds and is reported, the rest loads.
//! Not here: when (the server), which positions (the manifest), the journals.
//! Read next: `docs/format/checkpoint.md`, `checkpoint/layout.rs` for blocks, `checkpoint/series.rs` for what is in them,
//! `checkpoint/write.rs`, `checkpoint/read.rs`; `memtable/image.rs` for the other side of both.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod layout;
mod numbers;
mod read;
mod series;
mod write;

#[cfg(test)]
mod tests;

pub use write::{CheckpointJob, Pace};

pub(crate) use numbers::LoopNumbers;
pub(crate) use read::{Loader, Sink};
pub(crate) use series::{SeriesBlock, SeriesRecord};

pub use crate::manifest::CheckpointEntry;

use std::fmt;
use std::io;

/// The folder of the checkpoints, within the data directory.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";

/// The path of a checkpoint, within the data directory.
pub fn checkpoint_path(id: u64) -> String {
    format!("{CHECKPOINTS_FOLDER}/{id:016}.checkpoint")
}

/// Why a checkpoint could not be written or read.
#[derive(Debug)]
pub enum CheckpointError {
    /// The disk refused.
    Io {
        /// The file, within the data directory.
        path: String,
        /// What the disk said.
        error: io::Error,
    },
    /// A part of the file is not what was written; what it held is lost: journals begin where the checkpoint ends.
    Damaged {
        /// The file, within the data directory.
        path: String,
        /// Where the damaged part begins.
        offset: u64,
        /// What was expected.
        what: &'static str,
        /// What it held.
        lost: Lost,
    },
    /// A newer program wrote the file.
    OtherVersion {
        /// The file, within the data directory.
        path: String,
        /// The version it names.
        version: u32,
    },
    /// Memory was flushed, or series have left it, while the checkpoint was written: it is needless, or another is due.
    Superseded,
}

/// What a damaged part held, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many series.
    pub series: Option<u32>,
    /// The label set of the series that stands before it in the file.
    pub behind: Option<String>,
    /// The first and last millisecond of its samples.
    pub millis: Option<(i64, i64)>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.series {
            Some(0) => return f.write_str("; no series was in it"),
            Some(1) => f.write_str("; it held samples of 1 series")?,
            Some(count) => write!(f, "; it held samples of {count} series")?,
            None => f.write_str("; it held samples of series")?,
        }
        match &self.behind {
            Some(series) => write!(f, " that stand behind {series} in the file"),
            None => f.write_str(" that stand first in the file"),
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Io { path, error } => write!(f, "{path}: {error}"),
            CheckpointError::Damaged { path, offset, what, lost } => {
                write!(f, "{path} is damaged at offset {offset}: {what}{lost}")
            }
            CheckpointError::OtherVersion { path, version } => {
                write!(f, "{path} has format version {version}, this program reads {}", layout::VERSION)
            }
            CheckpointError::Superseded => f.write_str("memory was flushed meanwhile"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CheckpointError::Io { error, .. } => Some(error),
            CheckpointError::Damaged { .. }
            | CheckpointError::OtherVersion { .. }
            | CheckpointError::Superseded => None,
        }
    }
}

impl CheckpointError {
    /// The file that it is about, within the data directory.
    pub fn path(&self) -> Option<&str> {
        match self {
            CheckpointError::Io { path, .. }
            | CheckpointError::Damaged { path, .. }
            | CheckpointError::OtherVersion { path, .. } => Some(path),
            CheckpointError::Superseded => None,
        }
    }
}
