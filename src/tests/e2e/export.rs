//! What is exported is taken back to the last bit, whole or not at all.

use crate::client::Client;
use crate::server::{Server, bare_command, now_ms};
use http::Method;
use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use tempfile::tempdir;

const FORMATS: [&str; 4] = ["json", "iso", "csv", "openmetrics"];

fn export(server: &Server, parameters: &str) -> String {
    let answer = server.get(&format!("/export?{parameters}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn import(server: &Server, parameters: &str, body: &str) -> (u16, String) {
    let answer = server.client().post(&format!("/import?{parameters}"), body);
    (answer.status, answer.body)
}

/// SPEC §4, byte for byte.
#[test]
fn lines_are_as_the_specification_shows_them() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "storage.retention=0", "--set", "shards=1"]);
    server.accept(r#"{"name":"cpu_usage","value":85,"timestamp":1696789234567}"#);
    let line = "{\"name\":\"cpu_usage\",\"value\":85,\"timestamp\":1696789234567}\n";
    assert_eq!(export(&server, "match[]=cpu_usage"), line);
    assert_eq!(export(&server, ""), line);
    assert_eq!(export(&server, "start=1696789234568"), "");
    assert_eq!(export(&server, "match[]=other"), "");
    assert_eq!(
        export(&server, "format=iso"),
        "{\"timestamp\":\"2023-10-08T18:20:34.567Z\",\"name\":\"cpu_usage\",\"value\":85}\n"
    );
    assert_eq!(
        export(&server, "format=csv"),
        "name,timestamp,value,nth,type,labels\ncpu_usage,1696789234567,85,,,\n"
    );
    assert_eq!(export(&server, "format=openmetrics"), "cpu_usage 85 1696789234.567\n# EOF\n");
    let head = server.client().try_request("HEAD", "/export", "", "").unwrap();
    assert_eq!(head.header("content-length"), Some(line.len().to_string().as_str()));
    for (target, status) in [("/export?format=xml", 400), ("/export?match[]=%7Bx=~%22(%22%7D", 400)] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
}

