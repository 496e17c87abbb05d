//! Prometheus remote write: what is kept, what is left out and told, what is refused, and Prometheus itself.

use crate::client::{Answer, Client};
use crate::remote_body::{field, request, series, snappy};
use crate::server::{PATIENCE, Server, now_ms, poll};
use http::Method;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::tempdir;

const HEADERS: &str = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
     X-Prometheus-Remote-Write-Version: 0.1.0\r\n";

fn post(client: &mut Client, headers: &str, body: &[u8]) -> Answer {
    let head =
        format!("POST /api/v1/write HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), body].concat()).unwrap();
    client.answer_to(Method::Post).unwrap()
}

fn write(client: &mut Client, all: &[Vec<u8>]) -> Answer {
    post(client, HEADERS, &snappy(&request(all)))
}

fn count(server: &Server, name: &str) -> usize {
    server.get(&format!("/query?name={name}")).json().as_array().unwrap().len()
}

#[test]
fn what_is_written_is_read_back_and_stays_after_a_crash() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let now = now_ms();
    let up = [("__name__", "up"), ("instance", "a:9090"), ("job", "node")];
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let samples =
        [(1.0, now), (f64::NAN, now + 1), (stale, now + 2), (f64::NEG_INFINITY, now + 3), (0.5, now)];
    let mut client = server.client();
    for _ in 0..2 {
        let answer = write(&mut client, &[series(&up, &samples[..4])]);
        assert_eq!((answer.told(), answer.header("Durability")), ((204, ""), Some("synced")));
        assert_eq!((answer.header("Content-Type"), answer.header("Content-Length")), (None, None));
    }
    assert_eq!(write(&mut client, &[series(&up, &samples[4..])]).told(), (204, ""), "it replaces the first");
    assert_eq!(write(&mut client, &[]).told(), (204, ""));
    let row = |value: &str, millis: i64| {
        format!(
            r#"{{"name":"up","value":{value},"timestamp":{millis},"labels":{{"instance":"a:9090","job":"node"}}}}"#
        )
    };
    let expected = format!("[{},{},{}]", row("0.5", now), row("\"NaN\"", now + 1), row("\"-Inf\"", now + 3));
    assert_eq!(server.get("/query?name=up").body, expected);
    assert_eq!(server.get("/percentile?name=up&percentile=100").body, r#"{"p100":0.5,"count":2}"#);
    assert_eq!(server.counted("ingest_samples_total", ""), 9);
    server.kill();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/query?name=up").body, expected);
}

/// One bad series, or one bad clock, does not take the rest of its request with it.
#[test]
fn what_cannot_be_taken_is_told_and_the_rest_is_kept() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let (now, mut client) = (now_ms(), server.client());
    let good = |value| series(&[("__name__", "good"), ("n", "1")], &[(value, now)]);
    let far = series(&[("__name__", "far")], &[(1.0, now + 86_400_000), (2.0, now), (3.0, now + 90_000_000)]);
    let twice = series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(1.0, now)]);
    let answer = write(&mut client, &[good(1.0), far, twice, good(2.0)]);
    assert_eq!((answer.status, answer.header("Durability")), (400, None));
    let told = answer.json();
    assert_eq!(told["status"], "error");
    assert_eq!(told["errorType"], "bad_data");
    let error = told["error"].as_str().unwrap();
    assert!(error.starts_with("invalid series: timestamp ") && error.contains("newest accepted"), "{error}");
    assert_eq!(
        (&told["index"], &told["detail"]),
        (&1.into(), &"left out 3 of 6 samples, the others are kept".into())
    );
    assert_eq!((count(&server, "good"), count(&server, "far"), count(&server, "twice")), (1, 1, 0));
    assert_eq!(server.counted("ingest_samples_left_out_total", ""), 3);

    let many: Vec<(String, String)> = (0..10_000).map(|n| (format!("l{n}"), "v".into())).collect();
    let mut labels = vec![("__name__", "many")];
    labels.extend(many.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let answer = write(&mut client, &[series(&labels, &[(1.0, now)]), good(3.0)]);
    assert!(answer.body.contains("invalid series: Too many labels (max 64)"), "{}", answer.body);

    // Histograms, exemplars and metadata are counted and not kept.
    let mut rich = good(4.0);
    field(3, b"", &mut rich);
    field(4, b"", &mut rich);
    let mut plain = request(&[rich]);
    field(3, b"", &mut plain);
    assert_eq!(post(&mut client, HEADERS, &snappy(&plain)).told(), (204, ""));
    for name in ["histograms", "exemplars", "metadata"] {
        assert_eq!(server.counted(&format!("ingest_{name}_skipped_total"), ""), 1, "{name}");
    }
    server.wait_for_report("native histograms");
}

