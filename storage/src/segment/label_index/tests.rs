use super::*;
use crate::column::Heat;
use crate::disk::{Disk, DiskFile, SimDisk, ready};
use crate::segment::layout::FOOTER_BYTES;
use crate::segment::{Rows, SegmentError, SegmentReader, SegmentWriter, SeriesList, segment_path};
use model::{Arrival, LabelSet, Matcher, MetricKind, Sample, Timestamp, parse_matchers};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Some of each label's values; 0 leaves the label out.
type Set = (u8, u8, u8, u16);

fn label_set((name, job, zone, pod): Set) -> LabelSet {
    let text = |prefix: &str, n: u16| if n == 0 { String::new() } else { format!("{prefix}{n}") };
    let pairs =
        [("job", text("api-", job.into())), ("zone", text("z", zone.into())), ("pod", text("pö", pod))];
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(label, value)| (*label, value.as_str())).collect();
    LabelSet::new(&format!("m{name}"), &pairs).unwrap()
}

/// A segment of these series, one sample each, whose parts are closed at so many bytes.
fn segment(sets: &BTreeSet<Set>, part_bytes_max: usize) -> (SimDisk, Vec<LabelSet>) {
    let disk = SimDisk::new(1);
    let mut all: Vec<LabelSet> = sets.iter().map(|set| label_set(*set)).collect();
    all.sort_by_key(|set| (set.as_ref().hash().slot(), set.clone()));
    let mut writer = ready(SegmentWriter::create(&disk, 7, 0, 1, Heat::Fresh)).unwrap();
    writer.hold_parts_of(part_bytes_max);
    for set in &all {
        ready(writer.begin_series(set.as_ref(), MetricKind::Gauge, Arrival::from_bits(0))).unwrap();
        ready(writer.push(&[Sample { timestamp: Timestamp::from_ticks(5), value: 1.0 }])).unwrap();
    }
    ready(writer.finish()).unwrap();
    (disk, all)
}

fn open(disk: &SimDisk) -> SegmentReader<SimDisk> {
    ready(SegmentReader::open(disk, 7)).unwrap()
}

/// The series that the index names and that meet the matchers, and how many it has named.
fn search(
    reader: &SegmentReader<SimDisk>,
    matchers: &[Matcher],
    warnings: &mut Vec<SegmentError>,
) -> (Vec<LabelSet>, u64) {
    let mut rows = Rows::default();
    for part in 0..reader.part_count() {
        ready(reader.search_part(part, matchers, &mut rows, warnings));
    }
    let (mut found, mut next) = (Vec::new(), 0);
    while let Some((block, _)) = reader.next_block(next, &rows, |_| true) {
        let mut list = SeriesList::default();
        ready(reader.find_in_block(block, &rows, matchers, |_| true, (&mut list, warnings)));
        found.extend(list.iter().map(|series| series.labels.to_owned()));
        next = block + 1;
    }
    (found, rows.len())
}

fn naive(all: &[LabelSet], matchers: &[Matcher]) -> Vec<LabelSet> {
    let meets = |set: &&LabelSet| matchers.iter().all(|matcher| matcher.matches(set.as_ref()));
    all.iter().filter(meets).cloned().collect()
}

fn conditions() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(
        proptest::sample::select(vec![
            r#"__name__="m1""#,
            r#"__name__=~"m[12]""#,
            r#"__name__!~"m.*""#,
            r#"job="api-1""#,
            r#"job!="api-1""#,
            r#"job="""#,
            r#"job!="""#,
            r#"job=~"api-1|api-3|none""#,
            r#"job!~"api-1|api-3""#,
            r#"job=~"api-1|""#,
            r#"job!~"api-1|""#,
            r#"job=~"api-.*""#,
            r#"zone!~"z[^1]""#,
            r#"pod=~"pö.*7""#,
            r#"pod!~"pö.*7""#,
            r#"pod=~"pö1.*""#,
            r#"pod!~"pö1.*""#,
            r#"pod=~"pö39[0-9]""#,
            r#"pod=~"q.*""#,
            r#"pod=~".+""#,
            r#"pod="pö7""#,
            r#"absent="""#,
            r#"absent!="""#,
            r#"absent!~".+""#,
        ]),
        0..4,
    )
}

