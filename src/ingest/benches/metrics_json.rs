//! Three ways from a body to a batch, label sets canonicalised in each: our decoder, simd-json with reused
//! buffers, and serde_json. The latter two read into borrowed structs, the kindest form for them, and know
//! neither positions in a metric nor the rules of SPEC §2.1, so they do less. Beside them simd-json's own speed: its
//! tape, the least that it can be asked for, which nobody has read yet.
//!
//! `cargo bench -p ingest --bench metrics_json` prints nanoseconds per body and per byte, the least of some
//! rounds, and ends with an error if our way takes more than [`RATIO_MAX`] of that tape's time on the bodies of
//! `bench/scenarios/batch-100-two-tags.toml`. Under `cargo test` it runs one small round. Every round checks what it
//! decoded.

use ingest::{MetricsDecoder, Repeat, take_text};
use model::{Batch, LabelError, LabelSetBuilder, MetricKind, Timestamp};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use simd_json::{Node, StaticNode, Tape};
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

/// Issue 4: our time on the scenario's bodies, at most so many times that of simd-json's tape.
const RATIO_MAX: f64 = 1.3;

/// One body, and what the ways are told of it: whose it is, and its shape, so the twins need not try both.
#[derive(Clone, Copy)]
struct Sent<'a> {
    body: &'a [u8],
    sender: usize,
    is_batch: bool,
}

