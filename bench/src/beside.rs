//! `bench beside`: what a client that asks without rest costs those who write.
//!
//! ```text
//! preload one name → in turns: the load alone, the load beside one client that asks for all of that name again and again
//! ```
//!
//! Always: one server for all rounds, on its one core; the client sleeps while the server works, and so it may share
//! the generator's core. The ratio is that of the medians over the rounds, because the query's pace differs from round
//! to round and no two rounds are a pair.
//! Not here: what a query costs by itself.

use crate::check::Check;
use crate::fetch::{self, FetchError};
use crate::figures::{Figures, Quantiles, median};
use crate::load::{Live, latencies};
use crate::measure::Subjects;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, INGEST_PATH, Offer, Plan, RATE_MAX, parse_duration,
};
use crate::progress::Progress;
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::trial::{self, closed_loop};
use crate::{Verdict, pin, record, report};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct BesideArguments {
    /// Requests a second, on a clock
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// One request in flight per connection in place of the clock: how long queries take at saturation
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// Connections that write
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Samples per request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    batch: u32,
    /// What the client asks for
    #[arg(long, value_enum, default_value = "percentile")]
    ask: Ask,
    /// Bodies of the name that it asks for
    #[arg(long, default_value_t = 34, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bodies: u32,
    /// Samples in each of them
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX as i64))]
    body_samples: u32,
    /// Rounds of each kind
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a round's measured window
    #[arg(long, default_value = "4s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// The p99 beside queries over that without, at most
    #[arg(long, default_value_t = 2.0)]
    at_most: f64,
    /// Where its data goes while it runs (default: the system's folder for temporary files)
    #[arg(long, value_name = "FOLDER")]
    data_parent: Option<PathBuf>,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// A question about every preloaded sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ask {
    /// The 99th percentile
    Percentile,
    /// The first thousand of those that have a value which few have
    Query,
}

/// The name of what is asked for.
const ASKED: &str = "beside";

impl Ask {
    fn target(self) -> String {
        match self {
            Ask::Percentile => format!("/percentile?name={ASKED}&percentile=99"),
            Ask::Query => format!("/query?name={ASKED}&min_value={VALUES}&limit=1000"),
        }
    }
}

/// Preloaded values lie from 0 to this.
const VALUES: u32 = 977;

/// How often a body is sent again that the server has no room for yet, and how long after.
const SENDINGS_MAX: u32 = 100;
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What came of all rounds.
#[derive(Debug, Serialize)]
struct Beside {
    samples_asked_for: u64,
    target: String,
    rounds: Vec<Round>,
    /// Medians beside queries over those without.
    p50_ratio: Option<f64>,
    p99_ratio: Option<f64>,
    p99_9_ratio: Option<f64>,
}

/// One load.
#[derive(Debug, Serialize)]
struct Round {
    round: u32,
    figures: Figures,
    /// Of a round beside queries.
    queries: Option<Queries>,
}

/// What the client got.
#[derive(Debug, Serialize)]
struct Queries {
    answered: u64,
    /// With 503, to come back later.
    refused: u64,
    /// From the connect to the whole answer.
    latency_us: Option<Quantiles>,
}

/// Why the client stopped asking.
#[derive(Debug)]
enum AskError {
    Fetch(FetchError),
    /// Another status than 200 and 503.
    Status(u16, String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Fetch(cause) => write!(f, "the query was not answered: {cause}"),
            AskError::Status(status, body) => write!(f, "the query was answered with {status}: {body}"),
        }
    }
}

impl Error for AskError {}

