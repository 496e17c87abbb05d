//! What a scenario's figures must be, and which of them are not.

use crate::figures::Figures;
use serde::Deserialize;

/// The right answer; what is absent is not asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// Statuses that may occur beside 2xx.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// Requests that were lost, never answered, never sent, or answered with a status that may not occur; at most.
    pub failed: Option<u64>,
    /// Samples, exactly; that what was acknowledged is stored is asked for in any case.
    pub samples_stored: Option<u64>,
    /// Answers a second at least.
    pub requests_per_s_min: Option<f64>,
    /// Microseconds from the intended moment on.
    pub p99_us_max: Option<f64>,
    /// The p99 from the sending on, over that of the closed loop before: the server's part alone.
    pub p99_of_maximum_max: Option<f64>,
    /// Resident bytes of the server per idle connection.
    pub bytes_per_connection_max: Option<f64>,
    /// Resident memory after the load above that with idle connections.
    pub memory_growth_mib_max: Option<f64>,
    /// Accepted requests a second over those of the closed loop before.
    pub goodput_of_maximum_min: Option<f64>,
    /// Samples a second of the server's processor time, in millions.
    pub msamples_per_cpu_s_min: Option<f64>,
}

impl Expect {
    /// What still holds when the load is short, on a machine that does other things: an arrival may find every
    /// connection busy there.
    pub(super) fn short(&self, is_open: bool) -> Expect {
        Expect {
            statuses: self.statuses.clone(),
            failed: self.failed.filter(|_| !is_open),
            ..Expect::default()
        }
    }

    /// What is not as expected. `closed` is what the closed loop before it came to, if there was one.
    pub(crate) fn faults(
        &self,
        figures: &Figures,
        connections: u32,
        closed: Option<&Figures>,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let is_allowed = |status: u16| (200..300).contains(&status) || self.statuses.contains(&status);
        let others = figures.statuses.iter().filter(|(status, _)| !is_allowed(**status));
        let unexpected: u64 = others.map(|(_, count)| count).sum();
        // A batch is lost as a whole.
        let unanswered = figures.unanswered_samples.div_ceil(figures.batch());
        let unsent = figures.arrivals_unsent + figures.arrivals_given_up;
        let failed = unexpected + unanswered + unsent + figures.connects_failed;
        if self.failed.is_some_and(|most| failed > most) {
            faults.push(format!(
                "{failed} requests failed: {unexpected} had an unexpected status, {unanswered} no answer, \
                 {unsent} were never sent, {} had no connection",
                figures.connects_failed
            ));
        }
        if self.samples_stored.is_some_and(|exactly| figures.acknowledged_samples != exactly) {
            let wanted = self.samples_stored.unwrap_or(0);
            faults.push(format!("{} samples are stored, not {wanted}", figures.acknowledged_samples));
        }
        let goodput = closed.map(|closed| figures.accepted_per_s() / closed.accepted_per_s());
        let per_cpu = figures.samples_per_cpu_s().map(|samples| samples / 1e6);
        let p99 = figures.latency_us.map(|latency| latency.p99);
        let server_p99 = |figures: &Figures| figures.server_latency_us().map(|latency| latency.p99);
        let p99_of_maximum =
            closed.and_then(server_p99).zip(server_p99(figures)).map(|(closed, found)| found / closed);
        for (what, found, most) in [
            ("p99, µs", p99, self.p99_us_max),
            ("p99 from sending over the closed loop's", p99_of_maximum, self.p99_of_maximum_max),
            (
                "bytes per idle connection",
                figures.bytes_per_connection(connections),
                self.bytes_per_connection_max,
            ),
            ("MiB of growth", figures.grown_mib(), self.memory_growth_mib_max),
        ] {
            let Some(most) = most else { continue };
            match found {
                Some(found) if found <= most => {}
                Some(found) => faults.push(format!("{what}: {found:.1}, at most {most} was expected")),
                None => faults.push(format!("{what}: could not be read")),
            }
        }
        for (what, found, least) in [
            ("requests/s", Some(figures.requests_per_s), self.requests_per_s_min),
            ("goodput of the maximum", goodput, self.goodput_of_maximum_min),
            ("million samples per server CPU second", per_cpu, self.msamples_per_cpu_s_min),
        ] {
            let Some(least) = least else { continue };
            match found {
                Some(found) if found >= least => {}
                Some(found) => faults.push(format!("{what}: {found:.3}, at least {least} was expected")),
                None => faults.push(format!("{what}: could not be read")),
            }
        }
        faults
    }
}
