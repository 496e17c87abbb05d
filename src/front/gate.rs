//! Whether samples may come in just now: the choice alone, without rings, journal and clocks.
//!
//! ```text
//! Open      → Shut        an executor has BATCHES_PENDING_MAX values before it, or the journal awaits its next file
//! Shut      → Open        every executor is down to BATCHES_PENDING_LOW, and the journal has room
//! Shut      → Refusing    that took longer than PAUSE_NANOS_MAX, for an executor
//! Shut      → Trying      longer than FILE_PAUSE_NANOS_MAX, for the journal alone: what still fits into its file goes in
//! Refusing  → Open, Trying    every executor is down to BATCHES_PENDING_LOW
//! Trying    → Open, Shut      the journal has room; an executor has BATCHES_PENDING_MAX values before it
//! ```
//!
//! While it is shut the loop leaves requests with samples where they lie, and turns on for everything else; with
//! nothing else to do it sleeps, and so the executor, which shares its core, gets that. An executor that has come to
//! the end of its ring rings the loop's bell (`ToStore::WakeLoop`), and so does one that has made a journal file.
//! Not here: who waits (`exchange/held.rs`).

/// Values in a loop's ring to one executor with which the loop stops taking samples. At saturation a turn takes some
/// 150 µs and makes one batch for each owner: these are 10 ms of work, and an executor is woken after half of them.
pub const BATCHES_PENDING_MAX: usize = 64;
/// How far down it goes on; also with how many values an executor is woken before its time.
pub const BATCHES_PENDING_LOW: usize = BATCHES_PENDING_MAX / 2;
/// How long a request waits for that at most, in nanoseconds, before it is refused. An executor that is merely behind has
/// caught up in a tenth of it. Its longest step is to freeze the memory for a flush, by estimate 50 to 80 ms with 400,000
/// series (`bench seal`), and more with more; and whoever is refused for that comes back after a second.
pub const PAUSE_NANOS_MAX: u64 = 250_000_000;
/// The same for the journal's next file: the device decides when that is there, and when the one before is synced. A disk
/// that is busy takes tenths of a second for both, and a sender that is refused waits longer than that.
pub const FILE_PAUSE_NANOS_MAX: u64 = 1_000_000_000;
const _: () = assert!(FILE_PAUSE_NANOS_MAX > PAUSE_NANOS_MAX);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Samples are taken.
    #[default]
    Open,
    /// They wait, since that monotonic nanosecond.
    Shut { since_nanos: u64 },
    /// They are refused.
    Refusing,
    /// They have waited for a journal file in vain: each is taken if it fits into the present one, else refused.
    Trying,
}

impl Gate {
    /// Whether samples wait.
    pub fn is_shut(self) -> bool {
        matches!(self, Gate::Shut { .. })
    }

    /// When waiting may turn into refusing next, in monotonic nanoseconds.
    pub fn refuses_at(self, now_nanos: u64) -> Option<u64> {
        match self {
            Gate::Shut { since_nanos } if now_nanos < since_nanos + PAUSE_NANOS_MAX => {
                Some(since_nanos + PAUSE_NANOS_MAX)
            }
            Gate::Shut { since_nanos } => Some(since_nanos + FILE_PAUSE_NANOS_MAX),
            Gate::Open | Gate::Refusing | Gate::Trying => None,
        }
    }

