//! The sockets of one I/O loop, on one ring of its own: what is queued in a turn goes to the kernel in one enter,
//! what the kernel has to say comes back as events.
//!
//! Owner: the thread that created it, and no other. It knows bytes and connections, no protocol.
//! Always: a `ConnId` names one connection for ever, because a reused slot counts up its generation; an event never
//! reaches a successor. `Accepted` or `Connected` is a connection's first event, `Closed` its last, each exactly once
//! (a connect that fails has `ConnectFailed` alone, one given up `Closed` alone); after `close` nothing but `Closed`
//! follows. Bytes sent on a connection leave in order, whole, or not at all after
//! the first that could not. An idle connection holds no buffer here, only its slot.
//! Bounds: connections, receive buffers and the arena by `NetConfig`. What waits for a slow reader is the
//! caller's to bound: ask `pending_send_bytes` before producing more.
//! Not here: HTTP, the journal's bytes, and the raw ring (`sys/uring.rs`).
//! Read next: `net/send.rs` for the arena and the slow path, `net/receive.rs` for buffers that run out,
//! `net/close.rs` for how a slot becomes free.
//!
//! ```text
//! loop {
//!     net.turn(Wait::Block)                   one enter: submit all, wait for one, take every completion
//!     while let Some(event) = net.next_event()
//!         Received { conn, buf } → decode net.bytes(&buf); net.release(buf); net.send(conn, answer)
//! }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::buf::RECV_BUFFERS_MAX;
pub use crate::buf::RecvBuf;
use crate::sys::uring::{Completion, Patience, Refused, Ring, RingSize, SLOTS_MAX};

mod accept;
mod close;
mod coalesce;
mod connect;
mod receive;
mod send;
mod slots;

pub use accept::ClaimedPort;
use coalesce::Coalesce;
use send::ArenaSend;
use slots::Slots;

/// The most syncs that may be in flight at once.
const SYNCS_MAX: usize = 1024;

/// How large a [`Net`] is, and how patient.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Open connections at most; further ones stay in the listener's backlog. The file table has room for these and
    /// for `accepts_max` more, and may not exceed the process' soft descriptor limit.
    pub connections_max: u32,
    /// Places in the submission queue. More may be queued in a turn at the price of an enter.
    pub submissions: u32,
    /// Places in the completion queue. It counts, with the submissions, against the locked-memory limit of a user
    /// who is not root.
    pub completions: u32,
    /// Accepts in flight at once, which is also how many connections one turn can take in.
    pub accepts_max: u16,
    /// Up to how many of them are armed after a turn that received little: whoever is connected waits for no more. After
    /// one that received much, up to a quarter as many as it received. What was armed stays armed, so that the first turn
    /// of a storm may take in more.
    pub accepts_min: u16,
    /// Receive buffers, a power of two up to 32,768.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer.
    pub recv_buffer_bytes: u32,
    /// What a turn's small answers may take together; beyond it they go the slow way.
    pub send_arena_bytes: usize,
    /// A connection whose peer takes not one byte for this long is closed.
    pub send_timeout: Duration,
    /// How long a lingering close goes on reading.
    pub linger_timeout: Duration,
    /// How long a turn may wait for further events once they come fast and from many connections; not at all when
    /// zero, or on kernels before 6.12. See `net/coalesce.rs`.
    pub coalesce: Duration,
    /// How long a turn that would sleep polls the network card for packets before; not at all when zero. It spares an
    /// interrupt and a wake and costs the core's rest; sockets over loopback have no card.
    pub busy_poll: Duration,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            connections_max: 16_384,
            submissions: 1024,
            completions: 8192,
            accepts_max: 64,
            accepts_min: 64,
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            send_arena_bytes: 1 << 20,
            send_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(2),
            coalesce: Duration::ZERO,
            busy_poll: Duration::ZERO,
        }
    }
}

/// A connection, for ever: its slot may serve another one later, under another generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnId {
    /// The slot, below `connections_max + accepts_max`: a place in a caller's own table, to be checked against the
    /// whole id.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A new connection; it is being received from.
    Accepted {
        /// Its name from now on.
        conn: ConnId,
        /// The other side's address.
        peer: SocketAddr,
    },
    /// Accepting failed for want of descriptors or memory; it is tried again after a pause.
    AcceptFailed {
        /// Why.
        error: io::Error,
    },
    /// A connect succeeded; the connection is being received from and may be sent to.
    Connected {
        /// As `connect` named it.
        conn: ConnId,
    },
    /// A connect failed; the connection's last event.
    ConnectFailed {
        /// As `connect` named it.
        conn: ConnId,
        /// Why.
        error: io::Error,
    },
    /// Bytes, in the order of the stream.
    Received {
        /// Whose.
        conn: ConnId,
        /// Where they lie until released.
        buf: RecvBuf,
    },
    /// The peer sends no more; it may still read. Closing is the caller's.
    EndOfStream {
        /// Whose.
        conn: ConnId,
    },
    /// The connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why, if the caller did not ask for it. A peer that did not read is `TimedOut`.
        error: Option<io::Error>,
    },
    /// Everything that had to wait for a slow reader is sent.
    Drained {
        /// Whose.
        conn: ConnId,
    },
    /// The descriptor given to `wake_on` was written to.
    Woken,
    /// A `sync_data` ended.
    Synced {
        /// As given.
        token: u64,
        /// Whether the file's data is durable.
        result: io::Result<()>,
    },
}

