//! What comes back: answers, refusals, and connections that end.

use super::client::State;
use super::{Load, Sending, Timing, nanos};
use crate::answers::{Answer, Incoming};
use crate::plan::{Lifetime, Offer, Refusals};
use crate::request::mix;
use shard::net::{ConnId, Event};
use std::time::Duration;

/// The first pause after a connection was lost or did not come about.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

impl Load<'_> {
    /// Takes every event of the last turn.
    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.net.next_event() {
            match event {
                Event::Received { conn, buf } => {
                    let Some(client) = self.client_of(conn) else {
                        self.net.release(buf);
                        continue;
                    };
                    let incoming = &mut self.clients[client as usize].incoming;
                    let read = self.reader.read(incoming, self.net.bytes(&buf));
                    self.net.release(buf);
                    match read {
                        Ok(None) => {}
                        Ok(Some(answer)) => self.on_answer(client, conn, answer),
                        Err(_) => self.net.close_now(conn),
                    }
                }
                Event::EndOfStream { conn } => self.net.close(conn),
                Event::Closed { conn, .. } => self.on_closed(conn),
                Event::Connected { conn } => {
                    self.connecting -= 1;
                    if let Some(client) = self.client_of(conn) {
                        self.on_connected(client, conn);
                    }
                }
                Event::ConnectFailed { conn, error } => {
                    self.connecting -= 1;
                    self.connects_failed += 1;
                    self.connect_error = Some(error);
                    if let Some(client) = self.client_of(conn) {
                        self.reconnect_later(client);
                    }
                }
                // None of these was asked for: no listener, no bell, no file, no slow send to wait for.
                Event::Accepted { .. }
                | Event::AcceptFailed { .. }
                | Event::Drained { .. }
                | Event::Woken
                | Event::Synced { .. } => {}
            }
        }
    }

    fn client_of(&self, conn: ConnId) -> Option<u32> {
        let client = *self.client_of_slot.get(conn.index())?;
        (self.clients[client as usize].conn == Some(conn)).then_some(client)
    }

    fn on_connected(&mut self, client: u32, conn: ConnId) {
        let now = self.net.now();
        if !self.clients[client as usize].carries {
            return self.make_idle(client, now);
        }
        // What it was possible to send is what there was a connection for.
        self.clients[client as usize].idle_since = now;
        if self.sending == Sending::No {
            self.clients[client as usize].state = State::Done;
            return self.net.close_now(conn);
        }
        self.transmit(client, conn, now);
    }

    fn on_answer(&mut self, client: u32, conn: ConnId, answer: Answer) {
        let now = self.net.now();
        let entry = &mut self.clients[client as usize];
        if entry.state != State::InFlight {
            // A farewell such as 408 on an idle connection answers nothing.
            self.net.close_now(conn);
            return;
        }
        self.in_flight -= 1;
        self.answers += 1;
        self.statuses[usize::from(answer.status.min(999))] += 1;
        if let Some(window) = self.window {
            self.answered += 1;
            self.accepted += u64::from(answer.accepts());
            if answer.accepts() && entry.intended >= window {
                let took = now.saturating_duration_since(entry.intended);
                self.latency.saturating_record(nanos(took));
                if self.plan.tells_each {
                    self.each.push(Timing { intended: entry.intended, took });
                }
            }
            // Elsewhere a request is meant for the moment when it is sent.
            if answer.accepts() && entry.sent >= window && self.arrivals.is_some() {
                self.from_sending.saturating_record(nanos(now.saturating_duration_since(entry.sent)));
            }
        }
        let mut pause = Duration::ZERO;
        if answer.accepts() {
            self.acknowledged_requests += 1;
            self.first_acknowledged_requests += u64::from(client == 0);
            self.level = answer.durability;
            self.levels_missed +=
                u64::from(self.plan.durability.is_some_and(|asked| answer.durability != Some(asked)));
            entry.pauses.reset();
        } else if matches!(answer.status, 429 | 503 | 507) && self.plan.refusals == Refusals::Obeyed {
            self.random = mix(self.random);
            pause = entry.pauses.next(answer.retry_after, self.random);
            self.pauses += 1;
        }
        let is_single = self.plan.lifetime == Lifetime::PerRequest;
        if self.plan.offer == Offer::Once {
            entry.state = State::Done;
            self.done += 1;
        } else if !pause.is_zero() {
            if is_single {
                entry.conn = None;
            }
            self.rest(client, now + pause);
        } else if answer.closes || is_single {
            entry.state = State::Apart;
        } else {
            self.make_idle(client, now);
        }
        // Who closes first keeps the port in TIME_WAIT: of a single request that shall be the server, as it said.
        if answer.closes != is_single {
            self.net.close(conn);
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        let Some(client) = self.client_of(conn) else { return };
        let entry = &mut self.clients[client as usize];
        entry.conn = None;
        entry.incoming = Incoming::default();
        match entry.state {
            // It rests already, and connects when the rest is over; or it has nothing more to do.
            State::Resting | State::Done => {}
            State::Apart if self.plan.lifetime == Lifetime::PerRequest => {
                self.make_idle(client, self.net.now())
            }
            // The server said that it would close, and the answer was taken.
            State::Apart => self.rest(client, self.net.now()),
            State::Connecting => {
                self.connecting -= 1;
                self.reconnect_later(client);
            }
            State::Idle => {
                self.connections_lost += 1;
                self.reconnect_later(client);
            }
            State::InFlight => {
                self.in_flight -= 1;
                self.unanswered_requests += 1;
                self.connections_lost += 1;
                if self.plan.offer == Offer::Once && self.sending != Sending::No {
                    self.clients[client as usize].state = State::Done;
                    self.done += 1;
                } else {
                    self.reconnect_later(client);
                }
            }
        }
    }

    fn reconnect_later(&mut self, client: u32) {
        self.random = mix(self.random);
        let entry = &mut self.clients[client as usize];
        entry.conn = None;
        let pause = entry.pauses.next(Some(RECONNECT_PAUSE), self.random);
        self.rest(client, self.net.now() + pause);
    }
}
