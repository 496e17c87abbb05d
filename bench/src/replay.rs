//! `bench replay`: how fast a killed server has its samples back.
//!
//! A journal is filled with batches, the server is killed as `kill -9` does, and its start on the same folder is timed
//! until it says that it is ready, which is more than the replay itself. Nothing is flushed meanwhile, so all samples
//! come from the journal, and nothing is written afterwards, so each further round replays the same. The files are
//! still in the page cache: this is the cost of replay, not of the device.
//! With `--checkpoint` the kill waits until memory was written as it is: then the start loads that and replays the rest.
//! Always: each round counts what is stored; one sample more or less fails it.

use crate::check::{self, Check, Expected};
use crate::fetch;
use crate::figures::{Figures, median};
use crate::load::{self, Live};
use crate::measure::{Subjects, process};
use crate::metrics_page::MetricsPage;
use crate::peer::Peer;
use crate::plan::{BATCH_MAX, CONNECTIONS_MAX, Durability, LABELS_MAX, Offer, Plan, SERIES_MAX, Target};
use crate::progress::Progress;
use crate::request::Form;
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::trial::closed_loop;
use crate::{Verdict, record};
use clap::Args;
use serde::Serialize;
use shard::clock;
use std::error::Error;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ReplayArguments {
    /// Samples to be acknowledged before the kill, at least
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    samples: u64,
    /// Samples per second that are wanted, from the start of the process until it is ready
    #[arg(long, default_value_t = 2e6)]
    at_least: f64,
    /// Kills and starts; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Samples per request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    batch: u32,
    /// Connections that fill the journal
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Label sets per connection
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=SERIES_MAX as i64))]
    series: u32,
    /// Further labels of each series, by remote write; without, samples come as JSON
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=LABELS_MAX as i64))]
    labels: u32,
    /// Kill it only once its memory was checkpointed
    #[arg(long)]
    checkpoint: bool,
    /// Where its data goes while it runs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Replays {
    samples: u64,
    series: f64,
    journal_bytes: f64,
    /// Of all shards; none without `--checkpoint`.
    checkpoint_bytes: Option<f64>,
    checkpoint_seconds: Option<f64>,
    /// Resident just before the first kill.
    server_bytes_before: Option<u64>,
    fill: Figures,
    rounds: Vec<Round>,
    samples_per_s: Option<f64>,
}

/// One kill and start.
#[derive(Debug, Serialize)]
struct Round {
    /// From the start of the process until it was ready.
    ready_seconds: f64,
    /// Samples over that time.
    samples_per_s: f64,
    /// Processor time of all of its threads in that time.
    server_cpu_seconds: Option<f64>,
    /// From the start of the process until it had answered a query for one series.
    answered_seconds: f64,
    /// Resident once ready, and the most until then.
    server_bytes: Option<u64>,
    server_bytes_peak: Option<u64>,
    /// The server's own count and time, from its banner.
    said: Option<Said>,
    /// The server's own count, from `GET /metrics`.
    replayed: f64,
    /// The same of what a checkpoint held.
    loaded: f64,
    /// What a query counted.
    stored: u64,
}

/// `N samples replayed in T`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Said {
    samples: u64,
    seconds: f64,
}

/// More than any memtable of ten million samples needs, and no less than the machine has to spare for larger ones.
const MEMORY_BYTES_MIN: u64 = 4 << 30;
const MEMORY_BYTES_PER_SAMPLE: u64 = 128;

/// The slowest filling and the slowest replay that are waited for.
const FILL_SAMPLES_PER_S_MIN: u64 = 50_000;
const REPLAY_SAMPLES_PER_S_MIN: u64 = 100_000;
const PATIENCE_MIN: Duration = Duration::from_secs(30);

/// Of the server, and how long none may follow, and how long that may take.
const CHECKPOINT_INTERVAL: &str = "2s";
const CHECKPOINT_QUIET: Duration = Duration::from_secs(6);
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(120);

