//! The bytes of a segment's parts, to and from values. Numbers are little-endian.

use crate::chunk::{CHUNK_BYTES_MAX, CHUNK_SAMPLES_MAX};
use model::{Arrival, LabelSetRef, MetricKind, Slot, Timestamp};

pub(super) const VERSION: u16 = 2;
pub(super) const MAGIC: [u8; 8] = *b"RINGWSEG";
pub(super) const HEAD_BYTES: usize = 32;
pub(super) const FOOTER_BYTES: usize = 80;
/// A directory block is closed when it has reached this size; it is the unit of reading and of damage.
pub(super) const BLOCK_BYTES_TARGET: usize = 64 * 1024;
const ROW_HEAD_BYTES: usize = 28;
const CHUNK_ROW_BYTES: usize = 36;
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
    pub(super) blocks: u32,
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) id: u64,
}

/// One block of the directory, as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) rows: u32,
    pub(super) first_slot: u16,
    pub(super) last_slot: u16,
    /// Hashes of the metric names in the block, rising: whoever asks for another name need not read it.
    pub(super) names: Box<[u32]>,
}

/// Where one chunk lies and what it spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// The time of its first sample.
    pub first: Timestamp,
    /// The time of its last sample.
    pub last: Timestamp,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes, at most [`CHUNK_BYTES_MAX`].
    pub len: u32,
    /// Its samples, at most [`CHUNK_SAMPLES_MAX`].
    pub count: u32,
    /// CRC32C of its bytes.
    pub crc: u32,
}

/// One series of a block, borrowed from the block's bytes.
pub(super) struct Row<'a> {
    pub(super) slot: Slot,
    pub(super) kind: MetricKind,
    pub(super) arrival: Arrival,
    pub(super) labels: LabelSetRef<'a>,
    chunks: &'a [[u8; CHUNK_ROW_BYTES]],
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
        out.extend_from_slice(&[0; 6]);
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
            let _zeros: [u8; 6] = fields.take()?;
            Some((version, Head { shards, shard, id: fields.u64()? }, fields.u32()?))
        })();
        let (version, head, crc) = head.ok_or(Refused::Damaged("the head is cut short"))?;
        if bytes.get(..HEAD_BYTES - 4).is_none_or(|head| crc32c::crc32c(head) != crc) {
            return Err(Refused::Damaged("the checksum of the head"));
        }
        if version != VERSION { Err(Refused::OtherVersion(version)) } else { Ok(head) }
    }
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.index_offset.to_le_bytes());
        out.extend_from_slice(&self.index_len.to_le_bytes());
        out.extend_from_slice(&self.index_crc.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.series.to_le_bytes());
        out.extend_from_slice(&self.samples.to_le_bytes());
        out.extend_from_slice(&self.first.ticks().to_le_bytes());
        out.extend_from_slice(&self.last.ticks().to_le_bytes());
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
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
            let (blocks, _zeros) = (fields.u32()?, fields.u32()?);
            let (series, samples) = (fields.u64()?, fields.u64()?);
            let (first, last, id) = (fields.timestamp()?, fields.timestamp()?, fields.u64()?);
            let (version, _zeros, crc) = (fields.u16()?, fields.u16()?, fields.u32()?);
            let footer =
                Footer { index_offset, index_len, index_crc, blocks, series, samples, first, last, id };
            Some((footer, version, crc))
        })();
        let (footer, version, crc) = footer.ok_or(incomplete)?;
        if crc32c::crc32c(&bytes[..FOOTER_BYTES - 12]) != crc {
            return Err(Refused::Damaged("the checksum of the footer"));
        }
        if version != VERSION { Err(Refused::OtherVersion(version)) } else { Ok(footer) }
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

    /// All blocks of an index, none if the bytes are not exactly `blocks` of them, in the order of their slots.
    pub(super) fn decode_all(bytes: &[u8], blocks: u32) -> Option<Vec<Block>> {
        let mut fields = Fields(bytes);
        if (bytes.len() / BLOCK_HEAD_BYTES) < blocks as usize {
            return None;
        }
        let all: Option<Vec<Block>> = (0..blocks)
            .map(|_| {
                let (offset, len, crc, rows) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
                let (first_slot, last_slot) = (fields.u16()?, fields.u16()?);
                let names = fields.u32()?;
                let names = fields.slice((names as usize).checked_mul(4)?)?.as_chunks::<4>().0;
                let names = names.iter().map(|hash| u32::from_le_bytes(*hash)).collect();
                Some(Block { offset, len, crc, rows, first_slot, last_slot, names })
            })
            .collect();
        let in_order = |blocks: &Vec<Block>| {
            blocks.iter().all(|block| block.first_slot <= block.last_slot)
                && blocks.is_sorted_by(|a, b| a.last_slot <= b.first_slot)
        };
        all.filter(|blocks| fields.0.is_empty() && in_order(blocks))
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

/// Appends the row of one series to a block.
pub(super) fn encode_row(
    slot: Slot,
    kind: MetricKind,
    arrival: Arrival,
    labels: LabelSetRef<'_>,
    chunks: &[ChunkRow],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&(labels.bytes().len() as u32).to_le_bytes());
    out.extend_from_slice(&(chunks.len() as u32).to_le_bytes());
    out.extend_from_slice(&slot.number().to_le_bytes());
    out.push(kind as u8);
    out.push(0);
    out.extend_from_slice(&arrival.to_bits().to_le_bytes());
    out.extend_from_slice(labels.bytes());
    for chunk in chunks {
        out.extend_from_slice(&chunk.first.ticks().to_le_bytes());
        out.extend_from_slice(&chunk.last.ticks().to_le_bytes());
        out.extend_from_slice(&chunk.offset.to_le_bytes());
        out.extend_from_slice(&chunk.len.to_le_bytes());
        out.extend_from_slice(&chunk.count.to_le_bytes());
        out.extend_from_slice(&chunk.crc.to_le_bytes());
    }
}

