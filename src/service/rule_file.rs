//! Where a rule stands, on disk: a file per firing rule, so that a restart tells nothing twice and forgets
//! nothing. The bytes are drawn in `storage/docs/format/alerts.md`.
//!
//! Always: a change is printed first and kept then: a crash in between tells it once more, never not at all.

use crate::adapt::ShardDisk;
use crate::log;
use alert::{State, WindowRule};
use model::LabelSet;
use std::io;
use storage::disk::{Disk as _, DiskFile as _};

const FOLDER: &str = "alerts";
const HEAD: &str = "ringwatch alert state 1";
/// A rule's name, a time, and the words around them are far below.
const FILE_BYTES_MAX: usize = 4096;

fn path_of(rule: &WindowRule) -> Option<String> {
    let name = LabelSet::new(rule.name(), &[]).ok()?;
    Some(format!("{FOLDER}/{:032x}.state", name.as_ref().hash().0))
}

/// The state in which the rule was left; inactive when nothing is kept, or what is kept cannot be read.
pub async fn load(disk: &ShardDisk, rule: &WindowRule) -> State {
    let Some(path) = path_of(rule) else { return State::Inactive };
    let read = async {
        let file = disk.open(&path).await?;
        file.read_at(0, FILE_BYTES_MAX).await
    };
    let bytes = match read.await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return State::Inactive,
        Err(error) => {
            log::warning(format_args!("the state of alert {} cannot be read: {error}", rule.name()));
            return State::Inactive;
        }
    };
    match decode(&bytes, rule.name()) {
        Some(since_ms) => State::Firing { since_ms, empty_since_ms: None },
        None => {
            log::warning(format_args!("{path} is damaged: alert {} is taken as inactive", rule.name()));
            State::Inactive
        }
    }
}

/// Keeps that the rule fires since then, or that it does no longer.
pub async fn store(disk: &ShardDisk, rule: &WindowRule, firing_since_ms: Option<i64>) -> io::Result<()> {
    let Some(path) = path_of(rule) else { return Ok(()) };
    match firing_since_ms {
        Some(since_ms) => {
            disk.create_dir(FOLDER).await?;
            disk.sync_dir("").await?;
            let next = format!("{path}.next");
            let file = disk.create(&next).await?;
            file.write_at(0, encode(since_ms, rule.name()).as_bytes()).await?;
            file.sync().await?;
            disk.rename(&next, &path).await?;
        }
        None => match disk.remove(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        },
    }
    disk.sync_dir(FOLDER).await
}

fn encode(since_ms: i64, name: &str) -> String {
    format!("{HEAD}\nfiring since {since_ms}\nrule {name}\n")
}

fn decode(bytes: &[u8], name: &str) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (since_ms, named) =
        text.strip_prefix(HEAD)?.strip_prefix("\nfiring since ")?.split_once("\nrule ")?;
    if named.strip_suffix('\n')? == name { since_ms.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_and_a_damaged_one_is_none() {
        let bytes = encode(1_795_254_203_448, "cpu_usage");
        assert_eq!(decode(bytes.as_bytes(), "cpu_usage"), Some(1_795_254_203_448));
        assert_eq!(decode(bytes.as_bytes(), "memory_usage"), None);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes.as_bytes()[..cut], "cpu_usage"), None, "cut at {cut}");
        }
        assert_eq!(decode(b"\xff", "cpu_usage"), None);
    }
}
