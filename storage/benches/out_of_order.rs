//! What late samples cost: nanoseconds and bytes a sample of a memtable in which every tenth one is late, over the same
//! samples in order, through the store.
//!
//! 10,000 series with a sample each 10 s. In the runs with late ones a tenth of them, by chance, comes after its
//! successors: within an hour, or as backfill up to a day old, between samples that were there in time. Where they are
//! missing each gap costs 14 bits more; what that takes alone is the run without them.
//! Values are by chance. Once they were those of a hundred series, over and over in the same order: there the processor
//! foresaw every branch of the run in order, and of no other, which made that run a quarter faster than it is for anybody.
//! Sketched: in order 15 ns; a late one 50 (the row, a block that is in no cache, a share of sorting).
//! The count of samples is checked, and what is read back against what was sent. Of several rounds the fastest counts.
//! `cargo bench -p storage --bench out_of_order`; `cargo test` makes a small run.

use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::time::Instant;
use storage::disk::{SimDisk, ready};
use storage::store::{Piece, Store, StoreOptions};

const SHARE_SAMPLES: usize = 1_000;
const INTERVAL_MS: i64 = 10_000;
/// Ticks in an hour and in a day.
const HOUR: usize = 360;
const DAY: usize = 24 * HOUR;
const START_MS: i64 = 1_700_000_000_000;

/// Which sample of a series comes when.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    InTime,
    /// A tenth is held back for up to so many ticks.
    HeldBack(usize),
    /// A tenth never comes.
    Missing,
    /// A tenth lies half a tick beside one that was in time, up to so many ticks before.
    Backfill(usize),
}

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (series, ticks) = if small { (50, HOUR + 40) } else { (10_000, 2 * HOUR) };
    println!("{:<44} {:>10} {:>12} {:>8}", "series", "ns/sample", "bytes/sample", "over");
    let orders = [
        (Order::InTime, "in order", ""),
        (Order::Missing, "a tenth missing", ""),
        (Order::HeldBack(HOUR), "a tenth up to 1 h late", "(at most 1.3)"),
        (Order::Backfill(DAY), "a tenth up to 24 h late", "(at most 3)"),
    ];
    let rounds = if small { 1 } else { 7 };
    let mut fastest = [Cost { ns: f64::MAX, bytes: 0.0 }; 4];
    for _ in 0..rounds {
        for (cost, (order, ..)) in fastest.iter_mut().zip(orders) {
            let of_round = run(series, ticks, order);
            cost.ns = cost.ns.min(of_round.ns);
            cost.bytes = of_round.bytes;
        }
    }
    for (cost, (_, name, bound)) in fastest.iter().zip(orders) {
        let name = format!("{series}, {name}");
        println!(
            "{name:<44} {:>10.1} {:>12.2} {:>8.2}  {bound}",
            cost.ns,
            cost.bytes,
            cost.ns / fastest[0].ns
        );
    }
}

/// Of one sample.
#[derive(Clone, Copy)]
struct Cost {
    ns: f64,
    bytes: f64,
}

fn labels(n: usize) -> LabelSet {
    let pairs = [("host", &*format!("host-{}", n / 100)), ("cpu", &*(n % 100).to_string())];
    LabelSet::new("cpu_usage", &pairs).expect("valid labels")
}

/// A number that looks like chance, the same in every run.
fn mix(series: usize, tick: usize) -> usize {
    let mut bits = (series as u64) << 32 | tick as u64;
    for _ in 0..2 {
        bits = (bits ^ bits >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (bits >> 20) as usize
}

fn sample(series: usize, half_ticks: i64) -> Sample {
    let timestamp = Timestamp::from_millis(START_MS + half_ticks * INTERVAL_MS / 2).expect("in range");
    Sample { timestamp, value: (mix(series, half_ticks as usize) % 97) as f64 }
}

fn run(series: usize, ticks: usize, order: Order) -> Cost {
    let memory = StoreOptions { memory_bytes_max: 1 << 40 };
    let mut store = Store::new(SimDisk::new(1), 0, 1, memory, Box::new(|_| 0));
    let mut share = Share::default();
    for n in 0..series {
        share.define(SeriesNumber(n as u32), MetricKind::Gauge, labels(n).as_ref());
    }
    store.apply(0, &share, &mut |_, _, _| {});
    let table_bytes = store.memory().bytes();
    share.clear();
    let (mut nanos, mut sent, mut of_first) = (0, 0_u64, Vec::new());
    // What is held back, by the tick in which it comes.
    let mut held: Vec<Vec<(u32, u32)>> = vec![Vec::new(); ticks + DAY + 1];
    let mut apply = |share: &mut Share| {
        let began = Instant::now();
        assert_eq!(store.apply(0, share, &mut |_, _, _| {}).unknown, 0);
        nanos += began.elapsed().as_nanos();
        share.clear();
    };
    for tick in 0..ticks {
        let mut send = |n: usize, half_ticks: i64| {
            let sample = sample(n, half_ticks);
            share.push(SeriesNumber(n as u32), sample);
            sent += 1;
            if n == 0 {
                of_first.push(sample);
            }
            if share.len() == SHARE_SAMPLES {
                apply(&mut share);
            }
        };
        for n in 0..series {
            let chance = mix(n, tick);
            let is_late = chance.is_multiple_of(10);
            match order {
                Order::HeldBack(max) if is_late => {
                    held[tick + 1 + chance / 10 % max].push((n as u32, tick as u32));
                }
                Order::Backfill(max) if is_late => {
                    let behind = 1 + (chance / 10 % max) as i64;
                    send(n, 2 * (tick as i64 - behind) + 1);
                }
                Order::Missing if is_late => {}
                _ => send(n, 2 * tick as i64),
            }
        }
        for (n, of_tick) in std::mem::take(&mut held[tick]) {
            send(n as usize, 2 * i64::from(of_tick));
        }
    }
    apply(&mut share);
    let stored = store.memtable_samples();
    of_first.sort_by_key(|sample| sample.timestamp);
    of_first.dedup_by_key(|sample| sample.timestamp);
    let matchers = model::parse_matchers(r#"{host="host-0",cpu="0"}"#).expect("valid matchers");
    let mut selection = store.select("cpu_usage", &matchers, Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    let (mut piece, mut read) = (Piece::default(), Vec::new());
    while ready(selection.next_piece(&mut piece)) {
        read.extend_from_slice(&piece.samples);
    }
    let bits = |samples: &[Sample]| -> Vec<(i64, u64)> {
        samples.iter().map(|sample| (sample.timestamp.ticks(), sample.value.to_bits())).collect()
    };
    assert_eq!(bits(&read), bits(&of_first), "what was sent is read");
    // Two that fill the same half of a tick are one.
    assert!(stored <= sent && stored > sent - sent / 20);
    let bytes = (store.memory().bytes() - table_bytes) as f64 / stored as f64;
    Cost { ns: nanos as f64 / sent as f64, bytes }
}
