//! Damage on the disk costs what it hit, and whoever asks is told.

use crate::server::{Server, bare_command, now_ms, poll};
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::tempdir;

fn verify(dir: &Path) -> Output {
    bare_command().args(["storage", "verify"]).arg(dir).output().unwrap()
}

/// Method: a segment's bytes are turned in the middle, where the samples are.
#[test]
fn a_damaged_segment_costs_its_block_and_the_answer_says_so() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let first_ms = now_ms() - 3_600_000;
    let member = |i: i64| {
        let at = first_ms + i * 1_000;
        format!(
            r#"{{"name":"m","value":{},"timestamp":{at},"labels":{{"n":"{}"}}}}"#,
            i * 7_919 % 997,
            i % 40
        )
    };
    let members: Vec<String> = (0..2_000).map(member).collect();
    server.accept(&format!("[{}]", members.join(",")));
    server.signal("TERM");
    server.wait();

    assert_eq!(verify(dir.path()).status.code(), Some(0));
    let mut segments = fs::read_dir(dir.path().join("segments")).unwrap();
    let path = segments.next().unwrap().unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 8;
    bytes[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&path, bytes).unwrap();

    let verified = verify(dir.path());
    assert_eq!(verified.status.code(), Some(1));
    let told = String::from_utf8(verified.stdout).unwrap();
    assert!(told.starts_with("segments/") && told.contains("is damaged at offset"), "{told}");
    assert!(told.contains("series m") && told.contains("samples from"), "{told}");

    let server = Server::start(dir.path(), &[]);
    let used = verify(dir.path());
    assert_eq!(used.status.code(), Some(1));
    assert!(String::from_utf8(used.stderr).unwrap().contains("already uses this data directory"));
    let answer = server.get("/query?name=m");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.body.matches("\"name\"").count();
    assert!((1..2_000).contains(&rows), "{rows}");
    let warning = answer.header("warning").expect("it is told");
    assert!(warning.starts_with("199 ringwatch \"segments/"), "{warning}");
    assert!(warning.contains("is damaged at offset"), "{warning}");
    assert!(server.counted("storage_damaged_total", "segments/") >= 1);
    poll(|| server.reported().iter().any(|line| line.contains("queries go on without it")).then_some(()));
    let sound = server.get("/query?name=other");
    assert_eq!((sound.status, sound.header("warning")), (200, None));
}
