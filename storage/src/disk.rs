//! The only door to files: what this crate asks of a disk, and two disks that answer.
//!
//! Owner: whoever opened the data directory; a handle is cheap to clone and stays on its thread.
//! Always: paths are relative to the data directory, parts separated by `/`; what was written is on the
//! device only after [`DiskFile::sync`], and a name is there after a power cut only after
//! [`Disk::sync_dir`] of its folder.
//! Not here: caching, retries, direct I/O. The server's disk over shard files brings its own alignment.
//! Read next: `disk/sim.rs` for the disk that tests cut, tear and fill; `disk/std_disk.rs` for the plain one.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

mod sim;
mod std_disk;

pub use sim::{Call, SECTOR_BYTES, SimDisk, SimFile, Times};
pub use std_disk::{StdDisk, StdFile};

/// Of [`Disk::create_zeroed`], in one request.
const ZEROS_STEP_BYTES: u64 = 1024 * 1024;

/// A data directory.
///
/// The futures are not `Send`: an executor is a thread's own.
pub trait Disk: Clone + 'static {
    /// An open file of this disk.
    type File: DiskFile;

    /// Opens an existing file to read and write.
    fn open(&self, path: &str) -> impl Future<Output = io::Result<Self::File>>;
    /// Makes an empty file in an existing folder; a file of that name is emptied.
    fn create(&self, path: &str) -> impl Future<Output = io::Result<Self::File>>;
    /// Makes a file of so many zeros, every one of them written and on the device, so that no later write grows it. A
    /// file of that name is replaced; after an error a part of it may be there.
    fn create_zeroed(&self, path: &str, bytes: u64) -> impl Future<Output = io::Result<()>> {
        async move {
            let file = self.create(path).await?;
            let zeros = vec![0; ZEROS_STEP_BYTES.min(bytes) as usize];
            let mut position = 0;
            while position < bytes {
                let step = ZEROS_STEP_BYTES.min(bytes - position) as usize;
                file.write_at(position, &zeros[..step]).await?;
                position += step as u64;
            }
            file.sync().await
        }
    }
    /// Gives a file one more name, in an existing folder, that no file has; both names are the same file.
    fn link(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;
    /// Gives a file another name, replacing a file that has it; whole or not at all.
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>>;
    /// Takes a file's name away.
    fn remove(&self, path: &str) -> impl Future<Output = io::Result<()>>;
    /// The names of files and folders in a folder (`""`: the data directory), sorted.
    fn list(&self, folder: &str) -> impl Future<Output = io::Result<Vec<String>>>;
    /// Makes a folder and those above it; one that is there already is no error.
    fn create_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>>;
    /// Makes durable which names a folder holds (`""`: the data directory).
    fn sync_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>>;
    /// Lets the thread's other work run if it is its turn. Long work between two requests asks now and then; a disk that
    /// has no executor beneath it has nobody to give way to.
    fn give_way(&self) -> impl Future<Output = ()> {
        async {}
    }
}

/// An open file.
// A file's size is asked of the disk and may fail; there is no use for an `is_empty` beside it.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile {
    /// The bytes from `position` on: `len` of them, fewer only where the file ends.
    fn read_at(&self, position: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>>;
    /// Writes all of `bytes` at `position`; after an error any part of them may be written.
    fn write_at(&self, position: u64, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;
    /// Returns once everything written before is on the device.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;
    /// Bytes in the file.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;
    /// Cuts the file to `len` bytes, or grows it with zeros.
    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>>;
}

/// Whether the disk has no room for us, by its size or by our quota: room can be made, and nothing is broken.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The output of a future that never waits, as those of [`StdDisk`] and [`SimDisk`] never do.
///
/// # Panics
/// If the future waits after all: then it is not over one of those disks.
pub fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future over a disk that is ready at once waited"),
    }
}

/// The folder a path lies in; `""` for the data directory itself.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Paths stay inside the data directory.
fn check_path(path: &str) -> io::Result<()> {
    let inside = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if inside && !path.contains('\\') {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} leaves the data directory")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn same_story<D: Disk>(disk: D) -> io::Result<()> {
        disk.create_dir("a/b").await?;
        disk.create_dir("a/b").await?;
        let file = disk.create("a/b/one").await?;
        file.write_at(3, b"later").await?;
        file.write_at(0, b"now").await?;
        file.sync().await?;
        assert_eq!(file.read_at(0, 100).await?, b"nowlater");
        assert_eq!(file.read_at(6, 1).await?, b"e");
        assert_eq!(file.read_at(50, 10).await?, b"");
        file.truncate(4).await?;
        file.truncate(6).await?;
        assert_eq!(file.len().await?, 6);
        disk.create("a/b/two").await?;
        assert_eq!(disk.list("a/b").await?, ["one", "two"]);
        disk.create_dir("a/c").await?;
        disk.link("a/b/one", "a/c/three").await?;
        let taken = disk.link("a/b/two", "a/c/three").await.err().map(|error| error.kind());
        assert_eq!(taken, Some(io::ErrorKind::AlreadyExists));
        disk.rename("a/b/one", "a/b/two").await?;
        assert_eq!(disk.open("a/c/three").await?.read_at(0, 100).await?, b"nowl\0\0");
        disk.sync_dir("a/b").await?;
        assert_eq!(disk.list("a/b").await?, ["two"]);
        assert_eq!(disk.list("").await?, ["a"]);
        assert_eq!(disk.list("a").await?, ["b", "c"]);
        let two = disk.open("a/b/two").await?;
        assert_eq!(two.read_at(0, 100).await?, b"nowl\0\0");
        disk.create_zeroed("a/b/two", 3 * 1024 * 1024 + 1).await?;
        let two = disk.open("a/b/two").await?;
        assert_eq!(
            (two.len().await?, two.read_at(3 * 1024 * 1024, 9).await?),
            (3 * 1024 * 1024 + 1, vec![0])
        );
        disk.remove("a/b/two").await?;
        let gone = disk.open("a/b/two").await.err().map(|error| error.kind());
        assert_eq!(gone, Some(io::ErrorKind::NotFound));
        let nowhere = disk.list("none").await.err().map(|error| error.kind());
        assert_eq!(nowhere, Some(io::ErrorKind::NotFound));
        for outside in ["../x", "/x", "a//x", "a/../../x"] {
            let refused = disk.create(outside).await.err().map(|error| error.kind());
            assert_eq!(refused, Some(io::ErrorKind::InvalidInput), "{outside}");
        }
        Ok(())
    }

    /// The simulated disk stands for the true one: one story, told to both, ends alike.
    #[test]
    fn the_simulated_disk_behaves_as_the_true_one() {
        let folder = tempfile::tempdir().unwrap();
        ready(same_story(StdDisk::new(folder.path()))).unwrap();
        ready(same_story(SimDisk::new(1))).unwrap();
    }
}
