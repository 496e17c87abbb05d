//! At most so many requests of one client in any second, over all loops.
//!
//! Owner: one loop each. A client's requests are counted by one of the loops, its owner (hash of its id); the
//! others ask it for portions, to be used within two slots, and give back what they did not use.
//!
//! ```text
//! request on the owner      book one use in the client's window: pass, or refuse
//! request elsewhere         a portion is left: pass; none: ask the owner, and wait for its word
//! portion half used         ask for the next one meanwhile
//! portion out of time       give the rest back
//! owner has nothing left    refuse until the next slot, then ask again
//! ```
//!
//! Always: no second holds more than the limit (`window.rs` says why); a request waits for the word that was under
//! way when it came, and one more at most; no lock and no shared counter.
//! Not here: what a client's id is (`exchange.rs`), what a refusal looks like (`api.rs`).

mod clients;
mod window;

pub use clients::Client;
#[cfg(test)]
pub use window::SLOT_BITS;

use clients::Clients;
use std::collections::VecDeque;
use window::{AHEAD_SLOTS, Window, begin_of, slot_of};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Clients of whom one loop keeps count at once; further ones are told that the server is overloaded.
const CLIENTS_MAX: usize = 64 * 1024;
/// A portion is this part of the limit, divided by the number of loops.
const PORTIONS_PER_LIMIT: u32 = 16;
/// How soon a full ring is tried again.
const UNSENT_RETRY_NANOS: u64 = 1_000_000;

/// Between two loops.
#[derive(Clone, Copy, Debug)]
pub enum Portion {
    /// To the owner: so many would be used at once.
    Ask { client: Client, wanted: u32 },
    /// From the owner. Fewer than were wanted: there are no more now, and the first come free after so long.
    Grant { client: Client, granted: u32, wanted: u32, through_slot: u64, frees_after_nanos: u64 },
    /// To the owner: granted for that slot, and not used.
    GiveBack { client: Client, count: u32, through_slot: u64 },
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is within the limit, if it is taken before that monotonic nanosecond: until then it is counted.
    Pass { until_nanos: u64 },
    /// It is not; in so many nanoseconds the next one is.
    Limited { frees_after_nanos: u64 },
    /// The owner has been asked; [`RateLimit::take`] will tell.
    Wait,
    /// Too many clients at once to keep count of one more, or the owner is too busy to answer in time.
    Crowded,
}

/// The limit, as one loop keeps it. `W` names a request that waits.
#[derive(Debug)]
pub struct RateLimit<W> {
    limit: u32,
    loop_index: usize,
    loops: usize,
    seed: u64,
    owned: Clients<Window>,
    held: Clients<Held<W>>,
    /// Whose portions run out of time after which slot, earliest first.
    expiries: VecDeque<(u64, Client)>,
    /// Words to other loops that found no place: at most one per client and loop, since nobody asks twice.
    unsent: VecDeque<(usize, Portion)>,
}

/// What a loop holds of a client whom another one owns.
#[derive(Debug)]
struct Held<W> {
    /// Uses left, by the slot through which they may happen, earliest first: at most one more than
    /// [`AHEAD_SLOTS`] of them are not yet out of time.
    portions: VecDeque<(u64, u32)>,
    is_asked: bool,
    /// In this slot the owner had nothing left.
    limited_slot: Option<u64>,
    frees_at_nanos: u64,
    /// In order of arrival; at most one per connection.
    waiting: VecDeque<W>,
}

impl<W> RateLimit<W> {
    /// `limit` requests a second, on loop `loop_index` of `loops`. All loops have the same seed.
    pub fn new(limit: u32, loop_index: usize, loops: usize, seed: u64) -> RateLimit<W> {
        let owned = Clients::new(CLIENTS_MAX, |_| false);
        let held = Clients::new(CLIENTS_MAX, |held: &Held<W>| !held.waiting.is_empty());
        RateLimit {
            limit,
            loop_index,
            loops,
            seed,
            owned,
            held,
            expiries: VecDeque::new(),
            unsent: VecDeque::new(),
        }
    }

    /// The client of that id.
    pub fn client(&self, id: &[u8]) -> Client {
        Client(xxh3_128_with_seed(id, self.seed))
    }

    /// The loop that counts that client's requests.
    pub fn owner(&self, client: Client) -> usize {
        (client.0 as u64 % self.loops as u64) as usize
    }

    /// Decides on a request. `send` carries messages to other loops, and says whether there was a place.
    pub fn decide(
        &mut self,
        client: Client,
        request: W,
        now_nanos: u64,
        send: &mut impl FnMut(usize, Portion) -> bool,
    ) -> Verdict {
        let slot = slot_of(now_nanos);
        let owner = self.owner(client);
        if owner == self.loop_index {
            let Some(window) = self.owned.meet(client, slot, || Window::new(slot)) else {
                return Verdict::Crowded;
            };
            return match window.book(1, self.limit, slot, 0) {
                0 => Verdict::Limited { frees_after_nanos: window.frees_after(now_nanos) },
                _ => Verdict::Pass { until_nanos: begin_of(slot + 1) },
            };
        }
        let portion = self.portion();
        let Some(held) = self.held.meet(client, slot, Held::new) else { return Verdict::Crowded };
        if held.waiting.is_empty()
            && let Some(through_slot) = held.use_one(slot)
        {
            if held.left(slot) <= portion / 2 && held.may_ask(slot) {
                // Without a place the next request asks.
                held.is_asked = send(owner, Portion::Ask { client, wanted: portion });
            }
            return Verdict::Pass { until_nanos: begin_of(through_slot + 1) };
        }
        if held.limited_slot == Some(slot) {
            return Verdict::Limited { frees_after_nanos: held.frees_at_nanos.saturating_sub(now_nanos) };
        }
        if !held.is_asked {
            held.is_asked = send(owner, Portion::Ask { client, wanted: portion });
            if !held.is_asked {
                return Verdict::Crowded;
            }
        }
        held.waiting.push_back(request);
        Verdict::Wait
    }

