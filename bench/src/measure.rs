//! What a run costs: readings of processes and cores, and the difference between two.
//!
//! Owner: the generator's thread, which takes one reading where the measured window begins and one where it ends.
//! Always: what the kernel does not tell is absent, never 0.
//! Not here: latency, which the load keeps itself.
//! Read next: `measure/process.rs` for CPU and memory, `measure/core.rs` for idle cores, `measure/listener.rs` for
//! whose port it is.

use crate::measure::core::CoreTime;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

pub(crate) mod core;
pub(crate) mod device;
pub(crate) mod listener;
pub(crate) mod machine;
pub(crate) mod process;

/// Who is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subjects {
    /// The server's processes; empty when it is not on this machine.
    pub pids: Vec<u32>,
    /// The server's cores.
    pub server_cores: Vec<usize>,
    /// The generator's own.
    pub generator_core: Option<usize>,
}

impl Subjects {
    /// Completes what was not given: the processes that listen on the port, their children, and the cores that their
    /// threads are pinned to.
    pub(crate) fn complete(mut self, server: SocketAddr) -> Subjects {
        if self.pids.is_empty() {
            self.pids = listener::pids(server);
        }
        self.pids = process::with_descendants(&self.pids);
        if self.server_cores.is_empty() {
            let pinned: BTreeSet<usize> =
                self.pids.iter().flat_map(|pid| process::pinned_cores(*pid)).collect();
            self.server_cores = pinned.into_iter().collect();
        }
        self
    }

    /// Whether generator and server share a core, which spoils every figure.
    pub(crate) fn share_a_core(&self) -> bool {
        self.generator_core.is_some_and(|core| self.server_cores.contains(&core))
    }

    /// Resident bytes of the server.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        self.sum(process::resident_bytes)
    }

    /// Reads every clock once. Must be called on the generator's thread.
    pub(crate) fn read(&self) -> Reading {
        Reading {
            at: Instant::now(),
            server_cpu_ns: self.sum(process::cpu_ns),
            server_switches: self.sum(process::context_switches),
            server_cores: core::read(&self.server_cores),
            generator_cpu_ns: shard::clock::thread_cpu_nanos(),
            generator_core: self.generator_core.and_then(|core| core::read(&[core])),
        }
    }

    /// The sum over the server's processes, if there are any and all can be read.
    fn sum(&self, read: fn(u32) -> Option<u64>) -> Option<u64> {
        if self.pids.is_empty() {
            return None;
        }
        self.pids.iter().map(|pid| read(*pid)).sum()
    }
}

/// All clocks at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    server_cpu_ns: Option<u64>,
    server_switches: Option<u64>,
    server_cores: Option<CoreTime>,
    generator_cpu_ns: u64,
    generator_core: Option<CoreTime>,
}

/// What was used between two readings.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    /// Between them.
    pub seconds: f64,
    /// Processor time of all of the server's threads.
    pub server_cpu_ns: Option<u64>,
    /// Voluntary and involuntary.
    pub server_switches: Option<u64>,
    /// Share of the server's cores that was not idle, 0..=1.
    pub server_busy: Option<f64>,
    /// Processor time of the generator's thread.
    pub generator_cpu_ns: u64,
    /// Share of the generator's core that was not idle, 0..=1.
    pub generator_busy: Option<f64>,
}

impl Usage {
    /// From `begin` to `end`.
    pub(crate) fn between(begin: &Reading, end: &Reading) -> Usage {
        let grown = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let busy = |from: &Option<CoreTime>, to: &Option<CoreTime>| {
            from.as_ref().zip(to.as_ref()).and_then(|(from, to)| from.busy_until(to))
        };
        Usage {
            seconds: end.at.duration_since(begin.at).as_secs_f64(),
            server_cpu_ns: grown(begin.server_cpu_ns, end.server_cpu_ns),
            server_switches: grown(begin.server_switches, end.server_switches),
            server_busy: busy(&begin.server_cores, &end.server_cores),
            generator_cpu_ns: end.generator_cpu_ns.saturating_sub(begin.generator_cpu_ns),
            generator_busy: busy(&begin.generator_core, &end.generator_core),
        }
    }
}
