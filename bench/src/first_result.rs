//! `bench first-result`: how long a new user waits, from the start of the process until a query shows the first sample.
//!
//! Always: an empty folder and the server's own defaults, so every core and `synced`.
//! Not here: the build.

use crate::load::Live;
use crate::peer::Peer;
use crate::peer::ringwatch::{self, Ringwatch};
use crate::plan::{INGEST_PATH, parse_duration};
use crate::table::figure;
use crate::{Verdict, fetch, record};
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct FirstResultArguments {
    /// First starts, each in a folder of its own; the slowest counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time that is allowed
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    at_most: Duration,
    /// The release binary (default: beside this one)
    #[arg(long, value_name = "FILE")]
    ringwatch: Option<PathBuf>,
    /// Where its data goes while it runs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    /// Append all rounds, machine, date, commit and command as one line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One first start, in seconds from the process' begin.
#[derive(Debug, Serialize)]
struct FirstResult {
    ready_seconds: f64,
    accepted_seconds: f64,
    queried_seconds: f64,
}

const SAMPLE: &str = r#"{"name":"first_result","value":42.5}"#;

const QUERY: &str = "/query?name=first_result";

/// Between two queries that do not show the sample yet.
const POLL: Duration = Duration::from_millis(1);

/// Runs all rounds, and fails when one took longer than allowed.
pub(crate) fn run(arguments: FirstResultArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let ours = Ringwatch {
        binary: arguments.ringwatch.clone().unwrap_or_else(ringwatch::default_binary),
        core: None,
        durability: None,
        data_parent: Some(arguments.data_parent.clone()),
        sets: Vec::new(),
    };
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        if live.stop.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
        let found = first_result(&ours.start()?, arguments.at_most)?;
        println!(
            "start {round:>2}: ready after {} s, first sample accepted after {} s, queried after {} s",
            figure(Some(found.ready_seconds), 3),
            figure(Some(found.accepted_seconds), 3),
            figure(Some(found.queried_seconds), 3),
        );
        rounds.push(found);
    }
    if let Some(file) = &arguments.json {
        record::append(file, &rounds)?;
    }
    let slowest = rounds.iter().map(|round| round.queried_seconds).fold(0.0, f64::max);
    let is_exceeded = slowest > arguments.at_most.as_secs_f64();
    let verdict = if is_exceeded { "FAILED: more than" } else { "at most" };
    println!(
        "{verdict} {} s until the first result; the slowest took {slowest:.3} s",
        arguments.at_most.as_secs_f64()
    );
    Ok(Verdict::from_failed(is_exceeded))
}

/// Sends the first sample to a server that just became ready, and asks until it is shown.
fn first_result(peer: &Peer, patience: Duration) -> Result<FirstResult, Box<dyn Error>> {
    let startup = peer.startup();
    let (status, body) = fetch::post(peer.addr(), INGEST_PATH, SAMPLE)?;
    let accepted = startup.begun_at.elapsed();
    if status != 202 {
        return Err(format!(
            "the first sample was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        )
        .into());
    }
    let deadline = Instant::now() + patience;
    loop {
        let (status, body) = fetch::get(peer.addr(), QUERY)?;
        let queried = startup.begun_at.elapsed();
        if status == 200 && shows_sample(&body) {
            return Ok(FirstResult {
                ready_seconds: startup.took.as_secs_f64(),
                accepted_seconds: accepted.as_secs_f64(),
                queried_seconds: queried.as_secs_f64(),
            });
        }
        if Instant::now() > deadline {
            return Err(
                format!("no query showed the sample: {status} {}", String::from_utf8_lossy(&body)).into()
            );
        }
        thread::sleep(POLL);
    }
}

/// Whether the answer is the one row that was sent.
fn shows_sample(body: &[u8]) -> bool {
    let rows: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
    matches!(rows.as_slice(), [row] if row["name"] == "first_result" && row["value"] == 42.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_row_that_was_sent_is_a_result() {
        let row = r#"{"name":"first_result","value":42.5,"timestamp":1795257100124}"#;
        assert!(shows_sample(format!("[{row}]").as_bytes()));
        for other in [
            "[]".to_owned(),
            row.to_owned(),
            format!("[{row},{row}]"),
            row.replace("42.5", "42"),
            String::new(),
        ] {
            assert!(!shows_sample(other.as_bytes()), "{other}");
        }
    }
}
