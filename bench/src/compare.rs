//! `bench compare`: ours and nginx on one core in turns, and ours at each level of durability.
//!
//! What differs between two runs on one machine differs less between two rounds side by side: so rounds alternate, and
//! the ratio is the median of the rounds' own ratios. A round in which the server's core had time to idle says nothing
//! about cost at saturation; it is marked and not counted.

use crate::figures::{Figures, median};
use crate::load::Live;
use crate::measure::Subjects;
use crate::peer::{Peer, nginx, ringwatch::Ringwatch};
use crate::plan::{CONNECTIONS_MAX, Durability, Plan, SERIES_MAX, parse_duration};
use crate::setup::Setup;
use crate::table::{Table, figure, percent, thousands};
use crate::trial::{self, Check, closed_loop};
use crate::{Verdict, record};
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct CompareArguments {
    /// Connection counts, one table each
    #[arg(long, value_delimiter = ',', default_value = "64,1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: Vec<u32>,
    /// Rounds of each server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a round's measured window
    #[arg(long, default_value = "4s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Level that is compared with nginx
    #[arg(long, value_enum, default_value = "written")]
    durability: Durability,
    /// Compare these levels of ours with each other instead, as memory,written,synced
    #[arg(long, value_enum, value_delimiter = ',')]
    levels: Vec<Durability>,
    /// Label sets per connection; 0 for one series without labels
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=SERIES_MAX as i64))]
    series: u32,
    /// Where its data goes while it runs (default: the system's folder for temporary files)
    #[arg(long, value_name = "FOLDER")]
    data_parent: Option<PathBuf>,
    /// Further settings for it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    setup: Setup,
}

/// One side of a comparison in one round.
#[derive(Debug, Serialize)]
struct Round {
    side: &'static str,
    connections: u32,
    round: u32,
    figures: Figures,
}

/// One side of a comparison: who is asked, and for which level.
struct Side<'p> {
    name: &'static str,
    peer: &'p Peer,
    durability: Option<Durability>,
    check: Check,
}

/// Runs all rounds and prints a table per connection count.
pub(crate) fn run(arguments: CompareArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let core = arguments.setup.generator_core();
    arguments.setup.cores_apart()?;
    let server_core = arguments.setup.server_core();
    let ours = Ringwatch {
        binary: arguments.setup.binary(),
        core: Some(server_core),
        durability: Some(arguments.durability),
        data_parent: arguments.data_parent.clone(),
        sets: arguments.sets.clone(),
    };
    let mut rounds = Vec::new();
    for connections in &arguments.connections {
        let ours = ours.start()?;
        let reference = if arguments.levels.is_empty() { Some(nginx::start(server_core)?) } else { None };
        let sides: Vec<Side<'_>> = match &reference {
            Some(reference) => vec![
                Side {
                    name: ours.name(),
                    peer: &ours,
                    durability: Some(arguments.durability),
                    check: Check::Stored,
                },
                Side { name: reference.name(), peer: reference, durability: None, check: Check::Nothing },
            ],
            None => {
                let side = |level: &Durability| Side {
                    name: level.name(),
                    peer: &ours,
                    durability: Some(*level),
                    check: Check::Stored,
                };
                arguments.levels.iter().map(side).collect()
            }
        };
        let mut of_these = Vec::new();
        for round in 1..=arguments.rounds {
            for side in &sides {
                let figures = trial::run(&plan(&arguments, side, *connections, core), live, side.check)?;
                let mark = if figures.counts() { "" } else { "   (not saturated)" };
                eprintln!(
                    "{connections:>6} connections  round {round:>2}  {:<9}  {:>9} requests/s  {:>7} µs/request  {:>5} busy{mark}",
                    side.name,
                    thousands(figures.requests_per_s),
                    figure(figures.server_cpu_us_per_request, 3),
                    percent(figures.server_busy),
                );
                of_these.push(Round { side: side.name, connections: *connections, round, figures });
            }
        }
        let names: Vec<&'static str> = sides.iter().map(|side| side.name).collect();
        println!("\n{connections} connections\n{}", summary(&names, &of_these));
        rounds.extend(of_these);
    }
    if let Some(file) = &arguments.setup.json {
        record::append(file, &rounds)?;
    }
    let is_saturating = arguments.levels.is_empty();
    Ok(Verdict::from_failed(is_saturating && !rounds.iter().any(|round| round.figures.counts())))
}

fn plan(arguments: &CompareArguments, side: &Side<'_>, connections: u32, core: Option<usize>) -> Plan {
    let subjects = Subjects {
        pids: vec![side.peer.pid()],
        server_cores: vec![arguments.setup.server_core().0],
        generator_core: core,
    };
    Plan {
        warmup: arguments.warmup,
        duration: arguments.duration,
        durability: side.durability,
        series: arguments.series,
        ..closed_loop(side.peer.addr(), connections, subjects.complete(side.peer.addr()))
    }
}

/// The medians of each side over its counted rounds, and of the ratios to the last side.
///
/// Levels wait for a device, so their rounds count without saturation; a cost is compared only where both were
/// saturated.
fn summary(names: &[&'static str], rounds: &[Round]) -> String {
    let mut table = Table::new(&[
        "",
        "requests/s",
        "CPU µs/request",
        "p50 µs",
        "p99 µs",
        "core busy",
        "generator busy",
        "saturated rounds",
    ]);
    for name in names {
        let all: Vec<&Figures> = of_side(rounds, name).collect();
        let saturated: Vec<&Figures> = all.iter().copied().filter(|figures| figures.counts()).collect();
        let counted = if saturated.is_empty() { &all } else { &saturated };
        let middle =
            |of: fn(&Figures) -> Option<f64>| median(counted.iter().filter_map(|figures| of(figures)));
        table.row(vec![
            (*name).to_owned(),
            middle(|f| Some(f.requests_per_s)).map_or_else(|| "-".to_owned(), thousands),
            figure(middle(|f| f.server_cpu_us_per_request), 3),
            figure(middle(|f| Some(f.latency_us?.p50)), 0),
            figure(middle(|f| Some(f.latency_us?.p99)), 0),
            percent(middle(|f| f.server_busy)),
            percent(middle(|f| f.generator_busy)),
            format!("{} of {}", saturated.len(), all.len()),
        ]);
    }
    let mut text = table.to_string();
    text.push_str(
        "Ratios, the first named over the second: above 1 means more CPU per request, and more requests/s.\n",
    );
    for (at, name) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            let costs = ratios(rounds, name, other, |f| f.server_cpu_us_per_request.filter(|_| f.counts()));
            let rates = ratios(rounds, name, other, |f| Some(f.requests_per_s));
            text.push_str(&format!("CPU per request {name} / {other}: {}\n", with_median(&costs)));
            text.push_str(&format!("requests/s {name} / {other}: {}\n", with_median(&rates)));
        }
    }
    text
}

fn of_side<'r>(rounds: &'r [Round], name: &str) -> impl Iterator<Item = &'r Figures> {
    rounds.iter().filter(move |round| round.side == name).map(|round| &round.figures)
}

/// One side's figure over the other's, round by round, where both have it.
fn ratios(rounds: &[Round], name: &str, other: &str, of: fn(&Figures) -> Option<f64>) -> Vec<f64> {
    let pairs = of_side(rounds, name).zip(of_side(rounds, other));
    pairs.filter_map(|(left, right)| Some(of(left)? / of(right)?)).collect()
}

fn with_median(values: &[f64]) -> String {
    let each: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    format!("{} (median of {}: {})", figure(median(values.iter().copied()), 3), values.len(), each.join(" "))
}
