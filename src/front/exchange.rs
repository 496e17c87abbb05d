//! Requests in, replies out, for all connections of one loop. Owns no socket: bytes come in as slices, and
//! replies lie in order in [`Exchange::replies`] until the turn's end.
//!
//! Always: per connection, answers leave in the order of the requests. So an answer that waits for the
//! journal holds back those behind it, and a query holds back the parsing of what follows it.
//! Read next: `exchange/receive.rs` for what becomes of bytes, `exchange/answer.rs` of a request, `exchange/body.rs` of its
//! samples, `exchange/large.rs` for bodies that take several turns, `exchange/held.rs` for those that wait for
//! the executors, `exchange/limited.rs` for rate limits, `exchange/expired.rs` for those whose time is over,
//! `exchange/export.rs` for answers that go out page by page.
//! Not here: when a reply may go (`front.rs`), how it looks (`reply.rs`), how a body is taken (`intake.rs`).

mod answer;
mod body;
mod expired;
mod export;
mod held;
mod large;
mod limited;
mod receive;

pub use large::{LARGE_BODY_BYTES, LargeBatch, LargeBody};

use super::connection::{Connection, Unfinished};
use super::gate::Gate;
use super::intake::Intake;
use super::rate_limit::{Portion, RateLimit};
use super::reply::Reply;
use super::withheld::Pending;
use crate::api::Door;
use crate::config::Durability;
use crate::export::ExportPage;
use crate::fan_in::Inquiry;
use crate::shared::{Place, Shared};
use held::COMMON_BODY_JOURNAL_BYTES;
use http::{ContentCoding, Limits};
use ingest::TimeBounds;
use shard::mesh::Outbox;
use shard::net::ConnId;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of bodies decoded, and of answers made, before what they gave is journaled and sent.
pub(super) const TURN_BYTES_MAX: usize = 256 * 1024;
/// Answers made before they are sent.
const TURN_ANSWERS_MAX: usize = 4096;
/// Bytes held back on a connection that waits for an answer, before reading is paused. It is paused before that where
/// there is no room for more; what has been received by then is kept all the same, for a refusal would overtake the
/// answer. That is as much as the loop's receive buffers hold, on as many connections as have a query or a large body
/// out, wait for a rate limit's word, or pipeline more than their share of a turn.
const HELD_BACK_BYTES_MAX: usize = 64 * 1024;

/// What the head of a body asks for.
pub struct Terms<'a> {
    /// In which form its samples come.
    door: Door,
    /// The level its answer has to reach.
    level: Durability,
    /// The id a header gave its client.
    client: Option<Cow<'a, [u8]>>,
    /// How the body is compressed.
    coding: Option<ContentCoding>,
}

impl Terms<'_> {
    /// In which form its samples come.
    pub fn door(&self) -> Door {
        self.door
    }

    /// As it is kept while the request waits.
    fn into_owned(self) -> Terms<'static> {
        let Terms { door, level, client, coding } = self;
        Terms { door, level, client: client.map(|id| Cow::Owned(id.into_owned())), coding }
    }
}

/// The state of all conversations of one loop.
pub struct Exchange {
    /// The way in.
    pub intake: Intake,
    /// This turn's answers, in order of their requests.
    pub replies: Vec<Pending<Reply>>,
    /// This turn's questions, to be sent once the turn's samples are published.
    pub questions: Vec<(ConnId, Box<Inquiry>)>,
    /// This turn's pages of exports, to be asked for like them.
    pub pages: Vec<(ConnId, Box<ExportPage>)>,
    /// This turn's large bodies, to be sent to the executor.
    pub large_bodies: Vec<(ConnId, Box<LargeBody>)>,
    /// Connections whose reading is to be paused.
    pub pauses: Vec<ConnId>,
    /// Connections whose requests were left where they lie, and nothing holds them back any more; each once.
    pub look_again: Vec<ConnId>,
    /// Their time is over: to be ended, a few a turn.
    expired: VecDeque<ConnId>,
    /// Counts turns, for what each connection has taken of the present one.
    turn: u32,
    /// Queries that are out.
    pub asked: usize,
    /// Bytes of bodies decoded, and of answers made, since the last journaling.
    pub decoded_bytes: usize,
    /// The moment of this turn.
    pub now: Now,
    /// As of this turn's beginning, so that what came before it in the inbox is known.
    is_ready: bool,
    /// Large batches that are being taken, with the rows that have been.
    large: VecDeque<(ConnId, Box<LargeBatch>, usize)>,
    /// The first of them found no place for its next rows and waits until then.
    large_retry_at: Option<u64>,
    handed_over_bytes: usize,
    /// What large bodies may take of memory, with the executor and here.
    large_bytes_max: usize,
    /// Whether samples are taken just now.
    pub gate: Gate,
    /// Bytes of room in the journal with which the gate opens: for a common body, or for the one that waits.
    journal_room_wanted: usize,
    /// Connections whose next request has samples and waits for that, longest first.
    held: VecDeque<ConnId>,
    /// One of them has its turn.
    letting_in: bool,
    /// Requests of each client in a second, where they are limited.
    rate_limit: Option<RateLimit<ConnId>>,
    to_loops: Outbox<Portion>,
    shared: Arc<Shared>,
    index: usize,
    /// Bytes of messages that are not whole, and of requests that wait, on all connections.
    unfinished_bytes: usize,
    /// Its share of the memory budget.
    unfinished_bytes_max: usize,
    connections: Vec<Option<Connection>>,
    /// How many of them there are.
    open: u32,
    limits: Limits,
    bounds: TimeBounds,
    /// The plain form of the last compressed body; kept for its room.
    plain: Vec<u8>,
}

