//! Responses as a client reads them: by `Content-Length` or chunked, in any number of pieces.
//!
//! Responses that only the connection's end delimits are refused: a client that measures must know that it has
//! the whole.

use crate::chunked::Chunked;
use crate::connection::ConnectionOptions;
use crate::framing::{Framing, FramingHeaders};
use crate::headers::{Headers, name_bit};
use crate::limits::{HEADERS_MAX, Limits};
use crate::lines::{HeadEndError, head_end};
use crate::{Connection, FramingError, Method};
use std::fmt;
use std::mem::MaybeUninit;

/// One whole response, lying in the buffer from which it was decoded.
#[derive(Debug)]
pub struct Response<'b> {
    /// 100..=999. Interim responses (100..=199) come as responses of their own; the final one follows.
    pub status: u16,
    /// Whether the server lets the connection live.
    pub connection: Connection,
    /// The header lines.
    pub headers: Headers<'b>,
    /// The body, chunks joined.
    pub body: &'b mut [u8],
}

impl<'b> Response<'b> {
    /// The value of the first header of that name, in any case; see [`Headers::get`].
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.get(name)
    }
}

/// What a buffer held.
#[derive(Debug)]
pub enum DecodedResponse<'b> {
    /// A whole response.
    Response {
        /// The response.
        response: Response<'b>,
        /// Bytes of the buffer that belong to it.
        consumed: usize,
    },
    /// Not yet a whole response; the caller keeps the bytes and calls again when more have followed.
    Partial {
        /// Bytes that must still come at least, never 0.
        bytes_wanted: usize,
    },
}

/// Why bytes were not taken as a response: the peer's fault, and the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The status line or a header line is malformed, or there are more than [`HEADERS_MAX`] of these.
    HeadInvalid,
    /// The head is larger than allowed.
    HeadTooLarge {
        /// The bytes allowed.
        bytes_max: usize,
    },
    /// Neither `Content-Length` nor chunked: the body would end with the connection.
    LengthMissing,
    /// Where the body ends is in doubt, or too far.
    Framing(FramingError),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::HeadInvalid => f.write_str("the response's head is malformed"),
            ResponseError::HeadTooLarge { bytes_max } => {
                write!(f, "the response's head is larger than {bytes_max} bytes")
            }
            ResponseError::LengthMissing => f.write_str("the response does not say how long its body is"),
            ResponseError::Framing(cause) => write!(f, "the response's body: {cause}"),
        }
    }
}

impl std::error::Error for ResponseError {}

impl From<FramingError> for ResponseError {
    fn from(cause: FramingError) -> ResponseError {
        ResponseError::Framing(cause)
    }
}

/// The progress of one response. The default is the start of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseDecoder {
    /// No head ends in the first `scanned` bytes.
    scanned: usize,
    body: Option<BodyProgress>,
}

/// The head is whole and ends at `head_end`, the body is not.
#[derive(Clone, Debug)]
struct BodyProgress {
    head_end: usize,
    kind: BodyKind,
}

#[derive(Clone, Debug)]
enum BodyKind {
    Length(usize),
    Chunked(Chunked),
}

