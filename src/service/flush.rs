//! From memtable to segment, and what that needs of the loops: positions of their journals.
//!
//! ```text
//! due (bytes, time, stop) → ask every loop for its position, so that a quiet one holds no journal back
//!   → all have told: freeze the memtable             its positions: up to where each journal was applied
//!   → write the segment, yielding                    frozen stays readable
//!   → ask every loop once more                       it syncs first, so what is named is on the device
//!   → one manifest write names segment and positions (executor 0)
//!   → drop the frozen memtable; journals are cut below the lowest positions
//! ```
//!
//! The positions are exactly those of the freeze: were one of them lower, replay would bring an older value
//! of a time over the newer one that the segment holds.
//! A failed flush leaves everything as it was and is tried again, with the positions of its own freeze.
//! Of series that have stopped what they hold goes alone, by the same way and without positions (`stopped.rs`).
//!
//! When a journal abandons a file, what was answered at `written` behind its last good position is in memory alone,
//! for it will not be replayed. So the loop asks for a flush at once. It may name a position in the abandoned part:
//! the next file's sequence is higher, so nothing that will be written lies below it.

use super::keeper::{Purpose, Switch};
use super::{Service, Shard, admission, compact, send_to_loop, send_to_peer};
use crate::adapt::ShardDisk;
use crate::delete_series::DeleteSeries;
use crate::front::Now;
use crate::log;
use crate::message::{ToLoop, ToPeer};
use crate::shared::Shared;
use shard::executor::{self, LocalEvent, TaskClass};
use shard::file::LoopFile;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use storage::deletes::Delete;
use storage::journal::{self, JournalPosition, NextFile, PreparedFile};
use storage::manifest::Tombstone;
use storage::memtable::Silence;
use storage::store::{FlushJob, Stopped};

/// After a failed flush.
const RETRY: Duration = Duration::from_secs(5);
/// So much of the memory for samples may have gone to segments by parts before all of it is flushed, where no checkpoint
/// comes: a start replays it, beside what is in memory.
const PARTED_SHARE: usize = 8;
/// When a loop had no place for the question how far it is.
const ASK_RETRY: Duration = Duration::from_millis(10);

/// Where a flush stands.
pub struct Flush {
    state: State,
    retry_at_nanos: u64,
    /// It was to begin, and a loop had no place for the question, or something was in the way that does not do its work.
    unasked: bool,
    /// What is under way writes some of the series only.
    is_part: bool,
    /// A task that asks again by the clock is under way.
    asking_again: bool,
    /// What a journal has lost is in memory and not yet frozen.
    at_once: bool,
    /// Up to where each journal's samples of this executor are in the store.
    applied: Vec<JournalPosition>,
    /// `applied` at the last freeze.
    frozen_positions: Vec<JournalPosition>,
    switched: Option<io::Result<()>>,
    /// Rung when `switched` is set, and when a flush has ended.
    moved: Rc<LocalEvent>,
    /// What is to be deleted of all that the next freeze takes, and of what was before it.
    wanted_deletes: Vec<WantedDelete>,
    /// Whose deletes are on their way with the flush that is under way.
    deleting: Vec<u64>,
    /// How those ended that somebody waits for, by ticket.
    deleted: BTreeMap<u64, Result<(), String>>,
    next_ticket: u64,
}

struct WantedDelete {
    ticket: u64,
    /// Nothing where the flush itself is waited for.
    request: Option<DeleteSeries>,
}

enum State {
    Resting,
    /// Before the freeze; how many loops have still to tell.
    Asking(usize),
    Writing,
    /// After the segment is written; how many loops have still to sync.
    Syncing(usize),
    /// No flush: after a checkpoint is written; how many loops have still to sync. Answers do not say to which question,
    /// so a flush that is to begin waits for the last.
    SyncingCheckpoint(usize),
}