    /// What it is from now on. `holds(n)` says whether any executor has at least `n` values before it; `awaits_file`
    /// whether a body may find no room in the journal because its next file is not there yet.
    #[must_use]
    pub fn next(self, now_nanos: u64, mut holds: impl FnMut(usize) -> bool, awaits_file: bool) -> Gate {
        let shut = Gate::Shut { since_nanos: now_nanos };
        match self {
            Gate::Open | Gate::Trying if holds(BATCHES_PENDING_MAX) => shut,
            Gate::Open if awaits_file => shut,
            Gate::Trying if awaits_file => Gate::Trying,
            Gate::Open | Gate::Trying => Gate::Open,
            Gate::Shut { .. } | Gate::Refusing => {
                let is_behind = holds(BATCHES_PENDING_LOW + 1);
                let patience = if is_behind { PAUSE_NANOS_MAX } else { FILE_PAUSE_NANOS_MAX };
                match self {
                    _ if !is_behind && !awaits_file => Gate::Open,
                    Gate::Shut { since_nanos } if now_nanos.saturating_sub(since_nanos) < patience => self,
                    _ if is_behind => Gate::Refusing,
                    _ => Gate::Trying,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gate: Gate, now_nanos: u64, pending: usize) -> Gate {
        gate.next(now_nanos, |values| pending >= values, false)
    }

    fn short_of_room(gate: Gate, now_nanos: u64, pending: usize) -> Gate {
        gate.next(now_nanos, |values| pending >= values, true)
    }

    #[test]
    fn below_the_bound_it_stays_open_and_at_the_bound_it_shuts() {
        assert_eq!(after(Gate::Open, 5, BATCHES_PENDING_MAX - 1), Gate::Open);
        assert_eq!(after(Gate::Open, 5, BATCHES_PENDING_MAX), Gate::Shut { since_nanos: 5 });
    }

    #[test]
    fn it_opens_again_well_below_the_bound_so_that_it_does_not_flutter() {
        let shut = Gate::Shut { since_nanos: 5 };
        assert_eq!(after(shut, 6, BATCHES_PENDING_MAX - 1), shut);
        assert_eq!(after(shut, 6, BATCHES_PENDING_LOW + 1), shut);
        assert_eq!(after(shut, 6, BATCHES_PENDING_LOW), Gate::Open);
    }

    #[test]
    fn it_refuses_after_a_while_until_there_is_room() {
        let shut = Gate::Shut { since_nanos: 5 };
        let at = shut.refuses_at(6).unwrap();
        assert_eq!(after(shut, at - 1, BATCHES_PENDING_MAX), shut);
        assert_eq!(after(shut, at, BATCHES_PENDING_MAX), Gate::Refusing);
        assert_eq!(after(Gate::Refusing, at + 1, BATCHES_PENDING_MAX), Gate::Refusing);
        assert_eq!(after(Gate::Refusing, at + 1, BATCHES_PENDING_LOW), Gate::Open);
    }

    /// A loop that was itself kept from its core looks at the rings before it refuses.
    #[test]
    fn room_counts_also_when_it_is_seen_late() {
        let shut = Gate::Shut { since_nanos: 5 };
        assert_eq!(after(shut, 5 + 2 * FILE_PAUSE_NANOS_MAX, BATCHES_PENDING_LOW), Gate::Open);
    }

    #[test]
    fn a_journal_without_room_shuts_it_until_there_is_some_and_no_longer_than_the_pause() {
        let shut = Gate::Shut { since_nanos: 5 };
        let at = 5 + FILE_PAUSE_NANOS_MAX;
        assert_eq!(shut.refuses_at(5 + PAUSE_NANOS_MAX), Some(at), "it is looked at again by then");
        assert_eq!(short_of_room(Gate::Open, 5, 0), shut);
        assert_eq!(short_of_room(shut, at - 1, 0), shut);
        assert_eq!(after(shut, at - 1, 0), Gate::Open);
        assert_eq!(short_of_room(shut, at, 0), Gate::Trying);
        assert_eq!(short_of_room(Gate::Trying, at * 9, BATCHES_PENDING_MAX - 1), Gate::Trying);
        assert_eq!(after(Gate::Trying, at * 9, 0), Gate::Open);
    }

    /// The worse of the two decides: an executor that is behind refuses everything, a journal only what does not fit.
    #[test]
    fn with_both_short_the_executors_are_waited_for_and_refused_for_first() {
        let shut = Gate::Shut { since_nanos: 5 };
        let at = 5 + PAUSE_NANOS_MAX;
        assert_eq!(after(shut, 6, BATCHES_PENDING_LOW + 1), shut);
        assert_eq!(short_of_room(shut, 6, BATCHES_PENDING_LOW), shut);
        assert_eq!(short_of_room(shut, at, BATCHES_PENDING_LOW + 1), Gate::Refusing);
        assert_eq!(short_of_room(shut, at, BATCHES_PENDING_LOW), shut, "a file has more time");
        assert_eq!(short_of_room(Gate::Refusing, at, BATCHES_PENDING_LOW), Gate::Trying);
        assert_eq!(short_of_room(Gate::Trying, 7, BATCHES_PENDING_MAX), Gate::Shut { since_nanos: 7 });
    }
}