/// A limit that one sender's new series have reached does not close the door on what else its body brings.
#[test]
fn what_a_limit_refuses_is_left_out_and_the_rest_is_kept() {
    let dir = tempdir().unwrap();
    let limits = ["shards=1", "storage.series_per_name_max=5", "storage.series_max=400"];
    let sizes = ["http.body_bytes_max=4MiB", "storage.journal_file_bytes=16MiB"];
    let arguments: Vec<&str> = limits.iter().chain(&sizes).flat_map(|set| ["--set", set]).collect();
    let server = Server::start(dir.path(), &arguments);
    let (now, mut client) = (now_ms(), server.client());
    let one = |name: &str, n: usize, value: f64| {
        series(&[("__name__", name), ("n", &n.to_string())], &[(value, now), (value, now + 1)])
    };
    let good = |value| one("good", 0, value);
    assert_eq!(write(&mut client, &[good(1.0)]).told(), (204, ""));
    let mut next = 0;
    let refusal = poll(|| {
        next += 1;
        let answer = write(&mut client, &[one("poison", next, 1.0), good(next as f64)]);
        (answer.status != 204).then_some(answer)
    });
    let told = refusal.json();
    assert_eq!((refusal.status, &told["errorType"]), (400, &"bad_data".into()));
    assert_eq!(told["error"], "series limit reached");
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("left out 2 of 4 samples, the others are kept; storage.series_per_name_max = 5")
    );
    assert_eq!(server.get("/query?name=good").json()[0]["value"], next as f64, "what it came with is there");
    assert_eq!(count(&server, "poison"), 2 * (next - 1));

    // Both limits, and what is no good besides; a body that its loop decodes, and one that is decoded for it.
    let twice = series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &[(1.0, now)]);
    let left_out = server.counted("ingest_samples_left_out_total", "");
    let wide = "x".repeat(3_000);
    for (round, pad) in ["x", &wide].into_iter().enumerate() {
        let mut body: Vec<Vec<u8>> = (0..600)
            .map(|n| {
                series(&[("__name__", &format!("m{round}-{n}")), ("pad", pad)], &[(1.0, now), (2.0, now + 1)])
            })
            .collect();
        body.extend([one("poison", 9_000, 1.0), twice.clone(), good(500.0 + round as f64)]);
        let refusal = write(&mut client, &body);
        assert_eq!(refusal.status, 400, "{}", refusal.body);
        assert_eq!(refusal.json()["error"], "series limit reached");
        assert_eq!(server.get("/query?name=good").json()[0]["value"], 500.0 + round as f64);
    }
    let kept = (0..600).filter(|n| count(&server, &format!("m0-{n}")) == 2).count();
    assert_eq!(kept + next, 400, "as many new ones as there was room for");
    let left_out = server.counted("ingest_samples_left_out_total", "") - left_out;
    assert_eq!(left_out as usize, 2 * (1_200 - kept) + 2 * (2 + 1));
    assert_eq!(server.counted("ingest_series_refusals_total", ""), 3);
}

