use super::choose::INPUT_BYTES_MAX;
use super::*;
use crate::disk::{Call, Disk as _, SimDisk, Times, ready};
use crate::segment::{SEGMENTS_FOLDER, SegmentEntry};
use crate::store::{Piece, Store, StoreOptions};
use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const ALONE: Owner = Owner { shard: 0, shards: 1 };

fn flushed(id: u64, min_ms: i64, max_ms: i64, bytes: u64) -> SegmentEntry {
    SegmentEntry { id, shards: 1, shard: 0, min_ms, max_ms, bytes, newest: id, deletes_through: 0 }
}

fn ids(chosen: Option<Vec<SegmentEntry>>) -> Vec<u64> {
    chosen.unwrap_or_default().iter().map(|entry| entry.id).collect()
}

fn choose_of(segments: &[SegmentEntry], now_ms: i64) -> Vec<u64> {
    ids(choose(segments, ALONE, now_ms, &Windows::new(Some(15 * DAY), 3 * HOUR), &BTreeSet::new()))
}

#[test]
fn a_window_is_complete_when_it_has_ended_for_the_grace() {
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    let around = |ms, now| windows.around(ms, now);
    let window = |first_ms, end_ms: i64| Window { first_ms, last_ms: end_ms - 1 };
    let open = |first_ms| Window { first_ms, last_ms: i64::MAX };
    assert_eq!(around(HOUR, 11 * HOUR - 1), open(0));
    assert_eq!(around(HOUR, 11 * HOUR), window(0, 8 * HOUR));
    assert_eq!(around(9 * HOUR, 11 * HOUR), open(8 * HOUR));
    assert_eq!(around(HOUR, 27 * HOUR), window(0, DAY), "a day that is complete counts as one");
    assert_eq!(around(-1, 27 * HOUR), window(-DAY, 0));
    // What comes from the future lies with what comes now.
    assert_eq!(around(90 * DAY, 27 * HOUR), open(DAY));
    let short = Windows::new(Some(20 * HOUR), HOUR);
    assert_eq!(short.around(HOUR, DAY), window(0, 2 * HOUR), "a tenth of the retention");
    let endless = Windows::new(None, HOUR);
    let first = endless.around(model::MILLIS_MAX - 5 * 4_096 * DAY, model::MILLIS_MAX);
    assert_eq!(first.last_ms + 1 - first.first_ms, 4_096 * DAY);
}

/// Flushes every two hours: merged when a window is complete, and again when a day is; hardly anything is written more
/// than twice beside its flush.
#[test]
fn ordinary_flushes_are_merged_by_windows() {
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    let mut segments: Vec<SegmentEntry> = Vec::new();
    let (mut story, mut written) = (Vec::new(), 0);
    for id in 1..=120i64 {
        let now = id * 2 * HOUR + 1_000;
        segments.push(flushed(id as u64, now - 2 * HOUR, now - 1, 100));
        while let Some(chosen) = choose(&segments, ALONE, now, &windows, &BTreeSet::new()) {
            story.push((now / HOUR, chosen.len()));
            written += chosen.iter().map(|entry| entry.bytes).sum::<u64>();
            carry_out(&mut segments, &chosen, now, &windows);
        }
    }
    assert_eq!(story[..4], [(12, 4), (20, 5), (28, 7), (36, 5)]);
    assert!(written <= 120 * 100 * 9 / 4, "{written}");
    // Nine days, and of the tenth the windows and flushes since.
    assert!(segments.len() <= 9 + 8, "{segments:?}");
}

/// Late samples reach into windows long past: they are put by, and a day is rewritten for them only once they are
/// worth it.
#[test]
fn late_samples_do_not_rewrite_a_day_each_time() {
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    let mut segments = vec![flushed(1, 0, DAY - 1, 1 << 30)];
    let mut rewritten = 0;
    for id in 2..100u64 {
        let now = 5 * DAY + id as i64 * 2 * HOUR;
        segments.push(flushed(id, 0, DAY - 1, 1 << 20));
        while let Some(chosen) = choose(&segments, ALONE, now, &windows, &BTreeSet::new()) {
            rewritten += usize::from(chosen.iter().any(|entry| entry.bytes >= 1 << 30));
            carry_out(&mut segments, &chosen, now, &windows);
        }
        assert!(segments.len() <= 8, "{segments:?}");
    }
    assert!(rewritten <= 98 / 7 + 1, "{rewritten}");
}

