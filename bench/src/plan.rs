//! What a run offers to whom: settled before the first byte is sent.

use crate::arrivals::{Schedule, Shape};
use crate::measure::Subjects;
use crate::progress::Progress;
use crate::request::Form;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Connections of one run at most.
pub(crate) const CONNECTIONS_MAX: u32 = 500_000;

/// Label sets per connection at most.
pub(crate) const SERIES_MAX: u32 = 1_000_000;

/// Further labels of a series at most.
pub(crate) const LABELS_MAX: u32 = 60;

/// Samples per request at most.
pub(crate) const BATCH_MAX: u32 = 100_000;

/// Requests per second at most.
pub(crate) const RATE_MAX: u64 = 10_000_000;

/// How far a sample shall be before its answer comes; the words of the `Durability` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// In the server's memory
    Memory,
    /// Handed to the kernel
    Written,
    /// On the device
    Synced,
}

impl Durability {
    /// The word in header and configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Written => "written",
            Durability::Synced => "synced",
        }
    }

    /// The level of that name.
    pub(crate) fn from_name(name: &[u8]) -> Option<Durability> {
        let levels = [Durability::Memory, Durability::Written, Durability::Synced];
        levels.into_iter().find(|level| level.name().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// When requests leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// On a clock; latency counts from the intended moment.
    Open {
        /// Arrivals a second, over all connections.
        requests_per_s: u64,
        /// How they lie around that rate.
        shape: Shape,
    },
    /// Each connection sends its next request when the last was answered.
    Closed,
    /// As closed, until so many requests were accepted; the plan's duration is the patience.
    Accepted {
        /// No more than these are accepted.
        requests: u64,
    },
    /// Each connection sends one request.
    Once,
}

impl Offer {
    /// On a clock that strikes evenly.
    pub(crate) fn evenly(requests_per_s: u64) -> Offer {
        Offer::Open { requests_per_s, shape: Shape::Constant }
    }
}

/// How long a connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Lifetime {
    /// Open before the load begins, for as long as the server keeps it
    #[default]
    Kept,
    /// Opened when its request is due, and closed with the answer; the latency counts both
    PerRequest,
}

/// What a client does when it is told to come back later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusals {
    /// It rests for `Retry-After`, longer each time in a row
    #[default]
    Obeyed,
    /// It sends its next request at once, as a crowd of other clients would
    Ignored,
}

/// What was offered, as the record keeps it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Offered {
    /// `constant`, `poisson`, `ramp`, `burst`, `closed`, `accepted` or `once`.
    arrival: &'static str,
    /// Of an open loop.
    requests_per_s: Option<u64>,
    /// Of a ramp.
    from_per_s: Option<u64>,
    /// Of bursts.
    burst: Option<u64>,
    /// Of all that is drawn: gaps of a Poisson process, jitter of pauses.
    seed: u64,
    connections: u32,
    lifetime: Lifetime,
    refusals: Refusals,
    /// Of arrivals that find no free connection.
    patience_ms: Option<u64>,
    form: Form,
    /// Samples of each request.
    pub batch: u32,
    series: u32,
    labels: u32,
    samples_per_series: u32,
    /// How often a tenth of the series is replaced by new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenth_replaced_every_s: Option<f64>,
    /// Of the first sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_s: Option<u64>,
    durability: Option<&'static str>,
}

