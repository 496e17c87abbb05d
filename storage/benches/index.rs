//! The label index at a million series of ten labels: what a new one costs in time and memory, what a search takes in
//! memory and in a segment. Each answer is checked against how the labels were made.
//!
//! Sketched before the first run: a new series 11 pairs of two lookups, each a cache miss or two, 2.5 us; its memory 600
//! bytes (labels 280, row 200, postings 80, chunk 40); a query by name and two labels for some ten series 0.1 ms, in a
//! segment some 15 parts of four reads each and ten directory blocks, 1.5 ms; an expression over 100,000 values 40 ns each,
//! 4 ms, a second time in a segment only heads. A query is timed whole, from the selection to the last sample.
//! Memory is what the store counts; the resident set grows by as much, to a few hundredths (630 bytes of 640, read once).
//! `cargo bench -p storage --bench index`; `cargo test` makes a small run.

use model::{
    LabelSet, LabelSetRef, Matcher, MetricKind, Sample, SeriesNumber, Share, Timestamp, parse_matchers,
};
use std::time::Instant;
use storage::disk::{SimDisk, ready};
use storage::store::{Piece, Store, StoreOptions};

/// Values of the label over which expressions run.
const PODS: u32 = 100_000;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let series = if small { 5_000 } else { 1_000_000 };
    let rounds = if small { 1 } else { 7 };
    let disk = SimDisk::new(1);
    let options = StoreOptions { memory_bytes_max: 1 << 40 };
    let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    let nanos = fill(&mut store, series);
    println!("{series} series of 10 labels and the name, one sample each");
    println!("  a new series                 {:>9.2} us", nanos as f64 / f64::from(series) / 1_000.0);
    println!("  memory by the store's count  {:>9} bytes each", store.memory().bytes() / series as usize);
    println!(
        "{:<44} {:>8} {:>12} {:>12} {:>12}",
        "a query, least of some rounds", "series", "memory us", "segment us", "first, us"
    );
    let (expected, mut in_memory) = (expected(series), Vec::new());
    for ((what, text), expected) in SEARCHES.iter().zip(&expected) {
        in_memory.push(measure(&store, what, text, *expected, rounds));
    }
    let job = store.begin_flush(1).expect("there are samples");
    let began = Instant::now();
    let flushed = ready(job.run(&disk)).expect("the disk is in memory");
    let flush_ns = began.elapsed().as_nanos() as u64 / u64::from(series);
    store.finish_flush(flushed);
    // The table of series stays; a search looks there too, for series without samples.
    let mut fresh = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    let entries: Vec<_> = store.segments().copied().collect();
    drop(store);
    assert!(ready(fresh.open_segments(&entries)).is_empty());
    for ((what, text), memory) in SEARCHES.iter().zip(in_memory) {
        let segment = measure(&fresh, what, text, memory.series, rounds);
        assert_eq!(memory.series, segment.series, "{what}");
        println!(
            "{what:<44} {:>8} {:>12.1} {:>12.1} {:>12.1}",
            memory.series, memory.least_us, segment.least_us, segment.first_us
        );
    }
    println!("writing the segment: {flush_ns} ns a series");
}

/// What is asked of `requests_total`.
const SEARCHES: &[(&str, &str)] = &[
    ("name and two labels", r#"{region="region-3",pod="pod-00143"}"#),
    ("name and two common labels and a pod", r#"{method="method-1",job="job-7",pod="pod-00207"}"#),
    ("a list", r#"{pod=~"pod-00007|pod-00070|pod-00700"}"#),
    ("a beginning over 100,000 values", r#"{pod=~"pod-0123.+"}"#),
    ("an expression over 100,000 values", r#"{pod=~".*[13]234[0-9]?5"}"#),
    ("an expression that none meets", r#"{pod=~".*-x[0-9]+y"}"#),
    ("what fails an expression, and a label", r#"{pod!~".*[0-8]|.*[0-8]9",container="container-99"}"#),
];

/// A million series are ten of each pod.
fn labels(n: u32) -> LabelSet {
    let pod = n % PODS;
    let pairs = [
        ("job", format!("job-{}", pod % 50)),
        ("instance", format!("10.0.{}.{}:9100", pod / 250 % 250, pod % 250)),
        ("region", format!("region-{}", pod % 5)),
        ("zone", format!("zone-{}", pod % 15)),
        ("pod", format!("pod-{pod:05}")),
        ("container", format!("container-{}", pod % 300)),
        ("method", format!("method-{}", n / PODS % 5)),
        ("code", format!("{}", n % 7)),
        ("path", format!("/api/v1/{}", pod % 97)),
        ("id", format!("{:08x}-{:04x}", n.wrapping_mul(0x9e37_79b9), n % 0xffff)),
    ];
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(label, value)| (*label, value.as_str())).collect();
    let name = if n % 10 == 9 { "errors_total" } else { "requests_total" };
    LabelSet::new(name, &pairs).expect("valid labels")
}

/// Gives every series a sample; the nanoseconds that the store took.
fn fill(store: &mut Store<SimDisk>, series: u32) -> u64 {
    let (mut share, mut nanos) = (Share::default(), 0);
    let timestamp = Timestamp::from_millis(1_700_000_000_000).expect("in range");
    for n in 0..series {
        share.define(SeriesNumber(n), MetricKind::Gauge, labels(n).as_ref());
        share.push(SeriesNumber(n), Sample { timestamp, value: f64::from(n) });
        if n % 500 == 499 || n + 1 == series {
            let began = Instant::now();
            assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
            nanos += began.elapsed().as_nanos() as u64;
            share.clear();
        }
    }
    nanos
}

fn meets(labels: LabelSetRef<'_>, matchers: &[Matcher]) -> bool {
    labels.name() == "requests_total" && matchers.iter().all(|matcher| matcher.matches(labels))
}

struct Measured {
    series: usize,
    /// The first time, when nothing is kept of it.
    first_us: f64,
    least_us: f64,
}

/// How many series each search means, by how labels are made. Counted before anything is measured: a million label sets
/// between two searches would leave nothing of the program in the processor's caches, which no server does to itself.
fn expected(series: u32) -> Vec<usize> {
    let matchers: Vec<Vec<Matcher>> =
        SEARCHES.iter().map(|(_, text)| parse_matchers(text).expect("valid matchers")).collect();
    let mut counts = vec![0; SEARCHES.len()];
    for labels in (0..series).map(labels) {
        let meets = |matchers: &Vec<Matcher>| meets(labels.as_ref(), matchers);
        counts.iter_mut().zip(&matchers).for_each(|(count, matchers)| *count += usize::from(meets(matchers)));
    }
    counts
}

/// Asks some times.
fn measure(store: &Store<SimDisk>, what: &str, text: &str, expected: usize, rounds: usize) -> Measured {
    let matchers = parse_matchers(text).expect("valid matchers");
    let mut measured = Measured { series: expected, first_us: 0.0, least_us: f64::MAX };
    for round in 0..rounds {
        let began = Instant::now();
        let ever = (Timestamp::MIN, Timestamp::MAX);
        let mut selection = store.select("requests_total", &matchers, ever.0, ever.1, ever.0);
        let (mut piece, mut count) = (Piece::default(), 0);
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                assert!(meets((*series.labels).as_ref(), &matchers), "{what}: {:?}", series.labels);
                count += 1;
            }
        }
        assert_eq!((count, selection.take_warnings().len()), (expected, 0), "{what}");
        let micros = began.elapsed().as_nanos() as f64 / 1_000.0;
        measured.first_us = if round == 0 { micros } else { measured.first_us };
        measured.least_us = measured.least_us.min(micros);
    }
    measured
}
