use super::*;
use crate::disk::{Call, SimDisk, Times, ready};
use crate::memtable::Silence;
use crate::segment::SEGMENTS_FOLDER;
use model::{Condition, LabelSet, Matcher, MetricKind, SeriesHash, Stamp, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) type Answer = BTreeMap<LabelSet, BTreeMap<i64, u64>>;

/// What was applied to each series, in order: the naive twin of a view.
#[derive(Default)]
pub(super) struct History(BTreeMap<u32, Vec<(i64, u64)>>);

/// How much of it there was at one moment.
pub(super) type Mark = BTreeMap<u32, usize>;

impl History {
    pub(super) fn note(&mut self, n: u32, sample: Sample) {
        self.0.entry(n).or_default().push((sample.timestamp.ticks(), sample.value.to_bits()));
    }

    pub(super) fn mark(&self) -> Mark {
        self.0.iter().map(|(n, applied)| (*n, applied.len())).collect()
    }

    /// Each series that had been met shows what was applied to it up to some moment not before the mark, the others
    /// nothing.
    pub(super) fn assert_shows(&self, mark: &Mark, (from, to): (Timestamp, Timestamp), answer: &Answer) {
        for (labels, samples) in answer {
            assert!(!samples.is_empty(), "{labels:?}");
            assert!(mark.keys().any(|n| set(*n) == *labels), "{labels:?} was not met yet");
        }
        let nothing = BTreeMap::new();
        for (n, before) in mark {
            let shown = answer.get(&set(*n)).unwrap_or(&nothing);
            let applied = &self.0[n];
            let in_range = |(ticks, _): &(i64, u64)| (from.ticks()..=to.ticks()).contains(ticks);
            let mut state: BTreeMap<i64, u64> = applied[..*before].iter().copied().filter(in_range).collect();
            let mut later = applied[*before..].iter();
            while state != *shown {
                let next = later.next();
                let (ticks, bits) = next.unwrap_or_else(|| panic!("{n}: {shown:?}, {before} of {applied:?}"));
                if in_range(&(*ticks, *bits)) {
                    state.insert(*ticks, *bits);
                }
            }
        }
    }
}

const OPTIONS: StoreOptions = StoreOptions { memory_bytes_max: 1 << 20 };

pub(super) fn open(disk: &SimDisk, shard: usize, shards: usize, entries: &[SegmentEntry]) -> Store<SimDisk> {
    let mut store = Store::new(disk.clone(), shard, shards, OPTIONS, Box::new(|_| 0));
    let refused = ready(store.open_segments(entries));
    assert!(refused.is_empty(), "{refused:?}");
    store
}

pub(super) fn set(n: u32) -> LabelSet {
    LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap()
}

pub(super) fn at(ticks: i64, value: f64) -> Sample {
    Sample { timestamp: Timestamp::from_ticks(ticks), value }
}

/// One sample by the way that all take: a share with its definition.
pub(super) fn put(store: &mut Store<SimDisk>, n: u32, sample: Sample) {
    let mut share = Share::default();
    share.define(SeriesNumber(n), MetricKind::Counter, set(n).as_ref());
    share.push(SeriesNumber(n), sample);
    assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
}

pub(super) fn drain(selection: Selection<SimDisk>) -> Answer {
    let (answer, complete) = drain_what_is_left(selection);
    assert!(complete, "damage was told");
    answer
}

/// The answer, and whether nothing is missing from it.
fn drain_what_is_left(mut selection: Selection<SimDisk>) -> (Answer, bool) {
    let mut reader = Reader::default();
    while reader.step(&mut selection) {}
    (reader.answer, selection.take_warnings().is_empty())
}

/// Reads a selection piece by piece, and checks how it comes.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) answer: Answer,
    at_hand: Option<(LabelSet, Timestamp)>,
    pub(super) piece: Piece,
}

