//! Series that have stopped leave memory by themselves, long before it is full.
//!
//! ```text
//! a tick, eight in storage.series_stop_after: look at some thousand rows at a time, yielding
//!   a sixteenth of all has stopped → what they have in memory goes to a segment (`flush.rs`, no position moves)
//!   → the loops take their names back, some hundred at a time, behind the last sample that came under them
//!   → they are forgotten
//! ```
//!
//! Always: one round at a time, and the next at once where it was a full one; no checkpoint is begun meanwhile, and one that
//! is under way is waited for. Where a server is saturated checkpoints follow one another, and none of both may keep the
//! other from its turn. Whatever fails, or a flush, leaves them where they are until the next tick. A series that comes
//! again costs a definition and a place among the new ones, and nothing else.
//! Not here: memory that fills faster than series fall silent (`admission.rs`), what a stopped series is
//! (`storage::memtable::Silence`).

use super::{Shard, flush, send_to_loop};
use crate::message::ToLoop;
use model::Share;
use shard::executor::{self, LocalEvent, TaskClass};
use std::rc::Rc;
use std::time::Duration;
use storage::memtable::Silence;
use storage::store::{Stopped, StoppedNames};

/// Fewer series are not worth a look: some 10 MB.
const SERIES_MIN: usize = 16_384;
/// One of so many has stopped before they are worth a segment of their own. With the eighth that falls silent while a
/// tenth is replaced each minute, those in memory are 1.35 times those that are active, where rounds keep up.
const STOPPED_SHARE: usize = 16;
/// Series in one round, which are worth it however many there are. Their samples are taken away in one step, and the
/// tables made smaller in another at the end; all else goes some hundred or thousand series at a time.
const ROUND_MAX: usize = 1 << 15;
/// Ticks of a silence.
const TICKS: u8 = 8;
/// Names in one message, and messages that a loop has not answered.
const NAMES_PER_MESSAGE: usize = 256;
const UNANSWERED_MAX: usize = 4;

/// Where one executor stands with series that have stopped.
#[derive(Default)]
pub struct StoppedSeries {
    /// A task looks by the clock.
    watching: bool,
    /// A round is under way, or waits for a checkpoint.
    in_round: bool,
    /// Names that the loops have not taken back yet, in messages.
    unanswered: usize,
    /// Rung when one is answered.
    answered: Rc<LocalEvent>,
}

impl StoppedSeries {
    /// Whether no checkpoint is to be begun; when that is over the flush's event says so.
    pub fn is_in_round(&self) -> bool {
        self.in_round
    }

    /// A loop has taken names back, or knows them no more.
    pub fn took_back(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answered.notify();
    }
}

/// Looks at them from time to time, as long as there are enough series: an idle server sleeps without a timer.
pub fn watch(shard: &Shard) {
    let mut service = shard.borrow_mut();
    let is_worth_it = service.store.series_count() >= SERIES_MIN;
    if is_worth_it && !std::mem::replace(&mut service.stopped.watching, true) {
        // With a background task's share series would leave more slowly than they come, where all send what they can.
        executor::spawn_local(TaskClass::Query, run_clock(shard.clone())).detach();
    }
}

async fn run_clock(shard: Shard) {
    let tick = shard.borrow().shared.config.storage_series_stop_after / u32::from(TICKS);
    let silence = Silence { ticks: TICKS, tick_ms: tick.as_millis() as i64 };
    loop {
        executor::sleep(tick.max(Duration::from_millis(1))).await;
        {
            let mut service = shard.borrow_mut();
            service.store.tick();
            if service.store.series_count() < SERIES_MIN || service.shared.is_stopping() {
                service.stopped.watching = false;
                return;
            }
        }
        while round(&shard, silence).await {}
    }
}

/// One round, if it is worth it; whether another is likely to be.
async fn round(shard: &Shard, silence: Silence) -> bool {
    let mut stopped = Stopped::default();
    while shard.borrow().store.find_stopped(silence, ROUND_MAX, &mut stopped) {
        executor::yield_if_needed().await;
    }
    let is_full = stopped.count() == ROUND_MAX;
    if !is_full && stopped.count() * STOPPED_SHARE < shard.borrow().store.series_count() {
        return false;
    }
    let moved = shard.borrow().flush.moved();
    shard.borrow_mut().stopped.in_round = true;
    while shard.borrow().checkpoints.is_under_way() {
        moved.wait().await;
    }
    let mut forgotten = 0;
    if flush::run_part(shard, silence, &stopped).await {
        take_names_back(shard, silence, &stopped).await;
        forgotten = forget(shard, stopped).await;
    }
    shard.borrow_mut().stopped.in_round = false;
    moved.notify();
    is_full && forgotten > 0
}

/// Has the loops take back what they call those of the series that have nothing in memory any more.
async fn take_names_back(shard: &Shard, silence: Silence, stopped: &Stopped) {
    let mut names = shard.borrow().store.names_of_stopped(stopped);
    while shard.borrow().store.find_names(&mut names) {
        executor::yield_if_needed().await;
    }
    let answered = shard.borrow().stopped.answered.clone();
    for mut names in names.end() {
        let to = names.loop_index;
        while let Some(share) = next_share(shard, silence, &mut names) {
            if share.is_empty() {
                // All of them have come again.
                executor::yield_if_needed().await;
                continue;
            }
            while shard.borrow().stopped.unanswered >= UNANSWERED_MAX {
                answered.wait().await;
            }
            let executor = {
                let mut service = shard.borrow_mut();
                service.stopped.unanswered += 1;
                service.index
            };
            send_to_loop(shard, to, ToLoop::TakeNamesBack { executor, names: share }).await;
        }
    }
    while shard.borrow().stopped.unanswered > 0 {
        answered.wait().await;
    }
}

fn next_share(shard: &Shard, silence: Silence, names: &mut StoppedNames) -> Option<Box<Share>> {
    let mut share = Box::<Share>::default();
    let store = &shard.borrow().store;
    store.take_some_names(names, silence, NAMES_PER_MESSAGE, &mut share).then_some(share)
}

/// Those that no dictionary names leave the table, until a flush is on its way that finds them by it; how many left.
async fn forget(shard: &Shard, stopped: Stopped) -> usize {
    shard.borrow_mut().store.begin_forgetting(stopped);
    let (mut hashes, mut forgotten) = (Vec::new(), 0);
    loop {
        {
            let mut service = shard.borrow_mut();
            debug_assert!(!service.checkpoints.is_under_way(), "none is begun within a round");
            let goes_on = service.store.forget_some(&mut hashes);
            service.forgot(&hashes);
            forgotten += hashes.len();
            hashes.clear();
            if !goes_on {
                return forgotten;
            }
        }
        executor::yield_if_needed().await;
    }
}
