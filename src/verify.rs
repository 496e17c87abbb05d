//! `ringwatch storage verify DIR`: is everything in a data directory as it was written?

use crate::log;
use shard::file::DirectoryLock;
use std::fmt;
use std::path::{Path, PathBuf};
use storage::disk::{StdDisk, ready};
use storage::verify::{Verified, verify};

/// Something is damaged; it was told.
#[derive(Debug)]
struct Damaged {
    dir: PathBuf,
    findings: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damaged { dir, findings } = self;
        let places = if *findings == 1 { "place" } else { "places" };
        write!(f, "{} is damaged in {findings} {places}; the rest is as it was written", dir.display())
    }
}

impl std::error::Error for Damaged {}

/// Prints what is wrong, a line each, and what was read; an error where anything is wrong, and where a server uses the
/// directory, for its files change meanwhile.
pub fn run(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let is_ours = dir.join(storage::manifest::MANIFEST_FILE).is_file();
    if !is_ours {
        return Err(format!("{} is no data directory: it has no MANIFEST", dir.display()).into());
    }
    let _lock = DirectoryLock::acquire(&dir)?;
    let mut findings = 0;
    let verified = ready(verify(&StdDisk::new(&dir), |finding| {
        findings += 1;
        log::say(format_args!("{finding}\n"));
    }))?;
    let Verified { segments, series, samples, checkpoints, checkpoint_series, journal_files, records, torn } =
        verified;
    log::say(format_args!(
        "{segments} segments with {series} series, {checkpoints} checkpoints with {checkpoint_series} series, {samples} \
         samples in both, {journal_files} journal files with {records} records read and found right\n"
    ));
    if torn > 0 {
        log::say(format_args!("{torn} journals end in the middle of a frame, as a crash leaves them\n"));
    }
    if findings == 0 { Ok(()) } else { Err(Box::new(Damaged { dir, findings })) }
}
