//! `bench scaling`: what grows with the number of shards, on any machine: parts of the whole, each with as many rings,
//! files or threads as that many shards would have.
//!
//! Always: every part checks what came out of it. Two cores are enough for all of them: no more threads than that are
//! busy at once, but for those that wait for the device.
//! Not here: the server, and what follows for 16 and 64 cores (`bench/SCALING.md`).

use crate::setup::default_core;
use crate::table::{Table, figure, thousands};
use crate::{Verdict, record};
use clap::Args;
use serde::Serialize;
use shard::topology;
use std::error::Error;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

mod copies;
mod rings;
mod syncs;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ScalingArguments {
    /// Whose device is synced (default: the system's folder for temporary files)
    #[arg(long, value_name = "FOLDER")]
    data_parent: Option<PathBuf>,
    /// Fractions of a second, to see that it works
    #[arg(long)]
    short: bool,
    /// Append the figures, machine, date, commit and command as one line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Shards whose rings are laid.
const SHARDS: [usize; 5] = [1, 2, 4, 16, 64];
/// Files that are synced at the same time.
const FILES: [usize; 4] = [1, 2, 4, 16];

/// How much of each part, and on which cores.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Values through rings in a round.
    values: u64,
    /// Rounds of rings. Whatever else runs on the machine only takes from them, so the best one tells.
    ring_rounds: usize,
    /// Rounds of syncs and of copies; likewise.
    timed_rounds: usize,
    /// How long one of those is.
    time: Duration,
    /// Of one copy.
    copy_bytes: usize,
    /// Two cores, the same one where there is no other.
    cores: [Option<usize>; 2],
}

impl Effort {
    fn new(is_short: bool) -> Effort {
        let first = topology::discover().ok().and_then(|found| found.allowed.first().map(|core| core.0));
        let cores = [first, default_core()];
        match is_short {
            true => Effort {
                values: 10_000,
                ring_rounds: 1,
                timed_rounds: 1,
                time: Duration::from_millis(20),
                copy_bytes: 1 << 20,
                cores,
            },
            // Copies far beyond every cache of a core.
            false => Effort {
                values: 100_000,
                ring_rounds: 50,
                timed_rounds: 8,
                time: Duration::from_millis(300),
                copy_bytes: 64 << 20,
                cores,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct Figures {
    rings: Vec<rings::OfShards>,
    syncs: Vec<syncs::OfFiles>,
    copies: Vec<copies::OfThreads>,
}

/// Measures all parts and prints a table of each.
pub(crate) fn run(arguments: &ScalingArguments) -> Result<Verdict, Box<dyn Error>> {
    let effort = Effort::new(arguments.short);
    let folder = arguments.data_parent.clone().unwrap_or_else(std::env::temp_dir);
    // On a thread of their own, for they bind it to a core, and what it starts later would inherit that.
    let rings: Vec<_> = thread::scope(|scope| {
        let all = || SHARDS.iter().map(|shards| rings::measure(*shards, &effort)).collect();
        scope.spawn(all).join().expect("rings that lose a value are a mistake of ours")
    });
    print!("{}", ring_table(&rings));
    let syncs: Vec<_> =
        FILES.iter().map(|files| syncs::measure(*files, &folder, &effort)).collect::<Result<_, _>>()?;
    print!("\n{}", sync_table(&syncs));
    let copies: Vec<_> = (1..=2).map(|threads| copies::measure(threads, &effort)).collect();
    print!("\n{}", copy_table(&copies));
    if let Some(file) = &arguments.json {
        record::append(file, &Figures { rings, syncs, copies })?;
    }
    Ok(Verdict::Passed)
}

fn ring_table(rings: &[rings::OfShards]) -> Table {
    let mut table = Table::new(&[
        "shards",
        "rings of a mesh",
        "ns a value, one core",
        "ns a value, two cores",
        "ns to look at all of a sender's rings",
    ]);
    for of in rings {
        table.row(vec![
            of.shards.to_string(),
            thousands((of.shards * of.shards) as f64),
            figure(Some(of.ns_a_value_one_core), 1),
            figure(Some(of.ns_a_value_two_cores), 1),
            figure(Some(of.ns_a_look), 1),
        ]);
    }
    table
}

fn sync_table(syncs: &[syncs::OfFiles]) -> Table {
    let mut table = Table::new(&["files synced at once", "syncs/s", "p50 µs", "p99 µs"]);
    for of in syncs {
        table.row(vec![
            of.files.to_string(),
            thousands(of.syncs_per_s),
            figure(of.p50_us, 0),
            figure(of.p99_us, 0),
        ]);
    }
    table
}

fn copy_table(copies: &[copies::OfThreads]) -> Table {
    let mut table = Table::new(&["threads that copy", "GB/s read and written"]);
    for of in copies {
        table.row(vec![of.threads.to_string(), figure(Some(of.gigabytes_per_s), 1)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that it does not rot. Method: all parts in fractions of a second; each asserts what it moved.
    #[test]
    fn every_part_runs_small_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("scaling.jsonl");
        let data_parent = folder.path().join("data");
        std::fs::create_dir(&data_parent).unwrap();
        let arguments = ScalingArguments {
            data_parent: Some(data_parent.clone()),
            short: true,
            json: Some(json.clone()),
        };
        assert_eq!(run(&arguments).unwrap(), Verdict::Passed);
        assert_eq!(std::fs::read_dir(data_parent).unwrap().count(), 0);
        let record: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
        assert_eq!(record["figures"]["rings"].as_array().map(Vec::len), Some(SHARDS.len()));
        assert!(record["figures"]["syncs"][0]["syncs_per_s"].as_f64().unwrap() > 0.0);
    }
}
