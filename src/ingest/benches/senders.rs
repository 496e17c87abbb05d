//! What agents send, from body to batch: remote write of 2,000 series with 10 labels, one sample each and ten, and line
//! protocol of as many fields; when its series are not remembered, and when all have a number. Beside them snappy's own
//! part, and prost, which reads the same bytes into structs.
//!
//! `cargo bench -p ingest --bench senders` prints nanoseconds per sample, the least of some rounds; under `cargo test`
//! it runs one small round. Every round checks what it decoded.

use ingest::{LineDecoder, LineUnit, RemoteWriteDecoder, Repeat, TimeBounds};
use model::Batch;
use prost::Message;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

const NOW: i64 = 1_696_789_234_567;
const BOUNDS: TimeBounds = TimeBounds { oldest: Some(0), newest: NOW + 1_000 };
const NAME: &str = "node_network_receive_bytes_total";

/// The nine labels besides the name; one tells the series apart.
fn labels(series: usize) -> impl Iterator<Item = (String, String)> {
    (0..9).map(move |label| {
        let tells_apart = if label == 4 { series } else { 0 };
        (format!("label_{label:02}"), format!("value-of-label-{tells_apart:05}"))
    })
}

fn remote_write(series_count: usize, samples: usize) -> Vec<u8> {
    let label = |(name, value)| Label { name, value };
    let series = |n: usize| TimeSeries {
        labels: std::iter::once(("__name__".to_owned(), NAME.to_owned()))
            .chain(labels(n))
            .map(label)
            .collect(),
        samples: (0..samples).map(|at| Sample { value: 0.5, timestamp: NOW - at as i64 }).collect(),
    };
    WriteRequest { timeseries: (0..series_count).map(series).collect() }.encode_to_vec()
}

/// So many lines of two fields.
fn lines(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        text += NAME;
        for (name, value) in labels(n) {
            write!(text, ",{name}={value}").expect("a String takes every write");
        }
        writeln!(text, " value=0.5,rate=0.5 {NOW}000000").expect("a String takes every write");
    }
    text
}

/// The least time of a round, per sample.
fn least(rounds: usize, samples: usize, mut round: impl FnMut() -> usize) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let begin = Instant::now();
        let decoded = black_box(round());
        best = best.min(begin.elapsed().as_nanos() as f64 / samples as f64);
        assert_eq!(decoded, samples, "what was decoded is not what was sent");
    }
    best
}

fn main() {
    // `cargo test` passes no --bench.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (series, rounds) = if is_bench { (2_000, 300) } else { (20, 2) };
    println!("{:<34}{:>10}", "", "ns/sample");
    let row = |name: String, nanos: f64| println!("{name:<34}{nanos:>10.1}");
    let mut batch = Batch::default();
    for per_series in [1, 10] {
        let body = remote_write(series, per_series);
        let samples = series * per_series;
        let of = |what: &str| format!("remote write {per_series} a series, {what}");
        let compressed = snap::raw::Encoder::new().compress_vec(&body).expect("a body is far below 4 GiB");
        let mut plain = vec![0; body.len()];
        let nanos = least(rounds, samples, || {
            let bytes = snap::raw::Decoder::new().decompress(&compressed, &mut plain).expect("it is snappy");
            if bytes == body.len() { samples } else { 0 }
        });
        row(of("snappy"), nanos);
        let mut plain = RemoteWriteDecoder::new();
        let nanos = least(rounds, samples, || {
            let repeat = &mut Repeat::default();
            plain.decode(&body, &BOUNDS, &mut batch, repeat, |_| false).expect("the body is good");
            batch.len()
        });
        row(of("read"), nanos);
        let mut knowing = RemoteWriteDecoder::naming_repeats(7, 1 << 16);
        let mut repeat = Repeat::default();
        let nanos = least(rounds, samples, || {
            knowing.decode(&body, &BOUNDS, &mut batch, &mut repeat, |_| true).expect("the body is good");
            batch.len()
        });
        row(of("known"), nanos);
        let nanos = least(rounds.div_ceil(4), samples, || {
            let request = WriteRequest::decode(&body[..]).expect("the body is good");
            request.timeseries.iter().map(|series| series.samples.len()).sum()
        });
        row(of("prost"), nanos);
    }
    let text = lines(series);
    let terms = (LineUnit::Nanoseconds, &BOUNDS);
    let mut plain = LineDecoder::new();
    let nanos = least(rounds, 2 * series, || {
        let repeat = &mut Repeat::default();
        plain.decode(text.as_bytes(), terms, &mut batch, repeat, |_| false).expect("the lines are good");
        batch.len()
    });
    row("lines of two fields, read".to_owned(), nanos);
    let mut knowing = LineDecoder::naming_repeats(7, 1 << 16);
    let mut repeat = Repeat::default();
    let nanos = least(rounds, 2 * series, || {
        knowing
            .decode(text.as_bytes(), terms, &mut batch, &mut repeat, |_| true)
            .expect("the lines are good");
        batch.len()
    });
    row("lines of two fields, known".to_owned(), nanos);
}
