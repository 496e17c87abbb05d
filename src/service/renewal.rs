//! When idle series make room that only the loops' dictionaries name.
//!
//! ```text
//!   many idle, memory filling fast  → ask the loops for new dictionaries; when all have begun them, forget
//!   many idle, new ones refused     → the same, but wait: who is heard of meanwhile is named anew and stays
//! ```
//!
//! Always: once asked for, it ends; a loop begins a new dictionary without accepting anything.
//! Not here: how full the memory is (`storage::store::Memory`), the messages (`admission.rs`).

use std::time::Duration;

/// How long series may be quiet that keep their place, where nothing but new ones is refused: senders of every 10 or 15
/// seconds are heard of twice or once.
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// How much idle series are in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// They are not, or are few.
    None,
    /// New series are refused for them.
    Calm,
    /// Memory fills faster than series are heard of again.
    Pressing,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Renewal(Option<Asked>);

#[derive(Debug)]
struct Asked {
    /// Those whose successors were asked for, by loop; none where a loop named nothing.
    dictionaries: Vec<Option<u64>>,
    forget_at_nanos: u64,
}

impl Renewal {
    /// Whether the loops were asked, and what the new dictionaries do not name is not forgotten yet.
    pub fn is_pending(&self) -> bool {
        self.0.is_some()
    }

    /// All loops were asked just now; these are the dictionaries that they had.
    pub fn asked(&mut self, dictionaries: Vec<Option<u64>>, now_nanos: u64) {
        let forget_at_nanos = now_nanos + HEARD_WITHIN.as_nanos() as u64;
        self.0 = Some(Asked { dictionaries, forget_at_nanos });
    }

    /// Whether it is time to forget what these dictionaries of now do not name.
    pub fn is_due(&self, urgency: Urgency, dictionaries: &[Option<u64>], now_nanos: u64) -> bool {
        self.0.as_ref().is_some_and(|asked| {
            let is_time = urgency == Urgency::Pressing || now_nanos >= asked.forget_at_nanos;
            let mut pairs = asked.dictionaries.iter().zip(dictionaries);
            is_time && pairs.all(|(old, of_now)| old.is_none() || of_now != old)
        })
    }

    /// It was done.
    pub fn forgot(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: u64 = HEARD_WITHIN.as_nanos() as u64;

    fn asked() -> Renewal {
        let mut renewal = Renewal::default();
        assert!(!renewal.is_due(Urgency::Pressing, &[Some(4), None], LATER + 7), "nobody was asked");
        renewal.asked(vec![Some(3), None], 7);
        renewal
    }

    #[test]
    fn in_a_hurry_idle_series_go_as_soon_as_every_loop_has_a_new_dictionary() {
        let mut renewal = asked();
        assert!(!renewal.is_due(Urgency::Pressing, &[Some(3), None], 8), "the first has not begun");
        assert!(renewal.is_due(Urgency::Pressing, &[Some(4), None], 8));
        assert!(renewal.is_due(Urgency::Pressing, &[None, Some(9)], 8), "it names nothing yet");
        renewal.forgot();
        assert!(!renewal.is_pending() && !renewal.is_due(Urgency::Pressing, &[Some(4), None], 8));
    }

    /// However often the memory is flushed meanwhile, and whether or not new ones are still refused.
    #[test]
    fn where_only_new_series_are_refused_the_known_ones_are_given_time_to_be_heard_of() {
        let renewal = asked();
        for urgency in [Urgency::Calm, Urgency::None] {
            assert!(!renewal.is_due(urgency, &[Some(4), None], LATER + 6));
            assert!(!renewal.is_due(urgency, &[Some(3), None], LATER + 7), "the first has not begun");
            assert!(renewal.is_due(urgency, &[Some(4), None], LATER + 7));
        }
    }
}
