//! Files of a data directory: for tasks of an executor, for an I/O loop, and the lock on the directory itself.
//!
//! Owner: an [`ExecutorFile`] belongs to the executor that opened it, a [`LoopFile`] to one loop, the
//! [`DirectoryLock`] to the main thread.
//! Always: paths are relative to the directory and cannot leave it; an error keeps its kind and names the file.
//! Not here: formats, caching, retries. Everything goes through the page cache but the zeros of a new file.
//! Read next: `file/loop_file.rs` for the journal's side, `file/zeros.rs` for new files of a known size,
//! `file/lock.rs` for the lock.
//!
//! Reads, writes and syncs are requests on the executor's own ring. What is rare and blocks (names, folders, lengths
//! cut) gets a thread of its own; io_uring would hand it to a worker thread, too.

mod lock;
mod loop_file;
mod zeros;

pub use lock::{DirectoryLock, LOCK_FILE_NAME, LockError};
pub use loop_file::LoopFile;

use crate::{executor::blocking, sys::descriptor};
use glommio::{
    GlommioError,
    io::{BufferedFile, OpenOptions},
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most bytes of one read or write request; longer ones are cut, so that memory for them stays bounded.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A data directory, seen from an executor. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<Path>,
}

impl Directory {
    /// The directory at `root`, which need not exist before its first file.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: Arc::from(root.into()) }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens an existing file to read and write.
    ///
    /// # Errors
    /// As the kernel says; `InvalidInput` for a path that leaves the directory.
    pub async fn open(&self, path: &str) -> io::Result<ExecutorFile> {
        self.open_with(path, OpenOptions::new().read(true).write(true)).await
    }

    /// Makes an empty file in an existing folder; a file of that name is emptied.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn create(&self, path: &str) -> io::Result<ExecutorFile> {
        self.open_with(path, OpenOptions::new().read(true).write(true).create(true).truncate(true)).await
    }

    async fn open_with(&self, path: &str, options: &OpenOptions) -> io::Result<ExecutorFile> {
        let file = options.buffered_open(self.inside(path)?).await.map_err(io_error)?;
        Ok(ExecutorFile { file })
    }

    /// Makes a file of so many zeros in an existing folder, every one of them written and on the device; a file of
    /// that name is emptied first. After an error a part of it may be there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn create_zeroed(&self, path: &str, bytes: u64) -> io::Result<()> {
        let file = self.create(path).await?;
        zeros::fill(&self.inside(path)?, &file, bytes).await?;
        file.sync().await
    }

    /// Gives a file one more name, in an existing folder, that no file has. Durable after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.inside(from)?, self.inside(to)?);
        blocking(move || fs::hard_link(&from, &to).map_err(|error| named("linking", &from, error))).await?
    }

    /// Gives a file another name, replacing a file that has it, whole or not at all. Durable after
    /// [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.inside(from)?, self.inside(to)?);
        blocking(move || fs::rename(&from, &to).map_err(|error| named("renaming", &from, error))).await?
    }

    /// Takes a file's name away.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.inside(path)?;
        blocking(move || fs::remove_file(&path).map_err(|error| named("removing", &path, error))).await?
    }

    /// Names of the files and folders in a folder (`""` for the directory itself), sorted. Names that are not UTF-8
    /// are none of ours and left out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let folder = self.inside(folder)?;
        blocking(move || list_names(&folder).map_err(|error| named("listing", &folder, error))).await?
    }

    /// Makes a folder and those above it; one that is there already is no error.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn create_dir(&self, folder: &str) -> io::Result<()> {
        let folder = self.inside(folder)?;
        blocking(move || fs::create_dir_all(&folder).map_err(|error| named("making", &folder, error))).await?
    }

    /// Makes durable which names a folder holds (`""` for the directory itself).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let folder = self.inside(folder)?;
        // A whole fsync and not fdatasync: ext4 counts a new name as data of the folder only when the folder grew.
        let sync = |folder: &Path| File::open(folder)?.sync_all();
        blocking(move || sync(&folder).map_err(|error| named("syncing", &folder, error))).await?
    }

    fn inside(&self, path: &str) -> io::Result<PathBuf> {
        let leaves = path.split('/').any(|part| matches!(part, "" | "." | ".."));
        if leaves && !path.is_empty() {
            let text = format!("{path:?} leaves the data directory");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.root.join(path))
    }
}

fn list_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// An open file of an executor. Dropped, it is closed by the executor's next turn.
#[derive(Debug)]
pub struct ExecutorFile {
    file: BufferedFile,
}