/// How long a turn may wait for its first event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something happens.
    Block,
    /// Until something happens or this moment comes.
    Until(Instant),
}

/// Counters since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct NetStats {
    /// System calls into the ring.
    pub enters: u64,
    /// Those of them made only because the submission queue was full.
    pub enters_extra: u64,
    /// Completions taken.
    pub completions: u64,
    /// Times that the completion queue ran over (nothing is lost, only slower).
    pub completions_overflowed: u64,
    /// Receives that ended because no buffer was free.
    pub buffers_exhausted: u64,
    /// Sends that the socket did not take at once.
    pub sends_delayed: u64,
    /// Sends that found the arena full.
    pub arena_exhausted: u64,
    /// Connections closed because their peer did not read.
    pub sends_timed_out: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Times that accepting stopped because `connections_max` was reached; the rest waits in the backlog.
    pub accepts_held: u64,
    /// Accepts that failed for want of descriptors or memory.
    pub accepts_failed: u64,
}

/// Why a [`Net`] could not be made or could not listen.
#[derive(Debug)]
pub enum NetError {
    /// A figure of the configuration is outside its bounds.
    Config(&'static str),
    /// The kernel made no ring of this size.
    Ring {
        /// Places asked for.
        submissions: u32,
        /// Places asked for.
        completions: u32,
        /// Why.
        source: io::Error,
    },
    /// No file table of this size.
    FileTable {
        /// Slots asked for.
        slots: u32,
        /// Why.
        source: io::Error,
    },
    /// No receive buffers of this size.
    Buffers {
        /// Bytes asked for.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// The kernel's rings do not poll network cards.
    BusyPoll(io::Error),
    /// The address cannot be listened on; for a taken port the source is `AddrInUse`.
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The bell's descriptor cannot be used, or there is one already.
    Wake(io::Error),
    /// `connections_max` is reached.
    ConnectionsFull {
        /// The bound.
        connections_max: u32,
    },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Config(what) => write!(f, "net: {what}"),
            NetError::Ring { submissions, completions, source } => {
                write!(
                    f,
                    "no io_uring ring of {submissions} submissions and {completions} completions: {source}"
                )?;
                match source.kind() {
                    io::ErrorKind::OutOfMemory => write!(
                        f,
                        " (rings count against the locked-memory limit of an ordinary user: raise it with \
                         `ulimit -l`, or use fewer shards)"
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(
                            f,
                            " (check `sysctl kernel.io_uring_disabled` and the container's seccomp profile)"
                        )
                    }
                    _ => Ok(()),
                }
            }
            NetError::FileTable { slots, source } => write!(
                f,
                "no file table of {slots} slots: {source} (it may not exceed the descriptor limit: see `ulimit -n`)"
            ),
            NetError::Buffers { bytes, source } => write!(f, "no receive buffers of {bytes} bytes: {source}"),
            NetError::BusyPoll(source) => write!(
                f,
                "this kernel's rings do not poll network cards: {source} (it takes Linux 6.9 with \
                 CONFIG_NET_RX_BUSY_POLL)"
            ),
            NetError::Listen { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            NetError::Wake(source) => write!(f, "cannot wait for the bell: {source}"),
            NetError::ConnectionsFull { connections_max } => {
                write!(f, "all {connections_max} connections are in use")
            }
        }
    }
}

impl std::error::Error for NetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NetError::Config(_) | NetError::ConnectionsFull { .. } => None,
            NetError::Ring { source, .. }
            | NetError::FileTable { source, .. }
            | NetError::Buffers { source, .. }
            | NetError::Listen { source, .. }
            | NetError::BusyPoll(source)
            | NetError::Wake(source) => Some(source),
        }
    }
}

