//! The state of a rule, and the one step that changes it.
//!
//! ```text
//!                  condition holds                    condition does not hold
//!     Inactive ────────────────────▶ Firing ──────────────────────────────────▶ Inactive
//!              event: Firing                 event: Resolved, with the average
//!                                    │    ▲
//!                       window empty │    │ a sample in the window again
//!                                    ▼    │
//!                              Firing, empty since ───────────────────────────▶ Inactive
//!                                            event: Resolved, without an average,
//!                                            when that has lasted `stale_after_ms`
//! ```
//!
//! The time without samples is counted from the moment the window was found empty, not from the last look
//! at a full one: looks come when something changes, so the last one may lie a whole window back.

use crate::{WindowPart, WindowRule};

/// Where a rule stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// The condition does not hold, or never had a sample to hold for.
    #[default]
    Inactive,
    /// The condition held when the window last had samples.
    Firing {
        /// When it began, milliseconds since 1970.
        since_ms: i64,
        /// Since when the window has been empty, if it is.
        empty_since_ms: Option<i64>,
    },
}

/// A change that is told, once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The condition began to hold.
    Firing {
        /// The average for which it holds.
        average: f64,
        /// How many samples it is made of.
        samples: u64,
    },
    /// The condition ceased to hold.
    Resolved {
        /// The average for which it does not hold; nothing when samples stayed away too long.
        average: Option<f64>,
    },
}

impl State {
    /// When the rule must be stepped even if no part changes: a firing alert without samples then resolves.
    pub fn deadline_ms(&self, rule: &WindowRule) -> Option<i64> {
        match self {
            State::Firing { empty_since_ms: Some(since_ms), .. } => {
                Some(since_ms.saturating_add(rule.stale_after_ms()))
            }
            State::Firing { empty_since_ms: None, .. } | State::Inactive => None,
        }
    }
}

/// What becomes of a state when the window holds `part` at `now_ms`.
pub fn step(rule: &WindowRule, state: State, part: WindowPart, now_ms: i64) -> (State, Option<Event>) {
    match (state, part.average()) {
        (State::Inactive, Some(average)) if rule.condition().holds(average) => (
            State::Firing { since_ms: now_ms, empty_since_ms: None },
            Some(Event::Firing { average, samples: part.count() }),
        ),
        (State::Inactive, _) => (State::Inactive, None),
        (State::Firing { since_ms, .. }, Some(average)) if rule.condition().holds(average) => {
            (State::Firing { since_ms, empty_since_ms: None }, None)
        }
        (State::Firing { .. }, Some(average)) => {
            (State::Inactive, Some(Event::Resolved { average: Some(average) }))
        }
        (State::Firing { since_ms, empty_since_ms }, None) => {
            // The earlier of both: a clock that was set back must not make the wait longer.
            let empty_since_ms = empty_since_ms.unwrap_or(now_ms).min(now_ms);
            if now_ms.saturating_sub(empty_since_ms) >= rule.stale_after_ms() {
                (State::Inactive, Some(Event::Resolved { average: None }))
            } else {
                (State::Firing { since_ms, empty_since_ms: Some(empty_since_ms) }, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{STALE_AFTER_MS, default_rules};
    use proptest::prelude::*;

    fn part(values: &[f64]) -> WindowPart {
        let mut part = WindowPart::default();
        values.iter().for_each(|&value| part.add(value));
        part
    }

    const FIRING: State = State::Firing { since_ms: 1_000, empty_since_ms: None };

    #[test]
    fn a_change_is_told_and_the_same_again_is_not() {
        let [rule, ..] = default_rules();
        let firing = Some(Event::Firing { average: 85.0, samples: 2 });
        assert_eq!(step(&rule, State::Inactive, part(&[80.0, 90.0]), 1_000), (FIRING, firing));
        assert_eq!(step(&rule, FIRING, part(&[99.0]), 2_000), (FIRING, None));
        let resolved = Some(Event::Resolved { average: Some(75.0) });
        assert_eq!(step(&rule, FIRING, part(&[75.0]), 3_000), (State::Inactive, resolved));
        assert_eq!(step(&rule, State::Inactive, part(&[75.0]), 4_000), (State::Inactive, None));
    }

    #[test]
    fn the_threshold_itself_does_not_fire_a_strict_rule() {
        let [rule, ..] = default_rules();
        assert_eq!(step(&rule, State::Inactive, part(&[80.0; 7]), 0), (State::Inactive, None));
        assert_eq!(step(&rule, FIRING, part(&[80.0]), 0).0, State::Inactive);
    }

    #[test]
    fn an_empty_window_decides_nothing_until_it_was_empty_too_long() {
        let [rule, ..] = default_rules();
        let empty = WindowPart::default();
        assert_eq!(step(&rule, State::Inactive, empty, 5), (State::Inactive, None));
        let (state, event) = step(&rule, FIRING, empty, 10_000);
        assert_eq!((state.deadline_ms(&rule), event), (Some(10_000 + STALE_AFTER_MS), None));
        assert_eq!(step(&rule, state, empty, 9_999 + STALE_AFTER_MS), (state, None));
        let resolved = Some(Event::Resolved { average: None });
        assert_eq!(step(&rule, state, empty, 10_000 + STALE_AFTER_MS), (State::Inactive, resolved));
        assert_eq!(step(&rule, state, part(&[99.0]), 11_000), (FIRING, None), "a sample ends the wait");
        assert_eq!(FIRING.deadline_ms(&rule), None);
    }

    #[test]
    fn a_clock_set_back_does_not_make_the_wait_longer() {
        let [rule, ..] = default_rules();
        let (state, _) = step(&rule, FIRING, WindowPart::default(), 10_000_000);
        let (state, _) = step(&rule, state, WindowPart::default(), 50_000);
        assert_eq!(state.deadline_ms(&rule), Some(50_000 + STALE_AFTER_MS));
    }

    proptest! {
        /// However values flap, firing and resolved alternate and begin with firing; an event comes at a step
        /// exactly when the state changes between inactive and firing.
        #[test]
        fn events_alternate(
            looks in proptest::collection::vec((proptest::option::of(70.0f64..90.0), 0i64..200_000), 0..200),
        ) {
            let [rule, ..] = default_rules();
            let (mut state, mut now_ms) = (State::Inactive, 0);
            for (value, passed_ms) in looks {
                now_ms += passed_ms;
                let before = state;
                let (after, event) = step(&rule, state, part(value.as_slice()), now_ms);
                state = after;
                match event {
                    Some(Event::Firing { average, .. }) => {
                        prop_assert!(before == State::Inactive && after != State::Inactive && average > 80.0);
                    }
                    Some(Event::Resolved { average }) => {
                        prop_assert!(before != State::Inactive && after == State::Inactive);
                        prop_assert!(average.is_none_or(|average| average <= 80.0));
                    }
                    None => prop_assert_eq!(before == State::Inactive, after == State::Inactive),
                }
            }
        }
    }
}