impl Reader {
    pub(super) fn step(&mut self, selection: &mut Selection<SimDisk>) -> bool {
        let Reader { answer, at_hand, piece } = self;
        let goes_on = ready(selection.next_piece(piece));
        if let Some(series) = &piece.begins {
            assert_eq!(series.kind, MetricKind::Counter);
            assert!(!piece.samples.is_empty(), "a series begins with a sample");
            let labels = (*series.labels).clone();
            assert!(answer.insert(labels.clone(), BTreeMap::new()).is_none(), "{labels:?} twice");
            *at_hand = Some((labels, Timestamp::MIN));
        }
        for sample in &piece.samples {
            let (labels, last) = at_hand.as_mut().expect("a series begins before its samples");
            assert!(sample.timestamp > *last, "times rise from piece to piece");
            *last = sample.timestamp;
            let series = answer.get_mut(labels).expect("it was begun");
            series.insert(sample.timestamp.ticks(), sample.value.to_bits());
        }
        goes_on
    }
}

pub(super) fn all_of(store: &Store<SimDisk>) -> Answer {
    drain(store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN))
}

pub(super) fn flush(store: &mut Store<SimDisk>, disk: &SimDisk, id: u64) -> Option<SegmentEntry> {
    let job = store.begin_flush(id)?;
    let flushed = ready(job.run(disk)).unwrap();
    let entry = *flushed.entry();
    store.finish_flush(flushed);
    Some(entry)
}

/// Carries out all that is worth it, as a keeper does; ids begin with that one.
fn merge_all(
    store: &mut Store<SimDisk>,
    disk: &SimDisk,
    entries: &mut Vec<SegmentEntry>,
    now_ms: i64,
    first_id: u64,
) -> usize {
    let windows = Windows::new(Some(60), 2);
    let mut id = first_id;
    let mut merges = 0;
    let mut begin = |store: &Store<SimDisk>| {
        let (from, ids) = (id, 100);
        id += ids;
        let mut next = from..from + ids;
        let next_id = move || next.next().expect("a merge makes a segment per window");
        store.begin_merge(now_ms, Timestamp::MIN, &windows, &BTreeSet::new(), next_id)
    };
    while let Some(mut merge) = begin(store) {
        while ready(merge.step()).unwrap() {}
        let merged = merge.end();
        entries.retain(|entry| !merged.removed.contains(&entry.id));
        entries.extend(merged.entries());
        store.replace_segments(&merged.removed, &merged.added);
        for removed in merged.removed {
            ready(disk.remove(&crate::segment::segment_path(removed))).unwrap();
        }
        merges += 1;
        assert!(merges < 100, "it comes to an end");
    }
    merges
}