/// Runs all rounds, and fails when queries make the p99 of writing more than so many times longer.
pub(crate) fn run(arguments: &BesideArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    arguments.setup.cores_apart()?;
    let ours = arguments.setup.ours(
        Some(Durability::Written),
        arguments.data_parent.as_deref(),
        arguments.sets.clone(),
    );
    let peer = ours.start()?;
    let subjects = Subjects {
        pids: vec![peer.pid()],
        server_cores: vec![arguments.setup.server_core().0],
        generator_core: arguments.setup.generator_core(),
    };
    preload(peer.addr(), arguments)?;
    let beside = rounds(arguments, peer.addr(), subjects.complete(peer.addr()), live)?;
    print!("{}", table(&beside.rounds));
    println!(
        "beside queries over without, medians: p50 {}, p99 {}, p99.9 {}",
        figure(beside.p50_ratio, 2),
        figure(beside.p99_ratio, 2),
        figure(beside.p99_9_ratio, 2)
    );
    if let Some(file) = &arguments.setup.json {
        record::append(file, &beside)?;
    }
    let is_missed = beside.rounds.iter().any(|round| report::is_failure(&round.figures));
    if is_missed {
        println!("FAILED: a round was not offered, or not answered, as it should be");
    }
    let is_exceeded = beside.p99_ratio.is_none_or(|ratio| ratio > arguments.at_most);
    let verdict = if is_exceeded { "FAILED: more than" } else { "at most" };
    println!("{verdict} {} times the p99 without queries", arguments.at_most);
    Ok(Verdict::from_failed(is_missed || is_exceeded))
}

/// Stores what will be asked for.
fn preload(addr: SocketAddr, arguments: &BesideArguments) -> Result<(), Box<dyn Error>> {
    let metrics: Vec<String> = (0..arguments.body_samples)
        .map(|at| format!(r#"{{"name":"{ASKED}","value":{}.{}}}"#, at % VALUES, at % 10))
        .collect();
    let body = format!(r#"{{"metrics":[{}]}}"#, metrics.join(","));
    for _ in 0..arguments.bodies {
        let mut sendings = 0;
        loop {
            let (status, said) = fetch::post(addr, INGEST_PATH, &body)?;
            sendings += 1;
            match status {
                202 => break,
                // Each is stored in full or in parts; the number of samples that are asked for is not what is checked.
                503 if sendings < SENDINGS_MAX => thread::sleep(SENT_AGAIN_AFTER),
                _ => {
                    let said = String::from_utf8_lossy(&said);
                    return Err(format!("a body to ask for was answered with {status}: {said}").into());
                }
            }
        }
    }
    Ok(())
}

/// In turns without and with queries; the order changes each round, so that neither always follows the other.
fn rounds(
    arguments: &BesideArguments,
    addr: SocketAddr,
    subjects: Subjects,
    live: &Live,
) -> Result<Beside, Box<dyn Error>> {
    let plan = || Plan {
        offer: if arguments.closed { Offer::Closed } else { Offer::evenly(arguments.rate) },
        warmup: arguments.warmup,
        duration: arguments.duration,
        batch: arguments.batch,
        durability: Some(Durability::Written),
        progress: Progress::here(false),
        ..closed_loop(addr, arguments.connections, subjects.clone())
    };
    let target = arguments.ask.target();
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        for is_beside in [round % 2 == 0, round % 2 == 1] {
            let plan = plan();
            let (figures, queries) = if is_beside {
                let (figures, queries) = beside_queries(&plan, &target, live)?;
                (figures, Some(queries))
            } else {
                (trial::run(&plan, live, Check::Stored)?, None)
            };
            eprintln!(
                "round {round:>2}  {:<7}  p99 {:>7} µs",
                side(queries.as_ref()),
                figure(figures.latency_us.map(|latency| latency.p99), 0)
            );
            rounds.push(Round { round, figures, queries });
        }
    }
    let of = |figure: fn(Quantiles) -> f64| ratio(&rounds, figure);
    Ok(Beside {
        samples_asked_for: u64::from(arguments.bodies) * u64::from(arguments.body_samples),
        target,
        p50_ratio: of(|latency| latency.p50),
        p99_ratio: of(|latency| latency.p99),
        p99_9_ratio: of(|latency| latency.p99_9),
        rounds,
    })
}

fn side(queries: Option<&Queries>) -> &'static str {
    if queries.is_some() { "beside" } else { "without" }
}

/// The load, beside a client that asks from before it begins until after it has ended.
fn beside_queries(plan: &Plan, target: &str, live: &Live) -> Result<(Figures, Queries), Box<dyn Error>> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| ask_without_rest(plan, target, &is_over));
        let figures = trial::run(plan, live, Check::Stored);
        is_over.store(true, Ordering::Relaxed);
        let queries = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((figures?, queries?))
    })
}