#[test]
fn what_lies_between_is_merged_too_or_nothing_is() {
    let now = 10 * DAY;
    // 1 and 3 are of one window; 2 is newer than 1, older than 3, and reaches into it.
    let between = flushed(2, HOUR, now, 150);
    let segments = [flushed(1, 0, DAY - 1, 100), between, flushed(3, 0, HOUR, 100)];
    assert_eq!(choose_of(&segments, now), [1, 2, 3]);
    let elsewhere = [segments[0], flushed(2, now, now, 400), segments[2]];
    assert_eq!(choose_of(&elsewhere, now), [1, 3]);
    let unmergeable = BTreeSet::from([2]);
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    assert_eq!(ids(choose(&segments, ALONE, now, &windows, &unmergeable)), Vec::<u64>::new());
    // A piece of the same merge as the newest: where it is equally new and holds what 1 holds, too, 1 is older.
    let sibling = SegmentEntry { newest: 3, ..flushed(9, HOUR + 1, now, 400) };
    assert_eq!(choose_of(&[segments[0], segments[2], sibling], now), [1, 3, 9]);
}

#[test]
fn one_merge_is_bounded_and_so_is_a_crowd() {
    let now = 10 * DAY + 4 * HOUR;
    let crowd: Vec<SegmentEntry> = (1..=15).map(|id| flushed(id, now - 1_000, now, 100)).collect();
    assert_eq!(choose_of(&crowd, now), Vec::<u64>::new(), "fifteen are no crowd");
    let crowd: Vec<SegmentEntry> = (1..=16).map(|id| flushed(id, now - 1_000, now, 100)).collect();
    assert_eq!(choose_of(&crowd, now).len(), 16);
    let large: Vec<SegmentEntry> =
        (1..=16).map(|id| flushed(id, now - 1_000, now, INPUT_BYTES_MAX / 3)).collect();
    assert_eq!(choose_of(&large, now), [14, 15, 16]);
    let too_large: Vec<SegmentEntry> =
        (1..=16).map(|id| flushed(id, now - 1_000, now, INPUT_BYTES_MAX)).collect();
    assert_eq!(choose_of(&too_large, now), Vec::<u64>::new());
}

#[test]
fn a_segment_of_another_count_is_rewritten_by_one_shard() {
    let of_three = SegmentEntry { shards: 3, shard: 2, ..flushed(1, 0, HOUR, 10) };
    let windows = Windows::new(None, HOUR);
    let by = |shard| ids(choose(&[of_three], Owner { shard, shards: 2 }, DAY, &windows, &BTreeSet::new()));
    assert_eq!((by(0), by(1)), (vec![1], vec![]));
}

/// What a merge leaves, as far as entries tell: a piece in each window that its sources reach into.
fn carry_out(segments: &mut Vec<SegmentEntry>, chosen: &[SegmentEntry], now_ms: i64, windows: &Windows) {
    let newest = chosen.iter().map(|entry| entry.newest).max().unwrap();
    let mut next_id = segments.iter().map(|entry| entry.id).max().unwrap() + 1_000;
    let mut pieces: BTreeMap<Window, SegmentEntry> = BTreeMap::new();
    for entry in chosen {
        let mut ms = entry.min_ms;
        while ms <= entry.max_ms {
            let window = windows.around(ms, now_ms);
            let end_ms = entry.max_ms.min(window.last_ms);
            let length = (entry.max_ms - entry.min_ms + 1) as u128;
            let bytes = (u128::from(entry.bytes) * (end_ms - ms + 1) as u128 / length) as u64;
            let piece = pieces.entry(window).or_insert_with(|| {
                next_id += 1;
                SegmentEntry { newest, ..flushed(next_id, ms, end_ms, 0) }
            });
            piece.min_ms = piece.min_ms.min(ms);
            piece.max_ms = piece.max_ms.max(end_ms);
            piece.bytes += bytes;
            ms = end_ms.saturating_add(1);
        }
    }
    segments.retain(|entry| !chosen.iter().any(|gone| gone.id == entry.id));
    segments.extend(pieces.into_values());
}

