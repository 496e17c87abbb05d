//! `bench hostile`: what clients that behave badly cost one that behaves well.
//!
//! ```text
//! for each kind, in turns: the load alone, the load beside the bad clients; then what /metrics counted of them
//! ```
//!
//! The floor (`floor.rs`) has the same rounds: what the bad clients cost it, which does next to nothing for them, is the
//! kernel's part and that of the core which they share with the load, and no server's to spare.
//! Always: the load is on a clock and checked as ever: exactly what was acknowledged is stored, beside whatever else
//! goes on. The server's limits of time are a second or two, so that a round of some seconds reaches them.
//! Not here: what the bad clients do (`hostile/attack.rs`).

use crate::check::Check;
use crate::figures::{Figures, Quantiles, median};
use crate::load::Live;
use crate::measure::Subjects;
use crate::metrics_page::MetricsPage;
use crate::peer::{Peer, floor};
use crate::plan::{CONNECTIONS_MAX, Durability, Offer, Plan, RATE_MAX, parse_duration};
use crate::progress::Progress;
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::trial::{self, TrialError, closed_loop};
use crate::{Verdict, record, report};
use attack::{ATTACKS, Attack, Met};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

mod attack;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct HostileArguments {
    /// Kinds of bad clients, as the table names them (default: all of them)
    #[arg(value_name = "KIND", value_parser = PossibleValuesParser::new(ATTACKS.iter().map(|attack| attack.name)))]
    kinds: Vec<String>,
    /// Requests a second of the well-behaved client, on a clock
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// Its connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Connection attempts of the kind `connects`, over a round
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    attempts: u64,
    /// Rounds of each kind, alone and beside
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a round's measured window
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    /// The p99 beside bad clients over that alone, at most; or else at most the floor's p99 beside them
    #[arg(long, default_value_t = 2.0)]
    at_most: f64,
    /// MiB by which the server may grow in a round beside them
    #[arg(long, default_value_t = 128.0)]
    grown_at_most: f64,
    /// Where its data goes while it runs (default: the system's folder for temporary files)
    #[arg(long, value_name = "FOLDER")]
    data_parent: Option<PathBuf>,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// So that a round reaches them.
const LIMITS: [&str; 3] = ["http.head_timeout=1s", "http.body_timeout=1s", "http.idle_timeout=2s"];
/// What tells of bad clients in the server's own metrics.
const COUNTERS: [&str; 14] = [
    "http_connections_total",
    "http_connections_refused_total",
    "http_connections_idle_total",
    "http_connections_broken_total",
    "http_connections_unused_total",
    "http_connections_unread_total",
    "http_accepts_held_total",
    "http_accepts_failed_total",
    "http_timeouts_total",
    "http_messages_refused_total",
    "ingest_validation_errors_total",
    "ingest_overload_refusals_total",
    "loop_sends_delayed_total",
    "loop_receive_buffers_exhausted_total",
];
/// The server brings its counters up to date once a second.
const COUNTERS_AFTER: Duration = Duration::from_millis(1_500);

/// So many connections does no kind hold at a time.
const BAD_CONNECTIONS_MAX: u32 = 10_000;
const OURS: &str = "ringwatch";
const FLOOR: &str = "floor";

/// What came of one kind.
#[derive(Debug, Serialize)]
struct Kind {
    name: &'static str,
    rounds: Vec<Round>,
    /// Medians beside over those alone.
    p50_ratio: Option<f64>,
    p99_ratio: Option<f64>,
    /// The same of the floor.
    floor_p99_ratio: Option<f64>,
    /// The most that the server grew in a round beside them.
    grown_mib: Option<f64>,
    met: Met,
    /// By how much the server's counters rose meanwhile.
    counted: BTreeMap<&'static str, f64>,
}

/// One load.
#[derive(Debug, Serialize)]
struct Round {
    round: u32,
    side: &'static str,
    is_beside: bool,
    figures: Figures,
}

/// Runs all kinds, and fails when one of them makes the p99 too much longer or the server too much larger.
pub(crate) fn run(arguments: &HostileArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    arguments.setup.cores_apart()?;
    let mut sets: Vec<String> = LIMITS.map(str::to_owned).to_vec();
    sets.extend(arguments.sets.iter().cloned());
    let ours = arguments.setup.ours(Some(Durability::Written), arguments.data_parent.as_deref(), sets);
    let ours = ours.start()?;
    let floor = floor::start(arguments.setup.server_core(), arguments.connections + BAD_CONNECTIONS_MAX)?;
    let served = |name, peer: &Peer, check, durability| {
        let subjects = Subjects {
            pids: vec![peer.pid()],
            server_cores: vec![arguments.setup.server_core().0],
            generator_core: arguments.setup.generator_core(),
        };
        Served { name, addr: peer.addr(), subjects: subjects.complete(peer.addr()), check, durability }
    };
    let sides = [
        served(OURS, &ours, Check::Stored, Some(Durability::Written)),
        served(FLOOR, &floor, Check::Nothing, None),
    ];
    let mut kinds = Vec::new();
    for attack in chosen(&arguments.kinds) {
        println!("{}: {}", attack.name, attack.about);
        let kind = play(arguments, attack, ours.addr(), &sides, live)?;
        println!("  {}", counted(&kind));
        kinds.push(kind);
    }
    print!("{}", table(&kinds));
    if let Some(file) = &arguments.setup.json {
        record::append(file, &kinds)?;
    }
    let faults: Vec<String> = kinds.iter().flat_map(|kind| faults(kind, arguments)).collect();
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    if faults.is_empty() {
        println!("at most {} times the p99 alone, or the floor's, beside each of them", arguments.at_most);
    }
    Ok(Verdict::from_failed(!faults.is_empty()))
}

/// Those of these names, which the command line knows; all where there are none.
fn chosen(names: &[String]) -> impl Iterator<Item = &'static Attack> {
    ATTACKS.iter().filter(|attack| names.is_empty() || names.iter().any(|name| name == attack.name))
}

