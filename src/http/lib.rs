//! HTTP/1.1 (RFC 9112) as bytes in, bytes out.
//!
//! Owner: whoever holds the connection's bytes; this crate owns no socket, no clock and no buffer.
//! Always: the same bytes give the same messages however they were cut into pieces; no byte behind a message
//! is touched; what two readers could frame differently is refused, never guessed; no input makes it panic.
//! A request that lies whole in one buffer costs no allocation, and its body stays where it is; a chunked body
//! is joined inside the caller's buffer.
//! Not here: status codes for refusals (the server's `api.rs`), timeouts, TLS, routing.
//! Read next: `request/decode.rs` for the way of one request, `framing.rs` for where a body ends,
//! `chunked.rs` for the in-place joining, `content_coding.rs` for compressed bodies, `response.rs` for answers.

mod limits;
pub use limits::{HEADERS_MAX, Limits};

mod lines;

mod headers;
pub use headers::Headers;

mod framing;
pub use framing::FramingError;

mod chunked;

mod content_coding;
pub use content_coding::{CodingError, ContentCoding, Decompression, NotAtOnce, UnsupportedCoding};

mod connection;
pub use connection::Connection;

mod request;
pub use request::{Decoded, Decoder, Method, Refusal, Request};

mod target;
pub use target::{EscapeError, ParameterError, decode_path, parameters};

mod date;
pub use date::http_date;

mod response;
pub use response::{
    CHUNK_END, CONTINUE, DecodedResponse, Response, ResponseDecoder, ResponseError, ResponseHead, chunk_head,
    last_chunk, reason,
};
