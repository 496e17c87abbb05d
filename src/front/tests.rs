//! Goal: a loop whose journal fails answers every request once, in order, and goes on with the next file; a loop
//! whose executor falls behind lets samples wait, and nothing else, and refuses them in the end.
//! Method: a true loop on its thread, with true sockets; the test plays its executor. The journal's first file is a
//! device of the kernel: `/dev/full` refuses every write, `/dev/null` takes them and refuses every sync.

#[expect(dead_code, reason = "the client of the end-to-end tests does more than is needed here")]
#[path = "../tests/e2e/client.rs"]
mod client;
mod limited;
#[path = "../tests/e2e/remote_body.rs"]
mod remote_body;

mod again;
mod fairness;
mod handover;
mod next_file;

use super::*;
use crate::api::Door;
use crate::config::{Config, Sources};
use crate::console::Console;
use crate::fan_in::QueryAnswer;
use client::{Answer, Client};
use http::Method;
use shard::bell::Bell;
use shard::file::LoopFile;
use shard::mesh::mesh;
use shard::net::ClaimedPort;
use std::path::Path;
use std::thread::JoinHandle;
use storage::disk::{StdDisk, ready};
use storage::journal::{self, JournalLimits, NextFile, PreparedFile, Resume, Writer};
use storage::manifest::Manifest;
use tempfile::{TempDir, tempdir};

const BODY: &str = r#"{"name":"a","value":1}"#;
const FILE_BYTES: u64 = 4 << 20;

/// A loop on its thread. The ends of the meshes that executors and other loops would hold are the test's.
struct Rig {
    dir: TempDir,
    shared: Arc<Shared>,
    address: SocketAddr,
    _port: ClaimedPort,
    inboxes: Vec<Inbox<ToStore>>,
    loops: Outbox<ToLoop>,
    /// What another loop holds, where there is one.
    fellow: Option<(Outbox<Portion>, Inbox<Portion>)>,
    flushes_asked: usize,
    /// The journal file that the loop has asked for last.
    file_asked: Option<NextFile>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    /// A loop whose first journal file is `device`, or a true file.
    fn start(device: Option<&str>) -> Rig {
        Rig::with_memory(device, None)
    }

    /// The same with a memory budget of so many bytes: an eighth is for what waits on connections.
    fn with_memory(device: Option<&str>, memory_bytes_max: Option<u64>) -> Rig {
        Rig::run(Rig::laid(device, memory_bytes_max))
    }

    /// The first of so many loops, with these settings.
    fn among(count: usize, settings: &[(&str, &str)], console: Console) -> Rig {
        Rig::run(Rig::laid_among(None, None, (count, settings, console)))
    }

    fn run((mut rig, parts): (Rig, FrontParts)) -> Rig {
        rig.thread = Some(std::thread::spawn(move || Front::new(parts).unwrap().run().unwrap()));
        rig
    }

    /// The same, with a loop that the test turns itself.
    fn laid(device: Option<&str>, memory_bytes_max: Option<u64>) -> (Rig, FrontParts) {
        Rig::laid_among(device, memory_bytes_max, (1, &[], Console::default()))
    }

    fn laid_among(
        device: Option<&str>,
        memory_bytes_max: Option<u64>,
        (count, settings, console): (usize, &[(&str, &str)], Console),
    ) -> (Rig, FrontParts) {
        Rig::laid_with_files(FILE_BYTES, device, memory_bytes_max, (count, settings, console))
    }

