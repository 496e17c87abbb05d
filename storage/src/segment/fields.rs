//! Fields off the front of bytes. Numbers are little-endian.

use crate::column::take_varint;
use model::Timestamp;

/// What is left of bytes that are being read; `None` where they end.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(slice)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// Most are below 128.
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [byte, rest @ ..] if *byte < 1 << 7 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => take_varint(&mut self.0),
        }
    }

    pub(crate) fn double(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    pub(crate) fn timestamp(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp::from_ticks(i64::from_le_bytes(bytes)))
    }
}
