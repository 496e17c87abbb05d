//! Three ways from a body to a batch, label sets canonicalised in each: our decoder, simd-json with reused
//! buffers, and serde_json. The latter two read into borrowed structs, the kindest form for them, and know
//! neither positions in a metric nor the rules of SPEC §2.1, so they do less.
//!
//! `cargo bench -p ingest --bench metrics_json` prints nanoseconds per body and per byte, the least of some
//! rounds. Under `cargo test` it runs one small round. Every round checks what it decoded.

use ingest::{MetricsDecoder, Repeat, take_text};
use model::{Batch, LabelError, LabelSetBuilder, MetricKind, Timestamp};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::hint::black_box;
use std::time::Instant;

#[derive(Deserialize)]
struct Metric<'a> {
    name: &'a str,
    value: f64,
    timestamp: Option<i64>,
    #[serde(borrow, default, deserialize_with = "pairs")]
    tags: Vec<(&'a str, &'a str)>,
}

#[derive(Deserialize)]
struct Wrapper<'a> {
    #[serde(borrow)]
    metrics: Vec<Metric<'a>>,
}

/// Tags as pairs: no map is built.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(&'de str, &'de str)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(&'de str, &'de str)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

fn push(metric: &Metric<'_>, builder: &mut LabelSetBuilder, batch: &mut Batch) -> Result<(), LabelError> {
    builder.begin(metric.name)?;
    for (name, value) in &metric.tags {
        builder.push(name, value)?;
    }
    let timestamp = metric.timestamp.and_then(|millis| Timestamp::from_millis(millis).ok());
    batch.push(|out| builder.finish_into(out), MetricKind::Gauge, timestamp, metric.value)
}

/// One way to decode; `is_batch` is told, so the twins need not try both shapes.
trait Way {
    fn name(&self) -> &'static str;
    fn decode(&mut self, body: &[u8], is_batch: bool, batch: &mut Batch);
}

struct Ours(MetricsDecoder);

impl Way for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }
    fn decode(&mut self, body: &[u8], _: bool, batch: &mut Batch) {
        self.0.decode(body, batch, &mut Repeat::default()).expect("the body is good");
    }
}

#[derive(Default)]
struct SimdJson {
    buffers: simd_json::Buffers,
    /// It parses in place, so it needs the bytes for itself.
    body: Vec<u8>,
    builder: LabelSetBuilder,
}

impl Way for SimdJson {
    fn name(&self) -> &'static str {
        "simd-json"
    }
    fn decode(&mut self, body: &[u8], is_batch: bool, batch: &mut Batch) {
        batch.clear();
        self.body.clear();
        self.body.extend_from_slice(body);
        let (body, buffers) = (&mut self.body[..], &mut self.buffers);
        if is_batch {
            let wrapper: Wrapper<'_> =
                simd_json::serde::from_slice_with_buffers(body, buffers).expect("the body is good");
            for metric in &wrapper.metrics {
                push(metric, &mut self.builder, batch).expect("the metric is good");
            }
        } else {
            let metric = simd_json::serde::from_slice_with_buffers(body, buffers).expect("the body is good");
            push(&metric, &mut self.builder, batch).expect("the metric is good");
        }
    }
}

#[derive(Default)]
struct SerdeJson {
    builder: LabelSetBuilder,
}

impl Way for SerdeJson {
    fn name(&self) -> &'static str {
        "serde_json"
    }
    fn decode(&mut self, body: &[u8], is_batch: bool, batch: &mut Batch) {
        batch.clear();
        if is_batch {
            let wrapper: Wrapper<'_> = serde_json::from_slice(body).expect("the body is good");
            for metric in &wrapper.metrics {
                push(metric, &mut self.builder, batch).expect("the metric is good");
            }
        } else {
            let metric = serde_json::from_slice(body).expect("the body is good");
            push(&metric, &mut self.builder, batch).expect("the metric is good");
        }
    }
}

struct Case {
    name: &'static str,
    /// Taken in turns.
    bodies: Vec<String>,
    is_batch: bool,
    samples: usize,
    sum: f64,
}

