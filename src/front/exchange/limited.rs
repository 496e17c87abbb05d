//! Requests under a rate limit: those beyond it are refused before their bodies are looked at, and those of which
//! another loop keeps count wait for its word.
//!
//! Always: a request that waits is its connection's only one, and its body counts among the bytes that are held back;
//! one word may decide thousands, so they line up behind those that are held, and pass the same gate.
//! Not here: how requests are counted (`rate_limit.rs`).

use super::{Exchange, Terms};
use crate::api::{Door, IntakeError, Refusal};
use crate::config::Durability;
use crate::front::address::AddressText;
use crate::front::connection::{Asked, Awaited, Connection};
use crate::front::gate::Gate;
use crate::front::rate_limit::{Portion, Verdict};
use crate::front::reply::{Payload, Reply};
use shard::mesh::Outbox;
use shard::net::ConnId;

impl Exchange {
    /// Whether a request of the connection is within its client's limit. The client is who the head or the address
    /// says; what the body says is not looked at.
    pub(super) fn limit(&mut self, id: ConnId, terms: &Terms<'_>) -> Verdict {
        let until_nanos = u64::MAX;
        let Some(limit) = &mut self.rate_limit else { return Verdict::Pass { until_nanos } };
        let connection = self.connections.get(id.index()).and_then(Option::as_ref);
        let client = match (&terms.client, connection) {
            (Some(named), _) => limit.client(named),
            (None, Some(connection)) => limit.client(AddressText::of(connection.peer).as_bytes()),
            (None, None) => return Verdict::Pass { until_nanos },
        };
        limit.decide(client, id, self.now.nanos, &mut sender(&mut self.to_loops))
    }

    /// What a request is answered that does not pass.
    pub(super) fn beyond_limit(&self, verdict: Verdict, door: Door) -> (Payload, Durability) {
        let Verdict::Limited { frees_after_nanos } = verdict else {
            return self.refused(IntakeError::Overloaded, door);
        };
        self.shared.shards[self.index].front.rate_limited.add(1);
        let limit = self.shared.config.ingest_rate_limit_per_client.map_or(0, u32::from);
        let refusal = Refusal::rate_limited(limit, frees_after_nanos);
        let refusal = Refusal { shape: door.refusal_shape(), ..refusal };
        (Payload::Refused(refusal), Durability::Memory)
    }

    /// Whether there is room to keep that body until the owner of its client has answered.
    pub(super) fn may_await_portion(&self, body: &[u8]) -> bool {
        self.unfinished_bytes + body.len() <= self.unfinished_bytes_max
    }

    /// Keeps a request until the owner of its client has answered; only where [`Exchange::may_await_portion`] says
    /// so.
    pub(super) fn await_portion(
        &mut self,
        id: ConnId,
        body: &[u8],
        terms: Terms<'static>,
        asked: impl FnOnce(Awaited) -> Asked,
    ) {
        if let Some(connection) = self.connection(id) {
            connection.asked =
                Some(Box::new(asked(Awaited::Portion { terms, body: body.to_vec(), word: None })));
            self.unfinished_bytes += body.len();
        }
    }

    /// Another loop has said something about a client; requests that go on by that line up.
    pub fn take_portion(&mut self, from: usize, portion: Portion) {
        let Some(limit) = &mut self.rate_limit else { return };
        let mut decided = Vec::new();
        let note = &mut |conn, verdict| decided.push((conn, verdict));
        limit.take(from, portion, self.now.nanos, &mut sender(&mut self.to_loops), note);
        for (conn, verdict) in decided {
            // Of a request that was refused meanwhile the word comes all the same.
            if let Some(connection) = self.connection(conn)
                && let Some(Asked { awaited: Awaited::Portion { word, .. }, .. }) =
                    connection.asked.as_deref_mut()
            {
                *word = Some(verdict);
                self.hold(conn);
            }
        }
    }

    /// Answers the connection's request if its word has come: its turn in the line has.
    pub(super) fn take_decided(&mut self, id: ConnId) {
        let decided =
            |asked: &mut Box<Asked>| matches!(asked.awaited, Awaited::Portion { word: Some(_), .. });
        let asked = self.connection(id).and_then(|connection| connection.asked.take_if(decided));
        let Some(asked) = asked else { return };
        let Asked { head_only, connection, arrived_nanos, log, awaited } = *asked;
        let Awaited::Portion { terms, body, word: Some(verdict) } = awaited else { return };
        self.unfinished_bytes -= body.len();
        let decided = match verdict {
            // The line may have stood still longer than the use is counted.
            Verdict::Pass { until_nanos } if self.gate != Gate::Refusing && self.now.nanos < until_nanos => {
                self.ingest(id, &body, &terms)
            }
            verdict => Ok(self.beyond_limit(verdict, terms.door)),
        };
        let (payload, level) = match decided {
            Ok(decided) => decided,
            Err(not_now) => {
                let body = not_now.body(&body, terms.coding);
                if self.may_hand_over(&body) {
                    let asked = |awaited| Asked { head_only, connection, arrived_nanos, log, awaited };
                    self.hand_over(id, body, terms, asked);
                    return;
                }
                self.refused(IntakeError::Overloaded, terms.door)
            }
        };
        let any_origin = false;
        let reply = Reply { conn: id, head_only, connection, payload, any_origin, arrived_nanos, log };
        self.queue(reply, level);
    }

    /// The loops are on their way out, and one that has ended sends no word: whoever waits for one is refused.
    pub fn stop_awaiting_portions(&mut self) {
        let awaits = |connection: &&Connection| {
            let asked = connection.asked.as_deref();
            asked.is_some_and(|asked| matches!(asked.awaited, Awaited::Portion { word: None, .. }))
        };
        let waiting: Vec<ConnId> = self.open_connections().filter(awaits).map(|held| held.id).collect();
        for id in waiting {
            let Some(asked) = self.connection(id).and_then(|held| held.asked.take()) else { continue };
            self.unfinished_bytes -= asked.body_bytes();
            let (payload, level) = self.refused(IntakeError::Stopping, asked.door());
            let any_origin = false;
            self.queue(asked.reply(id, payload, any_origin), level);
        }
    }

    /// When [`Exchange::tend_limits`] has something to do, in monotonic nanoseconds.
    pub fn tend_limits_at(&self) -> Option<u64> {
        self.rate_limit.as_ref()?.tend_at_nanos(self.now.nanos)
    }

    /// Gives back what this loop no longer uses of its clients' limits.
    pub fn tend_limits(&mut self) {
        if let Some(limit) = &mut self.rate_limit {
            limit.tend(self.now.nanos, &mut sender(&mut self.to_loops));
        }
    }
}

fn sender(to_loops: &mut Outbox<Portion>) -> impl FnMut(usize, Portion) -> bool + '_ {
    |to, portion| to_loops.send(to, portion).is_ok()
}
