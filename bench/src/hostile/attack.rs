//! Clients that behave badly, each kind on one thread: what they send, how many they are, what they leave undone.
//!
//! Always: in the idle class on the generator's core, so that the well-behaved client's generator has it the moment it
//! wakes (at nice 19 it waited for the end of a tick, up to a millisecond, which the table called the server's); sockets of std without an own thread, looked at a tenth every five milliseconds; everything is closed
//! when it ends.
//! Not here: what they do to others (`hostile.rs`).

use crate::pin;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long between two looks; each connection has its turn in one of [`PHASES`].
const TICK: Duration = Duration::from_millis(5);
const PHASES: usize = 10;
/// A listener whose backlog is full lets a client wait; it is given up after this.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);
/// How long a connection of a storm stays open for its answer.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);
/// Connections that a storm is behind are made up for, as many in one look at most.
const CATCH_UP_MAX: u64 = 2_000;
/// Requests in one piece of what is never read.
const PIPELINE: usize = 50;

/// One kind of bad client.
#[derive(Debug)]
pub(crate) struct Attack {
    /// For the command line and the table.
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    manner: Manner,
    bytes: fn() -> Vec<u8>,
}

/// How many, and what they do with their bytes.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// So many are held open, and replaced when the server closes them; each has sent its bytes.
    Hold(u32),
    /// The same, a byte every fifty milliseconds.
    Trickle(u32),
    /// The same, their bytes again and again for as long as the socket takes them; nothing is read.
    Flood(u32),
    /// So many come in a second, send their bytes, and go.
    Storm { per_s: u64, end: End },
    /// The attempts of the command line over the whole round.
    Attempts,
}

/// How a connection of a storm ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once.
    AtOnce,
    /// With its answer in the socket, unread: the kernel resets it.
    Reset,
    /// Once the answer is read.
    Answered,
}

/// Every kind.
pub(crate) const ATTACKS: [Attack; 9] = [
    Attack {
        name: "byte-by-byte",
        about: "256 send a byte every 50 ms",
        manner: Manner::Trickle(256),
        bytes: || head("Content-Length: 22\r\n\r\n{\"name\":\"a\",\"value\":1}"),
    },
    Attack {
        name: "head-never-ended",
        about: "1,000 stop in the middle of a head",
        manner: Manner::Hold(1_000),
        bytes: || head("X-Never-"),
    },
    Attack {
        name: "body-never-ended",
        about: "64 stop after 256 KiB of a body of 1 MB",
        manner: Manner::Hold(64),
        bytes: || [head("Content-Length: 1000000\r\n\r\n"), vec![b' '; 256 << 10]].concat(),
    },
    Attack {
        name: "half-open",
        about: "1,000 connect and are never heard of again",
        manner: Manner::Hold(1_000),
        bytes: Vec::new,
    },
    Attack {
        name: "reset",
        about: "1,000 a second are reset after their request",
        manner: Manner::Storm { per_s: 1_000, end: End::Reset },
        bytes: || head("Content-Length: 28\r\n\r\n{\"name\":\"hostile\",\"value\":1}"),
    },
    Attack {
        name: "oversized-head",
        about: "500 a second send a head of 20 KiB",
        manner: Manner::Storm { per_s: 500, end: End::Answered },
        bytes: || head(&format!("X-Long: {}\r\n\r\n", "a".repeat(20 << 10))),
    },
    Attack {
        name: "tls",
        about: "500 a second begin as TLS does, and go on with noise",
        manner: Manner::Storm { per_s: 500, end: End::Answered },
        bytes: client_hello,
    },
    Attack {
        name: "connects",
        about: "100,000 connection attempts (--attempts)",
        manner: Manner::Attempts,
        bytes: Vec::new,
    },
    Attack {
        name: "unread-answers",
        about: "64 ask for pages without end and read none",
        manner: Manner::Flood(64),
        bytes: || b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(PIPELINE),
    },
];