    fn laid_with_files(
        file_bytes_min: u64,
        device: Option<&str>,
        memory_bytes_max: Option<u64>,
        (count, settings, console): (usize, &[(&str, &str)], Console),
    ) -> (Rig, FrontParts) {
        let dir = tempdir().unwrap();
        let sets = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap();
        let bells = || (0..count).map(|_| Bell::new().unwrap()).collect();
        let manifest = Manifest::new(count as u16);
        let mut shared = Shared::new(config, dir.path().into(), console, &manifest, bells(), bells());
        shared.memory_bytes_max = memory_bytes_max.unwrap_or(shared.memory_bytes_max);
        let shared = Arc::new(shared);
        (0..count).for_each(|_| shared.executor_is_ready());
        let (mut to_store, inboxes) = mesh(1, &shared.store_bells, 256);
        let (mut to_loop, mut from_stores) = mesh(1, &shared.loop_bells, 256);
        let (mut to_loops, mut from_other_loops) = mesh(count, &shared.loop_bells, 2);
        let limits = JournalLimits { file_bytes_min, ..JournalLimits::default() };
        let mut wal = Wal::new(Writer::new(0, 1, Resume::default(), limits));
        let first = wal.needs_file().expect("there is none yet");
        wal.take_file(Ok(file(dir.path(), first, device)));
        let port = ClaimedPort::claim(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let parts = FrontParts {
            shared: shared.clone(),
            index: 0,
            listen: port.addr(),
            net: NetConfig { connections_max: 16, recv_buffers: 64, ..NetConfig::default() },
            wal,
            outbox: to_store.remove(0),
            inbox: from_stores.remove(0),
            to_loops: to_loops.remove(0),
            from_loops: from_other_loops.remove(0),
        };
        let address = parts.listen;
        let (loops, fellow) = (to_loop.remove(0), to_loops.pop().zip(from_other_loops.pop()));
        let (flushes_asked, file_asked, thread) = (0, None, None);
        let rig = Rig {
            dir,
            shared,
            address,
            _port: port,
            inboxes,
            loops,
            fellow,
            flushes_asked,
            file_asked,
            thread,
        };
        (rig, parts)
    }

    fn client(&self) -> Client {
        loop {
            // The thread may not have come to listen yet.
            match Client::try_connect(self.address) {
                Ok(client) => return client,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// The next message that the loop sends, and that is not of its journal alone.
    fn message(&mut self) -> ToStore {
        loop {
            match self.take() {
                Some(message) => return message,
                None => std::thread::yield_now(),
            }
        }
    }

    /// The next message in the ring, if there is one, and if it is not of the journal alone.
    fn take(&mut self) -> Option<ToStore> {
        match self.inboxes.iter_mut().find_map(Inbox::pop)?.1 {
            // Every owner is told of every new dictionary.
            ToStore::Dictionary { .. } => None,
            ToStore::Flush { .. } => {
                self.flushes_asked += 1;
                None
            }
            ToStore::PrepareJournal { next, .. } => {
                self.file_asked = Some(next);
                None
            }
            message => Some(message),
        }
    }

    /// Takes everything that lies in the ring, as an executor does; says whether the loop asked to be woken.
    fn catch_up(&mut self) -> bool {
        let mut asked = false;
        while self.inboxes.iter().any(|inbox| !inbox.is_empty()) {
            match self.take() {
                Some(ToStore::WakeLoop { .. }) => asked = true,
                Some(ToStore::Decode { conn, body, .. }) => self.decode(conn, *body),
                _ => {}
            }
        }
        if asked {
            self.shared.loop_bells[0].ring();
        }
        asked
    }

    /// Posts one body after the other, each a turn of its own, until the loop takes no more.
    fn fill(&mut self, client: &mut Client) {
        self.fill_by(client, post("written", BODY).as_bytes());
    }

    fn fill_by(&mut self, client: &mut Client, request: &[u8]) {
        // The first one brings the news of its dictionary along, which takes a place of its own.
        client.send(request).unwrap();
        assert_eq!(client.answer().status, 202);
        self.catch_up();
        for _ in 0..BATCHES_PENDING_MAX {
            client.send(request).unwrap();
            assert_eq!(client.answer().status, 202, "below the bound nothing is refused");
        }
    }

    /// The client's next answer; meanwhile the executor does its work.
    fn answer(&mut self, client: &mut Client) -> Answer {
        while !client.is_answered() {
            self.catch_up();
            std::thread::yield_now();
        }
        client.answer()
    }

    /// Decodes a plain body that the loop has no room for, as an executor does.
    fn decode(&mut self, conn: ConnId, body: LargeBody) {
        let LargeBody { door, bounds, bytes, coding, counted_bytes } = body;
        assert_eq!(coding, None);
        let mut batch = model::Batch::default();
        let accepted = match door {
            Door::Metrics => {
                let mut decoder = ingest::MetricsDecoder::new(1);
                let shape = decoder.decode(&bytes, &mut batch, &mut ingest::Repeat::default()).unwrap().shape;
                Accepted::metrics(shape, batch.len())
            }
            Door::RemoteWrite => {
                let (mut decoder, mut repeat) =
                    (ingest::RemoteWriteDecoder::new(), ingest::Repeat::default());
                let written = decoder.decode(&bytes, &bounds, &mut batch, &mut repeat, |_| false).unwrap();
                Accepted::Remote { samples: batch.len(), written: Box::new(written), over_limit: None }
            }
            Door::Lines { .. } | Door::Import(_) | Door::Exposition => panic!("no test sends these"),
        };
        let decoded = LargeBatch { batch, plain_bytes: bytes.len(), accepted, client_id: None };
        let decoded = ToLoop::Decoded { conn, counted_bytes, decoded: Ok(Box::new(decoded)) };
        assert!(self.loops.send(0, decoded).is_ok());
    }

    fn counters(&self) -> &crate::shared::FrontCounters {
        &self.shared.shards[0].front
    }

    /// Gives the loop the file that it asks for, a true one; returns the samples handed over before it asked.
    fn give_file(&mut self) -> usize {
        let mut samples = 0;
        loop {
            if let Some(next) = self.file_asked.take() {
                let prepared = file(self.dir.path(), next, None);
                assert!(self.loops.send(0, ToLoop::JournalFile(Ok(prepared))).is_ok());
                return samples;
            }
            match self.take() {
                Some(ToStore::Share(share)) => samples += share.len(),
                Some(ToStore::Decode { conn, body, .. }) => self.decode(conn, *body),
                Some(_) => panic!("nothing else was asked for"),
                None => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the loop panicked");
        }
    }
}

fn file(root: &Path, next: NextFile, device: Option<&str>) -> (PreparedFile, LoopFile) {
    let prepared = ready(journal::prepare(&StdDisk::new(root), 0, next)).unwrap();
    let path = root.join(journal::file_path(0, next.sequence));
    (prepared, LoopFile::open(device.map_or(path.as_path(), Path::new)).unwrap())
}

fn post(level: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /metrics HTTP/1.1\r\nHost: h\r\nDurability: {level}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn statuses(client: &mut Client, answers: usize) -> Vec<u16> {
    (0..answers).map(|_| client.answer().status).collect()
}

fn assert_come_back(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_write_that_fails_refuses_its_turn_in_order_and_the_next_file_goes_on() {
    let mut rig = Rig::start(Some("/dev/full"));
    let mut client = rig.client();
    let pipeline = [post("written", BODY), get("/-/healthy"), post("synced", BODY), get("/nowhere")];
    client.send(pipeline.concat()).unwrap();
    assert_come_back(&client.answer(), 507);
    assert_eq!(client.answer().body, "ringwatch is up\n");
    // Had it come in a turn of its own, it would have found no file.
    assert!([507, 503].contains(&client.answer().status));
    assert_eq!(client.answer().status, 404);

    assert_eq!(rig.give_file(), 0, "nothing of what was refused is in the store");
    client.send(post("written", BODY)).unwrap();
    assert_eq!(client.answer().status, 202);
    assert!(matches!(rig.message(), ToStore::Share(share) if share.len() == 1));
}

#[test]
fn a_sync_that_fails_refuses_what_waits_for_it_in_order_and_the_next_file_goes_on() {
    let mut rig = Rig::start(Some("/dev/null"));
    let mut client = rig.client();
    let pipeline = [
        post("synced", BODY),
        get("/-/healthy"),
        post("written", BODY),
        post("nonsense", BODY),
        post("synced", BODY),
    ];
    client.send(pipeline.concat()).unwrap();
    assert_come_back(&client.answer(), 503);
    assert_eq!(client.answer().body, "ringwatch is up\n");
    assert_eq!(statuses(&mut client, 3), [503, 400, 503]);

    assert_eq!(rig.give_file(), 3, "the kernel had them, so they are in the store; no answer promised them");
    client.send(post("synced", BODY)).unwrap();
    assert_eq!(client.answer().status, 202);
    assert!(matches!(rig.message(), ToStore::Share(share) if share.len() == 1));
    assert_eq!(rig.flushes_asked, 1, "what will not be replayed is to reach a segment");
}

/// What an executor makes of a large body.
fn decoded(conn: ConnId, body: &LargeBody) -> ToLoop {
    let mut batch = model::Batch::default();
    ingest::MetricsDecoder::new(0).decode(&body.bytes, &mut batch, &mut ingest::Repeat::default()).unwrap();
    let accepted = Accepted::Batch { count: batch.len() };
    let large = LargeBatch { batch, plain_bytes: body.bytes.len(), accepted, client_id: None };
    ToLoop::Decoded { conn, counted_bytes: body.counted_bytes, decoded: Ok(Box::new(large)) }
}

/// A body of so many short metrics.
fn rows(count: usize) -> String {
    format!("[{}]", vec![BODY; count].join(","))
}

/// Turns the loop until the client has its answer.
fn turn_until_answered(front: &mut Front, client: &mut Client) -> Answer {
    while !client.is_answered() {
        front.turn().unwrap();
    }
    client.answer()
}

/// Method: shares fill what may wait in the ring, so that a large batch is stopped after its first rows. The test
/// turns the loop itself and asks it before each turn how it would wait.
#[test]
fn a_large_body_that_waits_for_room_lets_the_loop_sleep_a_millisecond() {
    let (mut rig, parts) = Rig::laid(None, Some(4 << 20));
    let mut front = Front::new(parts).unwrap();
    let mut client = Client::connect(rig.address);
    let (mut waiting, mut last) = (0, 0);
    while waiting + last <= rig.shared.ring_bytes_max() {
        client.send(post("written", &rows(8_000))).unwrap();
        assert_eq!(turn_until_answered(&mut front, &mut client).status, 202);
        let ToStore::Share(share) = rig.message() else { panic!("samples go to the executor") };
        last = share.bytes() as u64;
        waiting += last;
    }
    client.send(post("written", &rows(16_000))).unwrap();
    let large = loop {
        front.turn().unwrap();
        if let Some(ToStore::Decode { conn, body, .. }) = rig.take() {
            break decoded(conn, &body);
        }
    };
    assert!(rig.loops.send(0, large).is_ok());
    // The first turns take rows and ring the executor's bell; on a slow machine the millisecond is over now and then.
    let slept = (0..1_000).any(|_| {
        front.turn().unwrap();
        matches!(front.how_long(), Wait::Until(at) if at <= Instant::now() + Duration::from_millis(1))
    });
    assert!(slept, "it turned a thousand times without rest");
    rig.shared.applied_bytes[0][0].add(waiting);
    let answer = turn_until_answered(&mut front, &mut client);
    // Should the machine have stood still for five seconds, it was refused meanwhile.
    assert!([202, 503].contains(&answer.status), "{}", answer.body);
    rig.shared.stop();
    while !front.turn().unwrap() {}
}

/// A query may take longer than a connection may idle: its time begins with the answer. Method: the loop is turned by
/// hand, and the request is told to have come when the machine started.
#[test]
fn a_connection_does_not_idle_while_its_answer_is_made() {
    let (mut rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let mut client = Client::connect(rig.address);
    client.send(get("/query?name=a")).unwrap();
    let conn = loop {
        front.turn().unwrap();
        if let Some(ToStore::Query { conn, .. }) = rig.take() {
            break conn;
        }
    };
    front.exchange.connection(conn).unwrap().active_s = 0;
    assert_eq!(front.exchange.look_for_expired(|_| false), None, "nothing runs while it is out");
    front.exchange.answered(conn, Ok(QueryAnswer { body: Some(b"[]".to_vec()), warnings: Box::default() }));
    front.send_replies();
    let expires_at = front.exchange.look_for_expired(|_| false);
    assert!(!front.exchange.has_expired());
    assert!(expires_at.is_some_and(|at| at > front.exchange.now.nanos));
    rig.shared.stop();
    while !front.turn().unwrap() {}
}

/// Half a message is late by its client's fault alone: not while its answers are on their way to a slow reader, nor
/// while it stands in line; afterwards it has its whole time. Method: the loop is turned by hand, and the half is told
/// to have come when the machine started.
#[test]
fn a_message_is_not_late_while_nobody_looks_at_it() {
    let (rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let mut client = Client::connect(rig.address);
    client.send("GET /-/healthy HTTP/1.1\r\nHo").unwrap();
    let conn = loop {
        front.turn().unwrap();
        let mut open = front.exchange.open_connections();
        if let Some(half) = open.find(|connection| connection.unfinished.is_some()) {
            break half.id;
        }
    };
    let came_at_start = |front: &mut Front| {
        front.exchange.connection(conn).unwrap().unfinished.as_mut().unwrap().since_s = 0;
    };
    came_at_start(&mut front);
    assert_eq!(front.exchange.look_for_expired(|_| true), None, "it is reading");
    front.exchange.connection(conn).unwrap().looks_again = true;
    assert_eq!(front.exchange.look_for_expired(|_| false), None, "it stands in line");
    assert!(!front.exchange.has_expired());
    front.exchange.connection(conn).unwrap().looks_again = false;
    front.resume(conn);
    let expires_at = front.exchange.look_for_expired(|_| false);
    assert!(expires_at.is_some_and(|at| at > front.exchange.now.nanos), "its time begins again");
    assert!(!front.exchange.has_expired());

    came_at_start(&mut front);
    front.exchange.look_for_expired(|_| false);
    assert_eq!(front.exchange.end_expired(|_| true), [], "it has begun to read meanwhile");
    assert_eq!(front.exchange.replies.len(), 0);
    front.exchange.look_for_expired(|_| false);
    assert_eq!(front.exchange.end_expired(|_| false), [], "it is more than idle");
    assert_eq!(front.exchange.replies.len(), 1, "nobody but the client holds it up");
    front.send_replies();
    drop(client);
    rig.shared.stop();
    while !front.turn().unwrap() {}
}

/// A crowd whose time is over in the same second does not stop the loop for all of it: some are ended in each turn.
/// Method: the loop is turned by hand, and all connections are told to have been quiet since the machine started.
#[test]
fn a_crowd_that_idles_is_let_go_a_few_a_turn() {
    const CROWD: usize = 15;
    let (rig, parts) = Rig::laid(None, None);
    let mut front = Front::new(parts).unwrap();
    let _crowd: Vec<Client> = (0..CROWD).map(|_| Client::connect(rig.address)).collect();
    while front.exchange.open_connections().count() < CROWD {
        front.turn().unwrap();
    }
    let all: Vec<ConnId> = front.exchange.open_connections().map(|connection| connection.id).collect();
    all.iter().for_each(|conn| front.exchange.connection(*conn).unwrap().active_s = 0);
    front.exchange.look_for_expired(|_| false);
    let counters = rig.counters();
    let mut most = 0;
    while front.exchange.has_expired() {
        let before = counters.connections_idle.get();
        front.turn().unwrap();
        most = most.max(counters.connections_idle.get() - before);
    }
    assert_eq!(counters.connections_idle.get(), CROWD as u64);
    assert!((1..=4).contains(&most), "{most} in one turn");
    rig.shared.stop();
    while !front.turn().unwrap() {}
}

/// A body of several turns: rows of it are lost with their frames, so the whole is refused, and at once; what the
/// client sent behind it is answered.
#[test]
fn a_large_body_is_refused_as_a_whole_when_rows_of_it_are_lost() {
    let mut rig = Rig::start(Some("/dev/full"));
    let mut client = rig.client();
    let members: Vec<String> =
        (0..100_000).map(|at| format!(r#"{{"name":"a","value":{}}}"#, 1.0 / f64::from(at + 3))).collect();
    let text = format!("[{}]", members.join(","));
    client.send(post("written", &text) + &get("/-/healthy")).unwrap();
    let ToStore::Decode { conn, body, .. } = rig.message() else {
        panic!("a large body is decoded elsewhere")
    };
    assert_eq!(body.bytes.len(), text.len());
    assert!(rig.loops.send(0, decoded(conn, &body)).is_ok());
    assert_come_back(&client.answer(), 507);
    assert_eq!(client.answer().body, "ringwatch is up\n");
    rig.give_file();
    client.send(post("written", BODY)).unwrap();
    assert_eq!(client.answer().status, 202);
}

/// Method: the executor takes nothing. As many turns as may be pending are accepted; the samples after them wait,
/// other requests do not, and since no room comes the samples are refused.
#[test]
fn samples_beyond_the_bound_wait_and_are_refused_when_no_room_comes() {
    let mut rig = Rig::start(None);
    let (mut sender, mut reader) = (rig.client(), rig.client());
    rig.fill(&mut sender);
    let held = [post("written", BODY), get("/-/healthy"), post("written", BODY)];
    sender.send(held.concat()).unwrap();
    reader.send(get("/-/healthy") + &get("/health") + &post("written", BODY)).unwrap();
    assert_eq!(statuses(&mut reader, 2), [200, 200]);
    assert_come_back(&reader.answer(), 503);
    assert_come_back(&sender.answer(), 503);
    assert_eq!(sender.answer().body, "ringwatch is up\n", "order within a connection");
    assert_come_back(&sender.answer(), 503);
    assert_eq!(rig.counters().pauses.get(), 1);
    assert_eq!(rig.counters().overload_refusals.get(), 3);
    assert!(
        rig.counters().paused_nanos.get() >= gate::PAUSE_NANOS_MAX,
        "they were refused only after the pause"
    );

    assert!(rig.catch_up());
    sender.send(post("written", BODY)).unwrap();
    assert_eq!(sender.answer().status, 202);
}

/// Method: samples are sent to a loop that waits for its executor, which then takes everything. Should the test
/// be kept from its processor for the whole pause, the samples were refused: then it tries again.
#[test]
fn samples_that_waited_are_taken_in_their_order_when_the_executor_has_caught_up() {
    let mut rig = Rig::start(None);
    let mut sender = rig.client();
    let mut first = rig.client();
    let mut second = rig.client();
    for _ in 0..100 {
        rig.fill(&mut sender);
        let pauses = rig.counters().pauses.get();
        first.send(post("written", BODY).repeat(3)).unwrap();
        second.send(post("written", BODY)).unwrap();
        // Once this is answered the loop has seen the others.
        sender.send(get("/-/healthy")).unwrap();
        assert_eq!(sender.answer().status, 200);
        while !rig.catch_up() {
            std::thread::yield_now();
        }
        let told = [statuses(&mut first, 3), statuses(&mut second, 1)].concat();
        rig.catch_up();
        assert_eq!(rig.counters().pauses.get(), pauses);
        if told == [202; 4] {
            return;
        }
        assert!(told.iter().all(|status| [202, 503].contains(status)), "{told:?}");
    }
    panic!("the loop was never woken in time");
}

/// A body whose journal bytes are many: its values are hard to press together.
fn long_body() -> String {
    let members: Vec<String> =
        (0..5_000).map(|at| format!(r#"{{"name":"a","value":{}}}"#, 1.0 / f64::from(at + 3))).collect();
    format!("[{}]", members.join(","))
}

/// Sends a body until it is not taken, with an executor that keeps up; the answer to that.
fn first_not_taken(rig: &mut Rig, client: &mut Client, body: &str) -> Answer {
    loop {
        client.send(post("written", body)).unwrap();
        let answer = rig.answer(client);
        if answer.status != 202 {
            return answer;
        }
    }
}

/// Method: no next file comes. The last of the file goes in after a pause; what does not fit any more is refused,
/// other requests are not, and with the next file samples are taken again.
#[test]
fn samples_wait_for_the_next_journal_file_and_are_refused_when_it_does_not_come() {
    let mut rig = Rig::start(None);
    let mut client = rig.client();
    let body = long_body();
    assert_come_back(&first_not_taken(&mut rig, &mut client, &body), 503);
    assert_eq!(rig.counters().pauses.get(), 1, "one pause for one file");
    assert!(rig.counters().paused_nanos.get() >= gate::FILE_PAUSE_NANOS_MAX);
    client.send(get("/health") + &post("written", &body)).unwrap();
    let told = [rig.answer(&mut client).status, rig.answer(&mut client).status];
    assert_eq!(told, [200, 503], "the disk has refused nothing");
    rig.give_file();
    client.send(post("written", &body)).unwrap();
    assert_eq!(client.answer().status, 202);
}

/// A disk that has no room for the next file is nobody's concern while the present one has: then it is told at once.
#[test]
fn a_refused_journal_file_refuses_samples_only_when_the_present_one_is_full() {
    let mut rig = Rig::start(None);
    let mut client = rig.client();
    let body = long_body();
    client.send(post("written", BODY)).unwrap();
    assert_eq!(client.answer().status, 202);
    while rig.file_asked.take().is_none() {
        rig.catch_up();
    }
    let full = || ToLoop::JournalFile(Err(io::ErrorKind::StorageFull.into()));
    assert!(rig.loops.send(0, full()).is_ok());
    client.send(get("/health")).unwrap();
    assert_eq!(client.answer().status, 200);
    assert_come_back(&first_not_taken(&mut rig, &mut client, &body), 507);
    assert_eq!(rig.counters().pauses.get(), 0, "nobody waits for what was refused");
    client.send(get("/health")).unwrap();
    assert_eq!(client.answer().status, 503);
    rig.give_file();
    client.send(post("written", &body) + &get("/health")).unwrap();
    assert_eq!(statuses(&mut client, 2), [202, 200]);
}

/// Goal: a pipeline that fills every turn does not keep out samples that waited. Method: both are held, the pipeline
/// first; its answers tell how many bodies were accepted by then, and are not read before the samples are answered.
#[test]
fn samples_that_waited_have_their_turn_beside_a_pipeline_that_fills_every_turn() {
    const READS: usize = 400;
    let mut rig = Rig::start(None);
    let (mut filler, mut pipeline, mut held) = (rig.client(), rig.client(), rig.client());
    rig.fill(&mut filler);
    let accepted = rig.counters().bodies_accepted.get();
    pipeline.send(post("memory", BODY) + &get("/metrics").repeat(READS)).unwrap();
    filler.send(get("/-/healthy")).unwrap();
    assert_eq!(filler.answer().status, 200);
    held.send(post("memory", BODY)).unwrap();
    while !held.is_answered() {
        rig.catch_up();
        std::thread::yield_now();
    }
    let told = [pipeline.answer().status, held.answer().status];
    if told != [202; 2] {
        // This test was kept from its processor for the whole pause: nothing waited.
        return;
    }
    let pages: Vec<String> = (0..READS).map(|_| pipeline.answer().body).collect();
    let line = format!("ringwatch_ingest_bodies_total{{shard=\"0\"}} {}\n", accepted + 1);
    let before: usize = pages.iter().filter(|page| page.contains(&line)).map(String::len).sum();
    let turn = exchange::TURN_BYTES_MAX + pages[0].len() * 2;
    assert!(before <= 2 * turn, "{before} bytes of answers went before");
    assert!(before > 0, "the line is in every page");
}

/// More than fits a connection's share is not read: the rest stays with the kernel, and all of it is answered.
#[test]
fn what_waits_is_bounded_and_every_request_is_answered() {
    const REQUESTS: usize = 4_000;
    let mut rig = Rig::start(None);
    let mut sender = rig.client();
    rig.fill(&mut sender);
    let mut client = rig.client();
    let requests = post("memory", BODY).repeat(REQUESTS);
    let writer = std::thread::spawn(move || {
        client.send(requests).unwrap();
        statuses(&mut client, REQUESTS)
    });
    while !writer.is_finished() {
        rig.catch_up();
        std::thread::yield_now();
    }
    let told = writer.join().unwrap();
    assert!(told.iter().all(|status| [202, 503].contains(status)));
}

/// Method: room for 8 KiB that wait, and 16 KiB behind a query that is out, twice.
#[test]
fn what_finds_no_room_waits_for_the_answer_before_it_and_no_refusal_overtakes_that() {
    const BEHIND: usize = 400;
    let mut rig = Rig::with_memory(None, Some(64 * 1024));
    let (mut client, mut reader) = (rig.client(), rig.client());
    for _ in 0..2 {
        client.send(get("/query?name=a")).unwrap();
        let ToStore::Query { conn, .. } = rig.message() else { panic!("a query goes to the executor") };
        client.send(get("/-/healthy").repeat(BEHIND)).unwrap();
        // Once this is answered the loop has seen the others.
        reader.send(get("/-/healthy")).unwrap();
        assert_eq!(reader.answer().status, 200);
        let answer = Ok(QueryAnswer { body: Some(b"the answer".to_vec()), warnings: Box::default() });
        assert!(rig.loops.send(0, ToLoop::Answer { conn, answer }).is_ok());
        assert_eq!(client.answer().body, "the answer");
        assert_eq!(statuses(&mut client, BEHIND), [200; BEHIND]);
    }
    assert_eq!(rig.counters().overload_refusals.get(), 0);
    // Who waits for nothing is refused: half a head that finds no room.
    reader.send("GET / HTTP/1.1\r\n".to_string() + &"a: b\r\n".repeat(2_000)).unwrap();
    assert_come_back(&reader.answer(), 503);
}

/// A large answer goes to the socket as it is, in its place among small ones; to a `HEAD` its length alone.
#[test]
fn a_large_answer_comes_whole_and_in_order() {
    let mut rig = Rig::start(None);
    let mut client = rig.client();
    let large: Vec<u8> = (0..3_000_000).map(|at| b'a' + (at % 23) as u8).collect();
    let question = get("/query?name=a");
    let pipeline =
        [get("/-/healthy"), question.clone(), question.replace("GET", "HEAD"), question, get("/nowhere")];
    client.send(pipeline.concat()).unwrap();
    assert_eq!(client.answer().body, "ringwatch is up\n");
    for method in [Method::Get, Method::Head, Method::Get] {
        let ToStore::Query { conn, .. } = rig.message() else { panic!("a query goes to the executor") };
        let answer = Ok(QueryAnswer { body: Some(large.clone()), warnings: Box::default() });
        assert!(rig.loops.send(0, ToLoop::Answer { conn, answer }).is_ok());
        let answer = client.answer_to(method).unwrap();
        if method == Method::Head {
            assert_eq!(answer.header("content-length"), Some("3000000"));
        } else {
            assert!(answer.body.as_bytes() == large);
        }
    }
    assert_eq!(client.answer().status, 404);
}
