//! A series' chunks of memory and its late samples as one run of samples, a chunk's worth at a time.

use crate::chunk::{Chunk, ChunkError};
use crate::memtable::{CameAgain, SeriesSlice};
use model::Sample;
use std::iter::Peekable;

/// Late samples given at once where no chunk is left.
const LATE_AT_ONCE: usize = 1024;

/// See the head of this file. Times rise strictly over all that is given; of one time the late sample counts.
pub(super) struct Merged {
    chunks: std::vec::IntoIter<Chunk>,
    late: Peekable<std::vec::IntoIter<Sample>>,
    decoded: Vec<Sample>,
    again: CameAgain,
}

impl Merged {
    pub(super) fn new(slice: SeriesSlice) -> Merged {
        let late = slice.late.into_iter().peekable();
        Merged { chunks: slice.chunks.into_iter(), late, decoded: Vec::new(), again: CameAgain::default() }
    }

    /// Of what was given so far: late samples whose time a chunk had.
    pub(super) fn came_again(&self) -> CameAgain {
        self.again
    }

    /// Replaces what is in `out` by the next samples; `false` when there are none.
    pub(super) fn next_piece(&mut self, out: &mut Vec<Sample>) -> Result<bool, ChunkError> {
        out.clear();
        let Some(chunk) = self.chunks.next() else {
            out.extend(self.late.by_ref().take(LATE_AT_ONCE));
            return Ok(!out.is_empty());
        };
        if self.late.peek().is_none_or(|late| late.timestamp > chunk.last()) {
            chunk.samples().decode_into(out)?;
            return Ok(true);
        }
        self.decoded.clear();
        chunk.samples().decode_into(&mut self.decoded)?;
        for &sample in &self.decoded {
            while let Some(earlier) = self.late.next_if(|late| late.timestamp < sample.timestamp) {
                out.push(earlier);
            }
            let late = self.late.next_if(|late| late.timestamp == sample.timestamp);
            late.iter().for_each(|late| self.again.note(sample.value, late.value));
            out.push(late.unwrap_or(sample));
        }
        Ok(true)
    }
}