/// From readiness to the banner.
const BANNER_PATIENCE: Duration = Duration::from_secs(2);

/// Fills, kills and starts, and fails when a sample is missing or the median round is too slow.
pub(crate) fn run(arguments: ReplayArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let core = arguments.setup.generator_core();
    arguments.setup.cores_apart()?;
    let memory_bytes = MEMORY_BYTES_MIN.max(arguments.samples * MEMORY_BYTES_PER_SAMPLE);
    let checkpoint_interval = if arguments.checkpoint { CHECKPOINT_INTERVAL } else { "1d" };
    let settings = [
        "storage.flush_interval=1d".to_owned(),
        format!("storage.checkpoint_interval={checkpoint_interval}"),
        format!("memory_bytes_max={}MiB", memory_bytes >> 20),
    ];
    let sets = settings.into_iter().chain(arguments.sets.iter().cloned()).collect();
    let ours = arguments.setup.ours(Some(Durability::Written), Some(&arguments.data_parent), sets);
    let mut peer = ours.start()?;
    let plan = plan(&arguments, &peer, core);
    let begin_ms = clock::unix_millis();
    let outcome = load::run(&plan, live)?;
    let times = begin_ms..=clock::unix_millis();
    let fill = Figures::of(&plan, &outcome);
    let expected =
        Expected { acknowledged: outcome.acknowledged_samples, unanswered: outcome.unanswered_samples };
    if expected.acknowledged < arguments.samples {
        return Err(format!(
            "only {} samples were acknowledged in {:?}",
            expected.acknowledged, plan.duration
        )
        .into());
    }
    if arguments.checkpoint {
        wait_for_checkpoint(&peer, live)?;
    }
    let page = MetricsPage::fetch(peer.addr())?;
    check_unflushed(&page)?;
    check_checkpoints(&page, arguments.checkpoint)?;
    let server_bytes_before = process::resident_bytes(peer.pid());
    println!(
        "{} samples of {} series acknowledged in requests of {}, {} a second, {} journal bytes a sample",
        thousands(expected.acknowledged as f64),
        page.total("store_series").map_or_else(|| "?".to_owned(), thousands),
        arguments.batch,
        thousands(fill.samples_per_s),
        figure(page.total("journal_bytes_total").map(|bytes| bytes / expected.acknowledged as f64), 1),
    );

    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        if live.stop.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
        eprintln!("round {round}: killed, starting again");
        peer.kill()?;
        peer.wait_until_port_is_free()?;
        peer.start_again(patience(arguments.samples, REPLAY_SAMPLES_PER_S_MIN))?;
        rounds.push(measure(&peer, &plan, times.clone(), expected)?);
    }
    let replays = Replays {
        samples: expected.acknowledged,
        series: page.total("store_series").unwrap_or_default(),
        journal_bytes: page.total("journal_bytes_total").unwrap_or_default(),
        checkpoint_bytes: page.total("checkpoint_bytes").filter(|bytes| *bytes > 0.0),
        checkpoint_seconds: page.total("checkpoint_duration_seconds").filter(|seconds| *seconds > 0.0),
        server_bytes_before,
        fill,
        samples_per_s: median(rounds.iter().map(|round| round.samples_per_s)),
        rounds,
    };
    print!("{}", table(&replays));
    if let Some(file) = &arguments.setup.json {
        record::append(file, &replays)?;
    }
    let is_too_slow = replays.samples_per_s.is_none_or(|rate| rate < arguments.at_least);
    let verdict = if is_too_slow { "FAILED: less than" } else { "at least" };
    println!("every round stored exactly what was acknowledged");
    println!("{verdict} {} samples/s from process start to ready", thousands(arguments.at_least));
    Ok(Verdict::from_failed(is_too_slow))
}

