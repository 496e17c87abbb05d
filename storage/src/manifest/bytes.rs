//! A manifest as bytes, and back: `docs/format/manifest.md`.
//!
//! Always: what is read is checked against its checksums before it means anything, a count against what is left before
//! anything is made of it; older versions are read, a newer one is refused.

use super::{CheckpointEntry, MANIFEST_VERSION, Manifest, ManifestError, SegmentEntry, Tombstone};
use crate::journal::JournalPosition;

/// The oldest that is read: in version 1 every segment was one flush, before version 4 there was no checkpoint.
const MANIFEST_VERSION_MIN: u32 = 1;

pub(super) const MAGIC: [u8; 8] = *b"rwmanife";
pub(super) const HEAD_BYTES: usize = 24;
const SEGMENT_BYTES_1: usize = 8 + 2 + 2 + 8 + 8 + 8;
const SEGMENT_BYTES: usize = SEGMENT_BYTES_1 + 8 + 8;
/// With an empty selector.
const TOMBSTONE_BYTES_MIN: usize = 8 + 2 + 2 + 8 + 8 + 4;
const POSITION_BYTES: usize = 16;
/// In place of the believed time.
const NEVER_LOOKED: i64 = i64::MIN;
const CHECKPOINT_BYTES: usize = 8 + 2 + 2 + 8;

