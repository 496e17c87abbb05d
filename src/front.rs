//! One loop's turn: bytes → batch → journal → rings → answers, top to bottom on this page.
//!
//! Owner: one pinned thread per shard. It owns its ring, its sockets, its journal and its ends of the mesh.
//! Always: it never blocks but in its one wait, never runs a query, and allocates nothing per request in its
//! stride; a sample is answered only at the level that the answer names.
//! Not here: what bytes mean (`http`, `ingest`), where samples live (`service.rs`).
//! Read next: `front/exchange.rs` for requests, `front/intake.rs` for a body's way, `front/wal.rs` for the journal,
//! `front/answers.rs` and `front/withheld.rs` for the way out and for what a failing journal changes.

mod address;
mod admission;
mod connection;
mod exchange;
mod gate;
mod intake;
mod numbers;
mod rate_limit;
mod tick;
mod wal;

mod answers;
mod finish;
mod reply;
mod turned_away;
mod withheld;

#[cfg(test)]
mod tests;

pub use exchange::{LARGE_BODY_BYTES, LargeBatch, LargeBody, Now};
pub use gate::BATCHES_PENDING_MAX;
pub use intake::{Accepted, RING_PLACES_KEPT, is_json};
pub use rate_limit::Portion;
pub use reply::Reply;
pub use turned_away::TURNED_AWAY_MAX;
pub use wal::Wal;

use crate::access_log::AccessLog;
use crate::config::Durability;
use crate::fan_in::{Inquiry, QueryError};
use crate::message::{ToLoop, ToStore};
use crate::shared::{LATENCY_QUANTILES, Shared};
use connection::SHARE_OF_TURN;
use exchange::Exchange;
use gate::BATCHES_PENDING_LOW;
use hdrhistogram::Histogram;
use intake::Intake;
use reply::Renderer;
use shard::mesh::{Inbox, Outbox};
use shard::net::{ConnId, Event, Net, NetConfig, NetError, Wait};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::journal::JournalPosition;
use tick::Tick;
use turned_away::TurnedAway;
use withheld::Withheld;

/// Answers a client may leave unread before its requests are no longer looked at.
const UNREAD_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How late an executor may learn of a batch when nothing else wakes it (DESIGN §3).
const HANDOVER_NANOS: u64 = 5_000_000;
/// Sealed but unwritten journal bytes, when nobody waits for them.
const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;
/// Under load a sync begins no sooner than this after the last one began: it then carries several hundred
/// answers instead of some tens, for the same price.
const SYNC_SPACING_NANOS: u64 = 400_000;
/// Answers that one sync lets go, from which on there is load.
const SYNC_LOAD_ANSWERS: usize = 32;
/// How often a refused journal file is asked for again while samples are refused for want of it.
const FILE_RETRY_NANOS: u64 = 1_000_000_000;
/// The same while the present file has room. Each try fills a full disk to the last byte for a moment, and others
/// write there, too.
const FILE_RETRY_EARLY_NANOS: u64 = 30 * FILE_RETRY_NANOS;

/// What a loop needs to begin.
pub struct FrontParts {
    /// What all threads may read.
    pub shared: Arc<Shared>,
    /// Which loop.
    pub index: usize,
    /// Where to listen; the same port for all loops.
    pub listen: SocketAddr,
    /// Sizes of the ring and its tables; the connections that are served, those turned away come on top.
    pub net: NetConfig,
    /// Its journal, positioned behind everything that was recovered.
    pub wal: Wal,
    /// To the executors.
    pub outbox: Outbox<ToStore>,
    /// From the executors.
    pub inbox: Inbox<ToLoop>,
    /// To the other loops: clients' shares of their rate limits.
    pub to_loops: Outbox<Portion>,
    /// From the other loops.
    pub from_loops: Inbox<Portion>,
}

/// One loop.
pub struct Front {
    shared: Arc<Shared>,
    index: usize,
    net: Net,
    inbox: Inbox<ToLoop>,
    from_loops: Inbox<Portion>,
    exchange: Exchange,
    /// Connections that are served at most.
    connections_max: u32,
    /// Those that came beyond that.
    turned_away: TurnedAway,
    renderer: Renderer,
    access_log: Option<AccessLog>,
    /// Answers that wait until the journal is synced so far.
    withheld: Withheld<Reply>,
    /// When the last sync began, and how many answers it let go.
    sync_began_nanos: u64,
    sync_let_go: usize,
    /// Executors that are about to flush and want to know how far the journal is, and the end they wait for.
    position_asks: Vec<(usize, Option<JournalPosition>)>,
    /// When to wake which executor at the latest.
    handover_at: Vec<Option<u64>>,
    file_retry_at: Option<u64>,
    tick: Tick,
    latency: Histogram<u64>,
    stopping_since: Option<u64>,
    /// Connections to look at before the turn is over: their clients will send no more.
    ended: Vec<ConnId>,
}

