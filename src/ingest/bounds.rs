//! Which times are taken now, and what to tell a client whose time is not.
//!
//! The server knows the clock and the retention and makes the bounds, once a turn; the check is pure.

use std::fmt;

/// Bytes of label sets that a body may become where each field repeats the tags that were written once: a line of
/// Telegraf's with thirty fields and long tags becomes 12 times as many.
pub(crate) fn label_bytes_max(body_bytes: usize) -> usize {
    const PER_BODY_BYTE: usize = 16;
    const LEAST: usize = 256 * 1024;
    const MOST: usize = 64 * 1024 * 1024;
    body_bytes.saturating_mul(PER_BODY_BYTE).clamp(LEAST, MOST)
}

/// The span of times that samples may carry, in milliseconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBounds {
    /// What the retention still keeps; `None` when it keeps everything.
    pub oldest: Option<i64>,
    /// Now, and as far ahead of it as clocks may differ.
    pub newest: i64,
}

/// A time outside the bounds; the client's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRefusal {
    /// Older than the retention; sending it again cannot help.
    TooOld {
        /// What came, in milliseconds since 1970 if it was meant so.
        timestamp: i64,
        /// The oldest time accepted, in milliseconds since 1970.
        oldest: i64,
        /// The unit in which the number would have been accepted.
        looks_like: Option<TimeUnit>,
    },
    /// Further ahead than clocks may differ.
    TooNew {
        /// What came, in milliseconds since 1970 if it was meant so.
        timestamp: i64,
        /// The newest time accepted, in milliseconds since 1970.
        newest: i64,
        /// The unit in which the number would have been accepted.
        looks_like: Option<TimeUnit>,
    },
}

/// A unit that clients take for milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// 10 digits in our days.
    Seconds,
    /// 16 digits in our days.
    Microseconds,
    /// 19 digits in our days.
    Nanoseconds,
}

impl TimeUnit {
    /// The unit that turns `number` into a time between `oldest` and `newest` (milliseconds since 1970).
    pub(crate) fn guess(number: i64, oldest: i64, newest: i64) -> Option<TimeUnit> {
        let inside = |millis: i64| (oldest..=newest).contains(&millis);
        if number.checked_mul(1_000).is_some_and(inside) {
            Some(TimeUnit::Seconds)
        } else if inside(number / 1_000) {
            Some(TimeUnit::Microseconds)
        } else if inside(number / 1_000_000) {
            Some(TimeUnit::Nanoseconds)
        } else {
            None
        }
    }
}

impl TimeBounds {
    /// Takes a time in milliseconds since 1970, or says why not.
    #[inline]
    pub fn check(&self, timestamp: i64) -> Result<(), TimeRefusal> {
        let oldest = self.oldest.unwrap_or(i64::MIN);
        if (oldest..=self.newest).contains(&timestamp) { Ok(()) } else { Err(self.refuse(timestamp)) }
    }

    #[cold]
    fn refuse(&self, timestamp: i64) -> TimeRefusal {
        // Without a retention any number is a time in some unit, so there is nothing to guess from.
        let looks_like = self.oldest.and_then(|oldest| TimeUnit::guess(timestamp, oldest, self.newest));
        match self.oldest {
            Some(oldest) if timestamp < oldest => TimeRefusal::TooOld { timestamp, oldest, looks_like },
            _ => TimeRefusal::TooNew { timestamp, newest: self.newest, looks_like },
        }
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeUnit::Seconds => "seconds",
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Nanoseconds => "nanoseconds",
        })
    }
}

impl fmt::Display for TimeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (TimeRefusal::TooOld { looks_like, .. } | TimeRefusal::TooNew { looks_like, .. }) = self;
        match self {
            TimeRefusal::TooOld { timestamp, oldest, .. } => {
                write!(f, "timestamp {timestamp} is older than the retention (oldest accepted: {oldest})")?;
            }
            TimeRefusal::TooNew { timestamp, newest, .. } => {
                write!(f, "timestamp {timestamp} is too far in the future (newest accepted: {newest})")?;
            }
        }
        match looks_like {
            Some(unit) => write!(f, "; it looks like {unit}, milliseconds are expected"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TimeRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_696_789_234_567;
    const BOUNDS: TimeBounds = TimeBounds { oldest: Some(NOW - 1_296_000_000), newest: NOW + 600_000 };

    #[test]
    fn both_ends_are_taken_and_the_millisecond_beyond_is_not() {
        for (timestamp, taken) in [
            (NOW - 1_296_000_000, true),
            (NOW - 1_296_000_001, false),
            (NOW + 600_000, true),
            (NOW + 600_001, false),
        ] {
            assert_eq!(BOUNDS.check(timestamp).is_ok(), taken, "{timestamp}");
        }
        let keeps_all = TimeBounds { oldest: None, ..BOUNDS };
        assert_eq!(keeps_all.check(0), Ok(()));
        assert_eq!(keeps_all.check(1_696_789_234), Ok(()), "seconds are 1970 and accepted");
    }

    #[test]
    fn a_refusal_tells_the_bound_and_the_unit_it_looks_like() {
        let told = |timestamp| BOUNDS.check(timestamp).unwrap_err().to_string();
        let old = "is older than the retention (oldest accepted: 1695493234567)";
        let new = "is too far in the future (newest accepted: 1696789834567)";
        assert_eq!(
            told(1_696_789_234),
            format!("timestamp 1696789234 {old}; it looks like seconds, milliseconds are expected")
        );
        assert_eq!(told(5), format!("timestamp 5 {old}"));
        assert_eq!(told(NOW * 2), format!("timestamp {} {new}", NOW * 2));
        assert_eq!(
            told(NOW * 1_000),
            format!("timestamp {} {new}; it looks like microseconds, milliseconds are expected", NOW * 1_000)
        );
        assert_eq!(
            told(NOW * 1_000_000),
            format!(
                "timestamp {} {new}; it looks like nanoseconds, milliseconds are expected",
                NOW * 1_000_000
            )
        );
        for timestamp in [i64::MIN, -1, i64::MAX] {
            assert!(BOUNDS.check(timestamp).is_err());
        }
    }

    /// Without a retention the year 2096 must not be taken for microseconds of 1970.
    #[test]
    fn without_a_retention_no_unit_is_guessed() {
        let keeps_all = TimeBounds { oldest: None, ..BOUNDS };
        assert_eq!(
            keeps_all.check(4_000_000_000_000).unwrap_err().to_string(),
            "timestamp 4000000000000 is too far in the future (newest accepted: 1696789834567)"
        );
    }
}