proptest! {
    /// Whatever is flushed and whenever it is looked at: merging comes to an end, nothing that is left out lies
    /// between what is chosen, and no window keeps many segments.
    #[test]
    fn any_flushes_are_merged_in_order_and_to_an_end(
        flushes in proptest::collection::vec((0i64..20 * DAY, 0i64..3 * DAY, 1u64..2_000), 1..60),
        now_ms in 15 * DAY..40 * DAY,
    ) {
        let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
        let mut segments: Vec<SegmentEntry> = Vec::new();
        let mut merges = 0;
        for (id, (min_ms, length, bytes)) in flushes.into_iter().enumerate() {
            segments.push(flushed(id as u64 + 1, min_ms, min_ms + length, bytes));
            while let Some(chosen) = choose(&segments, ALONE, now_ms, &windows, &BTreeSet::new()) {
                let (oldest, newest) = (chosen[0].newest, chosen[chosen.len() - 1].newest);
                let min_ms = chosen.iter().map(|entry| entry.min_ms).min().unwrap();
                let max_ms = chosen.iter().map(|entry| entry.max_ms).max().unwrap();
                for entry in segments.iter().filter(|entry| !chosen.contains(entry)) {
                    let overlaps = entry.min_ms <= max_ms && entry.max_ms >= min_ms;
                    prop_assert!(!overlaps || entry.newest <= oldest || entry.newest > newest);
                }
                carry_out(&mut segments, &chosen, now_ms, &windows);
                merges += 1;
                prop_assert!(merges < 10_000);
            }
        }
        let mut of_window: BTreeMap<Window, usize> = BTreeMap::new();
        for entry in &segments {
            *of_window.entry(windows.around(entry.min_ms, now_ms)).or_default() += 1;
        }
        prop_assert!(of_window.values().all(|count| *count < 24), "{of_window:?}");
    }
}

type Contents = BTreeMap<(LabelSet, i64), u64>;

fn series(n: u32) -> LabelSet {
    LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap()
}

fn put(store: &mut Store<SimDisk>, n: u32, ms: i64, value: f64) {
    let mut share = Share::default();
    share.define(SeriesNumber(n), MetricKind::Gauge, series(n).as_ref());
    let timestamp = Timestamp::from_millis(ms).unwrap();
    share.push(SeriesNumber(n), Sample { timestamp, value });
    store.apply(0, &share, &mut |_, _, _| {});
}

fn contents(store: &Store<SimDisk>) -> Contents {
    let mut contents = Contents::new();
    let mut selection = store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
    let (mut piece, mut labels) = (Piece::default(), None);
    while ready(selection.next_piece(&mut piece)) {
        labels = piece.begins.as_ref().map(|series| (*series.labels).clone()).or(labels);
        for sample in &piece.samples {
            let labels = labels.clone().expect("a series begins before its samples");
            let twice = contents.insert((labels, sample.timestamp.ticks()), sample.value.to_bits());
            assert_eq!(twice, None);
        }
    }
    let warnings = selection.take_warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
    contents
}

fn open(disk: &SimDisk, shard: usize, shards: usize, entries: &[SegmentEntry]) -> Store<SimDisk> {
    let options = StoreOptions { memory_bytes_max: 16 << 20 };
    let mut store = Store::new(disk.clone(), shard, shards, options, Box::new(|_| 0));
    assert!(ready(store.open_segments(entries)).is_empty());
    store
}

fn flush(store: &mut Store<SimDisk>, disk: &SimDisk, id: u64) -> SegmentEntry {
    let flushed = ready(store.begin_flush(id).unwrap().run(disk)).unwrap();
    let entry = *flushed.entry();
    store.finish_flush(flushed);
    entry
}

/// Above every flush of these tests, and never the same.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Six flushes over two days with values replaced and late ones, of a few hundred series.
fn six_flushes(disk: &SimDisk) -> (Store<SimDisk>, Vec<SegmentEntry>) {
    let mut store = open(disk, 0, 1, &[]);
    let mut entries = Vec::new();
    for id in 1..=6i64 {
        for n in 0..150 {
            for i in 0..20 {
                put(&mut store, n, (id * 8 + i % 12) * HOUR, (id * 1_000 + i) as f64);
            }
        }
        entries.push(flush(&mut store, disk, id as u64));
    }
    (store, entries)
}

const TEN_DAYS: i64 = 10 * DAY;

