//! From bytes to requests, in as many pieces as the network makes of them.
//!
//! ```text
//! no blank line yet       remember how far the search came; more is needed
//! head whole              read it; if the body is here too, that is all (the usual case: one call, one pass)
//! body not whole          remember where the body starts and ends, or how far the chunks are joined
//! message whole           read the head again, because a `Request` lends from the buffer and could not be kept
//! ```
//!
//! So a head is searched once and read at most twice, and a body byte is looked at once, however slowly they
//! arrive.

use super::head::Head;
use super::{Refusal, Request};
use crate::chunked::Chunked;
use crate::framing::{Framing, FramingError};
use crate::limits::Limits;
use crate::lines::{HeadEndError, head_end};

/// The progress of one request that did not arrive whole. The default is the start of a request; an idle
/// connection has nothing to remember and need not keep one.
///
/// After a refusal the connection ends, and this with it.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    progress: Progress,
}

#[derive(Clone, Debug)]
enum Progress {
    /// Before the blank line; no head ends in the first `scanned` bytes.
    Head { scanned: usize },
    /// The head is whole and ends at `head_end`, the body is not.
    Length { head_end: usize, body_bytes: usize },
    /// The same with chunks.
    Chunked { head_end: usize, chunked: Chunked },
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::Head { scanned: 0 }
    }
}

/// What a buffer held.
#[derive(Debug)]
pub enum Decoded<'b> {
    /// A whole request.
    Request {
        /// The request.
        request: Request<'b>,
        /// Bytes of the buffer that belong to it; the next request starts behind them.
        consumed: usize,
    },
    /// Not yet a whole request; the caller keeps the bytes and calls again when more have followed.
    Partial {
        /// The client holds its body back until it reads [`crate::CONTINUE`]. Said once per request, and not at
        /// all if the body is on its way already.
        wants_continue: bool,
        /// The head is whole, only body is missing: the time allowed for heads no longer counts.
        head_complete: bool,
        /// Bytes that must still come at least, never 0.
        bytes_wanted: usize,
    },
}

impl Decoder {
    /// Decodes the request that begins at the first byte of `buf`.
    ///
    /// Between the calls for one request the caller may move the bytes to another place but not change them:
    /// joined chunks lie there already. `buf` may hold more than one request; what lies behind the first is not
    /// looked at. After a whole request the decoder is at the start again.
    pub fn decode<'b>(&mut self, buf: &'b mut [u8], limits: &Limits) -> Result<Decoded<'b>, Refusal> {
        match self.progress {
            Progress::Head { scanned } => self.decode_head(buf, scanned, limits),
            Progress::Length { head_end, body_bytes } => {
                let body_bytes_here = buf.len() - head_end;
                if body_bytes_here < body_bytes {
                    return Ok(body_missing(body_bytes - body_bytes_here, false));
                }
                let (head, body) = buf.split_at_mut(head_end);
                let head = Head::parse(without_empty_line(head), limits)?;
                Ok(self.whole(head, &mut body[..body_bytes], head_end + body_bytes))
            }
            Progress::Chunked { head_end, mut chunked } => {
                let (head, body) = buf.split_at_mut(head_end);
                match chunked.advance(body, limits)? {
                    None => {
                        self.progress = Progress::Chunked { head_end, chunked };
                        Ok(body_missing(chunked.bytes_wanted(body.len()), false))
                    }
                    Some(joined) => {
                        let head = Head::parse(without_empty_line(head), limits)?;
                        Ok(self.whole(head, &mut body[joined.body], head_end + joined.consumed))
                    }
                }
            }
        }
    }

    fn decode_head<'b>(
        &mut self,
        buf: &'b mut [u8],
        mut scanned: usize,
        limits: &Limits,
    ) -> Result<Decoded<'b>, Refusal> {
        if buf == b"\r" {
            // Perhaps half an empty line; then these bytes are not the head's and must not count as searched.
            return Ok(HEAD_MISSING);
        }
        let head = without_empty_line(buf);
        refuse_early(head)?;
        let empty_line_bytes = buf.len() - head.len();
        let Some(head_bytes) = head_end(head, &mut scanned, limits.head_bytes_max).map_err(|e| match e {
            HeadEndError::BareLineFeed => Refusal::Framing(FramingError::BareLineFeed),
            HeadEndError::TooLarge => Refusal::HeadTooLarge { bytes_max: limits.head_bytes_max },
        })?
        else {
            self.progress = Progress::Head { scanned };
            return Ok(HEAD_MISSING);
        };
        let head_end = empty_line_bytes + head_bytes;
        let (head, body) = buf.split_at_mut(head_end);
        let head = Head::parse(&head[empty_line_bytes..], limits)?;
        let wants_continue = head.expects_continue && body.is_empty();
        match head.framing {
            Framing::Unsaid => Ok(self.whole(head, &mut [], head_end)),
            Framing::Length(body_bytes) if body.len() < body_bytes => {
                self.progress = Progress::Length { head_end, body_bytes };
                Ok(body_missing(body_bytes - body.len(), wants_continue))
            }
            Framing::Length(body_bytes) => {
                Ok(self.whole(head, &mut body[..body_bytes], head_end + body_bytes))
            }
            Framing::Chunked => {
                let mut chunked = Chunked::default();
                match chunked.advance(body, limits)? {
                    None => {
                        self.progress = Progress::Chunked { head_end, chunked };
                        Ok(body_missing(chunked.bytes_wanted(body.len()), wants_continue))
                    }
                    Some(joined) => Ok(self.whole(head, &mut body[joined.body], head_end + joined.consumed)),
                }
            }
        }
    }

    fn whole<'b>(&mut self, head: Head<'b>, body: &'b mut [u8], consumed: usize) -> Decoded<'b> {
        self.progress = Progress::default();
        Decoded::Request { request: Request { body, ..head.request }, consumed }
    }
}

const HEAD_MISSING: Decoded<'static> =
    Decoded::Partial { wants_continue: false, head_complete: false, bytes_wanted: 1 };

fn body_missing<'b>(bytes_wanted: usize, wants_continue: bool) -> Decoded<'b> {
    Decoded::Partial { wants_continue, head_complete: true, bytes_wanted }
}

/// The bytes behind one empty line, which old clients sent after a body (RFC 9112 §2.2).
fn without_empty_line(buf: &[u8]) -> &[u8] {
    buf.strip_prefix(b"\r\n").unwrap_or(buf)
}

/// Refuses what no further byte can turn into a request, so that it need not wait for a blank line that may
/// never come.
fn refuse_early(head: &[u8]) -> Result<(), Refusal> {
    match head {
        // A handshake record; everything of it would look like one endless request line.
        [0x16, ..] => Err(Refusal::TlsOnPlainPort),
        // A second empty line, or a CR with something else behind it.
        [b'\r', b'\n', ..] | [b'\r', _, ..] => Err(Refusal::RequestLineInvalid),
        _ => Ok(()),
    }
}
