//! What appending costs on one core: the loop's journal and the executor's memtable, one turn after the other.
//!
//! ```text
//!   a series' number, or its label bytes → number → journal frame, share → sealed, copied → applied to the store
//! ```
//!
//! Sketched before the first run, nanoseconds a sample of 10,000 series: 15 in the frame, 5 in the share, 5 for the copy
//! (the kernel's, into its page cache), 25 in the memtable; of a million series 100 more, for rows and chunks miss the cache.
//! By label bytes 250 bytes are hashed and compared, and dictionary, labels and row miss the cache: 300.
//!
//! - `numbers`: each series' number is known, as a loop knows it of a series that came before.
//! - `bytes, in order`, `bytes, at random`: label bytes are looked up in the journal's dictionary.
//! - `bytes, as before`: a sender repeats itself: bytes hash to what its last request had at the same place.
//!   (So do the server's decoders, on the body's own bytes: `cargo bench -p ingest --bench senders`.)
//! - `new`: each sample is the first of its series.
//!
//! What the store holds is checked. Figures of the journal's bytes: 500 series a batch, a mix of constants, counters and
//! gauges, every 15 s; labels, which each file says again, and client ids included.
//! `cargo bench -p storage --bench append`; `cargo test` makes a small run.

#[path = "disk/nowhere.rs"]
mod nowhere;
#[path = "series/scraped.rs"]
mod scraped;

use model::{LabelSetRef, MetricKind, Sample, SeriesNumber, Share, TextHash, TextKey, Timestamp};
use nowhere::Nowhere;
use std::ops::Range;
use std::time::Instant;
use storage::disk::ready;
use storage::journal::{JournalLimits, Reserve, Resume, Writer, batch_bytes_max, prepare};
use storage::store::{Store, StoreOptions};

/// Samples of a batch: what an agent sends.
const BATCH_SERIES: usize = 500;
/// Batches of a turn.
const TURN_BATCHES: usize = 4;
const START_MS: i64 = 1_700_000_000_000;

fn main() {
    let small = !std::env::args().any(|argument| argument == "--bench");
    let (few, many) = if small { (2_000, 10_000) } else { (10_000, 1_000_000) };
    let passes = if small { 2 } else { 40 };
    println!(
        "{:<34} {:>10} {:>12} {:>14} {:>12}",
        "series", "ns/sample", "million/s", "journal B", "of it labels"
    );
    let few_bytes = all(few, passes, &[Source::Numbers, Source::InOrder, Source::AtRandom, Source::AsBefore]);
    let many_passes = if small { 2 } else { 6 };
    let many_bytes = all(many, many_passes, &[Source::Numbers, Source::AtRandom, Source::AsBefore]);
    println!(
        "journal bytes of {many} series over those of {few}, labels included: {:.2}",
        many_bytes / few_bytes
    );
}

/// Where the number of a sample's series comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    New,
    Numbers,
    InOrder,
    AtRandom,
    AsBefore,
}

/// The label sets of all series, as a body has them: back to back.
struct Labels {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Labels {
    /// Ten labels, the name among them, some of which tell series apart.
    fn new(series: usize) -> Labels {
        let mut labels = Labels { bytes: Vec::new(), ends: Vec::new() };
        for n in 0..series {
            let set = scraped::labels(n, &[]);
            labels.bytes.extend_from_slice(set.as_ref().bytes());
            labels.ends.push(labels.bytes.len());
        }
        labels
    }

