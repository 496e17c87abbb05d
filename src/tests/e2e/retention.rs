//! What has left the retention leaves queries at once, and the disk once the clock is believed.

use crate::server::{Server, files, poll};
use std::path::Path;
use storage::disk::{StdDisk, ready};
use storage::manifest::Manifest;
use tempfile::tempdir;

const KEEPS_EVERYTHING: [&str; 2] = ["--set", "storage.retention=0"];
const KEEPS_A_DAY: [&str; 2] = ["--set", "storage.retention=1d"];
const FROM_1970: &str = r#"[{"name":"m","value":7,"timestamp":60000}]"#;

/// A data directory with one segment, of 1970.
fn fill(data_dir: &Path) {
    let server = Server::start(data_dir, &KEEPS_EVERYTHING);
    server.accept(FROM_1970);
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
    assert_eq!(files(data_dir, "segments"), 1);
}

#[test]
fn a_start_removes_what_has_expired() {
    let dir = tempdir().unwrap();
    fill(dir.path());
    let server = Server::start(dir.path(), &KEEPS_A_DAY);
    assert_eq!(server.get("/query?name=m").body, "[]");
    poll(|| (files(dir.path(), "segments") == 0).then_some(()));
}

/// A clock that is far ahead of all that a directory has seen hides what it takes for expired, says so, and removes
/// nothing; with the right time everything is there.
/// Method: the manifest is told that the server's last look at the clock was in 1970.
#[test]
fn a_clock_that_has_jumped_ahead_removes_nothing() {
    let dir = tempdir().unwrap();
    fill(dir.path());
    let disk = StdDisk::new(dir.path());
    let mut manifest = ready(Manifest::load(&disk)).unwrap().unwrap();
    manifest.believed_ms = Some(120_000);
    ready(manifest.store(&disk)).unwrap();

    let server = Server::start(dir.path(), &KEEPS_A_DAY);
    server.wait_for_report("days ahead of what this data directory has seen");
    assert_eq!(server.get("/query?name=m").body, "[]");
    // A flush takes whatever has expired with it.
    server.accept(r#"{"name":"other","value":1}"#);
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
    assert_eq!(files(dir.path(), "segments"), 2);

    let server = Server::start(dir.path(), &KEEPS_EVERYTHING);
    assert_eq!(server.get("/query?name=m").body, r#"[{"name":"m","value":7,"timestamp":60000}]"#);
}
