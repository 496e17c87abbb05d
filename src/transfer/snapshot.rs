//! `ringwatch storage backup` and `ringwatch storage restore`: a snapshot taken of a running server, and back.

use super::Outcome;
use super::http::Server;
use crate::log;
use std::path::Path;
use storage::disk::{StdDisk, ready};
use storage::snapshot::{Put, SNAPSHOTS_FOLDER, restore as restore_snapshot};

/// Has a server take a snapshot, and prints where in its data directory that lies. One that is not whole is there, and is
/// an error all the same.
pub fn backup(url: &str) -> Outcome<()> {
    let reply = Server::connect(url)?.post("/api/v1/admin/tsdb/snapshot", b"")?;
    let name = reply.body.split("\"name\":\"").nth(1).and_then(|rest| rest.split('"').next());
    match name {
        Some(name) if reply.status == 200 => {
            log::say(format_args!("{SNAPSHOTS_FOLDER}/{name}\n"));
            match reply.body.split_once("\"warnings\":") {
                Some((_, missing)) => {
                    Err(format!("not all is in it: {}", missing.trim_end_matches('}')).into())
                }
                None => Ok(()),
            }
        }
        _ => Err(format!("{} {}", reply.status, reply.body).into()),
    }
}

/// Copies a snapshot to a new directory, every checksum checked.
pub fn restore(snapshot: &Path, target: &Path) -> Outcome<()> {
    if !snapshot.is_dir() {
        return Err(format!("{} is no snapshot: expected a folder", snapshot.display()).into());
    }
    std::fs::create_dir_all(target).map_err(|error| format!("{}: {error}", target.display()))?;
    let mut told = 0;
    let restored = ready(restore_snapshot(&StdDisk::new(snapshot), &StdDisk::new(target), |put: &Put| {
        // A line for each GiB.
        if put.bytes >> 30 > told {
            told = put.bytes >> 30;
            log::info(format_args!("{} segments, {told} GiB restored", put.segments));
        }
    }))?;
    let Put { segments, bytes, samples, .. } = restored;
    log::say(format_args!(
        "{segments} segments with {samples} samples, {bytes} bytes, restored to {} and found right\n",
        target.display()
    ));
    Ok(())
}
