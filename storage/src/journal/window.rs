//! A file read forwards in large blocks, seen as frames.

use super::frame::{FRAME_ALIGN, FRAME_HEAD_BYTES, FrameHead};
use crate::disk::DiskFile;
use std::io;

/// Bytes read at a time; a longer frame is read whole.
const READ_BYTES: usize = 1024 * 1024;

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
    /// there is none.
    pub(super) async fn next_word(&mut self, mut position: u64) -> io::Result<u64> {
        while position < self.end {
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
}
