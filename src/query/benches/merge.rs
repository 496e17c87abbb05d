//! A query's work beside reading: gathering two shards' samples, merging, rendering, in steps.
//!
//! Sketched before the first run: a value gathered 2 ns, a percentile four passes of 1 ns a value; a row
//! gathered 5 ns, merged 10 ns and rendered 100 ns; the longest step 0.2 ms.
//! A step's time is the least of all rounds, for a shared machine takes the core away at times.
//! `cargo bench -p query --bench merge`; `cargo test` makes a small run.

use model::{Arrival, LabelSet, Sample, Timestamp};
use query::{Answer, LabelConditions, Percentile, Query, Question, RowsRenderer, Selector};
use std::time::Instant;

const SHARDS: usize = 2;
/// As the server takes them from a store.
const SAMPLES_PER_STEP: i64 = 4096;
const PIECE_BYTES: usize = 32 * 1024;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (samples, rounds) = if small { (40_000, 2) } else { (3_400_000, 15) };
    println!("{:<34} {:>10} {:>10} {:>16}", "3.4 M samples", "ms", "steps", "longest step us");
    let percentile = Percentile::new(99.0).expect("within 0 to 100");
    measure("p99 of one series", Question::Percentile(percentile), 1, samples, rounds);
    measure("rows of one series", Question::Rows { limit: None }, 1, samples, rounds);
    measure("rows of 1,000 series", Question::Rows { limit: None }, 1_000, samples, rounds);
    measure("first 100 rows of 1,000 series", Question::Rows { limit: Some(100) }, 1_000, samples, rounds);
    let half = Some(samples as usize / 2);
    measure("first half of the rows of 1,000", Question::Rows { limit: half }, 1_000, samples, rounds);
}

/// The least time that each step took in any round.
#[derive(Default)]
struct Steps {
    least: Vec<u64>,
    next: usize,
}

impl Steps {
    fn time<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let output = step();
        let nanos = began.elapsed().as_nanos() as u64;
        match self.least.get_mut(self.next) {
            Some(least) => *least = nanos.min(*least),
            None => self.least.push(nanos),
        }
        self.next += 1;
        output
    }
}

fn measure(name: &str, question: Question, series: i64, samples: i64, rounds: usize) {
    let selector = Selector {
        name: "cpu_usage".into(),
        conditions: LabelConditions::default(),
        start_ms: 0,
        end_ms: i64::MAX,
        min_value: None,
        max_value: None,
    };
    let query = Query { selector, question };
    let labels: Vec<LabelSet> = (0..series)
        .map(|n| LabelSet::new("cpu_usage", &[("host", &format!("host-{n}"))]).expect("valid labels"))
        .collect();
    let mut steps = Steps::default();
    for _ in 0..rounds {
        steps.next = 0;
        let mut partials = Vec::new();
        for shard in 0..SHARDS as i64 {
            let mut partial = query.partial();
            for (n, labels) in labels.iter().enumerate() {
                let per_series = samples / series / SHARDS as i64;
                for first in (0..per_series).step_by(SAMPLES_PER_STEP as usize) {
                    steps.time(|| {
                        if first == 0 {
                            partial.push_series(labels.as_ref(), Arrival::from_bits(n as u128));
                        }
                        for i in first..per_series.min(first + SAMPLES_PER_STEP) {
                            let at = (i * SHARDS as i64 + shard) * series + n as i64;
                            let value = (at * 7_919 % 10_007) as f64 / 100.0;
                            partial.push(Sample { timestamp: Timestamp::from_ticks(at << 20), value });
                        }
                    });
                    while steps.time(|| partial.tidy()) {}
                }
            }
            partials.push(steps.time(|| partial.finish()));
        }
        match steps.time(|| query.merge(partials)) {
            Answer::Percentile(mut search) => {
                while steps.time(|| search.step()) {}
                let answer = search.answer();
                assert_eq!(answer.count as i64, samples);
                let mut values: Vec<i64> = (0..samples).map(|at| at * 7_919 % 10_007).collect();
                let rank = (answer.count * 99).div_ceil(100) - 1;
                let (_, expected, _) = values.select_nth_unstable(rank);
                assert_eq!(answer.value, Some(*expected as f64 / 100.0));
            }
            Answer::Rows(rows) => {
                let expected = rows.remaining();
                let mut renderer = RowsRenderer::new(rows);
                // One piece at a time, as if each were sent: the body's own growth is the server's.
                let (mut piece, mut rows) = (Vec::with_capacity(2 * PIECE_BYTES), 0);
                while steps.time(|| {
                    piece.clear();
                    renderer.next_piece(&mut piece, PIECE_BYTES)
                }) {
                    rows += piece.iter().filter(|byte| **byte == b'}').count() / 2;
                }
                assert_eq!(rows, expected);
            }
        }
    }
    println!(
        "{name:<34} {:>10.1} {:>10} {:>16}",
        steps.least.iter().sum::<u64>() as f64 / 1e6,
        steps.least.len(),
        steps.least.iter().max().map_or(0, |nanos| nanos / 1_000)
    );
}
