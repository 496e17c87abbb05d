//! One run: connections, load, a measured window, and the count of what came of it.
//!
//! Owner: one thread of its own, pinned, with its own ring; it touches no other state than the counters in [`Live`].
//! Always: at most one request is in flight per connection; a request is counted as answered, unanswered, or never
//! sent, exactly one of the three; every phase has a deadline.
//! Not here: what the figures mean (`figures.rs`) and whether they are right (`check.rs`).
//! Read next: `load/offer.rs` for when requests leave, `load/events.rs` for what comes back.
//!
//! ```text
//! connect all → stay idle a moment → load: warm-up, window between two readings → stop sending, wait for the rest
//! ```

use crate::answers::Reader;
use crate::arrivals::Clock;
use crate::measure::Usage;
use crate::plan::{Durability, Lifetime, Offer, Plan};
use crate::request::{Looks, Template};
use client::{Client, State};
use hdrhistogram::Histogram;
use shard::net::{Net, NetConfig, NetError, Wait};
use shard::topology::{self, CoreId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod client;
mod events;
mod offer;

#[cfg(test)]
mod tests;

/// What other threads may see of a run, and do to it.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Answers so far, of any status.
    pub answers: AtomicU64,
    /// Set to end the run early, as a failure.
    pub stop: AtomicBool,
}

/// Why a run did not take place.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// No thread could be started.
    Thread(io::Error),
    /// The generator's core is not one that it may use.
    Core(CoreId),
    /// The ring could not be made.
    Net(NetError),
    /// The ring broke.
    Ring(io::Error),
    /// Not all connections came about in time.
    Connect {
        /// How many did.
        connected: usize,
        /// How many should.
        wanted: u32,
        /// The last failure, if one was told.
        last: Option<io::Error>,
    },
    /// Somebody asked to stop.
    Stopped,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Thread(cause) => write!(f, "no thread for the load: {cause}"),
            LoadError::Core(core) => write!(f, "the load may not run on core {core}: choose another --core"),
            LoadError::Net(cause) => cause.fmt(f),
            LoadError::Ring(cause) => write!(f, "the generator's ring broke: {cause}"),
            LoadError::Connect { connected, wanted, last } => {
                write!(f, "{connected} of {wanted} connections came about")?;
                last.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            LoadError::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Latencies in nanoseconds, to three digits.
pub(crate) type Latencies = Histogram<u64>;

/// One accepted request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The intended moment.
    pub intended: Instant,
    /// From then until the answer.
    pub took: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The window's cost.
    pub usage: Usage,
    /// Answers in the window, of any status.
    pub answered: u64,
    /// 2xx in the window.
    pub accepted: u64,
    /// Of requests that were meant to leave in the window and were accepted, from the intended moment on.
    pub latency: Latencies,
    /// Of requests that were sent in the window and accepted, from then on: the server's part, without the wait for a
    /// free connection. Of an open loop.
    pub from_sending: Latencies,
    /// How late the generator itself was, in an open loop: from the moment when it should and could have sent.
    pub lateness: Latencies,
    /// Answers of the whole run by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Samples of the whole run that were answered with 2xx.
    pub acknowledged_samples: u64,
    /// Samples of the whole run that were sent and never answered.
    pub unanswered_samples: u64,
    /// Arrivals that were due and found no connection until the end.
    pub arrivals_unsent: u64,
    /// Arrivals that found no connection within the plan's patience.
    pub arrivals_given_up: u64,
    /// Pauses taken because the server asked for them.
    pub pauses: u64,
    /// Connections that ended without the run's wish, malformed answers included.
    pub connections_lost: u64,
    /// Connects that failed.
    pub connects_failed: u64,
    /// 2xx that did not reach the level asked for.
    pub levels_missed: u64,
    /// The level that the last 2xx named.
    pub level: Option<Durability>,
    /// Samples of the first connection that were answered with 2xx.
    pub first_acknowledged_samples: u64,
    /// Where the plan asks for it, each request of `latency`.
    pub each: Vec<Timing>,
    /// The server's resident bytes before the first connection, with all of them idle, and after the load.
    pub resident_bytes: [Option<u64>; 3],
}