    fn of(&self, series: usize) -> &[u8] {
        let start = series.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[series]]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

/// One loop and one executor.
struct Shard<'a> {
    labels: &'a Labels,
    /// The label sets of the turn's samples as they came: out of the network, so they are in the cache.
    body: Labels,
    /// What the sender's last request had at each place.
    before: Vec<TextHash>,
    key: TextKey,
    writer: Writer,
    store: Store<Nowhere>,
    share: Share,
    /// By series, within the dictionary at hand.
    numbers: Vec<Option<SeriesNumber>>,
    dictionary: u64,
    /// What stands for the kernel's pages.
    pages: Vec<u8>,
    journal_bytes: usize,
    label_bytes: usize,
    turns: u64,
    nanos: u128,
}

impl Shard<'_> {
    fn new(labels: &Labels) -> Shard<'_> {
        let memory = StoreOptions { memory_bytes_max: 1 << 40 };
        let key = TextKey::new(1);
        Shard {
            labels,
            body: Labels { bytes: Vec::new(), ends: Vec::new() },
            before: (0..labels.len()).map(|n| key.hash(labels.of(n))).collect(),
            key,
            writer: Writer::new(0, 1, Resume::default(), JournalLimits::default()),
            store: Store::new(Nowhere, 0, 1, memory, Box::new(|_| 0)),
            share: Share::default(),
            numbers: vec![None; labels.len()],
            dictionary: 0,
            pages: vec![0; 4 << 20],
            journal_bytes: 0,
            label_bytes: 0,
            turns: 0,
            nanos: 0,
        }
    }

    /// One sample of each of these, in the batches of one turn; a known series by `source`.
    fn turn(&mut self, series: &[u32], places: Range<usize>, tick: i64, source: Source) {
        if let Some(file) = self.writer.needs_file() {
            self.writer.install(ready(prepare(&Nowhere, 0, file)).expect("nothing fails there"));
        }
        let first = places.start;
        self.body.bytes.clear();
        self.body.ends.clear();
        for n in series[places.clone()].iter().filter(|_| source != Source::Numbers) {
            self.body.bytes.extend_from_slice(self.labels.of(*n as usize));
            self.body.ends.push(self.body.bytes.len());
        }
        let began = Instant::now();
        let mut places = places;
        while !places.is_empty() {
            let batch = places.start..places.end.min(places.start + BATCH_SERIES);
            places.start = batch.end;
            let bytes = batch_bytes_max(BATCH_SERIES, BATCH_SERIES * 400, 32);
            loop {
                match self.writer.reserve(bytes) {
                    Reserve::Ready => break,
                    Reserve::SealFirst => self.seal(),
                    other => panic!("{other:?}: every write was told to have gone well"),
                }
            }
            if self.writer.dictionary() != self.dictionary {
                self.dictionary = self.writer.dictionary();
                self.numbers.fill(None);
            }
            self.share.dictionary = self.dictionary;
            let client = self.writer.client(b"10.0.17.23");
            self.writer.begin_batch(client);
            for place in batch {
                let n = series[place] as usize;
                let known = match source {
                    Source::Numbers => self.numbers[n],
                    Source::AsBefore => {
                        let hash = self.key.hash(self.body.of(place - first));
                        self.numbers[n].filter(|_| hash == self.before[n])
                    }
                    Source::New | Source::InOrder | Source::AtRandom => None,
                };
                let number = known.unwrap_or_else(|| self.look_up(n, place - first));
                let sample = Sample {
                    timestamp: Timestamp::first_of_milli(START_MS + 15_000 * tick),
                    value: value(n, tick),
                };
                self.writer.push(number, sample);
                self.share.push(number, sample);
            }
        }
        self.seal();
        self.nanos += began.elapsed().as_nanos();
        while let Some(sync) = self.writer.next_sync() {
            self.writer.synced(sync, Ok(())).expect("it went well");
        }
    }

    fn look_up(&mut self, n: usize, in_body: usize) -> SeriesNumber {
        // A known number is lost with its dictionary: then the decoder reads the labels again.
        let has_body = in_body < self.body.len();
        let bytes = if has_body { self.body.of(in_body) } else { self.labels.of(n) };
        let labels = LabelSetRef::from_canonical(bytes);
        let numbered = self.writer.number(labels, MetricKind::Gauge, |hash| hash.slot().number() % 4);
        if numbered.first {
            self.share.define(numbered.number, MetricKind::Gauge, labels);
            self.label_bytes += labels.bytes().len();
        }
        self.numbers[n] = Some(numbered.number);
        numbered.number
    }

    fn seal(&mut self) {
        self.turns += 1;
        let Some(sealed) = self.writer.seal(self.turns) else { return };
        self.share.stamp = sealed.stamp;
        while let Some(write) = self.writer.next_write() {
            for piece in write.bytes.chunks(self.pages.len()) {
                self.pages[..piece.len()].copy_from_slice(piece);
            }
            self.journal_bytes += write.bytes.len();
            self.writer.wrote(write, Ok(())).expect("it went well");
        }
        assert_eq!(self.store.apply(0, &self.share, &mut |_, _, _| {}).unknown, 0);
        self.share.clear();
    }
}