    fn portion(&self) -> u32 {
        (self.limit / PORTIONS_PER_LIMIT / self.loops as u32).max(1)
    }

    /// Takes a message of another loop; `decided` is told what becomes of the requests that waited for it.
    pub fn take(
        &mut self,
        from: usize,
        message: Portion,
        now_nanos: u64,
        send: &mut impl FnMut(usize, Portion) -> bool,
        decided: &mut impl FnMut(W, Verdict),
    ) {
        let slot = slot_of(now_nanos);
        match message {
            Portion::Ask { client, wanted } => {
                let window = self.owned.meet(client, slot, || Window::new(slot));
                let (granted, frees_after_nanos) = match window {
                    Some(window) => {
                        (window.book(wanted, self.limit, slot, AHEAD_SLOTS), window.frees_after(now_nanos))
                    }
                    None => (0, 0),
                };
                let through_slot = slot + AHEAD_SLOTS;
                let grant = Portion::Grant { client, granted, wanted, through_slot, frees_after_nanos };
                // Somebody waits for this word: it is never dropped.
                if !send(from, grant) {
                    self.unsent.push_back((from, grant));
                }
            }
            Portion::GiveBack { client, count, through_slot } => {
                if let Some(window) = self.owned.known(client) {
                    window.give_back(count, through_slot, slot);
                }
            }
            Portion::Grant { client, granted, wanted, through_slot, frees_after_nanos } => {
                self.granted(
                    (client, granted, wanted),
                    through_slot,
                    frees_after_nanos,
                    now_nanos,
                    send,
                    decided,
                );
            }
        }
    }

    fn granted(
        &mut self,
        (client, granted, wanted): (Client, u32, u32),
        through_slot: u64,
        frees_after_nanos: u64,
        now_nanos: u64,
        send: &mut impl FnMut(usize, Portion) -> bool,
        decided: &mut impl FnMut(W, Verdict),
    ) {
        let slot = slot_of(now_nanos);
        let (owner, portion) = (self.owner(client), self.portion());
        let Some(held) = self.held.known(client) else { return };
        held.is_asked = false;
        if granted > 0 {
            held.portions.push_back((through_slot, granted));
            // Owners read their clocks at other moments; a portion given back a slot late costs nothing else.
            let expires = self.expiries.back().map_or(through_slot, |(last, _)| through_slot.max(*last));
            self.expiries.push_back((expires, client));
        }
        if granted < wanted {
            held.limited_slot = Some(slot);
            held.frees_at_nanos = now_nanos + frees_after_nanos;
        }
        while !held.waiting.is_empty()
            && let Some(through_slot) = held.use_one(slot)
        {
            if let Some(request) = held.waiting.pop_front() {
                decided(request, Verdict::Pass { until_nanos: begin_of(through_slot + 1) });
            }
        }
        if held.waiting.is_empty() {
            return;
        }
        let is_late = through_slot < slot;
        if held.may_ask(slot) && !is_late {
            let wanted = portion.max(held.waiting.len() as u32);
            held.is_asked = send(owner, Portion::Ask { client, wanted });
        }
        if !held.is_asked {
            // A word that took longer than a portion lasts would do so again.
            let verdict = if is_late { Verdict::Crowded } else { Verdict::Limited { frees_after_nanos } };
            for request in held.waiting.drain(..) {
                decided(request, verdict);
            }
        }
    }

    /// When [`RateLimit::tend`] has something to do next.
    pub fn tend_at_nanos(&self, now_nanos: u64) -> Option<u64> {
        let retry = (!self.unsent.is_empty()).then_some(now_nanos + UNSENT_RETRY_NANOS);
        self.expiries.front().map(|(slot, _)| begin_of(slot + 1)).into_iter().chain(retry).min()
    }

    /// Sends what found no place before, and gives back what can no longer be used.
    pub fn tend(&mut self, now_nanos: u64, send: &mut impl FnMut(usize, Portion) -> bool) {
        while let Some((to, message)) = self.unsent.front().copied()
            && send(to, message)
        {
            self.unsent.pop_front();
        }
        let slot = slot_of(now_nanos);
        while let Some((_, client)) = self.expiries.pop_front_if(|(through, _)| *through < slot) {
            let owner = self.owner(client);
            let Some(held) = self.held.known(client) else { continue };
            while let Some((through_slot, count)) = held.portions.pop_front_if(|(through, _)| *through < slot)
            {
                if count > 0 {
                    // Without a place it is not given back, and counts until its second is over.
                    send(owner, Portion::GiveBack { client, count, through_slot });
                }
            }
        }
    }
}

impl<W> Held<W> {
    fn new() -> Held<W> {
        let (portions, waiting) = (VecDeque::new(), VecDeque::new());
        Held { portions, is_asked: false, limited_slot: None, frees_at_nanos: 0, waiting }
    }

    /// Uses that may happen in that slot.
    fn left(&self, slot: u64) -> u32 {
        self.portions.iter().filter(|(through, _)| *through >= slot).map(|(_, left)| *left).sum()
    }

    /// Uses one of them; says through which slot it may happen.
    fn use_one(&mut self, slot: u64) -> Option<u64> {
        let usable = self.portions.iter_mut().find(|(through, left)| *through >= slot && *left > 0);
        usable.map(|(through, left)| {
            *left -= 1;
            *through
        })
    }

    fn may_ask(&self, slot: u64) -> bool {
        !self.is_asked && self.limited_slot != Some(slot)
    }
}

#[cfg(test)]
mod tests;
