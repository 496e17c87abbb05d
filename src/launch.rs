//! Lays shards on cores, starts them, and stops them.
//!
//! ```text
//! limits and kernel → directory locked → port free → manifest (another shard count: `reshard.rs`)
//!   → journals recovered → run number raised (full disk: `service/keeper.rs` goes on trying) → meshes → executors read their checkpoints and replay
//!   while loops already answer
//! ```
//!
//! Always: nothing is served before the directory is ours and the port was free; a missing feature or limit
//! is named with what mends it; loops end before executors.
//! Not here: what a loop or an executor does (`front.rs`, `service.rs`).

mod banner;
mod data_directory;
mod error;
mod store_start;

pub use error::LaunchError;

use store_start::StoreStart;

use crate::config::Config;
use crate::console::{Console, FLUSH_PATIENCE, Lines};
use crate::front::{BATCHES_PENDING_MAX, Front, FrontParts, Portion, RING_PLACES_KEPT, TURNED_AWAY_MAX, Wal};
use crate::log;
use crate::message::{ToLoop, ToPeer, ToStore};
use crate::reshard::{self};
use crate::shared::Shared;
use alert::WindowRule;
use shard::bell::Bell;
use shard::executor::{ExecutorConfig, ExecutorHandle, PREEMPT_DEFAULT};
use shard::file::DirectoryLock;
use shard::mesh::{Inbox, Outbox, mesh};
use shard::net::{ClaimedPort, NetConfig, NetError};
use shard::probe::{Kernel, Needs, probe};
use shard::signal::{Signal, Signals};
use shard::topology::{CoreId, choose_cores, discover, pin};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use storage::checkpoint::{CHECKPOINTS_FOLDER, checkpoint_path};
use storage::disk::{Disk as _, StdDisk, is_full, ready};
use storage::journal::{self, JournalLimits, Recovered, Writer, recover};
use storage::manifest::Manifest;
use storage::segment::{SEGMENTS_FOLDER, segment_path};

/// Values that may wait in a ring from a loop to an executor, besides queries: the loop takes no samples from
/// [`BATCHES_PENDING_MAX`] on, and leaves some places to questions and to the journal; the rest is for large bodies
/// and for a turn that goes on in a new file. Rings grow with the square of the shards, so they are no larger.
const STORE_RING_PLACES: usize = 192;
const _: () =
    assert!(BATCHES_PENDING_MAX + RING_PLACES_KEPT < STORE_RING_PLACES, "a turn needs more than one");
/// Answers, spent shares and requests that may wait for one loop: all shares that its ring to the executor holds, and as
/// much again for the rest.
const LOOP_RING_PLACES: usize = 512;
/// Words about clients' rate limits that may wait for one loop from another; a full ring is tried again.
const PORTION_RING_PLACES: usize = 256;
/// Bytes glommio may keep for file operations, per executor; they count as locked memory.
const EXECUTOR_IO_BYTES: usize = 1 << 20;
/// Connections that a turn takes in, in a short turn and at most. Each costs some 20 µs with all that the kernel does for
/// it, and requests of others wait for them.
const ACCEPTS_PER_TURN: RangeInclusive<u16> = 4..=64;
/// Descriptors for journals, segments, rings and the rest, besides connections.
const DESCRIPTORS_RESERVED: u64 = 1_000;
const _: () = assert!((TURNED_AWAY_MAX as u64) < DESCRIPTORS_RESERVED / 2, "their slots count, too");
/// Fewer connections than this are not worth a start.
const CONNECTIONS_MIN: u64 = 64;
/// Bytes of rings per shard that count as locked memory.
const RING_BYTES: u64 = 1 << 20;
/// How long a port may stay taken by a process that has just been killed.
const REMNANT_PATIENCE: Duration = Duration::from_secs(1);
/// A server that runs in this process.
pub struct Server {
    /// What all threads may read.
    pub shared: Arc<Shared>,
    /// Where it is served.
    port: ClaimedPort,
    cores: Vec<CoreId>,
    kernel: Kernel,
    loops: Vec<JoinHandle<()>>,
    executors: Vec<ExecutorHandle<()>>,
    failures: Receiver<LaunchError>,
    /// Whether the data directory was empty: nothing is replayed.
    is_new: bool,
    /// Journal files that nobody needs once everything is replayed.
    unused_journals: Vec<String>,
    started_at: Instant,
    _lock: DirectoryLock,
}

