//! A tiny server for tests: one thread per connection, answers by a function.

use crate::request::protobuf::fields;
use http::{Decoded, Decoder, Limits, Method, parameters};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a request is answered with.
pub(crate) enum Reply {
    /// Status, further header lines, body.
    Answer(u16, &'static str, String),
    /// The connection ends without an answer.
    HangUp,
    /// The samples are taken, with these header lines; `Connection: close` is obeyed by us.
    Accept(&'static str),
}

/// What a reply is made from: whether it is a POST, the path, the query, and the body.
pub(crate) struct Asked<'a> {
    pub(crate) is_post: bool,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

type Answering = dyn Fn(&Asked<'_>) -> Reply + Send + Sync;

/// Listens on a free port of loopback until dropped.
pub(crate) struct Responder {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
    /// Connections on which a sample came.
    posting: Arc<AtomicU64>,
}

impl Responder {
    pub(crate) fn new(answering: impl Fn(&Asked<'_>) -> Reply + Send + Sync + 'static) -> Responder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let answering: Arc<Answering> = Arc::new(answering);
        let seen = Arc::clone(&ended);
        let posting = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&posting);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    return;
                }
                let answering = Arc::clone(&answering);
                let counted = Arc::clone(&counted);
                thread::spawn(move || serve(stream, &*answering, &counted));
            }
        });
        Responder { addr, ended, posting }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.posting.load(Ordering::Relaxed)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Says that it stores so many samples, whatever it is asked.
    pub(crate) fn storing(samples: u64) -> Responder {
        Responder::new(move |_| count(samples))
    }

    /// Stores samples evenly over a time, and refuses to count more than `most` at once.
    pub(crate) fn storing_at_most_in_one_answer(
        samples: u64,
        times: RangeInclusive<i64>,
        most: u64,
    ) -> Responder {
        Responder::new(move |asked| {
            let bound = |name: &str| -> i64 {
                let found = parameters(asked.query).flatten().find(|(key, _)| key == name);
                found.unwrap().1.parse().unwrap()
            };
            let span = times.end() - times.start() + 1;
            let at = |n: u64| times.start() + span * n as i64 / samples as i64;
            let found =
                (0..samples).filter(|n| (bound("start")..=bound("end")).contains(&at(*n))).count() as u64;
            if found > most {
                Reply::Answer(422, "", r#"{"error":"too much"}"#.to_owned())
            } else {
                count(found)
            }
        })
    }

    /// Knows nothing of samples.
    pub(crate) fn foreign() -> Responder {
        Responder::new(|_| Reply::Answer(404, "", "not here".to_owned()))
    }

    /// Accepts samples, as JSON or remote write, and counts them by name, all of them under a name that it does not know;
    /// `reply` may answer a POST otherwise by its number, from 0.
    pub(crate) fn counting(reply: impl Fn(u64) -> Option<Reply> + Send + Sync + 'static) -> Responder {
        let (stored, posts) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
        Responder::new(move |asked| {
            if !asked.is_post {
                if asked.path == "/metrics" {
                    return Reply::Answer(404, "", "it counts nothing of its own".to_owned());
                }
                assert_eq!(asked.path, "/percentile");
                let found = parameters(asked.query).flatten().find(|(key, _)| key == "name");
                let stored: &BTreeMap<String, u64> = &stored.lock().unwrap();
                let of_name = stored.get(&*found.unwrap().1).copied();
                return count(of_name.unwrap_or_else(|| stored.values().sum()));
            }
            let (name, samples) = match asked.path {
                "/api/v1/write" => of_remote_write(asked.body),
                _ => of_json(asked.body),
            };
            let headers = match reply(posts.fetch_add(1, Ordering::Relaxed)) {
                None => "Durability: written\r\n",
                Some(Reply::Accept(headers)) => headers,
                Some(other) => return other,
            };
            *stored.lock().unwrap().entry(name).or_default() += samples;
            Reply::Answer(202, headers, r#"{"status":"accepted"}"#.to_owned())
        })
    }
}

/// The name of the first metric, and how many there are.
fn of_json(body: &[u8]) -> (String, u64) {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let metrics = body.get("metrics").and_then(|metrics| metrics.as_array());
    let first = metrics.map_or(&body, |metrics| &metrics[0]);
    (first["name"].as_str().unwrap().to_owned(), metrics.map_or(1, |metrics| metrics.len() as u64))
}

/// The same; the name stands in the first label.
fn of_remote_write(body: &[u8]) -> (String, u64) {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let all_series: Vec<_> = fields(&message).into_iter().map(|(_, series)| fields(&series)).collect();
    let samples = all_series.iter().flatten().filter(|(field, _)| *field == 2).count() as u64;
    let name = fields(&all_series[0][0].1)[1].1.clone();
    (String::from_utf8(name).unwrap(), samples)
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread; if this fails it has ended already.
        let _ = TcpStream::connect(self.addr);
    }
}

fn count(samples: u64) -> Reply {
    Reply::Answer(200, "", format!(r#"{{"p50":1,"count":{samples}}}"#))
}

fn serve(mut stream: TcpStream, answering: &Answering, posting: &AtomicU64) {
    let mut decoder = Decoder::default();
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    let mut has_posted = false;
    loop {
        // Who speaks no HTTP is hung up on.
        let Ok(decoded) = decoder.decode(&mut received, &Limits::default()) else { return };
        let (reply, consumed) = match decoded {
            Decoded::Request { request, consumed } => {
                let asked = Asked {
                    is_post: request.method == Method::Post,
                    path: request.path,
                    query: request.query,
                    body: request.body,
                };
                if asked.is_post && !std::mem::replace(&mut has_posted, true) {
                    posting.fetch_add(1, Ordering::Relaxed);
                }
                (answering(&asked), consumed)
            }
            Decoded::Partial { .. } => {
                match stream.read(&mut piece) {
                    Ok(bytes) if bytes > 0 => received.extend_from_slice(&piece[..bytes]),
                    _ => return,
                }
                continue;
            }
        };
        received.drain(..consumed);
        let (status, headers, body) = match reply {
            Reply::Answer(status, headers, body) => (status, headers, body),
            Reply::Accept(headers) => (202, headers, String::new()),
            Reply::HangUp => return,
        };
        let head = format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        let written = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
        if written.is_err() || headers.contains("Connection: close") {
            return;
        }
    }
}
