//! Whatever was acknowledged is there after a kill: once, and as it was sent.
//!
//! Method: clients send under load, one body in flight each, and write down what was acknowledged; the
//! server is killed at a random moment; the next one, on the same directory, is asked for everything.
//! A body that was on its way may be there, whole and once, or not at all.

use crate::client::Client;
use crate::server::{PATIENCE, Server, command, now_ms, poll, signal};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use storage::checkpoint::{CHECKPOINTS_FOLDER, checkpoint_path};
use storage::disk::{StdDisk, ready};
use storage::manifest::Manifest;
use tempfile::tempdir;

/// What one client sent, as the store has to show it. Values are never given twice, so they are identities.
struct Sender {
    name: String,
    kind: Kind,
    durability: &'static str,
    next: u64,
    /// Of acknowledged samples, by value.
    kept: HashMap<u64, Sent>,
    /// The bodies whose answers did not come.
    unanswered: Vec<Vec<(u64, Sent)>>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// One sample, timed by the server.
    Single,
    /// One sample with a timestamp, each sent twice.
    Timed,
    /// A batch over several series, half of it timed.
    Batch,
    /// One sample of a new series with long labels, so that journal files fill up fast.
    Wide,
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    timestamp: Option<i64>,
    host: String,
}

impl Sender {
    fn new(index: usize, kind: Kind, durability: &'static str) -> Sender {
        let name = format!("load_{index}");
        Sender { name, kind, durability, next: 0, kept: HashMap::new(), unanswered: Vec::new() }
    }

    fn samples_of_next_body(&mut self, base_ms: i64) -> Vec<(u64, Sent)> {
        let size = if let Kind::Batch = self.kind { 30 } else { 1 };
        let first = self.next;
        self.next += size;
        let sample = |value: u64| {
            let timed = match self.kind {
                Kind::Timed => true,
                Kind::Batch => value.is_multiple_of(2),
                Kind::Single | Kind::Wide => false,
            };
            let host = match self.kind {
                Kind::Wide => format!("{value}-{}", "w".repeat(4_000)),
                _ => format!("h{}", value % 7),
            };
            (value, Sent { timestamp: timed.then_some(base_ms + value as i64), host })
        };
        (first..self.next).map(sample).collect()
    }

