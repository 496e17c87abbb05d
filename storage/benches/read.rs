//! Reading much: 100 million samples of 10,000 counters by two stores on two threads, out of segments that lie in the
//! page cache: their sum, the greatest, and the rate of each series, at the storage layer; sum and greatest again by what
//! directory rows say of whole chunks, ten a series. And little of much: a day of
//! one series among a hundred, out of a file that is not in the page cache.
//!
//! Sketched before the first run: 1.3 ns a sample to decode a column, one to copy samples out and one to add, so 100
//! million take 170 ms on two cores; the rest (10,000 series, 20 directory blocks each) is noise. A day at 1 s is 85
//! columns that lie one behind the other, about 110 KiB: two or three reads of the device, some 300 us each.
//! The right answers are known beforehand, so a fast wrong run fails. The least wall time of the rounds counts, for this
//! is a shared machine; both threads begin together.
//! `cargo bench -p storage --bench read`; `cargo test` makes a small run.

use model::{Condition, LabelSet, Matcher, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::time::Instant;
use storage::disk::{StdDisk, ready};
use storage::segment::segment_path;
use storage::store::{Piece, RowSums, Store, StoreOptions, Summarised};

/// Between samples: a day has 8,640.
const INTERVAL_S: i64 = 10;
const THREADS: u32 = 2;
/// Series whose samples are in memory at once while segments are filled.
const SERIES_PER_FLUSH: u32 = 250;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (series, samples, rounds) = if small { (20, 1_500, 1) } else { (10_000, 10_000, 7) };
    let folders: Vec<_> = (0..THREADS).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let questions = [Question::Sum, Question::Max, Question::Rate, Question::SumOfRows, Question::MaxOfRows];
    let barrier = Barrier::new(THREADS as usize);
    let each = series / THREADS;
    let times: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let (questions, barrier) = (&questions, &barrier);
        let run = |folder: &tempfile::TempDir| {
            let folder = folder.path().to_owned();
            scope.spawn(move || fill_and_read(&folder, each, samples, questions, rounds, barrier))
        };
        let threads: Vec<_> = folders.iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let count = u64::from(series) * samples as u64;
    println!("{:<30} {:>14} {:>10} {:>18}", "question", "samples", "ms", "ns/sample a core");
    let names = ["sum", "max", "rate", "sum by rows of the directory", "max by rows of the directory"];
    for (question, name) in names.iter().enumerate() {
        let slower = times.iter().map(|times| times[question]).max().unwrap_or_default();
        let each = slower as f64 / (count / u64::from(THREADS)) as f64;
        println!("{name:<30} {count:>14} {:>10.2} {each:>18.3}", slower as f64 / 1e6);
    }
    let (series, samples) = if small { (5, 3_000) } else { (100, 86_400) };
    println!("a day of one series, {samples} samples, cold: {:.2} ms", cold_day(series, samples, rounds));
}

