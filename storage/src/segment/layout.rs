//! The bytes around a segment's data, to and from values: head, index, footer. Numbers are little-endian.

use super::fields::Fields;
use model::{Slot, Timestamp};

pub(super) const VERSION: u16 = 5;
/// What is read besides: version 4 says more of a chunk than it must and has sums of one double, version 3 has no label
/// index either.
pub(super) const OLDEST_VERSION: u16 = 3;
pub(super) const MAGIC: [u8; 8] = *b"RINGWSEG";
pub(super) const HEAD_BYTES: usize = 32;
pub(super) const FOOTER_BYTES: usize = 88;
/// A tier (0: samples as they came) and its resolution: room for downsampled segments.
const RAW_TIER: [u8; 6] = [0; 6];
const BLOCK_HEAD_BYTES: usize = 28;

/// Who wrote the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) shards: u16,
    pub(super) shard: u16,
}

/// What the end of the file says of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) index_offset: u64,
    pub(super) index_len: u32,
    pub(super) index_crc: u32,
    /// The filter lies behind the index.
    pub(super) filter_len: u32,
    pub(super) filter_crc: u32,
    pub(super) blocks: u32,
    /// Of the label index, behind the blocks in the index.
    pub(super) parts: u32,
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) id: u64,
    pub(super) version: u16,
}

/// One block of the directory, as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    /// Rows of all blocks before; not written.
    pub(super) first_row: u32,
    pub(super) rows: u32,
    pub(super) first_slot: u16,
    pub(super) last_slot: u16,
    /// Hashes of the metric names in the block, rising: whoever asks for another name need not read it.
    pub(super) names: Box<[u32]>,
}

/// The hash under which a metric name stands in a block's list.
pub(super) fn name_hash(name: &str) -> u32 {
    crc32c::crc32c(name.as_bytes())
}

/// Why a head or a footer is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Damaged(&'static str),
    OtherVersion(u16),
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.shards.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&RAW_TIER);
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields add up to HEAD_BYTES")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Head, Refused> {
        let mut fields = Fields(bytes);
        let magic: [u8; 8] = fields.take().ok_or(Refused::Damaged("the head is cut short"))?;
        if magic != MAGIC {
            return Err(Refused::Damaged("the file does not begin as a segment does"));
        }
        let head = (|| {
            let version = fields.u16()?;
            let (shards, shard) = (fields.u16()?, fields.u16()?);
            let tier: [u8; 6] = fields.take()?;
            Some((version, tier, Head { shards, shard, id: fields.u64()? }, fields.u32()?))
        })();
        let (version, tier, head, crc) = head.ok_or(Refused::Damaged("the head is cut short"))?;
        if bytes.get(..HEAD_BYTES - 4).is_none_or(|head| crc32c::crc32c(head) != crc) {
            return Err(Refused::Damaged("the checksum of the head"));
        }
        match (version, tier) {
            (OLDEST_VERSION..=VERSION, RAW_TIER) => Ok(head),
            (OLDEST_VERSION..=VERSION, _) => {
                Err(Refused::Damaged("the head names a tier of downsampled data, unknown so far"))
            }
            _ => Err(Refused::OtherVersion(version)),
        }
    }
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.index_offset.to_le_bytes());
        out.extend_from_slice(&self.index_len.to_le_bytes());
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.filter_len.to_le_bytes());
        out.extend_from_slice(&self.filter_crc.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.parts.to_le_bytes());
        out.extend_from_slice(&self.series.to_le_bytes());
        out.extend_from_slice(&self.samples.to_le_bytes());
        out.extend_from_slice(&self.first.ticks().to_le_bytes());
        out.extend_from_slice(&self.last.ticks().to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out.try_into().expect("the fields add up to FOOTER_BYTES")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Footer, Refused> {
        let incomplete = Refused::Damaged("the footer: the segment is incomplete");
        if bytes.len() != FOOTER_BYTES || bytes[FOOTER_BYTES - 8..] != MAGIC {
            return Err(incomplete);
        }
        let mut fields = Fields(bytes);
        let footer = (|| {
            let (index_offset, index_len, index_crc) = (fields.u64()?, fields.u32()?, fields.u32()?);
            let (filter_len, filter_crc) = (fields.u32()?, fields.u32()?);
            let (blocks, parts) = (fields.u32()?, fields.u32()?);
            let (series, samples) = (fields.u64()?, fields.u64()?);
            let (first, last, id) = (fields.timestamp()?, fields.timestamp()?, fields.u64()?);
            let (version, _zeros, crc) = (fields.u16()?, fields.u16()?, fields.u32()?);
            let footer = Footer {
                index_offset,
                index_len,
                index_crc,
                filter_len,
                filter_crc,
                blocks,
                parts,
                series,
                samples,
                first,
                last,
                id,
                version,
            };
            Some((footer, crc))
        })();
        let (footer, crc) = footer.ok_or(incomplete)?;
        if crc32c::crc32c(&bytes[..FOOTER_BYTES - 12]) != crc {
            return Err(Refused::Damaged("the checksum of the footer"));
        }
        // Version 3 has zeros where the parts are counted.
        match footer.version {
            OLDEST_VERSION..=VERSION => Ok(footer),
            version => Err(Refused::OtherVersion(version)),
        }
    }
}

impl Block {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.first_slot.to_le_bytes());
        out.extend_from_slice(&self.last_slot.to_le_bytes());
        out.extend_from_slice(&(self.names.len() as u32).to_le_bytes());
        self.names.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
    }

    /// All blocks of an index, and the bytes behind them; none if they are not in the order of their slots.
    pub(super) fn decode_all(bytes: &[u8], blocks: u32) -> Option<(Vec<Block>, &[u8])> {
        let mut fields = Fields(bytes);
        if (bytes.len() / BLOCK_HEAD_BYTES) < blocks as usize {
            return None;
        }
        let mut rows_end = 0u32;
        let all: Option<Vec<Block>> = (0..blocks)
            .map(|_| {
                let (offset, len, crc, rows) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
                let (first_slot, last_slot) = (fields.u16()?, fields.u16()?);
                let names = fields.u32()?;
                let names = fields.slice((names as usize).checked_mul(4)?)?.as_chunks::<4>().0;
                let names = names.iter().map(|hash| u32::from_le_bytes(*hash)).collect();
                let first_row = rows_end;
                rows_end = first_row.checked_add(rows)?;
                Some(Block { offset, len, crc, first_row, rows, first_slot, last_slot, names })
            })
            .collect();
        let in_order = |blocks: &Vec<Block>| {
            blocks.iter().all(|block| block.first_slot <= block.last_slot)
                && blocks.is_sorted_by(|a, b| a.last_slot <= b.first_slot)
        };
        all.filter(in_order).map(|blocks| (blocks, fields.0))
    }

    /// The slots that its series may lie in.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        (self.first_slot..=self.last_slot).filter_map(Slot::new)
    }

    /// Whether a series of that name may be in the block.
    pub(super) fn may_hold(&self, name_hash: u32) -> bool {
        self.names.binary_search(&name_hash).is_ok()
    }
}