/// The sockets of one loop.
pub struct Net {
    ring: Ring,
    slots: Slots,
    events: VecDeque<Event>,
    /// This turn's parts of the arena, in the order of sending.
    sends: Vec<ArenaSend>,
    /// How many of them are queued already.
    sends_queued: usize,
    /// Something can start only when this turn's sends are known to have gone: a close, or a large send.
    after_sends: bool,
    /// Connections whose receive ended for want of buffers, longest waiting first.
    starved: VecDeque<ConnId>,
    /// Connections with a deadline.
    slow: Vec<ConnId>,
    sweep_at: Option<Instant>,
    accepts_idle: Vec<u16>,
    /// What the last turn received, in pieces.
    received: u32,
    accept_again_at: Option<Instant>,
    /// Whether the bound on connections is what keeps accepts from being armed.
    accepts_held: bool,
    listening: bool,
    /// Set when the listener is to be closed once its accepts' cancellation is submitted.
    listener_ending: bool,
    now: Instant,
    syncs: usize,
    coalesce: Coalesce,
    fault: Option<io::Error>,
    config: NetConfig,
    stats: NetStats,
    /// SINGLE_ISSUER: no other thread may enter.
    _one_thread: PhantomData<*const ()>,
}

impl Net {
    /// Makes the ring. Every later call must come from the same thread, which the type holds the caller to.
    pub fn new(config: NetConfig) -> Result<Net, NetError> {
        check(&config)?;
        let slots_max = config.connections_max + u32::from(config.accepts_max);
        let size = RingSize {
            submissions: config.submissions,
            completions: config.completions,
            slots: slots_max,
            accepts: config.accepts_max,
            recv_buffers: config.recv_buffers,
            recv_buffer_bytes: config.recv_buffer_bytes,
            arena_bytes: config.send_arena_bytes,
        };
        let mut ring = Ring::new(&size).map_err(|refused| match refused {
            Refused::Ring(source) => {
                NetError::Ring { submissions: config.submissions, completions: config.completions, source }
            }
            Refused::FileTable(source) => NetError::FileTable { slots: slots_max, source },
            Refused::Buffers(source) => {
                let bytes = u64::from(config.recv_buffers) * u64::from(config.recv_buffer_bytes);
                NetError::Buffers { bytes, source }
            }
        })?;
        if !config.busy_poll.is_zero() {
            ring.poll_card(config.busy_poll).map_err(NetError::BusyPoll)?;
        }
        let now = Instant::now();
        let bound = if ring.waits_for_several() { config.coalesce } else { Duration::ZERO };
        Ok(Net {
            ring,
            coalesce: Coalesce::new(bound, now),
            slots: Slots::new(slots_max),
            events: VecDeque::new(),
            sends: Vec::new(),
            sends_queued: 0,
            after_sends: false,
            starved: VecDeque::new(),
            slow: Vec::new(),
            sweep_at: None,
            accepts_idle: (0..config.accepts_max).rev().collect(),
            received: 0,
            accept_again_at: None,
            accepts_held: false,
            listening: false,
            listener_ending: false,
            now,
            syncs: 0,
            fault: None,
            config,
            stats: NetStats::default(),
            _one_thread: PhantomData,
        })
    }

