//! Memory stays within its budget: series that come and go make room for one another, what finds no room is refused
//! with the cause, and what was acknowledged is kept (SPEC §10).

use crate::client::{Answer, Client};
use crate::server::{Server, now_ms, poll};
use std::fs;
use tempfile::tempdir;

const BUDGET: [&str; 4] = ["--set", "memory_bytes_max=64MiB", "--set", "ingest.durability=written"];

/// Series of one body.
const BODY_SERIES: u64 = 1_000;

/// A body of so many series that there have never been, one sample each.
fn body(from: u64) -> String {
    let members: Vec<String> = (from..from + BODY_SERIES)
        .map(|n| {
            format!(
                r#"{{"name":"pod_cpu","value":{n},"labels":{{"pod":"pod-{n:08}","node":"node-{}"}}}}"#,
                n % 40
            )
        })
        .collect();
    format!("[{}]", members.join(","))
}

/// Sends until it is taken; returns how often it was refused. A refusal says when to come back and why.
fn insist(client: &mut Client, body: &str) -> u64 {
    let mut refused = 0;
    poll(|| {
        let answer = client.post("/metrics", body);
        match answer.status {
            202 => Some(()),
            503 => {
                assert!(answer.header("retry-after").is_some(), "{}", answer.head);
                refused += 1;
                None
            }
            status => panic!("{status} {}", answer.body),
        }
    });
    refused
}

/// Asks again where the query was broken off because what came before it was just being flushed.
fn count(server: &Server, selector: &str) -> u64 {
    let answer = poll(|| {
        let answer = server.get(&format!("/percentile?name={selector}"));
        let is_broken_off = answer.status == 503 && answer.json()["error"] == "query broken off";
        (!is_broken_off).then_some(answer)
    });
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["count"].as_u64().unwrap()
}

/// What the kernel counts as resident.
fn resident_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics").body;
    let line = page.lines().find(|line| line.starts_with(&format!("ringwatch_{name}{{"))).expect("told");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn reason(health: &Answer) -> String {
    assert_eq!(
        (health.status, health.json()["status"].as_str()),
        (503, Some("unhealthy")),
        "{}",
        health.body
    );
    health.json()["reason"].as_str().unwrap().to_owned()
}

/// Four hundred thousand series of one sample each, several times what the budget holds: all are kept, and what is
/// resident stays within what the process took before the first of them, the budget, and as much again for the
/// fragments that the allocator keeps. Without a bound three quarters of them took 193 MiB.
#[test]
fn series_that_come_and_go_stay_within_the_memory() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &BUDGET);
    let at_rest = resident_bytes(&server);
    let mut client = server.client();
    let (mut refused, mut peak) = (0, 0);
    let total = 400 * BODY_SERIES;
    for from in (0..total).step_by(BODY_SERIES as usize) {
        refused += insist(&mut client, &body(from));
        // One of old is heard of all the time.
        client.post("/metrics", r#"{"name":"beat","value":1}"#);
        peak = peak.max(resident_bytes(&server));
    }
    let flushes = metric(&server, "store_flushes_total");
    println!("{} MiB at rest, {} MiB peak, {refused} refused, {flushes} flushes", at_rest >> 20, peak >> 20);
    assert!(flushes > 2);
    assert!(peak < at_rest + (128 << 20), "{peak} bytes resident, {at_rest} at rest");
    assert_eq!(count(&server, "pod_cpu"), total);
    server.kill();
    let again = Server::start(dir.path(), &BUDGET);
    assert_eq!(count(&again, "pod_cpu"), total, "replayed and from segments");
    let replayed = resident_bytes(&again);
    println!("{} MiB after replay", replayed >> 20);
}

