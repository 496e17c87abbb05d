//! `bench churn`: what a server takes, and what memory it needs, while series come and go.
//!
//! ```text
//! steady   all series are there from the first to the last request
//! churn    with each pace a tenth of them, the oldest, is replaced by new ones
//! ```
//!
//! Each has a server of its own, and the same load: saturated, or on a clock. A pace stands for a minute: `--pace 10s`
//! goes six times as fast as what is asked for, and shortens what the server does by the clock as much; that is harder,
//! for a series takes as much work to come and to go, and lives for a sixth of the samples.
//! Always: what the server counts is what was acknowledged, and none of it came twice; what a query counts of the first
//! connection's series, those that have gone too, is what was acknowledged of them.
//! Not here: the store alone (`cargo bench -p storage --bench churn`); connections that come and go (`scenarios/churn.toml`).

use crate::check::{self, Expected};
use crate::figures::Figures;
use crate::load::{self, Live};
use crate::measure::{Subjects, process};
use crate::metrics_page::MetricsPage;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, LABELS_MAX, Offer, Plan, RATE_MAX, SERIES_MAX, Target,
    parse_duration,
};
use crate::progress::Progress;
use crate::request::{Form, series_met};
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::trial::closed_loop;
use crate::{Verdict, record, report};
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ChurnArguments {
    /// Series that are active
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    series: u32,
    /// What stands for a minute
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pace: Duration,
    /// So many of them, in each of which a tenth of the series is replaced
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    minutes: u32,
    /// Requests a second on a clock, in place of saturated connections
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Samples per request, of as many series
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    batch: u32,
    /// Connections that write
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Labels of each series beside three
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=LABELS_MAX as i64))]
    labels: u32,
    /// Load before the window, in which all series are met
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    warmup: Duration,
    /// Samples while series come and go over those while they stay, of each second of the server's processor time, at least
    #[arg(long, default_value_t = 0.8)]
    ingest_at_least: f64,
    /// The most memory that was resident over that while they stay, at most
    #[arg(long, default_value_t = 1.5)]
    memory_at_most: f64,
    /// Where data goes while it runs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    /// Further settings for the server
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Churn {
    series: u32,
    pace_s: f64,
    minutes: u32,
    sides: Vec<Side>,
    /// Churn over steady.
    memory_ratio: Option<f64>,
    samples_per_cpu_s_ratio: Option<f64>,
    samples_per_s_ratio: f64,
}

/// One server.
#[derive(Debug, Serialize)]
struct Side {
    name: &'static str,
    figures: Figures,
    samples_per_cpu_s: Option<f64>,
    /// The most that was resident.
    server_bytes_peak: Option<u64>,
    /// At the end: in its table, and on the disk.
    series_in_memory: f64,
    segments: f64,
    flushes: f64,
    flushed_bytes: f64,
    merges: f64,
    checkpoints: f64,
}

/// As the server's own: what stands for a minute is shorter here, and so is all that it does by the clock.
const SERIES_STOP_AFTER_S: f64 = 120.0;
const CHECKPOINT_INTERVAL_S: f64 = 300.0;
const FLUSH_INTERVAL_S: f64 = 7_200.0;

/// Runs both, and fails when series that come and go cost more than they may.
pub(crate) fn run(arguments: &ChurnArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    arguments.setup.cores_apart()?;
    let turnovers = (arguments.warmup.as_secs_f64() / arguments.pace.as_secs_f64()).ceil() as u64
        + u64::from(arguments.minutes);
    let per_connection = arguments.series.div_ceil(arguments.connections);
    if series_met(u64::from(per_connection), turnovers) > u64::from(SERIES_MAX) {
        return Err("too many series for the connections: name more --connections, or fewer --minutes".into());
    }
    let mut sides = Vec::new();
    for (name, every) in [("steady", None), ("churn", Some(arguments.pace))] {
        eprintln!("{name}");
        sides.push(side(arguments, name, every, live)?);
    }
    let of = |of: fn(&Side) -> Option<f64>| Some(of(&sides[1])? / of(&sides[0])?);
    let churn = Churn {
        series: arguments.series,
        pace_s: arguments.pace.as_secs_f64(),
        minutes: arguments.minutes,
        memory_ratio: of(|side| side.server_bytes_peak.map(|bytes| bytes as f64)),
        samples_per_cpu_s_ratio: of(|side| side.samples_per_cpu_s),
        samples_per_s_ratio: sides[1].figures.samples_per_s / sides[0].figures.samples_per_s,
        sides,
    };
    print!("{}", table(&churn.sides));
    println!(
        "churn over steady: memory {}, samples per CPU second {}, per second {:.2}",
        figure(churn.memory_ratio, 2),
        figure(churn.samples_per_cpu_s_ratio, 2),
        churn.samples_per_s_ratio,
    );
    if let Some(file) = &arguments.setup.json {
        record::append(file, &churn)?;
    }
    let is_missed = churn.sides.iter().any(|side| report::is_failure(&side.figures));
    if is_missed {
        println!("FAILED: a load was not offered, or not answered, as it should be");
    }
    let is_slow = churn.samples_per_cpu_s_ratio.is_none_or(|ratio| ratio < arguments.ingest_at_least);
    let is_large = churn.memory_ratio.is_none_or(|ratio| ratio > arguments.memory_at_most);
    for (is_failed, bound) in [
        (is_slow, format!("ingest at least {}", arguments.ingest_at_least)),
        (is_large, format!("memory at most {}", arguments.memory_at_most)),
    ] {
        println!("{}{bound} times", if is_failed { "FAILED: " } else { "" });
    }
    Ok(Verdict::from_failed(is_missed || is_slow || is_large))
}

