//! Which loops stamp samples in the present millisecond: whether the order among their stamps has to be seen to.
//!
//! Fine parts of one loop's stamps rise by little steps from the millisecond's first tick, which costs a chunk next
//! to nothing. Between two loops that does not tell which stamp was earlier; so when a second loop stamps in a
//! millisecond, both go by the microsecond from there on, and a write that follows another's answer stays behind it
//! on whichever loop it lands (DESIGN D1). Loops that stamp in different milliseconds pay nothing.

use model::{TICKS_PER_MILLI, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};

/// The word of loops that have met in the millisecond.
const SEVERAL: u64 = LOOP_MASK;
const LOOP_MASK: u64 = (1 << LOOP_BITS) - 1;
const LOOP_BITS: u32 = 11;
const _: () = assert!(model::StampClock::LOOPS_MAX < SEVERAL as usize);
/// Fine parts by the microsecond are multiples of this, 7.8 µs: less than a request takes there and back.
const FINE_STEP: i64 = 1 << 13;
/// When the wall clock has stepped back by more than this, the word follows.
const CLOCK_STEP_MS: i64 = 1_000;

/// The millisecond in which somebody stamped last, and who: one loop, or several. Written twice in a millisecond at
/// most.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Stamping(AtomicU64);

impl Stamping {
    /// The moment that the stamps of a loop may begin at, in a turn that began then. Called in each turn that
    /// stamps, before the first stamp.
    pub fn begin(&self, loop_index: usize, unix_ms: i64, micros: u16) -> Timestamp {
        let first = Timestamp::first_of_milli(unix_ms);
        let own = word(unix_ms, loop_index as u64);
        let several = word(unix_ms, SEVERAL);
        let mut seen = self.0.load(Ordering::Acquire);
        while seen != own && seen != several {
            let ahead_ms = (seen >> LOOP_BITS).wrapping_sub(own >> LOOP_BITS) as i64;
            if (1..=CLOCK_STEP_MS).contains(&ahead_ms) {
                // The others are in the next millisecond already: the word never goes back to this one.
                seen = several;
                break;
            }
            let next = if ahead_ms == 0 { several } else { own };
            match self.0.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => seen = next,
                Err(other) => seen = other,
            }
        }
        if seen == own {
            return first;
        }
        let fine = i64::from(micros) * TICKS_PER_MILLI / 1_000 / FINE_STEP * FINE_STEP;
        Timestamp::from_ticks(first.ticks() + fine)
    }
}

fn word(unix_ms: i64, who: u64) -> u64 {
    (unix_ms as u64) << LOOP_BITS | who
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::StampClock;

    #[test]
    fn a_loop_that_stamps_alone_begins_with_its_millisecond() {
        let stamping = Stamping::default();
        for (loop_index, unix_ms, micros) in
            [(0, 50, 10), (0, 50, 900), (1, 51, 300), (1, 51, 301), (0, 52, 1)]
        {
            assert_eq!(stamping.begin(loop_index, unix_ms, micros), Timestamp::first_of_milli(unix_ms));
        }
    }

    #[test]
    fn a_loop_that_is_late_for_its_millisecond_goes_by_the_microsecond() {
        let stamping = Stamping::default();
        let ticks = |at: usize, unix_ms, micros| stamping.begin(at, unix_ms, micros).ticks();
        assert_eq!(ticks(0, 51, 3), 51 * TICKS_PER_MILLI);
        assert!(ticks(1, 50, 999) > 50 * TICKS_PER_MILLI);
        assert!(ticks(1, 51, 20) > 51 * TICKS_PER_MILLI, "loop 0 is still remembered");
        assert_eq!(ticks(1, 51 - 2 * CLOCK_STEP_MS, 20), (51 - 2 * CLOCK_STEP_MS) * TICKS_PER_MILLI);
    }

    /// Writes that follow each other, from loop to loop within a millisecond, ten microseconds apart: whichever
    /// loop is first and however many samples a write has, later writes have later stamps.
    #[test]
    fn a_write_that_follows_another_has_later_stamps_on_any_loop() {
        for loops in [2, 3, 64] {
            let stamping = Stamping::default();
            let mut clocks: Vec<StampClock> = (0..loops).map(|index| StampClock::new(index, loops)).collect();
            let mut last = Timestamp::MIN;
            for write in 0..500_usize {
                let at = (write * 7) % 5 % loops;
                let micros = write * 10;
                let now = stamping.begin(at, (micros / 1_000) as i64, (micros % 1_000) as u16);
                for _ in 0..1 + write % 20 {
                    let stamp = clocks[at].stamp(now);
                    assert!(stamp > last, "write {write} on loop {at} of {loops}");
                    last = stamp;
                }
            }
        }
    }
}