#[derive(Clone, Debug)]
enum Step {
    Append(u32, i64, u8),
    BeginFlush,
    EndFlush {
        fails: bool,
    },
    /// As if it were that millisecond.
    Merge {
        now_ms: i64,
    },
    Restart,
    Select(i64, i64, i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ticks = prop_oneof![
        (0i64..60).prop_map(|ms| ms << 20),
        (0i64..60, 0i64..3).prop_map(|(ms, f)| (ms << 20) + f)
    ];
    let bound = || (0i64..60).prop_map(|ms| ms << 20);
    let step = prop_oneof![
        30 => (0u32..4, ticks, 0u8..3).prop_map(|(n, ticks, value)| Step::Append(n, ticks, value)),
        3 => Just(Step::BeginFlush),
        3 => any::<bool>().prop_map(|fails| Step::EndFlush { fails }),
        2 => (0i64..90).prop_map(|now_ms| Step::Merge { now_ms }),
        1 => Just(Step::Restart),
        3 => (bound(), bound(), bound()).prop_map(|(start, end, oldest)| Step::Select(start, end, oldest)),
    ];
    proptest::collection::vec(step, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is appended, flushed in the middle of anything, merged, failed and restarted: every selection is
    /// what a map would answer, and one taken earlier and read later is what a view may show.
    #[test]
    fn the_store_is_a_map_from_series_and_time_to_the_last_value(steps in steps()) {
        let disk = SimDisk::new(3);
        let mut store = open(&disk, 0, 1, &[]);
        let (mut entries, mut next_id) = (Vec::new(), 1);
        let mut job: Option<FlushJob> = None;
        let (mut model, mut history) = (Answer::new(), History::default());
        let mut earlier: Vec<(Selection<SimDisk>, Mark, (Timestamp, Timestamp))> = Vec::new();
        for step in steps {
            match step {
                Step::Append(n, ticks, value) => {
                    put(&mut store, n, at(ticks, f64::from(value)));
                    history.note(n, at(ticks, f64::from(value)));
                    model.entry(set(n)).or_default().insert(ticks, f64::from(value).to_bits());
                }
                Step::BeginFlush => {
                    let begun = store.begin_flush(next_id);
                    prop_assert!(begun.is_none() || job.is_none(), "one at a time");
                    next_id += u64::from(begun.is_some());
                    job = begun.or(job);
                }
                Step::EndFlush { fails } => {
                    let Some(job) = job.take() else { continue };
                    if fails {
                        disk.fail(Call::Sync, disk.calls(Call::Sync), Times::Once, std::io::ErrorKind::Other);
                        prop_assert!(ready(job.run(&disk)).is_err());
                        disk.mend();
                        store.abort_flush();
                        continue;
                    }
                    let flushed = ready(job.run(&disk)).unwrap();
                    prop_assert_eq!(&all_of(&store), &model, "written, not yet switched");
                    entries.push(*flushed.entry());
                    store.finish_flush(flushed);
                }
                Step::Merge { now_ms } => {
                    merge_all(&mut store, &disk, &mut entries, now_ms, next_id);
                    next_id += 20_000;
                    prop_assert_eq!(&all_of(&store), &model, "merged");
                }
                Step::Restart => {
                    if let Some(job) = job.take() {
                        let flushed = ready(job.run(&disk)).unwrap();
                        entries.push(*flushed.entry());
                        store.finish_flush(flushed);
                    }
                    // Twice: what a failed flush left goes first.
                    for _ in 0..2 {
                        entries.extend(flush(&mut store, &disk, next_id));
                        next_id += 1;
                    }
                    store = open(&disk, 0, 1, &entries);
                }
                Step::Select(start, end, oldest) => {
                    let [start, end, oldest] = [start, end, oldest].map(Timestamp::from_ticks);
                    let selection = store.select("cpu", &[], start, end, oldest);
                    earlier.push((selection, history.mark(), (start.max(oldest), end)));
                }
            }
        }
        prop_assert_eq!(&all_of(&store), &model);
        for (selection, mark, range) in earlier {
            history.assert_shows(&mark, range, &drain(selection));
        }
    }
}

/// The number of shards may change: segments of two shards are read by one, two, three and five, each
/// series by its owner alone, nothing missing and nothing twice.
#[test]
fn segments_of_two_shards_are_read_by_any_number() {
    let disk = SimDisk::new(1);
    let (mut entries, mut model) = (Vec::new(), Answer::new());
    let owner = |labels: &LabelSet, shards: usize| labels.as_ref().hash().slot().owner(shards);
    for shard in 0..2 {
        let mut store = open(&disk, shard, 2, &[]);
        for round in 0..3u64 {
            for n in (0..300).filter(|&n| owner(&set(n), 2) == shard) {
                for i in 0..5 {
                    let sample = at((round as i64 * 5 + i) << 20, f64::from(n));
                    put(&mut store, n, sample);
                    model.entry(set(n)).or_default().insert(sample.timestamp.ticks(), sample.value.to_bits());
                }
            }
            entries.push(flush(&mut store, &disk, 1 + round * 2 + shard as u64).unwrap());
        }
    }
    for shards in [1, 2, 3, 5, 1024] {
        let mut union = Answer::new();
        for shard in 0..shards {
            let store = open(&disk, shard, shards, &entries);
            assert!(
                shards != 2 || store.segments().count() == 3,
                "the other shard's segments are not opened"
            );
            for (labels, samples) in all_of(&store) {
                assert_eq!(owner(&labels, shards), shard);
                assert!(union.insert(labels, samples).is_none());
            }
        }
        assert_eq!(union, model, "{shards} shards");
    }
}

/// A power cut at any moment of a flush leaves a segment that is refused, or tells what it misses, or is
/// whole; and memory still answers.
/// Method: count the operations of one flush, then run it again once per operation, cutting there, with
/// several choices of what the device kept.
#[test]
fn a_flush_survives_a_cut_at_every_operation() {
    let run = |disk: &SimDisk| {
        let mut store = open(disk, 0, 1, &[]);
        (0..200).for_each(|n| (0..20).for_each(|i| put(&mut store, n, at(i << 20, f64::from(n)))));
        let model = all_of(&store);
        let flushed = store.begin_flush(1).map(|job| ready(job.run(disk)));
        let named = flushed.and_then(Result::ok).map(|flushed| *flushed.entry());
        if named.is_none() {
            store.abort_flush();
            assert_eq!(all_of(&store), model, "memory still answers");
        }
        (named, model)
    };
    let calm = SimDisk::new(1);
    run(&calm);
    let mut whole = 0;
    for operation in 0..calm.operations() {
        for seed in 0..8 {
            let disk = SimDisk::cutting_at(1, operation);
            let (named, model) = run(&disk);
            assert!(named.is_none(), "a flush that was cut does not say that it succeeded");
            let left = disk.after_power_cut(seed);
            // The manifest names no segment yet: reading one all the same shows that its checks hold.
            if let Ok(reader) = ready(SegmentReader::open(&left, 1)) {
                let store = open(&left, 0, 1, &[*reader.entry()]);
                let everything = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
                let (answer, complete) = drain_what_is_left(everything);
                assert!(!complete || answer == model, "cut at {operation}, seed {seed}");
                assert!(answer.iter().all(|(labels, samples)| {
                    samples.iter().all(|(ticks, bits)| model[labels].get(ticks) == Some(bits))
                }));
                whole += u32::from(complete);
            }
        }
    }
    assert!(whole > 0, "some cut came after the sync");
    let (named, model) = run(&calm);
    let left = calm.after_power_cut(1);
    assert_eq!(all_of(&open(&left, 0, 1, &[named.unwrap()])), model, "what run() returned is durable");
}

#[test]
fn a_new_dictionary_forgets_the_old_numbers() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    put(&mut store, 4, at(1, 1.0));
    let mut share = Share::default();
    share.dictionary = 1;
    share.push(SeriesNumber(4), at(2, 2.0));
    assert_eq!(
        store.apply(0, &share, &mut |_, _, _| {}).unknown,
        1,
        "number 4 has no meaning in dictionary 1"
    );
    share.define(SeriesNumber(4), MetricKind::Counter, set(9).as_ref());
    share.define(SeriesNumber(u32::MAX), MetricKind::Counter, set(9).as_ref());
    assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    let mut other_loop = Share::default();
    other_loop.define(SeriesNumber(0), MetricKind::Counter, set(9).as_ref());
    other_loop.push(SeriesNumber(0), at(3, 3.0));
    assert_eq!(store.apply(5, &other_loop, &mut |_, _, _| {}).unknown, 0);
    let answer = all_of(&store);
    assert_eq!(answer[&set(4)].len(), 1);
    assert_eq!(answer[&set(9)].keys().copied().collect::<Vec<_>>(), [2, 3]);
}

/// A number that a loop still uses means the same series however long it was quiet; others are forgotten.
#[test]
fn series_that_a_dictionary_names_survive_idle_flushes() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    (0..50).for_each(|n| put(&mut store, n, at(1, 1.0)));
    let mut beat = Share::default();
    for id in 1..6u64 {
        beat.clear();
        beat.push(SeriesNumber(0), at(id as i64 + 1, 1.0));
        assert_eq!(store.apply(0, &beat, &mut |_, _, _| {}).unknown, 0);
        flush(&mut store, &disk, id).unwrap();
    }
    assert_eq!(store.series_count(), 50);
    beat.dictionary = 1;
    for id in 6..9u64 {
        beat.clear();
        beat.define(SeriesNumber(0), MetricKind::Counter, set(0).as_ref());
        beat.push(SeriesNumber(0), at(id as i64 + 1, 1.0));
        assert_eq!(store.apply(0, &beat, &mut |_, _, _| {}).unknown, 0);
        flush(&mut store, &disk, id).unwrap();
    }
    assert_eq!(store.series_count(), 1);
    assert_eq!(all_of(&store).len(), 50, "their samples are in the segments");
}

