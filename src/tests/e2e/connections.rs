//! `http.connections_max` and `http.connections_per_address_max`: who comes beyond them is told so, who is in goes on.

use crate::client::{Answer, Client};
use crate::server::{PATIENCE, Server, poll};
use shard::net::{Event, Net, NetConfig, Wait};
use std::net::SocketAddr;
use std::time::Instant;
use tempfile::tempdir;

const BODY: &str = r#"{"name":"a","value":1}"#;

fn assert_turned_away(answer: &Answer, setting: &str) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.body.contains(setting), "{}", answer.body);
}

fn refused(client: &mut Client, setting: &str) -> u64 {
    let page = client.get("/metrics").body;
    let wanted = format!("setting=\"{setting}\"}}");
    let lines = page.lines().filter(|line| line.starts_with("ringwatch_http_connections_refused_total{"));
    let counts = lines.filter_map(|line| line.split_once(wanted.as_str())?.1.trim().parse::<u64>().ok());
    counts.sum()
}

/// A new client that is served, as soon as the server has seen that another has left.
fn served_at_last(server: &Server) -> Client {
    poll(|| {
        let mut client = server.client();
        (client.try_request("GET", "/-/healthy", "", "").ok()?.status == 200).then_some(client)
    })
}

#[test]
fn a_connection_beyond_the_limit_is_told_so_and_the_others_go_on() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.connections_max=4"]);
    let mut served: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for client in &mut served {
        assert_eq!(client.post("/metrics", BODY).status, 202);
    }
    let mut beyond = server.client();
    assert_turned_away(&beyond.get("/health"), "http.connections_max");
    assert_eq!(beyond.rest(), b"");
    // One that is still sending when it is told: the answer is there to be read all the same.
    let mut sender = server.client();
    let body = "x".repeat(900_000);
    let head = format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    // Should it be stopped for longer than the server lingers, it is reset before it has sent all.
    let _ = sender.send(head + &body);
    assert_turned_away(&sender.answer(), "http.connections_max");
    let mut head_only = server.client();
    head_only.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head_alone = head_only.rest();
    assert!(head_alone.starts_with(b"HTTP/1.1 503 ") && head_alone.ends_with(b"\r\n\r\n"));
    // Nothing comes from these.
    let mut silent = server.client();
    assert_turned_away(&silent.answer(), "http.connections_max");
    let mut ended = server.client();
    ended.half_close();
    assert_turned_away(&ended.answer(), "http.connections_max");
    for client in &mut served {
        assert_eq!(client.post("/metrics", BODY).status, 202);
    }
    assert_eq!(refused(&mut served[0], "http.connections_max"), 5);
    assert_eq!(refused(&mut served[0], "http.connections_per_address_max"), 0);
    served.pop();
    served.push(served_at_last(&server));
    assert_turned_away(&server.client().get("/health"), "http.connections_max");
}

/// More than may be told at once: nobody is forgotten, neither those told later nor those served.
#[test]
fn a_crowd_beyond_the_limit_is_told_one_by_one() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.connections_max=1"]);
    let mut served = served_at_last(&server);
    let mut crowd: Vec<Client> = (0..300).map(|_| server.client()).collect();
    for client in &mut crowd {
        client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    for mut client in crowd {
        assert_turned_away(&client.answer(), "http.connections_max");
    }
    assert_eq!(served.post("/metrics", BODY).status, 202);
}

/// A connection from another address than all others here have.
fn ask_from(local: SocketAddr, server: SocketAddr) -> String {
    let mut net =
        Net::new(NetConfig { connections_max: 4, recv_buffers: 4, ..NetConfig::default() }).unwrap();
    net.connect(server, Some(local)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut answer = String::new();
    while Instant::now() < deadline {
        net.turn(Wait::Until(deadline)).unwrap();
        while let Some(event) = net.next_event() {
            match event {
                Event::Connected { conn } => {
                    net.send(conn, b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                }
                Event::Received { buf, .. } => {
                    answer += &String::from_utf8_lossy(net.bytes(&buf));
                    net.release(buf);
                }
                Event::EndOfStream { .. } => return answer,
                event => panic!("{event:?}"),
            }
        }
    }
    panic!("no answer");
}

/// Over two loops, of which the kernel picks one for each connection.
#[test]
fn an_address_beyond_its_limit_is_told_so_and_others_come_in() {
    const SETTING: &str = "http.connections_per_address_max";
    let dir = tempdir().unwrap();
    let settings = ["--set", "shards=2", "--set", "http.connections_per_address_max=6"];
    let server = Server::start(dir.path(), &settings);
    for _ in 0..3 {
        let mut served: Vec<Client> = vec![served_at_last(&server)];
        // The places of the last round are free once the server has seen its clients leave.
        served.extend((1..6).map(|_| served_at_last(&server)));
        for _ in 0..4 {
            assert_turned_away(&server.client().get("/health"), SETTING);
        }
        assert!(ask_from(SocketAddr::from(([127, 0, 0, 2], 0)), server.address).starts_with("HTTP/1.1 200 "));
        for client in &mut served {
            assert_eq!(client.post("/metrics", BODY).status, 202);
        }
        assert!(refused(&mut served[0], SETTING) >= 4);
        assert_eq!(refused(&mut served[0], "http.connections_max"), 0);
    }
}

/// Method: one client lets its answer lie and is gone, which resets the connection; another says nothing.
#[test]
fn connections_that_end_badly_are_counted_by_what_ended_them() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "http.idle_timeout=1s"]);
    let mut resets = server.client();
    resets.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    poll(|| resets.is_answered().then_some(()));
    drop(resets);
    let mut silent = server.client();
    for name in ["broken", "idle"] {
        let line = format!("ringwatch_http_connections_{name}_total{{shard=\"0\"}} ");
        poll(|| {
            let page = server.get("/metrics").body;
            let count = page.lines().find_map(|of| of.strip_prefix(line.as_str())?.parse::<u64>().ok());
            (count? > 0).then_some(())
        });
    }
    assert_eq!(silent.rest(), b"");
}
