//! What is told at a start: what was laid where, and what to type next.

use super::Server;
use shard::topology::core_list;
use std::time::Duration;

impl Server {
    /// What was laid where, and what to type next.
    pub fn banner(&self, replay_time: Duration) -> String {
        let config = &self.shared.config;
        let series: u64 = self.shared.shards.iter().map(|shard| shard.store.series.get()).sum();
        let replayed: u64 = self.shared.shards.iter().map(|shard| shard.store.samples_replayed.get()).sum();
        let segments: u64 =
            self.shared.shards.iter().map(|shard| shard.store.segments.get()).max().unwrap_or(0);
        let held = match (self.is_new, segments) {
            (true, _) => "a new directory".to_owned(),
            (false, segments) => {
                let segments = format!("{segments} segment{}", if segments == 1 { "" } else { "s" });
                let loaded: u64 =
                    self.shared.shards.iter().map(|shard| shard.store.samples_loaded.get()).sum();
                let loaded = match loaded {
                    0 => String::new(),
                    loaded => format!("{loaded} samples in checkpoints, "),
                };
                format!(
                    "{series} series in memory, {segments}, {loaded}{replayed} samples replayed in {replay_time:.1?}"
                )
            }
        };
        let connections = self.connections_max();
        let cut = match config.http_connections_max {
            asked if asked > connections as usize => {
                format!(" (what the descriptor limit leaves of http.connections_max = {asked})")
            }
            _ => String::new(),
        };
        let busy_poll = match config.http_busy_poll {
            Duration::ZERO => String::new(),
            time => format!("; polls the network card for {time:?} before it sleeps"),
        };
        let url = format!("http://{}", self.address());
        let rules: Vec<String> = alert::default_rules()
            .iter()
            .map(|rule| {
                let condition = rule.condition();
                let seconds = rule.window_ms() / 1_000;
                format!(
                    "{} {} {} over {seconds}s",
                    rule.metric(),
                    condition.comparison.sign(),
                    condition.threshold
                )
            })
            .collect();
        format!(
            "ringwatch {} on {url}\n\
             \x20 shards   {} on cores {}; up to {connections} connections each{cut}{busy_poll}\n\
             \x20 memory   {} MiB budget\n\
             \x20 kernel   Linux {}: {}\n\
             \x20 data     {} (durability {}; {held})\n\
             \x20 alerts   {}\n\
             Endpoints: POST /metrics, POST /api/v1/write, POST /write, GET /query, GET /percentile, GET /alerts, GET /health, GET /metrics\n\
             Try:\n\
             \x20 curl -X POST {url}/metrics -d '{{\"name\":\"cpu_usage\",\"value\":85}}'\n\
             \x20 curl '{url}/query?name=cpu_usage'\n",
            env!("CARGO_PKG_VERSION"),
            self.cores.len(),
            core_list(&self.cores),
            self.shared.memory_bytes_max >> 20,
            self.kernel.release,
            self.kernel.features.join(", "),
            self.shared.data_dir.display(),
            config.ingest_durability.name(),
            rules.join("; "),
        )
    }
}
