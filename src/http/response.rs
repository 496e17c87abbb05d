//! Answers: written here for the server, read in `response/decode.rs` for clients.

use crate::Connection;

mod decode;
pub use decode::{DecodedResponse, Response, ResponseDecoder, ResponseError};

#[cfg(test)]
mod tests;

/// The interim answer for a client that holds its body back (`Expect: 100-continue`).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What stands behind a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// All of an answer but its body.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 200..=599; interim answers are not written this way. A number without a known reason gets an empty one.
    pub status: u16,
    /// The `Content-Type`; left out where empty.
    pub content_type: &'a str,
    /// What the `Connection` header says; [`Connection::KeepAlive`] says nothing.
    pub connection: Connection,
    /// The `Date`, made once a second by [`crate::http_date`].
    pub date: &'a [u8; 29],
    /// Further headers. Control characters in a value are written as spaces, so a value that repeats what a
    /// client sent cannot begin a new line.
    pub extra: &'a [(&'a str, &'a str)],
}

/// How a client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Bytes(usize),
    Chunked,
}

impl ResponseHead<'_> {
    /// Appends the answer with its body.
    pub fn encode(&self, body: &[u8], out: &mut Vec<u8>) {
        self.encode_head(Length::Bytes(body.len()), body.len(), out);
        out.extend_from_slice(body);
    }

    /// Appends the answer to a HEAD request: the length that the body would have had, without the body.
    pub fn encode_for_head(&self, body_bytes: usize, out: &mut Vec<u8>) {
        self.encode_head(Length::Bytes(body_bytes), 0, out);
    }

    /// Appends the head of an answer whose body comes in pieces, each between [`chunk_head`] and [`CHUNK_END`], with
    /// [`last_chunk`] behind them.
    pub fn encode_chunked(&self, out: &mut Vec<u8>) {
        self.encode_head(Length::Chunked, 0, out);
    }

    fn encode_head(&self, length: Length, bytes_to_follow: usize, out: &mut Vec<u8>) {
        debug_assert!((200..600).contains(&self.status), "status {}", self.status);
        // One growth at most: the fixed parts are below 200 bytes.
        let extra_bytes: usize = self.extra.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        out.reserve(200 + self.content_type.len() + extra_bytes + bytes_to_follow);

        match status_line(self.status) {
            Some(line) => out.extend_from_slice(line.as_bytes()),
            None => {
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
                out.extend_from_slice(b" \r\n");
            }
        }
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(self.date);
        // A 204 has no body by its number, and must not name a length (RFC 9110 §8.6).
        if self.status != 204 {
            if !self.content_type.is_empty() {
                out.extend_from_slice(b"\r\nContent-Type: ");
                append_value(self.content_type, out);
            }
            match length {
                Length::Bytes(bytes) => {
                    out.extend_from_slice(b"\r\nContent-Length: ");
                    out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
                }
                Length::Chunked => out.extend_from_slice(b"\r\nTransfer-Encoding: chunked"),
            }
        } else {
            debug_assert_eq!(length, Length::Bytes(0), "a 204 with a body");
        }
        out.extend_from_slice(match self.connection {
            Connection::Close => b"\r\nConnection: close\r\n",
            Connection::KeepAlive => b"\r\n",
            Connection::KeepAliveEchoed => b"\r\nConnection: keep-alive\r\n",
        });
        for (name, value) in self.extra {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            append_value(value, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What stands before a chunk of so many bytes; of none it would be the last.
pub fn chunk_head(bytes: usize, out: &mut Vec<u8>) {
    debug_assert!(bytes > 0, "that is the last one");
    out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
}

/// The end of a body that came in chunks, with fields behind it that its head could not have.
pub fn last_chunk(trailer: &[(&str, &str)], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailer {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        append_value(value, out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a header value, control characters as spaces.
fn append_value(value: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(value.as_bytes());
    for byte in &mut out[start..] {
        if byte.is_ascii_control() && *byte != b'\t' {
            *byte = b' ';
        }
    }
}

/// The status line of the statuses that this server gives.
/// The reason phrase of a status that the encoder knows; empty for others.
pub fn reason(status: u16) -> &'static str {
    // "HTTP/1.1 202 Accepted\r\n": behind version and number, before the line's end.
    status_line(status).and_then(|line| line.get(13..)).map_or("", str::trim_end)
}

fn status_line(status: u16) -> Option<&'static str> {
    macro_rules! lines {
        ($($status:literal $reason:literal)*) => {
            match status {
                $($status => Some(concat!("HTTP/1.1 ", $status, " ", $reason, "\r\n")),)*
                _ => None,
            }
        };
    }
    lines! {
        200 "OK"
        201 "Created"
        202 "Accepted"
        204 "No Content"
        301 "Moved Permanently"
        302 "Found"
        304 "Not Modified"
        307 "Temporary Redirect"
        308 "Permanent Redirect"
        400 "Bad Request"
        401 "Unauthorized"
        403 "Forbidden"
        404 "Not Found"
        405 "Method Not Allowed"
        406 "Not Acceptable"
        408 "Request Timeout"
        409 "Conflict"
        411 "Length Required"
        413 "Content Too Large"
        414 "URI Too Long"
        415 "Unsupported Media Type"
        416 "Range Not Satisfiable"
        417 "Expectation Failed"
        422 "Unprocessable Content"
        429 "Too Many Requests"
        431 "Request Header Fields Too Large"
        500 "Internal Server Error"
        501 "Not Implemented"
        502 "Bad Gateway"
        503 "Service Unavailable"
        504 "Gateway Timeout"
        505 "HTTP Version Not Supported"
        507 "Insufficient Storage"
    }
}
