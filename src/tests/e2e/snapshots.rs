//! Snapshots are whole, and what is restored answers as the server did; deletes leave the disk when asked to.

use crate::server::{Server, bare_command, now_ms};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

const ADMIN: &str = "/api/v1/admin/tsdb";
const ARGUMENTS: [&str; 3] = ["--enable-admin", "--set", "shards=2"];

/// 50 series of that name, 40 samples each.
fn send(server: &Server, name: &str, first_ms: i64) {
    let member = |i: i64| {
        let (value, at, n) = (i * 7_919 % 997, first_ms + i / 50 * 1_000, i % 50);
        format!(r#"{{"name":"{name}","value":{value},"timestamp":{at},"labels":{{"n":"{n}"}}}}"#)
    };
    let members: Vec<String> = (0..2_000).map(member).collect();
    server.accept(&format!("[{}]", members.join(",")));
}

fn post(server: &Server, act: &str) -> (u16, String) {
    let answer = server.client().post(&format!("{ADMIN}/{act}"), "");
    (answer.status, answer.body)
}

fn export(server: &Server) -> String {
    let answer = server.get("/export");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Whether the command did it, and what it printed.
fn storage(act: &str, arguments: &[&Path]) -> (bool, String) {
    let output = bare_command().args(["storage", act]).args(arguments).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).unwrap())
}

/// What is taken while samples go on coming holds all that was answered before, and is restored to the last bit, a
/// delete that waits for its merge included; damage to it is found.
#[test]
fn a_snapshot_of_a_serving_server_is_restored_whole() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &ARGUMENTS);
    let first_ms = now_ms() / 1_000 * 1_000 - 3_600_000;
    send(&server, "cpu", first_ms);
    send(&server, "gone", first_ms);
    assert_eq!(post(&server, "delete_series?match[]=gone").0, 204);
    send(&server, "mem", first_ms);
    let expected = export(&server);
    assert_eq!(expected.lines().count(), 4_000);

    let (done, told) = storage("backup", &[Path::new(&format!("http://{}", server.address))]);
    assert!(done, "{told}");
    let snapshot = dir.path().join(told.trim());
    assert!(snapshot.join("MANIFEST").is_file(), "{told}");
    send(&server, "later", first_ms);
    let (status, body) = post(&server, "snapshot");
    assert!(status == 200 && body.starts_with(r#"{"status":"success","data":{"name":"2"#), "{body}");
    assert_eq!(post(&server, "delete_series?match[]=cpu").0, 204);
    let cleaned = server.client().post(&format!("{ADMIN}/clean_tombstones"), "");
    assert_eq!((cleaned.status, cleaned.header("access-control-allow-origin")), (204, None));
    server.kill();
    drop(server);
    // Snapshots are no strangers in the directory.
    drop(Server::start(dir.path(), &ARGUMENTS));

    let copies = tempdir().unwrap();
    let target = copies.path().join("copy");
    let (done, told) = storage("restore", &[&snapshot, &target]);
    assert!(done && told.contains("and found right"), "{told}");
    // With another number of shards the order is another one.
    let server = Server::start(&target, &ARGUMENTS);
    assert!(export(&server) == expected);
    send(&server, "more", first_ms);
    assert_eq!(server.get("/query?name=more").json().as_array().unwrap().len(), 2_000);
    drop(server);

    let (done, told) = storage("restore", &[&snapshot, &target]);
    assert!(!done && told.contains("the target holds"), "{told}");
    let (done, told) = storage("restore", &[dir.path().join("segments").as_path(), &copies.path().join("b")]);
    assert!(!done && told.contains("no whole snapshot"), "{told}");
    let (done, told) = storage("restore", &[dir.path(), &copies.path().join("c")]);
    assert!(!done && told.contains("a data directory with journals"), "{told}");
    let segment = fs::read_dir(snapshot.join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (done, told) = storage("restore", &[&snapshot, &copies.path().join("damaged")]);
    assert!(!done && told.contains("is damaged at offset"), "{told}");
    assert!(!copies.path().join("damaged/MANIFEST").exists());
}

#[test]
fn what_is_deleted_leaves_the_disk_when_asked_to() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &ARGUMENTS);
    let first_ms = now_ms() / 1_000 * 1_000 - 3_600_000;
    send(&server, "cpu", first_ms);
    send(&server, "gone", first_ms);
    assert_eq!(post(&server, "delete_series?match[]=gone").0, 204);
    assert_eq!(post(&server, "clean_tombstones"), (204, String::new()));
    let status = server.get("/api/v1/status/storage").json();
    assert_eq!(status["status"], "success");
    let data = &status["data"];
    assert_eq!((data["samples"].as_u64(), data["memorySamples"].as_u64()), (Some(2_000), Some(0)), "{data}");
    assert_eq!(post(&server, "clean_tombstones").0, 204, "there is nothing to do");

    let bytes = data["bytes"].as_u64().unwrap();
    let segments = fs::read_dir(dir.path().join("segments")).unwrap();
    let on_disk: u64 = segments.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(bytes, on_disk);
    let ratio = data["compressionRatio"].as_f64().unwrap() * data["bytesPerSample"].as_f64().unwrap();
    assert!((15.9..16.1).contains(&ratio), "{data}");
    assert!(data["writeAmplification"].as_f64().unwrap() > 1.0, "{data}");
    assert!(data["walBytes"].as_u64().unwrap() > 0, "{data}");
    let levels = data["segmentsPerLevel"].as_array().unwrap();
    let of_levels: u64 = levels.iter().map(|level| level["bytes"].as_u64().unwrap()).sum();
    assert_eq!((of_levels, levels[0]["level"].as_str()), (bytes, Some("flushed")));
}

/// A segment that somebody has removed does not end backups for good: what there is is taken, what is not is told.
#[test]
fn a_snapshot_says_what_is_missing_from_it() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--enable-admin", "--set", "shards=1"]);
    let first_ms = now_ms() / 1_000 * 1_000 - 3_600_000;
    for name in ["cpu", "mem"] {
        send(&server, name, first_ms);
        assert_eq!(post(&server, "snapshot").0, 200);
    }
    let segments = dir.path().join("segments");
    let mut names: Vec<_> =
        fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    fs::remove_file(segments.join(&names[0])).unwrap();
    let missing = format!("segments/{} is missing", names[0].to_string_lossy());
    let (status, body) = post(&server, "snapshot");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(&format!(r#""}},"warnings":["{missing}"]}}"#)), "{body}");
    let (done, told) = storage("backup", &[Path::new(&format!("http://{}", server.address))]);
    assert!(!done && told.contains(&missing), "{told}");
    let target = dir.path().join("restored");
    let place = dir.path().join(told.lines().find(|line| line.starts_with("snapshots/")).unwrap());
    let (done, told) = storage("restore", &[&place, &target]);
    assert!(done && told.contains(&format!("{} segments", names.len() - 1)), "{told}");
}

#[test]
fn without_leave_there_is_no_snapshot() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for act in ["snapshot", "clean_tombstones"] {
        let (status, body) = post(&server, act);
        assert!(status == 503 && body.contains("admin APIs disabled"), "{body}");
        assert_eq!(server.get(&format!("{ADMIN}/{act}")).status, 405);
    }
    assert!(!dir.path().join("snapshots").exists());
}
