//! HTTP/1.1 on true sockets: framing, order, patience, and clients that behave badly.

use crate::client::{Answer, Client};
use crate::server::{PATIENCE, Server, poll};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use tempfile::tempdir;

const BODY: &str = r#"{"name":"a","value":1}"#;

fn single(further: &str) -> String {
    format!("POST /metrics HTTP/1.1\r\nHost: a\r\n{further}Content-Length: {}\r\n\r\n{BODY}", BODY.len())
}

fn count(server: &Server, name: &str) -> u64 {
    server.get(&format!("/percentile?name={name}")).json()["count"].as_u64().unwrap()
}

/// Sends bytes, reads one answer, and sees that the connection ends behind it.
fn refused_for_good(server: &Server, bytes: &[u8]) -> Answer {
    let mut client = server.client();
    client.send(bytes).unwrap();
    let answer = client.answer();
    assert_eq!(answer.header("connection"), Some("close"), "{}", answer.head);
    assert_eq!(client.rest(), b"", "{}", answer.head);
    answer
}

#[test]
fn a_connection_is_kept_and_closed_as_its_client_wishes() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for _ in 0..100 {
        let answer = client.post("/metrics", BODY);
        assert_eq!((answer.status, answer.header("connection")), (202, None));
    }
    let answer = client.try_request("POST", "/metrics", "cOnNeCtIoN: Keep-Alive\r\n", BODY).unwrap();
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    for target in ["/metrics", "/nowhere"] {
        let mut client = server.client();
        let answer = client.try_request("POST", target, "Connection: close\r\n", BODY).unwrap();
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(client.rest(), b"");
    }
    // A query closes, too, though its answer comes from another thread.
    let mut client = server.client();
    let answer = client.try_request("GET", "/percentile?name=a", "Connection: close\r\n", "").unwrap();
    assert_eq!(answer.body, r#"{"p50":1,"count":102}"#);
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_closes_unless_asked_to_keep() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    client.send("GET /health HTTP/1.0\r\n\r\n").unwrap();
    let answer = client.answer();
    assert_eq!(answer.told(), (200, r#"{"status":"healthy","queue_size":0}"#));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.rest(), b"");

    let mut client = server.client();
    for _ in 0..2 {
        client
            .send(format!(
                "POST /metrics HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n{BODY}",
                BODY.len()
            ))
            .unwrap();
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (202, Some("keep-alive")));
    }
}

/// Method: 1,000 requests of four kinds in one write; every answer tells which request it belongs to.
#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let mut pipeline = String::new();
    for at in 0..1_000 {
        match at % 4 {
            0 => pipeline += &single(""),
            // Samples accepted so far: what stands before a query is seen by it.
            1 => pipeline += "GET /percentile?name=a HTTP/1.1\r\nHost: a\r\n\r\n",
            2 => write!(pipeline, "GET /percentile?name=x&percentile=0.{at:04} HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap(),
            _ => pipeline += "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        }
    }
    let mut client = server.client();
    client.send(pipeline).unwrap();
    client.half_close();
    for at in 0..1_000 {
        let answer = client.answer();
        let expected = match at % 4 {
            0 => (202, r#"{"status":"accepted"}"#.to_owned()),
            1 => (200, format!(r#"{{"p50":1,"count":{}}}"#, at / 4 + 1)),
            2 => (200, format!(r#"{{"p{}":null,"count":0}}"#, format!("0.{at:04}").parse::<f64>().unwrap())),
            _ => (404, r#"{"error":"route not found"}"#.to_owned()),
        };
        assert_eq!(answer.told(), (expected.0, expected.1.as_str()), "request {at}");
    }
    assert_eq!(client.rest(), b"");
}

/// Method: one request is cut at every byte in turn; a chunked body comes in chunks of every size.
#[test]
fn requests_may_arrive_in_any_pieces() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=memory"]);
    let plain = single("");
    let mut client = server.client();
    for cut in 1..plain.len() {
        client.send(&plain[..cut]).unwrap();
        client.send(&plain[cut..]).unwrap();
        assert_eq!(client.answer().status, 202, "cut at {cut}");
    }
    let mut sent = plain.len() as u64 - 1;
    for size in 1..=BODY.len() {
        let mut request =
            "POST /metrics HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for chunk in BODY.as_bytes().chunks(size) {
            write!(request, "{:X};note=\"x\"\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap())
                .unwrap();
        }
        request += "0\r\nTrailer: yes\r\n\r\n";
        for piece in request.as_bytes().chunks(size + 2) {
            client.send(piece).unwrap();
        }
        assert_eq!(client.answer().status, 202, "chunks of {size}");
        sent += 1;
    }
    // A head, byte by byte, with odd spelling.
    let spelled = format!(
        "POST http://a/metrics?x=%31 HTTP/1.1\r\nhOsT:a\r\nCONTENT-length:   {}  \r\n\r\n{BODY}",
        BODY.len()
    );
    for byte in spelled.as_bytes() {
        client.send([*byte]).unwrap();
    }
    assert_eq!(client.answer().status, 202);
    assert_eq!(count(&server, "a"), sent + 1);
}

#[test]
fn a_client_that_expects_to_be_told_is_told_to_go_on() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for _ in 0..2 {
        client
            .send(format!(
                "POST /metrics HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {}\r\n\r\n",
                BODY.len()
            ))
            .unwrap();
        let interim = client.answer();
        assert_eq!(interim.head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(BODY).unwrap();
        assert_eq!(client.answer().status, 202);
    }
    // A body that would be refused is not asked for.
    let too_large =
        "POST /metrics HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n";
    assert_eq!(refused_for_good(&server, too_large.as_bytes()).status, 413);
    let other = "POST /metrics HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(refused_for_good(&server, other.as_bytes()).status, 417);
}

#[test]
fn bodies_and_heads_over_their_bounds_are_refused_while_they_still_come() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.body_bytes_max=64KiB"]);
    let largest = format!("{}{BODY}", " ".repeat(65_536 - BODY.len()));
    server.accept(&largest);
    for body_bytes in [65_537, 10_000_000, u64::MAX / 2] {
        let head = format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {body_bytes}\r\n\r\n{{");
        let answer = refused_for_good(&server, head.as_bytes());
        assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("body too large")));
    }
    let mut chunked = "POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..17 {
        write!(chunked, "1000\r\n{}\r\n", " ".repeat(4096)).unwrap();
    }
    let answer = refused_for_good(&server, chunked.as_bytes());
    assert_eq!((answer.status, answer.json()["error"].as_str()), (413, Some("body too large")));

    // A client that sends all of a too large body before it reads still gets the answer.
    let mut client = server.client();
    let body = " ".repeat(1 << 20);
    let answer = client.try_request("POST", "/metrics", "", &body).unwrap();
    assert_eq!(answer.status, 413);

    let head = |bytes: usize| {
        let fixed = "GET /health HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - fixed))
    };
    let mut client = server.client();
    client.send(head(16 << 10)).unwrap();
    assert_eq!(client.answer().status, 200);
    let answer = refused_for_good(&server, head((16 << 10) + 1).as_bytes());
    assert_eq!((answer.status, answer.json()["error"].as_str()), (431, Some("header too large")));
    // Without an end, too.
    let answer = refused_for_good(&server, &head(64 << 10).as_bytes()[..17 << 10]);
    assert_eq!(answer.status, 431);
    let many = format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert_eq!(refused_for_good(&server, many.as_bytes()).status, 431);
}

/// A request hidden behind doubtful framing must not be carried out.
#[test]
fn ambiguous_framing_is_refused_and_nothing_behind_it_is_read() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let hidden =
        single("").replace("\"a\"", "\"hidden\"").replace("Content-Length: 22", "Content-Length: 27");
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length : 5\r\n",
        "Content-Length:\r\n",
        "X: y\r\n Content-Length: 5\r\n",
        "X: y\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Host: b\r\nContent-Length: 5\r\n",
    ] {
        let request = format!("POST /metrics HTTP/1.1\r\nHost: a\r\n{framing}\r\n0\r\n\r\n{hidden}");
        let answer = refused_for_good(&server, request.as_bytes());
        let expected = if framing.contains("xchunked")
            || framing.contains("gzip")
            || framing.matches("chunked").count() == 2
        {
            501
        } else {
            400
        };
        assert_eq!(answer.status, expected, "{framing:?} → {}", answer.body);
        assert!(answer.json()["detail"].is_string(), "{}", answer.body);
    }
    for chunks in
        ["5\r\nabcde0\r\n\r\n", "g\r\n", "5\nabcde\r\n0\r\n\r\n", "-1\r\n", "FFFFFFFFFFFFFFFFFF\r\n"]
    {
        let request = format!(
            "POST /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{hidden}"
        );
        let answer = refused_for_good(&server, request.as_bytes());
        assert!([400, 413].contains(&answer.status), "{chunks:?} → {}", answer.body);
    }
    assert_eq!(count(&server, "hidden"), 0);
}

#[test]
fn what_is_no_http_is_told_so_and_costs_only_its_connection() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh";
    let answer = refused_for_good(&server, hello);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https"), "{}", answer.body);
    for garbage in [
        &b"\x00\x01\x02\xff\xfe\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\r\r\r\r\n\n\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ] {
        assert_eq!(refused_for_good(&server, garbage).status, 400, "{}", garbage.escape_ascii());
    }
    assert_eq!(refused_for_good(&server, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n").status, 505);
    // Seeded noise, and connections that are dropped in the middle of a request.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..50 {
        let noise: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let mut client = server.client();
        // The server may have closed before all of it was sent.
        let _ = client.send(&noise);
        drop(client);
        let mut client = server.client();
        client.send(&single("")[..40]).unwrap();
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(count(&server, "a"), 0);
}

#[test]
fn a_slow_sender_is_told_and_an_idle_one_is_let_go() {
    // Two servers: were both times short, a sender that the machine holds up would be let go as idle.
    let (dir, idle_dir) = (tempdir().unwrap(), tempdir().unwrap());
    let server =
        Server::start(dir.path(), &["--set", "http.head_timeout=1s", "--set", "http.body_timeout=1s"]);
    let mut slow_head = server.client();
    let mut slow_body = server.client();
    slow_head.send("GET /health HTTP/1.1\r\nHo").unwrap();
    slow_body.send(&single("")[..single("").len() - 3]).unwrap();
    let mut slow_sender = server.client();
    slow_sender.send("POST /api/v1/write HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").unwrap();

    let answer = slow_head.answer();
    assert_eq!(answer.told(), (408, r#"{"error":"request timeout"}"#));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(slow_head.rest(), b"");
    let answer = slow_body.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (408, Some("request timeout")));
    assert_eq!(slow_body.rest(), b"");
    let expected = r#"{"status":"error","errorType":"timeout","error":"request timeout""#;
    let answer = slow_sender.answer();
    assert_eq!(answer.status, 408);
    assert!(answer.body.starts_with(expected), "in the shape of its path: {}", answer.body);
    assert_eq!(count(&server, "a"), 0);
    for (part, expected) in [("part=\"head\"", 1), ("part=\"body\"", 2)] {
        assert_eq!(server.counted("http_timeouts_total", part), expected, "{part}");
    }

    let server = Server::start(idle_dir.path(), &["--set", "http.idle_timeout=1s"]);
    let mut idle = server.client();
    // One that is held up before it asks is let go as well, and comes again.
    let mut idle_later = poll(|| {
        let mut client = server.client();
        client
            .try_request("GET", "/health", "", "")
            .is_ok_and(|answer| answer.status == 200)
            .then_some(client)
    });
    assert_eq!(idle.rest(), b"", "closed without a word");
    assert_eq!(idle_later.rest(), b"");
}

/// Whoever comes with something else than HTTP, or with too much, is counted by what is wrong; so is who says nothing.
#[test]
fn bad_messages_and_silent_connections_are_counted_by_cause() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let head = "POST /metrics HTTP/1.1\r\nHost: a\r\n";
    let cases = [
        ("cause=\"tls\"", 400, "\x16\x03\x01".to_owned()),
        ("cause=\"head_too_large\"", 431, format!("{head}X: {}\r\n\r\n", "a".repeat(20_000))),
        ("cause=\"body_too_large\"", 413, format!("{head}Content-Length: 99000000\r\n\r\n")),
        ("cause=\"malformed\"", 400, "hello\r\n\r\n".to_owned()),
    ];
    for (_, status, bytes) in &cases {
        assert_eq!(refused_for_good(&server, bytes.as_bytes()).status, *status);
    }
    for (cause, ..) in cases {
        assert_eq!(server.counted("http_messages_refused_total", cause), 1, "{cause}");
    }
    assert_eq!(server.counted("ingest_validation_errors_total", ""), 4);

    let unused = server.counted("http_connections_unused_total", "");
    let mut used = server.client();
    assert_eq!(used.get("/health").status, 200);
    drop((used, server.client()));
    poll(|| (server.counted("http_connections_unused_total", "") == unused + 1).then_some(()));
}

/// A sender that trickles does not get more time by each byte.
#[test]
fn a_head_that_trickles_in_runs_out_of_time_all_the_same() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.head_timeout=1s"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    stream.write_all(b"GET /health HTTP/1.1\r\nX: ").unwrap();
    while !answer.starts_with(b"HTTP/1.1 408 ") {
        assert!(Instant::now() < deadline, "it was let trickle");
        let mut piece = [0; 1024];
        // Nothing yet, most of the time.
        if let Ok(read) = stream.read(&mut piece) {
            assert!(read > 0, "closed without an answer");
            answer.extend_from_slice(&piece[..read]);
        } else {
            // After the refusal the server may not take any more.
            let _ = stream.write_all(b"x");
        }
    }
}

#[test]
fn a_client_that_has_closed_its_half_still_gets_its_answers() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    client
        .send(format!("{}GET /percentile?name=a HTTP/1.1\r\nHost: a\r\n\r\n{}", single(""), single("")))
        .unwrap();
    client.half_close();
    assert_eq!(client.answer().status, 202);
    assert_eq!(client.answer().body, r#"{"p50":1,"count":1}"#);
    assert_eq!(client.answer().status, 202);
    assert_eq!(client.rest(), b"");
    // What is not whole is dropped, what stands before it is answered.
    let mut client = server.client();
    client.send(format!("{}POST /metrics HT", single(""))).unwrap();
    client.half_close();
    assert_eq!(client.answer().status, 202);
    assert_eq!(client.rest(), b"");
    assert_eq!(count(&server, "a"), 3);
}

/// Method: two clients ask for megabytes without reading a byte until their sockets take no more; a neighbour
/// goes on, and then the two still read every answer they are owed, however they said that it was all.
#[test]
fn a_client_that_never_reads_does_not_disturb_its_neighbour() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=memory"]);
    let metric = format!(r#"{{"name":"big","value":1,"labels":{{"l":"{}"}}}}"#, "v".repeat(1_000));
    server.accept(&format!("[{}]", vec![metric; 500].join(",")));

    let mut asks = "GET /query?name=big HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40);
    asks += "GET /health HTTP/1.1\r\nHost: a\r\n";
    let mut closes = TcpStream::connect(server.address).unwrap();
    closes.write_all(format!("{asks}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut ends = TcpStream::connect(server.address).unwrap();
    ends.write_all(format!("{asks}\r\n").as_bytes()).unwrap();
    ends.shutdown(Shutdown::Write).unwrap();
    let mut neighbour = server.client();
    for _ in 0..200 {
        assert_eq!(neighbour.post("/metrics", BODY).status, 202);
        assert_eq!(neighbour.get("/health").status, 200);
    }
    assert_eq!(count(&server, "a"), 200);

    for mut greedy in [closes, ends] {
        greedy.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = Vec::new();
        greedy.read_to_end(&mut answers).unwrap();
        let text = String::from_utf8(answers).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 41);
        assert!(text.ends_with("\"queue_size\":0}"));
        assert_eq!(text.matches(r#"{"name":"big""#).count(), 40 * 500);
    }
}

/// Method: more requests than answers may wait for the journal at once, the end of the stream behind them; the
/// writer must not wait for its answers.
#[test]
fn a_long_pipeline_of_samples_is_answered_to_its_end() {
    const REQUESTS: usize = 20_000;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=synced"]);
    let mut reader = TcpStream::connect(server.address).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writer = reader.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        writer.write_all(single("").repeat(REQUESTS).as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut answers = String::new();
    reader.read_to_string(&mut answers).unwrap();
    sender.join().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 202 Accepted\r\n").count(), REQUESTS);
    assert_eq!(count(&server, "a"), REQUESTS as u64);
}

/// What one turn finds in the sockets may ask for far more than the server may hold.
/// Method: the server is stopped while many clients ask for large answers, hundreds of megabytes in all; it goes
/// on, everybody gets all of them, and its largest size is told by the kernel.
#[test]
fn pipelines_that_came_all_at_once_do_not_fill_the_memory() {
    const CLIENTS: usize = 32;
    const REQUESTS: usize = 1_800;
    const RESIDENT_KIB_MAX: u64 = 128 * 1024;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let page_bytes = server.get("/metrics").body.len();
    assert!(CLIENTS * REQUESTS * page_bytes > 2 * 1024 * RESIDENT_KIB_MAX as usize, "too little to tell");
    let mut clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.get("/health");
    server.signal("STOP");
    let asks = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS);
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(asks.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    server.signal("CONT");
    // All at once: a client that had to wait for the others to read would count as one that does not.
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                let mut answers = String::new();
                client.read_to_string(&mut answers).unwrap();
                assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), REQUESTS);
            });
        }
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    let peak_kib: u64 = peak.and_then(|text| text.parse().ok()).expect("the kernel tells it in KiB");
    assert!(peak_kib < RESIDENT_KIB_MAX, "{peak_kib} KiB");
}

#[test]
fn many_idle_connections_are_held_and_each_is_served() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let mut clients: Vec<Client> = (0..400).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(single("")).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 202);
    }
    assert_eq!(count(&server, "a"), 400);
    drop(clients);
    poll(|| {
        let page = server.get("/metrics").body;
        let open = page.lines().filter_map(|line| line.strip_prefix("ringwatch_http_connections{"));
        let open: u64 = open.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        (open < 10).then_some(())
    });
}

