//! What a restart costs on one core: a checkpoint of many series, and journals.
//!
//! ```text
//!   checkpoint   file → labels, row, index, open chunk of each series          nanoseconds a series
//!   journal      recovered (every frame's sum), then frames → shares → memtable   nanoseconds a sample
//! ```
//!
//! Sketched before the first run. Of a series: 60 bytes read and checked 20 ns, label set put together and hashed 80,
//! three allocations and fresh pages 250, its place in the table of label sets 100, an index entry per label that changed
//! (two in the mean) 150: 600 ns. Of a sample: its record decoded 6 ns, to a series 3, appended 15; recovery before it 2.
//! What is there afterwards is counted and asked for. Files are in the page cache.
//! `cargo bench -p storage --bench restart`; `cargo test` makes a small run.

#[path = "series/scraped.rs"]
mod scraped;

use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Stamp, Timestamp, parse_matchers};
use std::time::{Duration, Instant};
use storage::checkpoint::{CheckpointEntry, Pace};
use storage::disk::{Disk, DiskFile, StdDisk, ready};
use storage::journal::{
    JournalLimits, OnDamage, Recovered, Replay, Reserve, Resume, Writer, batch_bytes_max, prepare, recover,
};
use storage::store::{Piece, Store, StoreOptions};

const START_MS: i64 = 1_700_000_000_000;
/// Samples of a batch: what an agent sends.
const BATCH_SERIES: u32 = 500;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let rounds = if small { 1 } else { 5 };
    let folder = tempfile::tempdir().expect("a folder for the files");
    let disk = StdDisk::new(folder.path());
    let series = if small { 2_000 } else { 1_000_000 };
    println!("{:<52} {:>10} {:>12} {:>10}", "least of some rounds", "ns each", "million/s", "bytes each");
    let entry = checkpoint(&disk, series);
    let load = (0..rounds).map(|_| load(&disk, &entry, series)).min().unwrap_or_default();
    print(&format!("{series} series of 10 labels, checkpoint loaded"), load, series, entry.bytes);
    let (few, ticks) = if small { (1_000, 10) } else { (10_000, 500) };
    let samples = few * ticks;
    let bytes = journal(&disk, few, ticks);
    let times: Vec<(Duration, Duration)> = (0..rounds).map(|_| replay(&disk, few, samples)).collect();
    let recovered = times.iter().map(|(recovered, _)| *recovered).min().unwrap_or_default();
    let replayed = times.iter().map(|(_, replayed)| *replayed).min().unwrap_or_default();
    print(&format!("{samples} samples of {few} series, journal recovered"), recovered, samples, bytes);
    print(&format!("{samples} samples of {few} series, journal replayed"), replayed, samples, bytes);
    print(&format!("{samples} samples of {few} series, both"), recovered + replayed, samples, bytes);
}

fn print(what: &str, time: Duration, count: u32, bytes: u64) {
    let ns = time.as_nanos() as f64 / f64::from(count);
    println!("{what:<52} {ns:>10.1} {:>12.2} {:>10.1}", 1e3 / ns, bytes as f64 / f64::from(count));
}

fn store(disk: &StdDisk) -> Store<StdDisk> {
    Store::new(disk.clone(), 0, 1, StoreOptions { memory_bytes_max: 1 << 40 }, Box::new(|_| 0))
}

/// As scrapes bring them: those of one target one behind the other, and of these the metric name and one label differ.
fn labels(n: u32) -> LabelSet {
    scraped::labels(n as usize, &[("id", &format!("{n:07}"))])
}

/// Counters, gauges and what never changes.
fn sample(n: u32, tick: i64) -> Sample {
    let value = match n % 4 {
        0 => f64::from(n % 1_000),
        1 => (tick * i64::from(n % 100 + 1)) as f64,
        2 => (4_000 + (i64::from(n) * 31 + tick * 17) % 97 * 3) as f64 / 100.0,
        _ => ((i64::from(n) + tick * tick) % 50) as f64,
    };
    Sample { timestamp: Timestamp::first_of_milli(START_MS + 15_000 * tick), value }
}