    /// One turn: submits everything queued since the last, waits for the first completion as told (not at all while
    /// events are unread), and turns all completions into events.
    ///
    /// One enter, save for these: a second one in a turn that closes a connection, or starts a large send, right
    /// after a small send on it, and further ones when more was queued than the submission queue holds.
    ///
    /// # Errors
    /// The ring itself or the bell is broken; nothing further can be expected of this `Net`.
    pub fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.arm_accepts();
        self.received = 0;
        self.arm_starved();
        self.queue_sends();
        if self.after_sends {
            self.after_sends = false;
            self.step(Patience::No)?;
        }
        let patience = self.patience(wait);
        self.step(patience)?;
        self.pass_deadlines();
        match self.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// The next event of the last turn; `None` when all are read.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let event = self.events.pop_front()?;
            match event {
                Event::Received { conn, buf } if !self.slots.is_open(conn) => self.release(buf),
                Event::EndOfStream { conn } | Event::Drained { conn } if !self.slots.is_open(conn) => {}
                event => return Some(event),
            }
        }
    }

    /// The moment of the last turn's return from the kernel: a clock that costs nothing to read.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// From now on every write of eight bytes to `fd` (an eventfd) ends a waiting turn with `Woken`. The ring reads
    /// the descriptor, through a duplicate of its own; nobody else may.
    pub fn wake_on(&mut self, fd: impl AsFd) -> Result<(), NetError> {
        self.ring.wake_on(fd.as_fd()).map_err(NetError::Wake)
    }

    /// Makes a file's data durable and tells so with `Synced`. The file must stay open until then. What was written
    /// before this call's turn is covered. Beyond 1,024 in flight it is refused, by a `Synced` that says so.
    pub fn sync_data(&mut self, file: impl AsFd, token: u64) {
        if self.syncs == SYNCS_MAX {
            let result = Err(io::ErrorKind::ResourceBusy.into());
            self.events.push_back(Event::Synced { token, result });
            return;
        }
        self.syncs += 1;
        self.ring.sync_data(file.as_fd(), token);
    }

    /// Counters since the start.
    pub fn stats(&self) -> NetStats {
        NetStats {
            enters: self.ring.enters,
            enters_extra: self.ring.enters_extra,
            completions: self.ring.completions,
            completions_overflowed: self.ring.overflows,
            ..self.stats
        }
    }

    /// Connections open now, those still connecting or closing among them.
    pub fn connections(&self) -> usize {
        self.slots.open()
    }

    /// One enter and all that it brought.
    fn step(&mut self, patience: Patience) -> io::Result<()> {
        let vacated = self.slots.vacated();
        let listener_ending = self.listener_ending;
        let entered = self.ring.enter(patience);
        self.now = Instant::now();
        if self.ring.taken() {
            self.slots.reuse(vacated);
            if listener_ending {
                self.listener_ending = false;
                self.ring.drop_listener();
            }
        }
        while let Some(completion) = self.ring.next_completion() {
            self.complete(completion);
        }
        self.settle_sends();
        entered
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { conn, outcome, armed } => self.on_received(conn, outcome, armed),
            Completion::Accepted { accept, slot, outcome } => self.on_accepted(accept, slot, outcome),
            Completion::ArenaShort { conn, result } => self.on_arena_short(conn, result),
            Completion::Sent { conn, bytes, result } => self.on_sent(conn, bytes, result),
            Completion::Connected { conn, result } => self.on_connected(conn, result),
            Completion::Shutdown { conn, is_done } => self.on_shutdown(conn, is_done),
            Completion::Woken(result) => self.on_woken(result),
            Completion::Synced { token, result } => {
                self.syncs -= 1;
                self.events.push_back(Event::Synced { token, result });
            }
        }
    }

    fn on_woken(&mut self, result: io::Result<usize>) {
        match result {
            // A closed pipe would be readable for ever, and the loop would spin.
            Ok(0) => self.fault = Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                self.events.push_back(Event::Woken);
                self.ring.arm_wake();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.ring.arm_wake(),
            Err(error) => self.fault = Some(error),
        }
    }

    fn patience(&mut self, wait: Wait) -> Patience {
        let several = self.coalesce.step(self.now);
        if !self.events.is_empty() || wait == Wait::No {
            return Patience::No;
        }
        let until = match wait {
            Wait::Until(at) => Some(at),
            Wait::No | Wait::Block => None,
        };
        match [until, self.sweep_at, self.accept_again_at].into_iter().flatten().min() {
            None => Patience::Forever,
            Some(at) => match at.checked_duration_since(Instant::now()) {
                // While a sync is under way many may be waiting for it, and it is one event.
                Some(time) if !time.is_zero() => {
                    match several.filter(|(_, bound)| self.syncs == 0 && *bound < time) {
                        Some((events, bound)) => Patience::ForSeveral { events, bound, time },
                        None => Patience::For(time),
                    }
                }
                _ => Patience::No,
            },
        }
    }

    fn pass_deadlines(&mut self) {
        if self.sweep_at.is_some_and(|at| at <= self.now) {
            self.sweep();
        }
    }
}

fn check(config: &NetConfig) -> Result<(), NetError> {
    let slots = u64::from(config.connections_max) + u64::from(config.accepts_max);
    if config.connections_max == 0 || slots > u64::from(SLOTS_MAX) {
        return Err(NetError::Config("connections_max is 0 or too large"));
    }
    if config.accepts_max == 0 {
        return Err(NetError::Config("accepts_max is 0"));
    }
    if config.accepts_min == 0 {
        return Err(NetError::Config("accepts_min is 0"));
    }
    if !config.recv_buffers.is_power_of_two() || config.recv_buffers > RECV_BUFFERS_MAX {
        return Err(NetError::Config("recv_buffers is not a power of two up to 32768"));
    }
    if config.recv_buffer_bytes == 0 {
        return Err(NetError::Config("recv_buffer_bytes is 0"));
    }
    if config.submissions == 0 || config.completions < config.submissions {
        return Err(NetError::Config("submissions is 0, or larger than completions"));
    }
    if config.send_arena_bytes > u32::MAX as usize / 4 {
        return Err(NetError::Config("send_arena_bytes is beyond a gibibyte"));
    }
    Ok(())
}
