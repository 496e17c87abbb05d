//! The console's alerts (SPEC §6.2): once on firing, once on resolving, byte for byte.

use crate::server::{Server, now_ms};
use tempfile::tempdir;

fn batch(name: &str, value: f64, count: usize) -> String {
    let metric = format!(r#"{{"name":"{name}","value":{value}}}"#);
    format!("[{}]", vec![metric; count].join(","))
}

fn alert_lines(server: &Server) -> Vec<String> {
    server.printed().into_iter().filter(|line| line.contains("[ALERT")).collect()
}

fn wait_for(server: &Server, expected: &str) {
    server.wait_for_line(|line| (line.contains("[ALERT") && line.contains(expected)).then_some(()));
}

/// Method: each of the three rules is driven over its threshold by one batch of one series, so that the
/// average is exact; then lower values pull it down. Meanwhile it goes on holding, and nothing is repeated.
#[test]
fn the_three_rules_fire_once_and_resolve_once_with_the_lines_of_the_contract() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for (name, high, low, fired, resolved) in [
        (
            "cpu_usage",
            85.0,
            65.0,
            "🚨 [ALERT] cpu_usage avg(60s) > 80.0 (current: 85.0) samples=10",
            "✅ [ALERT RESOLVED] cpu_usage returned to normal (avg: 75.0)",
        ),
        (
            "memory_usage",
            95.5,
            80.5,
            "🚨 [ALERT] memory_usage avg(60s) > 90.0 (current: 95.5) samples=10",
            "✅ [ALERT RESOLVED] memory_usage returned to normal (avg: 88.0)",
        ),
        (
            "error_rate",
            7.0,
            1.0,
            "🚨 [ALERT] error_rate avg(30s) > 5.0 (current: 7.0) samples=10",
            "✅ [ALERT RESOLVED] error_rate returned to normal (avg: 4.0)",
        ),
    ] {
        let before = alert_lines(&server).len();
        server.accept(&batch(name, high, 10));
        wait_for(&server, &format!("[ALERT] {name}"));
        assert_eq!(alert_lines(&server)[before..], [fired]);
        server.accept(&batch(name, low, 10));
        wait_for(&server, &format!("[ALERT RESOLVED] {name}"));
        assert_eq!(alert_lines(&server)[before..], [fired, resolved]);
    }
    // Again after having been resolved: a new change is told again.
    server.accept(&batch("cpu_usage", 100.0, 100));
    server.wait_for_line(|line| line.ends_with("samples=120").then_some(()));
    assert_eq!(alert_lines(&server).len(), 7);
}

/// Method: single samples of sixteen label sets over two shards, in many requests while the rule fires and
/// while it does not; a marker rule that fires afterwards shows that earlier changes were all printed.
#[test]
fn all_label_sets_of_both_shards_count_and_nothing_is_repeated_while_it_holds() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2", "--set", "ingest.durability=memory"]);
    let mut clients = [server.client(), server.client(), server.client(), server.client()];
    let mut post = |at: usize, value: u32| {
        let body = format!(r#"{{"name":"cpu_usage","value":{value},"labels":{{"host":"h{}"}}}}"#, at % 16);
        assert_eq!(clients[at % 4].post("/metrics", &body).status, 202);
    };
    // The average over all is 50, though half of the hosts are at 95.
    for at in 0..64 {
        post(at, if at % 16 < 8 { 5 } else { 95 });
    }
    server.accept(&batch("error_rate", 10.0, 1));
    wait_for(&server, "error_rate");
    assert_eq!(alert_lines(&server).len(), 1, "{:?}", alert_lines(&server));

    for at in 0..1_000 {
        post(at, 95);
    }
    wait_for(&server, "[ALERT] cpu_usage avg(60s) > 80.0");
    for at in 0..1_000 {
        post(at, 95);
    }
    server.accept(&batch("memory_usage", 99.0, 1));
    wait_for(&server, "memory_usage");
    let lines = alert_lines(&server);
    assert_eq!(lines.len(), 3, "{lines:?}");

    for at in 0..3_000 {
        post(at, 20);
    }
    wait_for(&server, "[ALERT RESOLVED] cpu_usage");
    let lines = alert_lines(&server);
    assert_eq!(lines.iter().filter(|line| line.contains("cpu_usage")).count(), 2, "{lines:?}");
}

