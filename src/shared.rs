//! What all threads of the process may read: the configuration, who is ready, and each shard's counters.
//!
//! Always: one writer per counter; readers add up. Nothing here is on the way of a sample but its own
//! shard's counters, which lie on cache lines of their own.

mod addresses;
mod bad_messages;
mod known_series;
pub mod memory_parts;
mod series_limit;
mod stamping;

pub use addresses::{Addresses, CONNECTIONS_PER_ADDRESS_MAX, Place};
pub use bad_messages::BadMessages;
pub use known_series::{KNOWN_SERIES_BYTES_MAX, KnownSeries};
pub use series_limit::SeriesLimit;
pub use stamping::Stamping;

use crate::config::Config;
use crate::console::Console;
use crate::damage::Damage;
use crate::query_memory::QueryBudget;
use shard::bell::Bell;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use storage::manifest::Manifest;

/// What is counted on when the kernel does not tell how much memory there is.
const MEMORY_BYTES_UNKNOWN: u64 = 2 << 30;

/// Set once at launch; the flags move one way only.
pub struct Shared {
    /// The settings, whole.
    pub config: Config,
    /// Where the data lies, absolute.
    pub data_dir: PathBuf,
    /// Starts of this data directory.
    pub run: u64,
    /// Which loops stamp samples just now.
    pub stamping: Stamping,
    /// Keys the hashes of client ids, so that nobody can aim at a neighbour's place.
    pub client_seed: u64,
    /// To be divided as `memory_parts` says.
    pub memory_bytes_max: u64,
    /// Where lines for a user go.
    pub console: Console,
    /// Of `storage.series_max`, unless that is off.
    pub series_limit: Option<Arc<SeriesLimit>>,
    /// Of `http.connections_per_address_max`, unless that is off.
    pub addresses: Option<Addresses>,
    /// By executor, by loop: bytes of shares that were taken from the ring and applied.
    pub applied_bytes: Vec<Vec<Counter>>,
    /// What queries may hold of it.
    pub query_budget: Arc<QueryBudget>,
    /// What queries have found damaged.
    pub damage: Damage,
    /// Counters by shard.
    pub shards: Vec<ShardCounters>,
    /// Wakes each loop.
    pub loop_bells: Vec<Bell>,
    /// Wakes each executor.
    pub store_bells: Vec<Bell>,
    next_segment: AtomicU64,
    samples_leave_before_ms: AtomicI64,
    executors_ready: AtomicUsize,
    loops_listening: AtomicUsize,
    run_stored: AtomicBool,
    stopping: AtomicBool,
    skip_flush: AtomicBool,
}

impl Shared {
    /// Nobody is ready, nothing is stopping.
    pub fn new(
        config: Config,
        data_dir: PathBuf,
        console: Console,
        manifest: &Manifest,
        loop_bells: Vec<Bell>,
        store_bells: Vec<Bell>,
    ) -> Shared {
        let shards = loop_bells.len();
        let series_limit = config.storage_series_max;
        let client_seed = RandomState::new().hash_one(manifest.run);
        let connections_max = config.http_connections_max.saturating_mul(shards);
        let per_address = config.http_connections_per_address_max;
        let machine = || shard::memory::memory_bytes().unwrap_or(MEMORY_BYTES_UNKNOWN) / 4 * 3;
        let memory_bytes_max = config.memory_bytes_max.unwrap_or_else(machine);
        Shared {
            stamping: Stamping::default(),
            damage: Damage::default(),
            client_seed,
            addresses: per_address.map(|max| Addresses::new(max.get(), connections_max, client_seed)),
            memory_bytes_max,
            query_budget: Arc::new(QueryBudget::of_process(memory_bytes_max)),
            next_segment: AtomicU64::new(manifest.next_segment),
            samples_leave_before_ms: AtomicI64::new(i64::MIN),
            series_limit: (series_limit > 0).then(|| Arc::new(SeriesLimit::new(series_limit, shards))),
            applied_bytes: (0..shards).map(|_| (0..shards).map(|_| Counter::default()).collect()).collect(),
            shards: (0..shards).map(|_| ShardCounters::new(shards)).collect(),
            config,
            data_dir,
            console,
            run: manifest.run,
            loop_bells,
            store_bells,
            executors_ready: AtomicUsize::new(0),
            loops_listening: AtomicUsize::new(0),
            run_stored: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            skip_flush: AtomicBool::new(false),
        }
    }

    /// Bytes for samples and series in memory, per executor.
    pub fn store_bytes_max(&self) -> usize {
        memory_parts::STORES.of(self.memory_bytes_max) as usize / self.shard_count()
    }

    /// Bytes of memory for the dictionary of one loop.
    pub fn dictionary_bytes_max(&self) -> usize {
        memory_parts::DICTIONARIES.of(self.memory_bytes_max) as usize / self.shard_count()
    }

