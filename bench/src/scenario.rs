//! A scenario: a load as a file, with the answer that is right, so that a fast wrong run fails.
//!
//! ```toml
//! about = "one line"
//! connections = 10_000
//! arrival = "poisson"            # closed, once, constant, poisson, ramp, burst
//! requests_per_s = 20_000        # or share_of_maximum, of what a closed loop reached just before
//! duration_s = 5
//! server = { "ingest.durability" = "written" }
//! expect.failed = 0
//! ```
//!
//! Always: an unknown key is refused by its name and line; what every scenario expects without saying so is that
//! exactly the acknowledged samples are stored.
//! Not here: who runs it against whom (`play.rs`, `compare.rs`).
//! Read next: `scenario/expect.rs` for the right answers; the files lie in `bench/scenarios/`.

use crate::arrivals::Shape;
use crate::measure::Subjects;
use crate::plan::{
    BATCH_MAX, CONNECTIONS_MAX, Durability, LABELS_MAX, Lifetime, Offer, Plan, RATE_MAX, Refusals,
    SERIES_MAX, Target,
};
use crate::progress::Progress;
use crate::request::Form;
use crate::trial::metric_name;
use expect::Expect;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

pub(crate) mod expect;

/// Each file of `bench/scenarios/`, under its name.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    ("single-64", include_str!("../scenarios/single-64.toml")),
    ("single-1000", include_str!("../scenarios/single-1000.toml")),
    ("single-10000", include_str!("../scenarios/single-10000.toml")),
    ("light-20000", include_str!("../scenarios/light-20000.toml")),
    ("batch-100-two-tags", include_str!("../scenarios/batch-100-two-tags.toml")),
    ("remote-write-scrape", include_str!("../scenarios/remote-write-scrape.toml")),
    ("remote-write-10-samples", include_str!("../scenarios/remote-write-10-samples.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
    ("connections-10000-60-percent", include_str!("../scenarios/connections-10000-60-percent.toml")),
    ("overload-x3", include_str!("../scenarios/overload-x3.toml")),
    ("synced-1000", include_str!("../scenarios/synced-1000.toml")),
    ("synced-64", include_str!("../scenarios/synced-64.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("accept-storm", include_str!("../scenarios/accept-storm.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    ("ramp", include_str!("../scenarios/ramp.toml")),
];

/// When requests leave, as a file says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrival {
    /// The next when the last was answered.
    Closed,
    /// One per connection.
    Once,
    /// On a clock, evenly.
    Constant,
    /// On a clock, independently of each other.
    Poisson,
    /// On a clock, faster and faster.
    Ramp,
    /// On a clock, in groups.
    Burst,
}

/// A setting of the server that a scenario starts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Setting {
    /// `true` or `false`.
    Switch(bool),
    /// A whole number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Switch(value) => value.fmt(f),
            Setting::Number(value) => value.fmt(f),
            Setting::Text(value) => f.write_str(value),
        }
    }
}

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// By which it was found; none that was made here has one.
    #[serde(skip)]
    pub name: Option<String>,
    /// Of a closed loop that is to end by number, in whatever time that takes up to its duration.
    #[serde(skip)]
    pub requests: Option<u64>,
    /// What it shows, in a line.
    pub about: String,
    /// Open at once.
    pub connections: u32,
    /// When requests leave.
    pub arrival: Arrival,
    /// Of an open loop.
    pub requests_per_s: Option<u64>,
    /// Of an open loop, in place of a rate: this share of what a closed loop on the same connections reached.
    pub share_of_maximum: Option<f64>,
    /// Of a ramp: the rate at its start, as a share of its end's.
    #[serde(default = "tenth")]
    pub ramp_from_share: f64,
    /// Of bursts: arrivals at one moment.
    #[serde(default = "hundred")]
    pub burst: u64,
    /// Of everything that is drawn.
    #[serde(default = "one")]
    pub seed: u64,
    /// Of the measured window.
    #[serde(default = "seconds")]
    pub duration_s: f64,
    /// Before it.
    #[serde(default = "second")]
    pub warmup_s: f64,
    /// How long the connections stay idle before the load.
    #[serde(default)]
    pub idle_s: f64,
    /// Of connections.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// What a refusal changes.
    #[serde(default)]
    pub refusals: Refusals,
    /// Of an open loop: how long an arrival waits for a free connection before its client gives it up.
    pub patience_ms: Option<u64>,
    /// How a request carries samples.
    #[serde(default)]
    pub form: Form,
    /// Samples in a request.
    #[serde(default = "one_sample")]
    pub batch: u32,
    /// Label sets per connection: none has no labels, one has `connection`, more have `connection` and `series`.
    #[serde(default = "one_sample")]
    pub series: u32,
    /// Further labels of each series, in remote write.
    #[serde(default)]
    pub labels: u32,
    /// Samples of a series in a row, in remote write.
    #[serde(default = "one_sample")]
    pub samples_per_series: u32,
    /// Asked for by header.
    pub durability: Option<Durability>,
    /// Settings of the server that is started.
    #[serde(default)]
    pub server: BTreeMap<String, Setting>,
    /// The right answer.
    #[serde(default)]
    pub expect: Expect,
}

