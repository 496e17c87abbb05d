//! Where a body ends (RFC 9112 §6), decided once for requests and responses.
//!
//! Two readers that frame the same bytes differently let an attacker hide a request in a body. So nothing is
//! repaired here: one plain length or one plain `chunked`, or the message is refused.

use crate::lines::BareLineFeed;
use std::fmt;

/// Why the end of a body cannot be told, or lies too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A `Content-Length` that is not a plain decimal number of the machine's range. 400.
    ContentLengthInvalid,
    /// Two `Content-Length` lines, equal or not. 400.
    ContentLengthTwice,
    /// Both `Content-Length` and `Transfer-Encoding`. 400.
    LengthAndChunked,
    /// A `Transfer-Encoding` other than one `chunked`. 501.
    TransferEncodingUnsupported,
    /// `Transfer-Encoding` in HTTP/1.0, which does not know it. 400.
    ChunkedInHttp10,
    /// The body is larger than allowed. 413.
    BodyTooLarge {
        /// The bytes allowed.
        bytes_max: usize,
    },
    /// A chunk's size is not a plain hexadecimal number, or what follows it is no extension. 400.
    ChunkSizeInvalid,
    /// A chunk's size line is longer than 256 bytes. 400.
    ChunkLineTooLong,
    /// A chunk's bytes are not followed by CRLF. 400.
    ChunkEndMissing,
    /// The framing around tiny chunks outgrows what a body may need. 413.
    ChunkFramingTooLarge,
    /// A line behind the last chunk is no header line. 400.
    TrailerInvalid,
    /// The lines behind the last chunk are larger than a head may be. 431.
    TrailerTooLarge,
    /// A line, in the head or between chunks, that ends in LF without CR. 400.
    BareLineFeed,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FramingError::ContentLengthInvalid => "Content-Length must be one plain decimal number",
            FramingError::ContentLengthTwice => "Content-Length is given twice; give it once",
            FramingError::LengthAndChunked => {
                "Content-Length and Transfer-Encoding are both given; give one of them"
            }
            FramingError::TransferEncodingUnsupported => {
                "Transfer-Encoding must be exactly: chunked; compress with Content-Encoding instead"
            }
            FramingError::ChunkedInHttp10 => "HTTP/1.0 has no Transfer-Encoding; give Content-Length",
            FramingError::BodyTooLarge { bytes_max } => {
                return write!(f, "the body is larger than {bytes_max} bytes; split it");
            }
            FramingError::ChunkSizeInvalid => {
                "a chunk must start with its size in plain hexadecimal digits and CRLF"
            }
            FramingError::ChunkLineTooLong => "a chunk's size line is longer than 256 bytes",
            FramingError::ChunkEndMissing => "a chunk's bytes must be followed by CRLF; check its size",
            FramingError::ChunkFramingTooLarge => {
                "the chunks are too small for their number; send larger ones"
            }
            FramingError::TrailerInvalid => "a line behind the last chunk is not of the form Name: value",
            FramingError::TrailerTooLarge => "the lines behind the last chunk are too large",
            FramingError::BareLineFeed => "a line ends in LF alone; end lines in CRLF",
        })
    }
}

impl std::error::Error for FramingError {}

impl From<BareLineFeed> for FramingError {
    fn from(_: BareLineFeed) -> FramingError {
        FramingError::BareLineFeed
    }
}

/// How a message says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Neither header: a request has no body then, a response ends with its connection.
    Unsaid,
    /// That many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// What the framing headers of one message said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FramingHeaders {
    length: Option<usize>,
    chunked: bool,
}

impl FramingHeaders {
    /// Takes in the value of a `Content-Length` line.
    pub(crate) fn note_content_length(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.length.is_some() {
            return Err(FramingError::ContentLengthTwice);
        }
        self.length = Some(decimal(value).ok_or(FramingError::ContentLengthInvalid)?);
        Ok(())
    }

    /// Takes in the value of a `Transfer-Encoding` line.
    pub(crate) fn note_transfer_encoding(&mut self, value: &[u8]) -> Result<(), FramingError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(FramingError::TransferEncodingUnsupported);
        }
        self.chunked = true;
        Ok(())
    }

    /// The framing that all lines together mean.
    pub(crate) fn framing(self, minor_version: u8, body_bytes_max: usize) -> Result<Framing, FramingError> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(FramingError::LengthAndChunked),
            (None, true) if minor_version == 0 => Err(FramingError::ChunkedInHttp10),
            (None, true) => Ok(Framing::Chunked),
            (Some(bytes), false) if bytes > body_bytes_max => {
                Err(FramingError::BodyTooLarge { bytes_max: body_bytes_max })
            }
            (Some(bytes), false) => Ok(Framing::Length(bytes)),
            (None, false) => Ok(Framing::Unsaid),
        }
    }
}

/// `1*DIGIT`, nothing else; `str::parse` would let a plus sign through.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, &digit| {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(usize::from(value))
    })
}
