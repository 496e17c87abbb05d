//! Other servers that store a metric from one HTTP request, as Debian ships them: VictoriaMetrics and Prometheus.
//!
//! They run with their defaults, save what a comparison needs: one core, a folder and a port of their own, and answers
//! to a query that show the newest samples.

use super::{Peer, PeerError, Start, find, folder, free_addr};
use shard::topology::CoreId;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

const VICTORIA_METRICS: &str = "victoria-metrics";

const PROMETHEUS: &str = "prometheus";

const NODE_EXPORTER: &str = "prometheus-node-exporter";

/// Descriptors of VictoriaMetrics' pending samples become visible with this path; else within seconds.
pub(crate) const VICTORIA_METRICS_FLUSH: &str = "/internal/force_flush";

fn missing(name: &'static str) -> PeerError {
    PeerError::Missing {
        name,
        hint: format!("install Debian's {name} (`make bench-needs` does), or leave it out of --with"),
    }
}

/// Starts VictoriaMetrics on a core and waits until it answers.
pub(crate) fn start_victoria_metrics(core: CoreId) -> Result<Peer, PeerError> {
    let name = VICTORIA_METRICS;
    let io = |source| PeerError::Io { name, source };
    let mut command = Command::new(find(name).ok_or_else(|| missing(name))?);
    let folder = folder(None).map_err(io)?;
    let addr = free_addr().map_err(io)?;
    command.arg(format!("-storageDataPath={}", folder.path().join("data").display()));
    command.arg(format!("-httpListenAddr={addr}")).arg("-search.latencyOffset=0s");
    Peer::start(Start { name, command, stop: None, addr, ready: "/health", core: Some(core) }, folder)
}

/// Starts Prometheus with its receiver of remote writes on a core, scraping nothing, and waits until it answers.
pub(crate) fn start_prometheus(core: CoreId) -> Result<Peer, PeerError> {
    let name = PROMETHEUS;
    let io = |source| PeerError::Io { name, source };
    let mut command = Command::new(find(name).ok_or_else(|| missing(name))?);
    let folder = folder(None).map_err(io)?;
    let addr = free_addr().map_err(io)?;
    let config = folder.path().join("prometheus.yml");
    fs::write(&config, "global: {}\n").map_err(io)?;
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={addr}")).arg("--web.enable-remote-write-receiver");
    // Its own bound on connections is 512.
    command.arg("--web.max-connections=65536");
    Peer::start(Start { name, command, stop: None, addr, ready: "/-/ready", core: Some(core) }, folder)
}

/// Starts a node_exporter, which shows this machine's own state, and waits until it answers.
pub(crate) fn start_node_exporter() -> Result<Peer, PeerError> {
    let name = NODE_EXPORTER;
    let io = |source| PeerError::Io { name, source };
    let mut command = Command::new(find(name).ok_or_else(|| missing(name))?);
    let folder = folder(None).map_err(io)?;
    let addr = free_addr().map_err(io)?;
    command.arg(format!("--web.listen-address={addr}"));
    Peer::start(Start { name, command, stop: None, addr, ready: "/", core: None }, folder)
}

/// Starts a Prometheus that scrapes itself and an exporter once a second and sends on to a receiver of remote writes,
/// and waits until it answers.
pub(crate) fn start_scraping_prometheus(
    exporter: SocketAddr,
    receiver: SocketAddr,
) -> Result<Peer, PeerError> {
    let name = PROMETHEUS;
    let io = |source| PeerError::Io { name, source };
    let mut command = Command::new(find(name).ok_or_else(|| missing(name))?);
    let folder = folder(None).map_err(io)?;
    let addr = free_addr().map_err(io)?;
    let config = folder.path().join("prometheus.yml");
    let job = |job: &str, target: SocketAddr| {
        format!("  - job_name: {job}\n    static_configs: [{{targets: ['{target}']}}]\n")
    };
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n{}{}remote_write:\n  - url: http://{receiver}/api/v1/write\n",
        job("node", exporter),
        job("prometheus", addr),
    );
    fs::write(&config, text).map_err(io)?;
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={addr}")).arg("--web.enable-admin-api");
    Peer::start(Start { name, command, stop: None, addr, ready: "/-/ready", core: None }, folder)
}
