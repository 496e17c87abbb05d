//! Small segments become large ones, in the background; and what has expired goes, however quiet it is.
//!
//! ```text
//! after each flush, and every few minutes: is a merge worth it?
//!   → carried out in steps, with a background task's share of the core     queries read the old segments
//!   → one manifest write names the new segments instead (executor 0)
//!   → the store reads the new ones; the old files are removed              who began before goes on reading them
//! ```
//!
//! Always: one merge at a time; what fails leaves everything as it was, and is tried again by the next look; a segment
//! that cannot be read is left out of merges until the next start, so that damage costs itself and stays to be found.
//! When the process stops a merge is dropped: its files are orphans, which the next start removes.
//! Read next: `storage::compact` for what is merged with what.

use super::keeper::{Purpose, Switch};
use super::{Shard, send_to_peer};
use crate::adapt::ShardDisk;
use crate::config::Config;
use crate::front::Now;
use crate::log;
use crate::message::ToPeer;
use model::Timestamp;
use shard::executor::{self, LocalEvent, TaskClass};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use storage::compact::{Merge, MergeError, OpenSegment, Windows};
use storage::manifest::may_be_stored;
use storage::segment::{SegmentEntry, SegmentReader};

/// How often it is looked without a flush: a window may have become complete, a segment may have expired.
const LOOK: Duration = Duration::from_secs(600);
/// What cleans waits for the merge that is under way.
const CLEAN_RETRY: Duration = Duration::from_millis(10);
/// A sample may be on its way for so long before the flush that takes it: as long as late ones are expected.
const LATE_MS: i64 = 3_600_000;

/// The manifest names others than it did, for another executor's merge or by retention.
pub struct SegmentsChanged {
    /// Ids.
    pub removed: Box<[u64]>,
    /// What holds their samples now.
    pub added: Box<[SegmentEntry]>,
}

/// Where the merging of one executor stands.
#[derive(Default)]
pub struct Compaction {
    under_way: bool,
    /// Segments that could not be read, or of whose merge nobody knows whether a start would find it.
    unmergeable: BTreeSet<u64>,
    switched: Option<io::Result<()>>,
    /// Rung when `switched` is set.
    moved: Rc<LocalEvent>,
    /// What others have changed and the store does not show yet.
    changes: VecDeque<SegmentsChanged>,
    following: bool,
}

impl Compaction {
    /// The manifest names what was merged, or does not.
    pub fn switched(&mut self, result: io::Result<()>) {
        self.switched = Some(result);
        self.moved.notify();
    }

    /// Notes what others have changed; true when [`follow`] is to be begun.
    pub fn take(&mut self, changed: SegmentsChanged) -> bool {
        self.changes.push_back(changed);
        !std::mem::replace(&mut self.following, true)
    }
}

/// Looks by the clock.
pub async fn run_clock(shard: Shard) {
    loop {
        begin(&shard);
        if shard.borrow().keeper.is_some() {
            // To itself, by the way that all changes take.
            send_to_peer(&shard, 0, ToPeer::Switch { from: 0, switch: Box::default() }).await;
        }
        executor::sleep(LOOK).await;
    }
}

/// Begins to merge what is worth it, unless that is under way.
pub fn begin(shard: &Shard) {
    if !std::mem::replace(&mut shard.borrow_mut().compaction.under_way, true) {
        executor::spawn_local(TaskClass::Background, run(shard.clone())).detach();
    }
}

async fn run(shard: Shard) {
    while merge_once(&shard, Worth::Merging).await {}
    shard.borrow_mut().compaction.under_way = false;
}

/// Writes every segment anew that may hold what is deleted, however large.
pub async fn clean(shard: &Shard) -> Result<(), String> {
    while std::mem::replace(&mut shard.borrow_mut().compaction.under_way, true) {
        executor::sleep(CLEAN_RETRY).await;
    }
    let failures = shard.borrow().counters().merge_failures.get();
    while merge_once(shard, Worth::Cleaning).await {}
    shard.borrow_mut().compaction.under_way = false;
    let service = shard.borrow();
    if service.shared.is_stopping() {
        Err("shutting down".to_owned())
    } else if service.counters().merge_failures.get() > failures {
        Err("a segment could not be written anew; the log says why".to_owned())
    } else {
        match service.store.with_deleted_count() {
            0 => Ok(()),
            left => Err(format!(
                "{left} segments that may hold deleted samples cannot be written anew now: they are damaged, or of \
                 another number of shards"
            )),
        }
    }
}

/// Which merges are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// Those that are worth their price.
    Merging,
    /// Those that remove what is deleted.
    Cleaning,
}

