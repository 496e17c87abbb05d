//! Descriptors that go from std to the executor and back; each side closes its own.
#![allow(unsafe_code)] // glommio knows descriptors by number

use glommio::io::BufferedFile;
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd},
};

/// A duplicate of `fd` as a file of this thread's executor, which closes it.
///
/// # Panics
/// Outside an executor.
pub(crate) fn executor_file(fd: BorrowedFd<'_>) -> io::Result<BufferedFile> {
    let fd = fd.try_clone_to_owned()?;
    // SAFETY: the duplicate is owned here and given away whole.
    Ok(unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) })
}

/// A duplicate of an executor's file for std, which closes it.
pub(crate) fn std_file(file: &BufferedFile) -> io::Result<File> {
    // SAFETY: the file keeps its descriptor open while it is borrowed here.
    let fd = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    Ok(fd.try_clone_to_owned()?.into())
}