    fn body(&self, samples: &[(u64, Sent)]) -> String {
        let metric = |(value, sent): &(u64, Sent)| {
            let time = sent.timestamp.map_or(String::new(), |at| format!(r#","timestamp":{at}"#));
            format!(r#"{{"name":"{}","value":{value}{time},"labels":{{"host":"{}"}}}}"#, self.name, sent.host)
        };
        let metrics: Vec<String> = samples.iter().map(metric).collect();
        if let Kind::Batch = self.kind { format!("[{}]", metrics.join(",")) } else { metrics.concat() }
    }

    /// Sends until it is told to stop or the server is gone, and counts the samples acknowledged.
    fn send(&mut self, address: SocketAddr, base_ms: i64, stop: &AtomicBool, acknowledged: &AtomicUsize) {
        let Ok(mut client) = Client::try_connect(address) else { return };
        let header = format!("Durability: {}\r\n", self.durability);
        while !stop.load(Ordering::Relaxed) {
            let samples = self.samples_of_next_body(base_ms);
            let body = self.body(&samples);
            let times = if let Kind::Timed = self.kind { 2 } else { 1 };
            for _ in 0..times {
                match client.try_request("POST", "/metrics", &header, &body) {
                    Ok(answer) if answer.status == 202 => {
                        self.kept.extend(samples.iter().cloned());
                        acknowledged.fetch_add(samples.len(), Ordering::Relaxed);
                    }
                    // Refused with a reason: nothing of it is stored, unless a repetition had been kept.
                    Ok(answer) if answer.status == 503 => std::thread::sleep(Duration::from_millis(2)),
                    Ok(answer) => panic!("{} {}", answer.status, answer.body),
                    Err(_) => {
                        self.unanswered.push(samples);
                        return;
                    }
                }
            }
            if let Kind::Wide = self.kind {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
    }

    /// Asks for everything and compares. What was unanswered is settled by it: kept from now on, or never.
    fn check(&mut self, client: &mut Client, when: &str) {
        let rows = client.get(&format!("/query?name={}", self.name)).json();
        let mut found: HashMap<u64, Sent> = HashMap::new();
        let mut times: HashMap<u64, i64> = HashMap::new();
        for row in rows.as_array().unwrap() {
            let value = row["value"].as_u64().unwrap_or_else(|| panic!("{when}: a changed value: {row}"));
            let timestamp = row["timestamp"].as_i64().unwrap();
            let host = row["labels"]["host"].as_str().unwrap().to_owned();
            let twice = found.insert(value, Sent { timestamp: None, host }).is_some();
            assert!(!twice, "{when}: {} {value} is there twice", self.name);
            times.insert(value, timestamp);
        }
        for samples in std::mem::take(&mut self.unanswered) {
            let there = samples.iter().filter(|(value, _)| found.contains_key(value)).count();
            assert!(there == 0 || there == samples.len(), "{when}: {} of {} of a body", there, samples.len());
            if there > 0 {
                self.kept.extend(samples);
            }
        }
        let mut lost: Vec<u64> =
            self.kept.keys().filter(|value| !found.contains_key(value)).copied().collect();
        lost.sort_unstable();
        let range = (lost.first(), lost.last(), self.next);
        assert!(
            lost.is_empty(),
            "{when}: {} ({}): {} lost, {range:?}",
            self.name,
            self.durability,
            lost.len()
        );
        assert_eq!(found.len(), self.kept.len(), "{when}: {}: samples that nobody sent", self.name);
        for (value, sent) in &self.kept {
            assert_eq!(found[value].host, sent.host, "{when}: another label set");
            if let Some(timestamp) = sent.timestamp {
                assert_eq!(times[value], timestamp, "{when}: another time");
            }
        }
    }
}

/// How a server is ended.
#[derive(Clone, Copy)]
enum End {
    Kill,
    /// As soon as the data directory looks so.
    KillWhen(fn(&Path) -> bool),
    Terminate {
        signals: u32,
    },
}

struct Plan<'a> {
    /// Settings besides the shards.
    settings: &'a [&'a str],
    /// Of each round.
    shards: &'a dyn Fn(usize) -> &'static str,
    /// Of each round.
    end: &'a dyn Fn(usize) -> End,
    rounds: usize,
    /// A round's load lasts from 10 ms to this, and until `ACKNOWLEDGED_MIN` samples came through.
    load_ms_max: u64,
    /// Whether the rounds have met what they are for; further ones follow until they have.
    has_met: &'a dyn Fn(&Path) -> bool,
}

/// Samples of a round that are acknowledged before its end, however slow the machine.
const ACKNOWLEDGED_MIN: usize = 10;
/// Rounds at most, until what they are for has been met.
const ROUNDS_MAX: usize = 100;

impl Plan<'_> {
    fn server(&self, data_dir: &Path, round: usize) -> Server {
        let shards = format!("shards={}", (self.shards)(round));
        let mut arguments = vec!["--set", shards.as_str()];
        arguments.extend_from_slice(self.settings);
        Server::spawn(command(data_dir, &arguments))
    }

    fn run(&self, mut senders: Vec<Sender>) {
        let dir = tempdir().unwrap();
        let base_ms = now_ms() - 3_600_000;
        let mut random = now_ms() as u64;
        println!("the moments come from seed {random}");
        let mut rounds = 0;
        while rounds < self.rounds || !(self.has_met)(dir.path()) {
            let round = rounds;
            rounds += 1;
            assert!(round < ROUNDS_MAX, "{ROUNDS_MAX} rounds did not meet what they are for");
            let mut server = self.server(dir.path(), round);
            for sender in &mut senders {
                sender.check(&mut server.client(), &format!("start {round}"));
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let load = Duration::from_millis(10 + (random >> 33) % self.load_ms_max);
            let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
            let address = server.address;
            std::thread::scope(|scope| {
                for sender in &mut senders {
                    let (stop, acknowledged) = (&stop, &acknowledged);
                    scope.spawn(move || sender.send(address, base_ms, stop, acknowledged));
                }
                std::thread::sleep(load);
                poll(|| (acknowledged.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN).then_some(()));
                match (self.end)(round) {
                    End::Kill => server.kill(),
                    End::KillWhen(looks_so) => {
                        let deadline = Instant::now() + PATIENCE;
                        while !looks_so(dir.path()) && Instant::now() < deadline {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        server.kill();
                    }
                    End::Terminate { signals } => {
                        for _ in 0..signals {
                            server.signal("TERM");
                        }
                        let ended = server.wait();
                        assert_eq!(ended.code, Some(0), "round {round}: {}", ended.errors);
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        let server = self.server(dir.path(), rounds);
        let mut kept = 0;
        for sender in &mut senders {
            sender.check(&mut server.client(), "at the end");
            kept += sender.kept.len();
        }
        println!("{kept} samples over {rounds} ends");
    }
}

fn senders() -> Vec<Sender> {
    vec![
        Sender::new(0, Kind::Single, "written"),
        Sender::new(1, Kind::Single, "synced"),
        Sender::new(2, Kind::Timed, "written"),
        Sender::new(3, Kind::Batch, "synced"),
        Sender::new(4, Kind::Batch, "written"),
    ]
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_changed_by_twenty_kills() {
    Plan {
        settings: &[],
        shards: &|_| "2",
        end: &|_| End::Kill,
        rounds: 20,
        load_ms_max: 250,
        has_met: &|_| true,
    }
    .run(senders());
}

#[test]
fn nothing_is_lost_by_kills_during_flushes_and_while_journal_files_change() {
    let mut senders = senders();
    senders.push(Sender::new(5, Kind::Wide, "written"));
    // Flushes wrote segments and cut the first journal files; how many rounds that takes is the machine's affair.
    let has_met = |data_dir: &Path| {
        let segments = std::fs::read_dir(data_dir.join("segments")).map_or(0, Iterator::count);
        let first = |journal| data_dir.join("journal").join(journal).join("0000000000000001.journal");
        segments > 0 && ["loop-0", "loop-1"].iter().all(|journal| !first(journal).exists())
    };
    Plan {
        settings: &[
            "--set",
            "storage.flush_interval=1s",
            "--set",
            "http.body_bytes_max=256KiB",
            "--set",
            "storage.journal_file_bytes=1MiB",
        ],
        shards: &|_| "2",
        end: &|_| End::Kill,
        rounds: 6,
        load_ms_max: 2_000,
        has_met: &has_met,
    }
    .run(senders);
}

/// Whether a checkpoint is being written: there is a file that no manifest names.
fn is_checkpointing(data_dir: &Path) -> bool {
    let Ok(Some(manifest)) = ready(Manifest::load(&StdDisk::new(data_dir))) else { return false };
    let named: Vec<String> = manifest.checkpoints.iter().map(|entry| checkpoint_path(entry.id)).collect();
    let files = std::fs::read_dir(data_dir.join(CHECKPOINTS_FOLDER)).into_iter().flatten();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.map(|name| format!("{CHECKPOINTS_FOLDER}/{name}")).any(|path| !named.contains(&path))
}

/// Method: the kill waits for a checkpoint's file; what the kill leaves says whether it met it.
#[test]
fn nothing_is_lost_by_kills_during_checkpoints() {
    let met = Cell::new(0);
    let has_met = |data_dir: &Path| {
        met.set(met.get() + u32::from(is_checkpointing(data_dir)));
        met.get() > 2
    };
    Plan {
        settings: &["--set", "storage.checkpoint_interval=1s", "--set", "http.body_bytes_max=256KiB"],
        shards: &|_| "2",
        end: &|_| End::KillWhen(is_checkpointing),
        rounds: 0,
        load_ms_max: 100,
        has_met: &has_met,
    }
    .run(senders());
}

#[test]
fn another_number_of_shards_keeps_everything_also_under_kills() {
    Plan {
        settings: &["--set", "storage.flush_interval=1s"],
        shards: &|round| ["2", "1"][round % 2],
        end: &|round| if round % 3 == 2 { End::Terminate { signals: 1 } } else { End::Kill },
        rounds: 7,
        load_ms_max: 300,
        has_met: &|_| true,
    }
    .run(senders());
}

#[test]
fn a_termination_ends_with_zero_and_keeps_everything_and_so_does_a_second_one() {
    Plan {
        settings: &[],
        shards: &|_| "2",
        end: &|round| End::Terminate { signals: 1 + round as u32 % 2 },
        rounds: 4,
        load_ms_max: 300,
        has_met: &|_| true,
    }
    .run(senders());
}

/// Method: a server without load, so that the end has nothing to wait for but itself; an open connection is
/// closed, and a new one is not taken.
#[test]
fn an_idle_server_ends_at_once_when_told_to() {
    let dir = tempdir().unwrap();
    for signal in ["TERM", "INT"] {
        // An address of its own, so that no other test's server takes the port behind it.
        let server = Server::start(dir.path(), &["--listen", "127.0.0.32:0"]);
        let mut client = server.client();
        assert_eq!(client.post("/metrics", r#"{"name":"a","value":1}"#).status, 202);
        server.signal("HUP");
        assert_eq!(client.get("/health").status, 200, "a hang-up does not end it");
        let address = server.address;
        server.signal(signal);
        let ended = server.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert_eq!(client.rest(), b"");
        assert!(Client::try_connect(address).is_err());
    }
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/percentile?name=a").body, r#"{"p50":1,"count":2}"#);
}

/// Everything below a directory, by path.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// Method: a server is told to end as soon as it says that it replays. When it was ready before it heard of that,
/// there was too little to replay: more is added, and the same is tried again.
#[test]
fn a_termination_during_replay_changes_no_data_and_the_next_start_has_everything() {
    const SAMPLES: u64 = 5_000;
    let members: Vec<String> = (0..SAMPLES).map(|at| format!(r#"{{"name":"a","value":{at}}}"#)).collect();
    let body = format!("[{}]", members.join(","));
    let dir = tempdir().unwrap();
    let mut kept = 0;
    for bodies in [100, 200, 400, 800, 1_600] {
        let mut server = Server::start(dir.path(), &[]);
        let mut client = server.client();
        for _ in 0..bodies {
            // 503: the next journal file is still being prepared.
            poll(|| (client.post("/metrics", &body).status == 202).then_some(()));
        }
        kept += bodies * SAMPLES;
        server.kill();

        let before = contents(&dir.path().join("journal"));
        // An address of its own, so that no other test's server takes the port meanwhile.
        let free = std::net::TcpListener::bind(("127.0.0.33", 0)).unwrap().local_addr().unwrap();
        let listen = format!("listen={free}");
        let arguments = ["--set", "shards=1", "--set", &listen];
        let mut starting = command(dir.path(), &arguments).stdout(Stdio::null()).spawn().unwrap();
        let ready = poll(|| Client::try_connect(free).ok()?.try_request("GET", "/-/ready", "", "").ok());
        signal(starting.id(), "TERM");
        let ended = poll(|| starting.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0));
        if ready.status == 503 && contents(&dir.path().join("journal")) == before {
            let server = Server::start(dir.path(), &[]);
            assert_eq!(server.get("/percentile?name=a").json()["count"], kept);
            return;
        }
    }
    panic!("{kept} samples were replayed before the end, or the journal is changed by an end during replay");
}
