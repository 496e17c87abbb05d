//! Prometheus' remote write, version 1: a protobuf of time series, in snappy's block form.
//!
//! ```text
//! WriteRequest { 1: TimeSeries { 1: Label { 1: name, 2: value }…, 2: Sample { 1: double, 2: int64 milliseconds } }… }
//! snappy       varint length, then one literal: a block need not be compressed, and bytes that stand as they are can
//!              be changed in place
//! ```
//!
//! That spares the receiver the work of finding copies, so a comparison that rests on it is kind to the receiver.

use super::form::{Body, Coding, LABEL_DIGITS, Naming, Places};

/// Bytes of a timestamp: 35 to 42 bits, which holds from 1971 to 2109.
pub(super) const TIMESTAMP_BYTES: usize = 6;

/// A literal whose length stands in the next four bytes.
const LITERAL: u8 = 63 << 2;

const BYTES: u8 = 2;
const DOUBLE: u8 = 1;
const VARINT: u8 = 0;

const fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

/// The body of a batch, one time series a sample.
pub(super) fn body(naming: &Naming<'_>, batch: u32) -> Body {
    let mut message = Vec::new();
    let mut samples = Vec::new();
    for _ in 0..batch {
        let (series, places) = time_series(naming);
        message.push(key(1, BYTES));
        push_varint(&mut message, series.len() as u64);
        samples.push(places.behind(message.len()));
        message.extend_from_slice(&series);
    }
    let mut bytes = Vec::new();
    push_varint(&mut bytes, message.len() as u64);
    bytes.push(LITERAL);
    bytes.extend_from_slice(&((message.len() as u32).saturating_sub(1)).to_le_bytes());
    let samples = samples.into_iter().map(|places| places.behind(bytes.len())).collect();
    bytes.extend_from_slice(&message);
    Body { bytes, samples, coding: Coding::Binary }
}

/// Labels in the order of their names, as the receiver wants them.
fn time_series(naming: &Naming<'_>) -> (Vec<u8>, Places) {
    let mut out = Vec::new();
    push_label(&mut out, "__name__", naming.name);
    let zeros = "0".repeat(LABEL_DIGITS);
    let connection = naming.has_connection().then(|| push_label(&mut out, "connection", &zeros));
    let series = naming.has_series().then(|| push_label(&mut out, "series", &zeros));
    out.extend_from_slice(&[key(2, BYTES), (1 + 8 + 1 + TIMESTAMP_BYTES) as u8, key(1, DOUBLE)]);
    let value = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(key(2, VARINT));
    let timestamp = out.len();
    out.extend_from_slice(&[0; TIMESTAMP_BYTES]);
    (out, Places { value, connection, series, timestamp: Some(timestamp) })
}

/// Appends a label and says where its value stands.
fn push_label(out: &mut Vec<u8>, name: &str, value: &str) -> usize {
    let mut label = Vec::new();
    for (field, text) in [(1, name), (2, value)] {
        label.push(key(field, BYTES));
        push_varint(&mut label, text.len() as u64);
        label.extend_from_slice(text.as_bytes());
    }
    out.push(key(1, BYTES));
    push_varint(out, label.len() as u64);
    out.extend_from_slice(&label);
    out.len() - value.len()
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes milliseconds as a varint of [`TIMESTAMP_BYTES`].
pub(super) fn write_timestamp(place: &mut [u8], mut milliseconds: u64) {
    let (last, others) = place.split_last_mut().expect("the place is TIMESTAMP_BYTES long");
    for byte in others {
        *byte = milliseconds as u8 | 0x80;
        milliseconds >>= 7;
    }
    *last = milliseconds as u8 & 0x7f;
}
