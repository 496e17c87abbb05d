//! `bench report`: the records as plots in one page that needs nothing else, no script either.
//!
//! ```text
//! files of records → rounds → medians by machine, side and place on the axis → charts → one page
//! ```
//!
//! Always: a later record replaces an earlier one of the same side at the same place; what is no round of a load is
//! counted and said, never drawn.
//! Read next: `plot/points.rs` for what is drawn of a record, `plot/chart.rs` for one chart.

use crate::Verdict;
use clap::Args;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod chart;
mod page;
mod points;

#[cfg(test)]
mod tests;

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ReportArguments {
    /// Files of records, or folders that hold `.jsonl` files at any depth
    #[arg(value_name = "FILE|FOLDER", default_value = "bench/records")]
    records: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "bench-report.html")]
    out: PathBuf,
}

/// Folders below one that is named, at most.
const DEPTH_MAX: u32 = 8;

/// Draws the page, and fails when there is nothing to draw.
pub(crate) fn run(arguments: &ReportArguments) -> Result<Verdict, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in &arguments.records {
        collect(path, DEPTH_MAX, &mut files).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    files.sort();
    let mut texts = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|cause| format!("{}: {cause}", file.display()))?;
        texts.push((file.display().to_string(), text));
    }
    let records = points::read(&texts)?;
    let machines = points::by_machine(&records);
    let charts: usize = machines.iter().map(|machine| machine.charts.len()).sum();
    if charts == 0 {
        return Err("no record holds a round of a load: nothing to draw".into());
    }
    fs::write(&arguments.out, page::page(&machines))?;
    println!(
        "{}: {charts} charts of {} rounds; {} other records have none",
        arguments.out.display(),
        records.rounds.len(),
        records.others
    );
    Ok(Verdict::Passed)
}

/// The file itself, or every `.jsonl` file below the folder.
fn collect(path: &Path, depth: u32, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if path.extension().is_some_and(|ending| ending == "jsonl") {
            files.push(path);
        }
    }
    Ok(())
}
