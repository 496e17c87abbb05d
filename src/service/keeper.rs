//! The keeper of the directory's one manifest: executor 0.
//!
//! Always: one change at a time, each a whole new manifest on disk before anybody acts on it; a file is
//! removed only after the manifest no longer names it; what has left the manifest never comes back, as part of a merge
//! that began before either. A start that found no room for the raised run number is
//! made good here: until then no journal file is prepared.

use super::compact::SegmentsChanged;
use super::{Shard, send_to_peer};
use crate::adapt::ShardDisk;
use crate::front::Now;
use crate::log;
use crate::message::ToPeer;
use shard::executor;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use storage::checkpoint::{CheckpointEntry, checkpoint_path};
use storage::compact::{RetentionClock, expired};
use storage::disk::Disk as _;
use storage::journal::{self, JournalPosition};
use storage::manifest::{DELETES_MAX, Manifest, Tombstone};
use storage::segment::{SegmentEntry, segment_path};
use storage::snapshot;

/// A snapshot waits for the change that is under way.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(1);
/// How often the run number is tried again that a full disk had no room for.
const RUN_RETRY: Duration = Duration::from_secs(1);

/// A wall clock that is further ahead of the believed one is worth a word: a machine that was off catches up below.
const AHEAD_MS: i64 = 24 * 3_600_000;

/// One executor's wish: these segments in place of those, and these positions of its own.
#[derive(Default)]
pub struct Switch {
    /// What it is for, which is who waits for the answer.
    pub purpose: Purpose,
    /// Ids of what a merge has read.
    pub removed: Vec<u64>,
    /// What was written.
    pub added: Vec<SegmentEntry>,
    /// What is deleted of all that was written before.
    pub deletes: Vec<Tombstone>,
    /// The memory of the executor.
    pub checkpoint: Option<CheckpointEntry>,
    /// One per journal, none for a merge and for a part: below them, everything the executor owns is in segments, or in its checkpoint.
    pub positions: Vec<JournalPosition>,
}

/// What a manifest is switched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A flush.
    Flush,
    /// A flush of series that have stopped: what the others have in memory is where it was, and so are the positions.
    PartFlush,
    /// A merge.
    Merge,
    /// A checkpoint.
    Checkpoint,
    /// To see what has left the retention; nobody waits.
    #[default]
    Retention,
}

/// The manifest as it stands on disk, and the changes that wait.
pub struct Keeper {
    manifest: Manifest,
    clock: RetentionClock,
    /// Whether the log says that the wall clock is not believed.
    is_warned: bool,
    busy: bool,
    waiting: VecDeque<(usize, Box<Switch>)>,
}

impl Keeper {
    /// Keeps what was just loaded or written.
    pub fn new(manifest: Manifest) -> Keeper {
        let now = Now::read();
        let clock = RetentionClock::new(&manifest, now.unix_ms, now.nanos / 1_000_000);
        Keeper { manifest, clock, is_warned: false, busy: false, waiting: VecDeque::new() }
    }

    /// The time by which samples leave for good.
    fn look_at_clock(&mut self) -> i64 {
        let now = Now::read();
        let believed_ms = self.clock.look(now.unix_ms, now.nanos / 1_000_000);
        let is_ahead = now.unix_ms - believed_ms > AHEAD_MS;
        if is_ahead && !self.is_warned {
            log::warning(format!(
                "the clock is {} days ahead of what this data directory has seen, so nothing leaves the disk by it \
                 yet: set it right, or leave it steady for a day",
                (now.unix_ms - believed_ms) / AHEAD_MS,
            ));
        }
        self.is_warned = is_ahead;
        believed_ms
    }

    /// Whether no change is under way, its cleaning up included.
    pub fn rests(&self) -> bool {
        !self.busy
    }
}

/// What a change took out of the manifest.
struct Gone {
    /// Merged into those that were added.
    merged: Vec<u64>,
    /// Whether others than who merged them read them, for they are of another number of shards.
    is_shared: bool,
    /// Left the retention.
    expired: Vec<u64>,
    /// Replaced by another checkpoint, or by a flush.
    checkpoint: Option<CheckpointEntry>,
}

/// Carries out a change and those that came meanwhile.
pub async fn carry_out(shard: Shard, from: usize, switch: Box<Switch>) {
    {
        let mut service = shard.borrow_mut();
        let Some(keeper) = &mut service.keeper else { return };
        keeper.waiting.push_back((from, switch));
        if std::mem::replace(&mut keeper.busy, true) {
            return;
        }
    }
    carry_out_waiting(&shard).await;
}

