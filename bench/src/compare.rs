//! `bench compare`: ours and nginx on one core in turns, and ours at each level of durability.
//!
//! What differs between two runs on one machine differs less between two rounds side by side: so rounds alternate, and
//! the ratio is the median of the rounds' own ratios. A round in which the server's core had time to idle says nothing
//! about cost at saturation; it is marked and not counted.

use crate::figures::{BUSY, Figures, median};
use crate::load::Live;
use crate::measure::device;
use crate::peer::ringwatch::Ringwatch;
use crate::plan::{CONNECTIONS_MAX, Durability, Plan, RATE_MAX, SERIES_MAX, parse_duration};
use crate::progress::Progress;
use crate::record::Round;
use crate::scenario::{Arrival, Scenario, ScenarioError};
use crate::setup::Setup;
use crate::side::{self, Cores, Rival, Side};
use crate::table::{Table, figure, percent, thousands};
use crate::{Verdict, record, trial};
use clap::Args;
use std::error::Error;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct CompareArguments {
    /// Compare under this scenario, by name or file, in place of closed loops
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["connections", "rates", "duration", "warmup", "series"])]
    scenario: Option<String>,
    /// Peers, in the order of the rounds
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nginx")]
    with: Vec<Rival>,
    /// Requests a second on a clock in place of a closed loop, one table each
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rates: Vec<u64>,
    /// Connection counts, one table each
    #[arg(long, value_delimiter = ',', default_value = "64,1000,10000",
        value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: Vec<u32>,
    /// Let the connection counts take turns within each round, and tell what a request costs at each over the first
    #[arg(long, conflicts_with = "scenario")]
    in_turns: bool,
    /// Rounds of each server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a round's measured window
    #[arg(long, default_value = "4s", value_parser = parse_duration)]
    duration: Duration,
    /// Load before it
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Level that is compared with the peers
    #[arg(long, value_enum, default_value = "written")]
    durability: Durability,
    /// Compare these levels of ours with each other instead, as memory,written,synced
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "with")]
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

/// Which rounds say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counting {
    /// Those in which the server's core was saturated: cost is compared.
    Saturated,
    /// Those whose p50 is at most twice the best one's of their side: the machine did nothing else.
    Undisturbed,
    /// All: levels wait for a device.
    All,
}

impl Counting {
    /// Whether a round counts among all of its side.
    fn counts(self, round: &Figures, side: &[&Figures]) -> bool {
        let p50 = |figures: &Figures| figures.latency_us.map(|latency| latency.p50);
        let best = side.iter().copied().filter_map(p50).reduce(f64::min);
        match self {
            Counting::Saturated => round.counts(),
            Counting::Undisturbed => p50(round).zip(best).is_some_and(|(p50, best)| p50 <= 2.0 * best),
            Counting::All => true,
        }
    }

    /// Why nothing can be said of these sides, and what to do about it; nothing where there are none.
    fn lacks(self, sides: &[&str]) -> Option<String> {
        let (first, others) = sides.split_first()?;
        let names = others.iter().fold((*first).to_owned(), |names, name| names + ", " + name);
        let lacking = match self {
            Counting::Saturated => format!("in which its core was {} % busy", BUSY * 100.0),
            Counting::Undisturbed => "that has a median latency".to_owned(),
            Counting::All => "at all".to_owned(),
        };
        Some(format!(
            "no result, for {names} had no round {lacking}; nothing else may run on this machine, above all not on the \
             server's core; then try longer and more rounds (--duration 8s --rounds 10)"
        ))
    }

    fn name(self) -> &'static str {
        match self {
            Counting::Saturated => "saturated rounds",
            Counting::Undisturbed => "undisturbed rounds",
            Counting::All => "rounds",
        }
    }
}

/// Pairs whose ratios are worth a line: all of a few sides, else the first with each.
const SIDES_WITH_ALL_PAIRS: usize = 3;

