//! Receiving: one multishot receive per connection, filling whatever buffer is free.
//!
//! Always: a receive is in flight exactly while the connection is open (or lingering), not paused, not at its end and
//! not starved. A connection whose receive found no buffer waits in line; at most as many leave the line in a turn as
//! there are free buffers, so that running out costs waiting and never a spin.

use super::slots::Stage;
use super::{ConnId, Event, Net, RecvBuf};
use crate::sys::uring::Received;

impl Net {
    /// The received bytes, writable for decoders that work in place.
    ///
    /// # Panics
    /// When the buffer came from another `Net`.
    pub fn bytes(&mut self, buf: &RecvBuf) -> &mut [u8] {
        self.ring.bufs().bytes(buf)
    }

    /// Gives a buffer back. The kernel gets all of a turn's buffers at once, before the next enter.
    ///
    /// # Panics
    /// When the buffer came from another `Net`.
    pub fn release(&mut self, buf: RecvBuf) {
        self.ring.bufs().give_back(buf);
    }

    /// Stops receiving from the connection; bytes that are on their way to us already may still come as events.
    pub fn pause_receive(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage == Stage::Open) else { return };
        slot.paused = true;
        slot.starved = false;
        if slot.receiving && !slot.cancelling {
            slot.cancelling = true;
            self.ring.cancel_receive(conn);
        }
    }

    /// Goes on receiving.
    pub fn resume_receive(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn).filter(|slot| slot.stage == Stage::Open) else { return };
        slot.paused = false;
        // A cancellation still under way ends with a completion, which arms the receive again.
        self.arm_receive(conn);
    }

    /// Arms the receive if it should be in flight and is not.
    pub(super) fn arm_receive(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get(conn) else { return };
        let wanted = matches!(slot.stage, Stage::Open | Stage::Lingering)
            && !(slot.paused || slot.ended || slot.starved || slot.receiving);
        if wanted {
            slot.receiving = true;
            self.ring.receive(conn);
        }
    }

    /// Arms receives again as far as there are buffers, longest waiting first.
    pub(super) fn arm_starved(&mut self) {
        let mut available = self.ring.bufs().available();
        while available > 0 {
            let Some(conn) = self.starved.pop_front() else { return };
            let Some(slot) = self.slots.get(conn).filter(|slot| slot.starved) else { continue };
            slot.starved = false;
            available -= 1;
            self.arm_receive(conn);
        }
    }

    pub(super) fn on_received(&mut self, conn: ConnId, outcome: Received, armed: bool) {
        let Some(slot) = self.slots.get(conn) else {
            // A slot stays its connection's until the receive has ended, so nobody is there only for no bytes.
            if let Received::Bytes(buf) = outcome {
                self.release(buf);
            }
            return;
        };
        if !armed {
            slot.receiving = false;
            slot.cancelling = false;
        }
        let stage = slot.stage;
        match outcome {
            Received::Bytes(buf) if stage == Stage::Open => {
                self.received += 1;
                self.coalesce.hear(conn.index());
                self.events.push_back(Event::Received { conn, buf })
            }
            Received::Bytes(buf) => self.release(buf),
            Received::EndOfStream => {
                slot.ended = true;
                match stage {
                    Stage::Open => self.events.push_back(Event::EndOfStream { conn }),
                    Stage::Lingering => return self.end(conn, None),
                    _ => {}
                }
            }
            Received::BuffersExhausted => {
                self.stats.buffers_exhausted += 1;
                if !slot.paused && !slot.starved && matches!(stage, Stage::Open | Stage::Lingering) {
                    slot.starved = true;
                    self.starved.push_back(conn);
                }
            }
            Received::Cancelled => {}
            Received::Failed(error) => match stage {
                Stage::Dead => {}
                Stage::Lingering => return self.end(conn, None),
                _ => return self.end(conn, Some(error)),
            },
        }
        if stage == Stage::Dead {
            self.free_if_over(conn);
        } else if !armed {
            self.arm_receive(conn);
        }
    }
}
