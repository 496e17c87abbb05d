use super::directory::{BLOCK_BYTES_TARGET, BlockBuilder, BlockRows, ChunkRows, Form, Row};
use super::layout::{Block, FOOTER_BYTES, Footer, HEAD_BYTES, Head};
use super::merge::Merged;
use super::*;
use crate::chunk::Chunk;
use crate::column::{Aggregates, COLUMN_SAMPLES_MAX, Codec, ColumnName, Heat, Sum};
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::memtable::{Frozen, Memtable, SeriesSlice};
use model::{Arrival, Condition, LabelSet, LabelSetRef, Matcher, MetricKind, Sample, Slot, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;

const ALL: (Timestamp, Timestamp) = (Timestamp::MIN, Timestamp::MAX);

fn at(millis: i64, value: f64) -> Sample {
    Sample { timestamp: Timestamp::from_millis(millis).unwrap(), value }
}

fn frozen(series: usize, samples: i64) -> Rc<Frozen> {
    let mut table = Memtable::new(Box::new(|_| 0));
    for n in 0..series {
        let set = LabelSet::new(&format!("m{}", n % 3), &[("n", &n.to_string())]).unwrap();
        let id = table.intern(set.as_ref(), MetricKind::Counter, Arrival::from_bits(n as u128)).unwrap();
        for i in 0..samples {
            table.append(id, at(1_000 * i, (i * 3 + n as i64) as f64)).unwrap();
        }
        table.append(id, at(500, 0.5)).unwrap();
    }
    table.freeze(|_| true)
}

fn equal(label: &str, value: &str) -> Matcher {
    Matcher { label: label.into(), condition: Condition::Equal(value.into()) }
}

/// The rows that the label index names, and those it does not know.
fn rows(
    reader: &SegmentReader<SimDisk>,
    name: &str,
    matchers: &[Matcher],
    warnings: &mut Vec<SegmentError>,
) -> Rows {
    let mut rows = Rows::default();
    let all: Vec<Matcher> = [equal("__name__", name)].into_iter().chain(matchers.iter().cloned()).collect();
    for part in 0..reader.part_count() {
        ready(reader.search_part(part, &all, &mut rows, warnings));
    }
    reader.add_unindexed_rows(name, &mut rows);
    rows
}

/// The series of that name, by the blocks in which rows of them lie.
fn find(
    reader: &SegmentReader<SimDisk>,
    name: &str,
    matchers: &[Matcher],
    warnings: &mut Vec<SegmentError>,
) -> Vec<SegmentSeries> {
    let (mut found, mut next) = (SeriesList::default(), 0);
    let rows = rows(reader, name, matchers, warnings);
    let all: Vec<Matcher> = [equal("__name__", name)].into_iter().chain(matchers.iter().cloned()).collect();
    while let Some((block, _)) = reader.next_block(next, &rows, |_| true) {
        ready(reader.find_in_block(block, &rows, &all, |_| true, (&mut found, warnings)));
        next = block + 1;
    }
    let owned = |series: ListedSeries<'_>| {
        let (chunks, labels) = (reader.chunks_of(&series, ALL, warnings), series.labels.to_owned());
        SegmentSeries { slot: series.slot, labels, kind: series.kind, arrival: series.arrival, chunks }
    };
    let found: Vec<SegmentSeries> = found.iter().map(owned).collect();
    assert!(found.is_sorted_by_key(|series| (series.slot, series.labels.clone())));
    found
}

/// The samples of a series, run by run.
fn read(
    reader: &SegmentReader<SimDisk>,
    series: &SegmentSeries,
    warnings: &mut Vec<SegmentError>,
) -> Vec<Sample> {
    let (mut samples, mut rest) = (Vec::new(), &series.chunks[..]);
    let mut workspace = Workspace::default();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(run_len(rest));
        rest = later;
        let run = ready(reader.read_run(now, &mut workspace)).unwrap();
        for chunk in now {
            assert!(run.holds(chunk));
            let decoded = reader.decode_chunk(&series.labels, chunk, &run, &mut workspace, &mut samples);
            warnings.extend(decoded.err());
        }
    }
    samples
}

