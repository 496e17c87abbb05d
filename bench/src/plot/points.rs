//! From lines of records to the medians that are drawn.

use super::chart::{Chart, Line, Scale};
use crate::figures::median;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A line that is no record.
#[derive(Debug)]
pub(super) struct ReadError {
    file: String,
    line: usize,
    source: serde_json::Error,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} is no record: {}", self.file, self.line, self.source)
    }
}

impl std::error::Error for ReadError {}

#[derive(Deserialize)]
struct Record {
    date: String,
    machine: Machine,
    figures: Value,
}

#[derive(Deserialize)]
struct Machine {
    cpu: Option<String>,
    cores: usize,
    kernel: Option<String>,
    commit: Option<String>,
}

#[derive(Deserialize)]
struct Round {
    side: String,
    connections: u32,
    figures: Figures,
}

#[derive(Deserialize)]
struct Figures {
    /// Records of the first days have none: they were closed loops of single samples, on connections that lasted.
    offered: Option<Offered>,
    requests_per_s: f64,
    latency_us: Option<Latency>,
    server_cpu_us_per_request: Option<f64>,
    /// The level that was reported.
    durability: Option<String>,
}

impl Round {
    /// The series that it belongs to: one server's levels are different things.
    fn series(&self) -> String {
        match &self.figures.durability {
            Some(level) if *level != self.side => format!("{}, {level}", self.side),
            _ => self.side.clone(),
        }
    }
}

#[derive(Clone, Deserialize)]
struct Offered {
    arrival: String,
    requests_per_s: Option<u64>,
    batch: u32,
    lifetime: String,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p99_9: f64,
}

/// One round of a load, and where it comes from.
pub(super) struct Drawn {
    machine: String,
    /// What orders records in time.
    date: String,
    commit: Option<String>,
    round: Round,
}

/// All that was read.
pub(super) struct Records {
    pub(super) rounds: Vec<Drawn>,
    /// Records without a round.
    pub(super) others: usize,
}

/// Reads files, each a name and its text.
pub(super) fn read(files: &[(String, String)]) -> Result<Records, ReadError> {
    let mut records = Records { rounds: Vec::new(), others: 0 };
    for (file, text) in files {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let record: Record = serde_json::from_str(line).map_err(|source| ReadError {
                file: file.clone(),
                line: at + 1,
                source,
            })?;
            let rounds = rounds_of(record.figures);
            records.others += usize::from(rounds.is_empty());
            let known = |what: &Option<String>| what.clone().unwrap_or_else(|| "unknown".to_owned());
            let of = &record.machine;
            let machine = format!("{}, {} cores, kernel {}", known(&of.cpu), of.cores, known(&of.kernel));
            records.rounds.extend(rounds.into_iter().map(|round| Drawn {
                machine: machine.clone(),
                date: record.date.clone(),
                commit: record.machine.commit.clone(),
                round,
            }));
        }
    }
    Ok(records)
}

/// The rounds among a record's figures; other commands keep other things there.
fn rounds_of(figures: Value) -> Vec<Round> {
    let Value::Array(items) = figures else { return Vec::new() };
    items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()
}

/// One machine's charts.
pub(super) struct OfMachine {
    pub(super) machine: String,
    /// Commit and date of the newest record.
    pub(super) newest: String,
    pub(super) charts: Vec<Chart>,
}

/// The charts of each machine, in the order of their names.
pub(super) fn by_machine(records: &Records) -> Vec<OfMachine> {
    let mut machines: BTreeMap<&str, Vec<&Drawn>> = BTreeMap::new();
    for drawn in &records.rounds {
        machines.entry(&drawn.machine).or_default().push(drawn);
    }
    let of_machine = |(machine, drawn): (&str, Vec<&Drawn>)| OfMachine {
        machine: machine.to_owned(),
        newest: newest(&drawn),
        charts: charts(&drawn),
    };
    machines.into_iter().map(of_machine).filter(|machine| !machine.charts.is_empty()).collect()
}

