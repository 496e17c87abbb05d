//! Fields off the front of bytes. Numbers are little-endian.

use crate::column::take_varint;
use model::Timestamp;

/// What is left of bytes that are being read; `None` where they end.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(slice)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        take_varint(&mut self.0)
    }

    pub(super) fn double(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    pub(super) fn timestamp(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp::from_ticks(i64::from_le_bytes(bytes)))
    }
}
