//! One io_uring ring and every byte that the kernel may read or write on its behalf.
//!
//! Owner: one `Net`, on the thread that created it (SINGLE_ISSUER).
//! Always: an operation's memory lives in `Lent` from its submission to its last completion. Nobody else can free,
//! move or write it in between, so the interface is safe to call in any order; a wrong order costs a wrong answer,
//! never memory. With DEFER_TASKRUN the kernel touches this memory only inside our own enters.
//! Not here: what a connection is. A `ConnId` goes out with an operation and comes back with its completion.
//! Read next: `net.rs`, which gives the operations their meaning.
//!
//! The output arena is the one unusual thing. A send out of it must be over when the enter that submits it returns,
//! because the arena is then written anew. Three facts of the kernel give that: a request that is neither linked,
//! drained nor forced async is executed inline at submission; MSG_DONTWAIT marks it REQ_F_NOWAIT, so it fails with
//! EAGAIN where another would wait for the socket; and MSG_WAITALL makes a short count a failure too, so that
//! CQE_SKIP_SUCCESS hides only sends that are complete, and a short one reports how far it got.
#![expect(unsafe_code, reason = "the submission queue takes raw pointers; each is to memory of `Lent`")]

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::socket::KernelAddr;
use crate::buf::{RecvBuf, RecvBufs};
use crate::net::ConnId;

/// The one group of provided buffers that a ring has.
const BUFFER_GROUP: u16 = 0;
/// Connection slots that fit beside an operation's code in `user_data`.
pub(crate) const SLOTS_MAX: u32 = 1 << 28;
/// How long the end of a ring waits for the kernel to let go of its memory before that memory is left behind.
const LET_GO: Duration = Duration::from_secs(1);
const ENTER_GETEVENTS: u32 = 1;

// The codes of `user_data`: four bits of operation, 28 of slot or index, 32 of generation or key.
const IGNORED: u64 = 0;
const ACCEPT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;
const SHUTDOWN: u64 = 4;
const WAKE: u64 = 5;
const OWNED: u64 = 6;

fn user_data(operation: u64, index: u32, low: u32) -> u64 {
    operation << 60 | u64::from(index) << 32 | u64::from(low)
}

fn of_conn(operation: u64, conn: ConnId) -> u64 {
    user_data(operation, conn.index, conn.generation)
}

/// What `enter` waits for.
pub(crate) enum Patience {
    /// Look, do not wait.
    No,
    /// One completion, however long it takes.
    Forever,
    /// One completion, or this long.
    For(Duration),
    /// So many completions, or those that there are once `bound` has passed, or one, or `time`.
    ForSeveral { events: u32, bound: Duration, time: Duration },
}

/// Which step of building a ring the kernel refused.
pub(crate) enum Refused {
    Ring(io::Error),
    FileTable(io::Error),
    Buffers(io::Error),
}

/// What a ring is made of; the meaning of each is told at `NetConfig`.
pub(crate) struct RingSize {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) slots: u32,
    pub(crate) accepts: u16,
    pub(crate) recv_buffers: u16,
    pub(crate) recv_buffer_bytes: u32,
    pub(crate) arena_bytes: usize,
}

/// How an accept ended.
pub(crate) enum Accepted {
    Peer(SocketAddr),
    /// The peer gave up before it was accepted, or a signal came: try again at once.
    Retry,
    Cancelled,
    /// No descriptor or no memory, or the listener is broken: trying again at once would spin.
    Exhausted(io::Error),
}

/// What a receive brought.
pub(crate) enum Received {
    Bytes(RecvBuf),
    EndOfStream,
    BuffersExhausted,
    Cancelled,
    Failed(io::Error),
}

