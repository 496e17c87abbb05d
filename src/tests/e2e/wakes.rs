//! Who is woken by what: executors sleep until there is something for them.

use crate::server::{Server, poll};
use std::fs;
use tempfile::tempdir;

/// How often threads of that kind went to sleep so far.
fn sleeps(server: &Server, kind: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let of_thread = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let value =
            |key: &str| status.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()));
        let is_kind = value("Name:")?.starts_with(kind);
        is_kind.then(|| value("voluntary_ctxt_switches:")?.parse::<u64>().ok()).flatten()
    };
    threads.filter_map(|thread| of_thread(thread.unwrap().path())).sum()
}

/// Executors that ring each other's bells with nothing to say go on with that for milliseconds to seconds.
/// Method: samples of series of both shards, each sent when the last is stored; then the executors' sleeps are counted.
/// A sample wakes its owner, and perhaps one other that keeps count of a rule.
#[test]
fn a_sample_wakes_its_owner_and_not_everybody_again_and_again() {
    const SAMPLES: u64 = 60;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2", "--set", "ingest.durability=memory"]);
    let store = |n: u64| {
        server.accept(&format!(r#"{{"name":"a","value":1,"labels":{{"n":"{n}"}}}}"#));
        poll(|| server.get("/health").body.contains(r#""queue_size":0"#).then_some(()));
    };
    // The first ones wait for the journals' files, which are written meanwhile.
    (0..4).for_each(store);
    let before = sleeps(&server, "store-");
    (0..SAMPLES).for_each(store);
    let each = (sleeps(&server, "store-") - before) as f64 / SAMPLES as f64;
    assert!(each < 5.0, "executors went to sleep {each:.1} times for each sample");
}
