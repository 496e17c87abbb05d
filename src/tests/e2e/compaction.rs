//! Segments are merged behind the scenes: nobody sees it but the disk.

use crate::server::{Server, files, now_ms, poll};
use tempfile::tempdir;

const DAY_MS: i64 = 86_400_000;

/// Flushes of samples of one day, three days ago, some replaced by later ones; each reaches a segment before the next
/// is sent. Returns what every query has to show from then on.
fn send_flushes(server: &Server, first_ms: i64, rounds: i64) -> String {
    for round in 0..rounds {
        let metric = |i: i64| {
            let (timestamp, value) = (first_ms + (round + i) * 1_000, round * 100 + i);
            let n = (round + i) % 5;
            format!(r#"{{"name":"m","value":{value},"timestamp":{timestamp},"labels":{{"n":"{n}"}}}}"#)
        };
        let members: Vec<String> = (0..40).map(metric).collect();
        let before = server.counted("store_flushes_total", "");
        server.accept(&format!("[{}]", members.join(",")));
        // Another flush may have been under way when it came.
        let stored = || server.get("/health").body.contains(r#""queue_size":0"#).then_some(());
        poll(stored);
        poll(|| (server.counted("store_flushes_total", "") > before).then_some(()));
    }
    server.get("/query?name=m").body
}

/// Segments of a window that is complete become one; what queries show stays, through a kill and another number of
/// shards; the files that were merged go.
#[test]
fn flushes_become_one_segment_and_nothing_changes() {
    const ROUNDS: i64 = 5;
    let dir = tempdir().unwrap();
    let flushing = ["--set", "storage.flush_interval=1s"];
    let mut server = Server::start(dir.path(), &[&flushing[..], &["--set", "shards=2"]].concat());
    let first_ms = (now_ms() / DAY_MS - 3) * DAY_MS + DAY_MS / 2;
    let shown = send_flushes(&server, first_ms, ROUNDS);
    assert_eq!(shown.matches("\"name\"").count() as i64, 40 + ROUNDS - 1, "a time of a series counts once");
    let is_merged = |server: &Server| {
        poll(|| (server.counted("store_merges_total", "") >= 1).then_some(()));
        // What a merge leaves is at most half as large as what came before it.
        poll(|| (server.counted("store_segments", "") <= 3 * 2).then_some(()));
        poll(|| (files(dir.path(), "segments") as u64 == server.counted("store_segments", "")).then_some(()));
        assert_eq!(server.counted("store_merge_failures_total", ""), 0);
        assert_eq!(server.get("/query?name=m").body, shown);
    };
    is_merged(&server);
    server.kill();
    drop(server);

    // Segments of two shards are rewritten for one.
    let server = Server::start(dir.path(), &flushing);
    assert_eq!(server.get("/query?name=m").body, shown);
    is_merged(&server);
}
