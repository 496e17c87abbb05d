use super::*;
use crate::disk::{Call, Disk, DiskFile, SimDisk, Times, ready};
use crate::store::{Piece, Store, StoreOptions};
use model::{Arrival, LabelSet, MetricKind, Sample, SeriesNumber, Share, Stamp, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes_max: 64 << 20 };
const SMALL: Pace = Pace { rows_per_step: 1, block_bytes: 300 };

fn store(disk: &SimDisk) -> Store<SimDisk> {
    Store::new(disk.clone(), 0, 1, OPTIONS, Box::new(|_| 0))
}

fn labels(n: u32) -> LabelSet {
    LabelSet::new(["cpu", "mem"][n as usize % 2], &[("job", "node"), ("n", &n.to_string())]).unwrap()
}

/// A write: which series, when, what.
type Row = (u32, i64, f64);

/// What a loop would send: series are defined where they come for the first time.
fn share(rows: &[Row], known: &mut Vec<u32>, nanos: u64) -> Share {
    let mut share = Share::default();
    (share.stamp, share.dictionary) = (Stamp { run: 1, nanos, loop_index: 0 }, 7);
    for (series, ticks, value) in rows {
        let number = known.iter().position(|other| other == series).unwrap_or_else(|| {
            known.push(*series);
            let number = SeriesNumber(known.len() as u32 - 1);
            share.define(number, MetricKind::Counter, labels(*series).as_ref());
            known.len() - 1
        });
        let sample = Sample { timestamp: Timestamp::from_ticks(*ticks), value: *value };
        share.push(SeriesNumber(number as u32), sample);
    }
    share
}

fn apply(store: &mut Store<SimDisk>, share: &Share) {
    assert_eq!(store.apply(0, share, &mut |_, _, _| {}).unknown, 0);
}

/// Everything: by series its kind, arrival and samples.
type Contents = BTreeMap<LabelSet, (MetricKind, u128, Vec<(i64, u64)>)>;

fn contents(store: &Store<SimDisk>) -> Contents {
    let mut all = Contents::new();
    for name in ["cpu", "mem"] {
        let mut selection = store.select(name, &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut piece, mut at) = (Piece::default(), None);
        while ready(selection.next_piece(&mut piece)) {
            if let Some(series) = &piece.begins {
                let labels = (*series.labels).clone();
                all.insert(labels.clone(), (series.kind, series.arrival.to_bits(), Vec::new()));
                at = Some(labels);
            }
            let samples = piece.samples.iter().map(|s| (s.timestamp.ticks(), s.value.to_bits()));
            if let Some(of) = at.as_ref().and_then(|at| all.get_mut(at)) {
                of.2.extend(samples);
            }
        }
        assert!(selection.take_warnings().is_empty());
    }
    all
}

/// Writes a checkpoint; `meanwhile` is asked before each step.
fn write(
    store: &mut Store<SimDisk>,
    id: u64,
    pace: Pace,
    mut meanwhile: impl FnMut(&mut Store<SimDisk>),
) -> Result<CheckpointEntry, CheckpointError> {
    let mut job = store.begin_checkpoint(id, pace).expect("there is something to write");
    loop {
        meanwhile(store);
        match ready(job.step()) {
            Ok(None) => {}
            Ok(Some(entry)) => return Ok(entry),
            Err(error) => {
                ready(job.abandon());
                return Err(error);
            }
        }
    }
}

fn rows(series: u32, samples: i64) -> Vec<Row> {
    let ticks = |i: i64| (1_700_000_000_000 + 1_000 * i) << 20;
    let all = (0..samples).flat_map(|i| (0..series).map(move |n| (n, i)));
    all.map(|(n, i)| (n, ticks(i) + i64::from(n % 3 == 0), f64::from(n) + (i * 7_919 % 97) as f64 / 8.0))
        .collect()
}

/// A disk with a checkpoint of some series, and what it holds.
fn directory(series: u32, samples: i64) -> (SimDisk, CheckpointEntry, Contents) {
    let disk = SimDisk::new(1);
    let mut store = store(&disk);
    let mut known = Vec::new();
    apply(&mut store, &share(&rows(series, samples), &mut known, 1));
    // Some that come late, one of them in place of another.
    let late: Vec<Row> =
        rows(series, samples).into_iter().step_by(37).map(|(n, t, v)| (n, t, v + 0.5)).collect();
    apply(&mut store, &share(&late, &mut known, 2));
    let entry = write(&mut store, 3, SMALL, |_| {}).unwrap();
    let held = contents(&store);
    (disk, entry, held)
}