/// Every sample of the names, by labels, as far as it can be read.
fn contents(
    reader: &SegmentReader<SimDisk>,
    warnings: &mut Vec<SegmentError>,
) -> BTreeMap<LabelSet, Vec<(i64, u64)>> {
    let mut all = BTreeMap::new();
    for name in ["m0", "m1", "m2"] {
        for series in find(reader, name, &[], warnings) {
            let samples = read(reader, &series, warnings);
            let bits = samples.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect();
            all.insert(series.labels, bits);
        }
    }
    all
}

fn written(frozen: &Frozen) -> (SimDisk, SegmentEntry) {
    let disk = SimDisk::new(1);
    let (entry, _) = ready(write_segment(&disk, 7, (0, 1), PART_BYTES_MAX, frozen)).unwrap();
    (disk, entry)
}

#[test]
fn what_was_written_is_read_back() {
    let (disk, entry) = written(&frozen(2_000, 300));
    assert_eq!((entry.min_ms, entry.max_ms), (0, 299_000));
    assert_eq!(entry.bytes, disk.contents(&segment_path(7)).unwrap().len() as u64);
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    assert_eq!(reader.entry(), &entry);
    assert_eq!((reader.series_count(), reader.sample_count()), (2_000, 2_000 * 301));
    let mut warnings = Vec::new();
    let all = contents(&reader, &mut warnings);
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(all.len(), 2_000);
    for (labels, samples) in all {
        let n: i64 = labels.as_ref().get("n").parse().unwrap();
        let mut expected: Vec<Sample> = (0..300).map(|i| at(1_000 * i, (i * 3 + n) as f64)).collect();
        expected.insert(1, at(500, 0.5));
        let bits: Vec<_> = expected.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect();
        assert_eq!(samples, bits, "{labels:?}");
    }
}

/// A query for one series reads the one directory block that holds it, and of the label index the head and a block of
/// each label that is asked for.
#[test]
fn one_series_of_many_is_found_by_reading_one_block() {
    let mut table = Memtable::new(Box::new(|_| 0));
    for n in 0..5_000 {
        let name = if n == 1_234 { "rare".to_owned() } else { "often".to_owned() };
        let set = LabelSet::new(&name, &[("n", &n.to_string())]).unwrap();
        let id = table.intern(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(0)).unwrap();
        table.append(id, at(1, 1.0)).unwrap();
    }
    let (disk, _) = written(&table.freeze(|_| true));
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    // What it may keep of answers included: a byte a series.
    assert!(reader.memory_bytes() < 6_000 + 5_000, "{}", reader.memory_bytes());
    assert!(reader.block_count() > 4, "blocks of {BLOCK_BYTES_TARGET} bytes");
    let mut warnings = Vec::new();
    assert!(rows(&reader, "absent", &[], &mut warnings).is_empty());
    let rare = rows(&reader, "rare", &[], &mut warnings);
    let (block, first_slot) = reader.next_block(0, &rare, |_| true).unwrap();
    assert!(reader.next_block(0, &rare, |slot| slot < first_slot).is_none(), "another shard's");
    assert!(reader.next_block(block + 1, &rare, |_| true).is_none());
    let reads = disk.calls(crate::disk::Call::Read);
    assert_eq!(find(&reader, "rare", &[], &mut warnings).len(), 1);
    assert_eq!(disk.calls(crate::disk::Call::Read) - reads, 3);
    let found = find(&reader, "often", &[equal("n", "17")], &mut warnings);
    assert_eq!((found.len(), found[0].labels.as_ref().get("n")), (1, "17"));
    assert_eq!(disk.calls(crate::disk::Call::Read) - reads, 3 + 4);
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// No bit can change in silence: every flipped one is told, or nothing that is read changes.
#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let (disk, entry) = golden();
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let honest = contents(&reader, &mut Vec::new());
    for bit in 0..entry.bytes * 8 {
        let rotten = disk.after_kill();
        assert!(rotten.flip_bit(&segment_path(7), bit));
        let Ok(reader) = ready(SegmentReader::open(&rotten, 7)) else { continue };
        let mut warnings = Vec::new();
        let all = contents(&reader, &mut warnings);
        // Not every block of the label index is asked for.
        ready(reader.verify_part(0, &mut warnings));
        assert!(!warnings.is_empty(), "bit {bit}: every one is under a checksum");
        for (labels, samples) in all {
            let known = &honest[&labels];
            assert!(samples.iter().all(|sample| known.contains(sample)), "bit {bit}: {labels:?}");
        }
    }
}

