//! The memtable by way of the store: nanoseconds a sample for shares as loops send them.
//!
//! Sketched before the first run: one series 10 ns (number, row and open chunk in cache), 1,000 series 15 ns,
//! 100,000 series 80 ns (row, chunk and its bytes each miss the cache once). The sample count is checked.
//! `cargo bench -p storage --bench memtable`; with `--test` a small run.

use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::time::Instant;
use storage::disk::{SimDisk, ready};
use storage::store::{Piece, Store, StoreOptions};

const SHARE_SAMPLES: usize = 1_000;

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let total = if small { 20_000 } else { 4_000_000 };
    println!("{:<34} {:>10} {:>12} {:>14}", "series", "ns/sample", "bytes/sample", "table B/series");
    for series in [1, 1_000, if small { 5_000 } else { 100_000 }] {
        in_order(series, total);
    }
    in_reverse(total / 4);
    select_one(if small { 5_000 } else { 100_000 });
}

fn store() -> Store<SimDisk> {
    Store::new(SimDisk::new(1), 0, 1, StoreOptions { memory_bytes_max: 1 << 40 }, Box::new(|_| 0))
}

fn labels(n: usize) -> LabelSet {
    let host = format!("host-{}", n / 100);
    let pairs = [("host", &*host), ("cpu", &*(n % 100).to_string()), ("zone", "eu-central-1")];
    LabelSet::new("cpu_usage", &pairs).expect("valid labels")
}

fn define(store: &mut Store<SimDisk>, series: usize) {
    let mut share = Share::default();
    for n in 0..series {
        share.define(SeriesNumber(n as u32), MetricKind::Gauge, labels(n).as_ref());
    }
    store.apply(0, &share, &mut |_, _, _| {});
}

/// Every series gets a sample a second, in turn.
fn in_order(series: usize, total: usize) {
    let mut store = store();
    define(&mut store, series);
    let table_bytes = store.memory().bytes();
    let (mut share, mut next, mut nanos) = (Share::default(), 0usize, 0);
    while next < total {
        share.clear();
        for _ in 0..SHARE_SAMPLES {
            let timestamp = Timestamp::from_millis(1_700_000_000_000 + (next / series) as i64 * 1_000);
            let sample = Sample { timestamp: timestamp.expect("in range"), value: (next * 31 % 97) as f64 };
            share.push(SeriesNumber((next % series) as u32), sample);
            next += 1;
        }
        let began = Instant::now();
        assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
        nanos += began.elapsed().as_nanos();
    }
    assert_eq!(store.memtable_samples(), next as u64);
    println!(
        "{:<34} {:>10.1} {:>12.2} {:>14}",
        format!("{series}, in order"),
        nanos as f64 / next as f64,
        (store.memory().bytes() - table_bytes) as f64 / next as f64,
        table_bytes / series
    );
}

/// The worst order of arrival: each sample is earlier than all before it.
fn in_reverse(total: usize) {
    let mut store = store();
    define(&mut store, 1);
    let table_bytes = store.memory().bytes();
    let (mut share, mut nanos) = (Share::default(), 0);
    for turn in (0..total / SHARE_SAMPLES).rev() {
        share.clear();
        for i in (0..SHARE_SAMPLES).rev() {
            let timestamp =
                Timestamp::from_millis((turn * SHARE_SAMPLES + i) as i64 * 1_000).expect("in range");
            share.push(SeriesNumber(0), Sample { timestamp, value: i as f64 });
        }
        let began = Instant::now();
        store.apply(0, &share, &mut |_, _, _| {});
        nanos += began.elapsed().as_nanos();
    }
    let stored = store.memtable_samples();
    assert_eq!(stored as usize, total / SHARE_SAMPLES * SHARE_SAMPLES);
    println!(
        "{:<34} {:>10.1} {:>12.2} {:>14}",
        "1, backwards",
        nanos as f64 / stored as f64,
        (store.memory().bytes() - table_bytes) as f64 / stored as f64,
        table_bytes
    );
}

/// One series among many of its name, and then a flush of all of them.
fn select_one(series: usize) {
    let mut store = store();
    let began = Instant::now();
    define(&mut store, series);
    println!("{series} new series: {} ns each", began.elapsed().as_nanos() as usize / series);
    let mut share = Share::default();
    for i in 0..10i64 {
        for n in 0..series {
            let timestamp = Timestamp::from_millis(i * 1_000).expect("in range");
            share.push(SeriesNumber(n as u32), Sample { timestamp, value: n as f64 });
        }
    }
    store.apply(0, &share, &mut |_, _, _| {});
    let matchers = model::parse_matchers(r#"{host="host-7",cpu="42"}"#).expect("valid matchers");
    let one = |store: &Store<SimDisk>| {
        let began = Instant::now();
        let mut selection =
            store.select("cpu_usage", &matchers, Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut piece, mut samples) = (Piece::default(), 0);
        while ready(selection.next_piece(&mut piece)) {
            samples += piece.samples.len();
        }
        assert_eq!(samples, 10);
        began.elapsed().as_nanos() / 1_000
    };
    println!("one of {series} series of a name, in memory: {} us", one(&store));
    let began = Instant::now();
    let job = store.begin_flush(1).expect("there are samples");
    let freeze_ms = began.elapsed().as_micros() as f64 / 1_000.0;
    let disk = SimDisk::new(1);
    let began = Instant::now();
    let flushed = ready(job.run(&disk)).expect("the disk is in memory");
    let write_ns = began.elapsed().as_nanos() as usize / (series * 10);
    let bytes = flushed.entry().bytes;
    println!(
        "freeze {freeze_ms:.1} ms, write {write_ns} ns/sample, {} B/series with 10 samples",
        bytes as usize / series
    );
    store.finish_flush(flushed);
    println!("one of {series} series of a name, in a segment: {} us", one(&store));
    println!("segment index in memory: {} B", store.memory().segment_indexes);
}
