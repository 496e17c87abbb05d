//! Reading one long series in pieces, and many short ones: nanoseconds a sample or a series, and the longest piece.
//!
//! Sketched before the first run: decode 3 ns a sample and a copy, so 5 ns in all where one source follows
//! another, 20 ns where two interleave sample by sample; the longest piece 4,096 times that, or one read of
//! 256 KiB. Many series: fixing the moment 1 ns each (an id is copied), looking at one 0.5 µs, so that some hundred
//! take a tenth of a millisecond; reading its one sample 0.2 µs. A step's time is the least of all rounds, for a
//! shared machine takes the core away at times.
//! `cargo bench -p storage --bench select`; `cargo test` makes a small run.

use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::time::Instant;
use storage::disk::{SimDisk, ready};
use storage::store::{Piece, Selection, Store, StoreOptions};

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
    println!(
        "{:<34} {:>10} {:>10} {:>16} {:>10} {:>12}",
        "series of one sample", "ns/series", "pieces", "longest piece us", "select us", "bytes/series"
    );
    for count in if small { vec![2_000] } else { vec![100_000, 500_000] } {
        let rounds = if small { 1 } else { 7 };
        measure_many(&format!("{count} in memory"), count, rounds, false);
        measure_many(&format!("{count} in memory and a segment"), count, rounds, true);
    }
}

/// Series with some labels, each with a sample in memory and perhaps one in a segment.
fn measure_many(name: &str, count: u32, rounds: usize, in_segment: bool) {
    let disk = SimDisk::new(1);
    let options = StoreOptions { memory_bytes_max: 1 << 40 };
    let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    for part in if in_segment { vec![1, 2] } else { vec![2] } {
        let mut share = Share::default();
        for n in 0..count {
            let (host, pod) = (format!("host-{}", n % 997), format!("pod-{n:08}"));
            let labels = [("host", &*host), ("pod", &*pod), ("zone", "eu-central")];
            let labels = LabelSet::new("cpu_usage", &labels).expect("valid labels");
            share.define(SeriesNumber(n), MetricKind::Gauge, labels.as_ref());
            let timestamp = Timestamp::from_millis(part * 1_000).expect("in range");
            share.push(SeriesNumber(n), Sample { timestamp, value: f64::from(n) });
        }
        store.apply(0, &share, &mut |_, _, _| {});
        if part == 1
            && let Some(job) = store.begin_flush(1)
        {
            let flushed = ready(job.run(&disk)).expect("the disk is in memory");
            store.finish_flush(flushed);
        }
    }
    let (mut least, mut least_select, mut bytes): (Vec<u64>, u64, usize) = (Vec::new(), u64::MAX, 0);
    for _ in 0..rounds {
        let began = Instant::now();
        let mut selection = store.select("cpu_usage", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        least_select = least_select.min(began.elapsed().as_nanos() as u64);
        let count_of = if in_segment { 2 } else { 1 } * count as usize;
        let (pieces, samples) = read(&mut selection, &mut least, &mut bytes);
        assert!(samples == count_of && pieces == least.len());
    }
    println!(
        "{name:<34} {:>10.1} {:>10} {:>16} {:>10} {:>12.1}",
        (least_select + least.iter().sum::<u64>()) as f64 / f64::from(count),
        least.len(),
        least.iter().max().map_or(0, |nanos| nanos / 1_000),
        least_select / 1_000,
        bytes as f64 / f64::from(count),
    );
}

/// Reads a selection; keeps of each piece the least time, and how many bytes were held at most. Returns how many
/// pieces and samples there were.
fn read(selection: &mut Selection<SimDisk>, least: &mut Vec<u64>, bytes: &mut usize) -> (usize, usize) {
    let (mut piece, mut samples, mut index) = (Piece::default(), 0, 0);
    loop {
        let began = Instant::now();
        let more = ready(selection.next_piece(&mut piece));
        let nanos = began.elapsed().as_nanos() as u64;
        samples += piece.samples.len();
        *bytes = selection.bytes().max(*bytes);
        match least.get_mut(index) {
            Some(least) => *least = nanos.min(*least),
            None => least.push(nanos),
        }
        index += 1;
        if !more {
            return (index, samples);
        }
    }
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
        let (_, count) = read(&mut selection, &mut least, &mut 0);
        assert_eq!(count as i64, samples);
    }
    println!(
        "{name:<34} {:>10.1} {:>10} {:>16}",
        least.iter().sum::<u64>() as f64 / samples as f64,
        least.len(),
        least.iter().max().map_or(0, |nanos| nanos / 1_000)
    );
}
