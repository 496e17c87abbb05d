//! Listening and accepting: single accepts, each with room for the peer's address, re-armed as they complete.
//!
//! The multishot accept would save submissions but tells no address, and asking for it afterwards needs a
//! descriptor that a connection in the ring's table does not have.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::slots::Stage;
use super::{Event, Net, NetConfig, NetError};
use crate::sys::socket;
use crate::sys::uring::Accepted;

/// How long accepting rests after it failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pieces received in a turn that weigh as much as a connection taken in: that one costs about 20 µs with its first
/// receive and its close, a small request 7 µs.
const RECEIVES_PER_ACCEPT: u32 = 4;

/// An address for the loops of this process to listen on. It is to be kept until they do: with SO_REUSEPORT two servers
/// on one port would split the load in silence. No other process gets it, but one of the same user that asks to share
/// the port without having claimed it.
#[derive(Debug)]
pub struct ClaimedPort {
    addr: SocketAddr,
    _claim: OwnedFd,
}

impl ClaimedPort {
    /// Claims `addr`; of a port 0, a free one.
    ///
    /// # Errors
    /// [`NetError::Listen`] if it is another's, listening or claimed, or not this machine's.
    pub fn claim(addr: SocketAddr) -> Result<ClaimedPort, NetError> {
        let (claim, addr) = socket::claim(addr).map_err(|source| NetError::Listen { addr, source })?;
        Ok(ClaimedPort { addr, _claim: claim })
    }

    /// With its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Net {
    /// Listens on `addr`, a [`ClaimedPort`]'s, sharing the port with the other loops that do, and accepts until told to
    /// stop. Returns the address with its real port. One listener at a time.
    pub fn listen(&mut self, addr: SocketAddr, backlog: u16) -> Result<SocketAddr, NetError> {
        if self.listening || self.listener_ending {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(NetError::Listen { addr, source });
        }
        let failed = |source| NetError::Listen { addr, source };
        let listener = socket::listener(addr, backlog).map_err(failed)?;
        let bound = socket::local_addr(&listener).map_err(failed)?;
        self.ring.set_listener(listener);
        self.listening = true;
        Ok(bound)
    }

    /// Stops accepting and closes the listener with the next turn. Connections that were accepted before still come,
    /// as events; those in the backlog are reset.
    pub fn stop_listening(&mut self) {
        if self.listening {
            self.listening = false;
            self.listener_ending = true;
            self.accept_again_at = None;
            self.ring.cancel_accepts();
        }
    }

    pub(super) fn arm_accepts(&mut self) {
        if !self.listening || self.accepts_idle.is_empty() {
            return;
        }
        if self.accept_again_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.accept_again_at = None;
        let in_flight_max = self.accepts_in_flight_max();
        while let Some(&accept) = self.accepts_idle.last()
            && usize::from(self.config.accepts_max) - self.accepts_idle.len() < in_flight_max
        {
            if self.slots.open() + self.slots.accepting() >= self.config.connections_max as usize {
                if !self.accepts_held {
                    self.accepts_held = true;
                    self.stats.accepts_held += 1;
                }
                return;
            }
            let Some(conn) = self.slots.take(Stage::Accepting) else { return };
            self.accepts_held = false;
            self.accepts_idle.pop();
            if !self.ring.accept(accept, conn.index) {
                self.slots.give_up(conn.index);
                return;
            }
        }
    }

    /// So that newcomers take their part of each turn and no more, whether it is short or long.
    fn accepts_in_flight_max(&self) -> usize {
        let NetConfig { accepts_min, accepts_max, .. } = self.config;
        let share = self.received / RECEIVES_PER_ACCEPT;
        share.max(accepts_min.into()).min(accepts_max.into()) as usize
    }

    pub(super) fn on_accepted(&mut self, accept: u16, slot: u32, outcome: Accepted) {
        self.accepts_idle.push(accept);
        match outcome {
            Accepted::Peer(peer) => {
                let Some(conn) = self.slots.accept(slot) else { return };
                self.stats.accepted += 1;
                self.events.push_back(Event::Accepted { conn, peer });
                self.arm_receive(conn);
            }
            Accepted::Retry | Accepted::Cancelled => self.slots.give_up(slot),
            Accepted::Exhausted(error) => {
                self.slots.give_up(slot);
                self.stats.accepts_failed += 1;
                // One event and one pause for all the accepts that fail together.
                if self.listening && self.accept_again_at.is_none_or(|at| at <= self.now) {
                    self.accept_again_at = Some(self.now + ACCEPT_PAUSE);
                    self.events.push_back(Event::AcceptFailed { error });
                }
            }
        }
    }
}
