//! Small numbers of any size, and fields off the front of bytes.

use super::ColumnError;

/// Appends seven bits a byte, lowest first; the top bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 1 << 7 {
        out.push(number as u8 | 1 << 7);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The mirror of [`put_varint`]; `None` where the bytes end, or say more than 64 bits.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let seven = u64::from(byte & 0x7f);
        if shift == 63 && seven > 1 {
            return None;
        }
        number |= seven << shift;
        if byte < 1 << 7 {
            return Some(number);
        }
    }
    None
}

/// Bytes of [`put_varint`].
pub(super) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Small numbers of either sign become small ones.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn from_zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What is left of a column that is being decoded.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], ColumnError> {
        let (slice, rest) = self.0.split_at_checked(len).ok_or(ColumnError::TooShort)?;
        self.0 = rest;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ColumnError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(ColumnError::TooShort)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ColumnError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ColumnError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ColumnError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u64, ColumnError> {
        let is_cut = self.0.iter().take(10).all(|byte| byte >> 7 == 1) && self.0.len() < 10;
        take_varint(&mut self.0).ok_or(if is_cut { ColumnError::TooShort } else { ColumnError::Form })
    }

    pub(super) fn signed(&mut self) -> Result<i64, ColumnError> {
        self.varint().map(from_zigzag)
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), ColumnError> {
        if self.0.is_empty() { Ok(()) } else { Err(ColumnError::TooLong) }
    }
}
