//! The loop's hand on its journal: carries out what the writer's state machine asks for.
//!
//! Always: at most one sync in flight; a file is kept open until it is synced or abandoned; nothing is
//! reported further along than the kernel said. A plain `pwrite` once per turn is cheaper than any ring
//! operation here (DESIGN §3); the sync goes through the loop's ring and is waited for by nobody.
//! Not here: what a frame holds (`storage::journal`), who waits for it (`front.rs`).

use crate::shared::FrontCounters;
use shard::file::LoopFile;
use shard::net::Net;
use std::collections::VecDeque;
use std::io;
use storage::journal::{JournalPosition, NextFile, PreparedFile, Sync, Writer};

/// Bytes after which the kernel is asked to begin writing back, so that a later sync finds little to do and
/// a `written` journal does not run into the kernel's dirty limits.
const WRITE_BACK_BYTES: u64 = 4 << 20;

/// What the page cache holds or does not hold: the block of every file system that we know of.
const BLOCK_BYTES: u64 = 4096;

/// A file from its preparation until it is synced to its end.
struct JournalFile {
    sequence: u64,
    bytes: u64,
    /// Blocks below this were written whole.
    whole_through: u64,
    file: LoopFile,
}

/// The journal of one loop.
pub struct Wal {
    /// What stands in the frames, and in which order things happen.
    pub writer: Writer,
    files: VecDeque<JournalFile>,
    sync_in_flight: Option<Sync>,
    written_back: JournalPosition,
    /// Why there is no next file, while there is none.
    pub file_refused: Option<io::Error>,
    /// There was a file: the first one comes when the executor has replayed, and no sample waits for that.
    has_begun: bool,
}

/// A write or a sync failed: whatever waits for more than `last_good` has to be refused.
#[derive(Debug)]
pub struct WalFailed {
    /// The end of what stays.
    pub last_good: JournalPosition,
    /// What the kernel said.
    pub error: io::Error,
}

impl Wal {
    /// A journal without a file yet.
    pub fn new(writer: Writer) -> Wal {
        Wal {
            writer,
            files: VecDeque::new(),
            sync_in_flight: None,
            written_back: JournalPosition::default(),
            file_refused: None,
            has_begun: false,
        }
    }

    /// Takes the file that an executor prepared, or the reason why it could not.
    pub fn take_file(&mut self, prepared: io::Result<(PreparedFile, LoopFile)>) {
        match prepared {
            Ok((prepared, file)) => {
                let (sequence, bytes) = (prepared.sequence(), prepared.bytes());
                self.files.push_back(JournalFile { sequence, bytes, whole_through: 0, file });
                self.writer.install(prepared);
                self.file_refused = None;
                self.has_begun = true;
            }
            Err(error) => {
                self.writer.not_prepared();
                self.file_refused = Some(error);
            }
        }
    }

    /// The file to prepare next; said once per file.
    pub fn needs_file(&mut self) -> Option<NextFile> {
        self.writer.needs_file()
    }

    /// Whether rows that take at most so many bytes (see `batch_bytes_max`) find no room just now and may find it in a
    /// moment, for nothing has refused the next file.
    pub fn awaits_file(&self, bytes_at_most: usize) -> bool {
        self.has_begun && self.file_refused.is_none() && self.writer.awaits_file(bytes_at_most)
    }

    /// Whether such rows are refused because the disk refuses the next file.
    pub fn is_out_of_room(&self, bytes_at_most: usize) -> bool {
        self.file_refused.is_some() && self.writer.awaits_file(bytes_at_most)
    }

    /// Hands all sealed frames to the kernel, in one write per file.
    pub fn write(&mut self, counters: &FrontCounters) -> Result<(), WalFailed> {
        while let Some(mut write) = self.writer.next_write() {
            let (sequence, position) = (write.sequence, write.position);
            let mut bytes = std::mem::take(&mut write.bytes);
            let len = bytes.len();
            let written = file_of(&mut self.files, sequence).write(&mut bytes, position);
            bytes.truncate(len);
            write.bytes = bytes;
            let len = len as u64;
            let told = written.as_ref().err().map(copy_of);
            if let Err(abandoned) = self.writer.wrote(write, written) {
                counters.journal_failures.add(1);
                let error = told.unwrap_or_else(|| io::ErrorKind::Other.into());
                return Err(WalFailed { last_good: abandoned.last_good, error });
            }
            counters.journal_writes.add(1);
            counters.journal_bytes.add(len);
            self.write_back(sequence, position + len);
        }
        Ok(())
    }

    fn write_back(&mut self, sequence: u64, end: u64) {
        if self.written_back.sequence != sequence {
            self.written_back = JournalPosition { sequence, offset: 0 };
        }
        if end - self.written_back.offset >= WRITE_BACK_BYTES {
            // Advice only: a refusal changes when the kernel writes, not what.
            let file = &file_of(&mut self.files, sequence).file;
            let _ = file.start_write_back(self.written_back.offset, end - self.written_back.offset);
            self.written_back.offset = end;
        }
    }

