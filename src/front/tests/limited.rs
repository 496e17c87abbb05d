//! Goal: a request that waits for another loop's word about its client is answered once, whatever becomes of it.
//! Method: the rig, with a second loop that the test plays.

use super::*;
use crate::front::rate_limit::{RateLimit, SLOT_BITS};
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The first of two loops.
fn rig(settings: &[(&str, &str)], console: Console) -> Rig {
    let limited = [("ingest.rate_limit_per_client", "1000000")];
    Rig::among(2, &[&limited, settings].concat(), console)
}

impl Rig {
    /// The next word to the other loop.
    fn word(&mut self) -> Portion {
        let (_, inbox) = self.fellow.as_mut().expect("there are two loops");
        loop {
            match inbox.pop() {
                Some((_, portion)) => return portion,
                None => std::thread::yield_now(),
            }
        }
    }

    /// Grants what is asked for, to be used for as long as the test may take.
    fn grant(&mut self) {
        let Portion::Ask { client, wanted } = self.word() else { panic!("a portion is asked for") };
        let through_slot = (shard::clock::monotonic_nanos() >> SLOT_BITS) + 100_000;
        let granted = wanted;
        let grant = Portion::Grant { client, granted, wanted, through_slot, frees_after_nanos: 0 };
        let (to_loops, _) = self.fellow.as_mut().expect("there are two loops");
        assert!(to_loops.send(0, grant).is_ok());
    }

    /// An id of a client whom that loop counts.
    fn id_counted_by(&self, owner: usize) -> String {
        let limit: RateLimit<()> = RateLimit::new(1, 0, 2, self.shared.client_seed);
        let ids = (0..).map(|n| format!("client-{n}"));
        ids.into_iter().find(|id| limit.owner(limit.client(id.as_bytes())) == owner).expect("every other one")
    }
}

fn post_of(id: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /metrics HTTP/1.1\r\nHost: h\r\nDurability: memory\r\nX-Client-Id: {id}\r\n{coding}\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Standard output that the test reads.
struct Told(Sender<Vec<u8>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A test that has ended reads nothing any more.
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn told_console() -> (Console, Receiver<Vec<u8>>) {
    let (told, read) = channel();
    (Console::start_on(Told(told)).unwrap(), read)
}

/// The requests and statuses of the access log, once the loop has ended.
fn log_lines(console: &Console, read: &Receiver<Vec<u8>>) -> Vec<String> {
    console.finish(Duration::from_secs(60));
    let text = String::from_utf8(read.try_iter().flatten().collect()).unwrap();
    let line = |line: &str| line.split(" - ").take(2).collect::<Vec<_>>().join(" - ").split_off(22);
    text.lines().map(line).collect()
}

/// Method: a body that waits fills what may be held back; the next one would have to wait, too.
#[test]
fn a_request_that_finds_no_room_to_wait_is_refused_and_has_its_line_in_the_access_log() {
    let (console, read) = told_console();
    let mut rig = rig(&[("access_log", "true"), ("memory_bytes_max", "64MiB")], console.clone());
    let id = rig.id_counted_by(1);
    let room = (rig.shared.memory_bytes_max / 8) as usize / 2;
    let mut first = rig.client();
    first.send(post_of(&id, "", &vec![b' '; room - 1_000])).unwrap();
    assert!(matches!(rig.word(), Portion::Ask { .. }));
    let mut second = rig.client();
    second.send(post_of(&id, "", &[b' '; 1_500])).unwrap();
    assert_come_back(&second.answer(), 503);
    drop((first, second, rig));
    assert_eq!(log_lines(&console, &read), ["POST /metrics - 503 Service Unavailable"]);
}

/// Method: compressed bodies that the executor does not give back, each counted at what it may become; then one
/// that is within its limit, and one that waited for the other loop to say so.
#[test]
fn a_large_body_without_a_place_is_refused_and_has_its_line_in_the_access_log() {
    let (console, read) = told_console();
    let mut rig = rig(
        &[("access_log", "true"), ("http.body_bytes_max", "32MiB"), ("storage.journal_file_bytes", "128MiB")],
        console.clone(),
    );
    let (here, there) = (rig.id_counted_by(0), rig.id_counted_by(1));
    let body = vec![b' '; 300 * 1024];
    let mut out = [rig.client(), rig.client()];
    for client in &mut out {
        client.send(post_of(&here, "Content-Encoding: gzip\r\n", &body)).unwrap();
        assert!(matches!(rig.message(), ToStore::Decode { .. }));
    }
    let mut client = rig.client();
    client.send(post_of(&here, "", &body)).unwrap();
    assert_come_back(&client.answer(), 503);
    client.send(post_of(&there, "", &body)).unwrap();
    rig.grant();
    assert_come_back(&client.answer(), 503);
    drop((out, client, rig));
    assert_eq!(log_lines(&console, &read), ["POST /metrics - 503 Service Unavailable"; 2]);
}
