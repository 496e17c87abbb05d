//! A full disk turns writes into 507 and nothing else; writes return by themselves (SPEC §10).
//!
//! Method: a mount namespace of the test's own, with a small tmpfs over the data directory; servers run inside,
//! and the test fills and frees it through `/proc/<pid>/root`.

use crate::client::Client;
use crate::server::{PATIENCE, Server, command, poll, wait_child};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// A tmpfs of 32 MiB that only its own processes see; gone with the last of them.
struct SmallDisk {
    dir: TempDir,
    holder: Child,
}

impl SmallDisk {
    fn mount() -> SmallDisk {
        let dir = tempdir().unwrap();
        let script = "mount -t tmpfs -o size=32m tmpfs \"$1\" && mkdir \"$1/data\" && exec sleep 600";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(dir.path()).stdin(Stdio::null());
        let disk = SmallDisk { holder: command.spawn().expect("unshare of util-linux"), dir };
        poll(|| disk.path().join("data").exists().then_some(()));
        disk
    }

    /// Its path as the test sees it.
    fn path(&self) -> PathBuf {
        let inside = self.dir.path().strip_prefix("/").unwrap();
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// A command that becomes a server whose data lies on it, in small journal files.
    fn server(&self) -> Command {
        let arguments = ["--set", "shards=1", "--set", "http.body_bytes_max=256KiB"];
        let inner = command(&self.dir.path().join("data"), &arguments);
        let mut outer = Command::new("nsenter");
        outer.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.args(["--set", "storage.journal_file_bytes=1MiB"]);
        outer
    }

    /// Takes away the journal files that a killed server had prepared and not begun, as the next start does: the room
    /// that they leave would let it write.
    fn remove_unbegun(&self) {
        for entry in fs::read_dir(self.path().join("data/journal/loop-0")).unwrap() {
            let path = entry.unwrap().path();
            if fs::read(&path).unwrap().iter().take(8).all(|byte| *byte == 0) {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        for piece_bytes in [1 << 16, 1 << 12] {
            while file.write_all(&vec![1; piece_bytes]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing left to end.
        let _ = self.holder.kill();
        wait_child(&mut self.holder);
    }
}

/// Samples of one body.
const SAMPLES: u64 = 4_000;

/// A body whose values are hard to press together, so that a dozen of them fill a journal file.
fn body() -> String {
    let metrics: Vec<String> =
        (0..SAMPLES).map(|at| format!(r#"{{"name":"a","value":{}}}"#, 1.0 / (at + 3) as f64)).collect();
    format!("[{}]", metrics.join(","))
}

/// Sends until the disk is full; returns how many bodies were accepted meanwhile.
fn until_full(client: &mut Client, body: &str) -> u64 {
    let mut accepted = 0;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let answer = client.post("/metrics", body);
        match answer.status {
            202 => accepted += 1,
            // The next file is still being prepared.
            503 => std::thread::sleep(Duration::from_millis(5)),
            507 => {
                assert_eq!(answer.json()["error"], "disk full");
                let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&seconds));
                return accepted;
            }
            status => panic!("{status} {}", answer.body),
        }
    }
    panic!("the disk does not get full");
}

fn count(client: &mut Client) -> u64 {
    let answer = client.get("/percentile?name=a");
    assert_eq!(answer.status, 200, "reads go on: {}", answer.body);
    answer.json()["count"].as_u64().unwrap()
}

#[test]
#[ignore = "needs root and tmpfs: make test"]
fn a_full_disk_refuses_writes_and_goes_on_by_itself_when_there_is_room() {
    let disk = SmallDisk::mount();
    let server = Server::spawn(disk.server());
    let mut client = server.client();
    let body = body();
    let mut accepted = 0;
    for _ in 0..2 {
        disk.fill();
        accepted += until_full(&mut client, &body);
        for _ in 0..20 {
            assert_eq!(client.post("/metrics", &body).status, 507);
        }
        assert_eq!(count(&mut client), accepted * SAMPLES, "what was refused is not there");
        let health = client.get("/health");
        assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("unhealthy")));
        assert!(health.json()["reason"].is_string());

        disk.free();
        poll(|| (client.post("/metrics", &body).status == 202).then_some(()));
        accepted += 1;
        assert_eq!(client.get("/health").status, 200);
    }
    drop(server);
    let server = Server::spawn(disk.server());
    assert_eq!(count(&mut server.client()), accepted * SAMPLES);
}

/// A start on a full disk serves reads; writes are refused until there is room, and then go on without another start.
/// Two such starts in a row: the run number that neither could store is stored once there is room.
#[test]
#[ignore = "needs root and tmpfs: make test"]
fn a_start_on_a_full_disk_serves_reads_and_writes_return_by_themselves() {
    let disk = SmallDisk::mount();
    let mut server = Server::spawn(disk.server());
    let body = body();
    assert_eq!(server.client().post("/metrics", &body).status, 202);
    for _ in 0..2 {
        server.kill();
        disk.remove_unbegun();
        disk.fill();
        server = Server::spawn(disk.server());
        let mut client = server.client();
        let refused = poll(|| Some(client.post("/metrics", &body)).filter(|answer| answer.status != 503));
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (507, &"disk full".into()),
            "{}",
            refused.body
        );
        assert!(refused.header("retry-after").is_some());
        assert_eq!(count(&mut client), SAMPLES);
        assert_eq!(client.get("/health").status, 503);
        assert!(server.reported().iter().any(|line| line.contains("507 until there is room")));
    }
    let mut client = server.client();
    disk.free();
    poll(|| (client.post("/metrics", &body).status == 202).then_some(()));
    assert_eq!(client.get("/health").status, 200);
    drop(server);
    let server = Server::spawn(disk.server());
    assert_eq!(count(&mut server.client()), 2 * SAMPLES);
}
