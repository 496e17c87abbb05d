//! Starts that must not happen: each ends with its code, names the cause, and says what mends it.

use crate::server::{Ended, Server, bare_command, command, ends};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// Could not.
const FAILED: Option<i32> = Some(1);
/// Wrong usage.
const USAGE: Option<i32> = Some(2);

fn told(ended: &Ended, code: Option<i32>, parts: &[&str]) {
    assert_eq!(ended.code, code, "{}", ended.errors);
    for part in parts {
        assert!(ended.errors.contains(part), "{part:?} is not in {:?}", ended.errors);
    }
    assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
}

#[test]
fn a_second_server_on_a_directory_is_refused_and_names_the_first() {
    let dir = tempdir().unwrap();
    let first = Server::start(dir.path(), &[]);
    let ended = ends(command(dir.path(), &[]));
    told(&ended, FAILED, &[&format!("process {}", first.pid()), "data_dir"]);
    // The first did not notice, and a kill leaves no lock behind.
    first.accept(r#"{"name":"a","value":1}"#);
    drop(first);
    assert_eq!(Server::start(dir.path(), &[]).get("/percentile?name=a").body, r#"{"p50":1,"count":1}"#);
}

#[test]
fn a_taken_port_ends_it_with_the_port_and_the_option() {
    let dir = tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut by_number = bare_command();
    by_number.arg(port.to_string()).args(["--set", &format!("data_dir={}", dir.path().display())]);
    for command in [by_number, command(dir.path(), &["--listen", &format!("127.0.0.1:{port}")])] {
        told(&ends(command), FAILED, &[&format!("port {port} is in use"), "--listen"]);
    }
    // Another ringwatch on the port, which would share it, is no different.
    let server = Server::start(dir.path(), &[]);
    let port = server.address.port();
    let other = tempdir().unwrap();
    let ended = ends(command(other.path(), &["--listen", &format!("127.0.0.1:{port}")]));
    told(&ended, FAILED, &[&format!("port {port} is in use"), "--listen"]);
}

#[test]
fn a_directory_with_strange_files_is_left_alone() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "precious").unwrap();
    let ended = ends(command(dir.path(), &[]));
    let path = dir.path().canonicalize().unwrap();
    told(&ended, FAILED, &[path.to_str().unwrap(), "thesis.txt", "data_dir"]);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["thesis.txt"], "nothing was laid beside it");

    let other = tempdir().unwrap();
    fs::write(other.path().join("MANIFEST"), "Manifest-Version: 1.0\n").unwrap();
    told(&ends(command(other.path(), &[])), FAILED, &["MANIFEST is not a ringwatch manifest"]);
}

/// Root may write anywhere but below a regular file and into `/proc`.
#[test]
fn a_directory_that_cannot_be_made_or_written_is_named() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, cause) in [
        (file.join("data"), "is a file and not a directory"),
        (file, "is a file and not a directory"),
        (PathBuf::from("/proc/ringwatch"), "make it writable"),
    ] {
        let ended = ends(command(&path, &[]));
        let parts = ["cannot use the data directory", path.to_str().unwrap(), cause, "--set data_dir="];
        told(&ended, FAILED, &parts);
    }
}

