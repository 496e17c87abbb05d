//! From what happened to what is said: rates, quantiles, cost per request, and whether the generator was the limit.

use crate::load::{Latencies, Outcome};
use crate::plan::{Offered, Plan};
use serde::Serialize;
use std::collections::BTreeMap;

/// From this share on a core counts as saturated.
pub(crate) const BUSY: f64 = 0.95;

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// All of them.
    pub max: f64,
}

impl Quantiles {
    /// `None` when nothing was recorded.
    pub(crate) fn of(latencies: &Latencies) -> Option<Quantiles> {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        (!latencies.is_empty()).then(|| Quantiles {
            p50: at(0.5),
            p99: at(0.99),
            p99_9: at(0.999),
            max: latencies.max() as f64 / 1e3,
        })
    }
}

/// All figures of a run. Costs are of the window and per answer; what the kernel did not tell is absent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// What was offered.
    pub offered: Offered,
    /// How long the window was.
    pub window_seconds: f64,
    /// Answers of any status.
    pub requests_per_s: f64,
    /// Samples in 2xx.
    pub samples_per_s: f64,
    /// From the intended moment to the answer.
    pub latency_us: Option<Quantiles>,
    /// Of an open loop, from the moment when it was sent: without the wait for a free connection.
    pub from_sending_us: Option<Quantiles>,
    /// How late an open loop's generator itself sent.
    pub lateness_us: Option<Quantiles>,
    /// Answers of the whole run.
    pub statuses: BTreeMap<u16, u64>,
    /// Of the whole run.
    pub acknowledged_samples: u64,
    /// Of the whole run.
    pub unanswered_samples: u64,
    /// Due and never sent.
    pub arrivals_unsent: u64,
    /// Due and given up, because no connection was free for longer than their patience.
    pub arrivals_given_up: u64,
    /// Taken because the server asked.
    pub pauses: u64,
    /// Ended without our wish.
    pub connections_lost: u64,
    /// Refused by the server or the kernel.
    pub connects_failed: u64,
    /// 2xx below the level asked for.
    pub levels_missed: u64,
    /// The level the server reported.
    pub durability: Option<&'static str>,
    /// Processor time of all of the server's threads.
    pub server_cpu_us_per_request: Option<f64>,
    /// Share of its cores that was not idle.
    pub server_busy: Option<f64>,
    /// Of all of its threads.
    pub server_switches_per_request: Option<f64>,
    /// Resident before the connections.
    pub server_bytes_before: Option<u64>,
    /// Resident with all connections idle.
    pub server_bytes_idle: Option<u64>,
    /// Resident after the load.
    pub server_bytes_after: Option<u64>,
    /// The generator's own.
    pub generator_cpu_us_per_request: f64,
    /// Share of its core that was not idle.
    pub generator_busy: Option<f64>,
    /// The generator's core was saturated and the server's was not: the rate says nothing about the server.
    pub generator_was_the_limit: bool,
}

impl Figures {
    /// Works them out.
    pub(crate) fn of(plan: &Plan, outcome: &Outcome) -> Figures {
        let usage = &outcome.usage;
        let requests = outcome.answered.max(1) as f64;
        let [server_bytes_before, server_bytes_idle, server_bytes_after] = outcome.resident_bytes;
        let is_saturated = |busy: Option<f64>| busy.is_some_and(|share| share >= BUSY);
        Figures {
            offered: plan.offered(),
            window_seconds: usage.seconds,
            requests_per_s: outcome.answered as f64 / usage.seconds,
            samples_per_s: (outcome.accepted * u64::from(plan.batch)) as f64 / usage.seconds,
            latency_us: Quantiles::of(&outcome.latency),
            from_sending_us: Quantiles::of(&outcome.from_sending),
            lateness_us: Quantiles::of(&outcome.lateness),
            statuses: outcome.statuses.clone(),
            acknowledged_samples: outcome.acknowledged_samples,
            unanswered_samples: outcome.unanswered_samples,
            arrivals_unsent: outcome.arrivals_unsent,
            arrivals_given_up: outcome.arrivals_given_up,
            pauses: outcome.pauses,
            connections_lost: outcome.connections_lost,
            connects_failed: outcome.connects_failed,
            levels_missed: outcome.levels_missed,
            durability: outcome.level.map(|level| level.name()),
            server_cpu_us_per_request: usage.server_cpu_ns.map(|ns| ns as f64 / 1e3 / requests),
            server_busy: usage.server_busy,
            server_switches_per_request: usage.server_switches.map(|switches| switches as f64 / requests),
            server_bytes_before,
            server_bytes_idle,
            server_bytes_after,
            generator_cpu_us_per_request: usage.generator_cpu_ns as f64 / 1e3 / requests,
            generator_busy: usage.generator_busy,
            generator_was_the_limit: is_saturated(usage.generator_busy) && !is_saturated(usage.server_busy),
        }
    }

    /// What the server itself took: from sending to the answer, in either kind of loop.
    pub(crate) fn server_latency_us(&self) -> Option<Quantiles> {
        self.from_sending_us.or(self.latency_us)
    }

    /// Samples of each request.
    pub(crate) fn batch(&self) -> u64 {
        u64::from(self.offered.batch)
    }

    /// Requests that were answered with 2xx, a second.
    pub(crate) fn accepted_per_s(&self) -> f64 {
        self.samples_per_s / f64::from(self.offered.batch)
    }

    /// Samples for each second of the server's processor time.
    pub(crate) fn samples_per_cpu_s(&self) -> Option<f64> {
        let cpu_s_per_s = self.server_cpu_us_per_request? * self.requests_per_s / 1e6;
        (cpu_s_per_s > 0.0).then(|| self.samples_per_s / cpu_s_per_s)
    }

    /// Resident memory after the load above that with idle connections, in MiB.
    pub(crate) fn grown_mib(&self) -> Option<f64> {
        Some((self.server_bytes_after? as f64 - self.server_bytes_idle? as f64) / f64::from(1 << 20))
    }

    /// Resident bytes that one idle connection cost the server.
    pub(crate) fn bytes_per_connection(&self, connections: u32) -> Option<f64> {
        let grown = self.server_bytes_idle? as f64 - self.server_bytes_before? as f64;
        Some(grown / f64::from(connections))
    }

    /// Whether the server's cores were saturated, so that its cost per request may be compared with another's.
    pub(crate) fn counts(&self) -> bool {
        self.server_busy.is_some_and(|share| share >= BUSY)
    }
}

/// The middle of the values, or the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values[values.len() / 2 - 1] + upper) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_in_any_order() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn quantiles_come_in_microseconds_and_not_at_all_from_nothing() {
        let mut latencies = Latencies::new_with_bounds(1_000, 600_000_000_000, 3).unwrap();
        assert!(Quantiles::of(&latencies).is_none());
        for us in 1..=1_000 {
            latencies.record(us * 1_000).unwrap();
        }
        let found = Quantiles::of(&latencies).unwrap();
        for (found, expected) in
            [(found.p50, 500.0), (found.p99, 990.0), (found.p99_9, 999.0), (found.max, 1_000.0)]
        {
            assert!((found - expected).abs() <= expected * 0.002, "{found} for {expected}");
        }
    }
}