/// Runs the plan on a thread of its own and waits for it.
pub(crate) fn run(plan: &Plan, live: &Live) -> Result<Outcome, LoadError> {
    thread::scope(|scope| {
        let load = thread::Builder::new().name("load".to_owned());
        let load = load.spawn_scoped(scope, || run_here(plan, live)).map_err(LoadError::Thread)?;
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How long all connections may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// How long answers are waited for once sending has ended.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// How long every connection's one request may take altogether.
const ONCE_PATIENCE: Duration = Duration::from_secs(60);

/// The longest wait in which a wish to stop goes unheard.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// Slots beyond the connections: closed ones free theirs a turn later.
const SLOTS_SPARE: u32 = 256;

/// What one turn may send together, in requests and in bytes.
const SENDS_PER_TURN_MAX: usize = 4096;
const ARENA_BYTES_MAX: usize = 64 << 20;

fn run_here(plan: &Plan, live: &Live) -> Result<Outcome, LoadError> {
    let subjects = &plan.subjects;
    if let Some(core) = subjects.generator_core.map(CoreId).filter(|core| !topology::pin(*core)) {
        return Err(LoadError::Core(core));
    }
    let before = subjects.resident_bytes();
    let mut load = Load::new(plan, live)?;
    load.connect_all()?;
    load.turns_until(Instant::now() + plan.idle, Until::Time)?;
    let idle = subjects.resident_bytes();

    load.begin();
    if plan.offer != Offer::Once {
        load.turns_until(Instant::now() + plan.warmup, Until::Time)?;
    }
    let begin = subjects.read();
    load.open_window();
    match plan.offer {
        Offer::Once => load.turns_until(Instant::now() + ONCE_PATIENCE, Until::AllDone)?,
        Offer::Accepted { requests } => {
            load.turns_until(Instant::now() + plan.duration, Until::Accepted(requests))?;
        }
        Offer::Open { .. } | Offer::Closed => {
            load.turns_until(Instant::now() + plan.duration, Until::Time)?;
        }
    }
    let end = subjects.read();
    load.end();
    plan.progress.clear();
    load.turns_until(Instant::now() + DRAIN_PATIENCE, Until::NothingInFlight)?;
    let resident_bytes = [before, idle, subjects.resident_bytes()];
    Ok(load.outcome(Usage::between(&begin, &end), resident_bytes))
}

/// What ends a phase, its deadline apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Time,
    Connected,
    AllDone,
    Accepted(u64),
    NothingInFlight,
}

/// Whether requests leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Not yet, or no more.
    No,
    /// On a clock that began then, or as answers come.
    Since(Instant),
}

/// The run in progress.
struct Load<'p> {
    plan: &'p Plan,
    live: &'p Live,
    template: Template,
    reader: Reader,
    net: Net,
    clients: Vec<Client>,
    /// From a slot of the ring to the client that has it; checked against the client's whole `ConnId`.
    client_of_slot: Vec<u32>,
    /// Free to send, longest first.
    idle: VecDeque<u32>,
    /// Not to be used before a moment.
    resting: BinaryHeap<Reverse<(Instant, u32)>>,
    sending: Sending,
    /// The measured window's begin, while it is open.
    window: Option<Instant>,
    arrivals: Option<Clock>,
    /// Up to which moment arrivals are offered, once a phase has ended.
    offered_until: Instant,
    /// Arrivals that a client was found for; those that it could not send before the end are unsent.
    arrivals_given: u64,
    arrivals_sent: u64,
    /// Arrivals that were due at the end and had no client.
    arrivals_left: u64,
    arrivals_given_up: u64,
    sends_per_turn_max: usize,
    /// Clients that were told to connect at least once.
    clients_started: u32,
    connecting: u32,
    /// Requests that a connection is made for.
    carried: u32,
    in_flight: u32,
    done: u32,
    random: u64,
    progress_at: Instant,
    progress_answers: u64,
    // What becomes of it; the first of the whole run, the next two of the window.
    answers: u64,
    answered: u64,
    accepted: u64,
    latency: Latencies,
    from_sending: Latencies,
    lateness: Latencies,
    statuses: Vec<u64>,
    acknowledged_requests: u64,
    unanswered_requests: u64,
    pauses: u64,
    connections_lost: u64,
    connects_failed: u64,
    connect_error: Option<io::Error>,
    levels_missed: u64,
    level: Option<Durability>,
    first_acknowledged_requests: u64,
    each: Vec<Timing>,
}