fn load(disk: &SimDisk, entry: &CheckpointEntry) -> (Store<SimDisk>, Vec<CheckpointError>) {
    let mut again = store(disk);
    let loaded = ready(again.load_checkpoint(entry)).unwrap();
    (again, loaded.damaged)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes while a checkpoint is written, and whatever comes after it, replay over it ends where the memory was:
    /// in what is stored, in what it costs, and in how appending goes on.
    #[test]
    fn replay_over_a_checkpoint_ends_where_the_memory_was(
        // Some series have few samples, one has many late ones.
        writes in proptest::collection::vec((prop_oneof![Just(0u32), 0u32..6], 0i64..150, 0u8..4), 3..600),
        cut in 0usize..200,
        per_step in 0usize..4,
        block_bytes in prop_oneof![Just(60usize), Just(400), Just(1 << 16)],
    ) {
        let shares: Vec<Vec<Row>> = writes
            .chunks(3)
            .map(|rows| rows.iter().map(|(n, t, v)| (*n, t << 19, f64::from(*v))).collect())
            .collect();
        let cut = cut % shares.len();
        let disk = SimDisk::new(1);
        let mut one = store(&disk);
        let mut known = Vec::new();
        let mut at = 0;
        let mut next = |store: &mut Store<SimDisk>, known: &mut Vec<u32>| {
            if let Some(rows) = shares.get(at) {
                at += 1;
                apply(store, &share(rows, known, at as u64));
            }
        };
        (0..=cut).for_each(|_| next(&mut one, &mut known));
        let known_at_cut = known.clone();
        let pace = Pace { rows_per_step: 1, block_bytes };
        let entry = write(&mut one, 3, pace, |store| (0..per_step).for_each(|_| next(store, &mut known))).unwrap();
        for _ in 0..shares.len() {
            next(&mut one, &mut known);
        }
        let (mut again, damaged) = load(&disk, &entry);
        prop_assert!(damaged.is_empty(), "{:?}", damaged);
        let numbers = again.known_numbers();
        prop_assert_eq!(numbers[0].owned.len(), known_at_cut.len());
        let mut known = known_at_cut;
        for (nth, rows) in shares.iter().enumerate().skip(cut + 1) {
            apply(&mut again, &share(rows, &mut known, nth as u64 + 1));
        }
        prop_assert_eq!(contents(&again), contents(&one));
        let later: Vec<Row> = (0..6).map(|n| (n, 1 << 40, 9.0)).collect();
        for store in [&mut one, &mut again] {
            apply(store, &share(&later, &mut known.clone(), 1_000));
        }
        prop_assert_eq!(contents(&again), contents(&one));
    }
}

#[test]
fn a_checkpoint_brings_back_samples_labels_index_and_account() {
    let (disk, entry, held) = directory(40, 400);
    let (again, damaged) = load(&disk, &entry);
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(contents(&again), held);
    assert_eq!(again.series_count(), 40);
    assert_eq!(again.known_numbers()[0].owned, [true; 40]);
    assert!(!again.wants_new_dictionaries());
    // What is flushed of it is what was held.
    let mut again = again;
    let job = again.begin_flush(9).unwrap();
    let flushed = ready(job.run(&disk)).unwrap();
    again.finish_flush(flushed);
    drop(job);
    assert_eq!(contents(&again), held);
    assert_eq!(again.memory().samples, 0, "all of it was on the account");
}

#[test]
fn a_freeze_or_forgotten_series_end_a_checkpoint() {
    let disk = SimDisk::new(1);
    let mut of = store(&disk);
    assert!(of.begin_checkpoint(1, Pace::default()).is_none(), "there is nothing");
    apply(&mut of, &share(&rows(9, 3), &mut Vec::new(), 1));
    let mut steps = 0;
    let frozen = write(&mut of, 1, SMALL, |store| {
        steps += 1;
        if steps == 4 {
            assert!(store.begin_flush(2).is_some());
        }
    });
    assert!(matches!(frozen, Err(CheckpointError::Superseded)), "{frozen:?}");
    assert!(of.begin_checkpoint(3, Pace::default()).is_none(), "a part of memory is on its way");
    assert_eq!(ready(disk.list(CHECKPOINTS_FOLDER)).unwrap(), [""; 0], "the file is gone");

    let mut of = store(&disk);
    let (mut known, mut steps) = (Vec::new(), 0);
    apply(&mut of, &share(&rows(9, 3), &mut known, 1));
    let mut idle = Share::default();
    idle.dictionary = 7;
    idle.define(SeriesNumber(50), MetricKind::Gauge, labels(50).as_ref());
    apply(&mut of, &idle);
    let forgotten = write(&mut of, 4, SMALL, |store| {
        steps += 1;
        if steps == 4 {
            store.begin_dictionary(0, 8);
            assert_eq!(store.forget_idle().len(), 1);
        }
    });
    assert!(matches!(forgotten, Err(CheckpointError::Superseded)), "{forgotten:?}");
}

