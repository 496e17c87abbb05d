//! An answer, from decision to bytes.
//!
//! The common one (a body was accepted) is a template per durability level, rendered once a second because
//! of its `Date`; everything else goes through the codec.

use crate::api::{Refusal, RefusalShape};
use crate::config::Durability;
use http::{Connection, ContentCoding, ResponseHead};
use shard::net::ConnId;
use std::io::Write as _;

/// What is to be said.
pub enum Payload {
    /// The body is kept, at that level; a batch with its number of samples.
    Accepted { count: Option<usize>, level: Durability },
    /// The same, without a word; and how the request would have been refused.
    Kept { level: Durability, shape: RefusalShape },
    /// Some of the body is kept, as the refusal of the rest says.
    Partly(Refusal),
    /// Go on with the body.
    Continue,
    /// A complete body.
    Body { status: u16, content_type: &'static str, bytes: Vec<u8> },
    /// A complete body that lacks what is damaged on the disk; where that is.
    Incomplete { content_type: &'static str, bytes: Vec<u8>, warnings: Box<[String]> },
    /// A part of a body.
    Piece(Piece),
    /// The rest of a body that was begun cannot be had: the connection ends, so that its client learns of it.
    BrokenOff,
    /// It was done, and there is nothing to say.
    Done,
    /// No body, only the methods a path allows.
    Allow(&'static str),
    /// Not carried out.
    Refused(Refusal),
}

impl Payload {
    /// Takes back what it says to be kept.
    pub fn refuse_kept(&mut self, refusal: impl FnOnce() -> Refusal) {
        let shape = match self {
            Payload::Accepted { .. } => RefusalShape::Plain,
            Payload::Kept { shape, .. } => *shape,
            Payload::Partly(refusal) => refusal.shape,
            Payload::Continue
            | Payload::Body { .. }
            | Payload::Incomplete { .. }
            | Payload::Piece(_)
            | Payload::BrokenOff
            | Payload::Done
            | Payload::Allow(_)
            | Payload::Refused(_) => return,
        };
        *self = Payload::Refused(Refusal { shape, ..refusal() });
    }
}

/// A part of a body whose length is not known.
pub struct Piece {
    /// With the first: the answer's head.
    pub begins: Option<PieceHead>,
    /// Whether it is the last.
    pub ends: bool,
    /// Its bytes; none is no chunk.
    pub bytes: Vec<u8>,
    /// With the last: what turned out to be missing since the body began.
    pub warnings: Box<[String]>,
}

/// What is known when a body begins.
pub struct PieceHead {
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// What is missing so far.
    pub warnings: Box<[String]>,
}

impl Piece {
    /// What goes out behind head and chunk's head.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            bytes.extend_from_slice(http::CHUNK_END);
        }
        if self.ends {
            let fields: Vec<String> = self.warnings.iter().map(|text| warning_field(text)).collect();
            let fields: Vec<(&str, &str)> = fields.iter().map(|value| ("Warning", value.as_str())).collect();
            http::last_chunk(&fields, &mut bytes);
        }
        bytes
    }
}

/// One answer on its way to its client.
pub struct Reply {
    /// To whom.
    pub conn: ConnId,
    /// A `HEAD` request: the head alone.
    pub head_only: bool,
    /// What the connection does afterwards, and whether that is said.
    pub connection: Connection,
    /// The answer.
    pub payload: Payload,
    /// Whether pages of any origin may see it.
    pub any_origin: bool,
    /// When its request was taken in, in monotonic nanoseconds.
    pub arrived_nanos: u64,
    /// The request's part of its line in the access log.
    pub log: Option<Box<LogEntry>>,
}

/// What the access log tells of a request besides its answer.
pub struct LogEntry {
    /// Method and target.
    pub request: String,
}

impl Reply {
    /// The status that goes out; none for an interim answer.
    pub fn status(&self) -> Option<u16> {
        Some(match &self.payload {
            Payload::Accepted { .. } => 202,
            Payload::Continue | Payload::BrokenOff => return None,
            // It is told once, when all is out.
            Payload::Piece(Piece { ends: false, .. }) => return None,
            Payload::Piece(_) => 200,
            Payload::Body { status, .. } => *status,
            Payload::Incomplete { .. } => 200,
            Payload::Allow(_) | Payload::Kept { .. } | Payload::Done => 204,
            Payload::Refused(refusal) | Payload::Partly(refusal) => refusal.status,
        })
    }