/// One way to decode.
trait Way {
    fn name(&self) -> &'static str;
    fn decode(&mut self, sent: Sent<'_>, batch: &mut Batch);

    /// Samples and the sum of their values, of the body that was decoded last; not timed.
    fn sum(&self, batch: &Batch) -> (usize, f64) {
        (batch.len(), batch.rows().map(|row| row.value).sum())
    }
}

struct Ours {
    decoder: MetricsDecoder,
    /// Of each sender.
    repeats: Vec<Repeat>,
}

impl Way for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }
    fn decode(&mut self, sent: Sent<'_>, batch: &mut Batch) {
        let repeat = &mut self.repeats[sent.sender];
        self.decoder.decode(sent.body, batch, repeat).expect("the body is good");
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
    fn decode(&mut self, sent: Sent<'_>, batch: &mut Batch) {
        batch.clear();
        self.body.clear();
        self.body.extend_from_slice(sent.body);
        let (body, buffers) = (&mut self.body[..], &mut self.buffers);
        if sent.is_batch {
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

/// Only the tape, with the memory of the last one.
struct SimdJsonTape {
    buffers: simd_json::Buffers,
    tape: Tape<'static>,
    body: Vec<u8>,
    body_bytes: usize,
}

impl Default for SimdJsonTape {
    fn default() -> SimdJsonTape {
        let buffers = simd_json::Buffers::default();
        SimdJsonTape { buffers, tape: Tape::null(), body: Vec::new(), body_bytes: 0 }
    }
}

impl Way for SimdJsonTape {
    fn name(&self) -> &'static str {
        "its tape"
    }
    fn decode(&mut self, sent: Sent<'_>, _: &mut Batch) {
        self.body.clear();
        self.body.extend_from_slice(sent.body);
        self.body.resize(sent.body.len() + simd_json::INPUT_PADDING, 0);
        self.body_bytes = sent.body.len();
        let mut tape = std::mem::replace(&mut self.tape, Tape::null()).reset();
        simd_json::fill_tape_padded(&mut self.body, sent.body.len(), &mut self.buffers, &mut tape)
            .expect("the body is good");
        black_box(&tape);
        self.tape = tape.reset();
    }
    /// The numbers behind the keys `value`.
    fn sum(&self, _: &Batch) -> (usize, f64) {
        let mut body = self.body[..self.body_bytes].to_vec();
        let tape = simd_json::to_tape(&mut body).expect("the body is good");
        let values = tape.0.windows(2).filter_map(|pair| match pair {
            [Node::String("value"), Node::Static(StaticNode::F64(value))] => Some(*value),
            [Node::String("value"), Node::Static(StaticNode::U64(value))] => Some(*value as f64),
            [Node::String("value"), Node::Static(StaticNode::I64(value))] => Some(*value as f64),
            _ => None,
        });
        values.fold((0, 0.0), |(samples, sum), value| (samples + 1, sum + value))
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
    fn decode(&mut self, sent: Sent<'_>, batch: &mut Batch) {
        batch.clear();
        if sent.is_batch {
            let wrapper: Wrapper<'_> = serde_json::from_slice(sent.body).expect("the body is good");
            for metric in &wrapper.metrics {
                push(metric, &mut self.builder, batch).expect("the metric is good");
            }
        } else {
            let metric = serde_json::from_slice(sent.body).expect("the body is good");
            push(&metric, &mut self.builder, batch).expect("the metric is good");
        }
    }
}

struct Case {
    name: &'static str,
    /// Taken in turns.
    bodies: Vec<String>,
    /// They take turns, too.
    senders: usize,
    is_batch: bool,
    samples: usize,
    /// Of the values of a body.
    sum: fn(usize) -> f64,
}

const SCENARIO: &str = "scenario's 100";
/// Its connections.
const SENDERS: usize = 64;

/// What a series of the scenario reads in the body of that number.
fn reading(body: usize, series: usize) -> String {
    let value = body / SENDERS + series;
    format!("{}.{:02}", 10 + value % 90, value * 37 % 100)
}

/// The bodies of `bench/scenarios/batch-100-two-tags.toml`, as `bench` writes them: two of each connection.
fn scenario() -> Vec<String> {
    let member = |body: usize, series: usize| {
        let (value, sender) = (reading(body, series), body % SENDERS);
        format!(
            r#"{{"name":"bench_1","value":{value},"labels":{{"connection":"{sender:06}","series":"{series:06}"}}}}"#,
        )
    };
    let body = |body: usize| {
        let members: Vec<String> = (0..100).map(|series| member(body, series)).collect();
        format!(r#"{{"metrics":[{}]}}"#, members.join(","))
    };
    (0..2 * SENDERS).map(body).collect()
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
            senders: 1,
            is_batch: false,
            samples: 1,
            sum: |_| 85.0,
        },
        Case {
            name: "tagged",
            bodies: vec![tagged(7, 7)],
            senders: 1,
            is_batch: false,
            samples: 1,
            sum: |_| 7.5,
        },
        Case {
            name: "batch of 100",
            bodies: vec![batch_from(0)],
            senders: 1,
            is_batch: true,
            samples: 100,
            sum: |_| 5_000.0,
        },
        // 60,000 hosts, more than a decoder remembers.
        Case {
            name: "100, all new",
            bodies: (0..600).map(|body| batch_from(body * 100)).collect(),
            senders: 1,
            is_batch: true,
            samples: 100,
            sum: |_| 5_000.0,
        },
        Case {
            name: SCENARIO,
            bodies: scenario(),
            senders: SENDERS,
            is_batch: true,
            samples: 100,
            sum: |body| (0..100).map(|series| reading(body, series).parse::<f64>().expect("a number")).sum(),
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
    let ours = Ours { decoder: MetricsDecoder::new(7), repeats: vec![Repeat::default(); SENDERS] };
    let mut ways: [Box<dyn Way>; 4] = [
        Box::new(ours),
        Box::<SimdJson>::default(),
        Box::<SimdJsonTape>::default(),
        Box::<SerdeJson>::default(),
    ];
    let mut batch = Batch::default();
    let mut ratio = f64::INFINITY;
    println!("{:14} {:>6}  {:12} {:>9} {:>8}", "body", "bytes", "way", "ns/body", "ns/byte");
    for case in cases() {
        let turns = (bytes_a_round / case.bodies[0].len()).clamp(1, 200_000);
        let mut least = [f64::INFINITY; 4];
        // The ways take turns, so that a noisy moment meets them all.
        for _ in 0..rounds {
            for (way, least) in ways.iter_mut().zip(&mut least) {
                let start = Instant::now();
                for (turn, body) in case.bodies.iter().cycle().take(turns).enumerate() {
                    let body = black_box(body.as_bytes());
                    let sent = Sent { body, sender: turn % case.senders, is_batch: case.is_batch };
                    way.decode(sent, &mut batch);
                    black_box(&batch);
                }
                *least = least.min(start.elapsed().as_secs_f64() * 1e9 / turns as f64);
                let expected = (case.samples, (case.sum)((turns - 1) % case.bodies.len()));
                assert_eq!(way.sum(&batch), expected, "{} by {}", case.name, way.name());
            }
        }
        let bytes = case.bodies[0].len();
        for (way, ns) in ways.iter().zip(least) {
            println!("{:14} {bytes:>6}  {:12} {ns:>9.1} {:>8.3}", case.name, way.name(), ns / bytes as f64);
        }
        if case.name == SCENARIO {
            ratio = least[0] / least[2];
        }
    }
    println!("{SCENARIO}: ours takes {ratio:.2} of the time of simd-json's tape (at most {RATIO_MAX})");
    let copies = if is_bench { 1_500 } else { 20 };
    let batch = &cases()[2];
    let members = batch.bodies[0].trim_start_matches(r#"{"metrics":["#).trim_end_matches("]}");
    let large = format!("[{}]", vec![members; copies].join(","));
    in_steps("a large batch", &large, batch.samples * copies, rounds);
    let ignored = format!(r#"{{"name":"a","value":1,"ignored":{large}}}"#);
    in_steps("one value passed over", &ignored, 1, rounds);
    assert!(!is_bench || ratio <= RATIO_MAX, "the scenario's bodies take {ratio:.2} of simd-json's time");
}
