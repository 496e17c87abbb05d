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

/// Method: a segment of each of two shards is damaged; an export that is one answer, and one that goes out in pieces.
#[test]
fn an_export_says_what_is_missing_of_every_shard() {
    for count in [2_000, 60_000] {
        let dir = tempdir().unwrap();
        let settings = ["--set", "shards=2"];
        let server = Server::start(dir.path(), &settings);
        let first_ms = now_ms() - 3_600_000;
        let member = |i: i64| {
            let (at, value, n) = (first_ms + i * 50, i * 7_919 % 997, i % 40);
            format!(r#"{{"name":"m","value":{value},"timestamp":{at},"labels":{{"n":"{n}"}}}}"#)
        };
        for members in (0..count).map(member).collect::<Vec<_>>().chunks(5_000) {
            server.accept(&format!("[{}]", members.join(",")));
        }
        server.signal("TERM");
        server.wait();
        let mut names = Vec::new();
        for segment in fs::read_dir(dir.path().join("segments")).unwrap() {
            let segment = segment.unwrap();
            let mut bytes = fs::read(segment.path()).unwrap();
            let at = bytes.len() / 8;
            bytes[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0xff);
            fs::write(segment.path(), bytes).unwrap();
            names.push(segment.file_name().into_string().unwrap());
        }
        assert_eq!(names.len(), 2);

        let server = Server::start(dir.path(), &settings);
        let mut client = server.client();
        client.send("GET /export HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let answer = String::from_utf8(client.rest()).unwrap();
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        let told = if count == 2_000 {
            assert!(head.contains("Content-Length: "), "{head}");
            head.to_owned()
        } else {
            let (_, trailer) = rest.rsplit_once("\r\n0\r\n").expect("a last chunk");
            assert!(trailer.contains("Warning: 199 ringwatch"), "{trailer}");
            format!("{head}{trailer}")
        };
        assert!(names.iter().all(|name| told.contains(name.as_str())), "{told}");

        let file = dir.path().join("copy.json");
        let url = format!("http://{}", server.address);
        let command = bare_command().args(["export", &url, "--output"]).arg(&file).output().unwrap();
        let told = String::from_utf8(command.stderr).unwrap();
        assert!(!command.status.success() && told.contains("is missing"), "{told}");
        assert!(names.iter().all(|name| told.contains(name.as_str())), "{told}");
        assert!(!file.exists());
    }
}
