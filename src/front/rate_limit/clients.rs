//! A table of clients that forgets whoever has been quiet for a while, and has a bound.
//!
//! Two maps: whoever is met moves into the younger one, and every [`GENERATION_SLOTS`] the older one is dropped
//! and the younger one becomes the older. Nothing is swept, and nothing is scanned. Who is known keeps its place
//! however many newcomers there are: moving takes no room.

use super::window::{AHEAD_SLOTS, SECOND_SLOTS};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Slots after which an entry that was not met in between may be forgotten: later than what it says can matter.
const GENERATION_SLOTS: u64 = 128;
const _: () = assert!(GENERATION_SLOTS > SECOND_SLOTS + 2 * AHEAD_SLOTS);

/// A client: 128 bits of a hash of its id, keyed anew at each start, so that nobody can aim at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(pub u128);

/// The hash is in the key already.
#[derive(Clone, Debug, Default)]
pub struct TakeHash(u64);

impl Hasher for TakeHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only a u128 is ever hashed here; another key type would still work, badly.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = (hash >> 64) as u64;
    }
}

/// Finds clients by their own hash.
pub type ClientMap<T> = HashMap<Client, T, BuildHasherDefault<TakeHash>>;

/// What is known of each client.
#[derive(Debug)]
pub struct Clients<T> {
    younger: ClientMap<T>,
    older: ClientMap<T>,
    turns_at: u64,
    clients_max: usize,
}

impl<T> Clients<T> {
    /// At most `clients_max` in both maps.
    pub fn new(clients_max: usize) -> Clients<T> {
        let (younger, older) = (ClientMap::default(), ClientMap::default());
        Clients { younger, older, turns_at: 0, clients_max }
    }

    /// What is known of a client, or made by `first` when it is new; nothing when there is no room for it.
    pub fn meet(&mut self, client: Client, slot: u64, first: impl FnOnce() -> T) -> Option<&mut T> {
        if slot >= self.turns_at {
            self.older = std::mem::take(&mut self.younger);
            if slot >= self.turns_at + GENERATION_SLOTS {
                // After two generations without anybody both maps are old.
                self.older = ClientMap::default();
            }
            self.turns_at = slot + GENERATION_SLOTS;
        }
        if !self.younger.contains_key(&client) {
            let entry = match self.older.remove(&client) {
                Some(entry) => entry,
                None if self.younger.len() + self.older.len() < self.clients_max => first(),
                None => return None,
            };
            self.younger.insert(client, entry);
        }
        self.younger.get_mut(&client)
    }

    /// What is known of a client that has been met lately.
    pub fn known(&mut self, client: Client) -> Option<&mut T> {
        self.younger.get_mut(&client).or_else(|| self.older.get_mut(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_met_stays_and_whoever_is_quiet_is_forgotten() {
        let mut clients = Clients::new(10);
        let mut slot = 7;
        assert_eq!(clients.meet(Client(1), slot, || 1), Some(&mut 1));
        assert_eq!(clients.meet(Client(2), slot, || 2), Some(&mut 2));
        for _ in 0..20 {
            slot += GENERATION_SLOTS / 2;
            assert_eq!(clients.meet(Client(1), slot, || 9), Some(&mut 1));
        }
        assert_eq!(clients.known(Client(2)), None);
        assert_eq!(clients.meet(Client(1), slot + 2 * GENERATION_SLOTS, || 9), Some(&mut 9));
    }

    /// Method: two who come once a generation, and between them as many newcomers as like to.
    #[test]
    fn whoever_is_known_stays_however_many_newcomers_there_are() {
        let mut clients = Clients::new(10);
        for known in 0..2 {
            clients.meet(Client(known), 0, || known);
        }
        let mut newcomers = 10..;
        for slot in (1..20 * GENERATION_SLOTS).step_by(GENERATION_SLOTS as usize - 1) {
            for newcomer in newcomers.by_ref().take(1_000) {
                clients.meet(Client(newcomer), slot, || newcomer);
            }
            for known in 0..2 {
                assert_eq!(clients.meet(Client(known), slot, || 99), Some(&mut known.clone()), "slot {slot}");
            }
            assert!(clients.younger.len() + clients.older.len() <= 10);
        }
    }

    #[test]
    fn a_full_table_refuses_newcomers_until_some_are_forgotten() {
        let mut clients = Clients::new(2);
        assert!(clients.meet(Client(1), 0, || ()).is_some() && clients.meet(Client(2), 0, || ()).is_some());
        assert_eq!(clients.meet(Client(3), 1, || ()), None);
        assert!(clients.meet(Client(1), 1, || ()).is_some());
        assert_eq!(clients.meet(Client(3), GENERATION_SLOTS, || ()), None, "they came in this generation");
        assert!(clients.meet(Client(3), 2 * GENERATION_SLOTS, || ()).is_some());
    }
}
