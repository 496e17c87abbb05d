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
//! A flood of invented ids: an owner keeps count of [`CLIENTS_MAX`] clients, each for two to four seconds after its
//! last request, and who is known keeps its place. Newcomers beyond them are the crowd: by their hash they share
//! [`CROWD_WINDOWS`] windows until there is room. Of one of them no more than the limit passes either, and less than
//! that where others of its window are busy, too; for everybody else the flood changes nothing. A loop that does not
//! own a client knows it for as long as it holds a portion, some 50 ms.
//! Not here: what a client's id is (`exchange.rs`), what a refusal looks like (`api.rs`).

mod clients;
mod window;

pub use clients::Client;
#[cfg(test)]
pub use window::SLOT_BITS;

use clients::{ClientMap, Clients};
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use window::{AHEAD_SLOTS, SECOND_SLOTS, Window, begin_of, slot_of};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Clients of whom one loop keeps count at once, at 300 bytes each: what a table of 65,536 places holds before it
/// grows.
const CLIENTS_MAX: usize = 56 * 1024;
/// Clients of other loops of whom one loop holds portions at once. They are forgotten after some 50 ms, in which no
/// loop meets so many.
const HELD_MAX: usize = CLIENTS_MAX;
/// Windows that newcomers share when that is not enough, a megabyte; there only while there is a crowd.
const CROWD_WINDOWS: usize = 4096;
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
    /// Portions of too many clients are under way, or the owner is too busy to answer in time.
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
    /// Of newcomers without a place there; empty, or [`RateLimit::crowd_windows`] of them.
    crowd: Vec<Window>,
    crowd_windows: usize,
    /// The last slot in which the crowd's windows still say anything.
    crowd_until: u64,
    held: ClientMap<Held<W>>,
    /// Whose portions, or refusals, run out of time after which slot, earliest first.
    expiries: VecDeque<(u64, Client)>,
    /// By loop: words that found no place, in order, and somebody waits for. At most two per client and loop, since
    /// nobody asks twice.
    unsent: Vec<VecDeque<Portion>>,
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
        RateLimit::with_room(limit, (loop_index, loops), seed, CLIENTS_MAX, CROWD_WINDOWS)
    }

    fn with_room(
        limit: u32,
        (loop_index, loops): (usize, usize),
        seed: u64,
        clients_max: usize,
        crowd_windows: usize,
    ) -> RateLimit<W> {
        RateLimit {
            limit,
            loop_index,
            loops,
            seed,
            owned: Clients::new(clients_max),
            crowd: Vec::new(),
            crowd_windows,
            crowd_until: 0,
            held: ClientMap::default(),
            expiries: VecDeque::new(),
            unsent: (0..loops).map(|_| VecDeque::new()).collect(),
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
            return match self.book(client, 1, now_nanos, 0) {
                (0, frees_after_nanos) => Verdict::Limited { frees_after_nanos },
                _ => Verdict::Pass { until_nanos: begin_of(slot + 1) },
            };
        }
        let portion = self.portion();
        let has_room = self.held.len() < HELD_MAX;
        let held = match self.held.entry(client) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if has_room => entry.insert(Held::new()),
            Entry::Vacant(_) => return Verdict::Crowded,
        };
        if held.waiting.is_empty()
            && let Some(through_slot) = held.use_one(slot)
        {
            if held.left(slot) <= portion / 2 && held.may_ask(slot) {
                // Without a place the next request asks.
                held.is_asked =
                    self.unsent[owner].is_empty() && send(owner, Portion::Ask { client, wanted: portion });
            }
            return Verdict::Pass { until_nanos: begin_of(through_slot + 1) };
        }
        if held.limited_slot == Some(slot) {
            return Verdict::Limited { frees_after_nanos: held.frees_at_nanos.saturating_sub(now_nanos) };
        }
        if !held.is_asked {
            held.is_asked = true;
            post(&mut self.unsent, owner, Portion::Ask { client, wanted: portion }, send);
        }
        held.waiting.push_back(request);
        Verdict::Wait
    }

    /// Books uses of a client that this loop owns; says how many, and in how many nanoseconds the first one that is
    /// booked comes free.
    fn book(&mut self, client: Client, wanted: u32, now_nanos: u64, ahead: u64) -> (u32, u64) {
        let slot = slot_of(now_nanos);
        if slot > self.crowd_until {
            self.crowd = Vec::new();
        }
        // Who comes out of the crowd may have used as much as its window holds.
        let place = self.crowd_place(client);
        let first = || self.crowd.get(place).cloned().unwrap_or_else(|| Window::new(slot));
        let window = match self.owned.meet(client, slot, first) {
            Some(window) => window,
            None => {
                self.crowd.resize_with(self.crowd_windows, || Window::new(slot));
                self.crowd_until = slot + AHEAD_SLOTS + SECOND_SLOTS;
                &mut self.crowd[place]
            }
        };
        (window.book(wanted, self.limit, slot, ahead), window.frees_after(now_nanos))
    }

    fn crowd_place(&self, client: Client) -> usize {
        // Bits that neither the table nor the choice of the owner looks at first.
        (client.0 >> 32) as u32 as usize % self.crowd_windows
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
                let (granted, frees_after_nanos) = self.book(client, wanted, now_nanos, AHEAD_SLOTS);
                let through_slot = slot + AHEAD_SLOTS;
                let grant = Portion::Grant { client, granted, wanted, through_slot, frees_after_nanos };
                post(&mut self.unsent, from, grant, send);
            }
            Portion::GiveBack { client, count, through_slot } => {
                let place = self.crowd_place(client);
                let window = self.owned.known(client).or_else(|| self.crowd.get_mut(place));
                if let Some(window) = window {
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
        let Some(held) = self.held.get_mut(&client) else { return };
        held.is_asked = false;
        if granted > 0 {
            held.portions.push_back((through_slot, granted));
        }
        let expires = if granted > 0 { through_slot } else { slot };
        // Owners read their clocks at other moments; a portion given back a slot late costs nothing else.
        let last = self.expiries.back().map_or(0, |(last, _)| *last);
        self.expiries.push_back((expires.max(last), client));
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
            held.is_asked = true;
            post(&mut self.unsent, owner, Portion::Ask { client, wanted }, send);
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
        let retry = self.unsent.iter().any(|line| !line.is_empty()).then_some(now_nanos + UNSENT_RETRY_NANOS);
        self.expiries.front().map(|(slot, _)| begin_of(slot + 1)).into_iter().chain(retry).min()
    }

    /// Sends what found no place before, and gives back what can no longer be used.
    pub fn tend(&mut self, now_nanos: u64, send: &mut impl FnMut(usize, Portion) -> bool) {
        for (to, line) in self.unsent.iter_mut().enumerate() {
            while let Some(word) = line.front().copied()
                && send(to, word)
            {
                line.pop_front();
            }
        }
        let slot = slot_of(now_nanos);
        while let Some((_, client)) = self.expiries.pop_front_if(|(through, _)| *through < slot) {
            let owner = self.owner(client);
            let Some(held) = self.held.get_mut(&client) else { continue };
            while let Some((through_slot, count)) = held.portions.pop_front_if(|(through, _)| *through < slot)
            {
                if count > 0 {
                    // Without a place it is not given back, and counts until its second is over.
                    send(owner, Portion::GiveBack { client, count, through_slot });
                }
            }
            // Whoever is asked about has another expiry to come, with the word.
            if held.portions.is_empty() && !held.is_asked && held.waiting.is_empty() {
                self.held.remove(&client);
            }
        }
    }
}

/// Sends a word that somebody waits for: it is never dropped, and overtakes none that waits for a place.
fn post(
    unsent: &mut [VecDeque<Portion>],
    to: usize,
    word: Portion,
    send: &mut impl FnMut(usize, Portion) -> bool,
) {
    if !unsent[to].is_empty() || !send(to, word) {
        unsent[to].push_back(word);
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