fn newest(drawn: &[&Drawn]) -> String {
    let Some(newest) = drawn.iter().max_by_key(|drawn| &drawn.date) else { return String::new() };
    let commit = newest.commit.as_ref().map(|commit| format!(", commit {commit}"));
    format!("newest record {}{}", newest.date, commit.unwrap_or_default())
}

/// A closed loop of single samples on connections that last: what throughput and cost are told of.
fn is_plain(round: &Round) -> bool {
    let plain =
        |offered: &Offered| offered.arrival == "closed" && offered.batch == 1 && offered.lifetime == "kept";
    round.figures.offered.as_ref().is_none_or(plain)
}

fn charts(drawn: &[&Drawn]) -> Vec<Chart> {
    let plain = |of: fn(&Figures) -> Option<f64>| {
        let points = drawn.iter().filter(|drawn| is_plain(&drawn.round)).filter_map(|drawn| {
            let round = &drawn.round;
            Some((round.series(), f64::from(round.connections), drawn.date.as_str(), of(&round.figures)?))
        });
        lines(points)
    };
    let mut charts = vec![
        Chart {
            title: "Throughput by connections".to_owned(),
            about: "closed loop, one sample a request, server on one core".to_owned(),
            x: ("connections", Scale::Log),
            y: ("requests/s", Scale::Linear),
            lines: plain(|figures| Some(figures.requests_per_s)),
        },
        Chart {
            title: "CPU per request by connections".to_owned(),
            about: "closed loop, one sample a request, all of the server's threads".to_owned(),
            x: ("connections", Scale::Log),
            y: ("µs of CPU per request", Scale::Linear),
            lines: plain(|figures| figures.server_cpu_us_per_request),
        },
    ];
    let mut counts: Vec<u32> = drawn
        .iter()
        .filter(|drawn| offered_rate(drawn).is_some())
        .map(|drawn| drawn.round.connections)
        .collect();
    counts.sort_unstable();
    counts.dedup();
    for connections in counts {
        let points = drawn.iter().filter(|drawn| drawn.round.connections == connections).flat_map(|drawn| {
            let point = |quantile: &str, latency: f64| {
                let name = format!("{} {quantile}", drawn.round.series());
                Some((name, offered_rate(drawn)?, drawn.date.as_str(), latency))
            };
            let latency = drawn.round.figures.latency_us.as_ref();
            let all = latency.map(|latency| {
                [point("p50", latency.p50), point("p99", latency.p99), point("p99.9", latency.p99_9)]
            });
            all.into_iter().flatten().flatten()
        });
        charts.push(Chart {
            title: format!("Latency by load, {connections} connections"),
            about: "requests on a clock; latency from the moment when a request should have left".to_owned(),
            x: ("requests/s offered", Scale::Log),
            y: ("µs", Scale::Log),
            lines: lines(points),
        });
    }
    charts.retain(|chart| !chart.lines.is_empty());
    charts
}

/// What a clock offered, one sample a request on connections that last; a ramp has no one rate.
fn offered_rate(drawn: &Drawn) -> Option<f64> {
    let offered = drawn.round.figures.offered.as_ref()?;
    let is_told = offered.arrival != "ramp" && offered.batch == 1 && offered.lifetime == "kept";
    offered.requests_per_s.filter(|_| is_told).map(|rate| rate as f64)
}

/// Medians over the rounds of the newest record for each name and place. Places are whole numbers.
fn lines<'d>(points: impl Iterator<Item = (String, f64, &'d str, f64)>) -> Vec<Line> {
    let mut found: BTreeMap<String, BTreeMap<u64, (&str, Vec<f64>)>> = BTreeMap::new();
    for (name, x, date, y) in points {
        let (newest, values) = found.entry(name).or_default().entry(x as u64).or_insert((date, Vec::new()));
        if date > *newest {
            *newest = date;
            values.clear();
        }
        if date == *newest {
            values.push(y);
        }
    }
    let middle = |(x, (_, values)): (u64, (&str, Vec<f64>))| Some((x as f64, median(values)?));
    found
        .into_iter()
        .map(|(name, places)| Line { name, points: places.into_iter().filter_map(middle).collect() })
        .collect()
}