    /// Whether the connection ends with this answer.
    pub fn closes(&self) -> bool {
        let refused_for_good = matches!(&self.payload, Payload::Refused(refusal) if refusal.close);
        match &self.payload {
            Payload::Continue | Payload::Piece(Piece { ends: false, .. }) => false,
            Payload::BrokenOff => true,
            _ => refused_for_good || !self.connection.is_kept(),
        }
    }
}

/// Renders replies of one loop.
pub struct Renderer {
    date: [u8; 29],
    date_s: i64,
    /// The answer to an accepted single metric, by level.
    accepted: [Vec<u8>; 3],
}

const JSON: &str = "application/json";
const ANY_ORIGIN: (&str, &str) = ("Access-Control-Allow-Origin", "*");
/// What a browser asks with OPTIONS before a read that is not simple, and may remember for a day.
const READS_ALLOWED: [(&str, &str); 4] = [
    ANY_ORIGIN,
    ("Access-Control-Allow-Methods", "GET, HEAD"),
    ("Access-Control-Allow-Headers", "*"),
    ("Access-Control-Max-Age", "86400"),
];
const SINGLE_BODY: &[u8] = br#"{"status":"accepted"}"#;
/// Of the answer to a batch; a count has twenty digits at most.
const BATCH_BODY_BYTES_MAX: usize = 64;

impl Renderer {
    /// As of that moment.
    pub fn new(now_ms: i64) -> Renderer {
        let mut renderer = Renderer { date: [b' '; 29], date_s: i64::MIN, accepted: Default::default() };
        renderer.set_time(now_ms);
        renderer
    }

    /// Once a turn; does something once a second.
    pub fn set_time(&mut self, now_ms: i64) {
        let now_s = now_ms.div_euclid(1_000);
        if now_s == self.date_s {
            return;
        }
        self.date_s = now_s;
        self.date = http::http_date(now_s);
        for level in Durability::ALL {
            let mut template = std::mem::take(&mut self.accepted[level as usize]);
            template.clear();
            self.accepted_into(level, SINGLE_BODY, Connection::KeepAlive, false, &mut template);
            self.accepted[level as usize] = template;
        }
    }

    fn accepted_into(
        &self,
        level: Durability,
        body: &[u8],
        connection: Connection,
        head_only: bool,
        out: &mut Vec<u8>,
    ) {
        let extra = [("Durability", level.name())];
        self.encode(self.head(202, JSON, &extra, connection), body, head_only, out);
    }

    fn encode(&self, head: ResponseHead<'_>, body: &[u8], head_only: bool, out: &mut Vec<u8>) {
        if head_only { head.encode_for_head(body.len(), out) } else { head.encode(body, out) }
    }

