//! Prometheus' remote write, version 1: a protobuf of time series, in snappy's block form.
//!
//! ```text
//! WriteRequest { 1: TimeSeries { 1: Label { 1: name, 2: value }…, 2: Sample { 1: double, 2: int64 milliseconds }… }… }
//! snappy       varint length, then literals and copies
//! ```
//!
//! A compressor finds what series have in common and writes it as copies of up to 64 bytes from the series before; so
//! does this, but for the bytes that change from request to request: those stand as literals, so that they can be
//! changed in place. A receiver has the elements to take apart that it would have of a true compressor, about.

use super::form::{Body, Coding, LABEL_DIGITS, Naming, Places};

/// Bytes of a timestamp: 35 to 42 bits, which holds from 1971 to 2109.
pub(super) const TIMESTAMP_BYTES: usize = 6;

const BYTES: u8 = 2;
const DOUBLE: u8 = 1;
const VARINT: u8 = 0;

const fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

/// The body of a batch: time series of so many samples each as the naming says; the last may have fewer.
pub(super) fn body(naming: &Naming<'_>, batch: u32) -> Body {
    let mut plain = Vec::new();
    let mut snappy = Snappy::default();
    let mut samples = Vec::new();
    let mut left = batch;
    while left > 0 {
        let count = left.min(naming.run.max(1));
        left -= count;
        let (series, places) = time_series(naming, count);
        let start = plain.len();
        plain.push(key(1, BYTES));
        push_varint(&mut plain, series.len() as u64);
        let head = plain.len();
        plain.extend_from_slice(&series);
        // What lies between two holes is as in the series before, if that is as long.
        let mut at = start;
        for places in places {
            let mut placed = places;
            for (hole, len) in [(&mut placed.connection, LABEL_DIGITS), (&mut placed.series, LABEL_DIGITS)] {
                if let Some(hole) = hole {
                    snappy.common(&plain, at..head + *hole);
                    at = head + *hole + len;
                    *hole = snappy.literal(&plain[at - len..at]);
                }
            }
            snappy.common(&plain, at..head + placed.value);
            at = head + placed.value + VALUE_BYTES;
            placed.value = snappy.literal(&plain[at - VALUE_BYTES..at]);
            if let Some(hole) = &mut placed.timestamp {
                snappy.common(&plain, at..head + *hole);
                at = head + *hole + TIMESTAMP_BYTES;
                *hole = snappy.literal(&plain[at - TIMESTAMP_BYTES..at]);
            }
            samples.push(placed);
        }
        snappy.common(&plain, at..plain.len());
        snappy.series_bytes = plain.len() - start;
    }
    let mut bytes = Vec::new();
    push_varint(&mut bytes, plain.len() as u64);
    let head = bytes.len();
    bytes.extend_from_slice(&snappy.out);
    let samples = samples.into_iter().map(|places| places.behind(head)).collect();
    Body { bytes, samples, coding: Coding::Binary }
}

const VALUE_BYTES: usize = 8;

/// The elements of a block.
#[derive(Default)]
struct Snappy {
    out: Vec<u8>,
    /// Bytes of the series before, 0 for the first.
    series_bytes: usize,
}

impl Snappy {
    /// Bytes that are as they were in the series before, or stand for themselves in the first.
    fn common(&mut self, plain: &[u8], range: std::ops::Range<usize>) {
        const COPY_BYTES_MAX: usize = 64;
        const LITERAL_BYTES_MAX: usize = 60;
        let is_copy = |at: usize, len: usize| {
            let from = at.checked_sub(self.series_bytes).filter(|_| self.series_bytes > 0);
            from.is_some_and(|from| plain[from..from + len] == plain[at..at + len])
        };
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let len = COPY_BYTES_MAX.min(range.end - at);
            let copies = len >= 4 && is_copy(at, len);
            let len = if copies { len } else { len.min(LITERAL_BYTES_MAX) };
            pieces.push((at, len, copies));
            at += len;
        }
        for (at, len, copies) in pieces {
            if copies && self.series_bytes <= usize::from(u16::MAX) {
                self.out.push((len as u8 - 1) << 2 | 2);
                self.out.extend_from_slice(&(self.series_bytes as u16).to_le_bytes());
            } else {
                self.literal(&plain[at..at + len]);
            }
        }
    }

    /// Up to 60 bytes as they are; says where they stand.
    fn literal(&mut self, bytes: &[u8]) -> usize {
        let mut at = self.out.len();
        for piece in bytes.chunks(60) {
            self.out.push((piece.len() as u8 - 1) << 2);
            at = self.out.len();
            self.out.extend_from_slice(piece);
        }
        at
    }
}

/// Labels in the order of their names, as the receiver wants them, and where each sample's holes are.
fn time_series(naming: &Naming<'_>, count: u32) -> (Vec<u8>, Vec<Places>) {
    let mut out = Vec::new();
    push_label(&mut out, "__name__", naming.name);
    let zeros = "0".repeat(LABEL_DIGITS);
    let mut connection = naming.has_connection().then(|| push_label(&mut out, "connection", &zeros));
    for label in 0..naming.labels {
        // As long as those that people write: `kubernetes_namespace="monitoring-system"`.
        push_label(&mut out, &format!("label_{label:02}"), &format!("value-of-label-{label:02}"));
    }
    let mut series = naming.has_series().then(|| push_label(&mut out, "series", &zeros));
    let mut samples = Vec::new();
    for _ in 0..count {
        out.extend_from_slice(&[key(2, BYTES), (1 + 8 + 1 + TIMESTAMP_BYTES) as u8, key(1, DOUBLE)]);
        let value = out.len();
        out.extend_from_slice(&[0; VALUE_BYTES]);
        out.push(key(2, VARINT));
        let timestamp = Some(out.len());
        out.extend_from_slice(&[0; TIMESTAMP_BYTES]);
        samples.push(Places { value, connection: connection.take(), series: series.take(), timestamp });
    }
    (out, samples)
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