fn sets() -> impl Strategy<Value = BTreeSet<Set>> {
    proptest::collection::btree_set((0u8..3, 0u8..4, 0u8..6, 0u16..400), 1..500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the matchers and however many parts there are, the index leads to what looking at all series would find,
    /// the first time and the next.
    #[test]
    fn the_index_leads_to_what_looking_at_all_would(
        sets in sets(), part_bytes_max in 2_000usize..200_000, conditions in conditions(),
    ) {
        let (disk, all) = segment(&sets, part_bytes_max);
        let reader = open(&disk);
        let matchers = parse_matchers(&format!("{{{}}}", conditions.join(","))).unwrap();
        let mut warnings = Vec::new();
        for _ in 0..2 {
            prop_assert_eq!(&search(&reader, &matchers, &mut warnings).0, &naive(&all, &matchers));
        }
        for part in 0..reader.part_count() {
            ready(reader.verify_part(part, &mut warnings));
        }
        prop_assert!(warnings.is_empty(), "{:?}", warnings);
    }

    /// A damaged byte of the index costs time and is told where it is read; the answer stays as it is.
    #[test]
    fn damage_changes_no_answer(
        sets in sets(), part_bytes_max in 2_000usize..50_000, conditions in conditions(),
        at in any::<proptest::sample::Index>(), bit in 0u64..8,
    ) {
        let (disk, all) = segment(&sets, part_bytes_max);
        let reader = open(&disk);
        let hit = reader.parts[at.index(reader.part_count())];
        let byte = hit.offset + at.index(hit.bytes() as usize) as u64;
        disk.flip_bit(&segment_path(7), byte * 8 + bit);
        let matchers = parse_matchers(&format!("{{{}}}", conditions.join(","))).unwrap();
        let (mut warnings, mut errors) = (Vec::new(), Vec::new());
        prop_assert_eq!(search(&reader, &matchers, &mut warnings).0, naive(&all, &matchers));
        (0..reader.part_count()).for_each(|part| ready(reader.verify_part(part, &mut errors)));
        prop_assert_eq!(errors.len(), 1, "{:?}", errors);
        for told in warnings.iter().chain(&errors) {
            let SegmentError::Damaged { offset, .. } = told else { panic!("{told:?}") };
            prop_assert!((hit.offset..hit.offset + hit.bytes()).contains(offset), "{}", told);
        }
    }

    /// Bytes that are no label index are refused or read, and never a panic.
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), rows in 0u32..100, short in 0usize..4) {
        let part = Part { offset: 0, blocks_len: bytes.len() as u32, head_len: 0, head_crc: 0, first_row: 0, rows };
        let mut small = bytes.clone();
        small.iter_mut().for_each(|byte| *byte %= 8);
        for bytes in [&bytes, &small] {
            let _ = decode_head(bytes, &part);
            let _ = Part::decode_all(bytes, short as u32);
            let mut values = Values::new(bytes, &part);
            let mut found = RoaringBitmap::new();
            while let Some(value) = values.next() {
                let Ok((_, rows)) = value else { break };
                let _ = rows.add_to(&mut found);
            }
            prop_assert!(found.max().is_none_or(|last| last < rows));
        }
    }
}

/// The blocks of a label that an expression's beginning rules out are not read, and what a test has found is kept.
#[test]
fn tests_read_what_they_must_and_once() {
    let sets: BTreeSet<Set> = (1..30_000).map(|n| (0, (n % 3) as u8, 0, n)).collect();
    let (disk, all) = segment(&sets, PART_BYTES_MAX);
    let reader = open(&disk);
    assert_eq!(reader.part_count(), 1);
    let reads = |text: &str| {
        let before = disk.calls(crate::disk::Call::Read);
        let (mut rows, mut warnings) = (Rows::default(), Vec::new());
        ready(reader.search_part(0, &parse_matchers(text).unwrap(), &mut rows, &mut warnings));
        assert!(warnings.is_empty());
        (rows.len(), disk.calls(crate::disk::Call::Read) - before)
    };
    let all_blocks = reads(r#"{pod=~".*7"}"#);
    assert_eq!(all_blocks.0, all.iter().filter(|set| set.as_ref().get("pod").ends_with('7')).count() as u64);
    assert!(all_blocks.1 > 6, "{all_blocks:?}");
    assert_eq!(reads(r#"{pod=~".*7"}"#), (all_blocks.0, 1), "the head");
    assert_eq!(reads(r#"{pod!~".*7"}"#), (all.len() as u64 - all_blocks.0, all_blocks.1), "another question");
    assert_eq!(reads(r#"{pod=~"pö2999[0-9]?"}"#), (11, 2), "the head and the one block");
    assert_eq!(reads(r#"{pod="pö17"}"#), (1, 2));
    assert_eq!(reads(r#"{pod="pö17",job="api-2"}"#), (1, 3));
    assert_eq!(reads(r#"{pod="pö17",job="api-1"}"#), (0, 3));
    assert_eq!(reads(r#"{pod="pöx",job="api-1"}"#), (0, 2), "the rarest first, and then nothing is left");
    assert_eq!(reads(r#"{pod="pö17",zone=~".*x"}"#), (0, 1), "no series has the label");
    // However many are asked, what is kept is bounded.
    for n in 0..2_000 {
        reads(&format!(r#"{{pod=~".*{n}x?"}}"#));
    }
    assert!(reader.cache.bytes() <= reader.cache.bytes_max() && reader.cache.bytes() > 0);
}

/// Every row below that the directory does not have would be a wrong answer: an index that tells of one is refused.
#[test]
fn parts_that_tell_of_more_rows_than_there_are_are_refused() {
    let (disk, _) = segment(&(1..50).map(|n| (0, 0, 0, n)).collect(), PART_BYTES_MAX);
    let mut bytes = disk.contents(&segment_path(7)).unwrap();
    let footer_at = bytes.len() - FOOTER_BYTES;
    let footer = crate::segment::layout::Footer::decode(&bytes[footer_at..]).unwrap();
    let index_end = footer.index_offset as usize + footer.index_len as usize;
    bytes[index_end - 4] += 1;
    let index_crc = crc32c::crc32c(&bytes[footer.index_offset as usize..index_end]);
    let footer = crate::segment::layout::Footer { index_crc, ..footer };
    bytes[footer_at..].copy_from_slice(&footer.encode());
    let file = ready(disk.create(&segment_path(7))).unwrap();
    ready(file.write_at(0, &bytes)).unwrap();
    let error = ready(SegmentReader::open(&disk, 7)).err().unwrap();
    assert!(error.to_string().contains("the form of the index"), "{error}");
}
