//! What is in memory is put down as it is, so that a start reads it and only the journals' tails.
//!
//! ```text
//! due (time, bytes of journal) → the cut: positions up to where each journal is applied, and what the loops call the series
//!   → written step by step, with a background task's share of the core      samples are applied meanwhile
//!   → every loop syncs once more                                           what came meanwhile is on the device
//!   → one manifest write names the file and the positions of the cut (executor 0); the journals are cut below them
//! ```
//!
//! Always: one at a time; a flush that begins meanwhile ends it, for it makes it needless, and so does a journal that has
//! abandoned a file, for what was applied of that must not outlive it. What fails leaves the last one in place, is counted,
//! and is tried again when the next is due; nothing waits for it but that a flush begins some milliseconds later while the
//! loops sync. When the process stops it is dropped: its file is an orphan, which the next start removes.
//! Read next: `storage::checkpoint` for what is written, and why it may be newer than the cut.

use super::keeper::{Purpose, Switch};
use super::{Service, Shard};
use crate::adapt::ShardDisk;
use crate::front::Now;
use crate::log;
use crate::message::ToPeer;
use shard::executor::{self, TaskClass};
use std::io;
use storage::checkpoint::{CheckpointEntry, CheckpointError, CheckpointJob, Pace};
use storage::disk::Disk as _;
use storage::journal::JournalPosition;
use storage::manifest::may_be_stored;

/// One is due, whatever the time, when the journals have grown by so much since the last, or by as much as that took.
const JOURNAL_BYTES_MIN: u64 = 128 << 20;
/// How much an executor takes in until it looks at the journals again.
const LOOK_BYTES: u64 = 1 << 20;
/// Of a replayed sample in the journals, about.
const REPLAYED_SAMPLE_BYTES: u64 = 8;

/// Where the checkpoints of one executor stand.
#[derive(Default)]
pub struct Checkpoints {
    under_way: bool,
    /// Of the last one that was written.
    bytes: u64,
    /// Bytes of all journals at the last cut, or freeze.
    journal_bytes: u64,
    /// Journals that a start has replayed are as good as grown since.
    replayed_bytes: u64,
    /// Taken in since it was last looked.
    unlooked_bytes: u64,
    /// Whether anything was taken in since the last cut.
    is_wanted: bool,
    switched: Option<io::Result<()>>,
}

impl Checkpoints {
    /// A start found one of so many bytes, and replayed so many samples over it.
    pub fn new(bytes: u64, replayed_samples: u64) -> Checkpoints {
        let replayed_bytes = replayed_samples * REPLAYED_SAMPLE_BYTES;
        Checkpoints { bytes, replayed_bytes, is_wanted: replayed_samples > 0, ..Checkpoints::default() }
    }

    /// So much was taken in.
    pub fn took(&mut self, bytes: usize) {
        self.unlooked_bytes += bytes as u64;
        self.is_wanted = true;
    }

    /// Whether one is being written, or waits for the manifest.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// The manifest names it, or does not.
    pub fn switched(&mut self, result: io::Result<()>) {
        self.switched = Some(result);
    }
}

impl Service {
    /// Bytes that all journals took since the start.
    fn journal_bytes(&self) -> u64 {
        self.shared.shards.iter().map(|shard| shard.front.journal_bytes.get()).sum()
    }

    /// All that is in memory is on its way to the disk: the next one is due that much later.
    pub(super) fn begin_again(&mut self) {
        let journal_bytes = self.journal_bytes();
        let of = &mut self.checkpoints;
        (of.journal_bytes, of.replayed_bytes, of.is_wanted) = (journal_bytes, 0, false);
    }

    /// Whether the journals have grown so much that one is due. Asked after each drain, it looks at them rarely.
    fn is_checkpoint_due(&mut self) -> bool {
        if self.checkpoints.unlooked_bytes < LOOK_BYTES {
            return false;
        }
        self.checkpoints.unlooked_bytes = 0;
        let Checkpoints { bytes, journal_bytes, replayed_bytes, .. } = self.checkpoints;
        self.journal_bytes() - journal_bytes + replayed_bytes >= bytes.max(JOURNAL_BYTES_MIN)
    }
}

/// Begins one by the clock.
pub async fn run_clock(shard: Shard) {
    let interval = shard.borrow().shared.config.storage_checkpoint_interval;
    loop {
        executor::sleep(interval).await;
        let moved = shard.borrow().flush.moved();
        while shard.borrow().stopped.is_in_round() {
            moved.wait().await;
        }
        if shard.borrow().checkpoints.is_wanted {
            begin(&shard);
        }
    }
}

/// Begins one if the journals have grown enough.
pub fn look(shard: &Shard) {
    if shard.borrow_mut().is_checkpoint_due() {
        begin(shard);
    }
}