/// Runs all rounds and prints a table per scenario.
pub(crate) fn run(arguments: &CompareArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    arguments.setup.cores_apart()?;
    let cores = Cores { server: arguments.setup.server_core(), generator: arguments.setup.generator_core() };
    // Peers inherit the limit; if it stays too low, they say so.
    let _ = shard::raise_descriptor_limit();
    let mut rounds = Vec::new();
    let mut is_counted = true;
    let scenarios = scenarios(arguments)?;
    let together = if arguments.in_turns { scenarios.len() } else { 1 };
    for scenarios in scenarios.chunks(together) {
        let contests: Result<Vec<Contest<'_>>, _> =
            scenarios.iter().map(|scenario| Contest::new(arguments, scenario, cores, live)).collect();
        let mut contests = contests?;
        for round in 1..=arguments.rounds {
            for contest in &mut contests {
                contest.play(round, live)?;
            }
        }
        for contest in &contests {
            is_counted &= contest.tell();
        }
        if arguments.in_turns {
            print!("{}", growth(&contests));
        }
        rounds.extend(contests.into_iter().flat_map(|contest| contest.rounds));
    }
    if let Some(file) = &arguments.setup.json {
        record::append(file, &rounds)?;
    }
    Ok(Verdict::from_failed(!is_counted))
}

/// The one that is named, or one for each connection count and rate.
fn scenarios(arguments: &CompareArguments) -> Result<Vec<Scenario>, ScenarioError> {
    if let Some(name) = &arguments.scenario {
        return Ok(vec![Scenario::find(name)?]);
    }
    let mut scenarios = Vec::new();
    for connections in &arguments.connections {
        let closed = Scenario {
            duration_s: arguments.duration.as_secs_f64(),
            warmup_s: arguments.warmup.as_secs_f64(),
            idle_s: IDLE_S,
            series: arguments.series,
            durability: Some(arguments.durability),
            ..Scenario::closed(*connections)
        };
        let at_rate = |rate: &u64| Scenario {
            arrival: Arrival::Constant,
            requests_per_s: Some(*rate),
            ..closed.clone()
        };
        scenarios.extend(arguments.rates.iter().map(at_rate));
        if arguments.rates.is_empty() {
            scenarios.push(closed);
        }
    }
    Ok(scenarios)
}

/// Before each load, so that the memory of idle connections can be read.
const IDLE_S: f64 = 0.3;

/// Starts ours and its peers, or takes ours at each level.
fn sides(arguments: &CompareArguments, scenario: &Scenario) -> Result<Vec<Side>, Box<dyn Error>> {
    let server_core = arguments.setup.server_core();
    let mut sets = scenario.settings();
    sets.extend(arguments.sets.iter().cloned());
    let ours = Ringwatch {
        binary: arguments.setup.binary(),
        core: Some(server_core),
        durability: scenario.durability,
        data_parent: arguments.data_parent.clone(),
        sets,
    };
    let ours = Rc::new(ours.start()?);
    if !arguments.levels.is_empty() {
        let side = |level: &Durability| Side::ours(level.name(), &ours, Some(*level));
        return Ok(arguments.levels.iter().map(side).collect());
    }
    let mut sides = vec![Side::ours(ours.name(), &ours, scenario.durability)];
    sides.extend(side::start(&arguments.with, server_core, scenario.connections)?);
    Ok(sides)
}

/// One scenario, the servers that meet it, and the rounds so far.
struct Contest<'a> {
    scenario: &'a Scenario,
    sides: Vec<Side>,
    cores: Cores,
    counting: Counting,
    /// What a share is of: what the first side reaches, so that all are offered the same.
    maximum_per_s: Option<f64>,
    device_sync_us: Option<f64>,
    rounds: Vec<Round>,
}