#[test]
fn settings_that_cannot_be_are_refused_with_their_place() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("ringwatch.toml");
    fs::write(&file, "listen = \"127.0.0.1:0\"\n[storage]\nretentoin = \"3d\"\n").unwrap();
    let path = file.to_str().unwrap();
    let data = dir.path().join("data");
    for (arguments, parts) in [
        (&["--config", path][..], &[&format!("{path}:3"), "storage.retentoin", "storage.retention"][..]),
        (&["--set", "storage.retentoin=3d"], &["command line", "storage.retentoin", "\"storage.retention\""]),
        (&["--set", "shards=0"], &["shards cannot be \"0\"", "from 1 to 256"]),
        (&["--set", "ingest.durability=fast"], &["memory, written or synced"]),
        (&["--set", "http.head_timeout=10"], &["http.head_timeout", "a duration as"]),
        (&["--set", "http.body_bytes_max=2MiB"], &["http.body_bytes_max", "storage.journal_file_bytes"]),
        (&["--set", "cores=7000"], &["7000"]),
        (&["--set", "storage.on_damage=ignore"], &["stop or skip"]),
        (&["--stats-interval", "soon"], &["stats_interval", "a duration as"]),
        (&["--config", "/nowhere.toml"], &["/nowhere.toml"]),
        (&["--listen", "0.0.0.0:0"], &["--insecure"]),
        (&["--listen", "8080"], &["listen", "an address with a port", "`ringwatch 8080`"]),
        (&["--listen", "localhost:8080"], &["127.0.0.1:8080", "names are not resolved"]),
        (&["--set", "storage.data_dir=x"], &["did you mean \"data_dir\"?"]),
        (&["--set", "storage.durability=written"], &["did you mean \"ingest.durability\"?"]),
        (&["--set", "memory_bytes_max=64MB"], &["KiB, MiB or GiB"]),
    ] {
        told(&ends(command(&data, arguments)), FAILED, parts);
    }
    let mut environment = command(&data, &[]);
    environment.env("RINGWATCH_INGEST_DURABILITY", "certain");
    told(&ends(environment), FAILED, &["RINGWATCH_INGEST_DURABILITY", "memory, written or synced"]);
    assert!(!data.exists(), "nothing was laid before the settings were understood");

    let server = Server::start(&data, &["--listen", "0.0.0.0:0", "--insecure"]);
    drop(server);
    // Given with the file and overridden by the line.
    fs::write(&file, "shards = 9999\n[http]\nidle_timeout = \"2s\"\n").unwrap();
    told(&ends(command(&data, &["--config", path])), FAILED, &[&format!("{path}:1"), "shards"]);
    fs::write(&file, "shards = 1\n[http]\nidle_timeout = \"2s\"\n").unwrap();
    Server::spawn(command(&data, &["--config", path]));
}

#[test]
fn wrong_usage_ends_with_two() {
    for arguments in
        [&["--sett", "a=b"][..], &["70000"], &["frobnicate"], &["--set", "shards"], &["--config"]]
    {
        let mut command = bare_command();
        command.args(arguments);
        let ended = ends(command);
        assert_eq!(ended.code, USAGE, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains("--help"), "{}", ended.errors);
    }
    for (arguments, part) in [
        (&["--set", "a=b", "config"][..], "ringwatch config [OPTIONS]"),
        (&["--port", "18181"], "ringwatch 8081"),
        (&["--port=18181"], "ringwatch 8081"),
        (&["18181", "--listen", "127.0.0.1:18182"], "cannot be used with"),
        (&["serve", "18181", "--listen", "127.0.0.1:18182"], "cannot be used with"),
    ] {
        let mut command = bare_command();
        command.args(arguments);
        told(&ends(command), USAGE, &[part]);
    }
    for argument in ["--help", "--version"] {
        let mut command = bare_command();
        assert_eq!(
            ends({
                command.arg(argument);
                command
            })
            .code,
            Some(0)
        );
    }
}

/// It starts: who runs it may know better than the kernel tells.
#[test]
fn a_budget_beyond_the_memory_there_is_is_warned_of() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "memory_bytes_max=1024TiB"]);
    server.wait_for_report("memory_bytes_max is 1073741824 MiB, and the machine or control group has ");
    server.accept(r#"{"name":"a","value":1}"#);
}

