//! Reading one long series in pieces: nanoseconds a sample, and the longest piece.
//!
//! Sketched before the first run: decode 3 ns a sample and a copy, so 5 ns in all where one source follows
//! another, 20 ns where two interleave sample by sample; the longest piece 4,096 times that, or one read of
//! 256 KiB. A step's time is the least of all rounds, for a shared machine takes the core away at times.
//! `cargo bench -p storage --bench select`; `cargo test` makes a small run.

use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::time::Instant;
use storage::disk::{SimDisk, ready};
use storage::store::{Piece, Store, StoreOptions};

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (samples, rounds) = if small { (20_000, 2) } else { (3_400_000, 15) };
    println!(
        "{:<34} {:>10} {:>10} {:>16}",
        "samples of one series", "ns/sample", "pieces", "longest piece us"
    );
    measure("in memory", samples, rounds, |_| Part::Memory);
    let half = samples / 2;
    measure("half in a segment", samples, rounds, |i| if i < half { Part::Segment } else { Part::Memory });
    let turns = |i| if i % 2 == 0 { Part::Segment } else { Part::Memory };
    measure("segment and memory interleaved", samples, rounds, turns);
}

#[derive(PartialEq)]
enum Part {
    Segment,
    Memory,
}

fn measure(name: &str, samples: i64, rounds: usize, part_of: impl Fn(i64) -> Part) {
    let disk = SimDisk::new(1);
    let options = StoreOptions { memory_bytes_max: 1 << 40 };
    let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    let labels = LabelSet::new("cpu_usage", &[("host", "a")]).expect("valid labels");
    let sample = |i: i64| {
        let timestamp = Timestamp::from_millis(i * 100).expect("in range");
        Sample { timestamp, value: (i * 7_919 % 10_007) as f64 / 100.0 }
    };
    for part in [Part::Segment, Part::Memory] {
        let mut share = Share::default();
        share.define(SeriesNumber(0), MetricKind::Gauge, labels.as_ref());
        (0..samples).filter(|i| part_of(*i) == part).for_each(|i| share.push(SeriesNumber(0), sample(i)));
        store.apply(0, &share, &mut |_, _, _| {});
        if part == Part::Segment
            && let Some(job) = store.begin_flush(1)
        {
            let flushed = ready(job.run(&disk)).expect("the disk is in memory");
            store.finish_flush(flushed);
        }
    }
    // Of each piece the least time of all rounds: the pieces are the same each time.
    let mut least: Vec<u64> = Vec::new();
    for _ in 0..rounds {
        let mut selection = store.select("cpu_usage", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut piece, mut count, mut index) = (Piece::default(), 0, 0);
        loop {
            let began = Instant::now();
            let more = ready(selection.next_piece(&mut piece));
            let nanos = began.elapsed().as_nanos() as u64;
            count += piece.samples.len() as i64;
            match least.get_mut(index) {
                Some(least) => *least = nanos.min(*least),
                None => least.push(nanos),
            }
            index += 1;
            if !more {
                break;
            }
        }
        assert_eq!(count, samples);
    }
    println!(
        "{name:<34} {:>10.1} {:>10} {:>16}",
        least.iter().sum::<u64>() as f64 / samples as f64,
        least.len(),
        least.iter().max().map_or(0, |nanos| nanos / 1_000)
    );
}