fn begin(shard: &Shard) {
    let mut service = shard.borrow_mut();
    // What a start would replay meanwhile has gone to segments, mostly; the next look comes soon.
    if service.stopped.is_in_round() {
        return;
    }
    if !service.shared.is_stopping() && !std::mem::replace(&mut service.checkpoints.under_way, true) {
        executor::spawn_local(TaskClass::Background, run(shard.clone())).detach();
    }
}

async fn run(shard: Shard) {
    let begun_nanos = Now::read().nanos;
    let Some((job, positions)) = cut(&shard) else {
        let mut service = shard.borrow_mut();
        service.checkpoints.under_way = false;
        service.flush.moved().notify();
        return;
    };
    shard.borrow().counters().checkpoint_under_way.set(1);
    let written = write_and_switch(&shard, job, positions).await;
    let mut service = shard.borrow_mut();
    service.checkpoints.under_way = false;
    service.counters().checkpoint_under_way.set(0);
    service.flush.moved().notify();
    let counters = service.counters();
    match written {
        Ok(Some(entry)) => {
            let now = Now::read();
            counters.checkpoints.add(1);
            counters.checkpoint_bytes.set(entry.bytes);
            counters.checkpoint_nanos.set(now.nanos - begun_nanos);
            counters.checkpoint_unix_seconds.set(now.unix_ms.max(0) as u64 / 1_000);
            service.checkpoints.bytes = entry.bytes;
        }
        // A flush has done more.
        Ok(None) => {}
        Err(error) => {
            counters.checkpoint_failures.add(1);
            log::error(format!(
                "shard {}: no checkpoint, so a restart would replay more: {error}",
                service.index
            ));
            service.checkpoints.is_wanted = true;
        }
    }
}

/// The cut. None where a flush is under way or about to begin, and where there is nothing to write.
fn cut(shard: &Shard) -> Option<(CheckpointJob<ShardDisk>, Vec<JournalPosition>)> {
    let mut service = shard.borrow_mut();
    if !service.flush.rests() || service.flush.is_wanted_at_once() {
        return None;
    }
    let id = service.shared.next_segment_id();
    let job = service.store.begin_checkpoint(id, Pace::default())?;
    service.begin_again();
    Some((job, service.flush.applied_positions()))
}

/// The checkpoint that a manifest names now; none where a flush came between.
async fn write_and_switch(
    shard: &Shard,
    mut job: CheckpointJob<ShardDisk>,
    positions: Vec<JournalPosition>,
) -> Result<Option<CheckpointEntry>, String> {
    let disk = shard.borrow().disk.clone();
    let entry = loop {
        match job.step().await {
            Ok(Some(entry)) => break entry,
            Ok(None) if shard.borrow().shared.is_stopping() => {
                job.abandon().await;
                return Ok(None);
            }
            Ok(None) => disk.give_way().await,
            Err(error) => {
                job.abandon().await;
                return match error {
                    CheckpointError::Superseded => Ok(None),
                    error => Err(error.to_string()),
                };
            }
        }
    };
    let is_synced = sync_journals(shard).await;
    if !is_synced || !job.is_current() {
        job.abandon().await;
        return Ok(None);
    }
    let (from, moved) = {
        let service = shard.borrow();
        (service.index, service.flush.moved())
    };
    let switch =
        Switch { purpose: Purpose::Checkpoint, checkpoint: Some(entry), positions, ..Switch::default() };
    let mut message = ToPeer::Switch { from, switch: Box::new(switch) };
    loop {
        // Looked at in the step that sends: the switch of a flush that freezes memory from here on comes behind this one,
        // and takes the checkpoint out again. The other way round what that flush deleted would be back.
        if !job.is_current() {
            job.abandon().await;
            return Ok(None);
        }
        match shard.borrow_mut().peers.send(0, message) {
            Ok(()) => break,
            Err(back) => message = back,
        }
        executor::sleep(super::RING_RETRY).await;
    }
    let switched = loop {
        let switched = shard.borrow_mut().checkpoints.switched.take();
        match switched {
            Some(result) => break result,
            None => moved.wait().await,
        }
    };
    match switched {
        Ok(()) => {
            shard.borrow_mut().store.checkpointed();
            Ok(Some(entry))
        }
        Err(error) => {
            // A start may find it named.
            if !may_be_stored(&error) {
                job.abandon().await;
            }
            Err(format!("the manifest: {error}"))
        }
    }
}

/// Returns when every loop has synced what was applied of its journal; false where a flush is about to take the memory.
async fn sync_journals(shard: &Shard) -> bool {
    let moved = shard.borrow().flush.moved();
    loop {
        let begun = shard.borrow_mut().begin_checkpoint_sync();
        match begun {
            Some(true) => break,
            Some(false) => return false,
            None => executor::sleep(super::RING_RETRY).await,
        }
    }
    loop {
        if let Some(ended) = shard.borrow_mut().flush.end_checkpoint_sync() {
            return ended;
        }
        moved.wait().await;
    }
}
