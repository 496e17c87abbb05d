//! When a sample was taken.
//!
//! A timestamp is a whole millisecond of Unix time plus a fine part that tells samples of one millisecond
//! apart and orders them, nothing else: bounds, windows and every printed time go by [`Timestamp::millis`].
//! A sample that came with its own time has fine part 0. A sample that the server stamped has a fine part
//! that no other stamped sample of that millisecond has, on any loop, so the two kinds never meet.

/// Fine parts in one millisecond. A power of two, so that the millisecond is a shift away.
pub const TICKS_PER_MILLI: i64 = 1 << 20;

/// The last millisecond a timestamp can hold, in the year 2248; the first is its negative.
pub const MILLIS_MAX: i64 = i64::MAX / TICKS_PER_MILLI - 1;

/// A moment in ticks of 2⁻²⁰ milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The time lies outside what a [`Timestamp`] can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOutOfRange {
    /// The time that was asked for, in milliseconds since 1970.
    pub millis: i64,
}

impl Timestamp {
    /// Earlier than every other timestamp.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// Later than every other timestamp.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// A time given by a client: the whole millisecond, fine part 0.
    pub fn from_millis(millis: i64) -> Result<Timestamp, TimestampOutOfRange> {
        if (-MILLIS_MAX..=MILLIS_MAX).contains(&millis) {
            Ok(Timestamp(millis * TICKS_PER_MILLI))
        } else {
            Err(TimestampOutOfRange { millis })
        }
    }

    /// The first tick of a millisecond, held to the range of the type: for the bounds of a query.
    pub fn first_of_milli(millis: i64) -> Timestamp {
        Timestamp(millis.clamp(-MILLIS_MAX, MILLIS_MAX) * TICKS_PER_MILLI)
    }

    /// The last tick of a millisecond, held to the range of the type: for the bounds of a query.
    pub fn last_of_milli(millis: i64) -> Timestamp {
        Timestamp(millis.clamp(-MILLIS_MAX, MILLIS_MAX) * TICKS_PER_MILLI + TICKS_PER_MILLI - 1)
    }

    /// The raw ticks, as journal and segment hold them.
    pub const fn from_ticks(ticks: i64) -> Timestamp {
        Timestamp(ticks)
    }

    /// Ticks of 2⁻²⁰ milliseconds since 1970.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970, rounded towards the past.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(TICKS_PER_MILLI)
    }

    /// The part below the millisecond, 0 to [`TICKS_PER_MILLI`] - 1.
    pub const fn fine(self) -> i64 {
        self.0.rem_euclid(TICKS_PER_MILLI)
    }
}

/// Hands out the times of samples that came without one: each different from all others, never falling.
///
/// One per loop. Loop `i` of `n` gives the fine parts `1 + i`, `1 + i + n`, `1 + i + 2n` …, so that two
/// loops never give the same tick. When a millisecond is used up (over 500,000 samples on each of two
/// loops) the clock runs on into the next. When the machine's clock steps back by up to a second the
/// stamps wait for it; a larger step is followed.
#[derive(Debug)]
pub struct StampClock {
    loop_index: i64,
    loops: i64,
    last: i64,
}

impl StampClock {
    /// Past this the loops could not each have a useful share of a millisecond's ticks.
    pub const LOOPS_MAX: usize = 1024;
    const STEP_BACK_FOLLOWED_MS: i64 = 1_000;

    /// The clock of loop `loop_index` of `loops`.
    ///
    /// # Panics
    /// If the index is not below the count, or the count above [`Self::LOOPS_MAX`].
    pub fn new(loop_index: usize, loops: usize) -> StampClock {
        assert!(loop_index < loops && loops <= Self::LOOPS_MAX);
        StampClock { loop_index: loop_index as i64, loops: loops as i64, last: i64::MIN }
    }

    /// The next stamp, at or after `now`: the first tick of the present millisecond, or a later one where stamps of
    /// other loops in that millisecond are to stay behind.
    #[inline]
    pub fn stamp(&mut self, now: Timestamp) -> Timestamp {
        // One sample of many in a turn: this loop's next tick, without the division that finds the first.
        let next = self.last.saturating_add(self.loops);
        let is_near = Timestamp(self.last).millis() - now.millis() <= Self::STEP_BACK_FOLLOWED_MS;
        if now.0 <= self.last && is_near && Timestamp(next).millis() == Timestamp(self.last).millis() {
            self.last = next;
            return Timestamp(next);
        }
        self.stamp_anew(now)
    }

