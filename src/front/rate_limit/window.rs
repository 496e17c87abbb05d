//! One client's last second, in slots: what its owner counts.
//!
//! A second touches at most [`SECOND_SLOTS`] slots. Uses are booked in the slot in which they may happen at the
//! latest, and a booking is possible while all slots of the second that ends now hold less than the limit. So
//! whichever second one looks at, not more than the limit was used in it: every use in it was booked in a slot
//! that the last booking before its end still counted.
//! The price is that a use counts up to 1.03 s instead of 1 s, and one that was granted ahead up to 1.06 s.

/// A slot is 2^24 ns, about 16.8 ms.
pub const SLOT_BITS: u32 = 24;
/// Slots that one second can touch: 59.6 of them fit, so the first and the 61st lie a second apart at most.
pub const SECOND_SLOTS: u64 = 1_000_000_000u64.div_ceil(1 << SLOT_BITS) + 1;
/// How many slots ahead a use may be booked.
pub const AHEAD_SLOTS: u64 = 2;

const _: () =
    assert!(SECOND_SLOTS << SLOT_BITS < 1_030_000_000, "what was used is free again soon after its second");

const RING_SLOTS: u64 = 64;
const _: () = assert!(
    SECOND_SLOTS + AHEAD_SLOTS <= RING_SLOTS,
    "a slot is to be forgotten before its place is used again"
);

/// The slot of a moment of the monotonic clock.
pub fn slot_of(nanos: u64) -> u64 {
    nanos >> SLOT_BITS
}

/// The moment at which a slot begins.
pub fn begin_of(slot: u64) -> u64 {
    slot << SLOT_BITS
}

/// Bookings of one client.
#[derive(Clone, Debug)]
pub struct Window {
    /// The latest slot that was looked at. Booked is at most [`AHEAD_SLOTS`] later.
    now: u64,
    booked: [u32; RING_SLOTS as usize],
    total: u64,
}

impl Window {
    /// Nothing is booked.
    pub fn new(slot: u64) -> Window {
        Window { now: slot, booked: [0; RING_SLOTS as usize], total: 0 }
    }

    /// Books up to `wanted` uses, to happen by the end of the slot `ahead` after this one; says how many.
    pub fn book(&mut self, wanted: u32, limit: u32, slot: u64, ahead: u64) -> u32 {
        debug_assert!(ahead <= AHEAD_SLOTS);
        self.forget_before(slot);
        let left = u64::from(limit).saturating_sub(self.total);
        let booked = u64::from(wanted).min(left) as u32;
        self.booked[place(self.now + ahead)] += booked;
        self.total += u64::from(booked);
        booked
    }

    /// Takes back what was booked for that slot and not used.
    pub fn give_back(&mut self, count: u32, through: u64, slot: u64) {
        self.forget_before(slot);
        if self.counts(through) {
            let booked = &mut self.booked[place(through)];
            let back = count.min(*booked);
            *booked -= back;
            self.total -= u64::from(back);
        }
    }

    /// Nanoseconds until the first booking is forgotten.
    pub fn frees_after(&self, nanos: u64) -> u64 {
        let oldest = (self.oldest()..=self.now + AHEAD_SLOTS).find(|slot| self.booked[place(*slot)] > 0);
        oldest.map_or(0, |slot| begin_of(slot + SECOND_SLOTS).saturating_sub(nanos))
    }

    fn oldest(&self) -> u64 {
        self.now.saturating_sub(SECOND_SLOTS - 1)
    }

    fn counts(&self, slot: u64) -> bool {
        (self.oldest()..=self.now + AHEAD_SLOTS).contains(&slot)
    }

    /// Moves on to that slot. Clocks of two loops are read at two moments: an earlier one changes nothing.
    fn forget_before(&mut self, slot: u64) {
        if slot <= self.now {
            return;
        }
        let oldest = slot.saturating_sub(SECOND_SLOTS - 1);
        for gone in (self.oldest()..oldest).take(RING_SLOTS as usize) {
            let booked = std::mem::take(&mut self.booked[place(gone)]);
            self.total -= u64::from(booked);
        }
        self.now = slot;
    }
}

fn place(slot: u64) -> usize {
    (slot % RING_SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_whole_and_again_after_a_second_and_a_little() {
        let mut window = Window::new(1_000);
        assert_eq!(window.book(7, 10, 1_000, 0), 7);
        assert_eq!(window.book(7, 10, 1_000, 0), 3);
        assert_eq!(window.book(7, 10, 1_000 + SECOND_SLOTS - 1, 0), 0);
        let frees = window.frees_after(begin_of(1_000 + SECOND_SLOTS - 1));
        assert_eq!(frees, 1 << SLOT_BITS);
        assert_eq!(window.book(70, 10, 1_000 + SECOND_SLOTS, 0), 10);
    }

    #[test]
    fn what_comes_back_can_be_had_again_once() {
        let mut window = Window::new(5);
        assert_eq!(window.book(10, 10, 5, 2), 10);
        window.give_back(4, 7, 8);
        assert_eq!(window.book(10, 10, 8, 0), 4);
        window.give_back(400, 7, 9);
        assert_eq!(window.book(100, 10, 9, 0), 6, "no more comes back than was booked");
        window.give_back(1, 500, 9);
        assert_eq!(window.book(100, 10, 9, 0), 0, "what was never booked is not given back");
    }

    proptest! {
        /// In whichever second, no more uses than the limit, however they are booked, ahead or not, and however
        /// late within what was booked they happen. Method: every use at the last and at the first moment that
        /// its booking allows, all pairs of uses compared.
        #[test]
        fn no_second_holds_more_than_the_limit(
            limit in 1u32..20,
            steps in proptest::collection::vec((0u64..80_000_000, 0u32..12, 0u64..=AHEAD_SLOTS, any::<bool>()), 1..200),
        ) {
            let mut nanos = 123_456_789;
            let mut window = Window::new(slot_of(nanos));
            let mut uses = Vec::new();
            for (pause, wanted, ahead, late) in steps {
                nanos += pause;
                let booked = window.book(wanted, limit, slot_of(nanos), ahead);
                let latest = begin_of(slot_of(nanos) + ahead + 1) - 1;
                uses.extend((0..booked).map(|_| if late { latest } else { nanos }));
            }
            uses.sort_unstable();
            for pair in uses.windows(limit as usize + 1) {
                prop_assert!(pair[limit as usize] - pair[0] >= SECOND, "{pair:?}");
            }
        }
    }
}
