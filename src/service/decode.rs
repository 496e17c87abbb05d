//! Large bodies on their way to samples: decoded here for the loop that has no time for them.
//!
//! Always: a step takes some 0.1 ms, and then whatever else the executor has to do gets its turn.
//! Not here: which bodies are large (`front/exchange/large.rs`), what is in them (`ingest`).

use super::{Shard, send_to_loop};
use crate::api::{Door, InfluxVersion, IntakeError};
use crate::front::{Accepted, LARGE_BODY_BYTES, LargeBatch, LargeBody, is_json};
use crate::message::ToLoop;
use http::CodingError;
use ingest::{
    ImportDecoder, ImportError, ImportForm, LineDecoder, LineError, LineUnit, MetricsDecoder, MetricsError,
    RemoteWriteDecoder, RemoteWriteError, TimeBounds,
};
use model::Batch;
use shard::executor;
use shard::net::ConnId;

/// Metrics of a large body decoded before others get their turn, some 0.1 ms.
const METRICS_PER_STEP: usize = 256;

/// Lines of line protocol, some 0.5 µs each.
const LINES_PER_STEP: usize = 256;

/// Series and samples of a remote write; one of 10 labels is 0.3 µs.
const REMOTE_WRITE_FIELDS_PER_STEP: usize = 512;

/// Bytes of a compressed body made plain before others get their turn, some 0.1 ms; 0.5 ms where it gives nothing.
const PLAIN_BYTES_PER_STEP: usize = 64 * 1024;

/// Decodes a large body for a loop, in steps: 16 MiB take some 50 ms, and compressed as much again.
pub async fn run(shard: Shard, to: usize, conn: ConnId, body: Box<LargeBody>) {
    let LargeBody { door, bounds, counted_bytes, .. } = *body;
    let decoded = match decompress_in_steps(&shard, body).await {
        Ok(plain) => {
            executor::yield_if_needed().await;
            let seed = shard.borrow().shared.client_seed;
            match door {
                Door::Metrics => decode_in_steps(&plain, seed).await.map_err(IntakeError::Body),
                Door::Lines { version: InfluxVersion::One, .. } if is_json(&plain) => {
                    decode_measurement(&plain, seed)
                }
                Door::Lines { unit, .. } => {
                    decode_lines(&plain, (unit, &bounds)).await.map_err(IntakeError::Lines)
                }
                Door::Import(form) => {
                    let decoded = decode_import(&plain, (form, &bounds)).await.map_err(IntakeError::Import);
                    decoded.map(|batch| {
                        let accepted = Accepted::Batch { count: batch.batch.len() };
                        Box::new(LargeBatch { accepted, ..*batch })
                    })
                }
                Door::Exposition => {
                    let form = ImportForm::Exposition;
                    decode_import(&plain, (form, &bounds)).await.map_err(IntakeError::Import)
                }
                Door::RemoteWrite => {
                    decode_remote_write(&plain, &bounds).await.map_err(IntakeError::RemoteWrite)
                }
            }
        }
        Err(error) => Err(IntakeError::Coding(error)),
    };
    send_to_loop(&shard, to, ToLoop::Decoded { conn, counted_bytes, decoded }).await;
}

async fn decompress_in_steps(shard: &Shard, body: Box<LargeBody>) -> Result<Vec<u8>, CodingError> {
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
    let (shape, client_id) = (decoded.shape, decoded.client_id.map(|id| id.as_bytes().to_vec()));
    let accepted = Accepted::metrics(shape, batch.len());
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), accepted, client_id }))
}

/// One measurement, in one step.
fn decode_measurement(plain: &[u8], seed: u64) -> Result<Box<LargeBatch>, IntakeError> {
    if plain.len() > LARGE_BODY_BYTES {
        let why = format!(
            "a measurement as JSON may have {LARGE_BODY_BYTES} bytes; line protocol has no such bound"
        );
        return Err(IntakeError::TooLarge(why));
    }
    let mut batch = Batch::default();
    MetricsDecoder::new(seed).decode_measurement(plain, &mut batch).map_err(IntakeError::Body)?;
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), accepted: Accepted::Single, client_id: None }))
}

async fn decode_lines(plain: &[u8], terms: (LineUnit, &TimeBounds)) -> Result<Box<LargeBatch>, LineError> {
    let mut text = String::with_capacity(plain.len());
    while ingest::take_text(plain, &mut text).map_err(|_| LineError::not_utf8(plain, text.len()))? {
        executor::yield_if_needed().await;
    }
    let (mut decoder, mut batch) = (LineDecoder::new(), Batch::default());
    let mut decoding = decoder.begin(&text, terms, &mut batch);
    while decoding.step(LINES_PER_STEP) {
        executor::yield_if_needed().await;
    }
    let accepted = Accepted::Lines { texts: decoding.finish()?.texts };
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), accepted, client_id: None }))
}

async fn decode_import(
    plain: &[u8],
    terms: (ImportForm, &TimeBounds),
) -> Result<Box<LargeBatch>, ImportError> {
    let mut text = String::with_capacity(plain.len());
    while ingest::take_text(plain, &mut text).map_err(|_| ImportError::not_utf8(plain, text.len()))? {
        executor::yield_if_needed().await;
    }
    let (mut decoder, mut batch) = (ImportDecoder::new(), Batch::default());
    let mut decoding = decoder.begin(&text, terms, &mut batch);
    while decoding.step(LINES_PER_STEP) {
        executor::yield_if_needed().await;
    }
    decoding.finish()?;
    let accepted = Accepted::Lines { texts: 0 };
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), accepted, client_id: None }))
}

async fn decode_remote_write(plain: &[u8], bounds: &TimeBounds) -> Result<Box<LargeBatch>, RemoteWriteError> {
    let (mut decoder, mut batch) = (RemoteWriteDecoder::new(), Batch::default());
    let mut decoding = decoder.begin(plain, bounds, &mut batch);
    while decoding.step(REMOTE_WRITE_FIELDS_PER_STEP) {
        executor::yield_if_needed().await;
    }
    let written = Box::new(decoding.finish()?);
    let accepted = Accepted::Remote { samples: batch.len(), written, over_limit: None };
    Ok(Box::new(LargeBatch { batch, plain_bytes: plain.len(), accepted, client_id: None }))
}