impl Front {
    /// Opens the listener. Must run on the thread that will run the loop: the ring belongs to it.
    pub fn new(parts: FrontParts) -> Result<Front, NetError> {
        let FrontParts { shared, index, listen, net, wal, outbox, inbox, to_loops, from_loops } = parts;
        let connections_max = net.connections_max;
        let mut net = Net::new(NetConfig { connections_max: connections_max + TURNED_AWAY_MAX, ..net })?;
        net.wake_on(&shared.loop_bells[index])?;
        net.listen(listen, shared.config.http_backlog)?;
        shared.loop_is_listening();
        let now = Now::read();
        let intake = Intake::new(&shared, index, wal, outbox);
        Ok(Front {
            index,
            net,
            inbox,
            from_loops,
            exchange: Exchange::new(shared.clone(), index, intake, to_loops),
            connections_max,
            turned_away: TurnedAway::default(),
            renderer: Renderer::new(now.unix_ms),
            access_log: shared.config.access_log.then(|| AccessLog::new(shared.console.clone())),
            withheld: Withheld::new(),
            sync_began_nanos: 0,
            sync_let_go: 0,
            position_asks: Vec::new(),
            handover_at: vec![None; shared.shard_count()],
            file_retry_at: None,
            tick: Tick::new(),
            latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
                .expect("from 1 µs to 60 s at three digits is a legal histogram"),
            stopping_since: None,
            ended: Vec::new(),
            shared,
        })
    }

    /// Turns until the process stops.
    pub fn run(mut self) -> io::Result<()> {
        while !self.turn()? {}
        Ok(())
    }

    /// One turn; true when it was the last.
    fn turn(&mut self) -> io::Result<bool> {
        self.wait()?;
        self.exchange.begin_turn(Now::read());
        self.renderer.set_time(self.exchange.now.unix_ms);
        self.read_inbox();

        // Whoever was held comes before newcomers, and has a turn's room to itself: what others left for later can
        // fill turn after turn.
        self.let_in();
        self.commit_if_full();
        while let Some(event) = self.net.next_event() {
            self.tick.note(self.exchange.now.nanos);
            self.take(event);
            self.commit_if_full();
        }
        self.look_again();
        if let Some(conn) = self.exchange.take_large() {
            self.tick.note(self.exchange.now.nanos);
            self.resume(conn);
        }
        if self.shared.is_stopping() {
            self.exchange.stop_awaiting_portions();
        }
        self.tell_late();
        self.look_after();
        self.commit();
        self.close_ended();
        self.wake_executors();
        if let Some(log) = &mut self.access_log {
            log.flush();
        }

        Ok(self.shared.is_stopping() && self.finish())
    }

    /// The one wait of a turn.
    fn wait(&mut self) -> io::Result<()> {
        self.shared.loop_bells[self.index].prepare_sleep();
        let wait = self.how_long();
        let result = self.net.turn(wait);
        self.shared.loop_bells[self.index].awake();
        result
    }

