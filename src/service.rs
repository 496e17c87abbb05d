//! One executor's turn: drain, append, evaluate, flush, answer queries.
//!
//! Owner: one pinned executor per shard; it owns the series of its slots and is the only one to touch them.
//! Always: what loops published is applied in stamp order; a query first drains, so it sees whatever was
//! answered before it began; work that takes long runs as a task of its own class and yields.
//! Not here: sockets and journals (`front.rs`), how chunks are kept (`storage`).
//! Read next: `service/select.rs` for a query's share, `service/export.rs` for exports, `service/decode.rs` for large
//! bodies, `service/rules.rs` for alerts, `service/flush.rs` for the way to a segment, `service/checkpoint.rs` for what a
//! restart finds, `service/stopped.rs` for series that leave, `service/compact.rs` for what becomes of segments,
//! `service/keeper.rs` for the manifest, `service/admission.rs` for the bound of memory.

mod admission;
mod checkpoint;
mod compact;
mod decode;
mod export;
mod flush;
mod keeper;
mod renewal;
mod rule_file;
mod rules;
mod select;
mod stopped;

pub use admission::{Admission, Admitted};
pub use checkpoint::Checkpoints;
pub use compact::SegmentsChanged;
pub use flush::prepare;
pub use keeper::{Keeper, Purpose, Switch};
pub use rules::Rules;

use crate::adapt::ShardDisk;
use crate::export::ExportPage;
use crate::fan_in::{Deadline, FanIn, Inquiry, QueryError, Question};
use crate::front::{LargeBody, Now};
use crate::log;
use crate::message::{ToLoop, ToPeer, ToStore};
use crate::query_memory::QueryMemory;
use crate::shared::{Shared, StoreCounters, queue_depth_of};
use admission::Gate;
use compact::Compaction;
use flush::Flush;
use model::{Sample, Share, Stamp};
use shard::executor::{self, BellWaiter, LocalEvent, TaskClass};
use shard::mesh::{Inbox, Outbox};
use shard::net::ConnId;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use stopped::StoppedSeries;
use storage::journal::{JournalPosition, NextFile};
use storage::memtable::Appended;
use storage::store::{Memory, Store};

/// Samples taken from the rings before other tasks, and the loop, get their turn: some 0.3 ms of work. While a flush or a
/// query has its turns too, what has come meanwhile would be ten milliseconds' work at once, and the loop waits for its core.
const DRAIN_SAMPLES_MAX: usize = 4096;
/// A message counts as so many samples at least.
const MESSAGE_SAMPLES_MIN: usize = 16;
/// A new series takes as long as so many samples.
const NEW_SERIES_SAMPLES: usize = 30;
/// How long a task waits for a place in a full ring before it looks again.
const RING_RETRY: Duration = Duration::from_micros(200);

/// What an executor needs to begin.
pub struct ServiceParts {
    /// What all threads may read.
    pub shared: Arc<Shared>,
    /// Which executor.
    pub index: usize,
    /// Its store, with everything replayed that it owns.
    pub store: Store<ShardDisk>,
    /// Its window rules, with the replayed samples in them.
    pub rules: Rules,
    /// Up to where each journal was replayed into the store.
    pub applied: Vec<JournalPosition>,
    /// What the start found of a checkpoint.
    pub checkpoints: Checkpoints,
    /// The data directory.
    pub disk: ShardDisk,
    /// The manifest, with executor 0.
    pub keeper: Option<Keeper>,
    /// From the loops.
    pub inbox: Inbox<ToStore>,
    /// To the loops.
    pub loops: Outbox<ToLoop>,
    /// From the executors.
    pub peer_inbox: Inbox<ToPeer>,
    /// To the executors.
    pub peers: Outbox<ToPeer>,
}

/// One executor's state. Tasks of the executor share it and hold it only between their waits.
pub struct Service {
    shared: Arc<Shared>,
    index: usize,
    store: Store<ShardDisk>,
    disk: ShardDisk,
    rules: Rules,
    fan_in: FanIn,
    flush: Flush,
    checkpoints: Checkpoints,
    compaction: Compaction,
    stopped: StoppedSeries,
    gate: Gate,
    keeper: Option<Keeper>,
    inbox: Inbox<ToStore>,
    loops: Outbox<ToLoop>,
    peer_inbox: Inbox<ToPeer>,
    peers: Outbox<ToPeer>,
    /// Where the journals of stopped loops end.
    stopped_at: Vec<Option<JournalPosition>>,
    finished_peers: usize,
    finishing: bool,
    rules_due: Rc<LocalEvent>,
}

