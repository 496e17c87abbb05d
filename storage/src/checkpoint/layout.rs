//! The frame of the file: its head, and the heads of its blocks. Numbers are little-endian.
//!
//! Always: a head is checked before its length is believed; a block of another file, or of another place, is none.

use crate::segment::fields::Fields;

/// The version that this code writes; it reads those before too. Since 2 there are chunks with a code for gaps, which say so
/// themselves.
pub(super) const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"rwcheckp";
pub(super) const HEAD_BYTES: usize = 32;
pub(super) const BLOCK_HEAD_BYTES: usize = 40;
/// Blocks begin at multiples of it, zeros before: behind a damaged head the next one is looked for there.
pub(super) const BLOCK_ALIGN: usize = 8;
/// A block that has reached so many bytes is ended: what a damaged byte costs, and what is encoded in one step.
pub(super) const BLOCK_BYTES_TARGET: usize = 64 * 1024;
/// Beyond it no head is believed. The largest label set and one more record follow the target at most.
pub(super) const BLOCK_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(HEAD_BYTES.is_multiple_of(BLOCK_ALIGN) && BLOCK_HEAD_BYTES.is_multiple_of(BLOCK_ALIGN));
const _: () = assert!(
    BLOCK_BYTES_TARGET + (model::LABELS_MAX + 1) * (model::LABEL_VALUE_BYTES_MAX + 512) < BLOCK_BYTES_MAX / 2
);

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) shards: u16,
    pub(super) shard: u16,
}

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Damaged,
    OtherVersion(u32),
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.shards.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.shard.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..HEAD_BYTES - 4]);
        bytes[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Head, Refused> {
        let checked = bytes.get(..HEAD_BYTES - 4).filter(|checked| checked.starts_with(&MAGIC));
        let checked = checked.ok_or(Refused::Damaged)?;
        let crc = bytes[HEAD_BYTES - 4..].first_chunk().map(|crc| u32::from_le_bytes(*crc));
        if crc != Some(crc32c::crc32c(checked)) {
            return Err(Refused::Damaged);
        }
        let mut fields = Fields(&checked[MAGIC.len()..]);
        let version = fields.u32().ok_or(Refused::Damaged)?;
        if !(1..=VERSION).contains(&version) {
            return Err(Refused::OtherVersion(version));
        }
        let head = (|| Some(Head { shards: fields.u16()?, shard: fields.u16()?, id: fields.u64()? }))();
        head.ok_or(Refused::Damaged)
    }
}

/// What a block holds. The numbers are the format's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum BlockKind {
    Numbers = 1,
    Series = 2,
    End = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub(super) kind: BlockKind,
    pub(super) payload_bytes: u32,
    /// Series that have something in it.
    pub(super) series: u32,
    pub(super) payload_crc: u32,
    /// The first and last millisecond of its samples; the other way round where there is none.
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
}

impl BlockHead {
    /// The head's bytes at that place of that file.
    pub(super) fn encode(&self, id: u64, position: u64) -> [u8; BLOCK_HEAD_BYTES] {
        let mut bytes = [0; BLOCK_HEAD_BYTES];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.series.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.min_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.max_ms.to_le_bytes());
        let crc = crc32c::crc32c_append(place(id, position), &bytes[..BLOCK_HEAD_BYTES - 4]);
        bytes[BLOCK_HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The head at that place, if one stands there.
    pub(super) fn decode(bytes: &[u8], id: u64, position: u64) -> Option<BlockHead> {
        let bytes: &[u8; BLOCK_HEAD_BYTES] = bytes.first_chunk()?;
        let (checked, mut crc) = (&bytes[..BLOCK_HEAD_BYTES - 4], Fields(&bytes[BLOCK_HEAD_BYTES - 4..]));
        let mut fields = Fields(checked);
        // Where a head is looked for most places hold none, so this goes before the checksum.
        let kind = match fields.u32()? {
            1 => BlockKind::Numbers,
            2 => BlockKind::Series,
            3 => BlockKind::End,
            _ => return None,
        };
        let payload_bytes = fields.u32().filter(|bytes| *bytes as usize <= BLOCK_BYTES_MAX)?;
        if crc.u32()? != crc32c::crc32c_append(place(id, position), checked) {
            return None;
        }
        let (series, payload_crc) = (fields.u32()?, fields.u32()?);
        let (min_ms, max_ms) = (fields.u64()? as i64, fields.u64()? as i64);
        Some(BlockHead { kind, payload_bytes, series, payload_crc, min_ms, max_ms })
    }

    /// Bytes from the block's beginning to that of the next.
    pub(super) fn block_bytes(&self) -> usize {
        (BLOCK_HEAD_BYTES + self.payload_bytes as usize).next_multiple_of(BLOCK_ALIGN)
    }

    /// The time of its samples, if it has any.
    pub(super) fn millis(&self) -> Option<(i64, i64)> {
        (self.min_ms <= self.max_ms).then_some((self.min_ms, self.max_ms))
    }
}

/// What a head's checksum begins with.
fn place(id: u64, position: u64) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&id.to_le_bytes());
    place[8..].copy_from_slice(&position.to_le_bytes());
    crc32c::crc32c(&place)
}

/// The last block: what a whole file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Blocks before it.
    pub(super) blocks: u64,
    /// Series, one that goes over several blocks counted once.
    pub(super) series: u64,
    /// Numbers of loops.
    pub(super) numbers: u64,
}

impl Totals {
    pub(super) const BYTES: usize = 3 * size_of::<u64>();

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        [self.blocks, self.series, self.numbers]
            .iter()
            .for_each(|total| out.extend_from_slice(&total.to_le_bytes()));
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Totals> {
        let mut fields = Fields(bytes);
        let totals = Totals { blocks: fields.u64()?, series: fields.u64()?, numbers: fields.u64()? };
        fields.0.is_empty().then_some(totals)
    }
}