    /// For a completion, the bell, or the nearest deadline; not at all while there is something to do. To be asked
    /// once the bell is told that we sleep.
    fn how_long(&mut self) -> Wait {
        let nearest =
            self.handover_at.iter().flatten().copied().chain(self.file_retry_at).chain(self.next_sync_at());
        let nearest = nearest
            .chain(self.exchange.gate.refuses_at(self.exchange.now.nanos))
            .chain(self.exchange.tend_limits_at());
        let nearest = nearest.chain(self.stopping_since.map(|_| self.exchange.now.nanos + 50_000_000));
        let nearest = nearest.chain(self.exchange.large_retry_at()).chain(self.tick.at());
        let nearest = nearest.chain(self.turned_away.answer_at()).min();
        if !self.inbox.is_empty()
            || !self.from_loops.is_empty()
            || self.exchange.has_large()
            || self.exchange.has_held()
            || self.exchange.gate_would_open()
            || !self.exchange.look_again.is_empty()
            || self.exchange.has_expired()
            || (self.shared.is_stopping() && self.stopping_since.is_none())
        {
            Wait::No
        } else if let Some(nearest) = nearest {
            let now = shard::clock::monotonic_nanos();
            let left = Duration::from_nanos(nearest.saturating_sub(now));
            if left.is_zero() { Wait::No } else { Wait::Until(Instant::now() + left) }
        } else {
            Wait::Block
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Accepted { conn, peer } => self.welcome(conn, peer.ip()),
            Event::Received { conn, buf } if self.turned_away.is_waiting(conn) => {
                let head_only = self.net.bytes(&buf).starts_with(b"HEAD ");
                self.net.release(buf);
                self.tell_away(conn, head_only);
            }
            Event::Received { conn, buf } => {
                let takes_answers = self.net.pending_send_bytes(conn) <= UNREAD_ANSWER_BYTES_MAX;
                self.exchange.receive(conn, self.net.bytes(&buf), takes_answers);
                self.net.release(buf);
            }
            Event::Drained { conn } => {
                self.exchange.ask_for_page(conn);
                self.resume(conn);
            }
            Event::EndOfStream { conn } if self.turned_away.is_waiting(conn) => self.tell_away(conn, false),
            Event::EndOfStream { conn } => self.half_closed(conn),
            Event::Closed { conn, error } => {
                if error.is_some_and(|error| error.kind() != io::ErrorKind::TimedOut) {
                    self.shared.shards[self.index].front.connections_broken.add(1);
                }
                if !self.exchange.closed(conn) {
                    self.turned_away.closed(conn);
                }
            }
            Event::Synced { result, .. } => self.synced(result),
            Event::AcceptFailed { .. } | Event::Woken => {}
            Event::Connected { .. } | Event::ConnectFailed { .. } => {}
        }
    }

