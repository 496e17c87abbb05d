//! What it costs that series come and go: a loop's dictionary and an executor's store, half an hour of a sample every 15 s.
//!
//! ```text
//!   steady   all series are there from the first to the last round
//!   churn    each minute a tenth of them, the oldest, is replaced by new ones
//! ```
//!
//! Series that have stopped are sent to segments, their numbers taken back and their rows forgotten as the server does it,
//! by the clock of the samples. Sketched before the first run, of a million series: two minutes of silence and a
//! sixteenth are 275,000 rows more than the million, so 1.3 times the memory; of each 40 samples one is the first of its
//! series and costs 4 us instead of 50 ns, and its way out as much again, so 200 ns a sample more: what a decoder spends is
//! not in it.
//! The disk is in memory, for nobody waits for it in a server. What the store holds at the end is counted against what was sent, in memory and in segments.
//! `cargo bench -p storage --bench churn`; `cargo test` makes a small run.

#[path = "disk/nowhere.rs"]
mod nowhere;
#[path = "series/scraped.rs"]
mod scraped;

use model::{LabelSet, LabelSetRef, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use nowhere::Nowhere;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use storage::disk::{SimDisk, ready};
use storage::journal::{JournalLimits, Reserve, Resume, Writer, batch_bytes_max, prepare};
use storage::memtable::Silence;
use storage::store::{Stopped, Store, StoreOptions};

const START_MS: i64 = 1_700_000_000_000;
const INTERVAL_MS: i64 = 15_000;
const ROUNDS_PER_MINUTE: usize = 4;
/// As the server: two minutes of silence, looked at in eight ticks, and a sixteenth of all.
const SILENCE: Silence = Silence { ticks: 8, tick_ms: INTERVAL_MS };
const STOPPED_SHARE: usize = 16;
const ROUND_MAX: usize = 1 << 15;
const NAMES_PER_MESSAGE: usize = 256;
const BATCH_SERIES: usize = 500;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (series, minutes) = if small { (2_000, 10) } else { (1_000_000, 30) };
    println!(
        "{:<8} {:>10} {:>10} {:>12} {:>12} {:>14} {:>14} {:>10} {:>10}",
        "", "met", "ns/sample", "of it out", "peak MB", "in memory", "longest step", "segments", "MB"
    );
    let [steady, churn] = [false, true].map(|replaces| run(series, minutes, replaces));
    println!(
        "memory at most {:.2} times, samples/s {:.2} times",
        churn.peak_bytes as f64 / steady.peak_bytes as f64,
        steady.ns_per_sample / churn.ns_per_sample,
    );
}

struct Ran {
    ns_per_sample: f64,
    peak_bytes: usize,
}

