//! The lines that the console tells.

use crate::{Event, WindowRule};

impl Event {
    /// The line for the console, without a line end.
    pub fn console_line(&self, rule: &WindowRule) -> String {
        let metric = rule.metric();
        match self {
            Event::Firing { average, samples } => {
                let window = seconds(rule.window_ms());
                let sign = rule.condition().comparison.sign();
                let threshold = rule.condition().threshold;
                let condition = format!("{metric} avg({window}) {sign} {threshold:?}");
                let current = told(*average, rule);
                format!("🚨 [ALERT] {condition} (current: {current}) samples={samples}")
            }
            Event::Resolved { average: Some(average) } => {
                format!("✅ [ALERT RESOLVED] {metric} returned to normal (avg: {})", told(*average, rule))
            }
            Event::Resolved { average: None } => {
                let stale = minutes(rule.stale_after_ms());
                format!("✅ [ALERT RESOLVED] {metric} returned to normal (no samples for {stale})")
            }
        }
    }
}

/// One decimal, or as many as it takes to stay on the same side of the threshold: 80.04 is told as 80.04
/// and not as "80.0 > 80.0". Shortest form for numbers whose decimals would not fit a line.
fn told(average: f64, rule: &WindowRule) -> String {
    const PLAIN: std::ops::Range<f64> = 1e-6..1e15;
    if average != 0.0 && !PLAIN.contains(&average.abs()) {
        return format!("{average:?}");
    }
    let holds = rule.condition().holds(average);
    let agrees = |text: &String| text.parse().is_ok_and(|read| rule.condition().holds(read) == holds);
    (1..17)
        .map(|decimals| format!("{average:.decimals$}"))
        .find(agrees)
        .unwrap_or_else(|| format!("{average:?}"))
}

fn seconds(ms: i64) -> String {
    format!("{}s", ms as f64 / 1_000.0)
}

fn minutes(ms: i64) -> String {
    if ms % 60_000 == 0 { format!("{}m", ms / 60_000) } else { seconds(ms) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Comparison, Condition, default_rules};

    fn firing(rule: &WindowRule, average: f64) -> String {
        Event::Firing { average, samples: 10 }.console_line(rule)
    }

    #[test]
    fn the_lines_of_the_contract() {
        let [cpu, _, errors] = default_rules();
        assert_eq!(firing(&cpu, 85.0), "🚨 [ALERT] cpu_usage avg(60s) > 80.0 (current: 85.0) samples=10");
        assert_eq!(firing(&errors, 7.25), "🚨 [ALERT] error_rate avg(30s) > 5.0 (current: 7.2) samples=10");
        assert_eq!(
            Event::Resolved { average: Some(75.0) }.console_line(&cpu),
            "✅ [ALERT RESOLVED] cpu_usage returned to normal (avg: 75.0)"
        );
        let stale = Event::Resolved { average: None };
        assert_eq!(
            stale.console_line(&cpu),
            "✅ [ALERT RESOLVED] cpu_usage returned to normal (no samples for 5m)"
        );
        assert!(
            stale.console_line(&cpu.with_stale_after_ms(1_500).unwrap()).ends_with("(no samples for 1.5s)")
        );
    }

    #[test]
    fn a_line_never_contradicts_itself() {
        let [cpu, ..] = default_rules();
        assert!(firing(&cpu, 80.04).contains("(current: 80.04)"));
        assert!(firing(&cpu, 80.0f64.next_up()).contains("(current: 80.00000000000001)"));
        assert!(firing(&cpu, 1e300).contains("(current: 1e300)"));
        assert!(firing(&cpu, f64::INFINITY).contains("(current: inf)"));
        let low = Condition { comparison: Comparison::LessOrEqual, threshold: 0.0002 };
        let low = WindowRule::new("low", "battery level", 1_500, low).unwrap();
        assert_eq!(
            firing(&low, 0.0),
            "🚨 [ALERT] battery level avg(1.5s) <= 0.0002 (current: 0.0) samples=10"
        );
        assert!(
            Event::Resolved { average: Some(0.00031) }.console_line(&low).ends_with("(avg: 0.0003)"),
            "0.0, 0.00 and 0.000 would still be below the threshold"
        );
    }
}
