use super::*;
use crate::compact::Windows;
use crate::disk::{Disk as _, SimDisk, ready};
use crate::manifest::Manifest;
use crate::segment::segment_path;
use crate::store::{Piece, Store, StoreOptions};
use model::{LabelSet, MetricKind, SeriesNumber, Share};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

type Contents = BTreeMap<(u32, i64), u64>;

/// A store with its manifest, as a keeper keeps it; without journals, so what is not flushed is lost.
struct Kept {
    disk: SimDisk,
    store: Store<SimDisk>,
    manifest: Manifest,
}

fn series(n: u32) -> LabelSet {
    LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap()
}

impl Kept {
    fn open(disk: &SimDisk) -> io::Result<Kept> {
        let loaded = ready(Manifest::load(disk)).map_err(|error| io::Error::other(error.to_string()))?;
        let manifest = loaded.unwrap_or_else(|| Manifest::new(1));
        let options = StoreOptions { memory_bytes_max: 16 << 20 };
        let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
        if let Some(error) = ready(store.open_segments(&manifest.segments)).pop() {
            return Err(io::Error::other(error.to_string()));
        }
        store.add_deletes(manifest.deletes.iter().map(|of| Delete::new(of.clone()).unwrap()).collect());
        Ok(Kept { disk: disk.clone(), store, manifest })
    }

    /// What the segments hold, as if nothing had been deleted.
    fn without_deletes(&self) -> Kept {
        let options = StoreOptions { memory_bytes_max: 16 << 20 };
        let mut store = Store::new(self.disk.clone(), 0, 1, options, Box::new(|_| 0));
        assert!(ready(store.open_segments(&self.manifest.segments)).is_empty());
        Kept { disk: self.disk.clone(), store, manifest: self.manifest.clone() }
    }

    fn put(&mut self, n: u32, ms: i64, value: u64) {
        let mut share = Share::default();
        share.define(SeriesNumber(n), MetricKind::Gauge, series(n).as_ref());
        let timestamp = Timestamp::from_millis(ms).unwrap();
        share.push(SeriesNumber(n), Sample { timestamp, value: f64::from_bits(value) });
        self.store.apply(0, &share, &mut |_, _, _| {});
    }

    fn next_id(&mut self) -> u64 {
        self.manifest.next_segment += 1;
        self.manifest.next_segment
    }

    /// A flush, and the delete that goes with it.
    fn flush(&mut self, delete: Option<(&str, i64, i64)>) -> io::Result<()> {
        let id = self.next_id();
        let flushed = match self.store.begin_flush(id) {
            Some(job) => {
                Some(ready(job.run(&self.disk)).map_err(|error| io::Error::other(error.to_string()))?)
            }
            None => None,
        };
        self.manifest.segments.extend(flushed.iter().map(|flushed| *flushed.entry()));
        let id = self.next_id();
        let tombstone = delete.map(|(selector, start_ms, end_ms)| Tombstone {
            id,
            shards: 1,
            shard: 0,
            start_ms,
            end_ms,
            selector: selector.to_owned(),
        });
        self.manifest.deletes.extend(tombstone.clone());
        self.manifest.forget_deletes();
        ready(self.manifest.store(&self.disk))?;
        flushed.into_iter().for_each(|flushed| self.store.finish_flush(flushed));
        self.store.add_deletes(tombstone.into_iter().map(|of| Delete::new(of).unwrap()).collect());
        Ok(())
    }