const _: () = assert!(ROW_HEAD_BYTES == 4 + 4 + 2 + 1 + 1 + 16 && CHUNK_ROW_BYTES == 8 + 8 + 8 + 4 + 4 + 4);

/// The rows of a block, in order; `None` once for a row that is not in the form, and nothing behind it.
///
/// The checksum was right, so only a writer at fault or a forger brings `None` about.
pub(super) fn rows(block: &[u8]) -> impl Iterator<Item = Option<Row<'_>>> {
    let mut fields = Fields(block);
    std::iter::from_fn(move || {
        if fields.0.is_empty() {
            return None;
        }
        let row = row(&mut fields);
        if row.is_none() {
            fields.0 = &[];
        }
        Some(row)
    })
}

fn row<'a>(fields: &mut Fields<'a>) -> Option<Row<'a>> {
    let (labels_len, chunks) = (fields.u32()?, fields.u32()?);
    let slot = Slot::new(fields.u16()?)?;
    let [kind, _zero] = fields.take()?;
    let kind = MetricKind::from_byte(kind)?;
    let arrival = Arrival::from_bits(u128::from_le_bytes(fields.take()?));
    let labels = LabelSetRef::from_bytes(fields.slice(labels_len as usize)?).ok()?;
    let chunks = fields.slice((chunks as usize).checked_mul(CHUNK_ROW_BYTES)?)?;
    Some(Row { slot, kind, arrival, labels, chunks: chunks.as_chunks().0 })
}

impl<'a> Row<'a> {
    /// The chunks of the series; `None` for one whose numbers cannot be.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Option<ChunkRow>> + use<'a> {
        self.chunks.iter().map(|bytes| {
            let mut fields = Fields(bytes);
            let (first, last) = (fields.timestamp()?, fields.timestamp()?);
            let (offset, len) = (fields.u64()?, fields.u32()?);
            let (count, crc) = (fields.u32()?, fields.u32()?);
            let possible = first <= last
                && (1..=CHUNK_SAMPLES_MAX).contains(&count)
                && (1..=CHUNK_BYTES_MAX).contains(&(len as usize));
            possible.then_some(ChunkRow { first, last, offset, len, count, crc })
        })
    }
}

/// Takes fields off the front of bytes; `None` where they end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(slice)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn timestamp(&mut self) -> Option<Timestamp> {
        self.take().map(|bytes| Timestamp::from_ticks(i64::from_le_bytes(bytes)))
    }
}