/// What a drain found that takes longer than a drain may.
enum Job {
    Ask { ticket: u64, from: usize, question: Arc<Question> },
    Answer { gather: Box<crate::fan_in::Gather> },
    Export { from: usize, conn: ConnId, page: Box<ExportPage> },
    Decode { from: usize, conn: ConnId, body: Box<LargeBody> },
    PrepareJournal { from: usize, next: NextFile },
    SaveRules,
    Flush,
    Switch { from: usize, switch: Box<keeper::Switch> },
    Segments,
    Finish { positions: Vec<JournalPosition> },
}

type Shard = Rc<RefCell<Service>>;

impl Service {
    /// Says that the executor is ready, and runs it until the process stops.
    pub async fn run(parts: ServiceParts) -> std::io::Result<()> {
        let waiter = BellWaiter::new(parts.shared.store_bells[parts.index].clone())?;
        let rules_due = Rc::new(LocalEvent::new());
        let shards = parts.shared.shard_count();
        let shard: Shard = Rc::new(RefCell::new(Service {
            flush: Flush::new(parts.applied),
            checkpoints: parts.checkpoints,
            compaction: Compaction::default(),
            stopped: StoppedSeries::default(),
            gate: Gate::new(shards),
            shared: parts.shared,
            index: parts.index,
            store: parts.store,
            disk: parts.disk,
            rules: parts.rules,
            fan_in: FanIn::default(),
            keeper: parts.keeper,
            inbox: parts.inbox,
            loops: parts.loops,
            peer_inbox: parts.peer_inbox,
            peers: parts.peers,
            stopped_at: vec![None; shards],
            finished_peers: 0,
            finishing: false,
            rules_due: rules_due.clone(),
        }));
        executor::spawn_local(TaskClass::Store, rules::run_clock(shard.clone(), rules_due)).detach();
        executor::spawn_local(TaskClass::Background, flush::run_clock(shard.clone())).detach();
        executor::spawn_local(TaskClass::Background, compact::run_clock(shard.clone())).detach();
        executor::spawn_local(TaskClass::Background, checkpoint::run_clock(shard.clone())).detach();
        shard.borrow_mut().open_gate();
        shard.borrow().count_segments();
        admission::settle(&shard);
        {
            // Behind the counts: whoever sees that all are ready tells what they hold.
            let service = shard.borrow();
            service.shared.executor_is_ready();
            service.shared.loop_bells[service.index].ring();
        }
        if shard.borrow().keeper.is_some() && !shard.borrow().shared.run_is_stored() {
            executor::spawn_local(TaskClass::Background, keeper::store_run(shard.clone())).detach();
        }
        let mut jobs = Vec::new();
        loop {
            let drained = shard.borrow_mut().drain(DRAIN_SAMPLES_MAX, &mut jobs);
            for job in jobs.drain(..) {
                start(&shard, job);
            }
            if shard.borrow().is_done() {
                return Ok(());
            }
            if drained {
                admission::settle(&shard);
                checkpoint::look(&shard);
                stopped::watch(&shard);
                executor::offer_core();
                executor::yield_now().await;
            } else {
                waiter.wait(|| shard.borrow().has_mail()).await?;
            }
        }
    }

    fn has_mail(&self) -> bool {
        !self.inbox.is_empty() || !self.peer_inbox.is_empty() || self.is_done()
    }

    fn counters(&self) -> &StoreCounters {
        &self.shared.shards[self.index].store
    }

