//! Sending: almost every answer fits the socket, so almost every answer costs no completion and no buffer.
//!
//! ```text
//! send      append to the turn's arena; one entry per connection and turn
//! turn      queue one send per entry, enter; success says nothing
//! after it  an entry that did report was short: its rest moves to the connection's own waiting bytes
//! slow way  waiting bytes leave one buffer at a time, the kernel waiting for the socket; later sends line up behind
//! ```
//!
//! Always: a connection has an entry in the arena or a buffer in flight, never both, and its waiting bytes come after
//! either. That is the order of the stream.
//! A second send on a connection in one turn extends its entry when that is the arena's last, and else moves the
//! entry to the arena's end: two sends of one connection must not be queued, since the second may find the room that
//! the first did not.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::slots::{NO_ENTRY, Slow, Stage};
use super::{ConnId, Event, Net};

/// One connection's part of this turn's arena; empty when it was moved or its connection ended.
pub(super) struct ArenaSend {
    conn: ConnId,
    range: Range<usize>,
}

impl Net {
    /// Sends bytes: copies them into this turn's arena, or behind what already waits. On a connection that is not
    /// open (or not yet) nothing happens.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.send_with(conn, |out| out.extend_from_slice(bytes));
    }

    /// Sends what `write` appends. It must only append: what is there belongs to other connections.
    ///
    /// # Panics
    /// When `write` has shortened the buffer.
    pub fn send_with(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage == Stage::Open) else { return };
        if let Some(slow) = &mut slot.slow {
            write(&mut slow.waiting);
            return;
        }
        let Some(arena) = self.ring.arena() else {
            // The kernel was short of memory and has not taken the last turn's entries yet.
            let mut bytes = Vec::new();
            write(&mut bytes);
            return self.send_slowly(conn, bytes);
        };
        let before = arena.len();
        let mut start = before;
        let mut extends = false;
        if let Some(entry) = self.sends.get_mut(slot.arena_entry as usize) {
            if entry.range.end == before {
                start = entry.range.start;
                extends = true;
            } else {
                arena.extend_from_within(entry.range.clone());
                entry.range = 0..0;
            }
        }
        let copied = arena.len();
        write(arena);
        assert!(arena.len() >= copied, "a writer shortened the arena");
        let range = start..arena.len();
        if range.end > self.config.send_arena_bytes {
            self.stats.arena_exhausted += 1;
            let bytes = arena.split_off(start);
            if let Some(entry) = self.sends.get_mut(slot.arena_entry as usize) {
                entry.range = 0..0;
            }
            slot.arena_entry = NO_ENTRY;
            self.send_slowly(conn, bytes);
        } else if extends {
            self.sends[slot.arena_entry as usize].range = range;
        } else if !range.is_empty() {
            slot.arena_entry = self.sends.len() as u32;
            self.sends.push(ArenaSend { conn, range });
        }
    }

    /// Sends a large answer without copying it.
    pub fn send_owned(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage == Stage::Open) else { return };
        match &mut slot.slow {
            Some(slow) if slow.waiting.is_empty() => slow.waiting = bytes,
            Some(slow) => slow.waiting.extend_from_slice(&bytes),
            None => self.send_slowly(conn, bytes),
        }
    }

    /// Bytes sent on the connection that wait for a slow reader: the caller's measure for when to stop producing
    /// more. While there are any, `Drained` or `Closed` is still to come. So this turn's part of the arena does not
    /// count: the socket may take it whole, and then nothing tells of it.
    pub fn pending_send_bytes(&self, conn: ConnId) -> usize {
        let slow = self.slots.peek(conn).and_then(|slot| slot.slow.as_ref());
        slow.map_or(0, |slow| slow.waiting.len() + slow.in_flight_len - slow.in_flight_from)
    }

    /// Starts the slow way for a connection that is not on it.
    fn send_slowly(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let deadline = self.now + self.config.send_timeout;
        let Some(slot) = self.slots.get(conn) else { return };
        if bytes.is_empty() {
            return;
        }
        slot.slow = Some(Box::new(Slow { waiting: bytes, ..Slow::until(deadline) }));
        if slot.arena_entry == NO_ENTRY {
            self.start_slow_send(conn);
        } else {
            self.after_sends = true;
        }
        self.list_slow(conn);
    }

    /// Sends the waiting bytes, if there are any and nothing of the connection is in flight.
    fn start_slow_send(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        let Some(slow) = slot.slow.as_mut().filter(|slow| !slow.waiting.is_empty()) else { return };
        if slot.sending {
            return;
        }
        let bytes = std::mem::take(&mut slow.waiting);
        slow.in_flight_len = bytes.len();
        slow.in_flight_from = 0;
        slot.sending = true;
        slot.owned = self.ring.send_owned(conn, bytes, 0);
    }

    /// Takes the connection's part out of the arena.
    pub(super) fn drop_arena_entry(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        let entry = std::mem::replace(&mut slot.arena_entry, NO_ENTRY);
        if let Some(entry) = self.sends.get_mut(entry as usize) {
            entry.range = 0..0;
        }
    }

    /// Queues this turn's entries. From here to [`Net::settle_sends`] the arena belongs to the kernel.
    pub(super) fn queue_sends(&mut self) {
        for entry in &self.sends[self.sends_queued..] {
            if !entry.range.is_empty() {
                self.ring.send_arena(entry.conn, entry.range.clone());
            }
        }
        self.sends_queued = self.sends.len();
    }

    /// A send out of the arena was short: keeps its rest, ahead of what was sent since.
    pub(super) fn on_arena_short(&mut self, conn: ConnId, result: io::Result<usize>) {
        let deadline = self.now + self.config.send_timeout;
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage != Stage::Dead) else { return };
        let sent = match result {
            Ok(sent) => sent,
            Err(error) => return self.end(conn, Some(error)),
        };
        let Some(entry) = self.sends.get(slot.arena_entry as usize) else { return };
        let range = (entry.range.start + sent).min(entry.range.end)..entry.range.end;
        if range.is_empty() {
            return;
        }
        self.stats.sends_delayed += 1;
        let slow = slot.slow.get_or_insert_with(|| Box::new(Slow::until(deadline)));
        slow.waiting.splice(0..0, self.ring.arena_bytes(range).iter().copied());
        self.list_slow(conn);
    }

    /// After an enter: the entries are gone, in one way or the other, and what waited for them may start.
    pub(super) fn settle_sends(&mut self) {
        if self.sends_queued != self.sends.len() || !self.ring.settle() {
            return;
        }
        let mut sends = std::mem::take(&mut self.sends);
        self.sends_queued = 0;
        for entry in sends.drain(..) {
            if entry.range.is_empty() {
                continue;
            }
            let Some(slot) = self.slots.get(entry.conn) else { continue };
            slot.arena_entry = NO_ENTRY;
            if slot.slow.is_some() {
                self.start_slow_send(entry.conn);
            } else if slot.stage == Stage::Closing {
                self.finish_closing(entry.conn);
            }
        }
        // Keeps its capacity for the next turn.
        self.sends = sends;
    }

    pub(super) fn on_sent(&mut self, conn: ConnId, bytes: Vec<u8>, result: io::Result<usize>) {
        let deadline = self.now + self.config.send_timeout;
        let Some(slot) = self.slots.get(conn) else { return };
        slot.sending = false;
        if slot.stage == Stage::Dead {
            return self.free_if_over(conn);
        }
        let Some(slow) = &mut slot.slow else { return };
        match result {
            Ok(0) => return self.end(conn, Some(io::ErrorKind::WriteZero.into())),
            Ok(sent) => {
                slow.in_flight_from += sent;
                slow.deadline = deadline;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return self.end(conn, Some(error)),
        }
        if slow.in_flight_from < bytes.len() {
            slot.sending = true;
            let from = slow.in_flight_from;
            slot.owned = self.ring.send_owned(conn, bytes, from);
            return;
        }
        slow.in_flight_len = 0;
        slow.in_flight_from = 0;
        if !slow.waiting.is_empty() {
            return self.start_slow_send(conn);
        }
        slot.slow = None;
        match slot.stage {
            Stage::Closing => self.finish_closing(conn),
            _ => self.events.push_back(Event::Drained { conn }),
        }
    }

    /// Watches the connection's deadline.
    pub(super) fn list_slow(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn).filter(|slot| !slot.listed) else { return };
        slot.listed = true;
        self.slow.push(conn);
        if self.sweep_at.is_none() {
            self.sweep_at = Some(self.now + self.sweep_interval());
        }
    }

    /// Ends the connections whose deadline has passed.
    pub(super) fn sweep(&mut self) {
        let mut slow = std::mem::take(&mut self.slow);
        slow.retain(|&conn| {
            let Some(slot) = self.slots.get(conn) else { return false };
            let Some(deadline) = slot.slow.as_ref().map(|slow| slow.deadline) else {
                slot.listed = false;
                return false;
            };
            if deadline > self.now {
                return true;
            }
            if slot.stage == Stage::Lingering {
                self.end(conn, None);
            } else {
                self.stats.sends_timed_out += 1;
                self.end(conn, Some(io::ErrorKind::TimedOut.into()));
            }
            false
        });
        self.sweep_at = if slow.is_empty() { None } else { Some(self.now + self.sweep_interval()) };
        self.slow = slow;
    }

    /// How late a deadline may be noticed: a quarter of the shortest.
    fn sweep_interval(&self) -> Duration {
        let shortest = self.config.send_timeout.min(self.config.linger_timeout);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}
