//! The label index at a million series of ten labels: what a new one costs in time and memory, what a search takes in
//! memory and in a segment. Each answer is checked against how the labels were made.
//!
//! Sketched before the first run: a new series 11 pairs of two lookups, each a cache miss or two, 2.5 us; its memory 600
//! bytes (labels 280, row 200, postings 80, chunk 40); name and two labels three bitmaps of some 128 KiB at most, 0.05 ms;
//! in a segment some 15 parts of four reads each, 0.6 ms; an expression over 100,000 values 40 ns each, 4 ms, a second
//! time in a segment only heads. Memory is the resident set of the process, so the allocator's own is in it.
//! `cargo bench -p storage --bench index`; `cargo test` makes a small run.

use model::{LabelSet, LabelSetRef, Matcher, MetricKind, Sample, SeriesNumber, Share, Timestamp, parse_matchers};
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
    let before = resident_bytes();
    let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    let nanos = fill(&mut store, series);
    let resident = resident_bytes().saturating_sub(before);
    println!("{series} series of 10 labels and the name, one sample each");
    println!("  a new series                 {:>9.2} us", nanos as f64 / f64::from(series) / 1_000.0);
    println!("  memory by the store's count  {:>9} bytes each", store.memory().bytes() / series as usize);
    println!("  memory resident              {:>9} bytes each", resident / series as usize);
    println!("{:<54} {:>8} {:>12} {:>12}", "least of some rounds", "series", "memory us", "segment us");
    let mut in_memory = Vec::new();
    for (what, text) in SEARCHES {
        in_memory.push(measure(&store, what, text, series, rounds));
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
    for ((what, text), (memory_us, found)) in SEARCHES.iter().zip(in_memory) {
        let (segment_us, again) = measure(&fresh, what, text, series, rounds);
        assert_eq!(found, again, "{what}");
        println!("{what:<54} {found:>8} {memory_us:>12.1} {segment_us:>12.1}");
    }
    println!("writing the segment: {flush_ns} ns a series");
}

/// What is asked of `requests_total`; the answers are counted by looking at how labels are made.
const SEARCHES: &[(&str, &str)] = &[
    ("name and two labels", r#"{region="region-3",pod="pod-00042"}"#),
    ("name and two labels, many series", r#"{method="method-2",code="4"}"#),
    ("a list", r#"{pod=~"pod-00007|pod-00070|pod-00700"}"#),
    ("a beginning over 100,000 values", r#"{pod=~"pod-0123.+"}"#),
    ("an expression over 100,000 values, few series", r#"{pod=~".*[13579]77"}"#),
    ("an expression over 100,000 values, none", r#"{pod=~".*-x[0-9]+y"}"#),
    ("not an expression, one label", r#"{pod!~".*[0-8]",method="method-2"}"#),
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

/// Microseconds until it is known which series are meant, the least of some rounds, and how many they are. What the first
/// round finds is held against every label set.
fn measure(store: &Store<SimDisk>, what: &str, text: &str, series: u32, rounds: usize) -> (f64, usize) {
    let matchers = parse_matchers(text).expect("valid matchers");
    let (mut least, mut count) = (f64::MAX, 0);
    for round in 0..rounds {
        let began = Instant::now();
        let mut search = store.find_series("requests_total", &matchers);
        while ready(search.step()) {}
        least = least.min(began.elapsed().as_nanos() as f64 / 1_000.0);
        if round > 0 {
            continue;
        }
        let ever = (Timestamp::MIN, Timestamp::MAX);
        let mut selection = store.select("requests_total", &matchers, ever.0, ever.1, ever.0);
        let mut piece = Piece::default();
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                assert!(meets((*series.labels).as_ref(), &matchers), "{what}: {:?}", series.labels);
                count += 1;
            }
        }
        let expected = (0..series).filter(|n| meets(labels(*n).as_ref(), &matchers)).count();
        assert_eq!(count, expected, "{what}");
    }
    (least, count)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
