//! `bench run`: one load against a server that is already there.

use crate::arrivals::Shape;
use crate::check::Check;
use crate::load::Live;
use crate::measure::Subjects;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, LABELS_MAX, Lifetime, Offer, Plan, RATE_MAX, Refusals,
    SERIES_MAX, Target, parse_duration,
};
use crate::progress::Progress;
use crate::record::Round;
use crate::request::Form;
use crate::setup::default_core;
use crate::trial::{self, TrialError, metric_name};
use crate::{Verdict, record, report};
use clap::{Args, ValueEnum};
use std::error::Error;
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
    /// How arrivals lie around that rate
    #[arg(long, value_enum, default_value = "constant")]
    arrivals: Arrivals,
    /// Rate at a ramp's start; it ends at --rate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    ramp_from: u64,
    /// Arrivals at one moment in bursts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    burst: u64,
    /// Of all that is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One request in flight per connection, the next when it is answered
    #[arg(long, conflicts_with_all = ["rate", "arrivals", "ramp_from", "burst"])]
    closed: bool,
    /// Connections, all open before the load begins
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// How long each of them lives
    #[arg(long, value_enum, default_value = "kept")]
    lifetime: Lifetime,
    /// What a client does when it is told to come back later
    #[arg(long, value_enum, default_value = "obeyed")]
    refusals: Refusals,
    /// How a request carries samples; the path follows from it
    #[arg(long, value_enum, default_value = "json")]
    form: Form,
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
    /// Further labels of each series, in remote write
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=LABELS_MAX as i64))]
    labels: u32,
    /// Samples of a series in a row, in remote write
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    samples_per_series: u32,
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

/// The shapes, as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Arrivals {
    /// Evenly
    Constant,
    /// Independently of each other
    Poisson,
    /// From --ramp-from to --rate
    Ramp,
    /// Groups of --burst
    Burst,
}

impl RunArguments {
    fn offer(&self) -> Offer {
        if self.closed {
            return Offer::Closed;
        }
        let shape = match self.arrivals {
            Arrivals::Constant => Shape::Constant,
            Arrivals::Poisson => Shape::Poisson,
            Arrivals::Ramp => Shape::Ramp { from_per_s: self.ramp_from },
            Arrivals::Burst => Shape::Burst { size: self.burst },
        };
        Offer::Open { requests_per_s: self.rate, shape }
    }
}

/// Runs it and prints the table.
pub(crate) fn run(arguments: RunArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let offer = arguments.offer();
    let mut target = Target::parse(&arguments.target)?;
    if target.path == Form::Json.path() {
        target.path = arguments.form.path().to_owned();
    }
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
        offer,
        connections: arguments.connections,
        lifetime: arguments.lifetime,
        refusals: arguments.refusals,
        patience: None,
        seed: arguments.seed,
        warmup: arguments.warmup,
        duration: arguments.duration,
        idle: Duration::from_millis(300),
        form: arguments.form,
        batch: arguments.batch,
        series: arguments.series,
        labels: arguments.labels,
        run: arguments.samples_per_series,
        tenth_replaced_every: None,
        age: Duration::ZERO,
        tells_each: false,
        durability: arguments.durability,
        metric: metric_name(),
        subjects,
        progress: Progress::here(arguments.progress),
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
    let failed = check_failed.is_some() || report::is_failure(&figures);
    if let Some(file) = &arguments.json {
        let round = Round {
            scenario: None,
            side: plan.target.addr.to_string(),
            connections: plan.connections,
            round: 1,
            maximum_per_s: None,
            device_sync_us: None,
            figures,
        };
        record::append(file, &[round])?;
    }
    Ok(Verdict::from_failed(failed))
}
