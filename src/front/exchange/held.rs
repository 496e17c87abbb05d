//! Requests with samples that wait until the executors have caught up, or the journal's next file is there, whole
//! connections at a time; and those that waited for a word about their client's rate limit and have it, however many
//! come with one word.
//!
//! Always: a connection that waits stands in the line once; as long as anybody stands there, whoever comes later
//! lines up behind; what waits is bounded like everything that is held back on a connection.
//! Not here: when they wait (`gate.rs`).

use super::Exchange;
use super::large::LARGE_BODY_BYTES;
use crate::front::gate::{BATCHES_PENDING_LOW, Gate};
use crate::message::ToStore;
use shard::net::ConnId;

/// What `POST /metrics` of so many bytes takes of the journal at most: its labels are no longer there than in the body.
const fn journal_bytes_max(body_bytes: usize) -> usize {
    const METRIC_BYTES_MIN: usize = br#"{"name":"a","value":1}"#.len();
    storage::journal::batch_bytes_max(body_bytes / METRIC_BYTES_MIN, body_bytes, ingest::CLIENT_ID_BYTES_MAX)
}

/// Room in the journal without which nobody's body is looked at while the next file is awaited. What a body becomes
/// differs by door (a sample of remote write has 9 bytes, of line protocol 4, of JSON 22; compressed, fewer) and is known
/// exactly once it is decoded: one that needs more than there is waits by itself (`large.rs`).
pub(super) const COMMON_BODY_JOURNAL_BYTES: usize = journal_bytes_max(16 * 1024);
/// The same for the largest body of metrics that a turn takes. With less than that, and no file to come, some are refused.
const LARGE_BODY_JOURNAL_BYTES: usize = journal_bytes_max(LARGE_BODY_BYTES);

impl Exchange {
    /// Looks at the rings and the journal: opens or shuts the gate. At a turn's beginning and after every publishing.
    pub fn step_gate(&mut self) {
        let awaits_file = self.intake.wal.awaits_file(self.journal_room_wanted);
        let outbox = &mut self.intake.outbox;
        let holds = |values| (0..outbox.receivers()).any(|executor| outbox.holds(executor, values));
        let next = self.gate.next(self.now.nanos, holds, awaits_file);
        self.enter(next);
    }

    /// The same for rows that take at most so many bytes of the journal, between two looks; says whether they have to
    /// wait for its next file.
    pub(super) fn shut_for_file(&mut self, bytes_at_most: usize) -> bool {
        let shuts = self.gate == Gate::Open && self.intake.wal.awaits_file(bytes_at_most);
        if shuts {
            self.journal_room_wanted = self.journal_room_wanted.max(bytes_at_most);
            self.enter(Gate::Shut { since_nanos: self.now.nanos });
        }
        shuts
    }

    fn enter(&mut self, next: Gate) {
        let before = std::mem::replace(&mut self.gate, next);
        if next == Gate::Open {
            self.journal_room_wanted = COMMON_BODY_JOURNAL_BYTES;
        }
        let counters = &self.shared.shards[self.index].front;
        match (before, next) {
            (Gate::Open | Gate::Trying, Gate::Shut { .. }) => {
                counters.pauses.add(1);
                self.ask_to_be_woken();
            }
            (Gate::Shut { since_nanos }, Gate::Open | Gate::Refusing | Gate::Trying) => {
                counters.paused_nanos.add(self.now.nanos.saturating_sub(since_nanos));
            }
            _ => {}
        }
    }

    /// The message stands behind all that is to be done first.
    fn ask_to_be_woken(&mut self) {
        let stamp = self.intake.stamp();
        let outbox = &mut self.intake.outbox;
        for executor in 0..outbox.receivers() {
            if outbox.holds(executor, BATCHES_PENDING_LOW + 1) {
                // A ring has places that samples leave free. Were it full for all that, the pause ends by its time.
                let _ = outbox.send(executor, ToStore::WakeLoop { stamp });
            }
        }
    }

    /// Whether the executors have caught up since the gate was looked at: a sleeper's last look. (What a journal
    /// waits for comes as a message or a completion.)
    pub fn gate_would_open(&mut self) -> bool {
        if self.intake.wal.awaits_file(self.journal_room_wanted) {
            return false;
        }
        let outbox = &mut self.intake.outbox;
        let mut holds = |values| (0..outbox.receivers()).any(|executor| outbox.holds(executor, values));
        self.gate.is_shut() && !holds(BATCHES_PENDING_LOW + 1)
    }

    /// Whether samples may be refused because the disk refuses the journal's next file.
    pub fn is_out_of_journal(&self) -> bool {
        self.intake.wal.is_out_of_room(LARGE_BODY_JOURNAL_BYTES)
    }

    /// Whether requests with samples stay where they lie.
    pub(super) fn holds_back(&self) -> bool {
        self.gate.is_shut() || (!self.held.is_empty() && !self.letting_in)
    }

    /// Lines a connection up; its next request has samples.
    pub(super) fn hold(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id) {
            connection.held = true;
            self.held.push_back(id);
        }
    }

    /// Whether somebody in the line can be let in, or be refused.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty() && !self.gate.is_shut()
    }

    /// The connection that has waited longest, if the gate lets it in; its requests are no longer held back. Until
    /// [`Exchange::all_let_in`] it is the only one to pass.
    pub fn let_in(&mut self) -> Option<ConnId> {
        if self.held.is_empty() || self.gate.is_shut() || self.shut_for_file(COMMON_BODY_JOURNAL_BYTES) {
            return None;
        }
        let id = self.held.pop_front()?;
        if let Some(connection) = self.connection(id) {
            connection.held = false;
        }
        self.letting_in = true;
        self.take_decided(id);
        Some(id)
    }

    /// From here on newcomers line up again.
    pub fn all_let_in(&mut self) {
        self.letting_in = false;
    }
}

/// Whether a request may carry samples, by its method alone: it has to be told before the body is there. A client
/// may send an empty line between two requests.
pub(super) fn may_carry_samples(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len());
    bytes[start..].starts_with(b"POST")
}

#[cfg(test)]
mod tests {
    use super::may_carry_samples;

    #[test]
    fn only_a_post_may_carry_samples() {
        assert!(may_carry_samples(b"POST /metrics HTTP/1.1\r\n"));
        assert!(may_carry_samples(b"\r\n\r\nPOST"));
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"HEAD /POST", b"POS", b"\r\n", b""] {
            assert!(!may_carry_samples(other), "{}", other.escape_ascii());
        }
    }
}
