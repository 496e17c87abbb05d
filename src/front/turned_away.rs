//! Connections that find no room: told so, and let go.
//!
//! ```text
//! accepted, and there is room      served
//! accepted, and there is none      its first bytes, its end, or PATIENCE_NANOS → 503, our direction shut, the rest of
//!                                  what it sends is dropped until it ends (`shard/src/net/close.rs`)
//! TURNED_AWAY_MAX of them are open and another address is beyond its limit     503 and closed, at once
//! no slot is left in the ring      it waits in the backlog
//! ```
//!
//! Always: who is served keeps its place; those turned away have slots of their own beside `http.connections_max`, so
//! that no descriptor is taken from anybody, and one address' crowd cannot fill them up to the last one.
//! The first bytes are waited for because many clients take an answer that comes before their request for a broken
//! connection.
//! Not here: how many come from an address (`shared/addresses.rs`), what the answer says (`api.rs`).

use super::Front;
use super::reply::{Payload, Reply};
use crate::api::Refusal;
use shard::net::ConnId;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Connections without a place that are open at once: waited for, or reading their answer.
pub const TURNED_AWAY_MAX: u32 = 256;
/// How long a request is waited for before the answer goes out without one.
const PATIENCE_NANOS: u64 = 1_000_000_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct TurnedAway {
    /// Not told yet, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// Open, told or not.
    open: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    conn: ConnId,
    cause: Cause,
    answer_at: u64,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug)]
enum Cause {
    InAll,
    Address,
}

impl TurnedAway {
    /// Whether the connection has no place and was not told yet.
    pub fn is_waiting(&self, conn: ConnId) -> bool {
        // At nearly all times nobody is.
        !self.waiting.is_empty() && self.waiting.iter().any(|waiting| waiting.conn == conn)
    }

    /// When the next one is told in any case, in monotonic nanoseconds.
    pub fn answer_at(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.answer_at)
    }

    /// One of them is gone.
    pub fn closed(&mut self, conn: ConnId) {
        self.open -= 1;
        self.take(conn);
    }

    fn take(&mut self, conn: ConnId) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.conn == conn)?;
        self.waiting.remove(at)
    }
}

impl Front {
    /// Gives a new connection its place, or none.
    pub(super) fn welcome(&mut self, conn: ConnId, address: IpAddr) {
        let cause = if self.exchange.open_count() >= self.connections_max {
            Cause::InAll
        } else {
            match self.shared.addresses.as_ref().map_or(Ok(None), |addresses| addresses.enter(address)) {
                Ok(place) => return self.exchange.open(conn, address, place),
                Err(_) => Cause::Address,
            }
        };
        let counters = &self.shared.shards[self.index].front;
        match cause {
            Cause::InAll => counters.connections_refused.add(1),
            Cause::Address => counters.connections_refused_address.add(1),
        }
        self.turned_away.open += 1;
        let waiting = Waiting { conn, cause, answer_at: self.exchange.now.nanos + PATIENCE_NANOS };
        if self.turned_away.open > TURNED_AWAY_MAX || self.shared.is_stopping() {
            self.tell(waiting, false);
            // Before it can linger, for there is no slot to do that in.
            self.net.close(conn);
        } else {
            self.turned_away.waiting.push_back(waiting);
        }
    }

    /// Something came on a connection that waits for its answer.
    pub(super) fn tell_away(&mut self, conn: ConnId, head_only: bool) {
        if let Some(waiting) = self.turned_away.take(conn) {
            self.tell(waiting, head_only);
            self.net.close_lingering(conn);
        }
    }

    /// Tells those from whom nothing came.
    pub(super) fn tell_late(&mut self) {
        let now = self.exchange.now.nanos;
        while let Some(late) = self.turned_away.waiting.pop_front_if(|waiting| waiting.answer_at <= now) {
            self.tell(late, false);
            self.net.close_lingering(late.conn);
        }
    }

    /// The process is on its way out.
    pub(super) fn tell_all_away(&mut self) {
        for waiting in std::mem::take(&mut self.turned_away.waiting) {
            self.tell(waiting, false);
            self.net.close(waiting.conn);
        }
    }

    fn tell(&mut self, waiting: Waiting, head_only: bool) {
        let config = &self.shared.config;
        let refusal = match waiting.cause {
            Cause::InAll => Refusal::connections_full(self.connections_max, config.http_connections_max),
            Cause::Address => {
                Refusal::address_full(config.http_connections_per_address_max.map_or(0, |max| max.get()))
            }
        };
        let reply = Reply {
            conn: waiting.conn,
            head_only,
            connection: http::Connection::Close,
            payload: Payload::Refused(refusal),
            any_origin: true,
            arrived_nanos: self.exchange.now.nanos,
            log: None,
        };
        self.net.send_with(waiting.conn, |out| self.renderer.render(&reply, out));
    }
}