/// Each bit of a small checkpoint, turned once: it is told, and what is then in memory is a part of what was; or nothing
/// is lost. Never another value, never another series, and what is lost is a block, not the rest.
#[test]
fn each_turned_bit_is_noticed_or_harmless() {
    let (disk, entry, held) = directory(7, 30);
    let samples = |contents: &Contents| contents.values().map(|(_, _, samples)| samples.len()).sum::<usize>();
    let bytes = disk.contents(&checkpoint_path(entry.id)).unwrap();
    let (mut silent, mut lost_most) = (0, 0);
    for bit in 0..bytes.len() as u64 * 8 {
        assert!(disk.flip_bit(&checkpoint_path(entry.id), bit));
        let mut again = store(&disk);
        match ready(again.load_checkpoint(&entry)) {
            Ok(loaded) => {
                let left = contents(&again);
                if loaded.damaged.is_empty() {
                    silent += 1;
                    assert_eq!(left, held, "bit {bit}");
                    assert_eq!(bytes[bit as usize / 8], 0, "only padding is not under a checksum");
                } else {
                    assert!(again.known_numbers().is_empty(), "bit {bit}");
                }
                for (labels, (kind, arrival, samples)) in &left {
                    let of = &held[labels];
                    assert_eq!((*kind, *arrival), (of.0, of.1), "bit {bit}");
                    // A late sample may be lost, and then the one that it replaced is seen again.
                    let is_late =
                        |ticks: i64| rows(7, 30).into_iter().step_by(37).any(|(_, t, _)| t == ticks);
                    let is_right = |(t, v): &(i64, u64)| {
                        of.2.iter().any(|(at, value)| at == t && (value == v || is_late(*t)))
                    };
                    assert!(samples.iter().all(is_right), "bit {bit}");
                }
                lost_most = lost_most.max(samples(&held) - samples(&left));
            }
            Err(error) => panic!("bit {bit}: {error}"),
        }
        assert!(disk.flip_bit(&checkpoint_path(entry.id), bit));
    }
    assert!(silent < 8 * 8 * 40 && lost_most * 2 < samples(&held), "{silent} {lost_most}");
}

/// What is damaged is named: file, place, how many series and which time.
#[test]
fn a_damaged_block_costs_itself_and_is_named() {
    let (disk, entry, held) = directory(40, 50);
    let path = checkpoint_path(entry.id);
    assert!(disk.flip_bit(&path, entry.bytes / 2 * 8));
    let (again, damaged) = load(&disk, &entry);
    let [error] = &damaged[..] else { panic!("{damaged:?}") };
    let text = error.to_string();
    assert!(text.starts_with("checkpoints/0000000000000003.checkpoint is damaged at offset "), "{text}");
    assert!(
        text.contains("held samples of ")
            && text.contains(" that stand behind ")
            && text.ends_with(" in the file"),
        "{text}"
    );
    let CheckpointError::Damaged { lost, .. } = error else { panic!("{error:?}") };
    assert!(lost.millis.is_some_and(|(from, to)| from < to && from >= 1_700_000_000_000), "{lost:?}");
    let left = contents(&again);
    assert!(left.len() >= 37 && left.len() < held.len(), "{} series are left", left.len());
    assert!(left.iter().all(|(labels, series)| held[labels] == *series), "the rest is whole");
}