fn begin(store: &Store<SimDisk>, oldest: Timestamp) -> Option<Merge<SimDisk>> {
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    store.begin_merge(TEN_DAYS, oldest, &windows, &BTreeSet::new(), next_id)
}

fn run(merge: &mut Merge<SimDisk>) -> Result<(), MergeError> {
    while ready(merge.step())? {}
    Ok(())
}

#[test]
fn merges_keep_what_queries_show_and_leave_one_segment_per_window() {
    let disk = SimDisk::new(1);
    let (mut store, mut entries) = six_flushes(&disk);
    let before = contents(&store);
    let mut merges = 0;
    while let Some(mut merge) = begin(&store, Timestamp::MIN) {
        run(&mut merge).unwrap();
        let merged = merge.end();
        assert!(contents(&store) == before, "written, not yet switched");
        store.replace_segments(&merged.removed, &merged.added);
        assert!(contents(&store) == before, "switched");
        entries.retain(|entry| !merged.removed.contains(&entry.id));
        entries.extend(merged.entries());
        for removed in merged.removed {
            ready(disk.remove(&crate::segment::segment_path(removed))).unwrap();
        }
        merges += 1;
    }
    assert!((1..=4).contains(&merges), "{merges}");
    let mut days: Vec<(i64, i64)> = entries.iter().map(|e| (e.min_ms / DAY, e.max_ms / DAY)).collect();
    days.sort_unstable();
    assert_eq!(days, [(0, 0), (1, 1), (2, 2)]);
    let mut store = open(&disk, 0, 1, &entries);
    assert!(contents(&store) == before);
    // What comes later is newer than all that was merged, whatever the files' ids are.
    put(&mut store, 1, 9 * HOUR, -1.0);
    let late = flush(&mut store, &disk, 7);
    let store = open(&disk, 0, 1, &[&entries[..], &[late]].concat());
    let at = Timestamp::from_millis(9 * HOUR).unwrap().ticks();
    assert_eq!(contents(&store)[&(series(1), at)], (-1.0f64).to_bits());
}

#[test]
fn what_has_expired_is_not_merged() {
    let disk = SimDisk::new(1);
    let (mut store, _) = six_flushes(&disk);
    let oldest = Timestamp::from_millis(30 * HOUR).unwrap();
    let unexpired = |mut contents: Contents| {
        contents.retain(|(_, ticks), _| *ticks >= oldest.ticks());
        contents
    };
    let before = contents(&store);
    while let Some(mut merge) = begin(&store, oldest) {
        run(&mut merge).unwrap();
        let merged = merge.end();
        assert!(merged.entries().iter().all(|entry| entry.min_ms >= 30 * HOUR));
        store.replace_segments(&merged.removed, &merged.added);
    }
    let after = contents(&store);
    assert!(after.len() < before.len());
    assert!(unexpired(after) == unexpired(before));
}

/// Segments of two shards are rewritten for three, each by one of them, and each owner finds its own.
#[test]
fn segments_of_another_count_are_rewritten_for_each_owner() {
    let disk = SimDisk::new(1);
    let mut entries = Vec::new();
    let mut expected = Contents::new();
    for shard in 0..2 {
        let mut store = open(&disk, shard, 2, &[]);
        let owned = |n: &u32| series(*n).as_ref().hash().slot().owner(2) == shard;
        (0..90).filter(owned).for_each(|n| put(&mut store, n, i64::from(n) * HOUR, f64::from(n)));
        expected.extend(contents(&store));
        entries.push(flush(&mut store, &disk, 1 + shard as u64));
    }
    let mut stores: Vec<Store<SimDisk>> = (0..3).map(|shard| open(&disk, shard, 3, &entries)).collect();
    let mut rewritten = 0;
    for at in 0..3 {
        while let Some(mut merge) = begin(&stores[at], Timestamp::MIN) {
            run(&mut merge).unwrap();
            let merged = merge.end();
            rewritten += merged.removed.iter().filter(|id| **id <= 2).count();
            stores.iter_mut().for_each(|store| store.replace_segments(&merged.removed, &merged.added));
            assert!(merged.entries().iter().all(|entry| entry.shards == 3));
        }
    }
    assert_eq!(rewritten, 2);
    let mut union = Contents::new();
    for (shard, store) in stores.iter().enumerate() {
        for (place, bits) in contents(store) {
            assert_eq!(place.0.as_ref().hash().slot().owner(3), shard);
            assert!(union.insert(place, bits).is_none());
        }
    }
    assert!(union == expected);
}