/// An operation's news.
pub(crate) enum Completion {
    Accepted {
        accept: u16,
        slot: u32,
        outcome: Accepted,
    },
    Connected {
        conn: ConnId,
        result: io::Result<()>,
    },
    /// `armed`: the multishot goes on; otherwise this was its last word.
    Received {
        conn: ConnId,
        outcome: Received,
        armed: bool,
    },
    /// A send out of the arena that was not complete: how many bytes went, or why none can.
    ArenaShort {
        conn: ConnId,
        result: io::Result<usize>,
    },
    /// A send of its own buffer ended, perhaps early.
    Sent {
        conn: ConnId,
        bytes: Vec<u8>,
        result: io::Result<usize>,
    },
    Shutdown {
        conn: ConnId,
        is_done: bool,
    },
    /// How many bytes were read.
    Woken(io::Result<usize>),
    Synced {
        token: u64,
        result: io::Result<()>,
    },
}

struct Accept {
    addr: UnsafeCell<KernelAddr>,
    slot: u32,
    armed: bool,
}

/// Memory (or a token) that belongs to one operation in flight.
enum Owned {
    Free,
    Send(ConnId, Vec<u8>),
    Connect(ConnId, #[expect(dead_code, reason = "held for the kernel")] Box<KernelAddr>),
    Sync(u64),
}

/// Everything that the kernel may touch; each piece has a heap address of its own that moving `Lent` keeps.
struct Lent {
    bufs: RecvBufs,
    arena: Vec<u8>,
    accepts: Box<[Accept]>,
    owned: Vec<Owned>,
    wake: Option<(OwnedFd, Box<UnsafeCell<u64>>)>,
    listener: Option<OwnedFd>,
}

/// Whether the arena may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arena {
    Open,
    /// An entry that points into it may be queued still.
    Queued,
    /// The kernel has taken every entry; failures may be unread.
    Taken,
}

pub(crate) struct Ring {
    uring: IoUring,
    lent: ManuallyDrop<Lent>,
    owned_free: Vec<u32>,
    /// Entries that found no place because the kernel took none: first in, first out, ahead of every later one.
    backlog: VecDeque<Entry>,
    arena_bytes: usize,
    arena: Arena,
    /// The last enter left nothing queued.
    taken: bool,
    /// The completion queue was read to its end after the last enter.
    drained: bool,
    /// Operations that refer to `lent` (sends out of the arena apart).
    in_flight: usize,
    pub(crate) enters: u64,
    /// Enters made only because the submission queue was full.
    pub(crate) enters_extra: u64,
    pub(crate) completions: u64,
    pub(crate) overflows: u64,
}