fn plan(arguments: &ReplayArguments, peer: &Peer, core: Option<usize>) -> Plan {
    let subjects = Subjects {
        pids: vec![peer.pid()],
        server_cores: vec![arguments.setup.server_core().0],
        generator_core: core,
    };
    let loop_of = closed_loop(peer.addr(), arguments.connections, subjects.complete(peer.addr()));
    let (form, path) = match arguments.labels {
        0 => (Form::Json, loop_of.target.path.clone()),
        _ => (Form::RemoteWrite, Form::RemoteWrite.path().to_owned()),
    };
    Plan {
        form,
        target: Target { path, ..loop_of.target.clone() },
        labels: arguments.labels,
        offer: Offer::Accepted { requests: arguments.samples.div_ceil(u64::from(arguments.batch)) },
        warmup: Duration::ZERO,
        duration: patience(arguments.samples, FILL_SAMPLES_PER_S_MIN),
        batch: arguments.batch,
        series: arguments.series,
        progress: Progress::here(false),
        ..loop_of
    }
}

/// Returns when everything that was sent is in a checkpoint, or two have been written since.
fn wait_for_checkpoint(peer: &Peer, live: &Live) -> Result<(), Box<dyn Error>> {
    let written = || -> Result<f64, Box<dyn Error>> {
        let page = MetricsPage::fetch(peer.addr())?;
        page.total("checkpoint_writes_total").ok_or_else(|| "GET /metrics does not count checkpoints".into())
    };
    let deadline = Instant::now() + CHECKPOINT_PATIENCE;
    let mut before = written()?;
    loop {
        // Longer than the interval: what came before the last one is in it, once none follows.
        thread::sleep(CHECKPOINT_QUIET);
        let now = written()?;
        if now > 0.0 && now == before {
            return Ok(());
        }
        if Instant::now() > deadline || live.stop.load(Ordering::Relaxed) {
            return Err("no checkpoint was written in time".into());
        }
        before = now;
    }
}

/// A checkpoint takes samples out of the journal's way, and without one there is nothing to load.
fn check_checkpoints(page: &MetricsPage, are_wanted: bool) -> Result<(), Box<dyn Error>> {
    match page.total("checkpoint_writes_total") {
        Some(written) if (written > 0.0) == are_wanted => Ok(()),
        Some(_) if are_wanted => Err("the server wrote no checkpoint".into()),
        Some(_) => Err("the server wrote a checkpoint: offer fewer samples, or ask for --checkpoint".into()),
        None => Err("GET /metrics does not count checkpoints".into()),
    }
}

fn patience(samples: u64, samples_per_s_min: u64) -> Duration {
    PATIENCE_MIN + Duration::from_secs(samples / samples_per_s_min)
}

/// A flush takes samples out of the journal's way, and then replay would be measured on fewer than were sent.
fn check_unflushed(page: &MetricsPage) -> Result<(), Box<dyn Error>> {
    match page.total("store_flushes_total") {
        Some(0.0) => Ok(()),
        Some(_) => Err("the server flushed: give it more by --set memory_bytes_max=…".into()),
        None => Err("GET /metrics does not say how often the server flushed".into()),
    }
}

