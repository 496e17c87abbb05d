//! The time by which samples leave for good: the wall clock, as far as it can be believed.
//!
//! A wall clock that jumps ahead by more than the retention (a dead battery, a wrong NTP server, a slip of an
//! operator) would make everything expired, and what has left the disk does not come back with the right time. So:
//!
//! ```text
//!   believed ≤ wall                                     a clock that goes back takes retention with it
//!   believed ≤ believed before + 24 × time since        ahead it may run by a day an hour, and no faster …
//!   …until the wall has gone as the monotonic clock does for a day: then it is the time
//! ```
//!
//! With 15 days of retention that leaves more than half a day to look at the warning. A machine that was off over a
//! night or a weekend has caught up within hours; one that began in 1970 and was then set right, within a day.
//! Always: queries and doors go by the wall clock itself; what they hide or refuse meanwhile is there again once the
//! clock is right. Not here: clocks; the caller reads them, and keeps `believed` in the manifest.

use crate::manifest::Manifest;

/// How many times faster than time itself the believed clock may go.
const CATCH_UP: i64 = 24;
/// A clock that for so long has gone as time does is believed.
const STEADY_MS: u64 = 24 * 3_600_000;
/// So far off the monotonic clock, between two looks, no clock is that is only being adjusted.
const STEP_MS: i64 = 3_600_000;

/// See the head of this file.
#[derive(Debug)]
pub struct RetentionClock {
    believed_ms: i64,
    wall_ms: i64,
    monotonic_ms: u64,
    /// Monotonic, of the last step of the wall clock, or of the start.
    steady_since_ms: u64,
}

impl RetentionClock {
    /// For a start at this time. What was believed before stands in the manifest; if it does not, the newest sample
    /// tells, and in a directory without any the wall clock is all there is.
    pub fn new(manifest: &Manifest, wall_ms: i64, monotonic_ms: u64) -> RetentionClock {
        let newest = || manifest.segments.iter().map(|entry| entry.max_ms).max();
        let believed_ms = manifest.believed_ms.or_else(newest).unwrap_or(wall_ms);
        RetentionClock { believed_ms, wall_ms, monotonic_ms, steady_since_ms: monotonic_ms }
    }

    /// The time to go by, in Unix milliseconds, never above `wall_ms`. `monotonic_ms` never falls from call to call.
    pub fn look(&mut self, wall_ms: i64, monotonic_ms: u64) -> i64 {
        let since = i64::try_from(monotonic_ms.saturating_sub(self.monotonic_ms)).unwrap_or(i64::MAX);
        let step = i128::from(wall_ms) - i128::from(self.wall_ms) - i128::from(since);
        if step.unsigned_abs() > STEP_MS as u128 {
            self.steady_since_ms = monotonic_ms;
        }
        let is_steady = monotonic_ms - self.steady_since_ms >= STEADY_MS;
        let reached = self.believed_ms.saturating_add(since.saturating_mul(CATCH_UP));
        // Where the wall clock went back, what was believed goes on beside it: it will be right again, or steady.
        let passed = self.believed_ms.saturating_add(since);
        self.believed_ms = if is_steady { wall_ms } else { reached.min(wall_ms).max(passed) };
        (self.wall_ms, self.monotonic_ms) = (wall_ms, monotonic_ms);
        self.believed_ms.min(wall_ms)
    }

    /// What the manifest is to keep.
    pub fn believed_ms(&self) -> i64 {
        self.believed_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SegmentEntry;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const NOW: i64 = 20_000 * DAY;

    /// A clock whose server looks every ten minutes, and has done so for two days.
    struct Machine {
        clock: RetentionClock,
        wall_ms: i64,
        monotonic_ms: i64,
    }

    impl Machine {
        fn running() -> Machine {
            let clock = RetentionClock::new(&Manifest::default(), NOW, 5);
            let mut machine = Machine { clock, wall_ms: NOW, monotonic_ms: 5 };
            assert_eq!(machine.after(2 * DAY), NOW + 2 * DAY);
            machine
        }

        fn after(&mut self, span_ms: i64) -> i64 {
            let mut believed = self.look();
            for _ in 0..span_ms / (10 * MINUTE) {
                self.wall_ms += 10 * MINUTE;
                self.monotonic_ms += 10 * MINUTE;
                believed = self.look();
            }
            believed
        }

        fn look(&mut self) -> i64 {
            self.clock.look(self.wall_ms, self.monotonic_ms as u64)
        }

        fn restarted(&mut self) {
            let manifest = Manifest { believed_ms: Some(self.clock.believed_ms()), ..Manifest::default() };
            self.monotonic_ms = 0;
            self.clock = RetentionClock::new(&manifest, self.wall_ms, 0);
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_expires_nothing_for_half_a_day_and_is_believed_after_one() {
        let mut machine = Machine::running();
        let right = machine.wall_ms;
        machine.wall_ms += 400 * DAY;
        assert_eq!(machine.look(), right);
        assert_eq!(machine.after(12 * HOUR), right + 12 * DAY);
        machine.restarted();
        assert!(machine.after(HOUR) <= right + 13 * DAY, "a restart is no reason to believe it");
        assert_eq!(machine.after(DAY), machine.wall_ms);
    }

    #[test]
    fn a_clock_that_comes_back_is_right_at_once() {
        let mut machine = Machine::running();
        let right = machine.wall_ms;
        machine.wall_ms += 400 * DAY;
        machine.after(HOUR);
        machine.wall_ms = right + HOUR;
        assert_eq!(machine.look(), right + HOUR);
        assert_eq!(machine.after(DAY), machine.wall_ms);
        // Back behind the true time, and right again.
        machine.wall_ms -= 300 * DAY;
        assert_eq!(machine.after(HOUR), machine.wall_ms);
        machine.wall_ms += 300 * DAY;
        assert_eq!(machine.look(), machine.wall_ms);
    }

    #[test]
    fn a_machine_that_was_off_for_a_weekend_catches_up_within_hours() {
        let mut machine = Machine::running();
        let left = machine.wall_ms;
        machine.wall_ms += 3 * DAY;
        machine.restarted();
        assert_eq!(machine.look(), left);
        assert_eq!(machine.after(4 * HOUR), machine.wall_ms);
    }

    /// A board without a battery begins in 1970 and is told the time a minute later.
    #[test]
    fn a_clock_that_was_set_right_from_1970_is_believed_after_a_day() {
        let mut clock = RetentionClock::new(&Manifest::default(), 0, 0);
        assert_eq!(clock.look(MINUTE, MINUTE as u64), MINUTE);
        assert!(clock.look(NOW, 2 * MINUTE as u64) < HOUR);
        assert_eq!(clock.look(NOW + DAY, (2 * MINUTE + DAY) as u64), NOW + DAY);
    }

    #[test]
    fn without_a_word_in_the_manifest_the_newest_sample_tells() {
        let segment = |max_ms| SegmentEntry {
            id: 1,
            shards: 1,
            shard: 0,
            min_ms: 0,
            max_ms,
            bytes: 1,
            newest: 1,
            deletes_through: 0,
        };
        let manifest =
            Manifest { segments: vec![segment(NOW - HOUR), segment(NOW - DAY)], ..Manifest::default() };
        assert_eq!(RetentionClock::new(&manifest, NOW, 0).look(NOW, 0), NOW - HOUR);
        assert_eq!(RetentionClock::new(&manifest, NOW - DAY, 0).look(NOW - DAY, 0), NOW - DAY);
    }
}