/// What a query holds while it looks for its series is on its account: where that is too small it is refused, with
/// nothing left of it, however few samples would have come out; one with fewer series to look among is answered.
/// Method: one body of series lies in a segment, so that those in memory are put in its order, a number each.
#[test]
fn a_search_among_many_series_is_held_to_the_querys_memory() {
    let dir = tempdir().unwrap();
    let small =
        ["--set", "shards=1", "--set", "query.memory_bytes_max=1MiB", "--set", "ingest.durability=memory"];
    let server = Server::start(dir.path(), &small);
    insist(&mut server.client(), &body(0));
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
    let server = Server::start(dir.path(), &small);
    let mut client = server.client();
    let total = 300 * BODY_SERIES;
    for from in (0..total).step_by(BODY_SERIES as usize) {
        insist(&mut client, &body(from));
    }
    let held = |client: &mut Client| {
        let page = client.get("/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix("ringwatch_query_memory_bytes "));
        line.expect("told").parse::<u64>().unwrap()
    };
    for target in ["/percentile?name=pod_cpu&max_value=-1", "/query?name=pod_cpu&max_value=-1&limit=1"] {
        let answer = client.get(target);
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert_eq!(answer.json()["error"], "query needs too much memory");
        assert_eq!(held(&mut client), 0);
    }
    // One node of forty.
    let node = client.get("/percentile?name=pod_cpu&match=%7Bnode%3D%22node-7%22%7D");
    assert_eq!(
        (node.status, node.json()["count"].as_u64()),
        (200, Some((total + BODY_SERIES) / 40)),
        "{}",
        node.body
    );
    assert_eq!(held(&mut client), 0);
}

/// Samples of one body.
const BODY_SAMPLES: u64 = 20_000;

/// A body of samples of one series, hard to press together.
fn samples(round: u64) -> String {
    let member =
        |n: u64| format!(r#"{{"name":"a","value":{}}}"#, 1.0 / (3 + n + round * BODY_SAMPLES) as f64);
    let members: Vec<String> = (0..BODY_SAMPLES).map(member).collect();
    format!("[{}]", members.join(","))
}

/// How many of them are kept. Asked in parts of a million, which their values tell, for a percentile over all of them
/// needs more than queries may hold of so small a budget.
fn samples_kept(server: &Server) -> u64 {
    const MILLIONS: u64 = 20;
    let at = |millions: u64| 1.0 / (millions * 1_000_000) as f64;
    let count_of = |millions: u64| {
        let max = if millions == 0 { 1.0 } else { at(millions) };
        let min = if millions == MILLIONS { 0.0 } else { at(millions + 1).next_up() };
        count(server, &format!("a&max_value={max}&min_value={min}"))
    };
    (0..=MILLIONS).map(count_of).sum()
}

/// A flush that cannot write fills the memory: then samples are refused with the cause, health says it, reads go
/// on. Once it can write again everything returns by itself.
/// Method: a file stands where the folder of segments belongs, which not even root can write through.
#[test]
fn a_flush_that_fails_refuses_samples_with_its_cause_until_it_succeeds() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("segments");
    fs::write(&folder, "").unwrap();
    let server = Server::start(
        dir.path(),
        &[&BUDGET[..], &["--set", "http.body_bytes_max=2MiB", "--set", "storage.journal_file_bytes=8MiB"]]
            .concat(),
    );
    let mut client = server.client();
    let mut accepted = 0;
    let refusal = (0..400).find_map(|round| {
        let answer = client.post("/metrics", &samples(round));
        if answer.status == 202 {
            accepted += BODY_SAMPLES;
            return None;
        }
        // A ring that is full for a moment is another refusal.
        assert_eq!(answer.status, 503, "{}", answer.body);
        (answer.json()["error"] == "memory is full").then_some(answer)
    });
    let refusal = refusal.expect("the memory is bounded");
    assert_eq!(refusal.header("retry-after"), Some("5"));
    let named = |text: &str| {
        for part in ["shard 0", "22 MiB", "memory_bytes_max = 64 MiB", "cannot be flushed", "segments"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    poll(|| reason(&client.get("/health")).contains("cannot be flushed").then_some(()));
    named(&reason(&client.get("/health")));
    let answer = client.post("/metrics", &samples(0));
    assert_eq!(answer.status, 503);
    named(answer.json()["detail"].as_str().unwrap());
    assert!(
        metric(&server, "ingest_memory_refusals_total") > 0
            && metric(&server, "store_flush_failures_total") > 0
    );
    assert_eq!(samples_kept(&server), accepted, "reads go on, and nothing of what was refused is there");

    fs::remove_file(&folder).unwrap();
    insist(&mut client, &samples(1_000));
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(samples_kept(&server), accepted + BODY_SAMPLES);
}

/// New series of a name that has its share are refused, known ones and other names go on; also after a restart.
#[test]
fn the_limit_per_name_refuses_new_series_of_that_name() {
    let dir = tempdir().unwrap();
    let limited = ["--set", "shards=2", "--set", "storage.series_per_name_max=100"];
    let one = |name: &str, n: u64| format!(r#"{{"name":"{name}","value":1,"labels":{{"n":"{n}"}}}}"#);
    let mut server = Server::start(dir.path(), &limited);
    let mut next = 0;
    for _ in 0..2 {
        // Each shard refuses by itself: one may be full while the other is not.
        let refusal = poll(|| {
            next += 1;
            let answer = server.client().post("/metrics", &one("m", next));
            (answer.status != 202).then_some(answer)
        });
        assert_eq!((refusal.status, &refusal.json()["error"]), (429, &"series limit reached".into()));
        let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("storage.series_per_name_max = 100, and m has as many"), "{detail}");
        assert!(refusal.header("retry-after").is_some());
        for n in 1..50 {
            assert_eq!(server.client().post("/metrics", &one("m", n)).status, 202, "it is known");
            assert_eq!(server.client().post("/metrics", &one("other", n % 9)).status, 202);
        }
        server.kill();
        server = Server::start(dir.path(), &limited);
    }
    assert!(next > 50, "{next}");
}

/// The names, labels and pairs with the most series, over all shards.
#[test]
fn the_status_tells_which_names_and_labels_have_the_most_series() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let now_ms = now_ms();
    let member = |n: u64| {
        let (name, zone) = (if n < 90 { "often" } else { "rare" }, n % 3);
        let labels = format!(r#"{{"n":"{n}","zone":"z{zone}"}}"#);
        format!(r#"{{"name":"{name}","value":1,"timestamp":{now_ms},"labels":{labels}}}"#)
    };
    let members: Vec<String> = (0..100).map(member).collect();
    server.accept(&format!("[{}]", members.join(",")));
    let status = |query: &str| server.get(&format!("/api/v1/status/tsdb{query}"));
    // What was accepted is applied by then, or soon.
    let all = poll(|| {
        let all = status("").json();
        (all["data"]["headStats"]["numSeries"] == 100).then_some(all)
    });
    assert_eq!(all["status"], "success");
    let data = &all["data"];
    let head = ["chunkCount", "minTime", "maxTime"].map(|key| data["headStats"][key].as_i64());
    assert_eq!(head, [Some(100), Some(now_ms), Some(now_ms)]);
    let counts = |key: &str| -> Vec<(String, u64)> {
        let all = data[key].as_array().unwrap().iter();
        all.map(|of| (of["name"].as_str().unwrap().to_owned(), of["value"].as_u64().unwrap())).collect()
    };
    assert_eq!(counts("seriesCountByMetricName"), [("often".into(), 90), ("rare".into(), 10)]);
    let labels = [("n".into(), 100), ("zone".into(), 3), ("__name__".into(), 2)];
    assert_eq!(counts("labelValueCountByLabelName"), labels);
    let pairs = [("__name__=often".into(), 90), ("zone=z0".into(), 34)];
    assert_eq!(counts("seriesCountByLabelValuePair")[..2], pairs);
    assert_eq!(counts("memoryInBytesByLabelName")[0].0, "n");
    let one = status("?limit=1").json();
    assert_eq!(one["data"]["seriesCountByMetricName"].as_array().unwrap().len(), 1);
    let refused = status("?limit=none");
    assert_eq!((refused.status, &refused.json()["errorType"]), (400, &"bad_data".into()));
}

/// New series beyond the limit are refused, those in memory go on; also over other loops, and after a restart.
#[test]
fn the_series_limit_refuses_new_series_alone() {
    let dir = tempdir().unwrap();
    let limited = ["--set", "shards=2", "--set", "storage.series_max=500"];
    let one = |n: u64| format!(r#"{{"name":"m","value":1,"labels":{{"n":"{n}"}}}}"#);
    let mut server = Server::start(dir.path(), &limited);
    let mut others = 0;
    for round in 1..=2 {
        let mut admitted = 0;
        let refusal = poll(|| {
            // Each time over another connection, so that both loops meet them.
            let answer = server.client().post("/metrics", &one(admitted));
            match answer.status {
                202 => admitted += 1,
                503 => {}
                _ => return Some(answer),
            }
            None
        });
        assert_eq!((refusal.status, &refusal.json()["error"]), (429, &"series limit reached".into()));
        assert!(refusal.header("retry-after").is_some());
        // A hundredth may be with the loop that did not need it.
        assert!((495..=500).contains(&(admitted + others)), "{admitted} and {others}");
        for n in (0..admitted).step_by(7) {
            poll(|| (server.client().post("/metrics", &one(n)).status == 202).then_some(()));
        }
        // The other loop may spend what it has left, and not more.
        for n in 0..20 {
            let status = server.client().post("/metrics", &one(round * 10_000 + n)).status;
            assert!([202, 429].contains(&status), "{status}");
            others += u64::from(status == 202);
        }
        assert!(admitted + others <= 500, "{admitted} and {others}");
        let series = |server: &Server| -> u64 {
            let page = server.get("/metrics").body;
            let lines = page.lines().filter(|line| line.starts_with("ringwatch_store_series{"));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
        };
        assert!((495..=500).contains(&series(&server)));
        server.kill();
        server = Server::start(dir.path(), &limited);
    }
}