/// Reads what the start cost, and whether all is there.
fn measure(
    peer: &Peer,
    plan: &Plan,
    times: RangeInclusive<i64>,
    expected: Expected,
) -> Result<Round, Box<dyn Error>> {
    // First, before questions cost time of their own.
    let server_cpu_ns = process::cpu_ns(peer.pid());
    let ready_seconds = peer.startup().took.as_secs_f64();
    let one =
        format!("/query?name={}&match=%7Bconnection%3D%22000000%22,series%3D%22000000%22%7D", plan.metric);
    let (status, _) = fetch::get(peer.addr(), &one)?;
    if status != 200 {
        return Err(format!("the first query was answered {status}").into());
    }
    let answered_seconds = peer.startup().begun_at.elapsed().as_secs_f64();
    let (server_bytes, server_bytes_peak) =
        (process::resident_bytes(peer.pid()), process::resident_bytes_peak(peer.pid()));
    let page = MetricsPage::fetch(peer.addr())?;
    check_unflushed(&page)?;
    let replayed =
        page.total("store_samples_replayed_total").ok_or("GET /metrics does not say what was replayed")?;
    let loaded = page.total("store_samples_loaded").unwrap_or_default();
    let stored = check::check(Check::Stored, peer.addr(), &plan.metric, times, expected)?;
    // What came while a checkpoint was written is in it and replayed too.
    let is_all = if loaded > 0.0 { replayed + loaded >= stored as f64 } else { replayed == stored as f64 };
    if !is_all {
        return Err(
            format!("{stored} samples are stored, {loaded} were loaded and {replayed} replayed").into()
        );
    }
    Ok(Round {
        ready_seconds,
        samples_per_s: stored as f64 / ready_seconds,
        server_cpu_seconds: server_cpu_ns.map(|ns| ns as f64 / 1e9),
        answered_seconds,
        server_bytes,
        server_bytes_peak,
        loaded,
        said: wait_for_banner(peer),
        replayed,
        stored,
    })
}

/// The banner comes a moment after readiness.
fn wait_for_banner(peer: &Peer) -> Option<Said> {
    let deadline = Instant::now() + BANNER_PATIENCE;
    loop {
        let said = said(&fs::read_to_string(peer.log()).unwrap_or_default());
        if said.is_some() || Instant::now() > deadline {
            return said;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The figure in `… series, 1000 samples replayed in 221.4ms)`.
fn said(banner: &str) -> Option<Said> {
    let (before, after) = banner.split_once(" samples replayed in ")?;
    let samples = before.rsplit(' ').next()?.parse().ok()?;
    let time = after.split(')').next()?;
    let digits = time.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let unit = match &time[digits..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(Said { samples, seconds: time[..digits].parse::<f64>().ok()? * unit })
}

fn mebibytes(bytes: Option<u64>) -> String {
    figure(bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), 0)
}

fn table(replays: &Replays) -> Table {
    let mut table = Table::new(&[
        "round",
        "ready after s",
        "answered after s",
        "samples/s",
        "CPU s",
        "samples/CPU s",
        "server says s",
        "samples/s by that",
        "resident MiB",
        "at most MiB",
        "before MiB",
    ]);
    for (round, nth) in replays.rounds.iter().zip(1..) {
        let rate = |seconds: Option<f64>| {
            seconds.map_or_else(|| "-".to_owned(), |seconds| thousands(round.stored as f64 / seconds))
        };
        let said = round.said.map(|said| said.seconds);
        table.row(vec![
            format!("{nth}"),
            figure(Some(round.ready_seconds), 3),
            figure(Some(round.answered_seconds), 3),
            thousands(round.samples_per_s),
            figure(round.server_cpu_seconds, 3),
            rate(round.server_cpu_seconds),
            figure(said, 3),
            rate(said),
            mebibytes(round.server_bytes),
            mebibytes(round.server_bytes_peak),
            mebibytes(replays.server_bytes_before),
        ]);
    }
    table.row(vec![
        "median".to_owned(),
        String::new(),
        String::new(),
        replays.samples_per_s.map_or_else(String::new, thousands),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_how_many_samples_took_how_long() {
        for (time, seconds) in [("4.2s", 4.2), ("221.4ms", 0.2214), ("35.0µs", 35e-6)] {
            let banner = format!(
                "  data     data (durability written; 8 series, 10000000 samples replayed in {time})\n"
            );
            let found = said(&banner).unwrap();
            assert_eq!(found.samples, 10_000_000);
            assert!((found.seconds - seconds).abs() < 1e-9, "{found:?} for {time}");
        }
    }

    #[test]
    fn what_is_no_banner_says_nothing() {
        for text in
            ["", "x samples replayed in 4s)", "5 samples replayed in long)", "5 samples replayed in 4 s)"]
        {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
