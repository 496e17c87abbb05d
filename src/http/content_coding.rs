//! Compressed bodies (`Content-Encoding`, RFC 9110 §8.4), made plain within a bound.
//!
//! Always: no more than the allowed bytes are ever written, however well a body is compressed, and the bound is
//! checked while decompressing; a stream that ends early or does not check is an error, never a shorter body (a
//! framed snappy stream has no end mark: cut between two of its chunks, it is whole to any reader).
//! Beside the output a body costs its decoder's state: 32 KiB for gzip, 64 KiB for snappy, and for zstd the
//! window that its frame asks for, at most 16 MiB.
//! Read next: `content_coding/snappy_block.rs` for the one format without streams.
//! Not here: how large a body may be, and what is told to a client that sends a worse one.

mod snappy_block;

use crate::headers::{Headers, list_members};
use flate2::bufread::MultiGzDecoder;
use snap::read::FrameDecoder;
use snappy_block::{Block, BlockError};
use std::fmt;
use std::io::{self, BufRead, Read};
use zstd::stream::read::Decoder as ZstdDecoder;

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

/// Why a body was not made plain at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAtOnce {
    /// Long parts of it give less than half of what they are: to be made plain in steps.
    GivesLittle,
    /// It cannot be made plain within the bound.
    Wrong(CodingError),
}

impl From<CodingError> for NotAtOnce {
    fn from(error: CodingError) -> NotAtOnce {
        NotAtOnce::Wrong(error)
    }
}

/// Log2 of the largest window that a zstd frame may ask for: 16 MiB, twice what RFC 8878 §3.1.1.1.2 wants of every
/// decoder, so levels up to 22 pass but for `--ultra` and `--long`.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// What a framed snappy stream begins with.
const SNAPPY_FRAMED_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// The output of a body that is made plain at once grows by this.
const PIECE_BYTES: usize = 64 * 1024;
/// A step takes so much less than it may give: a byte taken is up to 250 ns of work, one given 2 ns.
const GIVES_PER_TAKE: usize = 32;
/// Bytes that a body made plain at once may have where it gives little: 3 ms of work at worst.
const IN_VAIN_BYTES_MAX: usize = 16 * 1024;

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
    ///
    /// For bodies that a turn has time for. One that takes more work than it gives is told apart: of 256 KiB, empty
    /// gzip members take 65 ms, and empty deflate blocks with codes of their own 45.
    pub fn decompress(self, body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), NotAtOnce> {
        if self == ContentCoding::Snappy && !body.starts_with(SNAPPY_FRAMED_MAGIC) {
            return Ok(self.decompress_block(body, bytes_max, out)?);
        }
        let mut decompression = self.begin(body, bytes_max, out)?;
        let mut in_vain = 0;
        loop {
            let before = (decompression.taken(), decompression.out.len());
            let has_more = decompression.step(PIECE_BYTES)?;
            let took = decompression.taken() - before.0;
            if 2 * (decompression.out.len() - before.1) < took {
                in_vain += took;
            }
            if !has_more {
                return Ok(());
            }
            if in_vain > IN_VAIN_BYTES_MAX {
                return Err(NotAtOnce::GivesLittle);
            }
        }
    }

    /// A snappy block in one go: its library takes half as long as the steps do, for it may write beyond what it is to
    /// write, and over what is there (of remote write with 10 labels a sample 30 ns for 65).
    fn decompress_block(self, body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), CodingError> {
        if body.is_empty() {
            return Err(CodingError::Truncated(self));
        }
        // The same words for the same bytes as in steps: those say what is wrong with a block.
        let plain_len = Block::begin(body).map_err(|error| self.block_error(error))?.plain_len();
        if plain_len > bytes_max {
            out.clear();
            return Err(CodingError::TooLarge { bytes_max });
        }
        // What is there is written over, so that only growth is filled with zeros.
        out.resize(plain_len, 0);
        match snap::raw::Decoder::new().decompress(body, out) {
            Ok(_) => Ok(()),
            Err(_) => {
                let mut steps = self.begin(body, bytes_max, out)?;
                while steps.step(usize::MAX)? {}
                Ok(())
            }
        }
    }

    /// The same in steps.
    pub fn begin<'a>(
        self,
        body: &'a [u8],
        bytes_max: usize,
        out: &'a mut Vec<u8>,
    ) -> Result<Decompression<'a>, CodingError> {
        out.clear();
        if body.is_empty() {
            return Err(CodingError::Truncated(self));
        }
        let metered = Metered { rest: body, allowed: 0 };
        let source = match self {
            ContentCoding::Gzip => Source::Gzip(Box::new(MultiGzDecoder::new(metered))),
            ContentCoding::Zstd => {
                let mut decoder =
                    ZstdDecoder::with_buffer(metered).map_err(|_| CodingError::Corrupt(self))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CodingError::Corrupt(self))?;
                Source::Zstd(Box::new(decoder))
            }
            ContentCoding::Snappy if body.starts_with(SNAPPY_FRAMED_MAGIC) => {
                Source::SnappyFrames(Box::new(FrameDecoder::new(Chunks { metered, chunk: 0 })))
            }
            ContentCoding::Snappy => {
                let block = Block::begin(body).map_err(|error| self.block_error(error))?;
                // It says its plain length first, so it is refused before anything is written.
                if block.plain_len() > bytes_max {
                    return Err(CodingError::TooLarge { bytes_max });
                }
                out.reserve_exact(block.plain_len());
                Source::SnappyBlock(block)
            }
        };
        Ok(Decompression { coding: self, source, body_bytes: body.len(), bytes_max, out })
    }

    fn block_error(self, error: BlockError) -> CodingError {
        match error {
            BlockError::Truncated => CodingError::Truncated(self),
            BlockError::Corrupt => CodingError::Corrupt(self),
        }
    }

    fn stream_error(self, error: &io::Error) -> CodingError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => CodingError::Truncated(self),
            _ => CodingError::Corrupt(self),
        }
    }
}

