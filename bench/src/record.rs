//! One line of JSON per run: enough to repeat it, and to compare it by machine and date.

use crate::figures::Figures;
use crate::measure::machine::{self, Machine};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// One load of a command that may make several: the form in which all of them are kept.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    /// The scenario's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// Which server, or which level of ours.
    pub side: String,
    /// Open at once.
    pub connections: u32,
    /// From 1.
    pub round: u32,
    /// Accepted requests a second of the closed loop that a share refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_per_s: Option<f64>,
    /// The device's own 4 KiB write and sync in the same minutes, where levels are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_sync_us: Option<f64>,
    /// What came of it.
    pub figures: Figures,
}

#[derive(Serialize)]
struct Record<'a, F> {
    date: String,
    machine: Machine,
    command: &'a [String],
    figures: &'a F,
}

/// Appends the figures to a file, with date, machine, commit and the command that led to them.
///
/// # Errors
/// If the file cannot be opened or written.
pub(crate) fn append<F: Serialize>(file: &Path, figures: &F) -> io::Result<()> {
    let command = without_json(std::env::args().skip(1));
    let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let line = line(&Record { date, machine: machine::look(), command: &command, figures })?;
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}

/// Where a record was first written to belongs to one machine and changes no figure.
fn without_json(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_file = false;
    let keep = |argument: &String| {
        let is_json = argument == "--json";
        let kept = !(is_file || is_json || argument.starts_with("--json="));
        is_file = is_json;
        kept
    };
    arguments.filter(keep).collect()
}

fn line<F: Serialize>(record: &Record<'_, F>) -> io::Result<String> {
    Ok(serde_json::to_string(record)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_record_is_one_line_with_all_that_is_needed_to_repeat_it() {
        let machine =
            Machine { cpu: Some("a \"b\"".into()), cores: 2, kernel: None, commit: Some("abc".into()) };
        let command = ["run".to_owned(), "127.0.0.1:8080".to_owned()];
        let figures = json!({ "requests_per_s": 1.5 });
        let date = "2026-11-21T09:00:00Z".to_owned();
        let line = line(&Record { date, machine, command: &command, figures: &figures }).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["machine"]["cpu"], "a \"b\"");
        assert_eq!(read["machine"]["kernel"], Value::Null);
        assert_eq!(read["command"], json!(["run", "127.0.0.1:8080"]));
        assert_eq!(read["figures"]["requests_per_s"], 1.5);
        assert_eq!(read["date"], "2026-11-21T09:00:00Z");
    }

    #[test]
    fn the_command_is_kept_without_where_its_record_goes() {
        for command in ["run a --json f --rate 5", "run --json=f a --rate 5", "run a --rate 5 --json f"] {
            let kept = without_json(command.split(' ').map(str::to_owned));
            assert_eq!(kept, ["run", "a", "--rate", "5"], "{command}");
        }
    }

    #[test]
    fn records_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.jsonl");
        append(&file, &json!(1)).unwrap();
        append(&file, &json!(2)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let figures: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["figures"].clone())
            .collect();
        assert_eq!(figures, [json!(1), json!(2)]);
    }
}
