//! Columns: bytes and nanoseconds a sample, to seal and to decode, on kinds of series, against open chunks; and a whole
//! segment of them, written and read.
//!
//! Sketched before the first run: sealing some passes over a column that lies in the nearest cache, 20 to 60 ns a
//! sample; decoding a load, two shifts and an addition, 0.5 ns for values and as much for times; decimals a division
//! more. Bytes as in DESIGN §4: counter 1.6, two-decimal gauge 1.45, integer gauge 0.7. An open chunk's Gorilla, for
//! comparison: append 5 ns, decode 4 ns. Every decoded sample is compared bit for bit, so a fast wrong run fails.
//! `cargo bench -p storage --bench column`; `cargo test` makes a small run. With a file of `name,milliseconds,value`
//! lines, a series' lines together, as argument behind `--file`, its series as well.

use model::{Arrival, LabelSet, MetricKind, Sample, StampClock, Timestamp};
use std::collections::HashSet;
use std::time::Instant;
use storage::chunk::Chunk;
use storage::column::{
    Aggregates, COLUMN_SAMPLES_MAX, Codec, ColumnName, Heat, Scratch, decode_clock, decode_values,
    encode_clock, encode_values,
};
use storage::disk::{SimDisk, ready};
use storage::segment::{ChunkRow, SegmentReader, SegmentWriter, Workspace, run_len};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let small = !arguments.iter().any(|argument| argument == "--bench");
    let (count, rounds) = if small { (3_000, 2) } else { (100 * COLUMN_SAMPLES_MAX, 60) };
    println!(
        "{:<22} {:>7} {:>7} {:>7} {:>7}  {:>7} {:>9} {:>7} {:>6}  codecs",
        "series", "clock B", "value B", "cold B", "open B", "seal ns", "decode ns", "open ns", "ratio"
    );
    for (kind, of) in KINDS {
        let samples = of(count);
        measure(kind, &[samples], rounds);
    }
    let file = arguments.iter().position(|argument| argument == "--file");
    let file = file.and_then(|at| arguments.get(at + 1)).map(|path| read(path));
    if let Some(series) = &file {
        measure("file", series, 7);
    }
    println!(
        "{:<22} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  {:>7} {:>9}",
        "whole segment", "series", "clock B", "value B", "rows B", "index B", "sum B", "seal ns", "read ns"
    );
    let (copies, count, rounds) = if small { (1, 3_000, 1) } else { (16, 1_800, 7) };
    let scrape = || KINDS[..ONE_CLOCK].iter().map(|(_, of)| of(count));
    let scrape: Vec<Vec<Sample>> = (0..copies).flat_map(|_| scrape()).collect();
    for (heat, name) in [(Heat::Fresh, "fresh"), (Heat::Cold, "cold")] {
        measure_segment(&format!("all kinds, {name}"), &scrape, heat, rounds);
        if let Some(series) = &file {
            measure_segment(&format!("file, {name}"), series, heat, rounds);
        }
    }
}

/// Writes a segment of the series and reads it back, all of it.
fn measure_segment(name: &str, series: &[Vec<Sample>], heat: Heat, rounds: usize) {
    let mut sets: Vec<(LabelSet, &Vec<Sample>)> = series
        .iter()
        .enumerate()
        .map(|(n, samples)| (LabelSet::new("cpu", &[("n", &n.to_string())]).expect("valid"), samples))
        .collect();
    sets.sort_by_key(|(set, _)| set.as_ref().hash().slot());
    let disk = SimDisk::new(1);
    let total: usize = series.iter().map(Vec::len).sum();
    let (mut seal_ns, mut read_ns) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        let began = Instant::now();
        let mut writer = ready(SegmentWriter::create(&disk, 1, 0, 1, heat)).expect("the disk is in memory");
        for (set, samples) in &sets {
            let begun = writer.begin_series(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(1));
            ready(begun).expect("the disk is in memory");
            for piece in samples.chunks(240) {
                ready(writer.push(piece)).expect("the disk is in memory");
            }
        }
        ready(writer.finish()).expect("the disk is in memory");
        seal_ns = seal_ns.min(began.elapsed().as_nanos() as f64 / total as f64);
    }
    let reader = ready(SegmentReader::open(&disk, 1)).expect("just written");
    assert_eq!(reader.sample_count(), total as u64);
    let (mut clock, mut value) = (0, 0);
    for _ in 0..rounds {
        let began = Instant::now();
        let mut clocks = HashSet::new();
        (clock, value) = (0, 0);
        let read = read_all(&reader, |chunk| {
            value += chunk.values_len() as u64;
            if clocks.insert(chunk.clock.at.offset) {
                clock += u64::from(chunk.clock.at.len);
            }
        });
        assert_eq!(read, total);
        read_ns = read_ns.min(began.elapsed().as_nanos() as f64 / total as f64);
    }
    let each = |bytes: u64| bytes as f64 / total as f64;
    println!(
        "{name:<22} {:>7} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>7.3}  {seal_ns:>7.1} {read_ns:>9.2}",
        series.len(),
        each(clock),
        each(value),
        each(reader.directory_bytes()),
        each(reader.index_bytes()),
        each(reader.entry().bytes),
    );
}

