//! Large bodies on their way to samples: decoded here for the loop that has no time for them.
//!
//! Always: a step takes some 0.1 ms, and then whatever else the executor has to do gets its turn.
//! Not here: which bodies are large (`front/exchange/large.rs`), what is in them (`ingest`).

use super::{Shard, send_to_loop};
use crate::api::IntakeError;
use crate::front::{LargeBatch, LargeBody};
use crate::message::ToLoop;
use http::CodingError;
use ingest::{MetricsDecoder, MetricsError, Shape};
use model::Batch;
use shard::executor;
use shard::net::ConnId;

/// Metrics of a large body decoded before others get their turn, some 0.1 ms.
const METRICS_PER_STEP: usize = 256;

/// Bytes of a compressed body made plain before others get their turn, some 0.1 ms; 0.5 ms where it gives nothing.
const PLAIN_BYTES_PER_STEP: usize = 64 * 1024;

/// Decodes a large body for a loop, in steps: 16 MiB take some 50 ms, and compressed as much again.
pub async fn run(shard: Shard, to: usize, conn: ConnId, body: LargeBody) {
    let counted_bytes = body.counted_bytes;
    let decoded = match decompress_in_steps(&shard, body).await {
        Ok(plain) => {
            executor::yield_if_needed().await;
            let seed = shard.borrow().shared.client_seed;
            decode_in_steps(&plain, seed).await.map_err(IntakeError::Body)
        }
        Err(error) => Err(IntakeError::Coding(error)),
    };
    send_to_loop(&shard, to, ToLoop::Decoded { conn, counted_bytes, decoded }).await;
}

async fn decompress_in_steps(shard: &Shard, body: LargeBody) -> Result<Vec<u8>, CodingError> {
    let Some(coding) = body.coding else { return Ok(body.bytes) };
    let bytes_max = shard.borrow().shared.config.http_body_bytes_max;
    let mut plain = Vec::new();
    let mut decompression = coding.begin(&body.bytes, bytes_max, &mut plain)?;
    while decompression.step(PLAIN_BYTES_PER_STEP)? {
        executor::yield_if_needed().await;
    }
    Ok(plain)
}

async fn decode_in_steps(plain: &[u8], seed: u64) -> Result<Box<LargeBatch>, MetricsError> {
    let mut text = String::with_capacity(plain.len());
    while ingest::take_text(plain, &mut text)? {
        executor::yield_if_needed().await;
    }
    let (mut decoder, mut batch) = (MetricsDecoder::new(seed), Batch::default());
    let mut decoding = decoder.begin(&text, &mut batch);
    while decoding.step(METRICS_PER_STEP) {
        executor::yield_if_needed().await;
    }
    let decoded = decoding.finish()?;
    let is_batch = decoded.shape == Shape::Batch;
    let client_id = decoded.client_id.map(|id| id.as_bytes().to_vec());
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), is_batch, client_id }))
}