impl<'a> Contest<'a> {
    fn new(
        arguments: &CompareArguments,
        scenario: &'a Scenario,
        cores: Cores,
        live: &Live,
    ) -> Result<Contest<'a>, Box<dyn Error>> {
        let counting = match (arguments.levels.is_empty(), scenario.is_open()) {
            (false, _) => Counting::All,
            (true, true) => Counting::Undisturbed,
            (true, false) => Counting::Saturated,
        };
        let sides = sides(arguments, scenario)?;
        let maximum_per_s = match (scenario.probe(), sides.first()) {
            (Some(probe), Some(first)) => {
                Some(trial::run(&first.plan(&probe, cores, None), live, first.check)?.accepted_per_s())
            }
            _ => None,
        };
        let device_sync_us = match arguments.levels.is_empty() {
            true => None,
            false => {
                let folder = arguments.data_parent.clone().unwrap_or_else(std::env::temp_dir);
                Some(device::sync_us(&folder)?)
            }
        };
        Ok(Contest { scenario, sides, cores, counting, maximum_per_s, device_sync_us, rounds: Vec::new() })
    }

    /// One round of each side.
    fn play(&mut self, round: u32, live: &Live) -> Result<(), Box<dyn Error>> {
        let Contest { scenario, maximum_per_s, device_sync_us, .. } = *self;
        let progress = Progress::here(false);
        for side in &self.sides {
            let plan = Plan { progress, ..side.plan(scenario, self.cores, maximum_per_s) };
            let figures = trial::run(&plan, live, side.check)?;
            let mark = if scenario.is_open() || figures.counts() { "" } else { "   (not saturated)" };
            progress.clear();
            eprintln!(
                "{:>6} connections  round {round:>2}  {:<15}  {:>9} requests/s  {:>7} µs/request  {:>5} busy{mark}",
                scenario.connections,
                side.name,
                thousands(figures.requests_per_s),
                figure(figures.server_cpu_us_per_request, 3),
                percent(figures.server_busy),
            );
            self.rounds.push(Round {
                scenario: scenario.name.clone(),
                side: side.name.to_owned(),
                connections: scenario.connections,
                round,
                maximum_per_s,
                device_sync_us,
                figures,
            });
        }
        Ok(())
    }

    /// Prints the table; whether each side had a round that counts.
    fn tell(&self) -> bool {
        let Contest { scenario, counting, .. } = *self;
        let names: Vec<&str> = self.sides.iter().map(|side| side.name).collect();
        println!("\n{}\n{}", heading(scenario), summary(&names, &self.rounds, counting));
        let lacks = |name: &&str| of_side(&self.rounds, name, counting).all(|round| round.is_none());
        let lacking: Vec<&str> = names.iter().copied().filter(lacks).collect();
        let reason = counting.lacks(&lacking);
        if let Some(reason) = &reason {
            eprintln!("{}: {reason}", heading(scenario));
        }
        reason.is_none()
    }
}