/// Reads all series of a segment, one after the other; the number of samples.
fn read_all(reader: &SegmentReader<SimDisk>, mut of_chunk: impl FnMut(&ChunkRow)) -> usize {
    let mut workspace = Workspace::default();
    let (mut samples, mut read, mut warnings) = (Vec::new(), 0, Vec::new());
    for block in 0..reader.block_count() {
        for found in ready(reader.series_in_block(block, |_| true, &mut warnings)) {
            let mut rest = &found.chunks[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(run_len(rest));
                rest = later;
                let run = ready(reader.read_run(now, &mut workspace)).expect("the disk is in memory");
                for chunk in now {
                    samples.clear();
                    let decoded =
                        reader.decode_chunk(&found.labels, chunk, &run, &mut workspace, &mut samples);
                    decoded.expect("just written");
                    read += samples.len();
                    of_chunk(chunk);
                }
            }
        }
    }
    assert!(warnings.is_empty());
    read
}

type Made = fn(usize) -> Vec<Sample>;

/// The first of these are scraped at the same times.
const ONE_CLOCK: usize = 12;

const KINDS: &[(&str, Made)] = &[
    ("constant", |count| made(count, |_, _| 85.0)),
    ("integer gauge", |count| made(count, |random, _| (random.next() % 32) as f64)),
    ("two-decimal gauge", |count| {
        let mut level = 50.0f64;
        made(count, move |random, _| {
            level = (level + (random.next() % 200) as f64 / 100.0 - 1.0).clamp(0.0, 100.0);
            (level * 100.0).round() / 100.0
        })
    }),
    ("counter", |count| {
        let mut total = 0;
        made(count, move |random, _| {
            total += random.next() % 1_000;
            total as f64
        })
    }),
    ("counter with resets", |count| {
        let mut total = 0;
        made(count, move |random, i| {
            total = if i % 900 == 0 { 0 } else { total + random.next() % 1_000 };
            total as f64
        })
    }),
    ("bursty counter", |count| {
        let mut total = 0;
        made(count, move |random, i| {
            total += if i / 64 % 4 == 0 { random.next() % 5_000 } else { 0 };
            total as f64
        })
    }),
    ("bytes in pages", |count| {
        let mut pages = 1_000_000;
        made(count, move |random, _| {
            pages += random.next() % 64;
            (pages * 4_096) as f64
        })
    }),
    ("seconds of CPU", |count| {
        let mut hundredths = 5_000_000;
        made(count, move |random, _| {
            hundredths += random.next() % 101;
            hundredths as f64 / 100.0
        })
    }),
    ("sums of decimals", |count| {
        let mut sum = 0.0;
        made(count, move |random, _| {
            sum += (random.next() % 1_000) as f64 / 1_000.0;
            sum
        })
    }),
    ("few levels", |count| made(count, |random, _| 1.0 / ((random.next() % 1_000 / 960) as f64 + 3.0))),
    ("smooth, full precision", |count| made(count, |_, i| 20.0 + (i as f64 / 700.0).sin())),
    ("random doubles", |count| made(count, |random, _| random.double())),
    ("counter, jitter 5 ms", |count| {
        let (mut total, mut random) = (0, Random(9));
        let mut samples = made(count, move |random, _| {
            total += random.next() % 1_000;
            total as f64
        });
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.timestamp = whole(i as i64 * 1_000 + (random.next() % 5) as i64);
        }
        samples
    }),
    ("stamped, 200 in a ms", |count| {
        let mut clock = StampClock::new(0, 2);
        let mut samples = made(count, |random, _| (random.next() % 100) as f64);
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.timestamp = clock.stamp(whole(i as i64 / 200));
        }
        samples
    }),
];

fn whole(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis).expect("in range")
}

fn made(count: usize, mut value: impl FnMut(&mut Random, usize) -> f64) -> Vec<Sample> {
    let mut random = Random(7);
    let of = |i: usize| Sample { timestamp: whole(i as i64 * 1_000), value: value(&mut random, i) };
    (0..count).map(of).collect()
}

/// What sealing made of one run of samples.
struct Column {
    clock: Vec<u8>,
    name: ColumnName,
    values: Vec<u8>,
    count: usize,
}

