//! Chunks: nanoseconds to append and decode a sample, and bytes it takes, on four kinds of series.
//!
//! Sketched before the first run: append 5 ns, decode 4 ns; bytes as in DESIGN §4 (counter 3.2, two-decimal
//! gauge 7.2, constant a quarter of a byte for two bits). Every decoded sample is compared bit for bit, so a
//! fast wrong run fails. `cargo bench -p storage --bench chunk`; with `--test` a small run.

use model::{Sample, StampClock, Timestamp};
use std::hint::black_box;
use std::time::Instant;
use storage::chunk::{Chunk, OpenChunk};

const ROUNDS: usize = 200;

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let count = if small { 2_000 } else { 100_000 };
    println!("{:<28} {:>10} {:>10} {:>13}", "series", "append ns", "decode ns", "bytes/sample");
    let start = 1_700_000_000_000;
    let whole = |i: i64| Timestamp::from_millis(start + i * 1_000).expect("in range");
    let mut random = Random(7);
    run("constant", (0..count).map(|i| Sample { timestamp: whole(i), value: 1.0 }));
    run(
        "integer gauge",
        (0..count).map(|i| Sample { timestamp: whole(i), value: (random.next() % 100) as f64 }),
    );
    let mut level = 50.0;
    run(
        "two-decimal gauge",
        (0..count).map(|i| {
            level = (level + (random.next() % 200) as f64 / 100.0 - 1.0).clamp(0.0, 100.0);
            Sample { timestamp: whole(i), value: (level * 100.0).round() / 100.0 }
        }),
    );
    let mut total = 0;
    run(
        "counter",
        (0..count).map(|i| {
            total += random.next() % 1_000;
            Sample { timestamp: whole(i), value: total as f64 }
        }),
    );
    run(
        "counter, time jitter 5 ms",
        (0..count).map(|i| {
            total += random.next() % 1_000;
            let timestamp = Timestamp::from_millis(start + i * 1_000 + (random.next() % 5) as i64);
            Sample { timestamp: timestamp.expect("in range"), value: total as f64 }
        }),
    );
    let mut clock = StampClock::new(0, 2);
    run(
        "stamped, 1 s, jitter 5 ms",
        (0..count).map(|i| {
            let timestamp =
                clock.stamp(Timestamp::first_of_milli(start + i * 1_000 + (random.next() % 5) as i64));
            Sample { timestamp, value: (random.next() % 100) as f64 }
        }),
    );
    let mut clock = StampClock::new(0, 2);
    run(
        "stamped, 200 in a ms",
        (0..count).map(|i| {
            let timestamp = clock.stamp(Timestamp::first_of_milli(start + i / 200));
            Sample { timestamp, value: (random.next() % 100) as f64 }
        }),
    );
    let mut clock = StampClock::new(0, 2);
    run(
        "stamped among 100 others",
        (0..count).map(|i| {
            for _ in 0..random.next() % 100 {
                black_box(clock.stamp(Timestamp::first_of_milli(start + i)));
            }
            Sample {
                timestamp: clock.stamp(Timestamp::first_of_milli(start + i)),
                value: (random.next() % 100) as f64,
            }
        }),
    );
    run("random doubles", (0..count).map(|i| Sample { timestamp: whole(i), value: random.double() }));
}

fn run(name: &str, samples: impl Iterator<Item = Sample>) {
    let samples: Vec<Sample> = samples.collect();
    let (mut append_ns, mut decode_ns) = (f64::MAX, f64::MAX);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut decoded: Vec<Sample> = Vec::with_capacity(samples.len());
    // The best of many short rounds: other work on the machine disturbs most of the long ones.
    for _ in 0..ROUNDS {
        chunks.clear();
        decoded.clear();
        let began = Instant::now();
        let mut open = OpenChunk::new(samples[0]);
        for &sample in &samples[1..] {
            if open.append(sample).is_err() {
                chunks.push(open.seal());
                open = OpenChunk::new(sample);
            }
        }
        chunks.push(open.seal());
        append_ns = append_ns.min(began.elapsed().as_nanos() as f64 / samples.len() as f64);
        let began = Instant::now();
        for chunk in &chunks {
            chunk.samples().decode_into(&mut decoded).expect("chunks just written");
        }
        decode_ns = decode_ns.min(began.elapsed().as_nanos() as f64 / samples.len() as f64);
    }
    assert_eq!(decoded.len(), samples.len());
    assert!(decoded.iter().zip(&samples).all(|(a, b)| a.same_bits(b)), "{name}: a sample changed");
    let bytes: usize = chunks.iter().map(|chunk| chunk.bytes().len()).sum();
    println!("{name:<28} {append_ns:>10.2} {decode_ns:>10.2} {:>13.3}", bytes as f64 / samples.len() as f64);
}

/// A fixed sequence (splitmix64), so that runs compare.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn double(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
