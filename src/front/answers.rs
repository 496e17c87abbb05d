//! Answers on their way out: at a turn's end, when a sync comes back, and when the journal fails.
//!
//! Always: a request is answered once, in the order of its connection, and never at a level that was not reached.
//! Not here: the choice itself (`withheld.rs`), which knows no socket and is tested without one.

use super::Front;
use super::connection::WITHHELD_ANSWERS_MAX;
use super::reply::{Payload, Reply};
use super::wal::WalFailed;
use super::withheld::{Pending, refuse_lost};
use crate::api::{IntakeError, Refusal};
use crate::config::Durability;
use std::io;

/// A body from this size on goes to the socket as it is: that costs a completion, and no copy.
const OWNED_BODY_BYTES_MIN: usize = 64 * 1024;

impl Front {
    /// Lets the turn's answers go that may; the others wait for the journal.
    pub(super) fn send_replies(&mut self) {
        let synced_through = self.exchange.intake.wal.writer.synced_through();
        let mut sent_now = 0;
        let mut replies = std::mem::take(&mut self.exchange.replies);
        for Pending { reply, level, frame } in replies.drain(..) {
            let end = self.exchange.intake.frame_end(frame);
            let Some(connection) = self.exchange.connection(reply.conn) else { continue };
            let synced_end = (level == Durability::Synced && synced_through < end).then_some(end);
            match self.withheld.admit(reply, synced_end, connection.withheld > 0) {
                Some(reply) => {
                    sent_now += u64::from(reply.status().is_some());
                    self.send(reply);
                }
                None => connection.withheld += 1,
            }
        }
        debug_assert!(self.exchange.replies.is_empty(), "sending an answer makes none");
        self.exchange.replies = replies;
        self.exchange.intake.forget_frames();
        if sent_now > 0 {
            let nanos = shard::clock::monotonic_nanos() - self.exchange.now.nanos;
            self.record_latency(nanos, sent_now);
        }
    }

    fn send(&mut self, mut reply: Reply) {
        let conn = reply.conn;
        // Of a large one the head alone is copied.
        let body_goes_apart = !reply.head_only
            && matches!(&reply.payload, Payload::Body { bytes, .. } if bytes.len() >= OWNED_BODY_BYTES_MIN);
        reply.head_only |= body_goes_apart;
        self.net.send_with(conn, |out| self.renderer.render(&reply, out));
        match &mut reply.payload {
            Payload::Body { bytes, .. } if body_goes_apart => {
                self.net.send_owned(conn, std::mem::take(bytes));
            }
            // `Drained` will ask for the next one.
            Payload::Piece(piece) if !reply.head_only => {
                let bytes = piece.take_bytes();
                if !bytes.is_empty() {
                    self.net.send_owned(conn, bytes);
                }
            }
            _ => {}
        }
        let now_s = self.exchange.now.seconds();
        if let Some(connection) = self.exchange.connection(conn) {
            connection.active_s = now_s;
            if connection.ended {
                self.ended.push(conn);
            }
        }
        if let (Some(log), Some(status)) = (&mut self.access_log, reply.status()) {
            log.line(&reply, status, self.exchange.now.unix_ms, shard::clock::monotonic_nanos());
        }
        if matches!(reply.payload, Payload::Refused(_)) && reply.closes() {
            // The client may still be sending what was refused; it is to read the answer first.
            self.net.close_lingering(conn);
        } else if reply.closes() {
            self.net.close(conn);
        }
    }

    /// A sync came back: everything up to it may be answered, or nothing on this file any more.
    pub(super) fn synced(&mut self, result: io::Result<()>) {
        let shared = self.shared.clone();
        if let Err(failed) = self.exchange.intake.wal.synced(result, &shared.shards[self.index].front) {
            self.journal_failed(&failed);
            return;
        }
        let synced_through = self.exchange.intake.wal.writer.synced_through();
        let now = shard::clock::monotonic_nanos();
        self.sync_let_go = self.withheld.released_by(synced_through);
        while let Some(reply) = self.withheld.release(synced_through) {
            self.record_latency(now - reply.arrived_nanos, 1);
            self.let_go(reply);
        }
    }

    fn let_go(&mut self, reply: Reply) {
        let conn = reply.conn;
        let Some(connection) = self.exchange.connection(conn) else { return };
        connection.withheld -= 1;
        if connection.withheld == WITHHELD_ANSWERS_MAX - 1 {
            self.exchange.stand_again(conn);
        }
        self.send(reply);
    }

    /// Nothing that is not answered yet was kept as promised: all of it is refused, in order.
    pub(super) fn journal_failed(&mut self, failed: &WalFailed) {
        let WalFailed { last_good, error } = failed;
        crate::log::error(format_args!("loop {}: the journal: {error}; a new file is begun", self.index));
        self.exchange.intake.discard_beyond(*last_good);
        let cause = || IntakeError::of_disk(error);
        let refuse = |reply: &mut Reply| reply.payload.refuse_kept(|| Refusal::from(cause()));
        self.exchange.break_off_large(cause);
        for reply in self.withheld.lose(*last_good, refuse) {
            self.let_go(reply);
        }
        // Ends that were asked for and taken back are asked for anew.
        self.position_asks.iter_mut().for_each(|(_, wanted)| *wanted = None);
        let intake = &self.exchange.intake;
        refuse_lost(&mut self.exchange.replies, |frame| intake.sealed_end(frame), *last_good, refuse);
    }

    pub(super) fn record_latency(&mut self, nanos: u64, requests: u64) {
        let counters = &self.shared.shards[self.index].front;
        self.latency.saturating_record_n(nanos, requests);
        counters.latency_count.add(requests);
        counters.latency_sum_nanos.add(nanos * requests);
    }
}
