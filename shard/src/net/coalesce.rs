//! When a turn waits for more than its first event.
//!
//! At some ten thousand requests a second each one comes alone: the thread sleeps and is woken for every one, and
//! that costs two to three times what the request itself costs. Network cards have known this for long and raise one
//! interrupt for several packets that come close together; a loop does the same here.
//!
//! ```text
//! every 4 ms      crowd    = connections that were heard of, by a sketch of 512 bits
//!                 expected = events within the bound, as often as they came
//!                 expected below 1.5, or crowd below 16: each turn waits for its first event alone
//!                 otherwise a turn waits for crowd / 8 events, 64 at most, or for the bound to pass
//! ```
//!
//! Always: a turn ends at the bound (`NetConfig::coalesce`) with what there is, and without a bound at the first
//! event if nothing came within it; what is there already is taken without a wait if it is enough.
//! An eighth of the crowd: where all clients wait for their answers before they send again, eight times as many as
//! are waited for are about to send, so that nobody waits for those who wait. A few eager clients are no crowd.
//! Not here: what else makes a turn short (`Net::patience`).

use std::time::{Duration, Instant};

/// How long events are counted before the next decision.
const WINDOW: Duration = Duration::from_millis(4);
/// A turn waits for at most this part of the crowd.
const CROWD_PER_EVENT: u32 = 8;
/// Events that a turn waits for at most.
const TOGETHER_MAX: u32 = 64;
const SKETCH_WORDS: usize = (TOGETHER_MAX * CROWD_PER_EVENT / u64::BITS) as usize;

/// Watches how events come, and says for how many of them a turn waits.
pub(super) struct Coalesce {
    bound: Duration,
    began: Instant,
    events: u32,
    /// One bit per connection heard of, by its slot.
    heard: [u64; SKETCH_WORDS],
    together: u32,
}

impl Coalesce {
    /// Waits at most `bound`; never for more than one event when that is zero.
    pub(super) fn new(bound: Duration, now: Instant) -> Coalesce {
        Coalesce { bound, began: now, events: 0, heard: [0; SKETCH_WORDS], together: 1 }
    }

    /// Bytes came on the connection in that slot.
    pub(super) fn hear(&mut self, slot: usize) {
        self.events += 1;
        self.heard[slot / 64 % SKETCH_WORDS] |= 1 << (slot % 64);
    }

    /// For how many events a turn waits, and for how long at most for those after the first.
    pub(super) fn step(&mut self, now: Instant) -> Option<(u32, Duration)> {
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed >= WINDOW && !self.bound.is_zero() {
            let crowd: u32 = self.heard.iter().map(|word| word.count_ones()).sum();
            let expected = f64::from(self.events) * self.bound.div_duration_f64(elapsed);
            self.together = if expected < 1.5 { 1 } else { (crowd / CROWD_PER_EVENT).max(1) };
            self.began = now;
            self.events = 0;
            self.heard = [0; SKETCH_WORDS];
        }
        (self.together > 1).then_some((self.together, self.bound))
    }
}

#[cfg(test)]
mod tests {
    use super::{Coalesce, TOGETHER_MAX};
    use std::time::{Duration, Instant};

    const BOUND: Duration = Duration::from_micros(100);

    /// What is decided once `per_second` events have come for 20 ms, over so many connections.
    fn decided(bound: Duration, per_second: u32, connections: usize) -> Option<(u32, Duration)> {
        let start = Instant::now();
        let mut coalesce = Coalesce::new(bound, start);
        let gap = Duration::from_secs(1) / per_second;
        let mut decided = None;
        for event in 1..=per_second / 50 {
            coalesce.hear(event as usize % connections);
            decided = coalesce.step(start + gap * event);
        }
        decided
    }

    #[test]
    fn events_of_a_crowd_that_come_fast_are_waited_for_together() {
        assert_eq!(decided(BOUND, 40_000, 64), Some((8, BOUND)));
        assert_eq!(decided(BOUND, 20_000, 64).map(|(together, _)| together), Some(8));
        assert_eq!(decided(BOUND, 400_000, 10_000), Some((TOGETHER_MAX, BOUND)));
    }

    #[test]
    fn events_that_come_slowly_or_from_a_few_are_taken_one_by_one() {
        assert_eq!(decided(BOUND, 2_000, 64), None, "the next one would not come in time");
        assert_eq!(decided(BOUND, 100_000, 4), None, "each of the four may be waiting for an answer");
        assert_eq!(decided(Duration::ZERO, 40_000, 64), None, "it is switched off");
    }

    /// After a rest the events of before tell nothing.
    #[test]
    fn a_rest_ends_the_waiting() {
        let start = Instant::now();
        let mut coalesce = Coalesce::new(BOUND, start);
        for event in 0..400 {
            coalesce.hear(event % 64);
        }
        assert!(coalesce.step(start + Duration::from_millis(10)).is_some());
        coalesce.hear(1);
        assert_eq!(coalesce.step(start + Duration::from_millis(900)), None);
    }
}
