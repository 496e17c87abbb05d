//! Compressed bodies: each coding in each size class, bombs, cuts, and codings that are not taken.

use crate::client::{Answer, Client};
use crate::server::Server;
use http::Method;
use std::io::Write as _;
use tempfile::tempdir;

const BODY: &str = r#"{"name":"a","value":1}"#;
const KEPT: (u16, &str) = (202, r#"{"status":"accepted"}"#);

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn snappy_framed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(plain).unwrap();
    encoder.into_inner().unwrap()
}

/// Every form, with the name that a client gives it.
fn forms(plain: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("gzip", gzip(plain)),
        ("GZIP", gzip(plain)),
        ("zstd", zstd::stream::encode_all(plain, 3).unwrap()),
        ("snappy", snap::raw::Encoder::new().compress_vec(plain).unwrap()),
        ("snappy", snappy_framed(plain)),
        ("identity", plain.to_vec()),
    ]
}

fn request(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn post(client: &mut Client, coding: &str, body: &[u8]) -> Answer {
    client.send(request(coding, body)).unwrap();
    client.answer_to(Method::Post).unwrap()
}

fn count(server: &Server, name: &str) -> u64 {
    server.get(&format!("/percentile?name={name}")).json()["count"].as_u64().unwrap()
}

#[test]
fn a_body_is_taken_in_every_coding_whole_chunked_and_pipelined() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    let mut sent = 0;
    for (coding, body) in forms(BODY.as_bytes()) {
        let answer = post(&mut client, coding, &body);
        assert_eq!((answer.told(), answer.header("durability")), (KEPT, Some("synced")), "{coding}");
        let mut chunked = format!(
            "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for piece in body.chunks(7) {
            write!(chunked, "{:x}\r\n", piece.len()).unwrap();
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        client.send(chunked).unwrap();
        assert_eq!(client.answer().told(), KEPT, "{coding}, chunked");
        client.send([request(coding, &body), request(coding, &body)].concat()).unwrap();
        assert_eq!([client.answer().status, client.answer().status], [202, 202], "{coding}, pipelined");
        sent += 4;
    }
    assert_eq!(count(&server, "a"), sent);
}

/// Method: 30,000 members are nearly a mebibyte plain, and small compressed: the executor unpacks them. The
/// answers still come in order, and every member is kept.
#[test]
fn a_large_compressed_batch_is_kept_whole_and_answered_in_order() {
    const MEMBERS: usize = 30_000;
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let members: Vec<String> = (0..MEMBERS).map(|i| format!(r#"{{"name":"large","value":{i}}}"#)).collect();
    let batch = format!("[{}]", members.join(","));
    let mut client = server.client();
    let mut sent = 0;
    for (coding, body) in forms(batch.as_bytes()) {
        let query = b"GET /percentile?name=large HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        client.send([request(coding, &body), query].concat()).unwrap();
        let expected = format!(r#"{{"status":"accepted","count":{MEMBERS}}}"#);
        assert_eq!(client.answer().told(), (202, expected.as_str()), "{coding}");
        sent += MEMBERS as u64;
        assert_eq!(client.answer().json()["count"], sent, "{coding}");
    }
}

/// Method: blanks that unpack to one byte more than the bound, and to far more; a bound that lies below what a turn
/// may decode, and one above.
#[test]
fn a_bomb_is_413_and_the_connection_goes_on() {
    for (bound, setting) in [(64 << 10, "http.body_bytes_max=64KiB"), (1 << 20, "http.body_bytes_max=1MiB")] {
        let dir = tempdir().unwrap();
        let server = Server::start(dir.path(), &["--set", setting]);
        let mut client = server.client();
        for plain_bytes in [bound + 1, 3 * bound] {
            let plain = " ".repeat(plain_bytes);
            // Without the plain form: it is refused by its length.
            for (coding, body) in forms(plain.as_bytes()).into_iter().filter(|(_, body)| body.len() < bound) {
                let answer = post(&mut client, coding, &body);
                assert_eq!(answer.status, 413, "{coding}: {}", answer.body);
                let detail = format!("the body is larger than {bound} bytes once decompressed; split it");
                assert_eq!(answer.json()["detail"], detail.as_str());
                assert_eq!(post(&mut client, "gzip", &gzip(BODY.as_bytes())).told(), KEPT);
            }
        }
        let largest = format!("{}{BODY}", " ".repeat(bound - BODY.len()));
        for (coding, body) in forms(largest.as_bytes()) {
            assert_eq!(post(&mut client, coding, &body).told(), KEPT, "{coding}, {bound}");
        }
    }
}

#[test]
fn a_cut_or_damaged_body_is_400_with_the_cause_and_stores_nothing() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for (coding, body) in forms(BODY.as_bytes()).into_iter().filter(|(coding, _)| *coding != "identity") {
        for body in [&body[..body.len() - 1], b"", BODY.as_bytes()] {
            let answer = post(&mut client, coding, body);
            assert_eq!(answer.status, 400, "{coding}: {}", answer.body);
            assert_eq!(answer.json()["error"], "invalid compressed body");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(&coding.to_ascii_lowercase()), "{detail}");
        }
    }
    // Plain, but not JSON: the reader of JSON says so, as of any body.
    let answer = post(&mut client, "gzip", &gzip(b"{\"name\":"));
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("invalid JSON format")));
    // Compressed, and nothing says so.
    let answer = post(&mut client, "identity", &gzip(BODY.as_bytes()));
    let expected = concat!(
        r#"{"error":"invalid JSON format","#,
        r#""detail":"the body looks like gzip: send it with Content-Encoding: gzip"}"#
    );
    assert_eq!(answer.told(), (400, expected));
    assert_eq!(count(&server, "a"), 0);
}

#[test]
fn a_coding_that_is_not_taken_is_415_and_names_those_that_are() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.client();
    for coding in ["br", "deflate", "gzip, zstd", "gzip\r\nContent-Encoding: gzip"] {
        let answer = post(&mut client, coding, BODY.as_bytes());
        let expected = concat!(
            r#"{"error":"unsupported content encoding","#,
            r#""detail":"expected one of gzip, zstd, snappy, or none"}"#
        );
        assert_eq!(answer.told(), (415, expected), "{coding}");
        assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd, snappy"));
    }
    assert_eq!(client.get("/query?name=a").body, "[]");
}