impl Plan {
    /// The moments of an open loop's requests.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        let Offer::Open { requests_per_s, shape } = self.offer else { return None };
        Some(Schedule { shape, requests_per_s, span: self.warmup + self.duration, seed: self.seed })
    }

    /// For the record.
    pub(crate) fn offered(&self) -> Offered {
        let (arrival, requests_per_s, shape) = match self.offer {
            Offer::Open { requests_per_s, shape } => (shape.name(), Some(requests_per_s), Some(shape)),
            Offer::Closed => ("closed", None, None),
            Offer::Accepted { .. } => ("accepted", None, None),
            Offer::Once => ("once", None, None),
        };
        Offered {
            arrival,
            requests_per_s,
            from_per_s: match shape {
                Some(Shape::Ramp { from_per_s }) => Some(from_per_s),
                _ => None,
            },
            burst: match shape {
                Some(Shape::Burst { size }) => Some(size),
                _ => None,
            },
            seed: self.seed,
            connections: self.connections,
            lifetime: self.lifetime,
            refusals: self.refusals,
            patience_ms: self.patience.map(|patience| patience.as_millis() as u64),
            form: self.form,
            batch: self.batch,
            series: self.series,
            labels: self.labels,
            samples_per_series: self.run,
            tenth_replaced_every_s: self.tenth_replaced_every.map(|every| every.as_secs_f64()),
            age_s: (!self.age.is_zero()).then_some(self.age.as_secs()),
            durability: self.durability.map(Durability::name),
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Whom.
    pub target: Target,
    /// When.
    pub offer: Offer,
    /// Open at once, each with at most one request in flight.
    pub connections: u32,
    /// How long each of them lives.
    pub lifetime: Lifetime,
    /// What a refusal changes.
    pub refusals: Refusals,
    /// How long an arrival waits for a free connection before its client gives it up; for ever when absent.
    pub patience: Option<Duration>,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Load before the window that is measured.
    pub warmup: Duration,
    /// The window that is measured.
    pub duration: Duration,
    /// How long the connections stay idle before the load, so that their memory can be read.
    pub idle: Duration,
    /// How a request carries samples.
    pub form: Form,
    /// Samples in a request.
    pub batch: u32,
    /// Label sets per connection; 0 for one series without labels.
    pub series: u32,
    /// Further labels of each, in remote write.
    pub labels: u32,
    /// Samples of a series in a row, in remote write.
    pub run: u32,
    /// How often a tenth of the series is replaced by new ones; never when absent.
    pub tenth_replaced_every: Option<Duration>,
    /// How old the first sample is, where a form says times.
    pub age: Duration,
    /// Whether the outcome is to tell each accepted request of the window.
    pub tells_each: bool,
    /// Asked for by header; the server's default when absent.
    pub durability: Option<Durability>,
    /// The name of every sample; no other run has it.
    pub metric: String,
    /// Whose cost is read. The generator is pinned to the core that is named here.
    pub subjects: Subjects,
    /// Where to tell each second how it goes.
    pub progress: Progress,
}

/// A server and a path on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where samples are posted to.
    pub path: String,
}

/// Why a target was not understood.
#[derive(Debug)]
pub(crate) enum TargetError {
    /// Another scheme than http.
    Scheme,
    /// Not host and port.
    Address(String),
    /// The name did not resolve.
    Unresolved(String),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Scheme => f.write_str("only http:// is spoken here"),
            TargetError::Address(text) => write!(f, "{text:?} is no HOST:PORT"),
            TargetError::Unresolved(text) => write!(f, "{text:?} does not resolve to an address"),
        }
    }
}

impl std::error::Error for TargetError {}

/// The path of SPEC §2.1.
pub(crate) const INGEST_PATH: &str = "/metrics";

impl Target {
    /// Understands `http://HOST:PORT/path` and `HOST:PORT`; without a path it is `/metrics`, without a port 80.
    pub(crate) fn parse(text: &str) -> Result<Target, TargetError> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            return Err(TargetError::Scheme);
        }
        let (address, path) = match rest.find('/') {
            Some(at) if rest.len() > at + 1 => (&rest[..at], &rest[at..]),
            Some(at) => (&rest[..at], INGEST_PATH),
            None => (rest, INGEST_PATH),
        };
        let has_port = address.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok())
            && address.contains(':')
            && !address.ends_with(']');
        let with_port = if has_port { address.to_owned() } else { format!("{address}:80") };
        if address.is_empty() || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(TargetError::Address(text.to_owned()));
        }
        let mut found =
            with_port.to_socket_addrs().map_err(|_| TargetError::Unresolved(address.to_owned()))?;
        let addr = found.next().ok_or_else(|| TargetError::Unresolved(address.to_owned()))?;
        Ok(Target { addr, path: path.to_owned() })
    }
}

/// A time such as `500ms`, `4s`, `2m`; a bare number counts seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no time: use 500ms, 4s, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no time: use 500ms, 4s, 2m or 1h"))?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| *time <= DURATION_MAX)
        .ok_or_else(|| format!("{text:?} is beyond a day"))
}

/// Everything here ends by itself, and within a day.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_understood_with_and_without_scheme_and_path() {
        for (text, addr, path) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", "/metrics"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "/metrics"),
            ("http://127.0.0.1:8080/", "127.0.0.1:8080", "/metrics"),
            ("http://127.0.0.1/a/b?c=d", "127.0.0.1:80", "/a/b?c=d"),
            ("[::1]:81/x", "[::1]:81", "/x"),
            ("[::1]", "[::1]:80", "/metrics"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.addr, target.path.as_str()), (addr.parse().unwrap(), path), "{text}");
        }
    }

    #[test]
    fn other_targets_are_refused() {
        for text in ["https://127.0.0.1:1", "", "/x", "127.0.0.1:1/a b"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units_and_an_end() {
        for (text, millis) in [("500ms", 500), ("4s", 4_000), ("4", 4_000), ("0.5s", 500), ("2m", 120_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "4 s", "-1s", "25h", "1d", "1.2.3s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
