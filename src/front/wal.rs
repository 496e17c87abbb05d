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

/// The journal of one loop.
pub struct Wal {
    /// What stands in the frames, and in which order things happen.
    pub writer: Writer,
    files: VecDeque<(u64, LoopFile)>,
    sync_in_flight: Option<Sync>,
    written_back: JournalPosition,
    /// Why there is no next file, while there is none.
    pub file_refused: Option<io::Error>,
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
        }
    }

    /// Takes the file that an executor prepared, or the reason why it could not.
    pub fn take_file(&mut self, prepared: io::Result<(PreparedFile, LoopFile)>) {
        match prepared {
            Ok((prepared, file)) => {
                self.files.push_back((prepared.sequence(), file));
                self.writer.install(prepared);
                self.file_refused = None;
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

    /// Hands all sealed frames to the kernel, in one write per file.
    pub fn write(&mut self, counters: &FrontCounters) -> Result<(), WalFailed> {
        while let Some(mut write) = self.writer.next_write() {
            let (sequence, position) = (write.sequence, write.position);
            let bytes = std::mem::take(&mut write.bytes);
            let written = file_of(&self.files, sequence).write_all_at(&bytes, position);
            let len = bytes.len() as u64;
            write.bytes = bytes;
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
            let file = file_of(&self.files, sequence);
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
        net.sync_data(file_of(&self.files, sync.sequence), sync.sequence);
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
        self.files.retain(|(sequence, _)| *sequence >= synced_through.sequence);
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

fn file_of(files: &VecDeque<(u64, LoopFile)>, sequence: u64) -> &LoopFile {
    let (_, file) = files
        .iter()
        .find(|(of, _)| *of == sequence)
        .expect("the writer names only files that were installed and are not yet synced");
    file
}
