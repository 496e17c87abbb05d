//! Requests in, replies out, for all connections of one loop. Owns no socket: bytes come in as slices, and
//! replies lie in order in [`Exchange::replies`] until the turn's end.
//!
//! Always: per connection, answers leave in the order of the requests. So an answer that waits for the
//! journal holds back those behind it, and a query holds back the parsing of what follows it.
//! Read next: `exchange/large.rs` for bodies that take several turns, `exchange/held.rs` for those that wait for
//! the executors, `exchange/limited.rs` for rate limits, `exchange/expired.rs` for those whose time is over.
//! Not here: when a reply may go (`front.rs`), how it looks (`reply.rs`), how a body is taken (`intake.rs`).

mod expired;
mod held;
mod large;
mod limited;

pub use large::{LargeBatch, LargeBody};

use super::connection::{Asked, Awaited, Connection, REQUEST_SHARE, SHARE_OF_TURN, Unfinished};
use super::gate::Gate;
use super::intake::{Accepted, Intake};
use super::rate_limit::{Portion, RateLimit, Verdict};
use super::reply::{LogEntry, Payload, Reply};
use super::withheld::Pending;
use crate::alerts::AlertsQuery;
use crate::api::{self, Door, IntakeError, Refusal, Route};
use crate::config::Durability;
use crate::delete_series::DeleteSeries;
use crate::fan_in::{Inquiry, QueryAnswer, QueryError};
use crate::own_metrics;
use crate::shared::{Place, Shared};
use held::{journal_bytes_max, may_carry_samples};
use http::{CodingError, ContentCoding, Decoded, Limits, Method, NotAtOnce, Request};
use ingest::{LineUnit, RemoteWritten, TimeBounds};
use large::{LARGE_BODY_BYTES, turn_bytes_max};
use query::Query;
use sha2::{Digest, Sha256};
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
    /// What a body of ordinary size takes of the journal at most.
    body_journal_bytes_max: usize,
    /// That, or what a large one waits for: bytes of room with which the gate opens.
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
        let body_journal_bytes_max = journal_bytes_max(LARGE_BODY_BYTES.min(limits.body_bytes_max));
        Exchange {
            intake,
            replies: Vec::new(),
            questions: Vec::new(),
            large_bodies: Vec::new(),
            large: VecDeque::new(),
            large_retry_at: None,
            handed_over_bytes: 0,
            large_bytes_max: shared.large_bytes_max(),
            gate: Gate::default(),
            body_journal_bytes_max,
            journal_room_wanted: body_journal_bytes_max,
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
        if let (Some(addresses), Some(place)) = (&self.shared.addresses, place) {
            addresses.leave(place);
        }
        if !was_heard {
            self.shared.shards[self.index].front.connections_unused.add(1);
        }
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

    /// Bytes came in. `takes_answers` is false when the client leaves too many answers unread.
    pub fn receive(&mut self, id: ConnId, bytes: &mut [u8], takes_answers: bool) {
        let now_s = self.now.seconds();
        let has_room = self.unfinished_bytes + bytes.len() <= self.unfinished_bytes_max;
        let turn = self.turn;
        let Some(connection) = self.connection(id) else { return };
        connection.active_s = now_s;
        if connection.closing {
            return;
        }
        // Whoever stands in line has its turn there, and none by sending more.
        let is_spent = connection.share_left(turn) == 0 || connection.looks_again;
        let waits = connection.waits() || !takes_answers || is_spent;
        let is_owed_an_answer = connection.asked.is_some() || connection.looks_again;
        if let Some(unfinished) = &mut connection.unfinished {
            if !has_room && !is_owed_an_answer {
                self.shared.shards[self.index].front.overload_refusals.add(1);
                self.refuse_for_good(id, IntakeError::Overloaded.into());
                return;
            }
            unfinished.bytes.extend_from_slice(bytes);
            self.unfinished_bytes += bytes.len();
            if !waits {
                self.resume(id);
                return;
            }
        } else if waits {
            let unfinished = Unfinished { bytes: bytes.to_vec(), since_s: now_s, ..Unfinished::default() };
            self.keep_unfinished(id, Box::new(unfinished));
        } else {
            // The common case: whole requests, taken where they lie.
            let mut unfinished = Unfinished { since_s: now_s, ..Unfinished::default() };
            let used = self.converse(id, bytes, &mut unfinished);
            if used < bytes.len() {
                unfinished.bytes.extend_from_slice(&bytes[used..]);
                self.keep_unfinished(id, Box::new(unfinished));
            }
            return;
        }
        if is_spent {
            self.stand_again(id);
        }
        let Some(connection) = self.connection(id) else { return };
        let is_beyond =
            connection.held_back_bytes() > HELD_BACK_BYTES_MAX || (!has_room && is_owed_an_answer);
        if is_beyond && !connection.paused {
            connection.paused = true;
            self.pauses.push(id);
        }
    }

    /// What held its bytes back does so no longer: the time for what is not whole begins now.
    pub fn restart_clock(&mut self, id: ConnId) {
        let now_s = self.now.seconds();
        if let Some(connection) = self.connection(id) {
            connection.active_s = now_s;
            if let Some(unfinished) = &mut connection.unfinished {
                unfinished.since_s = now_s;
            }
        }
    }

    /// Goes on with the bytes that were held back, if nothing else stands before them.
    pub fn resume(&mut self, id: ConnId) {
        let now_s = self.now.seconds();
        let turn = self.turn;
        let Some(connection) = self.connection(id).filter(|connection| !connection.waits()) else { return };
        if connection.share_left(turn) == 0 {
            return self.stand_again(id);
        }
        let Some(mut unfinished) = self.take_unfinished(id) else { return };
        let mut bytes = std::mem::take(&mut unfinished.bytes);
        let used = self.converse(id, &mut bytes, &mut unfinished);
        if used < bytes.len() {
            if used > 0 {
                bytes.drain(..used);
                unfinished.since_s = now_s;
            }
            unfinished.bytes = bytes;
            self.keep_unfinished(id, unfinished);
        }
    }

    /// Lets the connection be looked at in the next turn, unless it stands there already.
    pub fn stand_again(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id).filter(|connection| !connection.looks_again) {
            connection.looks_again = true;
            self.look_again.push(id);
        }
    }

    /// What the connection has taken of this turn.
    pub fn taken_by(&mut self, id: ConnId) -> u32 {
        let turn = self.turn;
        self.connection(id).map_or(0, |connection| SHARE_OF_TURN - connection.share_left(turn))
    }

    /// Whether a connection whose reading is paused may be read from: nothing holds back what came before, or there
    /// is little of it left and room for more.
    pub fn may_read_on(&mut self, id: ConnId) -> bool {
        let has_room = self.unfinished_bytes < self.unfinished_bytes_max;
        self.connection(id).is_some_and(|connection| {
            let has_much = !has_room || connection.held_back_bytes() > HELD_BACK_BYTES_MAX / 2;
            let is_held_up = connection.waits() || (connection.looks_again && has_much);
            !is_held_up
        })
    }

    /// Whether so much has come together that it is to be journaled and sent first.
    pub fn is_full(&self) -> bool {
        self.decoded_bytes >= TURN_BYTES_MAX || self.replies.len() >= TURN_ANSWERS_MAX
    }

    /// Takes whole requests off the front of `bytes`; says how many bytes they were.
    fn converse(&mut self, id: ConnId, bytes: &mut [u8], unfinished: &mut Unfinished) -> usize {
        let turn = self.turn;
        let share_left = self.connection(id).map_or(0, |connection| connection.share_left(turn));
        let mut share_left = share_left as usize;
        let mut used = 0;
        while used < bytes.len() {
            if may_carry_samples(&bytes[used..])
                && (self.holds_back() || self.shut_for_file(self.body_journal_bytes_max))
            {
                self.hold(id);
                break;
            }
            let decoded = unfinished.decoder.decode(&mut bytes[used..], &self.limits);
            match decoded {
                Ok(Decoded::Request { request, consumed }) => {
                    used += consumed;
                    let decoded_before = self.decoded_bytes;
                    let flow = self.answer(id, request);
                    let taken = REQUEST_SHARE + self.decoded_bytes - decoded_before;
                    share_left = share_left.saturating_sub(taken);
                    *unfinished = Unfinished { since_s: self.now.seconds(), ..Unfinished::default() };
                    if let Flow::Wait = flow {
                        break;
                    }
                    if (share_left == 0 || self.is_full()) && used < bytes.len() {
                        // One client's pipeline is not to grow a turn without end.
                        self.stand_again(id);
                        break;
                    }
                }
                Ok(Decoded::Partial { head_complete, wants_continue, .. }) => {
                    if head_complete && !unfinished.head_complete {
                        unfinished.head_complete = true;
                        unfinished.since_s = self.now.seconds();
                    }
                    if wants_continue && !unfinished.continued {
                        unfinished.continued = true;
                        self.reply(id, false, http::Connection::KeepAlive, Payload::Continue);
                    }
                    break;
                }
                Err(refusal) => {
                    let counters = &self.shared.shards[self.index].front;
                    counters.validation_errors.add(1);
                    counters.bad_messages.note(&refusal);
                    self.refuse_for_good(id, Refusal::from(&refusal));
                    used = bytes.len();
                }
            }
        }
        if let Some(connection) = self.connection(id) {
            connection.served_in = turn;
            connection.share_left = share_left as u32;
        }
        used
    }

    /// Decides the answer to one request.
    fn answer(&mut self, id: ConnId, request: Request<'_>) -> Flow {
        self.shared.shards[self.index].front.requests.add(1);
        let head_only = request.method == Method::Head;
        let mut connection = request.connection;
        if self.shared.is_stopping() {
            connection = http::Connection::Close;
        }
        let log = self.log_entry(&request);
        let route = api::route(request.method, request.path);
        let any_origin = api::any_origin(request.method, &route);
        let (payload, level) = match route {
            Ok(Route::Ingest(door)) if self.gate == Gate::Refusing => {
                self.refused(IntakeError::Overloaded, door)
            }
            Ok(Route::Ingest(door)) => match self.terms(door, &request) {
                Ok(terms) => {
                    let verdict = self.limit(id, &terms);
                    let decided = match verdict {
                        Verdict::Pass { .. } => self.ingest(id, request.body, &terms),
                        Verdict::Wait => None,
                        verdict => Some(self.beyond_limit(verdict, door)),
                    };
                    match decided {
                        Some(decided) => decided,
                        None => {
                            let body = request.body;
                            let waits = verdict == Verdict::Wait;
                            let has_room = if waits {
                                self.may_await_portion(body)
                            } else {
                                self.may_hand_over(body, terms.coding)
                            };
                            if has_room {
                                let (arrived_nanos, log, terms) = (self.now.nanos, log, terms.into_owned());
                                let asked =
                                    |awaited| Asked { head_only, connection, arrived_nanos, log, awaited };
                                if waits {
                                    self.await_portion(id, body, terms, asked);
                                } else {
                                    self.hand_over(id, body, terms, asked);
                                }
                                return Flow::Wait;
                            }
                            self.refused(IntakeError::Overloaded, door)
                        }
                    }
                }
                Err(refusal) => {
                    let refusal = Refusal { shape: door.refusal_shape(), ..refusal };
                    (Payload::Refused(refusal), Durability::Memory)
                }
            },
            Ok(route @ (Route::Query(_) | Route::Alerts | Route::DeleteSeries)) => {
                match self.inquiry(route, &request) {
                    Ok(inquiry) => {
                        self.questions.push((id, Box::new(inquiry)));
                        self.asked += 1;
                        let arrived_nanos = self.now.nanos;
                        if let Some(held) = self.connection(id) {
                            let awaited = Awaited::Answer;
                            let asked = Asked { head_only, connection, arrived_nanos, log, awaited };
                            held.asked = Some(Box::new(asked));
                        }
                        return Flow::Wait;
                    }
                    Err(refusal) => (Payload::Refused(refusal), Durability::Memory),
                }
            }
            Ok(route) => {
                let payload = self.read(route, &request);
                if let Payload::Body { bytes, .. } = &payload {
                    self.decoded_bytes += bytes.len();
                }
                (payload, Durability::Memory)
            }
            Err(refusal) => (Payload::Refused(refusal), Durability::Memory),
        };
        let arrived_nanos = self.now.nanos;
        self.queue(Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log }, level)
    }

    fn log_entry(&self, request: &Request<'_>) -> Option<Box<LogEntry>> {
        self.shared.config.access_log.then(|| {
            let separator = if request.query.is_empty() { "" } else { "?" };
            let method = request.method.name();
            Box::new(LogEntry { request: format!("{method} {}{separator}{}", request.path, request.query) })
        })
    }

    /// What the head of a request with samples asks for, if it can be had now.
    fn terms<'b>(&self, door: Door, request: &Request<'b>) -> Result<Terms<'b>, Refusal> {
        if !self.is_ready {
            return Err(IntakeError::Starting.into());
        }
        if self.shared.is_stopping() {
            return Err(IntakeError::Stopping.into());
        }
        let level = match request.header("durability") {
            None => self.shared.config.ingest_durability,
            Some(word) => std::str::from_utf8(word)
                .ok()
                .and_then(Durability::from_name)
                .ok_or_else(Refusal::unknown_durability)?,
        };
        if door == Door::RemoteWrite && is_remote_write_2(request) {
            return Err(Refusal::remote_write_version());
        }
        let door = match door {
            Door::Lines { version, .. } => Door::Lines { version, unit: line_unit(request)? },
            door => door,
        };
        let coding = match ContentCoding::of(&request.headers).map_err(|_| Refusal::content_encoding())? {
            // The protocol knows no other form, and not every sender says so.
            None if door == Door::RemoteWrite && request.header("content-encoding").is_none() => {
                Some(ContentCoding::Snappy)
            }
            coding => coding,
        };
        let client = match (request.header("authorization"), request.header("x-client-id")) {
            (Some(credentials), _) => Some(Cow::Owned(client_of_credentials(credentials))),
            (None, Some(id)) if id.len() > ingest::CLIENT_ID_BYTES_MAX => {
                return Err(Refusal::client_id_too_long());
            }
            (None, named) => named.map(Cow::Borrowed),
        };
        Ok(Terms { door, level, client, coding })
    }

    /// Takes a body here and now, unless it is too large for a turn.
    fn ingest(&mut self, id: ConnId, body: &[u8], terms: &Terms<'_>) -> Option<(Payload, Durability)> {
        let at_once_max = turn_bytes_max(terms.door);
        if body.len() > at_once_max {
            return None;
        }
        let Some(coding) = terms.coding else { return Some(self.ingest_plain(id, body, terms)) };
        // How large it will be is known only when it is: a body that passes this bound was tried in vain, at the
        // cost of what a turn may decode anyway.
        let bytes_max = at_once_max.min(self.limits.body_bytes_max);
        let mut plain = std::mem::take(&mut self.plain);
        self.decoded_bytes += body.len();
        let decided = match coding.decompress(body, bytes_max, &mut plain) {
            Ok(()) => Some(self.ingest_plain(id, &plain, terms)),
            Err(error) => {
                self.decoded_bytes += plain.len();
                match error {
                    NotAtOnce::GivesLittle => None,
                    NotAtOnce::Wrong(CodingError::TooLarge { .. })
                        if bytes_max < self.limits.body_bytes_max =>
                    {
                        None
                    }
                    NotAtOnce::Wrong(error) => Some(self.refused(IntakeError::Coding(error), terms.door)),
                }
            }
        };
        self.plain = plain;
        decided
    }

    fn ingest_plain(&mut self, id: ConnId, body: &[u8], terms: &Terms<'_>) -> (Payload, Durability) {
        self.decoded_bytes += body.len();
        let slot = self.connections[id.index()].as_mut().expect("the request came in on it");
        let peer = (slot.peer, &mut slot.memo);
        let client = terms.client.as_deref();
        let accepted = self.intake.accept(terms.door, body, client, peer, self.now, &self.bounds);
        self.payload_of(accepted, terms.level, terms.door)
    }

    /// The answer to a body, and the level that it has to reach.
    fn payload_of(
        &self,
        accepted: Result<Accepted, IntakeError>,
        level: Durability,
        door: Door,
    ) -> (Payload, Durability) {
        let counters = &self.shared.shards[self.index].front;
        match accepted {
            Ok(accepted) => {
                counters.bodies_accepted.add(1);
                let payload = match accepted {
                    Accepted::Single => Payload::Accepted { count: None, level },
                    Accepted::Batch { count } => Payload::Accepted { count: Some(count), level },
                    Accepted::Remote { samples, written } => self.remote_payload(samples, &written, level),
                    Accepted::Lines { texts } => {
                        counters.texts_skipped.add(texts);
                        Payload::Kept { level, shape: door.refusal_shape() }
                    }
                };
                (payload, level)
            }
            Err(error) => {
                match error {
                    IntakeError::Body(_)
                    | IntakeError::RemoteWrite(_)
                    | IntakeError::Lines(_)
                    | IntakeError::Coding(_)
                    | IntakeError::Time { .. } => {
                        counters.validation_errors.add(1);
                    }
                    IntakeError::MemoryFull(_) => counters.memory_refusals.add(1),
                    IntakeError::SeriesLimit { .. } => counters.series_refusals.add(1),
                    _ => counters.overload_refusals.add(1),
                }
                let refusal = Refusal { shape: door.refusal_shape(), ..error.into() };
                (Payload::Refused(refusal), Durability::Memory)
            }
        }
    }

    fn refused(&self, error: IntakeError, door: Door) -> (Payload, Durability) {
        self.payload_of(Err(error), Durability::Memory, door)
    }

    /// Samples that were left out make the answer a refusal, which waits for the others as their acknowledgement would:
    /// its sender will not send them again.
    fn remote_payload(&self, samples: usize, written: &RemoteWritten, level: Durability) -> Payload {
        let counters = &self.shared.shards[self.index].front;
        let shape = Door::RemoteWrite.refusal_shape();
        counters.exemplars_skipped.add(written.exemplars);
        counters.metadata_skipped.add(written.metadata);
        if written.histograms > 0 && counters.histograms_skipped.get() == 0 {
            crate::log::warning(format_args!(
                "loop {}: remote write brings native histograms, which are not kept \
                 (ringwatch_ingest_histograms_skipped_total counts them)",
                self.index
            ));
        }
        counters.histograms_skipped.add(written.histograms);
        match &written.left_out {
            None => Payload::Kept { level, shape },
            Some(left_out) => {
                counters.samples_left_out.add(left_out.samples as u64);
                counters.validation_errors.add(1);
                let refusal = Refusal::left_out(left_out, samples + left_out.samples);
                Payload::Partly(Refusal { shape, ..refusal })
            }
        }
    }

    fn inquiry(&self, route: Route, request: &Request<'_>) -> Result<Inquiry, Refusal> {
        if !self.is_ready {
            return Err(QueryError::Starting.into());
        }
        let concurrency = self.shared.config.query_concurrency;
        if self.asked >= concurrency {
            return Err(QueryError::TooMany { concurrency }.into());
        }
        let mut pairs = Vec::new();
        for pair in http::parameters(request.query) {
            pairs.push(pair.map_err(Refusal::from)?);
        }
        let pairs = pairs.into_iter();
        let inquiry = match route {
            Route::Query(endpoint) => Inquiry::Samples(Query::from_parameters(endpoint, pairs)?),
            Route::DeleteSeries if !self.shared.config.enable_admin => return Err(Refusal::admin_disabled()),
            Route::DeleteSeries => {
                let read = DeleteSeries::from_parameters(pairs);
                Inquiry::Delete(read.map_err(|error| Refusal::from(error).prometheus())?)
            }
            _ => Inquiry::Alerts(AlertsQuery::from_parameters(pairs)?),
        };
        Ok(inquiry)
    }

    fn read(&self, route: Route, request: &Request<'_>) -> Payload {
        const JSON: &str = "application/json";
        const TEXT: &str = "text/plain; charset=utf-8";
        let body =
            |status, content_type, bytes: &[u8]| Payload::Body { status, content_type, bytes: bytes.into() };
        match route {
            Route::Options(methods) => Payload::Allow(methods),
            Route::Index => body(200, TEXT, api::INDEX.as_bytes()),
            Route::Ping => body(204, "", b""),
            Route::Alive => body(200, TEXT, b"ringwatch is up\n"),
            Route::Ready if self.shared.is_ready() && !self.shared.is_stopping() => {
                body(200, TEXT, b"ringwatch is ready\n")
            }
            Route::Ready => body(503, TEXT, b"ringwatch is replaying its journal, or stopping\n"),
            Route::Health => {
                let (status, bytes) = self.health();
                body(status, JSON, bytes.as_bytes())
            }
            Route::OwnMetrics if accepts_json(request) => {
                body(200, JSON, own_metrics::json(&self.shared).as_bytes())
            }
            _ => body(200, own_metrics::CONTENT_TYPE, own_metrics::text(&self.shared).as_bytes()),
        }
    }

    fn health(&self) -> (u16, String) {
        let depth = self.shared.queue_depth();
        let unhealthy = |reason: &str| {
            let mut quoted = Vec::new();
            query::json::write_text(reason, &mut quoted);
            let reason = String::from_utf8_lossy(&quoted);
            (503, format!(r#"{{"status":"unhealthy","queue_size":{depth},"reason":{reason}}}"#))
        };
        if self.shared.is_stopping() {
            unhealthy("shutting down")
        } else if !self.is_ready {
            unhealthy("the journal is being replayed")
        } else if self.is_out_of_journal() {
            unhealthy("the disk refuses writes")
        } else if let Some(cause) = self.intake.admissions.closed() {
            unhealthy(cause)
        } else {
            (200, format!(r#"{{"status":"healthy","queue_size":{depth}}}"#))
        }
    }

    /// An executor has answered a query.
    pub fn answered(&mut self, id: ConnId, answer: Result<QueryAnswer, QueryError>) {
        self.asked -= 1;
        let Some(asked) = self.connection(id).and_then(|held| held.asked.take()) else { return };
        let payload = match answer {
            Ok(QueryAnswer { body: None, .. }) => Payload::Done,
            Ok(QueryAnswer { body: Some(bytes), warnings }) if !warnings.is_empty() => {
                Payload::Incomplete { bytes, warnings }
            }
            Ok(QueryAnswer { body: Some(bytes), .. }) => {
                Payload::Body { status: 200, content_type: "application/json", bytes }
            }
            Err(error) => Payload::Refused(error.into()),
        };
        let any_origin = true;
        self.queue(asked.reply(id, payload, any_origin), Durability::Memory);
    }

    fn reply(&mut self, id: ConnId, head_only: bool, connection: http::Connection, payload: Payload) {
        let (any_origin, arrived_nanos, log) = (false, self.now.nanos, None);
        let reply = Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log };
        self.queue(reply, Durability::Memory);
    }

    /// Lines an answer up behind those before it, to go once its level is reached; after the last one nothing more
    /// is read from its client.
    fn queue(&mut self, reply: Reply, level: Durability) -> Flow {
        let (id, closes) = (reply.conn, reply.closes());
        let frame = self.intake.open_frame();
        self.replies.push(Pending { reply, level, frame });
        if closes {
            self.stop_reading(id);
            return Flow::Wait;
        }
        Flow::Next
    }

    /// The last answer on a connection that cannot go on.
    pub fn refuse_for_good(&mut self, id: ConnId, refusal: Refusal) {
        self.reply(id, false, http::Connection::Close, Payload::Refused(Refusal { close: true, ..refusal }));
    }

    fn stop_reading(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id) {
            connection.closing = true;
            self.take_unfinished(id);
        }
    }
}

/// `auth:` and half of SHA-256: the same credentials are the same client, and cannot be read back.
fn client_of_credentials(credentials: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = b"auth:".to_vec();
    for byte in Sha256::digest(credentials).iter().take(16) {
        id.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    id
}

/// The unit that the parameter `precision` names; the last one counts.
fn line_unit(request: &Request<'_>) -> Result<LineUnit, Refusal> {
    let mut unit = LineUnit::default();
    for pair in http::parameters(request.query) {
        let (key, value) = pair.map_err(Refusal::from)?;
        if key == "precision" && !value.is_empty() {
            unit = LineUnit::from_name(&value).ok_or_else(Refusal::unknown_precision)?;
        }
    }
    Ok(unit)
}

/// `Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request`.
fn is_remote_write_2(request: &Request<'_>) -> bool {
    const PROTO: &[u8] = b"io.prometheus.write.v2.";
    let content_type = request.header("content-type").unwrap_or_default();
    content_type.windows(PROTO.len()).any(|window| window.eq_ignore_ascii_case(PROTO))
}

fn accepts_json(request: &Request<'_>) -> bool {
    let accept = request.header("accept").unwrap_or_default();
    accept.windows(16).any(|window| window.eq_ignore_ascii_case(b"application/json"))
}
