//! Writing a segment, front to back, in steps.

use super::layout::{BLOCK_BYTES_TARGET, Block, ChunkRow, Footer, HEAD_BYTES, Head, encode_row, name_hash};
use super::{SEGMENTS_FOLDER, SegmentEntry, SegmentError, merged, segment_path};
use crate::disk::{Disk, DiskFile};
use crate::memtable::{Frozen, FrozenSeries};
use model::{SLOTS, Timestamp};
use std::io;

/// Bytes handed to the disk at once. Between two steps the executor does other work.
const STEP_BYTES: usize = 1024 * 1024;

/// Writes a frozen memtable as segment `id` of shard `shard` of `shards`, and returns once it and its name
/// are on the device. It counts only when a manifest names it.
///
/// Where that fails, what was written is removed, so that a full disk has its space back.
pub async fn write_segment<D: Disk>(
    disk: &D,
    id: u64,
    shard: u16,
    shards: u16,
    frozen: &Frozen,
) -> Result<SegmentEntry, SegmentError> {
    let path = segment_path(id);
    let written = write_file(disk, &path, Head { id, shard, shards }, frozen).await;
    if written.is_err() {
        // The first error is the one to tell; a file that stays is no harm, no manifest names it.
        let _ = disk.remove(&path).await;
    }
    written
}

async fn write_file<D: Disk>(
    disk: &D,
    path: &str,
    head: Head,
    frozen: &Frozen,
) -> Result<SegmentEntry, SegmentError> {
    let failed = |error| SegmentError::Io { path: path.to_owned(), error };
    disk.create_dir(SEGMENTS_FOLDER).await.map_err(failed)?;
    let file = disk.create(path).await.map_err(failed)?;
    let mut out = Steps { file, written: 0, waiting: Vec::with_capacity(STEP_BYTES + HEAD_BYTES) };
    out.waiting.extend_from_slice(&head.encode());

    let by_slot = by_slot(frozen);
    let mut chunk_rows: Vec<ChunkRow> = Vec::new();
    let mut chunk_counts: Vec<u32> = Vec::with_capacity(frozen.series().len());
    for series in &by_slot {
        let chunks = merged(series.slice())
            .map_err(|error| SegmentError::Memory { series: format!("{:?}", series.labels()), error })?;
        chunk_counts.push(chunks.len() as u32);
        for chunk in chunks {
            chunk_rows.push(ChunkRow {
                first: chunk.first(),
                last: chunk.last(),
                offset: out.position(),
                len: chunk.bytes().len() as u32,
                count: chunk.count(),
                crc: crc32c::crc32c(chunk.bytes()),
            });
            out.append(chunk.bytes()).await.map_err(failed)?;
        }
    }
    let blocks = write_directory(&mut out, &by_slot, &chunk_rows, &chunk_counts).await.map_err(failed)?;

    let mut index = Vec::new();
    blocks.iter().for_each(|block| block.encode(&mut index));
    let too_large = |_| failed(io::Error::new(io::ErrorKind::FileTooLarge, "index above 4 GiB"));
    let footer = Footer {
        index_offset: out.position(),
        index_len: u32::try_from(index.len()).map_err(too_large)?,
        index_crc: crc32c::crc32c(&index),
        blocks: u32::try_from(blocks.len()).map_err(too_large)?,
        series: by_slot.len() as u64,
        samples: chunk_rows.iter().map(|row| u64::from(row.count)).sum(),
        first: chunk_rows.iter().map(|row| row.first).min().unwrap_or(Timestamp::MAX),
        last: chunk_rows.iter().map(|row| row.last).max().unwrap_or(Timestamp::MIN),
        id: head.id,
    };
    out.append(&index).await.map_err(failed)?;
    out.append(&footer.encode()).await.map_err(failed)?;
    let bytes = out.finish().await.map_err(failed)?;
    disk.sync_dir(SEGMENTS_FOLDER).await.map_err(failed)?;
    disk.sync_dir("").await.map_err(failed)?;
    Ok(SegmentEntry {
        id: head.id,
        shards: head.shards,
        shard: head.shard,
        min_ms: footer.first.millis(),
        max_ms: footer.last.millis(),
        bytes,
    })
}

/// All series in slot order, within a slot by labels.
fn by_slot(frozen: &Frozen) -> Vec<&FrozenSeries> {
    let mut slots: Vec<Vec<&FrozenSeries>> = vec![Vec::new(); usize::from(SLOTS)];
    for series in frozen.series() {
        slots[usize::from(series.hash().slot().number())].push(series);
    }
    for slot in &mut slots {
        slot.sort_unstable_by(|a, b| a.labels().cmp(b.labels()));
    }
    slots.concat()
}

async fn write_directory<F: DiskFile>(
    out: &mut Steps<F>,
    series: &[&FrozenSeries],
    chunk_rows: &[ChunkRow],
    chunk_counts: &[u32],
) -> io::Result<Vec<Block>> {
    let (mut blocks, mut rest) = (Vec::new(), chunk_rows);
    let (mut bytes, mut names) = (Vec::new(), Vec::new());
    let (mut rows, mut first_slot) = (0, 0);
    for (i, (series, &count)) in series.iter().zip(chunk_counts).enumerate() {
        let slot = series.hash().slot();
        if rows == 0 {
            first_slot = slot.number();
        }
        let (own, others) = rest.split_at(count as usize);
        rest = others;
        let labels = (**series.labels()).as_ref();
        encode_row(slot, series.kind(), series.arrival(), labels, own, &mut bytes);
        names.push(name_hash(labels.name()));
        rows += 1;
        if bytes.len() < BLOCK_BYTES_TARGET && i + 1 < chunk_counts.len() {
            continue;
        }
        names.sort_unstable();
        names.dedup();
        let len = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "directory row above 4 GiB"))?;
        blocks.push(Block {
            offset: out.position(),
            len,
            crc: crc32c::crc32c(&bytes),
            rows,
            first_slot,
            last_slot: slot.number(),
            names: names.as_slice().into(),
        });
        out.append(&bytes).await?;
        bytes.clear();
        names.clear();
        rows = 0;
    }
    Ok(blocks)
}

/// A file that grows by whole steps; only the last is shorter.
struct Steps<F> {
    file: F,
    written: u64,
    waiting: Vec<u8>,
}

impl<F: DiskFile> Steps<F> {
    /// Where the next byte will lie.
    fn position(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    async fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.waiting.len() + bytes.len() >= STEP_BYTES {
            let (now, later) = bytes.split_at(STEP_BYTES - self.waiting.len());
            self.waiting.extend_from_slice(now);
            self.step().await?;
            bytes = later;
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    async fn step(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.waiting).await?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Everything to the device; the length of the file.
    async fn finish(mut self) -> io::Result<u64> {
        self.step().await?;
        self.file.sync().await?;
        Ok(self.written)
    }
}
