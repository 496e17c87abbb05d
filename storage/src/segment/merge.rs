//! Late samples into the chunks among which they fall.

use crate::chunk::{Chunk, ChunkError};
use crate::memtable::SeriesSlice;
use model::Sample;

/// The chunks of a series with its late samples among them, times rising over all.
///
/// ```text
/// for each chunk: late samples before it wait;
///   one falls into it → it is decoded, and waits with them, the late sample counting where times are equal
///   none does         → what waits is encoded, the chunk follows as it is
/// ```
pub fn merged(slice: SeriesSlice) -> Result<Vec<Chunk>, ChunkError> {
    if slice.late.is_empty() {
        return Ok(slice.chunks);
    }
    let mut late = slice.late.into_iter().peekable();
    let mut out = Vec::with_capacity(slice.chunks.len() + 1);
    let mut waiting: Vec<Sample> = Vec::new();
    for chunk in slice.chunks {
        while let Some(sample) = late.next_if(|sample| sample.timestamp < chunk.first()) {
            waiting.push(sample);
        }
        if late.peek().is_none_or(|sample| sample.timestamp > chunk.last()) {
            Chunk::encode_into(&waiting, &mut out);
            waiting.clear();
            out.push(chunk);
            continue;
        }
        for sample in chunk.samples() {
            let sample = sample?;
            while let Some(earlier) = late.next_if(|late| late.timestamp < sample.timestamp) {
                waiting.push(earlier);
            }
            waiting.push(late.next_if(|late| late.timestamp == sample.timestamp).unwrap_or(sample));
        }
    }
    waiting.extend(late);
    Chunk::encode_into(&waiting, &mut out);
    Ok(out)
}