/// Serves until a signal says to stop.
pub fn serve(config: Config) -> Result<(), LaunchError> {
    let mut signals = Signals::catch().map_err(LaunchError::Os)?;
    let stats_interval = config.stats_interval;
    let server = start(config)?;
    let shared = server.shared.clone();
    let console = shared.console.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            loop {
                match signals.wait() {
                    Signal::Terminate | Signal::Interrupt => {
                        log::info(if shared.is_stopping() {
                            "stopping without a last flush: the journal has everything"
                        } else {
                            "stopping: requests in flight are answered, memtables flushed"
                        });
                        shared.stop();
                    }
                    // Nothing is read again yet; the default action would end the process.
                    Signal::Hangup => {}
                }
            }
        })
        .map_err(LaunchError::Os)?;
    let replay_time = server.wait_until_ready()?;
    if !server.shared.is_stopping() {
        console.tell(Lines::Notices, &server.banner(replay_time));
    }
    if let Some(interval) = stats_interval {
        let shared = server.shared.clone();
        std::thread::Builder::new()
            .name("stats".into())
            .spawn(move || print_stats(&shared, interval))
            .map_err(LaunchError::Os)?;
    }
    let stopped = server.wait_until_stopped();
    console.finish(FLUSH_PATIENCE);
    stopped?;
    log::info("stopped");
    Ok(())
}

fn print_stats(shared: &Shared, interval: Duration) {
    loop {
        std::thread::sleep(interval);
        shared.console.tell(Lines::Notices, &format!("{}\n", stats_line(shared)));
    }
}

