//! Writing, in steps of some 0.1 ms, so that everything else goes on between them.
//!
//! In memory are one block, what waits for the next request to the disk, and a copy of the loops' numbers.

use super::layout::{
    BLOCK_ALIGN, BLOCK_BYTES_TARGET, BLOCK_HEAD_BYTES, BlockHead, BlockKind, HEAD_BYTES, Head, Totals,
};
use super::{
    CHECKPOINTS_FOLDER, CheckpointEntry, CheckpointError, LoopNumbers, SeriesBlock, checkpoint_path,
};
use crate::disk::{Disk, DiskFile};
use crate::memtable::{Cut, ImageCursor, Memtable};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// Bytes handed to the disk at once.
const STEP_BYTES: usize = 512 * 1024;
/// Bytes after which what is written is synced: the journals share the device, and what a sync of theirs has to wait
/// for is no more than this.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Series looked at in one step.
    pub rows_per_step: usize,
    /// Bytes at which a block is ended, 64 KiB at most.
    pub block_bytes: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { rows_per_step: 1_024, block_bytes: BLOCK_BYTES_TARGET }
    }
}

/// A checkpoint that is being written, free of the store so that the store goes on meanwhile. It keeps nothing of the
/// memory that the store does not.
pub struct CheckpointJob<D: Disk> {
    disk: D,
    path: String,
    head: Head,
    pace: Pace,
    memtable: Rc<RefCell<Memtable>>,
    /// What the memtable was when the positions were taken.
    cut: Cut,
    numbers: Vec<LoopNumbers>,
    /// Of the loop at hand, the number that is written next.
    next_number: usize,
    next_loop: usize,
    cursor: ImageCursor,
    block: SeriesBlock,
    payload: Vec<u8>,
    totals: Totals,
    out: Option<Out<D::File>>,
}

impl<D: Disk> CheckpointJob<D> {
    pub(crate) fn new(
        disk: D,
        (id, shard, shards): (u64, u16, u16),
        memtable: Rc<RefCell<Memtable>>,
        numbers: Vec<LoopNumbers>,
        pace: Pace,
    ) -> CheckpointJob<D> {
        let cut = memtable.borrow().cut();
        CheckpointJob {
            disk,
            path: checkpoint_path(id),
            head: Head { id, shards, shard },
            pace,
            memtable,
            cut,
            numbers,
            next_number: 0,
            next_loop: 0,
            cursor: ImageCursor::default(),
            block: SeriesBlock::with_target(pace.block_bytes.min(BLOCK_BYTES_TARGET)),
            payload: Vec::new(),
            totals: Totals::default(),
            out: None,
        }
    }

    /// Whether what is written still stands for the memory: no freeze came, and no series has left it.
    pub fn is_current(&self) -> bool {
        self.memtable.borrow().cut() == self.cut
    }

    /// Goes one step further; the whole file and its name are on the device when it returns the entry for a manifest. That
    /// may name it only as long as the job [is current](Self::is_current), and after a sync of the journals.
    ///
    /// Whoever ends early, or got an error, says so by [`Self::abandon`].
    pub async fn step(&mut self) -> Result<Option<CheckpointEntry>, CheckpointError> {
        if !self.is_current() {
            return Err(CheckpointError::Superseded);
        }
        let written = self.go_on().await;
        let bytes = written.map_err(|error| CheckpointError::Io { path: self.path.clone(), error })?;
        let Head { id, shards, shard } = self.head;
        Ok(bytes.map(|bytes| CheckpointEntry { id, shards, shard, bytes }))
    }

    /// Gives up: the file is removed, so that a full disk has its space back.
    pub async fn abandon(self) {
        // A file that stays is no harm, no manifest names it.
        let _ = self.disk.remove(&self.path).await;
    }

    /// The length of the file, once it is whole.
    async fn go_on(&mut self) -> io::Result<Option<u64>> {
        let Some(out) = &mut self.out else {
            self.disk.create_dir(CHECKPOINTS_FOLDER).await?;
            let file = self.disk.create(&self.path).await?;
            let waiting = Vec::with_capacity(STEP_BYTES + HEAD_BYTES);
            let out = self.out.insert(Out { id: self.head.id, file, written: 0, synced: 0, waiting });
            out.waiting.extend_from_slice(&self.head.encode());
            return Ok(None);
        };
        if let Some(numbers) = self.numbers.get(self.next_loop) {
            self.payload.clear();
            self.next_number = numbers.encode(self.next_number, &mut self.payload);
            if self.next_number == numbers.series.len() {
                self.totals.numbers += numbers.series.len() as u64;
                (self.next_loop, self.next_number) = (self.next_loop + 1, 0);
            }
            self.totals.blocks += 1;
            out.block(&head_of(BlockKind::Numbers, &self.payload), &self.payload).await?;
            return Ok(None);
        }
        let rows = self.pace.rows_per_step;
        let is_more = self.memtable.borrow().write_image(&mut self.cursor, rows, &mut self.block);
        if self.block.is_full() || (!is_more && !self.block.is_empty()) {
            let head = self.block.take(&mut self.payload);
            self.totals.blocks += 1;
            out.block(&head, &self.payload).await?;
        }
        if is_more {
            return Ok(None);
        }
        self.totals.series = self.cursor.series();
        self.payload.clear();
        self.totals.encode(&mut self.payload);
        out.block(&head_of(BlockKind::End, &self.payload), &self.payload).await?;
        out.step().await?;
        out.file.sync().await?;
        self.disk.sync_dir(CHECKPOINTS_FOLDER).await?;
        self.disk.sync_dir("").await?;
        Ok(Some(out.written))
    }
}

/// The head of a block without samples.
fn head_of(kind: BlockKind, payload: &[u8]) -> BlockHead {
    BlockHead {
        kind,
        payload_bytes: payload.len() as u32,
        series: 0,
        payload_crc: crc32c::crc32c(payload),
        min_ms: i64::MAX,
        max_ms: i64::MIN,
    }
}

/// The file, growing.
struct Out<F> {
    id: u64,
    file: F,
    written: u64,
    synced: u64,
    waiting: Vec<u8>,
}

impl<F: DiskFile> Out<F> {
    async fn block(&mut self, head: &BlockHead, payload: &[u8]) -> io::Result<()> {
        let position = self.written + self.waiting.len() as u64;
        self.waiting.extend_from_slice(&head.encode(self.id, position));
        self.waiting.extend_from_slice(payload);
        let padding = head.block_bytes() - BLOCK_HEAD_BYTES - payload.len();
        self.waiting.extend_from_slice(&[0; BLOCK_ALIGN][..padding]);
        if self.waiting.len() >= STEP_BYTES { self.step().await } else { Ok(()) }
    }

    async fn step(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.waiting).await?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        if self.written - self.synced >= SYNC_BYTES {
            self.file.sync().await?;
            self.synced = self.written;
        }
        Ok(())
    }
}