/// A body that is being made plain.
///
/// A step is bounded by what it reads, too: a body of empty members gives nothing and is work all the same.
pub struct Decompression<'a> {
    coding: ContentCoding,
    source: Source<'a>,
    body_bytes: usize,
    bytes_max: usize,
    out: &'a mut Vec<u8>,
}

enum Source<'a> {
    Gzip(Box<MultiGzDecoder<Metered<'a>>>),
    Zstd(Box<ZstdDecoder<'static, Metered<'a>>>),
    SnappyFrames(Box<FrameDecoder<Chunks<'a>>>),
    SnappyBlock(Block<'a>),
}

impl Decompression<'_> {
    /// Gives up to `bytes`, or a little more, and takes up to a thirty-second of that (snappy, which is no work where
    /// it gives nothing, as much); `false` when the body is plain.
    pub fn step(&mut self, bytes: usize) -> Result<bool, CodingError> {
        let bytes = bytes.max(1);
        let taken = (bytes / GIVES_PER_TAKE).max(1);
        match &mut self.source {
            Source::Gzip(stream) => stream.get_mut().allowed = taken,
            Source::Zstd(stream) => stream.get_mut().allowed = taken,
            Source::SnappyFrames(stream) => stream.get_mut().metered.allowed = bytes,
            Source::SnappyBlock(block) => {
                return block.step(bytes, self.out).map_err(|error| self.coding.block_error(error));
            }
        }
        let mut len = self.out.len();
        let wanted = len.saturating_add(bytes);
        self.make_room(wanted.min(self.bytes_max));
        let has_more = loop {
            // Full to the last byte: whether that is all shows only when one more is asked for.
            let mut beyond = [0];
            let is_full = len == self.bytes_max;
            if len >= wanted && !is_full {
                break Ok(true);
            }
            let room = if is_full { &mut beyond[..] } else { &mut self.out[len..] };
            let read = match &mut self.source {
                Source::Gzip(stream) => stream.read(room),
                Source::Zstd(stream) => stream.read(room),
                Source::SnappyFrames(stream) => stream.read(room),
                Source::SnappyBlock(_) => Ok(0),
            };
            match read {
                Ok(0) => break Ok(false),
                Ok(_) if is_full => break Err(CodingError::TooLarge { bytes_max: self.bytes_max }),
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(true),
                Err(error) => break Err(self.coding.stream_error(&error)),
            }
        };
        self.out.truncate(len);
        has_more
    }

    /// Bytes of the body that were read.
    fn taken(&self) -> usize {
        let rest = match &self.source {
            Source::Gzip(stream) => stream.get_ref().rest.len(),
            Source::Zstd(stream) => stream.get_ref().rest.len(),
            Source::SnappyFrames(stream) => stream.get_ref().metered.rest.len(),
            // One block gives what it said.
            Source::SnappyBlock(_) => self.body_bytes,
        };
        self.body_bytes - rest
    }

    /// The room doubles, within the bound: what is moved is as much again in all, and what is not written costs
    /// nothing.
    fn make_room(&mut self, len: usize) {
        if self.out.capacity() < len {
            let capacity = (self.out.capacity() * 2).max(PIECE_BYTES).max(len).min(self.bytes_max);
            self.out.reserve_exact(capacity - self.out.len());
        }
        self.out.resize(len, 0);
    }
}

/// A body of which only so much may be read at once.
struct Metered<'a> {
    rest: &'a [u8],
    allowed: usize,
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.allowed == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.rest[..self.allowed.min(self.rest.len())])
    }

    fn consume(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.allowed -= bytes;
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(out)?;
        self.consume(len);
        Ok(len)
    }
}

/// A framed snappy stream, of which a chunk that is begun may be read whole: its decoder pauses only between two.
struct Chunks<'a> {
    metered: Metered<'a>,
    /// Bytes left of the chunk that is being read.
    chunk: usize,
}

impl Read for Chunks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.chunk == 0 {
            self.metered.fill_buf()?;
            self.chunk = match self.metered.rest {
                [_, a, b, c, ..] => 4 + u32::from_le_bytes([*a, *b, *c, 0]) as usize,
                cut => cut.len(),
            };
            self.metered.allowed = self.metered.allowed.max(self.chunk);
        }
        let len = out.len().min(self.chunk);
        let len = self.metered.read(&mut out[..len])?;
        self.chunk -= len;
        Ok(len)
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