    fn stamp_anew(&mut self, now: Timestamp) -> Timestamp {
        let follows = now.millis() < Timestamp(self.last).millis() - Self::STEP_BACK_FOLLOWED_MS;
        let from = if self.last == i64::MIN || follows { now } else { now.max(Timestamp(self.last + 1)) };
        self.last = self.own(from);
        Timestamp(self.last)
    }

    /// This loop's first tick at or after that one.
    fn own(&self, from: Timestamp) -> i64 {
        let first = from.millis() * TICKS_PER_MILLI + 1 + self.loop_index;
        let behind = u64::try_from(from.0 - first).unwrap_or(0);
        let tick = first + behind.next_multiple_of(self.loops as u64) as i64;
        let is_used_up = Timestamp(tick).millis() != from.millis();
        if is_used_up { (from.millis() + 1) * TICKS_PER_MILLI + 1 + self.loop_index } else { tick }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_timestamp_gives_back_its_millisecond_before_and_after_1970() {
        for millis in [-MILLIS_MAX, -1, 0, 1, 1_696_789_234_567, MILLIS_MAX] {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            assert_eq!((timestamp.millis(), timestamp.fine()), (millis, 0));
            assert_eq!(Timestamp::last_of_milli(millis).millis(), millis);
        }
        assert_eq!(
            Timestamp::from_millis(MILLIS_MAX + 1),
            Err(TimestampOutOfRange { millis: MILLIS_MAX + 1 })
        );
    }

    /// Two loops that stamp in the same milliseconds, past the end of one, never give one tick twice.
    #[test]
    fn stamps_differ_between_loops_and_rise_within_one() {
        let mut clocks = [StampClock::new(0, 2), StampClock::new(1, 2)];
        let mut seen = std::collections::HashSet::new();
        for clock in &mut clocks {
            let mut previous = Timestamp::MIN;
            for i in 0..(TICKS_PER_MILLI / 2 + 1_000) {
                let stamp = clock.stamp(Timestamp::first_of_milli(1_000 + i64::from(i > 900_000)));
                assert!(stamp > previous && stamp.fine() > 0);
                assert!(seen.insert(stamp), "{stamp:?} twice");
                previous = stamp;
            }
            assert_eq!(previous.millis(), 1_001, "the used-up millisecond ran over into the next");
        }
    }

    #[test]
    fn a_small_step_back_is_waited_out_and_a_large_one_followed() {
        let mut clock = StampClock::new(0, 1);
        let mut stamp = |millis| clock.stamp(Timestamp::first_of_milli(millis));
        let first = stamp(10_000);
        let waited = stamp(9_500);
        assert!(waited > first && waited.millis() == 10_000);
        assert_eq!(stamp(5_000).millis(), 5_000);
    }

    proptest! {
        /// The many samples of a turn get what each would get by itself. Method: moments that stand, rise, and step
        /// back a little or far, near the ends of milliseconds; the twin is a clock that always looks anew.
        #[test]
        fn the_next_tick_is_the_one_that_is_found_anew(
            loops in proptest::sample::select(vec![1usize, 2, 3, 7, 1024]),
            steps in proptest::collection::vec((
                proptest::sample::select(vec![0i64, 0, 0, 1, 5, -1, -999, -1_000, -1_001, -5_000]),
                proptest::sample::select(vec![0, 1, 9, TICKS_PER_MILLI - 1_030, TICKS_PER_MILLI - 1]),
                1..4usize,
            ), 1..40),
        ) {
            let (mut clock, mut twin) = (StampClock::new(loops - 1, loops), StampClock::new(loops - 1, loops));
            let mut millis = 1_000_000;
            for (step, fine, times) in steps {
                millis += step;
                let now = Timestamp::from_ticks(millis * TICKS_PER_MILLI + fine);
                for _ in 0..times {
                    prop_assert_eq!(clock.stamp(now), twin.stamp_anew(now));
                }
            }
        }
    }

    /// A stamp stays behind the moment that it is given, in its loop's own ticks, up to the millisecond's end.
    #[test]
    fn a_stamp_is_at_or_after_the_moment_within_the_millisecond() {
        for loops in [1, 2, 3, 7, 1024] {
            for loop_index in [0, loops - 1] {
                let mut clock = StampClock::new(loop_index, loops);
                let mut last = Timestamp::MIN;
                for fine in [0, 1, 5, 8_192, 8_192, 500_000, TICKS_PER_MILLI - 2, TICKS_PER_MILLI - 1] {
                    let now = Timestamp::from_ticks(77 * TICKS_PER_MILLI + fine);
                    let stamp = clock.stamp(now);
                    assert!(stamp >= now && stamp > last && stamp.millis() <= 78);
                    assert_eq!((stamp.fine() - 1 - loop_index as i64) % loops as i64, 0);
                    last = stamp;
                }
            }
        }
    }
}
