//! The server's own metrics, as `GET /metrics` shows them.
//!
//! Always: a metric that is not on the page is absent, never 0.

use crate::fetch::{self, FetchError};
use std::net::SocketAddr;

/// What every name begins with.
const PREFIX: &str = "ringwatch_";

/// One reading of all of them.
#[derive(Clone, Debug)]
pub(crate) struct MetricsPage {
    text: String,
}

impl MetricsPage {
    /// Asks the server.
    pub(crate) fn fetch(addr: SocketAddr) -> Result<MetricsPage, FetchError> {
        let (_, body) = fetch::get(addr, "/metrics")?;
        Ok(MetricsPage { text: String::from_utf8_lossy(&body).into_owned() })
    }

    /// The sum over shards of one metric, named without the prefix.
    pub(crate) fn total(&self, name: &str) -> Option<f64> {
        let values = self.text.lines().filter_map(|line| {
            let rest = line.strip_prefix(PREFIX)?.strip_prefix(name)?;
            let value = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
            value.strip_prefix(' ')?.parse().ok()
        });
        values.reduce(|sum: f64, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_add_up_over_shards_and_names_are_whole() {
        let text = "# HELP ringwatch_loop_enters_total x\nringwatch_loop_enters_total{shard=\"0\"} 5\n\
            ringwatch_loop_enters_total{shard=\"1\"} 7\nringwatch_loop_enters_total_other 100\nringwatch_queue 3\n";
        let page = MetricsPage { text: text.to_owned() };
        assert_eq!(page.total("loop_enters_total"), Some(12.0));
        assert_eq!(page.total("queue"), Some(3.0));
        assert_eq!(page.total("journal_writes_total"), None);
    }
}