/// Half of them never change; counters, integers, and numbers of two decimals.
fn value(series: usize, tick: i64) -> f64 {
    let noise = ((series as i64 * 31 + tick * 17) ^ (tick * tick)) % 97;
    match series % 10 {
        0..=4 => (series % 1_000) as f64,
        5..=6 => (tick * 1_000 + tick * 15 * (series % 100) as i64 + noise) as f64,
        7..=8 => (40 + noise) as f64,
        _ => (4_000 + noise * 3) as f64 / 100.0,
    }
}

/// All series once as new ones, and then so often by each source; journal bytes a sample over the time of a whole file,
/// whose size goes by that of its dictionary.
fn all(series: usize, passes: i64, sources: &[Source]) -> f64 {
    let labels = Labels::new(series);
    let mut shard = Shard::new(&labels);
    let in_order: Vec<u32> = (0..series as u32).collect();
    // Every series once, far from its neighbours.
    let step = 7_919;
    let at_random: Vec<u32> = (0..series).map(|n| (n * step % series) as u32).collect();
    let mut tick = 0;
    let mut of_samples = 0.0;
    for source in std::iter::once(&Source::New).chain(sources) {
        let order = if *source == Source::AtRandom { &at_random } else { &in_order };
        (shard.nanos, shard.journal_bytes, shard.label_bytes) = (0, 0, 0);
        let passes = if *source == Source::New { 1 } else { passes };
        for _ in 0..passes {
            for start in (0..series).step_by(BATCH_SERIES * TURN_BATCHES) {
                shard.turn(order, start..series.min(start + BATCH_SERIES * TURN_BATCHES), tick, *source);
            }
            tick += 1;
        }
        let samples = series * passes as usize;
        let ns = shard.nanos as f64 / samples as f64;
        let name = match source {
            Source::New => "new",
            Source::Numbers => "numbers",
            Source::InOrder => "bytes, in order",
            Source::AtRandom => "bytes, at random",
            Source::AsBefore => "bytes, as before",
        };
        println!(
            "{:<34} {ns:>10.1} {:>12.2} {:>14.2} {:>12.2}",
            format!("{series}, {name}"),
            1e3 / ns,
            shard.journal_bytes as f64 / samples as f64,
            shard.label_bytes as f64 / samples as f64
        );
        if *source == Source::AsBefore {
            of_samples = (shard.journal_bytes - shard.label_bytes) as f64 / samples as f64;
        }
    }
    assert_eq!(shard.store.memtable_samples(), tick as u64 * series as u64);
    let memory = shard.store.memory().bytes();
    println!("{:<34} {:>10} B of memory a series, with {tick} samples", format!("{series}"), memory / series);
    // Numbers and lengths stand beside the labels.
    let definitions = (labels.bytes.len() + 12 * series) as f64;
    let limits = JournalLimits::default();
    let file = (8.0 * definitions).clamp(limits.file_bytes_min as f64, limits.file_bytes_max as f64);
    let bytes = of_samples * file / (file - definitions);
    println!(
        "{:<34} {bytes:>10.2} B of journal a sample, files of {:.0} MiB",
        format!("{series}"),
        file / 1048576.0
    );
    bytes
}
