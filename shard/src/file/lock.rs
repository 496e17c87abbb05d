//! One process for a data directory.
//!
//! Two servers that share a port split its load in silence, and two that share a directory destroy it. The lock is
//! the kernel's (flock): it goes with the process, however it ends, and the file that carries it stays behind.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    process,
};

/// Name of the file in the data directory that carries the lock and the holder's process id.
pub const LOCK_FILE_NAME: &str = "LOCK";

/// Longest process id that is read back; the kernel's have at most seven digits.
const PID_BYTES_MAX: u64 = 16;

/// The data directory is ours for as long as this lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why the directory is not ours.
#[derive(Debug)]
pub enum LockError {
    /// Another process, or another part of this one, has it.
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who says to have it; none if the file does not tell.
        held_by_pid: Option<u32>,
    },
    /// The lock file cannot be opened, locked or written.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, held_by_pid: Some(pid) } => write!(
                f,
                "process {pid} already uses this data directory ({} is locked); stop it, or choose another with \
                 --set data_dir=…",
                path.display()
            ),
            Self::Held { path, held_by_pid: None } => write!(
                f,
                "another process already uses this data directory ({0} is locked); find it with `fuser {0}`, or choose \
                 another with --set data_dir=…",
                path.display()
            ),
            Self::Io { path, error } => {
                write!(
                    f,
                    "cannot lock the data directory ({}): {error}; make it writable, or choose another with --set \
                     data_dir=…",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io { error, .. } => Some(error),
        }
    }
}

impl DirectoryLock {
    /// Locks the existing directory at `directory` without waiting.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE_NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return Err(LockError::Io { path, error }),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { held_by_pid: read_pid(&file), path });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io { path, error }),
        }
        match write_pid(&mut file) {
            Ok(()) => Ok(Self { _file: file }),
            // The number only helps to find the holder; a full disk is no reason not to hold it.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Ok(Self { _file: file })
            }
            Err(error) => Err(LockError::Io { path, error }),
        }
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_second_to_come_is_told_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(folder.path()).unwrap();
        let error = DirectoryLock::acquire(folder.path()).unwrap_err();
        let LockError::Held { held_by_pid, path } = &error else { panic!("{error}") };
        assert_eq!((*held_by_pid, path), (Some(process::id()), &folder.path().join("LOCK")));
        assert!(error.to_string().contains(&format!("process {} already uses", process::id())), "{error}");
        drop(first);
        DirectoryLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn a_lock_file_left_behind_by_a_killed_server_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOCK_FILE_NAME), "4194304 and more").unwrap();
        let _lock = DirectoryLock::acquire(folder.path()).unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join(LOCK_FILE_NAME)).unwrap(),
            format!("{}\n", process::id())
        );
    }

    #[test]
    fn a_holder_that_does_not_tell_is_still_a_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOCK_FILE_NAME);
        fs::write(&path, "nobody").unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        let error = DirectoryLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { held_by_pid: None, .. }));
        assert!(error.to_string().contains("fuser"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = DirectoryLock::acquire(&folder.path().join("none")).unwrap_err();
        assert!(matches!(&error, LockError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound));
        assert!(error.to_string().contains("none/LOCK"), "{error}");
    }
}
