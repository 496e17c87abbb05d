//! Bad input (issue 3's list): each costs its request, tells what is wrong, and leaves nothing behind.

use crate::server::Server;
use tempfile::tempdir;

/// Posts each body, compares the whole error body, and sees that neither the connection nor the store noticed.
fn refused(server: &Server, cases: &[(&str, &str)]) {
    let mut client = server.client();
    for (body, error) in cases {
        let answer = client.post("/metrics", body);
        let shown: String = body.chars().take(200).collect();
        assert_eq!(answer.told(), (400, *error), "{shown}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(client.get("/query?name=a").told(), (200, "[]"), "nothing is stored");
    assert_eq!(client.post("/metrics", r#"{"name":"good","value":1}"#).status, 202);
}

#[test]
fn wrong_json_is_refused_with_the_place_and_the_expected_thing() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for (body, offset) in [
        ("", 0),
        ("no", 0),
        ("{", 1),
        (r#"{"name":"a","value":}"#, 20),
        (r#"{"name":"a" "value":1}"#, 12),
        (r#"{"name":"a","value":1"#, 21),
        (r#"{"name":"a","value":01}"#, 20),
        (r#"{"name":"a","value":1}}"#, 22),
        (r#"[{"name":"a","value":1},]"#, 24),
        (r#"{"name":"\x","value":1}"#, 10),
        (r#"{'name':'a','value':1}"#, 1),
    ] {
        let answer = client.post("/metrics", body);
        assert_eq!(answer.status, 400, "{body}");
        let json = answer.json();
        assert_eq!(json["error"], "invalid JSON format", "{body}");
        assert_eq!(json["offset"], offset, "{body}: {json}");
        assert!(json["detail"].as_str().is_some_and(|detail| detail.starts_with("expected ")), "{json}");
    }
    assert_eq!(
        client.post("/metrics", r#"{"name":"a","value":}"#).body,
        r#"{"error":"invalid JSON format","detail":"expected a value at offset 20","offset":20}"#
    );
    // A body that is no text at all.
    client.send(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\xff\xfe\x00\x80").unwrap();
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid JSON format")));
    let deep = "[".repeat(100_000);
    assert_eq!(client.post("/metrics", &deep).status, 400);
}

#[test]
fn missing_keys_and_wrong_types_are_named() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    refused(
        &server,
        &[
            (r#"{"name":"a"}"#, r#"{"error":"invalid JSON format","detail":"value is missing"}"#),
            (r#"{"value":1}"#, r#"{"error":"invalid JSON format","detail":"name is missing"}"#),
            (r#"{"metrics":[]}"#, r#"{"error":"Batch cannot be empty"}"#),
            ("[]", r#"{"error":"Batch cannot be empty"}"#),
            (r#"{"name":5,"value":1}"#, r#"{"error":"invalid metric: name must be text"}"#),
            (
                r#"{"name":"a","value":1,"type":"meter"}"#,
                r#"{"error":"invalid metric: type must be gauge, counter, histogram or summary"}"#,
            ),
            (
                r#"{"name":"a","value":1,"tags":["x"]}"#,
                r#"{"error":"invalid metric: tags must be an object of text to text"}"#,
            ),
            (
                r#"{"name":"a","value":1,"labels":{"host":5}}"#,
                r#"{"error":"invalid metric: value of label \"host\" must be text"}"#,
            ),
            (
                r#"{"name":"a","value":1,"timestamp":1.5}"#,
                r#"{"error":"invalid metric: timestamp must be whole milliseconds"}"#,
            ),
            (
                r#"{"name":"a","value":1,"timestamp":"yesterday"}"#,
                r#"{"error":"invalid metric: timestamp text must be RFC 3339, as in 2025-09-17T13:45:23.123Z"}"#,
            ),
            (
                r#"{"name":"a","value":1,"client_id":7}"#,
                r#"{"error":"invalid JSON format","detail":"client_id must be text"}"#,
            ),
        ],
    );
}

#[test]
fn values_that_are_no_finite_numbers_are_refused() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    const NOT_FINITE: &str = r#"{"error":"invalid metric: value must be a finite number","detail":"the number is beyond the largest double"}"#;
    const TEXT: &str = r#"{"error":"invalid metric: value must be a finite number","detail":"text may only be \"UP\" or \"DOWN\""}"#;
    const OTHER: &str = r#"{"error":"invalid metric: value must be a finite number","detail":"a number, true, false, \"UP\" or \"DOWN\" is a value"}"#;
    refused(
        &server,
        &[
            (r#"{"name":"a","value":1e999}"#, NOT_FINITE),
            (r#"{"name":"a","value":-1e999}"#, NOT_FINITE),
            (r#"{"name":"a","value":"NaN"}"#, TEXT),
            (r#"{"name":"a","value":"Infinity"}"#, TEXT),
            (r#"{"name":"a","value":"85"}"#, TEXT),
            (r#"{"name":"a","value":"up"}"#, TEXT),
            (r#"{"name":"a","value":null}"#, OTHER),
            (r#"{"name":"a","value":[1]}"#, OTHER),
        ],
    );
    // As bare words they are not even JSON.
    let mut client = server.client();
    for word in ["NaN", "Infinity", "-Infinity", "nan", "inf"] {
        let answer = client.post("/metrics", &format!(r#"{{"name":"a","value":{word}}}"#));
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid JSON format")));
    }
}

#[test]
fn names_and_labels_out_of_bounds_are_refused_and_any_other_text_is_taken() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let metric = |name: &str, labels: &str| format!(r#"{{"name":"{name}","value":1,"labels":{{{labels}}}}}"#);
    let long = "n".repeat(256);
    let many: Vec<String> = (0..65).map(|i| format!(r#""l{i}":"x""#)).collect();
    let cases = [
        (metric("", ""), r#"{"error":"Metric name cannot be empty"}"#),
        (metric(&long, ""), r#"{"error":"Metric name too long (max 255 characters)"}"#),
        (metric("a\\u0000b", ""), r#"{"error":"Metric name contains a control character"}"#),
        (metric("a\\nb", ""), r#"{"error":"Metric name contains a control character"}"#),
        (metric("a", r#""":"x""#), r#"{"error":"Label name cannot be empty"}"#),
        (metric("a", &format!(r#""{long}":"x""#)), r#"{"error":"Label name too long (max 255 characters)"}"#),
        (metric("a", r#""l\u0001":"x""#), r#"{"error":"Label name contains a control character"}"#),
        (
            metric("a", &format!(r#""l":"{}""#, "v".repeat(4097))),
            r#"{"error":"Value of label \"l\" too long (max 4096 bytes)"}"#,
        ),
        (metric("a", r#""l":"x\u0007""#), r#"{"error":"Value of label \"l\" contains a control character"}"#),
        (metric("a", &many.join(",")), r#"{"error":"Too many labels (max 64)"}"#),
        (metric("a", r#""l":"x","l":"y""#), r#"{"error":"Label \"l\" is given twice"}"#),
        (
            r#"{"name":"a","value":1,"tags":{"l":"x"},"labels":{"l":"y"}}"#.into(),
            r#"{"error":"Label \"l\" is given twice"}"#,
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(body, error)| (body.as_str(), *error)).collect();
    refused(&server, &cases);

    let name = "n".repeat(255);
    let labels: Vec<String> = (0..64).map(|i| format!(r#""l{i}":"{}""#, "v".repeat(100))).collect();
    server.accept(&metric(&name, &labels.join(",")));
    server.accept(&metric("a", &format!(r#""l":"{}""#, "v".repeat(4096))));
    let mut client = server.client();
    assert_eq!(client.get(&format!("/percentile?name={name}")).body, r#"{"p50":1,"count":1}"#);
    for (name, escaped) in [("温度 °C", "%E6%B8%A9%E5%BA%A6%20%C2%B0C"), ("<img src=x>", "%3Cimg+src=x%3E")]
    {
        server.accept(&metric(name, r#""größe":"ü \"q\" \\ {}""#));
        let rows = client.get(&format!("/query?name={escaped}")).json();
        assert_eq!(rows[0]["name"], name);
        assert_eq!(rows[0]["labels"]["größe"], "ü \"q\" \\ {}");
    }
}

#[test]
fn a_batch_with_one_bad_member_stores_nothing_and_names_its_place() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let good = r#"{"name":"a","value":1}"#;
    refused(
        &server,
        &[
            (
                &format!(r#"{{"metrics":[{good},{good},{{"name":"a","value":1e999}}]}}"#),
                r#"{"error":"invalid metric: value must be a finite number","detail":"the number is beyond the largest double","index":2}"#,
            ),
            (
                &format!(r#"[{good},{{"name":"","value":1}}]"#),
                r#"{"error":"Metric name cannot be empty","index":1}"#,
            ),
            (
                &format!(r#"[{good},{{"name":"a"}}]"#),
                r#"{"error":"invalid metric: value is missing","index":1}"#,
            ),
            (&format!("[{good},5]"), r#"{"error":"invalid metric: a metric must be an object","index":1}"#),
            (
                &format!("{good}\n{good}\n{{\"name\":\"a\",\"value\":null}}\n"),
                r#"{"error":"invalid metric: value must be a finite number","detail":"a number, true, false, \"UP\" or \"DOWN\" is a value","index":2}"#,
            ),
        ],
    );
}

#[test]
fn timestamps_in_other_units_are_refused_with_the_unit() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = crate::server::now_ms();
    for (timestamp, unit) in
        [(now / 1_000, "seconds"), (now * 1_000, "microseconds"), (now * 1_000_000, "nanoseconds")]
    {
        let body = format!(r#"{{"name":"a","value":1,"timestamp":{timestamp}}}"#);
        let answer = crate::client::post(server.address, &body);
        assert_eq!(answer.status, 400);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(&format!("looks like {unit}, milliseconds are expected")), "{error}");
    }
}
