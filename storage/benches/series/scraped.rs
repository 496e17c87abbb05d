//! The label sets that a scrape of a cluster brings: those of one target one behind the other.

use model::LabelSet;

/// Ten labels, the name among them, some of which tell series apart, and `more`.
pub(crate) fn labels(n: usize, more: &[(&str, &str)]) -> LabelSet {
    let pairs = [
        ("cluster", "production-eu-central-1".to_owned()),
        ("namespace", format!("team-{}", n / 5_000)),
        ("node", format!("ip-10-0-{}-{}", n / 50_000, n / 500 % 100)),
        ("pod", format!("checkout-service-7d9f8b{:04x}-x{:02}", n / 100, n / 50 % 97)),
        ("container", "checkout".to_owned()),
        ("instance", format!("10.0.{}.{}:9100", n / 50_000, n / 500 % 100)),
        ("job", "kubernetes-pods".to_owned()),
        ("endpoint", "metrics".to_owned()),
        ("le", format!("0.{:03}", n % 50)),
    ];
    let mut all: Vec<(&str, &str)> = pairs.iter().map(|(label, value)| (*label, value.as_str())).collect();
    all.extend_from_slice(more);
    LabelSet::new(&format!("http_request_duration_seconds_{}", n % 10), &all).expect("valid labels")
}
