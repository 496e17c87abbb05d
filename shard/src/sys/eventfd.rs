//! A counter in the kernel that a thread, a ring or an executor can wait for.
#![allow(unsafe_code)] // system calls, and descriptors that change owner

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// An eventfd in blocking mode: io_uring answers a read of a non-blocking one with EAGAIN instead of waiting.
#[derive(Debug)]
pub(crate) struct EventFd {
    file: File,
}

impl EventFd {
    /// A counter at zero.
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_flags(libc::EFD_CLOEXEC)
    }

    /// A counter that every read finds above zero: it starts at 2^62 and a read takes one.
    pub(crate) fn always_ready() -> io::Result<Self> {
        let ready = Self::with_flags(libc::EFD_CLOEXEC | libc::EFD_SEMAPHORE)?;
        (&ready.file).write_all(&(1u64 << 62).to_ne_bytes())?;
        Ok(ready)
    }

    fn with_flags(flags: i32) -> io::Result<Self> {
        // SAFETY: no pointer goes in.
        let fd = unsafe { libc::eventfd(0, flags) };
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