/// What a request costs each side at the other connection counts over the first, round by round.
fn growth(contests: &[Contest<'_>]) -> String {
    let Some((first, others)) = contests.split_first() else { return String::new() };
    let mut text = String::new();
    for other in others {
        let Contest { counting, .. } = *other;
        let (more, fewer) =
            (thousands(other.scenario.connections.into()), thousands(first.scenario.connections.into()));
        for side in &first.sides {
            let pairs =
                of_side(&other.rounds, side.name, counting).zip(of_side(&first.rounds, side.name, counting));
            let cost = |round: Option<&Figures>| round?.server_cpu_us_per_request;
            let ratios: Vec<f64> =
                pairs.filter_map(|(more, fewer)| Some(cost(more)? / cost(fewer)?)).collect();
            let name = side.name;
            text.push_str(&format!(
                "CPU per request {name} at {more} over {fewer} connections: {}\n",
                with_median(&ratios)
            ));
        }
    }
    text
}

fn heading(scenario: &Scenario) -> String {
    let rate = scenario.requests_per_s.map(|rate| format!(", {} requests/s offered", thousands(rate as f64)));
    let name = scenario.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    format!("{name}{} connections{}", scenario.connections, rate.unwrap_or_default())
}

/// The medians of each side over its counted rounds, and of the ratios between sides.
fn summary(names: &[&str], rounds: &[Round], counting: Counting) -> String {
    let mut table = Table::new(&[
        "",
        "requests/s",
        "CPU µs/request",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "core busy",
        "grown MiB",
        "generator µs/request",
        "generator busy",
        counting.name(),
    ]);
    for name in names {
        let all: Vec<Option<&Figures>> = of_side(rounds, name, counting).collect();
        let counted: Vec<&Figures> = all.iter().copied().flatten().collect();
        let middle =
            |of: fn(&Figures) -> Option<f64>| median(counted.iter().filter_map(|figures| of(figures)));
        table.row(vec![
            (*name).to_owned(),
            middle(|f| Some(f.requests_per_s)).map_or_else(|| "-".to_owned(), thousands),
            figure(middle(|f| f.server_cpu_us_per_request), 3),
            figure(middle(|f| Some(f.latency_us?.p50)), 0),
            figure(middle(|f| Some(f.latency_us?.p99)), 0),
            figure(middle(|f| Some(f.latency_us?.p99_9)), 0),
            percent(middle(|f| f.server_busy)),
            figure(middle(Figures::grown_mib), 1),
            figure(middle(|f| Some(f.generator_cpu_us_per_request)), 3),
            percent(middle(|f| f.generator_busy)),
            format!("{} of {}", counted.len(), all.len()),
        ]);
    }
    let mut text = table.to_string();
    text.push_str(
        "Ratios, the first named over the second: above 1 means more CPU per request, and more requests/s.\n",
    );
    for (at, name) in names.iter().enumerate() {
        if at > 0 && names.len() > SIDES_WITH_ALL_PAIRS {
            break;
        }
        for other in &names[at + 1..] {
            let costs = ratios(rounds, name, other, counting, |f| f.server_cpu_us_per_request);
            let rates = ratios(rounds, name, other, Counting::All, |f| Some(f.requests_per_s));
            text.push_str(&format!("CPU per request {name} / {other}: {}\n", with_median(&costs)));
            text.push_str(&format!("requests/s {name} / {other}: {}\n", with_median(&rates)));
            if counting == Counting::Undisturbed {
                let tails = ratios(rounds, name, other, counting, |f| Some(f.latency_us?.p99));
                text.push_str(&format!("p99 {name} / {other}: {}\n", with_median(&tails)));
                let tails = ratios(rounds, name, other, counting, |f| Some(f.latency_us?.p99_9));
                text.push_str(&format!("p99.9 {name} / {other}: {}\n", with_median(&tails)));
            }
        }
    }
    if let Some(device_us) = rounds.iter().find_map(|round| round.device_sync_us) {
        text.push_str(&first_above(names, rounds, device_us));
    }
    text
}

/// How far the first level's p50 lies above each other one's, in the device's own time.
fn first_above(names: &[&str], rounds: &[Round], device_us: f64) -> String {
    let p50 = |name: &str| {
        let counted = of_side(rounds, name, Counting::All).flatten();
        median(counted.filter_map(|figures| Some(figures.latency_us?.p50)))
    };
    let mut text = format!("4 KiB write and sync of the device: {device_us:.0} µs\n");
    for pair in names.iter().skip(1).map(|name| (names[0], *name)) {
        let Some((first, other)) = p50(pair.0).zip(p50(pair.1)) else { continue };
        let above = first - other;
        let times = above / device_us;
        text.push_str(&format!("p50 {} above {}: {above:.0} µs, {times:.2} of them\n", pair.0, pair.1));
    }
    text
}

/// A side's rounds in their order; nothing in the place of one that does not count.
fn of_side<'r>(
    rounds: &'r [Round],
    name: &str,
    counting: Counting,
) -> impl Iterator<Item = Option<&'r Figures>> + use<'r> {
    let mine: Vec<&Figures> =
        rounds.iter().filter(|round| round.side == name).map(|round| &round.figures).collect();
    let counts: Vec<bool> = mine.iter().map(|round| counting.counts(round, &mine)).collect();
    mine.into_iter().zip(counts).map(|(round, counts)| counts.then_some(round))
}

/// One side's figure over the other's, round by round, where both count and have it.
fn ratios(
    rounds: &[Round],
    name: &str,
    other: &str,
    counting: Counting,
    of: fn(&Figures) -> Option<f64>,
) -> Vec<f64> {
    let pairs = of_side(rounds, name, counting).zip(of_side(rounds, other, counting));
    pairs.filter_map(|(left, right)| Some(of(left?)? / of(right?)?)).collect()
}

fn with_median(values: &[f64]) -> String {
    let each: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    format!("{} (median of {}: {})", figure(median(values.iter().copied()), 3), values.len(), each.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_without_a_round_that_counts_are_named_with_what_to_do() {
        assert_eq!(Counting::Saturated.lacks(&[]), None);
        let reason = Counting::Saturated.lacks(&["ringwatch", "nginx"]).unwrap();
        for part in ["ringwatch, nginx had no round in which its core was 95 % busy", "--duration"] {
            assert!(reason.contains(part), "{part:?} is not in {reason:?}");
        }
    }
}
