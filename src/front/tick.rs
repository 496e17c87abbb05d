//! When a loop looks after what no event tells it: slow and idle clients, and the counters that it shares.
//!
//! ```text
//! once a second while events come, and once more after the last
//! then only when the next connection's time is over: an idle server makes no system call
//! ```
//!
//! Not here: what is done then (`front.rs`), whose time is over (`exchange.rs`).

/// How often, while events come.
const TICK_NANOS: u64 = 1_000_000_000;

/// All times are monotonic, in nanoseconds.
#[derive(Debug)]
pub struct Tick {
    at: Option<u64>,
    had_events: bool,
}

impl Tick {
    /// Nothing to look after.
    pub fn new() -> Tick {
        Tick { at: None, had_events: false }
    }

    /// Something happened in this turn.
    pub fn note(&mut self, now: u64) {
        self.had_events = true;
        let soon = now + TICK_NANOS;
        self.at = Some(self.at.map_or(soon, |at| at.min(soon)));
    }

    /// When it is due.
    pub fn at(&self) -> Option<u64> {
        self.at
    }

    /// Whether it is due now.
    pub fn is_due(&self, now: u64) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// All was looked after; `expires_at` is when the next connection's time is over if nothing comes.
    pub fn looked(&mut self, now: u64, expires_at: Option<u64>) {
        let had_events = std::mem::take(&mut self.had_events);
        self.at =
            if had_events { Some(now + TICK_NANOS) } else { expires_at.map(|at| at.max(now + TICK_NANOS)) };
    }
}

#[cfg(test)]
mod tests {
    use super::{TICK_NANOS, Tick};

    #[test]
    fn while_events_come_it_is_due_each_second() {
        let mut tick = Tick::new();
        assert_eq!(tick.at(), None);
        tick.note(0);
        tick.note(TICK_NANOS / 2);
        assert_eq!(tick.at(), Some(TICK_NANOS));
        assert!(!tick.is_due(TICK_NANOS - 1));
        assert!(tick.is_due(TICK_NANOS));
        tick.looked(TICK_NANOS, Some(60 * TICK_NANOS));
        assert_eq!(tick.at(), Some(2 * TICK_NANOS), "once more after the last event");
    }

    #[test]
    fn without_events_it_sleeps_until_a_connection_expires_or_something_happens() {
        let mut tick = Tick::new();
        tick.note(0);
        tick.looked(TICK_NANOS, None);
        tick.looked(2 * TICK_NANOS, Some(60 * TICK_NANOS));
        assert_eq!(tick.at(), Some(60 * TICK_NANOS));
        tick.note(7 * TICK_NANOS);
        assert_eq!(tick.at(), Some(8 * TICK_NANOS));
        tick.looked(8 * TICK_NANOS, None);
        tick.looked(9 * TICK_NANOS, None);
        assert_eq!(tick.at(), None, "nothing is open: it sleeps without end");
    }

    /// What has expired and is still there is looked at each second, not in every turn.
    #[test]
    fn it_is_never_due_twice_in_a_second() {
        let mut tick = Tick::new();
        tick.note(0);
        tick.looked(TICK_NANOS, None);
        tick.looked(2 * TICK_NANOS, Some(0));
        assert_eq!(tick.at(), Some(3 * TICK_NANOS));
    }
}