#[test]
fn watched_series_are_observed_and_others_are_not() {
    let watch_of = |labels: model::LabelSetRef<'_>| if labels.name() == "cpu" { 3 } else { 0 };
    let mut store = Store::new(SimDisk::new(1), 0, 1, OPTIONS, Box::new(watch_of));
    let mut share = Share::default();
    share.define(SeriesNumber(0), MetricKind::Gauge, set(0).as_ref());
    share.define(SeriesNumber(1), MetricKind::Gauge, LabelSet::new("mem", &[]).unwrap().as_ref());
    for (number, value) in [(0, 1.0), (1, 1.0), (0, 1.0), (0, 2.0)] {
        share.push(SeriesNumber(number), at(1, value));
    }
    let mut seen = Vec::new();
    let applied =
        store.apply(0, &share, &mut |watch, sample, appended| seen.push((watch, sample.value, appended)));
    assert_eq!(applied, Applied { repeated: 1, replaced: 1, unknown: 0 });
    let expected =
        [(3, 1.0, Appended::New), (3, 1.0, Appended::Same), (3, 2.0, Appended::Replaced { old: 1.0 })];
    assert_eq!(seen, expected);
}

/// The arrival of a series is that of its first definition, wherever the store has it from: memory, the part on
/// its way to disk, a segment alone, or a segment and a later definition, as after a restart.
#[test]
fn a_series_keeps_its_arrival_through_flush_and_restart() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let define = |store: &mut Store<SimDisk>, n: u32, nanos: u64| {
        let mut share = Share::default();
        share.stamp = Stamp { run: 1, nanos, loop_index: 0 };
        share.define(SeriesNumber(n), MetricKind::Counter, set(n).as_ref());
        share.push(SeriesNumber(n), at(nanos as i64, 1.0));
        assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    };
    let arrived = |store: &Store<SimDisk>| {
        let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut arrived, mut piece) = (Vec::new(), Piece::default());
        while ready(selection.next_piece(&mut piece)) {
            arrived.extend(piece.begins.as_ref().map(|series| (series.arrival, (*series.labels).clone())));
        }
        arrived.sort();
        arrived.into_iter().map(|(_, labels)| labels).collect::<Vec<_>>()
    };
    for (n, nanos) in [(5, 10), (3, 20), (8, 30)] {
        define(&mut store, n, nanos);
    }
    assert_eq!(arrived(&store), [5, 3, 8].map(set));
    let job = store.begin_flush(1).unwrap();
    define(&mut store, 9, 35);
    define(&mut store, 3, 36);
    assert_eq!(arrived(&store), [5, 3, 8, 9].map(set), "on its way to disk");
    let flushed = ready(job.run(&disk)).unwrap();
    let entry = *flushed.entry();
    store.finish_flush(flushed);
    assert_eq!(arrived(&store), [5, 3, 8, 9].map(set), "flushed");
    let mut store = open(&disk, 0, 1, &[entry]);
    assert_eq!(arrived(&store), [5, 3, 8].map(set), "in a segment alone");
    for (n, nanos) in [(8, 40), (7, 50), (5, 60)] {
        define(&mut store, n, nanos);
    }
    assert_eq!(arrived(&store), [5, 3, 8, 7].map(set));
    let matchers = [Matcher { label: "n".into(), condition: Condition::Equal("3".into()) }];
    let one = drain(store.select("cpu", &matchers, Timestamp::MIN, Timestamp::MAX, Timestamp::MIN));
    assert_eq!(one.into_keys().collect::<Vec<_>>(), [set(3)]);
}

