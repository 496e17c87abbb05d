//! A start as the server does it: manifest, another count of shards, journals, run number, segments, replay.

use super::machine::owner;
use model::Share;
use std::fmt::Debug;
use std::io;
use storage::checkpoint::{CHECKPOINTS_FOLDER, checkpoint_path};
use storage::deletes::Delete;
use storage::disk::{Disk as _, SimDisk, ready};
use storage::journal::{self, JournalPosition, OnDamage, Recovered, Replay, recover};
use storage::manifest::Manifest;
use storage::segment::{SEGMENTS_FOLDER, segment_path};
use storage::store::{Store, StoreOptions};

/// Small, so that a move to another count flushes in the middle.
pub(crate) const OPTIONS: StoreOptions = StoreOptions { memory_bytes_max: 4_096 };

/// The power went, or a call failed once; anything else that a start refuses is a finding.
#[derive(Debug)]
pub(crate) struct NotStarted;

/// What a start hands to the loops and executors.
pub(crate) struct Started {
    pub(crate) manifest: Manifest,
    pub(crate) journals: Vec<Recovered>,
    pub(crate) stores: Vec<Store<SimDisk>>,
}

fn disk_or_finding<T, E: Debug>(disk: &SimDisk, faulty: bool, result: Result<T, E>) -> Result<T, NotStarted> {
    match result {
        Ok(value) => Ok(value),
        Err(_) if disk.is_cut() || faulty => Err(NotStarted),
        Err(error) => panic!("the start was refused: {error:?}"),
    }
}

/// Opens the directory with so many shards. `faulty`: calls may fail, and then the start may too.
pub(crate) fn start(disk: &SimDisk, shards: usize, faulty: bool) -> Result<Started, NotStarted> {
    let mut manifest = match disk_or_finding(disk, faulty, ready(Manifest::load(disk)))? {
        Some(manifest) if usize::from(manifest.shards) != shards => {
            to_shards(disk, &manifest, shards, faulty)?
        }
        Some(manifest) => manifest,
        None => Manifest::new(shards as u16),
    };
    let mut journals = Vec::new();
    for loop_index in 0..manifest.shards {
        let recovered = disk_or_finding(disk, faulty, ready(recover(disk, loop_index, OnDamage::Stop)))?;
        for sequence in &recovered.unused {
            // As in the server: what stays costs room alone.
            let _ = ready(disk.remove(&journal::file_path(loop_index, *sequence)));
        }
        journals.push(recovered);
    }
    let mut named: Vec<String> = manifest.segments.iter().map(|entry| segment_path(entry.id)).collect();
    named.extend(manifest.checkpoints.iter().map(|entry| checkpoint_path(entry.id)));
    for folder in [SEGMENTS_FOLDER, CHECKPOINTS_FOLDER] {
        for name in ready(disk.list(folder)).unwrap_or_default() {
            let path = format!("{folder}/{name}");
            if !named.contains(&path) {
                // As in the server: what stays costs room alone.
                let _ = ready(disk.remove(&path));
            }
        }
    }
    manifest.run += 1;
    disk_or_finding(disk, faulty, ready(manifest.store(disk)))?;
    let mut stores = Vec::new();
    for index in 0..shards {
        let mut store = Store::new(disk.clone(), index, shards, OPTIONS, Box::new(|_| 0));
        let refused = ready(store.open_segments(&manifest.segments));
        disk_or_finding(disk, faulty, if refused.is_empty() { Ok(()) } else { Err(refused) })?;
        let deletes = manifest.deletes.iter().cloned().map(Delete::new).collect::<Result<_, _>>();
        store.add_deletes(deletes.expect("what was stored can be read"));
        load(disk, &manifest, index, &mut store, faulty)?;
        replay(disk, &journals, &manifest.positions[index], &mut store, (index, shards), faulty, |_| Ok(()))?;
        store.end_dictionaries();
        store.forget_idle();
        stores.push(store);
    }
    Ok(Started { manifest, journals, stores })
}

/// What a shard's memory was.
fn load(
    disk: &SimDisk,
    manifest: &Manifest,
    index: usize,
    store: &mut Store<SimDisk>,
    faulty: bool,
) -> Result<(), NotStarted> {
    let Some(entry) = manifest.checkpoint(index) else { return Ok(()) };
    let loaded = disk_or_finding(disk, faulty, ready(store.load_checkpoint(entry)))?;
    let damaged = loaded.damaged;
    disk_or_finding(disk, faulty, if damaged.is_empty() { Ok(()) } else { Err(damaged) })
}

fn replay(
    disk: &SimDisk,
    journals: &[Recovered],
    from: &[JournalPosition],
    store: &mut Store<SimDisk>,
    (index, shards): (usize, usize),
    faulty: bool,
    mut after_each: impl FnMut(&mut Store<SimDisk>) -> Result<(), NotStarted>,
) -> Result<(), NotStarted> {
    let mut replay =
        disk_or_finding(disk, faulty, Replay::open(disk, journals, from, &store.known_numbers()))?;
    let mut share = Share::default();
    let owns = |hash| owner(hash, shards) == index;
    while let Some(replayed) = disk_or_finding(disk, faulty, ready(replay.next(&mut share, owns)))? {
        assert_eq!(replayed.unknown, 0, "every number is defined in its own file");
        let applied = store.apply(usize::from(replayed.stamp.loop_index), &share, &mut |_, _, _| {});
        assert_eq!(applied.unknown, 0);
        after_each(store)?;
    }
    Ok(())
}

/// The sequence of calls of the server's `reshard.rs`.
fn to_shards(disk: &SimDisk, old: &Manifest, shards: usize, faulty: bool) -> Result<Manifest, NotStarted> {
    let mut journals = Vec::new();
    for loop_index in 0..old.shards {
        journals.push(disk_or_finding(disk, faulty, ready(recover(disk, loop_index, OnDamage::Stop)))?);
    }
    let mut new = old.with_shards(shards as u16);
    for shard in 0..usize::from(old.shards) {
        let count = usize::from(old.shards);
        let mut store = Store::new(disk.clone(), shard, count, OPTIONS, Box::new(|_| 0));
        let mut flush = |store: &mut Store<SimDisk>| {
            let Some(job) = store.begin_flush(new.next_segment) else { return Ok(()) };
            new.next_segment += 1;
            let flushed = disk_or_finding(disk, faulty, ready(job.run(disk)))?;
            new.segments.push(*flushed.entry());
            store.finish_flush(flushed);
            Ok(())
        };
        load(disk, old, shard, &mut store, faulty)?;
        replay(disk, &journals, &old.positions[shard], &mut store, (shard, count), faulty, |store| {
            if store.wants_flush() { flush(store) } else { Ok(()) }
        })?;
        flush(&mut store)?;
    }
    for journal in &journals {
        for of_executor in &mut new.positions {
            if let Some(position) = of_executor.get_mut(usize::from(journal.loop_index)) {
                *position = journal.end();
            }
        }
    }
    disk_or_finding(disk, faulty, ready(new.store(disk)))?;
    for journal in &journals {
        let goes_on = usize::from(journal.loop_index) < shards;
        let keep = if goes_on { journal.end() } else { JournalPosition { sequence: u64::MAX, offset: 0 } };
        let sequences: Vec<u64> = journal.files.iter().map(|file| file.sequence).collect();
        let removed: io::Result<_> = ready(journal::truncate(disk, journal.loop_index, &sequences, keep));
        if removed.is_err() && disk.is_cut() {
            return Err(NotStarted);
        }
    }
    Ok(new)
}
