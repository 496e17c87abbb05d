//! The code of a value: how it differs, bit by bit, from the one before. Open chunks and Gorilla columns share it.

use super::ChunkError;
use super::bits::{BitReader, BitWriter, PEEKED_BITS};

/// The bits of a XOR that may differ from zero: `leading` zeros before them, `trailing` behind.
#[derive(Clone, Copy, Debug)]
struct Window {
    leading: u8,
    trailing: u8,
}

impl Window {
    /// No XOR fits it, so the first one that is not zero opens its own.
    const NONE: Window = Window { leading: 64, trailing: 64 };
}

/// The lowest `len` bits of `bits`, the others zero, not yet written.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pub(crate) bits: u64,
    pub(crate) len: u32,
}

impl Code {
    /// Nothing.
    pub(crate) const NONE: Code = Code { bits: 0, len: 0 };

    /// Both, one behind the other, 64 bits at most.
    #[inline(always)]
    pub(crate) fn then(self, next: Code) -> Code {
        Code { bits: self.bits << next.len | next.bits, len: self.len + next.len }
    }
}

/// Bits of a value's head at most.
pub(crate) const HEAD_BITS_MAX: u32 = 13;

/// What the encoder knows of the values so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorEncoder {
    value_bits: u64,
    window: Window,
}

impl XorEncoder {
    /// Behind a first value, which is written whole.
    pub(crate) fn new(value_bits: u64) -> XorEncoder {
        XorEncoder { value_bits, window: Window::NONE }
    }

    /// The value before.
    pub(crate) fn value_bits(&self) -> u64 {
        self.value_bits
    }

    /// How many bits of the window are zeros before and behind, to go on [`Self::from_state`].
    pub(crate) fn window(&self) -> (u8, u8) {
        (self.window.leading, self.window.trailing)
    }

    /// An encoder that goes on where another was; `None` for a window that none can have.
    pub(crate) fn from_state(value_bits: u64, (leading, trailing): (u8, u8)) -> Option<XorEncoder> {
        let window = Window { leading, trailing };
        let is_none = (leading, trailing) == (Window::NONE.leading, Window::NONE.trailing);
        let is_some = leading <= 31 && trailing < 64 - leading;
        (is_none || is_some).then_some(XorEncoder { value_bits, window })
    }

    /// Writes `ahead` and the next value behind it; in one step where both fit a word, as nearly always.
    #[inline(always)]
    pub(crate) fn put(&mut self, ahead: Code, value_bits: u64, out: &mut BitWriter) {
        let Some((head, meaningful)) = self.code(value_bits) else {
            return out.put(ahead.bits << 1, ahead.len + 1);
        };
        let head = ahead.then(head);
        if head.len + meaningful.len <= 64 {
            out.put(head.bits << meaningful.len | meaningful.bits, head.len + meaningful.len);
        } else {
            out.put(head.bits, head.len);
            out.put(meaningful.bits, meaningful.len);
        }
    }

    /// Bits that the next value takes, without writing it.
    #[inline(always)]
    pub(crate) fn pass(&mut self, value_bits: u64) -> u32 {
        self.code(value_bits).map_or(1, |(head, meaningful)| head.len + meaningful.len)
    }

    /// The head and the meaningful bits of the next value; `None` for the bit 0: it is the one before.
    #[inline(always)]
    fn code(&mut self, value_bits: u64) -> Option<(Code, Code)> {
        let xor = value_bits ^ self.value_bits;
        self.value_bits = value_bits;
        if xor == 0 {
            return None;
        }
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        // In `NONE` both bounds are 64, which no XOR but zero reaches.
        let fits = leading >= self.window.leading && trailing >= self.window.trailing;
        let head = if fits {
            Code { bits: 0b10, len: 2 }
        } else {
            self.window = Window { leading, trailing };
            let len = u64::from(64 - leading - trailing);
            Code { bits: 0b11 << 11 | u64::from(leading) << 6 | len & 63, len: HEAD_BITS_MAX }
        };
        let len = 64 - u32::from(self.window.leading) - u32::from(self.window.trailing);
        Some((head, Code { bits: xor >> self.window.trailing, len }))
    }
}

/// The mirror of [`XorEncoder`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct XorDecoder {
    value_bits: u64,
    window_len: u32,
    window_trailing: u32,
}

impl XorDecoder {
    /// Behind a first value.
    pub(crate) fn new(value_bits: u64) -> XorDecoder {
        XorDecoder { value_bits, window_len: 0, window_trailing: 0 }
    }

    /// The value read last.
    #[inline(always)]
    pub(crate) fn value_bits(&self) -> u64 {
        self.value_bits
    }

    /// Takes the next value, `used` bits (at most 24) ahead, where `peeked` begins.
    #[inline(always)]
    pub(crate) fn take(
        &mut self,
        used: u32,
        peeked: u64,
        bits: &mut BitReader<'_>,
    ) -> Result<(), ChunkError> {
        if peeked >> 63 == 0 {
            bits.skip(used + 1);
            return Ok(());
        }
        let mut head = 2;
        if peeked >> 62 == 0b11 {
            head = HEAD_BITS_MAX;
            let leading = (peeked >> 57 & 31) as u32;
            let len = match (peeked >> 51 & 63) as u32 {
                0 => 64,
                len => len,
            };
            if leading + len > 64 {
                return Err(ChunkError::Value);
            }
            self.window_len = len;
            self.window_trailing = 64 - leading - len;
        } else if self.window_len == 0 {
            return Err(ChunkError::Value);
        }
        let len = self.window_len;
        let meaningful = if used + head + len <= PEEKED_BITS {
            bits.skip(used + head + len);
            peeked << head >> (64 - len)
        } else {
            bits.skip(used + head);
            bits.take(len)
        };
        self.value_bits ^= meaningful << self.window_trailing;
        Ok(())
    }
}