impl Manifest {
    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.run.to_le_bytes());
        body.extend_from_slice(&self.routing_generation.to_le_bytes());
        body.extend_from_slice(&self.next_segment.to_le_bytes());
        body.extend_from_slice(&self.shards.to_le_bytes());
        body.extend_from_slice(&count(self.positions.len()).to_le_bytes());
        for positions in &self.positions {
            body.extend_from_slice(&count(positions.len()).to_le_bytes());
            for position in positions {
                body.extend_from_slice(&position.sequence.to_le_bytes());
                body.extend_from_slice(&position.offset.to_le_bytes());
            }
        }
        body.extend_from_slice(&count(self.segments.len()).to_le_bytes());
        for segment in &self.segments {
            body.extend_from_slice(&segment.id.to_le_bytes());
            body.extend_from_slice(&segment.shards.to_le_bytes());
            body.extend_from_slice(&segment.shard.to_le_bytes());
            body.extend_from_slice(&segment.min_ms.to_le_bytes());
            body.extend_from_slice(&segment.max_ms.to_le_bytes());
            body.extend_from_slice(&segment.bytes.to_le_bytes());
            body.extend_from_slice(&segment.newest.to_le_bytes());
            body.extend_from_slice(&segment.deletes_through.to_le_bytes());
        }
        body.extend_from_slice(&count(self.deletes.len()).to_le_bytes());
        for delete in &self.deletes {
            body.extend_from_slice(&delete.id.to_le_bytes());
            body.extend_from_slice(&delete.shards.to_le_bytes());
            body.extend_from_slice(&delete.shard.to_le_bytes());
            body.extend_from_slice(&delete.start_ms.to_le_bytes());
            body.extend_from_slice(&delete.end_ms.to_le_bytes());
            body.extend_from_slice(&count(delete.selector.len()).to_le_bytes());
            body.extend_from_slice(delete.selector.as_bytes());
        }
        body.extend_from_slice(&self.believed_ms.unwrap_or(NEVER_LOOKED).to_le_bytes());
        body.extend_from_slice(&count(self.checkpoints.len()).to_le_bytes());
        for checkpoint in &self.checkpoints {
            body.extend_from_slice(&checkpoint.id.to_le_bytes());
            body.extend_from_slice(&checkpoint.shards.to_le_bytes());
            body.extend_from_slice(&checkpoint.shard.to_le_bytes());
            body.extend_from_slice(&checkpoint.bytes.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
        bytes.extend_from_slice(&count(body.len()).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a manifest's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let damaged = |at: usize, expected| ManifestError::Damaged { at: at as u64, expected };
        if !bytes.starts_with(&MAGIC) {
            return Err(ManifestError::Foreign);
        }
        let mut head = Reader { bytes: &bytes[..bytes.len().min(HEAD_BYTES)], at: MAGIC.len() };
        let version = head.u32()?;
        let body_bytes = head.u32()? as usize;
        let body_crc = head.u32()?;
        if head.u32()? != crc32c::crc32c(&bytes[..HEAD_BYTES - 4]) {
            return Err(damaged(0, "a head that matches its checksum"));
        }
        if !(MANIFEST_VERSION_MIN..=MANIFEST_VERSION).contains(&version) {
            return Err(ManifestError::Version { found: version });
        }
        if bytes.len() - HEAD_BYTES != body_bytes || crc32c::crc32c(&bytes[HEAD_BYTES..]) != body_crc {
            return Err(damaged(HEAD_BYTES, "a body of the head's length and checksum"));
        }
        let mut body = Reader { bytes, at: HEAD_BYTES };
        let mut manifest = Manifest {
            run: body.u64()?,
            routing_generation: body.u64()?,
            next_segment: body.u64()?,
            shards: body.u16()?,
            ..Manifest::default()
        };
        for _ in 0..body.u32()? {
            let mut positions = Vec::new();
            for _ in 0..body.count(POSITION_BYTES)? {
                positions.push(JournalPosition { sequence: body.u64()?, offset: body.u64()? });
            }
            manifest.positions.push(positions);
        }
        let segment_bytes = if version == 1 { SEGMENT_BYTES_1 } else { SEGMENT_BYTES };
        for _ in 0..body.count(segment_bytes)? {
            let id = body.u64()?;
            manifest.segments.push(SegmentEntry {
                id,
                shards: body.u16()?,
                shard: body.u16()?,
                min_ms: body.u64()? as i64,
                max_ms: body.u64()? as i64,
                bytes: body.u64()?,
                newest: if version == 1 { id } else { body.u64()? },
                deletes_through: if version == 1 { 0 } else { body.u64()? },
            });
        }
        let deletes = if version == 1 { 0 } else { body.count(TOMBSTONE_BYTES_MIN)? };
        for _ in 0..deletes {
            manifest.deletes.push(Tombstone {
                id: body.u64()?,
                shards: body.u16()?,
                shard: body.u16()?,
                start_ms: body.u64()? as i64,
                end_ms: body.u64()? as i64,
                selector: body.text()?,
            });
        }
        if version >= 3 {
            let believed_ms = body.u64()? as i64;
            manifest.believed_ms = (believed_ms != NEVER_LOOKED).then_some(believed_ms);
        }
        let checkpoints = if version < 4 { 0 } else { body.count(CHECKPOINT_BYTES)? };
        for _ in 0..checkpoints {
            manifest.checkpoints.push(CheckpointEntry {
                id: body.u64()?,
                shards: body.u16()?,
                shard: body.u16()?,
                bytes: body.u64()?,
            });
        }
        if body.at == bytes.len() { Ok(manifest) } else { Err(damaged(body.at, "the end")) }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a manifest is far below 4 GiB")
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let found = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        let found = *found.ok_or(ManifestError::Damaged { at: self.at as u64, expected: "more bytes" })?;
        self.at += N;
        Ok(found)
    }

    fn u16(&mut self) -> Result<u16, ManifestError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ManifestError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ManifestError> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, ManifestError> {
        let at = self.at as u64;
        let len = self.count(1)? as usize;
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| ManifestError::Damaged { at, expected: "text in UTF-8" })
    }

    /// A count of things that each take `bytes`, checked against what is left before anything is made.
    fn count(&mut self, bytes: usize) -> Result<u32, ManifestError> {
        let at = self.at as u64;
        let count = self.u32()?;
        if count as usize > (self.bytes.len() - self.at) / bytes {
            return Err(ManifestError::Damaged { at, expected: "a count that fits the file" });
        }
        Ok(count)
    }
}