/// One loop and one executor.
struct Shard {
    disk: SimDisk,
    writer: Writer,
    store: Store<SimDisk>,
    share: Share,
    dictionary: u64,
    /// What the loop calls series in their order, the oldest first, as its decoder remembers it.
    active: VecDeque<(usize, Option<SeriesNumber>)>,
    turns: u64,
    /// Time of the way in, and of what series took that have stopped.
    spent: Duration,
    out: Duration,
    longest: (Duration, &'static str),
    peak_bytes: usize,
    segments: u64,
    segment_bytes: u64,
    segment_samples: u64,
}

impl Shard {
    fn new(series: usize) -> Shard {
        let disk = SimDisk::new(1);
        let options = StoreOptions { memory_bytes_max: 1 << 40 };
        let active = (0..series).map(|n| (n, None)).collect();
        Shard {
            store: Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0)),
            disk,
            writer: Writer::new(0, 1, Resume::default(), JournalLimits::default()),
            share: Share::default(),
            dictionary: 0,
            active,
            turns: 0,
            spent: Duration::ZERO,
            out: Duration::ZERO,
            longest: (Duration::ZERO, "none"),
            peak_bytes: 0,
            segments: 0,
            segment_bytes: 0,
            segment_samples: 0,
        }
    }

    /// A sample of each series, in batches; journals and shares as in `append.rs`, without the journal's bytes.
    fn round(&mut self, tick: i64) {
        let mut active = std::mem::take(&mut self.active);
        let mut met = Vec::new();
        for start in (0..active.len()).step_by(BATCH_SERIES) {
            if self.begins_dictionary() {
                active.iter_mut().for_each(|(_, number)| *number = None);
            }
            let end = active.len().min(start + BATCH_SERIES);
            let batch = &mut active.make_contiguous()[start..end];
            // What a body holds lies there before the clock runs.
            let new = batch.iter().filter(|(_, number)| number.is_none());
            met.clear();
            met.extend(new.map(|(n, _)| scraped::labels(*n, &[])));
            let began = Instant::now();
            self.append(batch, &met, tick);
            self.spent += began.elapsed();
        }
        self.active = active;
        self.note_peak();
    }

    /// Makes room for a batch; whether that has begun a dictionary, in which no number means anything.
    fn begins_dictionary(&mut self) -> bool {
        let bytes = batch_bytes_max(BATCH_SERIES, BATCH_SERIES * 400, 32);
        if let Some(file) = self.writer.needs_file() {
            self.writer.install(ready(prepare(&Nowhere, 0, file)).expect("nothing fails there"));
        }
        assert_eq!(self.writer.reserve(bytes), Reserve::Ready, "every write was told to have gone well");
        std::mem::replace(&mut self.dictionary, self.writer.dictionary()) != self.dictionary
    }

    fn append(&mut self, batch: &mut [(usize, Option<SeriesNumber>)], met: &[LabelSet], tick: i64) {
        self.share.dictionary = self.dictionary;
        let client = self.writer.client(b"10.0.17.23");
        self.writer.begin_batch(client);
        let mut met = met.iter();
        for (n, number) in batch {
            let known = *number;
            let number = *number.insert(known.unwrap_or_else(|| {
                let labels = met.next().expect("each new one is there").as_ref();
                Self::number(&mut self.writer, &mut self.share, labels)
            }));
            let timestamp = Timestamp::first_of_milli(START_MS + INTERVAL_MS * tick);
            let value = ((*n as i64 * 31 + tick * 17) ^ (tick * tick)).rem_euclid(97);
            let sample = Sample { timestamp, value: value as f64 };
            self.writer.push(number, sample);
            self.share.push(number, sample);
        }
        self.seal();
        while let Some(sync) = self.writer.next_sync() {
            self.writer.synced(sync, Ok(())).expect("it went well");
        }
    }

    fn number(writer: &mut Writer, share: &mut Share, labels: LabelSetRef<'_>) -> SeriesNumber {
        let numbered = writer.number(labels, MetricKind::Gauge, |_| 0);
        if numbered.first {
            share.define(numbered.number, MetricKind::Gauge, labels);
        }
        numbered.number
    }

    fn seal(&mut self) {
        self.turns += 1;
        let Some(sealed) = self.writer.seal(self.turns) else { return };
        self.share.stamp = sealed.stamp;
        while let Some(write) = self.writer.next_write() {
            self.writer.wrote(write, Ok(())).expect("it went well");
        }
        assert_eq!(self.store.apply(0, &self.share, &mut |_, _, _| {}).unknown, 0);
        self.share.clear();
    }

    /// What the server does at each tick of its clock.
    fn look_for_stopped(&mut self) {
        self.store.tick();
        let mut stopped = Stopped::default();
        while self.step("find", |shard| shard.store.find_stopped(SILENCE, ROUND_MAX, &mut stopped)) {}
        if stopped.count() < ROUND_MAX && stopped.count() * STOPPED_SHARE < self.store.series_count() {
            return;
        }
        let id = self.segments + 1;
        let job = self.step("freeze", |shard| shard.store.begin_part_flush(id, SILENCE, &stopped));
        let Some(job) = job else { return };
        self.note_peak();
        let began = Instant::now();
        let flushed = ready(job.run(&self.disk)).expect("the disk is in memory");
        (self.segments, self.segment_bytes) = (id, self.segment_bytes + flushed.entry().bytes);
        self.segment_samples += flushed.sample_count();
        self.out += began.elapsed();
        self.step("switch", |shard| shard.store.finish_flush(flushed));
        drop(job);
        let mut names = self.step("names", |shard| shard.store.names_of_stopped(&stopped));
        while self.step("names", |shard| shard.store.find_names(&mut names)) {}
        let mut share = Share::default();
        for mut names in names.end() {
            while self.step("take back", |shard| {
                share.clear();
                let some = shard.store.take_some_names(&mut names, SILENCE, NAMES_PER_MESSAGE, &mut share);
                shard.writer.take_back(&share);
                shard.store.take_names_back(0, &share);
                some
            }) {}
        }
        self.note_peak();
        self.step("forget", |shard| shard.store.begin_forgetting(stopped));
        let mut hashes = Vec::new();
        while self.step("forget", |shard| shard.store.forget_some(&mut hashes)) {}
    }

    fn step<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Shard) -> T) -> T {
        let began = Instant::now();
        let done = work(self);
        let took = began.elapsed();
        self.out += took;
        self.longest = self.longest.max((took, name));
        done
    }

    fn note_peak(&mut self) {
        let bytes = self.store.memory().bytes() + self.writer.dictionary_memory_bytes();
        self.peak_bytes = self.peak_bytes.max(bytes);
    }
}

fn run(series: usize, minutes: usize, replaces: bool) -> Ran {
    let mut shard = Shard::new(series);
    let rounds = minutes * ROUNDS_PER_MINUTE;
    let mut met = series;
    for round in 0..rounds {
        if replaces && round > 0 && round % ROUNDS_PER_MINUTE == 0 {
            shard.active.drain(..series / 10);
            shard.active.extend((met..met + series / 10).map(|n| (n, None)));
            met += series / 10;
        }
        if round == 1 {
            // All series were new in the first round, of either.
            (shard.spent, shard.out) = (Duration::ZERO, Duration::ZERO);
        }
        shard.round(round as i64);
        shard.look_for_stopped();
    }
    let samples = (series * rounds) as u64;
    assert_eq!(
        shard.store.memtable_samples() + shard.segment_samples,
        samples,
        "each sample is in one place"
    );
    let in_memory = shard.store.series_count();
    if replaces {
        // Two minutes of silence, one for the tick and the share, and what the last minute brought.
        assert!((series..series * 14 / 10).contains(&in_memory), "{in_memory} of {met}");
    } else {
        assert_eq!((in_memory, shard.segments), (series, 0));
    }
    let ns = |time: Duration| time.as_nanos() as f64 / (samples - series as u64) as f64;
    let ns_per_sample = ns(shard.spent + shard.out);
    println!(
        "{:<8} {met:>10} {ns_per_sample:>10.1} {:>12.1} {:>12.0} {in_memory:>14} {:>8.1} ms {:<9} {:>4} {:>10.0}",
        if replaces { "churn" } else { "steady" },
        ns(shard.out),
        shard.peak_bytes as f64 / 1e6,
        shard.longest.0.as_secs_f64() * 1e3,
        shard.longest.1,
        shard.segments,
        shard.segment_bytes as f64 / 1e6,
    );
    Ran { ns_per_sample, peak_bytes: shard.peak_bytes }
}
