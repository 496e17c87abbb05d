//! Series are deleted by request: hidden from the answer on, gone from the disk soon, and they never come back.

use crate::client::{Answer, Client};
use crate::server::{Server, now_ms, poll};
use tempfile::tempdir;

const DELETE: &str = "/api/v1/admin/tsdb/delete_series";

fn rows(server: &Server, name: &str) -> usize {
    let answer = server.get(&format!("/query?name={name}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body.matches("\"name\"").count()
}

fn delete(client: &mut Client, parameters: &str) -> Answer {
    client.post(&format!("{DELETE}?{parameters}"), "")
}

/// Samples of two names and three hosts, one a second from that moment on.
fn send(server: &Server, first_ms: i64) {
    let member = |i: i64| {
        let (name, at) = (["cpu", "mem"][i as usize % 2], first_ms + i / 6 * 1_000);
        format!(r#"{{"name":"{name}","value":{i},"timestamp":{at},"labels":{{"host":"h{}"}}}}"#, i / 2 % 3)
    };
    let members: Vec<String> = (0..60).map(member).collect();
    server.accept(&format!("[{}]", members.join(",")));
}

#[test]
fn what_is_deleted_is_hidden_at_once_and_does_not_come_back() {
    let dir = tempdir().unwrap();
    let arguments = ["--enable-admin", "--set", "shards=2"];
    let mut server = Server::start(dir.path(), &arguments);
    let mut client = server.client();
    let first_ms = now_ms() / 1_000 * 1_000 - 3_600_000;
    send(&server, first_ms);
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (30, 30));

    let answer = delete(&mut client, "match[]=cpu%7Bhost%3D%22h1%22%7D");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (20, 30), "from memory");
    // Three seconds of all that is left, the first and the last included.
    let (start, end) = (first_ms / 1_000 + 2, first_ms / 1_000 + 4);
    let answer = delete(&mut client, &format!("match[]=%7Bhost%3D~%22h.%2A%22%7D&start={start}&end={end}"));
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (14, 21), "from a segment");

    // What comes later is not meant, not even at the same times.
    send(&server, first_ms);
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (30, 30));
    assert_eq!(delete(&mut client, "match[]=mem").status, 204);
    poll(|| (server.counted("store_merges_total", "") >= 1).then_some(()));
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (30, 0));
    server.kill();
    drop(server);
    let server = Server::start(dir.path(), &["--set", "shards=1"]);
    assert_eq!((rows(&server, "cpu"), rows(&server, "mem")), (30, 0), "after a kill, on one shard");
}

#[test]
fn deleting_is_refused_unless_it_was_enabled_and_says_what_is_wrong() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let answer = delete(&mut server.client(), "match[]=cpu");
    let expected = r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    assert_eq!(answer.told(), (503, expected));
    drop(server);
    let server = Server::start(dir.path(), &["--enable-admin"]);
    let mut client = server.client();
    for parameters in ["", "match[]=%7B%7D", "match[]=cpu&start=x"] {
        let answer = delete(&mut client, parameters);
        let error = answer.json();
        assert_eq!((answer.status, &error["errorType"]), (400, &"bad_data".into()), "{}", answer.body);
    }
    assert_eq!(client.get(DELETE).status, 405);
}
