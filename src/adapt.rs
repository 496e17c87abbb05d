//! `storage::Disk` over the shard's files: where two rooms that do not know each other meet.

use shard::executor;
use shard::file::{Directory, ExecutorFile, LoopFile};
use std::io;
use storage::disk::{Disk, DiskFile};

/// The data directory, seen from one executor.
#[derive(Clone)]
pub struct ShardDisk(Directory);

impl ShardDisk {
    /// The directory at that path.
    pub fn new(directory: Directory) -> ShardDisk {
        ShardDisk(directory)
    }

    /// A prepared journal file, for the loop that will write it.
    pub fn loop_file(&self, path: &str) -> io::Result<LoopFile> {
        LoopFile::open(&self.0.root().join(path))
    }
}

/// An open file of a [`ShardDisk`].
pub struct ShardFile(ExecutorFile);

impl Disk for ShardDisk {
    type File = ShardFile;

    async fn open(&self, path: &str) -> io::Result<ShardFile> {
        self.0.open(path).await.map(ShardFile)
    }

    async fn create(&self, path: &str) -> io::Result<ShardFile> {
        self.0.create(path).await.map(ShardFile)
    }

    async fn create_zeroed(&self, path: &str, bytes: u64) -> io::Result<()> {
        self.0.create_zeroed(path, bytes).await
    }

    async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to).await
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to).await
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path).await
    }

    async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder).await
    }

    async fn create_dir(&self, folder: &str) -> io::Result<()> {
        self.0.create_dir(folder).await
    }

    async fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.0.sync_dir(folder).await
    }

    async fn give_way(&self) {
        executor::yield_if_needed().await;
    }
}

impl DiskFile for ShardFile {
    async fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(position, len).await
    }

    async fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(position, bytes).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync().await
    }

    async fn len(&self) -> io::Result<u64> {
        self.0.len().await
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len).await
    }
}