/// `[Queue Stats] Depth: 127 | Peak: 453 | Total Processed: 2,341`.
fn stats_line(shared: &Shared) -> String {
    let depth = shared.queue_depth();
    let peak = shared.shards.iter().map(|shard| shard.store.queue_samples_peak.get()).sum::<u64>();
    let total = shared.shards.iter().map(|shard| shard.store.samples_applied.get()).sum::<u64>();
    let grouped = |number: u64| {
        let digits = number.to_string();
        let mut text = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    let (depth, peak, total) = (grouped(depth), grouped(peak.max(depth)), grouped(total));
    format!("[Queue Stats] Depth: {depth} | Peak: {peak} | Total Processed: {total}")
}

/// Starts all threads; the executors are still replaying when it returns.
pub fn start(config: Config) -> Result<Server, LaunchError> {
    let topology = discover().map_err(LaunchError::Topology)?;
    let wanted: Option<Vec<CoreId>> = config.cores.clone();
    let cores = choose_cores(&topology, config.shards, wanted.as_deref()).map_err(LaunchError::Topology)?;
    let shards = cores.len();
    let kernel = probe(&Needs {
        descriptors: DESCRIPTORS_RESERVED + CONNECTIONS_MIN,
        locked_memory_bytes: shards as u64 * (RING_BYTES + EXECUTOR_IO_BYTES as u64),
    })
    .map_err(LaunchError::System)?;

    warn_of_memory(config.memory_bytes_max);
    let data_dir = data_directory::make(&config.data_dir)?;
    let lock = DirectoryLock::acquire(&data_dir).map_err(LaunchError::Locked)?;
    let port = claim_port(config.listen)?;

    let rules: Arc<[WindowRule]> = alert::default_rules()
        .into_iter()
        .map(|rule| {
            let stale_after_ms = config.alert_stale_after.as_millis() as i64;
            rule.with_stale_after_ms(stale_after_ms).expect("the configuration asks for a second at least")
        })
        .collect();
    let disk = StdDisk::new(&data_dir);
    let found = ready(Manifest::load(&disk)).map_err(LaunchError::Manifest)?;
    let has_manifest = found.is_some();
    let mut manifest = match found {
        Some(manifest) if usize::from(manifest.shards) != shards => {
            reshard::to_shards(&disk, manifest, shards, &config).map_err(LaunchError::Reshard)?
        }
        Some(manifest) => manifest,
        None => Manifest::new(shards as u16),
    };
    let journals = recover_journals(&disk, &manifest, &config)?;
    let is_new = !has_manifest && journals.iter().all(|journal| journal.files.is_empty());
    // A kill may have come between a manifest's rename and its sync. Until that is on the device a power cut could bring
    // back the one before, which names what this one has replaced.
    if ready(disk.sync_dir("")).is_ok() {
        remove_orphans(&disk, &manifest);
    }
    manifest.run += 1;
    let run_stored = match ready(manifest.store(&disk)) {
        Ok(()) => true,
        Err(error) if is_full(&error) => {
            log::error(format_args!(
                "{}: {error}: reads are served, writes are answered 507 until there is room; free some space there",
                data_dir.display()
            ));
            false
        }
        Err(cause) => return Err(LaunchError::DataDirectory { path: data_dir, cause }),
    };

    let bells = |_| Bell::new().map_err(LaunchError::Os);
    let loop_bells: Vec<Bell> = (0..shards).map(bells).collect::<Result<_, _>>()?;
    let store_bells: Vec<Bell> = (0..shards).map(bells).collect::<Result<_, _>>()?;
    let console = Console::start().map_err(LaunchError::Os)?;
    let (failed, failures) = channel();
    let shared = Arc::new(Shared::new(config, data_dir, console, &manifest, loop_bells, store_bells));
    if !run_stored {
        shared.run_is_owed();
    }
    let mut server = Server {
        shared,
        port,
        cores,
        kernel,
        loops: Vec::new(),
        executors: Vec::new(),
        failures,
        is_new,
        unused_journals: unused_paths(&journals),
        started_at: Instant::now(),
        _lock: lock,
    };
    server.start_threads(manifest, journals, rules, &failed)?;
    Ok(server)
}

fn unused_paths(journals: &[Recovered]) -> Vec<String> {
    let paths = journals.iter().flat_map(|journal| {
        journal.unused.iter().map(|sequence| journal::file_path(journal.loop_index, *sequence))
    });
    paths.collect()
}

/// The address to listen on, which no other server has then.
///
/// The kernel takes a killed process's io_uring apart a moment after the process is gone, and its listener
/// with it. The directory is ours by now, so a server that held both can only be such a remnant: it is given
/// a second before the port counts as taken.
fn claim_port(listen: SocketAddr) -> Result<ClaimedPort, LaunchError> {
    let begun = Instant::now();
    loop {
        match ClaimedPort::claim(listen) {
            Ok(port) => return Ok(port),
            Err(NetError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < REMNANT_PATIENCE =>
            {
                std::thread::sleep(REMNANT_PATIENCE / 50);
            }
            Err(cause) => return Err(LaunchError::Listen { address: listen, cause }),
        }
    }
}

/// A budget beyond the memory there is bounds nothing: the kernel ends the process first.
fn warn_of_memory(memory_bytes_max: Option<u64>) {
    let Some((asked, there)) = memory_bytes_max.zip(shard::memory::memory_bytes()) else { return };
    if asked > there {
        log::warning(format_args!(
            "memory_bytes_max is {} MiB, and the machine or control group has {} MiB: the kernel may end the \
             process before it refuses anything; leave it at auto, or below {} MiB",
            asked >> 20,
            there >> 20,
            (there >> 20) / 4 * 3,
        ));
    }
}

fn recover_journals(
    disk: &StdDisk,
    manifest: &Manifest,
    config: &Config,
) -> Result<Vec<Recovered>, LaunchError> {
    let mut journals = Vec::new();
    for loop_index in 0..manifest.shards {
        let recovered =
            ready(recover(disk, loop_index, config.storage_on_damage)).map_err(LaunchError::Journal)?;
        if let Some(torn) = &recovered.torn {
            log::warning(format_args!(
                "{} ended in the middle of a frame at byte {} and is cut there: a crash leaves such an end, and then \
                 nothing that was acknowledged as synced lay behind it",
                torn.path, torn.position
            ));
        }
        for damage in &recovered.damage {
            log::error(format!("skipped: {damage}"));
        }
        journals.push(recovered);
    }
    Ok(journals)
}

/// Segments and checkpoints that the manifest does not name: written by what a crash broke off, or expired, or replaced.
/// What cannot be removed only costs room.
fn remove_orphans(disk: &StdDisk, manifest: &Manifest) {
    let segments = manifest.segments.iter().map(|entry| segment_path(entry.id));
    let checkpoints = manifest.checkpoints.iter().map(|entry| checkpoint_path(entry.id));
    let named: Vec<String> = segments.chain(checkpoints).collect();
    for folder in [SEGMENTS_FOLDER, CHECKPOINTS_FOLDER] {
        let names = ready(disk.list(folder)).unwrap_or_default();
        for path in names.iter().map(|name| format!("{folder}/{name}")).filter(|path| !named.contains(path)) {
            tell_unremoved(ready(disk.remove(&path)));
        }
    }
}

fn tell_unremoved(removed: io::Result<()>) {
    if let Err(error) = removed {
        log::warning(format_args!("a file that nobody needs could not be removed: {error}"));
    }
}

/// The ends of the meshes that belong to one shard.
struct Ends {
    to_store: Outbox<ToStore>,
    from_loops: Inbox<ToStore>,
    to_loop: Outbox<ToLoop>,
    from_stores: Inbox<ToLoop>,
    to_peer: Outbox<ToPeer>,
    from_peers: Inbox<ToPeer>,
    to_loops: Outbox<Portion>,
    from_other_loops: Inbox<Portion>,
}

fn lay_meshes(shared: &Shared) -> Vec<Ends> {
    let shards = shared.shard_count();
    // An executor has out what its own loop asks: both an ask to another and a partial for that one's ask, of every
    // query that may be out, and room for rules and switches.
    let peer_places = 2 * shared.config.query_concurrency + 64;
    let store_ring_places = STORE_RING_PLACES + shared.config.query_concurrency;
    let (to_store, from_loops) = mesh(shards, &shared.store_bells, store_ring_places);
    let (to_loop, from_stores) = mesh(shards, &shared.loop_bells, LOOP_RING_PLACES);
    let (to_peer, from_peers) = mesh(shards, &shared.store_bells, peer_places);
    let portion_places =
        if shared.config.ingest_rate_limit_per_client.is_some() { PORTION_RING_PLACES } else { 1 };
    let (to_loops, from_other_loops) = mesh(shards, &shared.loop_bells, portion_places);
    let loops = to_store.into_iter().zip(from_stores);
    let stores = from_loops.into_iter().zip(to_loop);
    let peers = to_peer.into_iter().zip(from_peers);
    let fellows = to_loops.into_iter().zip(from_other_loops);
    loops
        .zip(stores)
        .zip(peers)
        .zip(fellows)
        .map(|((((to_store, from_stores), (from_loops, to_loop)), (to_peer, from_peers)), fellows)| Ends {
            to_store,
            from_loops,
            to_loop,
            from_stores,
            to_peer,
            from_peers,
            to_loops: fellows.0,
            from_other_loops: fellows.1,
        })
        .collect()
}

impl Server {
    fn start_threads(
        &mut self,
        manifest: Manifest,
        journals: Vec<Recovered>,
        rules: Arc<[WindowRule]>,
        failed: &std::sync::mpsc::Sender<LaunchError>,
    ) -> Result<(), LaunchError> {
        let connections_max = self.connections_max();
        let journals = Arc::new(journals);
        for (index, ends) in lay_meshes(&self.shared).into_iter().enumerate() {
            let core = self.cores[index];
            let resume = journals[index].resume.above(manifest.highest_position(index));
            let file_bytes_min = self.shared.config.storage_journal_file_bytes;
            let dictionary_bytes_max = self.shared.dictionary_bytes_max();
            let limits = JournalLimits {
                file_bytes_min,
                dictionary_bytes_max,
                dictionary_seed: self.shared.client_seed,
                ..JournalLimits::default()
            };
            let mut writer = Writer::new(index as u16, self.shared.run, resume, limits);
            let first_file = writer.needs_file();

            let start = StoreStart {
                shared: self.shared.clone(),
                index,
                manifest: manifest.clone(),
                journals: journals.clone(),
                rules: rules.clone(),
                first_file,
                inbox: ends.from_loops,
                loops: ends.to_loop,
                peer_inbox: ends.from_peers,
                peers: ends.to_peer,
            };
            let config = ExecutorConfig {
                core,
                name: format!("store-{index}"),
                io_memory_bytes: EXECUTOR_IO_BYTES,
                preempt: PREEMPT_DEFAULT,
                nicer_by: self.shared.config.executor_nicer_by,
            };
            let failed_store = failed.clone();
            let executor = shard::executor::spawn(config, move || async move {
                if let Err(cause) = start.run().await {
                    // The main thread listens until all threads have ended.
                    let _ = failed_store.send(cause);
                }
            });
            let executor = executor.map_err(|cause| LaunchError::Executor { index, cause })?;
            if let Some(refused) = executor.nice_refused() {
                log::warning(format_args!(
                    "the executor of shard {index} could not be made nicer than its loop ({refused}): \
                     long queries will delay writes more than they need to"
                ));
            }
            self.executors.push(executor);

            let parts = FrontParts {
                shared: self.shared.clone(),
                index,
                listen: self.address(),
                net: NetConfig {
                    connections_max,
                    accepts_min: *ACCEPTS_PER_TURN.start(),
                    accepts_max: *ACCEPTS_PER_TURN.end(),
                    recv_buffers: 4096,
                    recv_buffer_bytes: 2048,
                    coalesce: self.shared.config.http_coalesce,
                    busy_poll: self.shared.config.http_busy_poll,
                    ..NetConfig::default()
                },
                wal: Wal::new(writer),
                outbox: ends.to_store,
                inbox: ends.from_stores,
                to_loops: ends.to_loops,
                from_loops: ends.from_other_loops,
            };
            let failed_loop = failed.clone();
            let run = move || {
                if !pin(core) {
                    log::warning(format!("the I/O loop of shard {index} could not be bound to core {core}"));
                }
                let result = Front::new(parts)
                    .map_err(|error| match error {
                        NetError::BusyPoll(_) => format!("{error}; http.busy_poll_us = 0 does without"),
                        error => error.to_string(),
                    })
                    .and_then(|front| front.run().map_err(|error| error.to_string()));
                if let Err(cause) = result {
                    let _ = failed_loop.send(LaunchError::Loop { index, cause });
                }
            };
            let thread = std::thread::Builder::new().name(format!("loop-{index}")).spawn(run);
            self.loops.push(thread.map_err(LaunchError::Os)?);
        }
        Ok(())
    }

    /// Connections per loop: as asked, within what the descriptor limit admits for a ring's file table.
    fn connections_max(&self) -> u32 {
        let admitted = self.kernel.descriptors.soft.saturating_sub(DESCRIPTORS_RESERVED).max(CONNECTIONS_MIN);
        admitted.min(self.shared.config.http_connections_max as u64) as u32
    }

    /// Returns once everything is replayed and every loop takes connections, with the time that took, or once the
    /// process is told to stop, and then nothing was changed on disk; tells how far it is when that is long.
    pub fn wait_until_ready(&self) -> Result<Duration, LaunchError> {
        let mut told_at = Instant::now();
        // The loops are other threads than those that replay: on a busy machine they may come to listen later.
        let is_up = || self.shared.is_ready() && self.shared.all_listen();
        while !is_up() && !self.shared.is_stopping() {
            match self.failures.recv_timeout(Duration::from_millis(5)) {
                Ok(failure) => return Err(failure),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if told_at.elapsed() > Duration::from_secs(1) {
                told_at = Instant::now();
                let replayed: u64 =
                    self.shared.shards.iter().map(|shard| shard.store.samples_replayed.get()).sum();
                match self.is_new {
                    true => log::info("starting in a new directory: the shards are not all up yet"),
                    false => log::info(format_args!("replaying the journals: {replayed} samples so far")),
                }
            }
        }
        let replay_time = self.started_at.elapsed();
        if self.shared.is_ready() {
            let disk = StdDisk::new(&self.shared.data_dir);
            for path in &self.unused_journals {
                tell_unremoved(ready(disk.remove(path)));
            }
        }
        Ok(replay_time)
    }

    /// Where it is served, the port being the real one.
    pub fn address(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Returns when every thread has ended; the first failure, if there was one, which ends the others too.
    pub fn wait_until_stopped(self) -> Result<(), LaunchError> {
        let Server { shared, loops, executors, failures, .. } = self;
        // Every thread holds a sender; when all are gone there is nothing more to wait for.
        let failure = failures.recv().ok();
        if failure.is_some() {
            shared.stop();
        }
        for (index, thread) in loops.into_iter().enumerate() {
            if thread.join().is_err() {
                return Err(LaunchError::Loop { index, cause: "panicked".into() });
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        for (index, executor) in executors.into_iter().enumerate() {
            executor.join().map_err(|cause| LaunchError::Executor { index, cause })?;
        }
        Ok(())
    }
}