impl<'p> Load<'p> {
    fn new(plan: &'p Plan, live: &'p Live) -> Result<Load<'p>, LoadError> {
        let template = Template::new(&Looks {
            form: plan.form,
            lifetime: plan.lifetime,
            begin_ms: shard::clock::unix_millis() - i64::try_from(plan.age.as_millis()).unwrap_or(0),
            target: plan.target.addr,
            path: &plan.target.path,
            name: &plan.metric,
            batch: plan.batch,
            series: plan.series,
            labels: plan.labels,
            run: plan.run,
            durability: plan.durability,
        });
        let sends_per_turn_max = (ARENA_BYTES_MAX / template.len()).clamp(1, SENDS_PER_TURN_MAX);
        // If the limit stays too low, the ring says so with the figure.
        let _ = shard::raise_descriptor_limit();
        let config = NetConfig {
            connections_max: plan.connections + SLOTS_SPARE,
            submissions: 4096,
            completions: 32_768,
            accepts_max: 1,
            recv_buffers: 4096,
            recv_buffer_bytes: 2048,
            send_arena_bytes: sends_per_turn_max * template.len(),
            ..NetConfig::default()
        };
        let slots = (config.connections_max + u32::from(config.accepts_max)) as usize;
        let net = Net::new(config).map_err(LoadError::Net)?;
        let now = Instant::now();
        Ok(Load {
            plan,
            live,
            template,
            reader: Reader::default(),
            net,
            clients: (0..plan.connections).map(|_| Client::new(now)).collect(),
            client_of_slot: vec![0; slots],
            idle: VecDeque::with_capacity(plan.connections as usize),
            resting: BinaryHeap::new(),
            sending: Sending::No,
            window: None,
            arrivals: plan.schedule().map(Clock::new),
            offered_until: now,
            arrivals_given: 0,
            arrivals_sent: 0,
            arrivals_left: 0,
            arrivals_given_up: 0,
            sends_per_turn_max,
            clients_started: 0,
            connecting: 0,
            carried: 0,
            in_flight: 0,
            done: 0,
            random: plan.seed,
            progress_at: now + PROGRESS_INTERVAL,
            progress_answers: 0,
            answers: 0,
            answered: 0,
            accepted: 0,
            latency: latencies(),
            from_sending: latencies(),
            lateness: latencies(),
            statuses: vec![0; 1000],
            acknowledged_requests: 0,
            unanswered_requests: 0,
            pauses: 0,
            connections_lost: 0,
            connects_failed: 0,
            connect_error: None,
            levels_missed: 0,
            level: None,
            first_acknowledged_requests: 0,
            each: Vec::new(),
        })
    }

    fn connect_all(&mut self) -> Result<(), LoadError> {
        if self.plan.lifetime == Lifetime::PerRequest {
            for client in 0..self.plan.connections {
                self.make_idle(client, self.net.now());
            }
            self.clients_started = self.plan.connections;
            return Ok(());
        }
        let deadline = Instant::now() + CONNECT_PATIENCE;
        self.turns_until(deadline, Until::Connected)?;
        let connected = self.idle_clients();
        if connected < self.clients.len() {
            return Err(LoadError::Connect {
                connected,
                wanted: self.plan.connections,
                last: self.connect_error.take(),
            });
        }
        Ok(())
    }

    /// Clients that could send at once.
    fn idle_clients(&self) -> usize {
        self.clients.iter().filter(|client| client.state == State::Idle).count()
    }

    fn begin(&mut self) {
        self.sending = Sending::Since(Instant::now());
    }

    fn open_window(&mut self) {
        self.window = Some(Instant::now());
    }

    fn end(&mut self) {
        if let (Sending::Since(since), Some(clock)) = (self.sending, &mut self.arrivals) {
            let left = clock.take_all(nanos(self.offered_until.saturating_duration_since(since)));
            // Nothing is sent any more, so nobody's patience is long enough.
            match self.plan.patience {
                None => self.arrivals_left = left,
                Some(_) => self.arrivals_given_up += left,
            }
        }
        self.window = None;
        self.sending = Sending::No;
    }

    /// Turns until the deadline, or until what is waited for is true.
    fn turns_until(&mut self, deadline: Instant, until: Until) -> Result<(), LoadError> {
        loop {
            let now = Instant::now();
            let is_reached = match until {
                Until::Time => false,
                Until::Connected => {
                    self.idle.len() >= self.clients.len() && self.idle_clients() == self.clients.len()
                }
                Until::AllDone => self.done as usize == self.clients.len(),
                Until::Accepted(requests) => self.acknowledged_requests >= requests,
                Until::NothingInFlight => self.in_flight == 0,
            };
            if is_reached || now >= deadline {
                if until == Until::Time && self.arrivals.is_some() {
                    // A last turn that ended late must not hide what was due by then, nor what reads the clocks
                    // after it add what was due later.
                    self.offer(deadline);
                    self.offered_until = deadline;
                }
                return Ok(());
            }
            if self.live.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Stopped);
            }
            self.tell_progress(now);
            let wait = match self.offer(now) {
                Some(more_at) if more_at <= now => Wait::No,
                Some(more_at) => Wait::Until(more_at.min(deadline).min(now + TICK)),
                None => Wait::Until(deadline.min(now + TICK)),
            };
            self.net.turn(wait).map_err(LoadError::Ring)?;
            self.take_events();
            self.live.answers.store(self.answers, Ordering::Relaxed);
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        if now < self.progress_at {
            return;
        }
        self.progress_at = now + PROGRESS_INTERVAL;
        if self.sending != Sending::No {
            let line = format!(
                "  {:>9} requests/s   p99 {:>8.0} µs   in flight {:>6}   pauses {}",
                self.answers - self.progress_answers,
                self.latency.value_at_quantile(0.99) as f64 / 1e3,
                self.in_flight,
                self.pauses
            );
            self.plan.progress.say(&line);
        }
        self.progress_answers = self.answers;
    }

    fn outcome(self, usage: Usage, resident_bytes: [Option<u64>; 3]) -> Outcome {
        let batch = u64::from(self.plan.batch);
        let statuses = self.statuses.iter().zip(0..).filter(|(count, _)| **count > 0);
        Outcome {
            usage,
            answered: self.answered,
            accepted: self.accepted,
            latency: self.latency,
            from_sending: self.from_sending,
            lateness: self.lateness,
            statuses: statuses.map(|(count, status)| (status, *count)).collect(),
            acknowledged_samples: self.acknowledged_requests * batch,
            unanswered_samples: (self.unanswered_requests + u64::from(self.in_flight)) * batch,
            arrivals_given_up: self.arrivals_given_up,
            arrivals_unsent: self.arrivals_left + self.arrivals_given - self.arrivals_sent,
            pauses: self.pauses,
            connections_lost: self.connections_lost,
            connects_failed: self.connects_failed,
            levels_missed: self.levels_missed,
            level: self.level,
            first_acknowledged_samples: self.first_acknowledged_requests * batch,
            each: self.each,
            resident_bytes,
        }
    }
}

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// From a microsecond to ten minutes; what is longer counts as that.
pub(crate) fn latencies() -> Latencies {
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).expect("the bounds are constants that it accepts")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