/// Milliseconds to read all samples of one of many series, the worst of some, with the file out of the page cache.
fn cold_day(series: u32, samples: i64, rounds: usize) -> f64 {
    // Below the current folder: the temporary one may lie in memory.
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let disk = StdDisk::new(folder.path());
    let mut store =
        Store::new(disk.clone(), 0, 1, StoreOptions { memory_bytes_max: 1 << 40 }, Box::new(|_| 0));
    fill(&mut store, 0..series, samples, 1);
    let job = store.begin_flush(1).expect("there are samples");
    let flushed = ready(job.run(&disk)).expect("the disk has room");
    let path = folder.path().join(segment_path(flushed.entry().id));
    store.finish_flush(flushed);
    let mut worst = 0.0f64;
    for round in 0..rounds {
        // It drops what the page cache holds of the file.
        let evicted = Command::new("dd")
            .args(["iflag=nocache", "count=0"])
            .arg(format!("if={}", path.display()))
            .output();
        assert!(evicted.is_ok_and(|output| output.status.success()), "dd is everywhere");
        let host = Matcher {
            label: "host".to_owned(),
            condition: Condition::Equal(format!("host-{}", round as u32 % series)),
        };
        let began = Instant::now();
        let mut selection =
            store.select("requests_total", &[host], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut piece, mut count) = (Piece::default(), 0);
        while ready(selection.next_piece(&mut piece)) {
            count += piece.samples.len();
        }
        worst = worst.max(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(count as i64, samples);
    }
    worst
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Sum,
    Max,
    Rate,
    SumOfRows,
    MaxOfRows,
}

/// Fills a store with counters and asks it; nanoseconds of each question.
fn fill_and_read(
    folder: &Path,
    series: u32,
    samples: i64,
    questions: &[Question],
    rounds: usize,
    barrier: &Barrier,
) -> Vec<u64> {
    let disk = StdDisk::new(folder);
    let options = StoreOptions { memory_bytes_max: 1 << 40 };
    let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
    for (flush, first) in (0..series).step_by(SERIES_PER_FLUSH as usize).enumerate() {
        fill(&mut store, first..series.min(first + SERIES_PER_FLUSH), samples, INTERVAL_S);
        let job = store.begin_flush(flush as u64 + 1).expect("there are samples");
        let flushed = ready(job.run(&disk)).expect("the disk has room");
        store.finish_flush(flushed);
    }
    let values: Vec<f64> = (0..samples).map(|i| sample(i, INTERVAL_S).value).collect();
    questions.iter().map(|question| time(&store, *question, series, &values, rounds, barrier)).collect()
}

fn fill(store: &mut Store<StdDisk>, series: Range<u32>, samples: i64, interval_s: i64) {
    let mut share = Share::default();
    for n in series {
        let (host, job) = (format!("host-{n}"), format!("job-{}", n % 10));
        let labels = LabelSet::new("requests_total", &[("host", &host), ("job", &job)]).expect("valid");
        share.define(SeriesNumber(n), MetricKind::Counter, labels.as_ref());
        (0..samples).for_each(|i| share.push(SeriesNumber(n), sample(i, interval_s)));
    }
    store.apply(0, &share, &mut |_, _, _| {});
}

/// A counter of whole numbers that rises unevenly.
fn sample(i: i64, interval_s: i64) -> Sample {
    let timestamp = Timestamp::from_millis(1_700_000_000_000 + i * interval_s * 1_000).expect("in range");
    Sample { timestamp, value: (i * 100 + i * i % 97) as f64 }
}

fn time(
    store: &Store<StdDisk>,
    question: Question,
    series: u32,
    values: &[f64],
    rounds: usize,
    barrier: &Barrier,
) -> u64 {
    let whole = |value: f64| value * f64::from(series);
    let expected = match question {
        Question::Sum | Question::SumOfRows => whole(values.iter().sum()),
        Question::Max | Question::MaxOfRows => values.iter().copied().fold(f64::MIN, f64::max),
        Question::Rate => whole(values.windows(2).map(|pair| rise(pair[0], pair[1])).sum()),
    };
    let mut least = u64::MAX;
    for _ in 0..rounds {
        barrier.wait();
        let began = Instant::now();
        let answer = match question {
            Question::SumOfRows | Question::MaxOfRows => ask_rows(store, question),
            _ => ask(store, question),
        };
        least = least.min(began.elapsed().as_nanos() as u64);
        assert_eq!(answer, expected, "{question:?}");
    }
    least
}

fn rise(before: f64, after: f64) -> f64 {
    if after < before { after } else { after - before }
}

/// Additions side by side, so that none waits for the one before; whole numbers below 2⁵³, exact in any order.
const LANES: usize = 8;

fn ask(store: &Store<StdDisk>, question: Question) -> f64 {
    let mut selection = store.select("requests_total", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    let (mut piece, mut last) = (Piece::default(), f64::NAN);
    let mut lanes = [if let Question::Max = question { f64::MIN } else { 0.0 }; LANES];
    while ready(selection.next_piece(&mut piece)) {
        let Some(first) = piece.samples.first() else { continue };
        let before = if piece.begins.is_some() { first.value } else { last };
        match question {
            Question::SumOfRows | Question::MaxOfRows => unreachable!("asked of rows"),
            Question::Sum => fold(&piece.samples, &mut lanes, |sum, value| *sum += value),
            Question::Max => fold(&piece.samples, &mut lanes, |most, value| {
                *most = if value > *most { value } else { *most };
            }),
            Question::Rate => {
                lanes[0] += rise(before, first.value);
                for (n, pair) in piece.samples.windows(2).enumerate() {
                    lanes[n % LANES] += rise(pair[0].value, pair[1].value);
                }
            }
        }
        last = piece.samples.last().map_or(last, |sample| sample.value);
    }
    assert!(selection.take_warnings().is_empty());
    match question {
        Question::Max => lanes.into_iter().fold(f64::MIN, f64::max),
        _ => lanes.into_iter().sum(),
    }
}

/// The same of what directory rows say: no chunk is read.
fn ask_rows(store: &Store<StdDisk>, question: Question) -> f64 {
    let mut selection = store.select("requests_total", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    selection.summarise(Summarised::InRange, RowSums::Exact);
    let (mut piece, mut sum, mut most) = (Piece::default(), 0.0, f64::MIN);
    while ready(selection.next_piece(&mut piece)) {
        let is_told = piece.samples.is_empty() && piece.summaries.is_empty();
        assert!(is_told, "every series is alone in its time");
        for summary in piece.told.iter().flat_map(|series| series.chunks) {
            sum += summary.aggregates.sum.high;
            most = most.max(summary.aggregates.max);
        }
    }
    assert!(selection.take_warnings().is_empty());
    if let Question::SumOfRows = question { sum } else { most }
}

fn fold(samples: &[Sample], lanes: &mut [f64; LANES], with: impl Fn(&mut f64, f64)) {
    let (rows, rest) = samples.as_chunks::<LANES>();
    for row in rows {
        lanes.iter_mut().zip(row).for_each(|(lane, sample)| with(lane, sample.value));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, sample)| with(lane, sample.value));
}
