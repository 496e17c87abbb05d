//! Receive buffers: the memory that one ring lends to the kernel and the loop lends to its reader.
//!
//! Owner: one `Net`, on its thread. A buffer belongs to the kernel, or to the one `RecvBuf` that names it, never
//! to both: that is the whole safety of this file.
//! Always: `give_back` only writes an entry; the kernel sees it at `publish`, one release store for as many as
//! have come back.
//! Not here: which connection a buffer's bytes came from (`net/receive.rs`), and the system calls (`sys/uring.rs`).
#![expect(
    unsafe_code,
    reason = "memory shared with the kernel: the provided-buffer ring and what it points at"
)]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;

/// What the kernel asks of the entry array's alignment.
const PAGE_BYTES: usize = 4096;

/// The most buffers that a ring may hold: the kernel's own bound.
pub(crate) const RECV_BUFFERS_MAX: u16 = 1 << 15;

/// Received bytes, held until they are released. Dropping one without release loses its buffer for good, so the
/// type is neither `Clone` nor silent about being unused.
#[must_use = "a buffer that is not released is lost to the ring"]
#[derive(Debug)]
pub struct RecvBuf {
    id: u16,
    /// The ring it belongs to, so that another ring's memory can never be reached through it.
    owner: u32,
    len: u32,
}

impl RecvBuf {
    /// Bytes received into it; never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty receive is the end of the stream, not a buffer"
    )]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

/// The buffers and the array through which they are handed to the kernel.
pub(crate) struct RecvBufs {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    count: u16,
    buffer_bytes: u32,
    owner: u32,
    /// Where the next entry goes; runs freely and is masked on use.
    tail: u16,
    published: u16,
    /// Buffers that the kernel does not have.
    held: u16,
}

impl RecvBufs {
    /// `count` (a power of two, at most [`RECV_BUFFERS_MAX`]) buffers of `buffer_bytes` each, all of them on the
    /// kernel's side once the array is registered. Pages are touched only as the kernel fills them.
    pub(crate) fn new(count: u16, buffer_bytes: u32) -> io::Result<RecvBufs> {
        if !count.is_power_of_two() || count > RECV_BUFFERS_MAX || buffer_bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (entries_layout, bytes_layout) = layouts(count, buffer_bytes)?;
        // SAFETY: neither layout has size 0 (checked above); zeroed entries are valid, being plain integers.
        let (entries, bytes) = unsafe { (alloc_zeroed(entries_layout), alloc(bytes_layout)) };
        let (Some(entries), Some(bytes)) =
            (NonNull::new(entries.cast::<BufRingEntry>()), NonNull::new(bytes))
        else {
            // SAFETY: what is not null came from the allocator above with this very layout.
            unsafe {
                if !entries.is_null() {
                    dealloc(entries, entries_layout);
                }
                if !bytes.is_null() {
                    dealloc(bytes, bytes_layout);
                }
            }
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        static OWNERS: AtomicU32 = AtomicU32::new(0);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        let mut bufs =
            RecvBufs { entries, bytes, count, buffer_bytes, owner, tail: 0, published: 0, held: count };
        for id in 0..count {
            bufs.give_back(RecvBuf { id, owner, len: 0 });
        }
        bufs.publish();
        Ok(bufs)
    }

    /// Where the entry array lies, for its registration.
    pub(crate) fn entries_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Buffers that the kernel may fill, as far as the completions seen so far tell.
    pub(crate) fn available(&self) -> u16 {
        self.count - self.held
    }

    /// Takes over a buffer that the kernel reported as filled with `len` bytes; `None` for one it never had.
    ///
    /// # Safety
    /// A completion must just have handed over this buffer, and each completion counts once.
    pub(crate) unsafe fn take_over(&mut self, id: u16, len: u32) -> Option<RecvBuf> {
        if id >= self.count || len > self.buffer_bytes || self.held == self.count {
            return None;
        }
        self.held += 1;
        Some(RecvBuf { id, owner: self.owner, len })
    }

    /// The received bytes, writable, so that a decoder may work in place.
    ///
    /// # Panics
    /// When the buffer belongs to another ring: a bug of the caller.
    pub(crate) fn bytes(&mut self, buf: &RecvBuf) -> &mut [u8] {
        assert_eq!(buf.owner, self.owner, "a receive buffer of another ring");
        // SAFETY: the offset lies inside the allocation (id < count, len <= buffer_bytes, checked in take_over);
        // the kernel wrote `len` bytes there and gave the buffer up; `&mut self` keeps a second slice away.
        unsafe {
            let start = self.bytes.as_ptr().add(buf.id as usize * self.buffer_bytes as usize);
            std::slice::from_raw_parts_mut(start, buf.len as usize)
        }
    }

    /// Writes the buffer's entry; the kernel gets it with the next [`Self::publish`].
    ///
    /// # Panics
    /// When the buffer belongs to another ring: a bug of the caller.
    pub(crate) fn give_back(&mut self, buf: RecvBuf) {
        assert_eq!(buf.owner, self.owner, "a receive buffer of another ring");
        let slot = (self.tail & (self.count - 1)) as usize;
        // SAFETY: slot < count, inside the array. The kernel reads only entries below the published tail, and at
        // most `count` buffers exist, so this entry is behind what it may still read. The entry's last two bytes
        // are the shared tail when slot is 0; set_addr, set_len and set_bid leave them alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            let start = self.bytes.as_ptr().add(buf.id as usize * self.buffer_bytes as usize);
            entry.set_addr(start as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buf.id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Shows the kernel everything given back since the last call.
    pub(crate) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the first entry of the registered array holds the tail, aligned to two bytes, alive as long as
        // self; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RecvBufs {
    fn drop(&mut self) {
        if let Ok((entries_layout, bytes_layout)) = layouts(self.count, self.buffer_bytes) {
            // SAFETY: both came from `new` with these layouts. The ring drops this only after the kernel has let
            // go of every receive (sys/uring.rs, Drop).
            unsafe {
                dealloc(self.entries.as_ptr().cast(), entries_layout);
                dealloc(self.bytes.as_ptr(), bytes_layout);
            }
        }
    }
}

fn layouts(count: u16, buffer_bytes: u32) -> io::Result<(Layout, Layout)> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let entries =
        Layout::from_size_align(count as usize * size_of::<BufRingEntry>(), PAGE_BYTES).map_err(too_large)?;
    let bytes = (count as usize)
        .checked_mul(buffer_bytes as usize)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok((entries, Layout::from_size_align(bytes, PAGE_BYTES).map_err(too_large)?))
}
