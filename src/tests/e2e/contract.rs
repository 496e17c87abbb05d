//! Every example of the base contract (SPEC §1, §2.1, §2.3, §5.1), run as written.

use crate::client::Answer;
use crate::server::{Server, now_ms};
use std::collections::BTreeSet;
use tempfile::tempdir;

const ACCEPTED: (u16, &str) = (202, r#"{"status":"accepted"}"#);
/// The specification's times lie in 2023.
const KEEPS_EVERYTHING: [&str; 2] = ["--set", "storage.retention=0"];
const FIFTEEN: [u32; 15] = [10, 12, 15, 18, 20, 25, 30, 35, 45, 60, 80, 100, 150, 200, 500];

fn values(answer: &Answer) -> Vec<f64> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.json();
    rows.as_array().unwrap().iter().map(|row| row["value"].as_f64().unwrap()).collect()
}

/// The whole answer, with the date blanked out.
fn raw_answer(server: &Server, request: &str) -> String {
    let mut client = server.client();
    client.send(request).unwrap();
    client.half_close();
    let text = String::from_utf8(client.rest()).unwrap();
    let date = text.split_once("Date: ").unwrap().1.split_once("\r\n").unwrap().0.to_owned();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    text.replace(&date, "…")
}

#[test]
fn a_single_metric_as_curl_sends_it_is_accepted_byte_for_byte() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let body = r#"{"name":"cpu_usage","value":85}"#;
    let request = format!(
        "POST /metrics HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\
         Content-Length: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(
        raw_answer(&server, &request),
        "HTTP/1.1 202 Accepted\r\nDate: …\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\
         Durability: synced\r\n\r\n{\"status\":\"accepted\"}"
    );
    let asked_at = now_ms();
    let rows = server.get("/query?name=cpu_usage").json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["value"], 85);
    let timestamp = rows[0]["timestamp"].as_i64().unwrap();
    assert!((asked_at - 60_000..=asked_at).contains(&timestamp), "the server's clock: {timestamp}");
}

