//! `http.connections_per_address_max`: how many connections are open from each address, over all loops.
//!
//! Asked when a connection comes and when it goes, never for a request. Any loop writes, without a lock: a connection
//! lands on whichever loop the kernel picks, so its address has no owner.
//!
//! ```text
//! enter    the address' word in its bucket, or an empty one: + 1; then all its words are added up
//!          more than the limit: - 1, and no
//! leave    that word: - 1, and it is empty again at nought
//! ```
//!
//! Always: a word is the address and its count in one, so that a count never goes to a successor. Two loops that meet
//! a new address at the same time may give it a word each; since whoever enters adds up after it has entered, the last
//! of them sees all the others, and never more than the limit are in. (Two at the last place may both be sent away.)
//! An IPv6 address counts as its network of 64 bits: that is what one household or machine gets.
//! An address stands there as 61 bits or so of a hash with a seed that nobody outside knows.
//! Where a bucket is full of other addresses, a connection is let in without being counted: the limit in all holds.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What `http.connections_per_address_max` may be at most.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 500_000;
/// Words of a bucket: a cache line of them.
const BUCKET: usize = 8;
/// Low bits of a word that hold its count; the others hold the address.
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// A loop may have entered one beyond the limit that it has yet to take back.
const _: () = assert!(CONNECTIONS_PER_ADDRESS_MAX + model::StampClock::LOOPS_MAX < COUNT_MASK as usize);
/// Buckets at most, 8 MiB of them. The bits of a hash that pick the bucket lie below those that the word holds.
const BUCKETS_MAX: usize = 1 << 17;
const _: () = assert!(BUCKETS_MAX <= 1 << COUNT_BITS);
/// Each time that it does not succeed another loop did.
const TRIES_MAX: usize = 1_000;

/// See the head of this file.
#[derive(Debug)]
pub struct Addresses {
    buckets: Vec<Bucket>,
    seed: u64,
    max: u64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET]);

/// One connection's part in a count: to be given back once, with [`Addresses::leave`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Place(NonZeroU32);

/// The address has as many connections open as one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFull;

impl Addresses {
    /// At most `max` connections of one address; some four words for each of `connections` that may be open in all.
    pub fn new(max: usize, connections: usize, seed: u64) -> Addresses {
        let count = (connections.saturating_mul(4) / BUCKET).clamp(1, BUCKETS_MAX).next_power_of_two();
        Addresses { buckets: (0..count).map(|_| Bucket::default()).collect(), seed, max: max as u64 }
    }

    /// A connection came from that address. Without a place it is not counted, for there was none.
    ///
    /// # Errors
    /// It would be one too many.
    pub fn enter(&self, address: IpAddr) -> Result<Option<Place>, AddressFull> {
        let hash = xxh3_64_with_seed(&network_of(address), self.seed);
        let at = hash as usize & (self.buckets.len() - 1);
        let (bucket, named) = (&self.buckets[at], hash & !COUNT_MASK);
        for _ in 0..TRIES_MAX {
            if bucket.count(named) >= self.max {
                return Err(AddressFull);
            }
            let Some((word, seen)) = bucket.word_for(named) else { return Ok(None) };
            let next = if seen == 0 { named | 1 } else { seen + 1 };
            if bucket.0[word].compare_exchange(seen, next, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                continue;
            }
            let place = NonZeroU32::MIN.saturating_add((at * BUCKET + word) as u32);
            if bucket.count(named) > self.max {
                self.leave(Place(place));
                return Err(AddressFull);
            }
            return Ok(Some(Place(place)));
        }
        Ok(None)
    }

    /// A connection that was counted is gone.
    pub fn leave(&self, place: Place) {
        let index = place.0.get() as usize - 1;
        let word = &self.buckets[index / BUCKET].0[index % BUCKET];
        let less = |word: u64| Some(if word & COUNT_MASK <= 1 { 0 } else { word - 1 });
        // The closure always has an answer.
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}

impl Bucket {
    /// Connections of an address, all its words together.
    fn count(&self, named: u64) -> u64 {
        let words = self.0.iter().map(|word| word.load(Ordering::SeqCst));
        words.filter(|word| word & !COUNT_MASK == named).map(|word| word & COUNT_MASK).sum()
    }

