//! When each request of an open-loop run should leave: a clock that waits for nobody.
//!
//! A shape says where arrival `n` lies; the clock walks along it. Moments are nanoseconds since the run's start.
//! Always: moments never go back; no arrival is skipped or offered twice, however late the generator looks; the same
//! shape, rate and seed give the same moments on every machine.
//! Not here: which connection carries an arrival, and the wall's clock.

use crate::request::mix;
use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How arrivals lie in time around their rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Evenly, the first at the start.
    Constant,
    /// Independently of each other: gaps are exponential, drawn from the seed.
    Poisson,
    /// From this rate on, rising or falling evenly until the rate is reached at the run's end.
    Ramp {
        /// Arrivals a second at the start.
        from_per_s: u64,
    },
    /// So many at one moment, evenly spaced groups.
    Burst {
        /// Arrivals of a group.
        size: u64,
    },
}

impl Shape {
    /// The word of scenario files and records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::Constant => "constant",
            Shape::Poisson => "poisson",
            Shape::Ramp { .. } => "ramp",
            Shape::Burst { .. } => "burst",
        }
    }
}

/// All that decides the moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Around the rate.
    pub shape: Shape,
    /// Arrivals a second; for a ramp those at its end.
    pub requests_per_s: u64,
    /// How long a ramp takes; then its rate stays.
    pub span: Duration,
    /// Of everything that is drawn.
    pub seed: u64,
}

impl Schedule {
    /// The moment of arrival `n`, counted from 0, of a shape whose moments depend on nothing before them.
    fn at(&self, n: u64) -> u64 {
        let evenly = |n: u64| u128::from(n) * NANOS_PER_SECOND / u128::from(self.requests_per_s);
        let nanos = match self.shape {
            Shape::Constant | Shape::Poisson => evenly(n),
            Shape::Burst { size } => evenly(n / size * size),
            Shape::Ramp { from_per_s } => return self.on_ramp(from_per_s as f64, n as f64),
        };
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Arrivals up to `t` are `from·t + (to − from)·t²/(2·span)`; this is its inverse, in the form that also holds
    /// where the slope is 0.
    fn on_ramp(&self, from: f64, n: f64) -> u64 {
        let (to, span) = (self.requests_per_s as f64, self.span.as_secs_f64());
        let on_ramp = (from + to) / 2.0 * span;
        let seconds = if n < on_ramp {
            let under_root = from * from + 2.0 * (to - from) / span * n;
            2.0 * n / (from + under_root.max(0.0).sqrt())
        } else {
            span + (n - on_ramp) / to
        };
        (seconds * 1e9) as u64
    }

    /// The gap before arrival `n` of a Poisson process.
    fn gap_ns(&self, n: u64) -> f64 {
        // 53 bits, never 0, so that the logarithm is finite.
        let drawn = mix(mix(self.seed) ^ n) >> 11;
        let uniform = (drawn as f64 + 1.0) / (1_u64 << 53) as f64;
        -uniform.ln() * 1e9 / self.requests_per_s as f64
    }
}

/// A walk along a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    schedule: Schedule,
    /// Number of the next arrival.
    next: u64,
    /// Its moment.
    at_ns: u64,
    /// The same to less than a nanosecond, for gaps that add up.
    sum_ns: f64,
}

impl Clock {
    /// At the first arrival. Rates and a group's size must not be 0.
    pub(crate) fn new(schedule: Schedule) -> Clock {
        assert!(schedule.requests_per_s > 0, "a clock that never strikes");
        assert!(schedule.shape != Shape::Burst { size: 0 }, "groups of nobody");
        assert!(schedule.shape != Shape::Ramp { from_per_s: 0 }, "a ramp that begins without end");
        let mut clock = Clock { schedule, next: 0, at_ns: 0, sum_ns: 0.0 };
        clock.at_ns = clock.moment();
        clock
    }

    /// The moment of the next arrival.
    pub(crate) fn next_at(&self) -> u64 {
        self.at_ns
    }

    /// Takes the next arrival if its moment has come, and says which moment that was.
    pub(crate) fn take(&mut self, elapsed_ns: u64) -> Option<u64> {
        let at = self.at_ns;
        if at > elapsed_ns {
            return None;
        }
        self.next += 1;
        self.at_ns = self.moment().max(at);
        Some(at)
    }

    /// Takes all whose moment has come; how many.
    pub(crate) fn take_all(&mut self, elapsed_ns: u64) -> u64 {
        let before = self.next;
        while self.take(elapsed_ns).is_some() {}
        self.next - before
    }

    /// Takes all whose moment came before that; how many.
    pub(crate) fn take_all_before(&mut self, moment_ns: u64) -> u64 {
        moment_ns.checked_sub(1).map_or(0, |last| self.take_all(last))
    }

