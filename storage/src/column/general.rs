//! What another codec made, compressed once more: for data that is cold, where that saves a tenth.
//!
//! ```text
//!   codec u8 │ zstd frame of what that codec made
//! ```

use super::{COLUMN_BYTES_MAX, Codec, ColumnError};
use std::io;
use zstd::bulk::{Compressor, Decompressor};

/// Beyond it nothing was won on the lab's data, and it costs more.
const LEVEL: i32 = 3;
/// Of ten parts so many may be left.
const PARTS_LEFT_MAX: usize = 9;
/// What a context takes beside what is in it, about: tables for inputs of a column's size.
const CONTEXT_BYTES: usize = 160 * 1024;

/// The library's contexts, made when first needed: each takes some hundred kilobytes.
#[derive(Default)]
pub(super) struct Contexts {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    buffer: Vec<u8>,
}

impl Contexts {
    pub(super) fn bytes(&self) -> usize {
        let contexts = usize::from(self.compressor.is_some()) + usize::from(self.decompressor.is_some());
        contexts * CONTEXT_BYTES + self.buffer.capacity()
    }
}

/// Replaces what stands in `out` from `from` on, made by `codec`, if it becomes a tenth smaller; says whether it did.
pub(super) fn compress(codec: Codec, from: usize, contexts: &mut Contexts, out: &mut Vec<u8>) -> bool {
    let plain = &out[from..];
    if compressed(plain, contexts).is_err() {
        // No memory for a context, say: the column stays as it is.
        return false;
    }
    if (contexts.buffer.len() + 1) * 10 > plain.len() * PARTS_LEFT_MAX {
        return false;
    }
    out.truncate(from);
    out.push(codec as u8);
    out.extend_from_slice(&contexts.buffer);
    true
}

fn compressed(plain: &[u8], contexts: &mut Contexts) -> io::Result<()> {
    let compressor = match &mut contexts.compressor {
        Some(compressor) => compressor,
        none => none.insert(Compressor::new(LEVEL)?),
    };
    contexts.buffer.clear();
    contexts.buffer.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    compressor.compress_to_buffer(plain, &mut contexts.buffer)?;
    Ok(())
}

/// The codec within, and what it made: at most as many bytes as a column has.
pub(super) fn decompress<'a>(
    bytes: &[u8],
    contexts: &'a mut Contexts,
) -> Result<(Codec, &'a [u8]), ColumnError> {
    let (&codec, frame) = bytes.split_first().ok_or(ColumnError::TooShort)?;
    let codec = Codec::ALL.get(usize::from(codec)).filter(|&&codec| codec != Codec::General);
    let codec = *codec.ok_or(ColumnError::Form)?;
    if contexts.decompressor.is_none() {
        contexts.decompressor = Some(Decompressor::new().map_err(|_| ColumnError::Form)?);
    }
    let decompressor = contexts.decompressor.as_mut().expect("it was made above");
    contexts.buffer.clear();
    contexts.buffer.reserve(COLUMN_BYTES_MAX);
    decompressor.decompress_to_buffer(frame, &mut contexts.buffer).map_err(|_| ColumnError::Form)?;
    Ok((codec, &contexts.buffer))
}