    /// The address' own word, or the first empty one, with what it held.
    fn word_for(&self, named: u64) -> Option<(usize, u64)> {
        let mut empty = None;
        for (at, word) in self.0.iter().enumerate() {
            match word.load(Ordering::SeqCst) {
                0 => empty = empty.or(Some((at, 0))),
                word if word & !COUNT_MASK == named => return Some((at, word)),
                _ => {}
            }
        }
        empty
    }
}

/// What is counted as one: an IPv4 address, also in its IPv6 form, or the first half of an IPv6 address.
fn network_of(address: IpAddr) -> [u8; 9] {
    let mut network = [0; 9];
    match address.to_canonical() {
        IpAddr::V4(address) => {
            network[0] = 4;
            network[1..5].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            network[0] = 6;
            network[1..].copy_from_slice(&address.octets()[..8]);
        }
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicUsize;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_empty(addresses: &Addresses) -> bool {
        addresses.buckets.iter().all(|bucket| bucket.0.iter().all(|word| word.load(Ordering::SeqCst) == 0))
    }

    #[test]
    fn an_address_has_its_limit_and_whoever_leaves_makes_room() {
        let addresses = Addresses::new(2, 100, 7);
        let mut places: Vec<Place> =
            (0..2).map(|_| addresses.enter(address("10.0.0.1")).unwrap().unwrap()).collect();
        assert_eq!(addresses.enter(address("10.0.0.1")), Err(AddressFull));
        places.push(addresses.enter(address("10.0.0.2")).unwrap().unwrap());
        addresses.leave(places.remove(0));
        places.push(addresses.enter(address("10.0.0.1")).unwrap().unwrap());
        assert_eq!(addresses.enter(address("10.0.0.1")), Err(AddressFull));
        places.into_iter().for_each(|place| addresses.leave(place));
        assert!(is_empty(&addresses));
    }

    #[test]
    fn ipv6_counts_by_its_network_of_64_bits_and_ipv4_is_the_same_in_both_forms() {
        let one = |this: &str, that: &str| network_of(address(this)) == network_of(address(that));
        assert!(one("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!one("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(one("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!one("::ffff:10.0.0.1", "::ffff:10.0.0.2"));
        assert!(!one("::1", "0.0.0.0"));
    }

    /// One bucket, and more addresses than it has words: those beyond are let in and leave no trace.
    #[test]
    fn a_table_that_is_full_lets_further_addresses_in_uncounted() {
        let addresses = Addresses::new(1, 1, 7);
        let enter = |last: u8| addresses.enter(IpAddr::from([10, 0, 0, last]));
        let places: Vec<Place> = (0..BUCKET as u8).map(|last| enter(last).unwrap().unwrap()).collect();
        assert_eq!(enter(100), Ok(None));
        assert_eq!(enter(100), Ok(None));
        assert_eq!(enter(3), Err(AddressFull), "who is counted is limited all the same");
        places.into_iter().for_each(|place| addresses.leave(place));
        assert!(enter(100).unwrap().is_some());
    }

    proptest! {
        /// Against a map: whoever may enter enters, and at the end nothing is left.
        #[test]
        fn it_counts_as_a_map_does(
            max in 1..4usize,
            steps in prop::collection::vec((0..6u8, any::<prop::sample::Index>(), any::<bool>()), 0..200),
        ) {
            let addresses = Addresses::new(max, 1_000, 3);
            let mut twin: HashMap<u8, usize> = HashMap::new();
            let mut places: Vec<(u8, Place)> = Vec::new();
            for (who, which, comes) in steps {
                if comes || places.is_empty() {
                    let open = twin.entry(who).or_default();
                    match addresses.enter(IpAddr::from([192, 168, 0, who])) {
                        Ok(place) => {
                            *open += 1;
                            places.push((who, place.expect("six addresses find a word each")));
                        }
                        Err(AddressFull) => prop_assert_eq!(*open, max),
                    }
                    prop_assert!(*open <= max);
                } else {
                    let (who, place) = places.swap_remove(which.index(places.len()));
                    *twin.get_mut(&who).unwrap() -= 1;
                    addresses.leave(place);
                }
            }
            places.into_iter().for_each(|(_, place)| addresses.leave(place));
            prop_assert!(is_empty(&addresses));
        }
    }

    /// Method: several threads come and go with few addresses in one bucket, so that words change their owners all
    /// the time; whoever is in counts itself, and that count is never above the limit.
    #[test]
    fn from_several_threads_never_more_than_the_limit_are_in_and_none_is_left() {
        const MAX: usize = 3;
        let addresses = Addresses::new(MAX, 1, 11);
        let inside: [AtomicUsize; 4] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let (addresses, inside) = (&addresses, &inside);
                scope.spawn(move || {
                    let mut places: Vec<(usize, Place)> = Vec::new();
                    for step in 0..20_000_usize {
                        let who = (step * 7 + thread) % inside.len();
                        // Words that two threads took for one address may leave none for another: not counted.
                        if let Ok(Some(place)) = addresses.enter(IpAddr::from([10, 0, 0, who as u8])) {
                            assert!(inside[who].fetch_add(1, Ordering::SeqCst) < MAX);
                            places.push((who, place));
                        }
                        if places.len() > step % 5 {
                            let (who, place) = places.swap_remove(step % places.len());
                            inside[who].fetch_sub(1, Ordering::SeqCst);
                            addresses.leave(place);
                        }
                    }
                    for (who, place) in places {
                        inside[who].fetch_sub(1, Ordering::SeqCst);
                        addresses.leave(place);
                    }
                });
            }
        });
        assert!(is_empty(&addresses));
    }
}