    /// All merges that are worth it, cleaning included; how many there were.
    fn merge(&mut self, now_ms: i64) -> io::Result<usize> {
        let windows = Windows::new(Some(600), 10);
        for merges in 0.. {
            let mut id = self.manifest.next_segment;
            self.manifest.next_segment += 100;
            let next_id = move || {
                id += 1;
                id
            };
            let merge = self.store.begin_merge(now_ms, Timestamp::MIN, &windows, &BTreeSet::new(), next_id);
            let Some(mut merge) = merge else { return Ok(merges) };
            assert!(merges < 100, "it comes to an end");
            while ready(merge.step()).map_err(|error| io::Error::other(error.to_string()))? {}
            let merged = merge.end();
            self.manifest.segments.retain(|entry| !merged.removed.contains(&entry.id));
            self.manifest.segments.extend(merged.entries());
            self.manifest.forget_deletes();
            ready(self.manifest.store(&self.disk))?;
            self.store.replace_segments(&merged.removed, &merged.added);
            for id in merged.removed {
                ready(self.disk.remove(&segment_path(id)))?;
            }
        }
        Ok(0)
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        let mut selection = self.store.select("cpu", &[], Timestamp::MIN, Timestamp::MAX, Timestamp::MIN);
        let (mut piece, mut n) = (Piece::default(), 0);
        while ready(selection.next_piece(&mut piece)) {
            if let Some(begun) = &piece.begins {
                n = (*begun.labels).as_ref().get("n").parse().unwrap();
            }
            for sample in &piece.samples {
                contents.insert((n, sample.timestamp.millis()), sample.value.to_bits());
            }
        }
        let warnings = selection.take_warnings();
        assert!(warnings.is_empty(), "{warnings:?}");
        contents
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, i64),
    Flush,
    Delete { n: Option<u32>, start_ms: i64, length_ms: i64 },
    Merge { now_ms: i64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0u32..4;
    let step = prop_oneof![
        30 => (n(), 0i64..600).prop_map(|(n, ms)| Step::Put(n, ms)),
        3 => Just(Step::Flush),
        3 => (proptest::option::of(n()), 0i64..600, 0i64..300)
            .prop_map(|(n, start_ms, length_ms)| Step::Delete { n, start_ms, length_ms }),
        2 => (300i64..2_000).prop_map(|now_ms| Step::Merge { now_ms }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What a delete hides is what a map loses at that moment: nothing of it comes back by a flush, a merge or a
    /// restart, and what is sent later at the same time stays.
    #[test]
    fn a_delete_takes_what_was_there_and_nothing_else(steps in steps()) {
        let disk = SimDisk::new(5);
        let mut kept = Kept::open(&disk).unwrap();
        let (mut model, mut value) = (Contents::new(), 0);
        for step in steps {
            match step {
                Step::Put(n, ms) => {
                    value += 1;
                    kept.put(n, ms, value);
                    model.insert((n, ms), value);
                }
                Step::Flush => kept.flush(None).unwrap(),
                Step::Delete { n, start_ms, length_ms } => {
                    let selector = n.map_or(r#"{__name__="cpu"}"#.to_owned(), |n| format!(r#"{{n="{n}"}}"#));
                    let end_ms = start_ms + length_ms;
                    kept.flush(Some((&selector, start_ms, end_ms))).unwrap();
                    model.retain(|(of, ms), _| n.is_some_and(|n| n != *of) || !(start_ms..=end_ms).contains(ms));
                }
                Step::Merge { now_ms } => {
                    kept.merge(now_ms).unwrap();
                    // Nothing that was deleted lies in a file any more, whoever reads it without the manifest.
                    let on_disk = kept.without_deletes().contents();
                    prop_assert!(on_disk.keys().all(|place| model.contains_key(place)), "{on_disk:?}");
                }
                Step::Restart => {
                    kept.flush(None).unwrap();
                    kept = Kept::open(&disk).unwrap();
                }
            }
            prop_assert_eq!(&kept.contents(), &model);
        }
    }
}

/// A power cut anywhere between two deletes, with merges in between, leaves all of a delete or nothing of it.
/// Method: count the operations of the run, then run it again once per operation, cutting there.
#[test]
fn a_cut_anywhere_leaves_a_delete_whole_or_undone() {
    fn run(disk: &SimDisk, states: &mut Vec<Contents>) -> io::Result<()> {
        let mut kept = Kept::open(disk)?;
        for round in 0..4 {
            (0..3).for_each(|n| {
                (0..40).for_each(|i| kept.put(n, round * 100 + i * 5, (round * 50 + i) as u64))
            });
            states.push(kept.contents());
            kept.flush(None)?;
        }
        for (selector, start_ms, end_ms) in [(r#"{n="1"}"#, 50, 300), (r#"{__name__="cpu",n!="0"}"#, 0, 120)]
        {
            (0..3).for_each(|n| kept.put(n, 1_000, 7));
            let mut after = kept.contents();
            let n = |n: u32| if selector.contains("!=") { n != 0 } else { n == 1 };
            after.retain(|(of, ms), _| !(n(*of) && (start_ms..=end_ms).contains(ms)));
            states.push(after);
            kept.flush(Some((selector, start_ms, end_ms)))?;
            kept.merge(500)?;
        }
        Ok(())
    }
    let calm = SimDisk::new(1);
    let mut states = vec![Contents::new()];
    run(&calm, &mut states).unwrap();
    for cut in 0..calm.operations() {
        for seed in 0..4 {
            let disk = SimDisk::cutting_at(1, cut);
            let mut states = vec![Contents::new()];
            let _ = run(&disk, &mut states);
            let left = Kept::open(&disk.after_power_cut(seed)).unwrap().contents();
            let newest = states.len();
            let possible = &states[newest.saturating_sub(2)..];
            assert!(possible.contains(&left), "cut at {cut}, seed {seed}: {left:?}");
        }
    }
}

/// A delete that is asked for while a merge is under way, which began without knowing of it, holds for what that merge
/// leaves.
#[test]
fn a_merge_that_began_before_a_delete_does_not_bring_it_back() {
    let disk = SimDisk::new(1);
    let mut kept = Kept::open(&disk).unwrap();
    for round in 0..4 {
        (0..3).for_each(|n| (0..50).for_each(|i| kept.put(n, i * 10, (round * 50 + i) as u64)));
        kept.flush(None).unwrap();
    }
    let windows = Windows::new(Some(600), 10);
    let ids = kept.next_id()..;
    let mut ids = ids.into_iter();
    kept.manifest.next_segment += 100;
    let next_id = move || ids.next().expect("there is no end of them");
    let merge = kept.store.begin_merge(2_000, Timestamp::MIN, &windows, &BTreeSet::new(), next_id);
    let mut merge = merge.expect("all of it is of windows that are complete");
    assert!(ready(merge.step()).unwrap());
    kept.flush(Some((r#"{n="1"}"#, 0, 299))).unwrap();
    while ready(merge.step()).unwrap() {}
    let merged = merge.end();
    kept.manifest.segments.retain(|entry| !merged.removed.contains(&entry.id));
    kept.manifest.segments.extend(merged.entries());
    kept.manifest.forget_deletes();
    ready(kept.manifest.store(&disk)).unwrap();
    kept.store.replace_segments(&merged.removed, &merged.added);
    let is_gone = |kept: &Kept| kept.contents().keys().all(|(n, ms)| *n != 1 || *ms >= 300);
    assert!(is_gone(&kept));
    assert!(is_gone(&Kept::open(&disk).unwrap()), "after a restart");
    assert!(!is_gone(&kept.without_deletes()), "it is on the disk and hidden");
    assert!(kept.merge(2_000).unwrap() > 0);
    assert!(is_gone(&kept.without_deletes()), "and gone with the next merge");
    assert_eq!(kept.contents().len(), 150 - 30);
}

/// A segment that is most of the disk is not written anew for a delete alone: both would lie there together.
#[test]
fn cleaning_takes_a_tenth_of_the_disk_at_most() {
    use crate::compact::{Owner, choose_to_clean};
    let entry = |id: u64, bytes| SegmentEntry {
        id,
        shards: 1,
        shard: 0,
        min_ms: 0,
        max_ms: 9,
        bytes,
        newest: id,
        deletes_through: 0,
    };
    let owner = Owner { shard: 0, shards: 1 };
    let clean = |segments: &[SegmentEntry], with_deleted: &[u64]| {
        let with_deleted = with_deleted.iter().copied().collect();
        choose_to_clean(segments, owner, &with_deleted, &BTreeSet::new()).map(|entry| entry.id)
    };
    let large = [entry(1, 8 << 30), entry(2, 1 << 30), entry(3, 2 << 30)];
    assert_eq!(clean(&large, &[1, 2, 3]), Some(2));
    assert_eq!(clean(&large, &[1, 3]), None);
    assert_eq!(clean(&[entry(1, 60 << 20)], &[1]), Some(1), "small ones are no burden");
    assert_eq!(clean(&large, &[]), None);
}

/// A request is a delete of each shard's own, placed among that shard's flushes: of a segment of another count, which
/// holds series of all of them, each hides its own.
#[test]
fn a_delete_hides_series_of_its_own_shard_alone() {
    let sets: Vec<LabelSet> =
        (0..40).map(|n| LabelSet::new("cpu", &[("n", &n.to_string())]).unwrap()).collect();
    let segment = SegmentEntry {
        id: 3,
        shards: 4,
        shard: 0,
        min_ms: 0,
        max_ms: 10,
        bytes: 0,
        newest: 3,
        deletes_through: 0,
    };
    let of_shard = |shard| {
        let selector = r#"{__name__="cpu"}"#.to_owned();
        Delete::new(Tombstone { id: 9, shards: 2, shard, start_ms: 0, end_ms: 10, selector }).unwrap()
    };
    for shard in 0..2 {
        let deletes = [of_shard(shard)];
        for set in &sets {
            let labels = set.as_ref();
            let is_its_own = labels.hash().slot().owner(2) == usize::from(shard);
            let hidden = Hidden::of(&deletes, &segment, labels);
            assert_eq!(!hidden.0.is_empty(), is_its_own, "{labels:?}");
        }
    }
}
