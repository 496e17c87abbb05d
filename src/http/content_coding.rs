//! Compressed bodies (`Content-Encoding`, RFC 9110 §8.4), made plain within a bound.
//!
//! Always: no more than the allowed bytes are ever written, however well a body is compressed, and the bound is
//! checked while decompressing; a stream that ends early or does not check is an error, never a shorter body (a
//! framed snappy stream has no end mark: cut between two of its chunks, it is whole to any reader).
//! Beside the output a body costs its decoder's state: 32 KiB for gzip, 64 KiB for snappy, and for zstd the
//! window that its frame asks for, at most 16 MiB.
//! Not here: how large a body may be, and what is told to a client that sends a worse one.

use crate::headers::{Headers, list_members};
use std::fmt;
use std::io::{self, Read};

/// A coding that bodies may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// `gzip`, of one member or several (RFC 1952).
    Gzip,
    /// `zstd`, of one frame or several (RFC 8878).
    Zstd,
    /// `snappy`: one block, as Prometheus sends it, or the framed format where its magic is there.
    Snappy,
}

/// Codings that are not taken: an unknown one, or several on top of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedCoding;

/// Why a body did not become plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodingError {
    /// It is larger than allowed once it is plain.
    TooLarge {
        /// The bytes allowed.
        bytes_max: usize,
    },
    /// It ends before its stream does.
    Truncated(ContentCoding),
    /// It is no such stream, or its checksum does not hold.
    Corrupt(ContentCoding),
}

/// Log2 of the largest window that a zstd frame may ask for: 16 MiB, twice what RFC 8878 §3.1.1.1.2 wants of every
/// decoder, so levels up to 22 pass but for `--ultra` and `--long`.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// What a framed snappy stream begins with.
const SNAPPY_FRAMED_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// The output grows by this at first.
const FIRST_PIECE_BYTES: usize = 16 * 1024;

impl ContentCoding {
    /// The names that are taken, as a client should read them.
    pub const NAMES: &str = "gzip, zstd, snappy";

    /// The one coding that all `Content-Encoding` lines together name; none when they are absent or `identity`.
    pub fn of(headers: &Headers<'_>) -> Result<Option<ContentCoding>, UnsupportedCoding> {
        let mut found = None;
        for member in headers.get_all("content-encoding").flat_map(list_members) {
            if member.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let coding = ContentCoding::from_name(member).ok_or(UnsupportedCoding)?;
            if found.replace(coding).is_some() {
                return Err(UnsupportedCoding);
            }
        }
        Ok(found)
    }

    fn from_name(name: &[u8]) -> Option<ContentCoding> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("gzip") || is("x-gzip") {
            Some(ContentCoding::Gzip)
        } else if is("zstd") {
            Some(ContentCoding::Zstd)
        } else if is("snappy") {
            Some(ContentCoding::Snappy)
        } else {
            None
        }
    }

    /// The name as it is written.
    pub fn name(self) -> &'static str {
        match self {
            ContentCoding::Gzip => "gzip",
            ContentCoding::Zstd => "zstd",
            ContentCoding::Snappy => "snappy",
        }
    }

    /// Writes the plain form of `body` over what is in `out`, at most `bytes_max` bytes. After an error `out` holds
    /// nothing of use.
    pub fn decompress(self, body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodingError> {
        out.clear();
        if body.is_empty() {
            return Err(CodingError::Truncated(self));
        }
        match self {
            ContentCoding::Gzip => self.read(flate2::bufread::MultiGzDecoder::new(body), bytes_max, out),
            ContentCoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(body).map_err(|_| CodingError::Corrupt(self))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CodingError::Corrupt(self))?;
                self.read(decoder, bytes_max, out)
            }
            ContentCoding::Snappy if body.starts_with(SNAPPY_FRAMED_MAGIC) => {
                self.read(snap::read::FrameDecoder::new(body), bytes_max, out)
            }
            ContentCoding::Snappy => self.decompress_block(body, bytes_max, out),
        }
    }

    /// A block says its plain length first, so it is refused before anything is written.
    fn decompress_block(self, body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodingError> {
        let len = snap::raw::decompress_len(body).map_err(|error| self.snappy_error(&error))?;
        if len > bytes_max {
            return Err(CodingError::TooLarge { bytes_max });
        }
        out.resize(len, 0);
        match snap::raw::Decoder::new().decompress(body, out) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.snappy_error(&error)),
        }
    }

    /// A block does not know its compressed length: it was cut where a literal or a copy lacks bytes, or where too
    /// little came out.
    fn snappy_error(self, error: &snap::Error) -> CodingError {
        match error {
            snap::Error::HeaderMismatch { expected_len, got_len } if got_len < expected_len => {
                CodingError::Truncated(self)
            }
            snap::Error::Literal { .. } | snap::Error::CopyRead { .. } => CodingError::Truncated(self),
            _ => CodingError::Corrupt(self),
        }
    }

    /// Reads to the end of the stream, one byte beyond the bound at most, which is thrown away.
    fn read(self, mut stream: impl Read, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodingError> {
        let mut len = 0;
        loop {
            if len == out.len() {
                if len == bytes_max {
                    break;
                }
                out.resize((len * 2).max(FIRST_PIECE_BYTES).min(bytes_max), 0);
            }
            match stream.read(&mut out[len..]) {
                Ok(0) => {
                    out.truncate(len);
                    return Ok(());
                }
                Ok(read) => len += read,
                Err(error) => return Err(self.stream_error(&error)),
            }
        }
        // Full to the last byte: whether that is all shows only when one more is asked for.
        match stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(CodingError::TooLarge { bytes_max }),
            Err(error) => Err(self.stream_error(&error)),
        }
    }

    fn stream_error(self, error: &io::Error) -> CodingError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => CodingError::Truncated(self),
            _ => CodingError::Corrupt(self),
        }
    }
}

impl fmt::Display for CodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodingError::TooLarge { bytes_max } => {
                write!(f, "the body is larger than {bytes_max} bytes once decompressed; split it")
            }
            CodingError::Truncated(coding) => {
                write!(f, "the body ends before its {} stream does; send it whole", coding.name())
            }
            CodingError::Corrupt(ContentCoding::Zstd) => {
                f.write_str("the body is no valid zstd stream, or its window is larger than 16 MiB")
            }
            CodingError::Corrupt(coding) => {
                write!(f, "the body is no valid {} stream; check Content-Encoding", coding.name())
            }
        }
    }
}

impl std::error::Error for CodingError {}

#[cfg(test)]
mod tests;