/// Samples in memory and in segments of two shards: so many that the answer goes out in pieces.
#[test]
fn what_was_exported_is_exported_again_by_who_took_it_back() {
    let dir = tempdir().unwrap();
    let settings = ["--set", "shards=2", "--enable-admin"];
    let server = Server::start(dir.path(), &settings);
    let first_ms = now_ms() - 3_600_000;
    let line = |i: i64| {
        let (at, n) = (first_ms + i / 60 * 700, i % 60);
        let value = match i % 9 {
            0 => "\"NaN:7ff0000000000002\"".to_owned(),
            1 => "\"NaN\"".to_owned(),
            2 => "-0".to_owned(),
            3 => "\"-Inf\"".to_owned(),
            4 => "5e-324".to_owned(),
            _ => format!("{}", (i * 7_919 % 9_973) as f64 / 7.0),
        };
        let kind = if n % 7 == 0 { ",\"type\":\"counter\"" } else { "" };
        format!(
            r#"{{"name":"m.{}","value":{value},"timestamp":{at},"labels":{{"n":"{n}","text":"a,\"b\\"}}{kind}}}"#,
            n % 3
        )
    };
    let mut expected = 0;
    for body in (0..30_000).map(line).collect::<Vec<_>>().chunks(5_000) {
        let (status, told) = import(&server, "", &body.join("\n"));
        assert_eq!((status, told.as_str()), (202, "{\"status\":\"accepted\",\"count\":5000}"));
        expected += body.len();
        // A delete is a flush, too.
        let client = &mut server.client();
        let flushed = client.try_request("POST", "/api/v1/admin/tsdb/delete_series?match[]=none", "", "");
        assert_eq!(flushed.unwrap().status, 204);
    }
    // Without a time: several in one millisecond.
    let many = vec![r#"{"name":"many","value":1}"#; 500].join("\n");
    assert_eq!(import(&server, "", &many).0, 202);
    expected += 500;

    for format in FORMATS {
        let answer = server.get(&format!("/export?format={format}"));
        let text = answer.body.clone();
        // What comes to no more than a page of each shard has its length.
        let is_chunked = answer.header("transfer-encoding") == Some("chunked");
        assert!(is_chunked || text.len() < 2 << 20, "{}", answer.head);
        assert!(is_chunked || format != "json", "{}", answer.head);
        let samples = text.lines().filter(|line| !line.starts_with("name,") && *line != "# EOF").count();
        // OpenMetrics has no word for the end of a series.
        let stale = if format == "openmetrics" { 30_000_usize.div_ceil(9) } else { 0 };
        assert_eq!(samples, expected - stale, "{format}");

        let copy_dir = tempdir().unwrap();
        let copy = Server::start(copy_dir.path(), &settings);
        let (head, rest) = if format == "csv" { text.split_once('\n').unwrap() } else { ("", &*text) };
        for lines in rest.lines().collect::<Vec<_>>().chunks(5_000) {
            let (status, told) =
                import(&copy, &format!("format={format}"), &format!("{head}\n{}", lines.join("\n")));
            assert_eq!(status, 202, "{told}");
        }
        assert!(export(&copy, &format!("format={format}")) == text, "{format}");
    }

    // A client of HTTP/1.0 could not tell a broken-off answer from a whole one; who wants the head alone gets no more.
    let old = |parameters: &str| {
        let mut old = Client::connect(server.address);
        old.send(format!("GET /export?{parameters} HTTP/1.0\r\n\r\n")).unwrap();
        String::from_utf8(old.rest()).unwrap()
    };
    let refused = old("");
    assert!(refused.starts_with("HTTP/1.1 505 ") && refused.contains("HTTP/1.1, or"), "{refused}");
    let few = export(&server, "match[]=many");
    let taken = old("match[]=many");
    assert!(taken.contains("Content-Length: ") && taken.ends_with(&few) && few.lines().count() == 500);
    let mut client = server.client();
    client.send("HEAD /export HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.answer_to(Method::Head).unwrap().header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.get("/health").status, 200);
}

/// Labels so long that a piece of a store is many megabytes of text, and three samples in each millisecond.
#[test]
fn a_page_ends_inside_a_long_piece_and_nothing_is_lost_there() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=1"]);
    let first_ms = now_ms() - 3_600_000;
    let labels: Vec<String> = (10..40).map(|n| format!("\"l{n}\":\"{}\"", "x".repeat(1_000))).collect();
    let line = |i: i64| {
        let (at, nth) = (first_ms + i / 3, i % 3);
        let nth = if nth > 0 { format!(",\"nth\":{nth}") } else { String::new() };
        format!(r#"{{"name":"m","value":{i},"timestamp":{at},"labels":{{{}}}{nth}}}"#, labels.join(","))
    };
    let text: String = (0..100).map(|i| line(i) + "\n").collect();
    let line_bytes = line(1).len() + 1;
    for lines in text.split_inclusive('\n').collect::<Vec<_>>().chunks(10) {
        assert_eq!(import(&server, "", &lines.concat()).0, 202);
    }

    let mut client = server.client();
    client.send("GET /export HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let answer = String::from_utf8(client.rest()).unwrap();
    let (_, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    let mut exported = String::new();
    while let Some((size, behind)) = rest.split_once("\r\n").filter(|(size, _)| *size != "0") {
        let size = usize::from_str_radix(size, 16).unwrap();
        assert!(size < (1 << 20) + line_bytes, "a chunk of {size} bytes");
        exported.push_str(&behind[..size]);
        rest = &behind[size + 2..];
    }
    assert!(exported == text, "{} of {} lines", exported.lines().count(), text.lines().count());
}

#[test]
fn a_body_with_a_bad_line_leaves_nothing() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = now_ms();
    for (format, good, bad, told) in [
        (
            "json",
            format!("{{\"name\":\"a\",\"value\":1,\"timestamp\":{now}}}"),
            "{}",
            "line 2: expected the key name",
        ),
        (
            "csv",
            format!("name,timestamp,value\na,{now},1"),
            "a",
            "line 3: expected as many cells as the header has",
        ),
        ("prometheus", format!("a 1 {now}"), "a{ 1", "line 2: expected = behind the name of a label"),
    ] {
        // Small, and so large that an executor decodes it.
        for padding in [0, 400_000] {
            let body = format!("{good}\n{bad}\n{}", "\n".repeat(padding));
            let (status, answer) = import(&server, &format!("format={format}"), &body);
            assert_eq!((status, answer), (400, format!("{{\"error\":\"{told}\"}}")));
        }
    }
    assert_eq!(import(&server, "format=xml", "").0, 400);
    assert_eq!(export(&server, ""), "");
    let expired = now - 20 * 24 * 3_600_000;
    let (status, told) = import(&server, "format=prometheus", &format!("a 1 {expired}"));
    assert!(status == 400 && told.contains("line 1: timestamp"), "{told}");
}

#[test]
fn an_exposition_is_taken_as_prometheus_pushes_it() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let now = now_ms();
    let text =
        format!("# TYPE req counter\nreq_total{{code=\"200\"}} 7 {now}\n{{\"app.cpu\"}} NaN {now}\nup 1\n");
    let answer = server.client().post("/api/v1/import/prometheus", &text);
    assert_eq!(answer.told(), (204, ""));
    assert!(answer.header("durability").is_some());
    let all = export(&server, "");
    assert!(all.contains("\"labels\":{\"code\":\"200\"},\"type\":\"counter\"}"), "{all}");
    assert_eq!(all.lines().count(), 3);
    let refused = server.client().post("/api/v1/import/prometheus", "a{ 1");
    assert_eq!(refused.status, 400);
    assert!(refused.body.starts_with("{\"status\":\"error\",\"errorType\":\"bad_data\""), "{}", refused.body);
}

fn run(arguments: &[&str], file: &Path) -> (bool, String) {
    let output = bare_command().args(arguments).arg(file).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_commands_copy_one_server_to_another() {
    let (dir, other_dir) = (tempdir().unwrap(), tempdir().unwrap());
    let (server, other) = (Server::start(dir.path(), &[]), Server::start(other_dir.path(), &[]));
    let first_ms = now_ms() - 3_600_000;
    let line = |i: i64| format!("m{{n=\"{}\"}} {i} {}", i % 50, first_ms + i);
    let text: Vec<String> = (0..20_000).map(line).collect();
    assert_eq!(import(&server, "format=prometheus", &text.join("\n")).0, 202);
    let (url, other_url) = (format!("http://{}", server.address), format!("http://{}", other.address));
    for format in ["csv", "json", "om"] {
        let name = if format == "om" { "openmetrics" } else { format };
        let file = dir.path().join(format!("copy.{format}"));
        let (done, told) = run(&["export", &url, "--match", "m", "--format", name, "--output"], &file);
        assert!(done && told.contains("exported"), "{told}");
        assert_eq!(fs::read_to_string(&file).unwrap(), export(&server, &format!("format={name}")));
        // Several bodies, each with the header where there is one.
        let (done, told) = run(&["import", "--url", &other_url, "--body-bytes", "100000"], &file);
        assert!(done && told.contains("imported 20000 samples"), "{told}");
        assert!(export(&other, "") == export(&server, ""), "{format}");
    }
    let bad = dir.path().join("bad.csv");
    fs::write(&bad, "name,value\na,1\na,x\n").unwrap();
    let (done, told) = run(&["import", "--url", &other_url], &bad);
    assert!(
        !done && told.contains("lines 2 and on were not taken: 400") && told.contains("line 3:"),
        "{told}"
    );
    let (done, told) = run(&["export", "http://127.0.0.1:1", "--output"], &dir.path().join("none"));
    assert!(!done && told.contains("127.0.0.1:1"), "{told}");
    assert!(!dir.path().join("none").exists());
}

/// Method: a server that takes a body and closes the connection without a word, as one that is killed then.
#[test]
fn lines_without_a_time_are_not_sent_again_after_a_lost_reply() {
    let dir = tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let file = dir.path().join("scrape.prom");
    fs::write(&file, "# TYPE a counter\na 1\n").unwrap();
    let posts = thread::spawn(move || {
        let mut posts = 0;
        'connections: for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut taken, mut bytes) = (Vec::new(), [0; 4096]);
            while !taken.ends_with(b"a 1\n") {
                match stream.read(&mut bytes).unwrap() {
                    0 if posts > 0 => return posts,
                    // The command looks whether there is a server.
                    0 => continue 'connections,
                    read => taken.extend_from_slice(&bytes[..read]),
                }
            }
            posts += 1;
        }
        posts
    });
    let (done, told) = run(&["import", "--url", &url], &file);
    assert!(!done && told.contains("are not sent again"), "{told}");
    // The end of the listener's work: a connection that says nothing.
    drop(TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap());
    assert_eq!(posts.join().unwrap(), 1);
}

/// Method: a file whose last line lost its end.
#[test]
fn a_cut_openmetrics_file_is_not_taken() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = format!("http://{}", server.address);
    let file = dir.path().join("cut.om");
    fs::write(&file, format!("a 1 {}\na 12", now_ms() / 1_000)).unwrap();
    let (done, told) = run(&["import", "--url", &url], &file);
    assert!(!done && told.contains("# EOF"), "{told}");
    assert_eq!(export(&server, ""), "");
}
