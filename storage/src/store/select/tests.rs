use super::memory::SERIES_PER_LOOK;
use super::*;
use crate::disk::{SimDisk, ready};
use crate::memtable::Silence;
use crate::segment::SegmentEntry;
use crate::store::tests::{History, Mark, Reader, all_of, at, drain, flush, open, put, set};
use crate::store::{FlushJob, Stopped, Store};
use model::{MetricKind, SeriesNumber, Share, parse_matchers};
use proptest::prelude::*;
use std::collections::BTreeMap;

const EVER: (Timestamp, Timestamp) = (Timestamp::MIN, Timestamp::MAX);

fn select(store: &Store<SimDisk>, (start, end): (Timestamp, Timestamp)) -> Selection<SimDisk> {
    store.select("cpu", &[], start, end, Timestamp::MIN)
}

/// Series that there may be: several looks of them.
const SERIES: u32 = 3 * SERIES_PER_LOOK as u32;

#[derive(Clone, Debug)]
enum Step {
    /// One sample to so many series from one on.
    Append {
        from: u32,
        count: u32,
        ticks: i64,
        value: u8,
    },
    BeginFlush,
    /// Some time goes by, then those that were not heard of meanwhile go to a segment alone, and their names are taken back.
    SendStopped {
        ticks: u8,
    },
    EndFlush {
        fails: bool,
    },
    /// The loop begins a new dictionary, and what is idle is forgotten: its ids are given again.
    Forget,
    Retain {
        millis: i64,
    },
    Select {
        start: i64,
        end: i64,
        ahead: usize,
    },
    /// So many pieces of one of the selections.
    Read {
        which: usize,
        pieces: usize,
    },
    Drop {
        which: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let millis = || 0i64..60;
    let ahead = prop_oneof![Just(0), 1usize..300_000, Just(usize::MAX)];
    let step = prop_oneof![
        12 => (0..SERIES, 1..SERIES / 2, millis(), 0i64..3, 0u8..3).prop_map(
            |(from, count, ms, fine, value)| Step::Append { from, count, ticks: (ms << 20) + fine, value }
        ),
        4 => Just(Step::BeginFlush),
        4 => (0u8..3).prop_map(|ticks| Step::SendStopped { ticks }),
        4 => (0u8..5).prop_map(|n| Step::EndFlush { fails: n == 0 }),
        3 => Just(Step::Forget),
        1 => millis().prop_map(|millis| Step::Retain { millis: millis / 2 }),
        4 => (millis(), millis(), ahead).prop_map(
            |(a, b, ahead)| Step::Select { start: a / 2, end: a / 2 + b, ahead }
        ),
        12 => (any::<usize>(), 1usize..700).prop_map(|(which, pieces)| Step::Read { which, pieces }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
    ];
    proptest::collection::vec(step, 1..80)
}

struct Running {
    selection: Selection<SimDisk>,
    reader: Reader,
    mark: Mark,
    range: (Timestamp, Timestamp),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to the store between the pieces of a selection, each series shows what was applied to it up
    /// to one moment, not before the selection, and nothing twice.
    /// Method: selections are read some pieces at a time amid appends, flushes of all or of some series that end or fail,
    /// series that are forgotten and whose ids are given again, and retention; each series' history says what it may show.
    #[test]
    fn a_view_is_kept_whatever_happens_between_its_pieces(steps in steps()) {
        let disk = SimDisk::new(3);
        let mut store = open(&disk, 0, 1, &[]);
        let (mut history, mut oldest, mut dictionary) = (History::default(), Timestamp::MIN, 0);
        let (mut next_id, mut job): (u64, Option<FlushJob>) = (1, None);
        let mut share = Share::default();
        let mut running: Vec<Running> = Vec::new();
        for step in steps {
            match step {
                Step::Append { from, count, ticks, value } => {
                    share.clear();
                    share.dictionary = dictionary;
                    for n in (from..from + count).map(|n| n % SERIES) {
                        let sample = at(ticks, f64::from(value));
                        share.define(SeriesNumber(n), MetricKind::Counter, set(n).as_ref());
                        share.push(SeriesNumber(n), sample);
                        history.note(n, sample);
                    }
                    prop_assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
                }
                Step::BeginFlush => {
                    let begun = store.begin_flush(next_id);
                    next_id += u64::from(begun.is_some());
                    job = begun.or(job);
                }
                Step::SendStopped { ticks } => {
                    (0..ticks).for_each(|_| store.tick());
                    let silence = Silence { ticks: 1, tick_ms: 1 << 40 };
                    let mut stopped = Stopped::default();
                    while store.find_stopped(silence, SERIES as usize / 2, &mut stopped) {}
                    let mut names = store.names_of_stopped(&stopped);
                    while store.find_names(&mut names) {}
                    for mut names in names.end() {
                        let mut share = Share::default();
                        while store.take_some_names(&mut names, silence, 100, &mut share) {
                            store.take_names_back(names.loop_index, &share);
                            share.clear();
                        }
                    }
                    let begun = store.begin_part_flush(next_id, silence, &stopped);
                    next_id += u64::from(begun.is_some());
                    job = begun.or(job);
                }
                Step::EndFlush { fails } => match job.take() {
                    Some(_) if fails => store.abort_flush(),
                    Some(job) => {
                        let flushed = ready(job.run(&disk)).unwrap();
                        store.finish_flush(flushed);
                    }
                    None => {}
                },
                Step::Forget => {
                    dictionary += 1;
                    store.begin_dictionary(0, dictionary);
                    store.forget_idle();
                }
                Step::Retain { millis } => {
                    oldest = oldest.max(Timestamp::first_of_milli(millis));
                    let is_expired = |entry: &&SegmentEntry| entry.max_ms < oldest.millis();
                    let expired: Vec<u64> = store.segments().filter(is_expired).map(|entry| entry.id).collect();
                    store.replace_segments(&expired, &[]);
                }
                Step::Select { start, end, ahead } => {
                    let (start, end) = (Timestamp::first_of_milli(start), Timestamp::first_of_milli(end));
                    let mut selection = store.select("cpu", &[], start, end, oldest);
                    selection.hold_ahead(ahead);
                    let range = (start.max(oldest), end);
                    let (reader, mark) = (Reader::default(), history.mark());
                    running.push(Running { selection, reader, mark, range });
                }
                Step::Read { which, pieces } => {
                    let at = which % running.len().max(1);
                    let Some(Running { selection, reader, .. }) = running.get_mut(at) else { continue };
                    for _ in 0..pieces {
                        reader.step(selection);
                    }
                }
                Step::Drop { which } => {
                    let at = which % running.len().max(1);
                    if at < running.len() {
                        let mut dropped = running.swap_remove(at).selection;
                        while dropped.let_go() {}
                        prop_assert!(dropped.bytes() < SMALL);
                    }
                }
            }
        }
        for Running { mut selection, mut reader, mark, range } in running {
            while reader.step(&mut selection) {}
            history.assert_shows(&mark, range, &reader.answer);
            prop_assert!(selection.take_warnings().is_empty());
        }
        let (range, mark) = ((oldest, Timestamp::MAX), history.mark());
        history.assert_shows(&mark, range, &drain(select(&store, range)));
        if job.take().is_some() {
            store.abort_flush();
        }
        while flush(&mut store, &disk, next_id).is_some() {
            next_id += 1;
        }
        prop_assert_eq!(store.memory().samples, 0, "no view is left that keeps what is on disk");
        history.assert_shows(&mark, range, &drain(select(&store, range)));
    }
}

/// A step over series of segments ends by how many directory rows it decodes, whether they are told, undone or read.
#[test]
fn a_piece_decodes_a_bounded_number_of_directory_rows() {
    const SEGMENTS: usize = 20;
    const ALL: u32 = SERIES_PER_STEP as u32;
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    for id in 0..SEGMENTS as i64 {
        put_each(&mut store, 0..ALL, at(id << 20, 1.0));
        flush(&mut store, &disk, 1 + id as u64);
    }
    let rows_in_a_piece = |store: &Store<SimDisk>, summarised| {
        let mut selection = select(store, EVER);
        selection.summarise(summarised, RowSums::Exact);
        let (mut piece, mut most) = (Piece::default(), (0, 0));
        while ready(selection.next_piece(&mut piece)) {
            let rows = |source: &Source| source.in_segments.iter().map(|(_, rows)| rows.len()).sum::<usize>();
            let waiting = selection.waiting.iter().map(rows).sum::<usize>();
            let told = piece.told.iter().map(|series| series.chunks.len()).sum::<usize>();
            most = (waiting.max(most.0), told.max(most.1));
        }
        most
    };
    assert!(ALL as usize * SEGMENTS > ROWS_PER_STEP + SEGMENTS);
    let bounded = ROWS_PER_STEP / 4..ROWS_PER_STEP + SEGMENTS;
    let (waiting, told) = rows_in_a_piece(&store, Summarised::None);
    assert!(bounded.contains(&waiting) && told == 0, "{waiting} {told}");
    let (waiting, told) = rows_in_a_piece(&store, Summarised::InRange);
    assert!(bounded.contains(&told) && waiting == 0, "{waiting} {told}");
    // The last segment overlaps the one before, so all is decoded twice.
    put_each(&mut store, 0..ALL, at((SEGMENTS as i64 - 1) << 20, 2.0));
    flush(&mut store, &disk, 1 + SEGMENTS as u64);
    let (waiting, told) = rows_in_a_piece(&store, Summarised::InRange);
    assert!((1..ROWS_PER_STEP / 2 + 2 * SEGMENTS).contains(&waiting) && told == 0, "{waiting} {told}");
}

/// What a selection holds beside its series.
const SMALL: usize = 4096;

/// A store of so many series, one sample each, of which some are in a segment as well and some there alone.
fn store_of(
    disk: &SimDisk,
    in_segment: std::ops::Range<u32>,
    in_memory: std::ops::Range<u32>,
) -> Store<SimDisk> {
    let mut store = open(disk, 0, 1, &[]);
    put_each(&mut store, in_segment, at(1 << 20, 1.0));
    flush(&mut store, disk, 1);
    put_each(&mut store, in_memory, at(2 << 20, 2.0));
    store
}

/// The same sample to each of some series.
fn put_each(store: &mut Store<SimDisk>, series: std::ops::Range<u32>, sample: Sample) {
    let mut share = Share::default();
    for n in series {
        share.define(SeriesNumber(n), MetricKind::Counter, set(n).as_ref());
        share.push(SeriesNumber(n), sample);
    }
    assert_eq!(store.apply(0, &share, &mut |_, _, _| {}).unknown, 0);
}

/// However many series there are, one piece looks at a bounded number of them.
/// Method: whenever a piece gave nothing, all series get one more sample. So a series that was looked at in the
/// n-th such piece shows n of them, and how many show the same says how many one piece looked at.
#[test]
fn a_piece_looks_at_a_bounded_number_of_series() {
    let count = 8 * SERIES_PER_LOOK as u32;
    for in_segment in [0..0, 0..count / 4] {
        let disk = SimDisk::new(1);
        let mut store = store_of(&disk, in_segment, 0..count);
        let (mut selection, mut reader) = (select(&store, EVER), Reader::default());
        let (mut silent, mut quiet) = (0, 0);
        while reader.step(&mut selection) {
            quiet += 1;
            // What is put to its slot, and slots that are gone through, are pieces as well.
            if reader.piece.samples.is_empty() && silent < 400 {
                silent += 1;
                put_each(&mut store, 0..count, at((10 + silent) << 20, 3.0));
            }
        }
        let mut looked_at: BTreeMap<usize, usize> = BTreeMap::new();
        for samples in reader.answer.values() {
            let later = samples.range(10 << 20..).count();
            *looked_at.entry(later).or_default() += 1;
        }
        assert_eq!(reader.answer.len(), count as usize);
        looked_at.remove(&400);
        assert!(looked_at.values().all(|series| *series <= SERIES_PER_LOOK), "{looked_at:?}");
        assert!(looked_at.len() >= 4 && quiet >= count, "{looked_at:?}");
    }
}

/// The bytes told are a set of ids where no segment holds the name, an id or two per series where one does, whatever the
/// series hold.
#[test]
fn a_selection_holds_an_id_or_two_per_series_and_a_bounded_rest() {
    let count = 20_000u32;
    for in_segment in [0..0, 0..count + 5_000] {
        let disk = SimDisk::new(1);
        let all = in_segment.end.max(count) as usize;
        let ids = all * size_of::<u32>();
        let is_flushed = !in_segment.is_empty();
        let store = store_of(&disk, in_segment, 0..count);
        let (mut selection, mut reader) = (select(&store, EVER), Reader::default());
        // A set of ids that follow each other: a bit each.
        assert!((count as usize / 8..ids / 4 + SMALL).contains(&selection.bytes()));
        let mut most = 0;
        while reader.step(&mut selection) {
            most = most.max(selection.bytes());
        }
        assert_eq!(reader.answer.len(), all);
        // Slots: a list each, which may have grown to twice its ids. A block's rows: some 600, some 250 bytes each.
        let slots = 1024 * (size_of::<Vec<u32>>() + 16) + 2 * ids;
        let bound = ids + 400_000 + if is_flushed { slots } else { 0 };
        assert!((most > ids || !is_flushed) && most < bound, "{most} of {bound}");
        assert!(selection.bytes() < bound / 4, "{} is held at the end", selection.bytes());
        while selection.let_go() {}
        assert!(selection.bytes() < SMALL, "{}", selection.bytes());
    }
}

/// Samples that are read where they lie are on the store's account alone, however many one series has.
#[test]
fn what_a_selection_shares_is_not_counted_twice() {
    let mut store = open(&SimDisk::new(1), 0, 1, &[]);
    (0..100_000).for_each(|i| put(&mut store, 1, at(i << 20, 1.0 / (i + 3) as f64)));
    let (mut selection, mut reader) = (select(&store, EVER), Reader::default());
    let samples = store.memory().samples;
    while reader.step(&mut selection) {
        assert!(selection.bytes() < samples / 8, "{} of {samples}", selection.bytes());
    }
    assert_eq!(reader.answer[&set(1)].len(), 100_000);
}

/// What is frozen stays on the store's account as long as a view may look at it, and goes in bounded steps.
#[test]
fn what_a_view_keeps_is_counted_until_it_ends() {
    let disk = SimDisk::new(1);
    let mut store = store_of(&disk, 0..0, 0..10_000);
    let mut selection = select(&store, EVER);
    let other = select(&store, EVER);
    let samples = store.memory().samples;
    flush(&mut store, &disk, 1).unwrap();
    assert!(store.memory().samples >= samples, "{} of {samples}", store.memory().samples);
    drop(other);
    let mut steps = 0;
    while selection.let_go() {
        steps += 1;
    }
    assert_eq!(store.memory().samples, 0);
    assert!(steps >= 5, "{steps} steps for ten thousand series");
    drop(select(&store, EVER));
    assert_eq!(all_of(&store).len(), 10_000);
}

/// The flush itself lets go of what it has written in steps, unless a view may still look at it.
#[test]
fn what_a_flush_has_written_goes_in_steps_when_nobody_reads_it() {
    for is_read in [false, true] {
        let disk = SimDisk::new(1);
        let mut store = store_of(&disk, 0..0, 0..10_000);
        let view = is_read.then(|| select(&store, EVER));
        let job = store.begin_flush(1).unwrap();
        let flushed = ready(job.run(&disk)).unwrap();
        store.finish_flush(flushed);
        let mut written = job.end();
        assert_eq!(written.is_none(), is_read);
        let steps =
            written.as_mut().map(|written| std::iter::from_fn(|| written.let_go().then_some(())).count());
        assert!(steps.is_none_or(|steps| steps >= 5), "{steps:?}");
        assert_eq!(store.memory().samples > 0, is_read);
        drop(view);
        assert_eq!(store.memory().samples, 0);
    }
}

/// The kind is what the client called the series last by the newest that holds samples of it: a segment, or memory.
#[test]
fn a_series_is_of_the_kind_that_it_was_called_last() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let mut entries: Vec<SegmentEntry> = Vec::new();
    let mut put_as = |store: &mut Store<SimDisk>, id: u64, kind| {
        let mut share = Share::default();
        share.define(SeriesNumber(1), kind, set(1).as_ref());
        share.push(SeriesNumber(1), at(id as i64, 1.0));
        store.apply(0, &share, &mut |_, _, _| {});
        entries.extend(flush(store, &disk, id));
    };
    put_as(&mut store, 1, MetricKind::Gauge);
    put_as(&mut store, 2, MetricKind::Summary);
    put_as(&mut store, 3, MetricKind::Counter);
    let in_segments_alone = open(&disk, 0, 1, &entries);
    let kind_in = |store: &Store<SimDisk>| {
        let (mut selection, mut piece) = (select(store, EVER), Piece::default());
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                return series.kind;
            }
        }
        panic!("the series has samples");
    };
    assert_eq!(kind_in(&in_segments_alone), MetricKind::Counter);
    assert_eq!(kind_in(&store), MetricKind::Counter);
    let mut share = Share::default();
    share.define(SeriesNumber(1), MetricKind::Gauge, set(1).as_ref());
    store.apply(0, &share, &mut |_, _, _| {});
    assert_eq!(kind_in(&store), MetricKind::Counter, "memory holds no sample of it");
    share.push(SeriesNumber(1), at(4, 1.0));
    store.apply(0, &share, &mut |_, _, _| {});
    assert_eq!(kind_in(&store), MetricKind::Gauge);
}

