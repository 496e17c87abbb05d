//! A disk that takes everything and keeps nothing, for benches in which the journal's bytes are not the matter.

use std::cell::Cell;
use std::future::{Future, ready as at_once};
use std::io;
use storage::disk::{Disk, DiskFile};

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct Nowhere;

/// A file there; it knows how long it is.
pub(crate) struct NoFile(Cell<u64>);

impl Disk for Nowhere {
    type File = NoFile;

    fn open(&self, _: &str) -> impl Future<Output = io::Result<NoFile>> {
        at_once(Ok(NoFile(Cell::new(0))))
    }

    fn create(&self, _: &str) -> impl Future<Output = io::Result<NoFile>> {
        at_once(Ok(NoFile(Cell::new(0))))
    }

    fn create_zeroed(&self, _: &str, _: u64) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn rename(&self, _: &str, _: &str) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn link(&self, _: &str, _: &str) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn remove(&self, _: &str) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn list(&self, _: &str) -> impl Future<Output = io::Result<Vec<String>>> {
        at_once(Ok(Vec::new()))
    }

    fn create_dir(&self, _: &str) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn sync_dir(&self, _: &str) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }
}

impl DiskFile for NoFile {
    fn read_at(&self, _: u64, _: usize) -> impl Future<Output = io::Result<Vec<u8>>> {
        at_once(Ok(Vec::new()))
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> impl Future<Output = io::Result<()>> {
        self.0.set(self.0.get().max(position + bytes.len() as u64));
        at_once(Ok(()))
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        at_once(Ok(()))
    }

    fn len(&self) -> impl Future<Output = io::Result<u64>> {
        at_once(Ok(self.0.get()))
    }

    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>> {
        self.0.set(len);
        at_once(Ok(()))
    }
}
