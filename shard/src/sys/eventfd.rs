//! A counter in the kernel that a thread, a ring or an executor can wait for.
#![allow(unsafe_code)] // system calls, and descriptors that change owner

use glommio::io::BufferedFile;
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

/// An eventfd in blocking mode: io_uring answers a read of a non-blocking one with EAGAIN instead of waiting.
#[derive(Debug)]
pub(crate) struct EventFd {
    file: File,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer goes in.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { file: File::from(fd) })
    }

    /// Adds one and wakes whoever waits.
    pub(crate) fn write(&self) {
        // It could only wait at 2^64 - 2 unread writes, and only fail on a descriptor that is not ours.
        (&self.file).write_all(&1u64.to_ne_bytes()).expect("an eventfd takes eight bytes");
    }

    /// Waits for the counter to be above zero and takes it back to zero.
    pub(crate) fn read(&self) {
        (&self.file).read_exact(&mut [0; 8]).expect("an eventfd gives eight bytes");
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A descriptor of its own for `fd`, as a file of this thread's executor, which closes it.
///
/// # Panics
/// Outside an executor.
pub(crate) fn executor_file(fd: BorrowedFd<'_>) -> io::Result<BufferedFile> {
    let fd = fd.try_clone_to_owned()?;
    // SAFETY: the duplicate is owned here and given away whole.
    let file = unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) };
    debug_assert!(file.as_raw_fd() >= 0);
    Ok(file)
}
