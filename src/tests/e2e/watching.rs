//! What a person watches: the banner, the access log, the queue's line, and the server's own metrics.

use crate::client::Client;
use crate::server::{Server, bare_command, command, poll, signal, wait_child};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use tempfile::tempdir;

#[test]
fn the_banner_says_what_was_laid_where_and_what_to_type_next() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=written"]);
    let url = format!("http://{}", server.address);
    let last = format!("  curl '{url}/query?name=cpu_usage'");
    server.wait_for_line(|line| (line == last).then_some(()));
    let banner = server.printed().join("\n");
    let path = dir.path().canonicalize().unwrap();
    for part in [
        format!("ringwatch {} on {url}", env!("CARGO_PKG_VERSION")),
        "shards   1 on cores ".into(),
        "MiB budget".into(),
        "Linux ".into(),
        path.to_str().unwrap().into(),
        "(durability written; a new directory)".into(),
        "cpu_usage > 80 over 60s; memory_usage > 90 over 60s; error_rate > 5 over 30s".into(),
        "POST /metrics, POST /api/v1/write, POST /write, GET /query, GET /percentile, GET /alerts, GET /health".into(),
        format!("curl -X POST {url}/metrics -d '{{\"name\":\"cpu_usage\",\"value\":85}}'"),
    ] {
        assert!(banner.contains(&part), "{part:?} is not in\n{banner}");
    }
    // A start that takes seconds on a busy machine tells that it goes on.
    let warnings: Vec<String> =
        server.reported().into_iter().filter(|line| !line.contains(" INFO starting in a new dir")).collect();
    assert_eq!(warnings, [""; 0], "a plain start has nothing to warn of");
}