/// In turns alone and beside; the order changes each round, so that neither always follows the other. What `metrics`
/// counts meanwhile is told with it. The first side is ours.
fn play(
    arguments: &HostileArguments,
    attack: &Attack,
    metrics: SocketAddr,
    sides: &[Served],
    live: &Live,
) -> Result<Kind, Box<dyn Error>> {
    let before = MetricsPage::fetch(metrics)?;
    let (mut rounds, mut met, mut grown_mib) = (Vec::new(), Met::default(), None);
    let sides = if attack.is_bearable_without_bounds() { sides } else { &sides[..1] };
    let turns = (1..=arguments.rounds).flat_map(|round| sides.iter().map(move |side| (round, side)));
    for (round, side) in turns {
        for is_beside in [round % 2 == 0, round % 2 == 1] {
            let plan = side.plan(arguments);
            let figures = if is_beside {
                let beside = beside(&plan, side, attack, arguments.attempts, live)?;
                if side.name == OURS {
                    met.add(&beside.met);
                    grown_mib = [grown_mib, beside.grown_mib].into_iter().flatten().reduce(f64::max);
                }
                beside.figures
            } else {
                trial::run(&plan, live, side.check)?
            };
            let company = if is_beside { "beside" } else { "alone" };
            eprintln!(
                "round {round:>2}  {:<9}  {company:<6}  p99 {:>7} µs",
                side.name,
                figure(figures.latency_us.map(|of| of.p99), 0)
            );
            rounds.push(Round { round, side: side.name, is_beside, figures });
        }
    }
    thread::sleep(COUNTERS_AFTER);
    let after = MetricsPage::fetch(metrics)?;
    let risen = |name: &'static str| Some((name, after.total(name)? - before.total(name)?));
    let counted = COUNTERS.into_iter().filter_map(risen).filter(|(_, by)| *by > 0.0).collect();
    Ok(Kind {
        name: attack.name,
        p50_ratio: ratio(&rounds, OURS, |latency| latency.p50),
        p99_ratio: ratio(&rounds, OURS, |latency| latency.p99),
        floor_p99_ratio: ratio(&rounds, FLOOR, |latency| latency.p99),
        grown_mib,
        met,
        counted,
        rounds,
    })
}

/// A server that the load and the bad clients meet at.
struct Served {
    name: &'static str,
    addr: SocketAddr,
    subjects: Subjects,
    check: Check,
    durability: Option<Durability>,
}

impl Served {
    /// What the well-behaved client sends.
    fn plan(&self, arguments: &HostileArguments) -> Plan {
        Plan {
            offer: Offer::evenly(arguments.rate),
            warmup: arguments.warmup,
            duration: arguments.duration,
            durability: self.durability,
            progress: Progress::here(false),
            ..closed_loop(self.addr, arguments.connections, self.subjects.clone())
        }
    }
}

/// A round beside bad clients.
struct Beside {
    figures: Figures,
    met: Met,
    grown_mib: Option<f64>,
}