fn measure(kind: &str, series: &[Vec<Sample>], rounds: usize) {
    let runs: Vec<&[Sample]> = series.iter().flat_map(|samples| samples.chunks(COLUMN_SAMPLES_MAX)).collect();
    let total: usize = runs.iter().map(|run| run.len()).sum();
    let each = |value: usize| value as f64 / total as f64;
    let mut scratch = Scratch::default();
    // The best of many rounds: other work on the machine disturbs some of them.
    let mut seal_ns = f64::MAX;
    let mut columns = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        columns = runs.iter().map(|run| seal(run, Heat::Fresh, &mut scratch)).collect();
        seal_ns = seal_ns.min(began.elapsed().as_nanos() as f64 / total as f64);
    }
    let cold: usize = runs.iter().map(|run| seal(run, Heat::Cold, &mut scratch).values.len()).sum();
    let mut chunks = Vec::new();
    series.iter().for_each(|samples| Chunk::encode_into(samples, &mut chunks));

    let mut values = [0.0; COLUMN_SAMPLES_MAX];
    let (mut decode_ns, mut open_ns) = (f64::MAX, f64::MAX);
    let mut checked = 0u64;
    let mut decoded: Vec<Sample> = Vec::with_capacity(total);
    for _ in 0..rounds {
        let began = Instant::now();
        for column in &columns {
            let values = &mut values[..column.count];
            decode_values(column.name, &column.values, &mut scratch, values).expect("just written");
            let times = decode_clock(&column.clock, column.count, &mut scratch).expect("just written");
            checked =
                checked.wrapping_add(values[column.count - 1].to_bits() ^ times[column.count / 2] as u64);
        }
        decode_ns = decode_ns.min(began.elapsed().as_nanos() as f64 / total as f64);
        decoded.clear();
        let began = Instant::now();
        for chunk in &chunks {
            chunk.samples().decode_into(&mut decoded).expect("just written");
        }
        open_ns = open_ns.min(began.elapsed().as_nanos() as f64 / total as f64);
    }
    for (run, column) in runs.iter().zip(&columns) {
        let values = &mut values[..column.count];
        decode_values(column.name, &column.values, &mut scratch, values).expect("just written");
        let times = decode_clock(&column.clock, column.count, &mut scratch).expect("just written");
        assert!(
            run.iter().zip(values).all(|(sample, value)| sample.value.to_bits() == value.to_bits()),
            "{kind}"
        );
        assert!(run.iter().zip(times).all(|(sample, ticks)| sample.timestamp.ticks() == *ticks), "{kind}");
    }
    let of = |codec: Codec| columns.iter().filter(|column| column.name.codec == codec).count();
    let codecs: Vec<String> = Codec::ALL
        .iter()
        .filter(|codec| of(**codec) > 0)
        .map(|codec| format!("{codec:?} {}", of(*codec)))
        .collect();
    let clock: usize = columns.iter().map(|column| column.clock.len()).sum();
    let value: usize = columns.iter().map(|column| column.values.len()).sum();
    let open: usize = chunks.iter().map(|chunk| chunk.bytes().len()).sum();
    println!(
        "{kind:<22} {:>7.3} {:>7.3} {:>7.3} {:>7.3}  {seal_ns:>7.1} {decode_ns:>9.2} {open_ns:>7.2} {:>6.2}  {}",
        each(clock),
        each(value),
        each(cold),
        each(open),
        decode_ns / open_ns,
        codecs.join(", "),
    );
}

fn seal(run: &[Sample], heat: Heat, scratch: &mut Scratch) -> Column {
    let mut values = [0.0; COLUMN_SAMPLES_MAX];
    let mut times = [Timestamp::MIN; COLUMN_SAMPLES_MAX];
    for (at, sample) in run.iter().enumerate() {
        (times[at], values[at]) = (sample.timestamp, sample.value);
    }
    let (times, values) = (&times[..run.len()], &values[..run.len()]);
    let (mut clock, mut column) = (Vec::new(), Vec::new());
    encode_clock(times, scratch, &mut clock);
    let name = encode_values(values, heat, scratch, &mut column);
    assert!(Aggregates::of(values).resets < COLUMN_SAMPLES_MAX as u16);
    Column { clock, name, values: column, count: run.len() }
}

fn read(path: &str) -> Vec<Vec<Sample>> {
    let text = std::fs::read_to_string(path).expect("a file to measure");
    let mut series: Vec<Vec<Sample>> = Vec::new();
    let mut name = "";
    for line in text.lines() {
        let mut fields = line.rsplitn(3, ',');
        let value = fields.next().and_then(|value| value.parse().ok()).expect("a value at the end");
        let millis = fields.next().and_then(|millis| millis.parse().ok()).expect("a time before it");
        let timestamp = Timestamp::from_millis(millis).expect("in range");
        let own = fields.next().expect("a name before that");
        if own != name || series.is_empty() {
            series.push(Vec::new());
            name = own;
        }
        series.last_mut().expect("pushed above").push(Sample { timestamp, value });
    }
    series
}

/// A fixed sequence (splitmix64), so that runs compare.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn double(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