#[test]
fn a_file_that_is_missing_cut_or_another_is_damage_of_what_is_not_there() {
    let (disk, entry, held) = directory(40, 50);
    let path = checkpoint_path(entry.id);
    let file = ready(disk.open(&path)).unwrap();
    for len in [entry.bytes - 8, entry.bytes / 2, 40, 10, 0] {
        ready(file.truncate(len)).unwrap();
        let (again, damaged) = load(&disk, &entry);
        assert!(!damaged.is_empty(), "{len} bytes");
        assert!(contents(&again).iter().all(|(labels, series)| held[labels].2.len() >= series.2.len()));
    }
    ready(disk.remove(&path)).unwrap();
    let (again, damaged) = load(&disk, &entry);
    assert!(damaged[0].to_string().contains("missing") && contents(&again).is_empty());

    let (disk, entry, _) = directory(3, 5);
    let other = CheckpointEntry { shard: 1, shards: 2, ..entry };
    let (again, damaged) = load(&disk, &other);
    assert!(damaged[0].to_string().contains("another checkpoint") && contents(&again).is_empty());
}

/// A disk that refuses to read a checkpoint from some place on costs what lies there, and is told.
/// Method: each read of a load fails, of a file that takes several.
#[test]
fn what_the_disk_does_not_give_is_told_and_the_rest_is_loaded() {
    let (disk, entry, held) = directory(200, 3_000);
    let samples = |contents: &Contents| contents.values().map(|(_, _, samples)| samples.len()).sum::<usize>();
    let before = disk.calls(Call::Read);
    load(&disk, &entry);
    let reads = disk.calls(Call::Read) - before;
    assert!(reads > 2, "{reads}");
    // Behind the head's, the one that asks how many series will come.
    const LOOK_AHEAD: u64 = 1;
    let mut left_before = 0;
    for nth in 0..reads {
        disk.fail(Call::Read, disk.calls(Call::Read) + nth, Times::Once, std::io::ErrorKind::Other);
        let (again, damaged) = load(&disk, &entry);
        if nth == LOOK_AHEAD {
            assert!(damaged.is_empty() && contents(&again) == held, "it only makes room");
            continue;
        }
        assert!(matches!(damaged.last(), Some(CheckpointError::Io { .. })), "{damaged:?}");
        assert!(again.known_numbers().is_empty());
        let left = contents(&again);
        assert!(left.iter().all(|(labels, series)| held[labels].2.len() >= series.2.len()));
        assert!(samples(&left) >= left_before && samples(&left) < samples(&held));
        left_before = samples(&left);
    }
    assert!(left_before > 0);
}