impl ExecutorFile {
    /// The bytes from `position` on: `len` of them, fewer only where the file ends.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len.min(REQUEST_BYTES_MAX));
        while bytes.len() < len {
            let wanted = (len - bytes.len()).min(REQUEST_BYTES_MAX);
            let got = self.file.read_at(position + bytes.len() as u64, wanted).await.map_err(io_error)?;
            if got.is_empty() {
                break;
            }
            bytes.extend_from_slice(&got);
        }
        Ok(bytes)
    }

    /// Writes all of `bytes` at `position`; after an error any part of them may be written.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..bytes.len().min(written + REQUEST_BYTES_MAX)];
            let count =
                self.file.write_at(rest.to_vec(), position + written as u64).await.map_err(io_error)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the file takes no more bytes"));
            }
            written += count;
        }
        Ok(())
    }

    /// Returns once everything written before is on the device (fdatasync).
    ///
    /// # Errors
    /// As the kernel says; what was written since the last sync may then be lost, and a later sync does not mend it.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io_error)
    }

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn len(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(io_error)
    }

    /// Whether the file is empty.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Cuts the file to `len` bytes, or grows it with zeros.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        let file = descriptor::std_file(&self.file)?;
        blocking(move || file.set_len(len)).await?
    }
}

/// Keeps the kind, by which callers tell a full disk from a broken one, and says what was being done to which file.
fn io_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, op, path: Some(path), .. } => named(op, &path, source),
        error => error.into(),
    }
}

fn named(act: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{act} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::tests::on_executor;

    /// Method: the story that `storage` tells to every disk, so the server's adapter has nothing to add.
    #[test]
    fn a_directory_keeps_what_a_disk_promises() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        on_executor(|| async move {
            let disk = Directory::new(root);
            disk.create_dir("a/b").await.unwrap();
            disk.create_dir("a/b").await.unwrap();
            let file = disk.create("a/b/one").await.unwrap();
            assert!(file.is_empty().await.unwrap());
            file.write_at(3, b"later").await.unwrap();
            file.write_at(0, b"now").await.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.read_at(0, 100).await.unwrap(), b"nowlater");
            assert_eq!(file.read_at(6, 1).await.unwrap(), b"e");
            assert_eq!(file.read_at(50, 10).await.unwrap(), b"");
            file.truncate(4).await.unwrap();
            file.truncate(6).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 6);
            disk.create("a/b/two").await.unwrap();
            assert_eq!(disk.list("a/b").await.unwrap(), ["one", "two"]);
            disk.create_dir("a/c").await.unwrap();
            disk.link("a/b/one", "a/c/three").await.unwrap();
            let taken = disk.link("a/b/two", "a/c/three").await.unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            disk.rename("a/b/one", "a/b/two").await.unwrap();
            assert_eq!(disk.open("a/c/three").await.unwrap().len().await.unwrap(), 6);
            disk.sync_dir("a/b").await.unwrap();
            disk.sync_dir("").await.unwrap();
            assert_eq!(disk.list("a/b").await.unwrap(), ["two"]);
            assert_eq!(disk.list("").await.unwrap(), ["a"]);
            let two = disk.open("a/b/two").await.unwrap();
            assert_eq!(two.read_at(0, 100).await.unwrap(), b"nowl\0\0");
            disk.create_zeroed("a/b/two", 9).await.unwrap();
            assert_eq!(two.read_at(0, 100).await.unwrap(), [0; 9]);
            assert_eq!(disk.create("a/b/two").await.unwrap().len().await.unwrap(), 0);
            disk.remove("a/b/two").await.unwrap();
            assert!(disk.list("a/b").await.unwrap().is_empty());
        });
    }

    #[test]
    fn errors_keep_their_kind_and_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        on_executor(|| async move {
            let disk = Directory::new(root);
            for error in [
                disk.open("gone").await.err(),
                disk.remove("gone").await.err(),
                disk.rename("gone", "there").await.err(),
                disk.list("gone").await.err(),
                disk.sync_dir("gone").await.err(),
            ] {
                let error = error.unwrap();
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
                assert!(error.to_string().contains("gone"), "{error}");
            }
            for outside in ["../x", "/x", "a//x", "a/../../x", "./x"] {
                let error = disk.create(outside).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{outside}");
            }
        });
    }

    #[test]
    fn a_full_disk_is_told_by_its_kind() {
        let error = on_executor(|| async {
            let disk = Directory::new("/dev");
            disk.open("full").await.unwrap().write_at(0, b"x").await.unwrap_err()
        });
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    }

    /// Longer than one request, and not a multiple of it.
    #[test]
    fn long_reads_and_writes_are_cut_and_joined() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_path_buf();
        on_executor(|| async move {
            let disk = Directory::new(root);
            let file = disk.create("long").await.unwrap();
            let bytes: Vec<u8> = (0..2 * REQUEST_BYTES_MAX + 12_345).map(|i| (i % 251) as u8).collect();
            file.write_at(7, &bytes).await.unwrap();
            assert_eq!(file.len().await.unwrap(), 7 + bytes.len() as u64);
            assert!(file.read_at(7, bytes.len() + 99).await.unwrap() == bytes);
            assert!(file.read_at(7, REQUEST_BYTES_MAX + 1).await.unwrap() == bytes[..REQUEST_BYTES_MAX + 1]);
        });
    }
}