    /// The client will send no more. What it is owed still goes out; then the connection is closed.
    fn half_closed(&mut self, conn: ConnId) {
        let Some(connection) = self.exchange.connection(conn) else { return };
        connection.ended = true;
        self.ended.push(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        self.exchange.restart_clock(conn);
        self.exchange.resume(conn);
        let may_read_on = self.exchange.may_read_on(conn);
        if let Some(connection) = self.exchange.connection(conn) {
            if connection.paused && may_read_on {
                connection.paused = false;
                self.net.resume_receive(conn);
            }
            if connection.ended {
                self.ended.push(conn);
            }
        }
    }

    /// Goes on with requests that were left where they lie, as many as are one connection's share of a turn: so
    /// however many clients pipeline, others wait for one of them. Where a client leaves its answers unread, `Drained`
    /// will come.
    fn look_again(&mut self) {
        let mut left = std::mem::take(&mut self.exchange.look_again).into_iter();
        let mut taken = 0;
        while taken < SHARE_OF_TURN
            && !self.exchange.is_full()
            && let Some(conn) = left.next()
        {
            if let Some(connection) = self.exchange.connection(conn) {
                connection.looks_again = false;
            }
            if self.net.pending_send_bytes(conn) <= UNREAD_ANSWER_BYTES_MAX {
                self.resume(conn);
            }
            taken += self.exchange.taken_by(conn);
        }
        // Whoever had a turn now stands behind those who had none.
        let had = std::mem::replace(&mut self.exchange.look_again, left.collect());
        self.exchange.look_again.extend(had);
    }

    /// Goes on with samples that waited for the executors, longest first, as far as one turn goes.
    fn let_in(&mut self) {
        while !self.exchange.is_full()
            && let Some(conn) = self.exchange.let_in()
        {
            self.resume(conn);
        }
        self.exchange.all_let_in();
    }

    /// Closes the connections whose clients will send no more and are owed nothing. Requests that came before
    /// the end and are held back, behind a query or unread answers, are looked at first; half a request never
    /// becomes a whole one. Only when all events of the turn are taken: `Drained` may be among them.
    fn close_ended(&mut self) {
        for conn in std::mem::take(&mut self.ended) {
            let unread = self.net.pending_send_bytes(conn) > 0;
            let Some(connection) = self.exchange.connection(conn) else { continue };
            let looked_at_later = (unread || connection.looks_again) && connection.unfinished.is_some();
            if connection.withheld == 0 && !connection.waits() && !looked_at_later {
                self.net.close(conn);
            }
        }
    }

    fn read_inbox(&mut self) {
        while let Some((_, message)) = self.inbox.pop() {
            self.tick.note(self.exchange.now.nanos);
            match message {
                ToLoop::Answer { conn, answer } => {
                    self.exchange.answered(conn, answer);
                    self.resume(conn);
                }
                ToLoop::Page { conn, page } => {
                    self.exchange.take_page(conn, page);
                    self.resume(conn);
                }
                ToLoop::Decoded { conn, counted_bytes, decoded } => {
                    self.exchange.decoded(conn, counted_bytes, decoded);
                    self.resume(conn);
                }
                ToLoop::Spent(share) => self.exchange.intake.recycle(share),
                ToLoop::AskPosition { executor } => self.position_asks.push((executor, None)),
                ToLoop::RenewDictionary { dictionary } => {
                    self.exchange.intake.wal.writer.ask_new_dictionary(dictionary);
                }
                ToLoop::TakeNamesBack { executor, names } => {
                    self.exchange.intake.take_names_back(executor, names);
                }
                ToLoop::Admission { executor, admission } => {
                    self.exchange.intake.admissions.set(executor, admission);
                }
                ToLoop::JournalFile(prepared) => {
                    self.file_retry_at =
                        prepared.is_err().then(|| self.exchange.now.nanos + FILE_RETRY_EARLY_NANOS);
                    self.exchange.intake.wal.take_file(prepared);
                }
            }
        }
        while let Some((from, portion)) = self.from_loops.pop() {
            self.exchange.take_portion(from, portion);
        }
        self.exchange.tend_limits();
    }

    fn commit_if_full(&mut self) {
        if self.exchange.is_full() {
            self.commit();
        }
    }

    /// Journals what the turn accepted, publishes it, and lets the answers go that may.
    fn commit(&mut self) {
        let shared = self.shared.clone();
        let counters = &shared.shards[self.index].front;
        let exchange = &mut self.exchange;
        exchange.intake.seal_frame(exchange.now.nanos);
        let now_nanos = exchange.now.nanos;
        let somebody_waits = exchange.replies.iter().any(|pending| pending.level > Durability::Memory)
            || self.handover_at.iter().flatten().any(|at| *at <= now_nanos)
            || !self.position_asks.is_empty()
            || !self.withheld.is_empty()
            || exchange.intake.wal.writer.unwritten_bytes() > UNWRITTEN_BYTES_MAX
            || shared.is_stopping();
        if somebody_waits && let Err(failed) = exchange.intake.wal.write(counters) {
            self.journal_failed(&failed);
        }
        let exchange = &mut self.exchange;
        let handover_at = exchange.now.nanos + HANDOVER_NANOS;
        let handovers = &mut self.handover_at;
        exchange.intake.publish(counters, |owner| {
            handovers[owner].get_or_insert(handover_at);
        });
        self.exchange.step_gate();
        self.send_questions();
        self.send_replies();
        self.ask_for_files();
        self.answer_positions();
        let sync_wanted = self.sync_is_due()
            || self.position_asks.iter().any(|(_, end)| end.is_some())
            || self.exchange.intake.wal.writer.rotation_waits_for_sync();
        if sync_wanted && self.exchange.intake.wal.begin_sync(&mut self.net) {
            self.sync_began_nanos = self.exchange.now.nanos;
        }
        for conn in std::mem::take(&mut self.exchange.pauses) {
            // What it waited for may have come since, and nobody would resume it a second time.
            if self.exchange.connection(conn).is_some_and(|connection| connection.paused) {
                self.net.pause_receive(conn);
            }
        }
        self.exchange.decoded_bytes = 0;
    }

    /// When the next sync may begin, if answers wait for one that is not under way.
    fn next_sync_at(&self) -> Option<u64> {
        let waiting = !self.withheld.is_empty() && !self.exchange.intake.wal.is_syncing();
        let spacing = if self.sync_let_go >= SYNC_LOAD_ANSWERS { SYNC_SPACING_NANOS } else { 0 };
        waiting.then_some(self.sync_began_nanos + spacing)
    }

    fn sync_is_due(&self) -> bool {
        self.next_sync_at().is_some_and(|at| at <= self.exchange.now.nanos)
    }

    fn send_questions(&mut self) {
        let stamp = self.exchange.intake.stamp();
        for (conn, body) in std::mem::take(&mut self.exchange.large_bodies) {
            let message = ToStore::Decode { conn, body, stamp };
            if let Err(ToStore::Decode { body, .. }) = self.exchange.intake.outbox.send(self.index, message) {
                self.exchange.refuse_large(conn, body.counted_bytes);
                self.exchange.stand_again(conn);
            }
        }
        for (conn, page) in std::mem::take(&mut self.exchange.pages) {
            let owner = page.shard;
            let message = ToStore::Export { conn, page, stamp };
            if self.exchange.intake.outbox.send(owner, message).is_err() {
                let concurrency = self.shared.config.query_concurrency;
                self.exchange.take_page(conn, Err(QueryError::TooMany { concurrency }));
                self.exchange.stand_again(conn);
            }
        }
        for (conn, query) in std::mem::take(&mut self.exchange.questions) {
            // The manifest is kept there.
            let to = if matches!(*query, Inquiry::Snapshot) { 0 } else { self.index };
            let message = ToStore::Query { conn, query, stamp };
            if self.exchange.intake.outbox.send(to, message).is_err() {
                let concurrency = self.shared.config.query_concurrency;
                self.exchange.answered(conn, Err(QueryError::TooMany { concurrency }));
                self.exchange.stand_again(conn);
            }
        }
    }

    fn ask_for_files(&mut self) {
        let now = self.exchange.now.nanos;
        if self.exchange.is_out_of_journal() {
            self.file_retry_at = self.file_retry_at.map(|at| at.min(now + FILE_RETRY_NANOS));
        }
        if self.file_retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.file_retry_at = None;
        let stamp = self.exchange.intake.stamp();
        if let Some(next) = self.exchange.intake.wal.needs_file() {
            let message = ToStore::PrepareJournal { next, stamp };
            if self.exchange.intake.outbox.send(self.index, message).is_err() {
                self.exchange.intake.wal.writer.not_asked();
                self.file_retry_at = Some(now + HANDOVER_NANOS);
            }
        }
    }

    /// Executors that flush learn how far the journal is, once it is synced that far; everything before has
    /// gone into their ring ahead of the answer.
    fn answer_positions(&mut self) {
        let end = self.exchange.intake.journal_end();
        let synced_through = self.exchange.intake.wal.writer.synced_through();
        let stamp = self.exchange.intake.stamp();
        let intake = &mut self.exchange.intake;
        self.position_asks.retain_mut(|(executor, wanted)| {
            // That a file was abandoned goes first: what is in memory of it shall not be named by a checkpoint.
            if intake.owes_flush(*executor) {
                return true;
            }
            let outbox = &mut intake.outbox;
            let wanted = *wanted.get_or_insert(end);
            if synced_through < wanted {
                return true;
            }
            let message = ToStore::Position { position: wanted, stamp };
            let answered = outbox.to(*executor).push(message).is_ok();
            outbox.to(*executor).publish();
            outbox.ring_bell(*executor);
            !answered
        });
    }

    fn wake_executors(&mut self) {
        let now = self.exchange.now.nanos;
        let outbox = &mut self.exchange.intake.outbox;
        for (owner, at) in self.handover_at.iter_mut().enumerate() {
            if at.is_some_and(|at| at <= now) || (at.is_some() && outbox.holds(owner, BATCHES_PENDING_LOW)) {
                *at = None;
                // Whoever wakes it first wakes it for all: it takes what is in every ring. Without this look each of
                // N loops would wake each executor 200 times a second.
                if outbox.holds(owner, 1) {
                    outbox.ring_bell(owner);
                }
            }
        }
    }

    /// What no event tells of; see `tick.rs`.
    fn look_after(&mut self) {
        let counters = &self.shared.shards[self.index].front;
        counters.connections.set(self.net.connections() as u64);
        // One that does not read is the net's to close.
        let is_reading = |conn| self.net.pending_send_bytes(conn) > 0;
        if self.exchange.has_expired() {
            for idle in self.exchange.end_expired(is_reading) {
                counters.connections_idle.add(1);
                self.net.close(idle);
            }
        }
        let now = self.exchange.now.nanos;
        if !self.tick.is_due(now) {
            return;
        }
        let is_reading = |conn| self.net.pending_send_bytes(conn) > 0;
        let expires_at = self.exchange.look_for_expired(is_reading);
        for (counter, quantile) in counters.latency.iter().zip(LATENCY_QUANTILES) {
            counter.set(self.latency.value_at_quantile(quantile));
        }
        let stats = self.net.stats();
        counters.enters.set(stats.enters);
        counters.receive_buffers_exhausted.set(stats.buffers_exhausted);
        counters.sends_delayed.set(stats.sends_delayed);
        counters.connections_accepted.set(stats.accepted);
        counters.sends_timed_out.set(stats.sends_timed_out);
        counters.accepts_held.set(stats.accepts_held);
        counters.accepts_failed.set(stats.accepts_failed);
        self.tick.looked(now, expires_at);
    }
}
