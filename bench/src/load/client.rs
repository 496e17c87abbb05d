//! One connection's client: what it is doing, and what it remembers.

use crate::answers::Incoming;
use crate::pauses::Pauses;
use shard::net::ConnId;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// Connections from one source address at most: the kernel has about 28,000 ports for them.
const CONNECTIONS_PER_SOURCE: u32 = 25_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Answered, and waiting for its connection to end.
    Apart,
    Connecting,
    /// Free for a request, with a connection unless each request gets its own.
    Idle,
    InFlight,
    /// In the list of those that wait for a moment, with or without a connection.
    Resting,
    /// Its one request is answered or lost.
    Done,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) conn: Option<ConnId>,
    pub(super) state: State,
    /// When the request in flight, or that a connection is made for, was meant to leave.
    pub(super) intended: Instant,
    /// When its first byte was handed to the kernel.
    pub(super) sent: Instant,
    /// Whether a connection is made for a request.
    pub(super) carries: bool,
    /// Since when it could have sent.
    pub(super) idle_since: Instant,
    /// Requests sent so far.
    pub(super) sequence: u64,
    pub(super) incoming: Incoming,
    pub(super) pauses: Pauses,
}

impl Client {
    pub(super) fn new(now: Instant) -> Client {
        Client {
            conn: None,
            state: State::Apart,
            intended: now,
            sent: now,
            carries: false,
            idle_since: now,
            sequence: 0,
            incoming: Incoming::default(),
            pauses: Pauses::default(),
        }
    }
}

/// The address from which a client connects; the kernel's choice while one source is enough, or beyond loopback.
pub(super) fn source(client: u32, clients: u32, target: SocketAddr) -> Option<SocketAddr> {
    let is_loopback = matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if clients <= CONNECTIONS_PER_SOURCE || !is_loopback {
        return None;
    }
    let last = 1 + (client / CONNECTIONS_PER_SOURCE) % 254;
    Some(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last as u8), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_spread_over_loopback_sources() {
        let target: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(source(7, 25_000, target), None);
        assert_eq!(source(24_999, 60_000, target), Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!(source(25_000, 60_000, target), Some("127.0.0.2:0".parse().unwrap()));
        assert_eq!(source(59_999, 60_000, target), Some("127.0.0.3:0".parse().unwrap()));
        assert_eq!(source(59_999, 60_000, "10.0.0.1:80".parse().unwrap()), None);
    }
}