    /// Takes messages, the earliest first over all loops, until they hold so many samples; says whether there were any.
    fn drain(&mut self, samples_max: usize, jobs: &mut Vec<Job>) -> bool {
        let now = Now::read();
        // Everything stamped before this moment; what is stamped while we drain waits for the next drain.
        let bound = Stamp { run: u64::MAX, nanos: now.nanos, loop_index: u16::MAX };
        let (mut taken, mut spent) = (0, 0);
        let mut samples = 0;
        let waiting = queue_depth_of(&self.shared.shards, self.index);
        while spent < samples_max {
            let key = |message: &ToStore| Stamp { run: u64::MAX, ..message.stamp() };
            let Some((from, message)) = self.inbox.pop_earliest(key, &bound) else { break };
            taken += 1;
            spent += MESSAGE_SAMPLES_MIN;
            match message {
                ToStore::Share(share) => {
                    spent += share.len().saturating_sub(MESSAGE_SAMPLES_MIN);
                    spent += share.new_series as usize * NEW_SERIES_SAMPLES;
                    samples += share.len() as u64;
                    let end = JournalPosition { sequence: share.dictionary, offset: share.journal_end };
                    self.flush.applied(from, end);
                    self.apply(from, share, now);
                }
                ToStore::Query { conn, query, .. } => self.ask_all((from, conn), *query, now, jobs),
                ToStore::Export { conn, page, .. } => jobs.push(Job::Export { from, conn, page }),
                ToStore::Decode { conn, body, .. } => jobs.push(Job::Decode { from, conn, body }),
                ToStore::Position { position, .. } => {
                    if self.flush.take_position(from, position) {
                        jobs.push(Job::Flush);
                    }
                }
                ToStore::Dictionary { dictionary, .. } => self.store.begin_dictionary(from, dictionary),
                ToStore::NamesTakenBack { names, .. } => {
                    self.store.take_names_back(from, &names);
                    self.stopped.took_back();
                }
                ToStore::Flush { .. } => self.flush.at_once(),
                ToStore::PrepareJournal { next, .. } => jobs.push(Job::PrepareJournal { from, next }),
                ToStore::WakeLoop { .. } => {
                    self.shared.loop_bells[from].ring();
                }
                ToStore::Stopped { position, .. } => {
                    self.stopped_at[from] = Some(position);
                    self.flush.loop_stopped();
                    let all: Option<Vec<JournalPosition>> = self.stopped_at.iter().copied().collect();
                    jobs.extend(all.map(|positions| Job::Finish { positions }));
                }
            }
        }
        if samples > 0 {
            let peak = &self.counters().queue_samples_peak;
            peak.set(peak.get().max(waiting));
            self.counters().samples_applied.add(samples);
        }
        while let Some((_, message)) = self.peer_inbox.pop() {
            taken += 1;
            self.take_from_peer(message, now, jobs);
        }
        self.peers.publish_and_wake();
        taken > 0
    }

    fn apply(&mut self, from: usize, share: Box<Share>, now: Now) {
        let rules = &mut self.rules;
        let mut changed = false;
        let mut observe = |watch: u16, sample: Sample, appended: Appended| {
            changed |= rules.observe(watch, sample, appended, now.unix_ms);
        };
        let arrivals = self.store.arrivals();
        let applied = self.store.apply(from, &share, &mut observe);
        if applied.unknown > 0 {
            self.tell_unknown(from, applied.unknown);
        }
        let counters = self.counters();
        counters.samples_repeated.add(applied.repeated);
        counters.samples_replaced.add(applied.replaced);
        self.shared.applied_bytes[self.index][from].add(share.bytes() as u64);
        self.checkpoints.took(share.bytes());
        let met = self.store.arrivals() - arrivals;
        self.count_series(i64::from(share.new_series) - met as i64);
        if met > 0 {
            self.note_known(&share);
        }
        if changed {
            self.rules_due.notify();
        }
        let outbox = self.loops.to(from);
        // A loop that has no place for spent shares makes new ones.
        if outbox.push(ToLoop::Spent(share)).is_ok() {
            outbox.publish();
        }
    }

    /// Samples came under numbers that no definition names. A loop defines a series before its first sample, so this is a
    /// fault of ours. No query sees them; they are in the journal until the next flush or checkpoint, and a start before that
    /// finds them.
    #[cold]
    fn tell_unknown(&self, from: usize, samples: u64) {
        let unknown = &self.counters().samples_unknown;
        if unknown.get() == 0 {
            log::error(format_args!(
                "shard {}: {samples} samples of loop {from} came under numbers that no series has, and are in no query; \
                 a start before the next flush or checkpoint finds them in the journal. \
                 ringwatch_store_samples_unknown_total counts them",
                self.index
            ));
        }
        unknown.add(samples);
        debug_assert!(false, "a loop defines a series before its first sample");
    }

    /// Tells what the store holds in memory.
    fn count_memory(&self, memory: &Memory) {
        let counters = self.counters();
        counters.series.set(self.store.series_count() as u64);
        counters.memtable_bytes.set(memory.bytes() as u64);
    }

    /// Tells how many segments there are: after a flush or a merge, and when retention took some.
    fn count_segments(&self) {
        self.counters().segments.set(self.store.segments().count() as u64);
    }

    /// Sends one client's question to every executor, this one included. Its time runs from now on.
    fn ask_all(&mut self, to: (usize, ConnId), inquiry: Inquiry, now: Now, jobs: &mut Vec<Job>) {
        let config = &self.shared.config;
        let question = Arc::new(Question {
            inquiry,
            deadline: Deadline::after(now, config.query_timeout),
            memory: QueryMemory::new(self.shared.query_budget.clone(), config.query_memory_bytes_max),
            windows: compact::windows(config),
        });
        let shards = self.shared.shard_count();
        let ticket = self.fan_in.begin(to, question.clone(), shards);
        for executor in 0..shards {
            let ask = ToPeer::Ask { ticket, from: self.index, question: question.clone() };
            // Places for every query that this loop may have out at once are there (see `launch.rs`).
            if self.peers.to(executor).push(ask).is_err() {
                let concurrency = self.shared.config.query_concurrency;
                if let Some(gather) =
                    self.fan_in.take(ticket, executor, Err(QueryError::TooMany { concurrency }))
                {
                    jobs.push(Job::Answer { gather: Box::new(gather) });
                }
            }
        }
    }