#[test]
fn a_batch_an_array_and_lines_are_accepted_with_their_count() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let three = r#"{"metrics":[{"name":"cpu_usage","value":85},{"name":"memory_usage","value":75},{"name":"disk_io","value":120}]}"#;
    let array = r#"[{"name":"cpu_usage","value":86},{"name":"memory_usage","value":76}]"#;
    let lines = "{\"name\":\"cpu_usage\",\"value\":87}\n{\"name\":\"disk_io\",\"value\":121}\n";
    assert_eq!(client.post("/metrics", three).told(), (202, r#"{"status":"accepted","count":3}"#));
    assert_eq!(client.post("/metrics", array).told(), (202, r#"{"status":"accepted","count":2}"#));
    let headers = "Content-Type: application/x-ndjson\r\n";
    let answer = client.try_request("POST", "/metrics", headers, lines).unwrap();
    assert_eq!(answer.told(), (202, r#"{"status":"accepted","count":2}"#));
    assert_eq!(values(&client.get("/query?name=cpu_usage")), [85.0, 86.0, 87.0]);
    assert_eq!(values(&client.get("/query?name=memory_usage")), [75.0, 76.0]);
    assert_eq!(values(&client.get("/query?name=disk_io")), [120.0, 121.0]);
}

#[test]
fn every_key_of_a_metric_is_taken_as_the_table_says() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &KEEPS_EVERYTHING);
    let mut client = server.client();
    for (body, rows) in [
        (
            r#" { "type" : "counter", "value" : 1e3, "name" : "exponent", "timestamp" : 7 } "#,
            r#"[{"name":"exponent","value":1000,"timestamp":7}]"#,
        ),
        (r#"{"name":"status","value":"UP","timestamp":7}"#, r#"[{"name":"status","value":1,"timestamp":7}]"#),
        (
            r#"{"name":"status2","value":"DOWN","timestamp":7}"#,
            r#"[{"name":"status2","value":0,"timestamp":7}]"#,
        ),
        (
            r#"{"name":"flag","value":true,"timestamp":"2025-09-17T13:45:23.123Z"}"#,
            r#"[{"name":"flag","value":1,"timestamp":1758116723123}]"#,
        ),
        (
            r#"{"name":"twice","value":1,"value":2,"timestamp":7}"#,
            r#"[{"name":"twice","value":2,"timestamp":7}]"#,
        ),
        (
            r#"{"name":"tagged","value":125.5,"timestamp":7,"tags":{"host":"web1"},"labels":{"az":"b"},"client_id":"c","x":[{}]}"#,
            r#"[{"name":"tagged","value":125.5,"timestamp":7,"labels":{"az":"b","host":"web1"}}]"#,
        ),
        (
            r#"{"name":"escaped\u00e9","value":-0.1,"timestamp":7}"#,
            r#"[{"name":"escapedé","value":-0.1,"timestamp":7}]"#,
        ),
        (
            r#"{"name":"app.cpu load","value":3,"timestamp":7}"#,
            r#"[{"name":"app.cpu load","value":3,"timestamp":7}]"#,
        ),
    ] {
        assert_eq!(client.post("/metrics", body).told(), ACCEPTED, "{body}");
        let name = rows.split('"').nth(3).unwrap();
        let name = name.replace(' ', "%20").replace('é', "%C3%A9");
        assert_eq!(client.get(&format!("/query?name={name}")).told(), (200, rows));
    }
}

#[test]
fn the_example_query_answers_as_shown_with_both_ends_included() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &KEEPS_EVERYTHING);
    server.accept(r#"{"name":"cpu_usage","value":85,"timestamp":1696789234567}"#);
    let row = r#"[{"name":"cpu_usage","value":85,"timestamp":1696789234567}]"#;
    let mut client = server.client();
    for (range, rows) in [
        ("&start=1696789200000&end=1696789500000", row),
        ("", row),
        ("&start=1696789234567&end=1696789234567", row),
        ("&start=1696789234568", "[]"),
        ("&end=1696789234566", "[]"),
        ("&unknown=parameter&end=1696789234567", row),
    ] {
        assert_eq!(client.get(&format!("/query?name=cpu_usage{range}")).told(), (200, rows), "{range}");
    }
    assert_eq!(client.get("/query?name=nothing").told(), (200, "[]"));
    let answer = raw_answer(
        &server,
        "GET /query?name=cpu_usage&start=1696789200000&end=1696789500000 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    );
    assert_eq!(
        answer,
        format!(
            "HTTP/1.1 200 OK\r\nDate: …\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\
             Access-Control-Allow-Origin: *\r\n\r\n{row}"
        )
    );
}

#[test]
fn rows_are_sorted_by_time_then_arrival_and_filtered_by_value_label_and_number() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2", "--set", "storage.retention=0"]);
    let mut client = server.client();
    for (value, timestamp) in [(95, 5), (50, 1), (75, 3), (65, 2), (85, 4)] {
        let body = format!(r#"{{"name":"five","value":{value},"timestamp":{timestamp}}}"#);
        assert_eq!(client.post("/metrics", &body).told(), ACCEPTED);
    }
    assert_eq!(values(&client.get("/query?name=five")), [50.0, 65.0, 75.0, 85.0, 95.0]);
    assert_eq!(values(&client.get("/query?name=five&min_value=80")), [85.0, 95.0]);
    assert_eq!(values(&client.get("/query?name=five&max_value=65")), [50.0, 65.0]);
    assert_eq!(values(&client.get("/query?name=five&min_value=65&max_value=85")), [65.0, 75.0, 85.0]);
    assert_eq!(values(&client.get("/query?name=five&limit=2")), [50.0, 65.0]);
    assert_eq!(values(&client.get("/query?name=five&start=2&end=4&limit=2")), [65.0, 75.0]);
    assert_eq!(values(&client.get("/query?name=five&limit=0")), [0.0; 0]);

    // Eight hosts, so that both shards own some.
    for host in 0..8 {
        let body = format!(
            r#"{{"name":"cpu","value":{host},"timestamp":{},"labels":{{"host":"web{host}","az":"a{}"}}}}"#,
            9 + host / 7,
            host % 2
        );
        assert_eq!(client.post("/metrics", &body).told(), ACCEPTED);
    }
    // Of several series at one time that which arrived first comes first, whichever shard owns it.
    assert_eq!(values(&client.get("/query?name=cpu")), (0..8).map(f64::from).collect::<Vec<f64>>());
    let stamped: Vec<String> = (0..200)
        .map(|at| format!(r#"{{"name":"stamped","value":{at},"labels":{{"host":"web{}"}}}}"#, at * 7 % 8))
        .collect();
    assert_eq!(client.post("/metrics", &format!("[{}]", stamped.join(","))).status, 202);
    let arrived: Vec<f64> = (0..200).map(f64::from).collect();
    assert_eq!(values(&client.get("/query?name=stamped")), arrived);
    let one = client.get("/query?name=cpu&match=%7Bhost%3D%22web3%22%7D");
    assert_eq!(
        one.told(),
        (200, r#"[{"name":"cpu","value":3,"timestamp":9,"labels":{"az":"a1","host":"web3"}}]"#)
    );
    let matched = client.get("/query?name=cpu&match=%7Baz%21%3D%22a1%22%2Chost%21%3D%22web6%22%7D");
    assert_eq!(values(&matched), [0.0, 2.0, 4.0]);
    assert_eq!(values(&client.get("/query?name=cpu&match=%7Bhost%3D%22none%22%7D")), [0.0; 0]);
    assert_eq!(
        client.get("/query?name=cpu&match=%7Baz%3D%22a1%22%7D&percentile=100").told(),
        (200, r#"{"p100":7,"count":4}"#)
    );
}

/// Of rows with one time those of the series that arrived first come first: over both shards, from memory, from
/// a replayed journal, from segments, and when more arrives after each. Method: the same question after each.
#[test]
fn rows_of_one_time_keep_the_order_of_arrival_through_a_crash_and_a_flush() {
    let dir = tempdir().unwrap();
    let arguments = ["--set", "shards=2", "--set", "storage.retention=0"];
    let row =
        |host: &str| format!(r#"{{"name":"cpu","value":1,"timestamp":7,"labels":{{"host":"{host}"}}}}"#);
    let batch = |hosts: &[&str]| {
        let rows: Vec<String> = hosts.iter().map(|host| row(host)).collect();
        format!("[{}]", rows.join(","))
    };
    let mut server = Server::start(dir.path(), &arguments);
    let mut arrived: Vec<&str> = Vec::new();
    let check = |server: &Server, arrived: &[&str], when: &str| {
        assert_eq!(server.get("/query?name=cpu").body, batch(arrived), "{when}");
        assert_eq!(
            server.get("/query?name=cpu&limit=5").body,
            batch(&arrived[..arrived.len().min(5)]),
            "{when}"
        );
    };
    // Each on a connection of its own, so that either loop may take it.
    for host in ["b", "a", "c"] {
        server.accept(&row(host));
        arrived.push(host);
    }
    server.accept(&batch(&["z", "c", "m", "y", "k", "a", "x"]));
    arrived.extend(["z", "m", "y", "k", "x"]);
    check(&server, &arrived, "in memory");

    server.kill();
    let server = Server::start(dir.path(), &arguments);
    check(&server, &arrived, "replayed");
    server.accept(&batch(&["o", "b", "n"]));
    arrived.extend(["o", "n"]);
    check(&server, &arrived, "replayed and in memory");

    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
    let server = Server::start(dir.path(), &arguments);
    check(&server, &arrived, "in segments");
    // Known series come again in another order, and do not move; one that is new comes last.
    server.accept(&batch(&["x", "e", "b"]));
    arrived.push("e");
    check(&server, &arrived, "in segments and in memory");
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
    let server = Server::start(dir.path(), &["--set", "shards=1", "--set", "storage.retention=0"]);
    check(&server, &arrived, "in several segments, with another number of shards");
}

#[test]
fn percentiles_are_exact_by_nearest_rank() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let metrics: Vec<String> = FIFTEEN
        .iter()
        .map(|value| format!(r#"{{"name":"latency","value":{value},"labels":{{"h":"{}"}}}}"#, value % 4))
        .collect();
    server.accept(&format!("[{}]", metrics.join(",")));
    let mut client = server.client();
    for (target, body) in [
        ("/query?name=latency&percentile=99", r#"{"p99":500,"count":15}"#),
        ("/percentile?name=latency&percentile=50&start=0", r#"{"p50":35,"count":15}"#),
        ("/percentile?name=latency", r#"{"p50":35,"count":15}"#),
        ("/percentile?name=latency&percentile=0", r#"{"p0":10,"count":15}"#),
        ("/percentile?name=latency&percentile=100", r#"{"p100":500,"count":15}"#),
        ("/percentile?name=latency&percentile=99.9", r#"{"p99.9":500,"count":15}"#),
        ("/percentile?name=latency&max_value=30", r#"{"p50":18,"count":7}"#),
        ("/percentile?name=nothing", r#"{"p50":null,"count":0}"#),
        ("/percentile?name=latency&start=1&end=2", r#"{"p50":null,"count":0}"#),
        ("/query?name=nothing&percentile=95", r#"{"p95":null,"count":0}"#),
    ] {
        assert_eq!(client.get(target).told(), (200, body), "{target}");
    }
    for percentile in ["-1", "100.1", "NaN", "half", ""] {
        let answer = client.get(&format!("/percentile?name=latency&percentile={percentile}"));
        assert_eq!(answer.status, 400, "{percentile}");
        assert_eq!(answer.json()["error"], "invalid parameter: percentile");
    }
}

#[test]
fn health_has_exactly_two_keys() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/health").told(), (200, r#"{"status":"healthy","queue_size":0}"#));
    server.accept(r#"{"name":"a","value":1}"#);
    // A sample is in the store by the time a query has been answered.
    server.get("/query?name=a");
    assert_eq!(server.get("/health").told(), (200, r#"{"status":"healthy","queue_size":0}"#));
    assert_eq!(server.get("/-/healthy").status, 200);
    assert_eq!(server.get("/-/ready").status, 200);
}

#[test]
fn refusals_have_the_status_and_body_of_the_table() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "query.memory_bytes_max=1MiB"]);
    let mut client = server.client();
    for (method, target, body, status, error) in [
        ("POST", "/metrics", "not json", 400, "invalid JSON format"),
        ("GET", "/query?name=a&start=soon", "", 400, "invalid parameter: start"),
        ("GET", "/query?name=a&end=1.5", "", 400, "invalid parameter: end"),
        ("GET", "/query?name=a&min_value=inf", "", 400, "invalid parameter: min_value"),
        ("GET", "/query?name=a&limit=-1", "", 400, "invalid parameter: limit"),
        ("GET", "/query?name=a&match=host", "", 400, "invalid parameter: match"),
        ("GET", "/query?name=%zz", "", 400, "invalid parameter: name"),
        ("GET", "/query", "", 400, "missing parameter: name"),
        ("GET", "/percentile?percentile=5", "", 400, "missing parameter: name"),
        ("GET", "/nowhere", "", 404, "route not found"),
        ("POST", "/metrics/", "{}", 404, "route not found"),
        ("DELETE", "/metrics", "", 405, "method not allowed"),
        ("POST", "/health", "{}", 405, "method not allowed"),
        ("PUT", "/percentile", "", 405, "method not allowed"),
        ("BREW", "/query", "", 405, "method not allowed"),
    ] {
        let answer = client.try_request(method, target, "", body).unwrap();
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["error"], error, "{method} {target}");
    }
    assert_eq!(client.get("/nowhere").body, r#"{"error":"route not found"}"#);
    assert_eq!(client.get("/query").body, r#"{"error":"missing parameter: name"}"#);
    // Where Prometheus' clients ask, they are answered in its shape, whatever is wrong.
    for (method, target, status, kind, error) in [
        ("GET", "/api/v1/nowhere", 404, "not_found", "route not found"),
        ("DELETE", "/api/v1/status/tsdb", 405, "bad_data", "method not allowed"),
        ("GET", "/api/v1/admin/tsdb/snapshot", 405, "bad_data", "method not allowed"),
        ("GET", "/api/v1/status/storage?a=%zz", 400, "bad_data", "invalid parameter: a"),
        ("GET", "/api/v1/status/tsdb?limit=no", 400, "bad_data", "invalid parameter: limit"),
        ("POST", "/api/v1/admin/tsdb/snapshot", 503, "unavailable", "admin APIs disabled"),
    ] {
        let answer = client.try_request(method, target, "", "").unwrap();
        let told = answer.json();
        assert_eq!((answer.status, &told["status"]), (status, &"error".into()), "{target}");
        assert_eq!((&told["errorType"], &told["error"]), (&kind.into(), &error.into()), "{target}");
    }
    let wrong_method = client.try_request("DELETE", "/metrics", "", "").unwrap();
    assert_eq!(wrong_method.body, r#"{"error":"method not allowed"}"#);
    assert_eq!(wrong_method.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    let wrong_method = client.post("/query?name=a", "{}");
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("GET, HEAD, OPTIONS")));

    // Rows that do not fit into a query's memory: the price is named, and it is not a partial answer.
    let row = r#"{"name":"many","value":1.25}"#;
    let batch = format!("[{}]", vec![row; 30_000].join(","));
    server.accept(&batch);
    server.accept(&batch);
    let answer = client.get("/query?name=many");
    assert_eq!(answer.status, 422, "{:.200}", answer.body);
    assert_eq!(answer.json()["error"], "query needs too much memory");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("query.memory_bytes_max is 1048576:"), "the whole bound is named: {detail}");
    let held = |page: Answer| page.body.contains("\nringwatch_query_memory_bytes 0\n");
    assert!(held(client.get("/metrics")), "a refused query holds nothing");
    assert_eq!(values(&client.get("/query?name=many&limit=3")), [1.25; 3]);
    assert!(held(client.get("/metrics")), "an answered query holds nothing");
}

#[test]
fn head_works_wherever_get_does_and_options_names_the_methods() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.accept(r#"{"name":"a","value":1,"labels":{"host":"web1"}}"#);
    let mut client = server.client();
    for target in ["/query?name=a", "/percentile?name=a", "/alerts", "/health", "/-/healthy", "/-/ready", "/"]
    {
        let asked = client.get(target);
        let head = client.try_request("HEAD", target, "", "").unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{target}");
        assert_eq!(head.header("content-length"), asked.header("content-length"), "{target}");
        assert_eq!(head.header("content-type"), asked.header("content-type"), "{target}");
        for answer in [&asked, &head] {
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{target}");
        }
        let options = client.try_request("OPTIONS", target, "", "").unwrap();
        assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
    }
    assert_eq!(client.try_request("HEAD", "/metrics", "", "").unwrap().status, 200);
    let refused = client.try_request("HEAD", "/nowhere", "", "").unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (404, ""));
    let options = client.try_request("OPTIONS", "/metrics", "", "").unwrap();
    assert_eq!(options.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(client.try_request("OPTIONS", "*", "", "").unwrap().status, 204);
}

/// Regular expressions match whole values; one that cannot be compiled is the client's to mend, on any shard.
#[test]
fn labels_are_picked_by_regular_expressions() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let mut client = server.client();
    for (value, host) in [(1, "web1"), (2, "web2"), (3, "web22"), (4, "db1")] {
        let body = format!(r#"{{"name":"a","value":{value},"labels":{{"host":"{host}"}}}}"#);
        assert_eq!(client.post("/metrics", &body).told(), ACCEPTED);
    }
    server.accept(r#"{"name":"a","value":5}"#);
    let encoded = |list: &str| -> String { list.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    for (list, expected) in [
        (r#"{host=~"web[0-9]"}"#, &[1.0, 2.0][..]),
        (r#"{host=~"web.*|db1"}"#, &[1.0, 2.0, 3.0, 4.0]),
        (r#"{host!~"web.*"}"#, &[4.0, 5.0]),
        (r#"{host=~""}"#, &[5.0]),
        (r#"{host=~"web.+",host!="web2"}"#, &[1.0, 3.0]),
        (r#"{host=~"eb"}"#, &[]),
    ] {
        let answer = client.get(&format!("/query?name=a&match={}", encoded(list)));
        assert_eq!(values(&answer), expected, "{list}");
    }
    for (list, detail) in [
        (r#"{host=~"("}"#, "expected a regular expression (unclosed group) at offset 7"),
        (
            r#"{host=~"(a{999}){999}"}"#,
            "expected a regular expression (it needs more than 262144 bytes once compiled) at offset 7",
        ),
    ] {
        let answer = client.get(&format!("/percentile?name=a&match={}", encoded(list)));
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid parameter: match")));
        assert_eq!(answer.json()["detail"], detail);
    }
}

/// Pages of any origin may read, and learn why a read is refused; a write says nothing to them.
#[test]
fn every_read_is_for_any_origin_also_when_it_is_refused() {
    const ORIGIN: &str = "access-control-allow-origin";
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "query.memory_bytes_max=1MiB"]);
    let mut client = server.client();
    let batch = format!("[{}]", vec![r#"{"name":"many","value":1.25}"#; 30_000].join(","));
    server.accept(&batch);
    server.accept(&batch);
    for (target, status) in [
        ("/query?name=a", 200),
        ("/metrics", 200),
        ("/query", 400),
        ("/query?name=a&start=x", 400),
        ("/query?name=%zz", 400),
        ("/percentile?name=a&percentile=101", 400),
        ("/query?name=many", 422),
        ("/nowhere", 404),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = client.try_request(method, target, "", "").unwrap();
            assert_eq!((answer.status, answer.header(ORIGIN)), (status, Some("*")), "{method} {target}");
        }
    }
    for (method, target, body) in [
        ("POST", "/metrics", r#"{"name":"a","value":1}"#),
        ("POST", "/metrics", "no"),
        ("POST", "/query", ""),
        ("DELETE", "/query", ""),
        ("OPTIONS", "/metrics", ""),
    ] {
        let answer = client.try_request(method, target, "", body).unwrap();
        assert_eq!(answer.header(ORIGIN), None, "{method} {target}");
    }
    // What a browser asks before a read with headers of its own.
    let asked =
        "Origin: null\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-a\r\n";
    let leave = client.try_request("OPTIONS", "/query", asked, "").unwrap();
    assert_eq!((leave.status, leave.header(ORIGIN)), (204, Some("*")));
    assert_eq!(leave.header("access-control-allow-methods"), Some("GET, HEAD"));
    assert_eq!(leave.header("access-control-allow-headers"), Some("*"));
}

/// Method: every level as the server's default, and every level asked for by one request of each server.
#[test]
fn every_acceptance_names_the_level_it_reached() {
    for default in ["memory", "written", "synced"] {
        let dir = tempdir().unwrap();
        let level = format!("ingest.durability={default}");
        let server = Server::start(dir.path(), &["--set", &level]);
        let mut client = server.client();
        let body = r#"{"name":"a","value":1}"#;
        let batch = r#"[{"name":"a","value":1}]"#;
        assert_eq!(client.post("/metrics", body).header("durability"), Some(default));
        for asked in ["memory", "written", "synced", "SYNCED"] {
            let header = format!("Durability: {asked}\r\n");
            for body in [body, batch] {
                let answer = client.try_request("POST", "/metrics", &header, body).unwrap();
                assert_eq!(answer.status, 202);
                assert_eq!(answer.header("durability"), Some(asked.to_lowercase().as_str()));
            }
        }
        let answer = client.try_request("POST", "/metrics", "durability: certain\r\n", body).unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"], "invalid header: Durability");
        assert_eq!(client.get("/percentile?name=a").body, r#"{"p50":1,"count":9}"#);
    }
}

#[test]
fn samples_of_one_burst_all_count() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let metrics = vec![r#"{"name":"burst","value":1}"#; 500];
    server.accept(&format!(r#"{{"metrics":[{}]}}"#, metrics.join(",")));
    assert_eq!(server.get("/percentile?name=burst").body, r#"{"p50":1,"count":500}"#);
    // As single requests, too: 500 of them in one write.
    let body = r#"{"name":"burst","value":2}"#;
    let request =
        format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut client = server.client();
    client.send(request.repeat(500)).unwrap();
    for _ in 0..500 {
        assert_eq!(client.answer().told(), ACCEPTED);
    }
    let rows = values(&server.get("/query?name=burst"));
    assert_eq!(rows, [vec![1.0; 500], vec![2.0; 500]].concat());
}

#[test]
fn a_sample_with_a_timestamp_is_stored_once_and_replaced_by_another_value() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = now_ms();
    let batch = |value: u32| {
        format!(
            r#"[{{"name":"once","value":{value},"timestamp":{now}}},{{"name":"once","value":9,"timestamp":{}}}]"#,
            now + 1
        )
    };
    for _ in 0..3 {
        server.accept(&batch(7));
    }
    let row = |value, at: i64| format!(r#"{{"name":"once","value":{value},"timestamp":{at}}}"#);
    let rows = |value: u32| format!("[{},{}]", row(value, now), row(9, now + 1));
    assert_eq!(server.get("/query?name=once").body, rows(7));
    server.accept(&batch(8));
    assert_eq!(server.get("/query?name=once").body, rows(8), "another value replaces it");
    // Another label set at that time is another series.
    server.accept(&format!(r#"{{"name":"once","value":1,"timestamp":{now},"labels":{{"a":"b"}}}}"#));
    assert_eq!(server.get("/percentile?name=once").body, r#"{"p50":8,"count":3}"#);
}

#[test]
fn times_outside_the_retention_are_refused_with_the_bound_and_the_unit() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "storage.retention=1h"]);
    let post = |timestamp: i64| {
        let body = format!(r#"{{"name":"a","value":1,"timestamp":{timestamp}}}"#);
        crate::client::post(server.address, &body)
    };
    let now = now_ms();
    assert_eq!(post(now - 3_500_000).told(), ACCEPTED);
    assert_eq!(post(now + 500_000).told(), ACCEPTED);
    for (timestamp, begins, ends) in [
        (
            now / 1_000,
            format!(
                "invalid metric: timestamp {} is older than the retention (oldest accepted: ",
                now / 1_000
            ),
            "); it looks like seconds, milliseconds are expected",
        ),
        (
            now - 3_700_000,
            format!(
                "invalid metric: timestamp {} is older than the retention (oldest accepted: ",
                now - 3_700_000
            ),
            ")",
        ),
        (
            now + 700_000,
            format!(
                "invalid metric: timestamp {} is too far in the future (newest accepted: ",
                now + 700_000
            ),
            ")",
        ),
    ] {
        let answer = post(timestamp);
        assert_eq!(answer.status, 400, "{timestamp}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(&begins) && error.ends_with(ends), "{error}");
        let bound: i64 = error[begins.len()..].split(')').next().unwrap().parse().unwrap();
        let distance = (bound - now).abs();
        assert!([3_600_000, 600_000].iter().any(|at| (at - distance).abs() < 60_000), "{error}");
    }
    // A batch with such a member stores nothing.
    let body = format!(r#"[{{"name":"b","value":1}},{{"name":"b","value":1,"timestamp":{}}}]"#, now / 1_000);
    let answer = crate::client::post(server.address, &body);
    assert_eq!((answer.status, answer.json()["index"].as_u64()), (400, Some(1)));
    assert_eq!(server.get("/query?name=b").body, "[]");
}

#[test]
fn without_a_retention_seconds_are_1970_and_accepted() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &KEEPS_EVERYTHING);
    server.accept(r#"{"name":"a","value":1,"timestamp":1696789234}"#);
    server.accept(r#"{"name":"a","value":2,"timestamp":0}"#);
    assert_eq!(
        server.get("/query?name=a").body,
        r#"[{"name":"a","value":2,"timestamp":0},{"name":"a","value":1,"timestamp":1696789234}]"#
    );
}

#[test]
fn numbers_are_printed_shortest_and_exact() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &KEEPS_EVERYTHING);
    let numbers = [
        "85",
        "125.5",
        "0.1",
        "1234567.890123",
        "-0",
        "5e-324",
        "1.7976931348623157e308",
        "123456789012345680",
    ];
    for (at, number) in numbers.iter().enumerate() {
        server.accept(&format!(r#"{{"name":"n","value":{number},"timestamp":{at}}}"#));
    }
    let body = server.get("/query?name=n").body;
    let mut texts = BTreeSet::new();
    for (row, number) in body.split("},{").zip(numbers) {
        let text = row.split("\"value\":").nth(1).unwrap().split(',').next().unwrap();
        assert_eq!(
            text.parse::<f64>().unwrap().to_bits(),
            number.parse::<f64>().unwrap().to_bits(),
            "{text}"
        );
        texts.insert(text.to_owned());
    }
    for shown in ["85", "125.5", "0.1", "1234567.890123"] {
        assert!(texts.contains(shown), "{texts:?}");
    }
}

#[test]
fn a_write_is_seen_by_every_query_that_starts_after_its_answer() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2", "--set", "ingest.durability=memory"]);
    // Several connections, so that both loops take writes and questions.
    let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
    for round in 1..=120 {
        let writer = round % clients.len();
        let body = format!(r#"{{"name":"seen","value":{round},"labels":{{"h":"{}"}}}}"#, round % 5);
        assert_eq!(clients[writer].post("/metrics", &body).told(), ACCEPTED);
        let reader = (round * 7 + 1) % clients.len();
        let answer = clients[reader].get("/percentile?name=seen&percentile=100");
        assert_eq!(answer.body, format!(r#"{{"p100":{round},"count":{round}}}"#));
    }
}