/// Matchers choose the same series in memory, in segments, and in both.
#[test]
fn matchers_hold_wherever_a_series_lies() {
    let disk = SimDisk::new(1);
    let store = store_of(&disk, 0..600, 300..900);
    let matchers = parse_matchers(r#"{n=~"[0-9]*7"}"#).unwrap();
    let answer = drain(store.select("cpu", &matchers, EVER.0, EVER.1, Timestamp::MIN));
    assert_eq!(answer.len(), 90);
    assert!(answer.iter().all(|(labels, samples)| {
        let n: u32 = labels.as_ref().get("n").parse().unwrap();
        n % 10 == 7 && samples.len() == usize::from(n < 600) + usize::from(n >= 300)
    }));
}

/// A store of some series whose samples of two closed chunks and an open one each are on their way to disk, some of
/// them in a segment as well.
fn store_of_long_series(disk: &SimDisk, in_segment: u32, in_memory: u32) -> (Store<SimDisk>, FlushJob) {
    let mut store = store_of(disk, 0..in_segment, 0..0);
    (0..in_memory).for_each(|n| (2..700).for_each(|i| put(&mut store, n, at(i << 20, 1.0 / (i + 3) as f64))));
    let job = store.begin_flush(2).unwrap();
    (store, job)
}

/// A name that lies in segments alone keeps no part of memory while it is read, though its series are in the table.
#[test]
fn a_name_without_samples_in_memory_keeps_none() {
    let disk = SimDisk::new(1);
    let mut store = store_of(&disk, 0..2_000, 0..0);
    let mut share = Share::default();
    for n in 0..5_000u32 {
        let other = LabelSet::new("other", &[("n", &n.to_string())]).unwrap();
        share.define(SeriesNumber(10_000 + n), MetricKind::Counter, other.as_ref());
        share.push(SeriesNumber(10_000 + n), at(3 << 20, 1.0));
    }
    store.apply(0, &share, &mut |_, _, _| {});
    assert_eq!(store.series_count(), 7_000);
    // Nothing may be held ahead, and nothing is to be held.
    let (mut selection, mut reader) = (select(&store, EVER), Reader::default());
    flush(&mut store, &disk, 2).unwrap();
    assert!(selection.keeps_memory() && store.memory().samples > 0);
    while reader.answer.is_empty() {
        assert!(reader.step(&mut selection));
    }
    assert!(!selection.keeps_memory());
    assert_eq!(store.memory().samples, 0);
    while reader.step(&mut selection) {}
    assert_eq!(reader.answer.len(), 2_000);
}

/// What may be held ahead is taken before anything is read: the first sample that comes finds the parts of memory
/// let go of, whether a segment holds the name or not, and what is taken is on the selection's account. Where it may
/// not be held, the parts are kept, and the answer is the same.
#[test]
fn a_view_ends_when_all_in_memory_has_been_looked_at() {
    const SERIES: u32 = 600;
    for in_segment in [0, SERIES / 2] {
        for (ahead, is_kept) in [(16 << 20, false), (100_000, true), (0, true)] {
            let disk = SimDisk::new(1);
            let (mut store, job) = store_of_long_series(&disk, in_segment, SERIES);
            put_each(&mut store, 0..SERIES, at(1_000 << 20, 1.0));
            let (mut selection, mut reader) = (select(&store, EVER), Reader::default());
            selection.hold_ahead(ahead);
            let samples = store.memory().samples;
            store.finish_flush(ready(job.run(&disk)).unwrap());
            drop(job);
            flush(&mut store, &disk, 3).unwrap();
            assert!(store.memory().samples >= samples, "both parts are kept");
            let before = selection.bytes();
            while reader.answer.is_empty() {
                assert!(reader.step(&mut selection));
                let held = selection.bytes() - before;
                assert!(is_kept || selection.keeps_memory() || held > samples / 2, "{held} of {samples}");
            }
            assert_eq!(selection.keeps_memory(), is_kept, "{in_segment} {ahead}");
            assert_eq!(store.memory().samples > 0, is_kept);
            assert!(!is_kept || selection.bytes() - before < 2 * ahead + 900_000, "{}", selection.bytes());
            while reader.step(&mut selection) {}
            assert_eq!(reader.answer.len(), SERIES as usize);
            for (labels, samples) in &reader.answer {
                let n: u32 = labels.as_ref().get("n").parse().unwrap();
                assert_eq!(samples.len(), 699 + usize::from(n < in_segment), "{labels:?}");
            }
            while selection.let_go() {}
            assert_eq!((store.memory().samples, selection.bytes() < SMALL), (0, true));
        }
    }
}

/// What was taken ahead and is not read goes in bounded steps, too.
#[test]
fn what_was_taken_ahead_goes_in_steps() {
    for in_segment in [0, 1] {
        let disk = SimDisk::new(1);
        let (mut store, job) = store_of_long_series(&disk, in_segment, 2_000);
        let mut selection = select(&store, EVER);
        selection.hold_ahead(usize::MAX);
        store.finish_flush(ready(job.run(&disk)).unwrap());
        drop(job);
        let (mut reader, before) = (Reader::default(), selection.bytes());
        while selection.keeps_memory() {
            reader.step(&mut selection);
        }
        assert!(selection.bytes() > before + 1_000_000);
        let steps = std::iter::from_fn(|| selection.let_go().then_some(())).count();
        assert!(steps >= 5 && selection.bytes() < SMALL, "{steps} steps, {}", selection.bytes());
    }
}

/// Where what queries keep fills the memory, those that keep the oldest of it are broken off, and no others; the
/// memory is free with the first step in which they are let go of. What a flush has not written breaks off none.
#[test]
fn the_queries_that_keep_the_oldest_part_are_broken_off_when_it_is_needed() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    let mut ticks = 0;
    let mut fill = |store: &mut Store<SimDisk>, bytes: usize| {
        while store.memory().bytes() < bytes {
            ticks += 1;
            put(store, (ticks % 7) as u32, at(ticks << 20, 1.0 / (ticks + 3) as f64));
        }
    };
    let max = store.memory().max;
    fill(&mut store, max / 3);
    let mut before = select(&store, EVER);
    let job = store.begin_flush(1).unwrap();
    let mut amid = select(&store, EVER);
    store.finish_flush(ready(job.run(&disk)).unwrap());
    drop(job);
    let after = select(&store, EVER);
    let is_broken = |of: [&Selection<SimDisk>; 3]| of.map(|selection| selection.is_broken_off());
    fill(&mut store, max / 3 * 2);
    store.break_off_queries();
    assert_eq!(is_broken([&before, &amid, &after]), [false; 3], "there is room");
    let job = store.begin_flush(2).unwrap();
    fill(&mut store, max);
    store.break_off_queries();
    assert_eq!(is_broken([&before, &amid, &after]), [true, true, false]);
    let held = store.memory().samples;
    before.let_go();
    assert_eq!(store.memory().samples, held, "the other keeps it as well");
    amid.let_go();
    assert!(!store.memory().is_full() && store.memory().kept == 0);
    fill(&mut store, max);
    store.break_off_queries();
    assert!(!after.is_broken_off(), "what it keeps is not on disk, and would not be free");
    store.finish_flush(ready(job.run(&disk)).unwrap());
    drop(job);
    store.break_off_queries();
    assert!(after.is_broken_off());
    drop(after);
    assert_eq!(store.memory().kept, 0);
}
