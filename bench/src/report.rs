//! One run's figures as a person reads them, and the warnings without which they would mislead.

use crate::figures::{BUSY, Figures, Quantiles};
use crate::plan::Plan;
use crate::table::{Table, figure, percent, thousands};

/// Everything worth saying about a run, the warnings apart.
pub(crate) fn text(plan: &Plan, figures: &Figures) -> String {
    let mut table = Table::new(&["", ""]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    row("requests/s", thousands(figures.requests_per_s));
    row("samples/s", thousands(figures.samples_per_s));
    for (name, quantiles) in [
        ("latency", figures.latency_us),
        ("latency from sending", figures.from_sending_us),
        ("generator's lateness", figures.lateness_us),
    ] {
        if let Some(Quantiles { p50, p99, p99_9, max }) = quantiles {
            row(&format!("{name} p50, µs"), figure(Some(p50), 0));
            row(&format!("{name} p99, µs"), figure(Some(p99), 0));
            row(&format!("{name} p99.9, µs"), figure(Some(p99_9), 0));
            row(&format!("{name} max, µs"), figure(Some(max), 0));
        }
    }
    for (status, count) in &figures.statuses {
        row(&format!("answers {status}"), thousands(*count as f64));
    }
    if let Some(patience) = plan.patience {
        let what = format!("arrivals given up after {} ms", patience.as_millis());
        row(&what, thousands(figures.arrivals_given_up as f64));
    }
    row("durability", figures.durability.unwrap_or("-").to_owned());
    row("server CPU, µs/request", figure(figures.server_cpu_us_per_request, 3));
    row("server's cores busy", percent(figures.server_busy));
    row("server's context switches/request", figure(figures.server_switches_per_request, 3));
    let mib = |bytes: Option<u64>| figure(bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), 1);
    row("server memory before connections, MiB", mib(figures.server_bytes_before));
    row("server memory with idle connections, MiB", mib(figures.server_bytes_idle));
    row("server memory per idle connection, B", figure(figures.bytes_per_connection(plan.connections), 0));
    row("server memory after, MiB", mib(figures.server_bytes_after));
    row("generator CPU, µs/request", figure(Some(figures.generator_cpu_us_per_request), 3));
    row("generator's core busy", percent(figures.generator_busy));
    table.to_string().trim_start_matches('\n').to_owned()
}

/// What the reader must know before believing the figures.
pub(crate) fn warnings(figures: &Figures) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |holds: bool, text: String| {
        if holds {
            warnings.push(text);
        }
    };
    warn(
        figures.generator_was_the_limit,
        format!(
            "the generator was the limit: its core was at least {} % busy, the server's was not",
            BUSY * 100.0
        ),
    );
    warn(
        figures.arrivals_unsent > 0,
        format!(
            "{} arrivals found no free connection and were not sent: the offered rate was not reached",
            figures.arrivals_unsent
        ),
    );
    warn(figures.connections_lost > 0, format!("{} connections were lost", figures.connections_lost));
    warn(figures.connects_failed > 0, format!("{} connects failed", figures.connects_failed));
    warn(
        figures.unanswered_samples > 0,
        format!("{} samples were sent and never answered", figures.unanswered_samples),
    );
    warn(
        figures.levels_missed > 0,
        format!("{} answers missed the durability asked for", figures.levels_missed),
    );
    let others: u64 =
        figures.statuses.iter().filter(|(status, _)| !is_expected(**status)).map(|(_, n)| n).sum();
    warn(others > 0, format!("{others} answers had an unexpected status"));
    warnings
}

/// Accepted, or refused in a way that the load obeys.
fn is_expected(status: u16) -> bool {
    matches!(status, 200..=299 | 429 | 503 | 507)
}

/// Whether so many arrivals were not sent that the figures are those of another, lower rate: 0.1 % and more.
pub(crate) fn is_rate_missed(figures: &Figures) -> bool {
    is_missed(figures.arrivals_unsent, figures.statuses.values().sum())
}

fn is_missed(unsent: u64, answered: u64) -> bool {
    unsent > 0 && unsent.saturating_mul(1_000) >= unsent.saturating_add(answered)
}

/// Whether the run as such failed, whatever its figures.
pub(crate) fn is_failure(figures: &Figures) -> bool {
    let accepted = figures.statuses.iter().any(|(status, count)| (200..300).contains(status) && *count > 0);
    is_rate_missed(figures)
        || figures.levels_missed > 0
        || !accepted
        || figures.statuses.keys().any(|status| !is_expected(*status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_arrival_in_a_thousand_that_was_not_sent_is_one_too_many() {
        for (unsent, answered, expected) in [
            (0, 0, false),
            (0, 1_000, false),
            (1, 1_000, false),
            (1, 999, true),
            (5, 0, true),
            (u64::MAX, 1, true),
        ] {
            assert_eq!(is_missed(unsent, answered), expected, "{unsent} of {answered}");
        }
    }
}
