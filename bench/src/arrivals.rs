//! When each request of an open-loop run should leave: a clock that waits for nobody.
//!
//! Always: arrival `n` is due exactly when `due` counts past it, so no arrival is skipped or offered twice,
//! however late the generator looks at the clock.
//! Not here: which connection carries it, and the wall's clock; times are nanoseconds since the run's start.

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Arrivals at a constant rate, the first at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    requests_per_s: u64,
}

impl Arrivals {
    /// `requests_per_s` must not be 0.
    pub(crate) fn new(requests_per_s: u64) -> Arrivals {
        assert!(requests_per_s > 0, "a clock that never strikes");
        Arrivals { requests_per_s }
    }

    /// How many arrivals lie at or before that moment.
    pub(crate) fn due(self, elapsed_ns: u64) -> u64 {
        let due = ((u128::from(elapsed_ns) + 1) * u128::from(self.requests_per_s)).div_ceil(NANOS_PER_SECOND);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// The moment of arrival `n`, counted from 0.
    pub(crate) fn at(self, n: u64) -> u64 {
        let at = u128::from(n) * NANOS_PER_SECOND / u128::from(self.requests_per_s);
        u64::try_from(at).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_thousand_a_second_is_one_a_millisecond() {
        let clock = Arrivals::new(1_000);
        assert_eq!((clock.at(0), clock.at(1), clock.at(1_000)), (0, 1_000_000, 1_000_000_000));
        assert_eq!((clock.due(0), clock.due(999_999), clock.due(1_000_000)), (1, 1, 2));
        assert_eq!(clock.due(60_000_000_000), 60_001);
    }

    proptest! {
        /// The two directions agree at every rate: `n` is due from `at(n)` on and not a nanosecond earlier.
        #[test]
        fn an_arrival_is_due_from_its_moment_on(rate in 1_u64..20_000_000, n in 0_u64..1 << 40) {
            let clock = Arrivals::new(rate);
            let at = clock.at(n);
            prop_assert!(clock.due(at) > n);
            prop_assert!(at == 0 || clock.due(at - 1) <= n);
        }
    }
}