impl Flush {
    /// Nothing to flush yet; replay has brought each journal to its end.
    pub fn new(applied: Vec<JournalPosition>) -> Flush {
        Flush {
            state: State::Resting,
            retry_at_nanos: 0,
            unasked: false,
            is_part: false,
            asking_again: false,
            at_once: false,
            applied,
            frozen_positions: Vec::new(),
            switched: None,
            moved: Rc::new(LocalEvent::new()),
            wanted_deletes: Vec::new(),
            deleting: Vec::new(),
            deleted: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// Notes up to where a loop's samples have been taken from the ring.
    pub fn applied(&mut self, from: usize, position: JournalPosition) {
        self.applied[from] = self.applied[from].max(position);
    }

    /// Notes how far a loop's journal is synced; true when the flush can begin to write.
    pub fn take_position(&mut self, from: usize, position: JournalPosition) -> bool {
        self.applied(from, position);
        match &mut self.state {
            State::Asking(missing) => {
                *missing -= 1;
                if *missing == 0 {
                    self.state = State::Writing;
                    return true;
                }
            }
            State::Syncing(missing) | State::SyncingCheckpoint(missing) => {
                *missing -= 1;
                self.moved.notify();
            }
            State::Resting | State::Writing => {}
        }
        false
    }

    /// A loop has stopped, its journal synced: nothing need be waited for from it.
    pub fn loop_stopped(&mut self) {
        self.moved.notify();
    }

    /// The manifest names the new segment, or does not.
    pub fn switched(&mut self, result: io::Result<()>) {
        self.switched = Some(result);
        self.moved.notify();
    }

    /// A flush is to begin as soon as none is under way, whatever little there is.
    pub fn at_once(&mut self) {
        self.at_once = true;
    }

    /// Whether that is still to be done.
    pub fn is_wanted_at_once(&self) -> bool {
        self.at_once
    }

    /// Whether none is under way.
    pub fn rests(&self) -> bool {
        matches!(self.state, State::Resting)
    }

    /// Up to where each journal is in the store.
    pub fn applied_positions(&self) -> Vec<JournalPosition> {
        self.applied.clone()
    }

    /// Rung whenever something has come that a flush or a checkpoint waits for.
    pub fn moved(&self) -> Rc<LocalEvent> {
        self.moved.clone()
    }

    /// Whether what a checkpoint holds is synced; `None` while it is not yet, false where it is not to count: a journal has
    /// abandoned a file, or the loops have stopped and the last flush takes all.
    pub fn end_checkpoint_sync(&mut self) -> Option<bool> {
        match self.state {
            State::SyncingCheckpoint(0) => {
                self.state = State::Resting;
                Some(!self.at_once)
            }
            State::SyncingCheckpoint(_) => None,
            _ => Some(false),
        }
    }
}

impl Service {
    /// Asks the loops how far they are, unless a flush is under way or has just failed. Where one has no place for the
    /// question, [`ask_again`] is to see to it.
    pub fn begin_flush(&mut self) {
        // While the loops sync for a checkpoint, or some series are written alone, it begins a moment later.
        self.flush.unasked = self.flush.is_part || matches!(self.flush.state, State::SyncingCheckpoint(_));
        if !self.flush.rests() || Now::read().nanos < self.flush.retry_at_nanos {
            return;
        }
        let shards = self.shared.shard_count();
        if self.ask_positions() {
            self.flush.state = State::Asking(shards);
        } else {
            self.flush.unasked = true;
        }
    }

    /// What is wanted goes with the flush that has just frozen the memory: its ids are above that segment's.
    fn take_deletes(&mut self) -> Vec<Tombstone> {
        let wanted = std::mem::take(&mut self.flush.wanted_deletes);
        let mut tombstones = Vec::new();
        for WantedDelete { ticket, request } in wanted {
            self.flush.deleting.push(ticket);
            let Some(request) = request else { continue };
            for selector in request.selectors {
                tombstones.push(Tombstone {
                    id: self.shared.next_segment_id(),
                    // A store is of a `u16` of shards.
                    shards: self.shared.shard_count() as u16,
                    shard: self.index as u16,
                    start_ms: request.start_ms,
                    end_ms: request.end_ms,
                    selector,
                });
            }
        }
        tombstones
    }

    /// Asks every loop to sync for a checkpoint that is written; false where it is not to count, `None` where a loop has no
    /// place for the question now.
    pub fn begin_checkpoint_sync(&mut self) -> Option<bool> {
        let has_stopped = self.stopped_at.iter().any(Option::is_some);
        if !self.flush.rests() || self.flush.at_once || has_stopped {
            return Some(false);
        }
        let shards = self.shared.shard_count();
        self.ask_positions().then(|| {
            self.flush.state = State::SyncingCheckpoint(shards);
            true
        })
    }

    /// Whether there is anything that a start would replay.
    fn is_flush_worth_it(&self) -> bool {
        self.store.memtable_samples() > 0 || self.store.parted_bytes() > 0
    }

    /// Asks every loop to sync and to tell how far it is; false if one has no place for the question.
    fn ask_positions(&mut self) -> bool {
        let shards = self.shared.shard_count();
        if (0..shards).any(|to| !self.loops.to(to).has_free(1)) {
            return false;
        }
        for to in 0..shards {
            let sent = self.loops.send(to, ToLoop::AskPosition { executor: self.index });
            debug_assert!(sent.is_ok(), "there was a place a moment ago, and only this executor uses them");
        }
        true
    }
}

/// Flushes by time, so that a store that receives little still lets its journals be cut.
pub async fn run_clock(shard: Shard) {
    let interval = shard.borrow().shared.config.storage_flush_interval;
    loop {
        executor::sleep(interval).await;
        if shard.borrow().is_flush_worth_it() {
            shard.borrow_mut().begin_flush();
        }
        ask_again(&shard);
    }
}

/// Begins a flush by the clock that a loop had no place to be asked about: no mail may come for a while.
pub fn ask_again(shard: &Shard) {
    let flush = &mut shard.borrow_mut().flush;
    if flush.unasked && !std::mem::replace(&mut flush.asking_again, true) {
        executor::spawn_local(TaskClass::Background, ask_until_there_is_a_place(shard.clone())).detach();
    }
}

async fn ask_until_there_is_a_place(shard: Shard) {
    loop {
        executor::sleep(ASK_RETRY).await;
        let mut service = shard.borrow_mut();
        service.begin_flush();
        if !service.flush.unasked {
            service.flush.asking_again = false;
            return;
        }
    }
}

/// Writes the segment and has it named; positions are known.
pub async fn run(shard: Shard) {
    shard.borrow().counters().flush_under_way.set(1);
    let result = write_and_switch(&shard).await;
    end(&shard, result);
}

fn end(shard: &Shard, result: Result<(), String>) {
    {
        let mut service = shard.borrow_mut();
        service.flush.state = State::Resting;
        service.flush.is_part = false;
        service.counters().flush_under_way.set(0);
        for ticket in std::mem::take(&mut service.flush.deleting) {
            service.flush.deleted.insert(ticket, result.clone());
        }
        if let Err(error) = &result {
            // They would wait for as long as the disk refuses, and keep places that queries need.
            for wanted in std::mem::take(&mut service.flush.wanted_deletes) {
                service.flush.deleted.insert(wanted.ticket, Err(error.clone()));
            }
        }
        service.gate.flushed(result.as_ref().map(|_| ()).map_err(String::as_str));
        match result {
            Ok(()) => service.counters().flushes.add(1),
            Err(error) => {
                service.store.abort_flush();
                service.flush.retry_at_nanos = Now::read().nanos + RETRY.as_nanos() as u64;
                service.counters().flush_failures.add(1);
                log::error(format!("shard {}: the memtable could not be flushed: {error}", service.index));
                executor::spawn_local(TaskClass::Background, retry(shard.clone())).detach();
            }
        }
        service.count_segments();
        service.flush.moved.notify();
    }
    admission::settle(shard);
    compact::begin(shard);
}

/// Deletes what was answered before this question, and returns once it is hidden and the manifest says so.
///
/// It goes with a flush of all that is in memory: so nothing of it is in memory or above a journal's position, and
/// whatever comes later is not meant.
pub async fn delete(shard: &Shard, request: DeleteSeries) -> Result<(), String> {
    with_next(shard, Some(request)).await
}

/// Returns once all that was answered before this question is in segments that the manifest names.
pub async fn flush_all(shard: &Shard) -> Result<(), String> {
    with_next(shard, None).await
}

/// Waits for the next flush that begins, and gives it something to do.
async fn with_next(shard: &Shard, request: Option<DeleteSeries>) -> Result<(), String> {
    super::drain_answered(shard);
    let (ticket, moved) = {
        let flush = &mut shard.borrow_mut().flush;
        let ticket = flush.next_ticket;
        flush.next_ticket += 1;
        flush.wanted_deletes.push(WantedDelete { ticket, request });
        flush.at_once();
        (ticket, flush.moved.clone())
    };
    loop {
        admission::settle(shard);
        if let Some(result) = shard.borrow_mut().flush.deleted.remove(&ticket) {
            return result;
        }
        moved.wait().await;
    }
}

/// Tries again by the clock: when the memory is full no drain asks for it any more.
async fn retry(shard: Shard) {
    loop {
        executor::sleep(RETRY).await;
        let mut service = shard.borrow_mut();
        service.flush.retry_at_nanos = 0;
        service.begin_flush();
        if !service.flush.rests() {
            return;
        }
    }
}

/// Writes what series that have stopped have in memory to a segment of its own: no position moves, and whatever else a flush
/// does stays to be done. False where something is in the way, or it failed.
pub async fn run_part(shard: &Shard, silence: Silence, stopped: &Stopped) -> bool {
    let job = {
        let mut service = shard.borrow_mut();
        let is_free = service.flush.rests() && !service.flush.at_once && !service.checkpoints.is_under_way();
        if !is_free || service.store.is_flushing() || service.shared.is_stopping() {
            return false;
        }
        if service.store.parted_bytes() > service.store.memory().max / PARTED_SHARE {
            // No checkpoint has come for long: the next start would replay more than memory may hold.
            service.begin_flush();
            drop(service);
            ask_again(shard);
            return false;
        }
        let id = service.shared.next_segment_id();
        let Some(job) = service.store.begin_part_flush(id, silence, stopped) else {
            // They have none, and may be forgotten.
            return true;
        };
        service.flush.state = State::Writing;
        service.flush.is_part = true;
        service.counters().flush_under_way.set(1);
        job
    };
    let result = write_and_name(shard, Some(job), Vec::new()).await;
    let is_written = result.is_ok();
    end(shard, result);
    is_written
}

async fn write_and_switch(shard: &Shard) -> Result<(), String> {
    let (job, deletes) = {
        let mut service = shard.borrow_mut();
        let id = service.shared.next_segment_id();
        let job = service.store.begin_flush(id);
        // What has failed may have been a part: a flush of all that is due comes behind it.
        service.flush.is_part = job.as_ref().is_some_and(FlushJob::is_part);
        if !job.as_ref().is_some_and(|job| job.is_retry()) {
            service.flush.frozen_positions = service.flush.applied.clone();
            service.flush.at_once = false;
            service.begin_again();
            service.gate.froze();
            service.forgot(job.as_ref().map_or(&[], |job| job.forgotten()));
        }
        let is_retry = job.as_ref().is_some_and(|job| job.is_retry());
        // What a failed flush left was frozen before they were wanted.
        let deletes = if is_retry { Vec::new() } else { service.take_deletes() };
        (job, deletes)
    };
    write_and_name(shard, job, deletes).await
}

async fn write_and_name(shard: &Shard, job: Option<FlushJob>, deletes: Vec<Tombstone>) -> Result<(), String> {
    let is_part = job.as_ref().is_some_and(FlushJob::is_part);
    let (positions, index, disk, moved) = {
        let service = shard.borrow();
        let positions = if is_part { Vec::new() } else { service.flush.frozen_positions.clone() };
        (positions, service.index, service.disk.clone(), service.flush.moved.clone())
    };
    let deletes: Result<Vec<Delete>, _> = deletes.into_iter().map(Delete::new).collect();
    let deletes = deletes.map_err(|error| error.to_string())?;
    let flushed = match &job {
        Some(job) => Some(job.run(&disk).await.map_err(|error| error.to_string())?),
        None => None,
    };
    let added = flushed.iter().map(|flushed| *flushed.entry()).collect();
    sync_journals(shard, &moved).await;
    let tombstones = deletes.iter().map(|delete| delete.tombstone.clone()).collect();
    let purpose = if is_part { Purpose::PartFlush } else { Purpose::Flush };
    let switch = Switch { purpose, added, deletes: tombstones, positions, ..Switch::default() };
    send_to_peer(shard, 0, ToPeer::Switch { from: index, switch: Box::new(switch) }).await;
    let switched = loop {
        let switched = shard.borrow_mut().flush.switched.take();
        match switched {
            Some(result) => break result,
            None => moved.wait().await,
        }
    };
    switched.map_err(|error| format!("the manifest: {error}"))?;
    {
        // Both in one step: no query sees what is deleted by way of the segment.
        let mut service = shard.borrow_mut();
        if let Some(flushed) = flushed {
            let counters = service.counters();
            counters.flushed_bytes.add(flushed.entry().bytes);
            let again = flushed.came_again();
            counters.samples_repeated.add(again.repeated);
            counters.samples_replaced.add(again.replaced);
            service.store.finish_flush(flushed);
        }
        service.store.add_deletes(deletes);
    }
    if let Some(mut written) = job.and_then(FlushJob::end) {
        while written.let_go() {
            executor::yield_if_needed().await;
        }
    }
    Ok(())
}

/// Returns when every loop has synced what the frozen memtable holds of its journal. Loops that have stopped
/// have synced everything.
async fn sync_journals(shard: &Shard, moved: &LocalEvent) {
    loop {
        let waits = {
            let mut service = shard.borrow_mut();
            let is_stopped = service.stopped_at.iter().all(Option::is_some);
            if is_stopped || matches!(service.flush.state, State::Syncing(0)) {
                service.flush.state = State::Writing;
                return;
            }
            if matches!(service.flush.state, State::Writing) && service.ask_positions() {
                service.flush.state = State::Syncing(service.shared.shard_count());
            }
            matches!(service.flush.state, State::Syncing(_))
        };
        if waits {
            moved.wait().await;
        } else {
            executor::sleep(super::RING_RETRY).await;
        }
    }
}

/// Makes the file that a loop will go on in, and hands it over.
pub async fn prepare_journal(shard: Shard, from: usize, next: NextFile) {
    let (shared, disk) = {
        let service = shard.borrow();
        (service.shared.clone(), service.disk.clone())
    };
    let prepared = prepare(&shared, &disk, from, next).await;
    send_to_loop(&shard, from, ToLoop::JournalFile(prepared)).await;
}

/// Makes a journal file; why there is none is told here, once for all who wait for it. There is none before the
/// manifest names the run.
pub async fn prepare(
    shared: &Shared,
    disk: &ShardDisk,
    loop_index: usize,
    next: NextFile,
) -> io::Result<(PreparedFile, LoopFile)> {
    if !shared.run_is_stored() {
        let why = "the disk is full: the manifest does not name this run yet";
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    let prepare = async {
        let prepared = journal::prepare(disk, loop_index as u16, next).await?;
        let file = disk.loop_file(&journal::file_path(loop_index as u16, next.sequence))?;
        Ok((prepared, file))
    };
    let prepared: io::Result<_> = prepare.await;
    if let Err(error) = &prepared {
        log::error(format_args!("shard {loop_index}: no further journal file: {error}"));
    }
    prepared
}

/// All loops have stopped, their journals synced up to `positions`. Whatever the memtable holds is in the
/// journals; it is flushed all the same, so that the next start finds little to replay, unless a second
/// signal said not to wait. Then executor 0 hears that nothing more will come.
pub async fn finish(shard: Shard, positions: Vec<JournalPosition>) {
    let moved = shard.borrow().flush.moved.clone();
    while matches!(shard.borrow().flush.state, State::Writing | State::Syncing(_)) {
        moved.wait().await;
    }
    let worth_it = {
        let mut service = shard.borrow_mut();
        for (from, position) in positions.into_iter().enumerate() {
            service.flush.applied(from, position);
        }
        service.flush.state = State::Writing;
        // A checkpoint that waits for the loops waits in vain.
        service.flush.moved.notify();
        // When a stop broke off somebody's replay, executor 0 may be gone, and nobody keeps the manifest.
        let is_kept = service.shared.is_ready() && !service.shared.skips_flush();
        is_kept && service.is_flush_worth_it()
    };
    if worth_it {
        run(shard.clone()).await;
    }
    while shard.borrow().checkpoints.is_under_way() {
        moved.wait().await;
    }
    send_to_peer(&shard, 0, ToPeer::Finished).await;
    let mut service = shard.borrow_mut();
    service.finishing = true;
    service.shared.store_bells[service.index].ring();
}