#[test]
fn what_retention_drops_is_gone_and_earlier_selections_still_read_it() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let mut entries = Vec::new();
    for id in 1..=3u64 {
        put(&mut store, 1, at((id as i64 * 100) << 20, 1.0));
        entries.extend(flush(&mut store, &disk, id));
    }
    let before = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    store.replace_segments(&[1, 2], &[]);
    assert!(store.segments().eq(&entries[2..]));
    ready(crate::disk::Disk::remove(&disk, &format!("{SEGMENTS_FOLDER}/0000000000000001.segment"))).unwrap();
    assert_eq!(all_of(&store)[&set(1)].len(), 1);
    assert_eq!(drain(before)[&set(1)].len(), 3);
}

#[test]
fn a_flush_is_wanted_at_half_the_budget_and_frees_it() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    assert!(!store.wants_flush() && store.begin_flush(1).is_none(), "nothing to write");
    let mut i = 0;
    while !store.wants_flush() {
        put(&mut store, (i % 50) as u32, at(i << 20, i as f64 * 0.37));
        i += 1;
    }
    let full = store.memory().bytes();
    assert!((OPTIONS.memory_bytes_max / 3..OPTIONS.memory_bytes_max * 2 / 3).contains(&full), "{full}");
    assert_eq!(store.memtable_samples(), i as u64);
    let flushed = ready(store.begin_flush(1).unwrap().run(&disk)).unwrap();
    assert_eq!(flushed.sample_count(), i as u64);
    store.finish_flush(flushed);
    assert!(store.memory().bytes() < full / 4 && !store.wants_flush());
    assert!(store.memory().segment_indexes < 1_000);
}