/// Stores the manifest that the start could not, for the disk was full: the run number is in it.
pub async fn store_run(shard: Shard) {
    loop {
        executor::sleep(RUN_RETRY).await;
        let (manifest, disk) = {
            let mut service = shard.borrow_mut();
            let disk = service.disk.clone();
            if service.shared.run_is_stored() {
                return;
            }
            let Some(keeper) = &mut service.keeper else { return };
            if std::mem::replace(&mut keeper.busy, true) {
                continue;
            }
            (keeper.manifest.clone(), disk)
        };
        if manifest.store(&disk).await.is_ok() {
            shard.borrow().shared.store_run();
            log::info("the disk has room again: samples are taken");
        }
        carry_out_waiting(&shard).await;
    }
}

/// Gives all that the manifest names a place of its own, and says which and what is missing from it. Nothing else is changed meanwhile, so none of it
/// is removed before it is linked.
pub async fn snapshot(shard: &Shard) -> Result<(String, Vec<String>), String> {
    let (manifest, disk) = loop {
        {
            let mut service = shard.borrow_mut();
            let disk = service.disk.clone();
            let Some(keeper) = &mut service.keeper else {
                return Err("another executor keeps it".to_owned());
            };
            if !std::mem::replace(&mut keeper.busy, true) {
                break (keeper.manifest.clone(), disk);
            }
        }
        executor::sleep(SNAPSHOT_RETRY).await;
    };
    let now = Now::read();
    let second = jiff::Timestamp::from_millisecond(now.unix_ms).unwrap_or_default();
    let name = format!("{}-{:016x}", second.strftime("%Y%m%dT%H%M%SZ"), now.nanos);
    // What an earlier one has left is no reason to take none.
    tell(snapshot::remove_unfinished(&disk).await, "an unfinished snapshot");
    let taken = snapshot::take(&disk, &manifest, &name).await;
    carry_out_waiting(shard).await;
    let taken = taken.map_err(|error| error.to_string())?;
    log::info(format_args!("snapshot {name}: {} segments, {} bytes", taken.segments, taken.bytes));
    for path in &taken.missing {
        log::error(format_args!("snapshot {name}: {path} is missing from the disk, and from it"));
    }
    Ok((name, taken.missing))
}

/// Carries out what waits, one change after another; the keeper is busy with it.
async fn carry_out_waiting(shard: &Shard) {
    loop {
        let (next, mut manifest, disk) = {
            let mut service = shard.borrow_mut();
            let disk = service.disk.clone();
            let Some(keeper) = &mut service.keeper else { return };
            let Some(next) = keeper.waiting.pop_front() else {
                keeper.busy = false;
                // The executor may have been waiting for this to end.
                service.shared.store_bells[service.index].ring();
                return;
            };
            (next, keeper.manifest.clone(), disk)
        };
        let (from, switch) = next;
        let (purpose, mut added) = (switch.purpose, switch.added.clone());
        let gone = match change(shard, &mut manifest, from, *switch) {
            Ok(gone) => gone,
            Err(why) => {
                let result = Err(io::Error::new(io::ErrorKind::InvalidInput, why));
                send_to_peer(shard, from, ToPeer::Switched { purpose, result }).await;
                continue;
            }
        };
        if purpose == Purpose::Retention && gone.expired.is_empty() {
            continue;
        }
        let result = manifest.store(&disk).await;
        if let (Ok(()), Some(keeper)) = (&result, &mut shard.borrow_mut().keeper) {
            keeper.manifest = manifest.clone();
        }
        let stored = result.is_ok();
        if stored {
            // What has left the retention with the very switch that brought it has no file any more.
            added.retain(|entry| !gone.expired.contains(&entry.id));
            shard.borrow().shared.store_run();
        }
        match (purpose, &result) {
            (Purpose::Retention, Ok(())) => {}
            (Purpose::Retention, Err(error)) => {
                log::warning(format!("the manifest still names what has expired: {error}"));
            }
            (Purpose::Flush | Purpose::PartFlush | Purpose::Merge | Purpose::Checkpoint, _) => {
                send_to_peer(shard, from, ToPeer::Switched { purpose, result }).await;
            }
        }
        if stored {
            tell_peers(shard, from, &gone, added).await;
            clean_up(&disk, &manifest, gone).await;
        }
    }
}

