//! The request of a run: one template whose digits are set as it is copied out.
//!
//! Every sample is told apart from no other: it carries no timestamp, so the server must count each of them (SPEC
//! §2.1), and the count under the run's own name is the check at the end.
//! Always: the length never changes, so neither does `Content-Length`.
//! Not here: who sends it when.

use crate::plan::{Durability, SERIES_MAX};
use std::net::SocketAddr;

/// What every request of a run looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'a> {
    /// For the `Host` header.
    pub target: SocketAddr,
    /// Where it is posted to.
    pub path: &'a str,
    /// The name of every sample.
    pub name: &'a str,
    /// Samples in a request; 1 is sent as a single metric, more as `{"metrics":[…]}`.
    pub batch: u32,
    /// Label sets that each connection cycles through; 0 for one series without labels for all.
    pub series: u32,
    /// Asked for by header.
    pub durability: Option<Durability>,
}

/// Where one sample's digits stand in the template.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// Five characters, such as `42.17`.
    value: usize,
    connection: Option<usize>,
    series: Option<usize>,
}

/// The bytes, and the places that differ from request to request.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    samples: Vec<Places>,
    series: u32,
}

const LABEL_DIGITS: usize = 6;
const _: () = assert!(SERIES_MAX <= 10_u32.pow(LABEL_DIGITS as u32));

impl Template {
    /// Lays the request out.
    pub(crate) fn new(shape: &Shape<'_>) -> Template {
        let mut body = Vec::new();
        let mut samples = Vec::new();
        if shape.batch > 1 {
            body.extend_from_slice(b"{\"metrics\":[");
        }
        for sample in 0..shape.batch {
            if sample > 0 {
                body.push(b',');
            }
            samples.push(append_sample(shape, &mut body));
        }
        if shape.batch > 1 {
            body.extend_from_slice(b"]}");
        }
        let level =
            shape.durability.map(|level| format!("Durability: {}\r\n", level.name())).unwrap_or_default();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{level}Content-Length: {}\r\n\r\n",
            shape.path,
            shape.target,
            body.len()
        );
        for places in &mut samples {
            places.value += head.len();
            places.connection = places.connection.map(|at| at + head.len());
            places.series = places.series.map(|at| at + head.len());
        }
        let bytes = [head.as_bytes(), &body].concat();
        Template { bytes, samples, series: shape.series.max(1) }
    }

    /// Bytes of every request.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the request number `sequence` of a connection.
    pub(crate) fn append(&self, connection: u32, sequence: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        let mut nth = sequence.wrapping_mul(self.samples.len() as u64);
        for places in &self.samples {
            let hundredths = 1_000 + mix(u64::from(connection) << 40 ^ nth) % 9_000;
            write_digits(&mut request[places.value..places.value + 2], hundredths / 100);
            write_digits(&mut request[places.value + 3..places.value + 5], hundredths % 100);
            if let Some(at) = places.connection {
                write_digits(&mut request[at..at + LABEL_DIGITS], u64::from(connection));
            }
            if let Some(at) = places.series {
                write_digits(&mut request[at..at + LABEL_DIGITS], nth % u64::from(self.series));
            }
            nth = nth.wrapping_add(1);
        }
    }
}

/// Appends one metric with zeros for digits and says where they are.
fn append_sample(shape: &Shape<'_>, body: &mut Vec<u8>) -> Places {
    let mut digits = |before: &str, zeros: &str| {
        body.extend_from_slice(before.as_bytes());
        body.extend_from_slice(zeros.as_bytes());
        body.len() - zeros.len()
    };
    let zeros = "0".repeat(LABEL_DIGITS);
    let value = digits(&format!("{{\"name\":\"{}\",\"value\":", shape.name), "00.00");
    let connection = (shape.series > 0).then(|| digits(",\"labels\":{\"connection\":\"", &zeros));
    let series = (shape.series > 1).then(|| digits("\",\"series\":\"", &zeros));
    digits(if connection.is_some() { "\"}}" } else { "}" }, "");
    Places { value, connection, series }
}

/// Writes `number` right-aligned with leading zeros; what does not fit is cut on the left.
fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Spreads a counter over 64 bits (the finalizer of splitmix64).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Decoded, Decoder, Limits};
    use serde_json::Value;

    fn shape(batch: u32, series: u32) -> Shape<'static> {
        let target = "127.0.0.1:8080".parse().unwrap();
        Shape {
            target,
            path: "/metrics",
            name: "bench_1",
            batch,
            series,
            durability: Some(Durability::Written),
        }
    }

    /// The body, after the request was read by a decoder that refuses what is in doubt.
    fn body_of(template: &Template, connection: u32, sequence: u64) -> Value {
        let mut bytes = b"before".to_vec();
        template.append(connection, sequence, &mut bytes);
        let mut bytes = bytes.split_off(6);
        assert_eq!(bytes.len(), template.len());
        match Decoder::default().decode(&mut bytes, &Limits::default()).unwrap() {
            Decoded::Request { request, consumed } => {
                assert_eq!(request.path, "/metrics");
                assert_eq!(request.header("durability"), Some(&b"written"[..]));
                let body = serde_json::from_slice(request.body).unwrap();
                assert_eq!(consumed, template.len());
                body
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_single_metric_carries_its_connection_and_a_value_in_range() {
        let template = Template::new(&shape(1, 1));
        for sequence in 0..200 {
            let body = body_of(&template, 123, sequence);
            assert_eq!(body["name"], "bench_1");
            assert_eq!(body["labels"]["connection"], "000123");
            let value = body["value"].as_f64().unwrap();
            assert!((10.0..100.0).contains(&value), "{value}");
        }
        assert_ne!(body_of(&template, 1, 0)["value"], body_of(&template, 1, 1)["value"]);
    }

    #[test]
    fn a_batch_goes_round_the_series_of_its_connection() {
        let template = Template::new(&shape(4, 3));
        let series = |sequence| -> Vec<String> {
            let body = body_of(&template, 7, sequence);
            let metrics = body["metrics"].as_array().unwrap();
            metrics.iter().map(|metric| metric["labels"]["series"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(series(0), ["000000", "000001", "000002", "000000"]);
        assert_eq!(series(1), ["000001", "000002", "000000", "000001"]);
    }

    #[test]
    fn without_series_there_are_no_labels() {
        let body = body_of(&Template::new(&shape(1, 0)), 7, 0);
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    }
}