#[test]
fn an_older_version_is_read_and_a_newer_one_told_by_its_number() {
    let (disk, entry, _) = directory(3, 5);
    let file = ready(disk.open(&checkpoint_path(entry.id))).unwrap();
    let load = |version: u8| {
        let mut head = ready(file.read_at(0, layout::HEAD_BYTES)).unwrap();
        head[8] = version;
        let crc = crc32c::crc32c(&head[..layout::HEAD_BYTES - 4]);
        head[layout::HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        ready(file.write_at(0, &head)).unwrap();
        ready(store(&disk).load_checkpoint(&entry))
    };
    // What is in it says itself which version wrote it.
    assert_eq!(load(1).unwrap().series, 3);
    let error = load(3).unwrap_err();
    assert!(matches!(error, CheckpointError::OtherVersion { version: 3, .. }), "{error}");
}

/// A series whose middle or end is lost goes on taking samples, and shows the last value of each time.
/// Method: one series over many blocks; each block damaged in turn; then the same samples come again.
#[test]
fn a_series_that_was_torn_apart_is_a_series_again() {
    let disk = SimDisk::new(1);
    let mut of = store(&disk);
    let mut known = Vec::new();
    let mut all = rows(1, 2_000);
    apply(&mut of, &share(&all, &mut known, 1));
    let late: Vec<Row> = all.iter().step_by(3).map(|(n, t, v)| (*n, t + 5, -v)).collect();
    apply(&mut of, &share(&late, &mut known, 2));
    all.extend(late);
    let entry = write(&mut of, 3, Pace { rows_per_step: 1, block_bytes: 1_000 }, |_| {}).unwrap();
    for byte in (40..entry.bytes).step_by(700) {
        assert!(disk.flip_bit(&checkpoint_path(entry.id), byte * 8 + 1));
        let (mut again, _) = load(&disk, &entry);
        apply(&mut again, &share(&all, &mut Vec::new(), 5));
        assert_eq!(contents(&again).values().next().unwrap().2, contents(&of).values().next().unwrap().2);
        assert!(disk.flip_bit(&checkpoint_path(entry.id), byte * 8 + 1));
    }
}

/// A disk that refuses any call of it costs the checkpoint, and its file.
#[test]
fn a_call_that_fails_ends_a_checkpoint_and_leaves_nothing() {
    use crate::disk::Call;
    for (call, nth) in
        [(Call::Create, 0), (Call::Write, 0), (Call::Sync, 0), (Call::Sync, 1), (Call::Sync, 2)]
    {
        let disk = SimDisk::new(1);
        let mut of = store(&disk);
        apply(&mut of, &share(&rows(40, 40), &mut Vec::new(), 1));
        disk.fail(call, disk.calls(call) + nth, Times::Once, std::io::ErrorKind::StorageFull);
        let error = write(&mut of, 3, SMALL, |_| {}).unwrap_err();
        assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
        assert!(!disk.files().iter().any(|path| path.ends_with(".checkpoint")), "{call:?} {nth}");
        disk.mend();
        assert!(write(&mut of, 4, SMALL, |_| {}).is_ok());
    }
}

/// The file holds these blocks and no others, its sums right.
fn with_blocks(
    disk: &SimDisk,
    entry: CheckpointEntry,
    kind: layout::BlockKind,
    payloads: &[Vec<u8>],
) -> CheckpointEntry {
    let file = ready(disk.open(&checkpoint_path(entry.id))).unwrap();
    ready(file.truncate(32)).unwrap();
    let mut at = 32;
    for payload in payloads {
        let (payload_bytes, payload_crc) = (payload.len() as u32, crc32c::crc32c(payload));
        let head = layout::BlockHead { kind, payload_bytes, series: 1, payload_crc, min_ms: 0, max_ms: 1 };
        let mut bytes = head.encode(entry.id, at).to_vec();
        bytes.extend(payload);
        bytes.resize(head.block_bytes(), 0);
        ready(file.write_at(at, &bytes)).unwrap();
        at += bytes.len() as u64;
    }
    CheckpointEntry { bytes: at, ..entry }
}

/// A block of series with these ids and labels, a sample each.
fn block_of(series: &[(u32, u32)]) -> Vec<u8> {
    let mut block = SeriesBlock::with_target(1 << 16);
    for (id, n) in series {
        block.begin_series(*id, labels(*n).as_ref(), MetricKind::Gauge, Arrival::from_bits(7));
        block.late(&[Sample { timestamp: Timestamp::from_ticks(5), value: 1.0 }]);
    }
    let mut payload = Vec::new();
    block.take(&mut payload);
    payload
}

/// One label set is one series: a file that says otherwise, though its sums are right, is not used at all.
#[test]
fn a_label_set_that_is_there_twice_is_refused_with_the_whole_file() {
    let (disk, entry, _) = directory(3, 5);
    let blocks = [block_of(&[(0, 1), (3, 2)]), block_of(&[(4, 1)])];
    let entry = with_blocks(&disk, entry, layout::BlockKind::Series, &blocks);
    let (mut again, damaged) = load(&disk, &entry);
    assert!(damaged.iter().any(|error| error.to_string().contains("there twice")), "{damaged:?}");
    assert_eq!((contents(&again).len(), again.memory().bytes()), (0, store(&disk).memory().bytes()));
    apply(&mut again, &share(&rows(3, 4), &mut Vec::new(), 9));
    assert_eq!(contents(&again).len(), 3);
}

/// A series that goes on in the next block is the one that was begun, or the block is refused.
#[test]
fn a_series_that_goes_on_has_the_labels_with_which_it_began() {
    for (n, is_refused) in [(1, false), (2, true)] {
        let (disk, entry, _) = directory(3, 5);
        let blocks = [block_of(&[(0, 1)]), block_of(&[(0, n)])];
        let (again, damaged) = load(&disk, &with_blocks(&disk, entry, layout::BlockKind::Series, &blocks));
        // There is no last block, which is told where nothing else is.
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert_eq!(damaged[0].to_string().contains("does not follow"), is_refused, "{damaged:?}");
        assert_eq!(contents(&again).len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Payloads that pass their sum and are anything: told or taken, never a panic, and the store goes on.
    #[test]
    fn any_payload_is_refused_or_taken(
        kind in 1u32..4,
        payload in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..300),
    ) {
        let (disk, entry, _) = directory(3, 5);
        let kind = match kind {
            1 => layout::BlockKind::Numbers,
            2 => layout::BlockKind::Series,
            _ => layout::BlockKind::End,
        };
        let entry = with_blocks(&disk, entry, kind, &[payload]);
        let (mut again, _) = load(&disk, &entry);
        apply(&mut again, &share(&rows(3, 4), &mut Vec::new(), 9));
        let _ = contents(&again);
    }
}
