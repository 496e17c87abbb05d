//! A table of clients that forgets whoever has been quiet for a while, and has a bound.
//!
//! Two maps: whoever is met moves into the younger one, and every [`GENERATION_SLOTS`] the older one is dropped
//! and the younger one becomes the older. Nothing is swept, and nothing is scanned.

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

/// What is known of each client.
#[derive(Debug)]
pub struct Clients<T> {
    younger: HashMap<Client, T, BuildHasherDefault<TakeHash>>,
    older: HashMap<Client, T, BuildHasherDefault<TakeHash>>,
    turns_at: u64,
    clients_max: usize,
    is_needed: fn(&T) -> bool,
}

impl<T> Clients<T> {
    /// At most `clients_max` in each of the two maps. Whoever is needed is not forgotten, however quiet.
    pub fn new(clients_max: usize, is_needed: fn(&T) -> bool) -> Clients<T> {
        let (younger, older) = (HashMap::default(), HashMap::default());
        Clients { younger, older, turns_at: 0, clients_max, is_needed }
    }

    /// What is known of a client, or made by `first` when it is new; nothing when there is no room for it.
    pub fn meet(&mut self, client: Client, slot: u64, first: impl FnOnce() -> T) -> Option<&mut T> {
        if slot >= self.turns_at {
            let is_needed = self.is_needed;
            let mut gone = std::mem::replace(&mut self.older, std::mem::take(&mut self.younger));
            if slot >= self.turns_at + GENERATION_SLOTS {
                // After two generations without anybody both maps are old.
                gone.extend(self.older.drain());
            }
            self.older.extend(gone.into_iter().filter(|(_, entry)| is_needed(entry)));
            self.turns_at = slot + GENERATION_SLOTS;
        }
        if !self.younger.contains_key(&client) {
            if self.younger.len() >= self.clients_max {
                return None;
            }
            let entry = self.older.remove(&client).unwrap_or_else(first);
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
        let mut clients = Clients::new(10, |_| false);
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

    #[test]
    fn whoever_is_needed_is_not_forgotten() {
        let mut clients = Clients::new(10, |entry| *entry == 1);
        clients.meet(Client(1), 0, || 1);
        clients.meet(Client(2), 0, || 2);
        for slot in [GENERATION_SLOTS, 2 * GENERATION_SLOTS, 10 * GENERATION_SLOTS] {
            clients.meet(Client(3), slot, || 3);
        }
        assert_eq!(clients.known(Client(1)), Some(&mut 1));
        assert_eq!(clients.known(Client(2)), None);
    }

    #[test]
    fn a_full_table_refuses_newcomers_until_some_are_forgotten() {
        let mut clients = Clients::new(2, |()| false);
        assert!(clients.meet(Client(1), 0, || ()).is_some() && clients.meet(Client(2), 0, || ()).is_some());
        assert_eq!(clients.meet(Client(3), 1, || ()), None);
        assert!(clients.meet(Client(1), 1, || ()).is_some());
        assert!(clients.meet(Client(3), GENERATION_SLOTS, || ()).is_some());
    }
}
