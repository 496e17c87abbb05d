//! Sending: which client sends next, and for which moment it counts.

use super::client::{State, source};
use super::{Load, Sending, nanos};
use crate::plan::{Lifetime, Offer};
use shard::net::ConnId;
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// Connects under way at once before a load: a server's backlog is not the subject there.
const CONNECTING_MAX: u32 = 256;

impl Load<'_> {
    /// Starts what may start now; when there will be more to start, if a clock knows.
    pub(super) fn offer(&mut self, now: Instant) -> Option<Instant> {
        self.start_clients(now);
        self.end_rests(now);
        let rest_ends = self.resting.peek().map(|Reverse((at, _))| *at);
        let more_at = match self.sending {
            Sending::No => None,
            Sending::Since(since) => self.send_due(since, now),
        };
        [rest_ends, more_at].into_iter().flatten().min()
    }

    fn start_clients(&mut self, now: Instant) {
        while self.clients_started < self.plan.connections && self.connecting < CONNECTING_MAX {
            self.connect(self.clients_started, now);
            self.clients_started += 1;
        }
    }

    fn end_rests(&mut self, now: Instant) {
        while let Some(Reverse((at, client))) = self.resting.peek().copied() {
            if at > now || self.connecting >= self.connecting_max() {
                return;
            }
            self.resting.pop();
            let entry = &self.clients[client as usize];
            let needs_none = self.plan.lifetime == Lifetime::PerRequest && !entry.carries;
            if entry.conn.is_some() || needs_none {
                self.make_idle(client, now);
            } else {
                self.connect(client, now);
            }
        }
    }

    fn connecting_max(&self) -> u32 {
        match self.plan.lifetime {
            Lifetime::Kept => CONNECTING_MAX,
            Lifetime::PerRequest => self.plan.connections,
        }
    }

    /// Starts a connection of the client.
    fn connect(&mut self, client: u32, now: Instant) {
        let target = self.plan.target.addr;
        match self.net.connect(target, source(client, self.plan.connections, target)) {
            Ok(conn) => {
                self.client_of_slot[conn.index()] = client;
                self.clients[client as usize].conn = Some(conn);
                self.clients[client as usize].state = State::Connecting;
                self.connecting += 1;
            }
            // Every slot is taken by connections that are still closing.
            Err(_) => self.rest(client, now + Duration::from_millis(10)),
        }
    }

    /// Lets the client wait for a moment; then it is idle, or connects again.
    pub(super) fn rest(&mut self, client: u32, until: Instant) {
        self.clients[client as usize].state = State::Resting;
        self.resting.push(Reverse((until, client)));
    }

    pub(super) fn make_idle(&mut self, client: u32, now: Instant) {
        let entry = &mut self.clients[client as usize];
        entry.state = State::Idle;
        entry.idle_since = now;
        self.idle.push_back(client);
    }

    /// Sends what is due; when there is more to send, if a clock knows.
    fn send_due(&mut self, since: Instant, now: Instant) -> Option<Instant> {
        let mut room = self.sends_per_turn_max;
        if self.arrivals.is_none() {
            while room > 0 && self.wants_more() {
                let client = self.next_idle()?;
                self.send(client, now, now);
                room -= 1;
            }
            return (self.wants_more() && !self.idle.is_empty()).then_some(now);
        }
        let elapsed_ns = nanos(now.saturating_duration_since(since));
        if let Some(patience) = self.plan.patience {
            let given_up =
                self.arrivals.as_mut()?.take_all_before(elapsed_ns.saturating_sub(nanos(patience)));
            self.arrivals_given_up += given_up;
        }
        loop {
            let next_at = self.arrivals.as_ref()?.next_at();
            if next_at > elapsed_ns {
                return Some(since + Duration::from_nanos(next_at));
            }
            if room == 0 {
                return Some(now);
            }
            // Nobody is free: the arrival waits, and its latency counts on, or it loses its patience.
            let client = self.next_idle()?;
            let moment = self.arrivals.as_mut()?.take(elapsed_ns)?;
            self.arrivals_given += 1;
            self.send(client, since + Duration::from_nanos(moment), now);
            room -= 1;
        }
    }

    /// Whether a free connection shall send: those in flight may all be accepted.
    fn wants_more(&self) -> bool {
        match self.plan.offer {
            Offer::Accepted { requests } => {
                self.acknowledged_requests + u64::from(self.in_flight + self.carried) < requests
            }
            Offer::Open { .. } | Offer::Closed | Offer::Once => true,
        }
    }

    /// The client that has been idle longest; those whose connection ended meanwhile are passed over.
    fn next_idle(&mut self) -> Option<u32> {
        loop {
            let client = self.idle.pop_front()?;
            if self.clients[client as usize].state == State::Idle {
                return Some(client);
            }
        }
    }

    /// Sends on the client's connection, or makes one first.
    fn send(&mut self, client: u32, intended: Instant, now: Instant) {
        let entry = &mut self.clients[client as usize];
        entry.intended = intended;
        match entry.conn {
            Some(conn) => self.transmit(client, conn, now),
            None => {
                entry.carries = true;
                self.carried += 1;
                self.connect(client, now);
            }
        }
    }

    /// How often a tenth of the series has been replaced by now.
    fn turnovers(&self, now: Instant) -> u64 {
        match (self.plan.tenth_replaced_every, self.sending) {
            (Some(every), Sending::Since(since)) => {
                nanos(now.saturating_duration_since(since)) / nanos(every).max(1)
            }
            _ => 0,
        }
    }

    /// Sends the client's request, meant for the moment that it remembers.
    pub(super) fn transmit(&mut self, client: u32, conn: ConnId, now: Instant) {
        let turnovers = self.turnovers(now);
        let entry = &mut self.clients[client as usize];
        if matches!(self.plan.offer, Offer::Open { .. }) {
            self.arrivals_sent += 1;
            if self.window.is_some() {
                let possible = entry.intended.max(entry.idle_since);
                self.lateness.saturating_record(nanos(now.saturating_duration_since(possible)));
            }
        }
        self.carried -= u32::from(std::mem::take(&mut entry.carries));
        entry.state = State::InFlight;
        entry.sent = now;
        let (template, sequence) = (&self.template, entry.sequence);
        entry.sequence += 1;
        self.in_flight += 1;
        self.net.send_with(conn, |out| template.append(client, sequence, turnovers, out));
    }
}
