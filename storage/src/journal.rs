//! The journal: what a loop accepts is here before it answers, and comes back after a crash.
//!
//! Owner: one loop and one writer per journal. Readers: recovery and replay at start, consumers later.
//! Always: record offsets rise by one; a frame (one turn's samples) is whole or absent; written frames never
//! change; each file is replayable by itself, for its dictionary begins with it; what lies behind the last
//! good position of an abandoned file is never replayed.
//! Not here: the memtable, the sync policy, clocks. The writer does no I/O: it hands out what to write and
//! to sync and is told what came of it.
//! Read next: `docs/format/journal.md` for the bytes; `frame.rs` and `head.rs` encode and decode them;
//! `dictionary.rs` numbers the series; `writer.rs` for group commit and rotation; `recover.rs` tells a torn
//! tail from damage; `replay.rs` merges the journals by stamp.

mod dictionary;
mod frame;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod head;
mod prepare;
mod recover;
mod replay;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use dictionary::Numbered;
pub use frame::{
    ClientNumber, FRAME_ALIGN, FRAME_HEAD_BYTES, FrameHead, Malformed, SAMPLE_BYTES_MAX, batch_bytes_max,
    decode_definitions, decode_samples,
};
pub use head::{FileHead, HEAD_BYTES, JOURNAL_FORMAT_VERSION, Previous};
pub use prepare::{NextFile, PreparedFile, prepare, truncate};
pub use recover::{Damage, JournalFile, OnDamage, RecoverError, Recovered, Resume, Run, TornTail, recover};
pub use replay::{KnownNumbers, Replay, ReplayError, Replayed};
pub use writer::{Abandoned, JournalLimits, Mark, Reserve, Sealed, Sync, Write, Writer};

/// A place in one journal: the end of a frame, or where the first will begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalPosition {
    /// Which file.
    pub sequence: u64,
    /// Bytes from its start.
    pub offset: u64,
}

/// Sequence numbers have 16 digits in file names.
pub const SEQUENCE_MAX: u64 = 9_999_999_999_999_999;

/// The folder of a loop's journal.
pub fn folder(loop_index: u16) -> String {
    format!("journal/loop-{loop_index}")
}

/// The path of a journal file.
pub fn file_path(loop_index: u16, sequence: u64) -> String {
    format!("journal/loop-{loop_index}/{sequence:016}.journal")
}

/// The sequence number in a file name; `None` for a name that is not a journal file's.
pub fn sequence_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".journal")?;
    let ours = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if ours { digits.parse().ok() } else { None }
}
