//! A segment: what one flush or merge wrote, immutable, in columns, every byte under a checksum.
//!
//! Owner: the store of the shard that wrote it; after the number of shards changed several stores read one
//! segment, each the slots it owns. The format is drawn in `docs/format/segment.md`.
//! Always: a file that ends early is refused when it is opened; a checksum is checked before the bytes under
//! it are used; damage costs the column, the clock or the directory block that it hit and is reported. A power cut
//! before the sync may tear the middle of a file whose end is there: so a manifest names a segment only
//! when [`write_segment`] has returned.
//! Not here: which segments count (the manifest says), merging of several sources (`store`, `compact`).
//! Read next: `segment/layout.rs` and `segment/directory.rs` for the bytes, `segment/write.rs`, then `segment/read.rs` for
//! the directory, `segment/label_index.rs` for what leads there, and `segment/run.rs` for the chunks; `column.rs` for what they are made of.

mod clocks;
mod directory;
pub(crate) mod fields;
mod filter;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod label_index;
mod layout;
mod merge;
mod order;
mod read;
mod run;
mod series_list;
mod workspace;
mod write;

#[cfg(test)]
mod tests;

pub use directory::{ChunkRow, ClockRow, Extent, ValuesAt};
pub use filter::PairHash;
pub use label_index::Rows;
pub(crate) use label_index::{PART_BYTES_MAX, part_bytes_max};
pub use read::{SegmentReader, SegmentSeries, Verified};
pub use run::{ChunkRun, run_len};
pub use series_list::{ListedSeries, SeriesList};
pub use workspace::Workspace;
pub use write::{SegmentWriter, write_segment};

pub use crate::manifest::SegmentEntry;

use crate::chunk::ChunkError;
use std::fmt;
use std::io;

/// The folder of the segments, within the data directory.
pub const SEGMENTS_FOLDER: &str = "segments";

/// The path of a segment, within the data directory.
pub fn segment_path(id: u64) -> String {
    format!("{SEGMENTS_FOLDER}/{id:016}.segment")
}

/// Why a segment could not be written or read.
#[derive(Debug)]
pub enum SegmentError {
    /// The disk refused.
    Io {
        /// The file, within the data directory.
        path: String,
        /// What the disk said.
        error: io::Error,
    },
    /// The file is not what was written.
    Damaged {
        /// The file, within the data directory.
        path: String,
        /// Where the damaged part begins.
        offset: u64,
        /// Whose samples are lost, where that is known.
        series: Option<String>,
        /// What was expected.
        what: &'static str,
    },
    /// Another version of the program wrote the file. Versions 1 and 2 were never released.
    OtherVersion {
        /// The file, within the data directory.
        path: String,
        /// The version it names.
        version: u16,
    },
    /// A chunk in memory cannot be read: the machine's memory is damaged.
    Memory {
        /// Whose chunk.
        series: String,
        /// What is wrong with it.
        error: ChunkError,
    },
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SegmentError::Io { path, error } => write!(f, "{path}: {error}"),
            SegmentError::Damaged { path, offset, series, what } => {
                write!(f, "{path} is damaged at offset {offset}: {what}")?;
                series.iter().try_for_each(|series| write!(f, " (series {series})"))
            }
            SegmentError::OtherVersion { path, version } => {
                write!(
                    f,
                    "{path} has format version {version}, this program reads {} and {}",
                    layout::OLDEST_VERSION,
                    layout::VERSION
                )
            }
            SegmentError::Memory { series, error } => {
                write!(f, "memory of series {series} is damaged: {error}")
            }
        }
    }
}

impl SegmentError {
    /// The file that it is about, within the data directory.
    pub fn path(&self) -> Option<&str> {
        match self {
            SegmentError::Io { path, .. }
            | SegmentError::Damaged { path, .. }
            | SegmentError::OtherVersion { path, .. } => Some(path),
            SegmentError::Memory { .. } => None,
        }
    }
}

impl std::error::Error for SegmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SegmentError::Io { error, .. } => Some(error),
            SegmentError::Memory { error, .. } => Some(error),
            SegmentError::Damaged { .. } | SegmentError::OtherVersion { .. } => None,
        }
    }
}