/// Where the rules stand, by any shard's answer.
/// Method: `since` is compared with the clock around the change; after a kill it must be the same text.
#[test]
fn alerts_are_told_with_state_value_and_since_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &["--set", "shards=2"]);
    let quiet = |rule: &str| {
        format!(
            r#"{{"rule":"{rule}","state":"inactive","value":null,"labels":{{}},"since":null,"acknowledged_by":null}}"#
        )
    };
    let (cpu, memory, errors) = (quiet("cpu_usage"), quiet("memory_usage"), quiet("error_rate"));
    let mut clients = [server.client(), server.client(), server.client(), server.client()];
    for client in &mut clients {
        assert_eq!(
            client.get("/alerts").told(),
            (200, &*format!(r#"{{"alerts":[{cpu},{memory},{errors}]}}"#))
        );
        assert_eq!(client.get("/alerts?state=firing").told(), (200, r#"{"alerts":[]}"#));
    }
    let head = clients[0].try_request("HEAD", "/alerts", "", "").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let wrong = clients[0].get("/alerts?state=burning");
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (400, Some("invalid parameter: state")));
    assert_eq!(wrong.header("access-control-allow-origin"), Some("*"));
    assert_eq!(clients[0].post("/alerts", "{}").status, 405);

    let before = rfc3339(now_ms());
    server.accept(&batch("cpu_usage", 85.5, 10));
    wait_for(&server, "[ALERT] cpu_usage");
    let after = rfc3339(now_ms());
    let firing = server.get("/alerts?state=firing").json();
    let since = firing["alerts"][0]["since"].as_str().unwrap().to_owned();
    assert!((before..=after).contains(&since), "{since}");
    let told = format!(
        r#"{{"rule":"cpu_usage","state":"firing","value":85.5,"labels":{{}},"since":"{since}","acknowledged_by":null}}"#
    );
    for client in &mut clients {
        assert_eq!(client.get("/alerts?state=firing").body, format!(r#"{{"alerts":[{told}]}}"#));
        assert_eq!(client.get("/alerts?state=inactive").body, format!(r#"{{"alerts":[{memory},{errors}]}}"#));
    }
    // The state is kept a moment after it is told.
    let states = dir.path().join("alerts");
    crate::server::poll(|| is_kept(&states).then_some(()));
    server.kill();

    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    // The value is there again once every shard has reported.
    crate::server::poll(|| {
        (server.get("/alerts?state=firing").body == format!(r#"{{"alerts":[{told}]}}"#)).then_some(())
    });
    server.accept(&batch("cpu_usage", 14.5, 10));
    wait_for(&server, "[ALERT RESOLVED] cpu_usage");
    let resolved = server.get("/alerts").json()["alerts"][0].clone();
    assert_eq!((resolved["state"].as_str(), resolved["value"].as_f64()), (Some("inactive"), Some(50.0)));
    assert!(resolved["since"].as_str().unwrap() > since.as_str(), "{resolved}");
}

fn rfc3339(unix_ms: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(unix_ms).unwrap())
}

/// Whether the state of a firing rule lies on disk.
fn is_kept(states: &std::path::Path) -> bool {
    std::fs::read_dir(states).is_ok_and(|names| {
        names.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "state"))
    })
}

/// Method: samples that were 28 seconds old when they came leave the 30 s window after two. On a busy machine they may
/// have left it before they were looked at, and then never fire: a new server gets new ones.
#[test]
fn an_alert_without_samples_resolves_when_it_is_stale() {
    let (_dir, server) = (0..10)
        .find_map(|_| {
            let dir = tempdir().unwrap();
            let server = Server::start(dir.path(), &["--set", "alert.stale_after=1s"]);
            let then = now_ms() - 28_000;
            server.accept(&format!(
                r#"[{{"name":"error_rate","value":6,"timestamp":{then}}},{{"name":"error_rate","value":8,"timestamp":{}}}]"#,
                then + 1
            ));
            let has_fired = crate::server::poll(|| {
                let told = alert_lines(&server).iter().any(|line| line.contains("error_rate"));
                (told || now_ms() > then + 40_000).then_some(told)
            });
            has_fired.then_some((dir, server))
        })
        .expect("ten times too slow, or samples within the window do not fire");
    wait_for(&server, "[ALERT RESOLVED] error_rate");
    let about_it = alert_lines(&server).into_iter().filter(|line| line.contains("error_rate"));
    assert_eq!(
        about_it.collect::<Vec<_>>(),
        [
            "🚨 [ALERT] error_rate avg(30s) > 5.0 (current: 7.0) samples=2",
            "✅ [ALERT RESOLVED] error_rate returned to normal (no samples for 1s)",
        ]
    );
}

#[test]
fn samples_that_are_older_than_the_window_do_not_fire() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let then = now_ms() - 61_000;
    server.accept(&format!(r#"{{"name":"cpu_usage","value":99,"timestamp":{then}}}"#));
    server.accept(&batch("cpu_usage", 80.0, 3));
    server.accept(&batch("error_rate", 6.0, 1));
    wait_for(&server, "error_rate");
    assert_eq!(alert_lines(&server).len(), 1, "80 is not above 80: {:?}", alert_lines(&server));
}

/// A restart is no change: neither what the windows hold nor what was told is forgotten.
/// Method: over a kill, where samples lie in the journal, and over a clean stop, where they lie in a segment; the
/// rule's average is known only from samples of both sides. A second rule, fired later, marks that nothing came.
#[test]
fn a_restart_repeats_nothing_and_forgets_nothing() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.accept(&batch("cpu_usage", 95.0, 10));
    wait_for(&server, "[ALERT] cpu_usage");
    server.accept(&batch("error_rate", 4.9, 10));
    // The state is kept a moment after it is told; a crash in between may tell it again.
    let states = dir.path().join("alerts");
    crate::server::poll(|| is_kept(&states).then_some(()));
    server.kill();

    let server = Server::start(dir.path(), &[]);
    server.accept(&batch("cpu_usage", 95.0, 10));
    server.accept(&batch("memory_usage", 95.0, 10));
    wait_for(&server, "[ALERT] memory_usage");
    assert_eq!(alert_lines(&server).len(), 1, "{:?}", alert_lines(&server));
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));

    let server = Server::start(dir.path(), &[]);
    server.accept(&batch("error_rate", 5.05, 10));
    server.accept(&batch("cpu_usage", 5.0, 20));
    wait_for(&server, "[ALERT RESOLVED] cpu_usage");
    server.accept(&batch("error_rate", 10.0, 10));
    wait_for(&server, "[ALERT] error_rate");
    let lines = alert_lines(&server);
    assert_eq!(
        lines,
        [
            "✅ [ALERT RESOLVED] cpu_usage returned to normal (avg: 50.0)",
            "🚨 [ALERT] error_rate avg(30s) > 5.0 (current: 6.7) samples=30",
        ]
    );
}
