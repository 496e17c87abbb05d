//! A stream of bits, highest first.

use super::words::Words;

const WORD_BYTES: usize = size_of::<u64>();

/// Writes bits behind each other; whole words go to the buffer, the rest waits in a register.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    words: Words,
    /// Bits not yet in `words`, from the top down; those below `pending` are zero.
    register: u64,
    pending: u8,
}

impl BitWriter {
    /// Appends the lowest `bits` (1 to 64) of `value`, whose other bits must be zero.
    #[inline(always)]
    pub(crate) fn put(&mut self, value: u64, bits: u32) {
        debug_assert!((1..=64).contains(&bits) && (bits == 64 || value >> bits == 0));
        let room = 64 - u32::from(self.pending);
        if bits < room {
            self.register |= value << (room - bits);
            self.pending += bits as u8;
        } else {
            let left = bits - room;
            self.words.push(self.register | value >> left);
            // A shift by 64 is what an empty register needs; `<<` cannot say it.
            self.register = if left == 0 { 0 } else { value << (64 - left) };
            self.pending = left as u8;
        }
    }

    /// Bytes that [`Self::to_bytes`] would make.
    pub(crate) fn len(&self) -> usize {
        self.words.len() * WORD_BYTES + usize::from(self.pending.div_ceil(8))
    }

    /// Bits so far.
    pub(crate) fn len_bits(&self) -> usize {
        self.words.len() * WORD_BYTES * 8 + usize::from(self.pending)
    }

    /// A writer behind the first `len_bits` bits of what [`Self::to_bytes`] made; `None` where the bytes are fewer or
    /// more than those take.
    pub(crate) fn behind(bytes: &[u8], len_bits: usize) -> Option<BitWriter> {
        if bytes.len() != len_bits.div_ceil(8) {
            return None;
        }
        let (words, rest) = bytes.split_at(len_bits / 64 * 8);
        let pending = (len_bits % 64) as u8;
        let register = match pending {
            0 => 0,
            pending => word_at_end(rest, 0) & (u64::MAX << (64 - pending)),
        };
        let mut writer = BitWriter { words: Words::default(), register, pending };
        writer.words.extend(words.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word)));
        Some(writer)
    }

    /// Appends what [`Self::to_bytes`] would make.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + self.words.len() * WORD_BYTES, 0);
        self.words.write_to(out[at..].as_chunks_mut().0);
        out.extend_from_slice(&self.register.to_be_bytes()[..usize::from(self.pending.div_ceil(8))]);
    }

    /// Bytes of heap held.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.heap_bytes()
    }

    /// The bits so far, the last byte filled with zeros.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.append_to(&mut bytes);
        bytes
    }
}

/// Of the bits that [`BitReader::peek`] gives, how many are valid.
pub(crate) const PEEKED_BITS: u32 = 57;

/// Reads what a [`BitWriter`] wrote. Past the end it reads zeros and says so by [`Self::overran`].
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, position: 0 }
    }

    /// The next bits from the top down; the upper [`PEEKED_BITS`] are valid.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        let at = self.position >> 3;
        let word = match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(word) => u64::from_be_bytes(*word),
            None => word_at_end(self.bytes, at),
        };
        word << (self.position & 7)
    }

    #[inline(always)]
    pub(crate) fn skip(&mut self, bits: u32) {
        self.position += bits as usize;
    }

    /// The next `bits`, 1 to 64.
    #[inline(always)]
    pub(crate) fn take(&mut self, bits: u32) -> u64 {
        if bits <= PEEKED_BITS {
            let value = self.peek() >> (64 - bits);
            self.skip(bits);
            value
        } else {
            let high = self.peek() >> 32;
            self.skip(32);
            let low = self.peek() >> (96 - bits);
            self.skip(bits - 32);
            high << (bits - 32) | low
        }
    }

    /// Bits in the whole stream.
    pub(crate) fn len_bits(&self) -> usize {
        self.bytes.len() * 8
    }

    /// Whether more was read than there is.
    #[inline(always)]
    pub(crate) fn overran(&self) -> bool {
        self.position > self.bytes.len() * 8
    }

    /// Whether all that is left are the zeros that fill the last byte.
    pub(crate) fn at_end(&self) -> bool {
        let left = (self.bytes.len() * 8).wrapping_sub(self.position);
        left < 8 && (left == 0 || self.peek() >> (64 - left) == 0)
    }
}

/// The last bytes, zeros behind. Not a method: a reader whose address is taken cannot live in registers.
#[cold]
fn word_at_end(bytes: &[u8], at: usize) -> u64 {
    // A copy into eight bytes that are then read as one word would wait until the store has them.
    let rest = bytes.get(at..).unwrap_or(&[]);
    rest.iter().zip((0..64).step_by(8)).fold(0, |word, (byte, low)| word | u64::from(*byte) << (56 - low))
}