/// The journal file of loop 0 that holds something, with what it holds.
fn journal_file(data_dir: &Path) -> (PathBuf, Vec<u8>) {
    let folder = data_dir.join("journal/loop-0");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let mut bytes = Vec::new();
        fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        if bytes.iter().skip(4096).any(|byte| *byte != 0) {
            return (path, bytes);
        }
    }
    panic!("no journal file holds a frame");
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Method: three synced bodies make three frames; a byte of the second's payload is turned.
#[test]
fn damage_in_the_middle_of_a_journal_stops_the_start_and_names_file_and_byte() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for value in 1..=4 {
        let body = format!(r#"{{"name":"a","value":{value}}}"#);
        assert_eq!(client.post("/metrics", &body).status, 202);
    }
    drop(server);
    let (path, bytes) = journal_file(dir.path());
    // A frame: its payload's length, 48 bytes of head, the payload, up to the next multiple of eight.
    let payload = u32::from_le_bytes(bytes[4096..4100].try_into().unwrap()) as usize;
    let second = 4096 + (48 + payload).next_multiple_of(8);
    overwrite(&path, second as u64 + 48, &[!bytes[second + 48]]);

    let name = path.file_name().unwrap().to_str().unwrap();
    let ended = ends(command(dir.path(), &["--set", "shards=1"]));
    let place = format!("journal/loop-0/{name}: bytes {second} up to ");
    told(&ended, FAILED, &[&place, "; they held 1 sample, record 1\n", "storage.on_damage=skip"]);
    let again = ends(command(dir.path(), &["--set", "shards=1"]));
    assert_eq!(again.errors, ended.errors, "the failed start changed nothing");

    let server = Server::start(dir.path(), &["--set", "storage.on_damage=skip"]);
    let rows = server.get("/query?name=a").json();
    let values: Vec<u64> =
        rows.as_array().unwrap().iter().map(|row| row["value"].as_u64().unwrap()).collect();
    assert_eq!(values, [1, 3, 4], "what is intact is there");
    server.wait_for_report(&place);
    server.accept(r#"{"name":"a","value":5}"#);
}

/// Method: the last frame, acknowledged as written only, is cut off in its middle as a power cut would.
#[test]
fn a_torn_tail_is_cut_and_reported_with_file_and_byte() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=written"]);
    let mut client = server.client();
    for value in 1..=3 {
        let body = format!(r#"{{"name":"a","value":{value}}}"#);
        assert_eq!(client.post("/metrics", &body).status, 202);
    }
    drop(server);
    let (path, bytes) = journal_file(dir.path());
    let mut at = 4096;
    let mut last = at;
    loop {
        let payload = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        if payload == 0 {
            break;
        }
        last = at;
        at += (48 + payload).next_multiple_of(8);
    }
    overwrite(&path, last as u64 + 40, &vec![0; at - last - 40]);

    let server = Server::start(dir.path(), &[]);
    let name = path.file_name().unwrap().to_str().unwrap();
    server.wait_for_report(&format!("{name} ended in the middle of a frame at byte {last}"));
    assert_eq!(server.get("/percentile?name=a").body, r#"{"p50":1,"count":2}"#);
}

/// A cut tail leaves nothing that a later start would stumble over.
#[test]
fn after_a_torn_tail_every_later_start_is_clean() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=written"]);
    server.accept(r#"{"name":"a","value":1}"#);
    drop(server);
    let (path, bytes) = journal_file(dir.path());
    let payload = u32::from_le_bytes(bytes[4096..4100].try_into().unwrap()) as usize;
    overwrite(&path, 4096 + (48 + payload).next_multiple_of(8) as u64, b"half a frame");
    for value in 2..=4 {
        let server = Server::start(dir.path(), &[]);
        server.accept(&format!(r#"{{"name":"a","value":{value}}}"#));
        assert_eq!(
            server.get("/percentile?name=a&percentile=100").body,
            format!(r#"{{"p100":{value},"count":{value}}}"#)
        );
    }
}

#[test]
fn a_directory_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.accept(r#"{"name":"a","value":1}"#);
    drop(server);
    let path = dir.path().join("MANIFEST");
    let written = fs::read(&path).unwrap();
    let mut newer = written.clone();
    let version = u32::from_le_bytes(written[8..12].try_into().unwrap()) + 1;
    newer[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = crc32c(&newer[..20]);
    newer[20..24].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, &newer).unwrap();
    let ended = ends(command(dir.path(), &[]));
    told(&ended, FAILED, &[&format!("MANIFEST has format version {version}"), "newer ringwatch"]);
    assert_eq!(fs::read(&path).unwrap(), newer);

    let mut damaged = written.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&path, &damaged).unwrap();
    told(&ends(command(dir.path(), &[])), FAILED, &["MANIFEST is damaged at byte"]);

    fs::write(&path, &written).unwrap();
    assert_eq!(Server::start(dir.path(), &[]).get("/percentile?name=a").body, r#"{"p50":1,"count":1}"#);
}

/// CRC-32C, bit by bit: the format's checksum, said independently of the code that writes it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