/// Bodies that are none, bombs, and versions that are not taken.
#[test]
fn what_is_no_request_is_refused_as_a_whole() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let plain = request(&[series(&[("__name__", "a")], &[(1.0, now_ms())])]);
    let version_2 = HEADERS.replace("x-protobuf", "x-protobuf;proto=io.prometheus.write.v2.Request");
    let mut symbols = Vec::new();
    field(4, b"", &mut symbols);
    let bomb = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], b"\x00a"].concat();
    for (headers, body, status, told) in [
        (HEADERS, snappy(&plain[..plain.len() - 1]), 400, "the body is no prometheus.WriteRequest"),
        (HEADERS, snappy(br#"{"name":"a","value":1}"#), 400, "the body is no prometheus.WriteRequest"),
        (HEADERS, plain.clone(), 400, "invalid compressed body"),
        (HEADERS, bomb, 413, "body too large"),
        (&version_2, snappy(&plain), 415, "remote write 2.0 is not taken here"),
        (HEADERS, snappy(&symbols), 415, "remote write 2.0 is not taken here"),
        ("Content-Encoding: br\r\n", plain.clone(), 415, "unsupported content encoding"),
        ("Durability: soon\r\n", snappy(&plain), 400, "invalid header: Durability"),
    ] {
        let answer = post(&mut client, headers, &body);
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.starts_with(r#"{"status":"error","errorType":"bad_data","error":""#));
        assert!(answer.body.contains(told), "{}", answer.body);
    }
    assert_eq!(count(&server, "a"), 0);
    for headers in ["", "Content-Encoding: snappy\r\nDurability: memory\r\n"] {
        assert_eq!(post(&mut client, headers, &snappy(&plain)).status, 204, "{headers}");
    }
    let zstd = zstd::stream::encode_all(&plain[..], 3).unwrap();
    assert_eq!(post(&mut client, "Content-Encoding: zstd\r\n", &zstd).status, 204);
    assert_eq!(post(&mut client, "Content-Encoding: identity\r\n", &plain).status, 204);
    assert_eq!(count(&server, "a"), 1);
    let wrong = client.get("/api/v1/write");
    assert_eq!((wrong.status, wrong.header("Allow")), (405, Some("POST, OPTIONS")));
}

/// Two samples of each of so many series, at that time.
fn wide(rows: usize, millis: i64) -> Vec<u8> {
    let value = "v".repeat(100);
    let all = (0..rows).map(|n| {
        let n = n.to_string();
        let labels = [("__name__", "wide"), ("a", &*value), ("b", &*value), ("n", &*n)];
        series(&labels, &[(1.5, millis), (2.5, millis + 1)])
    });
    request(&all.collect::<Vec<_>>())
}

/// Bodies that are decoded in a turn, and beyond that, over and over, so that their series are known; and one too large.
#[test]
fn bodies_of_every_size_are_taken_again_and_again() {
    let dir = tempdir().unwrap();
    let arguments = ["--set", "http.body_bytes_max=4MiB", "--set", "storage.journal_file_bytes=16MiB"];
    let server = Server::start(dir.path(), &arguments);
    let (mut client, start) = (server.client(), now_ms() - 100_000);
    let sizes = [10, 900, 9_000, 10, 900, 900, 9_000, 10];
    for (at, rows) in sizes.into_iter().enumerate() {
        let plain = wide(rows, start + 2 * at as i64);
        assert_eq!(post(&mut client, HEADERS, &snappy(&plain)).told(), (204, ""), "{} bytes", plain.len());
    }
    let counted = server.get("/percentile?name=wide&percentile=50").json();
    assert_eq!(counted["count"], 2 * sizes.iter().sum::<usize>());
    let answer = post(&mut client, HEADERS, &snappy(&wide(20_000, start)));
    assert_eq!(answer.status, 413, "{}", answer.body);
}

/// When a journal file is full the next begins with a dictionary of its own: series that were known are numbered anew,
/// in the middle of what their sender repeats.
#[test]
fn known_series_go_on_from_journal_file_to_journal_file() {
    const ROUNDS: i64 = 300;
    let dir = tempdir().unwrap();
    let arguments = ["--set", "http.body_bytes_max=256KiB", "--set", "storage.journal_file_bytes=1MiB"];
    let mut server = Server::start(dir.path(), &arguments);
    let (mut client, start) = (server.client(), now_ms() - 100_000);
    for round in 0..ROUNDS {
        let answer = post(&mut client, HEADERS, &snappy(&wide(500, start + 2 * round)));
        assert_eq!(answer.told(), (204, ""), "round {round}");
    }
    let journaled = server.counted("journal_bytes_total", "");
    assert!(journaled > 1 << 20, "{journaled} bytes were one file");
    for _ in 0..2 {
        let counted = server.get("/percentile?name=wide&percentile=50").json();
        assert_eq!(counted["count"], 2 * 500 * ROUNDS);
        server.kill();
        server = Server::start(dir.path(), &arguments);
    }
}

/// A Prometheus that ends with its test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goal: Debian's Prometheus, set up as its manual says, is content with us, and what it scraped is here bit for bit.
/// Method: it scrapes this very server each second and writes to it; both are asked for the same samples.
#[test]
#[ignore = "needs Debian's prometheus: make test"]
fn prometheus_writes_what_it_scrapes() {
    let dir = tempdir().unwrap();
    let server = Server::start(&dir.path().join("ours"), &["--set", "ingest.durability=memory"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ours = server.address;
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs: [{{job_name: ours, static_configs: [{{targets: ['{ours}'], labels: {{umlaut: 'ä'}}}}]}}]\n\
         remote_write: [{{url: 'http://{ours}/api/v1/write', queue_config: {{batch_send_deadline: 100ms}}}}]\n"
    );
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("theirs").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Debian's prometheus is installed");
    let prometheus = Prometheus { child, address };

    let name = "ringwatch_http_request_duration_seconds_sum";
    let ours = poll(|| {
        let rows = server.get(&format!("/query?name={name}")).json();
        let rows = rows.as_array().cloned().unwrap_or_default();
        (rows.len() >= 3).then_some(rows)
    });
    let seconds = PATIENCE.as_secs();
    let query = format!("/api/v1/query?query={name}%5B{seconds}s%5D");
    let theirs = poll(|| {
        let answer = crate::client::get(prometheus.address, &query).json();
        let values = answer["data"]["result"][0]["values"].as_array()?.clone();
        (values.len() >= ours.len()).then_some(values)
    });
    for row in &ours {
        let millis = row["timestamp"].as_i64().unwrap();
        let same = theirs.iter().find(|pair| (pair[0].as_f64().unwrap() * 1e3).round() as i64 == millis);
        let value: f64 = same.expect("a sample of theirs")[1].as_str().unwrap().parse().unwrap();
        assert_eq!(value.to_bits(), row["value"].as_f64().unwrap().to_bits(), "at {millis}");
        assert_eq!(row["labels"]["umlaut"], "ä");
        assert_eq!(row["labels"]["job"], "ours");
    }
    assert_eq!(server.counted("ingest_validation_errors_total", ""), 0);
    assert_eq!(server.counted("ingest_samples_left_out_total", ""), 0);
}