/// Writes a checkpoint of so many series, three samples each.
fn checkpoint(disk: &StdDisk, series: u32) -> CheckpointEntry {
    let mut of = store(disk);
    let mut share = Share::default();
    for tick in 0..3 {
        for n in 0..series {
            share.stamp = Stamp { run: 1, nanos: u64::from(n), loop_index: 0 };
            if tick == 0 {
                share.define(SeriesNumber(n), MetricKind::Gauge, labels(n).as_ref());
            }
            share.push(SeriesNumber(n), sample(n, tick));
            if n % BATCH_SERIES == BATCH_SERIES - 1 || n + 1 == series {
                assert_eq!(of.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
                share.clear();
            }
        }
    }
    let mut job = of.begin_checkpoint(1, Pace::default()).expect("there is something to write");
    loop {
        if let Some(entry) = ready(job.step()).expect("a disk that takes it") {
            return entry;
        }
    }
}

fn load(disk: &StdDisk, entry: &CheckpointEntry, series: u32) -> Duration {
    let mut of = store(disk);
    let began = Instant::now();
    let loaded = ready(of.load_checkpoint(entry)).expect("a disk that gives it");
    let took = began.elapsed();
    assert!(loaded.damaged.is_empty());
    assert_eq!((loaded.series, loaded.samples), (u64::from(series), 3 * u64::from(series)));
    let one = format!(r#"{{id="{:07}"}}"#, series / 2);
    assert_eq!(found(&of, &labels(series / 2), &one), (1, 3));
    let instance = labels(series / 2).as_ref().get("instance").to_owned();
    let of_instance = (0..series).filter(|n| n % 10 == 0 && labels(*n).as_ref().get("instance") == instance);
    let (many, all) = found(&of, &labels(0), &format!(r#"{{instance="{instance}"}}"#));
    assert_eq!((many, all), (of_instance.clone().count(), 3 * of_instance.count()));
    took
}

/// Series of that name that meet this, and their samples.
fn found(of: &Store<StdDisk>, named: &LabelSet, text: &str) -> (usize, usize) {
    let matchers = parse_matchers(text).expect("valid matchers");
    let name = named.as_ref().name();
    let mut selection = of.select(name, &matchers, Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    let (mut piece, mut series, mut samples) = (Piece::default(), 0, 0);
    while ready(selection.next_piece(&mut piece)) {
        series += usize::from(piece.begins.is_some());
        samples += piece.samples.len();
    }
    (series, samples)
}

/// Writes a journal of so many series, each with as many samples; its bytes.
fn journal(disk: &StdDisk, series: u32, ticks: u32) -> u64 {
    let mut writer = Writer::new(0, 1, Resume::default(), JournalLimits::default());
    let (mut written, mut nanos) = (0, 0);
    let mut open = None;
    let mut dictionary = u64::MAX;
    for tick in 0..ticks {
        for first in (0..series).step_by(BATCH_SERIES as usize) {
            if let Some(file) = writer.needs_file() {
                let prepared = ready(prepare(disk, 0, file)).expect("a disk that takes it");
                writer.install(prepared);
            }
            let bytes = batch_bytes_max(BATCH_SERIES as usize, BATCH_SERIES as usize * 400, 32);
            while let Reserve::SealFirst = writer.reserve(bytes) {
                nanos += 1;
                write(disk, &mut writer, nanos, &mut open, &mut written);
            }
            dictionary = if tick == 0 { writer.dictionary() } else { dictionary };
            assert_eq!(writer.dictionary(), dictionary, "the bench's journal is one file");
            let client = writer.client(b"10.0.17.23");
            writer.begin_batch(client);
            for n in first..series.min(first + BATCH_SERIES) {
                let numbered = writer.number(labels(n).as_ref(), MetricKind::Gauge, |_| 0);
                assert_eq!(numbered.number, SeriesNumber(n));
                writer.push(numbered.number, sample(n, i64::from(tick)));
            }
            nanos += 1;
            write(disk, &mut writer, nanos, &mut open, &mut written);
        }
    }
    written
}

/// Seals the frame and puts it down.
fn write(
    disk: &StdDisk,
    writer: &mut Writer,
    nanos: u64,
    open: &mut Option<<StdDisk as Disk>::File>,
    written: &mut u64,
) {
    writer.seal(nanos);
    while let Some(write) = writer.next_write() {
        let path = storage::journal::file_path(0, write.sequence);
        let file = open.get_or_insert_with(|| ready(disk.open(&path)).expect("it was prepared"));
        ready(file.write_at(write.position, &write.bytes)).expect("a disk that takes it");
        *written += write.bytes.len() as u64;
        writer.wrote(write, Ok(())).expect("it went well");
    }
    while let Some(sync) = writer.next_sync() {
        writer.synced(sync, Ok(())).expect("it went well");
    }
}

/// How long recovery takes, and then replay into an empty store.
fn replay(disk: &StdDisk, series: u32, samples: u32) -> (Duration, Duration) {
    let began = Instant::now();
    let journal: Recovered = ready(recover(disk, 0, OnDamage::Stop)).expect("an intact journal");
    let recovered = began.elapsed();
    let mut of = store(disk);
    let began = Instant::now();
    let mut replay = Replay::open(disk, &[journal], &[], &[]).expect("all of it is there");
    let mut share = Share::default();
    while ready(replay.next(&mut share, |_| true)).expect("an intact journal").is_some() {
        assert_eq!(of.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    }
    let replayed = began.elapsed();
    assert_eq!((of.series_count() as u32, of.memtable_samples()), (series, u64::from(samples)));
    let one = format!(r#"{{id="{:07}"}}"#, series / 2);
    assert_eq!(found(&of, &labels(series / 2), &one), (1, (samples / series) as usize));
    (recovered, replayed)
}