/// Of a short closed loop, which ends by number.
const SHORT_PATIENCE_S: f64 = 60.0;

fn tenth() -> f64 {
    0.1
}
fn hundred() -> u64 {
    100
}
fn one() -> u64 {
    1
}
fn one_sample() -> u32 {
    1
}
fn second() -> f64 {
    1.0
}
fn seconds() -> f64 {
    4.0
}

/// Why there is no scenario.
#[derive(Debug)]
pub(crate) enum ScenarioError {
    /// Neither a file nor a known name.
    Unknown(String),
    /// The file cannot be read.
    Read {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, or a key that is not known, missing or of another kind; says where.
    Parse {
        /// Which.
        file: String,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// Keys that do not go together, or a figure out of its bounds.
    Invalid {
        /// Which.
        file: String,
        /// Which key.
        key: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScenarioError::Unknown(name) => {
                let known: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
                write!(f, "{name:?} is neither a file nor one of {}", known.join(", "))
            }
            ScenarioError::Read { file, source } => write!(f, "{file} cannot be read: {source}"),
            ScenarioError::Parse { file, source } => write!(f, "{file}: {source}"),
            ScenarioError::Invalid { file, key, wanted } => write!(f, "{file}: {key} {wanted}"),
        }
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// One sample a request, each connection sending its next when the last was answered.
    pub(crate) fn closed(connections: u32) -> Scenario {
        Scenario {
            name: None,
            requests: None,
            about: String::new(),
            connections,
            arrival: Arrival::Closed,
            requests_per_s: None,
            share_of_maximum: None,
            ramp_from_share: tenth(),
            burst: hundred(),
            seed: one(),
            duration_s: seconds(),
            warmup_s: second(),
            idle_s: 0.0,
            lifetime: Lifetime::default(),
            refusals: Refusals::default(),
            patience_ms: None,
            form: Form::default(),
            batch: one_sample(),
            series: one_sample(),
            labels: 0,
            samples_per_series: one_sample(),
            durability: None,
            server: BTreeMap::new(),
            expect: Expect::default(),
        }
    }

    /// The scenario of that name, or in that file.
    pub(crate) fn find(name: &str) -> Result<Scenario, ScenarioError> {
        if let Some((known, text)) = KNOWN.iter().find(|(known, _)| *known == name) {
            return Ok(Scenario { name: Some((*known).to_owned()), ..Scenario::parse(known, text)? });
        }
        let path = Path::new(name);
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ScenarioError::Unknown(name.to_owned()),
            _ => ScenarioError::Read { file: name.to_owned(), source },
        })?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Scenario { name: stem, ..Scenario::parse(name, &text)? })
    }

    /// Understands a file's text; `file` is for errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text)
            .map_err(|source| ScenarioError::Parse { file: file.to_owned(), source: Box::new(source) })?;
        match scenario.fault() {
            None => Ok(scenario),
            Some((key, wanted)) => Err(ScenarioError::Invalid { file: file.to_owned(), key, wanted }),
        }
    }

    /// The first key that is wrong, and what it should be.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let is_time = |seconds: f64| (0.0..=86_400.0).contains(&seconds);
        let rates = usize::from(self.requests_per_s.is_some()) + usize::from(self.share_of_maximum.is_some());
        let is_positive = |share: f64| share > 0.0 && share <= 1_000.0;
        let rules = [
            ((1..=CONNECTIONS_MAX).contains(&self.connections), "connections", "is out of bounds"),
            ((1..=BATCH_MAX).contains(&self.batch), "batch", "is out of bounds"),
            (self.series <= SERIES_MAX, "series", "is out of bounds"),
            (
                self.labels == 0 || (self.form == Form::RemoteWrite && self.labels <= LABELS_MAX),
                "labels",
                "is for remote write, 60 at most",
            ),
            (
                self.samples_per_series == 1
                    || (self.form == Form::RemoteWrite && (1..=BATCH_MAX).contains(&self.samples_per_series)),
                "samples_per_series",
                "is for remote write, and at least 1",
            ),
            ((1..=RATE_MAX).contains(&self.burst), "burst", "is out of bounds"),
            (is_positive(self.ramp_from_share), "ramp_from_share", "is to be above 0"),
            (
                is_time(self.duration_s) && self.duration_s > 0.0,
                "duration_s",
                "is to be above 0, a day at most",
            ),
            (is_time(self.warmup_s), "warmup_s", "is to be a day at most"),
            (is_time(self.idle_s), "idle_s", "is to be a day at most"),
            (
                rates == usize::from(self.is_open()),
                "requests_per_s",
                "or share_of_maximum is for arrivals on a clock, which need one of them",
            ),
            (
                self.requests_per_s.is_none_or(|rate| (1..=RATE_MAX).contains(&rate)),
                "requests_per_s",
                "is out of bounds",
            ),
            (self.share_of_maximum.is_none_or(is_positive), "share_of_maximum", "is to be above 0"),
            (
                self.patience_ms.is_none_or(|ms| self.is_open() && (1..=60_000).contains(&ms)),
                "patience_ms",
                "is for arrivals on a clock, and up to a minute",
            ),
            (
                self.expect.goodput_of_maximum_min.is_none() || self.share_of_maximum.is_some(),
                "expect.goodput_of_maximum_min",
                "needs share_of_maximum",
            ),
            (
                self.expect.p99_of_maximum_max.is_none() || self.share_of_maximum.is_some(),
                "expect.p99_of_maximum_max",
                "needs share_of_maximum",
            ),
        ];
        rules.into_iter().find(|(holds, ..)| !holds).map(|(_, key, wanted)| (key, wanted))
    }

    /// Whether requests leave on a clock.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.arrival, Arrival::Closed | Arrival::Once)
    }

    /// The offer; `maximum` is what a closed loop reached, for a share of it.
    fn offer(&self, maximum: Option<f64>) -> Offer {
        let share = self.share_of_maximum.zip(maximum).map(|(share, maximum)| (share * maximum) as u64);
        let requests_per_s = self.requests_per_s.or(share).unwrap_or(1).clamp(1, RATE_MAX);
        let from_per_s = ((requests_per_s as f64 * self.ramp_from_share) as u64).clamp(1, RATE_MAX);
        let shape = match self.arrival {
            Arrival::Closed => {
                return self.requests.map_or(Offer::Closed, |requests| Offer::Accepted { requests });
            }
            Arrival::Once => return Offer::Once,
            Arrival::Constant => Shape::Constant,
            Arrival::Poisson => Shape::Poisson,
            Arrival::Ramp => Shape::Ramp { from_per_s },
            Arrival::Burst => Shape::Burst { size: self.burst },
        };
        Offer::Open { requests_per_s, shape }
    }

    /// The load against a target. `maximum` is what [`Scenario::probe`] reached, where a share of it is asked for.
    pub(crate) fn plan(&self, target: Target, subjects: Subjects, maximum: Option<f64>) -> Plan {
        Plan {
            target,
            offer: self.offer(maximum),
            connections: self.connections,
            lifetime: self.lifetime,
            refusals: self.refusals,
            patience: self.patience_ms.map(Duration::from_millis),
            seed: self.seed,
            warmup: Duration::from_secs_f64(self.warmup_s),
            duration: Duration::from_secs_f64(self.duration_s),
            idle: Duration::from_secs_f64(self.idle_s),
            form: self.form,
            batch: self.batch,
            series: self.series,
            labels: self.labels,
            run: self.samples_per_series,
            tenth_replaced_every: None,
            age: Duration::ZERO,
            tells_each: false,
            durability: self.durability,
            metric: metric_name(),
            subjects,
            progress: Progress::Silent,
        }
    }

    /// The closed loop whose rate a share refers to, if one is needed.
    pub(crate) fn probe(&self) -> Option<Scenario> {
        self.share_of_maximum.map(|_| Scenario {
            arrival: Arrival::Closed,
            requests_per_s: None,
            share_of_maximum: None,
            refusals: Refusals::Obeyed,
            patience_ms: None,
            duration_s: if self.requests.is_some() { SHORT_PATIENCE_S } else { self.duration_s },
            expect: Expect::default(),
            ..self.clone()
        })
    }

    /// The same in fractions of a second on a few connections, closed loops by number, without expectations that
    /// depend on time: so that no file rots.
    pub(crate) fn short(&self) -> Scenario {
        let is_closed = self.arrival == Arrival::Closed;
        Scenario {
            requests: Some(50),
            connections: self.connections.min(8),
            requests_per_s: self.requests_per_s.map(|rate| rate.min(300)),
            burst: self.burst.min(10),
            duration_s: if is_closed { SHORT_PATIENCE_S } else { self.duration_s.min(0.15) },
            warmup_s: 0.0,
            idle_s: self.idle_s.min(0.01),
            expect: self.expect.short(self.is_open()),
            ..self.clone()
        }
    }

    /// The server's settings as `KEY=VALUE`.
    pub(crate) fn settings(&self) -> Vec<String> {
        self.server.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "about = \"x\"\nconnections = 1\narrival = \"closed\"\n";

    #[test]
    fn every_file_of_the_folder_is_known_by_its_name_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut files: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let mut known: Vec<String> = KNOWN.iter().map(|(name, _)| (*name).to_owned()).collect();
        known.sort();
        assert_eq!(files, known);
        for name in known {
            Scenario::find(&name).unwrap();
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_name_and_line() {
        for (line, key) in [("conections = 5", "conections"), ("expect.p98_us_max = 5", "p98_us_max")] {
            let error = Scenario::parse("f", &format!("{LEAST}{line}\n")).unwrap_err().to_string();
            assert!(error.contains("line 4") && error.contains(key), "{error}");
        }
    }

    #[test]
    fn keys_that_do_not_go_together_are_named() {
        let open = LEAST.replace("closed", "poisson");
        for (text, key) in [
            (LEAST.replace("= 1", "= 0"), "connections"),
            (format!("{LEAST}requests_per_s = 5\n"), "requests_per_s"),
            (open.clone(), "requests_per_s"),
            (format!("{open}requests_per_s = 5\nshare_of_maximum = 0.5\n"), "requests_per_s"),
            (format!("{open}share_of_maximum = 0.0\n"), "share_of_maximum"),
            (format!("{LEAST}duration_s = -1\n"), "duration_s"),
            (format!("{LEAST}expect.goodput_of_maximum_min = 0.8\n"), "expect.goodput_of_maximum_min"),
        ] {
            match Scenario::parse("f", &text) {
                Err(ScenarioError::Invalid { key: found, .. }) => assert_eq!(found, key, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_share_becomes_a_rate_and_a_probe() {
        let text =
            LEAST.replace("closed", "ramp") + "share_of_maximum = 3\nserver = { shards = 2, x = \"y\" }\n";
        let scenario = Scenario::parse("f", &text).unwrap();
        assert_eq!(scenario.probe().unwrap().offer(None), Offer::Closed);
        let shape = Shape::Ramp { from_per_s: 300 };
        assert_eq!(scenario.offer(Some(1_000.0)), Offer::Open { requests_per_s: 3_000, shape });
        assert_eq!(scenario.settings(), ["shards=2", "x=y"]);
    }

    #[test]
    fn what_is_neither_a_name_nor_a_file_is_answered_with_the_names() {
        let error = Scenario::find("no-such").unwrap_err().to_string();
        assert!(error.contains("single-64") && error.contains("no-such"), "{error}");
    }
}
