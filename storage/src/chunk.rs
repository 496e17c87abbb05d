//! A chunk: one series' run of samples, compressed as they arrive, bit-exact for every double.
//!
//! After "Gorilla: A Fast, Scalable, In-Memory Time Series Database" (VLDB 2015): the time is coded as the
//! change of the distance to the sample before, the value as the XOR with the value before.
//!
//! A time is a whole millisecond and a fine part. A chunk is either `Whole` (all fine parts are 0, and they
//! cost nothing) or `Fine`. Which one is said by its first sample; a whole chunk that meets a fine part is
//! sealed, a fine chunk takes both. So a series that mixes the two pays one short chunk, not many.
//!
//! ```text
//!   head     form u8 (2 whole, 3 fine) │ millisecond i48 │ fine u24, in a fine chunk only │ value u64
//!   sample   millisecond   change of the distance to the previous one; the first is that from 0
//!              0 → 0     10 + i7     110 + i12     1110 + i20     11111 + i64
//!              11110 + u3 + i7   a gap: u3 + 2 times the distance, plus i7; the distance stays what it was
//!            fine part, in a fine chunk only
//!              0 → as predicted     10 + zigzag u6 from the prediction     11 + u20 itself
//!            value         xor with the value before
//!              0 → 0     10 + the meaningful bits, in the last window
//!              11 + leading zeros u5 + window length u6 (0 stands for 64) + the bits
//! ```
//!
//! The predicted fine part: within a millisecond the previous one plus the last step taken within a
//! millisecond (a burst of stamps steps by the number of loops); in a new millisecond that of the first
//! sample of the previous one (a lone stamp always has the same). Bits are written from the highest down;
//! the last byte is filled with zeros.
//!
//! A gap is where a scrape was missed, or a sample comes late, which then lies beside the chunk. Told as a change of the
//! distance it takes 24 bits, and 24 more for the way back. No second one follows a gap at once: an interval that has
//! become longer is a change, and the samples behind it take a bit.
//! The forms 0 (whole) and 1 (fine), which earlier versions wrote, know no gaps: there 1111 + i64 is a change. They are
//! read, and appended to, as they are.
//!
//! Owner: the memtable appends; whoever holds a sealed chunk reads it. It lives on any core.
//! Always: times rise strictly; a chunk holds 1 to [`CHUNK_SAMPLES_MAX`] samples; decoding any bytes ends
//! in samples or in an error, never in a panic.
//! Not here: which chunk a late sample belongs to (`memtable`), checksums (`segment`).
//! Read next: `chunk/open.rs` for the encoder, `chunk/decode.rs` for its mirror, `chunk/xor.rs` for the values of both,
//! `chunk/state.rs` for how a checkpoint holds them.

pub(crate) mod bits;
mod decode;
mod open;
mod state;
mod words;
pub(crate) mod xor;

#[cfg(test)]
mod tests;

pub use decode::{ChunkError, Samples};
pub use open::{NotAppended, OpenChunk};

use model::{Sample, Timestamp};
use std::rc::Rc;

/// Samples in one chunk at most.
pub const CHUNK_SAMPLES_MAX: u32 = 240;
/// An open chunk that has reached this many bytes takes no more.
pub const CHUNK_BYTES_TARGET: usize = 1024;
/// Bits of one sample at most: 69 of time, 22 of fine part, 77 of value.
const SAMPLE_BITS_MAX: usize = 69 + 22 + 77;
/// Bytes of a chunk at most: one sample may follow when the target is reached but for one byte.
pub const CHUNK_BYTES_MAX: usize = CHUNK_BYTES_TARGET + SAMPLE_BITS_MAX.div_ceil(8) + 8;

/// How the times of a chunk are coded; the first byte says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    /// Whether the samples have fine parts.
    is_fine: bool,
    /// Whether there is a code for gaps, as in all but chunks of earlier versions.
    has_gaps: bool,
}

impl Form {
    fn to_byte(self) -> u8 {
        u8::from(self.is_fine) | u8::from(self.has_gaps) << 1
    }

    fn from_byte(byte: u8) -> Option<Form> {
        (byte < 4).then_some(Form { is_fine: byte & 1 != 0, has_gaps: byte & 2 != 0 })
    }
}

/// How many times the distance a gap has.
const GAP_TIMES: std::ops::RangeInclusive<i64> = 2..=9;

const _: () = assert!(model::TICKS_PER_MILLI == 1 << FINE_BITS);
/// Bits of a fine part.
const FINE_BITS: u32 = 20;
const FINE_MASK: u64 = (1 << FINE_BITS) - 1;

/// An immutable run of one series. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Rc<[u8]>,
    count: u32,
    first: Timestamp,
    last: Timestamp,
}

impl Chunk {
    /// The encoded samples.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Samples in the chunk, at least 1.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The time of the first sample.
    pub fn first(&self) -> Timestamp {
        self.first
    }

    /// The time of the last sample.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// Whether a sample of the chunk may lie from `start` to `end`, both included.
    pub fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.first <= end && self.last >= start
    }

    /// The samples, times rising. An error would mean that memory was damaged.
    pub fn samples(&self) -> Samples<'_> {
        Samples::new(&self.bytes, self.count)
    }

    /// Encodes samples whose times rise strictly into as many chunks as they need.
    ///
    /// Samples that do not rise are left out: the caller has sorted them.
    pub fn encode_into(samples: &[Sample], out: &mut Vec<Chunk>) {
        let mut open: Option<OpenChunk> = None;
        for &sample in samples {
            let Some(chunk) = &mut open else {
                open = Some(OpenChunk::new(sample));
                continue;
            };
            match chunk.append(sample) {
                Ok(()) => {}
                Err(NotAppended::NotLater) => debug_assert!(false, "the caller sorts"),
                Err(NotAppended::Full | NotAppended::FinePart) => {
                    out.push(chunk.seal());
                    open = Some(OpenChunk::new(sample));
                }
            }
        }
        out.extend(open.map(|chunk| chunk.seal()));
    }
}