/// A call that fails anywhere in a merge leaves what was there, and no file behind.
#[test]
fn a_merge_that_fails_leaves_nothing() {
    let calm = SimDisk::new(1);
    let (store, _) = six_flushes(&calm);
    let calls = [Call::Create, Call::Write, Call::Sync, Call::Read];
    let before = calls.map(|call| calm.calls(call));
    run(&mut begin(&store, Timestamp::MIN).unwrap()).unwrap();
    let after = calls.map(|call| calm.calls(call));
    for (at, call) in calls.into_iter().enumerate() {
        for nth in before[at]..after[at] {
            let disk = SimDisk::new(1);
            let (store, entries) = six_flushes(&disk);
            disk.fail(call, nth, Times::Once, std::io::ErrorKind::Other);
            let mut merge = begin(&store, Timestamp::MIN).unwrap();
            let error = run(&mut merge).expect_err("a call failed");
            disk.mend();
            ready(merge.abandon());
            // What cannot be read when it is opened again is our own.
            let names_a_source =
                matches!(error, MergeError::Unreadable { id, .. } if entries.iter().any(|e| e.id == id));
            assert!(names_a_source || matches!(error, MergeError::Unwritable(_)), "{error}");
            let names = ready(disk.list(SEGMENTS_FOLDER)).unwrap();
            assert_eq!(names.len(), entries.len(), "{call:?} {nth}: {names:?}");
        }
    }
}

#[test]
fn damage_ends_a_merge_and_names_the_segment() {
    let disk = SimDisk::new(1);
    let (store, entries) = six_flushes(&disk);
    let chosen = begin(&store, Timestamp::MIN).unwrap().end().removed;
    assert!(chosen.contains(&3), "{chosen:?}");
    disk.flip_bit(&crate::segment::segment_path(3), 8 * (entries[2].bytes / 3));
    let mut merge = begin(&store, Timestamp::MIN).unwrap();
    let error = run(&mut merge).expect_err("a checksum fails");
    assert!(matches!(error, MergeError::Unreadable { id: 3, .. }), "{error}");
}

/// However many windows a merge writes to, and whenever it meets them, their parts of the label index stay within what
/// they may hold together.
/// Method: every series has a sample of one day, some hundred later ones of one more day each.
#[test]
fn the_parts_of_all_windows_are_bounded_together() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    for id in 1..=4 {
        for n in 0..2_000 {
            put(&mut store, n, id * HOUR, 1.0);
            put(&mut store, n, (1 + i64::from(n) / 250) * DAY + id * HOUR, 1.0);
        }
        flush(&mut store, &disk, id as u64);
    }
    let before = contents(&store);
    let bytes_max = 60_000;
    let windows = Windows::new(Some(15 * DAY), 3 * HOUR);
    let merge = store.begin_merge(12 * DAY, Timestamp::MIN, &windows, &BTreeSet::new(), next_id);
    let (mut merge, mut most) = (merge.unwrap().holding_parts_of(bytes_max), 0);
    while ready(merge.step()).unwrap() {
        most = most.max(merge.part_bytes());
    }
    assert!((bytes_max / 2..bytes_max + 9 * 1_000).contains(&most), "{most}");
    let merged = merge.end();
    assert!(merged.added.len() > 6, "{} windows", merged.added.len());
    store.replace_segments(&merged.removed, &merged.added);
    assert!(contents(&store) == before);
}

/// A step is some thousand samples, so whoever carries out a merge may let others have the core often.
#[test]
fn a_step_is_bounded() {
    let disk = SimDisk::new(1);
    let mut store = open(&disk, 0, 1, &[]);
    for id in 1..=4 {
        (0..30_000).for_each(|i| put(&mut store, 1, id * 40_000_000 + i * 1_000, i as f64));
        flush(&mut store, &disk, id as u64);
    }
    let mut merge = begin(&store, Timestamp::MIN).unwrap();
    let mut steps = 0;
    while ready(merge.step()).unwrap() {
        steps += 1;
    }
    assert!(steps >= 120_000 / 5_000, "{steps} steps for 120,000 samples");
}
