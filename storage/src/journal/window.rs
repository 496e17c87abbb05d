//! A file read forwards in large blocks, seen as frames.

use super::frame::{FRAME_ALIGN, FRAME_HEAD_BYTES, FrameHead};
use crate::disk::DiskFile;
use std::io;

/// Bytes read at a time; a longer frame is read whole.
const READ_BYTES: usize = 1024 * 1024;
/// So many zeros in a row are read one and all. A journal file is prepared full of zeros and may be a GiB, so behind them
/// it is looked whether the rest is zeros too by a page of each [`PROBE_STEP`]: what was written there lies in one piece,
/// or in pieces as large as what the kernel writes back at a time.
const ZEROS_READ: u64 = 8 * 1024 * 1024;
const PROBE_STEP: u64 = 512 * 1024;
const PROBE_BYTES: usize = 4096;

pub(super) struct Window<F> {
    file: F,
    /// Where reading stops.
    end: u64,
    /// Where `held` lies in the file.
    start: u64,
    held: Vec<u8>,
}

impl<F: DiskFile> Window<F> {
    /// The file's bytes before `end`.
    pub(super) fn new(file: F, end: u64) -> Window<F> {
        Window { file, end, start: 0, held: Vec::new() }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The bytes there; fewer than `len` only where the window ends.
    async fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let len = (len as u64).min(self.end.saturating_sub(position)) as usize;
        let held_end = self.start + self.held.len() as u64;
        if position < self.start || position + len as u64 > held_end {
            let wanted = (len.max(READ_BYTES) as u64).min(self.end - position) as usize;
            self.held = self.file.read_at(position, wanted).await?;
            self.start = position;
        }
        let from = (position - self.start) as usize;
        let to = (from + len).min(self.held.len());
        Ok(&self.held[from.min(to)..to])
    }

    /// The intact frame that begins there, with its payload.
    pub(super) async fn frame_at(
        &mut self,
        loop_index: u16,
        sequence: u64,
        position: u64,
    ) -> io::Result<Option<(FrameHead, &[u8])>> {
        let bytes = self.get(position, FRAME_HEAD_BYTES).await?;
        let Some(head) = FrameHead::decode(bytes, loop_index, sequence, position) else { return Ok(None) };
        if head.frame_bytes() > self.end - position {
            return Ok(None);
        }
        let bytes = self.get(position, FRAME_HEAD_BYTES + head.payload_bytes as usize).await?;
        let payload = bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        Ok(head.holds(payload).then_some((head, payload)))
    }

    /// The first place from there on, at a frame's alignment, that is not all zeros; the window's end where
    /// there is none, as far as is looked.
    pub(super) async fn next_word(&mut self, begin: u64) -> io::Result<u64> {
        let mut position = begin;
        let mut is_probed = false;
        while position < self.end {
            if position - begin >= ZEROS_READ && !is_probed {
                if self.is_zeros(position).await? {
                    break;
                }
                is_probed = true;
            }
            let held = self.get(position, FRAME_ALIGN).await?.len();
            if held == 0 {
                break;
            }
            let from = (position - self.start) as usize;
            let rest = &self.held[from..];
            match rest.chunks(FRAME_ALIGN).position(|word| word.iter().any(|&byte| byte != 0)) {
                Some(words) => return Ok(position + (words * FRAME_ALIGN) as u64),
                None => position += rest.len().next_multiple_of(FRAME_ALIGN) as u64,
            }
        }
        Ok(self.end)
    }

    /// Whether a page of each step from there on is all zeros, and the last one.
    async fn is_zeros(&self, position: u64) -> io::Result<bool> {
        let last = self.end.saturating_sub(PROBE_BYTES as u64).max(position);
        let steps = (position..self.end).step_by(PROBE_STEP as usize);
        for at in steps.chain([last]) {
            let len = (self.end - at).min(PROBE_BYTES as u64) as usize;
            if self.file.read_at(at, len).await?.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, Disk as _, SimDisk, ready};

    const FILE_BYTES: u64 = 40 * 1024 * 1024;

    /// What the window finds behind the first page of a file of zeros, and how many reads that takes.
    fn found(written: &[(u64, usize)]) -> (u64, u64) {
        let disk = SimDisk::new(1);
        let file = ready(disk.create("a")).unwrap();
        ready(file.truncate(FILE_BYTES)).unwrap();
        for (at, len) in written {
            ready(file.write_at(*at, &vec![7; *len])).unwrap();
        }
        let before = disk.calls(Call::Read);
        let mut window = Window::new(file, FILE_BYTES);
        let word = ready(window.next_word(4096)).unwrap();
        (word, disk.calls(Call::Read) - before)
    }

    /// A prepared file is not read to its end, and whatever was written in it is found where it begins.
    #[test]
    fn zeros_are_passed_over_and_nothing_written_is_missed() {
        let (end, reads) = found(&[]);
        assert_eq!(end, FILE_BYTES);
        assert!(reads < 10 + FILE_BYTES / PROBE_STEP, "{reads} reads");
        for at in [4096, 8 << 20, (8 << 20) + 8, 13 << 20, 31 << 20] {
            let len = (PROBE_STEP as usize + PROBE_BYTES).min((FILE_BYTES - at) as usize);
            assert_eq!(found(&[(at, len)]).0, at);
        }
        assert_eq!(found(&[((8 << 20) - 64, 1)]).0, (8 << 20) - 64, "a single byte among the first zeros");
        assert_eq!(found(&[(FILE_BYTES - 8, 8)]).0, FILE_BYTES - 8, "and at the very end");
    }
}
