//! What a figure was measured on: without it a record cannot be compared with another.

use serde::Serialize;
use std::fs;
use std::process::{Command, Stdio};

/// The machine and the code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// As the processor names itself.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Release of the running kernel.
    pub kernel: Option<String>,
    /// The commit of the work tree from which the bench was called, if there is one.
    pub commit: Option<String>,
}

/// Looks once.
pub(crate) fn look() -> Machine {
    let cores = shard::topology::discover().map_or(0, |found| found.allowed.len());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_model(&text));
    Machine { cpu, cores, kernel, commit: commit() }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

fn commit() -> Option<String> {
    let asked =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    (asked.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_by_its_first_entry() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(cpu_model(text).as_deref(), Some("AMD EPYC 9R14"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }
}
