//! Connections whose time is over: heads and bodies that come too slowly, and connections that nothing comes on.
//!
//! Always: found by one look at all, once a second at most (`front/tick.rs`); ended a few a turn, for each costs some
//! 20 µs with its answer and its close, thousands may have come in the same second, and requests of others wait
//! meanwhile. Each is looked at once more before it is ended.
//! Not here: who takes no answer (`shard::net`, by the send's own time).

use super::Exchange;
use crate::api::Refusal;
use crate::front::connection::Connection;
use crate::shared::BadMessages;
use shard::net::ConnId;

/// Ended in one turn.
const ENDED_PER_TURN_MAX: usize = 4;

/// What a client that is too slow is told, and where that is counted.
type TooSlow = (fn() -> Refusal, fn(&BadMessages));

impl Exchange {
    /// Looks for connections whose time is over, to be ended by [`end_expired`](Self::end_expired). Gives the moment, in
    /// monotonic nanoseconds, from which on there is the next one if nothing comes.
    pub fn look_for_expired(&mut self, is_reading: impl Fn(ConnId) -> bool) -> Option<u64> {
        if !self.expired.is_empty() {
            return Some(self.now.nanos);
        }
        let now_s = self.now.seconds();
        let mut next_s = None;
        for connection in self.connections.iter().flatten() {
            match self.clock_of(connection, &is_reading) {
                None => {}
                Some((from_s, _)) if u64::from(now_s) < from_s => {
                    next_s = Some(next_s.map_or(from_s, |next: u64| next.min(from_s)));
                }
                Some(_) => self.expired.push_back(connection.id),
            }
        }
        next_s.map(|second| second * 1_000_000_000)
    }

    /// Refuses some of the messages that were found to come too slowly, and gives the connections found idle, to be
    /// closed: a few a turn, for each costs some 20 µs, and thousands may have come in the same second.
    pub fn end_expired(&mut self, is_reading: impl Fn(ConnId) -> bool) -> Vec<ConnId> {
        let now_s = self.now.seconds();
        let mut idle = Vec::new();
        for _ in 0..ENDED_PER_TURN_MAX.min(self.expired.len()) {
            let Some(id) = self.expired.pop_front() else { break };
            let found = self.connections.get(id.index()).and_then(Option::as_ref);
            let Some(connection) = found.filter(|connection| connection.id == id) else { continue };
            // Something may have come since.
            let clock = self.clock_of(connection, &is_reading);
            let Some((_, why)) = clock.filter(|(from_s, _)| u64::from(now_s) >= *from_s) else { continue };
            match why {
                None => idle.push(id),
                Some((refusal, note)) => {
                    note(&self.shared.shards[self.index].front.bad_messages);
                    self.refuse_unfinished(id, refusal());
                }
            }
        }
        idle
    }

    /// Whether some were found whose time is over and are not ended yet.
    pub fn has_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// From which second on a connection's time is over, and what it is told then if it is more than idle. Whoever is
    /// waited for elsewhere, or stands in a line, has no such time: its bytes are not looked at. Nor has one that is
    /// still reading.
    fn clock_of(
        &self,
        connection: &Connection,
        is_reading: impl Fn(ConnId) -> bool,
    ) -> Option<(u64, Option<TooSlow>)> {
        let is_owed_an_answer = connection.asked.is_some() || connection.withheld > 0;
        let is_in_line = connection.held || connection.looks_again;
        if connection.closing || is_owed_an_answer || is_in_line || is_reading(connection.id) {
            return None;
        }
        let config = &self.shared.config;
        let (since_s, bound, why): (_, _, Option<TooSlow>) = match &connection.unfinished {
            None => (connection.active_s, config.http_idle_timeout, None),
            Some(body) if body.head_complete => (
                body.since_s,
                config.http_body_timeout,
                Some((Refusal::body_timeout, BadMessages::note_slow_body)),
            ),
            Some(head) => (
                head.since_s,
                config.http_head_timeout,
                Some((Refusal::head_timeout, BadMessages::note_slow_head)),
            ),
        };
        // Begun in the middle of a second: only the second after is surely late.
        Some((u64::from(since_s) + bound.as_secs() + 1, why))
    }
}