fn cases() -> Vec<Case> {
    let tagged = |i: usize, host: usize| {
        format!(
            r#"{{"name":"cpu_usage","value":{i}.5,"timestamp":16967892345{:02},"tags":{{"region":"eu-west","host":"server{host:06}"}}}}"#,
            i % 100
        )
    };
    let batch_from = |host: usize| {
        let members: Vec<String> = (0..100).map(|i| tagged(i, host + i)).collect();
        format!(r#"{{"metrics":[{}]}}"#, members.join(","))
    };
    vec![
        Case {
            name: "small",
            bodies: vec![r#"{"name":"cpu_usage","value":85}"#.to_owned()],
            is_batch: false,
            samples: 1,
            sum: 85.0,
        },
        Case { name: "tagged", bodies: vec![tagged(7, 7)], is_batch: false, samples: 1, sum: 7.5 },
        Case {
            name: "batch of 100",
            bodies: vec![batch_from(0)],
            is_batch: true,
            samples: 100,
            sum: 5_000.0,
        },
        // 60,000 hosts, more than a decoder remembers.
        Case {
            name: "100, all new",
            bodies: (0..600).map(|body| batch_from(body * 100)).collect(),
            is_batch: true,
            samples: 100,
            sum: 5_000.0,
        },
    ]
}

/// A large body in steps as an executor takes them: the whole and the longest step, each step the least of all
/// rounds, for a shared machine takes the core away at times.
fn in_steps(name: &str, body: &str, samples: usize, rounds: usize) {
    const METRICS_PER_STEP: usize = 256;
    let mut least: Vec<f64> = Vec::new();
    for _ in 0..rounds {
        let mut next = 0;
        let mut time = |step: &mut dyn FnMut() -> bool| {
            let start = Instant::now();
            let more = step();
            let us = start.elapsed().as_secs_f64() * 1e6;
            match least.get_mut(next) {
                Some(least) => *least = us.min(*least),
                None => least.push(us),
            }
            next += 1;
            more
        };
        let mut text = String::with_capacity(body.len());
        while time(&mut || take_text(body.as_bytes(), &mut text).expect("it is text")) {}
        let (mut decoder, mut batch) = (MetricsDecoder::new(7), Batch::default());
        let mut decoding = decoder.begin(&text, &mut batch);
        while time(&mut || decoding.step(METRICS_PER_STEP)) {}
        decoding.finish().expect("the body is good");
        assert_eq!(batch.len(), samples);
    }
    let (total_ms, longest_us) = (least.iter().sum::<f64>() / 1e3, least.iter().copied().fold(0.0, f64::max));
    println!(
        "{name:24} {:>9} bytes in {:>5} steps: {total_ms:>7.1} ms, longest step {longest_us:>7.0} us",
        body.len(),
        least.len()
    );
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, bytes_a_round) = if is_bench { (15, 16 << 20) } else { (1, 1 << 10) };
    let mut ways: [Box<dyn Way>; 3] =
        [Box::new(Ours(MetricsDecoder::new(7))), Box::<SimdJson>::default(), Box::<SerdeJson>::default()];
    let mut batch = Batch::default();
    println!("{:14} {:>6}  {:12} {:>9} {:>8}", "body", "bytes", "way", "ns/body", "ns/byte");
    for case in cases() {
        let turns = (bytes_a_round / case.bodies[0].len()).clamp(1, 200_000);
        let mut least = [f64::INFINITY; 3];
        // The ways take turns, so that a noisy moment meets them all.
        for _ in 0..rounds {
            for (way, least) in ways.iter_mut().zip(&mut least) {
                let start = Instant::now();
                for body in case.bodies.iter().cycle().take(turns) {
                    way.decode(black_box(body.as_bytes()), case.is_batch, &mut batch);
                    black_box(&batch);
                }
                *least = least.min(start.elapsed().as_secs_f64() * 1e9 / turns as f64);
                let sum: f64 = batch.rows().map(|row| row.value).sum();
                assert_eq!((batch.len(), sum), (case.samples, case.sum), "{} by {}", case.name, way.name());
            }
        }
        for (way, ns) in ways.iter().zip(least) {
            let bytes = case.bodies[0].len();
            println!("{:14} {bytes:>6}  {:12} {ns:>9.1} {:>8.3}", case.name, way.name(), ns / bytes as f64);
        }
    }
    let copies = if is_bench { 1_500 } else { 20 };
    let batch = &cases()[2];
    let members = batch.bodies[0].trim_start_matches(r#"{"metrics":["#).trim_end_matches("]}");
    let large = format!("[{}]", vec![members; copies].join(","));
    in_steps("a large batch", &large, batch.samples * copies, rounds);
    let ignored = format!(r#"{{"name":"a","value":1,"ignored":{large}}}"#);
    in_steps("one value passed over", &ignored, 1, rounds);
}