/// Method: three samples of one series, moved from two shards to one and started once more.
#[test]
fn a_directory_that_moves_to_other_shards_says_when_it_is_done_and_what_it_holds() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    server.accept(r#"[{"name":"a","value":1},{"name":"a","value":2},{"name":"a","value":3}]"#);
    drop(server);
    let server = Server::start(dir.path(), &[]);
    server.wait_for_report("the data was written by 2 shards and moves to 1");
    server.wait_for_report(
        "the data lies for 1 shard now: 3 samples moved from memory and journals to segments",
    );
    let held = "(durability synced; 0 series in memory, 1 segment, 0 samples replayed in ";
    server.wait_for_line(|line| line.contains(held).then_some(()));
    assert_eq!(server.get("/percentile?name=a").body, r#"{"p50":2,"count":3}"#);
}

/// As behind `| head -1`. Method: nobody ever reads the banner; the server goes on and ends as it is told to.
#[test]
fn a_closed_standard_output_is_no_reason_to_stop() {
    let dir = tempdir().unwrap();
    // An address of its own, so that no other test's server takes the port meanwhile.
    let address = TcpListener::bind("127.0.0.31:0").unwrap().local_addr().unwrap();
    let listen = format!("listen={address}");
    let mut command = command(dir.path(), &["--set", "shards=1", "--set", &listen]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut client = poll(|| Client::try_connect(address).ok());
    poll(|| (client.get("/-/ready").status == 200).then_some(()));
    signal(child.id(), "TERM");
    assert_eq!(wait_child(&mut child).code(), Some(0));
}

#[test]
fn the_settings_are_all_shown_with_default_and_reason() {
    let shown = bare_command().arg("config").output().unwrap();
    assert!(shown.status.success());
    let text = String::from_utf8(shown.stdout).unwrap();
    for (key, default) in [
        ("listen", "127.0.0.1:8080"),
        ("data_dir", "./data"),
        ("shards", "cores"),
        ("http.idle_timeout", "60s"),
        ("http.head_timeout", "10s"),
        ("http.body_bytes_max", "16MiB"),
        ("http.backlog", "4096"),
        ("http.coalesce_us", "100"),
        ("http.busy_poll_us", "0"),
        ("ingest.durability", "synced"),
        ("storage.retention", "15d"),
        ("query.timeout", "2m"),
        ("query.memory_bytes_max", "512MiB"),
    ] {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        let words: Vec<&str> = line.unwrap_or_else(|| panic!("{key}")).split_whitespace().collect();
        assert_eq!(words[1], default, "{key}");
        assert!(words.len() > 4, "{key} has no reason");
    }
}

/// Method: a file, the environment and the line set something each; one key is said twice.
#[test]
fn settings_that_were_made_are_shown_with_their_place_and_the_default() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("ringwatch.toml");
    std::fs::write(&file, "[http]\nbacklog = 7\nidle_timeout = \"5s\"\n").unwrap();
    let path = file.to_str().unwrap();
    let mut command = bare_command();
    command.env("RINGWATCH_INGEST_DURABILITY", "written");
    let shown = command.args(["config", "--config", path, "--set", "http.backlog=9"]).output().unwrap();
    assert!(shown.status.success());
    let text = String::from_utf8(shown.stdout).unwrap();
    for (key, value, origin) in [
        ("http.backlog", "9", "[default 4096; from command line]".to_owned()),
        ("http.idle_timeout", "5s", format!("[default 60s; from {path}:3]")),
        (
            "ingest.durability",
            "written",
            "[default synced; from environment variable RINGWATCH_INGEST_DURABILITY]".into(),
        ),
    ] {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{line}");
        assert!(line.ends_with(&origin), "{line}");
    }
    assert_eq!(text.matches("[default").count(), 3, "the others have theirs");
    let refused = bare_command().args(["config", "--set", "http.backlog=0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "as a start would be");
}

/// `[2025-09-17 13:45:23] POST /metrics - 202 Accepted - 3ms`, in local time, path with its query.
#[test]
fn the_access_log_has_one_line_per_request() {
    let dir = tempdir().unwrap();
    let mut quiet = Server::start(dir.path(), &[]);
    quiet.get("/health");
    quiet.kill();
    assert!(!quiet.printed().iter().any(|line| line.contains("/health - ")), "off by default");

    let mut with_log = command(dir.path(), &["--set", "shards=1", "--access-log"]);
    // Half an hour off the usual, so that no clock of a test machine shows it by chance.
    const TZ: &str = "XYZ-5:30";
    with_log.env("TZ", TZ);
    let minute = || {
        let date = Command::new("date").arg("+%Y-%m-%d %H:%M").env("TZ", TZ).output().unwrap();
        String::from_utf8(date.stdout).unwrap().trim().to_owned()
    };
    let before = minute();
    let server = Server::spawn(with_log);
    let mut client = server.client();
    client.post("/metrics", r#"{"name":"a","value":1}"#);
    client.post("/metrics", "no");
    client.get("/query?name=a&start=0");
    client.get("/nowhere");
    let last = " GET /nowhere - 404 Not Found - ";
    server.wait_for_line(|line| line.contains(last).then_some(()));
    let lines: Vec<String> = server.printed().into_iter().filter(|line| line.starts_with('[')).collect();
    let expected = [
        "POST /metrics - 202 Accepted - ",
        "POST /metrics - 400 Bad Request - ",
        "GET /query?name=a&start=0 - 200 OK - ",
        "GET /nowhere - 404 Not Found - ",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        let (time, rest) = line.split_at(22);
        assert!(rest.starts_with(expected) && rest.ends_with("ms"), "{line}");
        let millis = &rest[expected.len()..rest.len() - 2];
        assert!(millis.parse::<u64>().is_ok(), "{line}");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "[0000-00-00 00:00:00] ", "{line}");
    }
    let told = &lines[3][1..17];
    assert!(before.as_str() <= told && told <= minute().as_str(), "local time, {before} and later: {told}");
}

#[test]
fn the_queue_line_counts_what_was_processed() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--stats-interval", "100ms"]);
    server.wait_for_line(|line| {
        (line == "[Queue Stats] Depth: 0 | Peak: 0 | Total Processed: 0").then_some(())
    });
    let metrics = vec![r#"{"name":"a","value":1}"#; 1234];
    server.accept(&format!("[{}]", metrics.join(",")));
    let peak = server.wait_for_line(|line| {
        let rest = line.strip_prefix("[Queue Stats] Depth: 0 | Peak: ")?;
        rest.strip_suffix(" | Total Processed: 1,234").map(str::to_owned)
    });
    assert_eq!(peak, "1,234", "the whole batch waited at once");
}

/// Method: every line is taken apart by the rules of the text format 0.0.4; then what happened is looked up.
#[test]
fn our_own_metrics_are_valid_exposition_text_and_count_what_happened() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let mut client = server.client();
    client.post("/metrics", r#"[{"name":"a","value":1},{"name":"b","value":2},{"name":"a","value":3}]"#);
    client.post("/metrics", r#"{"name":"a","value":1}"#);
    client.post("/metrics", "no");
    client.get("/query?name=a");
    let answer = client.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let sums = exposition(&answer.body);
    for (name, sum) in [
        ("ringwatch_ingest_samples_total", 4.0),
        ("ringwatch_ingest_bodies_total", 2.0),
        ("ringwatch_ingest_validation_errors_total", 1.0),
        ("ringwatch_query_queries_total", 1.0),
        ("ringwatch_store_samples_applied_total", 4.0),
        ("ringwatch_store_series", 2.0),
        ("ringwatch_queue_samples", 0.0),
        ("ringwatch_queue_samples_processed_total", 4.0),
        ("ringwatch_http_requests_total", 5.0),
    ] {
        assert_eq!(sums.get(name), Some(&sum), "{name}");
    }
    // Each shard tells its own three numbers.
    for name in ["queue_samples", "queue_samples_peak", "queue_samples_processed_total"] {
        for shard in 0..2 {
            let line = format!("ringwatch_{name}{{shard=\"{shard}\"}} ");
            assert_eq!(answer.body.lines().filter(|l| l.starts_with(&line)).count(), 1, "{line}");
        }
    }
    assert!((1.0..=4.0).contains(&sums["ringwatch_queue_samples_peak"]));
    assert!(sums["ringwatch_journal_bytes_total"] > 0.0 && sums["ringwatch_journal_syncs_total"] > 0.0);

    let json = client.try_request("GET", "/metrics", "Accept: application/json\r\n", "").unwrap();
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(
        json.body,
        r#"{"metrics_received":4,"batches_processed":2,"validation_errors":1,"rate_limited_requests":0}"#
    );
}

/// A batch that is sent again after a lost reply, and one that corrects it, are told apart from what is new.
/// Method: a query reads what was answered before it, so its answer says that all was applied.
#[test]
fn samples_that_come_again_are_counted_by_what_became_of_them() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let sample = |value| format!(r#"{{"name":"a","value":{value},"timestamp":{now}}}"#);
    for value in [1, 1, 2, 2, 3] {
        server.accept(&sample(value));
    }
    let mut client = server.client();
    assert!(client.get("/query?name=a").body.contains(r#""value":3,"#));
    let sums = exposition(&client.get("/metrics").body);
    for (name, sum) in [
        ("ringwatch_store_samples_applied_total", 5.0),
        ("ringwatch_store_samples_repeated_total", 2.0),
        ("ringwatch_store_samples_replaced_total", 2.0),
    ] {
        assert_eq!(sums.get(name), Some(&sum), "{name}");
    }
}

/// Sums per metric over its series; fails on any line that a Prometheus server would not take.
fn exposition(page: &str) -> BTreeMap<String, f64> {
    assert!(page.ends_with('\n'));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut sums = BTreeMap::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(is_name(help.split(' ').next().unwrap()) && help.contains(' '), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_eq!(types.insert(name, kind), None, "a type twice: {line}");
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(series.insert(id), "a series twice: {line}");
            let name = id.split('{').next().unwrap();
            let base = name.trim_end_matches("_sum").trim_end_matches("_count");
            assert!(is_name(name) && name.starts_with("ringwatch_") && types.contains_key(base), "{line}");
            if let Some(labels) = id.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).expect(line);
                for pair in inner.split(',') {
                    let (label, value) = pair.split_once('=').expect(line);
                    assert!(is_name(label) && value.len() >= 2, "{line}");
                    assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
                }
            }
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    sums
}

#[test]
fn what_waits_in_the_queue_is_told_by_health_and_drains() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "ingest.durability=memory"]);
    let mut client = server.client();
    let metrics = vec![r#"{"name":"a","value":1}"#; 10_000];
    client.post("/metrics", &format!("[{}]", metrics.join(",")));
    poll(|| (client.get("/health").body == r#"{"status":"healthy","queue_size":0}"#).then_some(()));
    assert_eq!(client.get("/percentile?name=a").body, r#"{"p50":1,"count":10000}"#);
}

/// Method: more lines than the pipe and the queue hold, for a reader that stalls, for ever or until they are sent.
#[test]
fn a_standard_output_that_nobody_reads_stops_nothing_and_what_is_left_out_is_told() {
    const REQUESTS: usize = 600;
    for stalls_for_ever in [true, false] {
        let dir = tempdir().unwrap();
        // An address of its own, so that no other test's server takes the port meanwhile.
        let free = TcpListener::bind("127.0.0.34:0").unwrap().local_addr().unwrap();
        let listen = format!("listen={free}");
        let arguments = ["--set", "shards=1", "--set", &listen, "--access-log"];
        let mut spawning = command(dir.path(), &arguments);
        let mut child = spawning.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut client = poll(|| {
            let mut client = Client::try_connect(free).ok()?;
            (client.get("/-/ready").status == 200).then_some(client)
        });
        let target = format!("/-/healthy?{}", "x".repeat(4_000));
        for _ in 0..REQUESTS {
            assert_eq!(client.get(&target).status, 200);
        }
        let page = client.get("/metrics").body;
        let dropped =
            page.lines().find_map(|line| line.strip_prefix("ringwatch_console_lines_dropped_total "));
        let dropped: usize = dropped.expect("it is among the metrics").parse().unwrap();
        assert!((REQUESTS / 2..REQUESTS).contains(&dropped), "{dropped}");

        let mut output = child.stdout.take().unwrap();
        let reader = (!stalls_for_ever).then(|| std::thread::spawn(move || io::read_to_string(&mut output)));
        signal(child.id(), "TERM");
        let ended = poll(|| child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(0), "the end waits for nobody");
        if let Some(reader) = reader {
            let printed = reader.join().unwrap().unwrap();
            // Lines of the ready, of the metrics and perhaps of requests that were let through after those.
            assert!(printed.matches("GET /-/healthy?x").count() >= REQUESTS - dropped);
            let reported = io::read_to_string(child.stderr.take().unwrap()).unwrap();
            // A writer that had no processor while lines were dropped tells of those first, and of the rest later.
            let reports = reported.split("standard output was not read: ").skip(1);
            let told: usize =
                reports.map(|lines| lines.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
            // The line of the question for metrics may be one of them.
            assert!((dropped..=dropped + 1).contains(&told), "{told} of {dropped}");
        }
    }
}
