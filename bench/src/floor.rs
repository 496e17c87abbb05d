//! `bench floor`: the least that answers a request on this kernel, to measure everything else against.
//!
//! One io_uring loop: multishot receive into provided buffers, direct descriptors, one enter a turn, the turn's
//! answers sent together and without a completion each. A request is found by the end of its head and its
//! `Content-Length`; the answer is the same bytes each time.
//! Left out, so that nothing cheaper can be right: method, path and header checks, chunked bodies, the body's
//! meaning, a date, timeouts, and anything that keeps a sample. A request that it cannot find the end of closes the
//! connection. `GET` without a length is answered too, which is how a peer is found ready.
//! It stands on `shard::net`, as the server does, because unsafe code has its rooms. That costs something: the same
//! loop by hand on the raw ring took 0.99, 0.96 and 0.91 of its CPU per request at 64, 1,000 and 10,000 connections
//! (medians of 7 interleaved pairs, one core, generator on the other). Whatever makes `shard::net` cheaper lowers the
//! floor with the server, so a ratio to it tells what the server adds above its sockets.

use crate::load::{Live, TICK};
use crate::{Verdict, pin};
use clap::Args;
use memchr::memmem::Finder;
use shard::net::{ClaimedPort, ConnId, Event, Net, NetConfig, Wait};
use std::collections::HashMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct FloorArguments {
    /// Port of 127.0.0.1; 0 for a free one
    #[arg(value_name = "PORT")]
    port: u16,
    /// Core to run on
    #[arg(long)]
    core: Option<usize>,
    /// Connections at most
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections_max: u32,
}

/// Every answer: as long as an answer of the server without its date.
const ANSWER: &[u8] =
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n\
    {\"status\":\"accepted\"}";

/// A request beyond this is refused by closing.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Answers until a signal comes.
pub(crate) fn run(arguments: &FloorArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    pin(arguments.core)?;
    // If the limit stays too low, the ring says so with the figure.
    let _ = shard::raise_descriptor_limit();
    let config = NetConfig {
        connections_max: arguments.connections_max,
        submissions: 4096,
        completions: 32_768,
        recv_buffers: 4096,
        recv_buffer_bytes: 4096,
        ..NetConfig::default()
    };
    let mut net = Net::new(config)?;
    let port = ClaimedPort::claim(SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port)))?;
    println!("floor listens on {}", net.listen(port.addr(), 4096)?);
    let mut floor = Floor::default();
    while !live.stop.load(Ordering::Relaxed) {
        net.turn(Wait::Until(Instant::now() + TICK))?;
        while let Some(event) = net.next_event() {
            floor.take(&mut net, event);
        }
    }
    Ok(Verdict::Passed)
}

struct Floor {
    head_end: Finder<'static>,
    length: Finder<'static>,
    /// Of requests that came in pieces, what came so far.
    begun: HashMap<ConnId, Vec<u8>>,
}

impl Default for Floor {
    fn default() -> Floor {
        Floor {
            head_end: Finder::new("\r\n\r\n"),
            length: Finder::new("\r\nContent-Length: "),
            begun: HashMap::new(),
        }
    }
}

impl Floor {
    fn take(&mut self, net: &mut Net, event: Event) {
        match event {
            Event::Received { conn, buf } => {
                let bytes = net.bytes(&buf);
                // The usual case first: nothing is waiting, and whole requests came.
                let answers = if self.begun.is_empty() {
                    let (answers, used) = self.requests(bytes);
                    if used < bytes.len() {
                        self.begun.insert(conn, bytes[used..].to_vec());
                    }
                    answers
                } else {
                    let mut all = self.begun.remove(&conn).unwrap_or_default();
                    all.extend_from_slice(bytes);
                    let (answers, used) = self.requests(&all);
                    all.drain(..used);
                    if !all.is_empty() {
                        self.begun.insert(conn, all);
                    }
                    answers
                };
                net.release(buf);
                for _ in 0..answers {
                    net.send(conn, ANSWER);
                }
                if !self.begun.is_empty()
                    && self.begun.get(&conn).is_some_and(|v| v.len() > REQUEST_BYTES_MAX)
                {
                    net.close_now(conn);
                }
            }
            Event::EndOfStream { conn } => net.close(conn),
            Event::Closed { conn, .. } => {
                self.begun.remove(&conn);
            }
            // Nothing to do on arrival; the others were not asked for.
            Event::Accepted { .. }
            | Event::AcceptFailed { .. }
            | Event::Connected { .. }
            | Event::ConnectFailed { .. }
            | Event::Drained { .. }
            | Event::Woken
            | Event::Synced { .. } => {}
        }
    }

    /// How many whole requests the bytes begin with, and how long they are together.
    fn requests(&self, bytes: &[u8]) -> (usize, usize) {
        let (mut count, mut used) = (0, 0);
        while let Some(length) = self.request_length(&bytes[used..]) {
            used += length;
            count += 1;
        }
        (count, used)
    }

    /// The length of the request that the bytes begin with, once all of it is there.
    fn request_length(&self, bytes: &[u8]) -> Option<usize> {
        let head = self.head_end.find(bytes)? + 4;
        let body = self.length.find(&bytes[..head]).map_or(0, |at| {
            let digits = bytes[at + self.length.needle().len()..].iter().take_while(|b| b.is_ascii_digit());
            digits.fold(0_usize, |length, digit| {
                length.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
            })
        });
        let whole = head.saturating_add(body);
        (whole <= bytes.len()).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345";
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn whole_requests_are_counted_wherever_the_bytes_end() {
        let floor = Floor::default();
        let both = [POST, GET].concat();
        for end in 0..=both.len() {
            let expected = match end {
                _ if end < POST.len() => (0, 0),
                _ if end < both.len() => (1, POST.len()),
                _ => (2, both.len()),
            };
            assert_eq!(floor.requests(&both[..end]), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_length_beyond_everything_never_ends_and_never_overflows() {
        let request = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", "9".repeat(40));
        assert_eq!(Floor::default().requests(request.as_bytes()), (0, 0));
    }

    #[test]
    fn the_answer_says_how_long_it_is() {
        let (head, body) = std::str::from_utf8(ANSWER).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