/// A small segment with columns of all that a flush makes, late samples and stamped ones among them.
fn golden() -> (SimDisk, SegmentEntry) {
    let mut table = Memtable::new(Box::new(|_| 0));
    let values: [fn(i64) -> f64; 6] = [
        |_| 85.0,
        |i| (i * i % 37) as f64 / 100.0,
        |i| 1.0 / (i % 2 + 3) as f64,
        |i| (i as f64).sin(),
        |i| if i == 7 { f64::NAN } else { (i * 3) as f64 },
        |i| f64::from_bits(0x3ff0_0000_0000_0000 ^ (i as u64).wrapping_mul(i as u64 + 1) << 20),
    ];
    for (n, value) in values.iter().enumerate() {
        let labels = [("job", "node"), ("n", &*n.to_string())];
        let set = LabelSet::new(&format!("m{}", n % 3), &labels).unwrap();
        let id = table.intern(set.as_ref(), MetricKind::Counter, Arrival::from_bits(n as u128)).unwrap();
        for i in 0..40 {
            table.append(id, at(1_000 * i, value(i))).unwrap();
        }
        if n == 1 {
            table.append(id, at(500, -0.0)).unwrap();
            let timestamp = Timestamp::from_ticks((39_000 << 20) + 77);
            table.append(id, Sample { timestamp, value: 1e300 }).unwrap();
        }
    }
    written(&table.freeze(|_| true))
}

fn bytes_of(text: &str) -> Vec<u8> {
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(byte).collect()
}

/// Segments of older versions are read. Method: those written when formats 3 and 4 were new hold what is written today;
/// their rows say no exact sum, but of constants.
#[test]
fn the_golden_segments_of_older_versions_answer_as_ever() {
    let new = ready(SegmentReader::open(&golden().0, 7)).unwrap();
    for (version, text, parts) in [(3, include_str!("golden-3.hex"), 0), (4, include_str!("golden-4.hex"), 1)]
    {
        let disk = SimDisk::new(1);
        ready(async {
            disk.create_dir(SEGMENTS_FOLDER).await.unwrap();
            let file = disk.create(&segment_path(7)).await.unwrap();
            file.write_at(0, &bytes_of(text)).await.unwrap();
        });
        let old = ready(SegmentReader::open(&disk, 7)).unwrap();
        assert_eq!(
            (old.version(), old.part_count(), new.version(), new.part_count()),
            (version, parts, 5, 1)
        );
        let mut warnings = Vec::new();
        assert_eq!(contents(&old, &mut warnings), contents(&new, &mut warnings));
        let found = |reader| find(reader, "m1", &[equal("n", "4")], &mut Vec::new()).len();
        assert_eq!((found(&old), found(&new)), (1, 1));
        assert!(rows(&old, "none", &[], &mut warnings).is_empty());
        let verified = ready(old.verify_block(0, &mut Workspace::default(), &mut warnings));
        assert_eq!((verified.series, verified.samples), (6, 6 * 40 + 2));
        assert!(warnings.is_empty(), "{warnings:?}");
        let chunks = |reader: &SegmentReader<SimDisk>| -> Vec<ChunkRow> {
            let all = ready(reader.series_in_block(0, |_| true, &mut Vec::new()));
            all.into_iter().flat_map(|series| series.chunks).collect()
        };
        for (old, new) in chunks(&old).into_iter().zip(chunks(&new)) {
            let (is_here, sum) = (matches!(old.values, ValuesAt::Here(_)), old.aggregates.sum);
            assert_eq!((sum.is_exact, sum.low == 0.0), (is_here, true));
            assert!(old.aggregates.same_but_sum(&new.aggregates));
            let distance = (sum.high - new.aggregates.sum.high).abs();
            assert!(sum.high.is_nan() || distance <= 4.0 * f64::EPSILON * sum.high.abs(), "{old:?} {new:?}");
        }
    }
}

