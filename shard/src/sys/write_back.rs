//! Asking the kernel to begin writing dirty pages.
#![allow(unsafe_code)] // sync_file_range

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Starts writing the dirty pages of a range to the device and does not wait. It makes nothing durable: neither the
/// file's length nor the device's cache is touched.
pub(crate) fn start(fd: BorrowedFd<'_>, position: u64, len: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::new(io::ErrorKind::InvalidInput, "a file range beyond 2^63");
    let position = i64::try_from(position).map_err(out_of_range)?;
    let len = i64::try_from(len).map_err(out_of_range)?;
    // SAFETY: no pointer goes in, and the descriptor is borrowed for the call.
    if unsafe { libc::sync_file_range(fd.as_raw_fd(), position, len, libc::SYNC_FILE_RANGE_WRITE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