fn ask_without_rest(plan: &Plan, target: &str, is_over: &AtomicBool) -> Result<Queries, Box<AskError>> {
    // Anywhere else is as good: it only waits.
    let _ = pin(plan.subjects.generator_core);
    let (mut answered, mut refused, mut latency) = (0, 0, latencies());
    loop {
        let begin = Instant::now();
        let (status, body) = fetch::get(plan.target.addr, target).map_err(AskError::Fetch)?;
        match status {
            200 => answered += 1,
            503 => refused += 1,
            _ => return Err(AskError::Status(status, String::from_utf8_lossy(&body).into_owned()).into()),
        }
        latency.saturating_record(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if is_over.load(Ordering::Relaxed) {
            return Ok(Queries { answered, refused, latency_us: Quantiles::of(&latency) });
        }
    }
}

/// The median of the rounds beside queries over that of those without.
fn ratio(rounds: &[Round], of: fn(Quantiles) -> f64) -> Option<f64> {
    let middle = |is_beside: bool| {
        let mine = rounds.iter().filter(|round| round.queries.is_some() == is_beside);
        median(mine.filter_map(|round| round.figures.latency_us.map(of)))
    };
    Some(middle(true)? / middle(false)?)
}

fn table(rounds: &[Round]) -> Table {
    let mut table = Table::new(&[
        "",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "refused",
        "queries",
        "refused",
        "query p50 ms",
        "query max ms",
    ]);
    for Round { figures, queries, .. } in rounds {
        let latency = |of: fn(Quantiles) -> f64| figure(figures.latency_us.map(of), 0);
        let refused = figures.statuses.range(429..).map(|(_, count)| count).sum::<u64>();
        let asked = |of: fn(&Queries) -> u64| {
            queries.as_ref().map_or_else(|| "-".to_owned(), |queries| of(queries).to_string())
        };
        let took = |of: fn(Quantiles) -> f64| {
            figure(queries.as_ref().and_then(|queries| queries.latency_us).map(|took| of(took) / 1e3), 1)
        };
        table.row(vec![
            side(queries.as_ref()).to_owned(),
            thousands(figures.requests_per_s),
            latency(|of| of.p50),
            latency(|of| of.p99),
            latency(|of| of.p99_9),
            refused.to_string(),
            asked(|of| of.answered),
            asked(|of| of.refused),
            took(|of| of.p50),
            took(|of| of.max),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::Responder;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        beside: BesideArguments,
    }

    fn arguments(line: &str) -> BesideArguments {
        Line::parse_from(line.split(' ')).beside
    }

    /// So that it does not rot. Method: two tiny rounds against a server that counts what it is sent.
    #[test]
    fn rounds_alternate_and_only_those_beside_queries_ask() {
        let server = Responder::counting(|_| None);
        let line = "beside --rate 400 --connections 2 --bodies 2 --body-samples 50 --rounds 2 --duration 200ms \
            --warmup 0s --at-most 1000";
        let arguments = arguments(line);
        preload(server.addr(), &arguments).unwrap();
        let beside = rounds(&arguments, server.addr(), Subjects::default(), &Live::default()).unwrap();
        let order: Vec<bool> = beside.rounds.iter().map(|round| round.queries.is_some()).collect();
        assert_eq!(order, [false, true, true, false]);
        assert!(beside.rounds.iter().all(|round| round.figures.acknowledged_samples > 0));
        let queries: Vec<&Queries> =
            beside.rounds.iter().filter_map(|round| round.queries.as_ref()).collect();
        assert!(queries.iter().all(|queries| queries.answered > 0 && queries.refused == 0));
        assert!(beside.p99_ratio.is_some_and(|ratio| ratio > 0.0));
        let (_, body) = fetch::get(server.addr(), &arguments.ask.target()).unwrap();
        assert!(String::from_utf8_lossy(&body).contains("100"), "what is asked for was stored first");
    }
}
