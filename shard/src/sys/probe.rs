//! What this kernel's io_uring can do, found out by doing it on a ring of four entries.
#![allow(unsafe_code)] // a provided-buffer ring is registered by address

use io_uring::{IoUring, Probe};
use std::{alloc, io};

const ENTRIES: u32 = 4;
const FILES: u32 = 4;
const BUFFER_ENTRIES: u16 = 4;
const BUFFER_GROUP: u16 = 0;
/// The kernel wants a page's alignment; 64 KiB is the largest page of any Linux.
const BUFFER_RING_ALIGN: usize = 64 << 10;
/// Bytes of one entry of a provided-buffer ring.
const BUFFER_ENTRY_BYTES: usize = 16;

/// A ring without any flag, to tell a kernel that refuses rings from one that does not know our flags.
pub(crate) fn plain_ring() -> io::Result<IoUring> {
    IoUring::new(ENTRIES)
}

/// A ring with the flags of the I/O loops.
pub(crate) fn loop_ring() -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_submit_all().build(ENTRIES)
}

/// Which of `opcodes` the kernel does not know.
pub(crate) fn unknown_opcodes(ring: &IoUring, opcodes: &[u8]) -> io::Result<Vec<u8>> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    Ok(opcodes.iter().copied().filter(|opcode| !probe.is_supported(*opcode)).collect())
}

/// Registers a table of direct descriptors and takes it back.
pub(crate) fn try_sparse_files(ring: &IoUring) -> io::Result<()> {
    ring.submitter().register_files_sparse(FILES)?;
    ring.submitter().unregister_files()
}

/// Registers a ring of provided buffers and takes it back.
pub(crate) fn try_buffer_ring(ring: &IoUring) -> io::Result<()> {
    let bytes = BUFFER_ENTRY_BYTES * usize::from(BUFFER_ENTRIES);
    let layout = alloc::Layout::from_size_align(bytes.max(BUFFER_RING_ALIGN), BUFFER_RING_ALIGN)
        .expect("a power of two that divides its own size");
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    if memory.is_null() {
        alloc::handle_alloc_error(layout);
    }
    // SAFETY: the memory is zeroed, aligned, long enough, and stays until the registration is taken back below; no
    // request names the group, so the kernel never looks into it.
    let registered = unsafe {
        ring.submitter().register_buf_ring_with_flags(memory as u64, BUFFER_ENTRIES, BUFFER_GROUP, 0)
    };
    let result = registered.and_then(|()| ring.submitter().unregister_buf_ring(BUFFER_GROUP));
    // SAFETY: allocated above with this layout; the kernel has given it up, or never had it.
    unsafe { alloc::dealloc(memory, layout) };
    result
}
