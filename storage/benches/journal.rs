//! What a sample costs in the journal: into the frame, and back out at replay.
//!
//! `cargo bench -p storage --bench journal`; with `-- --small` it only shows that it still runs.
//! Each figure is the best of five rounds; replay states the sum of all values, so a fast wrong run fails.

use model::{LabelSet, MetricKind, Sample, Share, Timestamp};
use std::time::Instant;
use storage::disk::{Disk, DiskFile, SimDisk, ready};
use storage::journal::{
    JournalLimits, OnDamage, Replay, Reserve, Resume, Writer, batch_bytes_max, file_path, prepare, recover,
};

const SERIES: usize = 1_000;
const ROUNDS: usize = 5;

struct Shape {
    name: &'static str,
    samples_per_batch: usize,
    batches_per_turn: usize,
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small" || argument == "--test");
    let samples = if small { 20_000 } else { 4_000_000 };
    for shape in [
        Shape { name: "single-sample batches, 30 a turn", samples_per_batch: 1, batches_per_turn: 30 },
        Shape { name: "100-sample batches, 3 a turn", samples_per_batch: 100, batches_per_turn: 3 },
    ] {
        let rounds: Vec<Figures> = (0..ROUNDS).map(|_| round(&shape, samples)).collect();
        let best = |figure: fn(&Figures) -> f64| rounds.iter().map(figure).fold(f64::INFINITY, f64::min);
        println!("{}:", shape.name);
        println!("  encode, number looked up   {:6.1} ns a sample", best(|f| f.looked_up_ns));
        println!("  encode, number remembered  {:6.1} ns a sample", best(|f| f.remembered_ns));
        println!("  bytes in the journal       {:6.2} a sample", best(|f| f.bytes));
        println!("  recover (checksums)        {:6.1} ns a sample", best(|f| f.recover_ns));
        let replay_ns = best(|f| f.replay_ns);
        println!(
            "  replay into shares         {replay_ns:6.1} ns a sample, {:.1} million/s",
            1e3 / replay_ns
        );
    }
}

struct Figures {
    looked_up_ns: f64,
    remembered_ns: f64,
    bytes: f64,
    recover_ns: f64,
    replay_ns: f64,
}

fn value(i: usize) -> f64 {
    (i * 7 % 1_000) as f64 / 4.0
}

fn round(shape: &Shape, samples: usize) -> Figures {
    let labels: Vec<LabelSet> = (0..SERIES)
        .map(|i| {
            LabelSet::new("cpu_usage", &[("host", &format!("server-{i:04}")), ("region", "eu-west-1")])
                .expect("a valid label set")
        })
        .collect();
    let (disk, looked_up_ns, _) = encode(shape, samples, &labels, false);
    drop(disk);
    let (disk, remembered_ns, bytes) = encode(shape, samples, &labels, true);

    let started = Instant::now();
    let recovered = ready(recover(&disk, 0, OnDamage::Stop)).expect("an intact journal");
    let recover_ns = started.elapsed().as_nanos() as f64 / samples as f64;

    let started = Instant::now();
    let mut replay = Replay::open(&disk, &[recovered], &[], &[]).expect("every file is there");
    let mut share = Share::default();
    let (mut sum, mut count) = (0.0, 0);
    while ready(replay.next(&mut share, |_| true)).expect("an intact journal").is_some() {
        count += share.len();
        sum += share.samples().map(|(_, sample)| sample.value).sum::<f64>();
    }
    let replay_ns = started.elapsed().as_nanos() as f64 / samples as f64;
    assert_eq!((count, sum), (samples, (0..samples).map(value).sum()));
    Figures { looked_up_ns, remembered_ns, bytes, recover_ns, replay_ns }
}

/// Writes the samples; nanoseconds a sample in the writer alone, and bytes a sample.
fn encode(shape: &Shape, samples: usize, labels: &[LabelSet], remember: bool) -> (SimDisk, f64, f64) {
    let disk = SimDisk::new(1);
    let mut writer = Writer::new(0, 1, Resume::default(), JournalLimits::default());
    let mut remembered: Vec<Option<storage::journal::Numbered>> = Vec::new();
    let (mut dictionary, mut next, mut nanos, mut bytes) = (0, 0, 0, 0);
    let mut turn = 0;
    while next < samples {
        if let Some(file) = writer.needs_file() {
            writer.install(ready(prepare(&disk, 0, file)).expect("room"));
        }
        let started = Instant::now();
        for _ in 0..shape.batches_per_turn {
            let count = shape.samples_per_batch.min(samples - next);
            if count == 0 {
                break;
            }
            assert_eq!(writer.reserve(batch_bytes_max(count, count * 60, 9)), Reserve::Ready);
            if writer.dictionary() != dictionary {
                dictionary = writer.dictionary();
                remembered = vec![None; SERIES];
            }
            let client = writer.client(b"127.0.0.1");
            writer.begin_batch(client);
            for i in next..next + count {
                let series = i % SERIES;
                let numbered = match remembered[series] {
                    Some(numbered) if remember => numbered,
                    _ => writer.number(labels[series].as_ref(), MetricKind::Gauge, |_| 0),
                };
                remembered[series] = Some(numbered);
                let timestamp = Timestamp::first_of_milli(1_700_000_000_000 + (i / SERIES) as i64 * 1_000);
                writer.push(numbered.number, Sample { timestamp, value: value(i) });
            }
            next += count;
        }
        turn += 1;
        writer.seal(turn);
        nanos += started.elapsed().as_nanos();
        while let Some(write) = writer.next_write() {
            let file = ready(disk.open(&file_path(0, write.sequence))).expect("it was prepared");
            ready(file.write_at(write.position, &write.bytes)).expect("room");
            bytes += write.bytes.len();
            writer.wrote(write, Ok(())).expect("it went well");
        }
        while let Some(sync) = writer.next_sync() {
            let file = ready(disk.open(&file_path(0, sync.sequence))).expect("it was prepared");
            ready(file.sync()).expect("it went well");
            writer.synced(sync, Ok(())).expect("it went well");
        }
    }
    (disk, nanos as f64 / samples as f64, bytes as f64 / samples as f64)
}
