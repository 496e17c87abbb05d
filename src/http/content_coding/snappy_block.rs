//! Snappy's block format, plain some bytes at a time: the format has no streams, but its elements can be taken one
//! by one.
//!
//! ```text
//! block     plain length (varint), elements
//! element   low two bits of its tag: 0 a literal, then its bytes
//!                                    1, 2, 3 a copy of what came out before, its offset in 1, 2 or 4 bytes
//! ```
//!
//! Always: no more comes out than the block says first; every element makes at least one byte, so the work is
//! bounded by that.

/// Why a block cannot be made plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockError {
    /// It ends before its plain length is reached.
    Truncated,
    /// It copies what is not there, or makes more than it said.
    Corrupt,
}

/// A block that is being made plain.
pub(super) struct Block<'a> {
    rest: &'a [u8],
    len: usize,
    /// Bytes of a literal that are still to be copied.
    literal: usize,
}

impl<'a> Block<'a> {
    /// Reads the plain length.
    pub(super) fn begin(body: &'a [u8]) -> Result<Block<'a>, BlockError> {
        let mut len = 0_u64;
        for (at, byte) in body.iter().take(5).enumerate() {
            len |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let len = u32::try_from(len).map_err(|_| BlockError::Corrupt)? as usize;
                return Ok(Block { rest: &body[at + 1..], len, literal: 0 });
            }
        }
        Err(if body.len() < 5 { BlockError::Truncated } else { BlockError::Corrupt })
    }

    /// Bytes that the whole is to have.
    pub(super) fn plain_len(&self) -> usize {
        self.len
    }

    /// Appends at least `bytes` more, if there are so many, and at most one copy's 64 more than that; `false` when
    /// the block is plain. `out` holds what came out before and nothing else.
    pub(super) fn step(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<bool, BlockError> {
        let pause_at = out.len().saturating_add(bytes).min(self.len);
        while out.len() < pause_at {
            if self.literal == 0 {
                self.element(out)?;
            }
            let wanted = self.literal.min(pause_at.saturating_sub(out.len()));
            let (literal, rest) = self.rest.split_at_checked(wanted).ok_or(BlockError::Truncated)?;
            out.extend_from_slice(literal);
            self.rest = rest;
            self.literal -= wanted;
        }
        if out.len() < self.len {
            return Ok(true);
        }
        if self.literal > 0 || !self.rest.is_empty() { Err(BlockError::Corrupt) } else { Ok(false) }
    }

    /// Takes a copy, or the head of a literal.
    fn element(&mut self, out: &mut Vec<u8>) -> Result<(), BlockError> {
        let tag = self.number(1)?;
        let (len, offset) = match tag & 3 {
            0 => {
                let len = match tag >> 2 {
                    short @ 0..60 => short,
                    long => self.number(long - 59)?,
                };
                self.literal = len + 1;
                return Ok(());
            }
            1 => (4 + (tag >> 2 & 7), (tag >> 5) << 8 | self.number(1)?),
            2 => (1 + (tag >> 2), self.number(2)?),
            _ => (1 + (tag >> 2), self.number(4)?),
        };
        if offset == 0 || offset > out.len() || len > self.len - out.len() {
            return Err(BlockError::Corrupt);
        }
        let begin = out.len() - offset;
        let mut left = len;
        // A copy may reach into itself: then it repeats its first bytes.
        while left > 0 {
            let there = left.min(out.len() - begin);
            out.extend_from_within(begin..begin + there);
            left -= there;
        }
        Ok(())
    }

    /// A number of so many bytes, at most four, the lowest first.
    fn number(&mut self, bytes: usize) -> Result<usize, BlockError> {
        let (number, rest) = self.rest.split_at_checked(bytes).ok_or(BlockError::Truncated)?;
        self.rest = rest;
        Ok(number.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}