    /// Begins a sync of what is written, unless one is in flight or nothing is unsynced; says whether it did.
    pub fn begin_sync(&mut self, net: &mut Net) -> bool {
        if self.sync_in_flight.is_some() {
            return false;
        }
        let Some(sync) = self.writer.next_sync() else { return false };
        net.sync_data(&file_of(&mut self.files, sync.sequence).file, sync.sequence);
        self.sync_in_flight = Some(sync);
        true
    }

    /// Whether a sync has been begun and has not come back.
    pub fn is_syncing(&self) -> bool {
        self.sync_in_flight.is_some()
    }

    /// A sync came back. Files behind the synced one are closed.
    pub fn synced(&mut self, result: io::Result<()>, counters: &FrontCounters) -> Result<(), WalFailed> {
        let Some(sync) = self.sync_in_flight.take() else { return Ok(()) };
        let told = result.as_ref().err().map(copy_of);
        let abandoned = self.writer.synced(sync, result);
        let synced_through = self.writer.synced_through();
        self.files.retain(|file| file.sequence >= synced_through.sequence);
        if let Err(abandoned) = abandoned {
            counters.journal_failures.add(1);
            let error = told.unwrap_or_else(|| io::ErrorKind::Other.into());
            return Err(WalFailed { last_good: abandoned.last_good, error });
        }
        counters.journal_syncs.add(1);
        Ok(())
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

fn file_of(files: &mut VecDeque<JournalFile>, sequence: u64) -> &mut JournalFile {
    files
        .iter_mut()
        .find(|file| file.sequence == sequence)
        .expect("the writer names only files that were installed and are not yet synced")
}

impl JournalFile {
    /// Writes `bytes`, and behind them as many zeros as make their last block whole if it is the first write
    /// there. A prepared file is full of zeros, so nothing changes but this: its blocks are on the device alone
    /// (or clean and idle, the first that the kernel drops from memory), and a write to a part of such a block waits
    /// until the device has read it. 44 % of a loop's time went there once (tuning/PROFILING.md).
    fn write(&mut self, bytes: &mut Vec<u8>, position: u64) -> io::Result<()> {
        let end = position + bytes.len() as u64;
        let padding = padding(end, self.whole_through, self.bytes);
        bytes.resize(bytes.len() + padding, 0);
        self.file.write_all_at(bytes, position)?;
        self.whole_through = self.whole_through.max(end + padding as u64);
        Ok(())
    }
}

/// Zeros to write behind `end`: up to the end of its block, unless that is whole already or beyond the file.
fn padding(end: u64, whole_through: u64, file_bytes: u64) -> usize {
    let block_end = end.next_multiple_of(BLOCK_BYTES);
    if end <= whole_through || block_end > file_bytes { 0 } else { (block_end - end) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block is filled once, by the first write that ends in it, and never beyond the file.
    #[test]
    fn the_first_write_into_a_block_makes_it_whole() {
        let file_bytes = 3 * BLOCK_BYTES + 100;
        assert_eq!(padding(1, 0, file_bytes), 4095);
        assert_eq!(padding(4095, 4096, file_bytes), 0, "the same block again");
        assert_eq!(padding(4096, 4096, file_bytes), 0, "to its very end");
        assert_eq!(padding(4097, 4096, file_bytes), 4095, "into the next one");
        assert_eq!(padding(2 * 4096, 4096, file_bytes), 0, "a write that is whole by itself");
        assert_eq!(padding(3 * 4096 + 1, 3 * 4096, file_bytes), 0, "the last block is no whole one");
    }

    /// What lies behind the bytes stays what it was, and the file as long, whatever the sizes of the writes.
    /// Method: the same writes to a file of zeros with and without padding.
    #[test]
    fn padding_changes_no_byte_of_a_prepared_file() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let bytes_in_file = 3 * BLOCK_BYTES + 100;
        let path = folder.path().join("journal");
        std::fs::write(&path, vec![0; bytes_in_file as usize]).expect("a file can be prepared");
        let file = LoopFile::open(&path).expect("what was prepared can be opened");
        let mut journal = JournalFile { sequence: 1, bytes: bytes_in_file, whole_through: 0, file };
        let mut expected = vec![0; bytes_in_file as usize];
        let mut position = 0;
        for (value, len) in (1u8..).zip([100, 3996, 1, 5000, 3100, 90, 99, 2]) {
            let mut bytes = vec![value; len];
            expected[position..position + len].copy_from_slice(&bytes);
            journal.write(&mut bytes, position as u64).expect("a write that fits succeeds");
            position += len;
        }
        assert_eq!(std::fs::read(&path).expect("the file can be read"), expected);
    }
}
