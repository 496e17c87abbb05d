//! Chunked bodies (RFC 9112 §7.1), joined inside the buffer in which they arrive.
//!
//! ```text
//!   head │ 5 CRLF │ h e l l o │ CRLF │ 6 CRLF │ _ w o r l d │ CRLF │ 0 CRLF CRLF │ next message
//!                  ▲ start     ▲ end                  ▲ read
//! ```
//!
//! The first chunk stays where it is and each later one is moved down to `end`, so a body of one chunk is not
//! copied and no byte moves twice. `end` never overtakes `read`: the framing between them only grows.

use crate::framing::FramingError;
use crate::limits::Limits;
use crate::lines::line_end;
use std::ops::Range;

/// Bytes of a chunk's size line at most, CRLF included.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The shortest end of a chunked body: `0 CRLF CRLF`.
const LAST_CHUNK_BYTES: usize = 5;

/// Progress through one chunked body. Positions count from the first byte behind the head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chunked {
    part: Part,
    /// All before it is decoded.
    read: usize,
    /// No LF lies between `read` and here.
    scanned: usize,
    /// Where the joined body starts.
    start: usize,
    /// Where the joined body ends so far.
    end: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// At a size line.
    #[default]
    Size,
    /// Within a chunk, of which that many bytes are to come.
    Data { bytes_left: usize },
    /// At the CRLF behind a chunk.
    DataEnd,
    /// Behind the last chunk; the trailer began at `start`.
    Trailer { start: usize },
}

/// A whole chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Where its bytes lie now.
    pub(crate) body: Range<usize>,
    /// Where the next message starts.
    pub(crate) consumed: usize,
}

impl Chunked {
    /// Decodes what has arrived; `bytes` begins behind the head, as in every earlier call.
    /// `None`: more is needed.
    pub(crate) fn advance(
        &mut self,
        bytes: &mut [u8],
        limits: &Limits,
    ) -> Result<Option<Joined>, FramingError> {
        loop {
            match self.part {
                Part::Size => {
                    let Some(line) =
                        self.line(bytes, CHUNK_LINE_BYTES_MAX, FramingError::ChunkLineTooLong)?
                    else {
                        return Ok(None);
                    };
                    let chunk_bytes = chunk_size(&bytes[line])?;
                    self.part = self.part_after_size(chunk_bytes, limits)?;
                }
                Part::Data { bytes_left } => {
                    let bytes_here = bytes_left.min(bytes.len() - self.read);
                    self.take(bytes, bytes_here);
                    if bytes_here < bytes_left {
                        self.part = Part::Data { bytes_left: bytes_left - bytes_here };
                        return Ok(None);
                    }
                    self.part = Part::DataEnd;
                }
                Part::DataEnd => match bytes[self.read..] {
                    [b'\r', b'\n', ..] => {
                        self.read += 2;
                        self.scanned = self.read;
                        self.part = Part::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(FramingError::ChunkEndMissing),
                },
                Part::Trailer { start } => {
                    let bytes_max = limits.head_bytes_max.saturating_sub(self.read - start);
                    let Some(line) = self.line(bytes, bytes_max, FramingError::TrailerTooLarge)? else {
                        return Ok(None);
                    };
                    if line.is_empty() {
                        return Ok(Some(Joined { body: self.start..self.end, consumed: self.read }));
                    }
                    if !is_header_line(&bytes[line]) {
                        return Err(FramingError::TrailerInvalid);
                    }
                }
            }
        }
    }

    /// Bytes that must still come, at least, when `bytes_arrived` bytes behind the head did not suffice.
    pub(crate) fn bytes_wanted(&self, bytes_arrived: usize) -> usize {
        match self.part {
            Part::Data { bytes_left } => bytes_left + 2 + LAST_CHUNK_BYTES,
            Part::DataEnd => 2 + LAST_CHUNK_BYTES - (bytes_arrived - self.read),
            Part::Size if bytes_arrived == self.read => LAST_CHUNK_BYTES,
            Part::Size | Part::Trailer { .. } => 1,
        }
    }

    /// The next line without its CRLF; `None` if its end has not arrived.
    fn line(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        too_long: FramingError,
    ) -> Result<Option<Range<usize>>, FramingError> {
        let from = self.read;
        let window = &bytes[from..bytes.len().min(from.saturating_add(bytes_max))];
        match line_end(window, self.scanned - from)? {
            Some(line_bytes) => {
                self.read += line_bytes;
                self.scanned = self.read;
                Ok(Some(from..self.read - 2))
            }
            None if window.len() == bytes_max => Err(too_long),
            None => {
                self.scanned = bytes.len();
                Ok(None)
            }
        }
    }

    /// What follows a size line that named `chunk_bytes`.
    fn part_after_size(&mut self, chunk_bytes: usize, limits: &Limits) -> Result<Part, FramingError> {
        if chunk_bytes == 0 {
            return Ok(Part::Trailer { start: self.read });
        }
        let body_bytes = self.end - self.start;
        if chunk_bytes > limits.body_bytes_max.saturating_sub(body_bytes) {
            return Err(FramingError::BodyTooLarge { bytes_max: limits.body_bytes_max });
        }
        let framing_bytes = self.read - body_bytes;
        if framing_bytes > limits.body_bytes_max.saturating_add(limits.head_bytes_max) {
            return Err(FramingError::ChunkFramingTooLarge);
        }
        if body_bytes == 0 {
            self.start = self.read;
            self.end = self.read;
        }
        Ok(Part::Data { bytes_left: chunk_bytes })
    }

    /// Joins the next `count` bytes to the body.
    fn take(&mut self, bytes: &mut [u8], count: usize) {
        if self.end != self.read {
            #[cfg(test)]
            crate::lines::work::count(count);
            bytes.copy_within(self.read..self.read + count, self.end);
        }
        self.read += count;
        self.end += count;
    }
}

/// The size that a line without its CRLF names: `1*HEXDIG`, then nothing or an extension, which is ignored.
/// The white space that RFC 9112 §7.1.1 tolerates before an extension is refused: no client sends it, and
/// parsers differ in what they make of it.
fn chunk_size(line: &[u8]) -> Result<usize, FramingError> {
    let mut size = 0_usize;
    let mut digits = 0;
    for &byte in line {
        let Some(digit) = char::from(byte).to_digit(16) else { break };
        if size > usize::MAX >> 4 {
            return Err(FramingError::ChunkSizeInvalid);
        }
        size = size << 4 | digit as usize;
        digits += 1;
    }
    let is_plain = match &line[digits..] {
        [] => true,
        [b';', extension @ ..] => extension.iter().all(|&b| is_text(b)),
        _ => false,
    };
    if digits == 0 || !is_plain { Err(FramingError::ChunkSizeInvalid) } else { Ok(size) }
}

/// Whether a line without its CRLF reads `name: value`, by the rules that hold in a head.
fn is_header_line(line: &[u8]) -> bool {
    match line.iter().position(|&b| b == b':') {
        None | Some(0) => false,
        Some(colon) => {
            line[..colon].iter().all(|&b| is_token(b)) && line[colon + 1..].iter().all(|&b| is_text(b))
        }
    }
}

/// A character of a header name (`tchar`, RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of a header value or a chunk extension: no control but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