impl Ring {
    pub(crate) fn new(size: &RingSize) -> Result<Ring, Refused> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(size.completions)
            .build(size.submissions)
            .map_err(Refused::Ring)?;
        uring.submitter().register_files_sparse(size.slots).map_err(Refused::FileTable)?;
        let bufs = RecvBufs::new(size.recv_buffers, size.recv_buffer_bytes).map_err(Refused::Buffers)?;
        // SAFETY: the array is page-aligned, holds `count` entries, and lives in `lent`, which is dropped only
        // after it was unregistered.
        unsafe {
            let (address, count) = (bufs.entries_address(), bufs.count());
            uring.submitter().register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0)
        }
        .map_err(Refused::Buffers)?;
        let accepts = (0..size.accepts)
            .map(|_| Accept { addr: UnsafeCell::new(KernelAddr::empty()), slot: 0, armed: false })
            .collect();
        let arena = Vec::with_capacity(size.arena_bytes);
        let lent = Lent { bufs, arena, accepts, owned: Vec::new(), wake: None, listener: None };
        Ok(Ring {
            uring,
            lent: ManuallyDrop::new(lent),
            owned_free: Vec::new(),
            backlog: VecDeque::new(),
            arena_bytes: size.arena_bytes,
            arena: Arena::Open,
            taken: true,
            drained: true,
            in_flight: 0,
            enters: 0,
            enters_extra: 0,
            completions: 0,
            overflows: 0,
        })
    }

    pub(crate) fn bufs(&mut self) -> &mut RecvBufs {
        &mut self.lent.bufs
    }

    /// Has each wait for completions poll the network card first, for at most so long (kernel 6.9 and newer).
    pub(crate) fn poll_card(&mut self, bound: Duration) -> io::Result<()> {
        /// `IORING_REGISTER_NAPI` of `linux/io_uring.h`; the io-uring crate has no call for it.
        const REGISTER_NAPI: libc::c_uint = 27;
        /// `struct io_uring_napi`: which cards is learnt from the sockets (operation 0, tracking 0).
        #[repr(C)]
        struct Napi {
            busy_poll_us: u32,
            prefers_busy_poll: u8,
            operation: u8,
            pad: [u8; 2],
            tracking: u32,
            reserved: u32,
        }
        let busy_poll_us = bound.as_micros().min(u32::MAX.into()) as u32;
        let mut napi =
            Napi { busy_poll_us, prefers_busy_poll: 0, operation: 0, pad: [0; 2], tracking: 0, reserved: 0 };
        let ring = self.uring.as_raw_fd();
        // SAFETY: the kernel reads the struct and writes the settings of before into it, within the call.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_NAPI, &raw mut napi, 1) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether the kernel (6.12 and newer) can wait for several completions, and for fewer after a moment.
    pub(crate) fn waits_for_several(&self) -> bool {
        self.uring.params().is_feature_min_timeout()
    }

    // Submission and completion.

    /// Submits everything queued, in order, and waits as told. What a signal, a timeout or a kernel short of
    /// memory for a moment answers is not an error: the next enter goes on from there.
    pub(crate) fn enter(&mut self, patience: Patience) -> io::Result<()> {
        self.lent.bufs.publish();
        self.flush_backlog();
        let patience = if self.backlog.is_empty() { patience } else { Patience::No };
        self.enters += 1;
        self.drained = false;
        let result = match patience {
            Patience::Forever => self.uring.submit_and_wait(1),
            Patience::For(time) => {
                let time = Timespec::from(time);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            Patience::ForSeveral { events, bound, time } => {
                let (bound_us, time) = (bound.as_micros() as u32, Timespec::from(time));
                let args = SubmitArgs::new().min_wait_usec(bound_us).timespec(&time);
                self.uring.submitter().submit_with_args(events as usize, &args)
            }
            Patience::No => {
                let queued = self.uring.submission().len() as u32;
                // SAFETY: no argument is passed, and the entries queued are covered by `push`.
                unsafe { self.uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
            }
        };
        self.taken = self.backlog.is_empty() && self.uring.submission().is_empty();
        if self.taken && self.arena == Arena::Queued {
            self.arena = Arena::Taken;
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// The next completion that means something; `None` once the queue is empty and the kernel holds none back.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let Some(entry) = self.uring.completion().next() else {
                if self.uring.submission().cq_overflow() {
                    // More completed than the queue holds: the rest comes with one more enter. Should that fail,
                    // the overflow is still there at the next turn.
                    self.overflows += 1;
                    if self.enter(Patience::No).is_ok() && !self.uring.completion().is_empty() {
                        continue;
                    }
                    return None;
                }
                self.drained = true;
                return None;
            };
            self.completions += 1;
            let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let index = (data >> 32) as u32 & (SLOTS_MAX - 1);
            let low = data as u32;
            let conn = ConnId { index, generation: low };
            match data >> 60 {
                RECEIVE => return Some(self.received(conn, result, flags)),
                ACCEPT => return Some(self.accepted(index, result)),
                SEND => {
                    let result = if result == -libc::EAGAIN { Ok(0) } else { count(result) };
                    return Some(Completion::ArenaShort { conn, result });
                }
                OWNED => match self.end_owned(low, result) {
                    Some(completion) => return Some(completion),
                    None => continue,
                },
                SHUTDOWN => return Some(Completion::Shutdown { conn, is_done: result >= 0 }),
                WAKE => {
                    self.in_flight -= 1;
                    return Some(Completion::Woken(count(result)));
                }
                _ => continue,
            }
        }
    }

    /// Opens the arena for writing, empty, if nothing points into it any more and all its failures were read.
    /// Returns whether it did.
    pub(crate) fn settle(&mut self) -> bool {
        if self.arena == Arena::Queued || !self.drained {
            return false;
        }
        self.arena = Arena::Open;
        self.lent.arena.clear();
        if self.lent.arena.capacity() > 2 * self.arena_bytes {
            self.lent.arena.shrink_to(self.arena_bytes);
        }
        true
    }

    /// Whether the last enter took everything that was queued before it.
    pub(crate) fn taken(&self) -> bool {
        self.taken
    }

    fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            // SAFETY: each entry is built in this file, over memory of `lent` that stays put until the
            // operation's last completion (the arena: until it is unlocked).
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.enters += 1;
            self.enters_extra += 1;
            self.drained = false;
            // A failure leaves the queue full, and the entry goes to the backlog; the next enter reports it.
            let _ = self.uring.submit();
            // SAFETY: as above.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    // Listening and accepting.

    pub(crate) fn set_listener(&mut self, listener: OwnedFd) {
        self.lent.listener = Some(listener);
    }

    /// Cancels every accept. The listener itself stays open until [`Self::drop_listener`], because the
    /// cancellation finds the accepts by it.
    pub(crate) fn cancel_accepts(&mut self) {
        let Some(listener) = &self.lent.listener else { return };
        let by_listener = CancelBuilder::fd(Fd(listener.as_raw_fd())).all();
        self.push(
            opcode::AsyncCancel2::new(by_listener).build().flags(Flags::SKIP_SUCCESS).user_data(IGNORED),
        );
    }

    pub(crate) fn drop_listener(&mut self) {
        self.lent.listener = None;
    }

    /// Arms one accept into a free slot; false without a listener or while that accept is in flight.
    pub(crate) fn accept(&mut self, accept: u16, slot: u32) -> bool {
        let Some(listener) = &self.lent.listener else { return false };
        let listener = Fd(listener.as_raw_fd());
        let Some(storage) = self.lent.accepts.get_mut(accept as usize) else { return false };
        let Ok(destination) = DestinationSlot::try_from_slot_target(slot) else { return false };
        if storage.armed {
            return false;
        }
        storage.armed = true;
        storage.slot = slot;
        *storage.addr.get_mut() = KernelAddr::empty();
        let addr = storage.addr.get();
        // SAFETY: field addresses inside a live allocation; nothing is read or written here.
        let (to, len) = unsafe { (&raw mut (*addr).storage, &raw mut (*addr).len) };
        let entry = opcode::Accept::new(listener, to.cast(), len).file_index(Some(destination)).build();
        self.in_flight += 1;
        self.push(entry.user_data(user_data(ACCEPT, u32::from(accept), 0)));
        true
    }

    fn accepted(&mut self, accept: u32, result: i32) -> Completion {
        self.in_flight -= 1;
        let storage = &mut self.lent.accepts[accept as usize];
        storage.armed = false;
        let outcome = match -result {
            error if error <= 0 => match storage.addr.get_mut().get() {
                Some(peer) => Accepted::Peer(peer),
                // A listener of ours has no other families; an unnamed peer is still a connection.
                None => Accepted::Peer(SocketAddr::from(([0, 0, 0, 0], 0))),
            },
            libc::ECANCELED => Accepted::Cancelled,
            // What accept(2) hands on from a connection that died while it waited.
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH => Accepted::Retry,
            error => Accepted::Exhausted(io::Error::from_raw_os_error(error)),
        };
        Completion::Accepted { accept: accept as u16, slot: storage.slot, outcome }
    }

    // One connection.

    /// Puts a socket into a slot of the file table.
    pub(crate) fn install(&mut self, slot: u32, socket: &OwnedFd) -> io::Result<()> {
        self.uring.submitter().register_files_update(slot, &[socket.as_raw_fd()]).map(drop)
    }

    /// Gives the operation's key, for [`Self::cancel_owned`].
    pub(crate) fn connect(&mut self, conn: ConnId, peer: SocketAddr) -> u32 {
        let addr = Box::new(KernelAddr::from(peer));
        let (to, len) = (addr.as_ptr(), addr.len);
        let key = self.own(Owned::Connect(conn, addr));
        let entry = opcode::Connect::new(Fixed(conn.index), to, len).build();
        self.push(entry.user_data(user_data(OWNED, 0, key)));
        key
    }

    pub(crate) fn receive(&mut self, conn: ConnId) {
        self.in_flight += 1;
        let entry = opcode::RecvMulti::new(Fixed(conn.index), BUFFER_GROUP).build();
        self.push(entry.user_data(of_conn(RECEIVE, conn)));
    }

    /// Asks for the end of the connection's receive; it says goodbye with `Received::Cancelled`, or has ended
    /// already.
    pub(crate) fn cancel_receive(&mut self, conn: ConnId) {
        let entry = opcode::AsyncCancel::new(of_conn(RECEIVE, conn)).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(IGNORED));
    }

    fn received(&mut self, conn: ConnId, result: i32, flags: u32) -> Completion {
        let armed = cqueue::more(flags);
        if !armed {
            self.in_flight -= 1;
        }
        let length = u32::try_from(result).unwrap_or(0);
        // SAFETY: this completion, seen once, hands the buffer over.
        let buf = cqueue::buffer_select(flags).and_then(|id| unsafe { self.lent.bufs.take_over(id, length) });
        let outcome = match (buf, -result) {
            (Some(buf), _) if length > 0 => Received::Bytes(buf),
            (buf, error) => {
                if let Some(empty) = buf {
                    self.lent.bufs.give_back(empty);
                }
                match error {
                    0 => Received::EndOfStream,
                    libc::ENOBUFS => Received::BuffersExhausted,
                    libc::ECANCELED => Received::Cancelled,
                    error if error > 0 => Received::Failed(io::Error::from_raw_os_error(error)),
                    // Bytes without a buffer to hold them: not a stream that can be trusted.
                    _ => Received::Failed(io::ErrorKind::InvalidData.into()),
                }
            }
        };
        Completion::Received { conn, outcome, armed }
    }

    /// The arena for appending, or `None` while the kernel may still look at it.
    pub(crate) fn arena(&mut self) -> Option<&mut Vec<u8>> {
        if self.arena == Arena::Open { Some(&mut self.lent.arena) } else { None }
    }

    /// Bytes of the arena that were written earlier in this turn.
    pub(crate) fn arena_bytes(&self, range: Range<usize>) -> &[u8] {
        self.lent.arena.get(range).unwrap_or_default()
    }

    /// Queues a send of a part of the arena, and closes the arena until [`Self::settle`].
    pub(crate) fn send_arena(&mut self, conn: ConnId, range: Range<usize>) {
        let bytes = self.arena_bytes(range);
        let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
        self.arena = Arena::Queued;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        let entry = opcode::Send::new(Fixed(conn.index), start, len).flags(flags).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(of_conn(SEND, conn)));
    }

    /// Sends `bytes`, waiting for the socket if need be; they come back with `Completion::Sent`. Gives the
    /// operation's key, for [`Self::cancel_owned`].
    pub(crate) fn send_owned(&mut self, conn: ConnId, bytes: Vec<u8>, from: usize) -> u32 {
        let part = bytes.get(from..).unwrap_or_default();
        let (start, len) = (part.as_ptr(), u32::try_from(part.len()).unwrap_or(u32::MAX));
        // Moving the Vec moves no byte of what it holds.
        let key = self.own(Owned::Send(conn, bytes));
        let entry = opcode::Send::new(Fixed(conn.index), start, len).flags(libc::MSG_NOSIGNAL).build();
        self.push(entry.user_data(user_data(OWNED, 0, key)));
        key
    }

    /// Ends the sending direction, and tells when that is done. Rare: the kernel does it on a worker thread, which looks
    /// into the slot no earlier than it gets to run; until it has told, the slot must not become another connection's.
    pub(crate) fn shutdown_send(&mut self, conn: ConnId) {
        let entry = opcode::Shutdown::new(Fixed(conn.index), libc::SHUT_WR).build();
        self.push(entry.user_data(of_conn(SHUTDOWN, conn)));
    }

    /// Cancels a send or a connect whose completion was not read yet; it still reports its end. By its own name, as
    /// [`Self::cancel_receive`]: to cancel what a socket has in flight, the kernel looks through every operation that
    /// waits in the ring, a receive for each open connection among them.
    pub(crate) fn cancel_owned(&mut self, key: u32) {
        let entry = opcode::AsyncCancel::new(user_data(OWNED, 0, key)).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(IGNORED));
    }

    /// Empties the slot. Executed inline, in the order of submission.
    pub(crate) fn close(&mut self, slot: u32) {
        let entry = opcode::Close::new(Fixed(slot)).build();
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(IGNORED));
    }

    // The bell and the disk.

    /// Reads eight bytes from `fd` whenever it has them.
    pub(crate) fn wake_on(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.lent.wake.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.lent.wake = Some((fd.try_clone_to_owned()?, Box::new(UnsafeCell::new(0))));
        self.arm_wake();
        Ok(())
    }

    pub(crate) fn arm_wake(&mut self) {
        let Some((fd, count)) = &self.lent.wake else { return };
        let entry = opcode::Read::new(Fd(fd.as_raw_fd()), count.get().cast(), 8).offset(u64::MAX).build();
        self.in_flight += 1;
        self.push(entry.user_data(user_data(WAKE, 0, 0)));
    }

    /// Makes the file's data durable (fdatasync), on a worker thread of the kernel's.
    pub(crate) fn sync_data(&mut self, fd: BorrowedFd<'_>, token: u64) {
        let key = self.own(Owned::Sync(token));
        let entry = opcode::Fsync::new(Fd(fd.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
        self.push(entry.user_data(user_data(OWNED, 0, key)));
    }

    fn own(&mut self, owned: Owned) -> u32 {
        self.in_flight += 1;
        match self.owned_free.pop() {
            Some(key) => {
                self.lent.owned[key as usize] = owned;
                key
            }
            None => {
                self.lent.owned.push(owned);
                (self.lent.owned.len() - 1) as u32
            }
        }
    }

    fn end_owned(&mut self, key: u32, result: i32) -> Option<Completion> {
        let owned = std::mem::replace(self.lent.owned.get_mut(key as usize)?, Owned::Free);
        let completion = match owned {
            Owned::Free => return None,
            Owned::Send(conn, bytes) => Completion::Sent { conn, bytes, result: count(result) },
            Owned::Connect(conn, _) => Completion::Connected { conn, result: count(result).map(drop) },
            Owned::Sync(token) => Completion::Synced { token, result: count(result).map(drop) },
        };
        self.in_flight -= 1;
        self.owned_free.push(key);
        Some(completion)
    }
}

impl Drop for Ring {
    /// Takes the lent memory back from the kernel before it is freed; what the kernel will not let go of within a
    /// second or so is left behind rather than freed under it.
    fn drop(&mut self) {
        let _ = self.enter(Patience::No);
        let _ =
            self.uring.submitter().register_sync_cancel(Some(Timespec::from(LET_GO)), CancelBuilder::any());
        for _ in 0..100 {
            while self.next_completion().is_some() {}
            if self.in_flight == 0 {
                break;
            }
            let _ = self.enter(Patience::For(LET_GO / 100));
        }
        if self.in_flight == 0
            && self.taken
            && self.uring.submitter().unregister_buf_ring(BUFFER_GROUP).is_ok()
        {
            // SAFETY: dropped once, here; no operation refers to it any more.
            unsafe { ManuallyDrop::drop(&mut self.lent) };
        }
    }
}

/// A kernel result as what it counts, or the error that it is.
fn count(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
