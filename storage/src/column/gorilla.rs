//! Values by XOR with the one before, as open chunks have them: always legal, and what every other codec is held to.
//!
//! ```text
//!   first value u64, highest bit first │ codes of the others, as `chunk.rs` draws them │ zeros to the byte's end
//! ```

use super::ColumnError;
use crate::chunk::ChunkError;
use crate::chunk::bits::{BitReader, BitWriter};
use crate::chunk::xor::{Code, XorDecoder, XorEncoder};

/// Bytes that [`encode`] will write.
pub(super) fn encoded_len(values: &[f64]) -> usize {
    let mut encoder = XorEncoder::new(values[0].to_bits());
    let bits: usize = values[1..].iter().map(|value| encoder.pass(value.to_bits()) as usize).sum();
    (64 + bits).div_ceil(8)
}

pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let mut bits = BitWriter::default();
    let first = values[0].to_bits();
    bits.put(first, 64);
    let mut encoder = XorEncoder::new(first);
    for value in &values[1..] {
        encoder.put(Code::NONE, value.to_bits(), &mut bits);
    }
    out.extend_from_slice(&bits.to_bytes());
}

pub(super) fn decode(bytes: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    let mut bits = BitReader::new(bytes);
    let mut decoder = XorDecoder::new(bits.take(64));
    out[0] = f64::from_bits(decoder.value_bits());
    for value in &mut out[1..] {
        let peeked = bits.peek();
        decoder.take(0, peeked, &mut bits).map_err(|error| match error {
            ChunkError::TooShort => ColumnError::TooShort,
            ChunkError::TooLong => ColumnError::TooLong,
            ChunkError::Time | ChunkError::Value | ChunkError::UnknownForm(_) => ColumnError::Form,
        })?;
        *value = f64::from_bits(decoder.value_bits());
    }
    // Behind the end the reader gives zeros, so a column cut short runs on, bounded by its count.
    match (bits.overran(), bits.at_end()) {
        (true, _) => Err(ColumnError::TooShort),
        (false, false) => Err(ColumnError::TooLong),
        (false, true) => Ok(()),
    }
}