    /// Bytes for large bodies on their way to the executor and back, per loop.
    pub fn large_bytes_max(&self) -> usize {
        memory_parts::LARGE_BODIES.of(self.memory_bytes_max) as usize / self.shard_count()
    }

    /// Bytes of requests that have not come whole, per loop.
    pub fn unfinished_bytes_max(&self) -> usize {
        memory_parts::UNFINISHED.of(self.memory_bytes_max) as usize / self.shard_count()
    }

    /// Bytes of shares from one loop that may wait for one executor. One turn's share comes on top.
    pub fn ring_bytes_max(&self) -> u64 {
        let shards = self.shard_count() as u64;
        (memory_parts::RINGS.of(self.memory_bytes_max) / (shards * shards)).max(256 * 1024)
    }

    /// An id that no segment of this directory has or had.
    pub fn next_segment_id(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    /// Samples before that millisecond are to leave for good: what the keeper says, by the time that it believes.
    pub fn samples_leave_before(&self, ms: i64) {
        self.samples_leave_before_ms.store(ms, Ordering::Relaxed);
    }

    /// The first millisecond that a merge is to keep; the lowest of all until the keeper has looked.
    pub fn oldest_kept_ms(&self) -> i64 {
        self.samples_leave_before_ms.load(Ordering::Relaxed)
    }

    /// Shards, each of one loop and one executor.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The manifest on disk does not name this run yet, for the disk is full: nothing may be journaled under it, or
    /// the next start would give its stamps again.
    pub fn run_is_owed(&self) {
        self.run_stored.store(false, Ordering::Release);
    }

    /// The manifest on disk names this run.
    pub fn store_run(&self) {
        self.run_stored.store(true, Ordering::Release);
    }

    /// Whether the manifest on disk names this run.
    pub fn run_is_stored(&self) -> bool {
        self.run_stored.load(Ordering::Acquire)
    }

    /// One executor has replayed what it owns.
    pub fn executor_is_ready(&self) {
        self.executors_ready.fetch_add(1, Ordering::Release);
    }

    /// Whether every executor has replayed what it owns.
    pub fn is_ready(&self) -> bool {
        self.executors_ready.load(Ordering::Acquire) == self.shards.len()
    }

    /// One loop has opened its listener.
    pub fn loop_is_listening(&self) {
        self.loops_listening.fetch_add(1, Ordering::Release);
    }

    /// Whether every loop takes connections.
    pub fn all_listen(&self) -> bool {
        self.loops_listening.load(Ordering::Acquire) == self.shards.len()
    }

    /// Asks every loop to finish; the second time, executors leave their memtables to the journal.
    pub fn stop(&self) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            self.skip_flush.store(true, Ordering::SeqCst);
        }
        for bell in self.loop_bells.iter().chain(&self.store_bells) {
            bell.ring();
        }
    }

    /// Whether the process is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the last flush is to be left out.
    pub fn skips_flush(&self) -> bool {
        self.skip_flush.load(Ordering::Acquire)
    }

    /// Samples that loops accepted and executors have not yet stored.
    pub fn queue_depth(&self) -> u64 {
        // Applied first: what is accepted in between makes the depth larger, never negative.
        let applied: u64 = self.shards.iter().map(|shard| shard.store.samples_applied.get()).sum();
        let accepted: u64 = self.shards.iter().map(|shard| shard.front.samples_accepted.get()).sum();
        accepted.saturating_sub(applied)
    }
}

/// Samples that all loops accepted for the executor of one shard, and that it has not yet stored.
pub fn queue_depth_of(shards: &[ShardCounters], owner: usize) -> u64 {
    // Applied first, as above.
    let applied = shards[owner].store.samples_applied.get();
    let accepted: u64 = shards.iter().map(|shard| shard.front.samples_by_owner.of(owner).get()).sum();
    accepted.saturating_sub(applied)
}

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owner does. A plain load and store: no other core writes, so no lock prefix.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Sets; only the owner does.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number as last seen.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One shard's two writers, apart in memory.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Written by the loop.
    pub front: FrontCounters,
    /// Written by the executor.
    pub store: StoreCounters,
}

impl ShardCounters {
    /// Nothing counted yet, in a process of so many shards.
    pub fn new(shards: usize) -> ShardCounters {
        let samples_by_owner = CountersByOwner::new(shards);
        ShardCounters {
            front: FrontCounters { samples_by_owner, ..FrontCounters::default() },
            store: StoreCounters::default(),
        }
    }
}

/// One loop's counters by the shard that owns what is counted, on cache lines that no other loop writes.
#[derive(Debug, Default)]
pub struct CountersByOwner(Vec<CounterLine>);

const COUNTERS_PER_LINE: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct CounterLine([Counter; COUNTERS_PER_LINE]);