/// One merge; false when there is none to be done now.
async fn merge_once(shard: &Shard, worth: Worth) -> bool {
    let Some(merge) = next_merge(shard, worth) else { return false };
    shard.borrow().counters().merge_under_way.set(1);
    let goes_on = carry_out(shard, merge).await;
    shard.borrow().counters().merge_under_way.set(0);
    goes_on
}

/// Writes what a merge gives and has it named; false when no other is to follow.
async fn carry_out(shard: &Shard, mut merge: Merge<ShardDisk>) -> bool {
    loop {
        match merge.step().await {
            Ok(true) if shard.borrow().shared.is_stopping() => {
                merge.abandon().await;
                return false;
            }
            Ok(true) => executor::yield_if_needed().await,
            Ok(false) => break,
            Err(error) => {
                merge.abandon().await;
                return failed(shard, &error);
            }
        }
    }
    let merged = merge.end();
    let (from, disk, moved) = {
        let service = shard.borrow();
        (service.index, service.disk.clone(), service.compaction.moved.clone())
    };
    let switch = Switch {
        purpose: Purpose::Merge,
        removed: merged.removed.clone(),
        added: merged.entries(),
        ..Switch::default()
    };
    send_to_peer(shard, 0, ToPeer::Switch { from, switch: Box::new(switch) }).await;
    let switched = loop {
        let switched = shard.borrow_mut().compaction.switched.take();
        match switched {
            Some(result) => break result,
            None => moved.wait().await,
        }
    };
    if let Err(error) = switched {
        log::warning(format!("shard {from}: merged segments are not used: the manifest: {error}"));
        shard.borrow().counters().merge_failures.add(1);
        if may_be_stored(&error) {
            // A start may find them named, and what they replace not. They stay, and no second set beside them.
            shard.borrow_mut().compaction.unmergeable.extend(&merged.removed);
        } else {
            merged.abandon(&disk).await;
        }
        return false;
    }
    let mut service = shard.borrow_mut();
    service.store.replace_segments(&merged.removed, &merged.added);
    service.count_segments();
    let counters = service.counters();
    counters.merges.add(1);
    counters.merged_bytes.add(merged.entries().iter().map(|entry| entry.bytes).sum());
    true
}

fn next_merge(shard: &Shard, worth: Worth) -> Option<Merge<ShardDisk>> {
    let service = shard.borrow();
    if service.shared.is_stopping() {
        return None;
    }
    let (windows, now_ms) = (windows(&service.shared.config), Now::read().unix_ms);
    let shared = service.shared.clone();
    let oldest = Timestamp::first_of_milli(shared.oldest_kept_ms());
    let next_id = move || shared.next_segment_id();
    let (store, unmergeable) = (&service.store, &service.compaction.unmergeable);
    match worth {
        Worth::Merging => store.begin_merge(now_ms, oldest, &windows, unmergeable, next_id),
        Worth::Cleaning => store.begin_clean(now_ms, oldest, &windows, unmergeable, next_id),
    }
}

/// The windows of time into which segments are merged.
pub fn windows(config: &Config) -> Windows {
    let retention = config.storage_retention.as_millis() as i64;
    let grace_ms = LATE_MS + config.storage_flush_interval.as_millis() as i64;
    Windows::new((retention > 0).then_some(retention), grace_ms)
}

/// Whether there may be another merge to be done now.
fn failed(shard: &Shard, error: &MergeError) -> bool {
    let mut service = shard.borrow_mut();
    log::error(format!("shard {}: {error}", service.index));
    service.counters().merge_failures.add(1);
    match error {
        MergeError::Unreadable { id, .. } => service.compaction.unmergeable.insert(*id),
        // What the disk has no room for now it may have later.
        MergeError::Unwritable(_) => false,
    }
}

/// Brings the store to what the manifest names, one change after another.
pub async fn follow(shard: Shard) {
    loop {
        let (changed, disk) = {
            let mut service = shard.borrow_mut();
            let disk = service.disk.clone();
            let Some(changed) = service.compaction.changes.pop_front() else {
                service.compaction.following = false;
                return;
            };
            (changed, disk)
        };
        let mut added: Vec<OpenSegment<_>> = Vec::new();
        let mut unreadable = None;
        let is_ours = |entry: &&SegmentEntry| shard.borrow().store.may_own_part_of(entry);
        for entry in changed.added.iter().filter(is_ours) {
            match SegmentReader::open_named(&disk, entry).await {
                Ok(opened) => added.push(Rc::new(opened)),
                Err(error) => unreadable = Some(error),
            }
        }
        let mut service = shard.borrow_mut();
        if let Some(error) = unreadable {
            // The old ones are open and hold the same samples, without a name on the disk.
            log::error(format!("shard {}: a merged segment cannot be read: {error}", service.index));
            service.compaction.unmergeable.extend(&changed.removed);
            continue;
        }
        service.store.replace_segments(&changed.removed, &added);
        service.count_segments();
    }
}
