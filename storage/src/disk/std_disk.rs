//! A data directory on the machine's own file system, for tests and tools on any OS: every call blocks.

use super::{Disk, DiskFile, check_path};
use std::fs::{self, File, OpenOptions};
use std::future::{Future, ready};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A folder of the machine's file system. Its futures are ready at once.
#[derive(Clone, Debug)]
pub struct StdDisk {
    root: Rc<Path>,
}

/// An open file of a [`StdDisk`].
#[derive(Debug)]
pub struct StdFile(File);

impl StdDisk {
    /// The data directory at `root`, which must exist.
    pub fn new(root: &Path) -> StdDisk {
        StdDisk { root: root.into() }
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(if path.is_empty() { self.root.to_path_buf() } else { self.root.join(path) })
    }
}

impl Disk for StdDisk {
    type File = StdFile;

    fn open(&self, path: &str) -> impl Future<Output = io::Result<StdFile>> {
        let open = || Ok(StdFile(OpenOptions::new().read(true).write(true).open(self.path(path)?)?));
        ready(open())
    }

    fn create(&self, path: &str) -> impl Future<Output = io::Result<StdFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        ready(self.path(path).and_then(|path| options.open(path)).map(StdFile))
    }

    fn link(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        let link = || fs::hard_link(self.path(from)?, self.path(to)?);
        ready(link())
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> {
        let rename = || fs::rename(self.path(from)?, self.path(to)?);
        ready(rename())
    }

    fn remove(&self, path: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.path(path).and_then(fs::remove_file))
    }

    fn list(&self, folder: &str) -> impl Future<Output = io::Result<Vec<String>>> {
        let list = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(self.path(folder)?)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort_unstable();
            Ok(names)
        };
        ready(list())
    }

    fn create_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>> {
        ready(self.path(folder).and_then(fs::create_dir_all))
    }

    fn sync_dir(&self, folder: &str) -> impl Future<Output = io::Result<()>> {
        let sync = || {
            let path = self.path(folder)?;
            // Windows opens no folder as a file, and its file system keeps names without being asked.
            if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }
        };
        ready(sync())
    }
}

// Positions by seek, not by the unix call: a file has one thread, and this disk is not on a hot way.
impl DiskFile for StdFile {
    fn read_at(&self, position: u64, len: usize) -> impl Future<Output = io::Result<Vec<u8>>> {
        let read = || {
            let mut file = &self.0;
            file.seek(SeekFrom::Start(position))?;
            let mut bytes = Vec::with_capacity(len);
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        ready(read())
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> impl Future<Output = io::Result<()>> {
        let write = || {
            let mut file = &self.0;
            file.seek(SeekFrom::Start(position))?;
            file.write_all(bytes)
        };
        ready(write())
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        ready(self.0.sync_data())
    }

    fn len(&self) -> impl Future<Output = io::Result<u64>> {
        ready(self.0.metadata().map(|metadata| metadata.len()))
    }

    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>> {
        ready(self.0.set_len(len))
    }
}
