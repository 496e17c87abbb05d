//! Goal: a request that waits for another loop's word about its client is answered once, whatever becomes of it.
//! Method: the rig, with a second loop that the test plays.

use super::*;
use crate::api::IntakeError;
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
    post_to("/metrics", id, coding, body)
}

fn post_to(path: &str, id: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nDurability: memory\r\nX-Client-Id: {id}\r\n{coding}\
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

/// What the access log tells of requests to that path, once the loop has ended.
fn log_lines(console: &Console, read: &Receiver<Vec<u8>>, path: &str) -> Vec<String> {
    console.finish(Duration::from_secs(60));
    let text = String::from_utf8(read.try_iter().flatten().collect()).unwrap();
    let lines = text.lines().filter(|line| line.contains(path));
    lines.map(|line| line.split(" - ").skip(1).take(1).collect()).collect()
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
    second.send(post_to("/metrics?late", &id, "", &[b' '; 1_500])).unwrap();
    assert_come_back(&second.answer(), 503);
    drop((first, second, rig));
    assert_eq!(log_lines(&console, &read, "/metrics?late"), ["503 Service Unavailable"]);
}

/// Method: the request is refused for want of room, as above; by the time its word comes the connection asks a query.
#[test]
fn a_word_goes_only_to_a_request_that_waits_for_it() {
    let mut rig = rig(&[("memory_bytes_max", "64MiB")], Console::default());
    let id = rig.id_counted_by(1);
    let room = (rig.shared.memory_bytes_max / 8) as usize / 2;
    let (mut first, mut second) = (rig.client(), rig.client());
    first.send(post_of(&id, "", &vec![b' '; room - 1_000])).unwrap();
    while rig.counters().requests.get() == 0 {
        std::thread::yield_now();
    }
    second.send(post_of(&id, "", &[b' '; 1_500])).unwrap();
    assert_come_back(&second.answer(), 503);
    second.send(get("/query?name=a")).unwrap();
    let ToStore::Query { conn, .. } = rig.message() else { panic!("a query goes to the executor") };
    rig.grant();
    let ToStore::Decode { conn: decoded, body, .. } = rig.message() else { panic!("the first one goes on") };
    let answer = Ok(QueryAnswer { body: Some(b"rows".to_vec()), warnings: Box::default() });
    assert!(rig.loops.send(0, ToLoop::Answer { conn, answer }).is_ok());
    assert_eq!(second.answer().told(), (200, "rows"));
    let (counted_bytes, error) = (body.counted_bytes, Err(IntakeError::TooLarge("why".into())));
    let decoded = ToLoop::Decoded { conn: decoded, counted_bytes, decoded: error };
    assert!(rig.loops.send(0, decoded).is_ok());
    assert_eq!(first.answer().status, 413);
}

/// Method: a compressed body that the executor does not give back, counted at what it may become and alone larger than
/// its part of the memory; then one that is within its limit, and one that waited for the other loop to say so.
#[test]
fn a_large_body_without_a_place_is_refused_and_has_its_line_in_the_access_log() {
    let (console, read) = told_console();
    let mut rig = rig(&[("access_log", "true"), ("memory_bytes_max", "64MiB")], console.clone());
    let (here, there) = (rig.id_counted_by(0), rig.id_counted_by(1));
    let body = vec![b' '; 300 * 1024];
    let mut out = rig.client();
    out.send(post_of(&here, "Content-Encoding: gzip\r\n", &body)).unwrap();
    let ToStore::Decode { conn, body: out_body, .. } = rig.message() else {
        panic!("it is decoded elsewhere")
    };
    let counted_bytes = out_body.counted_bytes;
    let mut client = rig.client();
    client.send(post_to("/metrics?late", &here, "", &body)).unwrap();
    assert_come_back(&client.answer(), 503);
    client.send(post_to("/metrics?late", &there, "", &body)).unwrap();
    rig.grant();
    assert_come_back(&client.answer(), 503);
    let decoded = Err(IntakeError::Overloaded);
    assert!(rig.loops.send(0, ToLoop::Decoded { conn, counted_bytes, decoded }).is_ok());
    assert_come_back(&out.answer(), 503);
    client.send(post_to("/metrics?now", &here, "", &body)).unwrap();
    assert!(matches!(rig.message(), ToStore::Decode { .. }), "what the first one held is free");
    drop((out, client, rig));
    assert_eq!(log_lines(&console, &read, "/metrics?late"), ["503 Service Unavailable"; 2]);
}

/// Method: the request waits for its word while others fill the executor's ring, which is not emptied.
#[test]
fn a_request_that_has_its_word_waits_for_the_executors_like_any_other() {
    let mut rig = rig(&[], Console::default());
    let (here, there) = (rig.id_counted_by(0), rig.id_counted_by(1));
    let (mut waiting, mut other) = (rig.client(), rig.client());
    waiting.send(post_of(&there, "", BODY.as_bytes())).unwrap();
    while rig.counters().requests.get() == 0 {
        std::thread::yield_now();
    }
    rig.fill_by(&mut other, &post_of(&here, "", BODY.as_bytes()));
    rig.grant();
    assert_come_back(&waiting.answer(), 503);
    assert_eq!(rig.counters().pauses.get(), 1);
    assert!(rig.catch_up());
    other.send(post_of(&here, "", BODY.as_bytes())).unwrap();
    assert_eq!(other.answer().status, 202);
}

/// Method: bodies of 200 KiB, of which two fill a turn, all wait for one word.
#[test]
fn requests_that_one_word_decides_are_taken_over_several_turns() {
    const CLIENTS: usize = 8;
    let mut rig = rig(&[], Console::default());
    let there = rig.id_counted_by(1);
    let samples = 200 * 1024 / (BODY.len() + 1);
    let body = format!("[{}]", vec![BODY; samples].join(","));
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(post_of(&there, "", body.as_bytes())).unwrap();
    }
    while rig.counters().requests.get() < CLIENTS as u64 {
        std::thread::yield_now();
    }
    rig.grant();
    let mut taken = 0;
    while taken < CLIENTS * samples {
        if let ToStore::Share(share) = rig.message() {
            assert!(share.len() <= 2 * samples, "a turn took {} samples", share.len());
            taken += share.len();
        }
    }
    assert!(clients.iter_mut().all(|client| client.answer().status == 202));
}

/// Method: the other loop never answers; the test would find a closed connection in place of the answer.
#[test]
fn a_loop_that_stops_refuses_what_waits_for_another_loop() {
    let mut rig = rig(&[], Console::default());
    let there = rig.id_counted_by(1);
    let mut client = rig.client();
    client.send(post_of(&there, "", BODY.as_bytes())).unwrap();
    assert!(matches!(rig.word(), Portion::Ask { .. }));
    rig.shared.stop();
    let answer = client.answer();
    assert_come_back(&answer, 503);
    assert_eq!(answer.header("connection"), Some("close"));
}