fn head(rest: &str) -> Vec<u8> {
    format!("POST /metrics HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes()
}

/// The first bytes of a handshake, and then none of its fields.
fn client_hello() -> Vec<u8> {
    let mut bytes = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut state = 1_u32;
    bytes.extend((0..500).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    bytes
}

/// What the bad clients met with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Met {
    /// Connections made.
    pub opened: u64,
    /// Connects that failed, or took too long.
    pub connects_failed: u64,
    /// Connections that the server ended.
    pub ended: u64,
    /// Answers that were read, by status.
    pub statuses: BTreeMap<u16, u64>,
}

impl Met {
    /// Adds what another round met with.
    pub(crate) fn add(&mut self, other: &Met) {
        self.opened += other.opened;
        self.connects_failed += other.connects_failed;
        self.ended += other.ended;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

/// Whom to attack, and for how long.
pub(crate) struct Round<'a> {
    pub addr: SocketAddr,
    pub core: Option<usize>,
    /// Connections that [`Manner::Attempts`] makes, evenly over so much time.
    pub attempts: u64,
    pub over: Duration,
    /// Set by the attack once all that are held are connected.
    pub is_on: &'a AtomicBool,
    /// Set by others when it is to end.
    pub is_over: &'a AtomicBool,
}

impl Attack {
    /// Whether a server stands it that bounds nothing. One that answers what is never read keeps all of it, and then has
    /// no time for others.
    pub(crate) fn is_bearable_without_bounds(&self) -> bool {
        !matches!(self.manner, Manner::Flood(_))
    }

    /// Attacks until told to stop; on the calling thread.
    pub(crate) fn run(&self, round: &Round<'_>) -> Met {
        // Where either is forbidden, the well-behaved client's lateness shows it.
        let _ = pin(round.core);
        let _ = shard::run_when_idle();
        let bytes = (self.bytes)();
        let mut crowd = Crowd { addr: round.addr, bytes: &bytes, met: Met::default() };
        match self.manner {
            Manner::Hold(count) => crowd.hold(count, Holding::Sent, round),
            Manner::Trickle(count) => crowd.hold(count, Holding::Trickles, round),
            Manner::Flood(count) => crowd.hold(count, Holding::Floods, round),
            Manner::Storm { per_s, end } => crowd.storm(per_s as f64, u64::MAX, end, round),
            Manner::Attempts => {
                let per_s = round.attempts as f64 / round.over.as_secs_f64();
                crowd.storm(per_s, round.attempts, End::AtOnce, round);
            }
        }
        crowd.met
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holding {
    Sent,
    Trickles,
    Floods,
}

/// The connections of one attack.
struct Crowd<'a> {
    addr: SocketAddr,
    bytes: &'a [u8],
    met: Met,
}

/// One that is held, and how much of its bytes it has sent.
struct Held {
    stream: Option<TcpStream>,
    sent: usize,
}

impl Crowd<'_> {
    fn open(&mut self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, CONNECT_PATIENCE);
        let stream = stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
        match stream {
            Ok(_) => self.met.opened += 1,
            Err(_) => self.met.connects_failed += 1,
        }
        stream.ok()
    }

    /// Takes what the server said; whether the connection goes on.
    fn listen(&mut self, mut stream: &TcpStream) -> bool {
        let mut piece = [0; 4 << 10];
        match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Ok(bytes) if bytes > 0 => {
                let status = piece.get(9..12).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                *self.met.statuses.entry(status.unwrap_or(0)).or_default() += 1;
            }
            Ok(_) | Err(_) => {}
        }
        self.met.ended += 1;
        false
    }

    fn hold(&mut self, count: u32, holding: Holding, round: &Round<'_>) {
        let mut all: Vec<Held> = (0..count).map(|_| Held { stream: None, sent: 0 }).collect();
        for phase in 0.. {
            let first_round = phase < PHASES;
            for held in all.iter_mut().skip(phase % PHASES).step_by(PHASES) {
                if round.is_over.load(Ordering::Relaxed) {
                    return;
                }
                self.tend(held, holding);
            }
            if !first_round {
                round.is_on.store(true, Ordering::Relaxed);
                thread::sleep(TICK);
            }
        }
    }

    fn tend(&mut self, held: &mut Held, holding: Holding) {
        if held.stream.is_none() {
            *held = Held { stream: self.open(), sent: 0 };
        }
        let Some(mut stream) = held.stream.as_ref() else { return };
        // One that floods learns of the end by its writing, for it never reads.
        let mut goes_on = holding == Holding::Floods || self.listen(stream);
        while goes_on && held.sent < self.bytes.len() {
            let to = if holding == Holding::Trickles { held.sent + 1 } else { self.bytes.len() };
            match stream.write(&self.bytes[held.sent..to]) {
                Ok(bytes) => held.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.met.ended += 1;
                    goes_on = false;
                }
            }
            match holding {
                Holding::Trickles => break,
                Holding::Floods if held.sent == self.bytes.len() => held.sent = 0,
                Holding::Floods | Holding::Sent => {}
            }
        }
        if !goes_on {
            held.stream = None;
        }
    }

    fn storm(&mut self, per_s: f64, attempts: u64, end: End, round: &Round<'_>) {
        let begin = Instant::now();
        let mut open: VecDeque<(Instant, TcpStream)> = VecDeque::new();
        let mut made = 0;
        round.is_on.store(true, Ordering::Relaxed);
        while !round.is_over.load(Ordering::Relaxed) {
            let due = (begin.elapsed().as_secs_f64() * per_s) as u64;
            let due = due.min(attempts).min(made + CATCH_UP_MAX);
            while made < due && !round.is_over.load(Ordering::Relaxed) {
                made += 1;
                let Some(mut stream) = self.open() else { continue };
                // What a socket of its own does not take at once is not sent.
                let _ = stream.write(self.bytes);
                if end != End::AtOnce {
                    open.push_back((Instant::now(), stream));
                }
            }
            while let Some((_, stream)) = open.pop_front_if(|(since, _)| since.elapsed() >= ANSWER_PATIENCE) {
                if end == End::Answered {
                    self.listen(&stream);
                }
            }
            thread::sleep(TICK);
        }
    }
}