/// One reading of the clocks, for a whole turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Unix time in milliseconds.
    pub unix_ms: i64,
    /// Microseconds into that millisecond.
    pub micros: u16,
    /// Monotonic, in nanoseconds.
    pub nanos: u64,
}

impl Now {
    /// As of this moment.
    pub fn read() -> Now {
        let unix_micros = shard::clock::unix_micros();
        Now {
            unix_ms: unix_micros.div_euclid(1_000),
            micros: unix_micros.rem_euclid(1_000) as u16,
            nanos: shard::clock::monotonic_nanos(),
        }
    }

    /// Monotonic, in whole seconds.
    pub fn seconds(self) -> u32 {
        (self.nanos / 1_000_000_000) as u32
    }
}

/// Whether the next request of a connection may be looked at.
enum Flow {
    Next,
    Wait,
}

impl Exchange {
    /// No conversation yet.
    pub fn new(shared: Arc<Shared>, index: usize, intake: Intake, to_loops: Outbox<Portion>) -> Exchange {
        let limits = Limits {
            head_bytes_max: shared.config.http_head_bytes_max,
            body_bytes_max: shared.config.http_body_bytes_max,
        };
        let unfinished_bytes_max = shared.unfinished_bytes_max();
        Exchange {
            intake,
            replies: Vec::new(),
            questions: Vec::new(),
            pages: Vec::new(),
            large_bodies: Vec::new(),
            large: VecDeque::new(),
            large_retry_at: None,
            handed_over_bytes: 0,
            large_bytes_max: shared.large_bytes_max(),
            gate: Gate::default(),
            journal_room_wanted: COMMON_BODY_JOURNAL_BYTES,
            held: VecDeque::new(),
            letting_in: false,
            rate_limit: shared
                .config
                .ingest_rate_limit_per_client
                .map(|limit| RateLimit::new(limit.get(), index, shared.shard_count(), shared.client_seed)),
            to_loops,
            pauses: Vec::new(),
            look_again: Vec::new(),
            expired: VecDeque::new(),
            turn: 0,
            asked: 0,
            decoded_bytes: 0,
            now: Now::default(),
            is_ready: false,
            shared,
            index,
            unfinished_bytes: 0,
            unfinished_bytes_max,
            connections: Vec::new(),
            open: 0,
            limits,
            bounds: TimeBounds { oldest: None, newest: 0 },
            plain: Vec::new(),
        }
    }

    /// Sets the moment of the turn, and with it which times of samples are taken.
    pub fn begin_turn(&mut self, now: Now) {
        self.now = now;
        // 0 is no turn's number.
        self.turn = self.turn.wrapping_add(1).max(1);
        self.intake.begin_turn();
        self.decoded_bytes = 0;
        self.is_ready = self.shared.is_ready();
        let config = &self.shared.config;
        self.bounds = TimeBounds {
            oldest: config.oldest_ms(now.unix_ms),
            newest: now.unix_ms + config.ingest_future_max.as_millis() as i64,
        };
        self.step_gate();
    }

    /// A connection was accepted, and has its place among those of its address.
    pub fn open(&mut self, id: ConnId, peer: IpAddr, place: Option<Place>) {
        let index = id.index();
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(Connection::new(id, peer, place, self.now.seconds()));
        self.open += 1;
    }

    /// A connection is gone; what it waited for is dropped when it comes. False when there was no such one.
    pub fn closed(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let waiting_bytes = connection.asked.as_ref().map_or(0, |asked| asked.body_bytes());
        let was_heard = connection.was_heard();
        let place = connection.place.take();
        let waits_for_client = connection.asked.as_ref().is_some_and(|asked| asked.is_between_pages());
        if let (Some(addresses), Some(place)) = (&self.shared.addresses, place) {
            addresses.leave(place);
        }
        if !was_heard {
            self.shared.shards[self.index].front.connections_unused.add(1);
        }
        self.asked -= usize::from(waits_for_client);
        self.unfinished_bytes -= waiting_bytes;
        self.take_unfinished(id);
        self.connections[id.index()] = None;
        self.open -= 1;
        true
    }

    /// How many connections are open.
    pub fn open_count(&self) -> u32 {
        self.open
    }

    /// Keeps the beginning of a message until the rest comes, unless nothing more is read from its client.
    fn keep_unfinished(&mut self, id: ConnId, unfinished: Box<Unfinished>) {
        let len = unfinished.bytes.len();
        if let Some(connection) = self.connection(id).filter(|connection| !connection.closing) {
            connection.unfinished = Some(unfinished);
            self.unfinished_bytes += len;
        }
    }

    fn take_unfinished(&mut self, id: ConnId) -> Option<Box<Unfinished>> {
        let unfinished = self.connection(id)?.unfinished.take()?;
        self.unfinished_bytes -= unfinished.bytes.len();
        Some(unfinished)
    }

    /// The connection, unless its slot has a new holder.
    pub fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.connections.get_mut(id.index())?.as_mut().filter(|connection| connection.id == id)
    }

    /// All open connections.
    pub fn open_connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten()
    }
}