/// Each sample a new series, fifty times what memory holds: as the loops begin new dictionaries when asked, what
/// is idle is forgotten, memory stays bounded and everything is found.
/// Method: the server's steps (flush when wanted, new dictionaries when wanted, then forget), new series held
/// back as the server does while the tables are full.
#[test]
fn memory_stays_bounded_when_every_sample_is_a_new_series() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let (mut dictionary, mut number, mut segment) = (1, 0, 1);
    let (mut peak, mut renewed, mut refused) = (0, 0, 0);
    let mut share = Share::default();
    for n in 0..60_000u32 {
        if store.memory().is_full() || store.memory().is_full_of_series() {
            refused += 1;
            break;
        }
        share.clear();
        share.dictionary = dictionary;
        share.define(SeriesNumber(number), MetricKind::Counter, set(n).as_ref());
        share.push(SeriesNumber(number), at(i64::from(n) << 20, 1.0));
        number += 1;
        assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
        peak = peak.max(store.memory().bytes());
        if store.wants_flush() {
            flush(&mut store, &disk, segment).unwrap();
            segment += 1;
        } else if store.wants_new_dictionaries() {
            // The loop stays quiet after it has begun the new one.
            dictionary += 1;
            number = 0;
            store.begin_dictionary(0, dictionary);
            assert!(!store.forget_idle().is_empty());
            renewed += 1;
        }
    }
    assert_eq!(refused, 0);
    assert!(peak < OPTIONS.memory_bytes_max && renewed > 20, "{peak} bytes, {renewed} dictionaries");
    assert_eq!(all_of(&store).len(), 60_000);
}

/// Without new dictionaries nothing can be forgotten: the tables fill up to their bound and are told to be full,
/// while a flush still frees the samples.
#[test]
fn tables_full_of_named_series_are_told() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let mut n = 0;
    let mut segment = 1;
    while !store.memory().is_full_of_series() {
        put(&mut store, n, at(1, 1.0));
        n += 1;
        if store.wants_flush() {
            flush(&mut store, &disk, segment).unwrap();
            segment += 1;
        }
        assert!(!store.memory().is_full());
    }
    assert!(segment > 1 && store.wants_new_dictionaries() && store.dictionary(0) == Some(0));
    assert!(store.forget_idle().is_empty(), "all are named");
    flush(&mut store, &disk, segment);
    store.begin_dictionary(0, 1);
    assert_eq!((store.dictionary(0), store.forget_idle().len()), (None, n as usize));
    assert!(store.memory().tables < OPTIONS.memory_bytes_max / 20, "{:?}", store.memory());
}

/// A flush that comes late in a crowd of new series leaves it idle, and too little room for a crowd behind it: the
/// tables fill up, and what came before the freeze is told to have been a crowd.
#[test]
fn a_crowd_before_a_late_flush_is_told_once_the_tables_are_full() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let mut n = 0;
    let is_nearly_full = |store: &Store<SimDisk>| {
        let memory = store.memory();
        memory.tables + memory.segment_indexes >= memory.max / 4 * 3 - memory.max / 16
    };
    while !is_nearly_full(&store) {
        put(&mut store, n, at(1, 1.0));
        n += 1;
    }
    assert!(store.wants_flush() && !store.has_churned());
    flush(&mut store, &disk, 1).unwrap();
    while !store.memory().is_full_of_series() {
        put(&mut store, n, at(1, 1.0));
        n += 1;
    }
    assert!(!store.wants_new_dictionaries() && store.has_idle_share() && store.has_churned());
    flush(&mut store, &disk, 2).unwrap();
    assert!(!store.has_churned());
}

