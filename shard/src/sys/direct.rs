//! Files that are written past the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens an existing file so that what is written goes from the writer's memory to the device. Positions, lengths and the
/// memory itself must be aligned as the device wants it, at most to a page.
///
/// # Errors
/// `InvalidInput` where the file system has no such way.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)
}
