//! How long a connection holds back after a refusal: as long as the server asked, and longer each time.
//!
//! Always: never shorter than `Retry-After`; never longer than the larger of that and [`PAUSE_MAX`], and a quarter
//! more by jitter, which keeps refused connections from coming back as one.
//! Not here: which statuses ask for a pause (`load.rs`).

use std::time::Duration;

/// Growth ends here.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A refusal that names no time.
const PAUSE_UNSAID: Duration = Duration::from_secs(1);

/// What `Retry-After: 0` becomes, so that growth has something to grow from.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The refusals that one connection has met in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pauses {
    in_a_row: u32,
}

impl Pauses {
    /// The pause after one more refusal. `random` may be anything; its spread is the jitter.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>, random: u64) -> Duration {
        let asked = retry_after.unwrap_or(PAUSE_UNSAID);
        let grown = asked.max(PAUSE_MIN).saturating_mul(1 << self.in_a_row.min(16)).min(PAUSE_MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = asked.max(grown);
        let jitter = pause / 4 / 256 * (random & 0xff) as u32;
        pause.saturating_add(jitter)
    }

    /// The server took a request: the next refusal is a first one again.
    pub(crate) fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut pauses = Pauses::default();
        let row: Vec<u64> = (0..7).map(|_| pauses.next(Some(SECOND), 0).as_secs()).collect();
        assert_eq!(row, [1, 2, 4, 8, 16, 30, 30]);
        pauses.reset();
        assert_eq!(pauses.next(Some(SECOND), 0), SECOND);
    }

    #[test]
    fn what_the_server_asks_for_is_kept_even_beyond_the_bound() {
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(Some(100 * SECOND), 0), 100 * SECOND);
        assert_eq!(pauses.next(Some(100 * SECOND), 0), 100 * SECOND);
    }

    #[test]
    fn a_refusal_without_a_time_or_with_none_at_all_still_grows() {
        assert_eq!(Pauses::default().next(None, 0), PAUSE_UNSAID);
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(Some(Duration::ZERO), 0), PAUSE_MIN);
        assert_eq!(pauses.next(Some(Duration::ZERO), 0), 2 * PAUSE_MIN);
    }

    #[test]
    fn jitter_only_lengthens_and_by_less_than_a_quarter() {
        for random in [0, 1, 77, 255, u64::MAX] {
            let pause = Pauses::default().next(Some(SECOND), random);
            assert!(pause >= SECOND && pause < SECOND * 5 / 4, "{pause:?}");
        }
    }
}
