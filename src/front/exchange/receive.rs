//! Bytes in, requests out: whole requests are taken where they lie, the rest waits on its connection.
//!
//! Always: what waits for an answer, or for its turn, holds back whatever comes behind it on its connection; one
//! connection takes no more of a turn than its share.
//! Not here: what a request is answered (`answer.rs`), who is let in when the gate opens (`held.rs`).

use super::held::{COMMON_BODY_JOURNAL_BYTES, may_carry_samples};
use super::{Exchange, Flow, HELD_BACK_BYTES_MAX, TURN_ANSWERS_MAX, TURN_BYTES_MAX};
use crate::api::{IntakeError, Refusal};
use crate::front::connection::{REQUEST_SHARE, SHARE_OF_TURN, Unfinished};
use crate::front::reply::Payload;
use http::Decoded;
use shard::net::ConnId;

impl Exchange {
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
                self.refuse_unfinished(id, IntakeError::Overloaded.into());
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
                && (self.holds_back() || self.shut_for_file(COMMON_BODY_JOURNAL_BYTES))
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
                    self.refuse_for_good(id, &bytes[used..], Refusal::from(&refusal));
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
}
