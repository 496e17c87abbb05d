//! Closing: from the wish to the slot that is free again.
//!
//! ```text
//! close            Open → Closing, until everything queued is sent     → end
//! close_lingering  the same, then Lingering: our direction is shut, the peer's is read and dropped, until it ends
//!                  or the time is up                                   → end
//! close_now, an error                                                  → end
//! end              cancel what is in flight, close the slot, say Closed; Dead until the last operation reported
//! ```
//!
//! The cancellation goes before the close: an armed receive holds a reference, and the socket would live on.
//! The end of our direction is told, and waited for before the slot is free: a worker thread carries it out, later than
//! a close that was submitted after it, and would end the direction of whoever has the slot by then.

use std::io;

use super::slots::{NO_ENTRY, Slow, Stage};
use super::{ConnId, Event, Net};

impl Net {
    /// Closes the connection once everything sent on it has gone; the kernel learns of it with the next turn. If the peer may still be sending, prefer
    /// [`Net::close_lingering`]: bytes that arrive at a closed socket make the kernel reset the connection, and the
    /// peer may lose the answer.
    pub fn close(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        match slot.stage {
            Stage::Connecting => self.end(conn, None),
            Stage::Open => {
                slot.stage = Stage::Closing;
                if slot.arena_entry != NO_ENTRY {
                    self.after_sends = true;
                } else if slot.slow.is_none() {
                    self.finish_closing(conn);
                }
            }
            _ => {}
        }
    }

    /// Like [`Net::close`], and then reads on, dropping what comes, until the peer has ended too or `linger_timeout`
    /// has passed: for an answer given before the request was read to its end.
    pub fn close_lingering(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage == Stage::Open) {
            slot.linger = true;
        }
        self.close(conn);
    }

    /// Closes the connection at once; what was not sent is dropped.
    pub fn close_now(&mut self, conn: ConnId) {
        if self.slots.peek(conn).is_some_and(|slot| slot.stage != Stage::Dead) {
            self.end(conn, None);
        }
    }

    /// Everything is sent: shuts our direction and lingers, or ends.
    pub(super) fn finish_closing(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        if !slot.linger || slot.ended {
            return self.end(conn, None);
        }
        slot.stage = Stage::Lingering;
        slot.paused = false;
        slot.shutting = true;
        slot.slow = Some(Box::new(Slow::until(self.now + self.config.linger_timeout)));
        self.ring.shutdown_send(conn);
        self.list_slow(conn);
        self.arm_receive(conn);
    }

    pub(super) fn on_shutdown(&mut self, conn: ConnId, is_done: bool) {
        let Some(slot) = self.slots.get(conn) else { return };
        slot.shutting = false;
        match slot.stage {
            Stage::Lingering if !is_done => self.end(conn, None),
            Stage::Dead => self.free_if_over(conn),
            _ => {}
        }
    }

    /// Ends the connection, whatever it was doing.
    pub(super) fn end(&mut self, conn: ConnId, error: Option<io::Error>) {
        self.drop_arena_entry(conn);
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage != Stage::Dead) else { return };
        slot.stage = Stage::Dead;
        slot.slow = None;
        if slot.receiving {
            self.ring.cancel_receive(conn);
        }
        if slot.sending || slot.connecting {
            self.ring.cancel_owned(slot.owned);
        }
        self.ring.close(conn.index);
        self.events.push_back(Event::Closed { conn, error });
        self.free_if_over(conn);
    }

    /// Vacates the slot of a dead connection once its last operation has reported.
    pub(super) fn free_if_over(&mut self, conn: ConnId) {
        if self.slots.peek(conn).is_some_and(|slot| slot.stage == Stage::Dead && !slot.busy()) {
            self.slots.vacate(conn);
        }
    }
}
