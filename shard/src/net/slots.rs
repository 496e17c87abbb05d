//! The table of connections: a slot here is the slot of the ring's file table.
//!
//! Always: a slot is free only when none of its operations is in flight, and may be taken again only after its close
//! was submitted, so that the close can never meet the next connection's socket.

use std::time::Instant;

use super::ConnId;

/// No part of the arena.
pub(super) const NO_ENTRY: u32 = u32::MAX;

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Free,
    /// Reserved for an accept in flight.
    Accepting,
    Connecting,
    Open,
    /// Asked to close; bytes are still leaving.
    Closing,
    /// All is sent and said; what the peer still sends is read and dropped, so that it can read our last words.
    Lingering,
    /// Closed; operations have yet to report their end.
    Dead,
}

pub(super) struct Slot {
    pub(super) generation: u32,
    /// This turn's part of the arena, as an index of `Net::sends`.
    pub(super) arena_entry: u32,
    /// The ring's key of its send or connect in flight.
    pub(super) owned: u32,
    pub(super) stage: Stage,
    /// A receive is in flight.
    pub(super) receiving: bool,
    /// That receive is being cancelled.
    pub(super) cancelling: bool,
    pub(super) paused: bool,
    /// Waits for a free buffer, in `Net::starved`.
    pub(super) starved: bool,
    /// The peer sends no more.
    pub(super) ended: bool,
    /// A send of its own buffer is in flight.
    pub(super) sending: bool,
    /// A connect is in flight.
    pub(super) connecting: bool,
    /// Closing is to linger.
    pub(super) linger: bool,
    /// The end of our direction is in flight.
    pub(super) shutting: bool,
    /// In `Net::slow`.
    pub(super) listed: bool,
    /// What only a connection that waits needs.
    pub(super) slow: Option<Box<Slow>>,
}

/// An idle connection costs this much and nothing else here.
const _: () = assert!(size_of::<Slot>() <= 32);

/// A connection that waits for its peer.
pub(super) struct Slow {
    /// Bytes behind those in flight.
    pub(super) waiting: Vec<u8>,
    /// Length of the buffer in flight.
    pub(super) in_flight_len: usize,
    /// How much of it has gone.
    pub(super) in_flight_from: usize,
    pub(super) deadline: Instant,
}

impl Slow {
    pub(super) fn until(deadline: Instant) -> Slow {
        Slow { waiting: Vec::new(), in_flight_len: 0, in_flight_from: 0, deadline }
    }
}

impl Slot {
    fn fresh(generation: u32) -> Slot {
        Slot {
            generation,
            arena_entry: NO_ENTRY,
            owned: 0,
            stage: Stage::Free,
            receiving: false,
            cancelling: false,
            paused: false,
            starved: false,
            ended: false,
            sending: false,
            connecting: false,
            linger: false,
            shutting: false,
            listed: false,
            slow: None,
        }
    }

    /// Whether an operation in flight still names this slot.
    pub(super) fn busy(&self) -> bool {
        self.receiving || self.sending || self.connecting || self.shutting
    }
}

pub(super) struct Slots {
    slots: Vec<Slot>,
    max: u32,
    free: Vec<u32>,
    /// Free but for a close that may not be submitted yet.
    vacated: Vec<u32>,
    /// Slots that are neither free nor only reserved.
    open: usize,
    accepting: usize,
}

impl Slots {
    /// Grows as connections come, up to `max`.
    pub(super) fn new(max: u32) -> Slots {
        Slots { slots: Vec::new(), max, free: Vec::new(), vacated: Vec::new(), open: 0, accepting: 0 }
    }

    /// A free slot, now in `stage`.
    pub(super) fn take(&mut self, stage: Stage) -> Option<ConnId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if (self.slots.len() as u32) < self.max => {
                self.slots.push(Slot::fresh(0));
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.stage = stage;
        match stage {
            Stage::Accepting => self.accepting += 1,
            _ => self.open += 1,
        }
        Some(ConnId { index, generation: slot.generation })
    }

    /// The reserved slot became a connection.
    pub(super) fn accept(&mut self, index: u32) -> Option<ConnId> {
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.stage == Stage::Accepting)?;
        slot.stage = Stage::Open;
        self.accepting -= 1;
        self.open += 1;
        Some(ConnId { index, generation: slot.generation })
    }

    /// The reserved slot was not needed; it never held a socket.
    pub(super) fn give_up(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize).filter(|slot| slot.stage == Stage::Accepting) {
            slot.stage = Stage::Free;
            self.accepting -= 1;
            self.free.push(index);
        }
    }

    /// The connection, unless its slot serves another one by now.
    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let alive = |slot: &&mut Slot| slot.generation == conn.generation && slot.stage != Stage::Free;
        self.slots.get_mut(conn.index as usize).filter(alive)
    }

    pub(super) fn peek(&self, conn: ConnId) -> Option<&Slot> {
        self.slots
            .get(conn.index as usize)
            .filter(|slot| slot.generation == conn.generation && slot.stage != Stage::Free)
    }

    pub(super) fn is_open(&self, conn: ConnId) -> bool {
        self.peek(conn).is_some_and(|slot| slot.stage == Stage::Open)
    }

    /// Ends the connection: its name means nothing from now on, and its slot waits in `vacated`.
    pub(super) fn vacate(&mut self, conn: ConnId) {
        if let Some(slot) = self.get(conn) {
            *slot = Slot::fresh(conn.generation.wrapping_add(1));
            self.open -= 1;
            self.vacated.push(conn.index);
        }
    }

    /// How many slots wait for their close to be submitted.
    pub(super) fn vacated(&self) -> usize {
        self.vacated.len()
    }

    /// The first `count` vacated slots had their close submitted.
    pub(super) fn reuse(&mut self, count: usize) {
        self.free.extend(self.vacated.drain(..count));
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn accepting(&self) -> usize {
        self.accepting
    }
}
