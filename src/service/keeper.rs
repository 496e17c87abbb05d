//! The keeper of the directory's one manifest: executor 0.
//!
//! Always: one change at a time, each a whole new manifest on disk before anybody acts on it; a file is
//! removed only after the manifest no longer names it. A start that found no room for the raised run number is
//! made good here: until then no journal file is prepared.

use super::{Shard, send_to_peer};
use crate::adapt::ShardDisk;
use crate::front::Now;
use crate::log;
use crate::message::ToPeer;
use shard::executor;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use storage::disk::Disk as _;
use storage::journal::{self, JournalPosition};
use storage::manifest::Manifest;
use storage::segment::{SegmentEntry, segment_path};

/// How often the run number is tried again that a full disk had no room for.
const RUN_RETRY: Duration = Duration::from_secs(1);

/// One executor's wish: name this segment, and these positions of its own, one per journal.
pub struct Switch {
    /// The segment that was written, unless there was nothing to write.
    pub segment: Option<SegmentEntry>,
    /// Below them, everything the executor owns is in segments.
    pub positions: Vec<JournalPosition>,
}

/// The manifest as it stands on disk, and the changes that wait.
pub struct Keeper {
    manifest: Manifest,
    busy: bool,
    waiting: VecDeque<(usize, Box<Switch>)>,
}

impl Keeper {
    /// Keeps what was just loaded or written.
    pub fn new(manifest: Manifest) -> Keeper {
        Keeper { manifest, busy: false, waiting: VecDeque::new() }
    }

    /// Whether no change is under way, its cleaning up included.
    pub fn rests(&self) -> bool {
        !self.busy
    }
}

/// Segments that have left the retention.
struct Dropped {
    ids: Vec<u64>,
    before_ms: i64,
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
        let dropped = change(shard, &mut manifest, from, *switch);
        let result = manifest.store(&disk).await;
        if let (Ok(()), Some(keeper)) = (&result, &mut shard.borrow_mut().keeper) {
            keeper.manifest = manifest.clone();
        }
        let stored = result.is_ok();
        if stored {
            shard.borrow().shared.store_run();
        }
        send_to_peer(shard, from, ToPeer::Switched { result }).await;
        if stored {
            clean_up(shard, &disk, &manifest, dropped).await;
        }
    }
}

/// The manifest after the change; segments that have left the retention leave it on the way.
fn change(shard: &Shard, manifest: &mut Manifest, from: usize, switch: Switch) -> Dropped {
    if let Some(segment) = switch.segment {
        manifest.next_segment = manifest.next_segment.max(segment.id + 1);
        manifest.segments.push(segment);
    }
    for (of, position) in switch.positions.into_iter().enumerate() {
        let kept = &mut manifest.positions[from][of];
        *kept = position.max(*kept);
    }
    let service = shard.borrow();
    let before_ms = service.shared.config.oldest_ms(Now::read().unix_ms).unwrap_or(i64::MIN);
    let expired = manifest.segments.iter().filter(|entry| entry.max_ms < before_ms);
    let ids = expired.map(|entry| entry.id).collect();
    manifest.segments.retain(|entry| entry.max_ms >= before_ms);
    Dropped { ids, before_ms }
}

/// Removes what the manifest has let go of: segments, and journals below every executor's position.
async fn clean_up(shard: &Shard, disk: &ShardDisk, manifest: &Manifest, dropped: Dropped) {
    if !dropped.ids.is_empty() {
        let shards = shard.borrow().shared.shard_count();
        for to in 0..shards {
            send_to_peer(shard, to, ToPeer::Dropped { before_ms: dropped.before_ms }).await;
        }
        // Who reads one of them has it open, and goes on.
        for id in &dropped.ids {
            tell(disk.remove(&segment_path(*id)).await, "an expired segment");
        }
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