    fn head<'a>(
        &'a self,
        status: u16,
        content_type: &'a str,
        extra: &'a [(&'a str, &'a str)],
        connection: Connection,
    ) -> ResponseHead<'a> {
        ResponseHead { status, content_type, extra, connection, date: &self.date }
    }

    /// Appends the bytes of an answer.
    pub fn render(&self, reply: &Reply, out: &mut Vec<u8>) {
        match &reply.payload {
            Payload::Accepted { count: None, level } if reply.connection == Connection::KeepAlive => {
                out.extend_from_slice(&self.accepted[*level as usize]);
            }
            Payload::Accepted { count: None, level } => {
                self.accepted_into(*level, SINGLE_BODY, reply.connection, reply.head_only, out);
            }
            Payload::Accepted { count: Some(count), level } => {
                let mut body = [0; BATCH_BODY_BYTES_MAX];
                let mut rest = &mut body[..];
                write!(rest, r#"{{"status":"accepted","count":{count}}}"#)
                    .expect("there is room for any count");
                let len = BATCH_BODY_BYTES_MAX - rest.len();
                self.accepted_into(*level, &body[..len], reply.connection, reply.head_only, out);
            }
            Payload::Kept { level, .. } => {
                let extra = [("Durability", level.name())];
                self.head(204, "", &extra, reply.connection).encode(b"", out);
            }
            Payload::Continue => out.extend_from_slice(http::CONTINUE),
            Payload::Body { status, content_type, bytes } => {
                let extra = [ANY_ORIGIN, ("Retry-After", "1")];
                let extra = if *status == 503 { &extra } else { &extra[..1] };
                let head = self.head(*status, content_type, extra, reply.connection);
                self.encode(head, bytes, reply.head_only, out);
            }
            Payload::Incomplete { content_type, bytes, warnings } => {
                let warnings: Vec<String> = warnings.iter().map(|text| warning_field(text)).collect();
                let extra = with_warnings(&warnings);
                let head = self.head(200, content_type, &extra, reply.connection);
                self.encode(head, bytes, reply.head_only, out);
            }
            Payload::Piece(piece) => {
                if let Some(PieceHead { content_type, warnings }) = &piece.begins {
                    let warnings: Vec<String> = warnings.iter().map(|text| warning_field(text)).collect();
                    let mut extra = with_warnings(&warnings);
                    extra.push(("Trailer", "Warning"));
                    self.head(200, content_type, &extra, reply.connection).encode_chunked(out);
                }
                if !piece.bytes.is_empty() && !reply.head_only {
                    http::chunk_head(piece.bytes.len(), out);
                }
            }
            Payload::BrokenOff => {}
            Payload::Done => self.head(204, "", &[], reply.connection).encode(b"", out),
            Payload::Allow(methods) => {
                let allowed = if reply.any_origin { &READS_ALLOWED[..] } else { &[] };
                let extra: Vec<(&str, &str)> =
                    [("Allow", *methods)].into_iter().chain(allowed.iter().copied()).collect();
                self.head(204, "", &extra, reply.connection).encode(b"", out);
            }
            Payload::Refused(refusal) | Payload::Partly(refusal) => {
                let seconds = refusal.retry_after.map(|seconds| seconds.to_string());
                let allow = refusal.allow.map(|methods| ("Allow", methods));
                let retry = seconds.as_deref().map(|seconds| ("Retry-After", seconds));
                // RFC 9110 §15.5.16: what could have been sent instead.
                let codings = (refusal.status == 415).then_some(("Accept-Encoding", ContentCoding::NAMES));
                let origin = reply.any_origin.then_some(ANY_ORIGIN);
                let limit = rate_limit_fields(refusal);
                let limit = limit.iter().map(|(name, value)| (*name, value.as_str()));
                let extra: Vec<(&str, &str)> =
                    origin.into_iter().chain(allow).chain(retry).chain(codings).chain(limit).collect();
                let connection = if reply.closes() { Connection::Close } else { reply.connection };
                let head = self.head(refusal.status, JSON, &extra, connection);
                self.encode(head, &refusal.body(), reply.head_only, out);
            }
        }
    }
}

fn with_warnings(warnings: &[String]) -> Vec<(&str, &str)> {
    let named = warnings.iter().map(|value| ("Warning", value.as_str()));
    [ANY_ORIGIN].into_iter().chain(named).collect()
}

/// RFC 7234 §5.5: 199 is a warning for people. What could end the field, or is no ASCII, is a question mark.
fn warning_field(text: &str) -> String {
    let plain = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let text: String = text.chars().map(plain).collect();
    format!("199 ringwatch \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The policy, and what is left of it: nothing, for so many seconds
/// (draft-ietf-httpapi-ratelimit-headers, structured fields of RFC 9651).
fn rate_limit_fields(refusal: &Refusal) -> Vec<(&'static str, String)> {
    let fields = refusal.rate_limit.map(|limit| {
        let seconds = refusal.retry_after.unwrap_or(1);
        let policy = ("RateLimit-Policy", format!(r#""client";q={limit};w=1"#));
        [policy, ("RateLimit", format!(r#""client";r=0;t={seconds}"#))]
    });
    fields.into_iter().flatten().collect()
}