    fn take_from_peer(&mut self, message: ToPeer, now: Now, jobs: &mut Vec<Job>) {
        match message {
            ToPeer::Ask { ticket, from, question } => jobs.push(Job::Ask { ticket, from, question }),
            ToPeer::Partial { ticket, from, partial } => {
                if let Some(gather) = self.fan_in.take(ticket, from, partial) {
                    jobs.push(Job::Answer { gather: Box::new(gather) });
                }
            }
            ToPeer::RulePart { rule, from, part } => {
                let counters = &self.shared.shards[self.index].store;
                self.rules.report(rule, from, part, now.unix_ms, counters);
                // What came may have set a deadline, and the clock sleeps without a timer when there was none.
                self.rules_due.notify();
                if self.rules.wants_saving() {
                    jobs.push(Job::SaveRules);
                }
            }
            ToPeer::Switch { from, switch } => jobs.push(Job::Switch { from, switch }),
            ToPeer::Switched { purpose: Purpose::Merge, result } => self.compaction.switched(result),
            ToPeer::Switched { purpose: Purpose::Checkpoint, result } => {
                self.checkpoints.switched(result);
                self.flush.moved().notify();
            }
            ToPeer::Switched { result, .. } => self.flush.switched(result),
            ToPeer::Segments(changed) => jobs.extend(self.compaction.take(*changed).then_some(Job::Segments)),
            ToPeer::Finished => self.finished_peers += 1,
        }
    }

    /// Whether nothing is left to do after a stop.
    fn is_done(&self) -> bool {
        self.finishing
            && self.rules.is_saved()
            && self
                .keeper
                .as_ref()
                .is_none_or(|keeper| self.finished_peers == self.shared.shard_count() && keeper.rests())
    }
}

/// Takes in what was answered by now: it lies in the rings. What is found may call for a flush, and no mail may come for a
/// while, so the caller settles afterwards.
fn drain_answered(shard: &Shard) {
    let mut jobs = Vec::new();
    shard.borrow_mut().drain(usize::MAX, &mut jobs);
    jobs.into_iter().for_each(|job| start(shard, job));
}

/// Runs what a drain found as a task of its class.
fn start(shard: &Shard, job: Job) {
    let shard = shard.clone();
    match job {
        Job::Ask { ticket, from, question } => {
            executor::spawn_local(TaskClass::Query, select::answer(shard, ticket, from, question)).detach();
        }
        Job::Answer { gather } => {
            executor::spawn_local(TaskClass::Query, select::finish(shard, gather)).detach();
        }
        Job::Export { from, conn, page } => {
            executor::spawn_local(TaskClass::Query, export::run(shard, from, conn, page)).detach();
        }
        Job::Decode { from, conn, body } => {
            executor::spawn_local(TaskClass::Query, decode::run(shard, from, conn, body)).detach();
        }
        Job::PrepareJournal { from, next } => {
            executor::spawn_local(TaskClass::Background, flush::prepare_journal(shard, from, next)).detach();
        }
        Job::SaveRules => executor::spawn_local(TaskClass::Background, rules::save(shard)).detach(),
        Job::Flush => executor::spawn_local(TaskClass::Background, flush::run(shard)).detach(),
        Job::Switch { from, switch } => {
            executor::spawn_local(TaskClass::Background, keeper::carry_out(shard, from, switch)).detach();
        }
        Job::Segments => {
            executor::spawn_local(TaskClass::Background, compact::follow(shard)).detach();
        }
        Job::Finish { positions } => {
            executor::spawn_local(TaskClass::Background, flush::finish(shard, positions)).detach();
        }
    }
}

/// Sends to a loop, waiting for a place.
async fn send_to_loop(shard: &Shard, to: usize, mut message: ToLoop) {
    loop {
        match shard.borrow_mut().loops.send(to, message) {
            Ok(()) => return,
            Err(back) => message = back,
        }
        executor::sleep(RING_RETRY).await;
    }
}

/// Sends to an executor, waiting for a place.
async fn send_to_peer(shard: &Shard, to: usize, mut message: ToPeer) {
    loop {
        match shard.borrow_mut().peers.send(to, message) {
            Ok(()) => return,
            Err(back) => message = back,
        }
        executor::sleep(RING_RETRY).await;
    }
}
