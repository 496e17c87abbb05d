//! The end of every run against a ringwatch: what was acknowledged is stored, once, and nothing else.
//!
//! The run's metric name is its own, and samples without a timestamp all count (SPEC §2.1), so the `count` of
//! `GET /percentile` is the answer. A query that is too expensive for the server (422) is asked in halves of time.
//! A foreign server that speaks PromQL is asked in its own words.
//! Always: a server that gives no count fails the check.

use crate::fetch::{self, FetchError};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

mod promql;

/// Halvings of the time range at most.
const HALVINGS_MAX: u32 = 12;

/// Around the run's own times: the server's clock stamps the samples.
const MARGIN_MS: i64 = 60_000;

/// Who can be asked what it stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// A ringwatch.
    Stored,
    /// A server with Prometheus' query interface.
    PromQl {
        /// A path that makes what is pending visible, if it needs that.
        flush: Option<&'static str>,
    },
    /// Nobody: it stores nothing, or cannot tell.
    Nothing,
}

/// What a run may find stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Samples answered with 2xx.
    pub acknowledged: u64,
    /// Samples sent whose answer never came: each may be stored or not.
    pub unanswered: u64,
}

impl Expected {
    /// The counts that are right.
    pub(crate) fn counts(self) -> RangeInclusive<u64> {
        self.acknowledged..=self.acknowledged + self.unanswered
    }
}

/// Why a run's samples are not as they should be.
#[derive(Debug)]
pub(crate) enum CheckError {
    /// Samples are missing or too many.
    Count {
        /// What the server counts.
        stored: u64,
        /// What would be right.
        expected: Expected,
    },
    /// The server could not be asked.
    Fetch(FetchError),
    /// The server answered something else than a count.
    Answer {
        /// Its status.
        status: u16,
        /// How the body begins.
        body: String,
    },
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Count { stored, expected: Expected { acknowledged, unanswered } } => {
                let verdict = if stored < acknowledged { "samples are lost" } else { "samples are doubled" };
                write!(f, "{verdict}: {acknowledged} acknowledged, {unanswered} unanswered, {stored} stored")
            }
            CheckError::Fetch(cause) => write!(f, "the server could not be asked what it stored: {cause}"),
            CheckError::Answer { status, body } => {
                write!(
                    f,
                    "the server does not say what it stored: {status} {body} (a foreign server? --no-check)"
                )
            }
        }
    }
}

impl std::error::Error for CheckError {}

/// Asks the server how many samples of the name it holds, of a run between these wall-clock times in milliseconds,
/// and compares; without anybody to ask, what is expected is taken for stored.
pub(crate) fn check(
    whom: Check,
    addr: SocketAddr,
    metric: &str,
    run_ms: RangeInclusive<i64>,
    expected: Expected,
) -> Result<u64, CheckError> {
    let stored = match whom {
        Check::Nothing => return Ok(expected.acknowledged),
        Check::PromQl { flush } => promql::stored(addr, metric, *run_ms.end(), flush)?,
        Check::Stored => stored(addr, metric, widened(run_ms), HALVINGS_MAX)?,
    };
    judge(stored, expected)
}

/// The same of the first connection's series alone, where all are too many to be counted.
pub(crate) fn check_first(
    addr: SocketAddr,
    metric: &str,
    run_ms: RangeInclusive<i64>,
    expected: Expected,
) -> Result<u64, CheckError> {
    let asked = format!("{metric}&match=%7Bconnection%3D%22000000%22%7D");
    judge(stored(addr, &asked, widened(run_ms), HALVINGS_MAX)?, expected)
}

fn widened(run_ms: RangeInclusive<i64>) -> RangeInclusive<i64> {
    run_ms.start().saturating_sub(MARGIN_MS).max(0)..=run_ms.end().saturating_add(MARGIN_MS)
}

fn judge(stored: u64, expected: Expected) -> Result<u64, CheckError> {
    if expected.counts().contains(&stored) { Ok(stored) } else { Err(CheckError::Count { stored, expected }) }
}

fn stored(
    addr: SocketAddr,
    asked: &str,
    times: RangeInclusive<i64>,
    halvings: u32,
) -> Result<u64, CheckError> {
    let (start, end) = times.into_inner();
    let path = format!("/percentile?name={asked}&percentile=50&start={start}&end={end}");
    let (status, body) = fetch::get(addr, &path).map_err(CheckError::Fetch)?;
    if status == 422 && halvings > 0 && start < end {
        let middle = start + (end - start) / 2;
        return Ok(stored(addr, asked, start..=middle, halvings - 1)?
            + stored(addr, asked, middle + 1..=end, halvings - 1)?);
    }
    count_in(status, &body, count)
}

/// The count in an answer of 200, or what was answered instead.
fn count_in(status: u16, body: &[u8], count: fn(&[u8]) -> Option<u64>) -> Result<u64, CheckError> {
    count(body).filter(|_| status == 200).ok_or_else(|| CheckError::Answer {
        status,
        body: String::from_utf8_lossy(body).chars().take(200).collect(),
    })
}

fn count(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.get("count")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responder::Responder;

    const RUN: RangeInclusive<i64> = 1_790_000_000_000..=1_790_000_010_000;

    fn expected(acknowledged: u64, unanswered: u64) -> Expected {
        Expected { acknowledged, unanswered }
    }

    #[test]
    fn the_count_must_lie_between_acknowledged_and_sent() {
        let server = Responder::storing(100);
        for (acknowledged, unanswered, right) in
            [(100, 0, true), (99, 0, false), (101, 0, false), (98, 2, true), (98, 1, false), (100, 5, true)]
        {
            let checked =
                check(Check::Stored, server.addr(), "bench_x", RUN, expected(acknowledged, unanswered));
            assert_eq!(checked.is_ok(), right, "{acknowledged} {unanswered}");
        }
    }

    #[test]
    fn a_query_that_is_too_expensive_is_asked_in_parts() {
        let server = Responder::storing_at_most_in_one_answer(1_000, RUN, 100);
        assert_eq!(check(Check::Stored, server.addr(), "bench_x", RUN, expected(1_000, 0)).unwrap(), 1_000);
    }

    #[test]
    fn a_server_without_a_count_fails_the_check() {
        let server = Responder::foreign();
        let error = check(Check::Stored, server.addr(), "bench_x", RUN, expected(0, 0)).unwrap_err();
        assert!(matches!(error, CheckError::Answer { status: 404, .. }), "{error}");
        assert!(error.to_string().contains("--no-check"));
    }
}