/// The bytes of a segment are a promise. Method: a segment written when format 5 was new, as text, is what is written
/// today, and is read.
#[test]
fn the_golden_segment_is_written_and_read_as_ever() {
    let golden_bytes = bytes_of(include_str!("golden-5.hex"));
    let (disk, _) = golden();
    let written = disk.contents(&segment_path(7)).unwrap();
    if written != golden_bytes {
        let lines =
            written.chunks(48).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        panic!("the format has changed; it writes now:\n{}", lines.collect::<Vec<_>>().join("\n"));
    }
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let (mut errors, mut workspace) = (Vec::new(), Workspace::default());
    let verified = ready(reader.verify_block(0, &mut workspace, &mut errors));
    ready(reader.verify_part(0, &mut errors));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!((verified.series, verified.samples), (6, 6 * 40 + 2));
}

/// Samples of several chunks, some series sharing a clock; written by the writer itself.
fn long(series: usize, samples: i64, heat: Heat) -> (SimDisk, SegmentEntry, BTreeMap<LabelSet, Vec<Sample>>) {
    let disk = SimDisk::new(1);
    let mut writer = ready(SegmentWriter::create(&disk, 7, 0, 1, heat)).unwrap();
    let mut all = BTreeMap::new();
    let mut sets: Vec<LabelSet> = (0..series)
        .map(|n| LabelSet::new(&format!("m{}", n % 3), &[("n", &n.to_string())]).unwrap())
        .collect();
    sets.sort_by_key(|set| (set.as_ref().hash().slot(), set.clone()));
    for set in sets {
        let n: i64 = set.as_ref().get("n").parse().unwrap();
        ready(writer.begin_series(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(5))).unwrap();
        let value = |i: i64| if n % 4 == 3 { 1.5 } else { (i * (n + 7) % 1_013) as f64 / 10.0 };
        let samples: Vec<Sample> = (0..samples).map(|i| at(1_000 * i + i * i % 7, value(i))).collect();
        samples.chunks(300).for_each(|piece| ready(writer.push(piece)).unwrap());
        all.insert(set, samples);
    }
    assert_eq!(writer.sample_count(), (series as i64 * samples) as u64);
    let entry = ready(writer.finish()).unwrap();
    (disk, entry, all)
}

fn assert_holds(reader: &SegmentReader<SimDisk>, expected: &BTreeMap<LabelSet, Vec<Sample>>) {
    let mut warnings = Vec::new();
    let all = contents(reader, &mut warnings);
    assert!(warnings.is_empty(), "{warnings:?}");
    let bits =
        |samples: &Vec<Sample>| samples.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect();
    let expected: BTreeMap<LabelSet, Vec<(i64, u64)>> =
        expected.iter().map(|(labels, samples)| (labels.clone(), bits(samples))).collect();
    assert_eq!(all, expected);
}

/// Chunks end at 1,024 samples; the series of one scrape share each clock, so a clock is in the file once.
#[test]
fn series_of_one_scrape_share_their_clocks() {
    for heat in [Heat::Fresh, Heat::Cold] {
        let (disk, entry, all) = long(20, 5_000, heat);
        let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
        assert_eq!(reader.entry(), &entry);
        assert_holds(&reader, &all);
        let found = ready(reader.series_in_block(0, |_| true, &mut Vec::new()));
        let mut clocks: Vec<u64> = found.iter().flat_map(|s| &s.chunks).map(|c| c.clock.at.offset).collect();
        let chunks = clocks.len();
        clocks.sort_unstable();
        clocks.dedup();
        assert_eq!((found.len(), chunks, clocks.len()), (20, 20 * 5, 5));
        assert!(found[0].chunks[..4].iter().all(|chunk| chunk.count() == COLUMN_SAMPLES_MAX));
        let is_constant = |s: &&SegmentSeries| matches!(s.chunks[0].values, ValuesAt::Here(1.5));
        assert_eq!(found.iter().filter(is_constant).count(), 5);
        let general = |s: &&SegmentSeries| {
            let name = ColumnName { codec: Codec::General };
            s.chunks.iter().any(|c| matches!(c.values, ValuesAt::Column(codec, _) if codec == name))
        };
        assert_eq!(found.iter().filter(general).count() > 0, heat == Heat::Cold);
        // All its series, with what they come to.
        let (mut errors, mut workspace) = (Vec::new(), Workspace::default());
        let verified = ready(reader.verify_block(0, &mut workspace, &mut errors));
        assert_eq!((errors.len(), verified), (0, Verified { series: 20, samples: 100_000 }));
        assert!(workspace.bytes() < 600_000, "{}", workspace.bytes());
    }
}

