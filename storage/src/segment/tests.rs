use super::layout::{BLOCK_BYTES_TARGET, Block, FOOTER_BYTES, Footer, HEAD_BYTES, Head};
use super::*;
use crate::chunk::Chunk;
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::memtable::{Frozen, Memtable, SeriesSlice};
use model::{Arrival, Condition, LabelSet, Matcher, MetricKind, Sample, Timestamp};
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

/// The series of that name, by the blocks that may hold it.
fn find(
    reader: &SegmentReader<SimDisk>,
    name: &str,
    matchers: &[Matcher],
    warnings: &mut Vec<SegmentError>,
) -> Vec<SegmentSeries> {
    let (mut found, mut next) = (Vec::new(), 0);
    while let Some((block, _)) = reader.block_that_may_hold(next, name, |_| true) {
        found.extend(ready(reader.find_in_block(block, name, matchers, ALL, |_| true, warnings)));
        next = block + 1;
    }
    assert!(found.is_sorted_by_key(|series| series.slot));
    found
}

/// The samples of a series, run by run.
fn read(
    reader: &SegmentReader<SimDisk>,
    series: &SegmentSeries,
    warnings: &mut Vec<SegmentError>,
) -> Vec<Sample> {
    let (mut samples, mut rest) = (Vec::new(), &series.chunks[..]);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(run_len(rest));
        rest = later;
        let run = ready(reader.read_run(now)).unwrap();
        for chunk in now {
            assert!(run.holds(chunk));
            warnings.extend(reader.decode_chunk(&series.labels, chunk, &run, &mut samples).err());
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
    let entry = ready(write_segment(&disk, 7, 0, 1, frozen)).unwrap();
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

/// A query for one series of a rare name reads the one block that may hold it.
#[test]
fn a_rare_name_is_found_by_reading_one_block() {
    let mut table = Memtable::new(Box::new(|_| 0));
    for n in 0..3_000 {
        let name = if n == 1_234 { "rare".to_owned() } else { "often".to_owned() };
        let set = LabelSet::new(&name, &[("n", &n.to_string())]).unwrap();
        let id = table.intern(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(0)).unwrap();
        table.append(id, at(1, 1.0)).unwrap();
    }
    let (disk, _) = written(&table.freeze(|_| true));
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    assert!(reader.memory_bytes() < 2_000);
    assert!(reader.block_that_may_hold(0, "absent", |_| true).is_none());
    let (block, first_slot) = reader.block_that_may_hold(0, "rare", |_| true).unwrap();
    assert!(reader.block_that_may_hold(0, "rare", |slot| slot < first_slot).is_none(), "another shard's");
    assert!(reader.block_that_may_hold(block + 1, "rare", |_| true).is_none());
    let reads = disk.calls(crate::disk::Call::Read);
    let mut warnings = Vec::new();
    assert_eq!(find(&reader, "rare", &[], &mut warnings).len(), 1);
    assert_eq!(disk.calls(crate::disk::Call::Read) - reads, 1);
    let matcher = Matcher { label: "n".into(), condition: Condition::Equal("17".into()) };
    let found = find(&reader, "often", std::slice::from_ref(&matcher), &mut warnings);
    assert_eq!(found.len(), 1);
    assert!(disk.calls(crate::disk::Call::Read) - reads > 2, "several blocks of {BLOCK_BYTES_TARGET} bytes");
}

/// No bit can change in silence: every flipped one is told, or nothing that is read changes.
#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let (disk, entry) = written(&frozen(4, 30));
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let honest = contents(&reader, &mut Vec::new());
    let mut noticed = 0;
    for byte in 0..entry.bytes {
        let rotten = disk.after_kill();
        assert!(rotten.flip_bit(&segment_path(7), byte * 8 + byte % 8));
        let Ok(reader) = ready(SegmentReader::open(&rotten, 7)) else {
            noticed += 1;
            continue;
        };
        let mut warnings = Vec::new();
        let all = contents(&reader, &mut warnings);
        if warnings.is_empty() {
            assert_eq!(all, honest, "byte {byte}");
        } else {
            noticed += 1;
            assert!(
                all.iter().all(|(labels, samples)| {
                    samples.iter().all(|sample| honest[labels].contains(sample))
                })
            );
        }
    }
    assert_eq!(noticed, entry.bytes, "every byte is under a checksum");
}

/// Damage costs itself: one chunk of one series here, told with file, offset and series.
#[test]
fn a_damaged_chunk_costs_only_itself() {
    let (disk, _) = written(&frozen(10, 1_000));
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let found = find(&reader, "m1", &[], &mut Vec::new());
    let hit = found[1].chunks[2];
    disk.flip_bit(&segment_path(7), hit.offset * 8 + 100);
    let mut warnings = Vec::new();
    let all = contents(&reader, &mut warnings);
    let total: usize = all.values().map(Vec::len).sum();
    assert_eq!(total, 10 * 1_001 - hit.count as usize);
    let [SegmentError::Damaged { path, offset, series, .. }] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!((path, *offset), (&segment_path(7), hit.offset));
    assert_eq!(series.as_deref(), Some(&*format!("{:?}", found[1].labels)));
}

/// Readers go from slot to slot: a directory that is not in that order is damaged, though every checksum is right.
#[test]
fn a_directory_out_of_order_is_told() {
    let block = |first_slot: u16, last_slot: u16| Block {
        offset: 32,
        len: 1,
        crc: 0,
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
    let mut block = Block::decode_all(&bytes[index.clone()], 1).unwrap().remove(0);
    // The slot of the first row, behind the two lengths, becomes one that the index does not name.
    let rows = block.offset as usize..block.offset as usize + block.len as usize;
    bytes[rows.start + 8..rows.start + 10].copy_from_slice(&(block.last_slot + 1).to_le_bytes());
    block.crc = crc32c::crc32c(&bytes[rows]);
    let mut encoded = Vec::new();
    block.encode(&mut encoded);
    let footer = Footer { index_crc: crc32c::crc32c(&encoded), ..footer };
    bytes[index].copy_from_slice(&encoded);
    bytes[footer_at..].copy_from_slice(&footer.encode());
    let file = ready(disk.create(&segment_path(7))).unwrap();
    ready(file.write_at(0, &bytes)).unwrap();
    let reader = ready(SegmentReader::open(&disk, 7)).unwrap();
    let mut warnings = Vec::new();
    find(&reader, "m1", &[], &mut warnings);
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
    let error = ready(write_segment(&disk, 7, 0, 1, &frozen)).unwrap_err();
    assert!(matches!(error, SegmentError::Io { .. }), "{error}");
    assert_eq!(disk.bytes_used(), 0);
    disk.set_capacity(None);
    ready(write_segment(&disk, 7, 0, 1, &frozen)).unwrap();
    assert!(ready(SegmentReader::open(&disk, 7)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), blocks in any::<u32>()) {
        let _ = Head::decode(&bytes);
        let _ = Footer::decode(&bytes);
        let _ = Block::decode_all(&bytes, blocks % 16);
        let _ = Block::decode_all(&bytes, blocks);
        for row in layout::rows(&bytes).flatten() {
            let _ = row.chunks().count();
        }
        let mut footer = bytes;
        footer.resize(FOOTER_BYTES, 0);
        let crc = crc32c::crc32c(&footer[..FOOTER_BYTES - 12]).to_le_bytes();
        footer[FOOTER_BYTES - 12..FOOTER_BYTES - 8].copy_from_slice(&crc);
        footer[FOOTER_BYTES - 8..].copy_from_slice(&layout::MAGIC);
        let _ = Footer::decode(&footer);
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
        let mut out = Vec::new();
        for chunk in merged(slice).unwrap() {
            chunk.samples().decode_into(&mut out).unwrap();
        }
        let out: Vec<_> = out.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits())).collect();
        prop_assert_eq!(out, model.into_iter().collect::<Vec<_>>());
    }
}
