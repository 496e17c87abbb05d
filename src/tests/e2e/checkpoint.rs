//! What was in memory is there after a kill, without reading all of the journals again.

use crate::server::{Server, bare_command, command, ends, files, now_ms, poll};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const OFTEN: [&str; 2] = ["--set", "storage.checkpoint_interval=1s"];

fn server(dir: &Path, shards: usize) -> Server {
    Server::start(dir, &[&OFTEN[..], &["--set", &format!("shards={shards}")]].concat())
}

/// Samples of 60 series, some without a time and some late; `round` makes the values their own. Returns how many.
fn send(server: &Server, first_ms: i64, round: i64) -> u64 {
    const SAMPLES: i64 = 1_200;
    let member = |i: i64| {
        let at = first_ms + (round * SAMPLES + i) * 50 - (i % 11) * 700;
        let time = if i % 7 == 0 { String::new() } else { format!(r#","timestamp":{at}"#) };
        let value = round * 10_000 + i;
        format!(r#"{{"name":"m","value":{value}{time},"labels":{{"n":"{}","job":"node"}}}}"#, i % 60)
    };
    let members: Vec<String> = (0..SAMPLES).map(member).collect();
    // Refused while the next journal file is still being prepared.
    poll(|| {
        (server.client().post("/metrics", &format!("[{}]", members.join(","))).status == 202).then_some(())
    });
    poll(|| server.get("/health").body.contains(r#""queue_size":0"#).then_some(()));
    SAMPLES as u64
}

/// Returns once each shard has written a checkpoint of something.
fn wait_for_checkpoints(server: &Server, shards: usize) {
    for shard in 0..shards {
        let of = format!("{{shard=\"{shard}\"}}");
        poll(|| (server.counted("checkpoint_writes_total", &of) > 0).then_some(()));
    }
    assert_eq!(server.counted("checkpoint_failures_total", ""), 0);
}

/// Method: the counters of the start say what came from where.
#[test]
fn a_killed_server_has_everything_and_replays_a_part_of_it() {
    let dir = tempdir().unwrap();
    let first_ms = now_ms() - 3_600_000;
    let mut before = server(dir.path(), 2);
    let mut sent = send(&before, first_ms, 0);
    wait_for_checkpoints(&before, 2);
    sent += send(&before, first_ms, 1);
    let shown = before.get("/query?name=m").body;
    before.kill();

    let mut again = server(dir.path(), 2);
    assert_eq!(again.get("/query?name=m").body, shown);
    let replayed = again.counted("store_samples_replayed_total", "");
    let loaded = again.counted("store_samples_loaded", "");
    assert!(loaded > 0 && replayed < sent, "{loaded} loaded, {replayed} replayed of {sent}");
    // It goes on from there, and from there again.
    send(&again, first_ms, 2);
    wait_for_checkpoints(&again, 2);
    let shown = again.get("/query?name=m").body;
    again.kill();
    let last = server(dir.path(), 2);
    assert_eq!(last.get("/query?name=m").body, shown);
    assert!(files(dir.path(), "checkpoints") <= 2, "one for each shard");
    last.signal("TERM");
    assert_eq!(last.wait().code, Some(0));
    assert_eq!(files(dir.path(), "checkpoints"), 0, "the last flush has taken all of it");
}

/// A directory of two shards opens with one, then with two again; each time samples lie in segments, in checkpoints and in
/// journals. (The simulation of `storage` goes on to three, for which this machine may have too few cores.)
#[test]
fn another_number_of_shards_keeps_what_segments_checkpoints_and_journals_hold() {
    let dir = tempdir().unwrap();
    let first_ms = now_ms() - 3_600_000;
    let flushing = server(dir.path(), 2);
    send(&flushing, first_ms, 0);
    flushing.signal("TERM");
    assert_eq!(flushing.wait().code, Some(0));
    let mut shown = String::new();
    for (round, shards) in (1..).zip([2, 1, 2]) {
        let mut server = server(dir.path(), shards);
        if round > 1 {
            assert_eq!(server.get("/query?name=m").body, shown, "{shards} shards");
        }
        send(&server, first_ms, 2 * round);
        wait_for_checkpoints(&server, shards);
        send(&server, first_ms, 2 * round + 1);
        shown = server.get("/query?name=m").body;
        server.kill();
        assert!(files(dir.path(), "segments") > 0 && files(dir.path(), "checkpoints") >= shards);
    }
    let last = server(dir.path(), 1);
    assert_eq!(last.get("/query?name=m").body, shown);
}

/// Method: a byte is turned in the middle of a checkpoint, where the samples are.
#[test]
fn a_damaged_checkpoint_costs_a_part_and_is_told() {
    let dir = tempdir().unwrap();
    let mut before = server(dir.path(), 1);
    send(&before, now_ms() - 3_600_000, 0);
    wait_for_checkpoints(&before, 1);
    before.kill();
    let mut checkpoints =
        fs::read_dir(dir.path().join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    // A second one may have been on its way.
    let path = checkpoints.find(|path| fs::metadata(path).unwrap().len() > 1_000).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).unwrap();

    let verified = bare_command().args(["storage", "verify"]).arg(dir.path()).output().unwrap();
    let told = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(1), "{told}");
    assert!(told.starts_with("checkpoints/") && told.contains("is damaged at offset"), "{told}");
    assert!(told.contains("samples of 60 series") && told.contains("samples from"), "{told}");

    let refused = ends(command(dir.path(), &["--set", "shards=1"]));
    assert_eq!(refused.code, Some(1), "{}", refused.errors);
    assert!(refused.errors.contains("checkpoints/"), "{}", refused.errors);
    assert!(refused.errors.contains("--set storage.on_damage=skip"), "{}", refused.errors);

    let again = Server::start(dir.path(), &["--set", "storage.on_damage=skip"]);
    assert!(again.counted("storage_damaged_total", "checkpoints/") >= 1);
    poll(|| again.reported().iter().any(|line| line.contains("the rest of it is loaded")).then_some(()));
    // It takes samples of the very series that it has lost.
    send(&again, now_ms() - 3_000_000, 1);
    assert_eq!(again.get("/query?name=m").status, 200);
}