/// The load, beside bad clients from before it begins until after it has ended.
fn beside(
    plan: &Plan,
    side: &Served,
    attack: &Attack,
    attempts: u64,
    live: &Live,
) -> Result<Beside, TrialError> {
    let (is_on, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let before = plan.subjects.resident_bytes();
    thread::scope(|scope| {
        let bad = scope.spawn(|| {
            attack.run(&attack::Round {
                addr: plan.target.addr,
                core: plan.subjects.generator_core,
                attempts,
                over: plan.warmup + plan.duration,
                is_on: &is_on,
                is_over: &is_over,
            })
        });
        while !is_on.load(Ordering::Relaxed) && !bad.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        let figures = trial::run(plan, live, side.check);
        let after = plan.subjects.resident_bytes();
        is_over.store(true, Ordering::Relaxed);
        let met = bad.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let grown_mib = before.zip(after).map(|(before, after)| mib(after) - mib(before));
        Ok(Beside { figures: figures?, met, grown_mib })
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The median of a side's rounds, beside or alone.
fn middle(rounds: &[Round], side: &str, is_beside: bool, of: fn(Quantiles) -> f64) -> Option<f64> {
    let mine = rounds.iter().filter(|round| round.side == side && round.is_beside == is_beside);
    median(mine.filter_map(|round| round.figures.latency_us.map(of)))
}

/// The median of the rounds beside over that of those alone.
fn ratio(rounds: &[Round], side: &str, of: fn(Quantiles) -> f64) -> Option<f64> {
    Some(middle(rounds, side, true, of)? / middle(rounds, side, false, of)?)
}

fn faults(kind: &Kind, arguments: &HostileArguments) -> Vec<String> {
    let mut faults = Vec::new();
    let beside = |side| middle(&kind.rounds, side, true, |latency| latency.p99);
    let is_the_floors = beside(OURS).zip(beside(FLOOR)).is_some_and(|(ours, floor)| ours <= floor);
    if kind.p99_ratio.is_none_or(|ratio| ratio > arguments.at_most) && !is_the_floors {
        let (ratio, floor) = (figure(kind.p99_ratio, 2), figure(kind.floor_p99_ratio, 2));
        faults.push(format!(
            "beside {} the p99 is {ratio} times that alone, the floor's {floor} times",
            kind.name
        ));
    }
    if let Some(grown) = kind.grown_mib.filter(|grown| *grown > arguments.grown_at_most) {
        faults.push(format!("beside {} the server grew by {grown:.0} MiB", kind.name));
    }
    if kind.rounds.iter().any(|round| report::is_failure(&round.figures)) {
        faults.push(format!("a round of {} was not offered, or not answered, as it should be", kind.name));
    }
    faults
}

fn counted(kind: &Kind) -> String {
    let statuses = kind.met.statuses.iter().map(|(status, count)| format!("{count} × {status}"));
    let counters = kind.counted.iter().map(|(name, by)| format!("{name} +{by:.0}"));
    let told: Vec<String> = statuses.collect();
    let told = if told.is_empty() { "nothing".to_owned() } else { told.join(", ") };
    format!("they read {told}; /metrics counted {}", counters.collect::<Vec<_>>().join(", "))
}

fn table(kinds: &[Kind]) -> Table {
    let mut table = Table::new(&[
        "beside",
        "p99 µs alone",
        "p99 µs beside",
        "p50 ratio",
        "p99 ratio",
        "floor alone",
        "floor beside",
        "floor ratio",
        "grown MiB",
        "connections",
        "no connect",
        "ended by server",
    ]);
    for kind in kinds {
        let p99 = |side, is_beside| figure(middle(&kind.rounds, side, is_beside, |latency| latency.p99), 0);
        table.row(vec![
            kind.name.to_owned(),
            p99(OURS, false),
            p99(OURS, true),
            figure(kind.p50_ratio, 2),
            figure(kind.p99_ratio, 2),
            p99(FLOOR, false),
            p99(FLOOR, true),
            figure(kind.floor_p99_ratio, 2),
            figure(kind.grown_mib, 1),
            thousands(kind.met.opened as f64),
            thousands(kind.met.connects_failed as f64),
            thousands(kind.met.ended as f64),
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
        hostile: HostileArguments,
    }

    /// So that none of them rots. Method: a short round of each against a server that counts what it is sent; that
    /// one keeps a thread for each connection, so the attacks that hold a thousand are left to the true server.
    #[test]
    fn rounds_alternate_and_bad_clients_come_only_beside() {
        let server = Responder::counting(|_| None);
        let line = "hostile --rate 200 --connections 2 --attempts 50 --rounds 1 --duration 200ms --warmup 0s";
        let arguments = Line::parse_from(line.split(' ')).hostile;
        let sides = [OURS, FLOOR].map(|name| Served {
            name,
            addr: server.addr(),
            subjects: Subjects::default(),
            check: Check::Stored,
            durability: Some(Durability::Written),
        });
        for name in ["byte-by-byte", "reset", "oversized-head", "tls", "connects", "unread-answers"] {
            let attack = chosen(&[name.to_owned()]).next().unwrap();
            let kind = play(&arguments, attack, server.addr(), &sides, &Live::default()).unwrap();
            let order: Vec<_> = kind.rounds.iter().map(|round| (round.side, round.is_beside)).collect();
            let both = [(OURS, false), (OURS, true), (FLOOR, false), (FLOOR, true)];
            let expected = if name == "unread-answers" { &both[..2] } else { &both[..] };
            assert_eq!(order, expected, "{name}");
            assert!(kind.rounds.iter().all(|round| round.figures.acknowledged_samples > 0), "{name}");
            assert!(kind.met.opened > 0, "{name}: {:?}", kind.met);
            assert!(kind.p99_ratio.is_some_and(|ratio| ratio > 0.0), "{name}");
            assert_eq!(kind.floor_p99_ratio.is_some(), name != "unread-answers", "{name}");
        }
    }

    #[test]
    fn a_kind_that_is_none_is_refused_with_those_there_are() {
        let refused = Line::try_parse_from(["hostile", "tls", "ssl"]).err().unwrap().to_string();
        assert!(refused.contains("'ssl'") && refused.contains("byte-by-byte"), "{refused}");
        assert_eq!(chosen(&[]).count(), ATTACKS.len());
    }
}