/// The manifest after the change; segments that have left the retention leave it on the way. Refused where a merge has
/// read what is gone by now, where a checkpoint is older than a flush, and where there are too many deletes.
fn change(shard: &Shard, manifest: &mut Manifest, from: usize, switch: Switch) -> Result<Gone, &'static str> {
    let Switch { purpose, removed: merged, added, positions, deletes, checkpoint } = switch;
    let named = manifest.segments.extract_if(.., |entry| merged.contains(&entry.id));
    let named: Vec<SegmentEntry> = named.collect();
    if named.len() != merged.len() {
        return Err("what was merged is no longer there");
    }
    if !deletes.is_empty() && manifest.deletes.len() + deletes.len() > DELETES_MAX {
        return Err("too many deletes wait for their segments to be written anew");
    }
    let ids = deletes.iter().map(|delete| delete.id + 1);
    manifest.next_segment = ids.fold(manifest.next_segment, u64::max);
    manifest.deletes.extend(deletes);
    let is_shared = named.iter().any(|entry| entry.shards != manifest.shards);
    for segment in added {
        manifest.next_segment = manifest.next_segment.max(segment.id + 1);
        manifest.segments.push(segment);
    }
    let checkpoint = match (purpose, checkpoint) {
        (_, Some(entry)) => manifest.switch_checkpoint(entry, &positions)?,
        (Purpose::Flush, None) => manifest.switch_flush(from, &positions),
        (Purpose::PartFlush | Purpose::Merge | Purpose::Checkpoint | Purpose::Retention, None) => None,
    };
    let mut service = shard.borrow_mut();
    let believed_ms = service.keeper.as_mut().map(|keeper| {
        let now_ms = keeper.look_at_clock();
        manifest.believed_ms = Some(keeper.clock.believed_ms());
        now_ms
    });
    let oldest_ms = believed_ms.and_then(|now_ms| service.shared.config.oldest_ms(now_ms));
    let before_ms = oldest_ms.unwrap_or(i64::MIN);
    service.shared.samples_leave_before(before_ms);
    let bytes_max = service.shared.config.storage_retention_bytes;
    let expired = expired(&manifest.segments, before_ms, bytes_max);
    manifest.segments.retain(|entry| !expired.contains(&entry.id));
    manifest.forget_deletes();
    Ok(Gone { merged, is_shared, expired, checkpoint })
}

/// Who else reads what is gone hears of it, and of what holds its samples now. The executor that merged knows.
async fn tell_peers(shard: &Shard, from: usize, gone: &Gone, added: Vec<SegmentEntry>) {
    let shards = shard.borrow().shared.shard_count();
    let tell = |removed: &[u64], added: &[SegmentEntry]| {
        let (removed, added) = (removed.into(), added.into());
        Box::new(SegmentsChanged { removed, added })
    };
    for to in (0..shards).filter(|to| *to != from && gone.is_shared) {
        send_to_peer(shard, to, ToPeer::Segments(tell(&gone.merged, &added))).await;
    }
    for to in (0..shards).filter(|_| !gone.expired.is_empty()) {
        send_to_peer(shard, to, ToPeer::Segments(tell(&gone.expired, &[]))).await;
    }
}

/// Removes what the manifest has let go of: segments, checkpoints, and journals below every executor's position.
async fn clean_up(disk: &ShardDisk, manifest: &Manifest, gone: Gone) {
    // Who reads one of them has it open, and goes on.
    for id in gone.merged.iter().chain(&gone.expired) {
        tell(disk.remove(&segment_path(*id)).await, "a segment that is no longer needed");
    }
    if let Some(entry) = gone.checkpoint {
        tell(disk.remove(&checkpoint_path(entry.id)).await, "a checkpoint that is no longer needed");
    }
    for loop_index in 0..manifest.positions.first().map_or(0, Vec::len) {
        let lowest = manifest.lowest_position(loop_index);
        let below = async {
            let names = disk.list(&journal::folder(loop_index as u16)).await?;
            let sequences: Vec<u64> = names.iter().filter_map(|name| journal::sequence_of(name)).collect();
            journal::truncate(disk, loop_index as u16, &sequences, lowest).await
        };
        tell(below.await.map(|_| ()), "a journal");
        executor::yield_if_needed().await;
    }
}

/// What is left behind costs room and nothing else; the next change tries again.
fn tell(result: io::Result<()>, what: &str) {
    if let Err(error) = result {
        log::warning(format!("{what} could not be removed: {error}"));
    }
}