/// What is on its way to disk is found by the table: nothing is forgotten before it is there.
#[test]
fn nothing_is_forgotten_while_a_flush_is_under_way() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    (0..9).for_each(|n| put(&mut store, n, at(1, 1.0)));
    store.begin_dictionary(0, 1);
    let job = store.begin_flush(1).unwrap();
    assert!(store.forget_idle().is_empty());
    assert_eq!(all_of(&store).len(), 9);
    store.finish_flush(ready(job.run(&disk)).unwrap());
    assert_eq!(store.forget_idle().len(), 9);
    assert_eq!(all_of(&store).len(), 9);
}

/// Series that have stopped leave some at a time; who is named in between stays, with a sample or without, and so do those
/// of whom a flush begins to write.
#[test]
fn series_are_forgotten_in_steps_but_those_that_are_named_meanwhile() {
    const SERIES: u32 = 600;
    let silence = Silence { ticks: 1, tick_ms: 15_000 };
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    (0..SERIES).for_each(|n| put(&mut store, n, at(1, 1.0)));
    flush(&mut store, &disk, 1).unwrap();
    store.begin_dictionary(0, 1);
    (0..5).for_each(|_| store.tick());
    let begin = |store: &mut Store<SimDisk>| {
        let mut stopped = Stopped::default();
        while store.find_stopped(silence, usize::MAX, &mut stopped) {}
        let count = stopped.count();
        store.begin_forgetting(stopped);
        count
    };
    assert_eq!(begin(&mut store), SERIES as usize);
    let mut hashes = Vec::new();
    assert!(store.forget_some(&mut hashes) && hashes.is_empty(), "the numbers first");
    assert!(store.forget_some(&mut hashes));
    assert!(!hashes.is_empty() && hashes.len() < 300, "{}", hashes.len());
    let mut share = Share::default();
    share.dictionary = 1;
    share.define(SeriesNumber(0), MetricKind::Counter, set(0).as_ref());
    share.push(SeriesNumber(0), at(2, 2.0));
    share.define(SeriesNumber(1), MetricKind::Counter, set(1).as_ref());
    assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
    while store.forget_some(&mut hashes) {}
    assert_eq!((hashes.len(), store.series_count()), (SERIES as usize - 2, 2));
    assert!(!store.forget_some(&mut hashes), "that is all");
    share.clear();
    share.dictionary = 1;
    share.push(SeriesNumber(1), at(3, 3.0));
    assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);

    store.begin_dictionary(0, 2);
    (0..5).for_each(|_| store.tick());
    assert_eq!(begin(&mut store), 2);
    let job = store.begin_flush(2).unwrap();
    assert!(!store.forget_some(&mut hashes));
    store.finish_flush(ready(job.run(&disk)).unwrap());
    assert!(!store.forget_some(&mut hashes), "it was given up");
    assert_eq!(store.series_count(), 2);
    assert_eq!(all_of(&store).len(), SERIES as usize);
}

#[test]
fn a_segment_that_is_not_the_manifests_is_refused() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    put(&mut store, 1, at(1, 1.0));
    let entry = flush(&mut store, &disk, 1).unwrap();
    let other = SegmentEntry { bytes: entry.bytes + 1, ..entry };
    let missing = SegmentEntry { id: 9, ..entry };
    let mut store = Store::new(disk, 0, 1, OPTIONS, Box::new(|_| 0));
    assert_eq!(ready(store.open_segments(&[other, missing, entry])).len(), 2);
    // Whoever would have read them is told.
    let (answer, is_complete) =
        drain_what_is_left(store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN));
    assert_eq!((answer.len(), is_complete), (1, false));
    let later = Timestamp::from_millis(1_000).unwrap();
    assert!(drain(store.select("cpu", &[], later, Timestamp::MAX, Timestamp::MIN)).is_empty());
    store.replace_segments(&[1, 9], &[]);
    assert!(all_of(&store).is_empty(), "what is no longer named is missed by nobody");
}

/// The slot of the test series is their hash's: the tests above rely on a spread over the shards.
#[test]
fn test_series_spread_over_shards() {
    let hashes = (0..300).map(|n| set(n).as_ref().hash());
    let even = hashes.filter(|SeriesHash(hash)| hash % 2 == 0).count();
    assert!((100..200).contains(&even));
}