impl ResponseDecoder {
    /// Decodes the response that begins at the first byte of `buf` and answers a request of the method `asked`.
    ///
    /// `asked` matters because the answer to HEAD names a length and has no body. The bytes are kept between
    /// calls as for [`crate::Decoder::decode`].
    pub fn decode<'b>(
        &mut self,
        buf: &'b mut [u8],
        asked: Method,
        limits: &Limits,
    ) -> Result<DecodedResponse<'b>, ResponseError> {
        if self.body.is_none() {
            self.body = self.find_body(buf, asked, limits)?;
        }
        let Some(progress) = &mut self.body else {
            return Ok(DecodedResponse::Partial { bytes_wanted: 1 });
        };
        let head_end = progress.head_end;
        let (head, rest) = buf.split_at_mut(head_end);
        let joined = match &mut progress.kind {
            BodyKind::Length(body_bytes) if rest.len() < *body_bytes => {
                return Ok(DecodedResponse::Partial { bytes_wanted: *body_bytes - rest.len() });
            }
            BodyKind::Length(body_bytes) => {
                crate::chunked::Joined { body: 0..*body_bytes, consumed: *body_bytes }
            }
            BodyKind::Chunked(chunked) => match chunked.advance(rest, limits)? {
                Some(joined) => joined,
                None => {
                    return Ok(DecodedResponse::Partial { bytes_wanted: chunked.bytes_wanted(rest.len()) });
                }
            },
        };
        *self = ResponseDecoder::default();
        let head = Head::parse(head)?;
        let response = Response {
            status: head.status,
            connection: head.connection,
            headers: head.headers,
            body: &mut rest[joined.body],
        };
        Ok(DecodedResponse::Response { response, consumed: head_end + joined.consumed })
    }

    /// Where the body starts and ends, once the head is whole.
    fn find_body(
        &mut self,
        buf: &[u8],
        asked: Method,
        limits: &Limits,
    ) -> Result<Option<BodyProgress>, ResponseError> {
        let found = head_end(buf, &mut self.scanned, limits.head_bytes_max).map_err(|e| match e {
            HeadEndError::BareLineFeed => ResponseError::Framing(FramingError::BareLineFeed),
            HeadEndError::TooLarge => ResponseError::HeadTooLarge { bytes_max: limits.head_bytes_max },
        })?;
        let Some(head_end) = found else { return Ok(None) };
        let head = Head::parse(&buf[..head_end])?;
        let is_bodiless = asked == Method::Head || matches!(head.status, 100..=199 | 204 | 304);
        let kind = match head.framing.framing(head.minor_version, limits.body_bytes_max) {
            _ if is_bodiless => BodyKind::Length(0),
            Ok(Framing::Length(bytes)) => BodyKind::Length(bytes),
            Ok(Framing::Chunked) => BodyKind::Chunked(Chunked::default()),
            Ok(Framing::Unsaid) => return Err(ResponseError::LengthMissing),
            Err(cause) => return Err(ResponseError::Framing(cause)),
        };
        Ok(Some(BodyProgress { head_end, kind }))
    }
}

/// What a whole head says.
struct Head<'b> {
    status: u16,
    minor_version: u8,
    connection: Connection,
    headers: Headers<'b>,
    framing: FramingHeaders,
}

impl<'b> Head<'b> {
    fn parse(head: &'b [u8]) -> Result<Head<'b>, ResponseError> {
        let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, head, &mut lines) {
            Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
            _ => return Err(ResponseError::HeadInvalid),
        }
        let (Some(status), Some(minor_version)) = (parsed.code, parsed.version) else {
            return Err(ResponseError::HeadInvalid);
        };
        let mut names = 0;
        let mut connection = ConnectionOptions::default();
        let mut framing = FramingHeaders::default();
        for line in parsed.headers.iter() {
            names |= name_bit(line.name);
            match line.name.len() {
                10 if line.name.eq_ignore_ascii_case("connection") => connection.note(line.value),
                14 if line.name.eq_ignore_ascii_case("content-length") => {
                    framing.note_content_length(line.value)?;
                }
                17 if line.name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.note_transfer_encoding(line.value)?;
                }
                _ => {}
            }
        }
        // The first line is the status line; httparse skips empty ones, which are refused here.
        let status_line_end = memchr::memchr(b'\n', head).ok_or(ResponseError::HeadInvalid)? + 1;
        if !head.starts_with(b"HTTP/") || !(100..=999).contains(&status) {
            return Err(ResponseError::HeadInvalid);
        }
        Ok(Head {
            status,
            minor_version,
            connection: connection.connection(minor_version),
            headers: Headers::new(&head[status_line_end..head.len() - "\r\n".len()], names),
            framing,
        })
    }
}
