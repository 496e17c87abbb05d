//! `bench run`: one load against a server that is already there.

use crate::load::Live;
use crate::measure::Subjects;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, Offer, Plan, RATE_MAX, SERIES_MAX, Target, parse_duration,
};
use crate::setup::default_core;
use crate::trial::{self, Check, TrialError, metric_name};
use crate::{Verdict, record, report};
use clap::Args;
use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// http://HOST:PORT/PATH or HOST:PORT
    #[arg(value_name = "URL")]
    target: String,
    /// Requests a second, on a clock; latency counts from the intended moment
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// One request in flight per connection, the next when it is answered
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Connections, all open before the load begins
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Length of the measured window
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Samples per request; 1 is sent as a single metric
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    batch: u32,
    /// Where to post to, in place of the URL's path
    #[arg(long)]
    path: Option<String>,
    /// Level to ask for
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// Label sets per connection; 0 for one series without labels
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=SERIES_MAX as i64))]
    series: u32,
    /// Core for the generator (default: the last one allowed)
    #[arg(long)]
    core: Option<usize>,
    /// The server's process, with its children; may be repeated (default: whoever listens on the port)
    #[arg(long)]
    pid: Vec<u32>,
    /// The server's core; may be repeated (default: those that its threads are pinned to)
    #[arg(long)]
    server_core: Vec<usize>,
    /// Do not ask the server what it stored: for servers that are no ringwatch
    #[arg(long)]
    no_check: bool,
    /// Append figures, machine, date, commit and command as one line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A line each second, even when nobody watches
    #[arg(long)]
    progress: bool,
}

/// Runs it and prints the table.
pub(crate) fn run(arguments: RunArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let mut target = Target::parse(&arguments.target)?;
    if let Some(path) = arguments.path {
        target.path = Target::parse(&format!("{}/{}", target.addr, path.trim_start_matches('/')))?.path;
    }
    let core = arguments.core.or_else(default_core);
    let subjects =
        Subjects { pids: arguments.pid, server_cores: arguments.server_core, generator_core: core };
    let subjects = subjects.complete(target.addr);
    if subjects.share_a_core() {
        eprintln!("warning: generator and server share core {}: choose another --core", core.unwrap_or(0));
    }
    let plan = Plan {
        target,
        offer: if arguments.closed { Offer::Closed } else { Offer::Open { requests_per_s: arguments.rate } },
        connections: arguments.connections,
        warmup: arguments.warmup,
        duration: arguments.duration,
        idle: Duration::from_millis(300),
        batch: arguments.batch,
        series: arguments.series,
        durability: arguments.durability,
        metric: metric_name(),
        subjects,
        progress: arguments.progress || std::io::stderr().is_terminal(),
    };
    let check = if arguments.no_check { Check::Nothing } else { Check::Stored };
    let (figures, check_failed) = match trial::run(&plan, live, check) {
        Ok(figures) => (figures, None),
        Err(TrialError::Check(figures, cause)) => (*figures, Some(cause)),
        Err(TrialError::Load(cause)) => return Err(cause.into()),
    };
    print!("{}", report::text(&plan, &figures));
    for warning in report::warnings(&figures) {
        println!("warning: {warning}");
    }
    if report::is_rate_missed(&figures) {
        println!(
            "rate FAILED: {} arrivals were not sent, more than one in a thousand",
            figures.arrivals_unsent
        );
    }
    match &check_failed {
        Some(cause) => println!("check FAILED: {cause}"),
        None if arguments.no_check => println!("check: not asked for"),
        None => {
            println!("check: {} acknowledged samples are stored, each once", figures.acknowledged_samples)
        }
    }
    if let Some(file) = &arguments.json {
        record::append(file, &figures)?;
    }
    Ok(Verdict::from_failed(check_failed.is_some() || report::is_failure(&figures)))
}