const _: () = assert!(size_of::<CounterLine>() == 128, "a line holds as many counters as fit");

impl CountersByOwner {
    fn new(shards: usize) -> CountersByOwner {
        CountersByOwner((0..shards.div_ceil(COUNTERS_PER_LINE)).map(|_| CounterLine::default()).collect())
    }

    /// The counter of one owner.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn of(&self, owner: usize) -> &Counter {
        &self.0[owner / COUNTERS_PER_LINE].0[owner % COUNTERS_PER_LINE]
    }
}

/// What an I/O loop counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct FrontCounters {
    pub requests: Counter,
    pub samples_accepted: Counter,
    /// The same, by the shard that owns their series.
    pub samples_by_owner: CountersByOwner,
    pub bodies_accepted: Counter,
    pub validation_errors: Counter,
    /// Of bodies that were taken: samples that could not be, and what is not kept.
    pub samples_left_out: Counter,
    pub histograms_skipped: Counter,
    pub exemplars_skipped: Counter,
    pub metadata_skipped: Counter,
    pub texts_skipped: Counter,
    pub overload_refusals: Counter,
    pub memory_refusals: Counter,
    pub series_refusals: Counter,
    pub rate_limited: Counter,
    pub bad_messages: BadMessages,
    pub pauses: Counter,
    pub paused_nanos: Counter,
    pub connections: Counter,
    pub connections_accepted: Counter,
    /// Told that there are too many connections, or too many of its address.
    pub connections_refused: Counter,
    pub connections_refused_address: Counter,
    /// Closed because nothing came on them; ended by a reset or another failure; never read from again.
    pub connections_idle: Counter,
    pub connections_broken: Counter,
    /// Ended, however that came, without a byte from their client.
    pub connections_unused: Counter,
    pub sends_timed_out: Counter,
    pub accepts_held: Counter,
    pub accepts_failed: Counter,
    pub enters: Counter,
    pub receive_buffers_exhausted: Counter,
    pub sends_delayed: Counter,
    pub journal_bytes: Counter,
    pub journal_writes: Counter,
    pub journal_syncs: Counter,
    pub journal_failures: Counter,
    /// Nanoseconds at the quantiles of [`LATENCY_QUANTILES`], then their count and sum.
    pub latency: [Counter; LATENCY_QUANTILES.len()],
    pub latency_count: Counter,
    pub latency_sum_nanos: Counter,
}

/// What `GET /metrics` tells of each loop's latency histogram.
pub const LATENCY_QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

/// What an executor counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StoreCounters {
    pub samples_applied: Counter,
    pub samples_repeated: Counter,
    pub samples_replaced: Counter,
    /// Under numbers that no definition named, which is a fault of ours.
    pub samples_unknown: Counter,
    pub samples_replayed: Counter,
    /// What the start found in the checkpoint.
    pub samples_loaded: Counter,
    pub queue_samples_peak: Counter,
    pub series: Counter,
    pub memtable_bytes: Counter,
    pub segments: Counter,
    pub flushes: Counter,
    /// Of the segments that flushes wrote.
    pub flushed_bytes: Counter,
    pub flush_failures: Counter,
    /// 1 while a flush freezes, writes or waits for the manifest; the same of merges and checkpoints.
    pub flush_under_way: Counter,
    pub merge_under_way: Counter,
    pub checkpoint_under_way: Counter,
    pub checkpoints: Counter,
    pub checkpoint_failures: Counter,
    /// Of the last one: its file, how long it took from its cut to the manifest, and when that was.
    pub checkpoint_bytes: Counter,
    pub checkpoint_nanos: Counter,
    pub checkpoint_unix_seconds: Counter,
    pub merges: Counter,
    pub merge_failures: Counter,
    /// Of the segments that merges wrote.
    pub merged_bytes: Counter,
    pub queries: Counter,
    pub query_failures: Counter,
    pub alerts_firing: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: two loops accept for each of 20 executors, more than one line of counters holds; each executor
    /// has stored a part.
    #[test]
    fn the_depth_of_a_shard_is_what_all_loops_accepted_for_it_and_it_has_not_stored() {
        const SHARDS: usize = 20;
        let shards: Vec<ShardCounters> = (0..SHARDS).map(|_| ShardCounters::new(SHARDS)).collect();
        for owner in 0..SHARDS {
            shards[0].front.samples_by_owner.of(owner).add(100);
            shards[7].front.samples_by_owner.of(owner).add(owner as u64);
            shards[owner].store.samples_applied.add(90);
        }
        for owner in 0..SHARDS {
            assert_eq!(queue_depth_of(&shards, owner), 10 + owner as u64);
        }
        shards[3].store.samples_applied.add(1_000);
        assert_eq!(queue_depth_of(&shards, 3), 0, "what is counted late makes no depth");
    }
}
