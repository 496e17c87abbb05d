//! `ingest.rate_limit_per_client`: who is one client, what passes in a second, and what a refusal says.

use crate::client::{Answer, Client};
use crate::server::Server;
use http::Method;
use std::time::{Duration, Instant};
use tempfile::tempdir;

const BODY: &str = r#"{"name":"limited","value":1}"#;

fn request(client_id: Option<&str>, body: &str) -> String {
    let id = client_id.map(|id| format!("X-Client-Id: {id}\r\n")).unwrap_or_default();
    format!("POST /metrics HTTP/1.1\r\nHost: a\r\n{id}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn post(client: &mut Client, client_id: Option<&str>, body: &str) -> Answer {
    client.send(request(client_id, body)).unwrap();
    client.answer_to(Method::Post).unwrap()
}

fn stored(server: &Server) -> u64 {
    server.get("/percentile?name=limited").json()["count"].as_u64().unwrap()
}

/// How many may pass in a time that was measured from outside: the limit in every second that it touches.
fn passable(limit: u64, begun: Instant) -> u64 {
    limit * (begun.elapsed().as_secs() + 1)
}

/// Twenty requests in one write, on either of two loops: the first five pass, and a body beyond them is not even
/// looked at. Method: many connections, so that some land beside the loop that counts; each is its own client.
#[test]
fn one_connection_gets_its_limit_and_then_429_in_order() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2", "--set", "ingest.rate_limit_per_client=5"]);
    let mut passed_in_all = 0;
    for client_id in ["one", "two", "three", "four", "five", "six"] {
        let mut client = server.client();
        let begun = Instant::now();
        let good = request(Some(client_id), BODY).repeat(5);
        client.send(good + &request(Some(client_id), "no json at all").repeat(15)).unwrap();
        let answers: Vec<Answer> = (0..20).map(|_| client.answer_to(Method::Post).unwrap()).collect();
        assert!(answers[..5].iter().all(|answer| answer.status == 202), "{client_id}");
        passed_in_all += 5;
        let looked_at = answers[5..].iter().filter(|answer| answer.status == 400).count() as u64;
        assert!(5 + looked_at <= passable(5, begun), "{client_id}: {looked_at} bodies beyond the limit");
        for refused in answers[5..].iter().filter(|answer| answer.status != 400) {
            assert_eq!(refused.told(), (429, r#"{"error":"Rate limit exceeded"}"#));
            let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=2).contains(&seconds));
            assert_eq!(refused.header("ratelimit-policy"), Some(r#""client";q=5;w=1"#));
            assert_eq!(refused.header("ratelimit"), Some(format!(r#""client";r=0;t={seconds}"#).as_str()));
        }
    }
    assert_eq!(stored(&server), passed_in_all);
    let counters = server.get("/metrics");
    assert!(counters.body.contains("ringwatch_ingest_rate_limited_total"));
}

/// One client on many connections, on both loops, shares one limit; another client beside it is not touched; and
/// after a second it may go on.
#[test]
fn a_client_shares_its_limit_over_connections_and_loops() {
    let dir = tempdir().unwrap();
    let server =
        Server::start(dir.path(), &["--set", "shards=2", "--set", "ingest.rate_limit_per_client=40"]);
    let mut connections: Vec<Client> = (0..8).map(|_| server.client()).collect();
    let begun = Instant::now();
    let mut passed = 0;
    let mut refused = 0;
    // Until more than a second's worth has passed, whatever the pace of this machine.
    while passed <= 80 {
        for connection in &mut connections {
            match post(connection, Some("shared"), BODY).status {
                202 => passed += 1,
                429 => refused += 1,
                status => panic!("{status}"),
            }
            assert!(passed <= passable(40, begun), "{passed} passed in {:?}", begun.elapsed());
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it never goes on: {passed} passed, {refused} refused"
        );
    }
    assert_eq!(post(&mut connections[0], Some("another"), BODY).status, 202);
    assert_eq!(post(&mut connections[1], None, BODY).status, 202, "the address is a client of its own");
    assert_eq!(stored(&server), passed + 2);
}

/// Reads and other paths are not counted.
#[test]
fn only_writes_are_limited() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.rate_limit_per_client=1"]);
    let mut client = server.client();
    assert_eq!(post(&mut client, None, BODY).status, 202);
    for _ in 0..20 {
        assert_eq!(client.get("/query?name=limited").status, 200);
    }
}
