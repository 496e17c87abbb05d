//! A directory moves to another number of shards (DESIGN D2).
//!
//! It is first brought to rest under the old count: each old shard's checkpoint is loaded, its share of the journals is
//! replayed over it, and all of it flushed to a segment. Then one manifest write switches the count; a crash before it repeats everything, a
//! crash after it finds the new count. Segments stay as they are: each new shard reads the slots it owns.

use crate::config::Config;
use crate::log;
use model::Share;
use std::fmt;
use std::io;
use storage::checkpoint::{CheckpointError, checkpoint_path};
use storage::disk::{Disk as _, StdDisk, ready};
use storage::journal::{JournalPosition, OnDamage, RecoverError, Recovered, Replay, ReplayError, recover};
use storage::manifest::Manifest;
use storage::segment::SegmentError;
use storage::store::{Store, StoreOptions};

/// Samples and series of one old shard in memory; samples are flushed at half of it.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// Why the move failed; nothing was switched.
#[derive(Debug)]
pub enum ReshardError {
    /// A journal cannot be used.
    Journal(RecoverError),
    /// A checkpoint cannot be used.
    Checkpoint(CheckpointError),
    /// A journal could not be replayed.
    Replay(ReplayError),
    /// A segment could not be written.
    Segment(SegmentError),
    /// The manifest could not be written.
    Manifest(io::Error),
}

impl fmt::Display for ReshardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moving the data to another number of shards: ")?;
        match self {
            ReshardError::Journal(error) => error.fmt(f),
            ReshardError::Checkpoint(error @ CheckpointError::Damaged { .. }) => {
                write!(f, "{error}; to go on with everything that is intact: --set storage.on_damage=skip")
            }
            ReshardError::Checkpoint(error) => error.fmt(f),
            ReshardError::Replay(error) => error.fmt(f),
            ReshardError::Segment(error) => error.fmt(f),
            ReshardError::Manifest(error) => write!(f, "the manifest: {error}"),
        }
    }
}

impl std::error::Error for ReshardError {}

/// Brings the directory to `shards` shards and returns the manifest that now stands on disk.
pub fn to_shards(
    disk: &StdDisk,
    old: Manifest,
    shards: usize,
    config: &Config,
) -> Result<Manifest, ReshardError> {
    let (count, shard) = (old.shards, if old.shards == 1 { "shard" } else { "shards" });
    log::info(format!("the data was written by {count} {shard} and moves to {shards}"));
    let mut journals: Vec<Recovered> = Vec::new();
    for loop_index in 0..old.shards {
        let recovered =
            ready(recover(disk, loop_index, config.storage_on_damage)).map_err(ReshardError::Journal)?;
        journals.push(recovered);
    }
    let mut new = old.with_shards(shards as u16);
    let mut samples = 0;
    for shard in 0..usize::from(old.shards) {
        samples += flush_shard(disk, &old, shard, &journals, &mut new, config.storage_on_damage)?;
    }
    // Everything that lies in journals is in segments now: each journal's end is every new shard's position.
    for journal in &journals {
        let end = journal.end();
        for of_executor in &mut new.positions {
            if let Some(position) = of_executor.get_mut(usize::from(journal.loop_index)) {
                // An empty journal has no end; what the manifest knows of it stays.
                *position = end.max(*position);
            }
        }
    }
    ready(new.store(disk)).map_err(ReshardError::Manifest)?;
    remove_journals(disk, &journals, shards);
    for entry in &old.checkpoints {
        if let Err(error) = ready(disk.remove(&checkpoint_path(entry.id))) {
            log::warning(format!("a checkpoint that is no longer needed could not be removed: {error}"));
        }
    }
    log::info(format!(
        "the data lies for {shards} {} now: {samples} samples moved from memory and journals to segments, what was in \
         segments stays",
        if shards == 1 { "shard" } else { "shards" }
    ));
    Ok(new)
}

/// Returns how many samples of the journals are in segments now.
fn flush_shard(
    disk: &StdDisk,
    old: &Manifest,
    shard: usize,
    journals: &[Recovered],
    new: &mut Manifest,
    on_damage: OnDamage,
) -> Result<u64, ReshardError> {
    let shards = usize::from(old.shards);
    let options = StoreOptions { memory_bytes_max: MEMORY_BYTES_MAX };
    let mut store = Store::new(disk.clone(), shard, shards, options, Box::new(|_| 0));
    let from: &[JournalPosition] = &old.positions[shard];
    let mut samples = 0;
    if let Some(entry) = old.checkpoint(shard) {
        // It was in memory before the stop, with those of the other shards.
        let mut loaded = ready(store.load_checkpoint(entry)).map_err(ReshardError::Checkpoint)?;
        if on_damage == OnDamage::Stop
            && let Some(damage) = loaded.damaged.pop()
        {
            return Err(ReshardError::Checkpoint(damage));
        }
        loaded.damaged.iter().for_each(|error| log::error(format!("{error}; the rest moves on")));
        samples += loaded.samples;
    }
    let known = store.known_numbers();
    let mut replay = Replay::open(disk, journals, from, &known).map_err(ReshardError::Replay)?;
    let mut share = Share::default();
    let owns = |hash| ingest::owner(hash, shards) == shard;
    while let Some(replayed) = ready(replay.next(&mut share, owns)).map_err(ReshardError::Replay)? {
        store.apply(usize::from(replayed.stamp.loop_index), &share, &mut |_, _, _| {});
        samples += share.len() as u64;
        if store.wants_flush() {
            flush(disk, &mut store, new)?;
        }
    }
    flush(disk, &mut store, new)?;
    Ok(samples)
}

fn flush(disk: &StdDisk, store: &mut Store<StdDisk>, new: &mut Manifest) -> Result<(), ReshardError> {
    let Some(job) = store.begin_flush(new.next_segment) else { return Ok(()) };
    new.next_segment += 1;
    let flushed = ready(job.run(disk)).map_err(ReshardError::Segment)?;
    new.segments.push(*flushed.entry());
    store.finish_flush(flushed);
    Ok(())
}

/// The journals are below every position now. What cannot be removed only costs room.
fn remove_journals(disk: &StdDisk, journals: &[Recovered], shards: usize) {
    for journal in journals {
        // A journal that goes on keeps its last file: the next file's head names where that one ended.
        let goes_on = usize::from(journal.loop_index) < shards;
        let keep = if goes_on { journal.end() } else { JournalPosition { sequence: u64::MAX, offset: 0 } };
        let sequences: Vec<u64> = journal.files.iter().map(|file| file.sequence).collect();
        let removed = ready(storage::journal::truncate(disk, journal.loop_index, &sequences, keep));
        if let Err(error) = removed {
            log::warning(format!("a journal that is no longer needed could not be removed: {error}"));
        }
    }
}
