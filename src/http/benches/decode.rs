//! Nanoseconds for one typical request through the codec: decode, five look-ups, and the answer.
//!
//! `cargo bench -p http` measures; `cargo test -p http` runs a few rounds, so that this cannot rot. Every round
//! checks what was decoded, so a fast wrong run fails.

use http::{Connection, Decoded, Decoder, Limits, Method, ResponseHead, http_date};
use std::hint::black_box;
use std::time::Instant;

const BODY: &str = r#"{"name":"cpu_usage","value":85.5,"labels":{"host":"web1"}}"#;
const LOOKED_UP: [&str; 5] =
    ["content-encoding", "authorization", "x-client-id", "durability", "content-type"];

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = if is_bench { 3_000_000 } else { 1_000 };

    let small = post("Host: 127.0.0.1:8080\r\nContent-Type: application/json\r\n");
    let large = post(
        "Host: 127.0.0.1:8080\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n\
         Accept: application/json, text/plain;q=0.9, */*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\nX-Client-ID: web-1\r\n\
         Authorization: Bearer 0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n",
    );
    for (what, request) in [("small", small), ("browser", large)] {
        let mut buf = request.clone();
        let ns = best_of_five(rounds, || decode(&mut buf, rounds));
        assert_eq!(buf, request, "decoding a body of known length changes nothing");
        println!("decode {what:<8}{:>4} bytes {ns:6.1} ns/request", request.len());
    }
    let mut out = Vec::new();
    let ns = best_of_five(rounds, || encode(&mut out, rounds));
    println!("encode 202     {:>4} bytes {ns:6.1} ns/response", out.len());
}

fn post(headers: &str) -> Vec<u8> {
    format!("POST /metrics HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{BODY}", BODY.len()).into_bytes()
}

/// The best, because whatever else runs on the machine only ever adds.
fn best_of_five(rounds: usize, mut run: impl FnMut()) -> f64 {
    (0..5)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e9 / rounds as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn decode(buf: &mut [u8], rounds: usize) {
    let limits = Limits::default();
    let bytes = buf.len();
    for _ in 0..rounds {
        let mut decoder = Decoder::default();
        let Ok(Decoded::Request { request, consumed }) = decoder.decode(black_box(buf), &limits) else {
            panic!("not decoded");
        };
        let found = LOOKED_UP.iter().filter(|name| request.header(name).is_some()).count();
        assert!(found >= 1 && consumed == bytes && request.body.len() == BODY.len());
        assert!(request.method == Method::Post && request.path == "/metrics" && request.connection.is_kept());
        black_box(request.body);
    }
}

fn encode(out: &mut Vec<u8>, rounds: usize) {
    let date = http_date(784_111_777);
    for _ in 0..rounds {
        out.clear();
        let head = ResponseHead {
            status: 202,
            content_type: "application/json",
            connection: Connection::KeepAlive,
            date: &date,
            extra: &[("Durability", "written")],
        };
        black_box(head).encode(br#"{"status":"accepted"}"#, out);
        assert!(black_box(&*out).ends_with(b"\r\n\r\n{\"status\":\"accepted\"}"));
    }
}