fn side(
    arguments: &ChurnArguments,
    name: &'static str,
    every: Option<Duration>,
    live: &Live,
) -> Result<Side, Box<dyn Error>> {
    let shortened = arguments.pace.as_secs_f64() / 60.0;
    let setting = |key: &str, seconds: f64| format!("{key}={}ms", (seconds * shortened * 1e3) as u64);
    let mut sets = vec![
        setting("storage.series_stop_after", SERIES_STOP_AFTER_S),
        setting("storage.checkpoint_interval", CHECKPOINT_INTERVAL_S),
        setting("storage.flush_interval", FLUSH_INTERVAL_S),
        "query.memory_bytes_max=4GiB".to_owned(),
    ];
    sets.extend(arguments.sets.iter().cloned());
    let ours = arguments.setup.ours(Some(Durability::Written), Some(&arguments.data_parent), sets);
    let peer = ours.start()?;
    let subjects = Subjects {
        pids: vec![peer.pid()],
        server_cores: vec![arguments.setup.server_core().0],
        generator_core: arguments.setup.generator_core(),
    };
    let plan =
        Plan { tenth_replaced_every: every, ..plan(arguments, peer.addr(), subjects.complete(peer.addr())) };
    let begin_ms = shard::clock::unix_millis();
    let outcome = load::run(&plan, live)?;
    let server_bytes_peak = process::resident_bytes_peak(peer.pid());
    let page = applied(&peer.addr(), &outcome)?;
    let expected =
        Expected { acknowledged: outcome.first_acknowledged_samples, unanswered: outcome.unanswered_samples };
    check::check_first(peer.addr(), &plan.metric, begin_ms..=shard::clock::unix_millis(), expected)?;
    let value = |name: &str| page.total(name).unwrap_or_default();
    let figures = Figures::of(&plan, &outcome);
    Ok(Side {
        name,
        samples_per_cpu_s: figures.samples_per_cpu_s(),
        figures,
        server_bytes_peak,
        series_in_memory: value("store_series"),
        segments: value("store_segments"),
        flushes: value("store_flushes_total"),
        flushed_bytes: value("store_flushed_bytes_total"),
        merges: value("store_merges_total"),
        checkpoints: value("checkpoint_writes_total"),
    })
}

fn plan(arguments: &ChurnArguments, addr: SocketAddr, subjects: Subjects) -> Plan {
    Plan {
        target: Target { addr, path: Form::RemoteWrite.path().to_owned() },
        offer: arguments.rate.map_or(Offer::Closed, Offer::evenly),
        warmup: arguments.warmup,
        duration: arguments.pace * arguments.minutes,
        form: Form::RemoteWrite,
        batch: arguments.batch,
        series: arguments.series.div_ceil(arguments.connections),
        labels: arguments.labels,
        durability: Some(Durability::Written),
        progress: Progress::here(false),
        ..closed_loop(addr, arguments.connections, subjects)
    }
}

/// How long executors may take to catch up with what was acknowledged.
const APPLY_PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// The server's page, once it has stored what it acknowledged and nothing else by its own count: a query for a thousand
/// million samples would take longer than the load.
fn applied(addr: &SocketAddr, outcome: &load::Outcome) -> Result<MetricsPage, Box<dyn Error>> {
    let deadline = Instant::now() + APPLY_PATIENCE;
    loop {
        let page = MetricsPage::fetch(*addr)?;
        let value = |name: &str| page.total(name).map(|count| count as u64).ok_or(format!("no {name}"));
        let applied = value("store_samples_applied_total")?;
        let again = value("store_samples_repeated_total")? + value("store_samples_replaced_total")?;
        let unknown = value("store_samples_unknown_total")?;
        if unknown > 0 {
            return Err(format!("{unknown} samples came under numbers that no series has").into());
        }
        let most = outcome.acknowledged_samples + outcome.unanswered_samples;
        if (outcome.acknowledged_samples..=most).contains(&applied) && again == 0 {
            return Ok(page);
        }
        if Instant::now() > deadline {
            let acknowledged = outcome.acknowledged_samples;
            return Err(
                format!("{acknowledged} acknowledged, {applied} stored, {again} of them twice").into()
            );
        }
        thread::sleep(LOOK);
    }
}

fn table(sides: &[Side]) -> Table {
    let mut table = Table::new(&[
        "",
        "samples/s",
        "per CPU s",
        "busy",
        "peak MiB",
        "series",
        "segments",
        "flushes",
        "merges",
        "checkpoints",
    ]);
    for side in sides {
        table.row(vec![
            side.name.to_owned(),
            thousands(side.figures.samples_per_s),
            side.samples_per_cpu_s.map_or_else(|| "?".to_owned(), thousands),
            figure(side.figures.server_busy, 2),
            figure(side.server_bytes_peak.map(|bytes| bytes as f64 / f64::from(1 << 20)), 0),
            thousands(side.series_in_memory),
            thousands(side.segments),
            thousands(side.flushes),
            thousands(side.merges),
            thousands(side.checkpoints),
        ]);
    }
    table
}