    fn moment(&mut self) -> u64 {
        if self.schedule.shape != Shape::Poisson {
            return self.schedule.at(self.next);
        }
        self.sum_ns += self.schedule.gap_ns(self.next);
        self.sum_ns as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(shape: Shape, requests_per_s: u64) -> Schedule {
        Schedule { shape, requests_per_s, span: Duration::from_secs(10), seed: 1 }
    }

    fn moments(schedule: Schedule, count: usize) -> Vec<u64> {
        let mut clock = Clock::new(schedule);
        (0..count).map(|_| clock.take(u64::MAX).unwrap()).collect()
    }

    #[test]
    fn a_thousand_a_second_is_one_a_millisecond() {
        let mut clock = Clock::new(schedule(Shape::Constant, 1_000));
        assert_eq!((clock.take(0), clock.take(0), clock.next_at()), (Some(0), None, 1_000_000));
        assert_eq!(clock.take_all(999_999), 0);
        assert_eq!(clock.take_all(60_000_000_000), 60_000);
    }

    #[test]
    fn a_burst_comes_at_one_moment_and_keeps_the_rate() {
        let found = moments(schedule(Shape::Burst { size: 50 }, 1_000), 150);
        for (group, at) in [(0, 0), (1, 50_000_000), (2, 100_000_000)] {
            assert!(found[group * 50..(group + 1) * 50].iter().all(|moment| *moment == at), "group {group}");
        }
    }

    /// Method: 10 s from 100 to 300 a second are 2,000 arrivals, the first half of the time 750 of them.
    #[test]
    fn a_ramp_reaches_its_rate_at_its_end_and_keeps_it() {
        for (from, to, half) in [(100, 300, 750), (300, 100, 1_250), (200, 200, 1_000)] {
            let mut clock = Clock::new(schedule(Shape::Ramp { from_per_s: from }, to));
            assert!(clock.take_all(5_000_000_000).abs_diff(half) <= 1);
            assert!((clock.next + clock.take_all(10_000_000_000)).abs_diff(2_000) <= 1);
            assert!(clock.take_all(11_000_000_000).abs_diff(to) <= 1, "the second after the ramp");
        }
    }

    /// Method: mean and spread of 100,000 gaps; those of an exponential are equal. The share of long gaps is e⁻².
    #[test]
    fn poisson_gaps_are_exponential() {
        let found = moments(schedule(Shape::Poisson, 1_000_000), 100_001);
        let gaps: Vec<f64> = found.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count).sqrt();
        let long = gaps.iter().filter(|gap| **gap > 2_000.0).count() as f64 / count;
        assert!((mean / 1_000.0 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((spread / 1_000.0 - 1.0).abs() < 0.03, "spread {spread}");
        assert!((long - (-2.0_f64).exp()).abs() < 0.01, "long {long}");
    }

    #[test]
    fn a_seed_gives_the_same_moments_again_and_another_gives_others() {
        let drawn = |seed| moments(Schedule { seed, ..schedule(Shape::Poisson, 1_000) }, 100);
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Constant),
            Just(Shape::Poisson),
            (1_u64..1_000_000).prop_map(|from_per_s| Shape::Ramp { from_per_s }),
            (1_u64..1_000).prop_map(|size| Shape::Burst { size }),
        ]
    }

    proptest! {
        /// However often and how late the generator looks, it is given the same moments, in order, and none too early.
        #[test]
        fn no_arrival_is_skipped_whenever_the_generator_looks(
            shape in shapes(), rate in 1_u64..10_000_000, seed: u64,
            looks in proptest::collection::vec(0_u64..50_000_000, 1..50),
        ) {
            let schedule = Schedule { shape, requests_per_s: rate, span: Duration::from_secs(1), seed };
            let mut clock = Clock::new(schedule);
            let (mut elapsed, mut taken) = (0, Vec::new());
            for wait in looks {
                elapsed += wait;
                for _ in 0..200 {
                    let Some(at) = clock.take(elapsed) else { break };
                    prop_assert!(at <= elapsed);
                    taken.push(at);
                }
            }
            prop_assert!(taken.is_sorted());
            let expected = moments(schedule, taken.len() + 1);
            prop_assert_eq!(&expected[..taken.len()], &taken[..]);
            prop_assert_eq!(clock.next_at(), expected[taken.len()]);
        }

        /// The count within a second is the rate: exactly for a constant, to a group for bursts.
        #[test]
        fn the_count_is_the_rate(rate in 1_u64..200_000, size in 1_u64..1_000) {
            let in_a_second = |shape| Clock::new(schedule(shape, rate)).take_all(999_999_999);
            prop_assert_eq!(in_a_second(Shape::Constant), rate);
            let grouped = in_a_second(Shape::Burst { size });
            prop_assert!(grouped >= rate && grouped < rate + size);
        }
    }
}
