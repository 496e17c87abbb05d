//! InfluxDB line protocol, as Telegraf sends it to both of its outputs; and JSON on the same path.

use crate::client::{Answer, Client};
use crate::server::{Server, now_ms};
use http::Method;
use std::io::Write as _;
use tempfile::tempdir;

fn gzip(plain: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn post(client: &mut Client, target: &str, headers: &str, body: &[u8]) -> Answer {
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), body].concat()).unwrap();
    client.answer_to(Method::Post).unwrap()
}

/// Method: the requests that Telegraf's outputs `influxdb` and `influxdb_v2` document and send, headers included.
#[test]
fn what_telegraf_sends_is_kept_and_answered_204() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let ping = client.get("/ping");
    assert_eq!((ping.told(), ping.header("Content-Length")), ((204, ""), None));
    let now = now_ms() / 1_000 * 1_000;
    let lines = format!(
        "cpu,cpu=cpu-total,host=web1 usage_idle=98.2,usage_user=1.5 {now}000000\n\
         system,host=web1 uptime_format=\"1 day,  2:03\",load1=0.25 {now}000000\n"
    );
    let headers = "User-Agent: Telegraf/1.30.0 Go/1.22.1\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n";
    for (target, further) in [
        ("/write?consistency=any&db=telegraf", ""),
        ("/api/v2/write?bucket=telegraf&org=home&precision=ns", "Authorization: Token secret\r\n"),
    ] {
        let answer = post(&mut client, target, &format!("{headers}{further}"), &gzip(&lines));
        assert_eq!((answer.told(), answer.header("Durability")), ((204, ""), Some("synced")));
    }
    assert_eq!(
        server.get("/query?name=cpu_usage_idle").body,
        format!(
            r#"[{{"name":"cpu_usage_idle","value":98.2,"timestamp":{now},"labels":{{"cpu":"cpu-total","host":"web1"}}}}]"#
        )
    );
    assert_eq!(server.get("/percentile?name=system_load1").body, r#"{"p50":0.25,"count":1}"#);
    assert_eq!(server.counted("ingest_texts_skipped_total", ""), 2);
    let seconds = format!("up value=1 {}\nup value=true {}", now / 1_000 - 1, now / 1_000);
    assert_eq!(post(&mut client, "/write?precision=s", "", seconds.as_bytes()).status, 204);
    assert_eq!(post(&mut client, "/write?db=x", "", b"up value=2\nup value=3\n").status, 204);
    assert_eq!(server.get("/percentile?name=up&percentile=100").body, r#"{"p100":3,"count":4}"#);
}

/// A batch is kept whole or not at all, and what is wrong with it is told so that Telegraf does not send it again.
#[test]
fn a_bad_line_refuses_its_body_by_its_number() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let body = b"a value=1\na value=x\n";
    let error = "unable to parse line 2: expected a finite number, a whole one with i or u, true, false or a text in quotes";
    assert_eq!(post(&mut client, "/write", "", body).told(), (400, &*format!(r#"{{"error":"{error}"}}"#)));
    assert_eq!(
        post(&mut client, "/api/v2/write", "", body).told(),
        (400, &*format!(r#"{{"code":"invalid","message":"{error}","error":"{error}"}}"#))
    );
    let answer = post(&mut client, "/write?precision=d", "", b"a value=1");
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid parameter: precision")));
    let old = post(&mut client, "/write?precision=ns", "", b"a value=1\n\na value=1 1696789234567");
    assert!(old.body.contains("line 3: timestamp 1696789 is older than the retention"), "{}", old.body);
    assert_eq!(server.get("/query?name=a").body, "[]");

    // Beyond a turn's bytes the executor decodes it, in the same way.
    let mut large = "large,host=a value=1\n".repeat(20_000);
    assert!(large.len() > 256 * 1024);
    assert_eq!(post(&mut client, "/write", "", large.as_bytes()).status, 204);
    large += "large value=x";
    assert!(post(&mut client, "/write", "", large.as_bytes()).body.contains("line 20001: "));
    let counted = server.get("/percentile?name=large").json();
    assert_eq!(counted["count"], 20_000);
}

#[test]
fn a_measurement_may_be_json() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let now = now_ms();
    let body = format!(
        r#"{{"measurement":"cpu_usage","tags":{{"host":"server01"}},"fields":{{"value":75.5,"idle":3}},"timestamp":{now}}}"#
    );
    assert_eq!(client.post("/write", &body).told(), (202, r#"{"status":"accepted"}"#));
    assert_eq!(
        server.get("/query?name=cpu_usage").body,
        format!(r#"[{{"name":"cpu_usage","value":75.5,"timestamp":{now},"labels":{{"host":"server01"}}}}]"#)
    );
    assert_eq!(server.get("/percentile?name=cpu_usage_idle").body, r#"{"p50":3,"count":1}"#);
    let answer = client.post("/write", r#"{"measurement":"a"}"#);
    assert_eq!(answer.told(), (400, r#"{"error":"invalid JSON format","detail":"fields is missing"}"#));
}