/// A body above 256 KiB goes a longer way, through the executor and over several turns.
/// Method: two such batches, a bad one and small requests, pipelined on one connection.
#[test]
fn large_bodies_are_answered_in_order_and_kept_whole() {
    const MEMBERS: usize = 20_000;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let batch = |last: &str| {
        let members: Vec<String> =
            (0..MEMBERS - 1).map(|i| format!(r#"{{"name":"large","value":{i}}}"#)).collect();
        let body = format!(r#"{{"metrics":[{},{last}]}}"#, members.join(","));
        assert!((400_000..1_000_000).contains(&body.len()));
        format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let good = batch(r#"{"name":"large","value":-1}"#);
    let bad = batch(r#"{"name":"large","value":"x"}"#);
    let mut client = server.client();
    let query = "GET /percentile?name=large HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send([good.as_str(), &single(""), &bad, query, &good, &single("")].concat()).unwrap();
    let accepted = format!(r#"{{"status":"accepted","count":{MEMBERS}}}"#);
    let single_accepted = r#"{"status":"accepted"}"#.to_owned();
    assert_eq!(client.answer().told(), (202, accepted.as_str()));
    assert_eq!(client.answer().told(), (202, single_accepted.as_str()));
    let refused = client.answer();
    assert_eq!((refused.status, refused.json()["index"].as_u64()), (400, Some(MEMBERS as u64 - 1)));
    assert_eq!(client.answer().json()["count"].as_u64(), Some(MEMBERS as u64));
    assert_eq!(client.answer().told(), (202, accepted.as_str()));
    assert_eq!(client.answer().told(), (202, single_accepted.as_str()));
    assert_eq!((count(&server, "large"), count(&server, "a")), (2 * MEMBERS as u64, 2));
}

/// Bodies that are begun and not ended take memory, so all of them together have a bound.
/// Method: the budget leaves 8 MiB for them; more clients than fit stop short of their bodies' ends. Those that
/// are refused hear of it, those that were held are taken when they go on.
#[test]
fn unfinished_bodies_of_all_clients_together_have_a_bound() {
    const CLIENTS: usize = 16;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "memory_bytes_max=64MiB"]);
    let members = vec![r#"{"name":"held","value":1}"#; 35_000].join(",");
    let body = format!("[{members}]");
    let head = format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let (begin, end) = body.split_at(body.len() - 10);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for client in &mut clients {
        // A client that is refused midway may find its connection reset.
        let _ = client.send([head.as_str(), begin].concat());
    }
    // All of them together are too much, so somebody is refused before any of them ends.
    poll(|| clients.iter_mut().any(|client| client.is_answered()).then_some(()));
    let mut statuses = Vec::new();
    for client in &mut clients {
        let _ = client.send(end);
        statuses.push(client.answer_to(http::Method::Post).map_or(503, |answer| answer.status));
    }
    let taken = statuses.iter().filter(|status| **status == 202).count();
    assert!((4..CLIENTS).contains(&taken), "{statuses:?}");
    assert!(statuses.iter().all(|status| [202, 503].contains(status)), "{statuses:?}");
    assert_eq!(count(&server, "held"), (taken * 35_000) as u64);
}