/// Reading a series that shares its clocks with one read before asks for its columns alone, at once.
#[test]
fn clocks_are_read_once() {
    let (disk, ..) = long(8, 5_000, Heat::Fresh);
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let found = ready(reader.series_in_block(0, |_| true, &mut Vec::new()));
    let mut workspace = Workspace::default();
    let mut reads = Vec::new();
    for series in &found {
        let before = disk.calls(crate::disk::Call::Read);
        let len = run_len(&series.chunks);
        assert_eq!(len, 5);
        ready(reader.read_run(&series.chunks, &mut workspace)).unwrap();
        reads.push(disk.calls(crate::disk::Call::Read) - before);
    }
    assert_eq!(
        reads,
        [1, 1, 0, 0, 0, 0, 0, 0],
        "the first has its clocks between its columns; the second is not the only one that is read with it"
    );
    let mut fresh = Workspace::default();
    let before = disk.calls(crate::disk::Call::Read);
    ready(reader.read_run(&found[6].chunks, &mut fresh)).unwrap();
    assert_eq!(disk.calls(crate::disk::Call::Read) - before, 2, "its columns, and the clocks of another");
}

/// Series of a few samples lie close together, and a clock of one or two times stands in its row: whoever reads them one
/// after the other reads little for each, and finds what each has. The verifier looks at such clocks all the same.
#[test]
fn series_of_few_samples_are_read_many_at_once() {
    const SERIES: usize = 3_000;
    for samples in 1..=3 {
        let mut table = Memtable::new(Box::new(|_| 0));
        for n in 0..SERIES {
            let set = LabelSet::new("m", &[("n", &n.to_string())]).unwrap();
            let id = table.intern(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(n as u128)).unwrap();
            for i in 0..samples {
                // No two series have a clock in common.
                table
                    .append(
                        id,
                        Sample {
                            timestamp: Timestamp::from_ticks((n * 10 + i) as i64),
                            value: (n + i) as f64,
                        },
                    )
                    .unwrap();
            }
        }
        let (disk, _) = written(&table.freeze(|_| true));
        let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
        let mut workspace = Workspace::default();
        let (mut seen, mut last_clock, before) = (0, None, disk.calls(crate::disk::Call::Read));
        for block in 0..reader.block_count() {
            for series in ready(reader.series_in_block(block, |_| true, &mut Vec::new())) {
                let run = ready(reader.read_run(&series.chunks, &mut workspace)).unwrap();
                let mut read = Vec::new();
                let [chunk] = &series.chunks[..] else { panic!("{series:?}") };
                reader.decode_chunk(&series.labels, chunk, &run, &mut workspace, &mut read).unwrap();
                let n: usize = series.labels.as_ref().get("n").parse().unwrap();
                let expected = (0..samples).map(|i| ((n * 10 + i) as i64, ((n + i) as f64).to_bits()));
                let read = read.iter().map(|sample| (sample.timestamp.ticks(), sample.value.to_bits()));
                assert!(read.eq(expected));
                seen += 1;
                last_clock = Some(chunk.clock);
            }
        }
        let reads = disk.calls(crate::disk::Call::Read) - before - reader.block_count() as u64;
        assert_eq!(seen, SERIES);
        assert!(reads <= SERIES as u64 / 20, "{reads} reads of {samples} samples a series");
        let clock = last_clock.unwrap();
        assert!(disk.flip_bit(&segment_path(7), clock.at.offset * 8 + 3));
        let mut errors = Vec::new();
        for block in 0..reader.block_count() {
            ready(reader.verify_block(block, &mut Workspace::default(), &mut errors));
        }
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

/// Damage costs itself: one chunk of one series here, told with file, offset and series; a clock costs those that share it.
#[test]
fn a_damaged_column_costs_only_itself() {
    let (disk, ..) = long(10, 5_000, Heat::Fresh);
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let found = find(&reader, "m1", &[], &mut Vec::new());
    let hit = found[1].chunks[2];
    let ValuesAt::Column(_, column) = hit.values else { panic!("{hit:?}") };
    disk.flip_bit(&segment_path(7), column.offset * 8 + 100);
    let mut warnings = Vec::new();
    let all = contents(&reader, &mut warnings);
    let total: usize = all.values().map(Vec::len).sum();
    assert_eq!(total, 10 * 5_000 - hit.count());
    let [SegmentError::Damaged { path, offset, series, .. }] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!((path, *offset), (&segment_path(7), column.offset));
    assert_eq!(series.as_deref(), Some(&*format!("{:?}", found[1].labels)));

    disk.flip_bit(&segment_path(7), hit.clock.at.offset * 8 + 50);
    let mut warnings = Vec::new();
    let all = contents(&reader, &mut warnings);
    let total: usize = all.values().map(Vec::len).sum();
    assert_eq!((total, warnings.len()), (10 * (5_000 - COLUMN_SAMPLES_MAX), 10));
}

/// What the directory says of a chunk is held against its values.
#[test]
fn aggregates_that_are_not_those_of_the_values_are_told() {
    let (disk, ..) = long(2, 1_500, Heat::Fresh);
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let found = ready(reader.series_in_block(0, |_| true, &mut Vec::new()));
    let mut workspace = Workspace::default();
    let series = &found[0];
    let run = ready(reader.read_run(&series.chunks, &mut workspace)).unwrap();
    let honest = series.chunks[1];
    assert_eq!(reader.verify_chunk(&series.labels, &honest, &run, &mut workspace).unwrap(), 476);
    let of = honest.aggregates;
    for wrong in [
        Aggregates { min: of.min - 1.0, ..of },
        Aggregates { sum: Sum { high: of.sum.high + 1.0, ..of.sum }, ..of },
        Aggregates { sum: Sum { low: 1.0, ..of.sum }, ..of },
        Aggregates { sum: Sum { is_exact: !of.sum.is_exact, ..of.sum }, ..of },
        Aggregates { resets: of.resets + 1, ..of },
        Aggregates { last: -0.0, ..of },
    ] {
        let chunk = ChunkRow { aggregates: wrong, ..honest };
        let error = reader.verify_chunk(&series.labels, &chunk, &run, &mut workspace).unwrap_err();
        assert!(error.to_string().contains("come to"), "{error}");
    }
}

/// A query for a pair that no series of a segment has does not touch it.
#[test]
fn a_segment_without_the_pair_says_so() {
    let (disk, _) = written(&frozen(200, 3));
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let pair = |label: &str, value: &str| PairHash::new(label, value);
    for n in 0..200 {
        assert!(reader.may_hold(&[pair("n", &n.to_string()), pair("__name__", &format!("m{}", n % 3))]));
    }
    let absent = (200..1_200).filter(|n| reader.may_hold(&[pair("n", &n.to_string())])).count();
    assert!(absent < 150, "{absent} of 1,000");
    assert!(reader.may_hold(&[]));
}

/// Readers go from slot to slot: a directory that is not in that order is damaged, though every checksum is right.
#[test]
fn a_directory_out_of_order_is_told() {
    let block = |first_slot: u16, last_slot: u16| Block {
        offset: 32,
        len: 1,
        crc: 0,
        first_row: 0,
        rows: 1,
        first_slot,
        last_slot,
        names: Box::new([7]),
    };
    for (slots, is_right) in [
        ([(0, 3), (3, 9)], true),
        ([(0, 3), (4, 4)], true),
        ([(0, 3), (2, 9)], false),
        ([(5, 5), (4, 9)], false),
        ([(0, 3), (9, 4)], false),
    ] {
        let mut index = Vec::new();
        slots.iter().for_each(|(first, last)| block(*first, *last).encode(&mut index));
        assert_eq!(Block::decode_all(&index, 2).is_some(), is_right, "{slots:?}");
    }

    let (disk, _) = written(&frozen(5, 3));
    let mut bytes = disk.contents(&segment_path(7)).unwrap();
    let footer_at = bytes.len() - FOOTER_BYTES;
    let footer = Footer::decode(&bytes[footer_at..]).unwrap();
    let index = footer.index_offset as usize..footer.index_offset as usize + footer.index_len as usize;
    let (mut blocks, parts) = Block::decode_all(&bytes[index.clone()], 1).unwrap();
    // The index says that all rows lie in the first one's slot.
    blocks[0].last_slot = blocks[0].first_slot;
    let mut encoded = Vec::new();
    blocks[0].encode(&mut encoded);
    encoded.extend_from_slice(parts);
    let footer = Footer { index_crc: crc32c::crc32c(&encoded), ..footer };
    bytes[index].copy_from_slice(&encoded);
    bytes[footer_at..].copy_from_slice(&footer.encode());
    let file = ready(disk.create(&segment_path(7))).unwrap();
    ready(file.write_at(0, &bytes)).unwrap();
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let mut warnings = Vec::new();
    ready(reader.series_in_block(0, |_| true, &mut warnings));
    assert!(warnings[0].to_string().contains("the order of directory rows"), "{warnings:?}");
}

#[test]
fn a_segment_cut_anywhere_is_refused() {
    let (disk, entry) = written(&frozen(2, 5));
    let whole = disk.contents(&segment_path(7)).unwrap();
    for len in 0..entry.bytes {
        let cut = SimDisk::new(1);
        ready(cut.create_dir(SEGMENTS_FOLDER)).unwrap();
        let file = ready(cut.create(&segment_path(7))).unwrap();
        ready(file.write_at(0, &whole[..len as usize])).unwrap();
        assert!(ready(SegmentReader::open(&cut, 7)).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn another_segment_and_a_newer_version_are_named() {
    let (disk, _) = written(&frozen(2, 5));
    let whole = disk.contents(&segment_path(7)).unwrap();
    ready(disk.rename(&segment_path(7), &segment_path(8))).unwrap();
    let error = ready(SegmentReader::open(&disk, 8)).err().unwrap();
    assert!(error.to_string().contains("another segment"), "{error}");
    let mut newer = whole.clone();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..HEAD_BYTES - 4]).to_le_bytes();
    newer[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&crc);
    let file = ready(disk.create(&segment_path(7))).unwrap();
    ready(file.write_at(0, &newer)).unwrap();
    let error = ready(SegmentReader::open(&disk, 7)).err().unwrap();
    assert!(matches!(error, SegmentError::OtherVersion { version: 9, .. }), "{error}");
}

#[test]
fn a_disk_that_is_full_gets_its_space_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(5_000));
    let frozen = frozen(100, 100);
    let error = ready(write_segment(&disk, 7, (0, 1), PART_BYTES_MAX, &frozen)).unwrap_err();
    assert!(matches!(error, SegmentError::Io { .. }), "{error}");
    assert_eq!(disk.bytes_used(), 0);
    disk.set_capacity(None);
    ready(write_segment(&disk, 7, (0, 1), PART_BYTES_MAX, &frozen)).unwrap();
    assert!(ready(SegmentReader::open(&disk, 7)).is_ok());
}

fn chunks_of(rows: &BlockRows<'_>, row: &Row) -> Option<Vec<ChunkRow>> {
    let chunks = ChunkRows::new(rows.chunk_bytes(row), rows.clocks(), row.column, rows.form());
    chunks.collect::<Result<_, _>>().ok()
}

/// The rows of a block as text; `None` if it is not in the form.
fn read_all(block: &[u8]) -> Option<Vec<String>> {
    let mut rows = BlockRows::new(block, Form::Short).ok()?;
    let (mut read, mut labels) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next_wanted(&mut labels, |_| true) {
        let row = row.ok()?;
        let chunks = chunks_of(&rows, &row)?;
        let set = LabelSetRef::from_bytes(&labels).expect("a row's labels are checked");
        read.push(format!("{:?} {:?} {set:?} {chunks:?}", row.slot, row.arrival));
        labels.clear();
    }
    Some(read)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), blocks in any::<u32>()) {
        let _ = Head::decode(&bytes);
        let _ = Footer::decode(&bytes);
        let _ = Block::decode_all(&bytes, blocks % 16);
        let _ = Block::decode_all(&bytes, blocks);
        read_all(&bytes);
        let _ = filter::Filter::decode(&bytes);
        let mut footer = bytes;
        footer.resize(FOOTER_BYTES, 0);
        let crc = crc32c::crc32c(&footer[..FOOTER_BYTES - 12]).to_le_bytes();
        footer[FOOTER_BYTES - 12..FOOTER_BYTES - 8].copy_from_slice(&crc);
        footer[FOOTER_BYTES - 8..].copy_from_slice(&layout::MAGIC);
        let _ = Footer::decode(&footer);
    }

    /// A directory block gives back what was put in; damaged, it gives something or an error, never a panic.
    #[test]
    fn directory_blocks_come_back(
        rows in proptest::collection::vec((0u16..1024, 0u128.., 0usize..4, proptest::collection::vec((0i64..5, any::<f64>(), any::<bool>()), 1..5)), 1..8),
        at in any::<proptest::sample::Index>(), flip in 1u8..,
    ) {
        let mut builder = BlockBuilder::default();
        let mut expected = Vec::new();
        for (n, (slot, arrival, labels, chunks)) in rows.iter().enumerate() {
            let labels: Vec<(String, String)> = (0..*labels).map(|l| (format!("l{l}"), format!("v{}", n % 2))).collect();
            let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (&**label, &**value)).collect();
            let set = LabelSet::new(&format!("m{}", n % 3), &labels).unwrap();
            let chunk = |(clock, value, is_constant): &(i64, f64, bool)| {
                let times = (*clock * 1_000, *clock * 1_000 + 999);
                let extent = Extent { offset: (*clock as u64) << 33, len: 12, crc: *clock as u32 };
                let clock = ClockRow { first: Timestamp::from_ticks(times.0), last: Timestamp::from_ticks(times.1), count: 9, at: extent };
                let column = Extent { offset: value.to_bits() >> 20, len: 77, crc: 5 };
                let name = ColumnName { codec: Codec::Decimal };
                let values = if *is_constant { ValuesAt::Here(*value) } else { ValuesAt::Column(name, column) };
                let aggregates = if *is_constant { Aggregates::of_constant(*value, 9) } else { Aggregates::of(&[*value, 1.0]) };
                ChunkRow { clock, values, aggregates }
            };
            let chunks: Vec<ChunkRow> = chunks.iter().map(chunk).collect();
            let (slot, arrival) = (Slot::new(*slot).unwrap(), Arrival::from_bits(*arrival));
            builder.push(slot, MetricKind::Counter, arrival, set.as_ref(), &chunks);
            expected.push(format!("{slot:?} {arrival:?} {set:?} {chunks:?}"));
        }
        let len = builder.len();
        let block = builder.take();
        prop_assert_eq!((block.len(), builder.len(), builder.row_count()), (len, 12, 0));
        prop_assert_eq!(read_all(&block), Some(expected));
        let mut damaged = block;
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        read_all(&damaged);
        read_all(&damaged[..at]);
    }

    /// Late samples among chunks, against a map.
    #[test]
    fn merging_is_what_a_map_would_do(
        chunks in proptest::collection::vec(proptest::collection::btree_set(0i64..300, 1..20), 0..6),
        late in proptest::collection::btree_map(-5i64..1_500, 0u8..9, 0..40),
    ) {
        let mut slice = SeriesSlice::default();
        let mut model = BTreeMap::new();
        for (n, times) in chunks.iter().enumerate() {
            let samples: Vec<Sample> = times.iter().map(|t| at(n as i64 * 300 + t, -1.0)).collect();
            Chunk::encode_into(&samples, &mut slice.chunks);
            model.extend(samples.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())));
        }
        slice.late = late.iter().map(|(t, value)| at(*t, f64::from(*value))).collect();
        model.extend(slice.late.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())));
        let (mut out, mut piece) = (Vec::new(), Vec::new());
        let mut merged = Merged::new(slice);
        while merged.next_piece(&mut piece).unwrap() {
            out.extend_from_slice(&piece);
        }
        let out: Vec<_> = out.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect();
        prop_assert_eq!(out, model.into_iter().collect::<Vec<_>>());
    }
}
